"""Tables of drifters in text: the columns that play a role, as pandas reads them.

Columns without a role are not looked at. What a cell means follows from the role of its column; a number that cannot be
read is refused by name and never taken for missing. Single cells that are no times are: their fixes are dropped and
counted.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float64, Shaped

from driftcal.preprocess.recipe import DrifterSource
from driftcal.preprocess.sources.drifters import angles, hemispheres
from driftcal.preprocess.sources.drifters.dialect import Dialect, text
from driftcal.preprocess.sources.drifters.drifter_roles import TIERS, plain, resolve
from driftcal.preprocess.sources.encoding import MISSING
from driftcal.preprocess.sources.units import angle_factor
from driftcal.preprocess.sources.variable_roles import listing
from driftcal.shared.errors import DataError

_NUMERIC = ("lat", "lon", "gap")
_DEGREES = ("wgs84", "wgs_84", "dd", "decimal", "decimal_degrees", "gps")
"""Words that stand beside the name of a position in headers and mean degrees."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_CLOCK = re.compile(r"T?\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*(Z|UTC)?", re.IGNORECASE)
_DAY = re.compile(r"\d{4}([-/.])\d{2}\1\d{2}")
_DAYS = ("date", "day", "date_utc", "dates")
_HOURS = ("hour", "hours", "hh", "hr", "hour_utc")
_CLOCKS = re.compile("time|utc|gmt|clock|hour|zeit|heure|hora|ora$")
_ELSEWHERE = re.compile(
    r"(?:utc|gmt)?\s*[+-](?!\s*0{1,2}(?::?00)?$)\s*\d.*|local.*|lt|mes?z|msk|wib|(?!gmt)(?:[a-z]{1,3}[sd]t|[a-z]{2}t)"
    r"|(?!etc/|utc|gmt|[ymdhs/_]+$)[a-z_]+/[a-z_/]+",
    re.IGNORECASE,
)
"""Time zones other than UTC, as units of a column: offsets, `CEST`, `Europe/Berlin`; not `YYYY/MM/DD`."""

_UTC = ("utc", "gmt", "z")
_OFFSET = re.compile(r".*\d:\d.*[+-]\d{2}(?::?\d{2})?\s*")
"""A time with its offset from UTC; a mere `Z` contradicts a header that names another zone."""


def read(path: Path, dialect: Dialect, where: str, source: DrifterSource) -> tuple[xr.Dataset, dict[str, str]]:
    """The columns that play a role, on a dimension `fix`, and their names by role.

    Raises:
        DataError: A role without a column, or cells that are not what the column's role asks for.
        ValueError: pandas cannot parse the file.
    """
    names = _distinct(dialect)
    units = dict(zip(names, dialect.units, strict=True))
    clocks = _clocks_beside(dialect, names, source)
    roles = resolve({name: {"units": unit} for name, unit in units.items() if name not in clocks}, source, where)
    roles.pop("rowsize", None)
    for role, name in roles.items():
        if names.count(name) > 1:
            raise DataError(
                f"{where}: two columns have the same name, {name!r}, which is to be the {role!r}; found "
                f"{listing(names)}. Rename one."
            )
    hemispheres.check(dialect, names, roles, where)
    day = _day_column(dialect, names, roles, source, where)
    used = {role: names.index(name) for role, name in roles.items()} | ({} if day is None else {"day": day})
    frame = _frame(path, dialect, len(names), used, where)
    columns: dict[str, Any] = {}
    for role, name in roles.items():
        cells, attributes = pd.Series(frame[used[role]]), {"units": units[name]}
        if role in ("lat", "lon") and plain(units[name]) in _DEGREES:
            attributes["units"] = ""
        if role in ("lat", "lon"):
            columns[name] = _positions(cells, role, name, attributes, where)
        elif role == "gap":
            columns[name] = (
                cells.to_numpy(np.float64) if cells.dtype.kind == "f" else angles.numbers(cells, name, where)
            )
        elif role == "time":
            joined = (
                cells if day is None else frame[day].fillna("") + "T" + cells.fillna("").str.strip().str.lstrip("T")
            )
            columns[name] = _times(joined, name, attributes, where)
        elif role == "drogue_lost_date":
            columns[name] = _times(cells, name, attributes, where)
        else:
            columns[name] = _texts(cells)
        columns[name] = ("fix", columns[name], attributes)
    return xr.Dataset(columns), roles


def _distinct(dialect: Dialect) -> list[str]:
    """Names of the columns: with their units if they differ by these only, by number if they are blank."""
    names = []
    for k, (name, unit) in enumerate(zip(dialect.names, dialect.units, strict=True)):
        again = dialect.names.count(name) > 1 and unit and unit.lower() not in _UTC
        names.append(f"{name} ({unit})" if again else name or f"column {k + 1}")
    return names


def _frame(path: Path, dialect: Dialect, n: int, used: Mapping[str, int], where: str) -> pd.DataFrame:
    """The columns `used`, by position: as numbers if all cells of a numeric column are, else as text."""
    numeric = [used[role] for role in _NUMERIC if role in used]
    try:
        frame = _parsed(path, dialect, n, list(used.values()), numeric)
    except UnicodeDecodeError:
        return _frame(path, Dialect(**{**vars(dialect), "encoding": "latin-1"}), n, used, where)
    except ValueError:
        frame = _parsed(path, dialect, n, list(used.values()), [])
    more = frame.pop(n)
    rows = np.flatnonzero(more.notna().to_numpy())
    if rows.size:
        mark = " Where the comma is the decimal mark, separate the columns by semicolons." * (dialect.separator == ",")
        raise DataError(
            f"{where}: row {rows[0]} has more cells than the header, which names {n} columns ({rows.size} such rows);"
            f" expected as many.{mark} Write such cells in quotes, or name every column."
        )
    return frame


def _parsed(path: Path, dialect: Dialect, n: int, used: Sequence[int], numeric: Sequence[int]) -> pd.DataFrame:
    with _lines(path, dialect, n) as lines:
        frame = pd.read_csv(
            lines,
            header=None,
            names=range(n + 1),
            index_col=False,
            usecols=[*dict.fromkeys(used), n],
            sep=dialect.separator,
            dtype={k: "float64" if k in numeric else "str" for k in (*used, n)},
            na_values=[spelt for word in MISSING for spelt in (word, word.upper(), word.capitalize())],
            skipinitialspace=True,
        )
    return frame.iloc[1:].reset_index(drop=True)


@contextlib.contextmanager
def _lines(path: Path, dialect: Dialect, n: int) -> Iterator[TextIO]:
    """The fixes of a table in text, after one line of zeros that is a cell longer than the header.

    pandas counts the cells of a line against the first only, and says nothing of longer ones where it is to take some
    of the columns: cells beyond the header come out as a column of their own.
    """
    first = ("\t" if dialect.separator == r"\s+" else dialect.separator).join(["0"] * (n + 1)) + "\n"
    with text(path, dialect) as lines:
        yield _Prefixed(first, lines)  # type: ignore[misc]


class _Prefixed(io.TextIOBase):
    """A text, with something before it."""

    def __init__(self, before: str, text: io.TextIOWrapper):
        self._before, self._text = before, text

    def read(self, size: int | None = -1) -> str:
        before, self._before = self._before, ""
        return before or self._text.read(-1 if size is None else size)

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        before, self._before = self._before, ""
        return before or self._text.readline(size)

    def __next__(self) -> str:
        line = self.readline()
        if not line:
            raise StopIteration
        return line


def _positions(
    cells: pd.Series, role: Any, name: str, attributes: Mapping[str, Any], where: str
) -> Float64[np.ndarray, " n"]:
    if cells.dtype.kind == "f":
        return cells.to_numpy(np.float64)
    if angles.has_letters(cells) and angle_factor(attributes["units"] or None, role, f"{where}: {name!r}") < 0:
        raise DataError(
            f"{where}: {name!r} has units {attributes['units']!r}, and its cells say their hemisphere too, such as "
            f"{cells.dropna().iloc[0]!r}. Write the column as decimal degrees with one of the two."
        )
    return angles.degrees(cells, role, name, where)


def _texts(cells: pd.Series) -> Shaped[np.ndarray, " n"]:
    return cells.fillna("").str.strip().to_numpy(object)


def _times(cells: pd.Series, name: str, attributes: Mapping[str, Any], where: str) -> Shaped[np.ndarray, " n"]:
    """A column of times: numbers as float64, else the original text."""
    first = cells.first_valid_index()
    if first is not None and _NUMBER.fullmatch(str(cells[first]).strip()):  # to try on a column of text takes long
        values = pd.Series(pd.to_numeric(cells, errors="coerce"))
        if values.notna().eq(cells.notna()).all():
            return values.to_numpy(np.float64)
    present = cells.dropna().astype(str)
    if _ELSEWHERE.fullmatch(attributes["units"].strip()) and not present.str.fullmatch(_OFFSET).all():
        raise DataError(
            f"{where}: {name!r} is in the time zone {attributes['units']!r}; expected UTC. Write the times in UTC, or "
            "each with its offset, such as 2010-01-31T06:00:00+02:00."
        )
    return _texts(cells)


def _clocks_beside(dialect: Dialect, names: Sequence[str], source: DrifterSource) -> set[str]:
    """Columns of times of day that are named as times are, beside one of whole times."""
    firsts = dict(zip(names, dialect.start[0], strict=False)) if dialect.start else {}
    named = [name for name in names if any(plain(name) in tier for tier in TIERS["time"])]
    clocks = {n for n in named if _CLOCK.fullmatch(firsts.get(n, "")) and n != source.variables.get("time")}
    whole = any(_DAY.match(firsts.get(n, "")) and not _DAY.fullmatch(firsts[n]) for n in named)
    return clocks if whole else set()


def _day_column(
    dialect: Dialect, names: Sequence[str], roles: Mapping[str, str], source: DrifterSource, where: str
) -> int | None:
    """Position of a column of dates that belong before the times of day in the column `time`, if there is one."""
    time = names.index(roles["time"])
    first = next((row for row in dialect.start if time < len(row) and row[time]), None)
    if first is None:
        return None
    dates = [k for k, name in enumerate(names) if plain(name) in _DAYS and k != time]
    if _CLOCK.fullmatch(first[time]):
        if len(dates) == 1 and dates[0] < len(first) and _DAY.fullmatch(first[dates[0]]):
            return dates[0]
        raise DataError(
            f"{where}: {names[time]!r} holds times of day such as {first[time]!r}, and no column `date` holds dates "
            f"such as 2010-01-31; found {listing(names)}. Write date and time in one column, as 2010-01-31T06:00:00Z."
        )
    hours = [name for name in names if plain(name) in _HOURS]
    clocks = [names[k] for k, cell in enumerate(first[: len(names)]) if k != time and _CLOCK.fullmatch(cell)]
    clocks = [name for name in clocks if _CLOCKS.search(plain(name))]
    only_days = all(_DAY.fullmatch(row[time]) for row in dialect.start if time < len(row) and row[time])
    if only_days and (hours or clocks) and "time" not in source.variables:
        raise DataError(
            f"{where}: {names[time]!r} holds days such as {first[time]!r}, and {(hours or clocks)[0]!r} the time of "
            "day. Write date and time in one column, as 2010-01-31T06:00:00Z; if the days alone are meant, set "
            "drifters.variables.time to it."
        )
    return None
