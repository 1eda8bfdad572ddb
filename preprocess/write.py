"""Executes a plan: cuts, encodes and writes one shard per dask task, then the manifest.

A shard is built whole in memory, each of its files is written aside, synced and renamed, and a mark with their sizes
and digests says that it is done. Running again skips what is marked. The manifest comes last.
"""

import json
import shutil
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import delayed
from tqdm import tqdm

from preprocess import windows
from preprocess.currents import Currents
from preprocess.plan import Plan, Survey, read_tracks, take
from preprocess.recipe import DAY, Recipe
from shared import chunks, manifest, schema, shards
from shared.errors import ConfigError, DriftcalError, Interrupted, StoreError
from shared.manifest import FileEntry, Manifest, Stage

PLAN = "plan.json"

CLUSTERS = ("tcp://", "tls://")
"""How the address of a dask cluster's scheduler begins."""


@dataclass(frozen=True)
class ShardTask:
    """Everything that one task needs; small, and picklable for dask's processes and clusters."""

    store: Path
    number: int
    layout: schema.Layout
    shape: windows.Shape
    currents: tuple[Currents, ...]
    current: np.ndarray
    placement: windows.Placement
    scratch: Path
    candidate: np.ndarray
    labels: dict[str, np.ndarray]

    @property
    def mark(self) -> Path:
        """The file that says that this shard is done."""
        return mark_of(self.store, self.number)

    @property
    def days(self) -> float:
        """Days of currents from the first to the last window's start."""
        return float(np.ptp(self.placement.time) + self.layout.time_step) / DAY


def mark_of(store: Path, shard: int) -> Path:
    """The file that says that `shard` is done."""
    return store / manifest.STAGING / f"done-{shard:06d}.json"


def write_shard(task: ShardTask) -> int:
    """Cuts and writes one shard and marks it done; returns its number."""
    values = dict(task.labels)
    cut = np.empty(
        (len(task.candidate), 2, task.shape.n_times, task.shape.n_lat, task.shape.n_lon),
        np.int16,
    )
    status = np.zeros(len(cut), np.int8)
    for number in np.unique(task.current):
        of_source = np.flatnonzero(task.current == number)
        placement = take(task.placement, of_source)
        block = windows.cut(placement, task.shape, task.currents[number])
        land = windows.masked_always(placement, task.shape, task.currents[number])
        status[of_source] = windows.judge(block, land)
        cut[of_source] = block
    cut[cut == schema.OVER] = schema.FILL  # the sample is not usable; no reader need know a second fill value
    values["currents"] = cut
    values["positions"] = read_tracks(task.scratch, task.layout.n_obs)[task.candidate]
    values["status"] = status
    values["split"] = np.where(status == 0, task.labels["split"], -1)
    held = task.layout.samples_of(task.number)
    files = {}
    for spec in schema.arrays(task.layout):
        name = spec.file_of(task.number)
        content = chunks.encode(spec, values[spec.name], task.layout.samples_per_shard, task.layout.compression)
        entry = manifest.write_file(task.store / name, content)
        files[name] = {"size": entry.size, "sha256": entry.sha256, "samples": [held.start, held.stop]}
    mark = {
        "files": files,
        "status": np.bincount(status, minlength=len(schema.STATUS)).tolist(),
        "drifters": {
            name: np.unique(values["drifter"][values["split"] == k]).tolist() for k, name in enumerate(schema.SPLITS)
        },
        "samples": {name: int(np.sum(values["split"] == k)) for k, name in enumerate(schema.SPLITS)},
    }
    manifest.write_file(task.mark, manifest.to_bytes(mark))
    return task.number


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
        sources: Fingerprints of the sources.
        notes: What was resolved, assumed and repaired on the way.
    """

    store: Path
    recipe: Recipe
    plan: Plan
    found: Survey
    currents: list[Currents]
    scratch: Path
    sources: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """What must be the same for two runs to make the same store."""
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
        inside = (*self.store.iterdir(), *(self.store / manifest.STAGING).iterdir())
        for path in inside:
            if path.is_dir() and not path.is_symlink():
                if path.name != manifest.STAGING:
                    shutil.rmtree(path)
            elif path != self.scratch:
                path.unlink()

    def write(self, share: tuple[int, int], scheduler: str, workers: int | None, progress: bool) -> bool:
        """Writes the k-th of N shares of the shards, and the manifest once every shard is there: then True.

        Raises:
            ConfigError: the store was begun, or finished, from something else.
            DriftcalError: a shard cannot be made.
        """
        if (self.store / manifest.NAME).exists():
            self._check_same()
            shutil.rmtree(self.store / manifest.STAGING, ignore_errors=True)
            return True
        self._open()
        every = self._tasks()
        k, n = share
        run([task for task in every[k - 1 :: n] if not task.mark.exists()], scheduler, workers, progress)
        if not all(task.mark.exists() for task in every):
            return (self.store / manifest.NAME).exists()  # another process finished it meanwhile
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

    def _open(self) -> None:
        """Starts or continues the store: `facts` must be those that it was started with."""
        path = self.store / manifest.STAGING / PLAN
        content = manifest.to_bytes(self.facts)
        if path.exists() and path.read_bytes() != content:
            raise ConfigError(
                f"{self.store} was begun from another manifest or other sources (see {path}), so its shards cannot be "
                f"continued. Choose another --out, or start afresh with --overwrite."
            )
        if not path.exists():
            manifest.write_file(path, content)

    def _tasks(self) -> list[ShardTask]:
        """One task per shard of the plan."""
        plan, found, made = self.plan, self.found, []
        for shard in range(plan.layout.n_shards):
            held = plan.layout.samples_of(shard)
            part = slice(held.start, held.stop)
            candidate = plan.candidate[part]
            placement = take(plan.placement, np.arange(held.start, held.stop))
            labels = {
                "origin": found.origin[candidate],
                "start_time": found.start_time[candidate],
                "window_time": placement.time,
                "window_corner": placement.corner,
                "drifter": found.drifter[candidate],
                "drogue": found.drogue[candidate],
                "split": plan.split[part],
                "source": found.source[candidate],
                "source_row": found.source_row[candidate],
            }
            made.append(
                ShardTask(
                    store=self.store,
                    number=shard,
                    layout=plan.layout,
                    shape=plan.shape,
                    currents=tuple(self.currents),
                    current=plan.current[part],
                    placement=placement,
                    scratch=self.scratch,
                    candidate=candidate,
                    labels=labels,
                )
            )
        return made

    def _finish(self) -> None:
        """Writes the metadata and, last, the manifest; then removes the scratch folder."""
        store, layout = self.store, self.plan.layout
        files: dict[str, FileEntry] = {}
        status: Counter = Counter()
        drifters: dict[str, set[int]] = {name: set() for name in schema.SPLITS if getattr(self.recipe.split, name)}
        samples: Counter = Counter()
        for shard in range(layout.n_shards):
            mark = json.loads(mark_of(store, shard).read_text(encoding="utf-8"))
            files |= {p: FileEntry(e["size"], e["sha256"], tuple(e["samples"])) for p, e in mark["files"].items()}
            status.update(dict(enumerate(mark["status"])))
            samples.update(mark["samples"])
            for name, held in drifters.items():
                held.update(mark["drifters"][name])
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
        trees[shards.DRIFTERS] = {"drifters": self.found.drifters}
        files |= {name: manifest.write_file(store / name, manifest.to_bytes(tree)) for name, tree in trees.items()}
        held = Manifest(
            name=self.recipe.name,
            layout=layout,
            files=files,
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


def run(pending: list[ShardTask], scheduler: str, workers: int | None, progress: bool) -> None:
    """Writes the `pending` shards under a dask scheduler: threads, processes, synchronous, or a cluster's tcp://.

    Raises:
        ConfigError: the cluster cannot be reached.
        Interrupted: a worker process died.
        DriftcalError: whatever a worker met.
    """
    if not pending:
        return
    with tqdm(total=round(sum(t.days for t in pending), 1), unit="day", desc="currents", disable=not progress) as bar:
        if scheduler.startswith(CLUSTERS):
            _run_on_cluster(pending, scheduler, bar)
            return
        days = {f"shard-{task.number}": task.days for task in pending}

        def done(key: Any, _result: Any, _graph: Any, _state: Any, _worker: Any) -> None:
            bar.update(days.get(key, 0.0))

        calls = [delayed(write_shard)(task, dask_key_name=f"shard-{task.number}") for task in pending]
        try:
            with Callback(posttask=done):
                compute(*calls, scheduler=scheduler, num_workers=workers, optimize_graph=False)
        except BrokenProcessPool as error:
            raise Interrupted(
                "a worker process died: killed, or out of memory. Run the same command again, it continues; fewer "
                "--workers or a smaller store.samples_per_shard take less memory."
            ) from error
        except DriftcalError as error:
            # from another process dask wraps it with the remote traceback as part of its text
            raise getattr(error, "exception", error) from error.__cause__


def _run_on_cluster(pending: list[ShardTask], address: str, bar: tqdm) -> None:
    try:
        from distributed import Client, as_completed  # noqa: PLC0415 - an extra, needed for clusters only
    except ImportError as error:
        raise ConfigError(f"--scheduler {address} needs the package distributed: pip install distributed.") from error
    try:
        client = Client(address, timeout=30)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--scheduler {address}: no dask scheduler answers there ({error}).") from error
    with client:
        futures = {client.submit(write_shard, task, pure=False): task for task in pending}
        for future in as_completed(futures):
            future.result()
            bar.update(futures[future].days)


def _group(recipe: Recipe) -> dict[str, Any]:
    attributes = {
        "title": f"driftcal shard store: {recipe.name}",
        "schema_version": schema.VERSION,
        "splits": list(schema.SPLITS),
        "conventions": "axes (time, lat, lon) ascending; positions (lon, lat) in degrees; seconds since 1970-01-01",
    }
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}
