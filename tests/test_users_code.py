"""Users' code that ends the process, speaks, or changes what is around it: named, or set back and said."""

import argparse
import io
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from driftcal.shared import command
from driftcal.shared.errors import ConfigError, Interrupted
from driftcal.train.__main__ import main
from driftcal.train.learners.drift.user_dynamics import isolation, loading
from driftcal.train.run import loop
from tests import stores
from tests.commands import refused

TERM = """
import argparse, os, signal, sys
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

class Ends(BaseException):
    pass

def act(how):
    if how == "exits":
        sys.exit(0)
    if how == "raises":
        raise SystemExit("enough")
    if how == "interrupts":
        raise KeyboardInterrupt
    if how == "base":
        raise Ends("no more")
    if how == "parses":
        argparse.ArgumentParser(prog="theirs").parse_args(["--no-such"])
    if how == "leaves":
        os._exit(0)
    if how == "fails":
        raise OSError("no such forcing")

if PLACE == "import":
    act(HOW)

class Term(eqx.Module):
    a: jax.Array
    def __init__(self):
        if PLACE == "build":
            act(HOW)
        self.a = jnp.asarray(1.0)
    def term(self, t, y, args):
        if PLACE == "trace":
            act(HOW)
        return jnp.stack([args.u, args.v]) * self.a, 0.1
"""
SAID = {
    "exits": "asks to leave the process, with 0",
    "raises": "asks to leave the process, with 'enough'",
    "interrupts": "raises KeyboardInterrupt, which ends a process",
    "base": "raises Ends (no more), which ends a process",
    "parses": "asks to leave the process, with 2 (it said: theirs: error: unrecognized arguments: --no-such)",
    "leaves": "asks to leave the process, with 0",
    "fails": "OSError: no such forcing",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    yield tmp_path
    sys.modules.pop("theirs", None)


@pytest.mark.parametrize("how", SAID)
@pytest.mark.parametrize("place", ["import", "build", "trace"])
def test_what_ends_a_process_is_named(own: Path, capsys: pytest.CaptureFixture[str], place: str, how: str) -> None:
    (own / "theirs.py").write_text(f"PLACE, HOW = {place!r}, {how!r}\n{TERM}")
    with pytest.raises(ConfigError) as caught:
        loading.load("theirs:Term", {}, np.dtype(np.float32))
    said = str(caught.value)
    assert SAID[how] in said
    doing = {"import": "importing theirs", "build": "building Term", "trace": "tracing its term"}[place]
    if how != "fails":
        assert f"dynamics 'theirs:Term': {doing} {SAID[how]}, so there is no run." in said
        assert "belongs under if __name__ == '__main__'." in said
    assert capsys.readouterr() == ("", "")


MODEL = """
import sys
import jax.numpy as jnp
from driftcal.train.gradient_cost import Model

if PLACE == "import":
    sys.exit(0)

def step(state, p, k):
    if PLACE == "trace":
        sys.exit(0)
    return state * p

def build():
    if PLACE == "build":
        sys.exit(0)
    print("building")
    return Model(step, jnp.ones(3), jnp.asarray(0.9), lambda state: state.sum())
"""


@pytest.mark.parametrize("place", ["import", "build", "trace"])
def test_a_model_of_a_study_that_leaves_is_named(own: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    (own / "theirs.py").write_text(f"PLACE = {place!r}\n{MODEL}")
    out = own / "out"
    said = refused(capsys, 2, "cost", "--model", "theirs:build", "--steps", "3", "--out", out)
    assert "--model 'theirs:build': " in said
    assert "asks to leave the process, with 0, so there is no run." in said
    assert not out.exists()


def test_a_signal_is_no_fault_of_the_code() -> None:
    with pytest.raises(KeyboardInterrupt), isolation.guarded("importing"):
        signal.raise_signal(signal.SIGINT)

    def stop(number: int, frame: object) -> None:
        raise Interrupted("stopped")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Interrupted, match="stopped"), isolation.guarded("importing"):
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_changed_is_set_back_and_said(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "below").mkdir()
    before = signal.getsignal(signal.SIGINT)
    with isolation.guarded("importing theirs"):
        os.chdir(own / "below")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        np.seterr(divide="raise")
        jax.config.update("jax_numpy_rank_promotion", "raise")
        print("hello")
    out, err = capsys.readouterr()
    assert out == ""
    assert "hello\n" in err
    assert "note: importing theirs changes what SIGINT does, which is set back" in err
    assert f"the working directory (to {own / 'below'}), which is set back." in err
    assert "jax_numpy_rank_promotion, numpy's handling of 'divide'" in err
    assert Path.cwd() == own
    assert signal.getsignal(signal.SIGINT) is before
    assert np.geterr()["divide"] == "warn"
    assert jax.config.jax_numpy_rank_promotion == "allow"


def test_warnings_that_are_made_errors_are_warnings_again(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.filterwarnings("error", "ours", UserWarning)
        before = list(warnings.filters)
        with isolation.guarded("importing theirs"):
            warnings.filterwarnings("ignore", "theirs", DeprecationWarning, "package", 3)
            added = warnings.filters[0]
            warnings.simplefilter("error")
        assert list(warnings.filters) == [added, *before]
        with pytest.warns(RuntimeWarning, match="of a library"):
            warnings.warn("of a library", RuntimeWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn("ours", UserWarning, stacklevel=1)
    assert "note: importing theirs changes warnings into errors, which is set back." in capsys.readouterr().err


def test_streams_that_are_closed_are_open_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with isolation.guarded("importing"):
        sys.stdout.close()
        os.close(1)
        sys.stdout = io.StringIO()
    with isolation.guarded("importing"):
        os.system("echo past Python")
    print("result", flush=True)
    out, err = capfd.readouterr()
    assert out == "result\n"
    assert "past Python" in err


def test_a_logger_made_inside_speaks_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    with isolation.guarded("importing"):
        handler = logging.StreamHandler()
        handler.handle(logging.makeLogRecord({"msg": "inside"}))
    handler.handle(logging.makeLogRecord({"msg": "afterwards"}))
    assert capsys.readouterr() == ("", "inside\nafterwards\n")


def test_a_net_under_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(debug=False)

    def work(options: object) -> int:
        raise SystemExit(0)

    assert command.run(work, options) == 2
    assert "ended half way by code that asks to leave the process, with 0" in capsys.readouterr().err


PRINTS = """
import equinox as eqx
import jax
import jax.numpy as jnp

print("imported")

class Term(eqx.Module):
    k: jax.Array
    def __init__(self):
        print("built")
        self.k = jnp.asarray(9.0)
    def term(self, t, y, args):
        print("traced")
        return jnp.stack([args.u, args.v]), jnp.abs(self.k)
"""


def test_stdout_stays_for_results(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a term prints when it is traced in a step, as when it is loaded."""
    (own / "theirs.py").write_text(PRINTS)
    loading.load("theirs:Term", {}, np.dtype(np.float32))
    out, err = capsys.readouterr()
    assert (out, err.split()) == ("", ["imported", "built", "traced"])

    def steps(*arguments: object) -> None:
        print("traced")
        raise ConfigError("far enough")

    monkeypatch.setattr(loop, "run", steps)
    assert main(["run", str(stores.build(own / "store").path), "--out", str(own / "run")]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "traced\nerror: far enough\n")


# Leaves that cannot be saved


class Keyed(eqx.Module):
    a: jax.Array
    inner: dict[str, object]

    def term(self, t: object, y: jax.Array, args: object) -> tuple[jax.Array, float]:
        return y * self.a, 0.1


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        (jax.random.key(0), "inner.seed, an array of key<fry>, cannot be saved and loaded again"),
        (np.array([{"a": 1}], dtype=object), "inner.seed, an array of object, cannot be saved and loaded again"),
        (np.zeros(2, [("a", "f4")]), None),
        (jnp.zeros(2, jnp.bfloat16), None),
        (np.array([np.nan, 1.0]), None),
        (np.arange(3), None),
        (7, None),
        ("text", None),
        (np.float64(0.1), None),
        (1e-300, None),
        (2 + 1j, None),
        (abs, None),
    ],
)
def test_what_cannot_be_saved_is_refused_before_the_first_step(leaf: object, said: str | None) -> None:
    module = Keyed(jnp.asarray(1.0), {"seed": leaf})
    if said is None:
        loading._check_saving("m:Keyed", module)
        return
    with pytest.raises(ConfigError) as caught:
        loading._check_saving("m:Keyed", module)
    assert said in str(caught.value)
    assert "equinox.field(static=True)" in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), b"x", {"a", "b"}, [1, {"b": float("nan")}]])
def test_settings_that_would_come_back_as_others_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"dynamics_settings\.x.* which a run's config\.json cannot hold"):
        loading._check_settings("m:C", {"fine": [1, 0.5, "a", True, None], "x": value})
    loading._check_settings("m:C", {"fine": [1, 0.5, "a", True, None, {"b": 2}]})
