"""The shard store: what is written comes back, zarr reads it too, and no other store is taken for one."""

import struct
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tensorstore
import zarr
from numcodecs import blosc

from driftcal.shared.errors import StoreError
from driftcal.shared.store import schema, shard_bytes
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.schema import Layout
from driftcal.shared.store.verify import verify
from tests import stores

BOTH = pytest.mark.parametrize("compression", ["lz4", "none"])


# Round trips


@BOTH
def test_values_come_back(stores_by_compression: dict[str, stores.Built], compression: str) -> None:
    built = stores_by_compression[compression]
    store = ShardStore(built.path)
    order = np.array([10, 0, 7, 3, 4])
    np.testing.assert_array_equal(store.currents.read(order), built.values["currents"][order])
    np.testing.assert_array_equal(store.positions.read(order), built.values["positions"][order])
    assert schema.CHECKSUM not in store.labels
    for name, values in store.labels.items():
        np.testing.assert_array_equal(values, built.values[name], strict=name not in ("drifter", "split"))
    assert store.drifters == built.drifters
    assert len(store) == 11
    assert store.samples_of("test").tolist() == [4, 9]


@BOTH
def test_zarr_reads_the_same_values(stores_by_compression: dict[str, stores.Built], compression: str) -> None:
    built = stores_by_compression[compression]
    group = zarr.open_group(built.path, mode="r", zarr_format=3)
    for spec in schema.arrays(built.layout):
        array = group[spec.name]
        assert isinstance(array, zarr.Array)
        assert array.dtype == spec.dtype
        assert array.metadata.dimension_names == ("sample", *spec.inner_dims)
        assert array.attrs["units"] == spec.attributes["units"]
        _assert_same(spec, np.asarray(array[...]), built)


@BOTH
def test_tensorstore_reads_the_same_values(stores_by_compression: dict[str, stores.Built], compression: str) -> None:
    built = stores_by_compression[compression]
    for spec in schema.arrays(built.layout):
        source = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(built.path / spec.name)}}
        array = tensorstore.open(source, open=True, read=True).result()
        assert (array.dtype.numpy_dtype, array.domain.labels[0]) == (spec.dtype, "sample")
        _assert_same(spec, np.asarray(array.read().result()), built)
        np.testing.assert_array_equal(array[np.array([9, 2, 4])].read().result(), array.read().result()[[9, 2, 4]])


@BOTH
def test_zarrs_reads_the_same_values(stores_by_compression: dict[str, stores.Built], compression: str) -> None:
    built = stores_by_compression[compression]
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        group = zarr.open_group(built.path, mode="r", zarr_format=3)
        for spec in schema.arrays(built.layout):
            array = group[spec.name]
            assert isinstance(array, zarr.Array)
            assert type(array.async_array.codec_pipeline).__name__ == "ZarrsCodecPipeline"
            _assert_same(spec, np.asarray(array[...]), built)


def _assert_same(spec: schema.ArraySpec, found: np.ndarray, built: stores.Built) -> None:
    """Values as they were put in; of `checksum` as google-crc32c has them, of the chunks in the files."""
    if spec.name != schema.CHECKSUM:
        np.testing.assert_array_equal(found, built.values[spec.name])
        return
    per = built.layout.samples_per_shard
    for column, array in enumerate(schema.arrays(built.layout)[:2]):
        for sample, value in enumerate(found[:, column].tolist()):
            shard, k = divmod(sample, per)
            raw = (built.path / array.file_of(shard)).read_bytes()
            offset, size = struct.unpack_from("<2Q", raw, len(raw) - 4 - 16 * per + 16 * k)
            size -= 4 if built.layout.compression == "lz4" else 0
            assert google_crc32c.value(raw[offset : offset + size]) == value


def test_a_raw_sample_starts_at_a_multiple_of_64_bytes(stores_by_compression: dict[str, stores.Built]) -> None:
    built = stores_by_compression["none"]
    spec = schema.arrays(built.layout)[0]
    data = np.frombuffer((built.path / spec.file_of(1)).read_bytes(), np.uint8)
    index = shard_bytes.read_index(data, 4, 4, "shard 1")
    assert (index[:, 0] % 64 == 0).all()
    raw = np.frombuffer(data[index[2, 0] :][: spec.sample_bytes], spec.dtype).reshape(spec.inner_shape)
    np.testing.assert_array_equal(raw, built.values["currents"][6])


@BOTH
def test_the_same_samples_give_the_same_bytes(tmp_path: Path, compression: schema.Compression) -> None:
    one = stores.build(tmp_path / "one", compression=compression)
    two = stores.build(tmp_path / "another", compression=compression)
    assert one.held.digest == two.held.digest
    assert stores.build(tmp_path / "third", compression=compression, seed=1).held.digest != one.held.digest


def test_encode_refuses_another_shape() -> None:
    layout = Layout(n_samples=3, samples_per_shard=2, **stores.SHAPE)
    spec = schema.arrays(layout)[0]
    with pytest.raises(StoreError, match=r"currents: a shard of 3 samples, expected 1 to 2\."):
        shard_bytes.encoded(spec, np.zeros((3, *spec.inner_shape), "<i2"), layout)
    with pytest.raises(StoreError, match=r"positions: samples float32 \(1, 2, 41\), expected float32 \(1, "):
        shard_bytes.encoded(schema.arrays(layout)[1], np.zeros((1, 2, 41), "<f4"), layout)
    with pytest.raises(StoreError, match=r"currents: samples int32 .*expected int16 "):
        shard_bytes.Encoder(spec, 1, 2, "none").put([0], np.zeros((1, *spec.inner_shape), np.int32))
    some = shard_bytes.Encoder(spec, 2, 2, "lz4")
    some.put([1], np.zeros((1, *spec.inner_shape), np.int16))
    with pytest.raises(StoreError, match=r"currents: 1 of 2 samples were never put\."):
        some.content()
    label = next(spec for spec in schema.arrays(layout) if spec.name == "origin")
    with pytest.raises(StoreError, match=r"origin: a shard of shape \(3, 2\)"):
        shard_bytes.encode(label, np.zeros((3, 2)), 2)


# Chunks and indices


def _decode(payload: bytes, out: np.ndarray, checksum: int | None = None) -> None:
    """Decodes a chunk whose own checksum is right."""
    stored = google_crc32c.value(payload).to_bytes(4, "little")
    chunk = memoryview(payload + stored)
    due = int.from_bytes(stored, "little") if checksum is None else checksum
    shard_bytes.decoder("lz4")(chunk, out.data.cast("B"), due)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = blosc.compress(np.zeros(2**26, np.int8), b"lz4", 5, blosc.BITSHUFFLE)
    out = np.empty((7, 3), np.int16)
    with pytest.raises(StoreError, match="decodes to 67108864 bytes, expected 42"):
        _decode(bomb, out)


def test_a_chunk_that_claims_more_than_there_is_is_refused() -> None:
    """Its checksum is right, its header is not: the decoder must not read past its end."""
    out = np.empty(4096, np.int16)
    whole = bytearray(blosc.compress(np.arange(4096, dtype=np.int16), b"lz4", 5, blosc.BITSHUFFLE))
    struct.pack_into("<I", whole, 12, len(whole) + 10_000)
    with pytest.raises(StoreError, match=r"claims \d+ bytes and has \d+"):
        _decode(bytes(whole), out)


@pytest.mark.parametrize("index", [(2**63, 5), (0, 2**63), (2**64 - 2, 4), (0, 10**9)])
def test_an_index_that_points_outside_is_refused(index: tuple[int, int]) -> None:
    raw = np.array([index], "<u8").tobytes()
    shard = np.frombuffer(b"\0" * 64 + raw + google_crc32c.value(raw).to_bytes(4, "little"), np.uint8)
    with pytest.raises(StoreError, match="here: holds fewer samples than the 1 expected, or points outside itself"):
        shard_bytes.read_index(shard, 1, 1, "here")


def test_only_the_codec_of_the_schema_is_run() -> None:
    out = np.empty(4096, np.int16)
    other = blosc.compress(np.arange(4096, dtype=np.int16), b"zlib", 5, blosc.SHUFFLE)
    with pytest.raises(StoreError, match=r"its codec is not lz4 \(blosc flags 0x\w+\): refused"):
        _decode(other, out)


def test_a_whole_chunk_in_anothers_place_is_refused() -> None:
    out = np.empty(4096, np.int16)
    whole = blosc.compress(np.arange(4096, dtype=np.int16), b"lz4", 5, blosc.BITSHUFFLE)
    _decode(whole, out)
    np.testing.assert_array_equal(out, np.arange(4096))
    with pytest.raises(StoreError, match="whole, but without the store's checksum: another shard's or store's"):
        _decode(whole, out, checksum=1234)


# Stores that are not finished, or another's


def test_unfinished_and_other_stores_are_refused(tmp_path: Path) -> None:
    half = stores.build(tmp_path / "half", done=2)
    with pytest.raises(StoreError, match=r"half: unfinished \(no manifest.json\)\. Run the drift-preprocess"):
        ShardStore(half.path)
    with pytest.raises(StoreError, match="no such store"):
        ShardStore(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="not a driftcal store"):
        ShardStore(tmp_path / "empty")


@pytest.mark.parametrize("version", [0, 1, schema.VERSION + 1, "2"])
def test_another_schema_version_is_refused_by_name(copy: Callable, version: object) -> None:
    built = copy("lz4")
    stores.rewrite(built.path, lambda tree: tree.update(schema_version=version, driftcal_version="0.0.7"))
    message = rf"written by schema version {version} \(driftcal 0\.0\.7\), needs version {schema.VERSION}"
    with pytest.raises(StoreError, match=message):
        ShardStore(built.path)


def test_a_split_without_samples_is_refused_with_a_remedy(tmp_path: Path) -> None:
    built = stores.build(tmp_path / "store", 4, n_drifters=7)
    with pytest.raises(StoreError, match=r"no sample of split 'test' \(it holds: train 3.*split\.test above 0"):
        ShardStore(built.path).samples_of("test")
    with pytest.raises(StoreError, match="'dev' is not a split; expected one of train, validation, test"):
        ShardStore(built.path).samples_of("dev")


def test_a_store_in_a_place_with_an_odd_name_opens(tmp_path: Path) -> None:
    built = stores.build(tmp_path / "a störe, with spaces")
    linked = tmp_path / "link"
    linked.symlink_to(built.path)
    assert verify(linked).ok
    assert len(ShardStore(linked)) == 11
