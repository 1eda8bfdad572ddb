"""File formats, recognised by their first bytes, and advice on those that are not read.

File names prove little: a download may be a login page named `currents.nc`, an archive, or the pointer to a file that
was never fetched. NetCDF, zarr and tables are read; for everything else a message names the format and the command
that converts it.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

START = 4096
"""Number of bytes from which a format is recognised."""

_TO_NETCDF = "Convert it to NetCDF"
_FROM_GEOTIFF = f"{_TO_NETCDF}, for example with: gdal_translate -of netCDF {{path}} {{stem}}.nc"


@dataclass(frozen=True)
class Format:
    """A file format: its name, and a remedy."""

    name: str
    remedy: str = ""
    """Remedy that makes it readable; empty for formats that are read as they are."""


NETCDF = Format("NetCDF")
PARQUET = Format("Parquet")

_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"CDF\x01", NETCDF),
    (b"CDF\x02", NETCDF),
    (b"CDF\x05", NETCDF),
    (b"\x89HDF\r\n\x1a\n", NETCDF),
    (b"PAR1", PARQUET),
    (b"\x1f\x8b", Format("a gzip archive", "Unpack it: gunzip {path}")),
    (b"BZh", Format("a bzip2 archive", "Unpack it: bunzip2 {path}")),
    (b"\xfd7zXZ\x00", Format("an xz archive", "Unpack it: unxz {path}")),
    (b"\x28\xb5\x2f\xfd", Format("a zstandard archive", "Unpack it: unzstd {path}")),
    (b"\x1f\x9d", Format("a compress archive", "Unpack it: uncompress {path}")),
    (b"7z\xbc\xaf\x27\x1c", Format("a 7-Zip archive", "Unpack it: 7z x {path}")),
    (b"Rar!", Format("a RAR archive", "Unpack it: unrar x {path}")),
    (b"GRIB", Format("GRIB", f"{_TO_NETCDF}, for example with: cdo -f nc4 copy {{path}} {{stem}}.nc")),
    (b"BUFR", Format("BUFR", f"{_TO_NETCDF} with ecCodes, or fetch the product as NetCDF")),
    (b"\x0e\x03\x13\x01", Format("HDF4", f"{_TO_NETCDF}, for example with: ncks {{path}} {{stem}}.nc")),
    (b"\xcd\xf3\x00\x01", Format("NASA CDF", f"{_TO_NETCDF} (cdf2nc)")),
    (b"\xcd\xf2\x60\x02", Format("NASA CDF", f"{_TO_NETCDF} (cdf2nc)")),
    (b"MATLAB", Format("a MATLAB file", "Write its variables as NetCDF in MATLAB (nccreate, ncwrite)")),
    (b"SIMPLE  =", Format("FITS", _TO_NETCDF)),
    (b"II*\x00", Format("a GeoTIFF", _FROM_GEOTIFF)),
    (b"MM\x00*", Format("a GeoTIFF", _FROM_GEOTIFF)),
    (b"ARROW1", Format("Feather", "Write it as Parquet or csv")),
    (b"%PDF", Format("a PDF", "Give the data themselves")),
    (b"\x80\x04\x95", Format("a Python pickle", "Write its content as NetCDF, Parquet or csv: a pickle can run code")),
    (b"\x80\x05\x95", Format("a Python pickle", "Write its content as NetCDF, Parquet or csv: a pickle can run code")),
    (b"\x93NUMPY", Format("a numpy array", "Write it as NetCDF with its coordinates")),
    (b"version https://git-lfs", Format("the pointer to a file that was not fetched", "Fetch it: git lfs pull")),
    (b"/annex/objects", Format("the pointer to a file that was not fetched", "Fetch it: git annex get")),
)  # fmt: skip

_WEB_PAGE = Format(
    "a web page", "The address or the login was wrong: open the file in a browser to read what it says, and fetch again"
)
_ANSWER = Format(
    "a server's answer in text", "Open it in an editor to read what the server said, and fetch the file again"
)
REFERENCES = Format(
    "a kerchunk reference file",
    "Write what it refers to as zarr, in Python with the package kerchunk: xarray.open_dataset({path!r}, "
    "engine='kerchunk').to_zarr({stem!r} + '.zarr'), and give that; or give the original files",
)
_JSON = Format("JSON", "Write its content as NetCDF, zarr or csv")
_TAR = Format("a tar archive", "Unpack it: tar -xf {path}")
_ZEROS = Format("nothing but zeros", "A download broke off or was never begun: fetch it again")
_EMPTY = Format("empty", "A download broke off: fetch it again")


def of(start: bytes, size: int | None = None) -> Format | None:
    """Format of a file that begins with the bytes `start`; None for what is not known, tables in text among it.

    Args:
        start: Its first `START` bytes, or all of it.
        size: Size of the whole file [bytes], if known.
    """
    if not start and not size:
        return _EMPTY
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if start[257:262] == b"ustar":
        return _TAR
    if not start.strip(b"\0"):
        return _ZEROS
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = text[:200].lower()
    if lower.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return _WEB_PAGE
    if lower.startswith((b"<", b"error {", b"dataset {")):
        return _ANSWER
    if text.startswith((b"{", b"[")):
        return REFERENCES if b'"refs"' in start or b'.zgroup"' in start or b'.zarray"' in start else _JSON
    return None


def inside_zip(path: Path) -> Format:
    """A zip archive as a `Format`, with a remedy for its content."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return Format("a damaged zip archive", "Fetch it again")
    store = next((PurePosixPath(m) for m in members if PurePosixPath(m).name in ("zarr.json", ".zgroup")), None)
    if store is None:
        return Format("a zip archive", "Unpack it: unzip {path}")
    inside = "" if str(store.parent) == "." else f"/{store.parent}".replace("{", "{{").replace("}", "}}")
    return Format(
        "a zarr store in a zip archive", f"Unpack it: unzip {{path}} -d {{stem}}.zarr, and give {{stem}}.zarr{inside}"
    )


def tell(path: Path) -> Format | None:
    """Format of the file at `path`, None for what is not known.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(START)
    if start.startswith(b"PK\x03\x04"):
        return inside_zip(path)
    return of(start, path.stat().st_size)


def advice(kind: Format, path: str) -> str:
    """End of a message: the format of the file at `path`, and the remedy; a URL is named by its last part."""
    address = path.rpartition("::")[2].partition("?")[0]
    name = (PurePosixPath(address).name if "://" in address else address) or path
    place = PurePosixPath(name)
    stem = str(place.with_name(place.name.partition(".")[0] or place.name))
    remedy = kind.remedy.format(path=name, stem=stem)
    return f"it is {kind.name}. {remedy}{'' if remedy.endswith('.') else '.'}"
