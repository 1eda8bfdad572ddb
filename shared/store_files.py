"""The files of a finished store: mapped read-only, and refused where the manifest says otherwise.

Nothing here trusts a file: it must be a plain file inside the store (a link may lead out, a pipe never ends), of the
size that the manifest lists, before it is opened; zarr's metadata must say what the schema does, since other readers
run any codec that they name.
"""

import hashlib
import json
import mmap
import os
import resource
import stat
from pathlib import Path
from typing import Any

import numpy as np

from shared import chunks, manifest, schema
from shared.chunks import REMEDY
from shared.errors import StoreError
from shared.manifest import Manifest
from shared.schema import ArraySpec

DRIFTERS = "drifters.json"
"""Names of the drifters; the array `drifter` holds positions in this list."""

GROUP = "zarr.json"
BLOCK = 1 << 22  # bytes hashed at a time
SPARE = 256  # file descriptors for everything but shards


def mapped(root: Path, name: str, held: Manifest) -> mmap.mmap:
    """The file `name` of the store, memory-mapped read-only.

    Raises:
        StoreError: the manifest does not list it, it is missing, no plain file, or of another size.
    """
    path = root / name
    entry = held.files.get(name)
    if entry is None:
        raise StoreError(f"{root}: the manifest does not list {name}. {REMEDY}")
    try:
        real = os.path.realpath(path)
        if real != os.path.join(os.path.realpath(root), name):  # noqa: PTH118 - half as slow, and once a file
            raise StoreError(f"{path}: a link, which may lead out of the store. Put the file itself there.")
        found = os.stat(real)  # noqa: PTH116
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{path}: not a plain file. {REMEDY}")
        if found.st_size != entry.size:
            what = "truncated" if found.st_size < entry.size else "extended or replaced"
            raise StoreError(f"{path}: {found.st_size} bytes, expected {entry.size}: {what}. {REMEDY}")
        if entry.size == 0:
            raise StoreError(f"{path}: empty. {REMEDY}")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), entry.size, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: missing. {REMEDY}") from error
    except (OSError, ValueError) as error:  # ValueError: it has become shorter since
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"cannot read {path}: {reason}. {REMEDY}") from error


def make_room(maps: int) -> None:
    """Lets this process hold so many maps, each with a file descriptor of its own, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = maps + SPARE if hard == resource.RLIM_INFINITY else min(maps + SPARE, hard)
    if soft not in (resource.RLIM_INFINITY, hard) and soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def array_of(data: mmap.mmap) -> np.ndarray:
    """The bytes of a mapped file, uint8, read-only, not copied."""
    return np.frombuffer(data, np.uint8)


def checked(root: Path, name: str, held: Manifest) -> np.ndarray:
    """The bytes of the file `name`, uint8, read-only; they have the sha256 that the manifest lists."""
    data = mapped(root, name, held)
    digest = hashlib.sha256()
    with memoryview(data) as view:
        for start in range(0, len(view), BLOCK):
            digest.update(view[start : start + BLOCK])
    if digest.hexdigest() != held.files[name].sha256:
        raise StoreError(
            f"{root / name}: its content does not match its sha256 in the manifest: damaged, or of another shard or "
            f"store. {REMEDY}"
        )
    return array_of(data)


def check_listing(root: Path, held: Manifest) -> None:
    """Refuses a manifest that lists other files than its layout asks for."""
    layout = held.layout
    specs = schema.arrays(layout)
    # compared before the names are made: a forged layout can ask for more names than there is memory
    due = len(specs) * (layout.n_shards + 1) + 2
    if len(held.files) != due:
        raise StoreError(f"{root / manifest.NAME}: lists {len(held.files)} files, its layout asks for {due}. {REMEDY}")
    ranges = {name: range(0) for name in (GROUP, DRIFTERS, *(metadata_of(spec) for spec in specs))}
    ranges |= {spec.file_of(k): layout.samples_of(k) for spec in specs for k in range(layout.n_shards)}
    for name, part in ranges.items():
        if name not in held.files or held.files[name].samples != (part.start, part.stop):
            raise StoreError(f"{root / manifest.NAME}: does not list {name} with samples {part}. {REMEDY}")


def metadata_of(spec: ArraySpec) -> str:
    """Path inside the store of the metadata of `spec`."""
    return f"{spec.name}/zarr.json"


def check_metadata(root: Path, held: Manifest) -> None:
    """Refuses metadata that say anything else than the schema: zarr's readers go by them, with any codec they name."""
    layout = held.layout
    for spec in schema.arrays(layout):
        due = chunks.metadata(spec, layout.n_samples, layout.samples_per_shard, layout.compression)
        if _tree(root, metadata_of(spec), held) != due:
            path = root / metadata_of(spec)
            raise StoreError(f"{path}: does not describe the array that the manifest's layout says. {REMEDY}")
    group = _tree(root, GROUP, held)
    if not isinstance(group, dict) or group.get("zarr_format") != 3 or group.get("node_type") != "group":
        raise StoreError(f"{root / GROUP}: does not describe a zarr v3 group. {REMEDY}")


def drifters(root: Path, held: Manifest) -> list[str]:
    """Names of the drifters."""
    tree = _tree(root, DRIFTERS, held)
    names = tree.get("drifters") if isinstance(tree, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise StoreError(f"{root / DRIFTERS}: not a list of drifters' names. {REMEDY}")
    return names


def _tree(root: Path, name: str, held: Manifest) -> Any:
    raw = checked(root, name, held).tobytes()
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{root / name}: not readable JSON ({type(error).__name__}): damaged. {REMEDY}") from error
