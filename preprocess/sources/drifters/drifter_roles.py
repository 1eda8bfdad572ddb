"""Roles of the variables or columns of a drifter source (`id`, `time`, `lat`, `drogue`, ...).

Names are looked up in a table of aliases, then in the CF attributes (`standard_name`, `axis`, `cf_role`,
`sample_dimension`, `instance_dimension`); the manifest's `variables` overrides both. An id may also be a global
attribute of a file, or be missing, where the file holds one drifter.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from driftcal.preprocess.recipe import DrifterSource
from driftcal.preprocess.sources.drifters.quality import FLAGS
from driftcal.preprocess.sources.units import angle_way, units_of
from driftcal.preprocess.sources.variable_roles import Tiers, listing
from driftcal.shared.errors import DataError
from driftcal.shared.text import listed

Attributes = Mapping[str, Any]

TIERS: dict[str, Tiers] = {
    # `id` often numbers segments of a track while `drifter_id` names the buoy (the hourly GDP subsets do so), and
    # the split must be by buoy: hence the order.
    "id": (
        ("drifter_id", "buoy_id", "platform_id"),
        ("id",),
        ("ids",),
        ("traj_id", "trajectory", "trajectory_id"),
        ("drifter", "buoy", "drifter_name", "drifter_names", "buoy_name"),
        ("spotterid", "spotter_id"),
        ("wmo", "wmo_id", "wmo_number", "platform_code", "platform_number"),
        ("imei", "deviceid", "device_id", "device", "instrument", "instrument_id", "device_name"),
        ("drifterid", "buoyid", "platformid", "trajectoryid"),
        ("particle_id", "particle", "traj", "track_id", "platform", "unit_id", "serial_number"),
        ("name",),
    ),
    # Beside a column that says UTC the plain name is mostly local time.
    "time": (
        ("time_utc", "datetime_utc", "date_time_utc", "timestamp_utc", "utc_time"),
        ("time",),
        ("obs_time",),
        ("datetime", "date_time", "timestamp"),
        ("gps_time", "fix_time", "time_stamp", "position_time", "juld"),
        ("date", "dates", "date_utc"),
        ("unix", "unix_time", "unixtime", "unix_epoch", "epoch", "epoch_time", "epochtime"),
    ),
    "lat": (
        ("lat", "latitude"),
        ("lat_deg", "latitude_deg", "latitude_degrees", "lat_degrees", "lat_dd", "decimal_latitude", "decimallatitude"),
        ("gps_lat", "gps_latitude", "lats", "latitudes"),
    ),
    "lon": (
        ("lon", "longitude"),
        ("long", "lng"),
        ("lon_deg", "longitude_deg", "longitude_degrees", "lon_degrees", "lon_dd", "decimal_longitude",
         "decimallongitude"),
        ("gps_lon", "gps_longitude", "lons", "longitudes"),
    ),
    "rowsize": (("rowsize", "row_size"),),
    "gap": (("gap",),),
    "drogue": (("drogue_status",),),
    "drogue_lost_date": (("drogue_lost_date",),),
    **{flag: ((flag,),) for flag in FLAGS},
}  # fmt: skip
"""Aliases of the roles, best tier first; compared in lower case, with `_` for blanks, hyphens and dots."""

NEEDED = ("time", "lat", "lon")
"""Roles that a source cannot be read without."""

OPTIONAL = ("rowsize", "gap", "drogue", "drogue_lost_date", *FLAGS)

SCALAR_TIERS = 4
"""Tiers of ids that a variable without a dimension may have: there `platform` and `instrument` describe only."""

ID_ATTRIBUTES = ("platform_code", "wmo_platform_code", "wmo_id", "wmo", "buoy_id", "drifter_id", "spotter_id",
                 "spotterId", "platform_id", "trajectory_id", "imei", "id")  # fmt: skip
"""Global attributes that name the drifter of a file with only one, best first."""

_STANDARD = {
    "time": ("standard_name", "time", "axis", "T"),
    "lat": ("standard_name", "latitude", "axis", "Y"),
    "lon": ("standard_name", "longitude", "axis", "X"),
}
"""CF attribute of a role and its value, and the attribute that decides among several."""


_DROGUE = re.compile(
    r"(?:(?:is|has|date|time)_)?(?:un)?drogued?(?:_?(?:on|off|lost|loss|attached|detached|present|presence|state|status"
    r"|flag|date|time|day|removed|removal|detachment))*"
)
"""Names of variables that may give the state of the drogue, or the date of its loss; not its type, depth or sensor."""

_DROGUE_LOST = re.compile("lost|loss|off|undrogued|detach|remov")


def resolve(
    variables: Mapping[str, Attributes], source: DrifterSource, where: str, scalars: Sequence[str] = ()
) -> dict:
    """Variable of each role that is there.

    Args:
        variables: Attributes of every variable of the file, by name.
        source: The source, whose `variables` name roles.
        where: The file, for messages.
        scalars: Variables without a dimension, which play a part other than position and time only if the manifest
            says so.

    Raises:
        DataError: A name that the manifest gives is not there, two fit equally, or a role that is needed is missing.
    """
    given = source.variables
    stated: dict[str, str] = {str(role): name for role, name in given.items()}
    unknown = [f"drifters.variables.{role} names {name!r}" for role, name in given.items() if name not in variables]
    if unknown:
        raise DataError(
            f"{where}: {', '.join(unknown)}, which is not there; found {listing(list(variables))}. "
            "Correct the manifest."
        )
    vectors = {name: attributes for name, attributes in variables.items() if name not in scalars}
    names: dict[str, str] = {}
    for role in (*NEEDED, "id", *OPTIONAL):
        among = variables if role in NEEDED else vectors
        name = stated.get(role) or _by_alias(role, among, where) or _by_attribute(role, among, where)
        if name is None and role == "id":
            # a scalar is left over from selecting one trajectory: it names the drifter where nothing else does
            name = _by_alias(role, variables, where, TIERS[role][:SCALAR_TIERS])
        if name is not None:
            names[role] = name
    missing = [role for role in NEEDED if role not in names]
    if missing:
        roles = missing if "id" in names else [*missing, "id"]
        raise DataError(absent(roles, variables, where, list(names.values())))
    _check_drogue(names, variables, source, where)
    if "drogue_lost_date" not in given and "drogue" in given and _is_date(names["drogue"], variables):
        names["drogue_lost_date"] = names.pop("drogue")
    elif "drogue" in names and "drogue_lost_date" in names:
        names.pop("drogue" if "drogue_lost_date" in given else "drogue_lost_date")
    return names


def _check_drogue(
    names: Mapping[str, str], variables: Mapping[str, Attributes], source: DrifterSource, where: str
) -> None:
    """Refuses a variable that may give the state of the drogue in an unknown encoding.

    Raises:
        DataError: Such a variable plays no role, or its name says the reverse of the role that the manifest gives it.
    """
    status = source.variables.get("drogue")
    if status is not None and _DROGUE_LOST.search(plain(status)) and not _is_date(status, variables):
        raise DataError(
            f"{where}: drifters.variables.drogue is {status!r}, which by its name is true where the drogue is lost; "
            "expected the reverse. If it is the date of the loss, set drifters.variables.drogue_lost_date to it; if "
            "not, write a column `drogue_status` that is 1 where the drogue is on and 0 where it is lost."
        )
    fits = [name for name in variables if _DROGUE.fullmatch(plain(name))]
    if fits and source.drogue != "any" and not {"drogue", "drogue_lost_date"} & set(names):
        raise DataError(
            f"{where}: {' and '.join(map(repr, fits))} may tell the state of the drogue, and the name does not say "
            "how. Set drifters.variables.drogue to what is 1 or true where the drogue is on, or "
            "drifters.variables.drogue_lost_date to the date on which it was lost; or drifters.drogue: any, to use all "
            "fixes."
        )


def _is_date(name: str, variables: Mapping[str, Attributes]) -> bool:
    """Tells whether a variable that the manifest gives for the drogue is the date of its loss."""
    return " since " in (units_of(variables[name]) or "") or bool(re.search("date|time", plain(name)))


LIKE = 0.7
"""Names so much alike are proposed for one another: `Breite` is not for `drifter`."""


def absent(roles: Sequence[str], variables: Mapping[str, Attributes], where: str, taken: Sequence[str] = ()) -> str:
    """Message on all roles without a variable, with lines for the manifest.

    Args:
        roles: The roles.
        variables: All that is there.
        where: The file.
        taken: Variables that play other roles.
    """
    lacks = " and ".join(f"no {role!r} variable under any known name ({_aliases(role)})" for role in roles)
    settings = ", ".join(f"drifters.variables.{role}" for role in roles)
    free = [name for name in variables if name not in taken]
    if "time" in roles and {"year", "month"} <= {plain(name) for name in variables}:
        return (
            f"{where}: {lacks}; found {listing(list(variables))}. Years, months and days in columns of their own are "
            "not read: write one column `time` such as 2010-01-31T06:00:00Z."
        )
    likely = _likely(roles, {name: variables[name] for name in free})
    guesses = ", ".join(f"{role}: {likely.get(role, 'NAME')}" for role in roles)
    return (
        f"{where}: {lacks}; found {listing(list(variables))}. Set {settings} in the manifest, to names that are there: "
        f"variables: {{{guesses}}}."
    )


def _aliases(role: str, most: int = 8) -> str:
    aliases = [alias for tier in TIERS[role] for alias in tier]
    return listed(aliases, most)


def plain(name: str) -> str:
    """A name as aliases are compared: in lower case, with `_` for blanks, hyphens, dots and slashes."""
    return re.sub(r"[\s\-./]+", "_", name.strip().lower())


def _by_alias(role: str, variables: Mapping[str, Attributes], where: str, tiers: Tiers | None = None) -> str | None:
    for tier in TIERS[role] if tiers is None else tiers:
        fits = [name for name in variables if plain(name) in tier]
        if len(fits) > 1:
            raise DataError(_ambiguous(role, fits, where))
        if fits:
            return fits[0]
    return None


def _by_attribute(role: str, variables: Mapping[str, Attributes], where: str) -> str | None:
    """The variable that the CF attributes give the role."""
    if role == "rowsize":
        fits = [name for name, attributes in variables.items() if "sample_dimension" in attributes]
    elif role == "id":
        fits = [name for name, attributes in variables.items() if attributes.get("cf_role") == "trajectory_id"]
    elif role in _STANDARD:
        standard, value, axis, letter = _STANDARD[role]
        fits = [name for name, attributes in variables.items() if attributes.get(standard) == value]
        on_axis = [n for n, attributes in variables.items() if attributes.get(axis) == letter and n in (fits or [n])]
        fits = on_axis if len(fits) != 1 and len(on_axis) == 1 else fits or on_axis
    else:
        return None
    if len(fits) > 1:
        raise DataError(_ambiguous(role, fits, where))
    return fits[0] if fits else None


def _ambiguous(role: str, fits: Sequence[str], where: str) -> str:
    return (
        f"{where}: {' and '.join(map(repr, fits))} could both be the {role!r} variable; expected one. Say which: set "
        f"drifters.variables.{role} in the manifest."
    )


def _likely(roles: Sequence[str], variables: Mapping[str, Attributes]) -> dict[str, str]:
    """Variables that could play the roles, each for one at most: by their units, else by their names."""
    scored = sorted(
        ((_likeness(role, name, variables[name]), role, name) for role in roles for name in variables), reverse=True
    )
    chosen: dict[str, str] = {}
    for score, role, name in scored:
        if score >= LIKE and role not in chosen and name not in chosen.values():
            chosen[role] = name
    return chosen


def _likeness(role: str, name: str, attributes: Attributes) -> float:
    """Similarity of a variable to a typical one of the role, from 0 to 1."""
    if way := angle_way(units_of(attributes)):
        return float(role == ("lat" if way in "ns" else "lon"))
    aliases = [alias for tier in TIERS[role] for alias in tier]
    return max(difflib.SequenceMatcher(None, plain(name), alias).ratio() for alias in aliases)
