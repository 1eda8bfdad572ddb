"""An evaluation, as `evaluation.json` holds it, with names, units and directions of its scores.

Loads no jax, so a page is written without it.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

from driftcal.shared.json_record import JsonRecord, entry


@dataclass(frozen=True)
class Mean(JsonRecord):
    """A mean over samples."""

    mean: float = entry("mean over samples", "that of the score")
    standard_error: float | None = entry(
        "its standard error, clustered; null with a single cluster", "that of the score"
    )
    interval_90: tuple[float, ...] | None = entry(
        "ends of its 90 % interval; null with a single cluster", "that of the score"
    )

    @property
    def half(self) -> float | None:
        """Half of the 90 % interval; None with a single cluster."""
        return None if self.interval_90 is None else (self.interval_90[1] - self.interval_90[0]) / 2


@dataclass(frozen=True)
class Curve(JsonRecord):
    """Means at every lead time."""

    mean: tuple[float, ...] = entry("mean at every lead time", "1")
    standard_error: tuple[float, ...] | None = entry(
        "their standard errors, clustered; null with a single cluster", "1"
    )
    interval_90: tuple[tuple[float, ...], ...] | None = entry("lower and upper ends of their 90 % intervals", "1")


class Score(NamedTuple):
    """A score in tables and figures.

    Attributes:
        key: Its key in `evaluation.json`.
        name: Its name in words.
        unit: Of it.
        direction: Value that is better.
        meaning: Its definition in short.
    """

    key: str
    name: str
    unit: str
    direction: str
    meaning: str

    @property
    def label(self) -> str:
        """Name and unit, as heads and axes have them."""
        return f"{self.name} [{'-' if self.unit == '1' else self.unit}]"


@dataclass(frozen=True)
class SystemScores(JsonRecord):
    """Scores of one system, each with its name, its unit, and the value that is better."""

    energy_score_km: Mean = entry(
        "fair energy score of the separation, mean over lead times",
        "km",
        name="energy score",
        direction="smaller is better",
    )
    separation_km: Mean = entry(
        "distance of the members to the drifter, mean over members and lead times",
        "km",
        name="separation",
        direction="smaller is better",
    )
    final_separation_km: Mean = entry(
        "the same at the last fix",
        "km",
        name="final separation",
        direction="smaller is better",
    )
    liu_skill: Mean = entry(
        "max(0, 1 − c), c the index of Liu and Weisberg (2011) over the whole track",
        "1",
        name="liu skill",
        direction="1 is perfect",
    )
    energy_score_above_calibrated_km: Mean = entry(
        "energy score minus that of the calibrated system, paired sample by sample",
        "km",
        name="energy score above calibrated",
        direction="above 0: worse than calibrated",
    )
    escaped_members: int = entry("members that left their window")

    def of(self, score: Score) -> Mean:
        """The mean of `score`."""
        return getattr(self, score.key)


SCORES = tuple(
    Score(one.name, one.metadata["name"], one.metadata["unit"], one.metadata["direction"], one.metadata["description"])
    for one in fields(SystemScores)
    if "direction" in one.metadata
)
"""All scores, in the order of tables: names, units and directions are given in `SystemScores` and nowhere else."""

ABOVE = "energy_score_above_calibrated_km"
"""Key of the one score that compares two systems."""


@dataclass(frozen=True)
class SpreadAndError(JsonRecord):
    """Root mean square error and spread of an ensemble at every lead time."""

    error_km: tuple[float, ...] = entry("distance of the ensemble's mean position from the drifter", "km")
    spread_km: tuple[float, ...] = entry("spread of the members about it", "km")


@dataclass(frozen=True)
class Ranks(JsonRecord):
    """Ranks of the drifters among the members, of one kind."""

    frequency: tuple[float, ...] = entry("histogram over all lead times, 1 where uniform", "1")
    frequency_error: tuple[float, ...] | None = entry("standard errors of that; null with a single cluster", "1")
    frequency_interval_90: tuple[tuple[float, ...], ...] | None = entry(
        "lower and upper ends of its 90 % intervals; null with a single cluster", "1"
    )
    mean: Mean = entry("mean rank as a share of the places", "1")
    spread: Mean = entry("mean square of (rank − ½) over that of uniform ranks", "1")


@dataclass(frozen=True)
class ByLead(JsonRecord):
    """Reliability at every lead time."""

    spread_skill_ratio: Curve = entry("root mean square spread over error", "1")
    distance_rank: Curve = entry("mean rank by distance to the members", "1")


@dataclass(frozen=True)
class Reliability(JsonRecord):
    """Reliability of one ensemble."""

    spread_skill_ratio: Mean = entry("root mean square spread over error, over all lead times", "1")
    ranks: dict[str, Ranks] = entry("ranks by distance, east and north")
    by_lead: ByLead = entry("the same at every lead time")


class Diagnostic(NamedTuple):
    """A number of reliability.

    Attributes:
        name: Its name in tables and on axes.
        reliable: Its value where the drifter could be one of the members.
        of: Its value of an ensemble.
    """

    name: str
    reliable: float
    of: Callable[[Reliability], Mean]


DIAGNOSTICS = (
    Diagnostic("spread / error", 1.0, lambda one: one.spread_skill_ratio),
    Diagnostic("rank, distance", 0.5, lambda one: one.ranks["distance"].mean),
    Diagnostic("rank, east", 0.5, lambda one: one.ranks["east"].mean),
    Diagnostic("its spread", 1.0, lambda one: one.ranks["east"].spread),
    Diagnostic("rank, north", 0.5, lambda one: one.ranks["north"].mean),
    Diagnostic("its spread", 1.0, lambda one: one.ranks["north"].spread),
)
"""Columns of the table of reliability."""


@dataclass(frozen=True)
class LeftOut(JsonRecord):
    """Drifters that were trained on, and so are not scored."""

    n_samples: int = entry("number of their samples")
    drifters: tuple[str, ...] = entry("their names")


@dataclass(frozen=True)
class Evaluation(JsonRecord):
    """Scores of a run and of its baselines on one split of a store."""

    split: str = entry("split that was scored")
    fit: bool = entry("true on a training split with drifters that were trained on: a measure of fit, not of skill")
    store: str = entry("sha256 of the store that was scored")
    cs: float | None = entry("the calibrated constant; null with dynamics of your own", "1")
    initial_cs: float = entry("constant that the run began with", "1")
    members: int = entry("members of an ensemble")
    n_split: int = entry("samples of the split")
    n_samples: int = entry("samples scored")
    n_drifters: int = entry("drifters scored")
    n_clusters: int = entry("clusters of them, which are taken to be independent")
    standard_error_clusters: str = entry(
        "what is taken to be independent: the run's setting `cluster_by`, drifter, release or box-and-week"
    )
    poisoned_samples: tuple[int, ...] = entry(
        "numbers of samples without finite scores in every system, left out of all"
    )
    unreadable_samples: tuple[int, ...] = entry("numbers of samples that could not be read, left out of all")
    trained_drifters_left_out: LeftOut = entry("drifters that were trained on, left out unless the split is train")
    scores: dict[str, SystemScores] = entry("scores of every system")
    lead_hours: tuple[float, ...] = entry("lead times", "h")
    spread_and_error: dict[str, SpreadAndError] = entry("spread and error of every ensemble")
    reliability: dict[str, Reliability] = entry("reliability of every ensemble")
    run_store: str = entry("sha256 of the store that the run was trained on")
