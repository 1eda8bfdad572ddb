"""`drift-train`: from a shard store to a calibrated constant, and its evaluation."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax

from shared import command, settings
from shared.errors import ConfigError
from shared.manifest import to_bytes, write_file
from shared.shards import ShardStore
from train import evaluate, loop, report
from train.config import Training


def _parser() -> argparse.ArgumentParser:
    top = command.parser(
        "drift-train",
        "Calibrates the Smagorinsky constant of the drift simulator on a shard store.",
        "drift-train run stores/agulhas --out runs/agulhas --set ensemble.members=50",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="run | evaluate")
    run = verbs.add_parser(
        "run",
        help="calibrate on the training split and report",
        epilog="example: drift-train run stores/agulhas --out runs/agulhas --set ensemble.members=50",
    )
    run.add_argument("store", metavar="STORE", help="a finished shard store")
    run.add_argument("--out", required=True, metavar="RUN", help="folder for the results; must be new or empty")
    run.add_argument("--config", metavar="FILE", help="YAML with training settings")
    run.add_argument("--set", action="append", default=[], metavar="a.b=c", help="override a setting")
    run.add_argument("--devices", type=int, default=1, metavar="N", help="devices to use (default: 1)")
    command.add_common(run)
    judge = verbs.add_parser(
        "evaluate",
        help="score a run on drifters that it has not seen",
        epilog="example: drift-train evaluate runs/agulhas stores/agulhas --split test",
    )
    judge.add_argument("run", metavar="RUN", help="folder of a finished run")
    judge.add_argument("store", metavar="STORE", help="the store to evaluate on")
    judge.add_argument("--split", default="test", help="train, validation or test (default: %(default)s)")
    command.add_common(judge)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    return command.run(_run if options.verb == "run" else _evaluate, options)


def _run(options: argparse.Namespace) -> int:
    if not 1 <= options.devices <= jax.device_count():
        raise ConfigError(f"--devices {options.devices}: this machine offers {jax.device_count()}.")
    if options.devices > 1:
        raise ConfigError(f"--devices {options.devices}: this version trains on one device.")
    tree = settings.read_yaml(options.config) if options.config else {}
    training = settings.build(Training, settings.override(tree, options.set), options.config or "training settings")
    store, out = ShardStore(options.store), Path(options.out)
    progress = command.progress() and not options.json
    result = loop.run(store, training, out, progress)
    for split in ("validation", "train"):
        if store.manifest.splits.get(split, {}).get("samples"):
            _judge(out, store, split, progress)
            break
    page = report.write(out, store)
    if options.json:
        command.emit(result)
    else:
        print(report.summary(out))
        print(f"report: {page}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    out, store = Path(options.run), ShardStore(options.store)
    progress = command.progress() and not options.json
    scores = _judge(out, store, options.split, progress)
    page = report.write(out, store)
    if options.json:
        command.emit(scores)
    else:
        print(evaluate.render(scores))
        print(report.headline(out))
        print(f"report: {page}")
    return 0


def _judge(out: Path, store: ShardStore, split: str, progress: bool) -> dict[str, Any]:
    """Evaluates the run in `out` on `split`, and writes what it found there."""
    result, training = read_run(out)
    scores, examples = evaluate.evaluate(store, split, training, result["cs"], progress)
    scores["run_store"] = result["store"]
    write_file(out / evaluate.FILE, to_bytes(scores))
    evaluate.save_examples(out, examples)
    return scores


def read_run(out: Path) -> tuple[dict[str, Any], Training]:
    """Result and settings of the finished run in `out`."""
    try:
        result = json.loads((out / loop.RESULT).read_text(encoding="utf-8"))
        tree = json.loads((out / loop.CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{out} is not a finished run: no readable {loop.RESULT} and {loop.CONFIG}. Make one with drift-train run."
        ) from error
    return result, settings.build(Training, tree, str(out / loop.CONFIG))


if __name__ == "__main__":
    sys.exit(main())
