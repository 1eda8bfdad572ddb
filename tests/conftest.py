"""Set-up of all tests."""

import importlib
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from driftcal.preprocess.sources import files
from tests import stores
from tests.servers import Quiet

os.environ.setdefault("JAX_PLATFORMS", "cpu")

COMPILED, KEPT = "JAX_COMPILATION_CACHE_DIR", 7 * 86_400
"""Variable that names JAX's folder of compiled programs; how long they are kept there [s]: code changes."""


def pytest_configure(config: pytest.Config) -> None:
    """Lets the workers, the processes that tests start and later runs of the tests share what JAX has compiled.

    JAX is not imported yet, and workers inherit the environment. Processors differ: every machine has its own folder.
    """
    if COMPILED in os.environ or getattr(config, "cache", None) is None:
        return
    folder = config.cache.mkdir(f"jax-{platform.node()}")
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > KEPT:
            path.unlink(missing_ok=True)
    os.environ[COMPILED] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


@pytest.fixture(scope="session", autouse=True)
def strict_dtypes() -> None:
    """Lets JAX refuse numbers of two types in one operation, in this process: code of users elsewhere is free."""
    jax = importlib.import_module("jax")  # not at the top: it reads the environment that `pytest_configure` sets
    jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def usual_dtypes() -> Iterator[None]:
    """JAX's usual promotion of types, as in a run: for terms that users might write."""
    jax = importlib.import_module("jax")
    with jax.numpy_dtype_promotion("standard"):
        yield


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
