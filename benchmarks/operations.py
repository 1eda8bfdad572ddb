"""What a gradient step asks of a device, and what the device can do: the floor under its time."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.windows import eddying
from driftcal.train.learners.drift.dynamics import load as load_dynamics
from driftcal.train.learners.drift.loss import make_step
from driftcal.train.reading.batches import Grid
from driftcal.train.settings import Training

FREE = frozenset(
    [
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "dynamic_slice",
        "dynamic_update_slice",
        "gather",
        "iota",
        "pad",
        "reshape",
        "rev",
        "select_n",
        "slice",
        "squeeze",
        "stop_gradient",
        "transpose",
    ]
)
"""Primitives that move numbers but compute none."""


@dataclass(frozen=True)
class Cost:
    """Of one sample: arithmetic operations, integer ones too, and bytes that must cross the memory's border."""

    operations: float
    bytes: float


@dataclass(frozen=True)
class Rates:
    """What a device reaches: float32 operations a second, and bytes read and written a second."""

    flops: float
    bytes: float

    def floor(self, cost: Cost) -> float:
        """The least time for `cost` [s]."""
        return max(cost.operations / self.flops, cost.bytes / self.bytes)

    def limit(self, cost: Cost) -> str:
        """What sets it."""
        return "arithmetic" if cost.operations / self.flops > cost.bytes / self.bytes else "memory"


def of_a_sample(told: Training, grid: Grid) -> Cost:
    """Of the training step on a store's grid, counted in its jaxpr; one element of one primitive is one operation."""
    n = 4
    batch, model = eddying(grid, n, np.float32), load_dynamics(told)
    step, at = make_step(told, grid, model), jnp.asarray(model.start, jnp.float32)
    count = counted(jax.make_jaxpr(lambda at, batch: step(at, batch, 0))(at, batch).jaxpr)
    nodes = grid.n_lat * grid.n_lon
    windows = 2 * 2 * grid.n_times * nodes
    intervals = (grid.n_times - 1) * (grid.time_step // told.integration.kappa_every)
    return Cost(count / n, windows + 2 * 4 * 8 * intervals * nodes)


def counted(jaxpr: Any) -> float:
    """Arithmetic operations of a jaxpr: loops as often as they run, of a conditional the dearest branch."""
    total = 0.0
    for equation in jaxpr.eqns:
        inner = [counted(each) for each in _bodies(equation.params)]
        if equation.primitive.name == "cond":
            total += max(inner)
        elif inner:
            total += sum(inner) * equation.params.get("length", 1)
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[k] for k in contracted)
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name not in FREE:
            total += math.prod(equation.outvars[0].aval.shape)
    return total


def _bodies(parameters: dict[str, Any]) -> list[Any]:
    found = []
    for value in parameters.values():
        for each in value if isinstance(value, tuple | list) else [value]:
            if hasattr(each, "jaxpr"):
                found.append(each.jaxpr)
            elif hasattr(each, "eqns"):
                found.append(each)
    return found


def rates() -> Rates:
    """What the default device reaches with all it has: multiply-adds in registers, and doubling a large array."""
    size, repeats = 1 << 26, 256
    large = jnp.ones(size, jnp.float32)
    small = jnp.ones(size >> 6, jnp.float32)

    @jax.jit
    def multiply(x: jax.Array) -> jax.Array:
        chains = [x + k for k in range(8)]  # independent ones, to hide the latency of each
        for _ in range(repeats // 8):
            chains = [c * 0.999 + 0.001 for c in chains]
        return sum(chains[1:], chains[0])

    double = jax.jit(lambda x: x + x)
    return Rates(2 * repeats * small.size / _shortest(multiply, small), 8 * size / _shortest(double, large))


def _shortest(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    jax.block_until_ready(function(x))
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(function(x))
        spent.append(time.perf_counter() - began)
    return min(spent)
