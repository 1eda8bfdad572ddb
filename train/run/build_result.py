"""Builds the result of a run: the estimate, its uncertainty, and how it was obtained."""

from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit.bounds import AtBound
from driftcal.train.fit.parameters import Parameters, trained_leaves, vector_of, with_vector
from driftcal.train.fit.standard_errors import Estimate, Judged
from driftcal.train.learners.drift.loss import mode_of
from driftcal.train.reading.batches import Grid
from driftcal.train.run.checkpoints import FUNCTION
from driftcal.train.run.metrics_log import MetricsLog
from driftcal.train.run.result import Result
from driftcal.train.settings import Training

_KERNEL = "the kernel score of a distance of negative type, which great circles are (Lyons 2020): least in expectation "
_KERNEL += "where the ensemble is distributed as the drifter is (Gneiting and Raftery 2007)"
PROPER = {
    "energy": (True, f"{_KERNEL}; its weights depend neither on the drifter's track nor on the constant"),
    "energy-plain": (True, _KERNEL),
    "liu": (False, "each sample is weighted by its drifter's own path, which the score is then not proper for"),
    "reference": (False, "squares the score, and divides members' distances by their own paths"),
}
"""Verdict on each objective, whether it is a proper score, with the reason."""


def result_of(
    store: ShardStore,
    settings: Training,
    parameters: Parameters,
    method: str,
    found: Estimate | AtBound | Judged,
    log: MetricsLog,
    identity: dict[str, Any],
) -> Result:
    """The result of a run that is `identity`."""
    n = found.n_samples * settings.ensemble.members
    mode = mode_of(settings, parameters.size, Grid.of(store.layout))
    tree = {
        **_constant(parameters, found),
        "parameters": _parameters(parameters, found),
        "parameters_correlation": _correlation(found),
        "n_parameters": parameters.size,
        "standard_error_clusters": settings.cluster_by,
        "standard_error_degrees_of_freedom": None if isinstance(found, Judged) else found.degrees,
        "dynamics": settings.dynamics,
        "formula": parameters.formula,
        "objective": settings.score.objective,
        "estimator": "fair",
        "proper": PROPER[settings.score.objective][0],
        "propriety": PROPER[settings.score.objective][1],
        "score": found.score,
        "converged": found.settled,
        "convergence": found.explain(_corrected(parameters)),
        "initial_cs": settings.initial_cs if settings.dynamics is None else None,
        "n_samples": found.n_samples,
        "n_drifters": found.n_drifters,
        "n_clusters": found.n_clusters,
        "members": settings.ensemble.members,
        "engine": settings.engine,
        "scheme": settings.integration.scheme,
        "optimizer": method,
        "gradient_mode": mode.mode,
        "gradient_reason": mode.reason,
        "escaped_members": found.counts["escaped"],
        "escaped_share": found.counts["escaped"] / n,
        "ashore_members": found.counts["ashore"],
        "ashore_share": found.counts["ashore"] / n,
        "poisoned_samples": sorted(log.counts.poisoned),
        "unreadable_samples": store.unreadable_of("train"),
        "gradient_samples": log.counts.seen,
        "steps": log.counts.step,
        "samples_per_second": log.samples_per_second,
        "seed": settings.seed,
        "precision": settings.precision,
        "device": jax.devices()[0].device_kind,
        "store": store.manifest.digest,
        "store_name": store.manifest.name,
        "version": version("driftcal"),
        "engine_version": identity["engine_version"],
        "function": identity[FUNCTION],
    }
    return Result.from_json(tree)


def _corrected(parameters: Parameters) -> str:
    """The parameters in the coordinates in which they are corrected, as text."""
    if parameters.headline is not None:
        return f"log {parameters.symbol()}"
    return ", ".join(parameters.names)


def _constant(parameters: Parameters, found: Estimate | AtBound | Judged) -> dict[str, Any]:
    """The Smagorinsky constant and what is said of it; null where the dynamics are a user's."""
    keys = ["cs", "cs_standard_error", "cs_interval_90", "log_cs", "log_cs_standard_error", "score_at_cs", "curvature"]
    if parameters.headline is None or isinstance(found, Judged):
        return dict.fromkeys(keys)
    log_cs, cs = float(found.corrected[0]), float(np.exp(found.corrected[0]))
    error = None if found.standard_error is None else float(found.standard_error[0])
    if isinstance(found, AtBound):
        one = _at_bound(parameters, found, 0)
        assert one is not None
        return {
            "cs": one["value"],
            "cs_standard_error": None,
            "cs_interval_90": one["interval_90"],
            "log_cs": log_cs,
            "log_cs_standard_error": None,
            "score_at_cs": cs,
            "curvature": None,
        }
    return {
        "cs": cs,
        "cs_standard_error": None if error is None else cs * error,
        "cs_interval_90": None
        if error is None
        else np.exp(log_cs + error * found.quantile * np.array([-1, 1])).tolist(),
        "log_cs": log_cs,
        "log_cs_standard_error": error,
        "score_at_cs": float(np.exp(found.parameters[0])),
        "curvature": float(found.curvature[0, 0]),
    }


def _parameters(parameters: Parameters, found: Estimate | AtBound | Judged) -> dict[str, Any]:
    """Parameters by name with their errors if they are few; else shape and size of the numbers of each array."""
    trained, errors = found.corrected, found.standard_error
    if not parameters.few:
        after = trained_leaves(with_vector(parameters.module, trained))
        before = trained_leaves(parameters.module)
        return {
            leaf.path: {
                "shape": list(leaf.values.shape),
                "rms": _rms(leaf.values),
                "rms_change": _rms(leaf.values.astype(np.float64) - first.values),
                "standard_error": None,
            }
            for leaf, first in zip(after, before, strict=True)
        }
    values, starts = parameters.values(trained), parameters.values(parameters.start)
    half = 0.0 if isinstance(found, Judged) else found.quantile
    digits = np.finfo(vector_of(parameters.module).dtype).precision
    named = {}
    for k, name in enumerate(parameters.names):
        error = None if errors is None else float(errors[k])
        both = trained + np.array([[-half], [half]]) * (0.0 if errors is None else errors)
        ends = None if error is None else parameters.values(both)[:, k].tolist()
        named[name] = {
            "value": float(values[k]),
            "trained": float(trained[k]),
            "standard_error": error if error is None or not parameters.positive[k] else float(values[k]) * error,
            "interval_90": ends,
            # the logarithm of a start is rounded: no digit is given that it has not
            "start": float(f"{starts[k]:.{digits}g}"),
            "trained_as": "logarithm" if parameters.positive[k] else "itself",
            "at_bound": False,
        }
        if isinstance(found, AtBound) and (bound := _at_bound(parameters, found, k)) is not None:
            named[name] |= bound
    return named


def _at_bound(parameters: Parameters, found: AtBound, k: int) -> dict[str, Any] | None:
    """Entries of parameter `k` at its bound, zero or so large that it no longer matters; None where it is at none."""
    bound = next((one for one in found.bounds if one.index == k), None)
    if bound is None:
        return None
    low = bound.at < parameters.start[k]
    value = 0.0 if low else float(np.exp(bound.at))
    ends = None if bound.far is None else sorted([value, float(np.exp(bound.far))])
    return {"value": value, "standard_error": None, "interval_90": ends, "at_bound": True}


def _correlation(found: Estimate | AtBound | Judged) -> list[list[float]] | None:
    """Correlation of the parameters' errors, as trained; None if they have none, or there is only one parameter."""
    if isinstance(found, Judged) or found.covariance is None or len(found.covariance) == 1:
        return None
    error = np.sqrt(np.diag(found.covariance))
    error = np.where(error > 0.0, error, 1.0)  # one at its bound has none, and is correlated with nothing
    return (found.covariance / np.outer(error, error)).tolist()


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.asarray(values, np.float64) ** 2)))
