"""Batches of made windows for tests of the simulator: smooth eddies, a coast, asymmetric grids."""

import jax
import numpy as np
from driftcal.shared.store.schema import FILL
from driftcal.train.fit.sample_gradients import gradient
from driftcal.train.learners.drift.dynamics import dynamics_of
from driftcal.train.learners.drift.loss import mode_of, sample_losses
from driftcal.train.reading.batches import Batch, Grid

GRID = Grid(n_times=7, n_lat=20, n_lon=24, n_obs=121, time_step=86_400, obs_step=3600, lat_step=0.25, lon_step=0.2)


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
    made = Batch(
        currents=eddies(rng, n, grid, speed, coast),
        cell=cell.astype(np.int32),
        start=start.astype(dtype),
        track=track.astype(dtype),
        phase=(3600.0 * rng.integers(0, 24, n)).astype(dtype),
        longitude=np.full(n, 170.0, dtype),
        latitude=rng.uniform(-50, 40, n).astype(dtype),
        sample=np.arange(n, dtype=np.uint32) + 7,
        weight=np.ones(n, dtype),
    )
    return jax.device_put(made)


def cast(of, dtype):
    """The same batch in another precision."""
    return jax.tree.map(lambda a: np.asarray(a).astype(dtype) if np.asarray(a).dtype.kind == "f" else a, of)


def gradients(parameters, at, batch, plan, settings, noise, weights_noise):
    """Every sample's gradient at `at`, with this noise."""
    mode = mode_of(settings, parameters.size, plan.grid).mode

    def losses(vector):
        dynamics = dynamics_of(parameters, vector)
        return sample_losses(dynamics, batch, plan, settings, noise, weights_noise, checkpoint=mode == "reverse")

    return gradient(losses, mode, at, batch.weight)
