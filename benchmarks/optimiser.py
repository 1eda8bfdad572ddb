"""How near the optimiser comes to the objective's minimiser, and with how many gradient samples.

For every true constant a store of twins is made (drifters moved by `made.drifter_integrator` in made currents), and its
objective's minimiser found once with so many members that their noise is small. Runs at default settings start three
times too low and too high, with several seeds. Counted is every sample simulated with gradient: descent, final passes
and curvature. Prints a table and writes `optimiser.json`.

    python -m benchmarks.optimiser --out /tmp/optimiser

Large constants throw members far: with --days 2 and --half-width 3 few of them leave their window even at C_s = 15,
where the runs for 5 begin; the table says how many do.
"""

import argparse
import contextlib
import io
import json
import math
import sys
import time
from pathlib import Path

from benchmarks import stores
from driftcal.shared.settings import build
from driftcal.shared.store.reader import ShardStore
from driftcal.train.run import loop
from driftcal.train.settings import Training

BUDGET = 25_000
"""Gradient samples that a calibration may take."""


def main() -> int:
    """Entry point; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--out", required=True, type=Path, help="folder for sources, stores and runs; must be new")
    options.add_argument("--cs", type=float, nargs="+", default=[0.02, 0.1, 0.5, 2.0, 5.0], help="true constants")
    options.add_argument("--factors", type=float, nargs="+", default=[1 / 3, 3.0], help="start over truth")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--drifters", type=int, default=700)
    options.add_argument("--days", type=float, default=2.0, help="length of a segment")
    options.add_argument("--half-width", type=float, default=3.0, help="window.half_width_deg")
    options.add_argument("--reference-members", type=int, default=100, help="of the ensemble that finds the minimiser")
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True)
    rows = []
    for cs in chosen.cs:
        store = _store(chosen, cs)
        least = _run(store, {"initial_cs": cs, "ensemble": {"members": chosen.reference_members}, "seed": 1000})
        for factor in chosen.factors:
            found = [_run(store, {"initial_cs": cs * factor, "seed": seed}) for seed in range(chosen.seeds)]
            rows.append(_row(cs, factor, least, found))
            (chosen.out / "optimiser.json").write_text(json.dumps(rows, indent=1) + "\n")
            print(_table(rows), flush=True)
    return 0


def _store(chosen: argparse.Namespace, cs: float) -> ShardStore:
    """A store of twins whose windows give members of large constants room."""
    synthetic = {"drifters": chosen.drifters, "drifter_days": 16, "days": 40, "step": "20min", "lon": [165.0, 205.0]}
    segment, window = {"days": chosen.days}, {"half_width_deg": chosen.half_width}
    with contextlib.redirect_stdout(io.StringIO()):
        return ShardStore(stores.twins(chosen.out / f"cs-{cs:g}", cs, synthetic, segment=segment, window=window))


def _run(store: ShardStore, tree: dict) -> dict:
    """The result of a calibration, and the CPU time that it took [s]."""
    began = time.process_time()
    out = store.root.parent / f"run-{len(list(store.root.parent.glob('run-*')))}"
    result = loop.run(store, build(Training, tree, "benchmark"), out, False)
    return result.as_json() | {"cpu_s": time.process_time() - began}


def _row(cs: float, factor: float, least: dict, found: list[dict]) -> dict:
    errors = [run["log_cs"] - least["log_cs"] for run in found]
    return {
        "cs": cs,
        "factor": factor,
        "minimiser": least["cs"],
        "minimiser_standard_error": least["log_cs_standard_error"],
        "n_samples": least["n_samples"],
        "errors": errors,
        "rms": math.sqrt(sum(e * e for e in errors) / len(errors)),
        "gradient_samples": [run["gradient_samples"] for run in found],
        "converged": [run["converged"] for run in found],
        "standard_errors": [run["log_cs_standard_error"] for run in found],
        "escaped_share": max(run["escaped_share"] for run in found),
        "cpu_s": sum(run["cpu_s"] for run in found),
    }


def _table(rows: list[dict]) -> str:
    lines = [
        "| true | start / true | minimiser | its s.e. | rms error % | largest % | gradient samples | converged | left "
        "% | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        largest, most = max(map(abs, row["errors"])), max(row["gradient_samples"])
        lines.append(
            f"| {row['cs']:g} | {row['factor']:.2g} | {row['minimiser']:.4g} | {row['minimiser_standard_error']:.3f} "
            f"| {100 * row['rms']:.2f} | {100 * largest:.2f} | {most}{'' if most <= BUDGET else ' (over)'} "
            f"| {sum(row['converged'])} of {len(row['converged'])} | {100 * row['escaped_share']:.2f} "
            f"| {row['cpu_s']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
