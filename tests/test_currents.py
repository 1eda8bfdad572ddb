"""Every product of the same field must read the same, and every bad one must be refused by name."""

import errno
import hashlib
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr.storage
from hypothesis import given, settings
from hypothesis import strategies as st

from driftcal.preprocess.recipe import CurrentSource
from driftcal.preprocess.sources import files
from driftcal.preprocess.sources.encoding import Encoding
from driftcal.preprocess.sources.gridded.axes import latitude, level_times, longitude
from driftcal.preprocess.sources.gridded.currents import LAND_LEVELS, Currents, land_levels
from driftcal.preprocess.sources.gridded.open_currents import open_currents
from driftcal.preprocess.sources.gridded.packing import Packing, pack_level
from driftcal.preprocess.sources.units import speed_factor
from driftcal.shared.errors import DataError
from driftcal.shared.store.schema import FILL, OVER

NT, NY, NX = 5, 6, 9
EAST = "surface_geostrophic_eastward_sea_water_velocity"
START = 14_610  # 2010-01-01, days since 1970-01-01


def truth(nt: int = NT, ny: int = NY, nx: int = NX, seed: int = 0) -> np.ndarray:
    """Packed currents (nt, 2, ny, nx) with some land and a cell missing on one level only."""
    ticks = np.random.default_rng(seed).integers(-12_000, 12_000, (nt, 2, ny, nx)).astype(np.int16)
    ticks[ticks == 0] = 1
    ticks[:, :, :2, 3] = FILL
    ticks[nt // 3, :, 4, 5] = FILL
    return ticks


def dataset(ticks: np.ndarray, kind: str = "float64", names: tuple[str, str] = ("ugos", "vgos")) -> xr.Dataset:
    """The field as a product writes it: `kind` is the stored type; integers are packed, floats are m/s."""
    nt, _, ny, nx = ticks.shape
    fill = {"int32": -2147483647, "int16": -32768}.get(kind)
    variables = {}
    for name, field in zip(names, np.moveaxis(ticks, 1, 0), strict=True):
        attrs = {"units": "m/s"}
        if fill is None:
            stored = np.where(field == FILL, np.nan, field * 1e-4).astype(kind)
        else:
            stored = np.where(field == FILL, np.array(fill, kind), field.astype(kind))
            attrs |= {"scale_factor": 1e-4, "_FillValue": np.array(fill, kind)[()]}
        variables[name] = (("time", "latitude", "longitude"), stored, attrs)
    return xr.Dataset(
        variables,
        {
            "time": ("time", np.arange(START, START + nt), {"units": "days since 1970-01-01"}),
            "latitude": ("latitude", (-20 + 0.25 * np.arange(ny)).astype(np.float32)),
            "longitude": ("longitude", (30 + 0.125 * np.arange(nx)).astype(np.float32)),
        },
    )


def netcdf(tmp_path: Path, ds: xr.Dataset, name: str = "currents.nc", **options) -> str:
    ds.to_netcdf(tmp_path / name, **options)
    return str(tmp_path / name)


def opened(path: str, **options) -> Currents:
    return open_currents(CurrentSource(path=path, **options))


def everything(currents: Currents) -> np.ndarray:
    return currents.read(0, currents.time.size)


def refused(path: str, *texts: str, **options) -> None:
    with pytest.raises(DataError) as caught:
        opened(path, **options)
    for text in texts:
        assert text in str(caught.value)


# ---- the same field from every product


@pytest.mark.parametrize("kind", ["int32", "int16", "float32", "float64"])
def test_netcdf_of_every_type_reads_the_same(tmp_path, kind):
    currents = opened(netcdf(tmp_path, dataset(truth(), kind)))
    np.testing.assert_array_equal(everything(currents), truth())
    assert everything(currents).dtype == np.int16
    np.testing.assert_array_equal(currents.time, (START + np.arange(NT)) * 86_400)
    assert (currents.step, currents.periodic, currents.frozen) == (86_400, False, False)
    assert (currents.lat.start, currents.lat.step, currents.lat.size) == (-20.0, 0.25, NY)
    assert (currents.lon.start, currents.lon.step, currents.lon.size) == (30.0, 0.125, NX)
    json.dumps([currents.fingerprint, currents.state])


@pytest.mark.parametrize("kind", ["int32", "float64"])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_zarr_reads_the_same(tmp_path, kind, version, consolidated):
    path = tmp_path / "currents.zarr"
    chunks = {name: {"chunks": (1, 4, 5)} for name in ("ugos", "vgos")}
    dataset(truth(), kind).to_zarr(path, zarr_format=version, consolidated=consolidated, encoding=chunks)
    currents = opened(str(path))
    np.testing.assert_array_equal(everything(currents), truth())
    np.testing.assert_array_equal(currents.read(1, 4), truth()[1:4])
    assert currents.chunk_levels == 1


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_daily_files_read_the_same(tmp_path, form):
    for day in range(NT):
        netcdf(tmp_path, dataset(truth(), "int16").isel(time=[day]), f"{day}.nc", format=form)
    currents = opened(str(tmp_path / "*.nc"))
    np.testing.assert_array_equal(everything(currents), truth())
    np.testing.assert_array_equal(currents.read(2, 4), truth()[2:4])
    assert currents.fingerprint["files"] == NT


def test_urls_read_the_same(tmp_path):
    memory = fsspec.filesystem("memory")
    path = netcdf(tmp_path, dataset(truth(), "int32"))
    memory.pipe_file("/currents/a.nc", Path(path).read_bytes())
    dataset(truth()).to_zarr("memory://currents/b.zarr", zarr_format=2, consolidated=True)
    for url in ("memory://currents/a.nc", "memory://currents/*.nc", "memory://currents/b.zarr"):
        np.testing.assert_array_equal(everything(opened(url)), truth())
    refused("memory://currents/none.nc", "nothing is there")
    refused("nosuch://currents/none.nc", "cannot be reached")


@settings(max_examples=200, deadline=None, database=None)
@given(
    n=st.integers(4, 400),
    step=st.sampled_from([0.05, 1 / 12, 0.125, 0.25, 1.0]),
    start=st.floats(-180, 359),
    convention=st.sampled_from([-180.0, 0.0]),
    sort=st.booleans(),
    single=st.booleans(),
)
def test_longitudes_in_any_convention_are_the_same_places(n, step, start, convention, sort, single):
    n = min(n, int(355 / step))
    true = start + step * np.arange(n)
    given_ = (true - convention) % 360 + convention
    given_ = np.sort(given_) if sort else given_
    given_ = given_.astype(np.float32) if single else given_
    axis, order, periodic, _ = longitude(given_, "lon")
    assert not periodic
    assert -180 <= axis.start < 360
    off = (axis.values - true + 180) % 360 - 180
    assert np.abs(off).max() < 0.02 * step
    np.testing.assert_allclose((given_[order] - axis.values + 180) % 360, 180, atol=0.02 * step)


def test_global_field_is_the_same_in_every_convention(tmp_path):
    nx = 24
    ticks = truth(nx=nx)
    places = -172.5 + 15.0 * np.arange(nx)
    fields = {}
    for name, shift, wrap in (("a", 0, -180), ("b", 12, 0), ("c", 5, -180), ("d", 5, 0)):
        ds = dataset(np.roll(ticks, -shift, axis=-1), "int32")
        lon = (np.roll(places, -shift) - wrap) % 360 + wrap
        currents = opened(netcdf(tmp_path, ds.assign_coords(longitude=lon), f"{name}.nc"))
        assert currents.periodic
        assert currents.lon.step * currents.lon.size == 360
        column = np.rint((places - currents.lon.start) % 360 / 15).astype(int) % nx
        fields[name] = everything(currents)[..., column]
    for field in fields.values():
        np.testing.assert_array_equal(field, ticks)


def test_transposed_and_descending_and_centimetres_read_the_same(tmp_path):
    ds = dataset(truth()).isel(latitude=slice(None, None, -1)).transpose("longitude", "time", "latitude")
    for name in ("ugos", "vgos"):
        ds[name] = (ds[name].dims, ds[name].values * 100, {"units": "cm s-1"})
    currents = opened(netcdf(tmp_path, ds))
    np.testing.assert_array_equal(everything(currents), truth())
    assert any("descending, flipped" in note for note in currents.notes)
    assert any("converted from cm s-1" in note for note in currents.notes)


def test_pickle_and_threads_read_the_same(tmp_path):
    paths = [netcdf(tmp_path, dataset(truth(nt=20), "int32").isel(time=[i]), f"{i:02}.nc") for i in range(20)]
    currents = pickle.loads(pickle.dumps(opened(str(tmp_path / "*.nc"))))
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda i: currents.read(i % 17, i % 17 + 3), range(100)))
    for i, block in enumerate(got):
        np.testing.assert_array_equal(block, truth(nt=20)[i % 17 : i % 17 + 3])
    Path(paths[4]).unlink()
    with pytest.raises(DataError, match=r"04\.nc"):
        currents.read(3, 6)


@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_each_chunk_is_fetched_once(tmp_path, monkeypatch, chunk):
    path = tmp_path / "currents.zarr"
    encoding = {name: {"chunks": (chunk, 4, 5)} for name in ("ugos", "vgos")}
    dataset(truth(nt=14)).to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
    currents = opened(str(path))
    fetched = []
    get = zarr.storage.LocalStore.get

    def counted(self, key, *args, **kwargs):
        fetched.append(key)
        return get(self, key, *args, **kwargs)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counted)
    np.testing.assert_array_equal(currents.read(2, 11), truth(nt=14)[2:11])
    chunks = [key for key in fetched if "gos/c/" in key]
    assert len(chunks) == len(set(chunks)) == 2 * 4 * len({level // chunk for level in range(2, 11)})


# ---- currents that are wrong, or unlike others


def test_components_that_are_one_or_exchanged_are_refused(tmp_path):
    """By what the file itself calls them; names that say nothing are believed."""
    path = netcdf(tmp_path, dataset(truth()))
    refused(path, "u and v are both 'ugos'", "currents.variables.u", variables={"u": "ugos", "v": "ugos"})
    named = dataset(truth()).rename(ugos="eastward_velocity", vgos="northward_velocity")
    swapped = {"u": "northward_velocity", "v": "eastward_velocity"}
    refused(netcdf(tmp_path, named, "named.nc"), "'northward_velocity', the northward component", variables=swapped)
    standard = dataset(truth()).rename(ugos="a", vgos="b")
    standard["a"].attrs["standard_name"], standard["b"].attrs["standard_name"] = "", EAST
    refused(netcdf(tmp_path, standard, "standard.nc"), "'b', the eastward component", variables={"u": "a", "v": "b"})
    plain = dataset(truth()).rename(ugos="a", vgos="b")
    for name in "ab":
        plain[name].attrs.pop("standard_name", None)
    found = everything(opened(netcdf(tmp_path, plain, "plain.nc"), variables={"u": "b", "v": "a"}))
    np.testing.assert_array_equal(found, truth()[:, ::-1])


def test_a_sea_level_is_no_current(tmp_path):
    level = dataset(truth())
    level["ugos"].attrs["units"] = "m"
    refused(netcdf(tmp_path, level), "'ugos' has units 'm': a length, not a speed", "currents.variables.u")


def test_anomalies_are_no_currents(tmp_path):
    ds = dataset(truth(), names=("ugosa", "vgosa"))
    path = netcdf(tmp_path, ds)
    refused(path, "ugosa", "anomalies")
    refused(path, "'ugosa'", "anomalies", variables={"u": "ugosa", "v": "vgosa"})
    named = dataset(truth(), names=("x", "y"))
    named["x"].attrs["standard_name"] = EAST + "_assuming_sea_level_for_geoid"
    refused(netcdf(tmp_path, named, "b.nc"), "no 'u' variable")


def test_standard_names_serve_where_no_alias_does(tmp_path):
    ds = dataset(truth(), names=("x", "y")).rename(latitude="j", longitude="i")
    for name, standard in (("x", EAST), ("y", EAST.replace("east", "north")), ("j", "latitude"), ("i", "longitude")):
        ds[name].attrs["standard_name"] = standard
    ds["ugosa"] = (ds["x"].dims, ds["x"].values * 0)
    np.testing.assert_array_equal(everything(opened(netcdf(tmp_path, ds))), truth())
    ds["z"] = ds["x"]
    refused(netcdf(tmp_path, ds, "b.nc"), "'x' and 'z'", "currents.variables.u")


def test_a_missing_component_is_refused(tmp_path):
    refused(netcdf(tmp_path, dataset(truth()).drop_vars("vgos")), "no 'v' variable", "currents.variables.v")


def test_components_on_different_grids_are_refused(tmp_path):
    ds = dataset(truth())
    ds["vgos"] = (("time", "latitude", "edge"), np.zeros((NT, NY, NX + 1)))
    refused(netcdf(tmp_path, ds), "different grids", "'ugos'", "'vgos'")


def test_packed_integers_without_a_scale_are_refused(tmp_path):
    ds = dataset(truth(), "int16")
    del ds["vgos"].attrs["scale_factor"]
    refused(netcdf(tmp_path, ds), "vgos", "without scale_factor")


def test_a_scale_that_was_applied_twice_is_refused(tmp_path):
    refused(netcdf(tmp_path, dataset(truth()) * 1e-4), "applied twice")


@pytest.mark.parametrize("attrs", [{}, {"units": "1"}, {"units": "m/s"}])
def test_values_like_centimetres_per_second_are_refused(tmp_path, attrs):
    ds = dataset(truth()) * 100
    for name in ("ugos", "vgos"):
        ds[name].attrs = attrs
    refused(netcdf(tmp_path, ds), "values like cm/s")


def test_centimetres_in_one_component_only_are_refused(tmp_path):
    ds = dataset(truth())
    ds["vgos"] = ds.vgos * 100
    refused(netcdf(tmp_path, ds), "vgos: the median", "values like cm/s. Set currents.units.v in the manifest")
    currents = opened(str(tmp_path / "currents.nc"), units={"v": "cm/s"})
    np.testing.assert_array_equal(everything(currents), truth())


@pytest.mark.parametrize(("units", "factor"), [
    ("m/s", 1), ("m s-1", 1), ("m s**-1", 1), ("m.s-1", 1), ("m s^{-1}", 1), ("ms-1", 1), ("m s\u207b\u00b9", 1),
    ("Meter/sec", 1), ("metres per second", 1), ("meter second-1", 1), ("cm/s", 0.01), ("cm s-1", 0.01),
    ("centimeters/second", 0.01), ("mm s-1", 0.001), ("km/h", 1 / 3.6), ("km day-1", 1 / 86.4), ("m/day", 1 / 86_400),
    ("km s-1", 1000), ("knots", 1852 / 3600), ("kt", 1852 / 3600), ("", None), ("1", None), (None, None),
])  # fmt: skip
def test_units_of_a_speed_are_known(units, factor):
    assert speed_factor(units, "u") == (None if factor is None else pytest.approx(factor, rel=1e-12))


@pytest.mark.parametrize(
    "units", ["furlongs", "ft/s", "1e-2 m s-1", "m", "s", "m/s2", "m s-2", "m2 s-1", "ms", "m-1 s-1", "degrees", "psu"]
)
def test_units_that_are_not_of_a_speed_are_refused(tmp_path, units):
    with pytest.raises(DataError, match=r"u has units .* not known as those of a speed; expected m/s"):
        speed_factor(units, "u")
    ds = dataset(truth(nt=4), "int32")
    netcdf(tmp_path, ds.isel(time=slice(0, 2)), "0.nc")
    other = ds.isel(time=slice(2, 4))
    other["vgos"].attrs["units"] = units
    netcdf(tmp_path, other, "1.nc")  # of the first file alone one would not see it
    with pytest.raises(DataError, match=r"1\.nc: vgos has units .*"):
        everything(opened(str(tmp_path / "*.nc")))


def test_knots_are_converted(tmp_path):
    ds = dataset(truth())
    for name in ("ugos", "vgos"):
        ds[name] = ds[name] * (3600 / 1852)
        ds[name].attrs = {"units": "knots"}
    np.testing.assert_array_equal(everything(opened(netcdf(tmp_path, ds))), truth())


def test_the_unit_of_one_component_serves_both(tmp_path):
    ds = dataset(truth()) * 100
    ds["ugos"].attrs, ds["vgos"].attrs = {"Unit": "cm/s"}, {}
    np.testing.assert_array_equal(everything(opened(netcdf(tmp_path, ds))), truth())


def test_an_unmasked_fill_value_is_refused(tmp_path):
    ds = dataset(truth())
    ds["ugos"] = ds["ugos"].fillna(-214748.3647)
    path = netcdf(tmp_path, ds, encoding={"ugos": {"_FillValue": None}})
    refused(path, "unmasked fill value", "-214748.3647", "ugos", "in 2 cells", "missing are 9.969209968e+36")
    currents_path = netcdf(tmp_path, ds, "declared.nc", encoding={"ugos": {"_FillValue": -2147483647.0}})
    np.testing.assert_array_equal(everything(opened(currents_path)), truth())


def test_an_unmasked_fill_value_on_a_later_level_is_refused_when_read(tmp_path):
    ds = dataset(truth(nt=8))
    ds["vgos"].values[2, 3, 3] = 1e20
    currents = opened(netcdf(tmp_path, ds))
    np.testing.assert_array_equal(currents.read(3, 5), truth(nt=8)[3:5])
    with pytest.raises(DataError, match=r"vgos: 1e\+20 m/s in 1 cells: an unmasked fill value"):
        currents.read(0, 3)


def test_missing_in_one_component_is_missing_in_both(tmp_path):
    ds = dataset(truth())
    ds["ugos"].values[0, 3, 3] = np.nan
    assert (everything(opened(netcdf(tmp_path, ds)))[0, :, 3, 3] == FILL).all()


def test_latitudes_are_uniform_and_ascend_or_descend():
    axis, order, notes = latitude((10 - np.arange(7) / 12).astype(np.float32), "lat")
    np.testing.assert_allclose(axis.values, 9.5 + np.arange(7) / 12, atol=1e-5)
    assert order == slice(None, None, -1)
    assert notes
    with pytest.raises(DataError, match="not uniform"):
        latitude(np.degrees(np.arcsin(np.linspace(-0.8, 0.8, 30))), "lat")
    with pytest.raises(DataError, match="ascend or descend"):
        latitude(np.array([1.0, 2.0, 1.5]), "lat")
    with pytest.raises(DataError, match="swapped"):
        latitude(np.arange(80.0, 100.0), "lat")


def test_longitudes_may_be_rotated_and_repeat_their_seam():
    full = np.arange(-180.0, 180.25, 0.5)
    axis, order, periodic, notes = longitude(full, "lon")
    assert (axis.start, axis.step, axis.size, periodic) == (-180.0, 0.5, 720, True)
    assert order == slice(0, 720)
    assert "repeats" in notes[0]
    axis, order, periodic, notes = longitude(np.concatenate([full[360:], full[1:360]]), "lon")
    assert (axis.start, axis.size, periodic) == (0.0, 720, True)
    # 0, 0.5, ... 180, -179.5: the seam column 180 is there once here, and twice with -180 added.
    axis, order, periodic, notes = longitude(np.concatenate([full[360:], full[:360]]), "lon")
    assert (axis.start, axis.size, periodic) == (0.0, 720, True)
    assert "repeats" in notes[0]
    axis, order, periodic, notes = longitude(np.array([1.0, 2.0, 2.0, 3.0, 4.0]), "lon")
    assert (axis.start, axis.size, periodic, order.tolist()) == (1.0, 4, False, [0, 1, 3, 4])
    assert "1 longitudes are there twice, such as 2" in notes[0]
    with pytest.raises(DataError, match="rotation"):
        longitude(np.array([1.0, 2.0, 4.0, 3.0, 5.0]), "lon")
    with pytest.raises(DataError, match="rotation"):
        longitude(np.array([1.0, 2.0, 4.0, 7.0, 8.0]), "lon")


def test_the_repeated_seam_column_is_dropped_from_the_field(tmp_path):
    ticks = truth(nx=24)
    twice = np.concatenate([ticks, ticks[..., :1]], axis=-1)
    ds = dataset(twice, "int32").assign_coords(longitude=15.0 * np.arange(25))
    currents = opened(netcdf(tmp_path, ds))
    assert currents.periodic
    np.testing.assert_array_equal(everything(currents), ticks)


def test_only_the_axis_tells_whether_a_grid_is_global(tmp_path):
    ds = dataset(truth()).assign_attrs(geospatial_lon_min=-180.0, geospatial_lon_max=180.0, title="Global Ocean")
    assert not opened(netcdf(tmp_path, ds)).periodic


def test_days_that_are_missing_unsorted_or_repeated_are_noted(tmp_path):
    ds = dataset(truth(nt=8), "int32")
    ds = ds.assign_coords(time=("time", ds["time"].values + 0.5, {"units": "days since 1970-1-1"}))
    for name, days in (("a", [6, 5]), ("b", [0, 2]), ("c", [2, 7])):
        netcdf(tmp_path, ds.isel(time=days), f"{name}.nc")
    currents = opened(str(tmp_path / "*.nc"))
    np.testing.assert_array_equal(currents.time, (START + np.array([0, 2, 5, 6, 7])) * 86_400 + 43_200)
    np.testing.assert_array_equal(everything(currents), truth(nt=8)[[0, 2, 5, 6, 7]])
    assert currents.step == 86_400
    notes = "\n".join(currents.notes)
    assert "2010-01-03T12:00:00 of c.nc (level 0) dropped, b.nc has that time already" in notes
    assert "sorted" in notes
    assert "3 levels are missing" in notes


def test_irregular_times_are_refused(tmp_path):
    ds = dataset(truth())
    time = ds["time"].values + np.array([0, 0, 0, 0.3, 0])
    ds = ds.assign_coords(time=("time", time, {"units": "days since 1970-01-01"}))
    refused(netcdf(tmp_path, ds), "not a multiple")


def test_a_last_level_that_repeats_the_first_is_dropped(tmp_path):
    smooth = (3000 * np.sin(np.arange(NY)[:, None] + 0.02 * np.arange(8)[:, None, None, None] + np.arange(NX))).round()
    ticks = np.repeat(smooth, 2, axis=1).astype(np.int16)
    ticks[-1] = ticks[0]
    currents = opened(netcdf(tmp_path, dataset(ticks, "int32")))
    assert currents.time.size == 7
    assert any("repeats the values of 2010-01-01" in note for note in currents.notes)
    steady = np.repeat(ticks[:1], 8, axis=0)
    assert opened(netcdf(tmp_path, dataset(steady, "int32"), "steady.nc")).time.size == 8


def test_land_is_what_is_never_there(tmp_path):
    ticks = truth(nt=30)
    ticks[7, :, 2:5, 5:8] = FILL  # a failed download
    ticks[:9, :, 5, :] = FILL  # ice
    ticks[:, :, 0, 0] = 0  # land written as zeros
    ticks[:, 0, 1, 1] = 0  # zonal flow may be zero
    expected = np.zeros((NY, NX), bool)
    expected[:2, 3] = expected[0, 0] = True
    currents = opened(netcdf(tmp_path, dataset(ticks, "int32")))
    np.testing.assert_array_equal(currents.land(), expected)
    assert currents.land() is currents.land()


@pytest.mark.parametrize("years", [2, 3, 5, 8, 13, 14, 21, 21.03, 23, 24, 29, 33.2, 34, 40])
def test_land_is_looked_for_in_every_season(years):
    time = np.arange(np.datetime64("1993-01-01"), np.datetime64("1993-01-01") + round(years * 365.2425))
    chosen = land_levels(time.astype("datetime64[s]").astype(np.int64))
    months = time[chosen].astype("datetime64[M]").astype(int) % 12
    assert set(months.tolist()) == set(range(12))
    assert (chosen[0], chosen[-1]) == (0, len(time) - 1)
    assert (np.diff(chosen) > 0).all()
    assert LAND_LEVELS - 3 <= len(chosen) <= LAND_LEVELS
    # the whole record too: no stretch of it is left out
    assert np.diff(chosen).max() < max(2.5 * len(time) / LAND_LEVELS, 800)


@pytest.mark.parametrize(
    ("days", "expected"), [([0], [0]), ([0, 1], [0, 1]), (range(20), range(20)), ([0, 900, 901], [0, 1, 2])]
)
def test_land_levels_of_short_and_broken_records(days, expected):
    assert land_levels(1_000_000 + 86_400 * np.array(days)).tolist() == list(expected)


def test_a_part_is_small_and_reads_the_same(tmp_path):
    for day in range(9):
        netcdf(tmp_path, dataset(truth(nt=9), "int32").isel(time=[day]), f"{day}.nc")
    currents = opened(str(tmp_path / "*.nc"))
    assert currents.land().any()
    part = pickle.loads(pickle.dumps(currents.part(np.arange(3, 7))))
    np.testing.assert_array_equal(everything(part), truth(nt=9)[3:7])
    assert len(part.paths) == 4
    assert pickle.loads(pickle.dumps(currents))._memo == {}
    assert currents.land() is currents.land()


def test_a_part_keeps_the_levels_of_a_chunk_that_it_was_sent_for(tmp_path):
    ds = dataset(truth(nt=20), "int32")
    path = str(tmp_path / "c.zarr")
    ds.to_zarr(path, zarr_format=2, consolidated=True, encoding={n: {"chunks": (10, NY, NX)} for n in ("ugos", "vgos")})
    wanted = np.array([2, 3, 15])
    part = pickle.loads(pickle.dumps(opened(path).part(wanted)))
    found = []
    for k, (_, level) in zip(wanted, part.each(wanted - 2), strict=True):
        np.testing.assert_array_equal(level, truth(nt=20)[k])
        found.append(part._levels.held_bytes)
    assert found[-1] == 0
    assert part._levels.decoded == 3


def test_currents_faster_than_int16_holds_are_marked(tmp_path):
    ds = dataset(truth())
    for i, speed in enumerate([3.2766, 3.2767, -3.2766, -3.2768, 4.5]):
        ds["ugos"].values[0, 3, i] = speed
        ds["ugos"].values[1, 3, i] = np.nan
    row = everything(opened(netcdf(tmp_path, ds)))[:, 0, 3, :5]
    assert row[0].tolist() == [32766, OVER, -32766, OVER, OVER]
    assert (row[1] == FILL).all()


PACKINGS = {
    "duacs": (1e-4, 0.0, (-2147483647,)),
    "short": (1e-4, 0.0, (-32768,)),
    "a fill that could be a current": (1e-4, 0.0, (-9999,)),
    "a high fill": (1e-4, 0.0, (32767,)),
    "two fills": (1e-4, 0.0, (-2147483647, 2147483647)),
    "no fill": (1e-4, 0.0, ()),
    "millimetres": (1e-3, 0.0, (-999,)),
    "with an offset": (2e-4, 0.5, (-32768,)),
}


@pytest.mark.parametrize("kind", ["i2", "i4", "i8", "u2", "f4", "f8"])
@pytest.mark.parametrize("name", PACKINGS)
def test_integers_and_floats_are_packed_as_one_by_one(name: str, kind: str) -> None:
    """Against a loop in whole numbers: as many cells are too fast as are missing, so that counts alone tell nothing."""
    scale, offset, fills = PACKINGS[name]
    rng, dtype = np.random.default_rng(7), np.dtype(kind)
    low, high = (0, 30_000) if kind == "u2" else (-30_000, 30_000)
    fills = tuple(fill for fill in fills if dtype.kind == "f" or np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max)
    stored = rng.integers(low, high, (2, 60, 37)).astype(dtype)
    stored[np.isin(stored, [-9999, -999])] = 0
    flat = stored.reshape(-1)
    edges = [32_766, -32_766, 32_767, -32_767, -32_768, 40_000, -40_000, 200_000, -200_000]
    fitting = [x for x in edges if abs(x * scale + offset) < 100]
    fitting = [x for x in fitting if dtype.kind == "f" or np.iinfo(dtype).min <= x <= np.iinfo(dtype).max]
    places = rng.permutation(flat.size)
    for k, value in enumerate([*fitting * 3, *fills * 3 * len(fitting)]):
        flat[places[k]] = value
    packing = Packing(Encoding(scale=scale, offset=offset, fills=fills, packed=True))

    def one(value: float) -> int:
        if any(np.asarray(value, dtype) == np.asarray(fill, dtype) for fill in fills):
            return int(FILL)
        ticks = round((float(value) * scale + offset) * 1e4)
        return ticks if abs(ticks) <= 32_766 else int(OVER)

    due = np.array([one(value.item()) for value in flat], np.int16).reshape(stored.shape)
    due[:, (due == FILL).any(axis=0)] = FILL
    got = np.empty((2, *stored[0].shape), np.int16)
    pack_level(list(stored), (packing, packing), ("u", "v"), got)
    np.testing.assert_array_equal(got, due)
    assert (due == OVER).any()


def test_a_valid_range_loses_slow_cells_while_as_many_others_are_too_fast():
    stored = np.array([[-5, 100, 40_000, 7], [12, -5, 60_000, 41_000]], np.int32)
    packing = Packing(Encoding(scale=1e-4, valid=(0, 50_000), packed=True))
    got = np.empty((2, *stored.shape), np.int16)
    pack_level((stored, np.abs(stored)), (packing, packing), ("u", "v"), got)
    due = np.array([[FILL, 100, OVER, 7], [12, FILL, FILL, OVER]], np.int16)
    np.testing.assert_array_equal(got[0], due)


def test_extra_dimensions_are_selected_or_refused(tmp_path):
    one = dataset(truth()).expand_dims(depth=[0.494], axis=1)
    np.testing.assert_array_equal(everything(opened(netcdf(tmp_path, one, "one.nc"))), truth())
    deep = xr.concat([dataset(truth(seed=1)), dataset(truth())], xr.DataArray([0.5, 15.25], dims="depth", name="depth"))
    path = netcdf(tmp_path, deep, "deep.nc")
    refused(path, "'depth'", "0.5, 15.25", "currents.select")
    refused(path, "depth: 3", "0.5, 15.25", select={"depth": 3})
    refused(path, "'member'", select={"member": 1})
    np.testing.assert_array_equal(everything(opened(path, select={"depth": 15.25})), truth())


def test_curvilinear_grids_and_scattered_points_are_refused(tmp_path):
    ds = dataset(truth()).rename(latitude="y", longitude="x").drop_vars(["x", "y"])
    two = ds.assign(lat=(("y", "x"), np.ones((NY, NX))), lon=(("y", "x"), np.ones((NY, NX))))
    refused(netcdf(tmp_path, two, "two.nc"), "'lat' is two-dimensional", "curvilinear")
    flat = ds.isel(y=0).assign(lat=("x", np.arange(NX)), lon=("x", np.arange(NX)))
    refused(netcdf(tmp_path, flat, "flat.nc"), "scattered points")


def test_long_chunks_are_noted(tmp_path):
    encoding = {name: {"chunksizes": (100, 3, 3)} for name in ("ugos", "vgos")}
    currents = opened(netcdf(tmp_path, dataset(truth(nt=100), "int32"), encoding=encoding))
    assert currents.chunk_levels == 100
    assert any("chunks of 100 levels" in note for note in currents.notes)
    np.testing.assert_array_equal(currents.read(40, 60), truth(nt=100)[40:60])


def test_types_that_are_no_numbers_are_refused(tmp_path):
    ds = dataset(truth())
    refused(netcdf(tmp_path, ds.assign(ugos=ds["ugos"].astype(str))), "ugos", "expected packed integers or floats")
    path = tmp_path / "currents.zarr"
    ds.assign(vgos=ds["vgos"].astype(complex)).to_zarr(path, zarr_format=3, consolidated=False)
    refused(str(path), "vgos", "expected packed integers or floats, came complex128")


# ---- files, grids and times


def test_variables_in_a_group(tmp_path):
    ds = dataset(truth())
    ds.to_netcdf(tmp_path / "currents.nc", group="data")
    refused(str(tmp_path / "currents.nc"), "no variables at the top", "ncks -G : -g GROUP IN OUT")
    ds.to_zarr(tmp_path / "currents.zarr", group="data", zarr_format=3, consolidated=False)
    refused(str(tmp_path / "currents.zarr"), "no variables at the top", "STORE/GROUP")
    np.testing.assert_array_equal(everything(opened(str(tmp_path / "currents.zarr" / "data"))), truth())


def test_files_that_are_missing_or_something_else(tmp_path):
    refused(str(tmp_path / "none.nc"), "nothing is there", "none.nc")
    refused(str(tmp_path / "*.nc"), "nothing is there")
    (tmp_path / "text.nc").write_text("not NetCDF")
    refused(str(tmp_path / "text.nc"), "expected a NetCDF file or a zarr store", "text.nc")
    (tmp_path / "empty").mkdir()
    refused(str(tmp_path / "empty"), "expected a NetCDF file or a zarr store", "empty")
    path = Path(netcdf(tmp_path, dataset(truth(nt=40), "int32"), "cut.nc"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(str(path), "cut.nc")


def identity(currents: Currents) -> tuple[object, ...]:
    return tuple(value for name, value in currents.fingerprint.items() if name != "path")


def test_fingerprint_tells_content_and_state_tells_copies(tmp_path):
    for kind in ("nc", "zarr"):
        folders = [tmp_path / f"{kind}{k}" for k in range(3)]
        for folder, seed in zip(folders, (0, 0, 1), strict=True):
            folder.mkdir()
            if kind == "nc":
                netcdf(folder, dataset(truth(seed=seed), "int32"), "a.nc")
            else:
                dataset(truth(seed=seed), "int32").to_zarr(folder / "a.zarr", zarr_format=3, consolidated=False)
        a, b, c = (opened(str(folder / f"a.{kind}")) for folder in folders)
        assert identity(a) == identity(b)
        assert a.fingerprint["sha256"] != c.fingerprint["sha256"]
        assert a.state == opened(str(folders[0] / f"a.{kind}")).state
        assert a.state != b.state


def test_a_fingerprint_whose_reading_fails_halfway_is_begun_again(tmp_path, monkeypatch):
    path = netcdf(tmp_path, dataset(truth(), "int32"))
    due, true, left = opened(path).fingerprint, hashlib.file_digest, [2]

    def digest(file, name):
        found = name()
        if left[0]:
            left[0] -= 1
            found.update(file.read(1000))
            raise OSError(errno.ESTALE, "Stale file handle")
        return true(file, lambda: found)

    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(hashlib, "file_digest", digest)
    assert opened(path).fingerprint == due
    assert left == [0]


def test_files_on_another_grid(tmp_path):
    netcdf(tmp_path, dataset(truth(), "int32").isel(time=[0]), "a.nc")
    other = dataset(truth(), "int32").isel(time=[1])
    netcdf(tmp_path, other.assign_coords(longitude=other["longitude"] + 0.0625), "b.nc")
    refused(str(tmp_path / "*.nc"), "b.nc", "the grids differ")
    netcdf(tmp_path, other.rename(vgos="vo"), "b.nc")
    refused(str(tmp_path / "*.nc"), "b.nc", "lacks vgos")


def test_files_packed_differently(tmp_path):
    netcdf(tmp_path, dataset(truth(), "int16").isel(time=slice(0, 2)), "a.nc")
    netcdf(tmp_path, dataset(truth(), "float64").isel(time=slice(2, 4)), "b.nc")
    coarse = dataset(truth(), "int32").isel(time=[4])
    for name in ("ugos", "vgos"):
        attrs = {"scale_factor": 0.5e-4, "add_offset": 1.5, "_FillValue": np.int32(2**31 - 1), "units": "m/s"}
        field = truth()[4:, int(name == "vgos")].astype(np.int32)
        coarse[name] = (coarse[name].dims, np.where(field == FILL, 2**31 - 1, field * 2 - 30_000).astype("i4"), attrs)
    netcdf(tmp_path, coarse, "c.nc")
    np.testing.assert_array_equal(everything(opened(str(tmp_path / "*.nc"))), truth())


def test_nothing_but_fill(tmp_path):
    refused(netcdf(tmp_path, dataset(np.full((NT, 2, NY, NX), FILL, np.int16), "int32")), "no current anywhere")


def test_frozen_takes_a_single_time(tmp_path):
    path = netcdf(tmp_path, dataset(truth(nt=1), "int32"), "one.nc")
    assert opened(path, frozen=True).frozen
    single = opened(path)
    assert (single.frozen, single.time.size, single.step) == (False, 1, 86_400)
    refused(netcdf(tmp_path, dataset(truth(), "int32"), "five.nc"), "`frozen: true`", "5 times", frozen=True)


def test_time_without_a_dimension(tmp_path):
    for day in range(NT):
        netcdf(tmp_path, dataset(truth(), "int32").isel(time=day), f"{day}.nc")
    np.testing.assert_array_equal(everything(opened(str(tmp_path / "*.nc"))), truth())


def test_level_times():
    def decode(values, dtype="float64", **attrs):
        return level_times(np.array(values, dtype), attrs, "t").tolist()

    day = 14_610 * 86_400
    assert decode([40177.5], "float32", units="days since 1900-1-1") == [day + 43_200]
    assert decode([40177.5], Unit="days since 1900-1-1") == [day + 43_200]
    assert decode([525_960], "int32", units="Hours since 1950-01-01T00:00:00Z", calendar="gregorian") == [day]
    assert decode([day * 10**9], "int64", units="nanoseconds since 1970-01-01") == [day]
    # The Julian and Gregorian calendars parted in 1582: year 1 is two days apart.
    proleptic = decode([733_772], "int64", units="days since 0001-01-01", calendar="proleptic_gregorian")
    assert proleptic == decode([733_774], "int64", units="days since 0001-01-01", calendar="standard") == [day]
    for attrs, text in (
        ({}, "times have units ''; expected such as"),
        ({"units": "days"}, "times have units 'days'; expected such as"),
        ({"units": "months since 2000-01-01"}, "times have units 'months since 2000-01-01'; expected such as"),
        ({"units": "days since then"}, "count from 'then', which is not a date"),
        ({"units": "days since 2000-13-01"}, "count from '2000-13-01', which is not a date"),
        ({"units": "days since 2000-01-01 25:00"}, "count from '2000-01-01 25:00', which is not a date"),
        ({"units": "days since 2000-01-01 noon"}, "count from '2000-01-01 noon', which is not a date"),
        ({"units": "days since 2000-01-01", "calendar": "360_day"}, "'360_day'"),
    ):
        with pytest.raises(DataError, match=text):
            decode([1.0], **attrs)
    for bad in (np.nan, 9.96921e36):
        with pytest.raises(DataError, match="1 of 2 times"):
            decode([1.0, bad], units="days since 2000-01-01")


# ---- real products


def decoded(path: str, names: tuple[str, str]) -> np.ndarray:
    with xr.open_dataset(path) as ds:
        return np.stack([ds[name].values for name in names], axis=1)


def test_real_duacs_is_exact(real_data: Path):
    path = str(real_data / "s1_gdp104099_2012-06/duacs_7ddb864.nc")
    got, expected = everything(opened(path)), decoded(path, ("ugos", "vgos"))
    np.testing.assert_array_equal(got == FILL, np.isnan(expected))
    np.testing.assert_array_equal(got[got != FILL], np.rint(expected[got != FILL] * 1e4))
    assert 0.005 < (got == FILL).mean() < 0.02


def test_real_cyclogeostrophic_is_within_half_a_tick(real_data: Path):
    path = str(real_data / "s3_melodi_2025-06/currents_for_sim.nc")
    currents = opened(path)
    got, expected = everything(currents), decoded(path, ("ucos", "vcos"))
    np.testing.assert_array_equal(got == FILL, np.isnan(expected))
    assert np.nanmax(np.abs(got * 1e-4 - expected)) <= 5.0001e-5
    assert any("vcos has no units" in note for note in currents.notes)


def test_real_global_day(real_data: Path):
    path = str(real_data / "duacs_global_20190223/nrt_global_allsat_phy_l4_20190223_20190226.nc")
    currents = opened(path)
    got, expected = everything(currents), decoded(path, ("ugos", "vgos"))
    assert currents.periodic
    assert (currents.lon.start, currents.lon.size, currents.lat.size) == (0.125, 1440, 720)
    assert (got == OVER).sum() == (np.abs(expected) > 3.27665).sum() == 7
    np.testing.assert_array_equal(got == FILL, np.isnan(expected))
    whole = (got != FILL) & (got != OVER)
    np.testing.assert_array_equal(got[whole], np.rint(expected[whole] * 1e4))


def test_real_year_of_daily_files(real_data: Path):
    currents = opened(str(real_data / "globcurrent_agulhas_2002/*.nc"))
    assert currents.time.size == 365
    assert (np.diff(currents.time) == 86_400).all()
    assert currents.time[0] == np.datetime64("2002-01-01", "s").astype(int)
    assert any("20030101" in note and "2002-01-01" in note for note in currents.notes)
    assert (currents.lat.size, currents.lon.size) == (41, 81)
    assert 0.2 < currents.land().mean() < 0.25
