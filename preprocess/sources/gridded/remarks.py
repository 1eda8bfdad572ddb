"""Remarks on levels of currents: oddities noticed in any process when the levels were decoded.

A level is decoded when its windows are cut, long after the record was opened. So every shard's mark lists the
oddities of the levels that it needed, and the notes of the store merge them.
"""

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int16

from driftcal.shared.store.schema import FILL
from driftcal.shared.text import stamp

SHOWN = 8
"""Dates that a note names."""

_SPARSE = (17, 13)
"""Stride of the rows and columns of a level that are compared first: other levels differ there already."""

_LATEST = 253_402_300_799
"""The end of the year 9999 [s since 1970-01-01]."""


class Blank(NamedTuple):
    """Cells of one level where exact zeros were taken for missing currents."""

    cells: int = 0
    """All of them."""
    halves: int = 0
    """Cells where one component is not 0: the sea moves there, so they are never land."""

    @property
    def still(self) -> int:
        """Number of those where both components are 0."""
        return self.cells - self.halves


class Remarks:
    """Oddities of the levels of a record that one process has decoded; threads share it."""

    def __init__(self) -> None:
        self._blank: dict[tuple[str, int], Blank] = {}
        self._repeated: set[int] = set()
        self._lock = threading.Lock()

    def blanks(self, path: str, index: int, blank: Blank) -> None:
        """Notes that level `index` of a file has no current in the cells `blank`, which are exactly zero."""
        with self._lock:
            self._blank[path, index] = blank

    def blank(self, path: str, index: int) -> Blank:
        """Cells of level `index` of a file where exact zeros were taken away."""
        return self._blank.get((path, index), Blank())

    def repeats(self, time: int) -> None:
        """The level of `time` [s since 1970-01-01] is the one before once more."""
        with self._lock:
            self._repeated.add(time)

    def repeated(self, time: int) -> bool:
        """Tells whether the level of `time` is known to repeat the one before."""
        return time in self._repeated

    def __reduce__(self) -> tuple[type["Remarks"], tuple[()]]:
        """Another process makes its own."""
        return Remarks, ()


@dataclass(frozen=True)
class Odd:
    """Oddities of some levels of one record.

    Attributes:
        blank: Number of cells without a current because they are exactly zero, by time [s since 1970-01-01] of the
            level; cells that are zero on every level, such as land, do not count.
        repeated: Times of levels that repeat the one before, ascending.
    """

    blank: Mapping[int, int]
    repeated: tuple[int, ...]

    @classmethod
    def joined(cls, parts: Iterable["Odd"]) -> "Odd":
        """Sum of `parts`."""
        every = list(parts)
        blank = {time: cells for part in every for time, cells in part.blank.items()}
        return cls(dict(sorted(blank.items())), tuple(sorted({time for part in every for time in part.repeated})))

    def notes(self, where: str, levels: int, pairs: int) -> list[str]:
        """Notes on them.

        Args:
            where: The record, for the text.
            levels: Number of levels looked at.
            pairs: Number of those that follow another one of them without a gap.
        """
        texts = []
        if self.blank:
            texts.append(
                f"WARNING: {where}: {len(self.blank)} of {levels} levels hold exact zeros over the sea, in "
                f"{_range(self.blank.values())} cells ({_dates(list(self.blank))}): a chunk or a download that is "
                "missing, ice or dry ground. They are taken as missing currents, and no window uses them. Fetch these "
                "dates again if the source has them"
            )
        if 0 < len(self.repeated) < pairs:
            texts.append(
                f"WARNING: {where}: {len(self.repeated)} of {levels} levels repeat the level before them exactly "
                f"({_dates(self.repeated)}): a gap that was filled, or one file under two dates. They are used as they "
                "are. Fetch these dates again, or leave them out of the record"
            )
        return texts


def longest(where: str) -> list[str]:
    """Notes as long as those of `where` can be."""
    times = [-_LATEST + k for k in range(10**2)]
    return Odd(dict.fromkeys(times, 10**9), tuple(times)).notes(where, 10**7, 10**7)


def pairs(levels: Int[np.ndarray, " n"]) -> int:
    """Number of levels, ascending, that follow another one without a gap."""
    return int((np.diff(levels) == 1).sum())


def is_repeat(level: Int16[np.ndarray, "2 lat lon"], before: Int16[np.ndarray, "2 lat lon"]) -> bool:
    """Tells whether a decoded level equals the one before exactly, and has any current."""
    sparse = np.s_[:, :: _SPARSE[0], :: _SPARSE[1]]
    return (
        np.array_equal(level[sparse], before[sparse]) and np.array_equal(level, before) and bool((level != FILL).any())
    )


def _range(cells: Collection[int]) -> str:
    few, many = min(cells), max(cells)
    return f"{few}" if few == many else f"{few} to {many}"


def _dates(times: list[int] | tuple[int, ...]) -> str:
    named = ", ".join(stamp(time) for time in times[:SHOWN])
    return named if len(times) <= SHOWN else f"{named}, ... {stamp(times[-1])}"
