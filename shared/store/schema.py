"""The schema of a shard store: declared once, used by the writer, the readers, the inspector and the tests.

A store is a zarr v3 group. Two arrays hold the samples and are sharded, one inner chunk per sample; the labels are
plain arrays, one chunk per shard. The k-th shard of every array covers the same samples, so shard k is one file in
each array's folder.

Conventions: axis order (time, lat, lon), all ascending; positions (lon, lat); seconds since 1970-01-01 as int64;
longitudes continuous inside a sample, its origin wrapped to [-180, 180).
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from driftcal.shared.errors import StoreError

VERSION = 2
"""Version of this schema, which every store records. Version 2 added the array `checksum`."""

SCALE = 1e-4
"""Value of one count of `currents` [m/s]: DUACS' own scale_factor, so its values survive unchanged."""

FILL = np.int16(-32768)
"""Value of a cell without a current: land, ice."""

OVER = np.int16(-32767)
"""Value of a current too fast for int16 [|u| > 3.2766 m/s]. Never used in a store: such a window is unusable."""

SPLITS = ("train", "validation", "test")
"""Names of the splits; the array `split` holds positions in this tuple."""

DROGUE = {"on": 1, "lost": 0, "unknown": -1}
"""Codes of the array `drogue`."""

STATUS = ("usable", "currents missing at times in the window", "current above 3.2766 m/s in the window")
"""Codes of the array `status`. What is not usable was found out when its window was cut, after its place had been
given: it keeps the place, belongs to no split (-1), and is counted in the funnel."""

CHECKSUM = "checksum"
"""Label that binds every sample to its place: what is read must have the checksum that the label lists, and the labels
the digest that the manifest lists. So a whole chunk of another shard or store is told from the right one."""

Compression = Literal["lz4", "none"]


@dataclass(frozen=True)
class Layout:
    """Everything about a store's shape. Steps are [s] for time, degrees for lat and lon."""

    n_samples: int
    n_obs: int
    n_times: int
    n_lat: int
    n_lon: int
    obs_step: int
    time_step: int
    lat_step: float
    lon_step: float
    samples_per_shard: int = 2048
    compression: Compression = "lz4"

    def __post_init__(self):
        for name, least in (
            ("n_samples", 0),
            ("n_obs", 2),
            ("n_times", 2),
            ("n_lat", 4),
            ("n_lon", 4),
            ("obs_step", 1),
            ("time_step", 1),
            ("samples_per_shard", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise StoreError(f"layout: {name} is {value!r}, expected a whole number of at least {least}.")
        if self.n_lat % 4 or self.n_lon % 4:
            raise StoreError(f"layout: a window of {self.n_lat} x {self.n_lon} cells; both must be multiples of 4.")
        if not (self.lat_step > 0 and self.lon_step > 0):
            raise StoreError(f"layout: steps {self.lat_step}, {self.lon_step} degrees, expected positive ones.")
        if self.compression not in ("lz4", "none"):
            raise StoreError(f"layout: compression {self.compression!r} is not one of lz4, none.")
        if self.n_times * self.n_lat * self.n_lon * 4 > 2**30 or self.n_obs > 2**24:
            raise StoreError("layout: one sample would take more than 1 GiB; this is not a store of driftcal.")

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_samples // self.samples_per_shard)

    def samples_of(self, shard: int) -> range:
        """The samples in `shard`."""
        first = shard * self.samples_per_shard
        return range(first, min(first + self.samples_per_shard, self.n_samples))

    def as_json(self) -> dict[str, Any]:
        """This layout as the manifest stores it."""
        return asdict(self)


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store: shape, dtype and meaning of one sample of it."""

    name: str
    dtype: np.dtype
    inner_dims: tuple[str, ...]
    inner_shape: tuple[int, ...]
    sharded: bool
    attributes: dict[str, Any]

    @property
    def sample_bytes(self) -> int:
        """Bytes of one decoded sample."""
        return int(np.prod(self.inner_shape, dtype=np.int64)) * self.dtype.itemsize

    def file_of(self, shard: int) -> str:
        """Path of `shard` inside the store (zarr's default chunk key encoding)."""
        return "/".join([self.name, "c", str(shard), *["0"] * len(self.inner_shape)])


def arrays(layout: Layout) -> tuple[ArraySpec, ...]:
    """All arrays of a store with this layout, in the order of writing."""

    def label(name: str, dtype: str, units: str, long_name: str, dims: tuple[str, ...] = ()) -> ArraySpec:
        attributes = {"units": units, "long_name": long_name}
        return ArraySpec(name, np.dtype(dtype), dims, tuple(2 for _ in dims), False, attributes)

    seconds = "seconds since 1970-01-01T00:00:00Z"
    return (
        ArraySpec(
            "currents",
            np.dtype("<i2"),
            ("component", "time", "lat", "lon"),
            (2, layout.n_times, layout.n_lat, layout.n_lon),
            True,
            {
                "units": "m s-1",
                "scale_factor": SCALE,
                "_FillValue": int(FILL),
                "long_name": "eastward, northward current around the segment; fill on land and ice",
                "time_step_s": layout.time_step,
                "lat_step_deg": layout.lat_step,
                "lon_step_deg": layout.lon_step,
            },
        ),
        ArraySpec(
            "positions",
            np.dtype("<f4"),
            ("obs", "lonlat"),
            (layout.n_obs, 2),
            True,
            {
                "units": "degrees",
                "long_name": "observed lon, lat of the drifter relative to origin",
                "obs_step_s": layout.obs_step,
            },
        ),
        label("origin", "<f8", "degrees", "lon, lat of the first fix", ("lonlat",)),
        label("start_time", "<i8", seconds, "time of the first fix"),
        label("window_time", "<i8", seconds, "time of the window's first level"),
        label(
            "window_corner",
            "<f8",
            "degrees",
            "lon, lat of the window's south-western cell centre, continuous with origin",
            ("lonlat",),
        ),
        label("drifter", "<i4", "1", "index of the drifter in drifters.json"),
        label("drogue", "|i1", "1", "drogue: 1 on, 0 lost, -1 unknown"),
        label("split", "|i1", "1", "0 train, 1 validation, 2 test, -1 none: not usable"),
        label("status", "|i1", "1", "; ".join(f"{k} {meaning}" for k, meaning in enumerate(STATUS))),
        label("source", "|i1", "1", "index of the drifter source in the manifest"),
        label("source_row", "<i8", "1", "index of the first fix along the source's observations"),
        label(CHECKSUM, "<u4", "1", "crc32c of the stored currents, positions of the sample", ("array",)),
    )
