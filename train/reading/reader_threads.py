"""Background reader threads with a stall timeout.

The threads are daemons, and not those of `concurrent.futures`, which are joined when the interpreter ends: one that is
stuck in a read from a dead file system would keep a failed command alive.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

LOOKS = 20
"""Number of checks for progress within the stall timeout."""


class Stalled(Exception):
    """No read has finished within the timeout."""


class Crew:
    """A few daemon threads that take calls in order; closed by leaving the context."""

    def __init__(self, threads: int, name: str):
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._done = 0
        self._closed, self._lock = False, threading.Lock()
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{k}", daemon=True) for k in range(threads)]

    def __enter__(self) -> "Crew":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            for _thread in self._threads:
                self._calls.put(None)

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Submits `call` to one of the threads; cancelled if the crew is closed, by a call that still runs, say."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.cancel()
            else:
                self._calls.put((future, call))
        return future

    def wait(self, future: Future[T], limit: float) -> T:
        """The result of `future`.

        Raises:
            Stalled: no call of the crew has ended for `limit` seconds.
        """
        done, since = self._done, time.monotonic()
        while True:
            try:
                return future.result(limit / LOOKS)
            except TimeoutError:
                if future.done():  # the call's own
                    raise
            now = time.monotonic()
            if self._done != done:
                done, since = self._done, now
            elif now - since >= limit:
                raise Stalled

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                future.set_exception(error)
            self._done += 1
            del item, future, call  # they hold a batch's buffers
