"""A lock on a folder of results: one process holds it from before its first check until its last file is written.

It is a lock of the kernel on the file `.lock` in the folder, which is released when the process ends, however that
happens. File systems without such locks (some of Lustre and NFS) use the files that builders of a store do
(`disk.claims`): they are reliable there too, but remain when a process is killed, which another host cannot detect.
"""

import contextlib
import errno
import fcntl
import os
import sys
from pathlib import Path
from types import TracebackType

from driftcal.shared.command import say
from driftcal.shared.disk import durable, litter
from driftcal.shared.disk.claims import Busy, Holder, hold
from driftcal.shared.errors import ConfigError, StoreError

FILE, FILES = ".lock", ".locks"
"""Names in the folder while it is locked."""

_CANNOT = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF, errno.EPERM)
"""Error numbers of file systems without locks of the kernel."""


class FolderLock:
    """The right to write into `folder`, which `option` of the command names; given back when it is left."""

    def __init__(self, folder: Path, option: str = "--out"):
        self._folder, self._option = folder, option
        self._taken = contextlib.ExitStack()
        self._has = False

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._taken.close()
        self._has = False

    def take(self) -> None:
        """Takes the lock, once; makes the folder, which is removed again if it stays empty.

        Raises:
            ConfigError: another process has it, or the folder cannot be made or written.
        """
        if self._has:
            return
        with contextlib.ExitStack() as stack:
            try:
                self._make(stack)
                self._lock(stack)
            except OSError as error:
                raise ConfigError(
                    f"cannot write into {self._folder}: {error.strerror}. Choose another {self._option}."
                ) from error
            self._taken = stack.pop_all()
        self._has = True

    def _make(self, stack: contextlib.ExitStack) -> None:
        if self._folder.exists() and not self._folder.is_dir():
            raise ConfigError(f"{self._option} {self._folder} is not an empty folder but a file. Choose another.")
        missing = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot make {self._folder}: {error.strerror}. Choose another {self._option}."
            ) from error
        for path in reversed(missing):
            stack.callback(_remove_empty, path)

    def _lock(self, stack: contextlib.ExitStack) -> None:
        path = self._folder / FILE
        while True:
            with contextlib.ExitStack() as attempt:
                number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                attempt.callback(os.close, number)
                try:
                    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise self._busy(_printable(os.pread(number, 300, 0)), "") from error
                except OSError as error:
                    if error.errno not in _CANNOT:
                        raise
                    attempt.callback(path.unlink, missing_ok=True)
                    return self._lock_by_files(stack, error)
                if not _is(path, number):
                    continue  # its last owner has taken it away
                os.truncate(number, 0)
                os.pwrite(number, f"process {os.getpid()}: {' '.join(sys.argv)}"[:300].encode(errors="replace"), 0)
                attempt.callback(path.unlink, missing_ok=True)
                stack.push(attempt.pop_all())
                return None

    def _lock_by_files(self, stack: contextlib.ExitStack, error: OSError) -> None:
        files = self._folder / FILES
        say(
            f"note: the file system of {self._folder} has no locks of its own ({error.strerror}): files in {files} "
            f"keep other processes out."
        )
        durable.make_folder(files)
        stack.callback(_remove_empty, files)
        try:
            stack.enter_context(hold(files, (1, 1), alone=True))
        except Busy as busy:
            dead = f" If that process has ended, remove {files}." if busy.other.state == "unknown" else ""
            raise self._busy(_who(busy.other), dead) from busy
        except StoreError as other:
            raise ConfigError(str(other)) from other

    def _busy(self, who: str, dead: str) -> ConfigError:
        return ConfigError(
            f"{self._folder}: another process is writing there{f' ({who})' if who else ''}. Stop it, wait for it, or "
            f"choose another {self._option}.{dead}"
        )


def contents(folder: Path) -> set[str]:
    """Names of the files in `folder`, except its lock and litter.

    Raises:
        OSError: it cannot be looked into.
    """
    return {path.name for path in folder.iterdir() if not litter.is_litter(path)} - {FILE, FILES}


def _who(holder: Holder) -> str:
    return f"process {holder.pid} on {holder.host}, since {holder.since}"


def _printable(content: bytes) -> str:
    return "".join(c if c.isprintable() else "?" for c in content.decode(errors="replace"))


def _is(path: Path, number: int) -> bool:
    """Tells whether the open file `number` is the one at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(number))
    except FileNotFoundError:
        return False


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()
