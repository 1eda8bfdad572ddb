"""A store whose making is killed anywhere is continued to the same bytes; and two processes that make one store."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from driftcal.preprocess.__main__ import main
from driftcal.preprocess.writing import write
from driftcal.shared.disk import claims, crash_points, durable
from driftcal.shared.disk.claims import Holder, hold
from driftcal.shared.errors import StoreError
from driftcal.shared.store import unfinished
from tests import fields, kill_preprocess


@pytest.fixture(scope="module")
def manifest_and_digests(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """A manifest of six samples in three shards, and the digests of its store."""
    folder = tmp_path_factory.mktemp("kill")
    manifest = fields.small(folder / "input", store={"samples_per_shard": 2})
    fields.make(manifest, folder / "whole", "--scheduler", "synchronous")
    return manifest, fields.digests(folder / "whole")


def age(store: Path) -> dict[str, int]:
    """Which file each shard and mark is."""
    return {str(path): path.stat().st_ino for path in store.glob("*/c/**/*") if path.is_file()}


@pytest.mark.parametrize("point", crash_points.POINTS)
def test_a_store_whose_making_is_killed_at_a_named_point_is_continued(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], point: str
) -> None:
    manifest, due = manifest_and_digests
    out, said = tmp_path / "store", tmp_path / "said.txt"
    command = [manifest, "--out", str(out), "--scheduler", "synchronous"]
    # of a repeated step the one in the middle of the store
    nth = {"shard": 17, "mark": 2, "metadata": 5}.get(point.partition(":")[0], 1) if point != "shard: cut" else 2
    assert kill_preprocess.run(command, said, crash=f"{point}@{nth}").code == kill_preprocess.KILLED
    kill_preprocess.check_half(out)
    finished = (out / "manifest.json").exists()
    assert finished == (point in ("manifest: renamed", "manifest: done") or point.startswith("clean"))
    marks = list(out.glob(".building/done-*.json"))
    before = {k: inode for k, inode in age(out).items() if any(f"/c/{int(m.stem[5:])}" in k for m in marks)}
    ended = kill_preprocess.run(command, said)
    assert ended.code == 0, ended.said
    assert fields.digests(out) == due
    assert kill_preprocess.left(out) == []
    after = age(out)
    assert all(after[name] == inode for name, inode in before.items())  # only what was in flight was made again
    if marks and not finished:
        assert f"continuing: {len(marks)} of 3 shards are done" in ended.said


def test_the_environment_names_the_point_too(tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]) -> None:
    out = tmp_path / "store"
    command = [
        sys.executable,
        "-m",
        "driftcal.preprocess",
        manifest_and_digests[0],
        "--out",
        str(out),
        "--workers",
        "1",
    ]
    done = subprocess.run(command, env={**os.environ, crash_points.VARIABLE: "mark: done@2"}, capture_output=True)
    assert done.returncode == kill_preprocess.KILLED
    shown = subprocess.run([sys.executable, "-m", "driftcal.shared", "show", str(out)], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "2 of 3" in shown.stdout


def test_a_store_whose_making_is_killed_at_random_is_continued(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    longest = kill_preprocess.duration(
        [manifest_and_digests[0], "--out", str(tmp_path / "first")], tmp_path / "said.txt"
    )
    assert (
        kill_preprocess.random_kills(
            [manifest_and_digests[0]], tmp_path, manifest_and_digests[1], rounds=6, longest=longest, seed=1
        )
        >= 6
    )


@pytest.mark.faults
@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_a_hundred_random_kills_change_no_byte(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], scheduler: str
) -> None:
    command = [manifest_and_digests[0], "--scheduler", scheduler, "--workers", "2"]
    longest = kill_preprocess.duration([*command, "--out", str(tmp_path / "first")], tmp_path / "said.txt")
    kills = kill_preprocess.random_kills(
        command, tmp_path, manifest_and_digests[1], rounds=100, longest=longest, seed=2
    )
    print(f"{scheduler}: {kills} kills, every store identical")


def test_a_replacement_that_is_killed_leaves_nothing_of_the_old_store(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    """With other settings, so that nothing of the old store may be left in the new one."""
    manifest, due = manifest_and_digests
    other = fields.make(manifest, tmp_path / "other", "--set", "store.samples_per_shard=1")
    for point in ("clean: half done", "plan: begins", "shard: done@5"):
        out = tmp_path / point.replace(":", "")
        shutil.copytree(other.root, out)
        command = [manifest, "--out", str(out)]
        assert (
            kill_preprocess.run([*command, "--overwrite"], tmp_path / "said", crash=point).code
            == kill_preprocess.KILLED
        )
        again = ["--overwrite"] if (out / "manifest.json").exists() else []
        assert kill_preprocess.run([*command, *again], tmp_path / "said").code == 0
        assert fields.digests(out) == due
        assert kill_preprocess.left(out) == []


def test_marks_of_a_replaced_store_are_not_believed(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    """Two stores whose files have the same sizes: new files must not pass for those that an old mark speaks of."""
    manifest, out, said = manifest_and_digests[0], tmp_path / "store", tmp_path / "said.txt"
    raw = [manifest, "--set", "store.compression=none", "--scheduler", "synchronous"]
    fields.make(manifest, tmp_path / "whole", *raw[1:])
    command = [*raw, "--out", str(out)]
    old = [*command, "--set", "split.seed=5"]
    assert kill_preprocess.run(old, said, crash="manifest: begins").code == kill_preprocess.KILLED
    assert kill_preprocess.run([*command, "--overwrite"], said, crash="clean: begins").code == kill_preprocess.KILLED
    assert len(list(out.glob(".building/done-*.json"))) == 3
    assert kill_preprocess.run(command, said, crash="mark: begins@2").code == kill_preprocess.KILLED
    assert kill_preprocess.run(command, said).code == 0
    assert fields.digests(out) == fields.digests(tmp_path / "whole")


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped", "in a digest", "not JSON", "another's", "a folder"])
def test_a_mark_that_cannot_be_trusted_costs_its_shard_alone(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], how: str
) -> None:
    manifest, due = manifest_and_digests
    out, said = tmp_path / "store", tmp_path / "said.txt"
    command = [manifest, "--out", str(out), "--scheduler", "synchronous"]
    assert kill_preprocess.run(command, said, crash="manifest: begins").code == kill_preprocess.KILLED
    mark = out / ".building" / "done-000001.json"
    whole, before = mark.read_bytes(), age(out)
    place = {"flipped": 40, "in a digest": whole.index(b'"sha256": "') + 20}.get(how, 0)
    content = {
        "truncated": whole[:-30],
        "empty": b"",
        "not JSON": b"\xff{",
        "another's": mark.with_name("done-000000.json").read_bytes(),
    }.get(how, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    mark.write_bytes(content)
    if how == "a folder":
        mark.unlink()
        mark.mkdir()
    ended = kill_preprocess.run(command, said)
    if how == "a folder":  # which no file replaces
        assert (ended.code, "Is a directory" in ended.said) == (1, True)
        mark.rmdir()
        ended = kill_preprocess.run(command, said)
    else:
        assert re.search(r"done-000001\.json: not (a readable|the) mark .* made again\.\n", ended.said), ended.said
    assert ended.code == 0, ended.said
    assert "continuing: 2 of 3 shards are done" in ended.said
    assert fields.digests(out) == due
    assert kill_preprocess.left(out) == []
    after = age(out)
    again = {name for name, inode in before.items() if after[name] != inode}
    assert again == {name for name in before if "/c/1" in name}


def test_a_mark_that_is_damaged_in_passing_does_not_end_as_success(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Between the writing of a shard and the end: no store is finished without it, and a whole run says so."""
    out, true = tmp_path / "store", write.run

    def damaging(*arguments: Any) -> None:
        true(*arguments)
        (out / ".building" / "done-000002.json").write_bytes(b"")

    monkeypatch.setattr(write, "run", damaging)
    assert main([manifest_and_digests[0], "--out", str(out), "--scheduler", "synchronous"]) == 1
    assert "a shard that was marked as done is so no more" in capsys.readouterr().err
    assert not (out / "manifest.json").exists()
    monkeypatch.setattr(write, "run", true)
    assert main([manifest_and_digests[0], "--out", str(out), "--scheduler", "synchronous"]) == 0
    assert fields.digests(out) == manifest_and_digests[1]


def test_marks_are_read_once_at_the_gate(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other parts wait there."""
    read, true = [], unfinished.read_mark

    def counting(store: Path, layout: Any, shard: int) -> unfinished.Mark:
        read.append(shard)
        assert (store / ".building" / "gate").exists()
        return true(store, layout, shard)

    monkeypatch.setattr(unfinished, "read_mark", counting)
    fields.make(manifest_and_digests[0], tmp_path / "store", "--scheduler", "synchronous")
    assert read == [0, 1, 2]


# Two processes that make one store


def wait_for(what: Callable[[], Any], process: Any) -> None:
    for _ in range(1200):
        if what():
            return
        process.join(0.05)
    raise AssertionError(f"nothing came, {process.exitcode}")


def stop_at(point: str) -> None:
    """Lets the process stop, rather than die, at a crash point."""
    import signal  # noqa: PLC0415 - in the other process

    true = os.kill
    os.kill = lambda pid, number: true(pid, signal.SIGSTOP if number == signal.SIGKILL else number)  # type: ignore
    crash_points.arm(point)


def test_a_second_process_is_refused_and_told_who_builds_the_store(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    manifest, due = manifest_and_digests
    out, said = tmp_path / "store", tmp_path / "said.txt"
    command = [manifest, "--out", str(out), "--scheduler", "synchronous"]
    first = kill_preprocess.start(
        [*command, "--parts", "1/2"], tmp_path / "first.txt", set_up=stop_at, how="mark: begins"
    )
    try:
        wait_for(lambda: list(out.glob("source_row/c/*")), first)
        for options in (
            ["--parts", "1/2"],
            [],
            ["--parts", "3/4"],
            ["--parts", "2/3"],
            ["--parts", "2/2", "--overwrite"],
        ):
            for extra in ([], ["--take-over"]):
                ended = kill_preprocess.run([*command, *options, *extra], said)
                assert ended.code == 1
                assert re.search(
                    rf"error: {re.escape(str(out))} is being built by process {first.pid} on \S+, since 20\S+Z, "
                    rf"part 1/2: .*Wait for it, or stop it \(kill {first.pid}\) and run the command again",
                    ended.said,
                )
        # other shards are no harm, and a dry run is none
        assert kill_preprocess.run([*command, "--parts", "2/2"], said).code == 0
        assert kill_preprocess.run([*command, "--dry-run"], said).code == 0
    finally:
        first.kill()
        first.join()
    # of a dead process, so it is nobody's
    assert list(out.glob(".building/lock-*.json"))
    assert kill_preprocess.run(command, said).code == 0
    assert fields.digests(out) == due
    assert kill_preprocess.left(out) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_lock_of_another_host_is_taken_over_only_when_asked(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], links: bool
) -> None:
    manifest, due = manifest_and_digests
    out, said = tmp_path / "store", tmp_path / "said.txt"
    (out / ".building").mkdir(parents=True)
    there = replace(Holder.here((1, 1), alone=False), host="node17", machine="another boot", pid=1)
    for name in (f"lock-{there.token}.json", "gate"):
        (out / ".building" / name).write_text(json.dumps(asdict(there)))
        command = [manifest, "--out", str(out)]
        ended = kill_preprocess.run(command, said, set_up=impatient, how=links)
        assert ended.code == 1
        assert "by process 1 on node17, since 20" in ended.said
        assert (
            "If that process has ended (its host may have been restarted), run the command again with --take-over"
            in (ended.said)
        )
    assert kill_preprocess.run([*command, "--take-over"], said, set_up=impatient, how=links).code == 0
    assert fields.digests(out) == due
    assert kill_preprocess.left(out) == []


def impatient(links: bool) -> None:
    claims.PATIENCE = 0.2
    if not links:
        durable.os = Linkless()  # pyright: ignore[reportAttributeAccessIssue]


class Linkless:
    """`os` as `disk.durable` calls it, on a file system without hard links; `writev` may be another one."""

    def __init__(self, writev: Callable[..., int] = os.writev) -> None:
        self.writev = writev

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def link(self, *_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


class Meeting:
    """Two runs at one gate without hard links: the first makes it, and is halted when it is made and still empty."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.came: list[str] = []
        self.made, self.go, self.inside, self.leave = (threading.Event() for _ in range(4))
        self.first, self.taker = (claims.Lock(folder, Holder.here((k, 2), alone=False), k == 2) for k in (1, 2))
        for each in (self.first, self.taker):
            durable.write(each.claimed, json.dumps(asdict(each.holder)).encode())
        monkeypatch.setattr(durable, "os", Linkless(self._write))
        self.thread = threading.Thread(target=self._enter, daemon=True)
        self.thread.start()
        assert self.made.wait(20)

    def _write(self, number: int, content: Any) -> int:
        if threading.current_thread() is self.thread and not self.made.is_set():
            self.made.set()
            assert self.go.wait(20)
        return os.writev(number, content)

    def _enter(self) -> None:
        with self.first.gate():
            self.came.append("the first comes")
            self.inside.set()
            assert self.leave.wait(20)
            self.came.append("the first goes")

    def take(self) -> None:
        with self.taker.gate():
            self.came.append("the taker comes")
            self.go.set()
            self.inside.wait(0.5)  # which it must not
            self.came.append("the taker goes")
        self.leave.set()
        self.thread.join(20)


def test_a_gate_that_is_just_being_made_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = Meeting(tmp_path, monkeypatch)

    def sleep(seconds: float) -> None:
        if seconds == claims.GRACE:
            meeting.go.set()
            assert meeting.inside.wait(20)
        else:
            meeting.leave.set()
            meeting.thread.join(20)

    monkeypatch.setattr(claims.time, "sleep", sleep)
    meeting.take()
    assert meeting.came == ["the first comes", "the first goes", "the taker comes", "the taker goes"]


def test_a_process_that_comes_back_to_a_gate_that_was_taken_over_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stood still for longer than an empty file is waited for."""
    meeting, true = Meeting(tmp_path, monkeypatch), time.sleep
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: None if seconds == claims.GRACE else true(seconds))
    meeting.take()
    assert meeting.came == ["the taker comes", "the taker goes", "the first comes", "the first goes"]


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_take_over_one_is_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    there = replace(Holder.here((1, 1), alone=False), host="node17", machine="another boot", pid=1)
    (tmp_path / "gate").write_text(json.dumps(asdict(there)))
    inside: list[int] = []
    most: list[int] = []

    def enter(number: int) -> None:
        each = claims.Lock(tmp_path, Holder.here((number, 8), alone=False), take_over=True)
        durable.write(each.claimed, json.dumps(asdict(each.holder)).encode())
        for _ in range(3):
            with each.gate():
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.002)
                inside.remove(number)

    if not links:
        monkeypatch.setattr(durable, "os", Linkless())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(1, 9)))
    assert most == [1] * 24


@pytest.mark.parametrize("change", [
    {"pid": "12"}, {"pid": 0}, {"pid": -1}, {"pid": 2**40}, {"pid": 1.5}, {"part": [1, 0]}, {"part": [3, 2]},
    {"part": ["1", "2"]}, {"part": [1]}, {"part": None}, {"token": "../../x"}, {"token": 5}, {"alone": "no"},
    {"machine": None}, {"host": ["a"]}, {"born": 7}, {"surprise": 1},
])  # fmt: skip
def test_a_lock_that_is_damaged_or_foreign_names_nobody(tmp_path: Path, change: dict[str, Any]) -> None:
    """Neither a traceback nor a process that is taken for dead."""
    tree = {**asdict(Holder.here((1, 1), alone=False)), **change}
    file = tmp_path / "lock-0123456789abcdef.json"
    file.write_text(json.dumps(tree))
    refused = pytest.raises(StoreError, match=r"is being built by process 0 on an unknown host, .*with --take-over")
    with refused, hold(tmp_path, (1, 2)):
        pass
    assert file.exists()
    with hold(tmp_path, (1, 2), take_over=True):
        assert not file.exists()


@pytest.mark.parametrize("name", ["gate", "lock-0123456789abcdef.json"])
def test_a_link_that_leads_nowhere_names_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is there, and it cannot be read: neither waited for without end nor taken for gone."""
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(claims, "PATIENCE", 0.1)
    monkeypatch.setattr(claims, "GRACE", 0.0)
    refused = pytest.raises(StoreError, match=r"process 0 on an unknown host, .*with --take-over")
    with refused, hold(tmp_path, (1, 2)):
        pass
    with hold(tmp_path, (1, 2), take_over=True):
        assert not (tmp_path / name).is_symlink()


@pytest.mark.parametrize("content", [b"", b"[]", b"5", b"null", b"\xff", b"[" * 100_000])
def test_a_lock_that_is_no_json_object_names_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock-x.json").write_bytes(content)
    held = Holder.read(tmp_path / "lock-x.json")
    assert held is not None
    assert (held.host, held.state) == ("an unknown host", "unknown")


def test_a_lock_does_not_steer_the_terminal() -> None:
    assert str(replace(Holder.here((1, 1), alone=False), command="x\x1b[2Jy")).endswith("part 1/1: x?[2Jy")


def test_a_run_whose_lock_is_gone_writes_nothing_more(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    """As a worker that outlives its client, or a process of another host that was taken for dead."""
    out = tmp_path / "store"
    command = [manifest_and_digests[0], "--out", str(out), "--scheduler", "synchronous"]
    first = kill_preprocess.start(command, tmp_path / "first.txt", set_up=stop_at, how="mark: begins")
    wait_for(lambda: list(out.glob("source_row/c/*")), first)
    before = fields.digests(out / "currents")
    for path in out.glob(".building/lock-*.json"):
        path.unlink()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGCONT)
    first.join()
    assert first.exitcode == 1
    assert "is gone: another run took the store over" in (tmp_path / "first.txt").read_text()
    assert fields.digests(out / "currents") == before


def test_a_running_process_is_never_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start may be untold for a moment: too many open files, a process list that does not answer."""
    here = Holder.here((1, 1), alone=False)

    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", full)
        patched.setattr(subprocess, "run", full)
        patched.setattr("driftcal.shared.disk.claims._machine", lambda: here.machine)
        assert here.state == "alive"
    assert replace(here, born="").state == "alive"


@pytest.mark.parametrize(("number", "said"), [(errno.ESTALE, "is gone: another run"), (errno.EIO, "cannot look at")])
def test_a_lock_that_cannot_be_looked_at_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def failing(_: Path) -> os.stat_result:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "stat", failing)
    with pytest.raises(StoreError, match=said):
        claims.check(tmp_path / "lock-x.json")


def test_a_process_id_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    here = Holder.here((1, 1), alone=False)
    assert here.state == "alive"
    assert replace(here, born="1").state == "dead"
    assert replace(here, machine="x").state == "unknown"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert replace(here, pid=gone.pid).state == "dead"
    (tmp_path / "lock-x.json").write_text("{")
    held = Holder.read(tmp_path / "lock-x.json")
    assert held is not None
    assert held.state == "unknown"
    with pytest.raises(StoreError, match="is being built by process 0 on an unknown host"), hold(tmp_path, (1, 2)):
        pass


def test_a_process_is_known_where_there_is_no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, by ps."""
    monkeypatch.setattr(claims, "PROC", tmp_path / "proc")
    here = Holder.here((1, 1), alone=False)
    assert re.fullmatch(r"\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}", here.born)
    assert here.state == "alive"
    assert replace(here, born="Mon Jan  5 01:02:03 1970").state == "dead"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Holder.here((1, 1), alone=False).state == "alive"


def test_a_queue_at_the_gate_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stays inside for less than the limit; all of them together for much longer."""
    queue, looks, gate = [Holder.here((k, 9), alone=False) for k in range(1, 5)], 0, tmp_path / "gate"

    def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks % 5 == 0:
            gate.unlink()
            if queue:
                gate.write_text(json.dumps(asdict(queue.pop())))

    monkeypatch.setattr(claims, "PATIENCE", 0.31)
    monkeypatch.setattr(claims.time, "sleep", sleep)
    gate.write_text(json.dumps(asdict(queue.pop())))
    with hold(tmp_path, (9, 9)):
        assert looks == 20


@pytest.mark.parametrize(("part", "other", "shared"), [
    ((1, 2), (2, 2), False), ((1, 2), (1, 2), True), ((1, 2), (3, 4), True), ((1, 2), (4, 4), False),
    ((2, 3), (1, 2), True), ((3, 6), (2, 4), False), ((1, 1), (5, 9), True),
])  # fmt: skip
def test_parts_overlap_if_they_share_a_shard(part: tuple[int, int], other: tuple[int, int], shared: bool) -> None:
    shards = [set(range(k - 1, 500, n)) for k, n in (part, other)]
    assert bool(shards[0] & shards[1]) == shared
    assert Holder.here(part, alone=False).overlaps(other, False) == shared
    assert Holder.here(part, alone=False).overlaps(other, True)


def test_parts_that_start_and_end_together_make_one_store(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    """All at once, so that they meet at the gate, and the last ones would all finish the store."""
    manifest, due = manifest_and_digests
    out = tmp_path / "store"
    running = [
        kill_preprocess.start([manifest, "--out", str(out), "--parts", f"{k}/4"], tmp_path / f"{k}.txt")
        for k in (1, 2, 3, 4)
    ]
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * 4
    assert fields.digests(out) == due
    assert kill_preprocess.left(out) == []


def late(others: list[list[str]]) -> None:
    """Other parts run to their end while this one waits for the gate at which it begins to write."""
    true_write, true_gate = write.Writing.write, claims.Lock.gate

    def queue(writing: write.Writing, *arguments: Any) -> bool:
        def gate(self: claims.Lock) -> Any:
            claims.Lock.gate = true_gate
            assert [subprocess.run([sys.executable, "-m", "driftcal.preprocess", *each], check=False).returncode
                    for each in others] == [0] * len(others)  # fmt: skip
            return true_gate(self)

        claims.Lock.gate = gate
        return true_write(writing, *arguments)

    write.Writing.write = queue


@pytest.mark.parametrize(("done", "mine", "others"), [
    (["1/2"], "1/2", ["2/2"]), ([], "4/4", ["1/4", "2/4", "3/4"]), ([], "1/1", ["1/1"]),
], ids=["again", "empty", "whole"])  # fmt: skip
def test_a_part_that_comes_late_takes_nothing_away(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]], done: list[str], mine: str, others: list[str]
) -> None:
    """The store is finished between its first look and its turn."""
    manifest, due = manifest_and_digests
    out = tmp_path / "store"
    parts = {part: [manifest, "--out", str(out), "--parts", part] for part in (*done, mine, *others)}
    for part in done:
        assert kill_preprocess.run(parts[part], tmp_path / "first.txt").code == 0
    if mine == others[0]:  # which the lock forbids, unless it was taken away
        parts[mine] = [*parts[mine], "--scheduler", "synchronous"]
        ended = kill_preprocess.run(
            parts[mine], tmp_path / "said.txt", set_up=lost, how=[parts[part] for part in others]
        )
    else:
        ended = kill_preprocess.run(
            parts[mine], tmp_path / "said.txt", set_up=late, how=[parts[part] for part in others]
        )
    assert ended.code == 0, ended.said
    assert fields.digests(out) == due
    assert kill_preprocess.left(out) == []


def lost(others: list[list[str]]) -> None:
    """The lock of this run is taken away, and other runs make the store, before it writes its first shard."""
    true_write, true_run = write.Writing.write, write.run

    def taken(writing: write.Writing, *arguments: Any) -> bool:
        def run(*tasks: Any) -> None:
            for path in (writing.lock.file, writing.lock.claimed):
                path.unlink()
            for each in others:
                subprocess.run([sys.executable, "-m", "driftcal.preprocess", *each], check=True)
            true_run(*tasks)

        write.run = run
        return true_write(writing, *arguments)

    write.Writing.write = taken


def test_a_store_that_another_recipe_has_replaced_is_not_ours(
    tmp_path: Path, manifest_and_digests: tuple[str, dict[str, str]]
) -> None:
    out = tmp_path / "store"
    command = [manifest_and_digests[0], "--out", str(out)]
    other = [*command, "--overwrite", "--set", "split.seed=7"]
    ended = kill_preprocess.run(command, tmp_path / "said.txt", set_up=lost, how=[other])
    assert ended.code == 2
    assert "is a finished store made from another manifest" in ended.said
