"""Files that systems leave behind, in stores, beside sources and where a store is to be made."""

import errno
import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from driftcal.preprocess.__main__ import main
from driftcal.preprocess.made.eddying_ocean import write_currents
from driftcal.preprocess.recipe import Synthetic
from driftcal.preprocess.sources import files, fingerprint
from driftcal.shared.disk import durable, litter
from driftcal.shared.errors import StoreError
from driftcal.shared.inspection import text
from driftcal.shared.store.verify import verify
from tests import fields, stores

LEFT = (".DS_Store", "currents/._c", "positions/c/.nfs00000000a1b2", "Thumbs.db", "desktop.ini",
        "split/.fuse_hidden0004", ".gitkeep", "lost+found/#123", "@eaDir/zarr.json@SynoEAStream",
        ".snapshot/hourly.0/manifest.json", "status/c/Icon\r")  # fmt: skip


def leave(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0\0\0\1Bud1")


def test_what_systems_leave_in_a_store_is_noted_and_no_damage(tmp_path: Path) -> None:
    built = stores.build(tmp_path / "store")
    leave(built.path, *LEFT, "currents/c/.DS_Store")
    verdict = verify(built.path)
    assert verdict.ok, verdict.problem
    (note,) = verdict.notes
    assert note.startswith("left behind by the system, and looked at by no reader: .DS_Store (2), ")
    for name in ("._c", ".nfs00000000a1b2", "lost+found", "@eaDir"):
        assert name in note
    assert note.endswith(" and 1 more.")
    assert "note: left behind by the system" in text.render_verdict(verdict, "store")


@pytest.mark.parametrize(
    "name",
    ["currents/c/3/0/0/0/0", "salinity/zarr.json", "zarr.json.bak", "currents/c/0/0/0/0/0~", ".zarr.json", "DS_Store",
     "nfs0001", "manifest (conflicted copy).json", ".manifest.json.swp", "split/c/Thumbs.db/0", ".DS_Store/c/0"],
)  # fmt: skip
def test_what_could_be_content_stays_damage(tmp_path: Path, name: str) -> None:
    built = stores.build(tmp_path / "store")
    leave(built.path, name)
    verdict = verify(built.path)
    assert not verdict.ok
    assert f"{name}: a file that the manifest does not list" in str(verdict.problem)


def test_a_link_of_such_a_name_may_still_lead_out(tmp_path: Path) -> None:
    built = stores.build(tmp_path / "store")
    (built.path / ".snapshot").symlink_to(tmp_path)
    assert ".snapshot: a link, which may lead out" in str(verify(built.path).problem)


def test_a_folder_of_litter_is_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root may look into lost+found."""
    built = stores.build(tmp_path / "store")
    leave(built.path, "lost+found/x")
    true = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("lost+found"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return true(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert verify(built.path).ok


def test_a_store_is_made_continued_and_replaced_among_litter(tmp_path: Path) -> None:
    manifest = fields.small(tmp_path / "input", store={"samples_per_shard": 2})
    out = tmp_path / "store"
    leave(out, ".DS_Store", "lost+found/x", ".building/.nfs0001", ".building/.DS_Store")
    fields.make(manifest, out)
    assert not (out / ".building").exists()
    due = fields.digests(out)
    leave(out, "currents/.DS_Store")
    assert main([manifest, "--out", str(out)]) == 0
    assert main([manifest, "--out", str(out), "--overwrite"]) == 0
    assert fields.digests(out) == due  # .DS_Store and lost+found of the top among them
    assert verify(out).ok
    leave(tmp_path / "other", ".DS_Store", "notes.txt")
    assert main([manifest, "--out", str(tmp_path / "other")]) == 2


def test_what_a_network_file_system_keeps_stands_in_no_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is open elsewhere stays as .nfs*, and can be deleted by nobody."""
    true = os.unlink

    def unlink(path: Any, *more: Any, **named: Any) -> None:
        if Path(path).name.startswith((".nfs", "kept")):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        true(path, *more, **named)

    monkeypatch.setattr(os, "unlink", unlink)
    leave(tmp_path / "array", "c/0", "c/.nfs0001", "zarr.json")
    durable.remove(tmp_path / "array")
    assert [str(path.relative_to(tmp_path)) for path, _ in litter.walk(tmp_path)] == ["array/c/.nfs0001"]
    leave(tmp_path / "array", "c/kept")
    with pytest.raises(StoreError, match=r"cannot delete .*kept: Device or resource busy"):
        durable.remove(tmp_path / "array")

    manifest = fields.small(tmp_path / "input", store={"samples_per_shard": 2})
    out = fields.make(manifest, tmp_path / "store").root
    due = fields.digests(out)
    leave(out, "positions/c/.nfs0002", ".building/.nfs0003")
    assert main([manifest, "--out", str(out), "--overwrite"]) == 0
    monkeypatch.undo()
    left = {name: digest for name, digest in fields.digests(out).items() if name not in due}
    assert set(left) == {"positions/c/.nfs0002", ".building/.nfs0003"}
    assert {**due, **left} == fields.digests(out)
    assert verify(out).ok


@pytest.mark.parametrize("consolidated", [True, False])
def test_a_source_is_the_same_with_litter(tmp_path: Path, consolidated: bool) -> None:
    """Its fingerprint and state, and with them what a store was begun from."""
    lon, lat = 30 + 0.25 * np.arange(29), -40 + 0.25 * np.arange(25)
    drifters = fields.small(tmp_path / "input") and str(tmp_path / "input" / "drifters.nc")
    path = Path(fields.save(fields.field(lon, lat, 8), tmp_path / "currents.zarr"))
    if not consolidated:
        (path / ".zmetadata").unlink()
    shape = {"segment": {"days": 2}, "window": {"half_width_deg": 1.0}}
    manifest = fields.manifest(tmp_path, drifters, str(path), **shape)
    before = fingerprint.entries([str(path)], "currents")
    out = fields.make(manifest, tmp_path / "store").root
    due = fields.digests(out)
    leave(path, ".DS_Store", "ugos/._0.0.0", "@eaDir/ugos", "vgos/.nfs0001")
    assert fingerprint.entries([str(path)], "currents") == before
    assert main([manifest, "--out", str(out)]) == 0
    assert fields.digests(fields.make(manifest, tmp_path / "again").root) == due
    leave(path, "ugos/9.0.0")
    assert len(fingerprint.entries([str(path)], "currents")) == len(before) + 1


def test_a_glob_takes_no_litter(tmp_path: Path) -> None:
    leave(tmp_path, "a/x.nc", "a/._x.nc", "#recycle/x.nc", "b/@eaDir/x.nc", "~snapshot/daily/a/x.nc", "b/y.nc")
    found = files.find(str(tmp_path / "**" / "*.nc"), "currents")
    assert [str(Path(name).relative_to(tmp_path)) for name in found] == ["a/x.nc", "b/y.nc"]
    named = files.find(str(tmp_path / "~snapshot" / "*" / "*" / "*.nc"), "currents")
    assert [str(Path(name).relative_to(tmp_path)) for name in named] == ["~snapshot/daily/a/x.nc"]


def test_a_remote_glob_takes_no_litter(tmp_path: Path) -> None:
    leave(tmp_path, "x.nc", "._x.nc")
    memory = fsspec.filesystem("memory")
    for name in ("x.nc", "._x.nc"):
        memory.pipe(f"/litter/{name}", b"")
    assert files.find("memory://litter/*.nc", "currents") == ["memory:///litter/x.nc"]


def test_a_made_ocean_is_replaced_beside_litter(tmp_path: Path) -> None:
    made = Synthetic(folder=str(tmp_path), days=10, resolution_deg=1.0, lon=(160.0, 174.0), lat=(20.0, 32.0))
    leave(tmp_path, "currents/._currents_201001.nc", "currents/.DS_Store")
    for _ in range(2):
        assert [path.name for path in write_currents(made, tmp_path / "currents")] == ["currents_201001.nc"]
