"""Texts and tables of a constant's examination: other minima, and the groups' constants."""

from typing import NamedTuple

from driftcal.shared.text import counted
from driftcal.train.report import numbers
from driftcal.train.run.result import Group, GroupedBy, Minimum, Result
from driftcal.train.run.run_folder import Run

MOST_ROWS = 40
"""Groups in a table; `groups.json` has all."""

FEWEST_CLUSTERS = 10
"""Clusters with which other minima are spoken of: the error over fewer is itself too uncertain."""

DOUBTFUL = 0.01
"""p-value below which one constant is said not to fit."""


def _key(key: str) -> str:
    """A key of groups, in words."""
    name, _, size = key.partition(":")
    return {"grid": f"boxes of {size}°", "latitude": f"bands of latitude of {size}°"}.get(name, key)


def facts(run: Run) -> list[tuple[str, str]]:
    """The examination in words, for a terminal and a table."""
    result, found = run.result, []
    name = run.parameter[0] if run.parameter is not None else "C_s"
    if result.profile is not None and result.minima is not None:
        profile = result.profile
        ends = f"{profile.value[0]:.2g} to {profile.value[-1]:.2g}"
        few = numbers.clusters(result.standard_error_clusters, profile.n_clusters)
        of = f"{counted(profile.n_samples, 'sample')} of {few}, {name} from {ends}"
        if profile.n_clusters < FEWEST_CLUSTERS:
            said = f"too few to tell ({of})"
        else:
            said = ", ".join(_minimum(name, least) for least in result.minima) or "none beyond chance"
            said = f"{said} ({of})"
        found.append(("other minima of the score", said))
    for one in run.groups.groupings if run.groups is not None else ():
        known = [group.shrunk_value for group in one.groups]
        p = "" if one.test is None else f"; one constant for all: p = {one.test.p_value:.2g}"
        ends = f"{name} from {min(known):.3g} to {max(known):.3g}"
        found.append((f"by {_key(one.key)}", f"{counted(len(known), 'group')}, {ends}{p}"))
    return found


def _told(result: Result) -> tuple[Minimum, ...]:
    """Other minima, where there are clusters enough to tell."""
    enough = result.profile is not None and result.profile.n_clusters >= FEWEST_CLUSTERS
    return (result.minima or ()) if enough else ()


def _minimum(name: str, least: Minimum) -> str:
    """A minimum with its interval."""
    ends = "" if least.interval_90 is None else " ({:.2g} to {:.2g})".format(*least.interval_90)
    return f"{name} = {least.value:.2g}{ends}"


def _other_minimum(name: str, result: Result, least: Minimum) -> str:
    """Warning of another minimum than the result, and what to do about it."""
    start = "initial_cs" if result.dynamics is None else f"dynamics_settings.{name}"
    above = least.score_above_result
    side = f"{abs(above):.2g} {'above' if above > 0 else 'below'} that at the result"
    do = (
        "The lower of the two stands"
        if above > 0
        else f"Train again with {start}={least.value:.2g}, and keep the lower"
    )
    return (
        f"the score has another minimum, at {_minimum(name, least)}, where it is {side}. {do}. See the score against "
        f"the parameter in the report."
    )


def warnings(result: Result) -> list[str]:
    """Warnings about the parameter that its examination gives."""
    name = "C_s" if result.cs is not None else next(iter(result.parameters), "")
    return [_other_minimum(name, result, least) for least in _told(result)]


class GroupTable(NamedTuple):
    """The groups of a key, as the page shows them.

    Attributes:
        key: The key in words.
        verdict: Whether one constant fits all groups.
        tau: Standard deviation of log C_s between groups.
        mean: Constant around which they vary.
        figure: Name of their figure.
        caption: Name of its caption.
        rows: Table of the largest groups.
        rest: Number of smaller groups, which are in `groups.json` only.
    """

    key: str
    verdict: str
    tau: str
    mean: str
    figure: str
    caption: str
    rows: list[list[str]]
    rest: int


HEAD = ("group", "samples", "drifters", "on its own (90 %)", "shrunk (90 %)")
"""Head of the table of groups."""


def groupings(run: Run) -> list[GroupTable]:
    """The groups of every key, in the order in which they were asked for."""
    every = run.groups.groupings if run.groups is not None else ()
    by = run.result.standard_error_clusters
    return [_grouping(one, by, f"groups-{number + 1}") for number, one in enumerate(every)]


def _grouping(one: GroupedBy, by: str, figure: str) -> GroupTable:
    test = one.test
    if test is None:
        least = numbers.clusters(by, one.least_clusters)
        verdict = f"Fewer than two groups have {least}: nothing can be said of their equality."
    else:
        fits = "does not fit" if test.p_value < DOUBTFUL else "is not contradicted"
        verdict = (
            f"One constant for all groups {fits}: Q is {test.statistic:.2g} times what chance gives "
            f"{test.n_groups} groups (p = {test.p_value:.2g})."
        )
    rows = [_row(group) for group in sorted(one.groups, key=lambda g: -g.n_samples)[:MOST_ROWS]]
    caption = "map" if one.groups[0].box is not None else "forest"
    tau, mean = f"{one.tau:.2g}", f"{one.mean_value:.3g}"
    return GroupTable(_key(one.key), verdict, tau, mean, figure, caption, rows, len(one.groups) - len(rows))


def _row(group: Group) -> list[str]:
    raw = "no minimum"
    if group.value is not None and group.interval_90 is not None:
        raw = "{:.3g} ({:.3g} to {:.3g})".format(group.value, *group.interval_90)
    shrunk = "{:.3g} ({:.3g} to {:.3g})".format(group.shrunk_value, *group.shrunk_interval_90)
    return [group.name, f"{group.n_samples:,}", f"{group.n_drifters:,}", raw, shrunk]
