"""[trio] Several cores of one store changed in one commit, or not at all.

Each core is changed through its draft. Leaving the block without an exception commits all drafts
in one batch, signs each head once, and waits for the disk once; an exception or a cancellation
before that moment leaves no trace of any of them, and a crash leaves all of it or nothing.

The writers' locks of all cores are held meanwhile, taken in the order of their discovery keys: of
two atoms over the same cores one waits for the other, and never both.

Source: hypercore-storage 3.3.1 lib/atom.js. There, sessions of an atom hold no lock, and that
somebody else appended to a core meanwhile shows only at the flush.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from hypercore.core import Core
from hypercore.draft import Draft
from hypercore.errors import UsageError
from hypercore.storage import Storage


class Atom:
    """Drafts of several cores. Made by `Corestore.atom`."""

    def __init__(self, storage: Storage, cores: Sequence[Core]) -> None:
        self._storage = storage
        # By log, not by core: several cores may stand for one log.
        self._cores = {core.discovery_key: core for core in cores}
        self._drafts = {key: core.draft() for key, core in self._cores.items()}
        self._is_over = False

    def __getitem__(self, core: Core) -> Draft:
        """The core as it will be. Raises: UsageError for a core that the atom is not about."""
        draft = self._drafts.get(core.discovery_key)
        if draft is None:
            raise UsageError(f"core {core.discovery_key.hex()} is not one of this atom's")
        self._check_going_on()
        return draft

    def _check_going_on(self) -> None:
        """Raises: UsageError."""
        if self._is_over:
            raise UsageError("the atom is over: what was not committed is gone")

    async def flush(self) -> None:
        """Commit what was drafted so far, durably; the drafts go on from there.

        Raises: UsageError when the atom is over, or a core changed under it (peers can extend a
        core with several signers), trio.ClosedResourceError when one was closed or removed; then
        nothing was done. StorageFailed. Cancel: all of it was written, or nothing.
        """
        self.commit()
        await self.wait_durable()

    def commit(self) -> None:
        """As `flush`, without waiting for the disk."""
        self._check_going_on()
        changed = {key: draft for key, draft in self._drafts.items() if draft.is_changed}
        for draft in changed.values():
            draft.sign()
        if not changed:
            return
        batch = self._storage.batch()
        try:
            for draft in changed.values():
                draft.stage(batch)
            sequence = self._storage.commit(batch)
        except BaseException as error:
            for draft in changed.values():
                draft.poison(error)
            raise
        # All of them first: whoever is told of one sees the others changed as well.
        outcomes = {key: draft.settle(sequence) for key, draft in changed.items()}
        for key, outcome in outcomes.items():
            self._cores[key].draft_settled(outcome)

    async def wait_durable(self) -> None:
        """Return when all that was committed is durable. Cancel: takes back nothing."""
        for core in self._cores.values():
            await core.wait_durable()  # the first one waits for all

    def end(self) -> None:
        """Forget what was not committed."""
        self._is_over = True
        for draft in self._drafts.values():
            draft.end()


@asynccontextmanager
async def open_atom(storage: Storage, cores: Sequence[Core]) -> AsyncIterator[Atom]:
    """See `Corestore.atom`."""
    async with AsyncExitStack() as locks:
        for core in sorted(cores, key=lambda core: core.discovery_key):
            if core.storage is not storage:
                raise UsageError(f"core {core.discovery_key.hex()} is in another store")
            await locks.enter_async_context(core.exclusive())
        atom = Atom(storage, cores)
        try:
            yield atom
            atom.commit()
        finally:
            atom.end()
    # Others may write while we wait for the disk.
    await atom.wait_durable()
