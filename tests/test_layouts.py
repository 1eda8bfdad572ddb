"""Drifters in NetCDF and zarr by CF's conventions and In Situ TAC's: roles by attributes, units, flags, ids."""

from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from driftcal.preprocess.recipe import DrifterSource
from driftcal.preprocess.sources.drifters.drifters import Drifters, Fixes, open_drifters
from driftcal.preprocess.sources.units import angle_factor
from driftcal.shared.errors import DataError
from tests.sources import START, per_fix, ragged, save, track, tracks

ROWS = tracks()
SIZES = [len(row.time) for row in ROWS]


def opened(path: object, **settings: object) -> Drifters:
    return open_drifters(DrifterSource.model_validate({"path": str(path), **settings}))


def read(path: object, **settings: object) -> Fixes:
    (block,) = opened(path, **settings).blocks()
    return block


def check(block: Fixes, names: list[str]) -> None:
    for name in ("time", "lat", "lon"):
        np.testing.assert_array_equal(getattr(block, name), np.concatenate([getattr(row, name) for row in ROWS]))
    assert list(block.drifter.values()) == names
    np.testing.assert_array_equal(block.row, np.repeat([0, 1, 2], SIZES))


def indexed(order: np.ndarray, first: int = 0) -> xr.Dataset:
    """Indexed ragged array (CF H.4.4), the fixes in any order."""
    flat = ragged(ROWS)
    return xr.Dataset(
        {
            "time": ("obs", flat.time.values[order], flat.time.attrs),
            "lat": ("obs", flat.lat.values[order]),
            "lon": ("obs", flat.lon.values[order]),
            "of": ("obs", np.repeat([0, 1, 3], SIZES)[order].astype(np.int32) + first, {"instance_dimension": "traj"}),
            "station": ("traj", np.array(["a", "bb", "empty", "c"]), {"cf_role": "trajectory_id"}),
            "drogue_lost_date": ("traj", [np.nan, 0.0, 0.0, START + 1.0], {"units": "seconds since 1970-01-01"}),
        }
    )


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.filterwarnings("ignore:The data type")
def test_indexed_ragged_arrays(suffix: str, mixed: bool, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(12) if mixed else np.arange(12)
    source = opened(save(indexed(order), tmp_path / f"a.{suffix}"))
    (block,) = source.blocks()
    check(block, ["a", "bb", "c"])
    assert block.drogue.tolist() == [1] * 4 + [-1] * 3 + [1, 0, 0, 0, 0]
    np.testing.assert_array_equal(order[block.source_row], np.arange(12))
    assert any("1 of 4 rows hold no fixes" in note for note in source.notes)
    parts = list(source.blocks(4))
    np.testing.assert_array_equal(np.concatenate([part.lat for part in parts]), block.lat)


def test_indices_that_count_from_1_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'of' holds 1 to 4; expected .* from 0 to 3.*that count from 1 have to be one"
    ):
        opened(save(indexed(np.arange(12), first=1), tmp_path / "a.nc"))


def test_roles_by_attributes(tmp_path: Path) -> None:
    data = ragged(ROWS).rename(rowsize="n", id="station", lat="y", lon="x", time="t")
    data.station.attrs["cf_role"] = "trajectory_id"
    data.y.attrs["standard_name"], data.x.attrs["axis"], data.t.attrs["axis"] = "latitude", "X", "T"
    data["n"].attrs["sample_dimension"] = "obs"
    check(read(save(data, tmp_path / "a.nc")), [str(row.drifter) for row in ROWS])
    data["y2"] = data.y
    with pytest.raises(DataError, match=r"'y' and 'y2' could both be the 'lat' variable.*set drifters\.variables\.lat"):
        opened(save(data, tmp_path / "b.nc"))
    data.y.attrs["axis"] = "Y"
    check(read(save(data, tmp_path / "c.nc")), [str(row.drifter) for row in ROWS])


def in_situ_tac(own_dimensions: bool) -> xr.Dataset:
    """A drifter of In Situ TAC: positions on dimensions of their own, as older files have them, or on that of time."""
    lat, lon, position = ("LATITUDE", "LONGITUDE", "POSITION") if own_dimensions else ("TIME",) * 3
    days = (START + 3600 * np.arange(6)) / 86_400 + 7305
    return xr.Dataset(
        {
            "TIME": ("TIME", days, {"units": "days since 1950-01-01T00:00:00Z", "standard_name": "time", "axis": "T"}),
            "LATITUDE": (lat, np.linspace(40, 40.1, 6, dtype=np.float32), {"units": "degree_north"}),
            "LONGITUDE": (lon, np.linspace(5, 5.2, 6, dtype=np.float32), {"units": "degree_east"}),
            "POSITION_QC": (position, np.array([1, 2, 4, 0, 9, -127], np.int8), {"_FillValue": np.int8(-127)}),
            "TIME_QC": ("TIME", np.array([1, 1, 1, 3, 1, 1], np.int8)),
            "DEPH": (("TIME", "DEPTH"), np.zeros((6, 1), np.float32)),
            "TEMP": (("TIME", "DEPTH"), np.zeros((6, 1), np.float32)),
            "DC_REFERENCE": ("TIME", np.array([f"r{k}" for k in range(6)])),
        },
        attrs={"platform_code": "6100541", "cdm_data_type": "trajectory", "id": "GL_TS_DC_6100541"},
    )


@pytest.mark.parametrize("own", [True, False])
def test_in_situ_tac(own: bool, tmp_path: Path) -> None:
    source = opened(save(in_situ_tac(own), tmp_path / "GL_TS_DC_6100541.nc"))
    (block,) = source.blocks()
    np.testing.assert_array_equal(block.source_row, [0, 1, 5])
    np.testing.assert_array_equal(block.time, START + 3600 * np.array([0, 1, 5]))
    np.testing.assert_allclose(block.lon, np.linspace(5, 5.2, 6)[[0, 1, 5]], atol=1e-6)
    assert block.dropped == {"position flagged as bad": 2, "time flagged as bad": 1}
    assert block.drifter == {0: "6100541"}
    assert any("named by its attribute 'platform_code'" in note for note in source.notes)


def test_flags_as_characters(tmp_path: Path) -> None:
    path = save(in_situ_tac(False).drop_vars(["POSITION_QC", "TIME_QC"]), tmp_path / "a.nc")
    with netCDF4.Dataset(path, "a") as file:
        file.createVariable("POSITION_QC", "S1", ("TIME",))[:] = np.array(list("1420 3"), "S1")
    assert read(path).source_row.tolist() == [0, 2, 3, 4]


def test_a_grid_stays_refused(tmp_path: Path) -> None:
    data = in_situ_tac(True).drop_vars(["POSITION_QC", "TIME_QC", "DC_REFERENCE"])
    data.attrs = {"cdm_data_type": "Grid"}
    with pytest.raises(DataError, match="This looks like a grid, not drifters"):
        opened(save(data, tmp_path / "a.nc"))


def test_a_file_without_ids_is_named_by_itself(tmp_path: Path) -> None:
    for k in (1, 2):
        data = per_fix([track(k, lon=5.0 * k)]).drop_vars(["drifter_id", "id", "rowsize"])
        save(data, tmp_path / f"SPOT-{k}.nc")
    source = opened(tmp_path / "*.nc")
    assert [name for block in source.blocks() for name in block.drifter.values()] == ["SPOT-1", "SPOT-2"]
    with pytest.raises(DataError, match="no 'id' variable under any known name"):
        opened(save(ragged(ROWS).drop_vars("id"), tmp_path / "several.nc"))


@pytest.mark.parametrize(
    ("lat", "lon", "scale_lat", "scale_lon"),
    [
        ("degrees_north", "degree_west", 1, -1),
        ("degree_S", "degrees_east", -1, 1),
        ("radians", "radian", np.pi / 180, np.pi / 180),
        ("degrees", "degrees", 1, 1),
    ],
)
def test_units_of_positions(lat: str, lon: str, scale_lat: float, scale_lon: float, tmp_path: Path) -> None:
    data = ragged(ROWS)
    data["lat"] = (data.lat * scale_lat).assign_attrs(units=lat)
    data["lon"] = (data.lon * scale_lon).assign_attrs(units=lon)
    source = opened(save(data, tmp_path / "a.nc"))
    (block,) = source.blocks()
    np.testing.assert_allclose(block.lat, np.concatenate([row.lat for row in ROWS]), rtol=0, atol=1e-13)
    np.testing.assert_allclose(block.lon, np.concatenate([row.lon for row in ROWS]), rtol=0, atol=1e-12)
    converted = [note for note in source.notes if "converted to degrees" in note]
    assert len(converted) == (scale_lat != 1) + (scale_lon != 1)


def test_a_plural_is_no_direction() -> None:
    for units in ("degrees", "degs", "radians", "Degrees"):
        assert angle_factor(units, "lat", "x") > 0
        assert angle_factor(units, "lon", "x") > 0


def test_units_that_are_no_angles_or_the_other_coordinates(tmp_path: Path) -> None:
    data = ragged(ROWS)
    data.lat.attrs["units"] = "m"
    with pytest.raises(DataError, match=r"'lat' has units 'm', which are not known as those of a latitude"):
        opened(save(data, tmp_path / "a.nc"))
    data.lat.attrs["units"] = "degrees_east"
    with pytest.raises(DataError, match=r"Are lat and lon exchanged\?"):
        opened(save(data, tmp_path / "b.nc"))


def test_positions_out_of_their_valid_range_have_a_reason_of_their_own(tmp_path: Path) -> None:
    data = ragged(ROWS)
    data.lat.attrs["valid_max"], data.lon.attrs["valid_range"] = 39.995, np.array([-37.99, 180.0])
    data["lat"][8] = np.nan
    block = read(save(data, tmp_path / "a.nc"))
    assert block.dropped == {"position out of its valid range": 4, "position missing": 1}
    assert block.source_row.tolist() == [1, 2, 3, 7, 9, 10, 11]


def test_dates_of_loss_that_are_all_missing(tmp_path: Path) -> None:
    for k, values in enumerate(
        (np.full(3, np.nan), np.full(3, -(2**63), np.int64), np.full(3, -9999, np.int32), np.array(["", "", ""]))
    ):
        data = ragged(ROWS).drop_vars("drogue_status")
        of_kind = {"int32": {"_FillValue": np.int32(-9999)}, "int64": {"units": "seconds since 1970-01-01"}}
        attributes = of_kind.get(values.dtype.name, {})
        data["drogue_lost_date"] = ("traj", values, attributes)
        assert (read(save(data, tmp_path / f"{k}.nc")).drogue == 1).all()


def test_states_of_the_drogue_by_their_flags(tmp_path: Path) -> None:
    path, dataset = tmp_path / "a.nc", ragged([track(n=5)])
    dataset["drogue_status"] = ("obs", np.array([0, 1, 1, 2, 1], np.int8))
    dataset.drogue_status.attrs = {
        "flag_values": np.array([0, 1, 2], np.int8),
        "flag_meanings": "drogue_on drogue_lost unknown",
    }
    dataset.to_netcdf(path)
    (block,) = open_drifters(DrifterSource(path=str(path))).blocks()
    assert block.drogue.tolist() == [1, 0, 0, -1, 0]


def test_trajectories_that_go_on_in_another_file_are_warned_of(tmp_path: Path) -> None:
    day = [track(n=24, start=START + k * 86_400, lon=-38.0 + 0.48 * k, lat=-21.5 + 0.24 * k) for k in range(3)]
    for k, rows in enumerate(day):
        save(ragged([rows]), tmp_path / f"{k}.nc")
    source = open_drifters(DrifterSource(path=str(tmp_path / "*.nc")))
    assert len(list(source.blocks())) == 3
    assert source.continued == 2
    assert any("WARNING" in note and "2 trajectories go on in another file" in note for note in source.notes)
    save(ragged(day), tmp_path / "whole.nc")  # cut within a file they are so by intention
    source = open_drifters(DrifterSource(path=str(tmp_path / "whole.nc")))
    assert len(list(source.blocks())) == 1
    assert source.continued == 0


@pytest.mark.parametrize(
    "attributes",
    [
        {"positive": "west"},
        {"long_name": "longitude (positive west)"},
        {"comment": "Westward is positive"},
        {"units": "degrees_east", "long_name": "Longitude, positive to the West"},
    ],
)
def test_longitudes_that_count_westward_are_refused_until_their_units_say_so(
    attributes: dict[str, str], tmp_path: Path
) -> None:
    data = ragged(tracks())
    data["lon"] = (-data.lon).assign_attrs(attributes)
    with pytest.raises(DataError, match=r"'lon' counts to the west, as .* says, .* Correct the units to degrees_west"):
        open_drifters(DrifterSource(path=str(save(data, tmp_path / "a.nc"))))
    data["lon"].attrs["units"] = "degrees_west"
    (block,) = open_drifters(DrifterSource(path=str(save(data, tmp_path / "b.nc")))).blocks()
    np.testing.assert_array_equal(block.lon, ragged(tracks()).lon.values)


@pytest.mark.parametrize(
    "attributes",
    [{"long_name": "longitude, east positive, west negative"}, {"comment": "west of Iberia"}, {"positive": "up"}],
)
def test_longitudes_that_count_eastward_are_read_whatever_else_is_said(
    attributes: dict[str, str], tmp_path: Path
) -> None:
    data = ragged(tracks())
    data["lon"].attrs = attributes
    (block,) = open_drifters(DrifterSource(path=str(save(data, tmp_path / "a.nc")))).blocks()
    np.testing.assert_array_equal(block.lon, ragged(tracks()).lon.values)


@pytest.mark.parametrize("name", ["longitude_west", "Lon °W", "West Longitude"])
def test_columns_whose_names_say_that_they_count_westward(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"id,time,lat,{name}\na,2010-01-01T00:00:00Z,41,12\n")
    with pytest.raises(DataError, match=f"{name!r} counts to the west, .*: {name} .degrees_west."):
        open_drifters(DrifterSource(path=str(path), variables={"lon": name}))
    path.write_text(f"id,time,lat,{name} (degrees_west)\na,2010-01-01T00:00:00Z,41,12\n")
    (block,) = open_drifters(DrifterSource(path=str(path), variables={"lon": name})).blocks()
    assert block.lon.tolist() == [-12.0]
