"""The fleet of a twin experiment: when and where its drifters are released, and when they lose their drogues.

Positions are (lon, lat) in degrees, times whole seconds since 1970.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from driftcal.preprocess.made.drifter_integrator import Interval
from driftcal.preprocess.recipe import DAY, Synthetic
from driftcal.preprocess.truth import Release
from driftcal.shared.errors import ConfigError, DataError
from driftcal.shared.geo import METRES_PER_DEGREE

HOUR = 3600
NEVER = np.iinfo(np.int64).max
"""`lost` of a drifter that keeps its drogue."""

_MARGIN_DEG = 0.5
_LOST_SHARE, _UNKNOWN_SHARE = 0.3, 0.03


@dataclass(frozen=True)
class Fleet:
    """Properties of the drifters that are drawn before they move.

    Attributes:
        start: Time of deployment [s], whole hours, (N,).
        hours: Lifetime of each.
        place: Deployment position as shares in [0, 1): of the ocean's area, and of the cell in x and y, (N, 3).
        lost: Time at which the drogue is lost [s]; `NEVER`, or 0 if it is unknown from the start, (N,).
        offset: Distance of each from that position, eastward and northward [m], (N, 2); None: on the spot.
    """

    start: Int64[np.ndarray, " N"]
    hours: int
    place: Float64[np.ndarray, "N 3"]
    lost: Int64[np.ndarray, " N"]
    offset: Float64[np.ndarray, "N 2"] | None = None


def plan_fleet(spec: Synthetic, time: Int64[np.ndarray, " time"]) -> Fleet:
    """Deployments spread over the record with the times `time` [s] and over the ocean's area, one per stratum.

    Of drifters that are released together each group has a stratum; its last one may be smaller than the others.

    Raises:
        ConfigError: the step does not divide an hour, or drifters or record live less than an hour.
    """
    first, last = -(-int(time[0]) // HOUR), int(time[-1]) // HOUR
    hours = min(round(spec.drifter_days * DAY / HOUR), last - first)
    if HOUR % spec.step or hours < 1:
        raise ConfigError(
            f"synthetic.step is {spec.step} s, synthetic.drifter_days {spec.drifter_days:g}, the record of currents "
            f"{last - first} hours; expected a step that divides 3600 s, and lives and a record of an hour at least."
        )
    rng, n = np.random.default_rng([spec.seed, 1]), spec.drifters
    together = 1 if spec.release is None else spec.release.together
    groups, group = -(-n // together), np.arange(n) // together
    start = first + np.floor((np.arange(groups) + rng.random(groups)) / groups * (last - first - hours + 1))
    place = rng.random((groups, 3))
    place[:, 0] = (rng.permutation(groups) + place[:, 0]) / groups
    start, place = start.astype(np.int64)[group], place[group]
    lost = np.full(n, NEVER)
    if not spec.clean:
        order, n_lost = rng.permutation(n), round(_LOST_SHARE * n)
        some = order[:n_lost]
        lost[some] = (start[some] + np.rint(hours * rng.uniform(0.2, 0.9, n_lost)).astype(np.int64)) * HOUR
        lost[order[n_lost : n_lost + round(_UNKNOWN_SHARE * n)]] = 0
    return Fleet(start * HOUR, hours, place, lost, None if spec.release is None else _offsets(spec, spec.release))


def _offsets(spec: Synthetic, release: Release) -> Float64[np.ndarray, "N 2"]:
    """Distances of drifters from the centre of their disc, eastward and northward [m], (N, 2)."""
    rng = np.random.default_rng([spec.seed, 7])
    radius = 1000 * release.within_km / 2 * np.sqrt(rng.random(spec.drifters))
    angle = rng.uniform(0, 2 * np.pi, spec.drifters)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def deploy(interval: Interval, place: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 2"]:
    """Positions (n, 2) of the shares `place` (n, 3): uniform over the area of the cells whose four nodes are ocean.

    Raises:
        DataError: no such cell is far enough from the edge of the currents.
    """
    ocean, lat, lon = interval.ocean, interval.lat, interval.lon
    east = np.roll(ocean, -1, axis=1)
    area = np.zeros(ocean.shape)
    area[:-1] = (ocean & east)[:-1] & (ocean & east)[1:]
    # Two cells at least: a drifter ends one cell from the edge.
    rim_y, rim_x = (max(2, int(np.ceil(_MARGIN_DEG / axis.step))) for axis in (lat, lon))
    area[:rim_y], area[lat.size - 1 - rim_y :] = 0, 0
    if not interval.periodic:
        area[:, :rim_x], area[:, lon.size - 1 - rim_x :] = 0, 0
    total = np.cumsum(area * np.cos(np.radians(lat.values))[:, None])
    if not total[-1] > 0:
        raise DataError(
            f"currents over {lat.size} x {lon.size} nodes from {lon.start:g}, {lat.start:g}: no cell with four ocean "
            f"nodes lies {rim_x} x {rim_y} cells inside; expected some. Give wider currents in synthetic.currents."
        )
    cell = np.searchsorted(total, place[:, 0] * total[-1], side="right")
    i, j = np.divmod(cell, lon.size)
    return np.stack([lon.start + lon.step * (j + place[:, 1]), lat.start + lat.step * (i + place[:, 2])], axis=1)


def scatter(
    interval: Interval, centre: Float64[np.ndarray, "n 2"], offset: Float64[np.ndarray, "n 2"]
) -> Float64[np.ndarray, "n 2"]:
    """Positions (n, 2) `offset` [m] away from `centre` (n, 2).

    Where that is ashore or beyond the currents the offset is halved until it is neither: nearer to the centre, which
    is afloat, the drifters of a group remain a group.
    """
    share = np.ones((len(centre), 1))
    while True:
        north = centre[:, 1] + share[:, 0] * offset[:, 1] / METRES_PER_DEGREE
        metres = METRES_PER_DEGREE * np.cos(np.radians(north))
        here = np.stack([centre[:, 0] + share[:, 0] * offset[:, 0] / metres, north], axis=1)
        bad = interval.aground(here) | ~interval.inside(here)
        if not bad.any():
            return here
        share[bad] /= 2
