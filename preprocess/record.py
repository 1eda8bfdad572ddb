"""A record of currents, opened: names resolved, every file's times and grid read, a few levels looked at.

What cannot be a record of surface currents is refused here, before anything is cut from it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocess import files, identity
from preprocess.axes import Order, latitude, longitude, stamp, time_step
from preprocess.current_files import coordinate, merge, resolve, scan
from preprocess.currents import COMPONENTS, Currents
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
        raw_bytes=itemsize * lat.size * lon.size,
        layout=layout, paths=tuple(paths), file=file, level=level, number=number,
        _lat_order=lat_order, _lon_order=_run(lon_order), _levels=levels,
    )  # fmt: skip
    _check_values(currents, levels, where)
    return _without_repeat(currents, where)


def _run(order: Order) -> Order:
    """`order` as a slice where it is one: that copies blocks instead of single values."""
    if isinstance(order, slice) or not (np.diff(order) == 1).all():
        return order
    return slice(int(order[0]), int(order[0]) + len(order))


def _check_values(currents: Currents, levels: Levels | None, where: str) -> None:
    """Checks speeds on a level in the middle of the record, or on the first or last where that one is empty."""
    layout = currents.layout
    for i in dict.fromkeys([currents.time.size // 2, 0, currents.time.size - 1]):
        path, level = currents.paths[currents.file[i]], int(currents.level[i])
        stored, packings = [], []
        with files.opened(path, f"currents {path}", layout.axes) as dataset:
            for role in COMPONENTS:
                stored.append(currents.oriented(layout.stored(dataset, role, level, level + 1, path)[0]))
                packings.append(layout.packing(dataset, role, f"currents {path}"))
                speed = packings[-1].speeds(stored[-1][~packings[-1].missing(stored[-1])])
                # Unmasked fills, which packing tells, are far above the fastest current in any unit.
                _check_unit(speed[speed < 1000.0], layout.units[role], f"currents {path}: {layout.names[role]}")
        packed = currents.packed(stored, packings, path)
        if levels is not None:
            levels.put(currents.keys([i])[0], packed)
        known = packed[0] != FILL
        speeds = [packing.speeds(values[known]) for packing, values in zip(packings, stored, strict=True)]
        if known.any():
            break
    else:
        raise DataError(
            f"{where}: no current anywhere on the first, middle and last level. Expected a field with data; check the "
            "download."
        )
    moving = np.concatenate([speed[speed > 0] for speed in speeds])
    if moving.size and moving.max() < 1e-3 and np.median(moving) < 1e-4:
        raise DataError(
            f"currents {path}: the fastest current is {moving.max():.2g} m/s and the median {np.median(moving):.2g}: "
            "scale_factor was applied twice, or the units are wrong. Expected m/s; correct the file."
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
    if not np.array_equal(first, last):
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
