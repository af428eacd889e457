"""Opening the data cores of members.

An encryption holds for all users of a core. In an encrypted mesh what a member calls its data core
gets the mesh's key, and no block may be here yet that would show that it is something else. So a
core that is in use here for another purpose is left as it is, unless the member proves that it
writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hypercore.core import Core
from hypercore.crypto import discovery_key
from hypercore.errors import UsageError


class DataCores(Protocol):
    """What is needed of the corestore."""

    async def get(self, *, key: bytes, encryption_key: bytes | None = None) -> Core: ...
    async def find(self, discovery_key: bytes, /) -> Core | None: ...
    def open_cores(self) -> Sequence[Core]: ...


async def open_data_core(
    cores: DataCores, key: bytes, encryption_key: bytes | None, *, is_proven: bool
) -> Core:
    """The core that a member calls its own; `is_proven` if the member showed that it writes it.

    Raises: UsageError for one that is used here otherwise, StorageError.
    """
    if encryption_key is not None:
        await _check_free(cores, key, is_proven=is_proven)
    return await cores.get(key=key, encryption_key=encryption_key)


async def _check_free(cores: DataCores, key: bytes, *, is_proven: bool) -> None:
    is_open = any(core.key == key for core in cores.open_cores())
    core = await cores.find(discovery_key(key))
    if core is None:
        return
    try:
        if core.bitfield.count(0, core.length):
            return  # its blocks tell whether it has the mesh's key
        if core.is_writable:
            raise UsageError("it is a core that this node writes")
        if is_open and not is_proven and not core.info().is_encrypted:
            raise UsageError("it is in use here, and nothing shows that the member writes it")
    finally:
        core.release()
