"""The training run, top to bottom: descend, then settle, then say how sure.

Descent: `epochs` passes over the training samples in batches, one Newton (or Adam) step of log C_s each, iterates
averaged. Settling: passes over all training samples at one fixed constant, always with the same noise; a Newton step of
measured curvature gives the gradient's zero near it, and the spread of the gradients the error of that zero, clustered
by drifter. A pass is repeated from the corrected constant until the correction is small against its error.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from shared.errors import ConfigError, DataError
from shared.manifest import to_bytes, write_file
from shared.shards import ShardStore
from train import optimiser
from train.config import Training, check_against
from train.data import Grid, batches, order
from train.dynamics import FORMULA
from train.engine import simulator
from train.folder import CONFIG, RESULT, Z_90
from train.record import Record
from train.step import Step, make_step
from train.uncertainty import Estimate, estimate

SMALLEST_CS, LARGEST_CS = 1e-6, 1e4
"""A constant outside has left anything an ocean could mean: the run stops."""

CURVATURE_STEP = 0.1
"""Change of log C_s across which the curvature is measured, to both sides."""


def run(store: ShardStore, settings: Training, out: Path, progress: bool) -> dict[str, Any]:
    """Calibrates C_s on the training split of `store`; writes the folder `out`, returns what its `result.json` holds.

    Raises:
        StoreError: the store is damaged or has no training split.
        ConfigError: the settings do not fit the store, the engine is missing, or `out` holds something.
        DataError: too many samples are poisoned, or the constant diverges.
    """
    samples = store.samples_of("train")
    settings = settings.model_copy(update={"batch_size": min(settings.batch_size, len(samples))})
    check_against(settings, store.layout)
    simulator(settings.engine)  # a missing package is refused before anything is written
    _claim(out)
    write_file(out / CONFIG, to_bytes(settings.model_dump(mode="json")))
    with jax.enable_x64(settings.precision == "float64"), Record(out, store, progress) as record:
        step = make_step(settings, Grid.of(store.layout))
        log_cs = _descend(store, samples, settings, step, record)
        history = _settle(log_cs, store, samples, settings, step, record)
    result = _result(store, settings, history, record)
    write_file(out / RESULT, to_bytes(result))
    return result


def _claim(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists and is not an empty folder. Choose another, or remove it.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {out}: {error.strerror}. Choose another --out.") from error


def _descend(store: ShardStore, samples: np.ndarray, settings: Training, step: Step, record: Record) -> float:
    """`epochs` passes with a step after every batch; returns the average of log C_s over them."""
    dtype = np.dtype(settings.precision)
    method = optimiser.newton() if settings.optimizer.method == "newton" else _adam(settings)
    log_cs = jnp.asarray(np.log(settings.initial_cs), dtype)
    state = method.init(log_cs)
    average = optimiser.start_average(log_cs)
    for epoch in range(settings.epochs):
        shuffled = order(samples, settings.seed, epoch)
        with record.phase(f"epoch {epoch + 1} of {settings.epochs}", epoch, len(samples)):
            for numbers, batch in batches(store, shuffled, settings.batch_size, dtype):
                sums = record.take(numbers, step, log_cs, batch)
                mean = sums.mean()
                if np.isnan(mean.loss):  # nothing usable in this batch: the record has counted it
                    continue
                gradient, dispersion = jnp.asarray(mean.gradient, dtype), jnp.asarray(mean.dispersion, dtype)
                update, state = method.update(gradient, state, log_cs, dispersion=dispersion)
                log_cs = jnp.asarray(optax.apply_updates(log_cs, update))
                average = optimiser.add_to_average(average, log_cs)
                _stop_if_diverged(float(log_cs))
    return float(average.value)


def _adam(settings: Training) -> optax.GradientTransformationExtraArgs:
    return optax.with_extra_args_support(optax.adam(settings.optimizer.learning_rate))


def _settle(
    log_cs: float, store: ShardStore, samples: np.ndarray, settings: Training, step: Step, record: Record
) -> list[Estimate]:
    """Passes at a fixed constant until the correction is small; what each found."""
    history: list[Estimate] = []
    epoch = settings.epochs  # noise of its own, and the same in every pass
    shuffled = order(samples, settings.seed, epoch)
    few = shuffled[: settings.optimizer.curvature_samples]

    def at_constant(name: str, numbers: np.ndarray, at: float) -> np.ndarray:
        """Loss, gradient and dispersion of every sample at `at`, `(n, 3)`; NaN where a sample is not good."""
        dtype = np.dtype(settings.precision)
        with record.phase(name, epoch, len(numbers)):
            return np.concatenate(
                [
                    record.take(part, step, jnp.asarray(at, dtype), batch).each(len(part))
                    for part, batch in batches(store, numbers, settings.batch_size, dtype)
                ]
            )

    for number in range(settings.optimizer.final_passes):
        here = at_constant(f"final pass {number + 1}", shuffled, log_cs)
        escaped, ashore = record.phase_escaped, record.phase_ashore
        below, above = (at_constant("curvature", few, log_cs + d)[:, 1] for d in (-CURVATURE_STEP, CURVATURE_STEP))
        good = np.isfinite(here[:, 1])
        found = estimate(
            log_cs,
            *here[good].T,
            drifter=store.labels["drifter"][shuffled[good]],
            curvature=float(np.nanmean(above - below)) / (2 * CURVATURE_STEP),
            escaped=escaped,
            ashore=ashore,
        )
        history.append(found)
        log_cs = found.corrected
        _stop_if_diverged(log_cs)
        if found.settled:
            break
    return history


def _stop_if_diverged(log_cs: float) -> None:
    if not np.log(SMALLEST_CS) < log_cs < np.log(LARGEST_CS):
        raise DataError(
            f"C_s went to {np.exp(log_cs):.3g}: the objective has no minimum between {SMALLEST_CS:g} and "
            f"{LARGEST_CS:g} on these samples. Try score.objective=energy, another initial_cs, or look at the samples "
            f"with drift-inspect."
        )


def _result(store: ShardStore, settings: Training, history: list[Estimate], record: Record) -> dict[str, Any]:
    """What `result.json` holds; null where there is no number to give."""
    last = history[-1]
    error = last.standard_error if np.isfinite(last.standard_error) else None
    log_cs, cs = last.corrected, float(np.exp(last.corrected))
    return {
        "cs": cs,
        "cs_standard_error": None if error is None else cs * error,
        "cs_interval_90": None if error is None else [float(np.exp(log_cs + z * error)) for z in (-Z_90, Z_90)],
        "log_cs": log_cs,
        "log_cs_standard_error": error,
        "standard_error_clusters": "drifter",
        "formula": FORMULA,
        "objective": settings.score.objective,
        "estimator": "fair",
        "score": last.score,
        "score_at_cs": float(np.exp(last.log_cs)),
        "converged": last.settled,
        "convergence": last.explain(),
        "curvature": last.curvature,
        "initial_cs": settings.initial_cs,
        "n_samples": last.n_samples,
        "n_drifters": last.n_drifters,
        "members": settings.ensemble.members,
        "engine": settings.engine,
        "scheme": settings.integration.scheme,
        "escaped_members": last.escaped,
        "escaped_share": last.escaped / (last.n_samples * settings.ensemble.members),
        "ashore_members": last.ashore,
        "ashore_share": last.ashore / (last.n_samples * settings.ensemble.members),
        "dropped_samples": sorted(record.poisoned),
        "gradient_samples": record.seen,
        "steps": record.step,
        "samples_per_second": record.samples_per_second,
        "seed": settings.seed,
        "precision": settings.precision,
        "device": jax.devices()[0].device_kind,
        "store": store.manifest.digest,
        "store_name": store.manifest.name,
        "version": version("driftcal"),
    }
