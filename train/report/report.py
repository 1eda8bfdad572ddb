"""The page that a run ends in: `report.html`, one file to read, print or send, with its figures beside it for papers.

A pure function of what lies in the run folder and of the store's manifest and labels, so the same run gives the same
bytes. A page may be written with another store than the one trained on (an evaluation elsewhere); what it says of the
training data comes from `training_data.json` in the run folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from driftcal.shared.canvas import Figure
from driftcal.shared.inspection.text import render_funnel
from driftcal.shared.store.manifest import stage_from_json, write_file
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.text import counted, listed, were
from driftcal.train.evaluation.evaluation import DIAGNOSTICS, SCORES
from driftcal.train.report import (
    checks_text,
    evaluation_text,
    figures_checks,
    figures_evaluation,
    figures_profile,
    figures_run,
    numbers,
    page,
    profile_text,
)
from driftcal.train.run.result import Parameter, Result
from driftcal.train.run.run_folder import FIGURES, PAGE, Run, read

MOST_ESCAPED = 0.01
"""Share of members that may leave their window without a warning."""


def write(out: Path, store: ShardStore) -> Path:
    """Writes page and figures of the run in `out`, and returns the page.

    Args:
        out: The run's folder.
        store: The store trained on, or another one that the run was evaluated on.

    Raises:
        ConfigError: `out` holds no finished run, or a file of it is damaged.
    """
    run = read(out)
    result, steps, shown = run.result, run.steps, run.examples
    same = store.manifest.digest == result.store

    def convergence(steps: Sequence[Mapping[str, Any]]) -> Figure:
        if numbers.own(result):
            return figures_run.parameters(steps, result, run.unit)
        return figures_run.convergence(steps, result, run.truth, run.unit)

    wanted = {
        "convergence": steps and (lambda: convergence(steps)),
        "examples": shown and (lambda: figures_run.examples(shown)),
        **figures_checks.wanted(run),
        **figures_evaluation.wanted(run),
        **figures_profile.wanted(run),
        "drifters": same and (lambda: figures_run.starts(store)),
    }  # in the order of the page, by which they are numbered
    drawn: dict[str, bytes] = {}
    for name, make in wanted.items():
        for ending, content in figures_run.render(make).items() if make else ():
            write_file(out / FIGURES / f"{name}.{ending}", content)
        # the map of the training data stays from an earlier page where this store is another one
        kept = out / FIGURES / f"{name}.png"
        if make or (name == "drifters" and kept.exists()):
            drawn[name] = kept.read_bytes()
    whole = page.render(
        drawn, figure_names=list(drawn), **_headline(run), **_skill(run), **_examination(run), **_origin(run)
    )
    write_file(out / PAGE, whole.encode())
    return out / PAGE


def summary(out: Path) -> str:
    """The result of the run in `out` in a few lines for a terminal."""
    run = read(out)
    unit = "" if numbers.own(run.result) else " [m2/s]"
    stated, said = f"{numbers.stated(run.result)} in {run.result.formula}{unit}", checks_text.verdict(run.result)
    # a wrong model comes before its number
    lines = [said, stated] if checks_text.contradicted(run.result) else [stated, *([f"model: {said}"] if said else [])]
    lines += [f"{name}: {text}" for name, text in [*_facts(run), *checks_text.facts(run.result)]]
    lines += [f"{name}: {text}" for name, text in profile_text.facts(run)]
    scored = {} if run.evaluation is None else evaluation_text.unreadable(run.evaluation)
    judged = [text for text, holds in scored.items() if holds]
    told = dict.fromkeys([*warnings(run.result), *judged])
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in told)])


def headline(out: Path) -> str:
    """The constant of the run in `out`, a wrong model before it, and the true one where the drifters were simulated."""
    run = read(out)
    lines = [checks_text.verdict(run.result)] if checks_text.contradicted(run.result) else []
    if run.truth is None:
        return "\n".join([*lines, numbers.stated(run.result)])
    return "\n".join([*lines, f"true C_s = {run.truth:g}", f"recovered {numbers.found(run.result)}"])


def warnings(result: Result) -> list[str]:
    """Warnings to read before the constant is used for anything."""
    share, poisoned = result.escaped_share, result.poisoned_samples
    own = numbers.own(result)
    them, doubtful = "the parameters" if own else "C_s", numbers.hardly_known(result)
    stand, longer = "are" if own else "is", "epochs" if result.optimizer == "adam" else "optimizer.final_passes"
    known = numbers.has_error(result)
    single = "a single drifter" if result.n_drifters < 2 else numbers.drifters(result)
    alone = single if result.n_clusters < 2 else "an objective that is not convex here"
    alone = "a curvature of so many parameters, not measured," if own and not result.few else alone
    due = {
        f"not converged: {them} {stand} where the run stopped, not where the objective is least. Use more drifters, or "
        f"raise {longer}.": not result.converged and not result.at_bound,
        **{_at_bound(name, one): True for name, one in result.at_bound.items()},
        f"the objective {result.objective} is not proper: it is least at another constant than the drifters'. Use "
        "energy for a number, this one for comparison.": not result.proper,
        f"hardly known: the 90 % interval of {'; of '.join(f'{k} is {v}' for k, v in doubtful.items())}. More "
        "drifters narrow it.": bool(doubtful),
        f"no standard error: {alone} cannot tell how far {them} {stand} from that of other drifters.": not known,
        f"{100 * share:.2g} % of the members left their window and were held at its edge, which biases {them}. "
        "Preprocess with a larger window.half_width_deg.": share > MOST_ESCAPED,
        f"{counted(len(poisoned), 'sample')} gave no finite loss and gradient and {were(len(poisoned))} left out: "
        f"{listed(poisoned)}.": bool(poisoned),
        **evaluation_text.unreadable(result),
    }
    return [*(text for text, holds in due.items() if holds), *profile_text.warnings(result)]


def _at_bound(name: str, one: Parameter) -> str:
    """Warning of a parameter at its bound."""
    symbol, interval = "C_s" if name == "cs" else name, one.interval_90
    if one.value > 0:
        known = "" if interval is None else f" (one-sided 95 % interval: above {interval[0]:.2g})"
        return f"{symbol} is at its bound: however large, it fits as well{known}. Leave it out, or make it a constant."
    known = "" if interval is None else f" (one-sided 95 % interval: 0 to {interval[1]:.2g})"
    return f"{symbol} is at its bound: zero fits as well as anything{known}. These drifters show no sign of it."


def _facts(run: Run) -> list[tuple[str, str]]:
    """The result in words, for page and terminal."""
    r, truth, error = run.result, run.truth, run.result.cs_standard_error
    speed = "not timed" if r.samples_per_second is None else f"{r.samples_per_second:,.4g} samples/s"
    if r.at_bound and not numbers.own(r):
        interval = f"none: {numbers.found(r)}"
    elif numbers.own(r):
        interval = numbers.errors(r)
    elif error is None or r.cs_interval_90 is None:
        interval = "none"
    else:
        digits = max(1 - int(np.floor(np.log10(error))), 0)
        low, high = r.cs_interval_90
        by = numbers.CLUSTERED[r.standard_error_clusters]
        interval = f"{error:.2g}, {by}; 90 % interval {low:.{digits}f} to {high:.{digits}f}"
    twin = []
    if truth is not None and r.cs is not None:
        off = f"{truth:g}; found minus true: {100 * (r.cs / truth - 1):+.1f} %"
        errors = f", {(r.cs - truth) / error:+.1f} standard errors" if error else ""
        twin = [("true C_s of this twin experiment", off + errors)]
    return [
        ("standard error", interval),
        *twin,
        ("objective", f"{r.objective}, {r.estimator} estimator, mean {r.score:.4g} [{run.unit}]"),
        ("converged", r.convergence),
        ("samples", f"{r.n_samples:,} of {numbers.drifters(r)}; left out {len(r.poisoned_samples):,}"),
        (
            "ensemble",
            f"{r.members} members, scheme {r.scheme}, {r.precision}, engine {r.engine}; from {numbers.start(r)}",
        ),
        ("members that left their window", f"{r.escaped_members:,} ({100 * r.escaped_share:.2g} %)"),
        ("speed", f"{speed} with gradient, on {r.device}"),
    ]


def _headline(run: Run) -> dict[str, Any]:
    """Top of the page: the calibrated parameters, what they mean, and what to know before they are used."""
    result = run.result
    return {
        "result": result,
        "own": numbers.own(result),
        "stated": numbers.stated(result),
        "verdict": checks_text.verdict(result),
        "contradicted": checks_text.contradicted(result),
        "checks": checks_text.rows(result),
        "checks_head": checks_text.HEAD,
        "diffusivity": _diffusivity(run),
        "warnings": warnings(result),
        "facts": _facts(run),
    }


def _diffusivity(run: Run) -> dict[str, str] | None:
    """The diffusivity in the windows of the examples; None where the run has no C_s or there is no ocean."""
    cs = run.result.cs
    scale = figures_run.kappa(run.examples) if run.examples and cs is not None else None
    if scale is None or cs is None:
        return None
    low, median, high = (f"{float(f'{k:.2g}'):,g} m²/s" for k in cs * scale)
    km = np.sqrt(2 * cs * scale[1] * 86_400) / 1e3
    return {"low": low, "median": median, "high": high, "km": f"{km:.2g}"}


def _skill(run: Run) -> dict[str, Any]:
    """Scores of the last evaluation beside those of the baselines; None without one."""
    if (found := run.evaluation) is None:
        return {"skill": None}
    other = "" if found.store == run.result.store else ", of another store"
    return {
        "skill": {
            "cs": None if found.cs is None else f"{found.cs:.4g}",
            "scored": evaluation_text.scored(found) + other,
            "warnings": evaluation_text.warnings(found),
            "head": ["", *(score.label for score in SCORES)],
            "scores": evaluation_text.score_rows(found),
            "clustered": numbers.CLUSTERED[found.standard_error_clusters],
            "directions": {score.key: score.direction for score in SCORES},
            "reliability_head": ["reliability", *(diagnostic.name for diagnostic in DIAGNOSTICS)],
            "reliability": evaluation_text.reliability_rows(found),
            "by_lead": evaluation_text.by_lead(found),
            "figures": list(figures_evaluation.wanted(run)),
        }
    }


def _examination(run: Run) -> dict[str, Any]:
    """Other minima, and the groups' constants."""
    return {
        "symbol": run.parameter[0] if run.parameter is not None else "",
        "examined": profile_text.facts(run),
        "groupings": profile_text.groupings(run),
        "group_head": profile_text.HEAD,
    }


def _origin(run: Run) -> dict[str, Any]:
    """Bottom of the page: the training data, all settings, and how to cite the result."""
    r, data = run.result, run.data
    trees = (
        ("Training settings", run.settings.model_dump(mode="json")),
        ("Data manifest", data and data["recipe"]),
    )
    cited = f"driftcal {r.version}, store {r.store_name} (sha256 {r.store[:12]}), seed {r.seed}: "
    said = checks_text.verdict(r)
    return {
        "funnel": data and render_funnel([stage_from_json(stage) for stage in data["funnel"]]),
        "configuration": [
            (title, yaml.safe_dump(tree, sort_keys=False) if tree else "not in the run folder") for title, tree in trees
        ],
        "origin": [
            ("driftcal", r.version),
            ("store", r.store_name),
            ("its sha256", r.store),
            ("seed", str(r.seed)),
        ],
        "cited": cited + f"{numbers.stated(r)}, {r.formula}" + (f". Model checks: {said}" if said else ""),
    }
