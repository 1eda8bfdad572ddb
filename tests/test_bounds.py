"""Positive parameters whose truth lies at a bound: against closed forms, and how often their intervals cover."""

from collections.abc import Callable

import equinox as eqx
import numpy as np
import pytest
from scipy.special import stdtrit

from driftcal.train.fit import bounds
from driftcal.train.fit.bounds import BOUND_FACTOR, AtBound
from driftcal.train.fit.fixed_noise import FixedNoise, Pass
from driftcal.train.fit.parameters import Parameters, RanOff
from driftcal.train.fit.standard_errors import Estimate

Loss = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Values of the parameters -> loss of every sample, and its derivatives in the values."""


def objective(loss: Loss, start: tuple[float, ...], n: int, per_drifter: int = 1) -> FixedNoise:
    """The objective of `n` samples of positive parameters, with these starts."""
    names = ("cs", "background", "memory")[: len(start)]
    logs = np.log(np.array(start))
    parameters = Parameters(eqx.Module(), names, np.ones(len(start), bool), logs, "K")

    def pass_at(name: str, at: np.ndarray, numbers: np.ndarray) -> Pass:
        del name
        values = np.exp(at)
        each, slopes = loss(values)
        return Pass(at, numbers, each[numbers], (slopes * values)[numbers], np.ones(len(numbers)), {})

    return FixedNoise(parameters, pass_at, np.arange(n) // per_drifter, np.arange(n) // per_drifter, n)


def minimised(of: FixedNoise) -> Estimate | AtBound:
    numbers = np.arange(len(of.cluster))
    return bounds.minimise(of, lambda: of.approach(of.parameters.start, numbers), numbers, 12)


def quadratic(
    rng: np.random.Generator, n: int, truth: tuple[float, float], rho: float = 0.4
) -> tuple[Loss, np.ndarray]:
    """A loss whose minimum of every sample lies about `truth`, with parameters that are coupled; and those minima."""
    curvature = np.array([[1.0, rho], [rho, 0.5]])
    least = np.array(truth) + 0.5 * rng.standard_normal((n, 2))

    def loss(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        away = values - least
        return 0.5 * np.einsum("ni,ij,nj->n", away, curvature, away), away @ curvature

    return loss, least


def test_a_parameter_without_effect_ends_at_zero_with_a_one_sided_interval() -> None:
    rng, n = np.random.default_rng(0), 60
    loss, least = quadratic(rng, n, (1.0, 0.0))
    mean = least.mean(axis=0)
    least += np.array([1.0, -0.05]) - mean  # so that zero is the best of all, though not by much
    found = minimised(objective(loss, (0.5, 10.0), n))
    assert isinstance(found, AtBound)
    (bound,) = found.bounds
    assert bound.index == 1
    assert np.exp(bound.at) == pytest.approx(10.0 / BOUND_FACTOR)
    # of a quadratic the test's inversion is the estimate and its error, as if there were no bound
    error = least[:, 1].std(ddof=1) / np.sqrt(n)
    assert bound.far is not None
    assert np.exp(bound.far) == pytest.approx(-0.05 + stdtrit(n - 1, 0.95) * error, rel=0.1)
    # the other is where it is least at zero of this one
    assert np.exp(found.corrected[0]) == pytest.approx(1.0 - 0.05 * 0.4, rel=1e-2)
    assert not found.settled
    assert found.explain("").startswith("background is at its bound: zero fits as well as anything; of the others: yes")
    assert found.standard_error is not None
    assert found.standard_error[1] == 0.0


def test_the_interval_covers_small_values_as_often_as_it_says() -> None:
    rng, n, truth = np.random.default_rng(1), 40, 0.05
    ends = []
    for _ in range(150):
        found = minimised(objective(quadratic(rng, n, (1.0, truth))[0], (0.5, 1.0), n))
        if isinstance(found, AtBound):
            (bound,) = found.bounds
            ends.append(np.inf if bound.far is None else np.exp(bound.far))
        else:
            assert found.standard_error is not None
            ends.append(np.exp(found.corrected[1] + found.quantile * found.standard_error[1]))
    assert np.mean(np.isfinite(ends)) > 0.9
    assert np.mean(np.array(ends) >= truth) > 0.9


def test_a_parameter_with_an_effect_is_found_as_without_bounds() -> None:
    of = objective(quadratic(np.random.default_rng(2), 50, (1.0, 2.0))[0], (0.5, 10.0), 50)
    found = minimised(of)
    numbers = np.arange(50)
    plain = of.minimise("final pass", of.approach(of.parameters.start, numbers), numbers, 12)[-1]
    assert isinstance(found, Estimate)
    assert found.settled
    assert found.corrected.tobytes() == plain.corrected.tobytes()


def test_a_memory_longer_than_the_record_ends_above() -> None:
    rng, n = np.random.default_rng(3), 50
    least = np.array([1.0, 0.0]) + 0.2 * rng.standard_normal((n, 2))
    least[:, 1] -= least[:, 1].mean() + 0.02

    def loss(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        away = np.array([values[0], 1.0 / values[1]]) - least
        return 0.5 * (away**2).sum(axis=1), away * np.array([1.0, -1.0 / values[1] ** 2])

    found = minimised(objective(loss, (0.5, 2.0), n))
    assert isinstance(found, AtBound)
    (bound,) = found.bounds
    assert np.exp(bound.at) == pytest.approx(2.0 * BOUND_FACTOR)
    error = least[:, 1].std(ddof=1) / np.sqrt(n)
    assert bound.far is not None
    assert np.exp(-bound.far) == pytest.approx(-0.02 + stdtrit(n - 1, 0.95) * error, rel=0.1)


def test_one_constant_of_drifters_that_follow_the_currents_is_zero() -> None:
    # the energy score of an ensemble about a drifter that is in its middle is its spread, the root of the constant
    spread = np.random.default_rng(4).uniform(0.5, 1.5, 60)

    def loss(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return spread * np.sqrt(values[0]), (0.5 * spread / np.sqrt(values[0]))[:, None]

    found = minimised(objective(loss, (0.1,), 60, 3))
    assert isinstance(found, AtBound)
    assert found.others is None
    assert found.bounds[0].far == found.bounds[0].at  # every value above is excluded
    assert found.explain("") == "cs is at its bound: zero fits as well as anything"


def test_a_single_drifter_gives_a_bound_no_interval() -> None:
    loss, least = quadratic(np.random.default_rng(5), 8, (1.0, -1.0))
    found = minimised(objective(loss, (0.5, 1.0), 8, 8))
    assert least[:, 1].mean() < 0
    assert isinstance(found, AtBound)
    assert found.bounds[0].far is None
    assert found.standard_error is None


@pytest.mark.parametrize("way", [-1.0, 1.0])
def test_a_score_that_falls_on_beyond_every_bound_is_refused(way: float) -> None:
    each = 1.0 + 0.1 * np.random.default_rng(6).standard_normal(40)
    power = -0.1 * way
    falling = objective(lambda v: (each * v[0] ** power, power * each[:, None] * v[0] ** (power - 1)), (1.0,), 40)
    with pytest.raises(RanOff, match="the objective has no minimum near its start"):
        minimised(falling)
