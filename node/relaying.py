"""[trio] Being a blind relay for other nodes, up to so many bytes a day.

What passes is sealed, and the relay does not know whose it is. Its key is derived from the node's,
so that it stays the same, but differs from it, so that the relay is not taken for a member.
"""

from __future__ import annotations

from functools import partial

import structlog
import trio

from hypercore.crypto import KeyPair, blake2b, encode_id
from node.web.status import RelayStatus
from swarm.io.hyperdht import HyperDht
from swarm.io.relay_server import MAX_MESSAGE_BYTES, BlindRelay

DAY_SECONDS = 86400.0

_log = structlog.get_logger(__name__)


def relay_key_pair(identity: KeyPair) -> KeyPair:
    """The key pair of the relay that this node is."""
    return KeyPair.from_seed(blake2b(b"beemesh blind relay", key=identity.secret_key[:32]))


class RelayService:
    """The relay of a node; `run` serves it."""

    def __init__(self, identity: KeyPair, bytes_per_day: int) -> None:
        self._key_pair = relay_key_pair(identity)
        self._relay = BlindRelay(bytes_per_day)

    def status(self) -> RelayStatus:
        statistics = self._relay.statistics()
        return RelayStatus(
            key=encode_id(self._key_pair.public_key),
            links=statistics.links,
            links_opened=statistics.links_opened,
            refused=statistics.refused,
            bytes_left=max(statistics.bytes_left, 0),
        )

    async def run(self, hyperdht: HyperDht) -> None:
        """Serve until cancelled, and begin to count anew each day."""
        relay = self._relay
        _log.info("relaying", key=encode_id(self._key_pair.public_key))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(
                    hyperdht.serve,
                    self._key_pair,
                    relay.handle,
                    firewall=relay.lets_in,
                    max_message_bytes=MAX_MESSAGE_BYTES,
                )
            )
            while True:
                await trio.sleep(DAY_SECONDS)
                relay.refill()
