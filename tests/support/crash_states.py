"""Which directories a power cut may leave, by the trace of what was written and synced.

The model is weaker than what ext4, xfs and btrfs do, and than what RocksDB builds on:

* A completed fsync or fdatasync of a file makes durable what was done to its content before the
  sync began; what is durable stays.
* Names are durable after an fsync of the directory that holds them. A file without a durable name
  is gone, synced or not. A rename happens as a whole or not at all.
* Of everything else any part may be there, see `Survival`; but a disk that reorders names
  (`PAGES`) keeps those that a file had when it was synced. One that does neither, such as ext2,
  can leave RocksDB without its manifest: it then refuses to open.
* After a sync that failed, nothing later makes this file durable: the system may have forgotten
  which pages were lost.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from tests.support.power_cut import Kind, Record

PAGE_BYTES = 4096

ORIGINALS = frozenset({"CORESTORE"})
"""Files that know their inode; complete ones are linked from the directory that was traced."""


class Survival(Enum):
    """What is left of the changes that were not synced."""

    NOTHING = auto()
    EVERYTHING = auto()
    """As after a kill of the process."""
    ORDERED = auto()
    """All up to some moment, the last write torn: a disk that reorders nothing."""
    PREFIXES = auto()
    """Of each file and directory its own first changes, the last write torn."""
    PAGES = auto()
    """Each page of a file as it was at a moment of its own, and any subset of the names."""


@dataclass(frozen=True, slots=True)
class Write:
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    length: int


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str
    value: bytes


Change = Write | Truncate | Attribute


@dataclass(slots=True)
class Content:
    """A file's bytes and attributes."""

    data: bytearray = field(default_factory=bytearray)
    attributes: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> Content:
        return Content(bytearray(self.data), dict(self.attributes))

    def apply(self, change: Change) -> None:
        data = self.data
        match change:
            case Write(offset, written):
                data.extend(bytes(max(0, offset - len(data))))
                data[offset : offset + len(written)] = written
            case Truncate(length):
                del data[length:]
                data.extend(bytes(length - len(data)))
            case Attribute(name, value):
                self.attributes[name] = value


@dataclass(slots=True, eq=False)
class File:
    durable: Content = field(default_factory=Content)
    pending: list[tuple[int, Change]] = field(default_factory=list)
    """(position in the trace, change), in order."""
    is_failed: bool = False
    synced: int = 0
    """Where the last successful sync began."""

    def sync(self, begin: int) -> None:
        """Everything before position `begin` is durable."""
        self.synced = max(self.synced, begin)
        count = sum(position < begin for position, _ in self.pending)
        for _, change in self.pending[:count]:
            self.durable.apply(change)
        del self.pending[:count]

    def content(self) -> Content:
        """As the running system sees it."""
        content = self.durable.copy()
        for _, change in self.pending:
            content.apply(change)
        return content


@dataclass(frozen=True, slots=True)
class Naming:
    """`node` gets name `added` and loses `removed`; None: no such name."""

    node: File | Directory
    added: str | None = None
    removed: str | None = None

    def is_kept_by_file(self, position: int) -> bool:
        """Whether the file was synced under this name; `position` is where it got it."""
        node = self.node
        return self.added is not None and isinstance(node, File) and position < node.synced

    def apply(self, names: dict[str, File | Directory]) -> None:
        if self.added is not None:
            names[self.added] = self.node
        if self.removed is not None and names.get(self.removed) is self.node:
            del names[self.removed]


@dataclass(slots=True, eq=False)
class Directory:
    durable: dict[str, File | Directory] = field(default_factory=dict)
    names: dict[str, File | Directory] = field(default_factory=dict)
    """As the running system sees it."""
    pending: list[tuple[int, Naming]] = field(default_factory=list)
    is_failed: bool = False

    def change(self, position: int, naming: Naming) -> None:
        naming.apply(self.names)
        self.pending.append((position, naming))

    def sync(self, begin: int) -> None:
        count = sum(position < begin for position, _ in self.pending)
        for _, naming in self.pending[:count]:
            naming.apply(self.durable)
        del self.pending[:count]


Node = File | Directory


class Disk:
    """A directory while its trace is followed."""

    def __init__(self, path: Path) -> None:
        """`path` is what was traced; `load` it unless it was empty before."""
        self.path = path
        self.root = Directory()
        self.position = 0
        self.output: list[bytes] = []
        self._open: dict[int, Node] = {}
        self._syncs: dict[int, tuple[Node, int]] = {}

    def load(self) -> None:
        """Take what is in the directory now as durable."""
        self.root = _loaded(self.path)

    def apply(self, record: Record) -> None:
        """Follow the next record."""
        match record.kind:
            case Kind.OPEN:
                self._open[record.fd] = self._opened(record)
            case Kind.CLOSE:
                del self._open[record.fd]
            case Kind.WRITE:
                self._change(record.fd, Write(record.number, record.data))
            case Kind.TRUNCATE:
                self._change(record.fd, Truncate(record.number))
            case Kind.ATTRIBUTE:
                self._change(record.fd, Attribute(record.data.decode(), record.data2))
            case Kind.SYNC_BEGIN:
                self._syncs[record.number] = (self._open[record.fd], self.position)
            case Kind.SYNC_END | Kind.SYNC_FAILED:
                node, begin = self._syncs.pop(record.number)
                node.is_failed |= record.kind is Kind.SYNC_FAILED
                if not node.is_failed:
                    node.sync(begin)
            case Kind.OUTPUT:
                self.output += record.data.splitlines()
            case _:
                self._rename(record)
        self.position += 1

    def _change(self, fd: int, change: Change) -> None:
        file = self._open[fd]
        assert isinstance(file, File)
        file.pending.append((self.position, change))

    def _parent(self, path: bytes) -> tuple[Directory, str]:
        *parents, name = os.fsdecode(path).removeprefix(str(self.path)).split("/")[1:]
        directory = self.root
        for parent in parents:
            found = directory.names[parent]
            assert isinstance(found, Directory)
            directory = found
        return directory, name

    def _opened(self, record: Record) -> Node:
        if os.fsdecode(record.data) == str(self.path):
            return self.root
        parent, name = self._parent(record.data.rstrip(b"/"))
        if name not in parent.names:
            parent.change(self.position, Naming(File(), added=name))
        elif record.number & os.O_TRUNC:
            file = parent.names[name]
            assert isinstance(file, File)
            file.pending.append((self.position, Truncate(0)))
        return parent.names[name]

    def _rename(self, record: Record) -> None:
        parent, name = self._parent(record.data)
        match record.kind:
            case Kind.MKDIR:
                parent.change(self.position, Naming(Directory(), added=name))
            case Kind.UNLINK | Kind.RMDIR:
                parent.change(self.position, Naming(parent.names[name], removed=name))
            case Kind.RENAME | Kind.LINK:
                parent2, name2 = self._parent(record.data2)
                assert parent2 is parent, "moves between directories are not modelled"
                removed = name if record.kind is Kind.RENAME else None
                parent.change(self.position, Naming(parent.names[name], name2, removed))
            case _:
                raise AssertionError(f"unknown record {record.kind}")

    def files(self) -> dict[str, bytes]:
        """Every file as the running system sees it."""
        return {path: bytes(file.content().data) for path, file in _walk(self.root, "")}

    @property
    def has_unsynced(self) -> bool:
        return any(True for _ in _pending(self.root))

    def leave(self, path: Path, survival: Survival, chance: random.Random) -> None:
        """Make at `path` a directory that a power cut now may leave."""
        oldest = min((position for position, _ in _pending(self.root)), default=self.position)
        cut = chance.randint(oldest, self.position)
        _leave(self.root, path, self.path, _Choice(survival, chance, cut))


def _walk(directory: Directory, prefix: str) -> Iterator[tuple[str, File]]:
    for name, node in directory.names.items():
        if isinstance(node, File):
            yield prefix + name, node
        else:
            yield from _walk(node, f"{prefix}{name}/")


def _pending(directory: Directory) -> Iterator[tuple[int, object]]:
    yield from directory.pending
    for node in {*directory.names.values(), *directory.durable.values()}:
        if isinstance(node, Directory):
            yield from _pending(node)
        else:
            yield from node.pending


def _loaded(path: Path) -> Directory:
    directory = Directory()
    for child in path.iterdir():
        if child.is_dir():
            directory.names[child.name] = _loaded(child)
        else:
            content = Content(bytearray(child.read_bytes()), _attributes(child))
            directory.names[child.name] = File(content)
    directory.durable = dict(directory.names)
    return directory


def _attributes(path: Path) -> dict[str, bytes]:
    names = [name for name in os.listxattr(path) if name.startswith("user.")]
    return {name: os.getxattr(path, name) for name in names}


@dataclass(frozen=True, slots=True)
class _Choice:
    """Draws what survives, of one inode after the other."""

    survival: Survival
    chance: random.Random
    cut: int

    def changes(self, pending: Sequence[tuple[int, Change]]) -> list[Change]:
        changes = [change for _, change in pending]
        match self.survival:
            case Survival.NOTHING:
                return []
            case Survival.EVERYTHING:
                return changes
            case Survival.ORDERED:
                return self._torn(changes, sum(position < self.cut for position, _ in pending))
            case Survival.PREFIXES:
                return self._torn(changes, self.chance.randint(0, len(changes)))
            case Survival.PAGES:
                return list(self._pages(changes))

    def _torn(self, changes: list[Change], count: int) -> list[Change]:
        kept = changes[:count]
        if kept and isinstance(last := kept[-1], Write):
            kept[-1] = Write(last.offset, last.data[: self.chance.randint(0, len(last.data))])
        return kept

    def _pages(self, changes: list[Change]) -> Iterator[Change]:
        moments: dict[int, int] = {}

        def is_kept(page: int, moment: int) -> bool:
            if page not in moments:
                moments[page] = self.chance.randint(0, len(changes))
            return moment < moments[page]

        for moment, change in enumerate(changes):
            if not isinstance(change, Write):
                if is_kept(-1, moment):
                    yield change
                continue
            end = change.offset + len(change.data)
            for page in range(change.offset // PAGE_BYTES, (end - 1) // PAGE_BYTES + 1):
                start = max(page * PAGE_BYTES, change.offset)
                stop = min((page + 1) * PAGE_BYTES, end)
                if is_kept(page, moment):
                    yield Write(start, change.data[start - change.offset : stop - change.offset])

    def names(self, directory: Directory) -> dict[str, Node]:
        names = dict(directory.durable)
        pending = directory.pending
        whole = range(len(pending))
        kept: Sequence[int]
        match self.survival:
            case Survival.NOTHING:
                kept = ()
            case Survival.EVERYTHING:
                kept = whole
            case Survival.ORDERED:
                kept = range(sum(position < self.cut for position, _ in pending))
            case Survival.PREFIXES:
                kept = range(self.chance.randint(0, len(pending)))
            case Survival.PAGES:
                kept = [
                    index
                    for index, (position, naming) in enumerate(pending)
                    if naming.is_kept_by_file(position) or self.chance.random() < 0.5
                ]
        for index in kept:
            pending[index][1].apply(names)
        return names


def _leave(directory: Directory, path: Path, original: Path, choice: _Choice) -> None:
    path.mkdir()
    for name, node in choice.names(directory).items():
        if isinstance(node, Directory):
            _leave(node, path / name, original / name, choice)
            continue
        content = node.durable.copy()
        for change in choice.changes(node.pending):
            content.apply(change)
        if name in ORIGINALS and content.data and content == node.content():
            (path / name).hardlink_to(original / name)
            continue
        (path / name).write_bytes(content.data)
        for attribute, value in content.attributes.items():
            try:
                os.setxattr(path / name, attribute, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
