"""The compiled kernel: found in the user's cache, or compiled there on first use.

`-march=native` is right only on the kind of processor that it was compiled for. So the name of a library is a digest of
the sources, the command, JAX's version and everything that the compiler predefines for this processor: machines of a
cluster that share a home each find their own. A library appears under its name by a rename, when it is whole; processes
that compile it at the same time do no harm.
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
from importlib.metadata import version
from pathlib import Path

import jax

from shared import geo, schema
from shared.errors import ConfigError
from train import dynamics, sphere

TARGET = "driftcal_simulate"
"""Name of the kernel's entry, in the library and in XLA."""

SOURCES = Path(__file__).parent

COMPILERS = "c++", "g++", "clang++"
"""Looked for in this order where $CXX names none."""

# Nothing of -ffast-math that takes NaNs for impossible: one must poison its sample.
OPTIONS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-pthread", "-Wno-psabi")

CONSTANTS = {
    "EARTH_RADIUS": geo.EARTH_RADIUS,
    "METRES_PER_DEGREE": geo.METRES_PER_DEGREE,
    "SCALE": schema.SCALE,
    "FILL": int(schema.FILL),
    "COAST": dynamics.COAST,
    "LEAST_KAPPA": dynamics.LEAST_KAPPA,
    "LEAST_SQUARE": sphere.LEAST_SQUARE,
}
"""What the kernel shares with the Python around it, defined there once."""


@functools.cache
def register() -> str:
    """Makes the kernel known to XLA, compiling it if need be; the target's name.

    Raises:
        ConfigError: JAX computes on something else than a CPU, there is no C++ compiler, or it failed.
    """
    if jax.default_backend() != "cpu":
        raise ConfigError(
            f"engine=native computes on the CPU, and JAX uses {jax.default_backend()} here. Set engine to driftcal, "
            f"which is made for that device, or the environment variable JAX_PLATFORMS to cpu."
        )
    path = library()
    try:
        entry = getattr(ctypes.CDLL(str(path)), TARGET)
    except (OSError, AttributeError) as error:
        raise ConfigError(f"the compiled kernel {path} cannot be loaded ({error}). Delete it and try again.") from error
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(entry), platform="cpu")
    return TARGET


def compiler() -> list[str]:
    """The C++ compiler's command: $CXX, or what is found on the path.

    Raises:
        ConfigError: there is none.
    """
    asked = shlex.split(os.environ.get("CXX", ""))
    found = [command for command in ([asked] if asked else [[name] for name in COMPILERS]) if shutil.which(command[0])]
    if not found:
        looked = f"CXX={os.environ['CXX']}" if asked else ", ".join(COMPILERS)
        raise ConfigError(
            f"engine=native needs a C++17 compiler, and none was found ({looked}). Install one (Debian: apt install "
            f"g++; macOS: xcode-select --install; conda: gxx), name it in CXX, or set engine to driftcal."
        )
    return found[0]


def library() -> Path:
    """The library for this processor, compiled if it is not in the cache.

    Raises:
        ConfigError: there is no compiler, or it failed.
    """
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64") else "-mcpu=native"
    command = [*compiler(), *OPTIONS, native]
    name = f"native-{_digest(command)}.so"
    folder = _cache()
    if not (folder / name).exists():
        _compile(command, folder / name)
    return folder / name


def _digest(command: list[str]) -> str:
    """Of all that the library depends on."""
    predefined = _run([*command, "-x", "c++", "-dM", "-E", os.devnull])  # features of the processor, version
    parts = [" ".join(command), predefined, version("jax"), version("jaxlib"), repr(sorted(CONSTANTS.items()))]
    parts += [path.read_text() for path in sorted(SOURCES.glob("*.[ch]pp"))]
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


def _compile(command: list[str], path: Path) -> None:
    handle, made = tempfile.mkstemp(dir=path.parent, suffix=".so.tmp")
    os.close(handle)
    try:
        defined = [f"-D{name}={value!r}" for name, value in CONSTANTS.items()]
        include = f"-I{jax.ffi.include_dir()}"
        _run([*command, include, *defined, str(SOURCES / "kernel.cpp"), "-o", made])
        with Path(made).open("rb") as file:
            os.fsync(file.fileno())
        Path(made).replace(path)
    finally:
        Path(made).unlink(missing_ok=True)


def _run(command: list[str]) -> str:
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
            f"engine=native could not be compiled, exit status {status}: {first}. The command was "
            f"{shlex.join(command)}. GCC 12 does; name another compiler in CXX, or set engine to driftcal."
        )
    return ran.stdout
