"""Shards made by the workers of a dask cluster.

A worker runs its own installed code under the names of our functions. So every worker reports its edition before
anything is sent, and every task carries the edition that must run it, since workers may join at any time.
"""

import contextlib
import importlib
import itertools
import pickle
import socket
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

from tqdm import tqdm

from driftcal.preprocess.sources import files
from driftcal.preprocess.writing import edition
from driftcal.preprocess.writing.edition import Edition
from driftcal.preprocess.writing.shard_task import Pending, days_bar, make_shard
from driftcal.shared import command
from driftcal.shared.disk import durable
from driftcal.shared.errors import ConfigError, Interrupted, StoreError

AHEAD = 16
"""Fewest shards that a cluster is given before the first of them is done."""

ADDRESSES = ("tcp://", "tls://")
"""Beginnings of the address of a dask cluster's scheduler."""

CONNECT = 30
"""Seconds in which a scheduler must answer."""

PATIENCE = 3600.0
"""Seconds that workers are waited for: their jobs may stand in a queue."""

SAYING = 60.0
"""Seconds from one word about a wait to the next."""

LOOKING = 1.0
"""Seconds from one look for workers to the next."""

SAME = "Install the same driftcal and libraries for the scheduler and all workers, and start them again"

_FOREIGN = (ImportError, AttributeError, RuntimeError)
"""Exceptions of a process that cannot unpickle what it is sent: it lacks the package, or has another version."""


def run(pending: list[Pending], address: str, progress: bool) -> None:
    """Writes the `pending` shards by the workers of the scheduler at `address`.

    Raises:
        ConfigError: no dask scheduler answers there, no worker comes, or one is of another edition.
        Interrupted: the scheduler or the workers were lost.
        DriftcalError: whatever a worker met.
    """
    if not pending:
        return
    with connected(address) as client, days_bar(pending, progress) as bar:
        wait = _Wait(address, client)
        wait.until_there()
        check_workers(client, address)
        _send(pending, address, client, wait, bar)


def check(address: str) -> None:
    """Refuses an `address` where no scheduler answers that has our package; raises as `run`."""
    with connected(address):
        pass


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of the scheduler at `address`, which has our package and our dask; raises as `run`."""
    try:
        from distributed import Client  # noqa: PLC0415 - an extra, for clusters only
        from distributed.versions import VersionMismatchWarning  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"--scheduler {address} needs the package distributed: pip install distributed.") from error
    where = f"--scheduler {address}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", VersionMismatchWarning)  # versions are compared below
        try:
            _greet(address)
            client = stack.enter_context(Client(address, timeout=CONNECT))
        except (OSError, ValueError, TypeError, LookupError, AssertionError, RuntimeError, ImportError) as error:
            raise ConfigError(
                f"{where}: no dask scheduler answers there ({files.brief(error)}). Name the address that the scheduler "
                f"prints when it starts, not a worker's or the dashboard's; it must run the dask of this environment."
            ) from error
        try:
            came: Any = client.run_on_scheduler(edition.own)
        except _FOREIGN as error:
            raise ConfigError(
                f"{where}: the scheduler runs without this driftcal ({files.brief(error)}). {SAME}."
            ) from error
        ours = edition.own()
        kept = ("dask", "distributed", edition.PYTHON)  # it only passes on the rest
        differs = edition.difference({k: ours[k] for k in kept}, {k: came.get(k, "missing") for k in kept})
        if differs:
            raise ConfigError(f"{where}: the scheduler has {differs}. {SAME}.")
        yield client


def _greet(address: str) -> None:
    """Raises an OSError unless a server of dask is there, which speaks first: its client waits for others for ever."""
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if scheme != "tcp":  # an encrypted connection is set up by both
        return
    until = time.monotonic() + CONNECT
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT) as comm:
                if comm.recv(1):
                    return
                raise ConnectionError("the connection was closed without a word")
        except ConnectionRefusedError:  # it may be about to start
            if time.monotonic() > until:
                raise
        time.sleep(0.1)


def check_workers(client: Any, address: str) -> None:
    """Refuses workers of another edition, all in one message.

    Raises:
        ConfigError: there is one.
    """
    ours, others = edition.own(), []
    for worker, came in client.run(edition.own, on_error="return").items():
        if isinstance(came, Exception):
            others.append(f"{worker} runs without this driftcal ({files.brief(came)})")
        elif differs := edition.difference(ours, came):
            others.append(f"{worker} has {differs}")
    if others:
        more = f"; and {len(others) - 3} more" if len(others) > 3 else ""
        raise ConfigError(
            f"--scheduler {address}: workers that would make other shards: {'; '.join(others[:3])}{more}. {SAME}."
        )


def make_sent(expected: Edition, task: bytes) -> int:
    """Makes, on a worker, the shard of the pickled `task`, if the worker is of the `expected` edition.

    Raises:
        ConfigError: it is not.
        StoreError: it does not see the store.
    """
    if differs := edition.difference(expected, edition.own()):
        raise ConfigError(f"{_name()} has {differs}: it would make other shards. {SAME}.")
    pending: Pending = pickle.loads(task)
    store = pending.task().store
    if not durable.there(store):
        raise StoreError(
            f"{_name()} does not see {store}. The store must lie on a file system that all workers share, under the "
            f"same path: choose such an --out."
        )
    return make_shard(pending)


def _name() -> str:
    from distributed import get_worker  # noqa: PLC0415 - an extra, for clusters only

    try:
        return f"the worker {get_worker().address}"
    except ValueError:  # none of a cluster
        return "the worker"


def _is_foreign(error: BaseException) -> bool:
    """Tells whether a task failed since it could not be read, rather than at its work."""
    return isinstance(error, ImportError) or "get attribute" in str(error) or "eserializ" in str(error)


class _Wait:
    """The wait for workers, which is announced and limited."""

    def __init__(self, address: str, client: Any):
        self._address, self._client = address, client
        self._since: float | None = None
        self._said: float | None = None

    def threads(self) -> int:
        """Threads of all workers."""
        return sum(self._client.nthreads().values())

    def until_there(self) -> None:
        """Returns once there is a worker."""
        while self.is_on():
            time.sleep(LOOKING)

    def is_on(self) -> bool:
        """Tells whether there is no worker, and says so at intervals.

        Raises:
            ConfigError: there has been none for long.
        """
        now = time.monotonic()
        if self.threads():
            self._since = self._said = None
            return False
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited > PATIENCE:
            raise ConfigError(
                f"--scheduler {self._address}: no worker for {PATIENCE / 60:.0f} min. Start workers "
                f"(dask worker {self._address}), see whether their jobs wait in a queue or died, and run the same "
                f"command again: what is done is kept."
            )
        if self._said is None or now - self._said >= SAYING:
            self._said = now
            command.say(
                f"waiting for workers of {self._address}: none yet, for {waited / 60:.0f} of {PATIENCE / 60:.0f} min"
            )
        return True


def _send(pending: list[Pending], address: str, client: Any, wait: _Wait, bar: tqdm) -> None:
    """Has the shards made; few at a time are put together and wait with the scheduler, as all grow with the store."""
    from distributed import KilledWorker  # noqa: PLC0415 - an extra, for clusters only
    from distributed import wait as first_of  # noqa: PLC0415

    ours, left, sent = edition.own(), iter(pending), {}

    def make(expected: Edition, task: bytes) -> int:
        """Sent by value, being local: a worker that cannot find a function of ours by name would end without a word."""
        return importlib.import_module("driftcal.preprocess.writing.cluster").make_sent(expected, task)

    def send() -> None:
        ahead = AHEAD
        with contextlib.suppress(OSError):  # a scheduler that is lost is told by the shards that it had
            ahead = max(AHEAD, 2 * wait.threads())  # workers may have come since
        for task in itertools.islice(left, max(0, ahead - len(sent))):
            future = client.submit(make, ours, pickle.dumps(task), pure=False)
            sent[future] = task.days

    try:
        send()
        while sent:
            try:
                ended: Any = first_of(list(sent), timeout=SAYING, return_when="FIRST_COMPLETED")
            except TimeoutError:
                with contextlib.suppress(OSError):
                    wait.is_on()
                continue
            for future in ended.done:
                future.result()
                bar.update(sent.pop(future))
            send()
    except (CancelledError, KilledWorker) as error:
        raise Interrupted(
            f"the dask cluster at {address} lost its scheduler or its workers ({files.brief(error)}). Start it "
            f"again and run the same command again: what is done is kept."
        ) from error
    except _FOREIGN as error:
        if not _is_foreign(error):
            raise
        raise ConfigError(
            f"--scheduler {address}: a worker or the scheduler cannot run what it is sent, as without this driftcal "
            f"({files.brief(error)}). {SAME}."
        ) from error
