"""What waits to be said to one member, until its connection can carry more.

Nothing is encoded before then: what has changed again meanwhile is said once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Protocol

from hypercore.replication.channel import Take
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import merge_counts
from node.mesh.acknowledgements import Acknowledgements
from node.mesh.hearsay import Hearsay
from node.mesh.hearsay_messages import briefs
from node.mesh.messages import MAX_UPDATE_VALUES, Evidence, EvidenceKind, Listed, Sessions
from node.mesh.outputs import Output, Transmit
from node.mesh.session import MeshSession
from node.mesh.trust_messages import Records
from swarm.io.tasks import Wakeup

MAX_PENDING_UPDATES = 100_000
"""Values that may wait to be announced to a slow member (about 20 MB), merged by value."""

_UPDATE_VALUE_BYTES = 128  # about what one value takes in an update


class PulledChannel(Protocol):
    """What is needed of a `MessageChannel`."""

    def set_source(self, take: Take) -> None: ...
    def wake_source(self) -> None: ...


class MemberOutbox:
    """Acknowledgements go first, then answers, updates, what is said in brief, at last testimony.

    What admins signed goes along with all of these: a listing may take minutes, in which the member
    would let in one that was shut out.
    """

    def __init__(
        self,
        channel: PulledChannel,
        session: MeshSession,
        acknowledgements: Acknowledgements,
        hearsay: Hearsay,
        may_read: Callable[[], bool],
    ) -> None:
        """`may_read`: whether the member is told of values at all."""
        self.updates_sent = 0
        self.values_told = 0
        """The member may reply that it holds these now, or that it does not know them."""
        self.room = Wakeup()
        """Some of the updates were sent."""
        self.answer_taken = Wakeup()
        """Some of the answer that waited was sent."""
        self._channel = channel
        self._session = session
        self._acknowledgements = acknowledgements
        self._hearsay = hearsay
        self._may_read = may_read
        self._answer: deque[tuple[int, bytes]] = deque()
        self._updates: dict[RawCoId, dict[CoSessionId, int]] = {}
        self._listed: Listed | None = None
        self._records: deque[Records] = deque()
        self._testimony: deque[Evidence] = deque()

    def serve(self, durable_length: Callable[[], int], announce: Callable[[], None]) -> None:
        """From now on let the connection pull what waits.

        The member reads in our log what updates tell: `announce` tells it how long the log is.
        """

        def take(max_bytes: int) -> list[tuple[int, bytes]]:
            # Read after the changes: this version has at least what they say.
            version = durable_length()
            messages = self._take_acknowledgements(version) + self._take_records()
            messages += self._take_answer()
            if updates := self._take_updates(version, max_bytes):
                announce()
                messages += updates
            messages += self._take_brief(version)
            if listed := self._take_listed():
                announce()
                messages += listed
            return messages or self._take_testimony()

        self._channel.set_source(take)

    @property
    def is_answering(self) -> bool:
        """Whether an answer waits for the connection."""
        return bool(self._answer)

    def queue_answer(self, outputs: Sequence[Output]) -> None:
        """Send this part of an answer when the connection can take it."""
        self._answer.extend(_encoded(outputs))
        self._channel.wake_source()

    @property
    def updates(self) -> int:
        """Values that wait to be announced to it."""
        return len(self._updates)

    def queue_update(self, changes: Mapping[RawCoId, Sessions]) -> bool:
        """Announce these when the connection can take it; False when far too many wait."""
        if not self._may_read():
            return True
        for co_id, sessions in self._session.selection.pick(changes):
            if self._acknowledgements.lacks(co_id, sessions):
                merge_counts(self._updates.setdefault(co_id, {}), sessions)
        if self._updates:
            self._channel.wake_source()
        return len(self._updates) <= MAX_PENDING_UPDATES

    def queue_listed(self, listed: Listed) -> None:
        """Tell it that what waits now is the last of what it follows."""
        if self._may_read():
            self._listed = listed
            self._channel.wake_source()

    def queue_brief(self, changes: Mapping[RawCoId, Sessions], due_at: float) -> bool:
        """Tell it of these by then, in brief: it hears of them from others; as `queue_update`."""
        if not self._may_read():
            return True
        picked = self._session.selection.pick(changes)
        return self.queue_update(
            {
                co_id: sessions
                for co_id, sessions in picked
                if not self._hearsay.add(co_id, sessions, due_at)
            }
        )

    def tell_in_brief(self) -> None:
        """Say now what was queued in brief, as far as the member has not said it itself."""
        if self._hearsay.release(self._acknowledgements.lacks):
            self._channel.wake_source()

    def queue_evidence(self, pieces: Sequence[Evidence]) -> None:
        """Tell it of these when the connection has nothing else to carry.

        One that may not read is told of cores only: evidence of a session shows what is in it.
        """
        may_read = self._may_read()
        self._testimony.extend(
            piece for piece in pieces if may_read or piece.kind is EvidenceKind.CORE
        )
        if self._testimony:
            self._channel.wake_source()

    def queue_records(self, messages: Iterable[Records]) -> None:
        """Tell it of these, one with whatever the connection carries next."""
        self._records.extend(messages)
        self._channel.wake_source()

    def _take_acknowledgements(self, version: int) -> list[tuple[int, bytes]]:
        if not self._acknowledgements.is_owing:
            return []
        merged, values = self._acknowledgements.take(MAX_UPDATE_VALUES)
        return _encoded(self._session.acknowledge(version, merged, values))

    def _take_records(self) -> list[tuple[int, bytes]]:
        return _encoded(self._session.tell(self._records.popleft())) if self._records else []

    def _take_answer(self) -> list[tuple[int, bytes]]:
        if not self._answer:
            return []
        self.answer_taken.set()
        return [self._answer.popleft()]

    def _take_updates(self, version: int, max_bytes: int) -> list[tuple[int, bytes]]:
        most = max(1, min(max_bytes // _UPDATE_VALUE_BYTES, MAX_UPDATE_VALUES))
        while self._updates:
            changes = {
                co_id: self._updates.pop(co_id) for co_id in list(islice(self._updates, most))
            }
            outputs = self._session.announce(version, changes)
            if outputs:  # else the member lost interest meanwhile
                for co_id, sessions in self._session.selection.pick(changes):
                    self._acknowledgements.told(co_id, sessions)
                self.updates_sent += len(outputs)
                self.values_told += len(changes)
                self.room.set()
                return _encoded(outputs)
        return []

    def _take_brief(self, version: int) -> list[tuple[int, bytes]]:
        ready = self._hearsay.take()
        self.values_told += len(ready)
        told = briefs(version, ready)
        return [message for brief in told for message in _encoded(self._session.mention(brief))]

    def _take_listed(self) -> list[tuple[int, bytes]]:
        if self._listed is None or self._updates:
            return []
        listed, self._listed = self._listed, None
        return _encoded(self._session.tell_listed(listed))

    def _take_testimony(self) -> list[tuple[int, bytes]]:
        if not self._testimony:
            return []
        return _encoded(self._session.testify(self._testimony.popleft()))


def _encoded(outputs: Sequence[Output]) -> list[tuple[int, bytes]]:
    return [(item.type, item.payload) for item in outputs if isinstance(item, Transmit)]
