"""Reading a finished store: labels in memory, samples through memory maps.

`ShardStore` is what training and the inspector open. It trusts nothing but the manifest: shapes come from there, a
file's size is checked before it is mapped, a chunk's checksum before it is decoded. Files are mapped read-only, so a
store on a read-only file system works, and pages are shared between processes.

Labels, and uncompressed shards when a sample of theirs is first read, must match their sha256 in the manifest. An lz4
shard is not hashed whole, which would read it all for one sample: damage is found by its chunks' checksums, but a
whole shard of another store of the same layout only by `drift-inspect verify`.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared import chunks, manifest, schema
from shared.errors import StoreError
from shared.schema import ArraySpec

DRIFTERS = "drifters.json"
"""Names of the drifters; the array `drifter` holds positions in this list."""


class ShardedArray:
    """One sharded array of a store, read sample by sample through memory maps."""

    def __init__(self, root: Path, spec: ArraySpec, held: manifest.Manifest):
        self.spec = spec
        self._root = root
        self._held = held
        self._shards: dict[int, tuple[memoryview, np.ndarray]] = {}

    def _shard(self, shard: int) -> tuple[memoryview, np.ndarray]:
        if shard not in self._shards:
            layout = self._held.layout
            name = self.spec.file_of(shard)
            data = mapped(self._root, name, self._held)
            if layout.compression == "none":  # its chunks have no checksums
                _refuse_other_content(self._root, name, data, self._held)
            where = f"{self.spec.name} shard {shard} of {self._root}"
            index = chunks.read_index(data, len(layout.samples_of(shard)), layout.samples_per_shard, where)
            self._shards[shard] = data, index
        return self._shards[shard]

    def read_into(self, sample: int, out: np.ndarray) -> None:
        """Decodes `sample` into `out`, C-contiguous, `inner_shape`, of the array's dtype; checks it."""
        layout = self._held.layout
        shard, k = divmod(sample, layout.samples_per_shard)
        data, index = self._shard(shard)
        offset, size = index[k]
        where = f"{self.spec.name} of sample {sample} (shard {shard}) of {self._root}"
        chunks.decode_into(data[offset : offset + size], out, layout.compression, where)

    def read(self, samples: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decoded `samples`, `(n, *inner_shape)`."""
        out = np.empty((len(samples), *self.spec.inner_shape), self.spec.dtype)
        for k, sample in enumerate(samples):
            self.read_into(int(sample), out[k])
        return out


class ShardStore:
    """A finished store, opened for reading.

    Attributes:
        manifest: What it holds and where it came from.
        currents: int16, `(sample, 2, time, lat, lon)` [1e-4 m/s].
        positions: float32, `(sample, obs, 2)` (lon, lat) [degrees] relative to the sample's origin.
        labels: every other array of the schema by name, `(sample, ...)`, in memory.
        drifters: names of the drifters.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.manifest = manifest.read(self.root)
        self.layout = self.manifest.layout
        specs = schema.arrays(self.layout)
        sharded = {s.name: ShardedArray(self.root, s, self.manifest) for s in specs if s.sharded}
        self.currents, self.positions = sharded["currents"], sharded["positions"]
        self.labels = {s.name: self._label(s) for s in specs if not s.sharded}
        self.drifters = self._drifters()

    def __len__(self) -> int:
        return self.layout.n_samples

    def samples_of(self, split: str) -> np.ndarray:
        """The samples of `split`, ascending, int64.

        Raises:
            StoreError: the store has no sample of that split.
        """
        if split not in schema.SPLITS:
            raise StoreError(f"{split!r} is not a split; expected one of {', '.join(schema.SPLITS)}.")
        found = np.flatnonzero(self.labels["split"] == schema.SPLITS.index(split))
        if not len(found):
            held = ", ".join(f"{name} {facts['samples']}" for name, facts in self.manifest.splits.items())
            raise StoreError(
                f"{self.root}: no sample of split {split!r} (it holds: {held or 'no sample at all'}). Choose another "
                f"split, or set split.{split} above 0 in the data manifest and preprocess again."
            )
        return found

    def _label(self, spec: ArraySpec) -> np.ndarray:
        parts = []
        for shard in range(self.layout.n_shards):
            name = spec.file_of(shard)
            raw = mapped(self.root, name, self.manifest)
            _refuse_other_content(self.root, name, raw, self.manifest)
            where = f"{spec.name} shard {shard} of {self.root}"
            if len(raw) != self.layout.samples_per_shard * spec.sample_bytes + 4:
                raise StoreError(f"{where}: {len(raw)} bytes, not what its layout says. {chunks.REMEDY}")
            if chunks.crc32c(raw[:-4]) != bytes(raw[-4:]):
                raise StoreError(f"{where}: the data do not match their crc32c: damaged. {chunks.REMEDY}")
            values = np.frombuffer(raw[:-4], spec.dtype).reshape(-1, *spec.inner_shape)
            parts.append(values[: len(self.layout.samples_of(shard))])
        return np.concatenate(parts) if parts else np.empty((0, *spec.inner_shape), spec.dtype)

    def _drifters(self) -> list[str]:
        raw = bytes(mapped(self.root, DRIFTERS, self.manifest))
        _refuse_other_content(self.root, DRIFTERS, raw, self.manifest)
        try:
            names = json.loads(raw)["drifters"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.root / DRIFTERS}: not readable ({error}): damaged. {chunks.REMEDY}") from error
        indices = self.labels["drifter"]
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(names):
            raise StoreError(f"{self.root}: a sample names a drifter that drifters.json does not hold. {chunks.REMEDY}")
        return names


def mapped(root: Path, name: str, held: manifest.Manifest) -> memoryview:
    """The file `name` of the store, memory-mapped read-only, its size checked against the manifest."""
    path = root / name
    entry = held.files.get(name)
    if entry is None:
        raise StoreError(f"{root}: the manifest does not list {name}. {chunks.REMEDY}")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.size:
                raise StoreError(f"{path}: {size} bytes, expected {entry.size}: truncated or replaced. {chunks.REMEDY}")
            if size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}. {chunks.REMEDY}") from error


def _refuse_other_content(root: Path, name: str, data: memoryview | bytes, held: manifest.Manifest) -> None:
    if hashlib.sha256(data).hexdigest() != held.files[name].sha256:
        raise StoreError(
            f"{root / name}: its content does not match its sha256 in the manifest: damaged, or of another shard or "
            f"store. {chunks.REMEDY}"
        )
