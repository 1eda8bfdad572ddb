"""Small training runs that are stopped and killed, and what is compared of them afterwards."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from driftcal.shared.errors import Interrupted
from driftcal.shared.settings import build
from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit.parameters import Positive
from driftcal.train.fit.sample_gradients import Step
from driftcal.train.learners.drift import loss
from driftcal.train.machine.devices import Devices
from driftcal.train.machine.stop_signals import Stop
from driftcal.train.run import loop
from driftcal.train.run.metrics_log import MetricsLog
from driftcal.train.run.result import Result
from driftcal.train.settings import Training

TINY: dict[str, Any] = {
    "ensemble": {"members": 3},
    "score": {"reference_members": 2},
    "integration": {"step": "3h"},
    "optimizer": {"final_passes": 3, "curvature_samples": 7},
    "batch_size": 3,
    "epochs": 2,
    "checkpoint": {"every_steps": 4},
}


class Anisotropic(eqx.Module):
    """Two parameters that small stores tell apart: a diffusivity east and one north [m2/s]."""

    east: Positive = Positive(50.0)
    north: Positive = Positive(80.0)

    def term(self, t: Any, y: Any, args: Any) -> tuple[Any, Any]:
        return jnp.stack([args.u, args.v]), jnp.sqrt(2 * jnp.stack([self.east.value, self.north.value]))


_steps: dict[str, Step] = {}


def settings(**more: Any) -> Training:
    """Settings of a run of seconds."""
    return build(Training, TINY | more, "tiny")


def train(store: Path, out: Path, told: Training, resume: bool = False, devices: Devices | None = None) -> Result:
    """Trains as the command does, listening to signals; programs are compiled once for all runs of a process."""

    def once(told: Training, grid: Any, model: Any, devices: Any) -> Step:
        key = f"{told.model_dump_json(exclude={'checkpoint'})} {grid} {devices.n}"
        return _steps.setdefault(key, loss.make_step(told, grid, model, devices))

    # a term would be traced afresh, and all that is compiled be forgotten
    with Stop("") as stop, mock.patch.object(jax, "clear_caches"), mock.patch.object(loop, "make_step", once):
        return loop.run(ShardStore(store), told, out, False, resume, stop, devices)


@contextmanager
def stopped_at(number: int, name: str) -> Iterator[None]:
    """Inside, the signal `name` comes while step `number` is computed."""
    take = MetricsLog.write

    def taking(self: MetricsLog, *arguments: Any) -> Any:
        if self.counts.step + 1 == number:
            signal.raise_signal(signal.Signals[name])
        return take(self, *arguments)

    with mock.patch.object(MetricsLog, "write", taking):
        yield


def interrupted(store: Path, out: Path, told: Training, stops: list[tuple[int, str]]) -> list[str]:
    """A run stopped at each of these steps in turn, and then left to end; what the stops said."""
    said = []
    for number, name in stops:
        try:
            with stopped_at(number, name):
                train(store, out, told, resume=bool(said))
        except Interrupted as error:
            said.append(str(error))
        else:
            raise AssertionError(f"the run ended before step {number}")
    train(store, out, told, resume=True)
    return said


def contents(out: Path) -> dict[str, bytes]:
    """Every result file of a run; what the clock said, `samples_per_second`, is blanked, and nothing else."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_file() and not name.startswith("checkpoints"):
            content = path.read_bytes()
            if name in ("metrics.jsonl", "result.json"):
                content, n = re.subn(rb'("samples_per_second": )[0-9.e+-]+', rb"\1?", content)
                assert n == (content.count(b"\n") if name == "metrics.jsonl" else 1)
            found[name] = content
    return found


def last_state(out: Path) -> dict[str, bytes]:
    """Every array of the newest checkpoint: parameters, optimiser, passes."""
    newest = sorted((out / "checkpoints").glob("*.npz"))[-1]
    with np.load(newest) as held:
        return {name: held[name].tobytes() for name in held.files if name != "about"}
