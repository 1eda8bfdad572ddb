"""Another time of day for a moment, at which a term that reads the clock gives other values.

A trace keeps the clock's reading as a number, in float32 to two minutes, so two traces in a row would agree.
"""

import contextlib
import datetime
import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any
from unittest import mock

LATER = datetime.timedelta(days=97, hours=7, minutes=13, seconds=11, microseconds=370_000)
"""Shift of time that changes month, day, hour, minute and second."""


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return datetime.datetime.now(tz) + LATER

    @classmethod
    def utcnow(cls) -> Any:
        return datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + LATER

    @classmethod
    def today(cls) -> Any:
        return datetime.datetime.now() + LATER


class _Date(datetime.date):
    @classmethod
    def today(cls) -> Any:
        return (datetime.datetime.now() + LATER).date()


def _shifted(name: str, true: Callable[..., Any]) -> Callable[..., Any]:
    """The function `time.name`, later."""
    seconds = LATER.total_seconds()
    if name.endswith("_ns"):
        return lambda: true() + round(seconds * 1e9)
    if name in _CALENDARS:
        return lambda at=None: true(now() + seconds if at is None else at)
    if name == "asctime":
        return lambda at=None: true(localtime(now() + seconds) if at is None else at)
    if name == "strftime":
        return lambda form, at=None: true(form, localtime(now() + seconds) if at is None else at)
    return lambda: true() + seconds


now, localtime = time.time, time.localtime
_CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
_CALENDARS = ("localtime", "gmtime", "ctime")
_TEXTS = ("strftime", "asctime")
_FUNCTIONS = {name: _shifted(name, getattr(time, name)) for name in (*_CLOCKS, *_CALENDARS, *_TEXTS)}


@contextlib.contextmanager
def later(modules: Iterable[ModuleType]) -> Iterator[None]:
    """Sets another time of day for the code in `modules`."""
    calendar = ModuleType("datetime")
    vars(calendar).update({**vars(datetime), "datetime": _Datetime, "date": _Date})
    others = {id(getattr(time, name)): function for name, function in _FUNCTIONS.items()}
    others |= {id(datetime): calendar, id(datetime.datetime): _Datetime, id(datetime.date): _Date}
    with contextlib.ExitStack() as stack:
        for module in modules:
            here = {name: others[id(value)] for name, value in vars(module).items() if id(value) in others}
            stack.enter_context(mock.patch.dict(vars(module), here))
        stack.enter_context(mock.patch.dict(vars(time), _FUNCTIONS))
        yield
