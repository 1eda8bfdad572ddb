"""Results of an evaluation as text, for terminal and page."""

from driftcal.shared.text import counted, listed, were
from driftcal.train.evaluation.evaluation import DIAGNOSTICS, SCORES, Evaluation
from driftcal.train.report import numbers
from driftcal.train.run.result import Result

FEW = 5
"""Drifters, or clusters of them, below which scores are warned of."""

HOW_TO_READ = (
    "± is half of a 90 % interval over {clusters}. Any spread adds to separation and takes from Liu skill: only the\n"
    "energy score rewards the right one. Last column: energy score less the calibrated one's, paired by sample."
)


def warnings(scores: Evaluation) -> list[str]:
    """Warnings to read before the scores of an evaluation are used for anything."""
    poisoned, left_out = scores.poisoned_samples, scores.trained_drifters_left_out
    names = left_out.drifters
    others = {system: found.energy_score_above_calibrated_km for system, found in scores.scores.items()}
    beaten = [system for system, above in others.items() if above.half and above.mean + above.half < 0]
    due = {
        f"scored on the store {scores.store[:12]}, not the one that the constant was fitted to "
        f"({scores.run_store[:12]}).": scores.store != scores.run_store,
        f"{' and '.join(beaten)} scored better than the calibrated constant, beyond the 90 % interval: it does not "
        "hold for these drifters.": bool(beaten),
        f"{numbers.drifters(scores)}: too few to judge by; with one there is no interval at all.": (
            min(scores.n_drifters, scores.n_clusters) < FEW
        ),
        f"{counted(left_out.n_samples, 'sample')} of {counted(len(names), 'drifter')} that the run was trained on "
        f"{were(left_out.n_samples)} left out: {listed(names)}.": bool(names),
        f"{counted(len(poisoned), 'sample')} gave no finite score and {were(len(poisoned))} left out: "
        f"{listed(poisoned)}.": bool(poisoned),
        **unreadable(scores),
    }
    return [text for text, holds in due.items() if holds]


def unreadable(found: Evaluation | Result) -> dict[str, bool]:
    """The warning of samples that could not be read (`--on-bad-shard skip`), and whether it is due."""
    lost = found.unreadable_samples
    text = (
        f"{counted(len(lost), 'sample')} of damaged shards could not be read and {were(len(lost))} left out: "
        f"{listed(lost)}. Run drift-inspect verify on the store."
    )
    return {text: bool(lost)}


def table(scores: Evaluation) -> str:
    """The scores of an evaluation for a terminal, means with 90 % intervals."""
    heads = (f"{score.name} {score.unit}".replace("energy score above", "above").removesuffix(" 1") for score in SCORES)
    lines = [scored(scores), f"{'':22s}" + "".join(f"{head:>24s}" for head in heads)]
    for system, found in scores.scores.items():
        means = [found.of(score) for score in SCORES]
        cells = [f"{one.mean:.3f}" + (f" ± {one.half:.3f}" if one.half is not None else "") for one in means]
        lines.append(f"{system:22s}" + "".join(f"{cell:>24s}" for cell in cells))
    over = HOW_TO_READ.format(clusters=numbers.clusters(scores.standard_error_clusters))
    lines += [over, *reliability_lines(scores)]
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in warnings(scores))])


def scored(scores: Evaluation) -> str:
    """The samples that were scored: how many of which split, and whether the constant was fitted to them."""
    rest = scores.trained_drifters_left_out.n_samples + len(scores.poisoned_samples) + len(scores.unreadable_samples)
    part = f" (of {scores.n_split:,}, spread evenly)" if scores.n_samples + rest < scores.n_split else ""
    known = "which the constant was fitted to: fit, not skill" if scores.fit else "not trained on"
    samples = counted(scores.n_samples, "sample")
    return f"{samples}{part} of {numbers.drifters(scores)}, split {scores.split}, {known}"


def score_rows(scores: Evaluation) -> list[list[str]]:
    """Rows of the table of scores: a system, and its means with half of their intervals."""
    return [
        [system, *(numbers.measured(one.mean, one.half) for one in map(found.of, SCORES))]
        for system, found in scores.scores.items()
    ]


def reliability_rows(scores: Evaluation) -> list[list[str]]:
    """Rows of the table of reliability: an ensemble, and its diagnostics with half of their intervals."""
    return [
        [
            system,
            *(numbers.measured(one.mean, one.half) for one in (diagnostic.of(found) for diagnostic in DIAGNOSTICS)),
        ]
        for system, found in scores.reliability.items()
    ]


RELIABLE = (
    "spread / error 1, ranks 0.5, their spread 1: reliable. Ratio below 1 and rank by distance above 0.5: too narrow."
)
"""Legend of the table of reliability."""


def reliability_lines(scores: Evaluation) -> list[str]:
    """The table of reliability for a terminal."""
    head = f"{'reliability':22s}" + "".join(f"{diagnostic.name:>18s}" for diagnostic in DIAGNOSTICS)
    rows = reliability_rows(scores)
    table = [f"{first:22s}" + "".join(f"{cell:>18s}" for cell in rest) for first, *rest in rows]
    return [head, *table, *(f"{name}: {text}" for name, text in by_lead(scores).items()), RELIABLE]


LEADS = (1.0, 6.0, 24.0, 72.0, 120.0)
"""Lead times that reliability is told at, beside the last [h]."""


def by_lead(scores: Evaluation) -> dict[str, str]:
    """Spread over error of every ensemble at a few lead times, first hours included: pooled, early and late cancel."""
    hours = scores.lead_hours
    chosen = sorted({min(range(len(hours)), key=lambda k: abs(hours[k] - lead)) for lead in (*LEADS, hours[-1])})
    told = {}
    for name, one in scores.reliability.items():
        ratios = one.by_lead.spread_skill_ratio.mean
        parts = (
            f"{ratios[k]:.2f} at {hours[k] / 24:.3g} d" if hours[k] >= 24 else f"{ratios[k]:.2f} at {hours[k]:g} h"
            for k in chosen
        )
        told[f"spread / error by lead time, {name}"] = ", ".join(parts)
    return told
