"""One pass over the drifters: every candidate segment, and the funnel that led to it.

A survey holds about 100 bytes a segment; the tracks themselves, a kilobyte each, go to a scratch file.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from preprocess import segments
from preprocess.drifters import Drifters
from preprocess.recipe import Recipe
from shared import durable
from shared.crashpoints import reached
from shared.errors import DataError


@dataclass
class Survey:
    """All candidate segments of all sources, and the funnel that led to them.

    The arrays are those of `segments.Segments`, of all sources, without `positions`: those are in the scratch file
    in the same order. `extent` is `(n, 2, 2)`: least and greatest (lon, lat) relative to the origin [degrees].
    """

    drifters: list[str] = field(default_factory=list)
    drifter: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    source: np.ndarray = field(default_factory=lambda: np.empty(0, np.int8))
    start_time: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    origin: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    extent: np.ndarray = field(default_factory=lambda: np.empty((0, 2, 2)))
    drogue: np.ndarray = field(default_factory=lambda: np.empty(0, np.int8))
    source_row: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    aground: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    kept: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)


def survey(recipe: Recipe, sources: list[Drifters], scratch: Path, progress: bool) -> Survey:
    """Reads every source once and writes the candidate tracks to `scratch`, float32 `(n, obs, 2)` [degrees].

    Raises:
        DataError: a source cannot be used, or its fixes are further apart than the recipe says.
        StoreError: the scratch file cannot be written.
    """
    names: dict[str, int] = {}
    found = Survey()
    parts: dict[str, list[np.ndarray]] = {k: [] for k in _LABELS}
    total = sum(s.n_fixes for s in sources)
    bar = tqdm(total=total, unit="fix", unit_scale=True, desc="drifters", disable=not progress)
    try:
        with durable.stream(scratch) as put, bar:
            for number, (spec, source) in enumerate(zip(recipe.drifters, sources, strict=True)):
                steps: Counter = Counter()
                for fixes in source.blocks():
                    steps[segments.typical_step(fixes)] += 1
                    cut = segments.cut(fixes, spec, recipe.segment, source.has_drogue)
                    content = cut.positions.tobytes()
                    put(content[: len(content) // 2])
                    reached("tracks: half written")
                    put(content[len(content) // 2 :])
                    _add(found, parts, cut)
                    parts["source"].append(np.full(len(cut), number, np.int8))
                    parts["drifter"].append(
                        np.array([names.setdefault(fixes.drifter[int(r)], len(names)) for r in cut.row], np.int32)
                    )
                    bar.update(len(fixes.time))
                _check_step(recipe, spec.path, steps)
        reached("tracks: written")
    except OSError as error:
        raise durable.cannot_write(scratch, error) from error
    for name, arrays in parts.items():
        setattr(found, name, np.concatenate(arrays))
    found.drifters = list(names)
    return found


def _add(found: Survey, parts: dict[str, list[np.ndarray]], cut: segments.Segments) -> None:
    found.kept.update(cut.kept)
    found.dropped.update(cut.dropped)
    extent = np.stack([cut.positions.min(axis=1), cut.positions.max(axis=1)], axis=1)
    parts["extent"].append(extent.astype(np.float64))
    for name in ("start_time", "origin", "drogue", "source_row", "aground"):
        parts[name].append(getattr(cut, name))


_LABELS = ("drifter", "source", "start_time", "origin", "extent", "drogue", "source_row", "aground")


def _check_step(recipe: Recipe, path: str, steps: Counter) -> None:
    step = steps.most_common(1)[0][0] if steps else None
    if step is not None and step != recipe.segment.step:
        raise DataError(
            f"drifters {path}: fixes are mostly {step} s apart, but segment.step is {recipe.segment.step} s. "
            f"Set segment.step: {step}s, or resample the drifters."
        )


def read_tracks(scratch: Path, n_obs: int, index: np.ndarray) -> np.ndarray:
    """Tracks of the survey, float32 `(n, obs, 2)` (lon, lat) [degrees] relative to their origins.

    They are read and not memory-mapped: the pages of a map would count as this process's memory, all of the record.

    Args:
        scratch: File of the survey.
        n_obs: Fixes of a track.
        index: Which ones, `(n,)`.

    Raises:
        OSError: the file cannot be read, or ends too early.
    """
    out = np.empty((len(index), n_obs, 2), np.float32)
    with scratch.open("rb", buffering=0) as file:
        for track, place in zip(out, index.tolist(), strict=True):
            file.seek(place * out[0].nbytes)
            if file.readinto(track.data) != track.nbytes:
                raise OSError(f"{scratch} ends before track {place}")
    return out
