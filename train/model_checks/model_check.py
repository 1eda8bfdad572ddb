"""A model check, as `result.json` holds it. Loads no jax, so a page is written without it."""

from dataclasses import dataclass

from driftcal.shared.json_record import JsonRecord, entry


@dataclass(frozen=True)
class Estimate(JsonRecord):
    """One of the numbers that a check compares."""

    name: str = entry("part of the samples or lead times, or direction, that it is of")
    value: float = entry("the number, in the unit of the check's estimates")
    interval_90: tuple[float, ...] | None = entry("ends of its 90 % interval by itself; null where there is none")
    expected: float | None = entry("what it is where the model is right; null where all estimates are merely equal")


@dataclass(frozen=True)
class ModelCheck(JsonRecord):
    """A test of one thing that holds where the model is right."""

    question: str = entry("the question that the check asks")
    statistic: float = entry("F statistic of the departure, clustered; 1 on average where the model is right", "1")
    p_value: float = entry("chance of so large a statistic where the model is right", "1")
    p_adjusted: float = entry("the same allowing for all checks of the run (Holm 1979)", "1")
    rejected: bool = entry("true where `p_adjusted` is below 0.05")
    finding: str = entry("what the check found, in a sentence")
    quantity: str = entry("quantity and unit of the estimates, as an axis names it")
    estimates: tuple[Estimate, ...] = entry("numbers that the check compares")


@dataclass(frozen=True)
class ModelChecks(JsonRecord):
    """All checks of a run."""

    model_supported: bool | None = entry(
        "false where a check is rejected; true where none is and there are independent drifters enough; else null"
    )
    model_verdict: str = entry("that in a sentence")
    model_checks: dict[str, ModelCheck] = entry("the checks by name; those that could not be made are not there")

    @property
    def rejected(self) -> dict[str, ModelCheck]:
        """The checks that the model fails, the surest first."""
        failed = {name: check for name, check in self.model_checks.items() if check.rejected}
        return dict(sorted(failed.items(), key=lambda item: item[1].p_value))
