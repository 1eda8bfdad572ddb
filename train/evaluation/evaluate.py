"""Skill of a calibrated simulator on drifters that it was not trained on.

The calibrated ensemble is set beside five baselines: no motion, the currents alone, the constant that the run began
with, and two that were calibrated on the same drifters: one constant diffusivity, and the same with a mean drift. Every
score is a mean over samples with a clustered standard error (`reading.clusters`); names, units and definitions of all
are in `evaluation.evaluation`.

Spread against error, by lead time: root mean square distance of the ensemble's mean position from the drifter, and
root mean square spread of the members about it, the latter times (S + 1) / S so that the two agree for a perfect
ensemble (Fortin et al. 2014). Their ratio, and ranks of the drifter among the members: `evaluation.aggregate`.
"""

from collections.abc import Collection

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from driftcal.shared.errors import DataError
from driftcal.shared.spacing import evenly
from driftcal.shared.store.reader import ShardStore
from driftcal.train.evaluation import baselines
from driftcal.train.evaluation.aggregate import MOMENTS, SPREAD, Tally, clustered
from driftcal.train.evaluation.baseline import Baselines
from driftcal.train.evaluation.evaluation import ABOVE, Evaluation
from driftcal.train.learners.drift.diffusivity import Diffusivity
from driftcal.train.learners.drift.dynamics import calibrated, dynamics_of
from driftcal.train.learners.drift.examples import examples_of
from driftcal.train.learners.drift.loss import plan_of
from driftcal.train.learners.drift.metrics import measure
from driftcal.train.learners.drift.simulate import Dynamics, Plan
from driftcal.train.learners.drift.smagorinsky import Flow, Smagorinsky
from driftcal.train.learners.drift.user_dynamics.fingerprint import UserDynamics
from driftcal.train.reading import clusters
from driftcal.train.reading.batches import Batch, Grid, stepped
from driftcal.train.settings import Training, check_against

STILL = 1e-30
"""A constant too small to move anything: the currents alone."""


def evaluate(
    store: ShardStore,
    split: str,
    settings: Training,
    cs: float | None,
    trained: Collection[str],
    progress: bool,
    most: int | None = None,
    own: UserDynamics | None = None,
    run_store: str | None = None,
    fitted: Baselines | None = None,
) -> tuple[Evaluation, dict[str, np.ndarray]]:
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
        own: A user's calibrated term.
        run_store: Digest of the store that the run was trained on; by default that is `store`.
        fitted: The run's calibrated baselines; without them the others are scored alone.

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
        samples = samples[evenly(len(samples), most)]
    grid, dtype = Grid.of(store.layout), np.dtype(settings.precision)
    plan = plan_of(settings, grid)
    with jax.enable_x64(settings.precision == "float64"):
        dynamics, initial = _dynamics(settings, cs, own, dtype)
        tally = _over(store, samples, plan, settings, dynamics, initial, fitted, progress)
        readable = samples[~np.isin(samples, list(store.unreadable))]
        examples = examples_of(store, readable, plan, settings, dynamics, dtype)
    good = np.concatenate(tally.good)
    if not good.any():
        raise DataError(f"no sample of split {split!r} of {store.root} gives finite scores. Run drift-inspect verify.")
    found = {name: {k: np.concatenate(v) for k, v in parts.items()} for name, parts in tally.scores.items()}
    cluster = clusters.of(store, settings.cluster_by)[samples[good]]
    tree = {
        "split": split,
        "fit": bool(split == "train" and known.any()),
        "store": store.manifest.digest,
        "cs": cs,
        "initial_cs": settings.initial_cs,
        "members": settings.ensemble.members,
        "n_split": len(everything),
        "n_samples": int(good.sum()),
        "n_drifters": len(np.unique(store.labels["drifter"][samples[good]])),
        "n_clusters": len(np.unique(cluster)),
        "standard_error_clusters": settings.cluster_by,
        "poisoned_samples": [k for k in samples[~good].tolist() if k not in store.unreadable],
        "unreadable_samples": store.unreadable_of(split),
        "trained_drifters_left_out": {
            "n_samples": len(seen),
            "drifters": sorted(store.drifters[k] for k in np.unique(store.labels["drifter"][seen])),
        },
        "scores": {
            name: {
                **{key: clustered(values, cluster) for key, values in scores.items()},
                # paired sample by sample, and so far surer than the scores themselves
                ABOVE: clustered(scores["energy_score_km"] - found["calibrated"]["energy_score_km"], cluster),
                "escaped_members": tally.escaped[name],
            }
            for name, scores in found.items()
        },
        "lead_hours": (np.arange(1, grid.n_obs) * grid.obs_step / 3600).tolist(),
        "spread_and_error": {
            name: {
                f"{what}_km": (np.sqrt(moments[f"{what}2"].sum(axis=0) / good.sum()) / 1e3).tolist() for what in MOMENTS
            }
            for name, moments in tally.moments.items()
        },
        "reliability": {name: tally.reliability(name) for name in SPREAD},
        "run_store": store.manifest.digest if run_store is None else run_store,
    }
    return Evaluation.from_json(tree), examples


class Still(eqx.Module):
    """Dynamics without any motion."""

    def __call__(self, flow: Flow, _: float) -> tuple[tuple[Array, Array], Array]:
        """No drift and no noise."""
        return (0.0 * flow.u, 0.0 * flow.v), 0.0 * flow.u


def _dynamics(
    settings: Training, cs: float | None, own: UserDynamics | None, dtype: np.dtype
) -> tuple[Dynamics, Dynamics]:
    """The run's dynamics, calibrated and as it began."""
    parameters, trained = calibrated(settings, cs, own)
    return dynamics_of(parameters, trained), dynamics_of(parameters, jnp.asarray(parameters.start, dtype))


def _plan_for(dynamics: Dynamics, plan: Plan) -> Plan:
    """The plan for a system."""
    return baselines.plan_for_all(plan) if isinstance(dynamics, Diffusivity) else plan


def _over(
    store: ShardStore,
    samples: np.ndarray,
    plan: Plan,
    settings: Training,
    calibrated: Dynamics,
    initial: Dynamics,
    fitted: Baselines | None,
    progress: bool,
) -> Tally:
    """All systems in one pass over `samples`."""
    dtype = np.dtype(settings.precision)
    members = settings.ensemble.members
    systems = {
        "calibrated": (calibrated, members),
        "initial constant": (initial, members),
        **{
            name: (baselines.dynamics_of(one, dtype), baselines.members_of(settings))
            for name, one in (fitted.systems.items() if fitted is not None else ())
        },
        "currents alone": (Smagorinsky.of_log(jnp.log(jnp.asarray(STILL, dtype))), 2),
        "no motion": (Still(), 2),
    }
    _, cluster = np.unique(clusters.of(store, settings.cluster_by)[samples], return_inverse=True)
    tally = Tally(int(cluster.max()) + 1)
    size = min(settings.batch_size, len(samples))

    def step(batch: Batch) -> dict[str, dict[str, Array]]:
        return {
            name: measure(_plan_for(of, plan), settings.seed, n, of, batch) for name, (of, n) in systems.items()
        } | {"read": {"weight": batch.weight}}

    taken = 0
    with tqdm(total=len(samples), unit="sample", desc="evaluation", disable=not progress, leave=False) as bar:
        for numbers, found in stepped(store, samples, size, dtype, step, settings.data):
            n = len(numbers)
            read = np.asarray(found.pop("read")["weight"])[:n] > 0
            measures = {  # no score of what was not read
                name: {k: np.where(read, np.asarray(v, np.float64)[..., :n], np.nan) for k, v in values.items()}
                for name, values in found.items()
            }
            tally.add(measures, cluster[taken : taken + n], members)
            taken += n
            bar.update(n)
    return tally
