"""[trio] Since when a value has been here, and from whom it came: for people who ask.

Beside our data core, in the local rows:

| key            | MessagePack array                                                              |
|----------------|--------------------------------------------------------------------------------|
| `came:{coID}`  | first member, when, last member, when, start, stop: what members brought       |
| `time:{length}`| when the data core had that length, as 16 hexadecimal digits                   |

Of a value that members brought, too, they wrote nothing before block `start` of the data core and
nothing from `stop` on: that came by another way. Older rows end before these.

Times are unix seconds. A value is written at some length of the core, so the times before and after
bracket when. They are a minute apart at least, and rows are added only while something is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import trio

from hypercore.encoding import DecodeError
from hypercore.errors import StorageFailed
from node.covalue.ids import RawCoId
from node.mesh.fields import FieldReader, pack_fields

FLUSH_SECONDS = 5.0
"""How much a crash may lose of what was noted."""

TIME_SECONDS = 60.0

MAX_UNWRITTEN = 65_536
"""Values whose origin waits to be written; the origin of any beyond these is not kept."""

_AFTER_TIMES = b"time;"


class TimedLog(Protocol):
    """Our data core."""

    @property
    def length(self) -> int: ...
    @property
    def durable_length(self) -> int: ...
    def get_local_value(self, key: bytes, /) -> bytes | None: ...
    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None: ...
    def local_items(self, start: bytes, stop: bytes, /) -> Iterable[tuple[bytes, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """Which member brought a value first, and which one brought some of it last."""

    first_member: bytes
    first_unix: int
    last_member: bytes
    last_unix: int
    start: int = 0
    stop: int | None = None
    """The blocks of our data core in which all of that is; None is not known."""

    def was_first(self, block: int) -> bool:
        """Whether a member brought what is in this block, the first of the value."""
        return block >= self.start

    def was_last(self, block: int) -> bool:
        """Whether a member brought what is in this block, the last of the value."""
        return self.stop is None or block < self.stop

    def encode(self) -> bytes:
        return pack_fields(
            self.first_member,
            self.first_unix,
            self.last_member,
            self.last_unix,
            self.start,
            self.stop,
        )

    @classmethod
    def decode(cls, data: bytes | None) -> Arrival | None:
        """None where the row is missing or cannot be read."""
        if data is None:
            return None
        try:
            reader = FieldReader.unpack(data, 1024)
            arrival = cls(reader.data(32), reader.uint(), reader.data(32), reader.uint())
            if reader.remaining:
                arrival = replace(arrival, start=reader.uint(), stop=reader.optional_uint())
            return arrival
        except DecodeError:
            return None


class Provenance:
    """Collects in memory, and writes every few seconds: nobody waits for it."""

    def __init__(self, log: TimedLog) -> None:
        self._log = log
        self._unwritten: dict[RawCoId, Arrival] = {}
        self._timed_length = -1
        self._timed_at = float("-inf")

    @property
    def length(self) -> int:
        """How many blocks our data core has now."""
        return self._log.length

    def note(self, member_id: bytes, ids: Iterable[RawCoId], start: int) -> None:
        """These values, or some of them, came from a member since the core had `start` blocks."""
        now = int(time.time())
        for co_id in ids:
            if co_id in self._unwritten or len(self._unwritten) < MAX_UNWRITTEN:
                earlier = self.arrival(co_id) or Arrival(member_id, now, member_id, now, start)
                self._unwritten[co_id] = replace(
                    earlier, last_member=member_id, last_unix=now, stop=self.length
                )

    def arrival(self, co_id: RawCoId) -> Arrival | None:
        """Which members brought a value; None when no member did, or it was not noted."""
        unwritten = self._unwritten.get(co_id)
        if unwritten is not None:
            return unwritten
        return Arrival.decode(self._log.get_local_value(_arrival_key(co_id)))

    def time_of(self, index: int) -> tuple[int | None, int | None]:
        """Between which unix seconds a block of our data core was written; None is not known."""
        after: int | None = None
        for _, value in self._log.local_items(_time_key(index + 1), _AFTER_TIMES):
            after = _read_time(value)
            break
        return self._last_time(index + 1), after

    def _last_time(self, stop: int) -> int | None:
        """The time of the last row before that length; rows can only be read forward."""
        window = 1024
        while True:
            last: bytes | None = None
            for _, value in self._log.local_items(
                _time_key(max(0, stop - window)), _time_key(stop)
            ):
                last = value
            if last is not None:
                return _read_time(last)
            if window > stop:
                return None
            window *= 8

    async def run(self) -> None:
        """Write down what is noted and how long the core is, until cancelled.

        Cancel: what was noted last is forgotten.
        """
        while True:
            with suppress(StorageFailed):  # it is still noted
                await self.flush()
            await trio.sleep(FLUSH_SECONDS)

    async def flush(self) -> None:
        """Write down what is noted. Cancel: it is written, or still noted."""
        rows: dict[bytes, bytes | None] = {
            _arrival_key(co_id): arrival.encode() for co_id, arrival in self._unwritten.items()
        }
        length, now = self._log.durable_length, trio.current_time()
        is_timed = length != self._timed_length and now >= self._timed_at + TIME_SECONDS
        if is_timed:
            rows[_time_key(length)] = pack_fields(int(time.time()))
        if rows:
            written = dict(self._unwritten)
            await self._log.write_local(rows)
            for co_id, arrival in written.items():
                if self._unwritten.get(co_id) == arrival:
                    del self._unwritten[co_id]
        if is_timed:
            self._timed_length, self._timed_at = length, now


def has_times(log: TimedLog) -> bool:
    """Whether a node has run on this log; a start writes the time at once."""
    return any(True for _ in log.local_items(_time_key(0), _AFTER_TIMES))


def _arrival_key(co_id: RawCoId) -> bytes:
    return f"came:{co_id}".encode()


def _time_key(length: int) -> bytes:
    return f"time:{length:016x}".encode()


def _read_time(value: bytes) -> int | None:
    try:
        return FieldReader.unpack(value, 64).uint()
    except DecodeError:
        return None
