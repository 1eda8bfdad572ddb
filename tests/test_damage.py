"""No damage to a store, and no forgery, is ever read as data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from driftcal.shared.errors import StoreError
from driftcal.shared.store import manifest, schema, shard_bytes
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.verify import verify
from tests import stores

BOTH = pytest.mark.parametrize("compression", ["lz4", "none"])


# Damage


KINDS = ("manifest.json", "zarr.json", "drifters.json", "currents/zarr.json", "currents/c/1/0/0/0/0",
         "positions/c/0/0/0", "origin/c/2/0", "start_time/c/0", "split/c/1")  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", KINDS)
def test_every_flipped_bit_is_found(copy: Callable, compression: str, name: str) -> None:
    built = copy(compression)
    path = built.path / name
    whole = path.read_bytes()
    rng = np.random.default_rng([len(name), len(whole)])
    for bit in rng.integers(0, 8 * len(whole), 8).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        verdict = verify(built.path)
        assert not verdict.ok, f"bit {bit} of {name}"
        assert verdict.problem is not None
        assert _names(verdict.problem, name), verdict.problem
    path.write_bytes(whole)
    assert verify(built.path).ok


@pytest.mark.faults
@BOTH
def test_a_thousand_flipped_bits_are_found(copy: Callable, compression: str) -> None:
    """In every file in turn: all found by `verify`, all refused when the store is read."""
    built = copy(compression)
    paths = sorted(path for path in built.path.rglob("*") if path.is_file())
    rng = np.random.default_rng(6)
    for count in range(1000):
        path = paths[count % len(paths)]
        whole = path.read_bytes()
        flipped = bytearray(whole)
        bit = int(rng.integers(8 * len(whole)))
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert not verify(built.path).ok, f"bit {bit} of {path}"
        with pytest.raises(StoreError, match=str(built.path)):
            stores.read_all(built.path)
        path.write_bytes(whole)
    assert verify(built.path).ok
    stores.read_all(built.path)


def _names(problem: str, name: str) -> bool:
    """Whether the message names the file, or its array and shard."""
    parts = name.split("/")
    shard = f"shard {parts[2]}" if len(parts) > 2 else parts[-1]
    return name in problem or (parts[0] in problem and shard in problem) or name == "manifest.json"


@BOTH
@pytest.mark.parametrize("name", KINDS)
def test_flipped_bits_are_never_read(copy: Callable, compression: str, name: str) -> None:
    built = copy(compression)
    path = built.path / name
    whole = path.read_bytes()
    for bit in np.random.default_rng(3).integers(0, 8 * len(whole), 12).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(StoreError, match=name.partition("/")[0] if name != "manifest.json" else str(built.path)):
            stores.read_all(built.path)


@BOTH
@pytest.mark.parametrize("names", [("window_corner/c/0/0", "window_corner/c/1/0"), ("drifter/c/0", "drifter/c/1")])
def test_swapped_labels_are_never_read(copy: Callable, compression: str, names: tuple[str, str]) -> None:
    """Each is whole, and of the right size: only the manifest tells that they have changed places."""
    built = copy(compression)
    one, other = (built.path / name for name in names)
    _damage(one, other, "swapped")
    with pytest.raises(StoreError, match=f"{names[0]}: its content does not match its sha256"):
        ShardStore(built.path)


@BOTH
@pytest.mark.parametrize("name", ["source_row/c/1", "drifters.json"])
def test_labels_of_another_store_are_never_read(
    copy: Callable, tmp_path: Path, compression: schema.Compression, name: str
) -> None:
    built = copy(compression)

    def number(values: dict[str, np.ndarray]) -> None:
        values["source_row"][:] += 1

    foreign = stores.build(tmp_path / "foreign", compression=compression, change=number)
    (foreign.path / "drifters.json").write_bytes(
        (foreign.path / "drifters.json").read_bytes().replace(b"300234060", b"300234999")
    )
    shutil.copyfile(foreign.path / name, built.path / name)
    with pytest.raises(StoreError, match=f"{name}: its content does not match its sha256"):
        ShardStore(built.path)


@BOTH
@pytest.mark.parametrize("name", ["currents/c/1/0/0/0/0", "positions/c/1/0/0"])
def test_shards_of_another_store_are_never_read(
    copy: Callable, tmp_path: Path, compression: schema.Compression, name: str
) -> None:
    """Of the same layout, and whole: only the checksums in this store's labels tell."""
    built = copy(compression)
    foreign = stores.build(tmp_path / "foreign", compression=compression, seed=5)
    content = (foreign.path / name).read_bytes()
    (built.path / name).write_bytes(content)
    # as large as the right one, which the size in the manifest would tell from it otherwise
    stores.rewrite(built.path, lambda tree: tree["files"][name].update(size=len(content)))
    opened = ShardStore(built.path)
    array = opened.currents if name.startswith("currents") else opened.positions
    assert len(array.read([0, 9])) == 2
    with pytest.raises(StoreError, match=f"{array.spec.name} of sample 4 .shard 1.*(another shard's|or another's)"):
        array.read([4])


@pytest.mark.parametrize("name", ["currents/c/0/0/0/0/0", "positions/c/2/0/0", "origin/c/0/0", "drifters.json"])
def test_an_empty_file_under_a_seal_that_matches_is_found(copy: Callable, name: str) -> None:
    built = copy("lz4")
    entry = manifest.write_file(built.path / name, b"")
    stores.rewrite(built.path, lambda tree: tree["files"][name].update(size=entry.size, sha256=entry.sha256))
    verdict = verify(built.path)
    assert not verdict.ok
    assert name.partition("/")[0] in str(verdict.problem)
    with pytest.raises(StoreError, match=name.partition("/")[0]):
        stores.read_all(built.path)


def _damage(path: Path, other: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[:-5])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "extended":
        path.write_bytes(content + b"\0" * 64)
    elif how == "missing":
        path.unlink()
    elif how == "duplicated":
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)


@BOTH
@pytest.mark.parametrize("how", ["truncated", "empty", "extended", "missing", "swapped", "duplicated"])
@pytest.mark.parametrize("name", ["currents/c/{}/0/0/0/0", "positions/c/{}/0/0", "start_time/c/{}"])
def test_damaged_shards_are_found(copy: Callable, compression: str, how: str, name: str) -> None:
    built = copy(compression)
    _damage(built.path / name.format(0), built.path / name.format(1), how)
    verdict = verify(built.path)
    assert not verdict.ok
    assert name.partition("/")[0] in str(verdict.problem)
    if how in ("truncated", "empty", "extended", "missing"):
        assert name.format(0) in str(verdict.problem)
    with pytest.raises(StoreError, match=name.partition("/")[0]):
        stores.read_all(built.path)


@BOTH
def test_a_foreign_shard_is_found(copy: Callable, tmp_path: Path, compression: schema.Compression) -> None:
    built = copy(compression)
    foreign = stores.build(tmp_path / "foreign", compression=compression, seed=5)
    for name in ("positions/c/1/0/0", "currents/c/2/0/0/0/0"):
        shutil.copyfile(foreign.path / name, built.path / name)
    assert "c/" in str(verify(built.path).problem) or "shard" in str(verify(built.path).problem)
    assert not verify(built.path).ok


@pytest.mark.parametrize("name", ["zarr.json", "currents/zarr.json", "split/zarr.json", "drifters.json"])
def test_missing_metadata_are_found(copy: Callable, name: str) -> None:
    built = copy("lz4")
    (built.path / name).unlink()
    assert f"{built.path / name}: missing" in str(verify(built.path).problem)
    with pytest.raises(StoreError, match=f"{name}: missing"):
        ShardStore(built.path)


def test_a_file_that_is_not_listed_is_found(copy: Callable) -> None:
    built = copy("lz4")
    (built.path / "currents" / "c" / "7").write_bytes(b"x")
    assert "currents/c/7: a file that the manifest does not list" in str(verify(built.path).problem)


def test_what_is_left_of_the_making_is_only_a_note(copy: Callable) -> None:
    built = copy("lz4")
    manifest.write_file(built.path / manifest.STAGING / "done-000000.json", b"{}\n")
    verdict = verify(built.path)
    assert verdict.ok
    assert ".building is left over from the making (1 file)" in verdict.notes[0]


def test_a_link_is_refused(copy: Callable, tmp_path: Path) -> None:
    built = copy("lz4")
    path = built.path / "origin" / "c" / "0" / "0"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "a link, which may lead out of the store" in str(verify(built.path).problem)
    with pytest.raises(StoreError, match="0/0: a link, which may lead out of the store"):
        ShardStore(built.path)


# Hostile stores


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "currents/../../outside", "C:\\outside"])
def test_paths_out_of_the_store_are_refused(copy: Callable, name: str) -> None:
    built = copy("lz4")
    stores.rewrite(built.path, lambda tree: tree["files"].update({name: tree["files"]["zarr.json"]}))
    for attempt in (manifest.read, ShardStore):
        with pytest.raises(StoreError, match="lies outside the store: refused"):
            attempt(built.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_samples": 10**15}, "its layout asks for"),
        ({"samples_per_shard": 10**12}, "its layout asks for"),
        ({"n_lat": 10**6, "n_lon": 10**6}, "more than 1 GiB"),
        ({"n_obs": 10**9}, "more than 1 GiB"),
        ({"n_lat": 13}, "multiples of 4"),
        ({"n_samples": -1}, "n_samples is -1, expected a whole number of at least 0"),
        ({"n_samples": 11.0}, "n_samples is 11.0, expected a whole number"),
        ({"compression": "pickle"}, "compression 'pickle' is not one of lz4, none"),
        ({"lat_step": 0}, "expected positive ones"),
        ({"samples_per_shard": 10**7, "n_samples": 11}, "its layout asks for"),
        ({"n_times": 8}, "currents/zarr.json: does not describe the array"),
        ({"surprise": 1}, "not a readable manifest"),
    ],
)
def test_an_absurd_layout_is_refused(copy: Callable, change: dict, message: str) -> None:
    built = copy("lz4")
    stores.rewrite(built.path, lambda tree: tree["layout"].update(change))
    assert message in str(verify(built.path).problem)
    with pytest.raises(StoreError):
        stores.read_all(built.path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.update(splits=5),
        lambda tree: tree["splits"].update(train={"samples": "many", "drifters": 3}),
        lambda tree: tree["funnel"][0].update(kept="all"),
        lambda tree: tree["funnel"][0].update(dropped=[1, 2]),
        lambda tree: tree.update(name=["a"]),
        lambda tree: tree.update(notes=[1]),
        lambda tree: tree.update(sources=[]),
        lambda tree: tree.update(sources={"drifters": ["x.nc"]}),
        lambda tree: tree.update(sources={"drifters": "x.nc"}),
        lambda tree: tree["sources"]["currents"][0].update(bytes="many"),
        lambda tree: tree["sources"]["currents"][0].pop("path"),
        lambda tree: tree["files"]["zarr.json"].update(size="big"),
        lambda tree: tree["files"]["origin/c/0/0"].update(samples=[4, 8]),
        lambda tree: tree["files"].pop("origin/c/0/0"),
        lambda tree: tree["splits"]["train"].update(samples=7),
        lambda tree: tree["splits"].pop("test"),
        lambda tree: tree["funnel"][-1].update(kept=11),
        lambda tree: tree["funnel"].pop(),
    ],
)
def test_a_forged_manifest_is_refused(copy: Callable, change: Callable) -> None:
    built = copy("lz4")
    stores.rewrite(built.path, change)
    verdict = verify(built.path)
    assert not verdict.ok
    assert "manifest" in str(verdict.problem) or "funnel" in str(verdict.problem)


def test_an_unsealed_change_of_the_manifest_is_refused(copy: Callable) -> None:
    built = copy("lz4")
    stores.rewrite(built.path, lambda tree: tree.update(name="other"), seal=False)
    with pytest.raises(StoreError, match="does not match its own digest"):
        manifest.read(built.path)
    stores.rewrite(built.path, lambda tree: tree.update(name="small", extra="unseen"), seal=False)
    assert "otherwise, than its digest covers" in str(verify(built.path).problem)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"5", b"\xff\xfe{}", b"null", b'{"format": "zip"}', b"[" * 100_000],
)
def test_a_manifest_that_is_none_is_refused(copy: Callable, content: bytes) -> None:
    built = copy("lz4")
    (built.path / manifest.NAME).write_bytes(content)
    with pytest.raises(StoreError, match=r"manifest\.json"):
        manifest.read(built.path)
    assert not verify(built.path).ok


@pytest.mark.parametrize("key", ["digest", "layout", "files", "splits", "schema_version"])
def test_a_manifest_without_a_key_is_refused(copy: Callable, key: str) -> None:
    built = copy("lz4")
    path = built.path / manifest.NAME
    tree = json.loads(path.read_text())
    del tree[key]
    path.write_bytes(manifest.to_bytes(tree))
    with pytest.raises(StoreError, match=f"not a readable manifest.*{key}"):
        manifest.read(built.path)


@pytest.mark.parametrize("step", ["Infinity", "NaN", "1e999"])
def test_a_step_that_is_no_number_is_refused(copy: Callable, step: str) -> None:
    built = copy("lz4")
    path = built.path / manifest.NAME
    path.write_text(path.read_text().replace('"lat_step": 0.25', f'"lat_step": {step}'))
    with pytest.raises(StoreError, match=r"manifest\.json|layout"):
        manifest.read(built.path)


def test_a_size_that_is_no_whole_number_is_refused(copy: Callable) -> None:
    """Equal to the file's, and no size of a map."""
    built = copy("lz4")
    stores.rewrite(
        built.path, lambda tree: tree["files"]["zarr.json"].update(size=float(tree["files"]["zarr.json"]["size"]))
    )
    with pytest.raises(StoreError, match="the size of a file is not a whole number"):
        ShardStore(built.path)


def test_labels_are_held_against_their_files_before_they_find_room(tmp_path: Path) -> None:
    """2**45 samples in one shard, in a manifest and metadata that agree: 512 TiB of `origin` alone."""
    built, n = stores.build(tmp_path / "store", 11, samples_per_shard=11), 2**45
    sealed = {}
    for spec in schema.arrays(built.layout):
        tree = shard_bytes.metadata(spec, n, n, built.layout.compression)
        entry = manifest.write_file(built.path / spec.name / "zarr.json", manifest.to_bytes(tree))
        sealed[f"{spec.name}/zarr.json"] = entry.as_json()

    def enlarge(tree: dict) -> None:
        tree["layout"].update(n_samples=n, samples_per_shard=n)
        for name, entry in tree["files"].items():
            entry["samples"] = [0, n] if "/c/" in name else [0, 0]
        tree["files"].update(sealed)

    stores.rewrite(built.path, enlarge)
    with pytest.raises(
        StoreError, match=r"manifest.json: lists origin/c/0/0 with \d+ bytes, its layout asks for 562949"
    ):
        ShardStore(built.path)


def test_hostile_metadata_are_refused(copy: Callable) -> None:
    """A codec that is not the schema's, sealed by a manifest that matches it."""
    built = copy("lz4")
    path = built.path / "positions" / "zarr.json"
    tree = json.loads(path.read_text())
    tree["codecs"][0]["configuration"]["codecs"][1] = {"name": "pickle"}
    entry = manifest.write_file(path, manifest.to_bytes(tree))
    sealed = {"size": entry.size, "sha256": entry.sha256, "samples": [0, 0]}
    stores.rewrite(built.path, lambda tree: tree["files"].update({"positions/zarr.json": sealed}))
    assert "positions/zarr.json: does not describe the array" in str(verify(built.path).problem)
    with pytest.raises(StoreError, match=r"positions/zarr\.json: does not describe the array"):
        ShardStore(built.path)
