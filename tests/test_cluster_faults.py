"""F2: kill -9 of a dask worker, of the scheduler, of the client."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared import crashpoints
from tests import fields, killing

distributed = pytest.importorskip("distributed")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a scheduler or a worker, which ends with the test."""
    running = []

    def begin(module: str, *options: str, crash: str = "") -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--no-dashboard", *options]
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running.append(subprocess.Popen(command, env={**os.environ, crashpoints.VARIABLE: crash}, **quiet))
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


def test_f2_worker_scheduler_and_client(tmp_path: Path, start: Callable[..., subprocess.Popen]) -> None:
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
    ended = killing.run(command, tmp_path / "said")
    assert ended.code == 0, ended.said
    assert fields.digests(out) == due
    assert dying.wait(60) == killing.KILLED

    # the client dies in the middle, once a shard is done; the cluster goes on, and so does the next client
    other = tmp_path / "client"
    command = [manifest, "--out", str(other), "--scheduler", where]
    client = killing.start(command, tmp_path / "said", crash="metadata: begins")  # at the latest
    while client.is_alive() and not list(other.glob(".building/done-*")):
        time.sleep(0.01)
    client.kill()
    client.join()
    assert client.exitcode == killing.KILLED
    ended = killing.run(command, tmp_path / "said")
    assert ended.code == 0, ended.said
    time.sleep(2)  # what the first client's tasks may still write
    assert fields.digests(other) == due
    assert killing.left(other) == []

    # all workers die, then the scheduler
    where, scheduler = address(start)
    last = start("dask_worker", where, "--nthreads", "1", "--no-nanny", crash="mark: begins@3")
    third = tmp_path / "scheduler"
    command = [manifest, "--out", str(third)]
    client = killing.start([*command, "--scheduler", where], tmp_path / "said")
    last.wait(60)
    time.sleep(1)
    scheduler.kill()
    client.join(90)
    assert client.exitcode == 3, (tmp_path / "said").read_text()
    assert "lost its scheduler or its workers" in (tmp_path / "said").read_text()
    ended = killing.run(command, tmp_path / "said")
    assert ended.code == 0, ended.said
    assert "continuing: 2 of 6 shards are done" in ended.said
    assert fields.digests(third) == due
