"""Coverage-guided fuzzing of decoders, in one process and without a compiled fuzzer.

An input begins as one of the corpus and is then cut, extended, overwritten or spliced. Tracing a
decoder's lines makes it thirty times slower, so most inputs are not traced: an input is when its
outcome is new (where the error was raised, or how the value's encoding begins), and now and
then one by chance. What passes from one line to another for the first time joins the corpus.

A decoder returns a value whose own encoding decodes to the same value again, or raises one of its
errors; in proportion to its input it takes little memory and time. Anything else is a
`FuzzFailure`, which says how to replay it.
"""

from __future__ import annotations

import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from _typeshed import TraceFunction

Decode = Callable[[bytes], tuple[object, bytes | None]]
"""The value in these bytes, and its encoding (None when it has none that could be compared)."""

MAX_INPUT_BYTES = 4096
MAX_CORPUS = 4096
MAX_SECONDS = 0.1
"""For one input; a thousand times what the slowest takes, measured again before it counts."""

MEMORY_BYTES, MEMORY_FACTOR = 1 << 17, 400
"""One decoding may hold so many bytes, and so many times its input: a list of small objects."""

_TRACED_BY_CHANCE = 512
_RECENT = 32

_EDGES = bytes.fromhex("000102030810182040 7f80fcfdfeff0a")
_NUMBERS = [
    (252).to_bytes(1, "little"),
    b"\xfd\x00\x00",
    b"\xfd\xff\xff",
    b"\xfe\x00\x00\x10\x00",
    b"\xfe\x01\x00\x10\x00",
    b"\xfe\xff\xff\xff\xff",
    b"\xff" + (2**53 - 1).to_bytes(8, "little"),
    b"\xff" + (2**53).to_bytes(8, "little"),
    b"\xff" * 9,
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x80\x00",
]

Arc: TypeAlias = tuple[CodeType, int, int]


class FuzzFailure(AssertionError):
    """A decoder did what it must not."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """One decoder under test."""

    name: str
    decode: Decode
    examples: Sequence[bytes]
    """Valid inputs to begin with."""

    modules: Sequence[str]
    """Whose lines count, by the ends of their file names."""

    errors: tuple[type[Exception], ...]
    """What it may raise."""


@dataclass(slots=True)
class Campaign:
    """The fuzzing of one decoder; the same seed makes the same inputs."""

    decoder: Decoder
    seed: int
    inputs: int = 0
    decoded: int = 0
    traced: int = 0
    arcs: set[Arc] = field(default_factory=set)
    corpus: list[bytes] = field(default_factory=list)
    _outcomes: set[object] = field(default_factory=set)

    def run(self, count: int) -> None:
        """Raises: FuzzFailure."""
        chance = random.Random(f"{self.decoder.name} {self.seed}")
        examples = list(self.decoder.examples)
        for example in examples:
            self.corpus.append(example)
            self._trace(example)
        for number in range(count):
            data = mutate(self._pick(chance), examples, chance)
            outcome = check(self.decoder, data)
            self.inputs += 1
            self.decoded += outcome[0] is None
            if outcome not in self._outcomes or number % _TRACED_BY_CHANCE == 0:
                self._outcomes.add(outcome)
                self._trace(data)

    def _pick(self, chance: random.Random) -> bytes:
        corpus = self.corpus
        size = len(corpus)
        drawn = chance.getrandbits(30)
        # Half of them among the newest: those that led somewhere.
        if drawn & 1 and size > _RECENT:
            return corpus[size - 1 - (drawn >> 1) % _RECENT]
        return corpus[(drawn >> 1) % size]

    def _trace(self, data: bytes) -> None:
        self.traced += 1
        arcs = traced_arcs(self.decoder, data)
        if not arcs <= self.arcs:
            self.arcs |= arcs
            if len(self.corpus) < MAX_CORPUS:
                self.corpus.append(data)


def mutate(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """`data` with one to four things wrong, of at most `MAX_INPUT_BYTES`."""
    changed = bytearray(data)
    bits = chance.getrandbits(64)
    for _ in range(1 + (bits & 3)):
        bits = chance.getrandbits(64)
        at = (bits >> 8 & 0xFFFF) % (len(changed) + 1)
        value = bits >> 24 & 0xFF
        size = 1 + (bits >> 32 & 7)
        match bits & 15:
            case 0:
                del changed[at:]
            case 1:
                del changed[at : at + size]
            case 2 | 3:
                changed[at : at + 1] = _NUMBERS[value % len(_NUMBERS)]
            case 4:
                changed[at:at] = (bits >> 40).to_bytes(3, "little") * (size >> 1)
            case 5:
                other = others[value % len(others)]
                start = (bits >> 40) % (len(other) + 1)
                changed[at:] = other[start:]
            case 6:
                changed[at:at] = changed[at : at + 4 * size]
            case 7 | 8 | 9:
                changed[at : at + 1] = _EDGES[value & 15 : (value & 15) + 1]
            case 10 | 11 | 12 if at < len(changed):
                flipped, next_to = changed[at] ^ 1 << (value & 7), changed[at] + 1 - (value & 2)
                changed[at] = (flipped if value & 64 else next_to) & 0xFF
            case _:
                changed[at : at + 1] = bytes((value,))
    return bytes(changed[:MAX_INPUT_BYTES])


def check(decoder: Decoder, data: bytes) -> tuple[object, object]:
    """Decode once; what came of it, in short. Raises: FuzzFailure."""
    started = time.perf_counter()
    try:
        value, encoded = decoder.decode(data)
        if encoded is not None and decoder.decode(encoded) != (value, encoded):
            raise fail(decoder, data, "it is another value when it is written and read again")
    except decoder.errors as error:
        outcome: tuple[object, object] = (type(error), _place(error))
    except FuzzFailure:
        raise
    except Exception as error:
        raise fail(decoder, data, f"raises {type(error).__name__}: {error}") from error
    else:
        shape = None if encoded is None else (encoded[:1], len(encoded).bit_length())
        outcome = (None, shape)
    if time.perf_counter() - started > MAX_SECONDS:
        _check_time(decoder, data)
    return outcome


def _place(error: Exception) -> tuple[int, ...]:
    """The lines that the error passed through."""
    lines = []
    step = error.__traceback__
    while step is not None:
        lines.append(step.tb_lineno)
        step = step.tb_next
    return tuple(lines)


def _check_time(decoder: Decoder, data: bytes) -> None:
    """The machine may have been busy: only a decoder that is slow three times is slow."""
    fastest = float("inf")
    for _ in range(3):
        started = time.process_time()
        _decode(decoder, data)
        fastest = min(fastest, time.process_time() - started)
    if fastest > MAX_SECONDS:
        raise fail(decoder, data, f"takes {fastest:.2f} s for {len(data)} bytes")


def _decode(decoder: Decoder, data: bytes) -> None:
    with suppress(*decoder.errors):
        decoder.decode(data)


def traced_arcs(decoder: Decoder, data: bytes) -> set[Arc]:
    """From which line to which one the decoder goes. Raises: FuzzFailure when it hoards memory."""
    arcs: set[Arc] = set()
    modules = tuple(decoder.modules)

    def enter(frame: FrameType, event: str, _: object) -> TraceFunction | None:
        code = frame.f_code
        if not code.co_filename.endswith(modules):
            return None
        before = 0

        def step(frame: FrameType, event: str, _: object) -> TraceFunction:
            nonlocal before
            arcs.add((code, before, frame.f_lineno))
            before = frame.f_lineno
            return step

        return step

    outer = sys.gettrace()
    sys.settrace(enter)
    try:
        _decode(decoder, data)
    finally:
        sys.settrace(outer)
    _check_memory(decoder, data)
    return arcs


def _check_memory(decoder: Decoder, data: bytes) -> None:
    tracemalloc.start()
    try:
        _decode(decoder, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > MEMORY_BYTES + MEMORY_FACTOR * len(data):
        raise fail(decoder, data, f"takes {peak} bytes of memory for {len(data)}")


def fail(decoder: Decoder, data: bytes, what: str) -> FuzzFailure:
    """The failure, with the command that shows it again."""
    command = f"python -m tests.hypercore.fuzz_campaign --decoder {decoder.name!r}"
    return FuzzFailure(f"{decoder.name} {what}; replay: {command} --replay {data.hex()}")
