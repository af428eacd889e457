from __future__ import annotations

import pytest

from swarm.site import site_of


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("2001:db8:0:7::1", "2001:db8:0:7::/64"),
        ("[2001:db8:0:7:ffff::1]", "2001:db8:0:7::/64"),
        ("2001:db8:0:8::1", "2001:db8:0:8::/64"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fd00::1:2]", "fd00::1:2"),
        ("example.org", "example.org"),
        ("", ""),
    ],
)
def test_an_address_of_ipv6_stands_for_its_network_unless_that_is_private(
    host: str, site: str
) -> None:
    assert site_of(host) == site
