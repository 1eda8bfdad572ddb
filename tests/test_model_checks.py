"""Model checks: tests against scipy's, their level and power, and worlds in which the model is wrong."""

import numpy as np
import pytest
from scipy import stats

from driftcal.train.model_checks import findings
from driftcal.train.model_checks.checks import lead_parts, model_checks, thirds_of
from driftcal.train.model_checks.moment_tests import LEVEL, holm, mean_test, ratio_interval
from tests import still_water
from tests.still_water import Law


def test_one_mean_of_single_samples_is_student_s_test() -> None:
    values = np.random.default_rng(0).normal(0.3, 2.0, 23)
    found, right = mean_test(values[:, None], np.arange(23)), stats.ttest_1samp(values, 0.0)
    assert found is not None
    assert found.p_value == pytest.approx(right.pvalue, rel=1e-9)
    assert found.z[0] == pytest.approx(right.statistic, rel=1e-9)


def test_two_means_of_single_samples_are_hotelling_s_test() -> None:
    random, n, k = np.random.default_rng(1), 31, 2
    values = random.normal([0.2, -0.1], [1.0, 30.0], (n, k)) @ np.array([[1.0, 0.6], [0.0, 1.0]])
    found = mean_test(values, np.arange(n))
    assert found is not None
    mean, covariance = values.mean(axis=0), np.cov(values.T)
    square = n * mean @ np.linalg.inv(covariance) @ mean
    assert found.p_value == pytest.approx(stats.f.sf(square * (n - k) / (k * (n - 1)), k, n - k), rel=1e-9)


def test_samples_of_one_cluster_count_once() -> None:
    values = np.random.default_rng(2).normal(0.4, 1.0, 17)
    once, thrice = (
        mean_test(values[:, None], np.arange(17)),
        mean_test(np.repeat(values, 3)[:, None], np.arange(51) // 3),
    )
    assert once is not None
    assert thrice is not None
    assert thrice.p_value == pytest.approx(once.p_value, rel=1e-9)


@pytest.mark.parametrize("sizes", [[2] * 40, [1, 1, 2, 3, 5, 8, 13] * 5])
def test_the_level_of_a_test_of_two_means_is_kept(sizes: list[int]) -> None:
    random, cluster = np.random.default_rng(3), np.repeat(np.arange(len(sizes)), sizes)
    rejected = 0
    for _ in range(1000):
        common = random.standard_t(5, (len(sizes), 2))[cluster]
        found = mean_test(common + random.standard_t(5, (len(cluster), 2)), cluster)
        assert found is not None
        rejected += found.p_value < 0.05
    assert 20 <= rejected <= 75  # 50 expected; unequal clusters make it cautious


def test_too_few_clusters_give_no_test_and_numbers_that_are_alike_one_of_signs() -> None:
    values = np.random.default_rng(4).normal(size=(8, 2))
    assert mean_test(values, np.repeat([0, 1, 2], [3, 3, 2])) is None
    alike = mean_test(np.ones((30, 1)), np.arange(30))
    assert alike is not None
    assert alike.p_value == pytest.approx(2.0**-29)  # thirty clusters on one side, at even odds
    assert mean_test(np.zeros((30, 1)), np.arange(30)) is None


def test_adjusted_p_values_are_holm_s() -> None:
    # Holm (1979): 4 x 0.005, 3 x 0.01, then no less than the one before: max(0.03, 2 x 0.03), max(0.06, 0.04)
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])


def test_an_interval_of_a_ratio_covers() -> None:
    random, covered = np.random.default_rng(5), 0
    for _ in range(400):
        below = random.gamma(4.0, 1.0, 60)
        above = 0.7 * below + random.normal(0.0, 1.0, 60)
        found = ratio_interval(above, below, np.arange(60) // 2)
        covered += found.low <= 0.7 <= found.high
    assert 340 <= covered <= 382


def test_thirds_and_parts_of_the_lead_time() -> None:
    assert np.bincount(thirds_of(np.arange(30.0))).tolist() == [10, 10, 10]
    assert thirds_of(np.zeros(9)).tolist() == [0] * 9
    parts = dict(lead_parts(np.arange(1.0, 121.0)))
    assert list(parts) == ["first 6 h", "day 1", "day 2", "day 3", "day 4", "day 5"]
    assert [int(part.sum()) for part in parts.values()] == [6, 24, 24, 24, 24, 24]
    assert list(dict(lead_parts(np.arange(1, 9) * 6.0))) == [
        "first 6 h",
        "quarter 1",
        "quarter 2",
        "quarter 3",
        "quarter 4",
    ]


def test_the_memory_time_is_that_of_the_velocity() -> None:
    # displacements over D of a velocity with correlation exp(-t / T), integrated by hand on a fine grid
    hours, time = 24.0, 41.0
    t = np.linspace(0.0, hours, 1201)
    lag = np.abs(t[:, None] - t)
    own, next_one = np.exp(-lag / time).mean(), np.exp(-np.abs(t[:, None] - t - hours) / time).mean()
    assert findings.memory_time(next_one / own, hours) == pytest.approx(time, rel=5e-3)
    assert findings.memory_time(0.9999, hours) is None


def test_a_right_model_is_supported() -> None:
    found = [model_checks(still_water.evidence(Law(), seed, n_drifters=80)) for seed in range(20)]
    assert sum(one.model_supported is not True for one in found) <= 4, [
        list(one.rejected) for one in found
    ]  # 1 expected
    assert all(len(one.model_checks) == 11 for one in found)


@pytest.mark.parametrize(
    ("law", "check", "words"),
    [
        (Law(cs=0.15, background=200.0), "kappa", "background diffusivity"),
        (Law(cs=0.1, flight=(0.08, 2 * 86_400.0)), "memory", "keep their velocity"),
        (Law(drift=(0.05, 0.03)), "mean_residual", "northeast"),
        (Law(inertial=(0.15, 4 * 86_400.0)), "turning", "clockwise"),
        (Law(cs=0.15, position_error=1000.0), "jitter", "positions have errors of about"),
    ],
    ids=["background", "flight", "drift", "inertial", "position"],
)
def test_a_wrong_model_is_told_by_its_cause(law: Law, check: str, words: str) -> None:
    for seed in range(3):
        found = model_checks(still_water.evidence(law, seed))
        assert found.model_supported is False
        assert found.model_checks[check].rejected
        assert words in found.model_checks[check].finding
        assert found.model_checks[check].finding in found.model_verdict


def test_the_memory_found_is_that_of_the_flight() -> None:
    found = model_checks(still_water.evidence(Law(cs=1e-3, flight=(0.08, 2 * 86_400.0)), 0, n_drifters=400))
    words = found.model_checks["memory"].finding
    assert float(words.split("for about ")[1].split(" days")[0]) == pytest.approx(2.0, abs=0.21)


def test_few_drifters_support_nothing_and_one_says_nothing() -> None:
    few = model_checks(still_water.evidence(Law(), 1, n_drifters=7))
    assert few.model_supported is None
    assert "7 independent drifters" in few.model_verdict
    one = model_checks(still_water.evidence(Law(), 1, n_drifters=1, per_drifter=12))
    assert one.model_supported is None
    assert one.model_checks == {}
    assert "a single drifter" in one.model_verdict


def test_few_drifters_still_tell_what_is_grossly_wrong() -> None:
    found = model_checks(still_water.evidence(Law(cs=0.05, drift=(0.3, 0.0)), 2, n_drifters=8))
    assert found.model_supported is False
    assert "east with" in found.model_verdict


def test_a_rejection_is_one_of_the_family() -> None:
    found = model_checks(still_water.evidence(Law(drift=(0.02, 0.0)), 5)).model_checks
    p = np.array([one.p_value for one in found.values()])
    np.testing.assert_allclose([one.p_adjusted for one in found.values()], holm(p))
    assert all(one.rejected == (one.p_adjusted < LEVEL) for one in found.values())
    assert all(one.finding == findings.NOTHING for one in found.values() if not one.rejected)
