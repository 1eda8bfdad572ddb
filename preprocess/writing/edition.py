"""The edition of the code that makes shards: driftcal's version, a digest of its sources, and the libraries' versions.

Processes that make a store together must have the same edition, or its windows could differ unnoticed: dask sends a
function by its name, and each worker runs the code that it has under that name.
"""

import hashlib
import sys
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from importlib.resources.abc import Traversable

PACKAGES = ("driftcal.preprocess", "driftcal.shared")
"""Packages whose sources take part in making a shard."""

LIBRARIES = ("dask", "distributed", "numpy", "scipy", "numcodecs", "zarr", "xarray", "netCDF4", "cftime")
"""Libraries that determine the bytes of a store, or whose versions must be able to exchange data."""

PYTHON = "Python"

Edition = dict[str, str]
"""Version or digest by name; plain, so that any edition can read that of another."""


def _read() -> Edition:
    versions = {"driftcal": _version("driftcal"), PYTHON: "{}.{}".format(*sys.version_info)}
    versions |= {name: _version(name) for name in LIBRARIES}
    for package in PACKAGES:
        for name, file in _sources(resources.files(package), package.replace(".", "/")):
            versions[name] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return versions


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    """Files of code in `folder` and below, with their names; without caches, which need not be those that run."""
    for file in folder.iterdir():
        inside = f"{name}/{file.name}"
        if file.name.endswith((".py", ".pyc")):
            yield inside, file
        elif file.is_dir() and file.name != "__pycache__":
            yield from _sources(file, inside)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


# Read when the code is imported and not when it is asked for: a worker that has run since before an update has the old
# code in memory, whatever lies on the disk by now.
_OWN = _read()


def own() -> Edition:
    """The edition of this process."""
    return dict(_OWN)


def difference(expected: Edition, came: Edition) -> str | None:
    """Differences of `came` from `expected`, in a few words; None if there are none."""
    names = [name for name in {**expected, **came} if expected.get(name) != came.get(name)]
    if not names:
        return None
    files = [name for name in names if "/" in name]
    differences = [
        f"{name} {came.get(name, 'missing')} (expected {expected.get(name, 'none')})"
        for name in names
        if "/" not in name
    ]
    if files:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        differences.append(f"other code in {', '.join(files[:3])}{more}")
    return "; ".join(differences)
