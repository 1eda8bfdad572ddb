"""Zarr stores of drifters that lack chunks: told whether that is an unfinished copy, as far as it can be told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from driftcal.preprocess.recipe import DrifterSource
from driftcal.preprocess.sources.absent_chunks import absences
from driftcal.preprocess.sources.drifters.drifters import open_drifters
from driftcal.preprocess.sources.drifters.fixes import Fixes
from driftcal.preprocess.sources.files import opened
from driftcal.shared.errors import DataError
from tests import sources


def read(path: Path, **settings: Any) -> Fixes:
    (block,) = open_drifters(DrifterSource.model_validate({"path": str(path), **settings})).blocks()
    return block


def saved(ds: xr.Dataset, path: Path, version: int, **options: Any) -> Path:
    ds.to_zarr(path, zarr_format=version, consolidated=False, **options)
    return path


def unlink(path: Path, name: str, *places: tuple[int, ...]) -> None:
    array = zarr.open_group(path, mode="r")[name]
    assert isinstance(array, zarr.Array)
    for place in places:
        (path / name / array.metadata.encode_chunk_key(place)).unlink()


def chunked(size: int, names: tuple[str, ...] = ("lat", "lon", "time")) -> dict[str, Any]:
    return {"encoding": {name: {"chunks": (size,)} for name in names}}


TRACKS = [sources.track(7, 12), sources.track(8, 9, 12.0, 40.0), sources.track(9, 11, 178.5, 3.0)]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("role", "chunk"), [("lat", 0), ("time", 3), ("lon", 6)])
def test_a_chunk_that_was_not_copied_is_refused(tmp_path: Path, version: int, role: str, chunk: int) -> None:
    ds = sources.ragged(TRACKS)
    if version == 2:
        ds[role].attrs["_FillValue"] = ds[role].dtype.type(0)  # what zarr's own writers declare without being asked
    path = saved(ds, tmp_path / "d.zarr", version, **chunked(5))
    if version == 3 and role != "time":  # xarray writes NaN
        group = zarr.open_group(path, mode="a", zarr_format=3)
        values, attrs = group[role][:], dict(group[role].attrs)
        array = group.create_array(
            role, shape=values.shape, chunks=(5,), dtype=values.dtype, fill_value=0.0, dimension_names=["obs"],
            overwrite=True,
        )  # fmt: skip
        array[:] = values
        array.attrs.update(attrs)
    unlink(path, role, (chunk,))
    with pytest.raises(
        DataError, match=f"1 of 7 chunks of '{role}' are not in the store, and 0(.0)? would be read"
    ) as e:
        read(path)
    assert "set drifters.absent_chunks: fill in the manifest" in str(e.value)
    assert "write_empty_chunks=True" in str(e.value)


def test_positions_that_are_the_fill_value_are_read_when_the_manifest_says_so(tmp_path: Path) -> None:
    """On the equator a chunk of latitudes is 0, and zarr does not write it."""
    rows = [sources.track(7, 12, lat=0.0), sources.track(8, 9, 12.0, 40.0)]
    rows[0].lat[:] = 0.0
    ds = sources.ragged(rows)
    path = tmp_path / "d.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    for name, variable in ds.variables.items():
        array = group.create_array(
            str(name), shape=variable.shape, chunks=(6,) if variable.dims == ("obs",) else variable.shape,
            dtype=variable.dtype, fill_value=0, dimension_names=list(variable.dims),
        )  # fmt: skip
        array[...] = variable.values
        array.attrs.update(variable.attrs)
    assert not (path / "lat" / "c" / "0").exists()
    with pytest.raises(DataError, match=r"2 of 4 chunks of 'lat' are not in the store, and 0\.0 would be read there"):
        read(path)
    np.testing.assert_array_equal(read(path, absent_chunks="fill").lat, ds.lat.values)
    for role in ("lat", "lon"):  # the other remedy
        group.create_array(
            role, shape=(21,), chunks=(6,), dtype="f8", fill_value=0, dimension_names=["obs"], overwrite=True,
            config={"write_empty_chunks": True},
        )[:] = ds[role].values  # fmt: skip
    np.testing.assert_array_equal(read(path).lat, ds.lat.values)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("fill", [np.nan, -999.0])
def test_chunks_of_nothing_but_padding_are_not_missed(tmp_path: Path, version: int, fill: float) -> None:
    rows = [sources.track(7, 12), sources.track(8, 3, 12.0, 40.0)]
    ds = sources.table(rows)
    names = ("lat", "lon", "time")
    encoding: dict[str, Any] = {name: {"chunks": (1, 4), "_FillValue": fill} for name in names}
    if version == 3:
        encoding = {name: {"chunks": (1, 4), "fill_value": fill} for name in names}
        for name in names:
            ds[name].attrs["_FillValue"] = fill
    for name in names:
        ds[name].values[:] = ds[name].fillna(fill).values
    path = saved(ds, tmp_path / "d.zarr", version, encoding=encoding)
    with opened(str(path), "d") as dataset:
        (absence, *_) = absences(str(path), dataset, names)
    assert (absence.absent, absence.chunks, absence.is_missing) == (2, 6, True)
    np.testing.assert_array_equal(read(path).lat, np.concatenate([row.lat for row in rows]))


def test_a_single_number_that_is_the_fill_value_is_not_missed(tmp_path: Path) -> None:
    """A drifter 0, of a single fix, its drogue lost, on the equator: zarr v2 writes none of these."""
    row = sources.Track(0, np.array([0]), np.array([0.0]), np.array([0.0]), np.zeros(1, np.int8), np.array([60.0]))
    ds = sources.ragged([row])
    group = zarr.open_group(tmp_path / "d.zarr", mode="w", zarr_format=2)
    for name, variable in ds.variables.items():
        array = group.create_array(str(name), shape=variable.shape, dtype=variable.dtype, fill_value=0)
        array[...] = variable.values
        array.attrs.update({"_ARRAY_DIMENSIONS": list(variable.dims), **variable.attrs})
    fixes = read(tmp_path / "d.zarr", drogue="any")
    assert (fixes.lat[0], fixes.lon[0], fixes.time[0], fixes.drogue[0]) == (0.0, 0.0, 0, 0)
    assert fixes.drifter == {0: "0"}


def test_ids_that_were_not_copied_are_refused(tmp_path: Path) -> None:
    ds = sources.ragged(TRACKS)
    ds["id"].encoding["_FillValue"] = None
    path = saved(ds, tmp_path / "d.zarr", 3, encoding={"id": {"chunks": (2,)}})
    unlink(path, "id", (0,))
    with pytest.raises(DataError, match="1 of 2 chunks of 'id' are not in the store, and 0 would be read there"):
        read(path)


@pytest.mark.parametrize("location", ["start", "end"])
def test_chunks_that_a_shard_lacks_are_missed(tmp_path: Path, location: str) -> None:
    """In an array that ends within a shard and within a chunk."""
    ds = sources.ragged(TRACKS)
    path = saved(ds, tmp_path / "d.zarr", 3)
    codec = zarr.codecs.ShardingCodec(chunk_shape=(3,), index_location=location)
    array = zarr.create_array(
        path / "time", shape=(32,), chunks=(12,), dtype="i8", fill_value=0, serializer=codec, compressors=None,
        filters=None, dimension_names=["obs"], overwrite=True,
    )  # fmt: skip
    array.attrs.update(ds.time.attrs)
    values = ds.time.values.copy()
    values[15:21] = 0
    array[:] = values
    with opened(str(path), "d") as dataset:
        (absence,) = absences(str(path), dataset, ["lat", "lon", "time"])
    assert (absence.name, absence.absent, absence.chunks) == ("time", 2, 11)
    with pytest.raises(DataError, match="2 of 11 chunks of 'time' are not in the store, and 0 would be read there"):
        read(path)
    array[:] = ds.time.values
    np.testing.assert_array_equal(read(path).time, ds.time.values)


@pytest.mark.parametrize("version", [2, 3])
def test_what_was_never_written_is_refused_whatever_the_manifest_says(tmp_path: Path, version: int) -> None:
    path = saved(sources.ragged(TRACKS), tmp_path / "d.zarr", version, **chunked(16))
    unlink(path, "lat", (0,), (1,))
    with pytest.raises(DataError, match="2 of 2 chunks of 'lat' are not in the store, only their metadata"):
        read(path, absent_chunks="fill")


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("role", ["lat", "lon"])
def test_positions_with_a_packing_left_over_are_refused(tmp_path: Path, role: str, kind: str) -> None:
    ds = sources.ragged([sources.track(7, 40)])
    ds[role] = ("obs", np.round(ds[role].values, 2).astype(kind), {"scale_factor": 0.01})
    with pytest.raises(DataError, match=f"'{role}': floats with scale_factor 0.01, but they are decoded already"):
        read(Path(sources.save(ds, tmp_path / "d.nc")))
    packed = sources.ragged([sources.track(7, 40)])
    packed[role] = ("obs", np.rint(ds[role].values * 100).astype(kind), {"scale_factor": 0.01})
    found = read(Path(sources.save(packed, tmp_path / "packed.nc")))
    np.testing.assert_allclose(getattr(found, role), ds[role].values, atol=1e-5)
