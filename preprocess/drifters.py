"""Drifters as they come: opened and read in bounded blocks of whole trajectories.

A source is a contiguous ragged array (`rowsize(traj)`, `time/lat/lon(obs)`), a table `(traj, obs)`, or a table with
one row per fix, which is grouped by drifter; as NetCDF, zarr or csv (ERDDAP's too), local or behind an fsspec URL.
Whatever the layout, the same `Fixes` come out. Nothing stays open between passes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from preprocess import files, identity
from preprocess.drifter_files import check_chunks, opened, read_csv, resolve_names
from preprocess.drifter_rows import find_rows
from preprocess.fixes import DrifterFile, Fixes, gap_unit
from preprocess.recipe import DrifterSource
from preprocess.roles import DRIFTER_TIERS
from shared.errors import DataError

BLOCK_FIXES = 500_000
"""Fixes read at a time: with all that is made of them they take about 100 MB, however long the record is."""


class Drifters:
    """An opened source of drifters.

    Attributes:
        n_fixes: fixes stored in the source, padding of 2-D tables included.
        n_rows: trajectories with at least one stored fix.
        has_drogue: whether any file tells the state of the drogue.
        fingerprint: what the source holds, as JSON: `identity.fingerprint`, names and numbers of rows and fixes; the
            same wherever the same files lie.
        state: sizes and times of change, as JSON: tells whether the source is still the same.
    """

    def __init__(self, source: DrifterSource, opened: list[DrifterFile]):
        where = f"drifters {source.path}"
        self._files = opened
        self.n_rows = sum(len(f.rows.counts) for f in opened)
        self.n_fixes = sum(int(f.rows.counts.sum()) for f in opened)
        self.has_drogue = any("drogue" in f.names for f in opened)
        entries = identity.entries([f.path for f in opened], where)
        names = {role: sorted({f.names[role] for f in opened if role in f.names}) for role in DRIFTER_TIERS}
        self.fingerprint: dict[str, Any] = identity.fingerprint(source.path, entries, where) | {
            "variables": {role: found for role, found in names.items() if found},
            "rows": self.n_rows,
            "fixes": self.n_fixes,
        }
        self.state: dict[str, Any] = identity.state(entries)
        self._opened = []
        for note, count in Counter(note for f in opened for note in f.notes).items():
            share = f" ({count} of {len(opened)} files)" if count < len(opened) else ""
            self._opened.append(f"{where}: {note}{share}")
        ids = Counter(drifter for f in opened for drifter in f.rows.ids)
        repeated = sum(count > 1 for count in ids.values())
        if repeated:
            self._opened.append(f"{repeated} of {len(ids)} drifters have several trajectories, which stay separate")
        self._read: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """What was resolved and assumed; after a whole pass of `blocks` also what was repaired."""
        return (*self._opened, *self._read)

    def blocks(self, max_fixes: int = BLOCK_FIXES) -> Iterator[Fixes]:
        """The fixes in blocks of whole rows: at most `max_fixes` stored fixes, or a single longer row."""
        first_row = first_fix = kept = resorted = 0
        dropped: Counter[str] = Counter()
        for file in self._files:
            ends, start = np.cumsum(file.rows.counts), 0
            with file.opened() as dataset:
                while start < len(ends):
                    limit = (ends[start - 1] if start else 0) + max_fixes
                    stop = max(start + 1, int(np.searchsorted(ends, limit, side="right")))
                    block = file.fixes(dataset, start, stop, first_row, first_fix)
                    kept, resorted, start = kept + len(block.row), resorted + block.resorted, stop
                    dropped.update(block.dropped)
                    yield block
            first_row, first_fix = first_row + len(ends), first_fix + file.rows.size
        if not kept:
            reasons = ", ".join(f"{reason}: {number}" for reason, number in dropped.items())
            raise DataError(
                f"{self._files[0].where}: none of {self.n_fixes} fixes can be used ({reasons}). The file may hold "
                "metadata and no data, or fill values that its attributes do not declare."
            )
        self._read = [f"the times of {resorted} trajectories were out of order and were sorted"] if resorted else []


def open_drifters(source: DrifterSource) -> Drifters:
    """Opens `source`, finds its layout and checks its structure; positions and times are read by `blocks`.

    Raises:
        DataError: the source is missing, unreadable, ambiguous, damaged, or does not hold drifters.
    """
    return Drifters(source, [_open_file(path, source) for path in files.find(source.path, f"drifters {source.path}")])


def _open_file(path: str, source: DrifterSource) -> DrifterFile:
    where = f"drifters {path}"
    table = read_csv(path, where, source)
    if table is not None:
        return replace(_checked(table, path, source), held=table)
    with opened(path, where) as dataset:
        file = _checked(dataset, path, source)
        if file.rows.order is None:
            return file
        # Scattered reads would read the whole file for every block.
        with files.reading(path, where, "the table"):
            return replace(file, held=files.retried(lambda: dataset[list(file.names.values())].load()))


def _checked(dataset: xr.Dataset, path: str, source: DrifterSource) -> DrifterFile:
    """The roles and the layout of an opened file."""
    where = f"drifters {path}"
    names = resolve_names(dataset, source, where)
    lat, lon = dataset[names["lat"]], dataset[names["lon"]]
    if set(lat.dims) != set(lon.dims) or lat.ndim not in (1, 2):
        raise DataError(
            f"{where}: {lat.name!r} is on {lat.dims} and {lon.name!r} on {lon.dims}; expected the same one or two "
            "dimensions. This looks like a grid, not drifters."
        )
    if lat.size == 0:
        raise DataError(f"{where} is empty: dimensions {dict(dataset.sizes)} hold no fixes.")
    with files.reading(path, where, "the list of chunks"):
        files.retried(lambda: check_chunks(path, dataset, names, source.absent_chunks == "fill", where))
    with files.reading(path, where, "ids and row sizes"):
        rows, notes = files.retried(lambda: find_rows(dataset, names, where))
    allowed = {("time",): [set(lat.dims), {rows.obs_dim}], ("gap", "drogue"): [set(lat.dims), {rows.row_dim}, set()]}
    for roles, dims in allowed.items():
        for name in (names[role] for role in roles if role in names):
            if set(dataset[name].dims) not in dims:
                raise DataError(f"{where}: {name!r} is on {dataset[name].dims}, expected {lat.dims} as positions are.")
    resolved = ", ".join(f"{role} from {name!r}" for role, name in names.items())
    if "gap" in names:
        gap_unit(dataset[names["gap"]].attrs, names["gap"], where)
    else:
        notes.append("nothing tells the gaps between satellite fixes")
    if "drogue" not in names:
        notes.append("nothing tells the state of the drogue: all fixes count as unknown")
    return DrifterFile(
        path=path,
        where=where,
        names=names,
        attributes={role: dict(dataset[name].attrs) for role, name in names.items()},
        rows=rows,
        own_times=dataset[names["time"]].ndim == 2,
        notes=(f"{rows.layout}; {resolved}", *notes),
    )
