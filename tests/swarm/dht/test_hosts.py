from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.dht.hosts import Scope, first_public, is_usable, may_refer, party_of, scope_of

PUBLIC = ("192.0.2.1", 4000)
OTHER_PUBLIC = ("198.51.100.1", 4000)
PRIVATE = ("192.168.1.7", 4000)


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("0.0.0.0", Scope.NOWHERE),
        ("224.0.0.251", Scope.NOWHERE),
        ("255.255.255.255", Scope.NOWHERE),
        ("127.0.0.1", Scope.PRIVATE),
        ("10.255.0.1", Scope.PRIVATE),
        ("172.16.0.1", Scope.PRIVATE),
        ("172.32.0.1", Scope.PUBLIC),
        ("169.254.1.1", Scope.PRIVATE),
        ("192.168.255.1", Scope.PRIVATE),
        ("192.169.0.1", Scope.PUBLIC),
        ("100.64.0.1", Scope.PRIVATE),
        ("100.128.0.1", Scope.PUBLIC),
        ("88.99.3.86", Scope.PUBLIC),
    ],
)
def test_scopes(host: str, scope: Scope) -> None:
    assert scope_of(host) is scope


@given(st.ip_addresses(v=4))
def test_whatever_the_world_routes_is_public(address: ipaddress.IPv4Address) -> None:
    if address.is_global and not address.is_multicast:
        assert scope_of(str(address)) is Scope.PUBLIC


def test_a_party_is_a_network_of_256_and_private_hosts_are_none() -> None:
    assert party_of("192.0.2.1") == party_of("192.0.2.254") != party_of("192.0.3.1")
    assert party_of("192.168.1.7") is None


def test_where_no_node_can_be() -> None:
    assert is_usable(PUBLIC)
    assert is_usable(PRIVATE)
    for address in (("192.0.2.1", 0), ("0.0.0.0", 1), ("224.0.0.1", 1), ("150.136.142.116", 49737)):
        assert not is_usable(address)
    assert not is_usable(("134.209.28.98", 49738))
    assert is_usable(("134.209.28.98", 49737))


def test_strangers_cannot_send_us_into_our_own_network() -> None:
    assert may_refer(PUBLIC, OTHER_PUBLIC)
    assert not may_refer(PUBLIC, PRIVATE)
    assert may_refer(PRIVATE, PRIVATE)
    assert may_refer(PRIVATE, PUBLIC)
    assert not may_refer(PRIVATE, ("192.168.1.8", 0))


def test_the_first_public_address_is_one_to_connect_to() -> None:
    """Found in review: a server that named port 0 ended the node that connected to it."""
    assert first_public([PRIVATE, (PUBLIC[0], 0), OTHER_PUBLIC]) == OTHER_PUBLIC
    assert first_public([PRIVATE, (PUBLIC[0], 0), ("224.0.0.251", 5353)]) is None
