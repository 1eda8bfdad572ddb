"""Interleaved timing: every candidate once a round, medians, on one core."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tqdm import tqdm


@dataclass(frozen=True)
class Timing:
    """Of one candidate.

    Attributes:
        cpu_ms: median CPU time of one unit of its work [ms].
        wall_ms: likewise on the clock, which other work on the machine lengthens.
        ratio: median over the rounds of its CPU time to the first candidate's in the same round.
    """

    cpu_ms: float
    wall_ms: float
    ratio: float


def on_one_core() -> bool:
    """Keeps this process on one core where the system can (not on macOS); says whether it did.

    Thread pools that wait for each other burn time which is nobody's; call before jax is imported.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        return True
    return False


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def interleave(candidates: Mapping[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, Timing]:
    """Times candidates against each other.

    Args:
        candidates: by name, what does the work and waits for its end, and how many units that is; called once before.
        rounds: of all of them.
    """
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    for run, _ in tqdm(candidates.values(), desc="first calls", disable=None, leave=False):
        run()
    for _ in tqdm(range(rounds), desc="rounds", disable=None, leave=False):
        for name, (run, units) in candidates.items():
            started = time.process_time(), time.perf_counter()
            run()
            for spent, now, before in zip(
                (cpu, wall), (time.process_time(), time.perf_counter()), started, strict=True
            ):
                spent[name].append((now - before) * 1e3 / units)
    first = cpu[next(iter(candidates))]
    return {
        name: Timing(
            median(cpu[name]), median(wall[name]), median(a / b for a, b in zip(cpu[name], first, strict=True))
        )
        for name in candidates
    }


def machine() -> str:
    """What this runs on, in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"
