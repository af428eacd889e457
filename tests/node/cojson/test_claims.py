"""What clients claim to have, and nobody brings, is asked for."""

from __future__ import annotations

import pytest

from node.cojson.claims import MAX_ASKED_AT_ONCE, MAX_ASKED_OF_ALL, MAX_COUNTERS_AT_ONCE
from node.cojson.messages import Known, Load, Message
from node.covalue.content import Content
from node.covalue.ids import CoSessionId
from node.covalue.known_state import NOTHING, KnownState
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.engine_shell import EngineShell

ANN, BOB = Author("ann"), Author("bob")
FREE = map_header("free")
SESSION = ANN.session_id(as_agent=True)


def free(count: int, after: int = 0) -> Content:
    return ANN.content(FREE, edits(count), after=after, as_agent=True, with_header=after == 0)


def known(count: int) -> KnownState:
    return KnownState(True, {SESSION: count})


@pytest.fixture
def shell() -> EngineShell:
    """Restored: one transaction is here, of which clients have two."""
    shell = EngineShell()
    shell.client("first")
    shell.say("first", free(1))
    shell.commit()
    shell.leave("first")
    shell.client("a")
    return shell


def listened(shell: EngineShell, name: str = "a", whiles: int = 6) -> list[list[Message]]:
    return [shell.listen(name) for _ in range(whiles)]


@pytest.mark.parametrize("is_load", [True, False])
def test_what_was_claimed_and_does_not_come_is_asked_for_once(
    shell: EngineShell, is_load: bool
) -> None:
    claim = Load(FREE.id, known(2)) if is_load else Known(FREE.id, known(2))
    shell.say("a", claim)
    assert shell.take("a") == ([Known(FREE.id, known(1))] if is_load else [])
    assert shell.engine.has_claims("a")
    # It is given a whole while, which may have begun long before it claimed anything.
    assert listened(shell) == [[], [Load(FREE.id, known(1))], [], [], [], []]
    assert not shell.engine.has_claims("a")
    shell.say("a", claim)
    assert not shell.engine.has_claims("a")


def test_a_value_of_which_nothing_is_left_is_asked_for(shell: EngineShell) -> None:
    other = map_header("lost")
    assert shell.load("a", other.id, known(2)) == [Known(other.id, NOTHING)]
    assert listened(shell, whiles=3) == [[], [Load(other.id, NOTHING)], []]


def test_what_an_upload_claims_first_is_not_asked_for(shell: EngineShell) -> None:
    shell.load("a", FREE.id, known(3))
    assert shell.listen("a") == []
    shell.say("a", free(2, after=1))
    assert shell.listen("a") == [], "it is not on the disk yet"
    shell.commit()
    shell.take("a")
    assert shell.listen("a", is_quiet=False) == []
    shell.say("a", free(3, after=2))
    shell.commit()
    shell.take("a")
    assert listened(shell) == [[]] * 6
    assert not shell.engine.has_claims("a")


def test_who_sends_is_not_asked(shell: EngineShell) -> None:
    shell.load("a", FREE.id, known(2))
    assert [shell.listen("a", is_quiet=False) for _ in range(5)] == [[]] * 5
    assert shell.listen("a") == [Load(FREE.id, known(1))]


def test_an_honest_load_of_what_is_on_the_disk_claims_nothing(shell: EngineShell) -> None:
    again = EngineShell(shell.disk)
    again.holds_reads = True
    again.client("a")
    again.say("a", Load(FREE.id, known(1)), Known(FREE.id, known(1)))
    assert again.engine.has_claims("a"), "that is not known yet"
    again.answer_reads()
    assert not again.engine.has_claims("a")
    again.say("a", Load(FREE.id, NOTHING), Load(map_header("none").id, NOTHING))
    assert not again.engine.has_claims("a")


def tampered(content: Content) -> Content:
    (session_id, part), *_ = content.new.items()
    first = part.transactions[0]._replace(changes="EVIL")
    forged = part._replace(transactions=[first, *part.transactions[1:]])
    return Content(content.co_id, content.header, {**content.new, session_id: forged})


@pytest.mark.parametrize("is_whole", [True, False])
def test_refused_content_is_not_asked_for(shell: EngineShell, is_whole: bool) -> None:
    forged = tampered(free(2, after=1))
    if not is_whole:
        good = BOB.content(FREE, edits(1), as_agent=True, with_header=False)
        forged = Content(FREE.id, None, {**forged.new, **good.new})
    shell.load("a", FREE.id, known(2))
    shell.say("a", forged)
    shell.commit()
    shell.take("a")
    assert len(shell.refusals["a"]) == 1
    assert listened(shell) == [[]] * 6
    shell.load("a", FREE.id, known(2))
    assert listened(shell) == [[]] * 6


def test_deleted_values_are_not_asked_for(shell: EngineShell) -> None:
    group = group_header(ANN.agent_id)
    owned = map_header("owned", group.id)
    shell.say("a", ANN.account(), ANN.content(group, edits(1), as_agent=True))
    shell.say("a", ANN.content(owned, edits(1)))
    shell.commit()
    shell.disk.deleted.add(owned.id)
    again = EngineShell(shell.disk)
    again.client("a")
    again.load("a", owned.id, KnownState(True, {ANN.session_id(): 9}))
    assert listened(again) == [[]] * 6


def test_what_cannot_be_read_is_not_asked_for(shell: EngineShell) -> None:
    again = EngineShell(shell.disk)
    again.holds_reads = True
    again.client("a")
    again.load("a", FREE.id, known(2))
    again.carry_out(again.engine.load_failed(FREE.id))
    assert again.take("a") == [Known(FREE.id, NOTHING)]
    assert not again.engine.has_claims("a")


def test_nobody_is_asked_while_the_mesh_is(shell: EngineShell) -> None:
    shell.engine.has_mesh = True
    shell.load("a", FREE.id, known(2))
    assert shell.finds == [FREE.id]
    assert listened(shell) == [[]] * 6
    shell.carry_out(shell.engine.searched([FREE.id]))
    assert shell.listen("a") == [Load(FREE.id, known(1))]


def test_what_the_mesh_brings_is_not_asked_for(shell: EngineShell) -> None:
    shell.engine.has_mesh = True
    shell.load("a", FREE.id, known(2))
    shell.listen("a")
    shell.carry_out(shell.engine.receive_content(free(2, after=1), 1))
    shell.carry_out(shell.engine.searched([FREE.id]))
    assert shell.listen("a") == [], "it is not on the disk yet"
    shell.commit()
    assert listened(shell) == [[]] * 6


def test_what_waits_for_a_dependency_is_not_asked_for(shell: EngineShell) -> None:
    session_id = ANN.session_id()
    claim = KnownState(True, {SESSION: 1, session_id: 1})
    shell.load("a", FREE.id, claim)
    shell.say("a", ANN.content(FREE, edits(1), with_header=False))
    assert shell.take("a") == [Load(ANN.account_id, NOTHING)]
    assert listened(shell) == [[]] * 6
    shell.say("a", ANN.account())
    shell.commit()
    shell.take("a")
    assert listened(shell) == [[]] * 6
    assert not shell.engine.has_claims("a")


def test_one_client_is_asked_at_a_time(shell: EngineShell) -> None:
    shell.client("b")
    for name in ("a", "b"):
        shell.load(name, FREE.id, known(2))
        shell.listen(name)
    assert shell.listen("a") == [Load(FREE.id, known(1))]
    assert shell.listen("b") == []
    # It had its time, or leaves.
    assert shell.listen("a") == []
    assert shell.listen("b") == [Load(FREE.id, known(1))]
    shell.client("c")
    shell.load("c", FREE.id, known(2))
    assert listened(shell, "c", 2) == [[], []]
    shell.leave("b")
    assert shell.listen("c") == [Load(FREE.id, known(1))]


def test_questions_to_one_client_are_bounded(shell: EngineShell) -> None:
    headers = [map_header(f"lost {n}") for n in range(MAX_ASKED_AT_ONCE + 10)]
    for header in headers:
        shell.load("a", header.id, known(2))
    asked = listened(shell, whiles=4)
    assert [len(messages) for messages in asked] == [0, MAX_ASKED_AT_ONCE, 10, 0]
    assert {item.co_id for batch in asked for item in batch if isinstance(item, Load)} == {
        header.id for header in headers
    }


def test_so_are_their_bytes() -> None:
    shell = EngineShell()
    shell.client("a")
    sessions = [CoSessionId(ANN.session_id(str(n), as_agent=True)) for n in range(12)]
    for number in range(3):
        header = map_header(f"m{number}")
        parts = [
            ANN.content(header, edits(1), session=str(n), as_agent=True).new for n in range(12)
        ]
        new = {key: part for item in parts for key, part in item.items()}
        shell.say("a", Content(header.id, header, new))
    shell.commit()
    shell.leave("a")
    shell.client("b")
    more = KnownState(True, {**dict.fromkeys(sessions, 1), BOB.session_id(): 1})
    for number in range(3):
        shell.load("b", map_header(f"m{number}").id, more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.cojson.claims.MAX_COUNTERS_AT_ONCE", 24)
        assert [len(messages) for messages in listened(shell, "b", 4)] == [0, 2, 1, 0]
        patch.setattr("node.cojson.claims.MAX_COUNTERS_AT_ONCE", 1)
        shell.client("c")
        shell.load("c", map_header("m0").id, more)
        assert [len(messages) for messages in listened(shell, "c", 3)] == [0, 1, 0]
    assert MAX_COUNTERS_AT_ONCE > MAX_ASKED_AT_ONCE


def test_so_are_those_to_all() -> None:
    shell = EngineShell()
    clients = [f"client {n}" for n in range(MAX_ASKED_OF_ALL // MAX_ASKED_AT_ONCE + 1)]
    for name in clients:
        shell.client(name)
        for number in range(MAX_ASKED_AT_ONCE):
            shell.load(name, map_header(f"{name} {number}").id, known(2))
        shell.listen(name)
    asked = [len(shell.listen(name)) for name in clients]
    assert asked == [MAX_ASKED_AT_ONCE] * (len(clients) - 1) + [0]
    assert shell.listen(clients[0]) == []
    assert len(shell.listen(clients[-1])) == MAX_ASKED_AT_ONCE
