"""Loss and gradient of every sample of a batch.

Few parameters: their derivatives are carried forward through the computation, all directions at once (`jax.jvp`), so
memory does not depend on its length. Many: reverse mode. Samples do not depend on one another, so either way every
sample has a gradient of its own. Those give the standard error, and let a poisoned sample be left out by name instead
of spoiling the sum. They are never clipped: that would bias.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from driftcal.train.fit.gradient_mode import Mode
from driftcal.train.machine.devices import BATCH, Devices


class Extras(NamedTuple):
    """Values of every sample that a loss gives beside the loss itself.

    Attributes:
        dispersion: Positive size of the objective's second term, which sets the gradient's scale.
        counts: Numbers that are added up over samples, by name.
    """

    dispersion: Float[Array, " B"]
    counts: dict[str, Int[Array, " B"]]


Loss = Callable[[Array, Any, Array], tuple[Array, Extras]]
"""(parameters as trained, batch, epoch) -> every sample's objective, and extras. The parameters are `(P,)`, or `(B, P)`
where every sample has its own. A batch has `weight`, 0 for padding."""


class SampleGradients(NamedTuple):
    """Losses and gradients of the samples of one batch; padding and poisoned samples are 0 with `good` False.

    Attributes:
        loss: The objective.
        gradient: Its derivative with respect to the parameters as trained.
        dispersion: As in `Extras`.
        good: Tells whether the sample is real and its loss and gradient are finite.
        poisoned: Tells whether it is real and they are not.
        counts: As in `Extras`.
    """

    loss: Float[Array, " B"]
    gradient: Float[Array, "B P"]
    dispersion: Float[Array, " B"]
    good: Bool[Array, " B"]
    poisoned: Bool[Array, " B"]
    counts: dict[str, Int[Array, " B"]]


Losses = Callable[[Array], tuple[Array, Extras]]
"""Parameters -> every sample's objective, and extras: a `Loss` of one batch."""


def gradient(losses: Losses, mode: Mode, parameters: Float[Array, " P"], weight: Float[Array, " B"]) -> SampleGradients:
    """Loss and gradient of every sample at `parameters`; `weight` is 0 for padding."""
    if mode == "forward":
        loss, slopes, (dispersion, counts) = _forward(losses, parameters)
    else:
        loss, slopes, (dispersion, counts) = _reverse(losses, parameters, weight.size)
    real = weight > 0
    finite = jnp.isfinite(loss) & jnp.isfinite(slopes).all(axis=-1) & jnp.isfinite(dispersion)
    good = real & finite
    loss, dispersion = (jnp.where(good, value, 0.0) for value in (loss, dispersion))
    counts = {name: jnp.where(real, count, 0) for name, count in counts.items()}
    slopes = jnp.where(good[:, None], slopes, 0.0)
    return SampleGradients(loss, slopes, dispersion, good, real & ~finite, counts)


def _forward(losses: Losses, parameters: Array) -> tuple[Array, Array, Extras]:
    def along(direction: Array) -> tuple[Array, Array, Extras]:
        return jax.jvp(losses, (parameters,), (direction,), has_aux=True)

    directions = jnp.eye(parameters.size, dtype=parameters.dtype)
    if parameters.size == 1:
        loss, slope, extras = along(directions[0])
        return loss, slope[:, None], extras
    return jax.vmap(along, out_axes=(None, -1, None))(directions)


def _reverse(losses: Losses, parameters: Array, n_samples: int) -> tuple[Array, Array, Extras]:
    """With parameters of its own for every sample, the gradient of the sum is every sample's gradient."""
    each = jnp.broadcast_to(parameters, (n_samples, parameters.size))
    loss, back, extras = jax.vjp(losses, each, has_aux=True)
    return loss, back(jnp.ones_like(loss))[0], extras


Step = Callable[[Array, Any, int], SampleGradients]
"""(parameters as trained, batch, epoch) -> every sample's gradient."""


def make_step(loss: Loss, mode: Mode, devices: Devices | None = None) -> Step:
    """The compiled step. With `devices` each computes its part of the batch, and all get what every sample gave."""
    compiled = compile_step(loss, mode, devices)
    return lambda parameters, batch, epoch: compiled(parameters, batch, jnp.asarray(epoch, jnp.uint32))


def compile_step(loss: Loss, mode: Mode, devices: Devices | None = None) -> Callable[..., SampleGradients]:
    """The step as a jitted function of (parameters, batch, epoch as uint32)."""

    def step(parameters: Array, batch: Any, epoch: Array) -> SampleGradients:
        return gradient(lambda vector: loss(vector, batch, epoch), mode, parameters, batch.weight)

    if devices is None or devices.n == 1:
        return eqx.filter_jit(step)

    def part(parameters: Array, batch: Any, epoch: Array) -> SampleGradients:
        mine = step(parameters, batch, epoch)
        return jax.tree.map(lambda values: jax.lax.all_gather(values, BATCH, tiled=True), mine)

    specs = PartitionSpec(), PartitionSpec(BATCH), PartitionSpec()
    # what is gathered is the same on every device, which the checker of replication cannot see
    shared = jax.shard_map(part, mesh=devices.mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)
    return jax.jit(shared)
