"""Units of sources: the text of a units attribute becomes a factor to SI units, or degrees for angles.

Unknown units are refused: assuming the expected ones would be a guess.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from driftcal.shared.errors import DataError

UNIT_ATTRIBUTES = ("units", "unit", "Unit", "Units", "UNITS")
"""Attributes that give units: CF says `units`, GlobCurrent writes `Unit`."""

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

METRES = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 0.01),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 0.001),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), 1000.0),
}
"""Length of the units of length [m]."""

_SPEED_TIMES = {name: length for name, length in SECONDS.items() if length >= 1 and name != "m"}
_KNOTS = dict.fromkeys(("knot", "knots", "kt", "kts", "kn"), 1852 / 3600)
_NONE = ("", "1", "-", "none", "unknown", "dimensionless", "unitless")

_LENGTH, _TIME = ("|".join(sorted(names, key=len, reverse=True)) for names in (METRES, _SPEED_TIMES))
_SPEED = re.compile(
    rf"(?P<length>{_LENGTH})(?: ?/ ?| per )(?P<time>{_TIME})"
    rf"|(?P<factor>{_LENGTH})[ .*\u00b7]*(?P<inverse>{_TIME}) ?(?:\^|\*\*)? ?[({{]? ?-1[)}}]?"
)
"""`m/s`, `cm s-1`, `m.s^-1`, `meters per second` and their like."""

_ANGLE = re.compile(
    r"(?:decimal[ _])?(?:arc_|angular_)?(?P<unit>deg|degree|radian|rad|\u00b0)s?(?:[ _]decimal)?"
    # a bare s is the plural's, not the south's
    r"(?:[ _]?\(?(?:(?:true|positive)[ _])?(?P<way>north|south|east|west|n|e|w|(?<=[ _(])s)\)?)?"
)
"""`degrees_north`, `degreeE`, `degrees west`, `radians` and their like.

The longer unit goes first: `degrees` are not a `degree` south."""

Axis = Literal["lat", "lon"]


def units_of(attributes: Mapping[str, Any]) -> str | None:
    """Units in a variable's attributes, None if there are none."""
    for name in UNIT_ATTRIBUTES:
        value = attributes.get(name)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str) and value.strip(" \t\0"):
            return value.strip(" \t\0")
    return None


def speed_factor(units: str | None, where: str) -> float | None:
    """Factor to m/s of a speed's units, None if they are not given.

    Raises:
        DataError: they are given, and are not those of a speed.
    """
    text = _plain(units)
    if text in _NONE:
        return None
    if text in _KNOTS:
        return _KNOTS[text]
    if (match := _SPEED.fullmatch(text)) is None:
        raise DataError(
            f"{where} has units {units!r}, which are not known as those of a speed; expected m/s, cm s-1, km/h, knots "
            "or the like. Set currents.units in the manifest to what they are, or correct the attribute `units` in the "
            "file."
        )
    return METRES[match["length"] or match["factor"]] / _SPEED_TIMES[match["time"] or match["inverse"]]


def is_length(units: str | None) -> bool:
    """Tells whether these are units of a length: of a sea level, say."""
    return _plain(units) in METRES


def angle_factor(units: str | None, axis: Axis, where: str) -> float:
    """Factor to degrees north or east of a coordinate's units; 1 if they are not given.

    Degrees west and south are converted by their sign, radians by their length.

    Raises:
        DataError: units of a length or of anything else, or of the other coordinate.
    """
    text = _plain(units)
    if text in _NONE:
        return 1.0
    match = _ANGLE.fullmatch(text)
    way = (match["way"] or "")[:1] if match else ""
    if match is None or way in (("e", "w") if axis == "lat" else ("n", "s")):
        kind, expected = ("latitude", "degrees_north") if axis == "lat" else ("longitude", "degrees_east")
        swapped = " Are lat and lon exchanged? Say which is which under `variables` in the manifest." if match else ""
        stated = f"set currents.units.{axis} in the manifest or " if where.startswith("currents ") else ""
        raise DataError(
            f"{where} has units {units!r}, which are not known as those of a {kind}; expected {expected}, degrees or "
            f"radians.{swapped} Give geographical coordinates; if they are, {stated}correct the units in the file: the "
            "attribute `units`, or in a table what the header has in brackets."
        )
    length = float(np.rad2deg(1.0)) if match["unit"].startswith("rad") else 1.0
    return -length if way in ("s", "w") else length


def angle_way(units: str | None) -> str:
    """Direction in which units of an angle count, by its letter (n, s, e or w); empty if they give none."""
    match = _ANGLE.fullmatch(_plain(units))
    return (match["way"] or "")[:1] if match else ""


def reverse(name: str, attributes: Mapping[str, Any], axis: Axis) -> str | None:
    """Name or attribute, besides units, by which a coordinate counts westward or southward; None if there is none."""
    way = "west" if axis == "lon" else "south"
    if str(attributes.get("positive", "")).strip().lower() in (way, way[0], f"{way}ward"):
        return f"positive: {attributes['positive']}"
    for key in ("long_name", "comment", "description"):
        text = str(attributes.get(key, ""))
        said = re.search(
            rf"positive\W*(?:to(?:wards?)?\W*(?:the\W*)?)?{way}|{way}(?:wards?)?\W*(?:is\W*)?positive", text, re.I
        )
        if said and "negative" not in text.lower():
            return f"{key}: {text}"
    return (
        name
        if re.search(rf"(?:[\s_.-]|\u00b0){way}$|{way}[\s_.-]?(?:lon|lat)|\u00b0\s*{way[0]}$", name, re.I)
        else None
    )


def _plain(units: str | None) -> str:
    """Units in lower case, with single blanks and plain signs."""
    return " ".join((units or "").lower().replace("\u2212", "-").replace("\u207b\u00b9", "-1").split())
