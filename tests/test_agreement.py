"""Currents against drifters: statistics against closed forms and brute force, encounters of known fields, warnings."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from benchmarks import mistakes
from driftcal.preprocess.__main__ import main
from driftcal.preprocess.drift import candidates, encounters
from driftcal.preprocess.drift import plan as planning
from driftcal.preprocess.drift.agreement import FEWEST, compare
from driftcal.preprocess.drift.encounters import Encounters
from driftcal.preprocess.made.twin import make
from driftcal.preprocess.recipe import Recipe, Synthetic
from driftcal.preprocess.sources.drifters.drifters import open_drifters
from driftcal.preprocess.sources.gridded import open_currents
from driftcal.preprocess.sources.gridded.remarks import Blank
from driftcal.shared import geo
from driftcal.shared.__main__ import main as inspect
from driftcal.shared.errors import StoreError
from driftcal.shared.store import manifest
from driftcal.shared.store.agreement import Agreement
from driftcal.shared.store.reader import ShardStore
from tests import fields, sources, stores
from tests.fields import DAY, START


def met(
    n_drifters: int = 24, each: int = 5, seed: int = 0, days: int = 3, noise: float = 0.0, still: float = 0.0
) -> Encounters:
    """Encounters whose drifters follow the currents but for noise; currents a day earlier and later differ a little."""
    rng = np.random.default_rng(seed)
    n = n_drifters * each
    drifter = np.repeat(np.arange(n_drifters), each)
    flow = rng.normal(0, 0.3, (n, 2)) @ [1, 1j] + 0.05 - 0.02j
    change = rng.normal(0, 0.06, (n, 2)) @ [1, 1j]
    current = np.stack([flow - change, flow, flow + change], axis=1)
    track = flow + noise * rng.normal(0, 0.3, (n, 2)) @ [1, 1j]
    time = START + DAY * days * np.tile(np.arange(each), n_drifters)
    return Encounters(drifter, time, track, current, np.full(n, still), DAY, DAY, each)


def changed(of: Encounters, **values: Any) -> Encounters:
    return Encounters(**{**of.__dict__, **values})


# Statistics


@pytest.mark.parametrize(("scale", "angle"), [(1.0, 0.0), (0.8, 25.0), (1.3, -40.0), (0.02, 10.0)])
def test_drifters_that_are_the_currents_scaled_and_turned(scale: float, angle: float) -> None:
    of = met()
    turn = scale * np.exp(1j * np.radians(angle))
    found = compare(changed(of, track=turn * of.current[:, 1])).figures
    assert found.correlation == pytest.approx(1.0)
    assert found.angle == pytest.approx(angle, abs=1e-9)
    assert found.factor == pytest.approx(scale * np.cos(np.radians(angle)), rel=1e-3)
    assert found.inverse_factor == pytest.approx(np.cos(np.radians(angle)) / scale, rel=1e-3)
    assert found.speed_ratio == pytest.approx(scale, rel=1e-3)
    assert found.correlation_margin == pytest.approx(0, abs=1e-9)
    assert (found.encounters, found.drifters, found.independent, found.levels) == (120, 24, 24, 5)
    assert found.drifter_speed == pytest.approx(scale * found.current_speed, rel=1e-3)


def test_correlation_and_its_margin_are_those_of_brute_force() -> None:
    of = met(noise=0.7, seed=3)

    def by_hand(rows: np.ndarray) -> tuple[float, float]:
        vx, vy = of.track[rows].real, of.track[rows].imag
        ux, uy = of.current[rows, 1].real, of.current[rows, 1].imag
        size = np.sqrt((vx**2 + vy**2).sum() * (ux**2 + uy**2).sum())
        # Kundu (1976): real part of the inner product and its cross part
        along, across = (ux * vx + uy * vy).sum() / size, (ux * vy - uy * vx).sum() / size
        return float(np.hypot(along, across)), float(np.degrees(np.arctan2(across, along)))

    every = np.arange(len(of.track))
    without = np.array([by_hand(every[of.drifter != k]) for k in range(24)])
    error = np.sqrt(23 / 24 * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    found = compare(of).figures
    value = by_hand(every)
    bound = stats.t.ppf(0.975, 23)
    assert (found.correlation, found.angle) == pytest.approx(value, rel=1e-3)
    assert (found.correlation_margin, found.angle_margin) == pytest.approx(bound * error, rel=1e-3)
    assert 0.5 < found.correlation < 0.95


def test_margins_cover_the_truth() -> None:
    # the factor's truth is 1: noise is in the drifters alone
    inside = [compare(met(noise=1.0, seed=seed)).figures for seed in range(200)]
    share = np.mean([abs(found.factor - 1) <= found.factor_margin for found in inside])
    assert 0.9 < share < 0.99


@pytest.mark.parametrize("lag", [-0.5, 0.0, 0.1, 0.5])
def test_the_lag_of_a_field_that_changes_smoothly(lag: float) -> None:
    # waves with a period of 12 days: the field at t, for drifters that feel it at t - lag
    rng = np.random.default_rng(5)
    n = 600
    phase, size = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.1, 0.4, n)
    at = [size * np.exp(1j * (phase + 2 * np.pi * shift / 12)) for shift in (1.0, 0.0, -1.0)]
    # currents whose times are a day later are those of the day before
    current = np.stack(at, axis=1)
    track = size * np.exp(1j * (phase - 2 * np.pi * lag / 12)) + 0.1 * rng.normal(0, 0.3, (n, 2)) @ [1, 1j]
    of = Encounters(np.arange(n) % 60, START + DAY * (np.arange(n) // 60), track, current, np.zeros(n), DAY, DAY, 10)
    found = compare(of)
    assert found.figures.lag_hours == pytest.approx(24 * lag, abs=1.5)
    assert found.figures.lag_reach == 24
    told = [text for text in found.warnings if "best when their times are" in text]
    assert len(told) == (abs(lag) >= 0.5)
    if told:
        way, other = ("later", "earlier") if lag > 0 else ("earlier", "later")
        said = re.search(rf"12 h {way} \(correlation (\S+) at 24 h {other}, (\S+) as .*, (\S+) at 24 h {way};", told[0])
        assert said is not None
        assert float(said[1]) < float(said[2])
        assert float(said[2]) == pytest.approx(float(said[3]), abs=0.01)  # half way between them


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda u: u.conj(), "the northward component has the wrong sign"),
        (lambda u: -u.conj(), "the eastward component has the wrong sign"),
        (lambda u: 1j * u.conj(), "eastward and northward are exchanged. Check"),
        (lambda u: -1j * u.conj(), "eastward and northward are exchanged, and both have the wrong sign"),
        (lambda u: -u, "both components have the wrong sign. Check"),
        (lambda u: 1j * u, "the components are exchanged and one has the wrong sign"),
        (lambda u: 0.01 * u, "the currents are too slow for 24 drifters: multiplied by 99"),
        (lambda u: u * 3.6, "the currents are too fast for 24 drifters: multiplied by 0.2"),
        (lambda u: np.roll(u, 31, axis=0), "the currents explain next to nothing of how 24 drifters move"),
    ],
)
def test_currents_that_cannot_be_right_are_warned_of(wrong: Any, said: str) -> None:
    of = met(noise=0.3)
    assert compare(of).warnings == ()
    warned = compare(changed(of, current=wrong(of.current))).warnings
    assert len(warned) == 1
    assert warned[0].startswith("WARNING: ")
    assert said in warned[0]


@pytest.mark.parametrize("scale", [0.75, 1.0, 1.4])
def test_currents_that_are_only_somewhat_off_are_not(scale: float) -> None:
    of = met(noise=0.5)
    assert compare(changed(of, current=scale * of.current)).warnings == ()


@pytest.mark.parametrize(
    ("drifters", "each", "days", "independent"),
    [(1, 5, 1, 1), (1, 9, 12, 9), (4, 3, 3, 4), (4, 5, 6, 12), (9, 2, 3, 9), (10, 5, 12, 10), (30, 5, 12, 30)],
)
def test_few_drifters_count_by_stretches_of_ten_days(drifters: int, each: int, days: int, independent: int) -> None:
    of = met(drifters, each, days=days)
    reversed_ = compare(changed(of, current=-of.current))
    assert reversed_.figures.independent == independent
    assert (reversed_.figures.correlation_margin is None) == (independent < FEWEST)
    assert bool(reversed_.warnings) == (independent >= FEWEST)
    lines = dict(reversed_.figures.lines())
    assert ("which says" in lines) == (independent < FEWEST)


def test_currents_that_are_exactly_0() -> None:
    of = met()
    assert compare(changed(of, still=np.full(120, 0.005))).warnings == ()
    day = of.time == of.time[3]
    (text,) = compare(changed(of, still=np.where(day, 1.0, 0.0))).warnings
    assert "20 % of the currents at the drifters are exactly 0; on the levels 2016-03-08T00:00. " in text


@pytest.mark.parametrize("of", [met(0), changed(met(6), current=np.full((30, 3), np.nan))])
def test_nothing_to_compare(of: Encounters) -> None:
    found = compare(of)
    assert found.warnings == ()
    assert found.figures.encounters == 0
    assert "nothing" in found.figures.lines()[0][1]


def test_currents_without_motion() -> None:
    of = met()
    found = compare(changed(of, current=0 * of.current))
    assert found.figures.correlation is None
    assert found.figures.lines()[-1][0] == "speed"


# Encounters


def linear(lon: np.ndarray, lat: np.ndarray, time: np.ndarray) -> np.ndarray:
    """A current [m/s] that is linear in degrees and days, complex."""
    day = (time - START) / DAY
    return 0.11 + 0.02 * (lon - 33) - 0.013 * day + 1j * (-0.07 + 0.03 * (lat + 37) + 0.008 * day - 0.01 * (lon - 33))


def encountered(folder: Path, step: int, lon: np.ndarray, tracks: list[sources.Track]) -> Encounters:
    """What drifters meet of the linear field, given on longitudes `lon` every `step` seconds for nine days."""
    lat = -40 + 0.25 * np.arange(25)
    raw = fields.field(lon, lat, 9 * DAY // step + 1, kind="float64", step=step)
    time = START + step * np.arange(raw.sizes["time"])
    value = linear(33 + (lon - lon[0]) - 3, lat[:, None], time[:, None, None])
    raw["ugos"].values[:], raw["vgos"].values[:] = value.real, value.imag
    path = fields.manifest(
        folder, sources.save(sources.ragged(tracks), folder / "d.nc"), fields.save(raw, folder / "c.nc")
    )
    tree = {"drifters": {"path": str(folder / "d.nc")}, "currents": {"path": str(folder / "c.nc")}}
    assert path
    recipe = Recipe.model_validate(
        tree | {"split": fields.whole(), "segment": {"days": 3}, "window": {"half_width_deg": 1.0}}
    )
    currents = [open_currents.open_currents(source) for source in recipe.currents]
    found = candidates.survey(recipe, [open_drifters(source) for source in recipe.drifters], folder / "tracks", False)
    plan = planning.plan(recipe, found, folder / "tracks", currents)
    return encounters.meet(plan, found, folder / "tracks", currents)


@pytest.mark.parametrize("step", [DAY, DAY // 4, 3600])
@pytest.mark.parametrize("west", [30.0, 176.5])
def test_what_drifters_meet_of_a_linear_field(tmp_path: Path, step: int, west: float) -> None:
    lon = west + 0.25 * np.arange(29)
    rng = np.random.default_rng(2)
    tracks, course = [], {}
    for k in range(7):
        hours = np.arange(73)
        start = START + 3600 * int(rng.integers(25, 96))
        speed = rng.uniform(-0.004, 0.004, 2)  # degrees an hour
        lon0, lat0 = rng.uniform(2.7, 3.3), -37 + rng.uniform(-0.3, 0.3)
        course[k] = start, lon0, lat0, speed
        east = (west + lon0 + speed[0] * hours + 180) % 360 - 180
        tracks.append(
            sources.Track(
                k, start + 3600 * hours, east, lat0 + speed[1] * hours, np.ones(73, np.int8), np.full(73, 1.0)
            )
        )
    of = encountered(tmp_path, step, lon, tracks)
    assert of.window == DAY
    assert of.lag == (DAY if step == DAY else DAY // 2)
    assert len(np.unique(of.drifter)) == 7
    assert np.isfinite(of.current).all(axis=1).sum() >= (7 if step == DAY else 14)
    for drifter, time, track, current in zip(of.drifter, of.time, of.track, of.current, strict=True):
        start, lon0, lat0, speed = course[int(drifter)]
        hours = (time - start) / 3600
        assert 12 <= hours <= 60
        here = lon0 + speed[0] * hours, lat0 + speed[1] * hours
        per_hour = geo.METRES_PER_DEGREE / 3600
        along = (speed[0] * np.cos(np.radians(here[1])) + 1j * speed[1]) * per_hour
        assert track == pytest.approx(along, abs=2e-5)
        for shift, value in zip((-1, 0, 1), current, strict=True):
            if np.isfinite(value):
                # times a lag later: what is stamped a lag earlier
                assert value == pytest.approx(linear(30 + here[0], here[1], time - shift * of.lag), abs=1.5e-4)
    assert not of.still.any()


def test_a_level_of_zeros_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "driftcal.preprocess.sources.gridded.currents.remove_blanks", lambda *_: Blank()
    )  # the reader takes them for missing
    path = Path(fields.small(tmp_path / "input"))
    with xr.open_dataset(tmp_path / "input/currents.nc", decode_cf=False) as dataset:
        raw = dataset.load()
    raw["ugos"].values[1], raw["vgos"].values[1] = 0, 0
    raw.to_netcdf(tmp_path / "input/currents.nc", mode="a")
    store = fields.make(str(path), tmp_path / "store")
    found = store.manifest.agreement
    assert found is not None
    assert found.zero_share == 1.0
    (note,) = [note for note in store.manifest.notes if "exactly 0" in note]
    assert "on the levels 2016-02-29T00:00" in note


# In the commands and in the store


def test_the_figures_are_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fields.small(tmp_path / "input")
    assert main([path, "--out", str(tmp_path / "store"), "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["agreement"]
    assert main([path, "--out", str(tmp_path / "store"), "--dry-run"]) == 0
    text = capsys.readouterr()
    assert "currents against drifters" in text.out + text.err
    store = fields.make(path, tmp_path / "store")
    held = store.manifest.agreement
    assert held is not None
    assert held.as_json() == planned
    assert held.encounters > 0
    capsys.readouterr()
    assert inspect(["show", str(tmp_path / "store"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agreement"] == planned
    assert inspect(["show", str(tmp_path / "store")]) == 0
    shown = capsys.readouterr().out
    assert f"compared     {held.encounters} means over 24 h of 6 drifters" in shown
    assert inspect(["verify", str(tmp_path / "store")]) == 0


def test_figures_are_the_same_however_the_store_is_made(tmp_path: Path) -> None:
    path = fields.small(tmp_path / "input", store={"samples_per_shard": 2})
    for k in (1, 2):
        assert main([path, "--out", str(tmp_path / "parts"), "--parts", f"{k}/2", "--scheduler", "synchronous"]) == 0
    whole = fields.make(path, tmp_path / "whole")
    assert ShardStore(tmp_path / "parts").manifest.agreement == whole.manifest.agreement is not None


def test_stores_without_figures_are_read(built: stores.Built) -> None:
    assert "agreement" not in json.loads((built.path / manifest.NAME).read_text())
    assert manifest.read(built.path).agreement is None


@pytest.mark.parametrize(
    "change",
    [
        {"encounters": "many"},
        {"correlation": "0.5"},
        {"drifters": None},
        {"levels": 1.5},
        {"drifter_speed": None},
        {"angle": None},
        {"lag_reach": None},
    ],
)
def test_figures_that_are_none_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = stores.build(tmp_path / "store", 4).path
    tree = compare(met(noise=0.3)).figures.as_json()

    def give(held: dict[str, Any], figures: dict[str, Any]) -> None:
        content = dict(held)
        held.clear()
        for key, value in content.items():
            if key == "notes":
                held["agreement"] = figures
            if key != "agreement":
                held[key] = value

    stores.rewrite(path, lambda held: give(held, tree))
    assert manifest.read(path).agreement == Agreement(**tree)
    stores.rewrite(path, lambda held: give(held, tree | change))
    with pytest.raises(StoreError, match="not a readable manifest"):
        manifest.read(path)


# Thresholds: twins with mistakes, and real drifters


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, xr.Dataset]:
    """Sixty drifters of thirty days in sixty days of currents, with the faults that drifters have."""
    folder = tmp_path_factory.mktemp("twin")
    make(Synthetic(folder=str(folder), days=60, drifters=60, drifter_days=30.0, lon=(165.0, 195.0), lat=(22.0, 43.0)))
    drifters = xr.open_dataset(folder / "drifters.nc", decode_times=False).load()
    return drifters, xr.open_mfdataset(str(folder / "currents/*.nc"))[["ugos", "vgos"]].load()


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("none", None),
        ("only drifters without drogue", None),
        ("days of exactly 0", "exactly 0"),
        ("grid 5 degrees off", "explain next to nothing"),
        ("unsigned bytes read as signed", "as if both components have the wrong sign"),
        ("one day late", "h or more earlier"),
        ("currents 100 times too slow", "too slow"),
        ("another depth", "too slow"),
        ("v reversed", "the northward component has the wrong sign"),
    ],
)
def test_mistakes_are_warned_of(
    tmp_path: Path, twin: tuple[xr.Dataset, xr.Dataset], mistake: str, said: str | None
) -> None:
    tree = mistakes.write(tmp_path / "files", mistakes.MISTAKES[mistake](*twin))
    if mistake == "only drifters without drogue":
        tree["drifters"]["drogue"] = "lost"
    found = mistakes.figures(tree)
    warned = [note for note in found["warnings"] if "lost to one reason" not in note]
    assert len(warned) == (said is not None)
    assert said is None or said in warned[0]


@pytest.mark.parametrize(("number", "correlation"), [(0, 0.64), (1, 0.94)], ids=["explains little", "explains much"])
def test_one_real_drifter_of_five_days_says_nothing(real_data: Path, number: int, correlation: float) -> None:
    ((_, tree),) = itertools.islice(mistakes.real(real_data)(Path()), number, number + 1)
    found = mistakes.figures(tree)
    assert found["drifters"] == found["independent"] == 1
    assert found["correlation_margin"] is None
    assert found["correlation"] == pytest.approx(correlation, abs=0.02)
    assert found["warnings"] == []
