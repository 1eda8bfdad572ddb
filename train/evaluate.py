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
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
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
from train import score, terms
from train.config import Training, check_against
from train.data import Batch, Grid, batches, load
from train.dynamics import Flow, Smagorinsky
from train.engine import simulate
from train.folder import EXAMPLES
from train.model import model_of
from train.noise import noise_for
from train.simulate import Dynamics, Plan, Simulation
from train.step import plan_of

STREAM = 2
"""Stream of noise of evaluations: independent of training's."""

STILL = 1e-30
"""A constant too small to move anything: the currents alone."""

N_EXAMPLES = 6
ABOVE = "energy_score_above_calibrated_km"
SCORES = ("energy_score_km", "separation_km", "final_separation_km", "liu_skill")
SPREAD, MOMENTS = ("calibrated", "initial constant"), ("error", "spread")
"""The systems whose spread means something, and what is told of it by lead time."""


def evaluate(
    store: ShardStore,
    split: str,
    settings: Training,
    cs: float | None,
    trained: Collection[str],
    progress: bool,
    most: int | None = None,
    own: Path | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Scores of the constant `cs` on `split`, and a few ensembles to look at.

    Args:
        store: The store to evaluate on.
        split: One of its splits. Drifters that were trained on are left out, unless it is `train`: such scores tell
            how well the constant fits, not its skill.
        settings: Those of the run.
        cs: The run's constant; None where the dynamics are a user's.
        trained: Names of the drifters that were trained on.
        progress: Whether to show a bar.
        most: Score at most so many samples, spread evenly over the split.
        own: File of a user's calibrated term.

    Raises:
        StoreError: the store is damaged or has no sample of `split`.
        ConfigError: the run's settings do not fit this store.
        DataError: nothing is left to score.
    """
    check_against(settings, store.layout)
    everything = store.samples_of(split)
    # by name: the same drifter may have another number, and be in another split, in another store
    of_run = set(trained)
    known = np.array([name in of_run for name in store.drifters])[store.labels["drifter"][everything]]
    seen, samples = (everything[known], everything[~known]) if split != "train" else (everything[:0], everything)
    if not len(samples):
        raise DataError(
            f"the run was trained on every drifter (by name) of split {split!r} of {store.root}, which says nothing of "
            f"its skill. Evaluate on another split or store; --split train says how well the constant fits."
        )
    if most is not None and len(samples) > most:
        samples = samples[np.linspace(0, len(samples) - 1, most).astype(int)]
    grid, dtype = Grid.of(store.layout), np.dtype(settings.precision)
    plan = plan_of(settings, grid)
    with jax.enable_x64(settings.precision == "float64"):
        calibrated, initial = _dynamics(settings, cs, own, dtype)
        tally = _over(store, samples, plan, settings, calibrated, initial, progress)
        readable = samples[~np.isin(samples, list(store.unreadable))]
        examples = _examples(store, readable, plan, settings, calibrated, dtype)
    good = np.concatenate(tally.good)
    if not good.any():
        raise DataError(f"no sample of split {split!r} of {store.root} gives finite scores. Run drift-inspect verify.")
    found = {name: {k: np.concatenate(v) for k, v in parts.items()} for name, parts in tally.scores.items()}
    drifter = store.labels["drifter"][samples[good]]
    return {
        "split": split,
        "fit": bool(split == "train" and known.any()),
        "store": store.manifest.digest,
        "cs": cs,
        "initial_cs": settings.initial_cs,
        "members": settings.ensemble.members,
        "n_split": len(everything),
        "n_samples": int(good.sum()),
        "n_drifters": len(np.unique(drifter)),
        "dropped_samples": [k for k in samples[~good].tolist() if k not in store.unreadable],
        "unreadable_samples": store.unreadable_of(split),
        "trained_drifters_left_out": {
            "n_samples": len(seen),
            "drifters": sorted(store.drifters[k] for k in np.unique(store.labels["drifter"][seen])),
        },
        "scores": {
            name: {
                **{key: _clustered(values, drifter) for key, values in scores.items()},
                # paired sample by sample, and so far surer than the scores themselves
                ABOVE: _clustered(scores["energy_score_km"] - found["calibrated"]["energy_score_km"], drifter),
                "escaped_members": tally.escaped[name],
            }
            for name, scores in found.items()
        },
        "lead_hours": (np.arange(1, grid.n_obs) * grid.obs_step / 3600).tolist(),
        "spread_and_error": {
            name: {f"{what}_km": (np.sqrt(moments[f"{what}2"] / good.sum()) / 1e3).tolist() for what in MOMENTS}
            for name, moments in tally.moments.items()
        },
    }, examples


@dataclass
class Tally:
    """What is kept of every batch: a few numbers a sample, and sums over samples of what has lead times.

    Only samples that are finite for all systems count, so that all of them face the same drifters.

    Attributes:
        good: whether each sample counts, one array a batch.
        scores: of each system and name, the good samples' scores, one array a batch.
        moments: of the ensembles of `SPREAD`, sums of squared error and spread [m2], `(obs,)`.
        escaped: members of good samples that left their window.
    """

    good: list[np.ndarray] = field(default_factory=list)
    scores: dict[str, dict[str, list[np.ndarray]]] = field(default_factory=dict)
    moments: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    escaped: dict[str, int] = field(default_factory=dict)

    def add(self, taken: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Adds a batch: of each system, arrays whose last axis are samples."""
        good = np.all(
            [np.isfinite(v).reshape(-1, v.shape[-1]).all(axis=0) for f in taken.values() for v in f.values()], 0
        )
        self.good.append(good)
        for name, found in taken.items():
            held = self.scores.setdefault(name, {key: [] for key in SCORES})
            for key in SCORES:
                held[key].append(found[key][good])
            self.escaped[name] = self.escaped.get(name, 0) + int(found["escaped"][good].sum())
            if name in SPREAD:
                sums = self.moments.setdefault(name, {})
                for key in (f"{what}2" for what in MOMENTS):
                    sums[key] = sums.get(key, 0.0) + found[key][:, good].sum(axis=1)


class Still(eqx.Module):
    """Dynamics of what never moves."""

    def __call__(self, flow: Flow, gradient_share: float) -> tuple[tuple[Array, Array], Array]:
        """No drift and no noise."""
        del gradient_share
        return (0.0 * flow.u, 0.0 * flow.v), 0.0 * flow.u


def _dynamics(settings: Training, cs: float | None, own: Path | None, dtype: np.dtype) -> tuple[Dynamics, Dynamics]:
    """The run's dynamics, calibrated and as it began."""
    model = model_of(settings)
    if model.template is None:
        assert cs is not None
        trained = jnp.asarray(np.log([cs]), dtype)
    else:
        assert own is not None
        trained = terms.vector_of(terms.saved(own, model.template))
    return model.dynamics(trained), model.dynamics(jnp.asarray(model.start, dtype))


def _over(
    store: ShardStore,
    samples: np.ndarray,
    plan: Plan,
    settings: Training,
    calibrated: Dynamics,
    initial: Dynamics,
    progress: bool,
) -> Tally:
    """All systems in one pass over `samples`."""
    dtype = np.dtype(settings.precision)
    members = settings.ensemble.members
    systems = {
        "calibrated": (calibrated, members),
        "initial constant": (initial, members),
        "currents alone": (Smagorinsky(jnp.log(jnp.asarray(STILL, dtype))), 2),
        "no motion": (Still(), 2),
    }
    tally = Tally()
    size = min(settings.batch_size, len(samples))
    with tqdm(total=len(samples), unit="sample", desc="evaluation", disable=not progress, leave=False) as bar:
        for numbers, batch in batches(store, samples, size, dtype, settings.data):
            taken, read = {}, np.asarray(batch.weight)[: len(numbers)] > 0
            for name, (dynamics, n) in systems.items():
                host = jax.device_get(_measure(plan, settings.seed, n, dynamics, batch))
                values = {k: np.asarray(v, np.float64)[..., : len(numbers)] for k, v in host.items()}
                taken[name] = {k: np.where(read, v, np.nan) for k, v in values.items()}  # no score of what was not read
            tally.add(taken)
            bar.update(len(numbers))
    return tally


@eqx.filter_jit
def _measure(plan: Plan, seed: int, members: int, dynamics: Dynamics, batch: Batch) -> dict[str, Array]:
    """One system's scores of every sample."""
    noise = noise_for(seed, 0, batch.sample, members, STREAM, batch.latitude.dtype)
    run = simulate(dynamics, batch, plan, members, noise, keep_positions=True)
    return {**_scores(run, batch, plan), **_moments(run, batch, plan), "escaped": (~run.inside).sum(axis=0)}


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
    store: ShardStore, samples: np.ndarray, plan: Plan, settings: Training, dynamics: Dynamics, dtype: np.dtype
) -> dict[str, np.ndarray]:
    """A few ensembles with their windows; the samples are spread evenly over the split."""
    grid = plan.grid
    chosen = samples[np.linspace(0, len(samples) - 1, min(N_EXAMPLES, len(samples))).astype(int)]
    batch = load(store, chosen, len(chosen), dtype)
    members = settings.ensemble.members

    @eqx.filter_jit
    def tracks(batch: Batch) -> Array:
        noise = noise_for(settings.seed, 0, batch.sample, members, STREAM, batch.latitude.dtype)
        run = simulate(dynamics, batch, plan, members, noise, keep_positions=True)
        assert run.positions is not None
        return run.positions

    corner = store.labels["window_corner"][chosen]
    step = np.array([grid.lon_step, grid.lat_step])
    cell = batch["cell"]
    positions = np.asarray(tracks(Batch(**jax.device_put(batch))), np.float64)
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


def save_examples(out: Path, examples: dict[str, np.ndarray]) -> None:
    """Keeps the examples for the report."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **examples)
    write_file(out / EXAMPLES, buffer.getvalue())
