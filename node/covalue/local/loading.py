"""Loading a value for a process that holds some values already, dependencies first.

A piece comes after the values that it depends on, and these after theirs. What the process has
mounted is left out, so a group is loaded once for all the values that it owns; cycles end for the
same reason, since a value is mounted before its first piece is looked at.

Source: cojson 0.20.19 storage/storageAsync.ts loadCoValue, pushContentWithDependencies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace

from node.covalue.content import Content
from node.covalue.dependencies import header_dependencies, part_dependencies
from node.covalue.header import CoValueHeader
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.local.held_states import HeldState, HeldStates
from node.covalue.store import CoValueStore

ROUND_BYTES = 256 * 1024
"""Read of one value at a time: what is not handed out yet waits in memory."""


@dataclass(slots=True)
class _Loading:
    """A value on its way: pieces read and not handed out, and what the first one still needs."""

    co_id: RawCoId
    header: CoValueHeader
    known: KnownState
    """What the pieces read so far make."""
    is_complete: bool
    pieces: deque[Content]
    needs: deque[RawCoId] = field(default_factory=deque)

    def look_at_next(self) -> None:
        """Find out what the next piece depends on."""
        if self.pieces:
            self.needs = deque(_dependencies(self.header, self.pieces[0]))


async def load_with_dependencies(
    store: CoValueStore,
    held: HeldStates,
    co_id: RawCoId,
    hold: Callable[[RawCoId, HeldState], None],
    round_bytes: int = ROUND_BYTES,
) -> AsyncGenerator[Content, None]:
    """The pieces of a value, and of what it needs that is not mounted, in order.

    `hold` is told how far each value is stored, before its first piece is given.

    Raises: CorruptStore.
    Cancel: values that were begun stay mounted.
    """
    begun = await _begin(store, held, co_id, hold, round_bytes)
    path = [] if begun is None else [begun]
    while path:
        loading = path[-1]
        if loading.needs:
            needed = loading.needs.popleft()
            if not held.is_mounted(needed):
                begun = await _begin(store, held, needed, hold, round_bytes)
                if begun is not None:
                    path.append(begun)
        elif loading.pieces:
            yield loading.pieces.popleft()
            loading.look_at_next()
        elif not loading.is_complete:
            await _read_on(store, loading, round_bytes)
        else:
            path.pop()


async def _begin(
    store: CoValueStore,
    held: HeldStates,
    co_id: RawCoId,
    hold: Callable[[RawCoId, HeldState], None],
    round_bytes: int,
) -> _Loading | None:
    loaded = await store.load(co_id, NOTHING, round_bytes)
    if not loaded.pieces:
        return None
    header = loaded.pieces[0].header
    if header is None:
        raise RuntimeError(f"the store gave {co_id} without its header")
    held.mount(co_id)
    hold(co_id, HeldState(_end_of(loaded.pieces)))
    known = _reached(NOTHING, loaded.pieces)
    loading = _Loading(co_id, header, known, loaded.is_complete, deque(loaded.pieces))
    loading.look_at_next()
    return loading


async def _read_on(store: CoValueStore, loading: _Loading, round_bytes: int) -> None:
    loaded = await store.load(loading.co_id, loading.known, round_bytes)
    loading.is_complete = loaded.is_complete or not loaded.pieces
    # The very first piece has said already how far the value goes.
    loading.pieces = deque(replace(piece, expect_until=None) for piece in loaded.pieces)
    loading.known = _reached(loading.known, loaded.pieces)
    loading.look_at_next()


def _end_of(pieces: Sequence[Content]) -> KnownState:
    """How far the value goes: as announced, else as far as the pieces do."""
    until = pieces[0].expect_until
    return _reached(NOTHING, pieces) if until is None else KnownState(True, until)


def _reached(known: KnownState, pieces: Sequence[Content]) -> KnownState:
    for piece in pieces:
        known = known.merged(piece.known_state)
    return known


def _dependencies(header: CoValueHeader, piece: Content) -> list[RawCoId]:
    needs = dict.fromkeys(header_dependencies(header))
    needs.update(dict.fromkeys(part_dependencies(piece.new, is_group=header.is_group)))
    needs.pop(piece.co_id, None)
    return list(needs)
