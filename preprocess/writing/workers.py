"""The number of shards made at a time: the same for the estimate and for dask.

A process may not use all cores of its machine: batch systems, containers and `taskset` leave it fewer, and as many
workers as cores could take many times the memory that is granted.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from dask import config

from driftcal.shared.errors import ConfigError

CGROUP = Path("/sys/fs/cgroup")
"""Mount point of Linux's control groups."""

MEMBER = Path("/proc/self/cgroup")
"""The control groups of this process."""


def at_once(scheduler: str, asked: int | None, shards: int) -> int:
    """Number of shards that a scheduler of this machine makes at a time, at least 1.

    Args:
        scheduler: threads, processes or synchronous.
        asked: `--workers`, else dask's setting `num_workers`, else the cores that this process may use.
        shards: Number of shards to be made.

    Raises:
        ConfigError: dask's setting is no number of workers.
    """
    if scheduler == "synchronous":
        return 1
    wanted = asked or _of_dask() or cores()
    return max(1, min(wanted, shards))


def _of_dask() -> int | None:
    """The setting of dask itself, from its files or DASK_NUM_WORKERS."""
    setting = config.get("num_workers", None)
    if setting is None:
        return None
    if type(setting) is not int or setting < 1:
        raise ConfigError(
            f"dask's setting num_workers is {setting!r}, expected a whole number of at least 1. Correct it "
            f"(DASK_NUM_WORKERS or ~/.config/dask), or give --workers."
        )
    return setting


def cores() -> int:
    """Cores that this process may use at a time: by affinity, control groups and SLURM's share; at least 1."""
    bound = getattr(os, "sched_getaffinity", None)  # macOS binds no process to cores
    limits = [float(len(bound(0)) if bound is not None else os.cpu_count() or 1)]
    share = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if share.isdecimal() and int(share):  # not every cluster enforces it
        limits.append(float(share))
    return max(1, math.ceil(min([*limits, *_quotas()])))


def _quotas() -> Iterator[float]:
    """Cores that the control groups of this process, and those above them, grant it."""
    try:
        lines = MEMBER.read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            roots = [CGROUP, CGROUP / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [CGROUP / controllers, CGROUP / "cpu", CGROUP / "cpu,cpuacct"]
        else:
            continue
        group = Path(path.lstrip("/"))
        for root in roots:
            # in a container the path is that of the host, and what is mounted is its own group
            for folder in {root, root / group, *(root / above for above in group.parents)}:
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """CPUs that one control group grants, version 2 or 1; none if it has no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
            )
        granted = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such group
        return
    if granted > 0:  # -1 is no limit
        yield granted
