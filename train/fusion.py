"""A wall that the compiler does not fuse through.

XLA:CPU fuses producers into every consumer. Around a gather that is ruinous: index arithmetic is done again for each
of its four corners, weights for each of their eight channels, and what could be vectors becomes scalar code. A value
that crosses the border of a conditional exists in memory, once; `optimization_barrier` is ignored there.
`benchmarks/gradient.py` times the step with and without it: measure again when jax is upgraded. On a GPU it is left
out: there a conditional makes the device wait for the host.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


def walled(function: Callable[..., Array], always: Bool[Array, ""], *operands: Array) -> Array:
    """`function(*operands)`, operands and result made as values of their own on a CPU.

    Args:
        function: of the operands.
        always: true, but not so that the compiler could know it.
        operands: arrays.
    """

    def on_cpu(always: Array, *operands: Array) -> Array:
        made = jax.eval_shape(function, *operands)
        return jax.lax.cond(always, function, lambda *_: jnp.zeros(made.shape, made.dtype), *operands)

    return jax.lax.platform_dependent(always, *operands, cpu=on_cpu, default=lambda _, *operands: function(*operands))
