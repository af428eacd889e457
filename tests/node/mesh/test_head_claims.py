"""What members say of our own log."""

from __future__ import annotations

from dataclasses import dataclass

from node.mesh.head_claims import HeadClaims
from node.mesh.run_messages import Doubt, Head

RUN = bytes(16)


@dataclass(frozen=True, slots=True, eq=False)
class Connected:
    """A member, once for each connection."""

    id: bytes


def length(fork: int, length: int) -> Head:
    return Head(RUN, fork, length)


NO_DOUBT = Head(RUN, 0, 0, Doubt.NONE)


def test_a_member_has_spoken_when_both_of_its_words_came() -> None:
    first, second = Connected(b"1"), Connected(b"2")
    claims = HeadClaims(frozenset([b"1", b"2"]))
    claims.hear(first, length(0, 5))
    claims.hear(first, length(0, 6))
    assert (claims.silent, claims.is_confirmed) == (2, False)
    claims.hear(first, NO_DOUBT)
    claims.hear(second, NO_DOUBT)
    assert (claims.silent, claims.is_confirmed) == (1, False)
    claims.hear(second, length(0, 4))
    assert (claims.silent, claims.is_confirmed) == (0, True)


def test_words_on_two_connections_are_no_word() -> None:
    claims = HeadClaims(frozenset([b"1"]))
    claims.hear(Connected(b"1"), length(0, 5))
    claims.hear(Connected(b"1"), NO_DOUBT)
    assert claims.silent == 1


def test_a_later_fork_is_beyond_a_longer_log() -> None:
    member, other = Connected(b"1"), Connected(b"2")
    claims = HeadClaims(frozenset())
    assert not claims
    assert claims.greatest_length() == 0
    claims.hear(member, length(1, 3))
    claims.hear(other, length(0, 9))
    assert claims.beyond(0, 9) == claims.of_later_forks(0) == [(member, length(1, 3))]
    assert claims.beyond(1, 3) == claims.of_later_forks(1) == []
    assert claims.greatest_length() == 9
    claims.drop(member)
    assert claims.all() == [(other, length(0, 9))]


def test_of_those_that_went_the_greatest_claim_is_kept() -> None:
    members = [Connected(bytes([number])) for number in range(3)]
    claims = HeadClaims(frozenset())
    for member, head in zip(members, (length(0, 5), length(1, 2), length(0, 9)), strict=True):
        claims.hear(member, head)
        claims.forget(member)
    assert claims.all() == [(members[1], length(1, 2))]
