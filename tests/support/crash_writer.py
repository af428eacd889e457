"""A nest of processes that are to be killed: `python -m tests.support.crash_writer`.

All is imported already, so that a process costs a fork and not a start. A line `DIRECTORY
DURABILITY SEED CALLS COUNT MOMENT` on standard input forks one that works off a `store_script`
for ever; `MOMENT` says whether it kills itself `before` or `after` the COUNTth of these calls
(`power_cut.Calls`, with the shim), or `never`. The answer is `pid N`, then what the process says,
then `end STATUS`.
"""

from __future__ import annotations

import math
import os
import random
import sys
from pathlib import Path

import trio

from hypercore import Durability, open_corestore
from tests.support.power_cut import Calls, die_at_call
from tests.support.store_script import Script


async def write(path: Path, durability: Durability, seed: str) -> None:
    async with open_corestore(path, durability=durability) as store:
        await Script(store, random.Random(seed), math.inf).run()


def be_writer(wish: str) -> None:
    path, durability, seed, calls, count, moment = wish.split()
    if moment != "never":
        die_at_call(Calls(int(calls)), int(count), is_after=moment == "after")
    trio.run(write, Path(path), Durability.parse(durability), seed)


def main() -> None:
    for wish in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                be_writer(wish)
            except BaseException:  # noqa: BLE001  # a copy of the nest must not go on
                sys.excepthook(*sys.exc_info())
            os._exit(1)  # it is to be killed
        os.write(1, b"pid %d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(1, b"end %d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
