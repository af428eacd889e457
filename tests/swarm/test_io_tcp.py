from __future__ import annotations

import socket

import pytest

from swarm import PeerUnreachable
from swarm.io.tcp import dial, open_listeners, remote_address

LOOPBACK = "127.0.0.1"


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind((LOOPBACK, 0))
        port: int = unused.getsockname()[1]
    return port


async def test_the_first_address_that_answers_is_taken() -> None:
    (listener,) = await open_listeners(LOOPBACK, 0)
    async with listener:
        port = listener.socket.getsockname()[1]
        async with await dial([(LOOPBACK, closed_port()), (LOOPBACK, port)]) as stream:
            assert remote_address(stream) == f"{LOOPBACK}:{port}"


@pytest.mark.parametrize(
    ("hosts", "is_refused"),
    [
        ([LOOPBACK], True),
        (["localhost", LOOPBACK], True),
        (["nowhere.invalid"], False),
        ([LOOPBACK, "nowhere.invalid"], False),
        (["no..name"], False),
        (["x" * 64], False),
    ],
)
async def test_a_refusal_is_told_from_silence(hosts: list[str], is_refused: bool) -> None:
    port = closed_port()
    with pytest.raises(PeerUnreachable) as caught:
        await dial([(host, port) for host in hosts])
    assert caught.value.is_refused == is_refused
    assert caught.value.attempts == len(hosts)
