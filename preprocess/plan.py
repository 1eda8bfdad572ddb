"""Which sample goes where: a value computed before anything is written.

`plan` gives every segment that a survey found a window, a split and a place in the store.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess import segments, windows
from preprocess.currents import Currents
from preprocess.recipe import Recipe
from preprocess.survey import Survey, read_tracks
from shared.errors import ConfigError, DataError
from shared.manifest import Stage
from shared.schema import SPLITS, Layout

POLEWARD = "poleward of window.max_latitude"
AGROUND = "aground for a day or more"
DUPLICATE = "the same drifter and start twice"
OUTSIDE_DATES = "outside the manifest's period"


@dataclass(frozen=True)
class Plan:
    """Every sample's place. Arrays have the sample as first axis, in the order of the store.

    Attributes:
        layout: The store's shape.
        shape: The window's shape.
        candidate: Index of the sample's segment in the survey and in the scratch file, int64.
        current: Index of the source of currents that covers it, int8.
        placement: The windows, on that source's grid.
        split: Index in `schema.SPLITS`, int8.
        split_counts: Samples and drifters of every split.
        funnel: The stages up to here; the last one is completed when the windows have been cut.
    """

    layout: Layout
    shape: windows.Shape
    candidate: np.ndarray
    current: np.ndarray
    placement: windows.Placement
    split: np.ndarray
    split_counts: dict[str, tuple[int, int]]
    funnel: tuple[Stage, ...]


def plan(recipe: Recipe, found: Survey, scratch: Path, currents: list[Currents]) -> Plan:
    """Gives every usable segment of `found` (tracks in `scratch`) a window, a split and a place.

    Raises:
        ConfigError: the sources of currents do not share a grid, the window is smaller than the drifters' reach, or a
            split that was asked for is empty.
        DataError: no segment is left.
    """
    _check_grids(recipe, currents)
    reason = _unusable(recipe, found)
    usable = np.flatnonzero(reason == "")
    shape = windows.shape_of(
        recipe.window.half_width_deg, _widest(recipe, found, usable, currents), recipe.segment.days, currents[0]
    )
    placement, current = _place(recipe, found, currents, shape, usable)
    _refuse_land(
        placement, current, functools.partial(read_tracks, scratch, recipe.segment.n_obs), usable, found, currents
    )
    reason[usable] = placement.reason
    segments_kept = int(np.sum(~np.isin(reason, [AGROUND, DUPLICATE, OUTSIDE_DATES])))
    dropped = Counter(reason[reason != ""])
    funnel = (
        Stage("fixes", "fixes", found.kept["fixes"], _only(found.dropped, exclude=_LATER)),
        Stage("drogued", "fixes", found.kept["drogued"], _only(found.dropped, _DROGUE)),
        Stage("gap-free", "fixes", found.kept["gap-free"], _only(found.dropped, _GAP)),
        Stage(
            "in whole segments",
            "fixes",
            found.kept["gap-free"] - sum(found.dropped[why] for why in segments.LEFT_OVER),
            _only(found.dropped, segments.LEFT_OVER),
        ),
        Stage("segments", "segments", segments_kept, _only(dropped, (AGROUND, DUPLICATE, OUTSIDE_DATES))),
        Stage(
            "inside the record",
            "segments",
            int(np.sum(reason == "")),
            _only(dropped, exclude=(AGROUND, DUPLICATE, OUTSIDE_DATES)),
        ),
    )
    _check_reach(recipe, found, usable, placement)
    keep = placement.reason == ""
    if not keep.any():
        raise DataError(f"no sample is left. {explain(funnel)} {_hint(recipe, found, currents, shape)}")
    order = _order(found, usable[keep], recipe)
    chosen = np.flatnonzero(keep)[order]
    layout = Layout(
        n_samples=len(chosen),
        n_obs=recipe.segment.n_obs,
        n_times=shape.n_times,
        n_lat=shape.n_lat,
        n_lon=shape.n_lon,
        obs_step=recipe.segment.step,
        time_step=currents[0].step,
        lat_step=currents[0].lat.step,
        lon_step=currents[0].lon.step,
        samples_per_shard=min(recipe.store.samples_per_shard, len(chosen)),
        compression=recipe.store.compression,
    )
    split = splits(recipe, found.drifters)[found.drifter[usable[chosen]]]
    _check_splits(recipe, split, found.drifter[usable[chosen]])
    counts = {
        name: (int((split == k).sum()), len(np.unique(found.drifter[usable[chosen[split == k]]])))
        for k, name in enumerate(SPLITS)
        if getattr(recipe.split, name)
    }
    return Plan(layout, shape, usable[chosen], current[chosen], take(placement, chosen), split, counts, funnel)


_DROGUE = ("drogue lost", "drogue on", "drogue unknown")
_GAP = ("gap between satellite fixes",)
_LATER = (*_DROGUE, *_GAP, *segments.LEFT_OVER)


def _only(counts: Counter, names: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> dict[str, int]:
    return {str(k): int(n) for k, n in sorted(counts.items()) if n and (k in names or (not names and k not in exclude))}


def explain(funnel: tuple[Stage, ...]) -> str:
    """The funnel in one sentence."""
    parts = []
    for stage in funnel:
        why = ", ".join(f"{n} {reason}" for reason, n in stage.dropped.items())
        parts.append(f"{stage.name}: {stage.kept} {stage.unit}" + (f" (dropped: {why})" if why else ""))
    return "; ".join(parts) + "."


def take(placement: windows.Placement, index: np.ndarray) -> windows.Placement:
    """The windows `index` of `placement`."""
    return windows.Placement(*(getattr(placement, name)[index] for name in placement.__dataclass_fields__))


def splits(recipe: Recipe, drifters: list[str]) -> np.ndarray:
    """Split of every drifter, an index in `schema.SPLITS`, int8: by a hash of its name, never by row.

    A drifter keeps its split when others are added. Only the fractions and the seed decide.
    """
    edges = np.cumsum([getattr(recipe.split, name) for name in SPLITS])
    uniform = [
        int.from_bytes(hashlib.sha256(f"{recipe.split.seed}\0{name}".encode()).digest()[:7], "big") / 2**56
        for name in drifters
    ]
    # fractions of 0 have an empty interval; the last edge is 1 up to rounding
    edges[np.flatnonzero([getattr(recipe.split, name) for name in SPLITS])[-1] :] = 1.0
    return np.searchsorted(edges, uniform, side="right").astype(np.int8)


def _check_splits(recipe: Recipe, split: np.ndarray, drifter: np.ndarray) -> None:
    asked = [name for name in SPLITS if getattr(recipe.split, name)]
    empty = [name for name in asked if not (split == SPLITS.index(name)).any()]
    if empty:
        fractions = ", ".join(f"{name}: {getattr(recipe.split, name):g}" for name in SPLITS)
        raise ConfigError(
            f"split {{{fractions}}} leaves {' and '.join(empty)} empty: the samples come from "
            f"{len(np.unique(drifter))} drifters. Give the whole to the others (such as --set split.train=1 "
            f"--set split.validation=0 --set split.test=0), try another split.seed, or use more drifters."
        )


def _widest(recipe: Recipe, found: Survey, usable: np.ndarray, currents: list[Currents]) -> float:
    """The latitude [degrees, without sign] for which windows must be wide enough: the furthest that has currents.

    Drifters beyond the currents have no window, so they must not widen those of the others.
    """
    lat = found.origin[usable, 1] + found.extent[usable, :, 1].mean(axis=1)
    half, covered = recipe.window.half_width_deg, np.zeros(len(lat), bool)
    for grid in currents:
        south, north = grid.lat.start, grid.lat.start + (grid.lat.size - 1) * grid.lat.step
        covered |= (lat >= south + half - 1e-6) & (lat <= north - half + 1e-6)
    return float(np.abs(lat[covered]).max(initial=0.0))


def _unusable(recipe: Recipe, found: Survey) -> np.ndarray:
    """Why each candidate cannot be a sample whatever the currents, "" where it can; object array."""
    reason = np.full(len(found.drifter), "", object)
    centre_lat = np.abs(found.origin[:, 1] + found.extent[:, :, 1].mean(axis=1))
    reason[centre_lat > recipe.window.max_latitude] = POLEWARD
    if recipe.period.start:
        reason[found.start_time < _seconds(recipe.period.start)] = OUTSIDE_DATES
    if recipe.period.end:
        reason[found.start_time >= _seconds(recipe.period.end)] = OUTSIDE_DATES
    pairs = np.stack([found.drifter.astype(np.int64), found.start_time], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True) if len(pairs) else (None, np.empty(0, np.int64))
    again = np.ones(len(pairs), bool)
    again[first] = False
    reason[again] = DUPLICATE
    reason[found.aground] = AGROUND
    return reason


def _seconds(day: str) -> int:
    return int(np.datetime64(day, "s").astype(np.int64))


def _place(
    recipe: Recipe, found: Survey, currents: list[Currents], shape: windows.Shape, usable: np.ndarray
) -> tuple[windows.Placement, np.ndarray]:
    """Windows on the first source of currents that has one for the segment; reasons are those of the first."""
    duration = recipe.segment.n_steps * recipe.segment.step
    arguments = found.start_time[usable], duration, found.origin[usable], found.extent[usable], shape
    placement = windows.place(*arguments, currents[0])
    current = np.zeros(len(usable), np.int8)
    for number, other in enumerate(currents[1:], start=1):
        again = windows.place(*arguments, other)
        better = (placement.reason != "") & (again.reason == "")
        for name in placement.__dataclass_fields__:
            getattr(placement, name)[better] = getattr(again, name)[better]
        current[better] = number
    return placement, current


def _refuse_land(
    placement: windows.Placement,
    current: np.ndarray,
    tracks: Callable[[np.ndarray], np.ndarray],
    usable: np.ndarray,
    found: Survey,
    currents: list[Currents],
) -> None:
    """Refuses tracks with a fix in a cell that has no current at any of its corners in the whole record."""
    for number, grid in enumerate(currents):
        closed = windows.closed_cells(grid)
        of_grid = np.flatnonzero((current == number) & (placement.reason == ""))
        for block in np.array_split(of_grid, max(1, len(of_grid) // 4096)):
            lonlat = found.origin[usable[block], None] + tracks(usable[block]).astype(np.float64)
            placement.reason[block[windows.enters(closed, lonlat, grid)]] = windows.ON_LAND


def _order(found: Survey, kept: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Order of the samples: by start time, then permuted within each shard (so that a run of samples is mixed)."""
    order = np.lexsort((found.source_row[kept], found.drifter[kept], found.start_time[kept]))
    size = recipe.store.samples_per_shard
    for shard in range(-(-len(order) // size)):
        part = order[shard * size : (shard + 1) * size]
        part[:] = np.random.default_rng([recipe.split.seed, shard]).permutation(part)
    return order


def _check_grids(recipe: Recipe, currents: list[Currents]) -> None:
    first = currents[0]
    for spec, other in zip(recipe.currents, currents, strict=True):
        same = np.isclose([other.lat.step, other.lon.step], [first.lat.step, first.lon.step], rtol=1e-4).all()
        if not same or other.step != first.step:
            raise ConfigError(
                f"currents {spec.path}: steps of {other.step} s, {other.lat.step:g} x {other.lon.step:g} degrees, but "
                f"{recipe.currents[0].path} has {first.step} s, {first.lat.step:g} x {first.lon.step:g}. One store "
                f"has one grid spacing: make two stores, or regrid."
            )


def _check_reach(recipe: Recipe, found: Survey, usable: np.ndarray, placement: windows.Placement) -> None:
    """Refuses a window that too many tracks leave: to drop the fast ones biases the constant low."""
    leaves = placement.reason == windows.TRACK_LEAVES
    covered = np.isin(placement.reason, ["", windows.TRACK_LEAVES, windows.ON_LAND])
    if leaves.sum() > recipe.window.max_leaving * covered.sum():
        usable = usable[covered]
        half = np.ptp(found.extent[usable], axis=1) / 2
        half[:, 0] *= np.cos(np.radians(found.origin[usable, 1]))
        raise ConfigError(
            f"window.half_width_deg is {recipe.window.half_width_deg:g}, smaller than the drifters' reach: "
            f"{int(leaves.sum())} of {len(usable)} tracks leave their window in {recipe.segment.days:g} days, more "
            f"than window.max_leaving ({recipe.window.max_leaving:g}); to drop the fast ones would bias the constant. "
            f"Set window.half_width_deg to {np.ceil(10 * np.quantile(half.max(axis=1), 0.999)) / 10:g} or more (999 in "
            f"1000 tracks fit then), or shorten segment.days."
        )


def _box(lon: np.ndarray, lat: np.ndarray) -> str:
    return f"lon {lon.min():.2f} to {lon.max():.2f}, lat {lat.min():.2f} to {lat.max():.2f}"


def _hint(recipe: Recipe, found: Survey, currents: list[Currents], shape: windows.Shape) -> str:
    if not len(found.drifter):
        return f"No track holds {recipe.segment.days:g} whole days: lower segment.days, or look at what was dropped."
    grid = currents[0]
    start, stop = (np.datetime64(int(t), "s") for t in (found.start_time.min(), found.start_time.max()))
    first, last = (np.datetime64(int(t), "s") for t in (grid.time[0], grid.time[-1]))
    return (
        f"Segments start from {start} to {stop}, in {_box(found.origin[:, 0], found.origin[:, 1])}; the currents' "
        f"levels run from {first} to {last} and a window takes {shape.n_times} of them; their grid covers "
        f"{_box(grid.lon.values, grid.lat.values)} and a window takes {shape.n_lat * grid.lat.step:g} x "
        f"{shape.n_lon * grid.lon.step:g} degrees (lat x lon). Give currents that cover the drifters with that margin; "
        f"only if they nearly do, lower window.half_width_deg or segment.days. If the places look wrong, check "
        f"drifters.variables: lat and lon may be swapped."
    )
