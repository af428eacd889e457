"""Tokens that let a client connect: `/?token=...`, or `/?key=...` as Jazz apps write it.

A token is written `NAME:TOKEN`, or alone; then its name is its place in the list: `#1`, `#2`.
Names show up in logs and metrics, tokens nowhere.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from urllib.parse import unquote

MAX_TOKENS = 10_000
"""At each connect all of them are compared: about 2 ms for this many."""

MAX_TOKEN_CHARACTERS = 512

_NAME = re.compile(r"[A-Za-z0-9._@+-]{1,64}")
_PARAMETERS = ("token", "key")
_MAX_PARAMETERS = 32


class Tokens:
    """The tokens that count now. Their `repr` shows names only."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """Raises: ValueError, which does not show the token."""
        self._tokens: dict[str, bytes] = {}
        for number, entry in enumerate(entries, 1):
            name, token = _parse_entry(entry, number)
            if name in self._tokens:
                raise ValueError(f"two tokens are named {name!r}")
            self._tokens[name] = token
        if len(self._tokens) > MAX_TOKENS:
            raise ValueError(f"{len(self._tokens)} tokens; at most {MAX_TOKENS} are looked through")

    def __repr__(self) -> str:
        return f"Tokens({', '.join(self._tokens)})"

    def __bool__(self) -> bool:
        """Whether a token is asked for at all."""
        return bool(self._tokens)

    @property
    def names(self) -> list[str]:
        return list(self._tokens)

    def name_of(self, presented: str) -> str | None:
        """The name of this token, in a time that does not depend on which one it resembles."""
        data = presented.encode("utf-8", "surrogatepass")
        found = None
        for name, token in self._tokens.items():
            if hmac.compare_digest(token, data):
                found = name
        return found

    def is_same(self, name: str, others: Tokens) -> bool:
        """Whether both know the same token by this name."""
        mine, theirs = self._tokens.get(name), others._tokens.get(name)
        return mine is not None and theirs is not None and hmac.compare_digest(mine, theirs)


def parse_token_lines(text: str) -> list[str]:
    """The tokens of a file: one a line, a line that begins with `#` is a comment."""
    lines = map(str.strip, text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def presented_token(path: str) -> str:
    """The token in a URL's query; empty when there is none. `token` goes before `key`."""
    fields: dict[str, str] = {}
    for part in path.partition("?")[2].split("&", _MAX_PARAMETERS)[:_MAX_PARAMETERS]:
        name, _, value = part.partition("=")
        fields.setdefault(name, value)
    text = next((fields[name] for name in _PARAMETERS if name in fields), "")
    # A plus is no space here: apps write their key into the URL as it is.
    token = unquote(text)
    return token if len(token) <= MAX_TOKEN_CHARACTERS else ""


def _parse_entry(entry: str, number: int) -> tuple[str, bytes]:
    name, colon, token = entry.strip().partition(":")
    if not colon:
        name, token = f"#{number}", name
    elif not _NAME.fullmatch(name):
        raise ValueError(
            f"token {number} has a name that is not 1 to 64 letters, digits or . _ @ + -"
        )
    if not 0 < len(token) <= MAX_TOKEN_CHARACTERS:
        raise ValueError(f"token {number} is empty or longer than {MAX_TOKEN_CHARACTERS}")
    return name, token.encode("utf-8", "surrogatepass")
