"""Crash points: named places at which a process can be made to die as by kill -9, for tests of the worst moments.

`DRIFTCAL_CRASH=NAME` in the environment kills at the first arrival at NAME, `NAME@3` at the third. Without it a place
costs one comparison.
"""

import os
import signal

VARIABLE = "DRIFTCAL_CRASH"
"""Environment variable that names the place."""

STEPS = ("begins", "half written", "written", "synced", "renamed", "done")
"""Places in the writing of one file, by `disk.durable`."""

FILES = ("lock", "plan", "shard", "mark", "metadata", "manifest")
"""Kinds of files that preprocessing writes, in that order."""

POINTS = (
    "lock: listed",
    "tracks: half written",
    "tracks: written",
    *(f"{kind}: {step}" for kind in FILES for step in STEPS),
    "shard: cut",
    "gate: taken",
    "gate: released",
    "clean: begins",
    "clean: half done",
    "clean: done",
)
"""Names of all crash points, which tests go through."""

_armed: tuple[str, int] | None = None


def arm(text: str | None) -> None:
    """Names the place, as the environment variable does; None takes it back."""
    global _armed
    name, _, count = (text or "").partition("@")
    _armed = (name, int(count or 1)) if name else None


def reached(name: str) -> None:
    """Says that the process has come to the place `name`; if it is the one, the process ends here."""
    global _armed
    if _armed is None or _armed[0] != name:
        return
    _armed = (name, _armed[1] - 1)
    if not _armed[1]:
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get(VARIABLE))
