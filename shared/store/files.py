"""The files of a finished store: mapped or read, and refused if they contradict the manifest.

A file is damaged if it is missing, no plain file, or has another size or content. A refusal or failure of the system
to read it is a LimitError, which is never taken for damage.
Nothing here trusts a file: before it is opened it must be a plain file inside the store (a link may lead out, a pipe
never ends), of the size that the manifest lists; zarr's metadata must agree with the schema, since other readers run
any codec that they name.
"""

import contextlib
import errno
import functools
import hashlib
import json
import mmap
import os
import resource
import stat
import weakref
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from driftcal.shared.command import say
from driftcal.shared.disk import limits
from driftcal.shared.errors import LimitError, StoreError
from driftcal.shared.store import manifest, schema, shard_bytes
from driftcal.shared.store.manifest import Manifest
from driftcal.shared.store.schema import ArraySpec
from driftcal.shared.store.shard_bytes import REMEDY

DRIFTERS = "drifters.json"
"""Names of the drifters; the array `drifter` holds positions in this list."""

GROUP = "zarr.json"
SPARE = 256  # file descriptors for everything but shards
_OPEN_FILES = (errno.EMFILE, errno.ENFILE)


@contextlib.contextmanager
def opened(root: Path, name: str, listing: Manifest) -> Iterator[BufferedReader]:
    """Opens the file `name` of the store for reading; errors of reads inside are reported with its path.

    Raises:
        StoreError: the manifest does not list it, it is missing, no plain file, or of another size.
        LimitError: the system refuses or fails to read it, or too many files are open.
    """
    path = root / name
    entry = listing.files.get(name)
    if entry is None:
        raise StoreError(f"{root}: the manifest does not list {name}. {REMEDY}")
    try:
        real = os.path.realpath(path)
        if real != os.path.join(os.path.realpath(root), name):  # noqa: PTH118 - half as slow, and once a file
            raise StoreError(f"{path}: a link, which may lead out of the store. Put the file itself there.")
        status = os.stat(real)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{path}: not a plain file. {REMEDY}")
        if status.st_size != entry.size:
            raise wrong_size(path, status.st_size, entry.size)
        if entry.size == 0:
            raise StoreError(f"{path}: empty. {REMEDY}")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise StoreError(f"{path}: missing. {REMEDY}") from error
    except ValueError as error:  # it has become shorter since
        raise StoreError(f"cannot read {path}: {error}. {REMEDY}") from error
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in _OPEN_FILES:
            raise LimitError(
                f"cannot open {path}: {error}. A store takes two open files a shard, this one "
                f"{2 * listing.layout.n_shards}: allow as many (ulimit -n), or make it again with a larger "
                f"store.samples_per_shard."
            ) from error
        if not limits.concerns(error):
            raise StoreError(f"cannot read {path}: {getattr(error, 'strerror', error)}. {REMEDY}") from error
        raise limits.refused(f"cannot read {path}", error, "the store") from error


def wrong_size(path: Path, size: int, due: int) -> StoreError:
    """The error of a file of `size` bytes that has `due` in the manifest."""
    change = "truncated" if size < due else "extended"
    return StoreError(f"{path}: {size} bytes, expected {due}: {change} or replaced. {REMEDY}")


class Unmapped:
    """A file that the system refuses to map, read piece by piece: `data[first:stop]` are bytes of it, as of a map."""

    def __init__(self, path: Path, file: BufferedReader, size: int):
        self.number = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.number)
        self._path, self._size = path, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> memoryview:
        first, stop, _ = part.indices(self._size)
        pieces, place = [], first
        try:
            while place < stop:
                pieces.append(os.pread(self.number, stop - place, place))
                place += len(pieces[-1])
                if not pieces[-1]:
                    raise wrong_size(self._path, os.fstat(self.number).st_size, self._size)
            return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        except (OSError, MemoryError) as error:
            raise limits.refused(f"cannot read {self._path}", error, "the store") from error


def mapped(root: Path, name: str, listing: Manifest) -> mmap.mmap | Unmapped:
    """The file `name` of the store, memory-mapped read-only; raises as `opened`.

    Where it cannot be mapped, as on some network file systems or within a limit of the address space, it is read.
    """
    with opened(root, name, listing) as file:
        size = listing.files[name].size
        try:
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except OSError as error:
            if error.errno in _OPEN_FILES:
                raise
            _tell_unmapped(error.strerror)
            return Unmapped(root / name, file, size)


@functools.cache
def _tell_unmapped(reason: str) -> None:
    """Says it once in a process."""
    say(f"note: files of the store cannot be mapped into memory ({reason}): they are read instead, which takes longer.")


def make_room(maps: int) -> None:
    """Lets this process hold so many maps, each with a file descriptor of its own, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = maps + SPARE if hard == resource.RLIM_INFINITY else min(maps + SPARE, hard)
    if soft not in (resource.RLIM_INFINITY, hard) and soft < need:
        with contextlib.suppress(OSError, ValueError):  # macOS allows fewer than it says; `opened` tells who needs more
            resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def checked(root: Path, name: str, listing: Manifest) -> np.ndarray:
    """The bytes of the file `name`, a small one, uint8, read-only; they have the sha256 that the manifest lists."""
    with opened(root, name, listing) as file:
        content = file.read()
    check_digest(root, name, listing, hashlib.sha256(content).hexdigest())
    return np.frombuffer(content, np.uint8)


def sha256(root: Path, name: str, listing: Manifest) -> str:
    """The digest of the file `name`, read and not mapped: a disk that fails under a map ends the process."""
    with opened(root, name, listing) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(root: Path, name: str, listing: Manifest, digest: str) -> None:
    """Refuses the file `name` if its sha256 `digest` differs from that in the manifest."""
    if digest != listing.files[name].sha256:
        raise StoreError(
            f"{root / name}: its content does not match its sha256 in the manifest: damaged, or of another shard or "
            f"store. {REMEDY}"
        )


def check_listing(root: Path, listing: Manifest) -> None:
    """Refuses a manifest that lists other files than its layout asks for."""
    layout = listing.layout
    specs = schema.arrays(layout)
    # compared before the names are made: a forged layout can ask for more names than there is memory
    due = len(specs) * (layout.n_shards + 1) + 2
    if len(listing.files) != due:
        raise StoreError(
            f"{root / manifest.NAME}: lists {len(listing.files)} files, its layout asks for {due}. {REMEDY}"
        )
    ranges = {name: range(0) for name in (GROUP, DRIFTERS, *(metadata_of(spec) for spec in specs))}
    ranges |= {spec.file_of(k): layout.samples_of(k) for spec in specs for k in range(layout.n_shards)}
    for name, part in ranges.items():
        if name not in listing.files or listing.files[name].samples != (part.start, part.stop):
            raise StoreError(f"{root / manifest.NAME}: does not list {name} with samples {part}. {REMEDY}")
    for spec in specs:
        if spec.sharded:
            continue
        due = layout.samples_per_shard * spec.sample_bytes + 4  # held against the file before its values find room
        for shard in range(layout.n_shards):
            size = listing.files[spec.file_of(shard)].size
            if size != due:
                where = f"{root / manifest.NAME}: lists {spec.file_of(shard)}"
                raise StoreError(f"{where} with {size} bytes, its layout asks for {due}. {REMEDY}")


def metadata_of(spec: ArraySpec) -> str:
    """Path inside the store of the metadata of `spec`."""
    return f"{spec.name}/zarr.json"


def check_metadata(root: Path, listing: Manifest) -> None:
    """Refuses metadata that contradict the schema: zarr's readers follow them, with any codec that they name."""
    layout = listing.layout
    for spec in schema.arrays(layout):
        due = shard_bytes.metadata(spec, layout.n_samples, layout.samples_per_shard, layout.compression)
        if _tree(root, metadata_of(spec), listing) != due:
            path = root / metadata_of(spec)
            raise StoreError(f"{path}: does not describe the array that the manifest's layout says. {REMEDY}")
    group = _tree(root, GROUP, listing)
    if not isinstance(group, dict) or group.get("zarr_format") != 3 or group.get("node_type") != "group":
        raise StoreError(f"{root / GROUP}: does not describe a zarr v3 group. {REMEDY}")


def drifters(root: Path, listing: Manifest) -> list[str]:
    """Names of the drifters."""
    tree = _tree(root, DRIFTERS, listing)
    names = tree.get("drifters") if isinstance(tree, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise StoreError(f"{root / DRIFTERS}: not a list of drifters' names. {REMEDY}")
    return names


def _tree(root: Path, name: str, listing: Manifest) -> Any:
    raw = checked(root, name, listing).tobytes()
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{root / name}: not readable JSON ({type(error).__name__}): damaged. {REMEDY}") from error
