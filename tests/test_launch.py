"""Processes of a run: what launchers say of them, and that those which do not come are told of soon."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from driftcal.shared.errors import ConfigError
from driftcal.train.machine import launch
from driftcal.train.machine.launch import Launch, launch_of, meet

STEP = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_JOB_ID": "70001",
    "SLURM_STEP_NODELIST": "node[007,009-012],login",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "0",
}
TRIPLE = {"JAX_COORDINATOR_ADDRESS": "host:1234", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "1"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        (STEP, Launch("node007:61809", 4, 2, "SLURM_STEP_NUM_TASKS")),
        (STEP | {"SLURM_STEP_NODELIST": "a1,b2"}, Launch("a1:61809", 4, 2, "SLURM_STEP_NUM_TASKS")),
        (STEP | {"SLURM_STEP_NODELIST": "n[3-5]"}, Launch("n3:61809", 4, 2, "SLURM_STEP_NUM_TASKS")),
        (STEP | {"JAX_COORDINATOR_PORT": "5000"}, Launch("node007:5000", 4, 2, "SLURM_STEP_NUM_TASKS")),
        (STEP | {"JAX_COORDINATOR_ADDRESS": "h:5"}, Launch("h:5", 4, 2, "SLURM_STEP_NUM_TASKS")),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (STEP | {"SLURM_STEP_NUM_TASKS": ""}, None),
        (STEP | {"SLURM_PROCID": " "}, None),
        (TRIPLE, Launch("host:1234", 3, 1, "JAX_NUM_PROCESSES")),
        (dict.fromkeys(TRIPLE, ""), None),
    ],
)
def test_what_the_environment_says(environ: dict[str, str], expected: Launch | None) -> None:
    assert launch_of(environ) == expected


def test_the_address_is_the_one_that_jax_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from jax._src.clusters import SlurmCluster  # noqa: PLC0415 - what is compared with

    for nodes in ("node[007,009-012],login", "a1,b2", "n[3-5]", "alone"):
        for name, value in (STEP | {"SLURM_STEP_NODELIST": nodes}).items():
            monkeypatch.setenv(name, value)
        found = launch_of(os.environ)
        assert found is not None
        assert found.address == SlurmCluster.get_coordinator_address(None, None)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (STEP | {"SLURM_STEP_NUM_TASKS": "four"}, "SLURM_STEP_NUM_TASKS='four': expected a whole number from 1."),
        (STEP | {"SLURM_PROCID": "4"}, "SLURM_PROCID=4 and SLURM_STEP_NUM_TASKS=4: expected a number below 4."),
        (STEP | {"SLURM_JOB_ID": ""}, "says that this process is one of 4, and SLURM_JOB_ID is not set"),
        (TRIPLE | {"JAX_COORDINATOR_ADDRESS": "host"}, "JAX_COORDINATOR_ADDRESS='host': expected host:port"),
        (TRIPLE | {"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID='-1': expected a whole number from 0"),
    ],
)
def test_contradictions_are_named(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        launch_of(environ)
    assert said in str(caught.value)
    assert "unset" in str(caught.value) or "host:port" in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "note: OMPI_COMM_WORLD_SIZE=4 says that this process is one of 4."),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, "note: PMI_SIZE=2 says that this process is one of 2."),
        (
            {"JAX_NUM_PROCESSES": "4"},
            "note: JAX_NUM_PROCESSES without JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID joins no",
        ),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, ""),
        ({"PMI_SIZE": ""}, ""),
    ],
)
def test_other_launchers_are_spoken_of(environ: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch_of(environ) is None
    assert said in capsys.readouterr().err


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def test_all_that_come_meet() -> None:
    address, ended = f"localhost:{free_port()}", []

    def process(number: int) -> None:
        time.sleep(0.3 * (number % 2))
        meet(Launch(address, 4, number, "N"))
        ended.append(number)

    threads = [threading.Thread(target=process, args=(number,)) for number in (3, 1, 2, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ended) == [0, 1, 2, 3]


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_alone_is_told_so_soon(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "ALONE", 1.2)
    monkeypatch.setattr(launch, "QUIET", 0.4)
    address = f"localhost:{free_port()}"
    with pytest.raises(ConfigError) as caught:
        meet(Launch(address, 4, number, "SLURM_STEP_NUM_TASKS"))
    who = "3 other processes of this run" if number == 0 else "the first process of this run"
    assert f"waiting for {who} at {address}: SLURM_STEP_NUM_TASKS=4 says" in capsys.readouterr().err
    said = str(caught.value)
    assert (
        f"SLURM_STEP_NUM_TASKS=4 in the environment says that this process is number {number} of 4, and {who}" in said
    )
    assert "for one process alone, unset SLURM_STEP_NUM_TASKS." in said


def test_strangers_at_the_port_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "ALONE", 1.5)
    port = free_port()

    def stranger() -> None:
        with contextlib.suppress(OSError):
            time.sleep(0.3)
            with socket.create_connection(("localhost", port)) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")

    thread = threading.Thread(target=stranger)
    thread.start()
    with pytest.raises(ConfigError, match="1 other process of this run did not come"):
        meet(Launch(f"localhost:{port}", 2, 0, "N"))
    thread.join()


def test_the_command_ends_by_itself_and_says_how_to_go_on() -> None:
    program = "from driftcal.train.machine import launch; launch.ALONE = 1.0\n"
    program += "from driftcal.train.__main__ import entry; entry()"
    alone = STEP | {"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "localhost", "JAX_COORDINATOR_PORT": str(free_port())}
    command = [sys.executable, "-c", program, "run", "no-store", "--out", "no-run"]
    done = subprocess.run(command, env=os.environ | alone, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "for one process alone, unset SLURM_STEP_NUM_TASKS." in done.stderr
    unset = {name: value for name, value in alone.items() if name != "SLURM_STEP_NUM_TASKS"}
    done = subprocess.run(command, env=os.environ | unset, capture_output=True, text=True, check=False)
    assert "no such store" in done.stderr
