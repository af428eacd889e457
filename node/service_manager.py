"""[trio] What systemd is told of a node that it has started.

It names a datagram socket in `NOTIFY_SOCKET`, and takes lines there: that the service is ready or
stopping, what it does just now (`systemctl status` shows that), and every few seconds, if
`WATCHDOG_USEC` is set, that it is alive. Nothing is ever answered. Source: sd_notify(3),
sd_watchdog_enabled(3).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

import structlog
import trio

LOOK_SECONDS = 5.0
"""How soon a change of what the node does is told."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """The process that started us, if it wants to be told; `tell` never raises, nor waits."""

    address: str | None = None
    """A path, or an abstract name that begins with @; None tells nobody."""

    watchdog_seconds: float = inf
    """Within which it wants to hear from us again; otherwise it ends us, and starts us anew."""

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> ServiceManager:
        """As the variables say that it sets."""
        address = environment.get("NOTIFY_SOCKET", "")
        microseconds = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        return cls(
            address if address[:1] in {"/", "@"} else None,
            (int(microseconds) / 1e6 or inf) if is_ours and microseconds.isdecimal() else inf,
        )

    def tell(self, *facts: str) -> bool:
        """Such as `READY=1`, `STATUS=...`, `STOPPING=1`; False when these did not get there."""
        if self.address is None:
            return True
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.sendto("\n".join(facts).encode(), address)
        except OSError as error:
            _log.debug("service manager not told", reason=error.strerror)
            return False
        return True

    async def tell_ready(self) -> None:
        """Tell it that we are ready, until it has taken that: it may wait for it without a limit.

        It has room for so many messages of all services, and is busiest when a machine starts.
        """
        while True:
            if self.tell("READY=1"):
                return
            await trio.sleep(LOOK_SECONDS)

    async def keep_told(self, describe: Callable[[], str]) -> None:
        """Tell it that we are alive, and what `describe` says whenever that changes.

        That the event loop gets here is the sign of life: a node that is stuck is started anew.
        """
        if self.address is None:
            return
        told = ""
        while True:
            status = " ".join(describe().split())  # one line, whatever it is made of
            facts = ["WATCHDOG=1"] * (self.watchdog_seconds < inf)
            if status != told:
                facts.append(f"STATUS={status}")
            if facts and self.tell(*facts):
                told = status
            await trio.sleep(min(LOOK_SECONDS, self.watchdog_seconds / 3))
