"""The twin's integrator: drifters stepped through gridded currents, with a diffusivity that the currents set.

It is deliberately plain (Itô, Euler-Maruyama, float64) and shares no code with the training stage, so that agreement
between the two means something:

    dX = (u + ∇K) dt + √(2K) dW,   K = C_s κ + K_0,   κ = Δx Δy √(u_x² + v_y² + ½(u_y + v_x)²)  [m2/s]

Derivatives are differences, on the currents' grid, of the currents interpolated linearly in time: centred, one-sided
next to land or the grid's edge, zero between two such. u, v, κ and ∇κ are taken bilinearly at X. Between one to three
land nodes the ocean nodes are weighted by inverse squared distance; between four the drifter is aground and stays.

Positions are (lon, lat) in degrees, times whole seconds since 1970, fields (lat, lon), velocities m/s.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int16

from driftcal.preprocess.recipe import DAY, CurrentSource
from driftcal.preprocess.sources.gridded.currents import Currents
from driftcal.shared.errors import DataError
from driftcal.shared.geo import EARTH_RADIUS, METRES_PER_DEGREE
from driftcal.shared.store.schema import FILL, OVER, SCALE


def _differences(
    values: Float[np.ndarray, "*batch Y X"], ocean: Bool[np.ndarray, "*#batch Y X"]
) -> tuple[Float[np.ndarray, "*batch Y-2 X-2"], Float[np.ndarray, "*batch Y-2 X-2"]]:
    """Differences per node of `values`, northward and eastward, at the inner nodes.

    Args:
        values: (..., Y, X), finite.
        ocean: True where `values` may be used, (..., Y, X). A missing neighbour is replaced by the node itself and the
            spacing shortened: centred, one-sided and no difference are one formula.

    Returns:
        Two arrays (..., Y - 2, X - 2).
    """
    centre = values[..., 1:-1, 1:-1]
    slopes = []
    for before, after in (
        (np.s_[..., :-2, 1:-1], np.s_[..., 2:, 1:-1]),
        (np.s_[..., 1:-1, :-2], np.s_[..., 1:-1, 2:]),
    ):
        rise = np.where(ocean[after], values[after], centre) - np.where(ocean[before], values[before], centre)
        slopes.append(rise / np.maximum(ocean[after].astype(np.int8) + ocean[before], 1))
    return slopes[0], slopes[1]


class Interval:
    """The currents between two neighbouring levels of the record, ready to be read at any time and position.

    Args:
        currents: gives `lat`, `lon` and `periodic`, the grid.
        velocity: u and v [m/s] at both levels, (2 levels, 2, Y, X); NaN on land.
        start: time of the first level [s].
        end: time of the second level [s].
    """

    def __init__(self, currents: Currents, velocity: Float[np.ndarray, "2 2 Y X"], start: int, end: int):
        self.lat, self.lon, self.periodic = currents.lat, currents.lon, currents.periodic
        self.start, self.end = start, end
        # Land at either level is land all through the interval: a fill value never enters an interpolation.
        ocean = np.isfinite(velocity).all(axis=(0, 1))
        velocity = np.where(ocean, velocity, 0.0)
        rim = ((0, 0),) * 2 + ((1, 1), (0, 0))
        sides = ((0, 0),) * 3 + ((1, 1),)
        padded = np.pad(np.pad(velocity, rim), sides, mode="wrap" if self.periodic else "constant")
        wet = np.pad(np.pad(ocean, rim[2:]), sides[2:], mode="wrap" if self.periodic else "constant")
        north, east = _differences(padded, wet)
        dy = METRES_PER_DEGREE * self.lat.step
        dx = METRES_PER_DEGREE * self.lon.step * np.cos(np.radians(self.lat.values))[:, None]
        # Times dx dy and √½ here, so that κ is the length of the vector (u_x, v_y, shear). Linear in u and v, hence
        # interpolating these in time is the same as interpolating u and v first; κ itself is not linear.
        shear = (north[:, 0] / dy + east[:, 1] / dx) * np.sqrt(0.5)
        strain = np.stack([east[:, 0] / dx, north[:, 1] / dy, shear], axis=1) * (dx * dy)
        fields = np.concatenate([velocity, np.where(ocean, strain, 0.0)], axis=1)
        fields[1] -= fields[0]
        self.ocean = ocean
        self._fields = np.ascontiguousarray(fields.transpose(2, 3, 0, 1).reshape(-1, 2, 5))

    def _cell(
        self, position: Float64[np.ndarray, "n 2"]
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float64[np.ndarray, "n 2"]]:
        """South-west node (i, j) of each position's cell, and the position in it, (n, 2) as (x, y) in [0, 1)."""
        x = (position[:, 0] - self.lon.start) / self.lon.step
        y = (position[:, 1] - self.lat.start) / self.lat.step
        x = x % self.lon.size if self.periodic else np.clip(x, 1, self.lon.size - 2.001)
        y = np.clip(y, 1, self.lat.size - 2.001)
        i, j = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
        return i, j, np.stack([x - j, y - i], axis=1)

    def _nodes(
        self, i: Int[np.ndarray, " n"], j: Int[np.ndarray, " n"], around: Int[np.ndarray, " k"]
    ) -> Int[np.ndarray, "n k k"]:
        """Places among all nodes, row by row, of those `around` a cell in y and x."""
        rows, columns = i[:, None] + around, (j[:, None] + around) % self.lon.size
        return rows[:, :, None] * self.lon.size + columns[:, None, :]

    def inside(self, position: Float64[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
        """True where a position is at least one cell away from the edge of the grid, (n,)."""
        y = (position[:, 1] - self.lat.start) / self.lat.step
        x = (position[:, 0] - self.lon.start) / self.lon.step
        across = (x >= 1) & (x < self.lon.size - 2.001) | self.periodic
        return (y >= 1) & (y < self.lat.size - 2.001) & across

    def aground(self, position: Float64[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
        """True where all four nodes around a position are land, (n,)."""
        i, j, _ = self._cell(position)
        return np.asarray(~self.ocean.ravel()[self._nodes(i, j, np.arange(2))].any(axis=(1, 2)))

    def at(
        self, position: Float64[np.ndarray, "n 2"], time: float
    ) -> tuple[
        Float64[np.ndarray, "n 2"], Float64[np.ndarray, " n"], Float64[np.ndarray, "n 2"], Bool[np.ndarray, " n"]
    ]:
        """Velocity and diffusivity at `position` (n, 2) and `time` [s].

        Returns:
            u and v [m/s] (n, 2); κ [m2/s] (n,); ∂κ/∂x and ∂κ/∂y [m/s] (n, 2); True where afloat (n,).
        """
        i, j, part = self._cell(position)
        nodes = self._nodes(i, j, np.arange(-1, 3))
        pair = self._fields[nodes]
        field = pair[..., 0, :] + (time - self.start) / (self.end - self.start) * pair[..., 1, :]
        ocean = self.ocean.ravel()[nodes]
        kappa = np.sqrt((field[..., 2:] ** 2).sum(axis=-1))
        north, east = _differences(kappa, ocean)
        lat = self.lat.start + self.lat.step * (i[:, None] + np.arange(2))
        east = east / (METRES_PER_DEGREE * self.lon.step * np.cos(np.radians(lat)))[:, :, None]
        north = north / (METRES_PER_DEGREE * self.lat.step)
        inner = np.s_[:, 1:3, 1:3]
        corners = np.concatenate([field[inner][..., :2], np.stack([kappa[inner], east, north], axis=-1)], axis=-1)
        weights = _weights(part, ocean[inner])
        value = (weights[..., None] * corners).sum(axis=(1, 2))
        return value[:, :2], value[:, 2], value[:, 3:], np.asarray(weights.any(axis=(1, 2)))


def _weights(part: Float64[np.ndarray, "n 2"], ocean: Bool[np.ndarray, "n 2 2"]) -> Float64[np.ndarray, "n 2 2"]:
    """Weights of a cell's nodes, (n, 2, 2) as (south-north, west-east), for positions `part` (n, 2) in the cell."""
    x, y = part[:, :1], part[:, 1:]
    weights = np.concatenate([1 - y, y], axis=1)[:, :, None] * np.concatenate([1 - x, x], axis=1)[:, None, :]
    coast = ~ocean.all(axis=(1, 2))
    if coast.any():
        squared = (part[coast, None, None, 0] - np.arange(2)) ** 2 + (part[coast, 1, None, None] - [[0], [1]]) ** 2
        inverse = ocean[coast] / (squared + 1e-7)
        total = inverse.sum(axis=(1, 2), keepdims=True)
        weights[coast] = inverse / np.where(total > 0, total, 1)
    return weights


def advance(
    interval: Interval,
    position: Float64[np.ndarray, "n 2"],
    noise: Float64[np.ndarray, "n 2"],
    *,
    cs: float,
    time: float,
    step: float,
    slip: Float64[np.ndarray, "*slip"],
    background: float = 0.0,
) -> Float64[np.ndarray, "n 2"]:
    """Positions (n, 2) one Euler-Maruyama step of `step` [s] later.

    Args:
        interval: the currents around `time`.
        position: lon, lat [degrees], (n, 2).
        noise: standard normal numbers, (n, 2).
        cs: the Smagorinsky constant.
        time: when the step starts [s].
        step: its length [s].
        slip: velocity added to the currents [m/s], broadcast to (n, 2).
        background: the diffusivity K_0 [m2/s].
    """
    velocity, kappa, gradient, afloat = interval.at(position, time)
    diffusivity = cs * kappa + background
    metres = (velocity + cs * gradient + slip) * step + np.sqrt(2 * diffusivity * step)[:, None] * noise
    metres[~afloat] = 0.0
    eastward = EARTH_RADIUS * np.cos(np.radians(position[:, 1]))
    return position + np.degrees(metres / np.stack([eastward, np.full_like(eastward, EARTH_RADIUS)], axis=1))


def velocities(packed: Int16[np.ndarray, "2 Y X"]) -> Float64[np.ndarray, "2 Y X"]:
    """Velocities [m/s] of a level as `Currents` gives it, NaN where there are none."""
    # Currents too fast for the store are no data here: samples around them are dropped anyway.
    return np.where((packed == FILL) | (packed == OVER), np.nan, packed * SCALE)


class Record:
    """The record of currents, read forward with two levels in memory; across a missing level it is interpolated too.

    A single level is constant for `days` where the source says `frozen`.
    """

    def __init__(self, currents: Currents, source: CurrentSource, days: int):
        self._currents, self._index, self._interval = currents, -2, None
        self.time = np.asarray(currents.time, dtype=np.int64)
        if self.time.size == 1 and source.frozen:
            self.time = self.time[0] + np.array([0, days * DAY])
        if self.time.size < 2 or min(currents.lat.size, currents.lon.size) < 6:
            raise DataError(
                f"currents {source.path}: {self.time.size} times on {currents.lat.size} x {currents.lon.size} nodes; "
                "expected 2 times and 6 x 6 nodes at least. Give a longer or wider record in synthetic.currents."
            )

    def _level(self, index: int) -> Float64[np.ndarray, "2 Y X"]:
        return velocities(self._currents.read(*((0, 1) if self._currents.time.size == 1 else (index, index + 1)))[0])

    def at(self, time: int) -> Interval:
        """The interval that contains `time` [s]; times must not decrease."""
        index = int(np.clip(np.searchsorted(self.time, time, side="right") - 1, 0, self.time.size - 2))
        if self._interval is None or index != self._index:
            first = self._second if index == self._index + 1 else self._level(index)
            self._second, self._index = self._level(index + 1), index
            pair = np.stack([first, self._second])
            self._interval = Interval(self._currents, pair, int(self.time[index]), int(self.time[index + 1]))
        return self._interval
