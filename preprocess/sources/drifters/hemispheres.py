"""Hemispheres that stand in columns beside positions without a sign, as NMEA and modems write them."""

import re
from collections.abc import Mapping, Sequence

from driftcal.preprocess.sources.drifters.dialect import Dialect
from driftcal.preprocess.sources.drifters.drifter_roles import plain
from driftcal.shared.errors import DataError

_NAMES = re.compile(r"hemi|lat|lon|ind(?:icator)?$|^n_?s\b|^e_?w\b|^column_\d+$")
"""Names that such columns have, `column 5` for none: a letter may stand for anything else."""

_LETTERS = {"lat": {"N": 1, "S": -1}, "lon": {"E": 1, "W": -1}}


def check(dialect: Dialect, names: Sequence[str], roles: Mapping[str, str], where: str) -> None:
    """Refuses positions whose sign another column gives: columns without a role are not read.

    Raises:
        DataError: A column of letters N and S, or E and W, says south or west of positions above 0.
    """
    for role, ways in _LETTERS.items():
        position = names.index(roles[role])
        for k, name in enumerate(names):
            pairs = [(row[k].upper(), row[position]) for row in dialect.start if max(k, position) < len(row)]
            if (
                not _NAMES.search(plain(name))
                or name in roles.values()
                or not pairs
                or not {letter for letter, _ in pairs} <= {"", *ways}
            ):
                continue
            against = [cell for letter, cell in pairs if ways.get(letter) == -1 and _is_unsigned(cell)]
            if against:
                raise DataError(
                    f"{where}: {roles[role]!r} has no sign, such as {against[0]}, and {name!r} gives the hemisphere; "
                    f"expected one column. Write {roles[role]!r} as decimal degrees, below 0 in the south and west, "
                    f"and leave {name!r} out."
                )


def _is_unsigned(cell: str) -> bool:
    """Tells whether a cell is a number that its hemisphere would change; beyond 180 degrees it counts eastward."""
    try:
        return 0 < float(cell.replace(",", ".")) <= 180
    except ValueError:
        return False
