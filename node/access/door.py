"""Which clients may connect, and from where: tokens, and addresses behind trusted proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from node.access.tokens import Tokens, presented_token
from node.cojson.gatekeeper import Origin

MAX_HOPS = 16
"""Addresses read of `X-Forwarded-For`, from its end, where the proxies nearest to us write."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Door:
    """Asked when a client wants to upgrade to a WebSocket.

    If there are no tokens, none is asked for; but with `needs_token` nobody is let in then, which
    is what an emptied file means.
    """

    def __init__(
        self, tokens: Tokens, proxies: Sequence[str] = (), *, needs_token: bool = False
    ) -> None:
        """Raises: ValueError for a proxy that is neither an address nor a network."""
        self.refused = 0
        self._tokens = tokens
        self._needs_token = needs_token or bool(tokens)
        self._proxies = [ipaddress.ip_network(text, strict=False) for text in proxies]

    @property
    def needs_token(self) -> bool:
        return self._needs_token

    @property
    def is_shut(self) -> bool:
        """Whether a token is needed and there is none."""
        return self._needs_token and not self._tokens

    def admit(self, peer: str, path: str, forwarded_for: Sequence[str]) -> Origin | None:
        """A client at `peer` asks for this path; None when it may not come in."""
        name: str | None = ""
        if self._needs_token:
            name = self._tokens.name_of(presented_token(path))
        if name is None:
            self.refused += 1
            return None
        return Origin(self._client_address(peer, forwarded_for), name)

    def is_proxy(self, address: str) -> bool:
        """Whether what this address says about others is believed."""
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._proxies)

    def replace_tokens(self, tokens: Tokens) -> frozenset[str]:
        """These count from now on; returns the names of tokens that no longer do."""
        old, self._tokens = self._tokens, tokens
        return frozenset(name for name in old.names if not old.is_same(name, tokens))

    def _client_address(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """The nearest address that is no trusted proxy: what lies behind it, anybody may write."""
        address = peer
        if not self._proxies or not self.is_proxy(peer):
            return address
        hops = [hop for line in forwarded_for for hop in line.split(",")]
        for hop in reversed(hops[-MAX_HOPS:]):
            parsed = _parse(_without_port(hop.strip()))
            if parsed is None:
                break
            address = str(parsed)
            if not self.is_proxy(address):
                break
        return address


def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _without_port(hop: str) -> str:
    """Some proxies write `203.0.113.5:1234` or `[2001:db8::1]:1234`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, colon, port = hop.rpartition(":")
    return host if colon and ":" not in host and port.isdecimal() else hop
