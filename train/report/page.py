"""Pieces of a run's page: its template, and figures with numbers and captions."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from driftcal.shared.inspection.map_plots import DPI, WIDTH
from driftcal.train.report import figures_checks, figures_evaluation, figures_profile, figures_run

CAPTIONS = figures_run.CAPTIONS | figures_checks.CAPTIONS | figures_profile.CAPTIONS | figures_evaluation.CAPTIONS

TEMPLATE = "report.html"
"""Template of the page, beside this module."""


class ShownFigure(NamedTuple):
    """A figure of the page.

    Attributes:
        number: Its number on the page.
        caption: How to read it.
        width: Its width in percent of the page's.
        png: The image in base64.
        command: What to run to get it, where there is none; else empty.
    """

    number: int = 0
    caption: str = ""
    width: int = 0
    png: str = ""
    command: str = ""


def figure(drawn: Mapping[str, bytes], name: str, caption: str | None = None) -> ShownFigure:
    """The figure `name` of those `drawn`, which are in the order of the page; `caption` names that of another."""
    if name not in drawn:
        commands = {"convergence": "run STORE --out RUN", "drifters": "evaluate RUN TRAINING-STORE"}
        return ShownFigure(command=commands.get(name, "evaluate RUN STORE --split test"))
    png = drawn[name]
    share = min(int.from_bytes(png[16:20]) / (WIDTH * DPI), 1)  # a png's width stands there
    number = 1 + list(drawn).index(name)
    return ShownFigure(number, CAPTIONS[caption or name], round(100 * share), base64.b64encode(png).decode())


def subscripts(text: str) -> Markup:
    """Text for HTML, in which `C_s` has a subscript."""
    return Markup("C<sub>s</sub>").join(escape(part) for part in re.split(r"\bC_s\b", text))


def render(drawn: Mapping[str, bytes], **content: Any) -> str:
    """The page of `content`, which its template names, with the figures `drawn`."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["subscripts"] = subscripts
    figures = {"figures": lambda name, caption: figure(drawn, name, caption)}
    return environment.get_template(TEMPLATE).render(content | figures)
