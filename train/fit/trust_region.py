"""Newton steps of several parameters, inside a region in which the model of the objective is trusted.

The objective of fixed samples with fixed noise is a smooth function with an exact gradient g; its curvature H is the
difference of gradients. Minimised is g.s + s.H.s / 2 within |s| <= radius (Conn, Gould and Toint 2000, ch. 7), where
length is measured by the samples themselves: with G the mean of the outer products of their gradients and D the mean
dispersion, |s|^2 = s.G.s / D^2. A step of length 1 changes the loss of a sample by as much as the ensemble's spread
contributes to it. So nothing has to be scaled or tuned by hand: another unit for a parameter gives the same steps. A
positive parameter too small to matter yet has hardly a gradient, and any factor would be a short step; hence the square
of its logarithm's step over that of `LONG_FACTOR` is added. All in float64 on the host: the matrices are as small as
the parameters are few.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from driftcal.shared.errors import DataError

FIRST_RADIUS = 1.0
"""Length of the longest first step, in the metric above."""

LONG_FACTOR = 7.4
"""A step that changes a positive parameter by this factor has length 1 at least."""

DIFFERENCE = 0.05
"""Length of the steps across which the curvature is measured, to both sides."""

LEAST_SHARE = 1e-10
"""Share of the largest squared gradient below which a direction does not change the score."""


class Metric(NamedTuple):
    """Length of steps: `axes @ axes.T` is the inverse of the matrix, so that the columns are steps of length 1."""

    axes: Float[np.ndarray, "P P"]
    inverse: Float[np.ndarray, "P P"]

    def length(self, step: Float[np.ndarray, " P"]) -> float:
        """Length of a step in this metric."""
        return float(np.linalg.norm(self.inverse @ step))


def metric_of(
    gradient: Float[np.ndarray, "n P"],
    dispersion: Float[np.ndarray, " n"],
    names: tuple[str, ...],
    positive: Bool[np.ndarray, " P"],
) -> Metric:
    """The metric of samples with these gradients.

    Raises:
        DataError: a parameter, or a combination of them, does not move the score of any sample.
    """
    second = gradient.T @ gradient / len(gradient) / float(dispersion.mean()) ** 2
    scale = np.sqrt(np.diag(second))
    for name, one in zip(names, scale, strict=True):
        if not one > 0.0:
            raise DataError(
                f"the score does not depend on parameter {name!r}: every sample's derivative with respect to it is 0. "
                f"Use it in the term, or make it a constant."
            )
    values, vectors = np.linalg.eigh(second / np.outer(scale, scale))
    if values[0] < LEAST_SHARE * values[-1]:
        share = ", ".join(f"{v:+.2g} {name}" for name, v in zip(names, vectors[:, 0] / scale, strict=True))
        raise DataError(
            f"the parameters cannot be told apart: the score does not change along ({share}). Remove one, or make it a "
            f"constant."
        )
    second = second + np.diag(positive / np.log(LONG_FACTOR) ** 2)
    scale = np.sqrt(np.diag(second))
    values, vectors = np.linalg.eigh(second / np.outer(scale, scale))
    return Metric(vectors / np.sqrt(values) / scale[:, None], (vectors * np.sqrt(values)).T * scale)


def differences(metric: Metric) -> Float[np.ndarray, "P P"]:
    """Steps across which to measure the curvature, one a row."""
    return DIFFERENCE * metric.axes.T


def curvature_from(metric: Metric, slopes: Float[np.ndarray, "P P"]) -> Float[np.ndarray, "P P"]:
    """The curvature, from half the difference of the mean gradients at plus and minus each row of `differences`."""
    along = slopes @ metric.axes / DIFFERENCE
    return metric.inverse.T @ (0.5 * (along + along.T)) @ metric.inverse


def is_minimum(metric: Metric, curvature: Float[np.ndarray, "P P"]) -> bool:
    """Tells whether the curvature is positive in every direction."""
    return bool(np.linalg.eigvalsh(metric.axes.T @ curvature @ metric.axes)[0] > 0.0)


def step_within(
    gradient: Float[np.ndarray, " P"], curvature: Float[np.ndarray, "P P"], metric: Metric, radius: float
) -> Float[np.ndarray, " P"]:
    """The step that lowers the quadratic model most among those no longer than `radius`."""
    values, vectors = np.linalg.eigh(metric.axes.T @ curvature @ metric.axes)
    along = vectors.T @ (metric.axes.T @ gradient)

    def step(shift: float) -> np.ndarray:
        return -along / (values + shift)

    if values[0] > 0.0 and np.linalg.norm(step(0.0)) <= radius:
        return metric.axes @ vectors @ step(0.0)
    # On the boundary: |step(shift)| = radius for one shift above -least. It falls from infinity (no hard case occurs
    # with gradients of random samples, and the lower bound keeps off the pole) to 0; bisection cannot fail.
    low = max(0.0, -float(values[0])) + 1e-12 * float(np.abs(values).max())
    high = low + float(np.linalg.norm(along)) / radius
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.linalg.norm(step(middle)) > radius else (low, middle)
    return metric.axes @ vectors @ step(high)


def predicted_gain(
    gradient: Float[np.ndarray, " P"], curvature: Float[np.ndarray, "P P"], step: Float[np.ndarray, " P"]
) -> float:
    """Decrease of the quadratic model along `step`."""
    return -float(gradient @ step + 0.5 * step @ curvature @ step)


def next_radius(radius: float, length: float, ratio: float) -> float:
    """The radius after a step whose gain was `ratio` of the predicted one; NaN counts as a failure."""
    if not ratio >= 0.25:
        return 0.25 * length
    return max(radius, 2.0 * length) if ratio > 0.75 else radius
