"""Passes over samples that each have a parameter of their own: the groups' fit, and the score against the parameter."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit.sample_gradients import Loss, SampleGradients, gradient
from driftcal.train.reading.batches import Batch, stepped
from driftcal.train.settings import Training


class Found(NamedTuple):
    """Values of every sample of a pass; NaN where loss or gradient are not finite.

    Attributes:
        loss: The objective.
        gradient: Its derivative in the logarithm of the parameter.
        dispersion: Size of the objective's second term.
        escaped: Members that left their window.
        good: Tells whether all are finite.
    """

    loss: Float[np.ndarray, " m"]
    gradient: Float[np.ndarray, " m"]
    dispersion: Float[np.ndarray, " m"]
    escaped: Int[np.ndarray, " m"]
    good: Bool[np.ndarray, " m"]


class Varied:
    """Passes over `samples` of a store for a model of one positive parameter, with noise as in a run's final passes.

    Attributes:
        seen: Samples simulated with gradient.
    """

    def __init__(
        self, store: ShardStore, settings: Training, loss: Loss, samples: np.ndarray, progress: bool, name: str
    ):
        self._store, self._settings, self._samples = store, settings, samples
        self._progress, self._name = progress, name
        self._size = min(settings.batch_size, len(samples))
        self.seen = 0

        @eqx.filter_jit
        def step(own: Float[Array, " B"], batch: Batch, epoch: Array) -> SampleGradients:
            def losses(shift: Array) -> tuple:
                # one parameter, added to every sample's own: its gradient is every sample's
                return loss((shift[..., 0] + own)[:, None], batch, epoch)

            return gradient(losses, "forward", jnp.zeros(1, own.dtype), batch.weight)

        self._step = step

    def at(self, which: Int[np.ndarray, " m"], log_values: Float[np.ndarray, " m"]) -> Found:
        """One pass over the samples at the positions `which`, each at its own of `log_values`."""
        dtype, epoch = np.dtype(self._settings.precision), jnp.asarray(self._settings.epochs, jnp.uint32)
        parts, taken = [], 0

        def step(batch: Batch) -> SampleGradients:
            own = log_values[taken : taken + self._size]
            padded = jnp.asarray(np.pad(own, (0, self._size - len(own)), mode="edge"), dtype)
            return self._step(padded, batch, epoch)

        with tqdm(total=len(which), unit="sample", desc=self._name, disable=not self._progress, leave=False) as bar:
            reading = self._settings.data
            for numbers, sums in stepped(self._store, self._samples[which], self._size, dtype, step, reading):
                n, good = len(numbers), np.asarray(sums.good)
                values = (sums.loss, sums.gradient[:, 0], sums.dispersion)
                real = [np.where(good, np.asarray(v, np.float64), np.nan)[:n] for v in values]
                parts.append((*real, np.asarray(sums.counts["escaped"])[:n], good[:n]))
                taken += n
                bar.update(n)
        self.seen += len(which)
        return Found(*(np.concatenate(values) for values in zip(*parts, strict=True)))
