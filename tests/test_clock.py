"""Fixes brought to a regular clock: what is regular stays to the bit, the rest is interpolated within a tolerance."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from driftcal.preprocess.drift import clock
from driftcal.preprocess.drift.candidates import survey
from driftcal.preprocess.drift.clock import Clock
from driftcal.preprocess.recipe import DrifterSource, Recipe, Segment
from driftcal.preprocess.sources.drifters.drifters import open_drifters
from driftcal.preprocess.sources.drifters.fixes import Fixes
from driftcal.shared.errors import DataError
from tests import sources

START = sources.START
HOURS = START + 3600 * np.arange(24 * 12)


def track(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude [degrees] of a drifter that crosses the antimeridian and turns, at times [s]."""
    hours = (time - START) / 3600.0
    return (178.5 + 0.021 * hours + 180.0) % 360.0 - 180.0, -20.0 + 0.3 * np.sin(hours / 9.0)


def fixes(*rows: np.ndarray) -> Fixes:
    time = np.concatenate(rows).astype(np.int64)
    lon, lat = track(time)
    return Fixes(
        row=np.repeat(np.arange(len(rows)), [len(r) for r in rows]),
        time=time,
        lon=lon,
        lat=lat,
        drogue=np.ones(len(time), np.int8),
        gap=np.full(len(time), np.nan),
        source_row=np.arange(len(time)) + 500,
        drifter={k: str(k) for k in range(len(rows))},
        dropped={"time missing": 2},
    )


def of(given: Fixes, tolerance: object = "10min", **segment: object) -> tuple[Fixes, Clock]:
    source = DrifterSource.model_validate({"path": "x.nc", "clock_tolerance": tolerance})
    made = Clock(Segment.model_validate(segment), source)
    return made.regular(given), made


def jitter(most: int, n: int = HOURS.size, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(-most, most + 1, n)


REGULAR = {
    "on the hour": HOURS,
    "half past": HOURS + 1800,
    "odd offset": HOURS + 1237,
    "with gaps": np.delete(HOURS, [3, 40, 41, 200]),
    "another phase after a jump": np.concatenate([HOURS[:130], HOURS[130:] + 1800]),
    "one fix more": np.insert(HOURS, 150, HOURS[149] + 900),
}


@pytest.mark.parametrize("name", REGULAR)
def test_what_is_regular_stays_as_it_is(name: str) -> None:
    given = fixes(REGULAR[name], HOURS[:50] + 60)
    out, made = of(given)
    assert out is given
    made.check()
    assert made.notes() == []


IRREGULAR = {
    "seconds off the hour": (HOURS + jitter(40), 0),
    "some seconds late": (HOURS + np.abs(jitter(40)), 0),
    "minutes off half past": (HOURS + 1800 + jitter(200), None),
    "a clock that drifts": (START + 3601 * np.arange(240), 0),
    "every five minutes or so": (np.sort(START + 300 * np.arange(3000) + jitter(60, 3000)), 0),
    "every 20.6 s": (START + np.round(20.6 * np.arange(30_000)).astype(int), 0),
}


@pytest.mark.parametrize("name", IRREGULAR)
def test_irregular_clocks_are_interpolated(name: str) -> None:
    time, phase = IRREGULAR[name]
    given = fixes(HOURS + 1237, time)
    out, made = of(given)
    made.check()
    first, second = out.row == 0, out.row == 1
    np.testing.assert_array_equal(out.lon[first], given.lon[given.row == 0])
    np.testing.assert_array_equal(out.time[first], HOURS + 1237)
    steps = np.diff(out.time[second])
    assert (steps == 3600).sum() >= 0.97 * ((time[-1] - time[0]) // 3600) - 1
    regular = second & np.isin(out.time, out.time[second][1:][steps == 3600])
    if phase is not None:
        assert (out.time[regular] % 3600 == phase).all()
    lon, lat = track(out.time)
    # linear over an hour: |f''| h² / 8
    np.testing.assert_allclose(out.lat[regular], lat[regular], rtol=0, atol=0.3 / 81 / 8)
    np.testing.assert_allclose((out.lon - lon)[regular], 0.0, atol=1e-9)
    assert np.abs(out.lat - lat)[regular].max() > 1e-9
    assert out.lon.min() >= -180
    assert out.lon.max() < 180
    (interpolated, *_) = made.notes()
    assert f"{made.interpolated} of {len(given.time)} fixes were interpolated linearly to a regular clock of 3600" in (
        interpolated
    )
    assert made.furthest <= 600
    gone = Counter(out.dropped)[clock.BETWEEN] + Counter(out.dropped)[clock.FAST]
    assert len(out.time) == len(given.time) - gone
    assert out.dropped["time missing"] == 2


@pytest.mark.parametrize(("step", "offset"), [(300, 0), (600, 300), (1800, 0), (1200, 240)])
@pytest.mark.parametrize("tolerance", ["10min", 0])
def test_fixes_more_often_than_the_step_are_thinned_without_interpolation(
    step: int, offset: int, tolerance: object
) -> None:
    given = fixes(START + offset + step * np.arange(12 * 86400 // step))
    out, made = of(given, tolerance)
    on_clock = out.time[:-1][np.diff(out.time) == 3600]
    assert len(on_clock) == 287
    assert np.ptp(on_clock % 3600) == 0
    index = out.source_row - 500
    for name in ("time", "lon", "lat"):
        np.testing.assert_array_equal(getattr(out, name), getattr(given, name)[index])
    assert made.interpolated == 0
    assert "lie between the steps of a clock of 3600 s and are not used" in made.notes()[0]
    made.check()


def test_states_and_gaps_of_interpolated_fixes_are_the_worse_of_their_neighbours() -> None:
    given = fixes(HOURS + 30)  # every other fix 20 s late: between it and the one before
    late = given.time + np.where(np.arange(HOURS.size) % 2, 20, 0)
    drogue = np.where(np.arange(HOURS.size) < 101, 1, 0).astype(np.int8)
    drogue[50] = -1
    gap = np.where(np.arange(HOURS.size) == 70, 50_000.0, 3600.0)
    out, _ = of(replace(given, time=late, drogue=drogue, gap=gap))
    at = {int(t): k for k, t in enumerate(out.time)}
    states = [int(out.drogue[at[START + 30 + 3600 * k]]) for k in (49, 50, 51, 52, 100, 101)]
    assert states == [1, -1, -1, 1, 1, 0]
    assert [float(out.gap[at[START + 30 + 3600 * k]]) for k in (69, 70, 71, 72)] == [3600.0, 50_000.0, 50_000.0, 3600.0]


def test_nothing_is_interpolated_over_more_than_a_step_and_a_half() -> None:
    time = np.delete(HOURS, np.arange(140, 143)) + jitter(20, HOURS.size - 3)
    out, _ = of(fixes(time))
    missing = set(range(START, int(HOURS[-1]), 3600)) - set(out.time.tolist())
    assert {START + 3600 * k for k in (140, 141, 142)} <= missing
    assert len(missing) <= 6


def test_two_drifters_by_turns_are_left_as_they_are() -> None:
    """Between fixes of two drifters under one id there is nothing to interpolate, and no track in every other fix."""
    given = fixes(np.sort(np.concatenate([HOURS + 600, HOURS + 2400])))
    away = replace(given, lat=given.lat + 0.2 * (np.arange(len(given.time)) % 2))
    out, made = of(away)
    np.testing.assert_array_equal(out.lat, away.lat)
    with pytest.raises(DataError, match=r"fixes are mostly 1800 s apart, but segment\.step is 3600 s"):
        made.check()


def data(tmp_path: Path, time: np.ndarray) -> str:
    lon, lat = track(time)
    row = sources.Track(1, time, lon, lat, np.ones(len(time), np.int8), np.full(len(time), np.nan))
    return sources.save(sources.ragged([row]), tmp_path / "d.nc")


def surveyed(tmp_path: Path, path: str, **settings: dict) -> int:
    drifters = {"path": path, **settings.get("drifters", {})}
    tree = {"drifters": drifters, "currents": {"path": "x"}, "segment": settings.get("segment", {})}
    recipe = Recipe.model_validate(tree)
    (tmp_path / "tracks").unlink(missing_ok=True)
    found = survey(recipe, [open_drifters(recipe.drifters[0])], tmp_path / "tracks", progress=False)
    return len(found.drifter)


REMEDIES = [
    (START + 10_800 * np.arange(200), r"mostly 10800 s .* Set segment\.step: 10800s, or resample",
     {"segment": {"step": "10800s"}}, 4),
    (START + 3970 * np.arange(500), r"Set segment\.step: 3970s and segment\.days: 5\.00844907407407, or",
     {"segment": {"step": "3970s", "days": 5.00844907407407}}, 4),
    (START + 3610 * np.arange(500), r"mostly 3610 s .* Set drifters\.clock_tolerance: 1799s to interpolate them",
     {"drifters": {"clock_tolerance": "1799s"}}, 3),
    (START + 3700 * np.arange(500), r"Set segment\.step: 3700s and segment\.days: 5\.01041666666667, or resample",
     {"segment": {"step": "3700s", "days": 5.01041666666667}}, 4),
    (START + 5400 * np.arange(500), r"mostly 5400 s .* Set segment\.step: 5400s, or resample",
     {"segment": {"step": "5400s"}}, 4),
    (START + 2400 * np.arange(800), r"Set segment\.step: 2400s, or set drifters\.clock_tolerance: 1201s to interp",
     {"drifters": {"clock_tolerance": "1201s"}}, 4),
    (np.cumsum(np.random.default_rng(1).integers(1000, 9000, 400)) + START,
     r"irregular times, mostly \d+ to \d+ s apart.*Set segment\.step: 10800s and drifters\.clock_tolerance: 5400s",
     {"segment": {"step": "10800s"}, "drifters": {"clock_tolerance": "5400s"}}, 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("time", "message", "settings", "least"),
    REMEDIES,
    ids=["3 h", "odd", "10 s late", "100 s late", "90 min", "40 min", "irregular"],
)
def test_what_the_message_says_works(
    time: np.ndarray, message: str, settings: dict, least: int, tmp_path: Path
) -> None:
    path = data(tmp_path, time)
    with pytest.raises(DataError, match=message):
        surveyed(tmp_path, path)
    assert surveyed(tmp_path, path, **settings) >= least


def test_tolerance_off(tmp_path: Path) -> None:
    path = data(tmp_path, HOURS + jitter(20))
    assert surveyed(tmp_path, path) == 2
    with pytest.raises(DataError, match=r"Set drifters\.clock_tolerance: 600s to interpolate them to that step, or"):
        surveyed(tmp_path, path, drifters={"clock_tolerance": 0})


def test_irregular_tracks_take_no_time_that_grows_with_their_square() -> None:
    """All pieces of a track without a clock are looked at through a window."""
    calls = []
    given = fixes(np.cumsum(np.random.default_rng(5).integers(600, 5000, 20_000)) + START)
    original = clock.instants_of

    def counted(time: np.ndarray, step: int, tolerance: int) -> clock.Instants:
        calls.append(len(time))
        return original(time, step, tolerance)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "instants_of", counted)
        of(given)
    assert sum(calls) < 200 * len(given.time)
