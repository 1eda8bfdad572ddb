"""Figures of a profile: the score against the constant, and the groups' constants as a map or by name."""

from collections.abc import Callable
from functools import partial

import numpy as np

from driftcal.shared.canvas import (
    MATH,
    Axes,
    Figure,
    FuncFormatter,
    LogLocator,
    LogNorm,
    NullFormatter,
    PolyCollection,
    colormaps,
)
from driftcal.shared.inspection import facts
from driftcal.shared.inspection.map_plots import INK, geographic, sheet
from driftcal.train.run.result import GroupedBy, Profile
from driftcal.train.run.run_folder import Run

BLUE, GREY = "#0072B2", "#808080"

MOST_NAMED = 60
"""Groups of a forest plot; the largest are drawn."""

MOST_ESCAPED = 0.01

Z_90 = 1.645
"""Half width of a normal 90 % interval in standard errors."""

CAPTIONS = {
    "profile": """Mean score of some training samples against the constant, always with the same noise (a), and its
        derivative with its 90 % interval (b). The dashed line is the constant found, grey its 90 %
        interval. The curve goes through it, since all samples are known there: what the few miss is taken off. A
        minimum lies where (b) crosses zero upwards. Open circles: more than 1 % of the members leave their window, so
        that the curve is not to be trusted there.""",
    "map": """The constant of every box, shrunk towards the mean of all where data are few; on the second map, how
        uncertain it is: the upper end of its 90 % interval over the lower. Boxes without samples are white; no coast
        is drawn.""",
    "forest": """The constant of every group on its own (grey, 90 % interval) and shrunk towards the mean of all (blue).
        Where data are few the two differ, and the blue one is the better guess. Dashed: the one constant of all
        samples. Numbers: drifters.""",
}


def wanted(run: Run) -> dict[str, Callable[[], Figure] | None]:
    """The figures of a run by name; None where what they are drawn from is missing."""
    profile = run.result.profile
    found: dict[str, Callable[[], Figure] | None] = {}
    if run.parameter is None:
        return found
    name, value = run.parameter
    symbol = "$C_s$" if name == "C_s" else name
    if profile is not None:
        found["profile"] = lambda: against_parameter(profile, symbol, value, run.truth, run.unit, run.interval)
    for number, one in enumerate(run.groups.groupings if run.groups is not None else ()):
        draw = partial(boxes, one, symbol) if one.groups[0].box is not None else partial(forest, one, symbol, value)
        found[f"groups-{number + 1}"] = draw
    return found


def against_parameter(
    profile: Profile,
    symbol: str,
    value: float,
    truth: float | None,
    unit: str,
    interval: tuple[float, ...] | None = None,
) -> Figure:
    """Score and its derivative against the parameter that text calls `symbol`."""
    figure = sheet(2.7)
    left, right = figure.subplots(1, 2)
    at, score, slope = (np.array(values, np.float64) for values in (profile.value, profile.score, profile.gradient))
    error = np.array(profile.gradient_error, np.float64)
    away = np.array(profile.escaped_share) > MOST_ESCAPED
    for ax, values in ((left, score), (right, slope)):
        ax.plot(at, values, color=BLUE, lw=1.4, zorder=2)
        ax.plot(at[~away], values[~away], "o", color=BLUE, ms=3.5, zorder=3)
        ax.plot(at[away], values[away], "o", mfc="white", mec=BLUE, ms=4.5, zorder=3)
        ax.axvline(value, color=INK, lw=1.0, ls=(0, (4, 2)), zorder=1)
        if interval is not None:
            ax.axvspan(*interval, color=INK, alpha=0.12, lw=0, zorder=0)
        if truth is not None:
            ax.axvline(truth, color="#CC79A7", lw=1.0, zorder=1)
        ax.set_xscale("log")
        _plain_ticks(ax, "x")
        ax.set_xlabel(symbol, **MATH)
        ax.spines[["top", "right"]].set_visible(False)
    if np.isfinite(error).all():
        right.fill_between(at, slope - Z_90 * error, slope + Z_90 * error, color=BLUE, alpha=0.2, lw=0)
    right.axhline(0.0, color=GREY, lw=0.8)
    left.set_ylabel(f"mean score [{unit}]")
    right.set_ylabel(f"derivative in log {symbol}", **MATH)
    # far constants are so bad that the minimum would be flat beside them
    near = score[(at > value / 12) & (at < 12 * value)]
    room = 0.08 * float(np.ptp(near))
    left.set_ylim(float(score.min()) - room, float(near.max()) + room)
    steep = np.abs(slope[(at > value / 12) & (at < 12 * value)]).max()
    right.set_ylim(-1.2 * steep, 1.2 * steep)
    for ax, letter in ((left, "a"), (right, "b")):
        ax.set_title(letter, loc="left", fontweight="bold")
    return figure


def _plain_ticks(ax: Axes, which: str) -> None:
    """Ticks at 1, 2, 5 of a logarithmic axis, as plain numbers."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = axis.get_view_interval()
    subs = (1.0,) if high / low > 300 else (1.0, 2.0, 5.0) if high / low > 3 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def forest(one: GroupedBy, symbol: str, common: float) -> Figure:
    """Every group's parameter with its interval, on its own and shrunk, and that of all in `common`."""
    every = one.groups
    largest = set(sorted(range(len(every)), key=lambda k: -every[k].n_samples)[:MOST_NAMED])
    shown = [group for k, group in enumerate(every) if k in largest]
    figure = sheet(0.9 + 0.27 * len(shown), 6.2)
    ax = figure.subplots()
    reach = [v for g in shown for v in g.shrunk_interval_90]
    low, high = 0.8 * min(reach), 1.25 * max(reach)
    for k, group in enumerate(shown):
        for value, ends, offset, colour, size in (
            (group.value, group.interval_90, 0.13, GREY, 3.5),
            (group.shrunk_value, group.shrunk_interval_90, -0.13, BLUE, 4.5),
        ):
            if value is None or ends is None:
                continue
            ax.plot(ends, [k + offset] * 2, color=colour, lw=1.6, solid_capstyle="butt")
            ax.plot([value], [k + offset], "o", color=colour, ms=size)
        label = f"{group.n_drifters:,}"
        ax.annotate(label, (1.01, k), xycoords=("axes fraction", "data"), va="center", fontsize=7, color=INK)
    ax.annotate("drifters", (1.01, -0.6), xycoords=("axes fraction", "data"), va="bottom", fontsize=7, color=INK)
    ax.axvline(common, color=INK, lw=1.0, ls=(0, (4, 2)), zorder=0)
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    _plain_ticks(ax, "x")
    ax.set_yticks(range(len(shown)), [group.name for group in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#DDDDDD", lw=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel(f"{symbol} (logarithmic)", **MATH)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return figure


def boxes(one: GroupedBy, symbol: str) -> Figure:
    """Maps of the boxes' shrunk parameters, and of the ratio of their intervals' ends."""
    groups = one.groups
    box = np.array([group.box for group in groups], np.float64)
    centres = (box[:, :2] + box[:, 2:]) / 2
    region = facts.Region.of(centres)
    middle = 0.0 if region.east - region.west > 350.0 else (region.west + region.east) / 2.0
    shift = 360.0 * np.round((middle - centres[:, 0]) / 360.0)
    box[:, [0, 2]] += shift[:, None]
    values = np.array([group.shrunk_value for group in groups])
    ratio = np.array([group.shrunk_interval_90[1] / group.shrunk_interval_90[0] for group in groups])
    (west, south), (east, north) = box[:, :2].min(axis=0), box[:, 2:].max(axis=0)
    wide = (east - west) * np.cos(np.radians((south + north) / 2)) > 1.3 * (north - south)
    tall = (north - south) / max((east - west) * np.cos(np.radians((south + north) / 2)), 1e-6)
    figure = sheet(min(2 * (1.0 + 5.6 * tall), 9.0) if wide else min(1.0 + 3.2 * tall, 6.0))
    panels = figure.subplots(2, 1) if wide else figure.subplots(1, 2)
    corners = np.stack([box[:, [0, 1]], box[:, [2, 1]], box[:, [2, 3]], box[:, [0, 3]]], axis=1)
    for ax, shown, name, palette in zip(
        panels,
        (values, ratio),
        (f"{symbol}, shrunk", "upper / lower end of its 90 % interval"),
        ("viridis", "magma_r"),
        strict=True,
    ):
        most = max(shown.max(), 1.02 * shown.min())
        drawn = PolyCollection(
            list(corners), array=shown, cmap=colormaps[palette], norm=LogNorm(shown.min(), most), ec="white", lw=0.4
        )
        ax.add_collection(drawn, autolim=False)
        ax.set_xlim(west, east)
        ax.set_ylim(south, north)
        geographic(ax, float((south + north) / 2), 4)
        bar = figure.colorbar(drawn, ax=ax, location="bottom" if not wide else "right", shrink=0.9, aspect=25)
        bar.set_label(name, fontsize=8, **MATH)
        bar.ax.tick_params(labelsize=7)
        _plain_ticks(bar.ax, "x" if not wide else "y")
    return figure
