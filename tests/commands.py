"""drift-train as the tests call it: settings of a run of seconds, and mistakes that are one message."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from matplotlib.figure import Figure

from driftcal.shared.canvas import settled
from driftcal.train.__main__ import main
from driftcal.train.report import figures_run

FAST = ("--set", "ensemble.members=3", "--set", "integration.step=3h", "--set", "score.reference_members=2",
        "--set", "batch_size=3")  # fmt: skip
"""Settings of `tests.runs.TINY`, so that programs that were compiled for one are there for the other."""


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str | Path) -> str:
    """Runs the command, which must fail with one message, and returns it."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    return err


@contextmanager
def unwritten_figures() -> Iterator[None]:
    """Inside, figures of a run's page are drawn but not written, which takes longer than the rest of a small run."""

    def drawn(make: Callable[[], Figure]) -> dict[str, bytes]:
        with settled(figures_run.STYLE):
            make()
        return {"png": b"\x89PNG" + bytes(16), "pdf": b"%PDF"}

    with mock.patch.object(figures_run, "render", drawn):
        yield
