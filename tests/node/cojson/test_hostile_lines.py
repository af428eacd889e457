"""What hostile lines cost: themselves. The longer form is `hostile_campaign.py`."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable

import pytest

from hypercore.encoding import DecodeError
from node.cojson.messages import (
    MAX_FRAME_BYTES,
    MAX_HEADER_BYTES,
    MAX_RECONCILE_VALUES,
    MAX_SESSIONS,
    MAX_TRANSACTIONS,
    Known,
    Load,
    Reconcile,
    decode_frame,
    decode_line,
    encode_message,
    read_frame,
)
from node.covalue.content import Content
from node.covalue.known_state import NOTHING, KnownState
from tests.node.cojson.hostile_campaign import run_campaign
from tests.support.authors import Author, edits, map_header

ANN = Author("ann")
HEADER = map_header("m")
SESSION = ANN.session_id()
GOOD = encode_message(Load(HEADER.id, NOTHING))
MIB = 2**20


async def test_ten_thousand_hostile_lines_and_a_client_that_notices_nothing() -> None:
    report = await run_campaign(10_000, seed=1)
    assert report.faults == []
    assert report.lines >= 10_000
    assert report.genuine >= 1000
    assert report.refused > 0
    assert report.edits >= 100
    assert report.kept_bytes < 32 * MIB
    assert report.after_objects - report.before_objects < 60_000


def _load(sessions: str) -> str:
    return f'{{"action":"load","id":"{HEADER.id}","header":false,"sessions":{sessions}}}'


def _content(header: str = "null", new: str = "{}") -> str:
    return f'{{"action":"content","id":"{HEADER.id}","header":{header},"new":{new}}}'


def _session(transactions: str) -> str:
    signature = "signature_z" + "1" * 64
    return (
        f'{{"{SESSION}":{{"after":0,"newTransactions":[{transactions}],'
        f'"lastSignature":"{signature}"}}}}'
    )


TINY = '{"privacy":"trusting","madeAt":1,"changes":""}'
FULL = 30 * MIB

LARGE: dict[str, Callable[[], str]] = {
    "nested arrays": lambda: "[" * FULL,
    "nested objects": lambda: '{"a":' * (FULL // 5),
    "nested in an unknown field": lambda: '{"x":' + "[" * FULL,
    "nested in a header": lambda: _content('{"a":' * (FULL // 5)),
    "wide header": lambda: _content('{"a":[' + "[]," * (FULL // 3) + "[]]}"),
    "many counters": lambda: _load("{" + ",".join(f'"{n:x}":1' for n in range(2_000_000)) + "}"),
    "many sessions": lambda: _content(
        new="{"
        + ",".join(
            f'"{n:x}":{{"after":0,"newTransactions":[],"lastSignature":""}}' for n in range(400_000)
        )
        + "}"
    ),
    "many transactions": lambda: _content(new=_session(",".join([TINY] * 600_000))),
    "many values": lambda: (
        '{"action":"reconcile","id":"b","values":[' + ",".join(['["",""]'] * (FULL // 8)) + "]}"
    ),
    "a long integer": lambda: _load(f'{{"{SESSION}":{"9" * FULL}}}'),
    "a long integer in a header": lambda: _content(f'{{"uniqueness":{"9" * FULL}}}'),
    "a long fraction": lambda: _content(
        new=_session(f'{{"privacy":"x","madeAt":1.{"0" * FULL}1}}')
    ),
    "a long text": lambda: '{"action":"load","id":"' + "x" * FULL + '"}',
    "escapes": lambda: '{"action":"load","id":"' + "\\u0000" * (FULL // 6) + '"}',
    "a long key": lambda: _load('{"' + "x" * FULL + '":1}'),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_line_is_refused_at_a_bounded_cost(name: str) -> None:
    line = LARGE[name]()
    assert len(line) < MAX_FRAME_BYTES
    start = time.process_time()
    with pytest.raises(DecodeError) as error:
        decode_line(line)
    # A tenth of that on a quiet machine; what is to be caught here is anything that is not linear.
    assert time.process_time() - start < 5
    assert len(str(error.value)) < 300
    tracemalloc.start()
    with pytest.raises(DecodeError):
        decode_line(line)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(line)


def test_what_an_honest_client_may_need_fits() -> None:
    counts = {ANN.session_id(str(n)): n for n in range(2000)}
    assert decode_line(encode_message(Known(HEADER.id, KnownState(True, counts)))) == Known(
        HEADER.id, KnownState(True, counts)
    )
    many = ANN.content(HEADER, edits(20_000), as_agent=True)
    assert decode_line(encode_message(many)) == many
    # A transaction of several MiB: nobody makes them, everybody takes them.
    large = ANN.content(HEADER, edits(1, size=8 * MIB), as_agent=True)
    assert decode_line(encode_message(large)) == large
    pairs = tuple((HEADER.id, "shortHash_z1") for _ in range(MAX_RECONCILE_VALUES))
    assert decode_line(encode_message(Reconcile("b", pairs))) == Reconcile("b", pairs)


def test_the_bounds_are_where_they_say() -> None:
    def counted(count: int) -> str:
        # As short as session ids can be, so that the line is small.
        ids = (f"{SESSION[:-11]}{chr(65 + n % 8)}{_letters(n)}" for n in range(count))
        return _load("{" + ",".join(f'"{key}":1' for key in ids) + "}")

    assert isinstance(decode_line(counted(MAX_SESSIONS)), Load)
    with pytest.raises(DecodeError, match=f"more than {MAX_SESSIONS} sessions"):
        decode_line(counted(MAX_SESSIONS + 1))
    assert isinstance(decode_line(_content(new=_session(",".join([TINY] * 1000)))), Content)
    with pytest.raises(DecodeError, match=f"more than {MAX_TRANSACTIONS} transactions"):
        decode_line(_content(new=_session(",".join([TINY] * (MAX_TRANSACTIONS + 1)))))

    def headed(size: int) -> str:
        fields = {**HEADER.fields, "uniqueness": ""}
        room = size - len(json.dumps(fields))
        return _content(json.dumps({**fields, "uniqueness": "x" * room}))

    assert isinstance(decode_line(headed(MAX_HEADER_BYTES)), Content)
    with pytest.raises(DecodeError, match=f"{MAX_HEADER_BYTES} are allowed"):
        decode_line(headed(MAX_HEADER_BYTES + 1))


def _letters(number: int) -> str:
    letters = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    return "".join(letters[number // 58**place % 58] for place in range(4))


@pytest.mark.parametrize(
    "line",
    [
        _load(f'{{"{SESSION}":1e999}}'),
        _load(f'{{"{SESSION}":{10**4000}}}'),
        _load(f'{{"{SESSION}":1.5}}'),
        _load(f'{{"{SESSION}":-1}}'),
        _load('{"__proto__":1}'),
        _load(f'{{"{SESSION}\\ud800":1}}'),
        _content('{"__proto__":{}}'),
        _content(json.dumps({**HEADER.fields, "toString": 1})),
        _content(json.dumps({**HEADER.fields, "uniqueness": 1.5})),
        _content(json.dumps(HEADER.fields)[:-1] + f',"uniqueness":{10**400}}}'),
        _content(new=_session('{"privacy":"trusting","madeAt":1e999,"changes":""}')),
        _content(new=_session(f'{{"privacy":"trusting","madeAt":{10**400},"changes":""}}')),
        _content(new=_session('{"privacy":"trusting","madeAt":1e300,"changes":""}')),
        _content(new=_session('{"privacy":"trusting","madeAt":1,"changes":"\\ud800"}')),
        '{"action":"load","id":"co_z\\udfff","header":false,"sessions":{}}',
        '{"action":"reconcile-ack","id":"\\ud83d"}',
        '{"action":"load","id":"co_z\ud800","header":false,"sessions":{}}',
    ],
)
def test_what_no_field_may_hold(line: str) -> None:
    frame = decode_frame(f"{line}\n{GOOD}")
    assert len(frame.errors) == 1
    assert frame.messages == [Load(HEADER.id, NOTHING)]


def test_of_two_equal_keys_the_last_one_counts() -> None:
    other = map_header("other")
    line = GOOD[:-1] + f',"id":"{other.id}"}}'
    assert decode_line(line) == Load(other.id, NOTHING)
    assert decode_line(_load(f'{{"{SESSION}":1,"{SESSION}":2}}')) == Load(
        HEADER.id, KnownState(False, {SESSION: 2})
    )


def test_names_that_mean_something_in_javascript_mean_nothing_here() -> None:
    meta = {"__proto__": {"admin": True}, "constructor": None}
    header = {**HEADER.fields, "meta": meta}
    content = decode_line(_content(json.dumps(header)))
    assert isinstance(content, Content)
    assert content.header is not None
    assert content.header.fields["meta"] == meta
    assert decode_line('{"__proto__":{"action":"load"},"action":"nonsense"}') is None


def test_blank_lines_cost_nothing_and_lines_are_read_as_they_are_taken() -> None:
    start = time.process_time()
    assert decode_frame("\n \t" * (8 * MIB) + GOOD).messages == [Load(HEADER.id, NOTHING)]
    assert time.process_time() - start < 5
    lines = read_frame(f"{GOOD}\n" * 200_000)
    tracemalloc.start()
    for _ in range(1000):
        assert next(lines) == Load(HEADER.id, NOTHING)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MIB
