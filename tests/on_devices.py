"""Small runs on 1, 2 and 4 forced devices of a CPU; says what came of them. usage: STORE FOLDER EPOCHS

XLA fixes the number of devices when it starts, so this is a process of its own.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from driftcal.shared.errors import ConfigError, Interrupted
from driftcal.shared.native import compiler
from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit.sample_gradients import SampleGradients
from driftcal.train.learners.drift.dynamics import load as load_dynamics
from driftcal.train.learners.drift.loss import compile_step
from driftcal.train.learners.drift.native_engine import library
from driftcal.train.machine.devices import Devices
from driftcal.train.reading.batches import Grid, batches, order
from driftcal.train.settings import Training
from tests import runs


def main(store: Path, folder: Path, epochs: int, precision: str) -> dict[str, Any]:
    told, opened = runs.settings(batch_size=4, epochs=epochs, precision=precision), ShardStore(store)
    found: dict[str, Any] = {}
    for n in (1, 2, 4):
        devices = Devices.of(n)
        result = runs.train(store, folder / f"{n}", told, devices=devices)
        numbers = order(opened.samples_of("train"), 0, 0)
        dealt = [np.asarray(b.sample).tolist() for _, b in batches(opened, numbers, 4, np.dtype("f4"), devices=devices)]
        found[str(n)] = {"cs": result.cs, "steps": result.steps, "dealt": dealt}
    if precision == "float64":
        return found
    # 1, 2, 1 devices at the same batch
    for n, stop in ((1, 3), (2, 8), (1, None)):
        try:
            with runs.stopped_at(stop or 0, "SIGTERM"):
                runs.train(store, folder / "changing", told, resume=True, devices=Devices.of(n))
        except Interrupted as error:
            found[f"stop {stop}"] = str(error)
    devices, (_, batch) = Devices.of(4), next(batches(opened, numbers, 4, np.dtype("f4"), devices=Devices.of(4)))
    step = compile_step(told, Grid.of(opened.layout), load_dynamics(told), devices)
    text = step.lower(jnp.zeros(1), batch, jnp.uint32(0)).compile().as_text()
    # every instruction that moves data between devices, with what it gives
    crossing = (
        r"= (\S+?)(?:\{\S*\})? (all-\w+|collective-\w+|reduce-scatter|ragged-all-to-all|send|recv|partition-id)\S*\("
    )
    found["crossing"] = sorted(f"{name} {shape}" for shape, name in re.findall(crossing, text))
    if native():
        told = runs.settings(batch_size=4, engine="native")
        sums = [sums_on(n, told, opened, numbers[:7]) for n in (1, 4)]
        found["native"] = [
            [np.allclose(a, b, 1e-5, 0) for a, b in zip(*map(jax.tree.leaves, pair), strict=True)]
            for pair in zip(*sums, strict=True)
        ]
    for bad in (3, 5):
        try:
            Devices.of(bad).check(4)
        except ConfigError as error:
            found[f"refused {bad}"] = str(error)
    found["devices"] = jax.device_count()
    return found


def native() -> bool:
    """Whether the C++ engine can be had here."""
    try:
        compiler.command(library.KERNEL)
    except ConfigError:
        return False
    return True


def sums_on(n: int, told: Training, store: ShardStore, numbers: np.ndarray) -> list[SampleGradients]:
    """What `n` devices find of `numbers`, a batch at a time."""
    devices, grid, found = Devices.of(n), Grid.of(store.layout), []
    step = compile_step(told, grid, load_dynamics(told), devices)
    for _, batch in batches(store, numbers, told.batch_size, np.dtype("f4"), devices=devices):
        found.append(jax.device_get(step(jnp.log(jnp.array([0.2])), batch, jnp.uint32(1))))
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
