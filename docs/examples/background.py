"""Smagorinsky diffusion plus a constant background diffusivity: a term with two parameters.

    drift-train run STORE --out RUN --set dynamics=docs.examples.background:SmagorinskyBackground

The Ito equation is dX = (u + grad K) dt + sqrt(2 K) dW with K = C_s kappa + K_b, so grad K = C_s grad kappa.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from driftcal.train.fit.parameters import Positive
from driftcal.train.learners.drift.smagorinsky import Flow


class SmagorinskyBackground(eqx.Module):
    """K = cs kappa + background."""

    cs: Positive
    background: Positive

    def __init__(self, cs: float = 0.1, background: float = 10.0):
        """Starts at `cs` [1] and `background` [m2/s]."""
        self.cs, self.background = Positive(cs), Positive(background)

    def term(self, t: Float[Array, ""], y: Float[Array, "2"], args: Flow) -> tuple[Array, Array]:
        """Drift (east, north) [m/s] and the amplitude of the noise [m s^-1/2]."""
        diffusivity = self.cs.value * args.kappa + self.background.value
        drift = jnp.stack([args.u + self.cs.value * args.kappa_x, args.v + self.cs.value * args.kappa_y])
        return drift, jnp.sqrt(2.0 * diffusivity)
