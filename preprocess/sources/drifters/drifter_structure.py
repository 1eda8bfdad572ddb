"""Structure of one drifter file: the role and unit of every variable, and the layout of its trajectories.

Every assumption about a file becomes a note, and everything that cannot be assumed a `DataError`: units of positions
and times, the dimensions that variables share, and the name of the only drifter of a file without ids.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from driftcal.preprocess.recipe import DrifterSource
from driftcal.preprocess.sources import files, number_times, times
from driftcal.preprocess.sources.drifters import drogues, fixes, ids, namesakes, quality
from driftcal.preprocess.sources.drifters.drifter_files import check_chunks, opened, read_table
from driftcal.preprocess.sources.drifters.drifter_roles import absent, resolve
from driftcal.preprocess.sources.drifters.drifter_rows import Rows, find_rows
from driftcal.preprocess.sources.drifters.fixes import DrifterFile, gap_unit
from driftcal.preprocess.sources.units import angle_factor, angle_way, reverse, units_of
from driftcal.shared.errors import DataError

_ID = "the only drifter"
"""Variable that names the drifter of a file without ids."""

BAD_SHARE = 0.01
"""Share of steps that may be impossible, or without time between, in a file that is taken for one drifter."""


class NoFixesError(DataError):
    """An intact file without fixes."""


def open_file(path: str, name: str, source: DrifterSource) -> DrifterFile:
    """One file of `source`, resolved and checked.

    Args:
        path: Local path or URL.
        name: Name of the file among those of the source.
        source: The source.

    Raises:
        DataError: it cannot be read, is ambiguous, damaged, or does not hold drifters.
    """
    where = f"drifters {path}"
    table = read_table(path, where, source)
    if table is not None:
        content, roles = table
        return replace(_checked(content, roles, path, name, source), loaded=content)
    with opened(path, where) as dataset:
        whole = _on_one_dimension(dataset)
        scalars = [str(name) for name, variable in whole.variables.items() if not variable.ndim]
        attributes = {str(name): variable.attrs for name, variable in whole.variables.items()}
        names = resolve(attributes, source, where, scalars)
        with files.reading(path, where, "the list of chunks"):
            files.retried(lambda: check_chunks(path, dataset, names, source.absent_chunks == "fill", where))
        file = _checked(whole, names, path, name, source)
        if file.rows.order is None and whole is dataset:
            return file
        # Scattered reads would read the whole file for every block.
        with files.reading(path, where, "the table"):
            return replace(file, loaded=files.retried(lambda: whole[list(file.names.values())].load()))


def _checked(dataset: xr.Dataset, names: dict[str, str], path: str, name: str, source: DrifterSource) -> DrifterFile:
    """The roles and the layout of an opened file, which is called `name`."""
    where, notes = f"drifters {path}", []
    lat, lon, time = (dataset[names[role]] for role in ("lat", "lon", "time"))
    if set(lat.dims) != set(lon.dims) or lat.ndim not in (1, 2):
        raise DataError(
            f"{where}: {lat.name!r} is on {lat.dims} and {lon.name!r} on {lon.dims}; expected the same one or two "
            "dimensions. This looks like a grid, not drifters."
        )
    if lat.size == 0:
        raise NoFixesError(f"{where} is empty: dimensions {dict(dataset.sizes)} hold no fixes.")
    factors = {role: _degrees(dataset[names[role]], role, where, notes) for role in ("lat", "lon")}
    attributes = {role: dict(dataset[name].attrs) for role, name in names.items()}
    with files.reading(path, where, repr(time.name)):
        _settle_times(time, attributes, source, where, notes)
    of_file = "id" not in names
    named = _named(dataset, names, name, where, notes) if of_file else dataset
    with files.reading(path, where, "ids and row sizes"):
        rows, said = files.retried(lambda: find_rows(named, {"id": _ID, **names}, where))
    if source.id_per_file and not of_file:
        rows = replace(rows, ids=[f"{name}/{drifter}" for drifter in rows.ids])
    _check_dimensions(dataset, names, lat, rows, where, said)
    resolved = ", ".join(f"{role} from {name!r}" for role, name in names.items())
    if "gap" in names:
        gap_unit(attributes["gap"], names["gap"], where)
    else:
        said.append("nothing tells the gaps between satellite fixes")
    if not any(role in names for role in drogues.ROLES):
        said.append("nothing tells the state of the drogue: all fixes count as unknown")
    file = DrifterFile(
        path=path,
        where=where,
        names=names,
        attributes=attributes,
        rows=rows,
        own_times=time.ndim == 2,
        notes=(f"{rows.layout}; {resolved}", *notes, *said),
        factors={role: factor for role, factor in factors.items() if factor != 1.0},
    )
    if of_file and ids.of_attributes(dataset.attrs) is None:
        _check_single(file, dataset)
    return file


def _degrees(variable: xr.DataArray, role: Any, where: str, notes: list[str]) -> float:
    """Factor from a stored coordinate to degrees north or east."""
    units = units_of(variable.attrs)
    factor = angle_factor(units, role, f"{where}: {variable.name!r}")
    said = reverse(str(variable.name), variable.attrs, role)
    if said is not None and angle_way(units) not in ("w", "s"):
        way = "west" if role == "lon" else "south"
        raise DataError(
            f"{where}: {variable.name!r} counts to the {way}, as {said!r} says, and its units {units or ''!r} do not. "
            f"Correct the units to degrees_{way} (in the header of a table: {variable.name} (degrees_{way})), or say "
            "no more that it does."
        )
    if factor != 1.0:
        notes.append(f"{variable.name!r} in {units!r}: converted to degrees {'north' if role == 'lat' else 'east'}")
    return factor


def _settle_times(
    time: xr.DataArray, attributes: dict[str, dict[str, Any]], source: DrifterSource, where: str, notes: list[str]
) -> None:
    """Gives times that are numbers the units of the manifest; refuses those that have none."""
    units, stated = units_of(attributes["time"]), source.time_units
    if time.dtype.kind in "iuf":
        if stated is not None:
            attributes["time"]["units"] = stated
            if units != stated:
                notes.append(f"times in {stated!r} as drifters.time_units says (the file: {units or 'no units'})")
        elif " since " not in (units or ""):
            raise DataError(
                f"{where}: times have units {units or ''!r}; expected such as 'seconds since 1970-01-01'. "
                f"{number_times.remedy(time.values, units)}"
            )
    lost = attributes.get("drogue_lost_date", {})
    if stated is not None and " since " not in (units_of(lost) or ""):
        lost["units"] = stated
    notes += times.remarks(attributes["time"]) if time.dtype.kind in "iuf" else []


def _named(dataset: xr.Dataset, names: dict[str, str], name: str, where: str, notes: list[str]) -> xr.Dataset:
    """Adds to `dataset` the name of its only drifter: that of a global attribute, else that of the file."""
    lat, rowsize = dataset[names["lat"]], dataset[names["rowsize"]] if "rowsize" in names else None
    several = lat.ndim == 2 and min(lat.shape) > 1
    several |= rowsize is not None and rowsize.dims != lat.dims and rowsize.size > 1
    several |= any("instance_dimension" in variable.attrs for variable in dataset.variables.values())
    if several:
        raise DataError(_no_id(dataset, names, where))
    attribute = ids.of_attributes(dataset.attrs)
    notes.append(
        "no variable of ids: every file is one drifter, named by its own name"
        if attribute is None
        else f"no variable of ids: every file is one drifter, named by its attribute {attribute[0]!r}"
    )
    return dataset.assign({_ID: ((), name if attribute is None else attribute[1])})


def _no_id(dataset: xr.Dataset, names: dict[str, str], where: str) -> str:
    variables = {str(name): variable.attrs for name, variable in dataset.variables.items()}
    return absent(["id"], variables, where, list(names.values()))


def _check_single(file: DrifterFile, dataset: xr.Dataset) -> None:
    """Refuses a file without ids whose fixes cannot be those of one drifter."""
    n_rows = len(file.rows.counts)
    with files.reading(file.path, file.where, "the fixes"):
        stored = times.seconds(dataset[file.names["time"]].values.ravel(), file.attributes["time"], file.where)
    order = np.diff(stored[stored != times.NO_TIME])
    back = min(int((order < 0).sum()), int((order > 0).sum()))
    block = file.fixes(dataset, 0, n_rows, 0, 0)
    n = len(block.time)
    far = int(namesakes.impossible(block.row, block.time, block.lon, block.lat).sum())
    again = block.dropped.get(fixes.AGAIN, 0)
    if block.mixed or back or far > BAD_SHARE * n or again > BAD_SHARE * (n + again):
        raise DataError(
            f"{_no_id(dataset, file.names, file.where)} Without ids a file is taken for one drifter, which this cannot "
            f"be: its times go back {back} times, repeat {again} times, and {far + len(block.mixed)} of its steps are "
            f"faster than {namesakes.FASTEST:g} m/s."
        )


def _check_dimensions(
    dataset: xr.Dataset, names: dict[str, str], lat: xr.DataArray, rows: Rows, where: str, notes: list[str]
) -> None:
    """Refuses variables that do not belong to fixes or trajectories; flags that do not are left out of `names`."""
    of_fix, of_row = [set(lat.dims), {rows.obs_dim}], [set(lat.dims), {rows.row_dim}, set()]
    allowed = {"time": of_fix, "gap": of_row, "drogue": of_row, "drogue_lost_date": of_row}
    for role, dims in allowed.items():
        if role in names and set(dataset[names[role]].dims) not in dims:
            raise DataError(
                f"{where}: {names[role]!r} is on {dataset[names[role]].dims}, expected {lat.dims} as positions are."
            )
    for role in quality.FLAGS:
        if role in names and set(dataset[names[role]].dims) not in of_fix:
            notes.append(f"{names.pop(role)!r} is on other dimensions than positions and was not looked at")
    if flags := [names[role] for role in quality.FLAGS if role in names]:
        notes.append(f"fixes with another flag than 0, 1 or 2 in {' or '.join(map(repr, flags))} are not used")


def _on_one_dimension(dataset: xr.Dataset) -> xr.Dataset:
    """`dataset` with the positions of a trajectory on the dimension of time, where each has a dimension of its own.

    So In Situ TAC and OceanSITES wrote tracks of buoys: `TIME(TIME)`, `LATITUDE(LATITUDE)`, `POSITION_QC(POSITION)`,
    all of one length. A grid is told from them by what the file says of itself.
    """
    said = " ".join(str(dataset.attrs.get(key, "")) for key in ("featureType", "cdm_data_type", "data_type")).lower()
    ends = {str(name): variable for name, variable in dataset.variables.items() if variable.dims == (name,)}
    of = {role: next((n for n in ends if n.lower() == role), None) for role in ("time", "latitude", "longitude")}
    if "trajectory" not in said or None in of.values() or len({ends[str(n)].size for n in of.values()}) != 1:
        return dataset
    size, time = ends[str(of["time"])].size, str(of["time"])
    same = {d for d, length in dataset.sizes.items() if length == size and str(d).lower() in (*of, "position")}
    variables = {
        str(name): (tuple(time if d in same else d for d in variable.dims), variable.values, variable.attrs)
        for name, variable in dataset.variables.items()
        if not {d for d in variable.dims if d not in same} and len(set(variable.dims) & same) == variable.ndim <= 1
    }
    return xr.Dataset(variables, attrs=dataset.attrs)
