"""Whatever a file's encoding, its numbers are those that xarray, netCDF4 and cftime decode, or it is refused."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from driftcal.preprocess.recipe import CurrentSource, DrifterSource
from driftcal.preprocess.sources.drifters.drifters import open_drifters
from driftcal.preprocess.sources.encoding import Encoding, decode
from driftcal.preprocess.sources.gridded.currents import Currents
from driftcal.preprocess.sources.gridded.open_currents import open_currents
from driftcal.preprocess.sources.times import NO_TIME, seconds
from driftcal.preprocess.sources.units import angle_factor
from driftcal.shared.errors import DataError
from driftcal.shared.store.schema import FILL
from tests import encodings

LENIENT = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)

few = settings(max_examples=100, deadline=None, suppress_health_check=LENIENT)
many = settings(max_examples=2000, deadline=None, suppress_health_check=LENIENT)


def both(*strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """A property with 100 examples in every run of the tests, and with 2,000 among the faults."""

    def decorate(check: Callable[..., None]) -> Any:
        def run(count: str) -> None:
            (few if count == "100" else many)(given(*strategies)(check))()

        return pytest.mark.parametrize("count", ["100", pytest.param("2000", marks=pytest.mark.faults)])(run)

    return decorate


def decoded_by_others(path: Path, name: str) -> np.ndarray:
    """Values of a variable, NaN where xarray or, in NetCDF, netCDF4 with its ranges and own fills say so."""
    engine = "zarr" if path.suffix == ".zarr" else "netcdf4"
    options = {"consolidated": False} if engine == "zarr" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two fill values
        with xr.open_dataset(path, engine=engine, decode_times=False, **options) as dataset:  # type: ignore[arg-type]
            values = dataset[name].values.astype(np.float64)
    if engine == "netcdf4":
        with netCDF4.Dataset(path) as file:
            variable = file[name]
            variable.set_auto_maskandscale(True)
            masked = np.ma.getmaskarray(variable[...])
            if variable.dtype.itemsize == 1 and not {"_FillValue", "missing_value"} & set(variable.ncattrs()):
                # netCDF4 takes its own fills for missing here too, against the NetCDF User Guide (`valid_range`): where
                # no fill value of bytes is declared, all of them are valid
                variable.set_auto_maskandscale(False)
                own = netCDF4.default_fillvals[variable.dtype.str[1:]]
                masked &= variable[...] != own
            values = np.where(masked, np.nan, values)
    return values


def in_range(values: np.ndarray, variable: xr.DataArray) -> np.ndarray:
    """`values` decoded, NaN where what is stored is out of the `valid_range`; xarray knows no ranges."""
    if "valid_range" not in variable.attrs:
        return values
    least, greatest = variable.attrs["valid_range"]
    return np.where((variable.values < least) | (variable.values > greatest), np.nan, values)


def expected(case: encodings.Currents, path: Path, record: Currents) -> tuple[np.ndarray, np.ndarray]:
    """Both components [m/s], `(time, 2, lat, lon)` on the record's axes, and the times, as others decode them."""
    dataset = case.dataset
    components = []
    for name in ("uo", "vo"):
        values = in_range(decoded_by_others(path, name), dataset[name])
        variable = xr.Variable(dataset[name].dims, values)
        if "depth" in variable.dims:
            variable = variable.isel(depth=0)
        components.append(variable.transpose("time", "lat", "lon").values * case.factor)
    values = np.stack(components, axis=1)
    values[np.isnan(values).any(axis=1)[:, None].repeat(2, axis=1)] = np.nan
    lat, lon = (decoded_by_others(path, name) for name in ("lat", "lon"))
    rows = [int(np.abs(lat - at).argmin()) for at in record.lat.values]
    columns = [int(np.abs((lon - at + 180) % 360 - 180).argmin()) for at in record.lon.values]
    assert np.allclose(lat[rows], record.lat.values, atol=1e-4)
    assert np.allclose((lon[columns] - record.lon.values + 180) % 360 - 180, 0, atol=1e-4)
    attributes = dataset["time"].attrs
    labels = cftime.num2date(
        dataset["time"].values, attributes["units"], attributes.get("calendar", "standard").lower()
    )
    stamps = np.array([label.isoformat() for label in labels], "datetime64[ms]")
    return values[:, :, rows][..., columns], (stamps + np.timedelta64(500, "ms")).astype("datetime64[s]")


@both(encodings.currents(), st.booleans())
def test_currents_in_any_encoding(case: encodings.Currents, big: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = encodings.write(case.dataset, Path(folder), case.ending, big)
        if path is None:
            event("the format has no such type")
            return
        record = open_currents(CurrentSource(path=str(path)))
        read = record.read(0, encodings.NT)
        values, stamps = expected(case, path, record)
    event(f"{case.ending}, {case.dataset['uo'].dtype}")
    assert np.array_equal(record.time, stamps.astype(np.int64))
    assert np.array_equal(read == FILL, np.isnan(values))
    known = ~np.isnan(values)
    ticks = values[known] * 1e4
    # xarray adds an offset in float32, which rounds by its size
    offset = max(abs(float(case.dataset[name].attrs.get("add_offset", 0.0))) for name in ("uo", "vo")) * case.factor
    rounding = 2e-7 * (np.abs(ticks).max() + 2 * offset * 1e4)
    assert np.abs(read[known] - ticks).max() <= (1e-3 if case.exact else 0.5 + 2e-3 + rounding)


@st.composite
def stored_numbers(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any]]:
    """Any numbers at all, and attributes that say what they mean."""
    encoding = draw(encodings.numbers(draw(st.sampled_from([-2.0, 0.0, 200.0])), 300.0))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = np.dtype(encoding.dtype)
    if kind.kind == "f":
        stored = rng.normal(0, 50, 40).astype(kind)
        stored[rng.random(40) < 0.2] = np.nan
    else:
        stored = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, 40, kind, endpoint=True)
    for name in ("_FillValue", "missing_value"):
        if name in encoding.attributes:
            stored[rng.random(40) < 0.2] = np.ravel(encoding.attributes[name])[0]
    return stored.astype(kind.newbyteorder(draw(st.sampled_from("<>")))), encoding.attributes


@both(stored_numbers())
def test_numbers_in_any_encoding(case: tuple[np.ndarray, dict[str, Any]]) -> None:
    stored, attributes = case
    ours = decode(stored, attributes, "here")
    native = stored.astype(stored.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = xr.conventions.decode_cf_variable("x", xr.Variable("n", native, attributes), decode_times=False).values
    if not {"_FillValue", "missing_value"} & set(attributes):
        # netCDF's own fill, which xarray does not know
        default = netCDF4.default_fillvals.get(Encoding.of(native.dtype, attributes, "").read(native).dtype.str[1:])
        if native.dtype.itemsize > 1:
            theirs = np.where(Encoding.of(native.dtype, attributes, "").read(native) == default, np.nan, theirs)
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    scale = np.nanmax(np.abs(theirs)) if not np.isnan(theirs).all() else 1.0
    assert np.nanmax(np.abs(ours - theirs), initial=0.0) <= (2e-6 if theirs.dtype == np.float32 else 1e-12) * scale + (
        2e-6 * abs(float(attributes.get("add_offset", 0.0)))
    )


@both(st.integers(-60 * 365 * 24, 200 * 365 * 24), st.data())
def test_times_in_any_units(hours: int, data: st.DataObject) -> None:
    since_1970 = 3600 * (hours + np.array([0, 1, 5, 24, 8760]))
    counted = data.draw(encodings.times(since_1970, ["", "standard", "proleptic_gregorian", "julian", "noleap"]))
    units, calendar = counted.attributes["units"], counted.attributes.get("calendar", "standard")
    if calendar == "noleap":
        with pytest.raises(DataError, match="'noleap'"):
            seconds(counted.stored, counted.attributes, "here")
        return
    labels = cftime.num2date(counted.stored, units, calendar)
    # a reader who takes the dates of a calendar for real ones
    stamps = np.array([label.isoformat() for label in labels], "datetime64[ms]") + np.timedelta64(500, "ms")
    years = [*(label.year for label in labels), int(units.partition(" since ")[2][:4])]
    if calendar == "julian" and (min(years) < 1901 or max(years) > 2099):
        with pytest.raises(DataError, match="leave the years 1901 to 2099"):
            seconds(counted.stored, counted.attributes, "here")
        return
    ours = seconds(counted.stored, counted.attributes, "here")
    assert np.array_equal(ours, stamps.astype("datetime64[s]").astype(np.int64))


def read_tracks(path: Path) -> dict[str, np.ndarray]:
    """Times, longitudes and latitudes of every drifter, `(n, 3)`, as they are read."""
    rows = []
    for block in open_drifters(DrifterSource(path=str(path))).blocks():
        drifter = [block.drifter[row] for row in block.row.tolist()]
        rows += list(zip(drifter, block.time.tolist(), block.lon.tolist(), block.lat.tolist(), strict=True))
    names = {row[0] for row in rows}
    return {name: np.array([row[1:] for row in rows if row[0] == name]) for name in names}


@both(st.data())
def test_drifters_in_any_encoding(data: st.DataObject) -> None:
    case = data.draw(encodings.drifters())
    raw = encodings.ragged(data.draw, case)
    with tempfile.TemporaryDirectory() as folder:
        # zarr 2 has 0 as fill value of whatever nobody chose one for: it declares nothing
        zero = any(variable.attrs.get("_FillValue") == 0 for variable in raw.variables.values())
        formats = ["nc", "nc3", "zarr3"] if zero else ["nc", "nc3", "zarr2", "zarr3"]
        path = encodings.write(raw, Path(folder), data.draw(st.sampled_from(formats)))
        if path is None:
            event("the format has no such type")
            return
        read = read_tracks(path)
        lon, lat = (decoded_by_others(path, name) for name in ("lon", "lat"))
    attributes = raw["time"].attrs
    labels = cftime.num2date(raw["time"].values, attributes["units"], attributes.get("calendar", "standard"))
    stamps = np.array([label.isoformat() for label in labels], "datetime64[ms]") + np.timedelta64(500, "ms")
    time = stamps.astype("datetime64[s]").astype(np.int64)
    first = 0
    for drifter, n in zip(case.tracks, raw["rowsize"].values.tolist(), strict=True):
        rows = slice(first, first + n)
        first += n
        known = ~(np.isnan(lon[rows]) | np.isnan(lat[rows]))
        expected = np.stack([time[rows], lon[rows], lat[rows]], axis=1)[known]
        # xarray decodes some packed integers in float32
        coarse = [5e-7 * abs(float(raw[name].attrs.get("add_offset", 0.0))) + 3e-5 for name in ("lon", "lat")]
        assert np.allclose(read[drifter[0]], expected, rtol=0, atol=[0.0, *coarse])
    assert len(read) == len(case.tracks)


@both(st.data())
def test_tables_in_any_dialect(data: st.DataObject) -> None:
    case = data.draw(encodings.drifters())
    text = encodings.table(data.draw, case)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"drifters.{text.ending}"
        path.write_bytes(text.content)
        read = read_tracks(path)
        identity, time, lat, lon = text.options["names"]
        frame = pd.read_csv(path, **{key: value for key, value in text.options.items() if key != "names"})
    frame = frame.dropna(subset=[lat, lon])
    since_1970 = pd.to_datetime(frame[time], utc=True).dt.tz_localize(None).to_numpy("datetime64[s]").astype(np.int64)
    assert set(read) == set(frame[identity])
    for drifter, rows in frame.assign(at=since_1970).groupby(identity):
        assert np.array_equal(read[str(drifter)], rows[["at", lon, lat]].to_numpy(np.float64))


@pytest.mark.parametrize(
    ("units", "remedy"),
    [
        ("days since 0000-01-01", "subtract 719529"),
        ("days since 0000-01-00 00:00:00", "subtract 719529"),
        ("days since 0-1-1", "subtract 719529"),
        ("days since -4712-01-01 12:00:00", "subtract that"),
        ("days since -4713-11-24T12:00:00Z", "Julian days, which count 1970-01-01T00:00:00 as 2440587.5"),
        ("days since 1582-10-10", "not a date"),
        ("months since 1950-01-01", "expected such as"),
        ("days since 19500101", "not a date"),
    ],
)
def test_times_that_count_from_no_date(units: str, remedy: str) -> None:
    with pytest.raises(DataError, match=remedy):
        seconds(np.array([735_000.5]), {"units": units}, "here")


def test_datenum_is_read_as_its_message_says() -> None:
    datenum = 719_529 + 14_610.25  # MATLAB: datenum(2010, 1, 1, 6, 0, 0)
    assert seconds(np.array([datenum - 719_529]), {"units": "days since 1970-01-01"}, "")[0] == 1_262_304_000 + 21_600


def test_missing_times() -> None:
    stored = np.array([0, -32767, 5], np.int16)
    assert seconds(stored, {"units": "hours since 1970-01-01"}, "").tolist() == [0, NO_TIME, 18_000]
    attributes = {"units": "hours since 1970-01-01", "_Unsigned": "true", "_FillValue": np.int16(-1)}
    assert seconds(np.array([-2, -1], np.int16), attributes, "").tolist() == [65_534 * 3600, NO_TIME]


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"scale_factor": "x"}, "attribute scale_factor is 'x', expected a number"),
        ({"scale_factor": 0.0}, "scale_factor 0.0"),
        ({"add_offset": np.inf}, "add_offset inf"),
        ({"scale_factor": np.array([1.0, 2.0])}, "expected one number"),
        ({"valid_range": np.array([1, 2, 3])}, "expected two numbers"),
        ({"valid_min": 5, "valid_max": 3}, "valid range 5 to 3 is empty"),
        ({"_FillValue": "none"}, "attribute _FillValue is 'none'"),
    ],
)
def test_attributes_that_are_no_numbers(attributes: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        decode(np.arange(4, dtype=np.int16), attributes, "here")


@pytest.mark.parametrize(
    ("stored", "attributes", "meant"),
    [
        # text attributes, as some tools write numbers
        (np.array([1, -999], "i2"), {"scale_factor": "0.5", "missing_value": "-999"}, [0.5, np.nan]),
        # a fill given for decoded numbers
        (np.array([100, -9990], "i2"), {"scale_factor": 0.1, "missing_value": -999.0}, [10.0, -999.0]),
        (np.array([100, -9995], "i2"), {"scale_factor": 0.1, "missing_value": -999.5}, [10.0, np.nan]),
        # ranges: as stored where their type is the numbers', decoded where it is not
        (np.array([-5, 50, 200], "i2"), {"scale_factor": 0.1, "valid_max": np.int16(100)}, [-0.5, 5.0, np.nan]),
        (np.array([-5, 50, 200], "i2"), {"scale_factor": 0.1, "valid_max": 10.0}, [-0.5, 5.0, np.nan]),
        (np.array([-5, 50, 200], "i2"), {"scale_factor": -0.1, "valid_min": -10.0}, [0.5, -5.0, np.nan]),
        # 1e20 written in float32 beside float64 numbers, and the reverse
        (np.array([1e20, 2.0]), {"missing_value": np.float32(1e20)}, [np.nan, 2.0]),
        (np.array([-1e34, 2.0], "f4"), {"missing_value": -1e34}, [np.nan, 2.0]),
        (np.array([3, 255], "u1"), {"_FillValue": np.int8(-1)}, [3.0, np.nan]),
        (np.array([-1, 127], "i1"), {"_Unsigned": "true", "_FillValue": np.uint8(255)}, [np.nan, 127.0]),
        (np.array([255, 1], "u1"), {"_Unsigned": "false"}, [-1, 1]),
    ],
)
def test_what_attributes_mean(stored: np.ndarray, attributes: dict[str, Any], meant: list[float]) -> None:
    assert np.allclose(decode(stored, attributes, "here"), meant, equal_nan=True, rtol=1e-7)


def test_whole_numbers_stay_whole() -> None:
    """Identifiers of fifteen digits are no floats."""
    stored = np.array([300_234_011_234_567, 300_234_011_234_568])
    assert decode(stored, {}, "here").dtype == np.int64


@pytest.mark.parametrize(
    ("units", "axis", "factor"),
    [
        ("degrees_north", "lat", 1.0),
        ("degree_S", "lat", -1.0),
        ("degrees_west", "lon", -1.0),
        ("degree_west", "lon", -1.0),
        ("degreesW", "lon", -1.0),
        ("Degrees East", "lon", 1.0),
        ("°", "lon", 1.0),
        ("deg", "lat", 1.0),
        ("radians", "lat", 180 / np.pi),
        (None, "lat", 1.0),
        ("radian", "lon", 180 / np.pi),
        ("degrees", "lat", 1.0),
        ("degs", "lat", 1.0),
        ("degrees_s", "lat", -1.0),
        ("degrees (south)", "lat", -1.0),
        ("degrees true north", "lat", 1.0),
        ("decimal degrees", "lat", 1.0),
        ("degree_true", "lat", None),
        ("arc_minutes", "lat", None),
        ("degrees_east", "lat", None),
        ("degrees_north", "lon", None),
        ("m", "lon", None),
        ("km", "lat", None),
    ],
)
def test_units_of_coordinates(units: str | None, axis: Any, factor: float | None) -> None:
    if factor is None:
        with pytest.raises(DataError, match="units"):
            angle_factor(units, axis, "here")
    else:
        assert angle_factor(units, axis, "here") == pytest.approx(factor, rel=1e-15)
