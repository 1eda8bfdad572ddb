"""Whether groups of different constants are told apart: a twin with C_s 0.2 in the west and 0.8 in the east.

Two sources of drifters in two made oceans side by side, each with its constant, in one store. Calibrated with
--group-by: each half's interval should hold its constant, and the test say that one constant does not fit. The same
with one constant in both halves, where it should not.

    python -m benchmarks.groups --out /tmp/groups
"""

import argparse
import contextlib
import io
import json
import sys
import time
from pathlib import Path

import yaml

from driftcal.preprocess.__main__ import main as preprocess
from driftcal.train.__main__ import main as train

HALVES = ([165.0, 190.0], [190.0, 215.0])
"""Longitudes of the two oceans."""


def main() -> int:
    """Entry point; returns the exit code: 1 where the halves are not told apart."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--out", required=True, type=Path, help="folder for sources, stores and runs; must be new")
    options.add_argument("--cs", type=float, nargs=2, default=[0.2, 0.8], help="constants in the west and in the east")
    options.add_argument("--drifters", type=int, default=250, help="in each half")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--keys", nargs="+", default=["source", "grid:5", "season"])
    options.add_argument("--json", type=Path, metavar="FILE")
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True)
    found = {}
    for name, constants in (("two", tuple(chosen.cs)), ("one", (chosen.cs[0],) * 2)):
        store = halves(chosen.out / name, constants, chosen.drifters, chosen.seed)
        began, run = time.process_time(), chosen.out / name / "run"
        with contextlib.redirect_stdout(io.StringIO()):
            code = train(["run", str(store), "--out", str(run), *(f"--group-by={key}" for key in chosen.keys)])
        if code:
            return code
        groups, result = (json.loads((run / f"{file}.json").read_text()) for file in ("groups", "result"))
        found[name] = {"cpu_s": time.process_time() - began, "cs": constants, "result": result, "groups": groups}
        print(f"constants {constants}: one constant {result['cs']:.3f} {result['cs_interval_90']}")
        print(f"  ungrouped: {result['homogeneity']}")
        for one in groups["groupings"]:
            print(f"  {one['key']}: {one['test']}, tau {one['tau']:.3f}, {one['gradient_samples']} gradient samples")
            for group in one["groups"] if len(one["groups"]) < 5 else ():
                print(
                    f"    {group['name']}: {group['value']:.3f} {group['interval_90']}, {group['n_drifters']} drifters"
                )
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    ends = [group["interval_90"] for group in found["two"]["groups"]["groupings"][0]["groups"]]
    held = all(low <= cs <= high for (low, high), cs in zip(ends, chosen.cs, strict=True))
    return int(not (held and found["two"]["groups"]["groupings"][0]["test"]["p_value"] < 0.01))


def halves(folder: Path, constants: tuple[float, ...], drifters: int, seed: int) -> Path:
    """A store of two sources: made oceans side by side, whose drifters have these constants."""
    folder.mkdir()
    for k, (cs, lon) in enumerate(zip(constants, HALVES, strict=True)):
        synthetic = {"folder": str(folder / f"source{k}"), "cs": cs, "seed": 2 * seed + k, "clean": True, "lon": lon}
        synthetic |= {"drifters": drifters, "drifter_days": 16, "days": 40, "step": "20min", "lat": [22.0, 38.0]}
        # sources are made by preprocessing: each by a store of its own, which is not used
        _preprocess(folder, f"part{k}", [f"source{k}"], synthetic)
    return _preprocess(folder, "store", ["source0", "source1"], None)


def _preprocess(folder: Path, name: str, sources: list[str], synthetic: dict | None) -> Path:
    manifest = {
        "name": f"twin of {' and '.join(sources)}",
        "drifters": [{"path": str(folder / source / "drifters.nc"), "max_speed": 50.0} for source in sources],
        "currents": [{"path": str(folder / source / "currents" / "*.nc")} for source in sources],
        "segment": {"days": 2},
        "window": {"half_width_deg": 2.0},
        "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
        **({} if synthetic is None else {"synthetic": synthetic}),
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        if preprocess([str(path), "--out", str(folder / name)]):
            sys.exit(said.getvalue())
    return folder / name


if __name__ == "__main__":
    sys.exit(main())
