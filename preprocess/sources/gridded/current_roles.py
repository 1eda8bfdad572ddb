"""Roles of the variables of a record of currents: `u`, `v`, `time`, `lat` and `lon`.

Names come from the manifest, else from tables of aliases, else from the CF attributes of a variable. One message lists
all roles that are missing or ambiguous. Anomalies, winds, waves and ice are never taken for currents by their names.
"""

import re
from collections.abc import Callable, Mapping

import xarray as xr

from driftcal.preprocess.sources.gridded.coordinates import elsewhere_of
from driftcal.preprocess.sources.units import angle_way, units_of
from driftcal.preprocess.sources.variable_roles import listing
from driftcal.shared.errors import DataError

COMPONENTS: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        ("u", "v"),
        ("uo", "vo"),
        ("ug", "vg"),
        ("ugos", "vgos"),
        ("ucos", "vcos"),
        ("eastward_eulerian_current_velocity", "northward_eulerian_current_velocity"),
        ("eastward_sea_water_velocity", "northward_sea_water_velocity"),
    ),
    (
        ("water_u", "water_v"),  # HYCOM, HF radar
        ("vozocrtx", "vomecrty"),  # NEMO
        ("u_eastward", "v_northward"),  # ROMS
        ("u_geo", "v_geo"),
        ("ssu", "ssv"),
        ("surf_u", "surf_v"),
        ("uvel", "vvel"),
        ("u_velocity", "v_velocity"),
        ("u_current", "v_current"),
        ("u_320", "v_321"),  # EPIC
        ("u_1205", "v_1206"),
    ),
)
"""Aliases of both components, which go together; the first tier with a match decides. `ugosa` and `vgosa` are
anomalies and deliberately absent, as are names that wind and waves go by."""

AXES: dict[str, tuple[tuple[str, ...], ...]] = {
    "time": (("time",), ("time_counter", "ocean_time", "mt")),
    "lat": (("lat", "latitude"), ("nav_lat", "lat_rho", "yt_ocean", "yu_ocean")),
    "lon": (("lon", "longitude"), ("nav_lon", "lon_rho", "xt_ocean", "xu_ocean")),
}
"""Aliases of the axes, likewise."""

STANDARD_NAMES = {
    role: frozenset(
        f"{surface}{kind}{direction}ward_sea_water_velocity"
        for surface in ("", "surface_")
        for kind in ("", "geostrophic_", "cyclogeostrophic_")
    )
    for role, direction in (("u", "east"), ("v", "north"))
} | {"lat": frozenset(["latitude"]), "lon": frozenset(["longitude"]), "time": frozenset(["time"])}
"""CF standard names of the roles, for names that are unknown. Anomalies go by other, longer names."""

ROLES = ("u", "v", "time", "lat", "lon")

_ANOMALIES = {"u": "ugosa", "v": "vgosa"}
_PARTNER = {"u": "v", "v": "u"}
_OTHERWISE = re.compile(
    r"ward_wind|[xy]_wind|component of wind|wind (speed|velocity|component)|stokes|sea_ice|velocity anomal|_stress",
    re.IGNORECASE,
)
"""Words in the standard or long name of something that is no current, though it may be called u."""


def resolve(dataset: xr.Dataset, given: Mapping[str, str], where: str) -> dict[str, str]:
    """Names of the variables of `dataset` by role.

    Args:
        dataset: The opened file.
        given: Names by role of the manifest's `variables`, which win.
        where: `currents <path>`, for messages.

    Raises:
        DataError: roles that nothing or several variables could play, all of them in one message; anomalies; or
            components that are one, or exchanged.
    """
    if not dataset.variables:
        raise DataError(
            f"{where}: there are no variables at the top, where they are looked for. If they are in a group, give it: "
            "of a zarr store by its path, STORE/GROUP; of a NetCDF file (ncdump -h lists groups) taken out with "
            "ncks -G : -g GROUP IN OUT."
        )
    names: dict[str, str] = {}
    lacking: list[str] = []
    problems: list[str] = []
    for role in ROLES:
        candidates = [given[role]] if role in given else _candidates(dataset, role, given)
        if role in given and given[role] not in dataset.variables:
            problems.append(f"currents.variables.{role} names {given[role]!r}, which is not there")
        elif len(candidates) > 1:
            both = " and ".join(map(repr, candidates))
            problems.append(f"{both} could both be the {role!r} variable, expected one")
        elif candidates:
            names[role] = candidates[0]
        elif (anomaly := _ANOMALIES.get(role, "")) in (str(name).lower() for name in dataset.variables):
            raise DataError(
                f"{where}: found {anomaly!r} but no absolute current for {role!r}: these are anomalies about the mean "
                f"circulation, not currents. Use a product with {anomaly[:-1]!r}, or set currents.variables.{role} to "
                "a current."
            )
        else:
            lacking.append(role)
    if lacking:
        aliases = f" ({', '.join(_aliases(lacking[0]))})" if len(lacking) == 1 else ""
        problems.insert(0, ", ".join(f"no {role!r} variable" for role in lacking) + f" under any known name{aliases}")
    if problems:
        raise DataError(f"{where}: {'; '.join(problems)}. {_advice(dataset, names)}")
    _check(dataset, names, given, where)
    return names


def _advice(dataset: xr.Dataset, names: Mapping[str, str]) -> str:
    """Names in the file, and the line of the manifest that assigns them."""
    there = [f"{name} ({', '.join(map(str, variable.dims))})" for name, variable in dataset.variables.items()]
    unknown = [role for role in ROLES if role not in names]
    settings = ", ".join(f"currents.variables.{role}" for role in unknown)
    elsewhere = [
        f"{name!r} is a coordinate {kind}: turn u and v to east and north and interpolate them to regular latitudes "
        "and longitudes first."
        for name in dataset.variables
        if (kind := elsewhere_of(dataset, str(name))) and {"lat", "lon"} & set(unknown)
    ]
    lines = ", ".join(f"{role}: {names.get(role, 'NAME')}" for role in ROLES)
    names_there = f"Found {listing(there)}."
    if elsewhere:
        return f"{names_there} {elsewhere[0]}"
    return f"{names_there} Set {settings} in the manifest: currents: {{variables: {{{lines}}}}}."


def _candidates(dataset: xr.Dataset, role: str, given: Mapping[str, str]) -> list[str]:
    """Variables that could play `role`, of the best kind that there are any of."""
    if role in _PARTNER:
        best, more = (_components(dataset, role, given, tier) for tier in COMPONENTS)
    else:
        best, more = (_named(dataset, tier) for tier in AXES[role])
    if best:
        return best
    standard = [str(n) for n, v in dataset.variables.items() if v.attrs.get("standard_name") in STANDARD_NAMES[role]]
    return standard or more or _by_convention(dataset, role)


def _named(dataset: xr.Dataset, aliases: tuple[str, ...]) -> list[str]:
    return [str(name) for name in dataset.variables if str(name).lower() in aliases]


def _components(
    dataset: xr.Dataset, role: str, given: Mapping[str, str], pairs: tuple[tuple[str, str], ...]
) -> list[str]:
    """Variables named as a component, those whose partner is there too if there are any."""
    place = ("u", "v").index(role)
    partner = given.get(_PARTNER[role], "").lower()
    if own := _named(dataset, tuple(pair[place] for pair in pairs if pair[1 - place] == partner)):
        return own
    every = _named(dataset, tuple(pair[place] for pair in pairs))
    there = {str(name).lower() for name in dataset.variables}
    whole = _named(dataset, tuple(pair[place] for pair in pairs if set(pair) <= there))
    return whole or every


def _by_convention(dataset: xr.Dataset, role: str) -> list[str]:
    """Variables of one dimension at most that CF's units or axis make the coordinate `role`."""
    fits: dict[str, Callable[[xr.Variable], bool]] = {
        "lat": lambda variable: angle_way(units_of(variable.attrs)) in ("n", "s"),
        "lon": lambda variable: angle_way(units_of(variable.attrs)) in ("e", "w"),
        "time": lambda variable: " since " in (units_of(variable.attrs) or "").lower(),
    }
    if role not in fits:
        return []
    fitting = [str(n) for n, v in dataset.variables.items() if v.ndim <= 1 and v.size and fits[role](v)]
    axes = [name for name in fitting if name in dataset.dims]  # of several, the one that is its own dimension
    return axes if len(axes) == 1 else fitting


def _aliases(role: str) -> list[str]:
    if role in _PARTNER:
        return [pair[("u", "v").index(role)] for tier in COMPONENTS for pair in tier]
    return [alias for tier in AXES[role] for alias in tier]


def _check(dataset: xr.Dataset, names: Mapping[str, str], given: Mapping[str, str], where: str) -> None:
    """Refuses components that are anomalies, something else, one variable, or by their own names each other."""
    u, v = names["u"], names["v"]
    for role in ("u", "v"):
        attributes = dataset.variables[names[role]].attrs
        standard = str(attributes.get("standard_name", ""))
        if standard.endswith("assuming_sea_level_for_geoid") or names[role].lower() in _ANOMALIES.values():
            raise DataError(
                f"{where}: {names[role]!r} holds anomalies about the mean circulation, not currents. "
                f"Use the absolute velocity, or set currents.variables.{role} to it."
            )
        said = f"{standard} {attributes.get('long_name', '')}".strip()
        if role not in given and _OTHERWISE.search(said) and "sea_water_velocity" not in standard:
            raise DataError(
                f"{where}: {names[role]!r} is called as a current is, but calls itself {said!r}. Give currents, or set "
                f"currents.variables.{role} in the manifest if it is one."
            )
    if u == v:
        raise DataError(
            f"{where}: u and v are both {u!r}; expected the eastward and the northward component. Set "
            "currents.variables.u and currents.variables.v in the manifest."
        )
    pairs = [pair for tier in COMPONENTS for pair in tier]
    alone = [side for side, name in enumerate((u, v)) if name.lower() in (pair[side] for pair in pairs)]
    if not given.keys() & {"u", "v"} and alone == [0, 1] and (u.lower(), v.lower()) not in pairs:
        raise DataError(
            f"{where}: {u!r} and {v!r} are not the components of one current by their names. Set currents.variables.u "
            f"and currents.variables.v in the manifest: currents: {{variables: {{u: {u}, v: {v}}}}} if they are."
        )
    for role, name, opposite in (("u", u, "northward"), ("v", v, "eastward")):
        said = f"{name} {dataset.variables[name].attrs.get('standard_name', '')}".lower()
        if opposite in said and {"northward": "eastward", "eastward": "northward"}[opposite] not in said:
            raise DataError(
                f"{where}: {role!r} is {name!r}, the {opposite} component ({said.strip()}). u is eastward and v is "
                "northward: exchange currents.variables.u and currents.variables.v in the manifest."
            )
