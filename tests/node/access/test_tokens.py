from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.access.door import Door
from node.access.tokens import MAX_TOKEN_CHARACTERS, MAX_TOKENS, Tokens, presented_token
from node.cojson.gatekeeper import Origin

printable = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40)


def test_names_and_places() -> None:
    tokens = Tokens(["phone:aaa", "bbb", "ci:c:c"])
    assert tokens.names == ["phone", "#2", "ci"]
    assert [tokens.name_of(text) for text in ("aaa", "bbb", "c:c", "", "phone:aaa", "aa")] == [
        *("phone", "#2", "ci"),
        *(None, None, None),
    ]
    assert "aaa" not in repr(tokens)
    assert not Tokens()


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        (["a:secret", "a:secret2"], "two tokens are named 'a'"),
        (["a b:secret"], "token 1 has a name"),
        (["ok:secret", "x:"], "token 2 is empty"),
        (["secret" * MAX_TOKEN_CHARACTERS], "longer than"),
        ([f"secret{n}" for n in range(MAX_TOKENS + 1)], "at most"),
    ],
)
def test_bad_tokens_are_told_without_showing_them(entries: list[str], match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        Tokens(entries)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "token"),
    [
        ("/?token=abc", "abc"),
        ("/?key=me@example.com", "me@example.com"),
        ("/?key=me+jazz@example.com", "me+jazz@example.com"),
        ("/?key=a%2Bb%26c", "a+b&c"),
        ("/any/path?x=1&key=k&token=t", "t"),
        ("/?token=first&token=second", "first"),
        ("/?token=", ""),
        ("/?Token=x", ""),
        ("/token=x", ""),
        ("/", ""),
        ("/?" + "&".join(["x=1"] * 40) + "&token=late", ""),
        ("/?token=" + "x" * 600, ""),
        ("/?token=%ff", "\ufffd"),
    ],
)
def test_where_a_token_is_looked_for(path: str, token: str) -> None:
    assert presented_token(path) == token


@given(printable)
def test_any_printable_token_comes_through_a_url(token: str) -> None:
    tokens = Tokens([f"n:{token}"])
    assert tokens.name_of(presented_token(f"/?token={quote(token, safe='')}")) == "n"


@given(printable, st.text(max_size=40))
def test_no_other_text_is_the_token(token: str, other: str) -> None:
    assert (Tokens([f"n:{token}"]).name_of(other) is not None) == (other == token)


def test_the_door_asks_only_if_there_are_tokens() -> None:
    assert Door(Tokens()).admit("192.0.2.1", "/", []) == Origin("192.0.2.1", "")
    door = Door(Tokens(["a:secret"]))
    assert door.admit("192.0.2.1", "/", []) is None
    assert door.admit("192.0.2.1", "/?token=wrong", []) is None
    assert door.admit("192.0.2.1", "/?key=secret", []) == Origin("192.0.2.1", "a")
    assert door.refused == 2
    # An emptied file lets nobody in.
    assert Door(Tokens(), needs_token=True).admit("192.0.2.1", "/?token=", []) is None


def test_tokens_are_withdrawn_by_name_and_by_text() -> None:
    door = Door(Tokens(["a:1", "b:2", "c:3"]))
    assert door.replace_tokens(Tokens(["a:1", "b:other", "d:4"])) == {"b", "c"}
    assert door.admit("x", "/?token=2", []) is None
    assert door.admit("x", "/?token=4", []) == Origin("x", "d")
    assert door.replace_tokens(Tokens()) == {"a", "b", "d"}
    assert door.admit("x", "/", []) is None


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("192.0.2.9", ["203.0.113.5"], "192.0.2.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("127.0.0.1", ["198.51.100.1, 203.0.113.5"], "203.0.113.5"),
        ("127.0.0.1", ["203.0.113.5, 10.1.2.3"], "203.0.113.5"),
        ("127.0.0.1", ["198.51.100.1", "203.0.113.5, 10.1.2.3"], "203.0.113.5"),
        ("127.0.0.1", ["10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", ["203.0.113.5, nonsense"], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.5:4711"], "203.0.113.5"),
        ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("127.0.0.1", ["::ffff:203.0.113.5"], "203.0.113.5"),
        ("::ffff:127.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", [", ".join(["10.0.0.1"] * 100)], "10.0.0.1"),
    ],
)
def test_addresses_behind_trusted_proxies(
    peer: str, forwarded_for: list[str], address: str
) -> None:
    door = Door(Tokens(), ["127.0.0.1", "10.0.0.0/8"])
    assert door.admit(peer, "/", forwarded_for) == Origin(address)


@given(st.lists(st.text(max_size=50), max_size=3))
def test_any_header_gives_some_address(forwarded_for: list[str]) -> None:
    assert Door(Tokens(), ["127.0.0.1"]).admit("127.0.0.1", "/", forwarded_for) is not None
