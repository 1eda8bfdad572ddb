"""Coverage of the 90 % interval of C_s with drifters released in groups and currents that are displaced.

One made ocean; in it fleets of different seeds, in groups of 8 within 8 km; the store is made from the same currents,
displaced by 35 km. Drifters of a group share that error, so the interval must be clustered by release. What every
interval should cover is what such runs find in the mean, the mean of log C_s over the seeds: with displaced currents
that is not the true constant, which is small here so that the currents' error rules. Each seed is calibrated under both
values of `cluster_by`.

    python -m benchmarks.releases --out DIR
    python -m benchmarks.releases --out DIR --seeds 200

Every seed is a line of DIR/rows.jsonl; run again, the command goes on with those that are missing.
"""

import argparse
import contextlib
import io
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import stores
from driftcal.shared.settings import build, override
from driftcal.shared.store.reader import ShardStore
from driftcal.train.run import loop
from driftcal.train.settings import Training

WAYS = ("drifter", "release")

OCEAN: dict[str, Any] = {"days": 60, "lon": [165.0, 190.0], "lat": [22.0, 38.0], "step": "20min"}
RELEASE = {"together": 8, "within_km": 8}


def main() -> int:
    """Entry point; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--out", required=True, type=Path, help="folder of the ocean, the twins and rows.jsonl")
    options.add_argument("--seeds", type=int, default=100, help="number of fleets")
    options.add_argument("--first-seed", type=int, default=100)
    options.add_argument("--drifters", type=int, default=320)
    options.add_argument("--cs", type=float, default=0.05, help="true constant")
    options.add_argument("--shift", type=float, nargs=2, default=[25.0, 25.0], metavar="KM", help="east and north")
    options.add_argument("--set", action="append", default=["engine=native"], help="further training settings")
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows = chosen.out / "rows.jsonl"
    told = {name: getattr(chosen, name) for name in ("drifters", "cs", "shift", "set")}
    if any(row["told"] != told for row in _read(rows)):
        sys.exit(f"{rows} has seeds with other settings than {told}. Choose another --out.")
    done = {row["seed"] for row in _read(rows)}
    currents = _ocean(chosen.out / "ocean")
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
        if seed in done:
            continue
        row = {"told": told, **_fleet(chosen, seed, currents)}
        with rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        texts = (
            f"{way} {row[way]['cs']:.4f} ({', '.join(f'{end:.3f}' for end in row[way]['interval'])})" for way in WAYS
        )
        print(
            f"seed {seed}: {'; '.join(texts)}, {row['n_drifters']} drifters in {row['n_releases']} releases", flush=True
        )
    print(table(_read(rows)))
    return 0


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _ocean(folder: Path) -> str:
    """The currents that all fleets drift in, made once."""
    mark = folder / "store" / "manifest.json"
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _quietly(folder, 0.3, {"seed": 1, "drifters": 20, "drifter_days": 10, **OCEAN})
    return str(folder / "source" / "currents" / "*.nc")


def _quietly(folder: Path, cs: float, synthetic: dict[str, Any]) -> Path:
    """A twin's store; its window is wide enough for what displaced currents make of C_s."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return stores.twins(folder, cs, synthetic, segment={"days": 3}, window={"half_width_deg": 2.5})


def _fleet(chosen: argparse.Namespace, seed: int, currents: str) -> dict[str, Any]:
    """One row: a fleet made, calibrated under both ways and removed again."""
    folder = chosen.out / f"seed-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    synthetic = {
        "seed": seed,
        "drifters": chosen.drifters,
        "drifter_days": 10,
        "currents": {"path": currents},
        "release": RELEASE,
        "currents_error": {"shift_km": chosen.shift},
        **{key: OCEAN[key] for key in ("days", "step")},
    }
    store = ShardStore(_quietly(folder, chosen.cs, synthetic))
    row: dict[str, Any] = {"seed": seed}
    for way in WAYS:
        # a seed of its own: noise is keyed by the number of the sample, and would be the same in all fleets
        training = build(Training, override({"seed": seed, "cluster_by": way}, chosen.set), "benchmark")
        result = loop.run(store, training, folder / way, False).as_json()
        row[way] = {
            "cs": result["cs"],
            "interval": result["cs_interval_90"],
            "error": result["log_cs_standard_error"],
            "converged": result["converged"],
            "escaped_share": result["escaped_share"],
        }
        row |= {"n_samples": result["n_samples"], "n_drifters": result["n_drifters"]}
        row["n_releases" if way == "release" else "n_clusters"] = result["n_clusters"]
    shutil.rmtree(folder)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Coverage of each way, and its standard errors beside the spread of log C_s over the seeds."""
    lines = [
        "| `cluster_by` | intervals | cover | % ± | standard error, mean | spread of log C_s |",
        "|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        log_cs = np.log([row[way]["cs"] for row in rows])
        low, high = np.log([row[way]["interval"] for row in rows]).T
        n, covered = len(rows), (low <= log_cs.mean()) & (log_cs.mean() <= high)
        share, spread = float(covered.mean()), float(log_cs.std(ddof=1)) if n > 1 else math.nan
        lines.append(
            f"| {way} | {n} | {covered.sum()} | {100 * share:.0f} ± {100 * math.sqrt(share * (1 - share) / n):.0f} "
            f"| {np.mean([row[way]['error'] for row in rows]):.3f} | {spread:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
