"""What a training run is told: `--config FILE` and `--set` over these defaults. Durations are whole seconds."""

from math import degrees, radians
from typing import Any, Literal

from driftcal.shared.errors import ConfigError
from driftcal.shared.settings import Duration, Settings
from driftcal.shared.store.schema import Layout
from pydantic import Field, model_validator

Objective = Literal["energy", "energy-plain", "liu", "reference"]
Scheme = Literal["heun", "ito-heun", "euler", "reference"]
Engine = Literal["driftcal", "pastax", "native"]


class Ensemble(Settings):
    """The simulated ensemble."""

    members: int = Field(default=20, ge=2, le=1000)


class Integration(Settings):
    """How the stochastic differential equation is stepped (see `drift.simulate`)."""

    step: Duration = 1800
    scheme: Scheme = "heun"
    kappa_every: Duration = 86_400
    """The diffusivity is computed this often and interpolated linearly between; `step` makes it exact."""


class Score(Settings):
    """What is minimised (see `drift.scoring_rules`)."""

    objective: Objective = "energy"
    reference_cs: float = Field(default=0.1, gt=0, le=10)
    """Constant at which the spread that weights the `energy` objective is simulated; never trained."""
    reference_members: int = Field(default=10, ge=2, le=1000)
    """Members of that ensemble."""


class Gradient(Settings):
    """How the gradient is computed (see `fit.sample_gradients`)."""

    mode: Literal["auto", "forward", "reverse"] = "auto"
    """`auto`: forward for few parameters, else reverse."""


class Optimizer(Settings):
    """How the parameters are moved (see `drift.energy_newton` and `fit.fixed_noise`)."""

    method: Literal["auto", "newton", "adam"] = "auto"
    """`auto`: newton for few parameters, else adam."""
    learning_rate: float = Field(default=0.03, gt=0, le=1)
    """Step of Adam; Newton has none."""
    final_passes: int = Field(default=5, ge=1, le=20)
    """Most passes over all training samples at fixed parameters that end a run; one or two are usual."""
    curvature_samples: int = Field(default=2048, ge=1)
    """Samples from which the objective's curvature at the end is measured."""


class Checkpointing(Settings):
    """How often a run is saved, so that it can be resumed (see `run.checkpoints`)."""

    every: Duration = 60
    """Save after a batch when so much time has passed since the last save."""
    every_steps: int | None = Field(default=None, ge=1)
    """Save after every so many batches as well."""
    keep: int = Field(default=3, ge=1, le=1000)
    """The last so many are kept."""


class Reading(Settings):
    """How samples come from the store (see `reading.batches`); none of this but `run_length` changes a result."""

    run_length: int = Field(default=1, ge=1, le=2**20)
    """Neighbours in the store that stay together when an epoch is shuffled, for disks that are slow to seek."""
    threads: int = Field(default=2, ge=1, le=64)
    """Threads that decode."""
    copying: Literal["auto", "plain"] = "auto"
    """How samples of an uncompressed store are copied and checked: `plain`, in two passes; `auto`, in one by C++ where
    there is a compiler (see `native.checked_copy`)."""
    prefetch: bool = True
    """Ask the kernel for the pages of a batch while the one before it is decoded."""
    stall_timeout: Duration = Field(default=60, ge=1)
    """A run stops when reading has got no further for so long."""


class Tracking(Settings):
    """Where the lines of a run go beside `metrics.jsonl`."""

    tensorboard: bool = False
    """Into event files in the run's folder; needs the package tensorboardX."""


class Training(Settings):
    """All settings of a training run."""

    engine: Engine = "driftcal"
    """What simulates: `pastax` needs the package of that name (see `drift.pastax_engine`), `native` a C++ compiler (see
    `drift.native_engine`)."""
    ensemble: Ensemble = Ensemble()
    integration: Integration = Integration()
    dynamics: str | None = None
    """A user's term, `module:Class` (see `user_dynamics.terms`); none: Smagorinsky diffusion."""
    dynamics_settings: dict[str, Any] = {}
    """What its class is built with."""
    gradient: Gradient = Gradient()
    score: Score = Score()
    optimizer: Optimizer = Optimizer()
    epochs: int = Field(default=1, ge=1, le=10_000)
    batch_size: int = Field(default=128, ge=1, le=65_536)
    seed: int = Field(default=0, ge=0, lt=2**32)
    initial_cs: float = Field(default=0.1, gt=0, le=100)
    precision: Literal["float32", "float64"] = "float32"
    checkpoint: Checkpointing = Checkpointing()
    tracking: Tracking = Tracking()
    data: Reading = Reading()

    @model_validator(mode="before")
    @classmethod
    def _ito_for_terms(cls, tree: Any) -> Any:
        """A user's term is an Ito equation, so its scheme is one for those unless another is asked for."""
        integration = tree.get("integration", {}) if isinstance(tree, dict) and tree.get("dynamics") else None
        if isinstance(integration, dict):
            return tree | {"integration": {"scheme": "ito-heun"} | integration}
        return tree

    @model_validator(mode="after")
    def _scheme_fits(self) -> "Training":
        scheme = self.integration.scheme
        if self.dynamics is not None and scheme not in ("ito-heun", "euler"):
            raise ValueError(
                f"integration.scheme {scheme} makes the noise add a drift of its own (Stratonovich), which a term's "
                f"Ito drift does not allow for. With dynamics set use ito-heun or euler"
            )
        if self.dynamics is None and self.dynamics_settings:
            raise ValueError("dynamics_settings are for a term of your own: set dynamics to module:Class too")
        return self

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
        if self.engine != "driftcal" and self.gradient.mode == "reverse":
            raise ValueError(
                f"engine={self.engine} is differentiated in forward mode. Set gradient.mode to auto or forward"
            )
        if self.engine != "driftcal" and self.dynamics is not None:
            raise ValueError(
                f"engine={self.engine} simulates the built-in dynamics only, and dynamics is set. Leave engine at "
                f"driftcal" + (", or call pastax with your term yourself" if self.engine == "pastax" else "")
            )
        if self.engine == "pastax" and self.integration.scheme == "ito-heun":
            raise ValueError(
                "engine=pastax has no scheme 'ito-heun': pastax's Heun applies the noise in both stages, its Euler the "
                "drift in one. Set integration.scheme to heun, euler or reference, or leave engine at driftcal"
            )
        return self


WIDEST = 1.0
"""Size of a window [radians] up to which the series of `drift.sphere` hold."""

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
    widest = max(layout.n_lon * layout.lon_step, layout.n_lat * layout.lat_step)
    if radians(widest) > WIDEST:
        raise ConfigError(
            f"the store's windows are {widest:.0f} degrees wide; the simulator's series for angles hold up to "
            f"{degrees(WIDEST):.0f}. Make a store with a smaller window.half_width_deg or window.max_latitude."
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
