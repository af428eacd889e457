"""Damaged inputs for the originals' decoders and ours: the same are taken, with the same meaning.

What both take must be written the same way again by both. `DELIBERATE` lists every place where we
differ, with the reason. In the gate a part of it; all of it is

    python -m tests.interop.test_decoders --inputs 100000

The protobufs of bees are not compared: the original's generated decoder does not look at wire
types and reads past the ends of fields, ours refuses such blocks.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import IO

import pytest

from tests.hypercore.fuzz_decoders import all_decoders
from tests.support.fuzzing import Campaign, Decoder, mutate

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
INPUTS = 20_000
BATCH = 500

DELIBERATE: dict[tuple[str, str], str] = {
    ("extension", "refused: text is not UTF-8"): (
        "a name with bytes that are no text becomes another name there"
    ),
    ("primitives", "refused: text is not UTF-8"): "as in extension names",
    ("core record", "refused: text is not UTF-8"): "as in extension names",
    ("core record", "refused: core record of version"): (
        "there a record of a later version is read as if it were of this one"
    ),
    ("core record", "another version"): (
        "versions 1 and 2 have the same fields; we write 2, the original what it read"
    ),
    ("auth record", "refused: a key pair"): (
        "there keys of any size are read, and halves of two pairs: signing fails later, or nobody "
        "can verify what was signed"
    ),
    ("auth record", "refused: manifest of version"): (
        "there the manifest of a later version is read as if it were of this one"
    ),
    ("bitfield", "refused: bitfield starts at"): (
        "there it is ignored later, and the peer is believed to have what it had before"
    ),
    ("store head", "refused: store of version"): (
        "there version 0, which never was, is read as version 1"
    ),
    ("store head", "taken"): (
        "a store of version 1 that never had a core: there a TypeError, and no way to open it"
    ),
}
"""Why we differ, by decoder and kind of difference."""

COMPARED = (
    *("primitives", "manifest", "signature of version 0", "signature of version 1"),
    *("handshake", "sync", "request", "cancel", "data", "noData", "want", "bitfield", "range"),
    *("extension", "store head", "core record", "auth record", "head record", "hints"),
    "tree node",
)

RARE = {
    "store head": [bytes.fromhex("0001001000")],
    "auth record": [bytes(32) + bytes(32) + b"\x01\x05\x04\x00\x00\x00\x00"],
}
"""What chance does not often find of them."""


def ours(decoder: Decoder, data: bytes) -> tuple[bool, str | None, str]:
    """Whether it is taken, its encoding, and why it is not."""
    try:
        _, encoded = decoder.decode(data)
    except decoder.errors as error:
        return False, None, str(error)
    return True, None if encoded is None else encoded.hex(), ""


class Oracle:
    """The originals, in a process of their own."""

    def __init__(self, stdin: IO[str], stdout: IO[str]) -> None:
        self._stdin = stdin
        self._stdout = stdout

    def ask(self, name: str, inputs: list[bytes]) -> list[str | None]:
        question = {"decoder": name, "inputs": [data.hex() for data in inputs]}
        self._stdin.write(json.dumps(question) + "\n")
        self._stdin.flush()
        results: list[str | None] = json.loads(self._stdout.readline())["results"]
        return results


def compare(total: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Deliberate differences by kind, and all others with their inputs."""
    found: Counter[tuple[str, str]] = Counter()
    unexplained = []
    with subprocess.Popen(
        ["node", "decoder_oracle.cjs"],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        oracle = Oracle(process.stdin, process.stdout)
        for name in COMPARED:
            decoder = all_decoders()[name]
            for inputs in samples(decoder, total // len(COMPARED) + 1, seed):
                for data, theirs in zip(inputs, oracle.ask(name, inputs), strict=True):
                    kind = difference(decoder, data, theirs)
                    reason = explained(name, kind) if kind else None
                    if reason is not None:
                        found[name, reason] += 1
                    elif kind:
                        unexplained.append(f"{name}: {kind}, {data.hex()}, there {theirs}")
    return found, unexplained


def explained(name: str, kind: str) -> str | None:
    """The kind in `DELIBERATE`."""
    return next((known for of, known in DELIBERATE if of == name and kind.startswith(known)), None)


def samples(decoder: Decoder, count: int, seed: int) -> list[list[bytes]]:
    """Inputs made of what a short campaign found worth keeping, and of the examples."""
    campaign = Campaign(decoder, seed)
    campaign.run(2_000)
    chance = random.Random(f"{decoder.name} {seed} sample")
    inputs = [*RARE.get(decoder.name, ()), *campaign.corpus][:count]
    while len(inputs) < count:
        inputs.append(mutate(chance.choice(campaign.corpus), decoder.examples, chance))
    return [inputs[start : start + BATCH] for start in range(0, count, BATCH)]


def difference(decoder: Decoder, data: bytes, theirs: str | None) -> str:
    is_taken, encoded, why = ours(decoder, data)
    if is_taken != (theirs is not None):
        return f"refused: {why}" if not is_taken else "taken"
    if is_taken and encoded is not None and encoded != theirs:
        assert theirs is not None
        if decoder.name == "core record" and encoded[2:] == theirs[2:]:
            return "another version"
        return f"another meaning: {encoded}"
    return ""


def test_the_originals_take_and_refuse_the_same() -> None:
    found, unexplained = compare(INPUTS, seed=1)
    assert not unexplained, unexplained[:5]
    assert set(found) == set(DELIBERATE), "a difference that is none any more"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    found, unexplained = compare(arguments.inputs, arguments.seed)
    for key, count in sorted(found.items()):
        print(f"{key[0]}, {key[1]}: {count}; {DELIBERATE[key]}")  # noqa: T201
    for line in unexplained:
        print(line, file=sys.stderr)  # noqa: T201
    print(f"{arguments.inputs} inputs, seed {arguments.seed}, {len(unexplained)} unexplained")  # noqa: T201
    sys.exit(bool(unexplained))
