"""Selection along dimensions of currents other than time, latitude and longitude: depth, member and the like.

`currents.select` names a dimension, or the one-dimensional variable that lies on it, and a value of that variable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from driftcal.preprocess.recipe import Place
from driftcal.preprocess.sources.encoding import texts
from driftcal.preprocess.sources.gridded.coordinates import decoded, stored
from driftcal.preprocess.sources.units import METRES, units_of
from driftcal.preprocess.sources.variable_roles import listing
from driftcal.shared.errors import DataError

DROGUE = 15.0
"""Depth of the drogue of surface drifters [m]."""

DEEP = 100.0
"""Depth [m] below which currents say little of a surface drifter: deeper than most mixed layers."""

_DECIBAR = dict.fromkeys(("dbar", "decibar", "decibars"), 1.0)  # of sea water, within 3 %


@dataclass(frozen=True)
class Pick:
    """Place that is taken on one further dimension.

    Attributes:
        dim: The dimension.
        index: Place on it.
        name: The variable whose value was asked for, None where there is none.
        value: Its value there: a number, or text.
        vertical: True for a depth or height, so that every file must have the same.
        asked: True if the manifest asks for it; otherwise it is the only one.
    """

    dim: str
    index: int
    name: str | None = None
    value: float | str | None = None
    vertical: bool = False
    asked: bool = False

    def check(self, dataset: xr.Dataset, path: str) -> None:
        """Refuses a file that has another value in this place.

        Raises:
            DataError: it has, or is too short there.
        """
        where, size = f"currents {path}", dataset.sizes.get(self.dim, 0)
        came: float | str | None = None
        if self.index < size and self.name in dataset.variables:
            came = _value(_coordinate(dataset, str(self.name), path), self.index)
        must_agree = self.name is not None and (self.vertical or self.asked)
        if self.index >= size or (must_agree and not _same(came, self.value)):
            raise DataError(
                f"{where}: {self.name or self.dim} is {came} at index {self.index} of dimension {self.dim!r} ({size} "
                f"long), but {self.value} in the first file. Expected the same levels in all files; give files of "
                "other kinds as a source of their own."
            )


def picks(
    dataset: xr.Dataset,
    select: Mapping[str, int | float | str | Place],
    extra: Sequence[str],
    taken: Sequence[str],
    path: str,
) -> tuple[list[Pick], list[str]]:
    """Places to take on the dimensions `extra`, and notes.

    Args:
        dataset: The opened file.
        select: The manifest's `select`.
        extra: Dimensions of the components besides time, latitude and longitude.
        taken: Names of the variables that have a role already.
        path: The file, for messages.

    Raises:
        DataError: the manifest does not say what to take, or what is not there.
    """
    where = f"currents {path}"
    names = {dim: _candidates(dataset, dim, taken) for dim in extra}
    asked = _by_dimension(select, names, where)
    chosen, notes = [], []
    for dim in extra:
        key, wanted = asked.get(dim, (dim, None))
        size = dataset.sizes[dim]
        if isinstance(wanted, Place):
            if wanted.index >= size:
                raise DataError(
                    f"{where}: currents.select asks for index {wanted.index} of {dim!r}, which has {size} places, "
                    f"counted from 0. Correct the manifest."
                )
            name = _named(key, dim, names[dim])
            chosen.append(_pick(dataset, dim, wanted.index, name, True, path))
        elif wanted is None and size == 1:
            chosen.append(_pick(dataset, dim, 0, _named(dim, dim, names[dim]), False, path))
        else:
            chosen.append(_find(dataset, dim, key, wanted, names[dim], path))
        notes += _notes(dataset, chosen[-1], names[dim], path)
    return chosen, notes


def _by_dimension(
    select: Mapping[str, int | float | str | Place], names: Mapping[str, list[str]], where: str
) -> dict[str, tuple[str, int | float | str | Place]]:
    """Values that the manifest asks for, with the key by which it does, by dimension."""
    asked: dict[str, tuple[str, int | float | str | Place]] = {}
    for key, value in select.items():
        dims = [key] if key in names else [dim for dim, on in names.items() if key in on]
        if len(dims) != 1:
            there = [f"{dim!r} (with {', '.join(map(repr, on)) or 'no variable on it'})" for dim, on in names.items()]
            raise DataError(
                f"{where}: currents.select names {key!r}, but the further dimensions are "
                f"{listing(there) if there else 'none'}. Correct the manifest."
            )
        if dims[0] in asked:
            raise DataError(
                f"{where}: currents.select names both {asked[dims[0]][0]!r} and {key!r}, which are one dimension. "
                "Name one of them."
            )
        asked[dims[0]] = key, value
    return asked


def _candidates(dataset: xr.Dataset, dim: str, taken: Sequence[str]) -> list[str]:
    """Variables that give the places on `dim` a value each."""
    fitting = []
    for name, variable in dataset.variables.items():
        characters = variable.ndim == 2 and variable.dtype == np.dtype("S1")
        if variable.dims[:1] == (dim,) and (variable.ndim == 1 or characters) and name not in taken:
            fitting.append(str(name))
    return fitting


def _named(key: str, dim: str, candidates: Sequence[str]) -> str | None:
    """The candidate that `key`, else `dim`, names; else the only one; else None."""
    for name in (key, dim):
        if name in candidates:
            return name
    return candidates[0] if len(candidates) == 1 else None


def _find(
    dataset: xr.Dataset, dim: str, key: str, wanted: int | float | str | None, candidates: Sequence[str], path: str
) -> Pick:
    where, size = f"currents {path}", dataset.sizes[dim]
    name = _named(key, dim, candidates)
    if name is None:
        there = f"the variables on it are {listing(list(map(repr, candidates)))}" if candidates else "no variable on it"
        how = f"{{{candidates[0]}: VALUE}} by one of them, or " if candidates else ""
        raise DataError(
            f"{where}: dimension {dim!r}, {size} long, has no coordinate of its name, and {there}: "
            f"{'which one tells its places is not known' if candidates else 'nothing tells its places'}. Say which to "
            f"take: currents.select: {how}{{{dim}: {{index: 0}}}} by its place, counted from 0."
        )
    values, units = _coordinate(dataset, name, path), _unit(dataset, name)
    whose = "its" if name == dim else f"of {name!r} its"
    shown = f"{whose} {size} values are {listing(_shown(values))}{units}"
    if wanted is None:
        example = _example(dataset, name, values)
        raise DataError(
            f"{where}: dimension {dim!r} is not one of time, lat, lon; {shown}. "
            f"Say which to take: currents.select: {{{name}: {example}}}."
        )
    index = _indices(values, wanted)
    if not index.size and _is_depth(dataset, name) and not isinstance(wanted, str):
        one_sided = bool((values <= 0).all() or (values >= 0).all())
        index = _indices(-values, wanted) if one_sided else index  # depths are written with either sign
    if index.size != 1:
        nearest = ""
        if values.dtype.kind in "iuf" and not isinstance(wanted, str) and np.isfinite(values).any():
            near = float(np.asarray(values).flat[int(np.nanargmin(np.abs(values - float(wanted))))])
            nearest = f"; the nearest is {near:.7g}{units}"
        several = " more than once" if index.size > 1 else ""
        raise DataError(
            f"{where}: currents.select asks for {key}: {wanted}{several}, but {shown}{nearest}. Correct the manifest."
        )
    return _pick(dataset, dim, int(index[0]), name, True, path)


def _example(dataset: xr.Dataset, name: str, values: np.ndarray) -> str:
    """One of the values for a message: of depths that of the drifters' drogue, else the first."""
    if values.dtype.kind not in "iuf":
        return repr(str(values[0]))
    if not _is_depth(dataset, name):
        return _shown(values)[0]
    factor = (METRES | _DECIBAR).get((units_of(dataset.variables[name].attrs) or "m").lower(), 1.0)
    return _shown(values)[int(np.nanargmin(np.abs(np.abs(values * factor) - DROGUE)))]


def _shown(values: np.ndarray) -> list[str]:
    return [f"{value:.7g}" if isinstance(value, int | float) else str(value) for value in values.tolist()]


def _indices(values: np.ndarray, wanted: int | float | str) -> np.ndarray:
    if values.dtype.kind in "iuf" and not isinstance(wanted, str):
        return np.flatnonzero(np.isclose(values.astype(np.float64), float(wanted), rtol=1e-5, atol=1e-6))
    wanted = texts(np.array([wanted], object))[0]
    return np.flatnonzero([text == wanted for text in texts(values)])


def _coordinate(dataset: xr.Dataset, name: str, path: str) -> np.ndarray:
    """Values of the coordinate `name`, decoded; characters joined to texts."""
    variable = dataset.variables[name]
    if variable.ndim == 2:
        rows = np.ascontiguousarray(stored(variable, name, path))
        return np.array(texts(rows.view(f"S{rows.shape[1]}").ravel()))
    values, _ = decoded(dataset, name, path)
    return values if values.dtype.kind in "iuf" else np.array(texts(values))


def _pick(dataset: xr.Dataset, dim: str, index: int, name: str | None, asked: bool, path: str) -> Pick:
    if name is None:
        return Pick(dim, index, asked=asked)
    return Pick(dim, index, name, _value(_coordinate(dataset, name, path), index), _is_depth(dataset, name), asked)


def _value(values: np.ndarray, index: int) -> float | str:
    value = values[index].item()
    return value if isinstance(value, str) else float(value)


def _same(a: float | str | None, b: float | str | None) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return bool(np.isclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True))
    return a == b


def _notes(dataset: xr.Dataset, pick: Pick, candidates: Sequence[str], path: str) -> list[str]:
    which = f"index {pick.index} of dimension {pick.dim!r}"
    below, beside = _metres(dataset, pick), ""
    if not pick.vertical and len(depths := [name for name in candidates if _is_position(dataset, name)]) == 1:
        # a number of a layer or a place that is taken for a depth is told by the depth itself
        there = _pick(dataset, pick.dim, pick.index, depths[0], pick.asked, path)
        below, beside = _metres(dataset, there), f", where {there.name} = {there.value:.7g}{_unit(dataset, depths[0])}"
    if pick.name is None:
        return [f"taking {which}{beside}", *_far_below(below)]
    value = f"{pick.value:.7g}" if isinstance(pick.value, float) else f"{pick.value!r}"
    units = _unit(dataset, pick.name) or (" (no units)" if pick.vertical else "")
    return [f"taking {pick.name} = {value}{units}, {which}{beside}", *_far_below(below)]


def _far_below(below: float | None) -> list[str]:
    """Warns of currents so far down [m]."""
    if below is None or not below > DEEP:
        return []
    return [
        f"WARNING: these are currents {below:g} m down; a drifter with its drogue at {DROGUE:g} m does not move "
        "with them"
    ]


def _unit(dataset: xr.Dataset, name: str) -> str:
    units = units_of(dataset.variables[name].attrs)
    return f" {units}" if units and units not in ("1", "-") else ""


def _is_depth(dataset: xr.Dataset, name: str) -> bool:
    """Tells whether a coordinate is a depth, height or pressure in a unit of its own, not the number of a layer."""
    attributes = dataset.variables[name].attrs
    units = (units_of(attributes) or "").lower()
    if units:
        return units in METRES or units in _DECIBAR
    return "dep" in f"{name} {attributes.get('standard_name', '')}".lower()


def _is_position(dataset: xr.Dataset, name: str) -> bool:
    """Tells whether numbers are depths or heights of layers that lie one below the other, not their thicknesses."""
    variable = dataset.variables[name]
    if variable.ndim != 1 or variable.dtype.kind not in "iuf" or not _is_depth(dataset, name):
        return False
    words = f"{name} {variable.attrs.get('standard_name', '')} {variable.attrs.get('long_name', '')}".lower()
    return not any(word in words for word in ("thick", "dz", "bound", "edge", "width"))


def _metres(dataset: xr.Dataset, pick: Pick) -> float | None:
    """Depth of a pick below the surface [m], None where that is not known."""
    if not pick.vertical or not isinstance(pick.value, float):
        return None
    units = (units_of(dataset.variables[str(pick.name)].attrs) or "m").lower()
    return abs(pick.value) * (METRES | _DECIBAR).get(units, 1.0)
