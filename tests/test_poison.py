"""Samples that give no number, and odd ones that give one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftcal.shared.errors import DataError
from driftcal.shared.store.reader import ShardStore
from driftcal.train.learners.drift.dynamics import load as load_dynamics
from driftcal.train.learners.drift.loss import make_step
from driftcal.train.reading import batches as data
from driftcal.train.reading.batches import Grid, batches
from driftcal.train.run import metrics_log
from tests import runs, stores

POISONED, ON_LAND, STILL = 10, 11, 5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stores.build(tmp_path_factory.mktemp("poison") / "store", 23, samples_per_shard=8).path


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_poisoned_sample_is_left_out_and_the_rest_is_as_without_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    load = data.load

    def loading(poisons: bool) -> Any:
        def with_it(*arguments: Any) -> dict[str, np.ndarray]:
            rows = load(*arguments)
            here = rows["sample"] == POISONED
            if poisons:
                rows["phase"] = np.where(here, np.float32(value), rows["phase"])  # no current is known at that time
            else:
                rows["weight"] = np.where(here, np.float32(0), rows["weight"])
            return rows

        return with_it

    for name, poisons in (("poisoned", True), ("without", False)):
        monkeypatch.setattr(data, "load", loading(poisons))
        runs.train(store, tmp_path / name, runs.settings())
    ours, theirs = (json.loads((tmp_path / n / "result.json").read_text()) for n in ("poisoned", "without"))
    assert ours.pop("poisoned_samples") == [POISONED]
    assert theirs.pop("poisoned_samples") == []
    simulated = ours.pop("gradient_samples") - theirs.pop("gradient_samples")
    for result in (ours, theirs):
        result.pop("samples_per_second")
    assert ours == theirs
    a, b = (
        [json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()]
        for n in ("poisoned", "without")
    )
    times = sum(line["poisoned_samples"] == [POISONED] for line in a)
    assert times >= 3  # once an epoch and pass
    assert simulated == times  # one that gives no number was simulated; one of weight 0 was not
    for one, other in zip(a, b, strict=True):
        assert np.isfinite(one["cs"])
        assert (one["cs"], one["loss"], one["gradient"]) == (other["cs"], other["loss"], other["gradient"])


def test_more_than_a_hundredth_of_poisoned_samples_stops_the_run(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = data.load

    def with_three(*arguments: Any) -> dict[str, np.ndarray]:
        rows = load(*arguments)
        return rows | {"phase": np.where(rows["sample"] % 5 == 0, np.float32(np.nan), rows["phase"])}

    monkeypatch.setattr(data, "load", with_three)
    with pytest.raises(
        DataError, match=r"2 of \d+ samples give no finite loss and gradient \(samples .*last good chec"
    ):
        runs.train(store, tmp_path / "run", runs.settings())
    assert metrics_log.MOST_POISONED == 0.01


def test_escapes_starts_on_land_and_drifters_that_stay_are_finite_and_counted(tmp_path: Path) -> None:
    def odd(values: dict[str, np.ndarray]) -> None:
        values["currents"][ON_LAND] = -32768
        values["positions"][STILL] = 0.0

    path = stores.build(tmp_path / "store", 23, samples_per_shard=8, change=odd).path
    opened = ShardStore(path)
    for objective in ("energy", "liu"):
        told = runs.settings(score={"objective": objective, "reference_members": 2})
        model = load_dynamics(told)
        step = make_step(told, Grid.of(opened.layout), model)
        numbers = np.array([POISONED, ON_LAND, STILL])
        _, batch = next(batches(opened, numbers, 3, np.dtype("f4")))
        near, far = (step(np.log(np.array([cs], np.float32)), batch, 0) for cs in (0.1, 1e3))
        for sums in (near, far):
            assert np.asarray(sums.good).all()
            assert np.isfinite(sums.loss).all()
            assert np.isfinite(sums.gradient).all()
        assert np.asarray(near.counts["ashore"]).tolist()[1] == 3  # all members of the one on land
        assert int(np.asarray(far.counts["escaped"])[0]) > 0
        assert int(np.asarray(far.counts["escaped"])[1]) == 0  # what is ashore does not move
