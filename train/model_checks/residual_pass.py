"""The pass over training samples that the checks rest on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64, Int, Num
from tqdm import tqdm

from driftcal.shared.spacing import evenly
from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit import group_keys
from driftcal.train.fit.parameters import Parameters
from driftcal.train.learners.drift.energy_newton import global_step
from driftcal.train.learners.drift.residuals import DAY, HOURS, Residuals, Slopes, residuals_of, stride_of
from driftcal.train.model_checks.checks import Evidence, MemberMemory, Moments, Parameter
from driftcal.train.reading.batches import Batch, Grid, stepped
from driftcal.train.settings import Training

MOST = 8192
"""Samples that are looked at."""

MOST_DIFFERENCED = 1024
"""The same for a model whose curvature is measured by one more pass for every parameter."""

GROUPS = {"boxes": "grid:10", "bands": "latitude:10", "seasons": "season"}
"""Keys of groups that one constant should fit."""

PROPER = ("energy", "energy-plain")
"""Objectives whose slopes have mean zero at the truth."""


@dataclass(frozen=True)
class Calibrated:
    """The parameters of a run.

    Attributes:
        parameters: Their names and module.
        trained: Their calibrated numbers, as trained.
        errors: Standard errors of those; None where there are none.
    """

    parameters: Parameters
    trained: Float[np.ndarray, " P"]
    errors: Float[np.ndarray, " P"] | None


def evidence_of(
    store: ShardStore,
    settings: Training,
    calibrated: Calibrated,
    samples: Int[np.ndarray, " all"],
    cluster: Int[np.ndarray, " all"],
    progress: bool,
) -> Evidence:
    """Residuals of `samples`, at most so many as the checks need, spread evenly; what is not finite is left out.

    Args:
        store: The store that was trained on.
        settings: Those of the run.
        calibrated: Its parameters.
        samples: Numbers of samples.
        cluster: Cluster of every one of them.
        progress: Whether to show a bar.
    """
    parameters, grid = calibrated.parameters, Grid.of(store.layout)
    # without errors there is no minimum, or no telling how far to step for a difference
    sloped = settings.score.objective in PROPER and calibrated.errors is not None and parameters.size > 0
    differenced = sloped and not parameters.closed_form
    which = evenly(len(samples), MOST_DIFFERENCED if differenced else MOST)
    samples, cluster = samples[which], cluster[which]
    compiled = residuals_of(settings, grid, parameters, sloped)

    def at(vector: Float[np.ndarray, " P"], name: str) -> Residuals:
        return residuals_over(store, settings, compiled, vector, samples, progress, name)

    found = at(calibrated.trained, "model checks")
    curved: list[Residuals] = []
    if differenced:
        assert calibrated.errors is not None
        for k, error in enumerate(calibrated.errors):
            shifted = calibrated.trained + error * np.eye(parameters.size)[k]
            curved.append(at(shifted, f"curvature {k + 1} of {parameters.size}"))
    arrays = jax.tree.leaves((found, curved))
    good = np.all([np.isfinite(a).reshape(-1, a.shape[-1]).all(axis=0) for a in arrays], axis=0)
    found, curved = jax.tree.map(lambda a: np.moveaxis(a[..., good], -1, 0), (found, curved))
    samples, cluster = samples[good], cluster[good]

    def moments(name: str) -> Moments | None:
        if not sloped:
            return None
        slopes: Slopes = getattr(found, name)
        if not differenced:
            return Moments(np.asarray(slopes.slope), np.asarray(slopes.dispersion)[..., None, None])
        assert calibrated.errors is not None
        steps = zip(curved, calibrated.errors, strict=True)
        columns = [(getattr(one, name).slope - slopes.slope) / error for one, error in steps]
        return Moments(np.asarray(slopes.slope), np.stack(columns, axis=-1))

    by_name = {"energy": moments("energy"), "energy-plain": moments("plain")}
    main, other = PROPER if settings.score.objective != PROPER[1] else PROPER[::-1]
    return Evidence(
        samples=samples,
        lead_hours=np.arange(1, grid.n_obs) * grid.obs_step / 3600,
        cluster=cluster,
        drifter=store.labels["drifter"][samples],
        objective=by_name[main],
        other=by_name[other],
        parameter=_parameter(calibrated) if sloped else None,
        departure=found.departure,
        error2=found.error2,
        spread2=found.spread2,
        rank=(found.rank_distance + 0.5) / (settings.ensemble.members + 1),
        displacement=found.displacement,
        daily=MemberMemory(stride_of(grid, DAY), *found.daily),
        hourly=MemberMemory(stride_of(grid, HOURS), *found.hourly),
        successive=MemberMemory(1, *found.successive),
        south=store.labels["origin"][samples, 1] < 0,
        members=settings.ensemble.members,
        sorted_by={
            "kappa": _log_spread(found),
            "speed": np.asarray(found.speed)[:, None],
            "latitude": store.labels["origin"][samples, 1].astype(np.float64)[:, None],
        },
        groups={name: group_keys.of(store, samples, key).group for name, key in GROUPS.items()},
        names=(main, other),
    )


def _log_spread(found: Residuals) -> Float64[np.ndarray, "n obs"]:
    """Logarithm of the reference ensemble's spread at every fix: what deformation has made of it.

    An ensemble that has not spread counts as the narrowest that has.
    """
    weight = np.divide(
        found.energy.dispersion,
        found.plain.dispersion,
        out=np.zeros_like(found.plain.dispersion),
        where=found.plain.dispersion > 0,
    )
    narrowest = weight.max(initial=0.0)
    return -np.log(np.where(weight > 0, weight, narrowest if narrowest > 0 else 1.0))


def _parameter(calibrated: Calibrated) -> Parameter | None:
    parameters = calibrated.parameters
    if not parameters.one_positive:
        return None
    step = _closed_form if parameters.closed_form else _newton
    return Parameter(parameters.symbol(), float(calibrated.trained[0]), step)


def _closed_form(ratio: float) -> float:
    """Step of the logarithm of what multiplies the diffusivity, from slope over dispersion."""
    return float(global_step(jnp.asarray(ratio), jnp.asarray(1.0)))


def _newton(ratio: float) -> float:
    """Step from slope over curvature."""
    return -ratio


def residuals_over(
    store: ShardStore,
    settings: Training,
    compiled: Callable[[jax.Array, Batch], Residuals],
    vector: Float[np.ndarray, " P"],
    samples: Int[np.ndarray, " n"],
    progress: bool,
    name: str,
) -> Residuals:
    """The residuals of all samples at parameters as trained, in float64; NaN for what could not be read."""
    dtype, size = np.dtype(settings.precision), min(settings.batch_size, len(samples))
    at, parts = jnp.asarray(vector, dtype), []

    def step(batch: Batch) -> tuple[Residuals, jax.Array]:
        return compiled(at, batch), batch.weight

    with tqdm(total=len(samples), unit="sample", desc=name, disable=not progress, leave=False) as bar:
        for numbers, (residuals, weight) in stepped(store, samples, size, dtype, step, settings.data):
            parts.append(jax.tree.map(partial(_read, weight=np.asarray(weight)[: len(numbers)]), residuals))
            bar.update(len(numbers))
    return jax.tree.map(lambda *each: np.concatenate(each, axis=-1), *parts)


def _read(values: Num[np.ndarray, "*fixes padded"], weight: Float[np.ndarray, " n"]) -> Float64[np.ndarray, "*fixes n"]:
    """Values of the samples of a batch without its padding; NaN for what could not be read."""
    return np.where(weight > 0, values[..., : len(weight)].astype(np.float64), np.nan)
