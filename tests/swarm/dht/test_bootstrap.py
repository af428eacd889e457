from __future__ import annotations

import pytest

from swarm.dht.bootstrap import PUBLIC_BOOTSTRAP, BootstrapNode, parse_bootstrap


def test_the_forms_of_a_bootstrap_node() -> None:
    ready = BootstrapNode("192.0.2.1", 5, ("192.0.2.1", 5))
    assert parse_bootstrap("192.0.2.1:5") == parse_bootstrap(("192.0.2.1", 5)) == ready
    assert parse_bootstrap("example.org:5") == BootstrapNode("example.org", 5, None)
    both = BootstrapNode("example.org", 5, ("192.0.2.1", 5))
    assert parse_bootstrap("192.0.2.1@example.org:5") == both


def test_the_public_ones_have_an_address_and_a_name() -> None:
    for text in PUBLIC_BOOTSTRAP:
        node = parse_bootstrap(text)
        assert node.address is not None
        assert node.name.endswith("hyperdht.org")


@pytest.mark.parametrize(
    "node",
    ["", "example.org", "example.org:", ":5", "example.org:0", "example.org:65536", "a@b:5",
     "192.0.2.1@:5", "example.org:-1", "example.org:x", ("192.0.2.1", 0)],
)  # fmt: skip
def test_anything_else_is_refused(node: str | tuple[str, int]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_bootstrap(node)
