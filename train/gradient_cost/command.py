"""`drift-train cost`: its options, and the files that it writes."""

import argparse
import csv
import io
import os
import re
from dataclasses import asdict, fields
from pathlib import Path

from driftcal.shared import command
from driftcal.shared.errors import ConfigError
from driftcal.shared.store.manifest import to_bytes, write_file
from driftcal.shared.text import parse_size
from driftcal.train.gradient_cost import recommendation, study
from driftcal.train.run.folder_lock import FolderLock, contents


def run(options: argparse.Namespace) -> int:
    """Measures, writes cost.csv, cost.json and cost.png, prints the tables and the recommendation."""
    out = Path(options.out)
    steps, cap = steps_of(options.steps), memory_of(options.memory_cap)
    strategies = study.known(options.strategies)
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
