"""Feed the decoders of the table damaged messages, and a whole node as well.

    python -m tests.swarm.dht.fuzz_campaign --count 1000000

Each input begins as a valid message and is then cut, extended, overwritten or spliced with
another. A decoder returns a value, whose own encoding decodes to the same value again, or it
raises DecodeError; anything else is a bug and stops the campaign with the seed and the bytes. A
node takes every datagram, and must answer a ping after each thousand.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from hypercore.encoding import DecodeError
from swarm.announcement import Address
from swarm.blind_relay import Pair, Unpair
from swarm.dht.engine import DhtEngine
from swarm.dht.interface import Settings
from swarm.dht.messages import Internal, Request, decode_datagram
from swarm.dht.payloads import Announcement, LookupAnswer, MutablePut, MutableValue, PeerRecord
from swarm.dht.peer_messages import PeerHandshake, PeerHolepunch, PeerOffer, PunchRound
from swarm.dht.reachability import Role
from swarm.dht.requests import Via
from tests.support.dht_vectors import PEER_VECTORS, VECTORS

_EDGES = (0x00, 0x01, 0x7F, 0x80, 0xFC, 0xFD, 0xFE, 0xFF)


class Message(Protocol):
    """What a decoder makes."""

    def encode(self) -> bytes: ...


Decoder = Callable[[bytes], Message]


def of_peers(kind: str) -> list[bytes]:
    return [bytes.fromhex(text) for text in PEER_VECTORS[kind]]


def valid_messages() -> dict[str, tuple[Decoder, list[bytes]]]:
    """Every decoder, with what the originals would give it."""
    payloads = VECTORS["payloads"]
    announcements = [bytes.fromhex(each["encoded"]) for each in payloads["announcements"]]
    announcements.append(bytes.fromhex(payloads["refreshOnly"]))
    datagrams = [
        bytes.fromhex(each["datagram"]) for each in VECTORS["requests"] + VECTORS["responses"]
    ]
    records = [bytes.fromhex(each["record"]) for each in payloads["announcements"]]
    lookups = [bytes.fromhex(each["encoded"]) for each in payloads["lookups"]]
    puts = [bytes.fromhex(each["put"]) for each in payloads["mutables"]]
    values = [bytes.fromhex(each["response"]) for each in payloads["mutables"]]
    return {
        "datagram": (decode_datagram, datagrams),
        "peer record": (PeerRecord.decode, records),
        "lookup answer": (LookupAnswer.decode, lookups),
        "announcement": (Announcement.decode, announcements),
        "mutable value": (MutableValue.decode, values),
        "mutable put": (MutablePut.decode, puts),
        "handshake": (PeerHandshake.decode, of_peers("handshakes")),
        "hole punch": (PeerHolepunch.decode, of_peers("punches")),
        "offer": (PeerOffer.decode, of_peers("offers")),
        "punch round": (PunchRound.decode, of_peers("rounds")),
        "pair": (Pair.decode, [Pair(True, bytes(32), 2**31, 9).encode()]),
        "unpair": (Unpair.decode, [Unpair(bytes(range(32))).encode()]),
    }


def damage(messages: Sequence[bytes], chance: random.Random) -> bytes:
    """A valid message with one to four things wrong."""
    data = bytearray(chance.choice(messages))
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                del data[at:]
            case 1:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 2:
                data[at : at + 1] = bytes((chance.choice(_EDGES),))
            case 3:
                data[at : at + 1] = bytes((chance.randrange(256),))
            case 4:
                data[at:] = chance.choice(messages)[at:]
            case _:
                del data[at : at + chance.randrange(1, 9)]
    return bytes(data)


def check_decoder(decode: Decoder, data: bytes) -> bool:
    """Whether it decodes; raises when the decoder does what it must not."""
    try:
        message = decode(data)
    except DecodeError:
        return False
    if decode(message.encode()) != message:
        raise AssertionError("the message is another one when it is written and read again")
    return True


def fuzz_decoder(name: str, count: int, seed: int) -> None:
    decode, messages = valid_messages()[name]
    chance = random.Random(seed)
    started = time.monotonic()
    decoded = 0
    for _ in range(count):
        data = damage(messages, chance)
        try:
            decoded += check_decoder(decode, data)
        except Exception:
            print(f"{name}, seed {seed}: {data.hex()}", file=sys.stderr)  # noqa: T201
            raise
    seconds = time.monotonic() - started
    print(f"{name}: {count} inputs, {decoded} decoded, {seconds:.0f} s")  # noqa: T201


def fuzz_node(count: int, seed: int) -> None:
    """Everything into one member, from ever other addresses, as time goes by."""
    _, messages = valid_messages()["datagram"]
    chance = random.Random(seed)
    here: Address = ("203.0.113.5", 4000)
    settings = Settings(4000, role=Role.PERSISTENT, is_open=True, public_address=here)
    engine = DhtEngine(settings, chance.randbytes, 0.0, 1_800_000_000_000)
    engine.start(0.0)
    ping = Request(7, here, Internal.PING, True).encode()
    now = 0.0
    for number in range(1, count + 1):
        now += 0.001
        source = (f"192.0.{chance.randrange(4)}.{chance.randrange(256)}", chance.randrange(65536))
        data = damage(messages, chance)
        try:
            engine.receive(data, source, chance.choice((Via.SERVER, Via.CLIENT)), now)
            if now >= engine.deadline:
                engine.advance(now)
            if number % 1000 == 0:
                (_,) = engine.receive(ping, ("127.0.0.1", 9), Via.SERVER, now)
        except Exception:
            print(f"node, seed {seed}, datagram {number}: {data.hex()}", file=sys.stderr)  # noqa: T201
            raise
    statistics = engine.statistics
    print(  # noqa: T201
        f"node: {count} datagrams, {statistics.malformed} malformed, {statistics.answered} "
        f"answered, {statistics.ignored} ignored, {statistics.refused_by_allowance} beyond the "
        f"allowance, {statistics.nodes} nodes believed in"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")  # noqa: T201
    for name in valid_messages():
        fuzz_decoder(name, arguments.count, arguments.seed)
    fuzz_node(arguments.count, arguments.seed)


if __name__ == "__main__":
    main()
