"""Raw samples copied and checked in one pass, by C++ (`copying.cpp`).

Python's copy and the checksum of it are two passes, which take longer (docs/results.md). What is copied and what is
refused is the same.
"""

import ctypes
from pathlib import Path

import numpy as np

from shared import compiler
from shared.compiler import Library

LIBRARY = Library(
    source=Path(__file__).with_name("copying.cpp"),
    wanted="copying samples in one pass",
    instead="set data.copying to plain",
)


class Copier:
    """Copies many samples at once, and lets other threads of Python run meanwhile.

    Raises:
        ConfigError: there is no C++ compiler, or it failed, as it does for a processor without an instruction for
            crc32c.
    """

    def __init__(self) -> None:
        self._entry = compiler.load(LIBRARY).driftcal_copy
        self._entry.argtypes = [ctypes.c_size_t, ctypes.c_size_t, *[ctypes.c_void_p] * 4]
        self._entry.restype = None

    def __call__(self, addresses: np.ndarray, checksums: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Copies the samples at `addresses` into `rows`.

        Args:
            addresses: uintp, `(n,)`, of memory that the caller holds; at each there are as many bytes as a row has. 0
                stands for a sample that cannot be had.
            checksums: uint32, `(n,)`: the crc32c that each must have.
            rows: uint8, `(n, bytes a sample)`, C-contiguous.

        Returns:
            Which of them are there and have their checksum, bool `(n,)`; the rows of others are of no use.
        """
        n, size = rows.shape
        due = ((addresses, np.uintp, (n,)), (checksums, np.uint32, (n,)), (rows, np.uint8, (n, size)))
        for array, dtype, shape in due:
            if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
                raise TypeError(f"{array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}, C-contiguous")
        if not rows.flags.writeable:
            raise TypeError("rows that cannot be written to, expected writable ones")
        whole = np.empty(n, bool)
        self._entry(n, size, addresses.ctypes.data, checksums.ctypes.data, rows.ctypes.data, whole.ctypes.data)
        return whole
