"""The study: every strategy at every number of steps, each cell in a process of its own and bounded in time."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from driftcal.shared.errors import ConfigError, DataError
from driftcal.shared.text import duration
from driftcal.train.gradient_cost import fitted_laws
from driftcal.train.gradient_cost.measurement import ANSWER, ROUNDS
from driftcal.train.gradient_cost.strategies import STRATEGIES

CROSSOVER_STEPS = 1000
"""Steps at most of the run in which the numbers of parameters are compared."""

LEAST_RUNS = ROUNDS + 2
"""Runs of model and gradient in a cell at least: one for the values, one for the memory, and those that are timed."""


@dataclass(frozen=True)
class Cell:
    """One strategy at one number of steps; numbers are None if it was not run or was stopped.

    Attributes:
        strategy: its name.
        steps: how many.
        note: why there are no numbers; empty where there are.
        compile_s: time to compile the gradient [s].
        model_s: one run of the model [s].
        gradient_s: one run of its gradient [s].
        ratio: of the two.
        compiler_bytes: memory that the compiler sets aside.
        peak_bytes: by how much the process grew during one gradient.
        loss: at the parameters.
        gradient: there.
        error: distance of the gradient from the float64 one, relative to that.
        difference_error: from central differences in float64, likewise.
    """

    strategy: str
    steps: int
    note: str = ""
    compile_s: float | None = None
    model_s: float | None = None
    gradient_s: float | None = None
    ratio: float | None = None
    compiler_bytes: int | None = None
    peak_bytes: int | None = None
    loss: float | None = None
    gradient: list[float] | None = None
    error: float | None = None
    difference_error: float | None = None


@dataclass(frozen=True)
class Study:
    """The measurements of a study.

    Attributes:
        model: its name.
        precision: of the cells.
        parameters: of the model.
        device: what ran it.
        clock: what times are of.
        steps: numbers of steps, ascending.
        memory_cap: that the recommendation keeps to [bytes].
        limit: time that a cell may take [s].
        cells: strategy by strategy, ascending in steps.
        crossover: seconds by the number of parameters; None where it took too long.
    """

    model: str
    precision: str
    parameters: int
    device: str
    clock: str
    steps: list[int]
    memory_cap: int
    limit: float
    cells: list[Cell]
    crossover: dict[str, Any] | None

    def of(self, strategy: str) -> list[Cell]:
        """Its cells that have numbers."""
        return [cell for cell in self.cells if cell.strategy == strategy and not cell.note]

    def strategies(self) -> list[str]:
        """Strategies that were asked for."""
        return list(dict.fromkeys(cell.strategy for cell in self.cells))

    def memory(self, strategy: str) -> fitted_laws.Line | None:
        """Bytes that the compiler sets aside by the number of steps."""
        cells = self.of(strategy)
        return fitted_laws.Line.through([c.steps for c in cells], [c.compiler_bytes or 0 for c in cells])

    def tree(self) -> dict[str, Any]:
        """Measurements with the fitted laws, for JSON."""
        fitted = {}
        for name in self.strategies():
            cells, memory = self.of(name), self.memory(name)
            steps = [c.steps for c in cells]
            fitted[name] = {
                "bytes_per_step": memory and memory.each,
                "bytes_fixed": memory and memory.fixed,
                "time_exponent": fitted_laws.exponent(steps, [c.gradient_s or 0.0 for c in cells]),
                "compile_exponent": fitted_laws.exponent(steps, [c.compile_s or 0.0 for c in cells]),
            }
        return {**asdict(self), "laws": fitted}


class _Slow(Exception):
    """A cell that was stopped."""


def _ask(spec: dict[str, Any], limit: float | None) -> dict[str, Any]:
    """Runs the process of one cell and returns its answer."""
    command = [sys.executable, "-m", "driftcal.train.gradient_cost.measurement", json.dumps(spec)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as error:
        raise _Slow from error
    answers = [line.removeprefix(ANSWER) for line in done.stdout.splitlines() if line.startswith(ANSWER)]
    if done.returncode < 0 or not answers:
        what = f"{spec['what']} of {spec.get('strategy', spec['model'])} at {spec['steps']} steps"
        last = done.stderr.strip().splitlines()[-1:] or [f"signal {-done.returncode}"]
        raise DataError(
            f"the process for {what} ended with {done.returncode} and no result ({last[0]}). Ask for fewer --steps, or "
            f"leave that strategy out with --strategies."
        )
    found = json.loads(answers[-1])
    if "error" in found:
        raise ConfigError(found["error"])
    return found


def _relative(found: Any, wanted: Any) -> float | None:
    size = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(np.asarray(found) - wanted)) / size if size > 0.0 else None


def run(
    model: str, steps: list[int], strategies: list[str], precision: str, memory_cap: int, limit: float, progress: bool
) -> Study:
    """Measures `model`.

    Args:
        model: `column`, `drift` or `module:function`.
        steps: numbers of steps, ascending.
        strategies: names of `STRATEGIES`.
        precision: `float32` or `float64`.
        memory_cap: for the recommendation [bytes].
        limit: time a cell may take [s].
        progress: whether to show a bar.

    Raises:
        ConfigError: the model cannot be loaded, or not run for so many steps.
        DataError: a cell's process died.
    """
    facts = _ask({"what": "check", "model": model, "precision": precision, "steps": 1}, None)
    most = facts["most_steps"]
    if most is not None and steps[-1] > most:
        raise ConfigError(f"--steps {steps[-1]}: the model {model} runs for {most} steps at most.")
    cells: list[Cell] = []
    with tqdm(total=len(steps) * (len(strategies) + 1) + 1, desc="cells", disable=not progress, leave=False) as bar:
        references = {}
        for n in steps:
            references[n] = _quick({"what": "reference", "model": model, "precision": "float64", "steps": n}, limit)
            bar.update()
        for name in strategies:
            spent: dict[int, Spent] = {}
            for n in steps:
                cells.append(_cell(model, name, n, precision, limit, spent, references[n]))
                bar.update()
        middle = max([n for n in steps if n <= CROSSOVER_STEPS] or steps[:1])
        crossover = _quick({"what": "directions", "model": model, "precision": precision, "steps": middle}, limit)
        bar.update()
    clock = "CPU time of one core" if facts["on_cpu"] else "wall clock"
    return Study(
        model,
        precision,
        facts["parameters"],
        facts["device"],
        clock,
        steps,
        memory_cap,
        limit,
        cells,
        None if crossover is None else {"steps": middle, **crossover},
    )


class Spent(NamedTuple):
    """Seconds that a cell took: those that any number of steps takes, and those that grow with it."""

    fixed: float
    growing: float

    @classmethod
    def of(cls, name: str, seconds: float, found: dict[str, Any]) -> "Spent":
        """The time of a cell of strategy `name` that took `seconds`; only unrolled steps compile longer."""
        runs = LEAST_RUNS * (found["model_s"] + found["gradient_s"])
        growing = min(seconds, runs + (found["compile_s"] if name == "unrolled" else 0.0))
        return cls(seconds - growing, growing)


def _quick(spec: dict[str, Any], limit: float) -> dict[str, Any] | None:
    """The answer, or None if it takes longer than `limit`."""
    try:
        return _ask(spec, limit)
    except _Slow:
        return None


def _cell(
    model: str,
    name: str,
    n: int,
    precision: str,
    limit: float,
    spent: dict[int, Spent],
    truth: dict[str, Any] | None,
) -> Cell:
    """One cell; `spent` holds how long the strategy's smaller cells took, and gets this one's time."""
    if spent:
        expected = spent[max(spent)].fixed + fitted_laws.predicted(list(spent), [s.growing for s in spent.values()], n)
        if expected > limit:
            return Cell(name, n, f"not run: would take about {duration(expected)}")
    began = time.perf_counter()
    try:
        found = _ask({"what": "measure", "model": model, "precision": precision, "steps": n, "strategy": name}, limit)
    except _Slow:
        spent[n] = Spent(0.0, limit)
        return Cell(name, n, f"stopped after {duration(limit)}")
    spent[n] = Spent.of(name, time.perf_counter() - began, found)
    if truth is not None:
        slope = np.asarray(found["gradient"])
        found["error"] = _relative(slope, np.asarray(truth["gradient"]))
        found["difference_error"] = _relative(slope[truth["checked"]], np.asarray(truth["differences"]))
    return Cell(name, n, **found)


def known(text: str) -> list[str]:
    """The strategies named in `text`, with commas between; `all` for all of them.

    Raises:
        ConfigError: One of the names is no strategy's.
    """
    names = list(STRATEGIES) if text == "all" else text.split(",")
    for name in names:
        if name not in STRATEGIES:
            raise ConfigError(f"--strategies {name!r}: expected some of {', '.join(STRATEGIES)}.")
    return names
