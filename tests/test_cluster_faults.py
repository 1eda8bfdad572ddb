"""Death of a dask worker, of the scheduler and of the client; workers with other code or none."""

import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driftcal.preprocess.__main__ import main
from driftcal.preprocess.writing import cluster, edition
from driftcal.shared.disk import crash_points
from tests import fields, kill_preprocess

distributed = pytest.importorskip("distributed")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a scheduler or a worker, which ends with the test."""
    running = []

    def begin(module: str, *options: str, crash: str = "", code: Path | None = None) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--no-dashboard", *options]
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        path = {} if code is None else {"PYTHONPATH": str(code)}
        quiet |= {} if code is None else {"cwd": code}  # which Python looks into first
        running.append(subprocess.Popen(command, env={**os.environ, crash_points.VARIABLE: crash, **path}, **quiet))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()


def address(start: Callable[..., subprocess.Popen]) -> tuple[str, subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"tcp://127.0.0.1:{port}", start("dask_scheduler", "--host", "127.0.0.1", "--port", str(port))


def test_a_store_survives_the_death_of_a_worker_of_the_client_and_of_the_scheduler(
    tmp_path: Path, start: Callable[..., subprocess.Popen]
) -> None:
    manifest = fields.small(tmp_path / "input", store={"samples_per_shard": 1})
    due = fields.digests(fields.make(manifest, tmp_path / "whole").root)
    where, scheduler = address(start)
    worker = ("dask_worker", where, "--nthreads", "1", "--no-nanny")
    # of two workers one dies, and nobody need do anything
    dying = start(*worker, crash="mark: begins")
    start(*worker)
    with distributed.Client(where, timeout=60) as looking:
        looking.wait_for_workers(2, timeout=60)  # both are given shards then
    out = tmp_path / "store"
    command = [manifest, "--out", str(out), "--scheduler", where]
    ended = kill_preprocess.run(command, tmp_path / "said")
    assert ended.code == 0, ended.said
    assert fields.digests(out) == due
    assert dying.wait(60) == kill_preprocess.KILLED

    # the client dies in the middle, once a shard is done; the cluster goes on, and so does the next client
    other = tmp_path / "client"
    command = [manifest, "--out", str(other), "--scheduler", where]
    client = kill_preprocess.start(command, tmp_path / "said", crash="metadata: begins")  # at the latest
    while client.is_alive() and not list(other.glob(".building/done-*")):
        time.sleep(0.01)
    client.kill()
    client.join()
    assert client.exitcode == kill_preprocess.KILLED
    ended = kill_preprocess.run(command, tmp_path / "said")
    assert ended.code == 0, ended.said
    time.sleep(2)  # what the first client's tasks may still write
    assert fields.digests(other) == due
    assert kill_preprocess.left(other) == []

    # all workers die, then the scheduler
    where, scheduler = address(start)
    last = start("dask_worker", where, "--nthreads", "1", "--no-nanny", crash="mark: begins@3")
    third = tmp_path / "scheduler"
    command = [manifest, "--out", str(third)]
    client = kill_preprocess.start([*command, "--scheduler", where], tmp_path / "said")
    last.wait(60)
    time.sleep(1)
    scheduler.kill()
    client.join(90)
    assert client.exitcode == 3, (tmp_path / "said").read_text()
    assert "lost its scheduler or its workers" in (tmp_path / "said").read_text()
    ended = kill_preprocess.run(command, tmp_path / "said")
    assert ended.code == 0, ended.said
    assert "continuing: 2 of 6 shards are done" in ended.said
    assert fields.digests(third) == due


Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[1]


def other_code(folder: Path) -> Path:
    """The package, one module of it a row off."""
    installed = folder / "driftcal"
    for name in ("preprocess", "shared"):
        shutil.copytree(ROOT / name, installed / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "shared" / "library" / "__init__.py", installed)
    with (installed / "preprocess" / "drift" / "windows.py").open("a") as file:
        file.write("\nROW = 1\n")
    return folder


def no_code(folder: Path) -> Path:
    """What importing a package that is not there raises; an editable install would be found otherwise."""
    (folder / "driftcal").mkdir(parents=True)
    (folder / "driftcal" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'driftcal'\")")
    return folder


def joined(where: str, n: int) -> None:
    with distributed.Client(where, timeout=60) as looking:
        while len(looking.nthreads()) != n:
            time.sleep(0.05)


def test_workers_of_another_edition_are_given_nothing(
    tmp_path: Path, start: Callable[..., subprocess.Popen], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = fields.small(tmp_path / "input", store={"samples_per_shard": 1})
    where, _ = address(start)
    out = tmp_path / "store"
    command = [manifest, "--out", str(out), "--scheduler", where]

    # nobody: said, and not for ever
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    monkeypatch.setattr(cluster, "LOOKING", 0.1)
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"waiting for workers of {where}: none yet, for 0 of 0 min" in said
    assert "no worker for 0 min. Start workers (dask worker tcp://" in said
    monkeypatch.setattr(cluster, "PATIENCE", 60.0)

    worker = ("dask_worker", where, "--nthreads", "1", "--no-nanny")
    other = start(*worker, code=other_code(tmp_path / "other"))
    joined(where, 1)
    for late in (False, True):  # one that is there at the start, and one that joins later
        with monkeypatch.context() as patched:
            if late:
                patched.setattr(cluster, "check_workers", lambda *_: None)
            assert main(command) == 2
        said = capsys.readouterr().err
        assert "other code in driftcal/preprocess/drift/windows.py" in said.partition("error: ")[2]
        assert "would make other shards" in said
        assert (
            "Install the same driftcal and libraries for the scheduler and all workers, and start them again." in said
        )
        assert "Traceback" not in said
        assert not list(out.glob("*/c"))
    other.kill()
    joined(where, 0)

    bare = start(*worker, code=no_code(tmp_path / "bare"))
    joined(where, 1)
    for late in (False, True):
        with monkeypatch.context() as patched:
            if late:
                patched.setattr(cluster, "check_workers", lambda *_: None)
            assert main(command) == 2
        said = capsys.readouterr().err
        assert "without this driftcal (" in said.partition("error: ")[2]
        assert "No module named 'driftcal'" in said
    bare.kill()
    joined(where, 0)

    start(*worker)
    assert main(command) == 0
    assert fields.digests(out) == fields.digests(fields.make(manifest, tmp_path / "here").root)


def test_a_scheduler_without_the_package(
    tmp_path: Path, start: Callable[..., subprocess.Popen], capsys: Capture
) -> None:
    manifest = fields.small(tmp_path / "input")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    start("dask_scheduler", "--host", "127.0.0.1", "--port", port, code=no_code(tmp_path / "bare"))
    assert main([manifest, "--out", str(tmp_path / "store"), "--scheduler", f"tcp://127.0.0.1:{port}"]) == 2
    said = capsys.readouterr().err
    assert "the scheduler runs without this driftcal (ModuleNotFoundError: No module named 'driftcal')" in said
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", ["nothing", "silence", "web server"])
def test_no_scheduler(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(cluster, "CONNECT", 1)
    manifest = fields.small(tmp_path / "input")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as web:
        if kind == "web server":
            threading.Thread(target=web.serve_forever, daemon=True).start()
        elif kind == "nothing":
            web.socket.close()
        where = f"tcp://127.0.0.1:{web.server_port}"
        assert main([manifest, "--out", str(tmp_path / "store"), "--scheduler", where]) == 2
        if kind == "web server":
            web.shutdown()
    said = capsys.readouterr().err
    assert f"--scheduler {where}: no dask scheduler answers there (" in said
    assert "Name the address that the scheduler prints when it starts" in said


def test_editions() -> None:
    ours = edition.own()
    assert {
        "driftcal",
        "Python",
        "numpy",
        "numcodecs",
        "dask",
        "driftcal/preprocess/writing/shard_task.py",
        "driftcal/shared/store/shard_bytes.py",
    } <= set(ours)
    assert edition.difference(ours, dict(ours)) is None
    assert edition.difference(ours, ours | {"numpy": "1.0"}) == f"numpy 1.0 (expected {ours['numpy']})"
    fewer = {
        name: value for name, value in ours.items() if name not in ("zarr", "driftcal/shared/store/shard_bytes.py")
    }
    told = edition.difference(ours, fewer | {"preprocess/new.py": "0"})
    files = "driftcal/shared/store/shard_bytes.py, preprocess/new.py"
    assert told == f"zarr missing (expected {ours['zarr']}); other code in {files}"


def test_an_edition_is_of_folders_of_code_too(tmp_path: Path) -> None:
    for name in ("a.py", "deep/er/b.py", "deep/c.pyc", "deep/__pycache__/b.cpython-311.pyc", "deep/readme.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert {name for name, _ in edition._sources(tmp_path, "p")} == {"p/a.py", "p/deep/er/b.py", "p/deep/c.pyc"}


def test_an_edition_is_of_the_code_in_memory(tmp_path: Path) -> None:
    """A worker that has run since before an update has the old code, whatever lies on the disk by now."""
    code = (
        "from pathlib import Path\nfrom driftcal.preprocess.writing import edition\nbefore = edition.own()\n"
        "file = Path(edition.__file__).with_name('write.py')\n"
        "assert file.is_relative_to(Path.cwd()), file  # the copy, not the code under test\n"
        "file.write_text('')\n"
        "assert edition.own() == before != edition._read()\n"
    )
    other = other_code(tmp_path / "other")
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(other)}, check=True, cwd=other)
