"""Small real shard stores for tests, made from numpy arrays with the schema alone.

An eddying current (a few plane waves of a stream function) flows along a coast in the west; drifters follow it with
some noise. Every size is another number (7 levels of 12 x 16 cells, 41 fixes), so that a swapped axis cannot pass.
"""

import builtins
import errno
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from driftcal.shared import geo
from driftcal.shared.errors import StoreError
from driftcal.shared.native import checked_copy
from driftcal.shared.store import files as store_files
from driftcal.shared.store import manifest, schema, shard_bytes, unfinished
from driftcal.shared.store.manifest import FileEntry, Manifest, Stage
from driftcal.shared.store.reader import Copying, ShardStore
from driftcal.shared.store.schema import Layout

DAY = 86_400
FIRST = 1_456_660_800
"""2016-02-28T12:00:00Z: the first possible start, two days before the end of a leap February."""

SHAPE = {
    "n_obs": 41,
    "n_times": 7,
    "n_lat": 12,
    "n_lon": 16,
    "obs_step": 3 * 3600,
    "time_step": DAY,
    "lat_step": 0.25,
    "lon_step": 0.25,
}


@dataclass(frozen=True)
class Built:
    """A store on disk and what was put into it; `values` has every array of the schema, as stored."""

    path: Path
    layout: Layout
    values: dict[str, np.ndarray]
    drifters: list[str]
    held: Manifest


@dataclass(frozen=True)
class Ocean:
    """Plane waves of a stream function, and land west of a wavy coast. Positions are (lon, lat) [degrees]."""

    centre: tuple[float, float]
    wave: np.ndarray
    phase: np.ndarray
    speed: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, centre: tuple[float, float], modes: int = 6) -> "Ocean":
        length = rng.uniform(1.8, 4.5, modes)
        angle = rng.uniform(0, 2 * np.pi, modes)
        wave = 2 * np.pi / length * np.stack([np.cos(angle), np.sin(angle)])
        return cls(centre, wave.T, rng.uniform(0, 2 * np.pi, modes), rng.uniform(0.08, 0.22, modes))

    def coast(self, lat: np.ndarray) -> np.ndarray:
        """Longitude of the coast at `lat`."""
        return self.centre[0] - 4.0 + 0.5 * np.sin(1.7 * lat)

    def current(self, lonlat: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Eastward, northward current [m/s] at positions `[..., 2]` and times [s] that broadcast with them."""
        phase = lonlat @ self.wave.T + self.phase - np.asarray(time)[..., None] * (2 * np.pi / (40 * DAY))
        along = self.speed * np.cos(phase) / np.linalg.norm(self.wave, axis=-1)
        return np.stack([-(along * self.wave[:, 1]).sum(-1), (along * self.wave[:, 0]).sum(-1)], axis=-1)


def build(
    path: Path,
    n_samples: int = 11,
    *,
    compression: schema.Compression = "lz4",
    samples_per_shard: int = 4,
    seed: int = 0,
    n_drifters: int = 5,
    n_unusable: int = 1,
    centre: tuple[float, float] = (33.0, -36.0),
    done: int | None = None,
    change: Callable[[dict[str, np.ndarray]], Any] | None = None,
    **layout: Any,
) -> Built:
    """Writes a store into the new folder `path`.

    Args:
        path: The folder to make.
        n_samples: Samples; they start in order of time, two and a half days apart.
        compression: `lz4` or `none`.
        samples_per_shard: Samples in a shard.
        seed: Of currents and drifters.
        n_drifters: Drifters; the samples go round them. The last is for test, the one before for validation.
        n_unusable: Samples, from the second on, whose status says that currents are missing at times.
        centre: (lon, lat) around which the samples lie, within 3 and 2.5 degrees.
        done: Number of shards after which the writer stopped; None for a finished store.
        change: Changes the values in place before they are written, to make a store that is wrong.
        layout: Other fields of `schema.Layout`.
    """
    shape = Layout(
        n_samples=n_samples, samples_per_shard=samples_per_shard, compression=compression, **(SHAPE | layout)
    )
    values = samples(shape, seed, n_drifters, n_unusable, centre)
    if change is not None:
        change(values)
    drifters = [f"{300_234_060 + 17 * k}" for k in range(n_drifters)]
    recipe = {"name": "small", "segment": {"step": shape.obs_step}, "split": {"seed": seed}}
    sources = {
        "drifters": [{"path": "drifters.nc", "files": 1, "bytes": 1234, "variables": {"lat": ["latitude"]}}],
        "currents": [{"path": "currents.nc", "files": 1, "bytes": 5678, "variables": {"u": ["ugos"]}}],
    }
    files: dict[str, FileEntry] = {}
    marks = []
    for shard in range(shape.n_shards if done is None else done):
        marks.append(write_shard(path, shape, shard, values))
        files |= marks[-1]
    held = Manifest(
        name="small",
        layout=shape,
        files=files | ({} if done is not None else write_metadata(path, shape, drifters)),
        recipe=recipe,
        sources=sources,
        funnel=funnel(values),
        splits=splits(values),
        notes=("drifters.nc: latitude and longitude were found by their names",),
        driftcal_version="0.1.0",
    )
    if done is None:
        manifest.write_file(path / manifest.NAME, manifest.to_bytes(held.as_json()))
    else:
        states = {kind: [{"sha256": "0" * 64}] for kind in sources}
        begun = unfinished.Begun(recipe, sources, states, shape, held.driftcal_version)
        manifest.write_file(unfinished.plan_of(path), manifest.to_bytes(begun.as_json()))
        for shard, written in enumerate(marks):
            part = {name: array[list(shape.samples_of(shard))] for name, array in values.items()}
            mark = unfinished.Mark.of(written, part)
            manifest.write_file(unfinished.mark_of(path, shard), manifest.to_bytes(mark.as_json()))
    return Built(path, shape, values, drifters, held)


def samples(
    layout: Layout, seed: int, n_drifters: int, n_unusable: int, centre: tuple[float, float]
) -> dict[str, np.ndarray]:
    """Every array of a store with this layout."""
    rng = np.random.default_rng(seed)
    ocean = Ocean.random(rng, centre)
    n = layout.n_samples
    number = np.arange(n)
    start = FIRST + number * (5 * DAY // 2) + rng.integers(0, 24, n) * 3600
    track = _tracks(layout, ocean, rng, start)
    step = np.array([layout.lon_step, layout.lat_step])
    size = np.array([layout.n_lon, layout.n_lat])
    middle = (track.min(axis=1) + track.max(axis=1)) / 2
    corner = (np.floor(middle / step) - size // 2 + 1) * step
    window_time = start - start % layout.time_step
    origin = track[:, 0]
    wrapped = np.stack([geo.wrap_longitude(origin[:, 0]), origin[:, 1]], axis=-1)
    drifter = (number % n_drifters).astype(np.int32)
    status = ((number >= 1) & (number <= n_unusable)).astype(np.int8)
    split = np.where(drifter == n_drifters - 1, 2, np.where(drifter == n_drifters - 2, 1, 0))
    currents = np.empty((n, 2, layout.n_times, layout.n_lat, layout.n_lon), np.int16)
    for k in number:
        currents[k] = _window(layout, ocean, corner[k], int(window_time[k]))
        if status[k]:
            currents[k, :, 2] = schema.FILL
    return {
        "currents": currents,
        "positions": (track - origin[:, None]).astype(np.float32),
        "origin": wrapped,
        "start_time": start.astype(np.int64),
        "window_time": window_time.astype(np.int64),
        "window_corner": corner + (wrapped - origin),
        "drifter": drifter,
        "drogue": np.array([1, 1, 0, -1], np.int8)[number % 4],
        "split": np.where(status == 0, split, -1).astype(np.int8),
        "status": status,
        "source": np.zeros(n, np.int8),
        "source_row": (1000 + 41 * number).astype(np.int64),
    }


def _tracks(layout: Layout, ocean: Ocean, rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
    """Tracks `(n, obs, 2)` [degrees] that follow the current with some noise, stay off the coast and in reach."""
    n, hold = len(start), 0.45
    lat = ocean.centre[1] + rng.uniform(-2.5, 2.5, n)
    lon = np.maximum(ocean.centre[0] + rng.uniform(-3.0, 3.0, n), ocean.coast(lat) + 0.3)
    track = np.empty((n, layout.n_obs, 2))
    track[:, 0] = np.stack([lon, lat], axis=-1)
    reach = hold * np.array([(layout.n_lon - 3) * layout.lon_step, (layout.n_lat - 3) * layout.lat_step])
    for k in range(1, layout.n_obs):
        before = track[:, k - 1]
        speed = ocean.current(before, start + (k - 1) * layout.obs_step) + rng.normal(0, 0.05, (n, 2))
        scale = geo.METRES_PER_DEGREE * np.stack([np.cos(np.radians(before[:, 1])), np.ones(n)], axis=-1)
        after = before + speed * layout.obs_step / scale
        after = np.clip(after, track[:, 0] - reach, track[:, 0] + reach)
        after[:, 0] = np.maximum(after[:, 0], ocean.coast(after[:, 1]) + 0.05)
        track[:, k] = after
    return track


def _window(layout: Layout, ocean: Ocean, corner: np.ndarray, time: int) -> np.ndarray:
    """Currents `(2, time, lat, lon)` [counts] of one window, fill on land."""
    lon = corner[0] + layout.lon_step * np.arange(layout.n_lon)
    lat = corner[1] + layout.lat_step * np.arange(layout.n_lat)
    lonlat = np.stack(np.meshgrid(lon, lat), axis=-1)
    times = time + layout.time_step * np.arange(layout.n_times)
    current = ocean.current(lonlat[None], times[:, None, None])
    counts = np.round(current / schema.SCALE).astype(np.int16)
    counts[:, lonlat[..., 0] < ocean.coast(lonlat[..., 1])] = schema.FILL
    return np.moveaxis(counts, -1, 0)


def write_shard(path: Path, layout: Layout, shard: int, values: dict[str, np.ndarray]) -> dict[str, FileEntry]:
    """Writes every file of one shard."""
    held = layout.samples_of(shard)
    files = {}
    parts = {name: array[held.start : held.stop] for name, array in values.items()}
    for spec, content in shard_bytes.encode_shard(layout, parts):
        entry = manifest.write_file(path / spec.file_of(shard), content)
        files[spec.file_of(shard)] = FileEntry(entry.size, entry.sha256, (held.start, held.stop))
    return files


def write_metadata(path: Path, layout: Layout, drifters: list[str]) -> dict[str, FileEntry]:
    """Writes zarr's metadata and the drifters' names."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"title": "driftcal shard store: small"}}
    trees: dict[str, Any] = {
        f"{spec.name}/zarr.json": shard_bytes.metadata(
            spec, layout.n_samples, layout.samples_per_shard, layout.compression
        )
        for spec in schema.arrays(layout)
    }
    trees |= {"zarr.json": group, store_files.DRIFTERS: {"drifters": drifters}}
    return {name: manifest.write_file(path / name, manifest.to_bytes(tree)) for name, tree in trees.items()}


def splits(values: dict[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Samples and drifters of every split."""
    found = {}
    for code, name in enumerate(schema.SPLITS):
        mask = values["split"] == code
        found[name] = {"samples": int(mask.sum()), "drifters": len(np.unique(values["drifter"][mask]))}
    return found


def funnel(values: dict[str, np.ndarray]) -> tuple[Stage, ...]:
    """A funnel that ends in these samples."""
    n = len(values["status"])
    bad = {what: int(np.sum(values["status"] == k)) for k, what in enumerate(schema.STATUS) if k}
    return (
        Stage("fixes", "fixes", 41 * n + 1200, {"speed above 3 m/s": 7, "not a position": 1230}),
        Stage("drogued", "fixes", 41 * n + 200, {"drogue lost": 1000}),
        Stage("gap-free", "fixes", 41 * n + 150, {"gap between satellite fixes": 50}),
        Stage("segments", "segments", n + 3, {}),
        Stage("inside the record", "segments", n, {"window leaves the domain of the currents": 3}),
        Stage("samples", "samples", int(np.sum(values["status"] == 0)), {k: v for k, v in bad.items() if v}),
    )


def copyings() -> list[Copying]:
    """The ways in which raw samples are read: in two passes, and where there is a compiler in one."""
    return ["plain", "auto"] if checked_copy.copier() else ["plain"]


def read_all(path: Path) -> None:
    """Reads all that a store holds, as training does, in every way: they differ neither in data nor in errors."""
    contents, errors = [], []
    for copying in copyings():
        try:
            store = ShardStore(path, copying=copying)
            specs = store.currents.spec, store.positions.spec
            currents, positions = (np.empty((len(store), *spec.inner_shape), spec.dtype) for spec in specs)
            store.read_batch(np.arange(len(store)), currents, positions)
            contents.append(currents.tobytes() + positions.tobytes())
        except StoreError as error:
            errors.append(error)
    assert not (contents and errors)
    assert len(set(contents) | {str(error) for error in errors}) == 1
    if errors:
        raise errors[0]


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any], seal: bool = True) -> None:
    """Changes the manifest's tree in place; with `seal` its digest is made to match, as a forger would."""
    file = path / manifest.NAME
    tree = json.loads(file.read_text())
    change(tree)
    if seal:
        content = {key: value for key, value in tree.items() if key != "digest"}
        tree["digest"] = hashlib.sha256(manifest.to_bytes(content)).hexdigest()
    file.write_bytes(manifest.to_bytes(tree))


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Inside, Python's ways to write below `root` fail as on a read-only file system, for root too."""
    root = root.resolve()

    def guarded(true: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            for place in arguments[:2]:
                inside = isinstance(place, (str, Path)) and Path(place).absolute().is_relative_to(root)
                if inside and writes(*arguments, **options):
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(place))
            return true(*arguments, **options)

        return call

    def by_mode(_: Any, mode: str = "r", *__: Any, **___: Any) -> bool:
        return bool(set(mode) & set("wax+"))

    def by_flags(_: Any, flags: int, *__: Any, **___: Any) -> bool:
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    with ExitStack() as patches:
        for module, name, writes in (
            (builtins, "open", by_mode),
            (io, "open", by_mode),
            (os, "open", by_flags),
            *((os, name, lambda *_, **__: True) for name in ("mkdir", "replace", "rename", "unlink", "link", "utime")),
        ):
            patches.enter_context(mock.patch.object(module, name, guarded(getattr(module, name), writes)))
        yield
