"""Several signers, each with a log and a key pair of its own, and the core that they share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from hypercore import (
    Core,
    Corestore,
    KeyPair,
    Manifest,
    Prologue,
    open_corestore,
    signable_length,
)
from hypercore.replication.messages import PROTOCOL
from tests.support.stream_pair import open_mux_pair

LIMIT_SECONDS = 20


class SigningParty:
    """The signers' own logs; `blocks` are appended to all of them, each as far as it has got."""

    def __init__(self, stores: Sequence[Corestore], logs: Sequence[Core]) -> None:
        self.stores = stores
        self.logs = logs

    @property
    def public_keys(self) -> list[bytes]:
        return [self.key_pair(index).public_key for index in range(len(self.logs))]

    def key_pair(self, index: int) -> KeyPair:
        key_pair = self.logs[index].key_pair
        assert key_pair is not None
        return key_pair

    def manifest(self, prologue: Prologue | None = None, *, allow_patch: bool = True) -> Manifest:
        """Of all signers, more than half of whom must sign."""
        return Manifest.multi_signer(self.public_keys, allow_patch=allow_patch, prologue=prologue)

    async def extend(self, index: int, length: int) -> None:
        """The signer's log goes on with the numbers of its blocks."""
        log = self.logs[index]
        await log.append([b"%d" % number for number in range(log.length, length)])

    def length(self, *signers: int) -> int:
        """What these signers, two of whom must sign, have in common."""
        return signable_length((self.logs[index].length for index in signers), 2)

    def sign(self, core: Core, signers: Sequence[int], length: int) -> bytes:
        """The signature of the shared core at `length`, by these signers from their own logs."""
        assert core.manifest is not None
        proposal = core.propose([b"%d" % number for number in range(core.length, length)])
        collector = proposal.collector()
        for index in signers:
            collector.add(self.logs[index].sign_for(core.manifest, length=length))
        return collector.signature


@asynccontextmanager
async def open_signing_party(count: int) -> AsyncIterator[SigningParty]:
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_corestore(None)) for _ in range(count)]
        yield SigningParty(stores, [await store.get(name="log") for store in stores])


@asynccontextmanager
async def replicating(one: Corestore, other: Corestore) -> AsyncIterator[None]:
    """Both stores on one connection, for at most `LIMIT_SECONDS`."""
    async with open_mux_pair(PROTOCOL) as (mux, other_mux), trio.open_nursery() as nursery:
        nursery.start_soon(one.replicate, mux)
        nursery.start_soon(other.replicate, other_mux)
        with trio.fail_after(LIMIT_SECONDS):
            yield
        nursery.cancel_scope.cancel()


async def wait_fork(core: Core, fork: int) -> None:
    """Until the core has followed its writer to this fork."""
    while core.fork < fork:
        await trio.lowlevel.checkpoint()
