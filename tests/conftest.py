"""Set-up of all tests."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from preprocess import files
from tests import stores
from tests.servers import Quiet

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


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served."""
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(Quiet, "fails", {})
    monkeypatch.setattr(Quiet, "folders", True)
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
