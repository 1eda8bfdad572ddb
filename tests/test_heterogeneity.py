"""Groups' statistics: against closed forms and other people's numbers, and rates of error on simulated groups."""

import numpy as np
import pytest

from driftcal.train.fit.group_tests import TEST_PRIOR, Joint, homogeneity, joint_covariance, score_test, shrink


def test_shrinkage_of_the_eight_schools() -> None:
    # Rubin (1981); posterior means of Gelman et al. (2013, sec. 5.5), whose prior of tau is flat, in units of 10 here
    effects = np.array([28, 8, -3, 7, -1, 1, 18, 12]) / 10
    errors = np.array([15, 10, 16, 11, 9, 11, 10, 18]) / 10
    found = shrink(effects, np.diag(errors**2))
    assert found.mean * 10 == pytest.approx(8, abs=0.7)
    order = np.argsort(found.median)
    assert [order[-1], order[0]] == [0, 4]
    assert 8 < found.median[0] * 10 < 12
    assert 4 < found.median[4] * 10 < 8
    assert np.all(found.high - found.low < 2 * 1.645 * errors)


def test_much_data_are_left_alone_and_little_become_the_mean() -> None:
    estimate = np.array([-1.6, -0.2, 0.4, 7.0])
    found = shrink(estimate, np.diag([1e-6, 1e-6, 1e-6, 400.0]))
    np.testing.assert_allclose(found.median[:3], estimate[:3], atol=1e-2)
    assert abs(found.median[3] - found.mean) < 0.1
    assert found.own_weight[:3] == pytest.approx(1.0, abs=1e-3)
    assert found.own_weight[3] < 0.02
    # what is not known of a group is as wide as the groups' own spread, not as its own error
    assert 1.0 < found.high[3] - found.low[3] < 8.0


def test_equal_groups_are_pooled() -> None:
    rng = np.random.default_rng(3)
    estimate = 0.3 * rng.standard_normal(200)
    found = shrink(estimate, np.diag(np.full(200, 0.09)))
    assert found.tau < 0.1
    assert np.abs(found.median).max() < 0.2


def groups_of(rng: np.random.Generator, k: int, offset: np.ndarray, shared: float) -> tuple[np.ndarray, Joint]:
    """Estimates of `k` groups of unequal size through which 80 drifters wander, and their covariance."""
    drifter = np.repeat(np.arange(80), rng.integers(2, 9, 80))
    group = (drifter * k // 80 + rng.integers(0, 2, len(drifter))) % k
    noise = rng.gamma(2.0, 1.0, len(drifter)) - 2.0 + shared * rng.standard_normal(80)[drifter]
    size = np.bincount(group, minlength=k)
    estimate = offset + np.bincount(group, noise, k) / size
    return estimate, joint_covariance(noise / size[group], group, drifter, k, TEST_PRIOR)


def test_the_joint_covariance_is_that_of_many_repetitions() -> None:
    rng = np.random.default_rng(4)
    drifter, group = np.repeat(np.arange(60), 6), np.tile([0, 0, 1, 1, 1, 2], 60)
    found, estimates = [], []
    for _ in range(800):
        noise = rng.standard_normal(360) + rng.standard_normal(60)[drifter]
        estimates.append(np.bincount(group, noise) / np.bincount(group))
        found.append(joint_covariance(noise / np.bincount(group)[group], group, drifter, 3).covariance)
    expected = np.cov(np.array(estimates).T)
    np.testing.assert_allclose(np.mean(found, axis=0), expected, rtol=0.2)
    assert expected[0, 1] > 0.5 * expected[0, 0]


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_one_constant_is_refused_as_often_as_it_says(shared: float) -> None:
    rng = np.random.default_rng(5)
    values = []
    for _ in range(600):
        test = homogeneity(*groups_of(rng, 6, np.zeros(6), shared))
        assert test is not None
        values.append(test.p_value)
    assert 0.02 < np.mean(np.array(values) < 0.05) < 0.09


def test_unequal_constants_are_found() -> None:
    rng = np.random.default_rng(6)
    test = homogeneity(*groups_of(rng, 6, np.array([0, 0, 0, 2.0, 2.0, 2.0]), 0.3))
    assert test is not None
    assert test.p_value < 1e-4
    assert test.n_groups == 6


def test_score_test_of_gradients() -> None:
    rng, values = np.random.default_rng(7), {0.0: [], 0.8: []}
    for _ in range(400):
        drifter = np.repeat(np.arange(90), 5)
        group = np.minimum(drifter // 20, 3)
        dispersion = rng.uniform(0.5, 1.5, 450)
        for apart, held in values.items():
            gradient = rng.standard_normal(450) + apart * np.array([-1, 0, 0, 1])[group]
            test = score_test(gradient, dispersion, group, drifter)
            assert test is not None
            held.append(test.p_value)
    assert 0.02 < np.mean(np.array(values[0.0]) < 0.05) < 0.09
    assert np.mean(np.array(values[0.8]) < 0.01) > 0.99
    assert score_test(gradient, dispersion, np.zeros(450, int), drifter) is None


def p_values(rng: np.random.Generator, sizes: list[int], n: int, apart: float, tails: bool = False) -> np.ndarray:
    """p-values of `n` score tests of groups with these numbers of drifters, the first off by `apart` of a drifter's."""
    found, drifters = [], np.arange(sum(sizes))
    own = np.repeat(np.arange(len(sizes)), sizes)
    for _ in range(n):
        drifter = np.repeat(drifters, 2)
        group = own[drifter]
        noise = rng.standard_t(5, len(drifters)) / np.sqrt(5 / 3) if tails else rng.standard_normal(len(drifters))
        gradient = (noise + apart * (own == 0))[drifter]
        test = score_test(gradient - gradient.mean(), rng.uniform(0.9, 1.1, len(group)), group, drifter)
        assert test is not None
        found.append(test.p_value)
    return np.array(found)


@pytest.mark.parametrize("sizes", [[5, 5], [5, 100], [5] * 12, [5, 7, 20, 40, 100]], ids=str)
def test_the_score_test_keeps_its_level_with_few_and_unequal_drifters(sizes: list[int]) -> None:
    rng = np.random.default_rng(8)
    assert 0.03 < np.mean(p_values(rng, sizes, 1000, 0.0) < 0.05) < 0.07
    assert 0.01 < np.mean(p_values(rng, sizes, 1000, 0.0, tails=True) < 0.05) < 0.07


@pytest.mark.parametrize("sizes", [[5, 5], [5, 100], [5] * 4], ids=str)
def test_five_drifters_that_depart_are_told_apart(sizes: list[int]) -> None:
    # Welch's test of two groups of five finds 2.8 standard deviations of a drifter at this level in 53 of 100
    rng = np.random.default_rng(9)
    assert np.mean(p_values(rng, sizes, 200, 2.8) < 0.01 / 3) > 0.53
    # a departure however large is certain, and not taken for variability
    assert np.all(p_values(rng, sizes, 10, 50.0) < 1e-6)
