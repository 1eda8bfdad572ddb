"""Set-up of all tests."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(scope="session")
def real_data():
    """Folder of real files, which are never part of the project; tests that need them skip where it is absent."""
    folder = Path(os.environ.get("DRIFT_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set DRIFT_REAL_DATA")
    return folder
