"""[trio] Everything about access that a node needs, read from its disk and kept up to date."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
import trio

from node.access.door import Door
from node.access.gate import Gate, TokenCounts
from node.access.lists import Lists, list_files, read_lists, read_stamp
from node.access.quotas import Quotas
from node.access.reasons import Reason
from node.access.usage import Usage
from node.access.usage_file import load_usage, remove_usage, save_forever, save_usage
from node.config import Config
from node.covalue.store import CoValueStore
from node.errors import ConfigError
from node.web.status import AccessStatus, AccountStatus, TokenStatus
from swarm.io.tasks import open_background_nursery

POLL_SECONDS = 2.0
"""Between two looks at the files with lists and tokens."""

SHOWN_ACCOUNTS = 10
SHOWN_TOKENS = 20

_log = structlog.get_logger(__name__)


class Access:
    """The node's gate and door; made by `open_access`."""

    def __init__(self, config: Config, lists: Lists, usage: Usage) -> None:
        self.gate = Gate(lists.policy, quotas_of(config), usage)
        self.door = Door(
            lists.tokens,
            config.ws_trusted_proxies,
            needs_token=bool(config.ws_tokens) or config.ws_tokens_file is not None,
        )
        self._config = config
        self._lists_error = ""
        self._withdrawn: set[str] = set()
        self._withdrawal = trio.Event()

    def status(self) -> AccessStatus:
        """For people and metrics; costs a look at every account."""
        statistics, policy = self.gate.statistics(), self.gate.policy
        quotas = self.gate.quotas
        return AccessStatus(
            needs_token=self.door.needs_token,
            allowed=None if policy.allow is None else len(policy.allow),
            denied=len(policy.deny),
            lists_error=self._lists_error,
            refused={reason.value: statistics.refused.get(reason, 0) for reason in Reason},
            slowed=statistics.slowed,
            sent_away=statistics.sent_away,
            account_bytes=quotas.account_bytes,
            account_values=quotas.account_values,
            accounts_counted=statistics.accounts,
            accounts_full=statistics.full_accounts,
            accounts=tuple(
                AccountStatus(*use) for use in self.gate.largest_accounts(SHOWN_ACCOUNTS)
            ),
            tokens=_busiest(statistics.tokens),
            is_shut=self.door.is_shut,
        )

    async def wait_withdrawn(self) -> frozenset[str]:
        """Names of tokens that counted when this was called last, and do not any more.

        Cancel: they are told to the next call.
        """
        await self._withdrawal.wait()
        names, self._withdrawn = frozenset(self._withdrawn), set()
        self._withdrawal = trio.Event()
        return names

    async def follow_files(self) -> None:
        """Take over what changes in the files; when one is wrong, what it said before holds.

        Cancel: nothing is changed.
        """
        files = list_files(self._config)
        if not files:
            return
        # Older than what was read: a change in between is read twice, and none is missed.
        seen: object = None
        while True:
            stamp = await trio.to_thread.run_sync(read_stamp, files)
            if stamp != seen:
                await self._read_again()
                seen = stamp
            await trio.sleep(POLL_SECONDS)

    async def _read_again(self) -> None:
        try:
            lists = await trio.to_thread.run_sync(read_lists, self._config)
        except ConfigError as error:
            self._lists_error = str(error)
            _log.error("lists not read again", error=str(error))
            return
        self._lists_error = ""
        withdrawn = self.door.replace_tokens(lists.tokens)
        if withdrawn or lists.policy != self.gate.policy:
            _log.info(
                "lists read again",
                allowed=None if lists.policy.allow is None else len(lists.policy.allow),
                denied=len(lists.policy.deny),
                tokens=len(lists.tokens.names),
                withdrawn=sorted(withdrawn),
            )
        self.gate.policy = lists.policy
        if withdrawn:
            self._withdrawn |= withdrawn
            self._withdrawal.set()


def quotas_of(config: Config) -> Quotas:
    return Quotas(
        account_bytes=config.quota_account_bytes,
        account_values=config.quota_account_values,
        bytes_per_minute=config.rate_bytes,
        messages_per_minute=config.rate_messages,
        values_per_minute=config.rate_values,
        loopback=config.rate_loopback,
    )


def _busiest(counts: Mapping[str, TokenCounts]) -> tuple[TokenStatus, ...]:
    """The busiest by name, all others as one: labels of metrics are few."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1].bytes, item[0]))
    shown = [
        TokenStatus(name, item.connections, item.frames, item.bytes, item.refused)
        for name, item in ordered[:SHOWN_TOKENS]
    ]
    rest = [item for _, item in ordered[SHOWN_TOKENS:]]
    if rest:
        shown.append(
            TokenStatus(
                "other",
                sum(item.connections for item in rest),
                sum(item.frames for item in rest),
                sum(item.bytes for item in rest),
                sum(item.refused for item in rest),
            )
        )
    return tuple(shown)


@asynccontextmanager
async def open_access(config: Config, store: CoValueStore) -> AsyncIterator[Access]:
    """Read lists and usage; look through the store when usage is counted for the first time.

    Raises: ConfigError.
    Cancel: usage is saved, as at the end of the body.
    """
    lists = await trio.to_thread.run_sync(read_lists, config)
    path = config.usage_path
    if not quotas_of(config).bounds_accounts:
        # What is not kept up to date must not be believed later.
        await trio.to_thread.run_sync(remove_usage, path)
        access = Access(config, lists, Usage())
        async with open_background_nursery() as nursery:
            nursery.start_soon(access.follow_files)
            yield access
        return
    usage = await load_usage(path, store)
    access = Access(config, lists, usage)
    await save_usage(path, usage)
    try:
        async with open_background_nursery() as nursery:
            nursery.start_soon(access.follow_files)
            nursery.start_soon(save_forever, path, usage)
            yield access
    finally:
        with trio.CancelScope(shield=True):
            await save_usage(path, usage)
