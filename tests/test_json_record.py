"""Records that know their JSON: bytes that come back, and what is refused; the tables made from them."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from driftcal.shared.json_record import JsonRecord, Key, MissingKeys, WrongValue, entry
from driftcal.shared.store.manifest import to_bytes
from driftcal.shared.store.reader import ShardStore
from driftcal.train.evaluation.evaluation import SCORES, Evaluation, Mean, SystemScores
from driftcal.train.run.result import Groups, Result
from tests import stores
from tests.results import EXAMINED, evaluation_tree, groups_tree, result_tree


@dataclass(frozen=True, kw_only=True)
class Part(JsonRecord):
    size: float = entry("its size", "m")
    name: str | None = entry("its name", optional=True)


@dataclass(frozen=True)
class Other(JsonRecord):
    shape: tuple[int, ...] = entry("its shape")


@dataclass(frozen=True)
class Whole(JsonRecord):
    count: int = entry("how many")
    sure: bool = entry("whether it is")
    parts: tuple[Part, ...] = entry("some parts")
    named: dict[str, Part | Other | None] = entry("others by name")
    rest: dict[str, Any] | None = entry("anything")


TREE: dict[str, Any] = {
    "count": 3,
    "sure": True,
    "parts": [{"size": 1.5}, {"size": 2, "name": "b"}],
    "named": {"x": {"size": 1e-300}, "y": {"shape": [2, 3]}, "z": None},
    "rest": {"any": [1, {"thing": None}]},
}


def test_values_come_back_as_they_were() -> None:
    record = Whole.from_json(TREE)
    assert record.parts == (Part(size=1.5), Part(size=2, name="b"))
    assert record.named == {"x": Part(size=1e-300), "y": Other((2, 3)), "z": None}
    assert to_bytes(record.as_json()) == to_bytes(TREE)
    assert Whole.from_json(record.as_json()) == record
    assert Whole.keys() == ("count", "sure", "parts", "named", "rest")


def test_keys_are_documented_with_those_below() -> None:
    known = Whole.documented()
    below = {"parts.size", "parts.name", "named.*.size", "named.*.name", "named.*.shape"}
    assert set(known) == {*Whole.keys(), *below}
    assert known["parts.size"] == Key("its size", "m")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"parts": [{"size": 1.0}, {}]}, MissingKeys, r"^parts\[1\]\.size$"),
        ({"named": {"x": {}}}, MissingKeys, r"^named\.x\.size$"),
        ({"count": 1.5}, WrongValue, "^count is 1.5, expected a whole number$"),
        ({"count": True}, WrongValue, "^count is True, expected a whole number$"),
        ({"count": None}, WrongValue, "^count is None, expected a whole number$"),
        ({"sure": 1}, WrongValue, "^sure is 1, expected true or false$"),
        ({"parts": {"size": 1.0}}, WrongValue, "^parts is .*, expected a list$"),
        ({"parts": [{"size": "1"}]}, WrongValue, r"^parts\[0\]\.size is '1', expected a number$"),
        ({"named": [1]}, WrongValue, r"^named is \[1\], expected keys and values$"),
        ({"named": {"x": 1}}, WrongValue, r"^named\.x: expected keys and values, found int$"),
    ],
)
def test_what_is_no_such_record_is_refused(change: dict[str, Any], error: type[ValueError], said: str) -> None:
    with pytest.raises(error, match=said):
        Whole.from_json(TREE | change)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ShardStore:
    return ShardStore(stores.build(tmp_path_factory.mktemp("s") / "small", 6).path)


def test_files_of_a_run_are_read_and_written_to_the_byte(store: ShardStore) -> None:
    calibrated = result_tree(store)
    array = {"w": {"shape": [8, 2], "rms": 0.5, "rms_change": 0.1, "standard_error": None}}
    own = {"cs": None, "dynamics": "m:C", "function": {"values": [[1.0]]}, "parameters": array}
    null = EXAMINED | dict.fromkeys(("profile", "minima", "model_supported"))
    for tree in (calibrated, calibrated | EXAMINED, calibrated | own, calibrated | own | null):
        assert to_bytes(Result.from_json(tree).as_json()) == to_bytes(tree)
    for scores in (evaluation_tree(store), evaluation_tree(store, None)):
        assert to_bytes(Evaluation.from_json(scores).as_json()) == to_bytes(scores)
    groupings = [groups_tree("a"), groups_tree("b", "c", box=True)]
    every = {"formula": "K", "parameter": "cs", "log_value": -1.2, "groupings": groupings}
    assert to_bytes(Groups.from_json(every).as_json()) == to_bytes(every)


def test_every_key_of_a_run_has_a_meaning() -> None:
    known = {**Result.documented(), **Evaluation.documented(), **Groups.documented()}
    assert {
        "cs",
        "profile.score",
        "minima.value",
        "parameters.*.rms",
        "scores.*.liu_skill",
        "groupings.groups.box",
    } <= set(known)
    assert all(len(key.meaning) > 2 for key in known.values())


def test_all_scores_are_in_the_one_table() -> None:
    means = [one.name for one in fields(SystemScores) if one.type in (Mean, "Mean")]
    assert [score.key for score in SCORES] == means
    assert all((score.unit == "km") == score.key.endswith("_km") for score in SCORES)


def test_the_documentation_has_the_table_of_scores() -> None:
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for score in SCORES:
        assert re.search(rf"^\| `{score.key}` \| .* \| {score.direction} \|$", page, re.MULTILINE), score.key
