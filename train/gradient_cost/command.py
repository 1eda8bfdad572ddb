"""`drift-train cost`: its options, and the files that it writes."""

import argparse
import csv
import io
import os
import re
from dataclasses import asdict, fields
from pathlib import Path

from driftcal.shared import command, paths
from driftcal.shared.errors import ConfigError
from driftcal.shared.store.manifest import to_bytes, write_file
from driftcal.shared.text import parse_size
from driftcal.train.gradient_cost import recommendation, study
from driftcal.train.gradient_cost.strategies import STRATEGIES
from driftcal.train.run.folder_lock import FolderLock, contents

EXAMPLE = "drift-train cost --model column --steps 100,1000,5000 --memory-cap 2GB --out cost"


def add_verb(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `cost` to the verbs of `drift-train`."""
    verb = verbs.add_parser(
        "cost",
        help="measure what a gradient through time costs, for a model of your own too",
        description="Measures the time and memory of every way to take a gradient through a model's steps.",
        epilog=f"example: {EXAMPLE}",
    )
    verb.add_argument(
        "--model", default="column", metavar="M", help="column, drift or module:function (default: %(default)s)"
    )
    verb.add_argument("--steps", default="100,1000,5000", metavar="N,N", help="numbers of steps (default: %(default)s)")
    verb.add_argument(
        "--strategies", default=",".join(STRATEGIES), metavar="S,S", help="some of %(default)s (default: all)"
    )
    verb.add_argument("--memory-cap", metavar="SIZE", help="memory to keep to, such as 2GB (default: this machine's)")
    verb.add_argument("--precision", choices=("float32", "float64"), default="float32", help="default: %(default)s")
    verb.add_argument(
        "--limit", type=float, default=60.0, metavar="S", help="seconds that one cell may take (default: 60)"
    )
    out = paths.argument("--out")
    verb.add_argument("--out", required=True, metavar="DIR", type=out, help="folder for the results; new or empty")
    command.add_common(verb)


def run(options: argparse.Namespace) -> int:
    """Measures, writes cost.csv, cost.json and cost.png, prints the tables and the recommendation."""
    out = Path(options.out)
    steps, cap = steps_of(options.steps), memory_of(options.memory_cap)
    strategies = study.known(options.strategies.split(","))
    if not options.limit > 0.0:
        raise ConfigError(f"--limit {options.limit}: expected a positive number of seconds.")
    with FolderLock(out) as lock:
        lock.take()
        if contents(out):
            raise ConfigError(f"--out {out} exists and is not an empty folder. Choose another, or remove it.")
        return _measured(options, steps, strategies, cap, out)


def _measured(options: argparse.Namespace, steps: list[int], strategies: list[str], cap: int, out: Path) -> int:
    """The study, into the folder `out`."""
    from driftcal.shared.inspection.map_plots import save  # noqa: PLC0415 - it brings matplotlib, which only this verb needs
    from driftcal.train.gradient_cost import figure  # noqa: PLC0415

    progress = command.progress() and not options.json
    found = study.run(options.model, steps, strategies, options.precision, cap, options.limit, progress)
    tree = {**found.tree(), "crossover_parameters": None, "recommendation": recommendation.recommendation(found)}
    number = recommendation.crossover(found)
    if number is not None and number != float("inf"):
        tree["crossover_parameters"] = number
    write_file(out / "cost.csv", rows(found).encode())
    write_file(out / "cost.json", to_bytes(tree))
    picture = save(lambda: figure.draw(found), out / "cost.png")
    if options.json:
        command.emit(tree)
    else:
        print(f"{recommendation.table(found)}\n\n{recommendation.recommendation(found)}\nfigure: {picture}")
    return 0


def rows(found: study.Study) -> str:
    """All cells as csv; the gradient's numbers in one column, apart by spaces."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["model", "precision", *(field.name for field in fields(study.Cell))])
    writer.writeheader()
    for cell in found.cells:
        slope = " ".join(repr(value) for value in cell.gradient or [])
        writer.writerow({"model": found.model, "precision": found.precision, **asdict(cell), "gradient": slope})
    return text.getvalue()


def steps_of(text: str) -> list[int]:
    """Numbers of steps, ascending, each once.

    Raises:
        ConfigError: `text` is not such a list.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[1-9][0-9]{0,8}", part) for part in parts):
        raise ConfigError(f"--steps {text!r}: expected whole numbers from 1, such as 100,1000,5000.")
    return sorted({int(part) for part in parts})


def memory_of(text: str | None) -> int:
    """Bytes; of None, the memory of this machine.

    Raises:
        ConfigError: `text` is not a size.
    """
    if text is None:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return parse_size(text, "--memory-cap")
