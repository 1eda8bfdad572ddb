"""An unfinished store's record of itself in `.building`: what it was `Begun` from, and a `Mark` per shard done.

The record is what lets a build continue. It is deleted once the manifest is written.
"""

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from driftcal.shared.disk import limits
from driftcal.shared.errors import StoreError
from driftcal.shared.store import manifest, schema
from driftcal.shared.store.manifest import READ_ERRORS, STAGING, FileEntry
from driftcal.shared.store.schema import Layout

PLAN = "plan.json"
"""File in `STAGING`: `Begun`."""


@dataclass(frozen=True)
class Begun:
    """The inputs that an unfinished store was begun from; all must be unchanged for it to be continued.

    Attributes:
        recipe: The resolved data manifest.
        sources: Fingerprints of the sources, by kind.
        states: Sizes and times of change of the same sources: a large one is fingerprinted by its names and sizes only.
        layout: The store's shape.
        driftcal_version: Version of driftcal that writes it.
        schema_version: Version of the schema that it follows.
    """

    recipe: dict[str, Any]
    sources: dict[str, Any]
    states: dict[str, Any]
    layout: Layout
    driftcal_version: str
    schema_version: int = schema.VERSION

    def as_json(self) -> dict[str, Any]:
        """The content of `plan.json`."""
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
    """The mark of a shard that is done, which the writer leaves in `.building`.

    Attributes:
        files: The shard's files.
        status: Number of samples of each of `schema.STATUS`.
        drifters: The drifters of each split, as numbers.
        samples: Number of samples of each split.
        blank: Levels with exact zeros in place of currents: number of the source, time and cells.
        repeated: Levels that repeat the one before: number of the source and time.
    """

    files: dict[str, FileEntry]
    status: tuple[int, ...]
    drifters: dict[str, tuple[int, ...]]
    samples: dict[str, int]
    blank: tuple[tuple[int, int, int], ...] = ()
    repeated: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(
        cls,
        files: dict[str, FileEntry],
        values: dict[str, np.ndarray],
        blank: tuple[tuple[int, int, int], ...] = (),
        repeated: tuple[tuple[int, int], ...] = (),
    ) -> "Mark":
        """The mark of a shard of these files, with the labels of `values`."""
        split = {name: values["split"] == code for code, name in enumerate(schema.SPLITS)}
        return cls(
            files=files,
            status=tuple(np.bincount(values["status"], minlength=len(schema.STATUS)).tolist()),
            drifters={name: tuple(np.unique(values["drifter"][mask]).tolist()) for name, mask in split.items()},
            samples={name: int(mask.sum()) for name, mask in split.items()},
            blank=blank,
            repeated=repeated,
        )

    def as_json(self) -> dict[str, Any]:
        """This mark as JSON, sealed by its own digest."""
        content = {
            "files": {path: entry.as_json() for path, entry in self.files.items()},
            "status": list(self.status),
            "drifters": {name: list(numbers) for name, numbers in self.drifters.items()},
            "samples": self.samples,
            "blank": [list(level) for level in self.blank],
            "repeated": [list(level) for level in self.repeated],
        }
        return {**content, "digest": _digest(content)}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Mark":
        """The inverse of `as_json`."""
        if tree["digest"] != _digest({key: value for key, value in tree.items() if key != "digest"}):
            raise ValueError("its content does not match its own digest")
        return cls(
            files={path: FileEntry.from_json(entry) for path, entry in tree["files"].items()},
            status=tuple(int(n) for n in tree["status"]),
            drifters={name: tuple(int(d) for d in tree["drifters"][name]) for name in schema.SPLITS},
            samples={name: int(tree["samples"][name]) for name in schema.SPLITS},
            blank=tuple((int(number), int(time), int(cells)) for number, time, cells in tree["blank"]),
            repeated=tuple((int(number), int(time)) for number, time in tree["repeated"]),
        )


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(manifest.to_bytes(content)).hexdigest()


def plan_of(store: Path) -> Path:
    """The file of an unfinished store that records what it was begun from."""
    return store / STAGING / PLAN


def mark_of(store: Path, shard: int) -> Path:
    """The file that marks `shard` as done."""
    return store / STAGING / f"done-{shard:06d}.json"


def marked(store: Path) -> list[int]:
    """The shards of an unfinished store that are done, ascending."""
    numbers = [path.stem.removeprefix("done-") for path in (store / STAGING).glob("done-*.json")]
    return sorted(int(number) for number in numbers if number.isdecimal())


def read_begun(store: Path) -> Begun:
    """Reads what the unfinished `store` was begun from.

    Raises:
        StoreError: nothing says so, or what does is damaged.
        LimitError: the system refuses or fails to read it.
    """
    path = plan_of(store)
    try:
        return Begun.from_json(manifest.read_json(path))
    except READ_ERRORS as error:
        raise StoreError(
            f"{path}: not readable ({type(error).__name__}: {error}). Make the store afresh with "
            f"`drift-preprocess ... --out {store} --overwrite`."
        ) from error


def read_mark(store: Path, layout: Layout, shard: int) -> Mark:
    """The mark of `shard`, if it is intact and its files exist with the sizes that it lists.

    Raises:
        StoreError: the shard has to be made again.
        LimitError: the system refuses or fails to look.
    """
    path = mark_of(store, shard)
    try:
        mark = Mark.from_json(manifest.read_json(path))
    except READ_ERRORS as error:
        raise StoreError(
            f"{path}: not a readable mark ({type(error).__name__}: {error}): damaged, so shard {shard} is made again."
        ) from error
    samples = layout.samples_of(shard)
    due = {spec.file_of(shard): (samples.start, samples.stop) for spec in schema.arrays(layout)}
    if {name: entry.samples for name, entry in mark.files.items()} != due:
        raise StoreError(f"{path}: not the mark of shard {shard} of this store, so it is made again.")
    for name, entry in mark.files.items():
        status = limits.look(store / name)
        if status is None or not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
            raise StoreError(
                f"shard {shard} is marked as done, but {name} is missing or has another size, so it is made again."
            )
    return mark
