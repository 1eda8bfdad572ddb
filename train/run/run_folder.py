"""The folder of a run: the names of its files, and the one reader of a finished run.

Loads no jax, so a page is written without it.
"""

import io
import json
import zipfile
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from driftcal.shared import settings
from driftcal.shared.disk import limits
from driftcal.shared.errors import ConfigError
from driftcal.shared.json_record import JsonRecord, MissingKeys, WrongValue
from driftcal.shared.store import twin
from driftcal.shared.store.manifest import to_bytes, write_file
from driftcal.shared.store.reader import ShardStore
from driftcal.train.evaluation.evaluation import Evaluation
from driftcal.train.learners.drift.user_dynamics.fingerprint import UserDynamics
from driftcal.train.run.checkpoints import FOLDER, FREE, FUNCTION, refuse_other
from driftcal.train.run.folder_lock import contents
from driftcal.train.run.result import Groups, Parameter, Result
from driftcal.train.settings import Training

RESULT, CONFIG, METRICS = "result.json", "config.json", "metrics.jsonl"
EVALUATION, EXAMPLES, RESIDUALS = "evaluation.json", "examples.npz", "residuals.npz"
PAGE, FIGURES, DATA = "report.html", "figures", "training_data.json"
GROUPS = "groups.json"
DYNAMICS = "dynamics.eqx"
"""A user's calibrated term, as `equinox.tree_serialise_leaves` writes it."""

NEEDED: dict[str, tuple[str, ...]] = {
    RESULT: Result.keys(),
    CONFIG: (),
    METRICS: ("step", "phase", "loss", "cs"),
    EVALUATION: Evaluation.keys(),
    EXAMPLES: ("sample", "drifter", "start_time", "corner", "step", "currents", "track", "ensemble"),
    RESIDUALS: ("sample", "drifter", "lead_hours", "departure", "mean", "half_width_90"),
    DATA: ("recipe", "funnel", "trained_drifters"),
    GROUPS: Groups.keys(),
}
"""Keys of every file (of every line, of every array) that evaluation and page rest on."""

RECORDS: dict[str, type[JsonRecord]] = {RESULT: Result, EVALUATION: Evaluation, GROUPS: Groups}
"""Files that are read as records."""


class Run(NamedTuple):
    """A finished run; None where a file that only the page needs is missing.

    Attributes:
        result: what it found, and how sure that is.
        settings: what it was told.
        steps: lines of `metrics.jsonl`.
        evaluation: scores on other drifters.
        examples: a few ensembles to look at.
        data: the training store's manifest without its lists of files, and `trained_drifters`.
        groups: a constant for each of some groups of samples.
        residuals: residuals of training samples by lead time.
    """

    result: Result
    settings: Training
    steps: list[dict[str, Any]] | None
    evaluation: Evaluation | None
    examples: dict[str, np.ndarray] | None
    data: dict[str, Any] | None
    groups: Groups | None
    residuals: dict[str, np.ndarray] | None

    @property
    def truth(self) -> float | None:
        """The constant that made the drifters, in a twin experiment on the built-in dynamics."""
        return twin.constant((self.data or {}).get("recipe", {})) if self.settings.dynamics is None else None

    @property
    def parameter(self) -> tuple[str, float] | None:
        """Symbol and value of the parameter of a model of one; None where there are more."""
        if self.result.cs is not None:
            return "C_s", self.result.cs
        (name, found), *others = self.result.parameters.items()
        return (name, found.value) if isinstance(found, Parameter) and not others else None

    @property
    def interval(self) -> tuple[float, ...] | None:
        """The 90 % interval of the parameter of a model of one."""
        found = list(self.result.named.values())
        return found[0].interval_90 if len(found) == 1 else None

    @property
    def unit(self) -> str:
        """Unit of the objective."""
        return "m" if self.result.objective == "energy-plain" else "dimensionless"


def own_of(out: Path, run: Run) -> UserDynamics | None:
    """The user's dynamics of the run in `out`; None where it calibrated the built-in ones."""
    if run.settings.dynamics is None:
        return None
    assert run.result.function is not None  # checked when it was read
    return UserDynamics(out / DYNAMICS, run.result.function, out)


def read(out: Path) -> Run:
    """The finished run in `out`: one with a result and its settings.

    Raises:
        ConfigError: there is no finished run, or a file of it is damaged or lacks a key.
    """
    for name in (RESULT, CONFIG):
        if not (out / name).is_file():
            raise ConfigError(f"{out} is not a finished run: it has no {name}. Make one with drift-train run.")
    result = _held(out / RESULT)
    if result.dynamics is not None and result.function is None:
        raise ConfigError(f"{out / RESULT} lacks {FUNCTION}. Train again.")
    told = settings.build(Training, _held(out / CONFIG), str(out / CONFIG))
    return Run(result, told, *(_held(out / name) for name in (METRICS, EVALUATION, EXAMPLES, DATA, GROUPS, RESIDUALS)))


def claim(out: Path, identity: dict[str, Any], resume: bool) -> None:
    """Makes `out`, which is locked, the folder of the run that is `identity`: empty, or with `resume` that run's own.

    Raises:
        ConfigError: it holds something else, or cannot be read.
    """
    try:
        held = contents(out)
        if held and not resume:
            raise ConfigError(
                f"--out {out} exists and is not an empty folder. Choose another, remove it, or add --resume to go on "
                f"with the run in it."
            )
        for left in (*out.glob(".*.part"), *(out / FOLDER).glob(".*.part")):  # of a process that was killed
            left.unlink()
    except OSError as error:
        raise ConfigError(f"cannot use {out}: {error.strerror}. Choose another --out.") from error
    if CONFIG in held:
        told = settings.build(Training, _held(out / CONFIG), str(out / CONFIG))
        theirs: dict[str, Any] = {"settings": told.model_dump(mode="json", exclude=FREE)}
        if RESULT in held:
            result = read(out).result
            theirs |= {"store": result.store, FUNCTION: result.function}
        refuse_other(theirs, {key: identity[key] for key in theirs}, str(out))
    elif held - {FOLDER} and not all(name.endswith(".part") for name in held - {FOLDER}):
        raise ConfigError(f"--resume: {out} holds no run of drift-train, and is not empty. Choose another --out.")


def keep_training_data(out: Path, store: ShardStore) -> None:
    """Notes in `out` what the run was trained on: a later evaluation and its page may only see another store."""
    held = {key: value for key, value in store.manifest.as_json().items() if key not in ("files", "sources")}
    indices = np.unique(store.labels["drifter"][store.samples_of("train")])
    write_file(out / DATA, to_bytes(held | {"trained_drifters": sorted(store.drifters[k] for k in indices)}))


def keep_examples(out: Path, examples: dict[str, np.ndarray]) -> None:
    """Keeps the examples of an evaluation in `out` for the report."""
    _keep(out / EXAMPLES, examples)


def keep_residuals(out: Path, residuals: dict[str, np.ndarray]) -> None:
    """Keeps residuals of training samples in `out` for the report."""
    _keep(out / RESIDUALS, residuals)


def _keep(path: Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_file(path, buffer.getvalue())


def _held(path: Path) -> Any:
    """Content of a file of a run, checked; None if it is missing."""
    if not path.exists():
        return None
    again = {RESULT: "Train again.", CONFIG: "Train again.", METRICS: "Remove it, or train again."}
    again |= {GROUPS: again[METRICS], RESIDUALS: again[METRICS]}
    remedy = again.get(path.name, "Remove it, and run drift-train evaluate on the training store.")
    try:
        if path.suffix == ".npz":
            content = dict(np.load(io.BytesIO(path.read_bytes())))
        elif path.name == METRICS:
            content = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, MemoryError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError | MemoryError) and limits.concerns(error):
            raise limits.refused(f"cannot read {path}", error, "the run") from error
        raise ConfigError(f"{path} cannot be read ({error}). {remedy}") from error
    for number, part in enumerate(content if path.name == METRICS else [content], 1):
        where = f"{path}, line {number}" if path.name == METRICS else str(path)
        if not isinstance(part, dict):
            raise ConfigError(f"{where}: expected keys and values, found {type(part).__name__}. {remedy}")
        if missing := [key for key in NEEDED[path.name] if key not in part]:
            raise ConfigError(f"{where} lacks {', '.join(missing)}. {remedy}")
    if (record := RECORDS.get(path.name)) is None:
        return content
    try:
        if record is Result:
            _check_constant(content)
        return record.from_json(content)
    except MissingKeys as error:
        raise ConfigError(f"{path} lacks {error}. {remedy}") from error
    except WrongValue as error:
        raise ConfigError(f"{path}: {error}. {remedy}") from error


def _check_constant(tree: Any) -> None:
    """Refuses a result of the built-in dynamics whose constant is none."""
    cs = tree["cs"]
    number = isinstance(cs, int | float) and not isinstance(cs, bool)
    at_bound = number and cs == 0 and bool(tree["parameters"]["cs"].get("at_bound"))
    if tree["dynamics"] is None and not (number and isfinite(cs) and (cs > 0 or at_bound)):
        raise WrongValue(f"cs is {cs!r}, expected a number above 0")
