"""Plausibility of one level of currents: the units of its components, and duplicate columns."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int, Num

from driftcal.preprocess.sources.gridded.packing import Packing
from driftcal.shared.errors import DataError

FASTEST = 5.0
"""Median speed [m/s] that no field of currents reaches."""

TYPICAL = 0.15
"""Median of a component in most of the ocean [m/s]."""

APART = 10.0
"""Ratio of lengths below which values cannot distinguish two units [1]."""

_TICK = 1e-3
"""Repeated columns may differ by so much [m/s]: the resolution of coarse products."""


def check_units(
    speeds: Sequence[Float64[np.ndarray, " _"]],
    units: Sequence[tuple[str | None, str, float]],
    stated: bool,
    where: str,
) -> None:
    """Refuses components whose values contradict their units.

    Args:
        speeds: Absolute values of u and v where they are known [m/s by their units], `(n,)` each.
        units: Units of u and v: text, name of the variable that has them, and factor to m/s.
        stated: True if the manifest states both.
        where: `currents <path>`, for messages.

    Raises:
        DataError: a component is too fast, or far faster or slower than the other only because its units differ.
    """
    middles = [float(np.median(speed)) if speed.size else np.nan for speed in speeds]
    _check_beside(middles, units, stated, where)
    fast = [k for k, middle in enumerate(middles) if middle > FASTEST]
    if not fast:
        return
    said, name, _ = units[fast[0]]
    # stated for both they would be wrong of the other one
    setting = "currents.units" if len(fast) == 2 else f"currents.units.{'uv'[fast[0]]}"
    raise DataError(
        f"{where}: {name}: the median of its absolute values is {middles[fast[0]]:.3g} as m/s (units "
        f"{said or 'not given'}): values like cm/s. Set {setting} in the manifest to what they are, such as cm/s, or "
        "correct the attribute `units` in the file."
    )


def _check_beside(
    middles: Sequence[float], units: Sequence[tuple[str | None, str, float]], stated: bool, where: str
) -> None:
    """Components of one current are alike as numbers where only one of them has the right units."""
    (u_units, u, u_factor), (v_units, v, v_factor) = units
    between = max(u_factor, v_factor) / min(u_factor, v_factor)
    if stated or between < APART or not all(middle > 0 for middle in middles):
        return
    by_units = abs(np.log(middles[0] / middles[1]))
    by_numbers = abs(np.log(middles[0] / u_factor / (middles[1] / v_factor)))
    if by_units <= by_numbers:
        return
    # both in the units of u, or both in those of v: the wrong ones make a current that there is nowhere
    odd = [
        abs(np.log(middles[1] / v_factor * u_factor / TYPICAL)),
        abs(np.log(middles[0] / u_factor * v_factor / TYPICAL)),
    ]
    role, suspect, said, other = ("v", v, v_units, u_units) if odd[0] < odd[1] else ("u", u, u_units, v_units)
    raise DataError(
        f"{where}: {u} in {u_units} and {v} in {v_units} have medians of {middles[0]:.3g} and {middles[1]:.3g} m/s, "
        f"though their numbers are alike: the units {said!r} of {suspect} contradict its values. Set currents.units: "
        f"{{{role}: {other}}} in the manifest, or correct the attribute `units` in the file; if both are right, state "
        f"both: currents.units: {{u: {u_units}, v: {v_units}}}."
    )


def repeated_columns(
    stored: Sequence[Num[np.ndarray, "rows columns"]],
    packings: Sequence[Packing],
    pairs: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]],
    lon: Num[np.ndarray, " columns"],
    where: str,
) -> list[str]:
    """Notes on omitted duplicate columns whose currents differ from those kept.

    Args:
        stored: Both components of one level as stored, `(rows, columns)` of the file.
        packings: Packing of each.
        pairs: Columns left out, and those kept for them, indices `(n,)`.
        lon: Longitudes of the columns as in the file [degrees].
        where: The source, for messages.

    Raises:
        DataError: neighbours at one longitude differ, so that nothing tells which is meant.
    """
    out, kept = pairs
    differs = np.zeros(out.size, bool)
    for values, packing in zip(stored, packings, strict=True):
        decoded = [packing.encoding.decoded(values[:, columns]) * packing.factor for columns in (out, kept)]
        both = np.isfinite(decoded[0]) & np.isfinite(decoded[1])
        with np.errstate(invalid="ignore"):
            differs |= (both & (np.abs(decoded[0] - decoded[1]) > _TICK)).any(axis=0)
        differs |= (np.isfinite(decoded[0]) & ~np.isfinite(decoded[1])).any(axis=0)
    if not differs.any():
        return []
    i = int(differs.argmax())
    said = f"longitude {lon[out[i]]:g} (column {out[i]}) holds other currents than {lon[kept[i]]:g} (column {kept[i]})"
    if abs(lon[out[i]] - lon[kept[i]]) < 180.0:
        raise DataError(f"{where}: {said}: the longitude is there twice. Drop one of them in the file.")
    return [f"WARNING: {said}, which was kept in its place; {int(differs.sum())} such columns"]
