"""An epoch of training end to end, from a store on disk: how fast, how much of it is waiting, how long 20 years take.

The training loop's own loader and step run over all training samples of a store, whose files are read once before, so
that they are in the page cache. Waiting is the time from asking the loader for a batch until it is there. 20 years of
drifters are 500,000 segments; 48 hours is what such an epoch may take at most. The floor is the time that the device
needs for the step's floating-point operations, or for reading the windows and writing and reading the table of flows
once, whichever is longer, at the rates that the device reaches in two loops that do nothing else.

    python -m benchmarks.epoch STORE --json epoch.json
    python -m benchmarks.epoch --made                  # a store of twins, made first and removed afterwards

On a CPU the batch is divided among `--devices` cores, by default all; `taskset -c 0` keeps everything, reading
included, on one. On a GPU the same command runs unchanged.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import operations, stores
from benchmarks.measure import cores, machine
from driftcal.shared import settings
from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit.sample_gradients import Step
from driftcal.train.learners.drift.dynamics import load as load_dynamics
from driftcal.train.learners.drift.loss import make_step
from driftcal.train.reading.batches import Batch, Grid, batches, order
from driftcal.train.settings import Training

SEGMENTS = 500_000
"""Five-day segments in 20 years of drifters."""

BAR_HOURS = 48.0
"""An epoch over them must not take longer."""


@dataclass(frozen=True)
class Epoch:
    """Of one pass.

    Attributes:
        samples: taken.
        wall_s: from the first batch asked for to the last gradient on the host.
        cpu_s: of all threads.
        waiting_s: of `wall_s`, until the loader had the next batch.
    """

    samples: int
    wall_s: float
    cpu_s: float
    waiting_s: float


def main() -> int:
    """Entry point; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("store", nargs="?", type=Path, help="a finished store")
    options.add_argument("--made", action="store_true", help="make a store of twins instead")
    options.add_argument("--members", type=int, nargs="+", default=[50, 20])
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--devices", type=int, help="to divide batches among; by default all cores, or one GPU")
    options.add_argument("--rounds", type=int, default=3, help="epochs of each kind, taking turns")
    options.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", help="a training setting, such as engine=native"
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    chosen = options.parse_args()
    if (chosen.store is None) == (not chosen.made):
        options.error("give either a store or --made")
    jax.config.update("jax_num_cpu_devices", chosen.devices or cores())
    with tempfile.TemporaryDirectory() as folder:
        store = ShardStore(chosen.store or _made(Path(folder)), copying="auto")
        found = measured(store, chosen)
    print(_table(found))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _made(folder: Path) -> Path:
    """A store of some 5,000 samples at 0.125 degrees; windows of 7 x 44 x 56."""
    synthetic = {"drifters": 900, "drifter_days": 30, "days": 44, "resolution_deg": 0.125, "lat": [-35.0, 35.0]}
    with contextlib.redirect_stdout(io.StringIO()):
        return stores.twins(folder / "twins", 0.3, synthetic)


def measured(store: ShardStore, chosen: argparse.Namespace) -> dict[str, Any]:
    """All that the command prints and writes."""
    n_devices = chosen.devices or (len(jax.devices()) if jax.default_backend() == "cpu" else 1)
    samples = store.samples_of("train")
    told = {n: training(n, chosen.batch_size, chosen.set) for n in chosen.members}
    steps = {n: divided(make_step(t, Grid.of(store.layout), load_dynamics(t)), n_devices) for n, t in told.items()}
    alone = [_pass(store, samples, told[chosen.members[0]], None) for _ in range(2)][1]  # the first warms the cache
    for n, step in steps.items():
        _pass(store, samples[: chosen.batch_size], told[n], step)  # compiles
    epochs: dict[int, list[Epoch]] = {n: [] for n in steps}
    for _ in range(chosen.rounds):
        for n, step in steps.items():
            epochs[n].append(_pass(store, samples, told[n], step))
    layout, rates = store.layout, operations.rates()
    return {
        "machine": machine(),
        "device": jax.devices()[0].device_kind,
        "devices": n_devices,
        "batch_size": chosen.batch_size,
        "set": chosen.set,
        "samples": len(samples),
        "window": [layout.n_times, layout.n_lat, layout.n_lon],
        "reading_alone": asdict(alone),
        "rates": asdict(rates),
        "epochs": [_row(n, median_of(epochs[n]), told[n], Grid.of(layout), rates) for n in steps],
    }


def training(members: int, batch_size: int, more: list[str]) -> Training:
    """Default settings but for these; `more` as on the command line of `drift-train`."""
    tree = settings.override({"ensemble": {"members": members}, "batch_size": batch_size}, more)
    return settings.build(Training, tree, "benchmark")


def divided(step: Step, n_devices: int) -> Step:
    """The step with its batch divided among devices: samples do not depend on one another."""
    if n_devices == 1:
        return step
    mesh = jax.make_mesh((n_devices,), ("sample",))
    one, each = PartitionSpec(), PartitionSpec("sample")
    mapped = jax.shard_map(
        lambda at, batch, epoch: step(at, batch, epoch),
        mesh=mesh,
        in_specs=(one, each, one),
        out_specs=each,
        check_vma=False,
    )
    compiled, split = jax.jit(mapped), NamedSharding(mesh, each)
    return lambda at, batch, epoch: compiled(at, jax.device_put(batch, split), jnp.uint32(epoch))


def _pass(store: ShardStore, samples: np.ndarray, told: Training, step: Step | None) -> Epoch:
    """One pass over `samples`; without a step they are only read."""
    at = jnp.asarray(load_dynamics(told).start, told.precision)
    waited: list[float] = []
    shuffled = order(samples, told.seed, 0, told.data.run_length)
    began = time.perf_counter(), time.process_time()
    ahead = batches(store, shuffled, told.batch_size, np.dtype(told.precision), told.data)
    for _, batch in timed(ahead, waited):
        if step is not None:
            sums = jax.device_get(step(at, batch, 0))
            assert not sums.poisoned.any()
    return Epoch(len(samples), time.perf_counter() - began[0], time.process_time() - began[1], sum(waited))


def timed(given: Iterator[tuple[np.ndarray, Batch]], waited: list[float]) -> Iterator[tuple[np.ndarray, Batch]]:
    """The same, with the time until each was there appended to `waited` [s]."""
    while True:
        asked = time.perf_counter()
        following = next(given, None)
        waited.append(time.perf_counter() - asked)
        if following is None:
            return
        yield following


def median_of(epochs: list[Epoch]) -> Epoch:
    """The one whose time on the clock is the median."""
    middle = median(epoch.wall_s for epoch in epochs)
    return min(epochs, key=lambda epoch: abs(epoch.wall_s - middle))


def _row(members: int, epoch: Epoch, told: Training, grid: Grid, rates: operations.Rates) -> dict[str, Any]:
    hours = epoch.wall_s / epoch.samples * SEGMENTS / 3600
    cost = operations.of_a_sample(told, grid)
    return {
        "members": members,
        **asdict(epoch),
        "samples_per_second": epoch.samples / epoch.wall_s,
        "cpu_ms_a_sample": 1e3 * epoch.cpu_s / epoch.samples,
        "waiting_share": epoch.waiting_s / epoch.wall_s,
        "minutes_for_20_years": 60 * hours,
        "of_48_hours": hours / BAR_HOURS,
        "mflop_a_sample": cost.operations / 1e6,
        "mb_a_sample": cost.bytes / 1e6,
        "floor_us_a_sample": 1e6 * rates.floor(cost),
        "floor_is": rates.limit(cost),
        "above_floor": epoch.wall_s / epoch.samples / rates.floor(cost),
    }


def _table(found: dict[str, Any]) -> str:
    alone, rates = found["reading_alone"], found["rates"]
    lines = [
        f"{found['machine']}; {found['devices']} x {found['device']}; batches of {found['batch_size']}; "
        f"{found['samples']} samples, windows {' x '.join(map(str, found['window']))}",
        f"reading alone: {1e6 * alone['wall_s'] / alone['samples']:.0f} us a sample; the device reaches "
        f"{rates['flops'] / 1e9:.3g} Gflop/s and {rates['bytes'] / 1e9:.3g} GB/s",
        f"{'members':>7}{'samples/s':>11}{'CPU ms':>8}{'waiting':>9}{'20 years':>11}{'of 48 h':>9}{'floor us':>10}"
        f"{'above':>7}",
    ]
    for row in found["epochs"]:
        lines.append(
            f"{row['members']:7}{row['samples_per_second']:11.0f}{row['cpu_ms_a_sample']:8.3f}"
            f"{row['waiting_share']:9.2%}{row['minutes_for_20_years']:7.2f} min{row['of_48_hours']:9.3%}"
            f"{row['floor_us_a_sample']:10.1f}{row['above_floor']:7.1f} ({row['floor_is']})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
