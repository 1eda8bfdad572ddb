"""The simulator against closed forms and the float64 oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.shared.store.schema import FILL
from driftcal.train.learners.drift.simulate import Plan, simulate
from driftcal.train.learners.drift.smagorinsky import Smagorinsky
from driftcal.train.reading.batches import Grid
from tests import flows


@pytest.fixture(scope="module")
def case():
    return flows.case()


def ours(case, scheme, dtype, kappa_every=1800, cs=flows.CS):
    batch, noise, _ = case
    batch, noise = flows.cast(batch, dtype), jnp.asarray(noise, dtype)
    plan = Plan(flows.GRID, 1800, kappa_every, scheme)
    run = jax.jit(
        lambda b: simulate(
            Smagorinsky.of_log(jnp.log(jnp.asarray(cs, dtype))),
            b,
            plan,
            flows.MEMBERS,
            lambda n: noise[n],
            keep_positions=True,
        )
    )(batch)
    cell = np.asarray(batch.cell).T[None, :, None]
    return np.asarray(run.positions, np.float64) + cell, run  # (obs, 2, S, B)


@pytest.mark.parametrize("scheme", ["heun", "ito-heun", "euler"])
def test_float64_tracks_equal_the_oracle(case, scheme):
    expected = flows.oracle_tracks(flows.CS, scheme)[1:]
    with jax.enable_x64(True):
        found, _ = ours(case, scheme, np.float64)
    apart = flows.metres_apart(found, expected, case[0], flows.GRID)
    assert np.ptp(expected[-1, :, 0]) > 0.5  # the members have spread: the comparison is not one of standing still
    assert apart.max() < 1e-5


def test_float32_tracks_stay_within_a_metre_of_the_oracle(case):
    expected = flows.oracle_tracks(flows.CS, "heun")[1:]
    found, _ = ours(case, "heun", np.float32)
    assert np.sqrt((flows.metres_apart(found, expected, case[0], flows.GRID)[-1] ** 2).mean()) < 1.0


def test_kappa_interpolated_between_levels_stays_close():
    """Within 150 m rms of kappa exact at every step, at the default of one level a day; closer with more levels."""
    grid = Grid(7, 40, 44, 121, 86_400, 3600, 0.125, 0.125)
    rng = np.random.default_rng(3)
    batch = flows.cast(flows.batch(rng, 8, grid, coast=False, speed=0.35), np.float32)
    noise = jnp.asarray(rng.normal(size=(flows.N_STEPS, 2, 10, 8)), np.float32)
    tracks = {
        every: np.asarray(
            jax.jit(
                lambda b, every=every: (
                    simulate(
                        Smagorinsky.of_log(jnp.log(0.3)),
                        b,
                        Plan(grid, 1800, every, "heun"),
                        10,
                        lambda n: noise[n],
                        keep_positions=True,
                    ).positions
                )
            )(batch)
        )
        for every in (1800, 43_200, 86_400)
    }
    rms = [
        np.sqrt((flows.metres_apart(tracks[1800], tracks[e].transpose(0, 2, 1, 3), batch, grid)[-1] ** 2).mean())
        for e in (43_200, 86_400)
    ]
    assert 1.0 < rms[0] < rms[1] < 150.0


def spread_out(scheme, kappa, start, grid, members, step=1800, seed=0):
    """Final (column, row) (S, n, 2) of members that only diffuse, and where they started."""
    with jax.enable_x64(True):
        batch = jax.device_put(flows.still_batch(start, grid))
        key = jax.random.key(seed)

        def noise(n):  # antithetic pairs: what is linear in the noise cancels in their mean
            half = jax.random.normal(jax.random.fold_in(key, n), (2, members // 2, len(start)))
            return jnp.concatenate([half, -half], axis=1)

        run = flows.simulated(
            Smagorinsky.of_log(jnp.zeros(())),
            batch,
            Plan(grid, step, 86_400, scheme),
            members,
            noise,
            keep_positions=True,
            table=flows.frozen(kappa, grid, len(start)),
        )
        assert run.positions is not None
        final = np.asarray(run.positions[-1]).transpose(1, 2, 0) + np.asarray(batch.cell)
        return final, np.asarray(run.inside)


SCHEMES = {"heun": 1.0, "ito-heun": 1.0, "euler": 1.0, "reference": 1.5}


@pytest.mark.parametrize(("scheme", "coefficient"), SCHEMES.items())
def test_effective_coefficient_of_the_diffusivity_gradient(scheme, coefficient):
    """In dX = grad K dt + sqrt(2 K) dW with K linear, the mean moves by grad K t exactly."""
    grid = Grid(3, 40, 48, 13, 86_400, 3600, 0.05, 0.05)
    slope = 0.02  # m/s
    dx = METRES_PER_DEGREE * grid.lon_step
    kappa = np.broadcast_to(200.0 + slope * dx * np.arange(grid.n_lon), (grid.n_lat, grid.n_lon))
    start = np.tile([23.3, 19.6], (100, 1))
    final, inside = spread_out(scheme, kappa, start, grid, 1000)
    moved = (final - start)[..., 0] * dx
    pairs = moved[:500] + moved[500:]
    expected = slope * 12 * 3600
    assert inside.all()
    assert pairs.std() / 2 / np.sqrt(pairs.size) / expected < 0.01  # the sampling error of the coefficient
    assert moved.mean() / expected == pytest.approx(coefficient, abs=0.03)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_well_mixed_tracer_stays_well_mixed(scheme):
    """No current, frozen K with a strong maximum: what is uniform stays uniform, except under the 2025 form."""
    grid = Grid(6, 24, 32, 97, 86_400, 3600, 0.05, 0.05)
    j, i = np.mgrid[: grid.n_lat, : grid.n_lon]
    # K vanishes smoothly towards the edges, so that nothing leaves and the uniform density is stationary
    hill = np.sin(np.pi * np.clip((i - 3) / 25, 0, 1)) * np.sin(np.pi * np.clip((j - 3) / 17, 0, 1))
    kappa = 600.0 * hill**2
    rng = np.random.default_rng(1)
    start = np.stack([rng.uniform(3, 28, 2000), rng.uniform(3, 20, 2000)], -1)
    final, _ = spread_out(scheme, kappa, start, grid, 20)
    boxes = [np.linspace(3, 28, 6), np.linspace(3, 20, 6)]
    counts = np.histogram2d(*final.reshape(-1, 2).T, boxes)[0]
    before = np.histogram2d(*start.T, boxes)[0] * 20
    middle = counts[1:4, 1:4].sum() / before[1:4, 1:4].sum()
    if scheme == "reference":
        assert middle > 1.05  # gathers tracer where K is large
    else:
        assert middle == pytest.approx(1.0, abs=0.02)


def test_uniform_current_moves_all_members_along_a_parallel():
    grid = flows.GRID
    n, u = 3, 0.4321
    currents = np.zeros((n, 2, 7, 20, 24), np.int16)
    currents[:, 0] = round(u / 1e-4)
    batch = flows.still_batch(np.array([[4.5, 9.25]] * n), grid)
    batch = flows.held(**{**vars(batch), "currents": currents, "latitude": np.array([-40.0, 0.0, 55.0])})
    with jax.enable_x64(True):
        run = flows.simulated(
            Smagorinsky.of_log(jnp.log(0.1)),
            jax.device_put(batch),
            Plan(grid, 1800, 86_400, "heun"),
            2,
            lambda k: jnp.ones((2, 2, n)),
            keep_positions=True,
        )
        assert run.positions is not None
        final = np.asarray(run.positions[-1])
    lat = np.radians(np.asarray(batch.latitude) + 9.25 * grid.lat_step)
    east = u * 432_000 / (METRES_PER_DEGREE * np.cos(lat) * grid.lon_step)
    inside = np.asarray(run.inside).all(axis=0)
    # a uniform flow has no strain, so K is the floor and the noise moves nobody by more than centimetres
    np.testing.assert_allclose(final[0, 0, inside] - 0.5, east[inside], atol=1e-5)
    np.testing.assert_allclose(final[1, 0, inside], 0.25, atol=1e-5)
    assert inside.tolist() == (4.5 + east <= 23).tolist()


def test_members_that_leave_are_held_inside_and_flagged():
    grid = flows.GRID
    currents = np.zeros((1, 2, 7, 20, 24), np.int16)
    currents[:, 0] = 20_000
    batch = flows.held(**{**vars(flows.still_batch(np.array([[10.5, 9.5]]), grid)), "currents": currents})
    with jax.enable_x64(True):
        run = flows.simulated(
            Smagorinsky.of_log(jnp.log(0.1)),
            jax.device_put(batch),
            Plan(grid, 1800, 86_400, "heun"),
            3,
            lambda k: jnp.zeros((2, 3, 1)),
            keep_positions=True,
        )
        assert run.positions is not None
        columns = np.asarray(run.positions)[:, 0] + 10
    assert not np.asarray(run.inside).any()
    assert columns.max() <= 23
    assert (columns[-1] > 22.8).all()  # held at the last step inside, not thrown back


def test_a_member_on_land_stays_and_never_reads_a_fill_value():
    grid = flows.GRID
    rng = np.random.default_rng(5)
    currents = flows.eddies(rng, 1, grid, coast=False)
    currents[:, :, :, :, :8] = FILL
    starts = np.array([[3.4, 8.2], [7.5, 10.5], [8.2, 5.5]])  # inside land, in a coastal cell, just off the coast
    batch = flows.still_batch(starts, grid)
    batch = flows.held(**{**vars(batch), "currents": np.repeat(currents, 3, axis=0)})
    with jax.enable_x64(True):
        run = flows.simulated(
            Smagorinsky.of_log(jnp.log(0.5)),
            jax.device_put(batch),
            Plan(grid, 1800, 1800, "heun"),
            50,
            lambda k: jax.random.normal(jax.random.fold_in(jax.random.key(0), k), (2, 50, 3)),
            keep_positions=True,
        )
        assert run.positions is not None
        moved = np.asarray(run.positions)
    assert np.ptp(moved[:, :, :, 0], axis=0).max() == 0.0
    steps = np.abs(np.diff(moved, axis=0)).max()
    assert np.isfinite(moved).all()
    assert 0 < steps < 1.0  # a fill value of -3.2768 m/s would move a member by half a cell an hour at least


def test_members_that_end_ashore_are_counted():
    grid = flows.GRID
    currents = np.full((2, 2, 7, 20, 24), FILL)
    currents[1] = 0
    batch = flows.held(**{**vars(flows.still_batch(np.array([[3.4, 8.2], [10.5, 9.5]]), grid)), "currents": currents})
    run = flows.simulated(
        Smagorinsky.of_log(jnp.log(0.1)),
        jax.device_put(flows.cast(batch, np.float32)),
        Plan(grid, 1800, 86_400, "heun"),
        3,
        lambda k: jnp.zeros((2, 3, 2)),
    )
    assert np.asarray(run.ashore).tolist() == [[True, False]] * 3
    assert np.asarray(run.inside).all()


def test_a_nan_in_the_motion_is_not_taken_for_a_member_that_left():
    grid = flows.GRID
    batch = jax.device_put(flows.cast(flows.still_batch(np.array([[10.5, 9.5]]), grid), np.float32))
    run = flows.simulated(
        lambda flow, share: ((flow.u + jnp.nan, flow.v), 0.0 * flow.u),
        batch,
        Plan(grid, 1800, 86_400, "heun"),
        3,
        lambda k: jnp.zeros((2, 3, 1)),
    )
    assert np.asarray(run.inside).all()
    assert np.isnan(np.asarray(run.distances.observed)).all()
