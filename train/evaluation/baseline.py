"""Calibrated baselines, as `result.json` holds them. Loads no jax, so a page is written without it."""

from dataclasses import dataclass

from driftcal.shared.json_record import JsonRecord, entry


@dataclass(frozen=True)
class Baseline(JsonRecord):
    """A constant diffusivity, and a mean drift."""

    diffusivity: float = entry("diffusivity", "m²/s")
    east: float = entry("mean drift eastward", "m/s")
    north: float = entry("mean drift northward", "m/s")


@dataclass(frozen=True)
class Baselines(JsonRecord):
    """Baselines that were fitted to training samples of the run."""

    n_samples: int = entry("number of those samples")
    constant_diffusivity: Baseline = entry("one constant diffusivity")
    with_mean_drift: Baseline = entry("the same with a mean drift")

    @property
    def systems(self) -> dict[str, Baseline]:
        """The baselines by the names that evaluations give them."""
        return {"one diffusivity": self.constant_diffusivity, "diffusivity and drift": self.with_mean_drift}
