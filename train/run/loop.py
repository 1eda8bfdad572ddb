"""The training run, top to bottom: descend, minimise with fixed noise, estimate the error.

Descent: for C_s, `epochs` passes over the training samples in batches, one Newton step of log C_s each, iterates
averaged (`drift.energy_newton`). For a few parameters of a user's own, Newton's method on a part of the samples
(`fit.fixed_noise`). For many, Adam, averaged too. Settling: passes over all training samples at fixed parameters,
always with the same noise, until the zero of their mean gradient is reached; the spread of the gradients gives the
error of that zero, clustered (`reading.clusters`). Many parameters are not settled and have no standard error: their
curvature matrix would cost more than the run.

After every batch the run can be saved (`run.state`), and goes on from there as if it had never stopped.
"""

import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from driftcal.shared.errors import ConfigError, DataError
from driftcal.shared.store.manifest import to_bytes, write_file
from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit import bounds
from driftcal.train.fit.bounds import AtBound
from driftcal.train.fit.fixed_noise import FixedNoise
from driftcal.train.fit.parameters import MOST_NAMED, Parameters, save, with_vector
from driftcal.train.fit.sample_gradients import SampleGradients, Step
from driftcal.train.fit.standard_errors import Estimate, Judged, judge
from driftcal.train.learners.drift import dynamics, energy_newton
from driftcal.train.learners.drift.engines import simulator, version_of
from driftcal.train.learners.drift.loss import make_step
from driftcal.train.learners.drift.user_dynamics import loading, tracing
from driftcal.train.machine.devices import Devices
from driftcal.train.machine.stop_signals import Stop
from driftcal.train.reading import clusters
from driftcal.train.reading.batches import Batch, Grid, order, stepped
from driftcal.train.run import run_folder
from driftcal.train.run.build_result import result_of
from driftcal.train.run.checkpoints import Checkpoints, identity_of
from driftcal.train.run.folder_lock import FolderLock
from driftcal.train.run.metrics_log import Mean, MetricsLog, differs
from driftcal.train.run.passes import Passes
from driftcal.train.run.result import Result
from driftcal.train.run.state import CheckpointSchedule, Progress, State, counts_of
from driftcal.train.run.tensorboard import Board
from driftcal.train.settings import Training, check_against


def run(
    store: ShardStore,
    settings: Training,
    out: Path,
    progress: bool,
    resume: bool = False,
    stop: Stop | None = None,
    devices: Devices | None = None,
    lock: FolderLock | None = None,
) -> Result:
    """Calibrates on the training split of `store`; writes the folder `out`, returns the result.

    Args:
        store: the store.
        settings: of the run.
        out: a new or empty folder; with `resume` also that of an interrupted or finished run.
        progress: whether to show bars.
        resume: goes on where the run in `out` was saved last; begins it where there is none.
        stop: listens to signals; by default nothing does.
        devices: share every batch; by default there is one. Of several processes all call this, and the first writes.
        lock: of `out`, taken before anything in it is looked at; by default one for as long as this runs.

    Raises:
        StoreError: the store or every checkpoint is damaged, or there is no training split.
        ConfigError: the settings do not fit the store or the devices, name no term that can be trained, the engine is
            missing, `out` holds something, or with `resume` another run, or another process writes there.
        DataError: too many samples are poisoned, or the parameters diverge.
        Interrupted: `stop` was asked to; the run is saved.
    """
    samples = store.samples_of("train")
    settings = settings.model_copy(update={"batch_size": min(settings.batch_size, len(samples))})
    check_against(settings, store.layout)
    stop, devices = stop or Stop(""), devices or Devices.of(1)
    devices.check(settings.batch_size, store.on_bad_shard)
    simulator(settings.engine)  # a missing package is refused before anything is written
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(settings.precision == "float64"))
        lock = stack.enter_context(FolderLock(out)) if lock is None else lock
        parameters = dynamics.load(settings)
        function = None
        if settings.dynamics is not None:
            spec, at = settings.dynamics, store.labels["origin"][samples[0]]
            loading.probe(spec, parameters.module, at)
            points = tracing.points_of(store, samples)
            function = loading.function_of(spec, parameters.module, settings.dynamics_settings, points)
        method = method_of(settings, parameters)
        identity = identity_of(store, settings, version_of(settings.engine), parameters.names, function)
        checkpoints = Checkpoints(out, identity, settings.checkpoint)
        with devices.first_alone():
            if devices.first:
                lock.take()
                run_folder.claim(out, identity, resume)
            if (out / run_folder.RESULT).exists():
                return run_folder.read(out).result
            saved = checkpoints.newest(lambda saved: differs(out, counts_of(saved, len(store)))) if resume else None
            if devices.first:
                write_file(out / run_folder.CONFIG, to_bytes(settings.model_dump(mode="json")))
        counts = None
        if saved is not None:
            counts = counts_of(saved, len(store))
            store.unreadable.update((int(k), why) for k, why in saved.about["unreadable"].items())
        try:
            board = (
                Board(out, counts.step if counts else 0) if settings.tracking.tensorboard and devices.first else None
            )
            with MetricsLog(out, store, parameters, progress, counts, devices.first, board) as log, stop.noted():
                schedule = CheckpointSchedule(checkpoints, settings.checkpoint, Progress(saved), log, stop, devices)
                if saved is None:
                    schedule.save()  # so that there is a last good one, whatever happens
                found = _calibrate(store, samples, settings, parameters, log, schedule, devices)
        except DataError as error:
            raise DataError(f"{error} The last good checkpoint is {checkpoints.last}.") from error
        result = result_of(store, settings, parameters, method, found, log, identity)
        if devices.first:
            if settings.dynamics is not None:
                save(out / run_folder.DYNAMICS, with_vector(parameters.module, found.corrected))
            write_file(out / run_folder.RESULT, to_bytes(result.as_json()))
    return result


def _calibrate(
    store: ShardStore,
    samples: np.ndarray,
    settings: Training,
    parameters: Parameters,
    log: MetricsLog,
    schedule: CheckpointSchedule,
    devices: Devices,
) -> Estimate | AtBound | Judged:
    """Descent and passes, from where the progress stands."""
    step = make_step(settings, Grid.of(store.layout), parameters, devices)
    pass_at = Passes(store, settings, parameters, step, log, schedule, devices).at
    cluster, drifter = clusters.of(store, settings.cluster_by), store.labels["drifter"]
    objective = FixedNoise(parameters, pass_at, cluster, drifter, settings.optimizer.curvature_samples)
    shuffled = order(samples, settings.seed, settings.epochs, settings.data.run_length)

    def begin() -> np.ndarray:
        if method_of(settings, parameters) == "newton" and not parameters.closed_form:
            return objective.approach(parameters.start, shuffled)
        return _descend(store, samples, settings, parameters, step, log, schedule, devices)

    if parameters.few:
        return bounds.minimise(objective, begin, shuffled, settings.optimizer.final_passes)
    start = begin()
    last = pass_at("final pass", start, shuffled)
    told = last.loss, last.gradient, cluster[last.samples], last.counts, drifter[last.samples]
    return judge(start, *told)


def method_of(settings: Training, parameters: Parameters) -> str:
    """Method that moves the parameters: Newton's if they are few, unless the settings say otherwise."""
    method = settings.optimizer.method
    if method == "newton" and not parameters.few:
        raise ConfigError(
            f"optimizer.method newton measures a curvature matrix, for at most {MOST_NAMED} parameters; dynamics "
            f"{settings.dynamics!r} has {parameters.size}. Set optimizer.method to auto or adam."
        )
    return method if method != "auto" else "newton" if parameters.few else "adam"


def _descend(
    store: ShardStore,
    samples: np.ndarray,
    settings: Training,
    parameters: Parameters,
    step: Step,
    log: MetricsLog,
    schedule: CheckpointSchedule,
    devices: Devices,
) -> Float[np.ndarray, " P"]:
    """`epochs` passes with a step after every batch; returns the average of the parameters over them."""
    dtype = np.dtype(settings.precision)
    adam = optax.with_extra_args_support(optax.adam(settings.optimizer.learning_rate))
    method = adam if method_of(settings, parameters) == "adam" else energy_newton.newton()
    start = jnp.asarray(parameters.start, dtype)
    begin = State(start, method.init(start), energy_newton.start_average(start), 0, 0)
    state = schedule.progress.descent(begin)

    def stepped_here(batch: Batch) -> SampleGradients:
        return step(state.parameters, batch, state.epoch)

    while state.epoch < settings.epochs:
        epoch = state.epoch
        shuffled = order(samples, settings.seed, epoch, settings.data.run_length)
        with log.phase(f"epoch {epoch + 1} of {settings.epochs}", epoch, len(shuffled), state.position):
            ahead = shuffled[state.position :]
            begun = state.position > 0
            size, reading = settings.batch_size, settings.data
            for numbers, gradients in stepped(store, ahead, size, dtype, stepped_here, reading, devices, begun):
                mean = log.write(numbers, state.parameters, gradients)
                state = state._replace(position=state.position + len(numbers))
                if not np.isnan(mean.loss):  # else nothing is usable in this batch: the log has counted it
                    state = _moved(state, mean, method)
                    parameters.stop_if_diverged(np.asarray(state.parameters, np.float64))
                schedule.progress.state = state
                schedule.batch_done()
        state = state._replace(epoch=epoch + 1, position=0)
    return np.asarray(state.average.value, np.float64)


def _moved(state: State, mean: Mean, method: optax.GradientTransformationExtraArgs) -> State:
    """The state after one step of the parameters."""
    dtype = state.parameters.dtype
    gradient, dispersion = jnp.asarray(mean.gradient, dtype), jnp.asarray(mean.dispersion, dtype)
    update, moments = method.update(gradient, state.moments, state.parameters, dispersion=dispersion)
    parameters = jnp.asarray(optax.apply_updates(state.parameters, update))
    average = energy_newton.add_to_average(state.average, parameters)
    return state._replace(parameters=parameters, moments=moments, average=average)
