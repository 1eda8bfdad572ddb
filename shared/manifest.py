"""`manifest.json`: what a finished store holds and where it came from. Written last: without it there is no store.

It lists size, sha256, sample count and sample range of every file, the layout, the resolved recipe, the sources'
fingerprints, the versions, and the funnel: how many fixes became samples, and how many were dropped for which reason.
No clock and no host name goes in, so the same input gives the same bytes.

Until then `.building` says what the store was `Begun` from, and by a `Mark` which of its shards are done.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared import durable, schema
from shared.errors import StoreError
from shared.schema import Layout

NAME = "manifest.json"
STAGING = ".building"
"""Folder inside an unfinished store: what it was begun from and the marks of the shards that are done."""

PLAN = "plan.json"
"""File in `STAGING`: `Begun`."""

FORMAT = "driftcal shard store"

REMEDY = "Copy it again from where it is whole, or make the store again with drift-preprocess --overwrite."
"""What to do about a manifest that is damaged."""


@dataclass(frozen=True)
class FileEntry:
    """One file of the store; `samples` is the range [first, stop) that it holds, empty for metadata."""

    size: int
    sha256: str
    samples: tuple[int, int] = (0, 0)

    def as_json(self) -> dict[str, Any]:
        """This entry as JSON holds it."""
        return {"size": self.size, "sha256": self.sha256, "samples": list(self.samples)}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "FileEntry":
        """The inverse of `as_json`."""
        if type(tree["size"]) is not int:
            raise TypeError("the size of a file is not a whole number")
        return cls(tree["size"], tree["sha256"], tuple(tree["samples"]))


@dataclass(frozen=True)
class Stage:
    """One step of the funnel: `kept` of `unit` came through, `dropped` did not, by reason."""

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
    schema_version: int = schema.VERSION

    @property
    def digest(self) -> str:
        """sha256 of everything the manifest says, the digests of all files included. Names the store in results."""
        return hashlib.sha256(to_bytes(self._content())).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The tree that is written."""
        return {**self._content(), "digest": self.digest}

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "schema_version": self.schema_version,
            "driftcal_version": self.driftcal_version,
            "name": self.name,
            "layout": self.layout.as_json(),
            "splits": self.splits,
            "funnel": [stage_as_json(stage) for stage in self.funnel],
            "notes": list(self.notes),
            "recipe": self.recipe,
            "sources": self.sources,
            "files": {path: entry.as_json() for path, entry in sorted(self.files.items())},
        }


def stage_as_json(stage: Stage) -> dict[str, Any]:
    """A funnel stage as the manifest holds it."""
    return {"name": stage.name, "unit": stage.unit, "kept": stage.kept, "dropped": stage.dropped}


def stage_from_json(tree: dict[str, Any]) -> Stage:
    """The inverse of `stage_as_json`."""
    return Stage(tree["name"], tree["unit"], tree["kept"], tree["dropped"])


@dataclass(frozen=True)
class Begun:
    """What an unfinished store was begun from; to be continued, all of it must still be the same.

    Attributes:
        recipe: The resolved data manifest.
        sources: Fingerprints of the sources, by kind.
        states: Sizes and times of change of the same sources: a large one is fingerprinted by its names and sizes only.
        layout: The store's shape.
        driftcal_version: Who writes it.
        schema_version: How.
    """

    recipe: dict[str, Any]
    sources: dict[str, Any]
    states: dict[str, Any]
    layout: Layout
    driftcal_version: str
    schema_version: int = schema.VERSION

    def as_json(self) -> dict[str, Any]:
        """The tree that `plan.json` holds."""
        return {
            "driftcal_version": self.driftcal_version,
            "schema_version": self.schema_version,
            "recipe": self.recipe,
            "sources": self.sources,
            "states": self.states,
            "layout": self.layout.as_json(),
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Begun":
        """The inverse of `as_json`."""
        for key in ("recipe", "sources", "states"):
            if not isinstance(tree[key], dict):
                raise TypeError(f"{key} is not an object")
        if not all(isinstance(listed, list) for key in ("sources", "states") for listed in tree[key].values()):
            raise TypeError("sources is not of lists by kind")
        return cls(**{**tree, "layout": Layout(**tree["layout"])})


@dataclass(frozen=True)
class Mark:
    """What the writer leaves in `.building` for a shard that is done.

    Attributes:
        files: The shard's files.
        status: Number of samples of each of `schema.STATUS`.
        drifters: The drifters of each split, as numbers.
        samples: Number of samples of each split.
    """

    files: dict[str, FileEntry]
    status: tuple[int, ...]
    drifters: dict[str, tuple[int, ...]]
    samples: dict[str, int]

    @classmethod
    def of(cls, files: dict[str, FileEntry], values: dict[str, np.ndarray]) -> "Mark":
        """The mark of a shard of these files, with the labels of `values`."""
        split = {name: values["split"] == code for code, name in enumerate(schema.SPLITS)}
        return cls(
            files=files,
            status=tuple(np.bincount(values["status"], minlength=len(schema.STATUS)).tolist()),
            drifters={name: tuple(np.unique(values["drifter"][held]).tolist()) for name, held in split.items()},
            samples={name: int(held.sum()) for name, held in split.items()},
        )

    def as_json(self) -> dict[str, Any]:
        """This mark as JSON holds it."""
        return {
            "files": {path: entry.as_json() for path, entry in self.files.items()},
            "status": list(self.status),
            "drifters": {name: list(held) for name, held in self.drifters.items()},
            "samples": self.samples,
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Mark":
        """The inverse of `as_json`."""
        return cls(
            files={path: FileEntry.from_json(entry) for path, entry in tree["files"].items()},
            status=tuple(int(n) for n in tree["status"]),
            drifters={name: tuple(int(d) for d in tree["drifters"][name]) for name in schema.SPLITS},
            samples={name: int(tree["samples"][name]) for name in schema.SPLITS},
        )


def plan_of(store: Path) -> Path:
    """The file of an unfinished store that says what it was begun from."""
    return store / STAGING / PLAN


def mark_of(store: Path, shard: int) -> Path:
    """The file that says that `shard` is done."""
    return store / STAGING / f"done-{shard:06d}.json"


def marked(store: Path) -> list[int]:
    """The shards of an unfinished store that are done, ascending."""
    numbers = [path.stem.removeprefix("done-") for path in (store / STAGING).glob("done-*.json")]
    return sorted(int(number) for number in numbers if number.isdecimal())


UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError)
"""What reading a file of JSON raises where it is missing, damaged or another's."""


def read_begun(store: Path) -> Begun:
    """What the unfinished `store` was begun from.

    Raises:
        StoreError: nothing says so, or what does is damaged.
    """
    path = plan_of(store)
    try:
        return Begun.from_json(json.loads(path.read_text(encoding="utf-8")))
    except UNREADABLE as error:
        raise _unreadable(path, store, error) from error


def read_mark(store: Path, shard: int) -> Mark:
    """The mark of `shard`.

    Raises:
        StoreError: it is missing or damaged.
    """
    path = mark_of(store, shard)
    try:
        return Mark.from_json(json.loads(path.read_text(encoding="utf-8")))
    except UNREADABLE as error:
        raise _unreadable(path, store, error) from error


def _unreadable(path: Path, store: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path}: not readable ({type(error).__name__}: {error}). Make the store afresh with "
        f"`drift-preprocess ... --out {store} --overwrite`."
    )


def read(store: str | Path) -> Manifest:
    """The manifest of the finished store at `store`.

    Raises:
        StoreError: there is no store, it is unfinished, of another version, or its manifest is damaged.
    """
    root = Path(store)
    path = root / NAME
    if not root.is_dir():
        raise StoreError(f"{root}: no such store. Make one with `drift-preprocess MANIFEST --out {root}`.")
    if not path.is_file():  # nor is a pipe waited for
        building = root / STAGING
        what = "unfinished (no manifest.json)" if building.exists() else "not a driftcal store (no manifest.json)"
        raise StoreError(f"{root}: {what}. Run the drift-preprocess command that makes it again: it continues.")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
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
        )
        sealed = manifest.digest == tree["digest"]
    except UNREADABLE as error:
        raise StoreError(
            f"{path}: not a readable manifest ({type(error).__name__}: {error}): damaged. {REMEDY}"
        ) from error
    if not sealed:
        raise StoreError(f"{path}: its content does not match its own digest: damaged. {REMEDY}")
    return manifest


def _safe(path: str) -> str:
    """`path`, refused where it would leave the store."""
    if path.startswith(("/", "\\")) or ".." in Path(path).parts or ":" in path:
        raise StoreError(f"manifest.json names {path!r}, which lies outside the store: refused.")
    return path


def write_file(path: Path, content: bytes | memoryview, what: str = "file") -> FileEntry:
    """Writes `content` durably, and the folders that it needs; `what` is its kind, for `shared.crashpoints`.

    Raises:
        StoreError: it cannot be written.
    """
    durable.make_folder(path.parent)
    durable.write(path, content, what)
    return FileEntry(len(content), hashlib.sha256(content).hexdigest())


def to_bytes(tree: Any) -> bytes:
    """`tree` as the JSON text that driftcal writes: stable order, one trailing newline."""
    return (json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
