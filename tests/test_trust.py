"""Newton steps of several parameters: against closed forms, brute force and repeated experiments."""

import numpy as np
import pytest

from driftcal.shared.errors import DataError
from driftcal.train.fit import trust_region
from driftcal.train.fit.standard_errors import estimate, judge

NAMES = ("a", "b", "c")
NEVER = np.zeros(3, bool)


def random_gradients(rng, n=500, scale=(1.0, 30.0, 0.01)):
    """Gradients of three parameters of very different units, and dispersions."""
    mixed = rng.normal(size=(n, 3)) @ np.array([[1.0, 0.4, 0.0], [0.0, 1.0, -0.3], [0.0, 0.0, 1.0]])
    return mixed * np.array(scale), rng.uniform(0.5, 1.5, n)


def test_metric_is_the_second_moment_over_the_squared_dispersion():
    gradient, dispersion = random_gradients(np.random.default_rng(0))
    metric = trust_region.metric_of(gradient, dispersion, NAMES, NEVER)
    second = gradient.T @ gradient / len(gradient) / dispersion.mean() ** 2
    np.testing.assert_allclose(metric.axes.T @ second @ metric.axes, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(metric.axes @ metric.inverse, np.eye(3), atol=1e-9)
    step = np.array([0.3, -0.02, 4.0])
    assert metric.length(step) == pytest.approx(np.sqrt(step @ second @ step))


def test_a_positive_parameter_that_does_not_matter_yet_moves_by_a_factor_at_most():
    gradient, dispersion = random_gradients(np.random.default_rng(0), scale=(1.0, 1e-6, 1.0))
    metric = trust_region.metric_of(gradient, dispersion, NAMES, np.array([False, True, False]))
    step = trust_region.step_within(np.array([0.0, 1e-6, 0.0]), np.zeros((3, 3)), metric, 1.0)
    assert abs(step[1]) == pytest.approx(np.log(trust_region.LONG_FACTOR), rel=1e-3)


def test_curvature_of_a_quadratic_is_exact_whatever_the_units():
    rng = np.random.default_rng(1)
    gradient, dispersion = random_gradients(rng)
    metric = trust_region.metric_of(gradient, dispersion, NAMES, NEVER)
    root = rng.normal(size=(3, 3)) * np.array([1.0, 30.0, 0.01])
    curvature = root.T @ root
    slopes = np.array([0.5 * ((curvature @ d) - (curvature @ -d)) for d in trust_region.differences(metric)])
    found = trust_region.curvature_from(metric, slopes)
    np.testing.assert_allclose(found, curvature, rtol=1e-8, atol=1e-10)
    assert trust_region.is_minimum(metric, found)
    assert not trust_region.is_minimum(metric, found - 1.01 * np.linalg.eigvalsh(curvature)[-1] * np.eye(3))


@pytest.mark.parametrize("lowest", [2.0, 0.3, -1.0, -5.0])
@pytest.mark.parametrize("radius", [0.05, 0.4, 3.0])
def test_step_is_the_best_of_all_within_the_region(lowest, radius):
    rng = np.random.default_rng(3)
    gradient, dispersion = random_gradients(rng)
    metric = trust_region.metric_of(gradient, dispersion, NAMES, NEVER)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    whitened = turn @ np.diag([lowest, 1.0, 4.0]) @ turn.T
    curvature = metric.inverse.T @ whitened @ metric.inverse
    slope = metric.inverse.T @ np.array([0.7, -0.5, 0.2])
    step = trust_region.step_within(slope, curvature, metric, radius)
    assert metric.length(step) <= radius * (1 + 1e-9)
    gain = trust_region.predicted_gain(slope, curvature, step)
    directions = rng.normal(size=(200_000, 3))
    directions *= (radius * rng.uniform(size=200_000) ** (1 / 3) / np.linalg.norm(directions, axis=1))[:, None]
    directions[::2] *= (radius / np.linalg.norm(directions[::2], axis=1))[:, None]
    tried = directions @ metric.axes.T
    gains = -(tried @ slope + 0.5 * np.einsum("ni,ij,nj->n", tried, curvature, tried))
    assert gain >= gains.max() * (1 - 1e-9)
    assert gain == pytest.approx(gains.max(), rel=0.02)


def test_another_unit_gives_the_same_step():
    gradient, dispersion = random_gradients(np.random.default_rng(5))
    scale = np.array([1e5, 1.0, 1e-7])
    curvature, slope = np.diag([2.0, 400.0, 1e-4]), np.array([0.3, -5.0, 1e-3])
    steps = [
        k
        * trust_region.step_within(
            slope * k, curvature * np.outer(k, k), trust_region.metric_of(gradient * k, dispersion, NAMES, NEVER), 0.2
        )
        for k in (np.ones(3), scale)
    ]
    np.testing.assert_allclose(*steps, rtol=1e-6)


def test_radius_follows_how_well_the_gain_was_predicted():
    assert trust_region.next_radius(1.0, 1.0, 0.9) == 2.0
    assert trust_region.next_radius(1.0, 0.1, 0.9) == 1.0
    assert trust_region.next_radius(1.0, 0.8, 0.5) == 1.0
    assert trust_region.next_radius(1.0, 0.8, 0.1) == 0.2
    assert trust_region.next_radius(1.0, 0.8, -3.0) == trust_region.next_radius(1.0, 0.8, np.nan) == 0.2


def test_parameters_that_do_nothing_or_the_same_are_named():
    gradient, dispersion = random_gradients(np.random.default_rng(0))
    with pytest.raises(DataError, match="does not depend on parameter 'b'"):
        trust_region.metric_of(gradient * np.array([1.0, 0.0, 1.0]), dispersion, NAMES, NEVER)
    gradient[:, 2] = -3.0 * gradient[:, 0]
    with pytest.raises(DataError, match="cannot be told apart"):
        trust_region.metric_of(gradient, dispersion, NAMES, NEVER)


def test_covariance_is_that_of_repeated_experiments():
    """Least squares with clustered errors: the sandwich against the scatter of the estimates themselves."""
    rng = np.random.default_rng(7)
    truth, found, covariances = np.array([0.4, -1.3]), [], []
    for _ in range(400):
        drifter = np.repeat(np.arange(150), rng.integers(1, 7, 150))
        inputs = rng.normal(size=(len(drifter), 2)) @ np.array([[1.0, 0.7], [0.0, 0.5]])
        own = rng.normal(0, 0.5, 150)[drifter]
        seen = inputs @ truth + (own + rng.normal(0, 0.4, len(drifter))) * (1 + np.abs(inputs[:, 0]))
        gradient = -(seen[:, None] * inputs)  # at zero
        curvature = inputs.T @ inputs / len(inputs)
        step = -np.linalg.solve(curvature, gradient.mean(axis=0))
        gradient_at_zero = (inputs @ step - seen)[:, None] * inputs
        one = estimate(np.zeros(2), step, seen**2, gradient_at_zero, drifter, curvature, True, {})
        found.append(one.corrected)
        covariances.append(one.covariance)
    scatter = np.cov(np.array(found).T)
    mean = np.mean(covariances, axis=0)
    np.testing.assert_allclose(np.sqrt(np.diag(mean)), np.sqrt(np.diag(scatter)), rtol=0.1)
    assert mean[0, 1] / np.sqrt(mean[0, 0] * mean[1, 1]) == pytest.approx(np.corrcoef(np.array(found).T)[0, 1], abs=0.1)
    distance = [np.sqrt((f - truth) @ np.linalg.solve(c, f - truth)) for f, c in zip(found, covariances, strict=True)]
    assert np.mean(np.array(distance) < 2.146) == pytest.approx(0.9, abs=0.05)  # sqrt of chi2 with two degrees, 90 %


def test_no_more_drifters_than_parameters_give_no_standard_error():
    rng = np.random.default_rng(0)
    gradient = rng.normal(size=(12, 2))
    made = [
        estimate(np.zeros(2), np.zeros(2), np.ones(12), gradient, np.arange(12) % n, np.eye(2), True, {})
        for n in (2, 3)
    ]
    assert made[0].standard_error is None
    assert "2 drifters give it no standard error" in made[0].explain("a, b")
    assert made[1].standard_error is not None


def test_many_parameters_are_judged_by_what_chance_makes_of_the_gradient():
    rng = np.random.default_rng(2)
    drifter = np.arange(4000) % 400
    noise = rng.normal(size=(4000, 50)) + rng.normal(size=(400, 50))[drifter]
    noise -= noise.mean(axis=0)
    at_zero = judge(np.zeros(50), np.ones(4000), noise, drifter, {})
    away = judge(np.zeros(50), np.ones(4000), noise + 0.2, drifter, {})
    assert at_zero.settled
    assert at_zero.explain("").startswith("yes")
    assert not away.settled
    variance = (1 + 1 / 10) / 400  # of the mean, clustered
    assert away.ratio == pytest.approx(0.04 / variance, rel=0.1)
    assert "no standard errors" in away.explain("")
