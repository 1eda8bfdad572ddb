"""Currents as packed integers: stored numbers of any type and unit become int16 in units of 1e-4 m/s.

That is the products' own resolution, so packed products pass through without loss. `FILL` stands where there is no
current, `OVER` where a component exceeds `LIMIT`.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from preprocess.decoding import SECONDS, fills, missing
from shared.errors import DataError
from shared.schema import OVER, SCALE

LIMIT = 32766
"""Largest packed component [1e-4 m/s]."""

UNMASKED = 100.0
"""No current is faster than this [m/s]: a value beyond it is a fill value that was not declared."""

SLAB = 2**18
"""Cells packed at once: few enough that their temporaries stay in the cache."""

_LENGTHS = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 0.01),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 0.001),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), 1000.0),
}
_TIMES = {name: length for name, length in SECONDS.items() if length >= 1 and name != "m"}
_KNOTS = dict.fromkeys(("knot", "knots", "kt", "kts", "kn"), 1852 / 3600)
_NONE = ("", "1", "-", "none", "unknown", "dimensionless", "unitless")

_LENGTH, _TIME = ("|".join(sorted(names, key=len, reverse=True)) for names in (_LENGTHS, _TIMES))
_SPEED = re.compile(
    rf"(?P<length>{_LENGTH})(?: ?/ ?| per )(?P<time>{_TIME})"
    rf"|(?P<factor>{_LENGTH})[ .*\u00b7]*(?P<inverse>{_TIME}) ?(?:\^|\*\*)? ?[({{]? ?-1[)}}]?"
)
"""`m/s`, `cm s-1`, `m.s^-1`, `meters per second` and their like."""


def speed_factor(units: str | None, where: str) -> float | None:
    """Factor to m/s of a speed's units, None where they are not given.

    Raises:
        DataError: they are given, and are not those of a speed: to take the numbers for m/s would be a guess.
    """
    text = " ".join((units or "").lower().replace("\u2212", "-").replace("\u207b\u00b9", "-1").split())
    if text in _NONE:
        return None
    if text in _KNOTS:
        return _KNOTS[text]
    if (found := _SPEED.fullmatch(text)) is None:
        raise DataError(
            f"{where} has units {units!r}, which are not known as those of a speed; expected m/s, cm s-1, km/h, knots "
            "or the like. Correct the attribute `units` in the file."
        )
    return _LENGTHS[found["length"] or found["factor"]] / _TIMES[found["time"] or found["inverse"]]


def is_length(units: str | None) -> bool:
    """Whether these are units of a length: of a sea level, say."""
    return " ".join((units or "").lower().split()) in _LENGTHS


def check_dtype(variable: xr.Variable, where: str) -> None:
    """Refuses a component that holds no numbers, or integers that are not packed speeds."""
    if variable.dtype.kind not in "iuf":
        raise DataError(
            f"{where}: expected packed integers or floats, came {variable.dtype}. Convert the variable to numbers."
        )
    if variable.dtype.kind in "iu" and "scale_factor" not in variable.attrs:
        raise DataError(
            f"{where}: packed integers ({variable.dtype}) without scale_factor: their unit cannot be known. Add the "
            "attribute scale_factor (for DUACS 1e-4), or give the original file."
        )


@dataclass(frozen=True)
class Packing:
    """How stored numbers become speeds [m/s]: stored * scale + offset, and which stored numbers mean no data."""

    scale: float
    offset: float
    fills: tuple[int | float, ...]

    @classmethod
    def of(cls, attributes: Mapping[str, Any], units: str | None, where: str) -> "Packing":
        """The packing that a component's `attributes` declare; without `units` they are m/s."""
        factor = speed_factor(units, where) or 1.0
        try:
            scale, offset = (float(np.ravel(attributes.get(name, default))[0])
                             for name, default in (("scale_factor", 1.0), ("add_offset", 0.0)))  # fmt: skip
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: packing attributes are no numbers ({error}). Correct the file.") from error
        if not np.isfinite([scale, offset]).all() or scale == 0:
            raise DataError(f"{where}: scale_factor {scale}, add_offset {offset} cannot be used. Correct the file.")
        return cls(scale * factor, offset * factor, fills(attributes))

    def speeds(self, stored: np.ndarray) -> np.ndarray:
        """Absolute values [m/s] of stored numbers, float64."""
        return np.abs(stored.astype(np.float64) * self.scale + self.offset)

    def missing(self, stored: np.ndarray) -> np.ndarray:
        """Where stored numbers mean no data, bool."""
        return missing(stored, self.fills)

    def check(self, wrong: np.ndarray, where: str) -> None:
        """Refuses stored numbers that `pack_slab` found `wrong`, if any."""
        if found := wrong.tolist():
            raise DataError(
                f"{where}: {found[0] * self.scale + self.offset:.10g} m/s in {len(found)} cells: an unmasked fill "
                f"value, or not a current (raw {found[0]:.10g}, declared fills "
                f"{', '.join(f'{fill:.10g}' for fill in self.fills) or 'none'}). Declare it as _FillValue in the file."
            )

    def pack_slab(self, stored: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Packs `stored` into `out`, int16 of the same shape, where it is not lost.

        Returns:
            Where it is, bool of that shape, and what is neither a current nor declared as a fill, `(n,)`.
        """
        lost = self.missing(stored)
        if stored.dtype.kind == "i" and self._plain and _only_lost_beyond(stored, lost):
            np.copyto(out, stored, casting="unsafe")
            return lost, stored[:0].ravel()
        return lost, self._pack_any(stored, lost, out)

    @functools.cached_property
    def _in_ticks(self) -> bool:
        """Whether stored integers are in the packed unit already."""
        return bool(np.isclose(self.scale, SCALE, rtol=1e-6, atol=0)) and self.offset == 0

    @functools.cached_property
    def _plain(self) -> bool:
        """Whether integers are in the packed unit, with fills beyond all currents."""
        return self._in_ticks and all(abs(fill) > LIMIT for fill in self.fills)

    def _pack_any(self, stored: np.ndarray, lost: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Packs what is not `lost`, where fills that were scaled are added; returns what is no current."""
        if stored.dtype.kind in "iu" and self._in_ticks:
            ticks = stored
        else:
            with np.errstate(over="ignore"):
                ticks = np.multiply(stored, self.scale / SCALE, dtype=np.float64)
            if self.offset:
                ticks += self.offset / SCALE
            np.rint(ticks, out=ticks)
        with np.errstate(invalid="ignore"):
            # What int16 cannot hold is overwritten below.
            out[:] = ticks.astype(np.int16)
        over = ((ticks > LIMIT) | (ticks < -LIMIT)) & ~lost
        high = np.zeros(0, bool)
        if over.any():
            out[over] = OVER
            high = over & ((ticks > UNMASKED / SCALE) | (ticks < -UNMASKED / SCALE))
            if stored.dtype.kind == "f" and high.any():
                # Tools that decode integers without masking them leave -2147483647 * 1e-4 = -214748.3647 in the field.
                for scaled in (fill * scale for fill in self.fills for scale in (self.scale, SCALE)):
                    lost |= high & np.isclose(stored, scaled, rtol=1e-6, atol=0)
                high &= ~lost
        return stored[high] if high.size else stored[:0].ravel()


def _only_lost_beyond(stored: np.ndarray, lost: np.ndarray) -> bool:
    """Whether those of `stored` that are lost, and no others, are beyond `LIMIT`."""
    if not stored.size or np.iinfo(stored.dtype).max < LIMIT:
        return False
    n_lost, most = np.count_nonzero(lost), stored.max()
    if not n_lost:
        return bool(most <= LIMIT and stored.min() >= -LIMIT)
    beyond = np.count_nonzero(stored < -LIMIT) + (np.count_nonzero(stored > LIMIT) if most > LIMIT else 0)
    return beyond == n_lost


def pack_level(
    stored: Sequence[np.ndarray], packings: Sequence[Packing], names: Sequence[str], level: np.ndarray
) -> None:
    """Packs one level, with `FILL` in both components where either is missing.

    Args:
        stored: Both components, `(rows, columns)`.
        packings: How each is packed.
        names: Of file and variable, for messages.
        level: Where it goes, int16 `(2, rows, columns)`.

    Raises:
        DataError: values that are neither currents nor declared as fills.
    """
    n_rows, n_columns = stored[0].shape
    wrong: list[list[np.ndarray]] = [[], []]
    rows = max(1, SLAB // max(1, n_columns))
    for start in range(0, n_rows, rows):
        slab = level[:, start : start + rows]
        lost = np.zeros(0, bool)
        for component in (0, 1):
            part = stored[component][start : start + rows]
            gone, strange = packings[component].pack_slab(part, slab[component])
            wrong[component].append(strange)
            lost = gone if component == 0 else lost | gone
        if lost.any():
            # slab[:, lost] = FILL, by a minimum with FILL there and the largest number elsewhere, which is vectorised
            most = lost.astype(np.int16)
            np.negative(most, out=most)
            most ^= np.int16(32767)
            np.minimum(slab, most, out=slab)
    for component, packing in enumerate(packings):
        packing.check(np.concatenate(wrong[component]), names[component])
