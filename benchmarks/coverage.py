"""How often the 90 % interval of C_s covers the truth: twins of different seeds, each calibrated at default settings.

Every twin has its own currents, fleet and noise; the true constants go round those of --cs, and every run starts at
the same `initial_cs`. Told are the number of intervals that cover, and mean and standard deviation of
z = (log found - log true) / standard error, which are 0 and 1 where the interval is right.

    python -m benchmarks.coverage --out /tmp/coverage
    python -m benchmarks.coverage --out /tmp/coverage-faults --faults

--faults gives the drifters what the GDP product has: lost drogues, gaps that were interpolated, groundings.
"""

import argparse
import contextlib
import io
import json
import math
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import stores
from driftcal.shared.settings import build, override
from driftcal.shared.store.reader import ShardStore
from driftcal.train.run import loop
from driftcal.train.settings import Training

EXPECTED = 32, 40
"""Of 40 intervals of 90 %, so many cover with a probability of 0.96."""


def main() -> int:
    """Entry point; returns the exit code: 1 where 40 intervals cover too seldom."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--out", required=True, type=Path, help="folder for sources, stores and runs; must be new")
    options.add_argument("--twins", type=int, default=40)
    options.add_argument("--first-seed", type=int, default=100)
    options.add_argument("--cs", type=float, nargs="+", default=[0.1, 0.3, 1.0], help="true constants, in turn")
    options.add_argument("--drifters", type=int, default=150)
    options.add_argument("--faults", action="store_true", help="lost drogues, gaps and groundings")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    options.add_argument("--set", action="append", default=[], help="further training settings")
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True)
    rows = []
    for k in range(chosen.twins):
        rows.append(_twin(chosen, chosen.first_seed + k, chosen.cs[k % len(chosen.cs)]))
        row = rows[-1]
        print(
            f"seed {row['seed']}: true {row['true']:g}, found {row['found']:.4f}, z {row['z']:+.2f}, "
            f"{row['n_samples']} samples of {row['n_drifters']} drifters, {row['cpu_s']:.0f} s",
            flush=True,
        )
        if chosen.json:
            chosen.json.write_text(json.dumps({"rows": rows, **summary(rows)}, indent=1) + "\n")
    found = summary(rows)
    print(table(found))
    return int(len(rows) == 40 and not EXPECTED[0] <= found["covered"] <= EXPECTED[1])


def _twin(chosen: argparse.Namespace, seed: int, cs: float) -> dict:
    """One row: a twin made, calibrated and removed again."""
    began, folder = time.process_time(), chosen.out / f"seed-{seed}"
    synthetic = {
        "seed": seed,
        "clean": not chosen.faults,
        "drifters": chosen.drifters,
        "drifter_days": 16,
        "days": 30,
        "step": "20min",
        "lon": [165.0, 190.0],
        "lat": [22.0, 38.0],
    }
    segment, window = {"days": 2}, {"half_width_deg": 3.0}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        store = ShardStore(stores.twins(folder, cs, synthetic, segment=segment, window=window))
    # a seed of its own: the noise of an ensemble is keyed by the sample's number, and would be the same in all twins
    training = build(Training, override({"seed": seed}, chosen.set), "benchmark")
    found = loop.run(store, training, folder / "run", False).as_json()
    shutil.rmtree(folder)
    low, high = found["cs_interval_90"]
    return {
        "seed": seed,
        "true": cs,
        "found": found["cs"],
        "standard_error": found["log_cs_standard_error"],
        "z": math.log(found["cs"] / cs) / found["log_cs_standard_error"],
        "covers": low <= cs <= high,
        "converged": found["converged"],
        "n_samples": found["n_samples"],
        "n_drifters": found["n_drifters"],
        "escaped_share": found["escaped_share"],
        "cpu_s": time.process_time() - began,
    }


def summary(rows: list[dict]) -> dict:
    """Coverage, and mean and spread of z with their own standard errors."""
    z = np.array([row["z"] for row in rows])
    off = np.log([row["found"] / row["true"] for row in rows])
    n = len(rows)
    spread = float(z.std(ddof=1)) if n > 1 else math.nan
    return {
        "twins": n,
        "covered": sum(row["covers"] for row in rows),
        "z_mean": float(z.mean()),
        "z_mean_standard_error": spread / math.sqrt(n),
        "z_spread": spread,
        "z_spread_standard_error": spread / math.sqrt(2 * max(n - 1, 1)),
        "bias_percent": 100 * float(off.mean()),
        "bias_percent_standard_error": 100 * float(off.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan,
        "converged": sum(row["converged"] for row in rows),
        "cpu_s": sum(row["cpu_s"] for row in rows),
    }


def table(found: dict) -> str:
    """The summary as a row of docs/results.md."""
    return (
        "| twins | covered | mean z | spread of z | mean of log(found / true) % | converged | CPU s |\n"
        "|---|---|---|---|---|---|---|\n"
        f"| {found['twins']} | {found['covered']} | {found['z_mean']:+.2f} ± {found['z_mean_standard_error']:.2f} "
        f"| {found['z_spread']:.2f} ± {found['z_spread_standard_error']:.2f} | {found['bias_percent']:+.2f} ± "
        f"{found['bias_percent_standard_error']:.2f} | {found['converged']} | {found['cpu_s']:.0f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
