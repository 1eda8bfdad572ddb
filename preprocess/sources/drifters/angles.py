"""Numbers and angles as people write them in tables: `12,5`, `38.2 S`, `12°30.5'W`.

What is unambiguous becomes a number; anything else is refused by name, since to take it for a missing value would drop
fixes without a word.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float64

from driftcal.preprocess.sources.encoding import MISSING
from driftcal.preprocess.sources.units import Axis
from driftcal.shared.errors import DataError

_NUMBER = r"\d+(?:[.,]\d*)?|[.,]\d+"

_ANGLE = (
    rf"(?P<before>[A-Za-z])?\s*(?P<sign>[-+\u2212])?\s*(?P<degrees>{_NUMBER})\s*(?:[°º˚\u00ba]|deg(?:rees?)?)?"
    rf"\s*(?:(?P<minutes>{_NUMBER})\s*['′’]\s*(?:(?P<seconds>{_NUMBER})\s*(?:[\"″”]|''|′′))?)?"
    r"\s*(?P<after>[A-Za-z])?"
)

_WAYS = {"lat": {"N": 1.0, "S": -1.0}, "lon": {"E": 1.0, "W": -1.0}}


def degrees(texts: pd.Series, axis: Axis, name: str, where: str) -> Float64[np.ndarray, " n"]:
    """Degrees north or east of the cells `texts`; NaN where they are missing.

    Raises:
        DataError: A cell that is no angle, an angle of the other axis, or one with both a sign and a letter.
    """
    stripped, missing = _stripped(texts)
    parts = stripped.str.extract(f"^(?:{_ANGLE})$")
    letters = parts["before"].fillna(parts["after"]).fillna("").str.upper().str.replace("O", "?", regex=False)
    whole, minutes, seconds = (_decimal(parts[part]) for part in ("degrees", "minutes", "seconds"))
    signed = parts["sign"].isin(["-", "\u2212"])
    right = parts["degrees"].notna() & letters.isin(["", *_WAYS[axis]])
    right &= parts["before"].isna() | parts["after"].isna()
    right &= ~(parts["sign"].notna() & (letters != ""))
    right &= ~((minutes > 0) & (whole % 1 > 0)) & ~((seconds > 0) & (minutes % 1 > 0))
    right &= ~(minutes >= 60) & ~(seconds >= 60)
    rows = np.flatnonzero(~(right | missing).to_numpy(bool))
    if rows.size:
        kind, ways = ("latitude", "N or S") if axis == "lat" else ("longitude", "E or W")
        raise DataError(
            f"{where}: {name!r} holds {str(texts.iloc[rows[0]])!r} in row {rows[0]} ({rows.size} such cells), which "
            f"cannot be read as a {kind}; expected degrees such as -12.5, 12.5{ways[0]} or 12°30.5'{ways[-1]}, and an "
            "empty cell where it is missing. Write the column as decimal degrees."
        )
    way = letters.map(lambda letter: _WAYS[axis].get(letter, 1.0)).to_numpy(np.float64)
    size = (whole + minutes.fillna(0.0) / 60.0 + seconds.fillna(0.0) / 3600.0).to_numpy(np.float64)
    return np.where(missing.to_numpy(bool), np.nan, np.where(signed, -1.0, way) * size)


def has_letters(texts: pd.Series) -> bool:
    """Tells whether any cell gives its hemisphere."""
    stripped, missing = _stripped(texts)
    return bool((stripped.str.contains(r"(?:^[NSEWnsew]|[NSEWnsew]$)", regex=True) & ~missing).any())


def numbers(texts: pd.Series, name: str, where: str) -> Float64[np.ndarray, " n"]:
    """The numbers of the cells `texts`, with a point or a comma as decimal mark; NaN where they are missing.

    Raises:
        DataError: A cell that is no number, or one such as `12,500` that may be two.
    """
    stripped, missing = _stripped(texts)
    plain = pd.Series(pd.to_numeric(stripped.where(~missing), errors="coerce"))
    comma = stripped.str.fullmatch(r"[-+]?\d*,\d+") & ~stripped.str.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}")
    out = plain.where(~comma, _decimal(stripped))
    rows = np.flatnonzero((out.isna() & ~missing).to_numpy(bool))
    if rows.size:
        raise DataError(
            f"{where}: {name!r} holds {str(texts.iloc[rows[0]])!r} in row {rows[0]} ({rows.size} such cells), which "
            "cannot be read as a number; expected such as 12.5 without separators of thousands, and an empty cell "
            "where it is missing. Correct the column."
        )
    return out.to_numpy(np.float64)


def _stripped(texts: pd.Series) -> tuple[pd.Series, pd.Series]:
    stripped = texts.fillna("").astype(str).str.strip()
    return stripped, stripped.str.lower().isin(MISSING)


def _decimal(texts: pd.Series) -> pd.Series:
    return pd.Series(pd.to_numeric(texts.str.replace(",", ".", regex=False), errors="coerce"))
