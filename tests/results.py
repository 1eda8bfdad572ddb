"""A sound result, evaluation and groups of a run, as files hold them and as records."""

from typing import Any

import numpy as np

from driftcal.shared.store.reader import ShardStore
from driftcal.train.evaluation.aggregate import MEASURED
from driftcal.train.evaluation.evaluation import ABOVE, Evaluation
from driftcal.train.run.result import Result

CS, ERROR = 0.3217, 0.0123

EXAMINED: dict[str, Any] = {
    "model_supported": True,
    "model_verdict": "none of 2 checks contradicts the model",
    "model_checks": {
        "memory": {
            "question": "do residuals forget?",
            "statistic": 1.1,
            "p_value": 0.3,
            "p_adjusted": 0.6,
            "rejected": False,
            "finding": "nothing against the model",
            "quantity": "correlation of successive increments over one day",
            "estimates": [
                {"name": "drifters", "value": 0.21, "interval_90": [0.15, 0.27], "expected": 0.2},
                {"name": "members", "value": 0.2, "interval_90": None, "expected": None},
            ],
        },
    },
    "baselines": {
        "n_samples": 12,
        "constant_diffusivity": {"diffusivity": 640.0, "east": 0.0, "north": 0.0},
        "with_mean_drift": {"diffusivity": 630.0, "east": 0.01, "north": -0.02},
    },
    "profile": {
        "parameter": "cs",
        "n_samples": 12,
        "n_clusters": 11,
        "value": [0.1, 0.3, 1.0],
        "score": [1.0, 0.9, 1.1],
        "gradient": [-0.2, 0.0, 0.3],
        "gradient_error": [0.1, 0.1, None],
        "escaped_share": [0.0, 0.0, 0.1],
    },
    "minima": [{"value": 2.0, "interval_90": [1.5, 2.6], "score": 0.95, "score_above_result": 0.05}],
}


def result_tree(store: ShardStore, **change: Any) -> dict[str, Any]:
    """A sound result, as its file holds it; `change` replaces parts of it."""
    samples = store.samples_of("train")
    interval = [0.3021, 0.3426]
    parameter = {
        "value": CS,
        "trained": float(np.log(CS)),
        "standard_error": ERROR,
        "interval_90": interval,
        "start": 0.1,
    }
    return {
        "cs": CS,
        "cs_standard_error": ERROR,
        "cs_interval_90": interval,
        "log_cs": float(np.log(CS)),
        "log_cs_standard_error": ERROR / CS,
        "score_at_cs": 0.3221,
        "curvature": 0.7,
        "parameters": {"cs": parameter | {"trained_as": "logarithm", "at_bound": False}},
        "parameters_correlation": None,
        "n_parameters": 1,
        "standard_error_clusters": "drifter",
        "standard_error_degrees_of_freedom": 41.5,
        "dynamics": None,
        "formula": "K = C_s dx dy sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2)",
        "objective": "energy",
        "estimator": "fair",
        "proper": True,
        "propriety": "least in expectation where the ensemble is distributed as the drifter is",
        "score": 0.9264,
        "converged": True,
        "convergence": "yes: the last correction of log C_s was -0.0012, its standard error is 0.038",
        "initial_cs": 0.1,
        "n_samples": len(samples),
        "n_drifters": 57,
        "n_clusters": 57,
        "members": 20,
        "engine": "driftcal",
        "scheme": "heun",
        "optimizer": "newton",
        "gradient_mode": "forward",
        "gradient_reason": "for 1 parameter it takes less time than reverse mode",
        "escaped_members": 3,
        "escaped_share": 0.0004,
        "ashore_members": 0,
        "ashore_share": 0.0,
        "poisoned_samples": [],
        "unreadable_samples": [],
        "gradient_samples": 3 * len(samples),
        "steps": 16,
        "samples_per_second": 1234.5,
        "seed": 7,
        "precision": "float32",
        "device": "cpu",
        "store": store.manifest.digest,
        "store_name": store.manifest.name,
        "version": "0.1.0",
        "engine_version": None,
        "function": None,
    } | change


def result(store: ShardStore, **change: Any) -> Result:
    return Result.from_json(result_tree(store, **change))


def mean(value: float, error: float | None) -> dict[str, Any]:
    """A mean with a normal interval."""
    ends = None if error is None else [value - 1.645 * error, value + 1.645 * error]
    return {"mean": value, "standard_error": error, "interval_90": ends}


def reliability(n_leads: int, error: float | None = 0.05) -> dict[str, Any]:
    """A reliable ensemble."""
    ends = None if error is None else [[0.9, 0.8, 0.9], [1.1, 1.2, 1.1]]
    ranks = {"frequency": [1.0, 1.0, 1.0], "frequency_error": error and [error] * 3, "frequency_interval_90": ends}
    curve = {"mean": [0.9] * n_leads, "standard_error": error and [error] * n_leads}
    curve |= {"interval_90": error and [[0.8] * n_leads, [1.0] * n_leads]}
    return {
        "spread_skill_ratio": mean(0.97, error),
        "ranks": {
            kind: ranks | {"mean": mean(0.51, error), "spread": mean(1.02, error)}
            for kind in ("distance", "east", "north")
        },
        "by_lead": {"spread_skill_ratio": curve, "distance_rank": curve},
    }


def evaluation_tree(store: ShardStore, error: float | None = 1.25, split: str = "test") -> dict[str, Any]:
    """A sound evaluation, as its file holds it."""
    leads = np.arange(1, store.layout.n_obs)
    energy = {"calibrated": 15.27, "initial constant": 16, "currents alone": 21, "no motion": 51}
    scores = {
        system: {
            name: mean(value * factor, error and error * factor)
            for name, factor in zip(MEASURED, (1.0, 1.5, 2.5, 0.01), strict=True)
        }
        | {ABOVE: mean(value - 15.27, error and 0.3), "escaped_members": 0}
        for system, value in energy.items()
    }
    lines = {"error_km": np.sqrt(leads).tolist(), "spread_km": (0.9 * np.sqrt(leads)).tolist()}
    return {
        "split": split,
        "fit": split == "train",
        "store": store.manifest.digest,
        "cs": CS,
        "initial_cs": 0.1,
        "members": 20,
        "n_split": 29,
        "n_samples": 29,
        "n_drifters": 6,
        "n_clusters": 6,
        "standard_error_clusters": "drifter",
        "poisoned_samples": [],
        "unreadable_samples": [],
        "trained_drifters_left_out": {"n_samples": 0, "drifters": []},
        "scores": scores,
        "lead_hours": (leads * 3.0).tolist(),
        "spread_and_error": {"calibrated": lines, "initial constant": lines},
        "reliability": {name: reliability(len(leads), error and 0.05) for name in ("calibrated", "initial constant")},
        "run_store": store.manifest.digest,
    }


def evaluation(store: ShardStore, **change: Any) -> Evaluation:
    return Evaluation.from_json(evaluation_tree(store) | change)


def groups_tree(*names: str, box: bool = False) -> dict[str, Any]:
    """A key with groups of these names."""
    group = {
        "n_samples": 3,
        "n_drifters": 2,
        "n_clusters": 2,
        "minimum": True,
        "value": 0.2,
        "log_value_standard_error": 0.3,
    }
    group |= {"interval_90": [0.1, 0.3], "shrunk_value": 0.2, "shrunk_interval_90": [0.15, 0.3], "own_weight": 0.7}
    place = {"box": [10.0, -20.0, 20.0, -10.0]} if box else {}
    return {
        "key": "grid:10" if box else "label",
        "n_samples": 3 * len(names),
        "left_out_samples": 0,
        "gradient_samples": 9,
        "test": {"statistic": 1.1, "p_value": 0.4, "n_groups": 2},
        "least_clusters": 5,
        "mean_value": 0.2,
        "tau": 0.1,
        "groups": [{"name": name, **place, **group} for name in names],
    }
