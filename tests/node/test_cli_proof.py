"""`beemesh core proof` and `verify-proof`: what they print, and how they end."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from hypercore import open_corestore
from node.cli.app import main
from node.verbs import ExitCode
from tests.support.forked_logs import ONE, fork_proof
from tests.support.trees import KEY_PAIR, MANIFEST


class Command:
    """Runs `beemesh core` on one data directory, or offline."""

    def __init__(self, data: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.data = data
        self._capture = capture

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = main(["core", *arguments])
        out, error = self._capture.readouterr()
        return code, out, error

    def on_data(self, *arguments: str) -> tuple[int, str, str]:
        return self(*arguments, "--data", str(self.data))

    def json(self, *arguments: str) -> Any:
        code, out, error = self(*arguments, "--json")
        assert (code, error) == (0, "")
        return json.loads(out)


@pytest.fixture
def core(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    # Who only verifies has no data directory, and none is made.
    monkeypatch.setenv("BEEMESH_DATA", str(tmp_path / "nothing"))
    return Command(tmp_path / "data", capsys)


def test_a_block_is_proven_and_verified_without_a_directory(core: Command, tmp_path: Path) -> None:
    file = tmp_path / "proof"
    core.on_data("append", "log", "one", "two", "three")
    code, out, _ = core.on_data("proof", "log", "1", "--out", str(file))
    size = file.stat().st_size
    assert (code, out) == (0, f"{file} holds the proof, {size} bytes\n")
    info = core.json("info", "log", "--data", str(core.data))
    proven = core.json("verify-proof", str(file), "--key", info["key"])
    assert proven["proves"] == "block"
    assert [proven[name] for name in ("index", "block", "encoding")] == [1, "two", "utf-8"]
    assert [proven[name] for name in ("length", "fork", "byte_length")] == [3, 0, 11]
    assert proven == core.json("verify-proof", str(file), "--key", info["key_hex"])
    assert proven == core.json("verify-proof", str(file))
    code, out, _ = core("verify-proof", str(file))
    assert ["block", "two"] in [line.split() for line in out.splitlines()]
    assert not (tmp_path / "nothing").exists()


def test_a_proof_is_not_poured_over_a_terminal(
    core: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    core.on_data("append", "log", "one")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, error = core.on_data("proof", "log", "0")
    assert (code, out, "say --out FILE" in error) == (ExitCode.USAGE, "", True)


def test_the_head_alone_and_json(core: Command, tmp_path: Path) -> None:
    core.on_data("append", "log", "one", "two")
    answer = core.json("proof", "log", "--data", str(core.data))
    file = tmp_path / "head"
    file.write_bytes(base64.b64decode(answer["proof"]))
    proven = core.json("verify-proof", str(file))
    assert (proven["proves"], proven["length"], "block" in proven) == ("head", 2, False)
    answer = core.json("proof", "log", "--data", str(core.data), "--out", str(file))
    assert answer == {"file": str(file), "bytes": file.stat().st_size}


def test_proofs_come_through_pipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    data = str(tmp_path / "data")
    main(["core", "append", "log", "one", "--data", data])
    capsysbinary.readouterr()
    assert main(["core", "proof", "log", "0", "--data", data]) == 0
    proof = capsysbinary.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(proof)))
    assert main(["core", "verify-proof", "-", "--json"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["block"] == "one"


def test_a_frozen_core_gives_its_evidence(core: Command, tmp_path: Path) -> None:
    async def freeze() -> None:
        core.data.mkdir()
        async with open_corestore(core.data / "corestore") as store:
            log = await store.get(key_pair=KEY_PAIR)
            await log.append(ONE)
            await log.freeze(fork_proof())

    trio.run(freeze)
    key = MANIFEST.key.hex()
    assert core.json("info", key, "--data", str(core.data))["is_frozen"]
    code, out, error = core.on_data("get", key, "9")
    assert (code, out) == (ExitCode.FAILED, "")
    assert "is frozen: its writer signed two histories of fork 0" in error
    file = tmp_path / "fork"
    assert core.on_data("proof", key, "--fork", "--out", str(file))[0] == 0
    assert file.read_bytes() == fork_proof().encode()
    proven = core.json("verify-proof", str(file), "--key", key)
    assert [proven[name] for name in ("proves", "lengths", "differs_below")] == ["fork", [5, 6], 5]
    _, out, _ = core("verify-proof", str(file))
    assert ["lengths", "5", "6"] in [line.split() for line in out.splitlines()]


def test_how_it_fails(core: Command, tmp_path: Path) -> None:
    core.on_data("append", "log", "one")
    file = tmp_path / "proof"
    core.on_data("proof", "log", "0", "--out", str(file))
    spoiled = bytearray(file.read_bytes())
    spoiled[-1] ^= 1
    bad = tmp_path / "bad"
    bad.write_bytes(spoiled)
    offline: list[tuple[tuple[str, ...], ExitCode, str]] = [
        (("verify-proof", str(bad)), ExitCode.CORRUPT, "does not hold"),
        (("verify-proof", str(file), "--key", "ff" * 32), ExitCode.CORRUPT, "of another core"),
        (("verify-proof", str(file), "--key", "short"), ExitCode.USAGE, "--key short"),
        (("verify-proof", str(tmp_path / "none")), ExitCode.FAILED, "No such file"),
        (("verify-proof", str(tmp_path)), ExitCode.FAILED, "directory"),
    ]
    for arguments, expected, text in offline:
        code, out, error = core(*arguments)
        assert (code, out) == (expected, "")
        assert text in error
        assert error.count("\n") == 1
    on_data: list[tuple[tuple[str, ...], ExitCode, str]] = [
        (("proof", "log", "1"), ExitCode.NOT_FOUND, "block 1 is not there: the core has 1 blocks"),
        (("proof", "log", "0", "--fork"), ExitCode.USAGE, "exclude"),
        (("proof", "log", "--fork"), ExitCode.NOT_FOUND, "nothing is known of two histories"),
        (("proof", "nolog", "0"), ExitCode.NOT_FOUND, "did you mean log?"),
    ]
    for arguments, expected, text in on_data:
        code, out, error = core.on_data(*arguments)
        assert (code, out) == (expected, "")
        assert text in error


def test_the_help_says_it(core: Command) -> None:
    code, out, _ = core("--help")
    assert (code, " proof " in out, " verify-proof " in out) == (0, True, True)
    code, out, _ = core("verify-proof", "--help")
    told = " ".join(out.split())
    assert "with no node and no data" in told
    assert "0 it holds, 6 it does not" in told
