"""A log that two of three people must sign: `python examples/several_signers.py`.

Nobody shows anybody a secret key. What goes between them are the bytes to sign and the parts of the
signature: here within one program, in earnest between three.
"""

from __future__ import annotations

import trio

from hypercore import KeyPair, Manifest, open_corestore
from hypercore.crypto import sign


async def main() -> None:
    people = {name: KeyPair.generate() for name in ("Alice", "Bob", "Carol")}
    manifest = Manifest.multi_signer([pair.public_key for pair in people.values()])
    print(f"{manifest.quorum} of {len(manifest.signers)} must sign")

    async with open_corestore(None) as store:
        core = await store.get(manifest=manifest)
        blocks = [b"We buy a boat.", b"It is blue."]
        proposal = core.propose(blocks)
        collector = proposal.collector()
        for name in ("Carol", "Alice"):
            signature = sign(
                proposal.signable(), people[name].secret_key
            )  # wherever that person is
            collector.add_signature(people[name].public_key, signature)
            print(f"{name} signed, {collector.missing} missing")

        await core.append(blocks, signature=collector.signature)
        async for block in core.blocks():
            print(block.decode())


if __name__ == "__main__":
    trio.run(main)
