from __future__ import annotations

from node.cojson.appeals import MAX_PER_GROUP, Appeals
from node.cojson.peer_view import PeerView
from node.cojson.waiting_room import Delivery
from node.covalue.ids import RawCoId, agent_public_key
from node.covalue.session_log import SessionLog
from tests.support.authors import Author, edits, group_header, map_header

ANN = Author("ann")
ONE, TWO = (group_header(ANN.account_id, name).id for name in ("one", "two"))


def delivery(name: str, size: int = 100, sender: PeerView | None = None) -> Delivery:
    return Delivery(ANN.content(map_header(name), edits(1)), sender, 1, size)


def names(deliveries: list[Delivery]) -> list[RawCoId]:
    return [item.content.co_id for item in deliveries]


def test_every_group_that_was_consulted_may_speak_for_it() -> None:
    appeals = Appeals()
    appeals.add(delivery("a"), [ONE, TWO])
    appeals.add(delivery("b"), [TWO])
    assert names(appeals.release(ONE)) == [map_header("a").id]
    assert names(appeals.release(TWO)) == [map_header("b").id]
    assert len(appeals) == 0
    assert appeals.release(ONE) == []


def test_the_same_sessions_are_kept_once() -> None:
    appeals = Appeals()
    for _ in range(3):
        appeals.add(delivery("a"), [ONE])
    assert len(appeals) == 1


def test_the_oldest_are_forgotten_beyond_the_bounds() -> None:
    appeals = Appeals(max_bytes=1000)
    for number in range(20):
        appeals.add(delivery(str(number), 300), [ONE])
    assert names(appeals.release(ONE)) == [map_header(str(number)).id for number in (17, 18, 19)]
    appeals.add(delivery("large", 1001), [ONE])
    assert len(appeals) == 0
    appeals = Appeals()
    for number in range(MAX_PER_GROUP + 5):
        appeals.add(delivery(str(number)), [ONE, TWO])
    assert len(appeals) == MAX_PER_GROUP
    assert names(appeals.release(TWO))[0] == map_header("5").id


def test_an_appeal_is_not_on_the_receipt_that_was_told_already() -> None:
    appeals = Appeals()
    appeals.add(Delivery(ANN.content(map_header("a"), edits(1)), None, 7, 100), [ONE])
    (left,) = appeals.release(ONE)
    assert left.receipt is None


def test_what_a_client_sent_that_has_gone_is_judged_all_the_same() -> None:
    appeals = Appeals()
    ann = PeerView("ann")
    appeals.add(delivery("a", sender=ann), [ONE])
    appeals.forget(ann)
    (left,) = appeals.release(ONE)
    assert left.sender is None


def test_what_was_checked_is_kept_with_an_appeal_and_counts_as_memory() -> None:
    header, transactions = map_header("a"), edits(1)
    content = ANN.content(header, transactions)
    extension = SessionLog().extension(transactions, ANN.sign(transactions))
    appeals = Appeals(max_bytes=3000)
    for number in range(2):
        item = Delivery(content, None, number, 100)
        assert appeals.add(item, [ONE], {ANN.session_id(): extension})
        assert item.foreseen is None
    other = Delivery(ANN.content(map_header("b"), edits(1)), None, 3, 100)
    assert appeals.add(other, [ONE], {ANN.session_id(): extension})
    (left,) = appeals.release(ONE)
    assert left.content is other.content
    assert left.foreseen == {ANN.session_id(): extension}


def test_a_signature_is_checked_once_against_a_key() -> None:
    transactions = edits(1)
    extension = SessionLog().extension(transactions, ANN.sign(transactions))
    key = agent_public_key(ANN.agent_id)
    assert extension.is_signed_by(key)
    assert extension.verdict == (key, True)
    other = agent_public_key(Author("bob").agent_id)
    assert not extension.is_signed_by(other)
    assert extension.verdict == (other, False)
