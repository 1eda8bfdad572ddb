"""Raw samples copied and checked in one pass, by C++ (`checked_copy.cpp`).

Python's copy and the checksum of it are two passes, which take longer (docs/results.md). What is copied and what is
refused is the same.
"""

import ctypes
import functools
from pathlib import Path

import numpy as np

from driftcal.shared.command import say
from driftcal.shared.errors import ConfigError
from driftcal.shared.native import compiler
from driftcal.shared.native.compiler import Library
from driftcal.shared.store.shard_bytes import crc32c

LIBRARY = Library(
    source=Path(__file__).with_name("checked_copy.cpp"),
    entry="driftcal_copy",
    wanted="copying samples in one pass",
    instead="set data.copying to plain",
)


class Copier:
    """Copies many samples at once, and lets other threads of Python run meanwhile.

    Raises:
        ConfigError: there is no C++ compiler, it failed, as it does for a processor without an instruction for crc32c,
            or what it made gives other checksums than awscrt.
    """

    def __init__(self) -> None:
        self._entry = compiler.load(LIBRARY)
        self._entry.argtypes = [ctypes.c_size_t, ctypes.c_size_t, *[ctypes.c_void_p] * 4]
        self._entry.restype = None
        self._try()

    def __call__(self, addresses: np.ndarray, checksums: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Copies the samples at `addresses` into `rows`.

        Args:
            addresses: uintp, `(n,)`, of memory that the caller holds; at each there are as many bytes as a row has. 0
                stands for a sample that cannot be had.
            checksums: uint32, `(n,)`: the crc32c that each must have.
            rows: uint8, `(n, bytes a sample)`, C-contiguous.

        Returns:
            Which of them are there and have their checksum, bool `(n,)`; the rows of others are of no use.

        Raises:
            TypeError: an array is not what it should be; nothing has been copied.
        """
        n, size = rows.shape
        due = {
            "addresses": (addresses, np.uintp, (n,)),
            "checksums": (checksums, np.uint32, (n,)),
            "rows": (rows, np.uint8, (n, size)),
        }
        for name, (array, dtype, shape) in due.items():
            if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
                expected = f"{np.dtype(dtype)} {shape}, C-contiguous"
                raise TypeError(f"{name}: {array.dtype} {array.shape}, strides {array.strides}; expected {expected}")
        if not rows.flags.writeable:
            raise TypeError("rows: read-only, expected writable")
        whole = np.empty(n, bool)
        self._entry(n, size, addresses.ctypes.data, checksums.ctypes.data, rows.ctypes.data, whole.ctypes.data)
        return whole

    def _try(self) -> None:
        """Refuses a library that does not do what it should: all that is read rests on it."""
        samples = np.arange(2 * 1003, dtype=np.uint16).view(np.uint8).reshape(4, 1003)
        sums = np.array([crc32c(sample) for sample in samples], np.uint32)
        damaged = samples.copy()
        damaged[1, 700] ^= 16
        rows = np.zeros_like(samples)
        addresses = damaged.ctypes.data + 1003 * np.arange(4, dtype=np.uintp)
        addresses[2] = 0
        if self(addresses, sums, rows).tolist() != [True, False, False, True] or (rows != samples)[[0, 3]].any():
            raise ConfigError(
                f"{LIBRARY.wanted} needs {compiler.compiled(LIBRARY)}, which copies or sums wrongly. Delete it and try "
                f"again, name another compiler in CXX, or {LIBRARY.instead}."
            )


@functools.cache
def copier() -> Copier | None:
    """The copier of this process; None where there can be none, which is said once."""
    try:
        return Copier()
    except ConfigError as error:
        say(f"note: samples are copied and checked in two passes, which takes longer: {error}")
        return None
