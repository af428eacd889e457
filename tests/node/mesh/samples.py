"""Ids, sessions and messages for the tests of the mesh, fixed and random."""

from __future__ import annotations

import hashlib

from hypothesis import strategies as st

from hypercore.crypto import KeyPair
from node.cojson.base58 import base58_encode
from node.covalue.ids import CoSessionId, RawCoId
from node.mesh.authorship import Authorship
from node.mesh.hearsay_messages import Brief, Neighbors, Unclear
from node.mesh.messages import (
    Answer,
    Evidence,
    EvidenceKind,
    Hello,
    Interest,
    Listed,
    Query,
    Stored,
    Update,
    Welcome,
)
from node.mesh.run_messages import Alive, Doubt, Head
from node.mesh.ticket import Grant, Revocation, Role
from node.mesh.trust_messages import Farewell, Held, Introduction, Kept, Records

MESH_KEY = bytes(range(32))
ADMIN = KeyPair.from_seed(b"\x01" * 32)
MEMBER = KeyPair.from_seed(b"\x02" * 32)
STRANGER = KeyPair.from_seed(b"\x03" * 32)


def co_id(number: int) -> RawCoId:
    return RawCoId("co_z" + base58_encode(hashlib.blake2b(b"%d" % number, digest_size=19).digest()))


def session_id(number: int) -> CoSessionId:
    random = hashlib.blake2b(b"session %d" % number, digest_size=8).digest()
    return CoSessionId(f"{co_id(1_000_000 + number)}_session_z{base58_encode(random)}")


ids = st.integers(0, 50).map(co_id)
counts = st.integers(0, 2**53 - 1)
sessions = st.dictionaries(st.integers(0, 50).map(session_id), counts, max_size=5)
known = st.none() | sessions
names = st.text(max_size=20)
key_bytes = st.binary(min_size=32, max_size=32)
digests = st.lists(key_bytes, max_size=2).map(tuple)
grants = st.builds(
    Grant,
    st.none() | key_bytes,
    st.sampled_from(Role),
    st.none() | counts,
    key_bytes,
    st.binary(min_size=64, max_size=64),
    counts,
    digests,
    counts,
)
revocations = st.builds(
    Revocation, key_bytes, counts, key_bytes, st.binary(min_size=64, max_size=64), names, digests
)
authors = st.builds(Authorship, key_bytes, st.binary(min_size=64, max_size=64))
short_names = st.binary(min_size=16, max_size=16)
id_tuples = st.lists(ids, max_size=6).map(tuple)
patterns = st.lists(names, max_size=3).map(tuple)


@st.composite
def queries(draw: st.DrawFn) -> Query:
    asked = draw(id_tuples)
    states = tuple(draw(known) for _ in asked)
    return Query(draw(counts), asked, states, draw(st.booleans()))


messages = st.one_of(
    st.builds(Hello, counts, key_bytes),
    st.builds(
        Welcome, key_bytes, counts, names, names, st.none() | grants, patterns, st.none() | authors
    ),
    queries(),
    st.builds(
        Answer,
        counts,
        counts,
        st.lists(st.tuples(ids, known), max_size=5).map(tuple),
        st.booleans(),
    ),
    st.builds(Interest, st.booleans(), id_tuples, id_tuples, patterns, patterns),
    st.builds(Update, counts, st.lists(st.tuples(ids, sessions), max_size=5).map(tuple)),
    st.builds(Stored, counts, counts, st.lists(st.tuples(ids, known), max_size=5).map(tuple)),
    st.builds(Listed, counts, counts),
    st.builds(
        Head,
        *(st.binary(min_size=8, max_size=8), counts, counts, st.sampled_from(Doubt)),
        *(st.binary(min_size=32, max_size=32), st.binary(max_size=100)),
    ),
    st.builds(
        Alive,
        st.binary(min_size=8, max_size=8),
        st.just(b"") | st.binary(min_size=64, max_size=64),
    ),
    st.builds(Evidence, st.sampled_from(EvidenceKind), names, st.binary(max_size=99), st.binary()),
    st.builds(
        Records,
        key_bytes,
        st.lists(grants, max_size=3).map(tuple),
        st.lists(revocations, max_size=3).map(tuple),
        st.none() | grants,
    ),
    st.builds(
        Kept,
        st.lists(
            st.builds(
                Introduction,
                key_bytes,
                key_bytes,
                names,
                st.none() | grants,
                st.binary(min_size=64, max_size=64),
            ),
            max_size=3,
        ).map(tuple),
    ),
    st.builds(Held, st.frozensets(st.binary(min_size=16, max_size=16), max_size=5)),
    st.builds(Farewell, names, st.none() | revocations),
    st.builds(Neighbors, digests, digests),
    st.builds(Brief, counts, st.lists(st.tuples(short_names, counts), max_size=5).map(tuple)),
    st.builds(Unclear, st.lists(short_names, max_size=5).map(tuple)),
)
