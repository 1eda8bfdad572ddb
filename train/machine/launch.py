"""The launch of a run on several processes: read from the environment, and a meeting of all before JAX starts.

JAX waits silently for missing processes, for five minutes, and then ends the process. So all processes meet here first,
at the address where JAX's coordinator will listen. An empty variable counts as unset.
"""

import contextlib
import re
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from driftcal.shared.command import say
from driftcal.shared.errors import ConfigError

JAX = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_JOB_ID", "SLURM_STEP_NODELIST")
OTHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "PALS_SIZE")
"""Sizes that other launchers give; none of them names an address where the processes could meet."""

PORTS = 61440, 4096
"""The first port of a SLURM job's coordinator and how many there are; JAX's own."""

ALONE, PATIENCE = 60.0, 300.0
"""Waits for the others [s] if none comes, and if some do."""

QUIET, AGAIN = 5.0, 30.0
"""The wait is spoken of after so long, and then every so often [s]."""

_HELLO, _GO = b"driftcal %d of %d\n", b"go\n"


@dataclass(frozen=True)
class Launch:
    """This process among those of a run.

    Attributes:
        address: host:port of the first one's coordinator.
        n: of processes.
        number: of this one, from 0.
        counted_by: the variable that says how many there are.
    """

    address: str
    n: int
    number: int
    counted_by: str


def launch_of(environ: Mapping[str, str]) -> Launch | None:
    """Launch that `environ` describes; None for a single process.

    Raises:
        ConfigError: it contradicts itself.
    """
    told = {name: environ[name].strip() for name in (*JAX, *SLURM, *OTHERS) if environ.get(name, "").strip()}
    if all(name in told for name in JAX):
        n, number = _whole(told, JAX[1], 1), _whole(told, JAX[2], 0)
        return _checked(Launch(told[JAX[0]], n, number, JAX[1]), JAX[2])
    if SLURM[0] in told and SLURM[1] in told and (n := _whole(told, SLURM[0], 1)) > 1:
        missing = [name for name in SLURM if name not in told]
        if missing:
            raise ConfigError(
                f"{SLURM[0]}={n} says that this process is one of {n}, and {' and '.join(missing)} is not set. Start "
                f"all of them with srun, or unset {SLURM[0]} for this one alone."
            )
        address = told.get(JAX[0]) or _address(told, environ.get("JAX_COORDINATOR_PORT", ""))
        return _checked(Launch(address, n, _whole(told, SLURM[1], 0), SLURM[0]), SLURM[1])
    if some := [name for name in JAX if name in told]:
        lacking = ", ".join(name for name in JAX if name not in told)
        say(f"note: {', '.join(some)} without {lacking} joins no other process: this one computes alone.")
    for name in OTHERS:
        if told.get(name, "1") != "1":
            say(
                f"note: {name}={told[name]} says that this process is one of {told[name]}. Such processes are not "
                f"joined: this one computes alone. Start them with srun, or set {', '.join(JAX)}."
            )
            break
    return None


def _whole(told: Mapping[str, str], name: str, least: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", told[name]) or int(told[name]) < least:
        raise ConfigError(f"{name}={told[name]!r}: expected a whole number from {least}. Correct it, or unset {name}.")
    return int(told[name])


def _checked(launch: Launch, numbered_by: str) -> Launch:
    if launch.number >= launch.n:
        raise ConfigError(
            f"{numbered_by}={launch.number} and {launch.counted_by}={launch.n}: expected a number below {launch.n}. "
            f"Correct them, or unset {launch.counted_by}."
        )
    host, colon, port = launch.address.rpartition(":")
    if not colon or not host or not re.fullmatch("[0-9]{1,5}", port):
        raise ConfigError(f"{JAX[0]}={launch.address!r}: expected host:port, such as node001:61500.")
    return launch


def _address(told: Mapping[str, str], port: str) -> str:
    """Address of the first node of a SLURM step, such as node001 of node[001-004,7],other, by JAX's rule."""
    first = re.match(r"([^,\[]*)(?:\[([^,\-\]]*))?", told["SLURM_STEP_NODELIST"])
    assert first is not None
    if not re.fullmatch("[0-9]{1,5}", port.strip()):
        port = str(PORTS[0] + _whole(told, "SLURM_JOB_ID", 0) % PORTS[1])
    return f"{first[1]}{first[2] or ''}:{port.strip()}"


def meet(launch: Launch) -> None:
    """Waits until all processes of the run are there.

    Raises:
        ConfigError: they do not come, or the first one cannot listen.
    """
    waiting = _Waiting(launch)
    try:
        _gather(launch, waiting) if launch.number == 0 else _report(launch, waiting)
    except TimeoutError as error:
        raise waiting.refusal() from error


class _Waiting:
    """Reports on the waiting, and limits it."""

    def __init__(self, launch: Launch):
        self.launch, self.came = launch, 0
        self._began = time.monotonic()
        self._speak = self._began + QUIET

    def look(self) -> None:
        """Raises TimeoutError when it has been too long."""
        now = time.monotonic()
        if now - self._began > (PATIENCE if self.came else ALONE):
            raise TimeoutError
        if now > self._speak:
            self._speak = now + AGAIN
            say(
                f"waiting for {self._others()} at {self.launch.address}: {self.launch.counted_by}={self.launch.n} says "
                f"that there are {self.launch.n} processes ..."
            )

    def _others(self) -> str:
        if self.launch.number:
            return "the first process of this run"
        missing = self.launch.n - 1 - self.came
        return f"{missing} other process{'es' if missing > 1 else ''} of this run"

    def refusal(self) -> ConfigError:
        """The error to raise at the end."""
        name, n = self.launch.counted_by, self.launch.n
        return ConfigError(
            f"{name}={n} in the environment says that this process is number {self.launch.number} of {n}, and "
            f"{self._others()} did not come to {self.launch.address} in {time.monotonic() - self._began:.0f} s. Start "
            f"all of them (with srun, or each with {', '.join(JAX)}); for one process alone, unset {name}."
        )


def _gather(launch: Launch, waiting: _Waiting) -> None:
    """The first process: waits for all others to come, then lets them go."""
    port = int(launch.address.rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(socket.create_server(("", port), family=family, dualstack_ipv6=both))
        except OSError as error:
            raise ConfigError(
                f"cannot listen at port {port} for the other processes of this run: {error.strerror}. If another run "
                f"of this job is there, set JAX_COORDINATOR_PORT to a free port, the same for all processes."
            ) from error
        select = stack.enter_context(selectors.DefaultSelector())
        select.register(server, selectors.EVENT_READ)
        here: dict[int, socket.socket] = {}
        while len(here) < launch.n - 1:
            waiting.look()
            for key, _ in select.select(0.2):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if connection is server:
                    connection = stack.enter_context(server.accept()[0])
                    connection.settimeout(1.0)
                    select.register(connection, selectors.EVENT_READ)
                    continue
                number = _number(connection, launch.n)
                if number is None:  # gone, or somebody else
                    select.unregister(connection)
                    connection.close()
                    here = {k: other for k, other in here.items() if other is not connection}
                else:
                    here[number] = connection
                waiting.came = len(here)
        for connection in here.values():
            with contextlib.suppress(OSError):
                connection.sendall(_GO)
        for connection in here.values():  # who closes first keeps the port busy for a while
            with contextlib.suppress(OSError):
                connection.recv(1)


def _number(connection: socket.socket, n: int) -> int | None:
    try:
        said = re.fullmatch(rb"driftcal ([0-9]+) of ([0-9]+)\n", connection.recv(100))
    except OSError:
        return None
    return int(said[1]) if said and int(said[2]) == n and 0 < int(said[1]) < n else None


def _report(launch: Launch, waiting: _Waiting) -> None:
    """Another process: comes to the first one, and waits for its word."""
    host, _, port = launch.address.rpartition(":")
    while True:
        waiting.look()
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=2.0) as connection:
                connection.sendall(_HELLO % (launch.number, launch.n))
                connection.settimeout(0.5)
                while True:
                    try:
                        said = connection.recv(10)
                    except TimeoutError:
                        waiting.came = 1
                        waiting.look()
                        continue
                    if said == _GO:
                        return
                    break
        except TimeoutError:
            waiting.look()
        except OSError:
            pass
        time.sleep(0.2)
