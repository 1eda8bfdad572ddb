"""Kills small runs with SIGKILL, at random moments and at named points inside a save, and says what came of them.

usage: python -m tests.kill_train STORE WHOLE FOLDER N SEED

Every run is a process of its own, `... run STORE OUT COMPILED`, told where to die by DRIFTCAL_CRASH. Compiled programs
are cached on disk, so that it costs little more than loading JAX.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from driftcal.shared.disk import crash_points
from tests import runs

POINTS = (*(f"checkpoint: {step}" for step in (*crash_points.STEPS, "published")), "random", "random", "random")


def killed_at_random(out: Path, rng: np.random.Generator, last: int) -> Any:
    """Kills a child a little after a random step of those that are left."""
    metrics = out / "metrics.jsonl"
    begun = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    target, wait = int(rng.integers(0, last)), float(rng.uniform(0, 0.02))

    def kill(child: int) -> None:
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            n = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
            if n > target or (n == begun and rng.uniform() < 1e-4):  # or while it starts
                time.sleep(wait)
                os.kill(child, signal.SIGKILL)
                return
            time.sleep(0.001)

    return kill


def train(store: Path, out: Path, compiled: Path) -> None:
    """One run; it resumes what is there."""
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    runs.train(store, out, runs.settings(), resume=True)


def main(store: Path, whole: Path, folder: Path, n: int, seed: int) -> None:
    """All kills, and the comparison."""
    expected, rng = runs.contents(whole), np.random.default_rng(seed)
    last = expected["metrics.jsonl"].count(b"\n")
    kills, run, lost, different, left = 0, 0, 0, [], []

    def status_of(out: Path, point: str, nth: int) -> int:
        command = [sys.executable, "-m", "tests.kill_train", "run", store, out, folder / "compiled"]
        die = {crash_points.VARIABLE: f"{point}@{nth}"} if ":" in point else {}
        kill = killed_at_random(out, rng, last) if point == "random" else None
        with subprocess.Popen([str(word) for word in command], env=os.environ | die) as child:
            if kill is not None:
                kill(child.pid)
            try:
                return child.wait(120)
            except subprocess.TimeoutExpired:
                child.kill()
                raise

    while kills < n:
        out = folder / f"run-{run}"
        run += 1
        for _ in range(int(rng.integers(1, 6))):
            point, nth = str(rng.choice(POINTS)), int(rng.integers(1, 9))
            before, status = lines_of(out), status_of(out, point, nth)
            if status not in (0, -signal.SIGKILL):
                raise SystemExit(f"{point} {nth} of {out}: exit status {status}")
            kills += status != 0
            lost = max(lost, lines_of(out) - saved_of(out)) if lines_of(out) > before else lost
            if kills == n or status == 0:
                break
        if status_of(out, "none", 0):
            raise SystemExit(f"{out}: the last run failed")
        found = runs.contents(out)
        different += [f"{out.name}/{name}" for name in expected if found.get(name) != expected[name]]
        left += [f"{out.name}/{name}" for name in found if name not in expected]
        left += [str(path) for path in (out / "checkpoints").glob(".*")]
    print(json.dumps({"kills": kills, "runs": run, "most_steps_lost": lost, "different": different, "left": left}))


def lines_of(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def saved_of(out: Path) -> int:
    found = sorted((out / "checkpoints").glob("step-*.npz"))
    return int(found[-1].stem.removeprefix("step-")) if found else 0


if __name__ == "__main__":
    if sys.argv[1] == "run":
        train(*(Path(path) for path in sys.argv[2:5]))
    else:
        main(*(Path(path) for path in sys.argv[1:4]), int(sys.argv[4]), int(sys.argv[5]))
