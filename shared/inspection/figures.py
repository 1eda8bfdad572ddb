"""Figures of a whole store: maps, dates and speeds of its samples, and examples of their windows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from driftcal.shared import geo
from driftcal.shared.canvas import (
    MATH,
    AutoDateLocator,
    Axes,
    ConciseDateFormatter,
    Figure,
    FuncFormatter,
    MaxNLocator,
    QuadMesh,
)
from driftcal.shared.errors import StoreError
from driftcal.shared.inspection import facts, map_plots
from driftcal.shared.spacing import evenly
from driftcal.shared.store import schema
from driftcal.shared.store.reader import ShardStore

READ = 400
"""Samples read at most for a figure of the whole store; more would change no curve visibly."""


@dataclass(frozen=True)
class _Read:
    """Data of the samples that were read: land `(m, 2)` [degrees] and speeds [m/s], flat."""

    land: np.ndarray
    drifters: np.ndarray
    at_drifters: np.ndarray
    in_windows: np.ndarray


def plot(opened: ShardStore, out: str | Path, split: str | None = None) -> list[Path]:
    """Writes the figures of `opened`, of one `split` if given, into the folder `out`; returns their paths.

    Raises:
        StoreError: there is nothing to draw, or the data are damaged.
    """
    label = opened.labels
    chosen = np.flatnonzero(label["split"] >= 0) if split is None else opened.samples_of(split)
    if not len(chosen):
        raise StoreError(f"{opened.root}: no usable sample to draw. `drift-inspect show` tells what was dropped.")
    groups = {name: label["split"][chosen] == code for code, name in enumerate(schema.SPLITS)}
    groups = {name: mask for name, mask in groups.items() if mask.any()}
    read = _read(opened, _spread(opened, chosen))
    drawn = {
        "origins": lambda: _origins(opened, chosen, groups, read.land),
        "when": lambda: _when(opened, chosen, groups),
        "speeds": lambda: _speeds(read),
        "windows": lambda: _windows(opened, chosen),
    }
    return [map_plots.save(make, Path(out) / f"{name}.png") for name, make in drawn.items()]


def one(opened: ShardStore, index: int) -> Figure:
    """The figure of the sample `index`."""
    about = facts.sample(opened, index)
    figure = map_plots.sheet(4.6, 5.6)
    ax = figure.add_subplot()
    drawn = _window(ax, opened, index)
    bar = figure.colorbar(drawn, ax=ax, shrink=0.85, pad=0.02)
    bar.set_label("speed of the mean current [m s$^{-1}$]", fontsize=9, **MATH)
    bar.ax.tick_params(labelsize=8)
    ax.set_xlabel("longitude", fontsize=9)
    ax.set_ylabel("latitude", fontsize=9)
    ax.legend(fontsize=8, loc="best", framealpha=0.9)
    ax.set_title(f"sample {index}, drifter {about.drifter}, {about.start[:16]}Z", fontsize=9)
    return figure


def _spread(opened: ShardStore, chosen: np.ndarray) -> np.ndarray:
    """Chooses at most `READ` of the samples `chosen`: one for every place first, so that all land seen is shaded."""
    layout = opened.layout
    size = np.array([layout.n_lon * layout.lon_step, layout.n_lat * layout.lat_step]) / 2
    _, first = np.unique(np.floor(opened.labels["origin"][chosen] / size), axis=0, return_index=True)
    every = evenly(len(chosen), READ)
    picked = first[evenly(len(first), READ // 2)]
    return chosen[np.unique(np.concatenate([every, picked]))]


def _read(opened: ShardStore, samples: np.ndarray) -> _Read:
    layout = opened.layout
    step = np.array([layout.lon_step, layout.lat_step])
    # cell centres need not be multiples of the step (DUACS: 0.125 + k 0.25); all windows share the first one's offset
    offset = opened.labels["window_corner"][samples[0]] / step % 1.0
    land, drifters, at_drifters, in_windows = [], [], [], []
    time = np.arange(layout.n_obs) * layout.obs_step
    for sample in samples:
        current, track = facts.currents(opened, sample), facts.track(opened, sample)
        corner = opened.labels["window_corner"][sample]
        speed = np.hypot(current[0], current[1])
        dry = np.argwhere(~np.isfinite(speed).any(axis=0))
        land.append(np.round(corner / step - offset + dry[:, ::-1]).astype(np.int64))
        drifters.append(geo.separation(track[1:], track[:-1]) / layout.obs_step)
        in_windows.append(speed[np.isfinite(speed)])
        # the nearest cell and level: the distribution does not need better
        cell = np.round((track - corner) / step).astype(np.int64)
        level = np.round(
            (opened.labels["start_time"][sample] + time - opened.labels["window_time"][sample]) / layout.time_step
        ).astype(np.int64)
        beside = speed[
            np.clip(level, 0, layout.n_times - 1),
            np.clip(cell[:, 1], 0, layout.n_lat - 1),
            np.clip(cell[:, 0], 0, layout.n_lon - 1),
        ]
        at_drifters.append(beside[np.isfinite(beside)])
    cells = (np.unique(np.concatenate(land), axis=0) + offset) * step
    return _Read(cells, np.concatenate(drifters), np.concatenate(at_drifters), np.concatenate(in_windows))


def _origins(opened: ShardStore, chosen: np.ndarray, groups: dict[str, np.ndarray], land: np.ndarray) -> Figure:
    lonlat = opened.labels["origin"][chosen]
    region = facts.Region.of(lonlat)
    layout = opened.layout
    tall = region.north - region.south + layout.n_lat * layout.lat_step
    wide = region.east - region.west + layout.n_lon * layout.lon_step
    wide *= float(np.cos(np.radians((region.north + region.south) / 2)))
    height = float(np.clip(0.85 * map_plots.WIDTH * tall / max(wide, 1.0), 3.0, 7.5))
    figure = map_plots.sheet(height + 0.5)
    ax = figure.add_subplot()
    map_plots.origins(ax, lonlat, groups, land, (layout.lon_step, layout.lat_step))
    ax.set_xlabel("longitude of the first fix", fontsize=9)
    ax.set_ylabel("latitude of the first fix", fontsize=9)
    figure.legend(*ax.get_legend_handles_labels(), fontsize=8, loc="outside upper center", ncols=4, markerscale=2)
    return figure


def _when(opened: ShardStore, chosen: np.ndarray, groups: dict[str, np.ndarray]) -> Figure:
    """Samples in every month, and in every band of latitude, stacked by split."""
    months = opened.labels["start_time"][chosen].astype("datetime64[s]").astype("datetime64[M]")
    lat = opened.labels["origin"][chosen][:, 1]
    figure = map_plots.sheet(3.0)
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1.0))
    edges = np.arange(months.min(), months.max() + 2).astype("datetime64[D]")
    _stack(left, months.astype("datetime64[D]"), edges, groups)
    locator = AutoDateLocator(minticks=3, maxticks=8)
    left.xaxis.set_major_locator(locator)
    left.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    left.set_xlabel("month of the first fix", fontsize=9)
    left.set_ylabel("samples a month", fontsize=9)
    band = next(size for size in (0.5, 1.0, 2.0, 5.0, 10.0) if np.ptp(lat) / size <= 24 or size == 10.0)
    edges = np.arange(np.floor(lat.min() / band), np.ceil(lat.max() / band) + 1.5) * band
    _stack(right, lat, edges, groups, "horizontal")
    right.yaxis.set_major_formatter(FuncFormatter(lambda degrees, _: geo.latitude_text(degrees)))
    right.set_ylabel("latitude of the first fix", fontsize=9)
    right.set_xlabel(f"samples in {band:g}° of latitude", fontsize=9)
    figure.legend(*left.get_legend_handles_labels(), fontsize=8, loc="outside upper center", ncols=3)
    return figure


def _stack(
    ax: Axes, values: np.ndarray, edges: np.ndarray, groups: dict[str, np.ndarray], way: str = "vertical"
) -> None:
    """A stacked histogram; numpy counts, as matplotlib's `hist` converts dates by the reader's settings."""
    across, base = np.diff(edges), np.zeros(len(edges) - 1)
    for name, mask in groups.items():
        # each edge belongs to the bin above it, for dates as for numbers
        number = np.clip(np.searchsorted(edges, values[mask], side="right") - 1, 0, len(base) - 1)
        count = np.bincount(number, minlength=len(base))
        style = {"color": map_plots.COLOURS[name], "edgecolor": "white", "linewidth": 0.4, "label": name}
        if way == "vertical":
            ax.bar(edges[:-1], count, across, bottom=base, align="edge", **style)
        else:
            ax.barh(edges[:-1], count, across, left=base, align="edge", **style)
        base = base + count
    # the bars' own limits are not left: a bar of no height on top would take the margin away
    (ax.set_ylim if way == "vertical" else ax.set_xlim)(0, 1.05 * max(base.max(), 1))
    counts = ax.yaxis if way == "vertical" else ax.xaxis
    counts.set_major_locator(MaxNLocator(5, integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def _speeds(read: _Read) -> Figure:
    """Densities of the speeds that were observed and of those of the currents."""
    figure = map_plots.sheet(3.6, 5.0)
    ax = figure.add_subplot()
    kinds = (
        ("drifters, from fix to fix", read.drifters, map_plots.TRACK, "-"),
        ("currents at the drifters", read.at_drifters, "#0072B2", "-"),
        ("currents in the windows", read.in_windows, "#56B4E9", "--"),
    )
    end = max([float(np.quantile(speed, 0.999)) for _, speed, _, _ in kinds if len(speed)], default=1.0) or 1.0
    edges = np.linspace(0.0, end, 41)
    for name, speed, colour, line in kinds:
        if len(speed):
            density = np.histogram(speed, edges)[0] / len(speed) / np.diff(edges)
            label = f"{name} (median {np.median(speed):.2f} m/s)"
            ax.stairs(density, edges, color=colour, lw=1.5, ls=line, label=label)
    ax.set_xlim(0.0, end)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("speed [m s$^{-1}$]", fontsize=9, **MATH)
    ax.set_ylabel("probability density [s m$^{-1}$]", fontsize=9, **MATH)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(*ax.get_legend_handles_labels(), fontsize=8, loc="outside upper center", frameon=False)
    return figure


def _windows(opened: ShardStore, chosen: np.ndarray) -> Figure:
    """Nine samples spread over the store, their speeds in the same colours."""
    picked = chosen[evenly(len(chosen), 9)]
    layout = opened.layout
    ratio = layout.n_lat * layout.lat_step / (layout.n_lon * layout.lon_step)
    lat = float(np.abs(opened.labels["origin"][picked, 1]).mean())
    panel = float(np.clip(2.0 * ratio / max(np.cos(np.radians(lat)), 0.1), 1.2, 3.0))
    figure = map_plots.sheet(3 * (panel + 0.55))
    fastest = float(np.nanmax([_fastest(opened, sample) for sample in picked]))
    drawn = None
    axes = figure.subplots(3, 3).flat
    for ax, sample in zip(axes, picked.tolist(), strict=False):
        drawn = _window(ax, opened, sample, fastest)
        split = dict(enumerate(schema.SPLITS))[int(opened.labels["split"][sample])]
        start = facts.iso(int(opened.labels["start_time"][sample]))[:10]
        ax.set_title(f"{sample}, {start}, {split}", fontsize=7.5)
        ax.tick_params(labelsize=6.5)
    for ax in axes:
        ax.set_axis_off()
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=figure.axes[:9], shrink=0.6, aspect=35, pad=0.02, location="bottom")
        bar.set_label(
            "speed of the mean current [m s$^{-1}$]; line: drifter, circle: its first fix", fontsize=8, **MATH
        )
        bar.ax.tick_params(labelsize=8)
    return figure


def _fastest(opened: ShardStore, sample: int) -> float:
    """The greatest speed [m/s] of the window's mean current; 0 where it is all land."""
    mean = map_plots.mean_current(facts.currents(opened, sample))
    return float(np.nan_to_num(np.hypot(mean[0], mean[1])).max())


def _window(ax: Axes, opened: ShardStore, sample: int, fastest: float | None = None) -> QuadMesh:
    steps = opened.layout.lon_step, opened.layout.lat_step
    corner = opened.labels["window_corner"][sample]
    current, track = facts.currents(opened, sample), facts.track(opened, sample)
    return map_plots.window(ax, current, corner, steps, track, fastest=fastest)
