"""The log of a run, `metrics.jsonl`, with one line a step, and the counts of its samples.

A line says at which parameters a batch's mean loss and gradient were taken. A sample without finite loss and gradient
is left out, counted and named; too many of them end the run.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
from awscrt import checksums
from jaxtyping import Float
from tqdm import tqdm

from driftcal.shared.errors import ConfigError, DataError, StoreError
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.text import listed
from driftcal.train.fit.parameters import Parameters
from driftcal.train.fit.sample_gradients import SampleGradients
from driftcal.train.run.run_folder import METRICS
from driftcal.train.run.tensorboard import Board

MOST_POISONED = 0.01
"""A run stops when more than this share of its samples gives no finite loss and gradient."""


class Mean(NamedTuple):
    """Means over the good samples of a batch; NaN if there are none."""

    loss: float
    gradient: Float[np.ndarray, " P"]
    dispersion: float


def mean_of(gradients: SampleGradients) -> Mean:
    """Means over the good samples of a batch, in float64."""
    good = np.asarray(gradients.good)
    loss, gradient, dispersion = (np.asarray(v, np.float64)[good] for v in gradients[:3])
    if not good.any():
        return Mean(math.nan, np.full(gradient.shape[1], math.nan), math.nan)
    return Mean(float(loss.mean()), gradient.mean(axis=0), float(dispersion.mean()))


@dataclass
class Counts:
    """Counts of a run so far, with the lines of `metrics.jsonl` that they cover.

    Attributes:
        poisoned: numbers of the samples left out.
        distinct: which samples of the store have been simulated, `(n,)`.
        step: batches taken.
        seen: samples simulated with gradient.
        size: of `metrics.jsonl` [bytes].
        crc: its crc32c.
        timed: samples whose time was taken: without the first step since the run began or went on, which compiles.
        seconds: the time they took.
    """

    distinct: np.ndarray
    poisoned: set[int] = field(default_factory=set)
    step: int = 0
    seen: int = 0
    size: int = 0
    crc: int = 0
    timed: int = 0
    seconds: float = 0.0


class MetricsLog:
    """Writes the lines of a run, and counts."""

    def __init__(
        self,
        out: Path,
        store: ShardStore,
        parameters: Parameters,
        progress: bool,
        counts: Counts | None = None,
        writes: bool = True,
        board: Board | None = None,
    ):
        """Opens the log; with `counts` it continues from there, and lines beyond are cut off. One process `writes`."""
        self.counts = counts or Counts(np.zeros(len(store), bool))
        self._first: tuple[int, float] | None = None
        self.store = store
        self._path, self._parameters, self._progress = out / METRICS, parameters, progress and writes
        self._writes, self._board = writes, board
        self._phase, self._epoch, self._began, self._bar = "", 0, 0.0, tqdm(disable=True)

    def __enter__(self) -> "MetricsLog":
        with contextlib.ExitStack() as stack:
            try:
                if not self._writes:
                    self._path = Path(os.devnull)
                    self._file = self._path.open("wb", buffering=0)
                    return self
                # unbuffered: what a full disk has not taken must not be tried again when the file is closed
                self._file = stack.enter_context(self._path.open("a+b", buffering=0))
                self._file.truncate(self.counts.size)
            except OSError as error:
                raise ConfigError(f"cannot write {self._path}: {error.strerror}. Choose another --out.") from error
            stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    @contextlib.contextmanager
    def phase(self, name: str, epoch: int, samples: int, done: int = 0) -> Iterator[None]:
        """Names the phase of the steps inside, and shows their progress: `done` of `samples` so far."""
        self._phase, self._epoch, self._began = name, epoch, time.perf_counter()
        with tqdm(
            total=samples, initial=done, unit="sample", desc=name, disable=not self._progress, leave=False
        ) as self._bar:
            yield

    def write(self, numbers: np.ndarray, parameters: jax.Array, gradients: SampleGradients) -> Mean:
        """Counts a batch of the samples `numbers`, stepped at `parameters`, and writes its line; returns its means."""
        seconds = self._time(len(numbers))
        poisoned, good = (np.asarray(flag)[: len(numbers)] for flag in (gradients.poisoned, gradients.good))
        bad, read = numbers[poisoned], numbers[poisoned | good]
        self.counts.step += 1
        self.counts.seen += len(read)
        self.counts.distinct[read] = True
        self.counts.poisoned |= set(bad.tolist())
        mean = mean_of(gradients)
        values = self._parameters.values(np.asarray(parameters))
        line = {
            "step": self.counts.step,
            "epoch": self._epoch,
            "phase": self._phase,
            "loss": None if math.isnan(mean.loss) else mean.loss,
            **self._where(values, mean.gradient),
            "samples_per_second": len(numbers) / seconds,
            "escaped_members": int(np.sum(gradients.counts["escaped"])),
            "poisoned_samples": bad.tolist(),
        }
        self._append(line)
        if self._board is not None:
            self._board.add(line)
        self._stop_if_poisoned()
        if self._parameters.few:
            shown = {name: f"{value:.4g}" for name, value in zip(self._parameters.names, values, strict=True)}
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(len(numbers))
        return mean

    def sync(self) -> None:
        """Syncs all lines so far to the disk: a checkpoint must not count lines that a power cut could remove."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._cannot_write(error) from error

    def _append(self, line: dict[str, Any]) -> None:
        content = (json.dumps(line) + "\n").encode()
        left = memoryview(content)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise self._cannot_write(error) from error
        self.counts.size += len(content)
        self.counts.crc = checksums.crc32c(content, self.counts.crc)

    def _cannot_write(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write {self._path}: {error.strerror}. Free some room, and run the same command again with "
            f"--resume: it goes on from the last checkpoint."
        )

    def _time(self, samples: int) -> float:
        """Seconds since the batch before: waiting for data counts."""
        now = time.perf_counter()
        seconds, self._began = now - self._began, now
        if self._first is None:
            self._first = samples, seconds
        else:
            self.counts.timed += samples
            self.counts.seconds += seconds
        return seconds

    def _where(self, values: np.ndarray, gradient: np.ndarray) -> dict[str, Any]:
        """Parameters and gradient of a line: numbers for C_s, by name for a few, the gradient's length for many."""
        known = bool(np.isfinite(gradient).all())
        if (headline := self._parameters.headline) is not None:
            return {headline: float(values[0]), "gradient": float(gradient[0]) if known else None}
        if not self._parameters.few:
            return {"cs": None, "gradient_norm": float(np.linalg.norm(gradient)) if known else None}
        named = [dict(zip(self._parameters.names, v.tolist(), strict=True)) for v in (values, gradient)]
        return {"cs": None, "parameters": named[0], "gradient": named[1] if known else None}

    @property
    def samples_per_second(self) -> float | None:
        """Samples with gradient a second, reading included, without the first step, which compiles."""
        if self.counts.timed:
            return self.counts.timed / self.counts.seconds
        return None if self._first is None else self._first[0] / self._first[1]

    def _stop_if_poisoned(self) -> None:
        # a single one never stops a run, however small its store
        poisoned, distinct = self.counts.poisoned, int(self.counts.distinct.sum())
        if len(poisoned) > max(1.0, MOST_POISONED * max(distinct, 100)) or (poisoned and len(poisoned) == distinct):
            named = listed(sorted(poisoned))
            raise DataError(
                f"{len(poisoned)} of {distinct} samples give no finite loss and gradient (samples {named} "
                f"of {self.store.root}). Look at one with `drift-inspect sample {self.store.root} {min(poisoned)}`."
            )


def differs(out: Path, counts: Counts) -> str | None:
    """Defect of the lines of the run in `out` that `counts` cover; None if they are unchanged."""
    try:
        with (out / METRICS).open("rb") as file:
            content = file.read(counts.size)
    except OSError as error:
        return f"{METRICS} cannot be read ({error.strerror}), but {counts.size} bytes of it are needed"
    if len(content) != counts.size or checksums.crc32c(content) != counts.crc:
        return f"the first {counts.size} bytes of {METRICS} are not those that were written before it"
    return None
