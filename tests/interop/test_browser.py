"""Pages in a real browser, through a node: the example, and an app that keeps what it has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio

from tests.support.browser import Browser, Page, open_browser, serving
from tests.support.running_node import INTEROP, open_running_node

pytestmark = [pytest.mark.interop, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "examples" / "browser"
APP = INTEROP / "jazz_page"


async def built(page: Path, site: Path) -> Path:
    """A copy of a page with its script bundled, in `site`."""
    shutil.copytree(page, site)
    await trio.run_process(
        [
            *(INTEROP / "node_modules" / ".bin" / "esbuild", "main.js", "--bundle"),
            *("--format=esm", "--outfile=bundle.js", "--log-level=warning"),
        ],
        cwd=site,
        env={**os.environ, "NODE_PATH": str(INTEROP / "node_modules")},
    )
    return site


@pytest.mark.parametrize("store", ["bee", "sqlite", "hybrid"])
async def test_two_windows_edit_one_list(tmp_path: Path, store: str) -> None:
    site = await built(PAGE, tmp_path / "site")
    with serving(site) as url, open_browser(tmp_path / "profile") as browser:
        async with open_running_node(tmp_path / "node", "--store", store) as node:
            page = f"{url}/?node={node.ws}"
            list_id = await trio.to_thread.run_sync(edit_in_two_windows, browser, page)
        # The node has gone and comes back with what was stored.
        async with open_running_node(tmp_path / "node", "--store", store) as node:
            page = f"{url}/?node={node.ws}#{list_id}"
            await trio.to_thread.run_sync(find_the_list, browser, page)


def edit_in_two_windows(browser: Browser, page: str) -> str:
    """Make a list and change it from both; its id."""
    with browser.open(page) as first:
        list_id: str = first.wait("location.hash.slice(1)")
        assert list_id.startswith("co_z")
        add(first, "honey")
        with browser.open(f"{page}#{list_id}") as second:
            second.wait(shown("honey"))
            add(second, "wax <b>")
            first.wait(shown("wax <b>"))
            second.evaluate("document.querySelector('li input').click()")
            first.wait("document.querySelectorAll('li.done').length === 1")
    return list_id


def find_the_list(browser: Browser, page: str) -> None:
    with browser.open(page) as third:
        third.wait(shown("honey"))
        third.wait("document.querySelectorAll('li.done').length === 1")
        assert "through ws://" in third.evaluate("document.querySelector('#status').textContent")


def add(page: Page, text: str) -> None:
    page.wait("document.querySelector('#status').textContent.startsWith('through')")
    page.evaluate(
        f"document.querySelector('input[type=text]').value = {text!r};"
        "document.querySelector('form').requestSubmit()"
    )


def shown(text: str) -> str:
    return (
        f"[...document.querySelectorAll('li span')].some((span) => span.textContent === {text!r})"
    )


@pytest.mark.parametrize("store", ["bee", "sqlite", "hybrid"])
async def test_what_was_edited_while_the_node_was_away_comes_to_others(
    tmp_path: Path, store: str
) -> None:
    """With jazz-tools, which keeps everything in IndexedDB, and compares it when it is back."""
    site = await built(APP, tmp_path / "site")
    options = ("--store", store)
    with serving(site) as url, open_browser(tmp_path / "profile") as browser:
        async with open_running_node(tmp_path / "node", *options) as node:
            app = f"{url}/?node={node.ws}"
            user, list_id = await trio.to_thread.run_sync(begin_a_list, browser, app)
        # The page is closed while there is no server, and opened anew: still without one.
        await trio.to_thread.run_sync(edit_alone, browser, f"{app}#{list_id}", user)
        port = app.rpartition(":")[2].rstrip("/")
        async with open_running_node(tmp_path / "node", *options, "--ws", f"127.0.0.1:{port}"):
            await trio.to_thread.run_sync(come_back, browser, f"{app}#{list_id}", user)
            with open_browser(tmp_path / "stranger") as other:
                await trio.to_thread.run_sync(read_as_a_stranger, other, f"{app}#{list_id}", user)


def begin_a_list(browser: Browser, app: str) -> tuple[str, str]:
    with browser.open(app) as page:
        user: str = page.wait("window.app && app.me")
        page.evaluate("app.add('at once')")
        assert page.evaluate("app.synced()")
        list_id: str = page.evaluate("location.hash.slice(1)")
    return user, list_id


def edit_alone(browser: Browser, app: str, user: str) -> None:
    with browser.open(app) as page:
        assert page.wait("window.app && app.me") == user
        page.wait("app.items() === 'at once'")
        page.evaluate("app.add('later')")
        page.wait("app.items() === 'at once,later'")
        assert page.evaluate("app.stored()")


def come_back(browser: Browser, app: str, user: str) -> None:
    with browser.open(app) as page:
        assert page.wait("window.app && app.me") == user
        page.wait("app.items() === 'at once,later'")
        assert page.evaluate("app.synced()")


def read_as_a_stranger(browser: Browser, app: str, user: str) -> None:
    with browser.open(app) as page:
        assert page.wait("window.app && app.me") != user
        page.wait("app.items() === 'at once,later'")
