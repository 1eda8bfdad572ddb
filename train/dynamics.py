"""The flow around a particle, and the stochastic dynamics in it.

The model (Smagorinsky 1963; as in pastax and Parcels) is the Ito equation

    dX = (u + grad K) dt + sqrt(2 K) dW,    K = C_s kappa,
    kappa = dx dy sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2)    [m2/s],

with u, v, kappa and grad kappa taken bilinearly at X from the window's grid. `tabulate` computes kappa and its
gradient at every cell and level; `flow_at` interpolates; `Smagorinsky` turns a flow into drift and diffusion.

A table holds one row of eight numbers per cell and interval of `kappa_every`: u, v, kappa at the interval's start,
their increments over it, and grad kappa at its middle. Eight float32 are half a cache line; wider rows straddle two.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from shared.geo import METRES_PER_DEGREE
from shared.schema import FILL, SCALE
from train.data import Grid

FORMULA = "K = C_s dx dy sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2)"
"""What C_s multiplies: results carry it, because other codes' constants differ by factors of sqrt(2) or a square."""

LAND = -1.0
"""Value of kappa [m2/s] in a table that marks a cell without current; a real one is never negative."""

COAST = 1e-7
"""Keeps the inverse-distance weights finite on a node [cells squared]; pastax's value."""

LEAST_KAPPA = 1e-12
"""Diffusivities are not taken below this [m2/s], where the derivative of the square root has no bound."""


class Flow(NamedTuple):
    """The flow at particles: velocities [m/s], kappa [m2/s], its gradient [m/s]; all zero inside land.

    `ashore` says which particles are there: in a cell without any corner of ocean.
    """

    u: Float[Array, "..."]
    v: Float[Array, "..."]
    kappa: Float[Array, "..."]
    kappa_x: Float[Array, "..."]
    kappa_y: Float[Array, "..."]
    ashore: Bool[Array, "..."]


class Table(NamedTuple):
    """Flow of a batch of windows, ready for gathering; `rows` is flat over (sample, interval, row, column)."""

    rows: Float[Array, "cells 8"]
    n_intervals: int
    intervals_per_second: float


class Smagorinsky(eqx.Module):
    """Smagorinsky diffusion with one constant, trained through its logarithm."""

    log_cs: Float[Array, "..."]

    def __call__(self, flow: Flow, gradient_share: float) -> tuple[tuple[Array, Array], Array]:
        """Drift (east, north) [m/s] and diffusion amplitude sqrt(2 K) [m s^-1/2], the same in both directions.

        Args:
            flow: The flow at the particles.
            gradient_share: How much of grad K the scheme needs in its drift: 1 for Ito schemes, 1/2 for Stratonovich
                ones, whose noise adds the other half.
        """
        cs = jnp.exp(self.log_cs)
        share = gradient_share * cs
        drift = flow.u + share * flow.kappa_x, flow.v + share * flow.kappa_y
        amplitude = jnp.sqrt(2.0 * cs) * jnp.sqrt(jnp.maximum(flow.kappa, LEAST_KAPPA))
        return drift, jnp.where(flow.kappa > 0.0, amplitude, 0.0)


def difference(f: Float[Array, "*batch lat lon"], ocean: Bool[Array, "*batch lat lon"], axis: int) -> Array:
    """Difference of `f` per cell along `axis` (-1 east, -2 north): centred, one-sided at coasts and edges, else 0."""
    n = f.shape[axis]

    def shifted(a: Array, by: int) -> Array:
        inner = jax.lax.slice_in_dim(a, max(by, 0), n + min(by, 0), axis=axis)
        edge = jnp.zeros_like(jax.lax.slice_in_dim(a, 0, 1, axis=axis))
        return jnp.concatenate([inner, edge] if by > 0 else [edge, inner], axis=axis)

    ahead, behind = shifted(f, 1), shifted(f, -1)
    has_ahead, has_behind = shifted(ocean, 1), shifted(ocean, -1)
    one_sided = jnp.where(has_ahead, ahead - f, jnp.where(has_behind, f - behind, 0.0))
    return jnp.where(has_ahead & has_behind, 0.5 * (ahead - behind), one_sided)


def kappa_of(
    u: Float[Array, "*batch lat lon"],
    v: Float[Array, "*batch lat lon"],
    ocean: Bool[Array, "*batch lat lon"],
    dx: Float[Array, "*batch lat 1"],
    dy: float,
) -> Array:
    """Kappa [m2/s] for C_s = 1 on the nodes of a grid with spacings dx, dy [m]; meaningless on land."""
    u_x, v_x = difference(u, ocean, -1) / dx, difference(v, ocean, -1) / dx
    u_y, v_y = difference(u, ocean, -2) / dy, difference(v, ocean, -2) / dy
    return dx * dy * jnp.sqrt(u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2)


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
    ocean = (currents != FILL).all(axis=(1, 2))[:, None]
    velocity = jnp.where(ocean[:, None], currents.astype(dtype) * dtype.type(SCALE), 0.0)
    fine = grid.time_step // kappa_every
    share = (jnp.arange(fine, dtype=dtype) / fine)[:, None, None]

    def refine(f: Array) -> Array:
        between = f[:, :-1, None] + share * (f[:, 1:, None] - f[:, :-1, None])
        return jnp.concatenate([between.reshape(n_batch, -1, grid.n_lat, grid.n_lon), f[:, -1:]], axis=1)

    u, v = refine(velocity[:, 0]), refine(velocity[:, 1])
    lat = latitude[:, None] + jnp.arange(grid.n_lat, dtype=dtype) * grid.lat_step
    dy = METRES_PER_DEGREE * grid.lat_step
    dx = (METRES_PER_DEGREE * grid.lon_step * jnp.cos(jnp.radians(lat)))[:, None, :, None]
    kappa = kappa_of(u, v, ocean, dx, dy)
    kappa_x, kappa_y = difference(kappa, ocean, -1) / dx, difference(kappa, ocean, -2) / dy

    def within(f: Array) -> Array:
        return f[:, :-1] if kappa_every == step else 0.5 * (f[:, :-1] + f[:, 1:])

    start, gain = [f[:, :-1] for f in (u, v, kappa)], [f[:, 1:] - f[:, :-1] for f in (u, v, kappa)]
    channels = [*start, *gain, within(kappa_x), within(kappa_y)]
    empty = jnp.array([0.0, 0.0, LAND, 0.0, 0.0, 0.0, 0.0, 0.0], dtype)
    rows = jnp.where(ocean[..., None], jnp.stack(channels, axis=-1), empty)
    n_intervals = (grid.n_times - 1) * fine
    return Table(rows.reshape(-1, 8), n_intervals, 1.0 / kappa_every)


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
    window = (jnp.arange(cell.shape[0]) * table.n_intervals + interval) * (grid.n_lat * grid.n_lon)
    at = window + j * grid.n_lon + i
    corners = [table.rows.at[at + k].get(mode="clip") for k in (0, 1, grid.n_lon, grid.n_lon + 1)]
    weights = (1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y
    ocean = [corner[..., 2] >= 0.0 for corner in corners]
    near = [(x, y), (1 - x, y), (x, 1 - y), (1 - x, 1 - y)]
    inverse = [jnp.where(o, 1.0 / (a * a + b * b + COAST), 0.0) for o, (a, b) in zip(ocean, near, strict=True)]
    total = inverse[0] + inverse[1] + inverse[2] + inverse[3]
    whole = ocean[0] & ocean[1] & ocean[2] & ocean[3]
    scale = jnp.where(total > 0.0, 1.0 / jnp.where(total > 0.0, total, 1.0), 0.0)
    # pastax's coastal scheme: bilinear between four corners of ocean, else inverse distance among those that are
    weights = [jnp.where(whole, w, v * scale) for w, v in zip(weights, inverse, strict=True)]
    blend = sum(w[..., None] * corner for w, corner in zip(weights, corners, strict=True))
    blend = jnp.where((total > 0.0)[..., None], blend, 0.0)
    u, v, kappa = (blend[..., c] + share * blend[..., c + 3] for c in range(3))
    return Flow(u, v, kappa, blend[..., 6], blend[..., 7], total <= 0.0)
