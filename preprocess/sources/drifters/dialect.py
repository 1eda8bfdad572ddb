"""Dialect of a text table: its compression, encoding, separator, header and line of units.

It is recognised by the first lines of the file, never by its name. ERDDAP's csv has a second line with units, its csvp
has them in the header; Excel writes `;` where the comma is the decimal mark; loggers put comments ahead.
"""

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from driftcal.preprocess.sources.encoding import MISSING
from driftcal.preprocess.sources.variable_roles import listing
from driftcal.shared.errors import DataError

HEAD = 1 << 16
"""Number of bytes from which a dialect is recognised."""

COMPRESSIONS = ((b"\x1f\x8b", "gzip"), (b"BZh", "bz2"), (b"\xfd7zXZ\x00", "xz"), (b"PK\x03\x04", "zip"))
"""First bytes of the archives that a table may lie in, and their names in `Dialect`."""

_OPENERS: dict[str | None, Callable[..., Any]] = {None: open, "gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

_SEPARATORS = (",", ";", "\t", "|")

_BLANKS = r"\s+"

_UNITS_IN_NAME = re.compile(r"(.+?)\s*(?:\((.*)\)|\[(.*)\])")
"""`latitude (degrees_north)` as ERDDAP's csvp writes it, and `lat [deg]`."""

_EXCEL = re.compile(r'"?sep=.?"?')
"""First line in which a table declares its separator for Excel."""


@dataclass(frozen=True)
class Dialect:
    """The dialect of one table.

    Attributes:
        compression: gzip, bz2, xz or zip; None for plain text.
        encoding: Text encoding.
        separator: Separator of cells; a pattern of blanks if blanks separate.
        names: Names of the columns, without units; empty for columns without one, and for all without a header.
        units: Unit of every column, empty if it has none.
        skipped: Lines before the first fix.
        start: The first lines with fixes, as cells.
    """

    compression: str | None
    encoding: str
    separator: str
    names: list[str]
    units: list[str]
    skipped: int
    start: list[list[str]]


def head(path: Path, where: str) -> tuple[str | None, bytes]:
    """Compression of a file, and its first bytes without it.

    Raises:
        DataError: An archive of several files.
        OSError, EOFError, zlib.error, lzma.LZMAError: The file is damaged, or cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(HEAD)
    compression = next((name for magic, name in COMPRESSIONS if start.startswith(magic)), None)
    if compression is None:
        return None, start
    if compression == "zip":
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            if any(member.endswith(("zarr.json", ".zgroup", ".zarray")) for member in members):
                return None, start  # a zarr store, which its reader tells of
            if "xl/workbook.xml" in members:
                raise DataError(
                    f"{where} is an Excel workbook; expected a table in text. Save its sheet as csv (UTF-8)."
                )
            if len(members) != 1:
                raise DataError(
                    f"{where} is a zip archive of {len(members)} files ({listing(members, 4)}); expected one table. "
                    "Unpack it: unzip; and give the files that hold drifters."
                )
            with archive.open(members[0]) as member:
                return compression, member.read(HEAD)
    with _OPENERS[compression](path, "rb") as packed:
        return compression, packed.read(HEAD)


def _members(archive: zipfile.ZipFile) -> list[str]:
    """Files of a zip archive, without those that macOS adds."""
    return [m for m in archive.namelist() if not m.endswith("/") and not m.startswith("__MACOSX/")]


@contextlib.contextmanager
def text(path: Path, dialect: "Dialect") -> Iterator[io.TextIOWrapper]:
    """The table at `path` as text, from its first fix on."""
    with contextlib.ExitStack() as stack:
        if dialect.compression == "zip":
            archive = stack.enter_context(zipfile.ZipFile(path))
            packed: IO[bytes] = stack.enter_context(archive.open(_members(archive)[0]))
        else:
            packed = stack.enter_context(_OPENERS[dialect.compression](path, "rb"))
        lines = stack.enter_context(io.TextIOWrapper(packed, encoding=dialect.encoding, newline=""))
        for _ in range(dialect.skipped):
            lines.readline()
        yield lines


def tell(path: Path, where: str) -> Dialect | None:
    """Dialect of the text table at `path`; None if it is no table.

    Raises:
        DataError: An archive of several files.
        OSError, EOFError, zlib.error, lzma.LZMAError: The file is damaged, or cannot be read.
    """
    compression, start = head(path, where)
    encoding = next((name for bom, name in _BOMS if start.startswith(bom)), "utf-8")
    whole = len(start) < HEAD
    if encoding != "utf-16" and b"\0" in start:
        return None
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start, final=whole)
    except UnicodeDecodeError:
        encoding = "latin-1"
        text = start.decode(encoding)
    if text.lstrip()[:1] in ("", "<", "{", "["):
        return None
    lines = re.split(r"\r\n|\r|\n", text)  # as readline counts them, which splitlines does not
    if not whole:
        lines.pop()  # it may be cut
    return _of_lines(lines, compression, encoding)


def _of_lines(lines: list[str], compression: str | None, encoding: str) -> Dialect | None:
    first = next((k for k, line in enumerate(lines) if line.strip() and not _is_comment(line)), None)
    if first is None:
        first = next((k for k in reversed(range(len(lines))) if lines[k].strip()), 0)
        if _separator(lines[first].lstrip("#%! ")) is None:
            return None
    header = lines[first]
    if _is_comment(header) or _is_data(header):
        # numpy.savetxt and others write the header as the last comment
        before = next((k for k in reversed(range(first + 1)) if _is_comment(lines[k]) and lines[k].strip()), None)
        said = "" if before is None else lines[before].lstrip().lstrip("#%! ")
        if before is not None and (before == first or _width(said) == _width(header)):
            header, first = said, before
    separator = _separator(header)
    if separator is None:
        return None
    if _is_data(header) and any(re.fullmatch(r"[-+]?\d+\.\d+|\d{4}-\d\d-\d\d.*", c) for c in cells(header, separator)):
        rows = [cells(line, separator) for line in lines[first : first + 200] if line.strip()]
        return Dialect(compression, encoding, separator, [""] * len(rows[0]), [""] * len(rows[0]), first, rows)
    rows = [cells(line, separator) for line in lines[first + 1 : first + 200] if line.strip()]
    named = [_UNITS_IN_NAME.fullmatch(cell) for cell in cells(header, separator)]
    names = [m[1] if m else cell for m, cell in zip(named, cells(header, separator), strict=True)]
    units = [(m[2] or m[3] or "") if m else "" for m in named]
    blank = next((k for k, line in enumerate(lines[first + 1 :]) if line.strip()), 0)
    skipped = first + 1
    if rows and _is_units(rows[0], names):
        units = [cell or before for cell, before in zip(rows[0], units, strict=False)]
        units += [""] * (len(names) - len(units))
        rows, skipped = rows[1:], first + 2 + blank
    return Dialect(compression, encoding, separator, names, units, skipped, rows)


def cells(line: str, separator: str) -> list[str]:
    """The cells of one line."""
    if separator == _BLANKS:
        return [cell.strip('"') for cell in line.split()]
    return [
        cell.strip() for cell in next(csv.reader(io.StringIO(line), delimiter=separator, skipinitialspace=True), [])
    ]


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(("#", "%", "//", "!")) or bool(_EXCEL.fullmatch(line.strip()))


def _separator(header: str) -> str | None:
    """Separator of the cells of a header, None if nothing separates them."""
    counts = {s: len(cells(header, s)) for s in _SEPARATORS}
    best = max(counts, key=lambda s: counts[s])
    if counts[best] > 1:
        return best
    return _BLANKS if len(header.split()) > 2 else None


def _width(line: str) -> int:
    """Number of cells of a line."""
    separator = _separator(line)
    return len(cells(line, separator)) if separator else 1


def _is_data(line: str) -> bool:
    """Tells whether a line has numbers in the place of a header's names."""
    separator = _separator(line)
    parts = cells(line, separator) if separator else []
    return sum(bool(re.fullmatch(r"[-+]?\d[\d.,:TZ+\-]*", cell)) for cell in parts) >= 2


def _is_units(row: list[str], names: list[str]) -> bool:
    """Tells whether a line gives units: words where fixes have numbers and times."""
    if len(row) > len(names):
        return False
    words = [cell.lower() for cell in row if cell.lower() not in MISSING]
    epoch = [word for word in words if re.search(r"\bsince\s", word)]
    numbers = [word for word in words if re.search(r"\d", word) and word not in epoch and not _unit_with_digit(word)]
    return bool(words) and not numbers


def _unit_with_digit(word: str) -> bool:
    """Tells whether digits are part of a unit: `m s-1`, `m/s2`, `yyyy-MM-ddTHH:mm:ssZ`, `1`."""
    return bool(re.fullmatch(r"1|[a-z%\u00b0/ .*_^()]+(\(?-?[1-3]\)?[ a-z/.*^]*)*", word))
