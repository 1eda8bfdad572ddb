"""Currents as packed integers: stored numbers of any type and unit become int16 in units of 1e-4 m/s.

That is the products' own resolution, so packed products pass through without loss. `FILL` stands where there is no
current, `OVER` where a component exceeds `LIMIT`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from preprocess.decoding import fills, missing
from shared.errors import DataError
from shared.schema import FILL, OVER, SCALE

LIMIT = 32766
"""Largest packed component [1e-4 m/s]."""

UNMASKED = 100.0
"""No current is faster than this [m/s]: a value beyond it is a fill value that was not declared."""

SLAB = 2**16
"""Cells packed at once: their temporaries stay in the cache, which halves the time."""

_SPEEDS = {"m": 1.0, "meter": 1.0, "meters": 1.0, "metre": 1.0, "metres": 1.0, "cm": 0.01, "mm": 0.001}
_PER_SECOND = ("/s", " s-1", " s^-1", " s**-1", ".s-1", "/sec", "/second", " second-1", " per second", "*s-1")


def speed_factor(units: str | None) -> float | None:
    """Factor to m/s of a speed's units, None where they are not given or not known."""
    text = " ".join((units or "").lower().split())
    for ending in _PER_SECOND:
        if text.endswith(ending):
            return _SPEEDS.get(text.removesuffix(ending).strip())
    return None


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
        """The packing that a component's `attributes` declare; `units` that are not known count as m/s."""
        factor = speed_factor(units) or 1.0
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

    def pack(self, stored: np.ndarray, where: str) -> np.ndarray:
        """Stored numbers as int16 in units of 1e-4 m/s, with `FILL` and `OVER`.

        Raises:
            DataError: values that are neither currents nor declared as fills; `where` names file and variable.
        """
        packed = np.empty(stored.shape, np.int16)
        flat, out = stored.reshape(-1), packed.reshape(-1)
        slabs = [slice(start, start + SLAB) for start in range(0, flat.size, SLAB)]
        plain = self._plain(stored.dtype)
        wrong = [self._pack_slab(flat[slab], out[slab], plain) for slab in slabs]
        if found := np.concatenate([np.empty(0, stored.dtype), *wrong]).tolist():
            raise DataError(
                f"{where}: {found[0] * self.scale + self.offset:.10g} m/s in {len(found)} cells: an unmasked fill "
                f"value, or not a current (raw {found[0]:.10g}, declared fills "
                f"{', '.join(f'{fill:.10g}' for fill in self.fills) or 'none'}). Declare it as _FillValue in the file."
            )
        return packed

    def _plain(self, dtype: np.dtype) -> bool:
        """Whether stored numbers are packed as they should be, with fills that no current can have."""
        ticks = dtype.kind in "iu" and bool(np.isclose(self.scale, SCALE, rtol=1e-6, atol=0)) and self.offset == 0
        return ticks and all(abs(fill) > LIMIT for fill in self.fills)

    def _pack_slab(self, stored: np.ndarray, out: np.ndarray, plain: bool) -> np.ndarray:
        """Packs `(n,)` stored numbers into `out`; returns those that are neither currents nor declared as fills."""
        if plain:
            beyond = (stored > LIMIT) | (stored < -LIMIT)
            if self.missing(stored[beyond]).all():  # nothing too fast
                out[:] = stored
                out[beyond] = FILL
                return stored[:0]
        lost = self.missing(stored)
        if stored.dtype.kind in "iu" and np.isclose(self.scale, SCALE, rtol=1e-6, atol=0) and self.offset == 0:
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
        out[lost] = FILL
        return stored[high] if high.size else stored[:0]
