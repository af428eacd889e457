"""`beemesh import` and `beemesh export`: coValues from and to a cojson server's SQLite file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common
from node.cli.output import print_error, print_facts, print_json
from node.client import AdminClient
from node.verbs import ExitCode, ExportValues, ImportValues, Result, TransferVerb, VerbError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from node.config import Config

Store = Annotated[
    str | None,
    Parameter(
        help="bee, sqlite or hybrid: this directory's store, while no node runs on it.",
        show_default=False,
    ),
]

_FAILURES = ("refused", "damaged", "waiting")
_LABELS = {
    "moved": "moved",
    "skipped": "there already",
    "refused": "refused",
    "damaged": "damaged",
    "waiting": "dependency missing",
    "seconds": "seconds",
}


def import_values(
    file: Annotated[Path, Parameter(help="A cojson server's SQLite file; it is not changed.")],
    /,
    *,
    store: Store = None,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Take over what a cojson server's SQLite file holds, every signature verified.

    What is here already is passed over: a second run goes on where the first one stopped.
    """
    return _transfer(common, ImportValues(str(file.absolute())), store)


def export_values(
    file: Annotated[Path, Parameter(help="The file; what one that is there lacks is added.")],
    /,
    *,
    store: Store = None,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Write everything into a SQLite file that a cojson server opens."""
    return _transfer(common, ExportValues(str(file.absolute())), store)


def _transfer(common: Common, verb: TransferVerb, store: str | None) -> int:
    config = common.load_config({"store": store})
    client = AdminClient.find(config.data)
    if client is not None and store is not None:
        raise VerbError(
            ExitCode.USAGE, f"a node runs on {config.data} and decides on the store: omit --store"
        )
    with _Screen("importing" if isinstance(verb, ImportValues) else "exporting", common) as screen:
        if client is not None:
            for result in client.perform(verb):
                screen.show(result)
        else:
            _perform_here(config, verb, screen)
    return screen.exit_code


def _perform_here(config: Config, verb: TransferVerb, screen: _Screen) -> None:
    """On the data directory, which is made if an import is to fill it."""
    from contextlib import aclosing

    import trio

    from hypercore.corestore import open_corestore
    from hypercore.storage import Durability
    from node.cojson.host import open_sync_host
    from node.journal import configure_journal
    from node.mesh.membership_file import load_membership
    from node.storing import make_store_directory, may_append_alone, open_storing
    from node.transfer import open_source, perform_transfer

    configure_journal("error", config.log_format)
    durability = Durability.parse(config.durability)
    if isinstance(verb, ExportValues) and not config.corestore_path.is_dir():
        raise VerbError(ExitCode.NOT_FOUND, f"{config.data} holds no data: nothing to export")
    if isinstance(verb, ImportValues) and not may_append_alone(config):
        raise VerbError(
            ExitCode.NO_NODE,
            f"other nodes may know more of this one's log than is in {config.data}, and only a "
            f"running node asks them: start it with `beemesh up --data {config.data}`, then import",
        )
    if isinstance(verb, ImportValues):
        open_source(Path(verb.file)).close()  # else a mistyped name makes a data directory

    membership = load_membership(config.mesh_path)
    data_key = None if membership is None else membership.data_key

    async def run() -> None:
        make_store_directory(config)
        async with (
            open_corestore(config.corestore_path, durability=durability, read_only=False) as cores,
            open_storing(config, cores, data_key, may_leave=True) as storing,
            open_sync_host(storing.values) as host,
        ):
            if isinstance(verb, ImportValues) and storing.catch_up is not None:
                await storing.catch_up(host.announce)
            async with aclosing(perform_transfer(host, verb)) as results:
                async for result in results:
                    screen.show(result)

    trio.run(run)


class _Screen:
    """Shows results as they come: lines of JSON, or a bar and in the end a table."""

    def __init__(self, title: str, common: Common) -> None:
        self._as_json = common.json
        self._title = title
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self.exit_code = ExitCode.FAILED

    def __enter__(self) -> _Screen:
        if not self._as_json and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task(self._title, total=None)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, result: Result) -> None:
        """One result of `perform_transfer`; the last one is the summary."""
        if "seconds" in result:
            self._note_end(result)
        if self._as_json:
            print_json(result)
        elif "seconds" in result:
            self._stop_bar()
            print_facts([(label, str(result[name])) for name, label in _LABELS.items()])
        elif "id" in result:
            how = next(name for name in _FAILURES if name in result)
            print_error(f"{result['id']} {_LABELS[how]}: {result[how]}")
        elif self._progress is not None and self._task is not None:
            done, total = result["done"], result["total"]
            assert isinstance(done, int)
            assert isinstance(total, int)
            self._progress.update(self._task, completed=done, total=total)

    def _stop_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _note_end(self, summary: Result) -> None:
        if summary["damaged"]:
            self.exit_code = ExitCode.CORRUPT
        elif not (summary["refused"] or summary["waiting"]):
            self.exit_code = ExitCode.OK
