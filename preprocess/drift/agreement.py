"""Agreement of currents and drifters: statistics of encounters, and warnings if the two cannot belong together.

With v a drifter's mean velocity and u the current along its track, both complex, and ⟨⟩ the sum over encounters
(docs/agreement.md has the equations):

* correlation ⟨v u*⟩ / √(⟨v v*⟩⟨u u*⟩), its angle counterclockwise from current to drifter (Kundu 1976, Ekman veering
  observed near the ocean bottom, J. Phys. Oceanogr. 6, 238-242); with mirrored currents ⟨v u⟩ takes the place of
  ⟨v u*⟩. No mean is taken away;
* factor Re⟨v u*⟩ / ⟨u u*⟩ of the currents and Re⟨v u*⟩ / ⟨v v*⟩ of the drifters: errors in what a factor multiplies
  make it too small, never too large;
* the lag at which Re of the correlation is largest, over encounters that have all lags.

All are functions of sums over encounters, so leaving out one drifter after the other (the jackknife) gives their
errors. Encounters of one drifter are not independent.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int64

from driftcal.preprocess.drift.encounters import LAGS, Encounters
from driftcal.preprocess.drift.jackknife import LEAST, Spread, Sums, spread
from driftcal.preprocess.recipe import DAY
from driftcal.shared.inspection.facts import iso
from driftcal.shared.store.agreement import Agreement

STRETCH = 10 * DAY
"""Encounters of a drifter that lie further apart [s] are taken to be independent where the drifters are few: two to
five times the time over which a drifter's velocity is correlated with itself (two to five days)."""

FEW_DRIFTERS = 10
"""Number of drifters below which their tracks are cut into stretches."""

FEWEST = 5
"""Independent drifters or stretches below which there is no verdict."""

SURE, VERY_SURE = 0.975, 0.995
"""One-sided confidence of a warning: against a bound that right data keep well away from; and against a lag of 0, where
right data lie."""

FACTOR = 1.5
"""A factor that is surely larger, of the currents or of the drifters, is warned of."""

CORRELATION, OVERALL = 0.3, 0.5
"""A correlation that is surely smaller than the first is warned of, and one that is surely smaller than the second
where that of either component is surely smaller than the first. At a wrong place of the same ocean what is left of it
are mean currents, mostly eastward and westward."""

ANGLE = 45.0
"""An angle [degrees] that is surely larger is warned of."""

LAG = 6 * 3600
"""A best lag of at least this [s] that is surely better than none is warned of."""

ZERO = 0.01
"""A larger share of currents that are exactly 0 is warned of."""

_DIGITS = 4
"""Significant digits in the manifest: few enough not to depend on the processor."""


def units(drifter: Int64[np.ndarray, " n"], time: Int64[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Independent unit of each encounter, from 0: its drifter, or ten days of it if there are few drifters."""
    drifters, of = np.unique(drifter, return_inverse=True)
    if len(drifters) >= FEW_DRIFTERS:
        return of
    first = np.full(len(drifters), np.iinfo(np.int64).max)
    np.minimum.at(first, of, time)
    stretch = (time - first[of]) // STRETCH
    return np.unique(of * 2**32 + stretch, return_inverse=True)[1]


@dataclass(frozen=True)
class Comparison:
    """The result of comparing currents with drifters: figures with their errors, and warnings."""

    met: Encounters
    figures: Agreement
    warnings: tuple[str, ...]


def compare(met: Encounters) -> Comparison:
    """Compares the encounters `met`: figures and warnings."""
    now = LAGS.index(0)
    valid = np.isfinite(met.current[:, now])
    unit = units(met.drifter[valid], met.time[valid])
    v, u = met.track[valid], met.current[valid, now]
    n_units = int(unit.max(initial=-1)) + 1
    drifters = len(np.unique(met.drifter[valid]))
    sums = Sums.of(v, u, unit)
    moving = bool(valid.any()) and sums.uu.sum() > LEAST and sums.vv.sum() > LEAST
    enough = n_units >= FEWEST
    basis = f"{drifters} drifter{'' if drifters == 1 else 's'}"
    warned = []
    empty: dict[str, float | None] = dict.fromkeys(Agreement.__dataclass_fields__)
    if valid.any():
        zero = float(met.still[valid].mean())
        empty |= {
            "drifter_speed": float(np.median(np.abs(v))),
            "current_speed": float(np.median(np.abs(u))),
            "zero_share": zero,
        }
        if zero > ZERO:
            warned.append(_zeros(met, valid, zero))
    if moving:
        angle = _angle(sums)
        named = {
            "correlation": spread(sums, lambda s: np.abs(s.correlation())),
            "angle": angle,
            "factor": spread(sums, Sums.factor),
            "inverse_factor": spread(sums, Sums.inverse_factor),
        }
        for name, each in named.items():
            empty[name] = each.value
            empty[f"{name}_margin"] = each.margin(SURE) if enough else None
        if enough:  # half a turn is any angle
            empty["angle_margin"] = min(180.0, angle.margin(SURE))
        empty["mirrored"] = float(np.abs(sums.all().mirrored_correlation()).item())
        empty["speed_ratio"] = float(np.sqrt(sums.vv.sum() / sums.uu.sum()))
        lag = _lag(met) if moving else None
        empty |= {} if lag is None else lag.figures
        before = len(warned)
        if enough:
            fitting = [*_axes(sums, angle, basis), *_scale(named["factor"], named["inverse_factor"], basis)]
            warned += fitting or _nothing(sums, basis)
            if lag is not None and lag.sure and len(warned) == before:
                warned.append(lag.warning(basis))
    figures = Agreement(
        **{
            **{name: None if value is None else _rounded(value) for name, value in empty.items()},
            "encounters": int(valid.sum()),
            "drifters": drifters,
            "independent": n_units,
            "levels": met.levels,
            "window_hours": met.window / 3600,
        }
    )
    return Comparison(met, figures, tuple(f"WARNING: {text}" for text in warned))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _angle(sums: Sums) -> Spread:
    """The angle of the correlation [degrees]; without a unit it is continuous with that of all."""
    value = float(np.angle(sums.all().vu).item())
    turned = np.angle(sums.without_each().vu * np.exp(-1j * value))
    return Spread(float(np.degrees(value)), np.degrees(value + turned))


# What the figures warn of


def _axes(sums: Sums, angle: Spread, basis: str) -> list[str]:
    """Components that are exchanged, reversed or turned."""
    total = sums.all()
    plain, mirrored = total.correlation().item(), total.mirrored_correlation().item()
    more = spread(sums, lambda s: np.abs(s.mirrored_correlation()) - np.abs(s.correlation()))
    if abs(mirrored) > CORRELATION and more.least(SURE) > 0:
        turn = round(np.degrees(np.angle(mirrored)) / 90) % 4
        cause = (
            "the northward component has the wrong sign",
            "eastward and northward are exchanged",
            "the eastward component has the wrong sign",
            "eastward and northward are exchanged, and both have the wrong sign",
        )[turn]
        return [
            f"the currents fit {basis} better mirrored: correlation {abs(mirrored):.2f} in place of {abs(plain):.2f}, "
            f"as if {cause}. Check currents.variables u and v, their signs, and whether latitudes or longitudes have "
            "the wrong sign; see docs/agreement.md"
        ]
    if abs(plain) > CORRELATION and abs(angle.value) - angle.margin(SURE) > ANGLE:
        cause = "both components have the wrong sign" if abs(angle.value) > 135 else (
            "the components are exchanged and one has the wrong sign, or are not eastward and northward"
        )  # fmt: skip
        return [
            f"the drifters ({basis}) go {abs(angle.value):.0f} ± {angle.margin(SURE):.0f} degrees to the "
            f"{'left' if angle.value > 0 else 'right'} of the currents, correlation {abs(plain):.2f}, as if {cause}. "
            "Check currents.variables u and v and their signs; see docs/agreement.md"
        ]
    return []


def _scale(factor: Spread, inverse: Spread, basis: str) -> list[str]:
    for of, by, pace in ((factor, factor.value, "slow"), (inverse, 1 / inverse.value if inverse.value else 0, "fast")):
        if of.least(SURE) > FACTOR:
            return [
                f"the currents are too {pace} for {basis}: multiplied by {by:.3g} they fit best. Check their units and "
                "scale_factor, and that they are surface currents (currents.select takes the depth); see "
                "docs/agreement.md"
            ]
    return []


def _nothing(sums: Sums, basis: str) -> list[str]:
    real = spread(sums, lambda s: np.real(s.correlation()))
    weaker = min(spread(sums, lambda s, sign=sign: s.along(sign)).most(SURE) for sign in (1, -1))
    if real.most(SURE) >= (OVERALL if weaker < CORRELATION else CORRELATION):
        return []
    return [
        f"the currents explain next to nothing of how {basis} move: correlation {real.value:.2f}, at most "
        f"{real.most(SURE):.2f}, and {weaker:.2f} at most of one component. If these are surface currents of those "
        "waters and days, places or times of one of them are wrong: check period, longitudes and latitudes, and ids "
        "that several drifters share; see docs/agreement.md"
    ]


def _zeros(met: Encounters, valid: Bool[np.ndarray, " n"], share: float) -> str:
    times = met.time[valid]
    days, of = np.unique(times, return_inverse=True)
    mean = np.bincount(of, weights=met.still[valid]) / np.bincount(of)
    still = [iso(int(day))[:16] for day in days[mean > 0.5]]
    most = 5
    where = f"; on the levels {', '.join(still[:most])}{' and more' if len(still) > most else ''}" if still else ""
    return (
        f"{100 * share:.2g} % of the currents at the drifters are exactly 0{where}. Currents are hardly ever 0: such "
        "values are mostly missing data. Fetch those levels again, or give a fill value; see docs/agreement.md"
    )


@dataclass(frozen=True)
class _Lag:
    """The best lag, whether it is surely another than 0, and its figures.

    Attributes:
        hours: The lag [h]; at most that of the currents that were compared.
        beyond: True if it may be more.
        sure: True if currents at one side certainly fit better than at the other.
        correlations: Real parts of the correlation, by `LAGS`.
        figures: Figures for the manifest.
    """

    hours: float
    beyond: bool
    sure: bool
    correlations: tuple[float, ...]
    figures: dict[str, float | None]

    def warning(self, basis: str) -> str:
        """A warning with the likely cause."""
        way, other = ("later", "earlier") if self.hours > 0 else ("earlier", "later")
        least, now, most = self.correlations if self.hours > 0 else self.correlations[::-1]
        reach = f"{self.figures['lag_reach']:g} h"
        hours = f"{abs(self.hours):.0f} h{' or more' if self.beyond else ''}"
        return (
            f"the currents fit {basis} best when their times are {hours} {way} "
            f"(correlation {least:.3f} at {reach} {other}, {now:.3f} as they are, {most:.3f} at {reach} {way}; between "
            "these by a parabola). Check the times of both: daily means that are stamped 00:00 and stand for 12:00 fit "
            "best 12 h later, an epoch that is wrong by a day 24 h; see docs/agreement.md"
        )


def _lag(met: Encounters) -> _Lag | None:
    """The lag at which the correlation is best, by a parabola; None where nothing was compared at another lag."""
    valid = np.isfinite(met.current).all(axis=1)
    if not valid.any():
        return None
    unit = units(met.drifter[valid], met.time[valid])
    sums = [Sums.of(met.track[valid], met.current[valid, k], unit) for k in range(len(LAGS))]
    each = [spread(of, lambda s: np.real(s.correlation())) for of in sums]
    reach = met.lag / 3600
    hours = _vertex(*(of.value for of in each)) * reach
    enough = len(each[0].without) >= FEWEST
    margin, sure, beyond = None, False, abs(hours) >= reach
    if enough:
        without = np.array([_vertex(*values) for values in zip(*(of.without for of in each), strict=True)])
        margin = None if beyond else min(reach, Spread(hours, without * reach).margin(SURE))
        rise = Spread(each[2].value - each[0].value, each[2].without - each[0].without)
        sure = abs(rise.value) > rise.margin(VERY_SURE) and abs(hours) * 3600 >= LAG
    correlations = tuple(of.value for of in each)
    figures = {"lag_hours": hours, "lag_margin": margin, "lag_reach": reach}
    return _Lag(hours, beyond, sure, correlations, figures)


def _vertex(before: float, now: float, after: float) -> float:
    """Position of the maximum, in [-1, 1], of a parabola through values at -1, 0 and 1."""
    bend = 2 * now - before - after
    rise = after - before
    return float(np.sign(rise)) if 2 * bend <= abs(rise) else rise / (2 * bend)
