"""Batches from a store: buffers that are never reused too early, stalls, damage, and stores that cannot be written."""

import errno
import gc
import hashlib
import mmap
import os
import resource
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import numpy as np
import pytest

from driftcal.shared.__main__ import main as inspect
from driftcal.shared.errors import LimitError, StoreError
from driftcal.shared.store import reader, schema
from driftcal.shared.store.buffers import Slabs
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.verify import verify
from driftcal.train.machine.devices import Devices
from driftcal.train.reading.batches import batches, load, order
from driftcal.train.settings import Reading
from tests import stores

F32 = np.dtype(np.float32)
COMPRESSIONS = pytest.mark.parametrize("compression", ["lz4", "none"])


# Buffers


@COMPRESSIONS
def test_batches_that_are_held_keep_their_content_while_the_loader_goes_on(
    stores_by_compression: dict[str, stores.Built], compression: str
) -> None:
    built = stores_by_compression[compression]
    store, numbers = ShardStore(built.path), np.arange(11)
    held = []
    for epoch in range(40):
        for part, batch in batches(store, order(numbers, 5, epoch), 4, F32):
            if len(held) < 30:
                held.append((part, batch.currents))
            elif len(part) == 4:  # a view of the device array alone keeps its buffer
                held.append((part[2:], np.asarray(batch.currents)[2:]))
    for part, currents in held:
        np.testing.assert_array_equal(np.asarray(currents)[: len(part)], built.values["currents"][part])


def test_the_device_takes_a_buffer_without_a_copy(stores_by_compression: dict[str, stores.Built]) -> None:
    """On a CPU, where its array then lies where ours does; elsewhere there is a copy to make."""
    if jax.default_backend() != "cpu":
        pytest.skip("needs the CPU backend")
    loaded = load(ShardStore(stores_by_compression["lz4"].path), np.arange(4), 4, F32)["currents"]
    assert loaded.ctypes.data % 64 == 0
    assert jax.device_put(loaded).unsafe_buffer_pointer() == loaded.ctypes.data


def test_a_buffer_comes_back_only_when_nothing_refers_to_it() -> None:
    slabs, shape, dtype = Slabs(), (3, 5), np.dtype(np.int16)
    first = slabs.take(shape, dtype)
    first[:] = 7
    place, view = first.ctypes.data, first[1:][:, 2]
    del first
    second = slabs.take(shape, dtype)
    second[:] = 9
    assert second.ctypes.data != place
    assert view.tolist() == [7, 7]
    held = _memory(view)()
    del view
    gc.collect()
    assert held is not None
    assert _memory(slabs.take(shape, dtype))() is held
    many = [slabs.take(shape, dtype) for _ in range(12)]
    places = {array.ctypes.data for array in many}
    assert len(places) == 12
    del many
    again = [slabs.take(shape, dtype) for _ in range(12)]
    assert len({array.ctypes.data for array in again}) == 12


def _memory(array: np.ndarray) -> weakref.ref:
    """The map that `array` rests on."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return weakref.ref(base.obj if isinstance(base, memoryview) else base)


def test_a_pool_keeps_no_more_than_it_says_and_nothing_beside_another_size() -> None:
    slabs, dtype = Slabs(kept=2), np.dtype(np.int16)
    taken = [slabs.take((5,), dtype) for _ in range(3)]
    maps = [_memory(array) for array in taken]
    del taken
    gc.collect()
    assert sum(m() is not None for m in maps) == 2
    other = slabs.take((7,), dtype)
    assert not any(m() is not None for m in maps)
    assert _memory(other)() is not None


@pytest.mark.parametrize("shape", [(2, 720, 1440), (128, 2, 7, 48, 48), (1,), (2**20,), (2**20 + 1,)])
def test_a_buffer_has_the_size_that_was_asked_for(shape: tuple[int, ...]) -> None:
    """Its map may be longer; all of it can be written, and it is taken again."""
    slabs, dtype = Slabs(), np.dtype(np.int16)
    first = slabs.take(shape, dtype)
    assert (first.shape, first.dtype) == (shape, dtype)
    first[...] = 5
    held = _memory(first)()
    assert held is not None
    assert first.nbytes <= len(held) <= first.nbytes * 17 / 16
    del first
    gc.collect()
    assert _memory(slabs.take(shape, dtype))() is held


# Order


@pytest.mark.parametrize("run_length", [1, 3, 4, 50])
def test_runs_stay_together_and_the_order_depends_on_seed_and_epoch_alone(run_length: int) -> None:
    samples = 3 * np.arange(41) + 5
    found = order(samples, 3, 1, run_length)
    np.testing.assert_array_equal(np.sort(found), samples)
    np.testing.assert_array_equal(found, order(samples, 3, 1, run_length))
    places = (found - 5) // 3
    inside = places[1:] % run_length != 0
    assert (np.diff(places)[inside] == 1).all()
    if run_length < len(samples):
        assert (found != order(samples, 3, 2, run_length)).any()
        assert (found != order(samples, 4, 1, run_length)).any()


def test_every_place_of_a_run_is_equally_likely() -> None:
    first = [order(np.arange(6), 0, epoch, 2)[0] for epoch in range(600)]
    counts = np.bincount(first, minlength=6)
    assert counts[1::2].sum() == 0
    assert (counts[::2] > 160).all()


# A loader that fails


def _readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("driftcal-read")]


def _none_left() -> bool:
    ends = time.monotonic() + 20
    while _readers() and time.monotonic() < ends:
        time.sleep(0.01)
    return not _readers()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(5, "Input/output error"), r"a batch cannot be read; .*: Input/output error\. .* check the disk"),
        (MemoryError("no room"), r"a batch cannot be read; a smaller batch_size .*: out of memory \(no room\)"),
        (StoreError("this one is bad"), "^this one is bad$"),
    ],
)
def test_a_loader_that_raises_is_told(
    stores_by_compression: dict[str, stores.Built], monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    store = ShardStore(stores_by_compression["lz4"].path)
    read = store.read_batch

    def fail(samples: np.ndarray, *into: np.ndarray) -> np.ndarray:
        if 9 in samples:
            raise error
        return read(samples, *into)

    monkeypatch.setattr(store, "read_batch", fail)
    with pytest.raises(StoreError if isinstance(error, StoreError) else LimitError, match=said) as told:
        list(batches(store, np.arange(11), 3, F32))
    assert isinstance(error, StoreError) or str(told.value).endswith("This is no damage: the store may be whole.")
    assert _none_left()


@pytest.mark.parametrize("error", [ValueError("axes don't match"), RuntimeError("ours"), KeyError("origin")])
def test_a_mistake_of_ours_is_not_told_as_a_damaged_store(
    stores_by_compression: dict[str, stores.Built], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store = ShardStore(stores_by_compression["lz4"].path)

    def fail(*_: np.ndarray) -> np.ndarray:
        raise error

    monkeypatch.setattr(store, "read_batch", fail)
    with pytest.raises(type(error)) as raised:
        list(batches(store, np.arange(11), 3, F32))
    assert raised.value is error
    assert _none_left()


def test_a_loader_that_stalls_is_told_in_time(
    stores_by_compression: dict[str, stores.Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, hold = ShardStore(stores_by_compression["lz4"].path), threading.Event()
    read = store.read_batch

    def stall(samples: np.ndarray, *into: np.ndarray) -> np.ndarray:
        if 6 in samples:
            hold.wait()
        return read(samples, *into)

    monkeypatch.setattr(store, "read_batch", stall)
    seen: list[np.ndarray] = []
    began = time.monotonic()
    going = batches(store, np.arange(11), 3, F32, Reading(stall_timeout=1))
    with pytest.raises(StoreError, match=r"reading has made no progress for 1 s.*raise data\.stall_timeout"):
        seen.extend(part for part, _ in going)
    assert time.monotonic() - began < 15
    assert len(seen) == 2
    hold.set()
    assert _none_left()


def test_a_slow_loader_is_no_stall(
    stores_by_compression: dict[str, stores.Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece is well within the limit; all of them are not."""
    store = ShardStore(stores_by_compression["lz4"].path)
    read = store.read_batch

    def slow(samples: np.ndarray, *into: np.ndarray) -> np.ndarray:
        time.sleep(0.4)
        return read(samples, *into)

    monkeypatch.setattr(store, "read_batch", slow)
    monkeypatch.setattr("driftcal.train.reading.batches.PIECE", 2)
    parts = [part for part, _ in batches(store, np.arange(11), 11, F32, Reading(stall_timeout=1, threads=1))]
    assert [len(part) for part in parts] == [11]


def test_a_stalled_loader_keeps_no_process_alive(stores_by_compression: dict[str, stores.Built]) -> None:
    script = f"""
        import sys, threading
        import numpy as np
        from driftcal.shared.errors import LimitError, StoreError
        from driftcal.shared.store.reader import ShardStore
        from driftcal.train.settings import Reading
        from driftcal.train.reading.batches import batches
        store = ShardStore({str(stores_by_compression["lz4"].path)!r})
        store.read_batch = lambda *_: threading.Event().wait()
        try:
            list(batches(store, np.arange(11), 3, np.dtype("f4"), Reading(stall_timeout=1)))
        except StoreError as error:
            print(error)
            sys.exit(1)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "no progress for 1 s" in done.stdout


def test_a_loader_that_is_left_early_ends(stores_by_compression: dict[str, stores.Built]) -> None:
    going = batches(ShardStore(stores_by_compression["none"].path), np.arange(11), 2, F32)
    next(going)
    going.close()
    assert _none_left()


# Damaged shards


def _flip(path: Path, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 4
    path.write_bytes(content)


@COMPRESSIONS
def test_unreadable_samples_are_left_out_by_name(copy: Callable, compression: str) -> None:
    """A chunk damaged in shard 0, shard 2 missing (samples 8, 9, 10): the rest is read as it was."""
    built = copy(compression)
    _flip(built.path / "currents/c/0/0/0/0/0", 100)
    (built.path / "positions/c/2/0/0").unlink()
    with pytest.raises(StoreError, match=r"currents of sample 0 \(shard 0\)"):
        list(batches(ShardStore(built.path), np.arange(11), 4, F32))
    store = ShardStore(built.path, "skip")
    taken = list(batches(store, np.array([9, 10, 3, 0, 5, 1, 8]), 3, F32))
    assert [part.tolist() for part, _ in taken] == [[9, 10, 3], [0, 5, 1], [8]]
    assert [np.asarray(batch.weight).tolist() for _, batch in taken] == [[0, 0, 1], [0, 1, 1], [0, 0, 0]]
    for part, batch in taken:
        real = np.asarray(batch.weight)[: len(part)] > 0
        np.testing.assert_array_equal(
            np.asarray(batch.currents)[: len(part)][real], built.values["currents"][part[real]]
        )
        assert all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(batch))
    assert sorted(store.unreadable) == [0, 8, 9, 10]
    assert "positions/c/2/0/0: missing" in store.unreadable[9]
    assert store.unreadable_of("train") == [0, 10]
    with pytest.raises(StoreError, match=r"none of 2 samples can be read\. The first: currents of sample 0"):
        list(batches(ShardStore(built.path, "skip"), np.array([0, 9]), 2, F32))
    # the rest of a pass that was interrupted may be what cannot be read
    (rest,) = batches(ShardStore(built.path, "skip"), np.array([0, 9]), 2, F32, begun=True)
    assert np.asarray(rest[1].weight).tolist() == [0, 0]


def test_a_shard_whose_labels_are_damaged_is_left_out_whole(copy: Callable) -> None:
    built = copy("lz4")
    _flip(built.path / "drifter/c/1", 3)
    with pytest.raises(StoreError, match="drifter/c/1: its content does not match its sha256"):
        ShardStore(built.path)
    store = ShardStore(built.path, "skip")
    assert sorted(store.unreadable) == [4, 5, 6, 7]
    every = np.concatenate([store.samples_of(split) for split in schema.SPLITS])
    assert not set(every.tolist()) & {4, 5, 6, 7}
    assert store.unreadable_of("train") == [4, 5, 6, 7]  # whose they were is not known


def test_damage_ends_a_pass_where_it_is_read(copy: Callable) -> None:
    """Never trained on: no batch that holds a damaged sample is ever given out."""
    built = copy("none")
    _flip(built.path / "currents/c/1/0/0/0/0", 5)
    seen: list[int] = []
    going = batches(ShardStore(built.path), np.array([10, 3, 9, 0, 4, 1]), 2, F32)
    with pytest.raises(StoreError, match="currents of sample 4"):
        seen.extend(sample for part, _ in going for sample in part.tolist())
    assert seen == [10, 3, 9, 0]


# Limits of open files and of the pages asked for; stores that may not be written or read


def test_a_store_of_more_shards_than_open_files_is_read(tmp_path: Path) -> None:
    """60 shards of two arrays each, where the process may have 100 files open."""
    built = stores.build(tmp_path / "store", 60, samples_per_shard=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        store = ShardStore(built.path)
        np.testing.assert_array_equal(store.currents.read(np.arange(60)), built.values["currents"])
        np.testing.assert_array_equal(store.positions.read(np.arange(60)), built.values["positions"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_open_files_are_no_damage(
    stores_by_compression: dict[str, stores.Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither told as such, nor left out as such."""

    def allow_no_more(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", allow_no_more)  # as macOS does above what it allows
    store = ShardStore(stores_by_compression["lz4"].path, "skip")

    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(mmap, "mmap", none_left)
        out = np.empty((1, *store.positions.spec.inner_shape), np.float32)
        with pytest.raises(LimitError, match=r"two open files a shard, this one 6: allow as many \(ulimit -n\)"):
            store.read_batch(np.array([5]), np.empty((1, *store.currents.spec.inner_shape), np.int16), out)
    assert not store.unreadable
    np.testing.assert_array_equal(store.positions.read([5]), stores_by_compression["lz4"].values["positions"][[5]])


def test_verify_reads_what_it_maps_first(
    stores_by_compression: dict[str, stores.Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails under a map ends the process; under a read it is an error with the file's name."""
    true = hashlib.file_digest

    def digest(file: Any, name: str) -> Any:
        if "currents/c/1" in file.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return true(file, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    with pytest.raises(LimitError, match=r"cannot read .*currents/c/1/0/0/0/0: Input/output error"):
        verify(stores_by_compression["none"].path)


@COMPRESSIONS
def test_every_pass_asks_for_what_it_will_read(
    stores_by_compression: dict[str, stores.Built], monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    """In the second pass too: what was read in the first may be in memory no more."""
    store, asked, true = ShardStore(stores_by_compression[compression].path), set(), reader.ShardedArray.read_into
    monkeypatch.setattr(reader, "_ask", lambda held, start, stop: asked.update((held, k) for k in range(start, stop)))

    def read(array: reader.ShardedArray, samples: Any, *arguments: Any) -> None:
        for sample in samples:
            number, k = divmod(sample, store.layout.samples_per_shard)
            shard = array._shards[number]  # opened to be asked for
            assert {(shard.map, byte) for byte in range(shard.start[k], shard.stop[k])} <= asked
        true(array, samples, *arguments)

    monkeypatch.setattr(reader.ShardedArray, "read_into", read)
    for epoch in range(2):
        asked.clear()
        assert sum(len(part) for part, _ in batches(store, order(np.arange(11), 5, epoch), 4, F32)) == 11
        assert asked


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (4095, 4097), (5000, 700_000), (10 * 4096, 42 * 4096)])
def test_pages_are_asked_for_in_pieces_that_the_kernel_takes(start: int, stop: int) -> None:
    edges: list[int] = []

    def madvise(advice: int, first: int, size: int) -> None:
        assert advice == mmap.MADV_WILLNEED
        assert first % mmap.PAGESIZE == 0
        assert 0 < size <= reader.READ_AHEAD
        edges.extend((first, first + size))

    reader._ask(Mock(spec=mmap.mmap, madvise=madvise), start, stop)
    assert edges[0] <= start < edges[0] + mmap.PAGESIZE
    assert edges[-1] == stop
    assert edges[1:-1:2] == edges[2::2]


def test_a_process_asks_for_the_pages_of_its_own_samples(
    stores_by_compression: dict[str, stores.Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several that share a batch."""
    store, asked = ShardStore(stores_by_compression["lz4"].path), []
    monkeypatch.setattr(store, "will_need", lambda samples, _: asked.append(samples.tolist()))

    half = Mock(spec=Devices, rows=lambda size: slice(size // 2, size), place=jax.device_put)
    found = [np.asarray(batch.sample) for _, batch in batches(store, np.arange(11), 4, F32, devices=half)]
    assert asked == [[2, 3], [6, 7], [10]]
    assert [part.tolist() for part in found] == [[2, 3], [6, 7], [10, 10]]


def _state(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in [root, *root.rglob("*")]}


def test_a_store_is_read_and_never_written(copy: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    built = copy("lz4")
    for path in [*built.path.rglob("*"), built.path]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = _state(built.path)
    try:
        assert verify(built.path).ok
        assert inspect(["show", str(built.path)]) == 0
        assert inspect(["sample", str(built.path), "3"]) == 0
        assert "small" in capsys.readouterr().out
        assert sum(len(part) for part, _ in batches(ShardStore(built.path), np.arange(11), 4, F32)) == 11
        assert _state(built.path) == before
    finally:
        for path in [built.path, *built.path.rglob("*")]:
            path.chmod(0o755)


def test_a_store_that_may_not_be_looked_into_is_one_message(
    copy: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, true = copy("lz4").path, Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if root in path.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return true(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(LimitError, match=r"cannot look at .*: Permission denied\. Have its permissions changed"):
        ShardStore(root)
    for verb in ("show", "verify"):
        assert inspect([verb, str(root)]) == 4
        said = capsys.readouterr()
        assert "Permission denied" in said.out + said.err


@COMPRESSIONS
def test_samples_are_read_into_memory_that_is_theirs(
    stores_by_compression: dict[str, stores.Built], compression: str
) -> None:
    """Into what is not contiguous they would go by a copy, and be lost."""
    array = ShardStore(stores_by_compression[compression].path).currents
    room = np.empty((3, 2 * array.spec.sample_bytes), np.uint8)
    with pytest.raises(TypeError, match="C-contiguous"):
        array.read_into([1, 2, 3], room[:, ::2])
    with pytest.raises(ValueError, match=r"room of .* bytes for 3 samples"):
        array.read_into([1, 2, 3], room)
    array.read_into([], room[:0])


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "drifters.nc").write_bytes(b"CDF")
    with pytest.raises(StoreError, match=r"drifters\.nc: no folder\. Name the folder of a store"):
        ShardStore(tmp_path / "drifters.nc")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_a_store_is_refused_and_not_waited_for(copy: Callable) -> None:
    built = copy("lz4")
    path = built.path / "positions/c/1/0/0"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="positions/c/1/0/0: not a plain file"):
        stores.read_all(built.path)
    (built.path / "manifest.json").unlink()
    os.mkfifo(built.path / "manifest.json")
    with pytest.raises(StoreError, match=r"not a driftcal store \(no manifest\.json\)"):
        ShardStore(built.path)


def test_a_linked_shard_is_refused(copy: Callable, tmp_path: Path) -> None:
    built = copy("none")
    folder = built.path / "currents/c"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="currents/c/0/0/0/0/0: a link, which may lead out of the store"):
        stores.read_all(built.path)


def test_prefetching_is_left_out_where_the_system_has_none(copy: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    built = copy("lz4")
    (built.path / "positions/c/1/0/0").unlink()
    ShardStore(built.path).will_need(np.arange(11), set())  # damage is for whoever reads it
    monkeypatch.delattr("mmap.MADV_WILLNEED", raising=False)
    store = ShardStore(built.path)
    store.will_need(np.arange(11), set())
    found = [batch for _, batch in batches(store, np.array([9, 0]), 2, F32)]
    np.testing.assert_array_equal(np.asarray(found[0].currents), built.values["currents"][[9, 0]])
