"""The task of making one shard, and the dask schedulers of this machine that run such tasks.

A shard is built whole in memory; each of its files is written under a temporary name, synced and renamed; then a mark
with their sizes and digests records that the shard is done.
"""

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from dask import config, multiprocessing, threaded
from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import delayed
from dask.local import get_sync
from jaxtyping import Int, Int64, Shaped, UInt8
from tqdm import tqdm

from driftcal.preprocess.drift import windows
from driftcal.preprocess.drift.candidates import read_records
from driftcal.preprocess.drift.plan import take
from driftcal.preprocess.recipe import DAY
from driftcal.preprocess.sources import files
from driftcal.preprocess.sources.gridded.currents import Currents
from driftcal.preprocess.sources.gridded.remarks import Odd
from driftcal.shared import streams
from driftcal.shared.disk import claims, durable
from driftcal.shared.disk.crash_points import reached
from driftcal.shared.errors import DriftcalError, Interrupted, StoreError
from driftcal.shared.store import manifest, schema, shard_bytes, unfinished
from driftcal.shared.store.unfinished import Mark

OF_SURVEY = ("positions", "origin", "start_time", "drifter", "drogue", "source", "source_row")
"""Arrays of the store that are those of the survey."""

SCHEDULERS: dict[str, Callable[..., Any]] = {
    "threads": threaded.get,
    "processes": multiprocessing.get,
    "synchronous": get_sync,
}
"""Schedulers of this machine, as functions: given a name, dask looks for a cluster and imports `distributed`."""


@dataclass(frozen=True)
class ShardTask:
    """Everything that one task needs; small, and picklable for dask's processes and clusters.

    `currents` has the sources of this shard's samples by number, cut down to the levels of their windows, and
    `placement` counts from those. `land` are the windows' cells without any current in the whole record, which such a
    part cannot tell: bits of `(n, lat, lon)`, packed window by window. `labels` are those that the plan has given; the
    others are in the survey's file `scratch`. Once `lock` is gone the task writes nothing more: its run has ended
    without it, and another one may build here.
    """

    store: Path
    number: int
    layout: schema.Layout
    shape: windows.Shape
    currents: dict[int, Currents]
    current: Int[np.ndarray, " n"]
    placement: windows.Placement
    land: UInt8[np.ndarray, "n bytes"]
    lock: Path
    scratch: Path
    candidate: Int64[np.ndarray, " n"]
    labels: dict[str, Shaped[np.ndarray, "n ..."]]

    @property
    def mark(self) -> Path:
        """The file that marks this shard as done."""
        return unfinished.mark_of(self.store, self.number)

    @property
    def days(self) -> float:
        """Days of currents from the first to the last window's start."""
        return float(np.ptp(self.placement.time) + self.layout.time_step) / DAY


@dataclass(frozen=True)
class Pending:
    """A shard to be written. Its task is put together when it begins, or is sent to another process."""

    number: int
    days: float
    """Days of currents from the first to the last window's start."""
    task: Callable[[], ShardTask]

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.task(),)


def _arrived(task: ShardTask) -> Pending:
    return Pending(task.number, task.days, lambda: task)


def make_shard(pending: Pending) -> int:
    """Writes one shard and marks it done; returns its number."""
    return write_shard(pending.task())


def write_shard(task: ShardTask) -> int:
    """Cuts and writes one shard and marks it done; returns its number."""
    layout, shape, n = task.layout, task.shape, len(task.candidate)
    currents = shard_bytes.Encoder(schema.arrays(layout)[0], n, layout.samples_per_shard, layout.compression)
    status, odd = np.zeros(n, np.int8), {}
    for number in np.unique(task.current).tolist():
        of_source, source = np.flatnonzero(task.current == number), task.currents[number]
        placement = take(task.placement, of_source)
        for chosen, cut in windows.cut(placement, shape, source):
            samples = of_source[chosen]
            land = np.unpackbits(task.land[samples], axis=1, count=shape.n_lat * shape.n_lon).astype(bool)
            status[samples] = windows.judge(cut, land.reshape(-1, shape.n_lat, shape.n_lon))
            currents.put(samples, cut)
        odd[number] = source.odd(windows.needed(placement.level, 1 if source.frozen else shape.n_times))
    reached("shard: cut")
    read = _records(task)
    values = {name: read[name] for name in OF_SURVEY} | task.labels
    values |= {"status": status, "split": np.where(status == 0, task.labels["split"], -1)}
    numbers = layout.samples_of(task.number)
    listed = {}
    for spec, content in shard_bytes.encode_shard(layout, values | {"currents": currents}):
        name = spec.file_of(task.number)
        claims.check(task.lock)
        entry = manifest.write_file(task.store / name, content, "shard")
        listed[name] = replace(entry, samples=(numbers.start, numbers.stop))
    claims.check(task.lock)
    # the folder is not made again where another run has finished and removed it
    mark = Mark.of(
        listed,
        values,
        blank=tuple((number, time, cells) for number, of in odd.items() for time, cells in of.blank.items()),
        repeated=tuple((number, time) for number, of in odd.items() for time in of.repeated),
    )
    durable.write(task.mark, manifest.to_bytes(mark.as_json()), "mark")
    return task.number


def odd_of(mark: Mark) -> dict[int, Odd]:
    """Oddities of levels of currents that a mark records, by the number of their source."""
    numbers = {number for number, *_ in (*mark.blank, *mark.repeated)}
    return {
        number: Odd(
            {time: cells for of, time, cells in mark.blank if of == number},
            tuple(time for of, time in mark.repeated if of == number),
        )
        for number in sorted(numbers)
    }


def _records(task: ShardTask) -> Shaped[np.ndarray, " n"]:
    """The samples of `task` as the survey's file has them, `(n,)` of `survey.record`."""
    try:
        return read_records(task.scratch, task.layout.n_obs, task.candidate)
    except OSError as error:
        raise tracks_gone(task.scratch, error) from error


def tracks_gone(scratch: Path, error: Exception) -> StoreError:
    """The error of a scratch file that cannot be read."""
    return StoreError(
        f"cannot read {scratch}, the tracks that this run plans with ({files.brief(error)}). Another run may have "
        f"finished or replaced the store: look with `drift-inspect show`, and run the same command again."
    )


def days_bar(pending: list[Pending], progress: bool) -> tqdm:
    """A bar over the days of currents of the `pending` shards."""
    total = round(sum(task.days for task in pending), 1)
    return tqdm(total=total, unit="day", desc="currents", disable=not progress)


def run(pending: list[Pending], scheduler: str, workers: int | None, progress: bool) -> None:
    """Writes the `pending` shards under a dask scheduler of this machine: threads, processes or synchronous.

    Raises:
        Interrupted: a worker process died.
        DriftcalError: whatever a worker met.
    """
    if not pending:
        return
    with days_bar(pending, progress) as bar:
        days = {f"shard-{task.number:06d}": task.days for task in pending}

        def done(key: Any, _result: Any, _graph: Any, _state: Any, _worker: Any) -> None:
            bar.update(days.get(key, 0.0))

        begins: dict[str, Any] = {"initializer": streams.endure} if scheduler == "processes" else {}
        calls = [delayed(make_shard)(task, dask_key_name=f"shard-{task.number:06d}") for task in pending]
        try:
            # a pool of dask's configuration would have its own number of workers
            with Callback(posttask=done), config.set(pool=None):
                compute(*calls, scheduler=SCHEDULERS[scheduler], num_workers=workers, optimize_graph=False, **begins)
        except BrokenProcessPool as error:
            raise Interrupted(
                "a worker process died: killed, or out of memory. Run the same command again, it continues; fewer "
                "--workers or a smaller store.samples_per_shard take less memory."
            ) from error
        except DriftcalError as error:
            # from another process dask wraps it with the remote traceback as part of its text
            raise getattr(error, "exception", error) from error.__cause__
