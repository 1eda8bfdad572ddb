"""The figure of a study: memory and time against the number of steps, and forward against reverse mode."""

from collections.abc import Sequence

import numpy as np

from driftcal.shared.canvas import Axes, Figure, FuncFormatter, NullFormatter
from driftcal.shared.inspection.map_plots import INK, sheet
from driftcal.shared.text import counted, duration, size
from driftcal.train.gradient_cost import fitted_laws, recommendation
from driftcal.train.gradient_cost.strategies import STRATEGIES
from driftcal.train.gradient_cost.study import Study

COLOURS = {
    "loop": "#999999",
    "unrolled": "#E69F00",
    "scan": "#D55E00",
    "checkpoint": "#0072B2",
    "segments": "#56B4E9",
    "recursive": "#CC79A7",
    "forward": "#009E73",
}
"""Colours of Okabe and Ito (2008)."""

MARKERS = dict(zip(COLOURS, "sDo^v<P", strict=True))


def draw(study: Study) -> Figure:
    """The figure."""
    figure = sheet(6.4, 9.6)
    grid = figure.add_gridspec(2, 3, height_ratios=[1.0, 0.34])
    memory, time, parameters = (figure.add_subplot(grid[0, k]) for k in range(3))
    _memory(memory, study)
    _time(time, study)
    _parameters(parameters, study)
    words = figure.add_subplot(grid[1, :])
    words.axis("off")
    handles, _ = memory.get_legend_handles_labels()
    labels = [f"{STRATEGIES[name].title}: {STRATEGIES[name].what}" for name in _drawn(study)]
    words.legend(handles, labels, loc="upper left", fontsize=7.5, frameon=False, borderaxespad=0.0)
    figure.suptitle(
        f"Taking the gradient of a model through its steps: what it costs\n({study.model}, "
        f"{counted(study.parameters, 'parameter')}, {study.precision})",
        fontsize=11,
    )
    return figure


def _drawn(study: Study) -> list[str]:
    return [name for name in study.strategies() if study.of(name)]


def _lines(ax: Axes, study: Study, values: str) -> None:
    for name in _drawn(study):
        cells = study.of(name)
        numbers = [getattr(c, values) for c in cells]
        style = {"color": COLOURS[name], "marker": MARKERS[name], "ms": 4.5, "lw": 1.4}
        ax.plot([c.steps for c in cells], numbers, label=STRATEGIES[name].title, **style)
    ax.set_xscale("log")
    ax.set_xticks(study.steps, [f"{n:,}" for n in study.steps])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("steps of the model")
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.25, lw=0.5)


def _memory(ax: Axes, study: Study) -> None:
    _lines(ax, study, "compiler_bytes")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
    ax.yaxis.set_minor_formatter(NullFormatter())
    low, high = ax.get_ylim()
    if study.memory_cap < 30 * high:
        ax.axhline(study.memory_cap, color=INK, lw=1.0, ls="--")
        ax.annotate(
            "memory there is",
            (study.steps[0], study.memory_cap),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=7.5,
        )
        ax.set_ylim(low, max(high, 3 * study.memory_cap))
    ax.set_title("Memory that the gradient needs", fontsize=9.5)


def _time(ax: Axes, study: Study) -> None:
    _lines(ax, study, "ratio")
    ax.axhline(1.0, color=INK, lw=1.0, ls=":")
    ax.annotate("the model alone", (study.steps[0], 1.0), xytext=(0, 3), textcoords="offset points", fontsize=7.5)
    ax.set_ylim(0.0, max(2.0, 1.12 * ax.get_ylim()[1]))
    ax.set_title("Time of the gradient,\nin runs of the model", fontsize=9.5)


def _parameters(ax: Axes, study: Study) -> None:
    ax.set_title("Forward mode or reverse?", fontsize=9.5)
    ax.set_xlabel("parameters")
    if study.crossover is None:
        ax.text(0.5, 0.5, f"not measured:\nlonger than {duration(study.limit)}", ha="center", transform=ax.transAxes)
        return
    counts: Sequence[int] = study.crossover["parameters"]
    alone = study.crossover["model_s"]
    forward = np.asarray(study.crossover["forward_s"]) / alone
    reverse = study.crossover["reverse_s"] / alone
    line = fitted_laws.Line.through(counts, forward.tolist())
    ax.plot(counts, forward, MARKERS["forward"], color=COLOURS["forward"], ms=4.5)
    if line is not None:
        ends = np.array([1.0, counts[-1]])
        ax.plot(ends, line.fixed + line.each * ends, color=COLOURS["forward"], lw=1.4)
    ax.annotate(
        "forward mode",
        (counts[-1], forward[-1]),
        xytext=(-4, 2),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=COLOURS["forward"],
    )
    ax.axhline(reverse, color=COLOURS["checkpoint"], lw=1.4)
    ax.annotate(
        "reverse, checkpointed step",
        (counts[-1], reverse),
        xytext=(0, -10),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=COLOURS["checkpoint"],
    )
    number = recommendation.crossover(study)
    if number is not None and 1.0 <= number <= counts[-1]:
        ax.axvline(number, color=INK, lw=1.0, ls=":")
        ax.annotate(f"equal at {number:.1f}", (number, 0.0), xytext=(4, 5), textcoords="offset points", fontsize=8)
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel("runs of the model", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.25, lw=0.5)
