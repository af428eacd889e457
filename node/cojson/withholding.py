"""Stored content that stops cojson clients: it stays here, and they are not sent it.

What comes in is looked at then (`hazards.py`). What an older version of this node stored, or the
server whose file goes on here, is looked at when it is read for a client. Of a session with such a
transaction, or one that names what no client takes (`hazardous_values.py`), the client is sent what
comes before, up to a signature, and nothing beyond: else it would take no more of the value, or if
that is a group, of any value in it. It is told that all is here, and counts as having it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import structlog

from node.cojson.hazardous_values import HazardousValues
from node.covalue.content import Content
from node.covalue.hazards import may_be_hazard
from node.covalue.header import GROUP_PRIORITY
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.store import StoredText

MAX_REMEMBERED = 1024
"""Sessions; nobody can add any more of them."""

_log = structlog.get_logger(__name__)


class Withholding:
    """Remembers what one node has withheld, so that nobody is told to wait for that.

    A client that is being sent a large group when the first of it is found was told so already.
    """

    def __init__(self, hazardous: HazardousValues) -> None:
        self._hazardous = hazardous
        self._found: dict[tuple[RawCoId, CoSessionId], str] = {}
        """Why what follows in a session is not sent."""

    @property
    def values(self) -> Mapping[str, str]:
        """Values that clients have not taken whole, as far as they were read, and why."""
        found: dict[str, str] = {co_id: reason for (co_id, _), reason in self._found.items()}
        found.update(islice(self._hazardous.stored.items(), MAX_REMEMBERED))
        return found

    def screen(
        self, pieces: Sequence[Content]
    ) -> tuple[Sequence[Content], Collection[CoSessionId]]:
        """What a client may be sent of these successive pieces; the sessions that are cut."""
        withheld: set[CoSessionId] = set()
        kept: list[Content] = []
        for content in pieces:
            for session_id, reason in _hazards(content, self._hazardous):
                withheld.add(session_id)
                self._note(content.co_id, session_id, reason)
            kept.append(_without(content, withheld) if withheld else content)
        if self._found:
            kept = [self._promising_less(content) for content in kept]
        return [content for content in kept if content.header or content.new], withheld

    def _note(self, co_id: RawCoId, session_id: CoSessionId, reason: str) -> None:
        session = co_id, session_id
        if session not in self._found and len(self._found) < MAX_REMEMBERED:
            self._found[session] = reason
            about = {"co_id": co_id, "session": session_id, "reason": reason}
            _log.warning("stored, and withheld from clients", **about)

    def _promising_less(self, content: Content) -> Content:
        until, co_id = content.expect_until, content.co_id
        if until is None:
            return content
        until = {key: count for key, count in until.items() if (co_id, key) not in self._found}
        return replace(content, expect_until=until)


def is_harmless(content: Content) -> bool:
    """Whether a client may be sent all of this, if it names no value that clients do not take."""
    return next(_hazards(content, HazardousValues()), None) is None


def is_harmless_text(text: StoredText) -> bool:
    """Whether that holds for a value read as text; also False where only a closer look can tell."""
    return not any(map(may_be_hazard, text.texts.values()))


def _hazards(content: Content, hazardous: HazardousValues) -> Iterator[tuple[CoSessionId, str]]:
    is_group = content.priority == GROUP_PRIORITY
    for session_id, part in content.new.items():
        transactions = part.transactions
        reason = hazardous.hazard(content.co_id, session_id, transactions, is_group=is_group)
        if reason is not None:
            yield session_id, reason


def _without(content: Content, withheld: Collection[CoSessionId]) -> Content:
    new = {key: part for key, part in content.new.items() if key not in withheld}
    return replace(content, new=new)
