"""Lines that are almost messages: genuine ones, mutated from a seed.

Every kind of damage is a method; which one is dealt, and where in the message, is drawn. Some of
what comes out is a valid message after all: that is part of the game.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from node.cojson.base58 import base58_encode
from node.cojson.messages import Known, Load, Message, Reconcile, encode_message
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import KnownState
from tests.support.authors import Author, edits, group_header, map_header, private_edits

MALLORY = Author("mallory")
AGENT_ID = MALLORY.agent_id
SESSION, OTHER_SESSION = MALLORY.session_id(), MALLORY.session_id("other")
_MANY_SESSIONS = [f"{SESSION[:-3]}{base58_encode(n.to_bytes(2, 'big'))}" for n in range(3000)]
_BATCH_IDS = ("b1", "b2", "b3")
"""Few: a client may have 16 batches open, and is sent away for more."""

_NUMBERS = (
    *("1e999", "-1e999", "1e-999", "1e400", "5e-324", "-0", "-1", "1.5", "0.1e1", "01", "+1"),
    *(str(2**53 + 1), str(2**63), str(2**64), "9" * 310, "1" + "0" * 4000, "0." + "1" * 4000),
    *("NaN", "Infinity", "1e", ".5", "0x10", "1_000"),
)
_TEXTS = (
    *('"\\ud800"', '"\\udfff\\ud800"', '"co_z\\ud800"', '"\\u0000"', '"\\u0022"', '"\\x00"'),
    *('"__proto__"', '"constructor"', '"co_z"', '"co_z1"', '"null"', '""', '"' + "x" * 5000 + '"'),
)
_JUNK = (
    *("", " ", "\t", "\ufeff", "\x00", "null", "true", "0", '""', "[]", "{}", "[[[[", '{"'),
    *('{"action":null}', '{"action":"nonsense"}', '{"action":"load"}', "\u2028", "\xa0{}"),
    *("GET / HTTP/1.1", "<script>", "{'action':'load'}", '{"type":"ping"}', "{}{}", "//", "\\"),
)
_NAMES = ("__proto__", "constructor", "toString", "hasOwnProperty", "prototype", "")


class HostileLines:
    """`victim` is a value and a session that somebody else is writing at the same time."""

    def __init__(self, seed: int, victim: Content) -> None:
        self._random = random.Random(seed)
        self._serial = 0
        self._victim = victim
        self._templates = [encode_message(message) for message in _templates(victim)]
        self._damages: list[Callable[[Any], str]] = [
            self._swap_type,
            self._drop_field,
            self._replace_id,
            self._replace_key,
            self._replace_number,
            self._nest,
            self._replace_text,
            self._add_prototype,
            self._truncate,
            self._double_key,
            self._garble,
            self._widen,
        ]

    def lines(self, count: int) -> Iterator[str]:
        """So many lines without a line end."""
        for _ in range(count):
            if self._random.random() < 0.05:
                yield self._random.choice(_JUNK)
            else:
                damage = self._random.choice(self._damages)
                yield damage(self._genuine()).replace("\n", " ")

    def fresh_id(self) -> RawCoId:
        """An id that nobody has; distinct each time."""
        self._serial += 1
        digest = self._random.randbytes(15) + self._serial.to_bytes(4, "big")
        return RawCoId("co_z" + base58_encode(digest))

    def shuffled(self, lines: list[str]) -> list[str]:
        self._random.shuffle(lines)
        return lines

    def _genuine(self) -> Any:
        """What the damage is done to."""
        message = json.loads(self._random.choice(self._templates))
        if message["action"] == "load" and self._random.random() < 0.5:
            message["id"] = self.fresh_id()
        return message

    def _places(self, value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Paths of everything inside, but for a batch's id."""
        places: list[tuple[Any, ...]] = []
        items: Any = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        for key, item in items:
            if not (path == () and key == "id" and "values" in value):
                places.append((*path, key))
            places += self._places(item, (*path, key))
        return places

    def _at(self, message: Any, path: tuple[Any, ...]) -> Any:
        for key in path:
            message = message[key]
        return message

    def _put(self, message: Any, text: str, *, kinds: tuple[type, ...] = ()) -> str:
        """The message with raw text in a random place, of these kinds if there is one."""
        places = self._places(message)
        fitting = [path for path in places if isinstance(self._at(message, path), kinds or object)]
        path = self._random.choice(fitting or places)
        self._at(message, path[:-1])[path[-1]] = "\x01here\x01"
        return json.dumps(message).replace('"\\u0001here\\u0001"', text)

    def _swap_type(self, message: Any) -> str:
        values = ("null", "true", "[]", "{}", "[[]]", '"x"', "7", "-7", '{"a":{}}', "1.5")
        return self._put(message, self._random.choice(values))

    def _drop_field(self, message: Any) -> str:
        path = self._random.choice(self._places(message))
        del self._at(message, path[:-1])[path[-1]]
        return json.dumps(message)

    def _replace_id(self, message: Any) -> str:
        ids = (
            *("co_z", "co_zx", "co_z" + "1" * 26, "co_z" + "0" * 26, "xo_z1", "co_z" + "z" * 200),
            *(AGENT_ID, SESSION, str(self.fresh_id()), self._victim.co_id),
        )
        if "values" in message:
            message["id"] = self._random.choice(_BATCH_IDS)
            message["values"][0][0] = self._random.choice(ids)
        else:
            message["id"] = self._random.choice(ids)
        return json.dumps(message)

    def _replace_key(self, message: Any) -> str:
        keys = ("", "x", "co_z1_session_z1", ":", "$", "é" * 30, OTHER_SESSION)
        for name in ("sessions", "new", "expectContentUntil"):
            found = message.get(name)
            if isinstance(found, dict) and found:
                old = self._random.choice(list(found))
                found[self._random.choice([*keys, *self._victim.new])] = found.pop(old)
                break
        return json.dumps(message)

    def _replace_number(self, message: Any) -> str:
        return self._put(message, self._random.choice(_NUMBERS), kinds=(int, float))

    def _nest(self, message: Any) -> str:
        depth = self._random.choice([10, 63, 65, 500, 1500, 20_000])
        opening, closing = self._random.choice([("[", "]"), ('{"a":', "}"), ("[[],", "]")])
        is_closed = self._random.random() < 0.7
        inside = "1" if opening.startswith("{") else ""
        return self._put(message, opening * depth + inside + (closing * depth) * is_closed)

    def _replace_text(self, message: Any) -> str:
        return self._put(message, self._random.choice(_TEXTS), kinds=(str,))

    def _add_prototype(self, message: Any) -> str:
        inner = [self._at(message, path) for path in self._places(message)]
        targets = [message, *(item for item in inner if isinstance(item, dict))]
        self._random.choice(targets)[self._random.choice(_NAMES)] = {"action": "load", "x": [1]}
        return json.dumps(message)

    def _truncate(self, message: Any) -> str:
        text = json.dumps(message)
        return text[: self._random.randrange(len(text))]

    def _double_key(self, message: Any) -> str:
        """Every key of an object, or the whole of its fields, twice."""
        text = json.dumps(message)
        name = self._random.choice(list(message))
        twice = f"{{{json.dumps(name)}:{self._random.choice(['null', '1', '{}'])},{text[1:]}"
        return twice if self._random.random() < 0.5 else text[:-1] + "," + text[1:]

    def _garble(self, message: Any) -> str:
        text = list(json.dumps(message))
        for _ in range(self._random.randrange(1, 6)):
            place = self._random.randrange(len(text))
            text[place] = chr(self._random.choice([0, 9, 34, 44, 58, 91, 92, 123, 125, 255, 8232]))
        return "".join(text)

    def _widen(self, message: Any) -> str:
        """Thousands of sessions or transactions where a few are usual."""
        count = self._random.choice([10, 100, 100, 3000])
        if "values" in message:
            message["values"] = message["values"] * count
        elif "sessions" in message:
            message["sessions"] = dict.fromkeys(_MANY_SESSIONS[:count], 7)
        elif message.get("new"):
            part = next(iter(message["new"].values()))
            part["newTransactions"] = part["newTransactions"] * count
        return json.dumps(message)


def _templates(victim: Content) -> list[Message]:
    """Mallory's messages, and copies of the victim's."""
    messages: list[Message] = [
        Load(victim.co_id, KnownState(True, dict.fromkeys(victim.new, 1))),
        Known(victim.co_id, KnownState(True, dict.fromkeys(victim.new, 1))),
        Content(victim.co_id, None, victim.new, expect_until={SESSION: 9}),
        victim,
        MALLORY.account(),
        MALLORY.content(group_header(MALLORY.agent_id), edits(2), as_agent=True),
    ]
    for number in range(20):
        header = map_header(f"mallory {number}")
        messages += [
            Load(header.id, KnownState(True, {SESSION: 3})),
            Known(header.id, KnownState(True, {SESSION: 3})),
            MALLORY.content(header, edits(2), as_agent=True),
            MALLORY.content(header, private_edits(2)),
            Reconcile("b1", ((header.id, "shortHash_z1"), (victim.co_id, "x"))),
        ]
    return messages
