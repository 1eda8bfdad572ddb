"""Places spread evenly over a sequence, its ends among them."""

import numpy as np


def evenly(n: int, most: int) -> np.ndarray:
    """At most `most` of the `n` places from 0, ascending, int64 `(min(n, most),)`."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)
