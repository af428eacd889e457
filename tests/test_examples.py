"""Each example runs, and says what it should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.support.running_node import INTEROP, open_running_node

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_append_and_read(tmp_path: Path) -> None:
    for blocks, start in ((2, 0), (4, 2)):
        out = run_example("append_and_read.py", str(tmp_path))
        assert f"wrote blocks {start} to {start + 1} of core " in out
        assert out.count("raining.") == blocks // 2


def test_file_in_a_core(tmp_path: Path) -> None:
    file = tmp_path / "numbers"
    file.write_text("".join(f"{number:9}\n" for number in range(20_000)))
    out = run_example("file_in_a_core.py", str(file), "123450", "123470")
    assert out == "200000 bytes in 4 blocks\n    12345\n    12346\n"


@pytest.mark.parametrize("name", ["append_and_read.py", "file_in_a_core.py"])
def test_without_its_arguments_an_example_says_how_it_is_run(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        check=False,
    )
    assert done.returncode == 1
    assert f"`python examples/{name} " in done.stderr
    assert "Traceback" not in done.stderr


def test_two_peers() -> None:
    out = run_example("two_peers.py")
    assert "block 7777 is 7777\n" in out
    assert "fetched 1 of 10000 blocks\n" in out


def test_several_signers() -> None:
    out = run_example("several_signers.py")
    assert "2 of 3 must sign\nCarol signed, 1 missing\nAlice signed, 0 missing\n" in out
    assert out.endswith("We buy a boat.\nIt is blue.\n")


def test_bee_over_the_wire() -> None:
    out = run_example("bee_over_the_wire.py")
    assert "town/1236 has 1236 people\n" in out
    match = re.search(r"fetched (\d+) of 5001 blocks", out)
    assert match is not None
    assert int(match[1]) < 100


@pytest.mark.interop
async def test_jazz_client(tmp_path: Path) -> None:
    script = (EXAMPLES / "jazz_client.mjs").read_bytes()
    with trio.fail_after(60):
        async with open_running_node(tmp_path) as node:
            done = await trio.run_process(
                ["node", "--input-type=module", "-", node.ws],
                stdin=script,
                capture_stdout=True,
                cwd=INTEROP,
            )
    out = done.stdout.decode()
    assert re.search(r"^Alice made co_z\w+$", out, re.MULTILINE)
    assert "Bob reads Honey cake\n" in out
    assert "Alice sees 3 eggs\n" in out


def test_every_example_has_a_test() -> None:
    text = Path(__file__).read_text()
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".mjs")]
    assert [name for name in names if name not in text] == []
    assert len(names) == 6
