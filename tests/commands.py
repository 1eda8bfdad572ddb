"""drift-train as the tests call it: settings of a run of seconds, and mistakes that are one message."""

from pathlib import Path

import pytest

from driftcal.train.__main__ import main

FAST = ("--set", "ensemble.members=3", "--set", "integration.step=3h", "--set", "score.reference_members=2",
        "--set", "batch_size=3")  # fmt: skip
"""As `tests.runs.TINY`, so that programs that were compiled for one are there for the other."""


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str | Path) -> str:
    """Runs the command, which must fail with one message, and returns it."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    return err
