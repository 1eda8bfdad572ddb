"""Facts about a store, or about one of its samples, as frozen values.

An unfinished store has facts too: they come from the plan and the marks in `.building`, and from the shards that are
done.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from driftcal.shared import geo
from driftcal.shared.disk import limits
from driftcal.shared.errors import StoreError
from driftcal.shared.store import manifest, schema, twin, unfinished
from driftcal.shared.store.agreement import Agreement
from driftcal.shared.store.manifest import Stage
from driftcal.shared.store.reader import ShardStore, label_of
from driftcal.shared.store.schema import Layout
from driftcal.shared.store.verify import check_sources, checked_words
from driftcal.shared.text import stamp


@dataclass(frozen=True)
class Region:
    """Ranges of lon and lat [degrees]; `east` is not less than `west`, and may lie beyond 180."""

    west: float
    east: float
    south: float
    north: float

    @classmethod
    def of(cls, lonlat: np.ndarray) -> "Region":
        """The smallest range that contains `(n, 2)` positions, across the antimeridian if that is shorter."""
        lon = np.unique(geo.wrap_longitude(lonlat[:, 0]))
        gaps = np.diff(np.append(lon, lon[0] + 360.0))
        widest = int(np.argmax(gaps))
        west = float(lon[(widest + 1) % len(lon)])
        return cls(west, west + 360.0 - float(gaps[widest]), float(lonlat[:, 1].min()), float(lonlat[:, 1].max()))


@dataclass(frozen=True)
class Facts:
    """Facts about a store. `period` is the days of the first and the last start, `None` without samples.

    In an unfinished store `funnel`, `agreement`, `digest` and the versions are unknown; sizes, splits, period, region
    and drifters are those of the shards that are done; `notes` list shards that are marked as done but have to be made
    again.
    """

    name: str
    path: str
    finished: bool
    digest: str | None
    schema_version: int | None
    driftcal_version: str | None
    layout: Layout
    shards_done: int
    samples_done: int
    bytes_on_disk: int
    bytes_decoded: int
    n_drifters: int
    splits: dict[str, dict[str, int]]
    drogue: dict[str, int]
    funnel: tuple[Stage, ...]
    agreement: Agreement | None
    period: tuple[str, str] | None
    region: Region | None
    notes: tuple[str, ...]
    sources: dict[str, Any]
    twin: dict[str, dict[str, Any]] | None
    """Truth of a twin experiment (`store.twin`); None if the drifters were not simulated."""

    @property
    def ratio(self) -> float | None:
        """Bytes decoded by bytes on disk."""
        return self.bytes_decoded / self.bytes_on_disk if self.bytes_on_disk else None

    def as_json(self) -> dict[str, Any]:
        """These facts as JSON."""
        tree = asdict(self)
        tree["funnel"] = [manifest.stage_as_json(stage) for stage in self.funnel]
        return {**tree, "n_shards": self.layout.n_shards, "ratio": self.ratio}


def facts(store: str | Path) -> Facts:
    """Facts about a store, finished or not.

    Raises:
        StoreError: there is no store, or what it says about itself is damaged.
    """
    root = Path(store)
    if not limits.kind_of(root / manifest.NAME) and limits.kind_of(unfinished.plan_of(root)):
        return _half_built(root)
    opened = ShardStore(root)
    listing = checked_words(opened.manifest)
    usable = opened.labels["status"] == 0
    size = sum(entry.size for entry in listing.files.values()) + (root / manifest.NAME).stat().st_size
    return Facts(
        name=listing.name,
        path=str(root),
        finished=True,
        digest=listing.digest,
        schema_version=listing.schema_version,
        driftcal_version=listing.driftcal_version,
        layout=listing.layout,
        shards_done=listing.layout.n_shards,
        samples_done=listing.layout.n_samples,
        bytes_on_disk=size,
        bytes_decoded=_decoded(listing.layout, listing.layout.n_samples),
        n_drifters=len(np.unique(opened.labels["drifter"][usable])),
        splits=listing.splits,
        funnel=listing.funnel,
        agreement=listing.agreement,
        notes=listing.notes,
        sources=listing.sources,
        twin=twin.truth(listing.recipe),
        **_extent(opened.labels),
    )


def _half_built(root: Path) -> Facts:
    """Facts about a store whose manifest is not written yet."""
    begun = unfinished.read_begun(root)
    layout = begun.layout
    if not isinstance(begun.recipe.get("name"), str):
        raise StoreError(f"{unfinished.plan_of(root)}: its recipe has no name: damaged. {_AFRESH}")
    check_sources(begun.sources, unfinished.plan_of(root))
    marks, notes = {}, []
    for shard in unfinished.marked(root):
        if shard < layout.n_shards:
            try:
                marks[shard] = unfinished.read_mark(root, layout, shard)
            except StoreError as error:  # as the writer, which goes on without it
                notes.append(str(error))
    size = sum(entry.size for mark in marks.values() for entry in mark.files.values())
    drifters = {k: {d for mark in marks.values() for d in mark.drifters[k]} for k in schema.SPLITS}
    counts = {k: sum(mark.samples[k] for mark in marks.values()) for k in schema.SPLITS}
    done = sum(len(layout.samples_of(shard)) for shard in marks)
    labels = {name: _labels(root, layout, name, list(marks)) for name in ("origin", "start_time", "drogue", "status")}
    return Facts(
        name=begun.recipe["name"],
        path=str(root),
        finished=False,
        digest=None,
        schema_version=None,
        driftcal_version=None,
        layout=layout,
        shards_done=len(marks),
        samples_done=done,
        bytes_on_disk=size,
        bytes_decoded=_decoded(layout, done),
        n_drifters=len(set().union(*drifters.values())),
        splits={k: {"samples": counts[k], "drifters": len(drifters[k])} for k in schema.SPLITS if counts[k]},
        funnel=(),
        agreement=None,
        notes=tuple(notes),
        sources=begun.sources,
        twin=twin.truth(begun.recipe),
        **_extent(labels),
    )


def _labels(root: Path, layout: Layout, name: str, done: Sequence[int]) -> np.ndarray:
    """One label of the shards that are done; there is no manifest yet to read them by."""
    spec = next(spec for spec in schema.arrays(layout) if spec.name == name)
    parts = [np.empty((0, *spec.inner_shape), spec.dtype)]
    for shard in done:
        path = root / spec.file_of(shard)
        try:
            raw = np.frombuffer(path.read_bytes(), np.uint8)
        except (OSError, MemoryError) as error:
            if limits.concerns(error):
                raise limits.refused(f"cannot read {path}, marked as done", error, "the shard") from error
            raise StoreError(
                f"cannot read {path}, marked as done: {getattr(error, 'strerror', error)}. {_AGAIN}"
            ) from error
        try:
            parts.append(label_of(raw, spec, layout, shard, str(path)))
        except StoreError as error:
            raise StoreError(f"{path}: marked as done, but damaged. {_AGAIN}") from error
    return np.concatenate(parts)


_AFRESH = "Make the store afresh with drift-preprocess --overwrite."
_AGAIN = "Delete it and run the drift-preprocess command that makes the store again: it makes this shard again."


def _decoded(layout: Layout, n_samples: int) -> int:
    return n_samples * sum(spec.sample_bytes for spec in schema.arrays(layout))


def _extent(labels: dict[str, np.ndarray]) -> dict[str, Any]:
    """Period, region and drogues of the samples that `labels` hold."""
    start = labels["start_time"]
    usable = labels["status"] == 0
    drogue = {k: int(np.sum(labels["drogue"][usable] == code)) for k, code in schema.DROGUE.items()}
    if not len(start):
        return {"period": None, "region": None, "drogue": drogue}
    period = (iso(int(start.min()))[:10], iso(int(start.max()))[:10])
    return {"period": period, "region": Region.of(labels["origin"]), "drogue": drogue}


def iso(seconds: int) -> str:
    """UTC date and time of seconds since 1970-01-01."""
    return f"{stamp(seconds)}Z"


@dataclass(frozen=True)
class SampleFacts:
    """Facts about one sample. Currents are over the whole window; speeds are `None` if it is all land."""

    index: int
    drifter: str
    split: str | None
    drogue: str
    status: str
    source: int
    source_row: int
    start: str
    end: str
    origin: tuple[float, float]
    window: Region
    window_period: tuple[str, str]
    track_km: float
    net_km: float
    current_range: tuple[float, float] | None
    land_share: float

    def as_json(self) -> dict[str, Any]:
        """These facts as JSON."""
        return asdict(self)


def sample(opened: ShardStore, index: int) -> SampleFacts:
    """Facts of the sample `index`.

    Raises:
        StoreError: there is no such sample, or its data are damaged.
    """
    if not 0 <= index < len(opened):
        extent = f"its samples are 0 to {len(opened) - 1}" if len(opened) else "it holds no sample"
        raise StoreError(f"{opened.root}: no sample {index}; {extent}. `drift-inspect show` tells how many there are.")
    layout = opened.layout
    label = {name: values[index].tolist() for name, values in opened.labels.items()}
    current, lonlat = currents(opened, index), track(opened, index)
    speed = np.hypot(current[0], current[1])
    sea = np.isfinite(speed)
    west, south = label["window_corner"]
    last = label["window_time"] + (layout.n_times - 1) * layout.time_step
    return SampleFacts(
        index=index,
        drifter=opened.drifters[label["drifter"]],
        split=dict(enumerate(schema.SPLITS)).get(label["split"]),
        drogue={code: name for name, code in schema.DROGUE.items()}.get(label["drogue"], "unknown"),
        status=dict(enumerate(schema.STATUS)).get(label["status"], "unknown"),
        source=label["source"],
        source_row=label["source_row"],
        start=iso(label["start_time"]),
        end=iso(label["start_time"] + (layout.n_obs - 1) * layout.obs_step),
        origin=(label["origin"][0], label["origin"][1]),
        window=Region(
            west, west + (layout.n_lon - 1) * layout.lon_step, south, south + (layout.n_lat - 1) * layout.lat_step
        ),
        window_period=(iso(label["window_time"]), iso(last)),
        track_km=float(geo.separation(lonlat[1:], lonlat[:-1]).sum()) / 1e3,
        net_km=float(geo.separation(lonlat[-1], lonlat[0])) / 1e3,
        current_range=(float(speed[sea].min()), float(speed[sea].max())) if sea.any() else None,
        land_share=float(1.0 - sea.any(axis=0).mean()),
    )


def currents(opened: ShardStore, index: int) -> np.ndarray:
    """Currents [m/s] of the sample `index`, `(2, time, lat, lon)`, NaN where there are none."""
    counts = opened.currents.read([index])[0]
    return np.where(counts == schema.FILL, np.nan, counts * schema.SCALE)


def track(opened: ShardStore, index: int) -> np.ndarray:
    """Fixes (lon, lat) [degrees] of the sample `index`, `(obs, 2)`, continuous with its window's corner."""
    return opened.labels["origin"][index] + opened.positions.read([index])[0].astype(np.float64)
