"""Ids: lost digits, several drifters under one, files that each number from 0, and files that name none."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from driftcal.preprocess.recipe import DrifterSource
from driftcal.preprocess.sources.drifters import namesakes
from driftcal.preprocess.sources.drifters.drifters import Drifters, open_drifters
from driftcal.preprocess.sources.drifters.ids import of_files
from driftcal.shared.errors import DataError
from tests.sources import START, Track, per_fix, ragged, save, track

N = 48


def opened(path: object, **settings: object) -> Drifters:
    return open_drifters(DrifterSource.model_validate({"path": str(path), **settings}))


def drift(drifter: int, lon: float, lat: float, start: int = START, n: int = N) -> Track:
    """A drifter that goes 0.4 m/s or so to the north-east."""
    row = track(drifter, n, lon, lat, start)
    wander = 0.003 * np.random.default_rng(drifter).normal(size=(2, n)).cumsum(axis=1)
    return Track(drifter, row.time, row.lon + wander[0], row.lat + wander[1], row.drogue, row.gap)


def under_one_id(rows: Sequence[Track]) -> xr.Dataset:
    """One row per fix of `rows`, all called 7."""
    data = per_fix(rows)
    return data.assign(drifter_id=("index", np.full(data.sizes["index"], 7)))


@pytest.mark.parametrize("delay", [0, 600, 1800], ids=["one clock", "staggered by 10 min", "half past"])
@pytest.mark.parametrize("n", [2, 6])
def test_several_drifters_under_one_id_are_refused(delay: int, n: int, tmp_path: Path) -> None:
    rows = [drift(k, 10.0 + 3 * k, 40.0 - k, START + delay * k // (n - 1)) for k in range(n)]
    source = opened(save(under_one_id(rows), tmp_path / "a.nc"))
    with pytest.raises(
        DataError, match=r"in two places at one time, or jump to and fro, in 1 of 1 traj.*'7': 2010-01-01"
    ):
        list(source.blocks())
    assert [len(b.row) for b in opened(save(per_fix(rows), tmp_path / "b.nc")).blocks()] == [n * N]


def test_drifters_a_few_kilometres_apart_at_one_time_are_refused(tmp_path: Path) -> None:
    source = opened(save(under_one_id([drift(1, 10.0, 40.0), drift(2, 10.03, 40.02)]), tmp_path / "a.nc"))
    with pytest.raises(DataError, match="in two places at one time"):
        list(source.blocks())


def test_one_bad_drifter_among_many_is_left_out(tmp_path: Path) -> None:
    good = [drift(k, 10.0 + k, 40.0) for k in range(30)]
    bad = [drift(99, 5.0, 30.0), drift(99, -20.0, 35.0, START + 1800)]
    data = per_fix([*good, *bad])
    source = opened(save(data, tmp_path / "a.nc"))
    (block,) = source.blocks()
    assert block.dropped == {namesakes.REASON: 2 * N}
    assert len(np.unique(block.row)) == 30
    assert any("WARNING" in note and "1 of 31 trajectories, such as that of '99'" in note for note in source.notes)


def test_bad_fixes_of_one_drifter_are_no_other_drifter(tmp_path: Path) -> None:
    row = drift(1, 10.0, 40.0, n=200)
    spikes = np.random.default_rng(0).choice(200, 24, replace=False)
    row.lat[spikes] += np.random.default_rng(1).uniform(5, 30, 24)
    twice = np.append(np.arange(200), [50, 51, 52, 53])
    data = ragged([Track(1, row.time[twice], row.lon[twice], row.lat[twice], row.drogue[twice], row.gap[twice])])
    (block,) = opened(save(data, tmp_path / "a.nc")).blocks()
    assert block.dropped == {"duplicate time": 4}
    np.testing.assert_array_equal(block.lat, row.lat)


def test_the_antimeridian_and_long_gaps_are_no_jumps(tmp_path: Path) -> None:
    row = drift(1, 179.6, -20.0, n=60)
    time = row.time + np.where(np.arange(60) >= 30, 40 * 86_400, 0)
    lon = np.where(np.arange(60) >= 30, row.lon - 20.0, row.lon)
    lon = (lon + 180) % 360 - 180
    (block,) = opened(save(ragged([Track(1, time, lon, row.lat, row.drogue, row.gap)]), tmp_path / "a.nc")).blocks()
    assert not block.dropped


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_files_that_each_number_from_0_are_told_apart_by_the_key(suffix: str, tmp_path: Path) -> None:
    for k in range(3):
        save(ragged([drift(0, 5.0 + 9 * k, 40.0), drift(1, 6.0 + 9 * k, 41.0)]), tmp_path / f"run{k}.{suffix}")
    source = opened(tmp_path / f"run*.{suffix}")
    with pytest.raises(
        DataError, match=r"too far apart, in 2 of 2 ids.*set drifters\.id_per_file: true in the manifest"
    ):
        list(source.blocks())
    source = opened(tmp_path / f"run*.{suffix}", id_per_file=True)
    names = [name for block in source.blocks() for name in block.drifter.values()]
    assert names == [f"run{k}/{number}" for k in range(3) for number in range(2)]


def test_files_of_later_runs_that_number_from_0_are_found_too(tmp_path: Path) -> None:
    for k in range(3):
        save(ragged([drift(0, 5.0 + 30 * k, 40.0, START + k * N * 3600)]), tmp_path / f"{k}.nc")
    with pytest.raises(DataError, match=r"set drifters\.id_per_file: true"):
        list(opened(tmp_path / "*.nc").blocks())


def test_a_drifter_that_goes_on_in_the_next_file_stays_one(tmp_path: Path) -> None:
    whole = drift(7, 5.0, 40.0, n=3 * N)
    for k in range(3):
        part = slice(k * N - min(k, 5), (k + 1) * N)  # files overlap by five fixes
        fields = [getattr(whole, name)[part] for name in ("time", "lon", "lat", "drogue", "gap")]
        save(ragged([Track(7, *fields)]), tmp_path / f"{k}.nc")
    source = opened(tmp_path / "*.nc")
    assert {name for block in source.blocks() for name in block.drifter.values()} == {"7"}
    assert not any("WARNING" in note for note in source.notes)


def test_trajectories_of_one_file_with_one_id(tmp_path: Path) -> None:
    rows = [drift(0, 5.0, 40.0), drift(0, 25.0, 40.0), drift(1, 6.0, 30.0)]
    with pytest.raises(
        DataError, match=r"Set drifters\.variables\.id in the manifest to what tells the drifters apart"
    ):
        list(opened(save(ragged(rows), tmp_path / "a.nc")).blocks())
    number = ragged(rows).assign(station=("traj", ["a", "b", "c"]))
    source = opened(save(number, tmp_path / "b.nc"), variables={"id": "station"})
    assert [name for block in source.blocks() for name in block.drifter.values()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.float32([300234066717160, 300234066717170]), r"float32 numbers such as 300234\d+, which have lost digits"),
        (np.float64([2.0**53 + 2, 2.0**53 + 4]), r"float64 numbers such as 9007199254740994, which have lost digits"),
        (np.array(["3.00234E+14", "7"]), r"'3\.00234E\+14' was rounded by a spreadsheet"),
    ],
)
def test_ids_that_have_lost_digits(ids: np.ndarray, message: str, tmp_path: Path) -> None:
    data = ragged([drift(1, 5.0, 40.0), drift(2, 8.0, 40.0)]).assign(id=("traj", ids))
    with pytest.raises(DataError, match=message):
        opened(save(data, tmp_path / "a.nc"))


def test_numbers_that_kept_their_digits(tmp_path: Path) -> None:
    for ids in (
        np.float32([114975, 16777216]),
        np.float64([300234066717160, 2.0**53]),
        np.int64([2**60 + 1, 2**60 + 2]),
    ):
        data = ragged([drift(1, 5.0, 40.0), drift(2, 8.0, 40.0)]).assign(id=("traj", ids))
        (block,) = opened(save(data, tmp_path / "a.nc")).blocks()
        assert list(block.drifter.values()) == [str(int(i)) for i in ids]


def test_names_of_files() -> None:
    assert of_files(["/a/x.nc", "/a/y.csv.gz"]) == {"/a/x.nc": "x", "/a/y.csv.gz": "y"}
    assert of_files(["/r1/out.zarr", "/r2/out.zarr"]) == {"/r1/out.zarr": "r1/out", "/r2/out.zarr": "r2/out"}
    assert of_files(["https://h/b.1.nc?download=1"]) == {"https://h/b.1.nc?download=1": "b.1"}
    assert of_files(["/a/x.nc", "/a/x.csv"]) == {"/a/x.nc": "/a/x.nc", "/a/x.csv": "/a/x.csv"}
