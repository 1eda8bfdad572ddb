"""Windows with gaps: a count of those that certainly cannot be used, before any is cut.

`windows.judge` refuses a window with a cell that has a current at some time of the record and none on one of the
window's levels. Planning has read some levels of the record to find the land, so the gaps on those levels are known,
and the windows that contain one are counted here without being cut. Gaps on other levels may make more unusable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from driftcal.preprocess.drift.advice import OF_SAMPLES
from driftcal.preprocess.drift.funnel import explain
from driftcal.preprocess.drift.plan import Plan
from driftcal.preprocess.sources.gridded.currents import Currents, land_levels
from driftcal.shared.errors import DataError
from driftcal.shared.store.schema import FILL, OVER, STATUS

MANY = 0.1
"""Share of the samples that may surely be unusable before it is warned of."""


@dataclass(frozen=True)
class Gaps:
    """Numbers of the samples' windows: all of them, and those known to be unusable, by reason."""

    samples: int
    unusable: dict[str, int]
    levels: int

    def warnings(self) -> list[str]:
        """Reasons that many samples are lost to."""
        return [
            f"WARNING: at least {n} of {self.samples} windows cannot be used, {reason!r}, as {self.levels} levels of "
            f"the record tell; others may spoil more. {OF_SAMPLES[reason]}"
            for reason, n in self.unusable.items()
            if n > MANY * self.samples
        ]


def known(plan: Plan, currents: Sequence[Currents]) -> Gaps:
    """Counts the windows of `plan` that are unusable by the levels that planning has read.

    Raises:
        DataError: none of them can be used, or a level cannot be read again.
    """
    status = np.zeros(len(plan.current), np.int8)
    levels = 0
    for number, source in enumerate(currents):
        of_source = np.flatnonzero(plan.current == number)
        if not len(of_source) or source.frozen:  # the one level of a frozen record tells its land, so nothing else
            continue
        for index, level in source.each(land_levels(source.time)):
            first = plan.placement.level[of_source]
            inside = of_source[(first <= index) & (index < first + plan.shape.n_times)]
            if not len(inside):
                continue
            levels += 1
            for code, cells in ((1, (level[0] == FILL) & ~source.land()), (2, (level == OVER).any(axis=0))):
                affected = inside[_hold(cells, plan, inside, source)]
                status[affected] = np.maximum(status[affected], code)
    counts = np.bincount(status, minlength=len(STATUS)).tolist()
    unusable = {STATUS[code]: n for code, n in enumerate(counts) if code and n}
    if not counts[0]:
        reasons = " ".join(f"{n} of {len(status)} windows, {why!r}: {OF_SAMPLES[why]}" for why, n in unusable.items())
        odd = "".join(f" {note}." for source in currents for note in source.notes_on(land_levels(source.time)))
        raise DataError(f"no window can be used. {explain(plan.funnel)} {reasons}{odd}")
    return Gaps(len(status), unusable, levels)


def _hold(
    cells: Bool[np.ndarray, "lat lon"], plan: Plan, samples: Int[np.ndarray, " n"], source: Currents
) -> Bool[np.ndarray, " n"]:
    """Tells whether the window of each of `samples` has one of the `cells`, `(lat, lon)`; bool."""
    if not cells.any():
        return np.zeros(len(samples), bool)
    row, column, width = plan.placement.row[samples], plan.placement.column[samples], source.lon.size
    if source.periodic:
        cells, column = np.concatenate([cells, cells[:, : plan.shape.n_lon]], axis=1), column % width
    # sums over all cells south and west: four of them count those of a window
    total = np.zeros((cells.shape[0] + 1, cells.shape[1] + 1), np.int32)
    np.cumsum(np.cumsum(cells, axis=0, dtype=np.int32), axis=1, out=total[1:, 1:])
    north, east = row + plan.shape.n_lat, column + plan.shape.n_lon
    return total[north, east] - total[row, east] - total[north, column] + total[row, column] > 0
