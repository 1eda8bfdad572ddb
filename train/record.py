"""What a run counts and writes down while it goes: `metrics.jsonl`, one line a step.

A line says at which parameters a batch's mean loss and gradient were taken. A sample without finite loss and gradient
is left out, counted and named; too many of them end the run.
"""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from shared.errors import ConfigError, DataError
from shared.shards import ShardStore
from train.data import Batch
from train.folder import METRICS
from train.model import Model
from train.step import Step, Sums

MOST_POISONED = 0.01
"""A run stops when more than this share of its samples gives no finite loss and gradient."""


class Mean(NamedTuple):
    """Means over the good samples of a batch; NaN where there is none."""

    loss: float
    gradient: Float[np.ndarray, " P"]
    dispersion: float


class Taken(NamedTuple):
    """One batch's sums, on the host."""

    sums: Sums

    def mean(self) -> Mean:
        """Means over the good samples, in float64."""
        good = np.asarray(self.sums.good)
        loss, gradient, dispersion = (np.asarray(v, np.float64)[good] for v in self.sums[:3])
        if not good.any():
            return Mean(math.nan, np.full(gradient.shape[1], math.nan), math.nan)
        return Mean(float(loss.mean()), gradient.mean(axis=0), float(dispersion.mean()))

    def each(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss `(n,)`, gradient `(n, P)` and dispersion `(n,)` of the first `n` samples; NaN where not good."""
        good = np.asarray(self.sums.good)[:n]
        loss, gradient, dispersion = (np.asarray(v, np.float64)[:n] for v in self.sums[:3])
        return (
            np.where(good, loss, np.nan),
            np.where(good[:, None], gradient, np.nan),
            np.where(good, dispersion, np.nan),
        )


class Record:
    """Counts of a run.

    Attributes:
        step: batches taken.
        seen: samples simulated with gradient.
        phase_escaped: members that left their window in the current phase.
        phase_ashore: members that ended in a cell without current in the current phase.
        poisoned: numbers of the samples left out.
    """

    def __init__(self, out: Path, store: ShardStore, model: Model, progress: bool):
        self.step, self.seen, self.phase_escaped, self.phase_ashore = 0, 0, 0, 0
        self.poisoned: set[int] = set()
        self._distinct: set[int] = set()
        self._seconds: list[tuple[int, float]] = []
        self._out, self._store, self._model, self._progress = out, store, model, progress
        self._phase, self._epoch, self._began, self._bar = "", 0, 0.0, tqdm(disable=True)

    def __enter__(self) -> Self:
        try:
            self._file = (self._out / METRICS).open("w", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {self._out / METRICS}: {error.strerror}. Choose another --out.") from error
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    @contextlib.contextmanager
    def phase(self, name: str, epoch: int, samples: int) -> Iterator[None]:
        """Names what the steps inside belong to, and shows their progress."""
        self._phase, self._epoch, self.phase_escaped, self.phase_ashore = name, epoch, 0, 0
        self._began = time.perf_counter()
        with tqdm(total=samples, unit="sample", desc=name, disable=not self._progress, leave=False) as self._bar:
            yield

    def take(self, numbers: np.ndarray, step: Step, parameters: jax.Array, batch: Batch) -> Taken:
        """Steps one batch at `parameters` and writes its line; `numbers` are its samples'."""
        taken = Taken(jax.device_get(step(parameters, batch, self._epoch)))
        now = time.perf_counter()
        seconds, self._began = now - self._began, now  # from batch to batch: waiting for data counts
        self._seconds.append((len(numbers), seconds))
        bad = numbers[np.asarray(taken.sums.poisoned)[: len(numbers)]]
        escaped = int(np.sum(taken.sums.escaped))
        self.step += 1
        self.seen += len(numbers)
        self.phase_escaped += escaped
        self.phase_ashore += int(np.sum(taken.sums.ashore))
        self._distinct |= set(numbers.tolist())
        self.poisoned |= set(bad.tolist())
        mean = taken.mean()
        values = self._model.values(np.asarray(parameters))
        line = {
            "step": self.step,
            "epoch": self._epoch,
            "phase": self._phase,
            "loss": None if math.isnan(mean.loss) else mean.loss,
            **self._where(values, mean.gradient),
            "samples_per_second": len(numbers) / seconds,
            "escaped_members": escaped,
            "dropped_samples": bad.tolist(),
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._stop_if_poisoned()
        if self._model.few:
            shown = {name: f"{value:.4g}" for name, value in zip(self._model.names, values, strict=True)}
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(len(numbers))
        return taken

    def _where(self, values: np.ndarray, gradient: np.ndarray) -> dict[str, Any]:
        """Parameters and gradient of a line: numbers for C_s, by name for a few, the gradient's length for many."""
        known = bool(np.isfinite(gradient).all())
        if self._model.template is None:
            return {"cs": float(values[0]), "gradient": float(gradient[0]) if known else None}
        if not self._model.few:
            return {"cs": None, "gradient_norm": float(np.linalg.norm(gradient)) if known else None}
        named = [dict(zip(self._model.names, v.tolist(), strict=True)) for v in (values, gradient)]
        return {"cs": None, "parameters": named[0], "gradient": named[1] if known else None}

    @property
    def samples_per_second(self) -> float:
        """Samples with gradient a second, reading included, without the first step, which compiles."""
        rest = self._seconds[1:] or self._seconds
        return sum(n for n, _ in rest) / sum(s for _, s in rest)

    def _stop_if_poisoned(self) -> None:
        # a single one never stops a run, however small its store
        if len(self.poisoned) > max(1.0, MOST_POISONED * max(len(self._distinct), 100)) or (
            self.poisoned and self.poisoned == self._distinct
        ):
            named = ", ".join(str(k) for k in sorted(self.poisoned)[:10])
            raise DataError(
                f"{len(self.poisoned)} of {len(self._distinct)} samples give no finite loss and gradient (samples "
                f"{named}{', ...' if len(self.poisoned) > 10 else ''} of {self._store.root}). Look at one with "
                f"`drift-inspect sample {self._store.root} {min(self.poisoned)}`."
            )
