"""Metrics of every sample of an evaluation: scores, error and spread, and ranks of the drifter in its ensemble."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.train.learners.drift import scoring_rules
from driftcal.train.learners.drift.engines import simulate
from driftcal.train.learners.drift.noise import noise_for
from driftcal.train.learners.drift.simulate import Dynamics, Plan, Simulation
from driftcal.train.reading.batches import Batch

LEAST_DISTANCE = 1.0
"""Distance [m] below which a direction or a spread is not told."""

STREAM = 2
"""Stream of noise of evaluations: independent of training's."""


@eqx.filter_jit
def measure(plan: Plan, seed: int, members: int, dynamics: Dynamics, batch: Batch) -> dict[str, Array]:
    """One system's measures of every sample; the last axis are samples."""
    noise = noise_for(seed, 0, batch.sample, members, STREAM, batch.latitude.dtype)
    run = simulate(dynamics, batch, plan, members, noise, keep_positions=True)
    away = departures(run, batch, plan)
    pulls = pulls_on(run, away, plan)._asdict()
    return {**_scores(run, batch, plan), **moments(away), **ranks(away), **pulls, "escaped": (~run.inside).sum(axis=0)}


class Pulls(NamedTuple):
    """Derivatives of the energy score [m] in a mean drift that displaces all members alike, mean over lead times.

    Attributes:
        pull_east: First derivative in a drift eastward [s].
        pull_north: Northward.
        stiffness: Second derivative, where ensemble and drifter are alike and Gaussian [s2/m].
    """

    pull_east: Float[Array, " B"]
    pull_north: Float[Array, " B"]
    stiffness: Float[Array, " B"]


def pulls_on(run: Simulation, away: Float[Array, "obs 2 S B"], plan: Plan) -> Pulls:
    """Pulls of the drifters on their ensembles, whose members are `away` from them [m].

    E|Z + d| of a normal Z of variance 2 s^2 in each direction has the curvature sqrt(pi / 2) / (2 sqrt(2) s) in d, and
    the score's second term D is sqrt(pi) s / 2: pi / (8 D).
    """
    time = (jnp.arange(1, plan.grid.n_obs) * plan.grid.obs_step).astype(away.dtype)[:, None]
    between = run.distances.between
    unit = away / jnp.maximum(jnp.sqrt((away**2).sum(axis=1, keepdims=True)), LEAST_DISTANCE)
    push = unit.mean(axis=2) * time[:, None]
    stiffness = jnp.pi / 8 * time**2 / jnp.maximum(between, LEAST_DISTANCE)
    return Pulls(
        pull_east=push[:, 0].mean(axis=0),
        pull_north=push[:, 1].mean(axis=0),
        stiffness=stiffness.mean(axis=0),
    )


def _scores(run: Simulation, batch: Batch, plan: Plan) -> dict[str, Array]:
    latitude = batch.latitude + batch.cell[:, 1].astype(batch.latitude.dtype) * plan.grid.lat_step
    path = scoring_rules.path_steps(batch.track, latitude, (plan.grid.lon_step, plan.grid.lat_step))
    observed, between = run.distances.observed, run.distances.between
    length = jnp.cumsum(path, axis=0).sum(axis=0)
    index = observed.sum(axis=0) / jnp.maximum(length, scoring_rules.LEAST_PATH)
    return {
        "energy_score_km": (observed - between).mean(axis=0) / 1e3,
        "separation_km": observed.mean(axis=0) / 1e3,
        "final_separation_km": observed[-1] / 1e3,
        "liu_skill": jnp.maximum(0.0, 1.0 - index),
    }


def departures(run: Simulation, batch: Batch, plan: Plan) -> Float[Array, "obs 2 S B"]:
    """Every member's departure from the drifter, east and north [m], at every fix but the first."""
    assert run.positions is not None
    grid = plan.grid
    row = batch.cell[:, 1].astype(batch.track.dtype) + batch.track[:, 1:, 1].T
    lat = jnp.radians(batch.latitude + row * grid.lat_step)
    scale = jnp.stack([METRES_PER_DEGREE * grid.lon_step * jnp.cos(lat), METRES_PER_DEGREE * grid.lat_step + 0 * lat])
    return (run.positions - batch.track[:, 1:].transpose(1, 2, 0)[:, :, None]) * scale.transpose(1, 0, 2)[:, :, None]


def moments(away: Float[Array, "obs 2 S B"]) -> dict[str, Array]:
    """Squared error of the mean position and squared spread about it [m2], `(obs, B)`."""
    members = away.shape[2]
    return {
        "error2": (away.mean(axis=2) ** 2).sum(axis=1),
        "spread2": away.var(axis=2, ddof=1).sum(axis=1) * (members + 1) / members,
    }


def ranks(away: Float[Array, "obs 2 S B"]) -> dict[str, Array]:
    """Ranks of the drifter, 0 to S, `(obs, B)`: east, north, and by mean distance to all others."""
    n = away.shape[2]
    doubled = jnp.concatenate([away, away], axis=2)

    def shifted(k: Array, total: Array) -> Array:
        other = jax.lax.dynamic_slice_in_dim(doubled, k, n, axis=2)
        return total + jnp.sqrt(((away - other) ** 2).sum(axis=1))

    to_drifter = jnp.sqrt((away**2).sum(axis=1))
    to_others = jax.lax.fori_loop(1, n, shifted, to_drifter)
    outlying = to_others < to_drifter.sum(axis=1, keepdims=True)
    return {
        "rank_distance": outlying.sum(axis=1),
        "rank_east": (away[:, 0] < 0).sum(axis=1),
        "rank_north": (away[:, 1] < 0).sum(axis=1),
    }
