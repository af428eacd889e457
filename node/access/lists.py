"""[disk] The lists and tokens of a configuration, and the files that hold more of them.

A list file has one id a line, a token file one token a line (`tokens.py`); `#` begins a comment,
in a token file only where it begins the line. Files are looked at every few seconds and read again
when they have changed: no signal is needed, and a mounted secret that is swapped counts, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from node.access.policy import AccessPolicy, parse_id_lines
from node.access.tokens import Tokens, parse_token_lines
from node.config import Config
from node.errors import ConfigError, reason_of

MAX_FILE_BYTES = 64 * 2**20

Stamp = tuple[object, ...]
"""Differs when one of the files was changed, replaced, made or removed."""


class Lists(NamedTuple):
    """What configuration and files say now."""

    policy: AccessPolicy
    tokens: Tokens


def list_files(config: Config) -> list[Path]:
    files = (config.allow_accounts_file, config.deny_accounts_file, config.ws_tokens_file)
    return [path for path in files if path is not None]


def read_stamp(files: Sequence[Path]) -> Stamp:
    """Blocks on the disk."""
    stamps: list[object] = []
    for path in files:
        try:
            facts = path.stat()
        except OSError as error:
            stamps.append(error.errno)
        else:
            stamps.append((facts.st_mtime_ns, facts.st_size, facts.st_ino))
    return tuple(stamps)


def read_lists(config: Config) -> Lists:
    """Blocks on the disk.

    Raises: ConfigError, naming the setting and never a token.
    """
    allowed = parse_id_lines(_read("allow-accounts-file", config.allow_accounts_file))
    denied = parse_id_lines(_read("deny-accounts-file", config.deny_accounts_file))
    tokens = parse_token_lines(_read("ws-tokens-file", config.ws_tokens_file))
    is_limited = bool(config.allow_accounts) or config.allow_accounts_file is not None
    try:
        policy = AccessPolicy.of(
            [*config.allow_accounts, *allowed] if is_limited else None,
            [*config.deny_accounts, *denied],
        )
    except ValueError as error:
        raise ConfigError(f"allow-accounts and deny-accounts: {error}") from None
    try:
        return Lists(policy, Tokens([*config.ws_tokens, *tokens]))
    except ValueError as error:
        raise ConfigError(f"ws-tokens: {error}") from None


def _read(option: str, path: Path | None) -> str:
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"{option}: {path} is larger than {MAX_FILE_BYTES} bytes")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {path} cannot be read: {reason_of(error)}") from error
