"""Isolation of user code, which must not end the command, print to its results or move it elsewhere.

A module may do anything when it is imported: leave the interpreter, parse the arguments of the command, print, close
streams, change the working directory or a signal handler. Here each of these is either an error with a name, or undone
with a remark. Text that such code prints goes to stderr, so that stdout stays for results.
"""

import contextlib
import importlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from driftcal.shared.command import say
from driftcal.shared.errors import ConfigError, DriftcalError
from driftcal.train.machine import modes
from driftcal.train.machine.stop_signals import SIGNALS

AS_A_PROGRAM = "What a module does as a program belongs under if __name__ == '__main__'."


def load(name: str, attribute: str, what: str) -> Any:
    """The attribute of the module `name`, which is installed or lies in the working directory; None where it has none.

    Raises:
        ConfigError: it cannot be imported, or ends the process when it is; begins with `what`.
    """
    try:
        with guarded(f"{what}: importing {name}"):
            return getattr(importlib.import_module(name), attribute, None)
    except DriftcalError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{what}: cannot import {name} ({type(error).__name__}: {error}). It must be installed, or lie in the "
            f"working directory, {Path.cwd()}."
        ) from error


@contextlib.contextmanager
def guarded(doing: str, silent: bool = False) -> Iterator[None]:
    """Isolates a user's code that runs inside; its exceptions are the caller's.

    Args:
        doing: Purpose of the run, for messages.
        silent: Omits remarks on what the code prints and changes, since they were made when it ran before.

    Raises:
        ConfigError: it ends the process, or raises what ends one.
    """
    with contextlib.ExitStack() as stack:
        came = stack.enter_context(_signals(doing, silent))
        printed = stack.enter_context(_streams(silent))
        stack.enter_context(_state(doing, silent))
        stack.enter_context(_working_directory())  # a function may import where it is called
        stack.enter_context(_no_way_out())
        try:
            yield
        except Exception:
            raise
        except BaseException as error:
            if came and isinstance(error, KeyboardInterrupt):
                raise
            last = printed.getvalue().strip().rpartition("\n")[2]
            printed.seek(0)
            printed.truncate()  # a usage text of another program would be taken for ours
            raise ConfigError(
                f"{doing} {_ended(error)}{f' (it said: {last})' if last else ''}, so there is no run. {AS_A_PROGRAM}"
            ) from error


def _ended(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"asks to leave the process, with {error.code!r}"
    return f"raises {type(error).__name__}{f' ({error})' if str(error) else ''}, which ends a process"


@contextlib.contextmanager
def _signals(doing: str, silent: bool) -> Iterator[list[int]]:
    """Restores signal handlers that code inside replaces, and lists signals that came; signals do what they did."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}

    def noting(number: int, frame: FrameType | None) -> None:
        came.append(number)
        before[signal.Signals(number)](number, frame)

    default = {number: signal.getsignal(number) for number in SIGNALS if number not in before}
    for number in before:
        signal.signal(number, noting)
    try:
        yield came
    finally:
        replaced = [number for number in before if signal.getsignal(number) is not noting]
        replaced += [number for number, handler in default.items() if signal.getsignal(number) != handler]
        for number, handler in (before | default).items():
            signal.signal(number, handler or signal.SIG_DFL)
        if replaced and not silent:
            names = ", ".join(number.name for number in replaced)
            say(f"note: {doing} changes what {names} does, which is set back: signals save a run and end it.")


class _Kept(io.StringIO):
    """Keeps printed text, and cannot be closed; a logger that keeps a reference to it writes to stderr afterwards."""

    over = False

    def write(self, text: str, /) -> int:
        """Keeps `text`."""
        return sys.stderr.write(text) if self.over else super().write(text)

    def close(self) -> None:
        """Does nothing."""


@contextlib.contextmanager
def _streams(silent: bool) -> Iterator[_Kept]:
    """Keeps text printed inside, for stderr in the end; streams that were closed are opened again."""
    kept, before = _Kept(), (sys.stdout, sys.stderr)
    numbers = {}
    for number in (1, 2):
        with contextlib.suppress(OSError):  # a process may have neither
            numbers[number] = os.dup(number)
    for stream in before:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    if len(numbers) == 2:
        os.dup2(2, 1)  # what is printed past Python's streams
    sys.stdout = sys.stderr = kept
    try:
        yield kept
    finally:
        for number, copy in numbers.items():
            os.dup2(copy, number)
            os.close(copy)
        names = ("stdout", "stderr")
        for number, (name, stream) in enumerate(zip(names, before, strict=True), 1):
            closed = getattr(stream, "closed", False) and number in numbers
            again = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), write_through=True) if closed else stream
            setattr(sys, name, again)
        kept.over = True
        if kept.getvalue() and not silent:
            say(kept.getvalue().rstrip("\n"))


@contextlib.contextmanager
def _working_directory() -> Iterator[None]:
    """The working directory on the import path, which installed commands leave out."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()  # a module may have been written just now
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


@contextlib.contextmanager
def _state(doing: str, silent: bool) -> Iterator[None]:
    """Sets the working directory, NumPy's handling of errors and JAX's modes back to what they were.

    Warnings that are made errors are warnings again; other filters stay, as packages add some when they are imported.
    """
    folder, errors, changed, filters = Path.cwd(), np.geterr(), list[str](), list(warnings.filters)
    try:
        with modes.kept() as changed:
            yield
    finally:
        changed = [
            *changed,
            *(f"numpy's handling of '{key}'" for key, how in np.geterr().items() if how != errors[key]),
        ]
        np.seterr(**errors)
        kept: list[Any] = [one for one in warnings.filters if one[0] != "error" or one in filters]
        if len(kept) < len(warnings.filters):
            changed.append("warnings into errors")
            warnings.resetwarnings()
            for action, message, category, module, line in reversed(kept):
                text, where = (getattr(pattern, "pattern", pattern) or "" for pattern in (message, module))
                warnings.filterwarnings(action, text, category, where, line)
        if Path.cwd() != folder:
            changed.append(f"the working directory (to {Path.cwd()})")
            os.chdir(folder)
        if changed and not silent:
            say(f"note: {doing} changes {', '.join(changed)}, which is set back.")


@contextlib.contextmanager
def _no_way_out() -> Iterator[None]:
    """Replaces `os._exit` of this process, which nothing could catch, by `sys.exit` inside."""
    true, process = os._exit, os.getpid()

    def leave(status: int) -> Any:
        if os.getpid() != process:  # a child that was forked may
            true(status)
        raise SystemExit(status)

    os._exit = leave
    try:
        yield
    finally:
        os._exit = true
