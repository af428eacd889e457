"""Rules about single members hold for them, whatever they or others call themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from hypercore.crypto import encode_id
from node.mesh.member_book import MemberBook
from node.mesh.peer_rules import Direction
from node.policies import Policies
from node.verbs import ChangePolicy, PeerChange, ShowPolicy, VerbError
from tests.node.mesh.nodes import MeshNode, open_mesh_node

ANN, BEN, EVE = (digits * 32 for digits in ("a1", "b2", "e3"))


def known() -> MemberBook:
    book = MemberBook()
    for id, name in ((ANN, "ann"), (BEN, "ben")):
        book.note(id, name, "writer", 1.0)
    return book


async def say(
    policies: Policies, name: str, direction: Literal["both", "down", "up", "off"] = "off"
) -> dict[str, Any]:
    """Say what is exchanged with a node; the rules as they are then."""
    change = ChangePolicy(peers=(PeerChange(name, direction),))
    [result] = [result async for result in policies.perform(change)]
    peers = result["peers"]
    assert isinstance(peers, dict)
    return peers


def direction(node: MeshNode, id: str, name: str) -> Direction:
    return node.mesh.exchange.due(bytes.fromhex(id), name)


async def test_who_is_shut_off_by_name_cannot_take_another_and_nobody_else_is_hit(
    tmp_path: Path,
) -> None:
    """Found in review: a member that renamed itself got rid of its rule."""
    async with open_mesh_node(1, book=known()) as node:
        policies = Policies(node.mesh, tmp_path / "policy.toml", "lazy")
        rules = await say(policies, "ann")
        assert rules[ANN]["members"] == [{"id": ANN, "name": "ann"}]
        assert direction(node, ANN, "renamed") is Direction.OFF
        assert direction(node, EVE, "ann") is Direction.BOTH
        assert await say(policies, "ann", "both") == {}
        assert direction(node, ANN, "ann") is Direction.BOTH


async def test_a_name_that_several_members_have_is_refused(tmp_path: Path) -> None:
    async with open_mesh_node(1, book=known()) as node:
        node.mesh.trust.book.note(EVE, "ann", "writer", 2.0)
        policies = Policies(node.mesh, tmp_path / "policy.toml", "lazy")
        with pytest.raises(VerbError, match=r"several members .* a1a1a1a1a1a1 \(ann\), e3e3"):
            await say(policies, "ann")
        assert node.mesh.policy.peers.named == {}
        assert list(await say(policies, ANN[:8].upper())) == [ANN]


@pytest.mark.parametrize("text", [BEN, BEN.upper(), BEN[:8], "ben", encode_id(bytes.fromhex(BEN))])
async def test_a_member_is_named_by_id_its_beginning_or_name(text: str, tmp_path: Path) -> None:
    async with open_mesh_node(1, book=known()) as node:
        policies = Policies(node.mesh, tmp_path / "policy.toml", "lazy")
        assert list(await say(policies, text)) == [BEN]


async def test_a_rule_of_before_a_member_was_met_gives_way_to_one_about_it(tmp_path: Path) -> None:
    async with open_mesh_node(1) as node:
        policies = Policies(node.mesh, tmp_path / "policy.toml", "lazy")
        assert list(await say(policies, "ann")) == ["ann"]
        assert direction(node, ANN, "ann") is Direction.OFF
        node.mesh.trust.book.note(ANN, "ann", "writer", 1.0)
        assert list(await say(policies, "ann", "up")) == [ANN]


async def test_a_rule_by_a_name_that_others_took_tells_so_and_can_be_taken_back(
    tmp_path: Path,
) -> None:
    async with open_mesh_node(1) as node:
        policies = Policies(node.mesh, tmp_path / "policy.toml", "lazy")
        await say(policies, "ann")
        for id in (ANN, EVE):
            node.mesh.trust.book.note(id, "ann", "writer", 1.0)
        [shown] = [result async for result in policies.perform(ShowPolicy())]
        rules: Any = shown["peers"]
        assert [member["id"] for member in rules["ann"]["members"]] == [ANN, EVE]
        assert await say(policies, "ann", "both") == {}
