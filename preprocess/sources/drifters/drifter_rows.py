"""The trajectories of a drifter file: the positions of their fixes, in any of four layouts.

A contiguous ragged array (`rowsize(traj)`, `time/lat/lon(obs)`), an indexed one (CF H.4.4: each fix has the index of
its trajectory), a 2-D table `(traj, obs)`, or a table with one row per fix, which is grouped by drifter. Whatever the
layout, a trajectory becomes a row: an index along the flattened observations, a count of fixes and the drifter's id.
Rows without fixes are left out.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Int, Int64, Shaped

from driftcal.preprocess.sources.drifters.ids import identifiers
from driftcal.preprocess.sources.encoding import decode
from driftcal.preprocess.sources.variable_roles import listing
from driftcal.shared.errors import DataError

_COUNTED = 10
"""Ids that count rows if there are as many."""

_PIECE = 1 << 22
"""Ids scanned at once."""


@dataclass(frozen=True)
class Rows:
    """Positions along the flattened observations of the trajectories that have fixes; arrays are `[rows]`."""

    layout: str
    obs_dim: str
    row_dim: str | None
    size: int
    """Length of the flattened observations."""
    index: Int[np.ndarray, " rows"]
    """Index along `row_dim`."""
    starts: Int[np.ndarray, " rows"]
    """First fix along the observations, or along `order`."""
    counts: Int[np.ndarray, " rows"]
    ids: list[str]
    width: int = 0
    """Fixes stored per row of a 2-D table, 0 for other layouts."""
    filled: Int[np.ndarray, " table"] | None = None
    """Number of fixes of each row of a 2-D table that are not padding, if the source gives it."""
    order: Int[np.ndarray, " obs"] | None = None
    """Order of the observations by drifter `[size]`, if drifters interleave."""

    def take(self, variable: xr.Variable, start: int, stop: int) -> Shaped[np.ndarray, " n"]:
        """Values of `variable` for the fixes of rows [start, stop) `[n]`, as stored."""
        counts, index = self.counts[start:stop], self.index[start:stop]
        near = slice(int(index[0]), int(index[-1]) + 1)
        if not variable.ndim:
            return np.full(counts.sum(), variable.values)
        if variable.dims == (self.row_dim,):
            return np.repeat(variable[near].values[index - near.start], counts)
        if self.width and variable.dims == (self.obs_dim,):
            return np.tile(variable.values, stop - start)
        if self.width:
            return variable.transpose(self.row_dim, ...)[near].values[index - near.start].ravel()
        places = self._places(start, stop)
        return variable[places].values if self.order is None else variable.values[self.order[places]]

    def source_rows(self, start: int, stop: int) -> Int64[np.ndarray, " n"]:
        """Index of the fixes of rows [start, stop) along the flattened observations, int64 `[n]`."""
        if self.width:
            return (self.index[start:stop, None] * self.width + np.arange(self.width)).ravel()
        places = self._places(start, stop)
        return np.arange(places.start, places.stop) if self.order is None else self.order[places]

    def _places(self, start: int, stop: int) -> slice:
        return slice(int(self.starts[start]), int(self.starts[stop - 1] + self.counts[stop - 1]))


def find_rows(dataset: xr.Dataset, names: dict[str, str], where: str) -> tuple[Rows, list[str]]:
    """The layout of an opened file, and notes about it."""
    lat, ids = dataset[names["lat"]], dataset[names["id"]].variable
    if ids.ndim and ids.dtype == "S1" and ids.dims[-1] not in lat.dims:  # text as NetCDF3 stores it
        ids = xr.Variable(ids.dims[:-1], np.ascontiguousarray(ids.values).view(f"S{ids.shape[-1]}")[..., 0], ids.attrs)
    rowsize = dataset[names["rowsize"]] if "rowsize" in names else None
    if lat.ndim == 2:
        return _table_rows(lat, ids, rowsize, where)
    if rowsize is not None and rowsize.ndim == 1 and rowsize.dims != lat.dims:
        return _ragged_rows(lat, ids, rowsize, where)
    of_fix = _instances(dataset, lat)
    if of_fix is not None and ids.dims != lat.dims:
        return _indexed_rows(lat, ids, of_fix, where)
    if ids.ndim and ids.dims != lat.dims:
        raise DataError(
            f"{where}: ids are on {ids.dims} and positions on {lat.dims}, but no 'rowsize' tells how they belong "
            "together, nor does a variable on the positions' dimension with the attribute `instance_dimension`; found "
            f"{listing([str(v) for v in dataset.variables])}. Set drifters.variables.rowsize to the numbers of fixes, "
            "or drifters.variables.id to ids on the positions' dimension."
        )
    rows, notes = _grouped_rows(lat, ids, where)
    if len(rows.ids) == lat.size >= _COUNTED and _counts(rows.ids) and _changes(dataset[names["time"]]):
        raise DataError(
            f"{where}: {names['id']!r} counts the rows, from {rows.ids[0]} to {rows.ids[-1]}; expected what names the "
            "drifters. Set drifters.variables.id in the manifest to the column that does; if the file is one "
            f"drifter's, rename or remove {names['id']!r} and it is called by the file's name."
        )
    return rows, notes if rowsize is None else [*notes, f"{rowsize.name!r} is not per trajectory and was ignored"]


def _table_rows(
    lat: xr.DataArray, ids: xr.Variable, rowsize: xr.DataArray | None, where: str
) -> tuple[Rows, list[str]]:
    """Rows of a 2-D table `(traj, obs)`, in either order."""
    one_dim = [v.dims[0] for v in (rowsize, ids) if v is not None and v.ndim == 1 and v.dims[0] in lat.dims]
    row_dim = (one_dim or lat.dims)[0]
    obs_dim = next(dim for dim in lat.dims if dim != row_dim)
    n, width, notes = lat.sizes[row_dim], lat.sizes[obs_dim], []
    if not set(ids.dims) <= {row_dim, obs_dim} or ids.dims == (obs_dim,):
        raise DataError(f"{where}: ids are on {ids.dims}, expected ({row_dim!r},) as the trajectories are.")
    filled = _row_sizes(rowsize, where) if rowsize is not None and rowsize.dims == (row_dim,) else None
    if rowsize is not None and filled is not None and filled.max() > width:
        notes.append(f"{rowsize.name!r} exceeds the {width} fixes of a row (a table cut from longer rows): ignored")
        filled = None
    index = np.arange(n) if filled is None else _filled_rows(filled, where, notes)
    if ids.ndim == 2:
        ids = ids.transpose(row_dim, obs_dim)[:, 0]
    values = ids.values[index] if ids.ndim else np.full(len(index), ids.values)
    return Rows(
        layout=f"table {row_dim} x {obs_dim}",
        obs_dim=str(obs_dim),
        row_dim=str(row_dim),
        size=lat.size,
        index=index,
        starts=index * width,
        counts=np.full(len(index), width, np.int64),
        ids=identifiers(values, ids.attrs, where, index.tolist()),
        width=width,
        filled=None if filled is None else filled[index],
    ), notes


def _ragged_rows(lat: xr.DataArray, ids: xr.Variable, rowsize: xr.DataArray, where: str) -> tuple[Rows, list[str]]:
    """Rows of a contiguous ragged array, which `rowsize` cuts the observations into."""
    row_dim, obs_dim, notes = rowsize.dims[0], lat.dims[0], []
    sizes = _row_sizes(rowsize, where)
    # In Python's integers nothing wraps around, whatever a damaged file holds.
    total = sum(sizes.tolist())
    if total != lat.size:
        raise DataError(
            f"{where}: {rowsize.name!r} sums to {total} but {obs_dim!r} holds {lat.size} fixes; expected equal "
            "numbers. The file is damaged, or was cut along one dimension only."
        )
    index = _filled_rows(sizes, where, notes)
    counts = sizes[index]
    starts = np.cumsum(counts) - counts
    if ids.dims == (obs_dim,):
        firsts, run_ids = _runs(ids)
        run = np.searchsorted(firsts, starts, side="right") - 1
        mixed = index[np.searchsorted(firsts, starts + counts, side="left") - 1 != run]
        if mixed.size:
            raise DataError(
                f"{where}: the id changes inside row {mixed[0]} ({mixed.size} such rows); expected one drifter per "
                f"row. Correct {rowsize.name!r} or the ids."
            )
        values = run_ids[run]
    elif ids.ndim == 0 or ids.dims == (row_dim,):
        values = ids.values[index] if ids.ndim else np.full(len(index), ids.values)
    else:
        raise DataError(f"{where}: ids are on {ids.dims}, expected ({row_dim!r},) or ({obs_dim!r},).")
    return Rows(
        layout=f"ragged {row_dim}/{obs_dim}",
        obs_dim=str(obs_dim),
        row_dim=str(row_dim),
        size=lat.size,
        index=index,
        starts=starts,
        counts=counts,
        ids=identifiers(values, ids.attrs, where, index.tolist()),
    ), notes


def _instances(dataset: xr.Dataset, lat: xr.DataArray) -> xr.DataArray | None:
    """The variable that gives each fix the index of its trajectory (CF conventions, 9.3.4), if there is one."""
    fits = [v for v in dataset.variables if "instance_dimension" in dataset[v].attrs and dataset[v].dims == lat.dims]
    return dataset[fits[0]] if len(fits) == 1 else None


def _indexed_rows(lat: xr.DataArray, ids: xr.Variable, of_fix: xr.DataArray, where: str) -> tuple[Rows, list[str]]:
    """Rows of an indexed ragged array: one per trajectory with fixes, in the order of their indices."""
    row_dim = str(of_fix.attrs["instance_dimension"])
    if ids.dims not in ((row_dim,), ()):
        raise DataError(f"{where}: ids are on {ids.dims}, expected ({row_dim!r},) as {of_fix.name!r} says.")
    stored = decode(of_fix.values, of_fix.attrs, f"{where}: {of_fix.name!r}")
    n = ids.size
    with np.errstate(invalid="ignore"):
        whole = stored.dtype.kind in "iuf" and bool((np.isfinite(stored) & (stored == np.rint(stored))).all())
    if not whole or stored.min() < 0 or stored.max() >= n:
        came = f"{stored.min()} to {stored.max()}" if whole else f"{stored.dtype} values, some of them missing"
        raise DataError(
            f"{where}: {of_fix.name!r} holds {came}; expected for every fix the index of its trajectory along "
            f"{row_dim!r}, from 0 to {n - 1}. Correct the file: indices that count from 1 have to be one less."
        )
    index, codes, counts = np.unique(stored.astype(np.int64), return_inverse=True, return_counts=True)
    grouped = bool((np.diff(codes) >= 0).all())
    notes = [] if grouped else ["the fixes of drifters interleave: the whole table is held in memory"]
    if len(index) < n:
        notes.append(f"{n - len(index)} of {n} rows hold no fixes and were skipped")
    values = ids.values[index] if ids.ndim else np.full(len(index), ids.values)
    return Rows(
        layout=f"indexed by {of_fix.name!r} along {lat.dims[0]}",
        obs_dim=str(lat.dims[0]),
        row_dim=row_dim,
        size=lat.size,
        index=index,
        starts=np.cumsum(counts) - counts,
        counts=counts,
        ids=identifiers(values, ids.attrs, where, index.tolist()),
        order=None if grouped else np.argsort(codes, kind="stable"),
    ), notes


def _grouped_rows(lat: xr.DataArray, ids: xr.Variable, where: str) -> tuple[Rows, list[str]]:
    """Rows of a table with one row per fix: one per drifter, in the order of their first fixes."""
    firsts, run_ids = _runs(ids) if ids.ndim else (np.zeros(1, np.int64), np.full(1, ids.values))
    names = identifiers(run_ids, ids.attrs, where, firsts.tolist())
    codes, drifters = pd.factorize(np.array(names, dtype=object))
    lengths = np.diff(firsts, append=lat.size)
    counts = np.zeros(len(drifters), np.int64)
    np.add.at(counts, codes, lengths)
    order, notes = None, []
    if len(codes) > len(drifters):
        order = np.argsort(np.repeat(codes, lengths), kind="stable")
        notes.append("the fixes of drifters interleave: the whole table is held in memory")
    return Rows(
        layout=f"one row per fix along {lat.dims[0]}",
        obs_dim=str(lat.dims[0]),
        row_dim=None,
        size=lat.size,
        index=np.arange(len(drifters)),
        starts=np.cumsum(counts) - counts,
        counts=counts,
        ids=[str(drifter) for drifter in drifters],
        order=order,
    ), notes


def _filled_rows(sizes: Int[np.ndarray, " rows"], where: str, notes: list[str]) -> Int[np.ndarray, " filled"]:
    """Indices of the rows with fixes; skipped rows are counted in `notes`."""
    index = np.flatnonzero(sizes)
    if not len(index):
        raise DataError(f"{where} is empty: all {len(sizes)} row sizes are 0.")
    if len(index) < len(sizes):
        notes.append(f"{len(sizes) - len(index)} of {len(sizes)} rows hold no fixes and were skipped")
    return index


def _row_sizes(rowsize: xr.DataArray, where: str) -> Int64[np.ndarray, " rows"]:
    """Checked row sizes, int64 `[rows]`."""
    sizes = decode(rowsize.values, rowsize.attrs, f"{where}: {rowsize.name!r}")
    content = f"{sizes.dtype} values"
    if sizes.dtype.kind in "iuf":
        bad = np.flatnonzero(~((sizes >= 0) & (sizes < 2.0**62) & (sizes == np.rint(sizes))))
        if not bad.size:
            return sizes.astype(np.int64)
        content = f"{sizes[bad[0]]} in row {bad[0]}"
    raise DataError(f"{where}: {rowsize.name!r} holds {content}; expected whole numbers of fixes, 0 or more.")


def _counts(ids: list[str]) -> bool:
    """Tells whether ids are whole numbers each of which is one more than that before."""
    if not all(re.fullmatch(r"\d{1,18}", name) for name in ids):
        return False
    return bool((np.diff([int(name) for name in ids]) == 1).all())


def _changes(time: xr.DataArray) -> bool:
    """Tells whether there is more than one time; otherwise the file is one instant of all drifters."""
    return len(np.unique(time.values)) > 1


def _runs(ids: xr.Variable) -> tuple[Int[np.ndarray, " runs"], Shaped[np.ndarray, " runs"]]:
    """Start `[runs]` and id of each run of equal ids along the observations; read piece by piece."""
    firsts, run_ids, last = [], [], None
    for start in range(0, ids.size, _PIECE):
        values = ids[start : start + _PIECE].values
        new = np.append(0, np.flatnonzero(values[1:] != values[:-1]) + 1)
        new = new[1:] if start and values[0] == last else new
        firsts.append(new + start)
        run_ids.append(values[new])
        last = values[-1]
    return np.concatenate(firsts), np.concatenate(run_ids)
