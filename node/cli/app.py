"""The command and its exit codes."""

from __future__ import annotations

import importlib.metadata
import inspect
import io
import os
import sys
from collections.abc import Iterable, Sequence

from cyclopts import App, CycloptsError, UnknownCommandError, UnusedCliTokensError

from node.cli.output import give_up_stdout, print_error
from node.errors import ConfigError
from node.failures import causes, only_cause, tell_failure
from node.verbs import ExitCode

_HELP = (
    "A peer-to-peer mesh sync node: serves Jazz apps, and shares what they hold with other nodes."
)
_IMPORT = "Take over what a cojson server's SQLite file holds."
_EXPORT = "Write everything into a SQLite file that a cojson server opens."
_BACKUP = "Copy the data directory, while the node serves."
_COMPLETION = "Print a script with which a shell completes this."
_PROOF = "Write what proves a block, or a fork, to anybody."
_VERIFY_PROOF = "Check such a proof, with no node and no data: 0 it holds, 6 it does not."
_VERIFY = "Check all that is stored against its signatures; --repair mends it."
_RECOVER = "Let a core that may have lost its newest blocks take more again."
_EXPLAIN = "Tell why a coValue is here or not, and who else has it."
_EPILOGUE = "Start with `beemesh up`. Exit codes: 0 ok, 1 failed, 2 usage, 3 no node running, \
4 not found, 5 timeout, 6 corrupt."

_HELP_FLAGS = frozenset({"--help", "-h"})


def build_app() -> App:
    app = App(
        name="beemesh",
        help=_HELP,
        help_epilogue=_EPILOGUE,
        help_format="plaintext",
        version=lambda: importlib.metadata.version("beemesh"),
    )
    app.command("node.cli.up:up", name="up", help="Run the node in the foreground.")
    app.command("node.cli.values:load", name="load", help="Load one coValue through the node.")
    app.command("node.cli.values:ls", name="ls", help="List the coValues held.")
    app.command("node.cli.values:forks", name="forks", help="List sessions that were forked.")
    app.command("node.cli.watch:status", name="status", help="Show what the node is and does.")
    app.command("node.cli.watch:peers", name="peers", help="Show the connected nodes.")
    _add_policy(app)
    _add_care(app)
    _add_members(app)
    for group in (_build_sync(), *_build_network(), _build_core(), _build_bee()):
        app.command(group)
    return app


def _add_policy(app: App) -> None:
    """What the node keeps, and of whom."""
    app.command("node.cli.policy:pin", name="pin", help="Keep coValues here, up to date.")
    app.command("node.cli.policy:unpin", name="unpin", help="Take back a pin.")
    app.command("node.cli.policy:follow", name="follow", help="Keep coValues by prefix or owner.")
    app.command("node.cli.policy:unfollow", name="unfollow", help="Take back a follow.")
    app.command("node.cli.policy:policy", name="policy", help="What the node keeps, and of whom.")
    app.command("node.cli.explain:explain", name="explain", help=_EXPLAIN)
    app.command("node.cli.mirror:mirror", name="mirror", help="Keep and serve another's core.")
    app.command(
        "node.cli.mirror:mirrors", name="mirrors", help="Show the mirrors, and how far each is."
    )
    app.command("node.cli.mirror:unmirror", name="unmirror", help="Take back a mirror.")


def _add_care(app: App) -> None:
    """What an operator does with the data as a whole."""
    app.command("node.cli.transfer:import_values", name="import", help=_IMPORT)
    app.command("node.cli.transfer:export_values", name="export", help=_EXPORT)
    app.command("node.cli.backup:backup", name="backup", help=_BACKUP)
    app.command("node.cli.bee:compact", name="compact", help="Free what was deleted from a bee.")
    app.command("node.cli.completion:completion", name="completion", help=_COMPLETION)


def _add_members(app: App) -> None:
    """Who belongs to the mesh."""
    app.command("node.cli.mesh:invite", name="invite", help="Print a ticket for another node.")
    app.command("node.cli.mesh:members", name="members", help="List who is, or was, in the mesh.")
    app.command("node.cli.mesh:revoke", name="revoke", help="Shut out a member, or a ticket.")
    app.command("node.cli.mesh:mesh", name="mesh", help="Show the mesh that the node is in.")


def _build_sync() -> App:
    sync = App(
        name="sync", help="How far the nodes of the mesh are in step.", help_format="plaintext"
    )
    sync.command("node.cli.sync:status", name="status", help="Show how far each member is.")
    sync.command("node.cli.sync:wait", name="wait", help="Wait until they, or some values, are.")
    return sync


def _build_network() -> tuple[App, App]:
    dht = App(name="dht", help="The DHT that nodes are found through.", help_format="plaintext")
    dht.command("node.cli.network:bootstrap", name="bootstrap", help="Run a network's first node.")
    doctor = App(name="doctor", help="Find out what is wrong.", help_format="plaintext")
    doctor.command("node.cli.network:net", name="net", help="How others can reach this machine.")
    return dht, doctor


def _build_core() -> App:
    core = App(name="core", help="Hypercores, by name or key.", help_format="plaintext")
    core.command("node.cli.core:ls", name="ls", help="List the cores of this directory.")
    core.command("node.cli.core:info", name="info", help="Show a core's key, length and holdings.")
    core.command("node.cli.core:get", name="get", help="Print one block.")
    core.command("node.cli.proof:proof", name="proof", help=_PROOF)
    core.command("node.cli.proof:verify_proof", name="verify-proof", help=_VERIFY_PROOF)
    core.command("node.cli.core:append", name="append", help="Append blocks to a core of ours.")
    core.command("node.cli.core:truncate", name="truncate", help="Cut a core of ours back.")
    core.command("node.cli.core:clear", name="clear", help="Free the room of some blocks.")
    core.command("node.cli.core:recover", name="recover", help=_RECOVER)
    core.command("node.cli.core:purge", name="purge", help="Remove a core for good.")
    core.command("node.cli.verify:verify", name="verify", help=_VERIFY)
    return core


def _build_bee() -> App:
    bee = App(name="bee", help="Hyperbees, by name or key.", help_format="plaintext")
    bee.command("node.cli.bee:ls", name="ls", help="List entries in key order.")
    bee.command("node.cli.bee:info", name="info", help="Show a bee's core and version.")
    bee.command("node.cli.bee:get", name="get", help="Print one value.")
    bee.command("node.cli.bee:put", name="put", help="Write one entry to a bee of ours.")
    return bee


def _tell_all(app: App, words: Sequence[str]) -> None:
    """Have a command's own help say all of its docstring: lists show the first line only."""
    path, apps, _ = app.parse_commands(words)
    verb = apps[-1].default_command
    if verb is not None and (text := inspect.getdoc(verb)):
        apps[-1].help = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
        apps[-1].usage = _usage(path, inspect.signature(verb).parameters.values())


def _usage(path: Sequence[str], parameters: Iterable[inspect.Parameter]) -> str | None:
    """With the names of arguments that may be left out: cyclopts calls them all `[ARGS]`."""
    names = []
    for parameter in parameters:
        name = parameter.name.upper()
        if parameter.kind is parameter.VAR_POSITIONAL:
            names.append(f"[{name}...]")
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            names.append(name if parameter.default is parameter.empty else f"[{name}]")
    if not any(name.startswith("[") for name in names):
        return None
    return " ".join(("Usage: beemesh", *path, "[OPTIONS]", *names))


def _open_missing_streams() -> None:
    """Give stdin, stdout and stderr a file when whoever started us left them closed.

    Python has None in their place. And the next file to be opened, of the database perhaps, would
    get their number, and with it what anybody writes to stderr by number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _escape_what_cannot_be_printed() -> None:
    """Escape letters that stdout's encoding lacks, as stderr does: the verb is done by then."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    _open_missing_streams()
    _escape_what_cannot_be_printed()
    given = list(sys.argv[1:] if arguments is None else arguments)
    show_traceback = "--debug" in given or os.environ.get("BEEMESH_DEBUG", "") not in ("", "0")
    try:
        app = build_app()
        if not _HELP_FLAGS.isdisjoint(given):
            _tell_all(app, [word for word in given if word not in _HELP_FLAGS])
        result = app(given, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return result if isinstance(result, int) else ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        give_up_stdout()
        return ExitCode.OK
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):
            return ExitCode.OK  # rich has ended it, for the same reason
        raise
    except Exception as error:  # the outermost frame: every failure is one line
        if show_traceback:
            raise
        code, text = explain(error, given)
        print_error(text)
        return code


def explain(error: BaseException, given: Sequence[str] = ()) -> tuple[ExitCode, str]:
    """The exit code and the one line for a failure of what was `given` on the command line."""
    error = only_cause(error)
    match error:
        case ConfigError():
            return ExitCode.USAGE, f"{error}{_hint(str(error), given)}"
        case UnusedCliTokensError():
            extra = " ".join(error.unused_tokens or ())[:100]
            return ExitCode.USAGE, f"{extra!r} is not expected here (try `{_help(given)}`)"
        case UnknownCommandError() if given and given[0].startswith("-"):
            text = f"{given[0]} is before the command: options come behind it, as in"
            return ExitCode.USAGE, f"{text} `beemesh status --data PATH`"
        case CycloptsError():
            return ExitCode.USAGE, f"{error} (try `{_help(given)}`)"
    if (told := tell_failure(error)) is not None:
        return told
    text = f"internal error: {causes(error)}"
    return ExitCode.FAILED, f"{text}; run again with --debug and report what it shows"


def _hint(text: str, given: Sequence[str]) -> str:
    """Says whose help lists the option at fault; those of `up` may come from a file or variable."""
    option = text.partition(" ")[0].rstrip(":")
    if text.startswith("the command line") or option in {word.split("=")[0] for word in given}:
        return f" (`{_help(given)}` lists the options)"
    is_of_up = text.startswith(("--", "the environment"))
    return " (`beemesh up --help` lists the options)" if is_of_up else ""


def _help(given: Sequence[str]) -> str:
    return " ".join(("beemesh", *build_app().parse_commands(given)[0], "--help"))
