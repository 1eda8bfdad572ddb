"""The drift simulator as a model of the study: the very step that training scans, on made currents.

One-minute steps, so that thousands fit between the first and the last level of a window. The loss is the fair energy
score of the final positions [m]; the one parameter is log C_s.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from driftcal.train.gradient_cost.timed_model import Model, State
from driftcal.train.learners.drift.noise import noise_for
from driftcal.train.learners.drift.scoring_rules import distances
from driftcal.train.learners.drift.simulate import Plan, stepper
from driftcal.train.learners.drift.smagorinsky import Smagorinsky, tabulate
from driftcal.train.learners.drift.sphere import Origin
from driftcal.train.reading.batches import Batch, Grid

GRID = Grid(n_times=7, n_lat=24, n_lon=28, n_obs=2, time_step=86_400, obs_step=60, lat_step=0.125, lon_step=0.15)
MEMBERS, SAMPLES, SEED, CS = 20, 16, 7, 0.3


def drift() -> Model:
    """Ensembles of `MEMBERS` in `SAMPLES` windows of made eddies, from C_s = `CS`."""
    rng = np.random.default_rng(SEED)
    batch = _batch(rng, np.dtype(jnp.zeros(()).dtype))
    plan = Plan(GRID, 60, GRID.time_step, "heun")
    noise = noise_for(SEED, 0, jnp.asarray(batch.sample), MEMBERS, 0, batch.latitude.dtype)
    table = tabulate(batch.currents, batch.latitude, GRID, plan.kappa_every, plan.step)
    origin = Origin.at(batch.latitude + batch.cell[:, 1].astype(batch.latitude.dtype) * GRID.lat_step)
    radians = np.radians(GRID.lon_step), np.radians(GRID.lat_step)
    seen = origin.point(batch.track[:, 1, 0] * radians[0], batch.track[:, 1, 1] * radians[1])

    def step(state: State, log_cs: Array, k: Array) -> State:
        x, y, inside = state
        advance = stepper(Smagorinsky.of_log(log_cs), batch, plan, noise, table).advance
        x, y, still = advance(x, y, inside > 0.5, jnp.asarray(k))
        return x, y, still.astype(x.dtype)

    def loss(state: State) -> Array:
        x, y, _ = state
        found = distances(origin.point(x * radians[0], y * radians[1]), seen, None)
        return jnp.mean(found.observed - found.between)

    shape = MEMBERS, SAMPLES
    x, y = (jnp.broadcast_to(batch.start[:, c], shape) for c in (0, 1))
    start = x, y, jnp.ones(shape, batch.latitude.dtype)
    most = (GRID.n_times - 2) * GRID.time_step // plan.step
    return Model(step, start, jnp.log(jnp.asarray(CS, batch.latitude.dtype)), loss, most)


def _batch(rng: np.random.Generator, dtype: np.dtype) -> Batch:
    """Windows of drifting vortices in an open ocean; the observed end lies some cells from the start."""
    j, i = np.mgrid[: GRID.n_lat, : GRID.n_lon]
    t = np.arange(GRID.n_times)[:, None, None]
    currents = np.zeros((SAMPLES, 2, GRID.n_times, GRID.n_lat, GRID.n_lon))
    for window in currents:
        for _ in range(8):
            y0, x0 = rng.uniform(0, GRID.n_lat), rng.uniform(0, GRID.n_lon)
            radius, spin = rng.uniform(3, 6), rng.choice([-1, 1]) * rng.uniform(0.2, 0.4)
            y, x = j - y0 - rng.uniform(-0.6, 0.6) * t, i - x0 - rng.uniform(-0.6, 0.6) * t
            shape = spin / radius * np.exp((1 - (x**2 + y**2) / radius**2) / 2)
            window += np.stack([-y * shape, x * shape])
    start = rng.uniform(0.1, 0.9, (SAMPLES, 2))
    end = start + rng.normal(0, 2.0, (SAMPLES, 2))
    return Batch(
        currents=jnp.asarray(np.round(currents / 1e-4).astype(np.int16)),
        cell=jnp.asarray(np.tile([GRID.n_lon // 2, GRID.n_lat // 2], (SAMPLES, 1)).astype(np.int32)),
        start=jnp.asarray(start.astype(dtype)),
        track=jnp.asarray(np.stack([start, end], axis=1).astype(dtype)),
        phase=jnp.asarray(rng.uniform(0, 80_000, SAMPLES).astype(dtype)),
        longitude=jnp.asarray(np.full(SAMPLES, 170.0, dtype)),
        latitude=jnp.asarray(rng.uniform(-50, 40, SAMPLES).astype(dtype)),
        sample=jnp.asarray(np.arange(SAMPLES, dtype=np.uint32)),
        weight=jnp.asarray(np.ones(SAMPLES, dtype)),
    )
