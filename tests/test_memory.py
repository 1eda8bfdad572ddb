"""F12: the memory that preprocessing takes does not grow with the record."""

import json
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import yaml

from tests import sources

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc"),
]

LAT, LON = -10 + 0.25 * np.arange(48), 100 + 0.25 * np.arange(60)

PEAK = """
import sys
from pathlib import Path
from preprocess.__main__ import main
code = main(sys.argv[1:])
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print("peak", code, 1024 * int(status["VmHWM"].split()[0]))
"""
"""Resident memory at its highest, of this process alone: what `getrusage` says a child inherits from its parent."""


def record(folder: Path, years: int) -> None:
    """Daily currents, a file a year, and drifters: 60 at a time, of 90 days each."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    x, y = np.meshgrid(LON, LAT)
    for year in range(years):
        with netCDF4.Dataset(folder / f"currents-{year:02d}.nc", "w") as out:
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
    tracks = []
    for k in range(60 * 365 * years // 90):
        n = 90 * 24
        step = np.cumsum(rng.normal(0, 0.004, (n, 2)), axis=0)
        start = sources.START + 3600 * int(rng.integers(0, 24 * (365 * years - 90)))
        lon, lat = 107 + rng.uniform(-1, 1) + step[:, 0], -4 + rng.uniform(-1, 1) + step[:, 1]
        time = start + 3600 * np.arange(n)
        tracks.append(sources.Track(k, time, lon, lat, np.ones(n, np.int8), np.full(n, 3600.0)))
    sources.save(sources.ragged(tracks), folder / "drifters.nc")


def made(folder: Path, scheduler: str) -> tuple[int, int, int]:
    """Peak memory [bytes] of making a store from the `record` in `folder`, what was foretold, and its shards."""
    manifest = {
        "drifters": {"path": str(folder / "drifters.nc")},
        "currents": {"path": str(folder / "currents-*.nc")},
        "segment": {"stride_days": 20},
        "store": {"samples_per_shard": 128},
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    command = [str(folder / "manifest.yaml"), "--scheduler", scheduler, "--workers", "2", "--json"]
    said = []
    for more in (["--dry-run"], []):
        run = [sys.executable, "-c", PEAK, *command, "--out", str(folder / f"store-{scheduler}"), *more]
        ended = subprocess.run(run, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        said.append(ended.stdout)
    foretold = json.loads(said[0][: said[0].rindex("peak")])["estimate"]
    word, code, peak = said[1].splitlines()[-1].split()
    assert (word, code) == ("peak", "0"), said[1]
    return int(peak), foretold["memory_bytes"], foretold["shards"]


def test_f12_ten_years_take_the_memory_of_one(tmp_path: Path) -> None:
    peaks = {}
    for years in (1, 10):
        record(tmp_path / str(years), years)
        for scheduler in ("synchronous", "threads"):
            peak, foretold, shards = made(tmp_path / str(years), scheduler)
            print(f"{years} years, {scheduler}: {peak / 1e6:.0f} MB, foretold {foretold / 1e6:.0f} MB, {shards} shards")
            assert shards >= 6 * years  # enough of them that the first year already needs all that it ever will
            assert peak <= foretold
            peaks[scheduler, years] = peak
    for scheduler in ("synchronous", "threads"):
        assert peaks[scheduler, 10] < 1.1 * peaks[scheduler, 1]
