"""Reading drifters: every layout, and files that are wrong or unlike others."""

import gzip
import json
import os
import shutil
import tempfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from driftcal.preprocess.drift import segments
from driftcal.preprocess.recipe import DrifterSource, Segment
from driftcal.preprocess.sources.drifters.drifters import Drifters, Fixes, open_drifters
from driftcal.preprocess.sources.times import NO_TIME, seconds
from driftcal.shared.errors import DataError
from tests.sources import START, Track, erddap, per_fix, ragged, save, table, track, tracks


def opened(path: object, **settings: object) -> Drifters:
    return open_drifters(DrifterSource.model_validate({"path": str(path), **settings}))


def read(path: object, **settings: object) -> Fixes:
    (block,) = opened(path, **settings).blocks()
    return block


def joined(blocks: list[Fixes]) -> dict[str, np.ndarray]:
    names = ("row", "time", "lon", "lat", "drogue", "gap", "source_row")
    return {name: np.concatenate([getattr(block, name) for block in blocks]) for name in names}


def check_tracks(source: Drifters, rows: list[Track], max_fixes: int = 2_000_000) -> dict[str, np.ndarray]:
    """Every fix of `rows`, in order, comes out of `source`."""
    blocks = list(source.blocks(max_fixes))
    out = joined(blocks)
    np.testing.assert_array_equal(out["row"], np.repeat(np.arange(len(rows)), [len(row.time) for row in rows]))
    for name in ("time", "lon", "lat", "drogue", "gap"):
        np.testing.assert_array_equal(out[name], np.concatenate([getattr(row, name) for row in rows]), err_msg=name)
    drifters = {number: name for block in blocks for number, name in block.drifter.items()}
    assert drifters == {number: str(row.drifter) for number, row in enumerate(rows)}
    assert not any(block.dropped for block in blocks)
    assert source.n_rows == len(rows)
    return out


LAYOUTS = {
    "ragged.nc": ragged,
    "ragged-v2.zarr": ragged,
    "ragged-v3.zarr": ragged,
    "table.nc": table,
    "table.zarr": table,
    "per_fix.nc": per_fix,
    "per_fix.zarr": per_fix,
}


def write(name: str, rows: list[Track], folder: Path) -> str:
    path = folder / name
    if name.endswith(".csv"):
        path.write_text(erddap(rows))
    elif name.endswith(".csv.gz"):
        path.write_bytes(gzip.compress(erddap(rows).encode()))
    else:
        return save(LAYOUTS[name](rows), path)
    return str(path)


@pytest.mark.parametrize("name", [*LAYOUTS, "fixes.csv", "fixes.csv.gz"])
def test_layouts(name: str, tmp_path: Path):
    path = write(name, tracks(), tmp_path)
    check_tracks(opened(path), tracks())
    check_tracks(opened(path), tracks(), max_fixes=4)


@st.composite
def some_tracks(draw: st.DrawFn) -> list[Track]:
    rows = []
    for drifter in draw(st.lists(st.integers(1, 2**53), min_size=1, max_size=4, unique=True)):
        n = draw(st.integers(1, 6))
        numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
        steps = np.array(draw(st.lists(st.integers(1, 10**7), min_size=n, max_size=n)))
        lon, lat = numbers.uniform(-180, 180, n), numbers.uniform(-90, 90, n)
        rows.append(Track(drifter, START + np.cumsum(steps), lon, lat, numbers.integers(0, 2, n), steps.astype(float)))
    return rows


@settings(max_examples=12, deadline=None)
@given(rows=some_tracks(), max_fixes=st.integers(1, 8))
def test_round_trip_is_the_same_in_every_layout(rows: list[Track], max_fixes: int):
    folder = Path(tempfile.mkdtemp())
    for name in ("ragged.nc", "ragged-v3.zarr", "table.nc", "per_fix.nc", "fixes.csv"):
        source = opened(write(name, rows, folder))
        whole = check_tracks(source, rows)
        parts = check_tracks(source, rows, max_fixes)
        np.testing.assert_array_equal(whole["source_row"], parts["source_row"])
        if not name.startswith("table"):
            np.testing.assert_array_equal(whole["source_row"], np.arange(len(whole["row"])))
    shutil.rmtree(folder)


def test_interleaved_fixes_are_grouped_and_sorted(tmp_path: Path):
    shuffle = np.array([11, 0, 4, 7, 1, 5, 10, 2, 8, 6, 3, 9])
    path = save(per_fix(tracks()).isel(index=shuffle), tmp_path / "mixed.nc")
    source = opened(path)
    want = [tracks()[2], tracks()[0], tracks()[1]]
    out = check_tracks(source, want)
    check_tracks(source, want, max_fixes=3)
    np.testing.assert_array_equal(shuffle[out["source_row"]], [7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6])
    assert any("interleave" in note for note in source.notes)


def test_glob_concatenates_files(tmp_path: Path):
    a, b, c = tracks()
    save(ragged([a, b]), tmp_path / "1.nc")
    save(per_fix([c]), tmp_path / "2.nc")
    out = check_tracks(opened(tmp_path / "*.nc"), [a, b, c], max_fixes=5)
    np.testing.assert_array_equal(out["source_row"], np.arange(12))


def test_fsspec_urls(tmp_path: Path):
    memory = fsspec.filesystem("memory")
    write("ragged.nc", tracks(), tmp_path)
    memory.pipe_file("/drifters/fixes.csv", erddap(tracks()).encode())
    memory.pipe_file("/drifters/ragged.nc", (tmp_path / "ragged.nc").read_bytes())
    memory.put(write("ragged-v3.zarr", tracks(), tmp_path), "/drifters/ragged.zarr", recursive=True)
    for name in ("fixes.csv", "ragged.nc", "ragged.zarr", "*.csv"):
        check_tracks(opened(f"memory://drifters/{name}"), tracks())
    with pytest.raises(DataError, match=r"memory://drifters/none\.nc: nothing is there"):
        opened("memory://drifters/none.nc")


@pytest.mark.parametrize("case", ["table transposed", "table without rowsize", "integer padding", "shared time"])
def test_padded_tables(case: str, tmp_path: Path):
    rows, dataset = tracks(), table(tracks())
    if case == "table transposed":
        dataset = dataset.transpose()
    if case != "table transposed":
        dataset = dataset.drop_vars("rowsize")
    if case == "integer padding":
        dataset["time"] = dataset.time.fillna(0).astype(np.int64).assign_attrs(dataset.time.attrs)
    if case == "shared time":
        dataset["time"] = ("obs", START + 3600 * np.arange(5), dataset.time.attrs)
        rows = [track(), track(122726, 3, 12.0, 40.0), rows[2]]
    check_tracks(opened(save(dataset, tmp_path / "table.nc")), rows, max_fixes=6)


def test_table_counts_what_is_not_padding(tmp_path: Path):
    dataset = table(tracks())
    dataset["lat"][0, 1] = np.nan
    dataset["lat"][1, 3] = dataset["lon"][1, 3] = 1.0
    dataset["time"][1, 3] = START + 10**6
    assert read(save(dataset, tmp_path / "a.nc")).dropped == {"position missing": 1, "beyond rowsize": 1}
    dataset["lat"][1, 3] = np.nan
    assert read(save(dataset.drop_vars("rowsize"), tmp_path / "b.nc")).dropped == {"position missing": 2}
    dataset["rowsize"] = dataset.rowsize * 100
    source = opened(save(dataset, tmp_path / "c.nc"))
    assert any("exceeds the 5 fixes" in note for note in source.notes)


def broken(change: str) -> xr.Dataset:
    """A small source with one thing wrong."""
    data = ragged(tracks())
    match change:
        case "no lat":
            return data.rename(lat="y")
        case "two lats":
            return data.assign(latitude=data.lat)
        case "ID and id":
            return data.assign(ID=data.id)
        case "no id":
            return data.drop_vars("id")
        case "sum":
            return data.assign(rowsize=("traj", [4, 3, 4]))
        case "negative":
            return data.assign(rowsize=("traj", [4, -3, 11]))
        case "fraction":
            return data.assign(rowsize=("traj", [4, 3.5, 4.5]))
        case "nan size":
            return data.assign(rowsize=("traj", [4, np.nan, 5]))
        case "text size":
            return data.assign(rowsize=("traj", ["4", "3", "5"]))
        case "int32 overflow":
            return data.assign(rowsize=("traj", np.array([2**31 - 1, 2**31 - 1, 14], np.int32)))
        case "int64 overflow":
            return data.assign(rowsize=("traj", np.array([2**61, 2**61, 2**61], np.int64)))
        case "360_day" | "noleap":
            data["time"].attrs["calendar"] = change
        case "no units":
            data["time"].attrs = {}
        case "months":
            data["time"].attrs["units"] = "months since 1970-01-01"
        case "epoch":
            data["time"].attrs["units"] = "seconds since the flood"
        case "swapped":
            data = data.assign(lat=data.lon, lon=data.lat)
        case "lat 95":
            data["lat"][8] = 95.0
        case "lon 800":
            data["lon"][3] = 800.0
        case "all fill":
            data["lat"][:] = -1e34
        case "nan id":
            return data.assign(id=("traj", [1.0, np.nan, 3.0]))
        case "empty id":
            return data.assign(id=("traj", ["a", " ", "c"]))
        case "mixed ids":
            return data.drop_vars("id").assign(ids=("obs", np.arange(12)))
        case "gap units":
            data["gap"].attrs["units"] = "furlongs"
        case "gap dims":
            return data.assign(gap=("other", [1.0, 2.0]))
        case "no rowsize":
            return data.drop_vars("rowsize")
        case "grid":
            return xr.Dataset({"lat": ("lat", [1.0]), "lon": ("lon", [2.0, 3.0]), "time": ("time", [0]), "id": ((), 1)})
        case "lat text":
            return data.assign(lat=("obs", ["x"] * 12))
        case "empty":
            return data.isel(obs=slice(0), traj=slice(0))
        case "zero sizes":
            return data.isel(obs=slice(0)).assign(rowsize=("traj", [0, 0, 0]))
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param("no lat", r"no 'lat' variable .*latitude.*found .*Set drifters\.variables\.lat", id="no lat"),
        pytest.param("no id", r"no 'id' variable under any known name", id="no id"),
        pytest.param("two lats", r"'lat' and 'latitude' could both be .*set drifters\.variables\.lat", id="two lats"),
        pytest.param("ID and id", r"'id' and 'ID' could both be", id="ID and id"),
        pytest.param("sum", r"'rowsize' sums to 11 but 'obs' holds 12 fixes", id="sum"),
        pytest.param("no rowsize", r"no 'rowsize' tells how they belong", id="no rowsize"),
        pytest.param("negative", r"'rowsize' holds -3 in row 1", id="negative"),
        pytest.param("fraction", r"'rowsize' holds 3\.5 in row 1", id="fraction"),
        pytest.param("nan size", r"'rowsize' holds nan in row 1", id="nan size"),
        pytest.param("text size", r"'rowsize' holds .* expected whole numbers", id="text size"),
        pytest.param("int32 overflow", r"sums to 4294967308 but", id="int32 overflow"),
        pytest.param("int64 overflow", r"sums to 6917529027641081856 but", id="int64 overflow"),
        pytest.param("360_day", r"calendar '360_day'; expected standard", id="360_day"),
        pytest.param("noleap", r"calendar 'noleap'; expected standard", id="noleap"),
        pytest.param("no units", r"times have units ''; expected such as", id="no units"),
        pytest.param("months", r"times have units 'months since", id="months"),
        pytest.param("epoch", r"count from 'the flood', which is not a date", id="epoch"),
        pytest.param("swapped", r"lat and lon look swapped", id="swapped"),
        pytest.param("lat 95", r"1 positions are off the globe, such as lat 95.*correct the file", id="lat 95"),
        pytest.param("lon 800", r"off the globe, such as lat .* lon 800", id="lon 800"),
        pytest.param("all fill", r"none of 12 fixes can be used \(position missing: 12\)", id="all fill"),
        pytest.param("nan id", r"the drifter id of row 1 is missing \(1 in all\)", id="nan id"),
        pytest.param("empty id", r"the drifter id of row 1 is missing", id="empty id"),
        pytest.param("mixed ids", r"the id changes inside row 0 \(3 such rows\)", id="mixed ids"),
        pytest.param("gap units", r"'gap' has units 'furlongs'", id="gap units"),
        pytest.param("gap dims", r"'gap' is on \('other',\), expected \('obs',\)", id="gap dims"),
        pytest.param("grid", r"This looks like a grid, not drifters", id="grid"),
        pytest.param("lat text", r"'lat' holds .*, expected numbers", id="lat text"),
        pytest.param("empty", r"is empty: .* hold no fixes", id="empty"),
        pytest.param("zero sizes", r"is empty", id="zero sizes"),
    ],
)
def test_refused(change: str, message: str, tmp_path: Path):
    path = save(broken(change), tmp_path / "bad.nc")
    with pytest.raises(DataError, match=message) as caught:
        list(opened(path).blocks(5))
    assert path in str(caught.value)


def test_what_takes_all_fixes_is_spoken_of(tmp_path: Path):
    data = ragged(tracks())
    data["position_qc"] = ("obs", np.full(data.sizes["obs"], 4, np.int8))
    with pytest.raises(
        DataError, match=r"none of 12 fixes can be used \(position flagged as bad: 12\)\. Their quality"
    ):
        list(opened(save(data, tmp_path / "a.nc")).blocks())


def test_a_missing_file_is_refused(tmp_path: Path):
    for name in ("none.nc", "none*.nc", "none.zarr"):
        with pytest.raises(DataError, match="nothing is there"):
            opened(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither NetCDF, zarr nor csv"),
        (b"hello world\n", "neither NetCDF, zarr nor csv"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "expected a NetCDF file or a zarr store, but it does not open"),
        (b"\x1f\x8b" + b"junk" * 9, r"odd\.bin cannot be read \("),
        (b"a,b\n1,2\n", "no 'lat' variable"),
        (b"ID,time,lat,lon\n1,2010-01-01T00:00:00Z,x,3\n2,2010-01-01T00:00:00Z,x,3\n", "cannot be read"),
        (b"ID,time,lat,lon\n1,31 January 2010,2,3\n", "1 of 1 times cannot be read as ISO 8601"),
        (b"ID,time,lat,lon\n1,3600,2,3\n", "times have units ''"),
        (b"ID,time,lat,lon\n,2010-01-01T00:00:00Z,2,3\n", "the drifter id of row 0 is missing"),
        (b"ID,time,lat,lon\n", "is empty"),
        (b"ID,lat,time,lat,lon\n", "two columns have the same name"),
    ],
)
def test_a_file_that_is_not_a_source_is_refused(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "odd.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(opened(path).blocks())


def test_a_folder_without_metadata_is_no_source(tmp_path: Path):
    with pytest.raises(DataError, match="a folder without zarr metadata"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["ragged-v2.zarr", "ragged-v3.zarr"])
def test_metadata_without_data_are_refused(name: str, tmp_path: Path):
    tmp_path = tmp_path / "http-mirror"  # a local folder all the same
    tmp_path.mkdir()
    path = Path(write(name, tracks(), tmp_path))
    for role in ("lat", "lon", "time"):
        for chunk in [p for p in (path / role).rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr"))]:
            chunk.unlink()
    with pytest.raises(DataError, match="1 of 1 chunks of 'lat' are not in the store"):
        opened(path)


@pytest.mark.parametrize("name", ["ragged.nc", "ragged-v3.zarr"])
def test_data_cut_in_half_are_refused(name: str, tmp_path: Path):
    path = Path(write(name, [track(n=5000)], tmp_path))
    for victim in [path] if path.is_file() else (path / "lat" / "c").rglob("*"):
        if victim.is_file():
            victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    with pytest.raises(DataError, match=r"expected a NetCDF file or a zarr store|: 'l?at' cannot be read"):
        list(opened(path).blocks())


def test_fixes_on_a_dimension_called_time(tmp_path: Path):
    data = per_fix([track()]).swap_dims(index="time").set_coords("time")
    check_tracks(opened(save(data, tmp_path / "a.nc")), [track()])


def test_scalar_id_names_a_single_drifter(tmp_path: Path):
    data = per_fix([track()]).drop_vars("drifter_id").assign(id=((), 104099))
    check_tracks(opened(save(data, tmp_path / "a.nc")), [track()])


def test_the_manifest_decides_between_two_variables(tmp_path: Path):
    path = save(broken("two lats").assign(latitude=broken("").lat + 1), tmp_path / "a.nc")
    np.testing.assert_array_equal(read(path, variables={"lat": "latitude"}).lat, broken("").lat.values + 1)
    with pytest.raises(DataError, match=r"drifters\.variables\.lat names 'y', which is not there; found .*latitude"):
        opened(path, variables={"lat": "y"})


def test_names_are_told_apart_by_case_and_dimension(tmp_path: Path):
    data = ragged(tracks()).rename({"id": "ID", "lat": "Latitude", "traj": "rows", "rowsize": "row_size"})
    check_tracks(opened(save(data, tmp_path / "a.nc")), tracks())
    ids = np.repeat([t.drifter for t in tracks()], [4, 3, 5])
    data = data.drop_vars("ID").assign(ids=("obs", ids))
    check_tracks(opened(save(data, tmp_path / "b.nc")), tracks())
    # A segment's number does not hide the buoy's.
    data = data.assign(id=("rows", [0, 1, 2]), drifter_id=("rows", [7, 7, 8]))
    source = opened(save(data, tmp_path / "c.nc"))
    assert next(source.blocks()).drifter == {0: "7", 1: "7", 2: "8"}
    assert any("1 of 2 drifters have several trajectories" in note for note in source.notes)


def test_empty_rows_are_skipped(tmp_path: Path):
    data = ragged(tracks())
    sizes = xr.Dataset({"rowsize": ("traj", [0, 4, 0, 3, 5]), "id": ("traj", [1, 104099, 2, 122726, 55])})
    source = opened(save(data.drop_vars(["rowsize", "id"]).merge(sizes), tmp_path / "a.nc"))
    check_tracks(source, tracks(), max_fixes=4)
    assert any("2 of 5 rows hold no fixes" in note for note in source.notes)


def test_times_that_are_unsorted_duplicate_or_missing_are_mended_and_counted(tmp_path: Path):
    data = ragged(tracks())
    data["time"][:4] = START + 3600 * np.array([2, 1, 2, 0])
    data["time"] = data.time.astype(np.float64).assign_attrs(data.time.attrs)
    data["time"][11] = np.nan
    source = opened(save(data, tmp_path / "a.nc"))
    (block,) = source.blocks()
    np.testing.assert_array_equal(block.time[:3], START + 3600 * np.arange(3))
    np.testing.assert_array_equal(block.source_row, [3, 1, 0, 4, 5, 6, 7, 8, 9, 10])
    np.testing.assert_array_equal(block.lon, data.lon.values[block.source_row])
    assert block.dropped == {"time missing": 1, "duplicate time": 1}
    assert block.resorted == 1
    assert source.notes[-1] == "the times of 1 trajectories were out of order and were sorted"


@pytest.mark.parametrize("fill", [-1e34, 1e20, 9999.0, np.nan, np.inf, -np.inf], ids=str)
def test_fills_are_counted(fill: float, tmp_path: Path):
    data = ragged(tracks())
    data["lat"][2] = fill
    data["lon"][5] = fill
    block = read(save(data, tmp_path / "a.nc"))
    assert block.dropped == {"position missing": 2}
    assert not {2, 5} & set(block.source_row.tolist())


def test_packed_positions_are_decoded(tmp_path: Path):
    data = ragged(tracks())
    packing = {"dtype": "int32", "scale_factor": 1e-5, "_FillValue": -2147483647}
    data["lat"][1] = np.nan
    data.to_netcdf(tmp_path / "a.nc", encoding={"lat": packing, "lon": packing})
    block = read(tmp_path / "a.nc")
    assert block.dropped == {"position missing": 1}
    np.testing.assert_allclose(block.lat, np.delete(data.lat.values, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "units", "calendar"),
    [
        ([14610.25], "days since 1970-01-01", "standard"),
        ([40177.25], "days since 1900-1-1 00:00:00", "gregorian"),
        ([6], "hours since 2010-01-01T00:00:00Z", "proleptic_gregorian"),
        ([8], "hours since 2010-01-01 00:00:00 +02:00", "standard"),
        ([360], "minutes since 2010-01-01", "standard"),
        ([1262325600 * 10**9], "nanoseconds since 1970-01-01", "standard"),
        ([1262325600000], "milliseconds since 1970-01-01", "standard"),
        ([14610.25 - 3e-6], "days since 1970-01-01", "standard"),
        ([733772.25], "days since 0001-01-01", "proleptic_gregorian"),
        ([733774.25], "days since 0001-01-01", "standard"),
    ],
)
def test_times_count_from_any_epoch(values: list[float], units: str, calendar: str):
    out = seconds(np.array(values), {"units": units, "calendar": calendar}, "drifters x")
    assert out.dtype == np.int64
    assert out.tolist() == [START + 6 * 3600]


def test_datetimes_are_read_and_fills_are_no_times():
    stamps = np.array(["2010-01-01T00:00:00.6", "NaT"], "datetime64[ms]")
    assert seconds(stamps, {}, "x").tolist() == [START + 1, NO_TIME]
    units = {"units": "days since 1970-01-01", "_FillValue": 7}
    assert seconds(np.array([1, 7, -(2**31)]), units, "x").tolist() == [86400, NO_TIME, NO_TIME]
    assert seconds(np.array([1e20, np.inf, -1e34]), units, "x").tolist() == [NO_TIME] * 3


def test_longitudes_are_wrapped(tmp_path: Path):
    data = ragged([track(n=8)])
    data["lon"][:] = [0.0, 359.75, 180.0, -180.0, 360.0, 185.5, -0.25, -180 - 1e-14]
    block = read(save(data, tmp_path / "a.nc"))
    np.testing.assert_array_equal(block.lon, [0.0, -0.25, -180.0, -180.0, 0.0, -174.5, -0.25, -180.0])


@pytest.mark.parametrize(
    "ids",
    [
        np.array([104099, 122726, 55], np.int32),
        np.array([104099.0, 122726.0, 55.0]),
        np.array(["104099", " 122726", "55"]),
        np.array([b"104099", b"122726", b"55"]),
    ],
    ids=["int", "float", "text", "bytes"],
)
@pytest.mark.parametrize("kind", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_ids_are_the_same_text(ids: np.ndarray, kind: str, tmp_path: Path):
    data = ragged(tracks()).assign(id=("traj", ids))
    data["time"] = data.time.astype(np.float64).assign_attrs(data.time.attrs)
    data.to_netcdf(tmp_path / "a.nc", format=kind)
    check_tracks(opened(tmp_path / "a.nc"), tracks())


def test_one_drifter_may_have_two_rows(tmp_path: Path):
    rows = [track(), track(start=START + 10**6)]
    source = opened(save(ragged(rows), tmp_path / "a.nc"))
    check_tracks(source, rows)
    assert any("1 of 1 drifters have several trajectories" in note for note in source.notes)


@pytest.mark.parametrize(
    ("status", "want"),
    [
        (np.array([1, 0, 1, 0] * 3, bool), [1, 0, 1, 0]),
        (np.array([1.0, 0.5, np.nan, 0.0] * 3), [1, -1, -1, 0]),
        (np.array([1, 0, 2, -128] * 3, np.int8), [1, 0, -1, -1]),
        (np.zeros(12, np.int64), [0, 0, 0, 0]),
    ],
    ids=["bool", "half and nan", "other", "all lost"],
)
def test_drogue_status(status: np.ndarray, want: list[int], tmp_path: Path):
    block = read(save(ragged(tracks()).assign(drogue_status=("obs", status)), tmp_path / "a.nc"))
    assert block.drogue.dtype == np.int8
    assert block.drogue[:4].tolist() == want


def test_drifters_without_a_drogue_flag_are_noted(tmp_path: Path):
    source = opened(save(ragged(tracks()).drop_vars("drogue_status"), tmp_path / "a.nc"))
    assert not source.has_drogue
    assert any("state of the drogue" in note for note in source.notes)
    assert (next(source.blocks()).drogue == -1).all()


def test_the_date_of_loss_tells_the_state_of_the_drogue(tmp_path: Path):
    rows = [track(k, 3) for k in range(1, 5)]
    # within the track, unknown from the start, never, before deployment
    lost = np.array([START + 3600.0, 0.0, np.nan, START - 10**6])
    data = ragged(rows).drop_vars("drogue_status")
    data["drogue_lost_date"] = ("traj", lost, {"units": "seconds since 1970-01-01"})
    path = save(data, tmp_path / "a.nc")
    assert read(path).drogue.tolist() == [1, 0, 0, -1, -1, -1, 1, 1, 1, 0, 0, 0]
    source = opened(path)
    assert source.has_drogue
    cut = next(segments.cut(next(source.blocks()), DrifterSource(path=path), Segment(days=1), source.has_drogue))
    assert cut.kept["drogued"] == 4
    assert (cut.dropped["drogue lost"], cut.dropped["drogue unknown"]) == (5, 3)


@pytest.mark.parametrize(
    ("units", "factor"), [("s", 1), ("seconds", 1), ("hours", 3600), ("d", 86400), ("minutes", 60), (None, 1)]
)
def test_gaps_are_read_in_their_units(units: str | None, factor: int, tmp_path: Path):
    data = ragged(tracks())
    data["gap"].attrs = {"units": units} if units else {}
    data["gap"][:4] = [2.0, np.nan, -1.0, 1e34]
    np.testing.assert_array_equal(read(save(data, tmp_path / "a.nc")).gap[:4], [2.0 * factor, np.nan, np.nan, np.nan])


def test_drifters_without_gaps_are_noted(tmp_path: Path):
    source = opened(save(ragged(tracks()).drop_vars("gap"), tmp_path / "a.nc"))
    assert np.isnan(next(source.blocks()).gap).all()
    assert any("gaps between satellite fixes" in note for note in source.notes)


@pytest.mark.parametrize("name", ["ragged.nc", "ragged-v3.zarr", "fixes.csv"])
def test_the_fingerprint_tells_content_and_the_state_tells_copies(name: str, tmp_path: Path):
    first = write(name, tracks(), tmp_path)
    before = opened(first)
    assert opened(first).fingerprint == before.fingerprint
    assert opened(first).state == before.state
    assert json.loads(json.dumps([before.fingerprint, before.state])) == [before.fingerprint, before.state]
    copy = shutil.copytree if Path(first).is_dir() else shutil.copyfile
    (tmp_path / "copy").mkdir()
    second = tmp_path / "copy" / name
    copy(first, second)
    for path in [second, *second.rglob("*")]:
        os.utime(path, (START, START))
    after = opened(second)
    assert after.fingerprint == before.fingerprint | {"path": str(second)}
    assert after.state != before.state
    changed = tracks()
    changed[1].lat[2] += 1.0
    (tmp_path / "changed").mkdir()
    other = opened(write(name, changed, tmp_path / "changed"))
    assert other.fingerprint["sha256"] != before.fingerprint["sha256"]


def test_csv_variants(tmp_path: Path):
    path = tmp_path / "a.csv"
    text = erddap(tracks()).replace(",UTC,degrees_north,degrees_east,s,\n", "")
    path.write_text("\ufeff" + text)
    check_tracks(opened(path), tracks())
    head, body = text.split("\n", 1)
    path.write_text(head.replace("latitude", "latitude (degrees_north)").replace("gap", "gap (hours)") + "\n" + body)
    np.testing.assert_array_equal(read(path).gap, ragged(tracks()).gap.values * 3600)
    path.write_text(
        "ID,time,lat,lon\n,seconds since 2010-01-01,,\n1.0,0,2,3\n1.0,60,2,\n".replace(",,\n", ",deg,deg\n", 1)
    )
    block = read(path)
    assert (block.time.tolist(), block.drifter, block.dropped) == ([START], {0: "1"}, {"position missing": 1})


@pytest.mark.parametrize(
    ("name", "rows", "fixes", "drifters"),
    [
        ("gdp_hourly_subset/observed_traj_subset.nc", 334, 121, 8),
        ("s1_gdp104099_2012-06/traj_*.nc", 1, 121, 1),
        ("s3_melodi_2025-06/traj_for_sim.nc", 1, 120, 1),
    ],
)
def test_real_files(name: str, rows: int, fixes: int, drifters: int, real_data: Path):
    blocks = list(opened(real_data / name).blocks(5000))
    out = joined(blocks)
    np.testing.assert_array_equal(np.bincount(out["row"]), np.full(rows, fixes))
    assert len({drifter for block in blocks for drifter in block.drifter.values()}) == drifters
    assert set(np.diff(out["time"].reshape(rows, fixes)).ravel()) == {3600}
