"""What `data_manifest.yaml` says: which drifters, which currents, which window, which split.

Durations are whole seconds here (`1h` in the file is 3600); angles are degrees.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from driftcal.preprocess.sources import times
from driftcal.preprocess.sources.units import angle_factor, speed_factor
from driftcal.shared import paths
from driftcal.shared.errors import DataError
from driftcal.shared.settings import Duration, Settings, Shift, seconds_of
from fsspec import available_protocols
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, Strict, model_validator

DAY = 86_400
"""Seconds in a day."""

DEFAULT_TOLERANCE = 600
"""Greatest time [s] from a regular clock to the fix that a position is interpolated from, if the manifest says none."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _day(value: Any) -> str:
    text = re.sub(r"(Z|[+]00:00)$", "", str(value))  # YAML makes a datetime of a time
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?)?", text):
            raise ValueError(text)
        np.datetime64(text, "s")
    except ValueError as error:
        raise ValueError("expected a date such as 2010-01-31, in UTC") from error
    return text


Day = Annotated[str, BeforeValidator(_day)]


def _on(value: Any) -> Any:
    return "on" if value is True else value  # what YAML 1.1 makes of a bare `on`


def _on_this_machine(text: str) -> str:
    paths.local(text)
    return text


def _nameable(text: str) -> str:
    if "\0" in text:
        raise ValueError("expected a path, a glob or a URL, and it holds a NUL character. Remove it")
    scheme, colon, rest = text.partition(":/")
    if colon and not rest.startswith("/") and scheme in available_protocols() and not Path(f"{scheme}:").exists():
        raise ValueError(f"a URL has two slashes. Write {scheme}://{rest}")
    return text


SourcePath = Annotated[str, Field(min_length=1), AfterValidator(_nameable)]
"""A path, a glob or a URL of a source."""


def _time_units(value: Any) -> Any:
    if value is not None:
        try:
            times.seconds(np.zeros(1), {"units": value}, "drifters.time_units")
        except (DataError, TypeError) as error:
            raise ValueError("expected units such as 'seconds since 1970-01-01'") from error
    return value


def _duration_or_none(value: Any) -> Any:
    return 0 if value in (0, "0", "0s") and not isinstance(value, bool) else seconds_of(value)


class DrifterSource(Settings):
    """One source of drifters: NetCDF, zarr, Parquet or csv; local path, glob or fsspec URL."""

    path: SourcePath
    variables: dict[Literal["id", "time", "lat", "lon", "rowsize", "gap", "drogue", "drogue_lost_date"], str] = {}
    """Names in the file for the roles that the alias table cannot resolve."""
    time_units: Annotated[str | None, BeforeValidator(_time_units)] = None
    """Units of times that are numbers, such as `seconds since 1970-01-01`, where the file does not tell them."""
    id_per_file: bool = False
    """Whether every file numbers its drifters anew: an id becomes `file/id`, with the file's name before it."""
    clock_tolerance: Annotated[
        int, BeforeValidator(_duration_or_none), PlainSerializer(lambda s: f"{s}s", when_used="json")
    ] = DEFAULT_TOLERANCE
    """Fixes at most this far [s] from a regular clock are interpolated to it; 0 interpolates none."""
    drogue: Annotated[Literal["on", "lost", "any"], BeforeValidator(_on)] = "on"
    """Which fixes are kept: drogued, undrogued, or all. A source that does not tell at all is kept, and said so."""
    max_gap: Duration = DAY // 2
    """Fixes interpolated across a longer gap between satellite fixes are dropped (GDP variable `gap`)."""
    max_speed: float = Field(default=3.0, gt=0)
    """A step faster than this [m/s] breaks the track."""
    absent_chunks: Literal["refuse", "fill"] = "refuse"
    """What chunks of positions and times are that a zarr store lacks: an unfinished copy, or the fill value, with
    which zarr leaves them out."""


CurrentRole = Literal["u", "v", "time", "lat", "lon"]


class Place(Settings):
    """A place on a dimension by its number, for dimensions without a coordinate."""

    index: int = Field(ge=0)


def _units(value: Any) -> Any:
    return dict.fromkeys(("u", "v"), value) if isinstance(value, str) else value


class CurrentSource(Settings):
    """One source of currents: a NetCDF file, a glob of daily files, a zarr store or an fsspec URL."""

    path: SourcePath
    variables: dict[CurrentRole, str] = {}
    units: Annotated[dict[CurrentRole, Annotated[str, Field(min_length=1)]], BeforeValidator(_units)] = {}
    """Units by role, where those in the files are wrong or lacking; a text is those of u and v."""
    time_shift: Shift | None = None
    """Added to all times, where levels are stamped at the start or end of what they average; 0 states that the stamps
    are right. Bounds are not read then."""
    select: dict[str, int | float | str | Place] = {}
    """Which value of an extra dimension (depth, member) to take, by its coordinate or as `{index: 0}`."""
    always_zero: Literal["u", "v"] | None = None
    """A component that is meant to be 0 in the whole record, as in made flows along one axis. Without it exact zeros
    over all of the sea are missing data."""
    frozen: bool = False
    """Take a record of a single time as constant: for climatologies and tests, never for skill."""

    @model_validator(mode="after")
    def _known_units(self) -> "CurrentSource":
        for role, units in self.units.items():
            try:
                if role in ("lat", "lon"):
                    known = angle_factor(units, role, role)
                else:
                    known = role == "time" or speed_factor(units, role)
            except DataError:
                known = None
            if not known:
                expected = "degrees, degrees_west or radians" if role in ("lat", "lon") else "m/s, cm/s, km/h or knots"
                raise ValueError(f"units of {role} are {units!r}; expected such as {expected}")
        return self


class Segment(Settings):
    """How tracks are cut: `days` long at a regular `step`, a new one every `stride_days`."""

    days: float = Field(default=5.0, gt=0, le=60)
    step: Duration = 3600
    stride_days: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _whole_steps(self) -> "Segment":
        for name, days in (("days", self.days), ("stride_days", self.stride_days)):
            if days is not None and abs(days * DAY / self.step - round(days * DAY / self.step)) > 1e-9:
                raise ValueError(f"{name} ({days:g}) is not a whole number of steps of {self.step} s")
        if self.n_steps < 2:
            raise ValueError(f"days ({self.days:g}) holds fewer than two steps of {self.step} s")
        return self

    @property
    def n_steps(self) -> int:
        """Number of steps in a segment."""
        return round(self.days * DAY / self.step)

    @property
    def n_obs(self) -> int:
        """Number of fixes in a segment, both ends included."""
        return self.n_steps + 1

    @property
    def stride(self) -> int:
        """Fixes between the starts of neighbouring segments of one track."""
        return round((self.stride_days or self.days) * DAY / self.step)


class Window(Settings):
    """How much of the currents is cut around a segment."""

    half_width_deg: float = Field(default=2.5, gt=0, le=10)
    """Half the window's height [degrees of latitude]; its half width covers the same distance in longitude."""
    max_leaving: float = Field(default=0.05, ge=0, le=1)
    """Largest share of tracks that may be dropped because they leave their window: those are the fast ones, and
    without them the constant comes out low."""
    max_latitude: float = Field(default=60.0, gt=0, lt=85)
    """The window is made wide enough [degrees of longitude] for this latitude at most; beyond it samples drop."""


class Split(Settings):
    """Which drifters train, validate and test; a fraction of 0 means that there is no such split."""

    train: float = Field(default=0.8, ge=0, le=1)
    validation: float = Field(default=0.1, ge=0, le=1)
    test: float = Field(default=0.1, ge=0, le=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Split":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + validation + test is {total:g}, expected 1")
        return self


class Period(Settings):
    """The dates kept: segments that start in [start, end)."""

    start: Day | None = None
    end: Day | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "Period":
        if self.start and self.end and np.datetime64(self.start, "s") >= np.datetime64(self.end, "s"):
            raise ValueError(f"start ({self.start}) is not before end ({self.end})")
        return self


class StoreLayout(Settings):
    """How the store is cut into files."""

    compression: Literal["lz4", "none"] = "lz4"
    samples_per_shard: int = Field(default=2048, ge=1, le=65_536)


class Synthetic(Settings):
    """A twin experiment: drifters simulated with a known constant, written as real products are.

    Without `currents` an eddying field is made as well; with it the drifters are simulated in those currents.
    """

    folder: Annotated[str, AfterValidator(_on_this_machine)]
    """Where the made files go, as it was written: `drifters.nc`, and `currents/*.nc` where they are made."""
    cs: float = Field(default=0.3, gt=0, le=10)
    """The true Smagorinsky constant C_s."""
    seed: int = Field(default=0, ge=0)
    drifters: int = Field(default=300, ge=1)
    drifter_days: float = Field(default=60.0, gt=0)
    """How long each drifter lives [days]."""
    step: Duration = 600
    """Step of the independent Euler-Maruyama integrator."""
    clean: bool = False
    """No lost drogues, gaps or groundings: for studies of the estimator alone."""
    currents: CurrentSource | None = None
    days: int = Field(default=365, ge=10)
    """Length of the made record of currents."""
    start: Day = "2010-01-01"
    resolution_deg: float = Field(default=0.25, gt=0, le=1)
    lon: Annotated[tuple[float, float], Strict(False)] = (160.0, 200.0)
    """West and east edge of the made currents; 180 inside means that the antimeridian is crossed."""
    lat: Annotated[tuple[float, float], Strict(False)] = (20.0, 45.0)

    @property
    def place(self) -> Path:
        """The folder itself."""
        return Path(paths.local(self.folder))


class Recipe(Settings):
    """The whole manifest."""

    name: str = Field(default="driftcal", min_length=1, max_length=200)
    drifters: Annotated[list[DrifterSource], BeforeValidator(_as_list)] = Field(min_length=1, max_length=127)
    currents: Annotated[list[CurrentSource], BeforeValidator(_as_list)] = Field(min_length=1, max_length=127)
    segment: Segment = Segment()
    window: Window = Window()
    split: Split = Split()
    period: Period = Period()
    store: StoreLayout = StoreLayout()
    synthetic: Synthetic | None = None
