"""Write permission, for a node that enforces it."""

from __future__ import annotations

import pytest

from node.cojson.messages import Known, Load
from node.cojson.outputs import LoadValue, ReadGroup
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.ids import CoSessionId
from node.covalue.known_state import KnownState
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.engine_shell import EngineShell

ANN, BOB, EVE = Author("ann"), Author("bob"), Author("eve")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)
FOUNDING = [role(ANN.account_id, "admin", made_at=900), role(BOB.account_id, "reader", made_at=901)]


@pytest.fixture
def shell() -> EngineShell:
    """With accounts, a group that BOB may read, and a map in it."""
    shell = EngineShell(enforces_writes=True)
    for name in ("a", "b", "e"):
        shell.client(name)
    shell.say("a", ANN.account(), BOB.account(), EVE.account())
    shell.say("a", ANN.content(GROUP, FOUNDING), ANN.content(MAP, edits(2)))
    while shell.stores:
        shell.commit()
    shell.take("a")
    assert shell.refusals == {}
    assert MAP.id in shell.disk.headers
    return shell


def promoted(value: str, made_at: int) -> list[Transaction]:
    return [*FOUNDING, role(BOB.account_id, value, made_at=made_at)]


@pytest.mark.parametrize("author", [BOB, EVE])
def test_who_may_not_write_is_refused_and_hinders_nobody(
    shell: EngineShell, author: Author
) -> None:
    shell.say("e", author.content(MAP, edits(3), with_header=False))
    shell.commit()
    assert shell.take("e") == []
    assert "no right to write" in shell.refusals["e"][0]
    assert set(shell.disk.logs[MAP.id]) == {ANN.session_id()}
    shell.say("a", ANN.content(MAP, edits(3), after=2, with_header=False))
    shell.commit()
    assert shell.take("a")[-1] == Known(MAP.id, KnownState(True, {ANN.session_id(): 3}))


def test_a_writer_writes(shell: EngineShell) -> None:
    shell.say("a", ANN.content(GROUP, promoted("writer", 950), after=2, with_header=False))
    shell.say("b", BOB.content(MAP, edits(1), with_header=False))
    while shell.stores:
        shell.commit()
    assert BOB.session_id() in shell.disk.logs[MAP.id]
    assert shell.refusals == {}


def test_the_rest_of_a_message_is_taken_and_the_refusal_logged(shell: EngineShell) -> None:
    ann = ANN.content(MAP, edits(3), after=2, with_header=False)
    eve = EVE.content(MAP, edits(1), with_header=False)
    shell.say("e", Content(MAP.id, None, {**ann.new, **eve.new}, MAP.priority))
    shell.commit()
    assert len(shell.disk.logs[MAP.id][ANN.session_id()]) == 3
    assert EVE.session_id() not in shell.disk.logs[MAP.id]
    (reason,) = shell.refusals["e"]
    assert "no right to write" in reason


def test_who_becomes_a_writer_goes_on_with_the_session_he_began_too_early(
    shell: EngineShell,
) -> None:
    shell.say("b", BOB.content(MAP, edits(1), with_header=False))
    assert len(shell.refusals["b"]) == 1
    shell.say("a", ANN.content(GROUP, promoted("writer", 1001), after=2, with_header=False))
    shell.commit()
    assert BOB.session_id() not in shell.disk.logs[MAP.id]  # made at 1000, a reader still
    shell.say("b", BOB.content(MAP, edits(3), with_header=False))
    while shell.stores:
        shell.commit()
    assert len(shell.disk.logs[MAP.id][BOB.session_id()]) == 3


def test_a_role_that_comes_to_light_late_lets_in_what_was_refused(shell: EngineShell) -> None:
    shell.bring(BOB.content(MAP, edits(2), with_header=False), receipt=3)
    assert shell.settled[-1].refusal is not None
    shell.say("a", ANN.content(GROUP, promoted("writer", 950), after=2, with_header=False))
    while shell.stores:
        shell.commit()
    assert len(shell.disk.logs[MAP.id][BOB.session_id()]) == 2


def test_who_is_no_writer_any_more_is_refused(shell: EngineShell) -> None:
    shell.say("a", ANN.content(GROUP, promoted("writer", 950), after=2, with_header=False))
    shell.say("b", BOB.content(MAP, edits(1), with_header=False))
    revoked = [*promoted("writer", 950), role(BOB.account_id, "revoked", made_at=1001)]
    shell.say("a", ANN.content(GROUP, revoked, after=3, with_header=False))
    while shell.stores:
        shell.commit()
    shell.say("b", BOB.content(MAP, edits(3), after=1, with_header=False))
    assert "no right to write" in shell.refusals["b"][-1]
    assert len(shell.disk.logs[MAP.id][BOB.session_id()]) == 1


def test_strangers_change_no_group(shell: EngineShell) -> None:
    shell.say(
        "e",
        EVE.content(
            GROUP, [role(EVE.account_id, "admin", made_at=950)], session="x", with_header=False
        ),
    )
    assert "no right to write" in shell.refusals["e"][0]
    everyone = [*FOUNDING, role("everyone", "writer", made_at=1000)]
    shell.say("a", ANN.content(GROUP, everyone, after=2, with_header=False))
    shell.say("e", EVE.content(MAP, edits(1), with_header=False))
    while shell.stores:
        shell.commit()
    assert EVE.session_id() in shell.disk.logs[MAP.id]


def group_of_three_admins() -> Content:
    """A whole group: ANN has made BOB an admin, he EVE, and she wrote to it; latest first."""
    group = group_header(ANN.account_id, "three")
    eve = EVE.content(group, [role("everyone", "reader", made_at=960)])
    bob = BOB.content(group, [role(EVE.account_id, "admin", made_at=950)])
    founding = [role(ANN.account_id, "admin", made_at=900)]
    ann = ANN.content(group, [*founding, role(BOB.account_id, "admin", made_at=940)])
    return Content(group.id, group, {**eve.new, **bob.new, **ann.new}, ann.priority)


def test_a_group_is_taken_whole_by_the_roles_that_it_brings_itself(shell: EngineShell) -> None:
    """None of it was without a right: no client is told that it was, nor counted for it."""
    group = group_of_three_admins()
    shell.say("b", group)
    while shell.stores:
        shell.commit()
    assert shell.disk.logs[group.co_id].keys() == group.new.keys()
    assert shell.refusals == {}
    counts = dict.fromkeys(group.new, 1) | {ANN.session_id(): 2}
    assert shell.take("b")[-1] == Known(group.co_id, KnownState(True, counts))


def test_a_group_from_another_node_is_taken_whole_as_well(shell: EngineShell) -> None:
    group = group_of_three_admins()
    shell.bring(group, receipt=3)
    while shell.stores:
        shell.commit()
    assert shell.disk.logs[group.co_id].keys() == group.new.keys()
    assert [(item.receipt, item.refusal, item.partly) for item in shell.settled] == [
        (3, None, None)
    ]


def chain_of_admins(length: int) -> Content:
    """A group in which each admin makes the next one, in one message that begins with the last."""
    admins = [ANN, *(Author(f"admin{number}") for number in range(1, length + 1))]
    group = group_header(ANN.account_id, "chain")
    new: dict[CoSessionId, SessionContent] = {}
    for number in reversed(range(length)):
        made = [role(admins[number + 1].account_id, "admin", made_at=1000 + number)]
        founding = [] if number else [role(ANN.account_id, "admin", made_at=900)]
        new |= admins[number].content(group, [*founding, *made]).new
    return Content(group.id, group, new, group.priority)


def test_a_group_in_which_each_admin_makes_the_next_is_judged_at_once(shell: EngineShell) -> None:
    """It was judged once for each admin, all signatures of the rest anew."""
    group = chain_of_admins(20)
    shell.say("b", *(Author(f"admin{number}").account() for number in range(1, 21)))
    while shell.stores:
        shell.commit()
    shell.say("b", group)
    (store,) = shell.stores
    assert store.append.sessions.keys() == group.new.keys()
    assert shell.refusals == {}


def test_who_is_an_admin_by_a_parent_that_the_same_message_names_is_taken(
    shell: EngineShell,
) -> None:
    parent = group_header(BOB.account_id, "parent")
    founding = [role(BOB.account_id, "admin", made_at=900)]
    shell.say("b", BOB.content(parent, founding))
    while shell.stores:
        shell.commit()
    again = EngineShell(shell.disk, enforces_writes=True)  # in which no group was read
    again.client("a")
    group = group_header(ANN.account_id, "child")
    bob = BOB.content(group, [role(EVE.account_id, "admin", made_at=950)])
    eve = EVE.content(group, [role("everyone", "reader", made_at=960)])
    own = [role(ANN.account_id, "admin", made_at=910)]
    ann = ANN.content(group, [*own, role(f"parent_{parent.id}", "extend", made_at=940)])
    again.say("a", Content(group.id, group, {**eve.new, **bob.new, **ann.new}, ann.priority))
    while again.stores:
        again.commit()
    assert again.disk.logs[group.id].keys() == {*ann.new, *bob.new, *eve.new}
    assert again.refusals == {}


def test_who_lost_his_right_in_the_same_message_is_not_taken_for_what_he_wrote_after(
    shell: EngineShell,
) -> None:
    group = group_header(ANN.account_id, "lost")
    founding = [role(ANN.account_id, "admin", made_at=900)]
    ann = [
        *founding,
        role(BOB.account_id, "manager", made_at=940),
        role(BOB.account_id, "revoked", made_at=945),
    ]
    bob = BOB.content(group, [role(EVE.account_id, "manager", made_at=950)])
    eve = EVE.content(group, [role("everyone", "reader", made_at=960)])
    new = {**eve.new, **bob.new, **ANN.content(group, ann).new}
    shell.say("a", Content(group.id, group, new, group.priority))
    while shell.stores:
        shell.commit()
    assert set(shell.disk.logs[group.id]) == {ANN.session_id()}
    (reason,) = shell.refusals["a"]
    assert reason.count("no right to write") == 2


def test_what_a_group_has_from_strangers_is_refused_with_all_else_taken(shell: EngineShell) -> None:
    group = group_of_three_admins()
    stranger = Author("stranger")
    shell.say("b", stranger.account())
    bad = stranger.content(
        group_header(ANN.account_id, "three"),
        [role(stranger.account_id, "admin", made_at=970)],
        with_header=False,
    )
    shell.say("b", Content(group.co_id, group.header, {**bad.new, **group.new}, group.priority))
    while shell.stores:
        shell.commit()
    assert shell.disk.logs[group.co_id].keys() == group.new.keys()
    (reason,) = shell.refusals["b"]
    assert reason.count("no right to write") == 1
    assert reason.startswith(stranger.session_id())


def test_anybody_makes_groups_and_values_of_their_own(shell: EngineShell) -> None:
    group = group_header(EVE.account_id, "eve")
    value = map_header("eve", group.id)
    free = map_header("free")
    shell.say("e", EVE.content(group, [role(EVE.account_id, "admin", made_at=900)]))
    shell.say("e", EVE.content(value, edits(2)), EVE.content(free, edits(1)))
    while shell.stores:
        shell.commit()
    assert shell.refusals == {}
    assert {group.id, value.id, free.id} <= set(shell.disk.headers)


def test_rights_are_judged_after_a_restart(shell: EngineShell) -> None:
    again = EngineShell(shell.disk, enforces_writes=True)
    again.client("b")
    again.say("b", BOB.content(MAP, edits(1), with_header=False))
    assert "no right to write" in again.refusals["b"][0]


def test_nothing_is_refused_unless_the_operator_wants_it(shell: EngineShell) -> None:
    open_node = EngineShell(shell.disk)
    open_node.client("b")
    open_node.say("b", BOB.content(MAP, edits(1), with_header=False))
    open_node.commit()
    assert open_node.refusals == {}
    assert BOB.session_id() in open_node.disk.logs[MAP.id]


def test_a_group_that_comes_while_it_is_looked_for_counts(shell: EngineShell) -> None:
    """Found with model clients: the answer that it was not there was taken for a newer one."""
    shell.say("a", ANN.content(GROUP, promoted("writer", 950), after=2, with_header=False))
    shell.carry_out(shell.engine.not_stored([store.ticket for store in shell.stores]))
    shell.stores = []
    del shell.disk.headers[GROUP.id], shell.disk.logs[GROUP.id], shell.disk.rows[GROUP.id]
    shell.holds_reads = True
    shell.say("a", ANN.content(MAP, edits(3), after=2, with_header=False))
    shell.say("a", ANN.content(GROUP, FOUNDING))
    assert shell.reads == [ReadGroup(GROUP.id), LoadValue(GROUP.id)]
    shell.reads.reverse()
    shell.answer_reads()
    shell.commit()
    assert shell.refusals["a"] == ["what is stored of this value is damaged"]
    assert len(shell.disk.logs[MAP.id][ANN.session_id()]) == 3


@pytest.mark.parametrize("durable", [0, 1])
def test_a_role_that_damage_kept_from_the_disk_lets_nobody_in(
    shell: EngineShell, durable: int
) -> None:
    """Also where an earlier commit of the group became durable in the same batch."""
    shell.say("b", BOB.content(MAP, edits(1), with_header=False))
    earlier = [role(EVE.account_id, "reader", made_at=940)] * durable
    for after, transaction in enumerate([*earlier, promoted("writer", 950)[-1]], len(FOUNDING)):
        written = [*FOUNDING, *earlier][:after]
        message = ANN.content(GROUP, [*written, transaction], after=after, with_header=False)
        shell.say("a", message)
    kept = [store for store in shell.stores if store.append.co_id == GROUP.id][:durable]
    lost = [store.ticket for store in shell.stores if store not in kept]
    shell.stores = []
    # In the order in which the committer tells of a batch that meets damage.
    shell.carry_out(shell.engine.not_stored(lost))
    for store in kept:
        shell.disk.store(store.append)
    shell.carry_out(shell.engine.stored([store.ticket for store in kept]))
    shell.refusals.clear()
    shell.say("b", BOB.content(MAP, edits(1), with_header=False))
    while shell.stores:
        shell.commit()
    assert "no right to write" in shell.refusals["b"][0]
    assert BOB.session_id() not in shell.disk.logs[MAP.id]


def test_what_rests_on_a_parent_of_the_same_message_is_lost_with_that(shell: EngineShell) -> None:
    parent = group_header(BOB.account_id, "parent")
    shell.say("b", BOB.content(parent, [role(BOB.account_id, "admin", made_at=900)]))
    group = group_header(ANN.account_id, "child")
    bob = BOB.content(group, [role("everyone", "reader", made_at=950)])
    own = [role(ANN.account_id, "admin", made_at=910)]
    ann = ANN.content(group, [*own, role(f"parent_{parent.id}", "extend", made_at=940)])
    shell.say("a", Content(group.id, group, {**bob.new, **ann.new}, ann.priority))
    stores = [store for store in shell.stores if BOB.session_id() in store.append.sessions]
    assert [store.append.co_id for store in stores] == [parent.id, group.id]
    assert parent.id in stores[-1].rests_on


def test_who_claims_more_of_the_group_is_asked_for_it_at_once(shell: EngineShell) -> None:
    """Only when it had been quiet for a while it was, and its content was stored 10 s late."""
    grown = promoted("writer", 950)
    shell.load("b", GROUP.id, KnownState(True, {ANN.session_id(): len(grown)}))
    shell.say("b", BOB.content(MAP, edits(1), with_header=False))
    durable = KnownState(True, {ANN.session_id(): len(FOUNDING)})
    assert Load(GROUP.id, durable) in shell.take("b")
    shell.say("b", ANN.content(GROUP, grown, after=len(FOUNDING), with_header=False))
    while shell.stores:
        shell.commit()
    assert len(shell.disk.logs[MAP.id][BOB.session_id()]) == 1
    assert Known(MAP.id, KnownState(True, {ANN.session_id(): 2, BOB.session_id(): 1})) in (
        shell.take("b")
    )


def test_who_claims_no_more_of_the_group_is_not_asked_for_it(shell: EngineShell) -> None:
    shell.load("b", GROUP.id, KnownState(True, {ANN.session_id(): len(FOUNDING)}))
    shell.say("b", BOB.content(MAP, edits(1), with_header=False))
    assert shell.take("b") == []
    assert [shell.listen("b") for _ in range(3)] == [[], [], []]
