"""Feed every decoder of logs damaged inputs, guided by which lines they reach.

    python -m tests.hypercore.fuzz_campaign --decoder all --inputs 1000000 --seed 1

It stops with exit code 1 at the first input that a decoder does something with that it must not
(`tests/support/fuzzing.py` says what), and prints the decoder, the seed, the input, and the command
that shows it again:

    python -m tests.hypercore.fuzz_campaign --decoder manifest --replay 0100

The verdicts of the originals on such inputs are compared by `tests/interop/test_decoders.py`.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time

from tests.hypercore.fuzz_decoders import all_decoders
from tests.support.fuzzing import Campaign, Decoder, FuzzFailure, check, traced_arcs

MAX_GROWTH_KIB = 64 * 1024
"""How much larger the process may become while one decoder is fed."""


def run(decoder: Decoder, count: int, seed: int) -> None:
    """Raises: FuzzFailure."""
    size_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    campaign = Campaign(decoder, seed)
    campaign.run(count)
    seconds = time.monotonic() - started
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size_before
    if growth > MAX_GROWTH_KIB:
        raise FuzzFailure(f"{decoder.name}, seed {seed}: the process grew by {growth} KiB")
    print(  # noqa: T201
        f"{decoder.name}: {count} inputs, {campaign.decoded} decoded, {len(campaign.arcs)} arcs, "
        f"{len(campaign.corpus)} kept, {seconds:.0f} s, {count / max(seconds, 0.001):.0f} /s",
        flush=True,
    )


def replay(decoder: Decoder, data: bytes) -> None:
    """Raises: FuzzFailure."""
    outcome = check(decoder, data)
    traced_arcs(decoder, data)
    print(f"{decoder.name}: {outcome}")  # noqa: T201


def main() -> int:
    decoders = all_decoders()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoder", choices=["all", *decoders], default="all")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--replay", metavar="HEX", type=bytes.fromhex)
    arguments = parser.parse_args()
    chosen = list(decoders.values())
    if arguments.decoder != "all":
        chosen = [decoders[arguments.decoder]]
    try:
        for decoder in chosen:
            if arguments.replay is not None:
                replay(decoder, arguments.replay)
            else:
                run(decoder, arguments.inputs, arguments.seed)
    except FuzzFailure as failure:
        print(f"seed {arguments.seed}: {failure}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
