"""Currents written in the format of the DUACS level-4 product, one file a month.

Fields are (lat, lon), angles degrees, velocities m/s. No date of creation and no history: the same settings give the
same bytes.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import netCDF4
import numpy as np
from jaxtyping import Float, Float64, Int64

from driftcal.shared.disk import litter
from driftcal.shared.errors import ConfigError

MADE = "driftcal made ocean"
"""Global attribute `source` of made currents."""

WITH_ERROR = "driftcal twin experiment: currents with an error"
"""Global attribute `source` of currents with an error."""

SCALE = 1e-4
"""Packed unit of the product's velocities [m/s]."""

FILL = -2147483647
"""The product's `_FillValue` of packed velocities."""


class Product(NamedTuple):
    """Everything that the files of one record share.

    Attributes:
        title: Global attribute of that name.
        source: Global attribute by which the files are known to be made here.
        lat: Latitudes of the cell centres [degrees], (Y,).
        lon: Longitudes of the cell centres [degrees], (X,).
        units: Units of the times.
        kinds: Types of times, and of latitudes and longitudes.
    """

    title: str
    source: str
    lat: Float64[np.ndarray, " Y"]
    lon: Float64[np.ndarray, " X"]
    units: str
    kinds: tuple[str, str]


def prepare(folder: Path) -> None:
    """Makes `folder` and takes away the currents in it that were made here.

    All of them go: a longer old record must not mix with the new one.

    Raises:
        ConfigError: the folder holds files that were not made here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = sorted(file for file in folder.glob("*.nc") if not litter.is_litter(file))
    for old in before:
        refuse_foreign(old, MADE, WITH_ERROR)
    for old in before:
        old.unlink()


def remove(folder: Path) -> None:
    """Removes the currents in `folder` that were made here, and the folder once it is empty.

    Raises:
        ConfigError: the folder holds files that were not made here.
    """
    prepare(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()


def refuse_foreign(file: Path, *expected: str) -> None:
    """Refuses to replace a file whose global attribute `source` is not one of `expected`.

    Raises:
        ConfigError: the file is there and was not made here.
    """
    if not file.exists():
        return
    try:
        with netCDF4.Dataset(file) as old:
            source = getattr(old, "source", None)
    except OSError:
        source = None
    if source not in expected:
        raise ConfigError(
            f"{file} was not made by driftcal (its source is {source!r}, expected {' or '.join(map(repr, expected))}), "
            "so it will not be replaced. Give synthetic.folder another name, or move the file away."
        )


def write_month(
    folder: Path,
    month: np.datetime64,
    product: Product,
    time: Int64[np.ndarray, " T"],
    velocities: Iterable[Float[np.ndarray, "2 Y X"]],
) -> Path:
    """Writes the currents of one month and returns the file, which is there whole or not at all.

    Args:
        folder: Where it goes.
        month: The month, in its name.
        product: What it shares with the others.
        time: Times in the product's units, (T,).
        velocities: Eastward and northward current at each of them, (2, Y, X), NaN on land.
    """
    file = folder / f"currents_{str(month).replace('-', '')}.nc"
    part = file.with_suffix(".part")
    with netCDF4.Dataset(part, "w", format="NETCDF4") as out:
        _write(out, product, time, velocities)
    part.replace(file)
    return file


def _write(
    out: netCDF4.Dataset,
    product: Product,
    time: Int64[np.ndarray, " T"],
    velocities: Iterable[Float[np.ndarray, "2 Y X"]],
) -> None:
    shape = (product.lat.size, product.lon.size)
    out.setncatts({"Conventions": "CF-1.6", "title": product.title, "source": product.source})
    for name, size in (("time", time.size), ("latitude", shape[0]), ("longitude", shape[1])):
        out.createDimension(name, size)
    times = out.createVariable("time", product.kinds[0], ("time",))
    times.setncatts({"standard_name": "time", "units": product.units, "calendar": "gregorian"})
    times.axis = "T"
    times[:] = time
    for name, axis, units, values in (
        ("latitude", "Y", "degrees_north", product.lat),
        ("longitude", "X", "degrees_east", product.lon),
    ):
        centres = out.createVariable(name, product.kinds[1], (name,))
        centres.setncatts({"standard_name": name, "long_name": name.title(), "units": units, "axis": axis})
        centres[:] = values
    fields = []
    for name, towards, component in (("ugos", "eastward", "zonal"), ("vgos", "northward", "meridional")):
        field = out.createVariable(
            name,
            "i4",
            ("time", "latitude", "longitude"),
            fill_value=FILL,
            zlib=True,
            complevel=1,
            chunksizes=(1, *shape),
        )
        field.setncatts(
            {
                "standard_name": f"surface_geostrophic_{towards}_sea_water_velocity",
                "long_name": f"Absolute geostrophic velocity: {component} component",
                "units": "m/s",
                "cell_methods": "time: point",
                "scale_factor": SCALE,
            }
        )
        field.set_auto_maskandscale(False)
        fields.append(field)
    for i, velocity in enumerate(velocities):
        packed = np.where(np.isnan(velocity), FILL, np.rint(velocity / SCALE)).astype(np.int32)
        for field, values in zip(fields, packed, strict=True):
            field[i] = values
