"""Tables in Parquet: as pandas and Parcels 4 write them, in one file or in parts, and what they cannot be."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from driftcal.preprocess.recipe import DrifterSource
from driftcal.preprocess.sources.drifters import parquet
from driftcal.preprocess.sources.drifters.drifters import Fixes, open_drifters
from driftcal.shared.errors import DataError
from tests.sources import START, ragged, tracks

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = tracks()
SIZES = [len(row.time) for row in ROWS]
NAMES = ["0012", "b", "c"]


def frame() -> pd.DataFrame:
    flat = ragged(ROWS)
    return pd.DataFrame(
        {
            "drifter": np.repeat(NAMES, SIZES),
            "datetime": pd.to_datetime(flat.time.values, unit="s", utc=True),
            "lat": flat.lat.values,
            "lon": flat.lon.values,
            "photo": [["not", "read"]] * 12,
        }
    )


def read(path: Path, **settings: object) -> Fixes:
    (block,) = open_drifters(DrifterSource.model_validate({"path": str(path), **settings})).blocks()
    return block


def check(block: Fixes, names: list[str] = NAMES) -> None:
    for name in ("time", "lat", "lon"):
        np.testing.assert_array_equal(getattr(block, name), np.concatenate([getattr(row, name) for row in ROWS]))
    assert list(block.drifter.values()) == names
    np.testing.assert_array_equal(block.row, np.repeat([0, 1, 2], SIZES))


BIG = [2**60 + 1, 2**60 + 2, 2**60 + 3]

FRAMES = {
    "text ids": frame(),
    "categories": frame().astype({"drifter": "category"}),
    "index": frame().set_index("datetime"),
    "two indices": frame().set_index(["drifter", "datetime"]),
    "another zone": frame().assign(datetime=frame().datetime.dt.tz_convert("Asia/Tokyo")),
    "without a zone": frame().assign(datetime=frame().datetime.dt.tz_localize(None)),
    "nanoseconds": frame().assign(datetime=frame().datetime.astype("datetime64[ns, UTC]")),
    "nullable": frame().astype({"lat": "Float64", "lon": "Float64"}),
    "text times": frame().assign(datetime=frame().datetime.dt.strftime("%Y-%m-%dT%H:%M:%SZ")),
}


@pytest.mark.parametrize("name", FRAMES)
def test_what_pandas_writes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "fixes.table"  # told by its content
    FRAMES[name].to_parquet(path)
    check(read(path))


def test_ids_keep_their_digits_beside_missing_ones(tmp_path: Path) -> None:
    ids = pd.array(np.repeat(BIG, SIZES), dtype="Int64")
    table = frame().drop(columns="drifter").assign(id=ids)
    table.to_parquet(tmp_path / "a.parquet")
    check(read(tmp_path / "a.parquet"), [str(number) for number in BIG])
    table.loc[3, "id"] = pd.NA
    table.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"the drifter id of row 3 is missing \(1 in all\)"):
        read(tmp_path / "a.parquet")


def test_missing_values_and_states(tmp_path: Path) -> None:
    table = frame().assign(drogue_status=pd.array([True, False, None] * 4, dtype="boolean"))
    table["lat"] = table.lat.astype("Float64")
    table.loc[2, "lat"] = pd.NA
    table.loc[5, "datetime"] = pd.NaT
    table.to_parquet(tmp_path / "a.parquet")
    block = read(tmp_path / "a.parquet")
    assert block.dropped == {"position missing": 1, "time missing": 1}
    assert block.drogue.tolist() == [s for k, s in enumerate([1, 0, -1] * 4) if k not in (2, 5)]
    lost = frame().assign(drogue_lost_date=[pd.Timestamp(START + 3600, unit="s")] * 4 + [pd.NaT] * 8)
    lost.to_parquet(tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet").drogue.tolist() == [1, 0, 0, 0] + [1] * 8


@pytest.mark.parametrize("by", [["drifter"], None], ids=["hive", "parts"])
def test_a_folder_of_parts(by: list[str] | None, tmp_path: Path) -> None:
    folder = tmp_path / "drifters"
    if by:
        frame().assign(drifter=np.repeat(["a", "b", "c"], SIZES)).to_parquet(folder, partition_cols=by)
        check(read(folder), ["a", "b", "c"])
        return
    folder.mkdir()
    frame().iloc[:5].to_parquet(folder / "part-0.parquet")
    frame().iloc[5:].to_parquet(folder / "part-1.parquet")
    (folder / "_SUCCESS").write_bytes(b"")
    check(read(folder))
    check(joined(folder / "*.parquet"))


def joined(path: Path) -> Fixes:
    """All blocks of a glob as one, rows numbered by drifter."""
    blocks = list(open_drifters(DrifterSource(path=str(path))).blocks())
    names = [block.drifter[int(row)] for block in blocks for row in block.row]
    fields = {n: np.concatenate([getattr(b, n) for b in blocks]) for n in Fixes.__dataclass_fields__ if n[0] in "tlg"}
    return Fixes(
        row=np.array([NAMES.index(name) for name in names]),
        drogue=np.zeros(12, np.int8),
        source_row=np.arange(12),
        drifter=dict(enumerate(NAMES)),
        dropped={},
        **fields,
    )


def parcels(path: Path, units: str) -> None:
    """A file as ParticleFile of Parcels 4 writes it: all particles at one time after those at another."""
    attributes = {
        "t": {"standard_name": "time", "units": units, "axis": "T"},
        "z": {"standard_name": "vertical coordinate", "units": "m", "positive": "down"},
        "y": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
        "x": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
        "particle_id": {"long_name": "Unique identifier for each particle", "cf_role": "trajectory_id"},
    }
    kinds = {"t": pa.float64(), "particle_id": pa.int64()}
    schema = pa.schema(
        [pa.field(name, kinds.get(name, pa.float32()), metadata=said) for name, said in attributes.items()],
        metadata={"feature_type": "trajectory", "parcels_version": "4.0.0"},
    )
    with pq.ParquetWriter(path, schema) as writer:
        for k in range(5):
            columns = {"t": [3600.0 * k] * 2, "z": [0.0] * 2, "y": [40 + 0.1 * k, 50.0], "x": [5.0, 6 + 0.1 * k]}
            arrays = {name: pa.array(values, kinds.get(name, pa.float32())) for name, values in columns.items()}
            writer.write_table(pa.table({**arrays, "particle_id": pa.array([0, 1])}))


def test_what_parcels_4_writes(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    parcels(path, "seconds since 2010-01-01T00:00:00")
    block = read(path)
    np.testing.assert_array_equal(block.time, np.tile(START + 3600 * np.arange(5), 2))
    np.testing.assert_allclose(block.lat, [*(40 + 0.1 * np.arange(5)), *[50.0] * 5], atol=4e-6)
    np.testing.assert_allclose(block.lon, [*[5.0] * 5, *(6 + 0.1 * np.arange(5))], atol=1e-6)
    assert block.drifter == {0: "0", 1: "1"}


def test_parcels_without_a_date(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    parcels(path, "seconds")
    with pytest.raises(DataError, match=r"units 'seconds'.*as in drifters\.time_units: seconds since 2010-01-01; or"):
        read(path)
    assert read(path, time_units="seconds since 2010-01-01").time[:2].tolist() == [START, START + 3600]


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    frame().drop(columns=["lat", "lon"]).assign(geometry=b"x").to_parquet(path)
    with pytest.raises(DataError, match=r"positions as geometries.*frame\.assign\(lon=frame\.geometry\.x, lat=frame"):
        read(path)
    frame().drop(columns="photo").groupby("drifter").agg(list).reset_index().to_parquet(path)
    with pytest.raises(DataError, match=r"column 'datetime', the 'time', holds list.*DataFrame\.explode"):
        read(path)
    frame().iloc[:0].to_parquet(path)
    with pytest.raises(DataError, match=r"a\.parquet is empty"):
        read(path)
    frame().to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.parquet cannot be read \("):
        read(path)
    monkeypatch.setattr(parquet, "pds", None)
    with pytest.raises(
        DataError, match=r"pyarrow, and that is not installed. Install it: pip install 'driftcal\[parquet\]'"
    ):
        read(path)
