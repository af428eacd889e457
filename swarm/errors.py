"""What can go wrong between two peers, told by whose fault it is.

SwarmError
  HandshakeFailed    no connection came about: wrong keys, garbage, silence, or a hang-up
  MalformedPacket    the remote broke the rules of an open connection: it ends
  OutboxOverflow     the remote reads more slowly than it makes us write: its connection ends
  PeerUnreachable    nobody answers at an address, or to a key
  CannotPunch        the NATs of both ends let nothing through; a blind relay may help
  DhtError           the nodes of the table did not store what they were to store
"""

from __future__ import annotations

from collections.abc import Sequence


class SwarmError(Exception):
    """Base of everything this package raises on purpose."""


class HandshakeFailed(SwarmError):
    """The two ends did not agree on keys; nothing was said yet."""


class MalformedPacket(SwarmError):
    """Bytes from the remote that break the protocol. Its connection ends with this."""


class OutboxOverflow(SwarmError):
    """More control messages wait for a remote than it has any right to leave unread."""

    def __init__(self, waiting_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"{waiting_bytes} bytes wait for a remote that does not read, at most {limit_bytes}"
        )
        self.waiting_bytes = waiting_bytes
        self.limit_bytes = limit_bytes


class PeerUnreachable(SwarmError):
    """None of a peer's addresses answered."""

    def __init__(self, address: str, attempts: int, *, is_refused: bool = False) -> None:
        answer = "refused" if is_refused else "did not answer"
        super().__init__(f"{address} {answer} ({attempts} attempt{'s'[: attempts != 1]})")
        self.address = address
        self.attempts = attempts
        self.is_refused = is_refused
        """Whether a machine at every address says that nobody listens there."""


class CannotPunch(SwarmError):
    """The peer was found, but there is no way to it but through a blind relay."""


class DhtError(SwarmError):
    """No node of the table took what was to be stored."""

    def __init__(self, refusals: Sequence[int], silent: int) -> None:
        self.refusals = tuple(refusals)
        """Error codes of those that refused; see `swarm.dht.messages.ErrorCode`."""
        self.silent = silent
        """How many did not answer."""
        codes = ", ".join(map(str, sorted(set(self.refusals)))) or "none"
        super().__init__(
            f"stored nowhere: {len(self.refusals)} nodes refused (errors: {codes}), "
            f"{silent} did not answer"
        )

    @property
    def code(self) -> int | None:
        """The error that most of the refusing nodes gave; None when none refused."""
        return max(set(self.refusals), key=self.refusals.count, default=None)
