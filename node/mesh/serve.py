"""One remote node over a connection, from the hello to its end.

Open the multiplexer with `accept=ACCEPTED`: the remote's opens may come before ours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeAlias

import structlog
import trio

from hypercore.core import Core
from hypercore.errors import StorageError, UsageError
from hypercore.replication.channel import MessageChannel, Multiplexer
from hypercore.replication.messages import PROTOCOL as REPLICATION_PROTOCOL
from hypercore.store_connection import Allow
from node.errors import CorruptStore, NodeError
from node.mesh.announcements import held_sessions
from node.mesh.answering import answer_queries
from node.mesh.content_door import stored_state
from node.mesh.effort import SHARE
from node.mesh.exchange import EXCHANGE_SECONDS, Traffic
from node.mesh.follow import HEAD_SECONDS, CoreData
from node.mesh.follow_rules import OwnerRule
from node.mesh.inquiry import Inquiry
from node.mesh.listing import MAX_WAITING_UPDATES, matching_ids
from node.mesh.member import Member
from node.mesh.member_cores import DataCores, open_data_core
from node.mesh.mesh import Mesh
from node.mesh.messages import MAX_QUERY_IDS, PROTOCOL, Listed, Welcome
from node.mesh.penalties import Penalty
from node.mesh.session import ADMISSION_SECONDS, WRONG_SECRET, MeshSession
from node.mesh.turns import wait_turn

ServeMore: TypeAlias = Callable[[Member, Multiplexer], Awaitable[None]]
ACCEPTED = (PROTOCOL, REPLICATION_PROTOCOL)
"""Protocols whose opens wait until we take them."""

COMPARE_SECONDS = 30.0
"""Patience with the answers to comparisons: nobody waits for them, and they are long."""

CATCH_UP_SECONDS = 300.0
"""How often a full replica looks for what it may have missed; next to free when it has not."""

RETRY_SECONDS = 10.0
HEAD_DELAY_SECONDS = 10.0
"""How long the longer head of a member is not looked at while nothing is read from it. That is so
for most of them at most times: each that merges an edit writes it into its own log, too."""

COMPARE_HEADS_SECONDS = 60.0
"""Once in this time at most a member whose data core is as long as our copy of it shows that they
are the same: so a writer that signed two histories of one length is found out, too."""

REREAD_SECONDS = 0.5
"""When to read again after a read of what a member announced has failed."""

MOMENT_SECONDS = 0.1
"""Beyond its time an answer is looked for so long: it may have come, and not be read yet."""

TURN_SECONDS = 0.005
"""Time spent on one member's messages after which others have their turn."""

_log = structlog.get_logger(__name__)


class NotSpoken(NodeError):
    """The other end of a connection does not speak `beemesh/1`."""


class OtherMesh(NotSpoken):
    """The other end is a node, but knows another secret than ours."""


class KeptOut(NodeError):
    """The other end was sent away not long ago, for what it did."""

    def __init__(self, penalty: Penalty) -> None:
        super().__init__(f"sent away for a while: {penalty.reason}")


class MemberCores(DataCores, Protocol):
    """What serving members needs from the corestore."""

    def replicate(
        self, mux: Multiplexer, is_allowed: Allow, /, *, is_offered: Allow
    ) -> Awaitable[None]: ...
    def offer(self, key: bytes, /) -> None: ...


async def serve_member(
    mesh: Mesh,
    mux: Multiplexer,
    cores: MemberCores,
    traffic: Traffic | None = None,
    serve_more: ServeMore | None = None,
    *,
    stopwatch: Callable[[], float] = time.perf_counter,
) -> str:
    """Serve the node at the other end; returns why that ended.

    `serve_more` runs beside this while that node is a member.

    `traffic` tells where it is, and how many bytes were exchanged with it, for rules about peers,
    and when it was heard last. The `stopwatch` measures what is done for it.

    Cores are replicated on this connection from the moment both have proved the secret, and
    not before. What the remote does wrong ends its channel and nobody else's.

    Raises: NotSpoken when the remote does not open the channel, OtherMesh, KeptOut.
    Cancel: the remote is gone for us.
    """
    link = mux.link
    penalty = mesh.penalties.keeps_out(link.remote_public_key, trio.current_time())
    if penalty is not None:
        raise KeptOut(penalty)
    channel = await _open_channel(mux)
    session = MeshSession(
        mesh.membership.key,
        is_initiator=link.is_initiator,
        handshake_hash=link.handshake_hash,
        judge=lambda grant: mesh.trust.judge(link.remote_public_key, grant),
        explain=lambda grant: mesh.trust.explain(link.remote_public_key, grant),
        now=trio.current_time(),
        owners_of=mesh.owners.of,
    )
    member = Member(link.remote_public_key, channel, session, mesh)
    member.traffic, member.stopwatch = traffic, stopwatch
    try:
        async with trio.open_nursery() as nursery:
            member.carry_out(session.open())
            nursery.start_soon(_receive, member, channel)
            nursery.start_soon(_keep_time, member)
            await member.state_changed.wait()
            if member.welcome is not None and member.close_reason is None:
                await _find_allowance(mesh, member)
                with _connected_core(mesh, cores, member.welcome.data_key):
                    if serve_more is not None:
                        nursery.start_soon(serve_more, member, mux)
                    await _serve_admitted(mesh, member, member.welcome, mux, cores, traffic)
            nursery.cancel_scope.cancel()
    finally:
        event = "not admitted" if member.welcome is None else "member left"
        reason = member.close_reason or "the connection ended"
        _log.info(event, **_about(member), reason=reason)
        member.carry_out(session.close())
        channel.close()
        mesh.recall.forget(member)  # it may have spoken of our log before it was in the table
        if member.conduct.ended_for is not None:
            mesh.punish(member, member.conduct.ended_for)
    if member.welcome is None and member.close_reason == WRONG_SECRET:
        raise OtherMesh(WRONG_SECRET)
    return member.close_reason or "closed"


def _about(member: Member) -> dict[str, str]:
    about = member.statistics()
    facts = {"id": about.id.hex()[:12], "name": about.name, "role": about.role}
    # Before it is let in, name and role are unknown.
    return {name: fact for name, fact in facts.items() if fact}


async def _open_channel(mux: Multiplexer) -> MessageChannel:
    with trio.move_on_after(ADMISSION_SECONDS):
        try:
            return await mux.open_channel(PROTOCOL, None)
        except (trio.BrokenResourceError, trio.EndOfChannel) as error:
            raise NotSpoken(f"it does not speak {PROTOCOL}: {error}") from error
    raise NotSpoken(f"it did not answer our open of {PROTOCOL}")


async def _serve_admitted(
    mesh: Mesh,
    member: Member,
    welcome: Welcome,
    mux: Multiplexer,
    cores: MemberCores,
    traffic: Traffic | None,
) -> None:
    """Serve a member until it closes; its data core is open meanwhile."""
    if welcome.data_key == mesh.data.key:
        member.carry_out(member.session.close("it shows our own data core as its own"))
        return
    try:
        core = await _open_core(mesh, member, welcome, cores)
    except (StorageError, UsageError) as error:
        member.carry_out(member.session.close(f"its data core cannot be opened: {error}"))
        return
    member.core = core
    try:
        if not mesh.safekeeping.is_keeper:  # else it is ciphertext
            hints = not mesh.membership.is_encrypted
            member.data = CoreData(core, mesh.uses, hints=hints, keeper=member.id)
        _configure(mesh, member, welcome, core)
        member.outbox.serve(lambda: mesh.data.durable_length, mesh.data.replication.announce)
        mesh.add(member)
        if traffic is not None and member.close_reason is None:
            traffic.note_welcome()
        head = mesh.recall.meet(core.head)
        member.carry_out(member.session.tell_run(head))
        _log.info("member joined", **_about(member))
        async with trio.open_nursery() as nursery:
            is_shared = partial(_is_shared, mesh, member, welcome)
            is_offered = partial(_is_offered, mesh, welcome)
            nursery.start_soon(partial(cores.replicate, mux, is_shared, is_offered=is_offered))
            nursery.start_soon(answer_queries, mesh, member)
            nursery.start_soon(_watch_exchange, mesh, member, traffic)
            nursery.start_soon(mesh.keep_safe, member, core, cores)
            if member.direction.takes and member.data is not None:
                nursery.start_soon(_stay_current, mesh, member, welcome)
            nursery.start_soon(_list_what_it_follows, mesh, member)
            while member.close_reason is None:
                await member.state_changed.wait()
            nursery.cancel_scope.cancel()
    finally:
        mesh.remove(member)
        if member.close_reason is None:  # cancelled: another connection takes its place
            mesh.recall.runs.replaced(member.id, trio.current_time())
        member.core = member.data = None
        core.release()


async def _open_core(mesh: Mesh, member: Member, welcome: Welcome, cores: MemberCores) -> Core:
    is_proven = mesh.trust.is_proven_author(member, welcome)
    data_key = mesh.membership.data_key
    return await open_data_core(cores, welcome.data_key, data_key, is_proven=is_proven)


async def _find_allowance(mesh: Mesh, member: Member) -> None:
    """What it used up on an earlier connection is used up; while it owes anything it waits."""
    member.conduct.allowance = mesh.allowances.admit(member.id, trio.current_time())
    await wait_turn(member)


def _configure(mesh: Mesh, member: Member, welcome: Welcome, core: Core) -> None:
    member.is_author = mesh.trust.is_author(member, welcome, is_held=core.length > 0)
    settings = replace(
        core.replication.settings,
        writer=member.id if member.is_author else None,
        head_delay_seconds=HEAD_DELAY_SECONDS,
        compare_seconds=COMPARE_HEADS_SECONDS,
    )
    core.replication.configure(settings)


async def _receive(member: Member, channel: MessageChannel) -> None:
    session = member.session
    try:
        while member.close_reason is None:
            messages = await channel.receive()
            started, size = member.stopwatch(), 0
            for number, payload in messages:
                member.carry_out(session.receive(number, payload, trio.current_time()))
                size += len(payload)
                seconds = member.stopwatch() - started
                if seconds > TURN_SECONDS and session.is_proved:
                    await _weigh(member, size, seconds)
                    started, size = member.stopwatch(), 0
            if session.is_proved:
                await _weigh(member, size, member.stopwatch() - started)
    except (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError):
        member.carry_out(session.close("the remote closed it"))


async def _weigh(member: Member, size: int, seconds: float) -> None:
    """Look at what these messages took of our time; one that takes too much is read from later."""
    member.conduct.effort.spend(seconds, trio.current_time(), size)
    member.judge()
    await wait_turn(member)


async def _keep_time(member: Member) -> None:
    """Tell the session when its deadlines pass."""
    session = member.session
    while True:
        deadline, answers = session.deadline, session.answers_heard
        with trio.move_on_at(math.inf if deadline is None else deadline):
            await member.deadline_moved.wait()
            continue
        if session.deadline != deadline:
            continue
        blocks = member.blocks_fetched
        await trio.sleep(MOMENT_SECONDS)
        is_sending = session.answers_heard > answers or member.blocks_fetched > blocks
        member.carry_out(session.advance(trio.current_time(), is_sending=is_sending))


async def _stay_current(mesh: Mesh, member: Member, welcome: Welcome) -> None:
    """Find what we missed: on meeting the member, and when too much was announced at once."""
    await mesh.recall.wait_settled()
    while True:
        times = member.times_asked_anew
        is_done = not member.may_write or await _compare(mesh, member)
        if mesh.policy.everything and member.may_write:
            # What came while there was no room is not announced again, nor all that came before
            # this node began to keep everything.
            await _learn_head(member)
            is_done = await _hear_version(member) and is_done
            length = max(welcome.length, member.session.announced_length)
            newest = replace(welcome, length=length)
            is_done = await mesh.catch_up.run(member, newest) and is_done
        if is_done and times == member.times_asked_anew:
            member.acknowledgements.is_compared = True
        mesh.note_sync_changed()
        with trio.move_on_after(CATCH_UP_SECONDS if is_done else RETRY_SECONDS):
            await member.needs_catching_up.wait()
            seconds = REREAD_SECONDS if member.conduct.is_unread else RETRY_SECONDS
            member.conduct.is_unread = False
            with trio.move_on_after(seconds) as pause:
                # What was announced is fetched first, unless something else is wanted now.
                await member.policy_changed.wait()
            if pause.cancelled_caught:
                mesh.interest.ask_for_listing(member)
            else:
                mesh.interest.tell(member)


async def _learn_head(member: Member) -> None:
    """Look for a longer head: nobody has done so while nothing was read from the member."""
    if member.core is not None:
        with trio.move_on_after(HEAD_SECONDS), suppress(trio.ClosedResourceError):
            await member.core.update()


async def _hear_version(member: Member) -> bool:
    """Wait until the member says how far its log is to be read; returns whether it did."""
    with trio.move_on_after(HEAD_SECONDS):
        while not member.session.is_listed:
            await member.heard_listed.wait()
    return member.session.is_listed


async def _list_what_it_follows(mesh: Mesh, member: Member) -> None:
    """Tell a member of what is held here and matches what it says it follows."""
    while True:
        with trio.move_on_after(member.listing.retry_seconds):
            await member.listing.wake.wait()
        await mesh.recall.wait_readable()
        prefixes, owners = member.listing.take()
        interests = member.session.interests_heard
        started, waited, version = trio.current_time(), 0.0, 0
        try:
            if member.direction.gives:
                waited = await _list_matching(mesh, member, prefixes, owners)
                version = mesh.data.durable_length
            member.outbox.queue_listed(Listed(version, interests))
            member.listing.succeeded()
        except CorruptStore as error:
            member.listing.failed()
            _log.error("cannot list what a member follows", **_about(member), error=str(error))
        # One that follows something else in each message gets as little of our time as anybody.
        await trio.sleep((trio.current_time() - started - waited) / SHARE)


async def _list_matching(
    mesh: Mesh, member: Member, prefixes: tuple[str, ...], owners: frozenset[OwnerRule]
) -> float:
    """Returns how many seconds the member was waited for. Raises: CorruptStore."""
    waited = 0.0
    async with aclosing(matching_ids(mesh.host.store, mesh.owners, prefixes, owners)) as found:
        async for ids in found:
            states = {co_id: await stored_state(mesh.host, co_id) for co_id in ids}
            held = {co_id: state.sessions for co_id, state in states.items() if state.header}
            member.outbox.queue_update(held)
            stopped = trio.current_time()
            while member.outbox.updates > MAX_WAITING_UPDATES:
                await member.outbox.room.wait()
            waited += trio.current_time() - stopped
            await trio.lowlevel.checkpoint()
    return waited


async def _watch_exchange(mesh: Mesh, member: Member, traffic: Traffic | None) -> None:
    """Count what is exchanged; when something else is due, close, for a new connection to begin."""
    counted = 0
    try:
        while True:
            if traffic is not None:
                size, counted = traffic.bytes() - counted, traffic.bytes()
                await mesh.exchange.count(member.id, size)
            due = mesh.due(member)
            if due is not member.direction:
                reason = (
                    f"by its rule or budget the exchange is now {due}, and was {member.direction}"
                )
                member.carry_out(member.session.close(reason))
                return
            with trio.move_on_after(EXCHANGE_SECONDS):
                await mesh.exchange.wait_changed()
    finally:
        if traffic is not None:
            mesh.exchange.count_ended(member.id, traffic.bytes() - counted)


def _is_shared(mesh: Mesh, member: Member, welcome: Welcome, core: Core) -> bool:
    """Whether a core is exchanged with a member: what is not given stays here."""
    if core.key == welcome.data_key:
        return member.direction.takes
    return member.direction.gives


@contextmanager
def _connected_core(mesh: Mesh, cores: MemberCores, key: bytes) -> Iterator[None]:
    """While the block lasts the core is read from its owner; then, if still open, from anybody."""
    try:
        with mesh.connected_core(key):
            yield
    finally:
        cores.offer(key)


def _is_offered(mesh: Mesh, welcome: Welcome, core: Core) -> bool:
    """Whether to open a core's channel with a member unasked: ours, its own, or an absent node's.

    The core of a node that is connected is read from that node. With all cores on all connections
    every commit would be announced to everybody by everybody.
    """
    return core.key == welcome.data_key or not mesh.is_connected_core(core.key)


async def _compare(mesh: Mesh, member: Member) -> bool:
    """Compare known states of all that somebody here wants; returns whether all was answered."""
    wanted = sorted(mesh.policy.select(mesh.host.wanted_ids()))
    for start in range(0, len(wanted), MAX_QUERY_IDS):
        # What is answered is passed on as if it had been announced.
        inquiry = Inquiry(passes_on=True)
        for co_id in wanted[start : start + MAX_QUERY_IDS]:
            inquiry.wanted[co_id] = held_sessions(await stored_state(mesh.host, co_id))
        queries = member.ask(inquiry, COMPARE_SECONDS)
        inquiry.sent(queries)
        await inquiry.wait_complete()
        if not queries or not inquiry.is_answered:
            return False
    return True
