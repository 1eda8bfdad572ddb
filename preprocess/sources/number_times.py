"""Times that are numbers without a unit: a guess at the unit, and a remedy, for messages."""

import re

import numpy as np
import pandas as pd
from jaxtyping import Num

_LOOKS = (
    (1e8, 5e9, "seconds since 1970-01-01"),
    (1e11, 5e12, "milliseconds since 1970-01-01"),
    (1e14, 5e15, "microseconds since 1970-01-01"),
    (1e17, 5e18, "nanoseconds since 1970-01-01"),
)
"""Numbers of this size are mostly counted so, in the years from 1973 to 2128."""

_DAYS = (
    (28_500, 54_800, "Excel's days", "days since 1899-12-30"),
    (43_500, 69_800, "modified Julian days", "days since 1858-11-17"),
)
"""Counts of days in the years of drifters, from 1978 to 2050."""

_DIGITS = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[01]\d|2[0-3])?(?:[0-5]\d){0,2}")
"""A date in digits: yyyymmdd, with hours, minutes and seconds or without."""

_SAMPLE = 1000


def remedy(stored: Num[np.ndarray, "..."], units: str | None) -> str:
    """Remedy for times whose `units` have no reference date, judged by the numbers `stored`."""
    numbers = stored[..., :_SAMPLE].astype(np.float64).ravel()
    numbers = numbers[np.isfinite(numbers)]
    size = float(np.median(numbers)) if numbers.size else np.nan
    unit = units if units in ("days", "hours", "minutes", "seconds") else "seconds"
    ask = f"set drifters.time_units in the manifest, as in drifters.time_units: {unit} since 2010-01-01"
    if _are_digits(numbers):
        return f"They look like dates in digits ({numbers[0]:.0f}): write them as text such as 2010-01-31T06:00:00Z."
    if 6e5 < size < 9e5:
        return (
            f"They look like MATLAB's datenum ({size:g}): subtract 719529, and set drifters.time_units: days since "
            "1970-01-01 in the manifest."
        )
    if 2.4e6 < size < 2.6e6:
        return (
            f"They look like Julian days ({size:g}): subtract 2440587.5, and set drifters.time_units: days since "
            "1970-01-01 in the manifest."
        )
    looks = next((said for least, most, said in _LOOKS if least <= size <= most), None)
    if looks is not None:
        return f"They look like {looks} ({size:.0f}): if they are, set drifters.time_units: {looks} in the manifest."
    days = [
        f"if it is {pd.Timestamp(counted[-10:]) + pd.Timedelta(days=int(size)):%Y-%m-%d} in {name}, set "
        f"drifters.time_units: {counted} in the manifest"
        for least, most, name, counted in _DAYS
        if least <= size <= most and units in (None, "days")
    ]
    if days:
        return f"They look like days ({size:g}): {'; '.join(days)}; else write times as 2010-01-31T06:00:00Z."
    if 1970 < size < 2100 and np.ptp(numbers) < 100:
        return f"They look like years with decimals ({size:g}): write them as text such as 2010-01-31T06:00:00Z."
    return f"Say since when they count ({size:g}, for example): {ask}; or write times as 2010-01-31T06:00:00Z."


def _are_digits(numbers: Num[np.ndarray, " n"]) -> bool:
    """Tells whether all `numbers` can be dates in digits."""
    return bool(numbers.size) and all(_DIGITS.fullmatch(f"{number:.0f}") for number in numbers)
