"""The canonical form of a traced function: its computation, whatever its name and wherever it runs.

`jax.make_jaxpr` writes a function as equations. Names of variables and functions, places in files, addresses and the
order of unused equations do not affect the computation, and are left out here. Constants are kept apart from the
equations, so that a difference can be judged by its value.
"""

import dataclasses
import enum
import hashlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

NO_MEANING = {
    *("name", "debug_info", "source_info", "ctx_mesh", "sharding", "in_shardings", "out_shardings", "out_sharding"),
    *("in_layouts", "out_layouts", "donated_invars", "keep_unused", "inline", "compiler_options_kvs"),
    # derivatives by hand are seen where they are applied, callbacks by what they return
    *("callback", "jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "fwd", "jvp"),
}
"""Parameters of equations that affect the name or the way of a computation, not its result."""

AT_ONCE = 2**20
"""Elements of an array that are examined together."""

_PLACES = re.compile(r" at 0x[0-9a-f]+|0x[0-9a-f]{6,}|[^\s'\"]+\.py:\d+(:\d+)?")
"""Addresses and lines of files in the text of an object."""


class Program(NamedTuple):
    """A traced function.

    Attributes:
        digest: sha256 of its equations without their numbers.
        numbers: those written into it, in order, as text.
        arrays: those that it closes over, in order: `shape`, `dtype`, `sha256` and `sketch`, three sums of an array of
            floats that rounding changes by as little as its elements.
    """

    digest: str
    numbers: list[str]
    arrays: list[dict[str, Any]]


def program(function: Callable[..., Any], *arguments: Any) -> Program:
    """The program that `function` is for arguments of such shapes and dtypes."""
    writer = _Writer()
    writer.closed(jax.make_jaxpr(function)(*arguments))
    return Program(writer.sha256.hexdigest(), writer.numbers, writer.arrays)


class _Writer:
    """Writes equations into a digest, and sets numbers and arrays apart."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.numbers: list[str] = []
        self.arrays: list[dict[str, Any]] = []

    def put(self, *words: str) -> None:
        for word in words:
            self.sha256.update(word.encode() + b"\0")

    def closed(self, closed: ClosedJaxpr) -> None:
        self.jaxpr(closed.jaxpr, dict(zip(closed.jaxpr.constvars, closed.consts, strict=True)))

    def jaxpr(self, jaxpr: Jaxpr, constants: dict[Any, Any]) -> None:
        numbers: dict[Any, int] = {}

        def used(atom: Any) -> None:
            if isinstance(atom, Literal):
                self.value(atom.val, str(atom.aval))
            elif atom in constants and atom not in numbers:
                numbers[atom] = len(numbers)
                self.value(constants[atom], str(constants[atom].dtype))
            else:
                self.put(f"v{numbers.setdefault(atom, len(numbers))}")

        self.put("(")
        for variable in jaxpr.invars:
            used(variable)
            self.put(str(variable.aval))
        for equation in _needed(jaxpr):
            self.put(equation.primitive.name)
            for atom in equation.invars:
                used(atom)
            for key in sorted(equation.params.keys() - NO_MEANING):
                self.put(key)
                self.parameter(equation.params[key])
            for variable in equation.outvars:
                self.put(f"v{numbers.setdefault(variable, len(numbers))}", str(variable.aval))
        self.put("->")
        for atom in jaxpr.outvars:
            used(atom)
        self.put(")")

    def value(self, value: Any, kind: str) -> None:
        """A number or an array that is written into the equations."""
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        if array.shape == () and np.issubdtype(array.dtype, np.inexact):
            self.put("number", kind)
            self.numbers.append(repr(array.item()))
        elif array.shape == ():
            self.put(kind, repr(array.item()))
        else:
            self.put("array")
            self.arrays.append(described(array))

    def parameter(self, value: Any) -> None:
        """A parameter of an equation, whatever it is."""
        if isinstance(value, ClosedJaxpr):
            self.closed(value)
        elif isinstance(value, Jaxpr):
            self.jaxpr(value, {})
        elif isinstance(value, np.ndarray | np.generic | jax.Array):
            self.value(value, str(value.dtype))
        elif isinstance(value, float):
            self.value(value, "float")
        elif value is None or isinstance(value, bool | int | str | bytes | complex):
            self.put(type(value).__name__, repr(value))
        elif isinstance(value, enum.Enum):
            self.put(value.name)
        elif isinstance(value, dict):
            self._parts([part for key in sorted(value, key=str) for part in (str(key), value[key])])
        elif isinstance(value, set | frozenset):
            self._parts(sorted(_text(part) for part in value))
        elif isinstance(value, tuple | list):
            self._parts(value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            self.put(type(value).__name__)
            self._parts([getattr(value, field.name) for field in dataclasses.fields(value)])
        else:
            self.put(_text(value))

    def _parts(self, parts: Any) -> None:
        self.put("[")
        for part in parts:
            self.parameter(part)
        self.put("]")


def _needed(jaxpr: Jaxpr) -> list[Any]:
    """The equations whose results are used, or that have side effects."""
    needed, kept = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}, []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(variable in needed for variable in equation.outvars):
            kept.append(equation)
            needed |= {atom for atom in equation.invars if not isinstance(atom, Literal)}
    return kept[::-1]


def _text(value: Any) -> str:
    """An object by its text, or where that would be another in every process, by its type."""
    if isinstance(value, type):
        return value.__qualname__
    return type(value).__qualname__ if callable(value) else _PLACES.sub("", repr(value))


def described(array: np.ndarray) -> dict[str, Any]:
    """Identification of an array, for JSON; see `Program.arrays`."""
    flat = np.ascontiguousarray(array).reshape(-1)
    digest, floating = hashlib.sha256(), np.issubdtype(array.dtype, np.floating)
    sums = np.zeros(3)
    for first in range(0, flat.size, AT_ONCE):  # an array may be as large as the memory allows
        part = flat[first : first + AT_ONCE]
        digest.update(part.tobytes())
        if floating:
            numbers = np.nan_to_num(part.astype(np.float64))
            waves = np.cos(1.0 + first + np.arange(part.size))
            sums += np.sum(numbers**2), np.sum(numbers), np.sum(waves * numbers)
    mean = sums / max(flat.size, 1)
    sketch = [float(np.sqrt(mean[0])), float(mean[1]), float(mean[2])] if floating else None
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "sha256": digest.hexdigest(),
        "sketch": sketch,
    }
