"""`beemesh completion`: what a shell sources to complete verbs and options."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from node.verbs import ExitCode

_ZSH_END = """\
if [[ $funcstack[1] == _cyclopts_beemesh ]]; then
  _cyclopts_beemesh "$@"
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
  compdef _cyclopts_beemesh beemesh
fi
"""
"""What is generated is for a file in zsh's own folders: when sourced, it registers nothing."""


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="For which shell.")], /
) -> int:
    """Print a script that completes verbs and options: `source <(beemesh completion bash)`.

    The same works for zsh; for fish it is `beemesh completion fish | source`.
    """
    from node.cli.app import build_app

    print(build_app().generate_completion(shell=shell))
    if shell == "zsh":
        print(_ZSH_END)
    return ExitCode.OK
