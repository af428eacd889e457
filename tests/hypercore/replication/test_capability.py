from __future__ import annotations

import json
from pathlib import Path

import pytest

from hypercore.replication.capability import is_capable, replicate_capability

KEYS = json.loads((Path(__file__).parents[2] / "vectors" / "hypercore" / "keys.json").read_text())


@pytest.mark.parametrize("is_initiator", [True, False])
def test_capabilities_are_those_of_javascript(is_initiator: bool) -> None:
    vector = KEYS[f"capability{str(is_initiator).lower()}"]
    key, handshake_hash = bytes.fromhex(vector["key"]), bytes.fromhex(vector["handshakeHash"])
    capability = replicate_capability(
        is_initiator=is_initiator, key=key, handshake_hash=handshake_hash
    )
    assert capability.hex() == vector["hex"]
    assert is_capable(capability, is_initiator=is_initiator, key=key, handshake_hash=handshake_hash)
    assert not is_capable(
        capability, is_initiator=not is_initiator, key=key, handshake_hash=handshake_hash
    )
