"""A cache of decoded levels of currents in one process, released after their last use.

Planning reads levels that the windows need later, windows of neighbouring shards overlap by their length in time, and
a chunk of the source may contain more levels than a read asks for. Shards are made in order, so few levels wait at a
time, and never more than `CAP` bytes: levels that do not fit are decoded again.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int16

Key = tuple[int, str, int]
"""A level: the number of its source in the manifest, its file, and its place there."""

CAP = 768 * 2**20
"""Largest size of the cache [bytes]."""

PLANNED = 512 * 2**20
"""Bytes of those that planning may leave: all that it looks at of a globe at an eighth of a degree."""


@runtime_checkable
class Source(Protocol):
    """A source of decoded levels."""

    @property
    def chunk_levels(self) -> int:
        """Levels of a file that are decoded together."""
        ...

    @property
    def level_bytes(self) -> int:
        """Size of one decoded level."""
        ...

    def load(self, keys: list[Key]) -> list[Int16[np.ndarray, "2 lat lon"]]:
        """Decodes the levels `keys`, each int16 `(2, lat, lon)`."""
        ...


class Levels:
    """The levels of one process; threads share it.

    Until `expect` says who will read what, every level that is read is kept, as long as there is room.

    Attributes:
        decoded: Levels that `read` has decoded so far.
        seconds: Time that this has taken, all threads together.
    """

    def __init__(self) -> None:
        self.decoded, self.seconds = 0, 0.0
        self._left: Counter[Key] | None = None
        self._held: dict[Key, np.ndarray] = {}
        self._coming: dict[Key, Future[dict[Key, np.ndarray]]] = {}
        self._bytes, self._promised = 0, 0  # of what is held, and of what is decoded to be held
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Present size of the cache [bytes]."""
        return self._bytes

    def expect(self, wanted: Iterable[Key]) -> None:
        """Keeps levels for `wanted` alone from now on, which lists each as often as it will be read."""
        with self._lock:
            self._left = Counter(wanted)
            for key in [key for key in self._held if key not in self._left]:
                self._drop(key)

    def read(self, keys: Sequence[Key], source: Source) -> list[Int16[np.ndarray, "2 lat lon"]]:
        """The levels `keys` of `source`, each int16 `(2, lat, lon)`, read-only.

        Of two threads that want a level one decodes it and the other waits.

        Raises:
            DataError: they cannot be decoded; a thread that waits for them is told the same.
        """
        with self._lock:
            ready = {key: self._held[key] for key in keys if key in self._held}
            others = {key: self._coming[key] for key in keys if key in self._coming}
            missing = [key for key in keys if key not in ready and key not in others]
            beside = self._beside(missing, source)
            self._promised += len(beside) * source.level_bytes
            done: Future[dict[Key, np.ndarray]] = Future()
            self._coming |= dict.fromkeys(missing + beside, done)
        if missing:
            ready |= self._decode(missing, beside, source, done)
        for key in list(others):  # let go one by one: each holds all that its thread has decoded
            ready[key] = others.pop(key).result()[key]
        with self._lock:
            for key in keys:
                self._count_down(key)
        return [ready[key] for key in keys]

    def put(self, key: Key, level: Int16[np.ndarray, "2 lat lon"]) -> None:
        """Keeps a level that was decoded elsewhere, if there is room."""
        level.flags.writeable = False
        with self._lock:
            self._keep(key, level)

    def _beside(self, keys: list[Key], source: Source) -> list[Key]:
        """Levels that are decoded with `keys` anyway, and wanted later; as many as there is room for."""
        if source.chunk_levels == 1 or self._left is None:
            return []
        size = source.chunk_levels
        chunks = dict.fromkeys((number, path, level // size) for number, path, level in keys)
        every = ((number, path, chunk * size + k) for number, path, chunk in chunks for k in range(size))
        taken = set(keys)
        room = max(0, CAP - self._bytes - self._promised) // source.level_bytes
        keys_left = (key for key in every if key in self._left and key not in taken)
        return [key for key in keys_left if key not in self._held and key not in self._coming][:room]

    def _decode(
        self, asked: list[Key], beside: list[Key], source: Source, done: Future
    ) -> dict[Key, Int16[np.ndarray, "2 lat lon"]]:
        began, keys = time.perf_counter(), asked + beside
        try:
            loaded = dict(zip(keys, source.load(keys), strict=True))
        except BaseException as error:
            with self._lock:
                self._promised -= len(beside) * source.level_bytes
                for key in keys:
                    del self._coming[key]
            done.set_exception(error)
            raise
        with self._lock:
            self.decoded += len(keys)
            self._promised -= len(beside) * source.level_bytes
            self.seconds += time.perf_counter() - began
            for key in keys:
                loaded[key].flags.writeable = False
                del self._coming[key]
            for key in asked:
                self._keep(key, loaded[key], after=1)
            for key in beside:
                self._keep(key, loaded[key])
        done.set_result(loaded)
        return loaded

    def _keep(self, key: Key, level: Int16[np.ndarray, "2 lat lon"], after: int = 0) -> None:
        """Keeps a level that will be read once more `after` so many reads that have not been counted yet."""
        cap = PLANNED if self._left is None else CAP
        wanted = self._left is None or self._left[key] > after
        if wanted and key not in self._held and self._bytes + level.nbytes <= cap:
            self._held[key] = level
            self._bytes += level.nbytes

    def _count_down(self, key: Key) -> None:
        if self._left is not None and key in self._left:
            self._left[key] -= 1
            if self._left[key] <= 0:
                del self._left[key]
                self._drop(key)

    def _drop(self, key: Key) -> None:
        gone = self._held.pop(key, None)
        self._bytes -= 0 if gone is None else gone.nbytes
