"""`beemesh up` as a service manager runs it: its journal, its signals, who may scrape it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import trio

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


async def next_event(journal: trio.abc.ReceiveStream) -> dict[str, str]:
    """Nothing else is written meanwhile."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = await journal.receive_some(65536)
        assert chunk, f"the node ended after {line!r}"
        line += chunk
    event: dict[str, str] = json.loads(line)
    return event
