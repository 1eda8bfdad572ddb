"""The memory that preprocessing takes does not grow with the record, at the Global Drifter Program's density."""

import json
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr
import yaml

from driftcal.preprocess.__main__ import main
from driftcal.preprocess.drift import plan
from driftcal.preprocess.writing import estimate
from tests import sources

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc"),
]

LAT, LON = -10 + 0.25 * np.arange(48), 100 + 0.25 * np.arange(60)

DRIFTERS, FIXES, SEGMENTS = 1250, 2401, 20
"""Drifters that start in a year, the fixes of each, and the segments of five days in them: 25,000 a year, 68 a day."""

PEAK = """
import sys
from pathlib import Path
from driftcal.preprocess.__main__ import main
code = main(sys.argv[1:])
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print("peak", code, 1024 * int(status["VmHWM"].split()[0]))
"""
"""Resident memory at its highest, of this process alone: what `getrusage` says a child inherits from its parent."""


def currents(path: Path, year: int) -> None:
    """A year of daily currents."""
    x, y = np.meshgrid(LON, LAT)
    with netCDF4.Dataset(path, "w") as out:
        for name, values in (("time", 365 * year + np.arange(365.0)), ("lat", LAT), ("lon", LON)):
            out.createDimension(name, len(values))
            out.createVariable(name, "f8", (name,))[:] = values
        out["time"].units = "days since 2010-01-01"
        for name, angle in (("ugos", 0.0), ("vgos", 1.1)):
            field = out.createVariable(name, "i4", ("time", "lat", "lon"), chunksizes=(1, 48, 60))
            field.setncatts({"units": "m/s", "scale_factor": 1e-4})
            field.set_auto_maskandscale(False)
            day = 365 * year + np.arange(365)[:, None, None]
            field[:] = np.rint(3000 * np.sin(x / 2 + angle + day / 20) * np.cos(y / 2 - angle)).astype(np.int32)


def drifters(path: Path, years: int) -> None:
    """A ragged array of drifters that start at any time; a year's number of them is made at once."""
    rng = np.random.default_rng(5)
    with netCDF4.Dataset(path, "w") as out:
        out.createDimension("traj", DRIFTERS * years)
        out.createDimension("obs", DRIFTERS * years * FIXES)
        out.createVariable("rowsize", "i4", ("traj",))[:] = FIXES
        out.createVariable("id", "i8", ("traj",))[:] = 300_234_060_000_000 + np.arange(DRIFTERS * years)
        kinds = {"time": "i8", "lat": "f4", "lon": "f4", "gap": "f4", "drogue_status": "i1"}
        fixes = {name: out.createVariable(name, kind, ("obs",)) for name, kind in kinds.items()}
        fixes["time"].units, fixes["gap"].units = "seconds since 1970-01-01", "seconds"
        for year in range(years):
            part = slice(year * DRIFTERS * FIXES, (year + 1) * DRIFTERS * FIXES)
            hour = rng.integers(0, 24 * (365 * years - 102), (DRIFTERS, 1)) + np.arange(FIXES)
            lon, lat = np.cumsum(rng.normal(0, 0.004, (2, DRIFTERS, FIXES)), axis=-1)
            fixes["time"][part] = (sources.START + 3600 * hour).ravel()
            fixes["lon"][part] = (107 + rng.uniform(-3, 3, (DRIFTERS, 1)) + lon).ravel()
            fixes["lat"][part] = (-4 + rng.uniform(-3, 3, (DRIFTERS, 1)) + lat).ravel()
            fixes["gap"][part], fixes["drogue_status"][part] = 3600.0, 1


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Path]]:
    """Folders with one and ten years of currents, a file a year, and of drifters."""
    folders = {years: tmp_path_factory.mktemp(f"years-{years}-") for years in (1, 10)}
    for years, folder in folders.items():
        drifters(folder / "drifters.nc", years)
        for year in range(years):
            currents(folder / f"currents-{year:02d}.nc", year)
    yield folders
    for path in (path for folder in folders.values() for path in folder.rglob("*.nc")):
        path.unlink()


def manifest(record: Path) -> str:
    """The data manifest of a record. Windows are small, so that making a shard takes little."""
    tree = {
        "drifters": {"path": str(record / "drifters.nc")},
        "currents": {"path": str(record / "currents-*.nc")},
        "window": {"half_width_deg": 0.5},
    }
    (record / "manifest.yaml").write_text(yaml.safe_dump(tree))
    return str(record / "manifest.yaml")


def peak_of_making(record: Path, store: Path, scheduler: str, options: Sequence[str] = ()) -> tuple[int, int, int]:
    """Peak memory [bytes] of making a store from `record`, what was foretold, and its samples."""
    command = [manifest(record), "--scheduler", scheduler, "--workers", "2", "--json", "--out", str(store), *options]
    said = []
    for more in (["--dry-run"], []):
        run = [sys.executable, "-c", PEAK, *command, *more]
        ended = subprocess.run(run, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        said.append(ended.stdout)
    foretold = json.loads(said[0][: said[0].rindex("peak")])["estimate"]
    word, code, peak = said[1].splitlines()[-1].split()
    assert (word, code) == ("peak", "0"), said[1]
    return int(peak), foretold["memory_bytes"], foretold["samples"]


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_ten_years_take_the_memory_of_one(
    tmp_path: Path, records: dict[int, Path], scheduler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What grows with the record weighs most where windows are small."""
    peaks = {}
    for years, record in records.items():
        store = tmp_path / f"store-{years}"
        peak, foretold, samples = peak_of_making(record, store, scheduler)
        with capsys.disabled():
            print(f"\n{years} years, {scheduler}: {peak / 1e6:.0f} MB, foretold {foretold / 1e6:.0f} MB")
        shutil.rmtree(store)
        assert samples == DRIFTERS * SEGMENTS * years
        assert peak <= foretold
        peaks[years] = peak
    assert peaks[10] < 1.1 * peaks[1]


def test_planning_takes_no_more_memory_of_a_sample_than_is_foretold(
    tmp_path: Path, records: dict[int, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planning, which holds most of a sample, takes no more of one than `estimate.SEGMENT_BYTES`."""
    true, peaks = plan.plan, {}

    def traced(*arguments: Any) -> plan.Plan:
        tracemalloc.reset_peak()
        made = true(*arguments)
        peaks[made.layout.n_samples] = tracemalloc.get_traced_memory()[1]
        return made

    monkeypatch.setattr(plan, "plan", traced)
    for record in records.values():
        tracemalloc.start(1)
        try:
            assert main([manifest(record), "--out", str(tmp_path / "store"), "--dry-run", "--json"]) == 0
        finally:
            tracemalloc.stop()
    (few, low), (many, high) = sorted(peaks.items())
    with capsys.disabled():
        print(f"\nplanning: {(high - low) / (many - few):.0f} bytes a sample")
    assert many == 10 * few == 10 * DRIFTERS * SEGMENTS
    assert high - low <= estimate.SEGMENT_BYTES * (many - few)


def test_long_chunks_take_no_more_memory_than_is_foretold(tmp_path: Path, records: dict[int, Path]) -> None:
    """A year of floats in chunks of half of it: to read a day decodes all of its chunk."""
    lon, lat = 95 + 0.1 * np.arange(240), -14 + 0.1 * np.arange(200)
    x, y = np.meshgrid(lon, lat)
    day = np.arange(365)[:, None, None]
    fields = {
        name: (("time", "latitude", "longitude"), (0.3 * np.sin(x / 2 + a + day / 20) * np.cos(y / 2 - a)).astype("f4"))
        for name, a in (("ugos", 0.0), ("vgos", 1.1))
    }
    time = ("time", sources.START + 86_400 * np.arange(365), {"units": "seconds since 1970-01-01"})
    whole = xr.Dataset(fields, {"time": time, "latitude": lat, "longitude": lon})
    for name in fields:
        whole[name].attrs["units"] = "m/s"
    chunks = {name: {"chunks": (183, 200, 240)} for name in fields}
    whole.to_zarr(tmp_path / "currents.zarr", zarr_format=2, consolidated=True, encoding=chunks)
    shutil.copy(records[1] / "drifters.nc", tmp_path / "drifters.nc")
    for workers in ("2", "4"):
        more = ["--set", f"currents={{path: {tmp_path / 'currents.zarr'}}}", "--workers", workers]
        peak, foretold, _ = peak_of_making(tmp_path, tmp_path / f"store-{workers}", "threads", more)
        assert peak <= foretold
        assert foretold < 4 * peak  # and not by far too much
