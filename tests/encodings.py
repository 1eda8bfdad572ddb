"""Random encodings of random fields and tracks, as products and tools write them.

What is drawn is stored as it is, with raw attributes: nothing here decodes, so that a test may compare what is read
with what other libraries (xarray, netCDF4, cftime, pandas) decode from the same file.
"""

import bz2
import gzip
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pandas as pd
import xarray as xr
from hypothesis import strategies as st

NT, NY, NX = 5, 4, 6

START = 1_262_304_000
"""2010-01-01 in seconds since 1970-01-01."""

SPEEDS = {"m/s": 1.0, "m s-1": 1.0, "cm/s": 0.01, "cm s**-1": 0.01, "mm/s": 1e-3, "knots": 1852 / 3600, "km/h": 1 / 3.6}
"""Units of speeds and their factor to m/s."""

ANGLES = {
    "lat": ["degrees_north", "degree_N", "degrees", "degreesN", "decimal degrees"],
    "lon": ["degrees_east", "degree_E", "degrees", "degreeE", "\u00b0"],
}
"""Units of coordinates that are degrees north and east."""

HEADERS = [
    ("ID", "time", "latitude", "longitude"),
    ("drifter", "datetime", "Lat", "Lon"),
    ("buoy", "timestamp", "lat", "lng"),
]
"""Names of columns: id, time, latitude, longitude."""

PACKINGS = [("csv", bytes), ("csv.gz", gzip.compress), ("csv.bz2", bz2.compress), ("txt.xz", lzma.compress)]
"""Endings of tables, and what compresses them so."""

STEPS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400}

INTEGERS = ("i1", "i2", "i4", "u1", "u2", "u4")


@dataclass(frozen=True)
class Numbers:
    """One encoding of numbers: `dtype` as stored, its CF attributes, and whether zarr or NetCDF3 can hold it."""

    dtype: str
    attributes: dict[str, Any]
    scale: float
    offset: float

    def stored(self, values: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """`values` as stored, with the fill where they are `lost`."""
        raw = (values - self.offset) / self.scale
        fill = self.attributes.get("_FillValue", self.attributes.get("missing_value"))
        kind = np.dtype(self.dtype)
        if kind.kind == "f":
            out = raw.astype(kind)
            out[lost] = np.nan if fill is None else np.ravel(fill)[0]
            return out
        read_as = self.read_as
        limits = np.iinfo(read_as)
        out = np.clip(np.rint(raw), limits.min + 2, limits.max - 2).astype(read_as)
        if fill is not None:
            out[lost] = np.ravel(np.asarray(fill)).astype(kind).view(read_as)[0]
        return out.view(kind)

    @property
    def read_as(self) -> np.dtype:
        """Type that `_Unsigned` says."""
        kind = np.dtype(self.dtype)
        other = {"true": "u", "false": "i"}.get(self.attributes.get("_Unsigned", ""))
        return kind if other is None or kind.kind == "f" else np.dtype(f"{other}{kind.itemsize}")


@st.composite
def numbers(draw: st.DrawFn, least: float, greatest: float, *, lossy: bool = True) -> Numbers:
    """An encoding in which numbers between `least` and `greatest` can be stored."""
    kind = draw(st.sampled_from(["f4", "f8", *(INTEGERS if lossy else ("i2", "i4", "u2"))]))
    attributes: dict[str, Any] = {}
    width = greatest - least
    if kind[0] == "f":
        fill = draw(st.sampled_from([None, np.nan, 9.969209968386869e36, 1e20, -9999.0, -1e34]))
        if fill is not None:
            attributes[draw(st.sampled_from(["_FillValue", "missing_value"]))] = np.dtype(kind).type(fill)
        return Numbers(kind, attributes, 1.0, 0.0)
    if draw(st.booleans()):
        attributes["_Unsigned"] = "true" if kind[0] == "i" else "false"
    encoding = Numbers(kind, attributes, 1.0, 0.0)
    limits = np.iinfo(encoding.read_as)
    tick = width / (limits.max / 2 - limits.min / 2) * 1.2 * draw(st.sampled_from([1.0, 1.7]))
    scale = max(tick, 1e-7)
    if np.dtype(kind).itemsize > 1 and draw(st.booleans()):
        scale = max(10.0 ** np.ceil(np.log10(scale)), 1e-7)
    negative = limits.min < 0
    centred = abs(least + greatest) < 0.2 * width
    offset = 0.0 if negative and centred and draw(st.booleans()) else (least + greatest) / 2
    if not negative or draw(st.booleans()):
        offset -= 0.0 if negative else scale * limits.max / 2
    holder = draw(st.sampled_from([np.float64, np.float32]))
    scale, offset = float(holder(scale)), float(holder(offset))
    attributes["scale_factor"] = holder(scale)
    if offset or draw(st.booleans()):
        attributes["add_offset"] = holder(offset)
    # xarray turns the sign of _FillValue with that of the numbers, and forgets missing_value
    places = ["_FillValue", "none"] if "_Unsigned" in attributes else ["_FillValue", "missing_value", "both", "none"]
    place = draw(st.sampled_from(places))
    raw = np.dtype(kind)
    ends = [np.array(end, encoding.read_as).view(raw)[()] for end in (limits.min, limits.max)]
    # xarray overflows on a fill that is negative as it is read and not as it is stored
    fill = draw(st.sampled_from(ends[1:] if attributes.get("_Unsigned") == "false" else ends))
    if place in ("_FillValue", "both"):
        attributes["_FillValue"] = fill
    if place == "missing_value":
        attributes["missing_value"] = fill
    if place == "both":
        attributes["missing_value"] = draw(st.sampled_from([fill, np.array([fill, fill], raw)]))
    return Numbers(kind, attributes, scale, offset)


@dataclass(frozen=True)
class Times:
    """One way to count times: what is stored, and its attributes."""

    stored: np.ndarray
    attributes: dict[str, Any]


@st.composite
def times(draw: st.DrawFn, since_1970: np.ndarray, calendars: list[str]) -> Times:
    """`since_1970` [s] counted in a random unit from a random epoch of the Gregorian calendar's time."""
    unit = draw(st.sampled_from(sorted(STEPS)))
    epoch = draw(st.sampled_from(["1950-01-01", "1970-1-1 00:00:00", "1990-01-01 12:00:00", "2000-02-29T06:00:00Z",
                                  "1900-01-01 00:00:0.0", "1985-03-01 00:00:00 +02:00", "1800-01-01"]))  # fmt: skip
    calendar = draw(st.sampled_from(calendars))
    attributes = {"units": f"{unit} since {epoch}"} | ({"calendar": calendar} if calendar else {})
    zero = np.datetime64(epoch.replace("T", " ").split(" +")[0].rstrip("Z").replace("1970-1-1", "1970-01-01")
                         .replace(":0.0", ":00").replace(" ", "T"), "s").astype(np.int64)  # fmt: skip
    if "+02:00" in epoch:
        zero -= 7200
    counted = (since_1970 - zero) / STEPS[unit]
    kinds = ["f8"] + (["i4", "i8"] if np.array_equal(counted, np.rint(counted)) else [])
    kind = draw(st.sampled_from([k for k in kinds if k[0] == "f" or np.abs(counted).max() < np.iinfo(k).max]))
    return Times(np.rint(counted).astype(kind) if kind[0] == "i" else counted, attributes)


@dataclass(frozen=True)
class Currents:
    """A field in one encoding, not yet written."""

    dataset: xr.Dataset
    ending: str
    factor: float
    """Of the stated units to m/s."""
    exact: bool
    """Whether what is stored counts 1e-4 m/s, so that the read numbers must be the stored ones."""


@st.composite
def currents(draw: st.DrawFn) -> Currents:
    """A random field in a random encoding."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    units = draw(st.sampled_from(sorted(SPEEDS)))
    factor = SPEEDS[units]
    dry = rng.random((NY, NX)) < draw(st.sampled_from([0.0, 0.2]))
    dry[0, 0] = False
    ending = draw(st.sampled_from(["nc", "nc3", "zarr2", "zarr3"]))
    variables: dict[str, Any] = {}
    axes = {"time": NT, "lat": NY, "lon": NX}
    extra = draw(st.sampled_from([{}, {"depth": 1}]))
    exact = draw(st.booleans()) and factor == 1.0
    order = None
    for name in ("uo", "vo"):
        values = rng.uniform(0.05, 1.4, (NT, NY, NX)) * rng.choice([-1, 1], (NT, NY, NX)) / factor
        if exact:
            values = np.rint(values * 1e4) * 1e-4
            encoding = Numbers("i2", {"scale_factor": 1e-4, "_FillValue": np.int16(-32768)}, 1e-4, 0.0)
        else:
            encoding = draw(numbers(-1.5 / factor, 1.5 / factor))
        lost = np.broadcast_to(dry, values.shape)
        if not {"_FillValue", "missing_value"} & set(encoding.attributes) and encoding.dtype[0] != "f":
            lost = np.zeros(values.shape, bool)
        stored = encoding.stored(values, lost)
        if encoding.dtype[0] != "f" and "_Unsigned" not in encoding.attributes and draw(st.booleans()):
            read = np.sort(stored[~lost].ravel())
            kind = np.dtype(encoding.dtype).type
            encoding.attributes["valid_range"] = np.array([read[1], read[-2]], kind)
        dims = draw(st.permutations([*axes, *extra]))
        order = order or dims
        variables[name] = xr.Variable(
            [*extra, *axes], stored.reshape([*extra.values(), *axes.values()]), encoding.attributes | {"units": units}
        ).transpose(*dims)
    start, step = draw(st.integers(0, 20_000)) * 86_400, draw(st.sampled_from([86_400, 21_600, 3600]))
    since_1970 = start + step * np.arange(NT)
    counted = draw(times(since_1970, ["", "standard", "gregorian", "proleptic_gregorian", "GREGORIAN"]))
    variables["time"] = xr.Variable("time", counted.stored, counted.attributes | {"cell_methods_note": ""})
    for name, first, cell, size in (
        ("lat", draw(st.sampled_from([-40.125, 10.0, 55.5])), 0.25, NY),
        ("lon", draw(st.sampled_from([-179.875, -60.0, 20.0, 179.5, 300.0])), 0.25, NX),
    ):
        values = first + cell * np.arange(size)
        form = draw(st.sampled_from(["f4", "f8", "packed", "unsigned"]))
        attributes = {"units": draw(st.sampled_from(ANGLES[name]))}
        if form in ("packed", "unsigned"):
            step = draw(st.sampled_from([0.125, 0.25 if first % 0.25 == 0 else 0.125]))
            offset = draw(st.sampled_from([0.0, 90.0]))
            stored = np.rint((values - offset) / step)
            attributes |= {"scale_factor": step, "add_offset": offset}
            if form == "packed":
                stored = stored.astype("i2")
            else:
                stored = (stored + 32768).astype("u2").view("i2")
                attributes |= {"_Unsigned": "true", "add_offset": offset - 32768 * step}
        else:
            stored = values.astype(form)
        if name == "lat" and draw(st.booleans()):
            stored = stored[::-1]
        variables[name] = xr.Variable(name, np.ascontiguousarray(stored), attributes)
    if extra:
        variables["depth"] = xr.Variable("depth", [0.5], {"units": "m"})
    dataset = xr.Dataset(variables)
    dataset["time"].attrs.pop("cell_methods_note", None)
    return Currents(dataset, ending, factor, exact)


def write(dataset: xr.Dataset, folder: Path, ending: str, big: bool = False) -> Path | None:
    """Writes raw `dataset`, whose attributes stay as they are; None where the format cannot hold it."""
    if ending.startswith("zarr"):
        path = folder / f"{ending}.zarr"
        raw = dataset.copy()
        for name, variable in raw.variables.items():
            if "_FillValue" not in variable.attrs:
                raw[name].encoding["_FillValue"] = None
        raw.to_zarr(path, zarr_format=int(ending[-1]), consolidated=False, mode="w")  # type: ignore[call-overload]
        return path
    path = folder / f"{ending}.nc"
    form = "NETCDF3_64BIT_OFFSET" if ending == "nc3" else "NETCDF4"
    if ending == "nc3" and any(v.dtype.str[1:] in ("u1", "u2", "u4", "i8") for v in dataset.variables.values()):
        return None
    with netCDF4.Dataset(path, "w", format=form) as file:
        for dim, size in dataset.sizes.items():
            file.createDimension(str(dim), size)
        for name, variable in dataset.variables.items():
            fill = variable.attrs.get("_FillValue")
            kind, options = variable.dtype, {}
            if big and ending == "nc" and kind.itemsize > 1:
                kind, options = kind.newbyteorder(">"), {"endian": "big"}
            made = file.createVariable(str(name), kind, variable.dims, fill_value=fill, **options)
            made.set_auto_maskandscale(False)
            made.setncatts({key: value for key, value in variable.attrs.items() if key != "_FillValue"})
            made[...] = variable.values
    return path


@dataclass(frozen=True)
class Drifters:
    """Tracks in one encoding, written or to be written: by what, and how others read the same."""

    tracks: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]
    """Id, times [s since 1970-01-01], longitudes and latitudes [degrees], NaN where missing."""


@st.composite
def drifters(draw: st.DrawFn) -> Drifters:
    """Up to four drifters of different length, some of whose positions are missing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tracks = []
    for number in range(draw(st.integers(1, 4))):
        n = int(rng.integers(3, 9))
        time = START + 3600 * (int(rng.integers(0, 5000)) + np.arange(n))
        lon = (-175.0 + 90.0 * number + 0.02 * np.arange(n) + rng.random()).round(4)
        lat = (-38.5 + 11.0 * number - 0.01 * np.arange(n)).round(4)
        lost = rng.random(n) < draw(st.sampled_from([0.0, 0.2]))
        lost[0] = False
        lon[lost], lat[lost] = np.nan, np.nan
        tracks.append((str(300_234_060 + 7 * number), time, lon, lat))
    return Drifters(tracks)


def ragged(draw: st.DrawFn, case: Drifters) -> xr.Dataset:
    """The tracks as a contiguous ragged array, raw, in a random encoding."""
    time = draw(times(np.concatenate([t[1] for t in case.tracks]), ["", "standard", "proleptic_gregorian"]))
    variables: dict[str, Any] = {
        "rowsize": ("traj", np.array([len(t[1]) for t in case.tracks], draw(st.sampled_from(["i4", "i8", "u2"])))),
        "id": ("traj", np.array([int(t[0]) for t in case.tracks], draw(st.sampled_from(["i8", "i4", "f8"])))),
        "time": ("obs", time.stored, time.attributes),
    }
    for name, k, least, greatest in (("lon", 2, -180.0, 180.0), ("lat", 3, -90.0, 90.0)):
        values = np.concatenate([t[k] for t in case.tracks])
        encoding = draw(numbers(least, greatest, lossy=False))
        lost = np.isnan(values)
        if not {"_FillValue", "missing_value"} & set(encoding.attributes) and encoding.dtype[0] != "f":
            # nothing says missing: the drifter stays, for a jump and back would be two drifters under one id
            values = np.concatenate([pd.Series(t[k]).ffill().bfill().to_numpy() for t in case.tracks])
            lost = np.zeros(values.shape, bool)
        attributes = encoding.attributes | {"units": draw(st.sampled_from(ANGLES[name]))}
        variables[name] = ("obs", encoding.stored(np.nan_to_num(values, nan=10.0), lost), attributes)
    return xr.Dataset(variables)


@dataclass(frozen=True)
class Text:
    """A table in text, and how pandas is told to read it."""

    content: bytes
    ending: str
    options: dict[str, Any]


def table(draw: st.DrawFn, case: Drifters) -> Text:
    """The tracks as a table in text, one row a fix, in a random dialect."""
    separator = draw(st.sampled_from([",", ";", "\t", "|"]))
    decimal = draw(st.sampled_from([".", ","])) if separator != "," else "."
    names = draw(
        st.sampled_from(
            [
                ("ID", "time", "latitude", "longitude"),
                ("drifter", "datetime", "Lat", "Lon"),
                ("buoy", "timestamp", "lat", "lng"),
            ]
        )
    )
    stamp = draw(st.sampled_from(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S+00:00"]))
    missing = draw(st.sampled_from(["", "NaN", "NA", "null"]))
    order = draw(st.permutations([0, 1, 2, 3]))
    beside = draw(st.booleans())  # a column that plays no role
    quote = draw(st.booleans())

    def number(value: float) -> str:
        return missing if np.isnan(value) else f"{value:.4f}".replace(".", decimal)

    def line(cells: list[str]) -> str:
        row = [cells[k] for k in order] + (["a note"] if beside else [])
        return separator.join(f'"{cell}"' if quote else cell for cell in row)

    ahead = draw(st.sampled_from([[], ["# of a logger", "# version 3"]]))
    lines = [*ahead, line(list(names)).replace("a note", "remark")]
    units = draw(st.booleans()) and names[0] == "ID"
    if units:
        lines.append(line(["", "UTC", "degrees_north", "degrees_east"]).replace("a note", ""))
    for drifter, time, lon, lat in case.tracks:
        stamps = np.asarray(time, "datetime64[s]").tolist()
        for at, east, north in zip(stamps, lon.tolist(), lat.tolist(), strict=True):
            lines.append(line([drifter, at.strftime(stamp), number(north), number(east)]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "latin-1"]))
    text = (end.join(lines) + draw(st.sampled_from(["", end]))).encode(encoding)
    ending, pack = draw(
        st.sampled_from(
            [("csv", bytes), ("csv.gz", gzip.compress), ("csv.bz2", bz2.compress), ("txt.xz", lzma.compress)]
        )
    )
    options = {
        "sep": separator,
        "decimal": decimal,
        "comment": "#",
        "skiprows": [len(ahead) + 1] if units else None,
        "encoding": encoding,
        "na_values": ["null"],
        "dtype": {names[0]: str, names[1]: str},
        "usecols": list(names),
    }
    return Text(pack(text), ending, {"names": names, **options})
