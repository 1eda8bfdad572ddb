"""Coordinates of a record of currents: decoded, and latitudes and longitudes in degrees north and east.

Coordinates may be packed, filled and labelled with units like any variable. Their valid ranges are ignored: tools
that cut or rotate a grid leave those of the original one behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64, Num, Shaped

from driftcal.preprocess.sources.contradictions import check_angles
from driftcal.preprocess.sources.encoding import Encoding
from driftcal.preprocess.sources.files import reading, retried
from driftcal.preprocess.sources.units import Axis, angle_factor, angle_way, is_length, reverse, units_of
from driftcal.shared.errors import DataError

ELSEWHERE = {
    "grid_latitude": "of a rotated pole",
    "grid_longitude": "of a rotated pole",
    "projection_x_coordinate": "of a map projection",
    "projection_y_coordinate": "of a map projection",
    "projection_x_angular_coordinate": "of a map projection",
    "projection_y_angular_coordinate": "of a map projection",
}
"""CF standard names of coordinates that are neither latitude nor longitude, whatever their units."""

_ROTATED = ("rlat", "rlon", "grid_latitude", "grid_longitude")
"""Names that coordinates of a rotated pole go by in files without standard names."""

ALIKE = 1e-4
"""Spread of a two-dimensional coordinate along a dimension on which it does not depend [degrees]: float32 rounding."""

_PLANE = ("x", "y", "xc", "yc", "easting", "northing")
"""Names that coordinates of a map projection go by, in units of length."""

KEPT = "has {:g} both as its fill value and on its regular axis; taken as a coordinate"
"""Note on a fill value that is none."""

LARGEST = 720.0
"""Largest longitude of an axis, however often it goes round [degrees]."""

_FILL = ("_FillValue", "missing_value")
_RANGE = ("valid_range", "valid_min", "valid_max")


def stored(variable: xr.Variable, subject: str, path: str) -> Shaped[np.ndarray, "..."]:
    """Values of `variable` as they are stored."""
    with reading(path, f"currents {path}", subject):
        return retried(lambda: variable.values)


def without_range(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a coordinate less those that give a valid range."""
    return {name: value for name, value in attributes.items() if name not in _RANGE}


def range_notes(values: Num[np.ndarray, "..."], attributes: Mapping[str, Any], where: str) -> list[str]:
    """A note where stored `values` leave the valid range that is declared for them."""
    if values.dtype.kind not in "iuf" or not any(name in attributes for name in _RANGE):
        return []
    encoding = Encoding.of(values.dtype, attributes, where)
    if not encoding.has_range or not encoding.outside(encoding.read(values)).any():
        return []
    least, greatest = encoding.valid
    return [f"leaves its valid range ({least:g} to {greatest:g}), which is not kept to in a coordinate"]


def decoded(dataset: xr.Dataset, name: str, path: str) -> tuple[Shaped[np.ndarray, "..."], list[str]]:
    """Values of the coordinate `name`, missing ones NaN, and notes.

    Raises:
        DataError: it cannot be read, or its attributes cannot be used.
    """
    variable, where = dataset.variables[name], f"currents {path}: {name}"
    raw = stored(variable, name, path)
    if raw.dtype.kind not in "iuf":
        return raw, []
    encoding = Encoding.of(raw.dtype, without_range(variable.attrs), where)
    return encoding.decoded(raw), range_notes(raw, variable.attrs, where)


def elsewhere_of(dataset: xr.Dataset, name: str) -> str | None:
    """Kind of the coordinate `name` if it is neither latitude nor longitude: `of a rotated pole`, say."""
    attributes = dataset.variables[name].attrs
    if kind := ELSEWHERE.get(str(attributes.get("standard_name", ""))):
        return kind
    if name.lower() in _PLANE and is_length(units_of(attributes)):
        return "of a map projection"
    return "of a rotated pole" if name.lower() in _ROTATED else None


@dataclass(frozen=True)
class Angles:
    """Latitudes north or longitudes east [degrees] of a grid, float64 `(n,)`, and the dimension that they lie on."""

    values: Float64[np.ndarray, " n"]
    dim: str
    notes: tuple[str, ...]


def angles(dataset: xr.Dataset, name: str, axis: Axis, stated: str | None, path: str) -> Angles:
    """Latitudes or longitudes along their dimension.

    A two-dimensional coordinate is taken where it varies along one dimension alone: then the grid is a plain one.

    Raises:
        DataError: likewise, or they are those of a curvilinear grid.
    """
    variable = dataset.variables[name]
    values, notes = _degrees(dataset, name, axis, stated, path)
    if variable.ndim == 1:
        return Angles(values, str(variable.dims[0]), tuple(notes))
    if variable.ndim == 2:
        for along in (0, 1):
            if np.ptp(values, axis=1 - along).max() <= ALIKE < np.ptp(values):
                dim, other = str(variable.dims[along]), str(variable.dims[1 - along])
                notes.append(f"is two-dimensional and the same all along {other!r}: taken as the axis of {dim!r}")
                return Angles(np.take(values, 0, axis=1 - along), dim, tuple(notes))
        raise DataError(
            f"currents {path}: {name!r} is two-dimensional {variable.dims}: a curvilinear grid. Expected regular "
            "latitudes and longitudes; interpolate the record to a regular grid first."
        )
    raise DataError(
        f"currents {path}: {name!r} on {variable.dims} is no axis. Set currents.variables.{axis} in the manifest."
    )


def _degrees(
    dataset: xr.Dataset, name: str, axis: Axis, stated: str | None, path: str
) -> tuple[Float64[np.ndarray, "..."], list[str]]:
    """Latitudes north or longitudes east [degrees] of the coordinate `name`, float64 in its shape; and notes.

    Args:
        dataset: The opened file.
        name: Name of the variable.
        axis: Latitude or longitude.
        stated: Units that the manifest states for it; None: those of its attributes, degrees where it has none.
        path: The file, for messages.

    Raises:
        DataError: they are missing in part, or no latitudes or longitudes.
    """
    variable, where = dataset.variables[name], f"currents {path}: {name}"
    if kind := elsewhere_of(dataset, name):
        raise DataError(
            f"{where} is a coordinate {kind} ({variable.attrs.get('standard_name', name)!r}), not a "
            f"{'latitude' if axis == 'lat' else 'longitude'}, and currents on such a grid go along its own axes. Turn "
            "u and v to east and north and interpolate them to regular latitudes and longitudes first."
        )
    units = stated or units_of(variable.attrs)
    factor = angle_factor(units, axis, where)
    if stated is None and (said := reverse(name, variable.attrs, axis)) and angle_way(units) not in ("w", "s"):
        way = "degrees_west" if axis == "lon" else "degrees_south"
        raise DataError(
            f"{where} counts as {way} do, as {said!r} says, and its units "
            f"{units or ''!r} do not. Set currents.units.{axis} in the manifest: {way}."
        )
    values, notes = decoded(dataset, name, path)
    if values.dtype.kind not in "iuf":
        raise DataError(f"{where}: expected a numeric axis, came {values.dtype}. Write the degrees as numbers.")
    check_angles(stored(variable, name, path), without_range(variable.attrs), LARGEST / abs(factor), where)
    values = values.astype(np.float64)
    if (lost := np.isnan(values)).any():
        values, more = _kept(variable, lost, where, path)
        notes += more
    if factor != 1.0:
        notes.append(f"converted from {units} to degrees {'north' if axis == 'lat' else 'east'}")
    return values * factor, notes


def without_fill(raw: Num[np.ndarray, "..."], attributes: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """Attributes of a coordinate less its fill value, where that is one of its regular values; None where it is not.

    zarr declares 0 where nobody chose a fill, and axes go through 0.
    """
    plain = {name: value for name, value in attributes.items() if name not in _FILL}
    values = Encoding.of(raw.dtype, plain, where).decoded(raw).astype(np.float64)
    if values.ndim != 1 or values.size < 3 or not np.isfinite(values).all():
        return None
    steps = np.diff(values)
    return plain if (np.abs(steps - np.median(steps)) <= 0.02 * abs(np.median(steps))).all() else None


def _kept(
    variable: xr.Variable, lost: Bool[np.ndarray, "*shape"], where: str, path: str
) -> tuple[Num[np.ndarray, "*shape"], list[str]]:
    """Coordinates of which some equal the fill value.

    Raises:
        DataError: they are missing indeed.
    """
    raw = stored(variable, "a coordinate", path)
    attributes = without_fill(raw, without_range(variable.attrs), where)
    if attributes is None:
        first = int(np.flatnonzero(lost)[0])
        raise DataError(
            f"{where}: {int(lost.sum())} of {lost.size} coordinates are missing, the first at index {first} (stored "
            f"{raw.flat[first]}). Repair the coordinate in the file, or fetch it again."
        )
    values = Encoding.of(raw.dtype, attributes, where).decoded(raw).astype(np.float64)
    return values, [KEPT.format(values[lost][0])]
