"""One measurement of the study, in a process of its own: `python -m MODULE SPEC`, JSON in and out.

A process can be stopped when it takes too long, and its memory can be measured. Times are of one core: medians of
rounds in which the model and its gradient take turns, CPU time on a CPU and wall time on an accelerator.
"""

import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from driftcal.shared.errors import DriftcalError
from driftcal.shared.spacing import evenly
from driftcal.train.gradient_cost.strategies import STRATEGIES, HostLoop, forward_along
from driftcal.train.gradient_cost.timed_model import Model, load
from driftcal.train.machine import devices, modes

ROUNDS, LEAST_SECONDS = 5, 1.0
"""Rounds of a measurement at least, unless they take long; more follow until so much time has passed [s]."""

MOST_CHECKED = 16
"""Number of parameters whose derivative is compared with finite differences; if there are more, evenly chosen."""

DIFFERENCE = 1e-5
"""Step of central differences in float64, relative to a parameter above 1."""

DIRECTIONS = 1, 2, 4, 8, 16
"""Numbers of parameters at which forward mode is timed."""

ANSWER = "driftcal cell: "
"""Begins the line of a cell's answer: a user's model may print too."""

Call = Callable[[], object]


def _clock() -> float:
    return time.process_time() if jax.default_backend() == "cpu" else time.perf_counter()


def _in_turns(*calls: Call) -> list[float]:
    """Median seconds of each call."""
    spent: list[list[float]] = [[] for _ in calls]
    began = time.perf_counter()
    while True:
        for seconds, call in zip(spent, calls, strict=True):
            before = _clock()
            jax.block_until_ready(call())
            seconds.append(_clock() - before)
        passed = time.perf_counter() - began
        if passed > LEAST_SECONDS and (len(spent[0]) >= ROUNDS or passed > 8 * LEAST_SECONDS):
            return [median(seconds) for seconds in spent]


def _status(key: str) -> int:
    """A line of /proc/self/status [bytes]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024


def peak_of(call: Call) -> int | None:
    """Greatest growth of the process during `call` [bytes]; None if the system does not report it (Linux does)."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        jax.block_until_ready(call())
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    ctypes.CDLL(None).malloc_trim(0)  # what compiling left behind would be used again, and not be seen
    try:
        reset.write_text("5")
    except OSError:
        return None
    before = _status("VmRSS")
    jax.block_until_ready(call())
    return max(0, _status("VmHWM") - before)


def _bytes(compiled: Any) -> tuple[int, int]:
    """Bytes that a program needs beside its arguments and results, and the size of its results."""
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes, memory.output_size_in_bytes


def measure(model: Model, name: str, n: int) -> dict[str, Any]:
    """The cell of strategy `name` at `n` steps."""
    strategy, given = STRATEGIES[name], (model.parameters, model.state)
    forward, backward = strategy.model(model, n), strategy.gradient(model, n)
    began = time.perf_counter()
    if isinstance(backward, HostLoop):
        p, state = given
        ahead = backward.ahead.lower(state, p, 0).compile()
        pull = jax.eval_shape(backward.ahead, state, p, 0)[1]
        way_back = backward.back.lower(pull, state).compile()
        compile_s = time.perf_counter() - began
        compiler = n * _bytes(ahead)[1] + max(_bytes(ahead)[0], _bytes(way_back)[0])
    else:
        compiled = jax.jit(backward).lower(*given).compile()
        compile_s = time.perf_counter() - began
        compiler = _bytes(compiled)[0]
        forward, backward = jax.jit(forward).lower(*given).compile(), compiled
    loss, slope = float(forward(*given)), np.asarray(backward(*given), np.float64)
    peak = peak_of(lambda: backward(*given))
    model_s, gradient_s = _in_turns(lambda: forward(*given), lambda: backward(*given))
    return {
        "compile_s": compile_s,
        "model_s": model_s,
        "gradient_s": gradient_s,
        "ratio": gradient_s / model_s,
        "compiler_bytes": compiler,
        "peak_bytes": peak,
        "loss": loss,
        "gradient": slope.tolist(),
    }


def reference(model: Model, n: int) -> dict[str, Any]:
    """Loss and gradient in float64, and central differences of that loss."""
    loss = jax.jit(STRATEGIES["scan"].model(model, n))
    p, state = model.parameters, model.state
    slope = np.asarray(jax.jit(STRATEGIES["checkpoint"].gradient(model, n))(p, state))
    checked = evenly(p.size, MOST_CHECKED)
    differences = []
    for k in checked:
        h = DIFFERENCE * max(1.0, abs(float(p[k])))
        ends = [float(loss(p.at[k].add(side * h), state)) for side in (-1.0, 1.0)]
        differences.append((ends[1] - ends[0]) / (2.0 * h))
    return {
        "loss": float(loss(p, state)),
        "gradient": slope.tolist(),
        "checked": checked.tolist(),
        "differences": differences,
    }


def directions(model: Model, n: int) -> dict[str, Any]:
    """Seconds of forward mode by the number of parameters, and of the model and a checkpointed scan beside it."""
    given = model.parameters, model.state
    rng = np.random.default_rng(0)
    runs = [jax.jit(STRATEGIES["scan"].model(model, n)), jax.jit(STRATEGIES["checkpoint"].gradient(model, n))]
    for count in DIRECTIONS:
        along = jnp.asarray(rng.normal(size=(count, model.parameters.size)), model.parameters.dtype)
        runs.append(jax.jit(forward_along(model, n, along)))
    calls = [lambda run=run: run(*given) for run in runs]
    for call in calls:
        jax.block_until_ready(call())
    seconds = _in_turns(*calls)
    return {"model_s": seconds[0], "reverse_s": seconds[1], "parameters": list(DIRECTIONS), "forward_s": seconds[2:]}


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Runs the measurement that `spec` describes: `measure` (of a `strategy`), `reference`, `directions` or `check`."""
    with jax.enable_x64(spec["precision"] == "float64"):
        model, n = load(spec["model"]), spec["steps"]
        if spec["what"] == "measure":
            return measure(model, spec["strategy"], n)
        if spec["what"] == "check":
            return {
                "parameters": int(model.parameters.size),
                "most_steps": model.most_steps,
                "device": jax.devices()[0].device_kind,
                "on_cpu": jax.default_backend() == "cpu",
            }
        return {"reference": reference, "directions": directions}[spec["what"]](model, n)


def main() -> int:
    """Entry point; an error of ours is printed as JSON too."""
    if hasattr(os, "sched_setaffinity"):  # before any computation starts threads
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    modes.set_back()
    try:
        devices.check()
        found = run(json.loads(sys.argv[1]))
    except DriftcalError as error:
        found = {"error": str(error)}
    print(f"\n{ANSWER}{json.dumps(found)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
