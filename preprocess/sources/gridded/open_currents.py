"""Opening of a record of currents: names resolved, every file's times and grid read, a few levels checked.

A source that cannot be a record of surface currents is refused here, before anything is cut from it.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from driftcal.preprocess.recipe import DAY, CurrentSource
from driftcal.preprocess.sources import addresses, files
from driftcal.preprocess.sources import fingerprint as identity
from driftcal.preprocess.sources.absent_chunks import absences, refuse_unwritten, refuse_values
from driftcal.preprocess.sources.gridded import stamps
from driftcal.preprocess.sources.gridded.axes import Order, latitude, longitude, repeats, time_step, tolerance
from driftcal.preprocess.sources.gridded.current_files import merge, resolve, scan
from driftcal.preprocess.sources.gridded.currents import COMPONENTS, Currents
from driftcal.preprocess.sources.gridded.level_cache import Levels
from driftcal.preprocess.sources.gridded.plausible import repeated_columns
from driftcal.preprocess.sources.gridded.probe import checked
from driftcal.shared.errors import DataError
from driftcal.shared.store.schema import FILL
from driftcal.shared.text import stamp

WARNING = "WARNING: "
"""Begins a note that must be dealt with."""

LONG_CHUNK = 64
"""Source chunks of more levels than this are noted: a block of samples may decode all of them."""


def open_currents(source: CurrentSource, levels: Levels | None = None, number: int = 0) -> Currents:
    """Opens and checks one source of currents.

    Every file's time axis and grid is read; levels in the middle and at both ends of the record are decoded.

    Args:
        source: Source as the manifest gives it.
        levels: Keeps what is decoded for whoever reads it next; None keeps nothing.
        number: Number of the source among those that share `levels`.

    Raises:
        DataError: the source is missing, cannot be read, is ambiguous, irregular, or does not hold currents.
    """
    where = f"currents {source.path}"
    paths = files.find(source.path, where)
    with files.opened(paths[0], f"currents {paths[0]}") as dataset:
        layout, grid, notes = resolve(dataset, source, paths[0])
        chunk_levels, itemsize = layout.chunk_levels(dataset), dataset.variables[layout.names["u"]].dtype.itemsize
    lat, lat_order, lat_notes = latitude(grid["lat"].values, f"{where}: {layout.names['lat']}")
    lon, lon_order, periodic, lon_notes = longitude(grid["lon"].values, f"{where}: {layout.names['lon']}")
    notes = [*_marked(notes, where), *lat_notes, *lon_notes]
    if chunk_levels > LONG_CHUNK:
        notes.append(
            f"{where}: chunks of {chunk_levels} levels; every block of samples decodes all of them, which costs time "
            "and memory. Rechunk the record to a few levels a chunk if it is to be read more than once"
        )
    apart = {role: tolerance(grid[role].values, axis.step) for role, axis in (("lat", lat), ("lon", lon))}
    stamped = []
    for path in paths:
        with files.opened(path, f"currents {path}") as dataset:
            stamped.append(scan(dataset, layout, grid, apart, path))
            notes += _absent(dataset, [layout.names[role] for role in COMPONENTS], path)
    stamps.check(stamped, paths, where)
    time, file, level, time_notes = merge([of_file.time for of_file in stamped], paths, where)
    notes += _counted(stamped, where)
    step = time_step(time, where) if time.size > 1 else DAY
    if not source.frozen:
        notes += _marked(stamps.remark(stamped, time, step), where)
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
    currents, whole, packings = checked(currents, levels, where)
    twice = repeated_columns(whole, packings, repeats(grid["lon"].values, lon_order), grid["lon"].values, where)
    currents = replace(currents, notes=(*currents.notes, *_marked(twice, where)))
    return _without_repeat(currents, where)


def _absent(dataset: xr.Dataset, names: list[str], path: str) -> list[str]:
    """Notes on chunks of the components that a zarr store on this machine lacks."""
    where = f"currents {path}"
    if addresses.is_url(path):  # listing a remote store can take longer than reading the part of it that a run needs
        return []
    with files.reading(path, where, "the list of chunks"):
        absent = files.retried(lambda: absences(path, dataset, names))
    refuse_unwritten(absent, where)
    refuse_values(absent, where)
    return [
        f"{where}: {absence}: no currents there"
        if absence.is_missing
        else f"WARNING: {where}: {absence}, and {absence.fill} is read there. Of zeros over the sea no window is used. "
        "If the copy is unfinished, fetch it again"
        for absence in absent
    ]


def _counted(stamped: Sequence[stamps.Stamps], where: str) -> list[str]:
    """Notes on the times of the files, each once."""
    counts = Counter(note for of_file in stamped for note in of_file.notes)
    some = {note: f" (in {n} of {len(stamped)} files)" if n < len(stamped) else "" for note, n in counts.items()}
    return _marked([note + some[note] for note in counts], where)


def _marked(notes: Sequence[str], where: str) -> list[str]:
    """`notes` with their source, behind the mark of a warning."""
    split = [(note.startswith(WARNING), note.removeprefix(WARNING)) for note in notes]
    return [f"{WARNING if warns else ''}{where}: {note}" for warns, note in split]


def _run(order: Order) -> Order:
    """Returns `order` as a slice if it is one: that copies blocks instead of single values."""
    if isinstance(order, slice) or not (np.diff(order) == 1).all():
        return order
    return slice(int(order[0]), int(order[0]) + len(order))


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
    """Warnings of avoidable losses that are no errors: one record, cut in time, given as several `sources`."""
    messages = []
    for (before, a), (after, b) in itertools.permutations(zip(sources, currents, strict=True), 2):
        grids = [(c.lat.start, c.lat.size, c.lon.start, c.lon.size) for c in (a, b)]
        if grids[0] == grids[1] and 0 < b.time[0] - a.time[-1] <= a.step:
            messages.append(
                f"WARNING: currents {after.path} go on where {before.path} end, on the same grid. A window takes one "
                f"source, so segments across both are left out. Give them as one source, by a glob"
            )
    return messages
