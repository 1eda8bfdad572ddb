"""Batches of made windows for tests of the simulator: smooth eddies, a coast, asymmetric grids; and still ones.

Of one case, two samples and their noise, the oracle's tracks too.
"""

import functools
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.shared.store.schema import FILL, SCALE
from driftcal.train.fit.sample_gradients import gradient
from driftcal.train.learners.drift import loss
from driftcal.train.learners.drift.dynamics import dynamics_of
from driftcal.train.learners.drift.loss import mode_of, sample_losses
from driftcal.train.learners.drift.simulate import simulate
from driftcal.train.learners.drift.smagorinsky import Neighbours, Table
from driftcal.train.reading.batches import Batch, Grid
from tests import oracle

GRID = Grid(n_times=7, n_lat=20, n_lon=24, n_obs=121, time_step=86_400, obs_step=3600, lat_step=0.25, lon_step=0.2)
CS, MEMBERS, N_STEPS = 0.4, 4, 240
"""Of the case that the oracle computes."""

BRIEF = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""Options of XLA that compile a program in a third of the time. They are for float64 programs of seconds that are
compared with other ones to tolerances far above rounding: what is derived and traced is their subject, not the code."""


def eddies(rng, n, grid, speed=0.5, coast=True):
    """Currents (n, 2, time, lat, lon) int16 of a few drifting vortices; a coast in the south-west of every other."""
    j, i = np.mgrid[: grid.n_lat, : grid.n_lon]
    out = np.zeros((n, 2, grid.n_times, grid.n_lat, grid.n_lon))
    for b in range(n):
        for _ in range(6):
            y0, x0 = rng.uniform(0, grid.n_lat), rng.uniform(0, grid.n_lon)
            radius, spin = rng.uniform(2.5, 5.0), rng.choice([-1, 1]) * rng.uniform(0.5, 1.0) * speed
            drift_y, drift_x = rng.uniform(-0.6, 0.6, 2)
            for t in range(grid.n_times):
                y, x = j - y0 - drift_y * t, i - x0 - drift_x * t
                shape = spin * np.exp((1 - (x**2 + y**2) / radius**2) / 2) / radius
                out[b, 0, t] -= y * shape
                out[b, 1, t] += x * shape
    counts = np.clip(np.round(out / 1e-4), -32000, 32000).astype(np.int16)
    if coast:
        counts[::2, :, :, (j + 1.3 * i < 13)] = FILL
    return counts


def batch(rng, n, grid=GRID, dtype=np.float64, coast=True, speed=0.5):
    """A batch whose drifters wander off from the middle of their windows; starts at odd hours."""
    start = rng.uniform(0.1, 0.9, (n, 2))
    walk = np.cumsum(rng.normal(0, 0.03, (n, grid.n_obs - 1, 2)), axis=1)
    track = start[:, None] + np.concatenate([np.zeros((n, 1, 2)), walk], axis=1)
    cell = np.tile([grid.n_lon // 2 - 3, grid.n_lat // 2 - 2], (n, 1))
    made = {
        "currents": eddies(rng, n, grid, speed, coast),
        "cell": cell.astype(np.int32),
        "start": start.astype(dtype),
        "track": track.astype(dtype),
        "phase": (3600.0 * rng.integers(0, 24, n)).astype(dtype),
        "longitude": np.full(n, 170.0, dtype),
        "latitude": rng.uniform(-50, 40, n).astype(dtype),
        "sample": np.arange(n, dtype=np.uint32) + 7,
        "weight": np.ones(n, dtype),
    }
    return Batch(**jax.device_put(made))


def cast(of, dtype):
    """The same batch in another precision."""
    return jax.tree.map(lambda a: np.asarray(a).astype(dtype) if np.asarray(a).dtype.kind == "f" else a, of)


def held(**values):
    """A batch of arrays of numpy, which are changed before they go to the device."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, Batch(**jax.device_put(values)))


def still_batch(start, grid):
    """Samples that start at the given columns and rows (n, 2), at the equator."""
    cell = np.floor(start).astype(np.int32)
    n = len(start)
    return held(
        currents=np.zeros((n, 2, grid.n_times, grid.n_lat, grid.n_lon), np.int16),
        cell=cell,
        start=start - cell,
        track=np.zeros((n, grid.n_obs, 2)),
        phase=np.zeros(n),
        longitude=np.zeros(n),
        latitude=np.zeros(n),
        sample=np.arange(n, dtype=np.uint32),
        weight=np.ones(n),
    )


def frozen(kappa, grid, n):
    """A table of no current and a given diffusivity [m2/s] (lat, lon), constant in time."""
    with jax.enable_x64(True):
        kappa = jnp.asarray(kappa)
        n_nodes = kappa.size
        lat = jnp.arange(grid.n_lat, dtype=kappa.dtype) * grid.lat_step
        dx = METRES_PER_DEGREE * grid.lon_step * jnp.cos(jnp.radians(lat))[:, None]
        zero = jnp.zeros_like(kappa)
        kx, ky = Neighbours.of(jnp.ones(kappa.shape, bool), kappa.dtype).difference(kappa)
        kx, ky = kx / dx, ky / (METRES_PER_DEGREE * grid.lat_step)
        rows = jnp.stack([zero, zero, kappa, zero, zero, zero, kx, ky], -1)
        rows = jnp.broadcast_to(rows, (n, grid.n_times - 1, *rows.shape)).reshape(-1, 8)
        return Table(rows, jnp.full(n * n_nodes, 15, jnp.uint8), grid.n_times - 1, 1 / 86_400)


def in_degrees(columns_rows, batch, grid, b):
    """Window columns and rows of sample b to (lon, lat) with longitude counted from the window's corner."""
    return np.stack(
        [columns_rows[..., 0] * grid.lon_step, float(batch.latitude[b]) + columns_rows[..., 1] * grid.lat_step], -1
    )


def windows_of(batch, grid):
    currents = np.asarray(batch.currents)
    values = np.where(currents == FILL, np.nan, currents * SCALE)
    return [
        oracle.Window(values[b, 0], values[b, 1], float(batch.latitude[b]), grid.lat_step, grid.lon_step, 86_400)
        for b in range(len(values))
    ]


def metres_apart(a, b, batch, grid):
    """Distance of (obs, 2, S, B) columns and rows from (obs, S, 2, B) ones [m]."""
    b = b.transpose(0, 2, 1, 3)
    lat = np.radians(np.asarray(batch.latitude) + a[:, 1] * grid.lat_step)
    dx = (a[:, 0] - b[:, 0]) * METRES_PER_DEGREE * grid.lon_step * np.cos(lat)
    dy = (a[:, 1] - b[:, 1]) * METRES_PER_DEGREE * grid.lat_step
    return np.hypot(dx, dy)


@functools.cache
def case():
    """Two samples of five days (the first near a coast), their noise, and what the oracle makes of them."""
    rng = np.random.default_rng(42)
    with jax.enable_x64(True):
        two = batch(rng, 2)
    noise = rng.normal(size=(N_STEPS, 2, MEMBERS, 2))
    return two, noise, windows_of(two, GRID)


@functools.cache
def oracle_tracks(cs, scheme):
    """Columns and rows (obs, members, 2, B) of the case's ensembles by the oracle, which takes seconds."""
    two, noise, windows = case()
    tracks = []
    for b, window in enumerate(windows):
        start = np.asarray(two.cell[b]) + np.asarray(two.start[b])
        tracks.append(oracle.simulate(window, start, float(two.phase[b]), cs, noise[..., b], 1800, 121, 2, scheme))
    found = np.stack(tracks, axis=-1)
    found.flags.writeable = False
    return found


def simulated(dynamics, batch, plan, members, noise, keep_positions=True, table=None):
    """`simulate`, compiled as a whole: by itself every operation before its loop would be compiled alone.

    `table` is an argument of the program: as a constant, a gigabyte of it would be copied and hashed on the way.
    """

    def run(batch, table):
        return simulate(dynamics, batch, plan, members, noise, keep_positions=keep_positions, table=table)

    return eqx.filter_jit(run)(batch, table)


def brief_step(settings, model):
    """The step of a run on `GRID`, compiled with `BRIEF`."""
    with mock.patch.object(eqx, "filter_jit", functools.partial(eqx.filter_jit, compiler_options=BRIEF)):
        return loss.make_step(settings, GRID, model)


def gradients(parameters, at, batch, plan, settings, noise, weights_noise):
    """Every sample's gradient at `at`, with this noise."""
    mode = mode_of(settings, parameters.size, plan.grid).mode

    def losses(vector):
        dynamics = dynamics_of(parameters, vector)
        return sample_losses(dynamics, batch, plan, settings, noise, weights_noise, checkpoint=mode == "reverse")

    return gradient(losses, mode, at, batch.weight)
