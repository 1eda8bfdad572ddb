"""Tests that a mean is zero, clustered, and the adjustment of many of them for one another.

Where the model is right each of the numbers that a check looks at has mean zero. Numbers of samples in one cluster
depend on one another, so their sums over clusters are what is tested: Hotelling's T^2 with the F distribution, its
degrees of freedom those of Satterthwaite for clusters of unequal size (`fit.standard_errors`).

A mean that was taken at calibrated parameters has moved with them. To first order the influence of a sample on it is
then m - J H^-1 g: m its own number, g the sample's gradient, H the curvature, J the derivative of the mean (Newey and
McFadden 1994, sec. 6). For m a part of the gradient this is Rao's score test (Boos 1992).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from driftcal.train.fit.standard_errors import covariance_of_mean, degrees_of_freedom, quantile_90

LEVEL = 0.05
"""Chance of at least one rejection where the model is right."""

LEAST_CHANCE = 1e-300
"""Least p-value that is told."""

LEAST_DEGREES = 3.0
"""Degrees of freedom that a test needs to tell anything."""


class MeanTest(NamedTuple):
    """A test of means that are zero where the model is right.

    Attributes:
        statistic: F, 1 on average where they are.
        p_value: chance of so large an F.
        z: each mean in its standard errors.
    """

    statistic: float
    p_value: float
    z: Float[np.ndarray, " k"]


def mean_test(influence: Float[np.ndarray, "n k"], cluster: Int[np.ndarray, " n"]) -> MeanTest | None:
    """Tests that the means of `influence` are zero; None with too few clusters, or where all are zero."""
    k = influence.shape[1]
    scale = np.abs(influence).max(axis=0, initial=0.0)
    if not len(influence) or not (scale > 0).all():
        return None
    influence = influence / scale
    degrees = degrees_of_freedom(influence, cluster)
    if len(np.unique(cluster)) <= k + LEAST_DEGREES or degrees < LEAST_DEGREES:
        return None
    mean, covariance = influence.mean(axis=0), covariance_of_mean(influence, cluster)
    error = np.sqrt(np.diag(covariance))
    if not (error > 1e-12).all():
        return _sign_test(mean, error, len(np.unique(cluster)))
    if np.linalg.cond(covariance / np.outer(error, error)) > 1e10:
        return None
    square = float(mean @ np.linalg.solve(covariance, mean))
    statistic = square * degrees / ((degrees + k - 1.0) * k)
    return MeanTest(statistic, float(stats.f.sf(statistic, k, degrees)), mean / error)


def _sign_test(mean: Float[np.ndarray, " k"], error: Float[np.ndarray, " k"], n_clusters: int) -> MeanTest:
    """The test where a number is the same in all clusters, and not zero: all lie on one side, at even odds each."""
    p = max(2.0 ** (1 - n_clusters), LEAST_CHANCE)
    statistic = float(stats.f.isf(p, 1, n_clusters - 1))
    z = np.sign(mean) * np.sqrt(statistic)
    return MeanTest(statistic, p, np.divide(mean, error, out=z, where=error > 1e-12))


class Interval(NamedTuple):
    """A ratio of means with the ends of its 90 % interval, clustered."""

    value: float
    error: float
    low: float
    high: float


def ratio_interval(
    above: Float[np.ndarray, " n"], below: Float[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]
) -> Interval:
    """Ratio of the means of `above` and `below`, linearised."""
    total = below.mean()
    value = float(above.mean() / total)
    departure = ((above - value * below) / total)[:, None]
    error = float(np.sqrt(covariance_of_mean(departure, cluster)[0, 0]))
    half = error * quantile_90(degrees_of_freedom(departure, cluster))
    return Interval(value, error, value - half, value + half)


def holm(p_values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """p-values adjusted so that those below a level keep it together (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted
