"""Several drifters under one name: proved if one id is in two places at one time, or jumps back and forth.

Ids that a spreadsheet rounded, runs that each number from 0 and files joined without care give tracks that no drifter
made. Where the clocks of two drifters under one id are staggered, their fixes alternate between two places.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from driftcal.preprocess.recipe import DAY
from driftcal.preprocess.sources.times import NO_TIME
from driftcal.shared.geo import METRES_PER_DEGREE, separation

TOGETHER = 1000.0
"""Positions of one time that are no further apart [m] may be two readings of one drifter."""

FASTEST = 15.0
"""Speed [m/s] that no drifter exceeds, nor the ship that carries one."""

EASY = 3.0
"""Speed [m/s] at which the next position is easily within reach; and error of an interpolated position [m/s]."""

NEXT = 8
"""Number of fixes within which a track that jumped away may continue, hence of drifters under one id recognised."""

SHARE = 1 / 3
"""Share of the steps from which jumping away and coming back is no matter of bad fixes."""

FEW = 4
"""Jumps to and fro that prove nothing if there are fewer."""

TWICE = 3
"""Times at which a row must be in two places to be several drifters."""

MANY = 0.05
"""Share of the ids which, proved to be several drifters, condemn all of them: below it they are left out."""

PAIRS = 200
"""Pairs of trajectories of one id that are compared at most."""

ASTRAY = "position 0, 0 out of reach of the fixes around it"
"""Reason for dropping fixes whose position is a placeholder."""

REASON = "several drifters under one id"
"""Reasons for dropping fixes of a row."""


def impossible(
    row: Int64[np.ndarray, " n"],
    time: Int64[np.ndarray, " n"],
    lon: Float64[np.ndarray, " n"],
    lat: Float64[np.ndarray, " n"],
) -> Bool[np.ndarray, " steps"]:
    """Marks the steps between neighbouring fixes of a row that no drifter makes, bool `[n - 1]`.

    Args:
        row: Trajectory of each fix `[n]`.
        time: Times [s], ascending within a row `[n]`.
        lon: Longitudes [degrees] `[n]`.
        lat: Latitudes [degrees] `[n]`.
    """
    allowed = FASTEST / METRES_PER_DEGREE * np.diff(time)
    allowed += TOGETHER / METRES_PER_DEGREE
    # along a meridian and a parallel it is further: the great circle is asked for where even that is too far
    way = np.abs(np.diff(lon))
    way += np.abs(np.diff(lat))
    far = way > allowed
    far &= row[1:] == row[:-1]
    doubtful = np.flatnonzero(far)
    here, there = (np.stack([lon[k], lat[k]], axis=-1) for k in (doubtful, doubtful + 1))
    far[doubtful] = separation(here, there) > METRES_PER_DEGREE * allowed[doubtful]
    return far


def astray(
    row: Int64[np.ndarray, " n"],
    time: Int64[np.ndarray, " n"],
    lon: Float64[np.ndarray, " n"],
    lat: Float64[np.ndarray, " n"],
) -> Bool[np.ndarray, " n"]:
    """Marks fixes `[n]` at exactly 0° N 0° E that no drifter makes: receivers without a position write them.

    Such are those from which the nearest other fix of the row cannot be reached; a drifter there has neighbours.
    """
    marks = (lat == 0.0) & (lon == 0.0)
    if not marks.any():
        return marks
    others = np.flatnonzero(~marks)
    astray = np.zeros(len(marks), bool)
    for row_of in np.unique(row[marks]):
        marked, neighbours = np.flatnonzero(marks & (row == row_of)), others[row[others] == row_of]
        if not len(neighbours):
            continue
        after = np.clip(np.searchsorted(time[neighbours], time[marked]), 1, max(len(neighbours) - 1, 1))
        near = np.stack([neighbours[after - 1], neighbours[np.minimum(after, len(neighbours) - 1)]])
        wait = np.abs(time[near] - time[marked])
        nearest = np.where(wait[0] <= wait[1], near[0], near[1])
        far = separation(np.zeros((len(marked), 2)), np.stack([lon[nearest], lat[nearest]], axis=-1))
        astray[marked] = far > TOGETHER + FASTEST * wait.min(axis=0)
    return astray


def mixed(
    row: Int64[np.ndarray, " n"],
    time: Int64[np.ndarray, " n"],
    lon: Float64[np.ndarray, " n"],
    lat: Float64[np.ndarray, " n"],
) -> Int[np.ndarray, " mixed"]:
    """Rows that hold several drifters: they jump away and come back all the time, or are in two places at one time.

    Args:
        row: Trajectory of each fix, ascending `[n]`.
        time: Times [s], ascending within a row, the same time more than once too `[n]`.
        lon: Longitudes [degrees] `[n]`.
        lat: Latitudes [degrees] `[n]`.

    Returns:
        Their numbers, ascending.
    """
    far = impossible(row, time, lon, lat)
    if not far.any():
        return np.empty(0, row.dtype)
    lonlat = np.stack([lon, lat], axis=-1)
    of_step = row[1:]
    at_once, twice = np.unique(of_step[far & (np.diff(time) == 0)], return_counts=True)
    rows, counts = np.unique(of_step[far], return_counts=True)
    proved = set(at_once[twice >= TWICE].tolist())
    for number in rows[counts >= FEW].tolist():
        first, stop = np.searchsorted(row, [number, number + 1])
        away = first + np.flatnonzero(far[first : stop - 1])
        back = np.zeros(len(away), bool)
        for ahead in range(2, NEXT + 1):
            there = np.minimum(away + ahead, stop - 1)
            easy = separation(lonlat[there], lonlat[away]) <= TOGETHER + EASY * (time[there] - time[away])
            back |= easy & (there == away + ahead) & (time[there] - time[away] <= DAY)
        if back.sum() >= max(FEW, SHARE * (stop - first - 1)):
            proved.add(number)
    return np.array(sorted(proved), row.dtype)


@dataclass(frozen=True)
class Track:
    """A trajectory of an id that has several, by its ends: times [s] and positions (lon, lat) [degrees]."""

    row: int
    start: int
    stop: int
    first: tuple[float, float]
    last: tuple[float, float]


def apart(
    tracks: Mapping[str, Sequence[Track]],
    read: Callable[[int], tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 2"]]],
) -> tuple[list[tuple[str, Track, Track]], int]:
    """Pairs of trajectories under one id that cannot be one drifter's.

    Args:
        tracks: Trajectories of every id that has several.
        read: Times [s] `[n]` and positions [degrees] `[n, 2]` of a row.

    Returns:
        One pair of every id that is proved to be several drifters, and the number of pairs that were compared.
    """
    proved, compared = [], 0
    for name, of_id in tracks.items():
        ordered = sorted(of_id, key=lambda track: (track.start, track.row))
        for before, after in itertools.pairwise(ordered):
            if compared >= PAIRS:
                return proved, compared
            if before.stop < after.start:
                jump = float(separation(np.array(before.last), np.array(after.first)))
                split = jump > TOGETHER + FASTEST * (after.start - before.stop)
            else:
                split = _elsewhere(*read(before.row), *read(after.row))
            compared += 1
            if split:
                proved.append((name, before, after))
                break
    return proved, compared


def _elsewhere(
    time: Int64[np.ndarray, " n"],
    lonlat: Float64[np.ndarray, "n 2"],
    other_time: Int64[np.ndarray, " m"],
    other: Float64[np.ndarray, "m 2"],
) -> bool:
    """Tells whether two tracks are in two places for most of the time that they share."""
    shared = (other_time >= time[0]) & (other_time <= time[-1])
    if not shared.any() or len(time) < 2:
        return False
    at, there = other_time[shared], other[shared]
    after = np.clip(np.searchsorted(time, at), 1, len(time) - 1)
    weight = (at - time[after - 1]) / (time[after] - time[after - 1])
    east = (lonlat[after, 0] - lonlat[after - 1, 0] + 180.0) % 360.0 - 180.0
    here = np.stack(
        [
            lonlat[after - 1, 0] + weight * east,
            lonlat[after - 1, 1] + weight * (lonlat[after, 1] - lonlat[after - 1, 1]),
        ],
        axis=-1,
    )
    nearest = np.minimum(at - time[after - 1], time[after] - at)
    return bool(np.mean(separation(here, there) > TOGETHER + EASY * nearest) > 0.5)


def text(time: int, lonlat: Sequence[float]) -> str:
    """A time [s] and a position [degrees], for a message."""
    when = "an unknown time" if time == NO_TIME else f"{np.datetime64(int(time), 's')}"
    return f"{when} at {lonlat[1]:.2f}, {lonlat[0]:.2f} (lat, lon)"
