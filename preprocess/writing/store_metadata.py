"""The small files of a store: zarr's metadata, the drifters' names, the manifest; and the largest size of all files."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from driftcal.preprocess.drift import advice
from driftcal.preprocess.recipe import Recipe
from driftcal.preprocess.sources.gridded.remarks import longest
from driftcal.preprocess.writing.build import Build
from driftcal.shared.store import files as store_files
from driftcal.shared.store import manifest, schema, shard_bytes
from driftcal.shared.store.manifest import FileEntry, Manifest, Stage


def trees(build: Build) -> dict[str, Any]:
    """The files beside the shards and the manifest, as JSON by their names."""
    layout = build.plan.layout
    contents: dict[str, Any] = {
        store_files.metadata_of(spec): shard_bytes.metadata(
            spec, layout.n_samples, layout.samples_per_shard, layout.compression
        )
        for spec in schema.arrays(layout)
    }
    contents[store_files.GROUP] = _group(build.recipe)
    contents[store_files.DRIFTERS] = {"drifters": build.drifters}
    return contents


def manifest_of(
    build: Build,
    files: dict[str, FileEntry],
    kept: int,
    dropped: dict[str, int],
    splits: dict[str, dict[str, int]],
    remarks: Sequence[str],
) -> Manifest:
    """The manifest of the store.

    Args:
        build: The store that was made.
        files: All of its files.
        kept: Number of usable samples.
        dropped: Number of the others, by reason.
        splits: Number of samples and of drifters of each split that is wanted.
        remarks: Oddities of the levels of currents.
    """
    last = Stage("samples", "samples", kept, dropped)
    return Manifest(
        name=build.recipe.name,
        layout=build.plan.layout,
        files=files,
        recipe=build.facts["recipe"],
        sources=build.sources,
        funnel=(*build.plan.funnel, last),
        splits=splits,
        notes=(*build.notes, *remarks, *advice.of_samples(last)),
        driftcal_version=version("driftcal"),
        agreement=build.agreement,
    )


def bytes_at_most(build: Build) -> int:
    """Size [bytes] of all files of the store if nothing in it can be compressed."""
    layout = build.plan.layout
    n, per_shard = layout.n_samples, layout.samples_per_shard
    files = {name: FileEntry(len(manifest.to_bytes(tree)), "0" * 64) for name, tree in trees(build).items()}
    overhead = 0 if layout.compression == "none" else shard_bytes.OVERHEAD
    for spec in schema.arrays(layout):
        for shard in range(layout.n_shards):
            samples = layout.samples_of(shard)
            size = len(samples) * (spec.sample_bytes + overhead) + 16 * per_shard + 4  # chunks and their index
            if not spec.sharded:
                size = per_shard * spec.sample_bytes + 4
            files[spec.file_of(shard)] = FileEntry(size, "0" * 64, (samples.start, samples.stop))
    splits = {name: {"samples": n, "drifters": len(build.drifters)} for name in schema.SPLITS}
    # as long as it can be: both reasons, and a warning of the one with the longer text
    remarks = [note for source in build.currents for note in longest(source.where)]
    most = manifest_of(build, files, n, {schema.STATUS[1]: 10 * n, schema.STATUS[2]: n}, splits, remarks)
    return sum(entry.size for entry in files.values()) + len(manifest.to_bytes(most.as_json()))


def _group(recipe: Recipe) -> dict[str, Any]:
    attributes = {
        "title": f"driftcal shard store: {recipe.name}",
        "schema_version": schema.VERSION,
        "splits": list(schema.SPLITS),
        "conventions": "axes (time, lat, lon) ascending; positions (lon, lat) in degrees; seconds since 1970-01-01",
    }
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}
