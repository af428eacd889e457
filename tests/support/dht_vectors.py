"""What the JavaScript originals send and sign, from tests/vectors/swarm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swarm.announcement import Address

_FOLDER = Path(__file__).parents[1] / "vectors/swarm"
VECTORS: dict[str, Any] = json.loads((_FOLDER / "dht.json").read_text())
PEER_VECTORS: dict[str, Any] = json.loads((_FOLDER / "peers.json").read_text())


def parse_address(text: str) -> Address:
    host, port = text.split(":")
    return host, int(port)


def parse_addresses(texts: list[str]) -> tuple[Address, ...]:
    return tuple(map(parse_address, texts))


def parse_bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)
