"""Aligned host buffers, reused only after the last reference to them is gone.

JAX on a CPU takes a numpy array that is aligned to 64 bytes as it is, without a copy, and keeps a reference to it for
as long as the device array lives. So a buffer goes back to the pool when the last reference to its array is gone,
by us, by JAX or by whoever kept a view of it: never earlier, whatever is still running. Buffers are reused at all
because the first touch of fresh memory costs more than decoding a sample, a level or a shard into it.
"""

import contextlib
import mmap
import weakref
from collections import deque

import numpy as np

from driftcal.shared.disk import limits

HUGE = 2**21
"""Buffers of at least so many bytes ask for huge pages, where the system has them: fewer addresses to look up."""

SPARE = 1 / 16
"""Share by which a buffer may be longer than asked for, to fill its last huge page: Linux starts it on one."""


class Slabs:
    """A pool of anonymous maps; page-aligned, which is more than JAX asks for.

    Free buffers of other sizes are given back before new memory is taken.

    Args:
        kept: Free buffers of one size that are kept; more are given back to the system.
    """

    def __init__(self, kept: int = 4) -> None:
        self._kept = kept
        self._free: dict[int, deque[mmap.mmap]] = {}

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array whose content is arbitrary.

        Raises:
            LimitError: the system does not give so much memory.
        """
        size = max(1, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        free = self._free.setdefault(size, deque(maxlen=self._kept))
        try:
            slab = free.pop()
        except IndexError:
            for others in [maps for of, maps in list(self._free.items()) if of != size]:
                others.clear()
            try:
                slab = mmap.mmap(-1, _length(size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            except OSError as error:
                raise limits.refused(f"cannot take {size / 1e6:,.0f} MB of memory", error) from error
            if hasattr(mmap, "MADV_HUGEPAGE") and size >= HUGE:
                with contextlib.suppress(OSError):  # a kernel without them
                    slab.madvise(mmap.MADV_HUGEPAGE)
        # every view of an array rests on the array whose memory is not an array's own: on this one
        owner = np.frombuffer(slab, np.uint8)
        weakref.finalize(owner, free.append, slab).atexit = False
        return owner[: 0 if 0 in shape else size].view(dtype).reshape(shape)


def _length(size: int) -> int:
    """Length of the map for a buffer of `size` bytes."""
    whole = -(-size // HUGE) * HUGE
    return whole if whole - size <= SPARE * size else size
