"""Refusals and failures of the system, as errors with a remedy.

Only the content of a file can be damaged. A file that cannot be opened, read or mapped need not be: there may be too
little memory, too few open files, no permission, a failing disk or server. So such errors are distinguished from
damage, and samples are never left out because of them.
"""

import errno
import os
import stat
from pathlib import Path

from driftcal.shared.errors import LimitError

_FOREIGN = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Error numbers for a missing file, or something else in its place."""

_MEMORY = "Allow this process more memory or address space (ulimit -v, or the limit of the batch system)"
_OPEN_FILES = "Allow more open files (ulimit -n)"
_PERMISSION = "Have its permissions changed, or run as somebody who may"
_FAILED = "The disk or the file system failed: run the command again, and check the disk if it fails there once more"
_LOST = "A connection or a process at its other end is gone: run the command again"
_UNABLE = "The file system cannot do this: move the data to another one"

_REMEDY = {
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: "Allow more processes and threads (ulimit -u), or more locked memory (ulimit -l)",
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EIO: _FAILED,
    errno.ESTALE: _FAILED,
    errno.ENXIO: _FAILED,
    errno.ETIMEDOUT: _FAILED,
    errno.EBUSY: _FAILED,
    errno.EPIPE: _LOST,
    errno.ECONNRESET: _LOST,
    errno.ECONNABORTED: _LOST,
    errno.ECONNREFUSED: _LOST,
    errno.ENOTCONN: _LOST,
    errno.ENETUNREACH: _LOST,
    errno.EHOSTUNREACH: _LOST,
    errno.ENODEV: _UNABLE,
    errno.EINVAL: _UNABLE,
    errno.ENOSYS: _UNABLE,
    errno.ENOTSUP: _UNABLE,
    errno.EOPNOTSUPP: _UNABLE,
    errno.ENOSPC: "Free some room",
    errno.EDQUOT: "Your quota is used up: free some room",
    errno.EROFS: "The file system is read-only: choose another place",
    errno.EFBIG: "Allow larger files (ulimit -f), or choose a file system that takes them",
}

Refusal = OSError | MemoryError


def concerns(error: Refusal) -> bool:
    """Tells whether `error` is about the system, and not about a wrong file in the place of the right one."""
    return isinstance(error, MemoryError) or (error.errno is not None and error.errno not in _FOREIGN)


def known(error: BaseException) -> bool:
    """Tells whether there is a remedy for `error`, whatever its origin: then it is no mistake of ours."""
    return (
        isinstance(error, MemoryError) or _no_thread(error) or (isinstance(error, OSError) and error.errno in _REMEDY)
    )


def refused(action: str, error: BaseException, whole: str = "") -> LimitError:
    """The error of an action that the system refused.

    Args:
        action: Action that failed, such as "cannot read PATH".
        error: Why.
        whole: Object that may be whole all the same, such as "the store".
    """
    reason, remedy = str(error), "Run the command again; --debug shows where it failed"
    if isinstance(error, MemoryError):
        reason, remedy = f"out of memory{f' ({error})' if str(error) else ''}", _MEMORY
    elif _no_thread(error):
        remedy = _REMEDY[errno.EAGAIN]
    elif isinstance(error, OSError) and error.errno is not None:
        reason, remedy = error.strerror or os.strerror(error.errno), _REMEDY.get(error.errno, remedy)
    return LimitError(f"{action}: {reason}. {remedy}.{f' This is no damage: {whole} may be whole.' if whole else ''}")


def kind_of(path: Path) -> int:
    """Type of file at `path`, by `stat.S_IFMT`; 0 if there is none.

    Raises:
        LimitError: the system refuses or fails to look there.
    """
    status = look(path)
    return 0 if status is None else stat.S_IFMT(status.st_mode)


def look(path: Path) -> os.stat_result | None:
    """Status of `path`, as `os.stat` gives it; None if neither the file nor its folder exists.

    Raises:
        LimitError: the system refuses or fails to look there.
    """
    try:
        return path.stat()
    except OSError as error:
        if concerns(error):
            raise refused(f"cannot look at {path}", error) from error
        return None


def of_process(error: BaseException) -> LimitError:
    """The error of a command that the system refused something, with the file if it is known."""
    file = getattr(error, "filename", None)
    return refused(f"the system refused what this needs{f', at {file}' if file else ''}", error)


def _no_thread(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)
