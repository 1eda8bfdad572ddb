"""What each objective finds on twins in given currents: a table of found against true constants.

Drifters are simulated in the currents with a known constant by the integrator of `made.drifter_integrator` (Ito,
10-minute Euler-Maruyama, float64, no code in common with training), preprocessed, and calibrated from too small and
too large a start. Prints a table and writes `twins.json`.

    python -m benchmarks.twins --currents "globcurrent/*.nc" --out /tmp/twins
"""

import argparse
import json
import math
import sys
from pathlib import Path

from benchmarks import stores
from driftcal.train.__main__ import main as train

OBJECTIVES = ("energy", "energy-plain", "liu", "reference")


def main() -> int:
    """Entry point; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--currents", required=True, help="glob of NetCDF files, or a zarr store")
    options.add_argument("--out", required=True, type=Path, help="folder for sources, stores and runs; must be new")
    options.add_argument("--cs", type=float, nargs="+", default=[0.1, 0.6], help="true constants")
    options.add_argument("--drifters", type=int, default=3000)
    options.add_argument("--days", type=float, default=15.0, help="life of each drifter")
    options.add_argument("--half-width", type=float, default=2.0, help="window.half_width_deg")
    options.add_argument("--objectives", nargs="+", default=OBJECTIVES, choices=OBJECTIVES)
    options.add_argument("--factors", type=float, nargs="+", default=[1 / 3, 3.0], help="start over truth")
    options.add_argument("--set", action="append", default=[], help="further training settings")
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True)
    rows = []
    for cs in chosen.cs:
        store = _store(chosen, cs)
        for objective in chosen.objectives:
            rows += [_calibrate(chosen, store, cs, objective, factor) for factor in chosen.factors]
            (chosen.out / "twins.json").write_text(json.dumps(rows, indent=1) + "\n")
            print(_table(rows), flush=True)
    return 0


def _store(chosen: argparse.Namespace, cs: float) -> Path:
    synthetic = {"drifters": chosen.drifters, "drifter_days": chosen.days, "currents": {"path": chosen.currents}}
    currents, window = {"path": chosen.currents}, {"half_width_deg": chosen.half_width}
    return stores.twins(chosen.out / f"cs-{cs:g}", cs, synthetic, currents=currents, window=window)


def _calibrate(chosen: argparse.Namespace, store: Path, cs: float, objective: str, factor: float) -> dict:
    out = store.parent / f"{objective}-from-{factor:.2g}"
    settings = [f"score.objective={objective}", f"initial_cs={cs * factor!r}", *chosen.set]
    code = train(["run", str(store), "--out", str(out), *[f"--set={s}" for s in settings]])
    row = {"cs": cs, "objective": objective, "start": cs * factor, "exit": code}
    if code:
        return row
    result = json.loads((out / "result.json").read_text())
    names = ("log_cs_standard_error", "converged", "n_samples", "n_drifters", "gradient_samples", "escaped_share")
    return row | {"found": result["cs"], **{name: result[name] for name in names}}


def _table(rows: list[dict]) -> str:
    lines = ["| true | objective | start / true | found / true | s.e. | off by s.e. | converged | samples | drifters |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        start = f"| {row['cs']:g} | {row['objective']} | {row['start'] / row['cs']:.2g} |"
        if row["exit"]:
            lines.append(f"{start} stopped (exit {row['exit']}) | | | | | |")
            continue
        ratio, error = row["found"] / row["cs"], row["log_cs_standard_error"]
        off = f"{math.log(ratio) / error:+.1f}" if error else ""
        shown = f"{error:.3f}" if error else "none"
        lines.append(
            f"{start} {ratio:.3f} | {shown} | {off} | {'yes' if row['converged'] else 'no'} | {row['n_samples']} "
            f"| {row['n_drifters']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
