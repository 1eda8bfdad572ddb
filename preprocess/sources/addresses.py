"""Addresses of sources: URLs as fsspec knows them, also chained ones such as `zip://a.nc::https://server/b.zip`."""

from driftcal.preprocess.sources import formats
from driftcal.shared.errors import DataError

CACHES = ("simplecache::", "filecache::", "blockcache::")
"""Protocols that cache their reads; the first two cache whole files."""

_WEB_SCHEMES = ("http://", "https://")
FILE_ENDINGS = (".nc", ".nc3", ".nc4", ".cdf", ".h5", ".csv", ".gz", ".parquet", ".zip", ".json")
"""Endings of the names of files that are no zarr stores."""


def is_url(path: str) -> bool:
    """Tells whether `path` is reached through fsspec; `file://` is as good as a local path."""
    return "::" in path or ("://" in path and not path.startswith("file://"))


def bare(url: str) -> str:
    """First part of a URL, without the query or fragment of a web address and without the rest of a chain."""
    first = url.partition("::")[2] if url.startswith(CACHES) else url
    first = first.partition("::")[0]
    return first.partition("?")[0].partition("#")[0] if first.startswith(_WEB_SCHEMES) else first


def child(url: str, name: str) -> str:
    """URL of the file `name` in the folder behind `url`, which may be chained to others."""
    before, chain, after = url.partition("::")
    if url.startswith(CACHES):
        return f"{before}::{child(after, name)}"
    folder = before if before.endswith("://") else f"{before.rstrip('/')}/"
    return f"{folder}{name}{chain}{after}"


def is_web(path: str) -> bool:
    """Tells whether `path` is read from a web server, which lists nothing: files must be requested one by one."""
    return path.rpartition("::")[2].startswith(_WEB_SCHEMES)


def check(url: str) -> None:
    """Refuses addresses that no file can be read from."""
    last = url.rpartition("::")[2]
    if last.startswith(_WEB_SCHEMES) and "/dodsC/" in last:
        raise DataError(
            f"{url} is an address of OPeNDAP, from which no file can be fetched. Give the file itself: on a THREDDS "
            f"server {last.replace('/dodsC/', '/fileServer/')}."
        )
    if url.startswith("reference://"):
        raise DataError(f"{url}: {formats.advice(formats.REFERENCES, last)}")
    if last.startswith(_WEB_SCHEMES) and bare(url) != last and bare(url).rstrip("/").endswith(".zarr"):
        raise DataError(
            f"{url}: a zarr store cannot be read behind an address with a query, as each of its files needs an address "
            "of its own. Download the store, or give it by the service's own scheme (s3://, abfs://, gs://)."
        )
