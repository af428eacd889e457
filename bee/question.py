"""What a peer was asked; its answer says what it sends."""

from __future__ import annotations

from collections.abc import Sequence

from bee.log import LogPeer, WaitScope

NO_SEQ = -1


class Question:
    """A question whose answer names what comes, `seqs`: perhaps only what was sent before.

    `peer` was asked, or all peers if it is None.
    """

    __slots__ = (
        "__weakref__",
        "_scope",
        "expected",
        "is_answered",
        "number",
        "patience_seconds",
        "peer",
        "seqs",
    )

    def __init__(self, number: int, peer: LogPeer | None) -> None:
        self.number = number
        self.peer = peer
        self.is_answered = False
        self.seqs: Sequence[int] = ()
        self.patience_seconds = 0.0
        """How long to wait for them at most."""

        self.expected = NO_SEQ
        """The block that is not requested of the peer while its answer is awaited."""

        self._scope: WaitScope | None = None

    def expect(self, seq: int) -> None:
        """Until there is an answer this block is expected of the peer."""
        if self.peer is not None:
            self.peer.expect_blocks((seq,))
            self.expected = seq

    def begin(self, scope: WaitScope) -> WaitScope:
        """What is expected is waited for in that scope, which the answer ends."""
        self._scope = scope
        if self.is_answered:
            scope.cancel()
        return scope

    def end(self) -> None:
        """Nothing is expected any more."""
        if self.peer is not None and self.expected != NO_SEQ:
            self.peer.expect_blocks((), instead_of=(self.expected,))
        self.expected = NO_SEQ

    def answer(self, seqs: Sequence[int], peer: LogPeer) -> None:
        """The peer sends these."""
        self.is_answered = True
        self.seqs = seqs
        self.patience_seconds = peer.push_patience_seconds
        if self._scope is not None:
            self._scope.cancel()
