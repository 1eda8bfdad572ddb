"""drift-preprocess from end to end: real files, the same bytes however it is run, and one message for every error."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr
import yaml

from driftcal.preprocess.__main__ import main
from driftcal.preprocess.drift import candidates as surveying
from driftcal.preprocess.drift import segments, windows
from driftcal.preprocess.drift.candidates import Survey, record, survey
from driftcal.preprocess.drift.plan import POLEWARD
from driftcal.preprocess.recipe import Recipe
from driftcal.preprocess.sources import fingerprint
from driftcal.preprocess.sources.gridded.remarks import longest
from driftcal.preprocess.writing import build, shard_task, write
from driftcal.shared import geo
from driftcal.shared.__main__ import main as inspect
from driftcal.shared.errors import StoreError
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.verify import verify
from tests import fields, sources

Capture = pytest.CaptureFixture[str]


def refused(capsys: Capture, code: int, *arguments: str) -> str:
    """Runs the command, which must fail with one message, and returns it."""
    capsys.readouterr()
    assert main(list(arguments)) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert err.endswith(lines[0] + "\n")
    assert "Traceback" not in err + out
    return lines[0]


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """A small manifest of six samples in three shards."""
    return fields.small(tmp_path / "input", store={"samples_per_shard": 2})


# Real data


@pytest.mark.parametrize(
    ("max_latitude", "seam", "expected"),
    [
        (60.0, 0, {"broken": 1, "poleward": 167, "kept": 166}),
        # the grid turned, so that its seam lies among the drifters off Brazil
        (60.0, 322, {"broken": 1, "poleward": 167, "kept": 166}),
        # north of 75 N the product is masked by ice
        (84.0, 0, {"broken": 1, "poleward": 93, "land": 74, "kept": 166}),
    ],
)
def test_real_segments_against_a_global_day(
    tmp_path: Path, real_data: Path, max_latitude: float, seam: int, expected: dict[str, int]
) -> None:
    """334 five-day segments of eight drifters, up to 89 N, with one global day as a constant field."""
    drifters = real_data / "gdp_hourly_subset" / "observed_traj_subset.nc"
    currents = real_data / "duacs_global_20190223" / "nrt_global_allsat_phy_l4_20190223_20190226.nc"
    if seam:
        with xr.open_dataset(currents, mask_and_scale=False) as grid:
            turned = grid[["ugos", "vgos"]].roll(longitude=-4 * seam, roll_coords=True)
            lon = (turned.longitude.values - seam) % 360 + seam
            currents = tmp_path / "turned.nc"
            turned.assign_coords(longitude=("longitude", lon, grid.longitude.attrs)).to_netcdf(currents)
    path = fields.manifest(tmp_path, str(drifters), str(currents))
    store = fields.make(path, tmp_path / "store", "--set", f"currents={{path: {currents}, frozen: true}}",
                        "--set", f"window.max_latitude={max_latitude}")  # fmt: skip
    assert verify(tmp_path / "store").ok

    # counted anew, one segment at a time, by other means
    with xr.open_dataset(drifters) as tracks, xr.open_dataset(currents) as grid:
        lon, lat, time = tracks.lon.values, tracks.lat.values, tracks.time.values.astype("datetime64[s]")
        names, first = tracks.drifter_id.values, float(grid.longitude[0])
        dry = (np.isnan(grid.ugos) | np.isnan(grid.vgos)).values[0]
    due: dict[str, list[int]] = {}
    seen = set()
    for k in range(len(lon)):
        hours = np.diff(time[k]).astype(int)
        metres = geo.separation(np.stack([lon[k, 1:], lat[k, 1:]], -1), np.stack([lon[k, :-1], lat[k, :-1]], -1))
        if not np.isfinite(lon[k] + lat[k]).all() or (hours != 3600).any() or (metres > 3.0 * 3600).any():
            due.setdefault("broken", []).append(k)
            continue
        east = np.unwrap(lon[k], period=360)
        still = [max(np.ptp(east[i : i + 25]), np.ptp(lat[k, i : i + 25])) < 1e-4 for i in range(121 - 24)]
        middle = (lat[k].min() + lat[k].max()) / 2
        row = np.floor((lat[k] + 89.875) / 0.25).astype(int)
        column = np.floor((lon[k] - first) % 360 / 0.25).astype(int)
        corners = [dry[row + a, (column + b) % 1440] for a in (0, 1) for b in (0, 1)]
        if any(still):
            reason = "aground"
        elif (names[k], time[k, 0]) in seen:
            reason = "duplicate"
        elif abs(middle) > max_latitude:
            reason = "poleward"
        elif np.all(corners, axis=0).any():
            reason = "land"
        else:
            reason = "kept"
        seen.add((names[k], time[k, 0]))
        due.setdefault(reason, []).append(k)
    assert np.isfinite(lon + lat).all()  # the broken one is a step of 3.27 m/s
    found = fields.funnel(store)
    counts = {reason: len(rows) for reason, rows in due.items()}
    assert counts == expected
    assert found["fixes"] == (334 * 121, {})
    whole = 334 - counts.get("broken", 0)
    assert found["in whole segments"] == (
        whole * 121,
        {segments.LEFT_OVER[2]: (334 - whole) * 121} if whole < 334 else {},
    )
    assert found["segments"][0] == whole - counts.get("aground", 0) - counts.get("duplicate", 0)
    assert found["inside the record"] == (
        counts["kept"],
        {name: counts[key] for name, key in ((windows.ON_LAND, "land"), (POLEWARD, "poleward")) if key in counts},
    )
    assert found["samples"][0] == counts["kept"]
    got = {(store.drifters[d], t) for d, t in zip(store.labels["drifter"], store.labels["start_time"], strict=True)}
    assert got == {(str(names[k]), time[k, 0].astype(int)) for k in due["kept"]}
    assert (store.layout.n_times, store.layout.n_lat) == (7, 24)

    # windows that cross the seam of the grid, and some of the others
    west = (store.labels["window_corner"][:, 0] - seam) % 360
    crossing = np.flatnonzero(west + (store.layout.n_lon - 1) * 0.25 > 360)
    assert (len(crossing) > 10) == (seam == 322)
    for k in [*crossing[:20].tolist(), *range(0, len(store), 9)]:
        np.testing.assert_array_equal(store.currents.read([k])[0], fields.selected(str(currents), store, k))


@pytest.mark.parametrize(
    ("folder", "drifters", "currents", "tree"),
    [
        ("s1_gdp104099_2012-06", "traj_7ddb864.nc", "duacs_7ddb864.nc", {"window": {"half_width_deg": 0.8}}),
        (
            "s3_melodi_2025-06",
            "traj_for_sim.nc",
            "currents_for_sim.nc",
            {"segment": {"days": 4}, "window": {"half_width_deg": 0.55}},
        ),
    ],
)
def test_real_colocated_drifters(
    tmp_path: Path, real_data: Path, folder: str, drifters: str, currents: str, tree: dict[str, Any]
) -> None:
    paths = [str(real_data / folder / name) for name in (drifters, currents)]
    store = fields.make(fields.manifest(tmp_path, *paths, **tree), tmp_path / "store")
    assert verify(tmp_path / "store").ok
    assert len(store) == 1
    np.testing.assert_array_equal(store.currents.read([0])[0], fields.selected(paths[1], store, 0))
    with xr.open_dataset(paths[0]) as track:
        n = store.layout.n_obs
        lonlat = store.labels["origin"][0] + store.positions.read([0])[0].astype(float)
        np.testing.assert_allclose(lonlat, np.stack([track.lon.values[:n], track.lat.values[:n]], -1), atol=1e-6)
        assert store.labels["start_time"][0] == track.time.values[0].astype("datetime64[s]").astype(int)
        assert store.drifters == [str(track.drifter_id.values[0]).removesuffix(".0")]


# Determinism


def test_the_same_bytes_however_it_is_run(tmp_path: Path, manifest: str, capsys: Capture) -> None:
    fields.make(manifest, tmp_path / "a", "--scheduler", "synchronous")
    due = fields.digests(tmp_path / "a")
    for workers in (1, 2, 8):
        fields.make(manifest, tmp_path / f"t{workers}", "--scheduler", "threads", "--workers", str(workers))
        assert fields.digests(tmp_path / f"t{workers}") == due
    for order in ((1, 2, 3), (3, 1, 2), (2, 2, 3, 1)):
        out = tmp_path / f"parts-{'-'.join(map(str, order))}"
        for k in order:
            assert not (out / "manifest.json").exists()
            assert main([manifest, "--out", str(out), "--parts", f"{k}/3"]) == 0
        assert fields.digests(out) == due
    capsys.readouterr()


def test_the_same_bytes_from_processes(tmp_path: Path, manifest: str) -> None:
    fields.make(manifest, tmp_path / "a")
    fields.make(manifest, tmp_path / "b", "--scheduler", "processes", "--workers", "2")
    assert fields.digests(tmp_path / "a") == fields.digests(tmp_path / "b")


def test_a_second_run_changes_nothing(tmp_path: Path, manifest: str, capsys: Capture) -> None:
    out = tmp_path / "store"
    fields.make(manifest, out)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.rglob("*")}
    for options in ((), ("--parts", "2/5"), ("--json",), ("--dry-run",)):
        assert main([manifest, "--out", str(out), *options]) == 0
        assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.rglob("*") if path != out} == before
    capsys.readouterr()


def test_another_manifest_neither_continues_nor_replaces_a_store(
    tmp_path: Path, manifest: str, capsys: Capture
) -> None:
    out = tmp_path / "store"
    fields.make(manifest, out)
    before = fields.digests(out)
    other = ("--set", "segment.stride_days=1")
    message = refused(capsys, 2, manifest, "--out", str(out), *other)
    assert "is a finished store made from another manifest or other sources" in message
    assert fields.digests(out) == before
    # a wrong manifest takes nothing away, even with --overwrite
    refused(
        capsys, 1, manifest, "--out", str(out), "--overwrite", "--set", "segment.step=30min", "--set", "segment.days=1"
    )
    assert fields.digests(out) == before
    fields.make(manifest, out, "--overwrite", *other)
    assert fields.digests(out) != before
    assert not (out / ".building").exists()
    fields.make(manifest, out, "--overwrite")
    assert fields.digests(out) == before


def test_a_changed_source_is_refused(tmp_path: Path, manifest: str, capsys: Capture) -> None:
    assert main([manifest, "--out", str(tmp_path / "store"), "--parts", "1/3"]) == 0
    rows = [fields.walk(900 + k, 33.0, -37.0, n=49) for k in range(6)]
    sources.save(sources.ragged(rows), tmp_path / "input" / "drifters.nc")
    message = refused(capsys, 2, manifest, "--out", str(tmp_path / "store"), "--parts", "2/3")
    assert "was begun from another manifest or other sources" in message


@pytest.mark.parametrize("name", ["drifters.nc", "currents.nc"])
def test_a_large_source_that_changes_is_refused_by_name(
    tmp_path: Path, manifest: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Too large to be fingerprinted by its content; what it is replaced by has the same size."""
    monkeypatch.setattr(fingerprint, "WHOLE", 100)
    out, path = tmp_path / "store", tmp_path / "input" / name
    assert main([manifest, "--out", str(out), "--parts", "1/3"]) == 0
    assert main([manifest, "--out", str(out), "--parts", "2/3"]) == 0
    size = path.stat().st_size
    variable = {"drifters.nc": "lat", "currents.nc": "ugos"}[name]
    with netCDF4.Dataset(path, "a") as dataset:
        dataset.set_auto_maskandscale(False)
        values = dataset[variable]
        values[:] = values[:][::-1]
    assert path.stat().st_size == size
    message = refused(capsys, 2, manifest, "--out", str(out), "--parts", "3/3")
    assert "was begun from another manifest or other sources" in message
    assert f"{name.partition('.')[0]} {path} changed since" in message
    assert str(path.parent / ({"drifters.nc", "currents.nc"} - {name}).pop()) not in message
    fields.make(manifest, out, "--overwrite")
    assert "state" not in (out / "manifest.json").read_text()


def test_another_version_does_not_continue_a_store(
    tmp_path: Path, manifest: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "store"
    assert main([manifest, "--out", str(out), "--parts", "1/3"]) == 0
    assert "in the manifest store changed" in refused(
        capsys, 2, manifest, "--out", str(out), "--set", "store.samples_per_shard=3"
    )
    monkeypatch.setattr(build, "version", lambda _: "99.0")
    assert "this is 99.0 (schema" in refused(capsys, 2, manifest, "--out", str(out))


def test_a_scratch_file_that_is_gone_is_one_message(
    tmp_path: Path, manifest: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another run that finishes the store, or replaces it, takes it away."""
    out, true = tmp_path / "store", write.Writing.write

    def late(writing: write.Writing, *arguments: Any) -> bool:
        shutil.rmtree(out / ".building")
        return true(writing, *arguments)

    monkeypatch.setattr(write.Writing, "write", late)
    message = refused(capsys, 1, manifest, "--out", str(out))
    assert "another run has finished or replaced the store meanwhile" in message
    monkeypatch.setattr(write.Writing, "write", true)

    def gone(*arguments: Any) -> Survey:
        found = survey(*arguments)
        shutil.rmtree(out / ".building")
        return found

    monkeypatch.setattr(surveying, "survey", gone)
    message = refused(capsys, 1, manifest, "--out", str(out))
    assert "the tracks that this run plans with (FileNotFoundError" in message

    def cut_short(recipe: Recipe, sources: Any, scratch: Path, progress: bool) -> Survey:
        found = survey(recipe, sources, scratch, progress)
        os.truncate(scratch, 3 * record(recipe.segment.n_obs).itemsize + 100)
        return found

    monkeypatch.setattr(surveying, "survey", cut_short)
    message = refused(capsys, 1, manifest, "--out", str(out))
    assert "ends before segment 3)" in message


def test_a_run_that_comes_late_finds_the_store_finished(
    tmp_path: Path, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, true = tmp_path / "store", write.run
    other = tmp_path / "other"
    fields.make(manifest, other)

    def beaten(pending: list[shard_task.Pending], *arguments: Any) -> None:
        shutil.rmtree(out)
        shutil.copytree(other, out)
        true(pending, *arguments)

    monkeypatch.setattr(write, "run", beaten)
    fields.make(manifest, out)
    assert fields.digests(out) == fields.digests(other)


def test_a_task_is_small_however_long_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {}

    def weigh(pending: list[shard_task.Pending], *_: Any) -> None:
        sizes[levels] = max(len(pickle.dumps(task)) for task in pending)
        assert sorted({path for task in pending for c in task.task().currents.values() for path in c.paths})

    monkeypatch.setattr(write, "run", weigh)
    for levels in (8, 80):
        path = fields.small(tmp_path / str(levels), store={"samples_per_shard": 2})
        lon, lat = 30 + 0.25 * np.arange(29), -40 + 0.25 * np.arange(25)
        whole = fields.field(lon, lat, levels)
        (tmp_path / str(levels) / "currents.nc").unlink()
        for day in range(levels):
            fields.save(whole.isel(time=[day]), tmp_path / str(levels) / f"c{day:03d}.nc")
        currents = f"currents={{path: '{tmp_path}/{levels}/c*.nc'}}"
        assert main([path, "--out", str(tmp_path / f"s{levels}"), "--set", currents]) == 1  # nothing was written
    assert abs(sizes[80] - sizes[8]) < 100
    assert sizes[80] < 20_000


@pytest.mark.parametrize("broken", [0, 1, 2])
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_a_store_whose_writer_failed_is_continued(
    tmp_path: Path, manifest: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, broken: int, scheduler: str
) -> None:
    due = fields.digests(fields.make(manifest, tmp_path / "whole").root)
    true = shard_task.write_shard
    written: list[int] = []

    def failing(task: shard_task.ShardTask) -> int:
        if task.number == broken:
            raise StoreError(f"cannot write shard {broken}: No space left on device.")
        written.append(task.number)
        return true(task)

    monkeypatch.setattr(shard_task, "write_shard", failing)
    out = tmp_path / "store"
    how = ("--scheduler", scheduler, "--workers", "1")
    assert "No space left" in refused(capsys, 1, manifest, "--out", str(out), *how)
    assert not (out / "manifest.json").exists()
    assert not list(out.rglob("tracks*"))
    # what a killed writer leaves
    (out / "currents" / "c").mkdir(parents=True, exist_ok=True)
    (out / "currents" / "c" / ".0.999.part").write_bytes(b"half")
    (out / ".building" / "tracks-999.bin").write_bytes(b"half")
    done = set(written)
    written.clear()
    broken = -1
    assert main([manifest, "--out", str(out), *how]) == 0
    assert not done & set(written)
    assert fields.digests(out) == due
    capsys.readouterr()


def test_an_error_in_another_process_is_one_message_too(tmp_path: Path, manifest: str, capsys: Capture) -> None:
    out = tmp_path / "store"
    assert main([manifest, "--out", str(out), "--parts", "1/3"]) == 0
    (out / "currents" / "c" / "1" / "0" / "0" / "0" / "0").mkdir(parents=True)  # a folder where the shard's file goes
    message = refused(capsys, 1, manifest, "--out", str(out), "--scheduler", "processes", "--workers", "1")
    assert f"cannot write {out}/currents/c/1/0/0/0/0: Is a directory" in message


# Errors


def test_mistakes_in_the_manifest_are_refused(tmp_path: Path, manifest: str, capsys: Capture) -> None:
    out = ("--out", str(tmp_path / "store"))
    message = refused(capsys, 2, manifest, *out, "--set", "window.half_width=3")
    assert "unknown key 'window.half_width' (did you mean 'window.half_width_deg'?)" in message
    assert "segment.days: input should be a valid number" in refused(
        capsys, 2, manifest, *out, "--set", "segment.days=x"
    )
    assert "No such file" in refused(capsys, 2, str(tmp_path / "none.yaml"), *out)
    (tmp_path / "empty.yaml").write_text("")
    assert "key 'drifters' is required" in refused(capsys, 2, str(tmp_path / "empty.yaml"), *out)
    (tmp_path / "twice.yaml").write_text("name: a\nname: b\n")
    assert "'name' occurs twice" in refused(capsys, 2, str(tmp_path / "twice.yaml"), *out)
    assert not (tmp_path / "store").exists()


def test_a_period_without_drifters_is_refused(tmp_path: Path, manifest: str, capsys: Capture) -> None:
    out = ("--out", str(tmp_path / "store"))
    message = refused(capsys, 1, manifest, *out, "--set", "period.start=2031-01-01")
    assert "no sample is left" in message
    assert "6 outside the manifest's period" in message
    reversed_ = ("--set", "period.start=2017-01-01", "--set", "period.end=2016-01-01")
    assert "is not before end" in refused(capsys, 2, manifest, *out, *reversed_)


def test_output_and_input_inside_each_other_are_refused(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "input"
    path = fields.small(folder)
    lon, lat = 30 + 0.25 * np.arange(29), -40 + 0.25 * np.arange(25)
    zarr = fields.save(fields.field(lon, lat, 8), folder / "currents.zarr")
    before = fields.digests(folder)
    said = "lie inside each other. Choose another --out."
    for place in (
        zarr,
        f"{zarr}/store",
        f"{zarr}/deep/er/store",
        str(folder),
        str(tmp_path),
        f"{zarr}/../currents.zarr/x",
    ):
        for source in (zarr, f"{folder}/curr*.zarr", f"{folder}/*"):
            message = refused(capsys, 2, path, "--out", place, "--set", f"currents={{path: '{source}'}}", "--overwrite")
            assert said in message
    assert said in refused(capsys, 2, path, "--out", str(folder / "drifters.nc"))
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)
    assert said in refused(capsys, 2, path, "--out", str(link))
    assert fields.digests(folder) == before
    # beside the input is no harm
    fields.make(path, folder / "store", "--set", f"currents={{path: '{folder}/currents.n*'}}")


def test_an_output_folder_that_is_not_empty_is_refused(tmp_path: Path, manifest: str, capsys: Capture) -> None:
    out = tmp_path / "store"
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "a web page\'s"}')
    for options in ((), ("--overwrite",)):
        message = refused(capsys, 2, manifest, "--out", str(out), *options)
        assert "is not empty and not a driftcal store: choose another folder" in message
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
    (tmp_path / "file").write_text("x")
    assert "is a file; expected a folder" in refused(capsys, 2, manifest, "--out", str(tmp_path / "file"))
    said = refused(capsys, 2, manifest, "--out", str(tmp_path / "file" / "store"))
    assert "Not a directory. Choose another --out" in said
    (out / "manifest.json").unlink()
    fields.make(manifest, out)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--parts", "0/3"), "--parts '0/3': expected k/N"),
        (("--parts", "4/3"), "expected k/N with 1 <= k <= N, such as 3/8"),
        (("--parts", "²/3"), "expected k/N"),
        (("--parts", "1"), "expected k/N"),
        (("--workers", "0"), "--workers 0: expected at least 1"),
        (("--workers", "2", "--scheduler", "tcp://127.0.0.1:1"), "a cluster has the workers that it was started with"),
        (("--scheduler", "slurm"), "--scheduler 'slurm': expected one of threads"),
        (("--set", "window"), "--set 'window': expected key=value"),
    ],
)
def test_wrong_options(tmp_path: Path, manifest: str, capsys: Capture, options: tuple[str, ...], said: str) -> None:
    assert said in refused(capsys, 2, manifest, "--out", str(tmp_path / "a" / "store"), *options)
    assert not (tmp_path / "a").exists()


def test_a_scheduler_that_is_not_there(tmp_path: Path, manifest: str, capsys: Capture, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    message = refused(capsys, 2, manifest, "--out", str(tmp_path / "store"), "--scheduler", "tcp://127.0.0.1:1")
    assert "needs the package distributed" in message


def test_errors_leave_no_folder_behind(tmp_path: Path, manifest: str, capsys: Capture) -> None:
    tree = yaml.safe_load(Path(manifest).read_text())
    tree["drifters"]["path"] = str(tmp_path / "none.nc")
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(tree))
    refused(capsys, 1, str(tmp_path / "wrong.yaml"), "--out", str(tmp_path / "a" / "b" / "store"))
    tight = ("--set", "window.half_width_deg=0.01")
    refused(capsys, 2, manifest, "--out", str(tmp_path / "a" / "b" / "store"), *tight)
    assert not (tmp_path / "a").exists()
    (tmp_path / "kept").mkdir()
    refused(capsys, 2, manifest, "--out", str(tmp_path / "kept"), *tight)
    assert list((tmp_path / "kept").iterdir()) == []


def test_debug_shows_the_traceback(tmp_path: Path, capsys: Capture) -> None:
    assert main([str(tmp_path / "none.yaml"), "--out", str(tmp_path / "store"), "--debug"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("error: cannot read")


# What it prints


def test_json_is_all_there_is_on_stdout(tmp_path: Path, manifest: str, capsys: Capture) -> None:
    plan = (manifest, "--out", str(tmp_path / "store"), "--json")
    assert main([*plan, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    dry = fields.only_json(out)
    assert (dry["layout"]["n_samples"], dry["estimate"]["shards"], err) == (6, 3, "")
    assert [stage["kept"] for stage in dry["funnel"]][-1] == 6
    assert main([*plan, "--parts", "1/3"]) == 0
    part = fields.only_json(capsys.readouterr().out)
    assert (part["finished"], part["shards_done"]) == (False, 1)
    assert main([*plan]) == 0
    out, err = capsys.readouterr()
    whole = fields.only_json(out)
    assert (whole["finished"], whole["shards_done"], err) == (True, 3, "continuing: 1 of 3 shards are done.\n")
    assert whole["digest"] == ShardStore(tmp_path / "store").manifest.digest


@pytest.mark.parametrize(
    ("compression", "per_shard", "slack"),
    [("none", 2048, 1000), ("none", 4, 1000), ("lz4", 2048, None), ("lz4", 1, None)],
)
def test_a_store_is_no_larger_than_the_dry_run_says(
    tmp_path: Path, capsys: Capture, compression: str, per_shard: int, slack: int | None
) -> None:
    """All files: of a tiny store most are metadata and labels."""
    path = fields.small(tmp_path / "input", store={"samples_per_shard": per_shard, "compression": compression})
    assert main([path, "--out", str(tmp_path / "store"), "--dry-run", "--json"]) == 0
    said = fields.only_json(capsys.readouterr().out)["estimate"]["disk_bytes_at_most"]
    fields.make(path, tmp_path / "store")
    took = sum(file.stat().st_size for file in (tmp_path / "store").rglob("*") if file.is_file())
    assert took <= said
    if slack is not None:  # what the manifest might have had to say besides
        remarks = longest(f"currents {tmp_path / 'input' / 'currents.nc'}")
        assert said - took < slack + sum(len(remark) + 10 for remark in remarks)


def test_one_is_not_many(tmp_path: Path, capsys: Capture) -> None:
    path = fields.small(tmp_path / "input", [fields.walk(900, 33.0, -37.0, n=49)])
    assert main([path, "--out", str(tmp_path / "store")]) == 0
    out, err = capsys.readouterr()
    assert "; 1 sample in 1 shard; about" in err
    assert "as fast as 1 of its windows was cut just now" in err
    assert "train: 1 sample of 1 drifter." in err
    assert re.search("train +1 sample of 1 drifter\n", out)
    assert inspect(["verify", str(tmp_path / "store")]) == 0
    assert "files and 1 sample checked" in " ".join(capsys.readouterr().out.split())  # wrapped, by the path's length


def test_a_store_that_has_lost_its_manifest_is_neither_continued_nor_replaced(
    tmp_path: Path, manifest: str, capsys: Capture
) -> None:
    """And nothing says that it would be."""
    out = tmp_path / "store"
    fields.make(manifest, out)
    (out / "manifest.json").unlink()
    before = fields.digests(out)
    for options in ((), ("--overwrite",)):
        message = refused(capsys, 2, manifest, "--out", str(out), *options)
        assert "If it is a store that has lost its manifest.json, delete it first: it cannot be continued" in message
    for action in ("show", "verify"):
        assert inspect([action, str(out)]) == 1
        said = "".join(capsys.readouterr())
        assert "not a driftcal store (no manifest.json). Name a store" in " ".join(said.split())
        assert "it continues" not in said
    assert fields.digests(out) == before


def test_a_dry_run_writes_nothing(tmp_path: Path, manifest: str, capsys: Capture) -> None:
    before = fields.digests(tmp_path)
    for extra in ((), ("--overwrite",), ("--json",)):
        assert main([manifest, "--out", str(tmp_path / "a" / "store"), "--dry-run", *extra]) == 0
    assert fields.digests(tmp_path) == before
    assert not (tmp_path / "a").exists()
    assert "6 samples in 3 shards" in capsys.readouterr().err
    fields.make(manifest, tmp_path / "store")
    before = fields.digests(tmp_path)
    assert main([manifest, "--out", str(tmp_path / "store"), "--dry-run", "--overwrite", "--set", "name=b"]) == 0
    assert fields.digests(tmp_path) == before


def test_notes_tell_what_was_repaired_while_reading(tmp_path: Path) -> None:
    track = fields.walk(7, 33.5, -37.0, n=49)
    flat = sources.ragged([track]).isel(obs=np.r_[1, 0, 2:49])
    path = fields.small(tmp_path, [track])
    sources.save(flat, tmp_path / "drifters.nc")
    store = fields.make(path, tmp_path / "store")
    assert any("1 trajectories were out of order and were sorted" in note for note in store.manifest.notes)


@pytest.mark.parametrize(
    ("command", "name"), [("preprocess", "drift-preprocess"), ("shared", "drift-inspect"), ("train", "drift-train")]
)
def test_every_command_tells_its_version(command: str, name: str) -> None:
    arguments = [sys.executable, "-m", f"driftcal.{command}", "--version"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout == f"{name} {version('driftcal')}\n"


def test_the_help_of_training_needs_no_jax() -> None:
    code = "import sys; from driftcal.train.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'jax', 'scipy', 'matplotlib', 'xarray'} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("command", ["preprocess", "shared", "train"])
def test_help_shows_an_example(command: str) -> None:
    """Each command as a process of its own: nothing but the text, and no traceback on the way."""
    done = subprocess.run(
        [sys.executable, "-m", f"driftcal.{command}", "--help"], capture_output=True, text=True, check=True
    )
    assert "example:\n  drift-" in done.stdout
    assert "exit codes: 0 ok" in done.stdout
    assert done.stderr == ""


# A twin


def test_a_twin_is_made_once_and_its_store_is_continued(tmp_path: Path, capsys: Capture) -> None:
    tree = {
        "synthetic": {"folder": str(tmp_path / "twin"), "drifters": 4, "drifter_days": 8, "days": 12,
                      "lon": [20, 29], "lat": [-40, -32], "clean": True},
        "segment": {"days": 3},
        "window": {"half_width_deg": 1.5},
    }  # fmt: skip
    made = [str(tmp_path / "twin" / name) for name in ("drifters.nc", "currents/*.nc")]
    path = fields.manifest(tmp_path, *made, **tree)
    out = str(tmp_path / "store")
    assert "is not made yet" in refused(capsys, 2, path, "--out", out, "--dry-run")
    assert not (tmp_path / "twin").exists()
    assert "lie inside each other" in refused(capsys, 2, path, "--out", str(tmp_path))
    fields.make(path, tmp_path / "store")
    before = fields.digests(tmp_path)
    assert main([path, "--out", out]) == 0
    assert main([path, "--out", out, "--dry-run"]) == 0
    assert fields.digests(tmp_path) == before
    # other settings, another twin: its store is another too
    assert "finished store made from another" in refused(capsys, 2, path, "--out", out, "--set", "synthetic.cs=0.2")


def test_a_finished_store_that_lost_a_file_is_not_called_done(tmp_path: Path, manifest: str, capsys: Capture) -> None:
    store = tmp_path / "store"
    assert main([manifest, "--out", str(store)]) == 0
    assert main([manifest, "--out", str(store)]) == 0
    assert "is finished already: nothing to do" in capsys.readouterr().err
    (store / "currents/c/0/0/0/0/0").unlink()
    assert main([manifest, "--out", str(store)]) == 1
    assert "damaged: currents/c/0/0/0/0/0 is missing or has another size. Make it again with --overwrite" in (
        capsys.readouterr().err
    )
    assert main([manifest, "--out", str(store), "--overwrite"]) == 0
