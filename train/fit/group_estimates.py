"""A constant for every group of samples: differences of C_s in space and time, with their errors.

One fit for all groups. The constant of a sample is that of its group, so that a pass over the samples moves all groups
at once: from the constant of all, by Newton steps of log C_s, each group until its correction is small against its
standard error. Passes after the first two take only the samples of groups that still move. Samples and noise are those
of the run's final passes. Statistics of the outcome: `fit.group_tests`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from driftcal.shared.errors import DataError
from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit import group_keys
from driftcal.train.fit.group_keys import Grouping
from driftcal.train.fit.group_tests import LEAST_CLUSTERS, TEST_PRIOR, homogeneity, joint_covariance, shrink
from driftcal.train.fit.per_sample_parameters import Varied
from driftcal.train.fit.standard_errors import SETTLED, quantile_90

DIFFERENCE = 0.2
"""Distance in log C_s, below and above, at which the curvature is measured."""

MOVED = 0.3
"""Distance in log C_s beyond which a group's curvature is measured again."""

LONGEST = 1.0
"""Longest step of log C_s in one pass."""

FURTHEST = np.log(1e3)
"""Distance from the constant of all beyond which a group has no minimum."""

MOST_PASSES = 12
"""Passes of one fit at most; four to six are usual."""


class Fitted(NamedTuple):
    """The end of the groups' descents.

    Attributes:
        log_value: of every group, corrected.
        minimum: whether that is a minimum; else `log_value` is a first step from the constant of all.
        settled: whether the last correction was small against its error.
        influence: what every sample adds to its group's `log_value`.
        good: which samples are finite in all passes.
        seen: samples simulated with gradient.
    """

    log_value: Float[np.ndarray, " k"]
    minimum: np.ndarray
    settled: np.ndarray
    influence: Float[np.ndarray, " n"]
    good: np.ndarray
    seen: int


@dataclass
class _Search:
    """The groups' searches for the zero of their mean gradient, all of one length."""

    at: np.ndarray
    low: np.ndarray
    high: np.ndarray
    curvature: np.ndarray

    def next(self, which: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Corrections of the groups `which`, with mean gradients `slope`, inside the bracket of the zero."""
        here = self.at[which]
        self.low[which] = np.where(slope < 0, here, self.low[which])
        self.high[which] = np.where(slope > 0, here, self.high[which])
        step = np.clip(-slope / self.curvature[which], -LONGEST, LONGEST)
        low, high = self.low[which], self.high[which]
        inside = (here + step > low) & (here + step < high)
        bounded = np.isfinite(low) & np.isfinite(high)
        middle = np.where(bounded, 0.5 * (np.where(bounded, low, 0.0) + np.where(bounded, high, 0.0)), here + step)
        return np.where(inside, step, middle - here)


def fit(passes: Varied, group: Int[np.ndarray, " n"], cluster: Int[np.ndarray, " n"], k: int, start: float) -> Fitted:
    """All groups' constants, from the constant of all, `start` (log C_s).

    Raises:
        DataError: that is not near a minimum, so a group without one could not say to which side it leans.
    """
    everything, first = np.arange(len(group)), np.full(len(group), start)
    below, above = (passes.at(everything, first + d).gradient for d in (-DIFFERENCE, DIFFERENCE))
    good = np.isfinite(below) & np.isfinite(above)

    def mean(values: np.ndarray) -> np.ndarray:
        usable = good & np.isfinite(values)
        n = np.bincount(group[usable], minlength=k)
        return np.bincount(group[usable], values[usable], k) / np.maximum(n, 1)

    pooled = float((above - below)[good].mean()) / (2 * DIFFERENCE)
    if not pooled > 0:
        raise DataError(
            f"--group-by: the objective is not convex at the run's value, {np.exp(start):.3g} (second "
            f"derivative {pooled:.2g}), so the groups have none to differ from. Add --resume and leave out --group-by "
            f"for the report with the score against the parameter, then train from another start."
        )
    own = mean(above - below) / (2 * DIFFERENCE)
    at_start, slope = 0.5 * (below + above), mean(0.5 * (below + above))
    curvature = np.where(own > 0.2 * pooled, own, pooled)
    search = _Search(np.full(k, start), np.full(k, -np.inf), np.full(k, np.inf), curvature)
    search.at = start + search.next(np.arange(k), slope)
    search.low, search.high = np.full(k, -np.inf), np.full(k, np.inf)  # that slope was a mean over both sides

    last, measured_at = np.full(len(group), np.nan), np.full(k, start)
    step, settled, gone = np.zeros(k), np.zeros(k, bool), np.zeros(k, bool)
    curvature = own
    for _ in range(MOST_PASSES):
        moving = ~settled & ~gone
        if not moving.any():
            break
        which = np.flatnonzero(moving[group] & good)
        log_value = search.at[group]
        last[which] = passes.at(which, log_value[which]).gradient
        good &= np.isfinite(last) | ~moving[group]
        far = moving & (np.abs(search.at - measured_at) > MOVED)
        if far.any():
            which = np.flatnonzero(far[group] & good)
            sides = [np.full(len(group), np.nan) for _ in range(2)]
            for side, d in zip(sides, (-DIFFERENCE, DIFFERENCE), strict=True):
                side[which] = passes.at(which, log_value[which] + d).gradient
            curvature = np.where(far, mean(sides[1] - sides[0]) / (2 * DIFFERENCE), curvature)
            measured_at = np.where(far, search.at, measured_at)
            search.curvature = np.where(curvature > 0.2 * pooled, curvature, np.maximum(pooled, 1e-12))
        groups = np.flatnonzero(moving)
        step[groups] = search.next(groups, mean(last)[groups])
        error = _error(last, group, cluster, good, search.curvature, k)
        settled |= moving & (np.abs(step) <= np.maximum(SETTLED * error, 1e-3))
        gone |= np.abs(search.at + step - start) > FURTHEST
        search.at = np.where(moving & ~settled & ~gone, search.at + step, search.at)
    minimum = settled & (curvature > 0)
    # a group without a minimum still says by its gradient at the common constant to which side it leans
    curvature = np.where(minimum, curvature, pooled)
    slope = np.where(minimum[group], last, at_start)
    found = np.where(minimum, search.at + step, start - mean(at_start) / pooled)
    size = np.bincount(group[good], minlength=k)
    influence = np.where(good, -np.nan_to_num(slope) / (np.maximum(size, 1) * curvature)[group], 0.0)
    return Fitted(found, minimum, settled, influence, good, passes.seen)


def _error(
    slope: np.ndarray, group: np.ndarray, cluster: np.ndarray, good: np.ndarray, curvature: np.ndarray, k: int
) -> np.ndarray:
    """Standard error of every group's log C_s."""
    usable = good & np.isfinite(slope)
    size = np.maximum(np.bincount(group[usable], minlength=k), 1)
    influence = slope[usable] / (size * curvature)[group[usable]]
    return np.sqrt(np.diag(joint_covariance(influence, group[usable], cluster[usable], k).covariance))


def estimates(
    store: ShardStore,
    passes: Varied,
    samples: np.ndarray,
    cluster: np.ndarray,
    log_value: float,
    keys: Sequence[str],
) -> list[dict[str, Any]]:
    """Fits the groups of every key from the parameter of all, `log_value`; for JSON.

    Args:
        store: The store.
        passes: Passes over `samples`.
        samples: Their numbers in the store.
        cluster: Of every sample of the store.
        log_value: Parameter of all.
        keys: What makes groups.

    Raises:
        ConfigError: A key is none.
        DataError: The parameter of all is no minimum.
    """
    of_sample, drifter, described = cluster[samples], store.labels["drifter"][samples], []
    for groups in [group_keys.of(store, samples, key) for key in keys]:
        passes.seen = 0
        fitted = fit(passes, groups.group, of_sample, groups.size, log_value)
        described.append(_described(groups, fitted, of_sample, drifter))
    return described


def _described(groups: Grouping, fitted: Fitted, cluster: np.ndarray, drifter: np.ndarray) -> dict[str, Any]:
    """One key's outcome, for JSON."""
    good, k = fitted.good, groups.size
    held = np.bincount(groups.group[good], minlength=k) > 0
    # groups without a usable sample are not there
    number = np.cumsum(held) - 1
    names = [name for name, there in zip(groups.names, held, strict=True) if there]
    group = number[groups.group[good]]
    joint = joint_covariance(fitted.influence[good], group, cluster[good], len(names))
    estimate, minimum = fitted.log_value[held], fitted.minimum[held]
    error, shrunk = np.sqrt(np.diag(joint.covariance)), shrink(estimate, joint.covariance)
    half = error * np.array([quantile_90(d) for d in joint.degrees])
    test = homogeneity(estimate, joint_covariance(fitted.influence[good], group, cluster[good], len(names), TEST_PRIOR))
    size = np.bincount(group)
    n_drifters = np.bincount(np.unique(np.column_stack([group, drifter[good]]), axis=0)[:, 0])
    boxes = None if groups.boxes is None else groups.boxes[held]
    return {
        "key": groups.key,
        "n_samples": int(good.sum()),
        "left_out_samples": int((~good).sum()),
        "gradient_samples": fitted.seen,
        "test": None
        if test is None
        else {"statistic": test.statistic, "p_value": test.p_value, "n_groups": test.n_groups},
        "least_clusters": LEAST_CLUSTERS,
        "mean_value": float(np.exp(shrunk.mean)),
        "tau": shrunk.tau,
        "groups": [
            {
                "name": name,
                **({} if boxes is None else {"box": boxes[g].tolist()}),
                "n_samples": int(size[g]),
                "n_drifters": int(n_drifters[g]),
                "n_clusters": int(joint.n_clusters[g]),
                "minimum": bool(minimum[g]),
                "value": float(np.exp(estimate[g])) if minimum[g] else None,
                "log_value_standard_error": float(error[g]) if minimum[g] else None,
                "interval_90": np.exp(estimate[g] + half[g] * np.array([-1, 1])).tolist() if minimum[g] else None,
                "shrunk_value": float(np.exp(shrunk.median[g])),
                "shrunk_interval_90": [float(np.exp(shrunk.low[g])), float(np.exp(shrunk.high[g]))],
                "own_weight": float(shrunk.own_weight[g]),
            }
            for g, name in enumerate(names)
        ],
    }
