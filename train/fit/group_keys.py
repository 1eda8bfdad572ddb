"""Group keys: each sample's region, band of latitude, season, or value of a label of the store.

Keys, as `--group-by` takes them:

    grid:5        boxes of 5 x 5 degrees, from the equator and Greenwich
    latitude:10   bands of 10 degrees, from the equator
    season        DJF, MAM, JJA, SON, on both hemispheres
    month, year   of the calendar
    LABEL         any label of the store with one whole number a sample: drogue, source, drifter, ...

Places and times are those of a segment's first fix.
"""

import difflib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from driftcal.shared.errors import ConfigError
from driftcal.shared.geo import latitude_text, longitude_text, wrap_longitude
from driftcal.shared.store.reader import ShardStore

SEASONS = ("DJF", "MAM", "JJA", "SON")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DROGUE = {-1: "drogue unknown", 0: "drogue lost", 1: "drogue on"}

MOST_GROUPS = 3000
"""Groups of one key: their joint covariance is a matrix of that size."""

SIZED = {"grid": (0.5, 90.0), "latitude": (0.5, 90.0)}
"""Keys with a size, and the sizes that they take [degrees]."""


@dataclass(frozen=True)
class Grouping:
    """Groups of samples.

    Attributes:
        key: what makes them, as given.
        names: of the groups, for people.
        group: of every sample asked for, a position in `names`.
        boxes: west, south, east, north of every group [degrees]; None unless the key is a grid.
    """

    key: str
    names: tuple[str, ...]
    group: Int[np.ndarray, " n"]
    boxes: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of groups."""
        return len(self.names)


def of(store: ShardStore, samples: np.ndarray, key: str) -> Grouping:
    """The groups of `samples` by `key`; those without any sample are no groups.

    Raises:
        ConfigError: the key is not one of the above, or makes too many groups.
    """
    name, _, size = key.partition(":")
    if name in SIZED:
        found = _of_place(store, samples, key, _size(key, name, size))
    elif key in ("season", "month", "year"):
        found = _of_time(store, samples, key)
    else:
        found = _of_label(store, samples, key)
    if found.size > MOST_GROUPS:
        raise ConfigError(f"--group-by {key} makes {found.size} groups, more than {MOST_GROUPS}. Choose a coarser key.")
    return found


def _size(key: str, name: str, text: str) -> float:
    least, most = SIZED[name]
    try:
        size = float(text)
    except ValueError:
        size = np.nan
    if not least <= size <= most:
        raise ConfigError(
            f"--group-by {key}: expected {name}:DEGREES with {least:g} to {most:g} degrees, such as {name}:5."
        )
    return size


def _of_place(store: ShardStore, samples: np.ndarray, key: str, size: float) -> Grouping:
    lon, lat = store.labels["origin"][samples].astype(np.float64).T
    low = np.floor(np.stack([wrap_longitude(lon), lat], axis=-1) / size) * size
    if not key.startswith("grid"):
        low[:, 0] = 0.0
    corners, group = np.unique(low[:, ::-1], axis=0, return_inverse=True)
    names, boxes = [], []
    for south, west in corners.tolist():
        north, east = min(south + size, 90.0), min(west + size, 180.0)
        band = f"{latitude_text(south)} to {latitude_text(north)}"
        names.append(f"{band}, {longitude_text(west)} to {longitude_text(east)}" if key.startswith("grid") else band)
        boxes.append((west, max(south, -90.0), east, north))
    return Grouping(key, tuple(names), group.reshape(-1), np.array(boxes) if key.startswith("grid") else None)


def _of_time(store: ShardStore, samples: np.ndarray, key: str) -> Grouping:
    months = store.labels["start_time"][samples].astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    month, year = months % 12, 1970 + months // 12
    number = {"season": (month + 1) % 12 // 3, "month": month, "year": year}[key]
    held, group = np.unique(number, return_inverse=True)
    texts = {"season": SEASONS, "month": MONTHS}.get(key)
    return Grouping(key, tuple(texts[k] if texts else str(k) for k in held.tolist()), group)


def _of_label(store: ShardStore, samples: np.ndarray, key: str) -> Grouping:
    known = sorted(
        name
        for name, values in store.labels.items()
        if values.ndim == 1 and values.dtype.kind in "iu" and not name.endswith("time") and name != "status"
    )
    if key not in known:
        keys = ["grid:5", "latitude:10", "season", "month", "year", *known]
        near = difflib.get_close_matches(key, keys, 1)
        raise ConfigError(
            f"--group-by {key}: not a key{f' (did you mean {near[0]}?)' if near else ''}. Expected grid:DEGREES, "
            f"latitude:DEGREES, season, month, year, or a label of the store: {', '.join(known)}."
        )
    held, group = np.unique(store.labels[key][samples], return_inverse=True)
    if key == "drifter":
        return Grouping(key, tuple(store.drifters[k] for k in held), group)
    names = DROGUE if key == "drogue" else {}
    return Grouping(key, tuple(names.get(k, f"{key} {k}") for k in held.tolist()), group)
