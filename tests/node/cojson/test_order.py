"""A client gets nothing before what it depends on: else it has to ask for that."""

from __future__ import annotations

import pytest
import trio.testing

from bee.bee import Bee
from node.cojson.host import open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.messages import Load, Message, decode_line
from node.cojson.outputs import LoadValue
from node.cojson.value_table import MEMORY_BYTES
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.data_log import DataLog
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


@pytest.mark.parametrize("is_new", [True, False])
def test_a_group_that_waits_to_be_sent_lets_a_new_member_pass(
    shell: EngineShell, is_new: bool
) -> None:
    """Found with model clients: it was sent whole, and his account after it."""
    child = group_header(ANN.account_id, "child")
    founding = [*FOUNDING, role(f"parent_{GROUP.id}", "extend", made_at=910)]
    shell.say("reader", Load(child.id, NOTHING))
    if not is_new:
        shell.say("ann", ANN.content(child, founding[:1]))
        shell.commit()
        shell.take("reader")
    shell.say("ann", ANN.content(child, founding, after=0 if is_new else 1, with_header=is_new))
    shell.commit()
    hiring = ANN.content(
        child, [*founding, role(BOB.account_id, "writer")], after=2, with_header=False
    )
    shell.say("ann", BOB.account(), hiring)
    shell.commit()
    assert ids(shell.take("reader")) == [BOB.account_id, child.id]
    assert ids(shell.take("reader")) == []


def test_a_group_that_gets_a_parent_lets_it_pass_that_waits_behind_it(shell: EngineShell) -> None:
    """Found with model clients: the parent had been offered before, so it was not again."""
    child, parent = (group_header(ANN.account_id, name) for name in ("child", "parent"))
    for group in (child, parent):
        shell.say("ann", ANN.content(group, FOUNDING))
    shell.commit()
    shell.say("reader", Load(child.id, NOTHING), Load(parent.id, NOTHING))
    extending = [*FOUNDING, role(f"parent_{parent.id}", "extend", made_at=910)]
    shell.say("ann", ANN.content(child, extending, after=1, with_header=False))
    shell.commit()
    assert ids(shell.take("reader")) == [parent.id, child.id]


def test_groups_that_name_one_another_are_sent_each_once(shell: EngineShell) -> None:
    one, other = (group_header(ANN.account_id, name) for name in ("one", "other"))
    for group in (one, other):
        shell.say("reader", Load(group.id, NOTHING))
        shell.say("ann", ANN.content(group, FOUNDING))
    shell.commit()
    for group, parent in ((one, other), (other, one)):
        extending = [*FOUNDING, role(f"parent_{parent.id}", "extend", made_at=910)]
        shell.say("ann", ANN.content(group, extending, after=1, with_header=False))
    shell.commit()
    assert sorted(ids(shell.take("reader"))) == sorted([one.id, other.id])


@pytest.mark.parametrize("memory_bytes", [MEMORY_BYTES, 0])
async def test_the_lines_of_a_connection_come_in_that_order(memory_bytes: int) -> None:
    """Found with model clients: a group that was forgotten meanwhile was sent as its turn came."""
    log = DataLog()
    options = HostOptions(memory_bytes=memory_bytes)
    async with open_sync_host(BeeStore(Bee(log), log), options) as host:
        await host.receive_content("test", [ANN.account()])
        with host.client("ann") as ann, host.client("reader") as reader:
            await reader.receive([Load(GROUP.id, NOTHING), Load(ANN.account_id, NOTHING)])
            await trio.testing.wait_all_tasks_blocked()
            await ann.receive([ANN.content(GROUP, FOUNDING)])
            await trio.testing.wait_all_tasks_blocked()
            hiring = [*FOUNDING, role(BOB.account_id, "writer")]
            await ann.receive([BOB.account(), ANN.content(GROUP, hiring, after=1)])
            await trio.testing.wait_all_tasks_blocked()
            lines = await reader.next_lines(1 << 20)
    sent = [message for message in map(decode_line, lines) if message is not None]
    assert ids(sent) == [ANN.account_id, BOB.account_id, GROUP.id]


def test_a_group_lets_an_account_pass_that_is_still_read_to_be_offered() -> None:
    """Found with model clients: the group, wanted before it needed the account, was sent alone."""
    shell = EngineShell(memory_bytes=0)
    for name in ("ann", "reader"):
        shell.client(name)
    shell.say("ann", ANN.content(GROUP, []))
    shell.commit()
    shell.say("reader", Load(GROUP.id, NOTHING))
    shell.holds_reads = True
    shell.say("ann", ANN.account(), ANN.content(GROUP, FOUNDING, with_header=False))
    while len(shell.stores) < 2:
        shell.answer_read()
    shell.commit(1)
    shell.commit(1)
    assert LoadValue(ANN.account_id, is_wanted=True) in shell.reads
    assert ids(shell.take("reader")) == [ANN.account_id, GROUP.id]
    shell.holds_reads = False
    shell.answer_reads()
    assert shell.take("reader") == []


def test_what_a_group_needs_and_is_not_here_is_not_spoken_of() -> None:
    shell = EngineShell()
    for name in ("ann", "reader"):
        shell.client(name)
    shell.say("ann", ANN.account(), ANN.content(GROUP, FOUNDING))
    shell.commit()
    del shell.disk.headers[ANN.account_id]
    again = EngineShell(shell.disk)
    again.client("reader")
    (message,) = again.load("reader", GROUP.id)
    assert ids([message]) == [GROUP.id]
