"""A build, one store to be made: its folder, sources, plan and cost."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from driftcal.preprocess.drift import windows
from driftcal.preprocess.drift.plan import Plan, take
from driftcal.preprocess.recipe import DAY, Recipe
from driftcal.preprocess.sources.gridded.currents import Currents, land_levels
from driftcal.preprocess.sources.gridded.level_cache import Levels
from driftcal.preprocess.sources.gridded.remarks import Odd, pairs
from driftcal.preprocess.writing.shard_task import Pending, ShardTask
from driftcal.shared.store.agreement import Agreement
from driftcal.shared.store.unfinished import Begun


@dataclass(frozen=True)
class Build:
    """One store to be made.

    Attributes:
        store: Folder of the store.
        recipe: The manifest.
        plan: The place of every sample.
        drifters: Names of the drifters.
        currents: The opened sources of currents.
        levels: Cache of their decoded levels.
        scratch: File of the survey, with the tracks and labels of the plan's candidates.
        sources: Fingerprints of the sources, by kind.
        states: Their sizes and times of change, likewise.
        agreement: Figures of currents against drifters.
        notes: Notes on what was resolved, assumed and repaired on the way.
    """

    store: Path
    recipe: Recipe
    plan: Plan
    drifters: list[str]
    currents: list[Currents]
    levels: Levels
    scratch: Path
    sources: dict[str, Any]
    states: dict[str, Any]
    agreement: Agreement
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """Sources and shape of the store, as JSON."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "sources": self.sources,
            "layout": self.plan.layout.as_json(),
        }

    @property
    def begun(self) -> Begun:
        """Description of what the store is made from, as an unfinished store keeps it."""
        return Begun(
            recipe=self.facts["recipe"],
            sources=self.sources,
            states=self.states,
            layout=self.plan.layout,
            driftcal_version=version("driftcal"),
        )

    @property
    def foreseen(self) -> list[str]:
        """Remarks on the levels of currents that planning has read."""
        return [note for source in self.currents for note in source.notes_on(land_levels(source.time))]

    def remarks(self, odd: Mapping[int, Odd]) -> list[str]:
        """Notes on oddities of the levels that the samples need, by the number of their source."""
        needed = self.needed(range(self.plan.layout.n_samples))
        return [
            note
            for number, of_source in sorted(odd.items())
            for note in of_source.notes(self.currents[number].where, len(needed[number]), pairs(needed[number]))
        ]

    def pending(self, shards: list[int], lock: Path, together: bool) -> list[Pending]:
        """The `shards` to be written, as long as the file `lock` is there.

        `together` says that they are made in this process, which keeps the levels that several of them need, and those
        that planning has left.
        """
        layout, wanted, days = self.plan.layout, [], []
        for shard in shards:
            samples = layout.samples_of(shard)
            for number, levels in self.needed(samples).items():
                wanted += self.currents[number].keys(levels) if together else []
            days.append(float(np.ptp(self.plan.placement.time[samples.start : samples.stop]) + layout.time_step) / DAY)
        self.levels.expect(wanted)
        return [Pending(k, n, functools.partial(self.task, k, lock)) for k, n in zip(shards, days, strict=True)]

    def needed(self, samples: range) -> dict[int, Int[np.ndarray, " levels"]]:
        """The levels of each source that the samples `samples` need, ascending."""
        level, current = (
            values[samples.start : samples.stop] for values in (self.plan.placement.level, self.plan.current)
        )
        levels = {}
        for number in np.unique(current).tolist():
            n_times = 1 if self.currents[number].frozen else self.plan.shape.n_times
            levels[number] = windows.needed(level[current == number], n_times)
        return levels

    def task(self, shard: int, lock: Path) -> ShardTask:
        """The task that writes `shard`, as long as the file `lock` is there."""
        plan = self.plan
        samples = plan.layout.samples_of(shard)
        part = slice(samples.start, samples.stop)
        candidate, current = plan.candidate[part], plan.current[part]
        placement = take(plan.placement, np.arange(samples.start, samples.stop))
        level = placement.level.copy()
        land = np.empty((len(candidate), -(-plan.shape.n_lat * plan.shape.n_lon // 8)), np.uint8)
        currents = {}
        for number, needed in self.needed(samples).items():
            of_source, source = np.flatnonzero(current == number), self.currents[number]
            dry = windows.masked_always(take(placement, of_source), plan.shape, source)
            land[of_source] = np.packbits(dry.reshape(len(of_source), -1), axis=1)
            currents[number] = source.part(needed)
            level[of_source] -= needed[0]
        return ShardTask(
            store=self.store.absolute(),  # workers of a cluster may stand elsewhere
            number=shard,
            layout=plan.layout,
            shape=plan.shape,
            currents=currents,
            current=current,
            placement=replace(placement, level=level),
            land=land,
            lock=lock.absolute(),
            scratch=self.scratch.absolute(),
            candidate=candidate,
            labels={
                "window_time": placement.time,
                "window_corner": placement.corner,
                "split": plan.split[part],
            },
        )
