"""Random increments that depend on nothing but their purpose.

A draw is a function of (seed, stream, epoch, sample, step, member): the Threefry-2x32 counter-based generator (Salmon
et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") keyed by the first four, its counter the last two. So a
sample's noise depends neither on its batch nor on the batch's size or device, and nothing is stored between steps.
Thirteen rounds are the fewest that pass BigCrush, by those authors' tests; keys are made with all twenty.

The two words of a draw make two normal deviates (Box and Muller 1958), with the short series of `drift.sphere` for the
sine and cosine of an eighth of a turn.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from driftcal.train.learners.drift.sphere import cosine, sine
from driftcal.train.learners.drift.xla_barriers import walled

Noise = Callable[[Array], tuple[Float[Array, "S B"], Float[Array, "S B"]]]
"""Number of a step -> standard normal increments, east and north."""

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
"""Rotations of Threefry-2x32, round by round."""

PARITY = 0x1BD11BDA
"""Parity constant of the Threefish key schedule."""

KEY_ROUNDS, DRAW_ROUNDS = 20, 13
"""Rounds where keys are made, and where increments are drawn."""

Words = tuple[UInt32[Array, "..."], UInt32[Array, "..."]]


def threefry(key: Words, counter: Words, rounds: int) -> Words:
    """Threefry-2x32 of `counter` under `key`; both broadcast."""
    keys = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY)
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for number in range(rounds):
        a = a + b
        turn = ROTATIONS[number % 8]
        b = a ^ ((b << turn) | (b >> (32 - turn)))
        if number % 4 == 3:
            injected = number // 4 + 1
            a, b = a + keys[injected % 3], b + keys[(injected + 1) % 3] + jnp.uint32(injected)
    return a, b


def normals(words: Words, dtype: np.dtype) -> tuple[Array, Array]:
    """Two independent standard normal deviates from two random words.

    The radius comes from the upper 24 bits of the first word, which float32 holds exactly (so that both precisions see
    the same noise; no radius exceeds 5.9), the angle in an eighth of a turn to either side from those of the second,
    and from its lowest three bits which of the eight it is.
    """
    uniform, angle = ((word >> 8).astype(jnp.int32).astype(dtype) for word in words)
    radius = jnp.sqrt(-2.0 * jnp.log((uniform + 0.5) * 2.0**-24))
    turn = (angle + 0.5) * (np.pi / 2 * 2.0**-24) - np.pi / 4
    along, across = cosine(turn), sine(turn)
    swap, east_sign, north_sign = (words[1] & bit != 0 for bit in (1, 2, 4))
    east, north = jnp.where(swap, across, along), jnp.where(swap, along, across)
    return jnp.where(east_sign, -radius, radius) * east, jnp.where(north_sign, -radius, radius) * north


class Increments(NamedTuple):
    """Increments for every step of an ensemble of `members`, in `dtype`, under every sample's key."""

    key: Words
    members: int
    dtype: np.dtype

    def __call__(self, step: Array) -> tuple[Float[Array, "S B"], Float[Array, "S B"]]:
        """Standard normal, east and north."""
        member = jnp.arange(self.members, dtype=jnp.uint32)[:, None]
        # made once: the radius and both directions would each draw them again
        words = walled(lambda step: threefry(self.key, (step.astype(jnp.uint32), member), DRAW_ROUNDS), step)
        return normals(words, self.dtype)


def noise_for(
    seed: int | Array, epoch: int | Array, sample: UInt32[Array, " B"], members: int, stream: int, dtype: np.dtype
) -> Increments:
    """Increments for every step of an ensemble. Streams keep ensembles apart that must be independent."""
    run = threefry(
        (jnp.asarray(seed, jnp.uint32), jnp.uint32(stream)), (jnp.asarray(epoch, jnp.uint32), jnp.uint32(0)), KEY_ROUNDS
    )
    return Increments(threefry(run, (sample, jnp.zeros_like(sample)), KEY_ROUNDS), members, dtype)
