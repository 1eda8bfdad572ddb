"""Estimates disk, memory and time before a store is made.

Disk and memory follow from the plan. Time rests on a trial: some windows of this very store are read, cut and encoded.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from driftcal.preprocess.drift import windows
from driftcal.preprocess.drift.plan import take
from driftcal.preprocess.sources.gridded.currents import AHEAD_BYTES, BLOCK_BYTES, MOST_AHEAD
from driftcal.preprocess.sources.gridded.level_cache import CAP
from driftcal.preprocess.writing import store_metadata
from driftcal.preprocess.writing.build import Build
from driftcal.shared.errors import ConfigError
from driftcal.shared.store import schema, shard_bytes

PROCESS_BYTES = 300 * 2**20
"""Interpreter, libraries and a block of drifters [bytes]: on x86-64 Linux 125 MB resident once all is imported, and 225
to 270 MB at the peak of a small store, its shards among them (tests/test_memory.py prints it)."""

SEGMENT_BYTES = 150
"""Survey and plan of one segment at their peak [bytes]: 113 of every further one from 25,000 to 250,000
(`pytest -m faults tests/test_memory.py` prints it), 136 from there to 750,000. While shards are made it is 47."""

TRIAL = 32
"""Windows that are read, cut and encoded to estimate the time."""


@dataclass(frozen=True)
class Estimate:
    """The cost of making the store, or a part of it.

    Attributes:
        samples: Number of samples in the store.
        shards: Number of shards in the store.
        disk_bytes_at_most: Size of all files of the store if nothing can be compressed.
        disk_bytes: Size of the store, compressed as well as the samples of the trial.
        memory_bytes_per_worker: Memory for the shard that a worker makes; with a cluster all memory of a worker, which
            makes one shard at a time.
        memory_bytes: Memory of all workers and of the rest of the process; with a cluster that of this process alone.
        workers: Shards that are made at a time; None with a cluster, which has the workers that it has.
        seconds: Time for the shards of the part on an idle machine, without reading the drifters, which has been done
            by then, and without waiting for the disk. With a cluster for one worker.
        trial: Number of windows that were cut for the estimate.
        trial_unusable: Number of those that cannot be used, by reason.
    """

    samples: int
    shards: int
    disk_bytes_at_most: int
    disk_bytes: int
    memory_bytes_per_worker: int
    memory_bytes: int
    workers: int | None
    seconds: float
    trial: int
    trial_unusable: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """These numbers as JSON."""
        return asdict(self)


def estimate(build: Build, share: tuple[int, int], workers: int | None, processes: bool) -> Estimate:
    """Estimates the cost of making the k-th of N shares.

    Args:
        build: The store to be made.
        share: k and N.
        workers: Shards that are made at a time here; None where a cluster makes them.
        processes: Makes each shard in a process of its own.
    """
    layout, plan = build.plan.layout, build.plan
    sample = sum(spec.sample_bytes for spec in schema.arrays(layout))
    level = max(source.lat.size * source.lon.size for source in build.currents) * 4
    # encoded samples, tracks and labels beside them, and copies of the windows that are judged at once
    beside_currents = sample - schema.arrays(layout)[0].sample_bytes
    shard = layout.samples_per_shard * (sample + 2 * shard_bytes.OVERHEAD + 2 * beside_currents)
    windows_bytes = shard + 4 * windows.AT_ONCE * sample
    # both components as stored, and the chunk that is being decoded
    raw_bytes = 3 * max(
        max(min(BLOCK_BYTES, MOST_AHEAD * source.raw_bytes), source.chunk_levels * source.raw_bytes)
        for source in build.currents
    )
    block = min(AHEAD_BYTES, MOST_AHEAD * level)
    per_worker = windows_bytes + 2 * (block + plan.shape.n_times * level) + raw_bytes
    process = PROCESS_BYTES + SEGMENT_BYTES * plan.n_candidates
    # levels beside those asked for in a chunk; processes share no others
    beside = (max(source.chunk_levels for source in build.currents) - 1) * level
    if workers is None:
        memory, per_worker = process + build.levels.held_bytes, PROCESS_BYTES + per_worker + min(CAP, beside)
    else:
        shared = build.levels.held_bytes + (workers + 1) * (plan.shape.n_times * level + beside)
        waiting = workers * min(CAP, beside) if processes else min(CAP, shared)
        memory = workers * per_worker + (workers + 1 if processes else 1) * process + waiting
    trial = _trial(build)
    every = [layout.samples_of(number) for number in range(layout.n_shards)[share[0] - 1 :: share[1]]]
    levels = sum(len(needed) for samples in every for needed in build.needed(samples).values())
    work = levels * trial.per_level + sum(len(samples) for samples in every) * trial.per_sample
    return Estimate(
        samples=layout.n_samples,
        shards=layout.n_shards,
        disk_bytes_at_most=store_metadata.bytes_at_most(build),
        disk_bytes=round(layout.n_samples * sample * trial.ratio),
        memory_bytes_per_worker=per_worker,
        memory_bytes=memory,
        workers=workers,
        seconds=work / (workers or 1),
        trial=trial.windows,
        trial_unusable=trial.unusable,
    )


@dataclass(frozen=True)
class _Trial:
    """Time to read a level and to make a sample [s], encoded by raw size, number of windows, and unusable ones."""

    per_level: float
    per_sample: float
    ratio: float
    windows: int
    unusable: dict[str, int]


def _trial(build: Build) -> _Trial:
    """Cuts, judges and encodes some windows in the middle of the store."""
    plan, layout = build.plan, build.plan.layout
    number = int(plan.current[layout.n_samples // 2])
    of_source = np.flatnonzero(plan.current == number)
    by_level = of_source[np.argsort(plan.placement.level[of_source], kind="stable")]
    middle = by_level[len(by_level) // 2 :][:TRIAL]
    # of one window's levels, so that each is read once
    middle = middle[plan.placement.level[middle] == plan.placement.level[middle[0]]]
    placement, source = take(plan.placement, middle), build.currents[number]
    first, spec = int(placement.level[0]), schema.arrays(layout)[0]
    n = len(middle)
    encoder, cut = shard_bytes.Encoder(spec, n, n, layout.compression), np.empty((n, *spec.inner_shape), np.int16)
    land = windows.masked_always(placement, plan.shape, source)
    before = build.levels.decoded, build.levels.seconds
    levels = [level for _, level in source.each(np.arange(first, first + (1 if source.frozen else plan.shape.n_times)))]
    decoded, seconds = build.levels.decoded - before[0], build.levels.seconds - before[1]
    if not decoded:  # planning has looked at all of them
        decoded, seconds = max(1, build.levels.decoded), build.levels.seconds
    began = time.perf_counter()
    for k in range(n):
        windows.copy(levels, placement, k, source, cut[k])
    status = windows.judge(cut, land)
    encoder.put(range(n), cut)
    encoded = sum(map(len, encoder.content()))
    elapsed = time.perf_counter() - began
    counts = np.bincount(status, minlength=len(schema.STATUS)).tolist()
    unusable = {schema.STATUS[code]: count for code, count in enumerate(counts) if code and count}
    return _Trial(seconds / decoded, elapsed / n, min(1.0, encoded / (n * spec.sample_bytes)), n, unusable)


def check_memory(wanted: Estimate, limit: int) -> None:
    """Refuses a store whose making takes more memory than `limit` [bytes].

    Raises:
        ConfigError: it does; says what to lower.
    """
    if wanted.memory_bytes <= limit or wanted.workers is None:
        return
    shared = wanted.memory_bytes - wanted.workers * wanted.memory_bytes_per_worker
    fitting = int((limit - shared) // wanted.memory_bytes_per_worker)
    if fitting >= 1:
        remedy = f"Lower --workers ({fitting} would do) or store.samples_per_shard, or raise the limit"
    elif limit > shared:
        remedy = "Lower store.samples_per_shard, and --workers to 1, or raise the limit"
    else:
        remedy = "Raise the limit: what is needed besides is more than it already"
    workers = f"{wanted.workers} workers of {_mb(wanted.memory_bytes_per_worker)} each"
    if wanted.workers == 1:
        workers = f"{_mb(wanted.memory_bytes_per_worker)} of the worker"
    raise ConfigError(
        f"--memory-limit: making this store takes about {_mb(wanted.memory_bytes)} ({workers} and {_mb(shared)} "
        f"besides), more than {_mb(limit)}. {remedy}."
    )


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
