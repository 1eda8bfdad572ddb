"""Passes over samples that each have a constant of their own: the groups' fit, and the score against the constant."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit.parameters import Model
from driftcal.train.fit.sample_gradients import TRAINED, WEIGHTS, Sums, gradient, plan_of
from driftcal.train.learners.drift.noise import noise_for
from driftcal.train.learners.drift.smagorinsky import FORMULA, Smagorinsky
from driftcal.train.reading.batches import Batch, Grid, batches
from driftcal.train.settings import Training
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm


class Found(NamedTuple):
    """The result of a pass for every sample; NaN where loss or gradient is not finite.

    Attributes:
        loss: the objective.
        gradient: its derivative in log C_s.
        dispersion: size of the objective's second term.
        escaped: members that left their window.
        good: True if all are finite.
    """

    loss: Float[np.ndarray, " m"]
    gradient: Float[np.ndarray, " m"]
    dispersion: Float[np.ndarray, " m"]
    escaped: Int[np.ndarray, " m"]
    good: Bool[np.ndarray, " m"]


class Varied:
    """Passes over `samples` of a store; the noise is always that of the run's final passes.

    Attributes:
        seen: samples simulated with gradient.
    """

    def __init__(self, store: ShardStore, settings: Training, samples: np.ndarray, progress: bool, name: str):
        self._store, self._settings, self._samples = store, settings, samples
        self._progress, self._name = progress, name
        plan, members = plan_of(settings, Grid.of(store.layout)), settings.ensemble.members
        self._size = min(settings.batch_size, len(samples))
        self.seen = 0

        @eqx.filter_jit
        def step(log_cs: Float[Array, " B"], batch: Batch, epoch: Array) -> Sums:
            dtype = batch.latitude.dtype
            streams = [
                noise_for(settings.seed, epoch, batch.sample, n, stream, dtype)
                for n, stream in ((members, TRAINED), (settings.score.reference_members, WEIGHTS))
            ]
            # one parameter, added to every sample's own constant: its gradient is every sample's
            model = Model(("cs",), np.array([True]), np.zeros(1), lambda v: Smagorinsky(v[..., 0] + log_cs), FORMULA)
            return gradient(model, jnp.zeros(1, dtype), batch, plan, settings, streams[0], streams[1])

        self._step = step

    def at(self, which: Int[np.ndarray, " m"], log_cs: Float[np.ndarray, " m"]) -> Found:
        """One pass over the samples at the positions `which`, each at its own of `log_cs`."""
        dtype, epoch, parts = np.dtype(self._settings.precision), jnp.asarray(self._settings.epochs, jnp.uint32), []
        with tqdm(total=len(which), unit="sample", desc=self._name, disable=not self._progress, leave=False) as bar:
            for k, (part, batch) in enumerate(
                batches(self._store, self._samples[which], self._size, dtype, self._settings.data)
            ):
                own = log_cs[k * self._size : k * self._size + len(part)]
                padded = jnp.asarray(np.pad(own, (0, self._size - len(part)), mode="edge"), dtype)
                sums: Sums = jax.device_get(self._step(padded, batch, epoch))
                good = np.asarray(sums.good)
                values = (sums.loss, sums.gradient[:, 0], sums.dispersion)
                real = [np.where(good, np.asarray(v, np.float64), np.nan)[: len(part)] for v in values]
                parts.append((*real, np.asarray(sums.escaped)[: len(part)], good[: len(part)]))
                bar.update(len(part))
        self.seen += len(which)
        return Found(*(np.concatenate(values) for values in zip(*parts, strict=True)))
