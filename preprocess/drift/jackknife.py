"""Jackknife errors of statistics of encounters: sums by independent unit, and functions of those sums.

All statistics are functions of sums over units that are independent, so leaving out one unit after the other gives
their errors (docs/agreement.md).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex128, Float64, Int, Num
from scipy.special import stdtrit


@dataclass(frozen=True)
class Sums:
    """Sums over the encounters of each unit, arrays `(units,)`: all that the statistics need."""

    vu: Complex128[np.ndarray, "*units"]
    """Sum of v u*, complex."""
    mirrored: Complex128[np.ndarray, "*units"]
    """Sum of v u, complex."""
    vv: Float64[np.ndarray, "*units"]
    """Sum of |v|²."""
    uu: Float64[np.ndarray, "*units"]
    """Sum of |u|²."""
    v2: Complex128[np.ndarray, "*units"]
    """Sum of v², complex."""
    u2: Complex128[np.ndarray, "*units"]
    """Sum of u², complex."""

    @classmethod
    def of(
        cls, track: Complex128[np.ndarray, " n"], current: Complex128[np.ndarray, " n"], unit: Int[np.ndarray, " n"]
    ) -> "Sums":
        """The sums of velocities `(n,)` over the encounters of each `unit`, numbers from 0 on, `(n,)`."""

        def total(values: Num[np.ndarray, " n"]) -> Num[np.ndarray, " units"]:
            out = np.zeros(int(unit.max(initial=-1)) + 1, values.dtype)
            np.add.at(out, unit, values)
            return out

        lengths = np.abs(track) ** 2, np.abs(current) ** 2
        return cls(*map(total, (track * current.conj(), track * current, *lengths, track**2, current**2)))

    def without_each(self) -> "Sums":
        """The sums over all units but one, for each of them."""
        return Sums(*(values.sum() - values for values in self.__dict__.values()))

    def all(self) -> "Sums":
        """The sums over all units, of one."""
        return Sums(*(values.sum(keepdims=True) for values in self.__dict__.values()))

    def correlation(self) -> np.ndarray:
        """The complex correlation; 0 where there is no motion."""
        return self.vu / np.sqrt(np.maximum(self.vv * self.uu, LEAST))

    def mirrored_correlation(self) -> np.ndarray:
        """Complex correlation with mirrored currents, i.e. with their complex conjugate."""
        return self.mirrored / np.sqrt(np.maximum(self.vv * self.uu, LEAST))

    def along(self, sign: int) -> np.ndarray:
        """The correlation of the eastward components, for `sign` 1, or of the northward ones, for -1."""
        size = (self.vv + sign * np.real(self.v2)) * (self.uu + sign * np.real(self.u2))
        return np.real(self.vu + sign * self.mirrored) / np.sqrt(np.maximum(size, LEAST))

    def factor(self) -> np.ndarray:
        """Factor by which the currents must be multiplied."""
        return np.real(self.vu) / np.maximum(self.uu, LEAST)

    def inverse_factor(self) -> np.ndarray:
        """Factor by which the drifters' velocities must be multiplied."""
        return np.real(self.vu) / np.maximum(self.vv, LEAST)


LEAST = 1e-30
"""Least sum that is motion [m2/s2, or its square]."""


@dataclass(frozen=True)
class Spread:
    """An estimate, and its values with each unit left out in turn."""

    value: float
    without: np.ndarray

    @property
    def error(self) -> float:
        """Standard error by the jackknife."""
        n = len(self.without)
        return float(np.sqrt((n - 1) / n * np.sum((self.without - self.without.mean()) ** 2)))

    def margin(self, confidence: float) -> float:
        """Distance from the estimate to a bound of this one-sided confidence, by Student's t."""
        return float(stdtrit(len(self.without) - 1, confidence)) * self.error

    def least(self, confidence: float) -> float:
        """Lower bound."""
        return self.value - self.margin(confidence)

    def most(self, confidence: float) -> float:
        """Upper bound."""
        return self.value + self.margin(confidence)


def spread(sums: Sums, statistic: Callable[[Sums], np.ndarray]) -> Spread:
    """`statistic`, a number of each unit's sums, over all units and without each."""
    return Spread(float(statistic(sums.all()).item()), statistic(sums.without_each()))
