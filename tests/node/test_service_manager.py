"""`beemesh up` tells systemd how it is, and the files in `examples/service` say what is so."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from node.client import AdminAccess
from node.config import load_config, read_environment
from node.service_manager import LOOK_SECONDS, ServiceManager
from node.verbs import ExitCode
from tests.node.test_web_admin import ask
from tests.support.running_node import open_running_node

SERVICE = Path(__file__).parents[2] / "examples" / "service"
PID = 4711


@contextmanager
def listening(address: str) -> Iterator[trio.socket.SocketType]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
        yield trio.socket.from_stdlib_socket(channel)


async def hear(manager: trio.socket.SocketType) -> list[str]:
    with trio.fail_after(30):
        return (await manager.recv(4096)).decode().splitlines()


async def test_a_node_says_that_it_is_ready_what_it_does_and_that_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "1500000")
    with listening(str(tmp_path / "notify")) as manager:
        async with open_running_node(tmp_path / "node") as node:
            assert await hear(manager) == ["READY=1"]
            assert await hear(manager) == ["WATCHDOG=1", "STATUS=clients: 0; nodes: 0"]
            assert await hear(manager) == ["WATCHDOG=1"]
            assert await node.stop(signal.SIGTERM) == ExitCode.OK
            assert await hear(manager) == ["STOPPING=1"]


async def test_it_is_told_that_we_live_three_times_in_its_patience_and_of_changes_only(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    address = str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": str(PID)}
    said = "busy\nwith two lines"
    with listening(address) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ServiceManager.of(environment, PID).keep_told, lambda: said)
            assert await hear(channel) == ["WATCHDOG=1", "STATUS=busy with two lines"]
            started = trio.current_time()
            assert await hear(channel) == ["WATCHDOG=1"]
            assert trio.current_time() == started + 3
            said = "idle"
            assert await hear(channel) == ["WATCHDOG=1", "STATUS=idle"]
            nursery.cancel_scope.cancel()


async def test_without_a_watchdog_it_hears_of_changes_only(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    address = str(tmp_path / "notify")
    said = "one"
    with listening(address) as channel:
        async with trio.open_nursery() as nursery:
            manager = ServiceManager.of({"NOTIFY_SOCKET": address}, PID)
            nursery.start_soon(manager.keep_told, lambda: said)
            assert await hear(channel) == ["STATUS=one"]
            with trio.move_on_after(10 * LOOK_SECONDS) as waiting:
                await channel.recv(4096)
            assert waiting.cancelled_caught
            said = "two"
            assert await hear(channel) == ["STATUS=two"]
            nursery.cancel_scope.cancel()


async def test_an_abstract_socket_is_named_with_an_at_sign() -> None:
    name = f"beemesh-{os.getpid()}"
    with listening("\0" + name) as channel:
        ServiceManager.of({"NOTIFY_SOCKET": "@" + name}, PID).tell("READY=1", "STATUS=here")
        assert await hear(channel) == ["READY=1", "STATUS=here"]


@pytest.mark.parametrize(
    ("environment", "address", "seconds"),
    [
        ({}, None, float("inf")),
        ({"NOTIFY_SOCKET": ""}, None, float("inf")),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, None, float("inf")),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "soon"}, "/run/n", float("inf")),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "0"}, "/run/n", float("inf")),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "500000"}, "/run/n", 0.5),
        (
            {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"},
            "/run/n",
            float("inf"),
        ),
    ],
)
def test_what_its_variables_mean(
    environment: dict[str, str], address: str | None, seconds: float
) -> None:
    assert ServiceManager.of(environment, PID) == ServiceManager(address, seconds)


async def test_a_manager_that_is_gone_or_does_not_listen_holds_nothing_up(tmp_path: Path) -> None:
    ServiceManager.of({"NOTIFY_SOCKET": str(tmp_path / "gone")}, PID).tell("READY=1")
    with listening(str(tmp_path / "full")) as channel:
        manager = ServiceManager.of({"NOTIFY_SOCKET": str(tmp_path / "full")}, PID)
        for number in range(10_000):  # more than it has room for
            manager.tell(f"STATUS={number}")
        assert await hear(channel) == ["STATUS=0"]


def fill(manager: ServiceManager) -> None:
    """Say so much that there is room for nothing more."""
    while manager.tell("STATUS=of another service"):
        pass


async def hear_all(channel: trio.socket.SocketType) -> list[str]:
    """What is said until nothing more comes, without what `fill` has said."""
    heard: list[str] = []
    with trio.move_on_after(10 * LOOK_SECONDS):
        while True:
            heard += (await channel.recv(4096)).decode().splitlines()
    return [fact for fact in heard if fact != "STATUS=of another service"]


async def test_what_a_busy_manager_has_no_room_for_is_told_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    address = str(tmp_path / "notify")
    manager = ServiceManager.of({"NOTIFY_SOCKET": address}, PID)
    with listening(address) as channel:
        fill(manager)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.tell_ready)
            await trio.testing.wait_all_tasks_blocked()
            assert await hear_all(channel) == ["READY=1"]
        fill(manager)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.keep_told, lambda: "idle")
            await trio.testing.wait_all_tasks_blocked()
            assert await hear_all(channel) == ["STATUS=idle"]
            nursery.cancel_scope.cancel()


# ---- the files that operators copy


def settings_of(unit: str) -> dict[str, str]:
    """`KEY=value` lines of a unit."""
    lines = (line.partition("=") for line in unit.splitlines() if not line.startswith(("#", "[")))
    return {key: value for key, _, value in lines if key}


def test_the_unit_starts_a_node_anew_where_that_may_help_and_lets_it_stop_in_order() -> None:
    unit = settings_of((SERVICE / "beemesh.service").read_text())
    assert unit["Type"] == "notify"
    assert unit["WatchdogSec"] == "2min"
    assert shlex.split(unit["ExecStart"])[1:] == ["up", "--data", "/var/lib/beemesh"]
    hopeless = {int(code) for code in unit["RestartPreventExitStatus"].split()}
    assert hopeless == {ExitCode.USAGE, ExitCode.CORRUPT}
    patience = float(unit["TimeoutStopSec"].removesuffix("s"))
    assert patience > load_config({"data": Path("/nowhere")}, {}).shutdown_seconds


def test_the_image_is_told_what_a_node_understands() -> None:
    text = (SERVICE / "Containerfile").read_text()
    told = dict(re.findall(r"(BEEMESH_\w+)=(\S+)", text))
    config = load_config(read_environment(told), {})
    assert (config.data, config.ws.host, config.mesh.port) == (Path("/data"), "0.0.0.0", 49737)
    assert f"EXPOSE {config.ws.port} {config.mesh.port}" in text.splitlines()
    for directory in re.findall(r"^COPY .*?(\w+) /src/\1$", text, re.MULTILINE):
        assert (SERVICE.parents[1] / directory / "__init__.py").is_file()
    compose = (SERVICE / "compose.yaml").read_text()
    said = dict(re.findall(r"(BEEMESH_\w+): ([\w-]+)", compose))
    assert read_environment(said).keys() == {"name", "mesh_name"}


async def test_alerts_look_at_what_a_node_tells(tmp_path: Path) -> None:
    text = (SERVICE / "alerts.yaml").read_text()
    rules = re.findall(r"expr: (.*)", text)
    asked = {name for rule in rules for name in re.findall(r"(?:beemesh|process)_\w+", rule)}
    assert len(rules) == text.count("- alert: ") == text.count("summary: ") == 12
    async with open_running_node(tmp_path) as node:
        access = AdminAccess.read(node.data)
        assert access is not None
        host = access.url.removeprefix("http://")
        headers = {"Authorization": f"Bearer {access.token}"}
        code, _, body = await ask(host, "/metrics", headers)
    assert code == 200
    told = {line.split("{")[0].split()[0] for line in body.splitlines() if line[:1] != "#"}
    assert asked <= told
