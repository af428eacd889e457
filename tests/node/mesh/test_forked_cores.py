"""Whoever forks many cores of their own does not keep others from hearing of a real fork."""

from __future__ import annotations

from functools import partial
from operator import attrgetter

import pytest
import trio.testing

from hypercore.crypto import KeyPair
from hypercore.fork_proof import ForkProof
from node.mesh.member_book import MemberBook
from node.mesh.messages import Evidence, EvidenceKind
from tests.node.mesh.nodes import MeshNode, connected, open_mesh_node, wait_until
from tests.support.forked_logs import fork_proof_of

CAPACITY = 4


@pytest.fixture(autouse=True)
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.mesh.forked_cores.MAX_FORKED_CORES", CAPACITY)


def writer(number: int) -> KeyPair:
    return KeyPair.from_seed(bytes((100 + number,)) * 32)


def forked(number: int) -> tuple[bytes, ForkProof]:
    return fork_proof_of(writer(number))


async def tell(node: MeshNode, teller: MeshNode, *numbers: int) -> None:
    """A member tells of the forks of these writers; all of their cores are here."""
    member = node.mesh.members[teller.identity.public_key]
    for number in numbers:
        key, proof = forked(number)
        core = await node.cores.get(key=key)
        received = node.mesh.witness.received
        evidence = Evidence(EvidenceKind.CORE, key.hex(), proof.encode(), b"")
        node.mesh.witness.receive(member, evidence)
        await wait_until(partial(attrgetter("is_frozen"), core))
        await trio.testing.wait_all_tasks_blocked()
        assert node.mesh.witness.received == received + 1
        core.release()


def kept(node: MeshNode) -> list[int]:
    """The writers of which evidence is kept, which is just what is written down."""
    by_key = {forked(number)[0]: number for number in range(16)}
    rows = node.data.local_items(b"evidence:", b"evidence;")
    written = {bytes.fromhex(row.removeprefix(b"evidence:").decode()) for row, _ in rows}
    assert written == {core.key for core in node.mesh.witness.forked_cores}
    return sorted(by_key[key] for key in written)


async def test_forks_of_cores_that_matter_to_nobody_give_way_to_that_of_a_member() -> None:
    book = MemberBook()
    book.note("ab" * 32, "away", "writer", 1.0, key=forked(9)[0].hex())
    async with open_mesh_node(1, book=book) as node, open_mesh_node(2) as attacker:
        async with connected(node, attacker):
            await tell(node, attacker, *range(CAPACITY + 1))
            assert kept(node) == [0, 1, 2, 3]
            await tell(node, attacker, 9)
            assert kept(node) == [0, 1, 2, 9]
            await tell(node, attacker, 5)
            assert kept(node) == [0, 1, 2, 9]
        async with open_mesh_node(3) as late, connected(node, late):
            core = await late.cores.get(key=forked(9)[0])
            await wait_until(lambda: late.mesh.witness.received == CAPACITY)
            await wait_until(lambda: core.is_frozen)


async def test_forks_of_cores_that_matter_to_nobody_give_way_to_that_of_a_mirror() -> None:
    async with open_mesh_node(1) as node, open_mesh_node(2) as attacker:
        node.mesh.witness.mirrored = {forked(9)[0]}
        async with connected(node, attacker):
            await tell(node, attacker, *range(CAPACITY), 9)
            assert kept(node) == [0, 1, 2, 9]


async def test_where_all_forked_cores_matter_the_first_stay() -> None:
    async with open_mesh_node(1) as node, open_mesh_node(2) as teller:
        node.mesh.witness.mirrored = {forked(number)[0] for number in range(8)}
        async with connected(node, teller):
            await tell(node, teller, *range(8))
            assert kept(node) == [0, 1, 2, 3]


async def test_members_share_the_places_of_evidence_of_which_nobody_knows_better() -> None:
    async with (
        open_mesh_node(1) as node,
        open_mesh_node(2) as attacker,
        open_mesh_node(3) as honest,
        connected(node, attacker),
        connected(node, honest),
    ):
        await tell(node, attacker, *range(CAPACITY))
        await tell(node, honest, 10, 11, 12)
        assert kept(node) == [0, 1, 10, 11]
        await tell(node, attacker, 5)
        assert kept(node) == [0, 1, 10, 11]


async def test_a_member_is_not_asked_either_when_evidence_of_its_fork_has_given_way() -> None:
    async with open_mesh_node(1) as node, open_mesh_node(2) as forker, open_mesh_node(3) as teller:
        core = await node.cores.get(key=forker.data.key)
        await core.freeze(fork_proof_of(forker.data.key_pair or forker.identity)[1])
        await wait_until(lambda: node.mesh.witness.is_forked(core.key))
        node.mesh.witness.mirrored = {forked(number)[0] for number in range(CAPACITY)}
        async with connected(node, teller):
            await tell(node, teller, *range(CAPACITY))
            assert kept(node) == [0, 1, 2, 3]
        async with connected(node, forker):
            assert [member.state for member in node.mesh.sync_state().members] == ["forked"]
