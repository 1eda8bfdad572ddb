"""A process that builds a store, as the files of `disk.claims` name it, and whether it still runs."""

import json
import math
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PROC = Path("/proc")
"""Where Linux tells about processes; macOS has none, and is asked by ps."""

_PLAIN = {"LC_ALL": "C", "TZ": "UTC"}

State = Literal["alive", "dead", "unknown"]


@dataclass(frozen=True)
class Holder:
    """A process that builds a store.

    Attributes:
        token: Names this run, unlike any other.
        host: Its host.
        machine: Tells whether process ids are comparable: a boot of a host, and its space of process ids.
        pid: Process id.
        born: When the process started, in the kernel's ticks since the boot or as ps says it; "" where neither tells.
        since: UTC time of the start, for people.
        command: How it was called.
        part: The numbers (k, N) of `--parts k/N`.
        alone: Whether it replaces the store, so that nobody may build beside it.
    """

    token: str
    host: str
    machine: str
    pid: int
    born: str
    since: str
    command: str
    part: tuple[int, int]
    alone: bool

    @classmethod
    def here(cls, part: tuple[int, int], alone: bool) -> "Holder":
        """This process."""
        return cls(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            born=_born(os.getpid()) or "",
            since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            command=" ".join(sys.argv)[:500],
            part=part,
            alone=alone,
        )

    @classmethod
    def read(cls, path: Path) -> "Holder | None":
        """Whom the file at `path` names; None where it is gone, a holder nobody knows where it is damaged."""
        try:
            return cls._from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, FileNotFoundError) and not path.is_symlink():  # one that leads nowhere is there
                return None
            return cls(path.name, "an unknown host", "", 0, "", "an unknown time", str(path), (1, 1), True)

    @classmethod
    def _from_json(cls, tree: dict[str, Any]) -> "Holder":
        """A holder as its file has it; what is not what it should be is a ValueError, KeyError or TypeError."""
        k, n = tree["part"]
        held = cls(**{**tree, "part": (k, n)})
        if not all(type(value) is str for value in (held.host, held.machine, held.born, held.since, held.command)):
            raise TypeError("not a text")
        if not re.fullmatch("[0-9a-f]{16}", held.token):  # names files
            raise ValueError("not a token")
        if not all(type(value) is int for value in (held.pid, k, n)) or type(held.alone) is not bool:
            raise TypeError("not a number")
        if not (0 < held.pid < 2**31 and 1 <= k <= n):  # 0 and below stand for groups of processes
            raise ValueError("no process, or no part")
        return held

    @property
    def state(self) -> State:
        """Whether the process still runs; unknown for another host, another boot, another container."""
        if self.machine != _machine():
            return "unknown"
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return "dead"
        except PermissionError:
            return "alive"  # somebody else's
        born = _born(self.pid)
        return "alive" if born is None or self.born in ("", born) else "dead"  # where in doubt it lives

    def overlaps(self, part: tuple[int, int], alone: bool) -> bool:
        """Whether a shard may belong both to this process's part and to `part`."""
        (k, n), (j, m) = self.part, part
        return self.alone or alone or (k - j) % math.gcd(n, m) == 0

    def __str__(self) -> str:
        k, n = self.part
        text = f"process {self.pid} on {self.host}, since {self.since}, part {k}/{n}: {self.command}"
        return "".join(c if c.isprintable() else "?" for c in text)  # a file from elsewhere must not steer the terminal


def _machine() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()  # not Linux


def _born(pid: int) -> str | None:
    """When a process began, "" where it has ended; None where that cannot be told."""
    if not PROC.exists():
        return _born_by_ps(pid)
    try:
        stat = (PROC / f"{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything
    return "" if fields[0] in "ZX" else fields[19]


def _born_by_ps(pid: int) -> str | None:
    asked = ["ps", "-o", "state=", "-o", "lstart=", "-p", str(pid)]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=False, env=os.environ | _PLAIN).stdout
    except OSError:
        return None
    state, _, started = told.strip().partition(" ")
    return "" if state[:1] in "ZX" else started.strip()
