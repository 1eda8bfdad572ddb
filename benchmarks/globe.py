"""A made globe: its currents and drifters as the files that making a store begins with.

Currents as DUACS packs them (daily, int32 in 1e-4 m/s), as zarr with one chunk a day and as NetCDF (zlib level 1, one
chunk a day); as many drifters as the GDP had in 2010.
"""

from pathlib import Path

import numpy as np
import xarray as xr
import yaml

FILL = -2147483647
PER_DAY = 68
"""Five-day segments that start in a day, as in GDP 2010."""

START = 1_262_304_000  # 2010-01-01
DAY = 86_400


def centres(start: float, cell: float, length: float) -> np.ndarray:
    """Of the cells of an axis [degrees]."""
    return start + cell * (np.arange(round(length / cell)) + 0.5)


def make_currents(folder: Path, days: int, cell: float = 0.25) -> dict[str, str]:
    """The same eddying currents as zarr and as NetCDF, on cells of so many degrees."""
    rng = np.random.default_rng(1)
    lon, lat = centres(-180, cell, 360), centres(-90, cell, 180)
    shape = lat.size, lon.size
    ky, kx = np.meshgrid(np.fft.fftfreq(lat.size), np.fft.rfftfreq(lon.size), indexing="ij")
    low = np.exp(-((np.hypot(ky, kx) * 7.5 / cell) ** 2))
    waves = [np.fft.irfft2(low * np.fft.rfft2(rng.normal(size=shape))) for _ in range(4)]
    waves = [wave * (0.15 / wave.std()) for wave in waves]
    dry = (np.fft.irfft2(low**4 * np.fft.rfft2(rng.normal(size=shape))) > 0) & (np.abs(lat) > 65)[:, None]
    fields = np.empty((2, days, *shape), np.int32)
    for day in range(days):
        for component in (0, 1):
            field = waves[component] * np.cos(day / 12) + waves[component + 2] * np.sin(day / 12)
            fields[component, day] = np.where(dry, FILL, np.clip(np.round(field / 1e-4), -30_000, 30_000))
    about = {"units": "m/s", "scale_factor": 1e-4, "_FillValue": np.int32(FILL)}
    dims = ("time", "latitude", "longitude")
    dataset = xr.Dataset(
        {name: (dims, fields[k], about) for k, name in enumerate(("ugos", "vgos"))},
        {
            "time": ("time", START + DAY * np.arange(days), {"units": "seconds since 1970-01-01"}),
            "latitude": lat.astype(np.float32),
            "longitude": lon.astype(np.float32),
        },
    )
    paths = {kind: str(folder / f"currents.{kind}") for kind in ("zarr", "nc")}
    chunk = (1, *shape)
    names = ("ugos", "vgos")
    dataset.to_zarr(paths["zarr"], zarr_format=2, encoding={n: {"chunks": chunk} for n in names}, consolidated=True)
    packed = {n: {"chunksizes": chunk, "zlib": True, "complevel": 1} for n in names}
    dataset.to_netcdf(paths["nc"], encoding=packed)
    return paths


def make_drifters(folder: Path, days: int) -> str:
    """Drifters of 60 days in the ragged form of the GDP, hourly, so many that 68 segments start in a day."""
    rng = np.random.default_rng(2)
    n = round(PER_DAY * days / 12)
    hours = 12 * 5 * 24 + 1
    start = START + 3600 * rng.integers(0, 24 * max(1, days - 68), n)
    step = np.cumsum(rng.normal(0, 0.15, (n, hours, 2)) * 3600 / 111_195, axis=1)
    lat = rng.uniform(-50, 50, n)[:, None] + step[..., 1]
    lon = (rng.uniform(-180, 180, n)[:, None] + step[..., 0] / np.cos(np.radians(lat)) + 180) % 360 - 180
    time = start[:, None] + 3600 * np.arange(hours)
    dataset = xr.Dataset(
        {
            "rowsize": ("traj", np.full(n, hours), {"sample_dimension": "obs"}),
            "id": ("traj", np.arange(n)),
            "time": ("obs", time.ravel(), {"units": "seconds since 1970-01-01"}),
            "lat": ("obs", lat.ravel().astype(np.float32)),
            "lon": ("obs", lon.ravel().astype(np.float32)),
            "gap": ("obs", np.full(n * hours, 3600.0, np.float32), {"units": "s"}),
            "drogue_status": ("obs", np.ones(n * hours, np.int8)),
        }
    )
    dataset.to_netcdf(folder / "drifters.nc")
    return str(folder / "drifters.nc")


def make_manifest(folder: Path, drifters: str, kind: str, path: str) -> str:
    """A data manifest; everything is for training."""
    tree = {
        "drifters": {"path": drifters},
        "currents": {"path": path},
        "split": {"train": 1, "validation": 0, "test": 0},
    }
    (folder / f"{kind}.yaml").write_text(yaml.safe_dump(tree))
    return str(folder / f"{kind}.yaml")
