"""One drifter file: NetCDF, zarr, Parquet or a text table, recognised by content and opened undecoded."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import xarray as xr

from driftcal.preprocess.recipe import DrifterSource
from driftcal.preprocess.sources import addresses, files, formats
from driftcal.preprocess.sources.absent_chunks import absences, refuse_unwritten
from driftcal.preprocess.sources.drifters import dialect, parquet, tables
from driftcal.shared.errors import DataError


@contextmanager
def opened(path: str, where: str) -> Iterator[xr.Dataset]:
    """The NetCDF file or zarr store at `path`, as `files.opened` gives it."""
    with ExitStack() as stack:
        with warnings.catch_warnings():
            # Text types that zarr has no specification for are of no concern to a reader.
            warnings.simplefilter("ignore")
            dataset = stack.enter_context(files.opened(path, where))
        yield dataset


def read_table(path: str, where: str, source: DrifterSource) -> tuple[xr.Dataset, dict[str, str]] | None:
    """The table at `path`, in text or Parquet, with the names of its roles; None for NetCDF or zarr.

    Raises:
        DataError: the file is missing, damaged, or something else.
    """
    if files.is_zarr(path):
        folder = Path(path)
        if addresses.is_url(path) or any((folder / name).exists() for name in files.STORE_DOCUMENTS):
            return None
        if not folder.is_dir() or not parquet.is_folder(folder):
            return None
        with _readable(where):
            return parquet.read(folder, where, source)
    with _readable(where):
        local = files.local_file(path)
        with local.open("rb") as stream:
            start = stream.read(formats.START)
        by_start = formats.of(start)
        if by_start is formats.NETCDF:
            return None
        if by_start is formats.PARQUET:
            return parquet.read(local, where, source)
        packed = start.startswith(tuple(magic for magic, _ in dialect.COMPRESSIONS))
        if (packed or by_start is None) and (written := dialect.tell(local, where)) is not None:
            return tables.read(local, written, where, source)
    kind = files.content(path)
    said = formats.advice(kind, path) if kind is not None and kind.remedy else "Give one of these."
    raise DataError(f"{where} is neither NetCDF, zarr nor csv, nor Parquet (it starts with {start[:8]!r}): {said}")


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except files.READ_ERRORS as error:
        raise DataError(f"{where} cannot be read ({files.brief(error)}). Check it, or fetch it again.") from error


def check_chunks(path: str, dataset: xr.Dataset, names: Mapping[str, str], fill: bool, where: str) -> None:
    """Refuses a zarr store if all chunks are missing, or if zarr would read data in place of missing ones.

    Args:
        path: The store; other files have no chunks to miss.
        dataset: The same, opened.
        names: The variable of each role.
        fill: True if the manifest says that absent chunks are the fill value.
        where: The source, for messages.
    """
    absent = absences(path, dataset, [names[role] for role in ("lat", "lon", "time", "id") if role in names])
    # there may be one drifter, whose name is 0
    refuse_unwritten([absence for absence in absent if absence.name != names.get("id")], where)
    for absence in absent:
        lone = absence.name == names.get("id") and absence.absent == absence.chunks
        if not (fill or lone or absence.is_missing or absence.chunk_size == 1):
            raise DataError(
                f"{where}: {absence}, and {absence.fill!r} would be read there. Either the copy is unfinished: fetch "
                f"it again. Or all numbers in them are {absence.fill!r}, and were left out for that: then set "
                "drifters.absent_chunks: fill in the manifest, or write the store again with "
                "write_empty_chunks=True."
            )
