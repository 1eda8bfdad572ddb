"""Settings of worlds that are not the model's: the truth of made drifters, the error of given currents, the release.

Each part of a truth is a law of motion that the calibration does not know, or an error of the observation. Lengths are
metres unless a name says kilometres; durations are whole seconds here.
"""

from typing import Annotated

from pydantic import Field, Strict, model_validator

from driftcal.shared.settings import Duration, Settings

Vector = Annotated[tuple[float, float], Strict(False)]
"""Components eastward and northward."""


class RandomFlight(Settings):
    """A velocity of its own for every drifter, which it forgets exponentially."""

    speed: float = Field(gt=0, le=5, description="root mean square of each component, m/s")
    time: Duration = Field(description="time after which the velocity's correlation has fallen to 1/e, such as `2d`")


class InertialMotion(Settings):
    """A velocity of its own for every drifter, which turns at the local inertial frequency and decays."""

    speed: float = Field(gt=0, le=5, description="root mean square of the speed of that motion, m/s")
    time: Duration = Field(description="time after which its correlation has decayed to 1/e, such as `4d`")


class Truth(Settings):
    """Everything that moves the drifters besides the currents; what is not named is not there."""

    cs: float = Field(default=0.0, ge=0, le=10, description="the true constant C_s; 0: no Smagorinsky diffusion")
    background: float = Field(default=0.0, ge=0, le=1e5, description="a constant diffusivity beside C_s κ, m²/s")
    random_flight: RandomFlight | None = Field(
        default=None, description="a velocity of each drifter's own that has a memory"
    )
    mean_drift: Vector = Field(
        default=(0.0, 0.0), description="a velocity that is the same everywhere, `[eastward, northward]`, m/s"
    )
    inertial: InertialMotion | None = Field(
        default=None, description="inertial motion: clockwise in the northern hemisphere, the other way in the southern"
    )
    position_error: float = Field(
        default=0.0,
        ge=0,
        le=1e5,
        description="standard deviation of a random error of each component of every reported position, m",
    )


class CurrentsError(Settings):
    """The error of the currents that the store is made from; the drifters move in the currents without it."""

    smooth_km: float = Field(
        default=0.0, ge=0, le=1000, description="standard deviation of a Gaussian that the currents are smoothed with"
    )
    shift_km: Vector = Field(
        default=(0.0, 0.0), description="displacement of the currents, `[eastward, northward]`; after the smoothing"
    )

    @model_validator(mode="after")
    def _some(self) -> "CurrentsError":
        if not self.smooth_km and not any(self.shift_km):
            raise ValueError(
                "expected smooth_km above 0, shift_km other than [0, 0], or both; or leave out the section"
            )
        if max(map(abs, self.shift_km)) > 1000:
            raise ValueError(f"shift_km is {list(self.shift_km)}, expected at most 1000 either way")
        return self


class Release(Settings):
    """Drifters that are released in groups."""

    together: int = Field(ge=2, description="number of drifters in a group, released at one time")
    within_km: float = Field(
        gt=0, le=500, description="diameter of the disc that they are released in, uniformly over its area"
    )
