"""The compiled kernel, registered with XLA."""

import functools
from importlib.metadata import version
from pathlib import Path

import jax

from driftcal.shared import geo
from driftcal.shared.errors import ConfigError
from driftcal.shared.native import compiler
from driftcal.shared.native.compiler import Library
from driftcal.shared.store import schema
from driftcal.train.learners.drift import smagorinsky, sphere

KERNEL = Library(
    source=Path(__file__).with_name("kernel.cpp"),
    entry="driftcal_simulate",
    wanted="engine=native",
    instead="set engine to driftcal",
    # what the kernel shares with the Python around it, defined there once
    constants={
        "EARTH_RADIUS": geo.EARTH_RADIUS,
        "METRES_PER_DEGREE": geo.METRES_PER_DEGREE,
        "SCALE": schema.SCALE,
        "FILL": int(schema.FILL),
        "COAST": smagorinsky.COAST,
        "LEAST_KAPPA": smagorinsky.LEAST_KAPPA,
        "LEAST_SQUARE": sphere.LEAST_SQUARE,
    },
    include=(jax.ffi.include_dir(),),
    versions=(version("jax"), version("jaxlib")),
)


@functools.cache
def register() -> str:
    """Makes the kernel known to XLA, compiling it if need be; its name there is that of its function.

    Raises:
        ConfigError: JAX computes on something else than a CPU, there is no C++ compiler, or it failed.
    """
    if jax.default_backend() != "cpu":
        raise ConfigError(
            f"engine=native computes on the CPU, and JAX uses {jax.default_backend()} here. Set engine to driftcal, "
            f"which is made for that device, or the environment variable JAX_PLATFORMS to cpu."
        )
    entry = jax.ffi.pycapsule(compiler.load(KERNEL))
    jax.ffi.register_ffi_target(KERNEL.entry, entry, platform="cpu")
    return KERNEL.entry
