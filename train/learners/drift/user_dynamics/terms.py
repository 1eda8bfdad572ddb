"""Dynamics that users write: an Equinox module with `term(t, y, args) -> (drift, diffusion)`.

A term says how one particle moves, as an Ito equation; the scan maps it over members and samples:

    t          time after the sample's first fix [s]
    y          (lon, lat) [degrees], shape (2,). Longitude is continuous inside a sample. float32 resolves a metre;
               the integration keeps positions of its own, relative to the starting cell, so nothing is lost by that
    args       `drift.smagorinsky.Flow` at y: u, v [m/s], kappa [m2/s], its gradient kappa_x, kappa_y [m/s], ashore
    drift      (east, north) [m/s], shape (2,): all of it, grad K included
    diffusion  amplitude b of the noise b dW [m s^-1/2]: sqrt(2 K), of shape () or (2,) for east and north

What is trained is every jax array of floats in the module. Python numbers and numpy arrays are constants, a field of
wind for instance. `Positive` holds a parameter that is trained through its logarithm.

Inside land (`args.ashore`) a member stays, whatever the term says.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from driftcal.shared.errors import ConfigError
from driftcal.shared.store.manifest import write_file
from driftcal.train.learners.drift.smagorinsky import Flow
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

Term = Callable[[Array, Array, Flow], tuple[Array, Array]]
"""(t, y, args) -> (drift, diffusion), for one particle."""


class Positive(eqx.Module):
    """A positive parameter, trained through its logarithm; results speak of its value."""

    log: Float[Array, "..."]

    def __init__(self, value: float | Array):
        self.log = jnp.log(jnp.asarray(value, float))

    @property
    def value(self) -> Float[Array, "..."]:
        """The parameter itself."""
        return jnp.exp(self.log)


class Leaf(NamedTuple):
    """One trained array of a module.

    Attributes:
        path: its name in the module.
        names: of its numbers, in order.
        values: as trained.
        positive: whether they are logarithms.
    """

    path: str
    names: list[str]
    values: np.ndarray
    positive: bool


class Adapter(eqx.Module):
    """A user's term as dynamics of the scan, mapped over members and samples.

    Attributes:
        vector: the parameters as trained, the same for all samples or one row a sample.
        rebuild: from one such vector to the term.
    """

    vector: Float[Array, "*B P"]
    rebuild: Callable[[Array], Term] = eqx.field(static=True)

    def __call__(self, flow: Flow, gradient_share: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Drift (east, north) [m/s] and amplitudes (east, north) [m s^-1/2] of all members of all samples."""
        if gradient_share != 1.0:
            raise ValueError("a term gives the whole drift of the Ito equation; schemes that add to it do not fit")
        place = flow.place
        assert place is not None

        def one(vector: Array, lon: Array, lat: Array, at: Flow) -> tuple[Array, Array]:
            y = jnp.stack([lon, lat])
            drift, diffusion = self.rebuild(vector)(place.time, y, at)
            moved = jnp.asarray(drift, y.dtype), jnp.broadcast_to(jnp.asarray(diffusion, y.dtype), (2,))
            return jax.tree.map(lambda f: jnp.where(at.ashore, 0.0, f), moved)

        members = jax.vmap(one, (None, 0, 0, 0), -1)
        samples = jax.vmap(members, (0 if self.vector.ndim == 2 else None, 1, 1, 1), -1)
        drift, diffusion = samples(self.vector, place.lon, place.lat, flow._replace(place=None))
        return (drift[0], drift[1]), (diffusion[0], diffusion[1])


def is_trained(leaf: Any) -> bool:
    """Tells whether a leaf of a module is trained: like `equinox.is_inexact_array`, which takes numpy arrays too."""
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


def rebuilder(module: eqx.Module) -> Callable[[Array], Term]:
    """Returns the function that rebuilds the module's term from a vector of its trained numbers."""
    trained, rest = eqx.partition(module, is_trained)
    unravel = ravel_pytree(trained)[1]
    return lambda vector: term_of(eqx.combine(unravel(vector), rest))


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
    """Bytes that `save` writes for a module, or for a part of one."""
    buffer = io.BytesIO()
    eqx.tree_serialise_leaves(buffer, tree)
    return buffer.getvalue()


def saved(path: Path, like: eqx.Module) -> eqx.Module:
    """The module in `path`, a calibrated one of the kind of `like`.

    Raises:
        ConfigError: it cannot be read, or holds another module.
    """
    try:
        return eqx.tree_deserialise_leaves(io.BytesIO(path.read_bytes()), like)
    except (OSError, RuntimeError, ValueError, EOFError, TypeError) as error:
        raise ConfigError(
            f"{path} does not hold the calibrated parameters of {type(like).__name__} ({error}). The class has changed "
            f"since, or the file is damaged: train again."
        ) from error


def term_of(module: eqx.Module) -> Term:
    """The term of a module: its method `term`, or the module itself where that can be called, as in pastax."""
    return cast(Term, getattr(module, "term", module))
