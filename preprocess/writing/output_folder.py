"""Checks of the output folder: not over foreign files, not inside the input."""

import glob
import os
import re
import stat
from pathlib import Path

from driftcal.preprocess.recipe import Recipe
from driftcal.preprocess.sources import addresses
from driftcal.shared.disk import litter
from driftcal.shared.errors import ConfigError
from driftcal.shared.store import manifest


def check(recipe: Recipe, store: Path) -> None:
    """Refuses an output folder with any content but a store of ours, or that overlaps with its input.

    Raises:
        ConfigError: it does.
    """
    _check_inputs(recipe, store)
    _check_content(store)


def _check_inputs(recipe: Recipe, store: Path) -> None:
    """Refuses a store that contains its own input, or lies inside it: each would read, or delete, the other."""
    out = _real(store)
    for source in (*recipe.drifters, *recipe.currents):
        for place in _places(source.path):
            if out == place or out in place.parents or place in out.parents:
                raise ConfigError(
                    f"--out {store} and the input {source.path} lie inside each other. Choose another --out."
                )


def _places(path: str) -> list[Path]:
    """The local files and folders that a source's path stands for, whether or not they exist; none for a URL."""
    if addresses.is_url(path):
        return []
    path = path.removeprefix("file://")
    local = Path(path).expanduser()
    if os.path.exists(local) or not glob.has_magic(path):  # noqa: PTH110 - not an error where one may not look
        return [_real(local)]
    matches = [_real(name) for name in glob.glob(str(local), recursive=True)]  # noqa: PTH207 - as it is opened
    # what a glob may match later lies under its fixed part; the last name of that may be a piece of a name only
    fixed = re.split(r"[*?\[]", str(local), maxsplit=1)[0]
    return [*matches, _real(fixed + "_")]


def _real(path: str | Path) -> Path:
    """Absolute `path` with its links followed as far as they resolve; Path.resolve raises on a loop of them."""
    return Path(os.path.realpath(path))


def _check_content(store: Path) -> None:
    """Refuses an --out with any content but a store of ours, finished or not."""
    try:
        if _kind(store) == 0:
            return
        if _kind(store) != stat.S_IFDIR:
            raise ConfigError(f"--out {store} is a file; expected a folder to make.")
        building = _kind(store / manifest.STAGING) == stat.S_IFDIR
        if not litter.is_empty(store) and not building and not _is_ours(store):
            raise ConfigError(
                f"--out {store} is not empty and not a driftcal store: choose another folder. If it is a store that "
                f"has lost its manifest.json, delete it first: it cannot be continued."
            )
    except OSError as error:
        raise ConfigError(
            f"--out {store}: cannot look at {error.filename or store} ({error.strerror}); expected a folder that you "
            f"may read and write. Choose another --out, or have its permissions changed."
        ) from error


def _is_ours(store: Path) -> bool:
    """Tells whether the folder's `manifest.json`, a name that others use too, is one of ours."""
    path = store / manifest.NAME
    return _kind(path) == stat.S_IFREG and manifest.FORMAT in path.read_bytes()[:1000].decode(errors="replace")


def _kind(path: Path) -> int:
    """Type of file at `path`, by `stat.S_IFMT`; 0 if there is none.

    Path.exists and its like do not distinguish a missing file from a forbidden one: some versions of Python raise for
    the second, others treat it as the first.
    """
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return 0
