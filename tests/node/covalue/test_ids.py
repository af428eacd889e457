from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.cojson.base58 import base58_encode
from node.covalue.ids import (
    CoSessionId,
    agent_public_key,
    is_account_id,
    is_co_id,
    is_delete_session,
    parse_co_id,
    parse_session_id,
    parse_session_ids,
    session_owner,
)
from tests.support.authors import Author
from tests.support.cojson_vectors import vectors

ANN = Author("ann")


@given(st.binary(min_size=19, max_size=19))
def test_nineteen_bytes_are_an_id(digest: bytes) -> None:
    text = "co_z" + base58_encode(digest)
    assert parse_co_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "co_z",
        "co_zX",
        "co_z" + "1" * 18,
        "co_z" + "1" * 20,
        "co_z" + base58_encode(b"\xff" * 20),
        "CO_z" + base58_encode(b"\x01" * 19),
        "co_z" + base58_encode(b"\x01" * 19) + "\n",
        "co_z0" + base58_encode(b"\x01" * 18),
        "x" * 1_000_000,
    ],
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert not is_co_id(text)
    with pytest.raises(DecodeError):
        parse_co_id(text)


def test_sessions_of_agents_and_accounts() -> None:
    agent = vectors()["agent"]["agentID"]
    for session_id in (ANN.session_id(), ANN.session_id(as_agent=True)):
        assert parse_session_id(session_id) == session_id
        assert not is_delete_session(session_id)
    assert session_owner(ANN.session_id()) == ANN.account_id
    assert is_account_id(session_owner(ANN.session_id()))
    active = parse_session_id(vectors()["sessionIDs"]["agentActive"])
    assert session_owner(active) == agent
    assert not is_account_id(agent)
    deleting = parse_session_id(vectors()["sessionIDs"]["agentDelete"])
    assert is_delete_session(deleting)


@pytest.mark.parametrize("end", ["$", "_session_z1$", "_session_d1", ":_session_z1", "_session_z"])
def test_other_texts_are_no_sessions(end: str) -> None:
    with pytest.raises(DecodeError):
        parse_session_id(ANN.account_id + end)
    with pytest.raises(DecodeError):
        parse_session_id("y" * 1_000_000)


_TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from([ANN.session_id(), ANN.session_id(as_agent=True)]),
    st.builds("\n".join, st.lists(st.just(ANN.session_id()), max_size=3)),
)


@given(st.sets(_TEXTS), st.sampled_from([0, 64, 1000]))
def test_many_sessions_are_checked_as_each_is(texts: set[str], good: int) -> None:
    texts |= {f"{ANN.account_id}_session_z{base58_encode(n.to_bytes(8))}" for n in range(good)}
    try:
        expected = [parse_session_id(text) for text in texts]
    except DecodeError:
        with pytest.raises(DecodeError):
            parse_session_ids(texts)
    else:
        assert list(parse_session_ids(texts)) == expected


@given(st.text())
def test_any_text_is_a_session_or_refused(text: str) -> None:
    try:
        parse_session_id(text)
    except DecodeError:
        return
    assert ":" not in text


def test_the_signing_key_of_an_agent() -> None:
    assert len(agent_public_key(ANN.agent_id)) == 32
    for text in ("", "signer_z1", ANN.agent_id + "1", ANN.agent_id.replace("signer", "sealer")):
        with pytest.raises(DecodeError):
            agent_public_key(text)


def test_half_a_delete_session_is_none() -> None:
    assert not is_delete_session(CoSessionId("co_zA_session_zB$"))
    assert not is_delete_session(CoSessionId("co_zA_session_dB"))
