"""Passes of a run at fixed parameters: logged, and saved as far as they have come."""

import jax.numpy as jnp
import numpy as np

from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit.fixed_noise import Pass
from driftcal.train.fit.parameters import Parameters
from driftcal.train.fit.sample_gradients import SampleGradients, Step
from driftcal.train.machine.devices import Devices
from driftcal.train.reading.batches import Batch, stepped
from driftcal.train.run.metrics_log import MetricsLog
from driftcal.train.run.state import CheckpointSchedule, PassResults
from driftcal.train.settings import Training


class Passes:
    """Passes over samples of a store: their noise is that of the epoch after the descent's, whatever the parameters."""

    def __init__(
        self,
        store: ShardStore,
        settings: Training,
        parameters: Parameters,
        step: Step,
        log: MetricsLog,
        schedule: CheckpointSchedule,
        devices: Devices,
    ):
        self._store, self._settings, self._parameters, self._step = store, settings, parameters, step
        self._log, self._schedule, self._devices = log, schedule, devices

    def at(self, name: str, parameters: np.ndarray, numbers: np.ndarray) -> Pass:
        """One pass over the samples `numbers`; `name` is for the log."""
        dtype, size, epoch = np.dtype(self._settings.precision), self._settings.batch_size, self._settings.epochs
        reading, devices = self._settings.data, self._devices
        at, results = jnp.asarray(parameters, dtype), self._begun(parameters, len(numbers), dtype)

        def step(batch: Batch) -> SampleGradients:
            return self._step(at, batch, epoch)

        with self._log.phase(name, epoch, len(numbers), results.taken):
            ahead, begun = numbers[results.taken :], results.taken > 0
            for part, gradients in stepped(self._store, ahead, size, dtype, step, reading, devices, begun):
                self._log.write(part, at, gradients)
                results.add(gradients, len(part))
                self._schedule.batch_done(savable=self._parameters.few)
        loss, gradient, dispersion = (
            np.asarray(v, np.float64) for v in (results.loss, results.gradient, results.dispersion)
        )
        good = np.isfinite(loss)
        return Pass(parameters, numbers[good], loss[good], gradient[good], dispersion[good], dict(results.counts))

    def _begun(self, parameters: np.ndarray, n: int, dtype: np.dtype) -> PassResults:
        """A pass as far as it has come. Of many parameters too much to save: such a pass begins anew."""
        if self._parameters.few:
            return self._schedule.progress.next_pass(parameters, n, dtype)
        self._schedule.save()
        return PassResults(parameters, n, dtype)
