"""Set-up of all tests."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import stores

os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(scope="session")
def real_data():
    """Folder of real files, which are never part of the project; tests that need them skip where it is absent."""
    folder = Path(os.environ.get("DRIFT_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set DRIFT_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def stores_by_compression(tmp_path_factory: pytest.TempPathFactory) -> dict[str, stores.Built]:
    """The same store in both compressions, not to be changed."""
    root = tmp_path_factory.mktemp("pristine")
    return {kind: stores.build(root / kind, compression=kind) for kind in ("lz4", "none")}


@pytest.fixture
def copy(stores_by_compression: dict[str, stores.Built], tmp_path: Path) -> Callable[[str], stores.Built]:
    """A copy of a store, to be damaged."""

    def make(compression: str) -> stores.Built:
        built = stores_by_compression[compression]
        shutil.copytree(built.path, tmp_path / "store")
        return stores.Built(tmp_path / "store", built.layout, built.values, built.drifters, built.held)

    return make


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> stores.Built:
    """A store of 23 samples in three shards, not to be changed."""
    return stores.build(tmp_path_factory.mktemp("stores") / "small", 23, samples_per_shard=8)


@pytest.fixture(scope="session")
def seam(tmp_path_factory: pytest.TempPathFactory) -> stores.Built:
    """A store on both sides of the antimeridian, not to be changed."""
    return stores.build(tmp_path_factory.mktemp("stores") / "seam", 12, centre=(179.6, -20.0))
