"""Currents with an error: smoothed, displaced, and written beside the true ones that the drifters move in.

Land stays where it is. Nothing is read from land or from beyond the grid: there smoothing gives the weights to the
ocean nodes that are left, and a displaced current is that of the nearest ocean node. Grids that go round the Earth have
no edge in longitude. Fields are (2, lat, lon), velocities m/s, NaN on land.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int
from scipy import ndimage
from tqdm import tqdm

from driftcal.preprocess.made.drifter_integrator import velocities
from driftcal.preprocess.made.product_files import WITH_ERROR, Product, prepare, write_month
from driftcal.preprocess.recipe import Synthetic
from driftcal.preprocess.sources.gridded.axes import Axis
from driftcal.preprocess.sources.gridded.currents import Currents
from driftcal.preprocess.truth import CurrentsError
from driftcal.shared.errors import ConfigError
from driftcal.shared.geo import METRES_PER_DEGREE

NARROWEST = 0.5
"""Standard deviation [cells] below which a Gaussian cannot be told on the grid: its transfer function is off by 1 %."""

REACH = 6
"""Standard deviations at which a Gaussian is cut off."""

_RINGING = 16
"""Columns after which a cubic spline has forgotten where it began: its memory falls by 0.27 a column."""


def smoothed(
    values: Float64[np.ndarray, "2 Y X"], lat: Axis, lon: Axis, periodic: bool, deviation: float
) -> Float64[np.ndarray, "2 Y X"]:
    """Components `values` (2, Y, X) averaged with the weights exp(-d² / (2 σ²)) of the ocean nodes at distance d.

    A wave of wavenumber k [rad/m] away from land is multiplied by exp(-k² σ² / 2). The distance is that of the plane:
    along the meridian and along the parallel of the node averaged.

    Args:
        values: Velocities, NaN on land.
        lat: Latitudes.
        lon: Longitudes.
        periodic: True if the longitudes go all the way round.
        deviation: Standard deviation σ [m].

    Raises:
        ConfigError: σ is less than half a cell.
    """
    rows = deviation / (METRES_PER_DEGREE * lat.step)
    columns = deviation / (METRES_PER_DEGREE * lon.step * np.cos(np.radians(lat.values)))
    if min(rows, columns.min()) < NARROWEST:
        raise ConfigError(
            f"synthetic.currents_error.smooth_km is {deviation / 1000:g}, {min(rows, columns.min()):.2g} cells of the "
            f"currents; expected {NARROWEST:g} at least, since a narrower Gaussian does not show on the grid. Smooth "
            "by more, or give finer currents."
        )
    ocean = np.asarray(np.isfinite(values).all(axis=0))
    sums = np.concatenate([np.where(ocean, values, 0.0), ocean[None].astype(float)])
    sums = ndimage.gaussian_filter1d(sums, rows, axis=1, mode="constant", truncate=REACH)
    edge = "wrap" if periodic else "constant"
    for row, cells in enumerate(columns):
        sums[:, row] = ndimage.gaussian_filter1d(sums[:, row], cells, axis=1, mode=edge, truncate=REACH)
    return np.divide(sums[:2], sums[2], where=ocean, out=np.full(values.shape, np.nan))


def displaced(
    values: Float64[np.ndarray, "2 Y X"],
    lat: Axis,
    lon: Axis,
    periodic: bool,
    distance: tuple[float, float] | Float64[np.ndarray, " 2"],
) -> Float64[np.ndarray, "2 Y X"]:
    """Components `values` (2, Y, X), displaced: the current at x is that which was at x - `distance`.

    Between nodes they are interpolated by cubic splines.

    Args:
        values: Velocities, NaN on land.
        lat: Latitudes.
        lon: Longitudes.
        periodic: True if the longitudes go all the way round.
        distance: Displacement eastward, along the parallel, and northward [m].
    """
    ocean = np.asarray(np.isfinite(values).all(axis=0))
    nearest = np.asarray(ndimage.distance_transform_edt(~ocean, return_distances=False, return_indices=True))
    filled = values[:, nearest[0], nearest[1]]
    row = np.arange(lat.size) - distance[1] / (METRES_PER_DEGREE * lat.step)
    east = distance[0] / (METRES_PER_DEGREE * lon.step * np.cos(np.radians(lat.values)))
    column = np.arange(lon.size) - east[:, None]
    if periodic:
        pad = _RINGING + int(np.ceil(np.abs(east).max()))
        filled, column = np.pad(filled, ((0, 0), (0, 0), (pad, pad)), mode="wrap"), column + pad
    place = np.stack([np.broadcast_to(row[:, None], column.shape), column])
    moved = np.stack([ndimage.map_coordinates(one, place, order=3, mode="nearest") for one in filled])
    return np.where(ocean, moved, np.nan)


def given(
    values: Float64[np.ndarray, "2 Y X"], currents: Currents, error: CurrentsError
) -> Float64[np.ndarray, "2 Y X"]:
    """The true velocities `values` (2, Y, X) with `error`: smoothed first, then displaced."""
    grid = (currents.lat, currents.lon, currents.periodic)
    if error.smooth_km:
        values = smoothed(values, *grid, 1000 * error.smooth_km)
    if any(error.shift_km):
        values = displaced(values, *grid, 1000 * np.array(error.shift_km))
    return values


def write_given(spec: Synthetic, error: CurrentsError, currents: Currents, progress: bool = False) -> None:
    """Writes the record `currents` with `error` into `spec.folder`/currents, one file a month.

    Files of an earlier run are replaced.

    Raises:
        ConfigError: the folder holds files that were not made here.
    """
    folder = spec.place / "currents"
    prepare(folder)
    product = Product(
        title=f"Surface currents smoothed by {error.smooth_km:g} km and displaced by {list(error.shift_km)} km",
        source=WITH_ERROR,
        lat=currents.lat.values,
        lon=currents.lon.values,
        units="seconds since 1970-01-01 00:00:00",
        kinds=("i8", "f8"),
    )
    months = currents.time.astype("datetime64[s]").astype("datetime64[M]")
    with tqdm(total=months.size, unit="level", desc="currents with an error", disable=not progress) as bar:
        for month in np.unique(months):
            wanted = np.flatnonzero(months == month)
            write_month(folder, month, product, currents.time[wanted], _levels(currents, wanted, error, bar))


def _levels(
    currents: Currents, wanted: Int[np.ndarray, " levels"], error: CurrentsError, bar: tqdm
) -> Iterator[Float64[np.ndarray, "2 Y X"]]:
    for _, packed in currents.each(wanted):
        yield given(velocities(packed), currents, error)
        bar.update()
