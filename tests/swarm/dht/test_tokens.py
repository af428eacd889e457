from __future__ import annotations

import random

from swarm.dht.tokens import ROTATION_SECONDS, TokenIssuer


def create_issuer(now: float = 100.0) -> TokenIssuer:
    return TokenIssuer(random.Random(1).randbytes, now)


def test_a_token_is_good_for_its_host_and_no_other() -> None:
    issuer = create_issuer()
    token = issuer.issue("192.0.2.1", 100.0)
    assert len(token) == 32
    assert issuer.is_valid(token, "192.0.2.1", 100.0)
    assert not issuer.is_valid(token, "192.0.2.2", 100.0)
    assert not create_issuer().is_valid(bytes(32), "192.0.2.1", 100.0)
    assert not TokenIssuer(random.Random(2).randbytes, 100.0).is_valid(token, "192.0.2.1", 100.0)


def test_a_token_lives_for_one_to_two_rotations() -> None:
    for age_of_key in (0.0, ROTATION_SECONDS / 2, ROTATION_SECONDS - 0.01):
        issuer = create_issuer()
        issued_at = 100.0 + age_of_key
        token = issuer.issue("192.0.2.1", issued_at)
        assert issuer.is_valid(token, "192.0.2.1", issued_at + ROTATION_SECONDS)
        assert not issuer.is_valid(token, "192.0.2.1", issued_at + 2 * ROTATION_SECONDS)


def test_a_token_does_not_survive_a_long_silence() -> None:
    issuer = create_issuer()
    token = issuer.issue("192.0.2.1", 100.0)
    assert not issuer.is_valid(token, "192.0.2.1", 10_000.0)
    fresh = issuer.issue("192.0.2.1", 10_000.0)
    assert fresh != token
    assert issuer.is_valid(fresh, "192.0.2.1", 10_000.0)
