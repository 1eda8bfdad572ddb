"""The reader of a finished store: labels in memory, samples through memory maps, or by reads if a map fails.

Training and the inspector open a `ShardStore`. It trusts nothing but the manifest: shapes come from there, files must
have the sizes and, except for the shards of samples, the sha256 listed there. A shard is not hashed, since that would
read all of it for one sample. Instead every sample that is read must have the checksum that the label `checksum` lists
for it, so an intact chunk of another sample is recognised too. Files are mapped read-only, so a store on a read-only
file system works, and pages are shared between processes.
"""

import contextlib
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from driftcal.shared.errors import StoreError
from driftcal.shared.native import checked_copy
from driftcal.shared.store import files, manifest, schema, shard_bytes
from driftcal.shared.store.files import Unmapped
from driftcal.shared.store.schema import ArraySpec, Layout

OnBadShard = Literal["fail", "skip"]
"""Treatment of an unreadable sample: it ends the command, or is left out and counted."""

Copying = Literal["auto", "plain"]
"""Ways to copy and check samples of an uncompressed store: in one pass by C++ where there is a compiler, or in two."""

READ_AHEAD = 128 * 2**10
"""Bytes that the kernel is asked for at once: its usual read-ahead, to which it cuts longer requests."""

Asked = set[tuple[str, int, int]]
"""Blocks of `READ_AHEAD` that the kernel was asked for in one pass over a store: array, shard and place there."""

Damaged = Callable[[int, StoreError], None]
"""Handler of a damaged sample, called with its position among those asked for, and the error."""


def refuse(_place: int, error: StoreError) -> None:
    """Raises `error`."""
    raise error


class Shard(NamedTuple):
    """One file of samples: its bytes, and for each sample start, stop [bytes] and checksum."""

    map: mmap.mmap | Unmapped
    data: memoryview | Unmapped
    start: list[int]
    stop: list[int]
    checksum: list[int]


class ShardedArray:
    """One sharded array of a store, read sample by sample through memory maps."""

    def __init__(self, root: Path, spec: ArraySpec, listing: manifest.Manifest, checksum: np.ndarray, copying: Copying):
        self.spec = spec
        self._root, self._held, self._layout, self._checksum = root, listing, listing.layout, checksum
        self._per_shard = listing.layout.samples_per_shard
        self._decode = shard_bytes.decoder(listing.layout.compression)
        one_pass = copying == "auto" and listing.layout.compression == "none"
        self._copier = checked_copy.copier() if one_pass else None
        self._shards: dict[int, Shard] = {}
        self._address = np.zeros(listing.layout.n_samples, np.uintp)  # of raw samples in maps; 0: not known, or damaged
        self._addressing = threading.Lock()  # no thread may see half of one

    def _shard(self, shard: int) -> Shard:
        layout = self._layout
        memory = files.mapped(self._root, self.spec.file_of(shard), self._held)
        data = memory if isinstance(memory, Unmapped) else memoryview(memory)
        where = f"{self.spec.name} shard {shard} of {self._root}"
        samples = layout.samples_of(shard)
        index = shard_bytes.read_index(data, len(samples), layout.samples_per_shard, where)
        sums = self._checksum[samples.start : samples.stop].tolist()
        new = Shard(memory, data, index[:, 0].tolist(), index.sum(axis=1).tolist(), sums)
        # Of the maps of two threads one stays, and has the addresses.
        opened = self._shards.setdefault(shard, new)
        if layout.compression == "none" and not isinstance(opened.map, Unmapped):
            whole = index[:, 1] == self.spec.sample_bytes
            begin = np.frombuffer(opened.map, np.uint8).ctypes.data + index[:, 0]
            with self._addressing:
                self._address[samples.start : samples.stop] = np.where(whole, begin, 0)
        return opened

    def read_into(
        self,
        samples: Sequence[int] | np.ndarray,
        out: np.ndarray,
        damaged: Damaged = refuse,
    ) -> None:
        """Decodes `samples` into the rows of `out`, their bytes (see `rows_of`), and checks them.

        Args:
            samples: Their numbers; many in one call, since a raw sample is copied so fast that calls count.
            out: `(n, bytes a sample)`, C-contiguous.
            damaged: Handler of one that is damaged, or not the sample that the store was made with: called with
                its place in `samples`, and why. Its row is of no use.

        Raises:
            StoreError: one is, and `damaged` raises it.
            LimitError: the system refuses or fails to read one, whatever `damaged` does about damage.
            IndexError: the store has no such sample.
        """
        per_shard, shards, decode = self._per_shard, self._shards, self._decode
        size = self.spec.sample_bytes
        if out.nbytes != len(samples) * size:
            raise ValueError(f"room of {out.nbytes} bytes for {len(samples)} samples of {size}")
        room = out.data.cast("B") if out.nbytes else memoryview(b"")  # never of a copy: it must be contiguous
        numbers = np.asarray(samples, np.int64)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < self._layout.n_samples:
            last = self._layout.n_samples - 1
            raise IndexError(f"samples {numbers.min()} to {numbers.max()}, expected numbers from 0 to {last}")
        left = np.arange(len(numbers)) if self._copier is None else self._copy_raw(numbers, out, self._copier)
        for place, sample in zip(left.tolist(), numbers[left].tolist(), strict=True):
            number, k = divmod(sample, per_shard)
            try:
                _, data, start, stop, checksum = shards.get(number) or self._shard(number)
            except StoreError as error:
                damaged(place, error)
                continue
            try:
                decode(data[start[k] : stop[k]], room[place * size : (place + 1) * size], checksum[k])
            except StoreError as error:
                where = f"{self.spec.name} of sample {sample} (shard {number}) of {self._root}"
                damaged(place, StoreError(f"{where}: {error}"))

    def _copy_raw(self, samples: np.ndarray, out: np.ndarray, copier: checked_copy.Copier) -> np.ndarray:
        """Copies the raw ones of `samples` into `out`; the places of the rest, to be read or refused one by one."""
        address = self._addresses(samples)
        if not address.all():
            for shard in set((samples[address == 0] // self._per_shard).tolist()) - self._shards.keys():
                with contextlib.suppress(StoreError):  # told when its samples are read one by one
                    self._shard(shard)
            address = self._addresses(samples)
        return np.flatnonzero(~copier(address, self._checksum[samples], out))

    def _addresses(self, samples: np.ndarray) -> np.ndarray:
        with self._addressing:
            return self._address[samples]

    def read(self, samples: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decoded `samples`, `(n, *inner_shape)`."""
        out = np.empty((len(samples), *self.spec.inner_shape), self.spec.dtype)
        self.read_into(samples, rows_of(out))
        return out

    def will_need(self, samples: Sequence[int] | np.ndarray, asked: Asked) -> None:
        """Asks the kernel to read the pages of `samples`, without waiting for them; does nothing if it cannot.

        Where a page holds several samples, all that the kernel would read around it is asked for, once in a pass: the
        others will be needed soon. A damaged shard is left to whoever reads it.
        """
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        small = self.spec.sample_bytes < mmap.PAGESIZE
        for sample in np.asarray(samples).tolist():
            number, k = divmod(sample, self._per_shard)
            try:
                shard = self._shards.get(number) or self._shard(number)
            except StoreError:
                continue
            start, stop = shard.start[k], shard.stop[k]
            if not small:
                _ask(shard.map, start, stop)
                continue
            for block in range(start // READ_AHEAD, (stop - 1) // READ_AHEAD + 1):
                place = self.spec.name, number, block
                if place not in asked:
                    asked.add(place)
                    _ask(shard.map, block * READ_AHEAD, min((block + 1) * READ_AHEAD, len(shard.map)))


def _ask(data: mmap.mmap | Unmapped, start: int, stop: int) -> None:
    """Asks the kernel for the pages of the bytes [start, stop)."""
    with contextlib.suppress(OSError):  # file systems need not know of it, and whoever reads is told of what is wrong
        for first in range(start // mmap.PAGESIZE * mmap.PAGESIZE, stop, READ_AHEAD):
            size = min(READ_AHEAD, stop - first)
            if not isinstance(data, Unmapped):
                data.madvise(mmap.MADV_WILLNEED, first, size)
            elif hasattr(os, "posix_fadvise"):  # macOS has none
                os.posix_fadvise(data.number, first, size, os.POSIX_FADV_WILLNEED)


def rows_of(samples: np.ndarray) -> np.ndarray:
    """The bytes of C-contiguous `samples` `(n, ...)`, `(n, bytes a sample)`, not copied."""
    return samples.reshape(len(samples), -1).view(np.uint8) if len(samples) else np.empty((0, 0), np.uint8)


class ShardStore:
    """A finished store, opened for reading.

    Attributes:
        manifest: Its content and origin.
        currents: int16, `(sample, 2, time, lat, lon)` [1e-4 m/s].
        positions: float32, `(sample, obs, 2)` (lon, lat) [degrees] relative to the sample's origin.
        labels: every other array of the schema by name, `(sample, ...)`, in memory.
        drifters: names of the drifters.
        on_bad_shard: what becomes of a sample that cannot be read.
        unreadable: with `skip`, samples that could not be read and why; those of a shard whose labels are damaged
            from the start, others when they are asked for.
    """

    def __init__(self, root: str | Path, on_bad_shard: OnBadShard = "fail", copying: Copying = "plain"):
        self.root, self.on_bad_shard = Path(root), on_bad_shard
        self.unreadable: dict[int, str] = {}
        self.manifest = manifest.read(self.root)
        self.layout = self.manifest.layout
        files.check_listing(self.root, self.manifest)
        files.check_metadata(self.root, self.manifest)
        self.drifters = files.drifters(self.root, self.manifest)
        specs = schema.arrays(self.layout)
        self.labels = {s.name: self._label(s) for s in specs if not s.sharded}
        self.labels["split"][list(self.unreadable)] = -1  # their split is unknown
        sums = self.labels.pop(schema.CHECKSUM)
        sharded = [s for s in specs if s.sharded]
        files.make_room(len(sharded) * self.layout.n_shards)
        self.currents, self.positions = (
            ShardedArray(self.root, spec, self.manifest, sums[:, k], copying) for k, spec in enumerate(sharded)
        )
        indices = self.labels["drifter"]
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self.drifters):
            raise StoreError(
                f"{self.root}: a sample names a drifter that drifters.json does not hold. {shard_bytes.REMEDY}"
            )

    def __len__(self) -> int:
        return self.layout.n_samples

    def samples_of(self, split: str) -> np.ndarray:
        """The samples of `split`, ascending, int64.

        Raises:
            StoreError: the store has no sample of that split.
        """
        if split not in schema.SPLITS:
            raise StoreError(f"{split!r} is not a split; expected one of {', '.join(schema.SPLITS)}.")
        samples = np.flatnonzero(self.labels["split"] == schema.SPLITS.index(split))
        if not len(samples):
            counts = ", ".join(f"{name} {facts['samples']}" for name, facts in self.manifest.splits.items())
            raise StoreError(
                f"{self.root}: no sample of split {split!r} (it holds: {counts or 'no sample at all'}). Choose another "
                f"split, or set split.{split} above 0 in the data manifest and preprocess again."
            )
        return samples

    def unreadable_of(self, split: str) -> list[int]:
        """The samples of `split` found unreadable so far, and those whose split is unknown."""
        whose = (-1, schema.SPLITS.index(split))
        return sorted(sample for sample in self.unreadable if self.labels["split"][sample] in whose)

    def read_batch(self, samples: np.ndarray, currents: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Decodes `samples` into `currents` and `positions`, `(n, *inner_shape)`; safe in several threads.

        Returns:
            Whether each could be read, `(n,)`; one that could not is zero in both. False with `on_bad_shard` skip only.

        Raises:
            StoreError: one is damaged, and `on_bad_shard` is fail.
            LimitError: the system refuses or fails to read one.
        """
        readable = np.ones(len(samples), bool)
        each = ((self.currents, rows_of(currents)), (self.positions, rows_of(positions)))

        def leave_out(place: int, error: StoreError) -> None:
            self.unreadable.setdefault(int(samples[place]), str(error))
            readable[place] = False

        for array, rows in each:
            array.read_into(samples, rows, leave_out if self.on_bad_shard == "skip" else refuse)
        if not readable.all():
            for _, rows in each:
                rows[~readable] = 0
        return readable

    def will_need(self, samples: np.ndarray, asked: Asked) -> None:
        """Asks the kernel to read `samples` ahead; `asked`, empty at first, is the pass's own."""
        self.currents.will_need(samples, asked)
        self.positions.will_need(samples, asked)

    def _label(self, spec: ArraySpec) -> np.ndarray:
        out = np.zeros((self.layout.n_samples, *spec.inner_shape), spec.dtype)
        for shard in range(self.layout.n_shards):
            samples = self.layout.samples_of(shard)
            try:
                raw = files.checked(self.root, spec.file_of(shard), self.manifest)
                out[samples.start : samples.stop] = label_of(
                    raw, spec, self.layout, shard, f"{spec.name} shard {shard}"
                )
            except StoreError as error:
                if self.on_bad_shard == "fail":
                    raise
                for sample in samples:
                    self.unreadable.setdefault(sample, str(error))
        return out


def label_of(raw: np.ndarray, spec: ArraySpec, layout: Layout, shard: int, where: str) -> np.ndarray:
    """The values of one label of the samples of `shard`, from the bytes of its file."""
    if len(raw) != layout.samples_per_shard * spec.sample_bytes + 4:
        raise StoreError(f"{where}: {len(raw)} bytes, not what its layout says. {shard_bytes.REMEDY}")
    if not shard_bytes.is_sealed(raw):
        raise StoreError(f"{where}: the data do not match their crc32c: damaged. {shard_bytes.REMEDY}")
    values = np.frombuffer(raw[:-4], spec.dtype).reshape(-1, *spec.inner_shape)
    return values[: len(layout.samples_of(shard))]
