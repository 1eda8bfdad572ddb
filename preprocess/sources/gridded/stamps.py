"""Time stamps of levels: the instant that a level of currents represents.

A mean represents the middle of its averaging interval, but products stamp means at the start, middle or end of it, and
in CF only `bounds` tells which. Times are whole seconds since 1970-01-01.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Int64

from driftcal.preprocess.recipe import DAY
from driftcal.preprocess.sources.encoding import decode
from driftcal.preprocess.sources.gridded.axes import level_times
from driftcal.preprocess.sources.gridded.coordinates import KEPT, range_notes, stored, without_fill, without_range
from driftcal.preprocess.sources.times import NO_TIME, remarks, seconds
from driftcal.shared.errors import DataError

COARSE = DAY // 4
"""Least step [s] of levels that are as often means as instants, so that a stamp may be half a step off."""

_INTERVAL = {"average": "mean", "ave": "mean", "inst": "point", "instant": "point"}
"""Operations of XIOS and NEMO by the CF method that they are."""


@dataclass(frozen=True)
class Stamps:
    """Times of the levels of one file.

    Attributes:
        time: Instants that the levels represent, int64 `(n,)`.
        kind: `mean` or `point` as `cell_methods` say, without bounds; `known` where bounds or the manifest say when;
            None where nothing tells.
        notes: Notes on how they were read, without their source.
        shifted: True if bounds have moved them.
        climatology: True for means over several years.
    """

    time: Int64[np.ndarray, " n"]
    kind: Literal["mean", "point", "known"] | None
    notes: tuple[str, ...]
    shifted: bool = False
    climatology: bool = False


def read(
    dataset: xr.Dataset, name: str, components: Sequence[str], stated: str | None, shift: int | None, path: str
) -> Stamps:
    """Stamps of the levels of one opened file.

    Args:
        dataset: The file.
        name: Name of its time variable.
        components: Names of the currents, whose `cell_methods` say what a level is.
        stated: Units of time that the manifest states; None: those of the file.
        shift: Shift that the manifest adds to all times [s]; None: nothing is stated.
        path: The file, for messages.

    Raises:
        DataError: times or their bounds that cannot be read.
    """
    variable, where = dataset.variables[name], f"currents {path}: {name}"
    attributes = without_range(variable.attrs) | ({"units": stated} if stated else {})
    raw = stored(variable, name, path)
    notes = [*remarks(attributes), *(f"{name} {note}" for note in range_notes(raw, variable.attrs, where))]
    if raw.dtype.kind in "iuf" and (lost := np.isnan(decode(raw, attributes, where))).any():
        plain = without_fill(raw, attributes, where)
        if plain is not None:
            attributes = plain
            notes.append(f"{name} {KEPT.format(raw[lost][0])}")
    time = level_times(raw, attributes, where)
    climatology = "climatology" in variable.attrs
    if shift is not None:
        if shift:
            notes.append(f"times shifted by {duration(shift)} (currents.time_shift)")
        return Stamps(time + shift, "known", tuple(notes), climatology=climatology)
    middle, more = _middles(dataset, name, attributes, time, path)
    notes += more
    if middle is None:
        return Stamps(time, _kind(dataset, name, components), tuple(notes), climatology=climatology)
    return Stamps(middle, "known", tuple(notes), shifted=bool((middle != time).any()), climatology=climatology)


def check(files: Sequence[Stamps], paths: Sequence[str], where: str) -> None:
    """Refuses files of which some are shifted by their bounds and others have none to say whether they should be.

    Raises:
        DataError: they are such.
    """
    unknown = [path for path, stamps in zip(paths, files, strict=True) if stamps.kind != "known"]
    shifted = [path for path, stamps in zip(paths, files, strict=True) if stamps.shifted]
    if unknown and shifted:
        raise DataError(
            f"{where}: the bounds of time shift the levels of {shifted[0]}, but {unknown[0]} has none that can be "
            "used. Set currents.time_shift in the manifest to what is to be added to the stamps of all files, such as "
            "12h where days are stamped at their start: then bounds are not read."
        )


def remark(files: Sequence[Stamps], time: Int64[np.ndarray, " nt"], step: int) -> list[str]:
    """Notes, without their source, on stamps that may be half a step off.

    Args:
        files: Files of the record.
        time: Its levels [s], `(nt,)`.
        step: Step between them [s].
    """
    kinds = {stamps.kind for stamps in files}
    climatology = any(stamps.climatology for stamps in files)
    notes = ["WARNING: levels are means over several years (attribute `climatology`), which no drifter met"]
    return [*notes[: int(climatology)], *_half_a_step(kinds, time, step)]


def _half_a_step(kinds: set[Any], time: Int64[np.ndarray, " nt"], step: int) -> list[str]:
    if not kinds & {"mean", None} or (time % min(step, DAY)).any():
        return []  # stated, or in the middle of a step
    at = "00:00" if step >= DAY else f"whole multiples of {duration(step)}"
    half = duration(step // 2)
    if "mean" in kinds:
        return [
            f"WARNING: by their cell_methods levels are means over time, stamped at {at}, and no bounds tell whether "
            "that is the start, the middle or the end of what they average; taken for the middle. Set "
            f"currents.time_shift: {half} if it is the start, -{half} if it is the end, 0h if it is the middle"
        ]
    if step < COARSE:
        return []
    every = "day" if step == DAY else duration(step)
    return [
        f"levels are stamped at {at}, and neither bounds nor cell_methods tell what they are; taken for the instant. "
        f"Set currents.time_shift: {half} if they are means over the {every} that begins then (as `copernicusmarine "
        "subset` writes those of models), 0h if the stamps are right (as those of DUACS maps are)"
    ]


def duration(seconds_: int) -> str:
    """A duration as the manifest takes it."""
    return f"{seconds_ // 3600}h" if seconds_ % 3600 == 0 else f"{seconds_}s"


def _middles(
    dataset: xr.Dataset, name: str, attributes: Mapping[str, Any], time: Int64[np.ndarray, " n"], path: str
) -> tuple[Int64[np.ndarray, " n"] | None, list[str]]:
    """Middles of the bounds of every level [s], and notes; None where there are no bounds, or none that can be used."""
    bounds = _bounds_of(dataset, name, attributes)
    if bounds is None:
        return None, []
    if bounds not in dataset.variables:
        return None, [f"the bounds of time, {bounds!r}, are not in the file"]
    variable, ignored = dataset.variables[bounds], f"bounds of time {bounds!r} are not used:"
    along = dataset.variables[name].dims
    if along and set(along) < set(variable.dims):
        variable = variable.transpose(*along, ...)  # some are written with the ends first
    if variable.size != 2 * time.size or (variable.ndim and variable.shape[-1] != 2):
        return None, [f"WARNING: {ignored} they are on {dict(variable.sizes)}, not two for each of {time.size} times"]
    own = without_range(variable.attrs)
    inherited = {key: attributes[key] for key in ("units", "calendar") if key in attributes}
    try:
        ends = seconds(stored(variable, bounds, path), inherited | own, f"currents {path}: {bounds}").reshape(-1, 2)
    except DataError as error:
        raise DataError(f"{error} Or set currents.time_shift in the manifest: then bounds are not read.") from error
    first, last = ends.min(axis=1), ends.max(axis=1)
    if (ends == NO_TIME).any():
        return None, [f"WARNING: {ignored} they are missing in part"]
    if ((time < first - 1) | (time > last + 1)).any():
        return None, [
            f"WARNING: {ignored} the stamps do not lie within them. Set currents.time_shift to 0h if the stamps are "
            "right, or to what makes them so"
        ]
    middle = first + (last - first) // 2
    if np.unique(middle).size != np.unique(time).size:
        return None, [f"WARNING: {ignored} several levels have the same middle"]
    shifts = middle - time
    if (np.abs(shifts) <= 1).all():
        return time, []
    least, most = int(shifts.min()), int(shifts.max())
    by = duration(most) if least == most else f"{duration(least)} to {duration(most)}"
    return middle, [f"levels stand for the middle of their bounds {bounds!r}: times shifted by {by}"]


def _bounds_of(dataset: xr.Dataset, name: str, attributes: Mapping[str, Any]) -> str | None:
    """Name of the bounds of time; some tools lose the attribute and keep the variable."""
    if given := attributes.get("bounds"):
        return str(given).strip()
    return next((other for other in (f"{name}_bnds", f"{name}_bounds") if other in dataset.variables), None)


def _kind(dataset: xr.Dataset, name: str, components: Sequence[str]) -> Literal["mean", "point"] | None:
    """Kind of the levels by the components' attributes; `mean` for every statistic over time."""
    names = {"time", name.lower(), *(str(dim).lower() for dim in dataset.variables[name].dims)}
    kinds = {_method(dataset.variables[component].attrs, names) for component in components}
    if "mean" in kinds:
        return "mean"
    return "point" if "point" in kinds else None


def _method(attributes: Mapping[str, Any], names: set[str]) -> Literal["mean", "point"] | None:
    text = re.sub(r"\([^)]*\)", "", str(attributes.get("cell_methods", ""))).lower()
    for match in re.finditer(r"((?:\w+\s*:\s*)+)(\w+)", text):
        if names & set(re.findall(r"(\w+)\s*:", match[1])):
            return "point" if match[2] == "point" else "mean"
    operation = re.match(r"[a-z]*", str(attributes.get("online_operation", "")).lower())
    kind = _INTERVAL.get(operation[0] if operation else "")
    return "mean" if kind == "mean" else "point" if kind == "point" else None
