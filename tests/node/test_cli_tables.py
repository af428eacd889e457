"""Tables on terminals of every width, and what others wrote into them."""

import io
import json
import re
import sys

import pytest
from rich.console import Console, RenderableType
from rich.screen import Screen

from node.cli.output import facts, fitting, print_error, print_facts, print_json, table
from node.cli.watch import show as show_watched
from node.verbs import ExitCode, VerbError

KEY = "xzwdhhqyydftr3odriy4bp3j56ff69fyj1757ipygqcatpth6u4y"
HEADINGS = ("key", "name", "id", "address", "since", "seen", "now")
ROWS = [
    (KEY, "machine-b.example", "66289a44a9e7", "192.0.2.1:49737", "2026-11-27 08:30", "-", "away"),
    (KEY, "alpha", "be636a399258", "127.0.0.1:37938", "2026-11-26 08:30", "-", "shut out: " * 9),
]


def show(width: int, *, is_terminal: bool = True) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=is_terminal, color_system=None)
    console.print(table(HEADINGS, ROWS, "Nothing."))
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 100, 140, *range(155, 165), 200])
def test_what_is_copied_is_never_cut_in_two(width: int) -> None:
    text = "\n".join(show(width))
    for row in ROWS:
        for cell in row[:-1]:
            assert cell in text, width


def test_a_wide_terminal_shows_a_line_a_row_and_wraps_what_is_said_last() -> None:
    lines = show(165)
    assert any("alpha" in line and KEY in line and "2026-11-26 08:30" in line for line in lines)
    assert sum("shut" in line for line in lines) > 1


def test_a_narrow_one_shows_a_block_a_row_without_what_is_not_known() -> None:
    assert show(60)[:9] == [
        KEY,
        "name     machine-b.example",
        "id       66289a44a9e7",
        "address  192.0.2.1:49737",
        "since    2026-11-27 08:30",
        "now      away",
        "",
        KEY,
        "name     alpha",
    ]


def test_what_is_piped_is_a_table_at_any_width() -> None:
    assert KEY not in show(60, is_terminal=False)
    assert any("alpha" in line and KEY in line for line in show(200, is_terminal=False))


@pytest.mark.parametrize(("width", "gap"), [(80, 1), (81, 2), (200, 2)])
def test_an_id_beside_the_longest_name_stays_whole_in_80_columns(width: int, gap: int) -> None:
    """Found in use: of each id in `beemesh status` the last digit was on a line of its own."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    console.print(facts([("id", "ab" * 32), ("blocks uploaded", "0 (0 B)")]))
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    space = " " * gap
    assert lines == [f"{'id':<15}{space}{'ab' * 32}", f"blocks uploaded{space}0 (0 B)"]


def test_what_is_watched_through_a_pipe_is_printed_each_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in use: `beemesh status --watch | tee log` printed nothing at all."""
    monkeypatch.setattr("node.cli.watch.REFRESH_SECONDS", 0)
    views = iter([facts([("peers", "1")]), facts([("peers", "2")])])

    def view() -> RenderableType:
        if (found := next(views, None)) is None:
            raise KeyboardInterrupt
        return found

    assert show_watched(True, view) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["peers", "1"],
        ["peers", "2"],
    ]


def test_who_watches_a_terminal_sees_the_node_stop_and_come_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.cli.watch.REFRESH_SECONDS", 0)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    stopped = VerbError(ExitCode.NO_NODE, "no node is running on /data")
    views = iter([facts([("peers", "1")]), stopped, facts([("peers", "2")]), KeyboardInterrupt()])

    def view() -> RenderableType:
        found = next(views)
        if isinstance(found, BaseException):
            raise found
        return found

    assert show_watched(True, view) == 0
    out = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", capsys.readouterr().out)
    assert out.index("no node is running on /data") < out.index("peers  2")


def test_a_watch_of_a_node_that_never_ran_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    def view() -> RenderableType:
        raise VerbError(ExitCode.NO_NODE, "no node is running on /data")

    with pytest.raises(VerbError):
        show_watched(True, view)


ODD = "eve\x1b[31m\x1b]0;title\x07\x9b2J\u202e\nnode"
SHOWN = r"eve\x1b[31m\x1b]0;title\x07\x9b2J\u202e\nnode"


@pytest.mark.parametrize("width", [20, 120])
def test_a_terminal_obeys_nothing_that_a_member_calls_itself(width: int) -> None:
    """Found in use: a member's name could color, retitle and clear the terminal of an admin."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    console.print(table(("name", "now"), [(ODD, "here")], "Nothing."), facts([("name", ODD)]))
    assert "".join(file.getvalue().split()).count(SHOWN) == 2


def test_what_is_printed_plainly_is_not_obeyed_either(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("type", ODD), ("place", "Zürich 蜂")])
    print_error(ODD.replace("\n", " "))
    print_json({"name": ODD})
    out, error = capsys.readouterr()
    first, second, line = out.splitlines()
    assert (first, second) == (f"type   {SHOWN}", "place  Zürich 蜂")
    assert error == "beemesh: " + SHOWN.replace(r"\n", " ") + "\n"
    assert "\x9b" not in line
    assert json.loads(line) == {"name": ODD}


@pytest.mark.parametrize(
    ("height", "said"),
    [
        (5, ["a  1", "b  2", "c  3", "d  4", ""]),
        (3, ["a  1", "b  2", "2 more lines do not fit here"]),
    ],
)
def test_what_a_low_terminal_cuts_off_is_said(height: int, said: list[str]) -> None:
    """`status --watch` ended in the middle of its table as if that was all."""
    file = io.StringIO()
    console = Console(file=file, width=60, height=height, force_terminal=True, color_system=None)
    rows = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]
    console.print(Screen(fitting(facts(rows))))
    assert [line.rstrip() for line in file.getvalue().split("\n")][:height] == said
