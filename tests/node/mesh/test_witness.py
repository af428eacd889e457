"""Evidence of forks goes round the mesh: believed by nobody who has not checked it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from hypercore import verify_fork_proof
from hypercore.crypto import sign
from hypercore.errors import StorageFailed
from hypercore.fork_proof import MAGIC
from node.cojson.crypto import RunningHash, signed_bytes
from node.cojson.fork_evidence import EvidenceVerdict, judge_fork
from node.cojson.fork_watch import MAX_FORKS
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.ids import RawCoId
from node.covalue.session_fork import SessionFork
from node.covalue.session_log import feed
from node.covalue.store import StoredValue
from node.mesh.messages import Evidence, EvidenceKind, MessageType
from node.mesh.replicas import ReplicaPolicy
from node.mesh.witness import (
    LATER_SECONDS,
    MAX_PIECES,
    MAX_UNPROVEN,
    MAX_WAITING,
    Witness,
    decode_session_evidence,
    encode_session_evidence,
)
from node.values import perform_on_values
from node.verbs import ListForks
from tests.node.mesh.authors import Author, Value
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, wait_until
from tests.node.mesh.test_serve import RAW, raw_member, receive_one, wait_closed
from tests.support.forked_logs import ONE, fork_proof
from tests.support.trees import KEY_PAIR, MANIFEST

VALUE = Author(1).value("forked")
BEFORE = [Transaction(1, "[]"), Transaction(2, "[1]")]


def half(
    *changes: str, before: Sequence[Transaction] = BEFORE, author: Value = VALUE
) -> SessionContent:
    """One continuation after `before`, signed."""
    after = [Transaction(100, text) for text in changes]
    running = RunningHash()
    feed(running, [*before, *after])
    signature = sign(signed_bytes(running), author.key_pair.secret_key)
    return SessionContent(len(before), after, signature)


FORK = SessionFork(VALUE.id, VALUE.session_id, half('["ours"]'), half('["theirs"]', "[2]"))


def whole(continuation: SessionContent) -> Content:
    part = SessionContent(0, [*BEFORE, *continuation.transactions], continuation.signature)
    return Content(VALUE.id, VALUE.header, {VALUE.session_id: part})


async def hold(node: MeshNode, content: Content) -> None:
    receipt = await node.host.receive_content("test", [content])
    assert not receipt.refused


async def wait_forks(*nodes: MeshNode) -> None:
    with trio.fail_after(20):
        for node in nodes:
            await node.host.forks.wait_kept(0)


async def test_a_forked_session_is_known_to_all_who_hold_it() -> None:
    async with AsyncExitStack() as stack:
        first, second, third = [
            await stack.enter_async_context(open_mesh_node(number)) for number in (1, 2, 3)
        ]
        await hold(first, whole(FORK.kept))
        await hold(second, whole(FORK.refused))
        await hold(third, whole(FORK.kept))
        await stack.enter_async_context(connected(second, third))
        # The author comes to the first node with its other continuation.
        await first.host.receive_content("test", [whole(FORK.refused)])
        await wait_forks(first)
        await stack.enter_async_context(connected(first, second))
        await wait_forks(second, third)
        for node, kept in ((first, FORK.kept), (second, FORK.refused), (third, FORK.kept)):
            [fork] = await node.store.forks()
            assert fork.kept == kept
            assert {fork.kept.signature, fork.refused.signature} == {
                FORK.kept.signature,
                FORK.refused.signature,
            }
            assert node.host.statistics().forks_found == 1
        assert third.mesh.statistics().evidence_refused == 0


async def test_members_with_different_continuations_find_out() -> None:
    """None of them was ever sent the other one by a client."""
    one, other = (Author(3).value("parted") for _ in range(2))
    async with (
        open_mesh_node(1, policy=ReplicaPolicy(everything=True)) as first,
        open_mesh_node(2, policy=ReplicaPolicy(everything=True)) as second,
    ):
        await hold(first, one.edit("[]", "[1]", with_header=True))
        await hold(second, other.edit("[]", "[2]", "[3]", with_header=True))
        async with connected(first, second):
            await wait_forks(first, second)
        for node in (first, second):
            [fork] = await node.store.forks()
            assert (fork.co_id, fork.session_id, fork.index) == (one.id, one.session_id, 1)
        assert not first.mesh.penalties.total


async def test_evidence_is_judged_when_the_beginning_of_the_session_has_come() -> None:
    async with open_mesh_node(1) as first, open_mesh_node(2) as second:
        await hold(first, whole(FORK.kept))
        await first.host.receive_content("test", [whole(FORK.refused)])
        await wait_forks(first)
        async with connected(first, second):
            await wait_until(lambda: second.mesh.witness.received == 1)
            await trio.testing.wait_all_tasks_blocked()
            assert await second.store.forks() == []
            await hold(second, whole(FORK.kept))
            await wait_forks(second)


async def test_what_cannot_be_judged_is_not_looked_up_again_before_its_value_moves(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It was, each second: a few pieces about a value of many sessions took all the time."""
    looked_up: list[RawCoId] = []
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        load_value = node.store.load_value

        async def counted(co_id: RawCoId) -> StoredValue | None:
            looked_up.append(co_id)
            return await load_value(co_id)

        monkeypatch.setattr(node.store, "load_value", counted)
        channel.send(MessageType.EVIDENCE, encode_session_evidence(FORK).encode())
        await trio.sleep(5)
        looked_up.clear()
        await hold(node, Author(2).created("another"))
        await trio.sleep(60)
        assert VALUE.id not in looked_up
        await hold(node, whole(FORK.kept))
        await wait_forks(node)


async def test_what_a_member_that_has_gone_told_leaves_room_for_others() -> None:
    """64 pieces that nobody could judge, and nothing of the kind was kept in mind any more."""
    async with open_mesh_node(1) as first, open_mesh_node(2) as second:
        async with raw_member(second) as channel:
            for number in range(MAX_WAITING):
                told = replace(FORK, co_id=Author(3).value(f"unknown {number}").id)
                channel.send(MessageType.EVIDENCE, encode_session_evidence(told).encode())
                await wait_until(lambda n=number: second.mesh.witness.received == n + 1)  # type: ignore[misc]
        await wait_until(lambda: not second.mesh.members)
        await hold(first, whole(FORK.kept))
        await first.host.receive_content("test", [whole(FORK.refused)])
        await wait_forks(first)
        async with connected(first, second):
            await wait_until(lambda: second.mesh.witness.received == MAX_WAITING + 1)
            await trio.testing.wait_all_tasks_blocked()
            await hold(second, whole(FORK.kept))
            await wait_forks(second)


async def test_a_forked_core_is_frozen_everywhere_and_its_member_is_not_asked() -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_mesh_node(number)) for number in (1, 2, 3)]
        cores = [await node.cores.get(key_pair=KEY_PAIR) for node in nodes]
        for core in cores:
            await core.append(ONE)
        await stack.enter_async_context(connected(nodes[0], nodes[1]))
        await cores[0].freeze(fork_proof())
        await wait_until(lambda: cores[1].is_frozen)
        # Who comes later hears of it, too.
        await stack.enter_async_context(connected(nodes[1], nodes[2]))
        await wait_until(lambda: cores[2].is_frozen)
        for node in nodes:
            await wait_until(lambda node=node: bool(node.mesh.witness.forked_cores))  # type: ignore[misc]
            [result] = [each async for each in perform_on_values(node.host, node.mesh, ListForks())]
            assert result["core"] == MANIFEST.key.hex()
            assert "of 5 and 6 blocks" in str(result["conflict"])
            assert node.mesh.statistics().forked_cores == 1


async def test_evidence_of_a_core_is_kept_beside_our_data() -> None:
    async with open_mesh_node(1) as node:
        core = await node.cores.get(key_pair=KEY_PAIR)
        await core.append(ONE)
        await core.freeze(fork_proof())
        await wait_until(lambda: node.mesh.witness.is_forked(MANIFEST.key))
        [(row, proof)] = node.data.local_items(b"evidence:", b"evidence;")
        assert row == b"evidence:" + MANIFEST.key.hex().encode()
        assert verify_fork_proof(proof, MANIFEST.key).lengths == (5, 6)


async def test_a_member_whose_data_core_is_forked_is_not_asked_any_more() -> None:
    async with open_mesh_node(1) as node, open_mesh_node(2) as forker:
        value = Author(3).value("there")
        await hold(forker, value.edit("[]", with_header=True))
        async with connected(node, forker):
            [member] = node.mesh.members.values()
            member.freeze()
            assert await node.host.load(value.id) is None
            [status] = node.mesh.statistics().members
            assert status.queries_asked == 0
            assert node.mesh.sync_state().members[0].state == "forked"


TAMPERED = SessionContent(2, [Transaction(100, '["never said"]')], FORK.refused.signature)
EVE = Author(2).value("forked")


@pytest.mark.parametrize(
    "fork",
    [
        SessionFork(VALUE.id, VALUE.session_id, FORK.kept, TAMPERED),
        SessionFork(VALUE.id, VALUE.session_id, FORK.kept, FORK.kept),
        SessionFork(VALUE.id, VALUE.session_id, FORK.kept, half('["theirs"]', author=EVE)),
        SessionFork(VALUE.id, VALUE.session_id, FORK.kept, half('["ours"]', "[2]")),
        SessionFork(VALUE.id, VALUE.session_id, FORK.kept, SessionContent(2, [], bytes(64))),
        SessionFork(VALUE.id, VALUE.session_id, FORK.kept, half("[3]", before=BEFORE[:1])),
    ],
)
async def test_false_evidence_of_a_session_costs_the_sender(fork: SessionFork) -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        await hold(node, whole(FORK.kept))
        assert await judge_fork(node.store, fork) is EvidenceVerdict.FALSE
        channel.send(MessageType.EVIDENCE, encode_session_evidence(fork).encode())
        await wait_closed(channel)
        await wait_until(lambda: bool(node.goodbyes))
        assert "false evidence about session" in node.goodbyes[0]
        assert node.mesh.statistics().evidence_refused == 1
        assert await node.store.forks() == []


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(EvidenceKind.CORE, MANIFEST.key.hex(), MAGIC + bytes(100), b""),
        Evidence(EvidenceKind.CORE, "no key", fork_proof().encode(), b""),
        Evidence(EvidenceKind.CORE, bytes(32).hex(), fork_proof().encode(), b""),
        Evidence(EvidenceKind.SESSION, "no session", b"", b""),
        Evidence(EvidenceKind.SESSION, f"{VALUE.id}:{VALUE.session_id}", b"\xc1", b"\x90"),
    ],
)
async def test_what_is_no_evidence_at_all_costs_the_sender(evidence: Evidence) -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        core = await node.cores.get(key_pair=KEY_PAIR)
        channel.send(MessageType.EVIDENCE, evidence.encode())
        await wait_closed(channel)
        await wait_until(lambda: bool(node.goodbyes))
        assert "false evidence" in node.goodbyes[0]
        assert not core.is_frozen


async def test_what_cannot_be_judged_here_is_borne_with_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = 8
    assert few < MAX_FORKS <= MAX_UNPROVEN
    monkeypatch.setattr("node.mesh.witness.MAX_UNPROVEN", few)
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        for number in range(few + 1):
            assert not node.goodbyes
            other = Author(10 + number).value("not here")
            fork = SessionFork(other.id, other.session_id, FORK.kept, FORK.refused)
            channel.send(MessageType.EVIDENCE, encode_session_evidence(fork).encode())
        await wait_closed(channel)
        await wait_until(lambda: bool(node.goodbyes))
        assert "like much else it sent" in node.goodbyes[0]


@pytest.mark.parametrize("has_third", [False, True])
async def test_forks_that_nobody_can_judge_here_are_not_the_fault_of_who_tells_of_them(
    has_third: bool,
) -> None:
    """A client that forked nine sessions of its own had every node send away who knew of it."""
    many = 12
    async with open_mesh_node(1) as first, open_mesh_node(2) as second:
        for number in range(many):
            one, other, third = (Author(10 + number).value("parted") for _ in range(3))
            await hold(first, one.edit("[]", "[1]", "[2]", with_header=True))
            await first.host.receive_content(
                "test", [other.edit("[]", "[1]", "[3]", with_header=True)]
            )
            if has_third:
                await hold(second, third.edit("[9]", "[8]", "[7]", with_header=True))
        await wait_until(lambda: first.host.statistics().forks_found == many)
        async with connected(first, second):
            await wait_until(lambda: second.mesh.witness.received == many)
            await trio.testing.wait_all_tasks_blocked(0.05)
            member = second.mesh.members[first.identity.public_key]
            assert member.conduct.evidence_unproven == many
            assert not second.mesh.penalties.total


async def test_true_evidence_about_a_core_that_nobody_has_here_is_not_kept() -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        evidence = Evidence(EvidenceKind.CORE, MANIFEST.key.hex(), fork_proof().encode(), b"")
        channel.send(MessageType.EVIDENCE, evidence.encode())
        await wait_until(lambda: node.mesh.statistics().evidence_received == 1)
        assert node.mesh.witness.forked_cores == []
        assert RAW.public_key in node.mesh.members


async def test_evidence_without_end_costs_the_sender() -> None:
    async with open_mesh_node(1) as node, raw_member(node) as channel:
        evidence = Evidence(EvidenceKind.CORE, MANIFEST.key.hex(), fork_proof().encode(), b"")
        for _ in range(MAX_PIECES + 1):
            channel.send(MessageType.EVIDENCE, evidence.encode())
        await wait_closed(channel)
        await wait_until(lambda: bool(node.goodbyes))
        assert f"more than {MAX_PIECES}" in node.goodbyes[0]


async def test_a_member_that_joins_is_told_what_is_known() -> None:
    async with open_mesh_node(1) as node:
        await hold(node, whole(FORK.kept))
        await node.host.receive_content("test", [whole(FORK.refused)])
        await wait_forks(node)
        async with raw_member(node) as channel:
            told = await receive_one(channel, MessageType.EVIDENCE)
            assert isinstance(told, Evidence)
            fork = decode_session_evidence(told)
            assert await judge_fork(node.store, fork) is EvidenceVerdict.PROVEN


class FullRows:
    """Rows on a disk without room."""

    def __init__(self) -> None:
        self.is_full = True
        self.written: list[bytes] = []

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        if self.is_full:
            raise StorageFailed("no space left on the device")
        self.written += rows

    def local_items(self, start: bytes, stop: bytes) -> list[tuple[bytes, bytes]]:
        return []


async def test_evidence_that_cannot_be_written_down_stops_nobody() -> None:
    """Found in review: on a full disk the node ended with it."""
    async with open_mesh_node(1) as node, trio.open_nursery() as nursery:
        witness = Witness(node.host, FullRows(), node.mesh.members, node.cores)
        nursery.start_soon(witness.run, node.mesh.recall.wait_settled)
        core = await node.cores.get(key_pair=KEY_PAIR)
        await core.append(ONE)
        with capture_logs() as logs:
            await core.freeze(fork_proof())
            await trio.testing.wait_all_tasks_blocked()
        assert any(entry["event"] == "evidence not kept" for entry in logs)
        assert not witness.forked_cores
        async with raw_member(node):
            (member,) = node.mesh.members.values()
            witness.receive(
                member,
                Evidence(EvidenceKind.CORE, MANIFEST.key.hex(), fork_proof().encode(), b""),
            )
            with capture_logs() as logs:
                await trio.testing.wait_all_tasks_blocked()
            assert any(entry["event"] == "cannot keep evidence yet" for entry in logs)
            assert member.close_reason is None
        nursery.cancel_scope.cancel()


async def test_evidence_that_found_no_room_is_kept_when_there_is_some(
    autojump_clock: trio.testing.MockClock,
) -> None:
    evidence = Evidence(EvidenceKind.CORE, MANIFEST.key.hex(), fork_proof().encode(), b"")
    rows = FullRows()
    async with open_mesh_node(1) as node, trio.open_nursery() as nursery:
        core = await node.cores.get(key_pair=KEY_PAIR)
        await core.append(ONE)
        witness = Witness(node.host, rows, node.mesh.members, node.cores)
        async with raw_member(node):
            (member,) = node.mesh.members.values()
            nursery.start_soon(witness.run, node.mesh.recall.wait_settled)
            with capture_logs() as logs:
                witness.receive(member, evidence)
                await trio.sleep(5 * LATER_SECONDS)
            told = [entry for entry in logs if entry["event"] == "cannot keep evidence yet"]
            assert len(told) == 1, "once, not each time that it is tried"
            rows.is_full = False
            await trio.sleep(2 * LATER_SECONDS)
            assert rows.written == [b"evidence:" + MANIFEST.key.hex().encode()]
            assert witness.is_forked(MANIFEST.key)
            assert member.close_reason is None
        nursery.cancel_scope.cancel()
        core.release()
