"""Counts, sizes, times and lists as text for people, and sizes that people write."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from driftcal.shared.errors import ConfigError

_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

_LARGEST = 2.0**60


def counted(n: int, noun: str) -> str:
    """`n` things, in the singular where it is one: 1 sample, 1,200 samples."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def were(n: int) -> str:
    """The past of "to be" for `n` things."""
    return "was" if n == 1 else "were"


def listed(items: Sequence[Any], most: int = 10) -> str:
    """The first `most` of `items`."""
    return ", ".join(map(str, items[:most])) + (", ..." if len(items) > most else "")


def size(n_bytes: float) -> str:
    """A size in powers of 1,000, with three digits: 456 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB" if n_bytes < 999.5 else f"{n_bytes:,.0f} TB"


def parse_size(text: str, option: str) -> int:
    """The bytes of a size such as 4GB, 500MB or 1.5GiB, given to `option` of a command.

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)\s*(?:([kmgt]i?)b?|b)", text.strip().lower())
    size_ = float(match[1]) * _FACTORS[match[2] or ""] if match else 0.0
    if not 0.0 < size_ < _LARGEST:
        raise ConfigError(f"{option} {text!r}: expected a size with its unit, such as 4GB or 500MiB.")
    return round(size_)


def duration(seconds: float) -> str:
    """A time that is roughly known, with two digits: 12 s, 1.8 min, 4 h, 3 days."""
    if seconds < 1.0:
        return "a second"
    for unit, length, limit in (("s", 1.0, 99.5), ("min", 60.0, 89.5), ("h", 3600.0, 47.5)):
        if seconds < limit * length:
            return f"{seconds / length:.2g} {unit}"
    days = seconds / 86_400.0
    return f"{days:.2g} days" if days < 99.5 else f"{days:,.0f} days"


def interval(seconds: int) -> str:
    """A time that is exactly known, in the largest unit that it is a multiple of: 1 d, 6 h, 90 min."""
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def stamp(time: int | np.integer) -> str:
    """A time [s since 1970-01-01 UTC] as ISO 8601, to the second: 2010-01-31T06:00:00."""
    return str(np.datetime64(int(time), "s"))
