"""Dynamics that users write: an Equinox module with `term(t, y, args) -> (drift, diffusion)`.

A term says how one particle moves, as an Ito equation; the scan maps it over members and samples:

    t          time after the sample's first fix [s]
    y          (lon, lat) [degrees], shape (2,). Longitude is continuous inside a sample. float32 resolves a metre;
               the integration keeps positions of its own, relative to the starting cell, so nothing is lost by that
    args       `drift.smagorinsky.Flow` at y: u, v [m/s], kappa [m2/s], its gradient kappa_x, kappa_y [m/s], ashore
    drift      (east, north) [m/s], shape (2,): all of it, grad K included
    diffusion  amplitude b of the noise b dW [m s^-1/2]: sqrt(2 K), of shape () or (2,) for east and north

What is trained in it, and what else it may offer: `fit.parameters`.

Inside land (`args.ashore`) a member stays, whatever the term says.
"""

from collections.abc import Callable
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from driftcal.train.learners.drift.smagorinsky import Flow

Term = Callable[[Array, Array, Flow], tuple[Array, Array]]
"""(t, y, args) -> (drift, diffusion), for one particle."""


class Adapter(eqx.Module):
    """A user's term as dynamics of the scan, mapped over members and samples.

    Attributes:
        vector: The parameters as trained, the same for all samples or one row a sample.
        rebuild: The function from one such vector to the user's module.
    """

    vector: Float[Array, "*B P"]
    rebuild: Callable[[Array], eqx.Module] = eqx.field(static=True)

    def __call__(self, flow: Flow, gradient_share: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Drift (east, north) [m/s] and amplitudes (east, north) [m s^-1/2] of all members of all samples."""
        if gradient_share != 1.0:
            raise ValueError("a term gives the whole drift of the Ito equation; schemes that add to it do not fit")
        place = flow.place
        assert place is not None

        def one(vector: Array, lon: Array, lat: Array, at: Flow) -> tuple[Array, Array]:
            y = jnp.stack([lon, lat])
            drift, diffusion = term_of(self.rebuild(vector))(place.time, y, at)
            moved = jnp.asarray(drift, y.dtype), jnp.broadcast_to(jnp.asarray(diffusion, y.dtype), (2,))
            return jax.tree.map(lambda f: jnp.where(at.ashore, 0.0, f), moved)

        members = jax.vmap(one, (None, 0, 0, 0), -1)
        samples = jax.vmap(members, (0 if self.vector.ndim == 2 else None, 1, 1, 1), -1)
        drift, diffusion = samples(self.vector, place.lon, place.lat, flow._replace(place=None))
        return (drift[0], drift[1]), (diffusion[0], diffusion[1])


def term_of(module: eqx.Module) -> Term:
    """The term of a module: its method `term`, or the module itself where that can be called, as in pastax."""
    return cast(Term, getattr(module, "term", module))
