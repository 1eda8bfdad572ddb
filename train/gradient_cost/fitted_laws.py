"""Laws fitted to measurements, and their consequences. Numpy alone.

memory   bytes(n) = fixed + per_step n
time     seconds(n) ~ n^exponent
forward  seconds(P) = base + each P, against reverse mode's, which does not depend on the number of parameters P
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Line:
    """y = fixed + each x, both at least 0."""

    fixed: float
    each: float

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> "Line | None":
        """The line of least relative squares; None from fewer than two different x."""
        if len(set(x)) < 2:
            return None
        at, values = np.asarray(x, float), np.asarray(y, float)
        weight = 1.0 / np.where(values == 0.0, 1.0, np.abs(values))  # a small program may need no memory at all
        each, fixed = np.polyfit(at, values, 1, w=weight)
        if each < 0.0:
            return cls(float(np.average(values, weights=weight)), 0.0)
        if fixed < 0.0:
            return cls(0.0, float((weight**2 * values * at).sum() / (weight**2 * at * at).sum()))
        return cls(float(fixed), float(each))

    def at(self, x: float) -> float:
        """Y."""
        return self.fixed + self.each * x

    def reaches(self, y: float) -> float:
        """The x at which y is reached: infinite if it never is, 0 if it already is."""
        if y <= self.fixed:
            return 0.0
        return (y - self.fixed) / self.each if self.each > 0.0 else float("inf")


def exponent(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Q of y ~ x^q; None from fewer than two different x."""
    if len(set(x)) < 2:
        return None
    return float(np.polyfit(np.log(x), np.log(np.maximum(np.asarray(y, float), 1e-300)), 1)[0])


def predicted(x: Sequence[float], y: Sequence[float], at: float) -> float:
    """Y at a larger `at` than all x, growing at least in proportion."""
    order = np.argsort(x)
    last_x, last_y = np.asarray(x, float)[order[-1]], np.asarray(y, float)[order[-1]]
    q = max(1.0, exponent(x, y) or 1.0)
    return float(last_y * (at / last_x) ** q)


def crossover(forward: Line | None, reverse: float) -> float | None:
    """Number of parameters from which reverse mode is the faster one."""
    return None if forward is None else forward.reaches(reverse)
