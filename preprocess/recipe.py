"""The recipe of a store, as `data_manifest.yaml` gives it: drifters, currents, window and split.

Durations are whole seconds here (`1h` in the file is 3600); angles are degrees.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fsspec import available_protocols
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    Strict,
    model_serializer,
    model_validator,
)

from driftcal.preprocess.sources import times
from driftcal.preprocess.sources.units import angle_factor, speed_factor
from driftcal.preprocess.truth import CurrentsError, Release, Truth
from driftcal.shared import paths
from driftcal.shared.errors import DataError
from driftcal.shared.settings import Duration, Settings, Shift, seconds_of

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

    path: SourcePath = Field(
        description="NetCDF, zarr, Parquet or csv: a file, a glob or an fsspec URL "
        "([inputs.md](inputs.md#drifter-files))"
    )
    variables: dict[Literal["id", "time", "lat", "lon", "rowsize", "gap", "drogue", "drogue_lost_date"], str] = Field(
        default={},
        description="the file's names for `id`, `time`, `lat`, `lon`, `rowsize`, `gap`, `drogue` and "
        "`drogue_lost_date`, where the built-in aliases do not find them",
    )
    time_units: Annotated[str | None, BeforeValidator(_time_units)] = Field(
        default=None,
        description="units of times that are plain numbers, such as `seconds since 1970-01-01`, where the file does "
        "not give them",
    )
    id_per_file: bool = Field(
        default=False, description="every file numbers its drifters anew: an id becomes `file/id`"
    )
    clock_tolerance: Annotated[
        int, BeforeValidator(_duration_or_none), PlainSerializer(lambda s: f"{s}s", when_used="json")
    ] = Field(
        default=DEFAULT_TOLERANCE,
        description="fixes off a regular clock are interpolated to it if they are no further from it than this; `0` "
        "interpolates none ([inputs.md](inputs.md#clocks))",
    )
    drogue: Annotated[Literal["on", "lost", "any"], BeforeValidator(_on)] = Field(
        default="on",
        description="fixes to keep: `on` drogued, `lost` undrogued, `any` all. Fixes whose drogue is in an unknown "
        "state are dropped unless `any`; a source without any drogue information is kept, with a note",
    )
    max_gap: Duration = Field(
        default=DAY // 2,
        description="fixes interpolated across a longer gap between satellite fixes (GDP's `gap`) are dropped",
    )
    max_speed: float = Field(
        default=3.0,
        gt=0,
        description="m/s; a faster step breaks the track. A warning is printed if more than 5 % of the fixes are lost: "
        "leaving out fast drifters biases the constant low",
    )
    absent_chunks: Literal["refuse", "fill"] = Field(
        default="refuse",
        description="what to do about chunks of positions and times that a zarr store lacks: `refuse` them as an "
        "unfinished copy, or `fill` them with the fill value, for which zarr leaves chunks out",
    )


CurrentRole = Literal["u", "v", "time", "lat", "lon"]


class Place(Settings):
    """A place on a dimension by its number, for dimensions without a coordinate."""

    index: int = Field(ge=0, description="number along the dimension, counted from 0")


def _units(value: Any) -> Any:
    return dict.fromkeys(("u", "v"), value) if isinstance(value, str) else value


class CurrentSource(Settings):
    """One source of currents: a NetCDF file, a glob of daily files, a zarr store or an fsspec URL."""

    path: SourcePath = Field(description="NetCDF or zarr: a file, a glob or an fsspec URL")
    variables: dict[CurrentRole, str] = Field(
        default={}, description="the file's names for `u`, `v`, `time`, `lat` and `lon` ([inputs.md](inputs.md#names))"
    )
    units: Annotated[dict[CurrentRole, Annotated[str, Field(min_length=1)]], BeforeValidator(_units)] = Field(
        default={},
        description="what the file's attributes should say: `cm/s` for `u` and `v`, or by role, "
        "`{v: cm/s, lon: degrees_west}` ([inputs.md](inputs.md#units))",
    )
    time_shift: Shift | None = Field(
        default=None,
        description="added to all times: `12h` where daily means are stamped at the start of their day, `-12h` at its "
        "end; `0h`: the stamps are right. Bounds are then not read ([inputs.md](inputs.md#times))",
    )
    select: dict[str, int | float | str | Place] = Field(
        default={},
        description="the coordinate to take of any further dimension, such as `{depth: 15}`, or its number, "
        "`{lev: {index: 3}}` ([inputs.md](inputs.md#depth-and-members))",
    )
    always_zero: Literal["u", "v"] | None = Field(
        default=None,
        description="`u` or `v`: the component that is meant to be 0 everywhere, as in a made flow along one axis; "
        "otherwise exact zeros over the sea count as missing ([inputs.md](inputs.md#exact-zeros))",
    )
    frozen: bool = Field(
        default=False,
        description="take a record of a single time as constant: for climatologies and tests, never to measure skill",
    )

    @model_validator(mode="after")
    def _known_units(self) -> "CurrentSource":
        for role, units in self.units.items():
            try:
                if role in ("lat", "lon"):
                    factor = angle_factor(units, role, role)
                else:
                    factor = role == "time" or speed_factor(units, role)
            except DataError:
                factor = None
            if not factor:
                expected = "degrees, degrees_west or radians" if role in ("lat", "lon") else "m/s, cm/s, km/h or knots"
                raise ValueError(f"units of {role} are {units!r}; expected such as {expected}")
        return self


class Segment(Settings):
    """The segments that tracks are cut into: `days` long at a regular `step`, a new one every `stride_days`."""

    days: float = Field(default=5.0, gt=0, le=60, description="length of a segment in days, at most 60")
    step: Duration = Field(
        default=3600, description="the drifters' own time step (`6h` for the 6-hourly product), or a longer one"
    )
    stride_days: float | None = Field(
        default=None,
        gt=0,
        description="days from the start of one segment of a track to the start of the next; none: `segment.days`",
    )

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
    """The window of currents that is cut around a segment."""

    half_width_deg: float = Field(
        default=2.5,
        gt=0,
        le=10,
        description="half the window's height in degrees of latitude, at most 10; it covers the same distance east and "
        "west",
    )
    max_leaving: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="largest share of tracks that may be dropped because they leave their window; more is refused, "
        "since dropping the fast ones biases C_s low: 5 % by about 3 %, 1 % by less than 1 %",
    )
    max_latitude: float = Field(
        default=60.0,
        gt=0,
        lt=85,
        description="segments centred poleward of this latitude are dropped; the window is wide enough in longitude "
        "up to there",
    )


class Split(Settings):
    """Fractions of drifters for training, validation and test; a fraction of 0 means that there is no such split."""

    train: float = Field(default=0.8, ge=0, le=1, description="share of the drifters that the constant is fitted to")
    validation: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the drifters on which a run is evaluated when it ends; 0: no such split",
    )
    test: float = Field(
        default=0.1, ge=0, le=1, description="share of the drifters kept for the final evaluation; 0: no such split"
    )
    seed: int = Field(
        default=0, ge=0, description="of the hash that splits by drifter, and of the order of samples within shards"
    )

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Split":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + validation + test is {total:g}, expected 1")
        return self


class Period(Settings):
    """The dates kept: segments that start in [start, end)."""

    start: Day | None = Field(default=None, description="keep segments that start at this date or later, UTC")
    end: Day | None = Field(default=None, description="keep segments that start before this date, UTC")

    @model_validator(mode="after")
    def _in_order(self) -> "Period":
        if self.start and self.end and np.datetime64(self.start, "s") >= np.datetime64(self.end, "s"):
            raise ValueError(f"start ({self.start}) is not before end ({self.end})")
        return self


class StoreLayout(Settings):
    """The division of the store into files."""

    compression: Literal["lz4", "none"] = Field(default="lz4", description="`lz4` or `none`")
    samples_per_shard: int = Field(default=2048, ge=1, le=65_536, description="number of samples in a file")


class Synthetic(Settings):
    """A twin experiment: drifters simulated with a known constant, written as real products are.

    Without `currents` an eddying field is made as well; with it the drifters are simulated in those currents.
    """

    folder: Annotated[str, AfterValidator(_on_this_machine)] = Field(
        description="where the made files go: `drifters.nc`, and `currents/*.nc` if currents are made too"
    )
    cs: float = Field(
        default=0.3,
        gt=0,
        le=10,
        description="the true constant C_s of drifters that obey the model; that of others is `truth.cs`",
    )
    truth: Truth | None = Field(
        default=None,
        description="drifters that obey another law than the model "
        "([below](#worlds-that-are-not-the-models)); none: Smagorinsky diffusion with `cs`",
    )
    seed: int = Field(default=0, ge=0, description="of the field, the deployments and the noise")
    drifters: int = Field(default=300, ge=1, description="number of drifters")
    drifter_days: float = Field(default=60.0, gt=0, description="lifetime of each drifter, in days")
    release: Release | None = Field(
        default=None, description="drifters released in groups; none: each at a time and a place of its own"
    )
    step: Duration = Field(
        default=600, description="time step of the independent Euler-Maruyama integrator; must divide an hour"
    )
    clean: bool = Field(
        default=False,
        description="no lost drogues, gaps or groundings: for studies of the estimator alone",
    )
    currents: CurrentSource | None = Field(
        default=None,
        description="a source of currents to simulate in, with the keys of `currents` above; none: an eddying field "
        "is made from the keys below",
    )
    currents_error: CurrentsError | None = Field(
        default=None,
        description="an error of the currents that the store is made from, in `folder/currents/*.nc`; the drifters "
        "move in the currents without it",
    )
    days: int = Field(default=365, ge=10, description="length of the made record of currents, at least 10")
    start: Day = Field(default="2010-01-01", description="first day of that record")
    resolution_deg: float = Field(default=0.25, gt=0, le=1, description="its grid spacing in degrees, at most 1")
    lon: Annotated[tuple[float, float], Strict(False)] = Field(
        default=(160.0, 200.0), description="its western and eastern edges; beyond 180 it crosses the antimeridian"
    )
    lat: Annotated[tuple[float, float], Strict(False)] = Field(
        default=(20.0, 45.0), description="its southern and northern edges"
    )

    @model_validator(mode="after")
    def _one_constant(self) -> "Synthetic":
        if self.truth is not None and "cs" in self.model_fields_set:
            raise ValueError(
                f"cs ({self.cs:g}) and truth are both given, and the truth has a constant of its own. Write the "
                f"constant as synthetic.truth.cs and leave out synthetic.cs"
            )
        if self.currents_error is not None and self.currents is not None and self.erroneous(self.currents):
            raise ValueError(
                f"currents_error is written to {self.place / 'currents'}, where the currents themselves lie. Give "
                f"synthetic.folder another name"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        # A manifest that asks for nothing of this keeps the bytes that it had before there was any of it.
        absent = {name for name in ("truth", "release", "currents_error") if getattr(self, name) is None}
        absent |= set() if self.truth is None else {"cs"}
        return {name: value for name, value in handler(self).items() if name not in absent}

    def erroneous(self, source: CurrentSource) -> bool:
        """True if `source` lies where currents with an error are written."""
        return Path(source.path).expanduser().absolute().parent == (self.place / "currents").absolute()

    @property
    def world(self) -> Truth:
        """The truth, named or not."""
        return Truth(cs=self.cs) if self.truth is None else self.truth

    @property
    def place(self) -> Path:
        """The folder itself."""
        return Path(paths.local(self.folder))


class Recipe(Settings):
    """The whole manifest."""

    name: str = Field(default="driftcal", min_length=1, max_length=200, description="title of the store and the report")
    drifters: Annotated[list[DrifterSource], BeforeValidator(_as_list)] = Field(
        min_length=1, max_length=127, description="one source of drifters, or a list of them"
    )
    currents: Annotated[list[CurrentSource], BeforeValidator(_as_list)] = Field(
        min_length=1,
        max_length=127,
        description="one source of currents, or a list of them, all with the same grid spacing and time step; a "
        "segment takes the first one that covers its window",
    )
    segment: Segment = Field(default=Segment(), description="how tracks are cut into segments")
    window: Window = Field(default=Window(), description="how much of the currents is stored around a segment")
    split: Split = Field(default=Split(), description="which drifters train, validate and test; the shares sum to 1")
    period: Period = Field(default=Period(), description="which dates are kept")
    store: StoreLayout = Field(default=StoreLayout(), description="how the store is cut into files")
    synthetic: Synthetic | None = Field(
        default=None, description="makes a twin experiment first, with a known constant"
    )

    @model_validator(mode="after")
    def _erroneous_currents_are_read(self) -> "Recipe":
        twin = self.synthetic
        if twin is not None and twin.currents_error is not None and not any(map(twin.erroneous, self.currents)):
            path = twin.place / "currents" / "*.nc"
            raise ValueError(
                f"synthetic.currents_error concerns the currents in {path}, which no source reads: the error would "
                f"have no effect. Write currents: {{path: '{path}'}}"
            )
        return self
