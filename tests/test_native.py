"""The C++ engine against the scan in JAX, the float64 oracle and finite differences."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from driftcal.shared.errors import ConfigError
from driftcal.shared.native import compiler
from driftcal.train.__main__ import main
from driftcal.train.learners.drift import engines
from driftcal.train.learners.drift.dynamics import load as load_dynamics
from driftcal.train.learners.drift.loss import make_step
from driftcal.train.learners.drift.native_engine import library
from driftcal.train.learners.drift.noise import noise_for
from driftcal.train.learners.drift.simulate import Plan
from driftcal.train.learners.drift.smagorinsky import Smagorinsky
from driftcal.train.reading.batches import Batch, Grid
from driftcal.train.settings import Training
from tests import flows, oracle, stores

try:
    compiler.command(library.KERNEL)
except ConfigError as absent:
    pytest.skip(f"the C++ engine cannot be had here: {absent}", allow_module_level=True)

SHORT = Grid(n_times=3, n_lat=20, n_lon=24, n_obs=25, time_step=86_400, obs_step=3600, lat_step=0.25, lon_step=0.2)


def random_batch(grid=SHORT, n=5, dtype=np.float64, seed=42):
    """Samples of which every other has a coast near its start; one lies across the seam of longitudes."""
    with jax.enable_x64(True):
        batch = flows.batch(np.random.default_rng(seed), n, grid)
    values = {**vars(batch), "longitude": np.where(np.arange(n) == 1, 178.5, 20.0)}
    return jax.device_put(flows.cast(flows.held(**values), dtype))


def simulated(name, batch, plan, members, log_cs, own_lengths=True):
    """Values, derivatives with respect to log C_s, and flags, of an engine; numpy."""

    def run(at, batch):
        noise = noise_for(3, 1, batch.sample, members, 0, batch.latitude.dtype)
        found = engines.simulator(name)(
            Smagorinsky.of_log(at), batch, plan, members, noise, own_lengths=own_lengths, keep_positions=True
        )
        return (found.distances, found.positions), (found.inside, found.ashore)

    def with_slopes(at, batch):
        return jax.jvp(lambda a: run(a, batch), (at,), (jnp.ones_like(at),), has_aux=True)

    return jax.tree.map(np.asarray, jax.jit(with_slopes)(log_cs, batch))


def flat(found):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found)]


def assert_close(mine, other, rtol, atol=0.0):
    """Every leaf, to its own largest value."""
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max() + atol)


@pytest.mark.parametrize(
    ("scheme", "own_lengths", "members", "kappa_every"),
    [
        ("heun", False, 10, 43_200),
        ("ito-heun", False, 11, 1800),
        ("euler", True, 11, 86_400),
        ("reference", True, 8, 86_400),
    ],
)
def test_members_distances_and_derivatives_equal_those_of_the_scan(scheme, own_lengths, members, kappa_every):
    """Float64, member by member: near land, ashore, leaving the window; pairs taken once and twice."""
    with jax.enable_x64(True):
        batch, at, plan = random_batch(), jnp.log(20.0), Plan(SHORT, 1800, kappa_every, scheme)
        ours, theirs = (simulated(name, batch, plan, members, at, own_lengths) for name in ("native", "driftcal"))
    for mine, other in zip(ours[2], theirs[2], strict=True):
        np.testing.assert_array_equal(mine, other)
        assert 0 < other.sum() < other.size
    assert (ours[0][0].per_member is not None) == own_lengths
    assert_close(ours[0], theirs[0], 1e-12)
    assert_close(ours[1], theirs[1], 1e-11)


def test_a_constant_for_every_sample():
    """As every sample alone at its own; the derivative is with respect to that."""
    batch, plan = random_batch(dtype=np.float32), Plan(SHORT, 1800, 86_400, "heun")
    each = jnp.log(jnp.asarray([0.05, 0.3, 1.0, 3.0, 0.1], jnp.float32))
    together = flat(simulated("native", batch, plan, 6, each))
    for b in (0, 3):
        for mine, other in zip(together, flat(simulated("native", batch, plan, 6, each[b])), strict=True):
            np.testing.assert_array_equal(mine[..., b], other[..., b])


def test_tracks_and_scores_equal_the_oracle():
    """Which shares no code with either engine."""
    members, cs, n = 3, 0.4, 2
    with jax.enable_x64(True):
        batch, plan = random_batch(n=n), Plan(SHORT, 1800, 1800, "heun")
        (distances, positions), _, _ = simulated("native", batch, plan, members, jnp.log(cs), own_lengths=False)
        draw = noise_for(3, 1, batch.sample, members, 0, batch.latitude.dtype)
        noise = np.stack([np.stack(draw(jnp.asarray(step))) for step in range(48)])
    windows, tracks = flows.windows_of(batch, SHORT), []
    for b, window in enumerate(windows):
        start = np.asarray(batch.cell[b]) + np.asarray(batch.start[b])
        tracks.append(oracle.simulate(window, start, float(batch.phase[b]), cs, noise[..., b], 1800, 25, 2, "heun"))
    expected = np.stack(tracks, axis=-1)[1:]
    found = positions + np.asarray(batch.cell).T[None, :, None]
    assert np.ptp(expected[-1, :, 0]) > 0.2  # the members have spread
    assert flows.metres_apart(found, expected, batch, SHORT).max() < 1e-5
    origin, step = np.asarray(batch.latitude), np.array([SHORT.lon_step, SHORT.lat_step])
    seen = np.asarray(batch.cell)[:, None] + np.asarray(batch.track)
    for b, t in ((0, 0), (0, 23), (1, 23)):
        corner = np.array([0.0, origin[b]])
        own, drifter = corner + expected[t, :, :, b] * step, corner + seen[b, t + 1] * step
        to_drifter = np.mean([oracle.haversine(place, drifter) for place in own])
        pairs = [oracle.haversine(place, other) for k, place in enumerate(own) for other in own[:k]]
        assert distances.observed[t, b] == pytest.approx(to_drifter, rel=1e-7)
        assert distances.between[t, b] == pytest.approx(np.mean(pairs) / 2, rel=1e-7)


def test_the_derivative_is_that_of_finite_differences():
    with jax.enable_x64(True):
        batch, plan, step = random_batch(), Plan(SHORT, 1800, 86_400, "heun"), 1e-5
        values = [simulated("native", batch, plan, 9, jnp.log(0.3) + d)[0] for d in (-step, step)]
        _, slopes, _ = simulated("native", batch, plan, 9, jnp.log(0.3))
    differences = jax.tree.map(lambda below, above: (above - below) / (2 * step), *values)
    assert_close(slopes, differences, 1e-6)


def test_scores_and_gradients_of_a_training_step_in_float32():
    """To 3e-5 of the largest: rounding in single precision, over 240 steps."""
    batch = random_batch(flows.GRID, 6, np.float32)
    found = []
    for name in ("driftcal", "native"):
        told = Training.model_validate({"engine": name})
        model = load_dynamics(told)
        found.append(make_step(told, flows.GRID, model)(jnp.asarray(model.start, jnp.float32), batch, 0))
    theirs, mine = (jax.tree.map(np.asarray, sums) for sums in found)
    assert mine.good.all()
    np.testing.assert_array_equal(mine.counts["escaped"], theirs.counts["escaped"])
    np.testing.assert_array_equal(mine.counts["ashore"], theirs.counts["ashore"])
    for name in ("loss", "gradient", "dispersion"):
        assert_close(getattr(mine, name), getattr(theirs, name), 3e-5)


# What a sample's result does not depend on


def test_no_sample_depends_on_its_batch():
    batch, plan, at = random_batch(n=7, dtype=np.float32), Plan(SHORT, 1800, 86_400, "heun"), jnp.float32(-1.0)
    together = flat(simulated("native", batch, plan, 10, at))
    some = np.array([5, 0, 3])
    apart = flat(simulated("native", jax.tree.map(lambda a: a[some], batch), plan, 10, at))
    for mine, other in zip(apart, together, strict=True):
        np.testing.assert_array_equal(mine, other[..., some])


IN_ANOTHER_PROCESS = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax.numpy as jnp, numpy as np
from driftcal.train.learners.drift.simulate import Plan
from tests.test_native import flat, random_batch, simulated, SHORT
plan = Plan(SHORT, 1800, 86_400, "heun")
found = simulated("native", random_batch(n=7, dtype=np.float32), plan, 10, jnp.float32(-1.0))
sys.stdout.buffer.write(b"".join(leaf.tobytes() for leaf in flat(found)))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system gives no say in which cores are used")
def test_results_do_not_depend_on_the_number_of_threads():
    plan = Plan(SHORT, 1800, 86_400, "heun")
    here = b"".join(
        a.tobytes() for a in flat(simulated("native", random_batch(n=7, dtype=np.float32), plan, 10, jnp.float32(-1)))
    )
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    ran = subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parents[1])
    assert ran.stdout == here


@pytest.mark.parametrize("name", ["phase", "latitude", "start", "track"])
def test_a_nan_poisons_its_sample_alone(name):
    batch, plan, at = random_batch(dtype=np.float32), Plan(SHORT, 1800, 86_400, "heun"), jnp.float32(-1.0)
    spoilt = np.array(getattr(batch, name))
    spoilt[3] = np.nan
    whole = simulated("native", batch, plan, 10, at)
    found = simulated("native", flows.held(**{**vars(batch), name: spoilt}), plan, 10, at)
    assert np.isnan(found[0][0].observed[:, 3]).all()
    assert found[2][0][:, 3].all()  # not taken for members that left
    rest = np.array([0, 1, 2, 4])
    for mine, other in zip(flat(found), flat(whole), strict=True):
        np.testing.assert_array_equal(mine[..., rest], other[..., rest])


# What it refuses


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dynamics": "module:Class"}, "engine=native simulates the built-in dynamics only"),
        ({"gradient": {"mode": "reverse"}}, "engine=native is differentiated in forward mode"),
    ],
)
def test_settings_that_it_cannot_do(changed, said):
    with pytest.raises(ValueError, match=said):
        Training.model_validate({"engine": "native", **changed})


def test_increments_of_another_kind_are_refused():
    batch = random_batch(n=2, dtype=np.float32)
    with pytest.raises(ConfigError, match="draws its own increments and was given others"):
        engines.simulator("native")(
            Smagorinsky.of_log(jnp.float32(0)),
            batch,
            Plan(SHORT, 1800, 86_400, "heun"),
            3,
            lambda _: jnp.zeros((2, 3, 2)),
        )


def test_a_derivative_with_respect_to_the_batch_is_refused():
    batch, plan = random_batch(n=2, dtype=np.float32), Plan(SHORT, 1800, 86_400, "heun")

    def final(phase):
        moved = Batch(**{**vars(batch), "phase": phase})
        draw = noise_for(0, 0, batch.sample, 3, 0, np.dtype(np.float32))
        return engines.simulator("native")(Smagorinsky.of_log(jnp.float32(0)), moved, plan, 3, draw).distances.observed

    with pytest.raises(ConfigError, match="differentiated with respect to C_s alone"):
        jax.jvp(final, (batch.phase,), (jnp.ones_like(batch.phase),))


def test_other_devices_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ConfigError, match=r"engine=native computes on the CPU, and JAX uses gpu here"):
        library.register.__wrapped__()


@pytest.mark.parametrize(
    ("cxx", "said"),
    [
        ("no-such-compiler", "engine=native needs a C++17 compiler, and none was found (CXX=no-such-compiler)"),
        ("false", "engine=native could not be compiled, exit status 1: it said nothing. The command was false "),
    ],
)
def test_a_missing_or_failing_compiler_is_one_message(cxx, said, tmp_path, capsys, monkeypatch):
    store = stores.build(tmp_path / "store").path
    monkeypatch.setenv("CXX", cxx)
    monkeypatch.setattr(library, "register", library.register.__wrapped__)
    assert main(["run", str(store), "--out", str(tmp_path / "run"), "--set", "engine=native"]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert "set engine to driftcal" in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "run").exists()


# Through the command


COMMON = (
    "ensemble.members=4",
    "batch_size=5",
    "optimizer.curvature_samples=12",
    "optimizer.final_passes=1",
    "precision=float64",
    "score.reference_members=3",
)


def calibrated(folder, name):
    """What a run by the engine found, and its evaluation."""
    store, out = folder / "store", folder / name
    if not store.exists():
        stores.build(store, 12, n_drifters=6, samples_per_shard=5, n_obs=17)
    told = [f"--set={setting}" for setting in (*COMMON, f"engine={name}")]
    assert main(["run", str(store), "--out", str(out), *told]) == 0
    result = json.loads((out / "result.json").read_text())
    return result | {"scores": json.loads((out / "evaluation.json").read_text())["scores"]}


def test_the_command_calibrates_and_evaluates_by_it(tmp_path):
    found = calibrated(tmp_path, "native")
    assert found["engine"] == "native"
    assert found["cs"] != pytest.approx(0.1, rel=0.05)
    scores = {name: score["energy_score_km"]["mean"] for name, score in found["scores"].items()}
    assert {"calibrated", "no motion", "currents alone"} < set(scores)
    assert len(set(scores.values())) == len(scores)


@pytest.mark.faults
def test_a_calibration_gives_the_same_constant(tmp_path):
    """From the store to the evaluation, in float64: what is left is rounding."""
    ours, theirs = (calibrated(tmp_path, name) for name in ("native", "driftcal"))
    for key in ("log_cs", "score", "curvature", "log_cs_standard_error"):
        assert ours[key] == pytest.approx(theirs[key], rel=1e-9), key
    assert ours["escaped_members"] == theirs["escaped_members"]
    for name, scores in theirs["scores"].items():
        assert ours["scores"][name]["energy_score_km"]["mean"] == pytest.approx(scores["energy_score_km"]["mean"], 1e-9)
