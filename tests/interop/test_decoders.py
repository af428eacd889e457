"""Damaged inputs for the originals' decoders and ours: the same are taken, with the same meaning.

In the gate a part of it; 100,000 inputs are `python -m tests.interop.test_decoders --inputs 100000`.
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
INPUTS = 16_000
BATCH = 500

COMPARED = (
    *("primitives", "manifest", "signature of version 0", "signature of version 1"),
    *("handshake", "sync", "request", "cancel", "data", "noData", "want", "bitfield", "range"),
    *("extension", "store head", "core record", "auth record", "head record", "hints"),
    *("tree node", "bee header", "bee record"),
)


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


def compare(total: int, seed: int) -> Counter[tuple[str, str]]:
    """The differences, by decoder and kind."""
    differences: Counter[tuple[str, str]] = Counter()
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
                    if kind:
                        differences[name, kind] += 1
                        print(name, kind, data.hex(), theirs, ours(decoder, data))
    return differences


def samples(decoder: Decoder, count: int, seed: int) -> list[list[bytes]]:
    """Inputs made of what a short campaign found worth keeping, and of the examples."""
    campaign = Campaign(decoder, seed)
    campaign.run(2_000)
    chance = random.Random(f"{decoder.name} {seed} sample")
    inputs = list(campaign.corpus)[:count]
    while len(inputs) < count:
        inputs.append(mutate(chance.choice(campaign.corpus), decoder.examples, chance))
    return [inputs[start : start + BATCH] for start in range(0, count, BATCH)]


def difference(decoder: Decoder, data: bytes, theirs: str | None) -> str:
    is_taken, encoded, why = ours(decoder, data)
    if is_taken != (theirs is not None):
        return f"refused: {why}" if not is_taken else "taken"
    if is_taken and encoded is not None and encoded != theirs:
        return "another meaning"
    return ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    found = compare(arguments.inputs, arguments.seed)
    sys.exit(print(found))
