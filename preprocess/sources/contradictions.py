"""Attributes that contradict the numbers beside them: a packing, or a valid range, left over from another file.

Some tools decode numbers and keep the attributes that they were packed by, or pack them and keep a valid range of
decoded numbers. Read as the attributes say, such numbers are wrong by a factor, or missing. A contradiction that the
numbers prove is refused or mended by name; an oddity is noted; everything else is read by the CF conventions.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Num, Shaped

from driftcal.preprocess.sources.encoding import Encoding
from driftcal.shared.errors import DataError

SAMPLE = 4096
"""Numbers of a level that are examined."""

FEWEST = 16
"""Different numbers below which nothing is concluded from them."""

MOST_OUTSIDE = 0.3
"""Share of the numbers that may be out of their valid range: as tools that keep the range of packed numbers beside
decoded ones (0 to 20000, say) lose the half that is negative."""

FEW_OUTSIDE = 0.001
"""Share of them, flags not counted, above which they are warned of: windows with the fastest currents are not used."""

FLAGS = 4
"""Different numbers out of a valid range that may be flags, of land or ice, and no values."""


def sample(stored: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, " n"]:
    """Some of the numbers of a level, spread over it, `(n,)`."""
    flat = stored.reshape(-1)
    return flat[:: max(1, flat.size // SAMPLE) | 1]


def is_decoded(numbers: Num[np.ndarray, "..."], encoding: Encoding) -> bool:
    """Tells whether floats are decoded already: all are whole multiples of `scale_factor`, and not whole numbers.

    Args:
        numbers: Stored numbers, without missing ones, `(n,)`.
        encoding: Encoding that their attributes declare.
    """
    if numbers.dtype.kind != "f" or (encoding.scale, encoding.offset) == (1.0, 0.0):
        return False
    values = np.unique(numbers)
    multiples = (values.astype(np.float64) - encoding.offset) / encoding.scale
    # four roundings of a float32, of numbers or of an offset taken away
    slack = 1e-3 + 4 * 6e-8 * (np.abs(values) + abs(encoding.offset)) / abs(encoding.scale)
    if values.size < FEWEST or slack.max() > 0.05 or (values == np.rint(values)).all():
        return False
    return bool((np.abs(multiples - np.rint(multiples)) <= slack).all())


def check_angles(numbers: Shaped[np.ndarray, "..."], attributes: Mapping[str, Any], limit: float, where: str) -> None:
    """Refuses coordinates that are decoded already and have their scale_factor still.

    Args:
        numbers: Stored numbers of one kind of coordinate.
        attributes: Beside them.
        limit: Largest angle that they can be [degrees].
        where: File and variable.

    Raises:
        DataError: they are.
    """
    if numbers.dtype.kind != "f" or not attributes.keys() & {"scale_factor", "add_offset"}:
        return
    encoding = Encoding.of(numbers.dtype, attributes, where)
    present = numbers[~encoding.missing(numbers)]
    if present.size and is_decoded(present, encoding) and np.abs(present).max() <= limit:
        raise left_over(encoding, "all are whole multiples of it", where)


def settle_range(encoding: Encoding, numbers: Num[np.ndarray, " n"], where: str) -> tuple[Encoding, list[str]]:
    """The encoding with its valid range given for the numbers that it can only be meant for; and notes.

    Args:
        encoding: Encoding that the attributes declare.
        numbers: Stored numbers of one level, fills included, `(n,)`.
        where: File and variable.

    Raises:
        DataError: the range contradicts the numbers, whether it is of stored or of decoded ones.
    """
    share, outside = outside_range(encoding, numbers)
    if share <= MOST_OUTSIDE:
        percent = 100 * outside
        said = (
            f"{where}: {percent:.2g} % of the numbers are out of the valid range {_range(encoding)}, taken as missing"
        )
        if share > FEW_OUTSIDE:
            return encoding, [f"WARNING: {said}. If it is that of other numbers, remove the attributes from the file"]
        return encoding, [said] if outside else []
    other = replace(encoding, valid_is_decoded=not encoding.valid_is_decoded)
    if encoding.packed and outside_range(other, numbers)[0] <= MOST_OUTSIDE:
        kinds = ("decoded", "stored") if other.valid_is_decoded else ("stored", "decoded")
        return other, [
            f"{where}: valid range {_range(encoding)} taken for that of {kinds[0]} numbers, as {100 * share:.0f} % of "
            f"the {kinds[1]} ones are out of it"
        ]
    raise _contradicted(encoding, share, where)


def check_range(encoding: Encoding, numbers: Num[np.ndarray, "..."], where: str) -> None:
    """Refuses a valid range that most numbers of a level are out of.

    Raises:
        DataError: they are.
    """
    share, _ = outside_range(encoding, numbers)
    if share > MOST_OUTSIDE:
        raise _contradicted(encoding, share, where)


def outside_range(encoding: Encoding, numbers: Num[np.ndarray, "..."]) -> tuple[float, float]:
    """Share of stored numbers that are out of their valid range, flags not counted, and with those; of no fills."""
    if not encoding.has_range:
        return 0.0, 0.0
    values = encoding.read(numbers)
    values = values[~replace(encoding, valid=(-np.inf, np.inf)).missing(numbers)]
    if not values.size:
        return 0.0, 0.0
    outside = encoding.outside(values)
    few = np.unique(values[outside]).size <= FLAGS
    return 0.0 if few else float(outside.mean()), float(outside.mean())


def left_over(encoding: Encoding, why: str, where: str) -> DataError:
    """The error of numbers that are decoded already, for the reason `why`."""
    return DataError(
        f"{where}: floats with {named(encoding)}, but they are decoded already: {why}. Decoded again they would be "
        "wrong by that. Remove the attributes scale_factor and add_offset from the variable in the file."
    )


def _contradicted(encoding: Encoding, share: float, where: str) -> DataError:
    kind = "decoded" if encoding.valid_is_decoded else "stored"
    return DataError(
        f"{where}: {100 * share:.0f} % of the {kind} numbers are out of the valid range {_range(encoding)} that "
        "valid_range, valid_min or valid_max give: they would be missing. Correct or remove these attributes in the "
        "file."
    )


def named(encoding: Encoding) -> str:
    """The attributes of a packing with their values."""
    offset = f" and add_offset {encoding.offset:g}" if encoding.offset else ""
    return f"scale_factor {encoding.scale:g}{offset}"


def _range(encoding: Encoding) -> str:
    return f"{encoding.valid[0]:g} to {encoding.valid[1]:g}"
