"""Who is building a store: one part of it is built by one process at a time.

Files in the store's `.building`, made by hard links, so they hold on network file systems too:

* `claim-TOKEN.json` says who a process is: host, process id, start, command and part.
* `lock-TOKEN.json` is a link to it: that process builds that part.
* `gate` is a link to it: that process is just now reading or changing what all parts share. Others wait.

A process that was killed leaves its files. On the same host that is seen, and the next run takes them away; whether a
process of another host still runs cannot be seen, so that takes `--take-over`. None of this gets into a finished store.
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
from typing import Any, Literal

from shared import durable
from shared.crashpoints import reached
from shared.errors import StoreError

GATE = "gate"
PATIENCE = 60.0
"""Longest wait for one process at the gate [s]: inside, it reads marks and writes small files only. Parts that end
together queue here, so the whole wait may be longer."""

PROC = Path("/proc")
"""Where Linux tells about processes; macOS has none, and is asked by ps."""

_PLAIN = {"LC_ALL": "C", "TZ": "UTC"}

TRACKS = "tracks"
"""Begins the name of a run's scratch file."""

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
            born=_born(os.getpid()),
            since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            command=" ".join(sys.argv)[:500],
            part=part,
            alone=alone,
        )

    @classmethod
    def read(cls, path: Path) -> "Holder | None":
        """Whom the file at `path` names; None where it is gone, a holder nobody knows where it is damaged."""
        try:
            tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**tree, "part": (int(tree["part"][0]), int(tree["part"][1]))})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return cls(path.name, "an unknown host", "", 0, "", "an unknown time", str(path), (1, 1), True)

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
        return "alive" if _born(self.pid) == self.born else "dead"

    def overlaps(self, part: tuple[int, int], alone: bool) -> bool:
        """Whether a shard may belong both to this process's part and to `part`."""
        (k, n), (j, m) = self.part, part
        return self.alone or alone or (k - j) % math.gcd(n, m) == 0

    def __str__(self) -> str:
        k, n = self.part
        return f"process {self.pid} on {self.host}, since {self.since}, part {k}/{n}: {self.command}"


def _machine() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()  # not Linux


def _born(pid: int) -> str:
    if not PROC.exists():
        return _born_by_ps(pid)
    try:
        stat = (PROC / f"{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything
    return "" if fields[0] in "ZX" else fields[19]


def _born_by_ps(pid: int) -> str:
    asked = ["ps", "-o", "state=", "-o", "lstart=", "-p", str(pid)]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=False, env=os.environ | _PLAIN).stdout
    except OSError:
        return ""
    state, _, started = told.strip().partition(" ")
    return "" if state[:1] in "ZX" else started.strip()


class Lock:
    """The right of this process to build its part; from `hold`."""

    def __init__(self, folder: Path, holder: Holder, take_over: bool):
        self.holder = holder
        self.folder = folder
        self.claimed = folder / f"claim-{holder.token}.json"
        self.file = folder / f"lock-{holder.token}.json"
        self.scratch = folder / f"{TRACKS}-{holder.token}.f32"
        self._take_over = take_over

    @contextlib.contextmanager
    def gate(self) -> Iterator[None]:
        """Keeps the other parts out while the body runs.

        Raises:
            StoreError: another process stays inside for a minute, or the folder is gone.
        """
        gate, waited, inside = self.folder / GATE, 0.0, None
        while (other := self._claim(gate)) is not None:
            if other != inside:
                inside, waited = other, 0.0
            if waited > PATIENCE:
                raise StoreError(f"{self.folder} is held by {other}. {_advice(other)}")
            time.sleep(0.05)
            waited += 0.05
        reached("gate: taken")
        try:
            yield
        finally:
            self._release()
        reached("gate: released")

    def _release(self) -> None:
        held = Holder.read(self.folder / GATE)
        if held is not None and held.token == self.holder.token:
            durable.remove(self.folder / GATE)

    def check(self) -> None:
        """Refuses to go on where the right was taken away.

        Raises:
            StoreError: the lock is gone.
        """
        check(self.file)

    def clean(self) -> None:
        """Removes what is in the folder but for the files of this process and of others that may live. At the gate."""
        reached("clean: begins")
        living = {holder.token for holder in self._others() if holder.state != "dead"} | {self.holder.token}
        kept = {self.folder / GATE, *(self.folder / name for token in living for name in _names(token))}
        for k, path in enumerate(sorted(set(self.folder.iterdir()) - kept)):
            durable.remove(path)
            if k == 0:
                reached("clean: half done")
        reached("clean: done")

    def _register(self) -> None:
        """Takes the part, if nobody has it; what the dead have left goes."""
        for other in self._others():
            if other.state == "dead" or (self._take_over and other.state == "unknown"):
                for name in _names(other.token):
                    durable.remove(self.folder / name)
            elif other.overlaps(self.holder.part, self.holder.alone):
                raise StoreError(f"{self.folder.parent} is being built by {other}. {_advice(other)}")
        try:
            durable.claim(self.file, self.claimed)
        except OSError as error:
            raise durable.cannot_write(self.file, error) from error
        reached("lock: listed")

    def _others(self) -> list[Holder]:
        found = [Holder.read(path) for path in sorted(self.folder.glob("lock-*.json"))]
        return [holder for holder in found if holder is not None and holder.token != self.holder.token]

    def _claim(self, path: Path) -> Holder | None:
        """Makes `path` this process's; else who has it."""
        while True:
            try:
                if durable.claim(path, self.claimed):
                    return None
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
            now = Holder.read(path)
            if now is not None and now.token == other.token:
                durable.remove(path)


def _names(token: str) -> tuple[str, ...]:
    return f"claim-{token}.json", f"lock-{token}.json", f"{TRACKS}-{token}.f32"


def _advice(other: Holder) -> str:
    if other.state == "alive":
        return f"Wait for it, or stop it (kill {other.pid}) and run the command again; --parts k/N shares the work."
    return "If that process has ended (its host may have been restarted), run the command again with --take-over."


def check(file: Path) -> None:
    """Refuses to go on for a run whose lock `file` is gone.

    Raises:
        StoreError: it is.
    """
    if not file.exists():
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
        StoreError: another process has the same part, or one that shares shards with it; names it.
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
