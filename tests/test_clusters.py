"""Clusters of samples that are not independent: which they are, and that everything with an error is given them."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import yaml

from driftcal.shared.geo import METRES_PER_DEGREE, separation
from driftcal.shared.store.reader import ShardStore
from driftcal.train.__main__ import main
from driftcal.train.fit.standard_errors import estimate, judge
from driftcal.train.reading import clusters
from driftcal.train.reading.clusters import TOGETHER_FOR, TOGETHER_WITHIN, released_with
from driftcal.train.report import evaluation_text, figures_run, report
from driftcal.train.run.run_folder import Run
from driftcal.train.settings import Training
from tests import results, runs, stores

DAY, HOUR = 86_400, 3600
Labels = dict[str, np.ndarray]


def at(*places: tuple[float, float]) -> np.ndarray:
    return np.array(places)


def km_east(lat: float, km: float) -> float:
    """Degrees of longitude of so many km along the great circle, nearly, at `lat`."""
    return km * 1e3 / METRES_PER_DEGREE / np.cos(np.radians(lat))


def test_drifters_released_near_one_another_are_together() -> None:
    inside, outside = km_east(60.0, 24.9), km_east(60.0, 25.1)
    assert released_with(at((5.0, 60.0), (5.0 + inside, 60.0)), np.zeros(2, int)).tolist() == [0, 0]
    assert released_with(at((5.0, 60.0), (5.0 + outside, 60.0)), np.zeros(2, int)).tolist() == [0, 1]
    same = at((5.0, 60.0), (5.0, 60.0))
    assert released_with(same, np.array([0, TOGETHER_FOR])).tolist() == [0, 0]
    assert released_with(same, np.array([0, TOGETHER_FOR + 1])).tolist() == [0, 1]
    # near enough in neither: 24 km and 23 hours are within both limits, although far from either
    assert released_with(at((5.0, 60.0), (5.0 + km_east(60.0, 24), 60.0)), np.array([0, 23 * HOUR])).tolist() == [0, 0]


def test_releases_across_the_antimeridian_and_the_pole_are_together() -> None:
    places = at((179.95, -17.0), (-179.95, -17.0), (180.05, -17.0), (30.0, 89.95), (-150.0, 89.95))
    assert released_with(places, np.zeros(5, int)).tolist() == [0, 0, 0, 3, 3]


def test_releases_link_up() -> None:
    """A line of releases, 20 km and 20 hours apart: one cluster; without one in the middle, two."""
    line = at(*((0.0, 20e3 * k / METRES_PER_DEGREE) for k in range(9)))
    time = 20 * HOUR * np.arange(9)
    shuffled = np.random.default_rng(3).permutation(9)
    assert released_with(line[shuffled], time[shuffled]).tolist() == [0] * 9
    gap = np.delete(np.arange(9), 4)
    assert released_with(line[gap], time[gap]).tolist() == [0, 0, 0, 0, 4, 4, 4, 4]


def test_clusters_of_releases_are_those_of_every_pair() -> None:
    """Against all pairs and a closure by repeated products."""
    rng = np.random.default_rng(5)
    n = 300
    places = np.stack([rng.uniform(178.0, 182.0, n), rng.uniform(-33.0, -30.0, n)], axis=-1)
    places[:, 0] -= 360.0 * (places[:, 0] > 180.0)
    time = rng.integers(0, 12 * DAY, n)
    linked = (separation(places[:, None], places) <= TOGETHER_WITHIN) & (np.abs(time[:, None] - time) <= TOGETHER_FOR)
    for _ in range(9):
        linked = linked @ linked
    expected = linked.argmax(axis=1)  # the first that each is linked to
    assert 50 < len(np.unique(expected)) < 250
    assert released_with(places, time).tolist() == expected.tolist()


def test_twenty_years_of_releases_are_few_pairs() -> None:
    rng = np.random.default_rng(6)
    places = np.stack([rng.uniform(-180.0, 180.0, 20_000), rng.uniform(-60.0, 60.0, 20_000)], axis=-1)
    found = released_with(places, rng.integers(0, 20 * 365 * DAY, 20_000))
    assert len(np.unique(found)) > 19_900


def together(values: Labels, first: np.ndarray) -> None:
    """Moves the samples `first` to the place and time of the first of them, window and all."""
    shift = values["origin"][first[0]] - values["origin"][first]
    earlier = values["start_time"][first[0]] - values["start_time"][first]
    for name, change in (
        ("origin", shift),
        ("window_corner", shift),
        ("start_time", earlier),
        ("window_time", earlier),
    ):
        values[name][first] = values[name][first] + change


def build(path: Path, n: int = 12, first: tuple[int, ...] = (), **more: Any) -> ShardStore:
    """A store whose samples `first` start together."""
    chosen = np.array(first, int)
    change = (lambda values: together(values, chosen)) if first else None
    return ShardStore(stores.build(path, n, change=change, **more).path)


def test_without_joint_releases_a_cluster_is_a_drifter(tmp_path: Path) -> None:
    store = build(tmp_path / "store")
    assert Training().cluster_by == "release"
    assert np.array_equal(clusters.of(store, "release"), store.labels["drifter"])
    assert np.array_equal(clusters.of(store, "drifter"), store.labels["drifter"])


def test_the_first_segment_of_a_drifter_is_its_release(tmp_path: Path) -> None:
    """Samples go round five drifters: 1 and 3 start with samples 1 and 3, of which 1 is unusable."""
    store = build(tmp_path / "first", first=(1, 3))
    assert store.labels["status"][1] > 0
    drifter = store.labels["drifter"]
    assert np.array_equal(clusters.of(store, "release"), np.where(drifter == 3, 1, drifter))
    # later meetings are none of release: samples 6 and 8 are their second ones
    later = build(tmp_path / "later", first=(6, 8))
    assert np.array_equal(clusters.of(later, "release"), drifter)


def test_drifters_of_damaged_labels_are_not_released_together(tmp_path: Path) -> None:
    """Labels that cannot be read are zero: no place and no time."""
    built = stores.build(tmp_path / "store", 12)
    for shard in ("0", "1"):  # the first samples of drifters 0 to 4 among them
        path = built.path / "origin" / "c" / shard / "0"
        path.write_bytes(bytes(len(path.read_bytes())))
    store = ShardStore(built.path, "skip")
    assert len(store.unreadable) == 8
    assert np.array_equal(clusters.of(store, "release")[8:], store.labels["drifter"][8:])


def test_boxes_and_weeks(tmp_path: Path) -> None:
    week = 7 * DAY
    origin = at((1.0, 1.0), (4.9, 4.9), (5.1, 4.9), (-0.1, 1.0), (1.0, -0.1), (1.0, 1.0), (1.0, 1.0), (361.0, 1.0))
    time = 100 * week + np.array([0, week - 1, 0, 0, 0, week, -1, 5])

    def change(values: Labels) -> None:
        values["origin"][:], values["start_time"][:] = origin, time

    store = ShardStore(stores.build(tmp_path / "store", 8, change=change).path)
    found = clusters.of(store, "box-and-week")
    assert len(np.unique(found)) == 6
    assert found[0] == found[1] == found[7]
    assert len({found[k] for k in (0, 2, 3, 4, 5, 6)}) == 6


def test_identical_drifters_of_one_cluster_count_once() -> None:
    """Eight copies of each of 40 drifters: clustered, the variance is that of 40; apart, an eighth of it."""
    rng = np.random.default_rng(8)
    one = rng.standard_normal((40, 1))
    gradient, cluster = np.repeat(one, 8, axis=0), np.repeat(np.arange(40), 8)
    drifter, curvature = np.arange(320), np.array([[2.0]])

    def found(gradient: np.ndarray, cluster: np.ndarray, drifter: np.ndarray | None = None) -> Any:
        return estimate(np.zeros(1), np.zeros(1), gradient[:, 0] ** 2, gradient, cluster, curvature, True, {}, drifter)

    alone, copies, apart = found(one, np.arange(40)), found(gradient, cluster, drifter), found(gradient, drifter)
    assert copies.standard_error == pytest.approx(one.std(ddof=1) / np.sqrt(40) / 2)
    assert copies.standard_error == pytest.approx(alone.standard_error)
    assert copies.degrees == pytest.approx(39)
    assert (copies.n_clusters, copies.n_drifters, copies.n_samples) == (40, 320, 320)
    assert (apart.n_clusters, apart.n_drifters) == (320, 320)
    assert copies.standard_error / apart.standard_error == pytest.approx(np.sqrt(8 * 319 / 320 * 40 / 39))
    together = found(gradient, np.zeros(320, int), drifter)
    assert together.standard_error is None
    assert "320 drifters in 1 cluster give it no standard error" in together.explain("log C_s")
    assert "a single drifter gives" in found(gradient, np.zeros(320, int)).explain("log C_s")


def test_the_check_of_many_parameters_takes_clusters() -> None:
    rng = np.random.default_rng(9)
    gradient = np.repeat(rng.standard_normal((200, 50)), 8, axis=0)
    cluster = np.repeat(np.arange(200), 8)
    told = np.ones(1600), gradient
    once = judge(np.zeros(50), np.ones(200), gradient[::8], np.arange(200), {})
    copies = judge(np.zeros(50), *told, cluster, {}, np.arange(1600))
    assert copies.ratio == pytest.approx(once.ratio)
    assert (copies.n_clusters, copies.n_drifters) == (200, 1600)
    assert judge(np.zeros(50), *told, np.arange(1600), {}).ratio == pytest.approx(8 * once.ratio, rel=0.01)


def run(store: Path, out: Path, *more: str) -> dict[str, Any]:
    """A run with all that it leaves."""
    (out.parent / "tiny.yaml").write_text(yaml.safe_dump(runs.TINY))
    with mock.patch.object(figures_run, "render", return_value={"png": b"\x89PNG" + bytes(16), "pdf": b"%PDF"}):
        assert main(["run", str(store), "--out", str(out), "--config", str(out.parent / "tiny.yaml"), *more]) == 0
    names = ("result.json", "evaluation.json", "groups.json")
    return {name[:-5]: json.loads((out / name).read_text()) for name in names if (out / name).exists()}


def errors_in(tree: Any) -> list[Any]:
    """All standard errors and intervals of a file, whatever their depth."""
    if isinstance(tree, list):
        return [found for part in tree for found in errors_in(part)]
    if not isinstance(tree, dict):
        return []
    found = []
    for key, value in tree.items():
        if key.endswith(("_error", "interval_90")) and not isinstance(value, dict):
            found += value if key == "gradient_error" else [value]
        else:
            found += errors_in(value)
    return found


def test_drifters_that_were_all_released_together_give_no_error_anywhere(tmp_path: Path) -> None:
    store = build(tmp_path / "store", 20, first=(0, 1, 2, 3, 4)).root
    found = run(store, tmp_path / "run")
    result, evaluation = found["result"], found["evaluation"]
    assert (result["standard_error_clusters"], evaluation["standard_error_clusters"]) == ("release", "release")
    assert (result["n_drifters"], result["n_clusters"]) == (3, 1)
    assert evaluation["n_clusters"] == 1
    for tree in (result, evaluation):
        assert len(errors_in(tree)) > 15
        assert set(errors_in(tree)) == {None}
    assert result["model_checks"] == {}
    assert result["model_supported"] is None
    assert "3 drifters in 1 cluster give it no standard error" in result["convergence"]
    told = report.summary(tmp_path / "run")
    assert "no standard error: 3 drifters in 1 release cannot tell how far" in told


def test_groups_of_one_cluster_each_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = build(tmp_path / "store", 20, first=(0, 1, 2, 3, 4)).root
    assert main(["run", str(store), "--out", str(tmp_path / "run"), "--group-by", "drogue"]) == 2
    assert (
        "has the samples of a single cluster (cluster_by release, 1 cluster of 3 drifters)" in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_every_error_is_of_the_clusters_that_are_asked_for(tmp_path: Path) -> None:
    """Fifteen drifters in pairs that were released together: other errors, and nothing else that differs."""

    def paired(values: Labels) -> None:
        for k in range(0, 14, 2):
            together(values, np.array([k, k + 1]))

    store = stores.build(tmp_path / "store", 45, n_drifters=15, n_unusable=0, change=paired).path
    by = {way: run(store, tmp_path / way, "--set", f"cluster_by={way}", "--group-by", "drogue")
          for way in ("release", "drifter")}  # fmt: skip
    release, drifter = by["release"], by["drifter"]
    assert (release["result"]["n_clusters"], release["result"]["n_drifters"]) == (7, 13)
    assert (drifter["result"]["n_clusters"], drifter["result"]["n_drifters"]) == (13, 13)
    assert release["result"]["cs"] == pytest.approx(drifter["result"]["cs"], rel=0.05)
    for name in ("result", "groups"):
        told, other = (errors_in(by[way][name]) for way in ("release", "drifter"))
        assert len(told) == len(other) > 5
        assert all(a is None or a != b for a, b in zip(told, other, strict=True)), name
    for a, b in zip(
        release["groups"]["groupings"][0]["groups"], drifter["groups"]["groupings"][0]["groups"], strict=True
    ):
        assert a["n_drifters"] == b["n_drifters"] == b["n_clusters"] > a["n_clusters"]


def test_an_error_is_told_with_what_is_independent(tmp_path: Path) -> None:
    store = build(tmp_path / "store")
    told = {
        "release": (7, "in 7 releases"),
        "drifter": (13, "of 13 drifters;"),
        "box-and-week": (1, "in 1 box and week"),
    }
    for by, (n, text) in told.items():
        found = results.result(store, n_drifters=13, n_clusters=n, standard_error_clusters=by)
        facts = dict(report._facts(Run(found, Training(), *[None] * 6)))
        assert f", clustered by {by.replace('-', ' ')}; 90 % interval" in facts["standard error"]
        assert text in facts["samples"]
    few = evaluation_text.warnings(results.evaluation(store, n_clusters=2, standard_error_clusters="release"))
    assert few[0].startswith("6 drifters in 2 releases: too few to judge by")
    weeks = results.evaluation(store, n_clusters=6, standard_error_clusters="box-and-week")
    assert "29 samples of 6 drifters in 6 boxes and weeks, split test" in evaluation_text.table(weeks)
    assert "interval over boxes and weeks." in evaluation_text.table(weeks)


def test_one_drifter_of_many_weeks_has_an_error_by_weeks() -> None:
    gradient = np.random.default_rng(4).standard_normal((30, 1))
    told = np.zeros(1), np.zeros(1), np.ones(30), gradient
    weeks = estimate(*told, np.arange(30) // 3, np.eye(1), True, {}, np.zeros(30, int))
    sums = gradient.reshape(10, 3).sum(axis=1) - 3 * gradient.mean()
    assert weeks.standard_error == pytest.approx(np.sqrt((sums**2).sum() * 10 / 9) / 30)
    assert (weeks.n_clusters, weeks.n_drifters) == (10, 1)
