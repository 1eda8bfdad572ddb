"""C++ compiled where it runs: a library is found in the user's cache, or made there on first use.

`-march=native` is right only on the kind of processor that it was compiled for. So the name of a library is a digest of
its sources, the command, what else it depends on and everything that the compiler predefines for this processor:
machines of a cluster that share a home each find their own. A library appears under its name by a rename, when it is
whole; processes that compile it at the same time do no harm.
"""

import atexit
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
from typing import Any

from shared.errors import ConfigError

COMPILERS = "c++", "g++", "clang++"
"""Looked for in this order where $CXX names none."""

# Nothing of -ffast-math that takes NaNs for impossible: one must poison its sample.
OPTIONS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-pthread", "-Wno-psabi")


PATIENCE = 120
"""Seconds that a compiler may take: the kernel takes ten, and a compiler that hangs is not waited for."""


@dataclass(frozen=True)
class Library:
    """What is compiled, and how it is told of.

    Attributes:
        source: The file that is compiled; the others in its folder it may include.
        entry: Its function.
        wanted: What it is needed for, as messages begin with it.
        instead: What can be done without it, as messages end with it.
        constants: Defined for it as macros.
        include: Folders of headers besides.
        versions: Of what else it depends on.
    """

    source: Path
    entry: str
    wanted: str
    instead: str
    constants: Mapping[str, float] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


def load(library: Library) -> Any:
    """The library's function for this processor, compiled if need be, as ctypes has it.

    Raises:
        ConfigError: there is no C++ compiler, it failed, or what it made cannot be kept or loaded.
    """
    path = compiled(library)
    try:
        return getattr(ctypes.CDLL(str(path)), library.entry)
    except (OSError, AttributeError) as error:
        raise ConfigError(
            f"{library.wanted} needs {path}, which cannot be loaded ({error}). Delete it and try again, or "
            f"{library.instead}."
        ) from error


def compiled(library: Library) -> Path:
    """The library's file for this processor, compiled if it is not in the cache; raises as `load`."""
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64") else "-mcpu=native"
    line = [*command(library), *OPTIONS, native]
    name = f"{library.source.stem}-{_digest(library, line)}.so"
    try:
        path = _cache() / name
        if not path.exists():
            _compile(library, line, path)
    except OSError as error:
        raise ConfigError(
            f"{library.wanted} needs a place where what is compiled can be kept, and it cannot be written there "
            f"({error}). Make room, name a folder in XDG_CACHE_HOME, or {library.instead}."
        ) from error
    return path


def command(library: Library) -> list[str]:
    """The C++ compiler's command: $CXX, or what is found on the path.

    Raises:
        ConfigError: there is none.
    """
    try:
        asked = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise ConfigError(
            f"{library.wanted} needs a C++17 compiler, and CXX={os.environ['CXX']} is no command ({error}). Correct "
            f"it, or {library.instead}."
        ) from error
    found = [words for words in ([asked] if asked else [[name] for name in COMPILERS]) if shutil.which(words[0])]
    if not found:
        looked = f"CXX={os.environ['CXX']}" if asked else ", ".join(COMPILERS)
        raise ConfigError(
            f"{library.wanted} needs a C++17 compiler, and none was found ({looked}). Install one (Debian: apt install "
            f"g++; macOS: xcode-select --install; conda: gxx), name it in CXX, or {library.instead}."
        )
    return found[0]


def _digest(library: Library, line: list[str]) -> str:
    """Of all that the library depends on."""
    predefined = _run(library, [*line, "-x", "c++", "-dM", "-E", os.devnull])  # features of the processor, version
    parts = [" ".join(line), predefined, *library.versions, repr(sorted(library.constants.items()))]
    parts += [path.read_text() for path in sorted(library.source.parent.glob("*.[ch]pp"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _cache() -> Path:
    """Where libraries are kept: a folder of the user's alone, or where there is none a new one for this process.

    Never one that others can write to: what lies there is loaded as code.
    """
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(root) / "driftcal"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid == os.geteuid() and not found.st_mode & 0o022 and os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # read-only; no home
        pass
    return _own_folder()


@functools.cache
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="driftcal-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _compile(library: Library, line: list[str], path: Path) -> None:
    handle, made = tempfile.mkstemp(dir=path.parent, suffix=".so.tmp")
    os.close(handle)
    try:
        defined = [f"-D{name}={value!r}" for name, value in library.constants.items()]
        included = [f"-I{folder}" for folder in library.include]
        _run(library, [*line, *included, *defined, str(library.source), "-o", made])
        with Path(made).open("rb") as file:
            os.fsync(file.fileno())
        Path(made).replace(path)
    finally:
        Path(made).unlink(missing_ok=True)


def _run(library: Library, line: list[str]) -> str:
    """What a compiler's command prints."""
    try:
        ran = subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE)
        status, said = ran.returncode, ran.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        ran, status, said = None, -1, str(error)
    if ran is None or status:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line), lines[-1] if lines else "it said nothing")
        raise ConfigError(
            f"{library.wanted} could not be compiled, exit status {status}: {first}. The command was "
            f"{shlex.join(line)}. GCC 12 does; name another compiler in CXX, or {library.instead}."
        )
    return ran.stdout
