"""Sources behind http: the store is that of the same files on disk, but for what names them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from driftcal.preprocess.__main__ import main
from driftcal.shared.store.verify import verify
from tests import fields, sources
from tests.servers import Quiet

ALWAYS = [10**9]
Capture = pytest.CaptureFixture[str]


def _inputs(folder: Path) -> str:
    """Drifters as NetCDF and zarr and currents as NetCDF and consolidated zarr; the manifest."""
    manifest = fields.small(folder, store={"samples_per_shard": 2})
    lon, lat = 30 + 0.25 * np.arange(29), -40 + 0.25 * np.arange(25)
    fields.save(fields.field(lon, lat, 8), folder / "currents.zarr")
    tracks = [fields.walk(900 + k, 33.0 + 0.1 * k, -37.0, n=49, start=fields.START + 7200 * k) for k in range(6)]
    sources.ragged(tracks).to_zarr(folder / "drifters.zarr", zarr_format=2, consolidated=True)
    return manifest


@pytest.mark.parametrize("drifters", ["drifters.nc", "drifters.zarr"])
@pytest.mark.parametrize("currents", ["currents.nc", "currents.zarr"])
def test_a_store_from_http_is_that_from_disk(
    tmp_path: Path, served: tuple[Path, str], drifters: str, currents: str
) -> None:
    folder, address = served
    manifest = _inputs(folder)
    found = {}
    for name, base in (("local", str(folder)), ("remote", address)):
        out, where = tmp_path / name, ("--set", f"drifters={{path: {base}/{drifters}}}")
        fields.make(manifest, out, *where, "--set", f"currents={{path: {base}/{currents}}}")
        assert verify(out).ok
        found[name] = fields.digests(out), json.loads((out / "manifest.json").read_text())
    (local, mine), (remote, theirs) = found["local"], found["remote"]
    differing = {name for name in local.keys() | remote.keys() if local.get(name) != remote.get(name)}
    assert differing == {"manifest.json"}
    assert json.loads(json.dumps(theirs["notes"]).replace(address, str(folder))) == mine["notes"]
    assert {key for key in mine if mine[key] != theirs[key]} <= {"recipe", "sources", "notes", "digest"}
    for kind, name in (("drifters", drifters), ("currents", currents)):
        assert theirs["sources"][kind][0]["path"] == f"{address}/{name}"
        same = {
            key: value for key, value in theirs["sources"][kind][0].items() if mine["sources"][kind][0][key] == value
        }
        if name.endswith(".nc"):  # of a remote zarr store the metadata alone are fingerprinted
            assert {"files", "bytes", "sha256"} <= set(same)


def test_what_http_says_is_one_message(tmp_path: Path, served: tuple[Path, str], capsys: Capture) -> None:
    folder, address = served
    manifest, out = _inputs(folder), tmp_path / "store"

    def refused(path: str) -> str:
        capsys.readouterr()
        assert main([manifest, "--out", str(out), "--set", f"currents={{path: '{path}'}}"]) == 1
        said = capsys.readouterr().err
        assert "Traceback" not in said
        (error,) = (line for line in said.splitlines() if line.startswith("error: "))
        assert f"currents {path}" in error
        assert not (out / "manifest.json").exists()
        return error

    for name in ("none.nc", "none.zarr"):
        assert "nothing is there; expected a file" in refused(f"{address}/{name}")
    assert re.search("cannot be reached .ClientConnectorError.*Check the address", refused("http://127.0.0.1:9/a.nc"))
    Quiet.fails = {"/currents.nc": (503, ALWAYS)}
    assert "cannot be reached (ClientResponseError: 503" in refused(f"{address}/currents.nc")
    Quiet.fails = {"/currents.zarr/ugos/1": (500, ALWAYS)}
    assert "ugos, levels 4 to 4, cannot be read (ClientResponseError: 500" in refused(f"{address}/currents.zarr")
    Quiet.fails = {"/currents.zarr/vgos/1": (403, ALWAYS)}
    assert "vgos, levels 4 to 4, cannot be read (ClientResponseError: 403" in refused(f"{address}/currents.zarr")
    Quiet.fails = {}
    (folder / "currents.zarr" / "vgos" / "1.0.0").unlink()
    # a chunk that is missing is no current, and counted as such
    assert main([manifest, "--out", str(out), "--set", f"currents={{path: {address}/currents.zarr}}"]) == 1
    assert "6 of 6 windows, 'currents missing at times in the window'" in capsys.readouterr().err


def test_without_aiohttp_a_message_says_what_to_install(tmp_path: Path) -> None:
    manifest = fields.small(tmp_path / "input")
    script = (
        "import sys; sys.modules['aiohttp'] = None; from driftcal.preprocess.__main__ import main; sys.exit(main())"
    )
    tree = "currents={path: http://127.0.0.1:9/currents.nc}"
    command = [sys.executable, "-c", script, manifest, "--out", str(tmp_path / "store"), "--set", tree]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'cannot be reached (ImportError: HTTPFileSystem requires "requests" and "aiohttp"' in done.stderr


def test_a_web_server_that_is_ill_in_passing_is_asked_again(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    manifest = _inputs(folder)
    where = [f"currents={{path: {address}/currents.zarr}}", f"drifters={{path: {address}/drifters.nc}}"]
    options = [word for tree in where for word in ("--set", tree)]
    fields.make(manifest, tmp_path / "whole", *options)
    Quiet.fails = {"/currents.zarr/ugos/1": (503, [3]), "/currents.zarr/vgos/0": (500, [1])}
    fields.make(manifest, tmp_path / "store", *options)
    assert [left for _, (left,) in Quiet.fails.values()] == [0, 0]
    assert fields.digests(tmp_path / "store") == fields.digests(tmp_path / "whole")


def test_a_zarr_store_on_a_server_without_folders(tmp_path: Path, served: tuple[Path, str]) -> None:
    """As object stores serve them."""
    folder, address = served
    manifest = _inputs(folder)
    Quiet.folders = False
    store = fields.make(manifest, tmp_path / "store", "--set", f"currents={{path: {address}/currents.zarr}}")
    assert store.currents.read([0]).any()
