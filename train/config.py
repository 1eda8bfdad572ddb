"""What a training run is told: `--config FILE` and `--set` over these defaults. Durations are whole seconds."""

from typing import Literal

from pydantic import Field, model_validator

from shared.errors import ConfigError
from shared.schema import Layout
from shared.settings import Duration, Settings

Objective = Literal["energy", "energy-plain", "liu", "reference"]
Scheme = Literal["heun", "ito-heun", "euler", "reference"]
Engine = Literal["driftcal", "pastax"]


class Ensemble(Settings):
    """The simulated ensemble."""

    members: int = Field(default=20, ge=2, le=1000)


class Integration(Settings):
    """How the stochastic differential equation is stepped (see `train.simulate`)."""

    step: Duration = 1800
    scheme: Scheme = "heun"
    kappa_every: Duration = 86_400
    """The diffusivity is computed this often and interpolated linearly between; `step` makes it exact."""


class Score(Settings):
    """What is minimised (see `train.score`)."""

    objective: Objective = "energy"
    reference_cs: float = Field(default=0.1, gt=0, le=10)
    """Constant at which the spread that weights the `energy` objective is simulated; never trained."""
    reference_members: int = Field(default=10, ge=2, le=1000)
    """Members of that ensemble."""


class Optimizer(Settings):
    """How log C_s is moved (see `train.optimiser`)."""

    method: Literal["newton", "adam"] = "newton"
    learning_rate: float = Field(default=0.03, gt=0, le=1)
    """Step of Adam; Newton has none."""
    final_passes: int = Field(default=5, ge=1, le=20)
    """Most passes over all training samples at a fixed constant that end a run; one or two are usual."""
    curvature_samples: int = Field(default=2048, ge=1)
    """Samples from which the objective's curvature at the end is measured."""


class Training(Settings):
    """All settings of a training run."""

    engine: Engine = "driftcal"
    """What simulates: `pastax` needs the package of that name (see `train.pastax_bridge`)."""
    ensemble: Ensemble = Ensemble()
    integration: Integration = Integration()
    score: Score = Score()
    optimizer: Optimizer = Optimizer()
    epochs: int = Field(default=1, ge=1, le=10_000)
    batch_size: int = Field(default=128, ge=1, le=65_536)
    seed: int = Field(default=0, ge=0, lt=2**32)
    initial_cs: float = Field(default=0.1, gt=0, le=100)
    precision: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _steps_fit(self) -> "Training":
        if self.integration.kappa_every % self.integration.step:
            raise ValueError(
                f"integration.kappa_every ({self.integration.kappa_every} s) is not a multiple of integration.step "
                f"({self.integration.step} s)"
            )
        return self

    @model_validator(mode="after")
    def _engine_has_scheme(self) -> "Training":
        if self.engine == "pastax" and self.integration.scheme == "ito-heun":
            raise ValueError(
                "engine=pastax has no scheme 'ito-heun': pastax's Heun applies the noise in both stages, its Euler the "
                "drift in one. Set integration.scheme to heun, euler or reference, or leave engine at driftcal"
            )
        return self


LARGEST_TABLE = 2**31
"""Cells of a batch's table of flows that a 32-bit index can tell apart."""


def check_against(settings: Training, layout: Layout) -> None:
    """Refuses settings that do not fit the store: its steps, and the size of its windows."""
    step, kappa = settings.integration.step, settings.integration.kappa_every
    if layout.obs_step % step:
        raise ConfigError(
            f"integration.step is {step} s; the store's fixes are {layout.obs_step} s apart, which must be a multiple "
            f"of it. Set integration.step to {layout.obs_step} s or a divisor of it."
        )
    if layout.time_step % kappa:
        raise ConfigError(
            f"integration.kappa_every is {kappa} s; the store's currents are {layout.time_step} s apart, which must "
            f"be a multiple of it. Set integration.kappa_every to {layout.time_step} s or a divisor of it."
        )
    intervals = (layout.n_times - 1) * (layout.time_step // kappa)
    each = intervals * layout.n_lat * layout.n_lon
    cells = settings.batch_size * each
    if cells >= LARGEST_TABLE:
        raise ConfigError(
            f"batch_size {settings.batch_size} with integration.kappa_every {kappa} s makes a table of {cells:.3g} "
            f"cells, more than {LARGEST_TABLE:.3g}. Lower batch_size to {(LARGEST_TABLE - 1) // each} or raise "
            f"kappa_every."
        )
