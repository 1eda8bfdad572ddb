"""Files of a record of currents: their variables, dimensions and levels.

The first file decides the `Layout`; every other file must have the same variables on the same grid.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Int, Int64, Shaped

from driftcal.preprocess.recipe import CurrentSource
from driftcal.preprocess.sources.gridded import current_roles, stamps
from driftcal.preprocess.sources.gridded.coordinates import Angles, angles, stored
from driftcal.preprocess.sources.gridded.packing import Packing, check_dtype
from driftcal.preprocess.sources.gridded.selection import Pick, picks
from driftcal.preprocess.sources.units import Axis, is_length, speed_factor, units_of
from driftcal.preprocess.sources.variable_roles import listing
from driftcal.shared.errors import DataError
from driftcal.shared.text import stamp

HORIZONTAL: tuple[Axis, Axis] = ("lat", "lon")

_OTHER = {"u": "v", "v": "u"}


@dataclass(frozen=True)
class Layout:
    """The layout that all files of a source share: names by role, dimensions, and their indices."""

    names: dict[str, str]
    time_dim: str | None
    lat_dim: str
    lon_dim: str
    pick: dict[str, int]
    """Index taken along each further dimension."""
    units: dict[str, str | None]
    """Units of u and v in the first file, for files that give none."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Valid ranges of components that are meant for the other kind of numbers than CF says, stored or decoded."""
    picked: tuple[Pick, ...] = ()
    """The same with the values there."""
    stated: dict[str, str] = field(default_factory=dict)
    """Units by role that the manifest states."""
    time_shift: int | None = None
    """Added to all times [s], as the manifest states; None: nothing is stated."""

    @property
    def axes(self) -> list[str]:
        """The variables that are not needed any more once the axes of a file are known."""
        return [name for role, name in self.names.items() if role not in _OTHER]

    def units_of(self, dataset: xr.Dataset, role: str) -> tuple[str | None, str]:
        """Units of component `role` in one file, and the variable that has them.

        They are the manifest's; else its own, else the other component's, there or in the first file.
        """
        name, other = self.names[role], self.names[_OTHER[role]]
        if stated := self.stated.get(role):
            return stated, name
        here = [(units_of(dataset.variables[n].attrs), n) for n in (name, other)]
        first = [(self.units[role], name), (self.units[_OTHER[role]], other)]
        return next(((units, owner) for units, owner in (*here, *first) if units), (None, name))

    def packing(self, dataset: xr.Dataset, role: str, where: str) -> Packing:
        """Packing of component `role` in one file."""
        units, owner = self.units_of(dataset, role)
        speed_factor(units, f"{where}: {owner}")
        packing = Packing.of(dataset.variables[self.names[role]], units, f"{where}: {self.names[role]}")
        encoding = packing.encoding
        if encoding.has_range and self.ranges.get(role) == encoding.valid:
            return replace(packing, encoding=replace(encoding, valid_is_decoded=not encoding.valid_is_decoded))
        return packing

    def stored(
        self, dataset: xr.Dataset, role: str, start: int, stop: int, path: str
    ) -> Shaped[np.ndarray, "levels rows columns"]:
        """Levels [start, stop) of component `role` as stored, `(stop - start, rows, columns)`."""
        name = self.names[role]
        variable, dims = dataset.variables[name].isel(self.pick), (self.lat_dim, self.lon_dim)
        if self.time_dim is None:
            return stored(variable.transpose(*dims), name, path)[None]
        variable = variable.isel({self.time_dim: slice(start, stop)}).transpose(self.time_dim, *dims)
        return stored(variable, f"{name}, levels {start} to {stop - 1},", path)

    def chunk_levels(self, dataset: xr.Dataset) -> int:
        """Levels in one chunk of the source; 1 where it is contiguous."""
        variable = dataset.variables[self.names["u"]]
        chunks = variable.encoding.get("chunksizes") or variable.encoding.get("chunks")
        if not chunks or self.time_dim is None:
            return 1
        axis = variable.dims.index(self.time_dim)
        return max(1, min(int(chunks[axis]), variable.shape[axis]))


def resolve(dataset: xr.Dataset, source: CurrentSource, path: str) -> tuple[Layout, dict[str, Angles], list[str]]:
    """Names, dimensions and indices, checked on the first file; its latitudes and longitudes; and notes.

    Raises:
        DataError: a variable is missing or ambiguous, or the components are not on one regular grid.
    """
    where = f"currents {path}"
    names = current_roles.resolve(dataset, {**source.variables}, where)
    u, v, time = (dataset.variables[names[role]] for role in ("u", "v", "time"))
    check_dtype(u, f"{where}: {names['u']}")
    check_dtype(v, f"{where}: {names['v']}")
    grid = {role: angles(dataset, names[role], role, source.units.get(role), path) for role in HORIZONTAL}
    dims = _horizontal(dataset, names, grid, where)
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
    extra = [str(d) for d in u.dims if d not in (time_dim, *dims.values())]
    chosen, more = picks(dataset, source.select, extra, list(names.values()), path)
    units = {"u": units_of(u.attrs), "v": units_of(v.attrs)}
    layout = Layout(
        names=names, time_dim=time_dim, lat_dim=dims["lat"], lon_dim=dims["lon"],
        pick={pick.dim: pick.index for pick in chosen}, picked=tuple(chosen), units=units, stated={**source.units},
        time_shift=source.time_shift,
    )  # fmt: skip
    notes = [", ".join(f"{role} is {name!r}" for role, name in names.items()), *more]
    for role in HORIZONTAL:
        notes += [f"{names[role]} {note}" for note in grid[role].notes]
    return layout, grid, notes + _unit_notes(dataset, layout, where)


def _unit_notes(dataset: xr.Dataset, layout: Layout, where: str) -> list[str]:
    """Notes on the units of both components.

    Raises:
        DataError: they are not those of a speed.
    """
    notes, names = [], layout.names
    for role in _OTHER:
        said, owner = layout.units_of(dataset, role)
        if is_length(said):
            raise DataError(
                f"{where}: {owner!r} has units {said!r}: a length, not a speed. Set currents.variables.{role} to a "
                f"current; if it is one, set currents.units in the manifest, or correct the attribute `units` in the "
                f"file."
            )
        factor = speed_factor(said, f"{where}: {owner!r}")
        if layout.stated.get(role):
            notes.append(f"{names[role]} taken in {said} (currents.units)")
        elif factor is None:
            notes.append(f"{names[role]} has {f'units {said!r}' if said else 'no units'}, taken as m/s")
        elif factor != 1.0:
            notes.append(f"{names[role]} converted from {said} to m/s")
        elif owner != names[role]:
            notes.append(f"{names[role]} has no units, taken as the other component's ({said})")
    return notes


def _horizontal(
    dataset: xr.Dataset, names: Mapping[str, str], grid: Mapping[str, Angles], where: str
) -> dict[str, str]:
    """The dimensions of latitude and longitude."""
    u = dataset.variables[names["u"]]
    for role, axis in grid.items():
        if axis.dim not in u.dims:
            raise DataError(
                f"{where}: {names[role]!r} on {dataset.variables[names[role]].dims} is not an axis of "
                f"{names['u']!r} on {u.dims}. Set currents.variables.{role} in the manifest."
            )
    if grid["lat"].dim == grid["lon"].dim:
        raise DataError(
            f"{where}: {names['lat']!r} and {names['lon']!r} share the dimension {grid['lat'].dim!r}: scattered "
            "points. Expected a grid; interpolate the record to one first."
        )
    return {role: axis.dim for role, axis in grid.items()}


def scan(
    dataset: xr.Dataset, layout: Layout, grid: Mapping[str, Angles], tolerance: Mapping[str, float], path: str
) -> stamps.Stamps:
    """Times of one file, after checking that it has the first file's variables and grid.

    Args:
        dataset: the opened file.
        layout: of the first file.
        grid: latitudes and longitudes of the first file, by role.
        tolerance: by which those may differ [degrees], by role.
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
    for role in HORIZONTAL:
        expected = grid[role].values
        came = angles(dataset, names[role], role, layout.stated.get(role), path).values
        if came.shape != expected.shape or not np.abs(came - expected).max() <= tolerance[role]:
            raise DataError(
                f"{where}: {names[role]!r} has {came.size} points from {came.flat[0]:g} to {came.flat[-1]:g}, "
                f"the first file's has {expected.size} from {expected.flat[0]:g} to {expected.flat[-1]:g}: the grids "
                "differ. Expected one grid; give files on another as a source of their own."
            )
    components = [names[role] for role in _OTHER]
    read = stamps.read(dataset, names["time"], components, layout.stated.get("time"), layout.time_shift, path)
    expected_dims = {layout.lat_dim, layout.lon_dim, *layout.pick} | ({layout.time_dim} if layout.time_dim else set())
    for role in ("u", "v"):
        variable = dataset.variables[names[role]]
        check_dtype(variable, f"{where}: {names[role]}")
        if set(variable.dims) != expected_dims or (layout.time_dim is None and read.time.size != 1):
            raise DataError(
                f"{where}: {names[role]!r} is on {variable.dims}, expected {tuple(sorted(expected_dims))} as in the "
                "first file. Give files of other kinds as a source of their own."
            )
    for pick in layout.picked:
        pick.check(dataset, path)
    return read


def merge(
    times: list[Int64[np.ndarray, " _"]], paths: list[str], where: str
) -> tuple[Int64[np.ndarray, " nt"], Int[np.ndarray, " nt"], Int[np.ndarray, " nt"], list[str]]:
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
