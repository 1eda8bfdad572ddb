"""A constant diffusivity with a mean drift: the simplest model that a calibrated one is compared with.

dX = (u + d) dt + sqrt(2 K) dW,    K one number [m2/s], d one vector [m/s], both 0 on land.
"""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from driftcal.train.fit.parameters import Positive
from driftcal.train.learners.drift.smagorinsky import Flow, WholeFlow


class Diffusivity(WholeFlow):
    """One diffusivity for all waters, and one mean drift beside the currents.

    Attributes:
        diffusivity: K [m2/s].
        east: Mean drift eastward [m/s].
        north: Northward.
    """

    diffusivity: Positive
    east: Float[Array, "..."]
    north: Float[Array, "..."]

    formula: ClassVar[str] = "K = constant"
    symbols: ClassVar[dict[str, str]] = {"diffusivity": "K"}

    def __call__(self, flow: Flow, gradient_share: float) -> tuple[tuple[Array, Array], Array]:
        """Drift (east, north) [m/s] and diffusion amplitude [m s^-1/2]; a constant K has no gradient."""
        del gradient_share
        afloat = jnp.where(flow.ashore, 0.0, 1.0).astype(flow.u.dtype)
        drift = flow.u + self.east * afloat, flow.v + self.north * afloat
        return drift, jnp.sqrt(2.0 * self.diffusivity.value) * afloat
