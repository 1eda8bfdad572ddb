"""What the three commands have in common: options, messages, exit codes."""

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from shared import paths
from shared.errors import ConfigError, DriftcalError, Interrupted


def parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser whose `--help` ends with an example and the exit codes."""
    return argparse.ArgumentParser(
        prog=name,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"example:\n  {example}\n\n"
        "exit codes: 0 ok, 1 data or verification failure, 2 usage or configuration, 3 interrupted and resumable",
    )


def add_common(to: argparse.ArgumentParser) -> None:
    """The options that every command has."""
    to.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else on stdout")
    to.add_argument("--debug", action="store_true", help="show the traceback of an error")


RESUMABLE = "interrupted. Run the same command again: finished work is kept."
"""What Ctrl-C says of a command that continues where it stopped."""


def run(work: Callable[[argparse.Namespace], int], options: argparse.Namespace, interrupted: str = RESUMABLE) -> int:
    """Runs `work`; an error of ours becomes one message on stderr and its exit code.

    Args:
        work: What the command does.
        options: Its options; `debug` shows the traceback of an error.
        interrupted: The message on Ctrl-C and on SIGTERM, unless the work listens to signals itself.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks ends no command
    error: DriftcalError
    try:
        paths.check_arguments(options)
        with _terminable():
            return work(options)
    except UnicodeEncodeError as caught:
        error = ConfigError(
            f"{caught.object!r} cannot be written in {caught.encoding}, this locale's encoding of paths. Set "
            f"PYTHONUTF8=1, or LC_ALL to a locale with UTF-8."
        )
        error.__cause__ = caught
    except KeyboardInterrupt:
        error = Interrupted(interrupted)
    except SystemExit as caught:
        # code of a user's that ran where nobody expects it to end anything: no success, whatever its code
        error = ConfigError(
            f"the work was ended half way by code that asks to leave the process, with {caught.code!r} (--debug shows "
            f"where). Take that out, and run the command again."
        )
        error.__cause__ = caught
    except DriftcalError as caught:
        error = caught
    except BrokenPipeError:
        return 0
    return failed(error, options.debug)


def failed(error: DriftcalError, debug: bool = False) -> int:
    """Says what is wrong on stderr, with the traceback to `debug`; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Inside, SIGTERM, which batch systems send before they kill, ends the work as Ctrl-C does."""
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
    sys.stdout.flush()
    sys.stderr.flush()
    if code == Interrupted.exit_code:
        os._exit(code)
    sys.exit(code)


def progress() -> bool:
    """Whether progress bars are shown: only to a person at a terminal."""
    return sys.stderr.isatty()


def say(message: str) -> None:
    """One line for the person watching, on stderr, so that stdout stays for results."""
    print(message, file=sys.stderr, flush=True)


def emit(tree: Any) -> None:
    """`tree` as JSON on stdout."""
    print(json.dumps(tree, indent=1, allow_nan=False))
