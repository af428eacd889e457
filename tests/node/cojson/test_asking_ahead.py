"""What content waits for is asked for all at once: each in its turn is a round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from node.cojson.asking import MAX_ASKED_AHEAD
from node.cojson.messages import Known, Load, Message
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.engine_shell import EngineShell

ANN, BOB = Author("ann"), Author("bob")
GROUP = group_header(ANN.agent_id)
MAP = map_header("m", GROUP.id)
GROUP_CONTENT = ANN.content(GROUP, edits(1), as_agent=True)


def loads(messages: Sequence[Message]) -> list[RawCoId]:
    assert all(isinstance(message, Load) and message.known == NOTHING for message in messages)
    return [message.co_id for message in messages if isinstance(message, Load)]


def by_id(contents: Sequence[Content]) -> Mapping[RawCoId, Content]:
    return {content.co_id: content for content in contents}


def map_of(authors: Sequence[Author], *, with_header: bool = True) -> Content:
    new: dict[CoSessionId, SessionContent] = {}
    for author in authors:
        new.update(author.content(MAP, edits(1)).new)
    return Content(MAP.id, MAP if with_header else None, new, MAP.priority)


def group_of(members: Sequence[Author]) -> Content:
    named = [
        Transaction(n, f'[{{"op":"set","key":"{member.account_id}","value":"reader"}}]')
        for n, member in enumerate(members)
    ]
    return ANN.content(GROUP, named, as_agent=True)


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("is_read_late", [False, True])
def test_all_that_is_missing_is_asked_for_at_once(is_read_late: bool, is_cut: bool) -> None:
    """Found in review: a value of twenty authors cost the client twenty round trips."""
    authors = [Author(str(number)) for number in range(20)]
    has = by_id([GROUP_CONTENT, *(author.account() for author in authors)])
    pieces = [map_of(authors)]
    if is_cut:
        pieces = [map_of(authors[:10]), map_of(authors[10:], with_header=False)]
    shell = EngineShell()
    shell.client("a")
    shell.holds_reads = is_read_late
    shell.say("a", *pieces)
    shell.holds_reads = False
    shell.answer_reads()
    asked = loads(shell.take("a"))
    assert sorted(asked) == sorted(has)
    shell.say("a", *(has[co_id] for co_id in asked))
    assert shell.take("a") == []
    shell.commit()
    assert shell.disk.headers.keys() == {MAP.id, *has}
    assert len(shell.disk.rows[MAP.id]) == len(authors)


def test_what_is_here_or_has_come_is_not_asked_for() -> None:
    shell = EngineShell()
    shell.client("author")
    shell.say("author", ANN.account())
    shell.commit()
    again = EngineShell(shell.disk)
    again.client("a")
    # Of the group the account of a member is missing; the map waits for the group, and no more.
    again.say("a", group_of([BOB]))
    assert loads(again.take("a")) == [BOB.account_id]
    again.say("a", map_of([ANN, BOB]))
    assert loads(again.take("a")) == [GROUP.id]
    again.say("a", BOB.account())
    again.commit()
    assert MAP.id in again.disk.headers


def test_who_does_not_have_it_is_asked_again_only_when_it_is_needed() -> None:
    shell = EngineShell()
    shell.client("a")
    shell.say("a", map_of([ANN, BOB]))
    assert loads(shell.take("a")) == [GROUP.id, ANN.account_id, BOB.account_id]
    shell.say("a", Known(BOB.account_id, NOTHING), GROUP_CONTENT)
    assert loads(shell.take("a")) == []
    shell.say("a", ANN.account())
    assert loads(shell.take("a")) == [BOB.account_id]


def test_nobody_is_asked_who_has_gone_while_the_store_was_read() -> None:
    shell = EngineShell()
    shell.client("a")
    shell.holds_reads = True
    shell.say("a", map_of([ANN, BOB]))
    shell.leave("a")
    shell.answer_reads()
    assert shell.sent["a"] == []
    assert shell.engine.wanted_ids == frozenset()


def test_what_is_asked_for_at_once_is_bounded() -> None:
    members = [Author(str(number)) for number in range(2 * MAX_ASKED_AHEAD)]
    has = by_id([member.account() for member in members])
    shell = EngineShell()
    shell.client("a")
    shell.say("a", group_of(members))
    rounds = 0
    while asked := loads(shell.take("a")):
        assert len(asked) <= MAX_ASKED_AHEAD
        rounds += 1
        shell.say("a", *(has[co_id] for co_id in asked))
    assert rounds <= 3
    shell.commit()
    assert GROUP.id in shell.disk.headers


@pytest.mark.parametrize("is_read_late", [False, True])
def test_what_a_member_does_not_have_is_looked_for_all_at_once(is_read_late: bool) -> None:
    """Of twenty authors, each was looked for when the one before had been found."""
    authors = [Author(str(number)) for number in range(20)]
    has = by_id([GROUP_CONTENT, *(author.account() for author in authors)])
    shell = EngineShell(has_mesh=True)
    shell.holds_reads = is_read_late
    shell.bring(map_of(authors))
    shell.holds_reads = False
    shell.answer_reads()
    assert sorted(shell.finds) == sorted(has)
    assert [item.is_waiting for item in shell.settled] == [True]
    for number, content in enumerate(has.values(), 2):
        shell.bring(content, number)
    shell.carry_out(shell.engine.searched(has))
    assert len(shell.finds) == len(has)
    shell.commit()
    assert len(shell.disk.rows[MAP.id]) == len(authors)


def test_what_is_nowhere_is_looked_for_again_only_when_it_is_needed() -> None:
    shell = EngineShell(has_mesh=True)
    shell.bring(map_of([ANN, BOB]))
    assert shell.finds == [GROUP.id, ANN.account_id, BOB.account_id]
    shell.bring(ANN.account(), 2)
    shell.carry_out(shell.engine.searched([GROUP.id, ANN.account_id, BOB.account_id]))
    assert len(shell.finds) == 3
    shell.bring(GROUP_CONTENT, 3)
    assert shell.finds[3:] == [BOB.account_id]


def test_what_is_looked_for_at_once_is_bounded() -> None:
    members = [Author(str(number)) for number in range(2 * MAX_ASKED_AHEAD)]
    has = by_id([member.account() for member in members])
    shell = EngineShell(has_mesh=True)
    shell.bring(group_of(members))
    for start in (0, MAX_ASKED_AHEAD):
        asked = shell.finds[start:]
        assert len(asked) == MAX_ASKED_AHEAD
        for co_id in asked:
            shell.bring(has[co_id], 2)
        shell.carry_out(shell.engine.searched(asked))
    assert len(shell.finds) == len(members)
    shell.commit()
    assert GROUP.id in shell.disk.headers


def test_nothing_is_looked_for_where_there_is_no_mesh() -> None:
    shell = EngineShell()
    shell.bring(map_of([ANN, BOB]))
    assert shell.finds == []
    assert shell.loads == 2, "the map, and what it waits for first"
