"""What making a store costs: against one xarray selection per sample, and against the least work there is.

    python -m benchmarks.preprocessing

The sources are those of `benchmarks.globe`, currents of 0.25 or 0.125 degrees. All candidates take turns on one core.
The floor decodes every day once, cuts, encodes and writes, in a plain loop, with the same codec; places, tracks,
labels, checks, checksums of files and syncs are for free there.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr
import zarr
from awscrt.checksums import crc32c
from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

from benchmarks.globe import DAY, START, make_currents, make_drifters, make_manifest
from benchmarks.measure import Timing, interleave, machine, on_one_core
from driftcal.preprocess.__main__ import main as preprocess
from driftcal.preprocess.sources.gridded import current_files
from driftcal.shared.disk import durable
from driftcal.shared.store.reader import ShardStore

SELECTIONS = 24
"""Samples that are selected one by one, from all over the store."""


def clear(folder: Path) -> None:
    """Deletes what an earlier round has written; in a child, whose time is not counted."""
    subprocess.run(["rm", "-rf", folder], check=True)


def end_to_end(manifest: str, out: Path) -> None:
    """drift-preprocess, from nothing."""
    clear(out)
    with redirect_stderr(StringIO()) as said, redirect_stdout(StringIO()):
        if preprocess([manifest, "--out", str(out), "--scheduler", "synchronous"]):
            sys.exit(said.getvalue())


class Places:
    """Where the samples of a finished store lie on the grid, in the order of the store."""

    def __init__(self, store: Path):
        opened = ShardStore(store)
        self.layout, label = opened.layout, opened.labels
        self.level = (label["window_time"] - START) // DAY
        cell = self.layout.lat_step
        self.n_lon = round(360 / cell)
        self.row = np.round((label["window_corner"][:, 1] + 90) / cell - 0.5).astype(int)
        self.column = np.round((label["window_corner"][:, 0] + 180) / cell - 0.5).astype(int) % self.n_lon

    def __len__(self) -> int:
        return len(self.level)


def select(path: str, kind: str, places: Places, chosen: np.ndarray) -> None:
    """One xarray selection per sample."""
    layout = places.layout
    engine: Any = {"zarr": "zarr", "nc": "netcdf4"}[kind]
    with xr.open_dataset(path, engine=engine, chunks=None) as dataset:
        for k in chosen:
            columns = places.column[k] + np.arange(layout.n_lon)
            straight = columns[-1] < places.n_lon
            dataset[["ugos", "vgos"]].isel(
                time=slice(places.level[k], places.level[k] + layout.n_times),
                latitude=slice(places.row[k], places.row[k] + layout.n_lat),
                longitude=slice(columns[0], columns[-1] + 1) if straight else columns % places.n_lon,
            ).load()


def floor(path: str, kind: str, places: Places, folder: Path) -> None:
    """Decodes each day once, cuts, encodes, writes."""
    layout = places.layout
    clear(folder)
    folder.mkdir()
    source: Any = zarr.open_group(path, mode="r") if kind == "zarr" else netCDF4.Dataset(path)
    if kind == "nc":
        source.set_auto_maskandscale(False)
    held: dict[int, np.ndarray] = {}
    for shard in range(layout.n_shards):
        samples = np.array(layout.samples_of(shard))
        out = np.empty((len(samples), 2, layout.n_times, layout.n_lat, layout.n_lon), np.int16)
        for k in np.argsort(places.level[samples], kind="stable"):
            sample = samples[k]
            first = int(places.level[sample])
            for day in [day for day in held if day < first]:
                del held[day]
            for day in range(first, first + layout.n_times):
                if day not in held:
                    held[day] = np.stack([source[name][day] for name in ("ugos", "vgos")]).astype(np.int16)
            row, column = places.row[sample], places.column[sample]
            for t in range(layout.n_times):
                field = held[first + t][:, row : row + layout.n_lat]
                if column + layout.n_lon <= places.n_lon:
                    out[k, :, t] = field[:, :, column : column + layout.n_lon]
                else:
                    edge = places.n_lon - column
                    out[k, :, t, :, :edge] = field[:, :, column:]
                    out[k, :, t, :, edge:] = field[:, :, : layout.n_lon - edge]
        with (folder / str(shard)).open("wb") as file:
            for window in out:
                chunk = blosc.compress(window, b"lz4", 5, blosc.BITSHUFFLE)
                file.write(chunk)
                file.write(crc32c(chunk).to_bytes(4, "little"))
    if kind == "nc":
        source.close()


@contextmanager
def counting() -> Iterator[tuple[Counter, Counter]]:
    """Counts the levels of each file that are decoded, and how often each file of a store is put in its place."""
    decoded, written = Counter(), Counter()
    true_stored, true_os = current_files.Layout.stored, durable.os

    def stored(self: Any, dataset: xr.Dataset, role: str, start: int, stop: int, path: str) -> np.ndarray:
        decoded.update((path, role, level) for level in range(start, stop))
        return true_stored(self, dataset, role, start, stop, path)

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(true_os, name)

        def replace(self, source: Path, target: Path) -> None:
            written[str(target)] += 1
            true_os.replace(source, target)

    current_files.Layout.stored = stored
    durable.os = Watched()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield decoded, written
    finally:
        current_files.Layout.stored, durable.os = true_stored, true_os


def count(manifest: str, out: Path) -> dict[str, int]:
    """How often what is decoded and written, in one run."""
    with counting() as (decoded, written):
        end_to_end(manifest, out)
    files = {name: n for name, n in written.items() if "/c/" in name}
    return {
        "source_chunks": len(decoded),
        "decoded": sum(decoded.values()),
        "shard_files": len(files),
        "written": sum(files.values()),
    }


def measure(folder: Path, days: int, cell: float, rounds: int) -> dict[str, Any]:
    """All that the table says, for both kinds of source."""
    paths, drifters = make_currents(folder, days, cell), make_drifters(folder, days)
    found: dict[str, Any] = {"machine": machine(), "days": days, "cell": cell}
    for kind, path in paths.items():
        manifest, out = make_manifest(folder, drifters, kind, path), folder / f"store-{kind}"
        counts = count(manifest, out)
        places = Places(out)
        chosen = np.linspace(0, len(places) - 1, SELECTIONS).astype(int)
        timings: dict[str, Timing] = interleave(
            {
                "end to end": (lambda m=manifest, o=out: end_to_end(m, o), len(places)),
                "floor": (lambda p=path, k=kind, w=places: floor(p, k, w, folder / "floor"), len(places)),
                "selection": (lambda p=path, k=kind, w=places, c=chosen: select(p, k, w, c), SELECTIONS),
            },
            rounds,
        )
        found[kind] = {
            "samples": len(places),
            **{f"{name.replace(' ', '_')}_us": 1e3 * timing.cpu_ms for name, timing in timings.items()},
            "against_selection": timings["selection"].ratio,
            "of_the_floor": timings["floor"].ratio,
            **counts,
        }
    return found


def main() -> None:
    """Prints the table, or JSON."""
    to = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    to.add_argument("--days", type=int, default=365, help="days of currents (default: %(default)s)")
    to.add_argument("--cell", type=float, default=0.25, help="their cells in degrees (default: %(default)s)")
    to.add_argument("--rounds", type=int, default=3, help="of all candidates (default: %(default)s)")
    to.add_argument("--json", action="store_true", help="print JSON")
    options = to.parse_args()
    on_one_core()
    with tempfile.TemporaryDirectory(prefix="driftcal-bench-") as folder:
        found = measure(Path(folder), options.days, options.cell, options.rounds)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['machine']}; CPU time on one core, medians of {options.rounds} interleaved rounds\n")
    print("| | daily zarr | daily NetCDF |\n|---|---|---|")
    both = found["zarr"], found["nc"]
    rows = {
        "samples": "{samples}",
        "one xarray selection per sample, µs": "{selection_us:,.0f}",
        "end to end, µs a sample": "{end_to_end_us:.0f}",
        "floor, µs a sample": "{floor_us:.0f}",
        "end to end against one selection per sample": "{against_selection:.0f}×",
        "end to end, of the floor's speed": "{of_the_floor:.2f}",
        "source chunks / decoded": "{source_chunks} / {decoded}",
        "shard files / written": "{shard_files} / {written}",
    }
    for name, form in rows.items():
        print(f"| {name} | {' | '.join(form.format(**each) for each in both)} |")


if __name__ == "__main__":
    main()
