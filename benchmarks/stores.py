"""Stores of twins, for benchmarks: drifters with a known constant, all of them in training."""

import sys
from pathlib import Path
from typing import Any

import yaml

from driftcal.preprocess.__main__ import main as preprocess


def twins(folder: Path, cs: float | None, synthetic: dict[str, Any], **sections: Any) -> Path:
    """Makes sources and store in `folder`, which must be new; returns the store.

    Args:
        folder: Where they go.
        cs: The true constant; None where `synthetic` has a `truth`.
        synthetic: What the manifest's section of that name says besides.
        sections: Other sections of the manifest; without `currents` those that are made.
    """
    source = folder / "source"
    manifest = {
        "name": "twin of another world" if cs is None else f"twin with C_s = {cs:g}",
        "synthetic": {
            "folder": str(source),
            **({} if cs is None else {"cs": cs}),
            "seed": 1,
            "clean": True,
            **synthetic,
        },
        # hourly steps of the simulated noise may pass the 3 m/s that is right for real drifters
        "drifters": {"path": str(source / "drifters.nc"), "max_speed": 50.0},
        "currents": {"path": str(source / "currents" / "*.nc")},
        "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
        **sections,
    }
    folder.mkdir()
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))
    if preprocess([str(path), "--out", str(folder / "store")]):
        sys.exit(1)
    return folder / "store"
