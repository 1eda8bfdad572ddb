"""Worlds in still water, in numpy: drifters under some law, and ensembles of diffusion alone with its constant fitted.

A drifter's sample starts at the origin. Its ensemble is X = sqrt(C kappa) W, W the members' Brownian paths of variance
2 t in each direction, so that the energy score's derivative in log C is a closed form: half of X is dX / dlog C.
"""

from dataclasses import dataclass

import numpy as np

from driftcal.train.model_checks.checks import Evidence, MemberMemory, Moments, Parameter

HOURS = np.arange(1, 41) * 3.0
MEMBERS = 8
KAPPA = 400.0


@dataclass(frozen=True)
class Law:
    """Motion of drifters [m, s]."""

    cs: float = 0.5
    background: float = 0.0
    flight: tuple[float, float] | None = None
    drift: tuple[float, float] = (0.0, 0.0)
    inertial: tuple[float, float] | None = None
    position_error: float = 0.0


def evidence(law: Law, seed: int, n_drifters: int = 150, per_drifter: int = 2) -> Evidence:
    """Residuals of drifters under `law` about ensembles of diffusion alone, with C fitted to them."""
    random = np.random.default_rng(seed)
    n, seconds = n_drifters * per_drifter, 3600 * HOURS
    kappa = KAPPA * np.exp(random.normal(0.0, 0.7, n))
    steps = np.diff(seconds, prepend=0.0)
    walk = random.standard_normal((n, len(HOURS), 2)) * np.sqrt(2 * steps)[:, None]
    true = np.sqrt(law.cs * kappa + law.background)[:, None, None] * walk.cumsum(axis=1)
    true = true + np.array(law.drift) * seconds[:, None]
    if law.flight is not None:
        true = true + _flight(random, n, *law.flight)
    if law.inertial is not None:
        true = true + _flight(random, n, *law.inertial, turning=-1e-4)
    start = law.position_error * random.standard_normal((n, 1, 2))
    seen = true + law.position_error * random.standard_normal(true.shape) - start
    brownian = (random.standard_normal((n, len(HOURS), MEMBERS, 2)) * np.sqrt(2 * steps)[:, None, None]).cumsum(axis=1)
    unit = np.sqrt(kappa)[:, None, None, None] * brownian
    between = _between(unit)
    weight = 1.0 / np.sqrt(kappa[:, None] * seconds)  # the reference ensemble's spread, up to a factor
    log = 0.0
    for _ in range(30):
        slope = _slope(np.exp(log / 2) * unit, seen, np.exp(log / 2) * between)
        q = (slope * weight).mean() / (np.exp(log / 2) * between * weight).mean()
        log += _step(q)
    members = np.exp(log / 2) * unit
    mean, dispersion = members.mean(axis=2), np.exp(log / 2) * between
    away = members - mean[:, :, None]
    to_drifter = np.linalg.norm(members - seen[:, :, None], axis=3)
    to_members = np.linalg.norm(members[:, :, :, None] - members[:, :, None], axis=4).sum(axis=3)
    rank = (to_members + to_drifter < to_drifter.sum(axis=2, keepdims=True)).sum(axis=2)
    departure = seen - mean
    return Evidence(
        samples=np.arange(n),
        lead_hours=HOURS,
        cluster=np.repeat(np.arange(n_drifters), per_drifter),
        drifter=np.repeat(np.arange(n_drifters), per_drifter),
        objective=Moments((slope * weight)[..., None], (dispersion * weight)[..., None, None]),
        other=Moments(slope[..., None], dispersion[..., None, None]),
        parameter=Parameter("C_s", log, _step),
        departure=departure,
        error2=(departure**2).sum(axis=2),
        spread2=away.var(axis=2, ddof=1).sum(axis=2) * (MEMBERS + 1) / MEMBERS,
        rank=(rank + 0.5) / (MEMBERS + 1),
        displacement=random.standard_normal((n, 2)) * 1e4,
        daily=_memory(away, 8),
        hourly=_memory(away, 2),
        successive=_memory(away, 1),
        south=np.zeros(n, bool),
        members=MEMBERS,
        sorted_by={"kappa": np.log(kappa)[:, None]},
        groups={"seasons": np.arange(n) // per_drifter % 4},
        names=("energy", "energy-plain"),
    )


def _step(q: float) -> float:
    """The step of log C that ends at the minimum where ensemble and drifter are Gaussian."""
    share = np.clip((1 + 2 * np.clip(q, -0.5, 0.5)) ** 2 / 2, 1e-6, 1 - 1e-6)
    return float(np.log1p(-share) - np.log(share))


def _memory(away: np.ndarray, stride: int) -> MemberMemory:
    """Sums over pairs of successive increments of the members, means over them."""
    ends = away[:, stride - 1 :: stride]
    increments = np.diff(ends, axis=1, prepend=0.0)
    before, after = increments[:, :-1], increments[:, 1:]
    cross = before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]
    squares = (increments**2).sum(axis=(1, 3)).mean(axis=1)
    return MemberMemory(stride, (before * after).sum(axis=(1, 3)).mean(axis=1), cross.sum(axis=1).mean(axis=1), squares)


def _slope(members: np.ndarray, seen: np.ndarray, between: np.ndarray) -> np.ndarray:
    apart = members - seen[:, :, None]
    along = (apart * members).sum(axis=3) / np.linalg.norm(apart, axis=3)
    return 0.5 * along.mean(axis=2) - 0.5 * between


def _between(unit: np.ndarray) -> np.ndarray:
    """Half of the mean distance of two members."""
    total = np.linalg.norm(unit[:, :, :, None] - unit[:, :, None], axis=4).sum(axis=(2, 3))
    return 0.5 * total / (MEMBERS * (MEMBERS - 1))


def _flight(random: np.random.Generator, n: int, speed: float, time: float, turning: float = 0.0) -> np.ndarray:
    """Displacements of velocities that decay, and turn [1/s]: small steps of an Ornstein-Uhlenbeck process."""
    fine = 6
    h = 3600 * HOURS[0] / fine
    velocity, path, paths = speed * random.standard_normal((n, 2)), np.zeros((n, 2)), []
    keep, c, s = np.exp(-h / time), np.cos(turning * h), np.sin(turning * h)
    turned = np.array([[c, s], [-s, c]])
    for _ in HOURS:
        for _ in range(fine):
            after = keep * velocity @ turned + speed * np.sqrt(1 - keep**2) * random.standard_normal((n, 2))
            path = path + 0.5 * h * (velocity + after)
            velocity = after
        paths.append(path)
    return np.stack(paths, axis=1)
