"""Disks that fail: `os` as `shared.durable` calls it, some of whose calls raise."""

import errno
import os
from typing import Any


class Failing:
    """`os` as `shared.durable` calls it; the n-th of the calls named fails."""

    def __init__(self, calls: tuple[str, ...], nth: int, number: int):
        self.calls, self.left, self.number = calls, nth, number

    def __getattr__(self, name: str) -> Any:
        true = getattr(os, name)
        if name not in self.calls:
            return true

        def call(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0 or (self.number == errno.ENOSPC and self.left < 0):  # a full disk stays full
                if name == "writev":
                    whole = b"".join(arguments[1])
                    true(arguments[0], [whole[: len(whole) // 2]])  # what went in before it was full
                raise OSError(self.number, os.strerror(self.number))
            return true(*arguments)

        return call
