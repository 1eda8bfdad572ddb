"""Decoded levels are kept for those who want them, and no longer; every case counts what is decoded."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from driftcal.preprocess.recipe import CurrentSource
from driftcal.preprocess.sources.gridded import level_cache as module
from driftcal.preprocess.sources.gridded.level_cache import Key, Levels
from driftcal.preprocess.sources.gridded.open_currents import open_currents
from driftcal.shared.errors import DataError
from tests import fields

BYTES = 2 * 3 * 4 * 2


class Counted:
    """Levels whose values tell which they are."""

    level_bytes = BYTES

    def __init__(self, chunk_levels: int = 1):
        self.chunk_levels = chunk_levels
        self.decoded: Counter[Key] = Counter()

    def load(self, keys: list[Key]) -> list[np.ndarray]:
        """Counts."""
        self.decoded.update(keys)
        return [np.full((2, 3, 4), 100 * number + level, np.int16) for number, _, level in keys]


def keys(*levels: int, number: int = 0) -> list[Key]:
    return [(number, "a.nc", level) for level in levels]


def values(found: list[np.ndarray]) -> list[int]:
    return [int(level[1, 2, 3]) for level in found]


def test_what_planning_has_read_is_there_for_the_windows() -> None:
    held, source = Levels(), Counted()
    assert values(held.read(keys(4, 0, 9), source)) == [4, 0, 9]
    held.expect(keys(3, 4, 4, 5))
    assert held.held_bytes == BYTES  # nobody wants 0 and 9 any more
    assert values(held.read(keys(3, 4, 5), source)) == [3, 4, 5]
    assert values(held.read(keys(4), source)) == [4]
    assert source.decoded == Counter(keys(4, 0, 9, 3, 5))
    assert held.held_bytes == 0
    assert held.decoded == 5


def test_levels_beside_in_a_chunk_are_kept_if_somebody_wants_them() -> None:
    held, source = Levels(), Counted(chunk_levels=4)
    held.expect(keys(2, 3, 5, 6, 7, 8))
    assert values(held.read(keys(2, 5), source)) == [2, 5]
    assert source.decoded == Counter(keys(2, 3, 5, 6, 7))  # 0, 1 and 4 nobody wants, 8 lies in the next chunk
    assert values(held.read(keys(3, 6, 7), source)) == [3, 6, 7]
    assert set(source.decoded.values()) == {1}
    assert held.held_bytes == 0


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAP", 3 * BYTES)
    held, source = Levels(), Counted()
    held.expect(keys(*range(5)) * 2)
    for _ in range(2):
        assert values(held.read(keys(*range(5)), source)) == list(range(5))
        assert held.held_bytes <= 3 * BYTES
    assert source.decoded == Counter(keys(0, 1, 2, 3, 3, 4, 4))
    assert held.held_bytes == 0


def test_threads_together_keep_no_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decodes a long chunk at the same time; what the others are about to keep counts."""
    monkeypatch.setattr(module, "CAP", 10 * BYTES)
    held, source, together = Levels(), Counted(chunk_levels=8), threading.Barrier(4)
    held.expect(keys(*range(32)))
    plain, most = source.load, []

    def slow(wanted: list[Key]) -> list[np.ndarray]:
        most.append(len(wanted) - 1)
        together.wait(30)
        return plain(wanted)

    source.load = slow
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: values(held.read(keys(8 * k), source)), range(4)))
    assert found == [[0], [8], [16], [24]]
    assert sum(most) == 10
    assert held.held_bytes == 10 * BYTES


def test_what_is_kept_cannot_be_changed() -> None:
    level = Levels().read(keys(1), Counted())[0]
    with pytest.raises(ValueError, match="read-only"):
        level[0, 0, 0] = 7


def test_of_threads_that_want_a_level_one_decodes_it() -> None:
    held, source, entered, go = Levels(), Counted(), threading.Event(), threading.Event()
    held.expect(keys(0, 1, 1, 2))
    plain = source.load

    def slow(wanted: list[Key]) -> list[np.ndarray]:
        entered.set()
        assert go.wait(30)
        return plain(wanted)

    source.load = slow
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(held.read, keys(0, 1), source)
        assert entered.wait(30)
        entered.clear()
        second = pool.submit(held.read, keys(1, 2), source)
        assert entered.wait(30)  # it is busy with level 2
        go.set()
        assert [values(first.result(30)), values(second.result(30))] == [[0, 1], [1, 2]]
    assert set(source.decoded.values()) == {1}
    assert held.held_bytes == 0


def test_a_level_that_cannot_be_decoded_is_told_to_all_and_tried_again() -> None:
    held, source, entered, go = Levels(), Counted(), threading.Event(), threading.Event()
    held.expect(keys(0, 0, 0))
    plain = source.load

    def failing(_: list[Key]) -> list[np.ndarray]:
        entered.set()
        assert go.wait(30)
        raise DataError("level 0 is damaged")

    source.load = failing
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(held.read, keys(0), source)
        assert entered.wait(30)
        second = pool.submit(held.read, keys(0), source)
        go.set()
        for reader in (first, second):
            with pytest.raises(DataError, match="level 0 is damaged"):
                reader.result(30)
    source.load = plain
    assert values(held.read(keys(0), source)) == [0]


def test_two_sources_in_one_file_are_kept_apart(tmp_path: Path) -> None:
    """The same file at two depths: what is kept of one must not be taken for the other's."""
    lon, lat = 30 + 0.5 * np.arange(12), -40 + 0.5 * np.arange(10)
    one = fields.field(lon, lat, 3)
    deep = xr.concat([one, one], dim="depth").assign_coords(depth=("depth", [0.5, 15.0]))
    for name in ("ugos", "vgos"):
        deep[name][1] = deep[name][1] // 2
    path = fields.save(deep.transpose("time", "depth", ...), tmp_path / "currents.nc")
    both = Levels()
    shallow, below = (
        open_currents(CurrentSource(path=path, select={"depth": depth}), both, number)
        for number, depth in enumerate((0.5, 15.0))
    )
    alone = open_currents(CurrentSource(path=path, select={"depth": 15.0}))
    for currents in (shallow, below):
        currents.land()
    assert not np.array_equal(shallow.read(0, 3), below.read(0, 3))
    np.testing.assert_array_equal(below.read(0, 3), alone.read(0, 3))


@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_a_record_is_decoded_once_in_windows_whatever_its_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Blocks of levels that are read ahead end inside chunks of the source: those chunks are decoded once too."""
    lon, lat = 30 + 0.5 * np.arange(12), -40 + 0.5 * np.arange(10)
    path = tmp_path / "currents.zarr"
    names = ("ugos", "vgos")
    fields.field(lon, lat, 40).to_zarr(
        path, zarr_format=2, consolidated=True, encoding={name: {"chunks": (chunk, 10, 12)} for name in names}
    )
    currents, held = open_currents(CurrentSource(path=str(path))), Levels()
    expected = currents.read(0, 40)
    held.expect(currents.keys(np.arange(40)))
    object.__setattr__(currents, "_levels", held)
    reads: Counter[int] = Counter()
    true = type(currents.layout).stored

    def stored(layout: object, dataset: xr.Dataset, role: str, start: int, stop: int, where: str) -> np.ndarray:
        if role == "u":
            reads.update(range(start // chunk, (stop - 1) // chunk + 1))
        return true(layout, dataset, role, start, stop, where)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(type(currents.layout), "stored", stored)
    monkeypatch.setattr("driftcal.preprocess.sources.gridded.currents.AHEAD_BYTES", 5 * currents.level_bytes)
    for index, level in currents.each(np.arange(40)):
        np.testing.assert_array_equal(level, expected[index])
    assert reads == Counter(range(-(-40 // chunk)))
    assert held.held_bytes == 0
