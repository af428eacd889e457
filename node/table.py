"""[trio] The distributed hash table that nodes are found through, and what is remembered of it.

The nodes of the table and the members that were met are kept in the data directory, so that the
next start asks those first, and needs no bootstrap node.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import trio

from node.config import Config
from node.private_file import write_private
from swarm.announcement import Address
from swarm.dht.bootstrap import PUBLIC_BOOTSTRAP, parse_bootstrap
from swarm.io.hyperdht import HyperDht, open_hyperdht

MAX_NODES = 64
MAX_PEERS = 256

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an earlier run left: nodes of the table, and keys with the nodes that led to them."""

    nodes: tuple[Address, ...] = ()
    peers: Mapping[bytes, tuple[Address, ...]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Replace the file: it tells whom we meet. A crash leaves the old one. Raises: OSError."""
        document = {
            "nodes": [_format(address) for address in self.nodes[:MAX_NODES]],
            "peers": {
                key.hex(): list(map(_format, relays))
                for key, relays in list(self.peers.items())[-MAX_PEERS:]
            },
        }
        write_private(path, json.dumps(document, indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> Remembered:
        """Nothing when the file is missing or makes no sense: it is only a help."""
        try:
            document = json.loads(path.read_text())
            nodes = _parse(document["nodes"][:MAX_NODES])
            peers = {bytes.fromhex(key): _parse(each) for key, each in document["peers"].items()}
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("what was remembered of the DHT is not used", error=str(error))
            return cls()
        return cls(nodes, {key: relays for key, relays in peers.items() if len(key) == 32})


@asynccontextmanager
async def open_table(config: Config) -> AsyncIterator[tuple[HyperDht, Remembered] | None]:
    """Take part in the table until the body ends, if that is wanted; then save what was learned.

    Nobody waits for it: a node starts as fast without a network as with one.

    Cancel: what was learned is written all the same.
    """
    if "dht" not in config.discovery:
        yield None
        return
    remembered = await trio.to_thread.run_sync(Remembered.load, config.table_path)
    async with open_hyperdht(
        bootstrap=config.bootstrap or PUBLIC_BOOTSTRAP,
        host=_ipv4_or_any(config.mesh.host),
        port=config.mesh.port,
        nodes=remembered.nodes,
    ) as hyperdht:
        try:
            yield hyperdht, remembered
        finally:
            nodes = hyperdht.dht.nodes or remembered.nodes
            learned = Remembered(nodes, {**remembered.peers, **hyperdht.relays_of_peers})
            try:
                learned.save(config.table_path)
            except OSError as error:
                _log.warning("what was learned of the DHT is not kept", error=str(error))


def _ipv4_or_any(host: str) -> str:
    """Where --mesh listens, unless that is a name or IPv6, which the table does not know."""
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        return "0.0.0.0"


def _format(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _parse(texts: Sequence[str]) -> tuple[Address, ...]:
    """Raises: ValueError."""
    addresses = [parse_bootstrap(text).address for text in texts]
    return tuple(address for address in addresses if address is not None)
