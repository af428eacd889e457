from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError, Reader, encode_uint
from swarm.dht.messages import (
    MAX_CLOSER_NODES,
    Internal,
    Request,
    Response,
    decode_address,
    decode_datagram,
    encode_address,
    encode_addresses,
    is_dht_datagram,
    node_id,
)
from tests.support.dht_vectors import VECTORS, parse_address, parse_addresses, parse_bytes

ports = st.integers(0, 65535)
hosts = st.ip_addresses(v=4).map(str)
addresses = st.tuples(hosts, ports)
optional_32 = st.none() | st.binary(min_size=32, max_size=32)
optional_value = st.none() | st.binary(max_size=300)
uints = st.integers(0, 2**32)

requests = st.builds(
    Request, ports, addresses, uints, st.booleans(), optional_32, optional_32, optional_32,
    optional_value,
)  # fmt: skip
responses = st.builds(
    Response, ports, addresses, optional_32, optional_32,
    st.lists(addresses, max_size=MAX_CLOSER_NODES).map(tuple), uints, optional_value,
)  # fmt: skip


def named(vectors: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])


@named(VECTORS["requests"])
def test_requests_are_those_of_the_original(vector: dict[str, Any]) -> None:
    request = Request(
        vector["transaction"],
        parse_address(vector["to"]),
        vector["command"],
        vector["internal"],
        parse_bytes(vector["id"]),
        parse_bytes(vector["token"]),
        parse_bytes(vector["target"]),
        parse_bytes(vector["value"]),
    )
    assert request.encode().hex() == vector["datagram"]
    assert decode_datagram(request.encode()) == request


@named(VECTORS["responses"])
def test_responses_are_those_of_the_original(vector: dict[str, Any]) -> None:
    response = Response(
        vector["transaction"],
        parse_address(vector["to"]),
        parse_bytes(vector["id"]),
        parse_bytes(vector["token"]),
        parse_addresses(vector["closer"]),
        vector["error"],
        parse_bytes(vector["value"]),
    )
    assert response.encode().hex() == vector["datagram"]
    assert decode_datagram(response.encode()) == response


def test_the_worked_example() -> None:
    ping = Request(258, ("127.0.0.1", 49737), Internal.PING, True)
    assert ping.encode() == bytes.fromhex("03 04 02 01 7f 00 00 01 49 c2 00")


@pytest.mark.parametrize("vector", VECTORS["nodeIds"])
def test_ids_are_hashes_of_addresses(vector: dict[str, str]) -> None:
    assert node_id(parse_address(vector["address"])).hex() == vector["id"]


@given(requests)
def test_any_request_survives_the_wire(request: Request) -> None:
    assert decode_datagram(request.encode()) == request


@given(responses)
def test_any_response_survives_the_wire(response: Response) -> None:
    assert decode_datagram(response.encode()) == response
    assert is_dht_datagram(response.encode())


@given(requests | responses, st.data())
def test_a_datagram_cut_anywhere_is_refused(
    message: Request | Response, data: st.DataObject
) -> None:
    encoded = message.encode()
    size = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(DecodeError):
        decode_datagram(encoded[:size])


@given(requests | responses, st.binary(max_size=40))
def test_bytes_after_the_end_are_ignored(message: Request | Response, tail: bytes) -> None:
    assert decode_datagram(message.encode() + tail) == message


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for datagram in (data, b"\x03" + data, b"\x13" + data):
        try:
            message = decode_datagram(datagram)
        except DecodeError:
            continue
        assert decode_datagram(message.encode()) == message


def test_a_list_of_closer_nodes_is_read_no_further_than_it_counts() -> None:
    nodes = tuple(("192.0.2.1", port) for port in range(1, 400))
    plain = Response(1, ("192.0.2.9", 9)).encode()
    datagram = plain[:1] + b"\x04" + plain[2:] + encode_addresses(nodes)
    decoded = decode_datagram(datagram)
    assert isinstance(decoded, Response)
    assert decoded.closer_nodes == nodes[:MAX_CLOSER_NODES]


def test_a_list_that_claims_to_be_endless_ends_with_the_datagram() -> None:
    plain = Response(1, ("192.0.2.9", 9)).encode()
    datagram = plain[:1] + b"\x04" + plain[2:] + encode_uint(2**50)
    with pytest.raises(DecodeError):
        decode_datagram(datagram)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"\x03", b"\xff\x01" + bytes(18), b"\x23" + bytes(30), b"\x13" + bytes(2**14)],
)
def test_probes_and_udx_are_somebody_elses(data: bytes) -> None:
    assert not is_dht_datagram(data)


@given(addresses)
def test_addresses_survive_the_wire(address: tuple[str, int]) -> None:
    assert decode_address(Reader(encode_address(address))) == address


@pytest.mark.parametrize(
    "host", ["", "localhost", "1.2.3", "1.2.3.4.5", "1.2.3.256", "::1", "1.2.3.-4"]
)
def test_a_host_must_be_an_ipv4_address(host: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        encode_address((host, 1))
