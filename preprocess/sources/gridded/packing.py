"""Currents as packed integers: stored numbers of any type and unit become int16 in units of 1e-4 m/s.

That is the products' own resolution, so packed products pass through without loss. `FILL` stands where there is no
current, `OVER` where a component exceeds `LIMIT`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64, Int16, Num

from driftcal.preprocess.sources.encoding import Encoding
from driftcal.preprocess.sources.units import speed_factor
from driftcal.shared.errors import DataError
from driftcal.shared.store.schema import OVER, SCALE

LIMIT = 32766
"""Largest packed component [1e-4 m/s]."""

UNMASKED = 100.0
"""Speed [m/s] that no current exceeds: a value beyond it is an undeclared fill value."""

ROUNDING = 1e-8
"""Speeds up to this [m/s] are 0: decoded with an offset, zeros come out as 1e-17 or, in float32, 1e-9."""

SLAB = 2**18
"""Cells packed at once: few enough that their temporaries stay in the cache."""


def check_dtype(variable: xr.Variable, where: str) -> None:
    """Refuses a component without numbers, or with integers that are not packed speeds."""
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
    """The conversion of stored numbers to speeds [m/s]: decoded, then times `factor`."""

    encoding: Encoding
    factor: float = 1.0

    @classmethod
    def of(cls, variable: xr.Variable, units: str | None, where: str) -> "Packing":
        """The packing that a component's attributes declare; without `units` decoded numbers are m/s."""
        return cls(Encoding.of(variable.dtype, variable.attrs, where), speed_factor(units, where) or 1.0)

    @property
    def scale(self) -> float:
        """One stored unit [m/s]."""
        return self.encoding.scale * self.factor

    @property
    def offset(self) -> float:
        """Speed that is stored as 0 [m/s]."""
        return self.encoding.offset * self.factor

    @property
    def fills(self) -> tuple[int | float, ...]:
        """Stored numbers that mean no data."""
        return self.encoding.fills

    def speeds(self, stored: Num[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
        """Absolute values [m/s] of stored numbers, float64."""
        return np.abs(self.encoding.read(stored).astype(np.float64) * self.scale + self.offset)

    def missing(self, stored: Num[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
        """Mask of stored numbers that mean no data, bool."""
        return self.encoding.missing(stored)

    def pack(self, stored: float) -> int:
        """A stored number in the packed unit."""
        return round((stored * self.scale + self.offset) / SCALE)

    def zero(self, stored: Num[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
        """Mask of numbers that are 0, stored or decoded, up to the rounding of the tool that decoded them, bool."""
        values = self.encoding.read(stored)
        return (values == 0) | (np.abs(values * np.float64(self.scale) + self.offset) <= ROUNDING)

    def check(self, strange: Num[np.ndarray, " n"], where: str) -> None:
        """Refuses stored numbers that `pack_slab` found `strange`, if any."""
        if numbers := strange.tolist():
            raise DataError(
                f"{where}: {numbers[0] * self.scale + self.offset:.10g} m/s in {len(numbers)} cells: an unmasked fill "
                f"value, or not a current (raw {numbers[0]:.10g}; missing are "
                f"{', '.join(f'{fill:.10g}' for fill in self.fills) or 'none'}). Declare it as _FillValue in the file."
            )

    def pack_slab(
        self, stored: Num[np.ndarray, "*shape"], out: Int16[np.ndarray, "*shape"]
    ) -> tuple[Bool[np.ndarray, "*shape"], Num[np.ndarray, " n"]]:
        """Packs `stored` into `out`, int16 of the same shape, where it is not lost.

        Returns:
            Where it is, bool of that shape, and what is neither a current nor declared as a fill, `(n,)`.
        """
        stored = self.encoding.read(stored)
        plain = stored.dtype.kind == "i" and self._plain and stored.size and np.iinfo(stored.dtype).max >= LIMIT
        most, least = (int(stored.max()), int(stored.min())) if plain else (0, 0)
        if plain and not self.encoding.has_range and least >= -LIMIT and most <= LIMIT:
            np.copyto(out, stored, casting="unsafe")
            return np.zeros(stored.shape, bool), stored[:0].ravel()
        lost = self.missing(stored)
        if plain and _only_lost_beyond(stored, lost, most):
            np.copyto(out, stored, casting="unsafe")
            return lost, stored[:0].ravel()
        return lost, self._pack_any(stored, lost, out)

    @functools.cached_property
    def _in_ticks(self) -> bool:
        """Tells whether stored integers are in the packed unit already."""
        return bool(np.isclose(self.scale, SCALE, rtol=1e-6, atol=0)) and self.offset == 0

    @functools.cached_property
    def _plain(self) -> bool:
        """Tells whether integers are in the packed unit, with fills beyond all currents."""
        return self._in_ticks and all(abs(fill) > LIMIT for fill in self.fills)

    def _pack_any(
        self, stored: Num[np.ndarray, "*shape"], lost: Bool[np.ndarray, "*shape"], out: Int16[np.ndarray, "*shape"]
    ) -> Num[np.ndarray, " n"]:
        """Packs all but the `lost` numbers, and adds scaled fills to those; returns numbers that are no currents."""
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


def _only_lost_beyond(stored: Num[np.ndarray, "*shape"], lost: Bool[np.ndarray, "*shape"], most: int) -> bool:
    """Tells whether exactly the `lost` ones of the numbers `stored`, none above `most`, are beyond `LIMIT`."""
    beyond = stored < -LIMIT
    if most > LIMIT:
        beyond |= stored > LIMIT
    return bool((beyond == lost).all())


def pack_level(
    stored: Sequence[Num[np.ndarray, "rows columns"]],
    packings: Sequence[Packing],
    names: Sequence[str],
    level: Int16[np.ndarray, "2 rows columns"],
) -> None:
    """Packs one level, with `FILL` in both components where either is missing.

    Args:
        stored: Both components, `(rows, columns)`.
        packings: Packing of each.
        names: Names of file and variable, for messages.
        level: The packed level, which is filled, int16 `(2, rows, columns)`.

    Raises:
        DataError: values that are neither currents nor declared as fills.
    """
    n_rows, n_columns = stored[0].shape
    strange_numbers: list[list[np.ndarray]] = [[], []]
    rows = max(1, SLAB // max(1, n_columns))
    for start in range(0, n_rows, rows):
        slab = level[:, start : start + rows]
        lost = np.zeros(0, bool)
        for component in (0, 1):
            part = stored[component][start : start + rows]
            gone, strange = packings[component].pack_slab(part, slab[component])
            strange_numbers[component].append(strange)
            lost = gone if component == 0 else lost | gone
        if lost.any():
            # slab[:, lost] = FILL, by a minimum with FILL there and the largest number elsewhere, which is vectorised
            most = lost.astype(np.int16)
            np.negative(most, out=most)
            most ^= np.int16(32767)
            np.minimum(slab, most, out=slab)
    for component, packing in enumerate(packings):
        packing.check(np.concatenate(strange_numbers[component]), names[component])
