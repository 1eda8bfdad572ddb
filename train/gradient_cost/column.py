"""A one-dimensional ocean column whose mixing depends on its stratification.

Temperature T(z) = reference + theta, the reference of constant gradient, obeys

    d theta / dt = d/dz [K (d theta / dz + gradient)],    K dT/dz = Q / (rho c_p) at the surface, 0 at the bottom,

with a closure of five parameters, after Pacanowski and Philander (1981, J. Phys. Oceanogr. 11, eqs 1-3):

    K = k_0 / (1 + alpha Ri)^n + k_b     where stratified, Ri = N^2 / S^2 > 0, and
    K = k_0 + k_b + k_c                  where not, with a smooth passage between.

N^2 that of the present profile, S^2 given. A step is implicit, K too: a first guess with the K of the step's start and
`ITERATIONS` corrections (Picard), each a tridiagonal solve. The state is theta, not T: float32 resolves its differences
from level to level, which N^2 is made of. Levels go down from the surface.

Below n = 1 a steeper gradient carries more heat. Above, as with the n = 2 of 1981 and a shear that does not respond, it
carries less: layers form (Posmentier 1977, J. Phys. Oceanogr. 7), and the end depends on the last digit of the start.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from driftcal.train.gradient_cost.timed_model import Model

LEVELS = 100
SPACING = 2.0
"""Distance between levels [m]."""

STEP = 1800.0
"""[s]."""

ITERATIONS = 5
"""Corrections of K within a step: they bring it within 2e-5 K, mostly 1e-7 K, of the solution."""

GRAVITY = 9.81
"""[m s-2]."""

EXPANSION = 2e-4
"""Thermal expansion of sea water [1/K]."""

HEAT_CAPACITY = 1025.0 * 3990.0
"""Density times specific heat of sea water [J m-3 K-1]."""

GRADIENT = 0.02
"""Gradient of the reference temperature, upwards [K/m]."""

PARAMETERS = {"k_0": 5e-3, "alpha": 5.0, "n": 0.8, "k_b": 1e-4, "k_c": 1e-2}
"""Parameters of the closure [m2/s, 1, 1, m2/s, m2/s]."""

PASSAGE = 0.2
"""Width, in Richardson number, of the transition between the regimes."""


def shear_squared(levels: int) -> Float[Array, " inner"]:
    """S^2 between the levels [s-2]: strong under the surface, with an e-folding depth of 30 m."""
    depth = SPACING * jnp.arange(1, levels, dtype=float)
    return (2e-2 * jnp.exp(-depth / 30.0) + 2e-3) ** 2


def diffusivity(theta: Float[Array, " z"], parameters: Float[Array, "5"]) -> Float[Array, " inner"]:
    """K between the levels [m2/s]; `parameters` are the logarithms of `PARAMETERS`."""
    k_0, alpha, n, k_b, k_c = jnp.exp(parameters)
    buoyancy = GRAVITY * EXPANSION * (GRADIENT + (theta[:-1] - theta[1:]) / SPACING)
    richardson = buoyancy / shear_squared(theta.size)
    size = jnp.sqrt(richardson**2 + PASSAGE**2)
    stable, unstable = 0.5 * (richardson + size), 0.5 * (1.0 - richardson / size)
    return k_0 * jnp.exp(-n * jnp.log1p(alpha * stable)) + k_b + k_c * unstable


def heat_flux(k: Array, step: float = STEP) -> Array:
    """Into the ocean in step `k` [W/m2]: a daily cycle around a slow one."""
    day = k * (step / 86_400.0)
    return 150.0 * jnp.sin(2 * jnp.pi * day) - 40.0 * jnp.cos(2 * jnp.pi * day / 30.0)


def advance(
    theta: Float[Array, " z"],
    parameters: Float[Array, "5"],
    k: Array,
    flux: Callable[[Array], Array] = heat_flux,
    iterations: int = ITERATIONS,
) -> Float[Array, " z"]:
    """Steps the column once.

    Args:
        theta: temperature less the reference [K].
        parameters: logarithms of the closure's.
        k: number of the step.
        flux: number of a step -> heat into the ocean [W/m2].
        iterations: corrections of K.
    """
    heating = jnp.zeros_like(theta).at[0].set(flux(k).astype(theta.dtype) * (STEP / (HEAT_CAPACITY * SPACING)))
    slope = (theta[:-1] - theta[1:]) / SPACING + GRADIENT
    none, weight = jnp.zeros(1, theta.dtype), STEP / SPACING**2
    slope_above, slope_below = jnp.concatenate([none, slope]), jnp.concatenate([slope, none])

    def solved(guess: Array, _: None) -> tuple[Array, None]:
        mixing = diffusivity(guess, parameters)
        # shifted by concatenation and first of all: with pads, or shifts of products, forward mode takes 1.7 times as
        # long, as the compiler does not vectorise them
        above, below = jnp.concatenate([none, mixing]), jnp.concatenate([mixing, none])
        change = heating + (STEP / SPACING) * (above * slope_above - below * slope_below)
        # for the increment: it is small, and so are its rounding errors
        increment = jax.lax.linalg.tridiagonal_solve(
            -weight * above, 1.0 + weight * (above + below), -weight * below, change[:, None]
        )[:, 0]
        return theta + increment, None

    return jax.lax.scan(solved, theta, length=iterations + 1)[0]


def column(levels: int = LEVELS) -> Model:
    """The column from rest; its loss is the mean squared distance [K2] from a warm layer of 40 m."""
    depth = SPACING * (0.5 + jnp.arange(levels, dtype=float))
    target = 2.0 * jnp.exp(-((depth / 40.0) ** 2))
    parameters = jnp.log(jnp.asarray(list(PARAMETERS.values()), float))
    return Model(partial(advance), jnp.zeros(levels), parameters, lambda theta: jnp.mean((theta - target) ** 2))
