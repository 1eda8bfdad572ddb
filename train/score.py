"""Scoring an ensemble of tracks against the observed one.

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

from shared.geo import EARTH_RADIUS
from train.config import Objective

LEAST_SPREAD = 1.0
"""Where the reference ensemble's members are less than this apart [m] there is no diffusivity, hence nothing to learn
about C_s and no scale to divide by: such fixes (and so whole samples in calm without any strain) count 0."""

LEAST_PATH = 1.0
"""Length [m] that a cumulated observed path must have for an index normalised by it to count."""

_LEAST_HAVERSINE = 1e-18
"""(1.3 cm over 2 R) squared: keeps the square root's derivative finite where two points coincide."""


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


def separation(dx: Array, dy: Array, cos_cos: Array) -> Array:
    """Great-circle distance [m] of points `dx`, `dy` [radians of lon, lat] apart; `cos_cos` is cos(lat) cos(lat').

    Haversine formula with the sines and the arcsine as series: relative error below 1e-9 for 10 degrees, 1e-7 for 20;
    no trigonometry for the S x S pairs.
    """

    def half_sine_squared(d: Array) -> Array:
        q = d * d
        return 0.25 * q * (1.0 - q * (1.0 / 12.0 - q * (1.0 / 360.0 - q * (1.0 / 20160.0))))

    a = jnp.maximum(half_sine_squared(dy) + cos_cos * half_sine_squared(dx), _LEAST_HAVERSINE)
    return 2.0 * EARTH_RADIUS * jnp.sqrt(a) * (1.0 + a * (1.0 / 6.0 + a * (3.0 / 40.0 + a * (15.0 / 336.0))))


def distances(
    members: Float[Array, "2 S B"],
    observed: Float[Array, "B 2"],
    latitude: Float[Array, " B"],
    steps_deg: tuple[float, float],
    before: Float[Array, "2 S B"] | None = None,
) -> Distances:
    """Distances at one fix. Each pair of members is taken once, over cyclic shifts: nothing is S x S.

    Args:
        members: column, row of every member [cells], rows counted from `latitude`.
        observed: column, row of the drifter [cells].
        latitude: of row 0 [degrees].
        steps_deg: degrees of lon and lat in a cell.
        before: the members at the fix before; given, `per_member` and `steps` are computed too.
    """
    n = members.shape[1]
    scale = jnp.radians(jnp.array(steps_deg, members.dtype))
    x, y = members[0] * scale[0], members[1] * scale[1]
    cos = jnp.cos(jnp.radians(latitude) + y)
    seen_x, seen_y = observed[:, 0] * scale[0], observed[:, 1] * scale[1]
    cos_seen = jnp.cos(jnp.radians(latitude) + seen_y)
    to_observed = separation(x - seen_x, y - seen_y, cos * cos_seen).mean(axis=0)
    twice = [jnp.concatenate([f, f]) for f in (x, y, cos)]

    def shifted(k: Array | int) -> Array:
        other_x, other_y, other_cos = (jax.lax.dynamic_slice_in_dim(f, k, n) for f in twice)
        return separation(x - other_x, y - other_y, cos * other_cos)

    if before is not None:
        each = jax.lax.fori_loop(1, n, lambda k, total: total + shifted(k), jnp.zeros_like(x)) / (n - 1)
        old_x, old_y = before[0] * scale[0], before[1] * scale[1]
        moved = separation(x - old_x, y - old_y, cos * jnp.cos(jnp.radians(latitude) + old_y))
        return Distances(to_observed, 0.5 * each.mean(axis=0), each, moved)
    # summed over members once, at the end: under jvp a reduction inside the loop is the dearest part of it
    pairs = jax.lax.fori_loop(1, (n + 1) // 2, lambda k, total: total + shifted(k), jnp.zeros_like(x))
    if n % 2 == 0:
        pairs = pairs + 0.5 * shifted(n // 2)
    return Distances(to_observed, pairs.sum(axis=0) / (n * (n - 1)), None, None)


def path_steps(
    track: Float[Array, "B obs 2"], latitude: Float[Array, " B"], steps_deg: tuple[float, float]
) -> Float[Array, "obs-1 B"]:
    """Length of every step of the observed tracks [m]; `track` in cells, rows counted from `latitude`."""
    at = jnp.radians(track * jnp.array(steps_deg, track.dtype)).transpose(1, 2, 0)
    cos = jnp.cos(jnp.radians(latitude) + at[:, 1])
    return separation(at[1:, 0] - at[:-1, 0], at[1:, 1] - at[:-1, 1], cos[1:] * cos[:-1])


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
        weight = jnp.where(spread > LEAST_SPREAD, 1.0 / jnp.maximum(spread, LEAST_SPREAD), 0.0)
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
