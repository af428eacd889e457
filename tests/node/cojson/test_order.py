"""A client gets nothing before what it depends on: else it has to ask for that."""

from __future__ import annotations

import pytest

from node.cojson.messages import Message
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.engine_shell import EngineShell

ANN, BOB = Author("ann"), Author("bob")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)
FOUNDING = [role(ANN.account_id, "admin", made_at=900)]


def ids(messages: list[Message]) -> list[RawCoId]:
    return [message.co_id for message in messages if isinstance(message, Content)]


@pytest.fixture
def shell() -> EngineShell:
    """With a group and a map of Ann's stored, and a client that has both."""
    shell = EngineShell()
    for name in ("ann", "bob", "reader"):
        shell.client(name)
    shell.say("ann", ANN.account(), ANN.content(GROUP, FOUNDING), ANN.content(MAP, edits(1)))
    shell.commit()
    assert len(shell.load("reader", MAP.id)) == 3
    return shell


def test_a_new_author_comes_first_though_the_value_was_written_before(shell: EngineShell) -> None:
    """Found with model clients: the account was durable a moment too late to be sent at all."""
    shell.say("ann", ANN.content(MAP, edits(2), after=1, with_header=False))
    shell.say("bob", BOB.account(), BOB.content(MAP, edits(1), with_header=False))
    shell.commit()
    assert ids(shell.take("reader")) == [BOB.account_id, MAP.id]
