"""Scoring rules for an ensemble of tracks against the observed one.

The kernel score (energy score, Gneiting and Raftery 2007, eq. 21; the ensemble form of the CRPS) with the separation
distance d [m] as kernel and the fair estimator (Ferro 2014), at every fix t:

    ES_t = (1/S) sum_s d(X_s, y) - 1/(2 S (S-1)) sum_{s != s'} d(X_s, X_s')

Objectives, averaged over samples:

    energy        mean over t of ES_t / w_t, w_t the mean separation of two members of an ensemble simulated at the
                  fixed constant `score.reference_cs`. The weight depends neither on the observation nor on the trained
                  parameter, so propriety holds, and calm and energetic samples count alike.
    energy-plain  mean over t of ES_t [m].
    liu           mean over t of the score with Liu and Weisberg's (2011) index as distance, normalised by the observed
                  path: the cumulative sum of ES over that of the path's length. Finds a constant 2 to 7 % too small.
    reference     sum over t of the square of the score with the Liu index in which each pair of members is normalised
                  by the first one's own path: the objective of the 2025 notebooks. Not proper; finds 0.4 to 0.55 of the
                  truth, or collapses. Kept for comparison.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from driftcal.train.learners.drift.sphere import Origin, Point, separation
from driftcal.train.learners.drift.xla_barriers import walled
from driftcal.train.settings import Objective

LEAST_SPREAD = 1.0
"""Least mean separation of the reference ensemble's members [m]: below it there is no diffusivity, hence nothing to
learn about C_s and no scale to divide by. Such fixes (and so whole samples in calm without any strain) count 0."""

LEAST_PATH = 1.0
"""Length [m] that a cumulated observed path must have for an index normalised by it to count."""


class Distances(NamedTuple):
    """Distances of an ensemble [m] at one fix, or at all of them in a leading axis.

    Attributes:
        observed: mean over members of the distance to the observed position.
        between: half the mean distance between two different members, the second term of ES.
        per_member: mean distance from each member to the others; None unless asked for.
        steps: distance of each member from where it was at the fix before; None unless asked for.
    """

    observed: Float[Array, "*obs B"]
    between: Float[Array, "*obs B"]
    per_member: Float[Array, "*obs S B"] | None
    steps: Float[Array, "*obs S B"] | None


def distances(members: Point, observed: Point, before: Point | None = None) -> Distances:
    """Distances at one fix. Each pair of members is taken once, over cyclic shifts: nothing is S x S.

    Args:
        members: where every member is, `(S, B)`.
        observed: where the drifter is, `(B,)`.
        before: the members at the fix before; given, `per_member` and `steps` are computed too.
    """
    n = members.east.shape[0]
    to_observed = _mean(separation(members, observed))
    twice = walled(lambda *each: [jnp.concatenate([f, f]) for f in each], *members)

    def shifted(k: Array | int) -> Array:
        return separation(members, Point(*(jax.lax.dynamic_slice_in_dim(f, k, n) for f in twice)))

    nothing = jnp.zeros_like(members.east)
    if before is not None:
        each = jax.lax.fori_loop(1, n, lambda k, total: total + shifted(k), nothing) / (n - 1)
        return Distances(to_observed, 0.5 * _mean(each), each, separation(members, before))
    # summed over members once, at the end: under jvp a reduction inside the loop is the dearest part of it
    shifts = (n - 1) // 2
    pairs = jax.lax.fori_loop(1, 1 + shifts, lambda k, total: total + shifted(k), nothing, unroll=min(4, shifts) or 1)
    if n % 2 == 0:
        pairs = pairs + 0.5 * shifted(n // 2)
    return Distances(to_observed, _mean(pairs) / (n - 1), None, None)


def _mean(f: Float[Array, "S B"]) -> Float[Array, " B"]:
    """Mean over members, as a product with ones: XLA:CPU reduces a leading axis ten times slower."""
    ones = jnp.full((1, f.shape[0]), 1.0 / f.shape[0], f.dtype)
    return jax.lax.dot(ones, f, precision=jax.lax.Precision.HIGHEST)[0]


def path_steps(
    track: Float[Array, "B obs 2"], latitude: Float[Array, " B"], steps_deg: tuple[float, float]
) -> Float[Array, "obs-1 B"]:
    """Length of every step of the observed tracks [m]; `track` in cells, rows counted from `latitude` [degrees]."""
    at = jnp.radians(track * jnp.array(steps_deg, track.dtype)).transpose(1, 2, 0)
    points = Origin.at(latitude).point(at[:, 0], at[:, 1])
    return separation(Point(*(f[1:] for f in points)), Point(*(f[:-1] for f in points)))


def relative_weight(spread: Float[Array, "obs B"]) -> Float[Array, "obs B"]:
    """Weight [1/m] of the `energy` objective where members of the reference ensemble are `spread` [m] apart."""
    return jnp.where(spread > LEAST_SPREAD, 1.0 / jnp.maximum(spread, LEAST_SPREAD), 0.0)


def objective(
    name: Objective,
    found: Distances,
    path: Float[Array, "obs B"],
    spread: Float[Array, "obs B"] | None,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Every sample's objective, and the part of it that the ensemble's own spread contributes.

    Args:
        name: which objective (see the module).
        found: distances at every fix.
        path: length of the observed path's steps [m].
        spread: for `energy`, the mean separation of two members at the reference constant [m].

    Returns:
        The objective, and the positive size of its second term, by which the optimiser judges the scale of a gradient.
    """
    if name == "energy":
        assert spread is not None
        weight = relative_weight(spread)
        return ((found.observed - found.between) * weight).mean(axis=0), (found.between * weight).mean(axis=0)
    if name == "energy-plain":
        return (found.observed - found.between).mean(axis=0), found.between.mean(axis=0)
    # The index divides the cumulated separation by the cumulated length of the path so far (Liu and Weisberg 2011).
    lengths = jnp.cumsum(jnp.cumsum(path, axis=0), axis=0)
    per_length = jnp.where(lengths > LEAST_PATH, 1.0 / jnp.maximum(lengths, LEAST_PATH), 0.0)
    error = jnp.cumsum(found.observed, axis=0) * per_length
    if name == "liu":
        between = jnp.cumsum(found.between, axis=0) * per_length
        return (error - between).mean(axis=0), between.mean(axis=0)
    assert found.per_member is not None
    assert found.steps is not None
    own = jnp.maximum(jnp.cumsum(jnp.cumsum(found.steps, axis=0), axis=0), LEAST_PATH)
    between = 0.5 * (jnp.cumsum(found.per_member, axis=0) / own).mean(axis=1)
    score = error - between
    return (score**2).sum(axis=0), 2.0 * (jnp.abs(score) * between).sum(axis=0)
