"""The system's temporary folder, and the error if there is none, or no room in it.

Python takes the first of $TMPDIR, $TEMP, $TMP, /tmp, /var/tmp, /usr/tmp and the working directory that it can write to.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from driftcal.shared.errors import DriftcalError, LimitError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@contextlib.contextmanager
def folder(purpose: str) -> Iterator[Path]:
    """A new temporary folder, which is deleted at the end; `purpose` begins the message of an error.

    Raises:
        LimitError: there is none, or what is written there inside finds no room.
    """
    with contextlib.ExitStack() as stack:
        try:
            directory = tempfile.TemporaryDirectory(prefix="driftcal-", ignore_cleanup_errors=True)
            place = Path(stack.enter_context(directory))
        except OSError as error:
            raise lacking(purpose, error) from error
        try:
            yield place
        except DriftcalError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and str(place) in str(error):
                raise lacking(purpose, cause) from cause
            raise


def is_lacking(error: BaseException) -> bool:
    """Tells whether `error`, raised while a temporary file was written, means that there is no folder or no room."""
    if not isinstance(error, OSError):
        return False
    if error.errno in _NO_ROOM or "No usable temporary directory" in str(error):
        return True
    refused = error.errno in (errno.EACCES, errno.EPERM)
    return refused and Path(os.fsdecode(error.filename or "")).is_relative_to(_place() or "/")


def lacking(purpose: str, error: OSError) -> LimitError:
    """The error of `purpose`, which finds no temporary folder, or no room in it."""
    place = _place()
    where = "cannot be written to" if place is None else f"is {place} and cannot be written to, or is full"
    return LimitError(
        f"{purpose}: needs the system's temporary folder, which {where} ({error.strerror or error}). Make room, or set "
        f"TMPDIR to a folder with room (export TMPDIR=/a/folder/with/room), and run the same command again."
    )


def _place() -> str | None:
    try:
        return tempfile.gettempdir()
    except OSError:
        return None
