"""Checkpoints of a run: one file each, written aside, synced and renamed; the last few are kept.

A checkpoint is a NumPy `.npz` archive, which `numpy.load` opens anywhere, whose zip comment is the sha256 of all bytes
before it: damage is found before anything is parsed. The entry `about` holds JSON: the format, the step, and what the
run is (`identity_of`); the other entries are arrays.
"""

import hashlib
import inspect
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.command import say
from shared.crashpoints import reached
from shared.errors import ConfigError, StoreError
from shared.manifest import write_file
from shared.shards import ShardStore
from train.config import Checkpointing, Reading, Training

FOLDER = "checkpoints"
FORMAT = "driftcal checkpoint 1"
ABOUT = "about"
DAMAGED = ".damaged"
"""Appended to the name of a checkpoint that could not be read."""

_DIGEST = 64
"""Bytes of a sha256 in hexadecimal digits."""


class Saved(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        path: its file.
        step: batches taken by then.
        identity: which run it belongs to.
        about: other facts, as JSON holds them.
        arrays: by name.
    """

    path: Path
    step: int
    identity: dict[str, Any]
    about: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Damaged(ValueError):
    """A file that is no whole checkpoint; the message says why."""


def encode(step: int, identity: dict[str, Any], about: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of a checkpoint's file."""
    head = json.dumps({"format": FORMAT, "step": step, "identity": identity, "about": about}, allow_nan=False)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{ABOUT: np.frombuffer(head.encode(), np.uint8)}, **arrays)
    body = buffer.getvalue()[:-2] + _DIGEST.to_bytes(2, "little")  # the last field of a zip: length of its comment
    return body + hashlib.sha256(body).hexdigest().encode()


def decode(path: Path) -> Saved:
    """The checkpoint at `path`.

    Raises:
        Damaged: it is empty, cut short, changed, or something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Damaged(f"cannot be read: {error.strerror}") from error
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise Damaged(f"its {len(content)} bytes do not match their checksum")
    try:
        arrays = dict(np.load(io.BytesIO(content), allow_pickle=False))
        head = json.loads(arrays.pop(ABOUT).tobytes())
        if head["format"] != FORMAT:
            raise Damaged(f"its format is {head['format']!r}, expected {FORMAT!r}")
        return Saved(path, int(head["step"]), dict(head["identity"]), dict(head["about"]), arrays)
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise Damaged(f"it is no checkpoint ({error})") from error


FREE: Any = {"checkpoint": True, "tracking": True, "data": Reading.model_fields.keys() - {"run_length"}}
"""Settings that change nothing of what a run finds: they may be others when it is resumed."""


def identity_of(store: ShardStore, settings: Training, template: object | None) -> dict[str, Any]:
    """What makes a run this one: its store, its settings, and the code that computes; for JSON."""
    source = None if template is None else inspect.getsourcefile(type(template))
    return {
        "store": store.manifest.digest,
        "settings": settings.model_dump(mode="json", exclude=FREE),
        "version": version("driftcal"),
        "dynamics_source": None if source is None else hashlib.sha256(Path(source).read_bytes()).hexdigest(),
    }


class Checkpoints:
    """The checkpoints of the run in the folder `out`, which is `identity`."""

    def __init__(self, out: Path, identity: dict[str, Any], settings: Checkpointing):
        self._folder, self._identity, self._keep = out / FOLDER, identity, settings.keep
        self.last: Path | None = None

    def write(self, step: int, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
        """Publishes a checkpoint durably, then removes those beyond the last few."""
        path = self._folder / f"step-{step:08d}.npz"
        write_file(path, encode(step, self._identity, about, arrays), "checkpoint")
        self.last = path
        reached("checkpoint: published")
        for old in self._newest_first()[self._keep :]:
            old.unlink(missing_ok=True)
        return path

    def newest(self, fits: Callable[[Saved], str | None]) -> Saved | None:
        """The newest good checkpoint; None where there are none at all.

        Damaged ones, and those against which `fits` says something, are set aside with a warning.

        Raises:
            ConfigError: it is another run's.
            StoreError: there are checkpoints, and none is good.
        """
        found = self._newest_first()
        for path in found:
            try:
                saved = decode(path)
                refuse_other(saved.identity, self._identity, str(path))
                if (wrong := fits(saved)) is None:
                    self.last = path
                    return saved
            except Damaged as error:
                wrong = str(error)
            path.replace(path.with_name(path.name + DAMAGED))
            say(f"WARNING: {path}: {wrong}. It is set aside as {path.name}{DAMAGED}; an earlier checkpoint is tried.")
        if found:
            raise StoreError(
                f"{self._folder}: none of its {len(found)} checkpoints is good, so the run cannot be resumed. Start it "
                f"afresh in another --out."
            )
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob("step-*.npz"), reverse=True)


def refuse_other(found: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
    """Refuses to continue what another configuration, store or version began.

    Raises:
        ConfigError: naming the first few keys that differ, and both values.
    """
    if found == wanted:
        return
    differing = [
        f"{key} was {theirs!r}, now {ours!r}" for key, theirs, ours in _differences(found, wanted, "") if theirs != ours
    ]
    raise ConfigError(
        f"{where} belongs to another run: {'; '.join(differing[:4])}{'; ...' if len(differing) > 4 else ''}. "
        f"Resume with what the run was begun with, or choose another --out."
    )


def _differences(found: Any, wanted: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for part in sorted(found.keys() | wanted.keys()):
            below = f"{key}.{part}" if key and key != "settings" else part
            yield from _differences(found.get(part), wanted.get(part), below)
    else:
        yield key, found, wanted
