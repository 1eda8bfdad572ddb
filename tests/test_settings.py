"""What a manifest and training settings may say, and what is answered to everything else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftcal.preprocess.recipe import DAY, Recipe
from driftcal.shared.errors import ConfigError
from driftcal.shared.settings import build, override, parse_yaml, read_yaml
from driftcal.train.settings import Training

LEAST: dict[str, Any] = {"drifters": {"path": "d.nc"}, "currents": {"path": "c.nc"}}


def recipe(*assignments: str, **tree: Any) -> Recipe:
    return build(Recipe, override(LEAST | tree, assignments), "data_manifest.yaml")


def training(**tree: Any) -> Training:
    return build(Training, tree, "training settings")


def refused(*texts: str, model: Callable[..., Any] = recipe, **tree: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        model(**tree)
    for text in texts:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_defaults_are_those_of_the_documentation() -> None:
    made = recipe()
    assert (made.segment.n_obs, made.segment.stride, made.segment.step) == (121, 120, 3600)
    assert (made.window.half_width_deg, made.split.train, made.split.validation, made.split.test) == (
        2.5,
        0.8,
        0.1,
        0.1,
    )
    assert [source.path for source in made.drifters] == ["d.nc"]
    assert made.drifters[0].drogue == "on"


def test_what_is_written_is_read_again() -> None:
    made = recipe("segment.step=6h", "period.start=2010-01-01", "drifters.max_gap=90min", "synthetic.folder=x")
    assert recipe(**made.model_dump(mode="json")) == made


# Unknown keys


@pytest.mark.parametrize(
    ("tree", "key", "nearest"),
    [
        ({"segmant": {"days": 5}}, "segmant", "segment"),
        ({"window": {"half_width": 2}}, "window.half_width", "window.half_width_deg"),
        ({"drifters": {"path": "x", "variable": {}}}, "drifters.0.variable", "drifters.variables"),
        ({"currents": [{"path": "x", "frozn": True}]}, "currents.0.frozn", "currents.frozen"),
        ({"split": {"valid": 0.1}}, "split.valid", "split.validation"),
    ],
)
def test_an_unknown_key_names_the_nearest(tree: dict, key: str, nearest: str) -> None:
    refused(f"data_manifest.yaml: unknown key {key!r} (did you mean {nearest!r}?)", **tree)


def test_a_key_like_no_other_lists_what_is_known() -> None:
    refused("unknown key 'zzzzzz'", "known: currents, drifters, name, period, segment", **{"zzzzzz": 1})
    refused("unknown key 'ensemble.member' (did you mean 'ensemble.members'?)", model=training, ensemble={"member": 5})


@pytest.mark.parametrize("shift", [12, -12, 0.5])
def test_hours_without_a_unit_are_not_taken_for_seconds(shift: float) -> None:
    source = {"path": "x", "time_shift": shift}
    refused(f"a bare number is in seconds; for hours write {shift:g}h, for so few seconds {shift:g}s", currents=source)
    for text, seconds in ((f"{shift:g}h", 3600 * shift), (f"{shift:g}min", 60 * shift), (3600 * shift, 3600 * shift)):
        assert recipe(f"currents.time_shift={text}").currents[0].time_shift == seconds


def test_a_key_like_none_is_answered_with_those_of_its_section() -> None:
    refused(
        "unknown key 'segment.length'; known: segment.days, segment.step, segment.stride_days", segment={"length": 3}
    )
    refused("unknown key 'window.step' (did you mean 'segment.step'?)", window={"step": "1h"})


def test_an_unknown_role_is_refused() -> None:
    refused("drifters.0.variables.latitude", "'lat'", drifters={"path": "x", "variables": {"latitude": "y"}})


def test_required_keys_and_all_problems_at_once() -> None:
    with pytest.raises(
        ConfigError, match=r"key 'drifters' is required; key 'currents' is required; window\.half_width"
    ):
        build(Recipe, {"window": {"half_width_deg": "a"}}, "m.yaml")


# Wrong types, sizes that cannot be


@pytest.mark.parametrize(
    ("tree", "texts"),
    [
        ({"segment": {"days": "5"}}, ("segment.days: input should be a valid number", "found '5'")),
        ({"segment": {"days": True}}, ("segment.days: input should be a valid number", "found True")),
        ({"split": {"seed": True}}, ("split.seed: input should be a valid integer", "found True")),
        ({"split": {"seed": 1.0}}, ("split.seed: input should be a valid integer", "found 1.0")),
        ({"segment": [5]}, ("segment: expected keys with values", "found [5]")),
        ({"window": 3}, ("window: ", "found 3")),
        ({"drifters": "d.nc"}, ("drifters.0: expected keys with values", "found 'd.nc'")),
        ({"drifters": []}, ("drifters: ", "at least 1 item")),
        ({"drifters": {"path": 3}}, ("drifters.0.path: input should be a valid string", "found 3")),
        ({"drifters": {"path": ""}}, ("drifters.0.path: ", "at least 1 character")),
        ({"drifters": {"path": "x", "drogue": "lots"}}, ("drifters.0.drogue: ", "'on', 'lost' or 'any'")),
        ({"name": None}, ("name: input should be a valid string", "found None")),
        ({"name": "x" * 100_000}, ("name: ", "at most 200", "...")),
        ({"segment": {"days": float("nan")}}, ("segment.days: ",)),
        ({"segment": {"days": -5}}, ("segment.days: input should be greater than 0, found -5",)),
        ({"segment": {"days": 0}}, ("segment.days: input should be greater than 0",)),
        ({"segment": {"stride_days": 0}}, ("segment.stride_days: input should be greater than 0",)),
        ({"segment": {"step": 0}}, ("segment.step: expected a positive duration",)),
        ({"segment": {"step": "-1h"}}, ("segment.step: expected a duration such as 30min", "found '-1h'")),
        ({"window": {"half_width_deg": 0}}, ("window.half_width_deg: ",)),
        ({"window": {"max_latitude": 89}}, ("window.max_latitude: input should be less than 85",)),
        ({"store": {"samples_per_shard": 0}}, ("store.samples_per_shard: ",)),
        ({"store": {"compression": "zip"}}, ("store.compression: ", "'lz4' or 'none'")),
        ({"drifters": {"path": "x", "max_speed": 0}}, ("drifters.0.max_speed: ",)),
    ],
)
def test_wrong_types_and_sizes_are_refused(tree: dict, texts: tuple[str, ...]) -> None:
    refused(*texts, **tree)


@pytest.mark.parametrize(
    ("tree", "texts"),
    [
        ({"ensemble": {"members": 1}}, ("ensemble.members: input should be greater than or equal to 2, found 1",)),
        ({"ensemble": {"members": 20.0}}, ("ensemble.members: input should be a valid integer",)),
        ({"batch_size": 0}, ("batch_size: ",)),
        ({"epochs": -1}, ("epochs: ",)),
        ({"initial_cs": 0}, ("initial_cs: input should be greater than 0",)),
        ({"seed": -1}, ("seed: ",)),
        ({"score": {"objective": "crps"}}, ("score.objective: ", "'energy'", "found 'crps'")),
        ({"integration": {"step": "7min"}}, ("kappa_every (86400 s) is not a multiple of integration.step (420 s)",)),
        ({"integration": "fast"}, ("integration: ", "found 'fast'")),
    ],
)
def test_training_settings_that_cannot_be_are_refused(tree: dict, texts: tuple[str, ...]) -> None:
    refused(*texts, model=training, **tree)


def test_numbers_of_the_other_kind_that_mean_the_same_are_taken() -> None:
    assert recipe("segment.days=5", "drifters.max_speed=3").segment.days == 5.0


@pytest.mark.parametrize("text", ["drifters: {path: d, drogue: on}", "drifters: {path: d, drogue: 'on'}"])
def test_yaml_takes_a_bare_on_for_true(text: str) -> None:
    tree = parse_yaml(text, "x") | {"currents": {"path": "c"}}
    assert build(Recipe, tree, "x").drifters[0].drogue == "on"
    assert recipe("drifters.drogue=on").drifters[0].drogue == "on"


# Durations, segments, splits, dates


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("1h", 3600), ("30min", 1800), ("1d", DAY), ("1D 12h", 129_600), ("6 hours", 21_600), ("90s", 90), (60, 60),
     (60.0, 60), ("0.5h", 1800), ("3600s", 3600), ("2 days", 2 * DAY)],
)  # fmt: skip
def test_durations(given: Any, seconds: int) -> None:
    assert (
        recipe(segment={"days": 6, "step": 60}, drifters={"path": "d", "max_gap": given}).drifters[0].max_gap == seconds
    )


@pytest.mark.parametrize(
    "given",
    ["", "h", "5", "1 fortnight", "1.5s", "-1h", "nan", "NaT", "inf", "1h nonsense", True, None, [1], 1.5, 10**30,
     1e30, float("inf"), float("nan"), "1e3s"],
)  # fmt: skip
def test_what_is_no_duration(given: Any) -> None:
    refused("drifters.0.max_gap: expected a", drifters={"path": "d", "max_gap": given})


def test_segments_are_whole_steps() -> None:
    refused("segment: days (0.3) is not a whole number of steps of 3600 s", segment={"days": 0.3})
    refused("stride_days (0.55) is not a whole", segment={"stride_days": 0.55})
    refused("days (0.25) holds fewer than two steps of 21600 s", segment={"days": 0.25, "step": "6h"})
    # 0.55 x 86400 is not 47520 in floating point
    assert recipe(segment={"days": 0.55, "step": "12min"}).segment.n_obs == 67


def test_fractions_of_the_splits_sum_to_1() -> None:
    refused("split: train + validation + test is 1.1, expected 1", split={"train": 0.9})
    refused(
        "split.train: input should be greater than or equal to 0", split={"train": -0.1, "validation": 1, "test": 0.1}
    )
    assert recipe(split={"train": 0.7, "validation": 0.2, "test": 0.1}).split.train == 0.7


def test_dates_of_the_period_are_checked() -> None:
    made = build(Recipe, parse_yaml("period: {start: 2010-01-31, end: 2010-02-01T12:00:00Z}", "x") | LEAST, "x")
    assert (made.period.start, made.period.end) == ("2010-01-31", "2010-02-01 12:00:00")
    refused(
        "period: start (2011-01-01) is not before end (2010-01-01)", period={"start": "2011-01-01", "end": "2010-01-01"}
    )
    refused("is not before end", period={"start": "2011-01-01", "end": "2011-01-01"})
    for wrong in ("2010-02-30", "2010-13-01", "5", 5, "now", "today", "NaT", "", "next year", True, "2010-01-01+02:00"):
        refused("period.start: expected a date such as 2010-01-31", period={"start": wrong})


# YAML


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: !!python/object/apply:os.system ['true']", "could not determine a constructor for the tag"),
        ("name: !secret x", "could not determine a constructor"),
        ("a: 1\na: 2", "key 'a' occurs twice"),
        ("window: {half_width_deg: 2, half_width_deg: 3}", "key 'half_width_deg' occurs twice"),
        ("a: &x [1]\nb: *x", "aliases (*name) are not accepted"),
        ("base: &b {x: 1}\nname: {<<: *b}", "aliases"),
        ("1: 2", "key 1 is not text"),
        ("yes: 2", "key True is not text"),
        ("? [a, b]\n: 1", "is not text"),
        ("- a\n- b", "expected a mapping of settings, found list"),
        ("just text", "expected a mapping of settings, found str"),
        ("a: [1, 2", "is not the YAML expected"),
        ("a: 2010-13-45", "is not the YAML expected"),
        ("[" * 5000, "is not the YAML expected"),
        ("a: \x00", "is not the YAML expected"),
        ("a: 1\n---\na: 2", "is not the YAML expected"),
    ],
)
def test_yaml_traps(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_anchor_bomb_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 60)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError, match="aliases"):
        read_yaml(tmp_path / "bomb.yaml")


def test_files_that_are_no_settings(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: Agulhas à l'est".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml is not UTF-8 text \(byte 14\)\. Save it as UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigError, match=r"big\.yaml is larger than 1000000 bytes"):
        read_yaml(tmp_path / "big.yaml")
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_yaml(tmp_path)
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}


# --set


def test_override_reaches_any_key_and_leaves_the_tree_alone() -> None:
    tree = {"window": {"half_width_deg": 2.5}}
    got = override(tree, ["window.half_width_deg=3", "drifters.variables.id=ID", "period.start=2010-01-01", "name="])
    assert got["window"] == {"half_width_deg": 3}
    assert got["drifters"] == {"variables": {"id": "ID"}}
    assert got["name"] is None
    assert tree == {"window": {"half_width_deg": 2.5}}


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("window", "expected key=value"),
        ("=3", "expected key=value"),
        ("window..x=3", "expected key=value"),
        ("drifters.path=x", "lies under a value that is not a mapping"),
        ("name=[1", "is not the YAML expected"),
        ("name=a: b: c", "is not the YAML expected"),
        ("name=*x", "aliases"),
    ],
)
def test_override_refuses(assignment: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override({"drifters": [{"path": "a"}]}, [assignment])
    assert said in str(caught.value)
    assert assignment in str(caught.value)
