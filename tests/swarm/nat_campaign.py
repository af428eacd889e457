"""How long it takes to connect through NATs, between us and the JavaScript originals.

    python -m tests.swarm.nat_campaign [--cases cone-cone,cone-random] [--pairs py-py,py-js]

The first of a case, and of a pair, is the client's. Two random NATs take a blind relay, ours,
which the server names; with `--relay` it names one in all cases. Needs root (see
`tests.support.nat_lab`).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from tests.support.nat_lab import INTERNET_HOSTS
from tests.support.peer_process import PeerProcess, open_peer_process, open_process

INTEROP = Path(__file__).parents[1] / "interop"
ROOT = Path(__file__).parents[2]
BOOTSTRAP = f"{INTERNET_HOSTS[0]}:49737"
LIMIT_SECONDS = 60.0
SETTLE_SECONDS = 40.0
"""For a relayed connection to become a better one."""

CASES = ("cone-cone", "cone-random", "random-cone", "random-random")
PAIRS = ("py-js", "js-py", "py-py", "js-js")


@asynccontextmanager
async def open_lab(*modes: str) -> AsyncIterator[str]:
    """Homes behind NATs of these modes; the prefix of the namespaces."""
    arguments = [sys.executable, "-m", "tests.support.nat_lab", *modes]
    async with open_process(arguments, ROOT) as process:
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            chunk = await process.stdout.receive_some()
            if not chunk:
                raise RuntimeError("the lab did not start: is this root, with /dev/net/tun?")
            line += chunk
        yield line.decode().strip()


@asynccontextmanager
async def open_peer(
    namespace: str, arguments: Sequence[str], folder: Path
) -> AsyncIterator[PeerProcess]:
    command = ["ip", "netns", "exec", namespace, *arguments]
    async with open_peer_process(PeerProcess, command, folder) as peer:
        await peer("state")
        yield peer


def open_guest(kind: str, namespace: str) -> AbstractAsyncContextManager[PeerProcess]:
    if kind == "js":
        return open_peer(namespace, ["node", "dht_peer.cjs", "away", BOOTSTRAP], INTEROP)
    return open_peer(namespace, [sys.executable, "-m", "tests.support.nat_peer", BOOTSTRAP], ROOT)


def open_relay(namespace: str) -> AbstractAsyncContextManager[PeerProcess]:
    """A blind relay of ours that strangers reach."""
    arguments = [sys.executable, "-m", "tests.support.nat_peer", BOOTSTRAP, INTERNET_HOSTS[-1]]
    return open_peer(namespace, arguments, ROOT)


async def measure(case: str, pair: str, has_relay: bool = False) -> str:
    """One connection: the time, and where the client found the server; or why it did not."""
    modes, kinds = case.split("-"), pair.split("-")
    hosts = ",".join(INTERNET_HOSTS)
    async with AsyncExitStack() as stack:
        prefix = await stack.enter_async_context(open_lab(*modes))
        network = open_peer(f"{prefix}net", ["node", "dht_peer.cjs", "members", hosts], INTEROP)
        await stack.enter_async_context(network)
        client = await stack.enter_async_context(open_guest(kinds[0], f"{prefix}0"))
        server = await stack.enter_async_context(open_guest(kinds[1], f"{prefix}1"))
        relay = {}
        if has_relay or case == "random-random":
            relaying = await stack.enter_async_context(open_relay(f"{prefix}net"))
            relay = {"relay": (await relaying("serveRelay", seed="33" * 32))["key"]}
        key = (await server("serveEcho", seed="11" * 32, **relay))["key"]
        with trio.move_on_after(LIMIT_SECONDS):
            try:
                settle = SETTLE_SECONDS if has_relay else 0
                answer = await client("callEcho", key=key, seed="22" * 32, settle=settle)
            except AssertionError as error:
                return f"fails: {error}"
            later = f", then {answer['reach_later']}" if "reach_later" in answer else ""
            way = f"{answer.get('reach', '')}{later} {answer['address']}".strip()
            return f"{answer['milliseconds']:.0f} ms ({way})"
        return f"nothing in {LIMIT_SECONDS:.0f} s"


async def main(cases: Sequence[str], pairs: Sequence[str], has_relay: bool) -> None:
    sys.stdout.write(f"| {'client-server':13} | pair  | time to connect and hear back |\n")
    sys.stdout.write(f"|{'-' * 15}|-------|-------------------------------|\n")
    for case, pair in itertools.product(cases, pairs):
        sys.stdout.write(f"| {case:13} | {pair} | {await measure(case, pair, has_relay)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--pairs", default=",".join(PAIRS))
    parser.add_argument("--relay", action="store_true")
    options = parser.parse_args()
    trio.run(main, options.cases.split(","), options.pairs.split(","), options.relay)
