"""Baselines that are calibrated too: one constant diffusivity, and the same with a mean drift.

A model is worth its complexity if it beats the simplest one that was fitted to the same drifters. Both are fitted to
some of the training samples, by Newton steps with curvatures that are known where ensemble and drifter are alike and
Gaussian. With D the score's second term, a fair energy score has the second derivatives D / 8 in log K (see
`drift.energy_newton`, whose step is taken) and pi / (8 D) per squared metre of displacement: E|Z + d| of a normal Z of
variance 2 s^2 in each direction has the curvature sqrt(pi / 2) / (2 sqrt(2) s) in d, and D is sqrt(pi) s / 2. A mean
drift displaces by its product with the time t, so its curvature is pi t^2 / (8 D). The steps contract to the
score's own minimum whether or not that is so.
"""

import jax.numpy as jnp
import numpy as np

from driftcal.shared.spacing import evenly
from driftcal.shared.store.reader import ShardStore
from driftcal.train.evaluation.baseline import Baseline, Baselines
from driftcal.train.fit.parameters import Parameters, Positive
from driftcal.train.learners.drift.diffusivity import Diffusivity
from driftcal.train.learners.drift.energy_newton import global_step
from driftcal.train.learners.drift.residuals import residuals_of
from driftcal.train.model_checks.residual_pass import residuals_over
from driftcal.train.reading.batches import Grid
from driftcal.train.settings import Training

SAMPLES = 256
"""Samples that the baselines are fitted to: K is then known to 6 %, which costs the score less than a thousandth."""

ROUNDS = (SAMPLES // 4, SAMPLES // 4, SAMPLES)
"""Samples of the steps of K alone; those that follow move the drift too."""

ROUNDS_WITH_DRIFT = (SAMPLES, SAMPLES)

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
    store: ShardStore, settings: Training, samples: np.ndarray, start: np.ndarray, progress: bool
) -> Baselines:
    """Fits both baselines to some of `samples`, spread evenly.

    Args:
        store: The store that was trained on.
        settings: Those of the run; the score is `energy` where its own is not proper.
        samples: Numbers of samples.
        start: A guess of K [m2/s] and of the mean drift, east and north [m/s].
        progress: Whether to show a bar.
    """
    dtype, grid = np.dtype(settings.precision), Grid.of(store.layout)
    # the kernels of other engines know one model
    settings = settings.model_copy(update={"engine": "driftcal"})
    vector = np.array([np.log(start[0]), start[1], start[2]])
    parameters = Parameters.of(module_of(vector, dtype), Diffusivity.formula)
    compiled = residuals_of(settings, grid, parameters, sloped=True)
    hours = np.arange(1, grid.n_obs) * grid.obs_step
    plain = settings.score.objective == "energy-plain"

    def stepped_from(vector: np.ndarray, size: int, moved: np.ndarray) -> np.ndarray:
        few = samples[evenly(len(samples), size)]
        found = residuals_over(store, settings, compiled, vector, few, progress, "baselines")
        # in still water the reference ensemble of `energy` does not spread, and weighs nothing
        score, of = (found.plain if plain or not found.energy.dispersion.any() else found.energy), found.plain
        weight = np.divide(score.dispersion, of.dispersion, out=np.zeros_like(of.dispersion), where=of.dispersion > 0)
        curvature = np.divide(weight, of.dispersion, out=np.zeros_like(weight), where=of.dispersion > 0)
        good = np.isfinite(score.slope).all(axis=(0, 1)) & np.isfinite(curvature).all(axis=0)
        slope = score.slope[..., good].mean(axis=(0, 2))
        along = (np.pi / 8 * hours[:, None] ** 2 * curvature[:, good]).mean()
        step = np.array([0.0, -slope[1] / along, -slope[2] / along])
        step[0] = float(global_step(jnp.asarray(slope[0]), jnp.asarray(score.dispersion[:, good].mean())))
        return vector + np.where(moved, step, 0.0)

    alone = vector * [1.0, 0.0, 0.0]
    for size in ROUNDS:
        alone = stepped_from(alone, size, np.array([True, False, False]))
    both = np.concatenate([alone[:1], vector[1:]])
    for size in ROUNDS_WITH_DRIFT:
        both = stepped_from(both, size, np.array([True, True, True]))
    found = [Baseline(float(np.exp(v[0])), float(v[1]), float(v[2])) for v in (alone, both)]
    return Baselines(min(SAMPLES, len(samples)), *found)
