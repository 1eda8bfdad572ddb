"""Examples: a few ensembles of an evaluation with their windows, for figures."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from driftcal.shared.spacing import evenly
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.schema import FILL, SCALE
from driftcal.train.learners.drift.engines import simulate
from driftcal.train.learners.drift.metrics import STREAM
from driftcal.train.learners.drift.noise import noise_for
from driftcal.train.learners.drift.simulate import Dynamics, Plan
from driftcal.train.reading.batches import Batch, load
from driftcal.train.settings import Training

N_EXAMPLES = 6


def examples_of(
    store: ShardStore, samples: np.ndarray, plan: Plan, settings: Training, dynamics: Dynamics, dtype: np.dtype
) -> dict[str, np.ndarray]:
    """A few ensembles with their windows; the samples are spread evenly over the split."""
    grid = plan.grid
    chosen = samples[evenly(len(samples), N_EXAMPLES)]
    batch = load(store, chosen, len(chosen), dtype)
    corner = store.labels["window_corner"][chosen]
    step = np.array([grid.lon_step, grid.lat_step])
    cell = batch["cell"]
    tracks = _tracks(plan, settings.seed, settings.ensemble.members, dynamics, Batch(**jax.device_put(batch)))
    positions = np.asarray(tracks, np.float64)
    positions = positions.transpose(3, 2, 0, 1)  # (n, member, obs, 2)
    first = np.broadcast_to(batch["start"][:, None, None], (*positions.shape[:2], 1, 2))
    ensemble = np.concatenate([first, positions], axis=2)
    currents = batch["currents"].astype(np.float64)
    currents = np.where(currents == FILL, np.nan, currents * SCALE)
    return {
        "sample": chosen,
        "drifter": np.array([store.drifters[k] for k in store.labels["drifter"][chosen]]),
        "start_time": store.labels["start_time"][chosen],
        "corner": corner,
        "step": step,
        "currents": currents.astype(np.float32),
        "track": corner[:, None] + (cell[:, None] + batch["track"].astype(np.float64)) * step,
        "ensemble": corner[:, None, None] + (cell[:, None, None] + ensemble) * step,
    }


@eqx.filter_jit
def _tracks(plan: Plan, seed: int, members: int, dynamics: Dynamics, batch: Batch) -> Float[Array, "obs 2 S B"]:
    """Positions of all members at every fix but the first.

    The calibrated numbers are arguments: one program serves every run.
    """
    noise = noise_for(seed, 0, batch.sample, members, STREAM, batch.latitude.dtype)
    run = simulate(dynamics, batch, plan, members, noise, keep_positions=True)
    assert run.positions is not None
    return run.positions
