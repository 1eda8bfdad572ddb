"""Loss and gradient of one batch.

Few parameters: their derivatives are carried forward through the scan, all directions at once (`jax.jvp`), so memory
does not depend on the number of steps. Many: reverse mode, which keeps the state at every fix and steps again from one
to the next. Samples do not depend on one another, so either way every sample has a gradient of its own. Those give the
standard error, and let a poisoned sample be left out by name instead of spoiling the sum. They are never clipped: that
would bias.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from driftcal.train.fit.gradient_mode import Choice, choose, memory_of_device
from driftcal.train.fit.parameters import Model
from driftcal.train.learners.drift import scoring_rules
from driftcal.train.learners.drift.engines import simulate
from driftcal.train.learners.drift.noise import Noise, noise_for
from driftcal.train.learners.drift.simulate import Dynamics, Plan
from driftcal.train.learners.drift.smagorinsky import Smagorinsky, tabulate
from driftcal.train.machine.devices import BATCH, Devices
from driftcal.train.reading.batches import Batch, Grid
from driftcal.train.settings import Training
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

TRAINED, WEIGHTS = 0, 1
"""Streams of noise: of the trained ensemble, and of the one whose spread weights the `energy` objective."""

Losses = Callable[[Array], tuple[Array, tuple[Array, Array, Array]]]
"""Parameters -> every sample's objective; with it dispersion, members escaped and members ashore."""


class Sums(NamedTuple):
    """Loss, gradient and counts of each sample of a batch; padding and poisoned samples are 0 with `good` False.

    Attributes:
        loss: the objective.
        gradient: its derivative with respect to the parameters as trained.
        dispersion: the positive size of the objective's second term, which sets the gradient's scale.
        good: True if the sample is real and its loss and gradient are finite.
        poisoned: True if it is real and they are not.
        escaped: number of members that left their window.
        ashore: number that ended in a cell without any current.
    """

    loss: Float[Array, " B"]
    gradient: Float[Array, "B P"]
    dispersion: Float[Array, " B"]
    good: Bool[Array, " B"]
    poisoned: Bool[Array, " B"]
    escaped: Int[Array, " B"]
    ashore: Int[Array, " B"]


def plan_of(settings: Training, grid: Grid) -> Plan:
    """Integration plan of a run on a store's grid."""
    integration = settings.integration
    return Plan(grid, integration.step, integration.kappa_every, integration.scheme, settings.engine)


def mode_of(settings: Training, n_parameters: int, grid: Grid) -> Choice:
    """Mode in which the gradient of so many parameters is computed, with the reason."""
    if settings.gradient.mode != "auto":
        return Choice(settings.gradient.mode, f"{settings.gradient.mode} mode: asked for by gradient.mode")
    if settings.engine != "driftcal":
        return Choice("forward", f"forward mode: the only one that engine={settings.engine} offers")
    ensemble = settings.ensemble.members * settings.batch_size
    return choose(n_parameters, ensemble, grid.n_obs, np.dtype(settings.precision).itemsize, memory_of_device())


def sample_losses(
    dynamics: Dynamics,
    batch: Batch,
    plan: Plan,
    settings: Training,
    noise: Noise,
    weights_noise: Noise,
    checkpoint: bool = False,
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Every sample's objective; with it the dispersion and how many members escaped and ran ashore."""
    steps_deg = plan.grid.lon_step, plan.grid.lat_step
    table = tabulate(batch.currents, batch.latitude, plan.grid, plan.kappa_every, plan.step)
    name = settings.score.objective
    spread = None
    if name == "energy":
        reference = Smagorinsky(jnp.log(jnp.asarray(settings.score.reference_cs, batch.latitude.dtype)))
        still = simulate(reference, batch, plan, settings.score.reference_members, weights_noise, table=table)
        spread = jax.lax.stop_gradient(2.0 * still.distances.between)
    moved = simulate(
        dynamics,
        batch,
        plan,
        settings.ensemble.members,
        noise,
        own_lengths=name == "reference",
        table=table,
        checkpoint=checkpoint,
    )
    latitude = batch.latitude + batch.cell[:, 1] * plan.grid.lat_step
    path = scoring_rules.path_steps(batch.track, latitude, steps_deg)
    loss, dispersion = scoring_rules.objective(name, moved.distances, path, spread)
    return loss, (dispersion, (~moved.inside).sum(axis=0), moved.ashore.sum(axis=0))


def gradient(
    model: Model,
    parameters: Float[Array, " P"],
    batch: Batch,
    plan: Plan,
    settings: Training,
    noise: Noise,
    weights_noise: Noise,
) -> Sums:
    """Loss and gradient of every sample at `parameters`."""
    mode = mode_of(settings, model.size, plan.grid).mode

    def losses(vector: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        return sample_losses(
            model.dynamics(vector), batch, plan, settings, noise, weights_noise, checkpoint=mode == "reverse"
        )

    loss, slopes, (dispersion, *counts) = (_forward if mode == "forward" else _reverse)(losses, parameters, batch)
    real = batch.weight > 0
    finite = jnp.isfinite(loss) & jnp.isfinite(slopes).all(axis=-1) & jnp.isfinite(dispersion)
    good = real & finite
    loss, dispersion = (jnp.where(good, value, 0.0) for value in (loss, dispersion))
    escaped, ashore = (jnp.where(real, count, 0) for count in counts)
    slopes = jnp.where(good[:, None], slopes, 0.0)
    return Sums(loss, slopes, dispersion, good, real & ~finite, escaped, ashore)


def _forward(losses: Losses, parameters: Array, batch: Batch) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    del batch

    def along(direction: Array) -> tuple[Array, Array, tuple[Array, Array, Array]]:
        return jax.jvp(losses, (parameters,), (direction,), has_aux=True)

    directions = jnp.eye(parameters.size, dtype=parameters.dtype)
    if parameters.size == 1:
        loss, slope, aux = along(directions[0])
        return loss, slope[:, None], aux
    return jax.vmap(along, out_axes=(None, -1, None))(directions)


def _reverse(losses: Losses, parameters: Array, batch: Batch) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """Gradients by reverse mode: with a copy of the parameters for every sample, that of the sum is every sample's."""
    each = jnp.broadcast_to(parameters, (batch.weight.size, parameters.size))
    loss, back, aux = jax.vjp(losses, each, has_aux=True)
    return loss, back(jnp.ones_like(loss))[0], aux


Step = Callable[[Array, Batch, int], Sums]
"""(parameters as trained, batch, epoch) -> sums."""


def make_step(settings: Training, grid: Grid, model: Model, devices: Devices | None = None) -> Step:
    """The compiled step. Noise depends on (seed, epoch, sample, step, member) alone.

    With `devices` each computes its part of the batch, and all get what every sample gave.
    """
    compiled = compile_step(settings, grid, model, devices)
    return lambda parameters, batch, epoch: compiled(parameters, batch, jnp.asarray(epoch, jnp.uint32))


def compile_step(settings: Training, grid: Grid, model: Model, devices: Devices | None = None) -> Callable[..., Sums]:
    """The step as a jitted function of (parameters, batch, epoch as uint32)."""
    plan = plan_of(settings, grid)

    def step(parameters: Array, batch: Batch, epoch: Array) -> Sums:
        dtype = batch.latitude.dtype
        streams = [
            noise_for(settings.seed, epoch, batch.sample, members, stream, dtype)
            for members, stream in (
                (settings.ensemble.members, TRAINED),
                (settings.score.reference_members, WEIGHTS),
            )
        ]
        return gradient(model, parameters, batch, plan, settings, streams[0], streams[1])

    if devices is None or devices.n == 1:
        return eqx.filter_jit(step)

    def part(parameters: Array, batch: Batch, epoch: Array) -> Sums:
        mine = step(parameters, batch, epoch)
        return jax.tree.map(lambda values: jax.lax.all_gather(values, BATCH, tiled=True), mine)

    specs = PartitionSpec(), PartitionSpec(BATCH), PartitionSpec()
    # what is gathered is the same on every device, which the checker of replication cannot see
    shared = jax.shard_map(part, mesh=devices.mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)
    return jax.jit(shared)
