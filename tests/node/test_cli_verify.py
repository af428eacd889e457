"""`beemesh core verify`, with and without `--repair`, on the data directory itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from node.cli.app import main
from node.verbs import ExitCode
from tests.hypercore.bit_flip_campaign import flip


class Beemesh:
    def __init__(self, data: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.data = data
        self._capture = capture

    def __call__(self, *arguments: str) -> tuple[int, str]:
        code = main([*arguments, "--data", str(self.data)])
        captured = self._capture.readouterr()
        return code, captured.out + captured.err


@pytest.fixture
def beemesh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Beemesh:
    command = Beemesh(tmp_path / "data", capsys)
    blocks = [f"block {index} " * 60 for index in range(100)]
    assert command("core", "append", "log", *blocks)[0] == ExitCode.OK
    return command


def damage(beemesh: Beemesh) -> None:
    """Turn a bit somewhere in the blocks."""
    (table,) = beemesh.data.rglob("*.sst")
    flip(table, table.stat().st_size // 3, 1)


def test_what_is_sound(beemesh: Beemesh) -> None:
    code, text = beemesh("core", "verify", "log")
    assert code == ExitCode.OK
    assert "sound; length 100, 100 blocks and 97 tree nodes verified" in text
    code, text = beemesh("core", "verify", "--json")
    assert code == ExitCode.OK
    (result,) = [json.loads(line) for line in text.splitlines()]
    assert result["sound"] is True
    assert result["blocks_verified"] == 100


def test_each_core_is_called_by_its_name(beemesh: Beemesh) -> None:
    assert beemesh("bee", "put", "towns", "Bern", "CH")[0] == ExitCode.OK
    _, text = beemesh("core", "verify")
    assert sorted(line.partition(":")[0] for line in text.splitlines()) == ["log", "towns"]
    _, text = beemesh("core", "verify", "towns")
    assert text.startswith("towns: sound")
    _, text = beemesh("core", "info", "towns", "--json")
    key = json.loads(text)["key"]
    _, text = beemesh("core", "verify", "--json")
    results = [json.loads(line) for line in text.splitlines()]
    assert (key, "towns") in [(result["key"], result["name"]) for result in results]
    _, text = beemesh("core", "verify", key)
    assert text.startswith(f"{key}: sound")


def test_a_copied_directory_is_not_said_to_be_damaged(beemesh: Beemesh) -> None:
    assert beemesh("bee", "put", "towns", "Bern", "CH")[0] == ExitCode.OK
    original = beemesh.data.rename(beemesh.data.with_name("original"))
    shutil.copytree(original, beemesh.data)
    for arguments in (
        ("core", "verify", "--repair"),
        ("core", "append", "log", "more"),
        ("compact", "towns"),
    ):
        code, text = beemesh(*arguments)
        assert (code, "the directory was copied" in text) == (ExitCode.FAILED, True)
        assert "beyond repair" not in text
        assert "secret key" not in text
    assert beemesh("core", "verify")[0] == ExitCode.OK


def test_a_core_that_is_not_there(beemesh: Beemesh) -> None:
    code, text = beemesh("core", "verify", "lok")
    assert code == ExitCode.NOT_FOUND
    assert "did you mean log?" in text


def test_a_store_without_cores_says_so(beemesh: Beemesh) -> None:
    assert beemesh("core", "purge", "log", "--yes")[0] == ExitCode.OK
    for arguments in ((), ("--repair",)):
        assert beemesh("core", "verify", *arguments) == (
            ExitCode.OK,
            "There are no cores to verify.\n",
        )
    assert beemesh("core", "verify", "--json") == (ExitCode.OK, "")


def test_damage_is_told_of_and_ours_stays_lost(beemesh: Beemesh) -> None:
    damage(beemesh)
    code, text = beemesh("core", "verify")
    assert code == ExitCode.CORRUPT
    assert "DAMAGED" in text
    assert "checksum" in text
    code, text = beemesh("core", "verify", "--repair")
    assert code == ExitCode.CORRUPT  # nobody else has what only we wrote
    assert "1 places of the store could not be read" in text
    assert "db.damaged" in text
    code, text = beemesh("core", "verify", "log")
    assert code == ExitCode.CORRUPT
    assert "missing" in text
    code, _ = beemesh("core", "append", "log", "goes on")
    assert code == ExitCode.OK


def test_what_cannot_be_repaired_is_not_advised_to_be(beemesh: Beemesh) -> None:
    (table,) = beemesh.data.rglob("*.sst")
    table.write_bytes(table.read_bytes()[:1000])
    code, text = beemesh("core", "verify")
    assert (code, "run `beemesh core verify --repair`" in text) == (ExitCode.CORRUPT, True)
    code, text = beemesh("core", "verify", "--repair")
    assert (code, "beyond repair" in text) == (ExitCode.CORRUPT, True)
    assert "--repair" not in text


def test_without_the_list_of_its_files_all_that_is_left_is_saved(beemesh: Beemesh) -> None:
    for manifest in beemesh.data.rglob("MANIFEST-*"):
        manifest.unlink()
    code, text = beemesh("core", "verify")
    assert (code, "run `beemesh core verify --repair`" in text) == (ExitCode.CORRUPT, True)
    code, text = beemesh("core", "verify", "--repair")
    assert code == ExitCode.CORRUPT, "there may have been more"
    assert "the list of the tables is lost" in text
    assert "log: its newest head may be lost" in text
    assert "log: sound; length 100, 100 blocks" in text
    code, text = beemesh("core", "verify", "--repair")
    assert (code, "list of the tables" in text) == (ExitCode.OK, False)
    check_recovery(beemesh)


def test_a_repair_is_of_the_whole_store(beemesh: Beemesh) -> None:
    code, text = beemesh("core", "verify", "log", "--repair")
    assert code == ExitCode.USAGE
    assert "name no core" in text
    code, text = beemesh("core", "verify", "--repair")
    assert (code, "log: sound" in text) == (ExitCode.OK, True)


def check_recovery(beemesh: Beemesh) -> None:
    """A core that has lost its newest blocks, perhaps: it is said what to do."""
    code, text = beemesh("core", "info", "log", "--json")
    assert json.loads(text)["is_recovering"]
    code, text = beemesh("core", "append", "log", "more")
    assert (code, "`beemesh core recover log`" in text) == (ExitCode.FAILED, True)
    code, text = beemesh("core", "recover", "log")
    assert (code, "--alone if nobody else ever had it" in text) == (ExitCode.NO_NODE, True)
    code, text = beemesh("core", "recover", "log", "--alone")
    assert (code, "log takes more; it has 100 blocks, fork 0" in text) == (ExitCode.OK, True)
    assert beemesh("core", "append", "log", "more")[0] == ExitCode.OK
    code, text = beemesh("core", "recover", "log", "--json")
    assert (code, json.loads(text)["length"]) == (ExitCode.OK, 101)
