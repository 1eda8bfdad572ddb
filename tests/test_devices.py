"""A batch shared by devices gives what one device gives; so does a run resumed on another number of them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from driftcal.shared.errors import ConfigError
from driftcal.shared.store.reader import ShardStore
from driftcal.train.run import loop
from tests import runs, stores

FOUR = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
LOSS = 1e-5
"""Relative tolerance of a batch's loss in float32 on another number of devices."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stores.build(tmp_path_factory.mktemp("devices") / "store", 23, samples_per_shard=8).path


def on_devices(store: Path, folder: Path, epochs: int, precision: str = "float32") -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.on_devices", str(store), str(folder), str(epochs), precision]
    done = subprocess.run(command, env=os.environ | FOUR, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def device_runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("on-devices")
    return on_devices(store, folder, 2), folder


def losses(out: Path) -> np.ndarray:
    return np.array([json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()])


def test_one_two_and_four_devices_take_the_same_samples_and_find_the_same(
    device_runs: tuple[dict[str, Any], Path],
) -> None:
    told, folder = device_runs
    assert told["devices"] == 4
    for n in ("2", "4"):
        assert told[n]["dealt"] == told["1"]["dealt"]
        assert told[n]["steps"] == told["1"]["steps"]
        assert told[n]["cs"] == pytest.approx(told["1"]["cs"], rel=1e-5)
        np.testing.assert_allclose(losses(folder / n), losses(folder / "1"), rtol=LOSS)


@pytest.mark.faults
def test_c_s_agrees_to_a_millionth_after_200_steps(store: Path, tmp_path: Path) -> None:
    """In float32 log C_s = -4.9, where this store's minimum lies, is itself known to 5e-7 only."""
    for precision, rel in (("float64", 1e-9), ("float32", 2e-6)):
        told = on_devices(store, tmp_path / precision, 50, precision)
        assert told["1"]["steps"] > 200
        for n in ("2", "4"):
            assert told[n]["cs"] == pytest.approx(told["1"]["cs"], rel=rel)


def test_a_run_resumes_on_another_number_of_devices(device_runs: tuple[dict[str, Any], Path]) -> None:
    told, folder = device_runs
    assert "saved as of step 3 " in told["stop 3"]
    assert "saved as of step 8 " in told["stop 8"]
    np.testing.assert_allclose(losses(folder / "changing"), losses(folder / "1"), rtol=LOSS)


def test_nothing_crosses_devices_but_what_each_sample_gave(device_runs: tuple[dict[str, Any], Path]) -> None:
    assert device_runs[0]["crossing"] == sorted(
        ["all-gather f32[4]"] * 2  # loss, dispersion
        + ["all-gather f32[4,1]"]  # gradient
        + ["all-gather pred[4]"] * 2  # good, poisoned
        + ["all-gather s32[4]"] * 2  # members escaped, ashore
    )


def test_a_batch_that_does_not_divide_and_devices_that_are_not_there_are_refused(
    device_runs: tuple[dict[str, Any], Path],
) -> None:
    assert device_runs[0]["refused 3"] == (
        "batch_size 4 is not a multiple of the 3 devices that share it. Set batch_size to 3."
    )
    assert device_runs[0]["refused 5"].startswith("--devices 5: there are 4.")


def test_the_native_engine_computes_each_devices_samples_and_no_others(
    device_runs: tuple[dict[str, Any], Path],
) -> None:
    if "native" not in device_runs[0]:
        pytest.skip("the C++ engine cannot be had here")
    assert device_runs[0]["native"] == [[True] * 7] * 2


def test_processes_that_see_a_part_each_leave_nothing_out(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"--on-bad-shard skip: each of 2 processes reads a part.* use one process"):
        loop.run(ShardStore(store, "skip"), runs.settings(), tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


# Two processes

SLOW = """
import time
from driftcal.train.machine import devices
from driftcal.train.run import examination
from driftcal.train.__main__ import entry
devices.PATIENCE = 3
once = examination.examine
def slow(*arguments):
    time.sleep(12)
    return once(*arguments)
examination.examine = slow
entry()
"""


def two_processes(program: list[str], store: Path, out: Path) -> list[tuple[int, str, str]]:
    """Exit code and what was said of each process of a SLURM step of two."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        job = 61440 + free.getsockname()[1] % 4096  # JAX makes the coordinator's port of it
    tiny = {"ensemble.members": 3, "score.reference_members": 2, "integration.step": "3h", "batch_size": 4, "epochs": 2,
            "optimizer.final_passes": 3, "optimizer.curvature_samples": 7}  # fmt: skip
    words = [w for key, value in tiny.items() for w in ("--set", f"{key}={value}")]
    command = [sys.executable, *program, "run", str(store), "--out", str(out), *words]
    step = {"SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    step |= {"SLURM_STEP_NUM_TASKS": "2"}
    two = [
        subprocess.Popen(
            command,
            env=os.environ | step | {"SLURM_PROCID": k, "SLURM_LOCALID": k},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in ("0", "1")
    ]
    said = [process.communicate(timeout=240) for process in two]
    return [(process.returncode, *texts) for process, texts in zip(two, said, strict=True)]


@pytest.mark.faults
def test_two_processes_of_a_slurm_step(store: Path, tmp_path: Path, device_runs: tuple[dict[str, Any], Path]) -> None:
    """The first goes on alone for longer than the other would wait for it."""
    first, second = two_processes(["-c", SLOW], store, tmp_path / "run")
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "C_s = " in first[1]
    assert "C_s = " not in second[1]
    np.testing.assert_array_equal(losses(tmp_path / "run"), losses(device_runs[1] / "2"))


@pytest.mark.faults
def test_where_the_first_process_cannot_begin_the_others_end(store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    first, second = two_processes(["-m", "driftcal.train"], store, tmp_path)
    assert (first[0], second[0]) == (2, 2), first[2] + second[2]
    assert "exists and is not an empty folder" in first[2]
    assert "the first process of the run could not begin. Its message says why." in second[2]
