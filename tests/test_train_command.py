"""drift-train as a command: every mistake is one message with an exit code, and its output is what it promises."""

import contextlib
import errno
import io
import json
import os
import re
import resource
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftcal.shared.store import schema
from driftcal.shared.store.reader import ShardStore
from driftcal.train.__main__ import main
from driftcal.train.run.metrics_log import MetricsLog
from tests import fields, stores
from tests.commands import FAST, refused, unwritten_figures

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of five drifters; the last is for test, the one before for validation."""
    return stores.build(tmp_path_factory.mktemp("small") / "store").path


@pytest.fixture(autouse=True)
def unwritten() -> Iterator[None]:
    """Only the figures of `finished`, which is made before, are written."""
    with unwritten_figures():
        yield


def settings(folder: Path, text: str | bytes) -> Path:
    path = folder / "train.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# Configuration


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("ensemble.member=5", "unknown key 'ensemble.member' (did you mean 'ensemble.members'?)"),
        ("optimiser.learning_rate=0.1", "did you mean 'optimizer'?"),
        ("ensemble.members='20'", "ensemble.members: input should be a valid integer, found '20'"),
        ("ensemble.members=true", "ensemble.members: input should be a valid integer, found True"),
        ("ensemble=[20]", "ensemble: "),
        ("ensemble.members=1", "ensemble.members: input should be greater than or equal to 2"),
        ("batch_size=0", "batch_size: input should be greater than or equal to 1"),
        ("epochs=-3", "epochs: input should be greater than or equal to 1"),
        ("initial_cs=.nan", "initial_cs: input should be "),
        ("integration.step=0", "integration.step: expected a positive duration"),
        ("integration.step=7min", "is not a multiple of integration.step (420 s)"),
        ("integration.step", "expected key=value"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, small: Path, capsys: Capture, assignment: str, said: str
) -> None:
    assert said in refused(capsys, 2, "run", small, "--out", tmp_path / "run", "--set", assignment)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "expected a mapping of settings, found list"),
        ("epochs: 1\nepochs: 2", "key 'epochs' occurs twice"),
        ("epochs: !x 1", "could not determine a constructor"),
        ("epochs: &a 1\nseed: *a", "aliases"),
        (b"precision: \xff", "is not UTF-8"),
        ("#" * 2_000_000, "is larger than"),
        ("epoch: 1", "unknown key 'epoch' (did you mean 'epochs'?)"),
    ],
)
def test_a_settings_file_that_cannot_be_read_is_refused(
    tmp_path: Path, small: Path, capsys: Capture, text: str | bytes, said: str
) -> None:
    path = settings(tmp_path, text)
    message = refused(capsys, 2, "run", small, "--out", tmp_path / "run", "--config", path)
    assert said in message
    assert str(path) in message
    assert not (tmp_path / "run").exists()


def test_steps_that_do_not_fit_the_store_are_refused(tmp_path: Path, small: Path, capsys: Capture) -> None:
    out = ("--out", tmp_path / "run", "--set")
    message = refused(capsys, 2, "run", small, *out, "integration.step=4h")
    assert "integration.step is 14400 s; the store's fixes are 10800 s apart" in message
    message = refused(capsys, 2, "run", small, *out, "integration.kappa_every=2d")
    assert "integration.kappa_every is 172800 s; the store's currents are 86400 s apart" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("devices", ["0", "-1", "2", "64"])
def test_more_devices_than_there_are_are_refused(tmp_path: Path, small: Path, capsys: Capture, devices: str) -> None:
    assert f"--devices {devices}" in refused(capsys, 2, "run", small, "--out", tmp_path / "run", "--devices", devices)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_not_empty_is_refused(tmp_path: Path, small: Path, capsys: Capture) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("x")
    assert "is not an empty folder" in refused(capsys, 2, "run", small, "--out", tmp_path / "run")
    assert "is not an empty folder" in refused(capsys, 2, "run", small, "--out", tmp_path / "run" / "mine.txt")
    assert "cannot make" in refused(capsys, 2, "run", small, "--out", tmp_path / "run" / "mine.txt" / "run")
    assert (tmp_path / "run" / "mine.txt").read_text() == "x"


# Stores


def test_an_unfinished_store_is_not_trained_from(tmp_path: Path, capsys: Capture) -> None:
    stores.build(tmp_path / "store", done=2)
    message = refused(capsys, 1, "run", tmp_path / "store", "--out", tmp_path / "run")
    assert "unfinished (no manifest.json)" in message
    assert "no such store" in refused(capsys, 1, "run", tmp_path / "none", "--out", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    assert "not a driftcal store" in refused(capsys, 1, "run", tmp_path / "empty", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_store_of_another_schema_version_is_refused(tmp_path: Path, small: Path, capsys: Capture) -> None:
    shutil.copytree(small, tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"schema_version": schema.VERSION + 1}))
    message = refused(capsys, 1, "run", tmp_path / "store", "--out", tmp_path / "run")
    assert f"written by schema version {schema.VERSION + 1} (driftcal 0.1.0), needs version {schema.VERSION}" in message


def test_a_store_without_a_usable_sample_is_refused(tmp_path: Path, capsys: Capture) -> None:
    stores.build(tmp_path / "store", 5, n_unusable=5, change=lambda v: v["split"].__setitem__(slice(None), -1))
    message = refused(capsys, 1, "run", tmp_path / "store", "--out", tmp_path / "run")
    assert "no sample of split 'train'" in message
    assert not (tmp_path / "run").exists()


def test_a_store_without_the_training_split_is_refused(tmp_path: Path, capsys: Capture) -> None:
    stores.build(tmp_path / "store", n_drifters=1)
    message = refused(capsys, 1, "run", tmp_path / "store", "--out", tmp_path / "run")
    assert "no sample of split 'train' (it holds: " in message
    assert "set split.train above 0 in the data manifest and preprocess again" in message
    assert not (tmp_path / "run").exists()


# A run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small: Path) -> tuple[Path, str]:
    """A tiny run with `--json` from a read-only store, and what it printed."""
    out = tmp_path_factory.mktemp("run") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as printed, stores.read_only(small):
        assert main(["run", str(small), "--out", str(out), "--json", *FAST, "--set", "optimizer.final_passes=1"]) == 0
    return out, printed.getvalue()


def test_json_is_all_there_is_on_stdout(finished: tuple[Path, str], small: Path) -> None:
    out, printed = finished
    result = fields.only_json(printed)
    assert result == json.loads((out / "result.json").read_text())
    keys = "cs cs_standard_error formula score n_samples n_drifters samples_per_second store seed version"
    assert set(keys.split()) <= set(result)
    assert result["store"] == json.loads((small / "manifest.json").read_text())["digest"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    keys = "step epoch loss cs gradient samples_per_second escaped_members poisoned_samples"
    assert all(set(keys.split()) <= set(line) for line in lines)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert np.isfinite([line["loss"] for line in lines]).all()


def test_a_store_is_trained_from_and_evaluated_on_where_it_cannot_be_written(
    tmp_path: Path, finished: tuple[Path, str], small: Path
) -> None:
    """`finished` was trained so."""
    shutil.copytree(finished[0], tmp_path / "run")
    with stores.read_only(small):
        for write in (
            lambda: (small / "x").touch(),
            lambda: (small / "currents" / "x").mkdir(),
            lambda: (small / "manifest.json").unlink(),
            lambda: (small / "manifest.json").write_text("x"),
        ):
            with pytest.raises(OSError, match="Read-only file system"):
                write()
        assert main(["evaluate", str(tmp_path / "run"), str(small), "--split", "test"]) == 0
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["split"] == "test"


def test_a_finished_run_is_not_written_over(finished: tuple[Path, str], small: Path, capsys: Capture) -> None:
    before = fields.digests(finished[0])
    assert "is not an empty folder" in refused(capsys, 2, "run", small, "--out", finished[0])
    assert fields.digests(finished[0]) == before


def test_evaluation_of_a_split_or_a_run_that_is_not_there_is_refused(
    tmp_path: Path, finished: tuple[Path, str], small: Path, capsys: Capture
) -> None:
    assert "'holdout' is not a split" in refused(capsys, 1, "evaluate", finished[0], small, "--split", "holdout")
    stores.build(tmp_path / "store", n_drifters=1, change=lambda v: v["split"].__setitem__(v["split"] == 2, 0))
    assert "no sample of split 'test'" in refused(capsys, 1, "evaluate", finished[0], tmp_path / "store")
    assert "is not a finished run" in refused(capsys, 2, "evaluate", tmp_path, small)


def test_the_run_folder_names_the_drifters_trained_on(
    tmp_path: Path, finished: tuple[Path, str], capsys: Capture
) -> None:
    drifters = [f"{300_234_060 + 17 * k}" for k in range(5)]
    data = json.loads((finished[0] / "training_data.json").read_text())
    assert data["trained_drifters"] == drifters[:3]
    scores = json.loads((finished[0] / "evaluation.json").read_text())
    assert (scores["split"], scores["fit"]) == ("validation", False)
    # the same drifters, split by another seed: training and test have changed places
    stores.build(tmp_path / "store", change=lambda v: v.update(split=np.array([2, 1, 0, -1], np.int8)[v["split"]]))
    message = refused(capsys, 1, "evaluate", finished[0], tmp_path / "store")
    assert "the run was trained on every drifter (by name) of split 'test'" in message
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "training_data.json").unlink()
    message = refused(capsys, 2, "evaluate", tmp_path / "run", tmp_path / "store")
    assert "does not say which drifters it was trained on" in message


def test_a_result_without_its_keys_is_refused(
    tmp_path: Path, finished: tuple[Path, str], small: Path, capsys: Capture
) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text("{}")
    assert "result.json lacks cs, " in refused(capsys, 2, "evaluate", tmp_path / "run", small)


# Damaged stores


def _damaged(small: Path, folder: Path, samples: tuple[int, ...] = (0, 3)) -> Path:
    """A copy whose samples 0, of the training split, and 3, of validation, are damaged."""
    path = shutil.copytree(small, folder / "damaged") / "currents/c/0/0/0/0/0"
    content = bytearray(path.read_bytes())
    for sample in samples:
        (offset,) = struct.unpack_from("<Q", content, len(content) - 4 - 16 * 4 + 16 * sample)
        content[offset + 100] ^= 4
    path.write_bytes(content)
    return folder / "damaged"


def test_a_damaged_shard_ends_a_run(tmp_path: Path, small: Path, capsys: Capture) -> None:
    store = _damaged(small, tmp_path)
    message = refused(capsys, 1, "run", store, "--out", tmp_path / "run", *FAST)
    assert f"currents of sample 0 (shard 0) of {store}: the data do not match their crc32c: damaged" in message
    assert not (tmp_path / "run" / "result.json").exists()
    with pytest.raises(SystemExit) as usage:
        main(["run", str(store), "--out", str(tmp_path / "other"), "--on-bad-shard", "ignore"])
    assert usage.value.code == 2


def test_a_calibration_whose_evaluation_meets_damage_is_kept(tmp_path: Path, small: Path, capsys: Capture) -> None:
    store, out = _damaged(small, tmp_path, (3,)), tmp_path / "run"
    command = ["run", str(store), "--out", str(out), *FAST]
    message = refused(capsys, 1, *command)
    assert f"currents of sample 3 (shard 0) of {store}: the data do not match their crc32c: damaged" in message
    cs = json.loads((out / "result.json").read_text())["cs"]
    kept = re.search(r"The calibration itself is done and kept \(C_s = ([\d.]+)", message)
    assert kept is not None
    assert float(kept[1]) == pytest.approx(cs, rel=0.06)  # told to so many digits as are known
    assert "with --resume; with --on-bad-shard skip too, damaged samples are left out" in message
    assert main([*command, "--resume", "--on-bad-shard", "skip"]) == 0
    assert "1 sample of damaged shards could not be read and was left out: 3." in capsys.readouterr().out
    assert json.loads((out / "result.json").read_text())["cs"] == cs


@pytest.mark.parametrize("sync", [False, True])
def test_metrics_that_cannot_be_written_end_a_run_with_one_message(
    tmp_path: Path, small: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    """As on a full disk; and what it has not taken is not tried again."""
    command = ["run", str(small), "--out", str(tmp_path / "run"), *FAST]
    with monkeypatch.context() as patched:
        if sync:

            def fsync(number: int) -> None:
                metrics = tmp_path / "run/metrics.jsonl"
                if metrics.exists() and os.path.samestat(os.fstat(number), metrics.stat()):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patched.setattr("driftcal.train.run.metrics_log.os.fsync", fsync)
            message = refused(capsys, 1, *command)
        else:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            true = MetricsLog._append

            def limited(record: MetricsLog, line: dict[str, Any]) -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
                try:
                    true(record, line)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, before)

            patched.setattr(MetricsLog, "_append", limited)
            message = refused(capsys, 1, *command)
    assert f"cannot write {tmp_path / 'run/metrics.jsonl'}: " in message
    assert "run the same command again with --resume" in message
    assert main([*command, "--resume"]) == 0


def test_a_run_can_leave_out_what_is_damaged(tmp_path: Path, small: Path, capsys: Capture) -> None:
    store, out = _damaged(small, tmp_path), tmp_path / "run"
    assert main(["run", str(store), "--out", str(out), "--on-bad-shard", "skip", *FAST]) == 0
    warning = "1 sample of damaged shards could not be read and was left out: 0. Run drift-inspect verify"
    said = capsys.readouterr().out
    assert warning in said
    assert warning.replace(": 0.", ": 3.") in said
    assert warning in (out / "report.html").read_text()
    result = json.loads((out / "result.json").read_text())
    assert (result["unreadable_samples"], result["poisoned_samples"]) == ([0], [])
    whole = ShardStore(small).samples_of("train")
    assert result["n_samples"] == len(whole) - 1
    scores = json.loads((out / "evaluation.json").read_text())
    assert (scores["split"], scores["n_split"], scores["n_samples"]) == ("validation", 2, 1)
    assert (scores["unreadable_samples"], scores["poisoned_samples"]) == ([3], [])
    with np.load(out / "examples.npz") as examples:
        assert examples["sample"].tolist() == [8]
    message = refused(capsys, 1, "evaluate", out, store, "--split", "validation")
    assert "currents of sample 3" in message
