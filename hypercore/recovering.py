"""[trio] The end of a recovery: going on with a log whose newest head may have been lost.

A store that lost a part of its write-ahead log, or was salvaged, does not know what its writers
signed last. What they append then would be a second history of the same length, which freezes
the log everywhere. So such a log is marked in the store, and takes nothing from its writer, until
peers that replicate it know nothing newer.

Source: hypercore 11.39.5 lib/session-state.js (waitForRecovery, validateRecoveryPeers). There every
append waits for that, however long; here it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import trio

from hypercore.log import Head
from hypercore.open_log import OpenLog
from hypercore.replication.peer_handle import PeerHandle

SETTLE_SECONDS = 8.0
"""For how long no peer may know more; as in JavaScript."""


@dataclass(frozen=True, slots=True)
class UnprovenClaim:
    """What keeps a recovery waiting: a peer has not said how far it is, or has not proven it.

    `claimed` and `shown` are fork and length, None for nothing.
    """

    public_key: bytes
    claimed: tuple[int, int] | None
    shown: tuple[int, int] | None

    def __str__(self) -> str:
        peer = self.public_key.hex()
        if self.claimed is None:
            return f"{peer} has not said how far it is"
        shown = "nothing" if self.shown is None else _about(*self.shown)
        return f"{peer} claims {_about(*self.claimed)}, and has shown {shown}"


async def recover_log(
    shared: OpenLog, witnesses: Collection[bytes] | None, settle_seconds: float
) -> None:
    """As `Core.recover`."""
    replication, log = shared.replication, shared.log
    with replication.expecting_head(keeps_channels=True):
        while log.is_recovering:
            if (frozen := log.frozen_error) is not None:
                raise frozen
            head = log.head
            with trio.move_on_after(settle_seconds) as settling:
                while log.head is head and _is_newest(head, replication.peers, witnesses):
                    await replication.activity.park()
                    shared.check_open()
            if settling.cancelled_caught:
                log.end_recovering()
                await shared.wait_durable()
            elif log.head is head:  # somebody knows more, or nobody is here
                await replication.activity.park()
                shared.check_open()


def _is_newest(
    head: Head, peers: Collection[PeerHandle], witnesses: Collection[bytes] | None
) -> bool:
    """Whether there are peers whose word counts, and none of them knows a newer head."""
    is_heard = any(True for _ in _heard(peers, witnesses))
    return is_heard and not unproven_claims(head, peers, witnesses)


def unproven_claims(
    head: Head, peers: Collection[PeerHandle], witnesses: Collection[bytes] | None
) -> tuple[UnprovenClaim, ...]:
    """One for each peer whose word counts, unless it knows nothing newer than this head."""
    return tuple(
        UnprovenClaim(
            peer.remote_public_key,
            (peer.fork, peer.length) if peer.is_synced else None,
            peer.shown,
        )
        for peer in _heard(peers, witnesses)
        if not peer.is_synced or (peer.fork, peer.length) > (head.fork, head.length)
    )


def _heard(
    peers: Collection[PeerHandle], witnesses: Collection[bytes] | None
) -> Iterator[PeerHandle]:
    return (peer for peer in peers if witnesses is None or peer.remote_public_key in witnesses)


def _about(fork: int, length: int) -> str:
    return f"{length:,} blocks" + (f" of fork {fork}" if fork else "")
