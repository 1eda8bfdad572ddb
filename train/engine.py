"""Which engine simulates: this project's own, the same as a C++ kernel, or pastax where it is installed."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from shared.errors import ConfigError
from train import simulate as own
from train.config import Engine
from train.data import Batch
from train.native import library
from train.native import simulate as native
from train.simulate import Dynamics, Plan, Simulation

REPOSITORY = "https://github.com/vadmbertr/pastax"


def simulator(engine: Engine) -> Callable[..., Simulation]:
    """The engine's `simulate`.

    Raises:
        ConfigError: what the engine needs is missing: pastax (or it is too old), or a CPU and a C++ compiler.
    """
    if engine == "driftcal":
        return own.simulate
    if engine == "native":
        library.register()
        return native.simulate
    try:
        # not at the top: pastax is an extra, and nothing else may depend on it
        return import_module("train.pastax_bridge").simulate
    except ImportError as error:
        raise ConfigError(
            f"engine=pastax needs pastax 0.1 or newer, which this Python cannot import ({error}). Install it with "
            f"pip install git+{REPOSITORY}, or set engine to driftcal."
        ) from error


def simulate(dynamics: Dynamics, batch: Batch, plan: Plan, *args: Any, **kwargs: Any) -> Simulation:
    """`train.simulate.simulate` by the engine of `plan`: the same arguments, the same result."""
    return simulator(plan.engine)(dynamics, batch, plan, *args, **kwargs)
