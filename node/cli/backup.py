"""`beemesh backup`: a copy of the data directory, made while the node serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common
from node.cli.output import print_json
from node.client import AdminClient
from node.verbs import BackUp, ExitCode, Result, VerbError

if TYPE_CHECKING:
    from node.config import Config


def backup(
    directory: Annotated[Path, Parameter(help="Where to copy it: a new or an empty directory.")],
    /,
    *,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Copy the node's data, keys included, to a directory, while it serves or is stopped.

    To restore, start a node on the copy: `beemesh up --data DIRECTORY`; first move it to where it
    is to stay. The node asks the members of its mesh what it had written since, and takes it back.
    Never run both, the copy and the original. On the same disk, the copy shares files that do not
    change. A SQLite file that is kept elsewhere is `covalues.sqlite` in the copy, and config.toml
    still names the other.
    """
    config = common.load_config()
    client = AdminClient.find(config.data)
    verb = BackUp(str(directory.absolute()))
    result = next(iter(client.perform(verb))) if client else _perform_here(config, verb)
    if common.json:
        print_json(result)
    else:
        from node.web.wording import format_size

        print(f"{result['directory']}: {format_size(int(str(result['bytes'])))}")
    return ExitCode.OK


def _perform_here(config: Config, verb: BackUp) -> Result:
    import trio

    from hypercore.corestore import open_corestore
    from node.backup import back_up

    if not config.corestore_path.is_dir():
        raise VerbError(ExitCode.NOT_FOUND, f"{config.data} holds no data: nothing to copy")

    async def run() -> Result:
        async with open_corestore(config.corestore_path, read_only=False) as store:
            return await back_up(config, store, verb)

    return trio.run(run)
