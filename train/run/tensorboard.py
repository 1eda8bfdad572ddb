"""TensorBoard event files with the lines of a run: an extra beside `metrics.jsonl`, never instead of it."""

from importlib import import_module
from pathlib import Path
from typing import Any

from driftcal.shared.errors import ConfigError

FOLDER = "tensorboard"


class Board:
    """Writes the numbers of every line as scalars into `out/tensorboard`; repeated steps are purged on resuming."""

    def __init__(self, out: Path, step: int):
        """Lines after `step` follow.

        Raises:
            ConfigError: tensorboardX is missing.
        """
        try:
            # not at the top: it is an extra
            writer = import_module("tensorboardX").SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "tracking.tensorboard needs tensorboardX. Install it with pip install '.[tensorboard]', or leave the "
                "setting false."
            ) from error
        self._writer = writer(str(out / FOLDER), purge_step=step + 1)

    def add(self, line: dict[str, Any]) -> None:
        """One line of `metrics.jsonl`."""
        step = line["step"]
        for name, value in _scalars(line):
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes the last lines."""
        self._writer.close()


def _scalars(line: dict[str, Any]) -> list[tuple[str, float]]:
    found = []
    for name, value in line.items():
        if isinstance(value, dict):
            found += [(f"{name}/{part}", float(number)) for part, number in value.items()]
        elif isinstance(value, list):
            found.append((name, float(len(value))))
        elif isinstance(value, int | float) and name not in ("step", "epoch"):
            found.append((name, float(value)))
    return found
