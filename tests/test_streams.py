"""Commands whose standard streams are closed, full, or read by nobody: their work is done all the same."""

import contextlib
import errno
import io
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driftcal.shared import __main__ as inspector
from driftcal.shared import command, streams
from driftcal.train.__main__ import main as train
from tests import fields, kill_preprocess, stores
from tests.commands import FAST

Capture = pytest.CaptureFixture[str]
FULL = Path("/dev/full")
NEEDS_FULL = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
UNPRINTED = "the work is done and kept, but the result could not be printed: standard output is full or closed"


@contextlib.contextmanager
def nobody() -> Iterator[int]:
    """A pipe whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


def python(*arguments: str | Path, closed: tuple[int, ...] = (), **options: Any) -> subprocess.CompletedProcess[str]:
    """The interpreter as a process of its own, with the streams of these numbers `closed`."""
    closing = " ".join(("<&-", ">&-", "2>&-")[number] for number in closed)
    called = ["/bin/sh", "-c", f'exec "$0" "$@" {closing}', sys.executable, *map(str, arguments)]
    return subprocess.run(called, text=True, timeout=300, check=False, **options)


def shell(module: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    return python("-m", module, *arguments, **options)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fields.small(tmp_path_factory.mktemp("input"), store={"samples_per_shard": 2})


@pytest.fixture(scope="module")
def expected_digests(manifest: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("whole") / "store"
    fields.make(manifest, out, "--scheduler", "synchronous")
    return fields.digests(out)


def unread(which: tuple[int, ...]) -> None:
    """Lets these streams of the process go to a pipe that nobody reads."""
    with nobody() as pipe:
        for number in which:
            os.dup2(pipe, number)


@pytest.mark.parametrize(("which", "scheduler"), [((1, 2), "threads"), ((2,), "threads"), ((1, 2), "processes")])
def test_a_store_is_made_though_nobody_reads_what_is_said(
    tmp_path: Path, manifest: str, expected_digests: dict[str, str], which: tuple[int, ...], scheduler: str
) -> None:
    arguments = [manifest, "--out", str(tmp_path / "store"), "--scheduler", scheduler, "--workers", "2"]
    ended = kill_preprocess.run(arguments, tmp_path / "said.txt", set_up=unread, how=which)
    assert ended.code == 0
    assert fields.digests(tmp_path / "store") == expected_digests
    assert ended.said.startswith("driftcal\n" if which == (2,) else "")


@pytest.mark.parametrize("numbers", [(2,), (0, 1, 2)])
def test_a_store_is_made_with_streams_closed(
    tmp_path: Path, manifest: str, expected_digests: dict[str, str], numbers: tuple[int, ...]
) -> None:
    """Other processes, which make it in one of the cases, inherit what is open in place of the streams."""
    out, scheduler = tmp_path / "store", "processes" if len(numbers) == 3 else "threads"
    arguments = [manifest, "--out", out, "--scheduler", scheduler, "--workers", "2"]
    rest = {} if len(numbers) == 3 else {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = shell("driftcal.preprocess", *arguments, closed=numbers, **rest)
    assert fields.digests(out) == expected_digests
    assert done.returncode == (command.UNPRINTED if 1 in numbers else 0)
    if numbers == (2,):
        assert done.stdout.startswith("driftcal\n")
        assert "of memory for" not in done.stdout  # what is said must not get among the result


@NEEDS_FULL
def test_a_full_output_is_told_by_the_code_and_a_failure_keeps_its_own(built: stores.Built, tmp_path: Path) -> None:
    with FULL.open("wb") as full:
        done = shell("driftcal.shared", "show", built.path, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == command.UNPRINTED == 5
        assert done.stderr.count("\n") == 1
        assert f"error: {UNPRINTED} (No space left on device)" in done.stderr
        done = shell("driftcal.shared", "show", tmp_path, stdout=full, stderr=full)
        assert done.returncode == 1
        done = shell("driftcal.shared", "--help", stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == command.UNPRINTED
        assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["show", "STORE"]])
def test_a_reader_that_leaves_ends_the_printing_quietly(built: stores.Built, arguments: list[str]) -> None:
    given = [str(built.path) if word == "STORE" else word for word in arguments]
    with nobody() as pipe:
        done = shell("driftcal.shared", *given, stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_damaged_store_is_told_by_the_code_though_nobody_reads(copy: Callable) -> None:
    damaged = copy("lz4")
    (damaged.path / "origin/c/1/0").unlink()
    with broken():
        assert inspector.main(["verify", str(damaged.path)]) == 1


@contextlib.contextmanager
def broken() -> Iterator[None]:
    """Lets what this process prints go to a pipe that nobody reads."""
    before = [getattr(sys, name) for name in streams.NAMES]
    with nobody() as pipe:
        put = [io.TextIOWrapper(io.FileIO(os.dup(pipe), "wb"), write_through=True) for _ in streams.NAMES]
        for name, stream in zip(streams.NAMES, put, strict=True):
            setattr(sys, name, stream)
        try:
            yield
        finally:
            for name, stream in zip(streams.NAMES, before, strict=True):
                setattr(sys, name, stream)
            for stream in put:
                with contextlib.suppress(OSError):
                    stream.close()


@pytest.mark.faults
def test_a_run_is_trained_though_nobody_reads_what_is_said(tmp_path: Path, built: stores.Built) -> None:
    out = tmp_path / "run"
    with broken():
        assert train(["run", str(built.path), "--out", str(out), *FAST]) == 0
    assert (out / "report.html").exists()
    assert json.loads((out / "result.json").read_text())["cs"] > 0


def test_whoever_prints_ends_no_work() -> None:
    from tqdm import tqdm  # noqa: PLC0415 - as a library, which holds on to the stream that there is

    done: list[str] = []

    def work(_: Any) -> int:
        print("begins")
        command.say("note: begins")
        for step in tqdm(range(3)):
            sys.stderr.write(f"a library, {step}\n")
            sys.stderr.flush()
        sys.stdout.write("ends")
        done.append("work")
        return 0

    with broken():
        assert command.run(work, command.argparse.Namespace(debug=False)) == 0
    assert done == ["work"]


def test_a_broken_connection_is_no_reader_that_has_left(capsys: Capture) -> None:
    def work(_: Any) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    assert command.run(work, command.argparse.Namespace(debug=False)) == 4
    said = capsys.readouterr().err
    assert "Broken pipe. A connection or a process at its other end is gone: run the command again." in said


def test_a_stream_that_does_not_wait_takes_everything() -> None:
    """Others who share a pipe or a terminal may set it so: a write then fails where it would wait."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text, taken = "0123456789" * 100_000, []

    def read() -> None:
        while part := os.read(reading, 2**16):
            taken.append(part)
            time.sleep(0.001)

    reader = threading.Thread(target=read)
    reader.start()
    stream = streams.Enduring(writing, None)
    stream.write(text)
    stream.flush()
    os.close(writing)
    reader.join()
    os.close(reading)
    assert b"".join(taken).decode() == text
    assert stream.sink.failed is None


def test_a_terminal_stays_one() -> None:
    """So that progress bars are shown, as wide as it is."""
    master, number = pty.openpty()
    stream = streams.Enduring(number, None)
    assert stream.isatty()
    assert stream.fileno() == number
    stream.write("1\n")
    assert os.read(master, 9) == b"1\r\n"
    os.close(master)
    stream.write("2\n")
    assert stream.sink.failed is not None  # the terminal is gone
    os.close(number)


@pytest.mark.parametrize("numbers", [(1,), (0, 2), (0, 1, 2)])
def test_a_closed_place_is_not_given_to_the_next_file(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """Nor to that of a process which is started from there."""
    opens = "import os; found = os.open('/', os.O_RDONLY)"
    child = f"{opens}; open({str(tmp_path / 'child')!r}, 'w').write(str(found))"
    script = f"import driftcal.preprocess; {opens}; open({str(tmp_path / 'here')!r}, 'w').write(str(found))"
    script += f"; import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    assert python("-c", script, closed=numbers).returncode == 0
    assert int((tmp_path / "here").read_text()) > 2
    assert int((tmp_path / "child").read_text()) > 2


def test_streams_are_as_they_were_afterwards(built: stores.Built, capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    assert inspector.main(["show", str(built.path)]) == 0
    assert (sys.stdout, sys.stderr) == before
    assert capfd.readouterr().out.startswith("small")
