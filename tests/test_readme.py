"""What README tells of names is so."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

import bee
import hypercore
import swarm
from node.cli.app import main
from node.config import Config

README = (Path(__file__).parent.parent / "README.md").read_text()
HOLDERS = {
    "core": hypercore.Core,
    "store": hypercore.Corestore,
    "bee": bee.Bee,
    "swarm": swarm.Swarm,
}
NAMES = README.partition("| in JavaScript | here |\n")[2].partition("\n\n")[0]
RIGHT = " ".join(line.split(" | ")[-1] for line in NAMES.splitlines())


@pytest.mark.parametrize(("holder", "name"), re.findall(r"\b(core|store|bee|swarm)\.(\w+)", RIGHT))
def test_what_javascript_calls_otherwise_is_there(holder: str, name: str) -> None:
    assert hasattr(HOLDERS[holder], name)


def test_the_example_in_readme_is_python() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lines = "".join(f"    {line}\n" for line in example.splitlines())
    compile(f"async def main():\n{lines}", "README.md", "exec")


def test_each_setting_is_in_the_help_or_in_readme(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--help"]) == 0
    told = README + capsys.readouterr().out
    for field in msgspec.structs.fields(Config):
        assert f"`{field.name}`" in told or f"--{field.name.replace('_', '-')}" in told
