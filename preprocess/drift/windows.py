"""Windows on the currents' grid: their placement, cutting and checks (numpy).

A window is a fixed number of cells and levels around a segment: centred on the middle of the track's bounding box,
from the level at or before the first fix. Nothing is padded: `place` refuses a window that leaves the grid or the
record, with the reason.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int8, Int16, Int32, Int64
from numpy.lib.stride_tricks import sliding_window_view

from driftcal.preprocess.sources.gridded.currents import Currents
from driftcal.shared.store.schema import FILL, OVER, STATUS

# Why a segment has no window, in the order in which they are looked for.
OUTSIDE_PERIOD = "outside the period of the currents"
MISSING_DAY = "a level of the currents is missing"
OUTSIDE_DOMAIN = "window leaves the domain of the currents"
TRACK_LEAVES = "track leaves its window"
ON_LAND = "on land or permanent ice"

REASONS = ("", OUTSIDE_PERIOD, MISSING_DAY, OUTSIDE_DOMAIN, TRACK_LEAVES, ON_LAND)
"""Meanings of the codes of `Placement.reason`; 0: there is a window."""

AT_ONCE = 64
"""Windows cut at once: few enough that they are in the cache while they are judged and encoded."""


@dataclass(frozen=True)
class Shape:
    """A window's size: levels, cells, and half-widths [degrees] that it must cover on each side of its centre."""

    n_times: int
    n_lat: int
    n_lon: int
    half_lat: float
    half_lon: float


def shape_of(half_width_deg: float, latitude: float, days: float, currents: Currents) -> Shape:
    """The window that reaches `half_width_deg` degrees of latitude on every side, up to `latitude` [degrees].

    East and west it covers the same distance, so its half-width in degrees of longitude is widened by
    1 / cos(latitude). A segment of D days that starts between two levels needs ceil(D / step) + 2 of them: 7 daily
    ones for 5 days. Numbers of cells are rounded up to multiples of 4 (alignment of a sample, see `store.schema`).
    """
    half_lon = half_width_deg / math.cos(math.radians(latitude))

    def cells(half: float, step: float) -> int:
        # a centre between two nodes needs one more node than a centre on one
        return -(-(2 * math.ceil(half / step - 1e-6) + 2) // 4) * 4

    return Shape(
        n_times=math.ceil(days * 86_400 / currents.step - 1e-9) + 2,
        n_lat=cells(half_width_deg, currents.lat.step),
        n_lon=cells(half_lon, currents.lon.step),
        half_lat=half_width_deg,
        half_lon=half_lon,
    )


@dataclass(frozen=True)
class Placement:
    """Windows of n segments on one grid, or why there is none.

    Attributes:
        level: First level, int32 (n).
        row: Southern row, int32 (n).
        column: Western column, int32 (n); may be negative or run over the end on a periodic grid.
        time: Time of the first level [s since 1970-01-01], int64 (n).
        corner: `(n, 2)` lon, lat of the south-western cell [degrees], longitude continuous with the origin, float64.
        reason: Index in `REASONS`, int8 (n); 0 where there is a window.
    """

    level: Int32[np.ndarray, " n"]
    row: Int32[np.ndarray, " n"]
    column: Int32[np.ndarray, " n"]
    time: Int64[np.ndarray, " n"]
    corner: Float64[np.ndarray, "n 2"]
    reason: Int8[np.ndarray, " n"]

    @classmethod
    def empty(cls, n: int) -> "Placement":
        """Array for the windows of `n` segments, with arbitrary content."""
        return cls(
            level=np.empty(n, np.int32),
            row=np.empty(n, np.int32),
            column=np.empty(n, np.int32),
            time=np.empty(n, np.int64),
            corner=np.empty((n, 2)),
            reason=np.empty(n, np.int8),
        )


def centre_of(
    origin: Float64[np.ndarray, "n ..."], extent: Float[np.ndarray, "n 2 ..."]
) -> Float64[np.ndarray, "n ..."]:
    """Middle of each track's bounding box [degrees], float64 `(n, ...)`, from `(n, ...)` and `(n, 2, ...)`."""
    return origin + extent.mean(axis=1, dtype=np.float64)


def place(
    start_time: Int64[np.ndarray, " n"],
    duration: int,
    origin: Float64[np.ndarray, "n 2"],
    extent: Float[np.ndarray, "n 2 2"],
    shape: Shape,
    currents: Currents,
) -> Placement:
    """Finds every segment's window.

    Args:
        start_time: Time of the first fix [s since 1970-01-01], int64 (n).
        duration: Length of a segment [s].
        origin: `(n, 2)` first fix, lon in [-180, 180), lat [degrees].
        extent: `(n, 2, 2)` least and greatest (lon, lat) of the track relative to the origin [degrees], float32.
        shape: The window's size.
        currents: The grid and its levels.
    """
    n = len(start_time)
    reason = np.zeros(n, np.int8)

    def refuse(mask: Bool[np.ndarray, " n"], why: str) -> None:
        reason[mask & (reason == 0)] = REASONS.index(why)

    level, time, in_period, whole = _levels(start_time, duration, shape.n_times, currents)
    refuse(~in_period, OUTSIDE_PERIOD)
    refuse(~whole, MISSING_DAY)

    centre = centre_of(origin, extent)
    half_track = np.ptp(extent.astype(np.float64), axis=1) / 2
    column, fits_lon = _first_cell(
        (centre[:, 0] - currents.lon.start) % 360.0 / currents.lon.step,
        shape.half_lon / currents.lon.step,
        shape.n_lon,
        None if currents.periodic else currents.lon.size,
    )
    row, fits_lat = _first_cell(
        (centre[:, 1] - currents.lat.start) / currents.lat.step,
        shape.half_lat / currents.lat.step,
        shape.n_lat,
        currents.lat.size,
    )
    refuse(~(fits_lon & fits_lat), OUTSIDE_DOMAIN)
    refuse((half_track[:, 0] > shape.half_lon) | (half_track[:, 1] > shape.half_lat), TRACK_LEAVES)

    corner_lon = currents.lon.start + column * currents.lon.step
    middle = corner_lon + shape.n_lon / 2 * currents.lon.step
    corner_lon = corner_lon + 360.0 * np.round((centre[:, 0] - middle) / 360.0)
    corner = np.stack([corner_lon, currents.lat.start + row * currents.lat.step], axis=-1)
    level, row, column = (index.astype(np.int32) for index in (level, row, column))
    return Placement(level, row, column, time, corner, reason)


def _levels(
    start: Int64[np.ndarray, " n"], duration: int, n_times: int, currents: Currents
) -> tuple[Int[np.ndarray, " n"], Int64[np.ndarray, " n"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """First level, its time, whether the record covers the segment's window, and whether it has every level of it."""
    if currents.frozen:
        time = start - start % currents.step
        return np.zeros(len(start), np.int64), time, np.ones(len(start), bool), np.ones(len(start), bool)
    level = np.searchsorted(currents.time, start, side="right") - 1
    clipped = np.clip(level, 0, len(currents.time) - 1)
    time = currents.time[clipped]
    last = clipped + n_times - 1
    in_period = (level >= 0) & (time + (n_times - 1) * currents.step <= currents.time[-1])
    in_record = np.minimum(last, len(currents.time) - 1)
    whole = (
        (last < len(currents.time))
        & (currents.time[in_record] == time + (n_times - 1) * currents.step)
        & (start < time + currents.step)
        & (start + duration <= time + (n_times - 1) * currents.step)
    )
    return clipped, time, in_period, whole


def _first_cell(
    centre: Float64[np.ndarray, " n"], half: float, n: int, size: int | None
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """First of `n` cells around `centre` [cells], and whether they cover `half` cells on both sides of it.

    On a bounded axis the cells may slide by what rounding up to a multiple of 4 has added.
    """
    first = np.floor(centre).astype(np.int64) - n // 2 + 1
    if size is None:
        return first, np.ones(len(first), bool)
    slid = np.clip(first, 0, max(size - n, 0))
    covers = (slid <= centre - half + 1e-6) & (slid + n - 1 >= centre + half - 1e-6)
    return slid, covers & (n <= size)


def needed(level: Int32[np.ndarray, " n"], n_times: int) -> Int[np.ndarray, " levels"]:
    """The levels of windows that begin at `level`, `(n,)`: each once, ascending."""
    return np.unique(np.unique(level)[:, None] + np.arange(n_times))


def cut(
    placement: Placement, shape: Shape, currents: Currents
) -> Iterator[tuple[Int[np.ndarray, " m"], Int16[np.ndarray, "m 2 time lat lon"]]]:
    """Cuts the windows of `placement`, FILL and OVER as the source has them.

    Levels are taken in order, each once; the memory needed depends neither on how many there are nor on how many
    windows.

    Yields:
        Which windows, `(m,)` with m up to `AT_ONCE`, and their currents, `(m, 2, time, lat, lon)` int16 [1e-4 m/s],
        which the next ones overwrite.
    """
    n_times = 1 if currents.frozen else shape.n_times
    coming = currents.each(needed(placement.level, n_times))
    in_memory: dict[int, np.ndarray] = {}
    order = np.argsort(placement.level, kind="stable")
    out = np.empty((min(AT_ONCE, len(order)), 2, shape.n_times, shape.n_lat, shape.n_lon), np.int16)
    for first in range(0, len(order), AT_ONCE):
        chosen = order[first : first + AT_ONCE]
        for k, room in zip(chosen.tolist(), out, strict=False):
            window = range(int(placement.level[k]), int(placement.level[k]) + n_times)
            for gone in [level for level in in_memory if level < window.start]:
                del in_memory[gone]
            while window[-1] not in in_memory:
                level, values = next(coming)
                in_memory[level] = values
                del values  # else it would be held a little longer than the level
            copy([in_memory[level] for level in window], placement, k, currents, room)
        yield chosen, out[: len(chosen)]


def copy(
    levels: Sequence[Int16[np.ndarray, "2 rows columns"]],
    placement: Placement,
    k: int,
    currents: Currents,
    out: Int16[np.ndarray, "2 time lat lon"],
) -> None:
    """Copies the window `k` out of its `levels`, each `(2, lat, lon)`, into `out`, `(2, time, lat, lon)`.

    A single level fills all times: the record is frozen.
    """
    n_lat, n_lon = out.shape[2:]
    row, column = int(placement.row[k]), int(placement.column[k])
    column = column % currents.lon.size if currents.periodic else column
    before_seam = min(n_lon, currents.lon.size - column)
    every = levels if len(levels) > 1 else list(levels) * out.shape[1]
    for into, level in zip(out.swapaxes(0, 1), every, strict=True):
        if before_seam == n_lon:
            into[:] = level[:, row : row + n_lat, column : column + n_lon]
        else:
            into[..., :before_seam] = level[:, row : row + n_lat, column:]
            into[..., before_seam:] = level[:, row : row + n_lat, : n_lon - before_seam]


def closed_cells(currents: Currents) -> Bool[np.ndarray, "rows columns"]:
    """Cells without any current in the whole record: all four corners are land, bool `(lat - 1, lon - 1 or lon)`."""
    land = currents.land()
    if currents.periodic:
        land = np.concatenate([land, land[:, :1]], axis=1)
    return land[:-1, :-1] & land[1:, :-1] & land[:-1, 1:] & land[1:, 1:]


def enters(
    closed: Bool[np.ndarray, "rows columns"], lonlat: Float64[np.ndarray, "n obs 2"], currents: Currents
) -> Bool[np.ndarray, " n"]:
    """Tells for each track `(n, obs, 2)` (lon, lat) [degrees] whether a fix lies in a `closed` cell; bool (n)."""
    column = np.floor((lonlat[..., 0] - currents.lon.start) % 360.0 / currents.lon.step).astype(np.int64)
    row = np.floor((lonlat[..., 1] - currents.lat.start) / currents.lat.step).astype(np.int64)
    inside = (column < closed.shape[1]) & (row >= 0) & (row < closed.shape[0])
    return (inside & closed[np.clip(row, 0, closed.shape[0] - 1), np.clip(column, 0, closed.shape[1] - 1)]).any(axis=1)


def masked_always(placement: Placement, shape: Shape, currents: Currents) -> Bool[np.ndarray, "n lat lon"]:
    """The cells of every window that have no current in the whole record; bool `(n, lat, lon)`."""
    land, column, size = currents.land(), placement.column, currents.lon.size
    if currents.periodic:
        land, column = land[:, np.arange(size + shape.n_lon - 1) % size], column % size
    return sliding_window_view(land, (shape.n_lat, shape.n_lon))[placement.row, column]


def judge(windows: Int16[np.ndarray, "n 2 time lat lon"], land: Bool[np.ndarray, "n lat lon"]) -> Int[np.ndarray, " n"]:
    """Marks land in `windows`, in place, and tells which windows cannot be used.

    Land that the source gives as zeros becomes FILL, and so does OVER. A window with a cell that has a current at some
    time of the record and none here (sea ice, a failed download) has no known flow there: it is not used. Nor is one
    with a current beyond int16.

    Args:
        windows: `(n, 2, time, lat, lon)` as `cut` gives them.
        land: `(n, lat, lon)` as `masked_always` gives it.

    Returns:
        Index in `schema.STATUS` of each window, int8 (n).
    """
    status = np.zeros(len(windows), np.int8)
    # most windows are all water: no fill, which are the least numbers, and nowhere land
    coastal = np.flatnonzero((windows.min(axis=(1, 2, 3, 4)) <= OVER) | land.any(axis=(1, 2)))
    near, land = windows[coastal], land[coastal]
    zeros = (near == 0).all(axis=1) & land[:, None]
    near[np.broadcast_to(zeros[:, None], near.shape)] = FILL
    missing = (near == FILL).any(axis=1)
    gone = (missing & ~land[:, None]).any(axis=(1, 2, 3))
    status[coastal[gone]] = STATUS.index("currents missing at times in the window")
    fast = near == OVER
    status[coastal[fast.any(axis=(1, 2, 3, 4))]] = STATUS.index("current above 3.2766 m/s in the window")
    near[fast] = FILL  # the sample is not usable; no reader need know a second fill value
    windows[coastal] = near
    return status
