"""The optimiser and the standard error against closed forms and sampling experiments."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from driftcal.train.fit.standard_errors import estimate
from driftcal.train.learners.drift import energy_newton


def gaussian(log_cs, log_truth):
    """Gradient of the energy score of a Gaussian ensemble with respect to log C_s, and the score's second term."""
    s, s0 = math.exp(log_cs / 2), math.exp(log_truth / 2)
    root = math.sqrt(math.pi / 2)
    slope = root * (s / math.hypot(s, s0) - 1 / math.sqrt(2)) * s / 2
    return slope, root * s / math.sqrt(2)


@pytest.mark.parametrize("truth", [0.02, 0.3, 5.0])
@pytest.mark.parametrize("factor", [1 / 3, 0.7, 3.0, 10.0])
def test_global_step_lands_on_the_gaussian_minimum(truth, factor):
    start = math.log(truth * factor)
    step = float(energy_newton.global_step(*(jnp.asarray(v) for v in gaussian(start, math.log(truth)))))
    assert start + step == pytest.approx(math.log(truth), abs=2e-4)


def test_global_step_is_bounded_and_points_downhill_where_the_ratio_has_no_meaning():
    for gradient, dispersion, sign in ((1.0, 0.1, -1), (-1.0, 0.1, 1), (0.3, 0.0, -1), (-0.3, 0.0, 1)):
        step = float(energy_newton.global_step(jnp.asarray(gradient), jnp.asarray(dispersion)))
        assert step * sign == pytest.approx(energy_newton.LONGEST_STEP)
    assert float(energy_newton.global_step(jnp.asarray(0.0), jnp.asarray(1.0))) == pytest.approx(0.0, abs=1e-6)


def test_newton_is_an_optax_transformation_that_finds_a_noisy_minimum():
    """Noisy gradients of the closed form: the averaged iterates come within their sampling error."""
    rng = np.random.default_rng(0)
    truth, noise = math.log(0.3), 0.1
    finals = []
    for _ in range(20):
        method = energy_newton.newton()
        log_cs = jnp.asarray(math.log(0.1))
        state, average = method.init(log_cs), energy_newton.start_average(log_cs)
        for _ in range(60):
            gradient, dispersion = gaussian(float(log_cs), truth)
            gradient += noise * dispersion / 8 * rng.normal()  # as if each batch alone told log C_s to `noise`
            update, state = method.update(jnp.asarray(gradient), state, log_cs, dispersion=jnp.asarray(dispersion))
            log_cs = jnp.asarray(optax.apply_updates(log_cs, update))
            average = energy_newton.add_to_average(average, log_cs)
        finals.append(float(average.value) - truth)
    spread = noise / math.sqrt(60) * 1.52  # 1.52: the price of weights that grow with the third power
    assert abs(np.mean(finals)) < 3 * spread / math.sqrt(20)
    assert np.std(finals) < 1.6 * spread


def test_average_forgets_the_start_by_the_third_power():
    average = energy_newton.start_average(jnp.asarray(100.0))
    values = [5.0, -1.0, 2.5, 4.0]
    for value in values:
        average = energy_newton.add_to_average(average, jnp.asarray(value))
    rising = np.array([math.comb(k + 3, 3) for k in range(len(values))], float)
    assert float(average.value) == pytest.approx(np.average(values, weights=rising), rel=1e-5)


def clustered_gradients(rng, n_drifters, curvature, offset):
    """Gradients of samples that share their drifter's own error, unevenly many to a drifter."""
    sizes = rng.integers(1, 9, n_drifters)
    drifter = np.repeat(np.arange(n_drifters), sizes)
    own = rng.normal(0, 0.4, n_drifters)[drifter]
    return drifter, curvature * offset + own + rng.normal(0, 0.3, len(drifter))


def one(gradient, drifter, curvature):
    """The estimate of a single parameter, Newton's step taken."""
    gradient, curvature = gradient[:, None], np.array([[curvature]])
    step = -gradient.mean(axis=0) / curvature[0]
    loss = np.ones(len(gradient))
    return estimate(np.zeros(1), step, loss, gradient, drifter, curvature, bool(curvature > 0), {})


def test_standard_error_is_that_of_repeated_experiments():
    """The sandwich, clustered by drifter, against the scatter of the estimates themselves."""
    rng = np.random.default_rng(1)
    curvature, offset = 0.25, 0.1
    steps, errors, naive = [], [], []
    for _ in range(400):
        drifter, gradient = clustered_gradients(rng, 120, curvature, offset)
        found = one(gradient, drifter, curvature)
        steps.append(found.step[0])
        errors.append(found.standard_error[0])
        naive.append(gradient.std() / math.sqrt(len(gradient)) / curvature)
    assert np.mean(steps) == pytest.approx(-offset, abs=0.03)
    assert np.mean(errors) == pytest.approx(np.std(steps), rel=0.1)
    assert np.mean(naive) < 0.8 * np.std(steps)  # as if samples were independent: too sure
    inside = np.abs(np.array(steps) + offset) < 1.645 * np.array(errors)
    assert 0.85 < inside.mean() < 0.95


def test_one_drifter_has_no_standard_error():
    found = one(np.array([0.1, 0.2, 0.0]), np.zeros(3, int), 0.5)
    assert found.standard_error is None
    assert not found.settled
    assert "single drifter" in found.explain("log C_s")


def test_without_a_minimum_nothing_is_claimed():
    found = one(np.array([-0.2, -0.1, -0.15]), np.arange(3), -0.1)
    assert not found.settled
    assert found.standard_error is None
    assert "not convex" in found.explain("log C_s")
