"""What the verbs print: JSON lines, tables on a terminal, one line for an error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.verbs import Result, decode_bytes
from node.visible_text import visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

_LAST_COLUMN = 20
"""How narrow the last column of a table may get before the table is given up."""


def is_unicode() -> bool:
    """Whether stdout takes every character."""
    return sys.stdout.encoding.lower().startswith("utf")


def counted(count: object, noun: str) -> str:
    """`1 block`, `2,000 blocks`."""
    return f"{count:,} {noun}{'s'[: count != 1]}"


def print_json(value: Mapping[str, object]) -> None:
    text = json.dumps(value, ensure_ascii=not is_unicode())
    print(visible_json(text), flush=True)


def print_error(text: str) -> None:
    """One line on stderr, whatever the text; nothing where that cannot be written."""
    with suppress(OSError):
        print(f"beemesh: {visible(' '.join(text.split()))}", file=sys.stderr, flush=True)


def give_up_stdout() -> None:
    """From now on nothing is printed: its reader has had enough, or has no room for it.

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
        print(f"{name:<{width}}  {visible(value)}")


def facts(rows: Iterable[tuple[str, str]]) -> RenderableType:
    """As `print_facts`, within what is shown; long values are folded."""
    return _Facts([(name, visible(value)) for name, value in rows])


@dataclass(frozen=True, slots=True)
class _Facts:
    """Names and values, closer together where only that leaves an id on one line."""

    rows: list[tuple[str, str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table
        from rich.text import Text

        names = max((len(name) for name, _ in self.rows), default=0)
        words = max((len(word) for _, value in self.rows for word in value.split()), default=0)
        grid = Table.grid(padding=(0, 2 if names + 2 + words <= options.max_width else 1))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in self.rows:
            grid.add_row(name, Text(value))
        yield grid


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], if_empty: str) -> RenderableType:
    """A table, or the sentence that there is nothing."""
    from rich.text import Text

    lines = [tuple(map(visible, row)) for row in rows]
    return _Listing(tuple(headings), lines) if lines else Text(if_empty, style="dim")


@dataclass(frozen=True, slots=True)
class _Listing:
    """A table where that leaves its cells whole, else one block of lines a row.

    Only the last column may wrap: it says things, the others have what is copied and compared.
    A file or a pipe always gets a table: there people search for lines.
    """

    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.cells import cell_len

        widths = [
            max(map(cell_len, cells)) for cells in zip(self.headings, *self.rows, strict=True)
        ]
        widths[-1] = min(widths[-1], _LAST_COLUMN)
        fits = sum(widths) + 3 * len(widths) - 1 <= options.max_width
        if fits or not console.is_terminal:
            yield self._table(widths if fits else [0] * len(widths))
        else:
            yield from self._blocks()

    def _table(self, widths: Sequence[int]) -> RenderableType:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        result = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
        for heading, width in zip(self.headings, widths, strict=True):
            result.add_column(heading, overflow="fold", min_width=width)
        for row in self.rows:
            result.add_row(*map(Text, row))
        return result

    def _blocks(self) -> Iterator[RenderableType]:
        from rich.text import Text

        for number, (title, *cells) in enumerate(self.rows):
            yield Text("\n" * (number > 0) + title, style="bold", overflow="fold")
            named = zip(self.headings[1:], cells, strict=True)
            yield facts((name, cell) for name, cell in named if cell not in ("", "-"))


def fitting(renderable: RenderableType) -> RenderableType:
    """The same for a whole terminal: where that is too low, the last line says so."""
    return _Fitting(renderable)


@dataclass(frozen=True, slots=True)
class _Fitting:
    renderable: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment
        from rich.text import Text

        lines = console.render_lines(self.renderable, options.reset_height())
        height = options.max_height
        fits = len(lines) <= height
        for line in lines if fits else lines[: height - 1]:
            yield from line
            yield Segment.line()
        if not fits:
            yield Text(f"{len(lines) - height + 1} more lines do not fit here", style="dim")


def print_renderable(renderable: RenderableType) -> None:
    from rich.console import Console

    # Piped output keeps its lines whole: a key cut in two helps no script.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(renderable)
