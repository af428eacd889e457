"""Carrying out a gatekeeper's rulings: what it refuses is taken out of a delivery.

The parts that are left go on as if they had come alone; what was taken out is logged.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from node.cojson.appeals import Appeals
from node.cojson.gatekeeper import Gatekeeper, Origin, Ruling
from node.cojson.judgment import Verified
from node.cojson.outputs import Output, Refused
from node.cojson.value_table import Phase, ValueEntry
from node.cojson.waiting_room import Delivery, WaitingRoom
from node.covalue.content import Content
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId
from node.covalue.store import ValueAppend

_MAX_REASONS = 3


class Admission:
    """The engine's way to its gatekeeper; without one everything is taken."""

    def __init__(self, access: Gatekeeper | None, room: WaitingRoom, appeals: Appeals) -> None:
        self._access = access
        self._room = room
        self._appeals = appeals

    def screen(
        self, delivery: Delivery, entry: ValueEntry, out: list[Output]
    ) -> tuple[Delivery, str | None]:
        """What is left of a delivery, judged by what it claims; and if nothing is, why."""
        if self._access is None:
            return delivery, None
        content, sender = delivery.content, delivery.sender
        is_asked = sender is not None and content.co_id in sender.asked
        ruling = self._access.screen(
            _origin(delivery),
            content.co_id,
            entry.header or content.header,
            content.new,
            is_new=entry.header is None,
            is_awaited=is_asked or self._room.is_awaited(content.co_id),
        )
        if ruling.value is None and ruling.sessions:
            _report(delivery, ruling, out)
            left = {key: part for key, part in content.new.items() if key not in ruling.sessions}
            until = content.expect_until
            if until is not None:
                # A refused session will not come.
                until = {key: count for key, count in until.items() if key not in ruling.sessions}
            delivery = replace(delivery, content=replace(content, new=left, expect_until=until))
        return delivery, ruling.value

    def is_unwelcome(
        self,
        origin: Origin | None,
        content: Content,
        entry: ValueEntry | None,
        session_id: CoSessionId,
    ) -> bool:
        """Whether this session of a content will be taken out of it, whatever signs it."""
        if self._access is None:
            return False
        header = None if entry is None else entry.header
        is_new = entry is not None and entry.phase is Phase.ABSENT
        return self._access.is_unwelcome(
            origin, content.co_id, header or content.header, session_id, is_new=is_new
        )

    def judge(
        self,
        delivery: Delivery,
        entry: ValueEntry,
        header: CoValueHeader,
        verified: Verified,
        out: list[Output],
    ) -> None:
        """Take out of `verified` what is refused; a refusal of the value takes out everything."""
        is_new = entry.header is None
        begins = is_new and (verified.keeps_header or not verified.refusals)
        has_parts = bool(verified.appends) or begins
        if self._access is None or not has_parts:
            return
        ruling = self._access.judge(_origin(delivery), header, verified.appends, is_new=is_new)
        if ruling.value is not None:
            verified.refusals.append(ruling.value)
            verified.keeps_header = False
            verified.logs.clear()
            verified.appends.clear()
            return
        if ruling.sessions:
            _report(delivery, ruling, out)
        for session_id, reason in ruling.sessions.items():
            verified.refusals.append(reason)
            verified.drop(session_id)
        supposed = [key for key in verified.appends if key in verified.supposed]
        if ruling.sessions and supposed:
            # What is refused may have given these their right: they are appeals till it is here.
            taken = ValueAppend(entry.co_id, header if is_new else None, verified.appends)
            self._access.not_stored(taken)
            checked = {key: verified.extensions[key] for key in supposed}
            self._appeals.add(delivery, verified.consulted, checked)
            for session_id in supposed:
                verified.refuse(session_id, "what gives its author the right to write is refused")
            verified.supposed = frozenset()
            self.judge(delivery, entry, header, verified, out)


def summary(reasons: Collection[str]) -> str:
    """A few reasons for the log, however many there are."""
    shown = list(reasons)[:_MAX_REASONS]
    more = f"; and {len(reasons) - len(shown)} more" if len(reasons) > len(shown) else ""
    return "; ".join(shown) + more


def _origin(delivery: Delivery) -> Origin | None:
    return None if delivery.sender is None else delivery.sender.origin


def _report(delivery: Delivery, ruling: Ruling, out: list[Output]) -> None:
    if delivery.sender is not None:
        delivery.sender.note_refused(delivery.content.co_id)
        reason = summary(ruling.sessions.values())
        out.append(Refused(delivery.sender.peer_id, delivery.content.co_id, reason))
