"""Calibrated numbers with their errors, as text for terminal and page."""

import numpy as np

from driftcal.shared.text import counted
from driftcal.train.evaluation.evaluation import Evaluation
from driftcal.train.run.result import Parameter, Result


def measured(value: float, error: float | None) -> str:
    """Text of `value` ± `error` with the digits that the error warrants; three without an error."""
    if not error or not np.isfinite(error):
        return f"{value:#.3g}".rstrip(".")
    first = int(np.floor(np.log10(error)))
    digits = max(-first + (error < 3 * 10.0**first), 0)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def bounded(parameter: Parameter) -> str:
    """Text of a parameter at its bound, with its one-sided 95 % interval."""
    if parameter.interval_90 is None:
        return f"{parameter.value:.3g} (at its bound; no value is excluded)"
    low, high = parameter.interval_90
    return f"0 (below {high:.2g} at 95 %)" if parameter.value == 0 else f"above {low:.2g} at 95 %"


def interval(ends: tuple[float, ...], error: float) -> str:
    """Text of an interval with the digits that its half width warrants."""
    digits = max(1 - int(np.floor(np.log10(error))), 0) if error > 0 and np.isfinite(error) else 3
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def stated(result: Result) -> str:
    """The calibrated parameters for a first line: the 90 % interval of each before its value."""
    if not result.few or result.at_bound:
        return found(result)
    if result.cs is not None:
        return _stated("C_s", result.cs, result.cs_standard_error, result.cs_interval_90)
    return "; ".join(_stated(name, p.value, p.standard_error, p.interval_90) for name, p in result.named.items())


def _stated(symbol: str, value: float, error: float | None, ends: tuple[float, ...] | None) -> str:
    if ends is None or not error:
        return f"{symbol} = {measured(value, error)}, without an interval"
    return f"{symbol} from {interval(ends, error)} (90 % interval), best {measured(value, error)}"


def own(result: Result) -> bool:
    """Tells whether the dynamics of a run are a user's own, so that there is no C_s."""
    return result.dynamics is not None


def found(result: Result) -> str:
    """The calibrated parameters with their errors."""
    if result.cs is not None and result.at_bound:
        return f"C_s = {bounded(result.at_bound['cs'])}"
    if result.cs is not None:
        return f"C_s = {measured(result.cs, result.cs_standard_error)}"
    if not result.few:
        return f"{result.n_parameters:,} parameters of {result.dynamics}"
    shown = {
        name: bounded(p) if p.at_bound else measured(p.value, p.standard_error) for name, p in result.named.items()
    }
    return ", ".join(f"{name} = {text}" for name, text in shown.items())


CLUSTERED = {
    "drifter": "clustered by drifter",
    "release": "clustered by release",
    "box-and-week": "clustered by box and week",
}
"""Words for the setting `cluster_by`, as a standard error is told with them."""

_CLUSTERS = {
    "drifter": ("drifter", "drifters"),
    "release": ("release", "releases"),
    "box-and-week": ("box and week", "boxes and weeks"),
}


def clusters(by: str, n: int | None = None) -> str:
    """Name of `n` clusters by the setting `cluster_by`, such as 12 releases; without `n` that of many."""
    one, many = _CLUSTERS[by]
    return many if n is None else f"{n:,} {one if n == 1 else many}"


def drifters(found: Result | Evaluation) -> str:
    """Number of drifters, and that of their clusters where it is another."""
    told = counted(found.n_drifters, "drifter")
    by = found.standard_error_clusters
    if found.n_clusters == found.n_drifters and by != "box-and-week":
        return told
    return f"{told} in {clusters(by, found.n_clusters)}"


def errors(result: Result) -> str:
    """The standard errors of a run with dynamics of its user's own, and their 90 % intervals."""
    if not result.few:
        return "none: there are too many parameters"
    intervals = {name: p.interval_90 for name, p in result.named.items() if not p.at_bound}
    if result.n_parameters and None in intervals.values():
        return "none"
    if not intervals:
        return "none"
    ends = (f"{name} {ends[0]:.3g} to {ends[1]:.3g}" for name, ends in intervals.items() if ends is not None)
    return f"{CLUSTERED[result.standard_error_clusters]}; 90 % intervals {', '.join(ends)}"


def start(result: Result) -> str:
    """The parameters with which the calibration began."""
    if not own(result):
        return f"C_s = {result.initial_cs:g}"
    if not result.few:
        return "the module's own start"
    return ", ".join(f"{name} = {p.start:.4g}" for name, p in result.named.items())


WIDEST = 3.0
"""Upper end of a positive parameter's 90 % interval over the lower, beyond which it is hardly known."""


def hardly_known(result: Result) -> dict[str, str]:
    """Positive parameters that are hardly known, with the width of their 90 % intervals; others have no scale."""
    wide = {}
    for name, p in result.named.items():
        if p.interval_90 is None or p.at_bound:  # which has a warning of its own
            continue
        low, high = p.interval_90
        symbol = "C_s" if result.cs is not None else name
        ends = f"{low:.2g} to {high:.2g}"
        if p.trained_as == "logarithm" and high > WIDEST * low:
            wide[symbol] = f"{ends}, a factor of {high / low:.2g}" if low > 0 else ends
    return wide


def has_error(result: Result) -> bool:
    """Tells whether there are standard errors, of all parameters that are not at a bound."""
    if result.at_bound:
        return all(p.standard_error is not None for p in result.named.values() if not p.at_bound)
    if not own(result):
        return result.cs_standard_error is not None
    return all(p.standard_error is not None for p in result.parameters.values())
