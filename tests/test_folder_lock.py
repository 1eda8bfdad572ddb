"""One process writes into a folder of results, and the other changes nothing; also where file systems have no locks."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from driftcal.shared.disk.claims import hold
from driftcal.shared.errors import ConfigError, DataError
from driftcal.shared.settings import build
from driftcal.train.__main__ import main
from driftcal.train.run import loop
from driftcal.train.run import run_folder as folder
from driftcal.train.run.folder_lock import FILE, FILES, FolderLock
from driftcal.train.settings import Training
from tests import stores
from tests.commands import FAST, refused

HOLDING = """
import sys
from pathlib import Path
from driftcal.train.run.folder_lock import FolderLock
{shim}
with FolderLock(Path(sys.argv[1])) as lock:
    lock.take()
    print("taken", flush=True)
    sys.stdin.read()
"""
WITHOUT = """
import fcntl, os
def flock(number, how):
    raise OSError({code}, os.strerror({code}))
fcntl.flock = flock
"""
CODES = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def holder(out: Path, code: int | None = None) -> subprocess.Popen[str]:
    """Another process that has the folder."""
    program = HOLDING.format(shim="" if code is None else WITHOUT.format(code=code))
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def without_flock(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(number: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stores.build(tmp_path_factory.mktemp("lock") / "store").path


@pytest.mark.parametrize("verb", ["run", "resume", "cost"])
def test_the_loser_changes_nothing(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    out = tmp_path / "run"
    with holder(out) as other:
        before = contents(out)
        words = {
            "run": ["run", store, "--out", out, *FAST],
            "resume": ["run", store, "--out", out, "--resume", *FAST, "--set", "seed=4"],
            "cost": ["cost", "--steps", "3", "--out", out],
        }[verb]
        said = refused(capsys, 2, *words)
        assert f"{out}: another process is writing there (process {other.pid}: " in said
        assert "Stop it, wait for it, or choose another --out." in said
        assert contents(out) == before
        other.communicate("")
    assert not out.exists()  # it was empty


def test_an_evaluation_changes_nothing_beside_another_process(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = SimpleNamespace(settings=build(Training, {}, "test"))
    monkeypatch.setattr(folder, "read", lambda out: finished)
    (tmp_path / "evaluation.json").write_text("{}")
    with holder(tmp_path) as other:
        before = contents(tmp_path)
        assert "another process is writing there" in refused(capsys, 2, "evaluate", tmp_path, store)
        assert contents(tmp_path) == before
        other.kill()
    assert (tmp_path / FILE).exists()  # it was killed; the lock went with it
    with FolderLock(tmp_path) as lock:
        lock.take()
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("code", CODES)
def test_without_locks_of_the_file_system_files_keep_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    without_flock(monkeypatch, code)
    with holder(tmp_path, code) as other:
        with pytest.raises(ConfigError) as caught, FolderLock(tmp_path) as lock:
            lock.take()
        assert f"another process is writing there (process {other.pid} on " in str(caught.value)
        said = capsys.readouterr().err
        assert f"note: the file system of {tmp_path} has no locks of its own ({os.strerror(code)})" in said
        other.send_signal(signal.SIGKILL)
    with FolderLock(tmp_path) as lock:  # that it is dead is seen
        lock.take()
        assert (tmp_path / FILES).is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_process_of_another_host_keeps_others_out_until_its_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_flock(monkeypatch, errno.ENOLCK)
    (tmp_path / FILES).mkdir()
    with hold(tmp_path / FILES, (1, 1), alone=True):
        for path in (tmp_path / FILES).iterdir():
            text = path.read_text()
            path.write_text(text.replace('"machine": "', '"machine": "another '))
        with (
            pytest.raises(ConfigError, match=rf"If that process has ended, remove {tmp_path / FILES}\."),
            FolderLock(tmp_path) as lock,
        ):
            lock.take()


def test_a_run_without_locks_of_the_file_system(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(*arguments: object) -> None:
        raise DataError("far enough.")

    without_flock(monkeypatch, errno.ENOSYS)
    monkeypatch.setattr(loop, "_calibrate", ends)
    assert main(["run", str(store), "--out", str(tmp_path / "run"), *FAST]) == 1
    said = capsys.readouterr().err
    assert "far enough. The last good checkpoint is " in said
    assert said.count("has no locks of its own (Function not implemented)") == 1
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "metrics.jsonl", "checkpoints"}


def test_another_error_of_the_lock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_flock(monkeypatch, errno.EIO)
    with pytest.raises(ConfigError, match=r"cannot write into .*: Input/output error"), FolderLock(tmp_path) as lock:
        lock.take()
