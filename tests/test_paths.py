"""Paths where a file or a folder of this machine is needed."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from driftcal.preprocess import __main__ as preprocess
from driftcal.preprocess.recipe import Recipe
from driftcal.shared import __main__ as shared
from driftcal.shared import paths, settings
from driftcal.shared.errors import ConfigError
from driftcal.train import __main__ as train
from tests import fields

Capture = pytest.CaptureFixture[str]

GIVEN: list[tuple[Callable, list[str], str]] = [
    (preprocess.main, ["{}", "--out", "store"], "manifest"),
    (preprocess.main, ["manifest.yaml", "--out", "{}"], "--out"),
    (preprocess.main, ["manifest.yaml", "--out={}", "--dry-run"], "--out"),
    (preprocess.main, ["manifest.yaml", "--out=x", "--set", 'synthetic.folder="{}"'], "synthetic.folder"),
    (shared.main, ["show", "{}"], "STORE"),
    (shared.main, ["verify", "{}", "--json"], "STORE"),
    (shared.main, ["sample", "store", "0", "--plot", "{}"], "--plot"),
    (shared.main, ["plot", "store", "--out", "{}"], "--out"),
    (train.main, ["run", "{}", "--out", "run"], "STORE"),
    (train.main, ["run", "store", "--out", "{}"], "--out"),
    (train.main, ["run", "store", "--out", "run", "--config", "{}"], "--config"),
    (train.main, ["evaluate", "{}", "store"], "RUN"),
    (train.main, ["evaluate", "run", "{}"], "STORE"),
    (train.main, ["cost", "--out", "{}"], "--out"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory but for a manifest."""
    fields.small(tmp_path / "input")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "manifest.yaml").write_text((tmp_path / "input" / "manifest.yaml").read_text())
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize(
    ("main", "arguments", "where"),
    GIVEN,
    ids=[f"{main.__module__}-{where}-{k}" for k, (main, _, where) in enumerate(GIVEN)],
)
def test_every_path_of_every_command_is_one_of_this_machine(
    here: Path, capsys: Capture, main: Callable, arguments: list[str], where: str
) -> None:
    for given, said in (
        (
            "s3://my-bucket/store",
            r"s3: is an address elsewhere\. Name a local path, .* write \./s3://my-bucket/store if",
        ),
        ("", "it is empty: is a variable of the shell not set"),
        ("file:///data/my%20store", r"expected a path and not a URL\. Write /data/my store[.,]"),
    ):
        assert main([argument.replace("{}", given) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert re.fullmatch(rf"error: .*{where}.*{said}.*\n", error), error
    assert [path.name for path in here.iterdir()] == ["manifest.yaml"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gs:/bucket/store", "gs: is an address elsewhere"),  # what a Path has made of gs://
        ("S3A://bucket/x", "S3A: is an address elsewhere"),
        (" s3://bucket/x", "s3: is an address elsewhere"),
        ("simplecache::s3://bucket/x", "simplecache::s3: is an address elsewhere"),
        ("https://host:8080/x", "https: is an address elsewhere"),
        ("me@host:/scratch/store", "me@host: is an address elsewhere"),
        ("file://host/x", "It names a file of the host host"),
        ("file:/x/y", "Write /x/y"),
        ("FILE://localhost/x", "Write /x"),
        ("store\n", r"it holds '\n'"),
        ("one\ntwo\tthree", r"it holds '\t', '\n'"),
        ("a\0b", r"it holds '\x00'"),
        ("  ", "it is empty"),
        ("~nobody-of-this-name/x", "there is no home folder ~nobody-of-this-name"),
    ],
)
def test_what_is_no_path_of_this_machine(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        paths.local(text)


def test_what_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of me")
    monkeypatch.chdir(tmp_path)
    assert paths.local("~/stores/x") == "/home/of me/stores/x"
    assert paths.local("~") == "/home/of me"
    for same in ("x", "/a/b c", "./s3:/b", "run-12:00/x", "a/b:/c", "größe\u202f1", "2010-01-01T00:00", "exp::3", "~x"):
        Path("~x").touch()
        assert paths.local(same) == same
    Path("two\nlines").mkdir()
    assert paths.local("two\nlines") == "two\nlines"  # it is there


def test_a_home_that_the_shell_has_not_expanded(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here.parent / "home"))
    assert preprocess.main(["manifest.yaml", "--out=~/a/store"]) == 0
    assert (here.parent / "home" / "a" / "store" / "manifest.json").exists()
    assert [path.name for path in here.iterdir()] == ["manifest.yaml"]
    assert shared.main(["verify", "~/a/store"]) == 0


def test_a_source_of_which_a_slash_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def given(path: str) -> Recipe:
        return settings.build(Recipe, {"drifters": {"path": path}, "currents": {"path": "x"}}, "manifest.yaml")

    with pytest.raises(ConfigError, match=r"drifters\.\S*path: a URL has two slashes\. Write s3://bucket/gdp\.zarr"):
        given("s3:/bucket/gdp.zarr")
    with pytest.raises(ConfigError, match="NUL character"):
        given("gdp\0.zarr")
    for right in ("s3://bucket/x", "/a/b.nc", "file:///a/b.nc", "simplecache::s3://b/x", "12:/x"):
        assert given(right).drifters[0].path == right
    Path("s3:").mkdir()
    assert given("s3:/x").drifters[0].path == "s3:/x"


def test_a_store_beside_its_own_input_whose_path_is_a_url(here: Path, capsys: Capture) -> None:
    source = f"file://{here.parent / 'input' / 'drifters.nc'}"
    command = ["manifest.yaml", "--set", f"drifters.path={source}", "--out"]
    assert preprocess.main([*command, str(here.parent)]) == 2
    assert "lie inside each other" in capsys.readouterr().err
    assert preprocess.main([*command, "store"]) == 0
