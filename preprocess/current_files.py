"""Files of a record of currents: which variables and dimensions they have, and what levels they hold.

The first file decides the `Layout`; every other file must have the same variables on the same grid.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from preprocess.axes import level_times, stamp
from preprocess.files import reading, retried
from preprocess.packing import Packing, check_dtype
from preprocess.recipe import CurrentSource
from preprocess.roles import check_components, listing, require_current
from preprocess.units import is_length, speed_factor, units_of
from shared.errors import DataError

_OTHER = {"u": "v", "v": "u"}


@dataclass(frozen=True)
class Layout:
    """What every file of a source shares: names by role, dimensions, and how to index them."""

    names: dict[str, str]
    time_dim: str | None
    lat_dim: str
    lon_dim: str
    pick: dict[str, int]
    """Index taken along each further dimension."""
    units: dict[str, str | None]
    """Units of u and v in the first file, where another does not say."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Valid ranges of components that are meant for the other kind of numbers than CF says, stored or decoded."""

    @property
    def axes(self) -> list[str]:
        """The variables that are not needed any more once the axes of a file are known."""
        return [name for role, name in self.names.items() if role not in _OTHER]

    def packing(self, dataset: xr.Dataset, role: str, where: str) -> Packing:
        """How component `role` is packed in one file; where it has no units they are the other component's."""
        variables = {r: dataset.variables[self.names[r]] for r in ("u", "v")}
        other = _OTHER[role]
        stated = [*(units_of(variables[r].attrs) for r in (role, other)), self.units[role], self.units[other]]
        units = next((units for units in stated if units), None)
        packing = Packing.of(variables[role], units, f"{where}: {self.names[role]}")
        encoding = packing.encoding
        if encoding.has_range and self.ranges.get(role) == encoding.valid:
            return replace(packing, encoding=replace(encoding, valid_is_decoded=not encoding.valid_is_decoded))
        return packing

    def stored(self, dataset: xr.Dataset, role: str, start: int, stop: int, path: str) -> np.ndarray:
        """Levels [start, stop) of component `role` as stored, `(stop - start, rows, columns)`."""
        name = self.names[role]
        variable, dims = dataset.variables[name].isel(self.pick), (self.lat_dim, self.lon_dim)
        if self.time_dim is None:
            return _values(variable.transpose(*dims), name, path)[None]
        variable = variable.isel({self.time_dim: slice(start, stop)}).transpose(self.time_dim, *dims)
        return _values(variable, f"{name}, levels {start} to {stop - 1},", path)

    def chunk_levels(self, dataset: xr.Dataset) -> int:
        """Levels in one chunk of the source; 1 where it is contiguous."""
        variable = dataset.variables[self.names["u"]]
        chunks = variable.encoding.get("chunksizes") or variable.encoding.get("chunks")
        if not chunks or self.time_dim is None:
            return 1
        axis = variable.dims.index(self.time_dim)
        return max(1, min(int(chunks[axis]), variable.shape[axis]))


def resolve(dataset: xr.Dataset, source: CurrentSource, path: str) -> tuple[Layout, list[str]]:
    """Names, dimensions and indices, checked on the first file; and notes about them.

    Raises:
        DataError: a variable is missing or ambiguous, or the components are not on one regular grid.
    """
    where = f"currents {path}"
    given = source.variables.get
    names = {role: require_current(dataset, role, given(role), where) for role in ("u", "v", "time", "lat", "lon")}
    check_components(dataset, names["u"], names["v"], where)
    u, v, time = (dataset.variables[names[role]] for role in ("u", "v", "time"))
    check_dtype(u, f"{where}: {names['u']}")
    check_dtype(v, f"{where}: {names['v']}")
    dims = _horizontal(dataset, names, where)
    if set(u.dims) != set(v.dims) or dict(u.sizes) != dict(v.sizes):
        raise DataError(
            f"{where}: {names['u']!r} {dict(u.sizes)} and {names['v']!r} {dict(v.sizes)} are on different grids. "
            "Expected both on the same points; interpolate one to the other's first."
        )
    time_dim = str(time.dims[0]) if time.ndim == 1 and time.dims[0] in u.dims else None
    if time_dim is None and time.size != 1:
        raise DataError(
            f"{where}: {names['time']!r} on {time.dims} is not an axis of {names['u']!r} on {u.dims}. "
            "Set currents.variables.time in the manifest."
        )
    pick = _picks(dataset, source.select, [str(d) for d in u.dims if d not in (time_dim, *dims.values())], path)
    units = {"u": units_of(u.attrs), "v": units_of(v.attrs)}
    notes = [", ".join(f"{role} is {name!r}" for role, name in names.items())]
    notes += [f"taking index {index} of {dim!r}" for dim, index in pick.items()]
    for role, other in _OTHER.items():
        said = units[role] or units[other]
        if is_length(said):
            raise DataError(
                f"{where}: {names[role]!r} has units {said!r}: a length, not a speed. Set currents.variables.{role} to "
                "a current, or correct the attribute `units` in the file."
            )
        factor = speed_factor(said, f"{where}: {names[role]!r}")
        if factor is None:
            notes.append(f"{names[role]} has {f'units {said!r}' if said else 'no units'}, taken as m/s")
        elif factor != 1.0:
            notes.append(f"{names[role]} converted from {said} to m/s")
        elif units[role] is None:
            notes.append(f"{names[role]} has no units, taken as the other component's ({said})")
    return Layout(names, time_dim, dims["lat"], dims["lon"], pick, units), notes


def _horizontal(dataset: xr.Dataset, names: Mapping[str, str], where: str) -> dict[str, str]:
    """The dimensions of latitude and longitude."""
    u, dims = dataset.variables[names["u"]], {}
    for role in ("lat", "lon"):
        variable = dataset.variables[names[role]]
        if variable.ndim == 2:
            raise DataError(
                f"{where}: {names[role]!r} is two-dimensional {variable.dims}: a curvilinear grid. Expected regular "
                "latitudes and longitudes; interpolate the record to a regular grid first."
            )
        if variable.ndim != 1 or variable.dims[0] not in u.dims:
            raise DataError(
                f"{where}: {names[role]!r} on {variable.dims} is not an axis of {names['u']!r} on {u.dims}. "
                f"Set currents.variables.{role} in the manifest."
            )
        dims[role] = str(variable.dims[0])
    if dims["lat"] == dims["lon"]:
        raise DataError(
            f"{where}: {names['lat']!r} and {names['lon']!r} share the dimension {dims['lat']!r}: scattered points. "
            "Expected a grid; interpolate the record to one first."
        )
    return dims


def _picks(dataset: xr.Dataset, select: Mapping[str, Any], extra: list[str], path: str) -> dict[str, int]:
    """The index to take along each dimension besides time, latitude and longitude."""
    where = f"currents {path}"
    if unknown := [name for name in select if name not in extra]:
        raise DataError(
            f"{where}: currents.select names {unknown[0]!r}, but the further dimensions are "
            f"{listing(extra) if extra else 'none'}. Correct the manifest."
        )
    pick = {}
    for dim in extra:
        size = dataset.sizes[dim]
        values = coordinate(dataset, dim, path) if dim in dataset.variables else np.arange(size)
        if dim not in select and size == 1:
            pick[dim] = 0
            continue
        shown = f"its {size} values are {listing([str(x) for x in values])}"
        if dim not in select:
            raise DataError(
                f"{where}: dimension {dim!r} is not one of time, lat, lon; {shown}. "
                f"Say which to take: currents.select: {{{dim}: {values[0]}}}."
            )
        wanted = select[dim]
        if values.dtype.kind in "iuf" and not isinstance(wanted, str):
            found = np.flatnonzero(np.isclose(values.astype(np.float64), float(wanted), rtol=1e-5, atol=1e-6))
        else:
            found = np.flatnonzero(values.astype(str) == str(wanted))
        if found.size != 1:
            raise DataError(f"{where}: currents.select asks for {dim}: {wanted}, but {shown}. Correct the manifest.")
        pick[dim] = int(found[0])
    return pick


def coordinate(dataset: xr.Dataset, name: str, path: str) -> np.ndarray:
    """Values of the variable `name`, as stored."""
    return _values(dataset.variables[name], name, path)


def _values(variable: xr.Variable, what: str, path: str) -> np.ndarray:
    with reading(path, f"currents {path}", what):
        return retried(lambda: variable.values)


def scan(dataset: xr.Dataset, layout: Layout, grid: Mapping[str, np.ndarray], cell: float, path: str) -> np.ndarray:
    """Times of one file [s since 1970-01-01], after checking that it has the first file's variables and grid.

    Args:
        dataset: the opened file.
        layout: of the first file.
        grid: latitudes and longitudes of the first file, by role, as stored.
        cell: size of a cell [degrees], of which coordinates may differ by 1 %.
        path: the file, for messages.

    Raises:
        DataError: the file differs from the first, or has times that cannot be used.
    """
    names, where = layout.names, f"currents {path}"
    if lacking := [name for name in names.values() if name not in dataset.variables]:
        raise DataError(
            f"{where}: lacks {listing(lacking)}, which the first file has; found "
            f"{listing([str(n) for n in dataset.variables])}. Give files of other kinds as a source of their own."
        )
    for role, expected in grid.items():
        came = coordinate(dataset, names[role], path)
        if came.shape != expected.shape or not np.abs(came - expected).max() <= 0.01 * cell:
            raise DataError(
                f"{where}: {names[role]!r} has {came.size} points from {came.flat[0]:g} to {came.flat[-1]:g}, "
                f"the first file's has {expected.size} from {expected.flat[0]:g} to {expected.flat[-1]:g}: the grids "
                "differ. Expected one grid; give files on another as a source of their own."
            )
    stored = coordinate(dataset, names["time"], path)
    times = level_times(stored, dataset.variables[names["time"]].attrs, f"{where}: {names['time']}")
    expected_dims = {layout.lat_dim, layout.lon_dim, *layout.pick} | ({layout.time_dim} if layout.time_dim else set())
    for role in ("u", "v"):
        variable = dataset.variables[names[role]]
        check_dtype(variable, f"{where}: {names[role]}")
        if set(variable.dims) != expected_dims or (layout.time_dim is None and times.size != 1):
            raise DataError(
                f"{where}: {names[role]!r} is on {variable.dims}, expected {tuple(sorted(expected_dims))} as in the "
                "first file. Give files of other kinds as a source of their own."
            )
    return times


def merge(
    times: list[np.ndarray], paths: list[str], where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """The record's levels in order of time: time, file and index in the file, each `(nt,)`, and notes."""
    every = np.concatenate(times)
    if not every.size:
        raise DataError(f"{where}: expected at least one time, came none. Check the download.")
    file = np.repeat(np.arange(len(times)), [t.size for t in times])
    level = np.concatenate([np.arange(t.size) for t in times])
    time, first = np.unique(every, return_index=True)
    repeated = np.setdiff1d(np.arange(every.size), first)
    notes = []
    for i in map(int, repeated[:20]):
        kept = first[np.searchsorted(time, every[i])]
        notes.append(
            f"{where}: {stamp(every[i])} of {Path(paths[file[i]]).name} (level {level[i]}) dropped, "
            f"{Path(paths[file[kept]]).name} has that time already"
        )
    if repeated.size > 20:
        notes.append(f"{where}: {repeated.size} levels with a repeated time dropped in all")
    if (np.diff(every[np.sort(first)]) < 0).any():
        notes.append(f"{where}: levels were not in order of time, sorted")
    return time, file[first], level[first], notes
