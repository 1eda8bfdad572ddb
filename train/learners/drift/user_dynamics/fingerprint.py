"""The fingerprint of the function that a run calibrated, and its comparison with a term of today.

A term is code of a user's: a line of it, of a helper that it imports, or of a file that it reads may change between a
run and its resumption or evaluation, and the numbers then belong to nothing. So a run keeps a fingerprint of the term:

    program, numbers, arrays   the traced term and its derivatives (`user_dynamics.program`), without names and comments
    points, values             the term at fixed points, at its start and moved off it: this shows what a trace hides,
                               such as what a callback to Python returns
    start                      where its trained numbers begin
    sources                    digests of the files it comes from, only to say which has changed
    made_with                  versions and processor. Another JAX traces otherwise, so that then the values decide;
                               another processor computes constants with other last digits, so that then those may

Loads no jax: `user_dynamics.tracing` takes fingerprints.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from driftcal.shared.command import say
from driftcal.shared.errors import ConfigError

Fingerprint = dict[str, Any]
"""For JSON; the keys are above."""


class UserDynamics(NamedTuple):
    """Dynamics of a user's, as a run has calibrated them.

    Attributes:
        path: File of the calibrated module.
        function: Fingerprint of the function that they are.
        run: The run's folder.
    """

    path: Path
    function: Fingerprint
    run: Path


TOLERANCE = {"float32": 5e-5, "float64": 1e-9}
"""Values at the points agree within this, relative to the size of the output: a hundred times what rounding makes."""

ROUNDING = 1e-6
"""Constants computed on another processor agree within this, relative to their root mean square."""

NUMBERS = 8
"""Number of values at a point: t [s], longitude, latitude [degrees], u, v, kappa, kappa_x, kappa_y."""

VERSIONS = ("jax", "equinox")
"""Packages whose versions affect the trace of a term."""


UNCHANGED = (
    " Its modules have not changed, but something that they take from elsewhere: a data file, settings, a variable of "
    "the environment, an installed package, the date, or what differs in every process, as the hash of a text and the "
    "order of a set do."
)


def check(recorded: Fingerprint | None, now: Fingerprint, where: str, remedy: str) -> None:
    """Refuses a term that is not the one recorded; says so where another JAX leaves it to the values to tell.

    Args:
        recorded: of the run; None where it has none.
        now: of the term as it is.
        where: the run, for messages.
        remedy: what to do, a sentence.

    Raises:
        ConfigError: they differ; names in what, and the files that have changed.
    """
    if recorded is None:
        raise ConfigError(f"{where} does not say which function it calibrated. Train again.")
    try:
        differing = list(_differences(recorded, now))
        changed = _changed_files(recorded["sources"], now["sources"])
        before, today = recorded["made_with"], now["made_with"]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"{where}: what it says of the function that it calibrated is damaged. Train again."
        ) from error
    if differing:
        files = f" Changed since: {', '.join(changed)}." if changed else UNCHANGED
        raise ConfigError(
            f"{where} calibrated another function than dynamics {now['dynamics']!r} is now: {'; '.join(differing)}."
            f"{files} {remedy}"
        )
    other = [f"{name} {before.get(name)}, now {today[name]}" for name in VERSIONS if before.get(name) != today[name]]
    if other:
        say(
            f"note: {where} was made with {', '.join(other)}, which trace a term otherwise: that its function is the "
            f"same is judged by its values at {len(now['points'])} points, which agree within "
            f"{TOLERANCE[now['precision']]:g}."
        )


def same(one: Fingerprint, other: Fingerprint) -> str | None:
    """First difference between two fingerprints of one process; None if there is none."""
    return next(_differences(one, other), None)


def _differences(recorded: Fingerprint, now: Fingerprint) -> Iterator[str]:
    """Yields their differences, the plainest first."""
    before, today = recorded["made_with"], now["made_with"]
    comparable = all(before[name] == today[name] for name in VERSIONS)
    if comparable:
        elsewhere = before["processor"] != today["processor"]
        yield from _constants(recorded, now, elsewhere)
    if starts := list(_starts(recorded["start"], now["start"])):
        yield from starts  # from where its values are others too
    elif recorded["points"] != now["points"] or recorded["precision"] != now["precision"]:
        yield "it was looked at in other points"
    else:
        yield from _values(recorded, now)


def _constants(recorded: Fingerprint, now: Fingerprint, elsewhere: bool) -> Iterator[str]:
    if recorded["program"] != now["program"] or len(recorded["arrays"]) != len(now["arrays"]):
        yield "it computes otherwise"
        return
    numbers = [
        (theirs, ours)
        for theirs, ours in zip(recorded["numbers"], now["numbers"], strict=True)
        if theirs != ours and not (elsewhere and _close(complex(theirs), complex(ours)))
    ]
    if numbers:
        yield f"a number in it was {numbers[0][0]}, now {numbers[0][1]}"
    for theirs, ours in zip(recorded["arrays"], now["arrays"], strict=True):
        if theirs["sha256"] == ours["sha256"] and theirs["shape"] == ours["shape"]:
            continue
        if theirs["shape"] == ours["shape"] and elsewhere and theirs["sketch"] and ours["sketch"]:
            apart = np.abs(np.subtract(theirs["sketch"], ours["sketch"])).max()
            if apart <= ROUNDING * theirs["sketch"][0]:
                continue
        yield f"an array of {theirs['dtype']} of shape {tuple(theirs['shape'])} in it has other values or another shape"
        return


def _close(one: complex, other: complex) -> bool:
    return abs(one - other) <= ROUNDING * abs(one)


def _values(recorded: Fingerprint, now: Fingerprint) -> Iterator[str]:
    before, today = (np.array(one["values"], dtype=np.float64) for one in (recorded, now))
    if before.shape != today.shape:
        yield "it has values of another shape"
        return
    finite = np.where(np.isfinite(before), np.abs(before), 0.0)
    size = np.maximum(finite, np.sqrt(np.mean(finite**2, axis=(0, 1))))
    with np.errstate(invalid="ignore"):
        alike = (before == today) | (np.abs(before - today) <= TOLERANCE[now["precision"]] * size)
    alike |= np.isnan(before) & np.isnan(today)
    if alike.all():
        return
    k, n, which = (int(index) for index in np.argwhere(~alike)[0])
    name = ("eastward drift", "northward drift", "eastward diffusion", "northward diffusion")[which]
    t, lon, lat = recorded["points"][n][:3]
    theirs, ours = (one[k, n, which] for one in (before, today))
    yield f"its {name} at t {t:g} s, lon, lat {lon:g}, {lat:g} was {theirs:.6g}, now {ours:.6g}"


def _starts(before: list[Mapping[str, Any]], today: list[Mapping[str, Any]]) -> Iterator[str]:
    if [leaf["shape"] for leaf in before] != [leaf["shape"] for leaf in today]:
        yield f"it has other parameters ({_listed(before)}; now {_listed(today)})"
        return
    for theirs, ours in zip(before, today, strict=True):
        if theirs["sha256"] != ours["sha256"] and not np.allclose(
            theirs["numbers"], ours["numbers"], rtol=ROUNDING, atol=0.0
        ):
            began, begins = _first(theirs["numbers"]), _first(ours["numbers"])
            yield f"parameter {ours['name']} was trained from {began}, and starts now at {begins}"
            return


def _listed(leaves: list[Mapping[str, Any]]) -> str:
    return ", ".join(f"{leaf['name']} {tuple(leaf['shape'])}" for leaf in leaves[:5])


def _first(numbers: list[float]) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers[:3]) + (", ..." if len(numbers) > 3 else "")


def _changed_files(before: Mapping[str, str], today: Mapping[str, str]) -> list[str]:
    """Names of modules whose files differ, are new or are missing."""
    return sorted(name for name in before.keys() | today.keys() if before.get(name) != today.get(name))


def points_of(recorded: Fingerprint, where: str) -> list[list[float]]:
    """The points at which a term was evaluated.

    Raises:
        ConfigError: `where`, they are damaged.
    """
    points = recorded.get("points")
    if not isinstance(points, list) or not points or np.shape(points) != (len(points), NUMBERS):
        raise ConfigError(f"{where}: what it says of the function that it calibrated is damaged. Train again.")
    return points
