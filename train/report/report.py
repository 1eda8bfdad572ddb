"""The report of a run: `report.html`, one file to read, print or send, with its figures beside it for papers.

It is a pure function of the files in the run folder and of the store's manifest and labels, so the same run gives the
same bytes. It may be written with a store other than the one trained on (an evaluation elsewhere); its facts about the
training data come from `training_data.json` in the run folder.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from driftcal.shared.inspection.text import render_funnel
from driftcal.shared.store.manifest import stage_from_json, write_file
from driftcal.shared.store.reader import ShardStore
from driftcal.train.report import (
    evaluation_text,
    figures_evaluation,
    figures_profile,
    figures_run,
    numbers,
    page,
    profile_text,
)
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
    same = store.manifest.digest == result["store"]
    convergence = figures_run.parameters if numbers.own(result) else figures_run.convergence
    wanted = {
        "convergence": steps and (lambda: convergence(steps, result, run.truth, run.unit)),
        "examples": shown and (lambda: figures_run.examples(shown)),
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
    parts = [*_headline(run), *_skill(run, drawn), *profile_text.sections(run, drawn), *_origin(run, drawn)]
    whole = page.TEMPLATE.format(name=escape(result["store_name"]), style=page.STYLE, body="\n".join(parts))
    write_file(out / PAGE, whole.encode())
    return out / PAGE


def summary(out: Path) -> str:
    """The result of the run in `out` in a few lines for a terminal."""
    run = read(out)
    unit = "" if numbers.own(run.result) else " [m2/s]"
    lines = [f"{numbers.found(run.result)} in {run.result['formula']}{unit}"]
    lines += [f"{name}: {text}" for name, text in _facts(run)]
    lines += [f"{name}: {text}" for name, text in profile_text.facts(run)]
    judged = [text for text, holds in evaluation_text.unreadable(run.evaluation or {}).items() if holds]
    told = dict.fromkeys([*warnings(run.result), *judged])
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in told)])


def headline(out: Path) -> str:
    """The constant of the run in `out` with its standard error, and the true one where the drifters were simulated."""
    run = read(out)
    found = numbers.found(run.result)
    lines = [f"recovered {found}" if run.truth is not None else found]
    if run.truth is not None:
        lines.insert(0, f"true C_s = {run.truth:g}")
    return "\n".join(lines)


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Warnings to read before the constant is used."""
    share, dropped = result["escaped_share"], result["dropped_samples"]
    own = numbers.own(result)
    them, doubtful = "the parameters" if own else "C_s", numbers.hardly_known(result)
    stand, longer = "are" if own else "is", "epochs" if result.get("optimizer") == "adam" else "optimizer.final_passes"
    what = "the constant is" if doubtful == ["C_s"] else "it is" if len(doubtful) == 1 else "they are"
    known = numbers.has_error(result)
    alone = "a single drifter" if result["n_drifters"] < 2 else "an objective that is not convex here"
    alone = "a curvature of so many parameters, not measured," if own and not numbers.few(result) else alone
    due = {
        f"not converged: {them} {stand} where the run stopped, not where the objective is least. Use more drifters, or "
        f"raise {longer}.": not result["converged"],
        f"the objective {result['objective']} is not proper: it is least at another constant than the drifters'. Use "
        "energy for a number, this one for comparison.": result["objective"] in ("liu", "reference"),
        f"the standard error is more than half of {', '.join(doubtful)}: {what} hardly known.": bool(doubtful),
        f"no standard error: {alone} cannot tell how far {them} {stand} from that of other drifters.": not known,
        f"{100 * share:.2g} % of the members left their window and were held at its edge, which biases {them}. "
        "Preprocess with a larger window.half_width_deg.": share > MOST_ESCAPED,
        f"{len(dropped)} sample(s) gave no finite loss and gradient and were left out: "
        f"{evaluation_text.first(dropped)}.": bool(dropped),
        **evaluation_text.unreadable(result),
    }
    return [*(text for text, holds in due.items() if holds), *profile_text.warnings(result)]


def _facts(run: Run) -> list[tuple[str, str]]:
    """The result in words, for page and terminal."""
    r, truth, error = run.result, run.truth, run.result["cs_standard_error"]
    if numbers.own(r):
        interval = numbers.errors(r)
    elif error is None:
        interval = "none"
    else:
        digits = max(1 - int(np.floor(np.log10(error))), 0)
        low, high = r["cs_interval_90"]
        interval = f"{error:.2g}, clustered by drifter; 90 % interval {low:.{digits}f} to {high:.{digits}f}"
    twin = []
    if truth is not None:
        off = f"{truth:g}; found minus true: {100 * (r['cs'] / truth - 1):+.1f} %"
        errors = f", {(r['cs'] - truth) / error:+.1f} standard errors" if error else ""
        twin = [("true C_s of this twin experiment", off + errors)]
    escaped = f"{r['escaped_members']:,} ({100 * r['escaped_share']:.2g} %)"
    return [
        ("standard error", interval),
        *twin,
        ("objective", f"{r['objective']}, {r['estimator']} estimator, mean {r['score']:.4g} [{run.unit}]"),
        ("converged", r["convergence"]),
        ("samples", f"{r['n_samples']:,} of {r['n_drifters']:,} drifter(s); dropped {len(r['dropped_samples']):,}"),
        (
            "ensemble",
            f"{r['members']} members, scheme {r['scheme']}, {r['precision']}, engine {r.get('engine', 'driftcal')}; "
            f"from {numbers.start(r)}",
        ),
        ("members that left their window", escaped),
        ("speed", f"{r['samples_per_second']:,.4g} samples/s with gradient, on {r['device']}"),
    ]


def _headline(run: Run) -> list[str]:
    r = run.result
    own = numbers.own(r)
    scale = figures_run.kappa(run.examples) if run.examples and not own else None
    constant = escape(numbers.found(r)) if own else numbers.found(r, "C<sub>s</sub>")
    found = [
        f"<h1>{'Dynamics' if own else 'Smagorinsky constant'} of drift: {escape(r['store_name'])}</h1>",
        f'<p class="value">{constant}</p>',
        f"<p>Calibrated: <code>{escape(r['formula'])}</code>.</p>"
        if own
        else f"<p>In the diffusivity <code>{escape(r['formula'])}</code> [m²/s], with dx, dy the spacing of the "
        "currents [m] and u_x, u_y, v_x, v_y their derivatives on that grid [1/s]. Other formulas have other "
        "constants.</p>",
    ]
    if scale is not None:
        low, middle, high = (f"{float(f'{k:.2g}'):,g} m²/s" for k in r["cs"] * scale)
        km = np.sqrt(2 * r["cs"] * scale[1] * 86_400) / 1e3
        found.append(
            f"<p>In the windows of the example tracks K is {middle} in the median, and {low} to {high} in nine tenths "
            f"of the ocean. The median alone spreads particles by √(2Kt) = {km:.2g} km in each direction in a day.</p>"
        )
    wrong = "".join(f"<p><b>Warning:</b> {escape(warning)}</p>" for warning in warnings(r))
    return [*found, f'<div class="warnings">{wrong}</div>' if wrong else "", page.table(_facts(run))]


def _skill(run: Run, drawn: Mapping[str, bytes]) -> list[str]:
    caption = "parameters" if numbers.own(run.result) else None
    parts = ["<h2>Convergence</h2>", page.figure(drawn, "convergence", caption)]
    parts += ["<h2>Observed and simulated tracks</h2>", page.figure(drawn, "examples"), "<h2>Skill</h2>"]
    if (found := run.evaluation) is None:
        return [*parts, page.figure(drawn, "scores")]
    other = "" if found["store"] == run.result["store"] else ", of another store"
    names = evaluation_text.names_of(found)
    what = "The calibrated dynamics" if found["cs"] is None else f"C<sub>s</sub> = {found['cs']:.4g}"
    head = ["", *(f"{name.removesuffix('_km').replace('_', ' ')} [{'km' if 'km' in name else '-'}]" for name in names)]
    rows = []
    for system, scores in found["scores"].items():
        pairs = ((scores[name]["mean"], numbers.half_of(scores[name])) for name in names)
        rows.append([system, *(numbers.measured(mean, half) for mean, half in pairs)])
    return [
        *parts,
        f"<p>{what} on {escape(evaluation_text.scored(found))}{other}.</p>",
        *(f"<p><b>Warning:</b> {escape(warning)}</p>" for warning in evaluation_text.warnings(found)),
        page.table(rows, head),
        '<p class="small">Means over samples and lead times; ± half of the 90 % interval, clustered by drifter. Small '
        "is good, except for Liu and Weisberg's skill, where 1 is perfect. Any spread adds to separation and worsens "
        "that skill; only the energy score rewards the right one.</p>",
        *evaluation_text.reliability_html(found),
        *(page.figure(drawn, name) for name in figures_evaluation.wanted(run)),
    ]


def _origin(run: Run, drawn: Mapping[str, bytes]) -> list[str]:
    r, data = run.result, run.data
    parts = ["<h2>Training data</h2>", page.figure(drawn, "drifters")]
    if data is not None:
        funnel = render_funnel([stage_from_json(stage) for stage in data["funnel"]])
        parts.append(f"<p>From fixes to samples, and what was dropped:</p><pre>{escape(funnel)}</pre>")
    parts.append("<h2>Configuration and origin</h2>")
    for title, tree in (
        ("Training settings", run.settings.model_dump(mode="json")),
        ("Data manifest", data and data["recipe"]),
    ):
        held = yaml.safe_dump(tree, sort_keys=False) if tree else "not in the run folder"
        parts.append(f"<details><summary>{title}</summary><pre>{escape(held)}</pre></details>")
    rows = [("driftcal", r["version"]), ("store", r["store_name"]), ("its sha256", r["store"])]
    cited = f"driftcal {r['version']}, store {r['store_name']} (sha256 {r['store'][:12]}), seed {r['seed']}: "
    cited += f"{numbers.found(r)}, {r['formula']}"
    return [*parts, page.table([*rows, ("seed", str(r["seed"]))]), f"<p>To cite: {escape(cited)}.</p>"]
