from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.cojson.crypto import (
    RunningHash,
    decode_signature,
    encode_signature,
    hash_text,
    verify_session,
)
from node.covalue.ids import agent_public_key
from tests.support.authors import Author


@given(st.binary(min_size=64, max_size=64))
def test_signatures_read_back(signature: bytes) -> None:
    assert decode_signature(encode_signature(signature)) == signature


@given(st.text() | st.text("123ABCxyz", max_size=120).map(lambda text: "signature_z" + text))
def test_any_text_is_a_signature_or_refused(text: str) -> None:
    try:
        assert len(decode_signature(text)) == 64
    except DecodeError:
        return


def test_a_signature_is_bound_to_hash_and_key() -> None:
    ann, bob = Author("ann"), Author("bob")
    signature = ann.sign([])
    assert verify_session(RunningHash(), signature, agent_public_key(ann.agent_id))
    assert not verify_session(RunningHash(), signature, agent_public_key(bob.agent_id))
    assert not verify_session(RunningHash(b"x"), signature, agent_public_key(ann.agent_id))
    assert not verify_session(RunningHash(), bytes(64), agent_public_key(ann.agent_id))
    assert hash_text(RunningHash()).startswith("hash_z")
