"""Aggregation of an evaluation: sums over batches become means, ratios and ranks, with errors over clusters.

Clusters are those of `reading.clusters`.

Reliability of an ensemble, by three ranks of the drifter among its members, each uniform where the ensemble is right:

    east, north   marginal ranks (Hamill 2001): sloping where the ensemble is shifted, hollow where it is too narrow
    distance      rank of the drifter's mean distance to the members among that of every member to the others and to
                  the drifter: the pre-rank of the energy score (Allen, Ziegel and Ginsbourger 2024). High ranks: the
                  drifter lies further out than a member does, so the ensemble is too narrow.

Ranks are shares p = (rank + 1/2) / (S + 1). The spread of p, 12 mean (p - 1/2)^2 over that of uniform ranks, is
1; above 1 the histogram is hollow. The spread-skill ratio is that of root mean square spread and error (Fortin et al.
2014), 1 where the ensemble knows how wrong it is.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from driftcal.train.evaluation.evaluation import ABOVE, SCORES
from driftcal.train.fit.standard_errors import degrees_of_freedom, quantile_90

MEASURED = tuple(score.key for score in SCORES if score.key != ABOVE)
"""Scores that every sample has of its own."""

SPREAD, MOMENTS = ("calibrated", "initial constant"), ("error", "spread")
"""The systems with a meaningful spread, and the statistics of it by lead time."""

RANKS = ("distance", "east", "north")
MOST_BINS = 21
"""Bins of a histogram of ranks; with more members than that has room for they share bins in proportion."""


class Tally:
    """A few numbers per sample, and for statistics by lead time sums over the samples of every cluster.

    Only samples that are finite for all systems count, so that all of them face the same drifters.

    Attributes:
        good: whether each sample counts, one array a batch.
        scores: of each system and name, the good samples' scores, one array a batch.
        moments: of the ensembles of `SPREAD`, sums of squared error and spread [m2] and of p of the distance's rank,
            `(clusters, obs)`.
        ranks: of those and each kind of rank, how often each occurred, `(clusters, S + 1)`.
        counts: good samples of every cluster.
        escaped: members of good samples that left their window.
    """

    def __init__(self, n_clusters: int):
        self.good: list[np.ndarray] = []
        self.scores: dict[str, dict[str, list[np.ndarray]]] = {}
        self.moments: dict[str, dict[str, np.ndarray]] = {}
        self.ranks: dict[str, dict[str, np.ndarray]] = {}
        self.counts = np.zeros(n_clusters)
        self.escaped: dict[str, int] = {}

    def add(self, taken: Mapping[str, Mapping[str, np.ndarray]], cluster: Int[np.ndarray, " B"], members: int) -> None:
        """Adds a batch.

        Args:
            taken: of each system, arrays whose last axis are samples.
            cluster: of every sample, below the number of clusters.
            members: S of the ensembles of `SPREAD`.
        """
        good: Bool[np.ndarray, " B"] = np.all(
            [np.isfinite(v).reshape(-1, v.shape[-1]).all(axis=0) for f in taken.values() for v in f.values()], 0
        )
        self.good.append(good)
        cluster = cluster[good]
        np.add.at(self.counts, cluster, 1.0)
        for name, found in taken.items():
            held = self.scores.setdefault(name, {key: [] for key in MEASURED})
            for key in MEASURED:
                held[key].append(found[key][good])
            self.escaped[name] = self.escaped.get(name, 0) + int(found["escaped"][good].sum())
            if name in SPREAD:
                self._add_spread(name, {key: values[..., good] for key, values in found.items()}, cluster, members)

    def _add_spread(self, name: str, found: Mapping[str, np.ndarray], cluster: np.ndarray, members: int) -> None:
        shares = (found["rank_distance"] + 0.5) / (members + 1)
        for key, values in {**{f"{w}2": found[f"{w}2"] for w in MOMENTS}, "distance_rank": shares}.items():
            sums = self.moments.setdefault(name, {}).setdefault(key, np.zeros((len(self.counts), len(values))))
            np.add.at(sums, cluster, values.T)
        for kind in RANKS:
            held = self.ranks.setdefault(name, {}).setdefault(kind, np.zeros((len(self.counts), members + 1)))
            rank = found[f"rank_{kind}"].astype(np.int64)
            np.add.at(held, (np.broadcast_to(cluster, rank.shape), rank), 1.0)

    def reliability(self, name: str) -> dict[str, Any]:
        """Spread-skill ratio and ranks of the ensemble `name`, over all lead times and by lead time."""
        moments, ranks = self.moments[name], self.ranks[name]
        error, spread = moments["error2"], moments["spread2"]
        overall = _root(*ratio(spread.sum(axis=1, keepdims=True), error.sum(axis=1, keepdims=True)))
        lead = np.repeat(self.counts[:, None], error.shape[1], axis=1)
        return {
            "spread_skill_ratio": _one(*overall, self.counts),
            "ranks": {kind: _histogram(held, self.counts) for kind, held in ranks.items()},
            "by_lead": {
                "spread_skill_ratio": _many(*_root(*ratio(spread, error)), self.counts),
                "distance_rank": _many(*ratio(moments["distance_rank"], lead), self.counts),
            },
        }


def clustered(values: Float[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]) -> dict[str, Any]:
    """Mean of per-sample `values`, its standard error over clusters and 90 % interval; null with fewer than two."""
    _, which, counts = np.unique(cluster, return_inverse=True, return_counts=True)
    mean, error = ratio(np.bincount(which, values)[:, None], counts[:, None].astype(np.float64))
    if len(counts) < 2:
        return {"mean": float(mean[0]), "standard_error": None, "interval_90": None}
    half = float(error[0]) * quantile_90(degrees_of_freedom(values[:, None], cluster))
    ends = [float(mean[0]) - half, float(mean[0]) + half]
    return {"mean": float(mean[0]), "standard_error": float(error[0]), "interval_90": ends}


def ratio(above: Float[np.ndarray, "G k"], below: Float[np.ndarray, "G k"]) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of sums over G clusters, and their standard errors over clusters (linearised); NaN with fewer than two."""
    held = below.sum(axis=1) > 0
    above, below = above[held], below[held]
    n, total = len(below), below.sum(axis=0)
    found = above.sum(axis=0) / total
    departures = (above - found * below) / total
    return found, np.sqrt((departures**2).sum(axis=0) * n / (n - 1)) if n > 1 else np.full(len(found), np.nan)


def _root(square: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root of a ratio of squares, with its standard error."""
    root = np.sqrt(square)
    return root, error / (2.0 * np.maximum(root, 1e-300))


def _degrees(counts: np.ndarray) -> float:
    """Degrees of freedom: the effective number of clusters, less one."""
    return max(float(counts.sum()) ** 2 / float((counts**2).sum()) - 1.0, 1.0)


def _one(value: np.ndarray, error: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    many = _many(value, error, counts)
    if many["standard_error"] is None:
        return {"mean": many["mean"][0], "standard_error": None, "interval_90": None}
    low, high = many["interval_90"]
    return {"mean": many["mean"][0], "standard_error": many["standard_error"][0], "interval_90": [low[0], high[0]]}


def _many(value: np.ndarray, error: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """Values with standard errors, and the lower and upper ends of their 90 % intervals; null with one cluster."""
    if np.isnan(error).any():
        return {"mean": value.tolist(), "standard_error": None, "interval_90": None}
    half = error * quantile_90(_degrees(counts))
    ends = [(value - half).tolist(), (value + half).tolist()]
    return {"mean": value.tolist(), "standard_error": error.tolist(), "interval_90": ends}


def bins(n_ranks: int) -> Float[np.ndarray, "ranks bins"]:
    """Fraction of each rank that falls into each bin of a histogram over shares of [0, 1]."""
    n_bins = n_ranks if n_ranks <= MOST_BINS else MOST_BINS - 1
    edges, marks = np.arange(n_ranks + 1) / n_ranks, np.arange(n_bins + 1) / n_bins
    low = np.maximum(edges[:-1, None], marks[:-1])
    high = np.minimum(edges[1:, None], marks[1:])
    return np.maximum(high - low, 0.0) * n_ranks


def _histogram(held: Float[np.ndarray, "G ranks"], counts: np.ndarray) -> dict[str, Any]:
    """Frequencies of ranks, 1 where uniform, the mean of p and its spread."""
    n_ranks = held.shape[1]
    binned = held @ bins(n_ranks)
    every = np.repeat(held.sum(axis=1, keepdims=True), binned.shape[1], axis=1)
    share = (np.arange(n_ranks) + 0.5) / n_ranks
    square = (share - 0.5) ** 2
    moments = np.stack([held @ share, held @ square / square.mean()], axis=1)
    mean, error = ratio(moments, every[:, :1].repeat(2, axis=1))
    frequency, frequency_error = ratio(binned * binned.shape[1], every)
    told = _many(frequency, frequency_error, counts)
    return {
        "frequency": told["mean"],
        "frequency_error": told["standard_error"],
        "frequency_interval_90": told["interval_90"],
        "mean": _one(mean[:1], error[:1], counts),
        "spread": _one(mean[1:], error[1:], counts),
    }
