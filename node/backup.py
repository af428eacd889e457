"""[trio] A copy of a node's data directory from which a node can be started.

Consistent, and made while the node serves. With `hybrid` the file comes after the cores: what the
bee lacks of it, the next start brings over. Left out is what a node makes anew: `admin.json`, the
usage of accounts, what it learned of the DHT, which downloads its last stop has cut.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import trio

from hypercore.corestore import Corestore
from hypercore.errors import StorageError, UsageError
from hypercore.store_copy import copy_store
from node.config import CONFIG_FILE, Config
from node.verbs import BackUp, ExitCode, Result, VerbError

_SQLITE_FILE = "covalues.sqlite"


async def back_up(config: Config, store: Corestore, verb: BackUp) -> Result:
    """Copy to a directory that does not exist yet, or is empty.

    Raises: VerbError; nothing is left of the copy then.
    Cancel: the step under way is finished first; what was copied is removed.
    """
    target = Path(verb.directory)
    started = trio.current_time()
    try:
        await trio.to_thread.run_sync(_make_private, target, config.data)
    except OSError as error:
        raise VerbError(ExitCode.USAGE, f"{target} cannot be used: {error.strerror}") from error
    is_whole = False
    try:
        await copy_store(store, target / config.corestore_path.name)
        size = await trio.to_thread.run_sync(_copy_files, config, target)
        await trio.lowlevel.checkpoint_if_cancelled()  # nobody wants it any more
        is_whole = True
    except (StorageError, UsageError, OSError, sqlite3.Error) as error:
        raise VerbError(ExitCode.FAILED, f"no backup was made: {error}") from error
    finally:
        if not is_whole:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_empty, target)
    seconds = round(trio.current_time() - started, 3)
    return {"directory": str(target), "bytes": size, "seconds": seconds}


def _make_private(target: Path, data: Path) -> None:
    if target.resolve().is_relative_to(data.resolve()):
        raise OSError(errno.EINVAL, "it is inside the data directory, and would go with it")
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is no directory")
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(target.iterdir()):
        raise FileExistsError(errno.EEXIST, "it is not empty")
    target.chmod(0o700)  # keys will be in it


def _copy_files(config: Config, target: Path) -> int:
    """Copy everything but the cores; returns the size of the whole copy."""
    for path in (
        *(config.key_path, config.mesh_path, config.policy_path),
        *(config.members_path, config.mirrors_path, config.data / CONFIG_FILE),
    ):
        if path.is_file():
            _sync(Path(shutil.copy2(path, target / path.name)))
    if config.store != "bee" and config.sqlite_path.is_file():
        source = sqlite3.connect(f"{config.sqlite_path.as_uri()}?mode=ro", uri=True)
        copy = target / _SQLITE_FILE
        with closing(source), closing(sqlite3.connect(copy)) as written:
            source.backup(written)
        _sync(copy)
    _sync(target)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _empty(target: Path) -> None:
    for path in target.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
