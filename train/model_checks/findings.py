"""Sentences on what a rejected check says of drifters and currents, and what to do about it."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from driftcal.train.model_checks.model_check import ModelCheck

UNSAID = "nothing can be said of the model"
NOTHING = "nothing against the model"

KEEP = "drifters keep their velocity relative to the currents"
"""Beginning of the findings of a memory, at whichever length of time."""

QUESTIONS = {
    "lead_time": "are the parameters of its first and last quarter those of the whole track?",
    "first_hours": "is the constant of the first hours that of the rest?",
    "kappa": "is the constant of weak deformation that of strong?",
    "speed": "is the constant of slow currents that of fast ones?",
    "latitude": "is the constant of the south that of the north?",
    "mean_residual": "do drifters on average go where the ensemble goes?",
    "along_current": "do they on average go as far as the currents, and straight along them?",
    "objectives": "do two proper scores find the same constant?",
    "memory": "do residuals forget their direction as fast as the members do?",
    "turning": "do residuals of a few hours turn, and turn back, as the members do?",
    "jitter": "do residuals turn back from fix to fix as the members do?",
    "boxes": "is the constant the same in all boxes of 10°?",
    "bands": "is the constant the same in all bands of 10°?",
    "seasons": "is the constant the same in all seasons?",
    "reliability": "does the drifter lie among the members like one of them?",
}

LEAD_TIME_OF_SEVERAL = (
    "the parameters that fit the first quarter of the track do not fit the last: the unresolved motion does not spread "
    "drifters with time as the model's does"
)
FIRST_HOURS_OF_SEVERAL = (
    "the parameters that fit the first hours do not fit the rest: the observed positions have errors, or the "
    "unresolved motion has a memory of hours"
)
OBJECTIVES_OF_SEVERAL = (
    "the scores energy and energy-plain, both least at the truth of a right model, are least at different parameters: "
    "calm and energetic waters ask for different ones"
)

CONDITIONS = {
    "kappa": ("the deformation of the currents is weak", "strong"),
    "speed": ("the currents are slow", "fast"),
    "latitude": ("the south", "the north"),
}

CAUSES = (
    "mean_residual",
    "memory",
    "turning",
    "jitter",
    "first_hours",
    "kappa",
    "objectives",
    "along_current",
    "speed",
    "latitude",
    "lead_time",
    "boxes",
    "bands",
    "seasons",
    "reliability",
)
"""The checks in the order in which a verdict tells of them: those that name a cause before those that show effects."""

MOST_TOLD = 2
"""Findings in a verdict; the table has all."""


def verdict(
    supported: bool | None, checks: Mapping[str, ModelCheck], n_independent: float, fewest: int, missing: Sequence[str]
) -> str:
    """The model in one sentence: of rejected checks the two that name causes best, in the order of `CAUSES`.

    Args:
        supported: As in results.
        checks: The checks by name.
        n_independent: Independent drifters that weigh as much as the samples.
        fewest: Those without which no model is called supported.
        missing: Checks that could not be made and without which none is.
    """
    if supported is None:
        few = "a single drifter" if n_independent < 2 else f"{int(n_independent)} independent drifters"
        if n_independent < fewest:
            return f"{UNSAID}: {few}, and fewer than {fewest} cannot tell chance from a wrong model"
        names = ", ".join(name.replace("_", " ") for name in missing)
        return f"{UNSAID}: none of {len(checks)} checks contradicts it, but these could not be made: {names}"
    if supported:
        return f"none of {len(checks)} checks contradicts the model"
    # a memory that is too short is an effect, of which the turning names the cause
    short = "memory" in checks and checks["memory"].estimates[0].value < checks["memory"].estimates[1].value
    order = [name for name in CAUSES if not (short and name == "memory")] + ["memory"] * short
    failed = [name for name in order if name in checks and checks[name].rejected]
    told: list[str] = []
    for name in failed:
        finding = checks[name].finding
        # one memory shows at several lengths of time
        if not (finding.startswith(KEEP) and any(one.startswith(KEEP) for one in told)):
            told.append(finding)
    return "; ".join(told[:MOST_TOLD])


def number(value: float) -> str:
    """A number with two digits that tell, and no power of ten."""
    return f"{float(f'{value:.2g}'):g}"


def duration(hours: float) -> str:
    """A length of time in words."""
    if hours >= 36:
        days = hours / 24
        return f"{days:.2g} days"
    if abs(hours - 24) < 1:
        return "one day"
    return "one hour" if hours == 1 else f"{hours:.2g} hours"


def lead_time(symbol: str, early: float, late: float, whole: float, early_hours: float, hours: float) -> str:
    """The finding on lead time, from the parameter over the first and last quarter, and over all of the track."""
    first, last = duration(early_hours), duration(hours)
    numbers = f"{symbol} is {number(early)} over the first {first} and {number(late)} at the end of {last}"
    if (early < whole) == (late < whole):
        return (
            f"{numbers}, and {number(whole)} over all of it: one constant does not fit the middle of the track as well"
        )
    if late > early:
        return (
            f"{numbers}: drifters leave the ensemble faster than diffusion does, as under a mean drift that the "
            f"currents lack, a velocity with a memory, or currents that are smoothed or displaced"
        )
    return (
        f"{numbers}: drifters leave the ensemble early and then no more, as under an error of the observed positions, "
        f"or inertial and tidal motion"
    )


def first_hours(symbol: str, first: float, later: float) -> str:
    """The finding on the first hours."""
    numbers = f"{symbol} is {number(first)} in the first hours and {number(later)} later"
    if first > later:
        return f"{numbers}: the observed positions have errors that the model does not know, or drifters oscillate"
    return f"{numbers}: drifters keep their velocity for hours, and white noise does not"


def condition(name: str, symbol: str, low: float, high: float) -> str:
    """The finding on a condition by which samples are sorted."""
    if name == "latitude":
        numbers = f"{symbol} is {number(low)} in the southern third and {number(high)} in the northern"
        return f"{numbers}: one constant does not fit both"
    weak, strong = CONDITIONS[name]
    numbers = f"{symbol} is {number(low)} where {weak} and {number(high)} where they are {strong}"
    if name == "kappa":
        numbers = f"{symbol} is {number(low)} where {weak} and {number(high)} where it is {strong}"
    if name == "speed":
        more = "slow" if low > high else "fast"
        return f"{numbers}: {more} waters spread drifters more than the model can with one constant"
    if low > high:
        return f"{numbers}: part of the spreading does not scale with the deformation, as a background diffusivity"
    return f"{numbers}: the spreading grows faster than the deformation"


def condition_of_several(name: str) -> str:
    """The same where there is no one positive parameter."""
    weak, strong = CONDITIONS[name]
    if name == "latitude":
        return f"the parameters that fit {weak} do not fit {strong}"
    they = "it is" if name == "kappa" else "they are"
    return f"the parameters that fit where {weak} do not fit where {they} {strong}"


def groups(name: str, symbol: str, n_groups: int) -> str:
    """The finding on groups of places or seasons."""
    words = {"boxes": "boxes of 10°", "bands": "bands of 10°", "seasons": "seasons"}
    return f"{symbol} differs between {n_groups} {words[name]}: one constant does not fit all"


def residual(name: str, first: float, second: float) -> str:
    """The finding on the mean residual velocity [cm/s], by its two components."""
    if name == "mean_residual":
        return (
            f"drifters move {_towards(first, second)} with {np.hypot(first, second):.2g} cm/s relative to the "
            f"ensemble: the currents lack a mean drift, such as that of the wind or the waves"
        )
    if abs(first) >= abs(second):
        more, currents = ("further", "weak") if first > 0 else ("less far", "strong")
        return (
            f"drifters go {more} along the currents than the ensemble, by {abs(first):.2g} cm/s: the currents are too "
            f"{currents}"
        )
    side = "left" if second > 0 else "right"
    return f"drifters go to the {side} of the currents by {abs(second):.2g} cm/s on average"


def _towards(east: float, north: float) -> str:
    """The direction of a vector, in eight."""
    names = ("east", "northeast", "north", "northwest", "west", "southwest", "south", "southeast")
    return names[round(np.arctan2(north, east) / (np.pi / 4)) % 8]


def objectives(symbol: str, energy: float, plain: float) -> str:
    """The finding on the two proper scores."""
    numbers = (
        f"{symbol} is {number(energy)} by the score energy, which calm waters rule, and {number(plain)} by energy-plain"
    )
    if energy > plain:
        return f"{numbers}: calm waters spread drifters more than the model can with one constant"
    return f"{numbers}: energetic waters spread drifters more than the model can with one constant"


def memory(drifters: float, members: float, own: float, hours: float) -> str:
    """The finding on the memory of the residual; `own` is the drifters' without the noise of the ensemble's mean."""
    if drifters <= members:
        return (
            f"successive residuals are less alike than the members' ({drifters:.2f} against {members:.2f}): drifters "
            f"turn back, as in inertial motion, or the observed positions have errors"
        )
    numbers = f"successive residuals have a correlation of {drifters:.2f}, the members' {members:.2f}"
    if drifters - members < TELLING:
        return f"{KEEP} for longer than the members do ({numbers}); white noise does not"
    long = memory_time(own, hours)
    time = (
        "much longer than the track" if long is None else f"about {duration(long)}, or longer where noise is mixed in"
    )
    return f"{KEEP} for {time} ({numbers}); white noise does not"


TELLING = 0.15
"""Excess of a correlation over the members' from which the time of a memory can be told."""


def turning(straight: float, cyclonic: float, hours: float, south: Bool[np.ndarray, " n"]) -> str:
    """The finding on increments of a few hours, from the departures of the two correlations in standard errors."""
    if abs(cyclonic) > abs(straight) / 2 and abs(cyclonic) > MARKED:
        way = "cyclonically" if cyclonic > 0 else "anticyclonically"
        if south.all() or not south.any():
            way = "clockwise" if (cyclonic < 0) != bool(south.all()) else "anticlockwise"
        why = "rotating tides, or eddies that the currents lack"
        if cyclonic < 0:
            why = "inertial motion, which the currents lack"
        return f"over successive {duration(hours)} drifters turn {way} relative to the ensemble: {why}"
    if straight < 0:
        return (
            f"after {duration(hours)} drifters turn back relative to the ensemble: the observed positions have errors, "
            f"or there are tides that the currents lack"
        )
    return f"{KEEP} for more than {duration(hours)}; white noise does not"


def jitter(drifters: float, members: float, error: float, hours: float) -> str:
    """The finding on increments from fix to fix; `error` [m] is that of positions which would explain it."""
    if drifters < members:
        size = f"{number(error)} m in each direction"
        return (
            f"residuals turn back from fix to fix: the observed positions have errors of about {size} that the model "
            f"does not know"
        )
    return f"{KEEP} for more than {duration(hours)}; white noise does not"


MARKED = 3.0
"""Standard errors beyond which a turn has a side."""


def memory_time(correlation: float, hours: float) -> float | None:
    """Time [h] in which a velocity decays whose successive displacements have this correlation; None beyond a month.

    Displacements of an Ornstein-Uhlenbeck velocity over a time D have (1 - e^-a)^2 / (2 (a - 1 + e^-a)), a = D / T.
    """
    a = np.geomspace(hours / 720.0, 50.0, 2000)
    known = (1 - np.exp(-a)) ** 2 / (2 * (a - 1 + np.exp(-a)))
    if correlation >= known[0]:
        return None
    return float(hours / np.interp(-correlation, -known, a))


def reliability(ratios: Mapping[str, float], z: Mapping[str, float]) -> str:
    """The finding on reliability, from spread over error by part of the lead time and the departure of the ranks."""
    worst = max(z, key=lambda name: abs(z[name]))
    numbers = ", ".join(f"{value:.2f} {PARTS[name]}" for name, value in ratios.items())
    verb = "too narrow" if z[worst] > 0 else "too wide"
    why = ""
    if worst == "first hours" and z[worst] > 0:
        why = ": the observed positions have errors that the model does not know, or drifters oscillate"
    return f"the ensemble is {verb} {PARTS[worst]} (spread over error {numbers}){why}"


PARTS = {"first hours": "in the first hours", "early": "early", "late": "late"}
