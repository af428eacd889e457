"""`beemesh up` as a service manager runs it: its journal, its signals, who may scrape it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import trio

from node.client import AdminAccess
from node.listening import bound_port
from node.verbs import ExitCode
from tests.node.test_web_admin import ask
from tests.support.running_node import environment

TOKEN = "a-token-that-lasts-for-long"


async def test_a_service_lives_on_at_a_hangup_and_keeps_secrets_out_of_its_journal(
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    options = [
        *("--data", str(tmp_path / "data"), "--discovery", "off", "--mesh", "127.0.0.1:0"),
        *("--ws", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--admin-hosts", "Status.example"),
        *("--admin-token-file", str(tmp_path / "token")),
    ]
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "node", "up", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            # Under nohup, which the tests may run under, it would be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            journal = process.stderr
            started = await next_event(journal)
            assert started["event"] == "started"
            admin = started["admin"].removeprefix("http://")
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            process.send_signal(signal.SIGHUP)
            hangup = await next_event(journal)
            assert hangup["event"] == "not reloaded"
            assert (await ask(admin, "/metrics", bearer))[0] == 200
            assert (await ask(admin, "/", {**bearer, "Host": "status.example"}))[0] == 200
            assert (await ask(admin, "/readyz", {"Host": "a.probe.example"}))[::2] == (200, "ok")
            process.send_signal(signal.SIGTERM)
            rest = b"".join([bytes(chunk) async for chunk in journal])
            ends = [json.loads(line) for line in rest.splitlines()]
            assert [event["event"] for event in ends] == ["stopping", "stopped"]
            text = b"".join([bytes(chunk) async for chunk in process.stdout]).decode()
            assert await process.wait() == 0
        finally:
            process.kill()
    assert started["ws"] in text
    assert TOKEN not in text
    assert "beemesh1" not in text, "a ticket lets in whoever reads it"
    assert f"`beemesh invite --data {tmp_path / 'data'}` prints one" in text


async def first_line(data: Path) -> bytes:
    """What a node says when it is up."""
    process = await start(data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        with trio.fail_after(60):
            said = bytes(await process.stdout.receive_some())
        process.send_signal(signal.SIGTERM)
        await process.wait()
    finally:
        process.kill()
        await process.wait()
    return said.splitlines()[0]


async def test_keys_that_a_refused_start_has_left_are_new_to_the_next(tmp_path: Path) -> None:
    refused = await start(tmp_path, "--join", "127.0.0.1:1", stderr=subprocess.DEVNULL)
    assert await refused.wait() == ExitCode.USAGE
    assert (await first_line(tmp_path)).endswith(b"is up, with new keys")


async def test_keys_of_a_start_that_failed_late_are_new_to_the_next_and_only_to_that(
    tmp_path: Path,
) -> None:
    [taken] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with taken:
        options = "--discovery=off", "--mesh=127.0.0.1:0", f"--ws=127.0.0.1:{bound_port([taken])}"
        failed = await trio.run_process(
            [sys.executable, "-m", "node", "up", "--data", str(tmp_path / "data"), *options],
            env=environment(),
            capture_stderr=True,
            check=False,
        )
    assert b"another program listens there" in failed.stderr
    assert (await first_line(tmp_path)).endswith(b"is up, with new keys")
    assert (await first_line(tmp_path)).endswith(b"is up")


async def test_a_node_needs_none_of_its_streams(tmp_path: Path) -> None:
    """Some supervisors start with nothing open."""

    def close_streams() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.closerange(0, 3)

    with trio.fail_after(60):
        process = await start(tmp_path, preexec_fn=close_streams)
        try:
            admin = await wait_for_admin(tmp_path)
            process.send_signal(signal.SIGHUP)
            assert (await ask(admin, "/readyz"))[0] == 200
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            process.kill()


async def test_a_node_stops_when_its_terminal_closes(tmp_path: Path) -> None:
    """Found in use: a terminal that has closed is none, so it looked like a service's node."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with trio.fail_after(60):
        process = await start(
            tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_terminal
        )
        try:
            os.close(theirs)
            await wait_for_admin(tmp_path)
            os.close(ours)
            assert await process.wait() == 0
        finally:
            process.kill()


async def test_a_signal_and_its_echo_are_one(tmp_path: Path) -> None:
    with trio.fail_after(60):
        process = await start(tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            await wait_for_admin(tmp_path)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            journal = b"".join([bytes(chunk) async for chunk in process.stderr])
            assert await process.wait() == 0
        finally:
            process.kill()
    assert b'"event": "stopped"' in journal


async def test_a_node_may_open_as_many_files_as_the_system_lets_it(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    with trio.fail_after(60):
        process = await start(tmp_path, preexec_fn=lower)
        try:
            await wait_for_admin(tmp_path)
            soft, _ = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        finally:
            process.kill()
            await process.wait()
    assert soft > 256
    assert soft in (hard, 65_536)


async def test_clients_leave_files_to_the_database_and_to_others(tmp_path: Path) -> None:
    """Found in use: as many as a service may open, and nobody could ask it what is wrong."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "config.toml").write_text('ws_handshake_seconds = "1h"')

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))

    with trio.fail_after(60):
        process = await start(tmp_path, preexec_fn=lower, stderr=subprocess.PIPE)
        assert process.stderr is not None
        async with process.stderr, AsyncExitStack() as clients:
            clients.push_async_callback(process.wait)
            clients.callback(process.kill)
            admin = await wait_for_admin(tmp_path)
            journal = b""
            while b'"started"' not in journal:
                journal += await process.stderr.receive_some(65536)
            fewer, started = map(json.loads, journal.splitlines())
            assert (fewer["event"], fewer["clients"], fewer["open_files"]) == (
                "fewer clients are let in",
                60,
                160,
            )
            port = int(started["ws"].rpartition(":")[2])
            for _ in range(200):
                await clients.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            assert (await ask(admin, "/readyz"))[::2] == (200, "ok")


async def test_what_cannot_be_accepted_is_told_once_a_minute() -> None:
    """Found in use: with too many files open a node wrote 17 KB of tracebacks a second."""
    code = """
import logging
from node.journal import configure_journal
configure_journal("info", "json")
trio = logging.getLogger("trio.serve_listeners")
for _ in range(100):
    try:
        raise OSError(24, "Too many open files")
    except OSError:
        trio.error("accept returned %s", "EMFILE", exc_info=True)
logging.getLogger("trio").error("another")
"""
    done = await trio.run_process([sys.executable, "-c", code], capture_stderr=True)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [entry["event"] for entry in told] == ["accept returned EMFILE", "another"]
    assert "exception" not in told[0]


async def start(tmp_path: Path, *more: str, **streams: Any) -> trio.Process:
    """A node on `tmp_path`, at ports that it picks."""
    options = [
        *("--data", str(tmp_path / "data"), "--discovery", "off", "--mesh", "127.0.0.1:0"),
        *("--ws", "127.0.0.1:0", "--admin", "127.0.0.1:0", *more),
    ]
    command = [sys.executable, "-m", "node", "up", *options]
    return await trio.lowlevel.open_process(command, env=environment(), **streams)


async def wait_for_admin(tmp_path: Path) -> str:
    """HOST:PORT of its admin server, as soon as it is known."""
    while (access := AdminAccess.read(tmp_path / "data")) is None:  # noqa: ASYNC110 - a file is polled
        await trio.sleep(0.05)
    return access.url.removeprefix("http://")


async def next_event(journal: trio.abc.ReceiveStream) -> dict[str, str]:
    """Nothing else is written meanwhile."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = await journal.receive_some(65536)
        assert chunk, f"the node ended after {line!r}"
        line += chunk
    event: dict[str, str] = json.loads(line)
    return event


@pytest.fixture
def full_disk() -> Iterator[BinaryIO]:
    with Path("/dev/full").open("wb") as file:
        yield file


async def test_a_node_outlives_a_full_disk_under_its_journal(
    tmp_path: Path, full_disk: BinaryIO
) -> None:
    """Its own log is often on the disk whose end it is to survive."""
    with trio.fail_after(60):
        process = await start(tmp_path, stdout=full_disk, stderr=full_disk)
        try:
            admin = await wait_for_admin(tmp_path)
            assert (await ask(admin, "/readyz"))[0] == 200
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            process.kill()
