"""Batches of made windows of the open ocean, for benchmarks."""

from typing import Any

import numpy as np

from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.train.reading.batches import Batch, Grid

WAVES = 24
"""Plane waves that make up a flow."""


def eddying(grid: Grid, n: int, dtype: type, seed: int = 0) -> Batch:
    """`n` samples of smooth currents of 0.1 to 0.45 m/s, scales of 80 to 500 km, periods of weeks; on the host.

    Divergence-free: streamfunctions of plane waves. Drifters do a random walk from the middle of the window.
    """
    rng = np.random.default_rng(seed)
    latitude = np.round(rng.uniform(-60.0, 60.0, n))
    y = METRES_PER_DEGREE * grid.lat_step * (np.arange(grid.n_lat) - grid.n_lat // 2)
    day = np.arange(grid.n_times) * grid.time_step / 86_400
    currents = np.empty((n, 2, grid.n_times, grid.n_lat, grid.n_lon), np.int16)
    for k in range(n):
        x = METRES_PER_DEGREE * grid.lon_step * np.cos(np.radians(latitude[k]))
        x = x * (np.arange(grid.n_lon) - grid.n_lon // 2)
        length = np.exp(rng.uniform(np.log(80e3), np.log(500e3), WAVES))
        angle, phase = rng.uniform(0, 2 * np.pi, (2, WAVES))
        rate = 2 * np.pi / rng.uniform(20, 80, WAVES) * rng.choice([-1, 1], WAVES)
        amplitude = np.sqrt(length)
        amplitude *= rng.uniform(0.1, 0.45) * np.sqrt(2) / np.linalg.norm(amplitude)
        along_x, along_y = 2 * np.pi / length * np.cos(angle), 2 * np.pi / length * np.sin(angle)
        waves = [np.exp(1j * np.outer(a, b)) for a, b in ((rate, day), (along_y, y), (along_x, x))]
        waves[0] = waves[0] * np.exp(1j * phase)[:, None]
        for component, of in enumerate((-np.sin(angle), np.cos(angle))):
            speed = np.einsum("w,wt,wy,wx->tyx", of * amplitude, *waves, optimize=True).real
            currents[k, component] = np.round(speed / 1e-4)
    walk = np.cumsum(rng.normal(0, 0.02, (n, grid.n_obs, 2)), axis=1)
    track = 0.5 + walk - walk[:, :1]
    values: dict[str, Any] = {
        "currents": currents,
        "cell": np.tile(np.array([grid.n_lon // 2, grid.n_lat // 2], np.int32), (n, 1)),
        "start": track[:, 0].astype(dtype),
        "track": track.astype(dtype),
        "phase": (3600.0 * rng.integers(0, 24, n)).astype(dtype),
        "longitude": np.zeros(n, dtype),
        "latitude": (latitude - grid.n_lat // 2 * grid.lat_step).astype(dtype),
        "sample": np.arange(n, dtype=np.uint32),
        "weight": np.ones(n, dtype),
    }
    return Batch(**values)
