"""Tokens: a node that sends one back has shown that it receives at its address.

A token is the keyed hash of the asker's host. Two keys are good at any time; the newer one signs.
They change every ROTATION_SECONDS, so a token lives for one to two of these.

Source: dht-rpc 6.27.0 lib/io.js token, _drain. Our keys are drawn anew where the original hashes
the old one, and rotate with the clock where the original's rotate with use.
"""

from __future__ import annotations

from hmac import compare_digest

from hypercore.crypto import Entropy, blake2b
from swarm.dht.messages import TOKEN_BYTES

ROTATION_SECONDS = 7.5


class TokenIssuer:
    """Gives tokens out and recognizes them."""

    def __init__(self, entropy: Entropy, now: float) -> None:
        self._entropy = entropy
        self._keys = (entropy(TOKEN_BYTES), entropy(TOKEN_BYTES))
        self._rotate_at = now + ROTATION_SECONDS

    def issue(self, host: str, now: float) -> bytes:
        """A token for nodes that ask from this host, with any port."""
        self._rotate(now)
        return blake2b(host.encode(), key=self._keys[0])

    def is_valid(self, token: bytes, host: str, now: float) -> bool:
        """Whether `issue` gave this token to this host lately."""
        self._rotate(now)
        text = host.encode()
        # Both are compared, in constant time: how long it takes tells nothing about a key.
        matches = [compare_digest(token, blake2b(text, key=key)) for key in self._keys]
        return any(matches)

    def _rotate(self, now: float) -> None:
        if now < self._rotate_at:
            return
        is_long_ago = now >= self._rotate_at + ROTATION_SECONDS
        previous = self._entropy(TOKEN_BYTES) if is_long_ago else self._keys[0]
        self._keys = (self._entropy(TOKEN_BYTES), previous)
        self._rotate_at = now + ROTATION_SECONDS
