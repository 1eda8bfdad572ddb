"""Figures of an evaluation: scores, error and spread, reliability by lead time, histograms of ranks."""

from collections.abc import Callable, Mapping

import numpy as np

from driftcal.shared.canvas import Axes, Figure
from driftcal.shared.inspection.map_plots import INK, sheet
from driftcal.train.evaluation.evaluation import DIAGNOSTICS, SCORES, Curve, Evaluation, Reliability, SystemScores
from driftcal.train.run.run_folder import Run

BLUE, GREY = "#0072B2", "#808080"

KINDS = {"distance": "distance to the members", "east": "east", "north": "north"}
"""Ranks, as axes name them."""

CAPTIONS = {
    "scores": """Mean energy score with its 90 % interval. It grows with the distance to the drifter, and with a spread
        that is too small or too large. All systems face the same drifters, so two of them can differ for certain where
        their intervals overlap.""",
    "spread": """Root mean square error of the ensemble's mean position (solid) and spread of the members about it
        (dashed), by time since the start. Where they agree the ensemble knows how wrong it is; with a spread below the
        error it is too sure of itself.""",
    "reliability": """By time since the start: spread over error (a), and mean rank of the drifter by distance to the
        members, 0 the innermost and 1 the outermost place (b), with 90 % intervals. A reliable ensemble lies on the
        thin line, at 1 and at one half. A ratio below 1 and a rank above one half: too narrow.""",
    "ranks": """How often the drifter has each rank among the members, over all lead times: by distance to the members,
        eastward, northward; bars of the calibrated ensemble with 90 % intervals, steps of the initial one. Level is
        reliable. By distance: rising, too narrow; falling, too wide. East and north: hollow, too narrow; humped, too
        wide; sloping, shifted.""",
}


def wanted(run: Run) -> dict[str, Callable[[], Figure] | None]:
    """The figures of a run's evaluation by name; None for those whose data are missing."""
    scores = run.evaluation
    if scores is None:
        return {"scores": None, "spread": None}
    return {
        "scores": lambda: whiskers(scores.scores),
        "spread": lambda: spread(scores),
        "reliability": lambda: by_lead(scores),
        "ranks": lambda: rank_histograms(scores.reliability),
    }


def spread(evaluation: Evaluation) -> Figure:
    """Error of the ensemble's mean position and the ensemble's spread against lead time."""
    figure = sheet(3.1, 5.2)
    ax = figure.subplots()
    days = np.array(evaluation.lead_hours, np.float64) / 24
    for system, found in evaluation.spread_and_error.items():
        colour, width = (BLUE, 1.8) if system == "calibrated" else (GREY, 1.2)
        for what, values, dashes in (("error", found.error_km, "-"), ("spread", found.spread_km, (0, (5, 2)))):
            ax.plot(days, np.array(values, np.float64), color=colour, lw=width, ls=dashes, label=f"{what}, {system}")
    ax.set_xlim(0, float(days.max()))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("lead time [days]")
    ax.set_ylabel("root mean square distance [km]")
    ax.legend(loc="upper left", handlelength=2.8)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def whiskers(scores: Mapping[str, SystemScores]) -> Figure:
    """Energy score of every system with its 90 % interval."""
    figure = sheet(0.75 + 0.28 * len(scores), 5.2)
    ax = figure.subplots()
    for k, (system, found) in enumerate(scores.items()):
        energy = found.of(SCORES[0])
        colour = BLUE if system == "calibrated" else GREY
        ax.errorbar([energy.mean], [k], xerr=[energy.half or 0.0], fmt="o", color=colour, ms=5, elinewidth=1.6)
    ax.set_yticks(range(len(scores)), list(scores))
    ax.set_ylim(len(scores) - 0.4, -0.6)
    ax.set_xlim(0, 1.05 * ax.get_xlim()[1])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#DDDDDD", lw=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel(f"{SCORES[0].label}, {SCORES[0].direction}")
    ax.spines[["top", "right", "left"]].set_visible(False)
    return figure


def by_lead(evaluation: Evaluation) -> Figure:
    """Spread-skill ratio and mean rank by distance against lead time."""
    figure = sheet(2.7)
    panels = figure.subplots(1, 2)
    days = np.array(evaluation.lead_hours, np.float64) / 24
    ratio, rank = DIAGNOSTICS[:2]
    shown = (
        ("spread_skill_ratio", ratio.name, ratio.reliable),
        ("distance_rank", "mean rank by distance", rank.reliable),
    )
    for ax, (key, name, right), letter in zip(panels, shown, "ab", strict=True):
        for system, found in reversed(evaluation.reliability.items()):
            curve: Curve = getattr(found.by_lead, key)
            colour = BLUE if system == "calibrated" else GREY
            ax.plot(days, curve.mean, color=colour, lw=1.8 if colour == BLUE else 1.2, label=system)
            if curve.interval_90 is not None:
                ax.fill_between(days, *curve.interval_90, color=colour, alpha=0.2, lw=0)
        ax.axhline(right, color=INK, lw=0.7)
        ax.set_xlim(0, float(days.max()))
        ax.set_ylim(0, max(1.0, ax.get_ylim()[1]) if key == "distance_rank" else max(1.3, min(ax.get_ylim()[1], 3.0)))
        ax.set_xlabel("lead time [days]")
        ax.set_ylabel(name)
        ax.set_title(letter, loc="left", fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
    panels[1].set_ylim(0, 1)
    panels[1].legend(loc="lower right")
    return figure


def rank_histograms(reliability: Mapping[str, Reliability]) -> Figure:
    """Histograms of the three ranks."""
    figure = sheet(2.5)
    panels: list[Axes] = list(figure.subplots(1, len(KINDS), sharey=True))
    for ax, (kind, name) in zip(panels, KINDS.items(), strict=True):
        for system, found in reliability.items():
            frequency, ends = np.array(found.ranks[kind].frequency), found.ranks[kind].frequency_interval_90
            edges = np.linspace(0, 1, len(frequency) + 1)
            if system == "calibrated":
                centre, width = (edges[1:] + edges[:-1]) / 2, 0.88 / len(frequency)
                ax.bar(centre, frequency, width, color=BLUE, alpha=0.75, lw=0, label=system)
                if ends is not None:  # with one drifter there are none
                    ax.errorbar(
                        centre, frequency, np.abs(np.array(ends) - frequency), fmt="none", ecolor=INK, elinewidth=0.7
                    )
            else:
                ax.stairs(frequency, edges, color=GREY, lw=1.1, label=system)
        ax.axhline(1.0, color=INK, lw=0.7, ls=(0, (4, 2)))
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.set_xlabel(f"rank: {name}")
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("frequency / uniform")
    panels[0].set_ylim(0, 1.05 * panels[0].get_ylim()[1])
    panels[0].legend(loc="upper left", fontsize=7)
    return figure
