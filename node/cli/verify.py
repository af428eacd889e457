"""`beemesh core verify`: is everything stored as it was signed? Repairs what is not."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common
from node.cli.output import print_error, print_json
from node.cli.perform import at
from node.client import AdminClient
from node.verbs import CoreVerify, ExitCode, Result, VerbError

if TYPE_CHECKING:
    from node.config import Config


def verify(
    core: Annotated[str, Parameter(help="Its name here, or its key; without it, all cores.")] = "",
    /,
    *,
    repair: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Mend all cores, while no node runs; blocks of others that are lost are fetched "
            "again by the node that runs next.",
        ),
    ] = False,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Compare every block with the signature of its core; exit code 6 when something is damaged."""
    config = common.load_config()
    client = AdminClient.find(config.data)
    screen = _Screen(common)
    if repair and core:
        raise VerbError(ExitCode.USAGE, "--repair mends the whole store: name no core")
    if repair and client is not None:
        raise VerbError(ExitCode.FAILED, f"a node runs on {config.data}: stop it before a repair")
    if client is not None:
        for result in client.perform(CoreVerify(core)):
            screen.show(result)
    else:
        _perform_here(config, core, repair, screen.show)
    screen.finish()
    return screen.exit_code


def _perform_here(config: Config, core: str, repair: bool, show: Callable[[Result], None]) -> None:
    import trio

    from hypercore.corestore import open_corestore
    from hypercore.errors import CopiedStore, CorruptStorage
    from node.auditing import repair_store
    from node.logs import perform_on_store
    from node.mirror_file import load_mirrors, told_by_key

    if not config.corestore_path.is_dir():
        raise VerbError(
            ExitCode.NOT_FOUND,
            f"{config.data} holds no data: start with `beemesh up{at(config.data)}`",
        )

    async def run() -> None:
        if repair:
            try:
                await _show_all(repair_store(config.corestore_path), show)
            except CopiedStore:
                raise
            except CorruptStorage as error:
                text = f"{error}: it is beyond repair: restore the directory from a backup"
                raise VerbError(ExitCode.CORRUPT, text) from error
            return
        async with open_corestore(config.corestore_path, read_only=True) as store:
            mirrors = load_mirrors(config.mirrors_path)
            verb = told_by_key(CoreVerify(core), mirrors, store.names())
            await _show_all(perform_on_store(store, verb, can_fetch=False), show)

    trio.run(run)


async def _show_all(source: AsyncGenerator[Result, None], show: Callable[[Result], None]) -> None:
    async with aclosing(source) as results:
        async for result in results:
            show(result)


class _Screen:
    """Shows results as they come, and remembers whether all of it was sound."""

    def __init__(self, common: Common) -> None:
        self._as_json = common.json
        self._has_cores = False
        self.exit_code = ExitCode.OK

    def show(self, result: Result) -> None:
        if result.get("sound") is False:
            self.exit_code = ExitCode.CORRUPT
        if self._as_json:
            print_json(result)
        elif "gaps" in result:
            self._show_salvage(result)
        elif "sound" in result:
            self._show_core(result)
        elif sys.stderr.isatty():
            name = _name(result)
            sys.stderr.write(f"\r{name}: {result['done']:,} of {result['total']:,}\r")

    def finish(self) -> None:
        """All was shown; with `--store sqlite` that may be nothing."""
        if not self._as_json and not self._has_cores:
            print("There are no cores to verify.")

    def _show_salvage(self, result: Result) -> None:
        mended, lost, reasons = result["mended"], result["lost"], result["reasons"]
        assert isinstance(mended, list)
        assert isinstance(lost, list)
        assert isinstance(reasons, list)
        for text in mended:
            print(text)
        for text in (*reasons, *lost):
            print_error(text)
        if result["damaged_files"] is not None:
            print(
                f"{result['gaps']} places of the store could not be read; it was written anew. The "
                f"damaged files are in {result['damaged_files']}: delete them when all is well."
            )

    def _show_core(self, result: Result) -> None:
        self._has_cores = True
        name = _name(result)
        if result.get("failure"):
            print_error(f"{name}: {result['failure']}")
            return
        state = "sound" if result["sound"] else "DAMAGED"
        print(
            f"{name}: {state}; length {result['length']:,}, {result['blocks_verified']:,} blocks "
            f"and {result['tree_nodes_verified']:,} tree nodes verified"
        )
        if result.get("begun_anew"):
            print("  it begins anew: all of it has to be fetched again")
        elif result.get("to_be_fetched"):
            print(f"  {result['to_be_fetched']:,} blocks have to be fetched again")
        if result.get("carried_on_at") is not None:
            print(f"  its newest head was lost: it goes on at {result['length']:,}, as a new fork")
        if result.get("recovering"):
            print(
                "  its newest blocks may be lost: it takes no more until others have been asked, "
                "which a node does when it starts"
            )
        damage = result["damage"]
        assert isinstance(damage, list)
        for text in damage:
            print_error(f"  {text}")


def _name(result: Result) -> object:
    return result.get("name") or result.get("key") or result.get("discovery_key")
