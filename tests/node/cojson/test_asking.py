"""What was asked of a client and refused is asked again, at longer and longer intervals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.access.gate import Gate
from node.access.policy import AccessPolicy
from node.cojson.asking import MAX_ASKED_AGAIN, MAX_PUT_OFF, MAX_ROUNDS
from node.cojson.messages import Known, Load, Message
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.engine_shell import EngineShell

ANN = Author("ann")
GROUP = group_header(ANN.agent_id)
GROUP_CONTENT = ANN.content(GROUP, edits(1), as_agent=True)
MAP = map_header("m", GROUP.id)
MAP_CONTENT = ANN.content(MAP, edits(2))
GROUP_SESSION = ANN.session_id(as_agent=True)
ASKED = Load(GROUP.id, NOTHING)


def forged(content: Content) -> Content:
    new = {key: part._replace(signature=bytes(64)) for key, part in content.new.items()}
    return replace(content, new=new)


def ask_again(shell: EngineShell) -> list[Message]:
    """A round passes; what the client is told then."""
    shell.carry_out(shell.engine.ask_again())
    return shell.take("a")


def rounds_between(shell: EngineShell, answer: Message, count: int) -> list[int]:
    """Let it be asked so many times, and answer always the same."""
    waited: list[int] = []
    for _ in range(count):
        asked = (n for n in range(1, 2 * MAX_ROUNDS) if ask_again(shell) == [ASKED])
        waited.append(next(asked))
        shell.say("a", answer)
    return waited


@pytest.fixture
def shell() -> EngineShell:
    """A client's map waits for its group, for which the client has been asked."""
    shell = EngineShell()
    shell.client("author")
    shell.say("author", ANN.account())
    shell.commit()
    shell.leave("author")
    shell.client("a")
    shell.say("a", MAP_CONTENT)
    assert shell.take("a") == [ASKED]
    return shell


def test_what_was_refused_is_asked_for_again(shell: EngineShell) -> None:
    """Found in review: it never was on that connection, and the map waited for ever."""
    shell.say("a", forged(GROUP_CONTENT))
    assert ask_again(shell) == []
    assert ask_again(shell) == [ASKED]
    shell.say("a", GROUP_CONTENT)
    shell.commit()
    assert MAP.id in shell.disk.headers
    shell.take("a")
    assert [ask_again(shell) for _ in range(4)] == [[]] * 4


def test_who_always_sends_the_same_is_asked_less_and_less(shell: EngineShell) -> None:
    bad = forged(GROUP_CONTENT)
    shell.say("a", bad)
    assert rounds_between(shell, bad, 5) == [2, 3, 5, 9, 17]
    assert rounds_between(shell, bad, 8)[-1] == MAX_ROUNDS + 1
    # More content that needs it does not make it be asked for sooner.
    shell.say("a", ANN.content(map_header("other", GROUP.id), edits(1)))
    assert shell.take("a") == []


def test_it_is_not_asked_for_again_before_it_is_answered(shell: EngineShell) -> None:
    shell.say("a", forged(GROUP_CONTENT))
    assert [ask_again(shell) for _ in range(9)] == [[], [ASKED], *[[]] * 7]
    shell.say("a", Known(GROUP.id, NOTHING))
    assert [ask_again(shell) for _ in range(9)] == [[]] * 9


def test_what_another_has_brought_is_not_asked_for_again(shell: EngineShell) -> None:
    shell.say("a", forged(GROUP_CONTENT))
    shell.client("b")
    shell.say("b", GROUP_CONTENT)
    shell.commit()
    shell.take("a")
    assert [ask_again(shell) for _ in range(3)] == [[]] * 3


def test_what_was_not_permitted_is_asked_for_again() -> None:
    gate = Gate(AccessPolicy(deny=frozenset((ANN.account_id,))))
    shell = EngineShell(access=gate)
    shell.client("a")
    bob = Author("bob")
    mine = map_header("b", GROUP.id)
    shell.say("a", bob.account(), bob.content(mine, edits(1)))
    shell.commit()
    assert ASKED in shell.take("a")
    shell.say("a", GROUP_CONTENT)
    assert shell.refusals["a"]
    gate.policy = AccessPolicy()
    assert rounds_between(shell, GROUP_CONTENT, 1) == [2]
    shell.commit()
    assert mine.id in shell.disk.headers


@pytest.mark.parametrize("is_group_here", [True, False])
def test_what_waits_for_a_value_that_could_not_be_read_gets_it(
    shell: EngineShell, is_group_here: bool
) -> None:
    if is_group_here:
        shell.client("b")
        shell.say("b", GROUP_CONTENT)
        shell.commit()
        del shell.disk.headers[MAP.id]
        shell.disk.rows.pop(MAP.id)
        shell.disk.logs.pop(MAP.id)
    again = EngineShell(shell.disk)
    again.client("a")
    again.holds_reads = True
    again.say("a", MAP_CONTENT)
    while again.reads:
        question = again.reads[0]
        if question.co_id == GROUP.id:
            again.reads.pop(0)
            again.carry_out(again.engine.load_failed(GROUP.id))
        else:
            again.answer_read()
    again.holds_reads = False
    assert again.take("a") == []
    assert ask_again(again) == []
    assert ask_again(again) == ([] if is_group_here else [ASKED])
    if not is_group_here:
        again.say("a", GROUP_CONTENT)
    again.commit()
    assert MAP.id in again.disk.headers


def test_what_could_not_be_stored_is_asked_for_until_it_is(shell: EngineShell) -> None:
    """Its client takes it for sent, and does not send it again by itself."""
    shell.say("a", GROUP_CONTENT)
    group, map_store = shell.stores
    shell.stores = []
    shell.carry_out(shell.engine.not_stored([group.ticket]))
    shell.carry_out(shell.engine.not_stored([map_store.ticket]))
    shell.take("a")
    assert ask_again(shell) == []
    assert ask_again(shell) == [ASKED, Load(MAP.id, NOTHING)]
    shell.say("a", GROUP_CONTENT)
    lost = [store.ticket for store in shell.stores]
    shell.stores = []
    shell.carry_out(shell.engine.not_stored(lost))
    shell.take("a")
    assert [ask_again(shell) for _ in range(3)] == [[], [], [ASKED]]
    shell.say("a", GROUP_CONTENT, MAP_CONTENT)
    shell.commit()
    assert shell.disk.headers.keys() >= {GROUP.id, MAP.id}
    shell.take("a")
    assert [ask_again(shell) for _ in range(9)] == [[]] * 9


def test_of_what_is_held_only_the_rest_is_asked_for(shell: EngineShell) -> None:
    shell.say("a", GROUP_CONTENT)
    shell.commit()
    shell.take("a")
    shell.say("a", ANN.content(GROUP, edits(3), after=1, as_agent=True))
    (lost,) = shell.stores
    shell.stores = []
    shell.carry_out(shell.engine.not_stored([lost.ticket]))
    assert ask_again(shell) == []
    held = KnownState(True, {GROUP_SESSION: 1})
    assert ask_again(shell) == [Load(GROUP.id, held)]


def test_what_was_lost_is_asked_for_though_its_client_acknowledges_others(
    shell: EngineShell,
) -> None:
    """Found with model clients: the acknowledgement of another's edit was taken for the answer."""
    shell.say("a", GROUP_CONTENT)
    shell.commit()
    shell.say("a", ANN.content(GROUP, edits(3), after=1, as_agent=True))
    (lost,) = shell.stores
    shell.stores = []
    shell.carry_out(shell.engine.not_stored([lost.ticket]))
    shell.take("a")
    mine = KnownState(True, {GROUP_SESSION: 3})
    shell.say("a", Known(GROUP.id, mine))
    assert shell.take("a") == []
    assert ask_again(shell) == []
    held = KnownState(True, {GROUP_SESSION: 1})
    assert ask_again(shell) == [Load(GROUP.id, held)]
    # Nor is it asked for once it has come.
    shell.say("a", ANN.content(GROUP, edits(3), after=1, as_agent=True))
    shell.commit()
    shell.say("a", Known(GROUP.id, mine))
    shell.take("a")
    assert [ask_again(shell) for _ in range(9)] == [[]] * 9


def test_so_many_are_put_off_and_asked_for_at_a_time() -> None:
    shell = EngineShell()
    shell.client("a")
    groups: list[RawCoId] = []
    for number in range(MAX_PUT_OFF + 10):
        author = Author(str(number))
        group = group_header(author.agent_id)
        groups.append(group.id)
        shell.say("a", ANN.content(map_header(str(number), group.id), edits(1)))
        shell.say("a", forged(author.content(group, edits(1), as_agent=True)))
    shell.take("a")
    assert ask_again(shell) == []
    asked = [ask_again(shell) for _ in range(MAX_PUT_OFF // MAX_ASKED_AGAIN + 1)]
    assert asked.pop() == []
    assert {len(messages) for messages in asked} == {MAX_ASKED_AGAIN}
    ids = [item.co_id for messages in asked for item in messages if isinstance(item, Load)]
    assert ids == groups[:MAX_PUT_OFF]


def test_nobody_is_asked_again_who_has_gone(shell: EngineShell) -> None:
    shell.say("a", forged(GROUP_CONTENT))
    assert ask_again(shell) == []
    for _ in range(3):
        shell.engine.begin_round()
    while shell.engine.forget_unused(100):
        pass
    shell.holds_reads = True
    shell.carry_out(shell.engine.ask_again())
    assert shell.reads
    shell.leave("a")
    shell.answer_reads()
    assert shell.sent["a"] == []


def test_what_is_lost_after_its_sender_has_gone_is_not_asked_for(shell: EngineShell) -> None:
    shell.say("a", GROUP_CONTENT)
    shell.take("a")
    lost = [store.ticket for store in shell.stores]
    shell.leave("a")
    shell.carry_out(shell.engine.not_stored(lost))
    for _ in range(4):
        shell.carry_out(shell.engine.ask_again())
    assert shell.sent["a"] == []
    assert shell.reads == []
    assert shell.loads == 3
