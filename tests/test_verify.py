"""Verdicts on what the labels and the samples of a store say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftcal.shared.errors import StoreError
from driftcal.shared.inspection import facts, figures, text
from driftcal.shared.store import schema, shard_bytes
from driftcal.shared.store.reader import ShardStore
from driftcal.shared.store.verify import Verdict, verify
from tests import stores


@pytest.mark.parametrize("compression", ["lz4", "none"])
def test_a_whole_store_is_whole(tmp_path: Path, compression: schema.Compression) -> None:
    built = stores.build(tmp_path / "store", compression=compression)
    assert verify(built.path) == Verdict(True, None, len(built.held.files), 11)


def _set(name: str, sample: int, value: Any) -> Callable[[dict[str, np.ndarray]], None]:
    def change(values: dict[str, np.ndarray]) -> None:
        values[name][sample] = value

    return change


def _turn(values: dict[str, np.ndarray]) -> None:
    values["window_corner"][3, 0] += 360.0


def _leave(values: dict[str, np.ndarray]) -> None:
    values["positions"][9, 30, 1] += 3.0


def _unusable_in_split(values: dict[str, np.ndarray]) -> None:
    values["split"][1] = 0


def _over(values: dict[str, np.ndarray]) -> None:
    values["currents"][8, 1, 6, 11, 15] = schema.OVER


def _not_a_number(values: dict[str, np.ndarray]) -> None:
    values["positions"][10, 40, 1] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("drogue", 5, 2), "drogue of sample 5 (shard 1)"),
        (_set("split", 6, 3), "split of sample 6 (shard 1)"),
        (_set("split", 6, -1), "split of sample 6 (shard 1)"),
        (_unusable_in_split, "split of sample 1 (shard 0)"),
        (_set("status", 0, 3), "status of sample 0 (shard 0)"),
        (_set("drifter", 7, 5), "a drifter that drifters.json does not hold"),
        (_set("drifter", 7, -1), "a drifter that drifters.json does not hold"),
        (_set("source", 2, 1), "source of sample 2 (shard 0)"),
        (_set("source_row", 2, -4), "source_row of sample 2 (shard 0)"),
        (_set("start_time", 8, 5 * 10**17), "start_time of sample 8 (shard 2)"),
        (_set("start_time", 8, -(2**63)), "start_time of sample 8 (shard 2)"),
        (_set("window_time", 8, 1_456_617_600), "window_time of sample 8 (shard 2)"),
        (_set("origin", 4, [200.0, -36.0]), "origin of sample 4 (shard 1)"),
        (_set("origin", 4, [33.0, -91.0]), "origin of sample 4 (shard 1)"),
        (_set("origin", 4, [np.nan, -36.0]), "origin of sample 4 (shard 1)"),
        (_set("window_corner", 3, [34.9, np.inf]), "window_corner of sample 3 (shard 0)"),
        (_turn, "window_corner of sample 3 (shard 0)"),
        (_leave, "positions of sample 9 (shard 2)"),
        (_not_a_number, "positions of sample 10 (shard 2)"),
        (_set("positions", 2, 0.5), "positions of sample 2 (shard 0)"),
        (_over, "currents of sample 8 (shard 2)"),
    ],
)
def test_labels_out_of_range_are_found(tmp_path: Path, change: Callable, message: str) -> None:
    """The values are changed after the manifest was made, or its counts would give the wrong ones away first."""
    built = stores.build(tmp_path / "store")
    wrong = {name: values.copy() for name, values in built.values.items()}
    change(wrong)
    files = {}
    for shard in range(built.layout.n_shards):
        files |= stores.write_shard(built.path, built.layout, shard, wrong)
    listed = {p: {"size": e.size, "sha256": e.sha256, "samples": list(e.samples)} for p, e in files.items()}
    stores.rewrite(built.path, lambda tree: tree["files"].update(listed))
    verdict = verify(built.path)
    assert not verdict.ok
    assert message in str(verdict.problem)
    assert shard_bytes.REMEDY not in str(verdict.problem)


def test_all_damaged_files_are_named(tmp_path: Path) -> None:
    """A missing one, one with a flipped bit, one cut short, and a foreign one that is told first."""
    built = stores.build(tmp_path / "store")
    (built.path / "extra").write_bytes(b"")
    (built.path / "zarr.json").unlink()
    for name, change in (
        ("currents/c/1/0/0/0/0", lambda raw: raw[:9] + b"!" + raw[10:]),
        ("split/c/0", lambda raw: raw[:-1]),
    ):
        path = built.path / name
        path.write_bytes(change(path.read_bytes()))
    verdict = verify(built.path)
    assert "extra: a file that the manifest does not list" in str(verdict.problem)
    assert sorted(verdict.damaged) == ["currents/c/1/0/0/0/0", "split/c/0", "zarr.json"]
    shown = text.render_verdict(verdict, "store")
    assert "3 files not as the manifest lists them:\n" in shown
    assert "\n  split/c/0" in shown
    assert text.render_verdict(verify(stores.build(tmp_path / "other").path), "store").startswith("ok:")


def test_an_empty_store_is_told(tmp_path: Path) -> None:
    built = stores.build(tmp_path / "store", 0)
    assert "holds no sample" in str(verify(built.path).problem)
    assert "no sample" in text.render(facts.facts(built.path))
    with pytest.raises(StoreError, match="no sample 0; it holds no sample"):
        facts.sample(ShardStore(built.path), 0)
    with pytest.raises(StoreError, match="no usable sample to draw"):
        figures.plot(ShardStore(built.path), tmp_path / "figures")
