"""Tests of whether one constant fits all groups, and each group's constant, shrunk towards the mean if data are few.

Groups' estimates of log C_s come with a joint covariance, clustered (`reading.clusters`): a drifter that passes through
several groups makes their estimates depend on one another. Three things are made of them, all in log C_s:

* the homogeneity test: Cochran's Q, the weighted square of the departures from the weighted mean. Under one constant
  it is a weighted sum of chi-squares, here approximated by its first two moments (Satterthwaite; Rao and Scott 1984),
  with Welch's (1951) denominator for variances that are themselves estimated;
* the variance of a group with few clusters: `PRIOR_CLUSTERS` clusters as variable as those of all groups are added to
  its own (Smyth 2004), since two or three may agree by chance. For the test it is `TEST_PRIOR`: enough to keep its
  level with many groups of five clusters, and too few to lose it where groups are not equally variable;
* the shrunk constants: the groups' are taken to be normal about a mean with standard deviation tau (Rubin 1981), the
  mean unknown, tau with a half-normal prior of a factor e. Everything is averaged over what is known of tau, so that an
  interval covers that it is not known; with ever fewer data a group's constant becomes the mean's.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse, stats
from scipy.special import ndtr

from driftcal.train.fit.standard_errors import LEAST_REST

PRIOR_CLUSTERS = 4
TEST_PRIOR = 1
LEAST_CLUSTERS = 5
"""Groups with fewer clusters do not take part in the test."""

TAU_SCALE = 1.0
TAUS = np.concatenate([[0.0], np.geomspace(1e-3, 4.0, 200)])


class Joint(NamedTuple):
    """Variances of the groups' estimates.

    Attributes:
        covariance: of the estimates, `(k, k)`.
        degrees: of freedom of each variance.
        n_clusters: in each group.
        prior: clusters as variable as those of all groups that were added to those of each.
    """

    covariance: Float[np.ndarray, "k k"]
    degrees: Float[np.ndarray, " k"]
    n_clusters: Int[np.ndarray, " k"]
    prior: int


def joint_covariance(
    influence: Float[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
    k: int,
    prior: int = PRIOR_CLUSTERS,
) -> Joint:
    """The covariance of the estimates of `k` groups, clustered.

    Args:
        influence: what every sample adds to its group's estimate, so that they sum to its error.
        group: of every sample.
        cluster: of every sample.
        k: number of groups.
        prior: clusters as variable as those of all groups, added to those of each.
    """
    _, which = np.unique(cluster, return_inverse=True)
    size = np.maximum(np.bincount(group, minlength=k), 1)  # a group may have no usable sample
    apart = influence - (np.bincount(group, influence, k) / size)[group]
    shape = which.max() + 1, k
    counts = sparse.coo_array((np.ones(len(group)), (which, group)), shape).tocsr()
    sums = sparse.coo_array((apart, (which, group)), shape).tocsr()
    counts.sort_indices()
    sums.sort_indices()
    # a cluster's own samples have drawn its group's mean towards them (CR2, as in driftcal.train.fit.standard_errors)
    rest = np.maximum(1.0 - counts.data / size[counts.indices], LEAST_REST)
    enlarged = sparse.csr_array((sums.data / np.sqrt(rest), sums.indices, sums.indptr), shape)
    raw = (enlarged.T @ enlarged).toarray()
    n_clusters = np.bincount(counts.indices, minlength=k)
    own = np.maximum(n_clusters - 1, 0)
    # pooled in units of a sample: each adds about as much to what is known of log C_s, wherever it is
    known = own > 0
    scaled = np.where(known, size * np.diag(raw), 0.0)
    pooled = float((own * scaled).sum() / max(own.sum(), 1))
    variance = (prior * pooled / size + own * np.diag(raw)) / (prior + own)
    spread = np.sqrt(np.where(np.diag(raw) > 0, np.diag(raw), 1.0))
    correlation = raw / np.outer(spread, spread)
    # fewer clusters than groups cannot tell so many correlations: they fade as the groups outnumber the clusters
    correlation *= max(1.0 - k / shape[0], 0.0)
    np.fill_diagonal(correlation, 1.0)
    return Joint(correlation * np.sqrt(np.outer(variance, variance)), own + float(prior), n_clusters, prior)


class Test(NamedTuple):
    """The test of whether one constant fits all groups.

    Attributes:
        statistic: Q over what it is on average under one constant.
        p_value: chance of so large a Q under one constant.
        n_groups: groups that took part.
    """

    statistic: float
    p_value: float
    n_groups: int


def homogeneity(estimate: Float[np.ndarray, " k"], joint: Joint) -> Test | None:
    """Tests that all groups have one value; None with fewer than two groups of `LEAST_CLUSTERS` clusters.

    Args:
        estimate: of every group.
        joint: its covariance, with `TEST_PRIOR`.
    """
    taken = joint.n_clusters >= LEAST_CLUSTERS
    k = int(taken.sum())
    if k < 2:
        return None
    values, covariance = estimate[taken], joint.covariance[np.ix_(taken, taken)]
    weight = 1.0 / np.diag(covariance)
    share = weight / weight.sum()
    form = np.diag(weight) - np.outer(weight, share)
    product = form @ covariance
    expected, square = float(np.trace(product)), float((product * product.T).sum())
    doubt = float(((1.0 - share) ** 2 / _degrees(joint)[taken]).sum())
    statistic = float(values @ form @ values) / expected / (1.0 + 2.0 * (k - 2) / (k**2 - 1) * doubt)
    p = stats.f.sf(statistic, expected**2 / square, (k**2 - 1) / (3.0 * doubt))
    return Test(statistic, float(p), k)


def _degrees(joint: Joint) -> Float[np.ndarray, " k"]:
    """Satterthwaite's degrees of freedom of each variance: those of a chi-square that varies as much.

    With n other clusters in the group, N in all groups, and p added to each, the variance is (p P + n S) / (p + n) of
    S, that of the group, and P, that of all, to which the group itself contributes n / N. Where all are equally
    variable that varies by 2 (n + (p² + 2 p n) / N) / (n + p)² in units of its square.
    """
    own, prior = np.maximum(joint.n_clusters - 1.0, 0.0), joint.prior
    return (own + prior) ** 2 / (own + (prior**2 + 2.0 * prior * own) / own.sum())


def score_test(
    gradient: Float[np.ndarray, " n"],
    dispersion: Float[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
) -> Test | None:
    """Tests that one constant fits all groups, from the gradients at the constant that fits best (Rao's score test).

    Costs no simulation. At the one constant the gradients sum to zero over all samples; where groups have constants of
    their own they do not within each. A group's mean gradient over its curvature, for which its mean dispersion stands,
    is a first step towards its own constant, and these steps are tested as constants are. Their variances are those of
    clusters about the mean of their own group: about the mean of all, a group that departs would by its very departure
    seem so variable that five clusters could never be told from the rest.

    Returns:
        None with fewer than two groups of `LEAST_CLUSTERS` clusters.
    """
    k = int(group.max()) + 1
    weight = np.bincount(group, dispersion, k)
    step = np.bincount(group, gradient, k) / weight
    influence = (gradient - step[group] * dispersion) / weight[group]
    return homogeneity(step, joint_covariance(influence, group, cluster, k, TEST_PRIOR))


class Shrunk(NamedTuple):
    """The groups' values, each informed by all.

    Attributes:
        median: of every group.
        low: 5th percentile.
        high: 95th percentile.
        mean: of the distribution that the groups are taken from.
        tau: standard deviation of that distribution, posterior median.
        own_weight: how much of a group's value is its own, the rest the mean's.
    """

    median: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]
    mean: float
    tau: float
    own_weight: Float[np.ndarray, " k"]


def shrink(estimate: Float[np.ndarray, " k"], covariance: Float[np.ndarray, "k k"]) -> Shrunk:
    """Posterior of every group's value under the hierarchical model of the module."""
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 1e-12 * values[-1])
    along, ones = vectors.T @ estimate, vectors.sum(axis=0)
    inverse = 1.0 / (values + TAUS[:, None] ** 2)  # (tau, k), in the eigenvectors' axes
    precision = (inverse * ones**2).sum(axis=1)
    mean = (inverse * ones * along).sum(axis=1) / precision
    apart = along - mean[:, None] * ones
    log_density = -0.5 * (
        np.log(values + TAUS[:, None] ** 2).sum(axis=1) + np.log(precision) + (inverse * apart**2).sum(axis=1)
    )
    log_density -= 0.5 * (TAUS / TAU_SCALE) ** 2
    density = np.exp(log_density - log_density.max()) * np.gradient(TAUS)
    weight = density / density.sum()
    square = TAUS[:, None] ** 2
    centre = mean[:, None] + square * ((inverse * apart) @ vectors.T)
    own = square * (inverse @ (vectors**2).T)
    variance = square * (1.0 - own) + (1.0 - square * ((inverse * ones) @ vectors.T)) ** 2 / precision[:, None]
    low, median, high = (_quantile(p, centre, np.sqrt(np.maximum(variance, 0.0)), weight) for p in (0.05, 0.5, 0.95))
    tau = float(np.interp(0.5, np.cumsum(weight), TAUS))
    return Shrunk(median, low, high, float(weight @ mean), tau, weight @ own)


def _quantile(
    p: float, centre: Float[np.ndarray, "tau k"], spread: Float[np.ndarray, "tau k"], weight: Float[np.ndarray, " tau"]
) -> Float[np.ndarray, " k"]:
    """Quantile of a mixture of normal distributions, by bisection."""
    used: Bool[np.ndarray, " tau"] = weight > 1e-9
    centre, spread, weight = centre[used], np.maximum(spread[used], 1e-12), weight[used] / weight[used].sum()
    low, high = (centre - 6.0 * spread).min(axis=0), (centre + 6.0 * spread).max(axis=0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = weight @ ndtr((middle - centre) / spread) < p
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 0.5 * (low + high)
