"""`drift-train`: calibrates a constant on a shard store, and evaluates it."""

import argparse
from typing import NoReturn

from driftcal.shared import command, paths
from driftcal.train.machine import environment

INTERRUPTED = "interrupted before anything was written. Run the command again."
"""Message after Ctrl-C before the run has begun."""


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
    _add_cost(verbs)
    return top


def _add_bad_shard(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--on-bad-shard",
        choices=("fail", "skip"),
        default="fail",
        help="what to do where the store is damaged: fail, or skip the samples that cannot be read, and count them "
        "(default: %(default)s)",
    )


def _add_cost(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `cost` to the verbs."""
    verb = verbs.add_parser(
        "cost",
        help="measure what a gradient through time costs, for a model of your own too",
        description="Measures the time and memory of every way to take a gradient through a model's steps.",
        epilog="example: drift-train cost --model column --steps 100,1000,5000 --memory-cap 2GB --out cost",
    )
    verb.add_argument(
        "--model", default="column", metavar="M", help="column, drift or module:function (default: %(default)s)"
    )
    verb.add_argument("--steps", default="100,1000,5000", metavar="N,N", help="numbers of steps (default: %(default)s)")
    verb.add_argument(
        "--strategies",
        default="all",
        metavar="S,S",
        help="names of strategies, such as scan,checkpoint (default: %(default)s)",
    )
    verb.add_argument("--memory-cap", metavar="SIZE", help="memory to keep to, such as 2GB (default: this machine's)")
    verb.add_argument("--precision", choices=("float32", "float64"), default="float32", help="default: %(default)s")
    verb.add_argument(
        "--limit", type=float, default=60.0, metavar="S", help="seconds that one cell may take (default: 60)"
    )
    out = paths.argument("--out")
    verb.add_argument("--out", required=True, metavar="DIR", type=out, help="folder for the results; new or empty")
    command.add_common(verb)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = command.parsed(_parser(), arguments)
    environment.drop_empty()
    try:
        # JAX is imported here and not above: `--help` needs none, and it reads its variables when it is imported
        from driftcal.train import verbs  # noqa: PLC0415
        from driftcal.train.gradient_cost import command as cost  # noqa: PLC0415
        from driftcal.train.machine import modes  # noqa: PLC0415
    except ValueError as error:
        return command.failed(environment.refusal(error))
    work = {"run": verbs.run, "evaluate": verbs.evaluate, "cost": cost.run}[options.verb]

    def prepared(options: argparse.Namespace) -> int:
        environment.check_flags()
        modes.set_back()
        return work(options)

    return command.run(prepared, options, interrupted=INTERRUPTED)


def entry() -> NoReturn:
    """Entry point of the installed command."""
    command.leave(main())


if __name__ == "__main__":
    entry()
