"""Figure of the model checks: the numbers that each compares, with their intervals."""

from collections.abc import Callable

import numpy as np

from driftcal.shared.canvas import Figure
from driftcal.shared.inspection.map_plots import INK, sheet
from driftcal.train.model_checks.model_check import ModelCheck
from driftcal.train.report.checks_text import title
from driftcal.train.run.run_folder import Run

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#808080"

COLUMNS = 3

CAPTIONS = {
    "checks": """Numbers that the model checks compare, with the 90 % interval of each by itself; orange where the check
        rejects the model. Points of one panel agree where the model is right, and lie on the thin line where there is
        one: spread over error at 1, mean residuals at 0, the memory of the drifters at that of the members.""",
}


def wanted(run: Run) -> dict[str, Callable[[], Figure] | None]:
    """The figure of a run's checks; None where there are none to draw."""
    checks = {} if run.result.checks is None else run.result.checks.model_checks
    shown = {name: check for name, check in checks.items() if check.estimates}
    return {"checks": lambda: panels(shown)} if shown else {}


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
        ax.set_ylabel(check.quantity.replace("C_s", "$C_s$"), fontsize=7)
        if check.quantity[:1].isupper() and not expected:  # a positive parameter
            ax.set_ylim(0, None)
        ax.set_title(title(name) + (": rejected" if check.rejected else ""), fontsize=8, color=colour, loc="left")
        ax.tick_params(axis="y", labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[len(checks) :]:
        ax.set_visible(False)
    return figure
