"""What is no NetCDF, zarr or table is told by its content, and what a message says to do about it works."""

import bz2
import gzip
import lzma
import shlex
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from driftcal.preprocess.recipe import CurrentSource, DrifterSource
from driftcal.preprocess.sources import files, formats
from driftcal.preprocess.sources.drifters.drifters import open_drifters
from driftcal.preprocess.sources.gridded.open_currents import open_currents
from driftcal.shared.errors import DataError
from tests import fields, sources
from tests.servers import Quiet

LON, LAT = 30 + 0.25 * np.arange(13), -40 + 0.25 * np.arange(11)


@pytest.fixture
def currents(tmp_path: Path) -> Path:
    path = tmp_path / "given" / "currents.nc"
    path.parent.mkdir()
    fields.save(fields.field(LON, LAT, 4), path)
    return path


def message(path: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        open_currents(CurrentSource(path=str(path)))
    return str(caught.value)


def level(path: Path | str) -> np.ndarray:
    return open_currents(CurrentSource(path=str(path))).read(1, 2)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_an_archive_is_unpacked_as_the_message_says(pack, currents: Path) -> None:
    ending = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[pack]
    expected, archive = level(currents), currents.with_name(f"{currents.name}.{ending}")
    archive.write_bytes(pack(currents.read_bytes()))
    currents.unlink()
    said = message(archive)
    command = shlex.split(said.rpartition("Unpack it: ")[2].rstrip("."))
    if shutil.which(command[0]) is None:
        pytest.skip(f"this system lacks {command[0]}")
    subprocess.run(command, check=True)
    assert np.array_equal(level(currents), expected)


@pytest.mark.parametrize("root", ["", "inside/"])
def test_a_zarr_store_in_a_zip_is_unpacked_as_the_message_says(root: str, tmp_path: Path) -> None:
    store, archive = tmp_path / "a.zarr", tmp_path / "currents.zarr.zip"
    fields.save(fields.field(LON, LAT, 4), store)
    expected = level(store)
    with zipfile.ZipFile(archive, "w") as into:
        for file in (f for f in store.rglob("*") if f.is_file()):
            into.write(file, root + file.relative_to(store).as_posix())
    command, _, given = message(archive).rpartition("Unpack it: ")[2].rstrip(".").partition(", and give ")
    with zipfile.ZipFile(archive) as archived:  # as `unzip ... -d` does, which not every system has
        assert command == f"unzip {archive} -d {tmp_path}/currents.zarr"
        archived.extractall(command.rpartition(" -d ")[2])
    assert np.array_equal(level(given), expected)
    assert np.array_equal(level(f"zip://{root.rstrip('/')}::{archive}"), expected)


def test_a_tar_archive_and_a_zip_of_files(currents: Path) -> None:
    for name, what in (("all.tar", "a tar archive"), ("all.zip", "a zip archive")):
        archive = currents.with_name(name)
        if name.endswith("tar"):
            with tarfile.open(archive, "w") as into:
                into.add(currents, "currents.nc")
        else:
            with zipfile.ZipFile(archive, "w") as into:
                into.write(currents, "currents.nc")
        assert f"it is {what}" in message(archive)
        assert str(archive) in message(archive).rpartition("Unpack it: ")[2]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"GRIB\x00\x01\x02\x02" + b"7" * 99, ["GRIB", "cdo -f nc4 copy"]),
        (b'{"version": 1, "refs": {".zgroup": "{}"}}', ["kerchunk reference", "to_zarr"]),
        (b'{"type": "FeatureCollection"}', ["it is JSON"]),
        (b"\n<!DOCTYPE html>\n<html>log in</html>", ["a web page", "fetch again"]),
        (b'<?xml version="1.0"?><ServiceException/>', ["a server's answer"]),
        (b"Error {\n    code = 404;\n};", ["a server's answer"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ["git lfs pull"]),
        (b"\0" * 9000, ["nothing but zeros"]),
        (b"", ["it is empty"]),
        (b"\x0e\x03\x13\x01" + b"1" * 50, ["HDF4"]),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", ["a MATLAB file", "ncwrite"]),
        (b"\x80\x04\x95rest", ["a Python pickle"]),
    ],
)
def test_other_content_is_named_whatever_the_file_is_called(content: bytes, texts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "currents.nc"
    path.write_bytes(content)
    for text in [str(path), *texts]:
        assert text in message(path)
    with pytest.raises(DataError) as caught:
        open_drifters(DrifterSource(path=str(path)))
    for text in [str(path), *texts]:
        assert text in str(caught.value)


def test_an_archive_that_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "all.zip"
    path.write_bytes(b"PK\x03\x04 cut short")
    assert "a damaged zip archive. Fetch it again" in message(path)
    with pytest.raises(DataError, match="etch it again"):
        open_drifters(DrifterSource(path=str(path)))


def test_what_is_read_has_no_remedy(currents: Path, tmp_path: Path) -> None:
    assert formats.tell(currents) == formats.NETCDF
    classic = tmp_path / "classic.nc"
    fields.field(LON, LAT, 2).to_netcdf(classic, format="NETCDF3_64BIT")
    assert formats.tell(classic) == formats.NETCDF
    table = tmp_path / "drifters.csv"
    table.write_text(sources.erddap(sources.tracks()))
    assert formats.tell(table) is None
    assert not formats.NETCDF.remedy


def test_a_folder_of_references_and_an_icechunk_repository(tmp_path: Path) -> None:
    store = tmp_path / "refs"
    fields.save(fields.field(LON, LAT, 4), store.with_suffix(".zarr"))
    store.with_suffix(".zarr").rename(store)
    (store / "ugos" / "refs.0.parq").write_bytes(b"PAR1")
    assert "kerchunk reference" in message(store)
    for name in ("snapshots", "manifests", "refs"):
        (tmp_path / "ice" / name).mkdir(parents=True)
    assert "Icechunk" in message(tmp_path / "ice")


def test_addresses_with_a_query_or_a_fragment(served: tuple[Path, str]) -> None:
    folder, address = served
    fields.save(fields.field(LON, LAT, 4), folder / "currents.nc")
    fields.save(fields.field(LON, LAT, 4), folder / "currents.zarr")
    sources.save(sources.ragged(sources.tracks()), folder / "drifters.nc")
    expected = level(folder / "currents.nc")
    for end in ("?download=1", "?a=1&b=*.nc", "#mode=bytes"):
        assert np.array_equal(level(f"{address}/currents.nc{end}"), expected)
        assert open_drifters(DrifterSource(path=f"{address}/drifters.nc{end}")).n_fixes == 12
    assert "nothing is there" in message(f"{address}/none.nc?download=1")
    assert "s3://" in message(f"{address}/currents.zarr?token=1")
    said = message(f"{address}/thredds/dodsC/currents.nc")
    assert f"{address}/thredds/fileServer/currents.nc" in said


def test_chained_addresses(served: tuple[Path, str]) -> None:
    folder, address = served
    path = folder / "currents.nc"
    fields.save(fields.field(LON, LAT, 4), path)
    expected = level(path)
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(path, "in/currents.nc")
    for inside in ("in/currents.nc", "in/*.nc"):
        assert np.array_equal(level(f"zip://{inside}::{folder}/a.zip"), expected)
    # this server gives no parts of a file; the message says how to read it all the same
    said = message(f"zip://in/currents.nc::{address}/a.zip")
    given = said.rpartition("Let the archive be fetched whole: ")[2].rstrip(".")
    assert np.array_equal(level(given), expected)
    assert "nothing is there" in message(f"zip://none.nc::{folder}/a.zip")
    assert "kerchunk" in message(f"reference://::{folder}/refs.json")


@pytest.fixture(autouse=True)
def _own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server looks for files without what follows a `?`."""
    plain = Quiet.translate_path
    monkeypatch.setattr(Quiet, "translate_path", lambda self, path: plain(self, path.partition("?")[0]))
    files._is_remote_zarr.cache_clear()
    files._download.cache_clear()
