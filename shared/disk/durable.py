"""Durable files, whole or absent even after a power cut: every byte that preprocessing writes passes through here.

A file is written under another name in its folder, synced, renamed, and the folder is synced. The calls go through this
module's `os`, so that tests can make any of them fail, and past named crash points.
"""

import contextlib
import errno
import fcntl
import functools
import multiprocessing
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from driftcal.shared.command import say
from driftcal.shared.disk import litter
from driftcal.shared.disk.crash_points import reached
from driftcal.shared.errors import StoreError

PART = ".part"
"""Ending of the temporary names; they begin with a dot."""

AT_ONCE = 256
"""Parts of a file that are written in one call at most; systems take 1024."""

BYTES_AT_ONCE = 64 * 2**20
"""Bytes that are written in one call at most; systems take less than 2 GiB."""

_REMEDY = {
    errno.ENOSPC: "Free some room or choose another --out",
    errno.EDQUOT: "Your quota is used up: free some room or choose another --out",
    errno.EROFS: "The file system is read-only: choose another --out",
    errno.EACCES: "You may not write there: choose another --out",
    errno.EIO: "The disk or the file system failed: check it, or choose another --out",
    errno.ESTALE: "The file system failed: check it, or choose another --out",
    errno.EFBIG: "Allow larger files (ulimit -f), or choose another --out",
    errno.EMFILE: "Allow more open files (ulimit -n)",
    errno.ENFILE: "Allow more open files (ulimit -n)",
    errno.ENOMEM: "Allow this process more memory (ulimit -v, or the limit of the batch system)",
}
_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.EXDEV, errno.EMLINK)
_NO_LINKS += (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""Error numbers for a folder that cannot be synced: CIFS, FUSE, some NFS. For a file they are errors."""
_NO_OPENING = (errno.EISDIR, errno.EACCES, errno.EPERM, *_NO_SYNC)
"""Error numbers for a folder that cannot be opened to be synced; it may be writable without being readable."""


def cannot_write(path: Path, error: OSError) -> StoreError:
    """The error of a `path` that cannot be written."""
    remedy = _REMEDY.get(error.errno or 0, "Choose another --out")
    return StoreError(f"cannot write {path}: {error.strerror}. {remedy}, and run the same command again.")


def write(path: Path, content: bytes | Sequence[memoryview], kind: str = "file") -> None:
    """Writes `content` to `path`, in a folder that is there.

    Args:
        path: Replaced where it exists.
        content: All of it, whole or in parts.
        kind: Kind of file, for the crash points: one of `crash_points.FILES`.

    Raises:
        StoreError: it cannot be written; nothing of it is left, except a whole file whose folder cannot be synced.
    """
    # not the process id: hosts that share the store may have the same one
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        reached(f"{kind}: begins")
        with stream(temporary) as put:
            parts = in_parts(content)
            if len(parts) == 1:  # so that there is a half of it
                half = len(parts[0]) // 2
                parts = [parts[0][:half], parts[0][half:]]
            put(*parts[: len(parts) // 2])
            reached(f"{kind}: half written")
            put(*parts[len(parts) // 2 :])
            reached(f"{kind}: written")
            put.sync()
            reached(f"{kind}: synced")
        os.replace(temporary, path)
        reached(f"{kind}: renamed")
        sync(path.parent)
        reached(f"{kind}: done")
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise cannot_write(path, error) from error


def in_parts(content: bytes | Sequence[memoryview]) -> Sequence[memoryview]:
    """`content`, whole or in parts, in parts."""
    return [memoryview(content)] if isinstance(content, bytes) else content


class _Stream:
    """An open file: call it to append; many parts at once, as a call for each costs more than the bytes."""

    def __init__(self, number: int):
        self._number = number

    def __call__(self, *parts: bytes | memoryview) -> None:
        waiting, size = [], 0
        for part in parts:
            for first in range(0, len(part), BYTES_AT_ONCE):
                piece = memoryview(part)[first : first + BYTES_AT_ONCE]
                if len(waiting) == AT_ONCE or size + len(piece) > BYTES_AT_ONCE:
                    self._write(waiting)
                    waiting, size = [], 0
                waiting.append(piece)
                size += len(piece)
        self._write(waiting)

    def _write(self, pieces: list[memoryview]) -> None:
        """Writes all `pieces`, which are taken from the list."""
        while pieces:
            written = os.writev(self._number, pieces)
            while pieces and len(pieces[0]) <= written:
                written -= len(pieces.pop(0))
            if written:  # a signal came, or the disk is filling up
                pieces[0] = pieces[0][written:]

    def sync(self) -> None:
        _flush(self._number)


@contextlib.contextmanager
def stream(path: Path) -> Iterator[_Stream]:
    """A new file at `path`, to be appended to; its OSErrors are the caller's."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield _Stream(number)
    finally:
        os.close(number)


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A new file at `path` that need not outlast the run; call what is given to append.

    Raises:
        StoreError: it cannot be written.
    """
    stack = contextlib.ExitStack()
    try:
        put = stack.enter_context(stream(path))
    except OSError as error:
        raise cannot_write(path, error) from error

    def append(content: bytes) -> None:
        try:
            put(content)
        except OSError as error:
            raise cannot_write(path, error) from error

    try:
        yield append
    finally:
        try:
            stack.close()
        except OSError as error:  # network file systems say so late that they are full
            raise cannot_write(path, error) from error


def sync(folder: Path) -> None:
    """Makes the names in `folder` durable; a file system that can sync no folder is reported once."""
    try:
        number = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _NO_OPENING:
            raise
        _tell_unsynced(error.strerror)
        return
    try:
        _flush(number)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        _tell_unsynced(error.strerror)
    finally:
        os.close(number)


@functools.cache
def _tell_unsynced(reason: str) -> None:
    if multiprocessing.parent_process() is None:  # not by every worker
        say(
            f"note: the names in a folder cannot be synced here ({reason}): what is written survives the end of this "
            f"process, and perhaps not a power cut."
        )


def _flush(number: int) -> None:
    """Syncs an open file or folder; on macOS past the drive's own cache too, where fsync stops before it."""
    if (past_the_cache := getattr(fcntl, "F_FULLFSYNC", None)) is not None:
        with contextlib.suppress(OSError):  # network file systems have none; what else is wrong fsync says
            fcntl.fcntl(number, past_the_cache)
            return
    os.fsync(number)


def there(path: Path) -> bool:
    """Tells whether `path` exists; nothing does in a folder that another host has removed.

    Raises:
        StoreError: one may not look, or the file system fails.
    """
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            return False
        raise StoreError(
            f"cannot look at {path}: {error.strerror}. Check the file system and your permissions there, and run the "
            f"same command again."
        ) from error
    return True


def make_folder(folder: Path) -> None:
    """Makes `folder` and missing ones above it, durably; if it exists already, its name is durable afterwards.

    Raises:
        StoreError: it cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not there(place)]
    lowest = missing[-1].parent if missing else folder
    try:
        _sync_name(lowest)
        for place in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(place)
            sync(place.parent)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    except OSError as error:
        raise cannot_write(folder, error) from error


def _sync_name(folder: Path) -> None:
    """Makes the name of a folder that is there durable: who made it may have died, or still be, just before that.

    Those above it need none of it. Whoever makes a folder here has seen to the one that it lies in first.
    """
    try:
        sync(folder.parent)
    except OSError as error:
        if error.errno in _LOST:
            raise
        # What may not be opened, or cannot be synced, was not made here: that would have failed.


def remove(path: Path) -> None:
    """Deletes the file, the link or the folder `path`, if it is there.

    Raises:
        StoreError: it cannot be deleted.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            _remove_folder(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    except OSError as error:
        raise StoreError(
            f"cannot delete {error.filename or path}: {error.strerror}. If another run writes there, stop it; then run "
            f"the same command again."
        ) from error


def _remove_folder(path: Path) -> None:
    """Deletes a folder, or all of it except files that a network file system keeps while processes have them open."""
    try:
        shutil.rmtree(path)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        left = list(litter.walk(path)) if path.exists() else []
        for file in (file for file, kept in left if not kept):
            os.unlink(file)  # says why not, and of which
        if path.exists() and not left:
            raise


def claim(path: Path, content: Path) -> bool:
    """Makes `path` a link to the file `content`, unless it exists: then False. Exactly one process succeeds.

    By a hard link, which is atomic on network file systems too; where a file system has none, by exclusive creation.

    Raises:
        OSError: neither works, or the folder is gone.
    """
    try:
        os.link(content, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create(path, content.read_bytes())
    return True


def _create(path: Path, content: bytes) -> bool:
    try:
        with stream(path) as put:
            try:
                put(content)
            except OSError:
                os.unlink(path)  # it would name a holder whom nobody knows
                raise
    except FileExistsError:
        return False
    return True
