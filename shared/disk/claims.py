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
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from driftcal.shared.disk import durable, litter
from driftcal.shared.disk.crash_points import reached
from driftcal.shared.disk.holder import Holder
from driftcal.shared.errors import StoreError

GATE = "gate"
PATIENCE = 60.0
"""Longest wait for one process at the gate [s]: inside, it reads marks and writes small files only. Parts that end
together queue here, so the whole wait may be longer."""

GRACE = 5.0
"""How long a file that names nobody must stay so before it is taken over [s]. Where there are no hard links a file is
created first and filled then, so for a moment one that is being made names nobody either."""

TRACKS = "tracks"
"""Begins the name of a run's scratch file."""


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
        self.claimed = folder / f"claim-{holder.token}.json"
        self.file = folder / f"lock-{holder.token}.json"
        self.scratch = folder / f"{TRACKS}-{holder.token}.bin"
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
        found = [(path, Holder.read(path)) for path in sorted(self.folder.glob("lock-*.json"))]
        return [(path, other) for path, other in found if other is not None and other.token != self.holder.token]

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
    return f"claim-{token}.json", f"lock-{token}.json", f"{TRACKS}-{token}.bin"


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
