"""The recommendation of a study, in words for someone who has never heard of checkpointing."""

import math

from driftcal.shared.text import counted, size
from driftcal.train.gradient_cost import fitted_laws
from driftcal.train.gradient_cost.strategies import STRATEGIES
from driftcal.train.gradient_cost.study import Cell, Study


def best(study: Study) -> Cell | None:
    """The fastest cell within the memory cap, at the most steps at which there is one; of equals, the smaller one."""
    for n in reversed(study.steps):
        fit = [c for c in study.cells if c.steps == n and not c.note and (c.compiler_bytes or 0) <= study.memory_cap]
        if fit:
            fastest = min(c.gradient_s or math.inf for c in fit)
            return min(
                (c for c in fit if (c.gradient_s or math.inf) <= 1.05 * fastest), key=lambda c: c.compiler_bytes or 0
            )
    return None


def crossover(study: Study) -> float | None:
    """Number of parameters from which a checkpointed scan is faster than forward mode; None if it was not measured."""
    if study.crossover is None:
        return None
    line = fitted_laws.Line.through(study.crossover["parameters"], study.crossover["forward_s"])
    return fitted_laws.crossover(line, study.crossover["reverse_s"])


def recommendation(study: Study) -> str:
    """A few sentences."""
    chosen = best(study)
    cap = size(study.memory_cap)
    if chosen is None:
        return f"No way of taking the gradient that was run fits in {cap}. Try fewer steps, or --strategies recursive."
    strategy = STRATEGIES[chosen.strategy]
    said = [
        f"Use {strategy.title}: {strategy.what}.",
        f"For {chosen.steps:,} steps the gradient takes {chosen.ratio:.1f} times as long as the model alone and "
        f"{size(chosen.compiler_bytes or 0)} of memory; no other way that fits in {cap} is clearly faster.",
    ]
    if chosen.steps < study.steps[-1]:
        said.append(f"Nothing that was run fits for {study.steps[-1]:,} steps.")
    said += _plain(study, chosen) + _parameters(study)
    return " ".join(said)


def _plain(study: Study, chosen: Cell) -> list[str]:
    """Limit up to which everything can be kept, if that is not what is recommended."""
    law = study.memory("scan")
    if chosen.strategy == "scan" or law is None or law.each == 0.0:
        return []
    return [
        f"A plain scan keeps {size(law.each)} for every step: {size(law.at(chosen.steps))} for {chosen.steps:,} steps, "
        f"and it fills {size(study.memory_cap)} after about {_round(law.reaches(study.memory_cap)):,}."
    ]


def _parameters(study: Study) -> list[str]:
    number = crossover(study)
    if number is None:
        return []
    if number == math.inf:
        return ["Forward mode is the faster one for any number of parameters that was tried."]
    if number < 1.0:
        return ["Reverse mode is the faster one even for a single parameter."]
    return [
        f"This model has {counted(study.parameters, 'parameter')}. Up to about "
        f"{number:.0f}, forward mode is as fast as a checkpointed scan or faster, and its memory does not grow with "
        "the number of steps; with more, go in reverse."
    ]


def _round(value: float) -> int:
    digits = max(0, int(math.log10(value)) - 1) if value >= 1.0 else 0
    return round(value / 10**digits) * 10**digits


def table(study: Study) -> str:
    """All cells as text, one line each, and the fitted laws."""
    lines = [
        f"model {study.model}: {counted(study.parameters, 'parameter')}, {study.precision}; "
        f"{study.device}, {study.clock}",
        "",
        f"{'':25}{'steps':>7}{'compile s':>11}{'model ms':>10}{'gradient ms':>13}{'ratio':>7}{'compiler':>11}"
        f"{'process':>11}{'vs float64':>12}{'vs differences':>16}",
    ]
    for c in study.cells:
        head = f"{STRATEGIES[c.strategy].title:25}{c.steps:7,}"
        if c.note:
            lines.append(f"{head}  {c.note}")
            continue
        assert c.compile_s is not None
        assert c.model_s is not None
        assert c.gradient_s is not None
        lines.append(
            f"{head}{c.compile_s:11.1f}{c.model_s * 1e3:10.1f}{c.gradient_s * 1e3:13.1f}{c.ratio:7.2f}"
            f"{_known(c.compiler_bytes):>11}{_known(c.peak_bytes):>11}{_error(c.error):>12}"
            f"{_error(c.difference_error):>16}"
        )
    lines += ["", f"{'fitted':25}{'fixed memory':>14}{'a step':>11}{'time ~ steps^':>15}"]
    for name, law in study.tree()["laws"].items():
        if law["bytes_per_step"] is not None:
            lines.append(
                f"{STRATEGIES[name].title:25}{size(law['bytes_fixed']):>14}{size(law['bytes_per_step']):>11}"
                f"{law['time_exponent']:15.2f}"
            )
    return "\n".join(lines)


def _known(n_bytes: int | None) -> str:
    return "-" if n_bytes is None else size(n_bytes)


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
