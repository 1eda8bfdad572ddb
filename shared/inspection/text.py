"""Facts about a store as text for a terminal of 100 columns. Names that come from a store are never printed raw."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from driftcal.shared.geo import latitude_text, longitude_text
from driftcal.shared.inspection.facts import Facts, Region, SampleFacts, facts
from driftcal.shared.store.agreement import Agreement
from driftcal.shared.store.manifest import Stage
from driftcal.shared.store.verify import Verdict
from driftcal.shared.text import counted, interval, size

__all__ = ["facts", "render", "render_agreement", "render_funnel", "render_sample", "render_verdict"]

WIDTH = 100
"""Columns of a page."""

MOST_DAMAGED = 50
"""Names of damaged files that are shown."""


def _box(region: Region) -> str:
    west, east, south, north = region.west, region.east, region.south, region.north
    lon = "all longitudes" if east - west > 350 else f"{longitude_text(west)} to {longitude_text(east)}"
    return f"{lon}, {latitude_text(south)} to {latitude_text(north)}"


def render(of: Facts) -> str:
    """Renders `of` as a page of text."""
    layout = of.layout
    state = "finished"
    if not of.finished:
        state = (
            f"half-built: {of.shards_done} of {layout.n_shards} shards done. Run the drift-preprocess command that "
            "makes it again: it continues."
        )
    days = (layout.n_obs - 1) * layout.obs_step / 86_400
    ratio = f", {of.ratio:.2f} : 1" if of.ratio else ""
    rows = [
        ("store", of.path),
        ("state", state),
        ("digest", of.digest or "not yet"),
        ("written by", f"driftcal {of.driftcal_version}, schema {of.schema_version}" if of.finished else "not yet"),
        ("samples", f"{of.samples_done:,}" + ("" if of.finished else f" of {layout.n_samples:,}")),
        ("drifters", f"{of.n_drifters:,}; drogue " + ", ".join(f"{k} {_count(n)}" for k, n in of.drogue.items())),
        *(
            (f"  {name}", f"{counted(n['samples'], 'sample')} of {counted(n['drifters'], 'drifter')}")
            for name, n in of.splits.items()
        ),
        ("segment", f"{layout.n_obs} fixes, one every {interval(layout.obs_step)}: {days:g} days"),
        (
            "window",
            f"{layout.n_times} levels, one every {interval(layout.time_step)}, of {layout.n_lat} x "
            f"{layout.n_lon} cells (lat x lon) of {layout.lat_step:.4g}° x {layout.lon_step:.4g}°",
        ),
        ("period", "no sample" if of.period is None else f"starts from {of.period[0]} to {of.period[1]}"),
        ("region", "no sample" if of.region is None else f"starts in {_box(of.region)}"),
        (
            "shards",
            f"{layout.n_shards:,} of {counted(layout.samples_per_shard, 'sample')}, compression {layout.compression}",
        ),
        ("size", f"{size(of.bytes_on_disk)} on disk, {size(of.bytes_decoded)} decoded{ratio}"),
        *((name.replace("_", " "), _settings(part)) for name, part in (of.twin or {}).items()),
    ]
    lines = [_clean(of.name), "=" * min(len(of.name), WIDTH), *_table(rows)]
    if of.funnel:
        lines += ["", render_funnel(of.funnel)]
    if of.agreement is not None:
        lines += ["", render_agreement(of.agreement)]
    lines += ["", "sources", *_table(list(_sources(of.sources)))]
    if of.notes:
        lines += ["", "notes", *(line for note in of.notes for line in _wrapped(f"- {note}", "  "))]
    return "\n".join(lines)


def render_sample(of: SampleFacts) -> str:
    """Renders `of` as a page of text."""
    speed = "no current at all: land" if of.current_range is None else "{:.2f} to {:.2f} m/s".format(*of.current_range)
    rows = [
        ("sample", str(of.index)),
        ("drifter", f"{of.drifter}, drogue {of.drogue}"),
        ("source", f"drifter source {of.source}, first fix at its row {of.source_row:,}"),
        ("split", of.split or "none"),
        ("status", of.status),
        ("start", f"{of.start} (to {of.end})"),
        ("origin", f"{longitude_text(of.origin[0], 4)}, {latitude_text(of.origin[1], 4)}"),
        ("window", f"{_box(of.window)} (cell centres)"),
        ("", f"{of.window_period[0]} to {of.window_period[1]}"),
        ("track", f"{of.track_km:.1f} km long, {of.net_km:.1f} km from start to end"),
        ("currents", speed),
        ("land", f"{100 * of.land_share:.1f} % of the window"),
    ]
    return "\n".join(_table(rows))


def render_verdict(of: Verdict, path: str) -> str:
    """Renders `of` in a few lines."""
    if of.ok:
        head = f"ok: {path} is whole: {counted(of.files, 'file')} and {counted(of.samples, 'sample')} checked."
    else:
        head = f"not whole: {of.problem}"
    lines = [*_wrapped(head, "  "), *(line for note in of.notes for line in _wrapped(f"note: {note}", "  "))]
    several = of.damaged if len(of.damaged) > 1 else ()  # one alone is the problem's
    for names, state in ((several, "not as the manifest lists them"), (of.unread, "not checked: cannot be read")):
        if names:
            lines.append(f"{counted(len(names), 'file')} {state}:")
            lines += [f"  {_clean(name)}" for name in names[:MOST_DAMAGED]]
            lines += ["  ... (all of them with --json)"] if len(names) > MOST_DAMAGED else []
    return "\n".join(lines)


def render_funnel(stages: Sequence[Stage]) -> str:
    """The funnel as an aligned table: one line a stage, one more for every further reason of a drop."""
    rows = [("stage", "kept", "", "dropped", "reason")]
    for stage in stages:
        reasons = [(_count(n), why) for why, n in stage.dropped.items()] or [("", "")]
        rows.append((stage.name, _count(stage.kept), stage.unit, *reasons[0]))
        rows += [("", "", "", n, why) for n, why in reasons[1:]]
    texts = [tuple(_clean(cell) for cell in row) for row in rows]
    width = [max(len(row[k]) for row in texts) for k in range(4)]
    lines = []
    for name, kept, unit, dropped, why in texts:
        head = f"{name:<{width[0]}}  {kept:>{width[1]}} {unit:<{width[2]}}  {dropped:>{width[3]}}  "
        lines += _wrapped(why, " " * len(head), head) if why else [head.rstrip()]
    return "\n".join(lines)


def render_agreement(of: Agreement) -> str:
    """The figures of currents against drifters, a line each."""
    return "\n".join(["currents against drifters (docs/agreement.md)", *_table(of.lines())])


SAID = {
    "cs": ("C_s", ""),
    "background": ("background", " m²/s"),
    "random_flight": ("random flight", ""),
    "mean_drift": ("mean drift", " m/s"),
    "inertial": ("inertial motion", ""),
    "position_error": ("position error", " m"),
    "speed": ("speed", " m/s"),
    "smooth_km": ("smoothed by", " km"),
    "shift_km": ("displaced by", " km"),
    "together": ("together", ""),
    "within_km": ("within", " km"),
}
"""Words and unit of the keys of a twin's truth."""


def _settings(part: dict[str, Any]) -> str:
    """The keys of a section of the recipe that are neither 0 nor none, with their values and units."""
    texts = []
    for key, value in part.items():
        words, unit = SAID.get(key, (key, ""))
        if isinstance(value, dict):
            texts.append(f"{words} ({_settings(value)})")
        elif isinstance(value, str) and value.removesuffix("s").isdecimal():
            texts.append(f"{words} {interval(int(value.removesuffix('s')))}")
        elif isinstance(value, list) and any(value):
            texts.append(f"{words} ({', '.join(f'{number:g}' for number in value)}){unit}, east and north")
        elif value and isinstance(value, int | float):
            texts.append(f"{words} {value:g}{unit}")
    return "; ".join(texts) or "nothing but the currents"


def _sources(sources: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A line for every source: its path, its files and their size."""
    for kind, listed in sources.items():
        for source in listed:
            n, total = source.get("files", 0), source.get("bytes", 0)
            yield kind, f"{source.get('path')} ({counted(n, 'file')}, {size(total)})"


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(key) for key, _ in rows), default=0)
    return [line for key, text in rows for line in _wrapped(text, " " * (width + 2), f"{_clean(key):<{width}}  ")]


def _wrapped(text: str, indent: str, head: str = "") -> list[str]:
    return textwrap.wrap(_clean(text), max(WIDTH, len(indent) + 20), initial_indent=head, subsequent_indent=indent) or [
        head.rstrip()
    ]


def _clean(text: str) -> str:
    """`text` without control characters: a store from elsewhere must not steer the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _count(n: int | str) -> str:
    return f"{n:,}" if isinstance(n, int) else str(n)
