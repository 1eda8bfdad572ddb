"""Frozen dataclasses that know their JSON: one documented field for every key, in the order of the file.

A subclass of `JsonRecord` declares each key by `entry(meaning, unit)`. A field holds a value of JSON, another record,
or records by name or in a row. Values are kept as they are, so a file that is read and written again has the same
bytes.
"""

import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record", bound="JsonRecord")


class Key(NamedTuple):
    """Documentation of a key.

    Attributes:
        meaning: Its value in words.
        unit: Of that; empty where it has none.
    """

    meaning: str
    unit: str


class MissingKeys(ValueError):
    """Raised for a record that lacks keys; the message names them."""


class WrongValue(ValueError):
    """Raised for a record with a value of another kind; the message says which, what was expected and what came."""


def entry(meaning: str, unit: str = "", **more: Any) -> Any:
    """A field of a record, documented; one that is `optional` is left out of the file where it is None."""
    documentation = {"description": meaning, "unit": unit, **more}
    return field(default=None, metadata=documentation) if more.get("optional") else field(metadata=documentation)


@dataclass(frozen=True)
class JsonRecord:
    """Base of the records of a file."""

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Keys that a file must have, in its order."""
        return tuple(f.name for f in fields(cls) if f.metadata and f.default is MISSING)

    @classmethod
    def documented(cls) -> dict[str, Key]:
        """Documentation of every key, those of records below it included: with a dot, and `*` for a name."""
        return dict(_documented(cls, ""))

    def as_json(self) -> dict[str, Any]:
        """This record as JSON holds it."""
        values = ((f, getattr(self, f.name)) for f in fields(self) if f.metadata)
        return {f.name: _as_json(value) for f, value in values if value is not None or f.default is MISSING}

    @classmethod
    def from_json(cls: type[Record], tree: Any, where: str = "") -> Record:
        """The inverse of `as_json`; keys that the record does not have are ignored.

        Args:
            tree: What JSON holds.
            where: Keys that lead to it, each with a dot, for errors.

        Raises:
            MissingKeys: Keys are missing.
            WrongValue: A value is of another kind than the key's.
        """
        if not isinstance(tree, dict):
            at = f"{where.removesuffix('.')}: " if where else ""
            raise WrongValue(f"{at}expected keys and values, found {type(tree).__name__}")
        if missing := [where + name for name in cls.keys() if name not in tree]:  # noqa: SIM118 - no mapping
            raise MissingKeys(", ".join(missing))
        hints = get_type_hints(cls)
        declared = (f.name for f in fields(cls) if f.metadata and f.name in tree)
        return cls(**{name: _from_json(hints[name], tree[name], where + name) for name in declared})


def _as_json(value: Any) -> Any:
    if isinstance(value, JsonRecord):
        return value.as_json()
    if isinstance(value, dict):
        return {name: _as_json(part) for name, part in value.items()}
    return [_as_json(part) for part in value] if isinstance(value, list | tuple) else value


def _from_json(hint: Any, value: Any, where: str) -> Any:
    options = _options(hint)
    if value is None and type(None) in options:
        return None
    records = [option for option in options if isinstance(option, type) and issubclass(option, JsonRecord)]
    if records:
        # of several the first whose keys are there
        fitting = (one for one in records if isinstance(value, dict) and set(one.keys()) <= set(value))
        return next(fitting, records[0]).from_json(value, f"{where}.")
    (option, *others) = (option for option in options if option is not type(None))
    origin, parts = get_origin(option), get_args(option)
    if origin is dict and isinstance(value, dict):
        return {name: _from_json(parts[1], part, f"{where}.{name}") for name, part in value.items()}
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_from_json(parts[0], part, f"{where}[{k}]") for k, part in enumerate(value))
    wanted = (int, float) if option is float else (origin or option)
    plain = option is Any or (isinstance(value, wanted) and not (isinstance(value, bool) and option is not bool))
    if others or not plain or origin is tuple:
        raise WrongValue(f"{where} is {value!r}, expected {_KINDS.get(origin or option, 'another kind of value')}")
    return value


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", tuple: "a list"}
_KINDS[dict] = "keys and values"


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _documented(cls: type[JsonRecord], where: str) -> Iterator[tuple[str, Key]]:
    hints = get_type_hints(cls)
    for one in fields(cls):
        name = where + one.name
        if one.metadata:
            yield name, Key(one.metadata["description"], one.metadata["unit"])
        else:  # its keys stand in the file of the record itself
            name = where.removesuffix(".")
        for below, star in _records(hints[one.name]):
            yield from _documented(below, f"{name}.{star}" if name else "")


def _records(hint: Any) -> Iterator[tuple[type[JsonRecord], str]]:
    """Records of a hint, with `*.` where they have names."""
    for option in _options(hint):
        if isinstance(option, type) and issubclass(option, JsonRecord):
            yield option, ""
        elif get_origin(option) in (dict, tuple):
            for record, star in _records(get_args(option)[-1 if get_origin(option) is dict else 0]):
                yield record, f"*.{star}" if get_origin(option) is dict else star
