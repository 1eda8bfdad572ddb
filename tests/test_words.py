"""Words of the code and its documents: docstrings begin with a noun or a verb; modules and files are named rightly."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

NEITHER = {
    "as",
    "from",
    "how",
    "of",
    "that",
    "what",
    "when",
    "where",
    "whether",
    "which",
    "who",
    "whom",
    "whose",
    "why",
}
"""First words of a clause or a fragment, which leave the reader to find its noun."""

UNFINISHED: tuple[str, ...] = ()
"""Modules whose words are still to be rewritten."""

NAMES_UNFINISHED = (*UNFINISHED, "train/")
"""Beginnings of the paths whose names are still to be changed."""

VAGUE = {"found", "held", "known", "made", "mine", "told", "what", "wrong"}
"""Names that say what was done to a value and not what it is; a local is called by what it is, such as encounters."""


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yields line and text of every docstring: of the module, its classes and functions, constants and attributes."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement.lineno, value.value


def badly_begun(source: str) -> list[int]:
    """Lines of the docstrings in `source` that begin with one of `NEITHER`."""
    first = ((line, re.search(r"\w+", text)) for line, text in docstrings(source))
    return sorted(line for line, word in first if word is None or word[0].lower() in NEITHER)


def test_docstrings_of_modules_classes_functions_and_constants_are_read():
    source = '''"""How it is."""
LIMIT = 1
"""Of a step."""
SPEED = 2
"""Speed [m/s]."""

class Place:
    """Where it is."""
    lon: float
    """What is east."""
    def near(self):
        """Tells whether it is near."""
        def inner():
            """
            Whether it is nearer."""
'''
    assert badly_begun(source) == [1, 3, 8, 10, 14]


@pytest.mark.parametrize("folder", ["preprocess", "shared", "train"])
def test_docstrings_begin_with_a_noun_or_a_verb(folder: str):
    bad = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(UNFINISHED):
            bad += [f"{name}:{line}" for line in badly_begun(path.read_text(encoding="utf-8"))]
    assert not bad, f"these docstrings begin with neither a noun nor a verb such as Returns or Tells: {bad}"


@pytest.mark.parametrize("folder", ["preprocess", "shared", "train"])
def test_locals_are_called_by_what_they_are(folder: str):
    vague = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(NAMES_UNFINISHED):
            tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            names = ((node, node.id if isinstance(node, ast.Name) else getattr(node, "arg", None)) for node in tree)
            vague += [f"{name}:{node.lineno} {word}" for node, word in names if word in VAGUE]
    assert not vague, f"call these by what they are: {vague}"


def test_architecture_names_every_module_in_the_table_of_its_room():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^##+ ([\w/ ]+).*\n((?:(?!##).*\n)*)", text, re.M))
    missing = []
    for part in ("shared", "preprocess", "train"):
        for path in sorted((ROOT / part).rglob("*.py")):
            room = path.parent.relative_to(ROOT / part).as_posix()
            if path.name == "__init__.py":
                continue
            title = room if room != "." else ("At the top" if part == "shared" else part)
            first = " ".join(re.findall(r"^\|([^|]+)\|", sections.get(title, ""), re.M))
            if f"`{path.stem}`" not in first:
                missing.append(path.relative_to(ROOT).as_posix())
    assert not missing, f"docs/architecture.md lacks {missing}"


def test_files_that_the_documents_name_exist():
    named = {
        (page.name, file)
        for page in (ROOT / "docs").glob("*.md")
        for file in re.findall(r"`((?:preprocess|shared|train|tests)/[a-z0-9_/.]+)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 5
    assert not {(page, file) for page, file in named if not (ROOT / file).exists()}
