"""Tables of drifters in Parquet: one file or a folder of parts, as pandas, Parcels 4 and others write them.

Only the columns that play a role are read. Units are taken from the metadata of the fields, where Parcels writes them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Shaped

from driftcal.preprocess.recipe import DrifterSource
from driftcal.preprocess.sources import formats
from driftcal.preprocess.sources.drifters.drifter_roles import resolve
from driftcal.preprocess.sources.variable_roles import listing
from driftcal.shared.errors import DataError

try:
    import pyarrow as pa
    import pyarrow.dataset as pds
except ImportError:  # an extra, for sources in this format only
    pa: Any = None
    pds: Any = None

_TEXT = ("id", "drogue", "drogue_lost_date")


def is_folder(path: Path) -> bool:
    """Tells whether a folder contains parts of a Parquet table."""
    part = next((p for p in sorted(path.rglob("*.parq*")) if p.is_file() and not p.name.startswith((".", "_"))), None)
    part = part or next((p for p in sorted(path.rglob("*.pq")) if p.is_file()), None)
    if part is None:
        return False
    return formats.tell(part) is formats.PARQUET


def read(path: Path, where: str, source: DrifterSource) -> tuple[xr.Dataset, dict[str, str]]:
    """The columns that play a role, on a dimension `fix`, and their names by role.

    Raises:
        DataError: pyarrow is not there, a role has no column, or a column cannot be what its role asks for.
        OSError, ValueError: What pyarrow cannot read.
    """
    if pds is None or pa is None:
        raise DataError(
            f"{where} is a table in Parquet, which is read by pyarrow, and that is not installed. Install it: pip "
            "install 'driftcal[parquet]'."
        )
    table = pds.dataset(path, format="parquet", partitioning="hive" if path.is_dir() else None)
    schema = table.schema
    attributes = {field.name: _attributes(field) for field in schema}
    # GeoParquet (the key `geo`): positions as points, which have no columns of their own
    if b"geo" in (schema.metadata or {}) or "geometry" in schema.names:
        try:
            roles = resolve(attributes, source, where)
        except DataError as error:
            raise DataError(
                f"{where} holds its positions as geometries; expected columns of latitude and longitude. Write them, "
                "in Python: frame = geopandas.read_parquet(...); frame.assign(lon=frame.geometry.x, "
                "lat=frame.geometry.y).drop(columns='geometry').to_parquet(...). Otherwise: " + str(error)
            ) from error
    else:
        roles = resolve(attributes, source, where)
    roles.pop("rowsize", None)
    content = table.to_table(columns=list(dict.fromkeys(roles.values())))
    columns = {
        name: ("fix", _values(content.column(name), role, name, where), attributes[name])
        for role, name in roles.items()
    }
    whole = {_word(key): _word(value) for key, value in (schema.metadata or {}).items() if len(value) < 1000}
    return xr.Dataset(columns, attrs=whole), roles


def _attributes(field: Any) -> dict[str, str]:
    return {_word(key): _word(value) for key, value in (field.metadata or {}).items()}


def _word(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _values(column: Any, role: str, name: str, where: str) -> Shaped[np.ndarray, " n"]:
    """A column as numbers, datetime64 or text; missing ones as NaN, NaT and empty."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_nested(kind) or (pa.types.is_null(kind) and role not in _TEXT):
        raise DataError(
            f"{where}: column {name!r}, the {role!r}, holds {kind}; expected one value a row, in columns "
            f"such as {listing(['id', 'time', 'lat', 'lon'])}. Write one row a fix (in pandas: DataFrame.explode)."
        )
    if pa.types.is_temporal(kind) and not pa.types.is_time(kind) and not pa.types.is_duration(kind):
        # an instant with a time zone is kept as UTC; one without is taken for UTC, as in every other source
        return column.cast(pa.timestamp("ms", getattr(kind, "tz", None)), safe=False).to_numpy()
    if pa.types.is_null(kind):
        return np.full(len(column), "", object)
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8()).fill_null(-1).to_numpy().astype(np.int8)
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64()).to_numpy()
    if pa.types.is_integer(kind) and column.null_count and role == "id":
        return column.cast(pa.string()).fill_null("").to_numpy().astype(object)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        # numbers of half a float are no positions; numpy knows them, the encoding need not
        return column.to_numpy().astype(np.float32) if pa.types.is_float16(kind) else column.to_numpy()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        column = column.cast(pa.string())
    return column.cast(pa.string()).fill_null("").to_numpy().astype(object)
