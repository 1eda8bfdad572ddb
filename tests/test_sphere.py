"""Series on the sphere against the library's trigonometry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from driftcal.shared import geo
from driftcal.train.learners.drift.sphere import Origin, cosine, separation, sine
from driftcal.train.settings import WIDEST


def test_sine_and_cosine_hold_within_a_radian():
    angle = np.linspace(-WIDEST, WIDEST, 2001)
    with jax.enable_x64(True):
        found = sine(jnp.asarray(angle)), cosine(jnp.asarray(angle))
    np.testing.assert_allclose(found[0], np.sin(angle), rtol=2e-10, atol=1e-16)
    np.testing.assert_allclose(found[1], np.cos(angle), rtol=2e-10)


def test_cosine_of_the_latitude():
    latitude, north = np.linspace(-84, 84, 50)[:, None], np.radians(np.linspace(-5, 5, 21))
    with jax.enable_x64(True):
        found = Origin.at(jnp.asarray(latitude)).cos_latitude(jnp.asarray(north))
    np.testing.assert_allclose(found, np.cos(np.radians(latitude) + north), rtol=1e-12)


@pytest.mark.parametrize(("degrees", "bound"), [(5.0, 1e-10), (10.0, 1e-9), (20.0, 1e-7)])
def test_separation_of_points(degrees, bound):
    """Between two points up to so far apart, neither of them the origin, as the haversine formula has it."""
    rng = np.random.default_rng(0)
    latitude = rng.uniform(-75, 75, 500)
    a, b = (rng.uniform(-degrees, degrees, (500, 2)) / (2 * np.sqrt(2)) for _ in range(2))
    with jax.enable_x64(True):
        origin = Origin.at(jnp.asarray(latitude))
        found = separation(*(origin.point(*jnp.radians(jnp.asarray(p)).T) for p in (a, b)))
    away = np.stack([np.zeros(500), latitude], -1)
    expected = geo.separation(a + away, b + away)
    far = expected > 1000.0  # the millimetre that keeps the root smooth is felt at shorter distances
    np.testing.assert_allclose(np.asarray(found)[far], expected[far], rtol=bound)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=bound, atol=1e-6)


def test_slope_of_a_distance():
    """As one point moves, by central differences of the haversine formula."""
    a, b, way, near = np.array([1.5, -0.7]), np.array([-2.0, 1.1]), np.array([0.3, -1.0]), 1e-4
    with jax.enable_x64(True):
        origin = Origin.at(jnp.asarray(38.0))
        fixed = origin.point(*jnp.radians(jnp.asarray(a)))
        _, slope = jax.jvp(
            lambda t: separation(origin.point(*jnp.radians(b + t * way)), fixed), (jnp.asarray(0.0),), (jnp.ones(()),)
        )
    away = np.array([0.0, 38.0])
    ahead, behind = (geo.separation(a + away, b + t * way + away) for t in (near, -near))
    assert float(slope) == pytest.approx((ahead - behind) / (2 * near), rel=1e-7)


def test_distances_far_from_the_origin_keep_float32_s_precision():
    """Two points 250 km from the start and 30 m apart: centimetres."""
    latitude = np.array([47.0])
    away = np.array([[3.0, 0.4], [3.0 + 3e-4, 0.4 + 1e-4]])
    origin = Origin.at(jnp.asarray(latitude, jnp.float32))
    found = separation(*(origin.point(*jnp.radians(jnp.asarray(p, jnp.float32))) for p in away))
    assert found.dtype == jnp.float32
    expected = geo.separation(away[0] + [0.0, 47.0], away[1] + [0.0, 47.0])
    assert float(found[0]) == pytest.approx(float(expected), abs=0.1)


def test_gradient_where_points_coincide_is_finite():
    origin, here = Origin.at(jnp.asarray(30.0)), jnp.zeros(())
    value, slope = jax.jvp(lambda d: separation(origin.point(d, d), origin.point(here, here)), (here,), (jnp.ones(()),))
    assert np.isfinite(value)
    assert np.isfinite(slope)


@pytest.mark.parametrize("axis", [0, 1])
def test_unwrapped_longitudes_are_those_of_numpy(axis: int) -> None:
    """Of tracks that cross 180 several times, and of others beside them that never do, to the last bit."""
    tracks = np.random.default_rng(4).normal(0, [[3], [40], [3]], (3, 90)).cumsum(axis=1)
    wrapped = geo.wrap_longitude(np.where([[False], [True], [False]], tracks, np.clip(tracks, -170, 170)))
    wrapped = wrapped.astype(np.float32) if axis else wrapped.T
    found = geo.unwrap_longitude(wrapped, axis=axis)
    np.testing.assert_array_equal(found, np.unwrap(wrapped.astype(np.float64), period=360, axis=axis))
    assert np.abs(np.diff(wrapped, axis=axis)).max() > 180
