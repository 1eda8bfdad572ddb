"""Regular axes of a gridded record: latitude, longitude and time as files give them, checked and made plain.

Latitude and longitude become `start + step * i` in degrees, ascending; longitude is continuous across the seam, so it
may pass 180 or 360. Float32 axes jitter by about 1e-5 degrees: a line fitted through both ends must hold within 1 %
of a cell. Each function also returns the order in which the file's rows or columns have to be read.
Times are whole seconds since 1970-01-01.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess.times import NO_TIME, seconds
from shared.errors import DataError

Order = slice | np.ndarray
"""Which rows or columns of the file make up the axis, in order: an index for numpy."""

JITTER = 4e-5
"""Two float32 roundings of an angle below 360 [degrees]: deviations up to this are never held against a file."""


@dataclass(frozen=True)
class Axis:
    """A regular, ascending axis: `start + step * i` [degrees] for i in 0 .. size - 1."""

    start: float
    step: float
    size: int

    @property
    def values(self) -> np.ndarray:
        """The coordinates [degrees], float64 `(size,)`."""
        return self.start + self.step * np.arange(self.size, dtype=np.float64)


def latitude(values: np.ndarray, where: str) -> tuple[Axis, Order, tuple[str, ...]]:
    """The latitude axis, ascending.

    Args:
        values: `(n,)` latitudes [degrees] as in the file.
        where: the source and variable, for messages.

    Returns:
        The axis, the order of the rows, and notes on what was changed.

    Raises:
        DataError: not latitudes, or not evenly spaced.
    """
    lat = _checked(values, where, limit=90.0 + 1e-3)
    steps = np.diff(lat)
    notes, order = (), slice(None)
    if (steps < 0).all():
        lat, order, notes = lat[::-1], slice(None, None, -1), (f"{where}: descending, flipped",)
    elif not (steps > 0).all():
        i = int(np.argmin(steps > 0) if steps[0] > 0 else np.argmax(steps > 0))
        raise DataError(
            f"{where}: latitudes must ascend or descend throughout, but {lat[i]:g} is followed by {lat[i + 1]:g} at "
            f"index {i + 1}. Sort the file by latitude."
        )
    return _fit(lat, where), order, notes


def longitude(values: np.ndarray, where: str) -> tuple[Axis, Order, bool, tuple[str, ...]]:
    """The longitude axis, ascending and continuous.

    Whatever the convention ([0, 360), [-180, 180), across the seam), the columns of a regular axis are one step apart
    on the circle but for at most one gap; the axis begins after that gap. Without a gap it goes all the way round.

    Args:
        values: `(n,)` longitudes [degrees] as in the file.
        where: the source and variable, for messages.

    Returns:
        The axis with `start` in [-180, 360), the order of the columns, whether the axis covers 360 degrees exactly,
        and notes on what was changed.

    Raises:
        DataError: not longitudes, not evenly spaced, or not a rotation of an ascending axis.
    """
    lon = _checked(values, where, limit=720.0)
    order, notes = np.arange(lon.size), []
    step = _median_step(_gaps(lon))
    if step > 180.0:
        lon, order = lon[::-1], order[::-1]
        step = _median_step(_gaps(lon))
        notes.append(f"{where}: descending, flipped")
    tolerance = max(0.01 * step, JITTER)

    same = np.flatnonzero(np.abs(_gaps(lon)) < tolerance)
    for i in same[::-1]:
        j = (i + 1) % lon.size
        if abs(lon[j] - lon[i]) < 180.0:
            raise DataError(f"{where}: longitude {lon[i]:g} is there twice (index {i} and {j}). Drop one of them.")
        # Of the columns on either side of the seam the later one goes, so that the axis keeps its start.
        drop = max(i, j)
        notes.append(f"{where}: column {drop} ({lon[drop]:g}) repeats {lon[min(i, j)]:g} across the seam, dropped")
        lon, order = np.delete(lon, drop), np.delete(order, drop)

    gaps = _gaps(lon)
    odd = np.flatnonzero(np.abs(gaps - step) > 2 * tolerance)
    if abs(gaps.sum() - 360.0) > 1e-3 or odd.size > 1:
        i = int(odd[0]) if odd.size else 0
        raise DataError(
            f"{where}: expected evenly spaced longitudes, ascending or a rotation of such an axis; most are "
            f"{step:g} degrees apart, but {lon[i]:g} is followed by {lon[(i + 1) % lon.size]:g} at index {i + 1}. "
            "Sort the file by longitude, or put it on a regular grid."
        )
    if odd.size and odd[0] != lon.size - 1:
        first = int(odd[0]) + 1
        lon, order = np.roll(lon, -first), np.roll(order, -first)
        notes.append(f"{where}: rotated to begin at {lon[0]:g}, so that it is continuous")
    lon = lon[0] + np.concatenate([[0.0], np.cumsum(_gaps(lon)[:-1])])
    axis = _fit(lon, where)
    start = axis.start
    if not -180.0 <= start < 360.0:
        start = (start + 180.0) % 360.0 - 180.0
    periodic = odd.size == 0
    axis = Axis(start, 360.0 / axis.size if periodic else axis.step, axis.size)
    return axis, _as_slice(order, values.size), periodic, tuple(notes)


def level_times(stored: np.ndarray, attributes: Mapping[str, Any], where: str) -> np.ndarray:
    """Times of a record's levels, int64 seconds since 1970-01-01 `(n,)`, rounded to the second.

    Raises:
        DataError: units or calendar that cannot be used, or times that are missing.
    """
    stored = np.atleast_1d(stored)
    times = seconds(stored, attributes, where)
    lost = np.flatnonzero(times == NO_TIME)
    if lost.size:
        raise DataError(
            f"{where}: {lost.size} of {times.size} times are missing or far out of range, the first at index {lost[0]} "
            f"({stored[lost[0]]}). Drop or repair those levels."
        )
    return times


def time_step(time: np.ndarray, where: str) -> int:
    """The most common difference [s] between neighbouring levels; every difference must be a multiple of it.

    Args:
        time: int64 seconds since 1970-01-01 `(n,)`, n >= 2, strictly increasing.
        where: the source and variable, for messages.

    Raises:
        DataError: a difference is not a multiple of the step.
    """
    steps = np.diff(time)
    kinds, counts = np.unique(steps, return_counts=True)
    step = int(kinds[np.argmax(counts)])
    odd = np.flatnonzero(steps % step)
    if odd.size:
        i = int(odd[0])
        raise DataError(
            f"{where}: levels are mostly {step} s apart, but {stamp(time[i])} and {stamp(time[i + 1])} are "
            f"{int(steps[i])} s apart, which is not a multiple ({odd.size} such steps of {steps.size}). "
            "Expected one regular step with whole levels missing at most; use one product at a time."
        )
    return step


def stamp(time: int | np.integer) -> str:
    """A time [s since 1970-01-01] as ISO 8601, to the second."""
    return str(np.datetime64(int(time), "s"))


def _checked(values: np.ndarray, where: str, limit: float) -> np.ndarray:
    if values.ndim != 1 or values.size < 2 or values.dtype.kind not in "iuf":
        raise DataError(
            f"{where}: expected a one-dimensional numeric axis of two or more points, came shape {values.shape} of "
            f"{values.dtype}. Give a gridded field with such axes."
        )
    values = values.astype(np.float64)
    wrong = ~(np.abs(values) <= limit)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise DataError(
            f"{where}: expected degrees within {limit:.0f}, came {values[i]:g} at index {i}. Are lat and lon swapped, "
            "or are the axes in other units? Set currents.variables in the manifest."
        )
    return values


def _fit(values: np.ndarray, where: str) -> Axis:
    """The regular axis through ascending `values`, which must stay within 1 % of a cell of it."""
    step = float(values[-1] - values[0]) / (values.size - 1)
    axis = Axis(float(values[0]), step, values.size)
    off = np.abs(values - axis.values)
    if off.max() > max(0.01 * step, JITTER):
        i = int(off.argmax())
        raise DataError(
            f"{where}: expected evenly spaced values (not uniform: step {np.diff(values).min():g} to "
            f"{np.diff(values).max():g} degrees, {values[i]:g} at index {i} is {off[i]:g} off). Interpolate the "
            "field to a regular grid first."
        )
    return axis


def _gaps(lon: np.ndarray) -> np.ndarray:
    """Degrees eastward from each column to the next, the last to the first: [0, 360), jitter about 0 kept small."""
    gaps = (np.roll(lon, -1) - lon) % 360.0
    return np.where(gaps > 360.0 - 1e-4, gaps - 360.0, gaps)


def _median_step(gaps: np.ndarray) -> float:
    # The lower median: of two columns the short way round is the step.
    return float(np.sort(gaps)[(gaps.size - 1) // 2])


def _as_slice(order: np.ndarray, size: int) -> Order:
    """`order` as a slice where it is one: views cost nothing, gathers cost a pass over the field."""
    if np.array_equal(order, np.arange(order.size)):
        return slice(None) if order.size == size else slice(0, order.size)
    if np.array_equal(order, np.arange(size)[::-1]):
        return slice(None, None, -1)
    return order
