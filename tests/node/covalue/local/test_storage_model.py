"""A `LocalStorage` on every store, against a model: a prefix for each session, and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from node.covalue.content import Content, SessionContent
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.local.storage import LocalStorage, NotCorrected, open_local_storage
from tests.support.authors import Author, edits, map_header
from tests.support.stores import HOMES, StoreHome, deletion, joined

ANN, BOB = Author("ann"), Author("bob")
HEADERS = {header.id: header for header in (map_header("1"), map_header("2"))}
IDS = sorted(HEADERS)
SESSIONS = sorted([ANN.session_id(as_agent=True), BOB.session_id(as_agent=True)])
DELETION = ANN.delete_session_id(as_agent=True)
ALL = {SESSIONS[0]: edits(30), SESSIONS[1]: edits(30, size=9_000)}


@dataclass(frozen=True)
class Put:
    """Content of one session; what comes before it is given when it is asked for, or it is not."""

    co_id: RawCoId
    session_id: CoSessionId
    after: int
    length: int
    has_header: bool
    is_helpful: bool


@dataclass(frozen=True)
class Delete:
    co_id: RawCoId


@dataclass(frozen=True)
class Erase:
    pass


@dataclass(frozen=True)
class Unmount:
    co_id: RawCoId


@dataclass(frozen=True)
class Reopen:
    pass


Step = Put | Delete | Erase | Unmount | Reopen

_ids = st.sampled_from(IDS)
_steps = st.one_of(
    st.builds(
        Put,
        _ids,
        st.sampled_from(SESSIONS),
        st.integers(0, 29),
        st.integers(1, 12),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(Delete, _ids),
    st.builds(Erase),
    st.builds(Unmount, _ids),
    st.builds(Reopen),
)


def _part(session_id: CoSessionId, after: int, stop: int) -> SessionContent:
    return SessionContent(after, ALL[session_id][after:stop], stop.to_bytes(64, "big"))


@dataclass
class Model:
    """What is stored of each value, and which of them are tombstones."""

    counts: dict[RawCoId, dict[CoSessionId, int]] = field(default_factory=dict)
    deleted: set[RawCoId] = field(default_factory=set)
    erased: set[RawCoId] = field(default_factory=set)

    def known(self, co_id: RawCoId) -> KnownState:
        if co_id not in self.counts:
            return NOTHING
        if co_id in self.deleted:
            return KnownState(True, {DELETION: 1})
        return KnownState(True, self.counts[co_id])

    async def put(self, storage: LocalStorage, step: Put) -> None:
        stop = min(30, step.after + step.length)
        header = HEADERS[step.co_id]
        content = Content(
            step.co_id,
            header if step.has_header else None,
            {step.session_id: _part(step.session_id, step.after, stop)},
        )
        is_stored = step.co_id in self.counts or step.has_header
        before = self.counts.get(step.co_id, {}).get(step.session_id, 0)
        is_gap = not is_stored or (step.after > before and step.co_id not in self.deleted)

        expected = self.known(step.co_id) if step.co_id in self.counts else KnownState(is_stored)

        async def correct(known: KnownState) -> Sequence[Content] | None:
            assert is_gap
            assert known == expected
            if not step.is_helpful:
                return None
            start = known.sessions.get(step.session_id, 0)
            part = _part(step.session_id, start, stop)
            return [Content(step.co_id, None if known.header else header, {step.session_id: part})]

        try:
            await storage.store(content, correct)
        except NotCorrected:
            assert is_gap
            assert not step.is_helpful
            if is_stored:
                self.counts.setdefault(step.co_id, {})
        else:
            counts = self.counts.setdefault(step.co_id, {})
            if step.co_id not in self.deleted:
                counts[step.session_id] = max(before, stop)

    async def check(self, storage: LocalStorage) -> None:
        assert await storage.ids(10) == sorted(self.counts)
        assert storage.count() == len(self.counts)
        assert set(await storage.eraser.pending()) == self.deleted - self.erased
        for co_id in IDS:
            known = self.known(co_id)
            assert (await storage.load_known_state(co_id) or NOTHING) == known
            assert storage.known_state(co_id) == known
            storage.unmount(co_id)
            pieces = [piece async for piece in storage.load(co_id)]
            assert bool(pieces) == known.header
            found = joined(pieces)
            assert {key: len(part) for key, part in found.items()} == known.sessions
            for session_id, transactions in found.items():
                if session_id != DELETION:
                    assert transactions == ALL[session_id][: len(transactions)]
            for piece in pieces:
                for session_id, part in piece.new.items():
                    signed = part.signature == part.stop.to_bytes(64, "big")
                    assert signed == (session_id != DELETION)
            await storage.wait_stored(co_id, partial(self.known, co_id))


async def _run(home: StoreHome, steps: Sequence[Step]) -> None:
    model = Model()
    pending = list(steps)
    while True:
        async with home.open() as store, open_local_storage(store, lambda: 0) as storage:
            while pending:
                step = pending.pop(0)
                match step:
                    case Put():
                        await model.put(storage, step)
                    case Delete(co_id) if co_id in model.counts and co_id not in model.deleted:
                        storage.mark_deletion_valid(co_id)
                        await storage.store(deletion(co_id, ANN), _no_correction)
                        model.deleted.add(co_id)
                    case Erase():
                        await storage.eraser.erase_pending()
                        model.erased |= model.deleted
                    case Unmount(co_id):
                        storage.unmount(co_id)
                    case Reopen():
                        break
            await model.check(storage)
        if not pending:
            return


async def _no_correction(known: KnownState) -> None:
    raise AssertionError(f"asked for what is beyond {known}")


@pytest.mark.parametrize("backend", HOMES)
@settings(max_examples=25)
@given(steps=st.lists(_steps, max_size=25))
def test_whatever_is_stored_in_whatever_order_what_fits_is_kept(
    backend: str, steps: list[Step]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        trio.run(_run, HOMES[backend](Path(directory)), steps)
