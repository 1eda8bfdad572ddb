"""Samples on which both engines are compared: made ones, and real currents near land and across the antimeridian."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.schema import FILL
from tests import fields, sources, stores

NUMBERS = Path(__file__).parent / "data" / "pastax.json"
"""What pastax made of them; `python -m tests.make_pastax_reference` makes it again."""

MEMBERS, WEIGHT_MEMBERS = 4, 3
STEP = 1800
WEIGHT_CS = 0.1
OBJECTIVES = ("energy", "energy-plain", "liu", "reference")


@dataclass(frozen=True)
class Case:
    """Some samples of a store, and what is simulated on them.

    Attributes:
        build: makes the store in a new folder, from the folder of real files.
        samples: their numbers.
        cs: the constant.
        seed: of the increments.
        schemes: with which to simulate.
        real: whether `build` reads real files.
    """

    build: Callable[[Path, Path], ShardStore]
    samples: tuple[int, ...]
    cs: float
    seed: int
    schemes: tuple[str, ...] = ("heun",)
    real: bool = False

    def noise(self, store: ShardStore) -> tuple[np.ndarray, np.ndarray]:
        """Increments `(step, 2, member, sample)` of the ensemble and of the one that weights the `energy` objective.

        From numpy's legacy generator: its stream is the one that numpy promises never to change (NEP 19).
        """
        layout = store.layout
        n_steps = (layout.n_obs - 1) * (layout.obs_step // STEP)
        rng = np.random.RandomState(self.seed)
        one, other = (rng.standard_normal((n_steps, 2, n, len(self.samples))) for n in (MEMBERS, WEIGHT_MEMBERS))
        return one, other


def _made(folder: Path, _real: Path) -> ShardStore:
    return ShardStore(stores.build(folder / "store", 6, seed=2, change=_islands).path)


def _seam(folder: Path, _real: Path) -> ShardStore:
    return ShardStore(stores.build(folder / "store", 8, seed=1, centre=(179.6, -20.0), change=_islands).path)


def _islands(values: dict[str, np.ndarray]) -> None:
    """Puts an island of 3 x 2 nodes in each window; the drifter starts in a cell of which it has one corner."""
    step = np.array([stores.SHAPE["lon_step"], stores.SHAPE["lat_step"]])
    for currents, origin, corner in zip(values["currents"], values["origin"], values["window_corner"], strict=True):
        i, j = np.floor((origin - corner) / step).astype(int)
        currents[:, :, j + 1 : j + 4, i + 1 : i + 3] = FILL


def _melodi(folder: Path, real: Path) -> ShardStore:
    """The real drifter, and two made ones that put to sea from the Algerian coast; two days of real currents."""
    source = real / "s3_melodi_2025-06"
    with xr.open_dataset(source / "traj_for_sim.nc") as track:
        start = int(track.time.values[0].astype("datetime64[s]").astype(np.int64))
    made = [straight(1, (2.96, 36.98), (3.2, 37.7), start, 49), straight(2, (3.7, 37.03), (3.1, 37.75), start, 49)]
    coast = sources.save(sources.ragged(made), folder / "coast.nc")
    return _preprocessed(
        folder,
        drifters=[{"path": str(source / "traj_for_sim.nc")}, {"path": coast}],
        currents={"path": str(source / "currents_for_sim.nc")},
        segment={"days": 2},
        window={"half_width_deg": 0.4},
    )


def _fiji(folder: Path, real: Path) -> ShardStore:
    """Made drifters among the islands of Fiji, which lie on the antimeridian, in a real day's currents."""
    currents = real / "duacs_global_20190223" / "nrt_global_allsat_phy_l4_20190223_20190226.nc"
    start = 1_550_923_200 + 5 * 3600
    made = [
        straight(1, (179.35, -16.95), (-179.9, -17.6), start, 121),
        straight(2, (-179.45, -16.3), (179.6, -16.9), start, 121),
    ]
    return _preprocessed(
        folder,
        drifters={"path": sources.save(sources.ragged(made), folder / "drifters.nc")},
        currents={"path": str(currents), "frozen": True},
        window={"half_width_deg": 2.0},
    )


def _preprocessed(folder: Path, **tree: Any) -> ShardStore:
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"split": fields.whole()} | tree))
    return fields.make(str(folder / "manifest.yaml"), folder / "store")


def straight(drifter: int, begin: tuple[float, float], end: tuple[float, float], start: int, n: int) -> sources.Track:
    """A drifter with hourly fixes from `begin` to `end`, (lon, lat), the short way round and not quite straight."""
    share = np.linspace(0, 1, n)
    east = (end[0] - begin[0] + 180) % 360 - 180
    lon = begin[0] + share * east + 0.01 * np.sin(9 * share)
    lat = begin[1] + share * (end[1] - begin[1])
    hourly = start + 3600 * np.arange(n)
    return sources.Track(drifter, hourly, (lon + 180) % 360 - 180, lat, np.ones(n, np.int8), np.full(n, 3600.0))


def kept(n_obs: int) -> list[int]:
    """Fixes whose positions are kept."""
    return [n_obs // 8, n_obs // 2, n_obs - 1]


def digest(store: ShardStore, samples: Sequence[int]) -> str:
    """sha256 of what goes into the simulation of `samples`: currents, fixes, places and times."""
    numbers = np.array(samples)
    parts = [store.currents.read(numbers), store.positions.read(numbers)]
    parts += [store.labels[name][numbers] for name in ("origin", "window_corner", "start_time", "window_time")]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


CASES = {
    "made": Case(_made, (0, 2, 3), 0.4, 13, ("heun", "reference", "euler")),
    "made, antimeridian": Case(_seam, (0, 2, 6), 0.25, 12),
    "melodi": Case(_melodi, (0, 1, 3), 0.1, 13, real=True),
    "fiji": Case(_fiji, (0, 1), 0.1, 14, real=True),
}
