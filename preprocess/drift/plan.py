"""The plan of a store: the place of every sample, computed before anything is written.

`plan` gives every candidate segment a window, a split and a place in the store, or drops it for a counted reason.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int8, Int64, Shaped

from driftcal.preprocess.drift import advice, splits, windows
from driftcal.preprocess.drift.candidates import Survey, read_records
from driftcal.preprocess.drift.funnel import AGROUND, DUPLICATE, OUTSIDE_DATES, POLEWARD, REASONS, explain, stages
from driftcal.preprocess.recipe import Recipe
from driftcal.preprocess.sources.gridded.currents import Currents
from driftcal.shared.errors import ConfigError, DataError
from driftcal.shared.store.manifest import Stage
from driftcal.shared.store.schema import SPLITS, Layout

AT_ONCE = 16_384
"""Segments placed at once: their temporaries stay small."""


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
        warnings: Losses of more than half for one reason, each with a remedy.
    """

    layout: Layout
    shape: windows.Shape
    candidate: Int64[np.ndarray, " n"]
    current: Int8[np.ndarray, " n"]
    placement: windows.Placement
    split: Int8[np.ndarray, " n"]
    split_counts: dict[str, tuple[int, int]]
    funnel: tuple[Stage, ...]
    warnings: tuple[str, ...]

    @property
    def n_candidates(self) -> int:
        """Number of segments that the plan chose from."""
        segments = next(stage for stage in self.funnel if stage.name == "segments")
        return segments.kept + sum(segments.dropped.values())


def plan(recipe: Recipe, survey: Survey, scratch: Path, currents: list[Currents]) -> Plan:
    """Gives every usable segment of `survey` (tracks in `scratch`) a window, a split and a place.

    Raises:
        ConfigError: the sources of currents do not share a grid, the window is smaller than the drifters' reach, or a
            split that was asked for is empty.
        DataError: no segment is left.
    """
    _check_grids(recipe, currents)
    reason = _unusable(recipe, survey)
    usable = np.flatnonzero(reason == 0)
    shape = windows.shape_of(
        recipe.window.half_width_deg, _widest(recipe, survey, usable, currents), recipe.segment.days, currents[0]
    )
    placement, current = _place(recipe, survey, currents, shape, usable)
    _refuse_land(placement, current, functools.partial(read_records, scratch, recipe.segment.n_obs), usable, currents)
    reason[usable] = placement.reason
    funnel = stages(survey, reason)
    situation = advice.Situation(recipe, survey, reason, currents, shape)
    _check_reach(recipe, survey, usable, placement)
    keep = placement.reason == 0
    if not keep.any():
        raise DataError(f"no sample is left. {explain(funnel)} {advice.no_sample(funnel, situation)}")
    order = _order(survey, usable[keep], recipe)
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
    split = splits.of_drifters(recipe, survey.drifters)[survey.drifter[usable[chosen]]]
    splits.check(recipe, split, survey.drifter[usable[chosen]], explain(funnel))
    counts = {
        name: (int((split == k).sum()), len(np.unique(survey.drifter[usable[chosen[split == k]]])))
        for k, name in enumerate(SPLITS)
        if getattr(recipe.split, name)
    }
    return Plan(
        layout,
        shape,
        usable[chosen],
        current[chosen],
        take(placement, chosen),
        split,
        counts,
        funnel,
        tuple(advice.warnings(funnel, situation)),
    )


def take(placement: windows.Placement, index: Shaped[np.ndarray, " n"]) -> windows.Placement:
    """The windows `index` of `placement`."""
    return windows.Placement(*(getattr(placement, name)[index] for name in placement.__dataclass_fields__))


def _widest(recipe: Recipe, survey: Survey, usable: Int[np.ndarray, " n"], currents: list[Currents]) -> float:
    """The latitude [degrees, without sign] for which windows must be wide enough: the furthest that has currents.

    Drifters beyond the currents have no window, so they must not widen those of the others.
    """
    lat = windows.centre_of(survey.origin[usable, 1], survey.extent[usable, :, 1])
    half, covered = recipe.window.half_width_deg, np.zeros(len(lat), bool)
    for grid in currents:
        south, north = grid.lat.start, grid.lat.start + (grid.lat.size - 1) * grid.lat.step
        covered |= (lat >= south + half - 1e-6) & (lat <= north - half + 1e-6)
    return float(np.abs(lat[covered]).max(initial=0.0))


def _unusable(recipe: Recipe, survey: Survey) -> Int8[np.ndarray, " n"]:
    """Reason for which each candidate cannot be a sample whatever the currents, an index in `REASONS`; int8."""
    reason = np.zeros(len(survey.drifter), np.int8)
    latitude = np.abs(windows.centre_of(survey.origin[:, 1], survey.extent[:, :, 1]))
    reason[latitude > recipe.window.max_latitude] = REASONS.index(POLEWARD)
    if recipe.period.start:
        reason[survey.start_time < _seconds(recipe.period.start)] = REASONS.index(OUTSIDE_DATES)
    if recipe.period.end:
        reason[survey.start_time >= _seconds(recipe.period.end)] = REASONS.index(OUTSIDE_DATES)
    order = np.lexsort((survey.start_time, survey.drifter))  # stable: of duplicates the first stays first
    again = (np.diff(survey.drifter[order]) == 0) & (np.diff(survey.start_time[order]) == 0)
    reason[order[1:][again]] = REASONS.index(DUPLICATE)
    reason[survey.aground] = REASONS.index(AGROUND)
    return reason


def _seconds(day: str) -> int:
    return int(np.datetime64(day, "s").astype(np.int64))


def _place(
    recipe: Recipe, survey: Survey, currents: list[Currents], shape: windows.Shape, usable: Int[np.ndarray, " n"]
) -> tuple[windows.Placement, Int8[np.ndarray, " n"]]:
    """Windows on the first source of currents that has one for the segment; reasons are those of the first."""
    duration = recipe.segment.n_steps * recipe.segment.step
    placement, current = windows.Placement.empty(len(usable)), np.zeros(len(usable), np.int8)
    for first in range(0, len(usable), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        index = usable[part]
        arguments = survey.start_time[index], duration, survey.origin[index], survey.extent[index], shape
        for number, source in enumerate(currents):
            there = windows.place(*arguments, source)
            better = (placement.reason[part] != 0) & (there.reason == 0) if number else slice(None)
            for name in placement.__dataclass_fields__:
                getattr(placement, name)[part][better] = getattr(there, name)[better]
            current[part][better] = number
    return placement, current


def _refuse_land(
    placement: windows.Placement,
    current: Int8[np.ndarray, " n"],
    read: Callable[[Int[np.ndarray, " m"]], Shaped[np.ndarray, " m"]],
    usable: Int[np.ndarray, " n"],
    currents: list[Currents],
) -> None:
    """Refuses tracks with a fix in a cell that has no current at any of its corners in the whole record."""
    for number, grid in enumerate(currents):
        closed = windows.closed_cells(grid)
        of_grid = np.flatnonzero((current == number) & (placement.reason == 0))
        for block in np.array_split(of_grid, max(1, len(of_grid) // 4096)):
            track = read(usable[block])
            lonlat = track["origin"][:, None] + track["positions"].astype(np.float64)
            placement.reason[block[windows.enters(closed, lonlat, grid)]] = REASONS.index(windows.ON_LAND)


def _order(survey: Survey, kept: Int[np.ndarray, " n"], recipe: Recipe) -> Int[np.ndarray, " n"]:
    """Order of the samples: by start time, then permuted within each shard (so that a run of samples is mixed)."""
    order = np.lexsort((survey.source_row[kept], survey.drifter[kept], survey.start_time[kept]))
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


def _check_reach(recipe: Recipe, survey: Survey, usable: Int[np.ndarray, " n"], placement: windows.Placement) -> None:
    """Refuses a window that too many tracks leave: to drop the fast ones biases the constant low."""
    leaves = placement.reason == REASONS.index(windows.TRACK_LEAVES)
    covered = (placement.reason == 0) | leaves | (placement.reason == REASONS.index(windows.ON_LAND))
    if leaves.sum() > recipe.window.max_leaving * covered.sum():
        usable = usable[covered]
        half = np.ptp(survey.extent[usable].astype(np.float64), axis=1) / 2
        half[:, 0] *= np.cos(np.radians(survey.origin[usable, 1]))
        raise ConfigError(
            f"window.half_width_deg is {recipe.window.half_width_deg:g}, smaller than the drifters' reach: "
            f"{int(leaves.sum())} of {len(usable)} tracks leave their window in {recipe.segment.days:g} days, more "
            f"than window.max_leaving ({recipe.window.max_leaving:g}); to drop the fast ones would bias the constant. "
            f"Set window.half_width_deg to {np.ceil(10 * np.quantile(half.max(axis=1), 0.999)) / 10:g} or more (999 in "
            f"1000 tracks fit then), or shorten segment.days."
        )
