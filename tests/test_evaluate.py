"""The scores of an evaluation against closed forms and plain numpy, and which samples they are of."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scores.probability import rank_histogram

from driftcal.shared.errors import DataError
from driftcal.shared.geo import EARTH_RADIUS, METRES_PER_DEGREE
from driftcal.shared.store.reader import ShardStore
from driftcal.train.evaluation import aggregate, evaluate
from driftcal.train.evaluation.evaluation import SCORES, Evaluation, LeftOut
from driftcal.train.learners.drift import metrics
from driftcal.train.settings import Training
from tests import stores

CS = 0.3
TOLD = Training.model_validate(
    {
        "ensemble": {"members": 5},
        "integration": {"step": "3h"},
        "batch_size": 4,
        "seed": 3,
        "precision": "float64",
    }
)


class Found(NamedTuple):
    """An evaluation and what it was made of."""

    store: ShardStore
    scores: Evaluation
    examples: dict[str, np.ndarray]


def two_test_drifters(values: dict[str, np.ndarray]) -> None:
    """Sample 2, which drifter 2 holds alone, is for test beside those of the last drifter."""
    values["drifter"][2::5], values["drifter"][2] = 0, 2
    values["split"][values["drifter"] == 3] = 0
    values["split"][2] = 2


def build(path: Path, n_samples: int = 25, poison: int | None = None) -> ShardStore:
    """Six test samples of two drifters, which the examples hold whole, in two batches; no sample of validation."""

    def change(values: dict[str, np.ndarray]) -> None:
        two_test_drifters(values)
        if poison is not None:
            values["positions"][poison, 7] = np.nan

    return ShardStore(stores.build(path, n_samples, n_unusable=0, change=change).path)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    store = build(tmp_path_factory.mktemp("store") / "small")
    return Found(store, *evaluate.evaluate(store, "test", TOLD, CS, (), False))


def metres(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Great-circle distance of positions (lon, lat) [degrees]."""
    (lon, lat), (lon_b, lat_b) = (np.moveaxis(np.radians(p), -1, 0) for p in (a, b))
    s = np.sin((lat - lat_b) / 2) ** 2 + np.cos(lat) * np.cos(lat_b) * np.sin((lon - lon_b) / 2) ** 2
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(s))


def observed(store: ShardStore, samples: np.ndarray) -> np.ndarray:
    return store.labels["origin"][samples][:, None] + store.positions.read(samples).astype(np.float64)


def mean_of(found: Found, system: str, name: str) -> float:
    return getattr(found.scores.scores[system], name).mean


def test_no_motion_is_as_far_off_as_the_drifter_went(found: Found) -> None:
    track = observed(found.store, found.store.samples_of("test"))
    went = metres(track[:, 1:], track[:, :1]) / 1e3
    assert mean_of(found, "no motion", "separation_km") == pytest.approx(went.mean(), rel=1e-6)
    assert mean_of(found, "no motion", "final_separation_km") == pytest.approx(went[:, -1].mean(), rel=1e-6)
    # members that are all in one place: the energy score is the distance
    assert mean_of(found, "no motion", "energy_score_km") == pytest.approx(went.mean(), rel=1e-6)
    still = found.scores.scores["no motion"]
    above = mean_of(found, "no motion", "energy_score_km") - mean_of(found, "calibrated", "energy_score_km")
    assert still.energy_score_above_calibrated_km.mean == pytest.approx(above)
    assert still.escaped_members == 0


def test_scores_of_the_ensembles_themselves(found: Found) -> None:
    track, ensemble = found.examples["track"], found.examples["ensemble"]
    assert np.array_equal(found.examples["sample"], found.store.samples_of("test"))
    assert ensemble.shape == (6, 5, 41, 2)
    np.testing.assert_allclose(track, observed(found.store, found.examples["sample"]), atol=1e-9)
    apart = metres(ensemble, track[:, None])[:, :, 1:] / 1e3
    pairs = np.array([[metres(ensemble[:, i], ensemble[:, j]) for j in range(5)] for i in range(5)])[..., 1:] / 1e3
    energy = apart.mean(axis=1) - pairs.sum(axis=(0, 1)) / (2 * 5 * 4)
    length = metres(track[:, 1:], track[:, :-1]).cumsum(axis=1).sum(axis=1) / 1e3
    expected = {
        "energy_score_km": energy.mean(),
        "separation_km": apart.mean(),
        "final_separation_km": apart[..., -1].mean(),
        "liu_skill": np.maximum(0, 1 - apart.mean(axis=1).sum(axis=1) / length).mean(),
    }
    for name, value in expected.items():
        assert mean_of(found, "calibrated", name) == pytest.approx(value, rel=1e-6), name


def test_sums_over_batches_are_the_mean_over_samples(found: Found) -> None:
    track, ensemble = found.examples["track"], found.examples["ensemble"]
    scale = METRES_PER_DEGREE * np.stack([np.cos(np.radians(track[..., 1])), np.ones_like(track[..., 1])], axis=-1)
    away = ((ensemble - track[:, None]) * scale[:, None])[:, :, 1:]
    error = np.sqrt((away.mean(axis=1) ** 2).sum(axis=-1).mean(axis=0)) / 1e3
    spread = np.sqrt(away.var(axis=1, ddof=1).sum(axis=-1).mean(axis=0) * 6 / 5) / 1e3
    held = found.scores.spread_and_error
    assert set(held) == {"calibrated", "initial constant"}
    np.testing.assert_allclose(held["calibrated"].error_km, error, rtol=1e-6)
    np.testing.assert_allclose(held["calibrated"].spread_km, spread, rtol=1e-6)
    np.testing.assert_allclose(found.scores.lead_hours, 3.0 * np.arange(1, 41))


def test_what_was_scored_is_counted(found: Found) -> None:
    s = found.scores
    assert (s.split, s.fit, s.n_split, s.n_samples, s.n_drifters) == ("test", False, 6, 6, 2)
    assert s.poisoned_samples == ()
    assert s.trained_drifters_left_out == LeftOut(0, ())


def test_a_poisoned_sample_and_a_trained_drifter_are_left_out(found: Found, tmp_path: Path) -> None:
    # the poisoned sample is all that one drifter has, so that both ways of leaving it out score the same samples
    poisoned, _ = evaluate.evaluate(build(tmp_path / "poisoned", poison=2), "test", TOLD, CS, (), False)
    name = found.store.drifters[2]
    unseen, examples = evaluate.evaluate(found.store, "test", TOLD, CS, {name, "another"}, False)
    assert (poisoned.poisoned_samples, poisoned.n_samples, poisoned.n_drifters) == ((2,), 5, 1)
    assert (unseen.poisoned_samples, unseen.n_samples, unseen.n_drifters) == ((), 5, 1)
    assert unseen.trained_drifters_left_out == LeftOut(1, (name,))
    assert 2 not in examples["sample"]
    for system, scores in unseen.scores.items():
        for score in SCORES:
            assert poisoned.scores[system].of(score).mean == pytest.approx(scores.of(score).mean, rel=1e-9)
            assert poisoned.scores[system].of(score).standard_error is None
    for system, lines in unseen.spread_and_error.items():
        np.testing.assert_allclose(poisoned.spread_and_error[system].error_km, lines.error_km, rtol=1e-9)
        np.testing.assert_allclose(poisoned.spread_and_error[system].spread_km, lines.spread_km, rtol=1e-9)
    mean = mean_of(Found(found.store, unseen, examples), "no motion", "separation_km")
    assert mean != pytest.approx(mean_of(found, "no motion", "separation_km"), rel=1e-3)


def test_nothing_but_trained_drifters_is_refused(found: Found) -> None:
    with pytest.raises(DataError, match="trained on every drifter"):
        evaluate.evaluate(found.store, "test", TOLD, CS, found.store.drifters, False)


def test_the_training_split_is_kept_as_fit_and_thinned(found: Found) -> None:
    chosen = found.store.samples_of("train")[[0, 6, 12, 18]]
    scores, examples = evaluate.evaluate(found.store, "train", TOLD, CS, found.store.drifters[:4], False, most=4)
    assert scores.fit
    assert (scores.n_split, scores.n_samples) == (19, 4)
    assert scores.trained_drifters_left_out.n_samples == 0
    assert examples["sample"].tolist() == chosen.tolist()
    track = observed(found.store, chosen)
    went = metres(track[:, 1:], track[:, :1]).mean() / 1e3
    assert scores.scores["no motion"].separation_km.mean == pytest.approx(went, rel=1e-6)


def test_standard_error_is_that_of_clusters() -> None:
    rng = np.random.default_rng(4)
    drifter = rng.integers(3, 20, 300) * 7
    values = rng.standard_normal(300) + rng.standard_normal(200)[drifter]
    groups = {d: [v for v, g in zip(values, drifter, strict=True) if g == d] for d in set(drifter.tolist())}
    mean = sum(map(sum, groups.values())) / 300
    squares = sum(sum(v - mean for v in group) ** 2 for group in groups.values())
    expected = (squares * len(groups) / (len(groups) - 1)) ** 0.5 / 300
    held = aggregate.clustered(values, drifter)
    assert (held["mean"], held["standard_error"]) == (pytest.approx(mean), pytest.approx(expected))
    assert held["interval_90"][0] < mean - 1.645 * expected
    # one sample a drifter: the error of independent samples; one drifter: none
    alone = aggregate.clustered(values, np.arange(300))["standard_error"]
    assert alone == pytest.approx(values.std(ddof=1) / np.sqrt(300))
    assert aggregate.clustered(values, np.zeros(300, int))["standard_error"] is None


def test_a_tally_keeps_sums_of_every_drifter_and_no_number_a_sample_and_fix() -> None:
    rng = np.random.default_rng(5)
    n_obs, held, drifter = 9, aggregate.Tally(3), np.array([0, 2, 2, 0, 1, 1, 0, 2, 0, 1, 0])
    whole = {
        system: {k: rng.standard_normal(11) ** 2 for k in (*aggregate.MEASURED, "escaped")}
        | {k: rng.standard_normal((n_obs, 11)) ** 2 for k in ("error2", "spread2")}
        | {f"rank_{k}": rng.integers(0, 8, (n_obs, 11)).astype(float) for k in aggregate.RANKS}
        for system in ("calibrated", "initial constant", "no motion")
    }
    whole["no motion"]["spread2"][4, 6] = np.inf  # at a single fix, of a system whose spread is not told
    for part in (slice(0, 4), slice(4, 8), slice(8, 11)):
        taken = {s: {k: v[..., part] for k, v in found.items()} for s, found in whole.items()}
        held.add(taken, drifter[part], 7)
    good = np.arange(11) != 6
    assert np.array_equal(np.concatenate(held.good), good)
    assert held.counts.tolist() == [4, 3, 3]
    assert set(held.moments) == set(aggregate.SPREAD)
    for system in held.moments:
        for key in ("error2", "spread2"):
            for d in range(3):
                expected = whole[system][key][:, good & (drifter == d)].sum(axis=1)
                np.testing.assert_allclose(held.moments[system][key][d], expected, rtol=1e-12)
        for kind in aggregate.RANKS:
            rank = whole[system][f"rank_{kind}"][:, good]
            counted = [[(rank[:, drifter[good] == d] == r).sum() for r in range(8)] for d in range(3)]
            assert held.ranks[system][kind].tolist() == counted
    for system, scores in held.scores.items():
        for key, parts in scores.items():
            assert np.array_equal(np.concatenate(parts), whole[system][key][good])


def test_ratios_and_their_errors_are_those_of_repetitions() -> None:
    rng, found = np.random.default_rng(6), []
    for _ in range(500):
        of_drifter = rng.gamma(2.0, 1.0, 60)
        below = of_drifter[:, None] * rng.gamma(4.0, 1.0, (60, 1))
        above = 0.7 * below * rng.gamma(5.0, 0.2, (60, 1))
        found.append([float(v[0]) for v in aggregate.ratio(above, below)])
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx(0.7, rel=0.02)
    assert np.median(errors) == pytest.approx(values.std(), rel=0.12)


def test_bins_share_out_ranks() -> None:
    np.testing.assert_allclose(aggregate.bins(21), np.eye(21), atol=1e-12)
    shared = aggregate.bins(51)
    assert shared.shape == (51, 20)
    np.testing.assert_allclose(shared.sum(axis=1), 1.0)
    np.testing.assert_allclose(shared.sum(axis=0), 51 / 20)


def test_ranks_by_hand_and_by_another_library() -> None:
    rng = np.random.default_rng(7)
    away = rng.standard_normal((3, 2, 6, 40)) + np.array([0.4, -0.2])[:, None, None]
    with jax.enable_x64(True):
        found = {name: np.asarray(rank) for name, rank in metrics.ranks(jnp.asarray(away)).items()}
    every = np.concatenate([np.zeros((3, 2, 1, 40)), away], axis=2)
    apart = np.sqrt(((every[:, :, :, None] - every[:, :, None]) ** 2).sum(axis=1)).sum(axis=2)
    assert np.array_equal(found["rank_distance"], (apart[:, 1:] < apart[:, :1]).sum(axis=1))
    for axis, name in enumerate(("east", "north")):
        members = xr.DataArray(away[:, axis], dims=("obs", "member", "sample"))
        truth = xr.zeros_like(members.isel(member=0))
        theirs = rank_histogram(members, truth, "member")
        ours = np.bincount(found[f"rank_{name}"].ravel(), minlength=7) / 120
        np.testing.assert_allclose(np.asarray(theirs), ours, atol=1e-12)


def test_a_reliable_ensemble_is_called_so() -> None:
    rng = np.random.default_rng(8)
    every = rng.standard_normal((5, 2, 22, 400))  # drifter and 21 members alike
    away = every[:, :, 1:] - every[:, :, :1]
    for factor, ratio, centre in ((1.0, 1.0, 0.5), (0.5, 0.0, 0.8)):
        drifter = away.mean(axis=2, keepdims=True)
        narrow = jnp.asarray(away if factor == 1.0 else drifter + factor * (away - drifter))
        taken = {k: np.asarray(v, float) for k, v in (metrics.ranks(narrow) | metrics.moments(narrow)).items()}
        held, nothing = aggregate.Tally(100), dict.fromkeys((*aggregate.MEASURED, "escaped"), np.zeros(400))
        held.add({"calibrated": taken | nothing}, np.arange(400) // 4, 21)
        found = held.reliability("calibrated")
        if factor == 1.0:
            assert found["spread_skill_ratio"]["mean"] == pytest.approx(ratio, abs=0.05)
            low, high = found["ranks"]["distance"]["mean"]["interval_90"]
            assert low - 0.01 < centre < high + 0.01
            for kind in ("east", "north"):
                assert found["ranks"][kind]["spread"]["mean"] == pytest.approx(1.0, abs=0.08)
        else:
            assert found["spread_skill_ratio"]["mean"] == pytest.approx(0.5, abs=0.05)
            assert found["ranks"]["distance"]["mean"]["mean"] > centre - 0.1
            assert found["ranks"]["east"]["spread"]["mean"] > 1.3
