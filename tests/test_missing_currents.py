"""Currents that are not there: exact zeros, absent chunks, ranges and packings that the numbers contradict."""

import pickle
import re
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import scipy.ndimage
import xarray as xr
import zarr

from driftcal.preprocess.__main__ import main
from driftcal.preprocess.recipe import CurrentSource
from driftcal.preprocess.sources.gridded.currents import Currents
from driftcal.preprocess.sources.gridded.open_currents import open_currents
from driftcal.shared.errors import DataError
from driftcal.shared.store.schema import FILL, STATUS
from tests import fields, sources
from tests.fields import DAY, START

Capture = pytest.CaptureFixture[str]
LON, LAT = 30 + 0.25 * np.arange(37), -40 + 0.25 * np.arange(29)
NY, NX = LAT.size, LON.size


def eddies(nt: int = 8, speed: float = 0.25, seed: int = 0) -> np.ndarray:
    """Smooth currents [m/s] `(nt, 2, lat, lon)` in 1e-4 m/s: noise of a scale of two cells, another every level."""
    noise = np.random.default_rng(seed).normal(0, 1, (nt, 2, NY, NX))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 0, 2, 2))
    return np.rint(1e4 * speed * smooth / smooth.std()) / 1e4


def raw(speeds: np.ndarray, kind: str = "int32", scale: float = 1e-4, offset: float = 0.0) -> xr.Dataset:
    """The currents as a product stores them: packed where `kind` is an integer; NaN is the fill."""
    ds = fields.field(LON, LAT, len(speeds), kind="float64")
    for name, values in zip(("ugos", "vgos"), np.moveaxis(speeds, 1, 0), strict=True):
        attrs: dict[str, Any] = {"units": "m/s"}
        if np.dtype(kind).kind in "iu":
            fill = np.iinfo(kind).max
            packed = np.where(np.isnan(values), fill, np.rint((np.nan_to_num(values) - offset) / scale))
            attrs |= {"scale_factor": scale, "add_offset": offset, "_FillValue": np.array(fill, kind)[()]}
            values = packed
        ds[name] = (ds[name].dims, values.astype(kind), attrs)
    return ds


def opened(path: str, **options: Any) -> Currents:
    return open_currents(CurrentSource(path=path, **options))


def everything(ds: xr.Dataset, tmp_path: Path, **options: Any) -> np.ndarray:
    """All levels as they are read from a file of `ds`, `(nt, 2, lat, lon)`."""
    currents = opened(fields.save(ds, tmp_path / "currents.nc"), **options)
    return currents.read(0, currents.time.size)


def due(speeds: np.ndarray) -> np.ndarray:
    """What is to be read of currents [m/s]: counts of 1e-4 m/s, FILL where either is NaN."""
    lost = np.isnan(speeds).any(axis=1, keepdims=True)
    return np.where(lost, FILL, np.rint(np.nan_to_num(speeds) * 1e4)).astype(np.int16)


def refused(path: str, *texts: str, **options: Any) -> None:
    with pytest.raises(DataError) as caught:
        opened(path, **options)
    for text in texts:
        assert text in str(caught.value)


# ---- exact zeros that stand for missing currents

BLANKS = {
    "a whole level": (np.s_[:, :, :], (0, 1)),
    "a chunk": (np.s_[:, 8:16, 10:20], (0, 1)),
    "a chunk at the corner": (np.s_[:, :4, :5], (0, 1)),
    "a row": (np.s_[:, 11, :], (0, 1)),
    "the last columns of a grid": (np.s_[:, :, -1:], (0, 1)),
    "all but a corner": (np.s_[:, 5:, :], (0, 1)),
    "a whole component": (np.s_[:, :, :], (1,)),
    "a chunk of a component": (np.s_[:, 8:16, 10:20], (0,)),
    "the last rows of a component": (np.s_[:, -2:, :], (1,)),
}


@pytest.mark.parametrize("kind", ["int32", "int16", "float32", "float64"])
@pytest.mark.parametrize("name", BLANKS)
def test_zeros_over_the_sea_are_missing(tmp_path: Path, name: str, kind: str) -> None:
    speeds = eddies()
    speeds[:, :, 20:, 25:30] = np.nan  # land, some of it beside the zeros
    (_, rows, columns), components = BLANKS[name]
    expected = due(speeds)
    for component in components:
        part = speeds[2, component, rows, columns]
        part[~np.isnan(part)] = 0.0
    expected[2, :, rows, columns] = FILL
    np.testing.assert_array_equal(everything(raw(speeds, kind), tmp_path), expected)


def test_raw_zeros_of_packed_numbers_with_an_offset_are_missing(tmp_path: Path) -> None:
    """An absent chunk of them is -1.5 m/s, or whatever the offset is."""
    speeds = eddies()
    expected = due(speeds)
    ds = raw(speeds, "uint16", offset=-1.5)
    for name in ("ugos", "vgos"):
        ds[name].values[3, 5:12, 3:9] = 0  # as stored
        ds[name].values[4, 15:22, 3:9] = 15_000  # 0 m/s
    expected[3, :, 5:12, 3:9] = expected[4, :, 15:22, 3:9] = FILL
    np.testing.assert_array_equal(everything(ds, tmp_path), expected)


def test_ice_and_land_given_as_zeros_are_missing_and_land(tmp_path: Path) -> None:
    speeds = eddies(12)
    speeds[:, :, 10:14, 5:12] = 0.0
    speeds[7:, :, 14:20, 5:12] = 0.0  # ice comes, and stays
    expected = due(speeds)
    expected[:, :, 10:14, 5:12] = expected[7:, :, 14:20, 5:12] = FILL
    path = fields.save(raw(speeds), tmp_path / "currents.nc")
    currents = opened(path)
    np.testing.assert_array_equal(currents.read(0, 12), expected)
    land = np.zeros((NY, NX), bool)
    land[10:14, 5:12] = True
    np.testing.assert_array_equal(currents.land(), land)
    assert currents.odd(np.arange(12)).blank == {START + k * DAY: 42 for k in range(7, 12)}


def test_a_component_that_is_zero_on_every_level_makes_no_land(tmp_path: Path) -> None:
    speeds = eddies()
    speeds[:, 1, 8:16, 10:20] = 0.0
    expected = due(speeds)
    expected[:, :, 8:16, 10:20] = FILL
    currents = opened(fields.save(raw(speeds), tmp_path / "currents.nc"))
    np.testing.assert_array_equal(currents.read(0, 8), expected)
    currents.land()
    assert currents.odd(np.arange(8)).blank == dict.fromkeys(range(START, START + 8 * DAY, DAY), 80)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_zeros_that_were_decoded_are_missing(tmp_path: Path, kind: str) -> None:
    """An offset and a scale that are no round numbers leave no exact 0."""
    speeds = eddies()
    expected = due(speeds)
    speeds[2, :, 8:16, 10:20] = 0.1 + 0.2 - 0.3
    assert (speeds[2, :, 8:16, 10:20].astype(kind) != 0).all()
    expected[2, :, 8:16, 10:20] = FILL
    np.testing.assert_array_equal(everything(raw(speeds, kind), tmp_path), expected)


def coarse(speeds: np.ndarray, step: float) -> np.ndarray:
    return np.rint(speeds / step) * step


def vortex(nt: int = 8) -> np.ndarray:
    """A vortex that moves through water at rest: far from it even 1e-4 m/s are too many."""
    j, i = np.mgrid[:NY, :NX]
    out = np.zeros((nt, 2, NY, NX))
    for t in range(nt):
        y, x = j - 14.0 - 0.3 * t, i - 12.0 - 1.2 * t
        swirl = np.exp(-(x**2 + y**2) / 8.0)
        out[t] = -y * swirl, x * swirl
    return coarse(out, 1e-4)


def gentle(nt: int = 8) -> np.ndarray:
    """A vortex that ends within the grid, in water at rest, and moves."""
    j, i = np.mgrid[:NY, :NX]
    out = np.zeros((nt, 2, NY, NX))
    for t in range(nt):
        y, x = j - 14.0 - 0.3 * t, i - 12.0 - 1.2 * t
        swirl = 0.1 * np.clip(1 - (x**2 + y**2) / 100.0, 0, None) ** 2
        out[t] = -y * swirl, x * swirl
    return coarse(out, 1e-4)


def straight(nt: int = 8) -> np.ndarray:
    """A jet that goes straight eastward over a third of the grid, and meanders then."""
    y, x = np.arange(NY)[:, None] - 14.0, np.arange(NX)
    jet = 0.5 * np.exp(-((y / 5.0) ** 2)) + 0 * x
    bend = 0.3 * jet * np.where(x > 12.3, np.sin((x - 12.3) / 4.0) ** 2, 0.0)
    return coarse(np.stack([np.stack([jet * (1 + 0.02 * t), bend * (1 + 0.05 * t)]) for t in range(nt)]), 1e-4)


def cells(nt: int = 8) -> np.ndarray:
    """Taylor-Green cells: u is 0 along rows of the grid, v along columns."""
    y, x = np.pi * np.arange(NY)[:, None] / 7, np.pi * np.arange(NX) / 9
    flow = np.stack([np.sin(y) * np.cos(x), -np.cos(y) * np.sin(x)])
    return coarse(0.4 * flow * (1 + 0.1 * np.arange(nt))[:, None, None, None], 1e-4)


SLOW = {
    "a sea in steps of 1 cm/s": coarse(eddies(speed=0.1), 0.01),
    "a slow sea in steps of 1 cm/s": coarse(eddies(speed=0.01), 0.01),
    "a sea that hardly moves": coarse(eddies(speed=2e-4), 1e-4),
    "calm cells here and there": np.where(np.random.default_rng(5).random((8, 1, NY, NX)) < 0.004, 0.0, eddies()),
    "a vortex in water at rest": vortex(),
    "a vortex that ends": gentle(),
    "a jet that is straight at first": straight(),
    "cells between walls": cells(),
    "one uniform flow": np.broadcast_to(np.array([0.2, -0.1])[:, None, None], (8, 2, NY, NX)).copy(),
    "noise in steps of 10 cm/s": coarse(np.random.default_rng(6).normal(0, 0.3, (8, 2, NY, NX)), 0.1),
    "noise in steps of 1 cm/s": coarse(np.random.default_rng(7).normal(0, 0.1, (8, 2, NY, NX)), 0.01),
}


@pytest.mark.parametrize("kind", ["int32", "float64"])
@pytest.mark.parametrize("name", SLOW)
def test_still_water_is_read(tmp_path: Path, name: str, kind: str) -> None:
    speeds = SLOW[name]
    assert (speeds == 0).any() == (name != "one uniform flow")
    np.testing.assert_array_equal(everything(raw(speeds, kind), tmp_path), due(speeds))


@pytest.mark.parametrize("step", [1e-4, 1e-3, 1e-2, 5e-2])
def test_a_missing_chunk_is_told_from_a_sea_in_coarse_steps(tmp_path: Path, step: float) -> None:
    speeds = coarse(eddies(), step)
    expected = due(speeds)
    speeds[5, :, 9:20, 14:26] = 0.0
    expected[5, :, 9:20, 14:26] = FILL
    found = everything(raw(speeds), tmp_path)
    # cells beside the chunk that are 0 belong to the patch: nothing tells them apart
    beside = (found == FILL) & (expected != FILL)
    assert (due(speeds)[beside] == 0).all()
    assert beside.sum() < 2 * 20
    np.testing.assert_array_equal(found[~beside], expected[~beside])


def test_a_component_that_is_always_zero_is_refused_until_the_manifest_says_so(tmp_path: Path) -> None:
    speeds = eddies()
    speeds[:, 1] = 0.0
    speeds[4, 0, 5:9, 5:9] = 0.0
    expected = due(speeds)
    expected[4, :, 5:9, 5:9] = FILL
    path = fields.save(raw(speeds), tmp_path / "currents.nc")
    refused(path, "'vgos' is exactly 0 over all of the sea on the 8 levels", "set currents.always_zero: v")
    np.testing.assert_array_equal(opened(path, always_zero="v").read(0, 8), expected)
    refused(path, "set currents.always_zero: v", always_zero="u")
    moving = fields.save(raw(eddies()), tmp_path / "moving.nc")
    refused(moving, "at 2016-03-03T00:00:00 'ugos' is not", "Remove currents.always_zero", always_zero="u")
    refused(
        fields.save(raw(0 * speeds), tmp_path / "zero.nc"),
        "the currents are exactly 0 everywhere",
        "Check the download",
    )


def test_levels_of_zeros_in_the_middle_and_at_the_ends_do_not_hide_the_others(tmp_path: Path) -> None:
    speeds = eddies(9)
    speeds[[0, 4, 8]] = 0.0
    expected = due(speeds)
    expected[[0, 4, 8]] = FILL
    np.testing.assert_array_equal(everything(raw(speeds), tmp_path), expected)


# ---- through the whole of preprocessing


def _manifest(folder: Path, currents: str, **tree: Any) -> str:
    """Drifters of two days that start every day, in the middle of the field, for `currents`."""
    tracks = [fields.walk(900 + k, 34.0 + 0.1 * k, -36.5, n=49, start=START + DAY * k) for k in range(9)]
    drifters = sources.save(sources.ragged(tracks), folder / "drifters.nc")
    return fields.manifest(
        folder, drifters, currents, **({"segment": {"days": 2}, "window": {"half_width_deg": 1.0}} | tree)
    )


GONE = (5, 6)
"""Levels that are missing."""


def _zeros(folder: Path) -> str:
    ds = fields.field(LON, LAT, 12)
    for name in ("ugos", "vgos"):
        ds[name].values[list(GONE)] = 0
    return fields.save(ds, folder / "currents.nc")


def _unwritten(folder: Path, version: int, shards: bool) -> str:
    ds = fields.field(LON, LAT, 12)
    for name in ("ugos", "vgos"):
        del ds[name].attrs["_FillValue"]
    path = folder / "currents.zarr"
    encoding: dict[str, Any] = {name: {"chunks": (1, 10, NX)} for name in ("ugos", "vgos")}
    if shards:
        encoding = {name: {"chunks": (1, 10, NX), "shards": (12, 30, NX)} for name in encoding}
    if shards:
        for name in ("ugos", "vgos"):
            ds[name].values[list(GONE)] = 0  # never written: chunks of nothing but the fill value
    ds.to_zarr(path, zarr_format=version, consolidated=False, encoding=encoding)
    for name in ("ugos", "vgos"):
        array = zarr.open_group(path, mode="r")[name]
        assert isinstance(array, zarr.Array)
        if not shards:
            for level in GONE:
                for row in range(3):
                    (path / name / array.metadata.encode_chunk_key((level, row, 0))).unlink()
        assert (array[GONE[0]] == 0).all()
    return str(path)


SOURCES = {
    "zeros": _zeros,
    "zarr v2": lambda folder: _unwritten(folder, 2, shards=False),
    "zarr v3": lambda folder: _unwritten(folder, 3, shards=False),
    "zarr v3 shards": lambda folder: _unwritten(folder, 3, shards=True),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_windows_on_missing_levels_are_dropped_and_said(tmp_path: Path, capsys: Capture, kind: str) -> None:
    source = SOURCES[kind](tmp_path)
    store = fields.make(_manifest(tmp_path, source, store={"samples_per_shard": 4}), tmp_path / "store")
    first = (store.labels["window_time"] - START) // DAY
    gone = (first + store.layout.n_times > GONE[0]) & (first <= GONE[1])
    np.testing.assert_array_equal(store.labels["status"], gone)
    assert 2 < gone.sum() < len(store) - 1
    assert fields.funnel(store)["samples"] == (int((~gone).sum()), {STATUS[1]: int(gone.sum())})
    plain = fields.save(fields.field(LON, LAT, 12), tmp_path / "whole.nc")
    for sample in np.flatnonzero(~gone):
        np.testing.assert_array_equal(store.currents.read([sample])[0], fields.selected(plain, store, sample))
    said = (
        f"WARNING: currents {source}: 2 of 12 levels hold exact zeros over the sea, in {NY * NX} cells "
        "(2016-03-04T00:00:00, 2016-03-05T00:00:00)"
    )
    (note,) = [note for note in store.manifest.notes if "exact zeros" in note]
    assert note.startswith(said)
    assert note in capsys.readouterr().err
    absent = [note for note in store.manifest.notes if "are not in the store" in note]
    assert len(absent) == (0 if kind == "zeros" else 2)
    if absent:
        assert re.search(r"6 of 36 chunks of 'ugos' are not in the store, and 0 is read there", absent[0])
    assert main([str(tmp_path / "manifest.yaml"), "--out", str(tmp_path / "dry"), "--dry-run"]) == 0
    assert said in capsys.readouterr().err


def test_absent_chunks_with_a_fill_value_that_nobody_declared_are_refused(tmp_path: Path) -> None:
    ds = fields.field(LON, LAT, 12)
    expected = due(np.stack([ds[name].values * 1e-4 for name in ("ugos", "vgos")], axis=1))
    expected[6:9] = FILL
    for name in ("ugos", "vgos"):
        ds[name].attrs = {"units": "m/s", "scale_factor": 1e-4}
        ds[name].encoding = {"chunks": (3, NY, NX), "fill_value": -20000}
    path = tmp_path / "currents.zarr"
    ds.to_zarr(path, zarr_format=3, consolidated=False)
    for name in ("ugos", "vgos"):
        (path / name / "c" / "2" / "0" / "0").unlink()
    refused(str(path), "1 of 4 chunks of 'ugos'", "fill_value -20000", "attribute `_FillValue` -20000")
    group = zarr.open_group(path, mode="r+")
    for name in ("ugos", "vgos"):
        group[name].attrs["_FillValue"] = -20000
    np.testing.assert_array_equal(opened(str(path)).read(0, 12), expected)


def test_chunks_that_a_server_does_not_have_are_missing(tmp_path: Path) -> None:
    """A 404 is no error to zarr: it reads its fill value."""
    path = Path(_unwritten(tmp_path, 3, shards=False))
    memory = fsspec.filesystem("memory")
    memory.put(str(path), "/missing-currents.zarr", recursive=True)
    currents = opened("memory://missing-currents.zarr")
    expected = np.stack([fields.field(LON, LAT, 12)[name].values for name in ("ugos", "vgos")], axis=1)
    expected[list(GONE)] = FILL
    np.testing.assert_array_equal(currents.read(0, 12), expected)


def test_other_processes_say_what_they_met(tmp_path: Path) -> None:
    currents = opened(_zeros(tmp_path))
    assert not currents.land().any()
    part = pickle.loads(pickle.dumps(currents.part(np.arange(4, 9))))
    part.read(0, 5)
    assert part.odd(np.arange(5)).blank == {START + k * DAY: NY * NX for k in GONE}
    assert part.odd(np.arange(3, 5)).blank == {}


def test_nothing_is_left_of_a_record_whose_zeros_are_everywhere_but_in_one_level(
    tmp_path: Path, capsys: Capture
) -> None:
    ds = fields.field(LON, LAT, 12)
    for name in ("ugos", "vgos"):
        ds[name].values[np.arange(12) % 3 > 0] = 0
    manifest = _manifest(tmp_path, fields.save(ds, tmp_path / "currents.nc"))
    assert main([manifest, "--out", str(tmp_path / "store")]) == 1
    said = capsys.readouterr().err
    assert "no window can be used" in said
    assert "9 of 9 windows, 'currents missing at times in the window'" in said
    assert re.search(r"error: .* 8 of 12 levels hold exact zeros over the sea", said)


def test_levels_that_repeat_the_one_before_are_warned_of(tmp_path: Path) -> None:
    ds = fields.field(LON, LAT, 12)
    for name in ("ugos", "vgos"):
        ds[name].values[5:7] = ds[name].values[4]
    source = fields.save(ds, tmp_path / "currents.nc")
    store = fields.make(_manifest(tmp_path, source, store={"samples_per_shard": 2}), tmp_path / "store")
    assert (store.labels["status"] == 0).all()
    (note,) = [note for note in store.manifest.notes if "repeat the level before" in note]
    assert note.startswith(
        f"WARNING: currents {source}: 2 of 12 levels repeat the level before them exactly (2016-03-04T00:00:00, "
        "2016-03-05T00:00:00)"
    )


def test_what_a_shard_says_of_repeats_depends_on_its_levels_alone(tmp_path: Path) -> None:
    """Another shard, or planning, may have met the same levels in this process, and not in another one."""
    speeds = eddies(6)
    speeds[3] = speeds[2]
    currents = opened(fields.save(raw(speeds), tmp_path / "currents.nc"))
    currents.read(0, 6)
    assert currents.odd(np.array([3, 4, 5])).repeated == ()
    assert currents.odd(np.array([2, 3])).repeated == (int(currents.time[3]),)


def test_a_steady_record_repeats_nothing(tmp_path: Path) -> None:
    ds = fields.field(LON, LAT, 12)
    for name in ("ugos", "vgos"):
        ds[name].values[:] = ds[name].values[4]
    store = fields.make(_manifest(tmp_path, fields.save(ds, tmp_path / "currents.nc")), tmp_path / "store")
    assert not [note for note in store.manifest.notes if "repeat the level" in note]


# ---- packings and ranges that the numbers contradict


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize(("scale", "offset"), [(0.01, 0.0), (1e-3, 0.0), (1e-3, -0.5), (1e-4, 0.0)])
def test_floats_with_a_packing_left_over_are_refused(tmp_path: Path, kind: str, scale: float, offset: float) -> None:
    ds = raw(coarse(eddies(), scale), kind)
    for name in ("ugos", "vgos"):
        ds[name].attrs |= {"scale_factor": scale, "add_offset": offset}
    path = fields.save(ds, tmp_path / "currents.nc")
    refused(path, f"ugos: floats with scale_factor {scale:g}", "decoded already", "Remove the attributes scale_factor")
    for name in ("ugos", "vgos"):
        del ds[name].attrs["scale_factor"], ds[name].attrs["add_offset"]
    np.testing.assert_array_equal(everything(ds, tmp_path), due(coarse(eddies(), scale)))


def test_floats_that_are_plausible_without_their_scale_alone_are_refused(tmp_path: Path) -> None:
    ds = raw(eddies() * 1.00037, "float32")  # interpolated after they were decoded: no multiples of anything
    ds["vgos"].attrs["scale_factor"] = 0.01
    refused(fields.save(ds, tmp_path / "currents.nc"), "vgos: floats with scale_factor 0.01", "without it 0.1")


def test_floats_that_are_plausible_either_way_are_warned_of(tmp_path: Path) -> None:
    ds = raw(eddies(), "float64")
    ds["ugos"].attrs["scale_factor"] = 0.5
    currents = opened(fields.save(ds, tmp_path / "currents.nc"))
    (note,) = [note for note in currents.notes if "WARNING" in note]
    assert re.search(r"ugos: floats with scale_factor 0.5, decoded by it .* median is 0.07", note)
    expected = due(eddies() * np.array([0.5, 1.0])[:, None, None])
    np.testing.assert_array_equal(currents.read(0, 8), expected)


@pytest.mark.parametrize("whole", [True, False])
def test_packed_floats_are_read_as_they_say(tmp_path: Path, whole: bool) -> None:
    """Counts as floats, and centimetres that a scale factor makes metres."""
    ds = raw(np.rint(eddies() * 1e4) if whole else eddies() * 100, "float64")
    for name in ("ugos", "vgos"):
        ds[name].attrs["scale_factor"] = 1e-4 if whole else 0.01
    currents = opened(fields.save(ds, tmp_path / "currents.nc"))
    np.testing.assert_array_equal(currents.read(0, 8), due(eddies()))
    assert not [note for note in currents.notes if "WARNING" in note]


@pytest.mark.parametrize("attributes", [
    {"valid_min": np.int16(-6000), "valid_max": np.int16(6000)},
    {"valid_range": np.array([-6000, 6000], np.int16)},
    {"valid_min": -0.6, "valid_max": 0.6},
    {"valid_range": np.array([-6000.0, 6000.0])},
    {"valid_range": np.array([-1, 1], np.int16)},
])  # fmt: skip
def test_numbers_out_of_their_valid_range_are_missing_whichever_numbers_it_is_for(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    speeds = eddies()
    limit = 1.0 if np.abs(attributes.get("valid_range", [9]))[0] == 1 else 0.6
    ds = raw(speeds, "int16")
    ds["ugos"].attrs |= attributes
    currents = opened(fields.save(ds, tmp_path / "currents.nc"))
    found = currents.read(0, 8)
    notes = " ".join(currents.notes)
    if attributes.get("valid_range", [0])[0] == -6000.0 and attributes["valid_range"].dtype.kind == "f":
        np.testing.assert_array_equal(found, due(speeds))  # of decoded ones all are inside
        return
    speeds[:, :] = np.where(np.abs(coarse(speeds[:, :1], 1e-4)) > limit + 1e-9, np.nan, speeds)
    np.testing.assert_array_equal(found, due(speeds))
    if limit == 0.6:
        assert 5 < (found == FILL).sum() < 0.1 * found.size
        assert re.search(r"ugos: [\d.]+ % of the numbers are out of the valid range", notes)
    else:
        assert re.search(r"valid range -1 to 1 taken for that of decoded numbers, as \d+ % of the stored", notes)


def test_a_valid_range_that_cuts_through_the_currents_is_warned_of(tmp_path: Path) -> None:
    ds = raw(eddies(), "float32")
    ds["ugos"].attrs["valid_max"] = np.float32(0.3)
    notes = opened(fields.save(ds, tmp_path / "currents.nc")).notes
    assert any(re.search(r"^WARNING: .*ugos: 1\d % of the numbers are out of", note) for note in notes)
    ds["ugos"].attrs["valid_max"] = np.float32(1.0)
    ds["ugos"].values[:, 3, 4] = 1.5  # one that is wrong indeed
    notes = opened(fields.save(ds, tmp_path / "spike.nc")).notes
    assert any("ugos: 0.093 % of the numbers are out of" in note for note in notes)
    assert not any("WARNING" in note for note in notes)


def test_units_by_which_nothing_moves_are_warned_of(tmp_path: Path) -> None:
    ds = raw(eddies(), "float32")
    for name in ("ugos", "vgos"):
        ds[name].attrs["units"] = "cm/s"
    path = fields.save(ds, tmp_path / "currents.nc")
    warned = [note for note in opened(path).notes if "WARNING" in note]
    assert len(warned) == 2
    assert re.search(r"ugos: by its units 'cm/s' the median is 0\.001\d m/s, .* as m/s it would be 0\.1\d", warned[0])
    stated = opened(path, units="m/s")
    assert not [note for note in stated.notes if "WARNING" in note]
    np.testing.assert_array_equal(stated.read(0, 8), due(eddies()))


def test_a_valid_range_that_no_reading_fits_is_refused(tmp_path: Path) -> None:
    ds = raw(eddies(), "float32")
    ds["vgos"].attrs["valid_range"] = np.array([0.0, 20_000.0], np.float32)  # of numbers packed with an offset
    path = fields.save(ds, tmp_path / "currents.nc")
    refused(path, "vgos", "of the stored numbers are out of the valid range 0 to 20000", "Correct or remove")


def test_flags_out_of_the_valid_range_are_missing_however_many(tmp_path: Path) -> None:
    speeds = eddies()
    speeds[:, :, :20] = np.nan
    ds = raw(np.where(np.isnan(speeds), -90.0, speeds), "float64")
    for name in ("ugos", "vgos"):
        ds[name].attrs["valid_min"] = -50.0
    np.testing.assert_array_equal(everything(ds, tmp_path), due(speeds))


@pytest.mark.parametrize("kind", ["int16", "int32", "float32", "float64"])
def test_what_netcdf_fills_in_is_missing_without_being_declared(tmp_path: Path, kind: str) -> None:
    default = {"int16": -32767, "int32": -2147483647}.get(kind, 9.969209968386869e36)
    speeds = eddies()
    ds = raw(speeds, kind)
    for name in ("ugos", "vgos"):
        ds[name].attrs.pop("_FillValue", None)
        ds[name].encoding["_FillValue"] = None
        ds[name].values[3, 5:9, 7:20] = default
    speeds[3, :, 5:9, 7:20] = np.nan
    np.testing.assert_array_equal(everything(ds, tmp_path), due(speeds))


def test_bytes_of_the_other_sign_are_read_as_meant(tmp_path: Path) -> None:
    counts = np.random.default_rng(3).integers(1, 250, (8, 2, NY, NX))
    ds = raw(eddies())
    for k, name in enumerate(("ugos", "vgos")):
        attrs = {"units": "m/s", "scale_factor": 0.01, "add_offset": -1.25, "_Unsigned": "true"}
        ds[name] = (ds[name].dims, counts[:, k].astype(np.uint8).view(np.int8), attrs)
    np.testing.assert_array_equal(everything(ds, tmp_path), due(counts * 0.01 - 1.25))


@pytest.mark.parametrize("declared", [True, False])
def test_the_fill_value_0_of_zarr_v2_is_no_declaration(tmp_path: Path, declared: bool) -> None:
    speeds = eddies()
    speeds[2, 0, 5, 7] = speeds[4, 1, 9, 3] = 0.0
    ds = raw(speeds)
    path = tmp_path / "currents.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for name, variable in ds.variables.items():
        array = group.create_array(
            str(name), shape=variable.shape, dtype=variable.dtype, fill_value=0, config={"write_empty_chunks": True}
        )
        array[...] = variable.values
        attrs = {key: np.asarray(x).item() if key != "units" else x for key, x in variable.attrs.items()}
        if str(name) in ("ugos", "vgos"):
            del attrs["_FillValue"]
            attrs |= {"_FillValue": 0} if declared else {}
        array.attrs.update({"_ARRAY_DIMENSIONS": list(variable.dims), **attrs})
    if declared:
        speeds[2, :, 5, 7] = speeds[4, :, 9, 3] = np.nan
    currents = opened(str(path))
    np.testing.assert_array_equal(currents.read(0, 8), due(speeds))


def test_the_fill_value_0_of_packed_numbers_with_an_offset_was_chosen(tmp_path: Path) -> None:
    """0 is no current there, and xarray writes what is declared as the array's fill value alone."""
    speeds = eddies()
    speeds[:, :, 5, 7] = np.nan
    ds = raw(speeds)
    for name in ("ugos", "vgos"):
        meant = np.where(np.isnan(speeds[:, ("ugos", "vgos").index(name)]), np.nan, ds[name].values * 1e-4)
        stored = np.where(np.isnan(meant), 0, np.rint((meant + 3.0) / 1e-4)).astype(np.uint16)
        attrs = {"units": "m/s", "scale_factor": 1e-4, "add_offset": -3.0, "_FillValue": np.uint16(0)}
        ds[name] = (ds[name].dims, stored, attrs)
    path = tmp_path / "currents.zarr"
    ds.to_zarr(path, zarr_format=2, consolidated=False)
    assert "_FillValue" not in zarr.open_group(path, mode="r")["ugos"].attrs
    np.testing.assert_array_equal(opened(str(path)).read(0, 8), due(speeds))
