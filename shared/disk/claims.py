"""Claims on the parts of a store: each is built by one process at a time.

Files in the store's `.building`, made by hard links, so they hold on network file systems too:

* `claim-TOKEN.json` says who a process is: host, process id, start, command and part.
* `lock-TOKEN.json` is a link to it: that process builds that part.
* `gate` is a link to it: that process is just now reading or changing what all parts share. Others wait.

A process that was killed leaves its files. On the same host that is seen, and the next run takes them away; whether a
process of another host still runs cannot be seen, so that takes `--take-over`. None of this gets into a finished store.

A shard is written whole or not at all, and the same by whoever writes it: the locks save work. The gate saves data:
what an older store has left is taken away there, and the manifest is written there, once.
"""

import contextlib
import json
import math
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter

from driftcal.shared.disk import durable, litter
from driftcal.shared.disk.crash_points import reached
from driftcal.shared.errors import StoreError

GATE = "gate"
PATIENCE = 60.0
"""Longest wait for one process at the gate [s]: inside, it reads marks and writes small files only. Parts that end
together queue here, so the whole wait may be longer."""

GRACE = 5.0
"""Time that a file that names nobody must stay so before it is taken over [s]. Where there are no hard links a file is
created first and filled then, so for a moment one that is being made names nobody either."""

PROC = Path("/proc")
"""Folder in which Linux tells about processes; macOS has none, and is asked by ps."""

_PLAIN = {"LC_ALL": "C", "TZ": "UTC"}

State = Literal["alive", "dead", "unknown"]


def _divides(part: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= part[0] <= part[1]:
        raise ValueError("no part")
    return part


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

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    token: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]  # names files
    host: str
    machine: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]  # 0 and below stand for groups of processes
    born: str
    since: str
    command: str
    part: Annotated[tuple[int, int], AfterValidator(_divides)]
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
        """The process that the file at `path` names; None where it is gone, an unknown one where it is damaged."""
        try:
            return _HOLDER.validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            if isinstance(error, FileNotFoundError) and not path.is_symlink():  # one that leads nowhere is there
                return None
            return cls(path.name, "an unknown host", "", 0, "", "an unknown time", str(path), (1, 1), True)

    @property
    def state(self) -> State:
        """Tells whether the process still runs; unknown for another host, another boot, another container."""
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
        """Tells whether a shard may belong both to this process's part and to `part`."""
        (k, n), (j, m) = self.part, part
        return self.alone or alone or (k - j) % math.gcd(n, m) == 0

    def __str__(self) -> str:
        k, n = self.part
        text = f"process {self.pid} on {self.host}, since {self.since}, part {k}/{n}: {self.command}"
        return "".join(c if c.isprintable() else "?" for c in text)  # a file from elsewhere must not steer the terminal


_HOLDER = TypeAdapter(Holder)


class Busy(StoreError):
    """Another process has what was asked for.

    Attributes:
        other: that process.
    """

    def __init__(self, message: str, other: Holder):
        super().__init__(message)
        self.other = other


class Lock:
    """The right of this process to build its part; from `hold`."""

    def __init__(self, folder: Path, holder: Holder, take_over: bool):
        self.holder = holder
        self.folder = folder
        self.claimed, self.file, self.scratch = (folder / name for name in _names(holder.token))
        self._take_over = take_over

    @contextlib.contextmanager
    def gate(self) -> Iterator[None]:
        """Keeps the other parts out while the body runs.

        Raises:
            Busy: another process stays inside for a minute.
            StoreError: the folder is gone.
        """
        gate, waited, inside = self.folder / GATE, 0.0, None
        while (other := self._claim(gate)) is not None:
            if other != inside:
                inside, waited = other, 0.0
            if waited > PATIENCE:
                raise Busy(f"{self.folder} is held by {other}. {_advice(other)}", other)
            time.sleep(0.05)
            waited += 0.05
        reached("gate: taken")
        try:
            yield
        finally:
            self._release()
        reached("gate: released")

    def _release(self) -> None:
        holder = Holder.read(self.folder / GATE)
        if holder is not None and holder.token == self.holder.token:
            durable.remove(self.folder / GATE)

    def clean(self) -> None:
        """Removes what is in the folder but for the files of this process and of others that may live. At the gate."""
        reached("clean: begins")
        living = {other.token for _, other in self._others() if other.state != "dead"} | {self.holder.token}
        kept = {self.folder / GATE, *(self.folder / name for token in living for name in _names(token))}
        others = (path for path in self.folder.iterdir() if not litter.is_litter(path))
        for k, path in enumerate(sorted(set(others) - kept)):
            durable.remove(path)
            if k == 0:
                reached("clean: half done")
        reached("clean: done")

    def _register(self) -> None:
        """Takes the part, if nobody has it; what the dead have left goes."""
        for path, other in self._others():
            if other.state == "dead" or (self._take_over and other.state == "unknown"):
                for left in (path, *(self.folder / name for name in _names(other.token))):
                    durable.remove(left)
            elif other.overlaps(self.holder.part, self.holder.alone):
                raise Busy(f"{self.folder.parent} is being built by {other}. {_advice(other)}", other)
        try:
            durable.claim(self.file, self.claimed)
        except OSError as error:
            raise durable.cannot_write(self.file, error) from error
        reached("lock: listed")

    def _others(self) -> list[tuple[Path, Holder]]:
        """The locks of others, each with its file."""
        holders = [(path, Holder.read(path)) for path in sorted(self.folder.glob("lock-*.json"))]
        return [(path, other) for path, other in holders if other is not None and other.token != self.holder.token]

    def _claim(self, path: Path) -> Holder | None:
        """Makes `path` this process's; else who has it."""
        while True:
            try:
                if durable.claim(path, self.claimed) and Holder.read(path) == self.holder:
                    return None  # and not taken over while it was made
            except OSError as error:
                raise StoreError(
                    f"{self.folder} cannot be used ({error.strerror}): another run has finished or replaced the store "
                    f"meanwhile, or it cannot be written. Look with `drift-inspect show`, and run the command again."
                ) from error
            other = Holder.read(path)
            if other is None:
                continue  # gone just now
            if other.token == self.holder.token:
                return None  # the link was made, and its confirmation was lost on the way
            if other.state == "alive" or (other.state == "unknown" and not self._take_over):
                return other
            # Of those who see that it is a dead process's, one may take it away, and only as long as it is that one's.
            if (breaker := self._claim(path.with_name(f"{GATE}-{other.token}"))) is not None:
                return breaker
            if other.token == path.name:
                time.sleep(GRACE)
            now = Holder.read(path)
            if now is not None and now.token == other.token:
                durable.remove(path)


def _names(token: str) -> tuple[str, ...]:
    return f"claim-{token}.json", f"lock-{token}.json", f"tracks-{token}.bin"


def _advice(other: Holder) -> str:
    if other.state == "alive":
        return f"Wait for it, or stop it (kill {other.pid}) and run the command again; --parts k/N shares the work."
    return "If that process has ended (its host may have been restarted), run the command again with --take-over."


def check(file: Path) -> None:
    """Refuses to go on for a run whose lock `file` is gone.

    Raises:
        StoreError: it is.
    """
    if not durable.there(file):
        raise StoreError(
            f"{file} is gone: another run took the store over, finished or replaced it. Look with `drift-inspect "
            f"show`, and run the command again."
        )


@contextlib.contextmanager
def hold(folder: Path, part: tuple[int, int], alone: bool = False, take_over: bool = False) -> Iterator[Lock]:
    """Holds the right to build `part`, the (k, N) of `--parts k/N`, of the store that `folder` lies in.

    Args:
        folder: `.building` of the store; must exist.
        part: Which shards.
        alone: Nobody may build beside this process.
        take_over: Locks of processes that cannot be seen from here count as those of dead ones.

    Raises:
        Busy: another process has the same part, or one that shares shards with it; names it.
    """
    lock = Lock(folder, Holder.here(part, alone), take_over)
    tree = json.dumps(asdict(lock.holder), indent=1)
    try:
        durable.write(lock.claimed, tree.encode(), "lock")
        with lock.gate():
            lock._register()
        yield lock
    finally:
        with contextlib.suppress(StoreError):  # it has been raised already
            lock._release()
        for name in _names(lock.holder.token):
            with contextlib.suppress(OSError):
                (folder / name).unlink(missing_ok=True)


def _machine() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()  # not Linux


def _born(pid: int) -> str | None:
    """Time at which a process began, "" where it has ended; None where that cannot be told."""
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
        output = subprocess.run(asked, capture_output=True, text=True, check=False, env=os.environ | _PLAIN).stdout
    except OSError:
        return None
    state, _, started = output.strip().partition(" ")
    return "" if state[:1] in "ZX" else started.strip()
