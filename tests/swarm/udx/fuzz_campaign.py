"""Throw packets of all kinds at the decoder and at streams.

`python -m tests.swarm.udx.fuzz_campaign --packets 1000000 --streams 2000 [--seed 1]`: every
datagram is a packet or a DecodeError; every packet of a stranger who knows id and numbers leaves
its stream in one of its states and within its bounds.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections import Counter
from contextlib import redirect_stdout
from random import Random

from hypercore.encoding import DecodeError
from swarm.udx.outputs import Closed
from swarm.udx.packet import DESTROY, decode_packet
from swarm.udx.receiver import WINDOW_BYTES
from swarm.udx.stream import State
from tests.support.lossy_link import Conditions
from tests.support.udx_pair import UdxPair
from tests.support.udx_stranger import hostile_datagram

_PACKETS_PER_STREAM = 300
_BYTES = bytes(range(256)) * 400


def attack(rng: Random, counts: Counter[str]) -> None:
    """One transfer, with a stranger who knows the sender's id and numbers."""
    pair = UdxPair(Conditions(delay=0.02, loss=0.01), seed=rng.randrange(2**32))
    pair.left.to_send = _BYTES
    stream = pair.left.machine
    for _ in range(_PACKETS_PER_STREAM):
        datagram = hostile_datagram(rng, 1, 0, rng.randrange(100))
        try:
            packet = decode_packet(datagram)
        except DecodeError as error:
            assert 0 <= error.offset <= len(datagram), error  # noqa: PT017 (not every one raises)
            counts["malformed"] += 1
            continue
        counts["packets"] += 1
        if packet.stream_id != 1 or (packet.flags & DESTROY and rng.random() < 0.99):
            continue
        outputs = stream.receive([packet], pair.now)
        pair.carry_out(0, outputs)
        assert stream.statistics().buffered_bytes <= 4 * WINDOW_BYTES
        for output in outputs:
            if isinstance(output, Closed):
                counts[f"ended: {output.reason.name}"] += 1
        if stream.state is not State.CONNECTED:
            return
        pair.run_for(rng.random() / 100)
    counts["survived"] += 1


def decode(rng: Random, count: int, counts: Counter[str]) -> None:
    for _ in range(count):
        datagram = hostile_datagram(rng, 1, rng.randrange(2**32), rng.randrange(2**32))
        try:
            decode_packet(datagram)
            counts["packets"] += 1
        except DecodeError as error:
            assert 0 <= error.offset <= len(datagram), error  # noqa: PT017 (not every one raises)
            counts["malformed"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.swarm.udx.fuzz_campaign")
    parser.add_argument("--packets", type=int, default=1_000_000, help="for the decoder")
    parser.add_argument("--streams", type=int, default=2000, help="under attack")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    decoded: Counter[str] = Counter()
    decode(Random(options.seed), options.packets, decoded)
    sys.stdout.write(f"decoder: {dict(decoded)}\n")
    attacked: Counter[str] = Counter()
    for number in range(options.streams):
        with redirect_stdout(io.StringIO()):  # every link tells its seed
            attack(Random(options.seed + number), attacked)
        if (number + 1) * 10 % options.streams < 10:
            sys.stdout.write(f"{number + 1} streams: {dict(attacked)}\n")


if __name__ == "__main__":
    main()
