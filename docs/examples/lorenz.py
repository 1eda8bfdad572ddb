"""A model of one's own for `drift-train cost`: Lorenz's (1963) three equations.

    drift-train cost --model docs.examples.lorenz:build --steps 100,1000 --out cost-of-lorenz

`build` takes no arguments and returns a `driftcal.train.gradient_cost.Model`: a pure step, the first state, the
parameters, and a scalar loss of the final state. Here the state carries the loss along: a sum over all steps.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from driftcal.train.gradient_cost import Model

STEP = 0.005


class State(NamedTuple):
    """Where the trajectory is, and what its loss has come to."""

    x: Float[Array, "3"]
    loss: Float[Array, ""]


def build() -> Model:
    """The model, with its three parameters."""
    parameters = {"sigma": jnp.asarray(10.0), "rho": jnp.asarray(28.0), "beta": jnp.asarray(8.0 / 3.0)}
    return Model(step, State(jnp.array([1.0, -0.5, 20.0]), jnp.zeros(())), parameters, lambda state: state.loss)


def step(state: State, parameters: dict[str, Array], k: Array) -> State:
    """One step of the midpoint rule; the loss is the sum of squares of the first component."""

    def slope(x: Array) -> Array:
        sigma, rho, beta = (parameters[name] for name in ("sigma", "rho", "beta"))
        return jnp.stack([sigma * (x[1] - x[0]), x[0] * (rho - x[2]) - x[1], x[0] * x[1] - beta * x[2]])

    x = state.x + STEP * slope(state.x + 0.5 * STEP * slope(state.x))
    return State(x, state.loss + STEP * x[0] ** 2)
