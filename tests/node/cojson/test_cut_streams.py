"""Clients that claim what they were promised and did not get before their connection ended."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from bee.bee import Bee
from node.cojson.client_link import ClientLink
from node.cojson.cut_streams import CutStreams
from node.cojson.cut_streams_file import keep_cut_streams
from node.cojson.host import SyncHost, open_sync_host
from node.cojson.messages import Known, Load, Message, Reconcile, decode_line
from node.cojson.stream_journal import MAX_BYTES, MAX_COUNTERS, StreamJournal
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from tests.support.authors import Author, edits, map_header
from tests.support.data_log import DataLog

ANN = Author("ann")
FREE = map_header("free")
OTHER = map_header("other").id
SESSION = ANN.session_id(as_agent=True)
COUNT = 10
ALL = KnownState(True, {SESSION: COUNT})


@asynccontextmanager
async def open_large_value(log: DataLog | None = None) -> AsyncIterator[SyncHost]:
    """A host that holds a value of several pieces."""
    log = log or DataLog()
    async with open_sync_host(BeeStore(Bee(log), log)) as host:
        transactions = edits(COUNT, size=60_000)
        contents = [
            ANN.content(FREE, transactions[: n + 1], after=n, as_agent=True, with_header=n == 0)
            for n in range(COUNT)
        ]
        await host.receive_content("test", contents)
        yield host


async def some(link: ClientLink) -> list[Message]:
    """What is said to a client that can take a little."""
    await trio.testing.wait_all_tasks_blocked()
    found = [decode_line(line) for line in await link.next_lines(1)]
    return [message for message in found if message is not None]


async def rest(link: ClientLink) -> list[Message]:
    found: list[Message] = []
    while messages := await some(link):
        found += messages
    return found


def runs(messages: Sequence[Message]) -> list[tuple[int, int]]:
    return [
        (part.after, part.stop)
        for message in messages
        if isinstance(message, Content)
        for part in message.new.values()
    ]


async def begin_to_load(host: SyncHost) -> int:
    """How many transactions a client gets before its connection ends."""
    with host.client("a") as a:
        await a.receive([Load(FREE.id, NOTHING)])
        ((_, stop), *_) = runs(await some(a))
        await a.receive([Known(FREE.id, KnownState(True, {SESSION: stop}))])
        return stop


async def test_who_was_cut_in_the_middle_gets_the_rest() -> None:
    async with open_large_value() as host:
        held = await begin_to_load(host)
        assert held < COUNT
        with host.client("a") as a:
            await a.receive([Load(FREE.id, ALL)])
            assert runs(await rest(a)) == [(COUNT - 1, COUNT)]
            # As cojson answers to what does not continue what it has.
            await a.receive([Known(FREE.id, KnownState(True, {SESSION: held}), True)])
            got = runs(await rest(a))
            assert (got[0][0], got[-1][1]) == (held, COUNT)


async def test_who_has_all_the_same_is_told_so() -> None:
    async with open_large_value() as host:
        await begin_to_load(host)
        with host.client("b") as b:
            await b.receive([Load(FREE.id, ALL)])
            assert runs(await rest(b)) == [(COUNT - 1, COUNT)]
            await b.receive([Known(FREE.id, ALL)])
            assert await rest(b) == []
            await b.receive([Load(FREE.id, KnownState(True, {SESSION: COUNT - 2}))])
            assert runs(await rest(b)) == [(COUNT - 2, COUNT)]


@pytest.mark.parametrize("is_cut", [False, True])
async def test_who_has_said_to_have_all_is_believed(is_cut: bool) -> None:
    async with open_large_value() as host:
        with host.client("a") as a:
            await a.receive([Load(FREE.id, NOTHING)])
            assert runs(await rest(a))[-1] == (COUNT - 2, COUNT)
            if not is_cut:
                await a.receive([Known(FREE.id, ALL)])
        with host.client("a") as a:
            await a.receive([Load(FREE.id, ALL)])
            answer = await rest(a)
        assert answer == [Known(FREE.id, ALL)] if not is_cut else runs(answer)


def test_what_is_remembered_is_bounded() -> None:
    streams = CutStreams(max_counters=3)
    ids = [RawCoId(f"co_z{n}") for n in range(3)]
    for co_id in ids:
        streams.note(co_id, {SESSION: COUNT, ANN.session_id(): 0})
    streams.note(ids[2], {SESSION: COUNT, ANN.session_id(): 0})
    doubted = KnownState(True, {SESSION: COUNT - 1})
    assert [streams.doubt(co_id, ALL) for co_id in ids] == [ALL, ALL, doubted]
    streams.note(ids[0], dict.fromkeys(map(ANN.session_id, "abcd"), 1))
    assert streams.doubt(ids[2], ALL) == ALL
    assert streams.doubt(ids[2], NOTHING) == NOTHING


async def test_who_was_cut_by_a_stop_gets_the_rest_after_it(tmp_path: Path) -> None:
    path, log = tmp_path / "data" / "cut_streams.json", DataLog()
    async with open_large_value(log) as host, keep_cut_streams(path, host.cut_streams):
        await begin_to_load(host)
    for _ in range(2):  # also who comes back after another stop
        store = BeeStore(Bee(log), log)
        async with open_sync_host(store) as host, keep_cut_streams(path, host.cut_streams):
            with host.client("a") as a:
                await a.receive([Load(FREE.id, ALL)])
                assert runs(await rest(a)) == [(COUNT - 1, COUNT)]


async def kill_while_serving(path: Path, log: DataLog) -> None:
    """What is in the files is there, and nothing that an orderly stop would write."""
    async with open_large_value(log) as host, keep_cut_streams(path, host.cut_streams):
        with host.client("a") as a:
            await a.receive([Load(FREE.id, NOTHING)])
            assert runs(await some(a))[0][0] == 0
            for file in path.parent.iterdir():
                shutil.copy(file, path.parent.with_name("killed") / file.name)


async def test_who_was_cut_by_a_crash_gets_the_rest_after_it(tmp_path: Path) -> None:
    """Found in review: only what was cut until an orderly stop was known after it."""
    data, killed, log = tmp_path / "data", tmp_path / "killed", DataLog()
    data.mkdir()
    killed.mkdir()
    await kill_while_serving(data / "cut_streams.json", log)
    path = killed / "cut_streams.json"
    for _ in range(2):  # the second time after an orderly stop
        store = BeeStore(Bee(log), log)
        async with open_sync_host(store) as host, keep_cut_streams(path, host.cut_streams):
            with host.client("a") as a:
                await a.receive([Load(FREE.id, ALL)])
                assert runs(await rest(a)) == [(COUNT - 1, COUNT)]
        assert [file.name for file in killed.iterdir()] == ["cut_streams.json"]


async def test_what_is_kept_is_written_though_the_node_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "cut_streams.json"
    with trio.CancelScope() as scope:
        streams = CutStreams()
        async with keep_cut_streams(path, streams):
            streams.note(FREE.id, {SESSION: COUNT})
            scope.cancel()
            await trio.sleep_forever()
    again = CutStreams()
    async with keep_cut_streams(path, again):
        assert again.announced == {FREE.id: {SESSION: COUNT}}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"version":2,"values":{}}',
        '{"version":1,"values":[]}',
        '{"version":1,"values":{"co_z":[]}}',
        '{"version":1,"values":{"co_z":{"s":-1}}}',
        '{"version":1,"values":{"co_z":{"s":true}}}',
        '{"version":1,"values":{"co_z":{"s":1.5}}}',
        "\udcff",
    ],
)
async def test_what_cannot_be_read_is_not_remembered(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cut_streams.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    left = tmp_path / ".cut_streams.json.0123456789ab"
    left.touch()
    streams = CutStreams()
    async with keep_cut_streams(path, streams):
        assert streams.announced == {}
    assert not left.exists()
    assert not path.exists(), "there was nothing to keep"


async def test_a_node_stops_though_nothing_can_be_kept(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    streams = CutStreams()
    async with keep_cut_streams(in_the_way / "cut_streams.json", streams):
        streams.note(FREE.id, {SESSION: COUNT})


def test_the_journal_has_each_stream_once(tmp_path: Path) -> None:
    path = tmp_path / "streams.log"
    journal = StreamJournal(path)
    for count in (COUNT, COUNT, COUNT + 1):
        journal.begin(FREE.id, {SESSION: count})
    journal.close()
    again = StreamJournal(path)
    again.begin(OTHER, {})
    assert list(again.read()) == [
        (FREE.id, {SESSION: COUNT}),
        (FREE.id, {SESSION: COUNT + 1}),
        (OTHER, {}),
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_journal_is_bounded(tmp_path: Path) -> None:
    journal = StreamJournal(tmp_path / "streams.log")
    long = {SESSION: 1} | {ANN.session_id(str(n)): 1 for n in range(MAX_COUNTERS - 1)}
    for number in range(7):
        journal.begin(FREE.id, {**long, SESSION: number})
    journal.begin(FREE.id, {**long, ANN.session_id("more"): 1})
    kept = [announced[SESSION] for _, announced in journal.read()]
    assert kept == list(range(7 - len(kept), 7))
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert all(size < 2 * MAX_BYTES for size in sizes)


@pytest.mark.parametrize(
    "spoiled", ["", "{", "[1,{}]", '["co_z"]', '["co_z",[]]', "[" * 100_000, "\udcff", "\0" * 99]
)
def test_a_line_that_cannot_be_read_costs_no_other(tmp_path: Path, spoiled: str) -> None:
    path = tmp_path / "streams.log"
    for _ in range(2):
        journal = StreamJournal(path)
        journal.begin(FREE.id, {SESSION: COUNT})
        journal.close()
        with path.open("a", errors="surrogateescape") as file:
            file.write("\n" + spoiled)
    assert list(StreamJournal(path).read()) == [(FREE.id, {SESSION: COUNT})] * 2


def test_a_journal_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    journal = StreamJournal(tmp_path / "later" / "streams.log")
    journal.begin(FREE.id, {SESSION: COUNT})
    assert list(journal.read()) == []
    (tmp_path / "later").mkdir()
    journal.begin(FREE.id, {SESSION: COUNT})
    assert list(journal.read()) == [(FREE.id, {SESSION: COUNT})]
    journal.remove()


def test_what_two_clients_were_told_of_one_value_is_doubted() -> None:
    """Found with model clients: only what the last one was told was remembered."""
    one, other = ANN.session_id("one"), ANN.session_id("other")
    streams = CutStreams()
    streams.note(RawCoId("co_z"), {one: 3, other: 4})
    streams.note(RawCoId("co_z"), {other: 4})
    claimed = KnownState(True, {one: 3, other: 4})
    assert streams.doubt(RawCoId("co_z"), claimed).sessions == {one: 2, other: 3}


@pytest.mark.parametrize("is_longest_first", [False, True])
async def test_who_was_told_of_most_is_doubted_whoever_was_cut_last(
    is_longest_first: bool,
) -> None:
    """The earlier reader, told of less, stayed for longer: the other one never got the rest."""
    async with open_large_value() as host:
        with ExitStack() as one, ExitStack() as other:
            early = one.enter_context(host.client("early"))
            await early.receive([Load(FREE.id, NOTHING)])
            await some(early)
            transactions = edits(COUNT + 1, size=60_000)
            more = ANN.content(FREE, transactions, after=COUNT, as_agent=True, with_header=False)
            await host.receive_content("test", [more])
            late = other.enter_context(host.client("late"))
            await late.receive([Load(FREE.id, NOTHING)])
            await some(late)
            (other if is_longest_first else one).close()
        for claimed in (COUNT + 1, COUNT):
            with host.client("again") as again:
                await again.receive([Load(FREE.id, KnownState(True, {SESSION: claimed}))])
                assert runs(await rest(again)) == [(COUNT, COUNT + 1)]


async def test_an_answer_is_doubted_as_a_load_is() -> None:
    """Found with model clients: who was asked meanwhile said again what it had been promised."""
    async with open_large_value() as host:
        held = await begin_to_load(host)
        with host.client("a") as a:
            batch = Reconcile("batch", ((FREE.id, "another hash"),))
            await a.receive([Load(FREE.id, ALL), batch, Known(FREE.id, ALL)])
            messages = await rest(a)
            assert Load(FREE.id, ALL) in messages
            assert runs(messages) == [(COUNT - 1, COUNT)]
            await a.receive([Known(FREE.id, KnownState(True, {SESSION: held}), True)])
            assert runs(await rest(a))[-1][1] == COUNT
