"""Checkpoints of a run: one file each, written aside, synced and renamed; the last few are kept.

A checkpoint is a NumPy `.npz` archive, which `numpy.load` opens anywhere, whose zip comment is the sha256 of all bytes
before it: damage is found before anything is parsed. The entry `about` holds JSON: the format, the step, and what the
run is (`identity_of`); the other entries are arrays.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from driftcal.shared.command import say
from driftcal.shared.disk import limits
from driftcal.shared.disk.crash_points import reached
from driftcal.shared.errors import ConfigError, StoreError
from driftcal.shared.store.manifest import write_file
from driftcal.shared.store.reader import ShardStore
from driftcal.train.learners.drift.user_dynamics import fingerprint
from driftcal.train.learners.drift.user_dynamics.fingerprint import Fingerprint
from driftcal.train.settings import Checkpointing, Reading, Training

FOLDER = "checkpoints"
FORMAT = "driftcal checkpoint 1"
ABOUT = "about"
FUNCTION = "function"
"""Key of the fingerprint of a user's dynamics, in an identity and in a result."""
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
    """A file that is no whole checkpoint; the message has the reason."""


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
        LimitError: the system refuses or fails to read it.
    """
    try:
        content = path.read_bytes()
    except (OSError, MemoryError) as error:
        if limits.concerns(error):
            raise limits.refused(f"cannot read {path}", error, "the checkpoint") from error
        raise Damaged(f"cannot be read: {error}") from error
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
"""Settings that do not affect the result of a run: they may change when it is resumed."""


def identity_of(
    store: ShardStore, settings: Training, engine: str | None, names: Sequence[str], function: Fingerprint | None
) -> dict[str, Any]:
    """Identity of a run, for JSON.

    Args:
        store: The store that it is trained on.
        settings: Its settings.
        engine: Version of a simulator from another package, which computes in place of ours.
        names: Names of the parameters.
        function: Fingerprint of a user's dynamics.
    """
    return {
        "store": store.manifest.digest,
        "settings": settings.model_dump(mode="json", exclude=FREE),
        "version": version("driftcal"),
        "engine_version": engine,
        "parameters": list(names),
        FUNCTION: function,
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
        """The newest good checkpoint; None if there are none at all.

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
    """Refuses to continue a run of another configuration, store, version or function.

    Raises:
        ConfigError: naming the first few keys that differ, and both values.
    """
    remedy = "Resume with what the run was begun with, or choose another --out."
    told = [{key: value for key, value in one.items() if key != FUNCTION} for one in (found, wanted)]
    differing = [
        f"{key} was {theirs!r}, now {ours!r}"
        for key, theirs, ours in _differences(told[0], told[1], "")
        if theirs != ours
    ]
    if differing:
        raise ConfigError(
            f"{where} belongs to another run: {'; '.join(differing[:4])}{'; ...' if len(differing) > 4 else ''}. "
            f"{remedy}"
        )
    if (function := wanted.get(FUNCTION)) is not None:
        fingerprint.check(found.get(FUNCTION), function, where, remedy)


def _differences(found: Any, wanted: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for part in sorted(found.keys() | wanted.keys()):
            below = f"{key}.{part}" if key and key != "settings" else part
            yield from _differences(found.get(part), wanted.get(part), below)
    else:
        yield key, found, wanted
