"""What the score and its gradient cost: one job in all ways, then batch sizes, members, and steps.

The job is that of a calibration: 50 members, five days of half-hour Heun steps with hourly fixes, windows of
7 x 41 x 41, the fair energy score and its derivative with respect to C_s. Beside driftcal's own step it is run through
pastax, where that is installed, and by a hand-written C++ kernel, where there is a compiler and `--yardstick` names a
folder with one. All take turns on one core; CPU milliseconds a trajectory, medians, compile time apart.

    python -m benchmarks.gradient --json gradient.json
    python -m benchmarks.gradient --rounds 3 --quick       # the job alone
"""

import argparse
import ctypes
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import interleave, machine, on_one_core

ALONE = on_one_core()

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.windows import eddying  # noqa: E402
from driftcal.shared import settings  # noqa: E402
from driftcal.shared.errors import ConfigError  # noqa: E402
from driftcal.shared.native import compiler  # noqa: E402
from driftcal.shared.store.schema import FILL  # noqa: E402
from driftcal.train.learners.drift import smagorinsky, xla_barriers  # noqa: E402
from driftcal.train.learners.drift.dynamics import load as load_dynamics  # noqa: E402
from driftcal.train.learners.drift.loss import make_step, plan_of, sample_losses  # noqa: E402
from driftcal.train.learners.drift.native_engine import library  # noqa: E402
from driftcal.train.learners.drift.noise import noise_for  # noqa: E402
from driftcal.train.reading.batches import Batch, Grid  # noqa: E402
from driftcal.train.settings import Training  # noqa: E402

GRID = Grid(7, 41, 41, 121, 86_400, 3600, 0.125, 0.125)
CS = 0.1
Run = Callable[[], object]


def training(members: int = 50, objective: str = "energy-plain", **more: Any) -> Training:
    """Settings of a step that differs from the defaults in these."""
    return settings.build(
        Training, {"ensemble": {"members": members}, "score": {"objective": objective}, **more}, "benchmark"
    )


def gradient(told: Training, grid: Grid, batch: Batch) -> Run:
    """The training step itself."""
    with jax.enable_x64(told.precision == "float64"):
        model, batch = load_dynamics(told), jax.device_put(batch)
        step, at = make_step(told, grid, model), jnp.asarray(model.start, told.precision)

    def run() -> object:
        with jax.enable_x64(told.precision == "float64"):
            return jax.block_until_ready(step(at, batch, 0))

    return run


def score(told: Training, grid: Grid, batch: Batch) -> Run:
    """The loss alone, without a derivative."""
    plan, members = plan_of(told, grid), told.ensemble.members

    @jax.jit
    def losses(at: jax.Array, batch: Batch) -> jax.Array:
        draw = noise_for(0, 0, batch.sample, members, 0, np.dtype(np.float32))
        return sample_losses(smagorinsky.Smagorinsky.of_log(at), batch, plan, told, draw, draw)[0]

    placed = jax.device_put(batch)
    return lambda: jax.block_until_ready(losses(jnp.float32(np.log(CS)), placed))


def through_pastax(
    precision: str, batch: Batch, objective: Literal["energy-plain", "reference"] = "energy-plain"
) -> Run:
    """The same job through pastax: as its users run it in float64, with rebased times in float32."""
    from benchmarks.pastax_usage import loss_and_gradient  # noqa: PLC0415 (imports pastax, which few have)

    wide = precision == "float64"
    with jax.enable_x64(wide):
        run = loss_and_gradient(GRID, 50, 1800, "float64" if wide else "float32", wide, objective)
        placed, key, at = jax.device_put(batch), jax.random.key(0), jnp.asarray(np.log(CS), precision)

    def call() -> object:
        with jax.enable_x64(wide):
            return jax.block_until_ready(run(at, placed, key))

    return call


def through_native(batch: Batch, double: Batch) -> dict[str, tuple[Run, int]]:
    """The same job by `engine=native`, where there is a compiler."""
    try:
        compiler.command(library.KERNEL)
    except ConfigError:
        return {}

    def told(members: int = 50, **more: Any) -> Training:
        return training(members, engine="native", **more)

    return {
        "engine=native": (gradient(told(), GRID, batch), 128),
        "engine=native, score only": (score(told(), GRID, batch), 128),
        "engine=native, float64": (gradient(told(precision="float64"), GRID, double), 32),
        "engine=native, weighted": (gradient(told(objective="energy"), GRID, batch), 128),
        "engine=native, the 2025 objective": (gradient(told(objective="reference"), GRID, batch), 128),
        "engine=native, Euler-Maruyama": (gradient(told(integration={"scheme": "euler"}), GRID, batch), 128),
        "engine=native, 20 members": (gradient(told(20), GRID, batch), 128),
    }


def yardstick(folder: Path, batch: Batch, with_gradient: bool) -> Run:
    """The C++ kernel in `folder`: the same windows, its own noise."""
    library = Path(tempfile.mkdtemp()) / "kernel.so"
    options = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-std=c++17", "-shared", "-fPIC"]
    subprocess.run(["g++", *options, str(folder / "kernel.cpp"), "-o", str(library)], check=True)
    kernel = ctypes.CDLL(str(library)).smag_batch
    n, n_obs = len(batch.sample), GRID.n_obs
    u, v = np.moveaxis(np.asarray(batch.currents) * 1e-4, 1, 0)
    latitude = np.asarray(batch.latitude)[:, None] + np.arange(GRID.n_lat) * GRID.lat_step
    start = np.asarray(batch.cell + batch.start).T
    track = np.asarray(batch.cell[:, None] + batch.track).transpose(2, 0, 1)
    given = (u, v, np.cos(np.radians(latitude)), np.radians(latitude[:, 0]), np.asarray(batch.phase) / 86_400)
    held = [np.ascontiguousarray(a, np.float32) for a in (*given, *start, *track)]
    out = np.empty((n, 4, n_obs - 1), np.float32)
    real, pointers = ctypes.c_float, [a.ctypes.data_as(ctypes.c_void_p) for a in (*held, out)]

    def run() -> object:
        shape = GRID.n_times, GRID.n_lat, GRID.n_lon, 50, n_obs - 1, 2
        numbers = real(1800.0), real(GRID.lat_step), real(1.0), real(CS)
        kernel(n, *pointers[:-1], None, *shape, *numbers, 2, int(with_gradient), 1, 1, 1, 0, 0, pointers[-1], None)
        assert np.isfinite(out[:, : 4 if with_gradient else 2]).all()
        return held

    return run


def unwalled(told: Training, grid: Grid, batch: Batch) -> Run:
    """The training step that the compiler may fuse as it likes."""
    kept = xla_barriers.on_cpu
    xla_barriers.on_cpu = lambda _choice, _first, _second, elsewhere, *operands: elsewhere(*operands)
    try:
        run = gradient(told, grid, batch)
        run()  # compiles
    finally:
        xla_barriers.on_cpu = kept
    return run


def coastal(batch: Batch) -> Batch:
    """`batch` with land beside one sample's start: the whole batch then takes the way that a coast needs."""
    currents = np.array(batch.currents)
    currents[0, :, :, :, GRID.n_lon // 2 + 1 :] = FILL
    return eqx.tree_at(lambda b: b.currents, batch, currents)


def the_job(options: argparse.Namespace) -> dict[str, Any]:
    """Every way of doing the job, interleaved."""
    batch, double = eddying(GRID, 128, np.float32), eddying(GRID, 32, np.float64)
    few, half = (jax.tree.map(lambda a, n=n: a[:n], batch) for n in (8, 64))
    default = training(objective="energy")
    candidates: dict[str, tuple[Run, int]] = {
        "score and gradient": (gradient(training(), GRID, batch), 128),
        "  score only": (score(training(), GRID, batch), 128),
        "  float64": (gradient(training(precision="float64"), GRID, double), 32),
        "  batches of 64": (gradient(training(), GRID, half), 64),
        "  land beside one sample's start": (gradient(training(), GRID, coastal(batch)), 128),
        "  without walls": (unwalled(training(), GRID, batch), 128),
        "  weighted by a reference ensemble": (gradient(default, GRID, batch), 128),
        "  the same, batches of 64": (gradient(default, GRID, half), 64),
        "  Liu and Weisberg's index": (gradient(training(objective="liu"), GRID, batch), 128),
        "  the 2025 objective": (gradient(training(objective="reference"), GRID, batch), 128),
        "  Ito-Heun": (gradient(training(integration={"scheme": "ito-heun"}), GRID, batch), 128),
        "  Euler-Maruyama": (gradient(training(integration={"scheme": "euler"}), GRID, batch), 128),
        "  20 members": (gradient(training(20), GRID, batch), 128),
    }
    candidates |= through_native(batch, double)
    if importlib.util.find_spec("pastax"):
        candidates["pastax, float64"] = through_pastax("float64", jax.tree.map(lambda a: a[:8], double)), 8
        candidates["pastax, float32"] = through_pastax("float32", few), 8
        candidates["pastax, float32, the 2025 objective"] = through_pastax("float32", few, "reference"), 8
    if options.yardstick and shutil.which("g++"):
        candidates["C++ kernel"] = yardstick(options.yardstick, batch, True), 128
        candidates["C++ kernel, score only"] = yardstick(options.yardstick, batch, False), 128
    found = interleave(candidates, options.rounds)
    print(f"{'':36}{'CPU ms':>9}{'ratio':>9}   ({machine()}{', one core' if ALONE else ''})")
    for name, timing in found.items():
        print(f"{name:36}{timing.cpu_ms:9.3f}{timing.ratio:9.2f}")
    return {name.strip(): asdict(timing) for name, timing in found.items()}


def compiled(told: Training, grid: Grid, batch: Batch) -> dict[str, float]:
    """Time to compile a step [s], and the memory that the compiler sets aside for it [MB]."""
    started = time.perf_counter()
    model = load_dynamics(told)
    step, at = make_step(told, grid, model), jnp.asarray(model.start, jnp.float32)
    made = jax.jit(lambda at, batch: step(at, batch, 0)).lower(at, batch).compile()
    memory = made.memory_analysis()
    assert memory is not None
    return {"compile_s": time.perf_counter() - started, "temporary_mb": memory.temp_size_in_bytes / 1e6}


def sweeps(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Cost against the batch's size, the members, and the steps: one of them changed at a time."""
    shortened = {days: Grid(7, 41, 41, 24 * days + 1, 86_400, 3600, 0.125, 0.125) for days in (1, 2, 5)}
    cases = {
        "batch": [(n, training(), GRID, n) for n in (16, 32, 64, 128, 256)],
        "members": [(n, training(n), GRID, 64) for n in (5, 10, 20, 50, 100, 200)],
        "steps": [(48 * days, training(), grid, 64) for days, grid in shortened.items()],
    }
    tables = {}
    for what, held in cases.items():
        batches = [eddying(grid, n, np.float32) for _, _, grid, n in held]
        costs = [compiled(told, grid, batch) for (_, told, grid, _), batch in zip(held, batches, strict=True)]
        runs: dict[str, tuple[Run, int]] = {}
        for (value, told, grid, n), batch in zip(held, batches, strict=True):
            runs[f"{value} gradient"] = gradient(told, grid, batch), n
            runs[f"{value} score"] = score(told, grid, batch), n
        found = interleave(runs, options.rounds)
        print(f"\n{what:>9}{'score':>9}{'gradient':>10}{'ratio':>7}{'MB':>8}{'compile s':>11}")
        tables[what] = []
        for (value, *_), cost in zip(held, costs, strict=True):
            row = {
                what: value,
                "score_cpu_ms": found[f"{value} score"].cpu_ms,
                "gradient_cpu_ms": found[f"{value} gradient"].cpu_ms,
                **cost,
            }
            row["gradient_over_score"] = row["gradient_cpu_ms"] / row["score_cpu_ms"]
            tables[what].append(row)
            print(
                f"{value:9}{row['score_cpu_ms']:9.3f}{row['gradient_cpu_ms']:10.3f}{row['gradient_over_score']:7.2f}"
                f"{row['temporary_mb']:8.1f}{row['compile_s']:11.1f}",
                flush=True,
            )
    return tables


def modes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Forward against reverse mode, by the number of trained parameters of a user's term."""
    batch, rows = eddying(GRID, 64, np.float32), []
    runs: dict[str, tuple[Run, int]] = {}
    counts = 1, 2, 4, 6, 8, 12, 16
    told = {
        (n, mode): training(
            20, dynamics="benchmarks.terms:Tides", dynamics_settings={"parameters": n}, gradient={"mode": mode}
        )
        for n in counts
        for mode in ("forward", "reverse")
    }
    for (n, mode), settings_ in told.items():
        runs[f"{n} {mode}"] = gradient(settings_, GRID, batch), 64
    found = interleave(runs, options.rounds)
    print(f"\n{'parameters':>10}{'forward':>9}{'reverse':>9}{'MB':>9}{'MB':>9}")
    for n in counts:
        memory = {mode: compiled(told[n, mode], GRID, batch)["temporary_mb"] for mode in ("forward", "reverse")}
        cpu = {mode: found[f"{n} {mode}"].cpu_ms for mode in ("forward", "reverse")}
        rows.append({"parameters": n, "cpu_ms": cpu, "temporary_mb": memory})
        print(f"{n:10}{cpu['forward']:9.2f}{cpu['reverse']:9.2f}{memory['forward']:9.0f}{memory['reverse']:9.0f}")
    return rows


def main() -> int:
    """Entry point; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--quick", action="store_true", help="the one job only")
    options.add_argument("--yardstick", type=Path, metavar="FOLDER", help="folder of a C++ kernel.cpp to compare with")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    chosen = options.parse_args()
    found: dict[str, Any] = {"machine": machine(), "one_core": ALONE, "device": jax.devices()[0].device_kind}
    found["job"] = the_job(chosen)
    if not chosen.quick:
        found |= sweeps(chosen)
        found["modes"] = modes(chosen)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
