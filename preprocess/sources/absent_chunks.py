"""Chunks that a zarr store lacks: zarr reads its fill value there, whether they were never written or not copied.

Writers leave out chunks that hold nothing but the fill value, so an absent chunk is no proof of a copy that is
unfinished. Where the fill value means missing it makes no difference; elsewhere it looks like data.
"""

import itertools
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import xarray as xr
import zarr
from fsspec.implementations.local import LocalFileSystem

from driftcal.preprocess.sources import addresses, files
from driftcal.preprocess.sources.encoding import Encoding
from driftcal.shared.errors import DataError

_NOWHERE = 2**64 - 1
"""Offset and length in the index of a shard of a chunk that is not in it (zarr v3, codec `sharding_indexed`)."""


@dataclass(frozen=True)
class Absence:
    """Chunks that an array lacks, if any.

    Attributes:
        name: Name of the variable.
        absent: Number of chunks that are not there.
        chunks: Number of all chunks.
        fill: Value that is read there.
        is_missing: True if that means missing.
        size: Numbers in the array.
        chunk_size: Numbers in a chunk.
    """

    name: str
    absent: int
    chunks: int
    fill: object
    is_missing: bool
    size: int
    chunk_size: int

    def __str__(self) -> str:
        return f"{self.absent} of {self.chunks} chunks of {self.name!r} are not in the store"


def absences(path: str, dataset: xr.Dataset, names: Sequence[str]) -> list[Absence]:
    """Chunks that the variables `names` of a store lack, in that order; those that lack nothing are left out.

    Of a web server's stores nothing is known: it lists nothing.

    Args:
        path: The source; of one that is no zarr store nothing is lacking.
        dataset: The same, opened.
        names: Variables of it.
    """
    if not files.is_zarr(path) or addresses.is_web(path):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(path, mode="r")
    result = []
    for name in names:
        array = group[name]
        if not isinstance(array, zarr.Array) or not array.size:
            continue
        chunks = math.prod(-(-n // size) for n, size in zip(array.shape, array.chunks, strict=True))
        absent = sum(_absent(array, path, name))
        if absent:
            fill = np.asarray(array.fill_value if array.fill_value is not None else np.zeros((), array.dtype))
            result.append(
                Absence(
                    name=name,
                    absent=absent,
                    chunks=chunks,
                    fill=fill.item(),
                    is_missing=_is_missing(fill, dataset.variables[name]),
                    size=array.size,
                    chunk_size=math.prod(array.chunks),
                )
            )
    return result


def refuse_unwritten(absent: Sequence[Absence], where: str) -> None:
    """Refuses variables of which no chunk at all is there, unless that is a single number.

    Raises:
        DataError: there is one.
    """
    for absence in absent:
        if absence.absent == absence.chunks and absence.size > 1:
            raise DataError(f"{where}: {absence}, only their metadata. The copy is unfinished: fetch it again.")


def refuse_values(absent: Sequence[Absence], where: str) -> None:
    """Refuses variables whose absent chunks are read as a number that is neither missing nor 0.

    Raises:
        DataError: there is one.
    """
    for absence in absent:
        if not absence.is_missing and absence.fill != 0:
            raise DataError(
                f"{where}: {absence}, and their fill_value {absence.fill} would be read there as if it were a number. "
                f"If the copy is unfinished, fetch it again; if {absence.fill} means missing, give the array the "
                f"attribute `_FillValue` {absence.fill}."
            )


def _is_missing(fill: np.ndarray, variable: xr.Variable) -> bool:
    if fill.dtype.kind not in "iuf" or variable.dtype.kind not in "iuf":
        return False
    encoding = Encoding.of(variable.dtype, variable.attrs, "")
    return bool(encoding.missing(fill.astype(variable.dtype)[None])[0])


def _absent(array: zarr.Array, path: str, name: str) -> Iterator[int]:
    """Number of chunks that the objects of an array, chunks or shards, lack; those that are whole are left out."""
    system, root = fsspec.core.url_to_fs(path)
    base = f"{root.rstrip('/')}/{name}/"
    there, shape, chunks, key_of = _keys(system, base), array.shape, array.chunks, array.metadata.encode_chunk_key
    is_sharded, sizes = array.shards is not None, array.shards or chunks
    for place in itertools.product(*(range(-(-n // size)) for n, size in zip(shape, sizes, strict=True))):
        key = key_of(place)
        if key in there and not is_sharded:
            continue
        # chunks of this object that lie inside the array
        inner = tuple(
            -(-min(size, n - k * size) // chunk) for k, n, size, chunk in zip(place, shape, sizes, chunks, strict=True)
        )
        if key not in there:
            yield math.prod(inner)
        elif (index := _index(array, system, base + key)) is not None:
            yield int(index[tuple(slice(n) for n in inner)].sum())


def _keys(system: fsspec.AbstractFileSystem, base: str) -> set[str]:
    """Keys of the objects below the folder `base`; on this machine without asking for the size of each."""
    if not isinstance(system, LocalFileSystem):
        return {file[len(base) :] for file in system.find(base.rstrip("/"))}

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # an array of which nothing was copied
            raise error

    walked = os.walk(base.rstrip("/"), onerror=fail, followlinks=True)
    return {f"{folder}/{name}"[len(base) :] for folder, _, names in walked for name in names}


def _index(array: zarr.Array, system: fsspec.AbstractFileSystem, file: str) -> np.ndarray | None:
    """Marks the chunks that a shard lacks, bool of the shape of its chunks; None where its index is of another kind."""
    outermost: Any = array.metadata.to_dict()["codecs"]
    if array.shards is None or outermost[0]["name"] != "sharding_indexed":
        return None
    codec = outermost[0]["configuration"]
    kinds = [kind["name"] for kind in codec["index_codecs"]]
    if kinds not in (["bytes"], ["bytes", "crc32c"]):
        return None
    shape = tuple(shard // chunk for shard, chunk in zip(array.shards, array.chunks, strict=True))
    size, check = 16 * math.prod(shape), 4 * (len(kinds) - 1)
    at_end = codec["index_location"] == "end"
    content: Any = system.cat_file(file, -size - check if at_end else 0, None if at_end else size)
    return (np.frombuffer(content[:size], "<u8").reshape(*shape, 2) == _NOWHERE).all(axis=-1)
