"""One file of drifters: NetCDF, zarr or csv (ERDDAP's too), told apart by content and opened undecoded."""

import csv
import gzip
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from preprocess import files, formats
from preprocess.absent_chunks import absences, refuse_unwritten
from preprocess.recipe import DrifterSource
from preprocess.roles import DRIFTER_TIERS, listing, require, resolve
from shared.errors import DataError


@contextmanager
def opened(path: str, where: str) -> Iterator[xr.Dataset]:
    """The NetCDF file or zarr store at `path`, as `files.opened` gives it."""
    with ExitStack() as stack:
        with warnings.catch_warnings():
            # Text types that zarr has no specification for are of no concern to a reader.
            warnings.simplefilter("ignore")
            dataset = stack.enter_context(files.opened(path, where))
        yield dataset


def read_csv(path: str, where: str, source: DrifterSource) -> xr.Dataset | None:
    """The content of the csv file at `path`; None where it is NetCDF or zarr.

    Raises:
        DataError: the file is missing, damaged, or something else.
    """
    if files.is_zarr(path):
        return None
    try:
        local = files.local_file(path)
        with local.open("rb") as stream:
            start = stream.read(4096)
        if start.startswith((b"CDF", b"\x89HDF")):
            return None
        packed = start.startswith(b"\x1f\x8b")
        text = formats.of(start) is None and b"," in start.partition(b"\n")[0] and b"\0" not in start
        if packed or text:
            return _columns(local, packed, where, source)
    except files.UNREADABLE as error:
        raise DataError(f"{where} cannot be read ({files.brief(error)}). Check it, or fetch it again.") from error
    known = files.content(path)
    said = formats.advice(known, path) if known is not None and known.remedy else "Give one of these."
    raise DataError(f"{where} is neither NetCDF, zarr nor csv (it starts with {start[:8]!r}): {said}")


def resolve_names(dataset: xr.Dataset, source: DrifterSource, where: str) -> dict[str, str]:
    """The variable of each role that is there."""
    given = source.variables.get
    names = {r: require(dataset, r, DRIFTER_TIERS[r], given(r), where) for r in ("lat", "lon", "time")}
    # A scalar `id` is left over from selecting one trajectory: it names the drifter only where nothing else does.
    vectors = dataset.drop_vars([name for name, variable in dataset.variables.items() if not variable.ndim])
    for role in ("id", "rowsize", "gap", "drogue"):
        name = resolve(dataset if given(role) else vectors, role, DRIFTER_TIERS[role], given(role), where)
        if name is None and role == "id":
            name = require(dataset, role, DRIFTER_TIERS[role], None, where)
        if name is not None:
            names[role] = name
    return names


def _columns(path: Path, packed: bool, where: str, source: DrifterSource) -> xr.Dataset:
    """The columns that play a role, on a dimension `fix`; ERDDAP's line of units becomes attributes."""
    with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as text:
        lines = csv.reader(text)
        cells, second = [cell.strip() for cell in next(lines)], next(lines, [])
    # ERDDAP's csvp writes `latitude (degrees_north)`.
    parts = [re.fullmatch(r"(.*?)\s*\((.*)\)", cell) for cell in cells]
    header = [part[1] if part else cell for part, cell in zip(parts, cells, strict=True)]
    if len(set(header)) < len(header):
        raise DataError(f"{where}: two columns have the same name; found {listing(header)}. Rename one.")
    names = resolve_names(xr.Dataset({name: ("fix", np.empty(0)) for name in header}), source, where)
    names.pop("rowsize", None)
    units = dict(zip(header, (part[2] if part else "" for part in parts), strict=True))
    latitude = second[header.index(names["lat"])].strip() if len(second) == len(header) else ""
    has_units = bool(latitude) and re.fullmatch(r"[-+.\d].*|(?i:nan|inf|na|null)", latitude) is None
    if has_units:
        units = dict(zip(header, second, strict=True))
    numeric = {names[role] for role in ("lat", "lon", "gap") if role in names}
    frame = pd.read_csv(
        path,
        header=None,
        names=header,
        skiprows=2 if has_units else 1,
        usecols=list(names.values()),
        dtype={name: "float64" if name in numeric else "str" for name in names.values()},
        compression="gzip" if packed else None,
        encoding="utf-8-sig",
        skipinitialspace=True,
    )
    columns = {name: frame[name].to_numpy() for name in numeric}
    for role in ("id", "time", "drogue"):
        if role in names:
            texts = frame[names[role]].fillna("").to_numpy(object)
            # Tables that passed through floats have ids such as 104099.0.
            whole = np.array([re.sub(r"\.0+$", "", text) for text in texts], dtype=object) if role == "id" else texts
            columns[names[role]] = whole if role == "id" else _numbers_or_text(texts)
    return xr.Dataset({name: ("fix", column, {"units": units[name]}) for name, column in columns.items()})


def _numbers_or_text(texts: np.ndarray) -> np.ndarray:
    """A csv column as float64 where it holds numbers or truth values, else as the text it was."""
    truth = {"true": 1.0, "false": 0.0, "": np.nan}
    try:
        return np.array([truth[t.lower()] if t.lower() in truth else float(t) for t in texts], np.float64)
    except ValueError:
        return texts


def check_chunks(path: str, dataset: xr.Dataset, names: Mapping[str, str], fill: bool, where: str) -> None:
    """Refuses a zarr store whose chunks are missing where zarr would read data in their place, or all of them.

    Args:
        path: The store; other files have no chunks to miss.
        dataset: The same, opened.
        names: The variable of each role.
        fill: Whether the manifest says that absent chunks are the fill value.
        where: The source, for messages.
    """
    found = absences(path, dataset, [names[role] for role in ("lat", "lon", "time", "id")])
    # there may be one drifter, whose name is 0
    refuse_unwritten([absence for absence in found if absence.name != names["id"]], where)
    for absence in found:
        lone = absence.name == names["id"] and absence.absent == absence.chunks
        if not (fill or lone or absence.is_missing or absence.chunk_size == 1):
            raise DataError(
                f"{where}: {absence}, and {absence.fill!r} would be read there. Either the copy is unfinished: fetch "
                f"it again. Or all numbers in them are {absence.fill!r}, and were left out for that: then set "
                "drifters.absent_chunks: fill in the manifest, or write the store again with "
                "write_empty_chunks=True."
            )
