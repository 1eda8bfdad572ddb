"""The bytes of a shard: zarr v3 `sharding_indexed` files, encoded and decoded without going through zarr.

A sharded file is the samples' chunks one after the other, then an index of (offset, size) pairs as little-endian
uint64 and the index's crc32c (zarr v3 sharding specification, index at the end). With lz4 a chunk is one blosc buffer
(bitshuffle) followed by its crc32c; uncompressed it is the raw array, guarded by the manifest's digest alone, so that
its address stays a multiple of 64 bytes. This skips the machinery that zarr-python runs for every chunk it reads.
"""

import struct
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

from shared.errors import StoreError
from shared.schema import ArraySpec, Compression

blosc.use_threads = False  # one context a call: safe in our own threads, and the same bytes on every machine

LEVEL = 5
_ABSENT = 2**64 - 1
_CRC = struct.Struct("<I")


def crc32c(data: bytes | memoryview) -> bytes:
    """crc32c (Castagnoli) of `data`, as the four little-endian bytes that zarr stores."""
    return _CRC.pack(google_crc32c.value(bytes(data)))


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


def encode(spec: ArraySpec, data: np.ndarray, samples_per_shard: int, compression: Compression) -> bytes:
    """The file of one shard of `spec`: `data` is `(n, *inner_shape)`, n <= samples_per_shard."""
    data = np.ascontiguousarray(data, dtype=spec.dtype)
    if data.shape[1:] != spec.inner_shape or not 0 < len(data) <= samples_per_shard:
        raise StoreError(f"{spec.name}: a shard of shape {data.shape}, expected (n, {spec.inner_shape}).")
    if not spec.sharded:
        padded = np.zeros((samples_per_shard, *spec.inner_shape), spec.dtype)
        padded[: len(data)] = data
        raw = padded.tobytes()
        return raw + crc32c(raw)
    index = np.full((samples_per_shard, 2), _ABSENT, "<u8")
    parts, offset = [], 0
    for k, sample in enumerate(data):
        chunk = sample.tobytes()
        if compression == "lz4":
            chunk = blosc.compress(sample, b"lz4", LEVEL, blosc.BITSHUFFLE)
            chunk += crc32c(chunk)
        index[k] = offset, len(chunk)
        parts.append(chunk)
        offset += len(chunk)
    raw_index = index.tobytes()
    return b"".join([*parts, raw_index, crc32c(raw_index)])


def read_index(shard: memoryview, n: int, samples_per_shard: int, where: str) -> np.ndarray:
    """The checked index of a sharded file: `(n, 2)` int64 offsets and sizes [bytes] of its `n` samples."""
    size = 16 * samples_per_shard
    body = len(shard) - size - 4
    if body < 0:
        raise StoreError(f"{where}: {len(shard)} bytes, too short for its index: truncated or foreign. {REMEDY}")
    raw = shard[body : body + size]
    if crc32c(raw) != bytes(shard[body + size :]):
        raise StoreError(f"{where}: the shard's index does not match its crc32c: damaged or truncated. {REMEDY}")
    index = np.frombuffer(raw, "<u8").reshape(-1, 2)
    if (index[n:] != _ABSENT).any():
        raise StoreError(f"{where}: holds more samples than the {n} expected: another store's shard? {REMEDY}")
    index = index[:n]
    if (index > body).any() or (index.sum(axis=1) > body).any():
        raise StoreError(f"{where}: holds fewer samples than the {n} expected, or points outside itself. {REMEDY}")
    return index.astype(np.int64)


def decode_into(chunk: memoryview, out: np.ndarray, compression: Compression, where: str) -> None:
    """Checks one chunk and decodes it into the C-contiguous `out`; nothing is allocated from what it claims."""
    if compression == "lz4":
        payload, stored = chunk[:-4], bytes(chunk[-4:])
        if len(chunk) < 20 or crc32c(payload) != stored:
            raise StoreError(f"{where}: the data do not match their crc32c: damaged. {REMEDY}")
        claimed, _, size = struct.unpack_from("<III", payload, 4)
        if claimed != out.nbytes:
            raise StoreError(f"{where}: decodes to {claimed} bytes, expected {out.nbytes}. {REMEDY}")
        if size != len(payload):  # blosc would read on past the buffer
            raise StoreError(f"{where}: claims {size} bytes and has {len(payload)}. {REMEDY}")
        try:
            blosc.decompress(payload, out)
        except RuntimeError as error:
            raise StoreError(f"{where}: cannot be decoded ({error}). {REMEDY}") from error
    elif len(chunk) != out.nbytes:
        raise StoreError(f"{where}: {len(chunk)} bytes, expected {out.nbytes}. {REMEDY}")
    else:
        out.reshape(-1).view(np.uint8)[:] = np.frombuffer(chunk, np.uint8)


REMEDY = "Run `drift-inspect verify` on the store, and make it again with drift-preprocess --overwrite."
"""What to do about a damaged shard."""
