"""Batches, runs and evaluations on real stores; a small twin from source files to the constant."""

import json
import math

import numpy as np
import pytest
import yaml

from driftcal.preprocess.__main__ import main as preprocess
from driftcal.shared import geo
from driftcal.shared.store.reader import ShardStore
from driftcal.train.__main__ import main as train
from driftcal.train.evaluation import evaluate
from driftcal.train.reading.batches import Grid, batches, load, order
from driftcal.train.settings import Training
from tests import stores
from tests.commands import unwritten_figures

TRUTH = 0.3


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """A small twin: made currents and drifters with C_s = 0.3, preprocessed by the command."""
    folder = tmp_path_factory.mktemp("twin")
    source = folder / "source"
    manifest = {
        "name": "small twin",
        "synthetic": {
            "folder": str(source),
            "cs": TRUTH,
            "seed": 3,
            "drifters": 60,
            "drifter_days": 21,
            "days": 60,
            "clean": True,
            "lon": [170.0, 195.0],
        },
        "drifters": {"path": str(source / "drifters.nc"), "max_speed": 50},
        "currents": {"path": str(source / "currents" / "*.nc")},
        "window": {"half_width_deg": 2.0},
        "split": {"train": 0.8, "validation": 0, "test": 0.2},
    }
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest))
    assert preprocess([str(path), "--out", str(folder / "store")]) == 0
    return folder / "store"


@pytest.fixture(scope="module")
def run(twin):
    """A run on it, from three times too little, and its evaluation on the test drifters."""
    out = twin.parent / "run"
    settings = ["ensemble.members=10", "initial_cs=0.1", "optimizer.curvature_samples=128", "batch_size=32"]
    assert train(["run", str(twin), "--out", str(out), *[f"--set={s}" for s in settings]]) == 0
    assert train(["evaluate", str(out), str(twin), "--split", "test"]) == 0
    return out


def test_the_twin_s_constant_is_recovered(run):
    result = json.loads((run / "result.json").read_text())
    assert result["converged"]
    assert abs(result["log_cs"] - math.log(TRUTH)) < 3 * result["log_cs_standard_error"]
    assert 0 < result["log_cs_standard_error"] < 0.25
    assert result["cs_standard_error"] == pytest.approx(result["cs"] * result["log_cs_standard_error"])
    assert result["cs_interval_90"][0] < result["cs"] < result["cs_interval_90"][1]


def test_result_names_what_it_came_from(run, twin):
    result, store = json.loads((run / "result.json").read_text()), ShardStore(twin)
    train_samples = store.samples_of("train")
    assert result["store"] == store.manifest.digest
    assert result["n_samples"] == len(train_samples)
    assert result["n_drifters"] == len(np.unique(store.labels["drifter"][train_samples]))
    assert "u_x^2 + v_y^2" in result["formula"]
    assert result["poisoned_samples"] == []


def test_metrics_have_a_line_for_every_step(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((run / "result.json").read_text())
    assert [line["step"] for line in lines] == list(range(1, result["steps"] + 1))
    keys = {"step", "epoch", "loss", "cs", "gradient", "samples_per_second", "escaped_members", "poisoned_samples"}
    assert all(keys <= line.keys() for line in lines)
    assert lines[0]["cs"] == pytest.approx(0.1)
    assert lines[0]["gradient"] < 0  # more diffusion is needed than the start has


def test_the_dry_run_foretells_the_members_that_leave(twin, capsys):
    """Within a factor of two of what the ensembles of an evaluation do, at a constant that some of them are lost by."""
    capsys.readouterr()
    assert (
        preprocess([str(twin.parent / "manifest.yaml"), "--out", str(twin.parent / "dry"), "--dry-run", "--json"]) == 0
    )
    foretold = {one["cs"]: one["share"] for one in json.loads(capsys.readouterr().out)["members_leaving"]}
    told = Training.model_validate({"integration": {"step": "1h"}})
    found, _ = evaluate.evaluate(ShardStore(twin), "train", told, 10.0, (), False, 100)
    left = found.scores["calibrated"].escaped_members / (found.n_samples * found.members)
    assert left > 0.03
    assert 0.5 < foretold[10.0] / left < 2.0
    assert foretold[0.1] < 0.01


def test_a_second_run_gives_the_same_constant(run, twin, capsys):
    out = twin.parent / "again"
    settings = json.loads((run / "config.json").read_text())
    config = twin.parent / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    with unwritten_figures():
        assert train(["run", str(twin), "--out", str(out), "--config", str(config), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["log_cs"] == json.loads((run / "result.json").read_text())["log_cs"]
    first, second = ([json.loads(x) for x in (f / "metrics.jsonl").read_text().splitlines()] for f in (run, out))
    for a, b in zip(first, second, strict=True):
        assert (a["loss"], a["gradient"], a["cs"]) == (b["loss"], b["gradient"], b["cs"])


def test_evaluation_ranks_the_calibrated_ensemble_first(run):
    found = json.loads((run / "evaluation.json").read_text())
    assert found["split"] == "test"
    score = {name: facts["energy_score_km"]["mean"] for name, facts in found["scores"].items()}
    assert score["calibrated"] == min(score.values())
    assert score["no motion"] == max(score.values())
    assert found["scores"]["calibrated"][evaluate.ABOVE]["mean"] == 0.0
    gain = score["currents alone"] - score["calibrated"]
    assert found["scores"]["currents alone"][evaluate.ABOVE]["mean"] == pytest.approx(gain)
    spread, error = (np.array(found["spread_and_error"]["calibrated"][k]) for k in ("spread_km", "error_km"))
    assert (np.diff(spread[23::24]) > 0).all()  # from day to day
    assert 0.6 < spread[-1] / error[-1] < 1.6


def test_no_motion_is_scored_by_the_observed_displacement(run, twin):
    store = ShardStore(twin)
    samples = store.samples_of("test")
    track = store.labels["origin"][samples, None] + store.positions.read(samples)
    away = geo.separation(track, track[:, :1])
    found = json.loads((run / "evaluation.json").read_text())["scores"]["no motion"]
    assert found["separation_km"]["mean"] == pytest.approx(away[:, 1:].mean() / 1e3, rel=1e-4)
    assert found["final_separation_km"]["mean"] == pytest.approx(away[:, -1].mean() / 1e3, rel=1e-4)
    steps = geo.separation(track[:, 1:], track[:, :-1])
    index = away[:, 1:].sum(axis=1) / np.cumsum(steps, axis=1).sum(axis=1)
    assert found["liu_skill"]["mean"] == pytest.approx(np.maximum(0, 1 - index).mean(), rel=1e-4)


def test_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    samples = np.arange(5, 905)
    first = order(samples, 3, 1)
    np.testing.assert_array_equal(np.sort(first), samples)
    np.testing.assert_array_equal(first, order(samples, 3, 1))
    assert (first != order(samples, 3, 2)).any()
    assert (first != order(samples, 4, 1)).any()


def test_a_batch_says_where_its_drifters_are(tmp_path):
    stores.build(tmp_path / "store", n_samples=11, seed=2)
    store = ShardStore(tmp_path / "store")
    numbers = np.array([7, 0, 10])
    batch = load(store, numbers, 4, np.dtype(np.float64))
    grid = Grid.of(store.layout)
    step = np.array([grid.lon_step, grid.lat_step])
    lonlat = store.labels["window_corner"][numbers][:, None] + (batch["cell"][:3, None] + batch["track"][:3]) * step
    expected = store.labels["origin"][numbers][:, None] + store.positions.read(numbers)
    np.testing.assert_allclose(lonlat, expected, atol=1e-9)
    assert ((batch["start"] >= 0) & (batch["start"] < 1)).all()
    np.testing.assert_array_equal(
        batch["phase"][:3], (store.labels["start_time"] - store.labels["window_time"])[numbers]
    )
    np.testing.assert_array_equal(batch["currents"][:3], store.currents.read(numbers))
    assert batch["weight"].tolist() == [1, 1, 1, 0]
    np.testing.assert_array_equal(batch["currents"][3], batch["currents"][2])


def test_batches_cover_every_sample_once_in_order(tmp_path):
    stores.build(tmp_path / "store", n_samples=11)
    store = ShardStore(tmp_path / "store")
    numbers = np.array([9, 3, 4, 1, 0, 8, 2])
    seen = list(batches(store, numbers, 3, np.dtype(np.float32)))
    np.testing.assert_array_equal(np.concatenate([part for part, _ in seen]), numbers)
    for part, batch in seen:
        np.testing.assert_array_equal(np.asarray(batch.currents)[: len(part)], store.currents.read(part))
