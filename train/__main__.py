"""`drift-train`: calibrates a constant on a shard store, and evaluates it."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from driftcal.shared import command, paths, settings
from driftcal.shared.errors import ConfigError, LimitError, StoreError
from driftcal.shared.store.manifest import to_bytes, write_file
from driftcal.shared.store.reader import ShardStore
from driftcal.train.machine import environment

environment.drop_empty()
try:
    from driftcal.train.evaluation import evaluate
    from driftcal.train.evaluation.evaluation import Evaluation
    from driftcal.train.gradient_cost import command as cost
    from driftcal.train.learners.drift import engines
    from driftcal.train.machine import devices, modes
    from driftcal.train.machine.devices import Devices
    from driftcal.train.machine.stop_signals import Stop
    from driftcal.train.report import numbers
    from driftcal.train.run import examination, loop, run_folder
    from driftcal.train.run.folder_lock import FolderLock
    from driftcal.train.settings import Training
except ValueError as error:  # JAX reads its variables when it is imported
    command.leave(command.failed(environment.refusal(error)))

MOST_OF_TRAINING = 2048
"""Samples on which a run without a validation split is evaluated: all of a large one take as long as training."""

INTERRUPTED = "interrupted before anything was written. Run the command again."
"""Message after Ctrl-C before the run has begun."""

RESUMABLE = "Run the same command with --resume to go on."


def _parser() -> argparse.ArgumentParser:
    top = command.parser(
        "drift-train",
        "Calibrates the Smagorinsky constant of the drift simulator on a shard store.",
        "drift-train run stores/agulhas --out runs/agulhas --set ensemble.members=50",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="run | evaluate | cost")
    run = verbs.add_parser(
        "run",
        help="calibrate on the training split and report",
        epilog="example: drift-train run stores/agulhas --out runs/agulhas --set ensemble.members=50",
    )
    store, out, config, folder_of_run = map(paths.argument, ("STORE", "--out", "--config", "RUN"))
    run.add_argument("store", metavar="STORE", type=store, help="a finished shard store")
    run.add_argument(
        "--out", required=True, metavar="RUN", type=out, help="folder for the results; new or empty unless --resume"
    )
    run.add_argument("--config", metavar="FILE", type=config, help="YAML with training settings")
    run.add_argument("--set", action="append", default=[], metavar="a.b=c", help="override a setting")
    run.add_argument(
        "--group-by",
        action="append",
        default=[],
        metavar="KEY",
        help="a constant for every grid:DEGREES, latitude:DEGREES, season, month, year or label; may be repeated",
    )
    run.add_argument(
        "--devices", type=int, metavar="N", help="devices to share a batch (default: 1, or all of several processes)"
    )
    run.add_argument("--resume", action="store_true", help="go on where the run in RUN was saved last, if there is one")
    _add_bad_shard(run)
    command.add_common(run)
    judge = verbs.add_parser(
        "evaluate",
        help="score a run on drifters that it has not seen",
        epilog="example: drift-train evaluate runs/agulhas stores/agulhas --split test",
    )
    judge.add_argument("run", metavar="RUN", type=folder_of_run, help="folder of a finished run")
    judge.add_argument("store", metavar="STORE", type=store, help="the store to evaluate on")
    judge.add_argument("--split", default="test", help="train, validation or test (default: %(default)s)")
    _add_bad_shard(judge)
    command.add_common(judge)
    cost.add_verb(verbs)
    return top


def _add_bad_shard(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--on-bad-shard",
        choices=("fail", "skip"),
        default="fail",
        help="what to do where the store is damaged: fail, or skip the samples that cannot be read, and count them "
        "(default: %(default)s)",
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = command.parsed(_parser(), arguments)
    work = {"run": _run, "evaluate": _evaluate, "cost": cost.run}[options.verb]

    def prepared(options: argparse.Namespace) -> int:
        environment.check_flags()
        modes.set_back()
        return work(options)

    return command.run(prepared, options, interrupted=INTERRUPTED)


def entry() -> NoReturn:
    """Entry point of the installed command."""
    command.leave(main())


def _run(options: argparse.Namespace) -> int:
    from driftcal.train.report import report  # noqa: PLC0415 - it brings matplotlib: not for `--help`, and before a long calibration

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


def _evaluate(options: argparse.Namespace) -> int:
    from driftcal.train.report import evaluation_text, report  # noqa: PLC0415 - as in `_run`

    out = Path(options.run)
    run = run_folder.read(out)  # else the folder is not one to be locked
    store = ShardStore(options.store, options.on_bad_shard, run.settings.data.copying)
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
    scores, shown = evaluate.evaluate(store, split, run.settings, cs, trained, progress, most, own, digest)
    write_file(out / run_folder.EVALUATION, to_bytes(scores.as_json()))
    run_folder.keep_examples(out, shown)
    return scores


if __name__ == "__main__":
    entry()
