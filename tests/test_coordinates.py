"""Currents with the axes, times, depths and units that files have: the same store as from a plain file, or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pytest
import xarray as xr

from driftcal.preprocess.recipe import CurrentSource
from driftcal.preprocess.sources.gridded.axes import latitude, longitude
from driftcal.preprocess.sources.gridded.currents import Currents
from driftcal.preprocess.sources.gridded.open_currents import open_currents
from driftcal.shared.errors import ConfigError, DataError
from driftcal.shared.settings import build
from driftcal.shared.store.reader import ShardStore
from tests import fields, sources

DAY = fields.DAY
NOON = fields.START + DAY // 2
LON, LAT = 30 + 0.25 * np.arange(29), -40 + 0.25 * np.arange(25)


def plain(**options: Any) -> xr.Dataset:
    """Eight daily instants at 12:00 on a plain grid, 24 rows and 29 columns."""
    given = {"levels": 8, "start": NOON} | options
    ds = fields.field(LON[: given.pop("columns", 29)], LAT, **given)
    for name, units in (("latitude", "degrees_north"), ("longitude", "degrees_east")):
        ds[name] = (name, ds[name].values.astype(float), {"units": units})
    return ds


def tracks() -> list[sources.Track]:
    return [fields.walk(900 + k, 33.0 + 0.1 * k, -37.0, n=49, start=NOON + 7200 * k) for k in range(6)]


def store(folder: Path, name: str, ds: xr.Dataset, **currents: Any) -> ShardStore:
    """The store that a file of `ds` gives, with drifters that are the same whatever the file."""
    drifters = sources.save(sources.ragged(tracks()), folder / "drifters.nc")
    path = fields.save(ds, folder / f"{name}.nc")
    recipe: dict[str, Any] = {"segment": {"days": 2}, "window": {"half_width_deg": 1.0}}
    manifest = fields.manifest(folder, drifters, path, f"{name}.yaml", **recipe)
    return fields.make(manifest, folder / name, "--set", f"currents={json.dumps({'path': path} | currents)}")


def opened(folder: Path, ds: xr.Dataset, name: str = "currents.nc", **options: Any) -> Currents:
    return open_currents(CurrentSource.model_validate({"path": fields.save(ds, folder / name)} | options))


def refused(folder: Path, ds: xr.Dataset, *texts: str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        opened(folder, ds, "refused.nc", **options)
    for text in texts:
        assert text in str(caught.value)
    return str(caught.value)


def said(currents: Currents, *texts: str) -> None:
    for text in texts:
        assert any(text in note for note in currents.notes), (text, currents.notes)


def everything(currents: Currents) -> np.ndarray:
    return currents.read(0, currents.time.size)


# The same store from files that say the same in other words


def packed(ds: xr.Dataset) -> xr.Dataset:
    """Latitude in unsigned bytes that are stored as signed ones, longitude with an offset; stale valid ranges."""
    lat = np.rint((LAT + 90) / 0.25).astype(np.uint8).view(np.int8)
    attrs = {"_Unsigned": "true", "scale_factor": 0.25, "add_offset": -90.0, "valid_max": np.int8(5)}
    ds["latitude"] = ("latitude", lat, attrs)
    lon = np.rint((ds.longitude.values - 100) / 0.25).astype(np.int16)
    ds["longitude"] = ("longitude", lon, {"scale_factor": 0.25, "add_offset": 100.0, "_FillValue": np.int16(-999)})
    return ds


def other_ways(ds: xr.Dataset) -> xr.Dataset:
    """Degrees south, and longitudes west in radians."""
    ds["latitude"] = ("latitude", -ds.latitude.values, {"units": "degrees_south"})
    ds["longitude"] = ("longitude", np.deg2rad(-ds.longitude.values), {"units": "radians_west"})
    return ds


def two_dimensional(ds: xr.Dataset) -> xr.Dataset:
    ds = ds.rename(latitude="y", longitude="x")
    lon, lat = np.meshgrid(ds.x.values, ds.y.values)
    return ds.drop_vars(["x", "y"]).assign(nav_lat=(("y", "x"), lat), nav_lon=(("y", "x"), lon))


def stamped(ds: xr.Dataset, seconds: int, **attrs: str) -> xr.Dataset:
    return ds.assign_coords(time=("time", ds.time.values + seconds, ds.time.attrs | attrs))


def ends_first(ds: xr.Dataset) -> xr.Dataset:
    """The same bounds, on (2, time)."""
    ds = bounded(ds)
    return ds.assign(time_bnds=ds.time_bnds.transpose())


def bounded(ds: xr.Dataset) -> xr.Dataset:
    """Days stamped at 00:00, with bounds in another unit that is their own."""
    ends = (NOON + DAY * np.arange(8) - fields.START) / 3600 - 12
    bounds = (("time", "nv"), np.stack([ends, ends + 24], -1), {"units": "hours since 2016-02-28"})
    return stamped(ds, -DAY // 2, bounds="time_bnds").assign(time_bnds=bounds)


def julian(ds: xr.Dataset) -> xr.Dataset:
    """Real dates under the calendar of OSCAR version 2."""
    real = cftime.num2date(ds.time.values, "seconds since 1970-01-01", calendar="standard")
    dates = [cftime.datetime(*date.timetuple()[:6], calendar="julian") for date in real]
    days = cftime.date2num(dates, "days since 1990-1-1", calendar="julian")
    return ds.assign_coords(time=("time", days, {"units": "days since 1990-1-1", "calendar": "julian"}))


def deep(ds: xr.Dataset) -> xr.Dataset:
    """The currents at the second of three levels; their packed depths, upward in cm, are on `lev`."""
    other = fields.field(LON, LAT, 8, start=NOON, seed=7)
    ds = xr.concat([other, ds, other], "lev", data_vars=["ugos", "vgos"], coords="minimal", compat="override")
    attrs = {"scale_factor": 0.5, "units": "cm", "positive": "up"}
    return ds.assign(st_ocean=("lev", np.array([-100, -3000, -9000], np.int16), attrs))


def centimetres(ds: xr.Dataset, **units: str) -> xr.Dataset:
    for name in ("ugos", "vgos"):
        ds[name].attrs |= {"scale_factor": 1e-2, "units": units.get(name, "m/s")}
    return ds


WORDS: dict[str, tuple[Callable[[xr.Dataset], xr.Dataset], dict[str, Any], str]] = {
    "packed": (packed, {}, "leaves its valid range"),
    "other ways": (other_ways, {}, "converted from radians_west to degrees east"),
    "radians stated": (
        lambda ds: ds.assign_coords(longitude=("longitude", np.deg2rad(LON), {"units": "degrees_east"})),
        {"units": {"lon": "radians"}},
        "converted from radians",
    ),
    "two-dimensional": (two_dimensional, {}, "nav_lat is two-dimensional and the same all along 'x'"),
    "bounds": (bounded, {}, "middle of their bounds 'time_bnds': times shifted by 12h"),
    "bounds with the ends first": (ends_first, {}, "middle of their bounds 'time_bnds': times shifted by 12h"),
    "start": (lambda ds: stamped(ds, -DAY // 2), {"time_shift": "12h"}, "times shifted by 12h"),
    "end": (lambda ds: stamped(ds, DAY // 2), {"time_shift": "-12h"}, "times shifted by -12h"),
    "key before bounds": (lambda ds: stamped(bounded(ds), DAY // 2), {"time_shift": "0h"}, "time is 'time'"),
    "julian": (julian, {}, "calendar 'julian'"),
    "time stated": (
        lambda ds: ds.assign_coords(time=("time", ds.time.values, {"units": "seconds"})),
        {"units": {"time": "seconds since 1970-01-01"}},
        "time is 'time'",
    ),
    "packed times": (
        lambda ds: ds.assign_coords(
            time=("time", np.arange(1, 17, 2, np.int16), {"scale_factor": 0.5, "units": "days since 2016-02-28"})
        ),
        {},
        "time is 'time'",
    ),
    "dimension": (deep, {"select": {"lev": 1500}}, "taking st_ocean = -1500 cm, index 1 of dimension 'lev'"),
    "variable": (deep, {"select": {"st_ocean": -1500.0}}, "taking st_ocean = -1500 cm, index 1 of dimension 'lev'"),
    "place": (deep, {"select": {"lev": {"index": 1}}}, "taking st_ocean = -1500 cm, index 1 of dimension 'lev'"),
    "units stated": (centimetres, {"units": "cm/s"}, "ugos taken in cm/s (currents.units)"),
    "one unit stated": (lambda ds: centimetres(ds, ugos="cm/s"), {"units": {"v": "cm/s"}}, "vgos taken in cm/s"),
}


@pytest.mark.parametrize("words", WORDS)
def test_the_same_store_from_other_words(tmp_path: Path, words: str) -> None:
    change, keys, note = WORDS[words]
    due = store(tmp_path, "plain", plain())
    got = store(tmp_path, "changed", change(plain()), **keys)
    index = list(range(len(due)))
    assert len(got) == len(due) == 6
    np.testing.assert_array_equal(got.currents.read(index), due.currents.read(index))
    for name in ("window_time", "start_time", "drifter"):
        np.testing.assert_array_equal(got.labels[name], due.labels[name])
    np.testing.assert_allclose(got.labels["window_corner"], due.labels["window_corner"], atol=1e-6)
    np.testing.assert_array_equal(due.currents.read([0])[0], fields.selected(str(tmp_path / "plain.nc"), due, 0))
    assert any(note in line for line in got.manifest.notes), got.manifest.notes


# Axes


def test_fills_and_other_packings_in_coordinates(tmp_path: Path) -> None:
    ds = plain()
    gone = np.where(np.arange(25) == 3, -999.0, LAT)
    ds["latitude"] = ("latitude", gone, {"_FillValue": -999.0})
    refused(tmp_path, ds, "latitude: 1 of 25 coordinates are missing, the first at index 3 (stored -999.0)")
    # 0 is declared as the fill value of an axis that goes through it
    ds = fields.field(np.arange(-3, 26), np.arange(-2, 23), 8, start=0)
    for name in ("latitude", "longitude", "time"):
        ds[name] = (name, ds[name].values, ds[name].attrs | {"_FillValue": ds[name].values.dtype.type(0)})
    ds.to_netcdf(tmp_path / "zero.nc")
    currents = open_currents(CurrentSource(path=str(tmp_path / "zero.nc")))
    assert (currents.lat.start, currents.lon.start, currents.time[0]) == (-2.0, -3.0, 0)
    said(currents, "longitude has 0 both as its fill value and on its regular axis", "time has 0 both")


def test_files_that_pack_their_coordinates_differently(tmp_path: Path) -> None:
    fields.save(plain().isel(time=slice(0, 4)), tmp_path / "0.nc")
    fields.save(packed(plain()).isel(time=slice(4, 8)), tmp_path / "1.nc")
    currents = open_currents(CurrentSource(path=str(tmp_path / "*.nc")))
    np.testing.assert_array_equal(everything(currents), everything(opened(tmp_path, plain())))
    other = packed(plain()).isel(time=slice(4, 8))
    other["longitude"].attrs["add_offset"] = 100.25  # the same numbers are other places
    fields.save(other, tmp_path / "1.nc")
    with pytest.raises(DataError, match=r"1\.nc: 'longitude' has 29 points from 30\.25 .*the grids differ"):
        open_currents(CurrentSource(path=str(tmp_path / "[01].nc")))


@pytest.mark.parametrize("scale", [0.25, 0.01])
def test_degrees_with_a_packing_left_over_are_refused(tmp_path: Path, scale: float) -> None:
    for name in ("latitude", "longitude"):
        ds = plain()
        ds[name].attrs["scale_factor"] = scale
        refused(tmp_path, ds, f"{name}: floats with scale_factor {scale}, but they are decoded already")
    ds = plain().assign_coords(latitude=("latitude", (LAT / 0.25).astype(np.float32), {"scale_factor": 0.25}))
    assert opened(tmp_path, ds).lat.start == -40.0  # packed, as floats


def test_coordinates_that_are_no_latitudes(tmp_path: Path) -> None:
    ds = plain()
    ds["latitude"].attrs["standard_name"] = "grid_latitude"
    refused(tmp_path, ds, "latitude is a coordinate of a rotated pole ('grid_latitude')", "Turn u and v to east")
    rotated = plain().rename(latitude="rlat", longitude="rlon")
    for name in ("rlat", "rlon"):
        rotated[name].attrs = {"units": "degrees"}
    refused(tmp_path, rotated, "no 'lat' variable, no 'lon' variable", "'rlat' is a coordinate of a rotated pole")
    names = {"lat": "rlat", "lon": "rlon"}
    refused(tmp_path, rotated, "rlat is a coordinate of a rotated pole", variables=names)
    plane = plain().rename(latitude="y", longitude="x")
    plane["y"].attrs, plane["x"].attrs = {"units": "km"}, {"units": "m"}
    refused(tmp_path, plane, "'y' is a coordinate of a map projection", variables={})
    refused(tmp_path, plane, "y is a coordinate of a map projection", variables={"lat": "y", "lon": "x"})
    wrong = plain()
    wrong["latitude"].attrs["units"] = "m"
    refused(tmp_path, wrong, "latitude has units 'm'", "set currents.units.lat in the manifest")
    assert opened(tmp_path, wrong, units={"lat": "degrees"}).lat.start == -40.0
    swapped = plain()
    swapped["latitude"].attrs["units"] = "degrees_east"
    refused(tmp_path, swapped, "Are lat and lon exchanged?")
    plain_degrees = plain()
    plain_degrees["latitude"].attrs["units"] = plain_degrees["longitude"].attrs["units"] = "degrees"
    assert opened(tmp_path, plain_degrees).lat.start == -40.0  # not a degree south


@pytest.mark.parametrize("wrap", [False, True])
def test_an_axis_that_goes_round_more_than_once(tmp_path: Path, wrap: bool) -> None:
    """20 to 420 degrees east, as the first version of OSCAR has it."""
    lon = 20 + np.arange(600) * (2 / 3)
    ds = fields.field(lon, LAT, 2)
    for name in ("ugos", "vgos"):
        values = ds[name].values.copy()
        values[..., 540:] = values[..., :60]
        ds[name] = (ds[name].dims, values, ds[name].attrs)
    due = np.stack([ds[name].values[..., :540] for name in ("ugos", "vgos")], 1)
    if wrap:
        ds = ds.assign_coords(longitude=(lon + 180) % 360 - 180)
    currents = opened(tmp_path, ds)
    assert (currents.lon.start, currents.lon.size, currents.periodic) == (20.0, 540, True)
    np.testing.assert_array_equal(everything(currents), due)
    said(currents, "goes round more than once, from 20 to", "the last 60 columns are dropped")
    assert not any(note.startswith("WARNING") for note in currents.notes)
    values = ds["vgos"].values.copy()
    values[:, 3, 541] += 100
    if not wrap:
        other = opened(tmp_path, ds.assign(vgos=(ds["vgos"].dims, values, ds["vgos"].attrs)), "b.nc")
        said(other, "column 541) holds other currents than 20.6667 (column 1), which was kept in its place; 1 such")


def test_an_overlap_that_does_not_fit_the_grid() -> None:
    """Where 360 degrees are not a whole number of steps nothing is periodic, and still nothing is there twice."""
    axis, order, periodic, notes = longitude(0.7 * np.arange(560), "lon")
    assert (axis.start, axis.size, periodic, order) == (0.0, 515, False, slice(0, 515))
    assert axis.values[-1] < 360 - 0.1
    assert "the last 45 columns are dropped" in notes[0]


def test_columns_that_are_there_twice(tmp_path: Path) -> None:
    ds = plain()
    twice = ds.isel(longitude=[0, 1, 2, 2, *range(3, 29)])
    lon = twice.longitude.values + np.where(np.arange(30) == 3, 1e-5, 0)
    twice = twice.assign_coords(longitude=("longitude", lon, ds.longitude.attrs))
    currents = opened(tmp_path, twice)
    np.testing.assert_array_equal(everything(currents), everything(opened(tmp_path, ds, "b.nc")))
    said(currents, "1 longitudes are there twice, such as 30.5; the second is dropped")
    values = twice["ugos"].values.copy()
    values[4, 2, 3] += 100
    twice["ugos"] = (twice["ugos"].dims, values, twice["ugos"].attrs)
    refused(tmp_path, twice, "holds other currents than 30.5 (column 2): the longitude is there twice")


@pytest.mark.parametrize(("step", "decimals"), [(1 / 36, 3), (1 / 37, 3), (1 / 24, 3), (1 / 12, 2), (0.027, 3)])
@pytest.mark.parametrize("start", [5.0131, 170.4])
def test_axes_whose_degrees_are_rounded(step: float, decimals: int, start: float) -> None:
    lon = start + step * np.arange(700)
    rounded = np.round((lon + 180) % 360 - 180, decimals)
    axis, _, periodic, notes = longitude(rounded.astype(np.float32), "lon")
    off = (axis.values - lon + 180) % 360 - 180
    assert np.abs(off).max() < 0.6 * 10.0**-decimals
    assert (axis.size, periodic) == (700, False)
    if step in (1 / 36, 1 / 37, 1 / 12):
        assert "degrees off" in notes[-1]
    lat, _, _ = latitude(np.round(-20 + step * np.arange(300), decimals), "lat")
    assert lat.step == pytest.approx(step, rel=1e-3)


@pytest.mark.parametrize("decimals", [2, 3, 8])
@pytest.mark.parametrize("grid", ["mercator", "gaussian", "stretched"])
def test_rounding_makes_no_axis_regular(grid: str, decimals: int) -> None:
    values = {
        "mercator": np.rad2deg(np.arctan(np.sinh(np.deg2rad(20 + np.arange(120) / 12)))),
        "gaussian": np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(64)[0])),
        "stretched": 0.05 * np.arange(200) * (1 + 2e-4 * np.arange(200)),
    }[grid]
    if len(np.unique(np.round(values, decimals))) == len(values):
        with pytest.raises(DataError, match="not uniform"):
            latitude(np.round(values, decimals), "lat")


def test_a_rounded_axis_in_a_store(tmp_path: Path) -> None:
    """Files that round otherwise are one grid, and windows lie where the unrounded axis has them."""
    lon, lat = 33 + np.arange(90) / 36, -38 + np.arange(80) / 36
    ds = fields.field(lon, lat, 8, start=NOON)
    exact = ds.assign_coords(longitude=("longitude", lon), latitude=("latitude", lat))
    rough = ds.assign_coords(longitude=("longitude", np.round(lon, 3)), latitude=("latitude", np.round(lat, 3)))
    fields.save(rough.isel(time=slice(0, 4)), tmp_path / "0.nc")
    fields.save(exact.isel(time=slice(4, 8)), tmp_path / "1.nc")
    currents = open_currents(CurrentSource(path=str(tmp_path / "[01].nc")))
    said(currents, "rounded to 0.001 degrees", "% of a cell)")
    np.testing.assert_allclose(currents.lat.values, lat, atol=5e-4)
    np.testing.assert_array_equal(everything(currents), everything(opened(tmp_path, exact, "exact.nc")))


# Times


def test_bounds_of_an_instant_and_bounds_that_cannot_be(tmp_path: Path) -> None:
    days = fields.START + DAY * np.arange(8)
    base = stamped(plain(), -DAY // 2)

    def at(low: Any, high: Any, **keys: Any) -> Currents:
        attributes = base.time.attrs | {"bounds": "b"}
        ds = base.assign_coords(time=("time", days, attributes))
        ends = np.broadcast_to(np.stack(np.broadcast_arrays(low, high), -1), (8, 2))
        return opened(tmp_path, ds.assign(b=(("time", "nv"), ends)), **keys)

    instant = at(days, days)
    np.testing.assert_array_equal(instant.time, days)
    assert not any("stamped at 00:00" in note for note in instant.notes)
    np.testing.assert_array_equal(at(days - DAY, days).time, days - DAY // 2)  # stamped at the end
    np.testing.assert_array_equal(at(days + DAY, days).time, days + DAY // 2)  # backwards
    np.testing.assert_array_equal(at(days - DAY // 2, days + DAY // 2).time, days)  # in the middle
    np.testing.assert_array_equal(at(days - 2 * DAY, days + 3 * DAY).time, days + DAY // 2)  # running means
    for low, high, why in ((0, 0, "do not lie within"), (days - 10, days[-1] + 10, None), (days[0], days[-1], "same")):
        odd = at(low, high)
        if why:
            np.testing.assert_array_equal(odd.time, days)
            assert any(note.startswith("WARNING: ") and why in note for note in odd.notes)
    silent = at(0, 0, time_shift="0h")
    np.testing.assert_array_equal(silent.time, days)
    assert not any("bounds of time" in note or "stamped" in note for note in silent.notes)
    lost = opened(tmp_path, base.assign_coords(time=("time", days, base.time.attrs | {"bounds": "b"})), "lost.nc")
    said(lost, "the bounds of time, 'b', are not in the file", "levels are stamped at 00:00")


@pytest.mark.parametrize(
    ("methods", "step", "phase", "text"),
    [
        ({}, DAY, 0, "currents.time_shift: 12h if they are means over the day"),
        ({}, DAY, 43_200, None),
        ({}, 5 * DAY, 0, "currents.time_shift: 60h if they are means over the 120h"),
        ({}, 21_600, 0, "currents.time_shift: 3h if they are means over the 6h"),
        ({}, 3600, 0, None),
        ({"cell_methods": "time: point"}, DAY, 0, None),
        ({"cell_methods": "area: mean time: point"}, DAY, 0, None),
        ({"cell_methods": "area: mean"}, DAY, 0, "neither bounds nor cell_methods tell"),
        ({"cell_methods": "time: mean"}, DAY, 0, "WARNING"),
        ({"cell_methods": "time: area: mean (interval: 1 hour)"}, DAY, 0, "12h if it is the start, -12h if it is the"),
        ({"cell_methods": "time: mean"}, DAY, 43_200, None),
        ({"cell_methods": "time: mean"}, 3600, 0, "1800s if it is the start"),
        ({"cell_methods": "time: mean"}, 3600, 1800, None),
        ({"online_operation": "ave(x)"}, DAY, 0, "by their cell_methods levels are means"),
        ({"online_operation": "instant"}, DAY, 0, None),
    ],
)
def test_stamps_that_may_be_half_a_step_off(
    tmp_path: Path, methods: dict[str, str], step: int, phase: int, text: str | None
) -> None:
    ds = plain(start=fields.START + phase, step=step)
    for name in ("ugos", "vgos"):
        ds[name].attrs |= methods
    currents = opened(tmp_path, ds)
    notes = [note for note in currents.notes if "time_shift" in note]
    assert len(notes) == (text is not None)
    assert text is None or text in notes[0]
    assert currents.time[0] == fields.START + phase
    for shift in ("0h", "12h"):
        stated = opened(tmp_path, ds, "stated.nc", time_shift=shift)
        assert not any("stamped at" in note for note in stated.notes)
        assert stated.time[0] == currents.time[0] + (DAY // 2 if shift == "12h" else 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12h", 43_200), ("-12h", -43_200), ("- 1d 12h", -129_600), ("0h", 0), (0, 0), ("+30min", 1800), (-60, -60)],
)
def test_a_shift_has_a_sign(text: Any, seconds: int) -> None:
    source = CurrentSource.model_validate({"path": "a.nc", "time_shift": text})
    assert source.time_shift == seconds
    assert CurrentSource.model_validate(source.model_dump(mode="json")) == source


WRONG_KEYS: list[dict[str, Any]] = [
    {"time_shift": "noon"},
    {"time_shift": "--1h"},
    {"units": "furlongs"},
    {"units": {"lat": "m"}},
    {"units": {"w": "m/s"}},
    {"select": {"lev": {"index": -1}}},
]


@pytest.mark.parametrize("key", WRONG_KEYS)
def test_keys_that_cannot_be(key: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(key))):
        build(CurrentSource, {"path": "a.nc"} | key, "manifest")


def test_months_are_not_of_one_length(tmp_path: Path) -> None:
    ds = plain()
    ds = ds.assign_coords(time=("time", [0, 31, 59, 90, 120, 151, 181, 212], {"units": "days since 2010-01-01"}))
    refused(tmp_path, ds, "months are not of one length", "interpolate the means in time")


def test_bounds_in_some_files_only(tmp_path: Path) -> None:
    fields.save(bounded(plain()).isel(time=slice(0, 4)), tmp_path / "0.nc")
    fields.save(stamped(plain(), -DAY // 2).isel(time=slice(4, 8)), tmp_path / "1.nc")
    source = {"path": str(tmp_path / "[01].nc")}
    with pytest.raises(DataError, match=r"shift the levels of .*0\.nc, but .*1\.nc has none .* currents\.time_shift"):
        open_currents(CurrentSource.model_validate(source))
    shifted = open_currents(CurrentSource.model_validate(source | {"time_shift": "12h"}))
    np.testing.assert_array_equal(shifted.time, NOON + DAY * np.arange(8))


def test_a_climatology_is_told_of(tmp_path: Path) -> None:
    ds = stamped(plain(), 0, climatology="climatology_bounds")
    said(opened(tmp_path, ds), "means over several years")
    frozen = opened(tmp_path, ds.isel(time=[0]), "frozen.nc", frozen=True)
    assert not any("WARNING" in note for note in frozen.notes)


# Depth and members


def test_dimensions_without_a_coordinate_of_their_name(tmp_path: Path) -> None:
    ds = deep(plain())
    refused(tmp_path, ds, "of 'st_ocean' its 3 values are -50, -1500, -4500 cm", "{st_ocean: -1500}")
    refused(tmp_path, ds, "asks for lev: 15", "the nearest is -50 cm", select={"lev": 15})
    refused(tmp_path, ds, "'lev' (with 'st_ocean')", select={"depth": 15})
    refused(tmp_path, ds, "are one dimension", select={"lev": -1500, "st_ocean": -1500})
    refused(tmp_path, ds, "index 3 of 'lev', which has 3 places, counted from 0", select={"lev": {"index": 3}})
    several = ds.assign(layer=("lev", [1, 2, 3]))
    refused(tmp_path, several, "'st_ocean', 'layer'", "{lev: {index: 0}}", select={"lev": 2})
    due = everything(opened(tmp_path, plain(), "plain.nc"))
    np.testing.assert_array_equal(everything(opened(tmp_path, several, select={"layer": 2})), due)
    bare = ds.drop_vars("st_ocean")
    refused(tmp_path, bare, "no variable on it", "currents.select: {lev: {index: 0}}", select={"lev": 1})
    np.testing.assert_array_equal(everything(opened(tmp_path, bare, select={"lev": {"index": 1}})), due)


def test_currents_far_below_a_drogue_are_told_of(tmp_path: Path) -> None:
    ds = deep(plain())
    said(opened(tmp_path, ds, select={"lev": {"index": 0}}), "taking st_ocean = -50 cm")
    ds["st_ocean"] = ("lev", [5.0, 15.0, 250.0], {"units": "dbar"})
    for value, warned in ((15, False), (250, True)):
        notes = opened(tmp_path, ds, select={"lev": value}).notes
        assert any(note.startswith("WARNING") and "250 m down" in note for note in notes) == warned


@pytest.mark.parametrize("select", [{"lev": 15}, {"lev": {"index": 1}}])
def test_the_depth_of_a_layer_that_is_taken_by_its_number_is_told(tmp_path: Path, select: dict[str, Any]) -> None:
    ds = deep(plain()).assign(lev=("lev", [14, 15, 16]), dz=("lev", [9.0, 9.0, 9.0], {"units": "m"}))
    ds["st_ocean"] = ("lev", [-300.0, -400.0, -500.0], {"units": "m"})
    notes = opened(tmp_path, ds, select=select).notes
    assert any("taking lev = 15, index 1 of dimension 'lev', where st_ocean = -400 m" in note for note in notes)
    assert any(note.startswith("WARNING") and "400 m down" in note for note in notes)


@pytest.mark.parametrize("kind", ["object", "characters"])
def test_members_by_their_names(tmp_path: Path, kind: str) -> None:
    other = plain(seed=3)
    ds = xr.concat([other, plain()], "member", data_vars=["ugos", "vgos"], coords="minimal", compat="override")
    names = np.array(["r1", "r10"])
    if kind == "object":
        ds = ds.assign(member=("member", names.astype(object)))
    else:
        ds = ds.assign(name=("member", names.astype("S3")))
    currents = opened(tmp_path, ds, select={"member": "r10"})
    np.testing.assert_array_equal(everything(currents), everything(opened(tmp_path, plain(), "plain.nc")))
    said(currents, "= 'r10', index 1 of dimension 'member'")
    refused(tmp_path, ds, "its 2 values are r1, r10", select={"member": "r2"})


def test_another_depth_in_another_file(tmp_path: Path) -> None:
    for k, depth in enumerate((15.0, 0.5)):
        ds = plain().isel(time=slice(4 * k, 4 * k + 4)).expand_dims(depth=[depth], axis=1)
        fields.save(ds, tmp_path / f"{k}.nc")
    with pytest.raises(
        DataError, match=r"1\.nc: depth is 0\.5 at index 0 of dimension 'depth' .* but 15\.0 in the first"
    ):
        open_currents(CurrentSource(path=str(tmp_path / "[01].nc")))


# Units


def test_the_units_that_contradict_their_values_are_named(tmp_path: Path) -> None:
    for scale, right, wrong in ((1e-4, "m/s", "cm/s"), (1e-2, "cm/s", "m/s")):
        for role, name in (("u", "ugos"), ("v", "vgos")):
            ds = plain()
            for component in ("ugos", "vgos"):
                ds[component].attrs |= {"scale_factor": scale, "units": wrong if component == name else right}
            text = refused(tmp_path, ds, f"the units {wrong!r} of {name} contradict its values")
            assert f"currents.units: {{{role}: {right}}}" in text
            np.testing.assert_array_equal(
                everything(opened(tmp_path, ds, units={role: right})), everything(opened(tmp_path, plain(), "p.nc"))
            )


def test_components_of_other_units_that_are_right(tmp_path: Path) -> None:
    ds = plain()
    ds["vgos"].attrs |= {"scale_factor": 1e-2, "units": "cm/s"}
    np.testing.assert_array_equal(everything(opened(tmp_path, ds)), everything(opened(tmp_path, plain(), "p.nc")))


def test_units_are_looked_for_where_they_are(tmp_path: Path) -> None:
    ds = plain()
    del ds["ugos"].attrs["units"]
    ds["vgos"].attrs["units"] = "m"
    refused(tmp_path, ds, "'vgos' has units 'm': a length", "currents.units")
    ds["vgos"].attrs["units"] = "furlongs"
    refused(tmp_path, ds, "'vgos' has units 'furlongs'", "Set currents.units in the manifest")
    assert opened(tmp_path, ds, units="m/s").layout.stated == {"u": "m/s", "v": "m/s"}
    refused(tmp_path, centimetres(plain()), "ugos: the median of its absolute values", "such as cm/s")


# Names


@pytest.mark.parametrize(
    "names",
    [
        ("water_u", "water_v", "time", "lat", "lon"),
        ("vozocrtx", "vomecrty", "time_counter", "nav_lat", "nav_lon"),
        ("uo", "vo", "time_counter", "nav_lat", "nav_lon"),
        ("u_eastward", "v_northward", "ocean_time", "lat_rho", "lon_rho"),
        ("U", "V", "TIME", "LATITUDE", "LONGITUDE"),
        ("U_320", "V_321", "time", "lat", "lon"),
        ("ssu", "ssv", "MT", "Latitude", "Longitude"),
        ("u_geo", "v_geo", "t", "Y", "X"),
        ("u", "v", "Time", "yt_ocean", "xt_ocean"),
    ],
)
def test_names_of_products(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Beside variables that must not be taken for currents."""
    ds = plain()
    wind = {"standard_name": "eastward_wind", "units": "m/s"}
    for name, attrs in (("uwnd", wind), ("u10", wind), ("ustokes", {}), ("ugosa", {}), ("vsdx", {})):
        ds[name] = (ds["ugos"].dims, ds["ugos"].values * 0.5, attrs)
    ds = ds.rename(dict(zip(("ugos", "vgos", "time", "latitude", "longitude"), names, strict=True)))
    currents = opened(tmp_path, ds)
    assert currents.layout.names == dict(zip(("u", "v", "time", "lat", "lon"), names, strict=True))
    np.testing.assert_array_equal(everything(currents), everything(opened(tmp_path, plain(), "plain.nc")))


def test_all_that_is_lacking_is_said_at_once(tmp_path: Path) -> None:
    ds = plain().rename(ugos="zonal", vgos="merid", time="when", latitude="y", longitude="x")
    for name in ("when", "y", "x"):
        ds[name].attrs = {}
    text = refused(
        tmp_path, ds, "no 'u' variable, no 'v' variable, no 'time' variable, no 'lat' variable, no 'lon' variable",
        "zonal (when, y, x)", "{variables: {u: NAME, v: NAME, time: NAME, lat: NAME, lon: NAME}}",
    )  # fmt: skip
    assert text.count("currents.variables.") == 5
    given = {"u": "zonal", "v": "merid", "time": "wehn"}
    refused(
        tmp_path, ds, "no 'lat' variable, no 'lon' variable", "currents.variables.time names 'wehn'", variables=given
    )
    given = {"u": "zonal", "v": "merid", "time": "when", "lat": "y", "lon": "x"}
    units = {"time": "seconds since 1970-01-01"}
    np.testing.assert_array_equal(
        everything(opened(tmp_path, ds, variables=given, units=units)), everything(opened(tmp_path, plain(), "p.nc"))
    )
    both = plain().assign(uo=plain()["ugos"], vo=plain()["vgos"])
    refused(tmp_path, both, "'ugos' and 'uo' could both be the 'u' variable", "'vgos' and 'vo' could both be the 'v'")
    assert opened(tmp_path, both, variables={"u": "uo"}).layout.names["v"] == "vo"
    assert opened(tmp_path, plain(), variables={"u": "ugos"}).layout.names["v"] == "vgos"
    refused(tmp_path, plain().assign_coords(time=("time", np.arange(8), {"units": "days since then"})),
            "times count from 'then'", "Set currents.units.time in the manifest")  # fmt: skip
    mixed = plain().rename(vgos="vo")
    refused(tmp_path, mixed, "'ugos' and 'vo' are not the components of one current")


def test_what_calls_itself_a_wind_is_no_current(tmp_path: Path) -> None:
    ds = plain().rename(ugos="u", vgos="v")
    ds["u"].attrs["long_name"] = "U component of wind"
    refused(tmp_path, ds, "'u' is called as a current is, but calls itself 'U component of wind'")
    assert opened(tmp_path, ds, variables={"u": "u", "v": "v"}).layout.names["u"] == "u"


def test_longitudes_that_count_westward_under_other_units(tmp_path: Path) -> None:
    ds = plain()
    west = ds.assign_coords(longitude=-ds.longitude)
    west["longitude"].attrs = {"units": "degrees_east", "long_name": "longitude, positive west"}
    refused(tmp_path, west, "counts as degrees_west do", "Set currents.units.lon in the manifest: degrees_west")
    read = opened(tmp_path, west, "b.nc", units={"lon": "degrees_west"})
    np.testing.assert_allclose(everything(read), everything(opened(tmp_path, ds, "c.nc")))
