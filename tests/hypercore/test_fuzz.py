"""A short campaign for every decoder, always the same; and a fuzzer that finds what is wrong.

`python -m tests.hypercore.fuzz_campaign` is the long one.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time

import pytest

from hypercore.encoding import DecodeError
from tests.hypercore.fuzz_decoders import all_decoders
from tests.support.fuzzing import MAX_SECONDS, Campaign, Decoder, FuzzFailure

INPUTS = 1_500


@pytest.mark.parametrize("name", all_decoders())
def test_a_decoder_returns_or_raises_what_it_says(name: str) -> None:
    campaign = Campaign(all_decoders()[name], seed=1)
    campaign.run(INPUTS)
    assert campaign.inputs == INPUTS
    assert campaign.decoded or name.startswith("proven")  # a change is true by chance only
    assert len(campaign.arcs) > 5
    assert len(campaign.corpus) > len(all_decoders()[name].examples)


def test_the_same_seed_makes_the_same_inputs() -> None:
    one, other, third = (Campaign(all_decoders()["data"], seed) for seed in (5, 5, 6))
    for campaign in (one, other, third):
        campaign.run(300)
    assert one.corpus == other.corpus != third.corpus


def decode_password(data: bytes) -> tuple[object, bytes]:
    """One more right byte is one more line reached."""
    if data[:1] != b"F":
        raise DecodeError("no F", 0)
    if data[1:2] != b"U":
        raise DecodeError("no U", 1)
    if data[2:3] != b"Z":
        raise DecodeError("no Z", 2)
    raise KeyError("found")


def toy(decode: object, name: str = "toy") -> Decoder:
    assert callable(decode)
    return Decoder(name, decode, [b"abcdef"], [__file__], (DecodeError,))


def test_coverage_leads_to_what_chance_does_not_find() -> None:
    campaign = Campaign(toy(decode_password), seed=1)
    with pytest.raises(FuzzFailure, match="raises KeyError: 'found'"):
        campaign.run(200_000)
    assert campaign.inputs < 100_000  # blindly, one in 16 million


def test_what_is_wrong_is_told_with_the_command_that_shows_it() -> None:
    def forgets(data: bytes) -> tuple[object, bytes]:
        return data, data[:2]

    with pytest.raises(FuzzFailure, match="another value when") as caught:
        Campaign(toy(forgets), seed=3).run(1000)
    found = re.search(r"--decoder 'toy' --replay ([0-9a-f]*)$", str(caught.value))
    assert found
    assert len(bytes.fromhex(found[1])) > 2


def test_hoarding_and_dawdling_are_wrong() -> None:
    def hoards(data: bytes) -> tuple[object, None]:
        return len(bytearray(1 << 20)), None

    def dawdles(data: bytes) -> tuple[object, None]:
        started = time.process_time()
        while time.process_time() - started < 1.5 * MAX_SECONDS:  # however fast the machine is
            data = hashlib.pbkdf2_hmac("sha1", data, b"salt", 10_000)
        return data, None

    with pytest.raises(FuzzFailure, match="bytes of memory for 6"):
        Campaign(toy(hoards), seed=1).run(1)
    with pytest.raises(FuzzFailure, match=r"s for [0-9]+ bytes"):
        Campaign(Decoder("slow", dawdles, [b"a"], ["none"], ()), seed=1).run(2)


def test_one_command_runs_and_replays() -> None:
    command = [sys.executable, "-m", "tests.hypercore.fuzz_campaign", "--decoder", "hints"]
    done = subprocess.run(
        [*command, "--inputs", "200", "--seed", "1"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("hints: 200 inputs, ")
    done = subprocess.run([*command, "--replay", "07"], capture_output=True, text=True, check=True)
    assert "DecodeError" in done.stdout
