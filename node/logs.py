"""[trio] The `core` and `bee` verbs, carried out on an open store.

Blocks that are not here are asked for from connected peers, for as long as the verb allows.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import assert_never

import msgspec
import trio

from bee.bee import Bee
from bee.errors import BeeError, NotABee
from hypercore.core import Core
from hypercore.corestore import Corestore
from hypercore.crypto import decode_id, discovery_key, encode_id
from hypercore.errors import (
    BlockNotAvailable,
    CoreFrozen,
    CoreRecovering,
    NotWritable,
    OutOfRange,
    PrunedHistory,
    RemoteProtocolError,
)
from node.auditing import verify_core, verify_store
from node.stuck_forks import explain_stuck
from node.verbs import (
    BeeCompact,
    BeeGet,
    BeeInfo,
    BeeList,
    BeePut,
    CoreAppend,
    CoreClear,
    CoreGet,
    CoreInfo,
    CoreList,
    CoreProof,
    CorePurge,
    CoreRecover,
    CoreTruncate,
    CoreVerify,
    ExitCode,
    LogVerb,
    Result,
    VerbError,
    encode_bytes,
)

DATA_CORE = "beemesh/data"
"""Holds coValues: only the sync engine may write to it."""

MIN_KEY_CHARACTERS = 8
"""With so many, the beginning of a key stands for the whole one."""

MAX_CLAIMS_NAMED = 8

_LOCAL_SECONDS = 1.0  # for a step that no other node can help with: what is missing stays missing


async def perform_on_store(
    store: Corestore, verb: LogVerb, *, can_fetch: bool
) -> AsyncGenerator[Result, None]:
    """Carry out one verb; `can_fetch` says that a node runs, so others may be connected.

    Raises: VerbError; HypercoreError for a damaged store.
    Cancel: a write was done whole or not at all.
    """
    verb = await _in_full(store, verb)
    try:
        match verb:
            case CoreList():
                for name in store.names():
                    yield await _describe_named(store, name)
            case CoreAppend() | BeePut():
                yield await _write(store, verb)
            case BeeCompact():
                yield await _compact(store, verb, may_append_data=can_fetch)
            case CoreTruncate() | CoreClear():
                yield await _cut(store, verb)
            case CorePurge() | CoreRecover():
                yield await _care(store, verb, can_fetch)
            case _:
                async with aclosing(_results(store, verb, can_fetch)) as results:
                    async for result in results:
                        yield result
    except (OutOfRange, PrunedHistory) as error:
        raise VerbError(ExitCode.USAGE, str(error)) from error
    except NotWritable as error:
        text = store.why_read_only or f"{error}: only the holder of its secret key writes"
        raise VerbError(ExitCode.FAILED, text) from error
    except (BeeError, BlockNotAvailable, RemoteProtocolError, CoreFrozen) as error:
        raise VerbError(ExitCode.FAILED, str(error)) from error


async def _in_full(store: Corestore, verb: LogVerb) -> LogVerb:
    """The same verb with the key of the core that is here whose key begins as it says.

    Verbs that may make a core take that for a name. Raises: VerbError if several begin so.
    """
    if isinstance(verb, CoreList | CoreAppend | BeePut) or verb.core in store.names():
        return verb
    if len(verb.core) < MIN_KEY_CHARACTERS or _read_key(verb.core) is not None:
        return verb
    begun = verb.core.lower()
    keys = [
        encode_id(core.key)
        async for core in store.cores(is_here=True)
        if begun in (core.key.hex()[: len(begun)], encode_id(core.key)[: len(begun)])
    ]
    if len(keys) > 1:
        some = ", ".join(keys[:MAX_CLAIMS_NAMED])
        raise VerbError(ExitCode.USAGE, f"{len(keys)} keys begin with {verb.core}: {some}")
    return msgspec.structs.replace(verb, core=keys[0]) if keys else verb


async def _write(store: Corestore, verb: CoreAppend | BeePut) -> Result:
    await _refuse_data(store, verb.core, "write to it through a Jazz client")
    async with _open_core(store, verb.core, may_create=True, may_name=True) as core:
        if isinstance(verb, BeePut):
            bee = _open_bee(core)
            await bee.put(verb.key, verb.value)
            return {"version": bee.version, "key": encode_id(core.key)}
        index = await core.append(verb.blocks)
        return {"index": index, "length": core.length, "key": encode_id(core.key)}


async def _refuse_data(store: Corestore, name_or_key: str, advice: str) -> None:
    """Raises: VerbError, if that is the name or the key of the node's data."""
    key = _read_key(name_or_key)
    if name_or_key == DATA_CORE or (key is not None and await _is_data(store, key)):
        raise VerbError(ExitCode.USAGE, f"{DATA_CORE} holds the coValues: {advice}")


async def _is_data(store: Corestore, key: bytes) -> bool:
    named = {core.name: core.key async for core in store.cores(is_here=True)}
    return named.get(DATA_CORE) == key


async def _cut(store: Corestore, verb: CoreTruncate | CoreClear) -> Result:
    await _refuse_data(
        store, verb.core, "delete them through a Jazz client, then `beemesh compact`"
    )
    async with _open_core(store, verb.core, may_create=False) as core:
        if isinstance(verb, CoreTruncate):
            before = core.length
            if not 0 <= verb.length <= before:
                text = f"{verb.core} has {before} blocks, and cannot be cut back to {verb.length}"
                raise VerbError(ExitCode.USAGE, text)
            await core.truncate(verb.length)
            return {"length": core.length, "fork": core.fork, "blocks": before - core.length}
        if not 0 <= verb.start <= verb.stop <= core.length:
            asked = f"from {verb.start} to {verb.stop}"
            text = f"there are no blocks {asked} to clear: {verb.core} has {core.length}"
            raise VerbError(ExitCode.USAGE, text)
        freed = await core.clear(verb.start, verb.stop)
        return {"length": core.length, "fork": core.fork, "blocks": freed}


async def _care(store: Corestore, verb: CorePurge | CoreRecover, can_fetch: bool) -> Result:
    if isinstance(verb, CorePurge):
        return await _purge(store, verb.core)
    return await _recover(store, verb, can_fetch)


async def _recover(store: Corestore, verb: CoreRecover, can_fetch: bool) -> Result:
    await _refuse_data(store, verb.core, "a node that starts asks the members of its mesh")
    async with _open_core(store, verb.core, may_create=False) as core:
        if core.is_recovering and verb.alone:
            await core.end_recovering()
        elif core.is_recovering and not can_fetch:
            text = "no node runs here, so nobody can be asked; --alone if nobody else ever had it"
            raise VerbError(ExitCode.NO_NODE, text)
        with trio.move_on_after(verb.timeout_seconds) as waiting:
            await core.recover()
        if waiting.cancelled_caught:
            text = f"{verb.core} still takes no more: {_why_waiting(core)}"
            raise VerbError(ExitCode.TIMEOUT, text)
        return {"length": core.length, "fork": core.fork, "key": encode_id(core.key)}


def _why_waiting(core: Core) -> str:
    if not core.replication.peers:
        return "no peer is connected"
    claims = core.unproven_claims()
    more = (
        f", and {len(claims) - MAX_CLAIMS_NAMED} others" if len(claims) > MAX_CLAIMS_NAMED else ""
    )
    named = "; ".join(map(str, claims[:MAX_CLAIMS_NAMED]))
    return named + more or "no peer has been connected for long enough"


async def _purge(store: Corestore, name_or_key: str) -> Result:
    await _refuse_data(store, name_or_key, "it goes with the data directory only")
    async with _open_core(store, name_or_key, may_create=False) as core:
        held, key, discovery_key = core.info().blocks_held, core.key, core.discovery_key
    if any(core.discovery_key == discovery_key for core in store.open_cores()):
        raise VerbError(
            ExitCode.FAILED, f"the node is using {name_or_key}: stop it, then purge the core"
        )
    await store.purge(discovery_key=discovery_key)
    await store.reclaim()
    return {"key": encode_id(key), "blocks": held}


async def _verify(store: Corestore, verb: CoreVerify) -> AsyncGenerator[Result, None]:
    if not verb.core:
        async with aclosing(verify_store(store)) as results:
            async for result in results:
                yield result
        return
    async with (
        _open_core(store, verb.core, may_create=False) as core,
        aclosing(verify_core(core, None if _read_key(verb.core) else verb.core)) as results,
    ):
        async for result in results:
            yield result


async def _compact(store: Corestore, verb: BeeCompact, *, may_append_data: bool) -> Result:
    """Without a running node nothing is appended to the node's own data.

    The members may know more of it than is here, and only a running node asks them: appending
    without that would fork it. The present version is given as one to keep, so no nodes move.
    """
    name = verb.core or DATA_CORE
    if not verb.core and name not in store.names():
        text = "there is no data bee here to compact: SQLite gives room back by itself"
        raise VerbError(ExitCode.NOT_FOUND, text)
    async with _open_core(store, name, may_create=False) as core:
        bee = _open_bee(core)
        try:
            with trio.fail_after(verb.timeout_seconds):
                if core.length:
                    await bee.header()  # of a core that is no bee nothing is given up
                moves = may_append_data or name != DATA_CORE
                versions = [] if moves else [bee.version]
                done = await bee.compact(versions=versions, dry_run=verb.dry_run, prune=verb.prune)
                if not verb.dry_run:
                    await store.reclaim()
        except trio.TooSlowError as error:
            text = f"{name} is not done; what is gone is gone, run it again for the rest"
            raise VerbError(ExitCode.TIMEOUT, text) from error
    return {
        "name": name,
        "dry_run": verb.dry_run,
        "blocks": done.blocks,
        "bytes": done.size_bytes,
        "blocks_kept": done.kept,
        "blocks_appended": done.appended,
        "nodes_moved": done.rewritten,
        "subtrees_pruned": done.pruned,
    }


def _results(
    store: Corestore,
    verb: CoreVerify | CoreInfo | CoreGet | CoreProof | BeeInfo | BeeGet | BeeList,
    can_fetch: bool,
) -> AsyncGenerator[Result, None]:
    return _verify(store, verb) if isinstance(verb, CoreVerify) else _read(store, verb, can_fetch)


async def _read(
    store: Corestore,
    verb: CoreInfo | CoreGet | CoreProof | BeeInfo | BeeGet | BeeList,
    can_fetch: bool,
) -> AsyncGenerator[Result, None]:
    seconds = verb.timeout_seconds if can_fetch else _LOCAL_SECONDS
    async with _open_core(store, verb.core, may_create=can_fetch) as core:
        if can_fetch and not core.is_writable:
            with _patience(seconds, core):
                await _update(core)
        match verb:
            case CoreInfo():
                yield _describe(core)
            case CoreGet():
                yield await _get_block(core, verb.index, seconds)
            case CoreProof():
                yield await _prove(core, verb, seconds)
            case BeeInfo():
                with _patience(seconds, core):
                    header = await _open_bee(core).header()
                metadata = header.metadata
                kind = metadata.content_feed if metadata is not None else None
                yield {**_describe(core), "version": core.length, "content_feed": _hex(kind)}
            case BeeGet():
                with _patience(seconds, core):
                    entry = await _open_bee(core).get(verb.key)
                if entry is None:
                    text = f"{verb.core} has no such key: try `beemesh bee ls {verb.core}`"
                    raise VerbError(ExitCode.NOT_FOUND, text)
                yield {"seq": entry.seq, **encode_bytes("value", entry.value or b"")}
            case BeeList():
                async with aclosing(_list_entries(core, verb, seconds)) as results:
                    async for result in results:
                        yield result
            case _:
                assert_never(verb)


async def _list_entries(core: Core, verb: BeeList, seconds: float) -> AsyncGenerator[Result, None]:
    end = _after_prefix(verb.prefix)
    entries = aiter(
        _open_bee(core).range(
            gte=verb.prefix or None,
            lt=end,
            reverse=verb.reverse,
            limit=verb.limit or None,
        )
    )
    while True:
        # Around each step: a scope must not be open while the caller runs, and a long list that
        # keeps coming is not late.
        with _patience(seconds, core):
            entry = await anext(entries, None)
        if entry is None:
            return
        key = encode_bytes("key", entry.key)
        value = encode_bytes("value", entry.value or b"")
        yield {
            "seq": entry.seq,
            "key": key["key"],
            "key_encoding": key["encoding"],
            **value,
        }


async def _get_block(core: Core, index: int, seconds: float) -> Result:
    try:
        with _patience(seconds, core):
            block = await core.get(_checked(index, core))
    except OutOfRange as error:
        raise VerbError(
            ExitCode.NOT_FOUND, f"block {index} is not there: the core has {core.length} blocks"
        ) from error
    return {"index": index, **encode_bytes("value", block)}


def _checked(index: int, core: Core) -> int:
    """Raises: OutOfRange for what no core has, and no storage can look up."""
    if index >= 1 << 64:
        raise OutOfRange(index, core.length)
    return index


async def _prove(core: Core, verb: CoreProof, seconds: float) -> Result:
    if verb.fork:
        evidence = core.fork_proof
        if evidence is None:
            raise VerbError(ExitCode.NOT_FOUND, f"nothing is known of two histories of {verb.core}")
        return encode_bytes("proof", evidence.encode())
    try:
        with _patience(seconds, core):
            proof = await core.prove(None if verb.index is None else _checked(verb.index, core))
    except OutOfRange as error:
        wanted = "no head is signed" if verb.index is None else f"block {verb.index} is not there"
        raise VerbError(
            ExitCode.NOT_FOUND, f"{wanted}: the core has {core.length} blocks"
        ) from error
    return encode_bytes("proof", proof.encode())


@asynccontextmanager
async def _open_core(
    store: Corestore, name_or_key: str, *, may_create: bool, may_name: bool = False
) -> AsyncIterator[Core]:
    key = _read_key(name_or_key)
    names = store.names()
    if not name_or_key and "" not in names:
        raise VerbError(ExitCode.USAGE, "a core has a name or a key, and none is given")
    if key is None and name_or_key not in names and not (may_create and may_name):
        close = difflib.get_close_matches(name_or_key, names, n=1)
        hint = f"did you mean {close[0]}?" if close else "`beemesh core ls` lists the names"
        raise VerbError(ExitCode.NOT_FOUND, f"there is no core named {name_or_key!r}: {hint}")
    if key is not None and not may_create and not _is_stored(store, key):
        raise VerbError(
            ExitCode.NOT_FOUND, "that core is not stored here: `beemesh up` runs a node to fetch it"
        )
    core = await (store.get(name=name_or_key) if key is None else store.get(key=key))
    try:
        yield core
    except CoreRecovering as error:
        text = f"{error}: `beemesh core recover {name_or_key}`"
        raise VerbError(ExitCode.FAILED, text) from error
    except NotABee as error:
        raise VerbError(ExitCode.FAILED, f"{name_or_key} is no bee: {error}") from error
    finally:
        await core.close()


def _read_key(text: str) -> bytes | None:
    try:
        return decode_id(text)
    except ValueError:
        return None


async def _update(core: Core) -> None:
    """Learn a newer head from connected peers; a key alone says no length, so wait for one."""
    if core.replication.peers:
        await core.update()
    if not core.length:
        await core.wait_length(1)


def _is_stored(store: Corestore, key: bytes) -> bool:
    return discovery_key(key) in store.discovery_keys()


def _open_bee(core: Core) -> Bee[bytes, bytes]:
    """Without the extension on a core of ours: the bee that is open there answers it."""
    return Bee(core, extension=not core.is_writable)


@contextmanager
def _patience(seconds: float, core: Core) -> Iterator[None]:
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError as error:
        peers = len(core.replication.peers)
        asked = f"none of {peers} connected peers" if peers else "no connected peer"
        raise VerbError(
            ExitCode.TIMEOUT, f"{asked} gave what is missing here: connect one that holds it"
        ) from error


async def _describe_named(store: Corestore, name: str) -> Result:
    core = await store.get(name=name)
    try:
        return {"name": name, **_describe(core)}
    finally:
        await core.close()


def _describe(core: Core) -> dict[str, object]:
    info = core.info()
    return {
        "key": encode_id(info.key),
        "key_hex": info.key.hex(),
        "discovery_key": info.discovery_key.hex(),
        "is_writable": info.is_writable,
        "length": info.length,
        "byte_length": info.byte_length,
        "contiguous_length": info.contiguous_length,
        "durable_length": info.durable_length,
        "fork": info.fork,
        "is_recovering": info.is_recovering,
        "is_frozen": info.is_frozen,
        "blocks_held": info.blocks_held,
        "peers": info.peers,
        "trouble": None if core.stuck_fork is None else explain_stuck(core.key, core.stuck_fork),
    }


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex()


def _after_prefix(prefix: bytes) -> bytes | None:
    """The smallest key behind all that begin with `prefix`; None when there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else None
