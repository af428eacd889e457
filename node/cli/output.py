"""What the verbs print: JSON lines, tables on a terminal, one line for an error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from node.verbs import Result, decode_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_json(value: Mapping[str, object]) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_error(text: str) -> None:
    """One line on stderr, whatever the text; nothing where that cannot be written."""
    with suppress(OSError):
        print(f"beemesh: {' '.join(text.split())}", file=sys.stderr, flush=True)


def give_up_stdout() -> None:
    """From now on nothing is printed: who reads it has enough, or has no room for it.

    Python would complain again when it flushes.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_bytes(name: str, result: Result) -> None:
    """The bytes as they are; on a terminal with a line end, so that the prompt stays whole."""
    data = decode_bytes(name, result)
    sys.stdout.buffer.write(data)
    if sys.stdout.isatty() and not data.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def print_facts(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values, aligned; values are never cut or wrapped, so that they can be copied."""
    lines = list(rows)
    width = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")


def facts(rows: Iterable[tuple[str, str]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, Text(value))
    return grid


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], if_empty: str) -> RenderableType:
    """A table, or the sentence that there is nothing."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for heading in headings:
        result.add_column(heading, overflow="fold")
    for row in rows:
        result.add_row(*(Text(cell) for cell in row))
    return result if result.row_count else Text(if_empty, style="dim")


def print_renderable(renderable: RenderableType) -> None:
    from rich.console import Console

    # Piped output keeps its lines whole: a key cut in two helps no script.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(renderable)
