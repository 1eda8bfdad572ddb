"""Copying raw samples in one pass: what is copied, what is refused, and who may do without."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import google_crc32c
import jax
import numpy as np
import pytest

from driftcal.shared import settings
from driftcal.shared.errors import ConfigError, StoreError
from driftcal.shared.native import checked_copy
from driftcal.shared.native.checked_copy import Copier
from driftcal.shared.store import shard_bytes
from driftcal.shared.store.reader import Copying, ShardStore
from driftcal.train import __main__ as train
from driftcal.train import verbs
from driftcal.train.reading.batches import batches
from driftcal.train.settings import Reading, Training
from tests import stores


@pytest.fixture(scope="module")
def copier() -> Copier:
    try:
        return Copier()
    except ConfigError as absent:
        pytest.skip(f"needs a C++ compiler: {absent}")


def copied(copier: Copier, samples: list[bytes], sums: list[int], shift: int = 0) -> tuple[list[bytes], list[bool]]:
    """What comes of samples of one size that lie `shift` bytes past a multiple of 64, and which are called whole."""
    size = len(samples[0])
    stride = -(-(size + shift) // 64) * 64 + 64
    memory = np.zeros(stride * len(samples) + 64, np.uint8)
    first = -memory.ctypes.data % 64 + shift
    starts = first + stride * np.arange(len(samples))
    for start, sample in zip(starts, samples, strict=True):
        memory[start : start + size] = np.frombuffer(sample, np.uint8)
    room = np.full((len(samples) + 2, size), 99, np.uint8)  # a row before and behind, which nobody may touch
    whole = copier((memory.ctypes.data + starts).astype(np.uintp), np.array(sums, np.uint32), room[1:-1])
    assert (room[[0, -1]] == 99).all()
    return [row.tobytes() for row in room[1:-1]], whole.tolist()


# RFC 3720, B.4, and the check value of the catalogues of checksums
KNOWN = {
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(range(31, -1, -1)): 0x113FDB5C,
    b"123456789": 0xE3069283,
}


@pytest.mark.parametrize("sample", KNOWN)
def test_known_sums(copier: Copier, sample: bytes) -> None:
    assert copied(copier, [sample], [KNOWN[sample]]) == ([sample], [True])
    assert copied(copier, [sample], [KNOWN[sample] ^ 1 << 31])[1] == [False]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 191, 192, 193, 383, 384, 385, 968, 4099, 64_512, 2**20 + 5])
@pytest.mark.parametrize("shift", [0, 1, 12])
def test_samples_of_any_size_anywhere_have_the_sum_of_another_library(copier: Copier, size: int, shift: int) -> None:
    random = np.random.default_rng([size, shift])
    samples = [random.bytes(size) for _ in range(3)]
    sums = [google_crc32c.value(sample) for sample in samples]
    assert copied(copier, samples, sums, shift) == (samples, [True] * 3)


def test_every_flipped_bit_is_found(copier: Copier) -> None:
    """Of three strips of a line and eleven bytes, of each byte's eight."""
    sample = np.random.default_rng(3).bytes(3 * 64 + 11)
    due = google_crc32c.value(sample)
    flipped = [bytearray(sample) for _ in range(8 * len(sample) + 1)]
    for bit, one in enumerate(flipped[:-1]):
        one[bit // 8] ^= 1 << bit % 8
    whole = copied(copier, [bytes(one) for one in flipped], [due] * len(flipped))[1]
    assert whole == [False] * (len(flipped) - 1) + [True]


def test_a_sample_that_cannot_be_had_is_left_out(copier: Copier) -> None:
    sample = np.arange(300, dtype=np.uint8)
    rows = np.full((2, 300), 7, np.uint8)
    due = google_crc32c.value(sample.tobytes())
    whole = copier(np.array([0, sample.ctypes.data], np.uintp), np.array([due, due], np.uint32), rows)
    assert whole.tolist() == [False, True]
    assert (rows[0] == 7).all()
    assert (rows[1] == sample).all()


def test_memory_that_is_not_what_it_says_is_refused(copier: Copier) -> None:
    addresses, sums, rows = np.zeros(4, np.uintp), np.zeros(4, np.uint32), np.zeros((4, 64), np.uint8)
    for wrong in (
        (addresses.astype(np.int32), sums, rows),
        (addresses[:3], sums, rows),
        (addresses, sums[::2], rows),
        (addresses, sums.astype(np.int64), rows),
        (addresses[::2], sums[:2], rows[:2]),
        (addresses, sums, rows.T.reshape(4, 64, order="F")[:, ::-1]),
        (addresses, sums, rows.view(np.int8)),
    ):
        with pytest.raises(TypeError, match=r"^(addresses|checksums|rows): .*; expected .*, C-contiguous"):
            copier(*wrong)
    read_only = rows.copy()
    read_only.flags.writeable = False
    with pytest.raises(TypeError, match="rows: read-only, expected writable"):
        copier(addresses, sums, read_only)


@pytest.mark.usefixtures("copier")
@pytest.mark.parametrize(
    ("right", "wrong"), [("0x82F63B78u", "0x82F63B79u"), ("== expected[k]", ">= 0"), ("to[at] =", "")]
)
def test_a_library_that_copies_or_sums_wrongly_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str
) -> None:
    source = checked_copy.LIBRARY.source.read_text()
    assert right in source
    (tmp_path / "copying.cpp").write_text(source.replace(right, wrong))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(checked_copy, "LIBRARY", replace(checked_copy.LIBRARY, source=tmp_path / "copying.cpp"))
    with pytest.raises(ConfigError, match=r"copying-.*library\.so, which copies or sums wrongly\. Delete it"):
        Copier()


# Stores


@pytest.mark.usefixtures("copier")
@pytest.mark.parametrize("prefetch", [True, False])  # which opens shards before they are read
def test_what_is_whole_is_read_in_one_pass_alone(
    copy: Callable, monkeypatch: pytest.MonkeyPatch, prefetch: bool
) -> None:
    """By the loader; and of a damaged shard the damaged sample alone is read again."""
    built, decoded, reading = copy("none"), [], Reading(prefetch=prefetch)
    true = shard_bytes.decoder("none")

    def decode(*arguments: object) -> None:
        decoded.append(arguments)
        true(*arguments)

    monkeypatch.setattr(shard_bytes, "decoder", lambda _: decode)
    for _, batch in batches(ShardStore(built.path, copying="auto"), np.arange(11), 11, np.dtype("f4"), reading):
        np.testing.assert_array_equal(batch.currents, built.values["currents"])
    assert not decoded
    shard = built.path / "positions/c/1/0/0"
    content = bytearray(shard.read_bytes())
    content[5] ^= 1  # of sample 4
    shard.write_bytes(content)
    store = ShardStore(built.path, "skip", "auto")
    for _, batch in batches(store, np.arange(11), 11, np.dtype("f4"), reading):
        np.testing.assert_array_equal(batch.weight, np.arange(11) != 4)
    assert len(decoded) == 1
    assert list(store.unreadable) == [4]


@pytest.mark.usefixtures("copier")
def test_a_forged_size_is_no_address(copy: Callable) -> None:
    """The index, with its checksum, gives the last sample the last eight bytes before it: the rest lies outside."""
    built = copy("none")
    path = built.path / "currents/c/2/0/0/0/0"
    content = path.read_bytes()
    per_shard = built.layout.samples_per_shard
    body = len(content) - 16 * per_shard - 4
    index = np.frombuffer(content[body:-4], "<u8").reshape(per_shard, 2).copy()
    index[2] = body - 8, 8
    path.write_bytes(content[:body] + shard_bytes.sealed(index.tobytes()))
    with pytest.raises(StoreError, match=r"currents of sample 10 .*: 8 bytes, expected"):
        stores.read_all(built.path)
    array = ShardStore(built.path, copying="auto").currents
    array._shard(2)
    assert (array._address[8:] == 0).tolist() == [False, False, True]


def test_what_is_left_out_is_zero_and_no_nan(copy: Callable) -> None:
    """Weight 0 times NaN were NaN."""
    built = copy("none")
    path = built.path / "positions/c/1/0/0"
    content = bytearray(path.read_bytes())
    content[:4] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    for copying in stores.copyings():
        store = ShardStore(built.path, "skip", copying)
        arrays = [
            np.ones((3, *array.spec.inner_shape), array.spec.dtype) for array in (store.currents, store.positions)
        ]
        assert store.read_batch(np.array([3, 4, 5]), arrays[0], arrays[1]).tolist() == [True, False, True]
        for array, name in zip(arrays, ("currents", "positions"), strict=True):
            np.testing.assert_array_equal(array[[0, 2]], built.values[name][[3, 5]])
            assert (array[1] == 0).all()


def test_batches_are_the_same_in_one_pass_and_in_two(stores_by_compression: dict[str, stores.Built]) -> None:
    numbers = np.array([10, 3, 9, 0, 4, 1, 7, 7])
    for kind in ("lz4", "none"):
        ours, plain = (
            list(batches(ShardStore(stores_by_compression[kind].path, copying=copying), numbers, 3, np.dtype("f4")))
            for copying in get_args(Copying)
        )
        for (_, mine), (_, other) in zip(ours, plain, strict=True):
            for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("copier")
def test_of_two_maps_of_a_shard_the_one_that_lives_is_read(stores_by_compression: dict[str, stores.Built]) -> None:
    """Two threads may come to a shard at once; the second one's map is gone after it."""
    array = ShardStore(stores_by_compression["none"].path).currents
    first = array._shard(1)
    assert array._shard(1) is first
    begin = np.frombuffer(first.map, np.uint8).ctypes.data
    assert array._address[4:8].tolist() == [begin + start for start in first.start]
    assert (array._address[[0, 1, 2, 3, 8, 9, 10]] == 0).all()


@pytest.mark.parametrize("copying", get_args(Copying))
@pytest.mark.parametrize("number", [-1, 11])
def test_numbers_of_no_sample_are_refused(
    stores_by_compression: dict[str, stores.Built], copying: Copying, number: int
) -> None:
    array = ShardStore(stores_by_compression["none"].path, copying=copying).currents
    room = np.empty((2, array.spec.sample_bytes), np.uint8)
    with pytest.raises(IndexError, match=r"samples .* expected numbers from 0 to 10"):
        array.read_into([3, number], room)


def test_without_a_compiler_it_is_said_once_and_samples_are_read(
    stores_by_compression: dict[str, stores.Built], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    checked_copy.copier.cache_clear()
    try:
        for kind, said in (("lz4", 0), ("none", 1), ("none", 0)):
            store = ShardStore(stores_by_compression[kind].path, copying="auto")
            assert sum(len(part) for part, _ in batches(store, np.arange(11), 4, np.dtype("f4"))) == 11
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == said
            assert not lines or "none was found (CXX=no-such-compiler)" in lines[0]
            assert not lines or lines[0].endswith("or set data.copying to plain.")
        checked_copy.copier.cache_clear()
        list(batches(ShardStore(stores_by_compression["none"].path, copying="plain"), np.arange(11), 4, np.dtype("f4")))
        assert not capsys.readouterr().err
    finally:
        checked_copy.copier.cache_clear()


@pytest.mark.parametrize("copying", get_args(Copying))
def test_the_setting_reaches_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], copying: Copying
) -> None:
    """The setting reaches the store of a run, and of its evaluation, which has the settings of the run."""

    def opened(root: str, on_bad_shard: str, copying: str) -> None:
        raise StoreError(f"opened for copying: {copying}")

    monkeypatch.setattr(verbs, "ShardStore", opened)
    setting = settings.build(Training, {"data": {"copying": copying}}, "settings")
    monkeypatch.setattr(verbs.run_folder, "read", lambda _: SimpleNamespace(settings=setting))
    run = ["run", "store", "--out", str(tmp_path / "run"), "--set", f"data.copying={copying}"]
    for command in (run, ["evaluate", str(tmp_path), "store"]):
        assert train.main(command) == 1
        assert f"opened for copying: {copying}" in capsys.readouterr().err
