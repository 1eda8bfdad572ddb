"""TensorBoard's event files, read back by their published framing: length, crc, record, crc."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest

from driftcal.shared.errors import Interrupted
from tests import runs, stores

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")


def events(path: Path) -> Iterator[object]:
    """Events of a TFRecord file; the checksums are masked crc32c."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        head = content[at : at + 8]
        (size,), record = struct.unpack("<Q", head), content[at + 12 : at + 12 + struct.unpack("<Q", head)[0]]
        for part, where in ((head, at + 8), (record, at + 12 + size)):
            crc = google_crc32c.value(part)
            masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack("<I", content[where : where + 4])[0] == masked
        yield event_pb2.Event.FromString(record)
        at += size + 16


def test_every_line_is_there_once_also_when_resumed(tmp_path: Path) -> None:
    store = stores.build(tmp_path / "store", 23, samples_per_shard=8).path
    told = runs.settings(
        epochs=1, optimizer={"final_passes": 1, "curvature_samples": 7}, tracking={"tensorboard": True}
    )
    with pytest.raises(Interrupted), runs.stopped_at(3, "SIGTERM"):
        runs.train(store, tmp_path / "run", told)
    runs.train(store, tmp_path / "run", told, resume=True)
    found: dict[tuple[str, int], float] = {}
    for path in sorted((tmp_path / "run" / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime_ns):
        for event in events(path):
            for value in event.summary.value:
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = value.simple_value
    for line in map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()):
        for name in ("loss", "cs", "gradient", "samples_per_second", "escaped_members"):
            assert found[name, line["step"]] == pytest.approx(line[name], rel=1e-6)
        assert found["poisoned_samples", line["step"]] == 0
