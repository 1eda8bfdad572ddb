"""Profile of a calibrated parameter: other minima of the objective, and whether one value fits all samples.

The score against the parameter: some of the training samples at values from 0.01 to 10 for C_s, always with the same
noise, so that the curve is smooth. A minimum is where its gradient, beyond its error over clusters, turns from falling
to rising. Few samples suffice, for a constant far away differs by much; the cost is a tenth of the run's or less.

Whether one constant fits: score tests (`fit.group_tests`) of the gradients at the constant found, over regions,
bands of latitude and seasons.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftcal.shared.spacing import evenly
from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit import group_keys
from driftcal.train.fit.group_tests import score_test
from driftcal.train.fit.per_sample_parameters import Varied
from driftcal.train.fit.standard_errors import covariance_of_mean, quantile_90

N_VALUES = 13
"""Values of the curve: for C_s a factor of 1.78 apart."""

SHARE = 0.1
"""Share of the run's samples with gradient that the curve may take."""

FEWEST, MOST = 32, 2048
"""Samples of the curve."""

MOST_TESTED = 8192
"""Samples of the tests."""

KEYS = ("grid:10", "latitude:10", "season")


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


def examine(
    store: ShardStore, passes: Varied, samples: np.ndarray, cluster: np.ndarray, found: Calibrated
) -> dict[str, Any]:
    """`profile`, `minima` and `homogeneity` of a calibrated parameter, for JSON; `cluster` is of every sample."""
    curve = _profile(passes, cluster[samples], found)
    return {
        "profile": curve,
        "minima": minima(*(np.array(curve[key]) for key in ("value", "score", "gradient", "gradient_error"))),
        "homogeneity": _homogeneity(store, passes, samples, cluster, found.log),
    }


def _profile(passes: Varied, cluster: np.ndarray, calibrated: Calibrated) -> dict[str, Any]:
    """Mean score and gradient at every value, the gradient's error over clusters, and members that left."""
    fewest = np.clip(SHARE * calibrated.gradient_samples / N_VALUES, FEWEST, MOST)
    which = evenly(len(cluster), int(fewest))
    (least, most), value = calibrated.reach, float(np.exp(calibrated.log))
    ends = min(least, 0.3 * value), max(most, 3 * value)
    values = np.geomspace(*ends, N_VALUES)
    found = passes.at(np.tile(which, N_VALUES), np.repeat(np.log(values), len(which)))
    loss, gradient, escaped, good = (
        v.reshape(N_VALUES, -1) for v in (found.loss, found.gradient, found.escaped, found.good)
    )
    usable = good.all(axis=0)
    kept = cluster[which][usable]
    known = len(np.unique(kept)) > 1
    errors = [float(np.sqrt(covariance_of_mean(g[usable, None], kept)[0, 0])) if known else None for g in gradient]
    return {
        "parameter": calibrated.name,
        "n_samples": int(usable.sum()),
        "value": values.tolist(),
        "score": loss[:, usable].mean(axis=1).tolist(),
        "gradient": gradient[:, usable].mean(axis=1).tolist(),
        "gradient_error": errors,
        "escaped_share": (escaped[:, usable].mean(axis=1) / calibrated.members).tolist(),
    }


def minima(value: np.ndarray, score: np.ndarray, gradient: np.ndarray, error: np.ndarray) -> list[dict[str, float]]:
    """Finds minima: the gradient turns from falling to rising, both beyond chance.

    Args:
        value: of the parameter, ascending.
        score: mean objective at each.
        gradient: its derivative in the logarithm of the parameter.
        error: standard error of that; NaN or None where unknown, which is beyond chance.

    Returns:
        For each minimum the value, where the gradient is 0 between its neighbours, and the score there.
    """
    error = np.nan_to_num(np.array(error, np.float64))
    sign = np.where(np.abs(gradient) > quantile_90(np.inf) * error, np.sign(gradient), 0.0)
    sure, found = np.flatnonzero(sign), []
    for before, after in itertools.pairwise(sure):
        if not sign[before] < 0 < sign[after]:
            continue
        # between the two there may be values whose gradient is within chance: the first that rises ends the fall
        k = before + int(np.argmax(gradient[before + 1 : after + 1] >= 0))
        share = gradient[k] / (gradient[k] - gradient[k + 1])
        step = np.log(value[k + 1] / value[k])
        # Hermite's cubic between the two, from scores and gradients
        a, b, h = score[k], score[k + 1], share
        cubic = (1 + 2 * h) * (1 - h) ** 2 * a + h**2 * (3 - 2 * h) * b
        cubic += step * h * (1 - h) * ((1 - h) * gradient[k] - h * gradient[k + 1])
        found.append({"value": float(value[k] * np.exp(share * step)), "score": float(cubic)})
    return found


def _homogeneity(
    store: ShardStore, passes: Varied, samples: np.ndarray, cluster: np.ndarray, log_value: float
) -> dict[str, Any]:
    """Score tests at the value found; null where a key makes no two groups of enough clusters."""
    which = evenly(len(samples), MOST_TESTED)
    found = passes.at(which, np.full(len(which), log_value))
    kept = samples[which[found.good]]
    tests: dict[str, Any] = {}
    for key in KEYS:
        group = group_keys.of(store, kept, key).group
        test = score_test(found.gradient[found.good], found.dispersion[found.good], group, cluster[kept])
        tests[key] = None if test is None else {"n_groups": test.n_groups, "p_value": test.p_value}
    return tests
