"""Which engine simulates: this project's own, or pastax where it is installed."""

from collections.abc import Callable
from importlib import import_module

from shared.errors import ConfigError
from train.config import Engine
from train.simulate import Simulation, simulate

PASTAX = "git+https://github.com/vadmbertr/pastax"


def simulator(engine: Engine) -> Callable[..., Simulation]:
    """The function that simulates; `train.simulate.simulate` says what it takes and gives.

    Raises:
        ConfigError: the engine's package is missing, or too old.
    """
    if engine == "driftcal":
        return simulate
    try:
        # not at the top: pastax is an extra, and nothing else may depend on it
        return import_module("train.pastax_bridge").simulate
    except ImportError as error:
        raise ConfigError(
            f"engine=pastax needs pastax 0.1 or newer, which this Python has not: {error}. Install it with "
            f"pip install '{PASTAX}', or leave engine at driftcal."
        ) from error
