"""A drifter source: opened, and read in bounded blocks of whole trajectories.

A source is a contiguous or indexed ragged array, a table `(traj, obs)`, or a table with one row per fix, which is
grouped by drifter; as NetCDF, zarr, Parquet or a table in text, local or behind an fsspec URL.
Whatever the layout, the same `Fixes` come out. Nothing stays open between passes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from driftcal.preprocess.recipe import DrifterSource
from driftcal.preprocess.sources import files, fingerprint
from driftcal.preprocess.sources.drifters import drifter_roles, drogues, ids
from driftcal.preprocess.sources.drifters.drifter_structure import NoFixesError, open_file
from driftcal.preprocess.sources.drifters.fixes import REASONS, DrifterFile, Fixes
from driftcal.preprocess.sources.drifters.suspects import Suspects
from driftcal.shared.errors import DataError

BLOCK_FIXES = 500_000
"""Fixes read at a time: with all that is made of them they take about 100 MB, however long the record is."""


CONTINUED = (
    "go on in another file, and no segment crosses from one file to the next. Write the fixes of each drifter into one "
    "file"
)
"""End of a message on trajectories that continue from file to file: the effect, and the remedy."""


class Drifters:
    """An opened source of drifters.

    Attributes:
        n_fixes: fixes stored in the source, padding of 2-D tables included.
        n_rows: trajectories with at least one stored fix.
        has_drogue: whether any file tells the state of the drogue.
        fingerprint: what the source holds, as JSON: `identity.fingerprint`, names and numbers of rows and fixes; the
            same wherever the same files lie.
        continued: trajectories that go on in another file; known after a whole pass of `blocks`.
        state: sizes and times of change, as JSON: tells whether the source is still the same.
    """

    def __init__(self, source: DrifterSource, opened: list[DrifterFile], notes: Sequence[str] = ()):
        where = f"drifters {source.path}"
        self._source = source
        self._files = opened
        self.n_rows = sum(len(f.rows.counts) for f in opened)
        self.n_fixes = sum(int(f.rows.counts.sum()) for f in opened)
        self.has_drogue = any(role in f.names for f in opened for role in drogues.ROLES)
        entries = fingerprint.entries([f.path for f in opened], where)
        names = {role: sorted({f.names[role] for f in opened if role in f.names}) for role in drifter_roles.TIERS}
        self.fingerprint: dict[str, Any] = fingerprint.fingerprint(source.path, entries, where) | {
            "variables": {role: name for role, name in names.items() if name},
            "rows": self.n_rows,
            "fixes": self.n_fixes,
        }
        self.state: dict[str, Any] = fingerprint.state(entries)
        self._opened = [f"{where}: {note}" for note in notes]
        for note, count in Counter(note for f in opened for note in f.notes).items():
            share = f" ({count} of {len(opened)} files)" if count < len(opened) else ""
            self._opened.append(f"{where}: {note}{share}")
        rows_of = Counter(drifter for f in opened for drifter in f.rows.ids)
        self._repeated = {drifter for drifter, count in rows_of.items() if count > 1}
        self._n_ids = len(rows_of)
        if self._repeated:
            self._opened.append(
                f"{len(self._repeated)} of {self._n_ids} drifters have several trajectories, which stay separate"
            )
        self._read: list[str] = []
        self.continued = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what was resolved and assumed; after a whole pass of `blocks` also on what was repaired."""
        return (*self._opened, *self._read)

    def blocks(self, max_fixes: int = BLOCK_FIXES) -> Iterator[Fixes]:
        """The fixes in blocks of whole rows: at most `max_fixes` stored fixes, or a single longer row."""
        first_row = first_fix = kept = resorted = 0
        dropped: Counter[str] = Counter()
        suspects = Suspects(self._repeated)
        for file in self._files:
            ends, start = np.cumsum(file.rows.counts), 0
            with file.opened() as dataset:
                while start < len(ends):
                    limit = (ends[start - 1] if start else 0) + max_fixes
                    stop = max(start + 1, int(np.searchsorted(ends, limit, side="right")))
                    block = file.fixes(dataset, start, stop, first_row, first_fix)
                    kept, resorted, start = kept + len(block.row), resorted + block.resorted, stop
                    dropped.update(block.dropped)
                    suspects.add(block)
                    yield block
            first_row, first_fix = first_row + len(ends), first_fix + file.rows.size
        self.continued = suspects.continued(self._path_of)
        said = suspects.verdict(self._source, self.n_rows, self._n_ids, self._track, self._path_of)
        if not kept:
            listed = ", ".join(f"{reason}: {number}" for reason, number in dropped.items())
            advice = " ".join(dict.fromkeys(REASONS[reason] for reason, _ in dropped.most_common(2)))
            raise DataError(
                f"{self._files[0].where}: none of {self.n_fixes} fixes can be used ({listed}). {advice}".rstrip()
            )
        self._read = [f"the times of {resorted} trajectories were out of order and were sorted"] if resorted else []
        self._read += said
        if self.continued:
            self._read.append(f"WARNING: drifters {self._source.path}: {self.continued} trajectories {CONTINUED}")

    def _file_of(self, row: int) -> tuple[DrifterFile, int]:
        """The file that contains a row, and the row's number in it."""
        for file in self._files:
            if row < len(file.rows.counts):
                return file, row
            row -= len(file.rows.counts)
        raise IndexError(row)

    def _path_of(self, row: int) -> str:
        return self._file_of(row)[0].path

    def _track(self, row: int) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 2"]]:
        """Times [s] `[n]` and positions [degrees] `[n, 2]` of a row."""
        file, number = self._file_of(row)
        with file.opened() as dataset:
            fixes = file.fixes(dataset, number, number + 1, 0, 0)
        return fixes.time, np.stack([fixes.lon, fixes.lat], axis=-1)


def open_drifters(source: DrifterSource) -> Drifters:
    """Opens `source`, finds its layout and checks its structure; positions and times are read by `blocks`.

    Raises:
        DataError: the source is missing, cannot be read, is ambiguous, damaged, or does not hold drifters.
    """
    paths = files.find(source.path, f"drifters {source.path}")
    names = ids.of_files(paths)
    opened, empty = [], []
    for path in paths:
        try:
            opened.append(open_file(path, names[path], source))
        except NoFixesError as error:
            empty.append((path, error))
    if not opened:
        raise empty[0][1]
    skipped = f"{len(empty)} of {len(paths)} files hold no fixes and were skipped" if empty else ""
    return Drifters(source, opened, [f"{skipped}, such as {path}" for path, _ in empty[:1]])
