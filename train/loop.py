"""The training run, top to bottom: descend, then settle, then say how sure.

Descent: for C_s, `epochs` passes over the training samples in batches, one Newton step of log C_s each, iterates
averaged (`train.optimiser`). For a few parameters of a user's own, Newton's method on a part of the samples
(`train.settle`). For many, Adam, averaged too. Settling: passes over all training samples at fixed parameters, always
with the same noise, until the zero of their mean gradient is reached; the spread of the gradients gives the error of
that zero, clustered by drifter. Many parameters are not settled and have no standard error: their curvature matrix
would cost more than the run.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from shared.errors import ConfigError
from shared.manifest import to_bytes, write_file
from shared.shards import ShardStore
from train import folder, optimiser, terms
from train.config import Training, check_against
from train.data import Grid, batches, order
from train.engine import simulator
from train.model import MOST_NAMED, Model, model_of
from train.record import Record
from train.result import result_of
from train.settle import Passes
from train.step import Step, make_step
from train.uncertainty import judge


class State(NamedTuple):
    """Where a descent stands: a pytree, and with the settings and the store all that going on needs.

    Attributes:
        parameters: as trained.
        moments: state of the optax transformation.
        average: of the iterates.
        epoch: passes done.
        position: samples of the next one that have been taken.
    """

    parameters: Float[Array, " P"]
    moments: Any
    average: optimiser.Average
    epoch: int
    position: int


def run(store: ShardStore, settings: Training, out: Path, progress: bool) -> dict[str, Any]:
    """Calibrates on the training split of `store`; writes the folder `out`, returns what its `result.json` holds.

    Raises:
        StoreError: the store is damaged or has no training split.
        ConfigError: the settings do not fit the store, name no term that can be trained, the engine is missing, or
            `out` holds something.
        DataError: too many samples are poisoned, or the parameters diverge.
    """
    samples = store.samples_of("train")
    settings = settings.model_copy(update={"batch_size": min(settings.batch_size, len(samples))})
    check_against(settings, store.layout)
    simulator(settings.engine)  # a missing package is refused before anything is written
    with jax.enable_x64(settings.precision == "float64"):
        model = model_of(settings)
        if model.template is not None:
            terms.probe(str(settings.dynamics), model.template, store.labels["origin"][samples[0]])
        method = method_of(settings, model)
        _claim(out)
        write_file(out / folder.CONFIG, to_bytes(settings.model_dump(mode="json")))
        with Record(out, store, model, progress) as record:
            step = make_step(settings, Grid.of(store.layout), model)
            passes = Passes(store, settings, model, step, record, settings.epochs)  # noise of its own
            shuffled = order(samples, settings.seed, settings.epochs, settings.data.run_length)
            if method == "newton" and model.template is not None:
                start = passes.approach(model.start, shuffled)
            else:
                start = _descend(store, samples, settings, model, step, record)
            if model.few:
                found = passes.settle("final pass", start, shuffled, settings.optimizer.final_passes)[-1]
            else:
                last = passes.at("final pass", start, shuffled)
                drifter = store.labels["drifter"][last.samples]
                found = judge(start, last.loss, last.gradient, drifter, last.escaped, last.ashore)
        if model.template is not None:
            terms.save(out / folder.DYNAMICS, terms.with_vector(model.template, found.corrected))
    result = result_of(store, settings, model, method, found, record)
    write_file(out / folder.RESULT, to_bytes(result))
    return result


def method_of(settings: Training, model: Model) -> str:
    """How the parameters are moved: by Newton's method if they are few, unless the settings say otherwise."""
    method = settings.optimizer.method
    if method == "newton" and not model.few:
        raise ConfigError(
            f"optimizer.method newton measures a curvature matrix, for at most {MOST_NAMED} parameters; dynamics "
            f"{settings.dynamics!r} has {model.size}. Set optimizer.method to auto or adam."
        )
    return method if method != "auto" else "newton" if model.few else "adam"


def _claim(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists and is not an empty folder. Choose another, or remove it.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {out}: {error.strerror}. Choose another --out.") from error


def _descend(
    store: ShardStore, samples: np.ndarray, settings: Training, model: Model, step: Step, record: Record
) -> Float[np.ndarray, " P"]:
    """`epochs` passes with a step after every batch; returns the average of the parameters over them."""
    dtype = np.dtype(settings.precision)
    adam = optax.with_extra_args_support(optax.adam(settings.optimizer.learning_rate))
    method = adam if method_of(settings, model) == "adam" else optimiser.newton()
    parameters = jnp.asarray(model.start, dtype)
    state = State(parameters, method.init(parameters), optimiser.start_average(parameters), 0, 0)
    while state.epoch < settings.epochs:
        epoch = state.epoch
        ahead = order(samples, settings.seed, epoch, settings.data.run_length)[state.position :]
        with record.phase(f"epoch {epoch + 1} of {settings.epochs}", epoch, len(ahead)):
            for numbers, batch in batches(store, ahead, settings.batch_size, dtype, settings.data):
                mean = record.take(numbers, step, state.parameters, batch).mean()
                state = state._replace(position=state.position + len(numbers))
                if np.isnan(mean.loss):  # nothing usable in this batch: the record has counted it
                    continue
                gradient, dispersion = jnp.asarray(mean.gradient, dtype), jnp.asarray(mean.dispersion, dtype)
                update, moved = method.update(gradient, state.moments, state.parameters, dispersion=dispersion)
                parameters = jnp.asarray(optax.apply_updates(state.parameters, update))
                average = optimiser.add_to_average(state.average, parameters)
                state = state._replace(parameters=parameters, moments=moved, average=average)
                model.stop_if_diverged(np.asarray(parameters, np.float64))
        state = state._replace(epoch=epoch + 1, position=0)
    return np.asarray(state.average.value, np.float64)
