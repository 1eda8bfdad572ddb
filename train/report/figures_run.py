"""Figures of a run, for its page and for papers: convergence, examples, spread against error, scores, data.

Pure functions of numbers; `render` makes bytes that depend on nothing else: no clock, no settings of the user's
matplotlib. Colours are told apart by colour-blind readers (Okabe and Ito 2008), and no meaning rests on them alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from driftcal.shared import geo
from driftcal.shared.canvas import (
    MATH,
    Axes,
    Figure,
    FuncFormatter,
    Line2D,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    content,
    settled,
    withStroke,
)
from driftcal.shared.inspection import facts
from driftcal.shared.inspection.map_plots import INK, WIDTH, mean_current, origins, sheet, window
from driftcal.shared.store.reader import ShardStore
from driftcal.train.run.result import Result

STYLE = {"font.size": 9, "axes.labelsize": 9, "axes.titlesize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8}
STYLE |= {"legend.fontsize": 8, "legend.frameon": False, "pdf.fonttype": 42}  # fonts that a journal can edit

BLUE, ORANGE, GREEN, TRUTH, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#808080"
PHASES = {"epoch": ("descent", BLUE, "o"), "final pass": ("final passes", ORANGE, "s")}
PHASES |= {"curvature": ("curvature", GREEN, "^")}
"""Label in the figures, colour and marker, by the start of a phase's name in `metrics.jsonl`."""

MARGIN = 0.15
"""Room around the tracks of an example, as a share of their extent."""

LEAST_MAP = 4.0
"""Least extent of the map of starts [degrees], so that a single drifter is seen in its place."""

CAPTIONS = {
    "convergence": """Loss of every batch (a), and the constant at which it was taken (b); the final constant with its
        90 % interval, enlarged (c). Descent moves the constant after every batch, final passes hold it, and the
        curvature is measured from 10 % below and above. A sound run is level in (b) long before its descent ends, and
        its final passes lie close to the final constant.""",
    "parameters": """Loss of every batch, and the parameters at which it was taken; the final ones with their 90 %
        intervals. The curvature is measured a little to both sides. A sound run ends level.""",
    "examples": """Observed drifters (orange, from the circle), calibrated ensembles (grey), and the mean current of
        those days (arrows; shading, land grey-brown). The ensemble should hold the drifter, and be no wider than that
        takes. The samples are spread evenly over the split, not chosen.""",
    "drifters": """Where the training samples start; no coastline is drawn. The constant holds for such waters, and is
        extrapolated elsewhere.""",
}
"""Captions of all figures."""


def render(make: Callable[[], Figure]) -> dict[str, bytes]:
    """The figure that `make` draws, as png for the page and pdf for papers."""
    with settled(STYLE):
        figure = make()
        return {ending: content(figure, ending) for ending in ("png", "pdf")}


def convergence(steps: Sequence[Mapping[str, Any]], result: Result, truth: float | None, unit: str) -> Figure:
    """Loss and constant against step, and the final constant beside the truth, where it is known.

    Args:
        steps: Lines of `metrics.jsonl`.
        result: The run's result.
        truth: The constant that made the drifters of a twin experiment.
        unit: Of the loss.
    """
    assert result.cs is not None
    assert result.log_cs is not None
    cs, figure = result.cs or float(np.exp(result.log_cs)), sheet(4.6)  # a constant at its bound is shown as it was
    band, scale = (
        None if result.at_bound else result.cs_interval_90,
        {"height_ratios": (1.0, 1.15), "width_ratios": (4.6, 1.0)},
    )
    (loss, corner), (path, final) = figure.subplots(2, 2, gridspec_kw=scale)
    at = np.array([line["step"] for line in steps])
    losses, constants = (np.array([line[name] for line in steps], np.float64) for name in ("loss", "cs"))
    for phase, (label, colour, marker) in PHASES.items():
        which = np.array([line["phase"].startswith(phase) for line in steps])
        if which.any():
            size = float(np.clip(60 / np.sqrt(which.sum()), 1.2, 4.5))
            style = {"ls": "", "marker": marker, "ms": size, "color": colour, "mew": 0, "rasterized": len(at) > 2000}
            loss.plot(at[which], losses[which], alpha=0.45 if which.sum() > 60 else 0.9, label=label, **style)
            path.plot(at[which], constants[which], zorder=3, **style)
        if phase == "epoch":
            _smooth(loss, at[which], losses[which])
    loss.set_ylabel(f"loss [{unit}]")
    loss.sharex(path)
    loss.tick_params(labelbottom=False)
    path.set_xlabel("step (one batch)")
    path.set_ylabel("$C_s$ (logarithmic)", **MATH)
    path.set_yscale("log")
    path.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    for ax in (path, final):
        ax.axhline(cs, color=INK, lw=1.1, label="final $C_s$", zorder=1)
        if band is not None:
            ax.axhspan(*band, color=INK, alpha=0.15, lw=0, label="its 90 % interval", zorder=0)
        if truth is not None:
            ax.axhline(truth, color=TRUTH, lw=1.4, ls=(0, (4, 2)), label="true $C_s$", zorder=2)
    known = np.array([cs, *(band or ()), *(() if truth is None else (truth,))])
    _log_ticks(path, min(known.min(), constants.min()), max(known.max(), constants.max()))
    _enlarge(final, known, band)
    for ax, letter in ((loss, "a"), (path, "b"), (final, "c")):
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_title(letter, loc="left", fontweight="bold")
    handles, labels = ([*a, *b] for a, b in zip(*(ax.get_legend_handles_labels() for ax in (loss, path)), strict=True))
    corner.set_axis_off()
    key = corner.legend(handles, labels, loc="upper left", borderaxespad=0, handlelength=1.4, bbox_to_anchor=(-0.35, 1))
    for text in key.get_texts():
        text.set(**MATH)
    for handle in (h for h in key.legend_handles if isinstance(h, Line2D)):
        handle.set(markersize=4.5, alpha=1.0)
    return figure


def parameters(steps: Sequence[Mapping[str, Any]], result: Result, unit: str) -> Figure:
    """Loss against step, and where a few named parameters have been, for dynamics of the user's own.

    Args:
        steps: Lines of `metrics.jsonl`.
        result: The run's result.
        unit: Of the loss.
    """
    named = result.named
    figure = sheet(2.3 + 1.3 * len(named))
    panels = np.atleast_1d(figure.subplots(1 + len(named), 1, sharex=True))
    at = np.array([line["step"] for line in steps])
    panels[0].plot(at, np.array([line["loss"] for line in steps], np.float64), ".", color=BLUE, ms=3, mew=0)
    panels[0].set_ylabel(f"loss [{unit}]")
    for ax, (name, found) in zip(panels[1:], named.items(), strict=True):
        ax.plot(at, [line["parameters"][name] for line in steps], ".", color=BLUE, ms=3, mew=0)
        if not found.at_bound:
            ax.axhline(found.value, color=INK, lw=1.1)
        if found.interval_90 is not None and not found.at_bound:
            ax.axhspan(*found.interval_90, color=INK, alpha=0.15, lw=0)
        if found.trained_as == "logarithm":
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_ylabel(name)
    for ax in panels:
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    panels[-1].set_xlabel("step (one batch)")
    return figure


def _enlarge(ax: Axes, known: np.ndarray, band: Sequence[float] | None) -> None:
    """The final constant, its interval and the truth (`known`, in this order) if they can be distinguished."""
    if band is not None:
        ax.plot([0, 0], band, color=INK, lw=1.4)
    ax.plot([0], known[:1], "o", color=INK, ms=4.5)
    room = 0.25 * float(np.ptp(known)) or 0.1 * float(known[0])
    ax.set_ylim(float(known.min()) - room, float(known.max()) + room)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlim(-1, 1)
    ax.set_xticks([])
    ax.set_xlabel("final (linear)")


def _smooth(ax: Axes, at: np.ndarray, values: np.ndarray) -> None:
    """A running mean of a long descent, over a twentieth of it: single batches scatter more than they fall."""
    if len(at) < 60:
        return
    width = len(at) // 20
    mean = np.convolve(values, np.full(width, 1.0 / width), mode="valid")
    offset = (width - 1) // 2
    halo = [withStroke(linewidth=3.0, foreground="white")]
    ax.plot(at[offset : offset + len(mean)], mean, color=BLUE, lw=1.5, path_effects=halo, label="running mean")


def _log_ticks(ax: Axes, low: float, high: float) -> None:
    """Plain numbers on a logarithmic axis, at round places whether it spans a few percent or decades."""
    if high / low < 4:
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    else:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    room = max(high / low, 1.05) ** 0.08
    ax.set_ylim(low / room, high * room)


def examples(found: Mapping[str, np.ndarray]) -> Figure:
    """Observed tracks upon simulated ensembles and the mean current around them, one panel a sample.

    Args:
        found: Arrays of `examples.npz`.
    """
    n = len(found["sample"])
    columns = min(n, 3)
    rows = -(-n // columns)
    panel = WIDTH / 3 if columns == 3 else 3.2
    figure = sheet(rows * (2.1 if columns == 3 else panel + 0.12) + 0.85, max(columns * panel, 3.6))
    parts = [_cropped(found, k) for k in range(n)]
    fastest = max(float(np.nan_to_num(np.hypot(*mean_current(currents))).max()) for currents, _, _ in parts)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    drawn = None
    for k, (ax, (currents, corner, box)) in enumerate(zip(axes, parts, strict=False)):
        track, ensemble = found["track"][k], found["ensemble"][k]
        drawn = window(ax, currents, corner, found["step"], track, ensemble, max(fastest, 1e-3))
        ax.set_xlim(*box[0])
        ax.set_ylim(*box[1])
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(2 if columns == 3 else 3, steps=[1, 2, 3, 4, 5, 10]))
        ax.tick_params(labelsize=7)
        name = str(found["drifter"][k]).encode("ascii", "replace").decode()
        day = facts.iso(int(found["start_time"][k]))[:10]
        ax.set_title(f"{name[:18]}, {day}", fontsize=7.5)
        _scale_bar(ax)
    for ax in list(figure.axes)[n:]:
        ax.set_axis_off()
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=list(figure.axes), location="bottom", aspect=40, shrink=0.6, pad=0.02)
        bar.set_label("speed of the mean current [m s$^{-1}$]", fontsize=8, **MATH)
        bar.ax.tick_params(labelsize=7)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def _cropped(found: Mapping[str, np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Currents, corner and limits ((west, east), (south, north)) of the part of window `k` that its tracks need."""
    currents, corner, step = found["currents"][k], found["corner"][k], found["step"]
    tracks = np.concatenate([found["track"][k][None], found["ensemble"][k]]).reshape(-1, 2)
    tracks = tracks[np.isfinite(tracks).all(axis=1)]
    low, high = tracks.min(axis=0), tracks.max(axis=0)
    wide = np.array([1.0 / np.cos(np.radians(tracks[:, 1].mean())), 1.0])
    half = max(float(((high - low) / wide).max()) * (0.5 + MARGIN), 1.5 * float(step[1])) * wide
    size = np.array(currents.shape[:1:-1])
    west, east = corner - step / 2, corner + (size - 0.5) * step
    # a box that would leave the window is moved inside: what lies beyond is unknown, and would look like land
    middle = (west + east) / 2
    centre = np.clip((low + high) / 2, np.minimum(west + half, middle), np.maximum(east - half, middle))
    box = np.stack([np.maximum(centre - half, west), np.minimum(centre + half, east)], axis=-1)
    first = np.maximum(np.floor((box[:, 0] - west) / step).astype(int), 0)
    last = np.minimum(np.ceil((box[:, 1] - west) / step).astype(int), size)
    return currents[:, :, first[1] : last[1], first[0] : last[0]], corner + first * step, box


def _scale_bar(ax: Axes) -> None:
    """A scale bar of a round number of kilometres, since degrees alone do not show distances."""
    (west, east), (south, north) = ax.get_xlim(), ax.get_ylim()
    km_per_degree = geo.METRES_PER_DEGREE / 1e3 * np.cos(np.radians((south + north) / 2))
    most = 0.35 * (east - west) * km_per_degree
    decade = 10.0 ** np.floor(np.log10(most))
    km = decade * max(k for k in (1, 2, 5) if k * decade <= most)
    x, y = west + 0.06 * (east - west), south + 0.06 * (north - south)
    halo = [withStroke(linewidth=2.5, foreground="white")]
    ax.plot([x, x + km / km_per_degree], [y, y], color=INK, lw=2, solid_capstyle="butt", path_effects=halo, zorder=6)
    ax.annotate(
        f"{km:g} km", (x, y), (0, 3), textcoords="offset points", fontsize=7, color=INK, path_effects=halo, zorder=6
    )


def starts(store: ShardStore) -> Figure:
    """Map of where the training samples start."""
    samples = store.samples_of("train")
    figure = sheet(3.6)
    ax = figure.subplots()
    origins(ax, store.labels["origin"][samples].astype(np.float64), {"train": np.arange(len(samples))})
    (west, east), (south, north) = ax.get_xlim(), ax.get_ylim()
    more = max(LEAST_MAP - (east - west), 0.0) / 2, max(LEAST_MAP - (north - south), 0.0) / 2
    ax.set_xlim(west - more[0], east + more[0])
    ax.set_ylim(max(south - more[1], -90), min(north + more[1], 90))
    ax.grid(color="#DDDDDD", lw=0.6)
    ax.set_axisbelow(True)
    return figure


def kappa(found: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """5th, 50th and 95th percentile of K / C_s [m2/s] over the ocean of the examples' windows; None if all is land."""
    step, currents = found["step"], found["currents"].astype(np.float64)
    lat = np.radians(found["corner"][:, 1, None] + np.arange(1, currents.shape[3] - 1) * step[1])
    dy = geo.METRES_PER_DEGREE * step[1]
    dx = geo.METRES_PER_DEGREE * step[0] * np.cos(lat)[:, None, :, None]
    x = (currents[..., 1:-1, 2:] - currents[..., 1:-1, :-2]) / (2 * dx[:, None])
    y = (currents[..., 2:, 1:-1] - currents[..., :-2, 1:-1]) / (2 * dy)
    values = dx * dy * np.sqrt(x[:, 0] ** 2 + y[:, 1] ** 2 + 0.5 * (y[:, 0] + x[:, 1]) ** 2)
    values = values[np.isfinite(values)]
    return np.percentile(values, [5, 50, 95]) if values.size else None
