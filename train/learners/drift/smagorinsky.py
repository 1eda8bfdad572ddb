"""The flow around a particle, and the stochastic dynamics in it.

The model (Smagorinsky 1963; as in pastax and Parcels) is the Ito equation

    dX = (u + grad K) dt + sqrt(2 K) dW,    K = C_s kappa,
    kappa = dx dy sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2)    [m2/s],

with u, v, kappa and grad kappa taken bilinearly at X from the window's grid. `tabulate` computes kappa and its
gradient at every cell and level; `flow_at` interpolates; `Smagorinsky` turns a flow into drift and diffusion.

A table holds one row of eight numbers per node and interval of `kappa_every`: u, v, kappa at the interval's start,
their increments over it, and grad kappa at its middle. Eight float32 are half a cache line; wider rows straddle two.
"""

import functools
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.shared.store.schema import FILL, SCALE
from driftcal.train.fit.parameters import Positive
from driftcal.train.learners.drift.xla_barriers import simpler_where, walled
from driftcal.train.reading.batches import Grid

FORMULA = "K = C_s dx dy sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2)"
"""Formula of K, which results carry because other codes' constants differ by factors of sqrt(2) or a square."""

CORNERS = (0, 0), (1, 0), (0, 1), (1, 1)
"""Column, row of a cell's corners from its south-western one."""

COAST = 1e-7
"""Keeps the inverse-distance weights finite on a node [cells squared]; pastax's value."""

LEAST_KAPPA = 1e-12
"""Diffusivities are not taken below this [m2/s], where the derivative of the square root has no bound."""


class Place(NamedTuple):
    """Positions of particles in time and space.

    Attributes:
        time: after the sample's first fix [s].
        lon: [degrees], continuous inside a window.
        lat: [degrees].
    """

    time: Float[Array, ""]
    lon: Float[Array, "..."]
    lat: Float[Array, "..."]


class Flow(NamedTuple):
    """The flow at particles: velocities [m/s], kappa [m2/s], its gradient [m/s]; all zero inside land.

    `ashore` says which particles are there: in a cell without any corner of ocean. `place` is known during a
    simulation.
    """

    u: Float[Array, "..."]
    v: Float[Array, "..."]
    kappa: Float[Array, "..."]
    kappa_x: Float[Array, "..."]
    kappa_y: Float[Array, "..."]
    ashore: Bool[Array, "..."]
    place: Place | None = None


class Table(NamedTuple):
    """Flow of a batch of windows, ready for gathering.

    Attributes:
        rows: flat over (sample, interval, row, column).
        ocean: which corners of a cell are ocean, bits 0 to 3 in the order of `CORNERS`; flat over (sample, row,
            column), the cell north-east of a node.
        n_intervals: of `kappa_every`.
        intervals_per_second: their rate.
    """

    rows: Float[Array, "cells 8"]
    ocean: UInt8[Array, " nodes"]
    n_intervals: int
    intervals_per_second: float


class WholeFlow(eqx.Module):
    """Dynamics that are computed for all members and samples at once: `(flow, gradient share)` to drift and amplitude.

    A trained array of shape () has shape (B,) where every sample has a value of its own.
    """


class Smagorinsky(WholeFlow):
    """Smagorinsky diffusion with one constant C_s: the dynamics where none are named."""

    cs: Positive

    formula: ClassVar[str] = FORMULA
    symbols: ClassVar[dict[str, str]] = {"cs": "C_s"}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"cs": (0.01, 10.0)}
    scales_diffusivity: ClassVar[bool] = True

    @classmethod
    def of_log(cls, log_cs: Array) -> "Smagorinsky":
        """The dynamics with this log C_s, of shape () or (B,)."""
        return cls(Positive.of_log(log_cs))

    def __call__(self, flow: Flow, gradient_share: float) -> tuple[tuple[Array, Array], Array]:
        """Drift (east, north) [m/s] and diffusion amplitude sqrt(2 K) [m s^-1/2], the same in both directions.

        Args:
            flow: The flow at the particles.
            gradient_share: How much of grad K the scheme needs in its drift: 1 for Ito schemes, 1/2 for Stratonovich
                ones, whose noise adds the other half.
        """
        cs = self.cs.value
        share = gradient_share * cs
        drift = flow.u + share * flow.kappa_x, flow.v + share * flow.kappa_y
        amplitude = jnp.sqrt(2.0 * cs) * jnp.sqrt(jnp.maximum(flow.kappa, LEAST_KAPPA))
        return drift, jnp.where(flow.kappa > 0.0, amplitude, 0.0)


class Neighbours(NamedTuple):
    """Weights of the differences to the nodes east, west, north and south: 1/2 each, 1 at a coast or edge, else 0."""

    east: Float[Array, "*batch lat lon"]
    west: Float[Array, "*batch lat lon"]
    north: Float[Array, "*batch lat lon"]
    south: Float[Array, "*batch lat lon"]

    @classmethod
    def of(cls, ocean: Bool[Array, "*batch lat lon"], dtype: np.dtype) -> "Neighbours":
        """Neighbours of the nodes of a grid with this mask."""

        def weight(there: Array, opposite: Array) -> Array:
            return jnp.where(there, jnp.where(opposite, 0.5, 1.0), 0.0) * ocean.astype(dtype)

        east, west, north, south = _around(ocean)
        return cls(weight(east, west), weight(west, east), weight(north, south), weight(south, north))

    def difference(self, f: Float[Array, "*batch lat lon"]) -> tuple[Array, Array]:
        """Differences of `f` per cell, east and north: centred, one-sided at coasts and edges, else 0."""
        east, west, north, south = _around(f)
        return self.east * (east - f) + self.west * (f - west), self.north * (north - f) + self.south * (f - south)


def _around(f: Array) -> tuple[Array, Array, Array, Array]:
    """The values at the nodes east, west, north and south of every node; 0 outside the grid."""
    padded = jnp.pad(f, [(0, 0)] * (f.ndim - 2) + [(1, 1), (1, 1)])
    return padded[..., 1:-1, 2:], padded[..., 1:-1, :-2], padded[..., 2:, 1:-1], padded[..., :-2, 1:-1]


def kappa_of(
    u: Float[Array, "*#batch lat lon"],
    v: Float[Array, "*#batch lat lon"],
    neighbours: Neighbours,
    dx: Float[Array, "*#batch lat 1"],
    dy: float,
) -> Array:
    """Kappa [m2/s] for C_s = 1 on the nodes of a grid with spacings dx, dy [m]; meaningless on land."""
    (u_x, u_y), (v_x, v_y) = neighbours.difference(u), neighbours.difference(v)
    return dx * dy * jnp.sqrt((u_x / dx) ** 2 + (v_y / dy) ** 2 + 0.5 * (u_y / dy + v_x / dx) ** 2)


def tabulate(
    currents: Int[Array, "B 2 time lat lon"], latitude: Float[Array, " B"], grid: Grid, kappa_every: int, step: int
) -> Table:
    """The flow of every window: currents decoded, kappa and its gradient at every level.

    Args:
        currents: [1e-4 m/s], FILL on land.
        latitude: of the southern rows [degrees].
        grid: the windows' grid.
        kappa_every: interval between the levels at which kappa is computed [s].
        step: the integration's step [s]; where it equals `kappa_every` every stage falls on a level, and grad kappa is
            taken there rather than in the middle of the interval: nothing is interpolated in time.
    """
    dtype = latitude.dtype
    n_batch = currents.shape[0]
    ocean = (currents != FILL).all(axis=(1, 2))
    velocity = jnp.where(ocean[:, None, None], currents.astype(dtype) * dtype.type(SCALE), 0.0)
    fine = grid.time_step // kappa_every
    share = (jnp.arange(fine, dtype=dtype) / fine)[:, None, None]

    def refine(f: Array) -> Array:
        if fine == 1:
            return f
        between = f[:, :-1, None] + share * (f[:, 1:, None] - f[:, :-1, None])
        return jnp.concatenate([between.reshape(n_batch, -1, grid.n_lat, grid.n_lon), f[:, -1:]], axis=1)

    u, v = refine(velocity[:, 0]), refine(velocity[:, 1])
    lat = latitude[:, None] + jnp.arange(grid.n_lat, dtype=dtype) * grid.lat_step
    dy = METRES_PER_DEGREE * grid.lat_step
    dx = (METRES_PER_DEGREE * grid.lon_step * jnp.cos(jnp.radians(lat)))[:, None, :, None]
    neighbours = Neighbours.of(ocean[:, None], dtype)
    kappa = kappa_of(u, v, neighbours, dx, dy)
    kappa_x, kappa_y = neighbours.difference(kappa)

    def within(f: Array) -> Array:
        return f[:, :-1] if kappa_every == step else 0.5 * (f[:, :-1] + f[:, 1:])

    def interleaved(u: Array, v: Array, kappa: Array, kappa_x: Array, kappa_y: Array, ocean: Array) -> Array:
        start, gain = [f[:, :-1] for f in (u, v, kappa)], [f[:, 1:] - f[:, :-1] for f in (u, v, kappa)]
        channels = [*start, *gain, within(kappa_x), within(kappa_y)]
        # a chain of choices, not a stack, whose elements XLA:CPU makes one by one: 2.4 times slower
        number, last = jnp.arange(len(channels)), channels.pop()[..., None]
        choices = reversed(list(enumerate(channels)))
        rows = functools.reduce(lambda rest, f: jnp.where(number == f[0], f[1][..., None], rest), choices, last)
        return jnp.where(ocean[:, None, ..., None], rows, 0.0)

    rows = walled(interleaved, u, v, kappa, kappa_x / dx, kappa_y / dy, ocean)
    beyond = jnp.pad(ocean, ((0, 0), (0, 1), (0, 1)))
    corners = [beyond[:, j : j + grid.n_lat, i : i + grid.n_lon] for i, j in CORNERS]
    bits = functools.reduce(jnp.bitwise_or, [corner.astype(jnp.uint8) << k for k, corner in enumerate(corners)])
    return Table(rows.reshape(-1, 8), bits.reshape(-1), (grid.n_times - 1) * fine, 1.0 / kappa_every)


def flow_at(
    table: Table,
    grid: Grid,
    column: Float[Array, "S B"],
    row: Float[Array, "S B"],
    cell: Int[Array, "B 2"],
    interval: Int[Array, " B"],
    share: Float[Array, " B"],
) -> Flow:
    """The flow at particles.

    Args:
        table: of the batch.
        grid: the windows' grid.
        column: of the particles, relative to `cell` [cells].
        row: likewise.
        cell: column, row to which positions are relative.
        interval: of the time, in the table.
        share: of the interval that has passed, in [0, 1].
    """
    i = jnp.clip(cell[:, 0] + jnp.floor(column).astype(jnp.int32), 0, grid.n_lon - 2)
    j = jnp.clip(cell[:, 1] + jnp.floor(row).astype(jnp.int32), 0, grid.n_lat - 2)
    x = column - (i - cell[:, 0]).astype(column.dtype)
    y = row - (j - cell[:, 1]).astype(row.dtype)
    sample, n_nodes = jnp.arange(cell.shape[0], dtype=cell.dtype), grid.n_lat * grid.n_lon
    node = j * grid.n_lon + i
    ocean = walled(lambda at: table.ocean.at[at].get(mode="clip"), sample * n_nodes + node)

    def blended(at: Array, *weights: Array) -> Array:
        rows = [table.rows.at[at + j * grid.n_lon + i].get(mode="clip") for i, j in CORNERS]
        return functools.reduce(jnp.add, [w[..., None] * row for w, row in zip(weights, rows, strict=True)])

    def coastal(at: Array, x: Array, y: Array, ocean: Array) -> Array:
        return walled(blended, at, *corner_weights(x, y, ocean))

    def open_water(at: Array, x: Array, y: Array, _: Array) -> Array:
        return blended(at, *bilinear_weights(x, y))

    at = (sample * table.n_intervals + interval) * n_nodes + node
    blend = simpler_where((ocean == 15).all(), open_water, coastal, at, x, y, ocean)
    u, v, kappa = (blend[..., c] + share * blend[..., c + 3] for c in range(3))
    return Flow(u, v, kappa, blend[..., 6], blend[..., 7], ocean == 0)


def bilinear_weights(x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Weights of a cell's corners in the order of `CORNERS`, at x, y in [0, 1] within it."""
    rest_x, rest_y = 1.0 - x, 1.0 - y
    return rest_x * rest_y, x * rest_y, rest_x * y, x * y


def corner_weights(x: Array, y: Array, ocean: UInt8[Array, "..."]) -> list[Array]:
    """Weights of the corners, some of which may be land; arguments as in `bilinear_weights`, `ocean` as in `Table`.

    pastax's coastal scheme: bilinear between four corners of ocean, else inverse squared distance among those that are.
    """
    rest_x, rest_y = 1.0 - x, 1.0 - y
    xx, yy, rest_xx, rest_yy = x * x, y * y + COAST, rest_x * rest_x, rest_y * rest_y + COAST
    far = xx + yy, rest_xx + yy, xx + rest_yy, rest_xx + rest_yy
    # inverses over their sum, multiplied through by all four distances: one division instead of five
    south, north = far[0] * far[1], far[2] * far[3]
    inverse = far[1] * north, far[0] * north, far[3] * south, far[2] * south
    inverse = [jnp.where(ocean & (1 << k), value, 0.0) for k, value in enumerate(inverse)]
    total = inverse[0] + inverse[1] + inverse[2] + inverse[3]
    scale = 1.0 / jnp.where(ocean == 0, 1.0, total)
    return [jnp.where(ocean == 15, w, v * scale) for w, v in zip(bilinear_weights(x, y), inverse, strict=True)]
