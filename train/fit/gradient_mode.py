"""The mode in which the trainer takes its gradient, by times and memory that were measured for its own step.

Forward mode takes time that grows with the number of parameters, reverse mode with a checkpoint at every fix the same
for any. Memory, beside what both need: forward mode carries the derivatives of the states and of a step's flow for
every parameter; reverse mode keeps the state at every fix and all of the steps to the next. The constants are those of
`python -m benchmarks.gradient` (docs/cost.md).
"""

import os
from typing import Literal, NamedTuple

import jax

from driftcal.shared.text import counted, size

Mode = Literal["forward", "reverse"]

FORWARD, FORWARD_EACH = 0.50, 0.187
"""CPU ms a trajectory of 20 members in forward mode: for no parameter, and for each one more; only the ratio to
`REVERSE` counts."""

REVERSE = 1.99
"""CPU ms of a trajectory in reverse mode, for any number of parameters."""

FORWARD_NUMBERS = 14
"""Numbers that forward mode stores for every member, sample and parameter."""

REVERSE_NUMBERS = 2.25
"""Numbers that reverse mode keeps for every member, sample and fix: position, and a byte for whether it is inside."""


class Choice(NamedTuple):
    """A mode, and a sentence with the reason."""

    mode: Mode
    reason: str


def memory_of_device() -> int:
    """Memory of the device [bytes]; for a CPU that of the machine."""
    told = jax.local_devices()[0].memory_stats() or {}  # another process does not tell
    return told.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def choose(n_parameters: int, ensemble: int, n_fixes: int, number_bytes: int, memory: int) -> Choice:
    """The faster mode that fits in memory; the smaller one if neither does.

    Args:
        n_parameters: how many are trained.
        ensemble: members times samples of a batch.
        n_fixes: of a segment.
        number_bytes: of a float.
        memory: of the device [bytes].
    """
    times: dict[Mode, float] = {"forward": FORWARD + FORWARD_EACH * n_parameters, "reverse": REVERSE}
    each = ensemble * number_bytes
    needs: dict[Mode, float] = {
        "forward": each * FORWARD_NUMBERS * n_parameters,
        "reverse": each * REVERSE_NUMBERS * n_fixes,
    }
    quick: Mode = "forward" if times["forward"] <= times["reverse"] else "reverse"
    other: Mode = "reverse" if quick == "forward" else "forward"
    what = counted(n_parameters, "parameter")
    ratio = times[other] / times[quick]
    if needs[quick] <= memory or needs[quick] <= needs[other]:
        number = (REVERSE - FORWARD) / FORWARD_EACH
        return Choice(
            quick,
            f"{quick} mode: for {what} it takes 1/{ratio:.1f} of the time of {other} mode (equal at {number:.1f}), and "
            f"{size(needs[quick])} of memory against {size(needs[other])}",
        )
    return Choice(
        other,
        f"{other} mode: {quick} mode would take 1/{ratio:.1f} of the time for {what}, but {size(needs[quick])} of "
        f"memory, and the device has {size(memory)}",
    )
