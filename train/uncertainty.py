"""The zero of the gradient, and its standard error.

The estimate is the zero of the mean gradient g over the training samples, so its variance is the sandwich
H^-1 G H^-1 (Huber 1967; White 1982): H the curvature dg / dlog C_s, G the variance of the mean gradient. Samples of one
drifter are not independent, so G sums over drifters the squares of each drifter's summed gradients (Liang and Zeger
1986). The gradients come from random ensembles, and the noise of those is in G as well.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from train.optimiser import global_step

SETTLED = 0.25
"""A correction of log C_s below this share of its standard error is small."""

SETTLED_ALONE = 0.01
"""The same where a single drifter gives no standard error."""

LONGEST_CORRECTION = 1.0
"""No correction changes log C_s by more."""


@dataclass(frozen=True)
class Estimate:
    """What one pass at a fixed constant found about the gradient's zero near it.

    Attributes:
        log_cs: where the gradients were taken.
        step: correction of log C_s that reaches the zero.
        standard_error: of log C_s, clustered by drifter; infinite with fewer than two drifters or no minimum.
        curvature: d gradient / d log C_s.
        score: mean objective.
        n_samples: samples used.
        n_drifters: drifters used.
        escaped: members that left their window at `log_cs`.
        ashore: members that ended in a cell without current.
    """

    log_cs: float
    step: float
    standard_error: float
    curvature: float
    score: float
    n_samples: int
    n_drifters: int
    escaped: int
    ashore: int

    @property
    def corrected(self) -> float:
        """The logarithm of C_s after the correction."""
        return self.log_cs + self.step

    @property
    def settled(self) -> bool:
        """Whether the correction is small against what is known about the constant, at a minimum."""
        known = SETTLED * self.standard_error if np.isfinite(self.standard_error) else SETTLED_ALONE
        return bool(self.curvature > 0 and abs(self.step) <= known)

    def explain(self) -> str:
        """Whether the run converged, and how that was judged, in a sentence."""
        if not self.curvature > 0:
            return "no: the objective is not convex in log C_s where the run ended, so this is not a minimum"
        error = (
            f"its standard error is {self.standard_error:.2g}"
            if np.isfinite(self.standard_error)
            else "a single drifter gives it no standard error"
        )
        return f"{'yes' if self.settled else 'no'}: the last correction of log C_s was {self.step:+.2g}, {error}"


def estimate(
    log_cs: float,
    loss: np.ndarray,
    gradient: np.ndarray,
    dispersion: np.ndarray,
    drifter: np.ndarray,
    curvature: float,
    escaped: int,
    ashore: int,
) -> Estimate:
    """From per-sample losses and gradients at `log_cs` to a correction and its error.

    Args:
        log_cs: where they were taken.
        loss: `(n,)`.
        gradient: `(n,)` derivative with respect to log C_s.
        dispersion: `(n,)` size of the objective's second term.
        drifter: `(n,)` which drifter each sample belongs to.
        curvature: mean second derivative. Where it is positive the correction is Newton's; else, far from the
            minimum, the optimiser's global step.
        escaped: members that left their window.
        ashore: members that ended in a cell without current.
    """
    clusters, which = np.unique(drifter, return_inverse=True)
    n, n_clusters = len(gradient), len(clusters)
    mean = float(gradient.mean())
    error = float("inf")
    if n_clusters > 1 and curvature > 0:
        sums = np.bincount(which, weights=gradient - mean, minlength=n_clusters)
        # with the usual correction for few clusters
        variance = float((sums**2).sum()) / n**2 * n_clusters / (n_clusters - 1)
        error = float(np.sqrt(variance)) / curvature
    far = float(global_step(jnp.asarray(mean), jnp.asarray(float(dispersion.mean()))))
    step = -mean / curvature if curvature > 0 else far
    step = float(np.clip(step, -LONGEST_CORRECTION, LONGEST_CORRECTION))
    return Estimate(log_cs, step, error, curvature, float(loss.mean()), n, n_clusters, escaped, ashore)
