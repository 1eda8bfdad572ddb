"""Baselines that are calibrated too: one constant diffusivity, and the same with a mean drift.

A model is worth its complexity if it beats the simplest one that was fitted to the same drifters. Both are fitted to
some of the training samples, by the very score that evaluations compare by, the energy score in metres. With the noise
fixed that is a smooth function; it is minimised in log K, and then along the drift that the members' mean pull asks for
(`drift.metrics.Pulls`), and in log K again. No derivative of a simulation is needed.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from scipy.optimize import minimize_scalar
from tqdm import tqdm

from driftcal.shared.spacing import evenly
from driftcal.shared.store.reader import ShardStore
from driftcal.train.evaluation.baseline import Baseline, Baselines
from driftcal.train.fit.parameters import Positive
from driftcal.train.learners.drift.diffusivity import Diffusivity
from driftcal.train.learners.drift.loss import plan_of
from driftcal.train.learners.drift.metrics import Pulls, measure
from driftcal.train.learners.drift.simulate import Plan
from driftcal.train.reading.batches import Batch, Grid, stepped
from driftcal.train.settings import Training

SAMPLES = 256
"""Samples that the baselines are fitted to: enough for K to be known to a tenth, which costs the score a thousandth."""

WIDTH, AGAIN = 3.0, 0.5
"""Farthest that log K is looked for from its guess, and when the drift has been found from where it was."""

NEAR = 0.1
"""Error of log K, and of the length of the drift as a share, at which the search ends."""

FARTHEST = 20.0
"""Logarithm of the largest diffusivity, and of the inverse of the least, that is looked at."""

LONGEST = 2.0
"""Longest step along the drift that is asked for, as a multiple of it."""

LEAST_MEMBERS = 8
"""Members of a baseline's ensemble in an evaluation, at least: the fair score is that of any number, on average."""


def dynamics_of(baseline: Baseline, dtype: np.dtype) -> Diffusivity:
    """The dynamics of a baseline."""
    return module_of(np.array([np.log(baseline.diffusivity), baseline.east, baseline.north]), dtype)


def module_of(vector: np.ndarray, dtype: np.dtype) -> Diffusivity:
    """The dynamics with (log K, east, north)."""
    log, east, north = jnp.asarray(vector, dtype)
    return Diffusivity(Positive.of_log(log), east, north)


def calibrate(
    store: ShardStore, settings: Training, samples: Int[np.ndarray, " n"], guess: float, progress: bool
) -> Baselines:
    """Fits both baselines to some of `samples`, spread evenly.

    Args:
        store: The store that was trained on.
        settings: Those of the run.
        samples: Numbers of samples.
        guess: Of K [m2/s].
        progress: Whether to show a bar.
    """
    dtype, size = np.dtype(settings.precision), min(settings.batch_size, len(samples))
    plan = plan_for_all(plan_of(settings, Grid.of(store.layout)))
    members = members_of(settings)

    few = samples[evenly(len(samples), SAMPLES)]
    bar = tqdm(unit="pass", desc="baselines", disable=not progress, leave=False)

    def found_at(vector: np.ndarray) -> np.ndarray:
        """Means over the samples of the energy score and of the pulls."""
        model, parts = module_of(vector, dtype), []

        def step(batch: Batch) -> tuple[dict[str, Array], Array]:
            return measure(plan, settings.seed, members, model, batch), batch.weight

        for _, (values, weight) in stepped(store, few, size, dtype, step, settings.data):
            rows = np.stack([np.asarray(values[name], np.float64) for name in ("energy_score_km", *Pulls._fields)])
            parts.append(rows[:, (np.asarray(weight) > 0) & np.isfinite(rows).all(axis=0)])
        bar.update(1)
        return np.concatenate(parts, axis=1).mean(axis=1)

    def least(at: Callable[[float], np.ndarray], low: float, high: float, widen: bool = True) -> float:
        score = minimize_scalar(
            lambda x: float(found_at(at(x))[0]), bounds=(low, high), method="bounded", options={"xatol": NEAR}
        )
        x = float(score.x)
        # a minimum at the end of what was searched is none
        if widen and high - x < 2 * NEAR and high < FARTHEST:
            return least(at, low, high + (high - low))
        if widen and x - low < 2 * NEAR and low > -FARTHEST:
            return least(at, low - (high - low), high)
        return x

    with bar:
        log = np.log(guess)
        log = least(lambda x: np.array([x, 0.0, 0.0]), log - WIDTH, log + WIDTH)
        alone = np.array([log, 0.0, 0.0])
        _, east, north, stiffness = found_at(alone)
        towards = np.array([0.0, -east, -north]) / stiffness
        share = least(lambda x: alone + x * towards, 0.0, LONGEST, widen=False)
        drift = share * towards
        log = least(lambda x: np.array([x, 0.0, 0.0]) + drift, log - AGAIN, log + AGAIN)
    both = np.array([log, drift[1], drift[2]])
    found = [Baseline(float(np.exp(v[0])), float(v[1]), float(v[2])) for v in (alone, both)]
    return Baselines(len(few), *found)


def members_of(settings: Training) -> int:
    """Members of a baseline's ensemble."""
    return max(LEAST_MEMBERS, settings.ensemble.members // 4)


def plan_for_all(plan: Plan) -> Plan:
    """The plan with the engine that simulates any dynamics; kernels and other packages know one model."""
    return dataclasses.replace(plan, engine="driftcal")
