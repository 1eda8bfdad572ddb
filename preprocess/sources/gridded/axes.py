"""Regular axes of a gridded record: latitude, longitude and time as files give them, checked and made plain.

Latitude and longitude become `start + step * i` in degrees, ascending; longitude is continuous across the seam, so it
may pass 180 or 360. Float32 axes jitter by about 1e-5 degrees: a line fitted through both ends must hold within 1 %
of a cell. Where a file has rounded its degrees to few decimals, some line must hold within the rounding.
Each function also returns the order in which the file's rows or columns have to be read.
Times are whole seconds since 1970-01-01.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Int64, Num, Shaped

from driftcal.preprocess.sources.times import NO_TIME, seconds
from driftcal.shared.errors import DataError
from driftcal.shared.text import stamp

Order = slice | np.ndarray
"""Index, for numpy, of the rows or columns of the file that make up the axis, in order."""

JITTER = 4e-5
"""Two float32 roundings of an angle below 360 [degrees]: deviations up to this are always accepted."""

ROUNDED = 0.1
"""Largest share of a cell by which the rounding of the degrees may move a node."""


@dataclass(frozen=True)
class Axis:
    """A regular, ascending axis: `start + step * i` [degrees] for i in 0 .. size - 1."""

    start: float
    step: float
    size: int

    @property
    def values(self) -> Float64[np.ndarray, " size"]:
        """The coordinates [degrees], float64 `(size,)`."""
        return self.start + self.step * np.arange(self.size, dtype=np.float64)


def latitude(values: Num[np.ndarray, " n"], where: str) -> tuple[Axis, Order, tuple[str, ...]]:
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
    axis, more = _fit(lat, where)
    return axis, order, (*notes, *more)


def longitude(values: Num[np.ndarray, " n"], where: str) -> tuple[Axis, Order, bool, tuple[str, ...]]:
    """The longitude axis, ascending and continuous.

    Whatever the convention ([0, 360), [-180, 180), across the seam), the columns of a regular axis are one step apart
    on the circle but for at most one gap; the axis begins after that gap. Without a gap it goes all the way round.
    Where it goes round more than once, or a longitude is there twice, the later columns are left out.

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
    near = tolerance(lon, step)

    lon, order, more = _once(lon, order, near, where)
    notes += more
    step = _median_step(_gaps(lon))

    gaps = _gaps(lon)
    odd = np.flatnonzero(np.abs(gaps - step) > 2 * near)
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
    axis, more = _fit(lon, where)
    start = axis.start
    if not -180.0 <= start < 360.0:
        start = (start + 180.0) % 360.0 - 180.0
    periodic = odd.size == 0
    axis = Axis(start, 360.0 / axis.size if periodic else axis.step, axis.size)
    return axis, _as_slice(order, values.size), periodic, (*notes, *more)


def _once(
    lon: Float64[np.ndarray, " n"], order: Int[np.ndarray, " n"], near: float, where: str
) -> tuple[Float64[np.ndarray, " kept"], Int[np.ndarray, " kept"], list[str]]:
    """Columns less those that are there already, up to `near` [degrees]; their order likewise; and notes."""
    notes = []
    gaps = _gaps(lon)
    same = np.flatnonzero(np.abs(gaps) < near)
    inside = [i for i in same.tolist() if i + 1 < lon.size and abs(lon[i + 1] - lon[i]) < 180.0]
    # Of the columns on either side of the seam the later one goes, so that the axis keeps its start.
    later = np.unique([max(i, (i + 1) % lon.size) for i in same.tolist()]).astype(np.int64)
    if 0 < len(inside) == len(later):
        notes.append(
            f"{where}: {len(inside)} longitudes are there twice, such as {lon[inside[0]]:g}; the second is dropped"
        )
    elif len(later):
        first = int(later[-1])
        notes.append(f"{where}: column {order[first]} ({lon[first]:g}) repeats another across the seam, dropped")
    if len(later):
        lon, order = np.delete(lon, later), np.delete(order, later)
        gaps = _gaps(lon)
    along = np.concatenate([[0.0], np.cumsum(gaps[:-1])])
    round_ = along >= 360.0 - near
    if round_.any() and np.ptp(gaps[:-1]) <= 4 * near:
        notes.append(
            f"{where}: goes round more than once, from {lon[0]:g} to {lon[-1]:g}: the last {int(round_.sum())} columns "
            "are dropped"
        )
        lon, order = lon[~round_], order[~round_]
    return lon, order, notes


def level_times(
    stored: Shaped[np.ndarray, "..."], attributes: Mapping[str, Any], where: str
) -> Int64[np.ndarray, " n"]:
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


def time_step(time: Int64[np.ndarray, " n"], where: str) -> int:
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
            f"Expected one regular step with whole levels missing at most; {_irregular(steps)}."
        )
    return step


def _irregular(steps: Int64[np.ndarray, " n"]) -> str:
    """Advice on times that are `steps` [s] apart."""
    days = steps / 86_400
    if ((days >= 28) & (days <= 31)).all():
        return "months are not of one length: interpolate the means in time to a regular step, or take a daily product"
    return "use one product at a time, and interpolate one without a regular step in time first"


def _checked(values: Num[np.ndarray, " n"], where: str, limit: float) -> Float64[np.ndarray, " n"]:
    if values.ndim != 1 or values.size < 2 or values.dtype.kind not in "iuf":
        raise DataError(
            f"{where}: expected a one-dimensional numeric axis of two or more points, came shape {values.shape} of "
            f"{values.dtype}. Give a gridded field with such axes."
        )
    values = values.astype(np.float64)
    beyond = ~(np.abs(values) <= limit)
    if beyond.any():
        i = int(np.argmax(beyond))
        raise DataError(
            f"{where}: expected degrees within {limit:.0f}, came {values[i]:g} at index {i}. Are lat and lon swapped, "
            "or are the axes in other units? Set currents.variables in the manifest."
        )
    return values


def tolerance(values: Num[np.ndarray, " n"], step: float) -> float:
    """Distance [degrees] that coordinates may be off a regular axis of this `step`: 1 % of a cell, or by rounding."""
    allowed, rounding = max(0.01 * abs(step), JITTER), _rounding(values)
    # of two coordinates that are compared each is rounded, and so is the step between them
    return 1.5 * rounding if allowed < 1.5 * rounding and rounding <= ROUNDED * abs(step) else allowed


def _rounding(values: Num[np.ndarray, " n"]) -> float:
    """Half of the last decimal to which all `values` are rounded [degrees]; 0 where there are more than three."""
    for decimals in (1, 2, 3):
        if np.abs(values - np.round(values, decimals)).max() <= JITTER:
            return 0.5 * 10.0**-decimals
    return 0.0


def _fit(values: Float64[np.ndarray, " n"], where: str) -> tuple[Axis, list[str]]:
    """The regular axis through ascending `values`, and notes.

    It goes through both ends, and all values must lie within 1 % of a cell of it. Where they are rounded more coarsely
    than that, it is the line from which the furthest is least far, and that must be no further than rounding moves it.
    """
    step = float(values[-1] - values[0]) / (values.size - 1)
    axis, allowed, notes = Axis(float(values[0]), step, values.size), max(0.01 * step, JITTER), []
    off = np.abs(values - axis.values)
    if off.max() > allowed and tolerance(values, step) > allowed:
        rounding = _rounding(values)
        line = _nearest_line(values)
        near = np.abs(values - line.values)
        if near.max() <= rounding + JITTER:
            axis, off, allowed = line, near, rounding + JITTER
            notes.append(
                f"{where}: rounded to {2 * rounding:g} degrees; taken as the regular axis of step {axis.step:.6g} from "
                f"{axis.start:.6g}, from which no coordinate is more than {off.max():.2g} degrees off "
                f"({100 * off.max() / axis.step:.1f} % of a cell)"
            )
    if off.max() > allowed:
        i = int(off.argmax())
        raise DataError(
            f"{where}: expected evenly spaced values (not uniform: step {np.diff(values).min():g} to "
            f"{np.diff(values).max():g} degrees, {values[i]:g} at index {i} is {off[i]:g} off). Interpolate the "
            "field to a regular grid first."
        )
    return axis, notes


def _nearest_line(values: Float64[np.ndarray, " n"]) -> Axis:
    """The regular axis from which the furthest of `values` is least far."""
    from scipy.optimize import linprog  # noqa: PLC0415 - a fifth of a second, for coarsely rounded axes only

    index, ones = np.arange(values.size) / values.size, np.ones(values.size)
    shifted = values - values[0]
    # unknowns: slope, start and the distance, which is minimised
    above, below = np.stack([index, ones, -ones], -1), np.stack([-index, -ones, -ones], -1)
    free = (None, None)
    solved = linprog([0, 0, 1], np.concatenate([above, below]), np.concatenate([shifted, -shifted]), bounds=[free] * 3)
    slope, start, _ = solved.x.tolist()
    return Axis(float(values[0]) + start, slope / values.size, values.size)


def repeats(
    values: Num[np.ndarray, " n"], order: Order
) -> tuple[Int[np.ndarray, " left_out"], Int[np.ndarray, " left_out"]]:
    """Columns that `longitude` left out, and for each the one that it kept in the same place; indices `(n,)`.

    Args:
        values: `(n,)` longitudes [degrees] as in the file.
        order: of the columns that make up the axis.
    """
    every = np.arange(values.size)
    kept = every[order]
    out = np.setdiff1d(every, kept)
    apart = np.abs((values[out][:, None] - values[kept] + 180.0) % 360.0 - 180.0)
    nearest = apart.argmin(axis=1)
    same = apart[np.arange(out.size), nearest] <= tolerance(values, _median_step(_gaps(values[kept])))
    return out[same], kept[nearest[same]]


def _gaps(lon: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Degrees eastward from each column to the next, the last to the first: [0, 360), jitter about 0 kept small."""
    gaps = (np.roll(lon, -1) - lon) % 360.0
    return np.where(gaps > 360.0 - 1e-4, gaps - 360.0, gaps)


def _median_step(gaps: Float64[np.ndarray, " n"]) -> float:
    # The lower median: of two columns the short way round is the step.
    return float(np.sort(gaps)[(gaps.size - 1) // 2])


def _as_slice(order: Int[np.ndarray, " n"], size: int) -> Order:
    """Returns `order` as a slice if it is one: views cost nothing, gathers cost a pass over the field."""
    if np.array_equal(order, np.arange(order.size)):
        return slice(None) if order.size == size else slice(0, order.size)
    if np.array_equal(order, np.arange(size)[::-1]):
        return slice(None, None, -1)
    return order
