"""What the system refuses or fails to do: told as such, with a remedy, never as damage, and no sample is left out."""

import errno
import mmap
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftcal.shared import __main__ as inspector
from driftcal.shared import command
from driftcal.shared.disk import durable, limits
from driftcal.shared.errors import LimitError, StoreError
from driftcal.shared.inspection import facts
from driftcal.shared.store import files, manifest, schema, unfinished
from driftcal.shared.store.buffers import Slabs
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.verify import verify
from driftcal.train.run.checkpoints import Damaged, decode
from tests import stores
from tests.disks import Failing

Capture = pytest.CaptureFixture[str]

LIMITS = [errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ESTALE, errno.EIO, errno.ENODEV, errno.EINVAL,
          errno.ENOTSUP, errno.ETIMEDOUT, errno.EREMOTEIO if hasattr(errno, "EREMOTEIO") else errno.EIO]  # fmt: skip
"""What the system may say of a file that is whole."""


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Lets every opening of a file that ends with `name` fail."""
    true = Path.open

    def opened(path: Path, *arguments: Any, **options: Any) -> Any:
        if str(path).endswith(name):
            raise OSError(number, os.strerror(number), str(path))
        return true(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)


def batch(store: ShardStore, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Currents and positions of `samples`, all of which must be readable."""
    n = len(samples)
    currents, positions = (np.empty((n, *a.spec.inner_shape), a.spec.dtype) for a in (store.currents, store.positions))
    assert store.read_batch(samples, currents, positions).all()
    return currents, positions


@pytest.mark.parametrize("name", ["manifest.json", "drifters.json", "origin/zarr.json", "origin/c/1/0", "c/1/0/0/0/0"])
@pytest.mark.parametrize("number", LIMITS)
def test_what_cannot_be_read_is_no_damage(
    stores_by_compression: dict[str, stores.Built],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    name: str,
    number: int,
) -> None:
    """Neither while it is verified, nor where damaged samples are left out."""
    path = stores_by_compression["lz4"].path
    failing(monkeypatch, name, number)
    assert inspector.main(["verify", str(path)]) == LimitError.exit_code == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: cannot (read|open) \S+\n?: .*\n", err), err
    assert os.strerror(number) in err
    assert "damaged" not in err
    assert "--overwrite" not in err
    with pytest.raises(LimitError):
        batch(ShardStore(path, "skip"), np.arange(11))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.ELOOP])
def test_what_is_not_there_is_damage(
    stores_by_compression: dict[str, stores.Built], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing(monkeypatch, "origin/c/1/0", number)
    verdict = verify(stores_by_compression["lz4"].path)
    assert not verdict.ok
    assert verdict.damaged == ("origin/c/1/0",)
    assert "make the store again" in str(verdict.problem)


def test_what_cannot_be_read_is_not_listed_as_damaged(
    copy: Callable[[str], stores.Built], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    damaged = copy("lz4")
    (damaged.path / "drogue/c/0").write_bytes(b"x" * (damaged.path / "drogue/c/0").stat().st_size)
    failing(monkeypatch, "source/c/2", errno.EIO)
    verdict = verify(damaged.path)
    assert (verdict.damaged, verdict.unread) == (("drogue/c/0",), ("source/c/2",))
    assert inspector.main(["verify", str(damaged.path)]) == 1
    assert "1 file not checked: cannot be read:\n  source/c/2" in capsys.readouterr().out


@pytest.fixture
def unmappable(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets a file system refuse maps of files."""
    true = mmap.mmap

    def refuse(number: int) -> None:
        def mapped(file: int, *arguments: Any, **options: Any) -> mmap.mmap:
            if file >= 0:
                raise OSError(number, os.strerror(number))
            return true(file, *arguments, **options)

        monkeypatch.setattr(mmap, "mmap", mapped)
        files._tell_unmapped.cache_clear()

    return refuse


@pytest.mark.parametrize("compression", ["lz4", "none"])
@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL, errno.ENOMEM, errno.EACCES])
def test_files_that_cannot_be_mapped_are_read(
    stores_by_compression: dict[str, stores.Built], unmappable: Callable, capsys: Capture, compression: str, number: int
) -> None:
    built = stores_by_compression[compression]
    unmappable(number)
    samples = np.array([7, 0, 10, 3])
    for copying in stores.copyings():
        store = ShardStore(built.path, "skip", copying)
        store.will_need(samples, set())
        currents, positions = batch(store, samples)
        np.testing.assert_array_equal(currents, built.values["currents"][samples])
        np.testing.assert_array_equal(positions, built.values["positions"][samples])
    assert verify(built.path).ok
    said = capsys.readouterr().err
    assert said == (
        f"note: files of the store cannot be mapped into memory ({os.strerror(number)}): they are read instead, which "
        "takes longer.\n"
    )


def test_damage_is_known_in_files_that_are_read(copy: Callable[[str], stores.Built], unmappable: Callable) -> None:
    damaged = copy("lz4")
    path = damaged.path / schema.arrays(damaged.layout)[0].file_of(1)
    content = bytearray(path.read_bytes())
    content[100] ^= 4
    path.write_bytes(content)
    unmappable(errno.ENODEV)
    store = ShardStore(damaged.path)
    with pytest.raises(StoreError, match=r"currents of sample 4 \(shard 1\) .*the data do not match their crc32c"):
        store.currents.read([4])
    store.currents.read([5])
    os.truncate(path, 60)
    with pytest.raises(StoreError, match=r"60 bytes, expected \d+: truncated or replaced"):
        store.currents.read([5])


def test_a_disk_that_fails_under_a_file_that_is_read_is_no_damage(
    stores_by_compression: dict[str, stores.Built], unmappable: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmappable(errno.ENODEV)
    store = ShardStore(stores_by_compression["lz4"].path, "skip")
    store.currents.read([2])
    monkeypatch.setattr(files.os, "pread", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "no answer")))
    with pytest.raises(LimitError, match=r"cannot read .*: no answer\. .* check the disk .* the store may be whole\."):
        batch(store, np.array([2]))
    assert not store.unreadable


def test_within_a_limit_of_the_address_space_a_store_is_read(tmp_path: Path) -> None:
    """A shard of 23 MB, in a process that may take 16 MB more than it has."""
    built = stores.build(
        tmp_path / "store", 20, samples_per_shard=20, compression="none", n_lat=160, n_lon=180, n_times=10
    )
    script = f"""
import resource, sys
import numpy as np
from driftcal.shared.store.reader import ShardStore
store = ShardStore({str(built.path)!r}, "skip")
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + {16 * 2**20}, resource.RLIM_INFINITY))
print(int(sum(store.currents.read([k]).astype("i8").sum() for k in (1, 4))), store.unreadable)
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("Linux tells a process how much it has taken")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    due = int(built.values["currents"][[1, 4]].astype("i8").sum())
    assert done.stdout == f"{due} {{}}\n", done.stderr
    assert "Cannot allocate memory): they are read instead" in done.stderr


def test_memory_that_is_not_given_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(mmap, "mmap", none_left)
    with pytest.raises(LimitError, match=r"cannot take 4 MB of memory: Cannot allocate memory\. Allow .*ulimit -v"):
        Slabs().take((1000, 1000), np.dtype("f4"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/a/b"), r"at /a/b: Too many open files\. .*ulimit -n"),
        (MemoryError(), r"needs: out of memory\. Allow this process more memory"),
        (RuntimeError("can't start new thread"), r"can't start new thread\. Allow more processes and threads"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), r"needs: reset\. A connection .* is gone: run the command"),
    ],
)
def test_a_refusal_anywhere_is_one_message(capsys: Capture, error: Exception, said: str) -> None:
    def work(_: Any) -> int:
        raise error

    assert command.run(work, command.argparse.Namespace(debug=False)) == 4
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(said, told), told


@pytest.mark.parametrize("error", [RuntimeError("ours"), OSError("ours"), FileNotFoundError(errno.ENOENT, "ours")])
def test_a_mistake_of_ours_keeps_its_traceback(error: Exception) -> None:
    def work(_: Any) -> int:
        raise error

    with pytest.raises(type(error), match="ours"):
        command.run(work, command.argparse.Namespace(debug=False))


@pytest.mark.parametrize("name", ["plan.json", "done-000000.json"])
def test_the_marks_of_an_unfinished_store_are_not_made_again_for_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    half = stores.build(tmp_path / "half", 11, done=2)
    failing(monkeypatch, name, errno.EMFILE)
    with pytest.raises(LimitError, match=rf"cannot read .*{name}: Too many open files"):
        facts.facts(half.path)
    with pytest.raises(LimitError):
        unfinished.read_begun(half.path) if name == "plan.json" else unfinished.read_mark(half.path, half.layout, 0)


def test_a_checkpoint_that_may_not_be_read_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step-00000003.npz"
    path.write_bytes(b"x" * 200)
    with pytest.raises(Damaged):
        decode(path)
    failing(monkeypatch, path.name, errno.EACCES)
    with pytest.raises(LimitError, match=r"Permission denied\. Have its permissions changed"):
        decode(path)


def test_a_folder_that_may_not_be_searched_is_no_lost_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = Path.stat

    def looked(path: Path, **options: Any) -> os.stat_result:
        if path.name == manifest.NAME:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return true(path, **options)

    monkeypatch.setattr(Path, "stat", looked)
    with pytest.raises(LimitError, match=r"cannot look at .*manifest\.json: Permission denied\."):
        manifest.read(tmp_path)


def test_every_limit_has_a_remedy() -> None:
    for number in LIMITS:
        error = OSError(number, os.strerror(number))
        assert limits.concerns(error)
        assert str(limits.refused("it", error, "the store")).startswith(f"it: {os.strerror(number)}. ")


# Folders that cannot be synced


class Unsynced(Failing):
    """A file system that can sync no folder, or no file."""

    def __init__(self, number: int, call: str = "fsync", folders: bool = True):
        super().__init__((), 1, number)
        self.call, self.folders, self.asked = call, folders, 0

    def __getattr__(self, name: str) -> Any:
        true = getattr(os, name)
        if name != self.call:
            return true

        def call(what: Any, *arguments: Any) -> Any:
            if Path(what).is_dir() if name == "open" else (Path(f"/dev/fd/{what}").is_dir() == self.folders):
                self.asked += 1
                raise OSError(self.number, os.strerror(self.number))
            return true(what, *arguments)

        return call


@pytest.fixture(autouse=True)
def untold() -> Iterator[None]:
    durable._tell_unsynced.cache_clear()
    yield
    durable._tell_unsynced.cache_clear()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
def test_a_file_system_without_syncing_of_folders_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, number: int
) -> None:
    system = Unsynced(number)
    monkeypatch.setattr(durable, "os", system)
    durable.make_folder(tmp_path / "a" / "b")
    durable.write(tmp_path / "a" / "b" / "c", b"xyz")
    durable.write(tmp_path / "a" / "b" / "d", b"uvw")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"xyz"
    assert system.asked >= 4
    said = capsys.readouterr().err
    assert said.count("note: ") == 1
    assert f"the names in a folder cannot be synced here ({os.strerror(number)})" in said


@pytest.mark.parametrize("number", [errno.EISDIR, errno.EACCES, errno.EINVAL])
def test_a_folder_that_may_not_be_opened_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, number: int
) -> None:
    monkeypatch.setattr(durable, "os", Unsynced(number, "open"))
    durable.write(tmp_path / "c", b"xyz")
    assert (tmp_path / "c").read_bytes() == b"xyz"
    assert "cannot be synced here" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE])
def test_a_folder_whose_syncing_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(durable, "os", Unsynced(number))
    with pytest.raises(StoreError, match=f"cannot write .*: {re.escape(os.strerror(number))}"):
        durable.write(tmp_path / "c", b"xyz")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_that_cannot_be_synced_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(durable, "os", Unsynced(number, folders=False))
    with pytest.raises(StoreError, match=f"cannot write .*: {re.escape(os.strerror(number))}"):
        durable.write(tmp_path / "c", b"xyz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV])
def test_a_claim_is_made_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "claim").write_bytes(b"me")
    monkeypatch.setattr(durable, "os", Failing(("link",), 1, number))
    assert durable.claim(tmp_path / "gate", tmp_path / "claim")
    assert (tmp_path / "gate").read_bytes() == b"me"
    monkeypatch.setattr(durable, "os", Failing(("link",), 1, number))
    assert not durable.claim(tmp_path / "gate", tmp_path / "claim")
