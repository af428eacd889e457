"""`beemesh completion`: what a shell sources to complete verbs and options."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from node.verbs import ExitCode


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="For which shell.")], /
) -> int:
    """Print a script that completes verbs and options: `source <(beemesh completion bash)`."""
    from node.cli.app import build_app

    print(build_app().generate_completion(shell=shell))
    return ExitCode.OK
