"""Executes a plan: begins or continues a store, has its shards written, then the manifest, which comes last.

Running again skips the shards that are marked as done.
"""

import shutil
from collections import Counter
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from preprocess import windows
from preprocess.currents import Currents
from preprocess.plan import Plan, take
from preprocess.recipe import Recipe
from preprocess.shard import ShardTask, run
from preprocess.survey import Survey
from shared import chunks, command, manifest, schema, store_files
from shared.errors import ConfigError, StoreError
from shared.manifest import Begun, FileEntry, Manifest, Stage


@dataclass(frozen=True)
class Build:
    """One store to be made: where, from what, and by which plan.

    Attributes:
        store: Folder of the store.
        recipe: The manifest.
        plan: Which sample goes where.
        found: The segments that the plan chose from.
        currents: The opened sources of currents.
        scratch: File with the tracks of `found`.
        sources: Fingerprints of the sources, by kind.
        states: Their sizes and times of change, likewise.
        notes: What was resolved, assumed and repaired on the way.
    """

    store: Path
    recipe: Recipe
    plan: Plan
    found: Survey
    currents: list[Currents]
    scratch: Path
    sources: dict[str, Any]
    states: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """What the store is made from and its shape, as JSON."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "sources": self.sources,
            "layout": self.plan.layout.as_json(),
        }

    @property
    def estimate(self) -> dict[str, float]:
        """What the store will take: bytes on disk at most (before compression), and per shard in memory."""
        layout = self.plan.layout
        sample = sum(spec.sample_bytes for spec in schema.arrays(layout))
        return {
            "samples": layout.n_samples,
            "shards": layout.n_shards,
            "disk_bytes_at_most": layout.n_samples * sample,
            "memory_bytes_per_worker": 3 * layout.samples_per_shard * sample + windows.SUB_BLOCK_BYTES * 2,
        }

    def clear(self) -> None:
        """Deletes what the store holds, its manifest first, but not the scratch file."""
        (self.store / manifest.NAME).unlink(missing_ok=True)
        try:
            inside = (*self.store.iterdir(), *(self.store / manifest.STAGING).iterdir())
            for path in inside:
                if path.is_dir() and not path.is_symlink():
                    if path.name != manifest.STAGING:
                        shutil.rmtree(path)
                elif path != self.scratch:
                    path.unlink()
        except OSError as error:
            raise StoreError(
                f"cannot clear {self.store}: {error.filename}: {error.strerror}. If another run writes there, stop it."
            ) from error

    def write(self, share: tuple[int, int], scheduler: str, workers: int | None, progress: bool) -> bool:
        """Writes the k-th of N shares of the shards, and the manifest once every shard is there: then True.

        Raises:
            ConfigError: the store was begun, or finished, from something else.
            DriftcalError: a shard cannot be made.
        """
        if (self.store / manifest.NAME).exists():
            self._check_same()
            command.say(f"{self.store} is finished already: nothing to do.")
            shutil.rmtree(self.store / manifest.STAGING, ignore_errors=True)
            return True
        try:
            return self._write(share, scheduler, workers, progress)
        except StoreError:
            if (self.store / manifest.NAME).exists():
                return True  # another process finished it meanwhile, and took away what this one needed
            raise

    def _write(self, share: tuple[int, int], scheduler: str, workers: int | None, progress: bool) -> bool:
        """`write`, of a store that is not finished."""
        self._open()
        every = range(self.plan.layout.n_shards)
        k, n = share
        mine = every[k - 1 :: n]
        pending = [shard for shard in mine if not manifest.mark_of(self.store, shard).exists()]
        if len(pending) < len(mine):
            command.say(f"continuing: {len(mine) - len(pending)} of {len(mine)} shards are done.")
        run([self._task(shard) for shard in pending], scheduler, workers, progress)
        if not all(manifest.mark_of(self.store, shard).exists() for shard in every):
            return (self.store / manifest.NAME).exists()
        self._finish()
        return True

    def _check_same(self) -> None:
        held = manifest.read(self.store)
        facts = self.facts
        if (held.recipe, held.sources) != (facts["recipe"], facts["sources"]):
            raise ConfigError(
                f"{self.store} is a finished store made from another manifest or other sources. Choose another --out, "
                f"or replace it with --overwrite."
            )
        self._check_whole(held)

    def _check_whole(self, held: Manifest) -> None:
        for name, entry in held.files.items():
            path = self.store / name
            if not path.is_file() or path.stat().st_size != entry.size:
                raise StoreError(
                    f"{self.store} is a finished store and damaged: {name} is missing or has another size. Make it "
                    f"again with --overwrite."
                )

    def _open(self) -> None:
        """Starts or continues the store: what it was begun from must still be the same."""
        path = manifest.plan_of(self.store)
        now = Begun(
            recipe=self.facts["recipe"],
            sources=self.sources,
            states=self.states,
            layout=self.plan.layout,
            driftcal_version=version("driftcal"),
        )
        if not path.exists():
            manifest.write_file(path, manifest.to_bytes(now.as_json()))
            return
        held = manifest.read_begun(self.store)
        if manifest.to_bytes(held.as_json()) != manifest.to_bytes(now.as_json()):
            raise ConfigError(
                f"{self.store} was begun from another manifest or other sources (see {path}), so its shards cannot be "
                f"continued: {_difference(held, now)}. Choose another --out, or start afresh with --overwrite."
            )

    def _task(self, shard: int) -> ShardTask:
        """The task that writes `shard`."""
        plan, found = self.plan, self.found
        held = plan.layout.samples_of(shard)
        part = slice(held.start, held.stop)
        candidate, current = plan.candidate[part], plan.current[part]
        placement = take(plan.placement, np.arange(held.start, held.stop))
        level = placement.level.copy()
        land = np.empty((len(candidate), -(-plan.shape.n_lat * plan.shape.n_lon // 8)), np.uint8)
        currents = {}
        for number in np.unique(current).tolist():
            of_source, source = np.flatnonzero(current == number), self.currents[number]
            dry = windows.masked_always(take(placement, of_source), plan.shape, source)
            land[of_source] = np.packbits(dry.reshape(len(of_source), -1), axis=1)
            first = int(level[of_source].min())
            currents[number] = source.part(first, int(level[of_source].max()) + plan.shape.n_times)
            level[of_source] -= first
        return ShardTask(
            store=self.store,
            number=shard,
            layout=plan.layout,
            shape=plan.shape,
            currents=currents,
            current=current,
            placement=replace(placement, level=level),
            land=land,
            scratch=self.scratch,
            candidate=candidate,
            labels={
                "origin": found.origin[candidate],
                "start_time": found.start_time[candidate],
                "window_time": placement.time,
                "window_corner": placement.corner,
                "drifter": found.drifter[candidate],
                "drogue": found.drogue[candidate],
                "split": plan.split[part],
                "source": found.source[candidate],
                "source_row": found.source_row[candidate],
            },
        )

    def _finish(self) -> None:
        """Writes the metadata and, last, the manifest; then removes the scratch folder."""
        store, layout = self.store, self.plan.layout
        listed: dict[str, FileEntry] = {}
        status: Counter = Counter()
        drifters: dict[str, set[int]] = {name: set() for name in schema.SPLITS if getattr(self.recipe.split, name)}
        samples: Counter = Counter()
        for shard in range(layout.n_shards):
            mark = manifest.read_mark(store, shard)
            listed |= mark.files
            status.update(dict(enumerate(mark.status)))
            samples.update(mark.samples)
            for name, held in drifters.items():
                held.update(mark.drifters[name])
        dropped = {schema.STATUS[k]: n for k, n in sorted(status.items()) if k and n}
        if not status[0]:
            raise StoreError(f"no usable sample: {dropped}. Look at the currents around the drifters.")
        trees = {
            f"{spec.name}/zarr.json": chunks.metadata(
                spec, layout.n_samples, layout.samples_per_shard, layout.compression
            )
            for spec in schema.arrays(layout)
        }
        trees["zarr.json"] = _group(self.recipe)
        trees[store_files.DRIFTERS] = {"drifters": self.found.drifters}
        listed |= {name: manifest.write_file(store / name, manifest.to_bytes(tree)) for name, tree in trees.items()}
        held = Manifest(
            name=self.recipe.name,
            layout=layout,
            files=listed,
            recipe=self.facts["recipe"],
            sources=self.sources,
            funnel=(*self.plan.funnel, Stage("samples", "samples", status[0], dropped)),
            splits={name: {"samples": samples[name], "drifters": len(held)} for name, held in drifters.items()},
            notes=self.notes,
            driftcal_version=version("driftcal"),
        )
        for left in store.glob("*/c/**/.*.part"):  # of a writer that was killed; every shard is there now
            left.unlink(missing_ok=True)
        manifest.write_file(store / manifest.NAME, manifest.to_bytes(held.as_json()))
        shutil.rmtree(store / manifest.STAGING, ignore_errors=True)


def _difference(held: Begun, now: Begun) -> str:
    """What differs, in a few words: the manifest's sections first, as other sources follow from those."""
    if (held.driftcal_version, held.schema_version) != (now.driftcal_version, now.schema_version):
        return (
            f"it was begun by driftcal {held.driftcal_version} (schema {held.schema_version}), this is "
            f"{now.driftcal_version} (schema {now.schema_version})"
        )
    sections = [key for key in {**held.recipe, **now.recipe} if held.recipe.get(key) != now.recipe.get(key)]
    if sections:
        return f"in the manifest {' and '.join(sections)} changed"
    changed = []
    for kind, sources in now.sources.items():
        before = list(zip(held.sources.get(kind, []), held.states.get(kind, []), strict=False))
        for k, (source, state) in enumerate(zip(sources, now.states[kind], strict=True)):
            if k >= len(before) or before[k] != (source, state):
                changed.append(f"{kind} {source['path']}")
    if changed:
        return f"{' and '.join(changed)} changed since, in content, size or time of change"
    return "the samples have another layout"


def _group(recipe: Recipe) -> dict[str, Any]:
    attributes = {
        "title": f"driftcal shard store: {recipe.name}",
        "schema_version": schema.VERSION,
        "splits": list(schema.SPLITS),
        "conventions": "axes (time, lat, lon) ascending; positions (lon, lat) in degrees; seconds since 1970-01-01",
    }
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}
