"""C++ libraries are compiled once for a kind of processor, and whatever goes wrong with that is one message."""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driftcal.shared.errors import ConfigError
from driftcal.shared.native import compiler
from driftcal.shared.native.compiler import Library

# As the true ones: what it predefines goes to stdout, what it compiles into the file after -o. It notes its arguments.
FAKE = """#!/bin/sh
case "$*" in
  *-dM*) echo "#define $PROCESSOR 1"; exit 0;;
esac
echo "$@" >> "$LOG"
while [ "$1" != -o ]; do shift; done
echo library > "$2"
eval "$THEN"
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a compiler in it, and an empty cache."""
    script = tmp_path / "a compiler"
    script.write_text(FAKE)
    script.chmod(0o755)
    for name, value in {"CXX": f"'{script}'", "LOG": tmp_path / "log", "PROCESSOR": "old", "THEN": ""}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    compiler._own_folder.cache_clear()
    return tmp_path


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """A source that includes another."""
    (tmp_path / "sources").mkdir()
    for name in ("main.cpp", "part.hpp"):
        (tmp_path / "sources" / name).write_text("")
    source = tmp_path / "sources" / "main.cpp"
    return Library(source, "entry", "the trial", "do without it", constants={"COAST": 1e-7}, include=("/headers",))


def compiled(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


def test_one_library_a_processor_is_compiled_once(
    fake: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compiler.compiled(library)
    assert first == compiler.compiled(library)
    (line,) = compiled(fake)
    assert f" -I/headers -DCOAST=1e-07 {library.source} -o " in line
    assert str(first.parent) not in line  # it has its name when it is whole
    assert first.read_text() == "library\n"
    assert first.parents[1] == fake / "cache" / "driftcal"
    monkeypatch.setenv("PROCESSOR", "new")
    assert compiler.compiled(library) != first
    assert len(compiled(fake)) == 2
    assert len(list(first.parents[1].iterdir())) == 2  # nothing half made


@pytest.mark.parametrize("damage", ["library.so", "sha256"])
def test_a_damaged_library_is_made_again(fake: Path, library: Library, damage: str) -> None:
    """Loaded, one that is cut short ends the process."""
    first = compiler.compiled(library)
    first.with_name(damage).write_bytes(first.with_name(damage).read_bytes()[:3] + b"\xff")
    assert compiler.compiled(library) == first
    assert first.read_text() == "library\n"
    assert len(compiled(fake)) == 2
    assert len(list(first.parents[1].iterdir())) == 1


def test_of_two_that_compile_at_once_each_has_a_library(
    fake: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, true = compiler.compiled(library), compiler._is_whole
    seen = iter([False])  # it was not there yet when this process looked
    monkeypatch.setattr(compiler, "_is_whole", lambda folder: next(seen, None) is None and true(folder))
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    assert compiler.compiled(library) == first
    assert len(compiled(fake)) == 2


def test_what_a_library_depends_on_has_it_compiled_again(
    fake: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {compiler.compiled(library)}
    found.add(compiler.compiled(replace(library, constants={"COAST": 2e-7})))
    found.add(compiler.compiled(replace(library, versions=("jax 1",))))
    library.source.with_name("part.hpp").write_text("// changed")
    found.add(compiler.compiled(library))
    monkeypatch.setenv("CXX", os.environ["CXX"] + " -fsanitize=address")
    found.add(compiler.compiled(library))
    assert len(found) == len(compiled(fake)) == 5


@pytest.mark.parametrize("why", ["a file", "others may write", "no home"])
def test_without_a_folder_of_its_own_every_process_compiles(
    fake: Path, library: Library, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "a file":
        (fake / "cache").write_text("")
    elif why == "others may write":
        (fake / "cache" / "driftcal").mkdir(parents=True)
        (fake / "cache" / "driftcal").chmod(0o777)
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", _no_home)
    own = compiler.compiled(library).parents[1]
    assert own.name.startswith("driftcal-")
    assert own.stat().st_mode & 0o077 == 0  # nobody else puts code there
    compiler._own_folder.cache_clear()
    assert compiler.compiled(library).parents[1] != own


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.usefixtures("fake")
def test_a_folder_of_its_own_goes_with_the_process(tmp_path: Path, library: Library) -> None:
    (tmp_path / "cache").write_text("")
    code = (
        "from pathlib import Path; from driftcal.shared.native import compiler;"
        f"made = compiler.compiled(compiler.Library(Path({str(library.source)!r}), 'entry', 'it', 'do without'));"
        "assert made.exists(); print(made.parents[1])"
    )
    folder = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(folder).parent == tmp_path
    assert not Path(folder).exists()


# What goes wrong


@pytest.mark.usefixtures("fake")
def test_a_library_that_cannot_be_loaded(library: Library) -> None:
    said = (
        r"the trial needs .*main-.*library\.so, which cannot be loaded .* Delete it and try again, or do without it\."
    )
    with pytest.raises(ConfigError, match=said):
        compiler.load(library)


def test_a_library_without_its_function(library: Library) -> None:
    try:
        compiler.command(library)
    except ConfigError as absent:
        pytest.skip(f"needs a C++ compiler: {absent}")
    with pytest.raises(ConfigError, match=r"which cannot be loaded \(.*entry.*\)\. Delete it"):
        compiler.load(replace(library, include=()))


@pytest.mark.parametrize(
    ("cxx", "said"),
    [
        (
            "no-such-compiler",
            "the trial needs a C++17 compiler, and none was found (CXX=no-such-compiler). Install one",
        ),
        ("g++ 'x", "the trial needs a C++17 compiler, and CXX=g++ 'x is no command (No closing quotation)."),
        ("false", "the trial could not be compiled, exit status 1: it said nothing. The command was false "),
        ("{here}/not-a-program", "the trial could not be compiled, exit status -1: [Errno 8] Exec format error"),
    ],
)
def test_a_missing_or_failing_compiler(
    cxx: str, said: str, library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "not-a-program").write_bytes(b"\0\1")
    (tmp_path / "not-a-program").chmod(0o755)
    monkeypatch.setenv("CXX", cxx.format(here=tmp_path))
    with pytest.raises(ConfigError) as caught:
        compiler.load(library)
    assert said in str(caught.value)
    assert str(caught.value).endswith("or do without it.")


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("echo main.cpp:1: error: nonsense >&2; exit 1", "exit status 1: main.cpp:1: error: nonsense. The command"),
        ("echo ld: final link failed: No space left >&2; echo collect2: error: 1 >&2; exit 1", ": No space left. The"),
        ("kill -9 $$", "exit status -9: it said nothing"),
        ("exec sleep 60", "timed out after 0.5 seconds"),
    ],
)
def test_a_compiler_that_fails_midway_leaves_nothing(
    fake: Path, library: Library, monkeypatch: pytest.MonkeyPatch, then: str, said: str
) -> None:
    monkeypatch.setenv("THEN", then)
    monkeypatch.setattr(compiler, "PATIENCE", 0.5)
    with pytest.raises(ConfigError) as caught:
        compiler.compiled(library)
    assert said in str(caught.value)
    assert list((fake / "cache" / "driftcal").iterdir()) == []


def test_a_cache_that_is_full_is_done_without(fake: Path, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    true = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if fake / "cache" in path.parents:
            true(path, content[:3])
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return true(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    found = compiler.compiled(library)
    assert found.read_text() == "library\n"
    assert found.parents[1].name.startswith("driftcal-")
    assert list((fake / "cache" / "driftcal").iterdir()) == []


@pytest.mark.parametrize("name", ["mkdtemp", "TemporaryDirectory"])
def test_no_place_at_all_is_one_message(
    fake: Path, library: Library, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*_: Any, **__: Any) -> Callable:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(tempfile, name, full)
    said = r"the trial needs a place .* cannot be written there \(.*quota exceeded\)\. Make room, .* or do without it\."
    with pytest.raises(ConfigError, match=said):
        compiler.compiled(library)
    assert list((fake / "cache" / "driftcal").iterdir()) == []
