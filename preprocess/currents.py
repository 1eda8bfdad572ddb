"""Gridded surface currents, from any product, as packed integers on plain axes.

A source is a NetCDF file, a glob of (daily) files, or a zarr store, local or behind an fsspec URL. `open_currents`
resolves names, checks the whole record and reads a level or a few; `Currents.read` then gives int16
`(time, 2, lat, lon)` in units of 1e-4 m/s. Both components are `FILL` where either is missing. Nothing stays open
between calls: a `Currents` is plain data that can be pickled, and threads may share it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from preprocess import files
from preprocess.axes import Axis, Order, latitude, longitude, stamp, time_step
from preprocess.current_files import Layout, coordinate, merge, resolve, scan
from preprocess.levels import Key, Levels
from preprocess.recipe import DAY, CurrentSource
from shared.errors import DataError
from shared.schema import FILL

LONG_CHUNK = 64
"""Source chunks of more levels than this are noted: each block of samples decodes all of them."""

BLOCK_BYTES = 64 * 2**20
"""Raw data decoded at once [bytes] when a chunk is smaller; bounds the memory that reading takes besides its result."""

LAND_LEVELS = 24
"""Levels looked at to tell land: spread over the record and the seasons, so that neither sea ice nor a gap is land."""

GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, fill the circle evenly however many there are."""

YEAR = 365.2425 * DAY
"""[s]"""


@dataclass(frozen=True, eq=False)
class Currents:
    """One record of surface currents; read it with `read`."""

    time: np.ndarray
    """Levels [s since 1970-01-01], int64 `(nt,)`, strictly increasing; levels may be missing."""
    step: int
    """Seconds between neighbouring levels; a day for a record of one level."""
    lat: Axis
    lon: Axis
    """Continuous, so it may pass 180 or 360; starts in [-180, 360)."""
    periodic: bool
    """Whether the longitudes go all the way round."""
    notes: tuple[str, ...]
    """What was resolved, converted and dropped, for the log."""
    fingerprint: dict[str, Any]
    """What the source holds, as JSON: `files.fingerprint`, names and grid; the same wherever the same files lie."""
    state: dict[str, Any]
    """Sizes and times of change, as JSON: tells whether the source is still the same."""
    chunk_levels: int
    """Levels in a chunk of the source: reading one of them decodes them all."""
    frozen: bool
    """Whether the single level stands for all times."""
    _layout: Layout = field(repr=False)
    _paths: tuple[str, ...] = field(repr=False)
    _file: np.ndarray = field(repr=False)
    """Which of `_paths` holds each level, `(nt,)`."""
    _level: np.ndarray = field(repr=False)
    """Index of each level in its file, `(nt,)`."""
    _lat_order: Order = field(repr=False)
    _lon_order: Order = field(repr=False)
    _memo: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _shared: Levels | None = field(default=None, repr=False)
    """Levels that other shards of this process need too."""

    def read(self, i0: int, i1: int) -> np.ndarray:
        """Levels i0 up to but not including i1, int16 `(i1 - i0, 2, lat, lon)` in units of 1e-4 m/s.

        Axis 1 is (u, v), eastward and northward. Each chunk of the source is decoded once in a call.

        Raises:
            DataError: a file cannot be read any more, or holds values that cannot be currents.
        """
        if not 0 <= i0 <= i1 <= self.time.size:
            raise IndexError(f"levels {i0} to {i1} are not inside 0 to {self.time.size}")
        if self._shared is None:
            return self._load(np.arange(i0, i1))
        return self._shared.read(self.keys()[i0:i1], lambda places: self._load(i0 + places))

    def keys(self) -> list[Key]:
        """Every level's file and place there."""
        return [(self._paths[file], level) for file, level in zip(self._file, self._level.tolist(), strict=True)]

    def sharing(self, levels: Levels) -> "Currents":
        """This record, which takes from `levels` what other shards need too."""
        return replace(self, _shared=levels)

    def land(self) -> np.ndarray:
        """Where there is never a current, bool `(lat, lon)`.

        True where both components are missing or exactly 0 on every one of up to 24 levels spread over the record and
        over the seasons.
        """
        if "land" not in self._memo:
            wanted = land_levels(self.time)
            land = np.ones((self.lat.size, self.lon.size), bool)
            chunk = self._file[wanted] * (2**40) + self._level[wanted] // self.chunk_levels
            for one in np.unique(chunk):
                for component in self._load(wanted[chunk == one]).reshape(-1, land.size):
                    dry = np.flatnonzero(land)
                    land.reshape(-1)[dry] = (component[dry] == FILL) | (component[dry] == 0)
            land.flags.writeable = False
            self._memo["land"] = land
        return self._memo["land"]

    def part(self, start: int, stop: int) -> "Currents":
        """The levels [start, stop) as a record of their own, with only their files: little to send to a worker.

        What is known of the whole record (`land`, `fingerprint`, `state`, `notes`) is not known of its part.
        """
        used, file = np.unique(self._file[start:stop], return_inverse=True)
        return replace(
            self,
            time=self.time[start:stop],
            notes=(),
            fingerprint={},
            state={},
            _paths=tuple(self._paths[k] for k in used),
            _file=file,
            _level=self._level[start:stop],
            _memo={},
        )

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: neither the land, as large as a level and to be found again, nor what is shared here."""
        return {**self.__dict__, "_memo": {}, "_shared": None}

    def _load(self, wanted: np.ndarray) -> np.ndarray:
        """The levels `wanted` (indices into `time`, ascending), as `read`."""
        out = np.empty((wanted.size, 2, self.lat.size, self.lon.size), np.int16)
        for file in np.unique(self._file[wanted]):
            places = np.flatnonzero(self._file[wanted] == file)
            path = self._paths[file]
            with files.opened(path, f"currents {path}") as dataset:
                level_bytes = self.lat.size * self.lon.size * dataset[self._layout.names["u"]].dtype.itemsize
                for block in _blocks(self._level[wanted[places]], self.chunk_levels, level_bytes):
                    levels = self._level[wanted[places[block]]]
                    first = int(levels.min())
                    pair = _packed(dataset, self._layout, first, int(levels.max()) + 1, path)
                    whole = levels.size == len(pair[0]) and (np.diff(levels) == 1).all()
                    for component, packed in enumerate(pair):
                        chosen = packed if whole else packed[levels - first]
                        out[_run(places[block]), component] = chosen[:, self._lat_order][:, :, self._lon_order]
        return out


def land_levels(time: np.ndarray) -> np.ndarray:
    """Indices of the `LAND_LEVELS` levels that tell land, ascending; both ends of the record among them.

    Evenly spaced levels may all fall into one season: of 23 years, one a year and every one in winter. So, in a record
    of more than a year, each moves by up to half a year to a season of its own. Those are multiples of the golden
    ratio, as any few of them are spread evenly. (Multiples of it over the whole record would alias too, in one of 21
    or 34 years: its convergents are 13/21 and 21/34.)

    Args:
        time: `(nt,)` levels [s], ascending.
    """
    since = np.linspace(0.0, float(time[-1] - time[0]), LAND_LEVELS)
    length = since[-1] / YEAR
    if length > 1.0:
        years = since[1:-1] / YEAR
        years += (np.arange(1, LAND_LEVELS - 1) * GOLDEN - years + 0.5) % 1.0 - 0.5
        since[1:-1] = (years + (years < 0) - (years > length)) * YEAR
    # rounding must not take the first level to the second
    return np.unique(np.clip(np.searchsorted(time - time[0], since.round()), 0, len(time) - 1))


def open_currents(source: CurrentSource) -> Currents:
    """Opens and checks one source of currents.

    Every file's time axis and grid is read; levels in the middle and at both ends of the record are decoded.

    Raises:
        DataError: the source is missing, unreadable, ambiguous, irregular, or does not hold currents.
    """
    where = f"currents {source.path}"
    paths = files.find(source.path, where)
    with files.opened(paths[0], f"currents {paths[0]}") as dataset:
        layout, notes = resolve(dataset, source, paths[0])
        grid = {role: coordinate(dataset, layout.names[role], paths[0]) for role in ("lat", "lon")}
        chunk_levels = layout.chunk_levels(dataset)
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
    entries = files.entries(paths, where)
    fingerprint = files.fingerprint(source.path, entries, where) | {
        "variables": layout.names,
        "pick": layout.pick,
        "time": [int(time[0]), int(time[-1]), int(time.size), step],
        "lat": [lat.start, lat.step, lat.size],
        "lon": [lon.start, lon.step, lon.size],
        "periodic": periodic,
    }
    currents = Currents(
        time=time, step=step, lat=lat, lon=lon, periodic=periodic, notes=tuple(notes + time_notes),
        fingerprint=fingerprint, state=files.state(entries), chunk_levels=chunk_levels, frozen=source.frozen,
        _layout=layout, _paths=tuple(paths), _file=file, _level=level, _lat_order=lat_order, _lon_order=_run(lon_order),
    )  # fmt: skip
    _check_values(currents, where)
    return _without_repeat(currents, where)


def _run(order: Order) -> Order:
    """`order` as a slice where it is one: that copies blocks instead of single values."""
    if isinstance(order, slice) or not (np.diff(order) == 1).all():
        return order
    return slice(int(order[0]), int(order[0]) + len(order))


def _packed(dataset: xr.Dataset, layout: Layout, start: int, stop: int, path: str) -> list[np.ndarray]:
    """Levels [start, stop) of one file, each component int16 `(stop - start, rows, columns)`."""
    pair = []
    for role in ("u", "v"):
        stored = layout.stored(dataset, role, start, stop, path)
        packing = layout.packing(dataset, role, f"currents {path}")
        pair.append(packing.pack(stored, f"currents {path}: {layout.names[role]}"))
    east, north = (component == FILL for component in pair)
    if not np.array_equal(east, north):
        pair[0][north] = FILL
        pair[1][east] = FILL
    return pair


def _blocks(levels: np.ndarray, chunk: int, level_bytes: int) -> Iterator[np.ndarray]:
    """Groups of positions in `levels` to be read as one slice: whole chunks, joined while they adjoin and fit memory.

    Args:
        levels: `(n,)` distinct levels of one file, in any order.
        chunk: levels in a chunk of the file.
        level_bytes: size of one level of one component [bytes].
    """
    order = np.argsort(levels, kind="stable")
    group: list[int] = []
    for i in order:
        if group:
            last = levels[group[-1]]
            together = levels[i] // chunk == last // chunk
            adjoins = levels[i] == last + 1 and (levels[i] - levels[group[0]] + chunk) * level_bytes <= BLOCK_BYTES
            if not together and not adjoins:
                yield np.array(group)
                group = []
        group.append(int(i))
    if group:
        yield np.array(group)


def _check_values(currents: Currents, where: str) -> None:
    """Checks speeds on a level in the middle of the record, or on the first or last where that one is empty."""
    layout = currents._layout
    for i in dict.fromkeys([currents.time.size // 2, 0, currents.time.size - 1]):
        path, level = currents._paths[currents._file[i]], int(currents._level[i])
        speeds = []
        with files.opened(path, f"currents {path}") as dataset:
            for role in ("u", "v"):
                name = f"currents {path}: {layout.names[role]}"
                stored = layout.stored(dataset, role, level, level + 1, path)
                packing = layout.packing(dataset, role, f"currents {path}")
                speed = packing.speeds(stored[~packing.missing(stored)])
                # Unmasked fills, which the next line tells, are far above the fastest current in any unit.
                _check_unit(speed[speed < 1000.0], layout.units[role], name)
                speeds.append(packing.speeds(stored[packing.pack(stored, name) != FILL]))
        if all(speed.size for speed in speeds):
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
    first, before, previous, last = currents._load(np.array([0, n - 3, n - 2, n - 1])).astype(np.float32)
    if not np.array_equal(first, last) or np.square(last - previous).sum() <= 9 * np.square(previous - before).sum():
        return currents
    name = Path(currents._paths[currents._file[-1]]).name
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
        _file=currents._file[:-1],
        _level=currents._level[:-1],
    )
