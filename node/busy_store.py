"""[disk] Whether a process has a data directory's store open and is asked nothing."""

from __future__ import annotations

from hypercore.storage.lock_holder import locking_process, process_facts
from node.config import Config


def busy_text(config: Config) -> str:
    """Which process it is, where no node answers; empty if none is known to have it open.

    It may be a node that answers soon: a start can take half a minute. Or it is another command,
    such as `core verify`: then no node is running.
    """
    process = locking_process(config.corestore_path / "db" / "LOCK")
    if process is None:
        return ""
    return (
        f"process {process} has {config.data} open and takes no questions"
        f"{process_facts(process)}: it is another command, or a node that is starting or "
        f"stopping, or has no room for admin.json; try again, or see its log"
    )
