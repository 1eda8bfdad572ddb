"""The results of an evaluation, as text for terminal and page."""

from collections.abc import Mapping, Sequence
from typing import Any

from driftcal.train.report import numbers, page

FEW_DRIFTERS = 5
"""Drifters below which scores are warned of."""

HOW_TO_READ = (
    "± is half of a 90 % interval over drifters. Any spread adds to separation and takes from Liu skill: only the\n"
    "energy score rewards the right one. Last column: energy score less the calibrated one's, paired by sample."
)

RELIABILITY = {
    "spread / error": ("spread_skill_ratio", None),
    "rank, distance": ("distance", "mean"),
    "rank, east": ("east", "mean"),
    "its spread": ("east", "spread"),
    "rank, north": ("north", "mean"),
    "its spread ": ("north", "spread"),
}
"""Columns of the table of reliability: which number each is."""


def warnings(scores: Mapping[str, Any]) -> list[str]:
    """Warnings to read before the scores of an evaluation are used."""
    dropped, left_out = scores["dropped_samples"], scores["trained_drifters_left_out"]
    names = left_out["drifters"]
    others = {n: f["energy_score_above_calibrated_km"] for n, f in scores["scores"].items()}
    beaten = [n for n, f in others.items() if f["standard_error"] and f["mean"] + (numbers.half_of(f) or 0.0) < 0]
    due = {
        f"scored on the store {scores['store'][:12]}, not the one that the constant was fitted to "
        f"({scores['run_store'][:12]}).": scores["store"] != scores["run_store"],
        f"{' and '.join(beaten)} scored better than the calibrated constant, beyond the 90 % interval: it does not "
        "hold for these drifters.": bool(beaten),
        f"{scores['n_drifters']} drifter(s) are too few to judge by; with one there is no interval at all.": (
            scores["n_drifters"] < FEW_DRIFTERS
        ),
        f"{left_out['n_samples']:,} sample(s) of {len(names):,} drifter(s) that the run was trained on were left out: "
        f"{first(names)}.": bool(names),
        f"{len(dropped):,} sample(s) gave no finite score and were left out: {first(dropped)}.": bool(dropped),
        **unreadable(scores),
    }
    return [text for text, holds in due.items() if holds]


def unreadable(found: Mapping[str, Any]) -> dict[str, bool]:
    """Warning on unreadable samples (`--on-bad-shard skip`), and whether there are any."""
    lost = found.get("unreadable_samples", [])  # runs before 0.2 have none
    text = f"{len(lost):,} sample(s) of damaged shards could not be read and were left out: {first(lost)}. Run "
    return {f"{text}drift-inspect verify on the store.": bool(lost)}


def table(scores: Mapping[str, Any]) -> str:
    """The scores of an evaluation for a terminal, means with 90 % intervals over drifters."""
    names = names_of(scores)
    title = (name.replace("_", " ").replace("energy score above", "above") for name in names)
    lines = [scored(scores), f"{'':18s}" + "".join(f"{text:>24s}" for text in title)]
    for system, found in scores["scores"].items():
        cells = []
        for mean, half in ((found[name]["mean"], numbers.half_of(found[name])) for name in names):
            cells.append(f"{mean:.3f}" + (f" ± {half:.3f}" if half is not None else ""))
        lines.append(f"{system:18s}" + "".join(f"{cell:>24s}" for cell in cells))
    lines += [HOW_TO_READ, *reliability_lines(scores)]
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in warnings(scores))])


def scored(scores: Mapping[str, Any]) -> str:
    """Samples that were scored: their number and split, and whether the constant was trained on them."""
    n, n_split, n_drifters = scores["n_samples"], scores["n_split"], scores["n_drifters"]
    rest = scores["trained_drifters_left_out"]["n_samples"] + len(scores["dropped_samples"])
    rest += len(scores.get("unreadable_samples", []))
    part = f" (of {n_split:,}, spread evenly)" if n + rest < n_split else ""
    known = "which the constant was fitted to: fit, not skill" if scores["fit"] else "not trained on"
    return f"{n:,} sample(s){part} of {n_drifters:,} drifter(s), split {scores['split']}, {known}"


def names_of(scores: Mapping[str, Any]) -> list[str]:
    """Names of the scores that have a mean and an error."""
    return [name for name, score in scores["scores"]["calibrated"].items() if isinstance(score, dict)]


def _reliability_rows(scores: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for system, found in scores.get("reliability", {}).items():
        held = [found[key] if part is None else found["ranks"][key][part] for key, part in RELIABILITY.values()]
        rows.append([system, *(numbers.measured(one["mean"], numbers.half_of(one)) for one in held)])
    return rows


RELIABLE = (
    "spread / error 1, ranks 0.5, their spread 1: reliable. Ratio below 1 and rank by distance above 0.5: too narrow."
)
"""Explanation of the table of reliability."""


def reliability_lines(scores: Mapping[str, Any]) -> list[str]:
    """The table of reliability for a terminal; none for an evaluation by an earlier version."""
    rows = _reliability_rows(scores)
    if not rows:
        return []
    head = f"{'reliability':18s}" + "".join(f"{name.strip():>18s}" for name in RELIABILITY)
    return [head, *(f"{first:18s}" + "".join(f"{cell:>18s}" for cell in rest) for first, *rest in rows), RELIABLE]


def reliability_html(scores: Mapping[str, Any]) -> list[str]:
    """The table of reliability for a page."""
    rows = _reliability_rows(scores)
    if not rows:
        return []
    how = "A reliable ensemble has a spread as large as its error (1), ranks of one half, and a spread of ranks of 1."
    return [page.table(rows, ["reliability", *RELIABILITY]), f'<p class="small">{how}</p>']


def first(items: Sequence[Any]) -> str:
    """The first ten, as text."""
    return f"{', '.join(map(str, items[:10]))}{', ...' if len(items) > 10 else ''}"
