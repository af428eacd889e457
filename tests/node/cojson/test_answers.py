"""What a client is told once, so that it sends nothing twice.

A cojson client that is told what a node holds sends all that this lacks and that it has not sent
yet, after a correction also what it has.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.cojson.messages import Known, Load, Message
from node.covalue.content import Content
from node.covalue.known_state import NOTHING, KnownState
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.engine_shell import EngineShell

ANN = Author("ann")
FREE = map_header("free")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)
SESSION = ANN.session_id(as_agent=True)


def free(count: int, after: int = 0) -> Content:
    return ANN.content(FREE, edits(count), after=after, as_agent=True, with_header=after == 0)


def held(count: int) -> KnownState:
    return KnownState(True, {SESSION: count})


def forged(content: Content) -> Content:
    new = {key: part._replace(signature=bytes(64)) for key, part in content.new.items()}
    return replace(content, new=new)


def restarted(count: int) -> EngineShell:
    """A node that holds so many edits, not in memory, and whose disk waits to be told to read."""
    shell = EngineShell()
    if count:
        shell.client("author")
        shell.say("author", free(count))
        shell.commit()
    again = EngineShell(shell.disk)
    again.client("a")
    again.holds_reads = True
    return again


def told(shell: EngineShell, *messages: Message) -> list[Message]:
    """All that the client is told of these once the disk has been read and written."""
    shell.say("a", *messages)
    answers = shell.take("a")
    while shell.reads:
        shell.answer_read()
        answers += shell.take("a")
    shell.commit()
    return answers + shell.take("a")


def correction(known: KnownState) -> Known:
    return Known(FREE.id, known, is_correction=True)


# A load, and content behind it while the value is read.


@pytest.mark.parametrize("count", [0, 3])
def test_the_acknowledgement_answers_the_load(count: int) -> None:
    shell = restarted(count)
    assert told(shell, Load(FREE.id, held(6)), free(6)) == [Known(FREE.id, held(6))]


def test_who_repeats_what_is_here_is_told_so_once() -> None:
    shell = restarted(3)
    assert told(shell, Load(FREE.id, held(3)), free(3), free(2)) == [
        Known(FREE.id, held(3)),
        Known(FREE.id, held(3)),
    ]


@pytest.mark.parametrize(("count", "known"), [(0, NOTHING), (3, held(3))])
def test_the_correction_answers_the_load(count: int, known: KnownState) -> None:
    """Found in review: told what was here, and then corrected, it sent other sessions twice."""
    shell = restarted(count)
    messages = Load(FREE.id, held(5)), free(6, after=5), free(7, after=6)
    assert told(shell, *messages) == [correction(known)]


@pytest.mark.parametrize(("count", "known"), [(0, NOTHING), (3, held(3))])
def test_a_load_is_answered_though_its_content_is_refused(count: int, known: KnownState) -> None:
    shell = restarted(count)
    answers = told(shell, Load(FREE.id, held(4)), forged(free(4)))
    assert answers == [Known(FREE.id, known)]
    assert shell.refusals["a"]


def test_a_load_is_answered_though_its_content_waits() -> None:
    shell = restarted(0)
    waiting = ANN.content(MAP, edits(1))
    answers = told(shell, Load(MAP.id, KnownState(True)), waiting)
    assert Known(MAP.id, NOTHING) in answers


def test_a_load_is_answered_though_its_content_is_lost() -> None:
    shell = restarted(0)
    shell.say("a", Load(FREE.id, held(2)), free(2))
    shell.answer_reads()
    assert shell.take("a") == []
    shell.carry_out(shell.engine.not_stored([store.ticket for store in shell.stores]))
    assert shell.take("a") == [Known(FREE.id, NOTHING)]


def test_who_lacks_something_gets_it_at_once() -> None:
    shell = restarted(3)
    other = Author("bob").content(FREE, edits(1), as_agent=True, with_header=False)
    answers = told(shell, Load(FREE.id, KnownState(True)), other)
    assert [type(answer) for answer in answers] == [Content, Known]


def test_a_load_that_follows_content_is_answered_by_its_acknowledgement() -> None:
    shell = restarted(3)
    shell.holds_reads = False
    told(shell, Load(FREE.id, held(3)))
    shell.say("a", free(5, after=3), Load(FREE.id, held(5)))
    assert shell.take("a") == []
    shell.commit()
    assert shell.take("a") == [Known(FREE.id, held(5))]


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("kept", [NOTHING, held(3)])
def test_who_lets_go_of_what_it_has_sent_gets_it_back(count: int, kept: KnownState) -> None:
    """It loads the value anew while that is on its way to the disk: it was sent nothing."""
    shell = restarted(count)
    answers = told(shell, free(6), Load(FREE.id, kept))
    got = kept
    for answer in answers:
        if isinstance(answer, Content):
            assert all(part.after <= got.sessions.get(key, 0) for key, part in answer.new.items())
            got = got.merged(answer.known_state)
    assert got == held(6)


def test_a_client_that_goes_is_owed_nothing() -> None:
    shell = restarted(3)
    shell.say("a", Load(FREE.id, held(6)), free(6))
    shell.leave("a")
    shell.answer_reads()
    shell.commit()
    assert shell.take("a") == []
    assert shell.disk.rows[FREE.id][SESSION].count == 6


# Corrections.


def test_what_came_behind_a_gap_is_not_corrected_again() -> None:
    """Found in review: a client sent all of a large value for each of its edits on the way."""
    shell = restarted(0)
    shell.holds_reads = False
    gaps = [free(count, after=count - 1) for count in range(6, 16)]
    assert told(shell, *gaps) == [correction(NOTHING)]
    assert told(shell, free(3)) == [Known(FREE.id, held(3))]
    assert told(shell, *gaps) == [correction(held(3))]


def test_who_did_not_understand_is_corrected_again_after_some_seconds() -> None:
    shell = restarted(0)
    shell.holds_reads = False
    said: list[list[Message]] = []
    for count in range(6, 12):
        said.append(told(shell, free(count, after=count - 1)))
        shell.carry_out(shell.engine.ask_again())
    assert said == [[correction(NOTHING)], [], [correction(NOTHING)], [], *said[:2]]


def test_who_asks_anew_is_corrected_anew() -> None:
    shell = restarted(0)
    shell.holds_reads = False
    assert told(shell, free(6, after=5)) == [correction(NOTHING)]
    load = Load(FREE.id, held(6))
    assert told(shell, load, free(7, after=6)) == [Known(FREE.id, NOTHING), correction(NOTHING)]


def test_each_client_is_corrected() -> None:
    shell = restarted(0)
    shell.holds_reads = False
    shell.client("b")
    assert told(shell, free(6, after=5)) == [correction(NOTHING)]
    shell.say("b", free(6, after=5))
    assert shell.take("b") == [correction(NOTHING)]


# Content of somebody who has not asked.


def test_who_sends_what_is_here_gets_what_it_lacks() -> None:
    """Found beside cojson's server: two who made one value by its name did not see each other."""
    shell = restarted(3)
    all_of_it = ANN.content(FREE, edits(3), as_agent=True, with_header=False)
    assert told(shell, ANN.content(FREE, [])) == [Known(FREE.id, held(3)), all_of_it]


def test_who_sends_a_part_of_what_is_here_gets_the_rest() -> None:
    shell = restarted(5)
    answers = told(shell, free(2))
    assert answers == [Known(FREE.id, held(5)), free(5, after=2)]


def test_who_has_said_that_it_has_all_is_sent_nothing_back() -> None:
    shell = restarted(5)
    shell.holds_reads = False
    told(shell, Load(FREE.id, held(9)))
    assert told(shell, free(4, after=3)) == [Known(FREE.id, held(5))]


def test_who_writes_to_what_was_deleted_is_told_so() -> None:
    shell = restarted(0)
    shell.holds_reads = False
    shell.client("author")
    author = Author("author")
    header = map_header("m", author.account_id)
    edit, deletion = author.content(header, edits(2)), author.deletion(header)
    shell.say("author", author.account(), edit)
    shell.commit()
    shell.say("author", deletion)
    shell.commit()
    answers = told(shell, edit)
    contents = [answer for answer in answers if isinstance(answer, Content)]
    assert contents[-1].co_id == header.id
    assert contents[-1].new == deletion.new


@pytest.mark.parametrize("memory_bytes", [0, 2**26])
def test_a_load_is_answered_though_what_was_to_be_sent_is_deleted(memory_bytes: int) -> None:
    """Found with model clients: it waited for what the store did not have any more."""
    shell = EngineShell(memory_bytes=memory_bytes)
    shell.client("ann")
    founding = [role(ANN.account_id, "admin", made_at=900)]
    shell.say("ann", ANN.account(), ANN.content(GROUP, founding), ANN.content(MAP, edits(2)))
    shell.commit()
    deletion = ANN.deletion(MAP)
    shell.say("ann", deletion)
    shell.client("a")
    deleted = KnownState(True, deletion.known_state.sessions)
    shell.say("a", Load(MAP.id, deleted))
    shell.commit()
    assert [answer for answer in shell.take("a") if isinstance(answer, Known)] == [
        Known(MAP.id, deleted)
    ]
