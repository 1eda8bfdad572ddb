"""Loss and gradient of one batch.

The trained parameter is one number, log C_s, so its derivative is carried forward through the scan (`jax.jvp`): memory
does not depend on the number of steps, and every sample's own gradient comes for free. Those give the standard error,
and let a poisoned sample be left out by name instead of spoiling the sum. They are never clipped: that would bias.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from train import score
from train.config import Training
from train.data import Batch, Grid
from train.dynamics import Smagorinsky, tabulate
from train.engine import simulate
from train.simulate import Noise, Plan, noise_for

TRAINED, WEIGHTS = 0, 1
"""Streams of noise: of the trained ensemble, and of the one whose spread weights the `energy` objective."""


class Sums(NamedTuple):
    """What one batch gives, per sample; padding and poisoned samples are 0 with `good` False.

    Attributes:
        loss: the objective.
        gradient: its derivative with respect to log C_s.
        dispersion: the positive size of the objective's second term, which sets the gradient's scale.
        good: whether the sample is real and its loss and gradient are finite.
        poisoned: whether it is real and they are not.
        escaped: how many members left their window.
        ashore: how many ended in a cell without any current.
    """

    loss: Float[Array, " B"]
    gradient: Float[Array, " B"]
    dispersion: Float[Array, " B"]
    good: Bool[Array, " B"]
    poisoned: Bool[Array, " B"]
    escaped: Int[Array, " B"]
    ashore: Int[Array, " B"]


def plan_of(settings: Training, grid: Grid) -> Plan:
    """How a run integrates on a store's grid."""
    integration = settings.integration
    return Plan(grid, integration.step, integration.kappa_every, integration.scheme, settings.engine)


def sample_losses(
    log_cs: Array, batch: Batch, plan: Plan, settings: Training, noise: Noise, weights_noise: Noise
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Every sample's objective at `log_cs`; with it the dispersion and how many members escaped and ran ashore."""
    steps_deg = plan.grid.lon_step, plan.grid.lat_step
    table = tabulate(batch.currents, batch.latitude, plan.grid, plan.kappa_every, plan.step)
    name = settings.score.objective
    spread = None
    if name == "energy":
        reference = Smagorinsky(jnp.log(jnp.asarray(settings.score.reference_cs, batch.latitude.dtype)))
        still = simulate(reference, batch, plan, settings.score.reference_members, weights_noise, table=table)
        spread = jax.lax.stop_gradient(2.0 * still.distances.between)
    moved = simulate(
        Smagorinsky(log_cs),
        batch,
        plan,
        settings.ensemble.members,
        noise,
        own_lengths=name == "reference",
        table=table,
    )
    latitude = batch.latitude + batch.cell[:, 1] * plan.grid.lat_step
    path = score.path_steps(batch.track, latitude, steps_deg)
    loss, dispersion = score.objective(name, moved.distances, path, spread)
    return loss, (dispersion, (~moved.inside).sum(axis=0), moved.ashore.sum(axis=0))


def gradient(log_cs: Array, batch: Batch, plan: Plan, settings: Training, noise: Noise, weights_noise: Noise) -> Sums:
    """Loss and gradient of every sample at `log_cs`."""

    def losses(parameter: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        return sample_losses(parameter, batch, plan, settings, noise, weights_noise)

    loss, tangent, (dispersion, *counts) = jax.jvp(losses, (log_cs,), (jnp.ones_like(log_cs),), has_aux=True)
    real = batch.weight > 0
    finite = jnp.isfinite(loss) & jnp.isfinite(tangent) & jnp.isfinite(dispersion)
    good = real & finite
    kept = [jnp.where(good, value, 0.0) for value in (loss, tangent, dispersion)]
    escaped, ashore = (jnp.where(real, count, 0) for count in counts)
    return Sums(kept[0], kept[1], kept[2], good, real & ~finite, escaped, ashore)


Step = Callable[[Array, Batch, int], Sums]
"""(log C_s, batch, epoch) -> sums."""


def make_step(settings: Training, grid: Grid) -> Step:
    """The compiled step. Noise depends on (seed, epoch, sample, step, member) alone."""
    plan = plan_of(settings, grid)

    @eqx.filter_jit
    def step(log_cs: Array, batch: Batch, epoch: Array) -> Sums:
        dtype = batch.latitude.dtype
        streams = [
            noise_for(settings.seed, epoch, batch.sample, members, stream, dtype)
            for members, stream in (
                (settings.ensemble.members, TRAINED),
                (settings.score.reference_members, WEIGHTS),
            )
        ]
        return gradient(log_cs, batch, plan, settings, streams[0], streams[1])

    return lambda log_cs, batch, epoch: step(log_cs, batch, jnp.asarray(epoch, jnp.uint32))
