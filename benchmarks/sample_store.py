"""A finished store of windows cut at random from a made ocean, without preprocessing."""

from pathlib import Path
from typing import Any

import numpy as np

from driftcal.shared.store import files as store_files
from driftcal.shared.store import manifest, schema, shard_bytes
from driftcal.shared.store.manifest import FileEntry, Manifest
from driftcal.shared.store.schema import Compression, Layout

SHAPE = {"n_obs": 121, "n_times": 7, "n_lat": 48, "n_lon": 48, "obs_step": 3600, "time_step": 86_400}
N_SAMPLES = 16_384


def made_ocean(random: np.random.Generator, times: int = 24, n: int = 512) -> np.ndarray:
    """Geostrophic-like currents `(time, 2, lat, lon)` [counts] from a stream function with a red spectrum.

    A round continent covers a fifth of the square, so that windows near its coast hold fills.
    """
    k = np.fft.fftfreq(n)[:, None] * n, np.fft.rfftfreq(n)[None] * n
    length = np.hypot(*k)
    amplitude = length * (1 + (length / 12) ** 2) ** -2.2  # energy peaks near 12 waves in 64 degrees
    phase = random.uniform(0, 2 * np.pi, amplitude.shape)
    turn = random.normal(0, 0.15, amplitude.shape)  # a coefficient's turn a day
    fields = np.empty((times, 2, n, n))
    for day in range(times):
        stream = amplitude * np.exp(1j * (phase + turn * day))
        fields[day, 0] = np.fft.irfft2(-1j * k[0] * stream, (n, n))
        fields[day, 1] = np.fft.irfft2(1j * k[1] * stream, (n, n))
    fields *= 0.25 / fields.std() / schema.SCALE
    counts = np.clip(np.round(fields), -32_000, 32_000).astype(np.int16)
    row, column = np.mgrid[:n, :n] - n / 2
    counts[..., np.hypot(row, column) < n / 4] = schema.FILL
    return counts


def make(path: Path, ocean: np.ndarray, compression: Compression) -> None:
    """Writes a finished store of windows cut from `ocean` at random."""
    layout = Layout(N_SAMPLES, lat_step=0.125, lon_step=0.125, compression=compression, **SHAPE)
    random = np.random.default_rng(1)
    n, (times, _, height, width) = N_SAMPLES, ocean.shape
    day, row, column = (
        random.integers(0, most - size, n)
        for most, size in ((times, layout.n_times), (height, layout.n_lat), (width, layout.n_lon))
    )
    corner = np.stack([-32 + 0.125 * column, -32 + 0.125 * row], axis=-1)
    steps = random.normal(0, 0.004, (n, layout.n_obs, 2)).cumsum(axis=1)
    window = np.int64(1_456_617_600) + day * 86_400
    labels = {
        "origin": corner + 2.9,
        "start_time": window + 40_000,
        "window_time": window,
        "window_corner": corner,
        "drifter": np.arange(n, dtype=np.int32) // 8,
        "drogue": np.ones(n, np.int8),
        "split": np.zeros(n, np.int8),
        "status": np.zeros(n, np.int8),
        "source": np.zeros(n, np.int8),
        "source_row": np.arange(n, dtype=np.int64) * layout.n_obs,
    }
    positions = (steps - steps[:, :1]).astype(np.float32)
    files: dict[str, FileEntry] = {}
    for shard in range(layout.n_shards):
        held = layout.samples_of(shard)
        values = {name: array[held.start : held.stop] for name, array in labels.items()}
        values["positions"] = positions[held.start : held.stop]
        values["currents"] = np.stack(
            [
                ocean[d : d + layout.n_times, :, r : r + layout.n_lat, c : c + layout.n_lon].swapaxes(0, 1)
                for d, r, c in zip(day[held], row[held], column[held], strict=True)
            ]
        )
        for spec, content in shard_bytes.encode_shard(layout, values):
            entry = manifest.write_file(path / spec.file_of(shard), content)
            files[spec.file_of(shard)] = FileEntry(entry.size, entry.sha256, (held.start, held.stop))
    trees: dict[str, Any] = {
        store_files.metadata_of(spec): shard_bytes.metadata(spec, n, layout.samples_per_shard, compression)
        for spec in schema.arrays(layout)
    }
    trees[store_files.GROUP] = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    trees[store_files.DRIFTERS] = {"drifters": [str(k) for k in range(n // 8)]}
    files |= {name: manifest.write_file(path / name, manifest.to_bytes(tree)) for name, tree in trees.items()}
    splits = {"train": {"samples": n, "drifters": n // 8}}
    held = Manifest("benchmark", layout, files, {}, {}, (), splits, (), "benchmark")
    manifest.write_file(path / manifest.NAME, manifest.to_bytes(held.as_json()))
