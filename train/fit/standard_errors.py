"""The zero of the gradient, and its standard error.

The estimate is the zero of the mean gradient g over the training samples, so its covariance is the sandwich
H^-1 G H^-1 (Huber 1967; White 1982): H the curvature, the matrix of second derivatives, G the covariance of the mean
gradient. Samples of one cluster, such as a drifter's, are not independent (`reading.clusters`), so G sums over clusters
the outer products of each one's summed gradients (Liang and Zeger 1986). The gradients come from random ensembles, and
the noise of those is in G as well.

An interval is a t interval (Cameron and Miller 2015, sec. VI): the variance of few clusters is itself uncertain. Its
degrees of freedom are those of Satterthwaite for clusters of unequal numbers of samples (Imbens and Kolesar 2016).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from driftcal.shared.text import counted

SETTLED = 0.25
"""A correction that is shorter than this in standard errors is small."""

SETTLED_ALONE = 0.01
"""The same in the parameters as trained, where too few clusters give no standard error."""

LEAST_REST = 1e-3
"""Share of the samples that other clusters are taken to have at least."""


@dataclass(frozen=True)
class Estimate:
    """The zero of the gradient near fixed parameters, as one pass estimates it; all as trained.

    Attributes:
        parameters: where the gradients were taken, `(P,)`.
        step: correction that reaches the zero.
        covariance: of the corrected parameters, clustered; None where there is no minimum, or no more clusters
            than parameters.
        curvature: matrix of second derivatives of the mean objective.
        minimum: whether that is positive in every direction.
        score: mean objective.
        n_samples: samples used.
        n_clusters: clusters used.
        n_drifters: drifters used.
        counts: numbers added up over the samples, by name.
        degrees: of freedom of the standard errors.
    """

    parameters: Float[np.ndarray, " P"]
    step: Float[np.ndarray, " P"]
    covariance: Float[np.ndarray, "P P"] | None
    curvature: Float[np.ndarray, "P P"]
    minimum: bool
    score: float
    n_samples: int
    n_clusters: int
    n_drifters: int
    counts: dict[str, int]
    degrees: float

    @property
    def corrected(self) -> Float[np.ndarray, " P"]:
        """The parameters after the correction."""
        return self.parameters + self.step

    @property
    def quantile(self) -> float:
        """Half width of a 90 % interval in standard errors."""
        return quantile_90(self.degrees)

    @property
    def standard_error(self) -> Float[np.ndarray, " P"] | None:
        """Standard error of every parameter, as trained."""
        return None if self.covariance is None else np.sqrt(np.diag(self.covariance))

    @property
    def distance(self) -> float:
        """Length of the correction in standard errors (Mahalanobis): no parameter moves by more of its own."""
        assert self.covariance is not None
        return float(np.sqrt(self.step @ np.linalg.solve(self.covariance, self.step)))

    @property
    def settled(self) -> bool:
        """Tells whether the parameters are at a minimum, with a correction small against their standard errors."""
        if not self.minimum:
            return False
        if self.covariance is None:
            return bool(np.abs(self.step).max() <= SETTLED_ALONE)
        return self.distance <= SETTLED

    def explain(self, what: str) -> str:
        """Sentence on whether the run converged, and by which criterion; `what` names what was corrected."""
        if not self.minimum:
            return f"no: the objective is not convex in {what} where the run ended, so this is not a minimum"
        error = self.standard_error
        if error is None:
            drifters = "a single drifter gives" if self.n_drifters == 1 else f"{self.n_drifters} drifters give"
            if self.n_clusters != self.n_drifters:
                drifters = f"{counted(self.n_drifters, 'drifter')} in {counted(self.n_clusters, 'cluster')} give"
            error_text = f"{drifters} it no standard error"
        elif len(error) == 1:
            error_text = f"its standard error is {error[0]:.2g}"
        else:
            error_text = f"{self.distance:.2g} of their standard errors together"
        step = ", ".join(f"{s:+.2g}" for s in self.step)
        return f"{'yes' if self.settled else 'no'}: the last correction of {what} was {step}, {error_text}"


def estimate(
    parameters: Float[np.ndarray, " P"],
    step: Float[np.ndarray, " P"],
    loss: Float[np.ndarray, " n"],
    gradient: Float[np.ndarray, "n P"],
    cluster: Int[np.ndarray, " n"],
    curvature: Float[np.ndarray, "P P"],
    minimum: bool,
    counts: dict[str, int],
    drifter: Int[np.ndarray, " n"] | None = None,
) -> Estimate:
    """Estimate, with its uncertainty, from per-sample losses and gradients at `parameters` and the correction of those.

    Args:
        parameters: as trained.
        step: correction of them.
        loss: of every sample.
        gradient: with respect to the parameters as trained.
        cluster: which cluster each sample belongs to (`reading.clusters`).
        curvature: mean second derivatives.
        minimum: whether that is positive in every direction.
        counts: numbers added up over the samples, by name.
        drifter: which drifter each sample belongs to; by default each drifter is its own cluster.
    """
    n_clusters = len(np.unique(cluster))
    n_drifters = n_clusters if drifter is None else len(np.unique(drifter))
    covariance = None
    if minimum and n_clusters > gradient.shape[1]:
        inverse = np.linalg.inv(curvature)
        covariance = inverse @ covariance_of_mean(gradient, cluster) @ inverse.T
    score = float(loss.mean())
    degrees, n = degrees_of_freedom(gradient, cluster), len(loss)
    return Estimate(parameters, step, covariance, curvature, minimum, score, n, n_clusters, n_drifters, counts, degrees)


def degrees_of_freedom(gradient: Float[np.ndarray, "n P"], cluster: Int[np.ndarray, " n"]) -> float:
    """Degrees of freedom (>= 1) of a variance clustered (Imbens and Kolesar 2016); the fewest of several.

    A cluster with n samples has a sum of variance v = n + r n (n - 1), r their correlation with one another, estimated
    from all and taken to be no less than 0. Satterthwaite's degrees of freedom are then (sum of v)^2 / sum of v^2, less
    those of the parameters: clusters less parameters where all have as many samples.
    """
    _, which, counts = np.unique(cluster, return_inverse=True, return_counts=True)
    apart = gradient - gradient.mean(axis=0)
    sums = np.zeros((len(counts), gradient.shape[1]))
    np.add.at(sums, which, apart)
    pairs, square = float((counts * (counts - 1.0)).sum()), (apart**2).sum(axis=0)
    shared = ((sums**2).sum(axis=0) - square) / max(pairs, 1.0) * len(gradient) / np.where(square > 0, square, 1.0)
    variance = counts[:, None] * (1.0 + np.clip(shared, 0.0, 1.0) * (counts[:, None] - 1.0))
    alike = variance.sum(axis=0) ** 2 / (variance**2).sum(axis=0)
    return max(float(alike.min()) - gradient.shape[1], 1.0)


def quantile_90(degrees: float) -> float:
    """Half width in standard errors of a 90 % t interval."""
    return float(stdtrit(degrees, 0.95))


def covariance_of_mean(gradient: Float[np.ndarray, "n P"], cluster: Int[np.ndarray, " n"]) -> np.ndarray:
    """Covariance `(P, P)` of the mean gradient, clustered."""
    shares = _shares(gradient, cluster)
    return shares.T @ shares


def _shares(gradient: Float[np.ndarray, "n P"], cluster: Int[np.ndarray, " n"]) -> Float[np.ndarray, "clusters P"]:
    """Each cluster's contribution to the covariance of the mean gradient, which is the sum of their outer products.

    Departures are from a mean that the cluster itself has drawn near, by its share of the samples; they are enlarged by
    as much (CR2: Bell and McCaffrey 2002). With equal shares that is the factor n / (n - 1) of n clusters.
    """
    _, which, counts = np.unique(cluster, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), gradient.shape[1]))
    np.add.at(sums, which, gradient - gradient.mean(axis=0))
    share = counts / len(gradient)
    return sums / len(gradient) / np.sqrt(np.maximum(1.0 - share, LEAST_REST))[:, None]


@dataclass(frozen=True)
class Judged:
    """The stationarity check of a last pass with too many parameters for a covariance: no correction and no error.

    Attributes:
        parameters: where the gradients were taken, `(P,)`.
        ratio: squared length of the mean gradient over that which other clusters alone would give it.
        score: mean objective.
        n_samples: samples used.
        n_clusters: clusters used.
        n_drifters: drifters used.
        counts: numbers added up over the samples, by name.
    """

    parameters: Float[np.ndarray, " P"]
    ratio: float
    score: float
    n_samples: int
    n_clusters: int
    n_drifters: int
    counts: dict[str, int]
    standard_error: None = None

    @property
    def corrected(self) -> Float[np.ndarray, " P"]:
        """The parameters: there is no correction."""
        return self.parameters

    @property
    def settled(self) -> bool:
        """Tells whether the mean gradient is no longer than chance makes it."""
        return self.ratio <= 1.0

    def explain(self, _: str) -> str:
        """Sentence on whether the run converged, and by which criterion."""
        drifters = f"what {self.n_drifters} other drifters would give it by chance"
        if self.n_clusters != self.n_drifters:
            drifters += f", in {counted(self.n_clusters, 'cluster')}"
        return (
            f"{'yes' if self.settled else 'no'}: the squared mean gradient is {self.ratio:.2g} times {drifters}; "
            f"{len(self.parameters)} parameters are too many for a curvature, so they have no standard errors"
        )


def judge(
    parameters: Float[np.ndarray, " P"],
    loss: Float[np.ndarray, " n"],
    gradient: Float[np.ndarray, "n P"],
    cluster: Int[np.ndarray, " n"],
    counts: dict[str, int],
    drifter: Int[np.ndarray, " n"] | None = None,
) -> Judged:
    """Checks a pass at many fixed parameters for stationarity; arguments as those of `estimate`."""
    n_clusters, ratio = len(np.unique(cluster)), float("inf")
    n_drifters = n_clusters if drifter is None else len(np.unique(drifter))
    if n_clusters > 1:
        mean = gradient.mean(axis=0)
        ratio = float(mean @ mean) / float((_shares(gradient, cluster) ** 2).sum())
    return Judged(parameters, ratio, float(loss.mean()), len(loss), n_clusters, n_drifters, counts)
