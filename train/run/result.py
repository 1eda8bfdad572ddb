"""The result of a run, as `result.json` holds it. Loads no jax, so a page is written without it."""

from dataclasses import dataclass, replace
from typing import Any

from driftcal.shared.json_record import JsonRecord, entry
from driftcal.train.evaluation.baseline import Baselines
from driftcal.train.model_checks.model_check import ModelChecks


@dataclass(frozen=True)
class Parameter(JsonRecord):
    """One calibrated parameter of a few."""

    value: float = entry("calibrated value, in the parameter's own unit")
    trained: float = entry("the number that is trained: its logarithm or itself, see `trained_as`")
    standard_error: float | None = entry("its standard error, clustered")
    interval_90: tuple[float, ...] | None = entry(
        "ends of its 90 % interval; of the one-sided 95 % interval from its bound where it is `at_bound`"
    )
    start: float = entry("value at which the run began")
    trained_as: str = entry("`logarithm` for a positive parameter, else `itself`")
    at_bound: bool = entry("whether it ran to a bound, zero or ten thousand times its start, which fits as well")


@dataclass(frozen=True)
class ParameterArray(JsonRecord):
    """One array of parameters that are too many to name."""

    shape: tuple[int, ...] = entry("shape of the array")
    rms: float = entry("root mean square of its calibrated numbers")
    rms_change: float = entry("root mean square of their change since the start")
    standard_error: float | None = entry("null: the errors of so many are not computed")


@dataclass(frozen=True)
class Profile(JsonRecord):
    """The score of some training samples against the run's one positive parameter."""

    parameter: str = entry("name of the parameter")
    n_samples: int = entry("number of those samples")
    n_clusters: int = entry("number of their clusters")
    value: tuple[float, ...] = entry(
        "values of the parameter, ascending; the result is one of them", "that of the parameter"
    )
    score: tuple[float, ...] = entry("mean objective at each", "that of score")
    gradient: tuple[float, ...] = entry("its derivative in the logarithm of the parameter", "that of score")
    gradient_error: tuple[float | None, ...] = entry(
        "standard error of that, clustered; null with a single cluster", "that of score"
    )
    escaped_share: tuple[float, ...] = entry("share of the members that left their window", "1")


@dataclass(frozen=True)
class Minimum(JsonRecord):
    """A minimum of the profile beyond chance, other than the one at the result."""

    value: float = entry("value of the parameter at the minimum", "that of the parameter")
    interval_90: tuple[float, ...] | None = entry(
        "ends of its 90 % interval; null with a single drifter", "that of the parameter"
    )
    score: float = entry("mean objective there", "that of score")
    score_above_result: float = entry("that less the objective at the result, on the same curve", "that of score")


@dataclass(frozen=True)
class Examination(ModelChecks):
    """Examination of a finished run: model checks, baselines, and how the score depends on its one parameter.

    The last are null without one positive parameter, or if the engine cannot vary it.
    """

    baselines: Baselines = entry("simpler models, calibrated on the same drifters, that evaluations score beside it")
    profile: Profile | None = entry("score of some samples against the constant")
    minima: tuple[Minimum, ...] | None = entry("other minima of that curve beyond chance")


@dataclass(frozen=True)
class Result(JsonRecord):
    """The result of a run; None where there is no number to give.

    `examination` comes after the calibration: its keys are the last of the file, and not there before.
    """

    cs: float | None = entry("the constant; null with dynamics of your own", "1")
    cs_standard_error: float | None = entry("its standard error; null with a single cluster or no minimum", "1")
    cs_interval_90: tuple[float, ...] | None = entry("ends of its 90 % t interval, symmetric in log C_s", "1")
    log_cs: float | None = entry("natural logarithm of the constant, which is what is trained", "1")
    log_cs_standard_error: float | None = entry("standard error of that", "1")
    score_at_cs: float | None = entry("constant of the last pass, whose mean objective is `score`", "1")
    curvature: float | None = entry("second derivative of the score in log C_s", "that of score")
    parameters: dict[str, Parameter | ParameterArray] = entry("every trained parameter by name")
    parameters_correlation: tuple[tuple[float, ...], ...] | None = entry(
        "correlations of the errors of several parameters, as trained", "1"
    )
    n_parameters: int = entry("number of trained parameters")
    standard_error_clusters: str = entry(
        "what is taken to be independent: the setting `cluster_by`, drifter, release or box-and-week"
    )
    standard_error_degrees_of_freedom: float | None = entry("degrees of freedom of the t interval")
    dynamics: str | None = entry("the user's term, `module:Class`; null: built in")
    formula: str = entry("what the constant multiplies", "m²/s")
    objective: str = entry("what was minimised")
    estimator: str = entry("how the score was estimated")
    proper: bool = entry("whether the objective is least, in expectation, at the drifters' own constant")
    propriety: str = entry("why")
    score: float = entry("mean objective in the last pass", "1 (energy-plain: m)")
    converged: bool = entry("whether the run converged")
    convergence: str = entry("why, in a sentence")
    initial_cs: float | None = entry("constant at which the run began", "1")
    n_samples: int = entry("samples used in the last pass")
    n_drifters: int = entry("drifters used in the last pass")
    n_clusters: int = entry("clusters of them, which are taken to be independent")
    members: int = entry("members of an ensemble")
    engine: str = entry("what simulated: driftcal, pastax or native")
    scheme: str = entry("scheme of integration")
    optimizer: str = entry("how the parameters were moved: newton or adam")
    gradient_mode: str = entry("how the gradient was computed: forward or reverse")
    gradient_reason: str = entry("why so")
    escaped_members: int = entry("members that left their window and were held at its edge, in the last pass")
    escaped_share: float = entry("their share of all members", "1")
    ashore_members: int = entry("members that ended in a cell without any current, in the last pass")
    ashore_share: float = entry("their share of all members", "1")
    poisoned_samples: tuple[int, ...] = entry("numbers of samples without finite loss and gradient, left out")
    unreadable_samples: tuple[int, ...] = entry("numbers of samples that could not be read, left out")
    gradient_samples: int = entry("samples simulated with gradient, one at every pass")
    steps: int = entry("batches")
    samples_per_second: float | None = entry(
        "samples simulated with gradient in a second, reading included, without the first step; null where no step was "
        "timed",
        "1/s",
    )
    seed: int = entry("seed of the noise and of the order of samples")
    precision: str = entry("float32 or float64")
    device: str = entry("kind of device that computed")
    store: str = entry("sha256 of the store")
    store_name: str = entry("name of the store")
    version: str = entry("version of driftcal")
    engine_version: str | None = entry("version of an engine that is another package; else null")
    function: dict[str, Any] | None = entry("fingerprint of the user's term; else null")
    examination: Examination | None = None

    @classmethod
    def from_json(cls, tree: Any, where: str = "") -> "Result":
        """The inverse of `as_json`."""
        calibrated = super().from_json(tree, where)
        if "model_checks" not in tree:
            return calibrated
        return calibrated.examined(Examination.from_json(tree, where))

    def as_json(self) -> dict[str, Any]:
        """The tree that is written."""
        return super().as_json() | (self.examination.as_json() if self.examination is not None else {})

    def examined(self, examination: Examination) -> "Result":
        """This result with its examination."""
        return replace(self, examination=examination)

    @property
    def few(self) -> bool:
        """Tells whether the parameters are few enough to be reported by name."""
        return all(isinstance(one, Parameter) for one in self.parameters.values())

    @property
    def named(self) -> dict[str, Parameter]:
        """The parameters that are reported by name."""
        return {name: one for name, one in self.parameters.items() if isinstance(one, Parameter)}

    @property
    def at_bound(self) -> dict[str, Parameter]:
        """The parameters that ran to a bound."""
        return {name: one for name, one in self.named.items() if one.at_bound}

    @property
    def checks(self) -> ModelChecks | None:
        """The model checks; None before they are made."""
        return self.examination

    @property
    def profile(self) -> Profile | None:
        """Score of some samples against the constant."""
        return None if self.examination is None else self.examination.profile

    @property
    def minima(self) -> tuple[Minimum, ...] | None:
        """Minima of that."""
        return None if self.examination is None else self.examination.minima


@dataclass(frozen=True)
class HomogeneityTest(JsonRecord):
    """Cochran's test of one constant for all groups."""

    statistic: float = entry("Cochran's Q over its mean under one constant", "1")
    p_value: float = entry("its p-value", "1")
    n_groups: int = entry("number of groups that took part")


@dataclass(frozen=True, kw_only=True)
class Group(JsonRecord):
    """The parameter of one group of samples."""

    name: str = entry("name of the group")
    box: tuple[float, ...] | None = entry(
        "west, south, east and north of a box; not there for others", "degrees", optional=True
    )
    n_samples: int = entry("training samples in it")
    n_drifters: int = entry("drifters in it")
    n_clusters: int = entry("clusters of them")
    minimum: bool = entry("whether its score has a minimum")
    value: float | None = entry("its value on its own; null without a minimum", "that of the parameter")
    log_value_standard_error: float | None = entry("standard error of the logarithm of that", "1")
    interval_90: tuple[float, ...] | None = entry("ends of its 90 % interval", "that of the parameter")
    shrunk_value: float = entry(
        "its value, shrunk towards the mean of all groups: the one to use", "that of the parameter"
    )
    shrunk_interval_90: tuple[float, ...] = entry("ends of the 90 % interval of that", "that of the parameter")
    own_weight: float = entry("weight of its own data in that; the rest is the mean's", "1")


@dataclass(frozen=True)
class GroupedBy(JsonRecord):
    """The values of all groups of a key."""

    key: str = entry("the key, as given to --group-by")
    n_samples: int = entry("samples used")
    left_out_samples: int = entry("samples left out: poisoned, or not readable")
    gradient_samples: int = entry("samples simulated with gradient")
    test: HomogeneityTest | None = entry("test of one constant for all groups; null where fewer than two can take part")
    least_clusters: int = entry("clusters that a group needs to take part in the test")
    mean_value: float = entry("mean of the groups", "that of the parameter")
    tau: float = entry("standard deviation of its logarithm between groups", "1")
    groups: tuple[Group, ...] = entry("the groups")


@dataclass(frozen=True)
class Groups(JsonRecord):
    """`groups.json`: a value of the run's one positive parameter for every group of samples."""

    formula: str = entry("the model", "m²/s")
    parameter: str = entry("name of the parameter")
    log_value: float = entry("natural logarithm of the value of all samples", "1")
    groupings: tuple[GroupedBy, ...] = entry("of every --group-by, its groups")
