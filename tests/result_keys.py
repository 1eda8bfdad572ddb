"""Keys of the files of a run: those that docs/results_keys.md describes, and those that a file holds."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "results_keys.md"

OPAQUE = {"function", "layout", "splits", "recipe", "funnel", "agreement"}
"""Keys whose content is described elsewhere."""

NAMED = {"parameters", "model_checks", "scores", "spread_and_error", "reliability", "ranks", "gradient"}
"""Keys that hold others by a name that is none of ours: of a parameter, a check, a system, a group."""

STATISTICS = {"mean", "standard_error", "interval_90"}
"""Parts of every number of an evaluation, which the page gives once."""


def keys_in_tables(text: str) -> set[str]:
    """Keys in the first column of the tables in `text`."""
    first = [line.partition(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    return {key for cell in first for key in re.findall("`([^`]+)`", cell)}


def described(name: str) -> set[str]:
    """Keys that the page describes of the file `name`."""
    return keys_in_tables(PAGE.read_text(encoding="utf-8").split(f"\n## {name}\n")[1].split("\n## ", maxsplit=1)[0])


def written(tree: dict[str, Any], prefix: str = "", named: bool = False) -> Iterator[str]:
    """Keys of `tree` as the page writes them; those without content end in a dot."""
    for key, value in tree.items():
        path = prefix + ("*" if named else key)
        some = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        if key in OPAQUE:
            yield path
            continue
        for one in some:
            if isinstance(one, dict) and one.keys() >= STATISTICS:
                yield path
            elif isinstance(one, dict) and one:
                yield from written(one, f"{path}.", key in NAMED and not named)
            else:
                yield path + "." * (one is None or one in ([], {}))


def undescribed(tree: dict[str, Any], name: str) -> set[str]:
    """Keys of `tree`, the content of the file `name`, that the page lacks."""
    known = described(name)
    return {key for key in written(tree) if not any(one == key.rstrip(".") or one.startswith(key) for one in known)}
