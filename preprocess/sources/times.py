"""Times of sources: numbers with CF units, datetime64 or ISO 8601 text become whole seconds since 1970-01-01 UTC."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import cftime
import numpy as np
import pandas as pd
from jaxtyping import Int64, Shaped

from driftcal.preprocess.sources.encoding import MISSING, decode, texts
from driftcal.preprocess.sources.units import SECONDS, units_of
from driftcal.shared.errors import DataError

NO_TIME = np.iinfo(np.int64).min
"""A missing time [s]; also what numpy's NaT is as an integer."""

# Years 1 and 9999: what lies beyond is an undecoded fill value, not a time.
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_799

_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
_REFORM = 1582
"""Year from which the calendar `standard` is Gregorian; it is Julian before."""
_ALIKE = (1901, 2099)
"""First and last year in which the Julian and the Gregorian calendar have the same leap years."""
_END_OF_DAY = r"^(\d{4}-\d{1,2}-\d{1,2})[T ]24:00(?::00(?:\.0*)?)?Z?$"
_ZERO_DATE = "0000-00-00"
"""Date that databases write for a missing one."""

_EPOCH = re.compile(
    r"(?P<year>\d{1,4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})"
    r"(?:[T\s]\s*(?P<hour>\d{1,2})(?::(?P<minute>\d{1,2})(?::(?P<second>\d{1,2}(?:\.\d*)?))?)?)?"
    r"\s*(?:Z|UTC|GMT|(?P<sign>[+-])(?P<ahead>\d{1,2})(?::?(?P<ahead_minutes>\d{2}))?)?",
    re.IGNORECASE,
)


def seconds(
    stored: Shaped[np.ndarray, "*shape"], attributes: Mapping[str, Any], where: str
) -> Int64[np.ndarray, "*shape"]:
    """Times as int64 seconds since 1970-01-01 UTC, rounded; `NO_TIME` where missing.

    Takes numbers with CF `units` (any epoch, the calendars of real dates), datetime64, and ISO 8601 text.

    Raises:
        DataError: units, calendar or text that give no times.
    """
    values = np.asarray(stored)
    if values.dtype.kind not in "iufM":
        values, bad = of_text(texts(values))
        if bad:
            raise DataError(
                f"{where}: {len(bad)} of {len(values)} times cannot be read as ISO 8601 text, such as {bad[0]!r}; "
                "expected such as 2010-01-31T06:00:00Z, and nothing where a time is missing. Rewrite the times in UTC, "
                "with pandas for instance: pandas.to_datetime(times, format=...).dt.strftime('%Y-%m-%dT%H:%M:%SZ'), "
                "where '%d.%m.%Y %H:%M' is the format of 31.01.2010 06:00."
            )
    if values.dtype.kind == "M":
        return (values + np.timedelta64(500, "ms")).astype("datetime64[s]").astype(np.int64)
    units = units_of(attributes) or ""
    match = _since(units)
    length = SECONDS.get(match[1].lower()) if match else None
    if match is None or length is None:
        raise DataError(
            f"{where}: times have units {units!r}; expected such as 'seconds since 1970-01-01'. {_remedy(where)}; in a "
            "table without attributes write times as 2010-01-31T06:00:00Z."
        )
    calendar = _calendar(attributes)
    zero = _epoch(match[2], calendar, where)
    raw = decode(values, attributes, where)
    with np.errstate(over="ignore"):
        approximate = raw.astype(np.float64) * length
    in_range = (approximate >= _EARLIEST - zero) & (approximate <= _LATEST - zero)
    if raw.dtype.kind in "iu" and length >= 1:
        exact = np.where(in_range, raw, 0).astype(np.int64) * int(length)
    else:
        exact = np.rint(np.where(in_range, approximate, 0.0)).astype(np.int64)
    times = np.where(in_range, exact + zero, NO_TIME)
    if calendar == "julian":
        _check_alike(times[in_range], where)
    return times


def of_text(stamps: Sequence[str]) -> tuple[Shaped[np.ndarray, " n"], list[str]]:
    """Instants of ISO 8601 text as datetime64 `[n]`, NaT if missing; and the texts that cannot be read.

    `24:00` is the end of its day; text without an offset, or with `UTC` or `GMT` after it, is UTC.
    """
    words = pd.Series(stamps, dtype=object)
    parsed = pd.to_datetime(words, format="ISO8601", utc=True, errors="coerce")
    left = parsed.isna() & ~words.str.lower().isin(MISSING) & ~words.str.startswith(_ZERO_DATE)
    if left.any():
        plain = pd.Series(words[left]).str.replace(r"\s*(?:UTC|GMT)$", "Z", regex=True)
        ends = plain.str.fullmatch(_END_OF_DAY)
        plain = plain.str.replace(_END_OF_DAY, r"\1", regex=True)
        again = pd.to_datetime(plain, format="ISO8601", utc=True, errors="coerce")
        parsed[left] = again + pd.to_timedelta(ends.astype(int), unit="D")
        left &= parsed.isna()
    return parsed.dt.tz_localize(None).to_numpy("datetime64[ms]"), words[left].tolist()


def remarks(attributes: Mapping[str, Any]) -> list[str]:
    """Notes for the user on the calendar and units of times, without their source."""
    match, calendar = _since(units_of(attributes) or ""), _calendar(attributes)
    notes = []
    if calendar == "julian":
        notes.append("times follow the calendar 'julian'; their dates are taken as real ones")
    if match is not None and (year := re.match(r"\d+", match[2])) and int(year[0]) < _REFORM:
        days = "Julian days before 1582-10-15" if calendar != "proleptic_gregorian" else "Gregorian days"
        notes.append(
            f"times count from {match[2]!r} in {days} (calendar {calendar!r}): numbers that a program has counted "
            "otherwise come out some days off"
        )
    return notes


def _remedy(where: str) -> str:
    stated = "Set currents.units.time in the manifest to what they are, or correct"
    return f"{stated if where.startswith('currents ') else 'Correct'} the attribute `units` in the file"


def _since(units: str) -> re.Match[str] | None:
    return re.fullmatch(r"(\w+)\s+since\s+(.+)", units, re.IGNORECASE)


def _calendar(attributes: Mapping[str, Any]) -> str:
    return str(attributes.get("calendar", "")).strip(" \t\0").lower() or "standard"


@functools.lru_cache(maxsize=64)
def _epoch(text: str, calendar: str, where: str) -> int:
    """The instant `text`, such as `1950-1-1 00:00:00 +02:00`, in seconds since 1970-01-01."""
    if calendar not in (*_CALENDARS, "julian"):
        raise DataError(
            f"{where}: times follow the calendar {calendar!r}; expected {', '.join(_CALENDARS)}. "
            "Observed drifters and currents have real dates: rewrite the times."
        )
    unknown = f"{where}: times count from {text!r}, which is not a date such as 1950-01-31T06:00:00Z"
    if re.match(r"0+\s*-", text):
        raise DataError(
            f"{where}: times count from {text!r}, and there is no year 0 before the year 1. Numbers of this kind are "
            "MATLAB's datenum, which counts 0000-01-01 as 1: subtract 719529 and write the units as 'days since "
            "1970-01-01'."
        )
    if re.match(r"-0*47\d\d-", text):
        raise DataError(
            f"{where}: times count from {text!r}. Numbers of this kind are Julian days, which count "
            "1970-01-01T00:00:00 as 2440587.5: subtract that and write the units as 'days since 1970-01-01'."
        )
    match = _EPOCH.fullmatch(text.strip())
    if match is None:
        raise DataError(f"{unknown}. {_remedy(where)}.")
    part = {name: float(number or 0) for name, number in match.groupdict().items() if name != "sign"}
    if part["hour"] > 24 or part["minute"] >= 60 or part["second"] >= 61:
        raise DataError(f"{unknown} (time of day). {_remedy(where)}.")
    date = int(part["year"]), int(part["month"]), int(part["day"])
    # Real dates under a Julian label: those of both calendars are equally far apart where leap years are the same.
    real = "proleptic_gregorian" if calendar == "julian" else calendar
    try:
        midnight = cftime.datetime(*date, calendar=real)
        start = int(cftime.date2num(midnight, "seconds since 1970-01-01", calendar=real))
    except ValueError as error:
        raise DataError(f"{unknown} ({error}). {_remedy(where)}.") from error
    if calendar == "julian":
        _check_alike(np.array([start]), where)
    ahead = (-1 if match["sign"] == "-" else 1) * (part["ahead"] * 3600 + part["ahead_minutes"] * 60)
    return start + round(part["hour"] * 3600 + part["minute"] * 60 + part["second"] - ahead)


def _check_alike(times: Int64[np.ndarray, "..."], where: str) -> None:
    """Refuses times of the calendar `julian` [s since 1970-01-01] outside the years that fix their dates."""
    first, last = (np.datetime64(f"{year}-01-01", "s").astype(np.int64) for year in (_ALIKE[0], _ALIKE[1] + 1))
    if times.size and not (times.min() >= first and times.max() < last):
        raise DataError(
            f"{where}: times follow the calendar 'julian' and leave the years {_ALIKE[0]} to {_ALIKE[1]}, in which its "
            "leap years are the real ones. Count them from a date in those years in the calendar 'standard'."
        )
