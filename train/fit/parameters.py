"""Parameters of a module: those that are trained, as one vector, by name.

Trained is every jax array of floats in an `equinox.Module`; Python numbers and numpy arrays are constants. Everything
that moves parameters sees the vector alone, in the coordinates in which it is trained: the logarithm of what is
`Positive`, the number itself otherwise. Names and values are for people.

A module may offer more, as attributes of its class; each of them is optional:

    formula              the model in words for a reader
    symbols              {name: symbol}, how text and figures call a parameter
    ranges               {name: (least, greatest)}, values at which the score is looked at
    scales_diffusivity   True where the one parameter multiplies the diffusivity: the closed-form step
                         (`drift.energy_newton`) then finds it from any start
"""

import io
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from driftcal.shared.errors import ConfigError, DataError
from driftcal.shared.store.manifest import write_file

MOST_NAMED = 10
"""Parameters up to which each has a name, a value and a standard error of its own in results: beyond, a curvature
matrix costs too many gradients."""

LARGEST_FACTOR = 1e6
"""Distance from its start beyond which a positive parameter has no meaning for any ocean."""


FAR_FACTOR = 10.0
"""Distance from its start at which a positive parameter that still moves may be on its way to a bound."""


class RanOff(DataError):
    """A positive parameter that has no minimum near its start.

    Attributes:
        index: its place among the parameters.
        way: -1 where it ran down, 1 where it ran up.
    """

    def __init__(self, message: str, index: int, way: int):
        super().__init__(message)
        self.index, self.way = index, way


class Positive(eqx.Module):
    """A positive parameter, trained through its logarithm; results speak of its value."""

    log: Float[Array, "..."]

    def __init__(self, value: float | Array):
        self.log = jnp.log(jnp.asarray(value, float))

    @classmethod
    def of_log(cls, log: Array) -> "Positive":
        """The parameter with this logarithm, as it is: nothing is computed."""
        made = cls.__new__(cls)
        object.__setattr__(made, "log", log)
        return made

    @property
    def value(self) -> Float[Array, "..."]:
        """The parameter itself."""
        return jnp.exp(self.log)


class Leaf(NamedTuple):
    """One trained array of a module.

    Attributes:
        path: Its name in the module.
        names: Those of its numbers, in order.
        values: The numbers as trained.
        positive: Tells whether they are logarithms.
    """

    path: str
    names: list[str]
    values: np.ndarray
    positive: bool


@dataclass(frozen=True)
class Parameters:
    """The P trained parameters of a module.

    Attributes:
        module: The module, with the parameters at their start.
        names: Names of the parameters.
        positive: Tells which of them are trained through their logarithm.
        start: Their start, as trained.
        formula: The model, in words for a reader.
        headline: Name of the parameter that results give under its own name beside the others.
    """

    module: eqx.Module
    names: tuple[str, ...]
    positive: Bool[np.ndarray, " P"]
    start: Float[np.ndarray, " P"]
    formula: str
    headline: str | None = None

    @classmethod
    def of(cls, module: eqx.Module, formula: str, headline: str | None = None) -> "Parameters":
        """The parameters of `module`; `formula` is for one that offers none."""
        leaves = trained_leaves(module)
        return cls(
            module,
            tuple(name for leaf in leaves for name in leaf.names),
            np.concatenate([np.full(len(leaf.names), leaf.positive) for leaf in leaves]),
            np.concatenate([np.asarray(leaf.values, np.float64).ravel() for leaf in leaves]),
            getattr(module, "formula", formula),
            headline,
        )

    @property
    def size(self) -> int:
        """P."""
        return len(self.names)

    def without(self, held: Collection[int]) -> "Parameters":
        """The parameters but for those in the places `held`, which are constants."""
        free = [k for k in range(self.size) if k not in held]
        names = tuple(self.names[k] for k in free)
        return replace(self, names=names, positive=self.positive[free], start=self.start[free])

    @property
    def few(self) -> bool:
        """Tells whether the parameters are so few that each is reported by name, with an error."""
        return self.size <= MOST_NAMED

    @property
    def one_positive(self) -> bool:
        """Tells whether there is a single parameter, and it is positive: it can have a profile, and one per group."""
        return self.size == 1 and bool(self.positive[0])

    @property
    def closed_form(self) -> bool:
        """Tells whether the one parameter multiplies the diffusivity, so that a step to its best value is known."""
        return self.one_positive and bool(getattr(self.module, "scales_diffusivity", False))

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Least and greatest value at which the score is looked at, for the parameters of which the model gives it."""
        return getattr(self.module, "ranges", {})

    def symbol(self, k: int = 0) -> str:
        """Parameter `k` as text calls it."""
        symbols: Mapping[str, str] = getattr(self.module, "symbols", {})
        return symbols.get(self.names[k], self.names[k])

    def values(self, vector: np.ndarray) -> np.ndarray:
        """The parameters themselves, of what is trained; `(..., P)` float64."""
        vector = np.asarray(vector, np.float64)
        return np.where(self.positive, np.exp(np.where(self.positive, vector, 0.0)), vector)

    def stop_if_diverged(self, vector: np.ndarray) -> None:
        """Refuses parameters that have gone where there is no minimum.

        Raises:
            RanOff: A positive one is a million times larger or smaller than at its start.
            DataError: One is not finite.
        """
        gone = ~np.isfinite(vector) | (self.positive & (np.abs(vector - self.start) > np.log(LARGEST_FACTOR)))
        if gone.any():
            k = int(np.argmax(gone))
            symbol = self.symbol(k)
            said = (
                f"{symbol if symbol != self.names[k] else f'parameter {symbol}'} went to {self.values(vector)[k]:.3g}: "
                f"the objective has no minimum near its start, {self.values(self.start)[k]:.3g}, on these samples. Try "
                f"score.objective=energy, another start, or look at the samples with drift-inspect."
            )
            if np.isfinite(vector).all():
                raise RanOff(said, k, 1 if vector[k] > self.start[k] else -1)
            raise DataError(said)

    def stop_if_lost(self, vector: np.ndarray, gradient: np.ndarray) -> None:
        """Refuses a positive parameter that has gone so far from its start that it moves no sample's score.

        Raises:
            RanOff: There is one.
        """
        lost = self.positive & (np.abs(vector - self.start) > np.log(FAR_FACTOR)) & ~gradient.any(axis=0)
        if lost.any():
            k = int(np.argmax(lost))
            said = f"{self.symbol(k)} went to {self.values(vector)[k]:.3g}, where it does not change the score."
            raise RanOff(said, k, 1 if vector[k] > self.start[k] else -1)


def is_trained(leaf: Any) -> bool:
    """Tells whether a leaf of a module is trained: `equinox.is_inexact_array` without numpy's arrays."""
    return isinstance(leaf, jax.Array) and eqx.is_inexact_array(leaf)


def trained_leaves(module: eqx.Module) -> list[Leaf]:
    """The trained arrays of a module, in the order of its leaves."""
    found = []
    flat = jax.tree_util.tree_flatten_with_path(module, is_leaf=lambda node: isinstance(node, Positive))[0]
    for path, node in flat:
        values = node.log if isinstance(node, Positive) else node
        if is_trained(values):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            indices = [",".join(map(str, index)) for index in np.ndindex(values.shape)]
            names = [f"{name}[{index}]" if index else name for index in indices]
            found.append(Leaf(name, names, np.asarray(values), isinstance(node, Positive)))
    return found


def rebuilder(module: eqx.Module) -> Callable[[Array], eqx.Module]:
    """The function from a vector of trained numbers back to the module."""
    trained, rest = eqx.partition(module, is_trained)
    unravel = ravel_pytree(trained)[1]
    return lambda vector: eqx.combine(unravel(vector), rest)


def with_vector(module: eqx.Module, vector: np.ndarray) -> eqx.Module:
    """The module with other trained numbers."""
    trained, rest = eqx.partition(module, is_trained)
    flat, unravel = ravel_pytree(trained)
    return eqx.combine(unravel(jnp.asarray(vector, flat.dtype)), rest)


def vector_of(module: eqx.Module) -> Array:
    """The trained numbers of a module."""
    return ravel_pytree(eqx.filter(module, is_trained))[0]


def save(path: Path, module: eqx.Module) -> None:
    """Writes all arrays of a module, as `equinox.tree_deserialise_leaves` reads them."""
    write_file(path, encoded(module))


def encoded(tree: Any) -> bytes:
    """The bytes that `save` writes of a module, or of a part of one."""
    buffer = io.BytesIO()
    eqx.tree_serialise_leaves(buffer, tree)
    return buffer.getvalue()


def saved(path: Path, like: eqx.Module) -> eqx.Module:
    """The module in `path`, a calibrated one of the kind of `like`.

    Raises:
        ConfigError: It cannot be read, or holds another module.
    """
    try:
        return eqx.tree_deserialise_leaves(io.BytesIO(path.read_bytes()), like)
    except (OSError, RuntimeError, ValueError, EOFError, TypeError) as error:
        raise ConfigError(
            f"{path} does not hold the calibrated parameters of {type(like).__name__} ({error}). The class has changed "
            f"since, or the file is damaged: train again."
        ) from error
