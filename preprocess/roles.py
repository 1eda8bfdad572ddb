"""Which variable of a source plays which role (`lat`, `id`, ...); those of currents are in `current_roles`.

Products name the same thing differently and mostly without a `standard_name`, so roles are resolved by a table of
aliases that the manifest's `variables` overrides. A table is a tuple of tiers: the first tier with a match decides,
and two matches inside one tier are an error, because a guess between them would go unnoticed.
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
        DataError: `given` is not there, or two names fit one tier.
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


def _setting(role: str, where: str) -> str:
    section = where.partition(" ")[0]
    return f"{section}.variables.{role}" if section in ("drifters", "currents") else f"variables.{role}"


def listing(names: Sequence[str], most: int = 20) -> str:
    """`names` for an error message, at most `most` of them."""
    shown = ", ".join(names[:most]) or "no variables"
    return shown + (f", ... ({len(names)} in all)" if len(names) > most else "")
