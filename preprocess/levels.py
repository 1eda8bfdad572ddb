"""Levels of currents that several shards of one process need: decoded once, and kept until the last has had them.

The windows of neighbouring shards overlap by their length in time. Shards are made in order, so few levels wait at a
time; more than `CAP` never do.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

Key = tuple[str, int]
"""A level: its file, and its place there."""

CAP = 512 * 2**20
"""Bytes of levels that are kept at most; what does not fit is decoded again."""


class Levels:
    """The levels that are wanted more than once; threads share it."""

    def __init__(self, wanted: Iterable[Key]):
        """`wanted` has every level as often as it will be read."""
        self._left = {key: n for key, n in Counter(wanted).items() if n > 1}
        self._held: dict[Key, np.ndarray] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, keys: Sequence[Key], load: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The levels `keys`, int16 `(n, 2, lat, lon)`; `load` decodes those at some of their positions."""
        shared = np.array([key in self._left for key in keys], bool)
        if not shared.any():
            return load(np.arange(len(keys)))
        alone = np.flatnonzero(~shared)
        parts = [(alone, load(alone))] if alone.size else []
        with self._lock:  # so that of two threads one decodes
            together = np.flatnonzero(shared).tolist()
            missing = np.array([k for k in together if keys[k] not in self._held], np.int64)
            if missing.size:
                fresh = load(missing)
                parts.append((missing, fresh))
                for k, level in zip(missing.tolist(), fresh, strict=True):
                    if self._bytes + level.nbytes <= CAP:
                        self._held[keys[k]] = level.copy()  # not a view, which would keep its neighbours too
                        self._bytes += level.nbytes
            there = np.setdiff1d(together, missing)
            if there.size:
                parts.append((there, np.stack([self._held[keys[k]] for k in there.tolist()])))
            for k in together:
                self._count_down(keys[k])
        out = np.empty((len(keys), *parts[0][1].shape[1:]), np.int16)
        for places, values in parts:
            out[places] = values
        return out

    def _count_down(self, key: Key) -> None:
        self._left[key] = self._left.get(key, 1) - 1
        if self._left[key] <= 0:
            del self._left[key]
            gone = self._held.pop(key, None)
            self._bytes -= 0 if gone is None else gone.nbytes
