"""QR codes on a terminal, two rows of modules in a line of text."""

from __future__ import annotations

from collections.abc import Sequence

import segno

_BORDER = 2  # modules of light around it; readers want four, and cope with two
_LIGHT_ON_BLACK = "\x1b[97;40m"
_RESET = "\x1b[0m"
_HALVES = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}


def draw_qr(text: str, *, colors: bool) -> str:
    """The code of a text, as lines of half blocks: light modules are drawn, dark ones left out.

    With `colors` it looks the same on every terminal; without, it takes a dark one. Text without
    small letters makes a code a third smaller.

    Raises: ValueError for text that is too long for a code.
    """
    code = segno.make_qr(text, error="l", boost_error=False)
    rows = [list(row) for row in code.matrix_iter(border=_BORDER)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    lines = ["".join(_draw(pair) for pair in _pairs(rows, at)) for at in range(0, len(rows), 2)]
    if colors:
        lines = [f"{_LIGHT_ON_BLACK}{line}{_RESET}" for line in lines]
    return "\n".join(lines)


def _pairs(rows: Sequence[Sequence[int]], at: int) -> list[tuple[int, int]]:
    return list(zip(rows[at], rows[at + 1], strict=True))


def _draw(pair: tuple[int, int]) -> str:
    above, below = pair
    return _HALVES[int(bool(above)), int(bool(below))]
