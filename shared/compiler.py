"""C++ compiled where it runs: a library is found in the user's cache, or made there on first use.

`-march=native` is right only on the kind of processor that it was compiled for. So the name of a library is a digest of
its sources, the command, what else it depends on and everything that the compiler predefines for this processor:
machines of a cluster that share a home each find their own. A library appears under its name by a rename, when it is
whole; processes that compile it at the same time do no harm.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import ConfigError

COMPILERS = "c++", "g++", "clang++"
"""Looked for in this order where $CXX names none."""

# Nothing of -ffast-math that takes NaNs for impossible: one must poison its sample.
OPTIONS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-pthread", "-Wno-psabi")


@dataclass(frozen=True)
class Library:
    """What is compiled, and how it is told of.

    Attributes:
        source: The file that is compiled; the others in its folder it may include.
        wanted: What it is needed for, as messages begin with it.
        instead: What can be done without it, as messages end with it.
        constants: Defined for it as macros.
        include: Folders of headers besides.
        versions: Of what else it depends on.
    """

    source: Path
    wanted: str
    instead: str
    constants: Mapping[str, float] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


def load(library: Library) -> ctypes.CDLL:
    """The library for this processor in this process, compiled if need be.

    Raises:
        ConfigError: there is no C++ compiler, it failed, or what it made cannot be loaded.
    """
    path = compiled(library)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ConfigError(
            f"{library.wanted} needs {path}, which cannot be loaded ({error}). Delete it and try again, or "
            f"{library.instead}."
        ) from error


def compiled(library: Library) -> Path:
    """The library's file for this processor, compiled if it is not in the cache; raises as `load`."""
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64") else "-mcpu=native"
    command = [*compiler(library), *OPTIONS, native]
    name = f"{library.source.stem}-{_digest(library, command)}.so"
    folder = _cache()
    if not (folder / name).exists():
        _compile(library, command, folder / name)
    return folder / name


def compiler(library: Library) -> list[str]:
    """The C++ compiler's command: $CXX, or what is found on the path.

    Raises:
        ConfigError: there is none.
    """
    asked = shlex.split(os.environ.get("CXX", ""))
    found = [command for command in ([asked] if asked else [[name] for name in COMPILERS]) if shutil.which(command[0])]
    if not found:
        looked = f"CXX={os.environ['CXX']}" if asked else ", ".join(COMPILERS)
        raise ConfigError(
            f"{library.wanted} needs a C++17 compiler, and none was found ({looked}). Install one (Debian: apt install "
            f"g++; macOS: xcode-select --install; conda: gxx), name it in CXX, or {library.instead}."
        )
    return found[0]


def _digest(library: Library, command: list[str]) -> str:
    """Of all that the library depends on."""
    predefined = _run(library, [*command, "-x", "c++", "-dM", "-E", os.devnull])  # features of the processor, version
    parts = [" ".join(command), predefined, *library.versions, repr(sorted(library.constants.items()))]
    parts += [path.read_text() for path in sorted(library.source.parent.glob("*.[ch]pp"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _cache() -> Path:
    """Where libraries are kept: a folder of the user's, or where that cannot be written a new one for this process."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(root) / "driftcal"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # read-only; no home
        pass
    return _own_folder()


@functools.cache
def _own_folder() -> Path:
    # never a predictable name in a folder that others can write to: what lies there is loaded as code
    return Path(tempfile.mkdtemp(prefix="driftcal-"))


def _compile(library: Library, command: list[str], path: Path) -> None:
    handle, made = tempfile.mkstemp(dir=path.parent, suffix=".so.tmp")
    os.close(handle)
    try:
        defined = [f"-D{name}={value!r}" for name, value in library.constants.items()]
        included = [f"-I{folder}" for folder in library.include]
        _run(library, [*command, *included, *defined, str(library.source), "-o", made])
        with Path(made).open("rb") as file:
            os.fsync(file.fileno())
        Path(made).replace(path)
    finally:
        Path(made).unlink(missing_ok=True)


def _run(library: Library, command: list[str]) -> str:
    """What a compiler's command prints."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        status, said = ran.returncode, ran.stderr
    except OSError as error:
        ran, status, said = None, -1, str(error)
    if ran is None or status:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line), lines[-1] if lines else "it said nothing")
        raise ConfigError(
            f"{library.wanted} could not be compiled, exit status {status}: {first}. The command was "
            f"{shlex.join(command)}. GCC 12 does; name another compiler in CXX, or {library.instead}."
        )
    return ran.stdout
