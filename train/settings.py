"""Settings of a training run: `--config FILE` and `--set` over these defaults. Durations are whole seconds."""

from math import degrees, radians
from typing import Any, Literal

from pydantic import Field, model_validator

from driftcal.shared.errors import ConfigError
from driftcal.shared.settings import Duration, Settings
from driftcal.shared.store.schema import Layout

Objective = Literal["energy", "energy-plain", "liu", "reference"]
Scheme = Literal["heun", "ito-heun", "euler", "reference"]
Engine = Literal["driftcal", "pastax", "native"]
ClusterBy = Literal["drifter", "release", "box-and-week"]


class Ensemble(Settings):
    """The simulated ensemble."""

    members: int = Field(default=20, ge=2, le=1000, description="number of members, 2 to 1000")


class Integration(Settings):
    """The integration of the stochastic differential equation (see `drift.simulate`)."""

    step: Duration = Field(
        default=1800, description="time step; must divide the step of the fixes and `integration.kappa_every`"
    )
    scheme: Scheme = Field(
        default="heun",
        description="`heun`, `ito-heun`, `euler`, or `reference` (the 2025 pastax form); `ito-heun` is the default "
        "with `dynamics` ([model.md](model.md#schemes))",
    )
    kappa_every: Duration = Field(
        default=86_400,
        description="how often the diffusivity is computed, linear between; must divide the time step of the currents. "
        "`integration.step` makes it exact",
    )


class Score(Settings):
    """The objective that is minimised (see `drift.scoring_rules`)."""

    objective: Objective = Field(
        default="energy",
        description="`energy`, `energy-plain`, `liu` or `reference`; only the first two are proper scores "
        "([model.md](model.md#score))",
    )
    reference_cs: float = Field(
        default=0.1, gt=0, le=10, description="constant of the ensemble whose spread weights `energy`; never trained"
    )
    reference_members: int = Field(default=10, ge=2, le=1000, description="members of that ensemble")


class Gradient(Settings):
    """The computation of the gradient (see `fit.sample_gradients`)."""

    mode: Literal["auto", "forward", "reverse"] = Field(
        default="auto",
        description="`forward`, `reverse`, or `auto`: the faster one, which is forward for up to 7 parameters "
        "([cost.md](cost.md#what-the-trainer-does))",
    )


class Optimizer(Settings):
    """The method that moves the parameters (see `drift.energy_newton` and `fit.fixed_noise`)."""

    method: Literal["auto", "newton", "adam"] = Field(
        default="auto", description="`newton`, `adam`, or `auto`: newton for up to 10 parameters, else adam"
    )
    learning_rate: float = Field(default=0.03, gt=0, le=1, description="step of Adam; Newton needs none")
    final_passes: int = Field(
        default=5,
        ge=1,
        le=20,
        description="largest number of passes over all training samples at fixed parameters that end a run; one or "
        "two are usual",
    )
    curvature_samples: int = Field(
        default=2048, ge=1, description="number of samples from which the curvature of the objective is measured"
    )


class Checkpointing(Settings):
    """The intervals at which a run is saved, so that it can be resumed (see `run.checkpoints`)."""

    every: Duration = Field(
        default=60, description="save after a batch if this much time has passed since the last save"
    )
    every_steps: int | None = Field(default=None, ge=1, description="save after every so many steps as well")
    keep: int = Field(default=3, ge=1, le=1000, description="number of checkpoints kept, the latest ones")


class Reading(Settings):
    """The reading of samples from the store (see `reading.batches`); of all this only `run_length` changes a result."""

    run_length: int = Field(
        default=1,
        ge=1,
        le=2**20,
        description="number of neighbours in the store that stay together when an epoch is shuffled, for disks that "
        "are slow to seek ([store.md](store.md#how-training-reads))",
    )
    threads: int = Field(default=2, ge=1, le=64, description="number of threads that decode samples")
    copying: Literal["auto", "plain"] = Field(
        default="auto",
        description="how samples of an uncompressed store are copied and checked: `auto`, in one pass by C++ where "
        "there is a compiler; `plain`, in two passes, which take 1.5 to 1.7 times as long",
    )
    prefetch: bool = Field(
        default=True, description="ask the kernel for the pages of a batch while the one before it is decoded"
    )
    stall_timeout: Duration = Field(
        default=60, ge=1, description="a run stops when reading has made no progress for this long"
    )


class Tracking(Settings):
    """Outputs for the lines of a run beside `metrics.jsonl`."""

    tensorboard: bool = Field(
        default=False, description="write event files for TensorBoard too; needs `pip install '.[tensorboard]'`"
    )


class Training(Settings):
    """All settings of a training run."""

    engine: Engine = Field(
        default="driftcal",
        description="the simulator: `driftcal`; `native`, the same in C++ where there is a compiler "
        "([native.md](native.md)); or `pastax`, after `pip install '.[pastax]'` ([pastax.md](pastax.md))",
    )
    ensemble: Ensemble = Field(default=Ensemble(), description="the simulated ensemble")
    integration: Integration = Field(
        default=Integration(), description="how the stochastic differential equation is stepped"
    )
    dynamics: str | None = Field(
        default=None,
        description="a term of your own, `module:Class`, in place of Smagorinsky diffusion "
        "([model.md](model.md#your-own-dynamics))",
    )
    dynamics_settings: dict[str, Any] = Field(default={}, description="arguments that its class is built with")
    gradient: Gradient = Field(default=Gradient(), description="how the gradient is computed")
    score: Score = Field(default=Score(), description="what is minimised")
    optimizer: Optimizer = Field(default=Optimizer(), description="how the parameters are moved")
    cluster_by: ClusterBy = Field(
        default="release",
        description="samples that are not taken to be independent in standard errors and tests: those of a `drifter`; "
        "of drifters released together too, `release`; or those that start in one box of 5° in one week, "
        "`box-and-week` ([model.md](model.md#what-is-taken-to-be-independent))",
    )
    epochs: int = Field(default=1, ge=1, le=10_000, description="number of passes of descent over the training samples")
    batch_size: int = Field(default=128, ge=1, le=65_536, description="number of samples in a step")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the order of samples and of the noise")
    initial_cs: float = Field(default=0.1, gt=0, le=100, description="the constant that the descent starts from")
    precision: Literal["float32", "float64"] = Field(default="float32", description="`float32` or `float64`")
    checkpoint: Checkpointing = Field(
        default=Checkpointing(),
        description="when a run is saved, so that it can be resumed ([runs.md](runs.md#stopping-and-resuming))",
    )
    tracking: Tracking = Field(default=Tracking(), description="where metrics go beside `metrics.jsonl`")
    data: Reading = Field(
        default=Reading(), description="how samples are read; only `data.run_length` changes a result"
    )

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
"""Cells of a batch's table of flows that a 32-bit index can address."""


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
