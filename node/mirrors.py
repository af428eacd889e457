"""[trio] Cores of others that this node keeps whole or by range, and serves while they are away.

A mirror is an open core with a download that never ends. It is announced, and looked for, under
its discovery key, as a core is by its owner, so whoever knows the key finds the mirror as well and
gets the blocks with the owner's own proofs.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import structlog
import trio

from bee.tree import is_bee
from hypercore.core import Core
from hypercore.corestore import Corestore
from hypercore.crypto import decode_id, discovery_key, encode_id
from hypercore.downloading import LIVE, Download
from hypercore.errors import HypercoreError
from node.mirror_file import MAX_MIRRORS, MirrorSpec, save_mirrors
from node.notation import parse_address
from node.stuck_forks import explain_stuck
from node.verbs import AddMirror, ExitCode, ListMirrors, RemoveMirror, Result, VerbError
from node.web.status import MirrorStatus
from swarm.io.swarm import Swarm
from swarm.io.tasks import open_background_nursery
from swarm.known_peer import Source

KIND_SECONDS = 30.0
"""How long the first block may take, by which a bee is told from other cores."""

RETRY_SECONDS = 30.0
"""How long to wait after an error of the core or of the disk."""

SERVE_SECONDS = 5.0
"""A peer that has a core begins to serve it sooner."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Mirror:
    spec: MirrorSpec
    scope: trio.CancelScope
    ended: trio.Event
    core: Core | None = None
    download: Download | None = None
    kind: str = ""
    trouble: str = ""
    since_unix: float = field(default_factory=time.time)


class Mirrors:
    """Open it with `open_mirrors`."""

    def __init__(self, store: Corestore, path: Path, nursery: trio.Nursery) -> None:
        self._store = store
        self._path = path
        self._nursery = nursery
        self._mirrors: dict[bytes, _Mirror] = {}
        self._swarm: Swarm | None = None
        self._dialed_anyway: frozenset[tuple[str, int]] = frozenset()
        self._is_paused = False
        self._lock = trio.Lock()

    def __contains__(self, key: object) -> bool:
        return key in self._mirrors

    @property
    def specs(self) -> list[MirrorSpec]:
        return [mirror.spec for mirror in self._mirrors.values()]

    def kept_ranges(self) -> Mapping[bytes, tuple[int, int | None]]:
        """Blocks [start, stop) that are to stay, by key; None is all that comes."""
        return {key: (mirror.spec.start, mirror.spec.stop) for key, mirror in self._mirrors.items()}

    async def connect(self, swarm: Swarm, dialed_anyway: Iterable[tuple[str, int]]) -> None:
        """Announce all mirrors, look for others that have them, and dial those that are known.

        Addresses `dialed_anyway` are still dialed when no mirror names them any more.
        """
        self._swarm = swarm
        self._dialed_anyway = frozenset(dialed_anyway)
        for key, mirror in self._mirrors.items():
            await self._join(swarm, key, mirror.spec)

    def pause(self) -> None:
        """Ask for no blocks until `resume`; what is here is served."""
        self._is_paused = True
        for mirror in self._mirrors.values():
            if mirror.download is not None:
                mirror.download.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._is_paused = False
        for mirror in self._mirrors.values():
            if mirror.download is not None:
                mirror.download.resume()

    def statistics(self) -> tuple[MirrorStatus, ...]:
        """How far the mirrors are, in the order in which they were asked for."""
        return tuple(map(self._describe, self._mirrors.values()))

    async def perform(
        self, verb: AddMirror | RemoveMirror | ListMirrors
    ) -> AsyncGenerator[Result, None]:
        """Carry out one verb; the results are mirrors.

        Raises: VerbError.
        Cancel: what was asked for holds and is written down, or neither.
        """
        match verb:
            case AddMirror():
                yield _as_result(await self._add(_parse(verb)))
            case RemoveMirror():
                yield _as_result(await self._remove(verb.mirror))
            case ListMirrors():
                for status in self.statistics():
                    yield _as_result(status)

    def start(self, spec: MirrorSpec) -> None:
        """Keep a mirror from now on, without writing it down."""
        mirror = _Mirror(spec, trio.CancelScope(), trio.Event())
        self._mirrors[spec.key_bytes] = mirror
        self._nursery.start_soon(self._run, mirror)

    async def _add(self, spec: MirrorSpec) -> MirrorStatus:
        key = spec.key_bytes
        async with self._lock:
            if key not in self._mirrors and len(self._mirrors) >= MAX_MIRRORS:
                raise VerbError(ExitCode.FAILED, f"there are {MAX_MIRRORS} mirrors already")
            if any(other.spec.name == spec.name for other in self._others(key) if spec.name):
                raise VerbError(ExitCode.USAGE, f"another mirror is named {spec.name!r}")
            if await self._is_ours(key):
                raise VerbError(ExitCode.USAGE, "this node writes that core: it has all of it")
            with trio.CancelScope(shield=True):
                await self._write_down([*(m.spec for m in self._others(key)), spec])
                await self._stop(key)
                self.start(spec)
                if self._swarm is not None:
                    await self._join(self._swarm, key, spec)
        return self._describe(self._mirrors[key])

    async def _remove(self, key_or_name: str) -> MirrorStatus:
        async with self._lock:
            mirror = next((m for m in self._mirrors.values() if m.spec.is_meant(key_or_name)), None)
            if mirror is None:
                text = f"{key_or_name} is not mirrored: `beemesh mirrors` lists what is"
                raise VerbError(ExitCode.NOT_FOUND, text)
            key, status = mirror.spec.key_bytes, self._describe(mirror)
            with trio.CancelScope(shield=True):
                await self._write_down([m.spec for m in self._others(key)])
                await self._stop(key)
        return status

    def _describe(self, mirror: _Mirror) -> MirrorStatus:
        status = _describe(mirror)
        if status.trouble or status.peers or self._swarm is None:
            return status
        return replace(status, trouble="; ".join(_why_unserved(mirror, self._swarm)))

    def _others(self, key: bytes) -> list[_Mirror]:
        return [mirror for other, mirror in self._mirrors.items() if other != key]

    async def _is_ours(self, key: bytes) -> bool:
        core = await self._store.find(discovery_key(key))
        if core is None:
            return False
        try:
            return core.is_writable
        finally:
            await core.close()

    async def _write_down(self, specs: list[MirrorSpec]) -> None:
        await trio.to_thread.run_sync(save_mirrors, self._path, specs)

    async def _stop(self, key: bytes) -> None:
        mirror = self._mirrors.pop(key, None)
        if mirror is None:
            return
        mirror.scope.cancel()
        await mirror.ended.wait()
        if self._swarm is not None:
            await self._swarm.leave(discovery_key(key))
            others = (peer for other in self._mirrors.values() for peer in other.spec.peers)
            dialed = {*self._dialed_anyway, *map(parse_address, others)}
            for where in set(map(parse_address, mirror.spec.peers)) - dialed:
                self._swarm.remove_peer(*where)

    async def _join(self, swarm: Swarm, key: bytes, spec: MirrorSpec) -> None:
        await swarm.join(discovery_key(key))
        for peer in spec.peers:
            swarm.add_peer(*parse_address(peer))

    async def _run(self, mirror: _Mirror) -> None:
        """Keep a mirror until it is stopped; after a bad disk or a frozen core, try again."""
        with mirror.scope:
            while True:
                try:
                    await self._keep(mirror)
                except HypercoreError as error:
                    mirror.trouble = str(error)
                    _log.warning("mirror failed", key=mirror.spec.key, reason=str(error))
                await trio.sleep(RETRY_SECONDS)
        mirror.core = mirror.download = None
        mirror.ended.set()

    async def _keep(self, mirror: _Mirror) -> None:
        spec = mirror.spec
        core = await self._store.get(key=spec.key_bytes)
        try:
            mirror.core = core
            stop = LIVE if spec.stop is None else spec.stop
            async with core.downloading(spec.start, stop) as download:
                mirror.download, mirror.trouble = download, ""
                if self._is_paused:
                    download.pause()
                await core.wait_length(1)
                with trio.move_on_after(KIND_SECONDS):
                    mirror.kind = "bee" if await is_bee(core) else "core"
                if (spec.kind, mirror.kind) == ("bee", "core"):
                    mirror.trouble = "it is no bee: its first block is no header"
                    download.cancel()
                    await trio.sleep_forever()
                await download.done()  # a live one never is, unless it fails
                await trio.sleep_forever()
        finally:
            mirror.core = mirror.download = None
            await core.close()


@asynccontextmanager
async def open_mirrors(
    store: Corestore, path: Path, specs: list[MirrorSpec]
) -> AsyncIterator[Mirrors]:
    """Keep these, and what is asked for, until the block ends."""
    async with open_background_nursery() as nursery:
        mirrors = Mirrors(store, path, nursery)
        for spec in specs:
            mirrors.start(spec)
        yield mirrors


def _describe(mirror: _Mirror) -> MirrorStatus:
    spec, core = mirror.spec, mirror.core
    length = 0 if core is None else core.length
    stop = length if spec.stop is None else min(spec.stop, length)
    wanted = max(0, stop - spec.start)
    held = 0 if core is None or not wanted else core.bitfield.count(spec.start, stop)
    trouble = mirror.trouble
    if core is not None and core.is_frozen:
        trouble = "frozen: its writer signed two histories"
    elif core is not None and (stuck := core.stuck_fork) is not None:
        trouble = explain_stuck(core.key, stuck)
    elif core is not None and not trouble and held < wanted and core.replication.peers:
        missing = core.bitfield.first_unset(spec.start)
        if core.replication.nobody_has(missing):
            trouble = f"no peer has block {missing}: its owner may have given it up"
    return MirrorStatus(
        key=encode_id(spec.key_bytes),
        name=spec.name,
        kind=mirror.kind,
        start=spec.start,
        stop=spec.stop,
        length=length,
        fork=0 if core is None else core.fork,
        byte_length=0 if core is None else core.byte_length,
        wanted=wanted,
        held=held,
        is_complete=bool(length) and held == wanted,
        peers=0 if core is None else len(core.replication.peers),
        trouble=trouble,
    )


def _why_unserved(mirror: _Mirror, swarm: Swarm) -> Iterator[str]:
    """What is wrong with each of the peers named for it, as far as that is known."""
    by_address = {peer.addresses: peer for peer in swarm.peers if peer.source is Source.STATIC}
    connected = {info.remote_public_key: info.since_unix_ms / 1000 for info in swarm.connections}
    for text in mirror.spec.peers:
        peer = by_address.get((parse_address(text),))
        if peer is None:
            continue
        since = connected.get(peer.public_key or b"")
        if since is None and peer.last_error:
            yield f"{text} is not reached: {peer.last_error}"
        elif since is not None and time.time() - max(since, mirror.since_unix) > SERVE_SECONDS:
            yield f"{text} does not serve it: it lacks it, or serves the members of its mesh only"


def _parse(verb: AddMirror) -> MirrorSpec:
    """Raises: VerbError."""
    try:
        start, stop = _parse_range(verb.range)
        key = decode_id(verb.key).hex()
        return MirrorSpec(key, verb.name, verb.kind, start, stop, verb.peers)
    except ValueError as error:
        raise VerbError(ExitCode.USAGE, str(error)) from None


def _parse_range(text: str) -> tuple[int, int | None]:
    """`a:b`, `a:` or `:b`; empty text is everything. Raises: ValueError."""
    match = re.fullmatch(r"(\d{0,15}):(\d{0,15})", text or ":")
    if match is None:
        raise ValueError(f"{text!r} is no range of blocks: write 0:1000 or 1000:")
    return int(match.group(1) or 0), int(match.group(2)) if match.group(2) else None


def _as_result(status: MirrorStatus) -> Result:
    return asdict(status)
