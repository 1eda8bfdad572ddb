"""Advice on losses in the funnel: for each reason, the numbers of drifters and currents, and a remedy.

A warning is given for any reason that removes more than half of what enters its stage. Some such losses are normal,
and their text says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from driftcal.preprocess.drift import clock, funnel, segments, windows
from driftcal.preprocess.drift.candidates import Survey
from driftcal.preprocess.drift.funnel import Loss
from driftcal.preprocess.recipe import Recipe
from driftcal.preprocess.sources.drifters import fixes
from driftcal.preprocess.sources.drifters.drifters import CONTINUED
from driftcal.preprocess.sources.gridded.currents import Currents
from driftcal.shared import geo
from driftcal.shared.store.manifest import Stage
from driftcal.shared.store.schema import STATUS
from driftcal.shared.text import stamp

SOME = 0.2
"""Share of the items entering the stage that ends empty above which a reason is mentioned."""

OF_FIXES = {
    **fixes.REASONS,
    **clock.REASONS,
    funnel.ON: "drifters.drogue: lost keeps the fixes without drogue alone, and these have theirs. That is normal "
    "where most do; set drifters.drogue: on or any if these are wanted.",
    funnel.LOST: "drifters.drogue: on keeps the fixes with drogue alone. That is normal for the Global Drifter "
    "Program, whose drifters outlive their drogues: nothing need be done. drifters.drogue: any keeps these too, which "
    "the wind pushes more.",
    funnel.UNKNOWN: "The source does not say whether they have their drogue, and what is left may be a choice of "
    "special drifters. Check that drifters.variables.drogue names the right variable, or set drifters.drogue: any.",
    funnel.GAP: "They were interpolated across gaps longer than drifters.max_gap. Raise it only if such fixes are good "
    "enough.",
    segments.LEFT_OVER[1]: "Their clock is not regular: fixes are missing, or not segment.step apart. Resample the "
    "drifters to a regular step, or lower segment.days so that segments fit between the breaks.",
    segments.TOO_FAST: "A step faster than drifters.max_speed breaks their track. If such speeds are real raise it; "
    "else positions are wrong, or one id stands for several drifters (drifters.variables.id).",
}
"""Advice on fixes, by reason."""

OF_SAMPLES = {
    STATUS[1]: "Their windows hold cells that have a current at other times and none then: gaps as those of a radar or "
    "of sea ice, or a failed download. Give currents without such gaps (fill them, or take a product that is mapped), "
    "or make windows that avoid them: a smaller window.half_width_deg, a shorter segment.days, another period.",
    STATUS[2]: "Their windows hold currents above 3.2766 m/s. If those are not real, look at the units and "
    "scale_factor of the currents.",
}
"""Advice on samples whose windows cannot be used, by reason."""


@dataclass(frozen=True)
class Situation:
    """Parts of a plan: manifest, segments, why each is no sample (`funnel.REASONS`), currents, and windows."""

    recipe: Recipe
    survey: Survey
    reason: np.ndarray
    currents: Sequence[Currents]
    shape: windows.Shape

    def about(self, reason: str) -> str:
        """Advice on what is lost for `reason`."""
        if reason in OF_FIXES:
            return OF_FIXES[reason]
        if reason == segments.LEFT_OVER[0]:
            if self.survey.continued:
                return f"{self.survey.continued} trajectories {CONTINUED}, or lower segment.days."
            none = "No track holds" if not len(self.survey.drifter) else "What is left of their tracks does not hold"
            return f"{none} {self.recipe.segment.days:g} whole days without a break: lower segment.days."
        lost = self.reason == funnel.REASONS.index(reason)
        return {
            funnel.OUTSIDE_DATES: self._dates,
            windows.OUTSIDE_PERIOD: self._period,
            windows.MISSING_DAY: self._missing,
            windows.OUTSIDE_DOMAIN: self._domain,
            funnel.POLEWARD: self._poleward,
            windows.TRACK_LEAVES: lambda _: "Their drifters go further than window.half_width_deg: raise it.",
            windows.ON_LAND: self._land,
            funnel.AGROUND: lambda _: (
                "Their positions do not change: the drifters lie ashore, or an instrument is moored."
            ),
            funnel.DUPLICATE: lambda _: (
                "A file is given twice, or several files number their drifters alike: check "
                "drifters.path, and give drifters ids of their own."
            ),
        }[reason](lost)

    def _times(self, lost: np.ndarray) -> str:
        """Start times of the lost segments, periods of the currents, and the period that the manifest asks for."""
        start = self.survey.start_time[lost]
        period = self.recipe.period
        asked = f"; the manifest's period is {period.start or 'open'} to {period.end or 'open'}"
        records = "; ".join(f"from {stamp(grid.time[0])} to {stamp(grid.time[-1])}" for grid in self.currents)
        return (
            f"Segments start from {stamp(start.min())} to {stamp(start.max())}; the currents' levels run {records}"
            f"{asked if period.start or period.end else ''}"
        )

    def _dates(self, lost: np.ndarray) -> str:
        return (
            f"{self._times(lost)}. That is normal where the drifters' record is longer than the period that is asked "
            "for; else set period.start and period.end to days that have both."
        )

    def _period(self, lost: np.ndarray) -> str:
        return (
            f"{self._times(lost)} and a window takes {self.shape.n_times} of them. Give currents of the drifters' "
            "days, a week more on either side, or set period to the days that have both; if the times look wrong, "
            "check the units of time of both."
        )

    def _missing(self, lost: np.ndarray) -> str:
        return (
            f"{self._times(lost)}, with levels missing between, and a window takes {self.shape.n_times}. Fetch those "
            "that are missing (a note lists how many), or shorten segment.days."
        )

    def _domain(self, lost: np.ndarray) -> str:
        place = self.survey.origin[lost]
        grids = "; ".join(_box(grid.lon.values, grid.lat.values) for grid in self.currents)
        first = self.currents[0]
        return (
            f"Segments lie in {_box(place[:, 0], place[:, 1])}; the grid of the currents covers {grids} and a window "
            f"takes {self.shape.n_lat * first.lat.step:g} x {self.shape.n_lon * first.lon.step:g} degrees (lat x lon). "
            f"{self._misread() or 'Give currents that cover the drifters with that margin.'} Only if they nearly do, "
            "lower window.half_width_deg."
        )

    def _misread(self) -> str | None:
        """The other reading of positions, such as lat and lon swapped, that puts most on the grid; None: no other."""
        lon, lat = self.survey.origin.T
        ways = {
            "with latitude and longitude exchanged": (lat, lon, "lat and lon may be swapped: check drifters.variables"),
            "with longitudes of the other sign": (-lon, lat, "they may be positive west: check drifters.variables.lon"),
            "with latitudes of the other sign": (lon, -lat, "they may be positive south: check drifters.variables.lat"),
        }
        inside = {way: self._inside(east, north) for way, (east, north, _) in ways.items()}
        way = max(inside, key=lambda each: inside[each])
        if inside[way] <= max(len(lon) // 2, 2 * self._inside(lon, lat)):
            return None
        return f"{way[0].upper()}{way[1:]} {inside[way]} of {len(lon)} segments would lie on the grid: {ways[way][2]}."

    def _inside(self, lon: np.ndarray, lat: np.ndarray) -> int:
        """Number of positions on a grid of the currents."""
        on = np.zeros(len(lon), bool)
        for grid in self.currents:
            across = grid.periodic | ((lon - grid.lon.start) % 360.0 <= (grid.lon.size - 1) * grid.lon.step)
            north = lat - grid.lat.start
            on |= across & (north >= 0) & (north <= (grid.lat.size - 1) * grid.lat.step)
        return int(on.sum())

    def _poleward(self, lost: np.ndarray) -> str:
        lat = windows.centre_of(self.survey.origin[lost, 1], self.survey.extent[lost, :, 1])
        return (
            f"They are centred from lat {lat.min():.2f} to {lat.max():.2f}, and window.max_latitude is "
            f"{self.recipe.window.max_latitude:g}: raise it to have them; windows of all samples get as many degrees "
            "wide as the most poleward one needs."
        )

    def _land(self, lost: np.ndarray) -> str:
        place = self.survey.origin[lost]
        return (
            f"They start in {_box(place[:, 0], place[:, 1])}, where the currents have no value at any time: drifters "
            "on shores, under ice, or beyond what the product covers; or one of the grids is shifted."
        )


_SAID = (segments.TOO_FAST, clock.BETWEEN)
"""Reasons that are spoken of anyway: the survey warns of fewer fast fixes, the clock notes those between its steps."""


def warnings(stages: Sequence[Stage], situation: Situation) -> list[str]:
    """Losses of more than half of a stage to one reason, with advice."""
    losses = [loss for loss in funnel.losses(stages, funnel.MANY) if loss.reason not in _SAID]
    return [_warning(loss, situation.about(loss.reason)) for loss in losses]


def of_samples(stage: Stage) -> list[str]:
    """Warnings on the last stage, whose windows have been cut."""
    return [_warning(loss, OF_SAMPLES[loss.reason]) for loss in funnel.losses([stage], funnel.MANY)]


def _warning(loss: Loss, text: str) -> str:
    return f"WARNING: {loss.lost} of {loss.of} {loss.unit} are lost to one reason, {loss.reason!r}. {text}"


def no_sample(stages: Sequence[Stage], situation: Situation) -> str:
    """Advice if nothing is left: on the reasons of the stage that ended empty, then on earlier losses."""
    last = next(stage for stage in stages if not stage.kept)
    ended = funnel.losses([last], 0.0)
    if not ended:
        return "The drifters' files hold no fix: look at drifters.path."
    spoken = [loss for loss in ended if loss.lost >= SOME * loss.of] or ended[:1]
    before = funnel.losses(stages[: stages.index(last)], funnel.MANY)
    return " ".join(
        f"{loss.lost} of {loss.of} {loss.unit}, {loss.reason!r}: {situation.about(loss.reason)}"
        for loss in (*spoken, *before)
    )


def _box(lon: np.ndarray, lat: np.ndarray) -> str:
    """The range of longitudes, the short way round, and of latitudes."""
    around = np.unique(geo.wrap_longitude(lon))
    gaps = np.diff(np.append(around, around[0] + 360.0))
    west = around[(int(np.argmax(gaps)) + 1) % len(around)]
    east = west + 360.0 - gaps.max()
    return f"lon {west:.2f} to {east:.2f}, lat {lat.min():.2f} to {lat.max():.2f}"
