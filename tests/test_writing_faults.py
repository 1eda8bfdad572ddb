"""Disks that fail, and what must not matter: schedulers, places, clocks, memory."""

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from benchmarks.preprocessing import counting
from driftcal.preprocess.__main__ import main
from driftcal.preprocess.sources import files
from driftcal.preprocess.writing import cluster as cluster_module
from driftcal.preprocess.writing import estimate, shard_task
from driftcal.shared.disk import durable
from driftcal.shared.errors import StoreError
from tests import fields, kill_preprocess
from tests.disks import Failing

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def manifest_and_digests(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """A manifest of six samples in three shards, and the digests of its store."""
    folder = tmp_path_factory.mktemp("faults")
    manifest = fields.small(folder / "input", store={"samples_per_shard": 2})
    fields.make(manifest, folder / "whole", "--scheduler", "synchronous")
    return manifest, fields.digests(folder / "whole")


def count(monkeypatch: pytest.MonkeyPatch, calls: tuple[str, ...], manifest: str, out: Path) -> int:
    """How many such calls a run makes."""
    counter = Failing(calls, 10**9, errno.EIO)
    with monkeypatch.context() as patched:
        patched.setattr(durable, "os", counter)
        assert main([manifest, "--out", str(out), "--scheduler", "synchronous"]) == 0
    return 10**9 - counter.left


FAULTS = [
    (("writev",), errno.ENOSPC, "No space left on device. Free some room"),
    (("writev",), errno.EIO, "Input/output error. The disk or the file system failed"),
    (("fsync",), errno.EIO, "Input/output error. The disk or the file system failed"),
    (("replace",), errno.EIO, "Input/output error. The disk or the file system failed"),
    (("open",), errno.ENOSPC, "No space left on device"),
    (("mkdir",), errno.ENOSPC, "No space left on device. Free some room"),
    (("link",), errno.EIO, "Input/output error"),
    (("unlink",), errno.EIO, "Input/output error. If another run writes there"),
]
KINDS = ["full", "write", "fsync", "rename", "create", "folder", "link", "delete"]


def fail_and_continue(
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    manifest_and_digests: tuple[str, dict[str, str]],
    out: Path,
    fault: Any,
    nth: int,
) -> None:
    calls, number, said = fault
    command = [manifest_and_digests[0], "--out", str(out), "--scheduler", "synchronous"]
    with monkeypatch.context() as patched:
        patched.setattr(durable, "os", Failing(calls, nth, number))
        code = main(command)
    error = capsys.readouterr().err
    begun = f"cannot write {out / '.building'}:" not in error or "note: " in error  # else it is a wrong --out
    assert code == (1 if begun else 2), (nth, error)
    assert re.search(f"error: (cannot (write|delete) .*|.* cannot be used .*){said}", error), error
    assert "Traceback" not in error
    if (out / "manifest.json").exists():  # whole: only the sync of its folder failed, or the clearing up
        assert calls in (("fsync",), ("open",), ("unlink",))
    for name, digest in fields.digests(out).items():
        if ".building" not in name:
            assert manifest_and_digests[1].get(name) == digest, (
                nth,
                name,
            )  # what is published is whole; no temporary is left
    assert main(command) == 0
    assert fields.digests(out) == manifest_and_digests[1]
    assert kill_preprocess.left(out) == []
    capsys.readouterr()


@pytest.mark.parametrize("fault", FAULTS, ids=KINDS)
def test_a_disk_that_fails_leaves_nothing_that_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    manifest_and_digests: tuple[str, dict[str, str]],
    fault: Any,
) -> None:
    total = count(monkeypatch, fault[0], manifest_and_digests[0], tmp_path / "count")
    capsys.readouterr()
    for nth in np.linspace(1, total, 4).astype(int):
        fail_and_continue(monkeypatch, capsys, manifest_and_digests, tmp_path / f"s{nth}", fault, int(nth))


@pytest.mark.faults
@pytest.mark.parametrize("fault", FAULTS, ids=KINDS)
def test_a_disk_that_fails_at_every_call_leaves_nothing_that_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    manifest_and_digests: tuple[str, dict[str, str]],
    fault: Any,
) -> None:
    total = count(monkeypatch, fault[0], manifest_and_digests[0], tmp_path / "count")
    capsys.readouterr()
    for nth in range(1, total + 1):
        fail_and_continue(monkeypatch, capsys, manifest_and_digests, tmp_path / f"s{nth}", fault, nth)
    print(f"{fault[0][0]}, {errno.errorcode[fault[1]]}: failed at each of {total} calls, every store identical")


class Watched:
    """`os` as `disk.durable` calls it, every call noted with the path that it is about."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Path]] = []
        self._opened: dict[int, Path] = {}

    def __getattr__(self, name: str) -> Any:
        true = getattr(os, name)
        if name not in ("open", "writev", "fsync", "replace", "mkdir", "link", "unlink"):
            return true

        def call(*arguments: Any) -> Any:
            about = arguments[1] if name == "replace" else arguments[0]
            result = true(*arguments)
            if name == "open":
                self._opened[result] = Path(about)
            else:
                self.calls.append((name, self._opened[about] if name in ("writev", "fsync") else Path(about)))
            return result

        return call


def test_what_is_written_is_durable_before_anything_refers_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    """The order of calls that a loss of power goes by, which no kill of a process can show."""
    out, watched = tmp_path / "deep" / "store", Watched()
    with monkeypatch.context() as patched:
        patched.setattr(durable, "os", watched)
        assert main([manifest_and_digests[0], "--out", str(out), "--scheduler", "synchronous"]) == 0
    calls = watched.calls
    renamed = [(k, path) for k, (name, path) in enumerate(calls) if name == "replace"]
    for k, path in renamed:
        earlier = [
            name for name, about in calls[:k] if about.name.startswith(f".{path.name}.") and path.parent == about.parent
        ]
        assert earlier[-2:] == ["writev", "fsync"]  # all of it synced, and then its name
        assert calls[k + 1] == ("fsync", path.parent)
    # every folder's own name too, before anything goes into it
    folders = [(k, path) for k, (name, path) in enumerate(calls) if name == "mkdir"]
    assert {out.parent, out, out / ".building", out / "currents" / "c"} <= {path for _, path in folders}
    assert all(calls[k + 1] == ("fsync", path.parent) for k, path in folders)
    assert {path for path in [out, *out.rglob("*")] if path.is_dir()} <= {path for _, path in folders}
    order = [path.relative_to(out).as_posix() for _, path in renamed]
    assert order[-1] == "manifest.json"
    for k in range(3):
        mark = order.index(f".building/done-{k:06d}.json")
        files = [place for place, name in enumerate(order) if re.fullmatch(rf"\w+/c/{k}(/0)*", name)]
        assert len(files) == 13
        assert max(files) < mark


def test_the_folders_of_a_process_that_died_are_durable_before_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    """It may have died after a folder was made and before its name was synced."""
    out, watched = tmp_path / "deep" / "store", Watched()
    command = [manifest_and_digests[0], "--out", str(out), "--scheduler", "synchronous"]
    assert kill_preprocess.run(command, tmp_path / "said.txt", crash="mark: begins@2").code == kill_preprocess.KILLED
    found = {path for path in out.rglob("*") if path.is_dir()}
    with monkeypatch.context() as patched:
        patched.setattr(durable, "os", watched)
        assert main(command) == 0
    written = [(k, path.parent) for k, (name, path) in enumerate(watched.calls) if name == "writev"]
    used = {folder: k for k, folder in reversed(written) if folder in found}
    assert {out / ".building", out / "origin" / "c" / "1", out / "drogue" / "c"} <= set(used)
    for folder, k in used.items():
        assert ("fsync", folder.parent) in watched.calls[:k], folder


def test_a_folder_whose_own_cannot_be_synced_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the mount point of a scratch file system, whose parent nobody may open; but not on a disk that fails."""
    monkeypatch.setattr(durable, "os", Failing(("open",), 1, errno.EACCES))
    durable.make_folder(tmp_path)
    monkeypatch.setattr(durable, "os", Failing(("fsync",), 1, errno.EIO))
    with pytest.raises(StoreError, match=r"Input/output error\. The disk or the file system failed"):
        durable.make_folder(tmp_path)


def none(*_: Any) -> None:
    """A call that a file system does not have."""
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def test_a_drive_is_told_to_empty_its_cache_where_fsync_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS."""
    asked: list[int] = []
    monkeypatch.setattr(durable.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(durable.fcntl, "fcntl", lambda number, what: asked.append(what))
    durable.write(tmp_path / "a", b"x")
    assert asked == [51, 51]  # the file, its folder
    watched = Watched()
    monkeypatch.setattr(durable, "os", watched)
    monkeypatch.setattr(durable.fcntl, "fcntl", none)  # a file system that has none of it
    durable.write(tmp_path / "b", b"x")
    assert [name for name, _ in watched.calls].count("fsync") == 2


@pytest.mark.parametrize("most", [1, 3, 1000, 10**6])
@pytest.mark.parametrize("at_once", [1, 7, 2000, 64 * 2**20])
def test_writes_are_bounded_and_continued_where_they_are_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, at_once: int
) -> None:
    """As by a signal: the call says how much it has taken."""
    rng = np.random.default_rng(most)
    parts = [memoryview(rng.bytes(size)) for size in [*rng.integers(0, 9, 700).tolist(), 5000, 0]]

    class Short:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def writev(self, number: int, given: Any) -> int:
            assert 0 < sum(map(len, given)) <= at_once
            assert len(given) <= durable.AT_ONCE
            return os.write(number, b"".join(given)[:most])

    monkeypatch.setattr(durable, "os", Short())
    monkeypatch.setattr(durable, "BYTES_AT_ONCE", at_once)
    durable.write(tmp_path / "a", parts)
    assert (tmp_path / "a").read_bytes() == b"".join(parts)
    durable.write(tmp_path / "b", b"1234567")
    assert (tmp_path / "b").read_bytes() == b"1234567"
    durable.write(tmp_path / "c", b"")
    assert (tmp_path / "c").read_bytes() == b""


def test_no_empty_lock_is_left_where_there_are_no_links_and_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would name nobody, and every later run would wait for nobody."""
    (tmp_path / "claim").write_bytes(b"{}")
    monkeypatch.setattr(durable, "os", failing := Failing(("writev",), 1, errno.ENOSPC))
    monkeypatch.setattr(failing, "link", none, raising=False)
    with pytest.raises(OSError, match="No space left on device"):
        durable.claim(tmp_path / "gate", tmp_path / "claim")
    assert not (tmp_path / "gate").exists()
    failing.left = 10**9
    assert durable.claim(tmp_path / "gate", tmp_path / "claim")
    assert not durable.claim(tmp_path / "gate", tmp_path / "claim")


# Reads that fail; and sources behind URLs


class Flaky(MemoryFileSystem):
    """Files in memory whose n-th reading and some that follow fail."""

    protocol = "flaky"
    store = MemoryFileSystem.store
    pseudo_dirs = MemoryFileSystem.pseudo_dirs
    at, times, seen = 0, 0, 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        Flaky.seen += 1
        if Flaky.at <= Flaky.seen < Flaky.at + Flaky.times:
            raise OSError(errno.EIO, "Input/output error")
        return super().cat_file(path, *arguments, **options)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command for currents in memory, as zarr behind a URL."""
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0, 0.0))
    manifest = fields.small(tmp_path / "input", store={"samples_per_shard": 2})
    lon, lat = 30 + 0.25 * np.arange(29), -40 + 0.25 * np.arange(25)
    fields.field(lon, lat, 8).to_zarr("memory://faults/currents.zarr", zarr_format=2, consolidated=True, mode="w")
    return [manifest, "--scheduler", "synchronous", "--set", "currents={path: flaky://faults/currents.zarr}"]


def test_a_read_that_fails_is_tried_three_times_more(tmp_path: Path, remote: list[str], capsys: Capture) -> None:
    Flaky.at, Flaky.times, Flaky.seen = 0, 0, 0
    assert main([*remote, "--out", str(tmp_path / "whole")]) == 0
    due, total = fields.digests(tmp_path / "whole"), Flaky.seen
    assert total > 20
    for nth in np.linspace(1, total, 6).astype(int):
        Flaky.at, Flaky.times, Flaky.seen = int(nth), 1, 0
        assert main([*remote, "--out", str(tmp_path / f"s{nth}")]) == 0
        assert fields.digests(tmp_path / f"s{nth}") == due
    Flaky.at, Flaky.times, Flaky.seen = total // 2, 10**9, 0
    capsys.readouterr()
    out = tmp_path / "broken"
    assert main([*remote, "--out", str(out)]) == 1
    assert Flaky.seen < total // 2 + 4 * 4  # four tries; opening a store reads several documents at once
    error = capsys.readouterr().err
    assert "Input/output error" in error
    assert "flaky://faults/currents.zarr" in error
    assert not (out / "manifest.json").exists()
    Flaky.times = 0
    assert main([*remote, "--out", str(out)]) == 0
    assert fields.digests(out) == due


# Places, clocks, locales, schedulers, permissions


# A process in which the clock leaps at every look, and which is where and what it is told to be.
ELSEWHERE = """
import os, sys, time
from importlib import import_module

zone, encoding, leap, module, *arguments = sys.argv[1:]
assert time.timezone == int(zone), time.timezone
assert sys.getfilesystemencoding() == encoding, sys.getfilesystemencoding()
assert "HOME" not in os.environ
true, looks = time.time, [0]

def leaping():
    looks[0] += 1
    return true() + float(leap) * (looks[0] % 3)

time.time = leaping
sys.exit(import_module(module).main(arguments))
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def elsewhere(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command 14 hours east of Greenwich, in a locale without any but ASCII letters, and without a home."""
    environment = {"PATH": os.environ["PATH"], "TZ": "EAST-14", **ASCII}
    command = [sys.executable, "-c", ELSEWHERE, "-50400", "ascii", "1e9", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the encoding of paths is UTF-8 in any locale")


@LINUX
def test_neither_place_nor_clock_nor_locale_matters(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    place = tmp_path / "a b" / "größe Ω"
    place.mkdir(parents=True)
    (tmp_path / "link").symlink_to(place, target_is_directory=True)
    out = tmp_path / "link" / "the store"
    ended = elsewhere(
        "driftcal.preprocess.__main__",
        manifest_and_digests[0],
        "--out",
        str(out),
        "--workers",
        "2",
        "--scheduler",
        "threads",
    )
    assert ended.returncode == 0, ended.stderr
    assert fields.digests(out) == manifest_and_digests[1]
    assert "0.25\\xb0" in ended.stdout  # the degree sign
    ended = elsewhere("driftcal.shared.__main__", "verify", str(out))
    assert ended.returncode == 0, ended.stderr


@LINUX
@pytest.mark.faults
def test_a_store_is_inspected_and_trained_from_in_any_place_and_locale(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    place = tmp_path / "größe Ω"
    place.mkdir()
    out = str(fields.make(manifest_and_digests[0], place / "store").root)
    raw = str(fields.make(manifest_and_digests[0], place / "raw", "--set", "store.compression=none").root)
    few = ("ensemble.members=3", "optimizer.final_passes=1", "score.reference_members=2")
    options = [word for setting in few for word in ("--set", setting)]
    for module, *command in (
        ("driftcal.shared.__main__", "show", out),
        ("driftcal.shared.__main__", "sample", out, "3"),
        ("driftcal.shared.__main__", "plot", out, "--out", str(place / "figures")),
        ("driftcal.train.__main__", "run", out, "--out", str(place / "run"), *options),
        ("driftcal.train.__main__", "run", raw, "--out", str(place / "raw run"), *options),
        ("driftcal.train.__main__", "evaluate", str(place / "run"), out, "--split", "train"),
    ):
        ended = elsewhere(module, *command)
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr
    assert fields.digests(Path(out)) == manifest_and_digests[1]


@LINUX
def test_a_path_that_the_locale_cannot_write_is_one_message(tmp_path: Path) -> None:
    manifest = fields.small(tmp_path / "größe Ω")
    ended = elsewhere("driftcal.preprocess.__main__", manifest, "--out", str(tmp_path / "store"))
    assert ended.returncode == 2
    said = r"^error: '.*cannot be written in ascii, this locale's encoding of paths\. Set PYTHONUTF8=1, or LC_ALL .*\n$"
    assert re.search(said, ended.stderr), ended.stderr


def test_time_zone_and_clock_of_the_other_hemisphere_change_no_byte(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    command = [
        sys.executable,
        "-c",
        ELSEWHERE,
        "12600",
        "utf-8",
        "-86400",
        "driftcal.preprocess.__main__",
        manifest_and_digests[0],
    ]
    environment = {"PATH": os.environ["PATH"], "TZ": "WEST+3:30SUMMER", "LC_ALL": "C.UTF-8"}
    out = tmp_path / "store"
    subprocess.run([*command, "--out", str(out)], env=environment, capture_output=True, check=True)
    assert fields.digests(out) == manifest_and_digests[1]


def test_a_cluster_makes_the_same_bytes(tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0",
                                  protocol="tcp://", host="127.0.0.1") as cluster:  # fmt: skip
        fields.make(manifest_and_digests[0], tmp_path / "store", "--scheduler", cluster.scheduler_address)
    assert fields.digests(tmp_path / "store") == manifest_and_digests[1]


def test_a_cluster_is_given_few_shards_at_a_time(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them would take memory that grows with the store, in the client and in the scheduler."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(cluster_module, "AHEAD", 1)
    true, order = distributed.Client.submit, []

    def submit(client: Any, make: Any, *task: Any, **options: Any) -> Any:
        order.append(len(list((tmp_path / "store" / ".building").glob("done-*"))))
        return true(client, make, *task, **options)

    monkeypatch.setattr(distributed.Client, "submit", submit)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0",
                                  protocol="tcp://", host="127.0.0.1") as cluster:  # fmt: skip
        fields.make(manifest_and_digests[0], tmp_path / "store", "--scheduler", cluster.scheduler_address)
    assert order[:2] == [0, 0]  # twice the threads
    assert order[2] >= 1
    assert fields.digests(tmp_path / "store") == manifest_and_digests[1]


def test_workers_may_run_in_another_folder(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a cluster, where --out is relative."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def elsewhere(pending: shard_task.Pending) -> int:
        task = pending.task()  # sent from here
        with contextlib.chdir(tmp_path / "elsewhere"):
            return shard_task.write_shard(task)

    monkeypatch.setattr(shard_task, "make_shard", elsewhere)
    assert main([manifest_and_digests[0], "--out", "store", "--scheduler", "synchronous"]) == 0
    assert fields.digests(tmp_path / "store") == manifest_and_digests[1]


def unprivileged(_: Any) -> None:
    """Takes from a process of root the right to pass over permissions; others have none."""
    if os.geteuid() != 0:
        return
    import ctypes  # noqa: PLC0415 - in the other process

    overriding, searching = 1, 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of the first 32, then of the others
    assert libc.capget(header, held) == 0
    for kind in range(3):
        held[kind] &= ~(1 << overriding | 1 << searching)
    assert libc.capset(header, held) == 0, ctypes.get_errno()


@contextlib.contextmanager
def locked(folder: Path, mode: int) -> Iterator[None]:
    """`folder` with the permissions `mode`, and its owner's again afterwards."""
    folder.chmod(mode)
    try:
        yield
    finally:
        folder.chmod(0o700)


ROOT_ON_MACOS = pytest.mark.skipif(os.geteuid() == 0 and sys.platform != "linux", reason="root may write anywhere")
NO_LOOK = "expected a folder that you may read and write. Choose another --out, or have its permissions changed."


@ROOT_ON_MACOS
@pytest.mark.parametrize(
    ("mode", "out", "said"),
    [
        (0o500, "store", "Permission denied. You may not write there: choose another --out"),
        (0o000, "store", f"cannot look at .*store .Permission denied.; {NO_LOOK}"),
        (0o000, "", f"cannot look at .*locked/.building .Permission denied.; {NO_LOOK}"),
        (0o300, "", f"cannot look at .*locked .Permission denied.; {NO_LOOK}"),
        (0o400, "", f"cannot look at .*locked/.building .Permission denied.; {NO_LOOK}"),
    ],
)
def test_an_output_that_may_not_be_written_or_read_is_refused(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], mode: int, out: str, said: str
) -> None:
    folder = tmp_path / "locked"
    (folder / "currents").mkdir(parents=True)
    command = [manifest_and_digests[0], "--out", str(folder / out)]
    with locked(folder, mode):
        ended = kill_preprocess.run(command, tmp_path / "said.txt", set_up=unprivileged)
    assert ended.code == 2, ended.said
    assert re.search(rf"^error: .*{said}", ended.said, re.MULTILINE), ended.said
    assert "Traceback" not in ended.said
    assert list(folder.iterdir()) == [folder / "currents"]


@ROOT_ON_MACOS
def test_a_finished_store_that_may_not_be_written_is_left_alone(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    out = tmp_path / "store"
    fields.make(manifest_and_digests[0], out)
    out.chmod(0o500)
    try:
        for options in ([], ["--overwrite"]):
            ended = kill_preprocess.run(
                [manifest_and_digests[0], "--out", str(out), *options], tmp_path / "said.txt", set_up=unprivileged
            )
            assert ended.code == 2, ended.said
            assert re.search(r"error: cannot write .*Permission denied\. You may not write there", ended.said)
            assert fields.digests(out) == manifest_and_digests[1]
        out.joinpath("manifest.json").chmod(0o000)
        ended = kill_preprocess.run(
            [manifest_and_digests[0], "--out", str(out)], tmp_path / "said.txt", set_up=unprivileged
        )
        assert re.search(r"error: --out .*cannot look at .*manifest\.json .Permission denied", ended.said), ended.said
    finally:
        out.chmod(0o700)
        out.joinpath("manifest.json").chmod(0o600)


def test_an_output_on_a_read_only_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    monkeypatch.setattr(durable, "os", Failing(("mkdir",), 1, errno.EROFS))
    assert main([manifest_and_digests[0], "--out", str(tmp_path / "store")]) == 2
    assert "Read-only file system. The file system is read-only: choose another --out" in capsys.readouterr().err


@ROOT_ON_MACOS
def test_a_source_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    manifest = fields.small(tmp_path / "input")
    away = tmp_path / "away"
    away.mkdir()
    (tmp_path / "input" / "currents.nc").rename(away / "currents.nc")
    command = [manifest, "--out", str(tmp_path / "store"), "--set", f"currents={{path: '{away}/currents.nc'}}"]
    for what in (away, away / "currents.nc"):
        with locked(what, 0o000):
            ended = kill_preprocess.run(command, tmp_path / "said.txt", set_up=unprivileged)
        assert ended.code == 1, ended.said
        assert re.search(r"^error: currents.*Permission denied.*Check your permissions there\.$", ended.said, re.M)
        assert "Traceback" not in ended.said
        assert not (tmp_path / "store").exists()


@ROOT_ON_MACOS
def test_a_twin_whose_folder_may_not_be_written_is_refused(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    folder = tmp_path / "twin"
    folder.mkdir(mode=0o500)
    tree = f"synthetic={{folder: '{folder}', drifters: 4, drifter_days: 8, days: 12}}"
    ended = kill_preprocess.run(
        [manifest_and_digests[0], "--out", str(tmp_path / "s"), "--set", tree], tmp_path / "said", set_up=unprivileged
    )
    assert ended.code == 2, ended.said
    assert re.search(r"^error: synthetic\.folder .*twin: cannot use .*Permission denied", ended.said, re.MULTILINE)
    assert "Traceback" not in ended.said


def test_an_output_that_is_a_loop_of_links_is_refused(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], capsys: Capture
) -> None:
    (tmp_path / "store").symlink_to(tmp_path / "store")
    assert main([manifest_and_digests[0], "--out", str(tmp_path / "store")]) == 2
    said = capsys.readouterr().err
    assert re.search(r"error: --out .*cannot look at .*store .Too many levels of symbolic links", said), said


# Memory


def test_a_memory_limit_is_kept_or_refused(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], capsys: Capture
) -> None:
    out = tmp_path / "store"
    command = [manifest_and_digests[0], "--out", str(out), "--workers", "2"]
    capsys.readouterr()
    needed = int(estimate_of(command, capsys)["memory_bytes_per_worker"])
    besides = int(estimate_of(command, capsys)["memory_bytes"]) - 2 * needed
    assert main([*command, "--memory-limit", f"{(besides + 1.5 * needed) / 1000:.0f}KB"]) == 2
    said = capsys.readouterr().err
    assert re.search(
        r"error: --memory-limit: making this store takes about \d+ MB \(2 workers of \d+ MB each and", said
    )
    assert "Lower --workers (1 would do) or store.samples_per_shard, or raise the limit." in said
    for limit, remedy in (
        (besides + needed / 2, "Lower store.samples_per_shard, and --workers to 1, or raise the limit."),
        (besides / 2, "Raise the limit: what is needed besides is more than it already."),
    ):
        assert main([*command, "--memory-limit", f"{limit / 1000:.0f}KB"]) == 2
        assert remedy in capsys.readouterr().err
    assert main([*command, "--memory-limit", f"{besides / 2000:.0f}KB", "--workers", "1"]) == 2
    said += capsys.readouterr().err
    assert re.search(r"\(\d+ MB of the worker and \d+ MB besides\)", said)
    assert re.search(r"about \S+ kB on disk, at most \S+ kB; \S+ MB of memory for 2 at a time; about .* s", said)
    assert not out.exists() or not list(out.glob("currents"))
    assert main([*command, "--memory-limit", "2GiB"]) == 0
    assert main([*command, "--memory-limit", "2"]) == 2
    assert "--memory-limit '2': expected a size with its unit" in capsys.readouterr().err


def estimate_of(command: list[str], capsys: Capture) -> dict[str, Any]:
    """The estimate of a dry run."""
    capsys.readouterr()
    assert main([*command, "--dry-run", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["estimate"]


def test_the_estimate_counts_the_levels_that_wait_for_other_shards(
    manifest_and_digests: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Two workers' shards and the next: a window's four levels each, and the record's eight that planning has left.

    A level has 25 x 29 cells and two int16 each. Never above CAP.
    """

    def memory(*options: str) -> int:
        return estimate_of([manifest_and_digests[0], "--out", "none", "--workers", "2", *options], capsys)[
            "memory_bytes"
        ]

    whole, apart = memory(), memory("--scheduler", "processes")
    monkeypatch.setattr(estimate, "CAP", 1000)
    assert whole - memory() == (3 * 4 + 8) * 25 * 29 * 4 - 1000
    assert memory("--scheduler", "processes") == apart  # processes share none


def test_levels_are_decoded_once_and_files_written_once(tmp_path: Path) -> None:
    """Six shards that overlap by most of their levels; planning looks at more levels than they need, and at theirs."""
    tracks = [fields.walk(900 + k, 33.0 + 0.1 * k, -37.0, n=49, start=fields.START + 86_400 * k) for k in range(6)]
    manifest = fields.small(tmp_path / "input", tracks, store={"samples_per_shard": 1})
    lon, lat = 30 + 0.25 * np.arange(29), -40 + 0.25 * np.arange(25)
    fields.save(fields.field(lon, lat, 60), tmp_path / "input" / "currents.nc")
    with counting() as (decoded, written):
        fields.make(manifest, tmp_path / "store", "--scheduler", "threads", "--workers", "2")
    assert set(decoded.values()) == {1}
    levels = {level for _, _, level in decoded}
    assert levels >= set(range(9))  # starts on six days, windows of four levels
    assert 9 + 18 < len(levels) < 9 + 24  # land is told by 24 of the 60
    shards = {name: n for name, n in written.items() if "/c/" in name}
    assert set(shards.values()) == {1}
    assert len(shards) == 6 * len(list((tmp_path / "store").glob("*/c")))
