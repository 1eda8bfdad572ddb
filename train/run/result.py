"""The result of a run, `result.json`: the estimate, its uncertainty, and how it was obtained."""

from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit.parameters import Model
from driftcal.train.fit.sample_gradients import mode_of
from driftcal.train.fit.standard_errors import Estimate, Judged
from driftcal.train.learners.drift.user_dynamics import terms
from driftcal.train.reading.batches import Grid
from driftcal.train.run.metrics_log import Record
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
    store: ShardStore, settings: Training, model: Model, method: str, found: Estimate | Judged, record: Record
) -> dict[str, Any]:
    """The result, for JSON; null where there is no number to give."""
    n = found.n_samples * settings.ensemble.members
    mode = mode_of(settings, model.size, Grid.of(store.layout))
    return {
        **_constant(model, found),
        "parameters": _parameters(model, found),
        "parameters_correlation": _correlation(found),
        "n_parameters": model.size,
        "standard_error_clusters": "drifter",
        "standard_error_degrees_of_freedom": None if isinstance(found, Judged) else found.degrees,
        "dynamics": settings.dynamics,
        "formula": model.formula,
        "objective": settings.score.objective,
        "estimator": "fair",
        "proper": PROPER[settings.score.objective][0],
        "propriety": PROPER[settings.score.objective][1],
        "score": found.score,
        "converged": found.settled,
        "convergence": found.explain("log C_s" if model.template is None else ", ".join(model.names)),
        "initial_cs": settings.initial_cs if model.template is None else None,
        "n_samples": found.n_samples,
        "n_drifters": found.n_drifters,
        "members": settings.ensemble.members,
        "engine": settings.engine,
        "scheme": settings.integration.scheme,
        "optimizer": method,
        "gradient_mode": mode.mode,
        "gradient_reason": mode.reason,
        "escaped_members": found.escaped,
        "escaped_share": found.escaped / n,
        "ashore_members": found.ashore,
        "ashore_share": found.ashore / n,
        "dropped_samples": sorted(record.counts.poisoned),
        "unreadable_samples": store.unreadable_of("train"),
        "gradient_samples": record.counts.seen,
        "steps": record.counts.step,
        "samples_per_second": record.samples_per_second,
        "seed": settings.seed,
        "precision": settings.precision,
        "device": jax.devices()[0].device_kind,
        "store": store.manifest.digest,
        "store_name": store.manifest.name,
        "version": version("driftcal"),
    }


def _constant(model: Model, found: Estimate | Judged) -> dict[str, Any]:
    """The Smagorinsky constant and what is said of it; null where the dynamics are a user's."""
    keys = ["cs", "cs_standard_error", "cs_interval_90", "log_cs", "log_cs_standard_error", "score_at_cs", "curvature"]
    if model.template is not None or isinstance(found, Judged):
        return dict.fromkeys(keys)
    log_cs, cs = float(found.corrected[0]), float(np.exp(found.corrected[0]))
    error = None if found.standard_error is None else float(found.standard_error[0])
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


def _parameters(model: Model, found: Estimate | Judged) -> dict[str, Any]:
    """Parameters by name with their errors if they are few; else shape and size of the numbers of each array."""
    trained, errors = found.corrected, found.standard_error
    if not model.few:
        assert model.template is not None
        after = terms.trained_leaves(terms.with_vector(model.template, trained))
        before = terms.trained_leaves(model.template)
        return {
            leaf.path: {
                "shape": list(leaf.values.shape),
                "rms": _rms(leaf.values),
                "rms_change": _rms(leaf.values.astype(np.float64) - first.values),
                "standard_error": None,
            }
            for leaf, first in zip(after, before, strict=True)
        }
    values, starts = model.values(trained), model.values(model.start)
    half = found.quantile if isinstance(found, Estimate) else 0.0
    named = {}
    for k, name in enumerate(model.names):
        error = None if errors is None else float(errors[k])
        ends = None if error is None else model.values(trained + np.array([[-half], [half]]) * errors)[:, k].tolist()
        named[name] = {
            "value": float(values[k]),
            "standard_error": error if error is None or not model.positive[k] else float(values[k]) * error,
            "interval_90": ends,
            "start": float(starts[k]),
            "trained_as": "logarithm" if model.positive[k] else "itself",
        }
    return named


def _correlation(found: Estimate | Judged) -> list[list[float]] | None:
    """Correlation of the parameters' errors, as trained; None if they have none, or there is only one parameter."""
    if isinstance(found, Judged) or found.covariance is None or len(found.covariance) == 1:
        return None
    error = np.sqrt(np.diag(found.covariance))
    return (found.covariance / np.outer(error, error)).tolist()


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.asarray(values, np.float64) ** 2)))
