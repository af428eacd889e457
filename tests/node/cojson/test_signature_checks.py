"""Signatures checked by another process: its verdicts, and whoever waits when it is not there."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import trio
import trio.testing

from node.access.gate import Gate
from node.access.policy import AccessPolicy
from node.cojson.foresight import Check
from node.cojson.host import open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.messages import Known
from node.cojson.signature_checks import (
    LOOKS,
    MANY_CHECKS,
    MIN_CHECKS,
    Batch,
    LookAhead,
    SignatureChecker,
)
from node.cojson.sync import SyncEngine
from node.covalue.content import Content, SessionContent
from node.covalue.ids import CoSessionId, agent_public_key
from node.covalue.known_state import KnownState
from node.covalue.session_log import SessionLog
from tests.node.cojson.test_host import lines
from tests.support.authors import Author, edits, map_header
from tests.support.bee_hosts import bee_store_over
from tests.support.data_log import DataLog
from tests.support.turns import counting_turns

ANN, BOB = Author("ann"), Author("bob")
KEY = agent_public_key(ANN.agent_id)


def checks(count: int) -> list[Check]:
    """Every third signature is of somebody else, every fifth of nobody."""
    found = []
    for number in range(count):
        transactions = edits(number + 1)[-2:]
        signature = (BOB if number % 3 == 2 else ANN).sign(transactions)
        if number % 5 == 4:
            signature = bytes(64)
        found.append((SessionLog().extension(transactions, signature), KEY))
    return found


async def handed_over(checker: SignatureChecker, wanted: list[Check]) -> Batch:
    """As soon as there is somebody who takes them."""
    batch = checker.hand_over(wanted)
    if batch is None:
        with trio.fail_after(20):
            await checker.wait_running()
        batch = checker.hand_over(wanted)
        assert batch is not None
    return batch


async def test_verdicts_are_those_of_who_checks_here(nursery: trio.Nursery) -> None:
    checker = SignatureChecker()
    nursery.start_soon(checker.run)
    first, second = checks(200), checks(MIN_CHECKS)
    batches = [await handed_over(checker, first), await handed_over(checker, second)]
    with trio.fail_after(20):
        await batches[1].wait(len(second))
        await batches[0].wait(len(first))
    for extension, _ in [*first, *second]:
        assert extension.verdict is not None
        fresh = SessionLog().extension(extension.transactions, extension.signature)
        assert extension.verdict == (KEY, fresh.is_signed_by(KEY))
    assert {extension.verdict for extension, _ in first} == {(KEY, True), (KEY, False)}
    nursery.cancel_scope.cancel()


async def test_the_first_can_be_had_before_the_last(nursery: trio.Nursery) -> None:
    checker = SignatureChecker()
    nursery.start_soon(checker.run)
    wanted = checks(400)
    batch = await handed_over(checker, wanted)
    with trio.fail_after(20):
        await batch.wait(1)
    assert wanted[0][0].verdict == (KEY, True)
    assert wanted[-1][0].verdict is None
    nursery.cancel_scope.cancel()


async def test_a_few_are_not_worth_the_way(nursery: trio.Nursery) -> None:
    checker = SignatureChecker()
    nursery.start_soon(checker.run)
    await handed_over(checker, checks(MIN_CHECKS))
    assert checker.hand_over(checks(MIN_CHECKS - 1)) is None
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.write(1, b'.'); os.read(0, 1)",
        "import os; os.write(1, b'.'); os.read(0, 160); os.write(1, b'\\1')",
    ],
    ids=["at once", "after one"],
)
async def test_who_waits_goes_on_when_it_dies(nursery: trio.Nursery, program: str) -> None:
    checker = SignatureChecker([sys.executable, "-c", program])
    nursery.start_soon(checker.run)
    wanted = checks(20)
    batch = await handed_over(checker, wanted)
    with trio.fail_after(20):
        await batch.wait(len(wanted))
    assert wanted[-1][0].verdict is None
    assert checker.hand_over(checks(20)) is None
    nursery.cancel_scope.cancel()


async def test_one_that_says_nothing_more_is_ended(nursery: trio.Nursery) -> None:
    program = "import os, signal; os.write(1, b'.'); signal.pause()"
    checker = SignatureChecker([sys.executable, "-c", program], stall_seconds=0.05)
    nursery.start_soon(checker.run)
    wanted = checks(20)
    batch = await handed_over(checker, wanted)
    with trio.fail_after(20):
        await checker.wait_checked(batch, 1)
    assert not checker.is_running
    assert wanted[0][0].verdict is None
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("command", [["/nowhere/python"], [sys.executable, "-c", ""]])
async def test_nobody_waits_for_one_that_does_not_start(
    nursery: trio.Nursery, command: list[str]
) -> None:
    checker = SignatureChecker(command)
    nursery.start_soon(checker.run)
    assert checker.hand_over(checks(20)) is None
    await trio.testing.wait_all_tasks_blocked(0.1)  # it was tried
    assert checker.hand_over(checks(20)) is None
    assert not checker.is_running
    nursery.cancel_scope.cancel()


async def test_it_ends_when_there_is_nothing_to_check(nursery: trio.Nursery) -> None:
    checker = SignatureChecker(idle_seconds=0.05)
    nursery.start_soon(checker.run)
    for _ in range(2):  # and comes back
        batch = await handed_over(checker, checks(20))
        with trio.fail_after(20):
            await batch.wait(20)
            await checker.wait_running(False)
    nursery.cancel_scope.cancel()


async def test_an_upload_with_a_wrong_signature_in_it() -> None:
    headers = [map_header(f"m{number}") for number in range(40)]
    contents = [ANN.content(header, edits(3), as_agent=True) for header in headers]
    session_id = ANN.session_id(as_agent=True)
    wrong = SessionContent(0, edits(3), BOB.sign(edits(3)))
    contents[20] = Content(headers[20].id, headers[20], {session_id: wrong})
    options = HostOptions(checks_aside=True)
    async with open_sync_host(bee_store_over(DataLog()), options) as host:
        with host.client("a") as link:
            for _ in range(3):
                # Of the first there is nobody yet who checks it; the others repeat it.
                await link.receive(contents)
                answers = await lines(link)
                known = {item.co_id: item.known for item in answers if isinstance(item, Known)}
                assert known == {
                    header.id: KnownState(True, {session_id: 3})
                    for header in headers
                    if header is not headers[20]
                }
        assert host.statistics().refused == 3


def large_message() -> Content:
    header = map_header("large")
    new: dict[CoSessionId, SessionContent] = {}
    for number in range(MANY_CHECKS):
        new |= ANN.content(header, edits(1), session=str(number), as_agent=True).new
    return Content(header.id, header, new, header.priority)


async def test_signatures_of_a_large_message_are_checked_while_others_have_their_turn() -> None:
    """It was judged in one go: 3,000 sessions of the 50,000 that a line may have took 0.2 s."""
    content = large_message()
    engine = SyncEngine()
    async with counting_turns() as turns:
        ahead = await LookAhead.of(None, engine.foresight, None, [content])
        assert turns.count >= MANY_CHECKS // LOOKS
    (found,) = ahead.extensions(0, 1)
    assert found.keys() == content.new.keys()
    assert {extension.verdict for extension in found.values()} == {(KEY, True)}


@pytest.mark.parametrize("welcome", [ANN, BOB])
async def test_signatures_of_who_is_not_welcome_are_not_checked(welcome: Author) -> None:
    """Whoever was on no list had 50,000 of them checked, in each message."""
    content = large_message()
    by_bob = BOB.content(map_header("large"), edits(1), as_agent=True)
    content = replace(content, new={**content.new, **by_bob.new})
    gate = Gate(AccessPolicy.of(allow=[welcome.agent_id]))
    engine = SyncEngine(access=gate)
    engine.add_peer("eve")
    taken = by_bob.new if welcome is BOB else content.new.keys() - by_bob.new.keys()
    for peer_id in ("eve", None):
        ahead = await LookAhead.of(None, engine.foresight, peer_id, [content])
        (found,) = ahead.extensions(0, 1)
        assert found.keys() == set(taken)
    assert gate.statistics().refused == {}


async def test_of_clients_of_a_node_that_may_not_write_no_signature_is_checked() -> None:
    gate = Gate()
    gate.is_read_only = True
    engine = SyncEngine(access=gate)
    engine.add_peer("eve")
    found = []
    for peer_id in ("eve", None):
        ahead = await LookAhead.of(None, engine.foresight, peer_id, [large_message()])
        found += [len(ahead.extensions(0, 1)[0])]
    assert found == [0, MANY_CHECKS]


async def test_a_large_message_is_looked_at_though_the_last_of_its_sender_was_refused() -> None:
    content = large_message()
    engine = SyncEngine()
    engine.add_peer("eve")
    forged = {key: part._replace(signature=bytes(64)) for key, part in content.new.items()}
    engine.receive("eve", replace(content, new=forged))
    engine.loaded(content.co_id, None)
    assert engine.foresight("eve") is None
    ahead = await LookAhead.of(None, engine.foresight, "eve", [content])
    assert len(ahead.extensions(0, 1)) == 1
