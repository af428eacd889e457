"""How many bytes strangers may make us send, since a source address is easily faked.

Every answer longer than its request is taken from an allowance of the host that asked, and from one
for all hosts together. Faking a victim's address yields what a phone line carries, from each node;
honest lookups of one household stay far below. Hosts of private networks are not limited.

Answers that are a little longer come from the host's allowance alone. With the headers around both
they have at most 2.7 times the bytes of their request; and whoever does not answer pings is taken
for dead, so that some 200 requests a second under faked addresses would take a node out of the
network.

| request               | bytes | answer, at most | factor |
|-----------------------|------:|----------------:|-------:|
| PING                  |    11 |              42 |    3.8 |
| PING_NAT              |    14 |              42 |    3.0 |
| DELAYED_PING          |    16 |              42 |    2.6 |
| DOWN_HINT             |    18 |              42 |    2.3 |
| FIND_NODE             |    43 |             163 |    3.8 |
| FIND_PEER             |    43 |             247 |    5.7 |
| LOOKUP                |    43 |            1228 |   28.6 |
| MUTABLE_GET           |    45 |            1274 |   28.3 |
| IMMUTABLE_GET         |    43 |            1198 |   27.9 |
| anything with a target|    43 |             164 |    3.8 |

(`tests/swarm/dht/test_amplification.py` measures this table. The originals have the same factors
and no allowance.)
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from swarm.dht.hosts import Scope, scope_of

HOST_BURST_BYTES = 32_768
HOST_BYTES_PER_SECOND = 4_096
TOTAL_BURST_BYTES = 4_194_304
TOTAL_BYTES_PER_SECOND = 262_144
LITTLE_BYTES = 128
"""So much longer than its request, an answer is not counted with those to all hosts."""

_REMEMBERED = 4096


@dataclass(slots=True)
class _Bucket:
    left: float
    filled_at: float

    def fill(self, now: float, per_second: float, capacity: float) -> None:
        self.left = min(capacity, self.left + (now - self.filled_at) * per_second)
        self.filled_at = now


class Allowance:
    """Says of each answer whether it may go out."""

    def __init__(self, now: float) -> None:
        self._total = _Bucket(TOTAL_BURST_BYTES, now)
        self._hosts: OrderedDict[str, _Bucket] = OrderedDict()
        self.refused = 0

    def admit(self, host: str, request_bytes: int, answer_bytes: int, now: float) -> bool:
        """Take an answer from the allowance; False when there is not enough left."""
        excess = answer_bytes - request_bytes
        if excess <= 0 or scope_of(host) is Scope.PRIVATE:
            return True
        bucket = self._hosts.pop(host, None) or _Bucket(HOST_BURST_BYTES, now)
        self._hosts[host] = bucket
        if len(self._hosts) > _REMEMBERED:
            self._hosts.popitem(last=False)
        bucket.fill(now, HOST_BYTES_PER_SECOND, HOST_BURST_BYTES)
        self._total.fill(now, TOTAL_BYTES_PER_SECOND, TOTAL_BURST_BYTES)
        of_all = 0 if excess <= LITTLE_BYTES else excess
        if excess > bucket.left or of_all > self._total.left:
            self.refused += 1
            return False
        bucket.left -= excess
        self._total.left -= of_all
        return True
