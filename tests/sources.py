"""Small drifter files in every layout that is read, made from the same tracks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

START = 1_262_304_000
"""2010-01-01 in seconds since 1970-01-01."""

SINCE_1970 = {"units": "seconds since 1970-01-01", "calendar": "standard"}


@dataclass(frozen=True)
class Track:
    """One trajectory: id, times [s since 1970], positions [degrees], drogue status, gap [s]; arrays `[n]`."""

    drifter: int
    time: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    drogue: np.ndarray
    gap: np.ndarray


def track(drifter: int = 104099, n: int = 4, lon: float = -38.0, lat: float = -21.5, start: int = START) -> Track:
    """A drifter that goes north-east by unequal steps every hour."""
    k = np.arange(n)
    return Track(drifter, start + 3600 * k, lon + 0.02 * k, lat + 0.01 * k, np.ones(n, np.int8), np.full(n, 7200.0) + k)


def tracks() -> list[Track]:
    """Three tracks of 4, 3 and 5 fixes."""
    return [track(), track(122726, 3, 12.0, 40.0, START + 7200), track(55, 5, 178.5, 3.0)]


def ragged(rows: Sequence[Track]) -> xr.Dataset:
    """Contiguous ragged array as the hourly GDP product has it."""
    flat = {
        name: np.concatenate([getattr(row, name) for row in rows]) for name in ("time", "lon", "lat", "gap", "drogue")
    }
    return xr.Dataset(
        {
            "rowsize": ("traj", np.array([len(row.time) for row in rows], np.int32), {"sample_dimension": "obs"}),
            "id": ("traj", np.array([row.drifter for row in rows], np.int64)),
            "time": ("obs", flat["time"].astype(np.int64), dict(SINCE_1970)),
            "lat": ("obs", flat["lat"].astype(np.float64)),
            "lon": ("obs", flat["lon"].astype(np.float64)),
            "gap": ("obs", flat["gap"].astype(np.float64), {"units": "seconds"}),
            "drogue_status": ("obs", flat["drogue"].astype(np.int8)),
        }
    )


def table(rows: Sequence[Track]) -> xr.Dataset:
    """2-D table `(traj, obs)`, padded with NaN."""
    flat, width = ragged(rows), max(len(row.time) for row in rows)
    filled = np.arange(width) < flat.rowsize.values[:, None]
    out = flat[["id", "rowsize"]]
    for name in ("time", "lat", "lon", "gap", "drogue_status"):
        padded = np.full(filled.shape, np.nan)
        padded[filled] = flat[name].values
        out[name] = (("traj", "obs"), padded, flat[name].attrs)
    return out


def per_fix(rows: Sequence[Track]) -> xr.Dataset:
    """One row per fix on a dimension `index`, with float row sizes that mean nothing and a scalar id."""
    flat = ragged(rows)
    sizes = flat.rowsize.values
    out = flat[["time", "lat", "lon", "gap", "drogue_status"]].rename(obs="index")
    out["drifter_id"] = ("index", np.repeat(flat.id.values, sizes).astype(np.float64))
    out["rowsize"] = ("index", np.repeat(sizes, sizes).astype(np.float64))
    out["id"] = ((), 0)
    return out


def erddap(rows: Sequence[Track]) -> str:
    """Text of a csv file as ERDDAP serves it."""
    flat = per_fix(rows)
    frame = pd.DataFrame(
        {
            "ID": flat.drifter_id.values.astype(np.int64),
            "time": pd.to_datetime(flat.time.values, unit="s").strftime("%Y-%m-%dT%H:%M:%SZ"),
            "latitude": flat.lat.values,
            "longitude": flat.lon.values,
            "gap": flat.gap.values,
            "drogue_status": flat.drogue_status.values,
        }
    )
    head, body = frame.to_csv(index=False, lineterminator="\n").split("\n", 1)
    return f"{head}\n,UTC,degrees_north,degrees_east,s,\n{body}"


def save(dataset: xr.Dataset, path: Path) -> str:
    """Writes `dataset` as NetCDF or zarr, after the name's ending; the path."""
    if path.suffix == ".zarr":
        dataset.to_zarr(path, zarr_format=2 if "v2" in path.name else 3, consolidated=False)
    else:
        dataset.to_netcdf(path)
    return str(path)
