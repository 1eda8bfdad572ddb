"""Stop signals: SIGTERM, SIGINT (Ctrl-C) and SIGUSR1, one of which batch systems send before they kill.

While a run trains, a signal is only noted: the run finishes its batch, saves and ends. At any other time it ends the
work at once. A second Ctrl-C always does.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from driftcal.shared.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stop:
    """Listens to the signals while it is entered, in the main thread; elsewhere they keep their meaning.

    Attributes:
        asked: name of the signal that was noted, or None.
    """

    def __init__(self, remedy: str):
        self.asked: str | None = None
        self._remedy = remedy
        self._waits = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._caught) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Notes signals in `asked` for the work inside to see; one that it did not see ends it on leaving."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        if self.asked is not None:
            raise self.interrupted(self.asked)

    def interrupted(self, name: str, kept: str = "") -> Interrupted:
        """The error that the signal `name` ends in; `kept` is text on what was saved."""
        return Interrupted(f"interrupted by {name}{kept}. {self._remedy}")

    def _caught(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        again = self.asked is not None and number == signal.SIGINT
        if self._waits and not again:
            self.asked = name
            return
        raise self.interrupted(name)
