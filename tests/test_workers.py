"""Shards that are made at a time: foretold and done alike."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dask import config

from driftcal.preprocess.__main__ import main
from driftcal.preprocess.writing import shard_task, workers
from driftcal.shared.errors import ConfigError
from tests import fields

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 cores without any limit; the folder of its control groups."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(workers, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(workers, "MEMBER", tmp_path / "member")
    (tmp_path / "member").write_text("0::/system.slice/job 7/task\n")
    return tmp_path / "cgroup"


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_cores_that_a_process_may_use(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers.cores() == 64
    write(machine / "system.slice" / "job 7" / "task", cpu__max="max 100000")
    assert workers.cores() == 64
    write(machine / "system.slice" / "job 7", cpu__max="250000 100000")  # a limit of the group above
    assert workers.cores() == 3
    write(machine, cpu__max="40000 100000")  # as in a container, whose own group is mounted
    assert workers.cores() == 1
    machine.joinpath("cpu.max").write_text("nonsense\n")
    assert workers.cores() == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert workers.cores() == 2
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert workers.cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert workers.cores() == 3


def test_cores_by_the_first_version_of_control_groups(machine: Path) -> None:
    workers.MEMBER.write_text("9:name=systemd:/\n4:cpu,cpuacct:/docker/abc\n1:cpuset:/x\n")
    assert workers.cores() == 64
    write(machine / "cpu,cpuacct" / "docker" / "abc", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert workers.cores() == 64
    write(machine / "cpu" / "docker" / "abc", cpu__cfs_quota_us="600000", cpu__cfs_period_us="100000")
    assert workers.cores() == 6
    workers.MEMBER.unlink()
    assert workers.cores() == 64


def test_what_is_asked_for_comes_first(machine: Path) -> None:
    write(machine, cpu__max="500000 100000")
    assert workers.at_once("threads", None, 100) == 5
    assert workers.at_once("processes", None, 3) == 3  # no more than there are shards
    assert workers.at_once("threads", None, 0) == 1
    assert workers.at_once("synchronous", None, 100) == 1
    with config.set(num_workers=7):
        assert workers.at_once("threads", None, 100) == 7
        assert workers.at_once("threads", 9, 100) == 9
    for wrong in (0, "many", True):
        with (
            config.set(num_workers=wrong),
            pytest.raises(ConfigError, match=r"setting num_workers is .* give --workers"),
        ):
            workers.at_once("threads", None, 100)


@pytest.mark.usefixtures("machine")
def test_as_many_are_made_as_were_foretold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Whatever dask's configuration says of a pool."""
    manifest = fields.small(tmp_path / "input", store={"samples_per_shard": 1})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    true, given = shard_task.compute, []

    def compute(*calls: Any, **options: Any) -> Any:
        given.append((options["num_workers"], config.get("pool", None)))
        return true(*calls, **options)

    monkeypatch.setattr(shard_task, "compute", compute)
    capsys.readouterr()
    foretold = {}
    with ThreadPoolExecutor(40) as pool, config.set(pool=pool):
        for k, parts in enumerate(("1/1", "1/3")):
            command = [manifest, "--out", str(tmp_path / f"store-{k}"), "--parts", parts]
            assert main([*command, "--dry-run", "--json"]) == 0
            foretold[parts] = json.loads(capsys.readouterr().out)["estimate"]
            assert main(command) == 0
            capsys.readouterr()
    assert [foretold[parts]["workers"] for parts in ("1/1", "1/3")] == [3, 2]
    assert given == [(3, None), (2, None)]
    each = foretold["1/1"]["memory_bytes_per_worker"]
    assert each <= foretold["1/1"]["memory_bytes"] - foretold["1/3"]["memory_bytes"] < 2 * each


def test_of_a_cluster_memory_is_foretold_for_a_worker(tmp_path: Path, capsys: Capture) -> None:
    manifest = fields.small(tmp_path / "input", store={"samples_per_shard": 1})
    command = [manifest, "--out", str(tmp_path / "store"), "--scheduler", "tcp://127.0.0.1:1", "--dry-run"]
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    foretold = json.loads(capsys.readouterr().out)["estimate"]
    assert foretold["workers"] is None
    assert foretold["memory_bytes_per_worker"] > 300 * 2**20  # the process of the worker, too
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "MB of memory for a worker of one thread, " in said
    assert " of one worker, as fast as" in said
