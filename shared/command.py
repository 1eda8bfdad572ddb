"""Options, messages and exit codes that the three commands share."""

import argparse
import contextlib
import errno
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any, NoReturn

from driftcal.shared import paths, streams
from driftcal.shared.disk import limits
from driftcal.shared.errors import ConfigError, DriftcalError, Interrupted, LimitError

UNPRINTED = 5
"""Exit code of work that is done, but whose result could not be written to standard output."""


def parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser with `--version`, whose `--help` ends with an example and the exit codes."""
    parser = argparse.ArgumentParser(
        prog=name,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"example:\n  {example}\n\n"
        "exit codes: 0 ok, 1 data or verification failure, 2 usage or configuration, 3 interrupted and resumable,\n"
        f"  {LimitError.exit_code} refused by the system (memory, open files, permissions, a disk that fails), "
        f"{UNPRINTED} done, but the result\n  could not be printed",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('driftcal')}")
    return parser


def add_common(to: argparse.ArgumentParser) -> None:
    """The options that every command has."""
    to.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else on stdout")
    to.add_argument("--debug", action="store_true", help="show the traceback of an error")


RESUMABLE = "interrupted. Run the same command again: finished work is kept."
"""Message after Ctrl-C for a command that continues where it stopped."""


def parsed(to: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The options in `arguments`; None stands for those of the command line.

    Raises:
        SystemExit: they ask for help, or are wrong.
    """
    with streams.enduring():
        try:
            return to.parse_args(arguments)
        except SystemExit as leaving:
            code = _printed(leaving.code if isinstance(leaving.code, int) else 0)
            raise SystemExit(code) from None


def run(work: Callable[[argparse.Namespace], int], options: argparse.Namespace, interrupted: str = RESUMABLE) -> int:
    """Runs `work`; an error of ours becomes one message on stderr and its exit code.

    Whatever becomes of stdout and stderr, the work goes on. A reader that leaves before the result is printed is no
    error; a stdout that is full or closed is told by the exit code `UNPRINTED`.

    Args:
        work: Work of the command.
        options: Its options; `debug` shows the traceback of an error.
        interrupted: The message on Ctrl-C and on SIGTERM, unless the work listens to signals itself.
    """
    with streams.enduring():
        try:
            paths.check_arguments(options)
            with _terminable():
                code = work(options)
        except (Exception, KeyboardInterrupt, SystemExit) as caught:  # what is no error of ours is raised again
            error = _told(caught, interrupted)
            if error is None:
                raise
            code = failed(error, options.debug)
        return _printed(code)


def failed(error: DriftcalError, debug: bool = False) -> int:
    """Prints the error on stderr, with the traceback to `debug`; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _told(caught: BaseException, interrupted: str) -> DriftcalError | None:
    """The error to report to the user; None for a mistake of ours."""
    if isinstance(caught, DriftcalError):
        return caught
    if isinstance(caught, KeyboardInterrupt):
        return Interrupted(interrupted)
    error: DriftcalError
    if isinstance(caught, SystemExit):
        # code of a user's that ran where nobody expects it to end anything: no success, whatever its code
        error = ConfigError(
            f"the work was ended half way by code that asks to leave the process, with {caught.code!r} (--debug shows "
            f"where). Take that out, and run the command again."
        )
    elif isinstance(caught, UnicodeEncodeError):
        error = ConfigError(
            f"{caught.object!r} cannot be written in {caught.encoding}, this locale's encoding of paths. Set "
            f"PYTHONUTF8=1, or LC_ALL to a locale with UTF-8."
        )
    elif limits.known(caught):
        error = limits.of_process(caught)
    else:
        return None
    error.__cause__ = caught
    return error


def _printed(code: int) -> int:
    """Returns `code`, or instead of 0 that of a result which stdout did not take."""
    failed = streams.lost()
    if failed is None or failed.errno == errno.EPIPE:  # who has read enough has left
        return code
    done = "the work is done and kept" if code == 0 else "beside that"
    print(
        f"error: {done}, but the result could not be printed: standard output is full or closed ({failed.strerror}). "
        f"Send it where there is room, such as to a file on another disk.",
        file=sys.stderr,
    )
    return code or UNPRINTED


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Ends the work inside on SIGTERM, which batch systems send before they kill, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # only there can signals be listened to
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def leave(code: int) -> NoReturn:
    """Ends the process with `code`; at once where it was interrupted.

    Threads of an interrupted XLA computation may still run, and the interpreter's own shutdown under them can crash.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):  # `run` has told of it
                stream.flush()
    if code == Interrupted.exit_code:
        os._exit(code)
    sys.exit(code)


def progress() -> bool:
    """Tells whether progress bars are shown: only to a person at a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def say(message: str) -> None:
    """One line for the person watching, on stderr, so that stdout stays for results."""
    if sys.stderr is not None:  # print would take stdout instead
        with contextlib.suppress(OSError):  # in a worker process, whose streams do not endure
            print(message, file=sys.stderr, flush=True)


def emit(tree: Any) -> None:
    """`tree` as JSON on stdout."""
    print(json.dumps(tree, indent=1, allow_nan=False))
