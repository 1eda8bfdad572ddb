"""What reading a store costs, against other readers of the same files, in one interleaved run on one core.

    python -m benchmarks.store --out DIR [--json FILE]

Samples of the usual size (2 x 7 x 48 x 48 counts, 121 fixes), 2,048 a shard, of a made ocean with the red spectrum of
altimetry, stored with lz4 and uncompressed. Every candidate is timed once a round, in CPU time of the whole process, so
threads hide nothing; only the last rows, of a cold page cache, are by the clock.

* one array: random samples of `currents`, into memory. zarr-python reads `a[i]`; tensorstore a batch of 256 indices,
  with a cache of 8 MB, which holds the shards' indices but, as of a store larger than memory, few samples. Ours has
  read the store once, as a run has after its first epoch; the row of the first pass says what that takes.
* floor: the same chunks, already in memory, through the bare decoder (lz4) or memcpy (none): no index, no checksum.
* to device: the whole training batch, by `reading.batches.batches`, against zarr-python that reads the same two sharded
  arrays, converts the currents to float32 and gives both to `jnp.asarray`; it is spared the labels.
* cold: passes over random samples after the page cache has dropped the shards, with prefetching and without. A pass
  takes one sample in sixteen (`--cold-share`). Of more, as of a store that fits into memory, the kernel would find many
  among those that it reads around every page fault, and would seem to prefetch them itself.
"""

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Timing, interleave, machine, on_one_core

ONE_CORE = on_one_core()  # before jax is imported

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import tensorstore  # noqa: E402
import zarr  # noqa: E402
from numcodecs import blosc  # noqa: E402 # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

from benchmarks.sample_store import N_SAMPLES, made_ocean, make  # noqa: E402
from driftcal.shared.native import checked_copy  # noqa: E402
from driftcal.shared.store import reader as shards  # noqa: E402
from driftcal.shared.store import shard_bytes  # noqa: E402
from driftcal.shared.store.buffers import Slabs  # noqa: E402
from driftcal.shared.store.reader import ShardStore  # noqa: E402
from driftcal.shared.store.schema import Compression  # noqa: E402
from driftcal.train.reading.batches import batches  # noqa: E402
from driftcal.train.settings import Reading  # noqa: E402

BATCH = 256
SLOW = 32  # samples that zarr-python reads a round
ASKED = {
    "one array, zarr-python": {"lz4": 15.0, "none": 50.0},
    "one array, tensorstore": {"lz4": 1.4, "none": 3.0},
    "to device, zarr-python": {"lz4": 12.0, "none": 30.0},
    "cold, without prefetch": {"lz4": 2.5, "none": 2.5},
}
AT_MOST = {"one array, floor": {"lz4": 1.4}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="new folder for the stores; on the disk to be measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    parser.add_argument("--rounds", type=int, default=15, help="of every interleaved comparison (default: %(default)s)")
    parser.add_argument("--cold-share", type=int, default=16, metavar="N", help="a cold pass reads one sample in N")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    ocean = made_ocean(np.random.default_rng(0))
    for compression in ("lz4", "none"):
        path = options.out / compression
        make(path, ocean, compression)
        rows += warm(path, compression, options.rounds)
        rows += cold(path, compression, options.rounds, N_SAMPLES // options.cold_share)
    passes = "one pass" if checked_copy.copier() else "two passes: no C++ compiler"
    about = {"machine": machine(), "one_core": ONE_CORE, "rounds": options.rounds, "samples": N_SAMPLES}
    about["uncompressed"] = f"copied and checked in {passes}"
    print(table(rows))
    print(f"{about['machine']}; {'one core' if ONE_CORE else 'all cores'}; medians of {options.rounds} rounds")
    print(f"uncompressed samples {about['uncompressed']}")
    if options.json:
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


# Warm: everything is in the page cache


def warm(path: Path, compression: Compression, rounds: int) -> list[dict[str, Any]]:
    """All comparisons of CPU time."""
    store = ShardStore(path, copying="auto")
    random = np.random.default_rng(2)
    store.currents.read(np.arange(N_SAMPLES))  # as in every epoch but the first, which touches the map's pages first
    readers = {
        "driftcal": (ours(store, random), BATCH),
        "driftcal, first pass": (first_pass(path, random), BATCH),
        "zarr-python": (zarr_samples(path, random), SLOW),
        "tensorstore": (tensorstore_batch(path, random), BATCH),
        "floor": (floor(store, random), BATCH),
    }
    if compression == "none":
        plain = ShardStore(path)
        plain.currents.read(np.arange(N_SAMPLES))
        readers["driftcal, data.copying=plain"] = (ours(plain, random), BATCH)
    one = interleave(readers, rounds)
    device = interleave(
        {"driftcal": (to_device(store, random), 4 * BATCH), "zarr-python": (zarr_to_device(path, random), SLOW)}, rounds
    )
    rows = [row(compression, "one array", name, timing) for name, timing in one.items()]
    return rows + [row(compression, "to device", name, timing) for name, timing in device.items()]


def row(compression: str, what: str, reader: str, timing: Timing) -> dict[str, Any]:
    return {"compression": compression, "what": what, "reader": reader, **asdict(timing)}


def chosen(random: np.random.Generator, n: int) -> np.ndarray:
    return random.choice(N_SAMPLES, n, replace=False)


def ours(store: ShardStore, random: np.random.Generator) -> Callable[[], object]:
    """Random samples of currents into a batch that is there already, as training has it."""
    rows = aligned_rows(store)
    return lambda: store.currents.read_into(chosen(random, BATCH), rows)


def first_pass(path: Path, random: np.random.Generator) -> Callable[[], object]:
    """The same of samples none of which has been read before; after the last one the store is opened anew."""

    def untouched() -> Iterator[tuple[ShardStore, np.ndarray]]:
        while True:
            store = ShardStore(path, copying="auto")
            for samples in random.permutation(N_SAMPLES).reshape(-1, BATCH):
                yield store, samples

    rows, coming = aligned_rows(ShardStore(path)), untouched()

    def run() -> None:
        store, samples = next(coming)
        store.currents.read_into(samples, rows)

    return run


def aligned_rows(store: ShardStore) -> np.ndarray:
    """The bytes of a batch of currents, `(BATCH, bytes a sample)`, in memory that is aligned as training's is."""
    return shards.rows_of(Slabs().take((BATCH, *store.currents.spec.inner_shape), store.currents.spec.dtype))


def zarr_samples(path: Path, random: np.random.Generator) -> Callable[[], object]:
    array = zarr.open_array(path / "currents", mode="r")
    return lambda: [array[i] for i in chosen(random, SLOW).tolist()]


def tensorstore_batch(path: Path, random: np.random.Generator) -> Callable[[], object]:
    array = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "currents")}},
        context=tensorstore.Context({"cache_pool": {"total_bytes_limit": 8_000_000}}),
        recheck_cached_data=False,
        recheck_cached_metadata=False,
        open=True,
    ).result()
    return lambda: array[chosen(random, BATCH)].read().result()


def floor(store: ShardStore, random: np.random.Generator) -> Callable[[], object]:
    """The bare decoder, or memcpy, over chunks that are in memory already."""
    held, spec = store.layout, store.currents.spec
    found = []
    for shard in range(held.n_shards):
        name, n = spec.file_of(shard), len(held.samples_of(shard))
        data = np.memmap(store.root / name, np.uint8, "r")
        index = shard_bytes.read_index(data, n, held.samples_per_shard, name).tolist()
        found += [data[o : o + size - (4 if held.compression == "lz4" else 0)] for o, size in index]
    for chunk in found:
        chunk.max()  # touches the map's pages
    rows = aligned_rows(store)

    def run() -> None:
        for k, sample in enumerate(chosen(random, BATCH).tolist()):
            if held.compression == "lz4":
                blosc.decompress(found[sample], rows[k])
            else:
                np.copyto(rows[k], found[sample])

    return run


def to_device(store: ShardStore, random: np.random.Generator) -> Callable[[], object]:
    """Four training batches on the device, one decoding thread."""

    def run() -> None:
        for _, batch in batches(store, chosen(random, 4 * BATCH), BATCH, np.dtype(np.float32), Reading(threads=1)):
            jax.block_until_ready(batch)

    return run


def zarr_to_device(path: Path, random: np.random.Generator) -> Callable[[], object]:
    group = zarr.open_group(path, mode="r")
    arrays: list[Any] = [group["currents"], group["positions"]]

    def run() -> None:
        samples = chosen(random, SLOW).tolist()
        currents, positions = (np.stack([array[i] for i in samples]) for array in arrays)
        jax.block_until_ready((jnp.asarray(currents.astype(np.float32)), jnp.asarray(positions)))

    return run


# Cold: nothing is


def cold(path: Path, compression: Compression, rounds: int, n: int) -> list[dict[str, Any]]:
    """Wall time of a pass over `n` of the samples, at random, after the page cache has dropped the shards."""
    if not hasattr(os, "posix_fadvise"):
        print("no posix_fadvise on this system: the page cache cannot be dropped, no cold rows", file=sys.stderr)
        return []
    random = np.random.default_rng(3)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    cold_pass(path, chosen(random, n), True)  # buffers of this size have been touched then
    for _ in range(rounds):
        for prefetch, taken in seconds.items():
            gc.collect()  # pages that are still mapped cannot be dropped
            drop(path)
            taken.append(cold_pass(path, chosen(random, n), prefetch))
    ratio = median(b / a for a, b in zip(seconds[True], seconds[False], strict=True))
    unit = 1e3 / n
    found = {"with prefetch": (seconds[True], 1.0), "without prefetch": (seconds[False], ratio)}
    return [
        {"compression": compression, "what": "cold", "reader": name, "wall_ms": median(took) * unit, "ratio": against}
        for name, (took, against) in found.items()
    ]


def cold_pass(path: Path, samples: np.ndarray, prefetch: bool) -> float:
    """Seconds of one pass; the labels are read before."""
    store, reading = ShardStore(path, copying="auto"), Reading(threads=1, prefetch=prefetch)
    began = time.perf_counter()
    for _, batch in batches(store, samples, 128, np.dtype(np.float32), reading):
        jax.block_until_ready(batch)
    return time.perf_counter() - began


def drop(path: Path) -> None:
    """Has the page cache forget the store."""
    os.sync()
    for file in path.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def table(rows: list[dict[str, Any]]) -> str:
    """All rows, markdown; ratios to the first row of each comparison."""
    lines = ["| what | reader | encoding | µs a sample | ratio | asked |", "|---|---|---|---|---|---|"]
    for row in rows:
        key, kind = f"{row['what']}, {row['reader']}", row["compression"]
        micro = 1e3 * row.get("cpu_ms", row["wall_ms"])
        least, most = ASKED.get(key, {}).get(kind), AT_MOST.get(key, {}).get(kind)
        # the floor is what we are compared with, not the other way round
        ratio = 1 / row["ratio"] if row["reader"] == "floor" else row["ratio"]
        asked = f">= {least:g}" if least else f"<= {most:g}" if most else ""
        lines.append(f"| {row['what']} | {row['reader']} | {kind} | {micro:.1f} | {ratio:.2f} | {asked} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
