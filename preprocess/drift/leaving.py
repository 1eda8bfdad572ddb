"""Foretold share of the members that will leave their windows, for some constants C_s (numpy).

Training holds a member that leaves its window at the edge, which biases C_s. So the dry run simulates members in some
windows of the plan, from the drifters' first fixes, with the model that training calibrates (docs/model.md):

    dX = (u + grad K) dt + sqrt(2 K) dW,    K = C_s kappa,
    kappa = dx dy sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2)    [m2/s]

Only levels are read that planning has read, and each window keeps the currents of one of them for the whole segment:
eddies change within weeks. Beyond the edge the currents are those of the edge, so that it can be said how much wider a
window would have to be.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int16

from driftcal.preprocess.drift import windows
from driftcal.preprocess.drift.candidates import read_records
from driftcal.preprocess.drift.plan import Plan, take
from driftcal.preprocess.sources.gridded.currents import Currents, land_levels
from driftcal.shared.geo import METRES_PER_DEGREE
from driftcal.shared.spacing import evenly
from driftcal.shared.store.schema import OVER, SCALE

CONSTANTS = (0.1, 1.0, 10.0)
"""Values of C_s: the customary one, what real drifters give, and where the score is looked at last."""

WINDOWS, MEMBERS = 96, 50
"""Windows that are simulated, and members in each: a share of 1 % comes out right to a third or so."""

STEP, MOST_STEPS = 3600, 480
"""Time step [s], and number of them at most."""

LARGEST = 0.01
"""Share of members leaving that a run warns of."""

LEAST_KAPPA = 1e-12
"""Floor of kappa under the square root, as in training [m2/s]."""


@dataclass(frozen=True)
class Leaving:
    """Members that will leave their windows at one constant.

    Attributes:
        cs: C_s.
        share: Share of the members that leave within a segment.
        half_width_deg: `window.half_width_deg` with which no more than `LARGEST` would.
        windows: Number of windows that were simulated.
    """

    cs: float
    share: float
    half_width_deg: float
    windows: int

    def as_json(self) -> dict[str, Any]:
        """These numbers as JSON."""
        return asdict(self)


def foretell(plan: Plan, scratch: Path, currents: Sequence[Currents]) -> list[Leaving]:
    """Simulates members in some windows of `plan`, at each of `CONSTANTS`.

    Args:
        plan: The windows.
        scratch: File of the survey, with the tracks of the plan's candidates.
        currents: The sources.

    Raises:
        DataError: a level cannot be read again.
    """
    chosen, flow = _flows(plan, currents)
    origin = read_records(scratch, plan.layout.n_obs, plan.candidate[chosen])["origin"]
    corner = plan.placement.corner[chosen]
    east = (origin[:, 0] - corner[:, 0] + 180.0) % 360.0 - 180.0
    step = np.array([plan.layout.lon_step, plan.layout.lat_step])
    start = np.stack([east, origin[:, 1] - corner[:, 1]], axis=-1) / step
    seconds = (plan.layout.n_obs - 1) * plan.layout.obs_step
    foretold = []
    for cs in CONSTANTS:
        beyond = _furthest(flow, corner[:, 1], step, start, cs, seconds)
        # degrees of longitude count as the degrees of latitude that widen the window by as many
        wider = (beyond * step * [plan.shape.half_lat / plan.shape.half_lon, 1.0]).max(axis=-1)
        # to a tenth of a degree, upwards
        needed = np.ceil(10 * (plan.shape.half_lat + max(float(np.quantile(wider, 1.0 - LARGEST)), 0.0))) / 10
        foretold.append(Leaving(cs, float((wider > 0).mean()), float(needed), len(chosen)))
    return foretold


def lines(foretold: Sequence[Leaving], days: float) -> list[str]:
    """Text of what was foretold, with a warning where a run at C_s = 1 would give one."""
    shares = ", ".join(f"{_percent(one.share)} at C_s = {one.cs:g}" for one in foretold)
    text = [f"members that will leave their window in {days:g} days: about {shares} ({foretold[0].windows} windows)"]
    wide = [one for one in foretold if one.share > LARGEST]
    needed = ", ".join(f"{one.half_width_deg:g} for C_s up to {one.cs:g}" for one in wide)
    if any(one.cs <= 1.0 for one in wide):
        text.append(
            f"WARNING: more than {_percent(LARGEST)} of the members will leave, which biases C_s. Set "
            f"window.half_width_deg to {needed}, or shorten segment.days."
        )
    elif wide:
        text.append(f"note: window.half_width_deg {needed} would hold all but {_percent(LARGEST)} of them.")
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


@dataclass(frozen=True)
class _Flow:
    """Frozen flow of windows, each `(windows, lat, lon)`: currents [m/s], kappa [m2/s], its gradient [m/s]."""

    u: Float64[np.ndarray, "windows lat lon"]
    v: Float64[np.ndarray, "windows lat lon"]
    kappa: Float64[np.ndarray, "windows lat lon"]
    kappa_x: Float64[np.ndarray, "windows lat lon"]
    kappa_y: Float64[np.ndarray, "windows lat lon"]


def _flows(plan: Plan, currents: Sequence[Currents]) -> tuple[Int[np.ndarray, " windows"], _Flow]:
    """Samples to simulate, and the flow in their windows."""
    n_times, shape = plan.shape.n_times, plan.shape
    chosen, cut = [], []
    for number, source in enumerate(currents):
        of_source = np.flatnonzero(plan.current == number)
        if not len(of_source):
            continue
        first = plan.placement.level[of_source]
        levels = np.zeros(1, np.int64) if source.frozen else land_levels(source.time)
        holding = {int(k): of_source[(first <= k) & (k < first + n_times)] for k in levels}
        if not any(map(len, holding.values())):  # a short plan in a long record: a level of its own
            middle = np.sort(first)[len(first) // 2]
            holding = {int(middle): of_source[first == middle]}
        holding = {k: samples for k, samples in holding.items() if len(samples)}
        wanted = np.array([*holding])
        each = -(-WINDOWS * len(of_source) // (len(plan.current) * len(wanted)))
        for index, level in source.each(wanted):
            samples = holding[index][evenly(len(holding[index]), each)]
            placement = take(plan.placement, samples)
            room = np.empty((len(samples), 2, 1, shape.n_lat, shape.n_lon), np.int16)
            for k in range(len(samples)):
                windows.copy([level], placement, k, source, room[k])
            chosen.append(samples)
            cut.append(room[:, :, 0])
    samples, packed = np.concatenate(chosen), np.concatenate(cut)
    return samples, _flow(packed, plan.placement.corner[samples, 1], plan.layout.lon_step, plan.layout.lat_step)


def _flow(
    packed: Int16[np.ndarray, "windows 2 lat lon"],
    south: Float64[np.ndarray, " windows"],
    lon_step: float,
    lat_step: float,
) -> _Flow:
    """Flow of `packed`, `(windows, 2, lat, lon)` [1e-4 m/s], whose southern rows lie at `south` [degrees]."""
    ocean = np.asarray((packed > OVER).all(axis=1))
    u, v = (np.where(ocean, packed[:, k] * SCALE, 0.0) for k in range(2))
    lat = south[:, None] + lat_step * np.arange(packed.shape[2])
    dx = (METRES_PER_DEGREE * lon_step * np.cos(np.radians(lat)))[..., None]
    dy = METRES_PER_DEGREE * lat_step
    u_x, v_x = (_slope(field, ocean, 2) / dx for field in (u, v))
    u_y, v_y = (_slope(field, ocean, 1) / dy for field in (u, v))
    kappa = dx * dy * np.sqrt(u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2)
    return _Flow(u, v, kappa, _slope(kappa, ocean, 2) / dx, _slope(kappa, ocean, 1) / dy)


def _slope(
    field: Float64[np.ndarray, "windows lat lon"], ocean: Bool[np.ndarray, "windows lat lon"], axis: int
) -> Float64[np.ndarray, "windows lat lon"]:
    """Difference of `field` a cell along `axis`: centred, one-sided at coasts and edges, 0 without a neighbour."""
    field, ocean = np.moveaxis(field, axis, -1), np.moveaxis(ocean, axis, -1)
    there = ocean[..., 1:] & ocean[..., :-1]
    both = np.pad(np.where(there, np.diff(field), 0.0), [(0, 0), (0, 0), (1, 1)])
    n = np.pad(there.astype(np.float64), [(0, 0), (0, 0), (1, 1)])
    slope = (both[..., 1:] + both[..., :-1]) / np.maximum(n[..., 1:] + n[..., :-1], 1.0)
    return np.moveaxis(slope, -1, axis)


def _furthest(
    flow: _Flow,
    south: Float64[np.ndarray, " windows"],
    step: Float64[np.ndarray, " 2"],
    start: Float64[np.ndarray, "windows 2"],
    cs: float,
    seconds: int,
) -> Float64[np.ndarray, "members 2"]:
    """Furthest that each member was beyond the edges of its window [cells], east-west and north-south; < 0: inside.

    Ito's equation by Euler and Maruyama. A member in a cell of land stays there, as in training.

    Args:
        flow: The windows.
        south: Latitude of their southern rows [degrees].
        step: Size of a cell, lon and lat [degrees].
        start: Where the members begin, lon and lat [cells] from the south-western one, `(windows, 2)`.
        cs: C_s.
        seconds: Length of a segment.
    """
    n_windows, n_lat, n_lon = flow.u.shape
    last = np.array([n_lon - 1, n_lat - 1])
    steps = min(-(-seconds // STEP), MOST_STEPS)
    dt = seconds / steps
    rng = np.random.default_rng(0)
    which = np.repeat(np.arange(n_windows), MEMBERS)
    at = np.repeat(start, MEMBERS, axis=0)
    beyond = np.full_like(at, -np.inf)
    rows = np.stack([flow.u, flow.v, flow.kappa, flow.kappa_x, flow.kappa_y], axis=-1).reshape(-1, 5)
    for _ in range(steps):
        inside = np.clip(at, 0.0, last)
        cell = np.minimum(inside.astype(np.int64), last - 1)
        east, north = (inside - cell).T[..., None]
        base = (which * n_lat + cell[:, 1]) * n_lon + cell[:, 0]
        low = (1 - east) * rows[base] + east * rows[base + 1]
        high = (1 - east) * rows[base + n_lon] + east * rows[base + n_lon + 1]
        u, v, kappa, kappa_x, kappa_y = ((1 - north) * low + north * high).T
        drift = np.stack([u + cs * kappa_x, v + cs * kappa_y], axis=-1)
        amplitude = np.where(kappa > 0.0, np.sqrt(2.0 * cs * np.maximum(kappa, LEAST_KAPPA) * dt), 0.0)
        metres = drift * dt + amplitude[:, None] * rng.standard_normal(at.shape)
        lat = np.radians(south[which] + step[1] * at[:, 1])
        at += metres / (METRES_PER_DEGREE * step * np.stack([np.cos(lat), np.ones_like(lat)], axis=-1))
        beyond = np.maximum(beyond, np.maximum(-at, at - last))
    return beyond
