"""Worlds that are not the model's: laws of motion, errors of currents and groups of drifters against closed forms."""

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import xarray as xr
import yaml
from numpy.typing import NDArray

from driftcal.preprocess.__main__ import main
from driftcal.preprocess.made import currents_error
from driftcal.preprocess.made.drifter_integrator import Interval, Record, advance
from driftcal.preprocess.made.fleet import Fleet, deploy, plan_fleet, scatter
from driftcal.preprocess.made.twin import TRUE_CURRENTS, make, simulate
from driftcal.preprocess.made.unmodelled_motion import EARTH_ROTATION, OwnVelocity, reported
from driftcal.preprocess.recipe import DAY, CurrentSource, Recipe, Synthetic
from driftcal.preprocess.sources.gridded.axes import Axis
from driftcal.preprocess.sources.gridded.currents import Currents
from driftcal.shared.errors import ConfigError, StoreError
from driftcal.shared.geo import METRES_PER_DEGREE, separation
from driftcal.shared.inspection import facts
from driftcal.shared.inspection import text as show
from driftcal.shared.settings import build
from driftcal.shared.store import manifest, twin
from driftcal.shared.store.reader import ShardStore

Floats = NDArray[np.float64]

TINY = {"lon": [20, 29], "lat": [-40, -32], "days": 12, "drifters": 12, "drifter_days": 5, "clean": True}


def spec(folder: Path | str = "unused", **keys: Any) -> Synthetic:
    return build(Recipe, {"drifters": {"path": "d"}, "currents": {"path": f"{folder}/currents/*.nc"},
                          "synthetic": {"folder": str(folder), **keys}}, "test").synthetic  # fmt: skip


def in_still_water(truth: dict[str, Any], n: int, hours: int, lat: float = 35.0, step: str = "1h") -> Floats:
    """Displacements [m] of `n` drifters from where they were released, every hour, (n, hours + 1, 2)."""
    settings = spec(truth=truth, clean=True, step=step)
    axes = Mock(spec=Currents, lat=Axis(lat - 10, 0.25, 81), lon=Axis(5.0, 0.25, 121), periodic=False)
    axes.time = np.array([0, 30]) * DAY
    axes.read = lambda a, b: np.zeros((b - a, 2, 81, 121), np.int16)
    place = np.tile([0.5, 0.5, 0.5], (n, 1))
    fleet = Fleet(np.zeros(n, int), hours, place, np.full(n, np.iinfo(np.int64).max))
    tracks = simulate(Record(axes, CurrentSource(path="memory"), 0), fleet, settings)
    assert (tracks.count == hours + 1).all()
    steps = np.diff(tracks.position, axis=1) * METRES_PER_DEGREE
    # as the integrator steps: eastward along the parallel where the step starts, exact where steps are an hour
    steps[..., 0] *= np.cos(np.radians(tracks.position[:, :-1, 1]))
    return np.concatenate([np.zeros((n, 1, 2)), np.cumsum(steps, axis=1)], axis=1)


# Laws of motion


def test_background_diffusivity_spreads_as_4kt() -> None:
    n, hours = 3000, 48
    moved = in_still_water({"background": 200.0}, n, hours)
    for hour in (1, 12, 48):
        squares = (moved[:, hour] ** 2).sum(axis=1)
        # a mean of exponentially distributed squares
        assert squares.mean() == pytest.approx(4 * 200.0 * hour * 3600, rel=4 / np.sqrt(n))
    assert abs(np.corrcoef(moved[:, 48].T)[0, 1]) < 4 / np.sqrt(n)


@pytest.mark.parametrize(("time", "seconds"), [("2h", 7200), ("2d", 2 * DAY)])
def test_random_flight_spreads_as_taylor_says(time: str, seconds: int) -> None:
    n = 2000
    moved = in_still_water({"random_flight": {"speed": 0.08, "time": time}}, n, 72)
    for hour in (1, 2, 6, 24, 72):
        t = hour * 3600 / seconds
        expected = 2 * 0.08**2 * seconds**2 * (t - 1 + np.exp(-t))
        for component in (0, 1):
            assert np.mean(moved[:, hour, component] ** 2) == pytest.approx(expected, rel=4 * np.sqrt(2 / n))


def test_the_mean_drift_is_exact() -> None:
    moved = in_still_water({"mean_drift": [0.05, -0.03]}, 3, 120)
    expected = np.arange(121)[:, None] * 3600 * np.array([0.05, -0.03])
    np.testing.assert_allclose(moved, np.tile(expected, (3, 1, 1)), rtol=1e-8, atol=1e-4)


@pytest.mark.parametrize("lat", [38.0, -25.0])
@pytest.mark.parametrize("step", [600.0, 6 * 3600.0])
def test_inertial_motion_turns_with_the_coriolis_frequency_and_decays(lat: float, step: float) -> None:
    n, time, speed = 40_000, 4 * DAY, 0.15
    own = OwnVelocity(np.random.default_rng(3), n, speed=speed, time=time, turning=True)
    who, lats, path, start = np.arange(n), np.full(n, lat), np.zeros(n, complex), own.now.copy()
    for _ in range(round(6 * 3600 / step)):
        path += step * own.mean_over(who, lats, step)
    t, rate = 6 * 3600, 1 / time + 1j * 2 * EARTH_ROTATION * np.sin(np.radians(lat))
    error = 4 / np.sqrt(n)
    correlation = np.mean(own.now * np.conj(start)) / speed**2
    assert correlation == pytest.approx(np.exp(-rate * t), abs=error)
    assert np.sign(correlation.imag) == -np.sign(lat)  # clockwise in the northern hemisphere
    for velocity in (start, own.now):
        assert np.mean(np.abs(velocity) ** 2) == pytest.approx(speed**2, rel=error)
        assert abs(np.mean(velocity**2)) < error * speed**2  # circular: no direction is preferred
    squares = 2 * speed**2 * (t / rate - (1 - np.exp(-rate * t)) / rate**2).real
    assert np.mean(np.abs(path) ** 2) == pytest.approx(squares, rel=error)
    with_start = speed**2 * (1 - np.exp(-rate * t)) / rate
    assert np.mean(path * np.conj(start)) == pytest.approx(with_start, abs=error * speed * np.sqrt(squares))


@pytest.mark.parametrize("lat", [40.0, -40.0])
def test_drifters_turn_against_the_cyclones(lat: float) -> None:
    n, speed, time, h = 2000, 0.15, 4 * DAY, 3600
    moved = in_still_water({"inertial": {"speed": speed, "time": "4d"}}, n, 30, lat)
    velocity = np.diff(moved, axis=1) @ np.array([1, 1j]) / h
    rate = 1 / time + 1j * 2 * EARTH_ROTATION * np.sin(np.radians(lat))
    # means over an hour, whose correlation is smoothed twice
    twice = (1 - np.exp(-rate * h)) * (np.exp(rate * h) - 1) / (rate * h) ** 2
    for lag in (4, 12):
        correlation = np.mean(velocity[:, lag:] * np.conj(velocity[:, :-lag]))
        assert correlation == pytest.approx(speed**2 * twice * np.exp(-rate * lag * h), abs=4 * speed**2 / np.sqrt(n))


def test_parts_of_a_truth_do_not_disturb_one_another() -> None:
    parts = {
        "background": 50.0,
        "random_flight": {"speed": 0.05, "time": "1d"},
        "inertial": {"speed": 0.1, "time": "4d"},
        "mean_drift": [0.02, 0.01],
    }
    together = in_still_water(parts, 50, 24)
    alone = sum(in_still_water({key: value}, 50, 24) for key, value in parts.items())
    # but that f changes by 1 % over the distance that they are carried
    np.testing.assert_allclose(together, alone, atol=0.005 * np.abs(together).max())
    assert not in_still_water({"position_error": 500.0}, 5, 3).any()  # an error of what is reported


def test_position_error_is_that_of_every_fix_with_the_first() -> None:
    settings, lat = spec(truth={"position_error": 500.0}), np.array([10.0, -60.0])
    position = np.stack([np.full((2, 8000), 179.9), np.repeat(lat[:, None], 8000, axis=1)], axis=-1)
    seen, deviation = reported(settings, position)
    metres = (seen - position) * METRES_PER_DEGREE
    metres[..., 0] *= np.cos(np.radians(lat))[:, None]
    error = 4 * np.sqrt(2 / 8000)
    for drifter in metres:
        for component in drifter.T:
            steps = np.diff(component)
            # the structure function of a track at rest: twice the variance at every lag
            assert np.mean(steps**2) == pytest.approx(2 * 500.0**2, rel=1.5 * error)
            assert np.mean((component[7:] - component[:-7]) ** 2) == pytest.approx(2 * 500.0**2, rel=1.5 * error)
            assert abs(np.mean(component[1:] * component[:-1])) < 500.0**2 * error
    first = reported(settings, position[:, :1].repeat(4000, axis=0))[0][:, 0] - position[:, 0].repeat(4000, axis=0)
    assert np.std(first[:, 1]) * METRES_PER_DEGREE == pytest.approx(500.0, rel=0.04)
    np.testing.assert_allclose(deviation[1, 0] * METRES_PER_DEGREE, [1000.0, 500.0], rtol=1e-12)


def test_without_a_truth_of_its_own_the_draws_are_those_of_the_plain_integrator() -> None:
    axes = Mock(spec=Currents, lat=Axis(30.0, 0.25, 41), lon=Axis(5.0, 0.25, 61), periodic=False)
    shear = np.round(np.linspace(-3000, 3000, 41)).astype(np.int16)[:, None] * np.ones(61, np.int16)
    axes.time, axes.read = np.array([0, 9]) * DAY, lambda a, b: np.broadcast_to(shear, (b - a, 2, 41, 61))
    place = np.random.default_rng(2).random((5, 3))
    fleet = Fleet(np.zeros(5, int), 4, place, np.full(5, np.iinfo(np.int64).max))
    record = Record(axes, CurrentSource(path="memory"), 0)
    tracks = simulate(record, fleet, spec(cs=0.3, seed=6, clean=True, step="30min"))
    here, rng = deploy(record.at(0), place), np.random.default_rng([6, 2])
    for time in range(0, 4 * 3600, 1800):
        noise = rng.standard_normal((5, 2))
        here = advance(record.at(time), here, noise, cs=0.3, time=time, step=1800, slip=np.zeros(2))
    np.testing.assert_array_equal(tracks.position[:, 4], here)
    assert np.ptp(here - tracks.position[:, 0], axis=0).min() > 0.01


# Currents with an error


def plane(k_east: float, k_north: float, lat: Axis, lon: Axis) -> Floats:
    """A wave on the plane of the parallel at 20° N, both components, (2, Y, X)."""
    x = (lon.values - lon.start) * METRES_PER_DEGREE * np.cos(np.radians(20.0))
    y = (lat.values[:, None] - 20.0) * METRES_PER_DEGREE
    return np.stack([np.cos(k_east * x + k_north * y), np.sin(k_east * x + k_north * y)])


@pytest.mark.parametrize("wavelength_km", [130.0, 250.0])
@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.0, 1.0), (0.6, 0.8)])
def test_smoothing_multiplies_a_wave_by_its_transfer_function(
    wavelength_km: float, direction: tuple[float, float]
) -> None:
    lat, lon, deviation = Axis(16.0, 0.125, 65), Axis(30.0, 0.125, 97), 25e3
    k = 2 * np.pi / (wavelength_km * 1e3)
    wave = plane(k * direction[0], k * direction[1], lat, lon)
    smooth = currents_error.smoothed(wave, lat, lon, False, deviation)
    inside = np.s_[:, 31:34, 30:-30]  # near 20° N, where the parallel is that of the wave
    np.testing.assert_allclose(smooth[inside], np.exp(-0.5 * (k * deviation) ** 2) * wave[inside], atol=0.01)


def test_smoothing_keeps_what_is_uniform_up_to_coasts_and_edges() -> None:
    lat, lon = Axis(-20.0, 0.25, 30), Axis(30.0, 0.25, 41)
    field = np.tile(np.array([0.4, -0.2])[:, None, None], (1, 30, 41))
    field[:, 10:14, 20:27] = field[:, 0, 0] = np.nan
    smooth = currents_error.smoothed(field, lat, lon, False, 40e3)
    np.testing.assert_allclose(smooth, field, rtol=1e-12)  # NaN where it was, and nowhere else


def test_smoothing_does_not_feel_the_seam() -> None:
    lat, lon = Axis(-30.0, 1.0, 20), Axis(0.0, 1.0, 360)
    field = np.random.default_rng(0).standard_normal((2, 20, 360))
    smooth = currents_error.smoothed(field, lat, lon, True, 150e3)
    rolled = currents_error.smoothed(np.roll(field, 77, axis=2), lat, lon, True, 150e3)
    np.testing.assert_allclose(rolled, np.roll(smooth, 77, axis=2), atol=1e-12)


def test_a_gaussian_that_the_grid_does_not_show_is_refused() -> None:
    lat, lon = Axis(0.0, 0.25, 30), Axis(30.0, 0.25, 41)
    with pytest.raises(ConfigError, match=r"smooth_km is 10, 0.36 cells .* expected 0.5 at least"):
        currents_error.smoothed(np.zeros((2, 30, 41)), lat, lon, False, 10e3)


def vortices(lon: Floats, lat: Floats) -> Floats:
    """A smooth flow at positions [degrees], (2, ...)."""
    return np.stack([np.sin(2.1 * lon) * np.cos(3.0 * lat + 0.3), 0.5 * np.cos(2.6 * lon - lat)])


@pytest.mark.parametrize("distance", [(22e3, 0.0), (0.0, -22e3), (-16e3, 15e3)])
def test_a_displaced_current_is_that_of_the_displaced_place(distance: tuple[float, float]) -> None:
    lat, lon = Axis(30.0, 0.125, 50), Axis(10.0, 0.125, 70)
    x, y = np.meshgrid(lon.values, lat.values)
    moved = currents_error.displaced(vortices(x, y), lat, lon, False, distance)
    expected = vortices(
        x - distance[0] / (METRES_PER_DEGREE * np.cos(np.radians(y))), y - distance[1] / METRES_PER_DEGREE
    )
    inside = np.s_[:, 12:-12, 12:-12]
    np.testing.assert_allclose(moved[inside], expected[inside], atol=2e-4)
    assert np.abs(moved - vortices(x, y))[inside].max() > 0.3


def test_displaced_currents_keep_their_coasts_and_have_no_seam() -> None:
    lat, lon = Axis(-10.0, 1.0, 20), Axis(0.0, 1.0, 360)
    wave = np.cos(np.radians(3 * lon.values))[None, None] * np.ones((2, 20, 1))
    moved = currents_error.displaced(wave, lat, lon, True, (2 * METRES_PER_DEGREE, 0.0))
    phase = np.radians(3 * (lon.values[None] - 2 / np.cos(np.radians(lat.values[:, None]))))
    np.testing.assert_allclose(moved[0], np.cos(phase), atol=1e-5)
    land = np.zeros((20, 360), bool)
    land[5:9, 100:110] = True
    field = np.where(land, np.nan, 0.3) * np.ones((2, 1, 1))
    moved = currents_error.displaced(field, lat, lon, True, (3e5, -2e5))
    np.testing.assert_allclose(moved, field, atol=1e-12)


# Drifters released together


def test_drifters_of_a_group_start_near_one_another_at_one_time() -> None:
    settings = spec(drifters=300, release={"together": 8, "within_km": 8}, clean=True)
    axes = Mock(spec=Currents, lat=Axis(30.0, 0.25, 41), lon=Axis(175.0, 0.25, 61), periodic=False)
    fleet = plan_fleet(settings, np.arange(100) * DAY)
    assert fleet.offset is not None
    group = np.arange(300) // 8
    interval = Interval(axes, np.zeros((2, 2, 41, 61)), 0, DAY)
    centre = np.tile([182.0, 35.0], (300, 1))
    here = scatter(interval, centre, fleet.offset)
    apart = separation(here[:, None], here[None])[group[:, None] == group]
    assert apart.max() <= 8e3 * (1 + 1e-6)
    assert separation(here, centre).mean() == pytest.approx(2 / 3 * 4e3, rel=0.08)  # uniform over a disc
    assert len(np.unique(fleet.start)) == len(np.unique(fleet.place[:, 0])) == 38
    for k in range(38):
        assert len(np.unique(fleet.start[group == k])) == 1
        assert len(np.unique(fleet.place[group == k], axis=0)) == 1


def test_no_drifter_of_a_group_starts_ashore_or_outside() -> None:
    axes = Mock(spec=Currents, lat=Axis(30.0, 0.25, 41), lon=Axis(175.0, 0.25, 61), periodic=False)
    field = np.zeros((2, 2, 41, 61))
    field[..., 20:, :] = np.nan
    interval = Interval(axes, field, 0, DAY)
    rng = np.random.default_rng(1)
    centre = np.stack([rng.uniform(175.6, 189.0, 200), rng.uniform(30.6, 34.7, 200)], axis=1)
    offset = rng.uniform(-1e5, 1e5, (200, 2))
    assert interval.aground(centre + offset / METRES_PER_DEGREE).any()
    here = scatter(interval, centre, offset)
    assert interval.inside(here).all()
    assert not interval.aground(here).any()


# Made files, stores and settings


def test_the_truth_may_be_named_without_changing_anything(tmp_path: Path) -> None:
    make(spec(tmp_path / "a", cs=0.2, **TINY))
    make(spec(tmp_path / "b", truth={"cs": 0.2, "position_error": 300.0}, **TINY))
    with xr.open_dataset(tmp_path / "a/drifters.nc") as old, xr.open_dataset(tmp_path / "b/drifters.nc") as new:
        assert old.attrs["smagorinsky_constant"] == new.attrs["smagorinsky_constant"] == 0.2
        assert "truth" not in old.attrs
        assert json.loads(new.attrs["truth"])["position_error"] == 300.0
        np.testing.assert_array_equal(old.rowsize, new.rowsize)
        north = (new.lat - old.lat).values * METRES_PER_DEGREE
        assert north.std() == pytest.approx(300.0, rel=4 / np.sqrt(2 * north.size))
        np.testing.assert_allclose(new.err_lat * METRES_PER_DEGREE, 1.96 * 300.0, rtol=1e-6)
    for file in (tmp_path / "a/currents").iterdir():
        assert file.read_bytes() == (tmp_path / "b/currents" / file.name).read_bytes()


def test_drifters_move_in_the_true_currents_and_the_store_has_the_others(tmp_path: Path) -> None:
    error = {"smooth_km": 40.0, "shift_km": [15.0, 10.0]}
    folder = tmp_path / "twin"
    make(spec(tmp_path / "right", cs=0.2, **TINY))
    tree = {
        "drifters": {"path": str(folder / "drifters.nc"), "max_speed": 10},
        "currents": {"path": str(folder / "currents/*.nc")},
        "synthetic": {"folder": str(folder), "truth": {"cs": 0.2}, "currents_error": error} | TINY,
        "segment": {"days": 2},
        "window": {"half_width_deg": 1.5},
        "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
    }
    (tmp_path / "twin.yaml").write_text(yaml.safe_dump(tree))
    assert main([str(tmp_path / "twin.yaml"), "--out", str(tmp_path / "store")]) == 0

    with xr.open_dataset(tmp_path / "right/drifters.nc") as old, xr.open_dataset(folder / "drifters.nc") as new:
        np.testing.assert_array_equal(old.lon, new.lon)
    named = str(next((folder / "currents").iterdir()).name)
    with (
        xr.open_dataset(tmp_path / "right/currents" / named) as right,
        xr.open_dataset(folder / TRUE_CURRENTS / named) as true,
        xr.open_dataset(folder / "currents" / named) as wrong,
    ):
        np.testing.assert_array_equal(right.ugos, true.ugos)
        np.testing.assert_array_equal(np.isnan(right.ugos), np.isnan(wrong.ugos))
        np.testing.assert_array_equal(right.time, wrong.time)
        assert wrong.ugos.std() < 0.97 * right.ugos.std()
        velocity = np.stack([right.ugos.values[3], right.vgos.values[3]]).astype(float)
        lat, lon = Axis(-39.875, 0.25, 32), Axis(20.125, 0.25, 36)
        once = currents_error.smoothed(velocity, lat, lon, False, 40e3)
        expected = currents_error.displaced(once, lat, lon, False, (15e3, 10e3))
        np.testing.assert_allclose(wrong.vgos[3], expected[1], atol=0.6e-4)

    store = ShardStore(tmp_path / "store")
    made = store.manifest.recipe["synthetic"]
    assert "cs" not in made
    assert made["currents_error"] == error
    assert made["truth"] == spec(truth={"cs": 0.2}).model_dump(mode="json")["truth"]
    page = show.render(facts.facts(tmp_path / "store"))
    assert re.search(r"^truth +C_s 0\.2$", page, re.M)
    assert re.search(r"^currents error +smoothed by 40 km; displaced by \(15, 10\) km, east and north$", page, re.M)

    make(spec(folder, cs=0.2, **TINY))
    assert not (folder / TRUE_CURRENTS).exists()
    with (
        xr.open_dataset(folder / "currents" / named) as again,
        xr.open_dataset(tmp_path / "right/currents" / named) as r,
    ):
        np.testing.assert_array_equal(again.ugos, r.ugos)


def test_given_currents_are_given_the_error_too(tmp_path: Path) -> None:
    make(spec(tmp_path / "a", cs=0.2, **TINY))
    source = {"path": str(tmp_path / "a/currents/*.nc")}
    make(spec(tmp_path / "b", truth={"cs": 0.2}, currents=source, currents_error={"shift_km": [22, 0]}, **TINY))
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["currents", "drifters.nc"]
    with xr.open_dataset(tmp_path / "a/drifters.nc") as old, xr.open_dataset(tmp_path / "b/drifters.nc") as new:
        np.testing.assert_array_equal(old.lat, new.lat)


def test_a_manifest_without_worlds_is_resolved_as_before_there_were_any() -> None:
    resolved = spec(cs=0.2).model_dump(mode="json")
    keys = "folder cs seed drifters drifter_days step clean currents days start resolution_deg lon lat"
    assert list(resolved) == keys.split()
    whole = spec(truth={}).model_dump(mode="json")
    assert whole["truth"] == {
        "cs": 0.0, "background": 0.0, "random_flight": None, "mean_drift": [0.0, 0.0], "inertial": None,
        "position_error": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"cs": 0.3, "truth": {"background": 1.0}}, "Write the constant as synthetic.truth.cs and leave out"),
        ({"currents_error": {}}, "expected smooth_km above 0, shift_km other than"),
        ({"currents_error": {"shift_km": [2000, 0]}}, "at most 1000 either way"),
        ({"truth": {"random_flight": {"speed": 0.1}}}, "synthetic.truth.random_flight.time' is required"),
        ({"truth": {"inertial": {"speed": 0.0, "time": "2D"}}}, "synthetic.truth.inertial.speed: .*greater than 0"),
        ({"release": {"together": 1, "within_km": 2}}, "together: .*greater than or equal to 2"),
        ({"currents": {"path": "unused/currents/*.nc"}, "currents_error": {"smooth_km": 30}}, "themselves lie"),
    ],
)
def test_contradictory_worlds_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec(**keys)


def test_an_error_of_currents_that_nothing_reads_is_refused() -> None:
    sources = {"drifters": {"path": "made/drifters.nc"}, "currents": {"path": "duacs/*.nc"}}
    made = {"folder": "made", "currents": {"path": "duacs/*.nc"}, "currents_error": {"smooth_km": 25}}
    with pytest.raises(ConfigError, match=r"which no source reads.* Write currents: \{path: 'made/currents/\*.nc'\}"):
        build(Recipe, sources | {"synthetic": made}, "test")
    build(Recipe, sources | {"synthetic": made, "currents": {"path": "./made/currents/*.nc"}}, "test")


def test_the_truth_of_a_store_is_read_from_its_recipe() -> None:
    assert twin.truth({}) is twin.truth({"synthetic": None}) is twin.constant({}) is None
    assert twin.truth({"synthetic": {"folder": "f", "cs": 0.3}}) == {"truth": {"cs": 0.3}}
    assert twin.constant({"synthetic": {"cs": 0.3}}) == 0.3
    flight = {"random_flight": {"speed": 0.08, "time": "2D"}}
    recipe = {"synthetic": spec(truth=flight, release={"together": 3, "within_km": 9}).model_dump(mode="json")}
    assert twin.constant(recipe) is None
    stated = twin.truth(recipe)
    assert stated is not None
    assert stated["release"] == {"together": 3, "within_km": 9.0}
    assert show._settings(stated["truth"]) == "random flight (speed 0.08 m/s; time 2 d)"
    assert show._settings(spec(truth={}).model_dump(mode="json")["truth"]) == "nothing but the currents"
    for damaged in ({"synthetic": 3}, {"synthetic": {}}, {"synthetic": {"truth": {"cs": "x"}}}):
        with pytest.raises(StoreError, match="damaged"):
            twin.truth(damaged)


def test_manifests_of_stores_name_no_world_that_was_not_asked_for() -> None:
    recipe = build(Recipe, {"drifters": {"path": "d"}, "currents": {"path": "c"}}, "test").model_dump(mode="json")
    assert recipe["synthetic"] is None
    assert b"truth" not in manifest.to_bytes(recipe)
