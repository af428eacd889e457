from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.cojson.messages import (
    Done,
    Known,
    Load,
    Message,
    NoSuchId,
    Reconcile,
    ReconcileAck,
    decode_frame,
    decode_line,
    encode_message,
    encode_ping,
)
from node.covalue.content import Content
from node.covalue.known_state import NOTHING, KnownState
from tests.node.covalue.test_canonical import json_values
from tests.support.authors import Author, edits, map_header, private_edits
from tests.support.cojson_vectors import VALUES, VECTORS, vectors

ANN = Author("ann")
HEADER = map_header("m")
CONTENT = ANN.content(HEADER, [*edits(2), *private_edits(1)], as_agent=True)
KNOWN = KnownState(True, {ANN.session_id(): 3})

MESSAGES: list[Message] = [
    Load(HEADER.id, NOTHING),
    Known(HEADER.id, KNOWN),
    Known(HEADER.id, KNOWN, is_correction=True),
    CONTENT,
    Content(HEADER.id, None, {}, expect_until={ANN.session_id(): 9}),
    Done(HEADER.id),
    Reconcile("b1", ((HEADER.id, "shortHash_z1"),)),
    ReconcileAck('quoted "b1"'),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_read_back(message: Message) -> None:
    assert decode_line(encode_message(message)) == message


@pytest.mark.parametrize("name", VALUES)
def test_recorded_content_is_written_as_it_was_read(name: str) -> None:
    for raw in vectors()["content"][name]:
        message = decode_line(json.dumps(raw))
        assert message is not None
        written = json.loads(encode_message(message))
        # Only the first piece has the header by which a priority is told.
        assert {**written, "priority": raw["priority"]} == raw


@pytest.mark.parametrize("path", sorted(VECTORS.glob("transcripts/*.jsonl")), ids=lambda p: p.stem)
def test_recorded_conversations_are_understood(path: Path) -> None:
    count = 0
    for line in path.read_text().splitlines():
        for raw in json.loads(line).get("msgs", []):
            assert decode_frame(json.dumps(raw)).errors == []
            count += 1
    assert count


def test_a_bad_line_does_not_cost_the_good_ones() -> None:
    good = encode_message(MESSAGES[0])
    frame = decode_frame(f"{good}\n{{bad\n\n  \nnull\n{good}\n" + '{"action":"nonsense"}\n{}')
    assert frame.messages == [MESSAGES[0], MESSAGES[0]]
    assert len(frame.errors) == 2
    assert decode_frame("") == ([], [])
    assert decode_frame("\n") == ([], [])


def test_pings_and_unknown_actions_are_left_out() -> None:
    assert decode_line(encode_ping(1, "here")) is None
    assert json.loads(encode_ping(5, 'a"b')) == {"type": "ping", "time": 5, "dc": 'a"b'}
    assert decode_line('{"action":"nonsense","id":5.5e0}'.replace("5.5e0", '"x"')) is None


def _content_line(**changes: Any) -> str:
    raw = json.loads(encode_message(CONTENT))
    session = raw["new"][ANN.session_id(as_agent=True)]
    for key, value in changes.items():
        if key in session:
            session[key] = value
        elif key in {"madeAt", "privacy", "changes", "meta", "encryptedChanges", "keyUsed"}:
            session["newTransactions"][0][key] = value
        else:
            raw[key] = value
    return json.dumps(raw)


@pytest.mark.parametrize(
    "line",
    [
        '{"action":"load"}',
        '{"action":"load","id":"notanid","header":false,"sessions":{}}',
        f'{{"action":"load","id":"{HEADER.id}","sessions":{{}}}}',
        f'{{"action":"load","id":"{HEADER.id}","header":{{}},"sessions":{{}}}}',
        f'{{"action":"load","id":"{HEADER.id}","header":true,"sessions":{{"x":1}}}}',
        f'{{"action":"load","id":"{HEADER.id}","header":true,"sessions":{{"x":"y"}}}}',
        f'{{"action":"known","id":"{HEADER.id}","header":true,'
        f'"sessions":{{"{ANN.session_id()}":-1}}}}',
        f'{{"action":"known","id":"{HEADER.id}","header":true,'
        f'"sessions":{{"{ANN.session_id()}":{10**10}}}}}',
        '{"action":"reconcile","id":"b"}',
        '{"action":"reconcile","id":"b","values":[["x","y"]]}',
        '{"action":"reconcile-ack"}',
        '{"action":"reconcile-ack","id":"' + "x" * 300 + '"}',
        _content_line(after=-1),
        _content_line(lastSignature="signature_z1"),
        _content_line(madeAt=1.5),
        _content_line(madeAt=-1),
        _content_line(madeAt=2**64),
        _content_line(madeAt="1"),
        _content_line(changes=None),
        _content_line(header=True),
        _content_line(header={"type": "comap"}),
        _content_line(new=None),
        '"\\ud800"',
        "[" * 100_000,
        '{"pad":' + "[" * 100_000 + "]" * 100_000 + ',"action":"load"}',
    ],
)
def test_what_is_no_message_is_refused(line: str) -> None:
    with pytest.raises(DecodeError):
        decode_line(line)


@pytest.mark.parametrize("text", ["co_z", HEADER.id[:-4], HEADER.id + "x", 'co_z"\n', "co_z0" * 25])
def test_a_load_of_no_possible_id_is_told_apart_and_answered(text: str) -> None:
    fields = {"id": text, "header": False, "sessions": {}}
    message = decode_line(json.dumps({"action": "load", **fields}))
    assert message == NoSuchId(text)
    assert json.loads(encode_message(NoSuchId(text))) == {"action": "known", **fields}


@pytest.mark.parametrize("text", ["", "notanid", "co_x", "co_z" + "0" * 125])
def test_a_load_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        decode_line(json.dumps({"action": "load", "id": text, "header": False, "sessions": {}}))


def test_integers_may_come_as_floats() -> None:
    message = decode_line(_content_line(madeAt=5.0))
    assert isinstance(message, Content)
    transaction = message.new[ANN.session_id(as_agent=True)].transactions[0]
    assert (transaction.made_at, type(transaction.made_at)) == (5, int)


def test_shape_decides_what_is_private() -> None:
    line = _content_line(encryptedChanges="encrypted_Ux", keyUsed="key_z1", privacy="trusting")
    message = decode_line(line)
    assert isinstance(message, Content)
    assert message.new[ANN.session_id(as_agent=True)].transactions[0].is_private
    message = decode_line(_content_line(privacy="private", keyUsed="key_z1", meta=None))
    assert isinstance(message, Content)
    assert not message.new[ANN.session_id(as_agent=True)].transactions[0].is_private


def test_an_oversized_reconcile_is_refused() -> None:
    values = tuple((HEADER.id, "h") for _ in range(1001))
    with pytest.raises(DecodeError):
        decode_line(encode_message(Reconcile("b", values)))


actions = st.sampled_from(["load", "known", "content", "done", "reconcile", "reconcile-ack", "x"])


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_frame(text: str) -> None:
    decode_frame(text)


@given(st.dictionaries(
    st.sampled_from(["id", "header", "sessions", "new", "values", "isCorrection", "priority"]),
    json_values | st.just(str(HEADER.id)) | st.just(HEADER.fields),
), actions)  # fmt: skip
def test_any_json_is_a_message_or_refused(fields: dict[str, Any], action: str) -> None:
    try:
        line = json.dumps({**fields, "action": action})
        message = decode_line(line)
    except DecodeError:
        return
    if message is not None:
        assert decode_line(encode_message(message)) == message


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=3))
def test_damage_anywhere_is_a_message_or_refused(where: int, damage: bytes) -> None:
    line = bytearray(encode_message(CONTENT).encode())
    where %= len(line)
    line[where : where + len(damage)] = damage
    try:
        decode_line(bytes(line))
    except DecodeError:
        return
