"""The score against the float64 oracle, against closed forms, and its gradient against finite differences."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scores.probability import crps_for_ensemble

from driftcal.shared import geo
from driftcal.shared.settings import build
from driftcal.train.learners.drift import scoring_rules
from driftcal.train.learners.drift.dynamics import load as load_dynamics
from driftcal.train.learners.drift.loss import make_step, plan_of, sample_losses
from driftcal.train.learners.drift.simulate import Plan, simulate
from driftcal.train.learners.drift.smagorinsky import Smagorinsky
from driftcal.train.learners.drift.sphere import Origin
from driftcal.train.settings import Training
from tests import flows, oracle


@pytest.fixture(scope="module")
def case():
    return flows.case()


def observed_track(batch, b, grid=flows.GRID):
    return flows.in_degrees(np.asarray(batch.cell[b]) + np.asarray(batch.track[b], np.float64), batch, grid, b)


def oracle_terms(case, cs=flows.CS):
    """Both energy terms (obs, B) of the oracle's ensembles."""
    batch = case[0]
    tracks = flows.oracle_tracks(cs, "heun")
    terms = [
        oracle.energy_terms(flows.in_degrees(tracks[..., b], batch, flows.GRID, b), observed_track(batch, b))
        for b in range(tracks.shape[-1])
    ]
    return np.stack([t[0] for t in terms], -1), np.stack([t[1] for t in terms], -1)


@pytest.fixture(scope="module")
def expected(case):
    return oracle_terms(case)


def found_distances(case, dtype, **options):
    batch, noise, _ = case
    batch, noise = flows.cast(batch, dtype), jnp.asarray(noise, dtype)
    plan = Plan(flows.GRID, 1800, 1800, "heun")
    dynamics = Smagorinsky.of_log(jnp.log(jnp.asarray(flows.CS, dtype)))
    run = jax.jit(lambda b: simulate(dynamics, b, plan, flows.MEMBERS, lambda n: noise[n], **options))(batch)
    return run.distances, batch


def test_float64_score_equals_the_oracle(case, expected):
    with jax.enable_x64(True):
        found, _ = found_distances(case, np.float64)
    for ours, theirs in zip(found[:2], expected, strict=True):
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-8)


def test_float32_score_is_within_1e_4_of_the_oracle(case, expected):
    found, _ = found_distances(case, np.float32)
    energy = (np.asarray(found.observed) - np.asarray(found.between)).mean(axis=0)
    np.testing.assert_allclose(energy, (expected[0] - expected[1]).mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("name", ["energy-plain", "liu", "reference"])
def test_objectives_equal_the_oracle(case, name):
    batch = case[0]
    tracks = flows.oracle_tracks(flows.CS, "heun")
    wanted = []
    for b in range(2):
        members, observed = flows.in_degrees(tracks[..., b], batch, flows.GRID, b), observed_track(batch, b)
        if name == "energy-plain":
            first, second = oracle.energy_terms(members, observed)
            wanted.append((first - second).mean())
        else:
            first, second = oracle.liu_terms(members, observed, own=name == "reference")
            wanted.append((first - second).mean() if name == "liu" else ((first - second) ** 2).sum())
    with jax.enable_x64(True):
        found, batch = found_distances(case, np.float64, own_lengths=name == "reference")
        latitude = batch.latitude + batch.cell[:, 1].astype(batch.latitude.dtype) * flows.GRID.lat_step
        path = scoring_rules.path_steps(batch.track, latitude, (flows.GRID.lon_step, flows.GRID.lat_step))
        loss, _ = scoring_rules.objective(name, found, path, None)
    np.testing.assert_allclose(np.asarray(loss), wanted, rtol=1e-7)


def briefly(of, batch):
    """`of(batch)`, compiled as a whole."""
    return jax.jit(of, compiler_options=flows.BRIEF)(batch)


def test_gradient_equals_finite_differences_of_the_oracle(case):
    """d ES / d log C_s by forward mode against central differences of the independent simulator."""
    batch, noise, _ = case
    step = 1e-5
    high, low = (np.subtract(*oracle_terms(case, flows.CS * math.exp(d))).mean(axis=0) for d in (step, -step))
    settings = build(
        Training,
        {
            "ensemble": {"members": flows.MEMBERS},
            "integration": {"kappa_every": "30min"},
            "score": {"objective": "energy-plain"},
        },
        "test",
    )
    with jax.enable_x64(True):
        draw = lambda n: jnp.asarray(noise)[n]  # noqa: E731
        at = jnp.log(jnp.asarray([flows.CS]))
        model, arguments = load_dynamics(settings), (plan_of(settings, flows.GRID), settings, draw, draw)
        sums = briefly(lambda b: flows.gradients(model, at, b, *arguments), batch)
    np.testing.assert_allclose(np.asarray(sums.gradient)[:, 0], (high - low) / (2 * step), rtol=5e-4)


@pytest.mark.parametrize("name", ["energy", "liu", "reference"])
def test_gradient_of_every_objective_equals_finite_differences(name):
    settings = build(Training, {"ensemble": {"members": 5}, "score": {"objective": name}}, "test")
    rng = np.random.default_rng(8)
    with jax.enable_x64(True):
        batch = flows.batch(rng, 3)
        noise = jnp.asarray(rng.normal(size=(flows.N_STEPS, 2, 5, 3)))
        weights = jnp.asarray(rng.normal(size=(flows.N_STEPS, 2, 10, 3)))
        arguments = plan_of(settings, flows.GRID), settings, lambda n: noise[n], lambda n: weights[n]
        model, at = load_dynamics(settings), jnp.log(jnp.asarray(0.2))
        sums = briefly(lambda b: flows.gradients(model, at[None], b, *arguments), batch)

        @partial(jax.jit, compiler_options=flows.BRIEF)
        def losses(at, batch):
            return sample_losses(Smagorinsky.of_log(at), batch, *arguments)[0]

        high, low = (np.asarray(losses(at + d, batch)) for d in (1e-5, -1e-5))
    np.testing.assert_allclose(np.asarray(sums.gradient)[:, 0], (high - low) / 2e-5, rtol=5e-4)


def in_space(columns_rows, latitude, steps_deg):
    """Points at (2, ..., B) columns and rows from each sample's origin."""
    east, north = (jnp.radians(f * step) for f, step in zip(columns_rows, steps_deg, strict=True))
    return Origin.at(latitude).point(east, north)


@pytest.mark.parametrize("members", [2, 3, 6, 7, 9, 20])
def test_pairs_are_each_taken_once(members):
    """The cyclic shifts against all pairs, for even and odd ensembles, far apart and close together."""
    rng = np.random.default_rng(members)
    with jax.enable_x64(True):
        at = jnp.asarray(rng.normal(0, 8, (2, members, 3)))
        seen, latitude = jnp.asarray(rng.normal(0, 8, (3, 2))), jnp.asarray([-60.0, 0.0, 35.0])
        points, seen = in_space(at, latitude, (0.25, 0.2)), in_space(seen.T, latitude, (0.25, 0.2))
        found = scoring_rules.distances(points, seen)
        each = scoring_rules.distances(points, seen, before=in_space(0.9 * at, latitude, (0.25, 0.2)))
    for b in range(3):
        lonlat = np.stack([np.asarray(at[0, :, b]) * 0.25, float(latitude[b]) + np.asarray(at[1, :, b]) * 0.2], -1)
        pairs = geo.separation(lonlat[:, None], lonlat[None])
        half_mean = pairs.sum() / (2 * members * (members - 1))
        assert float(found.between[b]) == pytest.approx(half_mean, rel=1e-9)
        assert float(each.between[b]) == pytest.approx(half_mean, rel=1e-9)
        np.testing.assert_allclose(each.per_member[:, b], pairs.sum(axis=1) / (members - 1), rtol=1e-9)


def test_fair_score_of_a_gaussian_ensemble_has_its_closed_form():
    """For spread s about a truth of spread s0, ES = sqrt(pi / 2) (sqrt(s^2 + s0^2) - s / sqrt 2), least at s = s0."""
    rng = np.random.default_rng(2)
    s0, n = 0.05, 200_000
    scores = {}
    with jax.enable_x64(True):
        for s in (0.03, 0.05, 0.08):
            members = jnp.asarray(rng.normal(0, s, (2, 5, n)))
            seen = jnp.asarray(rng.normal(0, s0, (2, n)))
            found = scoring_rules.distances(*(in_space(at, jnp.zeros(n), (1.0, 1.0)) for at in (members, seen)))
            scores[s] = float((found.observed - found.between).mean())
            closed = math.sqrt(math.pi / 2) * (math.hypot(s, s0) - s / math.sqrt(2)) * geo.METRES_PER_DEGREE
            assert scores[s] == pytest.approx(closed, rel=5e-3)
    assert scores[0.05] < min(scores[0.03], scores[0.08])


def test_a_sample_s_noise_depends_on_nothing_but_itself():
    """Alone, in a larger batch, or in another place of it, a sample has the same loss and gradient."""
    settings = build(Training, {"ensemble": {"members": 4}}, "test")
    rng = np.random.default_rng(4)
    batch = jax.tree.map(np.asarray, flows.cast(flows.batch(rng, 5), np.float32))
    step = make_step(settings, flows.GRID, load_dynamics(settings))
    at = jnp.log(jnp.asarray([0.3], jnp.float32))
    whole = step(at, batch, 3)
    part = step(at, jax.tree.map(lambda a: a[[4, 1, 2]], batch), 3)
    np.testing.assert_allclose(np.asarray(part.loss), np.asarray(whole.loss)[[4, 1, 2]], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(part.gradient), np.asarray(whole.gradient)[[4, 1, 2]], rtol=1e-3)
    assert not np.allclose(np.asarray(step(at, batch, 4).loss), np.asarray(whole.loss), rtol=1e-4)


def test_a_poisoned_sample_is_left_out_and_named():
    settings = build(Training, {"ensemble": {"members": 4}}, "test")
    rng = np.random.default_rng(4)
    batch = jax.tree.map(np.array, flows.cast(flows.batch(rng, 3), np.float32))
    step = make_step(settings, flows.GRID, load_dynamics(settings))
    clean = step(jnp.zeros(1, jnp.float32), batch, 0)
    batch.track[1, 40] = np.nan
    sums = step(jnp.zeros(1, jnp.float32), batch, 0)
    assert np.asarray(sums.good).tolist() == [True, False, True]
    assert np.asarray(sums.poisoned).tolist() == [False, True, False]
    np.testing.assert_array_equal(np.asarray(sums.gradient)[[0, 2]], np.asarray(clean.gradient)[[0, 2]])
    assert float(sums.gradient[1, 0]) == 0.0


def test_padding_counts_for_nothing():
    settings = build(Training, {"ensemble": {"members": 4}}, "test")
    batch = jax.tree.map(np.array, flows.cast(flows.batch(np.random.default_rng(4), 3), np.float32))
    batch.weight[2] = 0.0
    sums = make_step(settings, flows.GRID, load_dynamics(settings))(jnp.zeros(1, jnp.float32), batch, 0)
    assert np.asarray(sums.good).tolist() == [True, True, False]
    assert not np.asarray(sums.poisoned).any()
    assert float(sums.loss[2]) == 0.0


def test_a_sample_without_any_diffusivity_counts_for_nothing():
    """No strain, no spread, no scale: it must neither dominate the mean nor poison it."""
    settings = build(Training, {"ensemble": {"members": 4}}, "test")
    batch = jax.tree.map(np.array, flows.cast(flows.batch(np.random.default_rng(4), 3), np.float32))
    batch.currents[1] = 1000
    sums = make_step(settings, flows.GRID, load_dynamics(settings))(jnp.zeros(1, jnp.float32), batch, 0)
    assert np.asarray(sums.good).all()
    assert float(sums.loss[1]) == 0.0
    assert float(sums.gradient[1, 0]) == 0.0
    assert 0.1 < float(sums.loss[0]) < 10


def test_the_fair_energy_score_on_a_meridian_is_the_crps_of_another_library() -> None:
    rng, n, metres = np.random.default_rng(11), 9, geo.METRES_PER_DEGREE
    north, seen = rng.gamma(2.0, 0.3, (n, 17)), rng.gamma(2.0, 0.4, 17)  # degrees
    with jax.enable_x64(True):
        origin = Origin.at(jnp.asarray(rng.uniform(-50.0, 50.0, 17)))
        members = origin.point(jnp.zeros((n, 17)), jnp.radians(north))
        found = scoring_rules.distances(members, origin.point(jnp.zeros(17), jnp.radians(seen)))
        ours = np.asarray(found.observed - found.between)
    forecast = xr.DataArray(north * metres, dims=("member", "sample"))
    truth = xr.DataArray(seen * metres, dims="sample")
    fair = crps_for_ensemble(forecast, truth, "member", method="fair", preserve_dims="all")
    np.testing.assert_allclose(ours, fair.to_numpy(), rtol=1e-8)
