"""Which variable of a source plays which role (`lat`, `u`, `id`, ...).

Products name the same thing differently and mostly without a `standard_name`, so roles are resolved by a table of
aliases that the manifest's `variables` overrides. A table is a tuple of tiers: the first tier with a match decides,
and two matches inside one tier are an error, because a guess between them would go unnoticed. Currents whose names
are unknown are resolved by their CF standard names.
"""

from collections.abc import Sequence

import xarray as xr

from shared.errors import DataError

Tiers = tuple[tuple[str, ...], ...]
"""Aliases of one role, best tier first."""

DRIFTER_TIERS: dict[str, Tiers] = {
    # `id` often numbers segments of a track while `drifter_id` names the buoy (the hourly GDP subsets do so), and
    # the split must be by buoy: hence the order.
    "id": (
        ("drifter_id", "buoy_id", "platform_id"),
        ("id",),
        ("ids",),
        ("traj_id", "trajectory", "trajectory_id"),
    ),
    "time": (("time",), ("obs_time",)),
    "lat": (("lat", "latitude"),),
    "lon": (("lon", "longitude"),),
    "rowsize": (("rowsize", "row_size"),),
    "gap": (("gap",),),
    "drogue": (("drogue_status",), ("drogue_lost_date",)),
}
"""Aliases of the roles of a drifter source."""

CURRENT_TIERS: dict[str, Tiers] = {
    "u": (("u", "uo", "ug", "ugos", "ucos", "eastward_eulerian_current_velocity", "eastward_sea_water_velocity"),),
    "v": (("v", "vo", "vg", "vgos", "vcos", "northward_eulerian_current_velocity", "northward_sea_water_velocity"),),
    "time": (("time",),),
    "lat": (("lat", "latitude"),),
    "lon": (("lon", "longitude"),),
}
"""Aliases of the roles of a source of currents; `ugosa`/`vgosa` are anomalies and deliberately absent."""

STANDARD_NAMES = {
    role: frozenset(
        f"{surface}{kind}{direction}ward_sea_water_velocity"
        for surface in ("", "surface_")
        for kind in ("", "geostrophic_", "cyclogeostrophic_")
    )
    for role, direction in (("u", "east"), ("v", "north"))
} | {"lat": frozenset(["latitude"]), "lon": frozenset(["longitude"]), "time": frozenset(["time"])}
"""CF standard names of the roles, for currents whose names are unknown. Anomalies go by other, longer names."""

_ANOMALIES = {"u": "ugosa", "v": "vgosa"}


def resolve(dataset: xr.Dataset, role: str, tiers: Tiers, given: str | None, where: str) -> str | None:
    """Name of the variable (or coordinate) of `dataset` that plays `role`.

    Args:
        dataset: the opened source.
        role: the role's name, as in the manifest's `variables`.
        tiers: aliases of the role, best tier first; compared without regard to case.
        given: the name that the manifest's `variables` gives, which wins; None where it gives none.
        where: what the source is in errors: `drifters <path>` or `currents <path>`; the first word names the manifest's
            section.

    Returns:
        The name, or None where no alias is there.

    Raises:
        DataError: `given` is not there, two names fit one tier, or only anomalies of the currents are there.
    """
    names = [str(name) for name in dataset.variables]
    setting = _setting(role, where)
    if given is not None:
        if given not in names:
            raise DataError(
                f"{where}: {setting} names {given!r}, which is not there; found {listing(names)}. Correct the manifest."
            )
        return given
    for tier in tiers:
        found = [name for name in names if name.lower() in tier]
        if len(found) > 1:
            raise DataError(
                f"{where}: {' and '.join(repr(name) for name in found)} could both be the {role!r} variable; "
                f"expected one. Say which: set {setting} in the manifest."
            )
        if found:
            return found[0]
    anomaly = _ANOMALIES.get(role)
    if anomaly is not None and anomaly in (name.lower() for name in names):
        raise DataError(
            f"{where}: found {anomaly!r} but no absolute current for {role!r}: these are anomalies about the mean "
            f"circulation, not currents. Use a product with {anomaly[:-1]!r}, or set {setting} to a current."
        )
    return None


def require(dataset: xr.Dataset, role: str, tiers: Tiers, given: str | None, where: str) -> str:
    """As `resolve`, for a role that must be there."""
    name = resolve(dataset, role, tiers, given, where)
    if name is None:
        aliases = [alias for tier in tiers for alias in tier]
        raise DataError(
            f"{where}: no {role!r} variable under any known name ({', '.join(aliases)}); "
            f"found {listing([str(n) for n in dataset.variables])}. Set {_setting(role, where)} in the manifest."
        )
    return name


def require_current(dataset: xr.Dataset, role: str, given: str | None, where: str) -> str:
    """As `require`, for a source of currents: by its CF standard name where no alias is there, and never an anomaly."""
    known = {alias for tier in CURRENT_TIERS[role] for alias in tier}
    if given is None and not any(str(name).lower() in known for name in dataset.variables):
        named = [
            str(name)
            for name, variable in dataset.variables.items()
            if variable.attrs.get("standard_name") in STANDARD_NAMES[role]
        ]
        if len(named) > 1:
            raise DataError(
                f"{where}: {' and '.join(map(repr, named))} could both be the {role!r} variable by their "
                f"standard_name; expected one. Say which: set {_setting(role, where)} in the manifest."
            )
        if named:
            return named[0]
    name = require(dataset, role, CURRENT_TIERS[role], given, where)
    standard = str(dataset.variables[name].attrs.get("standard_name", ""))
    if standard.endswith("assuming_sea_level_for_geoid") or name.lower() in _ANOMALIES.values():
        raise DataError(
            f"{where}: {name!r} holds anomalies about the mean circulation, not currents. "
            f"Use the absolute velocity, or set {_setting(role, where)} to it."
        )
    return name


def check_components(dataset: xr.Dataset, u: str, v: str, where: str) -> None:
    """Refuses a current whose components are one variable, or by their own names the other's.

    Raises:
        DataError: they are.
    """
    if u == v:
        raise DataError(
            f"{where}: u and v are both {u!r}; expected the eastward and the northward component. Set "
            f"{_setting('u', where)} and {_setting('v', where)} in the manifest."
        )
    for role, name, wrong in (("u", u, "northward"), ("v", v, "eastward")):
        said = f"{name} {dataset.variables[name].attrs.get('standard_name', '')}".lower()
        if wrong in said and {"northward": "eastward", "eastward": "northward"}[wrong] not in said:
            raise DataError(
                f"{where}: {role!r} is {name!r}, the {wrong} component ({said.strip()}). u is eastward and v is "
                f"northward: exchange {_setting('u', where)} and {_setting('v', where)} in the manifest."
            )


def _setting(role: str, where: str) -> str:
    section = where.partition(" ")[0]
    return f"{section}.variables.{role}" if section in ("drifters", "currents") else f"variables.{role}"


def listing(names: Sequence[str], most: int = 20) -> str:
    """`names` for an error message, at most `most` of them."""
    shown = ", ".join(names[:most]) or "no variables"
    return shown + (f", ... ({len(names)} in all)" if len(names) > most else "")
