"""Fingerprints of sources: content, size and time of change.

The `fingerprint` of the content goes into the manifest, and stays the same wherever and whenever the data are copied.
The `state` has times of change, by which a continued run recognises that a file was replaced.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

import fsspec

from driftcal.preprocess.sources import addresses, files
from driftcal.shared.disk import litter
from driftcal.shared.errors import DataError

WHOLE = 64 * 2**20
"""Sources of at most this size [bytes] are fingerprinted by their content."""

_CHANGES = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""Names that file systems give to the mark or the time of the last change, most specific first."""


@dataclass(frozen=True)
class Entry:
    """One file of a source."""

    name: str
    """Base name, preceded by the store's for a file inside a zarr store."""
    size: int
    """[bytes]"""
    changed: str
    """Mark or time of the last change."""
    place: str
    """Local path or URL."""


def entries(paths: Sequence[str], where: str) -> tuple[Entry, ...]:
    """Entries that a source consists of, sorted by name; for a zarr store behind a URL only the metadata.

    Listing all chunks of a remote store can take longer than reading the part of it that a run needs.
    """
    try:
        contents = files.retried(lambda: [entry for path in paths for entry in _entries(path)])
        return tuple(sorted(contents, key=lambda e: (e.name, e.place)))
    except files.READ_ERRORS as error:
        raise DataError(f"{where} cannot be read ({files.brief(error)}). Check the path.") from error


def _entries(path: str) -> Iterator[Entry]:
    base = (addresses.bare(path) if addresses.is_url(path) else path).rstrip("/").rpartition("/")[2]
    if addresses.is_url(path):
        inside = files.documents(path) if files.is_zarr(path) else [""]
        for name in inside:
            place = addresses.child(path, name) if name else path
            system, root = fsspec.core.url_to_fs(place)
            info = system.info(root)
            changed = next((str(info[key]) for key in _CHANGES if info.get(key)), "")
            size = int(info.get("size") or 0) if name else files.local_file(path).stat().st_size
            yield Entry(f"{base}/{name}" if name else base, size, changed, place)
        return
    local = Path(path)
    within = (file for file, left in litter.walk(local) if not left)
    for file in within if local.is_dir() else [local]:
        stat = file.stat()
        if S_ISREG(stat.st_mode) or file == local:
            name = file.relative_to(local.parent).as_posix()
            yield Entry(name, stat.st_size, str(stat.st_mtime_ns), str(file))


def fingerprint(path: str, contents: Sequence[Entry], where: str) -> dict[str, Any]:
    """Fingerprint of the content of a source, as JSON; the same for the same files wherever they lie.

    Args:
        path: The source as the manifest names it.
        contents: Its files.
        where: The source, for messages.

    Returns:
        `path`; `files`, their number; `bytes`, their size together; `sha256` of the sorted names and sizes, and of
        the content too up to 64 MiB in all.
    """
    digest, total = hashlib.sha256(), sum(entry.size for entry in contents)
    try:
        for entry in contents:
            digest.update(f"{entry.name}\0{entry.size}\0".encode())
            if total <= WHOLE:
                digest = files.retried(lambda place=entry.place, before=digest: _with_content(before, place))
    except files.READ_ERRORS as error:
        raise DataError(f"{where} cannot be read ({files.brief(error)}). Check the path.") from error
    return {"path": path, "files": len(contents), "bytes": total, "sha256": digest.hexdigest()}


def _with_content(before: "hashlib._Hash", place: str) -> "hashlib._Hash":
    """The digest `before`, which is not changed, extended by the content of the file at `place`."""
    digest = before.copy()
    if addresses.is_url(place) and place.endswith(files.STORE_DOCUMENTS):
        system, name = fsspec.core.url_to_fs(place)
        digest.update(system.cat_file(name))
        return digest
    with files.local_file(place).open("rb", buffering=0) as file:
        hashlib.file_digest(file, lambda: digest)
    return digest


def state(contents: Sequence[Entry]) -> dict[str, Any]:
    """State of a source, as JSON, which differs after any of its files was changed or replaced."""
    every = "\0".join(f"{entry.name}\0{entry.size}\0{entry.changed}" for entry in contents)
    return {
        "files": len(contents),
        "bytes": sum(entry.size for entry in contents),
        "changed": max((entry.changed for entry in contents), default=""),
        "sha256": hashlib.sha256(every.encode()).hexdigest(),
    }
