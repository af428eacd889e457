"""Carry a verb out where it can be: in the running node, else on its data directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from node.cli.options import Common
from node.client import AdminClient
from node.config import Config
from node.errors import ConfigError
from node.notation import parse_duration
from node.verbs import ExitCode, LogVerb, Result, Verb, VerbError


def need_node(common: Common) -> AdminClient:
    """The running node's client.

    Raises: VerbError when none runs here.
    """
    config = common.load_config()
    client = AdminClient.find(config.data)
    if client is None:
        raise VerbError(ExitCode.NO_NODE, _why_no_node(config))
    return client


def _why_no_node(config: Config) -> str:
    if config.corestore_path.is_dir():
        from node.busy_store import busy_text  # of use to few

        if busy := busy_text(config):
            return busy
    return f"no node is running on {config.data}: start one with `beemesh up{at(config.data)}`"


def ask_node(common: Common, verb: Verb) -> Iterator[Result]:
    """Results from the running node. Raises: VerbError."""
    return need_node(common).perform(verb)


def perform(common: Common, verb: LogVerb) -> Iterator[Result]:
    """Results from the running node, or from the directory when no node has it open.

    Raises: VerbError.
    """
    config = common.load_config()
    client = AdminClient.find(config.data)
    if client is not None:
        yield from client.perform(verb)
    else:
        yield from _perform_here(config, verb)


def seconds(text: str) -> float:
    """Raises: ConfigError."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"--timeout: {error}") from error


def at(data: Path) -> str:
    """The `--data` option to repeat in advice; nothing for the default directory."""
    from node.config import default_data_path

    return "" if data == default_data_path() else f" --data {data}"


def _perform_here(config: Config, verb: LogVerb) -> list[Result]:
    from contextlib import AsyncExitStack

    import trio

    from hypercore.corestore import open_corestore
    from node.logs import DATA_CORE, perform_on_store
    from node.mesh.membership_file import load_membership
    from node.mirror_file import load_mirrors, told_by_key
    from node.storing import make_store_directory, open_data_core

    if not config.corestore_path.is_dir() and not verb_creates(verb):
        raise VerbError(
            ExitCode.NOT_FOUND,
            f"{config.data} holds no data: start with `beemesh up{at(config.data)}`",
        )

    membership = load_membership(config.mesh_path)
    data_key = None if membership is None else membership.data_key
    mirrors = load_mirrors(config.mirrors_path)

    async def run() -> list[Result]:
        make_store_directory(config)
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_corestore(config.corestore_path))
            if data_key is not None and DATA_CORE in store.names():
                # A core that is open already is opened again with the same key.
                await stack.enter_async_context(open_data_core(store, data_key))
            told = told_by_key(verb, mirrors, store.names())
            return [result async for result in perform_on_store(store, told, can_fetch=False)]

    return trio.run(run)


def verb_creates(verb: LogVerb) -> bool:
    """Whether the verb may make a core that was not there."""
    from node.verbs import BeePut, CoreAppend

    return isinstance(verb, BeePut | CoreAppend)
