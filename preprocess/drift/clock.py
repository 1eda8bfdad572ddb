"""Fixes on the regular clock that segments are cut from.

Receivers report some seconds or minutes off the hour, or more often than once a step. Where fixes are on a regular
clock already, whatever its offset, they stay as they are, to the bit. Elsewhere the fixes at the instants of a regular
clock are taken, and where there is none the position is interpolated linearly between its two neighbours, if the nearer
of them is within a tolerance and they are at most one and a half steps apart. Of a drifter that speeds up by 5e-5 m/s²
(0.5 m/s of inertial motion) that is 5 m off for a minute in an hour, and 80 m at most.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int, Int64

from driftcal.preprocess.drift import segments
from driftcal.preprocess.recipe import DAY, DEFAULT_TOLERANCE, DrifterSource, Segment
from driftcal.preprocess.sources.drifters.fixes import Fixes
from driftcal.shared import geo
from driftcal.shared.errors import DataError

BETWEEN = "between the steps of a regular clock"
"""Reason for unused fixes of a track that has more of them than the step asks for."""

FAST = "off a regular clock, beside a step faster than max_speed"
"""Reason for not interpolating a position between two fixes."""

REASONS = {
    BETWEEN: "There are more fixes than segment.step asks for, and those at its instants are used: nothing need be "
    "done. A smaller segment.step uses more of them.",
    FAST: "A step faster than drifters.max_speed lies beside them, so that nothing is interpolated there. If such "
    "speeds are real raise it; else positions are wrong.",
}
"""Reasons for dropping fixes here, each with a remedy."""

HEAD = 512
"""Number of fixes that determine the phase of a clock."""

ENOUGH = 0.75
"""Share of the instants of a clock that fixes must serve to be on it."""

OFTEN = 0.5
"""Share of the instants of a clock that must have a fix of their own for it to be that of the fixes."""

SAMPLE = 100_000
"""Steps that a message is made from."""

NICE = (600, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""Steps that are proposed for irregular fixes [s]."""

MANY_FAST = 1 / 3
"""Share of fast steps from which a stretch is left as it is: it may be two drifters, by turns."""

_MINUTE = 60


@dataclass(frozen=True)
class Instants:
    """Instants of a regular clock, and the fixes that each lies between; arrays are `[n]`."""

    time: Int64[np.ndarray, " n"]
    """Seconds since 1970-01-01."""
    before: Int[np.ndarray, " n"]
    """Index of the last fix that is not after it."""
    after: Int[np.ndarray, " n"]
    """Index of the first fix that is not before it."""


class Clock:
    """The regular clock of one source, with counts of the changes to bring its fixes to it.

    Attributes:
        interpolated: Fixes that were interpolated.
        furthest: Greatest time to the nearest fix of any of them [s].
    """

    def __init__(self, segment: Segment, source: DrifterSource):
        """Begins without any fix."""
        self._segment, self._source = segment, source
        self._tolerance = min(source.clock_tolerance, (segment.step - 1) // 2)
        self.interpolated = self.furthest = 0
        self._steps: Counter[int] = Counter()
        self._sample = np.empty(0, np.int64)
        self._distance = self._between = self._served = self._asked = self._exact = self._total = 0

    def regular(self, fixes: Fixes) -> Fixes:
        """`fixes`, those of irregular stretches brought to a regular clock."""
        step, n = self._segment.step, len(fixes.time)
        apart = np.diff(fixes.time)
        same = fixes.row[1:] == fixes.row[:-1]
        exact = apart == step
        exact &= same
        n_exact = int(np.count_nonzero(exact))
        self._exact, self._total = self._exact + n_exact, self._total + n
        if n_exact == np.count_nonzero(same):
            if n_exact:
                self._steps[step] += 1
            return fixes
        if (typical := segments.typical_step(fixes)) is not None:
            self._steps[typical] += 1
            if typical != step or not len(self._sample):
                self._sample = apart[same][:SAMPLE]
        near = same & (2 * apart <= 3 * step)
        odd = near & ~exact
        if not odd.any():
            return fixes
        kept = np.ones(n, bool)
        instants: list[Instants] = []
        left = _in_long_runs(exact, self._segment.n_obs)
        ends = np.flatnonzero(~near | (left[1:] != left[:-1])) + 1
        edges = np.concatenate([[0], ends, [n]])
        bad = np.zeros(len(edges) - 1, bool)
        bad[np.searchsorted(edges, np.flatnonzero(odd & ~left[1:] & ~left[:-1]), side="right") - 1] = True
        for first, stop in zip(edges[:-1][bad].tolist(), edges[1:][bad].tolist(), strict=True):
            self._serve(fixes, first, stop, kept, instants)
        return self._made(fixes, kept, instants) if instants else fixes

    def _serve(self, fixes: Fixes, first: int, stop: int, kept: Bool[np.ndarray, " n"], parts: list[Instants]) -> None:
        """Adds the instants that the stretch [first, stop) of one row serves, piece by piece, and marks its fixes."""
        time, step, n_obs = fixes.time[first:stop], self._segment.step, self._segment.n_obs
        if time[-1] - time[0] >= (n_obs - 1) * step:  # no segment comes of shorter ones
            self._asked += int((time[-1] - time[0]) // step)
        start = 0
        while len(time) - start >= 2 and time[-1] - time[start] >= (n_obs - 1) * step:
            # most irregular stretches lose their clock at once: they are not looked through to their end each time
            limit = int(np.searchsorted(time, time[start] + 4 * n_obs * step))
            instants = instants_of(time[start:limit], step, self._tolerance)
            if limit < len(time) and len(instants.time) and instants.time[-1] + step > time[limit - 1]:
                instants = instants_of(time[start:], step, self._tolerance)
            n = len(instants.time)
            span = int(instants.time[-1] - instants.time[0]) if n else 0
            if span < (n_obs - 1) * step:
                start = int(np.searchsorted(time, time[start] + (1 + n_obs // 10) * step))  # it begins anew, or never
                continue
            before, after = instants.before + first + start, instants.after + first + start
            is_clock = n >= ENOUGH * (span // step + 1)
            if is_clock and _share_of_fast(fixes, int(before[0]), int(after[-1]), self._source.max_speed) <= MANY_FAST:
                parts.append(Instants(instants.time, before, after))
                kept[before[0] : after[-1] + 1] = False
                self._served += n
            start += int(instants.after[-1]) + 1

    def _made(self, fixes: Fixes, kept: Bool[np.ndarray, " n"], parts: list[Instants]) -> Fixes:
        """The fixes that are `kept` and those at the instants `parts`."""
        time, before, after = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("time", "before", "after")
        )
        lonlat = np.stack([fixes.lon, fixes.lat], axis=-1)
        span = np.maximum(fixes.time[after] - fixes.time[before], 1)
        fast = (after > before) & (geo.separation(lonlat[before], lonlat[after]) > self._source.max_speed * span)
        time, before, after, span = time[~fast], before[~fast], after[~fast], span[~fast]
        weight = (time - fixes.time[before]) / span
        nearest = np.where(2 * weight > 1, after, before)
        distance = np.abs(fixes.time[nearest] - time)
        between = after > before
        self.interpolated += int(between.sum())
        self.furthest = max(self.furthest, int(distance.max(initial=0)))
        self._distance += int(distance.sum())
        east = geo.wrap_longitude(fixes.lon[after] - fixes.lon[before])
        lon = np.where(between, geo.wrap_longitude(fixes.lon[before] + weight * east), fixes.lon[before])
        interpolated = {
            "row": fixes.row[before],
            "time": time,
            "lon": lon,
            "lat": np.where(
                between, fixes.lat[before] + weight * (fixes.lat[after] - fixes.lat[before]), fixes.lat[before]
            ),
            "drogue": np.minimum(fixes.drogue[before], fixes.drogue[after]),
            "gap": np.fmax(fixes.gap[before], fixes.gap[after]),
            "source_row": fixes.source_row[nearest],
        }
        whole = {name: np.concatenate([getattr(fixes, name)[kept], values]) for name, values in interpolated.items()}
        order = np.lexsort((whole["time"], whole["row"]))
        n_fast, gone = int(fast.sum()), int((~kept).sum()) - len(time)
        dropped = Counter(fixes.dropped)
        self._between += gone - min(n_fast, gone)
        dropped.update({FAST: min(n_fast, gone), BETWEEN: gone - min(n_fast, gone)})
        return replace(fixes, dropped=dict(+dropped), **{name: values[order] for name, values in whole.items()})

    def check(self) -> None:
        """Refuses fixes that are on no clock of the step asked for, nor near one.

        Raises:
            DataError: They are, with settings that they fit.
        """
        usual, step = self._steps.most_common(1)[0][0] if self._steps else None, self._segment.step
        if usual is None or self._is_served(usual):
            return
        where, apart = f"drifters {self._source.path}", self._sample
        resample = "resample the drifters to a regular clock"
        if np.mean(np.abs(apart - usual) <= 0.1 * usual) < OFTEN:
            least, most = np.quantile(apart, [0.1, 0.9]).astype(int)
            fit = next((s for s in (step, *NICE) if s >= most and not self._segment.days * DAY % s), None)
            settings = [_settings(self._segment, fit)] if fit and fit != step else []
            remedy = f"Set {' and '.join([*settings, f'drifters.clock_tolerance: {fit // 2}s'])}" if fit else ""
            raise DataError(
                f"{where}: fixes are at irregular times, mostly {least} to {most} s apart, and segment.step is {step}."
                + (f" {remedy} to interpolate them, or {resample}." if remedy else f" {resample.capitalize()}.")
            )
        wider = min(1 + int(apart[2 * apart <= 3 * step].max(initial=0)) // 2, (step - 1) // 2)
        if self._tolerance < DEFAULT_TOLERANCE and np.mean(np.abs(apart - step) <= DEFAULT_TOLERANCE) > 0.9:
            wider = min(DEFAULT_TOLERANCE, wider)
        remedies = []
        # of fixes further apart than the step some instant has none within half a step, unless they lag too slowly
        near = (usual - step) * self._segment.n_obs <= wider and self._tolerance < wider
        if abs(usual - step) > 0.1 * step or (usual != step and not near):
            remedies.append(f"set {_settings(self._segment, usual)}")
        if near:
            remedies.append(f"set drifters.clock_tolerance: {wider}s to interpolate them to that step")
        remedy = ", or ".join([*remedies, resample])
        raise DataError(
            f"{where}: fixes are mostly {usual} s apart, but segment.step is {step} s"
            f"{', and they are not on a regular clock' if usual == step else ''}. {remedy[0].upper()}{remedy[1:]}."
        )

    def _is_served(self, usual: int) -> bool:
        """Tells whether fixes that are mostly `usual` seconds apart are, or were brought to, the step asked for."""
        step = self._segment.step
        if self._exact + self._served < ENOUGH * self._asked:
            return False
        if usual == step or 2 * usual > 3 * step or self._asked:
            return 2 * usual <= 3 * step
        # tracks too short for a segment, none of which was asked for more
        return bool(np.mean(np.abs(self._sample - step) <= self._tolerance) >= OFTEN)

    def notes(self) -> list[str]:
        """Counts of interpolated and omitted fixes, as text for the user."""
        where, step, notes = f"drifters {self._source.path}", self._segment.step, []
        if self.interpolated:
            notes.append(
                f"{where}: {self.interpolated} of {self._total} fixes were interpolated linearly to a regular clock of "
                f"{step} s, over {self._distance / self.interpolated:.0f} s on average and {self.furthest} s at most "
                "(drifters.clock_tolerance)"
            )
        if self._between:
            notes.append(
                f"{where}: {self._between} fixes lie between the steps of a clock of {step} s and are not used"
            )
        return notes


def _settings(segment: Segment, step: int) -> str:
    """Settings of segments that fixes `step` [s] apart fit."""
    settings = [f"segment.step: {step}s"]
    for name, days, least in (("days", segment.days, 2), ("stride_days", segment.stride_days, 1)):
        if days is not None and days * DAY % step:
            settings.append(f"segment.{name}: {max(least, round(days * DAY / step)) * step / DAY:.15g}")
    return " and ".join(settings)


def instants_of(time: Int64[np.ndarray, " n"], step: int, tolerance: int) -> Instants:
    """Instants of a regular clock that fixes at `time` serve from the first one on, until it is lost.

    Args:
        time: Ascending times of one stretch [s] `[n]`.
        step: Step of the clock [s].
        tolerance: Greatest time from an instant to the nearest fix [s]. A single instant without one does not end the
            clock and is left out.

    Returns:
        The instants.
    """
    phase = _phase(time[:HEAD], step, tolerance)
    clock = np.arange(time[0] + (phase - time[0]) % step, time[-1] + 1, step)
    after = np.searchsorted(time, clock)
    before = np.where(time[np.minimum(after, len(time) - 1)] == clock, after, after - 1)
    nearest = np.minimum(clock - time[before], time[after] - clock)
    off = nearest > tolerance
    lost = np.flatnonzero(off[1:] & off[:-1])
    end = int(lost[0]) if len(lost) else len(clock)
    good = np.flatnonzero(~off[:end])
    return Instants(clock[good], before[good], after[good])


def _phase(time: Int64[np.ndarray, " n"], step: int, tolerance: int) -> int:
    """Offset [s] from whole steps since 1970 of the clock that fixes at `time` are on, or nearest to."""
    values, counts = np.unique(time % step, return_counts=True)
    if counts.max() >= max(2, OFTEN * ((time[-1] - time[0]) // step + 1)):
        often = values[counts >= 0.9 * counts.max()]
        return int(often[np.argmin(np.minimum(often, step - often))])
    whole = np.arange(time[0] + -time[0] % step, time[-1] + 1, step)
    if len(whole):
        after = np.minimum(np.searchsorted(time, whole), len(time) - 1)
        nearest = np.minimum(np.abs(time[after] - whole), np.abs(whole - time[np.maximum(after - 1, 0)]))
        if np.mean(nearest <= tolerance) >= 0.9:
            return 0
    centred = (time - time[0] + step // 2) % step - step // 2
    phase = (time[0] + float(np.median(centred))) % step
    rounded = round(phase / _MINUTE) * _MINUTE if tolerance >= _MINUTE and step % _MINUTE == 0 else round(phase)
    return int(rounded % step)


def _in_long_runs(exact: Bool[np.ndarray, " n-1"], n_obs: int) -> Bool[np.ndarray, " n"]:
    """Marks fixes `[n]` of runs of exact steps `[n - 1]` that are long enough for a segment of `n_obs` fixes."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], exact, [False]]).astype(np.int8)))
    starts, stops = edges[::2], edges[1::2]
    long = stops - starts >= n_obs - 1
    marks = np.zeros(len(exact) + 2, np.int64)
    marks[starts[long]] += 1
    marks[stops[long] + 1] -= 1
    return np.cumsum(marks)[:-1] > 0


def _share_of_fast(fixes: Fixes, first: int, last: int, max_speed: float) -> float:
    """Share of the steps between the fixes first to last that are faster than `max_speed` [m/s]."""
    lonlat = np.stack([fixes.lon[first : last + 1], fixes.lat[first : last + 1]], axis=-1)
    allowed = max_speed * np.diff(fixes.time[first : last + 1])
    return float(np.mean(geo.separation(lonlat[1:], lonlat[:-1]) > allowed)) if last > first else 0.0
