"""Names of drifters: from what a file holds, from its attributes, or from its own name.

Drifters are split by name, so a name must be one drifter's. Names that have lost their digits are refused: a
spreadsheet writes an IMEI of 15 digits as 3.00234E+14, a float32 keeps seven digits, a float64 fifteen.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Shaped

from driftcal.preprocess.sources.drifters.drifter_roles import ID_ATTRIBUTES
from driftcal.preprocess.sources.encoding import decode, texts
from driftcal.shared.errors import DataError

_EXPONENT = re.compile(r"\d([.,]\d+)?[eE]\+\d{1,3}")
_ROUNDED_IMEI = re.compile(r"30\d{4,7}0{6,}")
_RESTORE = "Restore the ids from the original, as text"


def identifiers(
    values: Shaped[np.ndarray, " n"], attributes: Mapping[str, Any], where: str, positions: Sequence[int]
) -> list[str]:
    """Identifiers `[n]` as text: whole numbers without `.0`, bytes decoded, blanks stripped.

    Args:
        values: Ids as stored `[n]`.
        attributes: Attributes of their variable.
        where: The file, for messages.
        positions: Rows that an error names `[n]`.

    Raises:
        DataError: An id is missing, or ids have lost digits.
    """
    stored = np.asarray(values)
    ids = decode(stored, attributes, f"{where}: the drifter ids")
    if stored.dtype.kind == "f":
        exact = 2.0**24 if stored.dtype.itemsize == 4 else 2.0**53
        with np.errstate(invalid="ignore"):
            large = ids[np.isfinite(ids) & (np.abs(ids) > exact)]
        if large.size:
            raise DataError(
                f"{where}: the drifter ids are {stored.dtype} numbers such as {large[0]:.0f}, which have lost digits: "
                f"beyond {exact:.0f} neighbouring ids become one. {_RESTORE} or as int64."
            )
    names = texts(ids)
    if stored.dtype.kind in "OSUT":  # tables that passed through floats have ids such as 104099.0
        names = [re.sub(r"^(\d+)\.0+$", r"\1", name) for name in names]
        rounded = [name for name in names if _EXPONENT.fullmatch(name)]
        rounded = rounded or [name for name in names if len(name) == 15 and _ROUNDED_IMEI.fullmatch(name)]
        if rounded:
            raise DataError(
                f"{where}: the drifter id {rounded[0]!r} was rounded by a spreadsheet ({len(rounded)} such ids): "
                f"several drifters may have become one. {_RESTORE}."
            )
    missing = [position for position, name in zip(positions, names, strict=True) if not name]
    if missing:
        raise DataError(
            f"{where}: the drifter id of row {missing[0]} is missing ({len(missing)} in all); every trajectory needs "
            "one, because drifters are split by id. Fill it in or remove these rows."
        )
    return names


def of_attributes(attributes: Mapping[str, Any]) -> tuple[str, str] | None:
    """The global attribute that names the only drifter of a file, and that name; None where there is none."""
    for wanted in ID_ATTRIBUTES:
        value = attributes.get(wanted)
        if isinstance(value, str | bytes | int | float | np.number):
            (name,) = texts(np.array([value], dtype=object))
            if name:
                return wanted, name
    return None


def of_files(paths: Sequence[str]) -> dict[str, str]:
    """A name for every file: its own without ending, with folders before it where several would have the same."""
    parts = {path: PurePosixPath(path.rstrip("/").partition("::")[0].partition("?")[0]).parts for path in paths}
    depth = 1
    while True:
        names = {path: "/".join(_stems(of[-depth:])) for path, of in parts.items()}
        if len(set(names.values())) == len(names) or depth >= max(map(len, parts.values())):
            return names if len(set(names.values())) == len(names) else {path: path for path in paths}
        depth += 1


def _stems(parts: Sequence[str]) -> list[str]:
    """Parts of a path, the last one without its endings."""
    last = re.sub(r"(\.(nc|nc4|nc3|cdf|zarr|csv|txt|tsv|dat|parquet|pq|gz|bz2|xz|zip|h5))+$", "", parts[-1])
    return [*parts[:-1], last or parts[-1]]
