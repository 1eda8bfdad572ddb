"""Pieces of a run's page: its frame, tables, and figures with numbers and captions."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from driftcal.shared.inspection.map_plots import DPI, WIDTH
from driftcal.train.report import figures_evaluation, figures_profile, figures_run

CAPTIONS = figures_run.CAPTIONS | figures_profile.CAPTIONS | figures_evaluation.CAPTIONS

TEMPLATE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>C_s from {name}</title><style>{style}</style></head>
<body>
{body}
</body></html>
"""

STYLE = """
body { font: 16px/1.5 Charter, Georgia, "DejaVu Serif", serif; color: #1a1a1a; max-width: 47rem; margin: 2.5rem auto;
  padding: 0 1rem; } h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
.value { font-size: 2.1rem; margin: 1rem 0; } .warnings { border: 2px solid #D55E00; padding: 0 1rem; margin: 1rem 0; }
.missing { border-left: 3px solid #999; padding-left: .8rem; color: #444; } td.number, th.number { text-align: right; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .85rem; border: solid; border-width: 1.5px 0;
  font-variant-numeric: tabular-nums; } th, td { text-align: left; vertical-align: top; padding: .15rem 1rem .15rem 0; }
thead th { border-bottom: 1px solid; } tbody th { font-weight: normal; } figure { margin: 1.6rem 0; }
figcaption, .small { font-size: .85rem; line-height: 1.4; color: #333; } summary { cursor: pointer; }
code, pre { font: .8rem/1.4 "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; white-space: pre-wrap; }
@media print { body { margin: 0; max-width: none; } figure, table { break-inside: avoid; } }
"""


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Rows of text; with a head, all columns but the first hold numbers."""
    number = ' class="number"' if head else ""
    top = "".join(f"<th{number if k else ''}>{escape(text)}</th>" for k, text in enumerate(head))
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td{number}>{escape(text)}</td>" for text in rest)
        body += f"<tr><th>{escape(first)}</th>{cells}</tr>\n"
    return f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table>"


def figure(drawn: Mapping[str, bytes], name: str, caption: str | None = None) -> str:
    """A figure with number and caption, or what to run to get it."""
    if name not in drawn:
        command = {"convergence": "run STORE --out RUN", "drifters": "evaluate RUN TRAINING-STORE"}.get(name)
        return (
            f'<p class="missing">No figure of {name}: the run folder lacks what it is drawn from. To make it: '
            f"<code>drift-train {command or 'evaluate RUN STORE --split test'}</code></p>"
        )
    png = drawn[name]
    share = int.from_bytes(png[16:20]) / (WIDTH * DPI)  # a png's width stands there
    return (
        f'<figure><img alt="{name}" style="width: {100 * min(share, 1):.0f}%" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption><b>Figure {1 + list(drawn).index(name)}.</b> {CAPTIONS[caption or name]}"
        "</figcaption></figure>"
    )
