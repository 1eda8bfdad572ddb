"""Geometry on the sphere without a library's trigonometry, which XLA does not vectorise on a CPU.

Everything happens around a sample's start, so that angles are small and their series short: relative errors stay below
2e-10 within a radian of it, in float64, which `driftcal.train.settings.check_against` holds windows to.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from driftcal.shared.geo import EARTH_RADIUS

LEAST_SQUARE = 1e-6
"""Added to squared distances [m2]: keeps the square root's derivative finite where two points coincide."""


@jax.custom_jvp
def sine(angle: Array) -> Array:
    """Sine of at most a radian."""
    q = angle * angle
    return angle * (1.0 - q * (1 / 6 - q * (1 / 120 - q * (1 / 5040 - q * (1 / 362880 - q / 39916800)))))


@jax.custom_jvp
def cosine(angle: Array) -> Array:
    """Cosine of at most a radian."""
    q = angle * angle
    return 1.0 - q * (1 / 2 - q * (1 / 24 - q * (1 / 720 - q * (1 / 40320 - q * (1 / 3628800 - q / 479001600)))))


# the derivative of a series has as many terms again: the other function is dearer than half of that
sine.defjvps(lambda slope, _, angle: slope * cosine(angle))
cosine.defjvps(lambda slope, _, angle: -slope * sine(angle))


class Point(NamedTuple):
    """Points in space [m] relative to an origin on the sphere: along its east, its north and upwards."""

    east: Float[Array, "..."]
    north: Float[Array, "..."]
    up: Float[Array, "..."]


class Origin(NamedTuple):
    """An origin on the sphere: cosine and sine of its latitude."""

    cos: Float[Array, "..."]
    sin: Float[Array, "..."]

    @classmethod
    def at(cls, latitude: Float[Array, "..."]) -> "Origin":
        """The origin at `latitude` [degrees]."""
        return cls(jnp.cos(jnp.radians(latitude)), jnp.sin(jnp.radians(latitude)))

    def cos_latitude(self, north: Float[Array, "..."]) -> Array:
        """Cosine of the latitude `north` [radians] of the origin."""
        return self.cos * cosine(north) - self.sin * sine(north)

    def point(self, east: Float[Array, "..."], north: Float[Array, "..."]) -> Point:
        """The point `east`, `north` of the origin [radians of longitude, of latitude]; nothing in it cancels."""
        half_east, half_north = sine(0.5 * east), sine(0.5 * north)
        cos = self.cos_latitude(north)
        fall = 2.0 * half_east * half_east
        return Point(
            EARTH_RADIUS * (cos * sine(east)),
            EARTH_RADIUS * (sine(north) + cos * self.sin * fall),
            -EARTH_RADIUS * (2.0 * half_north * half_north + cos * self.cos * fall),
        )


def separation(a: Point, b: Point) -> Array:
    """Great-circle distance [m], by the arcsine's series from the chord between two points: 1e-9 for 10 degrees.

    The chord needs three subtractions and a square root: what the S (S-1) / 2 pairs of an ensemble can afford.
    """
    east, north, up = a.east - b.east, a.north - b.north, a.up - b.up
    return _along_sphere(east * east + north * north + up * up + LEAST_SQUARE)


@jax.custom_jvp
def _along_sphere(square: Array) -> Array:
    """Length of the arc over a chord, given the chord's square [m2]."""
    q = square * (0.25 / EARTH_RADIUS**2)
    return jnp.sqrt(square) * (1.0 + q * (1.0 / 6.0 + q * (3.0 / 40.0 + q * (15.0 / 336.0))))


@_along_sphere.defjvp
def _along_sphere_jvp(squares: tuple[Array], slopes: tuple[Array]) -> tuple[Array, Array]:
    """Derivative by that of the arc, 1 / sqrt(1 - q): half the cost of that of every term of the series."""
    (square,), (slope,) = squares, slopes
    q = square * (0.25 / EARTH_RADIUS**2)
    steep = 1.0 + q * (1.0 / 2.0 + q * (3.0 / 8.0 + q * (15.0 / 48.0)))
    return _along_sphere(square), slope * (0.5 * jax.lax.rsqrt(square) * steep)
