"""The generator against its published vectors and jax's own, the deviates against their law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from driftcal.train.learners.drift.noise import noise_for, normals, threefry

# Known answers of the Random123 library: rounds, key, counter, result.
KNOWN = [
    (13, (0x0, 0x0), (0x0, 0x0), (0x9D1C5EC6, 0x8BD50731)),
    (13, (0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0xFD36D048, 0x2D17272C)),
    (13, (0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xBA3E4725, 0xF27D669E)),
    (20, (0x0, 0x0), (0x0, 0x0), (0x6B200159, 0x99BA4EFE)),
    (20, (0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    (20, (0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("rounds", "key", "counter", "answer"), KNOWN)
def test_known_answers(rounds, key, counter, answer):
    found = threefry(tuple(map(jnp.uint32, key)), tuple(map(jnp.uint32, counter)), rounds)
    assert tuple(map(int, found)) == answer


def test_twenty_rounds_equal_jax_s_own():
    rng = np.random.default_rng(0)
    key = jnp.asarray(rng.integers(0, 2**32, 2, dtype=np.uint32))
    counter = jnp.asarray(rng.integers(0, 2**32, (2, 1000), dtype=np.uint32))
    found = threefry((key[0], key[1]), (counter[0], counter[1]), 20)
    np.testing.assert_array_equal(np.stack(found).ravel(), threefry_2x32(key, counter.ravel()))


def drawn(**changes):
    """Increments `(step, 2, member, sample)`."""
    told = {"seed": 3, "epoch": 1, "sample": jnp.arange(40, 168, dtype=jnp.uint32), "members": 60, "stream": 0}
    draw = noise_for(**{**told, **changes}, dtype=np.dtype(np.float32))
    return np.asarray(jax.jit(lambda: jax.lax.map(lambda k: jnp.stack(draw(k)), jnp.arange(120)))())


def test_increments_are_standard_normal_and_independent():
    """Their law by Kolmogorov and Smirnov's test, tails, moments, and correlations along every axis."""
    found = drawn().astype(np.float64)
    n = found.size
    assert stats.kstest(found.ravel()[::3], "norm").pvalue > 1e-3
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        error = np.sqrt(((found**power).var()) / n)
        assert abs((found**power).mean() - moment) < 4 * error
    assert (np.abs(found) > 4).mean() == pytest.approx(2 * stats.norm.sf(4), rel=0.2)
    for axis in range(found.ndim):
        a, b = np.take(found, range(1, found.shape[axis]), axis), np.take(found, range(found.shape[axis] - 1), axis)
        for x, y in ((a, b), (a**2, b**2)):
            assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 4 / np.sqrt(a.size)


@pytest.mark.parametrize("change", [{"seed": 4}, {"epoch": 2}, {"stream": 1}])
def test_other_keys_give_other_noise(change):
    a, b = drawn(), drawn(**change)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)


def test_increments_depend_on_sample_and_member_alone():
    """Not on the batch, the order in it, or how many members there are."""
    whole = drawn()
    part = drawn(sample=jnp.asarray([77, 41], jnp.uint32), members=9)
    np.testing.assert_array_equal(part, whole[:, :, :9][..., [37, 1]])


def test_both_precisions_see_the_same_noise():
    words = tuple(jnp.asarray(np.random.default_rng(k).integers(0, 2**32, 5000, dtype=np.uint32)) for k in (1, 2))
    single = normals(words, np.dtype(np.float32))
    with jax.enable_x64(True):
        double = normals(words, np.dtype(np.float64))
        u, angle = (np.asarray(word) >> 8 for word in words)
    for a, b in zip(single, double, strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-6, atol=5e-6)
    radius = np.sqrt(-2 * np.log((u + 0.5) / 2**24))
    np.testing.assert_allclose(np.hypot(*double), radius, rtol=1e-9)
    turn = (angle + 0.5) / 2**24 * np.pi / 2 - np.pi / 4
    straight = np.asarray(words[1]) & 1 == 0
    np.testing.assert_allclose(
        np.abs(double[1])[straight], radius[straight] * np.abs(np.sin(turn))[straight], rtol=1e-8
    )
