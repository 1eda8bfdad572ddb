"""Windows through the whole preprocessing equal what a plain selection from the source gives, cell for cell."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from driftcal.preprocess.drift import windows
from driftcal.preprocess.recipe import CurrentSource
from driftcal.preprocess.sources.gridded.open_currents import open_currents
from driftcal.shared import geo
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.schema import FILL, STATUS
from tests import fields, sources
from tests.fields import DAY, START

HALF = 2.5


def same_as_source(source: str, drifters: list[sources.Track], store: ShardStore) -> None:
    """Every window, track and label of `store` against its sources."""
    layout, label = store.layout, store.labels
    by_name = {str(track.drifter): track for track in drifters}
    currents = store.currents.read(range(len(store)))
    positions = store.positions.read(range(len(store)))
    extent = np.array([layout.n_lon - 1, layout.n_lat - 1]) * [layout.lon_step, layout.lat_step]
    for k in range(len(store)):
        np.testing.assert_array_equal(currents[k], fields.selected(source, store, k), err_msg=f"sample {k}")
        track = by_name[store.drifters[label["drifter"][k]]]
        first = np.flatnonzero(track.time == label["start_time"][k])[0]
        part = slice(first, first + layout.n_obs)
        np.testing.assert_array_equal(
            track.time[part], label["start_time"][k] + layout.obs_step * np.arange(layout.n_obs)
        )
        lonlat = label["origin"][k] + positions[k].astype(np.float64)
        assert (np.abs(np.diff(lonlat[:, 0])) < 1).all()
        np.testing.assert_allclose(geo.wrap_longitude(lonlat[:, 0] - track.lon[part]), 0, atol=1e-5)
        np.testing.assert_allclose(lonlat[:, 1], track.lat[part], atol=1e-6)
        assert np.abs(geo.wrap_longitude(lonlat[:, 0] - track.lon[part])).max() < 1e-6
        inside = lonlat - label["window_corner"][k]
        assert (inside >= 0).all()
        assert (inside <= extent).all()
        assert label["window_time"][k] <= label["start_time"][k] < label["window_time"][k] + layout.time_step
        assert track.time[part][-1] <= label["window_time"][k] + (layout.n_times - 1) * layout.time_step


def near(lon: float, lat: float, n: int, seed: int, spread: tuple[float, float] = (3.0, 3.0)) -> list[sources.Track]:
    """Drifters of five days that start around a place at any hour of the first days."""
    rng = np.random.default_rng(seed)
    return [
        fields.walk(
            1000 * seed + k,
            lon + rng.uniform(-1, 1) * spread[0],
            lat + rng.uniform(-1, 1) * spread[1],
            start=START + 3600 * int(rng.integers(0, 96)),
            seed=seed,
        )
        for k in range(n)
    ]


GLOBAL_360 = 0.75 + 1.5 * np.arange(240)
GLOBAL_180 = -179.25 + 1.5 * np.arange(240)
LAT = -34.5 + 1.0 * np.arange(47)
LAND = ((slice(20, 26), slice(0, 4)), (slice(8, 11), slice(100, 130)))


@pytest.mark.parametrize(
    ("lon", "kind", "name", "descending"),
    [
        (GLOBAL_360, "int32", "currents.nc", False),
        (GLOBAL_180, "int16", "currents.nc", True),
        (GLOBAL_360, "float64", "currents.zarr", True),
        (GLOBAL_180, "float64", "currents.zarr", False),
        (np.roll(GLOBAL_180, 77), "int32", "currents.nc", False),
    ],
)
def test_windows_of_a_global_grid(tmp_path: Path, lon: np.ndarray, kind: str, name: str, descending: bool) -> None:
    raw = fields.field(lon, LAT, 11, kind=kind, land=LAND)
    raw = raw.isel(latitude=slice(None, None, -1)) if descending else raw
    source = fields.save(raw, tmp_path / name)
    seams = [t for seed, place in enumerate((180.0, -179.9, 0.0, 0.1), 1) for t in near(place, -10.0, 8, seed)]
    coast = near(3.0, -11.5, 12, 7) + near(-178.0, -11.5, 12, 8)
    drifters = [*seams, *coast, *near(75.0, 0.0, 10, 9, (100.0, 8.0))]
    path = sources.save(sources.ragged(drifters), tmp_path / "drifters.nc")
    # shards of 16, and every one needs more than one block of levels
    store = fields.make(fields.manifest(tmp_path, path, source, store={"samples_per_shard": 16}), tmp_path / "store")
    same_as_source(source, drifters, store)

    # nothing is lost but what is on land: cells with four corners of land
    with xr.open_dataset(source) as decoded:
        dry = np.isnan(decoded.ugos.isel(time=0).sortby("latitude").sortby("longitude"))
        west, land = float(dry.longitude[0]), dry.values
    due = 0
    for track in drifters:
        column = np.floor((track.lon - west) % 360 / 1.5).astype(int)
        row = np.floor(track.lat + 34.5).astype(int)
        due += any(
            all(land[j + b, (i + a) % 240] for a in (0, 1) for b in (0, 1)) for i, j in zip(column, row, strict=True)
        )
    kept, dropped = fields.funnel(store)["inside the record"]
    assert dropped == ({windows.ON_LAND: due} if due else {})
    assert kept == len(store) == len(drifters) - due
    assert (store.labels["status"] == 0).all()
    crossing = np.abs(store.labels["window_corner"][:, 0]) + store.layout.n_lon * 1.5 > 180
    assert crossing.sum() > 10
    if lon is GLOBAL_360:
        assert due > 0
        assert (store.currents.read(range(len(store))) == FILL).any()


def test_windows_at_the_edges_of_a_domain_are_dropped_and_never_padded(tmp_path: Path) -> None:
    lon, lat = 165 + 0.5 * np.arange(61), 10 + 0.25 * np.arange(65)  # across the antimeridian, to 195 E; 10 to 26 N
    source = fields.save(fields.field(lon, lat, kind="int16"), tmp_path / "currents.nc")
    drifters = near(180.0, 18.0, 150, 1, (18.0, 10.0))
    path = sources.save(sources.ragged(drifters), tmp_path / "drifters.nc")
    store = fields.make(fields.manifest(tmp_path, path, source), tmp_path / "store")
    same_as_source(source, drifters, store)
    middle = {
        track.drifter: ((min(track.lon % 360) + max(track.lon % 360)) / 2, (min(track.lat) + max(track.lat)) / 2)
        for track in drifters
    }
    half_lon = HALF / np.cos(np.radians(max(y for _, y in middle.values() if 10 + HALF <= y <= 26 - HALF)))
    fits = [
        name for name, (x, y) in middle.items() if 165 + half_lon <= x <= 195 - half_lon and 10 + HALF <= y <= 26 - HALF
    ]
    assert sorted(store.drifters[k] for k in store.labels["drifter"]) == sorted(map(str, fits))
    kept, dropped = fields.funnel(store)["inside the record"]
    assert (kept, dropped) == (len(fits), {windows.OUTSIDE_DOMAIN: 150 - len(fits)})
    assert 20 < len(fits) < 130


def test_drifters_beyond_the_currents_do_not_widen_the_windows(tmp_path: Path) -> None:
    lon, lat = 20 + 0.25 * np.arange(81), -6 + 0.25 * np.arange(49)
    source = fields.save(fields.field(lon, lat), tmp_path / "currents.nc")
    drifters = [fields.walk(1, 30.0, 0.0), fields.walk(2, 30.0, 59.0)]
    path = sources.save(sources.ragged(drifters), tmp_path / "drifters.nc")
    store = fields.make(fields.manifest(tmp_path, path, source), tmp_path / "store")
    assert (store.layout.n_lat, store.layout.n_lon) == (24, 24)
    assert fields.funnel(store)["inside the record"] == (1, {windows.OUTSIDE_DOMAIN: 1})


@pytest.mark.parametrize("hour", [0, 1, 12, 23])
def test_five_days_from_any_hour_take_seven_daily_levels(tmp_path: Path, hour: int) -> None:
    lon, lat = 30 + 0.25 * np.arange(41), -40 + 0.25 * np.arange(37)
    # levels at noon, as some products have them
    source = fields.save(fields.field(lon, lat, 9, start=START - DAY // 2), tmp_path / "currents.nc")
    drifters = [fields.walk(3, 35.0, -36.0, start=START + 3600 * hour)]
    path = sources.save(sources.ragged(drifters), tmp_path / "drifters.nc")
    store = fields.make(fields.manifest(tmp_path, path, source), tmp_path / "store")
    assert store.layout.n_times == 7
    same_as_source(source, drifters, store)


def test_six_hourly_drifters_and_six_hourly_currents(tmp_path: Path) -> None:
    lon, lat = 30 + 0.25 * np.arange(41), -40 + 0.25 * np.arange(37)
    source = fields.save(fields.field(lon, lat, 40, step=21_600), tmp_path / "currents.nc")
    drifters = [fields.walk(3, 35.0, -36.0, n=29, step=21_600, start=START + 10_800)]
    path = sources.save(sources.ragged(drifters), tmp_path / "drifters.nc")
    tree = {"segment": {"days": 2.5, "step": "6h", "stride_days": 1}}
    store = fields.make(fields.manifest(tmp_path, path, source, **tree), tmp_path / "store")
    assert (len(store), store.layout.n_obs, store.layout.n_times) == (5, 11, 12)
    same_as_source(source, drifters, store)


def test_ice_and_failed_downloads_keep_a_window_out_of_every_split(tmp_path: Path) -> None:
    lon, lat = 30 + 0.5 * np.arange(61), -40 + 0.5 * np.arange(21)
    raw = fields.field(lon, lat, 12, kind="float64")
    raw["ugos"].values[3, 2:9, 5:8] = np.nan  # a rectangle on one level, in one component
    raw["vgos"].values[5:, 4:20, 30:33] = np.nan  # ice comes, and stays
    source = fields.save(raw, tmp_path / "currents.nc")
    drifters = [
        fields.walk(1, 33.5, -36.0),
        fields.walk(2, 45.9, -35.0, start=START + DAY),
        fields.walk(3, 53.0, -35.0),
    ]
    path = sources.save(sources.ragged(drifters), tmp_path / "drifters.nc")
    store = fields.make(fields.manifest(tmp_path, path, source), tmp_path / "store")
    by_drifter = {store.drifters[d]: k for k, d in enumerate(store.labels["drifter"])}
    assert [store.labels["status"][by_drifter[name]] for name in "123"] == [1, 1, 0]
    assert [store.labels["split"][by_drifter[name]] for name in "123"] == [-1, -1, 0]
    assert fields.funnel(store)["samples"] == (1, {STATUS[1]: 2})
    assert store.manifest.splits == {"train": {"samples": 1, "drifters": 1}}
    same_as_source(source, drifters, store)


def test_currents_beyond_int16_keep_a_window_out_of_every_split(tmp_path: Path) -> None:
    lon, lat = 30 + 0.5 * np.arange(61), -40 + 0.5 * np.arange(21)
    raw = fields.field(lon, lat, 12, kind="float64")
    raw["vgos"].values[2, 8, 7] = -3.2767
    raw["vgos"].values[2, 8, 40] = 3.2766
    source = fields.save(raw, tmp_path / "currents.nc")
    drifters = [fields.walk(1, 33.5, -36.0), fields.walk(3, 50.0, -35.0)]
    path = sources.save(sources.ragged(drifters), tmp_path / "drifters.nc")
    store = fields.make(fields.manifest(tmp_path, path, source), tmp_path / "store")
    fast, whole = (k for _, k in sorted((store.drifters[d], k) for k, d in enumerate(store.labels["drifter"])))
    assert (store.labels["status"][fast], store.labels["split"][fast]) == (2, -1)
    assert (store.labels["status"][whole], store.labels["split"][whole]) == (0, 0)
    assert fields.funnel(store)["samples"] == (1, {STATUS[2]: 1})
    window = store.currents.read([whole])[0]
    np.testing.assert_array_equal(window, fields.selected(source, store, whole))
    assert window.max() == 32_766
    assert (store.currents.read([fast]) != -32_767).all()


def test_land_given_as_zeros_is_land(tmp_path: Path) -> None:
    lon, lat = 30 + 0.5 * np.arange(41), -40 + 0.5 * np.arange(31)
    raw = fields.field(lon, lat, 8, kind="float64")
    for name in ("ugos", "vgos"):
        raw[name].values[:, 10:14, 12:20] = 0.0
        raw[name].values[3, 20, 12] = 0.0  # a calm moment is no land
    source = fields.save(raw, tmp_path / "currents.nc")
    path = sources.save(sources.ragged([fields.walk(1, 36.0, -31.5)]), tmp_path / "drifters.nc")
    store = fields.make(fields.manifest(tmp_path, path, source), tmp_path / "store")
    window, due = store.currents.read([0])[0], fields.selected(source, store, 0)
    zero = (due == 0).all(axis=0) & (due == 0).all(axis=(0, 1))
    assert (window[:, zero] == FILL).all()
    np.testing.assert_array_equal(window[:, ~zero], due[:, ~zero])
    assert (window == 0).all(axis=0).sum() == 1
    assert zero.any()


def test_two_sources_of_currents_serve_each_drifter_from_its_own(tmp_path: Path) -> None:
    lat = -40 + 0.5 * np.arange(21)
    west = fields.save(fields.field(30 + 0.5 * np.arange(31), lat, seed=1), tmp_path / "west.nc")
    east = fields.save(fields.field(175 + 0.5 * np.arange(31), lat, seed=2), tmp_path / "east.nc")
    drifters = [fields.walk(1, 36.0, -35.0), fields.walk(2, -178.0, -35.0), fields.walk(3, 100.0, -35.0)]
    path = sources.save(sources.ragged(drifters), tmp_path / "drifters.nc")
    store = fields.make(fields.manifest(tmp_path, path, [west, east]), tmp_path / "store")
    for k in range(2):
        source = {"1": west, "2": east}[store.drifters[store.labels["drifter"][k]]]
        np.testing.assert_array_equal(store.currents.read([k])[0], fields.selected(source, store, k))
    assert fields.funnel(store)["inside the record"] == (2, {windows.OUTSIDE_DOMAIN: 1})


def test_a_record_that_is_cut_in_time_into_sources_is_warned_of(tmp_path: Path) -> None:
    lon, lat = 30 + 0.5 * np.arange(31), -40 + 0.5 * np.arange(21)
    whole = fields.field(lon, lat, levels=20)
    halves = [
        fields.save(whole.isel(time=slice(*ends)), tmp_path / f"h{k}.nc") for k, ends in enumerate([(0, 9), (9, 20)])
    ]
    drifters = [fields.walk(k, 36.0, -35.0, start=START + k * DAY) for k in range(10)]
    path = sources.save(sources.ragged(drifters), tmp_path / "drifters.nc")
    glob = fields.make(fields.manifest(tmp_path, path, str(tmp_path / "h*.nc")), tmp_path / "glob")
    assert not [note for note in glob.manifest.notes if "go on where" in note]
    cut = fields.make(fields.manifest(tmp_path, path, halves[::-1]), tmp_path / "cut")
    assert len(cut) < len(glob)
    (warning,) = [note for note in cut.manifest.notes if "go on where" in note]
    assert warning.startswith(f"WARNING: currents {halves[1]} go on where {halves[0]} end, on the same grid.")


def test_windows_are_the_same_however_few_levels_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lon, lat = 30 + 0.5 * np.arange(31), -40 + 0.5 * np.arange(21)
    source = fields.save(fields.field(lon, lat, 40), tmp_path / "currents.nc")
    currents = open_currents(CurrentSource(path=source))
    shape = windows.shape_of(2.0, 38.0, 2.0, currents)
    rng = np.random.default_rng(0)
    start = START + 3600 * rng.integers(0, 36 * 24, 60)
    origin = np.stack([rng.uniform(34, 41, 60), rng.uniform(-37, -33, 60)], -1)
    placed = windows.place(start, 2 * DAY, origin, np.zeros((60, 2, 2)), shape, currents)
    assert not placed.reason.any()

    def cut() -> np.ndarray:
        out = np.empty((60, 2, shape.n_times, shape.n_lat, shape.n_lon), np.int16)
        for which, found in windows.cut(placed, shape, currents):
            out[which] = found
        return out

    whole = cut()
    for blocks in (1, 2, 5):
        monkeypatch.setattr(
            "driftcal.preprocess.sources.gridded.currents.AHEAD_BYTES", blocks * lat.size * lon.size * 4
        )
        monkeypatch.setattr(windows, "AT_ONCE", blocks)
        np.testing.assert_array_equal(cut(), whole)


@pytest.mark.parametrize(
    ("half", "latitude", "step", "cells"), [(2.5, 0.0, 0.25, 24), (2.5, 60.0, 0.25, 44), (1.0, 0.0, 0.5, 8)]
)
def test_shape_covers_its_half_widths(tmp_path: Path, half: float, latitude: float, step: float, cells: int) -> None:
    lon, lat = 30 + step * np.arange(9), -40 + step * np.arange(7)
    currents = open_currents(CurrentSource(path=fields.save(fields.field(lon, lat, 3), tmp_path / "c.nc")))
    shape = windows.shape_of(half, latitude, 5.0, currents)
    assert shape.n_times == 7
    assert shape.n_lon == cells
    assert shape.n_lat % 4 == shape.n_lon % 4 == 0
    # the worst centre, between two nodes, still has both half-widths
    assert (shape.n_lon / 2 - 1) * step >= shape.half_lon - 1e-6
    assert (shape.n_lat / 2 - 1) * step >= half - 1e-6


@pytest.mark.parametrize(("first", "size"), [(-180.0, 72), (2.5, 40)], ids=["global", "regional"])
def test_the_land_of_a_window_is_that_of_its_cells(tmp_path: Path, first: float, size: int) -> None:
    """Over the seam too, where columns are negative or run over the end."""
    rng = np.random.default_rng(7)
    lat, lon = -40 + 5.0 * np.arange(17), first + 5.0 * np.arange(size)
    raw = fields.field(lon, lat, levels=9)
    kind = rng.integers(0, 4, (lat.size, lon.size))
    for name in ("ugos", "vgos"):
        raw[name].values[:, kind == 0] = fields.FILLS["int32"]
        raw[name].values[:, kind == 1] = 0
        raw[name].values[2, kind == 2] = fields.FILLS["int32"]  # ice, or a failed download
    currents = open_currents(CurrentSource(path=fields.save(raw, tmp_path / "currents.nc")))
    assert currents.periodic == (size == 72)
    column = np.arange(-9, 80) if currents.periodic else np.arange(size - 7)
    placed = windows.Placement.empty(len(column))
    placed.column[:], placed.row[:] = column, rng.integers(0, 14, len(column))
    found = windows.masked_always(placed, windows.Shape(7, 4, 8, 5.0, 10.0), currents)
    for k, (row, west) in enumerate(zip(placed.row.tolist(), column.tolist(), strict=True)):
        for i, j in np.ndindex(4, 8):
            assert found[k, i, j] == (kind[row + i, (west + j) % size] <= 1), (row, west, i, j)
