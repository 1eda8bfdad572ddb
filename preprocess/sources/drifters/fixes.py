"""Fixes of whole trajectories: read from one drifter file, decoded, checked and sorted.

Every file gives fixes of one form: times in whole seconds since 1970-01-01, longitudes in [-180, 180), sorted by time
within a trajectory. Unusable fixes are dropped and counted; nonsensical ones are a `DataError`.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Float64, Int8, Int64, Shaped

from driftcal.preprocess.sources.contradictions import check_angles
from driftcal.preprocess.sources.drifters import drogues, namesakes, quality
from driftcal.preprocess.sources.drifters.drifter_files import opened
from driftcal.preprocess.sources.drifters.drifter_rows import Rows
from driftcal.preprocess.sources.encoding import Encoding
from driftcal.preprocess.sources.files import reading, retried
from driftcal.preprocess.sources.times import NO_TIME, seconds
from driftcal.preprocess.sources.units import SECONDS, units_of
from driftcal.shared.errors import DataError
from driftcal.shared.geo import wrap_longitude

UNDECODED = 990.0
"""Positions of at least this size [degrees] are undecoded fills (999, 9999, 1e20, -1e34), not positions."""

OUT_OF_RANGE = "position out of its valid range"
UNTIMED, UNPLACED, BEYOND, AGAIN = "time missing", "position missing", "beyond rowsize", "duplicate time"

REASONS = {
    OUT_OF_RANGE: "Their positions are outside what valid_min, valid_max or valid_range of latitude or longitude "
    "allow. If the positions are right, correct or remove these attributes in the file.",
    UNTIMED: "Their times are missing, are no times, or are fill values that the file's attributes do not declare: "
    "look at the file, which may hold metadata and no data.",
    UNPLACED: "Their positions are missing, or are fill values that the file's attributes do not declare: look at the "
    "file, which may hold metadata and no data.",
    BEYOND: "They lie behind the end of their row: check that drifters.variables.rowsize names the right variable.",
    **dict.fromkeys(quality.FLAGS.values(), quality.ADVICE),
    namesakes.REASON: "Their tracks are in two places at one time or jump to and fro: restore the ids from the "
    "original, or set drifters.variables.id to what tells the drifters apart.",
    namesakes.ASTRAY: "Receivers without a position write 0, 0: look at the file.",
    AGAIN: "One drifter has several fixes at one time: check that drifters.variables.id names what tells drifters "
    "apart, and that no file is given twice.",
}
"""Reasons for dropping fixes when they are read, each with a remedy."""

_FILLS = 10
"""Different fill values that a variable has at most."""

_LIMITS = {"lat": 90.0, "lon": 360.0}
"""Largest angles of positions [degrees]."""


@dataclass(frozen=True)
class Fixes:
    """Whole trajectories, one after the other, each sorted by time without duplicates."""

    row: Int64[np.ndarray, " n"]
    """Trajectory of each fix, int64 `[n]`, increasing; counts the source's trajectories that hold fixes."""
    time: Int64[np.ndarray, " n"]
    """Seconds since 1970-01-01, int64 `[n]`."""
    lon: Float64[np.ndarray, " n"]
    """Longitude [degrees] in [-180, 180), float64 `[n]`."""
    lat: Float64[np.ndarray, " n"]
    """Latitude [degrees], float64 `[n]`."""
    drogue: Int8[np.ndarray, " n"]
    """1 on, 0 lost, -1 unknown, int8 `[n]`."""
    gap: Float[np.ndarray, " n"]
    """Time between the satellite fixes around each fix [s], float64 `[n]`, NaN where unknown."""
    source_row: Int64[np.ndarray, " n"]
    """Index along the source's flattened observation dimension, int64 `[n]`."""
    drifter: dict[int, str]
    """Drifter id of each row of the block."""
    dropped: dict[str, int]
    """Fixes of the block that were dropped, by reason."""
    resorted: int = 0
    """Rows of the block whose times were out of order."""
    mixed: tuple[tuple[int, str], ...] = ()
    """Rows of the block that hold several drifters, and where that shows; their fixes were dropped."""


@dataclass(frozen=True)
class DrifterFile:
    """One file of a source, resolved and checked; closed between passes over it."""

    path: str
    where: str
    names: dict[str, str]
    """Variable of each role that was found."""
    attributes: dict[str, dict[str, Any]]
    """Attributes of each of them."""
    rows: Rows
    own_times: bool
    """True if each fix of a 2-D table has a time of its own."""
    notes: tuple[str, ...]
    factors: Mapping[str, float]
    """Factors from stored positions to degrees north and east, by role, other than 1."""
    loaded: xr.Dataset | None = None
    """The content, if it is in memory."""

    def opened(self) -> AbstractContextManager[xr.Dataset]:
        """The content, to read fixes from; undecoded."""
        return opened(self.path, self.where) if self.loaded is None else nullcontext(self.loaded)

    def _stored(self, dataset: xr.Dataset, start: int, stop: int) -> dict[str, Shaped[np.ndarray, " n"]]:
        """Values of the fixes of rows [start, stop) as stored, by role, each `[n]`."""
        stored = {}
        for role in ("time", "lat", "lon", "gap", *drogues.ROLES, *quality.FLAGS):
            if role in self.names:
                with reading(self.path, self.where, repr(self.names[role])):
                    variable = dataset[self.names[role]].variable
                    stored[role] = retried(lambda variable=variable: self.rows.take(variable, start, stop))
        return stored

    def _numbers(
        self, role: str, stored: Shaped[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"] | None]:
        """Numbers of a role, NaN where missing; and which are so because they are out of their valid range."""
        where = f"{self.where}: {self.names[role]!r}"
        if stored.dtype.kind not in "iufb":
            raise DataError(f"{where} holds {stored.dtype}, expected numbers for {role!r}. Write them as such.")
        if role in _LIMITS:
            # the limit in the units that are stored
            check_angles(stored, self.attributes[role], _LIMITS[role] / abs(self.factors.get(role, 1.0)), where)
        encoding = Encoding.of(stored.dtype, self.attributes[role], where)
        values = encoding.decoded(stored).astype(np.float64)
        if role in self.factors:
            values *= self.factors[role]
        if not encoding.has_range:
            return values, None
        read = encoding.read(stored)
        return values, encoding.outside(read) & ~np.isin(read, encoding.fills)

    def fixes(self, dataset: xr.Dataset, start: int, stop: int, first_row: int, first_fix: int) -> Fixes:
        """The fixes of rows [start, stop), numbered from `first_row` and `first_fix` in the whole source.

        Raises:
            DataError: values that cannot be read, or that are no times and positions.
        """
        rows, stored = self.rows, self._stored(dataset, start, stop)
        row = np.repeat(np.arange(start, stop, dtype=np.int64), rows.counts[start:stop])
        time = seconds(stored["time"], self.attributes["time"], self.where)
        (lat, lat_outside), (lon, lon_outside) = (self._numbers(role, stored[role]) for role in ("lat", "lon"))
        for role, values in (("lat", lat), ("lon", lon)):
            _check_scale(values, f"{self.where}: {self.names[role]!r}")
        untimed, unplaced = time == NO_TIME, ~((np.abs(lat) < UNDECODED) & (np.abs(lon) < UNDECODED))
        padding, beyond = self._padding(start, stop, time, unplaced)
        reasons = [(OUT_OF_RANGE, out) for out in (lat_outside, lon_outside) if out is not None]
        reasons += [(UNTIMED, untimed), (UNPLACED, unplaced), (BEYOND, beyond)]
        reasons += self._flagged(stored)
        kept, dropped = ~padding, Counter()
        for reason, bad in reasons:
            dropped[reason] += int((kept & bad).sum())
            kept &= ~bad
        _check_degrees(lat[kept], lon[kept], self.where)

        place = np.flatnonzero(kept)
        back = (np.diff(time[place]) < 0) & (np.diff(row[place]) == 0)
        resorted = len(np.unique(row[place[1:]][back]))
        if resorted:
            place = place[np.lexsort((time[place], row[place]))]  # stable: of duplicates the first stored stays first
        at = row[place], time[place], lon[place], lat[place]
        lost = namesakes.astray(*at)
        if lost.any():
            dropped[namesakes.ASTRAY] = int(lost.sum())
            place, at = place[~lost], tuple(values[~lost] for values in at)
        several = namesakes.mixed(*at)
        mixed = tuple((int(k) + first_row, _proof(k, *at)) for k in several)
        theirs = np.isin(at[0], several) if len(several) else np.zeros(len(place), bool)
        again = np.zeros(len(place), bool)
        again[1:] = (np.diff(at[1]) == 0) & (np.diff(at[0]) == 0) & ~theirs[1:]
        dropped[namesakes.REASON] = int(theirs.sum())
        dropped[AGAIN] = int(again.sum())
        if dropped[namesakes.REASON] or dropped[AGAIN]:
            use = ~(again | theirs)
            place, at = place[use], tuple(values[use] for values in at)

        row, time_of_fix, east, north = at
        # Longitudes that are in range already stay as they are, to the last bit.
        outside = ~((east >= -180) & (east < 180))
        east[outside] = wrap_longitude(east[outside])
        return Fixes(
            row=row + first_row,
            time=time_of_fix,
            lon=np.where(east == 180.0, -180.0, east),  # the remainder of -1e-14 rounds up to the whole turn
            lat=north,
            drogue=self._drogue(stored, time)[place],
            gap=self._gap(stored, len(time))[place],
            source_row=rows.source_rows(start, stop)[place] + first_fix,
            drifter={first_row + k: rows.ids[k] for k in range(start, stop)},
            dropped={reason: number for reason, number in dropped.items() if number},
            resorted=resorted,
            mixed=mixed,
        )

    def _flagged(self, stored: Mapping[str, Shaped[np.ndarray, " n"]]) -> list[tuple[str, Bool[np.ndarray, " n"]]]:
        """Reasons for which quality flags exclude fixes, each with the mask of those fixes."""
        return [
            (why, quality.bad(stored[role], self.attributes[role], f"{self.where}: {self.names[role]!r}"))
            for role, why in quality.FLAGS.items()
            if role in stored
        ]

    def _padding(
        self, start: int, stop: int, time: Int64[np.ndarray, " n"], unplaced: Bool[np.ndarray, " n"]
    ) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Selects fixes of a 2-D table that only pad its rows, and fixes with data that `rowsize` counts as padding."""
        rows = self.rows
        if not rows.width:
            return np.zeros(len(time), bool), np.zeros(len(time), bool)
        table = time.reshape(-1, rows.width)
        if rows.filled is not None:
            past = (np.arange(rows.width) >= rows.filled[start:stop, None]).ravel()
            return past & unplaced, past & ~unplaced
        tail = np.logical_and.accumulate(unplaced.reshape(table.shape)[:, ::-1], axis=1)[:, ::-1]
        if self.own_times:
            # Where time goes on the drifter lived, and lacks positions; padding repeats a fill or is missing.
            latest = np.maximum.accumulate(table, axis=1)
            tail[:, 1:] &= table[:, 1:] <= latest[:, :-1]
            tail[:, 0] &= table[:, 0] == NO_TIME
        return tail.ravel(), np.zeros(len(time), bool)

    def _drogue(
        self, stored: Mapping[str, Shaped[np.ndarray, " n"]], time: Int64[np.ndarray, " n"]
    ) -> Int8[np.ndarray, " n"]:
        """State of the drogue from its status, or from the date it was lost: 1, 0 or -1, int8 `[n]`."""
        for role in drogues.ROLES:
            if role in stored:
                attributes, where = self.attributes[role], f"{self.where}: {self.names[role]!r}"
                if role == "drogue":
                    return drogues.of_status(stored[role], attributes, where)
                return drogues.of_lost_date(stored[role], attributes, time, where)
        return np.full(len(time), -1, np.int8)

    def _gap(self, stored: Mapping[str, Shaped[np.ndarray, " n"]], n: int) -> Float[np.ndarray, " n"]:
        """Time between satellite fixes [s], NaN where unknown, `[n]`."""
        if "gap" not in stored:
            return np.full(n, np.nan)
        gap = self._numbers("gap", stored["gap"])[0] * gap_unit(self.attributes["gap"], self.names["gap"], self.where)
        return np.where((gap >= 0) & (gap < 1e12), gap, np.nan)  # beyond 30,000 years it is an undecoded fill


def _proof(
    row: int,
    of_fix: Int64[np.ndarray, " n"],
    time: Int64[np.ndarray, " n"],
    lon: Float64[np.ndarray, " n"],
    lat: Float64[np.ndarray, " n"],
) -> str:
    """Two fixes of a row that one drifter cannot have, as text."""
    of_row = np.flatnonzero(of_fix == row)
    at, east, north = time[of_row], lon[of_row], lat[of_row]
    first = int(np.flatnonzero(namesakes.impossible(of_fix[of_row], at, east, north))[0])
    one, other = (namesakes.text(at[k], (east[k], north[k])) for k in (first, first + 1))
    return f"{one} and {other}"


def gap_unit(attributes: Mapping[str, Any], name: str, where: str) -> float:
    """Length [s] of the unit of the variable `name`, the time between satellite fixes."""
    units = (units_of(attributes) or "").lower()
    if units not in SECONDS and units not in ("", "-", "1", "none"):
        raise DataError(f"{where}: {name!r} has units {units!r}; expected seconds, minutes, hours or days.")
    return SECONDS.get(units, 1.0)


def _check_scale(values: Float64[np.ndarray, " n"], where: str) -> None:
    """Refuses positions most of which are too large for degrees, and too various for fill values."""
    large = values[np.abs(values) >= UNDECODED]
    if len(large) > np.isfinite(values).sum() / 2 and len(np.unique(large)) > _FILLS:
        raise DataError(
            f"{where} holds numbers such as {large[0]:.10g}; expected degrees. Whole numbers of 1e-7 or 1e-5 degrees, "
            "and degrees and minutes run together (4130.25 for 41°30.25'), are not told apart: write decimal "
            "degrees, or declare scale_factor."
        )


def _check_degrees(lat: Float64[np.ndarray, " n"], lon: Float64[np.ndarray, " n"], where: str) -> None:
    off = np.flatnonzero((np.abs(lat) > 90) | (np.abs(lon) > 720))
    if off.size:
        swapped = np.abs(lon).max() <= 90
        hint = "lat and lon look swapped: set drifters.variables.lat and .lon" if swapped else "correct the file"
        if not swapped and off.size > 1 and len(np.unique(lat[off])) == 1:
            hint = "if that is a fill value, leave these cells empty or declare it in the attribute _FillValue"
        raise DataError(
            f"{where}: {off.size} positions are off the globe, such as lat {lat[off[0]]:g}, lon {lon[off[0]]:g}; "
            f"expected |lat| <= 90 and lon in [-180, 360]; {hint}."
        )
