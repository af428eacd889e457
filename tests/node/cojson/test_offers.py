"""What clients are offered costs what is new to them, and is looked at a little at a time.

Eight clients that loaded a group of 4000 members, again and again, kept others waiting for half a
second: each load looked at all members, and the first of each client in one go.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.cojson.messages import Load
from node.cojson.offers import WALK_STEPS
from node.cojson.outputs import GoOn, LoadValue, Output, Serve, Store
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.engine_shell import Disk, EngineShell

ANN, BOB = Author("ann"), Author("bob")
PARENT = group_header(ANN.account_id, "parent")
GROUP = group_header(ANN.account_id)
OWN = map_header("m", GROUP.id)
LOAD = Load(GROUP.id, NOTHING)
MEMBERS = [Author(f"member {number}") for number in range(3 * WALK_STEPS)]
FOUNDING = [
    role(ANN.account_id, "admin", made_at=1),
    role(f"parent_{PARENT.id}", "extend", made_at=2),
    *(role(member.account_id, "reader", made_at=3) for member in MEMBERS),
]


@pytest.fixture(scope="module")
def disk() -> Disk:
    """With a large group, its members, its parent and a value in it."""
    shell = EngineShell()
    shell.client("ann")
    shell.say("ann", *(member.account() for member in (ANN, *MEMBERS)))
    shell.say("ann", ANN.content(PARENT, FOUNDING[:1]), ANN.content(GROUP, FOUNDING))
    shell.say("ann", ANN.content(OWN, edits(1)))
    shell.commit()
    return shell.disk


@pytest.fixture
def shell(disk: Disk) -> EngineShell:
    """With all of that in memory."""
    own = Disk()
    own.headers.update(disk.headers)
    for co_id in disk.headers:
        own.logs[co_id] = {key: [*log] for key, log in disk.logs[co_id].items()}
        own.rows[co_id] = {**disk.rows[co_id]}
    shell = EngineShell(own)
    shell.load(shell.client("ann"), OWN.id)
    return shell


def offered(outputs: list[Output]) -> list[tuple[str, RawCoId]]:
    return [(output.peer_id, output.co_id) for output in outputs if isinstance(output, Serve)]


def ids(shell: EngineShell, name: str) -> list[RawCoId]:
    return [message.co_id for message in shell.take(name) if isinstance(message, Content)]


def test_clients_that_are_offered_a_large_group_take_turns(shell: EngineShell) -> None:
    names = "bcd"
    rounds: list[list[tuple[str, RawCoId]]] = []
    for name in names:
        outputs = shell.engine.receive(shell.client(name), LOAD)
        rounds.append(offered(outputs))
        assert outputs.count(GoOn()) == (name == "b")
    while len(rounds) < 100:
        outputs = shell.engine.go_on()
        rounds.append(offered(outputs))
        if GoOn() not in outputs:
            break
    assert all(len(served) <= WALK_STEPS for served in rounds)
    assert [served[0][0] for served in rounds[:6]] == [*names, *names]
    for name in names:
        own = [co_id for served in rounds for peer_id, co_id in served if peer_id == name]
        assert set(own) == {GROUP.id, PARENT.id, *(m.account_id for m in (ANN, *MEMBERS))}
        assert own[-1] == GROUP.id


def test_what_a_client_loads_beside_a_large_group_has_its_turn_after_it(
    shell: EngineShell,
) -> None:
    outputs = shell.engine.receive_many(shell.client("b"), [LOAD, Load(OWN.id, NOTHING), LOAD])
    while GoOn() in outputs:
        outputs = [output for output in outputs if output != GoOn()] + shell.engine.go_on()
    served = offered(outputs)
    assert served[-2:] == [("b", GROUP.id), ("b", OWN.id)]
    assert len(served) == len({co_id for _, co_id in served})


def test_nothing_is_done_for_a_client_that_went_meanwhile(shell: EngineShell) -> None:
    shell.engine.receive(shell.client("b"), LOAD)
    shell.engine.receive(shell.client("c"), LOAD)
    shell.leave("b")
    served = offered(shell.engine.go_on()) + offered(shell.engine.go_on())
    assert {peer_id for peer_id, _ in served} == {"c"}


@pytest.mark.parametrize("are_members_first", [True, False])
def test_whoever_loads_a_large_group_again_has_no_member_looked_at_again(
    disk: Disk, are_members_first: bool
) -> None:
    """Seen by who is read: these members are not all in memory."""
    shell = EngineShell(disk, memory_bytes=2**19)
    shell.client("b")
    if are_members_first:
        shell.say("b", *(Load(member.account_id, NOTHING) for member in MEMBERS))
    shell.say("b", LOAD)
    assert len(shell.take("b")) == len(MEMBERS) + 3
    shell.say("b", LOAD)
    shell.take("b")
    loads = shell.loads
    assert loads >= len(MEMBERS)
    for _ in range(3):
        shell.say("b", LOAD)
        assert ids(shell, "b") == [GROUP.id]
    assert shell.loads <= loads + 3


def test_a_new_member_is_offered_to_whoever_has_all_others(shell: EngineShell) -> None:
    shell.load(shell.client("b"), GROUP.id)
    hiring = [role(BOB.account_id, "writer", made_at=4)]
    shell.say("ann", BOB.account(), ANN.content(GROUP, hiring, session="hiring", with_header=False))
    shell.commit()
    assert ids(shell, "b") == [BOB.account_id, GROUP.id]


def test_what_a_parent_gets_comes_before_what_its_child_gets_with_it(shell: EngineShell) -> None:
    shell.load(shell.client("b"), GROUP.id)
    for group in (GROUP, PARENT):
        edit = [role(ANN.account_id, "admin", made_at=5)]
        shell.say("ann", ANN.content(group, edit, session="both", with_header=False))
    shell.commit()
    assert ids(shell, "b") == [PARENT.id, GROUP.id]


def test_who_is_hired_while_a_large_group_is_offered_comes_before_it(shell: EngineShell) -> None:
    """The group is sent as it is at the end, with what names the new member."""
    engine, writer = shell.engine, shell.client("a writer")
    hiring = [role(BOB.account_id, "writer", made_at=4)]
    edit = ANN.content(GROUP, hiring, session="hiring", with_header=False)
    outputs = engine.receive(shell.client("b"), LOAD)
    outputs += engine.receive_many(writer, [BOB.account(), edit])
    for output in outputs:  # and what comes of it
        if isinstance(output, LoadValue):
            outputs += engine.loaded(output.co_id, shell.disk.load_value(output.co_id))
        elif isinstance(output, Store):
            outputs += engine.stored([output.ticket])
    going_on: list[Output] = [GoOn()]
    while GoOn() in going_on:
        going_on = engine.go_on()
        outputs += going_on
    served = [co_id for peer_id, co_id in offered(outputs) if peer_id == "b"]
    assert served.index(BOB.account_id) < served.index(GROUP.id)


class CountedId(str):
    """An id that counts how often it is looked up."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        CountedId.looks += 1
        return super().__hash__()

    __eq__ = str.__eq__


def looks_at_commit(count: int) -> int:
    """How often ids are looked up when so many values, which a client has, grow in one commit."""
    shell = EngineShell()
    shell.client("ann")
    shell.client("b")
    shell.say("ann", ANN.account(), ANN.content(GROUP, FOUNDING[:1]))
    headers = [map_header(f"{number}", GROUP.id) for number in range(count)]
    for step in (0, 1):
        for header in headers:
            edit = ANN.content(header, edits(step + 1), after=step, with_header=not step)
            shell.say("ann", replace(edit, co_id=RawCoId(CountedId(header.id))))
        CountedId.looks = 0
        shell.commit()
        if not step:
            shell.say("b", *(Load(header.id, NOTHING) for header in headers))
        assert len(ids(shell, "b")) >= count
    return CountedId.looks


def test_what_grows_together_is_not_looked_up_for_each_of_all_others() -> None:
    """A commit may move a thousand values: a million looks for each client that has them."""
    assert looks_at_commit(200) < 3 * looks_at_commit(100)
