"""Residuals of samples against the trained loss, plain numpy and closed forms; baselines in still water."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.shared.settings import build
from driftcal.shared.store.reader import ShardStore
from driftcal.train.evaluation import baselines
from driftcal.train.fit.sample_gradients import gradient
from driftcal.train.learners.drift import dynamics, residuals
from driftcal.train.learners.drift.loss import TRAINED, loss_of, plan_of
from driftcal.train.learners.drift.noise import noise_for
from driftcal.train.learners.drift.simulate import simulate
from driftcal.train.learners.drift.smagorinsky import tabulate
from driftcal.train.reading.batches import Grid
from driftcal.train.settings import Training
from tests import flows, stores

GRID = Grid(n_times=4, n_lat=12, n_lon=14, n_obs=25, time_step=86_400, obs_step=7200, lat_step=0.25, lon_step=0.2)
SETTINGS = {
    "ensemble": {"members": 5},
    "score": {"reference_members": 4},
    "integration": {"step": "2h", "kappa_every": "12h"},
    "precision": "float64",
    "seed": 11,
}
LOG_CS = np.log(0.4)


@pytest.fixture(scope="module")
def case():
    """A batch of three samples, and their residuals."""
    told = build(Training, SETTINGS, "case")
    with jax.enable_x64(True):
        batch = flows.batch(np.random.default_rng(3), 3, GRID, coast=False)
        found = residuals.residuals_of(told, GRID, dynamics.load(told), True)(jnp.array([LOG_CS]), batch)
        return told, batch, jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(("objective", "of"), [("energy", "energy"), ("energy-plain", "plain")])
def test_slopes_by_lead_time_are_those_of_the_trained_loss(case, objective: str, of: str) -> None:
    told, batch, found = case
    trained = build(Training, SETTINGS | {"score": {"reference_members": 4, "objective": objective}}, "case")
    with jax.enable_x64(True):
        loss = loss_of(trained, GRID, dynamics.load(trained))
        at = gradient(
            lambda v: loss(v, batch, jnp.asarray(told.epochs, jnp.uint32)), "forward", jnp.array([LOG_CS]), batch.weight
        )
    slopes = getattr(found, of)
    np.testing.assert_allclose(slopes.slope.mean(axis=0), np.asarray(at.gradient).T, rtol=1e-9)
    np.testing.assert_allclose(slopes.dispersion.mean(axis=0), at.dispersion, rtol=1e-9)


def test_departures_memory_and_displacement_are_those_of_the_tracks(case) -> None:
    told, batch, found = case
    with jax.enable_x64(True):
        noise = noise_for(told.seed, told.epochs, batch.sample, 5, TRAINED, np.dtype("float64"))
        model = dynamics.dynamics_of(dynamics.load(told), jnp.array([LOG_CS]))
        run = simulate(model, batch, plan_of(told, GRID), 5, noise, keep_positions=True)
        cells, track = np.asarray(run.positions), np.asarray(batch.track)
    lat = np.radians(np.asarray(batch.latitude) + (np.asarray(batch.cell)[:, 1] + track[:, 1:, 1].T) * GRID.lat_step)
    scale = METRES_PER_DEGREE * np.stack([GRID.lon_step * np.cos(lat), GRID.lat_step + 0 * lat], axis=1)
    away = (cells - track[:, 1:].transpose(1, 2, 0)[:, :, None]) * scale[:, :, None]  # obs 2 S B
    mean = away.mean(axis=2)
    np.testing.assert_allclose(found.departure, -mean, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(found.error2, (mean**2).sum(axis=1), rtol=1e-9)
    apart = away - mean[:, :, None]
    # a day has 12 fixes of 2 h, but only two fit: then a quarter of the track, 6; a quarter of a day has 3
    for stride, memory in ((6, found.daily), (3, found.hourly), (1, found.successive)):
        for b in range(3):
            product = turning = square = 0.0
            for s in range(5):
                ends = np.concatenate([np.zeros((1, 2)), apart[stride - 1 :: stride, :, s, b]])
                steps = np.diff(ends, axis=0)
                square += (steps**2).sum() / 5
                product += sum(d @ e for d, e in pairwise(steps)) / 5
                turning += sum(d[0] * e[1] - d[1] * e[0] for d, e in pairwise(steps)) / 5
            assert memory.product[b] == pytest.approx(product, rel=1e-9)
            assert memory.turning[b] == pytest.approx(turning, rel=1e-9)
            assert memory.square[b] == pytest.approx(square, rel=1e-9)


def test_the_speed_of_the_currents_alone_in_a_uniform_strain() -> None:
    """u = c + a x: the speed at the path that starts in x = 0 is c exp(a t)."""
    rate, wind = 2e-6, 0.1
    told = build(Training, SETTINGS, "strain")
    with jax.enable_x64(True):
        still = flows.batch(np.random.default_rng(0), 1, GRID, coast=False)
        x = (np.arange(GRID.n_lon) - 4) * METRES_PER_DEGREE * GRID.lon_step  # at the equator
        u = np.broadcast_to(wind + rate * x, (1, GRID.n_times, GRID.n_lat, GRID.n_lon))
        counts = np.round(np.stack([u, 0 * u], axis=1) / 1e-4).astype(np.int16)
        cell, start = np.array([[4, 5]], np.int32), np.array([[0.0, 0.5]])
        batch = flows.held(
            currents=counts,
            cell=cell,
            start=start,
            track=np.asarray(still.track),
            phase=np.zeros(1),
            longitude=np.zeros(1),
            latitude=np.array([-(5.5) * GRID.lat_step]),
            sample=np.zeros(1, np.uint32),
            weight=np.ones(1),
        )
        table = tabulate(jnp.asarray(counts), jnp.asarray(batch.latitude), GRID, 43_200, 7200)
        speed, displacement = residuals.currents_alone(jax.device_put(batch), plan_of(told, GRID), table)
    t = np.arange(GRID.n_obs - 1) * GRID.obs_step
    assert float(speed[0]) == pytest.approx((wind * np.exp(rate * t)).mean(), rel=2e-3)
    whole = (GRID.n_obs - 1) * GRID.obs_step
    assert float(displacement[0, 0]) == pytest.approx(wind / rate * np.expm1(rate * whole), rel=2e-3)
    assert abs(float(displacement[1, 0])) < 1.0


def test_baselines_find_a_diffusivity_and_a_drift_in_still_water(tmp_path) -> None:
    diffusivity, drift, n = 300.0, np.array([0.06, -0.03]), 360
    random = np.random.default_rng(8)

    def change(values: dict[str, np.ndarray]) -> None:
        values["currents"][:] = 0
        seconds = layout_step * np.arange(values["positions"].shape[1])
        walk = random.standard_normal(values["positions"].shape) * np.sqrt(2 * diffusivity * layout_step)
        walk[:, 0] = 0.0
        metres = walk.cumsum(axis=1) + drift * seconds[:, None]
        lat = values["origin"][:, 1]
        degrees = metres / METRES_PER_DEGREE
        degrees[..., 0] /= np.cos(np.radians(lat[:, None] + degrees[..., 1] / 2))
        values["positions"][:] = degrees

    layout_step = ShardStore(stores.build(tmp_path / "any", 4).path).layout.obs_step
    store = ShardStore(stores.build(tmp_path / "store", n, n_drifters=n // 2, n_unusable=0, change=change).path)
    told = build(Training, {"ensemble": {"members": 12}, "integration": {"step": "3h"}, "batch_size": 64}, "still")
    samples = store.samples_of("train")
    found = baselines.calibrate(store, told, samples, 300.0 * np.exp(3.0), False)  # at the end of the first search
    n_fixes = store.layout.n_obs - 1
    # the energy score's curvature in log K is an eighth of its second term, its slope varies by about a quarter of that
    error = 2 / np.sqrt(min(len(samples), baselines.SAMPLES))
    assert np.log(found.with_mean_drift.diffusivity) == pytest.approx(np.log(diffusivity), abs=3 * error)
    assert found.constant_diffusivity.diffusivity > found.with_mean_drift.diffusivity
    wobble = np.sqrt(2 * diffusivity / (len(samples) * n_fixes * layout_step))
    assert [found.with_mean_drift.east, found.with_mean_drift.north] == pytest.approx(drift, abs=5 * wobble)
