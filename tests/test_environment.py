"""Variables that JAX refuses are named; modes for code under test do not touch our computations."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from driftcal.shared.errors import ConfigError
from driftcal.train.machine import devices, environment, modes
from tests import runs, stores
from tests.commands import FAST


def command(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "driftcal.train", *(str(word) for word in words)]
    return subprocess.run(arguments, env=os.environ | variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("JAX_ENABLE_X64", "maybe"), ("JAX_NUMPY_DTYPE_PROMOTION", "strictly"), ("JAX_NUM_CPU_DEVICES", "x")],
)
def test_a_value_that_jax_does_not_take_is_named(name: str, value: str) -> None:
    done = command("run", "store", "--out", "run", **{name: value})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"error: {name}={value!r} in the environment is no value that JAX takes (" in done.stderr
    assert f"Set another, or unset {name}." in done.stderr


@pytest.mark.parametrize("verb", ["run", "evaluate"])
def test_a_platform_that_is_not_there_is_named(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise RuntimeError("Unable to initialize backend 'nonsense'")

    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(ConfigError) as caught:
        devices.Devices.of() if verb == "run" else devices.check()
    assert "JAX has no device to compute on (Unable to initialize backend 'nonsense')" in str(caught.value)
    assert "JAX_PLATFORMS='nonsense' in the environment chooses one. Unset that" in str(caught.value)


def test_the_command_names_a_platform_that_is_not_there(tmp_path: Path) -> None:
    done = command("run", stores.build(tmp_path / "store").path, "--out", tmp_path / "run", JAX_PLATFORMS="nonsense")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "JAX_PLATFORMS='nonsense' in the environment" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", ["--no_such_flag=1", "nonsense"])
def test_flags_that_would_end_the_process_are_named(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    monkeypatch.setenv("XLA_FLAGS", flags)
    with pytest.raises(ConfigError) as caught:
        environment.check_flags()
    assert f"XLA_FLAGS={flags!r} in the environment is not what XLA takes (" in str(caught.value)
    assert "or unset XLA_FLAGS." in str(caught.value)


def test_flags_that_xla_takes_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags in ("", "--xla_force_host_platform_device_count=4", "--xla_cpu_enable_fast_math=false"):
        monkeypatch.setenv("XLA_FLAGS", flags)
        environment.check_flags()


def test_variables_of_jax_that_are_empty_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_ENABLE_X64", "")
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", " ")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    environment.drop_empty()
    assert "JAX_ENABLE_X64" not in os.environ
    assert "JAX_COORDINATOR_ADDRESS" not in os.environ
    assert os.environ["JAX_PLATFORMS"] == "cpu"


def test_only_modes_of_the_environment_are_set_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAX_NUMPY_RANK_PROMOTION", "raise")
    with modes.kept() as changed:
        jax.config.update("jax_numpy_rank_promotion", "raise")
        jax.config.update("jax_debug_infs", True)
        modes.set_back()
        assert jax.config.jax_numpy_rank_promotion == "allow"
        assert jax.config.jax_debug_infs
    assert changed == ["jax_debug_infs"]
    assert not jax.config.jax_debug_infs
    assert "note: JAX_NUMPY_RANK_PROMOTION=raise is for code under test" in capsys.readouterr().err


STRICT = {
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_LEGACY_PRNG_KEY": "error",
    "JAX_DISABLE_JIT": "1",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_CHECK_TRACER_LEAKS": "1",
    "JAX_ENABLE_CHECKS": "1",
    "JAX_DEBUG_INFS": "1",
    "JAX_DEBUG_KEY_REUSE": "1",
}


@pytest.mark.faults
def test_strict_modes_of_the_environment_change_no_byte(tmp_path: Path) -> None:
    store = stores.build(tmp_path / "store").path
    for name, variables in (("usual", {}), ("strict", STRICT)):
        done = command("run", store, "--out", tmp_path / name, *FAST, "--json", **variables)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["cs"] > 0
        said = [word for word in STRICT if f"{word}={STRICT[word]}" in done.stderr]
        assert said == (list(variables) if variables else [])
    assert runs.contents(tmp_path / "strict") == runs.contents(tmp_path / "usual")
