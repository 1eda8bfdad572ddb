"""A record of currents, opened: names resolved, every file's times and grid read, a few levels looked at.

What cannot be a record of surface currents is refused here, before anything is cut from it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from preprocess import files, identity
from preprocess.absent_chunks import absences, refuse_unwritten
from preprocess.axes import Order, latitude, longitude, stamp, time_step
from preprocess.contradictions import doubts, sample, settle_range
from preprocess.current_files import coordinate, merge, resolve, scan
from preprocess.currents import COMPONENTS, Currents, land_levels
from preprocess.levels import Levels
from preprocess.recipe import DAY, CurrentSource
from shared.errors import DataError
from shared.schema import FILL

LONG_CHUNK = 64
"""Source chunks of more levels than this are noted: a block of samples may decode all of them."""


def open_currents(source: CurrentSource, levels: Levels | None = None, number: int = 0) -> Currents:
    """Opens and checks one source of currents.

    Every file's time axis and grid is read; levels in the middle and at both ends of the record are decoded.

    Args:
        source: Of the manifest.
        levels: Keeps what is decoded for whoever reads it next; None keeps nothing.
        number: Of the source among those that share `levels`.

    Raises:
        DataError: the source is missing, unreadable, ambiguous, irregular, or does not hold currents.
    """
    where = f"currents {source.path}"
    paths = files.find(source.path, where)
    with files.opened(paths[0], f"currents {paths[0]}") as dataset:
        layout, notes = resolve(dataset, source, paths[0])
        grid = {role: coordinate(dataset, layout.names[role], paths[0]) for role in ("lat", "lon")}
        chunk_levels, itemsize = layout.chunk_levels(dataset), dataset.variables[layout.names["u"]].dtype.itemsize
    lat, lat_order, lat_notes = latitude(grid["lat"], f"{where}: {layout.names['lat']}")
    lon, lon_order, periodic, lon_notes = longitude(grid["lon"], f"{where}: {layout.names['lon']}")
    notes = [*(f"{where}: {note}" for note in notes), *lat_notes, *lon_notes]
    if chunk_levels > LONG_CHUNK:
        notes.append(
            f"{where}: chunks of {chunk_levels} levels; every block of samples decodes all of them, which costs time "
            "and memory. Rechunk the record to a few levels a chunk if it is to be read more than once"
        )
    times = []
    for path in paths:
        with files.opened(path, f"currents {path}") as dataset:
            times.append(scan(dataset, layout, grid, min(lat.step, lon.step), path))
            notes += _absent(dataset, [layout.names[role] for role in COMPONENTS], path)
    time, file, level, time_notes = merge(times, paths, where)
    step = time_step(time, where) if time.size > 1 else DAY
    if time.size > 1 and (absent := int((time[-1] - time[0]) // step + 1 - time.size)):
        time_notes.append(f"{where}: {absent} levels are missing between {stamp(time[0])} and {stamp(time[-1])}")
    if source.frozen and time.size > 1:
        raise DataError(
            f"{where}: `frozen: true` takes a record of a single time as constant, but {time.size} times came "
            f"({stamp(time[0])} to {stamp(time[-1])}). Remove `frozen`, or give a file with one time."
        )
    entries = identity.entries(paths, where)
    fingerprint = identity.fingerprint(source.path, entries, where) | {
        "variables": layout.names,
        "pick": layout.pick,
        "time": [int(time[0]), int(time[-1]), int(time.size), step],
        "lat": [lat.start, lat.step, lat.size],
        "lon": [lon.start, lon.step, lon.size],
        "periodic": periodic,
    }
    currents = Currents(
        time=time, step=step, lat=lat, lon=lon, periodic=periodic, notes=tuple(notes + time_notes),
        fingerprint=fingerprint, state=identity.state(entries), chunk_levels=chunk_levels, frozen=source.frozen,
        raw_bytes=itemsize * lat.size * lon.size, always_zero=source.always_zero,
        layout=layout, paths=tuple(paths), file=file, level=level, number=number,
        _lat_order=lat_order, _lon_order=_run(lon_order), _levels=levels,
    )  # fmt: skip
    return _without_repeat(_checked(currents, levels, where), where)


def _absent(dataset: xr.Dataset, names: list[str], path: str) -> list[str]:
    """Notes on chunks of the components that a zarr store on this machine lacks."""
    where = f"currents {path}"
    if files.is_url(path):  # listing a remote store can take longer than reading the part of it that a run needs
        return []
    with files.reading(path, where, "the list of chunks"):
        found = files.retried(lambda: absences(path, dataset, names))
    refuse_unwritten(found, where)
    return [
        f"{where}: {absence}: no currents there"
        if absence.is_missing
        else f"WARNING: {where}: {absence}, and {absence.fill} is read there. Of zeros over the sea no window is used. "
        "If the copy is unfinished, fetch it again"
        for absence in found
    ]


def _run(order: Order) -> Order:
    """`order` as a slice where it is one: that copies blocks instead of single values."""
    if isinstance(order, slice) or not (np.diff(order) == 1).all():
        return order
    return slice(int(order[0]), int(order[0]) + len(order))


def _checked(currents: Currents, levels: Levels | None, where: str) -> Currents:
    """The record, its speeds checked on a level in the middle, or on another one where that is empty; with notes."""
    n, zero = currents.time.size, []
    probes = list(dict.fromkeys([n // 2, 0, n - 1, *land_levels(currents.time).tolist()]))
    for i in probes:
        path, level = currents.paths[currents.file[i]], int(currents.level[i])
        with files.opened(path, f"currents {path}", currents.layout.axes) as dataset:
            stored = [
                currents.oriented(currents.layout.stored(dataset, role, level, level + 1, path)[0])
                for role in COMPONENTS
            ]
            currents = _settled(currents, dataset, stored, path)
            packings = [currents.layout.packing(dataset, role, f"currents {path}") for role in COMPONENTS]
        for role, packing, values in zip(COMPONENTS, packings, stored, strict=True):
            speed = packing.speeds(values[~packing.missing(values)])
            # Unmasked fills, which packing tells, are far above the fastest current in any unit.
            _check_unit(
                speed[speed < 1000.0], currents.layout.units[role], f"currents {path}: {currents.layout.names[role]}"
            )
        packed = currents.packed(stored, packings, path, level)
        if levels is not None:
            levels.put(currents.keys([i])[0], packed)
        known = ~(packings[0].missing(stored[0]) | packings[1].missing(stored[1]))
        if known.any():
            zero.append([bool(packing.zero(v[known]).all()) for packing, v in zip(packings, stored, strict=True)])
        known = packed[0] != FILL
        if known.any():
            break
    else:
        raise DataError(_nothing(currents, zero, len(probes), where))
    if currents.always_zero is not None and not zero[-1][COMPONENTS.index(currents.always_zero)]:
        raise DataError(
            f"currents {path}: currents.always_zero says that {currents.always_zero} is 0 everywhere, but at "
            f"{stamp(currents.time[i])} {currents.layout.names[currents.always_zero]!r} is not. Remove "
            "currents.always_zero from the manifest."
        )
    speeds = [packing.speeds(values[known]) for packing, values in zip(packings, stored, strict=True)]
    moving = np.concatenate([speed[speed > 0] for speed in speeds])
    if moving.size and moving.max() < 1e-3 and np.median(moving) < 1e-4:
        raise DataError(
            f"currents {path}: the fastest current is {moving.max():.2g} m/s and the median {np.median(moving):.2g}: "
            "scale_factor was applied twice, or the units are wrong. Expected m/s; correct the file."
        )
    return currents


def _settled(currents: Currents, dataset: xr.Dataset, stored: list[np.ndarray], path: str) -> Currents:
    """The record with what its attributes must mean, by the numbers of one level, where they contradict them."""
    layout, notes, ranges = currents.layout, [], {}
    for role, values in zip(COMPONENTS, stored, strict=True):
        name = f"currents {path}: {layout.names[role]}"
        packing = layout.packing(dataset, role, f"currents {path}")
        encoding, said = settle_range(packing.encoding, sample(values), name)
        if encoding != packing.encoding:
            ranges[role] = encoding.valid
        known = values[~encoding.missing(values)]
        notes += [*said, *doubts(packing, sample(known), name)]
    return replace(
        currents,
        layout=replace(layout, ranges={**layout.ranges, **ranges}),
        notes=(*currents.notes, *notes),
    )


def _nothing(currents: Currents, zero: list[list[bool]], n: int, where: str) -> str:
    """What to say of a record without any current on the `n` levels looked at.

    `zero` has, of each level with any number, which components are exactly 0 on it.
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


def _check_unit(speed: np.ndarray, units: str | None, where: str) -> None:
    if speed.size and (middle := float(np.median(speed))) > 5.0:
        raise DataError(
            f"{where}: the median of its absolute values is {middle:.3g} as m/s (units {units or 'not given'}): values "
            "like cm/s. Expected m/s; correct the attribute `units` in the file."
        )


def _without_repeat(currents: Currents, where: str) -> Currents:
    """Drops a last level whose values are the first level's, under a time of its own.

    Records closed to a cycle for periodic forcing end so (GlobCurrent's 2003-01-01 in the public Agulhas year is
    2002-01-01 again). A field that is periodic by nature arrives at its first level smoothly and is kept: what
    counts is a jump of more than three times the change over the step before.
    """
    n = currents.time.size
    if n < 4:
        return currents
    first, before, previous, last = (level for _, level in currents.each(np.array([0, n - 3, n - 2, n - 1])))
    if not np.array_equal(first, last) or (last == FILL).all():
        return currents
    before, previous, last = (level.astype(np.float32) for level in (before, previous, last))
    if np.square(last - previous).sum() <= 9 * np.square(previous - before).sum():
        return currents
    name = Path(currents.paths[currents.file[-1]]).name
    note = (
        f"{where}: {stamp(currents.time[-1])} of {name} repeats the values of {stamp(currents.time[0])} after a jump, "
        "dropped"
    )
    time = currents.time[:-1]
    return replace(
        currents,
        time=time,
        notes=(*currents.notes, note),
        fingerprint=currents.fingerprint | {"time": [int(time[0]), int(time[-1]), n - 1, currents.step]},
        file=currents.file[:-1],
        level=currents.level[:-1],
    )


def warnings(sources: Sequence[CurrentSource], currents: Sequence[Currents]) -> list[str]:
    """What leaves out samples without need and is no error: one record in several `sources`, cut in time."""
    found = []
    for (before, a), (after, b) in itertools.permutations(zip(sources, currents, strict=True), 2):
        grids = [(c.lat.start, c.lat.size, c.lon.start, c.lon.size) for c in (a, b)]
        if grids[0] == grids[1] and 0 < b.time[0] - a.time[-1] <= a.step:
            found.append(
                f"WARNING: currents {after.path} go on where {before.path} end, on the same grid. A window takes one "
                f"source, so segments across both are left out. Give them as one source, by a glob"
            )
    return found
