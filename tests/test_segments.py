"""Cutting tracks into segments, against plain loops, and one thing at a time."""

import errno
import itertools
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from driftcal.preprocess.drift import segments
from driftcal.preprocess.drift.candidates import survey, warnings
from driftcal.preprocess.recipe import DrifterSource, Recipe, Segment
from driftcal.preprocess.sources.drifters.drifters import Drifters, Fixes, open_drifters
from driftcal.shared import geo
from driftcal.shared.errors import DataError, StoreError
from tests import sources

START = sources.START


def left_over(got: segments.Segments) -> int:
    """Fixes in no segment, whatever broke their run."""
    return sum(got.dropped[why] for why in segments.LEFT_OVER)


def fixes(
    rows: list[list[float]],
    *,
    lon: list[list[float]] | None = None,
    lat: list[list[float]] | None = None,
    drogue: list[list[int]] | None = None,
    gap: list[list[float]] | None = None,
) -> Fixes:
    """Fixes of rows given by their times [s since START]; what is not given stands still, drogued, without gaps."""
    row = np.repeat(np.arange(len(rows)), [len(r) for r in rows])

    def flat(values: list | None, default: float, dtype: str) -> np.ndarray:
        return np.array([v for r in values for v in r], dtype) if values else np.full(len(row), default, dtype)

    return Fixes(
        row=row,
        time=flat(rows, 0, "int64") + START,
        lon=flat(lon, 12.0, "float64") if lon else 12.0 + 0.01 * np.arange(len(row)),
        lat=flat(lat, 40.0, "float64"),
        drogue=flat(drogue, 1, "int8"),
        gap=flat(gap, np.nan, "float64"),
        source_row=np.arange(len(row)) + 1000,
        drifter={k: f"d{k}" for k in range(len(rows))},
        dropped={"time missing": 3},
    )


def hours(n: int, first: int = 0) -> list[float]:
    return [3600 * (first + k) for k in range(n)]


def cut(given: Fixes, *, days: float = 0.25, step: int = 3600, has_drogue: bool = True, **options) -> segments.Segments:
    stride = options.pop("stride_days", None)
    source = DrifterSource(path="x", **options)
    return joined(
        segments.cut(
            given, source, Segment.model_validate({"days": days, "step": step, "stride_days": stride}), has_drogue
        )
    )


def joined(parts: Iterable[segments.Segments]) -> segments.Segments:
    """All segments of a block of fixes."""
    every = list(parts)
    arrays = {
        name: np.concatenate([getattr(part, name) for part in every])
        for name in segments.Segments.__dataclass_fields__
        if name not in ("kept", "dropped")
    }
    assert not any(part.kept or part.dropped for part in every[1:])  # told once
    return segments.Segments(**arrays, kept=every[0].kept, dropped=every[0].dropped)


# Against plain loops


def metres(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Distance of two (lon, lat) by the law of cosines in three dimensions."""
    p, q = (
        (math.cos(math.radians(y)) * math.cos(math.radians(x)), math.cos(math.radians(y)) * math.sin(math.radians(x)),
         math.sin(math.radians(y)))
        for x, y in (a, b)
    )  # fmt: skip
    chord = math.dist(p, q)
    return 2 * 6_371_008.8 * math.asin(chord / 2)


def stands(track: list[tuple[float, float]]) -> bool:
    return all(max(p[axis] for p in track) - min(p[axis] for p in track) < 1e-4 for axis in (0, 1))


def expected(given: Fixes, source: DrifterSource, n_obs: int, step: int, stride: int, has_drogue: bool) -> list[dict]:
    """Every segment, by loops over single fixes."""
    runs: list[list[int]] = []
    last = None
    for i in range(len(given.time)):
        wanted = {"on": 1, "lost": 0}.get(source.drogue)
        if has_drogue and wanted is not None and given.drogue[i] != wanted:
            continue
        if given.gap[i] > source.max_gap:
            continue
        here = (given.lon[i], given.lat[i])
        joined = (
            last is not None
            and given.row[last] == given.row[i]
            and given.time[i] - given.time[last] == step
            and metres((given.lon[last], given.lat[last]), here) <= source.max_speed * step
        )
        if joined:
            runs[-1].append(i)
        else:
            runs.append([i])
        last = i
    found = []
    for run in runs:
        first = 0
        while first + n_obs <= len(run):
            part = run[first : first + n_obs]
            track, turn = [(0.0, 0.0)], 0.0
            for a, b in itertools.pairwise(part):
                east = given.lon[b] - given.lon[a]
                east = (east + 180) % 360 - 180
                turn += east
                track.append((turn, given.lat[b] - given.lat[part[0]]))
            span = round(24 * 3600 / step)
            still = any(stands(track[i : i + span + 1]) for i in range(len(track) - span))
            found.append({"first": part[0], "track": track, "aground": still, "fixes": part})
            first += stride
    return found


def random_fixes(rng: np.random.Generator, step: int) -> Fixes:
    """Rows with everything that breaks a track: holes, odd steps, lost drogues, satellite gaps, spikes, groundings."""
    rows, lon, lat, drogue, gap = [], [], [], [], []
    for _ in range(rng.integers(1, 5)):
        n = int(rng.integers(1, 130))
        dt = np.full(n, step)
        dt[rng.random(n) < 0.02] = rng.choice([step // 2, 2 * step, 5 * step])
        time = np.cumsum(dt)
        east, north = (np.cumsum(rng.normal(0, 0.01, n)) for _ in range(2))
        for _ in range(rng.integers(0, 3)):
            a = int(rng.integers(0, n))
            b = a + int(rng.integers(1, 60))
            east[a:b], north[a:b] = east[a], north[a]
        spikes = rng.random(n) < 0.01
        east[spikes] += rng.choice([-1.5, 1.5]) * step / 3600
        state = np.ones(n, int)
        state[int(rng.integers(0, 2 * n)) :] = 0
        state[rng.random(n) < 0.005] = -1
        far = np.where(rng.random(n) < 0.01, 13 * 3600.0, 3600.0)
        far[rng.random(n) < 0.1] = np.nan
        west = rng.choice([179.9, -179.95, 0.0, 37.3])
        rows.append(time.tolist())
        lon.append(((west + east + 180) % 360 - 180).tolist())
        lat.append((rng.choice([-61.0, 0.0, 52.5]) + north).tolist())
        drogue.append(state.tolist())
        gap.append(far.tolist())
    return fixes(rows, lon=lon, lat=lat, drogue=drogue, gap=gap)


@pytest.mark.parametrize("drogue", ["on", "lost", "any"])
@pytest.mark.parametrize("stride", [6, 3, 10, 24])
def test_segments_are_those_of_plain_loops(drogue: str, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    many = 0
    for seed in range(25):
        rng = np.random.default_rng([seed, stride])
        step = int(rng.choice([3600, 21_600]))
        n_steps = int(rng.choice([6, 24, 30]))
        given = random_fixes(rng, step)
        has_drogue = bool(rng.random() < 0.8)
        source = DrifterSource.model_validate({"path": "x", "drogue": drogue})
        segment = Segment(days=n_steps * step / 86_400, step=step, stride_days=stride * step / 86_400)
        monkeypatch.setattr(segments, "AT_ONCE", int(rng.integers(1, 9)))
        got = joined(segments.cut(given, source, segment, has_drogue))
        due = expected(given, source, n_steps + 1, step, stride, has_drogue)
        many += len(due)
        first = np.array([s["first"] for s in due], int)
        np.testing.assert_array_equal(got.source_row, given.source_row[first])
        np.testing.assert_array_equal(got.row, given.row[first])
        np.testing.assert_array_equal(got.start_time, given.time[first])
        np.testing.assert_allclose(got.origin, np.stack([given.lon[first], given.lat[first]], -1), atol=1e-12)
        if due:
            np.testing.assert_allclose(got.positions, np.array([s["track"] for s in due]), atol=1e-6)
            np.testing.assert_array_equal(got.drogue, [given.drogue[s["fixes"]].min() for s in due])
            long = n_steps * step >= 86_400
            np.testing.assert_array_equal(got.aground, [s["aground"] and long for s in due])
        covered = len({i for s in due for i in s["fixes"]})
        assert got.kept["gap-free"] - left_over(got) == covered
    assert many > 30


def test_every_fix_is_kept_or_dropped_for_one_reason() -> None:
    for seed in range(20):
        given = random_fixes(np.random.default_rng(seed), 3600)
        got = cut(given)
        lost = got.dropped["drogue lost"] + got.dropped["drogue unknown"]
        assert got.kept["fixes"] == len(given.time)
        assert got.kept["drogued"] == len(given.time) - lost
        assert got.kept["gap-free"] == got.kept["drogued"] - got.dropped["gap between satellite fixes"]
        assert got.dropped["time missing"] == 3


# One thing at a time


def test_a_long_track_gives_neighbouring_overlapping_or_sparse_segments() -> None:
    given = fixes([hours(25)])
    starts = {stride: cut(given, stride_days=stride).source_row.tolist() for stride in (None, 0.125, 0.5)}
    assert starts == {None: [1000, 1006, 1012, 1018], 0.125: list(range(1000, 1019, 3)), 0.5: [1000, 1012]}
    assert left_over(cut(given, stride_days=0.5)) == 25 - 2 * 7


def test_rows_shorter_than_a_segment_give_none() -> None:
    got = cut(fixes([hours(6), hours(7), hours(1)]))
    assert got.row.tolist() == [1]
    assert left_over(got) == 7
    none = cut(fixes([hours(3)]))
    assert (len(none), none.positions.shape, none.aground.dtype) == (0, (0, 7, 2), bool)


def test_segments_never_join_rows_nor_span_a_missing_fix() -> None:
    assert len(cut(fixes([hours(4), hours(4, 4)]))) == 0
    hole = hours(7) + hours(7, 8)
    assert cut(fixes([hole])).start_time.tolist() == [START, START + 8 * 3600]
    assert len(cut(fixes([hours(5) + hours(5, 6)]))) == 0


def test_the_seam_is_no_jump() -> None:
    lon = [179.97 + 0.01 * k for k in range(7)]
    got = cut(fixes([hours(7)], lon=[[(x + 180) % 360 - 180 for x in lon]]))
    assert len(got) == 1
    np.testing.assert_allclose(got.origin, [[179.97, 40.0]])
    np.testing.assert_allclose(got.positions[0, :, 0], 0.01 * np.arange(7), atol=1e-6)
    west = cut(fixes([hours(7)], lon=[[-x for x in lon[:3]] + [360 - x for x in lon[3:]]]))
    np.testing.assert_allclose(west.positions[0, :, 0], -0.01 * np.arange(7), atol=1e-6)


def test_a_speed_spike_breaks_the_track_on_both_sides() -> None:
    lon = [0.01 * k for k in range(20)]
    lon[9] += 0.3  # 33 km in an hour
    got = cut(fixes([hours(20)], lon=[lon], lat=[[0.0] * 20]))
    assert got.source_row.tolist() == [1000, 1010]
    slow = cut(fixes([hours(20)], lon=[lon], lat=[[0.0] * 20]), max_speed=10)
    assert slow.source_row.tolist() == [1000, 1006, 1012]


def test_a_step_is_as_fast_as_its_great_circle() -> None:
    """Along meridians, parallels and between, across the seam too, a hair below and above the limit."""
    rng = np.random.default_rng(3)
    fixes = np.stack([rng.uniform(-180, 180, 4000), rng.uniform(-80, 80, 4000)], axis=-1)
    bearing, size = rng.uniform(0, 2 * np.pi, 4000), rng.choice([0.05, 0.0969, 0.0972, 0.2, 1.0], 4000)
    bearing[:2000] = rng.choice([0, np.pi / 2, np.pi, 3 * np.pi / 2], 2000)
    step = size[:, None] * np.stack([np.cos(bearing) / np.cos(np.radians(fixes[:, 1])), np.sin(bearing)], axis=-1)
    tracks = np.stack([fixes, fixes + step], axis=1)
    tracks[..., 0] = geo.wrap_longitude(tracks[..., 0])
    found = np.array([segments._fast(track, 10_800.0)[0] for track in tracks])
    np.testing.assert_array_equal(found, geo.separation(tracks[:, 1], tracks[:, 0]) > 10_800)
    assert 0.3 < found.mean() < 0.7
    for a, b in ((10.0, 10.1), (-7.0, -7.0999)):  # on a meridian the limit itself is no faster
        track = np.array([[3.0, a], [3.0, b]])
        limit = float(geo.separation(track[0], track[1]))
        assert [bool(segments._fast(track, x)[0]) for x in (limit, np.nextafter(limit, 0))] == [False, True]


@pytest.mark.parametrize(("still", "aground"), [(24, False), (25, True), (49, True)])
def test_a_day_without_motion_is_aground(still: int, aground: bool) -> None:
    lon = [0.01 * max(k - 9 - still, 0) - 0.01 * max(10 - k, 0) for k in range(73)]
    got = cut(fixes([hours(73)], lon=[lon]), days=3)
    assert got.aground.tolist() == [aground]


def test_drifting_slowly_is_not_aground() -> None:
    lon = [12.0 + 1e-5 * k for k in range(49)]
    assert cut(fixes([hours(49)], lon=[lon]), days=2).aground.tolist() == [False]
    lon = [12.0 + 3e-6 * k for k in range(49)]
    assert cut(fixes([hours(49)], lon=[lon]), days=2).aground.tolist() == [True]


def test_segments_shorter_than_a_day_are_never_called_aground() -> None:
    assert cut(fixes([hours(7)], lon=[[12.0] * 7])).aground.tolist() == [False]


def test_segments_are_chosen_by_the_state_of_the_drogue() -> None:
    state = [1] * 8 + [0] * 8 + [-1] * 8
    given = fixes([hours(24)], drogue=[state])
    by_choice = {choice: cut(given, drogue=choice) for choice in ("on", "lost", "any")}
    assert {k: v.source_row.tolist() for k, v in by_choice.items()} == {
        "on": [1000],
        "lost": [1008],
        "any": [1000, 1006, 1012],
    }
    assert by_choice["on"].dropped == Counter(
        {
            "drogue lost": 8,
            "drogue unknown": 8,
            segments.LEFT_OVER[0]: 1,
            segments.LEFT_OVER[1]: 0,
            segments.LEFT_OVER[2]: 0,
            "time missing": 3,
            "gap between satellite fixes": 0,
        }
    )
    assert by_choice["lost"].dropped["drogue on"] == 8
    assert by_choice["any"].drogue.tolist() == [1, 0, -1]
    assert cut(given, has_drogue=False, drogue="on").source_row.tolist() == [1000, 1006, 1012]


def test_a_gap_between_satellite_fixes_breaks_the_track() -> None:
    gap = [3600.0] * 24
    gap[10], gap[11] = 43_201.0, np.nan
    got = cut(fixes([hours(24)], gap=[gap]))
    assert got.source_row.tolist() == [1000, 1011, 1017]
    assert got.dropped["gap between satellite fixes"] == 1
    assert len(cut(fixes([hours(24)], gap=[gap]), max_gap="1 day")) == 3


def test_six_hourly_fixes_need_a_step_of_six_hours() -> None:
    given = fixes([[21_600 * k for k in range(21)]])
    assert len(cut(given, days=5)) == 0
    assert cut(given, days=5, step=21_600).positions.shape == (1, 21, 2)
    assert segments.typical_step(given) == 21_600
    assert segments.typical_step(fixes([[0], [5]])) is None


def test_the_message_names_the_step_of_the_fixes_and_the_configured_one(tmp_path) -> None:
    track = sources.track(n=30)
    slow = sources.Track(1, START + 21_600 * np.arange(30), track.lon, track.lat, track.drogue, track.gap)
    path = sources.save(sources.ragged([slow]), tmp_path / "six.nc")
    recipe = Recipe.model_validate({"drifters": {"path": path}, "currents": {"path": "x"}})
    with pytest.raises(DataError, match=r"six\.nc: fixes are mostly 21600 s apart, but segment\.step is 3600 s"):
        survey(recipe, [open_drifters(recipe.drifters[0])], tmp_path / "tracks", progress=False)


def test_many_fixes_lost_beside_fast_steps_are_warned_of(tmp_path: Path) -> None:
    """A limit that is too low for the drifters leaves the fast ones out."""
    lon = np.cumsum(np.random.default_rng(2).choice([0.01, 0.09], 24 * 20))  # 0.3 and 2.8 m/s
    track = sources.Track(
        7,
        sources.START + 3600 * np.arange(24 * 20),
        lon,
        0 * lon,
        np.ones(lon.size, np.int8),
        np.full(lon.size, 3600.0),
    )
    path = sources.save(sources.ragged([track]), tmp_path / "d.nc")
    for limit, said in ((3, []), (2, ["WARNING: 480 of 480 fixes are left over beside a step faster"])):
        tree = {"drifters": {"path": path, "max_speed": limit}, "currents": {"path": "x"}, "segment": {"days": 1}}
        recipe = Recipe.model_validate(tree)
        found = survey(recipe, [open_drifters(recipe.drifters[0])], tmp_path / f"tracks-{limit}", progress=False)
        told = warnings(found)
        assert len(told) == len(said)
        assert all(due in text for due, text in zip(said, told, strict=True))


def test_a_read_error_is_not_reported_as_a_write_error(tmp_path: Path) -> None:
    """An error of the drifters' disk passes; one of the scratch file's names that file."""
    recipe = Recipe.model_validate({"drifters": {"path": "d.nc"}, "currents": {"path": "x"}})

    damaged = Mock(spec=Drifters, n_fixes=10, has_drogue=True)
    damaged.blocks.side_effect = OSError(errno.EIO, "Input/output error", "d.nc")
    with pytest.raises(OSError, match=r"Input/output error: 'd\.nc'"):
        survey(recipe, [damaged], tmp_path / "tracks", progress=False)
    with pytest.raises(StoreError, match=r"cannot write .*nowhere/tracks: No such file"):
        survey(recipe, [damaged], tmp_path / "nowhere" / "tracks", progress=False)


def test_fixes_in_no_segment_are_counted_by_what_broke_their_run() -> None:
    """Three rows: one whole, one with a missing hour, one with a jump of half a degree; segments of 7 fixes."""
    lon = [[12.0 + 0.01 * k for k in range(24)] for _ in range(3)]
    lon[2] = [x + (0.5 if k >= 10 else 0.0) for k, x in enumerate(lon[2])]
    times = [hours(24), hours(11) + [h + 3600 for h in hours(24)[11:]], hours(24)]
    got = cut(fixes(times, lon=lon))
    assert [got.dropped[why] for why in segments.LEFT_OVER] == [24 - 19, (11 - 7) + 0, (10 - 7) + (14 - 13)]
