"""A twin is made by one process, for which the others wait."""

from pathlib import Path

import pytest

from driftcal.preprocess.__main__ import MAKING, _make_twin
from driftcal.preprocess.made import twin
from driftcal.preprocess.recipe import Synthetic
from driftcal.shared import command
from driftcal.shared.disk.claims import hold
from driftcal.shared.settings import build


def test_a_twin_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with one manifest: the second waits, and takes what the first has made."""
    spec = build(Synthetic, {"folder": str(tmp_path / "twin")}, "test")
    made, said = [], []
    (tmp_path / "twin" / MAKING).mkdir(parents=True)
    other = hold(tmp_path / "twin" / MAKING, (1, 1), alone=True)

    def first_ends(message: str) -> None:
        said.append(message)
        make(spec, False)
        other.__exit__(None, None, None)

    def make(spec: Synthetic, progress: bool) -> None:
        del progress
        made.append(spec)
        (Path(spec.folder) / "drifters.nc").write_bytes(b"x")

    monkeypatch.setattr(twin, "make", make)
    monkeypatch.setattr(command, "say", first_ends)
    other.__enter__()
    _make_twin(spec, False, False, False)
    assert len(said) == 1
    assert "which makes the twin in" in said[0]
    assert "with --take-over" in said[0]
    _make_twin(spec, False, False, False)
    assert len(made) == 2  # the first left no made.json
    assert sorted(path.name for path in (tmp_path / "twin").iterdir()) == ["drifters.nc", "made.json"]
