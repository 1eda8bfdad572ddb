"""Figures in foreign surroundings: a notebook's environment, people's own settings of matplotlib, names of any kind."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from cycler import cycler

from driftcal.preprocess.__main__ import main as preprocess
from driftcal.shared import __main__ as inspector
from driftcal.shared import canvas
from driftcal.shared.inspection import figures as album
from driftcal.shared.inspection import map_plots
from driftcal.shared.store.reader import ShardStore
from driftcal.train.report import figures_profile
from driftcal.train.report import figures_run as of_runs
from driftcal.train.run.result import GroupedBy, Result
from tests import fields, stores
from tests.results import groups_tree, result

NAMES = ("$x", r"$\frac{1}$", "a_b^c$$", r"\alpha", "$C_s$", "漂流", "<b>&amp;")
SETTINGS: dict[Any, Any] = {
    "text.usetex": True, "font.family": "nowhere", "font.size": 30, "savefig.dpi": 30, "savefig.bbox": "tight",
    "savefig.transparent": True, "axes.prop_cycle": cycler(color="r"), "timezone": "Asia/Tokyo",
    "figure.constrained_layout.use": False, "axes.formatter.use_locale": True, "path.simplify": False,
}  # fmt: skip
"""As people have them in a matplotlibrc."""


def parameters(opened: ShardStore, *names: str) -> tuple[list[dict[str, Any]], Result]:
    """Lines and the result of a run of three steps with parameters of these names."""
    values = {name: 0.1 * (k + 1) for k, name in enumerate(names)}
    steps = [{"step": k, "loss": 1.0 / k, "parameters": values} for k in (1, 2, 3)]
    rest = {"trained": -2.3, "standard_error": 0.1, "start": 0.1, "trained_as": "logarithm", "at_bound": False}
    found = {name: {"value": v, "interval_90": [0.5 * v, 2 * v], **rest} for name, v in values.items()}
    return steps, result(opened, parameters=found)


def grouped(*names: str) -> GroupedBy:
    """A grouping with groups of these names."""
    return GroupedBy.from_json(groups_tree(*names))


def test_pictures_do_not_depend_on_settings(built: stores.Built, tmp_path: Path) -> None:
    opened = ShardStore(built.path)

    def drawn(name: str) -> list[bytes]:
        paths = [map_plots.save(lambda: album.one(opened, 3), tmp_path / f"{name}.{end}") for end in canvas.ENDINGS]
        pages = of_runs.render(lambda: of_runs.parameters(*parameters(opened, "a", "b"), "-"))
        return [*(path.read_bytes() for path in [*paths, *album.plot(opened, tmp_path / name)]), *pages.values()]

    due = drawn("plain")
    with matplotlib.rc_context(SETTINGS):
        before = dict(matplotlib.rcParams)
        assert drawn("own") == due
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", NAMES)
def test_names_are_drawn_as_they_are(built: stores.Built, tmp_path: Path, name: str) -> None:
    opened = ShardStore(built.path)
    opened.drifters[:] = [name] * len(opened.drifters)
    made: list[canvas.Figure] = []

    def draw(figure: canvas.Figure) -> canvas.Figure:
        made.append(figure)
        return figure

    map_plots.save(lambda: draw(album.one(opened, 3)), tmp_path / "one.png")
    of_runs.render(lambda: draw(of_runs.parameters(*parameters(opened, name), "-")))
    of_runs.render(lambda: draw(figures_profile.forest(grouped(name, "other"), "$C_s$", 0.2)))
    for figure in made:
        texts = [text for text in figure.findobj(matplotlib.text.Text) if name in text.get_text()]  # type: ignore[arg-type]
        plain = [text for text in texts if not text.get_parse_math()]
        assert plain
        assert name == "$C_s$" or texts == plain


def test_mathematics_of_ours_is_set() -> None:
    with canvas.settled():
        figure = figures_profile.forest(grouped("a", "b"), "$C_s$", 0.2)
        label = figure.axes[0].xaxis.label
        assert (label.get_text(), label.get_parse_math()) == ("$C_s$ (logarithmic)", True)
        shown = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert not any("$" in text for text in shown)


def test_a_notebook_s_environment_changes_nothing(built: stores.Built, tmp_path: Path) -> None:
    """Nothing but drawing brings matplotlib, and that takes none of what it is told there."""
    (tmp_path / "matplotlibrc").write_bytes(b"text.usetex: True\n\xff\xfe\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "here").mkdir()
    script = f"""
import sys
import driftcal.preprocess.__main__, driftcal.train.__main__
from driftcal.shared.__main__ import main
assert not any(name.startswith("matplotlib") for name in sys.modules)
main(["sample", {str(built.path)!r}, "3", "--plot", "one.png"])
"""
    foreign = {
        "MPLBACKEND": "module://nowhere.backend_inline", "MATPLOTLIBRC": str(tmp_path), "COLUMNS": "x",
        "MPLCONFIGDIR": str(tmp_path / "file"), "CLICOLOR": "1", "FORCE_COLOR": "1", "JPY_PARENT_PID": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | foreign,
        cwd=tmp_path / "here",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    due = map_plots.save(lambda: album.one(ShardStore(built.path), 3), tmp_path / "due.png")
    assert (tmp_path / "here" / "one.png").read_bytes() == due.read_bytes()


def test_commands_are_called_within_a_running_loop(tmp_path: Path) -> None:
    """As from the cell of a notebook."""
    made = fields.small(tmp_path / "input")

    async def cell() -> list[int]:
        out = str(tmp_path / "store")
        return [preprocess([made, "--out", out]), inspector.main(["verify", out])]

    assert asyncio.run(cell()) == [0, 0]
    assert np.isfinite(ShardStore(tmp_path / "store").positions.read([0])).all()
