"""Conversations in the gate; `python -m tests.conversations` holds more of them."""

from __future__ import annotations

import pytest

from node.covalue.content import Content
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState
from tests.conversations.campaign import Campaign
from tests.conversations.client import Spoken
from tests.conversations.comparison import differences
from tests.conversations.engine import EngineServer
from tests.conversations.party import Outcome, Party
from tests.conversations.script import PEOPLE, write_script


def test_all_have_what_is_stored_whatever_goes_wrong() -> None:
    with Campaign(has_original=False) as campaign:
        for seed in range(50):
            campaign.run(seed)
    report = campaign.report
    assert report.failures == {}
    assert report.written > 50 * 50, "hardly anything was said"
    assert report.early * 1000 <= report.heard
    # Twice what is written to who reads it, and some of it again after each loss.
    assert report.ours.transactions < 4 * report.written


@pytest.mark.interop
def test_clients_end_up_as_with_the_original_and_say_no_more() -> None:
    with Campaign(has_original=True) as campaign:
        for seed in range(20):
            campaign.run(seed)
    report = campaign.report
    assert report.failures == {}
    assert report.early * 1000 <= report.heard
    assert report.ours.letters < 1.15 * report.original.letters
    assert report.ours.messages < 1.15 * report.original.messages


class Forgetful(EngineServer):
    """Every tenth content is lost on the way, as no connection loses it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._sent = 0

    def take(self, peer: str) -> list[Spoken]:
        return [message for message in super().take(peer) if not self._is_lost(message)]

    def _is_lost(self, message: Spoken) -> bool:
        self._sent += isinstance(message, Content)
        return isinstance(message, Content) and self._sent % 10 == 0


def test_a_server_that_is_wrong_is_found_out() -> None:
    found = [
        Party(write_script(seed, has_mishaps=False), Forgetful(seed)).hold().faults
        for seed in range(3)
    ]
    assert all(found)


def test_a_seed_says_it_all() -> None:
    one, other, third = (
        Party(write_script(seed, has_mishaps=True), EngineServer(seed)).hold().trace
        for seed in (1, 1, 2)
    )
    assert one == other != third
    assert len(one) > 100


VALUE = RawCoId("co_zValue")
EDITED = {PEOPLE[0].session_id(): 3}
DELETED = {PEOPLE[0].delete_session_id(): 1}


def with_value(sessions: dict[CoSessionId, int]) -> Outcome:
    """What one client ended up with."""
    return Outcome(
        1,
        held={"reader": {VALUE: KnownState(True, sessions)}},
        wanted={"reader": frozenset([VALUE])},
    )


def test_only_a_deletion_that_the_original_did_not_take_may_differ() -> None:
    edited, deleted = with_value(EDITED), with_value(DELETED)
    assert not differences(deleted, edited, compares_costs=True)
    assert differences(edited, deleted, compares_costs=True)
    assert differences(with_value({}), edited, compares_costs=True)
