"""Parity with pastax: with the numbers that it made, kept in `tests/data`, and with itself where it is installed."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from driftcal.shared.errors import ConfigError
from driftcal.shared.store.reader import ShardStore
from driftcal.train.__main__ import main
from driftcal.train.learners.drift import scoring_rules
from driftcal.train.learners.drift.engines import simulator
from driftcal.train.learners.drift.simulate import Plan, simulate
from driftcal.train.learners.drift.smagorinsky import Smagorinsky
from driftcal.train.reading.batches import Batch, Grid, load
from driftcal.train.settings import Training
from tests import flows, pastax_cases, stores
from tests.pastax_cases import CASES, MEMBERS, NUMBERS, OBJECTIVES, STEP, WEIGHT_CS, WEIGHT_MEMBERS

DEGREE = 111_195.0

installed = pytest.mark.skipif(importlib.util.find_spec("pastax") is None, reason="pastax is not installed")


def scored(run, batch, plan, noise, weights_noise, log_cs):
    """Positions `(obs, 2, S, B)` [cells], and of every objective the samples' scores and gradients."""

    def losses(parameter):
        still = run(Smagorinsky.of_log(jnp.log(WEIGHT_CS)), batch, plan, WEIGHT_MEMBERS, lambda n: weights_noise[n])
        moved = run(
            Smagorinsky.of_log(parameter),
            batch,
            plan,
            MEMBERS,
            lambda n: noise[n],
            own_lengths=True,
            keep_positions=True,
        )
        grid = plan.grid
        latitude = batch.latitude + batch.cell[:, 1].astype(batch.latitude.dtype) * grid.lat_step
        path = scoring_rules.path_steps(batch.track, latitude, (grid.lon_step, grid.lat_step))
        spread = 2.0 * still.distances.between
        return [scoring_rules.objective(name, moved.distances, path, spread)[0] for name in OBJECTIVES], moved

    (found, moved), (slopes, _) = jax.jit(lambda p: jax.jvp(losses, (p,), (jnp.ones_like(p),)))(log_cs)
    return moved, dict(zip(OBJECTIVES, found, strict=True)), dict(zip(OBJECTIVES, slopes, strict=True))


def case_on_device(case, store):
    samples = np.array(case.samples)
    batch = Batch(**jax.device_put(load(store, samples, len(samples), np.dtype("float64"))))
    return batch, *(jnp.asarray(z) for z in case.noise(store))


def in_degrees(positions, batch, store, case):
    """Cells relative to the starting cell to [lon, lat] as the store counts them, `(obs, S, B, 2)`."""
    steps = np.array([store.layout.lon_step, store.layout.lat_step])
    cells = np.asarray(positions).transpose(0, 2, 3, 1) + np.asarray(batch.cell)
    return store.labels["window_corner"][np.array(case.samples)] + cells * steps


@pytest.fixture(scope="module")
def numbers():
    return json.loads(NUMBERS.read_text())


@pytest.mark.parametrize("name", CASES)
def test_tracks_scores_and_gradients_equal_those_of_pastax(name, numbers, tmp_path, request):
    """Within 2e-6 m (the numbers are kept to 1e-6 m) and 1e-9 of scores and gradients.

    `reference` divides by the members' own paths, and a member that stands still in a cell of land still moves by the
    millimetre that `drift.sphere` keeps between coincident points: 2e-6.
    """
    case, known = CASES[name], numbers["cases"][name]
    store = case.build(tmp_path, request.getfixturevalue("real_data") if case.real else tmp_path)
    assert pastax_cases.digest(store, case.samples) == known["inputs"], "other inputs than pastax had"
    with jax.enable_x64(True):
        batch, *noise = case_on_device(case, store)
        for scheme, expected in known["schemes"].items():
            plan = Plan(Grid.of(store.layout), STEP, STEP, scheme)
            moved, scores, gradients = scored(simulate, batch, plan, *noise, jnp.log(case.cs))
            assert np.asarray(moved.inside).all()
            found = in_degrees(moved.positions, batch, store, case)[np.array(known["fixes"]) - 1]
            theirs = np.array(expected["positions"]).transpose(2, 1, 0, 3)
            assert np.ptp(theirs[-1], axis=0).max() > 0.05  # the members have spread
            assert np.abs(found - theirs).max() * DEGREE < 2e-6
            for objective in OBJECTIVES:
                close = {"rtol": 2e-6 if objective == "reference" else 1e-9}
                np.testing.assert_allclose(scores[objective], expected["scores"][objective], **close)
                np.testing.assert_allclose(gradients[objective], expected["gradients"][objective], **close)


def test_the_cases_reach_land_and_the_seam(numbers, tmp_path):
    """So that the numbers say something: tracks in cells with land corners, and longitudes beyond 180."""
    case = CASES["made, antimeridian"]
    store = case.build(tmp_path, tmp_path)
    tracks = np.array(numbers["cases"]["made, antimeridian"]["schemes"]["heun"]["positions"])
    lon, corner = tracks[..., 0], store.labels["window_corner"][np.array(case.samples)]
    assert lon.min() < -180 or lon.max() > 180
    steps = np.array([store.layout.lon_step, store.layout.lat_step])
    cell = np.floor((tracks - corner[:, None, None]) / steps).astype(int)
    land = (store.currents.read(np.array(case.samples)) == pastax_cases.FILL).all(axis=(1, 2))
    corners = [land[b, j : j + 2, i : i + 2].sum() for b in range(len(land)) for i, j in cell[b].reshape(-1, 2)]
    assert {0, 4} < set(corners)


# Where pastax is installed


def batch_with_leavers():
    """Three samples, two of them by a coast, and a constant at which members leave the window and run ashore."""
    with jax.enable_x64(True):
        return flows.batch(np.random.default_rng(42), 3), 20.0


@installed
@pytest.mark.parametrize("scheme", ["heun", "reference", "euler"])
def test_both_engines_give_the_same(scheme):
    """Tracks, distances and their derivatives, and which members left and ran ashore, float64."""
    batch, cs = batch_with_leavers()
    noise = np.random.default_rng(1).normal(size=(240, 2, 5, 3))
    found = []
    with jax.enable_x64(True):
        noise = jnp.asarray(noise)
        for engine in ("driftcal", "pastax"):
            run, plan = simulator(engine), Plan(flows.GRID, 1800, 1800, scheme)

            def measured(parameter, run=run, plan=plan):
                moved = run(
                    Smagorinsky.of_log(parameter),
                    batch,
                    plan,
                    5,
                    lambda n: noise[n],
                    own_lengths=True,
                    keep_positions=True,
                )
                return (moved.distances, moved.positions), (moved.inside, moved.ashore)

            at = jnp.log(cs)
            found.append(jax.jit(lambda p, f=measured: jax.jvp(f, (p,), (jnp.ones_like(p),), has_aux=True))(at))
    (ours, our_slopes, our_flags), (theirs, their_slopes, their_flags) = jax.tree.map(np.asarray, found)
    for mine, other in zip(our_flags, their_flags, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert 0 < (~our_flags[0]).sum() < our_flags[0].size
    assert our_flags[1].sum() > 0
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-10)
    for mine, other in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=0.02)  # the millimetre of those who stand still
    for mine, other in zip(jax.tree.leaves(our_slopes), jax.tree.leaves(their_slopes), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-8 * np.abs(other).max())


@installed
def test_a_nan_poisons_its_sample_alone():
    """To pastax's haversine a NaN is 0 m away."""
    batch, _ = batch_with_leavers()
    noise = np.random.default_rng(1).normal(size=(240, 2, 4, 3))
    noise[100, 0, 2, 1] = np.nan
    with jax.enable_x64(True):
        run = simulator("pastax")(
            Smagorinsky.of_log(jnp.log(0.1)),
            batch,
            Plan(flows.GRID, 1800, 1800, "heun"),
            4,
            lambda n: jnp.asarray(noise)[n],
        )
    assert np.isnan(np.asarray(run.distances.observed)[:, 1]).any()
    assert np.isnan(np.asarray(run.distances.between)[:, 1]).any()
    assert np.isfinite(np.asarray(run.distances.observed)[:, [0, 2]]).all()


@installed
def test_a_sample_in_pastax_s_classes(seam):
    """What pastax reads at the nodes and on land is what the store holds, with absolute times and longitudes."""
    bridge = importlib.import_module("driftcal.train.learners.drift.pastax_engine")
    store = ShardStore(seam.path)
    with jax.enable_x64(True):
        for number in (0, 4, 5):
            sample = bridge.sample_of(store, number)
            counts, layout = seam.values["currents"][number], seam.layout
            corner = seam.values["window_corner"][number]
            land = (counts == pastax_cases.FILL).all(axis=(0, 1))
            for k, name in enumerate("uv"):
                field = sample.dataset[name]
                np.testing.assert_array_equal(np.asarray(field.mask), land)
                for level, j, i in [(0, 3, 5), (6, 11, 15), (2, 7, 4)]:
                    at = seam.values["window_time"][number] + level * layout.time_step
                    lon, lat = corner + np.array([i * layout.lon_step, j * layout.lat_step])
                    expected = 0.0 if land[j, i] else counts[k, level, j, i] * 1e-4
                    if not land[max(j - 1, 0) : j + 2, max(i - 1, 0) : i + 2].any():
                        assert float(field.interp(float(at), lon, lat)) == pytest.approx(expected, abs=1e-9)
            apart = (np.asarray(sample.y0) - seam.values["origin"][number] + 180) % 360 - 180
            np.testing.assert_allclose(apart, 0, atol=1e-12)
            assert corner[0] < float(sample.y0[0]) < corner[0] + layout.lon_step * layout.n_lon
            assert float(sample.t0) == seam.values["start_time"][number]
            assert np.abs(np.diff(np.asarray(sample.track)[:, 0])).max() < 1.0
    with pytest.raises(ConfigError, match="64-bit"):
        bridge.sample_of(store, 0)


@installed
def test_a_window_across_the_antimeridian_is_the_same_by_pastax_s_own_wrapping(seam):
    """Longitudes that ascend beyond 180 as in `sample_of`, and ones in [-180, 180) with pastax's `lon_period`."""
    bridge, pastax = (
        importlib.import_module("driftcal.train.learners.drift.pastax_engine"),
        importlib.import_module("pastax"),
    )
    first, width = seam.values["window_corner"][:, 0], (seam.layout.n_lon - 1) * seam.layout.lon_step
    number = int(np.flatnonzero((first < 179) & (first + width > 181) & (seam.values["status"] == 0))[0])
    across = 0
    with jax.enable_x64(True):
        sample = bridge.sample_of(ShardStore(seam.path), number)
        u, lon = sample.dataset["u"], np.asarray(sample.dataset["u"].lon_coords)
        wrapped = pastax.Dataset.from_arrays(
            {"u": u.values}, u.t_coords, u.lat_coords, (lon + 180) % 360 - 180, jnp.float64, 360.0, masks={"u": u.mask}
        )["u"]
        for east, north, hours in [(0.4, 1.3, 5), (3.6, 0.2, 30), (180 - lon[0] + 0.1, 2.4, 77)]:
            at, lat, t = lon[0] + east, u.lat_coords[0] + north, u.t_coords[0] + 3600.0 * hours
            expected = float(u.interp(t, at, lat))
            assert expected != 0
            for query in (at, at + 360, (at + 180) % 360 - 180):
                across += query < 0
                assert float(wrapped.interp(t, query, lat)) == pytest.approx(expected, abs=1e-12)
    assert across >= 1


@installed
def test_training_finds_the_same_constant_with_both(tmp_path, capsys):
    """The whole command, from the store to the evaluation, with kappa at every step."""
    built = stores.build(tmp_path / "store", 12, n_drifters=6, samples_per_shard=5, n_obs=17)
    common = [
        "ensemble.members=4",
        "batch_size=5",
        "optimizer.curvature_samples=12",
        "optimizer.final_passes=1",
        "precision=float64",
        "score.reference_members=3",
    ]
    found = {}
    for engine in ("driftcal", "pastax"):
        out = tmp_path / engine
        settings = [*common, f"engine={engine}", "integration.kappa_every=30min"]
        assert main(["run", str(built.path), "--out", str(out), *[f"--set={s}" for s in settings]]) == 0
        found[engine] = json.loads((out / "result.json").read_text())
        found[engine]["scores"] = json.loads((out / "evaluation.json").read_text())["scores"]
    capsys.readouterr()
    ours, theirs = found["driftcal"], found["pastax"]
    assert (ours["engine"], theirs["engine"]) == ("driftcal", "pastax")
    assert ours["cs"] != pytest.approx(0.1, rel=0.05)
    for key in ("log_cs", "score", "curvature", "log_cs_standard_error"):
        assert theirs[key] == pytest.approx(ours[key], rel=1e-6), key
    assert theirs["escaped_members"] == ours["escaped_members"]
    for name, scores in ours["scores"].items():
        mean = theirs["scores"][name]["energy_score_km"]["mean"]
        assert mean == pytest.approx(scores["energy_score_km"]["mean"], abs=2e-5), name  # members in one place: 1 mm


# Errors


def test_without_pastax_the_engine_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pastax", None)
    monkeypatch.delitem(sys.modules, "driftcal.train.learners.drift.pastax_engine", raising=False)
    built = stores.build(tmp_path / "store", 8, samples_per_shard=4)
    assert main(["run", str(built.path), "--out", str(tmp_path / "run"), "--set", "engine=pastax"]) == 2
    message = capsys.readouterr().err
    assert "engine=pastax needs pastax 0.1 or newer" in message
    assert "pip install git+https://github.com/vadmbertr/pastax" in message
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="cannot import"):
        simulator("pastax")


def test_an_old_pastax_is_one_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pastax", SimpleNamespace(__version__="0.0.9"))
    monkeypatch.delitem(sys.modules, "pastax.solver", raising=False)
    monkeypatch.delitem(sys.modules, "driftcal.train.learners.drift.pastax_engine", raising=False)
    with pytest.raises(ConfigError, match=r"pastax 0\.1 or newer"):
        simulator("pastax")


def test_a_scheme_that_pastax_lacks_is_refused():
    with pytest.raises(ValueError, match="engine=pastax has no scheme 'ito-heun'"):
        Training.model_validate({"engine": "pastax", "integration": {"scheme": "ito-heun"}})
    Training.model_validate({"engine": "driftcal", "integration": {"scheme": "ito-heun"}})
