"""The figures that tell whether currents and drifters belong together, as a store's manifest lists them.

`drift.agreement` computes and judges them; docs/agreement.md defines them.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from driftcal.shared.text import counted


@dataclass(frozen=True)
class Agreement:
    """Figures of drifters against currents. A margin is half a 95 % interval over drifters; None: too few drifters.

    Attributes:
        encounters: Means that were compared: of a drifter over the window at a level.
        drifters: Number of drifters.
        independent: Drifters, or stretches of ten days where the drifters are few, that were taken as independent.
        levels: Levels of the currents at which.
        window_hours: Length of the means.
        drifter_speed: Median of the drifters' speed [m/s].
        current_speed: Median of the currents' speed there [m/s].
        speed_ratio: Root mean square of the drifters' velocity by that of the currents; None: the currents are 0.
        correlation: Magnitude of the complex vector correlation.
        correlation_margin: Its margin.
        angle: Its angle [degrees]: counterclockwise from the current to the drifter.
        angle_margin: Its margin.
        factor: By which the currents must be multiplied to fit the drifters best, by least squares.
        factor_margin: Its margin.
        inverse_factor: By which the drifters' velocities must be multiplied to fit the currents best.
        inverse_factor_margin: Its margin.
        mirrored: Magnitude of the correlation with the northward component of the currents reversed.
        lag_hours: Shift of the currents' times at which they fit best; None: nothing to compare at another time.
        lag_margin: Its margin; None where the best one is the greatest that was tried.
        lag_reach: Shift that was tried, earlier and later; the best one may be greater.
        zero_share: Share of the currents that are exactly 0 at the drifters.
    """

    encounters: int
    drifters: int
    independent: int
    levels: int
    window_hours: float
    drifter_speed: float | None
    current_speed: float | None
    speed_ratio: float | None
    correlation: float | None
    correlation_margin: float | None
    angle: float | None
    angle_margin: float | None
    factor: float | None
    factor_margin: float | None
    inverse_factor: float | None
    inverse_factor_margin: float | None
    mirrored: float | None
    lag_hours: float | None
    lag_margin: float | None
    lag_reach: float | None
    zero_share: float | None

    def as_json(self) -> dict[str, Any]:
        """These figures as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Agreement":
        """The inverse of `as_json`.

        Raises:
            TypeError: it is no such tree.
        """
        for field in fields(cls):
            value = tree[field.name]
            whole = field.type in ("int", int)
            if type(value) is not int and (whole or not (value is None or isinstance(value, float))):
                raise TypeError(f"{field.name} is not a number")
        for first, others in _TOGETHER.items():
            if tree[first] and any(tree[name] is None for name in others):
                raise TypeError(f"{first} is given, but not all of {', '.join(others)}")
        return cls(**tree)

    def lines(self) -> list[tuple[str, str]]:
        """The figures in words, each with its name."""
        if not self.encounters:
            return [("compared", "nothing: no drifter is under way at the levels that planning looks at")]
        drifters = counted(self.drifters, "drifter")
        rows = [
            (
                "compared",
                f"{self.encounters:,} means over {self.window_hours:g} h of {drifters}, at {self.levels} levels",
            ),
            ("speed", f"median {self.drifter_speed:.3g} m/s of the drifters, {self.current_speed:.3g} of the currents"),
        ]
        if self.speed_ratio is not None:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]}; rms ratio {self.speed_ratio:.3g}")
        if self.correlation is None:
            return rows
        rows.append(
            (
                "correlation",
                f"{_with(self.correlation, self.correlation_margin, 2)}, angle "
                f"{_with(self.angle, self.angle_margin, 0)} degrees; with mirrored currents {self.mirrored:.2f}",
            )
        )
        if self.correlation_margin is None:
            rows.append(("which says", f"nothing: {drifters}, {self.independent} independent, too few to judge by"))
            return rows
        rows.append(
            (
                "best factor",
                f"{_with(self.factor, self.factor_margin)} of the currents, "
                f"{_with(self.inverse_factor, self.inverse_factor_margin)} of the drifters",
            )
        )
        if self.lag_hours is not None:
            lag = _with(self.lag_hours, self.lag_margin, 0)
            more = " or more" if abs(self.lag_hours) >= (self.lag_reach or 0) else ""
            rows.append(("best lag", f"{lag} h{more} (+: the currents' times are too early)"))
        if self.zero_share:
            rows.append(("exactly 0", f"{100 * self.zero_share:.2g} % of the currents at the drifters"))
        return rows


_TOGETHER = {
    "encounters": ("drifter_speed", "current_speed"),
    "correlation": ("angle", "mirrored", "factor", "inverse_factor"),
    "lag_hours": ("lag_reach",),
}
"""Figures that are never given without others."""


def _with(value: float | None, margin: float | None, digits: int | None = None) -> str:
    """`value` with its margin."""
    if value is None:
        return "none"
    form = (lambda x: f"{x:.3g}") if digits is None else (lambda x: f"{x:.{digits}f}")
    return form(value) + ("" if margin is None else f" ± {form(margin)}")
