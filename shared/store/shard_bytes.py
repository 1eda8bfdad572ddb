"""The bytes of a shard: zarr v3 `sharding_indexed` files, encoded and decoded without going through zarr.

A sharded file is the samples' chunks one after the other, then an index of (offset, size) pairs as little-endian
uint64 and the index's crc32c (zarr v3 sharding specification, index at the end). With lz4 a chunk is one blosc buffer
(bitshuffle) followed by its crc32c; uncompressed it is the raw array alone, so that its address stays a multiple of 64
bytes. The label `checksum` holds the crc32c of both.
This skips the machinery that zarr-python runs for every chunk it reads.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from awscrt import checksums
from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

from driftcal.shared.errors import StoreError
from driftcal.shared.store.buffers import Slabs
from driftcal.shared.store.schema import CHECKSUM, ArraySpec, Compression, Layout, arrays

blosc.use_threads = False  # one context a call: safe in our own threads, and the same bytes on every machine

LEVEL = 5
OVERHEAD = blosc.MAX_OVERHEAD + 4
"""Extra size [bytes] of a chunk that lz4 cannot compress: the codec's header and the crc32c."""

ROOM = Slabs()
"""Buffers of encoded samples. Shard after shard takes the same memory: to touch new memory costs more than to copy."""

_ABSENT = 2**64 - 1
_CRC = struct.Struct("<I")
_HEADER = struct.Struct("<4B3I")  # blosc 1: version, codec's version, flags, item size; sizes decoded, block, encoded
_LZ4 = 1  # the codec's number in the upper three bits of the flags


crc32c: Callable[..., int] = checksums.crc32c
"""crc32c (Castagnoli) of a buffer of any kind, though the library's signature has bytes only."""


def sealed(data: bytes) -> bytes:
    """`data` and its crc32c, four little-endian bytes, as zarr's codec `crc32c` stores them."""
    return data + _CRC.pack(crc32c(data))


def is_sealed(data: np.ndarray) -> bool:
    """Tells whether the bytes `data` end with the crc32c of the rest."""
    return crc32c(data[:-4]) == _CRC.unpack_from(data.data, len(data) - 4)[0]


def codecs(spec: ArraySpec, compression: Compression) -> list[dict[str, Any]]:
    """The codecs of one chunk of `spec`, as zarr metadata."""
    chain: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if spec.dtype.itemsize == 1:
        chain = [{"name": "bytes"}]
    if spec.sharded and compression == "lz4":
        configuration = {
            "typesize": spec.dtype.itemsize,
            "cname": "lz4",
            "clevel": LEVEL,
            "shuffle": "bitshuffle",
            "blocksize": 0,
        }
        chain.append({"name": "blosc", "configuration": configuration})
    if not spec.sharded or compression != "none":
        chain.append({"name": "crc32c"})
    return chain


def metadata(spec: ArraySpec, n_samples: int, samples_per_shard: int, compression: Compression) -> dict[str, Any]:
    """The `zarr.json` of `spec`."""
    chain = codecs(spec, compression)
    if spec.sharded:
        configuration = {
            "chunk_shape": [1, *spec.inner_shape],
            "codecs": chain,
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        }
        chain = [{"name": "sharding_indexed", "configuration": configuration}]
    fill = int(spec.attributes.get("_FillValue", 0))
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [n_samples, *spec.inner_shape],
        "data_type": spec.dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [samples_per_shard, *spec.inner_shape]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": float(fill) if spec.dtype.kind == "f" else fill,
        "codecs": chain,
        "attributes": spec.attributes,
        "dimension_names": ["sample", *spec.inner_dims],
    }


class Encoder:
    """The file of one sharded array in the making: its samples are put in bit by bit, in any order.

    Attributes:
        checksum: crc32c of the samples' chunks, uint32 `(n,)`.
    """

    def __init__(self, spec: ArraySpec, n: int, samples_per_shard: int, compression: Compression):
        if not 0 < n <= samples_per_shard:
            raise StoreError(f"{spec.name}: a shard of {n} samples, expected 1 to {samples_per_shard}.")
        self.checksum = np.zeros(n, np.uint32)
        self._spec, self._lz4 = spec, compression == "lz4"
        self._index = np.full((samples_per_shard, 2), _ABSENT, "<u8")
        most = spec.sample_bytes + (OVERHEAD if self._lz4 else 0)
        self._room, self._end = ROOM.take((n * most,), np.dtype(np.uint8)).data, 0
        self._chunks: list[memoryview | None] = [None] * n

    def put(self, places: Sequence[int] | np.ndarray, samples: np.ndarray) -> None:
        """Encodes the samples at `places` of the shard, `(m,)`; they are `(m, *inner_shape)`, C-contiguous."""
        spec, room, end = self._spec, self._room, self._end
        if samples.shape != (len(places), *spec.inner_shape) or samples.dtype != spec.dtype:
            due = f"{spec.dtype} {(len(places), *spec.inner_shape)}"
            raise StoreError(f"{spec.name}: samples {samples.dtype} {samples.shape}, expected {due}.")
        sums = []
        for k, sample in zip(np.asarray(places).tolist(), samples, strict=True):
            begin = end
            if self._lz4:
                chunk = blosc.compress(sample, b"lz4", LEVEL, blosc.BITSHUFFLE)
                sums.append(crc32c(chunk))
                end = begin + len(chunk) + 4
                room[begin : end - 4] = chunk
                room[end - 4 : end] = _CRC.pack(sums[-1])
            else:
                end = begin + spec.sample_bytes
                room[begin:end] = sample.reshape(-1).view(np.uint8).data
                sums.append(crc32c(room[begin:end]))
            self._chunks[k] = room[begin:end].toreadonly()
        self.checksum[places] = sums
        self._end = end

    def content(self) -> list[memoryview]:
        """The whole file in parts, once every sample has been put; they lie in memory that is the encoder's."""
        parts = [chunk for chunk in self._chunks if chunk is not None]
        n, size = len(self._chunks), np.array([len(part) for part in parts])
        if len(parts) < n:
            raise StoreError(f"{self._spec.name}: {n - len(parts)} of {n} samples were never put.")
        self._index[:n, 0], self._index[:n, 1] = np.cumsum(size) - size, size
        return [*parts, memoryview(sealed(self._index.tobytes()))]


def encode(spec: ArraySpec, data: np.ndarray, samples_per_shard: int) -> list[memoryview]:
    """The file of one shard of a label `spec`: `data` is `(n, *inner_shape)`, n <= samples_per_shard."""
    if data.shape[1:] != spec.inner_shape or not 0 < len(data) <= samples_per_shard:
        raise StoreError(f"{spec.name}: a shard of shape {data.shape}, expected (n, {spec.inner_shape}).")
    padded = np.zeros((samples_per_shard, *spec.inner_shape), spec.dtype)
    padded[: len(data)] = data
    return [memoryview(sealed(padded.tobytes()))]


def encode_shard(
    layout: Layout, values: Mapping[str, "np.ndarray | Encoder"]
) -> Iterator[tuple[ArraySpec, list[memoryview]]]:
    """The files of one shard one after the other, as array and content, which is in parts.

    Args:
        layout: Layout of the store.
        values: By name the shard's samples, `(n, *inner_shape)`, of every array but `checksum`, which is made here; a
            sharded one may be encoded already.
    """
    sums: list[np.ndarray] = []
    for spec in arrays(layout):
        if spec.name == CHECKSUM:
            yield spec, encode(spec, np.stack(sums, axis=1), layout.samples_per_shard)
        elif spec.sharded:
            content = values[spec.name]
            done = content if isinstance(content, Encoder) else encoded(spec, content, layout)
            sums.append(done.checksum)
            yield spec, done.content()
        else:
            yield spec, encode(spec, np.asarray(values[spec.name]), layout.samples_per_shard)


def encoded(spec: ArraySpec, data: np.ndarray, layout: Layout) -> Encoder:
    """`data`, the samples of one shard of the sharded array `spec`, `(n, *inner_shape)`, all put."""
    encoder = Encoder(spec, len(data), layout.samples_per_shard, layout.compression)
    encoder.put(range(len(data)), np.ascontiguousarray(data, spec.dtype))
    return encoder


@runtime_checkable
class Bytes(Protocol):
    """The bytes of a file: in memory, mapped, or read as they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


def read_index(shard: Bytes, n: int, samples_per_shard: int, where: str) -> np.ndarray:
    """The checked index of a sharded file, given as its bytes: `(n, 2)` int64 offsets and sizes of its `n` samples."""
    size = 16 * samples_per_shard
    body = len(shard) - size - 4
    if body < 0:
        raise StoreError(f"{where}: {len(shard)} bytes, too short for its index: truncated or foreign. {REMEDY}")
    tail = np.frombuffer(shard[body:], np.uint8)
    if not is_sealed(tail):
        raise StoreError(f"{where}: the shard's index does not match its crc32c: damaged or truncated. {REMEDY}")
    index = np.frombuffer(tail[:size], "<u8").reshape(-1, 2)
    if (index[n:] != _ABSENT).any():
        raise StoreError(f"{where}: holds more samples than the {n} expected: another store's shard? {REMEDY}")
    index = index[:n]
    if (index > body).any() or (index.sum(axis=1) > body).any():
        raise StoreError(f"{where}: holds fewer samples than the {n} expected, or points outside itself. {REMEDY}")
    return index.astype(np.int64)


def decoder(compression: Compression) -> Callable[[memoryview, memoryview, int], None]:
    """Returns the function that checks and decodes the chunks of a store; its arguments are chunk, out and checksum.

    Chunk and out are bytes, as memoryviews: for the size of a sample those are much cheaper to make than arrays. The
    function fills `out`, which has the decoded size; nothing is allocated on the word of a chunk, and `out` is
    undefined after an error. It raises a StoreError if the chunk is damaged, or has another checksum; the caller adds
    which chunk it is.
    """
    return {"lz4": _decompress, "none": _copy}[compression]


def _copy(chunk: memoryview, out: memoryview, checksum: int) -> None:
    if len(chunk) != len(out):
        raise StoreError(f"{len(chunk)} bytes, expected {len(out)}. {REMEDY}")
    out[:] = chunk  # before the checksum: its reading is faster once the copy has fetched the chunk
    if crc32c(chunk) != checksum:
        raise StoreError(f"the data do not match the store's checksum: damaged, or another's. {REMEDY}")


def _decompress(chunk: memoryview, out: memoryview, checksum: int) -> None:
    size = len(chunk)
    if size < 20:
        raise StoreError(f"{size} bytes, too few for a chunk: damaged. {REMEDY}")
    payload = chunk[:-4]
    actual = crc32c(payload)
    if actual != _CRC.unpack_from(chunk, size - 4)[0]:
        raise StoreError(f"the data do not match their crc32c: damaged. {REMEDY}")
    if actual != checksum:
        raise StoreError(f"whole, but without the store's checksum: another shard's or store's. {REMEDY}")
    _, _, flags, _, claimed, _, length = _HEADER.unpack_from(chunk)
    if flags >> 5 != _LZ4:
        raise StoreError(f"its codec is not lz4 (blosc flags {flags:#04x}): refused. {REMEDY}")
    if claimed != out.nbytes:
        raise StoreError(f"decodes to {claimed} bytes, expected {out.nbytes}. {REMEDY}")
    if length != len(payload):  # blosc would read on past the buffer
        raise StoreError(f"claims {length} bytes and has {len(payload)}. {REMEDY}")
    try:
        blosc.decompress(payload, out)
    except RuntimeError as error:
        raise StoreError(f"cannot be decoded ({error}). {REMEDY}") from error


REMEDY = "Run `drift-inspect verify` on the store, and make it again with drift-preprocess --overwrite."
"""Remedy for a damaged shard."""
