"""Engines that simulate: this project's own, the same as a C++ kernel, or pastax if it is installed."""

import json
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from driftcal.shared.command import say
from driftcal.shared.errors import ConfigError
from driftcal.train.learners.drift import simulate as own
from driftcal.train.learners.drift.native_engine import library
from driftcal.train.learners.drift.native_engine import simulate as native
from driftcal.train.learners.drift.simulate import Dynamics, Plan, Simulation
from driftcal.train.reading.batches import Batch
from driftcal.train.settings import Engine

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
        return import_module("driftcal.train.learners.drift.pastax_engine").simulate
    except ImportError as error:
        raise ConfigError(
            f"engine=pastax needs pastax 0.1 or newer, which this Python cannot import ({error}). Install it with "
            f"pip install git+{REPOSITORY}, or set engine to driftcal."
        ) from error


def version_of(engine: Engine) -> str | None:
    """Version and revision of the package that simulates; None where that is this one."""
    if engine != "pastax":
        return None
    try:
        package = distribution("pastax")
    except PackageNotFoundError:  # `simulator` says what to do
        return None
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    revision = origin.get("vcs_info", {}).get("commit_id")
    return package.version if revision is None else f"{package.version} ({revision})"


def note_other_version(made_with: str, made_by: str | None, engine: Engine, where: Path) -> None:
    """Says where a finished run was computed by another version than the one that is about to compute for it.

    Args:
        made_with: Version of driftcal that made the run.
        made_by: Version of its engine, where that is another package.
        engine: Of the run.
        where: Folder of the run.
    """
    for name, before, now in (
        ("driftcal", made_with, version("driftcal")),
        (engine, made_by, version_of(engine)),
    ):
        if before != now:
            say(f"note: {where} was made with {name} {before}, and this is {name} {now}: what it computes may differ.")


def simulate(dynamics: Dynamics, batch: Batch, plan: Plan, *args: Any, **kwargs: Any) -> Simulation:
    """`drift.simulate.simulate` by the engine of `plan`: the same arguments, the same result."""
    return simulator(plan.engine)(dynamics, batch, plan, *args, **kwargs)
