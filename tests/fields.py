"""Small currents as products write them, drifters that cross them, and the manifests that name both."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from driftcal.preprocess.__main__ import main
from driftcal.shared.store.reader import ShardStore
from tests import sources

DAY = 86_400
START = 1_456_617_600
"""2016-02-28 in seconds since 1970-01-01: two days before the end of a leap February."""

FILLS = {"int16": -32768, "int32": -2147483647}


def field(
    lon: np.ndarray,
    lat: np.ndarray,
    levels: int = 12,
    *,
    kind: str = "int32",
    start: int = START,
    step: int = DAY,
    land: Sequence[tuple[slice, slice]] = (),
    seed: int = 0,
) -> xr.Dataset:
    """Random currents below 1.2 m/s on every cell but `land` (rows, columns), raw: packed where `kind` is an integer.

    To select values it must be decoded: `decoded` gives what a plain reader sees.
    """
    shape = levels, len(lat), len(lon)
    rng = np.random.default_rng(seed)
    variables = {}
    for name in ("ugos", "vgos"):
        ticks = rng.integers(1, 12_000, shape) * rng.choice([-1, 1], shape)
        dry = np.zeros(shape[1:], bool)
        for rows, columns in land:
            dry[rows, columns] = True
        attrs: dict[str, Any] = {"units": "m/s"}
        if kind in FILLS:
            stored = np.where(dry, FILLS[kind], ticks).astype(kind)
            attrs |= {"scale_factor": 1e-4, "_FillValue": np.array(FILLS[kind], kind)[()]}
        else:
            stored = np.where(dry, np.nan, ticks * 1e-4).astype(kind)
        variables[name] = (("time", "latitude", "longitude"), stored, attrs)
    time = start + step * np.arange(levels)
    return xr.Dataset(
        variables,
        {
            "time": ("time", time, {"units": "seconds since 1970-01-01"}),
            "latitude": ("latitude", lat.astype(np.float32)),
            "longitude": ("longitude", lon.astype(np.float32)),
        },
    )


def save(dataset: xr.Dataset, path: Path) -> str:
    """Writes raw `dataset` as NetCDF or zarr, after the name's ending; the path."""
    if path.suffix == ".zarr":
        chunks = {name: {"chunks": (3, *dataset[name].shape[1:])} for name in ("ugos", "vgos")}
        dataset.to_zarr(path, zarr_format=2, consolidated=True, encoding=chunks)
    else:
        dataset.to_netcdf(path)
    return str(path)


def walk(
    drifter: int,
    lon: float,
    lat: float,
    *,
    n: int = 121,
    step: int = 3600,
    start: int = START,
    speed: float = 0.3,
    seed: int = 0,
) -> sources.Track:
    """A drifter that keeps its way for a day, then turns; `speed` [m/s] at most, longitudes in [-180, 180)."""
    rng = np.random.default_rng([seed, drifter])
    legs = rng.uniform(-1, 1, (2, n * step // DAY + 1)) * speed / np.sqrt(2)
    k = np.arange(n - 1) * step // DAY
    metres = np.concatenate([np.zeros((2, 1)), np.cumsum(legs[:, k] * step, axis=1)], axis=1)
    north = lat + metres[1] / 111_195
    east = lon + metres[0] / (111_195 * np.cos(np.radians(north)))
    return sources.Track(
        drifter,
        start + step * np.arange(n),
        (east + 180) % 360 - 180,
        north,
        np.ones(n, np.int8),
        np.full(n, 3600.0),
    )


def whole(split: str = "train") -> dict[str, int]:
    """A split that gives everything to one."""
    return {name: int(name == split) for name in ("train", "validation", "test")}


def manifest(folder: Path, drifters: str, currents: str | list[str], name: str = "manifest.yaml", **tree: Any) -> str:
    """Writes a data manifest; everything is for training unless `split` is given."""
    records = [{"path": path} for path in ([currents] if isinstance(currents, str) else currents)]
    tree = {"drifters": {"path": drifters}, "currents": records, "split": whole()} | tree
    (folder / name).write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return str(folder / name)


def small(folder: Path, tracks: Sequence[sources.Track] = (), **tree: Any) -> str:
    """A manifest with a regional field and drifters (six, of two days each), all of them usable."""
    folder.mkdir(parents=True, exist_ok=True)
    lon, lat = 30 + 0.25 * np.arange(29), -40 + 0.25 * np.arange(25)
    tracks = tracks or [walk(900 + k, 33.0 + 0.1 * k, -37.0, n=49, start=START + 7200 * k) for k in range(6)]
    return manifest(
        folder,
        sources.save(sources.ragged(tracks), folder / "drifters.nc"),
        save(field(lon, lat, 8), folder / "currents.nc"),
        **({"segment": {"days": 2}, "window": {"half_width_deg": 1.0}} | tree),
    )


def make(manifest_path: str, out: Path, *options: str) -> ShardStore:
    """Runs drift-preprocess, which must succeed, and opens what it made."""
    assert main([manifest_path, "--out", str(out), *options]) == 0
    return ShardStore(out)


def funnel(store: ShardStore) -> dict[str, tuple[int, dict[str, int]]]:
    """What each stage kept and dropped."""
    return {stage.name: (stage.kept, stage.dropped) for stage in store.manifest.funnel}


def digests(root: Path) -> dict[str, str]:
    """sha256 of every file under `root`, by its name there."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def only_json(text: str) -> Any:
    """What `text`, which must be JSON and nothing else, holds."""
    assert text.lstrip().startswith("{")
    return json.loads(text)


def selected(source: str, store: ShardStore, sample: int) -> np.ndarray:
    """The window of `sample` as a plain selection by coordinates from the decoded source gives it, ticks and FILL."""
    layout, label = store.layout, store.labels
    with xr.open_dataset(source) as dataset:
        dataset = dataset.sortby("longitude")
        lon0 = float(dataset.longitude.min())
        lon = label["window_corner"][sample, 0] + layout.lon_step * np.arange(layout.n_lon)
        lat = label["window_corner"][sample, 1] + layout.lat_step * np.arange(layout.n_lat)
        time = label["window_time"][sample] + layout.time_step * np.arange(layout.n_times)
        # the column nearest on the circle: (lon - lon0) may come out as 359.9999 for the first
        lon = (lon - lon0 + 1e-3) % 360 - 1e-3 + lon0
        part = dataset.sel(longitude=lon, latitude=lat, method="nearest", tolerance=1e-3)
        if part.sizes["time"] == 1:
            part = part.isel(time=np.zeros(layout.n_times, int))
        else:
            part = part.sel(time=time.astype("datetime64[s]"))
        names = [name for name in ("ugos", "vgos", "ucos", "vcos") if name in part]
        values = np.stack([part[name].transpose("time", "latitude", "longitude").values for name in names])
    dry = np.isnan(values).any(axis=0)
    return np.where(dry, -32768, np.round(np.where(dry, 0, values) / 1e-4)).astype(np.int16)
