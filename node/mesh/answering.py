"""[trio] Answering the queries of a member, in order, as fast as its share of our time allows.

A small answer is sent at once. A large one is encoded part by part, as the connection takes it: a
value may have been written to in very many sessions, and be asked about in few bytes.
"""

from __future__ import annotations

import trio

from node.covalue.ids import RawCoId
from node.errors import CorruptStore
from node.mesh.announcements import held_sessions
from node.mesh.conduct import extra_lookups
from node.mesh.content_door import stored_state
from node.mesh.member import Member
from node.mesh.mesh import Mesh
from node.mesh.messages import Query, Sessions, split_values
from node.mesh.outputs import Transmit
from node.mesh.turns import wait_turn

SMALL_ANSWER_BYTES = 16 << 10
"""Such an answer goes ahead of blocks and updates: somebody waits for it."""

_QUERY_PAUSE = 64  # values looked up for a query before others have their turn


async def answer_queries(mesh: Mesh, member: Member) -> None:
    """Answer one query at a time, until cancelled: that bounds the work a member can cause."""
    while True:
        await member.query_arrived.wait()
        started = member.stopwatch()
        while (query := member.next_query()) is not None:
            member.conduct.effort.spend(member.stopwatch() - started, trio.current_time())
            await mesh.recall.wait_readable()
            await _answer(mesh, member, query)
            started = member.stopwatch()


async def _answer(mesh: Mesh, member: Member, query: Query) -> None:
    known = dict(zip(query.ids, query.known, strict=True))
    values, paid_share = await _look_up(mesh, member, [*known])
    mesh.count_query()
    # Read after the states: this version has at least what they say.
    version = mesh.data.durable_length
    member.answered(values)
    pusher = mesh.pusher if query.wants_push else None
    held = {co_id: known[co_id] for co_id, sessions in values if sessions is not None}
    mesh.data.replication.announce()
    pushed, started = 0, member.stopwatch()
    if pusher is not None:
        pushed = pusher.push(member.id, held)  # so that the answer finds them announced
    took = member.stopwatch() - started
    await _send(member, query.request_id, version, values, paid_share)
    if pusher is not None:
        started = member.stopwatch()
        pushed += await pusher.push_dependencies(member.id, held)
        if not pushed:  # it had all of that already
            took += member.stopwatch() - started
            member.conduct.effort.spend(took, trio.current_time())
        await wait_turn(member)


async def _look_up(
    mesh: Mesh, member: Member, ids: list[RawCoId]
) -> tuple[list[tuple[RawCoId, Sessions | None]], float]:
    """What we hold of each, and which part of the work for that the member has to pay."""
    values: list[tuple[RawCoId, Sessions | None]] = []
    if not (member.direction.gives and member.may_read):
        return [(co_id, None) for co_id in ids], 0.0
    stored = _stored_values(mesh)
    paid_share = 0.0
    for start in range(0, len(ids), _QUERY_PAUSE):
        few = ids[start : start + _QUERY_PAUSE]
        started, present, extra = member.stopwatch(), 0, 0
        for co_id in few:
            held = held_sessions(await stored_state(mesh.host, co_id))
            values.append((co_id, held))
            present += held is not None
            extra += extra_lookups(len(held or ()))
        took, now = member.stopwatch() - started, trio.current_time()
        absent = len(few) - present
        share = member.conduct.note_looked_up(took, present, absent, stored, now, extra)
        paid_share = max(share, paid_share)
        await wait_turn(member)
    return values, paid_share


def _stored_values(mesh: Mesh) -> int:
    try:
        return mesh.host.store.count()
    except CorruptStore:
        return 0


async def _send(
    member: Member,
    request_id: int,
    version: int,
    values: list[tuple[RawCoId, Sessions | None]],
    paid_share: float,
) -> None:
    parts = list(split_values(values))
    for number, part in enumerate(parts, 1):
        started = member.stopwatch()
        outputs = member.session.answer(request_id, version, part, more=number < len(parts))
        size = sum(len(output.payload) for output in outputs if isinstance(output, Transmit))
        took = member.stopwatch() - started
        if len(parts) == 1 and size <= SMALL_ANSWER_BYTES:
            member.carry_out(outputs)
            return
        member.conduct.effort.spend(paid_share * took, trio.current_time(), int(paid_share * size))
        member.outbox.queue_answer(outputs)
        while member.outbox.is_answering:
            await member.outbox.answer_taken.wait()
        await wait_turn(member)
