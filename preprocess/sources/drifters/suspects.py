"""Suspect ids, which may each name several drifters: collected while a source is read, then judged.

A few among many are left out or warned of; where they are many, the ids are no names of drifters, and the source is
refused with what tells the drifters apart.
"""

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64

from driftcal.preprocess.recipe import DAY, DrifterSource
from driftcal.preprocess.sources.drifters import namesakes
from driftcal.preprocess.sources.drifters.fixes import Fixes
from driftcal.preprocess.sources.drifters.namesakes import Track
from driftcal.shared.errors import DataError


class Suspects:
    """Trajectories of a source that may be several drifters'."""

    def __init__(self, repeated: set[str]):
        """Begins without any; `repeated` are the ids with several trajectories."""
        self._repeated = repeated
        self._mixed: list[tuple[str, str]] = []
        self._tracks: dict[str, list[Track]] = {}

    def add(self, block: Fixes) -> None:
        """Adds the evidence of a block of whole trajectories."""
        self._mixed += [(block.drifter[row], proof) for row, proof in block.mixed]
        if not self._repeated:
            return
        starts = np.flatnonzero(np.diff(block.row, prepend=-1))
        for first, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(block.row)], strict=True):
            row, last = int(block.row[first]), stop - 1
            if (name := block.drifter[row]) in self._repeated:
                ends = [(float(block.lon[k]), float(block.lat[k])) for k in (first, last)]
                track = Track(row, int(block.time[first]), int(block.time[last]), *ends)
                self._tracks.setdefault(name, []).append(track)

    def continued(self, path_of: Callable[[int], str]) -> int:
        """Number of trajectories that continue one of the same id which ended in another file at most a day before."""
        n = 0
        for tracks in self._tracks.values():
            ordered = sorted(tracks, key=lambda track: (track.start, track.row))
            for before, after in itertools.pairwise(ordered):
                n += 0 < after.start - before.stop <= DAY and path_of(before.row) != path_of(after.row)
        return n

    def verdict(
        self,
        source: DrifterSource,
        n_rows: int,
        n_ids: int,
        read: Callable[[int], tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 2"]]],
        path_of: Callable[[int], str],
    ) -> list[str]:
        """Notes on the suspect ids.

        Args:
            source: The source, read to its end.
            n_rows: Number of its trajectories.
            n_ids: Number of its ids.
            read: Times [s] `[n]` and positions [degrees] `[n, 2]` of a row.
            path_of: The file that a row lies in.

        Raises:
            DataError: So many are several drifters' that the ids cannot be names of drifters.
        """
        where = f"drifters {source.path}"
        if self._mixed:
            name, places = self._mixed[0]
            proof = f"{len(self._mixed)} of {n_rows} trajectories, such as that of {name!r}: {places}"
            if len(self._mixed) > namesakes.MANY * n_rows:
                raise DataError(
                    f"{where}: ids do not name single drifters: they are in two places at one time, or jump to and "
                    f"fro, in {proof}. Restore the ids from the original (a spreadsheet rounds long ones), or set "
                    "drifters.variables.id in the manifest to what tells the drifters apart."
                )
            return [f"WARNING: {where}: left out, as they hold several drifters: {proof}"]
        proved, compared = namesakes.apart(self._tracks, read)
        if not proved:
            return []
        name, one, other = proved[0]
        proof = (
            f"{len(proved)} of {len(self._tracks)} ids that have several trajectories, such as {name!r}: "
            f"{namesakes.text(one.start, one.first)} to {namesakes.text(one.stop, one.last)}, and "
            f"{namesakes.text(other.start, other.first)} to {namesakes.text(other.stop, other.last)}"
        )
        if len(proved) <= namesakes.MANY * n_ids and 2 * len(proved) < compared:
            return [f"WARNING: {where}: trajectories of one id are in two places at one time, in {proof}"]
        across = any(path_of(before.row) != path_of(after.row) for _, before, after in proved)
        remedy = (
            "If every file numbers its drifters anew, set drifters.id_per_file: true in the manifest"
            if across and not source.id_per_file
            else "Set drifters.variables.id in the manifest to what tells the drifters apart"
        )
        raise DataError(
            f"{where}: ids do not name single drifters: trajectories of one id are in two places at one time, or too "
            f"far apart, in {proof}. {remedy}, or restore the ids from the original."
        )
