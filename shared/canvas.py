"""A canvas of matplotlib that draws the same picture whatever the environment and its settings.

No other module imports matplotlib; those that draw take it from here, and are themselves imported only when something
is drawn. A notebook may name a backend that is not installed, and users have settings of their own (`matplotlibrc`),
for TeX or other fonts; both are ignored here, and neither is changed for other code in this process.

Text is plain unless `MATH` says otherwise: names of drifters, stores and parameters may contain anything.
"""

import contextlib
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from driftcal.shared.errors import ConfigError


@contextlib.contextmanager
def _environment(**settings: str | None) -> Iterator[None]:
    """Sets variables of the environment for the time inside; None stands for one that is not set."""
    before = {name: os.environ.pop(name, None) for name in settings}
    os.environ.update({name: value for name, value in settings.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences matplotlib's remarks on its settings, fonts and folders: none of that changes a figure of ours."""
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _load() -> None:
    """Imports matplotlib, whatever settings it reads on the way.

    Raises:
        ConfigError: it cannot be imported.
    """
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.get("MPLBACKEND")
    try:
        with _quiet(), _environment(MPLBACKEND=None):
            try:
                loaded = importlib.import_module("matplotlib")
            except Exception:  # noqa: BLE001 - of a damaged file of settings: once more without it
                for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
                    del sys.modules[name]  # halves of the first try
                with _environment(MATPLOTLIBRC=os.devnull):
                    loaded = importlib.import_module("matplotlib")
    except Exception as error:
        raise ConfigError(
            f"matplotlib, which draws the figures, cannot be imported ({type(error).__name__}: {error}). Where a file "
            f"matplotlibrc in this folder is at fault, remove it; else install matplotlib again."
        ) from error
    if backend:
        with contextlib.suppress(ValueError), _quiet():  # for others in this process, where it is there
            loaded.rcParams["backend"] = backend


_load()

with _quiet():
    import matplotlib
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
    from matplotlib.colors import Colormap, ListedColormap, LogNorm, Normalize
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import (
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullFormatter,
        NullLocator,
    )

__all__ = [
    "ENDINGS", "MATH", "AutoDateLocator", "Axes", "Colormap", "ConciseDateFormatter", "Figure", "FigureCanvasAgg",
    "FuncFormatter", "Line2D", "LineCollection", "ListedColormap", "LogLocator", "LogNorm", "MaxNLocator",
    "Normalize", "NullFormatter", "NullLocator", "PolyCollection", "QuadMesh", "colormaps", "content", "settled",
    "withStroke",
]  # fmt: skip

MATH: dict[str, Any] = {"parse_math": True}
"""Options of a text of ours with mathematics between dollar signs."""

_METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
ENDINGS = tuple(_METADATA)
"""Formats of figures."""

_OURS: dict[Any, Any] = {"text.parse_math": False, "svg.hashsalt": "driftcal", "timezone": "UTC"}


@contextlib.contextmanager
def settled(style: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Sets matplotlib to its own defaults, ours and those of `style`; figures are made and drawn inside."""
    with _quiet(), matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing")  # a letter that the font lacks becomes a box
        matplotlib.rcdefaults()
        for key, value in (*_OURS.items(), *(style or {}).items()):
            matplotlib.rcParams[key] = value
        yield


def content(figure: Figure, ending: str) -> bytes:
    """The bytes of `figure` in one of the formats `ENDINGS`; they depend on no clock."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=ending, metadata=_METADATA[ending])
    return buffer.getvalue()
