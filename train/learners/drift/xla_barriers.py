"""Barriers that keep XLA:CPU from fusing producers into gathers.

XLA:CPU fuses producers into every consumer. Around a gather that is ruinous: index arithmetic is done again for each
of its four corners, weights for each of their eight channels, and what could be vectors becomes scalar code. A value
that crosses the border of a conditional exists in memory, once; `optimization_barrier` alone is ignored there.
`benchmarks/gradient.py` times the step with and without it: measure again when jax is upgraded. On a GPU it is left
out: there a conditional makes the device wait for the host.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


def walled(function: Callable[..., Any], *operands: Array) -> Any:
    """`function(*operands)`, operands and results made as values of their own on a CPU."""
    always = jax.lax.optimization_barrier(jnp.array(True))  # so that the conditional is not simplified away
    made = jax.eval_shape(function, *operands)

    def never(*_: Array) -> Any:
        return jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), made)

    return on_cpu(always, function, never, function, *operands)


def simpler_where(
    easy: Bool[Array, ""], simple: Callable[..., Any], general: Callable[..., Any], *operands: Array
) -> Any:
    """Returns `general(*operands)`; on a CPU materialised, and computed by `simple`, to the same result, if `easy`."""
    return on_cpu(easy, simple, general, general, *operands)


def on_cpu(choice: Array, first: Callable, second: Callable, elsewhere: Callable, *operands: Array) -> Any:
    """`first` or `second` by `choice` on a CPU, `elsewhere` on other devices."""
    return jax.lax.platform_dependent(
        choice,
        *operands,
        cpu=lambda choice, *operands: jax.lax.cond(choice, first, second, *operands),
        default=lambda _, *operands: elsewhere(*operands),
    )
