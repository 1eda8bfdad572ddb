"""Candidate segments: one pass over the drifters finds them all, and counts the funnel that led to them.

No segment stays in memory while the drifters are read: its track, a kilobyte, and its labels go to a scratch file.
Planning reads the labels back, 55 bytes a segment; making a shard reads the tracks of that shard.
"""

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int8, Int32, Int64, Shaped
from tqdm import tqdm

from driftcal.preprocess.drift import segments
from driftcal.preprocess.drift.clock import Clock
from driftcal.preprocess.recipe import Recipe
from driftcal.preprocess.sources.drifters.drifters import Drifters
from driftcal.shared.disk import durable
from driftcal.shared.disk.crash_points import reached

_LABELS = (
    ("drifter", np.int32, ()),
    ("source", np.int8, ()),
    ("start_time", np.int64, ()),
    ("origin", np.float64, (2,)),
    ("extent", np.float32, (2, 2)),
    ("drogue", np.int8, ()),
    ("source_row", np.int64, ()),
    ("aground", np.bool_, ()),
)
"""Labels of a candidate segment: name, dtype and shape."""

MANY_FAST = 0.05
"""Share of the fixes that may be left over beside fast steps before it is warned of."""

AT_ONCE = 4096
"""Segments read back at once."""


def record(n_obs: int) -> np.dtype:
    """Record of one segment in the scratch file.

    First the track `positions`, float32 `(obs, 2)` lon, lat [degrees] relative to its origin; then the labels.
    """
    return np.dtype([("positions", np.float32, (n_obs, 2)), *_LABELS])


@dataclass(frozen=True)
class Survey:
    """All candidate segments of all sources, and the funnel that led to them.

    The arrays are those of `segments.Segments`, of all sources, without `positions`: those are in the scratch file
    in the same order. `drifter` is the position in `drifters`, `extent` is `(n, 2, 2)`: least and greatest (lon, lat)
    relative to the origin [degrees].
    """

    drifters: list[str]
    drifter: Int32[np.ndarray, " n"]
    source: Int[np.ndarray, " n"]
    start_time: Int64[np.ndarray, " n"]
    origin: Float64[np.ndarray, "n 2"]
    extent: Float32[np.ndarray, "n 2 2"]
    drogue: Int8[np.ndarray, " n"]
    source_row: Int64[np.ndarray, " n"]
    aground: Bool[np.ndarray, " n"]
    kept: Counter
    dropped: Counter
    notes: tuple[str, ...] = ()
    """Changes made to fixes to bring them to a regular clock."""
    continued: int = 0
    """Trajectories that go on in another file."""


def survey(recipe: Recipe, sources: list[Drifters], scratch: Path, progress: bool) -> Survey:
    """Reads every source once and writes the candidates, tracks and labels, to the file `scratch`.

    Raises:
        DataError: a source cannot be used, or its fixes are further apart than the recipe says.
        StoreError: the scratch file cannot be written.
        OSError: it cannot be read again, or is gone since.
    """
    names: dict[str, int] = {}
    kept, dropped, notes, n = Counter(), Counter(), [], 0
    bar = tqdm(
        total=sum(s.n_fixes for s in sources), unit="fix", unit_scale=True, desc="drifters", disable=not progress
    )
    with durable.scratch(scratch) as put, bar:
        for number, (spec, source) in enumerate(zip(recipe.drifters, sources, strict=True)):
            clock = Clock(recipe.segment, spec)
            for fixes in source.blocks():
                for cut in segments.cut(clock.regular(fixes), spec, recipe.segment, source.has_drogue):
                    drifter = [names.setdefault(fixes.drifter[row], len(names)) for row in cut.row.tolist()]
                    content = _records(cut, number, drifter).tobytes()
                    put(content[: len(content) // 2])
                    reached("tracks: half written")
                    put(content[len(content) // 2 :])
                    kept.update(cut.kept)
                    dropped.update(cut.dropped)
                    n += len(cut)
                bar.update(len(fixes.time))
            clock.check()
            notes += clock.notes()
    reached("tracks: written")
    return Survey(
        list(names),
        kept=kept,
        dropped=dropped,
        notes=tuple(notes),
        continued=sum(source.continued for source in sources),
        **_read_labels(scratch, n, recipe.segment.n_obs),
    )


def warnings(candidates: Survey) -> list[str]:
    """Warnings of losses that bias the result without being errors: many fixes left out because they are fast."""
    fast, of = candidates.dropped[segments.TOO_FAST], candidates.kept["gap-free"]
    if fast <= MANY_FAST * of:
        return []
    return [
        f"WARNING: {fast} of {of} fixes are left over beside a step faster than drifters.max_speed. If such speeds are "
        "real, to leave them out biases the constant low: raise drifters.max_speed. Else positions are wrong, or one "
        "id stands for several drifters: check drifters.variables.id"
    ]


def _records(cut: segments.Segments, source: int, drifter: list[int]) -> Shaped[np.ndarray, " n"]:
    """The segments of one block as the scratch file has them."""
    out = np.empty(len(cut), record(cut.positions.shape[1]))
    out["source"], out["drifter"] = source, drifter
    # numpy reduces a last axis of many fixes much faster than a middle one beside two components
    tracks = np.ascontiguousarray(np.moveaxis(cut.positions, -1, 0))
    out["extent"][:, 0], out["extent"][:, 1] = tracks.min(axis=-1).T, tracks.max(axis=-1).T
    for name in ("positions", "start_time", "origin", "drogue", "source_row", "aground"):
        out[name] = getattr(cut, name)
    return out


def _read_labels(scratch: Path, n: int, n_obs: int) -> dict[str, Shaped[np.ndarray, "n ..."]]:
    """The labels of the `n` segments of the scratch file."""
    labels = {name: np.empty((n, *shape), dtype) for name, dtype, shape in _LABELS}
    with scratch.open("rb") as file:
        for first in range(0, n, AT_ONCE):
            block = np.fromfile(file, record(n_obs), min(AT_ONCE, n - first))
            if len(block) < min(AT_ONCE, n - first):
                raise OSError(f"{scratch} ends before segment {first + len(block)}")
            for name, values in labels.items():
                values[first : first + len(block)] = block[name]
    return labels


def read_records(scratch: Path, n_obs: int, index: Int[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Segments of the survey, `(n,)` of `record`.

    They are read and not memory-mapped: the pages of a map would count as this process's memory, all of the record.
    Neighbours, such as the segments of one drifter that follow each other, are read at once.

    Args:
        scratch: File of the survey.
        n_obs: Fixes of a track.
        index: Numbers of the segments, `(n,)`.

    Raises:
        OSError: the file cannot be read, or ends too early.
    """
    order = np.argsort(index, kind="stable")
    ascending = index[order]
    records = np.empty(len(index), record(n_obs))
    room, size = records.view(np.uint8).data, records.itemsize
    runs = np.flatnonzero(np.diff(ascending, prepend=-2, append=-2) != 1)
    with scratch.open("rb", buffering=0) as file:
        for first, stop in itertools.pairwise(runs.tolist()):
            left = room[first * size : stop * size]
            file.seek(int(ascending[first]) * size)
            while len(left):  # a network file system may give less than was asked for
                got = file.readinto(left)
                if not got:
                    raise OSError(f"{scratch} ends before segment {ascending[stop - 1 - (len(left) - 1) // size]}")
                left = left[got:]
    out = np.empty_like(records)
    out[order] = records
    return out
