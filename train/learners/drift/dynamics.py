"""The dynamics of a run: those that its settings name, with their parameters at the start or calibrated."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from driftcal.train.fit.parameters import Parameters, rebuilder, saved, vector_of
from driftcal.train.learners.drift.simulate import Dynamics
from driftcal.train.learners.drift.smagorinsky import Smagorinsky, WholeFlow
from driftcal.train.learners.drift.user_dynamics import fingerprint, loading
from driftcal.train.learners.drift.user_dynamics.fingerprint import UserDynamics
from driftcal.train.learners.drift.user_dynamics.terms import Adapter
from driftcal.train.settings import Training


def load(settings: Training) -> Parameters:
    """The parameters of the dynamics that a run's settings ask for, in the precision that is in force.

    Raises:
        ConfigError: `dynamics` names no term that can be trained.
    """
    dtype = jnp.dtype(settings.precision)
    if settings.dynamics is None:
        # not for a module to claim: what results call cs is the Smagorinsky constant and nothing else
        return Parameters.of(Smagorinsky.of_log(jnp.asarray(np.log(settings.initial_cs), dtype)), "", headline="cs")
    module = loading.load(settings.dynamics, settings.dynamics_settings, dtype)
    return Parameters.of(module, f"dynamics {settings.dynamics}")


def dynamics_of(parameters: Parameters, vector: Float[Array, "*B P"]) -> Dynamics:
    """The dynamics with these trained numbers, the same for all samples or one row a sample."""
    rebuild = rebuilder(parameters.module)
    if isinstance(parameters.module, WholeFlow):
        module = rebuild(vector) if vector.ndim == 1 else jax.vmap(rebuild)(vector)
        assert callable(module)
        return module
    return Adapter(vector, rebuild)


def calibrated(settings: Training, cs: float | None, own: UserDynamics | None) -> tuple[Parameters, Float[Array, " P"]]:
    """The parameters of a finished run, and their calibrated numbers as trained, in the precision that is in force.

    Args:
        settings: Those of the run.
        cs: Its constant; None where the dynamics are a user's.
        own: A user's dynamics.

    Raises:
        ConfigError: The user's code is not what was calibrated, or what was calibrated cannot be read.
    """
    parameters = load(settings)
    if own is None:
        assert cs is not None
        return parameters, jnp.asarray(np.log([cs]), jnp.dtype(settings.precision))
    points = fingerprint.points_of(own.function, str(own.run))
    function = loading.fingerprint_of(str(settings.dynamics), parameters.module, points)
    remedy = "Put the files that it comes from back as they were, or train again."
    fingerprint.check(own.function, function, str(own.run), remedy)
    return parameters, vector_of(saved(own.path, parameters.module))
