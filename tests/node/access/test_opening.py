"""Lists, tokens and usage on the disk."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from bee.bee import Bee
from node.access.lists import read_lists
from node.access.opening import POLL_SECONDS, Access, open_access
from node.access.usage import AccountUse
from node.access.usage_file import SAVE_SECONDS, count_usage
from node.cojson.gatekeeper import Origin
from node.cojson.host import open_sync_host
from node.config import load_config
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content
from node.errors import ConfigError
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.data_log import DataLog

ANN, BOB = Author("ann"), Author("bob")
GROUP = group_header(ANN.account_id)
MAP = map_header("m", GROUP.id)
TREE = [
    ANN.account(),
    ANN.content(GROUP, edits(2)),
    ANN.content(MAP, edits(4, size=60_000)),
    BOB.account(),
    BOB.content(map_header("b"), edits(3), as_agent=True),
]


@asynccontextmanager
async def opened(data: Path, log: DataLog, **settings: object) -> AsyncIterator[Access]:
    """Access over a store, with what is in `contents` uploaded by a client."""
    config = load_config({"data": data, **settings}, {})
    async with open_access(config, BeeStore(Bee(log), log)) as access:
        yield access


async def upload(access: Access, log: DataLog, *contents: Content) -> None:
    async with open_sync_host(BeeStore(Bee(log), log), access=access.gate) as host:
        with host.client("a", Origin("192.0.2.1")) as link:
            await link.receive(contents)
            await trio.testing.wait_all_tasks_blocked()


def uses(access: Access) -> set[AccountUse]:
    return set(access.gate.usage.largest(100))


async def test_usage_survives_and_a_scan_finds_the_same(tmp_path: Path) -> None:
    log = DataLog()
    async with opened(tmp_path, log, quota_account_bytes="1GiB") as access:
        await upload(access, log, *TREE)
        counted = uses(access)
        assert {use.account: use.values for use in counted} == {
            ANN.account_id: 3,
            BOB.account_id: 2,
        }
    path = tmp_path / "usage.json"
    assert path.stat().st_mode & 0o777 == 0o600
    async with opened(tmp_path, DataLog(), quota_account_bytes="1GiB") as access:
        assert uses(access) == counted  # from the file: that store is empty
    for damage in (None, b"{", b"\xff", b'{"version":9,"accounts":{}}'):
        path.unlink() if damage is None else path.write_bytes(damage)
        async with opened(tmp_path, log, quota_account_bytes="1GiB") as access:
            assert uses(access) == counted
    assert set((await count_usage(BeeStore(Bee(log), log))).largest(9)) == counted


async def test_a_file_that_is_not_kept_is_removed(tmp_path: Path) -> None:
    log = DataLog()
    async with opened(tmp_path, log, quota_account_values=9) as access:
        await upload(access, log, TREE[0])
    (tmp_path / ".usage.json.123456").write_text("left by a crash")
    async with opened(tmp_path, log):
        assert os.listdir(tmp_path) == []
    async with opened(tmp_path, log, quota_account_values=9) as access:
        assert {use.values for use in uses(access)} == {1}


async def test_usage_is_saved_while_the_node_runs(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    log = DataLog()
    async with opened(tmp_path, log, quota_account_bytes="1MiB") as access:
        path = tmp_path / "usage.json"
        for content in (TREE[0], TREE[3]):
            await upload(access, log, content)
            assert access.gate.usage.unsaved_bytes > 0
            while content.co_id not in path.read_text():  # noqa: ASYNC110 - a file is polled
                await trio.sleep(SAVE_SECONDS)
        written = os.stat(path).st_ino
        await trio.sleep(10 * SAVE_SECONDS)  # nothing new, nothing written
        assert os.stat(path).st_ino == written


async def test_lists_are_read_again_when_they_change(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    deny, tokens = tmp_path / "deny", tmp_path / "tokens"
    deny.write_text("# nobody yet\n")
    tokens.write_text("phone:aaa\n#old:zzz\nci:bbb#1\n")
    async with opened(
        tmp_path, DataLog(), deny_accounts_file=deny, ws_tokens_file=tokens
    ) as access:
        gate, door = access.gate, access.door
        assert gate.policy.is_open
        assert door.admit("x", "/?token=bbb%231", []) == Origin("x", "ci")
        deny.write_text(f"{BOB.account_id}\n")
        tokens.write_text("ci:bbb#1\n")
        assert await access.wait_withdrawn() == {"phone"}
        assert gate.policy.deny == frozenset([BOB.account_id])
        assert door.admit("x", "/?token=aaa", []) is None
        assert access.status().denied == 1
        # What is wrong or gone changes nothing.
        for spoil, text in ((lambda: deny.write_text("bob\n"), "bob"), (deny.unlink, "read")):
            spoil()
            while text not in access.status().lists_error:  # noqa: ASYNC110 - a file is polled
                await trio.sleep(POLL_SECONDS)
            assert gate.policy.deny == frozenset([BOB.account_id])
        deny.write_text("")
        tokens.write_text("")
        assert await access.wait_withdrawn() == {"ci"}
        assert gate.policy.is_open
        assert access.status().lists_error == ""
        assert door.admit("x", "/?token=bbb%231", []) is None


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"allow_accounts": ["ann"]}, "neither an account id"),
        ({"deny_accounts_file": "/nowhere"}, "deny-accounts-file: /nowhere cannot be read"),
        ({"ws_tokens": ["a:same", "a:sale"]}, "ws-tokens: two tokens are named 'a'"),
    ],
)
async def test_what_is_wrong_at_the_start_is_an_error(
    tmp_path: Path, settings: dict[str, object], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        async with opened(tmp_path, DataLog(), **settings):
            pass


def test_settings_and_files_add_up(tmp_path: Path) -> None:
    (tmp_path / "allow").write_text(ANN.account_id)
    config = load_config(
        {"data": tmp_path, "allow_accounts": [BOB.agent_id]},
        {"BEEMESH_ALLOW_ACCOUNTS_FILE": str(tmp_path / "allow")},
    )
    assert read_lists(config).policy.allow == frozenset([ANN.account_id, BOB.account_id])
    (tmp_path / "allow").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="no UTF-8"):
        read_lists(config)
    (tmp_path / "allow").write_text("")
    only_file = load_config({"data": tmp_path, "allow_accounts_file": tmp_path / "allow"}, {})
    assert read_lists(only_file).policy.allow == frozenset()
