"""The profile of a constant as text for terminal and page: other minima, whether one constant fits, the groups."""

from collections.abc import Mapping
from html import escape
from typing import Any

from driftcal.train.report import page
from driftcal.train.run.run_folder import Run

MOST_ROWS = 40
"""Groups in a table; `groups.json` has all."""

DOUBTFUL = 0.01
"""p-value below which one constant is said not to fit."""


def _key(key: str) -> str:
    """A key of groups, in words."""
    name, _, size = key.partition(":")
    return {"grid": f"boxes of {size}°", "latitude": f"bands of latitude of {size}°"}.get(name, key)


def unequal(result: Mapping[str, Any]) -> dict[str, float]:
    """Keys by which one constant does not fit, with their p-values; several tests share the chance of a false one."""
    tests = {key: test["p_value"] for key, test in (result.get("homogeneity") or {}).items() if test is not None}
    return {key: p for key, p in tests.items() if p * len(tests) < DOUBTFUL}


def facts(run: Run) -> list[tuple[str, str]]:
    """Facts of the profile in words, for a terminal and a table."""
    result, found = run.result, []
    if result.get("minima") is not None:
        profile = result["profile"]
        at = ", ".join(f"{least['cs']:.3g}" for least in result["minima"]) or "none"
        ends = f"{profile['cs'][0]:.2g} to {profile['cs'][-1]:.2g}"
        found.append(("minima of the score", f"C_s = {at} ({profile['n_samples']:,} samples, C_s from {ends})"))
    tests = {key: test for key, test in (result.get("homogeneity") or {}).items() if test is not None}
    if tests:
        shown = "; ".join(f"{_key(key)}: p = {test['p_value']:.2g}" for key, test in tests.items())
        verdict = "does not fit" if unequal(result) else "is not contradicted"
        found.append(("one constant", f"{verdict} ({shown})"))
    for one in (run.groups or {}).get("groupings", ()):
        known = [group["shrunk_cs"] for group in one["groups"]]
        p = "" if one["test"] is None else f"; one constant for all: p = {one['test']['p_value']:.2g}"
        ends = f"C_s from {min(known):.3g} to {max(known):.3g}"
        found.append((f"by {_key(one['key'])}", f"{len(known)} group(s), {ends}{p}"))
    return found


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Warnings from the profile, to read before the constant is used."""
    minima, keys = result.get("minima") or (), unequal(result)
    at = ", ".join(f"{least['cs']:.3g}" for least in minima)
    by = ", ".join(f"{_key(key)} (p = {p:.1g})" for key, p in keys.items())
    due = {
        f"the score has {len(minima)} minima, at C_s = {at}: the constant is that of the one nearest to where the run "
        "began. See the score against C_s in the report.": len(minima) > 1,
        f"one constant does not fit all: by {by}. The constant is a mean of unequal ones. Calibrate each group: "
        f"--group-by {min(keys, key=keys.__getitem__, default='')}.": bool(keys),
    }
    return [text for text, holds in due.items() if holds]


def sections(run: Run, drawn: Mapping[str, bytes]) -> list[str]:
    """Parts of the page; none for a run without an examination."""
    if run.result.get("profile") is None:
        return []
    parts = ["<h2>Score against the constant</h2>", page.table(facts(run)), page.figure(drawn, "profile")]
    for number, one in enumerate((run.groups or {}).get("groupings", ())):
        parts += _grouping(one, drawn, f"groups-{number + 1}")
    return parts


def _grouping(one: Mapping[str, Any], drawn: Mapping[str, bytes], name: str) -> list[str]:
    test, key = one["test"], _key(one["key"])
    if test is None:
        verdict = f"Fewer than two groups have {one['least_drifters']} drifters: nothing can be said of their equality."
    else:
        fits = "does not fit" if test["p_value"] < DOUBTFUL else "is not contradicted"
        verdict = (
            f"One constant for all groups {fits}: Q is {test['statistic']:.2g} times what chance gives "
            f"{test['n_groups']} groups (p = {test['p_value']:.2g})."
        )
    rows = []
    for group in sorted(one["groups"], key=lambda g: -g["n_samples"])[:MOST_ROWS]:
        low, high = group["shrunk_cs_interval_90"]
        raw = (
            "no minimum"
            if group["cs"] is None
            else "{:.3g} ({:.3g} to {:.3g})".format(group["cs"], *group["cs_interval_90"])
        )
        counts = f"{group['n_samples']:,}", f"{group['n_drifters']:,}"
        rows.append([group["name"], *counts, raw, f"{group['shrunk_cs']:.3g} ({low:.3g} to {high:.3g})"])
    rest = len(one["groups"]) - len(rows)
    more = f'<p class="small">{rest:,} smaller groups are in groups.json.</p>' if rest > 0 else ""
    caption = "map" if "box" in one["groups"][0] else "forest"
    return [
        f"<h2>The constant by {escape(key)}</h2>",
        f"<p>{escape(verdict)} Between groups log C<sub>s</sub> varies by about {one['tau']:.2g} (standard deviation) "
        f"around C<sub>s</sub> = {one['mean_cs']:.3g}.</p>",
        page.figure(drawn, name, caption),
        page.table(rows, ["group", "samples", "drifters", "on its own (90 %)", "shrunk (90 %)"]),
        more,
    ]
