"""Residuals of every sample at fixed parameters: its drifter against its ensemble, and the score's slope by lead time.

One simulation gives all of it: the proper scores at every fix with their derivatives, carried forward, the drifter's
departure from the ensemble's mean, ranks and spread, and the memory of the members' own departures. Beside it the
currents alone are followed, for the speed that a drifter meets on them: a condition that owes nothing to where it was
observed, so that samples can be sorted by it without a bias.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.train.fit.parameters import Parameters
from driftcal.train.learners.drift import simulate as own
from driftcal.train.learners.drift.dynamics import dynamics_of
from driftcal.train.learners.drift.engines import simulate
from driftcal.train.learners.drift.loss import TRAINED, WEIGHTS, plan_of
from driftcal.train.learners.drift.metrics import departures, moments, ranks
from driftcal.train.learners.drift.noise import noise_for
from driftcal.train.learners.drift.scoring_rules import relative_weight
from driftcal.train.learners.drift.simulate import Plan
from driftcal.train.learners.drift.smagorinsky import Flow, Smagorinsky, Table, tabulate
from driftcal.train.reading.batches import Batch, Grid
from driftcal.train.settings import Training

DAY, HOURS = 86_400, 21_600
"""Lengths of the increments that memory is judged by [s]: a day, and a third of an inertial period at 40°."""

LEAST_INCREMENTS = 4
"""Increments of a track that its memory is judged by, at least, where it has the fixes for them."""


class Slopes(NamedTuple):
    """A score at every fix, fair and proper, and its derivatives with respect to the parameters as trained.

    Attributes:
        slope: Derivatives of the score.
        dispersion: The score's second term, which sets the scale of its curvature.
    """

    slope: Float[Array, "obs P B"]
    dispersion: Float[Array, "obs B"]


class Memory(NamedTuple):
    """Sums over pairs of successive increments d, e of a track [m2], means over the members.

    Attributes:
        product: Of d . e, which is above 0 where a track keeps its direction.
        turning: Of d x e, which is above 0 where it turns to the left.
        square: Of d . d, over all increments.
    """

    product: Float[Array, " B"]
    turning: Float[Array, " B"]
    square: Float[Array, " B"]


class Residuals(NamedTuple):
    """Residuals of B samples; the fixes are those after the first.

    Attributes:
        energy: Slopes of the energy score over the spread of the reference ensemble.
        plain: Slopes of the energy score [m].
        departure: Drifter less ensemble mean, east and north [m].
        error2: Squared length of that [m2].
        spread2: Squared spread of the members [m2], as large as `error2` on average where the ensemble is right.
        rank_distance: Rank of the drifter by its distance to the members, 0 to S.
        displacement: Displacement by the currents alone over the whole track, east and north [m].
        daily: Memory of the members' departures from their mean, by increments over a day.
        hourly: The same by increments over a few hours.
        successive: The same by increments from fix to fix.
        speed: Mean speed of the currents where they alone carry a particle [m/s].
    """

    energy: Slopes
    plain: Slopes
    departure: Float[Array, "obs 2 B"]
    error2: Float[Array, "obs B"]
    spread2: Float[Array, "obs B"]
    rank_distance: Num[Array, "obs B"]
    displacement: Float[Array, "2 B"]
    daily: Memory
    hourly: Memory
    successive: Memory
    speed: Float[Array, " B"]


def stride_of(grid: Grid, length: int) -> int:
    """Fixes between the ends of an increment over `length` [s], or over less where a track has not four of those."""
    return max(1, min(round(length / grid.obs_step), (grid.n_obs - 1) // LEAST_INCREMENTS))


def residuals_of(
    settings: Training, grid: Grid, parameters: Parameters, sloped: bool
) -> Callable[[Array, Batch], Residuals]:
    """The compiled function from parameters as trained, and a batch, to the residuals; noise as of the final passes.

    Without `sloped` there are no slopes: they are of none of the parameters.
    """
    plan = plan_of(settings, grid)
    members, reference_members = settings.ensemble.members, settings.score.reference_members

    @eqx.filter_jit
    def residuals(vector: Float[Array, " P"], batch: Batch, seed: Array) -> Residuals:
        # the seed is an argument, so that runs with other seeds are no other program
        noise, weights_noise = (
            noise_for(seed, settings.epochs, batch.sample, n, stream, batch.latitude.dtype)
            for n, stream in ((members, TRAINED), (reference_members, WEIGHTS))
        )
        table = tabulate(batch.currents, batch.latitude, grid, plan.kappa_every, plan.step)
        reference = Smagorinsky.of_log(jnp.log(jnp.asarray(settings.score.reference_cs, batch.latitude.dtype)))
        still = simulate(reference, batch, plan, reference_members, weights_noise, table=table)
        weight = relative_weight(2.0 * still.distances.between)

        def scores(at: Array) -> tuple[Array, own.Simulation]:
            dynamics = dynamics_of(parameters, at)
            run = simulate(dynamics, batch, plan, members, noise, keep_positions=True, table=table)
            return run.distances.observed - run.distances.between, run

        def along(direction: Array) -> tuple[Array, own.Simulation]:
            _, slope, run = jax.jvp(scores, (vector,), (direction,), has_aux=True)
            return slope, run

        directions = jnp.eye(vector.size, dtype=vector.dtype)
        if not sloped:
            score, run = scores(vector)
            slope = jnp.zeros((len(score), 0, batch.weight.size), score.dtype)
        elif vector.size == 1:
            slope, run = along(directions[0])
            slope = slope[:, None]
        else:
            slope, run = jax.vmap(along, out_axes=(1, None))(directions)
        away = departures(run, batch, plan)
        mean = away.mean(axis=2)
        about_mean = away - mean[:, :, None]
        speed, displacement = currents_alone(batch, plan, table)
        between = run.distances.between
        return Residuals(
            energy=Slopes(slope * weight[:, None], between * weight),
            plain=Slopes(slope, between),
            departure=-mean,
            displacement=displacement,
            rank_distance=ranks(away)["rank_distance"],
            **moments(away),
            daily=_memory(about_mean, stride_of(grid, DAY)),
            hourly=_memory(about_mean, stride_of(grid, HOURS)),
            successive=_memory(about_mean, 1),
            speed=speed,
        )

    return lambda vector, batch: residuals(vector, batch, jnp.asarray(settings.seed, jnp.uint32))


def currents_alone(batch: Batch, plan: Plan, table: Table) -> tuple[Float[Array, " B"], Float[Array, "2 B"]]:
    """Mean speed of the currents [m/s] along the path of a particle that they alone carry, and where to [m].

    The displacement is that of the whole track, east and north, by the scale at its start.
    """
    grid, dtype = plan.grid, batch.latitude.dtype

    def drift(flow: Flow, gradient_share: float) -> tuple[tuple[Array, Array], Array]:  # noqa: ARG001 - no diffusion
        return (flow.u, flow.v), 0.0 * flow.u

    def no_noise(step: Array) -> tuple[Array, Array]:  # noqa: ARG001 - it is none at every step
        nothing = jnp.zeros((1, batch.weight.size), dtype)
        return nothing, nothing

    advance, flow = own.stepper(drift, batch, plan, no_noise, table)

    def to_next_fix(carry: tuple, fix: Array) -> tuple[tuple, Array]:
        here = flow(carry[0], carry[1], fix * plan.n_sub)

        def substep(k: Array, inner: tuple) -> tuple:
            x, y, inside = inner
            return advance(x, y, inside, fix * plan.n_sub + k)

        there = jax.lax.fori_loop(0, plan.n_sub, substep, carry)
        return there, jnp.hypot(here.u, here.v)[0]

    x, y = (jnp.broadcast_to(batch.start[:, c], (1, batch.weight.size)) for c in (0, 1))
    (x, y, _), speed = jax.lax.scan(to_next_fix, (x, y, jnp.ones_like(x, bool)), jnp.arange(grid.n_obs - 1))
    lat = jnp.radians(batch.latitude + (batch.cell[:, 1].astype(dtype) + batch.start[:, 1]) * grid.lat_step)
    scale = jnp.stack([METRES_PER_DEGREE * grid.lon_step * jnp.cos(lat), METRES_PER_DEGREE * grid.lat_step + 0 * lat])
    return speed.mean(axis=0), (jnp.stack([x[0], y[0]]) - batch.start.T) * scale


def _memory(away: Float[Array, "obs 2 S B"], stride: int) -> Memory:
    """Memory of departures, by increments over `stride` fixes."""
    ends = away[stride - 1 :: stride]
    increments = jnp.diff(ends, axis=0, prepend=jnp.zeros_like(ends[:1]))
    before, after = increments[:-1], increments[1:]
    return Memory(
        product=(before * after).sum(axis=(0, 1)).mean(axis=0),
        turning=(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]).sum(axis=0).mean(axis=0),
        square=(increments**2).sum(axis=(0, 1)).mean(axis=0),
    )
