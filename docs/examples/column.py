"""Calibrates the closure of the ocean column on profiles of a twin: `python -m docs.examples.column`.

Profiles of ten days are made with known parameters, and seen with errors of 1 mK at all levels, twice a day. From
a start off by factors of up to 1.6, Gauss-Newton steps find them again: the misfit is a vector of 2,000 numbers
that depends on five parameters, so forward mode gives its whole Jacobian in one run.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from driftcal.train.gradient_cost.column import LEVELS, PARAMETERS, advance

DAYS, EVERY = 10, 24
"""Length of the record, and steps of half an hour from one profile to the next."""

ERROR = 1e-3
"""Of an observation [K]."""

START = np.array([1.6, 0.7, 1.3, 1.5, 0.7])
"""First guess over truth."""


def heat_flux(k: Array) -> Array:
    """Into the ocean [W/m2]: strong days and nights, so that stable and convective mixing both matter."""
    return 600.0 * jnp.sin(2.0 * jnp.pi * k / 48.0) - 100.0


def profiles(log_parameters: Float[Array, "5"]) -> Float[Array, "profile z"]:
    """What is observed [K]."""

    def step(theta: Array, k: Array) -> tuple[Array, Array]:
        theta = advance(theta, log_parameters, k, heat_flux)
        return theta, theta

    return jax.lax.scan(step, jnp.zeros(LEVELS), jnp.arange(DAYS * 48))[1][EVERY - 1 :: EVERY]


def calibrate(observed: np.ndarray, start: np.ndarray, steps: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Parameters that fit `observed` best and their relative standard errors, from a first guess `start`."""

    def misfit(log_parameters: Array) -> Array:
        return ((profiles(log_parameters) - observed) / ERROR).ravel()

    both = jax.jit(lambda p: (misfit(p), jax.jacfwd(misfit)(p)))
    at = np.log(start)
    for _ in range(steps):
        residual, slopes = (np.asarray(value) for value in both(jnp.asarray(at)))
        at = at - np.clip(np.linalg.lstsq(slopes, residual)[0], -0.5, 0.5)
    return np.exp(at), np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes)))


def main() -> None:
    """Makes the twin, calibrates, and prints both."""
    with jax.enable_x64(True):
        truth = np.array(list(PARAMETERS.values()))
        errors = np.random.default_rng(0).normal(0.0, ERROR, (DAYS * 48 // EVERY, LEVELS))
        observed = np.asarray(profiles(jnp.asarray(np.log(truth)))) + errors
        found, error = calibrate(observed, truth * START)
    print(f"{'':8}{'truth':>10}{'start':>10}{'found':>12}{'s.e. %':>9}")
    for name, true, start, value, wide in zip(PARAMETERS, truth, truth * START, found, error, strict=True):
        print(f"{name:8}{true:10.3g}{start:10.3g}{value:12.4g}{100 * wide:9.2f}")


if __name__ == "__main__":
    main()
