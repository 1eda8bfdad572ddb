"""Which sample goes where: splits, order, and every reason for which a segment is left out."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from driftcal.preprocess.__main__ import main, planned
from driftcal.preprocess.drift import advice, clock, funnel, gaps, segments, splits, windows
from driftcal.preprocess.drift import plan as planning
from driftcal.preprocess.recipe import Recipe
from driftcal.preprocess.sources.drifters import fixes
from driftcal.preprocess.sources.gridded.currents import land_levels
from driftcal.shared import settings
from driftcal.shared.store.schema import SPLITS, STATUS
from tests import fields, sources
from tests.fields import DAY, START

LON, LAT = 30 + 0.25 * np.arange(29), -40 + 0.25 * np.arange(25)
TREE: dict[str, Any] = {"segment": {"days": 2}, "window": {"half_width_deg": 1.0}}


def recipe(**split: float) -> Recipe:
    return Recipe.model_validate({"drifters": {"path": "d"}, "currents": {"path": "c"}, "split": split})


def files(
    folder: Path, tracks: list[sources.Track], levels: int = 8, missing: tuple[int, ...] = (), **tree: Any
) -> str:
    """A manifest with `tracks` and a regional field that lacks some levels."""
    raw = fields.field(LON, LAT, levels).isel(time=[k for k in range(levels) if k not in missing])
    return fields.manifest(
        folder,
        sources.save(sources.ragged(tracks), folder / "drifters.nc"),
        fields.save(raw, folder / "currents.nc"),
        **(TREE | tree),
    )


def two_days(drifter: int, start: int = START, lon: float = 33.5, lat: float = -37.0, days: int = 2, **options: Any):
    return fields.walk(drifter, lon, lat, n=24 * days + 1, start=start, **options)


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert main(list(arguments)) == code
    out, err = capsys.readouterr()
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in err + out
    return last


# Splits


def test_fractions_are_respected_and_the_same_names_get_the_same_split() -> None:
    names = [str(k) for k in range(5000)]
    split = splits.of_drifters(recipe(train=0.7, validation=0.2, test=0.1), names)
    for code, fraction in enumerate((0.7, 0.2, 0.1)):
        assert abs((split == code).mean() - fraction) < 4 * np.sqrt(fraction * (1 - fraction) / 5000)
    order = np.random.default_rng(0).permutation(5000)[:1000]
    few = splits.of_drifters(recipe(train=0.7, validation=0.2, test=0.1), [names[k] for k in order])
    np.testing.assert_array_equal(few, split[order])
    other = splits.of_drifters(recipe(train=0.7, validation=0.2, test=0.1, seed=1), names)
    assert 0.3 < (other != split).mean() < 0.6


@pytest.mark.parametrize(("fractions", "codes"), [((1, 0, 0), {0}), ((0, 0, 1), {2}), ((0.5, 0, 0.5), {0, 2})])
def test_a_fraction_of_0_means_no_such_split(fractions: tuple, codes: set[int]) -> None:
    split = splits.of_drifters(recipe(**dict(zip(SPLITS, fractions, strict=True))), [f"d{k}" for k in range(2000)])
    assert set(split.tolist()) == codes


def test_fractions_that_only_nearly_sum_to_1_leave_nobody_out() -> None:
    split = splits.of_drifters(recipe(train=0.1 + 0.2, validation=0.6, test=0.1), [f"d{k}" for k in range(2000)])
    assert set(split.tolist()) == {0, 1, 2}


def test_no_drifter_is_in_two_splits_and_the_store_says_so(tmp_path: Path) -> None:
    tracks = [two_days(k, START + 3600 * k, days=6) for k in range(40)]
    split = {"train": 0.5, "validation": 0.3, "test": 0.2}
    store = fields.make(files(tmp_path, tracks, 12, split=split), tmp_path / "store")
    label = store.labels
    assert len(store) == 120
    for drifter in range(40):
        assert len(set(label["split"][label["drifter"] == drifter])) == 1
    held = store.manifest.splits
    assert sum(facts["drifters"] for facts in held.values()) == 40
    assert [held[name]["samples"] for name in SPLITS] == np.bincount(label["split"]).tolist()


def test_an_empty_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = {"train": 0.8, "validation": 0.1, "test": 0.1}
    path = files(tmp_path, [two_days(1)], split=split)
    message = refused(capsys, 2, path, "--out", str(tmp_path / "store"))
    assert "leaves validation and test empty: the samples come from 1 drifters" in message
    assert "How they became so few: fixes: " in message
    assert not (tmp_path / "store").exists()


# Order


def test_samples_are_ordered_by_time_and_permuted_within_shards(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    tracks = [two_days(k, START + 3600 * int(rng.integers(0, 20 * 24))) for k in range(50)]
    path = files(tmp_path, tracks, 25, store={"samples_per_shard": 16})
    store = fields.make(path, tmp_path / "store")
    start = store.labels["start_time"]
    np.testing.assert_array_equal(np.sort(start), np.sort([t.time[0] for t in tracks]))
    parts = [start[k : k + 16] for k in range(0, 50, 16)]
    for before, after in itertools.pairwise(parts):
        assert before.max() <= after.min()
    assert all((np.diff(part) < 0).any() for part in parts[:3])


# Reasons


def test_segments_without_a_window_are_counted_by_reason(tmp_path: Path) -> None:
    still = two_days(10, START)
    still = dataclasses.replace(still, lon=np.full(49, 33.0), lat=np.full(49, -37.0))
    tracks = [
        two_days(1),
        two_days(1),  # the same again, in another row
        two_days(2, START + 5 * DAY),  # needs days 5 to 8 of 0 to 7
        two_days(3, START - 3600),
        two_days(4, START + 4 * DAY),
        two_days(5, lon=30.5),
        two_days(6, lon=0.0),
        two_days(7, lat=-61.0),
        two_days(8, START + DAY),
        still,
        dataclasses.replace(two_days(11, START + 3 * DAY), lon=32 + 0.055 * np.arange(49), lat=np.full(49, -37.0)),
    ]
    period = {"start": "2016-02-28", "end": "2016-03-03T12:00"}
    path = files(tmp_path, tracks, period=period, window=TREE["window"] | {"max_leaving": 1.0})
    store = fields.make(path, tmp_path / "store")
    found = fields.funnel(store)
    assert found["segments"] == (
        7,
        {planning.AGROUND: 1, planning.DUPLICATE: 1, planning.OUTSIDE_DATES: 2},
    )
    assert found["inside the record"] == (
        3,
        {planning.POLEWARD: 1, windows.OUTSIDE_DOMAIN: 2, windows.TRACK_LEAVES: 1},
    )
    assert sorted(store.drifters[d] for d in store.labels["drifter"]) == ["1", "4", "8"]


def test_drifters_outside_the_period_of_the_currents_are_counted(tmp_path: Path) -> None:
    tracks = [two_days(1), two_days(2, START + 5 * DAY), two_days(3, START - 1 * DAY), two_days(4, START + 90 * DAY)]
    store = fields.make(files(tmp_path, tracks), tmp_path / "store")
    assert fields.funnel(store)["inside the record"] == (1, {windows.OUTSIDE_PERIOD: 3})


def test_windows_over_missing_days_are_counted(tmp_path: Path) -> None:
    tracks = [two_days(k, START + k * DAY) for k in range(12)]
    store = fields.make(files(tmp_path, tracks, 16, missing=(6, 7)), tmp_path / "store")
    kept = {int(store.drifters[d]) for d in store.labels["drifter"]}
    assert kept == {k for k in range(12) if not {6, 7} & set(range(k, k + 4))}
    assert fields.funnel(store)["inside the record"] == (len(kept), {windows.MISSING_DAY: 12 - len(kept)})


def test_a_plan_without_samples_says_what_was_dropped_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files(tmp_path, [two_days(1, START + 400 * DAY), two_days(2, lon=100.0)])
    message = refused(capsys, 1, path, "--out", str(tmp_path / "deep" / "store"))
    assert "no sample is left" in message
    assert f"1 {windows.OUTSIDE_PERIOD}" in message
    assert f"1 {windows.OUTSIDE_DOMAIN}" in message
    assert "the currents' levels run from 2016-02-28T00:00:00 to 2016-03-06T00:00:00" in message
    assert not (tmp_path / "deep").exists()


def test_tracks_that_are_all_too_short_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = files(tmp_path, [fields.walk(1, 33.0, -37.0, n=48)])
    message = refused(capsys, 1, path, "--out", str(tmp_path / "store"))
    assert "48 left over at the end of a track" in message
    assert "No track holds 2 whole days" in message


@pytest.mark.parametrize(("flag", "every"), [(4, 1), (1, 3)], ids=["flags", "between"])
def test_most_fixes_may_be_left_out_before_anything_else(
    flag: int, every: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = two_days(1), two_days(2, lon=33.9)
    path = files(tmp_path, [bad, good, two_days(3)])
    with xr.open_dataset(tmp_path / "drifters.nc", decode_times=False) as opened:
        data = opened.load()
    n = data.sizes["obs"]
    data["POSITION_QC"] = ("obs", np.where(np.arange(n) < 2 * n // 3, flag, 1).astype(np.int8))
    sources.save(data, tmp_path / "drifters.nc")
    step = f"{every}h"
    assert main([path, "--dry-run", "--set", f"segment.step={step}", "--out", str(tmp_path / "store")]) == 0
    out = capsys.readouterr()
    assert ("quality" in out.out + out.err) == (flag == 4)
    assert ("96 fixes lie between the steps" in out.out + out.err) == (every == 3)


def test_tracks_that_are_cut_by_files_are_not_called_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = two_days(1)
    path = files(tmp_path, [whole])
    for name, part in (("drifters.nc", slice(0, 24)), ("drifters2.nc", slice(24, None))):
        cut = {key: getattr(whole, key)[part] for key in ("time", "lon", "lat", "drogue", "gap")}
        sources.save(sources.ragged([sources.Track(1, **cut)]), tmp_path / name)
    message = refused(
        capsys, 1, path, "--set", f"drifters.path={tmp_path}/drifters*.nc", "--out", str(tmp_path / "store")
    )
    assert "1 trajectories go on in another file, and no segment crosses from one file to the next" in message
    assert "No track holds" not in message


def test_fixes_at_another_step_than_configured_are_refused_with_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files(tmp_path, [fields.walk(1, 33.0, -37.0, n=29, step=21_600)])
    message = refused(capsys, 1, path, "--out", str(tmp_path / "store"))
    assert "fixes are mostly 21600 s apart, but segment.step is 3600 s. Set segment.step: 21600s" in message
    assert not (tmp_path / "store").exists()
    assert main([path, "--out", str(tmp_path / "store"), "--set", "segment.step=21600s"]) == 0


def test_a_window_narrower_than_the_reach_of_the_drifters_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks = [two_days(k, START + 3600 * k, speed=2.0) for k in range(8)]
    tracks += [two_days(50 + k, lon=90.0) for k in range(30)]  # elsewhere: they tell nothing about the window
    path = files(tmp_path, tracks, window={"half_width_deg": 0.3})
    message = refused(capsys, 2, path, "--out", str(tmp_path / "store"))
    assert "window.half_width_deg is 0.3, smaller than the drifters' reach" in message
    assert "of 8 tracks leave their window in 2 days" in message


def test_one_track_in_ten_that_leaves_its_window_is_refused_unless_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks = [two_days(k, START + 3600 * k, speed=0.1) for k in range(9)] + [two_days(9, speed=2.0)]
    path = files(tmp_path, tracks, window={"half_width_deg": 0.6})
    message = refused(capsys, 2, path, "--out", str(tmp_path / "store"))
    assert "1 of 10 tracks leave their window in 2 days, more than window.max_leaving (0.01)" in message
    store = fields.make(path, tmp_path / "store", "--set", "window.max_leaving=0.1")
    assert fields.funnel(store)["inside the record"] == (9, {windows.TRACK_LEAVES: 1})


def test_the_width_that_the_message_asks_for_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracks = [two_days(k, START + 3600 * k, speed=1.0) for k in range(8)]
    path = files(tmp_path, tracks, window={"half_width_deg": 0.05})
    message = refused(capsys, 2, path, "--out", str(tmp_path / "store"))
    asked = message.split("half_width_deg to ")[1].split(" ")[0]
    assert main([path, "--out", str(tmp_path / "store"), "--set", f"window.half_width_deg={asked}"]) == 0


def test_currents_on_two_grids_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coarse = fields.save(fields.field(30 + 0.5 * np.arange(15), LAT[::2], 8), tmp_path / "coarse.nc")
    fine = fields.save(fields.field(LON, LAT, 8), tmp_path / "fine.nc")
    path = sources.save(sources.ragged([two_days(1)]), tmp_path / "drifters.nc")
    message = refused(
        capsys, 2, fields.manifest(tmp_path, path, [fine, coarse], **TREE), "--out", str(tmp_path / "store")
    )
    assert "coarse.nc: steps of 86400 s, 0.5 x 0.5 degrees" in message


def test_every_stage_of_the_funnel_accounts_for_the_one_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    tracks = []
    for k in range(60):
        track = two_days(k, START + 3600 * int(rng.integers(-30, 190)), rng.uniform(30, 37), rng.uniform(-40, -34),
                         days=int(rng.integers(1, 7)), speed=float(rng.choice([0.2, 1.5])))  # fmt: skip
        n = len(track.time)
        lost = int(rng.integers(n // 2, 3 * n))
        track.drogue[lost:] = 0
        track.gap[rng.random(n) < 0.003] = 1e5
        track.lat[rng.random(n) < 0.002] = np.nan
        tracks.append(track)
    raw = fields.field(LON, LAT, 12, kind="float64", land=[(slice(0, 8), slice(0, 8))])
    raw["ugos"].values[4, 15:20, 20:24] = np.nan
    path = fields.manifest(
        tmp_path,
        sources.save(sources.ragged(tracks), tmp_path / "drifters.nc"),
        fields.save(raw, tmp_path / "currents.nc"),
        **TREE,
    )
    store = fields.make(path, tmp_path / "store")
    stages = {stage.name: stage for stage in store.manifest.funnel}
    assert [stage.unit for stage in stages.values()] == 4 * ["fixes"] + 2 * ["segments"] + ["samples"]
    total = sum(len(track.time) for track in tracks)
    counts = {name: stage.kept + sum(stage.dropped.values()) for name, stage in stages.items()}
    assert counts["fixes"] == total
    assert counts["drogued"] == stages["fixes"].kept
    assert counts["gap-free"] == stages["drogued"].kept
    assert counts["in whole segments"] == stages["gap-free"].kept
    assert stages["in whole segments"].kept <= 49 * counts["segments"]
    assert stages["in whole segments"].kept >= 48 * counts["segments"]
    assert counts["inside the record"] == stages["segments"].kept
    assert counts["samples"] == stages["inside the record"].kept == len(store)
    assert stages["samples"].kept == (store.labels["split"] >= 0).sum()
    assert all(stage.dropped for name, stage in stages.items() if name != "segments")


# What is lost to one reason, and what to do about it


def notes(path: str, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """Warnings of a dry run that must succeed."""
    capsys.readouterr()
    assert main([path, "--out", "unused", "--dry-run", "--json", *options]) == 0
    told = fields.only_json(capsys.readouterr().out)["notes"]
    return [note for note in told if note.startswith("WARNING") and "lost to one reason" in note]


def test_a_period_that_does_not_fit_says_both_periods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = files(tmp_path, [two_days(k, START + 3600 * k) for k in range(4)])
    message = refused(capsys, 1, path, "--out", str(tmp_path / "store"), "--set", "period.end=2015-06-01")
    assert "4 of 4 segments, 'outside the manifest's period'" in message.replace('"', "'")
    assert "the manifest's period is open to 2015-06-01" in message
    assert "Segments start from 2016-02-28T00:00:00 to 2016-02-28T03:00:00" in message
    assert "the currents' levels run from 2016-02-28T00:00:00 to 2016-03-06T00:00:00" in message
    assert "swapped" not in message
    assert main([path, "--out", str(tmp_path / "store"), "--set", "period.end=2016-03-01"]) == 0


def test_a_latitude_cap_that_drops_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = files(tmp_path, [two_days(k) for k in range(3)], window={"half_width_deg": 1.0, "max_latitude": 30})
    message = refused(capsys, 1, path, "--out", str(tmp_path / "store"))
    assert "They are centred from lat -37." in message
    assert "window.max_latitude is 30: raise it" in message
    assert "currents' levels" not in message
    assert main([path, "--out", str(tmp_path / "store"), "--set", "window.max_latitude=40"]) == 0


def test_currents_that_cover_few_of_the_drifters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracks = [two_days(k) for k in range(3)] + [two_days(10 + k, lon=50.0 + k) for k in range(5)]
    (note,) = notes(files(tmp_path, tracks), capsys)
    assert "5 of 8 segments are lost to one reason, 'window leaves the domain of the currents'." in note
    assert "Segments lie in lon 50.00 to 54.00, lat -37.00 to -37.00" in note
    assert "covers lon 30.00 to 37.00, lat -40.00 to -34.00" in note
    assert "swapped" not in note
    assert notes(files(tmp_path, tracks[:3] + tracks[-3:]), capsys) == []  # half is not more than half


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda t: dataclasses.replace(t, lon=t.lat, lat=t.lon), "lat and lon may be swapped"),
        (lambda t: dataclasses.replace(t, lon=-t.lon), "they may be positive west"),
        (lambda t: dataclasses.replace(t, lat=-t.lat), "they may be positive south"),
        (lambda t: dataclasses.replace(t, lon=t.lon + 60), None),
    ],
)
def test_positions_that_are_misread_are_told_by_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: Any, said: str | None
) -> None:
    path = files(tmp_path, [wrong(two_days(k)) for k in range(4)])
    message = refused(capsys, 1, path, "--out", str(tmp_path / "store"))
    assert ("4 of 4 segments would lie on the grid" in message) == (said is not None)
    assert (said or "Give currents that cover the drifters") in message
    assert message.count(" may be ") == (said is not None)


def test_drogues_that_are_lost_are_spoken_of_calmly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracks = [two_days(k, days=6) for k in range(4)]
    for track in tracks:
        track.drogue[60:] = 0
    path = files(tmp_path, tracks, 12)
    (note,) = notes(path, capsys)
    assert note.startswith("WARNING: 340 of 580 fixes are lost to one reason, 'drogue lost'.")
    assert "normal for the Global Drifter Program" in note
    assert "nothing need be done" in note
    for track in tracks:
        track.drogue[60:] = -1
    (note,) = notes(files(tmp_path, tracks, 12), capsys)
    assert "'drogue unknown'. The source does not say whether they have their drogue" in note
    for track in tracks:
        track.drogue[:] = 0
    message = refused(capsys, 1, files(tmp_path, tracks, 12), "--out", str(tmp_path / "store"))
    assert "580 of 580 fixes, 'drogue lost': drifters.drogue: on keeps the fixes with drogue alone" in message


def test_the_advice_is_about_what_ended_it_and_about_what_was_lost_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks = [two_days(k, START + 90 * DAY, days=6) for k in range(3)]
    for track in tracks:
        track.drogue[60:] = -1
    message = refused(capsys, 1, files(tmp_path, tracks), "--out", str(tmp_path / "store"))
    ended = message.index("3 of 3 segments, 'outside the period of the currents': Segments start from 2016-05-28")
    assert ended < message.index("255 of 435 fixes, 'drogue unknown': The source does not say")


def test_a_longer_step_than_the_drifters_is_no_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracks = [two_days(k, START + 3 * DAY) for k in range(3)]
    assert not notes(files(tmp_path, tracks, 12, segment={"days": 2, "step": "6h"}), capsys)


def test_fixes_that_flags_condemn_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracks = [two_days(k, START + 3 * DAY) for k in range(5)]
    table = sources.ragged(tracks)
    table["position_qc"] = ("obs", np.repeat([4, 4, 4, 1, 1], 49).astype(np.int8))
    manifest = files(tmp_path, tracks, 12)
    sources.save(table, tmp_path / "drifters.nc")
    (note,) = notes(manifest, capsys)
    assert "147 of 245 fixes are lost to one reason, 'position flagged as bad'" in note


def test_every_reason_has_advice() -> None:
    of_fixes = {*fixes.REASONS, *clock.REASONS, funnel.LOST, funnel.ON, funnel.UNKNOWN, funnel.GAP}
    assert set(advice.OF_FIXES) == of_fixes | set(segments.LEFT_OVER[1:])
    assert set(fixes.REASONS) == {
        *("position out of its valid range", "time missing", "position missing", "beyond rowsize", "duplicate time"),
        *("position flagged as bad", "time flagged as bad", "several drifters under one id"),
        "position 0, 0 out of reach of the fixes around it",
    }
    assert {*planning.REASONS[1:]}.isdisjoint(advice.OF_FIXES)
    assert set(STATUS[1:]) == set(advice.OF_SAMPLES)


@pytest.mark.parametrize("what", ["position", "time"])
def test_flags_that_take_most_fixes_are_warned_of(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks = [two_days(k, days=6) for k in range(4)]
    path = files(tmp_path, tracks, 12)
    data = sources.ragged(tracks)
    data[f"{what}_qc"] = ("obs", np.tile(np.where(np.arange(145) < 60, 1, 4).astype(np.int8), 4))
    sources.save(data, tmp_path / "drifters.nc")
    (note,) = notes(path, capsys)
    assert note.startswith(f"WARNING: 340 of 580 fixes are lost to one reason, '{what} flagged as bad'. ")
    assert "flags are other than 0, 1 and 2" in note


def test_fixes_that_are_more_often_than_a_step_are_no_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracks = [fields.walk(k, 33.5, -37.0, n=6 * 49, step=600) for k in range(4)]
    path = files(tmp_path, tracks, 12)
    assert notes(path, capsys) == []
    main([path, "--out", str(tmp_path / "store"), "--dry-run"])
    assert "lie between the steps of a clock of 3600 s and are not used" in capsys.readouterr().err


# Windows that cannot be used


def gappy(folder: Path, share: float, levels: int = 30, days: float = 2.0, **options: Any) -> str:
    """A manifest with currents whose cells are missing at times, as those of a radar."""
    folder.mkdir(exist_ok=True)
    raw = fields.field(LON, LAT, levels, kind="float64")
    rng = np.random.default_rng(4)
    for level in range(levels):
        if options.get("every") or rng.random() < share:
            gone = rng.random((len(LAT), len(LON))) < (share if options.get("every") else 0.3)
            raw["ugos"].values[level][gone] = np.nan
    tracks = [two_days(k, START + 3600 * 7 * k) for k in range(60)]
    return fields.manifest(
        folder,
        sources.save(sources.ragged(tracks), folder / "drifters.nc"),
        fields.save(raw, folder / "currents.nc"),
        **(TREE | {"segment": {"days": days}}),
    )


def test_gaps_that_planning_has_not_seen_are_spoken_of_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks = [two_days(k, START + DAY * k) for k in range(30)]
    raw = fields.field(LON, LAT, 40, kind="float64")
    unseen = np.setdiff1d(np.arange(40), land_levels(START + DAY * np.arange(40)))
    raw["ugos"].values[unseen, ::3, ::3] = np.nan
    path = fields.manifest(
        tmp_path,
        sources.save(sources.ragged(tracks), tmp_path / "drifters.nc"),
        fields.save(raw, tmp_path / "currents.nc"),
        **TREE,
    )
    message = refused(capsys, 1, path, "--out", str(tmp_path / "store"))
    assert message.startswith(
        f"error: no window can be used. 30 of 30 windows, '{STATUS[1]}': Their windows hold cells that have a current"
    )


def test_currents_with_gaps_everywhere_are_refused_in_the_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = gappy(tmp_path / "input", 0.4, every=True)
    for option in (["--dry-run"], []):
        message = refused(capsys, 1, path, "--out", str(tmp_path / "store"), *option)
        assert "no window can be used. fixes: 2940 fixes;" in message
        assert (
            f"60 of 60 windows, '{STATUS[1]}': Their windows hold cells that have a current at other times" in message
        )
        assert "smaller window.half_width_deg" in message
    assert not (tmp_path / "store").exists()


def test_currents_with_some_gaps_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = gappy(tmp_path / "input", 0.25)
    assert main([path, "--out", str(tmp_path / "store"), "--dry-run", "--json"]) == 0
    told = fields.only_json(capsys.readouterr().out)
    (note,) = [note for note in told["notes"] if "cannot be used" in note]
    least = int(note.split("at least ")[1].split(" ")[0])
    store = fields.make(path, tmp_path / "store")
    unusable = int((store.labels["status"] == 1).sum())
    assert 0.5 * unusable < least <= unusable < 60
    lost = [note for note in store.manifest.notes if "lost to one reason" in note]
    assert bool(lost) == (unusable > 30)


def test_a_trial_tells_of_gaps_on_levels_that_planning_does_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = fields.field(LON, LAT, 60, kind="float64")
    others = np.setdiff1d(np.arange(60), land_levels(raw.time.values))
    raw["ugos"].values[others, ::3] = np.nan
    tracks = [two_days(k, START + 3600 * 30 * k) for k in range(40)]
    path = fields.manifest(
        tmp_path,
        sources.save(sources.ragged(tracks), tmp_path / "drifters.nc"),
        fields.save(raw, tmp_path / "currents.nc"),
        **TREE,
    )
    assert main([path, "--out", str(tmp_path / "store"), "--dry-run", "--json"]) == 0
    told = fields.only_json(capsys.readouterr().out)
    assert not [note for note in told["notes"] if "cannot be used" in note]
    n = told["estimate"]["trial"]
    assert told["estimate"]["trial_unusable"] == {STATUS[1]: n}
    assert main([path, "--out", str(tmp_path / "store"), "--dry-run"]) == 0
    assert f"WARNING: {n} of these {n} windows cannot be used, '{STATUS[1]}'. Their windows" in capsys.readouterr().err


@pytest.mark.parametrize("west", [30.0, -180.0])
def test_windows_known_to_be_unusable_are_so_when_cut(tmp_path: Path, west: float) -> None:
    """With all levels looked at, on a periodic grid too, the count is exact."""
    lon = LON if west == 30.0 else west + 0.5 * np.arange(720)
    lat = LAT if west == 30.0 else -45 + 0.5 * np.arange(31)
    raw = fields.field(lon, lat, 12, kind="float64")
    place = [(33.5, -37.0)] if west == 30.0 else [(179.7, -37.0), (-179.6, -36.0), (12.0, -37.0), (-90.0, -38.0)]
    for level, name, value, (east, north) in ((2, "vgos", np.nan, place[0]), (8, "ugos", 3.5, place[-1])):
        column, row = round((east - lon[0]) / (lon[1] - lon[0])), round((north - lat[0]) / (lat[1] - lat[0]))
        raw[name].values[level, row, column] = value
        raw[name].values[level + 1, 1, column] = value  # beyond the windows, to the south
    tracks = [
        two_days(k, START + 3600 * 4 * k, lon=place[k % len(place)][0], lat=place[k % len(place)][1]) for k in range(40)
    ]
    path = fields.manifest(
        tmp_path,
        sources.save(sources.ragged(tracks), tmp_path / "drifters.nc"),
        fields.save(raw, tmp_path / "currents.nc"),
        **TREE,
    )
    recipe = Recipe.model_validate(settings.read_yaml(path))
    build = planned(recipe, tmp_path / "store", tmp_path / "tracks", False)
    known = gaps.known(build.plan, build.currents)
    store = fields.make(path, tmp_path / "store")
    status = store.labels["status"]
    counts = {STATUS[code]: int((status == code).sum()) for code in (1, 2) if (status == code).any()}
    assert known.unusable == counts
    assert 0 < sum(counts.values()) < len(store)
