"""C++ libraries are compiled once for a kind of processor, and what is wrong with a compiler is told."""

from dataclasses import replace
from pathlib import Path

import pytest

from shared import compiler
from shared.compiler import Library
from shared.errors import ConfigError

MADE = Library(source=Path(), wanted="the trial", instead="do without it", constants={"COAST": 1e-7})

FAKE = """#!/bin/sh
case "$*" in
  *-dM*) echo "#define $PROCESSOR 1"; exit 0;;
esac
echo compiled >> "$LOG"
while [ "$1" != -o ]; do shift; done
echo library > "$2"
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A compiler that notes when it compiles; an empty cache."""
    script = tmp_path / "a compiler"
    script.write_text(FAKE)
    script.chmod(0o755)
    for name, value in {"CXX": f"'{script}'", "LOG": tmp_path / "log", "PROCESSOR": "old"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def made(tmp_path):
    """A source that includes another."""
    (tmp_path / "sources").mkdir()
    for name in ("main.cpp", "part.hpp"):
        (tmp_path / "sources" / name).write_text("")
    return replace(MADE, source=tmp_path / "sources" / "main.cpp")


def compiled(folder):
    log = folder / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_one_library_a_processor_is_compiled_once(fake, made, monkeypatch):
    first = compiler.compiled(made)
    assert first == compiler.compiled(made)
    assert compiled(fake) == 1
    assert first.parent == fake / "cache" / "driftcal"
    monkeypatch.setenv("PROCESSOR", "new")
    assert compiler.compiled(made) != first
    assert compiled(fake) == 2
    assert len(list(first.parent.iterdir())) == 2  # nothing half made


def test_what_a_library_depends_on_has_it_compiled_again(fake, made):
    found = {compiler.compiled(made)}
    found.add(compiler.compiled(replace(made, constants={"COAST": 2e-7})))
    found.add(compiler.compiled(replace(made, versions=("jax 1",))))
    made.source.with_name("part.hpp").write_text("// changed")
    found.add(compiler.compiled(made))
    assert len(found) == compiled(fake) == 4


def test_without_a_folder_to_write_to_every_process_compiles(fake, made, monkeypatch):
    (fake / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(fake / "file"))
    compiler._own_folder.cache_clear()
    monkeypatch.setenv("TMPDIR", str(fake))
    monkeypatch.setattr("tempfile.tempdir", None)
    found = compiler.compiled(made)
    assert found.parent.name.startswith("driftcal-")
    assert found.parent.stat().st_mode & 0o077 == 0  # nobody else puts code there
    compiler._own_folder.cache_clear()


@pytest.mark.usefixtures("fake")
def test_a_library_that_cannot_be_loaded(made):
    said = r"the trial needs .*main-.*\.so, which cannot be loaded .* Delete it and try again, or do without it\."
    with pytest.raises(ConfigError, match=said):
        compiler.load(made)


@pytest.mark.parametrize(
    ("cxx", "said"),
    [
        (
            "no-such-compiler",
            "the trial needs a C++17 compiler, and none was found (CXX=no-such-compiler). Install one",
        ),
        ("false", "the trial could not be compiled, exit status 1: it said nothing. The command was false "),
    ],
)
def test_a_missing_or_failing_compiler(cxx, said, made, monkeypatch):
    monkeypatch.setenv("CXX", cxx)
    with pytest.raises(ConfigError) as caught:
        compiler.load(made)
    assert said in str(caught.value)
    assert str(caught.value).endswith("or do without it.")
