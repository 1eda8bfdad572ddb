"""The compiler of C++ libraries: each is taken from the user's cache, or compiled there on first use.

A library compiled with `-march=native` is right only on that kind of processor. So the name of its folder is a digest
of its sources, the command, its other dependencies and everything that the compiler predefines for this processor:
machines of a cluster that share a home each find their own. A library and its digest appear under that name, complete,
by a rename of their folder; processes that compile it at the same time do no harm.
"""

import atexit
import ctypes
import errno
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

from driftcal.shared.errors import ConfigError

FILE, DIGEST = "library.so", "sha256"
"""File names of a library and of its digest, in its folder."""

COMPILERS = "c++", "g++", "clang++"
"""Compilers to look for, in this order, if $CXX names none."""

# Nothing of -ffast-math that takes NaNs for impossible: one must poison its sample.
OPTIONS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-pthread", "-Wno-psabi")

PATIENCE = 120
"""Seconds that a compiler may take: the kernel takes ten, and a compiler that hangs is not waited for."""


NO_ROOM = ("No space left on device", "Disk quota exceeded", "temporary file", "temporary directory", "Read-only file")
"""Phrases by which compilers report a full or read-only disk."""


@dataclass(frozen=True)
class Library:
    """A library to compile, and its description in messages.

    Attributes:
        source: The file that is compiled; it may include the others in its folder.
        entry: Its function.
        wanted: Its purpose, as messages begin with it.
        instead: The alternative to it, as messages end with it.
        constants: Macros defined for it.
        include: Further folders of headers.
        versions: Versions of its other dependencies.
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
    name = f"{library.source.stem}-{_digest(library, line)}"
    try:
        path = _cache() / name
        if not _is_whole(path):
            path = _compile(library, line, path)
    except OSError as error:
        raise ConfigError(
            f"{library.wanted} needs a place where what is compiled can be kept, and it cannot be written there "
            f"({error}). Make room, name folders with room in TMPDIR and in XDG_CACHE_HOME, or {library.instead}."
        ) from error
    return path / FILE


def command(library: Library) -> list[str]:
    """The C++ compiler's command: $CXX, or the first of `COMPILERS` on the path.

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
    present = [words for words in ([asked] if asked else [[name] for name in COMPILERS]) if shutil.which(words[0])]
    if not present:
        looked = f"CXX={os.environ['CXX']}" if asked else ", ".join(COMPILERS)
        raise ConfigError(
            f"{library.wanted} needs a C++17 compiler, and none was found ({looked}). Install one (Debian: apt install "
            f"g++; macOS: xcode-select --install; conda: gxx), name it in CXX, or {library.instead}."
        )
    return present[0]


def _digest(library: Library, line: list[str]) -> str:
    """Digest of everything that the library depends on."""
    predefined = _run(library, [*line, "-x", "c++", "-dM", "-E", os.devnull])  # features of the processor, version
    said = [" ".join(line), predefined, *library.versions, repr(sorted(library.constants.items()))]
    parts = [text.encode(errors="surrogateescape") for text in said]
    parts += [path.read_bytes() for path in sorted(library.source.parent.glob("*.[ch]pp"))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _cache() -> Path:
    """Folder that libraries are kept in: one of the user's alone, or if there is none a new one for this process.

    Never one that others can write to, since files in it are loaded as code.
    """
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(root) / "driftcal"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid == os.geteuid() and not status.st_mode & 0o022 and os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # read-only; no home
        pass
    return _own_folder()


@functools.cache
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="driftcal-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _is_whole(folder: Path) -> bool:
    """Tells whether the library in `folder` is intact: to load one that is cut short would end the process."""
    try:
        return hashlib.sha256((folder / FILE).read_bytes()).hexdigest().encode() == (folder / DIGEST).read_bytes()
    except OSError:
        return False


def _compile(library: Library, line: list[str], path: Path) -> Path:
    """Makes the folder `path`, or if there is no room one of that name for this process alone; returns which."""
    try:
        with tempfile.TemporaryDirectory(prefix="driftcal-") as aside:
            return _compile_in(Path(aside), library, line, path)
    except OSError:  # a full temporary folder is no reason to do without where there is room in the cache
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as aside:
            return _compile_in(Path(aside), library, line, path)


def _compile_in(aside: Path, library: Library, line: list[str], path: Path) -> Path:
    library_file = aside / FILE
    defined = [f"-D{name}={value!r}" for name, value in library.constants.items()]
    included = [f"-I{folder}" for folder in library.include]
    _run(library, [*line, *included, *defined, str(library.source), "-o", str(library_file)], aside)
    try:
        _publish(library_file, path)
    except OSError:  # a cache that is full is no reason to do without what has been made
        path = _own_folder() / path.name
        _publish(library_file, path)
    return path


def _publish(library_file: Path, folder: Path) -> None:
    """Copies the library `library_file` into `folder`, which appears whole."""
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
    try:
        content = library_file.read_bytes()
        (aside / FILE).write_bytes(content)
        (aside / DIGEST).write_text(hashlib.sha256(content).hexdigest())
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        try:
            aside.replace(folder)
        except OSError:
            if not _is_whole(folder):  # else another process has been faster
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _run(library: Library, line: list[str], aside: Path | None = None) -> str:
    """Runs a compiler's command and returns its output; its own temporary files lie in `aside`.

    Raises:
        ConfigError: it fails.
        OSError: it finds no room.
    """
    own = os.environ if aside is None else os.environ | {"TMPDIR": str(aside)}
    options: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "env": own}
    try:
        ran = subprocess.run(line, timeout=PATIENCE, check=False, **options)
        status, said = ran.returncode, ran.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        ran, status, said = None, -1, str(error)
    if ran is None or status:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        full = next((line for line in lines if any(words in line for words in NO_ROOM)), None)
        if aside is not None and full is not None:
            raise OSError(errno.ENOSPC, f"the compiler says: {full}")
        telling = (line for line in lines if "error" in line or "failed" in line)
        first = next(telling, lines[-1] if lines else "it said nothing")
        raise ConfigError(
            f"{library.wanted} could not be compiled, exit status {status}: {first}. The command was "
            f"{shlex.join(line)}. GCC 12 does; name another compiler in CXX, or {library.instead}."
        )
    return ran.stdout
