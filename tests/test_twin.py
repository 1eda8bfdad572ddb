"""The made ocean and the independent integrator: formats, closed forms, coasts, determinism."""

from pathlib import Path
from unittest.mock import Mock

import netCDF4
import numpy as np
import pytest
import xarray as xr

from driftcal.preprocess.made.drifter_integrator import Interval, Record, advance
from driftcal.preprocess.made.eddying_ocean import Ocean, write_currents
from driftcal.preprocess.made.fleet import Fleet, plan_fleet
from driftcal.preprocess.made.product_files import FILL
from driftcal.preprocess.made.twin import WINDAGE, make, simulate
from driftcal.preprocess.recipe import DAY, CurrentSource, Synthetic
from driftcal.preprocess.sources.gridded.axes import Axis
from driftcal.preprocess.sources.gridded.currents import Currents
from driftcal.preprocess.sources.gridded.open_currents import open_currents
from driftcal.shared.errors import ConfigError, DataError
from driftcal.shared.geo import EARTH_RADIUS, METRES_PER_DEGREE

SMALL = {
    "lon": (172.0, 186.0),
    "lat": (-38.0, -28.0),
    "days": 40,
    "drifters": 40,
    "drifter_days": 12.0,
    "start": "2011-01-20",
}


def grid(nlat=41, nlon=61, lat0=-5.0, lon0=20.0, step=0.25, periodic=False):
    """A stand-in for `Currents`: the grid alone."""
    return Mock(spec=Currents, lat=Axis(lat0, step, nlat), lon=Axis(lon0, step, nlon), periodic=periodic)


def steady(axes, u, v):
    """One day of constant currents."""
    shape = (axes.lat.size, axes.lon.size)
    return Interval(axes, np.stack([np.stack([np.broadcast_to(u, shape), np.broadcast_to(v, shape)])] * 2), 0, DAY)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    spec = Synthetic(folder=str(tmp_path_factory.mktemp("twin")), **SMALL)
    make(spec)
    return spec


@pytest.fixture(scope="module")
def drifters(twin):
    with xr.open_dataset(f"{twin.folder}/drifters.nc") as data:
        return data.load()


def rows(data):
    """Each drifter's slice of the fixes."""
    ends = np.cumsum(data.rowsize.values)
    return [slice(end - size, end) for end, size in zip(ends, data.rowsize.values, strict=True)]


# The made ocean.


def test_currents_are_packed_as_the_product_is(twin):
    with netCDF4.Dataset(f"{twin.folder}/currents/currents_201101.nc") as raw:
        raw.set_auto_maskandscale(False)
        u = raw["ugos"]
        assert (u.dtype, u._FillValue, u.scale_factor, u.units) == (np.int32, FILL, 1e-4, "m/s")
        assert u.standard_name == "surface_geostrophic_eastward_sea_water_velocity"
        assert u.dimensions == ("time", "latitude", "longitude")
        assert u.chunking() == [1, 40, 56]
        assert raw["time"].units == "days since 1950-01-01"
        assert raw["latitude"].dtype == raw["longitude"].dtype == np.float32
        # 172 to 186 east crosses the antimeridian: the product's subsets come in [0, 360) then.
        np.testing.assert_allclose(raw["longitude"][[0, -1]], [172.125, 185.875])
        assert raw["time"].size == 12
        np.testing.assert_array_equal(u[:] == FILL, np.broadcast_to(Ocean(twin).land, u.shape))


def test_currents_decode_and_read_back(twin):
    with xr.open_mfdataset(f"{twin.folder}/currents/*.nc") as data:
        assert data.time.values[0] == np.datetime64("2011-01-20")
        assert data.time.values[-1] == np.datetime64("2011-02-28")
        ocean, day = Ocean(twin), 22300
        assert data.sizes == {"time": 40, "latitude": 40, "longitude": 56}
        index = day - int(
            data.time.values[0].astype("datetime64[D]").astype(int) - np.datetime64("1950-01-01").astype(int)
        )
        np.testing.assert_allclose(data.vgos[index], ocean.velocity(day)[1], atol=0.51e-4)
    currents = open_currents(CurrentSource(path=f"{twin.folder}/currents/*.nc"))
    assert currents.lon.start == pytest.approx(172.125)
    assert not currents.periodic
    np.testing.assert_array_equal(currents.read(0, 1)[0, 0] == -32768, ocean.land)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_currents_are_those_of_an_eddying_ocean(seed):
    ocean = Ocean(Synthetic(folder="unused", seed=seed))
    assert ocean.land.shape == (100, 160)
    assert 0.05 < ocean.land.mean() < 0.08
    velocity = np.stack([ocean.velocity(21915 + day) for day in range(0, 365, 12)])
    speed = np.hypot(velocity[:, 0], velocity[:, 1])
    assert 0.25 < np.sqrt(np.nanmean(speed**2)) < 0.35
    assert np.nanmax(speed) < 2.5
    # Slow: a day changes the currents by a fraction, a season by all of it.
    change = np.nanstd(ocean.velocity(21916) - velocity[0]) / np.nanstd(velocity[0])
    assert 0.02 < change < 0.4


def test_currents_are_nondivergent_and_spare_the_coast():
    ocean = Ocean(Synthetic(folder="unused", seed=3))
    u, v = ocean.velocity(22000)
    cosine = np.cos(np.radians(ocean.lat))[:, None]
    east = u[1:-1, 2:] - u[1:-1, :-2]
    north = (v * cosine)[2:, 1:-1] - (v * cosine)[:-2, 1:-1]
    assert np.nanmax(np.abs(east + north)) < 1e-9
    assert np.nanstd(east) > 1e-2
    beside = np.zeros_like(ocean.land)
    beside[1:] |= ocean.land[:-1]
    beside[:, 1:] |= ocean.land[:, :-1]
    beside &= ~ocean.land
    assert np.sqrt(np.nanmean(u[beside] ** 2 + v[beside] ** 2)) < 0.1


def test_currents_round_the_earth_have_no_seam():
    spec = Synthetic(folder="unused", lon=(-180.0, 180.0), lat=(-20.0, 16.0), resolution_deg=1.0)
    ocean = Ocean(spec)
    u = ocean.velocity(22000)[0]
    seam, elsewhere = np.abs(u[:, 0] - u[:, -1]), np.abs(np.diff(u, axis=1))
    assert seam.mean() < 1.5 * np.nanmean(elsewhere)
    assert ocean.lon[0] == -179.5


# The integrator.


def test_uniform_current_carries_straight():
    axes = grid(lat0=40.0)
    interval, start = steady(axes, 0.6, -0.2), np.array([[25.0, 46.0], [30.0, 43.0]])
    here = start
    for k in range(48):
        here = advance(interval, here, np.ones((2, 2)), cs=0.3, time=k * 600, step=600, slip=np.zeros(2))
    # No strain, hence no diffusion: 8 hours of 0.6 and -0.2 m/s.
    metres = 48 * 600 * np.array([0.6, -0.2])
    np.testing.assert_allclose((here - start)[:, 1] * METRES_PER_DEGREE, metres[1], rtol=1e-9)
    middle = np.cos(np.radians((here + start)[:, 1] / 2))
    np.testing.assert_allclose((here - start)[:, 0] * METRES_PER_DEGREE * middle, metres[0], rtol=1e-5)


def test_currents_are_interpolated_in_time():
    axes = grid()
    levels = np.zeros((2, 2, 41, 61))
    levels[0, 0], levels[1, 0] = 0.2, 0.6
    interval = Interval(axes, levels, 100 * DAY, 101 * DAY)
    velocity, kappa, _, _ = interval.at(np.array([[25.0, 0.3]]), 100 * DAY + DAY // 4)
    np.testing.assert_allclose(velocity, [[0.3, 0.0]], atol=1e-12)
    np.testing.assert_allclose(kappa, 0.0, atol=1e-9)


def test_kappa_interpolates_the_currents_before_the_root():
    # Shears of opposite sign at the two levels cancel at noon, where the mean of the two κ would not.
    axes, shear = grid(), 2e-5
    y = axes.lat.values[:, None] * METRES_PER_DEGREE * np.ones((1, 61))
    levels = np.zeros((2, 2, 41, 61))
    levels[0, 0], levels[1, 0] = shear * y, -shear * y
    interval = Interval(axes, levels, 0, DAY)
    here = np.array([[25.06, 0.11]])
    assert interval.at(here, DAY / 2)[1][0] == pytest.approx(0, abs=1e-6)
    cell = (METRES_PER_DEGREE * 0.25) ** 2
    assert interval.at(here, 0)[1][0] == pytest.approx(cell * shear * np.sqrt(0.5), rel=1e-4)


def test_uniform_strain_spreads_by_its_own_diffusivity():
    axes, strain, cs, step = grid(), 4e-6, 0.3, 600
    x = np.radians(axes.lon.values - 27.5) * EARTH_RADIUS
    interval = steady(axes, strain * x[None, :], 0.0)
    rng, n, steps = np.random.default_rng(5), 4000, 144
    here = np.tile([28.0, 0.0], (n, 1))
    for k in range(steps):
        noise = rng.standard_normal((n, 2))
        here = advance(interval, here, noise, cs=cs, time=k * step, step=step, slip=np.zeros(2))
    # κ = Δx Δy |u_x|; within 5 degrees of the equator cos(lat) changes it by 0.4 % at most.
    kappa = cs * (METRES_PER_DEGREE * 0.25) ** 2 * strain
    metres, t = (here - [27.5, 0.0]) * METRES_PER_DEGREE, steps * step
    growth = np.exp(strain * t)
    spread = 2 * kappa * t, kappa * (growth**2 - 1) / strain
    error = 4 * np.sqrt(2 / n)
    assert np.var(metres[:, 1]) == pytest.approx(spread[0], rel=error)
    assert np.var(metres[:, 0]) == pytest.approx(spread[1], rel=error)
    assert metres[:, 0].mean() == pytest.approx(0.5 * METRES_PER_DEGREE * growth, abs=4 * np.sqrt(spread[1] / n))
    assert metres[:, 1].mean() == pytest.approx(0, abs=4 * np.sqrt(spread[0] / n))
    assert abs(np.corrcoef(metres.T)[0, 1]) < 4 / np.sqrt(n)


def test_mean_drift_is_the_whole_gradient_of_k():
    # u = b y²/2 alone: κ grows linearly northward, and nothing but ∇K moves the mean northward.
    axes = grid(nlat=101, lat0=0.0)
    axes.lon, axes.periodic = Axis(0.0, 15.0, 24), True
    b, cs, step, steps = 3e-12, 0.3, 600, 144
    y = axes.lat.values * METRES_PER_DEGREE
    interval = steady(axes, (b * y**2 / 2)[:, None], 0.0)
    rng, n = np.random.default_rng(8), 4000
    here = np.tile([7.0, 8.0], (2 * n, 1))
    for k in range(steps):
        noise = rng.standard_normal((n, 2))
        # Pairs of opposite noise: what is left of the mean is the drift.
        here = advance(interval, here, np.vstack([noise, -noise]), cs=cs, time=k * step, step=step, slip=np.zeros(2))
    lat = np.radians(8.0)
    factor = cs * 15.0 * 0.25 * METRES_PER_DEGREE**2 * b * np.sqrt(0.5)
    slope = factor * (np.cos(lat) - lat * np.sin(lat))
    moved = (here[:, 1].mean() - 8.0) * METRES_PER_DEGREE
    assert slope * steps * step > 1000
    assert moved / (slope * steps * step) == pytest.approx(1.0, abs=0.03)


def test_uniform_concentration_stays_uniform():
    # K varies by a factor of 9 over 12 degrees. Drift c ∇K leaves a density of K^(c - 1): c = 0.5 or 1.5 would show as
    # a first harmonic of 0.8 / 2 in the density, c = 1 as none but for noise.
    axes = grid(nlat=241, lat0=-30.0)
    axes.lon, axes.periodic = Axis(0.0, 15.0, 24), True
    y = axes.lat.values
    shear = 1 + 0.8 * np.cos(2 * np.pi * y / 12)
    u = np.cumsum(shear) * 1e-3
    interval = steady(axes, (u - u.mean())[:, None], 0.0)
    rng, n = np.random.default_rng(11), 6000
    here = np.stack([rng.uniform(0, 360, n), (np.arange(n) + 0.5) / n * 48 - 24], axis=1)
    step, cs = 600, 3.6e5 / interval.at(np.array([[5.0, 0.0]]), 0)[1][0]
    for _ in range(300):
        noise = rng.standard_normal((n, 2))
        here = advance(interval, here, noise, cs=cs, time=0, step=step, slip=np.zeros(2))
        # Mirrors 24 degrees from the equator, where the harmonic is even: no mass is lost there.
        north = here[:, 1]
        here[:, 1] = np.where(np.abs(north) > 24, np.sign(north) * 48 - north, north)
    harmonic = 2 * np.mean(np.cos(2 * np.pi * here[:, 1] / 12))
    assert abs(harmonic) < 4 * np.sqrt(2 / n)


def test_the_seam_of_a_periodic_grid_is_not_felt():
    axes = grid(nlat=21, lat0=-2.0)
    axes.lon, axes.periodic = Axis(0.0, 15.0, 24), True
    wave = np.cos(np.radians(axes.lon.values))[None, :]
    interval = steady(axes, 0.5 * wave, 0.2 * wave)
    here = np.array([[359.0, 0.1], [1.0, 0.1], [-1.0, 0.1], [719.0, 0.1]])
    velocity, kappa, gradient, afloat = interval.at(here, 0)
    assert afloat.all()
    for field in (velocity, kappa[:, None], gradient * [-1, 1]):
        np.testing.assert_allclose(field[2:], field[[0, 0]], rtol=1e-9)
    np.testing.assert_allclose(velocity[0], velocity[1], rtol=1e-9)
    np.testing.assert_allclose(kappa[0], kappa[1], rtol=1e-9)
    assert interval.inside(here).all()


# Coasts.


def coast():
    """Uniform flow around an odd-shaped island: any fill value read would show."""
    axes = grid()
    land = np.zeros((41, 61), bool)
    land[15:22, 20:31] = True
    land[22, 24] = land[15, 20] = land[10, 40] = land[12:14, 45:47] = True
    levels = np.full((2, 2, 41, 61), 0.5)
    levels[:, 1] = -0.3
    levels[0, :, land] = np.nan
    levels[1, :, land] = np.nan
    return axes, land, levels


def test_no_fill_value_is_read_near_land():
    axes, land, levels = coast()
    # Each level may hide nodes of its own, as sea ice does.
    levels[0, :, 30, 30] = np.nan
    levels[1, :, 5, 12] = np.nan
    land[30, 30] = land[5, 12] = True
    interval = Interval(axes, levels, 0, DAY)
    rng = np.random.default_rng(2)
    here = np.stack([rng.uniform(21, 34, 20_000), rng.uniform(-4, 4, 20_000)], axis=1)
    velocity, kappa, gradient, afloat = interval.at(here, DAY / 3)
    i, j = np.floor((here[:, 1] + 5) / 0.25).astype(int), np.floor((here[:, 0] - 20) / 0.25).astype(int)
    all_land = land[i, j] & land[i + 1, j] & land[i, j + 1] & land[i + 1, j + 1]
    some_land = (land[i, j] | land[i + 1, j] | land[i, j + 1] | land[i + 1, j + 1]) & ~all_land
    assert all_land.sum() > 100
    assert some_land.sum() > 100
    np.testing.assert_array_equal(afloat, ~all_land)
    np.testing.assert_array_equal(interval.aground(here), all_land)
    np.testing.assert_allclose(velocity[afloat], np.tile([0.5, -0.3], (afloat.sum(), 1)), rtol=1e-12)
    np.testing.assert_allclose(kappa, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-9)
    assert not velocity[all_land].any()


def test_the_nearest_ocean_node_rules_beside_land():
    axes, _, levels = coast()
    levels[:, 0, 9, 40], levels[:, 0, 9, 41] = 0.1, 0.9
    # Land at (10, 40) only: 3 ocean corners; on the node (9, 41) itself its own value is read.
    node = np.array([[20 + 0.25 * 41 - 1e-6, -5 + 0.25 * 9 + 1e-6]])
    assert Interval(axes, levels, 0, DAY).at(node, 0)[0][0, 0] == pytest.approx(0.9, abs=1e-3)


def test_differences_beside_land_are_one_sided():
    axes, strain = grid(), 4e-6
    u = strain * np.radians(axes.lon.values - 27.5)[None, :] * EARTH_RADIUS * np.ones((41, 1))
    land = np.zeros((41, 61), bool)
    land[:, 30:] = True
    interval = steady(axes, np.where(land, np.nan, u), np.where(land, np.nan, 0.0))
    here = np.array([[20 + 0.25 * 28.5, 0.0], [20 + 0.25 * 20.5, 0.0]])
    kappa = interval.at(here, 0)[1]
    # A linear current has the same slope from either side; a zero read from land would multiply it.
    assert kappa[0] == pytest.approx(kappa[1], rel=1e-6)


def test_aground_stays():
    axes, _, levels = coast()
    interval = Interval(axes, levels, 0, DAY)
    here = np.array([[20 + 0.25 * 25.5, -5 + 0.25 * 18.5]])
    after = advance(interval, here, np.ones((1, 2)), cs=0.3, time=0, step=600, slip=WINDAGE)
    np.testing.assert_array_equal(after, here)


def test_drifters_run_aground_and_leave_the_grid():
    axes, land, levels = coast()
    packed = np.where(np.isnan(levels), -32768, np.rint(np.nan_to_num(levels) * 1e4)).astype(np.int16)
    packed = np.concatenate([packed] * 3)
    axes.time, axes.read = np.arange(6) * DAY, lambda a, b: packed[a:b]
    n = 60
    fleet = Fleet(np.full(n, 5 * 3600), 96, np.random.default_rng(4).random((n, 3)), np.full(n, np.iinfo(np.int64).max))
    ends = {}
    for clean in (False, True):
        spec = Synthetic(folder="unused", drifters=n, clean=clean)
        ends[clean] = simulate(Record(axes, CurrentSource(path="memory"), 0), fleet, spec)
    dirty, clean = ends[False], ends[True]
    assert 0 < dirty.aground.sum() < n
    np.testing.assert_array_equal(dirty.aground, clean.aground)
    assert (dirty.count[~dirty.aground] < 97).any()
    assert np.isfinite(dirty.position[np.arange(97) < dirty.count[:, None]]).all()
    for k in np.flatnonzero(dirty.aground):
        fix = clean.count[k]
        tail = dirty.position[k, fix : dirty.count[k]]
        assert np.ptp(tail, axis=0).max() == 0
        i, j = np.floor((tail[0, 1] + 5) / 0.25).astype(int), np.floor((tail[0, 0] - 20) / 0.25).astype(int)
        assert land[i : i + 2, j : j + 2].all()


# The drifter file.


def test_ragged_array_is_whole(twin, drifters):
    assert drifters.sizes["traj"] == 40
    assert drifters.rowsize.attrs["sample_dimension"] == "obs"
    assert drifters.rowsize.values.sum() == drifters.sizes["obs"]
    assert (drifters.id.dtype, drifters.rowsize.dtype, drifters.lon.dtype) == (np.int64, np.int32, np.float64)
    np.testing.assert_array_equal(np.repeat(drifters.id.values, drifters.rowsize.values), drifters.ids.values)
    assert np.unique(drifters.id).size == 40
    assert drifters.time.dtype.kind == "M"
    assert not {"standard_name"} & (drifters.lon.attrs.keys() | drifters.lat.attrs.keys() | drifters.time.attrs.keys())
    for k, row in enumerate(rows(drifters)):
        time = drifters.time.values[row]
        assert (np.diff(time) == np.timedelta64(1, "h")).all()
        assert time[0] == drifters.deploy_date.values[k]
    assert ((drifters.lon >= -180) & (drifters.lon < 180)).all()
    assert drifters.lon.min() < -170
    assert drifters.lon.max() > 170
    assert np.isfinite(drifters.lat).all()
    assert np.unique(drifters.deploy_date.dt.hour).size > 10
    assert drifters.attrs["smagorinsky_constant"] == twin.cs


def test_velocity_is_the_slope_of_the_positions(drifters):
    row = rows(drifters)[3]
    lat, vn = drifters.lat.values[row], drifters.vn.values[row]
    np.testing.assert_allclose(vn[1:-1], (lat[2:] - lat[:-2]) * METRES_PER_DEGREE / 7200, atol=1e-6)
    lon, ve = np.unwrap(drifters.lon.values[row], period=360), drifters.ve.values[row]
    metres = METRES_PER_DEGREE * np.cos(np.radians(lat))
    np.testing.assert_allclose(ve[1:-1], ((lon[2:] - lon[:-2]) * metres[1:-1]) / 7200, atol=1e-6)
    np.testing.assert_allclose(vn[0], (lat[1] - lat[0]) * METRES_PER_DEGREE / 3600, atol=1e-6)


def test_drogues_are_on_lost_or_unknown(drifters):
    lost = drifters.drogue_lost_date.values
    never, unknown = np.isnat(lost), lost == np.datetime64("1970-01-01")
    assert never.sum() > 20
    assert unknown.sum() == 1
    assert (~never & ~unknown).sum() == 12
    time, status = drifters.time.values, drifters.drogue_status.values
    for k, row in enumerate(rows(drifters)):
        expected = np.ones(row.stop - row.start, bool) if never[k] else time[row] < lost[k]
        np.testing.assert_array_equal(status[row], expected)


def test_gaps_are_straight_lines_that_gap_confesses(drifters):
    gap = drifters.gap.values.astype(float)
    assert set(np.unique(gap)) >= {3600.0}
    held = 0
    for row in rows(drifters):
        inner = np.flatnonzero(gap[row] > DAY)
        if not inner.size:
            continue
        held += 1
        assert gap[row][inner[0]] == (inner.size + 1) * 3600
        stretch = slice(row.start + inner[0] - 1, row.start + inner[-1] + 2)
        for values in (drifters.lat.values[stretch], np.unwrap(drifters.lon.values[stretch], period=360)):
            np.testing.assert_allclose(np.diff(values), np.diff(values).mean(), atol=1e-9)
        assert drifters.err_lat.values[stretch].max() > 0
    assert held > 0


def test_windage_moves_undrogued_drifters():
    axes = grid()
    interval, here = steady(axes, 0.1, 0.0), np.array([[25.0, 0.0], [25.0, 0.0]])
    slip = np.array([[0.0, 0.0], WINDAGE])
    after = advance(interval, here, np.zeros((2, 2)), cs=0.3, time=0, step=3600, slip=slip)
    np.testing.assert_allclose((after[1] - after[0]) * METRES_PER_DEGREE, WINDAGE * 3600, rtol=1e-6)


def test_clean_has_no_faults(tmp_path):
    make(Synthetic(folder=str(tmp_path), clean=True, **SMALL))
    with xr.open_dataset(tmp_path / "drifters.nc") as data:
        assert np.isnat(data.drogue_lost_date.values).all()
        assert (data.drogue_status == 1).all()
        assert (data.gap == 3600).all()
        assert (data.typedeath != 1).all()
        assert (data.err_lat == 0).all()


def test_same_settings_same_bytes(twin, tmp_path):
    make(Synthetic(folder=str(tmp_path), **SMALL))
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.nc"))
    assert [str(f) for f in files] == ["currents/currents_201101.nc", "currents/currents_201102.nc", "drifters.nc"]
    for file in files:
        assert (tmp_path / file).read_bytes() == (Path(twin.folder) / file).read_bytes()


def test_another_seed_is_another_twin(twin):
    other = twin.model_copy(update={"seed": 1})
    assert (Ocean(other).land != Ocean(twin).land).any()
    time = np.arange(40) * DAY
    assert (plan_fleet(other, time).start != plan_fleet(twin, time).start).any()


def test_given_currents_are_used_and_not_made(twin, tmp_path):
    source = CurrentSource(path=f"{twin.folder}/currents/*.nc")
    make(Synthetic(folder=str(tmp_path), currents=source, **SMALL))
    assert [p.name for p in tmp_path.iterdir()] == ["drifters.nc"]
    with xr.open_dataset(tmp_path / "drifters.nc") as new, xr.open_dataset(f"{twin.folder}/drifters.nc") as old:
        np.testing.assert_array_equal(new.lon, old.lon)


def test_an_earlier_record_does_not_linger(tmp_path):
    spec = {"folder": str(tmp_path), "lon": (10.0, 14.0), "lat": (30.0, 33.0)}
    write_currents(Synthetic(days=70, **spec), tmp_path / "currents")
    assert len(write_currents(Synthetic(days=20, **spec), tmp_path / "currents")) == 1
    assert len(list((tmp_path / "currents").iterdir())) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 700}, "divides 3600"),
        ({"lon": (10.0, 10.5)}, "at least 12"),
        ({"lat": (30.0, 41.1)}, "whole number"),
        ({"lat": (60.0, 85.0)}, "-80 to 80"),
        ({"lon": (-100.0, 200.0)}, "crosses both"),
        ({"drifter_days": 0.01}, "an hour at least"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(Synthetic(folder=str(tmp_path), **(SMALL | {"days": 10} | settings)))


def test_foreign_files_are_not_replaced(tmp_path):
    (tmp_path / "currents").mkdir()
    xr.Dataset({"u": ("x", [1.0])}).to_netcdf(tmp_path / "currents" / "mine.nc")
    with pytest.raises(ConfigError, match="was not made by driftcal"):
        make(Synthetic(folder=str(tmp_path), **SMALL))
    assert (tmp_path / "currents" / "mine.nc").exists()


def test_foreign_drifters_are_not_replaced(tmp_path):
    xr.Dataset({"lon": ("obs", [1.0])}).to_netcdf(tmp_path / "drifters.nc")
    with pytest.raises(ConfigError, match="was not made by driftcal"):
        make(Synthetic(folder=str(tmp_path), **SMALL))
    assert (tmp_path / "drifters.nc").exists()


def test_currents_without_ocean_are_refused():
    axes = grid()
    axes.time, axes.read = np.arange(3) * DAY, lambda a, b: np.full((b - a, 2, 41, 61), -32768, np.int16)
    fleet = Fleet(np.zeros(2, int), 24, np.full((2, 3), 0.5), np.zeros(2, int))
    with pytest.raises(DataError, match="no cell with four ocean"):
        simulate(Record(axes, CurrentSource(path="memory"), 0), fleet, Synthetic(folder="unused", drifters=2))
