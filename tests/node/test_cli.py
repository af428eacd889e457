"""The command without a node: help, errors, and verbs on the data directory itself."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from hypercore.corestore import open_corestore
from hypercore.storage import Durability
from node.cli.app import explain, main
from node.covalue.content import Content
from node.covalue.sqlite_store import open_sqlite_store
from node.daemon import open_node
from node.errors import ConfigError, CorruptStore, NodeError
from node.verbs import ExitCode
from tests.node.test_daemon import config
from tests.support.authors import Author
from tests.support.stores import Appender


class Beemesh:
    """Runs the command in this process on one data directory."""

    def __init__(self, data: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._data = data
        self._capture = capture

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--data", str(self._data)])
        out, error = self._capture.readouterr()
        return code, out, error

    def json(self, *arguments: str) -> list[Any]:
        code, out, error = self(*arguments, "--json")
        assert (code, error) == (0, "")
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def beemesh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Beemesh]:
    for name in ("BEEMESH_DATA", "BEEMESH_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    yield Beemesh(tmp_path / "data", capsys)
    structlog.reset_defaults()  # `up` has pointed it at the stderr of this test


@pytest.mark.parametrize("command", ["status", "peers", "ls", "sync status", "policy"])
def test_who_asks_a_running_node_loads_nothing_of_a_node(command: str, tmp_path: Path) -> None:
    # Two thirds of a verb's time went into what only a node needs.
    code = f"""
import sys
from node.cli.app import main
main({[*command.split(), "--data", str(tmp_path)]!r})
print(sorted({{"trio", "hypercore", "swarm", "cryptography"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[]"], done


def test_help_names_all_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in ("up", "load", "ls", "status", "peers", "import", "export", "core", "bee"):
        assert f" {verb} " in text
    assert main(["up", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--data", "--join", "--mesh-name", "--durability", "--replicate", "--json"):
        assert option in text
    assert "--join-file" in text


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("up",), "BEEMESH_MIN_COPIES"),
        (("sync", "wait"), "5 not in step in time"),
        (("backup",), "`beemesh up --data DIRECTORY`"),
        (("load", "co_zany"), "Load one coValue"),
    ],
)
def test_the_help_of_a_verb_says_all(
    command: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lists of verbs have one line for each, and for long its own help had no more."""
    assert main([*command, "--help"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


def test_completion_knows_verbs_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "--min-copies" in script
    assert "unmirror" in script


def test_completion_for_zsh_registers_itself(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert "compdef _cyclopts_beemesh beemesh" in script
    if (zsh := shutil.which("zsh")) is None:
        return
    (tmp_path / "script").write_text(script)
    ask = f"source {tmp_path}/script && print $_comps[beemesh]"
    environment = {**os.environ, "ZDOTDIR": str(tmp_path)}
    done = subprocess.run([zsh, "-fc", ask], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "_cyclopts_beemesh"


async def fill(path: Path, content: Content) -> None:
    """A server's file that holds so much."""
    async with open_sqlite_store(path, Durability.OS) as store:
        await Appender().put(store, content)


def test_import_and_export_without_a_node(beemesh: Beemesh, tmp_path: Path) -> None:
    source, target = tmp_path / "source.db", tmp_path / "target.db"
    account = Author("ann").account()
    trio.run(fill, source, account)
    *_, summary = beemesh.json("import", str(source))
    assert (summary["moved"], summary["damaged"]) == (1, 0)
    code, out, _ = beemesh("export", str(target))
    assert (code, out.splitlines()[0].split()) == (0, ["moved", "1"])
    *_, summary = beemesh.json("import", str(target), "--store", "sqlite")
    assert summary["moved"] == 1
    connection = sqlite3.connect(source)
    connection.execute("UPDATE coValues SET header = '{'")
    connection.commit()
    connection.close()
    code, out, error = beemesh("import", str(source))
    assert (code, ["damaged", "1"] in [line.split() for line in out.splitlines()]) == (6, True)
    assert f"{account.co_id} damaged: stored header" in error


@pytest.mark.parametrize("first", ["import", "append"])
def test_a_node_starts_in_a_store_that_a_command_has_made(
    beemesh: Beemesh, tmp_path: Path, first: str
) -> None:
    """It is a new one, its keys are not missed, and others may not look into it."""
    data = tmp_path / "data"
    if first == "import":
        trio.run(fill, tmp_path / "source.db", Author("ann").account())
        beemesh.json("import", str(tmp_path / "source.db"))
    else:
        beemesh.json("core", "append", "log", "first")

    async def start() -> int:
        async with open_node(config(data)) as node:
            return node.status().covalues

    assert data.stat().st_mode & 0o077 == 0
    assert trio.run(start) == (first == "import")


def test_append_get_info_ls(beemesh: Beemesh) -> None:
    (appended,) = beemesh.json("core", "append", "log", "one", "two")
    assert (appended["index"], appended["length"]) == (0, 2)
    assert beemesh("core", "get", "log", "1")[:2] == (0, "two")
    assert beemesh.json("core", "get", "log", "0") == [
        {"index": 0, "value": "one", "encoding": "utf-8"}
    ]
    (info,) = beemesh.json("core", "info", appended["key"])
    assert (info["length"], info["byte_length"], info["is_writable"]) == (2, 6, True)
    assert beemesh.json("core", "info", info["key_hex"]) == [info]
    assert beemesh.json("core", "ls") == [{"name": "log", **info}]
    assert "log" in beemesh("core", "ls")[1]


def test_stdin_is_a_block_or_lines(beemesh: Beemesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    assert beemesh.json("core", "append", "log")[0]["length"] == 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"c\n\nd")))
    assert beemesh.json("core", "append", "log", "--lines")[0]["length"] == 4
    values = [beemesh.json("core", "get", "log", str(index))[0]["value"] for index in range(4)]
    assert values == ["a\nb\n", "c", "", "d"]


def test_a_block_of_no_bytes_is_asked_for_in_so_many_words(
    beemesh: Beemesh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Found in use: a pipe from a program that failed appended one."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    code, _, error = beemesh("core", "append", "log")
    assert (code, "stdin is empty" in error) == (ExitCode.USAGE, True)
    assert not (tmp_path / "data").exists()
    assert beemesh.json("core", "append", "log", "")[0]["length"] == 1


@pytest.mark.parametrize(
    "usage",
    [
        "beemesh ls [OPTIONS] [PREFIX]",
        "beemesh bee put [OPTIONS] NAME KEY [VALUE]",
        "beemesh core append [OPTIONS] NAME [BLOCKS...]",
        "beemesh core get [OPTIONS] CORE INDEX",
    ],
)
def test_the_usage_of_a_verb_names_its_arguments(
    usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = usage.partition(" [OPTIONS]")[0].split()[1:]
    assert main([*command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: {usage}\n\n")


@pytest.mark.parametrize("arguments", [("--help",), ("core", "ls")], ids=" ".join)
def test_a_reader_that_has_had_enough_is_no_failure(
    beemesh: Beemesh, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """As `head` in a script that stops at the first failure."""
    beemesh("core", "append", "log", "one")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "node", *arguments]
    environment = {**os.environ, "BEEMESH_DATA": str(tmp_path / "data")}
    with open(writing, "wb") as out:
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.PIPE, env=environment, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_value_is_not_replaced_by_that_of_a_program_that_failed(
    beemesh: Beemesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    beemesh("bee", "put", "kv", "a", "1")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    code, _, error = beemesh("bee", "put", "kv", "a")
    assert (code, 'for a value of no bytes say ""' in error) == (ExitCode.USAGE, True)
    assert beemesh("bee", "get", "kv", "a")[:2] == (0, "1")
    assert beemesh("bee", "put", "kv", "a", "")[0] == 0


@pytest.mark.parametrize("name", ["missing.db", "text.db"])
def test_no_directory_is_made_for_an_import_of_nothing(
    beemesh: Beemesh, tmp_path: Path, name: str
) -> None:
    (tmp_path / "text.db").write_text("no database")
    assert beemesh("import", str(tmp_path / name))[0] in (ExitCode.USAGE, ExitCode.NOT_FOUND)
    assert not (tmp_path / "data").exists()


def test_a_file_is_no_data_directory(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["up"], ["ls"], ["core", "append", "log", "one"]):
        assert main([*command, "--data", __file__]) == ExitCode.USAGE
        assert f"beemesh: {__file__} is no directory" in capsys.readouterr().err


def test_bee_put_get_ls_info(beemesh: Beemesh) -> None:
    for key, value in (("b", "2"), ("a", "1"), ("ba", "3")):
        assert beemesh("bee", "put", "kv", key, value)[0] == 0
    assert beemesh("bee", "get", "kv", "a")[:2] == (0, "1")
    assert [entry["key"] for entry in beemesh.json("bee", "ls", "kv")] == ["a", "b", "ba"]
    assert [e["key"] for e in beemesh.json("bee", "ls", "kv", "--prefix", "b")] == ["b", "ba"]
    backwards = beemesh.json("bee", "ls", "kv", "--reverse", "--limit", "2")
    assert [entry["value"] for entry in backwards] == ["3", "2"]
    assert beemesh.json("bee", "info", "kv")[0]["version"] == 4
    code, _, error = beemesh("bee", "ls", "nothing")
    assert (code, "did you mean" in error or "core ls" in error) == (ExitCode.NOT_FOUND, True)


def test_compact(beemesh: Beemesh) -> None:
    for number in range(30):
        beemesh("bee", "put", "kv", str(number % 3), f"value {number}")
    (planned,) = beemesh.json("compact", "kv", "--dry-run")
    assert planned["dry_run"]
    assert 20 <= planned["blocks"] <= 27
    assert planned["bytes"] > 20 * len("value 10")
    assert beemesh.json("bee", "get", "kv", "1")[0]["seq"] == 29
    (done,) = beemesh.json("compact", "kv", "--prune")
    assert [done[name] for name in ("blocks", "bytes")] == [
        planned[name] for name in ("blocks", "bytes")
    ]
    assert done["subtrees_pruned"] > 0
    assert [entry["value"] for entry in beemesh.json("bee", "ls", "kv")] == [
        "value 27",
        "value 28",
        "value 29",
    ]
    assert " compact " in beemesh("--help")[1]
    code, _, error = beemesh("compact")
    assert (code, "SQLite gives room back by itself" in error) == (ExitCode.NOT_FOUND, True)
    code, out, _ = beemesh("compact", "kv")
    assert (code, "0 blocks of 0 bytes are gone" in out) == (ExitCode.OK, True)
    beemesh("core", "append", "log", "no bee")
    code, _, error = beemesh("compact", "log")
    assert (code, "log is no bee: block 0 is not a header" in error) == (ExitCode.FAILED, True)
    code, _, error = beemesh("compact", "kvv")
    assert (code, "did you mean kv?" in error) == (ExitCode.NOT_FOUND, True)


@pytest.mark.parametrize(
    ("code", "text", "arguments"),
    [
        (ExitCode.NO_NODE, "start one with `beemesh up", ["status"]),
        (ExitCode.NO_NODE, "no node is running", ["load", "co_z1"]),
        (ExitCode.NO_NODE, "no node is running", ["ls"]),
        (ExitCode.NOT_FOUND, "holds no data", ["core", "get", "log", "0"]),
        (ExitCode.NOT_FOUND, "is no file", ["import", "/nonexistent"]),
        (ExitCode.USAGE, "--limit", ["bee", "ls", "kv", "--limit", "-1"]),
        (ExitCode.USAGE, "cannot be read as a SQLite file", ["import", __file__]),
        (ExitCode.NOT_FOUND, "nothing to export", ["export", "/nonexistent"]),
        (ExitCode.USAGE, "Unknown option", ["up", "--nonsense"]),
        (ExitCode.USAGE, "none of bee, sqlite, hybrid", ["up", "--store", "tape"]),
        (ExitCode.USAGE, "--store sqlite has none", ["up", "--store", "sqlite", "--join", "a:1"]),
        (ExitCode.USAGE, "--mesh-name", ["up", "--store", "sqlite", "--mesh-name", "x"]),
        (ExitCode.USAGE, "--store bee does not use", ["up", "--sqlite", "file"]),
        (ExitCode.USAGE, "HOST:PORT", ["up", "--ws", "x:y"]),
        (ExitCode.USAGE, "a ticket", ["up", "--join", "127.0.0.1:1"]),
        (ExitCode.USAGE, "no duration", ["load", "co_z1", "--timeout", "soon"]),
        (ExitCode.USAGE, "--day-bytes: '1G'", ["policy", "peer", "a", "up", "--day-bytes", "1G"]),
        (ExitCode.USAGE, "--max-value-bytes:", ["policy", "set", "all", "--max-value-bytes", "1G"]),
        (ExitCode.USAGE, "--max-age: '30' has no unit", ["policy", "set", "--max-age", "30"]),
        (ExitCode.USAGE, "no count of at least 1", ["sync", "wait", "--min-copies", "0"]),
        (ExitCode.USAGE, "convert", ["core", "get", "log", "first"]),
        (ExitCode.USAGE, "cannot be read", ["status", "--config", "/nonexistent"]),
        (ExitCode.USAGE, "`beemesh load --help` lists", ["load", "co_z1", "--timeout=soon"]),
        (ExitCode.USAGE, "try `beemesh policy set --help`", ["policy", "set", "some"]),
        (ExitCode.USAGE, "try `beemesh --help`", ["nonsense"]),
        (ExitCode.USAGE, "--json is before the command", ["--json", "status"]),
    ],
)
def test_errors_are_one_line(
    beemesh: Beemesh, code: ExitCode, text: str, arguments: list[str]
) -> None:
    got, out, error = beemesh(*arguments)
    assert (got, out) == (code, "")
    assert text in error
    assert error.startswith("beemesh: ")
    assert error.count("\n") == 1


def test_an_empty_data_directory_is_not_the_working_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A script's variable may be unset."""
    assert main(["core", "append", "log", "block", "--data", ""]) == ExitCode.USAGE
    assert "--data: it is empty" in capsys.readouterr().err


def test_what_is_missing_is_said(beemesh: Beemesh) -> None:
    beemesh("core", "append", "log", "one", "no bee")
    code, _, error = beemesh("core", "get", "log", "2")
    assert (code, "has 2 blocks" in error) == (ExitCode.NOT_FOUND, True)
    for verb in ("get", "proof"):
        code, _, error = beemesh("core", verb, "log", str(1 << 64))
        assert (code, "has 2 blocks" in error) == (ExitCode.NOT_FOUND, True)
    code, _, error = beemesh("core", "get", "lgo", "0")
    assert (code, "did you mean log?" in error) == (ExitCode.NOT_FOUND, True)
    code, _, error = beemesh("core", "get", "ff" * 32, "0")
    assert (code, "not stored here" in error) == (ExitCode.NOT_FOUND, True)
    code, _, error = beemesh("bee", "get", "log", "k")
    assert code == ExitCode.FAILED
    code, _, error = beemesh("core", "append", "beemesh/data", "x")
    assert code == ExitCode.USAGE


@pytest.mark.parametrize(
    "command", [("core", "append", "", "x"), ("bee", "put", "", "k", "v"), ("core", "info", "")]
)
def test_a_name_that_a_script_left_empty_is_refused(
    command: tuple[str, ...], beemesh: Beemesh
) -> None:
    beemesh("core", "append", "log", "one")
    code, _, error = beemesh(*command)
    assert (code, "none is given" in error) == (ExitCode.USAGE, True)
    assert [core["name"] for core in beemesh.json("core", "ls")] == ["log"]


def test_a_bee_without_a_content_feed_has_none(beemesh: Beemesh) -> None:
    beemesh("bee", "put", "kv", "k", "v")
    assert beemesh("bee", "info", "kv")[1].splitlines()[-1].split() == ["content", "feed", "-"]


def test_a_bootstrap_node_that_cannot_listen_says_where_and_why(beemesh: Beemesh) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, error = beemesh("dht", "bootstrap", address)
    assert code == ExitCode.FAILED
    advice = "another program listens there; choose another address"
    assert error == f"beemesh: cannot listen on {address}: {advice}\n"
    code, _, error = beemesh("dht", "bootstrap", "192.0.2.7:4444", "--bind", "127.0.0.1:4444")
    assert (code, "--bind: '127.0.0.1:4444' is no IPv4 address" in error) == (ExitCode.USAGE, True)


async def test_a_node_that_is_still_starting_is_not_said_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found in use: while it asked its members, one was told to start it."""
    arguments = ["status", "--data", str(tmp_path)]
    async with open_corestore(tmp_path / "corestore"):
        assert await trio.to_thread.run_sync(main, arguments) == ExitCode.NO_NODE
    error = capsys.readouterr().err
    assert f"process {os.getpid()} has {tmp_path} open" in error
    assert "running since" in error, "by its command one sees whether it is a node at all"
    assert "it is another command, or a node that is starting" in error
    assert await trio.to_thread.run_sync(main, arguments) == ExitCode.NO_NODE
    assert "no node is running" in capsys.readouterr().err


def test_what_an_encoding_lacks_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in use: the block was appended, and the command ended with an internal error."""
    data = ["--data", str(tmp_path)]
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as ascii_only:
        monkeypatch.setattr(sys, "stdout", ascii_only)
        assert main(["core", "append", "Zürich", "x", *data]) == 0
        assert main(["core", "ls", "--json", *data]) == 0
        ascii_only.flush()
        ascii_only.seek(0)
        said, listed = ascii_only.read().splitlines()
        monkeypatch.undo()
    assert said == r"Z\xfcrich now has 1 block; the first new one is 0"
    assert json.loads(listed)["name"] == "Zürich"


def test_an_access_file_that_is_none_is_no_question_of_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "admin.json").mkdir()
    assert main(["status", "--data", str(tmp_path)]) == ExitCode.FAILED
    assert capsys.readouterr().err.endswith("admin.json cannot be read: Is a directory\n")


def test_debug_shows_the_traceback(beemesh: Beemesh) -> None:
    with pytest.raises(ConfigError):
        beemesh("status", "--config", "/nonexistent", "--debug")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), ExitCode.USAGE),
        (NodeError("x"), ExitCode.FAILED),
        (CorruptStore("co_z1", "x"), ExitCode.CORRUPT),
        (ExceptionGroup("g", [ExceptionGroup("h", [CorruptStore("co_z1", "x")])]), 6),
        (PermissionError(13, "Permission denied", "/data"), ExitCode.FAILED),
        (RuntimeError("bug"), ExitCode.FAILED),
    ],
)
def test_every_failure_has_a_code(error: BaseException, code: int) -> None:
    got, text = explain(error)
    assert got == code
    assert text
