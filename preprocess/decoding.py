"""What the stored values of a source mean: numbers, text and times, by the CF attributes beside them.

Values are decoded here and not by xarray: its decoding guesses, warns, and hides what was stored. Missing numbers are
NaN, missing texts are empty, times are int64 whole seconds since 1970-01-01 UTC, `NO_TIME` where missing.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from shared.errors import DataError

NO_TIME = np.iinfo(np.int64).min
"""A missing time [s]; also what numpy's NaT is as an integer."""

SECONDS = {
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
}
"""Length of the units of time [s]."""

UNIT_ATTRIBUTES = ("units", "unit", "Unit", "Units")
"""Attributes that give units: CF says `units`, GlobCurrent writes `Unit`."""

# Years 1 and 9999: what lies beyond is an undecoded fill value, not a time.
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_799

_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
_REFORM = np.datetime64("1582-10-15", "s")
"""First day of the Gregorian calendar: the calendar `standard` is Julian before."""
_EPOCH = re.compile(
    r"(?P<year>\d{1,4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})"
    r"(?:[T\s]\s*(?P<hour>\d{1,2})(?::(?P<minute>\d{1,2})(?::(?P<second>\d{1,2}(?:\.\d*)?))?)?)?"
    r"\s*(?:Z|UTC|GMT|(?P<sign>[+-])(?P<ahead>\d{1,2})(?::?(?P<ahead_minutes>\d{2}))?)?",
    re.IGNORECASE,
)


def units_of(attributes: Mapping[str, Any]) -> str | None:
    """The units that a variable's attributes give, None where they give none."""
    for name in UNIT_ATTRIBUTES:
        if isinstance(value := attributes.get(name), str) and value.strip():
            return value.strip()
    return None


def fills(attributes: Mapping[str, Any]) -> tuple[int | float, ...]:
    """The finite numbers that a variable's attributes declare to stand for missing values."""
    declared = [x for name in ("_FillValue", "missing_value") for x in np.ravel(attributes.get(name, []))]
    return tuple(x.item() for x in declared if x.dtype.kind in "iuf" and np.isfinite(x))


def missing(stored: np.ndarray, declared: Sequence[int | float]) -> np.ndarray:
    """Where numbers as stored are NaN or one of the `declared` fills; bool, of the same shape."""
    if stored.dtype.kind == "f":
        found = np.isnan(stored)
        # Compared as they are stored: -1e34 is another number in float32.
        with np.errstate(over="ignore"):
            numbers = [stored.dtype.type(fill) for fill in declared]
    else:
        found = None
        numbers = [int(fill) for fill in declared if fill == int(fill)]
    for number in numbers:
        found = stored == number if found is None else found | (stored == number)
    return np.zeros(stored.shape, bool) if found is None else found


def unpacked(stored: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
    """Stored numbers as the CF attributes mean them: `scale_factor` and `add_offset` applied, fills as NaN.

    Integers that are neither packed nor missing stay integers; what is not a number is returned as it came.
    """
    values = stored = np.asarray(stored)
    if stored.dtype.kind not in "iuf":
        return stored
    lost = missing(stored, fills(attributes))
    if "scale_factor" in attributes or "add_offset" in attributes:
        scale, offset = attributes.get("scale_factor", 1.0), attributes.get("add_offset", 0.0)
        values = stored * np.float64(scale) + np.float64(offset)
    return np.where(lost, np.nan, values) if lost.any() else values


def texts(values: np.ndarray) -> list[str]:
    """Values as text: whole numbers without `.0`, bytes decoded, blanks stripped, empty where missing."""
    return [_text(value) for value in values.tolist()]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip(" \t\0")


def seconds(stored: np.ndarray, attributes: Mapping[str, Any], where: str) -> np.ndarray:
    """Times as int64 seconds since 1970-01-01 UTC, rounded; `NO_TIME` where missing.

    Takes numbers with CF `units` (any epoch, the standard calendars), datetime64, and ISO 8601 text.

    Raises:
        DataError: units, calendar or text that give no times.
    """
    values = np.asarray(stored)
    if values.dtype.kind not in "iufM":
        stamps = texts(values)
        parsed = pd.to_datetime(pd.Series(stamps, dtype=object), format="ISO8601", utc=True, errors="coerce")
        values = parsed.dt.tz_localize(None).to_numpy("datetime64[ms]")
        if any(stamps) and np.isnat(values).all():
            raise DataError(f"{where}: no time is ISO 8601 text such as 2010-01-31T06:00:00Z. Rewrite the times.")
    if values.dtype.kind == "M":
        return (values + np.timedelta64(500, "ms")).astype("datetime64[s]").astype(np.int64)
    units = units_of(attributes) or ""
    match = re.fullmatch(r"(\w+)\s+since\s+(.+)", units, re.IGNORECASE)
    length = SECONDS.get(match[1].lower()) if match else None
    if match is None or length is None:
        raise DataError(
            f"{where}: times have units {units!r}; expected such as 'seconds since 1970-01-01'. Correct the attribute "
            "`units` in the file; in a table without attributes write times as 2010-01-31T06:00:00Z."
        )
    zero = _epoch(match[2], str(attributes.get("calendar", "standard")).lower(), where)
    raw = unpacked(values, attributes)
    with np.errstate(over="ignore"):
        approximate = raw.astype(np.float64) * length
    known = (approximate >= _EARLIEST - zero) & (approximate <= _LATEST - zero)
    if raw.dtype.kind in "iu" and length >= 1:
        exact = np.where(known, raw, 0).astype(np.int64) * int(length)
    else:
        exact = np.rint(np.where(known, approximate, 0.0)).astype(np.int64)
    return np.where(known, exact + zero, NO_TIME)


@functools.lru_cache(maxsize=64)
def _epoch(text: str, calendar: str, where: str) -> int:
    """The instant `text`, such as `1950-1-1 00:00:00 +02:00`, in seconds since 1970-01-01."""
    if calendar not in _CALENDARS:
        raise DataError(
            f"{where}: times follow the calendar {calendar!r}; expected {', '.join(_CALENDARS)}. "
            "Observed drifters and currents have real dates: rewrite the times."
        )
    unknown = f"{where}: times count from {text!r}, which is not a date such as 1950-01-31T06:00:00Z"
    match = _EPOCH.fullmatch(text)
    if match is None:
        raise DataError(f"{unknown}. Correct the attribute `units` in the file.")
    part = {name: float(found or 0) for name, found in match.groupdict().items() if name != "sign"}
    if part["hour"] > 24 or part["minute"] >= 60 or part["second"] >= 61:
        raise DataError(f"{unknown} (time of day). Correct the attribute `units` in the file.")
    year, month, day = int(part["year"]), int(part["month"]), int(part["day"])
    try:
        date = np.datetime64(f"{year:04d}-{month:02d}-{day:02d}", "s")
    except ValueError as error:
        raise DataError(f"{unknown} ({error}). Correct the attribute `units` in the file.") from error
    days = 0
    if calendar != "proleptic_gregorian" and date < _REFORM:
        # The leap days that the Julian calendar has and the Gregorian has not; two fewer in year 1.
        past = year - (month < 3)
        days = past // 100 - past // 400 - 2
    ahead = (-1 if match["sign"] == "-" else 1) * (part["ahead"] * 3600 + part["ahead_minutes"] * 60)
    clock = part["hour"] * 3600 + part["minute"] * 60 + part["second"] - ahead
    return int(date.astype(np.int64)) + days * 86_400 + round(clock)
