from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.covalue.ids import CoSessionId, RawCoId
from node.mesh.fields import FieldError, FieldReader, pack_fields
from node.mesh.messages import (
    MAX_MESSAGE_BYTES,
    Evidence,
    Hello,
    Interest,
    Message,
    MessageType,
    Query,
    Update,
    Welcome,
    decode_message,
    message_type,
    split_values,
)
from node.mesh.ticket import Grant, Revocation, Role
from node.mesh.trust_messages import Records
from tests.node.mesh import samples

CO_ID = samples.co_id(1)
SESSION = samples.session_id(1)


def test_worked_example() -> None:
    assert Hello(1, bytes(32)).encode() == bytes.fromhex("9201c420") + bytes(32)


@given(samples.messages)
def test_round_trip(message: Message) -> None:
    assert decode_message(message_type(message), message.encode()) == message


@given(samples.messages, st.lists(st.integers() | st.text() | st.none(), max_size=3))
def test_unknown_trailing_fields_are_ignored(message: Message, more: list[object]) -> None:
    if any(isinstance(item, int) and not -(2**63) <= item < 2**64 for item in more):
        return
    fields = msgpack.unpackb(message.encode(), strict_map_key=False)
    payload = msgpack.packb([*fields, *more])
    assert decode_message(message_type(message), payload) == message


@given(st.integers(0, 8), st.binary(max_size=300))
def test_any_bytes_give_a_message_or_the_one_error(number: int, payload: bytes) -> None:
    try:
        message = decode_message(number, payload)
    except DecodeError:
        return
    assert message is None or message_type(message) == number


values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.sampled_from(MessageType), st.lists(values, max_size=7))
def test_any_fields_give_a_message_or_the_one_error(
    number: MessageType, fields: list[object]
) -> None:
    try:
        message = decode_message(number, msgpack.packb(fields))
    except DecodeError:
        return
    assert message is not None
    assert message_type(message) is number


@given(samples.messages, st.data())
def test_a_cut_message_is_an_error(message: Message, data: st.DataObject) -> None:
    payload = message.encode()
    size = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(DecodeError):
        decode_message(message_type(message), payload[:size])


def test_numbers_of_later_versions_are_no_message() -> None:
    assert decode_message(99, b"\x90") is None


@pytest.mark.parametrize(
    ("number", "fields"),
    [
        (MessageType.HELLO, [1, b"short"]),
        (MessageType.HELLO, [True, bytes(32)]),
        (MessageType.QUERY, [1, [CO_ID], [], False]),
        (MessageType.QUERY, [1, ["co_zshort"], [None], False]),
        (MessageType.QUERY, [1, [CO_ID + ":header"], [None], False]),
        (MessageType.UPDATE, [1, [[CO_ID, {SESSION: -1}]]]),
        (MessageType.UPDATE, [1, [[CO_ID, {SESSION: 1.0}]]]),
        (MessageType.UPDATE, [1, [[CO_ID, {"a:b": 1}]]]),
        (MessageType.UPDATE, [1, [[CO_ID, None]]]),
        (MessageType.INTEREST, [1, [], [], [], []]),
        (MessageType.INTEREST, [False, [CO_ID] * 5000, [], [], []]),
        (MessageType.EVIDENCE, [2, "", b"", b""]),
        (MessageType.WELCOME, [bytes(32), 0, "x" * 1000, "", None, []]),
        (MessageType.NEIGHBORS, [[bytes(31)], []]),
        (MessageType.BRIEF, [1, bytes(16), []]),
        (MessageType.BRIEF, [1, bytes(17), [1]]),
        (MessageType.UNCLEAR, [bytes(4097 * 16)]),
    ],
)
def test_wrong_fields(number: MessageType, fields: list[object]) -> None:
    with pytest.raises(DecodeError):
        decode_message(number, msgpack.packb(fields))


def test_a_message_over_the_limit_is_not_read() -> None:
    payload = pack_fields(0, "", bytes(MAX_MESSAGE_BYTES), b"")
    with pytest.raises(DecodeError, match="at most"):
        decode_message(MessageType.EVIDENCE, payload)


def test_deep_and_wide_nesting_is_refused() -> None:
    for payload in (
        b"\x91" * 100_000,
        b"\xdc\x0f\xff" * 1500,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc7\x0c\xff" + bytes(12),
    ):
        with pytest.raises(DecodeError):
            FieldReader.unpack(payload, MAX_MESSAGE_BYTES)


def test_grants_travel_in_a_welcome() -> None:
    grant = Grant.issue(samples.MESH_KEY, samples.ADMIN, Role.READER)
    welcome = Welcome(bytes(32), 7, "name", "reader", grant, ("all",))
    decoded = decode_message(MessageType.WELCOME, welcome.encode())
    assert isinstance(decoded, Welcome)
    assert decoded.grant is not None
    assert decoded.grant.is_signed(samples.MESH_KEY)


@given(
    st.lists(st.tuples(samples.ids, samples.known), max_size=20),
    st.integers(80, 2000),
    st.integers(1, 10),
)
def test_split_values_keep_everything(
    entries: list[tuple[RawCoId, dict[CoSessionId, int] | None]],
    target: int,
    most: int,
) -> None:
    parts = list(split_values(entries, target, most))
    assert parts
    assert all(len(part) <= most for part in parts)
    whole = [entry for part in parts for entry in part]
    order = [co_id for co_id, _ in groupby(entry[0] for entry in whole)]
    assert order == [co_id for co_id, _ in groupby(entry[0] for entry in entries)]
    merged: dict[str, dict[CoSessionId, int]] = {}
    for co_id, state in whole:
        merged.setdefault(co_id, {}).update(state or {})
    expected: dict[str, dict[CoSessionId, int]] = {}
    for co_id, state in entries:
        expected.setdefault(co_id, {}).update(state or {})
    assert merged == expected


def test_split_messages_stay_small() -> None:
    big = {samples.session_id(number): number for number in range(3000)}
    parts = list(split_values([(CO_ID, big), (samples.co_id(2), {})], 10_000))
    assert len(parts) > 10
    for part in parts:
        update = Update(1, tuple((co_id, state or {}) for co_id, state in part))
        assert len(update.encode()) <= 10_000


def test_empty_lists_are_messages_too() -> None:
    assert list(split_values([])) == [()]
    assert decode_message(MessageType.QUERY, Query(1, (), ()).encode()) == Query(1, (), ())
    assert decode_message(MessageType.INTEREST, Interest().encode()) == Interest()
    with pytest.raises(DecodeError):
        Evidence.decode(FieldReader([0]))


@pytest.mark.parametrize(("granted", "revoked"), [(256, 0), (0, 256), (128, 128)])
def test_a_message_brings_no_more_records_than_are_verified_in_one_go(
    granted: int, revoked: int
) -> None:
    grants = [Grant(bytes(32), Role.READER, None, bytes(32), bytes(64))] * (granted + 1)
    revocations = [Revocation(bytes(32), 1, bytes(32), bytes(64))] * revoked
    fits = Records(bytes(32), tuple(grants[:granted]), tuple(revocations))
    assert Records.decode(FieldReader.unpack(fits.encode(), 1 << 20)) == fits
    many = replace(fits, grants=tuple(grants))
    with pytest.raises(FieldError):
        Records.decode(FieldReader.unpack(many.encode(), 1 << 20))
