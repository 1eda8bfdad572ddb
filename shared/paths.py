"""Paths from users that must name a file or a folder of this machine: one check for all of them.

`Path` takes any text: `s3://bucket/store` becomes a folder `s3:` here, and files meant for a bucket would silently end
up in the working directory.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from driftcal.shared.errors import ConfigError

_ELSEWHERE = re.compile(r"\s*([^/\s]{2,}?):+/")
"""Beginning of a URL, even if a shell or `Path` has left it one slash, or of the address of another host
(`me@host:/x`); drive letters do not match. A local folder of such a name is given as `./s3:/...`."""


class Argument(str):
    """A path on the command line as it was given, before `check`."""

    where: str


def argument(where: str) -> Callable[[str], Argument]:
    """The `type` of an argparse option for a local path; `where` names the option in messages."""

    def given(text: str) -> Argument:
        checked = Argument(text)
        checked.where = where
        return checked

    return given


def check_arguments(options: Any) -> None:
    """Replaces every `Argument` in the namespace `options` by the path that it stands for.

    Raises:
        ConfigError: one stands for none on this machine.
    """
    for name, value in vars(options).items():
        if isinstance(value, Argument):
            try:
                setattr(options, name, local(value))
            except ValueError as error:
                raise ConfigError(f"{value.where} {str(value)!r}: {error}.") from error


def local(text: str) -> str:
    """The path on this machine that `text` stands for, a leading `~` expanded.

    Raises:
        ValueError: it is empty, holds characters that no one means in a path, or names a place elsewhere.
    """
    if not text.strip():
        raise ValueError(
            "expected a path, and it is empty: is a variable of the shell not set? Name a file or a folder"
        )
    strange = sorted({character for character in text if character < " " or character == "\x7f"})
    if strange and not os.path.lexists(text):
        raise ValueError(
            f"expected a path, and it holds {', '.join(map(repr, strange))}: is it the output of a command, with more "
            f"than a path in it? Name a file or a folder"
        )
    if text.lower().startswith("file:/"):
        raise ValueError(f"expected a path and not a URL. {_as_path(text)}")
    if elsewhere := _ELSEWHERE.match(text):
        raise ValueError(
            f"expected a file or a folder of this machine, and {elsewhere[1]}: is an address elsewhere. Name a "
            f"local path, and copy from there or to there with a tool of that service; write ./{text.strip()} if a "
            f"local folder of that name is meant"
        )
    if not text.startswith("~"):
        return str(text)
    expanded = os.path.expanduser(text)  # noqa: PTH111 - Path.expanduser raises where there is no such user
    if expanded == text and not Path(text).exists():
        raise ValueError(
            f"there is no home folder {text.partition('/')[0]}. Name the folder itself; write ./{text} if a local "
            f"folder of that name is meant"
        )
    return expanded


def _as_path(url: str) -> str:
    """Advice on writing a `file:` URL as a path."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        return f"It names a file of the host {parts.netloc}; name a local path"
    return f"Write {unquote(parts.path)}"
