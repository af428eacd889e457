"""Sessions that arrive in pieces: any interleaving, any cut, with overlaps and without gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from hypothesis import strategies as st

Key = TypeVar("Key")
Item = TypeVar("Item")

Choices = list[tuple[int, int, int]]
"""Which session, how far back the piece begins, how much is new in it."""

choices = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2), st.integers(1, 6)), max_size=40)


def delivered(
    sessions: Mapping[Key, Sequence[Item]], chosen: Choices
) -> list[tuple[Key, int, Sequence[Item]]]:
    """(session, after, items) until every session is complete; what `chosen` leaves comes last."""
    counts = dict.fromkeys(sessions, 0)
    keys = list(sessions)
    rest = [(index, 0, len(sessions[key])) for index, key in reversed([*enumerate(keys)])]
    pieces = []
    for index, back, new in [*chosen, *rest]:
        key = keys[index % len(keys)]
        after = max(0, counts[key] - back)
        counts[key] = min(len(sessions[key]), counts[key] + new)
        pieces.append((key, after, sessions[key][after : counts[key]]))
    return pieces
