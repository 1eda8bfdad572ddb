"""A twin experiment: drifters simulated with a known constant C_s, written in the format of the hourly GDP product.

The currents are synthetic, or given; the drifters are deployed over them and stepped by `made.drifter_integrator`.
Unless `clean`, the file has the product's faults too: lost drogues, interpolated gaps, drifters aground.

Positions are (lon, lat) in degrees, times whole seconds since 1970, velocities m/s.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from tqdm import tqdm

from driftcal.preprocess.made.drifter_integrator import Interval, Record, advance
from driftcal.preprocess.made.eddying_ocean import refuse_foreign, write_currents
from driftcal.preprocess.recipe import DAY, CurrentSource, Synthetic
from driftcal.preprocess.sources.gridded.open_currents import open_currents
from driftcal.shared.errors import ConfigError, DataError
from driftcal.shared.geo import METRES_PER_DEGREE, wrap_longitude

FORMULA = "K = C_s dx dy sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2)"
SOURCE = "driftcal twin experiment: a simulation, no observations"
"""Global attribute `source` of the drifter file: only a file that carries it is ever replaced."""

HOUR = 3600
NEVER = np.iinfo(np.int64).max
"""`lost` of a drifter that keeps its drogue."""
WINDAGE = np.array([0.06, 0.02])
"""Slip of an undrogued drifter [m/s] eastward and northward: 1 % of a wind of 6.3 m/s that never changes.

Undrogued drifters slip by the order of 1 % of the wind (Poulain et al. 2009, Wind effects on drogued and undrogued
drifters in the eastern Mediterranean, J. Atmos. Oceanic Technol. 26)."""
AGROUND_TAIL = 240
"""Fixes that a grounded drifter goes on sending: ten days."""

_NOT_A_TIME = np.iinfo(np.int64).min
_MARGIN_DEG = 0.5
_LOST_SHARE, _UNKNOWN_SHARE, _GAP_SHARE = 0.3, 0.03, 0.15


@dataclass(frozen=True)
class Fleet:
    """Properties of the drifters that are drawn before they move.

    Attributes:
        start: Time of deployment [s], whole hours, (N,).
        hours: Lifetime of each.
        place: Deployment position as shares in [0, 1): of the ocean's area, and of the cell in x and y, (N, 3).
        lost: Time at which the drogue is lost [s]; `NEVER`, or 0 if it is unknown from the start, (N,).
    """

    start: np.ndarray
    hours: int
    place: np.ndarray
    lost: np.ndarray


@dataclass(frozen=True)
class Tracks:
    """Hourly tracks: `position` (N, H, 2), NaN after the `count` (N,) fixes; `aground` (N,): ended on land."""

    position: np.ndarray
    count: np.ndarray
    aground: np.ndarray


def plan_fleet(spec: Synthetic, time: np.ndarray) -> Fleet:
    """Deployments spread over the record with the times `time` [s] and over the ocean's area, one per stratum.

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
    start = first + np.floor((np.arange(n) + rng.random(n)) / n * (last - first - hours + 1)).astype(np.int64)
    place = rng.random((n, 3))
    place[:, 0] = (rng.permutation(n) + place[:, 0]) / n
    lost = np.full(n, NEVER)
    if not spec.clean:
        order, n_lost = rng.permutation(n), round(_LOST_SHARE * n)
        some = order[:n_lost]
        lost[some] = (start[some] + np.rint(hours * rng.uniform(0.2, 0.9, n_lost)).astype(np.int64)) * HOUR
        lost[order[n_lost : n_lost + round(_UNKNOWN_SHARE * n)]] = 0
    return Fleet(start * HOUR, hours, place, lost)


def deploy(interval: Interval, place: np.ndarray) -> np.ndarray:
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


def simulate(record: Record, fleet: Fleet, spec: Synthetic, progress: bool = False) -> Tracks:
    """The drifters of `fleet` in the currents of `record`, saved every hour.

    A drifter ends at the end of its life, one cell from the edge of the currents, or aground: `spec.clean` keeps no
    fix of that, else its position is sent for `AGROUND_TAIL` fixes more.
    """
    rng = np.random.default_rng([spec.seed, 2])
    n, tail = fleet.start.size, 0 if spec.clean else AGROUND_TAIL
    position = np.full((n, fleet.hours + 1, 2), np.nan)
    count, aground = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
    active, here = np.zeros(0, dtype=np.intp), np.zeros((0, 2))
    begin, end = int(fleet.start.min()), int(fleet.start.max()) + fleet.hours * HOUR
    with tqdm(total=(end - begin) // DAY, unit="day", desc="drifters", disable=not progress) as bar:
        for now in range(begin, end + 1, HOUR):
            if now > begin and (now - begin) % DAY == 0:
                bar.update()
            new = np.flatnonzero(fleet.start == now)
            if new.size:
                active = np.concatenate([active, new])
                here = np.concatenate([here, deploy(record.at(now), fleet.place[new])])
            if not active.size:
                continue
            age = (now - fleet.start[active]) // HOUR
            ashore = record.at(now).aground(here)
            position[active, age] = here
            count[active] = age + 1
            for k, hour in zip(active[ashore], age[ashore], strict=True):
                aground[k], count[k] = True, min(hour + tail, fleet.hours) + 1 if tail else hour
                position[k, hour : count[k]] = position[k, hour]
            going = ~ashore & (age < fleet.hours)
            active, here = active[going], here[going]
            slip = np.where(now >= fleet.lost[active, None], WINDAGE, 0.0)
            within = np.ones(active.size, dtype=bool)
            for time in range(now, now + HOUR, spec.step) if active.size else ():
                noise = rng.standard_normal(here.shape)
                here = advance(record.at(time), here, noise, cs=spec.cs, time=time, step=spec.step, slip=slip)
                within &= record.at(time).inside(here)
            active, here = active[within], here[within]
    return Tracks(position, count, aground)


def _interpolate_gaps(tracks: Tracks, spec: Synthetic) -> tuple[np.ndarray, np.ndarray]:
    """Positions with some stretches interpolated linearly, as the product fills gaps, and `gap` [s] of each fix.

    Returns:
        Positions (N, H, 2) and gaps (N, H), float64: an hour outside the stretches, one to four days in them.
    """
    position, gap = tracks.position.copy(), np.full(tracks.position.shape[:2], float(HOUR))
    rng, n = np.random.default_rng([spec.seed, 3]), tracks.count.size
    for k in rng.permutation(n)[: 0 if spec.clean else round(_GAP_SHARE * n)]:
        length = int(rng.integers(30, 96))
        if tracks.count[k] < length + 3:
            continue
        a = int(rng.integers(1, tracks.count[k] - length - 1))
        inner, b = np.arange(a + 1, a + length), a + length
        share = ((inner - a) / length)[:, None]
        position[k, inner] = (1 - share) * position[k, a] + share * position[k, b]
        gap[k, inner] = length * HOUR
    return position, gap


def _velocity(position: np.ndarray) -> np.ndarray:
    """Velocity [m/s] from differences between neighbouring hours, one-sided at a track's ends; (N, H, 2)."""
    rise = np.diff(position, axis=1, prepend=np.nan, append=np.nan)
    rise = np.stack([rise[:, :-1], rise[:, 1:]])
    mean = np.nansum(rise, axis=0) / np.maximum(np.isfinite(rise).sum(axis=0), 1)
    east = np.cos(np.radians(position[..., 1]))
    return mean * METRES_PER_DEGREE * np.stack([east, np.ones_like(east)], axis=-1) / HOUR


def _dataset(spec: Synthetic, fleet: Fleet, tracks: Tracks) -> xr.Dataset:
    """The drifters in the hourly product's format: a contiguous ragged array, one row per drifter."""
    position, gap = _interpolate_gaps(tracks, spec)
    kept = np.arange(position.shape[1]) < tracks.count[:, None]
    row = np.repeat(np.arange(fleet.start.size), tracks.count)
    time = (fleet.start[:, None] + np.arange(position.shape[1]) * HOUR)[kept]
    velocity = _velocity(position)[kept]
    error = np.abs(position - tracks.position)[kept]
    lon, lat = wrap_longitude(position[kept][:, 0]), position[kept][:, 1]
    last = np.cumsum(tracks.count) - 1
    head = last - tracks.count + 1
    lost, drogue = np.where(fleet.lost == NEVER, _NOT_A_TIME, fleet.lost), time < fleet.lost[row]
    ashore = tracks.aground & (not spec.clean)
    ident = 10_000_000 * (1 + spec.seed % 100_000) + np.arange(fleet.start.size)
    seconds, east, north = "seconds since 1970-01-01 00:00:00", "degrees_east", "degrees_north"
    # lon, lat and time carry no standard_name, as in the product. Positions are float64: at 180 degrees float32 steps
    # by 1.7 m, an error of the file that the twin must not add to its own noise.
    table = (
        ("id", "traj", ident, "Global Drifter Program Buoy ID", "-"),
        ("rowsize", "traj", tracks.count.astype(np.int32), "Number of observations per trajectory", "-"),
        ("deploy_date", "traj", fleet.start, "Deployment date and time", seconds),
        ("deploy_lon", "traj", lon[head], "Deployment longitude", east),
        ("deploy_lat", "traj", lat[head], "Deployment latitude", north),
        ("end_date", "traj", time[last], "End date and time", seconds),
        ("end_lon", "traj", lon[last], "End longitude", east),
        ("end_lat", "traj", lat[last], "End latitude", north),
        ("drogue_lost_date", "traj", lost, "Date and time of drogue loss", seconds),
        ("typedeath", "traj", np.where(ashore, 1, 3).astype(np.int8), "Type of death", "-"),
        ("ids", "obs", ident[row], "Global Drifter Program Buoy ID repeated along observations", "-"),
        ("time", "obs", time, "Time", seconds),
        ("lon", "obs", lon, "Longitude", east),
        ("lat", "obs", lat, "Latitude", north),
        ("ve", "obs", velocity[:, 0].astype(np.float32), "Eastward velocity", "m/s"),
        ("vn", "obs", velocity[:, 1].astype(np.float32), "Northward velocity", "m/s"),
        ("err_lon", "obs", error[:, 0].astype(np.float32), "95% confidence interval in longitude", east),
        ("err_lat", "obs", error[:, 1].astype(np.float32), "95% confidence interval in latitude", north),
        ("gap", "obs", gap[kept].astype(np.float32), "Time interval between previous and next location", "s"),
        ("drogue_status", "obs", drogue.astype(np.int8), "Status indicating the presence of the drogue", "-"),
    )
    dataset = xr.Dataset(
        {name: (dim, values, {"long_name": text, "units": unit}) for name, dim, values, text, unit in table}
    )
    dataset.rowsize.attrs["sample_dimension"] = "obs"
    dataset.drogue_status.attrs |= {"flag_values": "1,0", "flag_meanings": "drogued, undrogued"}
    dataset.typedeath.attrs["comments"] = "1 (buoy ran aground), 3 (stop transmitting)"
    dataset.drogue_lost_date.attrs["comments"] = "missing: never lost; 1970-01-01: unknown from the beginning"
    dataset.drogue_lost_date.encoding["_FillValue"] = _NOT_A_TIME
    dataset.attrs = {
        "title": "Simulated drifters in the format of the Global Drifter Program hourly drifting buoy collection",
        "source": SOURCE,
        "Conventions": "CF-1.6",
        "smagorinsky_constant": spec.cs,
        "formula": FORMULA,
        "integrator": f"Ito Euler-Maruyama, step {spec.step} s",
        "seed": spec.seed,
    }
    return dataset


def make(spec: Synthetic, progress: bool = False) -> None:
    """Writes the twin experiment of `spec`: `currents/*.nc`, unless they are given, and `drifters.nc`.

    The same settings write the same bytes. `drifters.nc` comes last and whole: where it is, the rest is there.

    Args:
        spec: the settings; files go under `spec.folder`.
        progress: show a bar over the days.

    Raises:
        ConfigError: the settings contradict one another or the folder holds files that were not made here.
        DataError: no drifter can be simulated in the currents given.
    """
    folder = spec.place
    target, part = folder / "drifters.nc", folder / "drifters.part"
    refuse_foreign(target, SOURCE)
    target.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if spec.currents is None:
        write_currents(spec, progress)
    # Made currents too are read back as any source is: the drifters see what the preprocessing will see.
    source = spec.currents or CurrentSource(path=str(folder / "currents" / "*.nc"))
    record = Record(open_currents(source), source, spec.days)
    fleet = plan_fleet(spec, record.time)
    dataset = _dataset(spec, fleet, simulate(record, fleet, spec, progress))
    dataset.to_netcdf(part, engine="netcdf4", encoding={n: {"zlib": True, "complevel": 1} for n in dataset.variables})
    part.replace(target)
