"""What a peer is expected to take."""

from __future__ import annotations

from hypercore.replication.hotswap import MAX_SILENT_SECONDS, Speed
from hypercore.replication.inflight import Inflight


def test_a_machine_that_slept_does_not_give_its_peers_up_for_as_long() -> None:
    speed, inflight = Speed(), Inflight()
    speed.started(0.0)
    inflight.add(1, 0, False, None, 0, 0.0)
    assert speed.expected_seconds(inflight, 0, 10.0) == 10.0
    speed.lost(inflight, 3 * 3600.0)
    assert speed.expected_seconds(Inflight(), 0, 3 * 3600.0) == MAX_SILENT_SECONDS
    speed.answered(1, 3 * 3600.0)
    assert speed.expected_seconds(Inflight(), 0, 3 * 3600.0) < 1.0
