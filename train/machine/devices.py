"""The devices that share a batch, in one process or several.

A batch is cut into equal parts, one a device; every device computes its samples alone. What crosses devices is what
every sample gave (`fit.sample_gradients.Sums`: its loss, gradient, dispersion and counts, 4 P + 18 bytes in float32 for
P parameters), gathered once a batch so that every process moves the parameters alike. With several processes one more
byte a process says whether it was asked to stop. The order of samples and the noise of each are functions of the seed,
so they do not depend on how many devices there are.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from driftcal.shared.errors import ConfigError
from driftcal.train.machine import launch

BATCH = "batch"
"""The one axis of the mesh."""

PATIENCE = 60
"""Time [s] that a process which leaves waits for the others: one that failed must not hold up the job."""


CHOOSING = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""Variables by which JAX chooses its devices."""


def join() -> None:
    """Joins the other processes of the run, if there are any: `machine.launch` documents the variables.

    Raises:
        ConfigError: the others do not come, or cannot be reached.
    """
    launched = launch.launch_of(os.environ)
    if launched is None:
        return
    launch.meet(launched)
    try:
        jax.distributed.initialize(launched.address, launched.n, launched.number, shutdown_timeout_seconds=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the processes of this run cannot be joined ({error}). Start all of them with srun, or set "
            f"{', '.join(launch.JAX)}; for one process alone, unset {launched.counted_by}."
        ) from error


def check() -> None:
    """Refuses an environment in which JAX has no device.

    Raises:
        ConfigError: as said; names the variables that choose devices.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError, ValueError) as error:
        chosen = [f"{name}={os.environ[name]!r}" for name in CHOOSING if name in os.environ]
        raise ConfigError(
            f"JAX has no device to compute on ({' '.join(str(error).split()) or type(error).__name__}). "
            f"{', '.join(chosen) or 'Nothing'} in the environment chooses one. Unset that, or set JAX_PLATFORMS=cpu."
        ) from error


def part() -> None:
    """Leaves the other processes, if there are any; all of them must call.

    What one does afterwards, such as evaluating for an hour, nobody waits for: a process that ended before without
    this would have the others stopped after `PATIENCE`.
    """
    jax.distributed.shutdown()


@dataclass(frozen=True)
class Devices:
    """The devices of a run, in the order in which a batch is cut.

    Attributes:
        mesh: of one axis.
    """

    mesh: Mesh

    @classmethod
    def of(cls, n: int | None = None) -> "Devices":
        """The first `n`; by default all of several processes, or one of a single process.

        Raises:
            ConfigError: there are fewer, or some process would have none.
        """
        check()
        there, processes = jax.devices(), jax.process_count()
        n = (len(there) if processes > 1 else 1) if n is None else n
        if not 1 <= n <= len(there):
            cpu = (
                " XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of a CPU."
                if jax.default_backend() == "cpu"
                else ""
            )
            raise ConfigError(f"--devices {n}: there are {len(there)}.{cpu}")
        if processes > 1 and n != len(there):
            raise ConfigError(f"--devices {n}: {processes} processes share {len(there)} devices, and use all of them.")
        return cls(Mesh(np.array(there[:n]), (BATCH,)))

    @property
    def n(self) -> int:
        """Number of devices."""
        return self.mesh.size

    @property
    def first(self) -> bool:
        """Tells whether this process is the one that writes."""
        return jax.process_index() == 0

    def check(self, batch_size: int, on_bad_shard: str = "fail") -> None:
        """Refuses a batch that does not divide, and leaving out samples where no process sees all of them.

        Raises:
            ConfigError: as said.
        """
        if batch_size % self.n:
            raise ConfigError(
                f"batch_size {batch_size} is not a multiple of the {self.n} devices that share it. Set batch_size to "
                f"{max(1, batch_size // self.n) * self.n}."
            )
        if on_bad_shard == "skip" and jax.process_count() > 1:
            raise ConfigError(
                f"--on-bad-shard skip: each of {jax.process_count()} processes reads a part of the samples, and none "
                f"could say which are left out. Mend the store (drift-inspect verify names the shards), or use one "
                f"process."
            )

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """Lets the first process go before the others, which read what it writes inside.

        Raises:
            ConfigError: in the others, if the first process failed there.
        """
        if not self.first:
            if self.any(False):
                raise ConfigError("the first process of the run could not begin. Its message says why.")
            yield
            return
        failed = True
        try:
            yield
            failed = False
        finally:
            self.any(failed)

    def rows(self, size: int) -> slice:
        """Samples of a batch of `size` that this process needs."""
        each = size // self.n
        mine = [k for k, device in enumerate(self.mesh.devices.flat) if device.process_index == jax.process_index()]
        return slice(mine[0] * each, (mine[-1] + 1) * each)

    def place(self, rows: dict[str, np.ndarray]) -> dict[str, Any]:
        """This process's rows of a batch, on its devices: a part of arrays that all processes hold together."""
        sharding = NamedSharding(self.mesh, PartitionSpec(BATCH))
        return {name: jax.make_array_from_process_local_data(sharding, values) for name, values in rows.items()}

    def any(self, asked: bool) -> bool:
        """Tells whether any process was asked; all of them must call."""
        if jax.process_count() == 1:
            return asked
        return bool(np.any(multihost_utils.process_allgather(np.array([asked]))))
