"""Options that every verb has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import CoercionError, Parameter, Token

from node.config import Config, load_config


def _read_path(_: object, tokens: Sequence[Token]) -> Path:
    """Empty text would be the working directory: in scripts a variable may be unset."""
    if not tokens[0].value.strip():
        raise ValueError("it is empty")
    return Path(tokens[0].value)


def read_number(_: object, tokens: Sequence[Token]) -> int:
    """A whole number: cyclopts rounds others, and 1.5 blocks would be 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(token=tokens[0], target_type=int) from None


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Common:
    """Where the node's data is, and how to answer."""

    data: Annotated[
        Path | None,
        Parameter(
            help="Data directory. [env: BEEMESH_DATA]", show_default=False, converter=_read_path
        ),
    ] = None
    config: Annotated[
        Path | None,
        Parameter(
            help="TOML file to read instead of DATA/config.toml.",
            show_default=False,
            converter=_read_path,
        ),
    ] = None
    json: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Answer in JSON: one object, or one a line."
        ),
    ] = False
    debug: Annotated[
        bool, Parameter(negative="", show_default=False, help="Show a traceback when it fails.")
    ] = False

    def load_config(self, flags: dict[str, object] | None = None) -> Config:
        """Raises: ConfigError."""
        return load_config({"data": self.data, **(flags or {})}, config_path=self.config)


DEFAULT_COMMON = Common()

Timeout = Annotated[
    str, Parameter(name="--timeout", help="How long to wait for other nodes: 10, 500ms, 1m.")
]
"""A duration, read by `node.notation.parse_duration`."""
