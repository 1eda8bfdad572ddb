"""Tables of drifters in text: dialects, units, hemispheres, roles by name, and messages that lead on."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from driftcal.preprocess.recipe import DrifterSource
from driftcal.preprocess.sources.drifters.drifters import Fixes, open_drifters
from driftcal.shared.errors import DataError
from tests.sources import START

HEADER = "ID,time,lat,lon"
N = 6
LAT, LON = 41.5 + 0.02 * np.arange(N), -12.25 + 0.03 * np.arange(N)
ROWS = [f"300234,2010-01-01T{k:02d}:00:00Z,{LAT[k]:.2f},{LON[k]:.2f}" for k in range(N)]
PLAIN = "\n".join([HEADER, *ROWS]) + "\n"


def read(path: Path, **settings: object) -> Fixes:
    (block,) = open_drifters(DrifterSource.model_validate({"path": str(path), **settings})).blocks()
    return block


def check(block: Fixes, drifter: str = "300234", n: int = N) -> None:
    np.testing.assert_array_equal(block.time, START + 3600 * np.arange(n))
    np.testing.assert_allclose(block.lat, LAT[:n], rtol=0, atol=1e-12)
    np.testing.assert_allclose(block.lon, LON[:n], rtol=0, atol=1e-12)
    assert block.drifter == {0: drifter}
    assert not block.dropped


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inside.csv", content)
        archive.writestr("__MACOSX/._inside.csv", b"x")
    return packed.getvalue()


DIALECTS = {
    "comma": PLAIN,
    "windows": PLAIN.replace("\n", "\r\n"),
    "semicolon": PLAIN.replace(",", ";"),
    "decimal comma": PLAIN.replace(",", ";").replace(".", ","),
    "tab": PLAIN.replace(",", "\t"),
    "bar": PLAIN.replace(",", "|"),
    "blanks": PLAIN.replace(",", "   "),
    "comments": f"# made by a logger, in 2010\n#second\n{PLAIN}",
    "blank lines": "\n\n" + PLAIN,
    "header as a comment": f"# {PLAIN}",
    "Excel's line of the separator": f"sep=;\n{PLAIN.replace(',', ';')}",
    "UTC after the time": PLAIN.replace("T", " ").replace("Z", " UTC"),
    "times of day beside times": f"{HEADER},time_utc\n"
    + "".join(f"{row},{k:02d}:00:00\n" for k, row in enumerate(ROWS)),
    "letters that are no hemispheres": f"{HEADER},valid,mode\n" + "".join(f"{row},S,W\n" for row in ROWS),
    "24:00": PLAIN.replace("2010-01-01T00:00:00Z", "2009-12-31 24:00:00"),
    "midnight without a time of day": PLAIN.replace("T00:00:00Z", "").replace("Z", "").replace("T", " "),
    "local time beside UTC": f"{HEADER},time_utc\n"
    + "".join(f"{row.replace('T0', ' 1')},{row.split(',')[1]}\n" for row in ROWS),
    "two times that differ by zone": "ID,time (local),lat,lon,time (UTC)\n"
    + "".join(f"{row.replace('T0', ' 1')},{row.split(',')[1]}\n" for row in ROWS),
    "another zone with offsets": PLAIN.replace("time", "time (CET)").replace(":00:00Z", ":00:00+00:00"),
    "date with slashes and a time": f"date,{HEADER}\n"
    + "".join(f"2010/01/01,{row.replace('2010-01-01T', '')}\n" for row in ROWS),
    "trailing separators": PLAIN.replace("\n", ",\n"),
    "trailing in rows only": f"{HEADER}\n" + "".join(f"{row},\n" for row in ROWS),
    "pandas index": f",{HEADER}\n" + "".join(f"{k},{row}\n" for k, row in enumerate(ROWS)),
    "names that differ by unit": f"{HEADER},wind (m/s),wind (kn),x,x\n" + "".join(f"{row},1,2,a,b\n" for row in ROWS),
    "quotes": f"{HEADER},remark\n" + "".join(f'"{row.replace(",", chr(34) + "," + chr(34))}","a, b"\n' for row in ROWS),
    "bad cell without a role": f"{HEADER},volts\n" + "".join(f"{row},{k}.{k}.{k}\n" for k, row in enumerate(ROWS)),
    "csvp": PLAIN.replace("lat,lon", "lat (degrees_north),lon (degrees_east)").replace("time", "time (UTC)"),
    "brackets": PLAIN.replace("lat,lon", "lat [deg],lon [deg]"),
    "datum": PLAIN.replace("lat,lon", "lat (WGS84),lon (WGS84)"),
    "ERDDAP": PLAIN.replace("\n", "\n,UTC,degrees_north,degrees_east\n", 1),
    "units with digits": PLAIN.replace("lon\n", "lon,v\n,yyyy-MM-ddTHH:mm:ssZ,degrees_north,degrees_east,m s-1\n"),
    "west": PLAIN.replace("lon\n", "lon (degrees_west)\n").replace(",-12.", ",12."),
    "radians": "ID,time,lat [rad],lon [rad]\n"
    + "".join(f"300234,2010-01-01T{k:02d}:00Z,{np.radians(LAT[k]):.17g},{np.radians(LON[k]):.17g}\n"
              for k in range(N)),
    "letters": f"{HEADER}\n"
    + "".join(f"300234,2010-01-01T{k:02d}:00Z,{LAT[k]:.2f} N,{-LON[k]:.2f}W\n" for k in range(N)),
    "degrees and minutes": f"{HEADER}\n"
    + "".join(f"300234,2010-01-01T{k:02d}:00Z,41°{60 * (LAT[k] - 41):.1f}'N,W12°{-60 * (LON[k] + 12):.1f}′\n"
              for k in range(N)),
    "signed degrees, minutes, seconds": f"{HEADER}\n"
    + "".join(f"300234,2010-01-01T{k:02d}:00Z,{LAT[k]},-12°{s // 60}'{s % 60}''\n"
              for k, s in enumerate(np.round(3600 * (-12 - LON)).astype(int))),
    "date and time": f"{HEADER.replace('time', 'Date,Time')}\n" + "\n".join(ROWS).replace("T", ",").replace("Z", ""),
    "other names": PLAIN.replace(HEADER, "Drifter,Date Time,Latitude (deg),Long"),
    "Spotter": PLAIN.replace(HEADER, "spotterId,timestamp,latitude,longitude"),
    "seals.csv": PLAIN.replace(HEADER, "Instrument,Timestamp,Lat,Lon").replace("Z", "+00:00"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects(name: str, tmp_path: Path) -> None:
    path = tmp_path / "fixes.dat"
    path.write_text(DIALECTS[name], encoding="utf-8")
    block = read(path)
    if name == "degrees and minutes":  # one decimal of a minute
        np.testing.assert_allclose(block.lon, LON, atol=0.06 / 60)
        np.testing.assert_allclose(block.lat, LAT, atol=0.06 / 60)
        return
    if "seconds" in name:
        np.testing.assert_allclose(block.lon, LON, atol=1e-9)
        return
    check(block)


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_packings_and_encodings(packing: str, encoding: str, tmp_path: Path) -> None:
    text = f"{HEADER},name\n" + "".join(f"{row},Bøye é\n" for row in ROWS)
    path = tmp_path / "no-ending"
    path.write_bytes(PACKED[packing](text.encode(encoding)))
    check(read(path))


@pytest.mark.parametrize("spelt", ["", "NA", "nan", "null", "-", "--", "None", "N/A", "-999", "-9999.0", "?"])
def test_missing_positions_are_counted(spelt: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(PLAIN.replace("41.56", spelt))
    block = read(path)
    assert block.dropped == {"position missing": 1}
    np.testing.assert_allclose(block.lon, np.delete(LON, 3), atol=1e-12)


def test_ids_are_kept_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for written, drifter in (("00123", "00123"), ("104099.0", "104099"), ("3E4", "3E4"), ("300234066717160", None)):
        path.write_text(PLAIN.replace("300234", written))
        assert read(path).drifter == {0: drifter or written}


LOST = {
    "": [1] * N,
    "NaN": [1] * N,
    "never": [1] * N,
    "2010-01-01T02:30:00Z": [1, 1, 1, 0, 0, 0],
    "1970-01-01T00:00:00Z": [-1] * N,
    "2009-06-01": [0] * N,
}


@pytest.mark.parametrize("date", LOST)
def test_a_date_of_loss_means_the_same_whatever_the_file_holds(date: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(PLAIN.replace("\n", f",{date}\n").replace(f"lon,{date}", "lon,drogue_lost_date"))
    assert read(path).drogue.tolist() == LOST[date]


def test_one_table_a_drifter_of_which_some_never_lost_their_drogue(tmp_path: Path) -> None:
    """What blank cells say does not depend on which file they are in."""
    for k, date in enumerate(("", "2010-01-01T02:30:00Z", "")):
        text = (
            PLAIN.replace("\n", f",{date}\n").replace(f"lon,{date}", "lon,drogue_lost_date").replace("300234", f"{k}")
        )
        (tmp_path / f"{k}.csv").write_text(text)
    source = open_drifters(DrifterSource(path=str(tmp_path / "*.csv")))
    states = [block.drogue.tolist() for block in source.blocks()]
    assert states == [[1] * N, LOST["2010-01-01T02:30:00Z"], [1] * N]
    whole = "\n".join([f"{HEADER},drogue_lost_date", *(f"{r},".replace("300234", "9") for r in ROWS),
                       *(f"{r},2010-01-01T02:30:00Z" for r in ROWS)])  # fmt: skip
    (tmp_path / "one.csv").write_text(whole)
    assert read(tmp_path / "one.csv").drogue.tolist() == [1] * N + LOST["2010-01-01T02:30:00Z"]


STATES = {"1": 1, "1.0": 1, "true": 1, "True": 1, "yes": 1, "on": 1, "attached": 1, "0": 0, "FALSE": 0, "lost": 0,
          "": -1, "unknown": -1, "2": -1}  # fmt: skip


@pytest.mark.parametrize("word", STATES)
def test_status_of_the_drogue(word: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(PLAIN.replace("\n", f",{word}\n").replace(f"lon,{word}", "lon,drogue_status"))
    assert read(path).drogue.tolist() == [STATES[word]] * N


def test_flags_of_quality(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"{row},{flag},{1 if k else 4}" for k, (row, flag) in enumerate(zip(ROWS, "101293", strict=True))]
    path.write_text("\n".join([f"{HEADER},position_qc,time_qc", *rows]))
    block = read(path)
    assert block.source_row.tolist() == [1, 2, 3]
    assert block.dropped == {"position flagged as bad": 2, "time flagged as bad": 1}


UNIX = f"{HEADER}\n" + "".join(f"7,{START + 3600 * k},{LAT[k]:.2f},{LON[k]:.2f}\n" for k in range(N))


@pytest.mark.parametrize(("scale", "unit"), [(1, "seconds"), (1000, "milliseconds")])
def test_unix_times_are_read_as_the_message_says(scale: int, unit: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(UNIX if scale == 1 else UNIX.replace(",126", ",000126").replace("00,4", "00000,4"))
    with pytest.raises(DataError, match=rf"set drifters\.time_units: {unit} since 1970-01-01 in the manifest"):
        read(path)
    check(read(path, time_units=f"{unit} since 1970-01-01"), "7")


def test_time_units_must_be_units_of_time() -> None:
    with pytest.raises(ValueError, match="expected units such as 'seconds since 1970-01-01'"):
        DrifterSource(path="x", time_units="furlongs since 1970")


def broken(text: str, **change: str) -> str:
    for old, new in change.items():
        text = text.replace(old, new)
    return text


REFUSED = {
    "decimal comma among commas": (PLAIN.replace("41.", "41,"), r"row 0 has more cells than the header, which names 4.*"
                                   r"\(6 such rows\).*comma is the decimal mark, separate the columns by semicolons"),
    "sign and letter": (PLAIN.replace("-12.25", "-12.25W"), r"'lon' holds '-12\.25W' in row 0 .*cannot be read as a"),
    "letter of the other axis": (PLAIN.replace("41.50", "41.50E"), r"'lat' holds '41\.50E'.*expected degrees such as"),
    "a word": (PLAIN.replace("41.52", "high"), r"'lat' holds 'high' in row 1 \(1 such cells\), which cannot be"),
    "thousands": (PLAIN.replace("lon\n", "lon,gap\n").replace("5\n", '5,"12,500"\n'), r"'gap' holds '12,500'.*thous"),
    "minutes beyond 60": (PLAIN.replace("41.50", "41°61'N"), r"'lat' holds \"41°61'N\""),
    "west twice": (PLAIN.replace("lon\n", "lon (degrees_west)\n").replace(",-12.25", ",12.25W"), r"hemisphere too"),
    "units of length": (PLAIN.replace("lat,", "lat (m),"), r"'lat' has units 'm', which are not known as those of"),
    "another zone": (PLAIN.replace("time", "time (UTC+2)"), r"time zone 'UTC\+2'; expected UTC"),
    "times of day": (PLAIN.replace("2010-01-01T", ""), r"times of day such as '00:00:00Z', and no"),
    "rounded": (PLAIN.replace("300234", "3.00234E+14"), r"id '3\.00234E\+14' was rounded by a spreadsheet.*Restore"),
    "rounded whole": (PLAIN.replace("300234", "300234000000000"), r"'300234000000000' was rounded by a spreadsheet"),
    "date as status": (PLAIN.replace("\n", ",2010-01-02\n").replace("lon,2010-01-02", "lon,drogue_status"),
                       r"holds '2010-01-02'; expected the status.*name it as drifters\.variables\.drogue_lost_date"),
    "no date": (PLAIN.replace("\n", ",2010-01-02\n").replace("lon,2010-01-02", "lon,drogue_lost_date")
                .replace("02\n", "31/01\n", 1), r"'drogue_lost_date' holds '2010-01-31/01', which is no date"),
    "no names": ("x,y,z\n1,2,3\n", r"no 'time' .* and no 'lat' .* and no 'lon' .* and no 'id'"
                 r".*found x, y, z\. Set drifters\.variables\.time, .*\{time: NAME, lat: NAME, lon: NAME, id: N"),
    "names of another language": ("Boje;Datum;Breite (°N);Länge (°E)\n7;31.01.2010;1,5;2,5\n",
                                  r"\{time: NAME, lat: Breite, lon: Länge, id: NAME\}"),
    "a name for one role": ("drifters;time_utc;lat;longitud\n7;2010-01-31;1,5;2,5\n",
                            r"\{lon: longitud, id: drifters\}"),
    "days first": (f"{HEADER}\n1,31.01.2010 06:00,2,3\n",
                   r"such as '31\.01\.2010 06:00'; .*Rewrite the times in UTC"),
    "east that is west elsewhere": (f"{HEADER} (°O)\n1,2010-01-31,2,3\n",
                                    r"'lon' has units '°O', .*in a table what the header has in brackets"),
    "datenum": (f"{HEADER}\n1,734139.5,2,3\n", r"MATLAB's datenum \(734140\): subtract 719529, and set drifters"),
}  # fmt: skip


DROGUES = [
    "drogue",
    "Drogued",
    "drogue attached",
    "is_drogued",
    "DrogueLost",
    "drogue_off_date",
    "undrogued",
    "drogue_flag",
]


@pytest.mark.parametrize("name", DROGUES)
def test_a_column_that_may_tell_of_the_drogue_is_not_passed_over(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER},{name}\n" + "".join(f"{row},{k < 2:d}\n" for k, row in enumerate(ROWS)))
    with pytest.raises(DataError, match=re.escape(f"{name!r} may tell the state of the drogue")):
        read(path)
    check(read(path, drogue="any"))
    if re.search("lost|off|un", name, re.IGNORECASE):
        return
    assert read(path, variables={"drogue": name}).drogue.tolist() == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("name", ["drogue_type", "DrogueLength", "drogue_center_depth", "drogue_detect_sensor"])
def test_what_a_drogue_is_made_of_is_not_its_state(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER},{name}\n" + "".join(f"{row},1\n" for row in ROWS))
    check(read(path))


def test_a_column_of_lost_drogues_is_not_one_of_drogues(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER},drogue_lost\n" + "".join(f"{row},{k > 1}\n" for k, row in enumerate(ROWS)))
    with pytest.raises(DataError, match="by its name is true where the drogue is lost; expected the reverse"):
        read(path, variables={"drogue": "drogue_lost"})
    path.write_text(f"{HEADER},drogue_lost\n" + "".join(f"{row},2010-01-01T02:00:00Z\n" for row in ROWS))
    assert read(path, variables={"drogue_lost_date": "drogue_lost"}).drogue.tolist() == [1, 1, 0, 0, 0, 0]


def test_flags_of_quality_in_words(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        f"{HEADER},POSITION_QC\n" + "".join(f"{row},{'good' if k else 'bad'}\n" for k, row in enumerate(ROWS))
    )
    with pytest.raises(DataError, match="'POSITION_QC' holds 'bad'; expected flags of quality from 0 to 9"):
        read(path)
    path.write_text(path.read_text().replace("POSITION_QC", "quality"))
    check(read(path))


@pytest.mark.parametrize(("column", "letters"), [("E/W", "W"), ("lon_dir", "w"), ("", "W")])
def test_hemispheres_in_a_column_of_their_own(column: str, letters: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [f"{row},{letters}\n" for row in ROWS]
    path.write_text(f"{HEADER},{column}\n" + "".join(lines).replace(",-12", ",12"))
    name = column or "column 5"
    with pytest.raises(DataError, match=re.escape(f"'lon' has no sign, such as 12.25, and {name!r} gives")):
        read(path)
    path.write_text(f"{HEADER},{column}\n" + "".join(lines))  # said twice
    check(read(path))
    east = [f"300234,2010-01-01T{k:02d}:00Z,{LAT[k]:.2f},{LON[k] + 360:.2f},{letters}\n" for k in range(N)]
    path.write_text(f"{HEADER},{column}\n" + "".join(east))
    check(read(path))


def test_ids_that_count_the_rows(tmp_path: Path) -> None:
    path, n = tmp_path / "a.csv", 12
    lines = [f"2010-01-01T{k:02d}:00:00Z,{41 + 0.01 * k},-12,{'ab'[k % 2]}\n" for k in range(n)]
    path.write_text("id,time,lat,lon,owner\n" + "".join(f"{7 + k},{line}" for k, line in enumerate(lines)))
    with pytest.raises(DataError, match="'id' counts the rows, from 7 to 18; expected what names the drifters"):
        read(path)
    assert read(path, variables={"id": "owner"}).drifter == {0: "a", 1: "b"}
    path.write_text(path.read_text().replace("id,", "number,", 1))
    assert read(path).drifter == {0: "a"}
    snapshot = [re.sub("T\\d\\d", "T00", line) for line in lines]  # all drifters at once
    path.write_text("id,time,lat,lon,owner\n" + "".join(f"{7 + k},{line}" for k, line in enumerate(snapshot)))
    assert len(read(path).drifter) == n


@pytest.mark.parametrize("bad", [[0], [5], [2, 3], [1, 3, 5], [0, 1, 3, 4]])
def test_positions_0_0_that_no_drifter_reaches(bad: list[int], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [re.sub("Z,.*", "Z,0.0,0.0", row) if k in bad else row for k, row in enumerate(ROWS)]
    path.write_text("\n".join([HEADER, *rows]))
    block, good = read(path), [k for k in range(N) if k not in bad]
    assert block.lat.tolist() == pytest.approx(LAT[good])
    assert block.lon.tolist() == pytest.approx(LON[good])
    assert block.dropped == {"position 0, 0 out of reach of the fixes around it": len(bad)}


def test_a_drifter_at_0_0_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"a,2010-01-01T{k:02d}:00:00Z,{0.01 * (k - 2)},{0.02 * (k - 2)}" for k in range(N)]
    path.write_text("\n".join([HEADER, *rows]))
    block = read(path)
    assert not block.dropped
    np.testing.assert_allclose(block.lat, 0.01 * (np.arange(N) - 2), atol=1e-15)


@pytest.mark.parametrize("scale", [1e7, 1e5])
def test_positions_too_large_for_degrees(scale: float, tmp_path: Path) -> None:
    path, k = tmp_path / "a.csv", np.arange(20)
    lines = [
        f"a,2010-01-01T{h:02d}:00:00Z,{round((41 + 0.01 * h) * scale)},{round((-12 - 0.01 * h) * scale)}" for h in k
    ]
    path.write_text("\n".join([HEADER, *lines]))
    with pytest.raises(DataError, match=f"'lat' holds numbers such as {round(41 * scale)}; expected degrees"):
        read(path)


def test_a_fill_value_that_is_off_the_globe(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADER, *ROWS[:4], *(re.sub("Z,.*", "Z,-99,-99", row) for row in ROWS[4:])]))
    with pytest.raises(DataError, match=r"2 positions are off the globe, such as lat -99, .* leave these cells empty"):
        read(path)
    path.write_text(path.read_text().replace("-99,-99", ","))
    assert read(path).dropped == {"position missing": 2}


UNREADABLE = {
    "days first": "28.01.2010 06:00",
    "months first": "01/28/2010 06:00",
    "no such day": "2010-02-30T06:00:00Z",
    "words": "no fix",
    "half a day": "2010-01-01 06:00 PM",
    "two-digit year": "10-01-01 06:00",
}


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", UNREADABLE)
def test_times_that_cannot_be_read_are_not_taken_for_missing(name: str, every: int, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [re.sub("2010[^,]*", UNREADABLE[name], row) if k % every == 0 else row for k, row in enumerate(ROWS)]
    path.write_text("\n".join([HEADER, *rows]))
    with pytest.raises(DataError, match=rf"{N // every} of {N} times .* such as '{re.escape(UNREADABLE[name])}'"):
        read(path)


@pytest.mark.parametrize(
    "zone", ["CEST", "MESZ", "AKDT", "BRT", "+02:00", "Europe/Berlin", "America/New_York", "local"]
)
def test_times_under_another_zone_are_refused(zone: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(PLAIN.replace("time", f"time ({zone})").replace(":00Z", ":00"))
    with pytest.raises(DataError, match=re.escape(f"'time' is in the time zone {zone!r}")):
        read(path)


@pytest.mark.parametrize(
    "said", ["UTC", "GMT", "Etc/UTC", "UTC/GMT", "UTC+0", "+00:00", "YYYY-MM-DD hh:mm:ss", "yyyy/mm/dd", "ISO 8601"]
)
def test_what_a_header_says_of_times_in_utc(said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(PLAIN.replace("time", f"time ({said})"))
    check(read(path))


def test_days_are_days_where_another_column_has_times_of_day_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ID,time,lat,lon,deployed\n" + "".join(f"a,2010-01-0{k},41,-12,06:00\n" for k in (1, 2)))
    assert read(path).time.tolist() == [START, START + 86_400]


def test_zero_dates_of_databases_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(PLAIN.replace("2010-01-01T02:00:00Z", "0000-00-00 00:00:00"))
    assert read(path).dropped == {"time missing": 1}


def test_a_time_of_day_in_a_column_of_any_name_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(PLAIN.replace("T", ",").replace("Z", "").replace("time", "Date,UTC"))
    with pytest.raises(DataError, match="'Date' holds days such as '2010-01-01', and 'UTC' the time of day"):
        read(path)


NUMBERS = {
    "dates in digits": ("{:%Y%m%d%H%M%S}", r"look like dates in digits \(20100101000000\): write them as text"),
    "hours in digits": ("{:%Y%m%d%H}", "look like dates in digits"),
    "years": ("2010.00{:%H}", "look like years with decimals"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_no_count_of_a_unit(name: str, tmp_path: Path) -> None:
    written, message = NUMBERS[name]
    path = tmp_path / "a.csv"
    times = pd.date_range("2010-01-01", periods=N, freq="h")
    path.write_text(
        "ID,time,lat,lon\n" + "".join(f"a,{written.format(t)},{LAT[k]},{LON[k]}\n" for k, t in enumerate(times))
    )
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize(("first", "units"), [(40179, "days since 1899-12-30"), (55197, "days since 1858-11-17")])
def test_days_are_read_as_the_message_says(first: int, units: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "ID,time,lat,lon\n" + "".join(f"300234,{first + k / 24},{LAT[k]:.2f},{LON[k]:.2f}\n" for k in range(N))
    )
    with pytest.raises(DataError, match=f"if it is 2010-01-01 in .*, set drifters.time_units: {units} in"):
        read(path)
    check(read(path, time_units=units))


def test_years_and_months_in_columns_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ID,year,month,day,lat,lon\na,2010,1,1,41,-12\n")
    with pytest.raises(DataError, match="columns of their own are not read: write one column `time` such as 2010"):
        read(path)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    content, message = REFUSED[name]
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read(path)


def test_days_alone_are_times_at_midnight(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER}\n7,2010-01-31,41.5,-12\n7,2010-02-01,41.75,-12.5\n")
    assert np.diff(read(path).time).tolist() == [86_400]
    path.write_text(f"{HEADER.replace('time', 'time,hour')}\n7,2010-01-31,6,41.5,-12\n7,2010-02-01,6,41.75,-12.5\n")
    with pytest.raises(DataError, match="'time' holds days such as '2010-01-31', and 'hour' the time of day"):
        read(path)


def test_manifest_names_that_the_message_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(PLAIN.replace(HEADER, "who,when,north,east"))
    names = {"id": "who", "time": "when", "lat": "north", "lon": "east"}
    with pytest.raises(
        DataError, match=r"Set drifters\.variables\.time, .*lat, .*lon, drifters\.variables\.id in the man"
    ):
        read(path)
    check(read(path, variables=names))
    path.write_text(PLAIN.replace("\n", ",2010-01-01T02:30:00Z\n").replace("lon,2010-01-01T02:30:00Z", "lon,off"))
    assert read(path, variables={"drogue_lost_date": "off"}).drogue.tolist() == LOST["2010-01-01T02:30:00Z"]


def test_archives_that_hold_no_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for members, message in (
        (["a.csv", "b.csv"], r"a zip archive of 2 files \(a\.csv, b\.csv\); expected one table. Unpack it"),
        (["[Content_Types].xml", "xl/workbook.xml"], "an Excel workbook.*Save its sheet as csv"),
        (["zarr.json", "lat/zarr.json"], "neither NetCDF, zarr nor csv"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for member in members:
                archive.writestr(member, PLAIN)
        with pytest.raises(DataError, match=message):
            read(path)


def test_a_table_without_a_header_is_read_by_the_numbers_of_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_text("# no names here\n" + "\n".join(ROWS))
    with pytest.raises(
        DataError, match=r"found column 1, column 2, column 3, column 4\. Set drifters\.variables\.time"
    ):
        read(path)
    check(read(path, variables={"id": "column 1", "time": "column 2", "lat": "column 3", "lon": "column 4"}))


def test_a_header_without_fixes_in_a_glob_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}\n")
    with pytest.raises(DataError, match=r"a\.csv is empty"):
        open_drifters(DrifterSource(path=str(tmp_path / "*.csv")))
    (tmp_path / "b.csv").write_text(PLAIN)
    source = open_drifters(DrifterSource(path=str(tmp_path / "*.csv")))
    check(next(source.blocks()))
    assert any(f"1 of 2 files hold no fixes and were skipped, such as {tmp_path / 'a.csv'}" in n for n in source.notes)


def test_a_table_without_ids_is_one_drifter_where_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "spot-0042.csv"
    alone = "\n".join(line.partition(",")[2] for line in PLAIN.splitlines())
    path.write_text(alone)
    source = open_drifters(DrifterSource(path=str(path)))
    check(next(source.blocks()), "spot-0042")
    assert any("every file is one drifter, named by its own name" in note for note in source.notes)
    path.write_text(alone + "\n" + "\n".join(alone.splitlines()[1:]).replace("41.", "44."))
    with pytest.raises(
        DataError, match=r"no 'id' variable.*taken for one drifter, which this cannot be: its times go back 1"
    ):
        read(path)
    path.write_text(alone.replace("41.54", "44.54"))
    with pytest.raises(DataError, match=r"2 of its steps are faster than 15 m/s"):
        read(path)


def test_large_tables_are_checked_to_their_end(tmp_path: Path) -> None:
    """A row that is a cell too long is found wherever it is, not only where pandas looks at first."""
    n = 30_000
    frame = pd.DataFrame(
        {"ID": 7, "time": pd.date_range("2010-01-01", periods=n, freq="h", tz="UTC").strftime("%FT%TZ")}
    )
    frame["lat"], frame["lon"] = np.round(40 + 1e-4 * np.arange(n), 4), np.round(-12 - 1e-4 * np.arange(n), 4)
    text = frame.to_csv(index=False)
    path = tmp_path / "a.csv"
    path.write_text(text)
    np.testing.assert_allclose(read(path).lon, frame.lon, atol=1e-9)
    path.write_text(text.rstrip("\n") + ",99\n")
    with pytest.raises(DataError, match=rf"row {n - 1} has more cells than the header"):
        read(path)
