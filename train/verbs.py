"""The verbs `run` and `evaluate` of `drift-train`, with all that they import: JAX, and a user's code later."""

import argparse
import contextlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from driftcal.shared import command, settings
from driftcal.shared.errors import ConfigError, LimitError, StoreError
from driftcal.shared.store.manifest import to_bytes, write_file
from driftcal.shared.store.reader import ShardStore
from driftcal.train.evaluation import evaluate as evaluation
from driftcal.train.evaluation.evaluation import Evaluation
from driftcal.train.learners.drift import engines
from driftcal.train.machine import devices
from driftcal.train.machine.devices import Devices
from driftcal.train.machine.stop_signals import Stop
from driftcal.train.report import numbers
from driftcal.train.run import examination, loop, run_folder
from driftcal.train.run.folder_lock import FolderLock
from driftcal.train.settings import Training

MOST_OF_TRAINING = 2048
"""Samples on which a run without a validation split is evaluated: all of a large one take as long as training."""

RESUMABLE = "Run the same command with --resume to go on."


def run(options: argparse.Namespace) -> int:
    """Calibrates, examines, evaluates and reports."""
    from driftcal.train.report import report  # noqa: PLC0415 - it brings matplotlib: before a long calibration

    devices.join()
    shared_by = Devices.of(options.devices)
    tree = settings.read_yaml(options.config) if options.config else {}
    training = settings.build(Training, settings.override(tree, options.set), options.config or "training settings")
    store, out = ShardStore(options.store, options.on_bad_shard, training.data.copying), Path(options.out)
    progress = command.progress() and not options.json
    examination.check_groups(store, training, options.group_by)
    with FolderLock(out) as lock, Stop(RESUMABLE) as stop, _results_alone():
        result = loop.run(store, training, out, progress, options.resume, stop, shared_by, lock)
        devices.part()
        if not shared_by.first:
            return 0
        try:
            result = examination.examine(store, training, result, out, progress)
            if options.group_by:
                examination.write_groups(store, training, result, out, options.group_by, progress)
            if store.manifest.splits.get("validation", {}).get("samples"):
                _judge(out, store, "validation", progress)
            else:
                _judge(out, store, "train", progress, MOST_OF_TRAINING)
            page = report.write(out, store)
        except (StoreError, LimitError) as error:
            raise type(error)(
                f"{error} The calibration itself is done and kept ({numbers.found(result)}). For its evaluation and "
                f"report run the same command again with --resume; with --on-bad-shard skip too, damaged samples are "
                f"left out."
            ) from error
    if options.json:
        command.emit(result.as_json())
    else:
        print(report.summary(out))
        print(f"gradient: {result.gradient_reason}")
        print(f"report: {page}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Scores a run on a split of a store, and writes its report anew."""
    from driftcal.train.report import evaluation_text, report  # noqa: PLC0415 - as in `run`

    out = Path(options.run)
    finished = run_folder.read(out)  # else the folder is not one to be locked
    store = ShardStore(options.store, options.on_bad_shard, finished.settings.data.copying)
    progress = command.progress() and not options.json
    with FolderLock(out, "RUN") as lock, _results_alone():
        devices.check()
        lock.take()
        scores = _judge(out, store, options.split, progress)
        page = report.write(out, store)
    if options.json:
        command.emit(scores.as_json())
    else:
        print(evaluation_text.table(scores))
        print(report.headline(out))
        print(f"report: {page}")
    return 0


@contextlib.contextmanager
def _results_alone() -> Iterator[None]:
    """Sends text printed inside, such as by a user's term, to stderr: stdout is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _judge(out: Path, store: ShardStore, split: str, progress: bool, most: int | None = None) -> Evaluation:
    """Evaluates the run in `out` on `split`, and writes what it found there."""
    run = run_folder.read(out)
    digest = run.result.store
    engines.note_other_version(run.result.version, run.result.engine_version, run.settings.engine, out)
    if store.manifest.digest == digest:
        run_folder.keep_training_data(out, store)
        run = run_folder.read(out)
    if run.data is None:
        raise ConfigError(
            f"{out} does not say which drifters it was trained on: it has no {run_folder.DATA}. Run drift-train "
            f"evaluate on its training store ({run.result.store_name}) first."
        )
    trained, own = run.data["trained_drifters"], run_folder.own_of(out, run)
    cs = run.result.cs
    if cs == 0.0 and run.result.log_cs is not None:  # at its bound
        cs = math.exp(run.result.log_cs)
    fitted = run.result.examination and run.result.examination.baselines
    scores, shown = evaluation.evaluate(store, split, run.settings, cs, trained, progress, most, own, digest, fitted)
    write_file(out / run_folder.EVALUATION, to_bytes(scores.as_json()))
    run_folder.keep_examples(out, shown)
    return scores
