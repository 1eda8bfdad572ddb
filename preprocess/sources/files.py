"""Files of a source, drifters or currents: found, and opened undecoded.

A source is a path, a glob or an fsspec URL. Files behind a URL are downloaded whole, once in a process; zarr stores
are read in place. `reading` and `opened` hold the one lock that netCDF-C needs, and say in a `DataError` which file
cannot be read.
"""

import contextlib
import csv
import errno
import functools
import glob
import lzma
import threading
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import numpy as np
import xarray as xr
import zarr

from driftcal.preprocess.sources import addresses, formats
from driftcal.preprocess.sources.formats import Format
from driftcal.shared.disk import litter, temporary
from driftcal.shared.errors import DataError

try:
    from aiohttp import ClientError

    _WEB: tuple[type[Exception], ...] = (ClientError,)
except ImportError:  # an extra, for sources behind http only
    _WEB = ()

READ_ERRORS = (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError,
              zlib.error, lzma.LZMAError, zipfile.BadZipFile, csv.Error, *_WEB)  # fmt: skip
"""Exceptions of xarray, netCDF4, zarr, pandas and fsspec for files that are missing, damaged or something else."""

STORE_DOCUMENTS = ("zarr.json", ".zmetadata", ".zgroup")
"""Files of which a zarr store has at least one."""

PAUSES = (0.2, 1.0, 3.0)
"""Waits before a read that failed for a passing reason is tried again [s]."""

_PASSING = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED,
            errno.ECONNABORTED, errno.EPIPE, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH}  # fmt: skip
"""Error numbers of disks and networks that may not recur."""

_PASSING_STATUS = {408, 429, 500, 502, 503, 504}
"""The same of web servers: they are slow, busy, or restarted."""

Result = TypeVar("Result")

# netCDF-C is not thread-safe, and xarray guards its reads but not the opening and closing of files.
_NETCDF_LOCK = threading.RLock()


def find(path: str, where: str) -> list[str]:
    """The files and zarr stores that `path` (a path, glob or URL) names: absolute paths or URLs, sorted by name.

    Raises:
        DataError: nothing is there, or it cannot be reached.
    """
    try:
        if addresses.is_url(path):
            paths = retried(lambda: _find_url(path.removeprefix("simplecache::")))
        else:
            local = str(Path(path.removeprefix("file://")).expanduser().absolute())
            paths = [local]
            if not Path(local).exists():
                # Path.glob would match hidden files too.
                paths = sorted(litter.unless_named(glob.glob(local, recursive=True), local))  # noqa: PTH207
    except READ_ERRORS as error:
        otherwise = "Check the address, and access to it."
        if addresses.is_web(path) and "range requests" in str(error):
            archive = path.rpartition("::")[2]
            otherwise = f"Let the archive be fetched whole: {path.replace(archive, f'simplecache::{archive}')}."
        remedy = _remedy(error, otherwise)
        raise DataError(f"{where} cannot be reached ({brief(error)}). {remedy}") from error
    if not paths:
        section = where.partition(" ")[0]
        raise DataError(
            f"{where}: nothing is there; expected a file, a glob of files, or a zarr store. Correct {section}.path in "
            "the manifest (relative paths start at the working directory)."
        )
    return paths


def _find_url(url: str) -> list[str]:
    addresses.check(url)
    system, root = fsspec.core.url_to_fs(url)
    if system.exists(root) or (
        addresses.is_web(url) and documents(url)
    ):  # many web servers know files only, no folders
        return [url]
    name, chain, rest = url.partition("::")
    if (
        not glob.has_magic(addresses.bare(url))
        or url.startswith(addresses.CACHES)
        or (chain and addresses.is_web(name))
    ):
        if addresses.is_web(url):  # fsspec says of a server that does not answer, too, that nothing exists there
            with contextlib.suppress(FileNotFoundError):
                system.cat_file(root, 0, 1)
        return []
    members = litter.unless_named(system.glob(root), root)
    if not chain:
        return sorted(system.unstrip_protocol(member) for member in members)
    scheme = name.partition("://")[0]
    return sorted(f"{scheme}://{member}::{rest}" for member in members)


def is_zarr(path: str) -> bool:
    """Tells whether `path` is to be read as a zarr store: a local folder, or a URL that names one."""
    if addresses.is_url(path):
        return _is_remote_zarr(path)
    return Path(path).is_dir() or (path.endswith(".zarr") and not Path(path).is_file())


@functools.cache
def _is_remote_zarr(url: str) -> bool:
    name = addresses.bare(url).rstrip("/")
    if name.endswith(".zarr"):
        return True
    if name.endswith(addresses.FILE_ENDINGS):
        return False
    return bool(documents(url))


def documents(url: str) -> list[str]:
    """The metadata files of a store behind `url`."""
    if addresses.is_web(url) and addresses.bare(url) != url.rpartition("::")[2]:
        return []  # a server may answer with the file itself, whatever is written after a query
    names = []
    for name in STORE_DOCUMENTS:
        system, root = fsspec.core.url_to_fs(addresses.child(url, name))
        if system.exists(root):
            names.append(name)
    return names


def local_file(path: str) -> Path:
    """The file itself, or the local copy of a URL."""
    return _download(path) if addresses.is_url(path) else Path(path)


@functools.cache
def _download(url: str) -> Path:
    # fsspec's own memory of its copies is one per thread: each would download the file again.
    cached = url.startswith(addresses.CACHES[:2])

    def copy() -> Path:
        # not fsspec.open_local, which takes the `?` of a query for a pattern
        system, root = fsspec.core.url_to_fs(url if cached else f"simplecache::{url}")
        with system.open(root) as file:
            return Path(file.name)

    try:
        return retried(copy)
    except OSError as error:
        if temporary.is_lacking(error):
            raise temporary.lacking(f"the local copy of {url}", error) from error
        raise


def retried(read: Callable[[], Result]) -> Result:
    """Returns `read()`, called up to three times more if it fails for a passing reason.

    Errors of the data, and errors that persist, are raised as they came.
    """
    for pause in PAUSES:
        try:
            return read()
        except (OSError, *_WEB) as error:
            if not _is_passing(error):
                raise
        time.sleep(pause)
    return read()


def _is_passing(error: Exception) -> bool:
    if isinstance(error, OSError):  # those of aiohttp that are one too
        return isinstance(error, TimeoutError) or error.errno in _PASSING
    return getattr(error, "status", None) in {None, *_PASSING_STATUS}  # without any it was cut off


@contextmanager
def reading(path: str, where: str, subject: str) -> Iterator[None]:
    """Takes the lock that reading from `path` needs, and names `subject`, of the source `where`, in errors."""
    try:
        with _guard(path):
            yield
    except READ_ERRORS as error:
        raise DataError(
            f"{where}: {subject} cannot be read ({brief(error)}). "
            f"{_remedy(error, 'The file is damaged or has changed: check it, or fetch it again.')}"
        ) from error


@contextmanager
def opened(path: str, where: str, without: Sequence[str] = ()) -> Iterator[xr.Dataset]:
    """The NetCDF file or zarr store at `path`, lazy and as it is stored; values are read inside `reading`.

    Variables `without` which it is of use are left out: xarray reads coordinates when it opens a file.
    """
    try:
        with _guard(path):
            dataset = retried(lambda: _open(path, list(without)))
    except READ_ERRORS as error:
        if (kind := content(path)) is not None and kind.remedy:
            raise DataError(
                f"{where}: expected a NetCDF file or a zarr store, but {formats.advice(kind, path)}"
            ) from error
        raise DataError(
            f"{where}: expected a NetCDF file or a zarr store, but it does not open as one ({brief(error)}). "
            f"{_remedy(error, 'Check the file, or fetch it again.')}"
        ) from error
    try:
        yield dataset
    finally:
        with _guard(path):
            dataset.close()


def content(path: str) -> Format | None:
    """Format of the file at `path` by its first bytes; None where it is a store, cannot be read, or is not known."""
    if is_zarr(path):
        return None
    try:
        return formats.tell(local_file(path))
    except READ_ERRORS:  # its caller says why it cannot be read
        return None


def _remedy(error: BaseException, otherwise: str) -> str:
    """Remedy for a file that cannot be read."""
    return "Check your permissions there." if isinstance(error, PermissionError) else otherwise


def _open(path: str, without: list[str]) -> xr.Dataset:
    raw: dict[str, Any] = {"decode_cf": False, "cache": False, "drop_variables": without}
    if not is_zarr(path):
        return xr.open_dataset(local_file(path), engine="netcdf4", **raw)
    if not addresses.is_url(path) and not any((Path(path) / name).exists() for name in STORE_DOCUMENTS):
        if (Path(path) / "snapshots").is_dir() and (Path(path) / "manifests").is_dir():
            raise FileNotFoundError("an Icechunk repository; write a snapshot of it as zarr, and give that")
        raise FileNotFoundError(f"a folder without zarr metadata; for files in it give {path}/*.nc")
    if not addresses.is_url(path) and next(Path(path).glob("*/refs.*.parq*"), None) is not None:
        raise FileNotFoundError(formats.advice(formats.REFERENCES, path))
    try:
        dataset = xr.open_dataset(path, engine="zarr", chunks=None, consolidated=True, **raw)
    except (ValueError, KeyError):
        # No consolidated metadata, or no zarr at all: xarray would warn about the first, and says the second here.
        with warnings.catch_warnings():
            # what systems leave in folders is no part of the source, nor of what identifies it
            warnings.filterwarnings("ignore", "Object at .* is not recognized as a component of a Zarr hierarchy")
            dataset = xr.open_dataset(path, engine="zarr", chunks=None, consolidated=False, **raw)
    _without_default_fills(dataset, path)
    return dataset


def _without_default_fills(dataset: xr.Dataset, path: str) -> None:
    """Removes the `_FillValue` of 0 that xarray derives from zarr v2's `fill_value`, unless an attribute declares it.

    0 is what zarr writes where nobody has chosen a fill value: a current of 0 or a drogue that is lost is not missing.
    Of numbers with an offset it is no zero, and was chosen.
    """
    attributes = {name: variable.attrs for name, variable in dataset.variables.items()}
    zero = [
        name
        for name, given in attributes.items()
        if _is_zero(given.get("_FillValue")) and _is_zero(given.get("add_offset", 0))
    ]
    if zero:
        group = zarr.open_group(path, mode="r")
        for name in zero:
            if "_FillValue" not in group[str(name)].attrs:
                del dataset.variables[name].attrs["_FillValue"]


def _is_zero(fill: Any) -> bool:
    return isinstance(fill, int | float | np.number | np.bool_) and bool(fill == 0)


def _guard(path: str) -> AbstractContextManager[Any]:
    return nullcontext() if is_zarr(path) else _NETCDF_LOCK


def brief(error: BaseException) -> str:
    """`error` in one line, for a message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
