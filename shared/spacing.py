"""Places spread evenly over a sequence, its ends among them."""

import numpy as np
from jaxtyping import Int64


def evenly(n: int, most: int) -> Int64[np.ndarray, " some"]:
    """At most `most` of the `n` places from 0, ascending, int64 `(min(n, most),)`."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)
