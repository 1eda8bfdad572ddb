"""A probe of a record of currents: a few of its levels, checked before anything is cut from it."""

from dataclasses import replace

import numpy as np
import xarray as xr

from driftcal.preprocess.sources import files
from driftcal.preprocess.sources.contradictions import sample, settle_range
from driftcal.preprocess.sources.gridded.currents import COMPONENTS, Currents, land_levels
from driftcal.preprocess.sources.gridded.doubtful_speeds import doubt_units, doubts
from driftcal.preprocess.sources.gridded.level_cache import Levels
from driftcal.preprocess.sources.gridded.packing import Packing
from driftcal.preprocess.sources.gridded.plausible import check_units
from driftcal.shared.errors import DataError
from driftcal.shared.store.schema import FILL
from driftcal.shared.text import stamp

Probed = tuple[Currents, list[np.ndarray], list[Packing]]


def checked(currents: Currents, levels: Levels | None, where: str) -> Probed:
    """Checks speeds on a level in the middle of the record, or on another one where that is empty.

    Args:
        currents: The record.
        levels: Keeps what is decoded.
        where: The source, for messages.

    Returns:
        The record with notes on that level; both components of it as stored, `(rows, columns)`; how they are packed.

    Raises:
        DataError: no current on any level that was looked at, or numbers that are no currents.
    """
    n, zero = currents.time.size, []
    probes = list(dict.fromkeys([n // 2, 0, n - 1, *land_levels(currents.time).tolist()]))
    for i in probes:
        path, level = currents.paths[currents.file[i]], int(currents.level[i])
        layout = currents.layout
        with files.opened(path, f"currents {path}", layout.axes) as dataset:
            whole = [layout.stored(dataset, role, level, level + 1, path)[0] for role in COMPONENTS]
            stored = [currents.oriented(component) for component in whole]
            currents = _settled(currents, dataset, stored, path)
            layout = currents.layout
            packings = [layout.packing(dataset, role, f"currents {path}") for role in COMPONENTS]
            units = [
                (layout.units_of(dataset, role)[0], layout.names[role], packing.factor)
                for role, packing in zip(COMPONENTS, packings, strict=True)
            ]
        pairs = list(zip(packings, stored, strict=True))
        speeds = [packing.speeds(values[~packing.missing(values)]) for packing, values in pairs]
        # Unmasked fills, which packing tells, are far above the fastest current in any unit.
        slow = [speed[speed < 1000.0] for speed in speeds]
        check_units(slow, units, {"u", "v"} <= layout.stated.keys(), f"currents {path}")
        packed = currents.packed(stored, packings, path, level)
        if levels is not None:
            levels.put(currents.keys([i])[0], packed)
        valid = ~(packings[0].missing(stored[0]) | packings[1].missing(stored[1]))
        if valid.any():
            zero.append([bool(packing.zero(values[valid]).all()) for packing, values in pairs])
        valid = packed[0] != FILL
        if valid.any():
            break
    else:
        raise DataError(_nothing(currents, zero, len(probes), where))
    if currents.always_zero is not None and not zero[-1][COMPONENTS.index(currents.always_zero)]:
        raise DataError(
            f"currents {path}: currents.always_zero says that {currents.always_zero} is 0 everywhere, but at "
            f"{stamp(currents.time[i])} {currents.layout.names[currents.always_zero]!r} is not. Remove "
            "currents.always_zero from the manifest."
        )
    speeds = [packing.speeds(values[valid]) for packing, values in pairs]
    moving = np.concatenate([speed[speed > 0] for speed in speeds])
    if moving.size and moving.max() < 1e-3 and np.median(moving) < 1e-4:
        raise DataError(
            f"currents {path}: the fastest current is {moving.max():.2g} m/s and the median {np.median(moving):.2g}: "
            "scale_factor was applied twice, or the units are wrong. Set currents.units in the manifest to what they "
            "are, or correct the file."
        )
    return currents, whole, packings


def _settled(currents: Currents, dataset: xr.Dataset, stored: list[np.ndarray], path: str) -> Currents:
    """The record with its attributes reinterpreted if the numbers of one level contradict them."""
    layout, notes, ranges = currents.layout, [], {}
    for role, values in zip(COMPONENTS, stored, strict=True):
        name = f"currents {path}: {layout.names[role]}"
        packing = layout.packing(dataset, role, f"currents {path}")
        encoding, said = settle_range(packing.encoding, sample(values), name)
        if encoding != packing.encoding:
            ranges[role] = encoding.valid
        present = values[~encoding.missing(values)]
        notes += [*said, *doubts(packing, sample(present), name)]
        if role not in layout.stated:
            notes += doubt_units(packing, layout.units_of(dataset, role)[0], sample(present), name)
    return replace(
        currents,
        layout=replace(layout, ranges={**layout.ranges, **ranges}),
        notes=(*currents.notes, *notes),
    )


def _nothing(currents: Currents, zero: list[list[bool]], n: int, where: str) -> str:
    """Message on a record without any current on the `n` levels probed.

    `zero` tells for each level with any number which components are exactly 0 on it.
    """
    still = [k for k in (0, 1) if zero and all(level[k] for level in zero)]
    looked_at = f"the {n} levels that were looked at, at both ends of the record and between"
    if len(still) == 1:
        role = COMPONENTS[still[0]]
        return (
            f"{where}: {currents.layout.names[role]!r} is exactly 0 over all of the sea on {looked_at}, while the "
            f"other component is not: it was not written, or not copied. Check the download. If it is meant to be 0, "
            f"set currents.always_zero: {role} in the manifest."
        )
    if still:
        return (
            f"{where}: the currents are exactly 0 everywhere on {looked_at}: they were not written. Check the download."
        )
    return (
        f"{where}: no current anywhere on {looked_at}: all values are fills, or exact zeros that stand for missing "
        "ones. Expected a field with data; check the download."
    )
