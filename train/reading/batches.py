"""Batches on the device, read from shards.

The order of the samples is a function of (seed, epoch) alone, so a run can be continued from a step number. A batch
stays int16 until the jitted step decodes it. The next batch is decoded in a few threads while the device works on this
one, into an aligned buffer that JAX on a CPU takes without a copy (`store.buffers`); of the batch after it the kernel
is asked for the pages.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from driftcal.shared.disk import limits
from driftcal.shared.errors import StoreError
from driftcal.shared.geo import unwrap_longitude
from driftcal.shared.store.buffers import Slabs
from driftcal.shared.store.reader import Asked, ShardStore
from driftcal.shared.store.schema import Layout
from driftcal.train.machine.devices import Devices
from driftcal.train.reading.reader_threads import Crew, Stalled
from driftcal.train.settings import Reading

SLABS = Slabs()
"""Buffers of batches, shared by all passes."""

PIECE = 32
"""Samples that a thread decodes at a time: a millisecond's work."""

DEFAULT = Reading()

Host = TypeVar("Host")
"""Result of a step, a pytree."""


@dataclass(frozen=True)
class Grid:
    """The grid that all windows of a store share; static under jit. Steps in [s] and degrees."""

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


def order(samples: np.ndarray, seed: int, epoch: int, run_length: int = 1) -> np.ndarray:
    """The samples of one epoch, shuffled: a function of (seed, epoch) and of `run_length`.

    Args:
        samples: In the order of the store.
        seed: Of the run.
        epoch: Number of the pass.
        run_length: Neighbours that stay together, for disks that are slow to seek. 1 shuffles every sample.
    """
    random = np.random.default_rng([seed, epoch])
    if run_length == 1:
        return random.permutation(samples)
    runs = random.permutation(-(-len(samples) // run_length))
    places = (runs[:, None] * run_length + np.arange(run_length)).reshape(-1)
    return samples[places[places < len(samples)]]


def load(
    store: ShardStore,
    samples: np.ndarray,
    size: int,
    dtype: np.dtype,
    crew: Crew | None = None,
) -> dict[str, np.ndarray]:
    """Content of a batch of `size`, on the host; fewer `samples` are padded by repeating the last with weight 0.

    A sample that cannot be read, where the store leaves such out, is zero and has weight 0 too. `crew` decodes, where
    there is one.
    """
    layout, labels, n = store.layout, store.labels, len(samples)
    currents = SLABS.take((size, *store.currents.spec.inner_shape), store.currents.spec.dtype)
    positions = np.empty((size, *store.positions.spec.inner_shape), store.positions.spec.dtype)
    readable = np.zeros(size, bool)

    def decode(first: int) -> None:
        part = slice(first, min(first + PIECE, n))
        readable[part] = store.read_batch(samples[part], currents[part], positions[part])

    firsts = range(0, n, PIECE)
    for done in [crew.submit(partial(decode, first)) for first in firsts] if crew else map(decode, firsts):
        if done is not None:
            done.result()
    currents[n:], positions[n:] = currents[n - 1], positions[n - 1]
    padded = np.concatenate([samples, np.repeat(samples[-1:], size - n)])
    step = np.array([layout.lon_step, layout.lat_step])
    start = (labels["origin"][padded] - labels["window_corner"][padded]) / step
    cell = np.clip(np.floor(start), 0, np.array([layout.n_lon, layout.n_lat]) - 2)
    relative = positions.astype(np.float64)
    relative[..., 0] = unwrap_longitude(relative[..., 0], axis=1)
    return {
        "currents": currents,
        "cell": cell.astype(np.int32),
        "start": (start - cell).astype(dtype),
        "track": ((start - cell)[:, None] + relative / step).astype(dtype),
        "phase": (labels["start_time"][padded] - labels["window_time"][padded]).astype(dtype),
        "longitude": labels["window_corner"][padded, 0].astype(dtype),
        "latitude": labels["window_corner"][padded, 1].astype(dtype),
        "sample": padded.astype(np.uint32),
        "weight": readable.astype(dtype),
    }


def batches(
    store: ShardStore,
    samples: np.ndarray,
    size: int,
    dtype: np.dtype,
    reading: Reading = DEFAULT,
    devices: Devices | None = None,
    begun: bool = False,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batches of `size` over `samples` in the given order, on the device, with their sample numbers.

    With `devices` they share the batch, and each process reads what its own need. `begun` says that samples before
    these were taken already: then it is no error if none of the rest can be read.

    One is read ahead, while the pages of the one after it are asked for. Samples that cannot be read, where the store
    leaves such out, are among the numbers and have weight 0.

    Raises:
        StoreError: a sample cannot be read, none can, or reading has stalled.
        LimitError: the system refuses or fails to read one.
    """
    parts = [samples[k : k + size] for k in range(0, len(samples), size)]
    rows, place = (slice(0, size), jax.device_put) if devices is None else (devices.rows(size), devices.place)
    asked: Asked = set()
    found = begun or not parts or not all(len(part[rows]) for part in parts)

    with Crew(reading.threads + 1, "driftcal-read") as crew:  # one sets the others to work

        def read(k: int) -> dict[str, np.ndarray]:
            if reading.prefetch:
                for part in parts[k + 1 : k + 2] if k else parts[:2]:
                    store.will_need(part[rows], asked)
            mine = parts[k][rows]
            loaded = load(store, mine if len(mine) else parts[k][:1], rows.stop - rows.start, dtype, crew)
            return loaded if len(mine) else loaded | {"weight": np.zeros_like(loaded["weight"])}

        ahead = crew.submit(partial(read, 0)) if parts else None
        for k, part in enumerate(parts):
            assert ahead is not None
            loaded = _waited(store, crew, ahead, reading.stall_timeout)
            ahead = crew.submit(partial(read, k + 1)) if k + 1 < len(parts) else None
            found = found or bool(loaded["weight"].any())
            batch = Batch(**place(loaded))
            del loaded  # so that its buffer is free as soon as the batch is
            yield part, batch
            del batch
    if not found:
        reason = next(iter(store.unreadable.values()))
        raise StoreError(f"{store.root}: none of {len(samples)} samples can be read. The first: {reason}")


def stepped(
    store: ShardStore,
    samples: np.ndarray,
    size: int,
    dtype: np.dtype,
    step: Callable[[Batch], Host],
    reading: Reading = DEFAULT,
    devices: Devices | None = None,
    begun: bool = False,
) -> Iterator[tuple[np.ndarray, Host]]:
    """One pass: every batch of `samples`, read ahead and stepped, with its sample numbers; arguments as of `batches`.

    What `step` gives is brought to the host, padding included: a last, short batch has fewer numbers than values.
    """
    for numbers, batch in batches(store, samples, size, dtype, reading, devices, begun):
        yield numbers, jax.device_get(step(batch))


def _waited(store: ShardStore, crew: Crew, ahead: Future[dict[str, np.ndarray]], limit: float) -> dict[str, np.ndarray]:
    try:
        return crew.wait(ahead, limit)
    except Stalled:
        raise StoreError(
            f"{store.root}: reading has made no progress for {limit:g} s: its disk or file system does not answer. "
            f"Run the command again when it does, or raise data.stall_timeout."
        ) from None
    except (OSError, MemoryError) as error:  # damage is a StoreError already; anything else is a mistake of ours
        what = f"{store.root}: a batch cannot be read; a smaller batch_size takes less memory"
        raise limits.refused(what, error, "the store") from error
