"""Tables of settings in these pages, made from the settings themselves; `python -m docs.tables` writes them anew.

A table stands between `<!-- settings: NAME -->` and `<!-- end of settings -->`. Descriptions of fields are Markdown
whose links start in this folder.
"""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic.fields import FieldInfo

from driftcal.preprocess.recipe import Recipe
from driftcal.shared.settings import Settings
from driftcal.train.settings import Training

FOLDER = Path(__file__).parent

BLOCK = re.compile(r"(?<=<!-- settings: )(\w+)( -->\n).*?(?=<!-- end of settings -->)", re.DOTALL)

UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


class Row(NamedTuple):
    """One key with its default and its meaning, as Markdown."""

    key: str
    default: str
    meaning: str


def rows(model: type[Settings], closed: Collection[str] = (), prefix: str = "") -> Iterator[Row]:
    """Yields all keys of `model` in order, those of its sections after them; sections in `closed` are not entered."""
    defaults = model.model_construct().model_dump(mode="json")
    for name, field in model.model_fields.items():
        key, section = prefix + name, _section(field)
        assert field.description, f"{key} has no description"
        bare = section is not None and isinstance(defaults.get(name), dict)
        default = "required" if field.is_required() else "" if bare else _text(defaults.get(name))
        yield Row(f"`{key}`", default, field.description)
        if section is not None and key not in closed:
            yield from rows(section, closed, f"{key}.")


def _section(field: FieldInfo) -> type[Settings] | None:
    """The settings that a field holds one or a list of."""
    for part in (field.annotation, *get_args(field.annotation)):
        if isinstance(part, type) and issubclass(part, Settings):
            return part
    return None


def _text(value: Any) -> str:
    """A default as it would be written in YAML."""
    if value is None:
        return "none"
    if isinstance(value, str) and re.fullmatch(r"\d+s", value):
        seconds = int(value[:-1])
        unit, size = next((unit, size) for unit, size in UNITS if seconds % size == 0)
        return f"`{seconds // size}{unit}`"
    if isinstance(value, float | list | dict):
        return f"`{re.sub(r'[.]0(?![0-9])', '', json.dumps(value))}`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _table(found: Iterator[Row]) -> str:
    lines = (" | ".join(cell.replace("|", "&#124;") for cell in row) for row in found)
    return "".join(["| key | default | meaning |\n", "|---|---|---|\n", *(f"| {line} |\n" for line in lines)])


def tables() -> dict[str, str]:
    """All tables by name, as Markdown."""
    everything = list(rows(Recipe, closed=["synthetic.currents"]))
    made = [row for row in everything if row.key.startswith("`synthetic.")]
    return {
        "manifest": _table(row for row in everything if row not in made),
        "synthetic": _table(iter(made)),
        "training": _table(rows(Training)),
    }


def written(text: str) -> str:
    """`text` of a page with its tables made anew."""
    made = tables()
    return BLOCK.sub(lambda block: f"{block[1]}{block[2]}\n{made[block[1]]}\n", text)


if __name__ == "__main__":
    for page in sorted(FOLDER.glob("*.md")):
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")
