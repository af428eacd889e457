"""The `hyperbee` extension: telling peers what is read, and being told which blocks that takes.

A reader that has to wait sends what it looks for to all peers. A peer that has that version walks
the same way through its own blocks (it never waits) and answers with their seqs, which the reader
then fetches all at once: a few round trips instead of one per level of the tree.

On the wire a payload has its length before it (the `buffer` of compact encoding).

**One round trip.** The best peer is asked to push the blocks themselves: its hint then says so, and
names the blocks that follow by themselves. Until those are late nobody is asked for them. A get
asks for the least that leads to its key (*narrow*), and waits for what the answer names. A peer
that knows nothing of that (JavaScript) answers with a hint as usual, and one that announced blocks
and did not send them is not asked for pushes again.

Answers are bounded, and hints are only believed as far as they were asked for (`Hints`).

Source: hyperbee 2.27.3 lib/extension.js.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from weakref import WeakSet

from bee.extension_messages import (
    CacheHint,
    DiffRequest,
    ExtensionMessage,
    GetRequest,
    IteratorRequest,
    KeysRequest,
    Request,
    decode_extension,
    is_hint,
    narrow_number,
)
from bee.hints import MAX_HINTS_PER_REQUEST
from bee.keyspace import KeyRange
from bee.log import LogPeer
from bee.question import Question
from bee.tree import Tree
from bee.visited_blocks import MAX_KEYS, TURN_EFFORT, Visit
from hypercore.encoding import DecodeError, Reader, encode_buffer

NAME = "hyperbee"

MAX_SEQS_PER_MESSAGE = 128

MAX_NOTED_BYTES = 2048
"""Of a hint that is taken at once, with the blocks beside it; ours are shorter."""

MAX_ASKED = 16
"""Keys of one question that are asked for by name where hints come back; more bring little."""

LATEST = 0
MAX_VERSION = 2**53


class HyperbeeExtension:
    """Asks and answers for one bee."""

    __slots__ = ("_pushers", "_tree")

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._pushers: WeakSet[LogPeer] = WeakSet()
        tree.log.set_extension(NAME, self.receive, self.note)

    def ask_keys(self, version: int, keys: Sequence[bytes], lacking: int) -> Question | None:
        """`lacking` is the first seq on the way to them that is not here.

        Returns the question, if one is asked whose answer will name what comes.
        """
        plain = [GetRequest(version, key) for key in keys[:MAX_ASKED]]
        if len(keys) == 1:
            return self._send(plain[0], plain, lacking)
        return self._send(KeysRequest(version, tuple(keys[:MAX_KEYS])), plain, lacking)

    def ask_range(self, version: int, key_range: KeyRange, lacking: int) -> Question | None:
        """As `ask_keys`, for all of a range."""
        request = _range_request(version, key_range)
        return self._send(request, [request], lacking)

    def ask_diff(self, version: int, other: int, key_range: KeyRange, lacking: int) -> None:
        """As `ask_range`, for what differs between two versions; peers that only hint ignore it."""
        self._send(DiffRequest(other, _range_request(version, key_range)), [], lacking)

    async def update_for(self, key: bytes) -> Question:
        """Wait for the newest version that peers have, and have them send what `key` takes.

        Returns the question that asked for it. Cancel: blocks may still come.
        """
        question = self._tree.hints.question()
        request = GetRequest(LATEST, key, push_from=1, number=question.number)
        payload = encode_buffer(request.encode())
        self._tree.hints.expect()
        with self._tree.log.greeting(NAME, payload, MAX_HINTS_PER_REQUEST):
            await self._tree.log.update()
        return question

    def push_ranges(self, peer: LogPeer, ranges: Iterable[tuple[bytes, bytes]]) -> int:
        """Send a peer the blocks that reading [start, stop) takes; returns how many.

        The peer must have asked by other means, so that it takes them.
        """
        tree = self._tree
        tree.current_fork()
        seqs: dict[int, None] = {}
        for start, stop in ranges:
            request = IteratorRequest(tree.log.length, gte=start, lt=stop, push_from=1, number=1)
            visit = Visit(tree.reader, request)
            while visit.advance():
                pass
            seqs.update(visit.seqs)
        pushed = peer.push_blocks(seqs)
        for payload in _hints(pushed, is_pushed=True):
            peer.send_extension(NAME, payload)
        return len(pushed)

    def expect_pushes(self, peer: LogPeer) -> bool:
        """The peer is asked by other means: take what it pushes, and its hints.

        False, and nothing is taken, when it did not keep its word before.
        """
        if not peer.keeps_word:
            return False
        peer.allow_pushes(MAX_HINTS_PER_REQUEST)
        self._tree.hints.expect()
        return True

    def _send(
        self, whole: Request, plain: Sequence[GetRequest | IteratorRequest], lacking: int
    ) -> Question | None:
        """Ask the best peer to push, and the others for hints unless it is known to push.

        `plain` is what says the same, or part of it, to peers that only hint.
        """
        peers = self._tree.log.peers
        if not peers:
            return None
        question = None
        best = min(peers, key=lambda peer: self._rank(peer, whole.version))
        is_known = best in self._pushers
        sent = 0
        for peer in (best,) if is_known else peers:
            requests: list[Request] = list(plain)
            if peer is best and peer.keeps_word:
                peer.allow_pushes(MAX_HINTS_PER_REQUEST)
                is_enough = is_known or whole in plain
                pushing = replace(whole, push_from=lacking + 1)
                has_all = peer.contiguous_length >= whole.version
                if has_all and not isinstance(pushing, DiffRequest):
                    question = self._tree.hints.question(peer)
                    pushing = replace(pushing, number=question.number)
                    if is_known:
                        question.expect(lacking)
                requests = [pushing] if is_enough else [pushing, *plain]
            for request in requests:
                peer.send_extension(NAME, encode_buffer(request.encode()))
            sent += len(requests)
        if sent:
            self._tree.hints.expect(sent)
        return question

    def _rank(self, peer: LogPeer, version: int) -> tuple[int, bool, bool, float]:
        """The less the better: the best surely has all, keeps its word, can push, and is near."""
        lacks = (peer.contiguous_length < version) + (peer.length < version)
        return (
            lacks,
            not peer.keeps_word,
            peer not in self._pushers,
            peer.round_trip_seconds,
        )

    def note(self, payload: bytes, peer: LogPeer) -> bool:
        """Take a hint that says what is pushed, before a read finds that the blocks came."""
        is_short = len(payload) <= MAX_NOTED_BYTES  # all that comes is looked at without a pause
        hint = _decode(payload) if is_short and is_hint(payload) else None
        if not isinstance(hint, CacheHint) or not hint.pushed or not peer.keeps_word:
            return False
        hints, length = self._tree.hints, self._tree.log.length
        fresh = hints.add(hint.seqs, MAX_VERSION, is_pushed=True)
        self._pushers.add(peer)
        peer.expect_announced([seq for seq in fresh if seq < length])
        hints.answer(hint.answers, fresh, peer)
        return True

    async def receive(self, payload: bytes, peer: LogPeer) -> Sequence[bytes]:
        """A payload came from a peer; returns the payloads to answer with.

        What is not a message, or cannot be answered, is ignored, as in the original.
        """
        tree = self._tree
        message = _decode(payload)
        if message is None:
            return ()
        if isinstance(message, CacheHint):
            fresh = tree.hints.add(message.seqs, tree.log.length)
            tree.log.prefetch([seq for seq in fresh if tree.log.get_local(seq) is None])
            return ()
        if isinstance(message, GetRequest) and message.version == LATEST and message.push_from:
            message = replace(message, version=tree.log.length)
        if not 1 < message.version <= tree.log.length:
            return ()
        tree.current_fork()
        visit, fork = Visit(tree.reader, message), tree.log.fork
        while visit.advance():
            tree.effort += TURN_EFFORT
            await tree.pause()
            if tree.log.fork != fork:  # what was found is gone
                return ()
        seqs = list(visit.seqs)
        if not message.push_from:
            return _hints(seqs, is_pushed=False)
        pushed = _push(peer, seqs, message)
        number = narrow_number(message)
        if not number:
            return _hints(pushed, is_pushed=True)
        way = set(seqs[: visit.way])
        count = sum(seq in way for seq in pushed) or len(pushed)
        rest = pushed[count:]
        return [
            *_hints(pushed[:count], is_pushed=True, number=number),
            *(_hints(rest, is_pushed=True) if rest else ()),
        ]


def _decode(payload: bytes) -> ExtensionMessage | None:
    """The message in a payload, if it is one."""
    try:
        messages = decode_extension(Reader(payload).buffer())
    except DecodeError:
        return None
    return messages[0] if messages else None


def _hints(seqs: Sequence[int], *, is_pushed: bool, number: int = 0) -> list[bytes]:
    """Payloads that name these seqs; at least one where blocks are pushed, to say that we push."""
    starts = range(0, max(len(seqs), is_pushed), MAX_SEQS_PER_MESSAGE)
    parts = [tuple(seqs[start : start + MAX_SEQS_PER_MESSAGE]) for start in starts]
    hints = [CacheHint(part, is_pushed) for part in parts]
    if number:
        hints[-1] = replace(hints[-1], answers=number)
    return [encode_buffer(hint.encode()) for hint in hints]


def _range_request(version: int, key_range: KeyRange) -> IteratorRequest:
    lower, lower_in = key_range.lower, key_range.includes_lower
    upper, upper_in = key_range.upper, key_range.includes_upper
    return IteratorRequest(
        version,
        gte=lower if lower_in else None,
        gt=None if lower_in else lower,
        lte=upper if upper_in else None,
        lt=None if upper_in else upper,
        limit=key_range.limit or 0,
        reverse=key_range.reverse,
    )


def _push(peer: LogPeer, seqs: Sequence[int], request: Request) -> Sequence[int]:
    """Push the blocks from the first lacking one on, or all if that is not on the way.

    Narrow: all, or the lacking one where nothing of that is left to send.
    """
    first = request.push_from - 1
    if narrow_number(request):
        return peer.push_blocks(seqs) or peer.push_blocks((first,))
    return peer.push_blocks(seqs[seqs.index(first) :] if first in seqs else seqs)
