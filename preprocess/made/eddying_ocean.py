"""A synthetic ocean: an eddying surface current field, written in the format of the DUACS level-4 product.

The streamfunction ψ [m2/s] is a sum of travelling waves and a meandering zonal jet; u = -∂ψ/∂y and v = ∂ψ/∂x by
centred differences, so the field is nondivergent on its own grid. Towards each island ψ is tapered to a constant:
nothing flows into land. Fields are (lat, lon), angles degrees, distances metres, days counted from 1950-01-01.

Nothing here resembles a particular sea; speeds, sizes and periods are those of mesoscale eddies (Chelton et al. 2011,
doi:10.1016/j.pocean.2011.01.002): 80 to 500 km, 20 to 80 days, moving west.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64
from tqdm import tqdm

from driftcal.preprocess.made.product_files import MADE, Product, prepare, write_month
from driftcal.preprocess.recipe import Synthetic
from driftcal.shared.errors import ConfigError
from driftcal.shared.geo import EARTH_RADIUS, METRES_PER_DEGREE

LAND_SHARE = 0.065
"""Share of the nodes that is land."""

_WAVES = 160
_WAVE_SPEED = 0.29
"""Root mean square speed of the waves [m/s], before the islands slow it."""
_WAVELENGTHS = (80e3, 500e3)
_PERIODS = (20.0, 80.0)
_SEASON = 0.2
"""Relative change of the waves' amplitude over the year, largest on 1 July."""
_JET_SPEED = 0.5
_JET_WIDTH = 120e3
_TAPER = 200e3
"""Distance from the coast over which ψ becomes the island's constant [m]."""
_ISLANDS = ((0.30, 0.76, 1.0), (0.71, 0.22, 0.7))
"""Centre (shares of the domain's width and height) and relative size of each island."""


class Ocean:
    """The made ocean of one seed.

    Attributes:
        lon: longitudes of the cell centres [degrees], ascending, in the product's convention, (X,).
        lat: latitudes of the cell centres [degrees], ascending, (Y,).
        land: True on land, (Y, X).
    """

    def __init__(self, spec: Synthetic):
        self.lon, self.lat = _axes(spec)
        rng = np.random.default_rng(spec.seed)
        res = spec.resolution_deg
        # One more node on each side, so that differences are centred everywhere, across a periodic seam too.
        lon = np.concatenate([[self.lon[0] - res], self.lon, [self.lon[-1] + res]])
        lat = np.concatenate([[self.lat[0] - res], self.lat, [self.lat[-1] + res]])
        self._res = res
        self._radius = EARTH_RADIUS * np.cos(np.radians(np.mean(self.lat)))
        self._periodic = abs(self.lon.size * res - 360.0) < 1e-6
        self._lon, self._lat = np.radians(lon), np.radians(lat)
        self._make_waves(rng)
        self._make_islands(rng, lon, lat)

    def _zonal(self, wavenumber: Float[np.ndarray, " *waves"] | float) -> Float[np.ndarray, " *waves"]:
        """Zonal wavenumber [1/radian] of `wavenumber` [1/m], an integer if the domain encircles the Earth."""
        per_radian = np.asarray(wavenumber) * self._radius
        return np.asarray(np.rint(per_radian) if self._periodic else per_radian)

    def _make_waves(self, rng: np.random.Generator) -> None:
        # Three cells are the fewest that show a wave as one.
        shortest = max(_WAVELENGTHS[0], 3 * self._res * METRES_PER_DEGREE)
        length = np.exp(rng.uniform(np.log(shortest), np.log(max(_WAVELENGTHS[1], 2 * shortest)), _WAVES))
        wavenumber, angle = 2 * np.pi / length, rng.uniform(0, 2 * np.pi, _WAVES)
        eastward, northward = wavenumber * np.cos(angle), wavenumber * np.sin(angle)
        # Energy grows with the wavelength, as in the ocean's mesoscale; half the square of a cosine is its mean.
        energy = length / length.sum() * _WAVE_SPEED**2
        self._amplitude = np.sqrt(2 * energy) / wavenumber
        self._phase = rng.uniform(0, 2 * np.pi, _WAVES)
        # The sign makes the crests travel west, as Rossby waves do.
        self._frequency = -np.sign(eastward) * 2 * np.pi / rng.uniform(*_PERIODS, _WAVES)
        self._east = np.exp(1j * self._zonal(eastward)[:, None] * self._lon)
        self._north = np.exp(1j * self._lat[:, None] * EARTH_RADIUS * northward)

    def _make_islands(
        self, rng: np.random.Generator, lon: Float64[np.ndarray, " columns"], lat: Float64[np.ndarray, " rows"]
    ) -> None:
        relative, distance_to, shape = [], [], []
        for share_x, share_y, size in _ISLANDS:
            lon_c = lon[1] + share_x * (lon[-2] - lon[1])
            lat_c = lat[1] + share_y * (lat[-2] - lat[1])
            x = (lon - lon_c) * METRES_PER_DEGREE * np.cos(np.radians(lat_c))
            y = (lat - lat_c)[:, None] * METRES_PER_DEGREE
            bearing = np.arctan2(y, x)
            outline = np.full(bearing.shape, size)
            for lobes, height in ((2, 0.3), (3, 0.2), (5, 0.12), (7, 0.06)):
                outline += size * height * np.cos(lobes * bearing + rng.uniform(0, 2 * np.pi))
            distance_to.append(np.hypot(x, y))
            shape.append(outline)
            relative.append(distance_to[-1] / outline)
        # The islands grow together until they take the wanted share of the nodes.
        scale = np.quantile(np.min(relative, axis=0)[1:-1, 1:-1], LAND_SHARE)
        self._islands = [r < scale for r in relative]
        offshore = [np.clip((d - scale * s) / _TAPER, 0, 1) for d, s in zip(distance_to, shape, strict=True)]
        # Zero slope at both ends: neither the current nor its gradient jumps at the taper's edges.
        self._taper = [1 - s * s * (3 - 2 * s) for s in offshore]
        self.land = np.any(self._islands, axis=0)[1:-1, 1:-1]

    def streamfunction(self, day: float) -> Float64[np.ndarray, "rows columns"]:
        """ψ [m2/s] on `day`, (Y + 2, X + 2): one node more on each side than the currents."""
        season = 1 + _SEASON * np.cos(2 * np.pi * (day - 181) / 365.25)
        waves = season * self._amplitude * np.exp(1j * (self._phase - self._frequency * day))
        psi = ((self._north * waves) @ self._east).real
        height = (self._lat[-1] - self._lat[0]) * EARTH_RADIUS
        width = min(_JET_WIDTH, height / 6)
        bend = width / 2 * np.cos(self._zonal(2 * np.pi / 600e3) * self._lon + 2 * np.pi * day / 60)
        across = (self._lat - np.mean(self._lat))[:, None] * EARTH_RADIUS - bend
        psi -= _JET_SPEED * width * np.tanh(across / width)
        for island, taper in zip(self._islands, self._taper, strict=True):
            # The island's own mean, not zero: else the jet's step of ψ would run round the coast as a current.
            psi += taper * (psi[island].mean() - psi)
        return psi

    def velocity(self, day: float) -> Float64[np.ndarray, "2 Y X"]:
        """Eastward and northward current [m/s] on `day`, (2, Y, X), NaN on land."""
        psi = self.streamfunction(day)
        step = 2 * np.radians(self._res) * EARTH_RADIUS
        u = -(psi[2:, 1:-1] - psi[:-2, 1:-1]) / step
        v = (psi[1:-1, 2:] - psi[1:-1, :-2]) / (step * np.cos(self._lat[1:-1, None]))
        return np.where(self.land, np.nan, np.stack([u, v]))


def _axes(spec: Synthetic) -> tuple[Float64[np.ndarray, " X"], Float64[np.ndarray, " Y"]]:
    """Cell centres [degrees] of the domain, longitude in the product's convention.

    Raises:
        ConfigError: the domain is no box of whole cells, too small, too near a pole, or cannot be written.
    """
    sizes = {}
    for name, (low, high) in (("lon", spec.lon), ("lat", spec.lat)):
        cells = (high - low) / spec.resolution_deg
        # Below 12 cells there is no room for islands, deployments and the rim where drifters end.
        if abs(cells - round(cells)) > 1e-6 or cells < 12:
            raise ConfigError(
                f"synthetic.{name} ({low:g} to {high:g}) is {cells:g} cells of synthetic.resolution_deg "
                f"({spec.resolution_deg:g}); expected a whole number, at least 12. Change one of the two."
            )
        sizes[name] = round(cells)
    width = spec.lon[1] - spec.lon[0]
    if width > 360 or max(abs(spec.lat[0]), abs(spec.lat[1])) > 80:
        raise ConfigError(
            f"synthetic.lon {spec.lon} and synthetic.lat {spec.lat}: expected at most 360 degrees of longitude and "
            "latitudes within -80 to 80. Make the domain smaller."
        )
    # The product runs from -180 to 180; its regional subsets that cross 180 come in [0, 360).
    west = (spec.lon[0] + 180) % 360 - 180 if width < 360 else -180.0
    if west + width > 180:
        west = west % 360
    if west + width > 360:
        raise ConfigError(
            f"synthetic.lon {spec.lon} crosses both 0 and 180 degrees, so no convention keeps it in one piece; "
            "expected one crossing at most, or all 360 degrees. Move or narrow the domain."
        )
    res = spec.resolution_deg
    return (west + res * (np.arange(sizes["lon"]) + 0.5), spec.lat[0] + res * (np.arange(sizes["lat"]) + 0.5))


def write_currents(spec: Synthetic, folder: Path, progress: bool = False) -> list[Path]:
    """Writes the synthetic ocean of `spec` into `folder`, one file a month, and returns the files.

    Files of an earlier run are replaced, those with an error too.

    Raises:
        ConfigError: the settings make no ocean, or the folder holds files that were not made here.
    """
    ocean = Ocean(spec)
    prepare(folder)
    product = Product(
        title="Made surface geostrophic currents",
        source=MADE,
        lat=ocean.lat,
        lon=ocean.lon,
        units="days since 1950-01-01",
        kinds=("i4", "f4"),
    )
    first = np.datetime64(spec.start, "D")
    days = first + np.arange(spec.days)
    months = days.astype("datetime64[M]")
    with tqdm(total=days.size, unit="day", desc="making currents", disable=not progress) as bar:
        files = []
        for month in np.unique(months):
            since = (days[months == month] - np.datetime64("1950-01-01", "D")).astype(np.int64)
            files.append(write_month(folder, month, product, since, _levels(ocean, since, bar)))
    return files


def _levels(ocean: Ocean, days: Int64[np.ndarray, " days"], bar: tqdm) -> Iterator[Float64[np.ndarray, "2 Y X"]]:
    for day in days:
        yield ocean.velocity(float(day))
        bar.update()
