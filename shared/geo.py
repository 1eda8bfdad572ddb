"""Geometry of the sphere, shared by both stages (numpy, float64).

Positions are `[..., 2]` arrays of (lon, lat) in degrees, or keyword-only `lon=, lat=`. Longitudes are unbounded
inside a sample (181 and -179 are the same meridian); only `wrap_longitude` brings them back to [-180, 180).
"""

from typing import overload

import numpy as np
from jaxtyping import Float

EARTH_RADIUS = 6_371_008.8
"""Mean Earth radius [m] (IUGG mean radius R1, Moritz 2000); the value pastax uses."""

METRES_PER_DEGREE = EARTH_RADIUS * np.pi / 180.0
"""Length of one degree of latitude on that sphere [m]."""


@overload
def wrap_longitude(lon: np.ndarray) -> np.ndarray: ...
@overload
def wrap_longitude(lon: float) -> np.float64: ...
def wrap_longitude(lon: np.ndarray | float) -> np.ndarray | np.float64:
    """Longitude [degrees] brought to [-180, 180)."""
    return (np.asarray(lon, dtype=np.float64) + 180.0) % 360.0 - 180.0


def unwrap_longitude(lon: Float[np.ndarray, "*shape"], axis: int = -1) -> Float[np.ndarray, "*shape"]:
    """A track's longitudes [degrees] made continuous about its first fix, across the antimeridian too.

    Each step between neighbouring fixes is taken the short way round, so the result can leave [-180, 180).
    """
    lon = np.array(lon, dtype=np.float64)
    tracks = np.moveaxis(lon, axis, -1)
    # few tracks jump, and np.unwrap leaves the others as they are
    jumps = ~(np.abs(np.diff(tracks)) < 180.0).all(axis=-1)
    tracks[jumps] = np.unwrap(tracks[jumps], period=360.0)
    return lon


def separation(a: Float[np.ndarray, "*#n 2"], b: Float[np.ndarray, "*#n 2"]) -> Float[np.ndarray, "*n"]:
    """Great-circle distance [m] between positions `a` and `b`, `[..., 2]` (lon, lat) degrees, broadcast.

    Haversine formula (Sinnott 1984) with `EARTH_RADIUS`; periodic in longitude.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    half = np.radians(a - b) / 2.0
    lat_a, lat_b = np.radians(a[..., 1]), np.radians(b[..., 1])
    chord = np.sin(half[..., 1]) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin(half[..., 0]) ** 2
    return np.asarray(2.0 * EARTH_RADIUS * np.arcsin(np.sqrt(np.clip(chord, 0.0, 1.0))))


def longitude_text(lon: float, digits: int = 2) -> str:
    """`lon` [degrees], on whatever turn, as text such as 160°E."""
    lon = float(np.round(wrap_longitude(lon), digits))
    return f"{abs(lon):g}°{'' if lon in (0.0, -180.0, 180.0) else 'E' if lon > 0 else 'W'}"


def latitude_text(lat: float, digits: int = 2) -> str:
    """`lat` [degrees] as text such as 36.5°S."""
    lat = float(np.round(lat, digits))
    return f"{abs(lat):g}°{'N' if lat > 0 else 'S' if lat < 0 else ''}"
