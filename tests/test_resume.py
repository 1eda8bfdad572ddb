"""Interrupted runs end as the uninterrupted one does, to the last bit; bad checkpoints are reported."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from driftcal.shared.errors import ConfigError, DataError, Interrupted, StoreError
from driftcal.train.fit.sample_gradients import SampleGradients
from driftcal.train.run.checkpoints import Damaged, decode, encode
from driftcal.train.run.folder_lock import FolderLock
from driftcal.train.run.metrics_log import Mean, MetricsLog
from tests import runs, stores

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
TERM = {
    "dynamics": "tests.runs:Anisotropic",
    "integration": {"step": "3h", "scheme": "euler"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stores.build(tmp_path_factory.mktemp("resume") / "store", 23, samples_per_shard=8).path


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    """The run that nobody interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    runs.train(store, out, runs.settings())
    return out


@pytest.fixture
def interrupted_run(tmp_path: Path, store: Path) -> Path:
    """A run stopped in its second epoch, with checkpoints of steps 0, 4 and 7."""
    out = tmp_path / "half"
    with pytest.raises(Interrupted), runs.stopped_at(7, "SIGTERM"):
        runs.train(store, out, runs.settings())
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == [f"step-{k:08d}.npz" for k in (0, 4, 7)]
    return out


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


# Signals


def test_the_run_that_is_interrupted_has_all_phases(finished_run: Path) -> None:
    assert {"epoch 1 of 2", "epoch 2 of 2", "final pass 1", "curvature", "final pass 2"} <= {
        line["phase"] for line in lines(finished_run)
    }


@pytest.mark.parametrize("seed", range(4))
def test_signals_at_random_steps_change_no_bit(finished_run: Path, store: Path, tmp_path: Path, seed: int) -> None:
    stops_at_random_steps(finished_run, store, tmp_path, seed)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(100, 150))
def test_fifty_sigterms_change_no_bit(finished_run: Path, store: Path, tmp_path: Path, seed: int) -> None:
    stops_at_random_steps(finished_run, store, tmp_path, seed, ("SIGTERM",), 1)


def stops_at_random_steps(
    finished_run: Path, store: Path, tmp_path: Path, seed: int, names: tuple[str, ...] = SIGNALS, most: int = 4
) -> None:
    rng = np.random.default_rng(seed)
    at = np.sort(rng.choice(np.arange(1, len(lines(finished_run)) + 1), rng.integers(1, most + 1), replace=False))
    stops = [(int(step), str(rng.choice(names))) for step in at]
    told = runs.settings(checkpoint={"every_steps": int(rng.integers(1, 9)), "keep": 2})
    said = runs.interrupted(store, tmp_path / "run", told, stops)
    for (step, name), message in zip(stops, said, strict=True):
        assert f"interrupted by {name}; the run is saved as of step {step} in " in message
    ours, theirs = runs.contents(tmp_path / "run"), runs.contents(finished_run)
    ours["config.json"] = theirs["config.json"]  # holds how often it was saved
    assert ours == theirs


def test_parameters_optimiser_and_passes_are_the_same_bits(store: Path, tmp_path: Path) -> None:
    told = runs.settings(checkpoint={"every_steps": 1})
    runs.train(store, tmp_path / "whole", told)
    runs.interrupted(store, tmp_path / "run", told, [(3, "SIGTERM"), (9, "SIGUSR1"), (21, "SIGINT")])
    theirs = runs.last_state(tmp_path / "whole")
    assert {"descent/000", "pass-0/gradient", "distinct"} <= theirs.keys()
    assert runs.last_state(tmp_path / "run") == theirs


@pytest.mark.usefixtures("usual_dtypes")  # optax's Adam mixes them
@pytest.mark.parametrize(
    ("more", "stops"),
    [
        (
            TERM | {"batch_size": 7, "ensemble": {"members": 10}, "optimizer": {"final_passes": 2}},
            [2, 5, 17, 30],
        ),  # approach, curvature of two parameters
        ({"optimizer": {"method": "adam", "final_passes": 1}, "epochs": 3, "precision": "float64"}, [4, 12]),
    ],
)
def test_other_ways_of_training_resume_to_the_same_bits(
    store: Path, tmp_path: Path, more: dict, stops: list[int]
) -> None:
    told = runs.settings(**more)
    runs.train(store, tmp_path / "whole", told)
    runs.interrupted(store, tmp_path / "run", told, [(step, "SIGTERM") for step in stops])
    assert runs.contents(tmp_path / "run") == runs.contents(tmp_path / "whole")


def test_the_command_leaves_with_3_and_says_how_to_go_on(store: Path, tmp_path: Path) -> None:
    told = [w for key in ("ensemble.members=3", "integration.step=3h", "batch_size=3") for w in ("--set", key)]
    command = [sys.executable, "-c", STOPPED, "run", str(store), "--out", str(tmp_path / "run"), *told]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 3, first.stderr
    assert first.stderr == (
        f"error: interrupted by SIGUSR1; the run is saved as of step 3 in {tmp_path}/run/checkpoints/"
        f"step-00000003.npz. Run the same command with --resume to go on.\n"
    )
    assert len(lines(tmp_path / "run")) == 3


STOPPED = """
import sys
from tests.runs import stopped_at
from driftcal.train.__main__ import entry
with stopped_at(3, "SIGUSR1"):
    entry()
"""


# Kills


def test_kills_inside_a_save_and_at_random_steps_change_no_bit(finished_run: Path, store: Path, tmp_path: Path) -> None:
    kills(finished_run, store, tmp_path, 2, 0)


@pytest.mark.faults
def test_a_hundred_kills_change_no_bit(finished_run: Path, store: Path, tmp_path: Path) -> None:
    kills(finished_run, store, tmp_path, 100, 1)


def kills(finished_run: Path, store: Path, tmp_path: Path, n: int, seed: int) -> None:
    """`n` kills over several runs, each in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill_train", str(store), str(finished_run), str(tmp_path), str(n), str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] == n
    assert told["different"] == []
    assert told["left"] == []
    assert told["most_steps_lost"] <= runs.TINY["checkpoint"]["every_steps"]


# Checkpoints that are not good


def test_a_checkpoint_is_an_archive_that_numpy_reads(tmp_path: Path) -> None:
    arrays = {"a/b": np.arange(6.0).reshape(2, 3), "n": np.array(7)}
    path = tmp_path / "c.npz"
    path.write_bytes(encode(5, {"store": "s"}, {"passes": 0}, arrays))
    with np.load(path) as held:
        np.testing.assert_array_equal(held["a/b"], arrays["a/b"])
    saved = decode(path)
    assert (saved.step, saved.identity, saved.about) == (5, {"store": "s"}, {"passes": 0})
    assert saved.arrays.keys() == arrays.keys()


def test_every_flipped_bit_and_every_cut_of_a_checkpoint_is_found(interrupted_run: Path, tmp_path: Path) -> None:
    content = (interrupted_run / "checkpoints" / "step-00000007.npz").read_bytes()
    rng, path = np.random.default_rng(3), tmp_path / "c.npz"
    for bit in rng.choice(8 * len(content), 400, replace=False):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(changed)
        with pytest.raises(Damaged, match="do not match their checksum"):
            decode(path)
    for size in (0, 1, 63, 64, 65, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(Damaged, match=f"its {size} bytes do not match"):
            decode(path)


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "text", "other archive", "two", "older metrics"])
def test_a_bad_checkpoint_is_set_aside_and_the_one_before_is_taken(
    interrupted_run: Path, finished_run: Path, store: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = interrupted_run / "checkpoints" / "step-00000007.npz"
    content = newest.read_bytes()
    broken = {
        "changed": content[:500] + b"?" + content[501:],
        "cut": content[:-100],
        "empty": b"",
        "text": b"not a checkpoint\n" * 99,
    }
    newest.write_bytes(broken.get(damage, content))
    if damage == "other archive":
        np.savez(newest, a=np.arange(3))
    if damage == "two":
        newest.write_bytes(b"")
        (interrupted_run / "checkpoints" / "step-00000004.npz").write_bytes(b"")
    if damage == "older metrics":
        metrics = interrupted_run / "metrics.jsonl"
        metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[:5]))
    runs.train(store, interrupted_run, runs.settings(), resume=True)
    said = capsys.readouterr().err
    assert f"WARNING: {newest}: " in said
    assert f"set aside as {newest.name}.damaged; an earlier checkpoint is tried" in said
    assert said.count("WARNING") == (2 if damage == "two" else 1)
    assert runs.contents(interrupted_run) == runs.contents(finished_run)


def test_a_run_without_a_good_checkpoint_is_refused(interrupted_run: Path, store: Path) -> None:
    for path in (interrupted_run / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(StoreError, match=r"none of its 3 checkpoints is good.*Start it afresh in another --out"):
        runs.train(store, interrupted_run, runs.settings(), resume=True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"ensemble": {"members": 4}}, "ensemble.members was 3, now 4"),
        ({"data": {"run_length": 2}}, "data.run_length was 1, now 2"),
        ({"batch_size": 5, "initial_cs": 0.2}, "batch_size was 3, now 5; initial_cs was 0.1, now 0.2"),
    ],
)
def test_another_configuration_is_refused(interrupted_run: Path, store: Path, more: dict, said: str) -> None:
    before = {path: path.read_bytes() for path in interrupted_run.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as caught:
        runs.train(store, interrupted_run, runs.settings(**more), resume=True)
    assert f"belongs to another run: {said}. Resume with what the run was begun with" in str(caught.value)
    assert {path: path.read_bytes() for path in interrupted_run.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_another_configuration_is_refused(interrupted_run: Path, store: Path) -> None:
    (interrupted_run / "config.json").unlink()
    (interrupted_run / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"step-00000007.npz belongs to another run: seed was 0, now 3"):
        runs.train(store, interrupted_run, runs.settings(seed=3), resume=True)


def test_another_store_is_refused(interrupted_run: Path, tmp_path: Path) -> None:
    other = stores.build(tmp_path / "other", 23, samples_per_shard=8, seed=5).path
    with pytest.raises(ConfigError, match=r"step-00000007.npz belongs to another run: store was '[0-9a-f]{64}', now"):
        runs.train(other, interrupted_run, runs.settings(), resume=True)


@pytest.mark.parametrize(
    "more",
    [
        {"checkpoint": {"every": "1h", "keep": 1}},
        {"data": {"threads": 1, "copying": "plain", "prefetch": False, "stall_timeout": "1h"}},
    ],
)
def test_how_often_to_save_and_how_to_read_may_change(
    interrupted_run: Path, finished_run: Path, store: Path, more: dict
) -> None:
    runs.train(store, interrupted_run, runs.settings(**more), resume=True)
    ours, theirs = runs.contents(interrupted_run), runs.contents(finished_run)
    assert ours.pop("config.json") != theirs.pop("config.json")
    assert ours == theirs


# Where there is nothing to resume


def test_resume_begins_a_run_that_is_not_there(finished_run: Path, store: Path, tmp_path: Path) -> None:
    runs.train(store, tmp_path / "new", runs.settings(), resume=True)
    assert runs.contents(tmp_path / "new") == runs.contents(finished_run)
    shutil.rmtree(tmp_path / "new" / "checkpoints")  # as if it had been killed before the first
    (tmp_path / "new" / "result.json").unlink()
    (tmp_path / "new" / ".config.json.12345678.part").write_text("{")
    runs.train(store, tmp_path / "new", runs.settings(), resume=True)
    assert runs.contents(tmp_path / "new") == runs.contents(finished_run)


def test_resume_of_a_finished_run_does_nothing_again(finished_run: Path, store: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    before = metrics.stat().st_mtime_ns
    result = runs.train(store, tmp_path / "run", runs.settings(), resume=True)
    assert result.as_json() == json.loads((finished_run / "result.json").read_text())
    assert metrics.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="belongs to another run: epochs was 2, now 3"):
        runs.train(store, tmp_path / "run", runs.settings(epochs=3), resume=True)


def test_resume_leaves_what_is_not_a_run_alone(store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds no run of drift-train, and is not empty"):
        runs.train(store, tmp_path, runs.settings(), resume=True)
    with pytest.raises(ConfigError, match="not an empty folder"):
        runs.train(store, tmp_path, runs.settings())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_only_the_last_few_are_kept(finished_run: Path) -> None:
    kept = sorted(path.name for path in (finished_run / "checkpoints").iterdir())
    n = len(lines(finished_run))
    assert kept == [f"step-{k:08d}.npz" for k in range(0, n + 1, 4)][-3:]
    assert decode(finished_run / "checkpoints" / kept[-1]).about["step"] == n // 4 * 4


def test_two_processes_do_not_write_one_run(interrupted_run: Path, store: Path) -> None:
    before = {path: path.read_bytes() for path in interrupted_run.rglob("*") if path.is_file()}
    with FolderLock(interrupted_run) as lock:
        lock.take()
        with pytest.raises(ConfigError, match="another process is writing there"):
            runs.train(store, interrupted_run, runs.settings(), resume=True)
    assert {path: path.read_bytes() for path in interrupted_run.rglob("*") if path.is_file()} == before


# Divergence


def test_divergence_names_the_last_good_checkpoint(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: MetricsLog, numbers: np.ndarray, parameters: jax.Array, gradients: SampleGradients) -> Mean:
        return write(self, numbers, parameters, gradients._replace(gradient=-1e6 * np.ones_like(gradients.gradient)))

    write = MetricsLog.write
    monkeypatch.setattr(MetricsLog, "write", away)
    told = runs.settings(epochs=40)
    with pytest.raises(DataError, match=r"C_s went to .*The last good checkpoint is .*checkpoints/step-0.*npz\.$"):
        runs.train(store, tmp_path / "run", told)
    good = sorted((tmp_path / "run" / "checkpoints").glob("*.npz"))[-1]
    assert np.isfinite(decode(good).arrays["descent/000"]).all()
