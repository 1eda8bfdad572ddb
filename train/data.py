"""From shards to batches on the device.

The order of the samples is a function of (seed, epoch) alone, so a run can be continued from a step number. A batch
stays int16 until the jitted step decodes it. The next batch is read in a thread while the device works on this one;
every batch has its own buffers, because JAX on a CPU may use an aligned numpy array in place.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from shared.geo import unwrap_longitude
from shared.schema import Layout
from shared.shards import ShardStore
from train.devices import Devices


@dataclass(frozen=True)
class Grid:
    """What all windows of a store share; static under jit. Steps in [s] and degrees."""

    n_times: int
    n_lat: int
    n_lon: int
    n_obs: int
    time_step: int
    obs_step: int
    lat_step: float
    lon_step: float

    @classmethod
    def of(cls, layout: Layout) -> "Grid":
        """The grid of a store with this layout."""
        return cls(**{name: getattr(layout, name) for name in cls.__dataclass_fields__})


class Batch(eqx.Module):
    """B samples on the device.

    Positions are in cells relative to `cell`, the cell of the window in which the drifter starts: small numbers, which
    float32 resolves to millimetres.

    Attributes:
        currents: [1e-4 m/s], FILL on land.
        cell: column, row of the cell in which the drifter starts.
        start: first fix relative to `cell` [cells], in [0, 1).
        track: all fixes relative to `cell` [cells]: column, row.
        phase: time of the first fix after the window's first level [s].
        longitude: of the window's western column [degrees].
        latitude: of the window's southern row [degrees].
        sample: number of the sample in the store; keys its noise.
        weight: 1, or 0 for the padding of a last, short batch.
    """

    currents: Int[Array, "B 2 time lat lon"]
    cell: Int[Array, "B 2"]
    start: Float[Array, "B 2"]
    track: Float[Array, "B obs 2"]
    phase: Float[Array, " B"]
    longitude: Float[Array, " B"]
    latitude: Float[Array, " B"]
    sample: UInt32[Array, " B"]
    weight: Float[Array, " B"]


def order(samples: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The samples of one epoch, shuffled: a function of (seed, epoch)."""
    return np.random.default_rng([seed, epoch]).permutation(samples)


def load(
    store: ShardStore, samples: np.ndarray, size: int, dtype: np.dtype, rows: slice = slice(None)
) -> dict[str, np.ndarray]:
    """What a batch of `size` holds, on the host; fewer `samples` are padded by repeating the last with weight 0.

    Only its `rows` are read.
    """
    padded = np.concatenate([samples, np.repeat(samples[-1:], size - len(samples))])[rows]
    layout, labels = store.layout, store.labels
    step = np.array([layout.lon_step, layout.lat_step])
    start = (labels["origin"][padded] - labels["window_corner"][padded]) / step
    cell = np.clip(np.floor(start), 0, np.array([layout.n_lon, layout.n_lat]) - 2)
    relative = store.positions.read(padded).astype(np.float64)
    relative[..., 0] = unwrap_longitude(relative[..., 0], axis=1)
    return {
        "currents": store.currents.read(padded),
        "cell": cell.astype(np.int32),
        "start": (start - cell).astype(dtype),
        "track": ((start - cell)[:, None] + relative / step).astype(dtype),
        "phase": (labels["start_time"][padded] - labels["window_time"][padded]).astype(dtype),
        "longitude": labels["window_corner"][padded, 0].astype(dtype),
        "latitude": labels["window_corner"][padded, 1].astype(dtype),
        "sample": padded.astype(np.uint32),
        "weight": (np.arange(size) < len(samples))[rows].astype(dtype),
    }


def batches(
    store: ShardStore, samples: np.ndarray, size: int, dtype: np.dtype, devices: Devices | None = None
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batches of `size` over `samples` in the given order, one read ahead; with their sample numbers.

    They are on JAX's first device, or shared by `devices`, each process reading what its own need.
    """
    rows = slice(0, size) if devices is None else devices.rows(size)
    place = jax.device_put if devices is None else devices.place
    parts = [samples[k : k + size] for k in range(0, len(samples), size)]
    if not parts:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="driftcal-read") as reader:
        ahead = reader.submit(load, store, parts[0], size, dtype, rows)
        for k, part in enumerate(parts):
            batch = ahead.result()
            if k + 1 < len(parts):
                ahead = reader.submit(load, store, parts[k + 1], size, dtype, rows)
            yield part, Batch(**place(batch))
