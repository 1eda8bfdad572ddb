"""State of the drogue, from its status or from the date on which it was lost.

The meaning of a variable follows from its role, never from the values of one file: a missing date means that the
drogue was never lost, a missing status means nothing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int8, Int64, Shaped

from driftcal.preprocess.sources.encoding import MISSING, decode, texts
from driftcal.preprocess.sources.times import NO_TIME, of_text, seconds
from driftcal.shared.errors import DataError

ROLES = ("drogue", "drogue_lost_date")
"""Roles that give the state of the drogue; if there are both, the first is taken."""

_AS_DATE = "If it is the date on which the drogue was lost, name it as drifters.variables.drogue_lost_date."

_ON = ("1", "true", "t", "yes", "y", "on", "attached", "drogued", "present", "drogue on", "drogue_on",
       "drogue_attached", "drogue_present", "with_drogue", "has_drogue")  # fmt: skip
_LOST = ("0", "false", "f", "no", "n", "off", "lost", "undrogued", "detached", "absent", "drogue off", "drogue lost",
         "drogue_off", "drogue_lost", "drogue_detached", "drogue_absent", "no_drogue", "without_drogue",
         "not_drogued")  # fmt: skip
_UNKNOWN = (*MISSING, "unknown", "u")
_NEVER = (*MISSING, "never", "not lost", "on")


def of_status(values: Shaped[np.ndarray, " n"], attributes: Mapping[str, Any], where: str) -> Int8[np.ndarray, " n"]:
    """State from a status: 1 on, 0 lost, -1 unknown; int8 `[n]`.

    Takes numbers, truth values, and their names in text; numbers other than 0 and 1 are unknown.

    Raises:
        DataError: Text that names no state.
    """
    if values.dtype.kind in "iufb":
        status = decode(values, attributes, where)
        if (meanings := _meanings(attributes)) is not None:
            return np.select([status == flag for flag in meanings], list(meanings.values()), -1).astype(np.int8)
        return np.select([status == 1, status == 0], [1, 0], -1).astype(np.int8)
    if values.dtype.kind == "M":
        raise DataError(f"{where}: a status of the drogue was expected, and dates came. {_AS_DATE}")
    codes, words = pd.factorize(np.array(texts(values), dtype=object))
    states = np.array([_state(str(word), where) for word in words], np.int8)
    return states[codes]


def _meanings(attributes: Mapping[str, Any]) -> dict[float, int] | None:
    """State by flag, as the attributes `flag_values` and `flag_meanings` say (CF 3.5); None where they do not."""
    words = [word.lower() for word in str(attributes.get("flag_meanings", "")).split()]
    flags = np.ravel(attributes.get("flag_values", [])).tolist()
    meanings = (*_ON, *_LOST, *_UNKNOWN)
    if not words or len(words) != len(flags) or any(word not in meanings for word in words):
        return None
    return {float(flag): -1 if word in _UNKNOWN else int(word in _ON) for flag, word in zip(flags, words, strict=True)}


def _state(word: str, where: str) -> int:
    plain = word.strip().lower()
    if plain in _UNKNOWN:
        return -1
    if plain in _ON or plain in _LOST:
        return int(plain in _ON)
    try:
        number = float(plain)
    except ValueError as error:
        raise DataError(
            f"{where} holds {word!r}; expected the status of the drogue: 1 or true where it is on, 0 or false where it "
            f"is lost, and an empty cell where that is unknown. {_AS_DATE}"
        ) from error
    return {1.0: 1, 0.0: 0}.get(number, -1)


def of_lost_date(
    values: Shaped[np.ndarray, " n"], attributes: Mapping[str, Any], time: Int64[np.ndarray, " n"], where: str
) -> Int8[np.ndarray, " n"]:
    """State at `time` [s since 1970-01-01] from the date on which the drogue was lost: 1, 0 or -1; int8 `[n]`.

    In GDP files no date means never lost, and 1970-01-01 unknown from the start.

    Raises:
        DataError: a value is no date, or a number without units.
    """
    if values.dtype.kind in "iufM":
        numbers = values.dtype.kind != "M" and np.isfinite(decode(values, attributes, where)).any()
        lost = seconds(values, attributes, where) if numbers or values.dtype.kind == "M" else None
    else:
        codes, words = pd.factorize(np.array(texts(values), dtype=object))
        dates = np.array(["" if str(word).lower() in _NEVER else str(word) for word in words], dtype=object)
        instants, bad_texts = of_text(dates.tolist())
        of_word = seconds(instants, attributes, where)
        if bad_texts:
            raise DataError(
                f"{where} holds {bad_texts[0]!r}, which is no date; expected such as 2010-01-31T06:00:00Z, and "
                "nothing where the drogue was never lost. Rewrite the dates."
            )
        lost = of_word[codes]
    if lost is None:
        return np.ones(len(time), np.int8)
    return np.select([lost == NO_TIME, lost <= 0, time < lost], [1, -1, 1], 0).astype(np.int8)
