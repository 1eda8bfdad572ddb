"""Which group a sample is in, passes at constants of each sample's own, their fit, and other minima."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from driftcal.shared.errors import ConfigError, DataError
from driftcal.shared.settings import build
from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit import group_estimates, group_keys, profile
from driftcal.train.fit.per_sample_parameters import Found, Varied
from driftcal.train.fit.standard_errors import quantile_90
from driftcal.train.learners.drift.dynamics import load as load_dynamics
from driftcal.train.learners.drift.loss import loss_of, make_step
from driftcal.train.reading.batches import Grid, batches
from driftcal.train.run import examination
from driftcal.train.run.result import Parameter
from driftcal.train.settings import Training
from tests import stores
from tests.results import result

TREE = {"ensemble": {"members": 4}, "integration": {"step": "3h"}, "batch_size": 5, "precision": "float64", "seed": 2}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ShardStore:
    return ShardStore(stores.build(tmp_path_factory.mktemp("s") / "small", 14, centre=(179.6, -20.0)).path)


def test_places(store: ShardStore) -> None:
    samples = store.samples_of("train")
    found = group_keys.of(store, samples, "grid:2.5")
    assert found.boxes is not None
    at = store.labels["origin"][samples]
    box = found.boxes[found.group]
    assert np.all((box[:, :2] <= at) & (at < box[:, 2:]))
    np.testing.assert_allclose(box[:, 2:] - box[:, :2], 2.5)
    assert set(found.group.tolist()) == set(range(found.size))
    bands = group_keys.of(store, samples, "latitude:10")
    assert set(bands.names) <= {"30°S to 20°S", "20°S to 10°S"}
    named = np.array(bands.names)[bands.group]
    assert np.array_equal(np.char.startswith(named, "20°S"), at[:, 1] >= -20)


def test_times_and_labels(store: ShardStore) -> None:
    samples = np.arange(len(store))
    days = store.labels["start_time"].astype("datetime64[s]")
    months = np.array([int(str(day)[5:7]) for day in days])
    named = np.array(group_keys.of(store, samples, "month").names)[group_keys.of(store, samples, "month").group]
    assert [group_keys.MONTHS[m - 1] for m in months] == named.tolist()
    season = group_keys.of(store, samples, "season")
    expected = {12: "DJF", 1: "DJF", 2: "DJF", 3: "MAM", 4: "MAM", 5: "MAM"}
    assert [expected[m] for m in months] == np.array(season.names)[season.group].tolist()
    assert group_keys.of(store, samples, "year").names == ("2016",)
    drogue = group_keys.of(store, samples, "drogue")
    assert np.array(drogue.names)[drogue.group][:4].tolist() == [
        "drogue on",
        "drogue on",
        "drogue lost",
        "drogue unknown",
    ]
    assert group_keys.of(store, samples, "drifter").names == tuple(store.drifters)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("grid", "expected grid:DEGREES"),
        ("latitude:0", "expected latitude:DEGREES with 0.5 to 90"),
        ("saison", r"did you mean season\?"),
        ("currents", "not a key"),
        ("start_time", "not a key"),
    ],
)
def test_keys_that_are_none(store: ShardStore, key: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        examination.check_groups(store, build(Training, TREE, "test"), [key])


def test_groups_of_other_dynamics_are_refused(store: ShardStore) -> None:
    settings = build(Training, {"engine": "pastax"}, "test")
    with pytest.raises(ConfigError, match=r"this run has engine pastax\. Leave out --group-by, or take another engine"):
        examination.check_groups(store, settings, ["season"])


def test_every_sample_has_the_gradient_at_its_own_constant(store: ShardStore) -> None:
    settings, samples = build(Training, TREE, "test"), store.samples_of("train")
    own = np.log(np.linspace(0.1, 0.9, len(samples)))
    with jax.enable_x64(True):
        loss = loss_of(settings, Grid.of(store.layout), load_dynamics(settings))
        found = Varied(store, settings, loss, samples, False, "test").at(np.arange(len(samples)), own)
        step = make_step(settings, Grid.of(store.layout), load_dynamics(settings))
        for numbers, batch in batches(store, samples, 5, np.dtype("float64")):
            for number in numbers[:2]:
                k, b = int(np.flatnonzero(samples == number)[0]), int(np.flatnonzero(numbers == number)[0])
                sums = step(jnp.asarray(own[k : k + 1]), batch, settings.epochs)
                np.testing.assert_allclose(found.loss[k], sums.loss[b], rtol=1e-10)
                np.testing.assert_allclose(found.gradient[k], sums.gradient[b, 0], rtol=1e-8)


class Quadratic(Varied):
    """Samples whose objective is least at a constant of their own, log-quadratic but for a cubic term."""

    def __init__(self, least: np.ndarray, steep: np.ndarray):
        self.least, self.steep, self.seen = least, steep, 0

    def at(self, which: np.ndarray, log_values: np.ndarray) -> Found:
        self.seen += len(which)
        away = log_values - self.least[which]
        gradient = self.steep[which] * (away + 0.2 * away**2 * np.tanh(away))
        good = which != 3
        return Found(away**2, np.where(good, gradient, np.nan), away, np.zeros(len(which), int), good)


def test_all_groups_reach_their_own_minimum() -> None:
    rng = np.random.default_rng(1)
    truth = np.log(np.array([0.2, 0.8, 0.4, 3.0, 0.41]))
    group, drifter = rng.integers(0, 5, 3000), rng.integers(0, 300, 3000)
    passes = Quadratic(truth[group] + 0.5 * rng.standard_normal(3000), np.array([0.3, 0.6, 0.4, 1.2, 0.4])[group])
    found = group_estimates.fit(passes, group, drifter, 5, np.log(0.4))
    assert found.minimum.all()
    assert found.settled.all()
    assert not found.good[3]
    assert found.good.sum() == 2999
    np.testing.assert_allclose(found.log_value, truth, atol=0.08)
    for g in range(5):  # the zero of the group's own mean gradient, to a quarter of its error
        which = np.flatnonzero((group == g) & found.good)
        slope = passes.at(which, np.full(len(which), found.log_value[g])).gradient.mean()
        assert abs(slope / passes.steep[which[0]]) < 0.25 * 0.55 / np.sqrt(len(which))
    assert passes.seen < 9 * 3000


def test_a_group_without_a_minimum_is_said_to_have_none() -> None:
    class Falling(Quadratic):
        def at(self, which: np.ndarray, log_values: np.ndarray) -> Found:
            found = super().at(which, log_values)
            return found._replace(gradient=np.where(which % 2 == 0, np.exp(0.1 * log_values), found.gradient))

    rng = np.random.default_rng(2)
    found = group_estimates.fit(
        Falling(rng.standard_normal(400), np.ones(400)), np.arange(400) % 2, np.arange(400) // 4, 2, 0.0
    )
    assert found.minimum.tolist() == [False, True]
    assert np.isfinite(found.log_value).all()


def test_a_group_of_poisoned_samples_alone_leaves_the_others_as_they_are() -> None:
    class Poisoned(Quadratic):
        def at(self, which: np.ndarray, log_values: np.ndarray) -> Found:
            found = super().at(which, log_values)
            return found._replace(gradient=np.where(which % 3 == 1, np.nan, found.gradient))

    group, drifter = np.arange(300) % 3, np.arange(300) // 7
    least = 0.3 * np.random.default_rng(5).standard_normal(300) + np.array([-1.0, 0.0, 1.0])[group]
    found = group_estimates.fit(Poisoned(least, np.ones(300)), group, drifter, 3, 0.0)
    assert found.minimum[[0, 2]].all()
    assert not found.good[group == 1].any()
    told = group_estimates._described(group_keys.Grouping("made", ("a", "b", "c"), group), found, drifter, drifter)
    assert [one["name"] for one in told["groups"]] == ["a", "c"]
    np.testing.assert_allclose([one["value"] for one in told["groups"]], np.exp([-1.0, 1.0]), rtol=0.15)
    assert told["left_out_samples"] == 101  # sample 3 is poisoned as well


def test_groups_around_a_maximum_are_refused() -> None:
    passes = Quadratic(np.full(60, np.log(0.3)), np.full(60, -0.5))
    with pytest.raises(DataError, match=r"not convex at the run's value, 0\.5 .* another start"):
        group_estimates.fit(passes, np.arange(60) % 2, np.arange(60) // 4, 2, np.log(0.5))


def test_other_minima_are_found_beyond_chance_with_intervals() -> None:
    value = np.geomspace(0.01, 10, 41)
    x = np.log(value)
    # (x - a)(x - b)(x - c): minima at a and c
    a, b, c = np.log([0.05, 0.3, 2.0])
    gradient = (x - a) * (x - b) * (x - c)

    def scored(x: np.ndarray) -> np.ndarray:
        return x**4 / 4 - (a + b + c) * x**3 / 3 + (a * b + b * c + a * c) * x**2 / 2 - a * b * c * x

    (found,) = profile.minima(value, scored(x), gradient, np.full(41, 0.1), 2.0, 60)
    assert found["value"] == pytest.approx(0.05, rel=0.01)
    assert found["score"] == pytest.approx(scored(a), abs=1e-3)
    assert found["score_above_result"] == pytest.approx(scored(a) - scored(c), abs=0.05)
    # the error of the gradient over the curvature there
    half = quantile_90(59) * 0.1 / ((a - b) * (a - c))
    np.testing.assert_allclose(np.log(found["interval_90"]), [a - half, a + half], atol=0.02)
    assert [m["value"] for m in profile.minima(value, scored(x), gradient, np.full(41, 0.1), 0.05, 60)] == [
        pytest.approx(2.0, rel=0.01)
    ]
    # wiggles within the error are none
    assert profile.minima(value, scored(x), 0.01 * np.sin(9 * x), np.full(41, 0.1), 0.1, 60) == []
    alone = np.where(x > b, x - b, 0.01 * np.sin(9 * x) - 0.2 * (x < -3))
    assert profile.minima(value, scored(x), alone, np.full(41, 0.1), 0.3, 60) == []
    assert len(profile.minima(value, scored(x), alone, np.full(41, 0.1), 9.0, 60)) == 1


def test_samples_are_spread_over_drifters() -> None:
    drifter = np.repeat([4, 1, 7], [10, 3, 1])
    assert np.bincount(drifter[profile.evenly_over(drifter, 3)]).tolist() == [0, 1, 0, 0, 1, 0, 0, 1]
    taken = profile.evenly_over(drifter, 9)
    assert np.bincount(drifter[taken])[[4, 1, 7]].tolist() == [5, 3, 1]
    assert len(set(taken.tolist())) == 9
    assert profile.evenly_over(drifter, 99).tolist() == list(range(14))
    assert len(set(profile.evenly_over(np.arange(50), 7).tolist())) == 7


def test_the_curve_of_a_few_samples_goes_through_the_result_of_all(store: ShardStore) -> None:
    samples = np.repeat(store.samples_of("train"), 40)
    rng = np.random.default_rng(8)
    passes = Quadratic(np.log(0.3) + rng.standard_normal(len(samples)), np.full(len(samples), 0.7))
    every = np.arange(len(samples))
    result = 0.3
    for _ in range(20):  # the zero of the mean gradient of all
        slope = np.nanmean(passes.at(every, np.full(len(samples), np.log(result))).gradient)
        result *= np.exp(-slope)
    calibrated = profile.Calibrated("cs", np.log(result), 4, 0, (0.01, 10.0))
    found = profile.examine(passes, samples, store.labels["drifter"], calibrated)
    curve = found["profile"]
    assert curve["n_samples"] == profile.FEWEST
    assert found["minima"] == []
    assert np.interp(np.log(result), np.log(curve["value"]), curve["gradient"]) == pytest.approx(0.0, abs=1e-6)
    # nearer to the result than the few samples would come alone
    whole = [np.nanmean(passes.at(every, np.full(len(samples), np.log(v))).gradient) for v in curve["value"]]
    near = np.abs(np.log(np.array(curve["value"]) / result)) < 1.5
    assert np.abs(np.array(curve["gradient"]) - whole)[near].max() < 0.05


def test_examination_of_a_run(store: ShardStore, tmp_path: Path) -> None:
    cs = Parameter(0.3, float(np.log(0.3)), None, None, 0.1, "logarithm", False)
    calibrated = result(store, parameters={"cs": cs.as_json()}, gradient_samples=90, members=4)
    found = examination.examine(store, build(Training, TREE, "test"), calibrated, tmp_path, False)
    assert json.loads((tmp_path / "result.json").read_text()) == found.as_json()
    curve = found.profile
    assert curve is not None
    assert len(curve.value) == profile.N_VALUES + 1
    assert 0.3 in [pytest.approx(one) for one in curve.value]
    # the derivative is that of the curve
    x, score, slope = (np.array(values) for values in (curve.value, curve.score, curve.gradient))
    between = np.diff(score) / np.diff(np.log(x))
    assert np.all(
        (between - np.minimum(slope[1:], slope[:-1]) > -0.05) & (between - np.maximum(slope[1:], slope[:-1]) < 0.05)
    )
    assert examination.examine(store, build(Training, TREE, "test"), found, tmp_path, False) is found


@pytest.mark.faults
@pytest.mark.parametrize("benchmark", ["groups", "coverage"])
def test_twins_in_the_full_counts(tmp_path: Path, benchmark: str) -> None:
    """Halves of two constants are told apart; 32 to 40 of 40 intervals cover. The command judges, by its exit code."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
