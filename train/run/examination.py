"""Examination of a finished run: is its model right, what would a simpler one be, and where else is the score low.

Model checks and baselines are for any model. The profile of the parameter, and the parameter of every group, are for a
model of one positive parameter, as the built-in one is; a user's may have one too.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from driftcal.shared.errors import ConfigError, DataError
from driftcal.shared.spacing import evenly
from driftcal.shared.store.manifest import to_bytes, write_file
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.text import counted
from driftcal.train.evaluation import baselines
from driftcal.train.fit import group_estimates, group_keys, profile
from driftcal.train.fit.parameters import Parameters, saved, vector_of
from driftcal.train.fit.per_sample_parameters import Varied
from driftcal.train.fit.standard_errors import covariance_of_mean, quantile_90
from driftcal.train.learners.drift import dynamics
from driftcal.train.learners.drift.loss import loss_of
from driftcal.train.model_checks import residual_pass
from driftcal.train.model_checks.checks import Evidence, model_checks
from driftcal.train.reading import clusters
from driftcal.train.reading.batches import Grid
from driftcal.train.run import run_folder
from driftcal.train.run.result import Examination, Groups, Parameter, Result
from driftcal.train.run.run_folder import DYNAMICS, GROUPS, RESULT
from driftcal.train.settings import Training

MOST_SHOWN = 60
"""Samples whose residuals are kept to be looked at."""

REACH = 30.0
"""The score is looked at from a parameter divided by this to one times this, unless the model gives a range."""


def _can_vary(settings: Training, parameters: Parameters) -> bool:
    """Tells whether every sample can have a parameter of its own."""
    return parameters.one_positive and settings.engine != "pastax"


def _passes(
    store: ShardStore, settings: Training, parameters: Parameters, samples: np.ndarray, progress: bool, name: str
) -> Varied:
    loss = loss_of(settings, Grid.of(store.layout), parameters)
    return Varied(store, settings, loss, samples, progress, name)


def examine(store: ShardStore, settings: Training, result: Result, out: Path, progress: bool) -> Result:
    """The run's result with its examination, also written to its folder.

    Profile and minima are null for a model of other than one positive parameter, and for one at its bound.
    """
    if result.examination is not None:
        return result
    samples = store.samples_of("train")
    with jax.enable_x64(settings.precision == "float64"):
        parameters = dynamics.load(settings)
        if _can_vary(settings, parameters) and not result.at_bound:
            name = parameters.names[0]
            passes = _passes(store, settings, parameters, samples, progress, f"score against {parameters.symbol()}")
            found = result.parameters[name]
            assert isinstance(found, Parameter)  # one is few
            reach = parameters.ranges.get(name, (found.value / REACH, found.value * REACH))
            calibrated = profile.Calibrated(name, found.trained, result.members, result.gradient_samples, reach)
            added = profile.examine(passes, samples, clusters.of(store, settings.cluster_by), calibrated)
        else:
            added = dict.fromkeys(("profile", "minima"))
        evidence = _evidence(store, settings, parameters, result, out, samples, progress)
        checks = model_checks(evidence)
        run_folder.keep_residuals(out, _residuals(store, evidence))
        fitted = baselines.calibrate(store, settings, samples, _diffusivity(evidence), progress)
    examined = result.examined(Examination.from_json(added | checks.as_json() | {"baselines": fitted.as_json()}))
    write_file(out / RESULT, to_bytes(examined.as_json()))
    return examined


def _evidence(
    store: ShardStore,
    settings: Training,
    parameters: Parameters,
    result: Result,
    out: Path,
    samples: np.ndarray,
    progress: bool,
) -> Evidence:
    """Residuals of training samples at the run's parameters."""
    errors = None
    if result.few:
        trained = np.array([one.trained for one in result.named.values()])
        scaled = [
            one.standard_error and one.standard_error / (one.value if one.trained_as == "logarithm" else 1.0)
            for one in result.named.values()
        ]
        errors = np.array(scaled) if all(scaled) else None
    else:
        trained = np.asarray(vector_of(saved(out / DYNAMICS, parameters.module)), np.float64)
    calibrated = residual_pass.Calibrated(parameters, trained, errors)
    cluster = clusters.of(store, settings.cluster_by)[samples]
    return residual_pass.evidence_of(store, settings, calibrated, samples, cluster, progress)


def _residuals(store: ShardStore, evidence: Evidence) -> dict[str, np.ndarray]:
    """Residuals of a few samples, and the mean of all with the half width of its 90 % interval."""
    few = evenly(len(evidence.samples), MOST_SHOWN)
    values = evidence.departure.reshape(len(evidence.samples), -1)
    half = np.full(values.shape[1], np.nan)
    if evidence.n_clusters > 1:
        errors = np.array([covariance_of_mean(one[:, None], evidence.cluster)[0, 0] for one in values.T]) ** 0.5
        half = errors * quantile_90(evidence.n_clusters - 1)
    shape = evidence.departure.shape[1:]
    return {
        "sample": evidence.samples[few],
        "drifter": np.array([store.drifters[k] for k in store.labels["drifter"][evidence.samples[few]]]),
        "lead_hours": evidence.lead_hours,
        "departure": evidence.departure[few].astype(np.float32),
        "mean": values.mean(axis=0).reshape(shape),
        "half_width_90": half.reshape(shape),
    }


def _diffusivity(evidence: Evidence) -> float:
    """A constant diffusivity [m2/s] that spreads an ensemble as far as the drifters are from its mean."""
    seconds = 3600 * evidence.lead_hours[-1]
    return max(float(evidence.error2[:, -1].mean()) / (4 * seconds), 1.0)


def check_groups(store: ShardStore, settings: Training, keys: Sequence[str]) -> None:
    """Refuses keys, and runs that have no one parameter to differ, before anything is computed.

    Raises:
        ConfigError: A key is none or gives every group a single cluster, or the run's model or engine has no
            parameter that groups could have of their own.
    """
    if not keys:
        return
    samples = store.samples_of("train")
    cluster = clusters.of(store, settings.cluster_by)[samples]
    for key in keys:
        group = group_keys.of(store, samples, key).group
        if len(np.unique(np.column_stack([group, cluster]), axis=0)) == len(np.unique(group)):
            drifters = counted(len(np.unique(store.labels["drifter"][samples])), "drifter")
            raise ConfigError(
                f"--group-by {key}: each of its groups has the samples of a single cluster (cluster_by "
                f"{settings.cluster_by}, {counted(len(np.unique(cluster)), 'cluster')} of {drifters}), and from such "
                f"groups no error can be told. Leave out --group-by, or choose a coarser key."
            )
    with jax.enable_x64(settings.precision == "float64"):
        parameters = dynamics.load(settings)
    if not _can_vary(settings, parameters):
        engine = settings.engine == "pastax"
        what = "engine pastax" if engine else f"dynamics {settings.dynamics} with {parameters.size} parameters"
        wanted = "another engine" if engine else "dynamics with one positive parameter"
        raise ConfigError(
            f"--group-by {' '.join(keys)}: groups have a value each of one positive parameter, and this run has "
            f"{what}. Leave out --group-by, or take {wanted}."
        )


def write_groups(
    store: ShardStore, settings: Training, result: Result, out: Path, keys: Sequence[str], progress: bool
) -> Groups:
    """Fits the groups of every key from the run's parameter, and writes `groups.json` into the run's folder.

    Raises:
        ConfigError: A key is none.
        DataError: The run's parameter is no minimum.
    """
    if result.at_bound:
        raise DataError(
            f"--group-by {' '.join(keys)}: {', '.join(result.at_bound)} is at its bound, so groups have none to differ "
            f"from. Add --resume and leave out --group-by for the report."
        )
    samples = store.samples_of("train")
    with jax.enable_x64(settings.precision == "float64"):
        parameters = dynamics.load(settings)
        name = parameters.names[0]
        found = result.parameters[name]
        assert isinstance(found, Parameter)  # `check_groups` has refused other runs
        passes = _passes(store, settings, parameters, samples, progress, "groups")
        cluster = clusters.of(store, settings.cluster_by)
        groupings = group_estimates.estimates(store, passes, samples, cluster, found.trained, keys)
    model = {"formula": parameters.formula, "parameter": name, "log_value": found.trained}
    groups = Groups.from_json(model | {"groupings": groupings})
    write_file(out / GROUPS, to_bytes(groups.as_json()))
    return groups
