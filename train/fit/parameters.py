"""Parameters that are trained: names and one vector, and the dynamics that they make.

Everything that moves parameters sees the vector alone, in the coordinates in which it is trained: the logarithm of what
must be positive, the number itself otherwise. Names and values are for people.
"""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from driftcal.shared.errors import DataError
from driftcal.train.learners.drift.simulate import Dynamics
from driftcal.train.learners.drift.smagorinsky import FORMULA, Smagorinsky
from driftcal.train.learners.drift.user_dynamics import fingerprint, loading, terms
from driftcal.train.run.run_folder import Own
from driftcal.train.settings import Training
from jaxtyping import Array, Bool, Float

MOST_NAMED = 10
"""Parameters up to which each has a name, a value and a standard error of its own in results: beyond, a curvature
matrix costs too many gradients."""


LARGEST_FACTOR = 1e6
"""A positive parameter that has gone further than this from its start has left anything an ocean could mean."""


@dataclass(frozen=True)
class Model:
    """Dynamics with P trained parameters.

    Attributes:
        names: of the parameters.
        positive: which of them are trained through their logarithm.
        start: where they begin, as trained.
        dynamics: from the vector, `(P,)` or one a sample, `(B, P)`, to dynamics.
        formula: the diffusivity, in words for a reader.
        template: the user's module, or None for the built-in dynamics.
    """

    names: tuple[str, ...]
    positive: Bool[np.ndarray, " P"]
    start: Float[np.ndarray, " P"]
    dynamics: Callable[[Array], Dynamics]
    formula: str
    template: eqx.Module | None = None

    @property
    def size(self) -> int:
        """P."""
        return len(self.names)

    @property
    def few(self) -> bool:
        """Tells whether the parameters are so few that each is reported by name, with an error."""
        return self.size <= MOST_NAMED

    def values(self, vector: np.ndarray) -> np.ndarray:
        """The parameters themselves, of what is trained; `(..., P)` float64."""
        vector = np.asarray(vector, np.float64)
        return np.where(self.positive, np.exp(np.where(self.positive, vector, 0.0)), vector)

    def stop_if_diverged(self, vector: np.ndarray) -> None:
        """Refuses parameters that have gone where there is no minimum."""
        gone = ~np.isfinite(vector) | (self.positive & (np.abs(vector - self.start) > np.log(LARGEST_FACTOR)))
        if gone.any():
            k = int(np.argmax(gone))
            name = "C_s" if self.template is None else f"parameter {self.names[k]}"
            raise DataError(
                f"{name} went to {self.values(vector)[k]:.3g}: the objective has no minimum near its start, "
                f"{self.values(self.start)[k]:.3g}, on these samples. Try score.objective=energy, another start, or "
                f"look at the samples with drift-inspect."
            )


def model_of(settings: Training) -> Model:
    """The model that a run's settings ask for, in the precision that is in force.

    Raises:
        ConfigError: `dynamics` names no term that can be trained.
    """
    if settings.dynamics is None:
        start = np.log([settings.initial_cs])
        return Model(("cs",), np.array([True]), start, lambda vector: Smagorinsky(vector[..., 0]), FORMULA)
    module = loading.load(settings.dynamics, settings.dynamics_settings, jnp.dtype(settings.precision))
    leaves = terms.trained_leaves(module)
    names = tuple(name for leaf in leaves for name in leaf.names)
    positive = np.concatenate([np.full(len(leaf.names), leaf.positive) for leaf in leaves])
    start = np.concatenate([np.asarray(leaf.values, np.float64).ravel() for leaf in leaves])
    rebuild = terms.rebuilder(module)
    formula = f"dynamics {settings.dynamics}"
    return Model(names, positive, start, lambda vector: terms.Adapter(vector, rebuild), formula, module)


def calibrated(settings: Training, cs: float | None, own: Own | None) -> tuple[Model, Float[Array, " P"]]:
    """The model of a finished run and its calibrated numbers as trained, in the precision that is in force.

    Args:
        settings: of the run.
        cs: its constant; None where the dynamics are a user's.
        own: a user's dynamics.

    Raises:
        ConfigError: the user's code is not what was calibrated, or what was calibrated cannot be read.
    """
    model, dtype = model_of(settings), jnp.dtype(settings.precision)
    if model.template is None:
        assert cs is not None
        return model, jnp.asarray(np.log([cs]), dtype)
    assert own is not None
    points = fingerprint.points_of(own.function, str(own.run))
    function = loading.fingerprint_of(str(settings.dynamics), model.template, points)
    remedy = "Put the files that it comes from back as they were, or train again."
    fingerprint.check(own.function, function, str(own.run), remedy)
    return model, terms.vector_of(terms.saved(own.path, model.template))
