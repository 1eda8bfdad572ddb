"""drift-preprocess as a process of its own that dies on demand, forked from a server that has imported it already."""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from driftcal.preprocess.__main__ import main
from driftcal.shared.disk import crash_points
from driftcal.shared.inspection import facts
from tests import fields

_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload(["tests.kill_preprocess"])

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int | None
    said: str


def _child(arguments: list[str], crash: str | None, said: str, set_up: Callable[..., None] | None, how: Any) -> None:
    number = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(number, 1)
    os.dup2(number, 2)
    crash_points.arm(crash)
    if set_up is not None:
        set_up(how)
    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def start(
    arguments: list[str],
    said: Path,
    crash: str | None = None,
    set_up: Callable[..., None] | None = None,
    how: Any = None,
) -> BaseProcess:
    """The command, running; what it prints goes to the file `said`. `set_up(how)` runs in it before."""
    process = _FORK.Process(target=_child, args=(arguments, crash, str(said), set_up, how))
    process.start()
    return process


def run(
    arguments: list[str],
    said: Path,
    crash: str | None = None,
    after: float | None = None,
    set_up: Callable[..., None] | None = None,
    how: Any = None,
) -> Ended:
    """Runs the command to its end, or kills it `after` seconds."""
    process = start(arguments, said, crash, set_up, how)
    process.join(after if after is not None else 120)
    if process.is_alive():
        process.kill()  # which is no error where it has just ended by itself
        process.join()
        assert after is not None, f"hangs: {said.read_text()}"
    return Ended(process.exitcode, said.read_text() if said.exists() else "")


def left(store: Path) -> list[str]:
    """Temporaries and what belongs to the making, if any is left."""
    return [str(path) for path in store.rglob("*") if path.name.startswith(".")]


def check_half(store: Path) -> None:
    """drift-inspect's facts of a store whose making was stopped, as soon as there is anything to tell."""
    if (store / "manifest.json").exists() or (store / ".building" / "plan.json").exists():
        held = facts.facts(store)
        assert held.finished == (store / "manifest.json").exists()
        assert 0 <= held.shards_done <= held.layout.n_shards
        assert held.shards_done == len(list((store / ".building").glob("done-*.json"))) or held.finished


def duration(arguments: list[str], said: Path) -> float:
    """How long the command takes now [s]."""
    began = time.perf_counter()
    assert run(arguments, said).code == 0
    return time.perf_counter() - began


def random_kills(arguments: list[str], store: Path, due: dict[str, str], rounds: int, longest: float, seed: int) -> int:
    """Kills the command at random moments, and each resumed one with a chance of a half, until it ends by itself.

    Every store must equal `due`, the digests of the uninterrupted one. Returns the number of kills done.
    """
    rng, said, kills = random.Random(seed), store.with_suffix(".txt"), 0
    while kills < rounds:
        out = store / f"{kills}"
        command = [*arguments, "--out", str(out)]
        ended = run(command, said, after=rng.uniform(0, longest))
        while ended.code == KILLED:
            kills += 1
            check_half(out)
            ended = run(command, said, after=rng.uniform(0, longest) if rng.random() < 0.5 else None)
        assert ended.code == 0, ended.said
        assert fields.digests(out) == due
        assert left(out) == []
    return kills
