"""Figures of currents against drifters where inputs are wrong: a table of mistakes.

Makes a twin experiment, damages its files as if a mistake had been made in reading or writing them, so that no check
of the reader sees it, and plans a store of each: prints the figures, what is dropped, and what is warned of.

    python -m benchmarks.mistakes
    python -m benchmarks.mistakes --drifters 6 --days 30 --life 15
    python -m benchmarks.mistakes --real ../shared/data
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import xarray as xr

from driftcal.preprocess.__main__ import planned
from driftcal.preprocess.made.twin import make
from driftcal.preprocess.recipe import Recipe, Synthetic
from driftcal.preprocess.sources.gridded.remarks import Blank
from driftcal.shared import settings
from driftcal.shared.errors import DriftcalError

Pair = tuple[xr.Dataset, xr.Dataset]
"""Drifters, and currents in m/s."""

DAY = 86_400


def scaled(by: float) -> Callable[[xr.Dataset, xr.Dataset], Pair]:
    """Currents in another unit, or with a scale_factor that was applied once too often."""
    return lambda drifters, currents: (drifters, currents * by)


def later(hours: float) -> Callable[[xr.Dataset, xr.Dataset], Pair]:
    """Currents stamped so much too late."""
    shift = np.timedelta64(round(3600 * hours), "s")
    return lambda drifters, currents: (drifters, currents.assign_coords(time=currents.time + shift))


def turned(drifters: xr.Dataset, currents: xr.Dataset) -> Pair:
    """Components exchanged."""
    u, v = currents.ugos, currents.vgos
    return drifters, currents.assign(ugos=u.copy(data=v.values), vgos=v.copy(data=u.values))


def reversed_(*names: str) -> Callable[[xr.Dataset, xr.Dataset], Pair]:
    """Components with the wrong sign."""
    return lambda drifters, currents: (drifters, currents.assign({name: -currents[name] for name in names}))


def zeros(drifters: xr.Dataset, currents: xr.Dataset) -> Pair:
    """Two days of thirty without data, which are given as 0."""
    gone = np.arange(currents.time.size) % 30 // 2 == 6
    sea = currents.notnull()
    return drifters, currents.where(~xr.DataArray(gone, dims="time"), 0.0).where(sea)


def unpacked_grid(drifters: xr.Dataset, currents: xr.Dataset) -> Pair:
    """Latitudes and longitudes counted in cells of a quarter degree and read as degrees, in the middle of the ocean."""
    lat, lon = currents.latitude, currents.longitude
    wider = {"latitude": lat.mean() + 4 * (lat - lat.mean()), "longitude": lon.mean() + 4 * (lon - lon.mean())}
    return drifters, currents.assign_coords(wider).sel(latitude=slice(-89, 89))


def shifted_grid(drifters: xr.Dataset, currents: xr.Dataset) -> Pair:
    """A grid five degrees off."""
    return drifters, currents.assign_coords(longitude=currents.longitude + 5)


def wrapped(drifters: xr.Dataset, currents: xr.Dataset) -> Pair:
    """Bytes without sign, read with one: 0.02 m/s a count, 128 is 0."""
    count = ((currents / 0.02).round() + 128).clip(1, 255)
    return drifters, xr.where(count > 127, count - 256, count) * 0.02


def mirrored_place(drifters: xr.Dataset, currents: xr.Dataset) -> Pair:
    """Longitudes of the drifters positive west, turned so that they lie in the ocean."""
    middle = float(currents.longitude.mean())
    return drifters.assign(lon=2 * middle - (drifters.lon % 360)), currents


def merged(drifters: xr.Dataset, currents: xr.Dataset) -> Pair:
    """Six drifters one id, their fixes sorted by time: zigzag tracks."""
    ident = drifters.ids.values // 6 * 6
    order = np.lexsort((drifters.time.values, ident))
    table = drifters[["time", "lon", "lat", "gap", "drogue_status"]].isel(obs=order)
    table["drifter_id"] = ("obs", ident[order])
    once = np.append(True, (np.diff(ident[order]) != 0) | (np.diff(table.time.values).astype(np.int64) != 0))
    return table.isel(obs=np.flatnonzero(once)), currents


def deep(drifters: xr.Dataset, currents: xr.Dataset) -> Pair:
    """Currents of another depth: a seventh as strong, turned by 40 degrees."""
    flow = (currents.ugos + 1j * currents.vgos) * np.exp(1j * np.radians(40)) / 7
    return drifters, currents.assign(ugos=flow.real, vgos=flow.imag)


def undrogued(drifters: xr.Dataset, currents: xr.Dataset) -> Pair:
    """Drogues on that are not known: only the others are left, with `drogue: lost`."""
    return drifters.assign(drogue_status=drifters.drogue_status.where(drifters.drogue_status == 0, -1)), currents


def renumbered(drifters: xr.Dataset, currents: xr.Dataset) -> Pair:
    """Files that each number their drifters from 0, deployed together: the same ids and starts again and again."""
    rows = np.arange(drifters.sizes["traj"])
    start = drifters.time.values[np.cumsum(drifters.rowsize.values) - drifters.rowsize.values]
    first = start[rows // 6 * 6]
    shift = np.repeat(first - start, drifters.rowsize.values)
    shift = xr.DataArray(shift, dims="obs")
    renamed = drifters.assign(id=("traj", rows // 6), time=drifters.time + shift)
    renamed.time.attrs = drifters.time.attrs
    return renamed.drop_vars("ids"), currents


def right(drifters: xr.Dataset, currents: xr.Dataset) -> Pair:
    """No mistake."""
    return drifters, currents


MISTAKES: dict[str, Callable[[xr.Dataset, xr.Dataset], Pair]] = {
    "none": right,
    "days of exactly 0": zeros,
    "only drifters without drogue": undrogued,
    "grid read without scale_factor": unpacked_grid,
    "grid 5 degrees off": shifted_grid,
    "unsigned bytes read as signed": wrapped,
    "drifters' longitudes positive west": mirrored_place,
    "daily means stamped 12 h early": later(-12),
    "one day late": later(24),
    "one day early": later(-24),
    "six drifters in one id": merged,
    "currents 100 times too slow": scaled(0.01),
    "currents 3 times too fast": scaled(3.0),
    "knots read as m/s": scaled(1.944),
    "another depth": deep,
    "files that number from 0": renumbered,
    "components exchanged": turned,
    "u reversed": reversed_("ugos"),
    "v reversed": reversed_("vgos"),
    "u and v reversed": reversed_("ugos", "vgos"),
    "a season late": later(24 * 91),
}


HEAD = ("mistake", "means / drifters", "rms ratio", "correlation", "angle", "mirrored", "factors", "lag h", "warned of")


def write(folder: Path, pair: Pair) -> dict[str, Any]:
    """Writes both and returns a manifest for them; speeds beyond what can be stored are cut."""
    folder.mkdir()
    drifters, currents = pair
    drifters.to_netcdf(folder / "drifters.nc")
    plain = currents.astype(np.float32).clip(-3.2, 3.2)
    for name in ("ugos", "vgos"):
        plain[name].attrs["units"] = "m/s"
    plain.to_netcdf(folder / "currents.nc")
    return {
        "drifters": {"path": str(folder / "drifters.nc"), "max_speed": 10.0},
        "currents": {"path": str(folder / "currents.nc")},
        "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
        "window": {"max_leaving": 1.0},
    }


def figures(tree: dict[str, Any]) -> dict[str, Any]:
    """Plans the manifest `tree`: the figures, the losses and the warnings, or the error."""
    recipe = settings.build(Recipe, tree, "manifest")
    # the comparison alone: without the reader's own check, which takes exact zeros for missing
    alone = mock.patch("driftcal.preprocess.sources.gridded.currents.remove_blanks", return_value=Blank())
    with alone, tempfile.TemporaryDirectory(prefix="driftcal-") as folder:
        try:
            build = planned(recipe, Path(folder) / "store", Path(folder) / "tracks.bin", progress=False)
        except DriftcalError as error:
            return {"error": str(error)}
    warned = [note for note in build.notes if note.startswith("WARNING")]
    return {**build.agreement.as_json(), "warnings": warned}


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    if "error" in found:
        return f"| {name} | refused: {found['error'].split('.')[0]} |||||| |"

    def number(key: str, form: str = ".2f") -> str:
        value, margin = found[key], found.get(f"{key.removesuffix('_hours')}_margin")
        if value is None:
            return ""
        return format(value, form) + (f" ± {format(margin, form)}" if margin is not None else "")

    cells = [
        f"{found['encounters']} / {found['drifters']}",
        number("speed_ratio", ".3g"),
        number("correlation"),
        number("angle", ".0f"),
        number("mirrored"),
        f"{number('factor', '.3g')}, {number('inverse_factor', '.3g')}",
        number("lag_hours", ".0f"),
    ]
    words = "; ".join(text.removeprefix("WARNING: ").split(":")[0].split(". ")[0] for text in found["warnings"])
    return f"| {name} | {' | '.join(cells)} | {words or 'nothing'} |"


def main() -> None:
    """Prints the table, or JSON."""
    to = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    to.add_argument("--drifters", type=int, default=300, help="of the twin (default: %(default)s)")
    to.add_argument("--days", type=int, default=365, help="of currents (default: %(default)s)")
    to.add_argument("--life", type=float, default=60, help="of a drifter, days (default: %(default)s)")
    to.add_argument("--seed", type=int, default=0)
    to.add_argument("--real", type=Path, help="folder of real colocated drifters and currents, instead of a twin")
    to.add_argument("--json", action="store_true", help="print JSON")
    options = to.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="driftcal-bench-") as name:
        folder = Path(name)
        pairs = real(options.real) if options.real else twin(folder, options)
        if not options.json:
            print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
        for what, tree in pairs(folder):
            found[what] = figures(tree)
            if not options.json:
                print(row(what, found[what]), flush=True)
    if options.json:
        print(json.dumps(found, indent=1))


def twin(folder: Path, options: argparse.Namespace) -> Callable[[Path], Any]:
    """Manifests of all mistakes made with a twin."""
    spec = Synthetic(
        folder=str(folder / "twin"), drifters=options.drifters, days=options.days, drifter_days=options.life,
        seed=options.seed,
    )  # fmt: skip
    make(spec)
    drifters = xr.open_dataset(folder / "twin/drifters.nc", decode_times=False).load()
    currents = xr.open_mfdataset(str(folder / "twin/currents/*.nc"))[["ugos", "vgos"]].load()

    def each(folder: Path):
        for number, (what, mistake) in enumerate(MISTAKES.items()):
            tree = write(folder / f"{number}", mistake(drifters, currents))
            if mistake is undrogued:
                tree["drifters"]["drogue"] = "lost"
            yield what, tree

    return each


def real(folder: Path) -> Callable[[Path], Any]:
    """Manifests of the real pairs in `folder`."""
    pairs = (
        ("s1_gdp104099_2012-06", "traj_7ddb864.nc", "duacs_7ddb864.nc", 5, 0.8),
        ("s3_melodi_2025-06", "traj_for_sim.nc", "currents_for_sim.nc", 4, 0.55),
    )

    def each(_: Path):
        for name, drifters, currents, days, half in pairs:
            yield (
                name,
                {
                    "drifters": {"path": str(folder / name / drifters)},
                    "currents": {"path": str(folder / name / currents)},
                    "segment": {"days": days},
                    "window": {"half_width_deg": half},
                    "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
                },
            )

    return each


if __name__ == "__main__":
    main()
