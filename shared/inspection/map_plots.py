"""Maps of currents and drifters (no display, no global state), to be made and drawn within `canvas.settled`.

Positions are (lon, lat) [degrees], longitudes continuous: 190 is drawn beside 180 and labelled 170°W. Colours are
those of Okabe and Ito (2008), which colour-blind readers can distinguish, and a map of one hue for speeds.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from driftcal.shared import geo
from driftcal.shared.canvas import (
    ENDINGS,
    Axes,
    Colormap,
    Figure,
    FigureCanvasAgg,
    FuncFormatter,
    LineCollection,
    ListedColormap,
    MaxNLocator,
    Normalize,
    PolyCollection,
    QuadMesh,
    colormaps,
    content,
    settled,
    withStroke,
)
from driftcal.shared.errors import ConfigError
from driftcal.shared.geo import latitude_text, longitude_text
from driftcal.shared.inspection import facts

COLOURS = {"train": "#0072B2", "validation": "#E69F00", "test": "#009E73", "none": "#999999"}
"""Colour of every split."""

TRACK, MEMBER, LAND, INK = "#D55E00", "#4D4D4D", "#BDB7AB", "#1A1A1A"
WIDTH = 7.0
"""Width of a figure [inch]: a page's text."""

DPI = 200


def sheet(height: float, width: float = WIDTH) -> Figure:
    """An empty figure [inch] that a canvas of its own draws."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def save(make: Callable[[], Figure], path: str | Path) -> Path:
    """Writes the figure that `make` draws to `path`; the ending gives the format (png, pdf, svg).

    Raises:
        ConfigError: the ending is not known, or the place cannot be written.
    """
    path = Path(path)
    if path.suffix[1:] not in ENDINGS:
        raise ConfigError(f"{path}: a figure is written as .png, .pdf or .svg. Choose one of these endings.")
    with settled():
        drawn = content(make(), path.suffix[1:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}. Choose another place.") from error
    return path


def geographic(ax: Axes, lat: float, ticks: int = 5) -> None:
    """Makes `ax`, its limits set, a map: degrees of the same length at `lat`, labelled with E, W, N, S."""
    ax.set_aspect(1.0 / max(np.cos(np.radians(lat)), 0.1))
    for axis, name in ((ax.xaxis, longitude_text), (ax.yaxis, latitude_text)):
        low, high = sorted(axis.get_view_interval())
        axis.set_major_locator(MaxNLocator(ticks, steps=[1, 3, 6, 10] if high - low > 60 else [1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda degrees, _, name=name: name(degrees)))
    ax.tick_params(labelsize=8, length=3)


def speeds(norm_to: float) -> tuple[Colormap, Normalize]:
    """Colours of speeds from 0 to `norm_to` [m/s], pale enough for arrows and tracks to be seen upon them."""
    pale = ListedColormap(colormaps["YlGnBu"](np.linspace(0.0, 0.75, 256)), "pale")
    return pale.with_extremes(bad=LAND), Normalize(0.0, norm_to)


def mean_current(currents_mps: np.ndarray) -> np.ndarray:
    """Mean over the levels of `(2, time, lat, lon)` [m/s], NaN on land, without numpy's warning of empty means."""
    valid = np.isfinite(currents_mps)
    levels = np.where(valid.any(axis=1), valid.sum(axis=1), np.nan)
    return np.where(valid, currents_mps, 0.0).sum(axis=1, dtype=np.float64) / levels


def window(
    ax: Axes,
    currents_mps: np.ndarray,
    corner: Sequence[float] | np.ndarray,
    steps: Sequence[float] | np.ndarray,
    track: np.ndarray | None = None,
    ensemble: np.ndarray | None = None,
    fastest: float | None = None,
) -> QuadMesh:
    """Draws one window: the mean current over its levels, land, the drifter's track and the members of an ensemble.

    Args:
        ax: Axes to draw on, which become a map.
        currents_mps: `(2, time, lat, lon)` eastward, northward current [m/s], NaN on land.
        corner: (lon, lat) of the south-western cell's centre [degrees].
        steps: (lon, lat) size of a cell [degrees].
        track: `(obs, 2)` fixes (lon, lat) [degrees], longitudes continuous with `corner`.
        ensemble: `(members, obs, 2)` simulated fixes, as `track`.
        fastest: Speed at the end of the colours [m/s]; the fastest in the window if not given.

    Returns:
        The speeds drawn, for a colour bar.
    """
    mean = mean_current(currents_mps)
    speed = np.hypot(mean[0], mean[1])
    n_lat, n_lon = speed.shape
    lon, lat = corner[0] + steps[0] * np.arange(n_lon), corner[1] + steps[1] * np.arange(n_lat)
    if fastest is None:
        fastest = float(np.nanmax(speed)) if np.isfinite(speed).any() else 1.0
    cmap, norm = speeds(fastest or 1.0)
    drawn = ax.pcolormesh(lon, lat, np.ma.masked_invalid(speed), cmap=cmap, norm=norm, shading="nearest")
    ax.set_facecolor(LAND)
    every = max(1, -(-max(n_lat, n_lon) // 14))  # at most 14 arrows a side stay readable in a small panel
    part = (slice(every // 2, None, every),) * 2
    # arrows as long as their spacing at the end of the colours; angles as on the page, where the aspect is true
    ax.quiver(
        lon[part[1]],
        lat[part[0]],
        np.ma.masked_invalid(mean[0][part]),
        np.ma.masked_invalid(mean[1][part]),
        color=INK,
        alpha=0.6,
        width=0.0035,
        pivot="mid",
        scale=(fastest or 1.0) * n_lon / every / 1.7,
        scale_units="width",
    )
    if ensemble is not None:
        members = LineCollection(list(np.asarray(ensemble)), colors=MEMBER, linewidths=0.6, alpha=0.55, label="members")
        ax.add_collection(members, autolim=False)
    if track is not None:
        halo = [withStroke(linewidth=2.8, foreground="white")]
        ax.plot(track[:, 0], track[:, 1], color=TRACK, lw=1.5, path_effects=halo, label="drifter", zorder=4)
        start = {"marker": "o", "ms": 4.5, "mfc": "white", "mec": TRACK, "mew": 1.3, "ls": "none"}
        ax.plot(track[0, 0], track[0, 1], label="start", zorder=5, **start)
    ax.set_xlim(lon[0] - steps[0] / 2, lon[-1] + steps[0] / 2)
    ax.set_ylim(lat[0] - steps[1] / 2, lat[-1] + steps[1] / 2)
    geographic(ax, float(lat.mean()), 4)
    return drawn


def origins(
    ax: Axes,
    lonlat: np.ndarray,
    groups: Mapping[str, np.ndarray],
    land: np.ndarray | None = None,
    cell: Sequence[float] = (0.25, 0.25),
) -> None:
    """Draws a map of positions, coloured by group.

    Args:
        ax: Axes to draw on, which become a map.
        lonlat: `(n, 2)` positions [degrees], on any turn of longitude.
        groups: Name and mask or indices of every group, in the order of drawing; splits have their own colours.
        land: `(m, 2)` centres of cells of land, shaded.
        cell: (lon, lat) size of such a cell [degrees].
    """
    region = facts.Region.of(lonlat)
    # the turn of longitude whose seam lies opposite of the samples; a store all around the globe is cut at 180
    middle = 0.0 if region.east - region.west > 350.0 else (region.west + region.east) / 2.0

    def turned(at: np.ndarray) -> np.ndarray:
        return np.stack([middle + geo.wrap_longitude(at[:, 0] - middle), at[:, 1]], axis=-1)

    points = seen = turned(lonlat)
    if land is not None and len(land):
        centres = turned(land)
        seen = np.concatenate([points, centres])
        outline = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * np.asarray(cell)
        cells = PolyCollection(
            list(centres[:, None] + outline),
            facecolors=LAND,
            edgecolors=LAND,
            linewidths=0.3,
            rasterized=True,
            label="land in the windows",
        )
        ax.add_collection(cells, autolim=False)
    spare = iter(("#CC79A7", "#56B4E9", "#D55E00", "#F0E442"))
    size = float(np.clip(4000 / max(len(points), 1), 1.0, 16.0))
    for name, which in groups.items():
        colour = COLOURS.get(name) or next(spare, "#999999")
        part = points[which]
        label = f"{name} ({len(part):,})"
        ax.scatter(part[:, 0], part[:, 1], s=size, color=colour, lw=0, alpha=0.8, label=label, rasterized=True)
    low, high = seen.min(axis=0), seen.max(axis=0)
    margin = np.maximum(0.04 * (high - low), 0.3)
    ax.set_xlim(max(low[0] - margin[0], middle - 180), min(high[0] + margin[0], middle + 180))
    ax.set_ylim(max(low[1] - margin[1], -90), min(high[1] + margin[1], 90))
    geographic(ax, float((low[1] + high[1]) / 2), 7)
