"""Settings: a YAML file and `--set` overrides become one frozen, typed object.

Both stages read their settings here: a stage declares a `Settings` model (pydantic, frozen, no unknown keys), and
`load` returns it checked. Every problem becomes one `ConfigError` that names the key, the expected and the given
value, and for a misspelt key the nearest known one.
"""

import difflib
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from driftcal.shared.errors import ConfigError

MAX_BYTES = 1_000_000
"""A settings file larger than this [bytes] is refused unread: real ones are a few kB."""


LONGEST = 100 * 365 * 86_400
"""Length [s] that no duration reaches."""


class Settings(BaseModel):
    """Base of every settings model: immutable, unknown keys refused, no value taken for another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
}


def _shift(value: Any) -> int:
    """Whole seconds of a shift: a duration with a sign, or nothing."""
    if isinstance(value, str):
        length = re.sub(r"^\s*[+-]?\s*", "", value)
        zero = re.fullmatch(rf"0+(\.0*)?\s*({'|'.join(_UNITS)})", length.lower())
        return 0 if zero else seconds_of(length) * (-1 if value.strip().startswith("-") else 1)
    if value == 0 and not isinstance(value, bool):
        return 0
    if isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) < 60:
            raise ValueError(f"a bare number is in seconds; for hours write {value:g}h, for so few seconds {value:g}s")
        return seconds_of(abs(value)) * (-1 if value < 0 else 1)
    return seconds_of(value)


def seconds_of(value: Any) -> int:
    """Whole seconds of a duration such as `1h`, `30min`, `6 hours`, `1d 12h`, or of a number of seconds."""
    if isinstance(value, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*", value.strip().lower())
        if not re.fullmatch(r"(\d+(\.\d+)?\s*[a-z]+\s*)+", value.strip().lower()) or {u for _, u in parts} - set(
            _UNITS
        ):
            raise ValueError("expected a duration such as 30min, 1h or 1d")
        value = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("expected a duration such as 30min, 1h or 1d")
    if not 0 < value < LONGEST or value != int(value):
        raise ValueError("expected a positive duration in whole seconds, of 100 years at most")
    return int(value)


Duration = Annotated[int, BeforeValidator(seconds_of), PlainSerializer(lambda s: f"{s}s", when_used="json")]
"""A duration, written as `1h`, `30min` or `1d 12h`, stored as whole seconds."""

Shift = Annotated[int, BeforeValidator(_shift), PlainSerializer(lambda s: f"{s}s", when_used="json")]
"""A duration that is added, written as `12h`, `-12h` or `0h`, stored as whole seconds."""

Model = TypeVar("Model", bound=Settings)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and aliases (an alias bomb is the only use they have here)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise ComposerError(None, None, "aliases (*name) are not accepted", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConstructorError(None, None, f"key {key!r} is not text", key_node.start_mark)
            if key in seen:
                raise ConstructorError(None, None, f"key {key!r} occurs twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in YAML `text`; `where` names it in errors."""
    try:
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{where} is not the YAML expected: {' '.join(str(error).split())}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected a mapping of settings, found {type(tree).__name__}.")
    return tree


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in the YAML file `path`."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes: this is not a settings file.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}. Give the path of a YAML settings file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    return parse_yaml(text, str(path))


def override(tree: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`tree` with every `a.b=value` of `assignments` applied; values are read as YAML."""
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {assignment!r}: expected key=value, such as --set window.half_width_deg=3.")
        value = parse_yaml(f"value: {text}", f"--set {assignment!r}")["value"]
        tree = _assigned(tree, keys, value, assignment)
    return tree


def _assigned(tree: Any, keys: list[str], value: Any, assignment: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise ConfigError(f"--set {assignment!r}: {keys[0]!r} lies under a value that is not a mapping.")
    tree = dict(tree)
    tree[keys[0]] = value if len(keys) == 1 else _assigned(tree.get(keys[0]) or {}, keys[1:], value, assignment)
    return tree


def build(model: type[Model], tree: dict[str, Any], where: str) -> Model:
    """`tree` checked against `model`; all problems in one `ConfigError`."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(_problem(model, entry) for entry in error.errors())
        raise ConfigError(f"{where}: {problems}.") from error


def _problem(model: type[Settings], entry: Any) -> str:
    location = [str(part) for part in entry["loc"] if not str(part).startswith(("function-", "list[", "constrained"))]
    key = ".".join(location) or "the settings"
    if entry["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_meant(location, _known_keys(model))}"
    if entry["type"] == "missing":
        return f"key {key!r} is required"
    if entry["type"] in ("model_type", "dict_type"):
        return f"{key}: expected keys with values (such as {{key: value}}), found {reprlib.repr(entry['input'])}"
    message = entry["msg"].removeprefix("Value error, ")
    came = "" if isinstance(entry["input"], dict) else f", found {reprlib.repr(entry['input'])}"
    return f"{key}: {message[0].lower() + message[1:]}{came}"


def _meant(location: list[str], choices: list[str]) -> str:
    """The known key that is most similar to an unknown one, in its own section first; else the keys of its section."""
    section = ".".join(part for part in location[:-1] if not part.isdigit())
    here = [key for key in choices if key.rpartition(".")[0] == section]
    for keys, alike in ((here, 0.5), (choices, 0.7 if here and section else 0.5)):
        names = [key.rpartition(".")[2] for key in keys]
        if close := difflib.get_close_matches(location[-1], names, n=1, cutoff=alike):
            return f" (did you mean {keys[names.index(close[0])]!r}?)"
    return f"; known: {', '.join(sorted(here or choices))}"


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        for part in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            for inner in [part, *getattr(part, "__args__", ())]:
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    keys += [k for k in _known_keys(inner, f"{prefix}{name}.") if k not in keys]
    return keys
