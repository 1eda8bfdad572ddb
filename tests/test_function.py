"""A run knows which function it calibrated: what changes a term is refused, what does not is not, and state is none."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from driftcal.shared.errors import ConfigError
from driftcal.shared.settings import build
from driftcal.shared.store.reader import ShardStore
from driftcal.train.fit.parameters import Parameters
from driftcal.train.fit.standard_errors import Judged
from driftcal.train.learners.drift import dynamics
from driftcal.train.learners.drift.user_dynamics import fingerprint, loading, tracing
from driftcal.train.run import loop
from driftcal.train.run import run_folder as folder
from driftcal.train.settings import Training
from tests import stores
from tests.commands import refused

POINTS = [
    [float(np.float32(x)) for x in (9e3 * k, 170 + 0.3 * k, -30 + 0.2 * k, *tracing.FLOWS[k % 5])] for k in range(7)
]

MODULE = """
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from helper import amplitude
from driftcal.train.fit.parameters import Positive

RIDGE = np.linspace(0.0, 1.0, 50) ** 2

@jax.custom_jvp
def gate(x):
    return jnp.tanh(x)

gate.defjvp(lambda p, t: (jnp.tanh(p[0]), 1.5 * t[0]))

def looked_up(x):
    return np.asarray(0.25 * np.asarray(x), np.asarray(x).dtype)

@jax.custom_jvp
def hidden(x):
    return jax.pure_callback(looked_up, jax.ShapeDtypeStruct((), x.dtype), x, vmap_method="expand_dims")

hidden.defjvp(lambda p, t: (hidden(p[0]), 0.25 * t[0]))

class Mine(eqx.Module):
    k: Positive
    slip: jax.Array
    table: np.ndarray
    def __init__(self, k=80.0, slip=0.1):
        self.k, self.slip = Positive(k), jnp.asarray(slip)
        self.table = np.load("table.npy")
    def term(self, t, y, args):
        shear = gate(args.kappa / 1e3) + hidden(args.u)
        wind = jnp.interp(y[1], jnp.linspace(-40.0, -20.0, 30), self.table) + 1e-3 * RIDGE.sum()
        drift = jnp.stack([args.u + self.slip * wind, args.v + 0.02 * shear])
        return jax.lax.cond(args.kappa > 1e3, lambda d: 1.01 * d, lambda d: d, drift), amplitude(self.k.value)
"""

HELPER = """
import jax
import jax.numpy as jnp

@jax.jit
def amplitude(k):
    return jnp.sqrt(2 * k)
"""


SIMPLE = """
import equinox as eqx
import jax.numpy as jnp
from driftcal.train.fit.parameters import Positive
from helper import amplitude

class Mine(eqx.Module):
    k: Positive = Positive(80.0)
    def term(self, t, y, args):
        return jnp.stack([args.u, args.v]), amplitude(self.k.value)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a user's module, its helper and its data in it."""
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a change within a second would not be seen
    yield tmp_path
    forget()


def write(folder: Path) -> None:
    (folder / "mine.py").write_text(MODULE)
    (folder / "helper.py").write_text(HELPER)
    np.save(folder / "table.npy", np.cos(np.arange(30.0)))


def forget() -> None:
    """As in a new process."""
    for name in ("mine", "helper", "other"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def taken(spec: str = "mine:Mine", **settings: Any) -> fingerprint.Fingerprint:
    forget()
    return loading.fingerprint_of(spec, loading.load(spec, settings, np.dtype(np.float32)), POINTS)


def compared(before: fingerprint.Fingerprint, now: fingerprint.Fingerprint) -> None:
    """As a run's folder holds it, by way of JSON."""
    fingerprint.check(json.loads(json.dumps(before, allow_nan=False)), now, "RUN", "Do this.")


def edit(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


HARMLESS = {
    "comment": [("mine.py", "class Mine", "# mine\nclass Mine"), ("helper.py", "@jax.jit", "# theirs\n@jax.jit")],
    "docstring and layout": [("helper.py", "    return", '    """Twice."""\n\n    return')],
    "variables": [
        ("mine.py", "wind", "breeze"),
        ("mine.py", "drift = ", "moved = "),
        ("mine.py", ", drift)", ", moved)"),
    ],
    "functions": [("mine.py", "amplitude", "size"), ("helper.py", "amplitude", "size"), ("mine.py", "hidden", "seen")],
    "unused": [("mine.py", "        wind =", "        spare = jnp.exp(args.u)\n        wind =")],
    "printing": [("mine.py", "        wind =", "        print('tracing')\n        wind =")],
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> fingerprint.Fingerprint:
    """Of the module as it is."""
    with pytest.MonkeyPatch.context() as patch:
        write(folder := tmp_path_factory.mktemp("original"))
        patch.chdir(folder)
        return taken()


@pytest.mark.parametrize("change", HARMLESS)
def test_what_changes_no_number_changes_no_function(
    own: Path, original: fingerprint.Fingerprint, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = original
    for name, old, new in HARMLESS[change]:
        edit(own / name, (old, new))
    now = taken()
    assert now["program"] == before["program"]
    compared(before, now)
    assert capsys.readouterr().out == ""


CHANGES = {
    "helper": ([("helper.py", "2 * k", "2.5 * k")], "a number in it was 2.0, now 2.5; its eastward diffusion at t 0 s"),
    "helper's computation": ([("helper.py", "jnp.sqrt(2 * k)", "jnp.cbrt(2 * k)")], "it computes otherwise"),
    "number": ([("mine.py", "0.02 * shear", "0.03 * shear")], "a number in it was 0.01999999"),
    "array": ([("mine.py", "** 2", "** 3")], "a number in it was"),
    "branch": ([("mine.py", "1.01 * d", "1.02 * d")], "a number in it was 1.00999"),
    "where a branch is taken": ([("mine.py", "kappa > 1e3", "kappa > 1e4")], "a number in it was 1000.0, now 10000.0"),
    "derivative by hand": ([("mine.py", "1.5 * t[0]", "1.25 * t[0]")], "a number in it was 1.5, now 1.25"),
    "callback": (
        [("mine.py", "0.25 * np.asarray", "0.26 * np.asarray")],
        "its northward drift at t 0 s, lon, lat 170,",
    ),
    "start": ([("mine.py", "k=80.0", "k=90.0")], "parameter k was trained from 4.38203, and starts now at 4.49981"),
    "parameters": (
        [("mine.py", "jnp.asarray(slip)", "jnp.full(2, slip)"), ("mine.py", "self.slip *", "self.slip[0] *")],
        "it computes otherwise",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_function_is_refused_and_named(
    own: Path, original: fingerprint.Fingerprint, change: str
) -> None:
    before = original
    edits, said = CHANGES[change]
    for name, old, new in edits:
        edit(own / name, (old, new))
    now = taken()
    with pytest.raises(ConfigError) as caught:
        compared(before, now)
    assert f"RUN calibrated another function than dynamics 'mine:Mine' is now: {said}" in str(caught.value)
    assert f"Changed since: {edits[0][0][:-3]}. Do this." in str(caught.value)


def test_a_data_file_and_another_module_of_the_name_are_refused(own: Path, original: fingerprint.Fingerprint) -> None:
    before = original
    table = np.load(own / "table.npy")
    table[17] += 1e-6
    np.save(own / "table.npy", table)
    with pytest.raises(ConfigError, match=r"an array of float32 of shape \(30,\) in it has other values") as caught:
        compared(before, taken())
    assert "Its modules have not changed, but something that they take from elsewhere: a data file" in str(caught.value)
    other = MODULE.split("class Mine", maxsplit=1)[0] + "class Mine(eqx.Module):\n    k: Positive = Positive(80.0)\n"
    (own / "mine.py").write_text(other + "    def term(self, t, y, args):\n        return y * 0, self.k.value\n")
    with pytest.raises(ConfigError, match=r"it computes otherwise; .*it has other parameters \(k \(\), slip \(\); now"):
        compared(before, taken())


def test_another_jax_leaves_it_to_the_values(
    original: fingerprint.Fingerprint, capsys: pytest.CaptureFixture[str]
) -> None:
    now = original
    before = now | {"program": "traced otherwise", "made_with": now["made_with"] | {"jax": "0.9.1"}}
    compared(before, now)
    said = capsys.readouterr().err
    assert f"note: RUN was made with jax 0.9.1, now {jax.__version__}, which trace a term otherwise" in said
    assert "its values at 7 points, which agree within 5e-05" in said
    moved = np.array(now["values"])
    moved[1, 2, 0] *= 1 + 1e-3
    with pytest.raises(ConfigError, match="its eastward drift at t 18000 s"):
        compared(before | {"values": moved.tolist()}, now)


def test_another_processor_may_round_constants_otherwise(original: fingerprint.Fingerprint) -> None:
    now = original
    elsewhere = {"made_with": now["made_with"] | {"processor": "another"}}
    rounded = [
        array | {"sha256": "other", "sketch": [v * (1 + 1e-8) for v in array["sketch"]]} for array in now["arrays"]
    ]
    compared(now | elsewhere | {"arrays": rounded}, now)
    with pytest.raises(ConfigError, match="in it has other values"):
        compared(now | {"arrays": rounded}, now)
    changed = [
        array | {"sha256": "other", "sketch": [v * (1 + 1e-4) for v in array["sketch"]]} for array in now["arrays"]
    ]
    with pytest.raises(ConfigError, match="in it has other values"):
        compared(now | elsewhere | {"arrays": changed}, now)


@pytest.mark.parametrize("damage", [{"values": "x"}, {"points": []}, {"start": None}, {"made_with": {}}])
def test_a_damaged_record_is_told(original: fingerprint.Fingerprint, damage: dict[str, Any]) -> None:
    now = original
    with pytest.raises(ConfigError, match=r"RUN.* calibrated"):
        compared(now | damage, now)
    with pytest.raises(ConfigError, match="does not say which function it calibrated"):
        fingerprint.check(None, now, "RUN", "")


def test_a_helper_that_is_imported_where_it_is_called(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(own))])  # as of a command
    late = SIMPLE.replace("from helper import amplitude\n", "")
    (own / "mine.py").write_text(
        late.replace("        return", "        from helper import amplitude\n\n        return")
    )
    before = taken()
    compared(before, taken())
    edit(own / "helper.py", ("2 * k", "2.5 * k"))
    with pytest.raises(ConfigError, match=r"a number in it was 2\.0, now 2\.5"):
        compared(before, taken())


# Terms that are no functions

STATE = """
import datetime
import random
import time
from datetime import datetime as Now
from time import time as seconds
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

COUNT = [0]
DRAWN = np.random.default_rng().normal() if "at import" in HOW else 0.0

def counted():
    COUNT[0] += 1
    return COUNT[0]

@jax.jit
def cached(x):
    return x * np.random.default_rng().normal()

@jax.custom_jvp
def called(x):
    draw = lambda x: np.asarray(np.random.default_rng().normal(size=np.shape(x)), np.float32)
    return jax.pure_callback(draw, jax.ShapeDtypeStruct((), x.dtype), x, vmap_method="expand_dims")

called.defjvp(lambda p, t: (called(p[0]), t[0]))

class State(eqx.Module):
    k: jax.Array
    drawn: float
    def __init__(self):
        self.k = jnp.asarray(2.0)
        self.drawn = float(np.random.default_rng().normal()) if HOW == "when built" else 1.0
        if HOW == "start":
            self.k = jnp.asarray(np.random.default_rng().normal())
    def term(self, t, y, args):
        factor = {
            "numpy": lambda: np.random.normal(),
            "generator": lambda: np.random.default_rng().normal(),
            "python": lambda: random.random(),
            "array": lambda: np.random.default_rng().normal(size=3).sum(),
            "counter": lambda: counted(),
            "time": lambda: time.time(),
            "time imported": lambda: seconds(),
            "hour": lambda: float(datetime.datetime.now().hour + 24 * datetime.date.today().day),
            "hour imported": lambda: float(Now.now().hour),
            "local time": lambda: float(time.localtime().tm_min),
            "time as text": lambda: float(time.strftime("%j")),
            "cached": lambda: cached(args.v),
            "callback": lambda: called(args.v),
            "seeded": lambda: np.random.default_rng(3).normal() * jax.random.normal(jax.random.key(4)),
            "first trace": lambda: 1.0,
        }.get(HOW, lambda: self.drawn + DRAWN)()
        return jnp.stack([args.u, args.v]) + 1e-3 * factor, self.k
"""
WHENEVER = ("at import", "when built", "start")
TRACED = ("numpy", "generator", "python", "array", "counter", "time", "time imported", "hour", "hour imported",
          "local time", "time as text", "cached", "callback")  # fmt: skip


def judged(own: Path, how: str) -> fingerprint.Fingerprint:
    (own / "other.py").write_text(f"HOW = {how!r}\n{STATE}")
    forget()
    module = loading.load("other:State", {}, np.dtype(np.float32))
    return loading.function_of("other:State", module, {}, POINTS)


@pytest.mark.parametrize("how", TRACED)
def test_a_term_with_state_is_refused(own: Path, how: str) -> None:
    with pytest.raises(
        ConfigError, match=r"dynamics 'other:State': its term is no function of its arguments: traced a"
    ):
        judged(own, how)


@pytest.mark.parametrize("how", WHENEVER)
def test_a_term_that_is_built_at_random_is_refused(own: Path, how: str) -> None:
    with pytest.raises(ConfigError, match=r"it is another function whenever it is imported and built: .*from a seed"):
        judged(own, how)


def test_what_is_drawn_from_a_seed_is_a_function(own: Path) -> None:
    compared(judged(own, "seeded"), judged(own, "seeded"))


# A run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stores.build(tmp_path_factory.mktemp("function") / "store", 30).path


def computed(
    store: ShardStore, samples: np.ndarray, settings: Training, parameters: Parameters, *rest: object
) -> Judged:
    """In place of a calibration: its start, so that nothing needs compiling."""
    return Judged(parameters.start, 1.0, 0.5, len(samples), 3, 3, {"escaped": 0, "ashore": 0})


def test_a_run_refuses_to_go_on_and_to_be_evaluated_with_another_function(
    own: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = own / "run"
    (own / "mine.py").write_text(SIMPLE)
    monkeypatch.setattr(loop, "_calibrate", computed)
    command = ["run", str(store), "--out", str(out), "--set", "dynamics=mine:Mine", "--set", "integration.step=3h"]
    settings = build(Training, {"dynamics": "mine:Mine", "integration": {"step": "3h"}}, "test")
    forget()
    result = loop.run(ShardStore(store), settings, out, False)
    assert result.function is not None
    assert result.function["sources"].keys() == {"mine", "helper"}
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    edit(own / "helper.py", ("2 * k", "2.5 * k"))
    said = f"{out} calibrated another function than dynamics 'mine:Mine' is now: a number in it was 2.0, now 2.5; "
    for again in ([*command, "--resume"], ["evaluate", out, store, "--split", "test"]):
        forget()
        message = refused(capsys, 2, *again)
        assert said in message
        assert "Changed since: helper." in message
        assert {path: path.read_bytes() for path in kept} == kept
    assert not (out / folder.EVALUATION).exists()
    edit(own / "helper.py", ("2.5 * k)", "2 * k)  # of course"))
    forget()
    run = folder.read(out)
    dynamics.calibrated(run.settings, None, folder.own_of(out, run))
    assert loop.run(ShardStore(store), settings, out, False, resume=True) == result
    edit(own / "helper.py", ("2 * k", "2.5 * k"))
    (out / folder.RESULT).unlink()  # as if it had been stopped before
    forget()
    message = refused(capsys, 2, *command, "--resume")
    assert (
        ".npz calibrated another function than dynamics 'mine:Mine' is now: a number in it was 2.0, now 2.5" in message
    )
    assert "Resume with what the run was begun with, or choose another --out." in message
