"""Sums over encounters of drifters with currents, and statistics of them with their errors by the jackknife.

All statistics are functions of sums over units that are independent, so leaving out one unit after the other gives
their errors (docs/agreement.md).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Sums:
    """Sums over the encounters of each unit, arrays `(units,)`: all that the statistics need."""

    vu: np.ndarray
    """Of v u*, complex."""
    mirrored: np.ndarray
    """Of v u, complex."""
    vv: np.ndarray
    """Of |v|²."""
    uu: np.ndarray
    """Of |u|²."""
    v2: np.ndarray
    """Of v², complex."""
    u2: np.ndarray
    """Of u², complex."""

    @classmethod
    def of(cls, track: np.ndarray, current: np.ndarray, unit: np.ndarray) -> "Sums":
        """The sums of velocities `(n,)` over the encounters of each `unit`, numbers from 0 on, `(n,)`."""

        def total(values: np.ndarray) -> np.ndarray:
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
        """That with the currents' complex conjugate."""
        return self.mirrored / np.sqrt(np.maximum(self.vv * self.uu, LEAST))

    def along(self, sign: int) -> np.ndarray:
        """The correlation of the eastward components, for `sign` 1, or of the northward ones, for -1."""
        size = (self.vv + sign * np.real(self.v2)) * (self.uu + sign * np.real(self.u2))
        return np.real(self.vu + sign * self.mirrored) / np.sqrt(np.maximum(size, LEAST))

    def factor(self) -> np.ndarray:
        """By which the currents must be multiplied."""
        return np.real(self.vu) / np.maximum(self.uu, LEAST)

    def inverse_factor(self) -> np.ndarray:
        """By which the drifters must be multiplied."""
        return np.real(self.vu) / np.maximum(self.vv, LEAST)


LEAST = 1e-30
"""Smaller sums are no motion [m2/s2, or its square]."""


@dataclass(frozen=True)
class Spread:
    """An estimate, and what it is when each unit in turn is left out."""

    value: float
    without: np.ndarray

    @property
    def error(self) -> float:
        """Standard error by the jackknife."""
        n = len(self.without)
        return float(np.sqrt((n - 1) / n * np.sum((self.without - self.without.mean()) ** 2)))

    def margin(self, confidence: float) -> float:
        """What is added on one side for a bound of this one-sided confidence, by Student's t."""
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
