"""No temporary folder, or none with room."""

import errno
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.cached import SimpleCacheFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from driftcal.preprocess.__main__ import main
from driftcal.preprocess.sources import files
from driftcal.shared.disk import durable, temporary
from driftcal.shared.errors import ConfigError, LimitError
from driftcal.shared.native import compiler
from driftcal.shared.native.compiler import Library
from tests import fields
from tests.disks import Failing

Capture = pytest.CaptureFixture[str]
REMEDY = "Make room, or set TMPDIR to a folder with room (export TMPDIR=/a/folder/with/room), and run the same command"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder can be written that Python looks for: as with a full /tmp and a read-only working directory."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "gone")])


def test_a_dry_run_without_a_temporary_folder(tmp_path: Path, capsys: Capture, request: pytest.FixtureRequest) -> None:
    manifest = fields.small(tmp_path / "input")
    request.getfixturevalue("nowhere")
    assert main([manifest, "--out", str(tmp_path / "store"), "--dry-run"]) == 4
    said = capsys.readouterr().err
    assert "error: --dry-run: needs the system's temporary folder, which cannot be written to (No usable " in said
    assert REMEDY in said
    assert main([manifest, "--out", str(tmp_path / "store")]) == 0  # needs none


def test_a_dry_run_in_a_full_one(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's place has nothing to do with it; where it is the store's that is full, TMPDIR has not."""
    manifest = fields.small(tmp_path / "input")
    monkeypatch.setattr(durable, "os", Failing(("writev",), 1, errno.ENOSPC))
    assert main([manifest, "--out", str(tmp_path / "store"), "--dry-run"]) == 4
    said = capsys.readouterr().err
    place = re.escape(tempfile.gettempdir())
    assert re.search(rf"error: --dry-run: needs .* is {place} and .* or is full \(No space left on device\)\.", said)
    assert REMEDY in said
    assert "--out" not in said.partition("error: ")[2]
    monkeypatch.setattr(durable, "os", Failing(("writev",), 1, errno.ENOSPC))
    assert main([manifest, "--out", str(tmp_path / "store")]) != 0
    assert "TMPDIR" not in capsys.readouterr().err


def test_another_error_of_a_dry_run_is_its_own(tmp_path: Path, capsys: Capture) -> None:
    manifest = fields.small(tmp_path / "input")
    assert main([manifest, "--out", str(tmp_path / "store"), "--dry-run", "--set", "drifters.path=/gone.nc"]) == 1
    said = capsys.readouterr().err
    assert "nothing is there" in said
    assert "TMPDIR" not in said


@pytest.mark.parametrize("full", [False, True])
def test_a_download_that_finds_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, request: pytest.FixtureRequest, full: bool
) -> None:
    """It is not the file that is damaged, nor the address that is wrong."""
    manifest = fields.small(tmp_path / "input")
    url = "memory://temporary/drifters.nc"
    fsspec.filesystem("memory").pipe("/temporary/drifters.nc", (tmp_path / "input" / "drifters.nc").read_bytes())
    files._download.cache_clear()

    def get_file(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")

    if full:
        monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)
    else:
        request.getfixturevalue("nowhere")
    SimpleCacheFileSystem.clear_instance_cache()
    assert main([manifest, "--out", str(tmp_path / "store"), "--set", f"drifters.path={url}"]) == 4
    said = capsys.readouterr().err
    assert f"error: the local copy of {url}: needs the system's temporary folder, which " in said
    assert REMEDY in said
    assert "Traceback" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
@pytest.mark.parametrize("how", ["none", "full", "of the compiler"])
def test_a_library_is_compiled_in_the_cache_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, how: str
) -> None:
    """And where there is no room either, the message names both places."""
    script = tmp_path / "compiler"
    script.write_text(
        '#!/bin/sh\ncase "$*" in *-dM*) exit 0;; esac\nwhile [ "$1" != -o ]; do shift; done\n'
        'case "$TMPDIR" in *cache*) ;; *) echo "as: /tmp/ccX.o: No space left on device" >&2; exit 1;; esac\n'
        "echo library > $2\n"
    )
    script.chmod(0o755)
    source = tmp_path / "main.cpp"
    source.write_text("")
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library = Library(source, "entry", "the trial", "do without it")
    if how == "none":
        request.getfixturevalue("nowhere")
    elif how == "full":
        true = tempfile.mkdtemp

        def mkdtemp(suffix: Any = None, prefix: Any = None, dir: Any = None) -> str:
            if dir is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return true(suffix, prefix, dir)

        monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    found = compiler.compiled(library)
    assert found.read_text() == "library\n"
    assert found.is_relative_to(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "driftcal").iterdir()] == [found.parent.name]
    script.write_text(script.read_text().replace("*cache*", "nothing"))
    source.write_text("// another")
    with pytest.raises(ConfigError, match=r"name folders with room in TMPDIR and in XDG_CACHE_HOME, or do without"):
        compiler.compiled(library)


def test_a_temporary_folder_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary.folder("the trial") as place:
        (place / "x").touch()
        assert place.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with (
        pytest.raises(LimitError, match=r"the trial: needs .* is .*gone and .*TMPDIR"),
        temporary.folder("the trial"),
    ):
        pass
