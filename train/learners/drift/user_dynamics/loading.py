"""Loads dynamics that users write (`terms`), and refuses those that would fail or mislead, before a run begins."""

import importlib.util
import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from driftcal.shared.errors import ConfigError, DriftcalError
from driftcal.train.fit.parameters import encoded, is_trained, trained_leaves
from driftcal.train.learners.drift.smagorinsky import Flow
from driftcal.train.learners.drift.user_dynamics import isolation, tracing
from driftcal.train.learners.drift.user_dynamics.fingerprint import Fingerprint, same
from driftcal.train.learners.drift.user_dynamics.terms import term_of

TRACES = 4
"""Number of times that a term is traced: a random draw would have to repeat itself each time to pass."""


def load(spec: str, arguments: Mapping[str, Any], dtype: np.dtype) -> eqx.Module:
    """The module that `spec`, `module:Class`, names, built with `arguments`, its trained arrays in `dtype`.

    The module is looked for in the working directory too.

    Raises:
        ConfigError: it cannot be imported or built, has no term or nothing to train, its term gives something else, it
            cannot be saved, or it ends the process.
    """
    name, colon, attribute = spec.partition(":")
    if not colon or not name or not attribute.isidentifier():
        raise ConfigError(f"dynamics {spec!r}: expected module:Class, such as my_dynamics:WindDrift.")
    made = isolation.load(name, attribute, f"dynamics {spec!r}")
    if not (isinstance(made, type) and issubclass(made, eqx.Module)):
        raise ConfigError(f"dynamics {spec!r}: {name} has no subclass of equinox.Module called {attribute}.")
    module = _built(spec, made, arguments, dtype)
    if not callable(term_of(module)):
        raise ConfigError(f"dynamics {spec!r}: {attribute} has no method term(t, y, args), nor can it be called so.")
    _check_start(spec, module)
    _check_shapes(spec, module, dtype)
    _check_saving(spec, module)
    _check_settings(spec, arguments)
    return module


def _built(spec: str, made: type, arguments: Mapping[str, Any], dtype: np.dtype, silent: bool = False) -> eqx.Module:
    try:
        with isolation.guarded(f"dynamics {spec!r}: building {made.__name__}", silent):
            module = made(**arguments)
    except DriftcalError:
        raise
    except Exception as error:
        raise ConfigError(
            f"dynamics {spec!r}: {made.__name__} cannot be built from dynamics_settings {dict(arguments)} "
            f"({type(error).__name__}: {error})."
        ) from error
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if is_trained(leaf) else leaf, module)


def fingerprint_of(spec: str, module: eqx.Module, points: tracing.Points) -> Fingerprint:
    """The fingerprint of a term, evaluated at `points`.

    Raises:
        ConfigError: it cannot be traced, called for many particles at once, or differentiated.
    """
    with _computing(spec):
        return tracing.fingerprint(spec, module, points)


def function_of(spec: str, module: eqx.Module, arguments: Mapping[str, Any], points: tracing.Points) -> Fingerprint:
    """Fingerprint, as `fingerprint_of` takes it, of a term that is a function of its arguments.

    Raises:
        ConfigError: it is none: it computes otherwise when it is traced, called or built again.
    """
    first = fingerprint_of(spec, module, points)
    with _computing(spec, silent=True):
        others = [tracing.fingerprint(spec, module, points)]
        others += [first | tracing.traced(module, later=k % 2 == 0) for k in range(TRACES - 2)]
    differing = next((why for other in others if (why := same(first, other)) is not None), None)
    if differing is not None:
        raise ConfigError(
            f"dynamics {spec!r}: its term is no function of its arguments: traced again, {differing}. A term has no "
            f"random numbers, counters, clock or other state: the noise is the simulator's, of the amplitude that the "
            f"term returns as diffusion. Constants that are drawn come from a seed, in __init__: "
            f"numpy.random.default_rng(0)."
        )

    def again() -> Fingerprint:
        built = _again(spec, module, arguments, np.dtype(first["precision"]))
        with _computing(spec, silent=True):
            return tracing.fingerprint(spec, built, points)

    # a module may have been imported in another precision before: then two new ones agree
    if same(first, one := again()) is not None and (differing := same(one, again())) is not None:
        raise ConfigError(
            f"dynamics {spec!r}: it is another function whenever it is imported and built: {differing}. Draw what is "
            f"random from a seed (numpy.random.default_rng(0), jax.random.key(0)), and take neither the time nor other "
            f"state into it."
        )
    return first


@contextmanager
def _computing(spec: str, silent: bool = False) -> Iterator[None]:
    """Turns failures of a term that is traced or called inside into a ConfigError."""
    try:
        with isolation.guarded(f"dynamics {spec!r}: tracing its term", silent):
            yield
    except DriftcalError:
        raise
    except Exception as error:
        raise ConfigError(
            f"dynamics {spec!r}: term(t, y, args) cannot be computed and differentiated (jax.vmap, jax.jvp) at the "
            f"points where a run needs it ({type(error).__name__}: {error})."
        ) from error


def _again(spec: str, module: eqx.Module, arguments: Mapping[str, Any], dtype: np.dtype) -> eqx.Module:
    """The module built again, by its class as its file makes it when it is run again."""
    made = type(module)
    found = sys.modules[made.__module__].__spec__
    if found is not None and found.loader is not None and getattr(found, "has_location", False):
        fresh = importlib.util.module_from_spec(found)
        try:
            with isolation.guarded(f"dynamics {spec!r}: importing {made.__module__} again", silent=True):
                found.loader.exec_module(fresh)
        except DriftcalError:
            raise
        except Exception:  # noqa: BLE001 - it cannot be imported twice: its class is looked at as it is
            return _built(spec, made, arguments, dtype, silent=True)
        again = getattr(fresh, made.__qualname__, None)
        made = again if isinstance(again, type) else made
    return _built(spec, made, arguments, dtype, silent=True)


def _check_start(spec: str, module: eqx.Module) -> None:
    leaves = trained_leaves(module)
    if not leaves:
        raise ConfigError(
            f"dynamics {spec!r} has nothing to train: a trained parameter is a jax array of floats in the module, such "
            f"as driftcal.train.fit.parameters.Positive(0.1) or jax.numpy.asarray(0.01)."
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
        with isolation.guarded(f"dynamics {spec!r}: tracing its term"):
            found = eqx.filter_eval_shape(term_of(module), zero, jnp.zeros(2, dtype), flow)
    except DriftcalError:
        raise
    except Exception as error:
        raise ConfigError(
            f"dynamics {spec!r}: term(t, y, args) fails for t of shape (), y of shape (2,) and args a "
            f"driftcal.train.learners.drift.smagorinsky.Flow of one particle ({type(error).__name__}: {error})."
        ) from error
    wanted = "expected (drift, diffusion): arrays of shape (2,), and () or (2,)"
    if not isinstance(found, tuple) or len(found) != 2:
        raise ConfigError(f"dynamics {spec!r}: term returns {type(found).__name__}; {wanted}.")
    for name, value, allowed in zip(("drift", "diffusion"), found, ([(2,)], [(), (2,)]), strict=True):
        shape = getattr(value, "shape", () if isinstance(value, float | int) else None)
        if shape not in allowed or np.issubdtype(getattr(value, "dtype", float), np.complexfloating):
            came = f"shape {shape}" if shape is not None else type(value).__name__
            raise ConfigError(f"dynamics {spec!r}: term returns {name} of {came}; {wanted}.")


def _check_saving(spec: str, module: eqx.Module) -> None:
    """Saves and loads every leaf, as is done with the calibrated module when hours of computing are over."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(module)[0]:
        try:
            again = eqx.tree_deserialise_leaves(io.BytesIO(encoded(leaf)), leaf)
            kept = not eqx.is_array_like(leaf) or np.array_equal(
                *map(np.asarray, (leaf, again)), equal_nan=_has_nan(leaf)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told of below
            kept, why = False, f"{type(error).__name__}: {error}"
        else:
            why = "it comes back with other values"
        if not kept:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ConfigError(
                f"dynamics {spec!r}: {name}, {_kind(leaf)}, cannot be saved and loaded again ({why}), so neither could "
                f"the calibrated module. Keep it as an array of numbers, or out of the module's leaves: "
                f"equinox.field(static=True), or made where it is used."
            )


def _check_settings(spec: str, arguments: Mapping[str, Any]) -> None:
    """Refuses settings that would come back from the run's config.json as others."""
    for path, value in jax.tree_util.tree_flatten_with_path(dict(arguments), is_leaf=lambda v: isinstance(v, set))[0]:
        if not isinstance(value, str | int) and not (isinstance(value, float) and np.isfinite(value)):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ConfigError(
                f"dynamics {spec!r}: dynamics_settings.{name} is {value!r}, which a run's config.json cannot hold. "
                f"Set it to a finite number or a text, and let the class make of that what it needs."
            )


def _has_nan(leaf: Any) -> bool:
    return np.issubdtype(np.asarray(leaf).dtype, np.inexact)


def _kind(leaf: Any) -> str:
    dtype = getattr(leaf, "dtype", None)
    return type(leaf).__name__ if dtype is None else f"an array of {dtype}"


PROBES = {"a flow of 0.4 m/s with kappa 500 m2/s": (0.3, -0.25, 500.0, 2e-3, -1e-3), "a flow at rest": (0.0,) * 5}
"""Flows at which a term and its derivatives must be finite: u, v, kappa, kappa_x, kappa_y."""


def probe(spec: str, module: eqx.Module, lonlat: np.ndarray) -> None:
    """Refuses a term that is not finite, or has a derivative that is not, at `lonlat` [degrees] at the start.

    One bad flow in a simulation is found there, and its sample left out by name; this finds what would spoil all.
    """
    trained, rest = eqx.partition(module, is_trained)
    y = jnp.asarray(lonlat, jax.tree.leaves(trained)[0].dtype)
    for name, numbers in PROBES.items():
        flow = jnp.asarray(numbers, y.dtype)

        def term(trained: Any, y: Array, flow: Array) -> tuple[Array, Array]:
            at = Flow(flow[0], flow[1], flow[2], flow[3], flow[4], jnp.asarray(False))
            drift, diffusion = term_of(eqx.combine(trained, rest))(jnp.zeros((), y.dtype), y, at)
            return jnp.asarray(drift), jnp.asarray(diffusion)

        try:
            with isolation.guarded(f"dynamics {spec!r}: calling its term"):
                values, slopes = term(trained, y, flow), jax.jacfwd(term, (0, 1, 2))(trained, y, flow)
        except DriftcalError:
            raise
        except Exception as error:
            raise ConfigError(
                f"dynamics {spec!r}: term(t, y, args) cannot be computed and differentiated (jax.jacfwd) in {name} at "
                f"lon, lat {lonlat.tolist()} ({type(error).__name__}: {error})."
            ) from error
        for what, value, slope in zip(("drift", "diffusion"), values, slopes, strict=True):
            where = f"in {name} at lon, lat {lonlat.tolist()}"
            if not np.isfinite(value).all():
                raise ConfigError(f"dynamics {spec!r}: {what} is {np.asarray(value)} {where}.")
            if not all(np.isfinite(part).all() for part in jax.tree.leaves(slope)):
                raise ConfigError(
                    f"dynamics {spec!r}: {what} has a derivative that is not finite {where}. The square root has none "
                    f"at 0: write jnp.sqrt(2 * jnp.maximum(K, 1e-12))."
                )
