"""Profile of a calibrated parameter: the objective at other values, and its other minima.

The score against the parameter: some of the training samples at values from 0.01 to 10 for C_s, always with the same
noise, so that the curve is smooth. The cost is a tenth of the run's or less, so the samples are few, and on their own
their curve would be least elsewhere than the run's result. But at the result all samples are known: score and gradient
of the few are corrected by what they miss there, as far as the two go together (regression estimator of a double
sample; Cochran 1977, ch. 12). So the curve goes through the result, where its error is the result's own, and it is
known the better the nearer to it. Another minimum is where the gradient, beyond its error over clusters, turns from
falling to rising.

"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftcal.shared.spacing import evenly
from driftcal.train.fit.per_sample_parameters import Found, Varied
from driftcal.train.fit.standard_errors import covariance_of_mean, quantile_90

N_VALUES = 13
"""Values of the curve: for C_s a factor of 1.78 apart."""

SHARE = 0.1
"""Share of the run's samples with gradient that the curve may take."""

FEWEST, MOST = 32, 2048
"""Samples of the curve."""

MOST_KNOWN = 8192
"""Samples that are known at the result."""


@dataclass(frozen=True)
class Calibrated:
    """One positive parameter as a run has calibrated it.

    Attributes:
        name: Its name.
        log: Its logarithm, as trained.
        members: Members of an ensemble.
        gradient_samples: Samples that the run has simulated with gradient.
        reach: Least and greatest value at which the score is looked at, at least.
    """

    name: str
    log: float
    members: int
    gradient_samples: int
    reach: tuple[float, float]


def examine(passes: Varied, samples: np.ndarray, cluster: np.ndarray, found: Calibrated) -> dict[str, Any]:
    """`profile` and `minima` of a calibrated parameter, for JSON; `cluster` is of every sample of the store."""
    which = evenly(len(samples), MOST_KNOWN)
    here = passes.at(which, np.full(len(which), found.log))
    curve = _profile(passes, cluster[samples], found, which[here.good], Found(*(v[here.good] for v in here)))
    value, score, gradient, error = (
        np.array(curve[key], np.float64) for key in ("value", "score", "gradient", "gradient_error")
    )
    return {
        "profile": curve,
        "minima": minima(value, score, gradient, error, float(np.exp(found.log)), curve["n_clusters"]),
    }


def _profile(
    passes: Varied, cluster: np.ndarray, calibrated: Calibrated, which: np.ndarray, here: Found
) -> dict[str, Any]:
    """Mean score and gradient at every value, the gradient's error over clusters, and members that left.

    Args:
        passes: over the training samples.
        cluster: of every one of them.
        calibrated: the parameter.
        which: places of the samples that are known at the result.
        here: what they give there.
    """
    fewest = int(np.clip(SHARE * calibrated.gradient_samples / N_VALUES, FEWEST, MOST))
    every = cluster[which]
    part = evenly_over(every, fewest)
    (least, most), value = calibrated.reach, float(np.exp(calibrated.log))
    values = np.geomspace(min(least, 0.3 * value), max(most, 3 * value), N_VALUES)
    found = passes.at(np.tile(which[part], N_VALUES), np.repeat(np.log(values), len(part)))
    loss, gradient, escaped, good = (
        v.reshape(N_VALUES, -1) for v in (found.loss, found.gradient, found.escaped, found.good)
    )
    usable = good.all(axis=0)
    part, kept = part[usable], every[part][usable]
    known = len(np.unique(kept)) > 1
    at_all = _error(here.gradient, every) if known else 0.0
    rows = [(value, float(here.loss.mean()), float(here.gradient.mean()), at_all, float(here.escaped.mean()))]
    for k, there in enumerate(values):
        score = _corrected(loss[k, usable], here.loss, part)[0]
        slope, rest, share = _corrected(gradient[k, usable], here.gradient, part)
        error = float(np.hypot(_error(rest, kept), share * at_all)) if known else 0.0
        rows.append((float(there), score, slope, error, float(escaped[k, usable].mean())))
    value, score, slope, errors, left = (list(column) for column in zip(*sorted(rows), strict=True))
    return {
        "parameter": calibrated.name,
        "n_samples": int(usable.sum()),
        "n_clusters": len(np.unique(kept)),
        "value": value,
        "score": score,
        "gradient": slope,
        "gradient_error": errors if known else [None] * len(rows),
        "escaped_share": [one / calibrated.members for one in left],
    }


def evenly_over(cluster: np.ndarray, n: int) -> np.ndarray:
    """Places of `n` samples, or of all where they are fewer: of as many clusters as possible, and evenly over each.

    Args:
        cluster: that each sample belongs to.
        n: number wanted.
    """
    _, which, counts = np.unique(cluster, return_inverse=True, return_counts=True)
    places, begin = np.argsort(which, kind="stable"), np.cumsum(counts) - counts
    turn = np.empty(len(cluster), int)
    for first, count in zip(begin, counts, strict=True):
        # the middle first, then those between: the order of the bits' reversal
        spread = np.array([int(f"{k:032b}"[::-1], 2) for k in range(count)])
        turn[places[first : first + count][np.argsort(spread, kind="stable")]] = np.arange(count)
    order = np.argsort(turn, kind="stable")
    whole = order[turn[order] < turn[order[min(n, len(order)) - 1]]]
    last = order[turn[order] == turn[order[min(n, len(order)) - 1]]]
    return np.sort(np.concatenate([whole, last[evenly(len(last), min(n, len(order)) - len(whole))]]))


def _corrected(there: np.ndarray, here: np.ndarray, part: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Mean over all samples of what only some give: theirs, less what they miss of the mean of all at the result.

    Args:
        there: of some samples, at another value.
        here: of all samples, at the result.
        part: places of the some among all.

    Returns:
        The mean, what of `there` does not go with `here`, and the share of `here` that goes with it.
    """
    away = here[part] - here[part].mean()
    square = float(away @ away)
    share = float(away @ there) / square if square > 0 else 0.0
    return float(there.mean() + share * (here.mean() - here[part].mean())), there - share * here[part], share


def _error(values: np.ndarray, cluster: np.ndarray) -> float:
    """Standard error of the mean of `values` over clusters."""
    return float(np.sqrt(covariance_of_mean(values[:, None], cluster)[0, 0]))


def minima(
    value: np.ndarray, score: np.ndarray, gradient: np.ndarray, error: np.ndarray, result: float, n_clusters: int
) -> list[dict[str, Any]]:
    """Finds other minima than the result: the gradient turns from falling to rising, both beyond chance.

    Args:
        value: of the parameter, ascending.
        score: mean objective at each.
        gradient: its derivative in the logarithm of the parameter.
        error: standard error of that; NaN where unknown, which is beyond chance.
        result: value at which the run found its minimum.
        n_clusters: clusters of the curve.

    Returns:
        For each minimum the value, where the gradient is 0 between its neighbours, its 90 % interval, the score there,
        and how far that lies above the score at the result. The minimum in which the result lies is none of them.
    """
    known = np.isfinite(error).all()
    error, quantile = np.nan_to_num(error), quantile_90(max(n_clusters - 1.0, 1.0))
    sign = np.where(np.abs(gradient) > quantile_90(np.inf) * error, np.sign(gradient), 0.0)
    sure, found = np.flatnonzero(sign), []
    for before, after in itertools.pairwise(sure):
        if not sign[before] < 0 < sign[after] or value[before] <= result <= value[after]:
            continue
        # between the two there may be values whose gradient is within chance: the first that rises ends the fall
        k = before + int(np.argmax(gradient[before + 1 : after + 1] >= 0))
        share = gradient[k] / (gradient[k] - gradient[k + 1])
        step = np.log(value[k + 1] / value[k])
        # Hermite's cubic between the two, from scores and gradients
        a, b, h = score[k], score[k + 1], share
        cubic = (1 + 2 * h) * (1 - h) ** 2 * a + h**2 * (3 - 2 * h) * b
        cubic += step * h * (1 - h) * ((1 - h) * gradient[k] - h * gradient[k + 1])
        least = float(value[k] * np.exp(share * step))
        # the error of the gradient there over its slope, which is the curvature
        half = quantile * float(np.hypot((1 - h) * error[k], h * error[k + 1]) * step / (gradient[k + 1] - gradient[k]))
        above = float(cubic - np.interp(result, value, score))
        ends = [least * float(np.exp(-half)), least * float(np.exp(half))] if known else None
        found.append({"value": least, "interval_90": ends, "score": float(cubic), "score_above_result": above})
    return found
