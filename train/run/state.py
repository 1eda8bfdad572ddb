"""The state of a run, and when it is saved.

A run is a descent followed by passes at fixed parameters. A checkpoint holds the state of the descent, and a few
numbers per sample for every pass. A resumed run repeats all decisions from the start, but takes results that exist
already from the checkpoint, so its decisions are the same to the last bit. The noise of a sample and the order of the
samples are functions of the seed and need not be saved.
"""

import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from driftcal.shared.errors import StoreError
from driftcal.train.fit.sample_gradients import SampleGradients
from driftcal.train.learners.drift import energy_newton
from driftcal.train.machine.devices import Devices
from driftcal.train.machine.stop_signals import Stop
from driftcal.train.run.checkpoints import Checkpoints, Damaged, Saved
from driftcal.train.run.metrics_log import Counts, MetricsLog
from driftcal.train.settings import Checkpointing


class State(NamedTuple):
    """The state of a descent: a pytree.

    Attributes:
        parameters: as trained.
        moments: state of the optax transformation.
        average: average of the iterates.
        epoch: passes done.
        position: samples of the next one that have been taken.
    """

    parameters: Float[Array, " P"]
    moments: Any
    average: energy_newton.Average
    epoch: int
    position: int


class PassResults:
    """The results so far of a pass at fixed parameters, in the order of its samples.

    Attributes:
        parameters: as trained, `(P,)` float64.
        loss: `(n,)`; NaN where a sample is not good.
        gradient: `(n, P)`.
        dispersion: `(n,)`.
        taken: samples simulated so far; the rest is not filled.
        counts: numbers added up over the samples, by name.
    """

    def __init__(self, parameters: np.ndarray, n: int, dtype: np.dtype):
        self.parameters = parameters
        self.loss, self.dispersion = np.full(n, np.nan, dtype), np.full(n, np.nan, dtype)
        self.gradient = np.full((n, len(parameters)), np.nan, dtype)
        self.taken = 0
        self.counts: dict[str, int] = {}

    def add(self, gradients: SampleGradients, n: int) -> None:
        """Adds the first `n` samples of a batch."""
        to, good = slice(self.taken, self.taken + n), np.asarray(gradients.good)[:n]
        self.loss[to] = np.where(good, gradients.loss[:n], np.nan)
        self.gradient[to] = np.where(good[:, None], gradients.gradient[:n], np.nan)
        self.dispersion[to] = np.where(good, gradients.dispersion[:n], np.nan)
        self.taken += n
        for name, count in gradients.counts.items():
            self.counts[name] = self.counts.get(name, 0) + int(np.sum(count))

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays and JSON of this, for a checkpoint."""
        return {
            "parameters": self.parameters,
            "samples": np.array([len(self.loss), self.taken]),
            **{f"counts/{name}": np.array(count) for name, count in self.counts.items()},
            **{name: getattr(self, name)[: self.taken] for name in ("loss", "gradient", "dispersion")},
        }

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> "PassResults":
        """The inverse of `arrays`."""
        n, taken = (int(k) for k in arrays["samples"])
        held = cls(arrays["parameters"], n, arrays["loss"].dtype)
        held.taken, held.counts = taken, {k: int(v) for k, v in _within(arrays, "counts/").items()}
        for name in ("loss", "gradient", "dispersion"):
            getattr(held, name)[:taken] = arrays[name]
        return held


class Progress:
    """The progress of a run.

    Attributes:
        state: of the descent; None before it, or where there is none.
        passes: those at fixed parameters, in order.
    """

    def __init__(self, saved: Saved | None = None):
        self.state: State | None = None
        self.passes: list[PassResults] = []
        self._saved, self._again = saved, 0
        if saved is not None:
            parts = [_within(saved.arrays, f"pass-{k}/") for k in range(saved.about["passes"])]
            self.passes = [PassResults.of(part) for part in parts]

    def descent(self, begin: State) -> State:
        """State of the descent; `begin` if it has not begun."""
        if self._saved is not None and self._saved.about["descended"]:
            leaves, structure = jax.tree.flatten(begin)
            held = _within(self._saved.arrays, "descent/")
            kept = [held[f"{k:03d}"] for k in range(len(leaves))]
            if any(np.shape(leaf) != array.shape for leaf, array in zip(leaves, kept, strict=True)):
                raise StoreError(f"{self._saved.path}: its parameters have other shapes than the run's.")
            back = [jnp.asarray(a) if eqx.is_array(leaf) else a.item() for leaf, a in zip(leaves, kept, strict=True)]
            begin = jax.tree.unflatten(structure, back)
        self.state = begin
        return begin

    def next_pass(self, parameters: np.ndarray, n: int, dtype: np.dtype) -> PassResults:
        """The next pass: of `n` samples at `parameters`, as far as it has come."""
        self._again += 1
        if self._again > len(self.passes):
            self.passes.append(PassResults(parameters, n, dtype))
        held = self.passes[self._again - 1]
        if len(held.loss) != n or not np.array_equal(held.parameters, parameters):
            assert self._saved is not None
            raise StoreError(
                f"{self._saved.path}: pass {self._again} was over {len(held.loss)} samples at {held.parameters}, but "
                f"this run makes one over {n} at {parameters}. NumPy or the machine has changed since: start afresh."
            )
        return held

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays and JSON of this, for a checkpoint."""
        leaves = [] if self.state is None else jax.tree.leaves(self.state)
        held = {f"descent/{k:03d}": np.asarray(leaf) for k, leaf in enumerate(leaves)}
        for k, one in enumerate(self.passes):
            held |= {f"pass-{k}/{name}": array for name, array in one.arrays().items()}
        return held


class CheckpointSchedule:
    """Saves a run's progress when it is time to, or when it is asked to stop."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        settings: Checkpointing,
        progress: Progress,
        log: MetricsLog,
        stop: Stop,
        devices: Devices,
    ):
        self.progress = progress
        self._devices = devices
        self._checkpoints, self._settings, self._log, self._stop = checkpoints, settings, log, stop
        self._saved_at, self._saved_step = time.monotonic(), log.counts.step

    def batch_done(self, savable: bool = True) -> None:
        """Saves if it is time, after every batch that `progress` includes; never unless it is `savable`.

        Raises:
            Interrupted: a signal asked for it, and the run is saved.
        """
        steps = self._log.counts.step - self._saved_step
        due = time.monotonic() - self._saved_at >= self._settings.every
        every = self._settings.every_steps
        asked = self._devices.any(self._stop.asked is not None)
        if savable and (due or (every is not None and steps >= every) or asked):
            self.save()
        if asked:
            name = self._stop.asked or "a signal to another process"
            kept = f"; the run is saved as of step {self._saved_step} in {self._checkpoints.last}"
            raise self._stop.interrupted(name, kept)

    def save(self) -> None:
        """Writes a checkpoint of what there is now."""
        self._saved_at, self._saved_step = time.monotonic(), self._log.counts.step
        if not self._devices.first:
            return
        self._log.sync()
        counts, progress = self._log.counts, self.progress
        about = {
            "descended": progress.state is not None,
            "passes": len(progress.passes),
            "unreadable": {str(k): why for k, why in self._log.store.unreadable.items()},
            **{name: getattr(counts, name) for name in _NUMBERS},
        }
        arrays = {
            "distinct": np.packbits(counts.distinct),
            "poisoned": np.array(sorted(counts.poisoned), np.int64),
            **progress.arrays(),
        }
        self._checkpoints.write(counts.step, about, arrays)


_NUMBERS = ("step", "seen", "size", "crc", "timed", "seconds")


def counts_of(saved: Saved, n_samples: int) -> Counts:
    """Counts at the time when `saved` was written, for a store of `n_samples`.

    Raises:
        Damaged: it lacks something.
    """
    try:
        numbers = {name: saved.about[name] for name in _NUMBERS}
        distinct = np.unpackbits(saved.arrays["distinct"], count=n_samples).astype(bool)
        return Counts(distinct, set(saved.arrays["poisoned"].tolist()), **numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"it lacks {error}") from error


def _within(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
