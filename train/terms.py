"""Dynamics that users write: an Equinox module with `term(t, y, args) -> (drift, diffusion)`.

A term says how one particle moves, as an Ito equation; the scan maps it over members and samples:

    t          time after the sample's first fix [s]
    y          (lon, lat) [degrees], shape (2,). Longitude is continuous inside a sample. float32 resolves a metre;
               the integration keeps positions of its own, relative to the starting cell, so nothing is lost by that
    args       `train.dynamics.Flow` at y: u, v [m/s], kappa [m2/s], its gradient kappa_x, kappa_y [m/s], ashore
    drift      (east, north) [m/s], shape (2,): all of it, grad K included
    diffusion  amplitude b of the noise b dW [m s^-1/2]: sqrt(2 K), of shape () or (2,) for east and north

What is trained is every jax array of floats in the module. Python numbers and numpy arrays are constants, a field of
wind for instance. `Positive` holds a parameter that is trained through its logarithm.

Inside land (`args.ashore`) a member stays, whatever the term says.
"""

import importlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from shared.errors import ConfigError
from shared.manifest import write_file
from train.dynamics import Flow

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


def _is_trained(leaf: Any) -> bool:
    """Whether a leaf of a module is trained: as `equinox.is_inexact_array`, which takes numpy arrays too."""
    return isinstance(leaf, jax.Array) and eqx.is_inexact_array(leaf)


def trained_leaves(module: eqx.Module) -> list[Leaf]:
    """The trained arrays of a module, in the order of its leaves."""
    found = []
    flat = jax.tree_util.tree_flatten_with_path(module, is_leaf=lambda node: isinstance(node, Positive))[0]
    for path, node in flat:
        values = node.log if isinstance(node, Positive) else node
        if _is_trained(values):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            indices = [",".join(map(str, index)) for index in np.ndindex(values.shape)]
            names = [f"{name}[{index}]" if index else name for index in indices]
            found.append(Leaf(name, names, np.asarray(values), isinstance(node, Positive)))
    return found


def rebuilder(module: eqx.Module) -> Callable[[Array], Term]:
    """From a vector of trained numbers back to the module's term."""
    trained, rest = eqx.partition(module, _is_trained)
    unravel = ravel_pytree(trained)[1]
    return lambda vector: term_of(eqx.combine(unravel(vector), rest))


def with_vector(module: eqx.Module, vector: np.ndarray) -> eqx.Module:
    """The module with other trained numbers."""
    trained, rest = eqx.partition(module, _is_trained)
    flat, unravel = ravel_pytree(trained)
    return eqx.combine(unravel(jnp.asarray(vector, flat.dtype)), rest)


def vector_of(module: eqx.Module) -> Array:
    """The trained numbers of a module."""
    return ravel_pytree(eqx.filter(module, _is_trained))[0]


def save(path: Path, module: eqx.Module) -> None:
    """Writes all arrays of a module, as `equinox.tree_deserialise_leaves` reads them."""
    buffer = io.BytesIO()
    eqx.tree_serialise_leaves(buffer, module)
    write_file(path, buffer.getvalue())


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


def load(spec: str, arguments: Mapping[str, Any], dtype: np.dtype) -> eqx.Module:
    """The module that `spec`, `module:Class`, names, built with `arguments`, its trained arrays in `dtype`.

    The module is looked for in the working directory too.

    Raises:
        ConfigError: it cannot be imported or built, has no term or nothing to train, or its term gives something else.
    """
    name, colon, attribute = spec.partition(":")
    if not colon or not name or not attribute.isidentifier():
        raise ConfigError(f"dynamics {spec!r}: expected module:Class, such as my_dynamics:WindDrift.")
    try:
        with _working_directory():
            found = importlib.import_module(name)
    except Exception as error:
        raise ConfigError(
            f"dynamics {spec!r}: cannot import {name} ({type(error).__name__}: {error}). It must be installed, or lie "
            f"in the working directory, {Path.cwd()}."
        ) from error
    made = getattr(found, attribute, None)
    if not (isinstance(made, type) and issubclass(made, eqx.Module)):
        raise ConfigError(f"dynamics {spec!r}: {name} has no subclass of equinox.Module called {attribute}.")
    try:
        module = made(**arguments)
    except Exception as error:
        raise ConfigError(
            f"dynamics {spec!r}: {attribute} cannot be built from dynamics_settings {dict(arguments)} "
            f"({type(error).__name__}: {error})."
        ) from error
    if not callable(term_of(module)):
        raise ConfigError(f"dynamics {spec!r}: {attribute} has no method term(t, y, args), nor can it be called so.")
    module = jax.tree.map(lambda leaf: leaf.astype(dtype) if _is_trained(leaf) else leaf, module)
    _check_start(spec, module)
    _check_shapes(spec, module, dtype)
    return module


@contextmanager
def _working_directory() -> Iterator[None]:
    """The working directory on the import path, which installed commands leave out."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _check_start(spec: str, module: eqx.Module) -> None:
    leaves = trained_leaves(module)
    if not leaves:
        raise ConfigError(
            f"dynamics {spec!r} has nothing to train: a trained parameter is a jax array of floats in the module, such "
            f"as train.terms.Positive(0.1) or jax.numpy.asarray(0.01)."
        )
    for leaf in leaves:
        if np.iscomplexobj(leaf.values) or not np.isfinite(leaf.values).all():
            what = "is complex" if np.iscomplexobj(leaf.values) else "does not start at finite numbers"
            also = "; a Positive starts above 0" if leaf.positive else ""
            raise ConfigError(f"dynamics {spec!r}: parameter {leaf.names[0]} {what} ({leaf.values}){also}.")


def _check_shapes(spec: str, module: eqx.Module, dtype: np.dtype) -> None:
    zero = jnp.zeros((), dtype)
    flow = Flow(zero, zero, zero, zero, zero, jnp.asarray(False))
    try:
        found = eqx.filter_eval_shape(term_of(module), zero, jnp.zeros(2, dtype), flow)
    except Exception as error:
        raise ConfigError(
            f"dynamics {spec!r}: term(t, y, args) fails for t of shape (), y of shape (2,) and args a "
            f"train.dynamics.Flow of one particle ({type(error).__name__}: {error})."
        ) from error
    wanted = "expected (drift, diffusion): arrays of shape (2,), and () or (2,)"
    if not isinstance(found, tuple) or len(found) != 2:
        raise ConfigError(f"dynamics {spec!r}: term returns {type(found).__name__}; {wanted}.")
    for name, value, allowed in zip(("drift", "diffusion"), found, ([(2,)], [(), (2,)]), strict=True):
        shape = getattr(value, "shape", () if isinstance(value, float | int) else None)
        if shape not in allowed or np.issubdtype(getattr(value, "dtype", float), np.complexfloating):
            came = f"shape {shape}" if shape is not None else type(value).__name__
            raise ConfigError(f"dynamics {spec!r}: term returns {name} of {came}; {wanted}.")


PROBES = {"a flow of 0.4 m/s with kappa 500 m2/s": (0.3, -0.25, 500.0, 2e-3, -1e-3), "a flow at rest": (0.0,) * 5}
"""Flows at which a term and its derivatives must be finite: u, v, kappa, kappa_x, kappa_y."""


def probe(spec: str, module: eqx.Module, lonlat: np.ndarray) -> None:
    """Refuses a term that is not finite, or has a derivative that is not, at `lonlat` [degrees] at the start.

    One bad flow in a simulation is found there, and its sample left out by name; this finds what would spoil all.
    """
    trained, rest = eqx.partition(module, _is_trained)
    y = jnp.asarray(lonlat, jax.tree.leaves(trained)[0].dtype)
    for name, numbers in PROBES.items():
        flow = jnp.asarray(numbers, y.dtype)

        def term(trained: Any, y: Array, flow: Array) -> tuple[Array, Array]:
            at = Flow(flow[0], flow[1], flow[2], flow[3], flow[4], jnp.asarray(False))
            drift, diffusion = term_of(eqx.combine(trained, rest))(jnp.zeros((), y.dtype), y, at)
            return jnp.asarray(drift), jnp.asarray(diffusion)

        values, slopes = term(trained, y, flow), jax.jacfwd(term, (0, 1, 2))(trained, y, flow)
        for what, value, slope in zip(("drift", "diffusion"), values, slopes, strict=True):
            where = f"in {name} at lon, lat {lonlat.tolist()}"
            if not np.isfinite(value).all():
                raise ConfigError(f"dynamics {spec!r}: {what} is {np.asarray(value)} {where}.")
            if not all(np.isfinite(part).all() for part in jax.tree.leaves(slope)):
                raise ConfigError(
                    f"dynamics {spec!r}: {what} has a derivative that is not finite {where}. The square root has none "
                    f"at 0: write jnp.sqrt(2 * jnp.maximum(K, 1e-12))."
                )
