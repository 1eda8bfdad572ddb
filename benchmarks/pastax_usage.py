"""Loss and gradient of a batch through pastax as its users run it, to set the cost of a gradient step beside.

One `pastax.Dataset` a sample, diffusivity from patches around the particle at the nearest level
(`Dataset.neighborhood`), `pastax.solve` with Heun steps and its own noise, the fair energy score of the separation, all
`vmap`ped over samples, jitted, and differentiated in forward mode. In float64, which pastax asks for because it counts
seconds since 1970; or in float32 with times counted from the window's start.

    python -m benchmarks.pastax_usage            # CPU milliseconds a trajectory, in both; needs pastax
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pastax  # pyright: ignore[reportMissingImports]

from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.shared.store.schema import FILL, SCALE
from driftcal.train.reading.batches import Batch, Grid

Loss = Callable[[jax.Array, Batch, jax.Array], tuple[jax.Array, jax.Array]]
"""(log C_s, batch, key) -> loss and its derivative, of every sample."""

EPOCH = 1_500_000_000.0
"""Any time since 1970 [s] that a batch may stand for: batches know times within their window only."""


def _flow(patches: dict[str, Any], place: tuple, dx: jax.Array, dy: float) -> tuple[jax.Array, ...]:
    """Kappa [m2/s] and its gradient [m/s] at row, column `place` of patches `(1, 7, 7)`, bilinear."""
    u, v = patches["u"][0], patches["v"][0]

    def centred(f: jax.Array, axis: int) -> jax.Array:
        n = f.shape[axis]
        ahead, behind = (jax.lax.slice_in_dim(f, k, n - 2 + k, axis=axis) for k in (2, 0))
        return jax.lax.slice_in_dim(0.5 * (ahead - behind), 1, f.shape[1 - axis] - 1, axis=1 - axis)

    u_x, v_x, u_y, v_y = (centred(f, axis) / d for axis, d in ((1, dx), (0, dy)) for f in (u, v))
    kappa = dx * dy * pastax.safe_sqrt(u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2)
    nodes = jnp.arange(kappa.shape[0], dtype=kappa.dtype)
    at = pastax.bilinear_interp_2d(kappa, nodes, nodes, place[0] - 1, place[1] - 1)
    slopes = centred(kappa, 1) / dx, centred(kappa, 0) / dy
    inner = jnp.arange(slopes[0].shape[0], dtype=kappa.dtype)
    return at, *(pastax.bilinear_interp_2d(f, inner, inner, place[0] - 2, place[1] - 2) for f in slopes)


def loss_and_gradient(
    grid: Grid,
    members: int,
    step: int,
    precision: Literal["float32", "float64"],
    seconds_since_1970: bool,
    objective: Literal["energy-plain", "reference"] = "energy-plain",
) -> Loss:
    """The compiled loss and its derivative with respect to log C_s.

    Args:
        grid: of the batches' windows; land plays no part: windows must be of ocean alone.
        members: of each ensemble.
        step: of integration [s].
        precision: of everything; `float64` needs `jax.enable_x64`.
        seconds_since_1970: whether times are absolute, as in pastax's loaders, or relative to the window's start.
        objective: the fair energy score of the separation, mean over fixes; or the 2025 notebooks' squares of the score
            by Liu and Weisberg's index, summed over fixes.
    """
    dtype = jnp.dtype(precision)
    dy = METRES_PER_DEGREE * grid.lat_step
    epoch = EPOCH if seconds_since_1970 else 0.0

    def term(t: jax.Array, y: jax.Array, args: tuple) -> tuple[jax.Array, jax.Array]:
        dataset, log_cs = args
        axes = dataset["u"]
        dx = METRES_PER_DEGREE * grid.lon_step * jnp.cos(jnp.radians(y[1]))
        row, column = (y[1] - axes.lat_coords[0]) / grid.lat_step, (y[0] - axes.lon_coords[0]) / grid.lon_step
        patches = dataset.neighborhood(t, y[0], y[1], t_window=0, lat_window=3, lon_window=3)
        corner = (
            jnp.clip(jnp.round(f).astype(int) - 3, 0, n - 7) for f, n in ((row, grid.n_lat), (column, grid.n_lon))
        )
        kappa, kappa_x, kappa_y = _flow(patches, (row - next(corner), column - next(corner)), dx, dy)
        cs = jnp.exp(log_cs)
        drift = dataset.velocity_interp(t, y[0], y[1]) + 0.5 * cs * jnp.stack([kappa_x, kappa_y])
        sigma = pastax.safe_sqrt(2 * cs * kappa)
        return pastax.meters_to_degrees(drift, y[1]), pastax.meters_to_degrees(jnp.stack([sigma, sigma]), y[1])

    def one(log_cs: jax.Array, currents: Any, track: Any, latitude: Any, phase: Any, key: Any) -> jax.Array:
        axes = pastax.Grid(
            t_coords=epoch + jnp.arange(grid.n_times, dtype=dtype) * grid.time_step,
            lat_coords=latitude + jnp.arange(grid.n_lat, dtype=dtype) * grid.lat_step,
            lon_coords=jnp.arange(grid.n_lon, dtype=dtype) * grid.lon_step,
        )
        u, v = currents.astype(dtype) * dtype.type(SCALE)
        dataset = pastax.Dataset({"u": pastax.Field(u, axes), "v": pastax.Field(v, axes)}, axes)
        ensemble = pastax.solve(
            term,
            track[0],
            epoch + phase,
            n_save=grid.n_obs - 1,
            int_dt=float(step),
            save_dt=float(grid.obs_step),
            solver=pastax.Heun(),
            args=(dataset, log_cs),
            key=key,
            n_samples=members,
            adjoint="forward",
        )
        if objective == "reference":
            return (pastax.energy_score(ensemble, track, kernel=pastax.liu_index) ** 2).sum()
        return pastax.energy_score(ensemble[:, 1:], track[1:], kernel=pastax.separation_distance).mean()

    def run(log_cs: jax.Array, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        steps = jnp.array([grid.lon_step, grid.lat_step], dtype)
        corner = jnp.stack([jnp.zeros_like(batch.latitude), batch.latitude], axis=-1)
        tracks = corner[:, None] + (batch.track + batch.cell[:, None]) * steps
        keys = jax.random.split(key, len(batch.sample))

        def losses(parameter: jax.Array) -> jax.Array:
            each = jax.vmap(one, in_axes=(None, 0, 0, 0, 0, 0))
            return each(parameter, batch.currents, tracks, batch.latitude, batch.phase, keys)

        return jax.jvp(losses, (log_cs,), (jnp.ones_like(log_cs),))

    return jax.jit(run)


def open_ocean(grid: Grid, n: int, precision: str, seed: int = 0) -> Batch:
    """Samples of smooth made currents without land, at mid-latitudes, which drifters cross slowly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: grid.n_lat, : grid.n_lon]
    waves = rng.uniform(0.1, 0.5, (n, 2, 4, 3)) * [1, 1, 0] + rng.uniform(0, 6, (n, 2, 4, 3)) * [0, 0, 1]
    level = np.arange(grid.n_times)[:, None, None]
    phases = [[waves[b, c, :, 0, None, None, None] * x + waves[b, c, :, 1, None, None, None] * y
               + waves[b, c, :, 2, None, None, None] + 0.1 * level for c in range(2)] for b in range(n)]  # fmt: skip
    currents = np.round(2000 * np.sin(phases).sum(axis=2)).astype(np.int16)
    assert (currents != FILL).all()
    walk = np.cumsum(rng.normal(0, 0.03, (n, grid.n_obs, 2)), axis=1)
    track = 0.5 + walk - walk[:, :1]
    values = {
        "currents": currents,
        "cell": np.tile(np.array([grid.n_lon // 2, grid.n_lat // 2], np.int32), (n, 1)),
        "start": track[:, 0].astype(precision),
        "track": track.astype(precision),
        "phase": (3600.0 * rng.integers(0, 24, n)).astype(precision),
        "latitude": rng.uniform(20, 45, n).astype(precision),
        "longitude": np.zeros(n, precision),
        "sample": np.arange(n, dtype=np.uint32),
        "weight": np.ones(n, precision),
    }
    return Batch(**jax.device_put(values))


VARIANTS: dict[str, tuple[Literal["float32", "float64"], bool]] = {
    "float64, seconds since 1970": ("float64", True),
    "float32, time rebased": ("float32", False),
}


def main() -> int:
    """Entry point; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--samples", type=int, default=8)
    options.add_argument("--members", type=int, default=50)
    options.add_argument("--repeats", type=int, default=5)
    chosen = options.parse_args()
    grid = Grid(7, 41, 41, 121, 86_400, 3600, 0.125, 0.125)
    spent: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(chosen.repeats):  # interleaved, so that a busy machine slows both
        for name, (precision, absolute) in VARIANTS.items():
            with jax.enable_x64(precision == "float64"):
                run = loss_and_gradient(grid, chosen.members, 1800, precision, absolute)
                batch, key = open_ocean(grid, chosen.samples, precision), jax.random.key(0)
                jax.block_until_ready(run(jnp.log(jnp.asarray(0.1, precision)), batch, key))
                begin = time.process_time()
                jax.block_until_ready(run(jnp.log(jnp.asarray(0.2, precision)), batch, key))
                spent[name].append(1e3 * (time.process_time() - begin) / chosen.samples)
    for name, each in spent.items():
        print(f"pastax {pastax.__version__}, {name}: {median(each):.1f} CPU ms a trajectory")
    return 0


if __name__ == "__main__":
    sys.exit(main())
