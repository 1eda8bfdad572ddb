"""A term with as many parameters as one likes, for benchmarks of the gradient modes."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from driftcal.train.learners.drift.smagorinsky import Flow


class Tides(eqx.Module):
    """Smagorinsky diffusion whose constant oscillates: log C_s is a sum of waves in time with trained amplitudes."""

    amplitudes: Float[Array, " P"]
    rates: np.ndarray

    def __init__(self, parameters: int):
        """Starts at C_s = 0.1; the first wave stands still."""
        self.amplitudes = jnp.zeros(parameters).at[0].set(np.log(0.1))
        self.rates = 2 * np.pi * np.arange(parameters) / 432_000

    def term(self, t: Float[Array, ""], y: Float[Array, "2"], args: Flow) -> tuple[Array, Array]:
        """Drift (east, north) [m/s] and the amplitude of the noise [m s^-1/2]."""
        cs = jnp.exp(self.amplitudes @ jnp.cos(jnp.asarray(self.rates, y.dtype) * t))
        drift = jnp.stack([args.u + cs * args.kappa_x, args.v + cs * args.kappa_y])
        return drift, jnp.sqrt(2.0 * cs * jnp.maximum(args.kappa, 1e-12))
