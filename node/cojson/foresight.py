"""The signatures that content will be judged by, found when it comes.

Checking them is a third of the work of an upload, and needs nothing but a key, a hash and the
signature itself: another process can do it before the content is judged (`signature_checks.py`).
So each session's part is hashed onto the log that it seems to continue, in memory or in the
messages before it. Where the log turns out to be another (it was stored, and is read meanwhile;
what came before was refused) the part is judged as if nothing had been foreseen: `Extension.fits`.
What the gatekeeper will not let in, however it is signed, is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hypercore.encoding import DecodeError
from node.cojson.admission import Admission
from node.cojson.gatekeeper import Origin
from node.cojson.judgment import signer_key
from node.cojson.messages import Message
from node.cojson.value_table import ValueEntry, ValueTable
from node.covalue.content import Content, SessionContent
from node.covalue.ids import CoSessionId, RawCoId, is_account_id, session_owner
from node.covalue.session_log import Extension, SessionLog

Extensions = Mapping[CoSessionId, Extension]
"""The parts of one content message, as far as they could be foreseen."""

Check = tuple[Extension, bytes]
"""Whose signature is to be checked, and against which key."""

PARTS = 64
"""Parts of a message looked at in a turn."""

_EMPTY = SessionLog()


class Foresight:
    """Looks at content messages in the order in which they came, all of one sender."""

    def __init__(
        self, values: ValueTable, admission: Admission, origin: Origin | None = None
    ) -> None:
        """`origin` is that of a client; None for a member of the mesh."""
        self._values = values
        self._admission = admission
        self._origin = origin
        self._logs: dict[tuple[RawCoId, CoSessionId], SessionLog] = {}
        """Where earlier messages seem to leave each session; not verified."""
        self._keys: dict[RawCoId, bytes | None] = {}
        """Keys of accounts, as their headers say, also of those that came just now."""
        self.extensions: list[Extensions] = []
        """One for each message."""
        self.checks: list[Check] = []
        self.checks_within = [0]
        """At index n, how many checks the first n messages need."""

    def look_at(self, message: Message) -> None:
        """The next message: a third of the work of judging it, if it is content."""
        for _ in self.steps(message):
            pass

    def steps(self, message: Message) -> Iterator[None]:
        """As `look_at`, and to be iterated to its end: yields after every few parts."""
        found: dict[CoSessionId, Extension] = {}
        if isinstance(message, Content):
            yield from self._look_at_parts(message, found)
        self.extensions.append(found)
        self.checks_within.append(len(self.checks))

    def _look_at_parts(
        self, content: Content, found: dict[CoSessionId, Extension]
    ) -> Iterator[None]:
        entry = self._values.peek(content.co_id)
        if content.header is not None:
            self._keys[content.co_id] = content.header.account_public_key
        for number, (session_id, part) in enumerate(content.new.items(), 1):
            if number % PARTS == 0:
                yield
            if self._admission.is_unwelcome(self._origin, content, entry, session_id):
                continue
            extension = self._foresee(content.co_id, entry, session_id, part)
            if extension is not None:
                found[session_id] = extension

    def _foresee(
        self,
        co_id: RawCoId,
        entry: ValueEntry | None,
        session_id: CoSessionId,
        part: SessionContent,
    ) -> Extension | None:
        log = self._logs.get((co_id, session_id))
        if log is None:
            log = _EMPTY if entry is None else entry.logs.get(session_id, _EMPTY)
        after, transactions, signature = part
        if log.count != after or not transactions or not log.is_hashed:
            return None
        key = log.public_key or self._author_key(session_id)
        if key is None:
            return None
        try:
            extension = log.extension(transactions, signature)
        except UnicodeEncodeError:
            return None
        self._logs[co_id, session_id] = SessionLog(
            part.stop, running=extension.running, public_key=key
        )
        self.checks.append((extension, key))
        return extension

    def _author_key(self, session_id: CoSessionId) -> bytes | None:
        owner = RawCoId(session_owner(session_id))
        if owner not in self._keys and is_account_id(owner):
            entry = self._values.peek(owner)
            header = None if entry is None else entry.header
            self._keys[owner] = None if header is None else header.account_public_key
        try:
            return signer_key(session_id, self._keys)
        except DecodeError:
            return None
