"""Speeds that contradict the packing or the units declared beside them.

What the numbers prove is refused; what is merely odd is warned of (see `sources.contradictions`).
"""

import numpy as np
from jaxtyping import Num

from driftcal.preprocess.sources.contradictions import is_decoded, left_over, named
from driftcal.preprocess.sources.gridded.packing import Packing

PLAUSIBLE = (0.01, 3.0)
"""Medians of the speed of a component of surface currents [m/s] that raise no doubt."""

SLOWEST, FASTEST = 0.005, 5.0
"""Medians [m/s] beyond which there are no surface currents."""


def check_packing(packing: Packing, numbers: Num[np.ndarray, " n"], where: str) -> None:
    """Refuses speeds that are decoded already and have their scale_factor still.

    Args:
        packing: What the attributes declare.
        numbers: Of one level, without missing ones, `(n,)`.
        where: File and variable.

    Raises:
        DataError: they are.
    """
    if is_decoded(numbers, packing.encoding) and np.median(np.abs(numbers)) * packing.factor <= FASTEST:
        raise left_over(packing.encoding, "all are whole multiples of it", where)


def doubts(packing: Packing, numbers: Num[np.ndarray, " n"], where: str) -> list[str]:
    """Warns of speeds as floats that have a scale_factor.

    Args:
        packing: What the attributes declare.
        numbers: Of a level in the middle of the record, without missing ones, `(n,)`.
        where: File and variable.

    Raises:
        DataError: they can only be decoded already.
    """
    encoding = packing.encoding
    if numbers.dtype.kind != "f" or not numbers.size or (encoding.scale, encoding.offset) == (1.0, 0.0):
        return []
    check_packing(packing, numbers, where)
    if (numbers == np.rint(numbers)).all():
        return []  # packed, as floats
    plain = float(np.median(np.abs(numbers))) * packing.factor
    scaled = float(np.median(packing.speeds(numbers)))
    fits = PLAUSIBLE[0] <= plain <= PLAUSIBLE[1]
    if fits and not SLOWEST <= scaled <= FASTEST:
        raise left_over(encoding, f"with it their median is {scaled:.2g} m/s, without it {plain:.2g}", where)
    if not fits:
        return []
    return [
        f"WARNING: {where}: floats with {named(encoding)}, decoded by it as the CF conventions say: their median is "
        f"{scaled:.2g} m/s, without it {plain:.2g}. If they were decoded before, remove these attributes from the file"
    ]


def doubt_units(packing: Packing, units: str | None, numbers: Num[np.ndarray, " n"], where: str) -> list[str]:
    """Warns of speeds that are too slow for surface currents by their units, and would be some in m/s.

    Args:
        packing: What the attributes declare.
        units: The component's.
        numbers: Of a level, without missing ones, `(n,)`.
        where: File and variable.
    """
    if packing.factor == 1.0 or not numbers.size:
        return []
    converted = float(np.median(packing.speeds(numbers)))
    if converted >= SLOWEST or not PLAUSIBLE[0] <= converted / packing.factor <= PLAUSIBLE[1]:
        return []
    return [
        f"WARNING: {where}: by its units {units!r} the median is {converted:.2g} m/s, slower than currents at the "
        f"surface; as m/s it would be {converted / packing.factor:.2g}. Set currents.units in the manifest to what "
        "they are"
    ]
