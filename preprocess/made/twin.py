"""A twin experiment: drifters simulated with a known truth, written in the format of the hourly GDP product.

The currents are synthetic, or given; the drifters are deployed over them and stepped by `made.drifter_integrator`, with
the motion and the errors that their truth has besides (`made.unmodelled_motion`, `made.currents_error`).
Unless `clean`, the file has the product's faults too: lost drogues, interpolated gaps, drifters aground.

Positions are (lon, lat) in degrees, times whole seconds since 1970, velocities m/s.
"""

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64, Int64
from tqdm import tqdm

from driftcal.preprocess.made.currents_error import write_given
from driftcal.preprocess.made.drifter_integrator import Record, advance
from driftcal.preprocess.made.eddying_ocean import write_currents
from driftcal.preprocess.made.fleet import HOUR, NEVER, Fleet, deploy, plan_fleet, scatter
from driftcal.preprocess.made.product_files import refuse_foreign, remove
from driftcal.preprocess.made.unmodelled_motion import UnmodelledMotion, reported
from driftcal.preprocess.recipe import DAY, CurrentSource, Synthetic
from driftcal.preprocess.sources.gridded.open_currents import open_currents
from driftcal.shared.geo import METRES_PER_DEGREE, wrap_longitude

FORMULA = "K = C_s dx dy sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2)"
SOURCE = "driftcal twin experiment: a simulation, no observations"
"""Global attribute `source` of the drifter file: only a file that carries it is ever replaced."""

TRUE_CURRENTS = "true_currents"
"""Folder of made currents in which the drifters move, where the store is made from others."""

WINDAGE = np.array([0.06, 0.02])
"""Slip of an undrogued drifter [m/s] eastward and northward: 1 % of a wind of 6.3 m/s that never changes.

Undrogued drifters slip by the order of 1 % of the wind (Poulain et al. 2009, Wind effects on drogued and undrogued
drifters in the eastern Mediterranean, J. Atmos. Oceanic Technol. 26)."""
AGROUND_TAIL = 240
"""Fixes that a grounded drifter goes on sending: ten days."""

_NOT_A_TIME = np.iinfo(np.int64).min
_GAP_SHARE = 0.15
_CONFIDENCE_95 = 1.96
"""Half the width of a 95 % interval, in standard deviations."""


@dataclass(frozen=True)
class Tracks:
    """Hourly tracks: `position` (N, H, 2), NaN after the `count` (N,) fixes; `aground` (N,): ended on land."""

    position: Float64[np.ndarray, "N H 2"]
    count: Int64[np.ndarray, " N"]
    aground: Bool[np.ndarray, " N"]


def simulate(record: Record, fleet: Fleet, spec: Synthetic, progress: bool = False) -> Tracks:
    """The drifters of `fleet` in the currents of `record`, saved every hour.

    A drifter ends at the end of its life, one cell from the edge of the currents, or aground: `spec.clean` keeps no
    fix of that, else its position is sent for `AGROUND_TAIL` fixes more.
    """
    rng, world = np.random.default_rng([spec.seed, 2]), spec.world
    motion = UnmodelledMotion(spec, fleet.start.size)
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
                start = deploy(record.at(now), fleet.place[new])
                if fleet.offset is not None:
                    start = scatter(record.at(now), start, fleet.offset[new])
                active, here = np.concatenate([active, new]), np.concatenate([here, start])
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
                here = advance(
                    record.at(time),
                    here,
                    noise,
                    cs=world.cs,
                    time=time,
                    step=spec.step,
                    slip=slip + motion.mean_over(active, here[:, 1], spec.step),
                    background=world.background,
                )
                within &= record.at(time).inside(here)
            active, here = active[within], here[within]
    return Tracks(position, count, aground)


def _interpolate_gaps(
    tracks: Tracks, spec: Synthetic
) -> tuple[Float64[np.ndarray, "N H 2"], Float64[np.ndarray, "N H"]]:
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


def _velocity(position: Float64[np.ndarray, "N H 2"]) -> Float64[np.ndarray, "N H 2"]:
    """Velocity [m/s] from differences between neighbouring hours, one-sided at a track's ends; (N, H, 2)."""
    rise = np.diff(position, axis=1, prepend=np.nan, append=np.nan)
    rise = np.stack([rise[:, :-1], rise[:, 1:]])
    mean = np.nansum(rise, axis=0) / np.maximum(np.isfinite(rise).sum(axis=0), 1)
    east = np.cos(np.radians(position[..., 1]))
    return mean * METRES_PER_DEGREE * np.stack([east, np.ones_like(east)], axis=-1) / HOUR


def _dataset(spec: Synthetic, fleet: Fleet, tracks: Tracks) -> xr.Dataset:
    """The drifters in the hourly product's format: a contiguous ragged array, one row per drifter."""
    seen, deviation = reported(spec, tracks.position)
    position, gap = _interpolate_gaps(replace(tracks, position=seen), spec)
    kept = np.arange(position.shape[1]) < tracks.count[:, None]
    row = np.repeat(np.arange(fleet.start.size), tracks.count)
    time = (fleet.start[:, None] + np.arange(position.shape[1]) * HOUR)[kept]
    velocity = _velocity(position)[kept]
    error = (np.abs(position - seen) + _CONFIDENCE_95 * deviation)[kept]
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
        "smagorinsky_constant": spec.world.cs,
        "formula": FORMULA + (" + K_0" if spec.world.background else ""),
        "integrator": f"Ito Euler-Maruyama, step {spec.step} s",
        "seed": spec.seed,
    }
    if spec.truth is not None:
        dataset.attrs["truth"] = spec.truth.model_dump_json()
    return dataset


def make(spec: Synthetic, progress: bool = False) -> None:
    """Writes the twin experiment of `spec`: `currents/*.nc`, unless they are given without error, and `drifters.nc`.

    Where the currents are given an error, those made without it, for the drifters, are in `true_currents`. The same
    settings write the same bytes. `drifters.nc` comes last and whole: where it is, the rest is there.

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
    hidden = folder / TRUE_CURRENTS
    if hidden.exists():
        remove(hidden)
    where = folder / "currents" if spec.currents_error is None else hidden
    if spec.currents is None:
        write_currents(spec, where, progress)
    # Made currents too are read back as any source is: the drifters see what the preprocessing will see.
    source = spec.currents or CurrentSource(path=str(where / "*.nc"))
    currents = open_currents(source)
    if spec.currents_error is not None:
        write_given(spec, spec.currents_error, currents, progress)
    record = Record(currents, source, spec.days)
    fleet = plan_fleet(spec, record.time)
    dataset = _dataset(spec, fleet, simulate(record, fleet, spec, progress))
    dataset.to_netcdf(part, engine="netcdf4", encoding={n: {"zlib": True, "complevel": 1} for n in dataset.variables})
    part.replace(target)
