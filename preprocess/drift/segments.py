"""Segments: stretches of a track that are complete, regular and drogued (pure functions, numpy).

A segment is `n_obs` fixes of one row at the regular step. A track is broken wherever a fix was dropped, the step is
not the configured one, or the drifter would have moved faster than `max_speed`; segments are cut from the start of
every unbroken run, `stride` fixes apart.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int8, Int64

from driftcal.preprocess.recipe import DAY, DrifterSource, Segment
from driftcal.preprocess.sources.drifters.drifters import Fixes
from driftcal.shared import geo

AGROUND_HOURS = 24
"""Hours within `AGROUND_DEG` after which the drifter of a segment is taken to be aground."""

AGROUND_DEG = 1e-4
"""Distance [degrees], about 10 m, below the noise of any positioning system that drifters carry."""

TOO_FAST = "left over beside a step faster than max_speed"
"""Reasons for fixes outside any segment: a spike beside them, or a fast drifter."""

LEFT_OVER = ("left over at the end of a track", "left over beside a missing or irregular step", TOO_FAST)
"""Reasons for fixes outside any segment, by the break that ended their run; the last that applies."""


AT_ONCE = 4096
"""Segments cut at once: if they overlap there are many per fix, and each takes 7 kB meanwhile."""


@dataclass(frozen=True)
class Segments:
    """Candidate segments; every array has the segment as first axis.

    Attributes:
        row: Row of the source, int64.
        start_time: Time of the first fix [s since 1970-01-01], int64.
        origin: First fix, `(n, 2)` lon in [-180, 180), lat [degrees], float64.
        positions: `(n, obs, 2)` lon, lat [degrees] relative to `origin`, longitudes continuous, float32.
        drogue: 1 on, 0 lost, -1 unknown, int8.
        source_row: Index of the first fix along the source's observations, int64.
        aground: True if the drifter stood still for `AGROUND_HOURS`, bool.
        kept: Fixes of the block kept by each filter, by the filter's name; with its first segments only.
        dropped: Fixes of the block dropped, by reason; likewise.
    """

    row: Int64[np.ndarray, " n"]
    start_time: Int64[np.ndarray, " n"]
    origin: Float64[np.ndarray, "n 2"]
    positions: Float32[np.ndarray, "n obs 2"]
    drogue: Int8[np.ndarray, " n"]
    source_row: Int64[np.ndarray, " n"]
    aground: Bool[np.ndarray, " n"]
    kept: Counter
    dropped: Counter

    def __len__(self) -> int:
        return len(self.row)


def cut(fixes: Fixes, source: DrifterSource, segment: Segment, has_drogue: bool) -> Iterator[Segments]:
    """Yields all complete segments of `fixes`, at most `AT_ONCE` at a time; yields once even if there are none.

    Args:
        fixes: Whole rows, times ascending within a row.
        source: The drogue states, gaps and speeds that are accepted.
        segment: Length, step and stride.
        has_drogue: True if the source has a drogue flag; without it every fix is kept.
    """
    kept: Counter = Counter({"fixes": len(fixes.time)})
    dropped: Counter = Counter(fixes.dropped)
    good = np.ones(len(fixes.time), bool)
    if has_drogue and source.drogue != "any":
        wanted = 1 if source.drogue == "on" else 0
        other = "drogue lost" if wanted else "drogue on"
        dropped[other] += int(np.sum(fixes.drogue == 1 - wanted))
        dropped["drogue unknown"] += int(np.sum(fixes.drogue == -1))
        good &= fixes.drogue == wanted
    kept["drogued"] += int(good.sum())
    wide = good & (fixes.gap > source.max_gap)  # NaN, a gap that is not told, compares False
    dropped["gap between satellite fixes"] += int(wide.sum())
    good &= ~wide
    kept["gap-free"] += int(good.sum())

    lon, lat, row, time = fixes.lon[good], fixes.lat[good], fixes.row[good], fixes.time[good]
    source_row, drogue = fixes.source_row[good], fixes.drogue[good]
    starts, left_over = _cut_runs(row, time, np.stack([lon, lat], axis=-1), source.max_speed, segment)
    dropped.update(left_over)

    for begin in range(0, max(1, len(starts)), AT_ONCE):
        first = starts[begin : begin + AT_ONCE]
        take = first[:, None] + np.arange(segment.n_obs)
        track_lon = geo.unwrap_longitude(lon[take], axis=1) if len(first) else np.empty((0, segment.n_obs))
        relative = np.stack([track_lon - track_lon[:, :1], lat[take] - lat[take[:, :1]]], axis=-1)
        yield Segments(
            row=row[first],
            start_time=time[first],
            origin=np.stack([geo.wrap_longitude(lon[first]), lat[first]], axis=-1),
            positions=relative.astype(np.float32),
            drogue=drogue[take].min(axis=1) if len(first) else np.empty(0, np.int8),
            source_row=source_row[first],
            aground=_aground(relative, segment),
            kept=Counter() if begin else kept,
            dropped=Counter() if begin else dropped,
        )


def _cut_runs(
    row: Int64[np.ndarray, " n"],
    time: Int64[np.ndarray, " n"],
    lonlat: Float64[np.ndarray, "n 2"],
    max_speed: float,
    segment: Segment,
) -> tuple[Int[np.ndarray, " segments"], Counter]:
    """Index of the first fix of every segment, ascending; and counts of fixes in none, by the break of their run."""
    if not len(row):
        return np.empty(0, np.int64), Counter()
    fast = _fast(lonlat, max_speed * segment.step)
    # what lies between two neighbouring fixes, as an index in LEFT_OVER; -1: nothing, the run goes on
    between = np.where(fast, 2, -1)
    between[np.diff(time) != segment.step] = 1
    between[row[1:] != row[:-1]] = 0
    edges = np.concatenate([[0], np.flatnonzero(between >= 0) + 1, [len(row)]])
    ends = np.concatenate([[0], between[between >= 0], [0]])
    lengths = np.diff(edges)
    counts = np.maximum((lengths - segment.n_obs) // segment.stride + 1, 0)
    covered = np.where(counts > 0, segment.n_obs + (counts - 1) * min(segment.stride, segment.n_obs), 0)
    left = np.bincount(np.maximum(ends[:-1], ends[1:]), weights=lengths - covered, minlength=len(LEFT_OVER))
    first = np.repeat(edges[:-1], counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return first + within * segment.stride, Counter(dict(zip(LEFT_OVER, left.astype(int).tolist(), strict=True)))


def _fast(lonlat: Float64[np.ndarray, "n 2"], limit: float) -> Bool[np.ndarray, " n-1"]:
    """Tells for each fix of `(n, 2)` degrees whether it is over `limit` [m] from the one before it, `(n - 1,)`."""
    # along a meridian and the equator it is further: the great circle is asked for where that, but for rounding, is far
    step = np.abs(np.diff(lonlat, axis=0))
    fast = (step[:, 0] + step[:, 1]) * geo.METRES_PER_DEGREE > (1 - 1e-9) * limit
    doubtful = np.flatnonzero(fast)
    fast[doubtful] = geo.separation(lonlat[doubtful + 1], lonlat[doubtful]) > limit
    return fast


def _aground(relative: Float64[np.ndarray, "n obs 2"], segment: Segment) -> Bool[np.ndarray, " n"]:
    """Selects segments with a stretch of `AGROUND_HOURS` without motion; `relative` is `(n, obs, 2)` degrees."""
    span = min(round(AGROUND_HOURS * 3600 / segment.step), segment.n_steps)
    if not len(relative) or span < 1 or segment.days * DAY < AGROUND_HOURS * 3600:
        return np.zeros(len(relative), bool)
    # who stands still is where he was at the stretch's beginning: few are, and only those are looked at closely
    still = np.abs(relative[:, span:] - relative[:, :-span]) < AGROUND_DEG
    back = np.asarray((still[..., 0] & still[..., 1]).any(axis=-1))
    views = np.lib.stride_tricks.sliding_window_view(relative[back], span + 1, axis=1)
    extent = views.max(axis=-1) - views.min(axis=-1)
    back[back] = (extent < AGROUND_DEG).all(axis=-1).any(axis=-1)
    return back


def typical_step(fixes: Fixes) -> int | None:
    """Most common interval between neighbouring fixes of a row [s]; None if no row has two."""
    steps = np.diff(fixes.time)[np.diff(fixes.row) == 0]
    if not len(steps):
        return None
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])
