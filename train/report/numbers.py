"""Calibrated numbers with their errors, as text for terminal and page."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from driftcal.train.run.run_folder import Z_90


def measured(value: float, error: float | None) -> str:
    """`value` ± `error` with the digits that the error warrants; three where there is none."""
    if not error or not np.isfinite(error):
        return f"{value:#.3g}".rstrip(".")
    first = int(np.floor(np.log10(error)))
    digits = max(-first + (error < 3 * 10.0**first), 0)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def own(result: Mapping[str, Any]) -> bool:
    """Tells whether the dynamics of a run are a user's own, so that there is no C_s."""
    return result.get("dynamics") is not None


def few(result: Mapping[str, Any]) -> bool:
    """Tells whether the parameters are reported by name."""
    return all("value" in found for found in result["parameters"].values())


def found(result: Mapping[str, Any], cs: str = "C_s") -> str:
    """Calibrated parameters as text, with their errors; `cs` is the notation for the Smagorinsky constant."""
    if not own(result):
        return f"{cs} = {measured(result['cs'], result['cs_standard_error'])}"
    if not few(result):
        return f"{result['n_parameters']:,} parameters of {result['dynamics']}"
    each = result["parameters"].items()
    return ", ".join(f"{name} = {measured(p['value'], p['standard_error'])}" for name, p in each)


def errors(result: Mapping[str, Any]) -> str:
    """The standard errors of a run with dynamics of its user's own, and their 90 % intervals."""
    if not few(result):
        return "none: there are too many parameters"
    if result["n_parameters"] and any(p["standard_error"] is None for p in result["parameters"].values()):
        return "none"
    intervals = ((name, *p["interval_90"]) for name, p in result["parameters"].items())
    ends = (f"{name} {low:.3g} to {high:.3g}" for name, low, high in intervals)
    return f"clustered by drifter; 90 % intervals {', '.join(ends)}"


def start(result: Mapping[str, Any]) -> str:
    """Start of the calibration, as text."""
    if not own(result):
        return f"C_s = {result['initial_cs']:g}"
    if not few(result):
        return "the module's own start"
    return ", ".join(f"{name} = {p['start']:.4g}" for name, p in result["parameters"].items())


def hardly_known(result: Mapping[str, Any]) -> list[str]:
    """Parameters whose standard error is more than half of their value."""
    if not own(result):
        return ["C_s"] if (result["cs_standard_error"] or 0) > 0.5 * result["cs"] else []
    known = result["parameters"] if few(result) else {}
    return [name for name, p in known.items() if (p["standard_error"] or 0) > 0.5 * abs(p["value"])]


def has_error(result: Mapping[str, Any]) -> bool:
    """Tells whether there are standard errors."""
    if not own(result):
        return result["cs_standard_error"] is not None
    return all(p["standard_error"] is not None for p in result["parameters"].values())


def half_of(score: Mapping[str, Any]) -> float | None:
    """Half of a number's 90 % interval; None where it has none."""
    if score.get("interval_90") is not None:
        return (score["interval_90"][1] - score["interval_90"][0]) / 2
    return None if score["standard_error"] is None else Z_90 * score["standard_error"]
