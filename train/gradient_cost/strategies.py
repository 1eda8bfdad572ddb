"""Ways to take the gradient of a loss through many steps. All give the same numbers; time and memory differ.

Reverse mode runs the model, then goes back through its steps; to go back through one it needs what that step computed.
It can keep all of that (`unrolled`, `scan`), or only some states and step again from them (`checkpoint`, `segments`,
`recursive`; Griewank and Walther 2000). Forward mode carries the derivative along with the state, once for every
parameter, and keeps nothing.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from driftcal.train.gradient_cost.timed_model import Model, State

Run = Callable[[Float[Array, " P"], State], Array]
"""(parameters, first state) -> the loss, or its gradient."""

BRANCHES = 8
"""Parts into which recursive checkpointing divides a stretch of steps."""


class Strategy(NamedTuple):
    """One way.

    Attributes:
        title: for people.
        what: it does, for someone who has never heard of it.
        model: (model, number of steps) -> the run without gradient that it goes with.
        gradient: likewise -> the gradient.
        compiled: whether the run is one compiled program, or called step by step from Python.
    """

    title: str
    what: str
    model: Callable[[Model, int], Run]
    gradient: Callable[[Model, int], Run]
    compiled: bool = True


def stretch(model: Model, p: Array, state: State, start: Array | int, n: int, checkpoint: bool = False) -> State:
    """`n` steps from number `start`, as one scan; with `checkpoint`, reverse mode keeps nothing but the states."""

    def body(state: State, k: Array) -> tuple[State, None]:
        return model.step(state, p, start + k), None

    return jax.lax.scan(jax.checkpoint(body, prevent_cse=False) if checkpoint else body, state, jnp.arange(n))[0]


def parts(
    model: Model, p: Array, state: State, start: Array | int, n: int, length: int, inner: Callable[..., State]
) -> State:
    """`n` steps in parts of `length`; reverse mode keeps the state before each, and does the part again by `inner`.

    What is left over when the parts are whole is shorter than one, and done step by step.
    """
    whole = n // length

    def part(state: State, i: Array) -> tuple[State, None]:
        return inner(model, p, state, start + i * length, length), None

    state = jax.lax.scan(jax.checkpoint(part, prevent_cse=False), state, jnp.arange(whole))[0]
    rest = n - whole * length
    return stretch(model, p, state, start + whole * length, rest, checkpoint=True) if rest else state


def segments(model: Model, p: Array, state: State, start: Array | int, n: int) -> State:
    """Parts of about sqrt(n) steps, each kept whole during its own backward pass."""
    return parts(model, p, state, start, n, max(1, math.isqrt(n)), stretch)


def recursive(model: Model, p: Array, state: State, start: Array | int, n: int) -> State:
    """Parts of parts of parts: about log(n) levels of `BRANCHES` states each, and as many times the work."""
    if n <= BRANCHES:
        return stretch(model, p, state, start, n, checkpoint=True)
    return parts(model, p, state, start, n, n // BRANCHES, recursive)


def _unrolled(model: Model, p: Array, state: State, start: Array | int, n: int) -> State:
    for k in range(n):
        state = model.step(state, p, jnp.asarray(start + k))
    return state


def _checkpointed(model: Model, p: Array, state: State, start: Array | int, n: int) -> State:
    return stretch(model, p, state, start, n, checkpoint=True)


def _loss(march: Callable[..., State]) -> Callable[[Model, int], Run]:
    return lambda model, n: lambda p, state: model.loss(march(model, p, state, 0, n))


def _reverse(march: Callable[..., State]) -> Callable[[Model, int], Run]:
    return lambda model, n: jax.grad(lambda p, state: model.loss(march(model, p, state, 0, n)))


def forward_along(model: Model, n: int, directions: Float[Array, "D P"]) -> Run:
    """Derivatives along `directions`, all carried through one scan."""
    run = _loss(stretch)(model, n)

    def gradient(p: Array, state: State) -> Array:
        return jax.vmap(lambda d: jax.jvp(lambda p: run(p, state), (p,), (d,))[1])(directions)

    return gradient


def _forward(model: Model, n: int) -> Run:
    return forward_along(model, n, jnp.eye(model.parameters.size, dtype=model.parameters.dtype))


def _looped(model: Model, n: int) -> Run:
    step, loss = jax.jit(model.step), jax.jit(model.loss)

    def run(p: Array, state: State) -> Array:
        for k in range(n):
            state = step(state, p, k)
        return loss(state)

    return run


class HostLoop:
    """The gradient through a Python loop: residuals of every step are kept until the backward pass."""

    def __init__(self, model: Model, n: int):
        self.ahead = jax.jit(lambda state, p, k: jax.vjp(lambda s, p: model.step(s, p, k), state, p))
        self.back = jax.jit(lambda pull, state_bar: pull(state_bar))
        self._loss_bar, self._n = jax.jit(jax.grad(model.loss)), n

    def __call__(self, p: Array, state: State) -> Array:
        """The gradient at `p` from the first state."""
        pulls = []
        for k in range(self._n):
            state, pull = self.ahead(state, p, k)
            pulls.append(pull)
        state_bar, p_bar = self._loss_bar(state), jnp.zeros_like(p)
        while pulls:
            state_bar, more = self.back(pulls.pop(), state_bar)
            p_bar = p_bar + more
        return p_bar


STRATEGIES = {
    "loop": Strategy(
        "Python loop",
        "a compiled step, called from a Python loop; keeps everything every step computed",
        _looped,
        HostLoop,
        compiled=False,
    ),
    "unrolled": Strategy(
        "unrolled",
        "all steps written out and compiled as one program; keeps everything, and takes long to compile",
        _loss(_unrolled),
        _reverse(_unrolled),
    ),
    "scan": Strategy(
        "scan",
        "a compiled loop (jax.lax.scan); keeps everything every step computed",
        _loss(stretch),
        _reverse(stretch),
    ),
    "checkpoint": Strategy(
        "scan, checkpointed step",
        "the same loop; keeps the state before every step, and does each step again on the way back",
        _loss(stretch),
        _reverse(_checkpointed),
    ),
    "segments": Strategy(
        "segments of √n",
        "keeps the state before every √n-th step, and does one segment at a time again on the way back",
        _loss(stretch),
        _reverse(segments),
    ),
    "recursive": Strategy(
        "recursive checkpoints",
        f"keeps {BRANCHES} states of the whole run, {BRANCHES} of one part of it, and so on; steps are done again "
        "several times",
        _loss(stretch),
        _reverse(recursive),
    ),
    "forward": Strategy(
        "forward mode",
        "carries the derivative for every parameter along with the state; keeps nothing, costs about one more run of "
        "the model a parameter",
        _loss(stretch),
        _forward,
    ),
}
"""All ways, by the names that the command knows."""
