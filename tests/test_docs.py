"""The documentation: its tables hold every key, its manifests are read, its links lead somewhere."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from docs import tables
from driftcal.preprocess.recipe import Recipe
from driftcal.shared.settings import build
from driftcal.train.__main__ import main
from driftcal.train.run import run_folder
from driftcal.train.run.result import Minimum
from driftcal.train.settings import Training
from tests import runs, stores
from tests.commands import unwritten_figures
from tests.result_keys import described, keys_in_tables, undescribed, written

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<=\]\()[^()\s]+(?=\))")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


# Settings


def test_tables_of_settings_are_those_of_the_settings() -> None:
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        assert text == tables.written(text), f"{path} is out of date: run python -m docs.tables"


@pytest.mark.parametrize(("model", "name"), [(Recipe, "manifest.md"), (Training, "settings.md")])
def test_every_setting_is_in_its_page(model: Any, name: str) -> None:
    # pydantic's own schema knows every model and field, whatever the tables are made from
    schema, known = model.model_json_schema(), keys_in_tables(page(name))
    assert len(schema["$defs"]) >= 8
    for part in [schema, *schema["$defs"].values()]:
        for key, field in part["properties"].items():
            assert field.get("description"), f"{part['title']}.{key}"
            if part["title"] != "Place":  # {index: 3}, a value rather than a section
                assert any(one.split(".")[-1] == key for one in known), f"{part['title']}.{key}"


def test_every_key_of_resolved_settings_is_in_its_page() -> None:
    sources = {"drifters": {"path": "d.nc"}, "currents": {"path": "c.nc"}, "synthetic": {"folder": "f"}}
    for made, name in ((build(Recipe, sources, "test"), "manifest.md"), (build(Training, {}, "test"), "settings.md")):
        keys = set(leaves(made.model_dump(mode="json")))
        assert keys <= keys_in_tables(page(name))
        assert {"split.seed", "currents.frozen", "synthetic.lat"} <= keys or {"data.threads", "seed"} <= keys


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        one = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        if isinstance(one, dict) and one:
            yield from leaves(one, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_defaults_are_as_one_would_write_them() -> None:
    made = {row.key.strip("`"): row.default for row in (*tables.rows(Recipe), *tables.rows(Training))}
    expected = {
        "drifters": "required",
        "drifters.path": "required",
        "drifters.clock_tolerance": "`10min`",
        "drifters.max_gap": "`12h`",
        "drifters.id_per_file": "`false`",
        "currents.time_shift": "none",
        "segment": "",
        "segment.days": "`5`",
        "window.half_width_deg": "`2.5`",
        "synthetic": "none",
        "synthetic.lon": "`[160, 200]`",
        "integration.kappa_every": "`1d`",
        "dynamics_settings": "`{}`",
        "checkpoint.every_steps": "none",
    }
    assert {key: made[key] for key in expected} == expected


def test_manifests_in_the_pages_are_read() -> None:
    read = []
    for path in PAGES:
        blocks = re.findall(r"^```yaml\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        for tree in map(yaml.safe_load, blocks):
            if {"drifters", "currents"} <= tree.keys():
                read.append(build(Recipe, tree, str(path)).name)
    assert read.count("GDP 2010, DUACS 0.125") == 3
    assert {"Agulhas 2010", "one track", "twin in real currents"} <= set(read)


# Results


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of C_s with groups and an evaluation; what its figures show does not matter."""
    root = tmp_path_factory.mktemp("documented")
    store = stores.build(root / "store", 60, n_drifters=20, samples_per_shard=32, centre=(30.0, -40.0)).path
    (root / "tiny.yaml").write_text(yaml.safe_dump(runs.TINY))
    arguments = ["run", store, "--out", root / "run", "--config", root / "tiny.yaml", "--group-by", "grid:10"]
    with unwritten_figures():
        assert main([str(text) for text in arguments]) == 0
    return root / "run"


OF_OTHER_RUNS = {
    "result.json": {
        *("parameters.*.shape", "parameters.*.rms", "parameters.*.rms_change"),
        *(f"minima.{key}" for key in Minimum.keys()),  # noqa: SIM118 - no mapping
    },
    "metrics.jsonl": {"parameters.*", "gradient.*", "gradient_norm"},
}
"""Keys of runs with other minima, and of dynamics of a user's own: `tests.test_terms` holds these too."""


@pytest.mark.parametrize("name", ["result.json", "evaluation.json", "groups.json", "metrics.jsonl"])
def test_keys_of_a_run_s_files(made: Path, name: str) -> None:
    text = (made / name).read_text()
    trees = [json.loads(part) for part in (text.splitlines() if name.endswith("l") else [text])]
    assert set().union(*(undescribed(tree, name) for tree in trees)) == set()
    keys = {key.rstrip(".") for tree in trees for key in written(tree)}
    assert described(name) - keys == OF_OTHER_RUNS.get(name, set())


def test_keys_of_training_data(made: Path) -> None:
    tree = json.loads((made / run_folder.DATA).read_text())
    assert described(run_folder.DATA) - tree.keys() == {"agreement"}  # which the tests' stores lack
    assert undescribed(tree, run_folder.DATA) == set()


def test_arrays_of_examples(made: Path) -> None:
    with np.load(made / run_folder.EXAMPLES) as held:
        assert set(held.files) == described(run_folder.EXAMPLES)


def test_files_of_a_run(made: Path) -> None:
    known = keys_in_tables(page("results_keys.md").split("\n## ", maxsplit=1)[0])
    assert {path.name for path in made.iterdir() if path.name[0] != "."} == known - {run_folder.DYNAMICS}
    assert {path.stem for path in (made / run_folder.FIGURES).iterdir()} == described("Figures")


def test_what_evaluation_and_page_rest_on_is_described() -> None:
    for name, keys in run_folder.NEEDED.items():
        if keys:
            assert set(keys) <= {key.partition(".")[0] for key in described(name)}


def test_a_key_that_is_not_described_is_found() -> None:
    tree = {
        "cs": 1.0,
        "profile": None,
        "minima": [{"value": 1.0, "depth": 2.0}],
        "other": [],
        "parameters": {"x": {"p": 1}},
    }
    assert undescribed(tree, "result.json") == {"minima.depth", "other.", "parameters.*.p"}


# Links


def anchors(text: str) -> set[str]:
    """Anchors of the headings in `text`, as GitHub makes them."""
    found: set[str] = set()
    for heading in HEADING.findall(re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)):
        name = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", name).replace(" ", "-")
        twins = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", other) is not None for other in found)
        found.add(f"{name}-{twins}" if twins else name)
    return found


def test_anchors_are_those_of_github() -> None:
    text = "# `result.json`\n## What it does\n## C_s, twice\n```sh\n# none\n```\n## C_s, twice\n### A [link](x.md)?\n"
    assert anchors(text) == {"resultjson", "what-it-does", "c_s-twice", "c_s-twice-1", "a-link"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = CODE.sub("", path.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), f"{path.name}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{path.name}: {link}"


def test_the_readme_leads_to_every_page() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{path.name}" for path in PAGES[1:]} <= linked


@pytest.mark.parametrize("package", ["shared", "preprocess", "train"])
def test_pages_that_messages_name_are_there(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for name in re.findall(r"docs/[\w./]+\.\w+", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{path}: {name}"


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{cited["version"]}"' in project
    assert f'license = "{cited["license"]}"' in project
