"""Steps of log C_s: a Newton step that needs no learning rate, Adam, and the average of iterates that ends both.

For an ensemble of Gaussian spread s around a drifter whose own spread is s0, in two dimensions,
ES = sqrt(pi/2) (sqrt(s^2 + s0^2) - s / sqrt(2)), so that with K ~ s^2 and D the second term of ES the ratio

    q = (dES / dlog C_s) / D = (sqrt(2) r / sqrt(1 + r^2) - 1) / 2,    r = s / s0,

tells r outright: the step -log r^2 = -logit((1 + 2 q)^2 / 2) lands on the minimum from anywhere. Real flows are not
Gaussian, but q stays monotone and vanishes at the same place as the gradient, so the step is a contraction towards the
objective's own minimum: Newton's step with a known curvature (D / 8 at the minimum) and a global shape. Step k is taken
with gain k^(-0.6) and the iterates are averaged with weights growing as k^3 (Polyak and Juditsky 1992; Shamir and Zhang
2013), which forgets the start.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

GAIN_EXPONENT = 0.6
"""Gain of step k is k to minus this; between 1/2 and 1 for averaging to be efficient."""

LONGEST_STEP = 2.5
"""No step changes log C_s by more: a factor of 12."""

AVERAGE_POWER = 3
"""Weights of the average grow with this power of the step number."""


class NewtonState(NamedTuple):
    """Steps taken."""

    steps: Array


def newton() -> optax.GradientTransformationExtraArgs:
    """The step above, as an optax transformation; `update` takes the dispersion D beside the gradient."""

    def init(params: Any) -> NewtonState:  # noqa: ARG001 - optax names it
        return NewtonState(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:  # noqa: ARG001 - likewise
        steps = state.steps + 1
        gain = steps.astype(updates.dtype) ** -GAIN_EXPONENT
        return gain * global_step(updates, extra["dispersion"]), NewtonState(steps)

    return optax.GradientTransformationExtraArgs(init, update)


def global_step(gradient: Float[Array, "*P"], dispersion: Float[Array, "*#P"]) -> Float[Array, "*P"]:
    """The whole step of log C_s that a mean gradient and its dispersion ask for."""
    q = gradient / jnp.maximum(dispersion, jnp.finfo(gradient.dtype).tiny)
    share = jnp.clip((1.0 + 2.0 * jnp.clip(q, -0.5, 0.5)) ** 2 / 2.0, 1e-6, 1.0 - 1e-6)
    return jnp.clip(jnp.log1p(-share) - jnp.log(share), -LONGEST_STEP, LONGEST_STEP)


class Average(NamedTuple):
    """Running average of the iterates, weighted by the power `AVERAGE_POWER` of the step number."""

    value: Array
    iterates: Array


def start_average(log_cs: Array) -> Average:
    """An average of nothing yet."""
    return Average(log_cs, jnp.zeros((), jnp.int32))


def add_to_average(average: Average, log_cs: Array) -> Average:
    """The average with one more iterate."""
    iterates = average.iterates + 1
    share = (AVERAGE_POWER + 1) / (iterates.astype(log_cs.dtype) + AVERAGE_POWER)
    return Average(average.value + share * (log_cs - average.value), iterates)
