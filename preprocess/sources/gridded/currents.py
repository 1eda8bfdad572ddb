"""Gridded surface currents, from any product, as packed integers on plain axes.

A source is a NetCDF file, a glob of (daily) files, or a zarr store, local or behind an fsspec URL;
`gridded.open_currents` opens it. `Currents` gives its levels as int16 `(2, lat, lon)` in units of 1e-4 m/s. Both
components are `FILL` where either is missing. Nothing stays open between calls: a `Currents` is plain data that can be
pickled, and threads may share it.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int16, Int64, Num

from driftcal.preprocess.recipe import DAY
from driftcal.preprocess.sources import files
from driftcal.preprocess.sources.contradictions import check_range, sample
from driftcal.preprocess.sources.gridded.axes import Axis, Order
from driftcal.preprocess.sources.gridded.blanks import remove_blanks
from driftcal.preprocess.sources.gridded.current_files import Layout
from driftcal.preprocess.sources.gridded.doubtful_speeds import check_packing
from driftcal.preprocess.sources.gridded.level_cache import Key, Levels
from driftcal.preprocess.sources.gridded.packing import Packing, pack_level
from driftcal.preprocess.sources.gridded.remarks import Blank, Odd, Remarks, is_repeat, pairs
from driftcal.shared.store.buffers import Slabs
from driftcal.shared.store.schema import FILL

BLOCK_BYTES = 24 * 2**20
"""Raw data decoded at once [bytes] when a chunk is smaller; bounds the extra memory of reading.

More would save calls, but glibc gives memory of more than 32 MiB back to the system each time."""

AHEAD_BYTES = 192 * 2**20
"""Levels decoded ahead of a reader that takes them one by one [bytes]."""

MOST_AHEAD = 32
"""Levels decoded ahead at most: to open the files less often buys no speed."""

SLABS = Slabs(MOST_AHEAD)
"""Buffers of levels, each reused once its level is no longer referenced."""

LAND_LEVELS = 24
"""Levels read to find land: spread over the record and the seasons, so that neither sea ice nor a gap is land."""

GOLDEN = 0.6180339887498949
"""Golden ratio less 1: any number of its multiples, modulo 1, fill the circle evenly."""

YEAR = 365.2425 * DAY
"""[s]"""

COMPONENTS = ("u", "v")
"""Roles of the components, in the order of their axis."""


@dataclass(frozen=True, eq=False)
class Currents:
    """One record of surface currents; read it with `each` or `read`."""

    time: Int64[np.ndarray, " nt"]
    """Levels [s since 1970-01-01], int64 `(nt,)`, strictly increasing; levels may be missing."""
    step: int
    """Seconds between neighbouring levels; a day for a record of one level."""
    lat: Axis
    lon: Axis
    """Continuous, so it may pass 180 or 360; starts in [-180, 360)."""
    periodic: bool
    """True if the longitudes go all the way round."""
    notes: tuple[str, ...]
    """Notes on what was resolved, converted and dropped, for the log."""
    fingerprint: dict[str, Any]
    """Content of the source, as JSON: its `fingerprint`, names and grid; the same wherever the same files lie."""
    state: dict[str, Any]
    """Sizes and times of change, as JSON, by which a changed source is recognised."""
    chunk_levels: int
    """Levels in a chunk of the source: reading one of them decodes them all."""
    raw_bytes: int
    """Size of one level of a component as stored."""
    frozen: bool
    """True if the single level stands for all times."""
    layout: Layout = field(repr=False)
    """Layout that all files share."""
    paths: tuple[str, ...] = field(repr=False)
    """Paths of the files."""
    file: Int[np.ndarray, " nt"] = field(repr=False)
    """Index into `paths` of the file of each level, `(nt,)`."""
    level: Int[np.ndarray, " nt"] = field(repr=False)
    """Index of each level in its file, `(nt,)`."""
    number: int = 0
    """Number of the source among those that share decoded levels."""
    _lat_order: Order = field(kw_only=True, repr=False)
    _lon_order: Order = field(kw_only=True, repr=False)
    always_zero: str | None = None
    """The component that is meant to be 0 in the whole record."""
    remarks: Remarks = field(default_factory=Remarks, repr=False)
    """Remarks on levels that were decoded in this process."""
    _memo: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _usual_blank: int = field(default=0, repr=False)
    """Cells of every level that hold exact zeros and no current, of the whole record."""
    _levels: Levels | None = field(default=None, repr=False)
    """Cache of decoded levels that will be wanted again."""
    _wanted: Int[np.ndarray, " wanted"] | None = field(default=None, repr=False)
    """The levels that will be read where this is sent to, each once; None: all."""

    @property
    def level_bytes(self) -> int:
        """Size of one level [bytes]."""
        return 4 * self.lat.size * self.lon.size

    @property
    def where(self) -> str:
        """Name of this record in messages."""
        return f"currents {self.fingerprint['path']}"

    def each(self, wanted: Int[np.ndarray, " levels"]) -> Iterator[tuple[int, Int16[np.ndarray, "2 lat lon"]]]:
        """The levels `wanted` (indices into `time`) one by one, with their index; decoded some `AHEAD_BYTES` ahead.

        Each is int16 `(2, lat, lon)` in units of 1e-4 m/s, read-only. The first axis is (u, v), eastward and northward.

        Raises:
            DataError: a file cannot be read any more, or holds values that cannot be currents.
        """
        ahead = int(np.clip(AHEAD_BYTES // self.level_bytes, 1, MOST_AHEAD))
        before, index = None, -2
        for first in range(0, len(wanted), ahead):
            block = wanted[first : first + ahead].tolist()
            values = self._take(block)[::-1]
            for following in block:
                level = values.pop()
                if before is not None and following == index + 1 and is_repeat(level, before):
                    self.remarks.repeats(int(self.time[following]))
                before, index = level, following
                del level  # whoever takes it may be the last to hold it
                yield index, before

    def read(self, i0: int, i1: int) -> Int16[np.ndarray, "levels 2 lat lon"]:
        """Levels i0 up to but not including i1, int16 `(i1 - i0, 2, lat, lon)`, as `each` gives them.

        Raises:
            DataError: likewise.
        """
        if not 0 <= i0 <= i1 <= self.time.size:
            raise IndexError(f"levels {i0} to {i1} are not inside 0 to {self.time.size}")
        out = np.empty((i1 - i0, 2, self.lat.size, self.lon.size), np.int16)
        for index, values in self.each(np.arange(i0, i1)):
            out[index - i0] = values
        return out

    def keys(self, wanted: Sequence[int] | Int[np.ndarray, " levels"]) -> list[Key]:
        """Keys, in the cache, of the levels `wanted` (indices into `time`)."""
        places = zip(self.file[wanted].tolist(), self.level[wanted].tolist(), strict=True)
        return [(self.number, self.paths[file], level) for file, level in places]

    def land(self) -> Bool[np.ndarray, "lat lon"]:
        """Mask of cells that never have a current, bool `(lat, lon)`.

        True where both components are missing or exactly 0 on every one of up to 24 levels spread over the record and
        over the seasons.
        """
        if "land" not in self._memo:
            seen = np.zeros((self.lat.size, self.lon.size), np.int16)
            looked_at = land_levels(self.time)
            for _, level in self.each(looked_at):
                for component in level:
                    np.bitwise_or(seen, component, out=seen)
            land = (seen & ~np.int16(FILL)) == 0  # FILL is the sign's bit alone
            land.flags.writeable = False
            self._memo["land"] = land
            self._memo["blank"] = np.array([self._blank(index).still for index in looked_at.tolist()]).min()
        return self._memo["land"]

    def odd(self, wanted: Int[np.ndarray, " levels"]) -> Odd:
        """Oddities of the levels `wanted` (indices into `time`), all of which were decoded in this process."""
        usual = int(self._memo.get("blank", self._usual_blank))
        # where land is given as zeros, its islands are patches on some levels and not on others
        blank = {k: b.cells - usual for k in wanted.tolist() if (b := self._blank(k)).halves or b.cells > usual * 1.01}
        times = {k: int(self.time[k]) for k in wanted.tolist()}
        # a level is compared with the one before it only where both are read: others may have been, in this process
        followed = [time for k, time in times.items() if k - 1 in times]
        return Odd(
            {times[k]: cells for k, cells in blank.items()},
            tuple(time for time in followed if self.remarks.repeated(time)),
        )

    def notes_on(self, wanted: Int[np.ndarray, " levels"]) -> list[str]:
        """Notes on oddities of the levels `wanted`, all of which were decoded in this process."""
        return self.odd(wanted).notes(self.where, len(wanted), pairs(wanted))

    def _blank(self, index: int) -> Blank:
        return self.remarks.blank(self.paths[self.file[index]], int(self.level[index]))

    def part(self, wanted: Int[np.ndarray, " levels"]) -> "Currents":
        """Part from the first to the last of the levels `wanted`, with their files alone: a small pickle for a worker.

        The worker reads each of `wanted` once and no other level. Values of the whole record (`land`,
        `fingerprint`, `state`, `notes`) are not those of its part.
        """
        start, stop = int(wanted[0]), int(wanted[-1]) + 1
        used, file = np.unique(self.file[start:stop], return_inverse=True)
        return replace(
            self,
            time=self.time[start:stop],
            notes=(),
            fingerprint={},
            state={},
            paths=tuple(self.paths[k] for k in used),
            file=file,
            level=self.level[start:stop],
            _memo={},
            _usual_blank=int(self._memo.get("blank", self._usual_blank)),
            _wanted=wanted - start,
        )

    def __getstate__(self) -> dict[str, Any]:
        """State to pickle: without the land mask, as large as a level and computed anew, and without the cache."""
        return {**self.__dict__, "_memo": {}, "_levels": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the state with a cache of its own, for levels that share a chunk with those asked for."""
        self.__dict__.update(state)
        levels = Levels()
        levels.expect(self.keys(np.arange(self.time.size) if self._wanted is None else self._wanted))
        self.__dict__["_levels"] = levels

    def _take(self, wanted: list[int]) -> list[Int16[np.ndarray, "2 lat lon"]]:
        keys = self.keys(wanted)
        return self.load(keys) if self._levels is None else self._levels.read(keys, self)

    def load(self, keys: list[Key]) -> list[Int16[np.ndarray, "2 lat lon"]]:
        """Decodes the levels `keys`, each int16 `(2, lat, lon)`, whether or not they are kept somewhere."""
        levels: dict[Key, np.ndarray] = {}
        for path, of_file in itertools.groupby(sorted(keys), key=lambda key: key[1]):
            with files.opened(path, f"currents {path}", self.layout.axes) as dataset:
                packings = [self.layout.packing(dataset, role, f"currents {path}") for role in COMPONENTS]
                for block in _blocks([level for _, _, level in of_file], self.chunk_levels, self.raw_bytes):
                    first, stop = block[0], block[-1] + 1
                    pair = [self.layout.stored(dataset, role, first, stop, path) for role in COMPONENTS]
                    for level in block:
                        stored = [self.oriented(component[level - first]) for component in pair]
                        levels[self.number, path, level] = self.packed(stored, packings, path, level)
        return [levels[key] for key in keys]

    def oriented(self, stored: Num[np.ndarray, "rows columns"]) -> Num[np.ndarray, "lat lon"]:
        """One component as stored, `(rows, columns)`, on the axes `lat` and `lon`."""
        return stored[self._lat_order][:, self._lon_order]

    def packed(
        self, stored: Sequence[Num[np.ndarray, "lat lon"]], packings: Sequence[Packing], path: str, index: int
    ) -> Int16[np.ndarray, "2 lat lon"]:
        """Level `index` of a file, int16 `(2, lat, lon)`, from both components `stored` on the axes `lat` and `lon`."""
        level = SLABS.take((2, *stored[0].shape), np.dtype(np.int16))
        names = [f"currents {path}: {self.layout.names[role]}" for role in COMPONENTS]
        for values, packing, name in zip(stored, packings, names, strict=True):
            if packing.encoding.has_range:
                check_range(packing.encoding, sample(values), name)
            if packing.encoding.packed and values.dtype.kind == "f":
                some = sample(values)
                check_packing(packing, some[~packing.missing(some)], name)
        pack_level(stored, packings, names, level)
        still = None if self.always_zero is None else COMPONENTS.index(self.always_zero)
        if (blank := remove_blanks(level, stored, packings, still)).cells:
            self.remarks.blanks(path, index, blank)
        return level


def land_levels(time: Int64[np.ndarray, " nt"]) -> Int[np.ndarray, " levels"]:
    """Indices of the `LAND_LEVELS` levels that tell land, ascending; both ends of the record among them.

    Evenly spaced levels may all fall into one season: of 23 years, one a year and every one in winter. So, in a record
    of more than a year, each moves by up to half a year to a season of its own. Those are multiples of the golden
    ratio, as any few of them are spread evenly. (Multiples of it over the whole record would alias too, in one of 21
    or 34 years: its convergents are 13/21 and 21/34.)

    Args:
        time: `(nt,)` levels [s], ascending.
    """
    since = np.linspace(0.0, float(time[-1] - time[0]), LAND_LEVELS)
    length = since[-1] / YEAR
    if length > 1.0:
        years = since[1:-1] / YEAR
        years += (np.arange(1, LAND_LEVELS - 1) * GOLDEN - years + 0.5) % 1.0 - 0.5
        since[1:-1] = (years + (years < 0) - (years > length)) * YEAR
    # rounding must not take the first level to the second
    return np.unique(np.clip(np.searchsorted(time - time[0], since.round()), 0, len(time) - 1))


def _blocks(levels: list[int], chunk: int, level_bytes: int) -> Iterator[list[int]]:
    """`levels` in groups to be read as one slice each: whole chunks, joined while they adjoin and fit memory.

    Args:
        levels: distinct levels of one file, ascending.
        chunk: levels in a chunk of the file.
        level_bytes: size of one level of one component as stored [bytes].
    """
    group: list[int] = []
    for level in levels:
        if group:
            together = level // chunk == group[-1] // chunk
            adjoins = level == group[-1] + 1 and (level - group[0] + chunk) * level_bytes <= BLOCK_BYTES
            if not together and not adjoins:
                yield group
                group = []
        group.append(level)
    if group:
        yield group
