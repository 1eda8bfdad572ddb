"""The standard streams of a command, whose failure never ends its work.

If a reader leaves (`| head`), a disk is full, or a stream is closed from the start (`>&-`), the printed text is lost
and nothing else. This holds only for errors of the stream itself, whatever prints: the command, a progress bar, a
warning or a library. The same errno from anywhere else, such as a broken connection, stays an error.
"""

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any

NAMES = ("stdout", "stderr")


def reserve() -> None:
    """Opens the null device in place of standard streams that are closed.

    The next file to be opened would get the number of the stream, and whatever is printed, by a library in C too, would
    be written into that file. Processes that are started from here inherit the null device.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)


class _Sink(io.RawIOBase):
    """Writes to the file descriptor `number` until that fails, and takes the rest without writing it.

    Attributes:
        failed: Error by which something was not written, if any.
    """

    def __init__(self, number: int | None):
        self.failed: OSError | None = None
        self._number = number

    def fileno(self) -> int:
        if self._number is None:
            raise io.UnsupportedOperation("fileno")
        return self._number

    def isatty(self) -> bool:
        return self._number is not None and os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        while self.failed is None:
            try:
                if self._number is None:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                return os.write(self._number, content)
            except BlockingIOError:  # somebody who shares the stream does not want to wait; a writer of text does
                assert self._number is not None
                waiting = select.poll()
                waiting.register(self._number, select.POLLOUT)
                waiting.poll()
            except OSError as error:
                self.failed = error
        return len(content)


class Enduring(io.TextIOWrapper):
    """A stream of text upon a file descriptor, or upon nothing, that raises no OSError."""

    def __init__(self, number: int | None, like: io.TextIOWrapper | None):
        self.sink = _Sink(number)
        encoding, line_buffering, through = "utf-8", True, False
        if like is not None:
            encoding, line_buffering, through = like.encoding, like.line_buffering, like.write_through
        super().__init__(
            io.BufferedWriter(self.sink),
            encoding,
            errors="backslashreplace",  # what the terminal's encoding lacks ends no command
            line_buffering=line_buffering,
            write_through=through,
        )


@contextlib.contextmanager
def enduring() -> Iterator[None]:
    """Makes `sys.stdout` and `sys.stderr` endure, as far as they are streams of this process and not a notebook's.

    One that has failed is not put back: what is left in its buffer would fail once more when the process ends.
    """
    put = endure()
    try:
        yield
    finally:
        for name, (before, stream) in put.items():
            stream.flush()
            whole = stream.sink.failed is None and before is not None and _flushes(before)
            if getattr(sys, name) is stream and whole:
                setattr(sys, name, before)


def endure() -> dict[str, tuple[io.TextIOWrapper | None, Enduring]]:
    """Makes `sys.stdout` and `sys.stderr` endure from now on; returns, by name, the old and the new stream."""
    put: dict[str, tuple[io.TextIOWrapper | None, Enduring]] = {}
    for name in NAMES:
        stream: Any = getattr(sys, name)
        if stream is None:
            put[name] = stream, Enduring(None, None)
        elif isinstance(stream, io.TextIOWrapper) and not isinstance(stream, Enduring):
            if (number := _number_of(stream)) is None:
                stream.reconfigure(errors="backslashreplace")
                continue
            _flushes(stream)
            put[name] = stream, Enduring(number, stream)
    for name, (_, stream) in put.items():
        setattr(sys, name, stream)
    return put


def lost() -> OSError | None:
    """Error by which printed text did not reach standard output, if any; None for a stream that does not endure."""
    stream: Any = sys.stdout
    if not isinstance(stream, Enduring):
        return None
    stream.flush()
    return stream.sink.failed


def _number_of(stream: io.TextIOWrapper) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # text in memory; closed
        return None


def _flushes(stream: io.TextIOWrapper) -> bool:
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True
