"""Encoding of stored numbers, by the CF attributes of their variable.

Every number of every source goes through here: currents, coordinates, depths, times and drifters. Values are decoded
by this module and not by xarray: its decoding guesses, warns, and hides what was stored. Missing numbers are NaN,
missing texts are empty.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Num, Shaped

from driftcal.shared.errors import DataError

_DEFAULT_FILLS = {"i2": -32767, "u2": 65535, "i4": -2147483647, "u4": 4294967295, "i8": -9223372036854775806,
                  "u8": 18446744073709551614, "f4": 9.969209968386869e36, "f8": 9.969209968386869e36}  # fmt: skip
"""Default fill values of netCDF (NC_FILL_*), by numpy's type; bytes have none."""

MISSING = ("", "na", "n/a", "nan", "-nan", "nat", "null", "none", "-", "--", "---", "?", "*", "missing", "#n/a", "<na>",
           "inf", "-inf")  # fmt: skip
"""Spellings of a missing value in text, in lower case."""


@dataclass(frozen=True)
class Encoding:
    """The encoding of a variable: decoded numbers are stored * scale + offset, and NaN if they are missing.

    Attributes:
        signed: Type as which to read stored integers if `_Unsigned` says that they have the other signedness;
            else None.
        scale: `scale_factor`.
        offset: `add_offset`.
        fills: Stored numbers that mean missing: `_FillValue`, `missing_value`, or netCDF's own where neither is given.
        valid: Least and greatest valid number, stored or decoded as `valid_is_decoded` says.
        valid_is_decoded: `valid_range`, `valid_min` or `valid_max` are given for the decoded numbers: by the CF
            conventions (2.5.1) where their type is not that of the stored integers.
        packed: True if `scale_factor` or `add_offset` is given.
    """

    signed: np.dtype | None = None
    scale: float = 1.0
    offset: float = 0.0
    fills: tuple[int | float, ...] = ()
    valid: tuple[float, float] = (-np.inf, np.inf)
    valid_is_decoded: bool = False
    packed: bool = False

    @classmethod
    def of(cls, dtype: np.dtype, attributes: Mapping[str, Any], where: str) -> "Encoding":
        """Encoding that `attributes` declare for numbers stored as `dtype`.

        Raises:
            DataError: attributes that are no numbers, or cannot be used.
        """
        signed = _signedness(dtype, attributes)
        scale, offset = (
            _single(attributes.get(name, default), name, where)
            for name, default in (("scale_factor", 1.0), ("add_offset", 0.0))
        )
        if not np.isfinite([scale, offset]).all() or scale == 0:
            raise DataError(f"{where}: scale_factor {scale}, add_offset {offset} cannot be used. Correct the file.")
        as_read = dtype if signed is None else signed
        valid, decoded = _valid(as_read, attributes, where)
        return cls(
            signed=signed,
            scale=scale,
            offset=offset,
            fills=_fills(as_read, attributes, scale, offset, where),
            valid=valid,
            valid_is_decoded=decoded,
            packed="scale_factor" in attributes or "add_offset" in attributes,
        )

    def read(self, stored: Num[np.ndarray, "*shape"]) -> Num[np.ndarray, "*shape"]:
        """Stored numbers with the sign that `_Unsigned` gives them; a view."""
        return stored if self.signed is None else stored.view(self.signed.newbyteorder(stored.dtype.byteorder))

    def missing(self, stored: Num[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
        """Marks stored numbers that are NaN, a fill or out of the valid range; bool, of the same shape."""
        values = self.read(stored)
        lost = np.isnan(values) if values.dtype.kind == "f" else None
        for number in self.fills:
            lost = values == number if lost is None else lost | (values == number)
        if self.has_range:
            outside = self.outside(values)
            lost = outside if lost is None else lost | outside
        return np.zeros(values.shape, bool) if lost is None else np.asarray(lost)

    @property
    def has_range(self) -> bool:
        """Tells whether a valid range is declared."""
        return self.valid != (-np.inf, np.inf)

    def outside(self, stored: Num[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
        """Marks stored numbers that are out of the valid range, NaN excepted; bool, of the same shape."""
        least, greatest = self.valid_as_stored
        return np.asarray((stored < least) | (stored > greatest))

    @functools.cached_property
    def valid_as_stored(self) -> tuple[float, float]:
        """Least and greatest valid number as they are stored."""
        if not self.valid_is_decoded:
            return self.valid
        ends = [(end - self.offset) / self.scale for end in self.valid]
        # decoded with the rounding of a float32, the ends themselves are valid
        slack = 1e-6 * max((abs(end) for end in ends if np.isfinite(end)), default=0.0)
        return min(ends) - slack, max(ends) + slack

    def decoded(self, stored: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
        """Decoded numbers, missing ones as NaN.

        Integers that are neither packed nor missing stay integers; what is not a number is returned as it came.
        """
        if stored.dtype.kind not in "iuf":
            return stored
        lost = self.missing(stored)
        values = self.read(stored)
        if self.packed:
            values = values * np.float64(self.scale) + np.float64(self.offset)
        return np.where(lost, np.nan, values) if lost.any() else np.asarray(values)


def decode(
    stored: Shaped[np.ndarray, "*shape"], attributes: Mapping[str, Any], where: str
) -> Shaped[np.ndarray, "*shape"]:
    """Stored numbers as the CF attributes mean them, as `Encoding.decoded` gives them.

    Raises:
        DataError: attributes that are no numbers, or cannot be used.
    """
    stored = np.asarray(stored)
    if stored.dtype.kind not in "iuf":
        return stored
    return Encoding.of(stored.dtype, attributes, where).decoded(stored)


def texts(values: Shaped[np.ndarray, " n"]) -> list[str]:
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


def _signedness(dtype: np.dtype, attributes: Mapping[str, Any]) -> np.dtype | None:
    """Type of the other signedness where the attribute `_Unsigned` asks for it (NetCDF users' guide)."""
    asked = str(attributes.get("_Unsigned", "")).strip().lower()
    other = {("i", "true"): "u", ("u", "false"): "i"}.get((dtype.kind, asked))
    return None if other is None else np.dtype(f"{other}{dtype.itemsize}")


def _numbers(value: Any, name: str, where: str) -> list[int | float]:
    """Numbers of an attribute, which may be one or several, or text."""
    values = np.ravel(np.asarray(value))
    try:
        if values.dtype.kind in "SUO":
            words = [_text(word) for word in values.tolist()]
            return [float(word) for text in words for word in text.replace(",", " ").split()]
        if values.dtype.kind in "iufb":
            return [x.item() for x in values]
        raise ValueError(f"came {values.dtype}")
    except ValueError as error:
        raise DataError(
            f"{where}: attribute {name} is {value!r}, expected a number ({error}). Correct the file."
        ) from error


def _single(value: Any, name: str, where: str) -> float:
    numbers = _numbers(value, name, where)
    if len(set(numbers)) != 1:
        raise DataError(f"{where}: attribute {name} is {value!r}, expected one number. Correct the file.")
    return float(numbers[0])


def _fills(
    dtype: np.dtype, attributes: Mapping[str, Any], scale: float, offset: float, where: str
) -> tuple[int | float, ...]:
    """Stored numbers that mean missing, as numbers that stored ones compare equal to."""
    declared = [
        (number, np.asarray(attributes[name]).dtype)
        for name in ("_FillValue", "missing_value")
        if name in attributes
        for number in _numbers(attributes[name], name, where)
    ]
    if not declared and (default := _DEFAULT_FILLS.get(dtype.newbyteorder("=").str[1:])) is not None:
        declared = [(default, dtype)]
    fills: dict[int | float, None] = {}
    for number, kind in declared:
        if not np.isfinite(number):
            continue
        if dtype.kind == "f":
            # Compared as they are stored: -1e34 is another number in float32.
            with np.errstate(over="ignore"):
                fills[dtype.type(number).item()] = None
            if kind.kind == "f" and kind.itemsize < dtype.itemsize:
                fills[float(str(np.asarray(number, kind)))] = None  # 1e20 in float32 is not 1e20 in float64
            continue
        stored = _as_stored(number, dtype, scale, offset)
        if stored is not None:
            fills[stored] = None
    return tuple(fills)


def _as_stored(number: float, dtype: np.dtype, scale: float, offset: float) -> int | None:
    """The integer as which a fill value is stored, None if it is not representable."""
    limits = np.iinfo(dtype)
    if number == int(number):
        if limits.min <= number <= limits.max:
            return int(number)
        wrapped = int(number) + (2 ** (8 * dtype.itemsize) if number < 0 else -(2 ** (8 * dtype.itemsize)))
        if limits.min <= wrapped <= limits.max:  # -1 beside unsigned bytes is 255
            return wrapped
    # given for the decoded numbers
    stored = (number - offset) / scale
    if limits.min <= stored <= limits.max and abs(stored - round(stored)) < 1e-3:
        return round(stored)
    return None


def _valid(dtype: np.dtype, attributes: Mapping[str, Any], where: str) -> tuple[tuple[float, float], bool]:
    """Valid range, and whether it is given for decoded numbers."""
    least, greatest, kinds = -np.inf, np.inf, []
    if "valid_range" in attributes:
        ends = _numbers(attributes["valid_range"], "valid_range", where)
        if len(ends) != 2:
            raise DataError(
                f"{where}: attribute valid_range is {attributes['valid_range']!r}, expected two numbers. Correct the "
                "file."
            )
        least, greatest = float(ends[0]), float(ends[1])
        kinds.append(np.asarray(attributes["valid_range"]).dtype.kind)
    for name in ("valid_min", "valid_max"):
        if name in attributes:
            end = _single(attributes[name], name, where)
            least, greatest = (end, greatest) if name == "valid_min" else (least, end)
            kinds.append(np.asarray(attributes[name]).dtype.kind)
    if dtype.kind in "iu" and kinds and "f" not in kinds:
        bits = 2 ** (8 * dtype.itemsize)
        if dtype.kind == "u":  # CF files have no unsigned attributes: -1 is 255
            least, greatest = (end + bits if -bits <= end < 0 else end for end in (least, greatest))
    if least > greatest:
        raise DataError(f"{where}: valid range {least:g} to {greatest:g} is empty. Correct the attributes in the file.")
    return (float(least), float(greatest)), dtype.kind in "iu" and any(kind in "fSUO" for kind in kinds)
