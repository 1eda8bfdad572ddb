"""Verdicts of the model checks in worlds that are not the model's: how often each is rejected, and by which finding.

Every world is a twin: drifters of ten days in an eddying ocean of 1/8 degree, five-day segments, 70 % of the drifters
to train on. The control obeys the model; each of the others breaks one thing that the model takes for granted. A line
of JSON is kept for every twin, so a run that is stopped goes on where it was.

    python -m benchmarks.worlds --out /tmp/worlds --set engine=native
    python -m benchmarks.worlds --out /tmp/worlds --table
"""

import argparse
import contextlib
import io
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import stores
from driftcal.shared.settings import build, override
from driftcal.shared.store.reader import ShardStore
from driftcal.train.run import examination, loop
from driftcal.train.settings import Training

WORLDS: dict[str, dict[str, Any]] = {
    "control": {"truth": {"cs": 0.5}},
    "background": {"truth": {"cs": 0.15, "background": 200.0}},
    "flight": {"truth": {"random_flight": {"speed": 0.08, "time": "2d"}}},
    "drift": {"truth": {"cs": 0.5, "mean_drift": [0.05, 0.03]}},
    "inertial": {"truth": {"cs": 0.5, "inertial": {"speed": 0.15, "time": "4d"}}},
    "position": {"truth": {"cs": 0.15, "position_error": 500.0}},
    "smoothed": {"truth": {"cs": 0.15}, "currents_error": {"smooth_km": 25.0}},
    "shifted": {"truth": {"cs": 0.15}, "currents_error": {"shift_km": [22.0, 0.0]}},
}
"""The worlds, as the manifest's section `synthetic` has them."""

TRUE_FINDINGS: dict[str, list[tuple[str, str]]] = {
    "background": [("kappa", "background diffusivity"), ("objectives", "calm waters spread drifters more")],
    "flight": [("memory", "keep their velocity")],
    "drift": [("mean_residual", "northeast")],
    "inertial": [("turning", "clockwise")],
    "position": [("jitter", "errors of about"), ("first_hours", "positions have errors")],
    "smoothed": [("memory", "keep their velocity"), ("lead_time", "smoothed or displaced")],
    "shifted": [("memory", "keep their velocity"), ("lead_time", "smoothed or displaced")],
}
"""Checks, and words of their findings, that are true of each world."""

LEAST = {"inertial": 0.7, "position": 0.7}
"""Share of twins that must be rejected with a true finding, of the worlds that are hard to tell; of the others 0.9. Of
the control that share must be supported."""


def main() -> int:
    """Entry point; returns the exit code: 1 where a world is told too seldom."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--out", required=True, type=Path, help="folder of the lines, and of what is being made")
    options.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=WORLDS)
    options.add_argument("--seeds", type=int, default=10, help="twins of every world; the control has twice as many")
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--drifters", type=int, default=400)
    options.add_argument("--table", action="store_true", help="print the table of the lines that are there")
    options.add_argument("--set", action="append", default=[], help="further training settings")
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if not chosen.table:
        # every twin compiles the same programs
        jax.config.update("jax_compilation_cache_dir", str(chosen.out / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        for seed in range(chosen.first_seed, chosen.first_seed + 2 * chosen.seeds):
            for world in chosen.worlds:
                if world == "control" or seed < chosen.first_seed + chosen.seeds:
                    _twin(chosen, world, seed)
    rows = rows_of(chosen.out)
    print(table(rows))
    return int(not all(right_share(rows, world) >= LEAST.get(world, 0.9) for world in chosen.worlds))


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The lines of all twins."""
    return [json.loads(path.read_text()) for path in sorted(out.glob("*-*.json"))]


def _twin(chosen: argparse.Namespace, world: str, seed: int) -> None:
    """A twin made, calibrated, examined and removed again, unless its line is there."""
    line, folder = chosen.out / f"{world}-{seed:03d}.json", chosen.out / f"{world}-{seed:03d}"
    if line.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    began = time.process_time()
    synthetic = {
        "seed": seed,
        "drifters": chosen.drifters,
        "drifter_days": 10,
        "days": 40,
        "step": "20min",
        "resolution_deg": 0.125,
        "lon": [-30.0, -10.0],
        "lat": [30.0, 42.0],
        **WORLDS[world],
    }
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        made = stores.twins(
            folder,
            None,
            synthetic,
            segment={"days": 5, "step": "1h", "stride_days": 5},
            window={"half_width_deg": 2.0},
            split={"train": 0.7, "validation": 0.3, "test": 0.0, "seed": seed},
        )
    store = ShardStore(made)
    training = build(Training, override({"seed": seed}, chosen.set), "benchmark")
    result = loop.run(store, training, folder / "run", False)
    calibrated = time.process_time()
    found = examination.examine(store, training, result, folder / "run", False).as_json()
    checks = found["model_checks"]
    row = {
        "world": world,
        "seed": seed,
        "cs": found["cs"],
        "interval": found["cs_interval_90"],
        "converged": found["converged"],
        "supported": found["model_supported"],
        "rejected": {name: check["finding"] for name, check in checks.items() if check["rejected"]},
        "verdict": found["model_verdict"],
        "checks": {name: [check["statistic"], check["p_value"]] for name, check in checks.items()},
        "n_samples": found["n_samples"],
        "n_clusters": found["n_clusters"],
        "escaped_share": found["escaped_share"],
        "cpu_s": [calibrated - began, time.process_time() - calibrated],
    }
    shutil.rmtree(folder)
    line.write_text(json.dumps(row) + "\n")
    print(
        f"{world} {seed}: C_s {row['cs']:.3f}, {'supported' if row['supported'] else list(row['rejected'])}", flush=True
    )


def told(row: dict[str, Any]) -> bool:
    """Tells whether the verdict on a twin is right: supported, or rejected with a finding that is true of its world."""
    if row["world"] == "control":
        return row["supported"] is True
    return any(words in row["rejected"].get(name, "") for name, words in TRUE_FINDINGS[row["world"]])


def right_share(rows: list[dict[str, Any]], world: str) -> float:
    """Share of the twins of a world whose verdict is right."""
    here = [told(row) for row in rows if row["world"] == world]
    return float(np.mean(here)) if here else 0.0


def table(rows: list[dict[str, Any]]) -> str:
    """Verdicts by world: found constants, how many twins are supported, and which checks are rejected how often."""
    lines = ["| world | twins | C_s found | supported | right verdict | checks rejected |"]
    lines.append("|---|---|---|---|---|---|")
    for world in WORLDS:
        here = [row for row in rows if row["world"] == world]
        if not here:
            continue
        names = [name for row in here for name in row["rejected"]]
        counts = sorted(((names.count(name), name) for name in set(names)), reverse=True)
        shown = ", ".join(f"{name} {count}" for count, name in counts) or "none"
        right = sum(map(told, here))
        cs = np.array([row["cs"] for row in here])
        lines.append(
            f"| {world} | {len(here)} | {cs.mean():.3f} ± {cs.std(ddof=1) if len(cs) > 1 else 0:.3f} "
            f"| {sum(row['supported'] is True for row in here)} | {right} | {shown} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
