"""The bytes of a shard: zarr v3 `sharding_indexed` files, encoded and decoded without going through zarr.

A sharded file is the samples' chunks one after the other, then an index of (offset, size) pairs as little-endian
uint64 and the index's crc32c (zarr v3 sharding specification, index at the end). With lz4 a chunk is one blosc buffer
(bitshuffle) followed by its crc32c; uncompressed it is the raw array alone, so that its address stays a multiple of 64
bytes. The label `checksum` holds the crc32c of both.
This skips the machinery that zarr-python runs for every chunk it reads.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

from shared.errors import StoreError
from shared.schema import CHECKSUM, ArraySpec, Compression, Layout, arrays

blosc.use_threads = False  # one context a call: safe in our own threads, and the same bytes on every machine

LEVEL = 5
OVERHEAD = blosc.MAX_OVERHEAD + 4
"""Of a chunk that lz4 cannot compress: the codec's header and the crc32c [bytes]."""

_ABSENT = 2**64 - 1
_CRC = struct.Struct("<I")
_HEADER = struct.Struct("<4B3I")  # blosc 1: version, codec's version, flags, item size; sizes decoded, block, encoded
_LZ4 = 1  # the codec's number in the upper three bits of the flags


def crc32c(data: bytes | np.ndarray) -> bytes:
    """crc32c (Castagnoli) of `data`, bytes or a read-only array, as the four little-endian bytes that zarr stores."""
    return _CRC.pack(google_crc32c.value(data))


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


def encode(spec: ArraySpec, data: np.ndarray, samples_per_shard: int, compression: Compression) -> bytes | memoryview:
    """The file of one shard of `spec`: `data` is `(n, *inner_shape)`, n <= samples_per_shard."""
    data = np.ascontiguousarray(data, dtype=spec.dtype)
    if data.shape[1:] != spec.inner_shape or not 0 < len(data) <= samples_per_shard:
        raise StoreError(f"{spec.name}: a shard of shape {data.shape}, expected (n, {spec.inner_shape}).")
    if not spec.sharded:
        padded = np.zeros((samples_per_shard, *spec.inner_shape), spec.dtype)
        padded[: len(data)] = data
        raw = padded.tobytes()
        return raw + crc32c(raw)
    # one buffer for all: to join parts as large as a shard would touch twice its fresh memory
    most = len(data) * (spec.sample_bytes + OVERHEAD) + 16 * samples_per_shard + 4
    out, offset = np.empty(most, np.uint8).data, 0
    index = np.full((samples_per_shard, 2), _ABSENT, "<u8")
    for k, sample in enumerate(data):
        begin = offset
        if compression == "lz4":
            chunk = blosc.compress(sample, b"lz4", LEVEL, blosc.BITSHUFFLE)
            offset = _put(out, offset, chunk, crc32c(chunk))
        else:
            offset = _put(out, offset, sample.reshape(-1).view(np.uint8).data)
        index[k] = begin, offset - begin
    raw_index = index.tobytes()
    return out[: _put(out, offset, raw_index, crc32c(raw_index))].toreadonly()


def _put(out: memoryview, offset: int, *parts: bytes | memoryview) -> int:
    """Writes `parts` into `out` from `offset` on; returns where they end."""
    for part in parts:
        out[offset : offset + len(part)] = part
        offset += len(part)
    return offset


def encode_shard(layout: Layout, values: Mapping[str, np.ndarray]) -> Iterator[tuple[ArraySpec, bytes | memoryview]]:
    """The files of one shard one after the other, as array and content.

    Args:
        layout: Of the store.
        values: By name `(n, *inner_shape)` of the shard's samples, of every array but `checksum`, which is made here.
    """
    sums = []
    for spec in arrays(layout):
        part = np.stack(sums, axis=1) if spec.name == CHECKSUM else values[spec.name]
        content = encode(spec, part, layout.samples_per_shard, layout.compression)
        if spec.sharded:
            sums.append(_checksums(content, len(part), layout))
        yield spec, content


def _checksums(shard: bytes | memoryview, n: int, layout: Layout) -> np.ndarray:
    """crc32c, uint32 `(n,)`, of the chunks of a sharded file; with lz4 each ends with it."""
    data = np.frombuffer(shard, np.uint8)
    index = read_index(data, n, layout.samples_per_shard, "shard just encoded").tolist()
    ends = [(offset + size - 4, offset + size) for offset, size in index]
    if layout.compression == "lz4":
        return np.array([_CRC.unpack(shard[a:b])[0] for a, b in ends], np.uint32)
    return np.array([google_crc32c.value(data[o : o + size]) for o, size in index], np.uint32)


def read_index(shard: np.ndarray, n: int, samples_per_shard: int, where: str) -> np.ndarray:
    """The checked index of a sharded file, given as its bytes: `(n, 2)` int64 offsets and sizes of its `n` samples."""
    size = 16 * samples_per_shard
    body = len(shard) - size - 4
    if body < 0:
        raise StoreError(f"{where}: {len(shard)} bytes, too short for its index: truncated or foreign. {REMEDY}")
    raw = shard[body : body + size]
    if crc32c(raw) != shard[body + size :].tobytes():
        raise StoreError(f"{where}: the shard's index does not match its crc32c: damaged or truncated. {REMEDY}")
    index = np.frombuffer(raw, "<u8").reshape(-1, 2)
    if (index[n:] != _ABSENT).any():
        raise StoreError(f"{where}: holds more samples than the {n} expected: another store's shard? {REMEDY}")
    index = index[:n]
    if (index > body).any() or (index.sum(axis=1) > body).any():
        raise StoreError(f"{where}: holds fewer samples than the {n} expected, or points outside itself. {REMEDY}")
    return index.astype(np.int64)


def decode_into(chunk: np.ndarray, out: np.ndarray, compression: Compression, checksum: int) -> None:
    """Checks one chunk and decodes it into `out`; nothing is allocated from what it claims.

    Args:
        chunk: Its bytes, read-only (which lets the checksum be taken without a copy).
        out: Bytes, uint8 `(n,)`, as many as what is decoded; of no use where this raises.
        compression: Of the store.
        checksum: crc32c that it must have.

    Raises:
        StoreError: it is damaged or another's. The caller knows which one it is.
    """
    if compression == "none":
        if len(chunk) != len(out):
            raise StoreError(f"{len(chunk)} bytes, expected {len(out)}. {REMEDY}")
        np.copyto(out, chunk)  # before the checksum: its reading is faster once the copy has fetched the chunk
        if google_crc32c.value(chunk) != checksum:
            raise StoreError(f"the data do not match the store's checksum: damaged, or another's. {REMEDY}")
        return
    size = len(chunk)
    if size < 20:
        raise StoreError(f"{size} bytes, too few for a chunk: damaged. {REMEDY}")
    payload = chunk[:-4]
    found = google_crc32c.value(payload)
    if found != _CRC.unpack_from(chunk.data, size - 4)[0]:
        raise StoreError(f"the data do not match their crc32c: damaged. {REMEDY}")
    if found != checksum:
        raise StoreError(f"whole, but without the store's checksum: another shard's or store's. {REMEDY}")
    _, _, flags, _, claimed, _, held = _HEADER.unpack_from(chunk.data)
    if flags >> 5 != _LZ4:
        raise StoreError(f"its codec is not lz4 (blosc flags {flags:#04x}): refused. {REMEDY}")
    if claimed != out.nbytes:
        raise StoreError(f"decodes to {claimed} bytes, expected {out.nbytes}. {REMEDY}")
    if held != len(payload):  # blosc would read on past the buffer
        raise StoreError(f"claims {held} bytes and has {len(payload)}. {REMEDY}")
    try:
        blosc.decompress(payload, out)
    except RuntimeError as error:
        raise StoreError(f"cannot be decoded ({error}). {REMEDY}") from error


REMEDY = "Run `drift-inspect verify` on the store, and make it again with drift-preprocess --overwrite."
"""What to do about a damaged shard."""
