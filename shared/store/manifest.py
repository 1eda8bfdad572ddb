"""`manifest.json`: content and origin of a finished store. Written last: without it there is no store.

It lists size, sha256, sample count and sample range of every file, the layout, the resolved recipe, the sources'
fingerprints, the versions, and the funnel: how many fixes became samples, and how many were dropped for which reason.
No clock and no host name goes in, so the same input gives the same bytes.
"""

import hashlib
import json
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftcal.shared.disk import durable, limits
from driftcal.shared.errors import StoreError
from driftcal.shared.store import schema
from driftcal.shared.store.agreement import Agreement
from driftcal.shared.store.schema import Layout

NAME = "manifest.json"
STAGING = ".building"
"""Folder inside an unfinished store (`store.unfinished`)."""

FORMAT = "driftcal shard store"

REMEDY = "Copy it again from where it is whole, or make the store again with drift-preprocess --overwrite."
"""Remedy for a damaged manifest."""

READ_ERRORS = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError)
"""Exceptions, of `read_json` and of using its value, for a file that is missing, damaged or another program's."""


@dataclass(frozen=True)
class FileEntry:
    """One file of the store; `samples` is the range [first, stop) that it contains, empty for metadata."""

    size: int
    sha256: str
    samples: tuple[int, int] = (0, 0)

    def as_json(self) -> dict[str, Any]:
        """This entry as JSON."""
        return {"size": self.size, "sha256": self.sha256, "samples": list(self.samples)}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "FileEntry":
        """The inverse of `as_json`."""
        if type(tree["size"]) is not int:
            raise TypeError("the size of a file is not a whole number")
        return cls(tree["size"], tree["sha256"], tuple(tree["samples"]))


@dataclass(frozen=True)
class Stage:
    """One stage of the funnel: `kept` of `unit` passed, `dropped` did not, by reason."""

    name: str
    unit: str
    kept: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """A finished store's manifest."""

    name: str
    layout: Layout
    files: dict[str, FileEntry]
    recipe: dict[str, Any]
    sources: dict[str, Any]
    funnel: tuple[Stage, ...]
    splits: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    driftcal_version: str
    agreement: Agreement | None = None
    """Figures of agreement; None in stores made before there were any."""
    schema_version: int = schema.VERSION

    @property
    def digest(self) -> str:
        """sha256 of the whole manifest, the digests of all files included. Names the store in results."""
        return hashlib.sha256(to_bytes(self._content())).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The tree that is written."""
        return {**self._content(), "digest": self.digest}

    def _content(self) -> dict[str, Any]:
        agreement = {} if self.agreement is None else {"agreement": self.agreement.as_json()}
        return {
            "format": FORMAT,
            "schema_version": self.schema_version,
            "driftcal_version": self.driftcal_version,
            "name": self.name,
            "layout": self.layout.as_json(),
            "splits": self.splits,
            "funnel": [stage_as_json(stage) for stage in self.funnel],
            **agreement,
            "notes": list(self.notes),
            "recipe": self.recipe,
            "sources": self.sources,
            "files": {path: entry.as_json() for path, entry in sorted(self.files.items())},
        }


def stage_as_json(stage: Stage) -> dict[str, Any]:
    """A funnel stage, read from the manifest."""
    return {"name": stage.name, "unit": stage.unit, "kept": stage.kept, "dropped": stage.dropped}


def stage_from_json(tree: dict[str, Any]) -> Stage:
    """The inverse of `stage_as_json`."""
    return Stage(tree["name"], tree["unit"], tree["kept"], tree["dropped"])


def read(store: str | Path) -> Manifest:
    """The manifest of the finished store at `store`.

    Raises:
        StoreError: there is no store, it is unfinished, of another version, or its manifest is damaged.
        LimitError: the system refuses or fails to read it.
    """
    root = Path(store)
    path = root / NAME
    kind = limits.kind_of(root)
    if kind != stat.S_IFDIR:
        defect, remedy = ("no folder", "Name the folder of a store") if kind else (
            "no such store", f"Make one with `drift-preprocess MANIFEST --out {root}`"
        )  # fmt: skip
        raise StoreError(f"{root}: {defect}. {remedy}.")
    begun = limits.kind_of(root / STAGING)
    if limits.kind_of(path) != stat.S_IFREG:  # nor is a pipe waited for
        if begun:
            raise StoreError(
                f"{root}: unfinished (no manifest.json). Run the drift-preprocess command that makes it again: it "
                f"continues."
            )
        raise StoreError(
            f"{root}: not a driftcal store (no manifest.json). Name a store; one that has lost its manifest cannot be "
            f"told to be whole: copy it again from where it is, or delete the folder and make the store again."
        )
    try:
        tree = read_json(path)
        if tree.get("format") != FORMAT:
            raise StoreError(f"{path}: format {tree.get('format')!r}, expected {FORMAT!r}. Name a driftcal store.")
        if tree["schema_version"] != schema.VERSION:
            raise StoreError(
                f"{root}: written by schema version {tree['schema_version']} (driftcal {tree['driftcal_version']}), "
                f"needs version {schema.VERSION}. Make the store again, or use the driftcal that wrote it."
            )
        manifest = Manifest(
            name=tree["name"],
            layout=Layout(**tree["layout"]),
            files={_safe(path): FileEntry.from_json(entry) for path, entry in tree["files"].items()},
            recipe=tree["recipe"],
            sources=tree["sources"],
            funnel=tuple(stage_from_json(stage) for stage in tree["funnel"]),
            splits=tree["splits"],
            notes=tuple(tree["notes"]),
            driftcal_version=tree["driftcal_version"],
            agreement=Agreement.from_json(tree["agreement"]) if "agreement" in tree else None,
        )
        sealed = manifest.digest == tree["digest"]
    except READ_ERRORS as error:
        raise StoreError(
            f"{path}: not a readable manifest ({type(error).__name__}: {error}): damaged. {REMEDY}"
        ) from error
    if not sealed:
        raise StoreError(f"{path}: its content does not match its own digest: damaged. {REMEDY}")
    return manifest


def read_json(path: Path) -> Any:
    """Content of the file at `path`; raises some of `READ_ERRORS` if it is missing or damaged.

    Raises:
        LimitError: the system refuses or fails to read it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, MemoryError) as error:
        if not limits.concerns(error):
            raise
        raise limits.refused(f"cannot read {path}", error, "the store") from error
    return json.loads(text)


def _safe(path: str) -> str:
    """Returns `path`, or refuses it if it would leave the store."""
    if path.startswith(("/", "\\")) or ".." in Path(path).parts or ":" in path:
        raise StoreError(f"manifest.json names {path!r}, which lies outside the store: refused.")
    return path


def write_file(path: Path, content: bytes | Sequence[memoryview], kind: str = "file") -> FileEntry:
    """Writes `content`, whole or in parts, durably, and the folders that it needs.

    `kind` is its kind, for `disk.crash_points`.

    Raises:
        StoreError: it cannot be written.
    """
    durable.make_folder(path.parent)
    durable.write(path, content, kind)
    parts, digest = durable.in_parts(content), hashlib.sha256()
    for part in parts:
        digest.update(part)
    return FileEntry(sum(map(len, parts)), digest.hexdigest())


def to_bytes(tree: Any) -> bytes:
    """`tree` as the JSON text that driftcal writes: stable order, one trailing newline."""
    return (json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
