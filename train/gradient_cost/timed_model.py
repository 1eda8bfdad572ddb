"""A timed model, which the study measures: it steps through time.

A user's model is a function without arguments, named `module:function`, that returns a `Model`. It is called once for
every precision, so arrays that it makes with `jax.numpy` have the precision of the run. A loss that runs along with the
model is a number in its state that every step adds to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from driftcal.shared.errors import ConfigError, DriftcalError
from driftcal.train.learners.drift.user_dynamics import isolation

State = Any
"""A pytree of arrays of floats."""


class Model(NamedTuple):
    """A model and the number that its gradient is taken of.

    Attributes:
        step: (state, parameters, number of the step from 0) -> state, pure and differentiable.
        state: the first one: a pytree of arrays of floats.
        parameters: what the derivative is with respect to: a pytree of arrays of floats.
        loss: final state -> a scalar.
        most_steps: beyond which the model means nothing; None if it has no end.
    """

    step: Callable[[State, Any, Int[Array, ""]], State]
    state: State
    parameters: Any
    loss: Callable[[State], Float[Array, ""]]
    most_steps: int | None = None

    def flat(self) -> "Model":
        """The same with its parameters as one vector."""
        vector, unravel = ravel_pytree(self.parameters)
        return self._replace(parameters=vector, step=lambda state, p, k: self.step(state, unravel(p), k))


BUILT_IN = {
    "column": "driftcal.train.gradient_cost.column:column",
    "drift": "driftcal.train.gradient_cost.drift_model:drift",
}
"""Names of the models that come with the study."""


def load(spec: str) -> Model:
    """The model that `spec` names, built in or `module:function`, with its parameters as one vector.

    Raises:
        ConfigError: it cannot be imported or called, or what it returns is not a model whose gradient can be taken.
    """
    name, colon, attribute = BUILT_IN.get(spec, spec).partition(":")
    if not colon or not name or not attribute.isidentifier():
        known = " or ".join(BUILT_IN)
        raise ConfigError(f"--model {spec!r}: expected {known}, or module:function such as my_model:build.")
    make = isolation.load(name, attribute, f"--model {spec!r}")
    if not callable(make):
        raise ConfigError(f"--model {spec!r}: {name} has no function called {attribute}.")
    try:
        with isolation.guarded(f"--model {spec!r}: calling {attribute}()"):
            model = make()
    except DriftcalError:
        raise
    except Exception as error:
        raise ConfigError(
            f"--model {spec!r}: cannot call {attribute}() of {name} ({type(error).__name__}: {error}). It must take no "
            f"arguments."
        ) from error
    if not isinstance(model, Model):
        raise ConfigError(
            f"--model {spec!r}: {attribute}() returns {type(model).__name__}, not a driftcal.train.gradient_cost.Model."
        )
    model = model._replace(
        state=jax.tree.map(jnp.asarray, model.state), parameters=jax.tree.map(jnp.asarray, model.parameters)
    )
    _check(spec, model)
    return model.flat()


def _check(spec: str, model: Model) -> None:
    for what, tree in (("state", model.state), ("parameters", model.parameters)):
        leaves = jax.tree.leaves(tree)
        if not leaves or not all(np.issubdtype(leaf.dtype, np.floating) for leaf in leaves):
            found = ", ".join(sorted({str(leaf.dtype) for leaf in leaves})) or "nothing"
            raise ConfigError(f"--model {spec!r}: its {what} must be arrays of floats, and hold {found}.")
    try:
        with isolation.guarded(f"--model {spec!r}: tracing its step and loss"):
            after = jax.eval_shape(model.step, model.state, model.parameters, jnp.asarray(0))
            loss = jax.eval_shape(model.loss, model.state)
    except DriftcalError:
        raise
    except Exception as error:
        raise ConfigError(
            f"--model {spec!r}: step(state, parameters, k) or loss(state) fails ({type(error).__name__}: {error})."
        ) from error
    before = jax.eval_shape(lambda: model.state)
    if before != after:
        raise ConfigError(f"--model {spec!r}: a step makes {after} of a state {before}; expected the same.")
    if getattr(loss, "shape", None) != ():
        raise ConfigError(f"--model {spec!r}: the loss must be a scalar, and is {loss}.")
