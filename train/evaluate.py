"""How good a calibrated simulator is on drifters it has not seen.

The calibrated ensemble is set beside three baselines: no motion, the currents alone, and the constant that the run
began with. Every score is a mean over samples with a standard error clustered by drifter:

    energy_score_km      fair energy score of the separation, mean over lead times
    separation_km        mean over members and lead times of the distance to the drifter
    final_separation_km  the same at the last fix
    liu_skill            max(0, 1 - c), c Liu and Weisberg's (2011) index of the members' mean distance over the
                         whole track

Spread against error, by lead time: root mean square distance of the ensemble's mean position from the drifter, and
root mean square spread of the members about it, the latter times (S + 1) / S so that the two agree for a perfect
ensemble (Fortin et al. 2014).
"""

import io
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from shared.errors import DataError
from shared.geo import METRES_PER_DEGREE
from shared.manifest import write_file
from shared.schema import FILL, SCALE
from shared.shards import ShardStore
from train import score
from train.config import Training, check_against
from train.data import Batch, Grid, batches, load
from train.dynamics import Smagorinsky
from train.simulate import Plan, Simulation, noise_for, simulate
from train.step import plan_of

FILE, EXAMPLES = "evaluation.json", "examples.npz"

STREAM = 2
"""Stream of noise of evaluations: independent of training's."""

STILL = 1e-30
"""A constant too small to move anything: the currents alone."""

N_EXAMPLES = 6
ABOVE = "energy_score_above_calibrated_km"
SCORES = ("energy_score_km", "separation_km", "final_separation_km", "liu_skill")


def evaluate(
    store: ShardStore, split: str, settings: Training, cs: float, progress: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Scores of the constant `cs` on `split`, and a few ensembles to look at.

    Raises:
        StoreError: the store is damaged or has no sample of `split`.
        ConfigError: the run's settings do not fit this store.
    """
    check_against(settings, store.layout)
    samples = store.samples_of(split)
    grid, dtype = Grid.of(store.layout), np.dtype(settings.precision)
    plan = plan_of(settings, grid)
    systems = {
        "calibrated": (cs, settings.ensemble.members),
        "initial constant": (settings.initial_cs, settings.ensemble.members),
        "currents alone": (STILL, 2),
        "no motion": (None, 2),
    }
    size = min(settings.batch_size, len(samples))
    drifter = store.labels["drifter"][samples]
    found: dict[str, dict[str, np.ndarray]] = {}
    with jax.enable_x64(settings.precision == "float64"):
        for name, (constant, members) in systems.items():
            measure = _measure(plan, settings.seed, members, constant is None)
            log_cs = jnp.asarray(np.log(constant or STILL), dtype)
            parts = []
            with tqdm(total=len(samples), unit="sample", desc=name, disable=not progress, leave=False) as bar:
                for numbers, batch in batches(store, samples, size, dtype):
                    host = jax.device_get(measure(log_cs, batch))
                    parts.append({k: np.asarray(v, np.float64)[..., : len(numbers)] for k, v in host.items()})
                    bar.update(len(numbers))
            found[name] = {k: np.concatenate([p[k] for p in parts], axis=-1) for k in parts[0]}
        examples = _examples(store, samples, plan, settings, cs, dtype)
    good = np.all([np.isfinite(v).reshape(-1, len(samples)).all(axis=0) for f in found.values() for v in f.values()], 0)
    if not good.any():
        raise DataError(f"no sample of split {split!r} of {store.root} gives finite scores. Run drift-inspect verify.")
    return {
        "split": split,
        "store": store.manifest.digest,
        "cs": cs,
        "initial_cs": settings.initial_cs,
        "members": settings.ensemble.members,
        "n_samples": int(good.sum()),
        "n_drifters": len(np.unique(drifter[good])),
        "dropped_samples": samples[~good].tolist(),
        "scores": {name: _summary(f, found["calibrated"], good, drifter) for name, f in found.items()},
        "lead_hours": (np.arange(1, grid.n_obs) * grid.obs_step / 3600).tolist(),
        "spread_and_error": {
            name: {
                "error_km": (np.sqrt(found[name]["error2"][:, good].mean(axis=1)) / 1e3).tolist(),
                "spread_km": (np.sqrt(found[name]["spread2"][:, good].mean(axis=1)) / 1e3).tolist(),
            }
            for name in ("calibrated", "initial constant")
        },
    }, examples


def _summary(
    found: dict[str, np.ndarray], calibrated: dict[str, np.ndarray], good: np.ndarray, drifter: np.ndarray
) -> dict[str, Any]:
    """One system's scores; the difference to the calibrated one is paired, sample by sample, and so far surer."""
    above = found["energy_score_km"] - calibrated["energy_score_km"]
    return {
        **{name: _clustered(found[name][good], drifter[good]) for name in SCORES},
        ABOVE: _clustered(above[good], drifter[good]),
        "escaped_members": int(found["escaped"][good].sum()),
    }


def _measure(plan: Plan, seed: int, members: int, still: bool) -> Any:
    """The compiled per-sample scores of one system; `still` members never leave the start."""

    @eqx.filter_jit
    def measure(log_cs: Array, batch: Batch) -> dict[str, Array]:
        noise = noise_for(seed, 0, batch.sample, members, STREAM, batch.latitude.dtype)
        dynamics = (lambda flow, share: ((0.0 * flow.u, 0.0 * flow.v), 0.0 * flow.u)) if still else Smagorinsky(log_cs)
        run = simulate(dynamics, batch, plan, members, noise, keep_positions=True)
        return {**_scores(run, batch, plan), **_moments(run, batch, plan), "escaped": (~run.inside).sum(axis=0)}

    return measure


def _scores(run: Simulation, batch: Batch, plan: Plan) -> dict[str, Array]:
    latitude = batch.latitude + batch.cell[:, 1] * plan.grid.lat_step
    path = score.path_steps(batch.track, latitude, (plan.grid.lon_step, plan.grid.lat_step))
    observed, between = run.distances.observed, run.distances.between
    length = jnp.cumsum(path, axis=0).sum(axis=0)
    index = observed.sum(axis=0) / jnp.maximum(length, score.LEAST_PATH)
    return {
        "energy_score_km": (observed - between).mean(axis=0) / 1e3,
        "separation_km": observed.mean(axis=0) / 1e3,
        "final_separation_km": observed[-1] / 1e3,
        "liu_skill": jnp.maximum(0.0, 1.0 - index),
    }


def _moments(run: Simulation, batch: Batch, plan: Plan) -> dict[str, Array]:
    """Squared error of the mean position and squared spread about it [m2], `(obs, B)`."""
    assert run.positions is not None
    grid = plan.grid
    lat = jnp.radians(batch.latitude + (batch.cell[:, 1] + batch.track[:, 1:, 1].T) * grid.lat_step)
    scale = jnp.stack([METRES_PER_DEGREE * grid.lon_step * jnp.cos(lat), METRES_PER_DEGREE * grid.lat_step + 0 * lat])
    away = (run.positions - batch.track[:, 1:].transpose(1, 2, 0)[:, :, None]) * scale.transpose(1, 0, 2)[:, :, None]
    members = run.positions.shape[2]
    return {
        "error2": (away.mean(axis=2) ** 2).sum(axis=1),
        "spread2": away.var(axis=2, ddof=1).sum(axis=1) * (members + 1) / members,
    }


def _clustered(values: np.ndarray, drifter: np.ndarray) -> dict[str, float | None]:
    """Mean of per-sample `values` and its standard error over drifters; null with fewer than two of them."""
    _, which = np.unique(drifter, return_inverse=True)
    n = which.max() + 1
    mean = float(values.mean())
    if n < 2:
        return {"mean": mean, "standard_error": None}
    sums = np.bincount(which, weights=values - mean)
    return {"mean": mean, "standard_error": float(np.sqrt((sums**2).sum() * n / (n - 1)) / len(values))}


def _examples(
    store: ShardStore, samples: np.ndarray, plan: Plan, settings: Training, cs: float, dtype: np.dtype
) -> dict[str, np.ndarray]:
    """A few ensembles with their windows; the samples are spread evenly over the split."""
    grid = plan.grid
    chosen = samples[np.linspace(0, len(samples) - 1, min(N_EXAMPLES, len(samples))).astype(int)]
    batch = load(store, chosen, len(chosen), dtype)
    members = settings.ensemble.members

    @eqx.filter_jit
    def tracks(batch: Batch) -> Array:
        noise = noise_for(settings.seed, 0, batch.sample, members, STREAM, batch.latitude.dtype)
        run = simulate(Smagorinsky(jnp.asarray(np.log(cs), dtype)), batch, plan, members, noise, keep_positions=True)
        assert run.positions is not None
        return run.positions

    corner = store.labels["window_corner"][chosen]
    step = np.array([grid.lon_step, grid.lat_step])
    cell = batch["cell"]
    # (n, member, obs, 2)
    positions = np.asarray(tracks(Batch(**jax.device_put(batch))), np.float64).transpose(
        3, 2, 0, 1
    )  # (n, member, obs, 2)
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


def save_examples(out: Path, examples: dict[str, np.ndarray]) -> None:
    """Keeps the examples for the report."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **examples)
    write_file(out / EXAMPLES, buffer.getvalue())


def render(scores: dict[str, Any]) -> str:
    """The scores as a table for the terminal, means with 90 % intervals over drifters."""
    columns = (*SCORES, ABOVE)
    head = f"{'':18s}" + "".join(
        f"{name.replace('_', ' ').replace('energy score above', 'above'):>24s}" for name in columns
    )
    lines = [f"split {scores['split']}: {scores['n_samples']} samples of {scores['n_drifters']} drifters", head]
    for system, found in scores["scores"].items():
        cells = []
        for name in columns:
            mean, error = found[name]["mean"], found[name]["standard_error"]
            cells.append(f"{mean:.3f}" + (f" ± {1.645 * error:.3f}" if error is not None else ""))
        lines.append(f"{system:18s}" + "".join(f"{cell:>24s}" for cell in cells))
    return "\n".join(lines)
