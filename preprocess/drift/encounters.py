"""Encounters of drifters with levels of the currents: both velocities, for `drift.agreement` to compare.

At the time T of a level every drifter under way samples a known field. Over a window of a day centred on T, the
drifter's velocity is its displacement divided by a day, and the current is that level averaged along the drifter's
own track: the same hours at the same places. Levels before and after T, along the same track, show whether the
currents' times are right, since any motion of the drifter other than with the currents is the same for all of them.
If levels are closer together than the window, each hour takes the current of the nearest level.

Daily means remove the motion that daily currents do not resolve (inertial and tidal), and reduce the error from
positions, some hundreds of metres, to less than 1 cm/s.

Planning reads some two dozen levels, spread over the record, to find the land. Encounters use these and few more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex128, Float64, Int, Int16, Int64

from driftcal.preprocess.drift.candidates import Survey, read_records
from driftcal.preprocess.drift.plan import Plan
from driftcal.preprocess.recipe import DAY
from driftcal.preprocess.sources.gridded.currents import LAND_LEVELS, Currents, land_levels
from driftcal.shared import geo
from driftcal.shared.store.schema import OVER, SCALE

HALF = 4
"""Steps from the middle of a window to its end: eight in a window, of 3 h where it is a day."""

OFFSETS = np.arange(-HALF, HALF + 1)
"""Places of a window, in steps from its middle."""

WEIGHTS = np.where(np.abs(OFFSETS) == HALF, 0.5, 1.0) / (2 * HALF)
"""Weights of the trapezoidal rule over a window."""

LAGS = (-1, 0, 1)
"""Shifts of the currents' times, in `Encounters.lag`."""

SHORTEST_LAG = DAY // 2
"""Seconds that the currents are shifted by at least."""

MOST = 8192
"""Encounters used per source of currents; more would hardly make the figures steadier."""

EXTRA_BYTES = 64 * 2**20
"""Size of the levels that are read besides those that planning reads anyway, but for two groups of them: of a globe 16
at a quarter of a degree, 8 at an eighth. They are decoded by one thread, so many would be felt."""

FEW_OF = 50
"""Levels of the record per level that may be read in addition."""

MOST_EXTRA = 96
"""Additional levels that are read at most."""


@dataclass(frozen=True)
class Encounters:
    """Drifters at levels, one row each, in the order of (source of currents, time, drifter).

    Attributes:
        drifter: Position in `Survey.drifters`, int64 (n).
        time: Time of the level [s since 1970-01-01], int64 (n).
        track: Mean velocity of the drifter [m/s], complex eastward + i northward, (n).
        current: Mean along that track [m/s], likewise, `(n, 3)`: of the currents whose times are `LAGS` times `lag`
            later. NaN where one is missing.
        still: Share of the window in which all four currents around are exactly 0, (n).
        lag: [s].
        window: Length of the window [s].
        levels: Number of times.
    """

    drifter: Int64[np.ndarray, " n"]
    time: Int64[np.ndarray, " n"]
    track: Complex128[np.ndarray, " n"]
    current: Complex128[np.ndarray, "n 3"]
    still: Float64[np.ndarray, " n"]
    lag: int
    window: int
    levels: int


def meet(plan: Plan, survey: Survey, scratch: Path, currents: Sequence[Currents]) -> Encounters:
    """The encounters of the segments that `plan` takes with some levels of their `currents`.

    Args:
        plan: The segments, and the currents of each.
        survey: Their labels.
        scratch: The file with their tracks.
        currents: The sources, of one time step.

    Raises:
        DataError: a level cannot be read.
        OSError: the tracks cannot be read again.
    """
    step = max(1, min(DAY, _duration(plan) // 2) // (2 * HALF))
    lag = -(-SHORTEST_LAG // plan.layout.time_step) * plan.layout.time_step
    parts = []
    for number, source in enumerate(currents):
        index = plan.candidate[plan.current == number]
        if len(index):
            index = index[np.lexsort((survey.drifter[index], survey.start_time[index]))]
            start, drifter = survey.start_time[index], survey.drifter[index].astype(np.int64)
            times = _times(source, start, _duration(plan), step, lag // source.step)
            which, row = _pairs(times.time, start, drifter, HALF * step, _duration(plan))
            since = times.time[which] - start[row] + OFFSETS[:, None] * step
            lonlat = _places(scratch, plan, index[row], since.T)
            current, still = _currents(source, times.levels, which, lonlat)
            parts.append((drifter[row], times.time[which], _velocity(lonlat, 2 * HALF * step), current, still))
    joined = [np.concatenate(values) for values in zip(*parts, strict=True)]
    return Encounters(*joined, lag=lag, window=2 * HALF * step, levels=len(np.unique(joined[1])))


def _duration(plan: Plan) -> int:
    """Length of a segment [s]."""
    return (plan.layout.n_obs - 1) * plan.layout.obs_step


@dataclass(frozen=True)
class _Times:
    """Times T [s] of encounters, (m), and the levels by lag and offset, `(m, 3, 9)`; -1: none."""

    time: Int64[np.ndarray, " m"]
    levels: Int[np.ndarray, "m 3 9"]


def _times(source: Currents, start: Int64[np.ndarray, " n"], duration: int, step: int, lag: int) -> _Times:
    """The times for segments that begin at `start`, (n), ascending; `lag` is in levels."""
    half, n = HALF * step, source.time.size
    if source.frozen:
        middle = start + duration // 2
        time = np.unique(middle[_spread(len(middle), LAND_LEVELS)])
        levels = np.full((len(time), len(LAGS), len(OFFSETS)), -1)
        levels[:, LAGS.index(0)] = 0
        return _Times(time, levels)
    # a tie goes to the level nearer to T, so that levels a day apart stand alone
    near = (np.sign(OFFSETS) * np.ceil(np.abs(OFFSETS * step) / source.step - 0.5 - 1e-9)).astype(np.int64)
    # currents whose times are later than they say are those of an earlier level
    steps = near - lag * np.array(LAGS)[:, None]
    levels = np.arange(n)[:, None, None] + steps
    inside = np.clip(levels, 0, n - 1)
    there = (levels == inside) & (source.time[inside] - source.time[:, None, None] == steps * source.step)
    whole = there.all(axis=2)
    often = np.searchsorted(start, source.time - half, side="right") - np.searchsorted(
        start, source.time + half - duration, side="left"
    )
    often[~whole[:, LAGS.index(0)]] = 0
    alone = not near.any()
    anyway = np.zeros(n, bool)
    anyway[land_levels(source.time)] = True
    anyway &= (often > 0) & alone
    # a run of three times where levels stand alone: each lends its neighbours to the others
    run = np.arange(-1, 2) if alone else np.zeros(1, np.int64)
    cost = len(np.unique(run[:, None, None] + steps)) - alone
    small = EXTRA_BYTES // (source.level_bytes * source.chunk_levels)
    room = min(max(small, n // FEW_OF, 2 * cost), max(MOST_EXTRA, 2 * cost))
    seeds = _seeds(np.flatnonzero(anyway), np.where(whole.all(axis=1), often, 0), int(room // cost))
    lagged = np.zeros(n, bool)
    lagged[np.clip(seeds[:, None] + run, 0, n - 1)] = True
    lagged &= (often > 0) & whole.all(axis=1)
    picked = np.flatnonzero(anyway | lagged)
    levels = np.where(whole[picked, :, None], levels[picked], -1)
    others = ~lagged[picked]
    levels[others] = np.where(np.array(LAGS)[:, None] == 0, levels[others], -1)
    return _Times(source.time[picked], levels)


def _seeds(anyway: Int[np.ndarray, " k"], often: Int[np.ndarray, " levels"], most: int) -> Int[np.ndarray, " seeds"]:
    """Chooses at most `most` levels: of those that are read `anyway`, then others evenly over the drifters' days."""
    if len(anyway) >= most:
        return anyway[_spread(len(anyway), most)]
    total, left = np.cumsum(often), most - len(anyway)
    if not total[-1]:
        return anyway
    return np.union1d(anyway, np.searchsorted(total, (np.arange(left) + 0.5) / left * total[-1]))


def _spread(n: int, most: int) -> Int[np.ndarray, " chosen"]:
    """Chooses at most `most` of n positions, evenly spread, ascending."""
    return np.arange(n) if n <= most else (np.arange(most) * n + n // 2) // most


def _pairs(
    time: Int64[np.ndarray, " m"],
    start: Int64[np.ndarray, " n"],
    drifter: Int64[np.ndarray, " n"],
    half: int,
    duration: int,
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Pairs of a time and a segment that contains the window about it; each drifter once a time, thinned to `MOST`.

    Args:
        time: `(m,)` ascending.
        start: Start of every segment, `(n,)` ascending.
        drifter: Drifter of every segment.
        half: Half the window [s].
        duration: Length of a segment [s].
    """
    pairs = [np.zeros((2, 0), np.int64)]
    first = np.searchsorted(start, time + half - duration, side="left")
    stop = np.searchsorted(start, time - half, side="right")
    for number in range(len(time)):
        row = first[number] + np.unique(drifter[first[number] : stop[number]], return_index=True)[1]
        pairs.append(np.stack([np.full(len(row), number), row]))
    every = np.concatenate(pairs, axis=1)
    which, row = every[:, _spread(every.shape[1], MOST)]
    return which, row


def _places(
    scratch: Path, plan: Plan, index: Int[np.ndarray, " n"], since: Int64[np.ndarray, "n 9"]
) -> Float64[np.ndarray, "n 9 2"]:
    """Positions (lon, lat) [degrees] in the segments `index` of the survey, `since` their starts [s], `(n, 9, 2)`."""
    segment, of = np.unique(index, return_inverse=True)
    records = read_records(scratch, plan.layout.n_obs, segment)
    before = np.minimum(since // plan.layout.obs_step, plan.layout.n_obs - 2)
    share = (since / plan.layout.obs_step - before)[..., None]
    track = records["positions"]
    lonlat = (1 - share) * track[of[:, None], before] + share * track[of[:, None], before + 1]
    return records["origin"][of, None] + lonlat


def _velocity(lonlat: Float64[np.ndarray, "n 9 2"], window: int) -> Complex128[np.ndarray, " n"]:
    """Displacement by time [m/s], complex, `(n,)`, from positions `(n, 9, 2)` that `window` [s] lies between."""
    rise = lonlat[:, -1] - lonlat[:, 0]
    east = rise[:, 0] * np.cos(np.radians(lonlat[:, HALF, 1]))
    return (east + 1j * rise[:, 1]) * geo.METRES_PER_DEGREE / window


def _currents(
    source: Currents,
    levels: Int[np.ndarray, "m 3 9"],
    which: Int[np.ndarray, " n"],
    lonlat: Float64[np.ndarray, "n 9 2"],
) -> tuple[Complex128[np.ndarray, "n 3"], Float64[np.ndarray, " n"]]:
    """Mean current [m/s] along every window, complex `(n, 3)`, and `Encounters.still`.

    Args:
        source: The currents.
        levels: `(m, 3, 9)`, of each time by lag and offset.
        which: Time of each encounter, ascending, `(n,)`.
        lonlat: `(n, 9, 2)` degrees.
    """
    current = np.where((levels < 0).any(axis=2), np.nan, 0j)[which]
    still = np.zeros(len(which))
    met = np.zeros(len(levels), bool)
    met[which] = True
    grid = _Grid(source)
    wanted = np.unique(levels[met])
    for index, level in source.each(wanted[wanted >= 0]):
        at = met[:, None, None] & (levels == index)
        for number in np.flatnonzero(at.any(axis=(1, 2))):
            rows = slice(*np.searchsorted(which, [number, number + 1]))
            values, zero = grid.at(level, lonlat[rows])
            current[rows] += values @ (at[number] * WEIGHTS).T
            still[rows] += zero @ (at[number, LAGS.index(0)] * WEIGHTS)
    return current, still


class _Grid:
    """Reads levels of `source` at positions."""

    def __init__(self, source: Currents):
        self.lat, self.lon, self.periodic, self.land = source.lat, source.lon, source.periodic, source.land()

    def at(
        self, level: Int16[np.ndarray, "2 lat lon"], lonlat: Float64[np.ndarray, "*n 2"]
    ) -> tuple[Complex128[np.ndarray, "*n"], Bool[np.ndarray, "*n"]]:
        """The `level` [m/s] at positions `(..., 2)`, complex, by bilinear interpolation; and where all around is 0.

        NaN where a current around is missing, too fast to be stored, or land, and outside the grid.
        """
        x = (lonlat[..., 0] - self.lon.start) % 360.0 / self.lon.step
        y = (lonlat[..., 1] - self.lat.start) / self.lat.step
        i, j = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        valid = (j >= 0) & (j < self.lat.size - 1) & (self.periodic | (i < self.lon.size - 1))
        x, y = x - i, y - j
        i, j = np.where(valid, i, 0), np.where(valid, j, 0)
        out, zero = np.zeros(valid.shape, complex), valid.copy()
        for rows, weight_y in ((j, 1 - y), (np.minimum(j + 1, self.lat.size - 1), y)):
            for columns, weight_x in ((i, 1 - x), ((i + 1) % self.lon.size, x)):
                u, v = level[0][rows, columns], level[1][rows, columns]
                valid &= (u > OVER) & (v > OVER) & ~self.land[rows, columns]
                zero &= (u == 0) & (v == 0)
                out += weight_y * weight_x * (u + 1j * v)
        return np.where(valid, out * SCALE, np.nan), zero & valid
