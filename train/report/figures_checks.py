"""Figure of the model checks: the numbers that each compares, with their intervals."""

import textwrap
from collections.abc import Callable, Mapping

import numpy as np

from driftcal.shared.canvas import MATH, Figure
from driftcal.shared.inspection.map_plots import INK, sheet
from driftcal.train.model_checks.model_check import ModelCheck
from driftcal.train.report.checks_text import title
from driftcal.train.run.run_folder import Run

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#808080"

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MOST_COLOURED = len(COLOURS)
"""Samples up to which each has a colour of its own."""

COLUMNS, LABEL = 3, 28
"""Panels in a row; characters in a line of an axis' label."""

CAPTIONS = {
    "checks": """Numbers that the model checks compare, with the 90 % interval of each by itself; orange where the check
        rejects the model. Points of one panel agree where the model is right, and lie on the thin line where there is
        one: spread over error at 1, mean residuals at 0, the memory of the drifters at that of the members.""",
    "residuals": """Drifter less ensemble mean of training samples, in the plane (a), and by time since the start
        eastward (b) and northward (c): of each sample where they are few, else the mean of all with its 90 % interval.
        Where the model is right paths wander without aim. Straight: a mean drift or wrong currents; loops: inertial
        motion, tides, or an eddy that the currents lack; a cloud that does not grow: errors of position.""",
}


def wanted(run: Run) -> dict[str, Callable[[], Figure] | None]:
    """The figure of a run's checks; None where there are none to draw."""
    checks = {} if run.result.checks is None else run.result.checks.model_checks
    shown = {name: check for name, check in checks.items() if check.estimates}
    found: dict[str, Callable[[], Figure] | None] = {"checks": lambda: panels(shown)} if shown else {}
    kept = run.residuals
    return found | ({} if kept is None or not len(kept["sample"]) else {"residuals": lambda: residuals(kept)})


def residuals(kept: Mapping[str, np.ndarray]) -> Figure:
    """Residuals of samples in the plane, and their mean by lead time."""
    figure = sheet(3.0)
    plane, east, north = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    paths = np.pad(kept["departure"] / 1e3, ((0, 0), (1, 0), (0, 0)))
    days = np.append(0.0, kept["lead_hours"] / 24)
    few = len(paths) <= MOST_COLOURED
    for k, path in enumerate(paths):
        plane.plot(*path.T, color=COLOURS[k] if few else GREY, lw=1.0 if few else 0.5, alpha=1.0 if few else 0.5)
    mean, half = (np.pad(kept[name] / 1e3, ((1, 0), (0, 0))) for name in ("mean", "half_width_90"))
    if not few:
        plane.plot(*mean.T, color=BLUE, lw=2)
    plane.plot(0, 0, "+", color=INK, ms=8)
    plane.set_aspect("equal", adjustable="datalim")
    plane.set_xlabel("east [km]")
    plane.set_ylabel("north [km]")
    plane.set_title("a", loc="left", fontweight="bold")
    for ax, c, letter in ((east, 0, "b"), (north, 1, "c")):
        if few:
            for k, path in enumerate(paths):
                ax.plot(days, path[:, c], color=COLOURS[k], lw=1.0)
        else:
            ax.plot(days, mean[:, c], color=BLUE, lw=1.8)
            ax.fill_between(days, mean[:, c] - half[:, c], mean[:, c] + half[:, c], color=BLUE, alpha=0.2, lw=0)
        ax.axhline(0, color=INK, lw=0.7)
        ax.set_xlim(0, float(days[-1]))
        ax.set_xlabel("lead time [days]")
        ax.set_ylabel(f"{'' if few else 'mean '}residual {'eastward' if c == 0 else 'northward'} [km]")
        ax.set_title(letter, loc="left", fontweight="bold")
    for ax in (plane, east, north):
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def panels(checks: dict[str, ModelCheck]) -> Figure:
    """One panel for every check that compares numbers."""
    n_rows = -(-len(checks) // COLUMNS)
    figure = sheet(0.3 + 1.75 * n_rows)
    axes = np.ravel(figure.subplots(n_rows, COLUMNS, squeeze=False))
    for ax, (name, check) in zip(axes, checks.items(), strict=False):
        colour = ORANGE if check.rejected else BLUE
        for k, one in enumerate(check.estimates):
            if one.interval_90 is not None:
                ax.plot([k, k], one.interval_90, color=colour, lw=1.5, solid_capstyle="butt")
            ax.plot([k], [one.value], "o", color=colour, ms=4)
        expected = {one.expected for one in check.estimates if one.expected is not None}
        for value in expected:
            ax.axhline(value, color=INK, lw=0.7)
        names = [one.name.replace(" third", "").removeprefix("day ") for one in check.estimates]
        ax.set_xticks(range(len(names)), names, fontsize=7)
        ax.set_xlim(-0.6, len(names) - 0.4)
        if check.quantity == "C_s":
            ax.set_ylabel("$C_s$", fontsize=8, **MATH)
        else:
            ax.set_ylabel("\n".join(textwrap.wrap(check.quantity, LABEL)), fontsize=7)
        if check.quantity[:1].isupper() and not expected:  # a positive parameter
            ax.set_ylim(0, None)
        ax.set_title(title(name) + (": rejected" if check.rejected else ""), fontsize=8, color=colour, loc="left")
        ax.tick_params(axis="y", labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[len(checks) :]:
        ax.set_visible(False)
    return figure
