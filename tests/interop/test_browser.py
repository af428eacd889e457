"""The example page in a real browser, through a node."""

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


@pytest.mark.parametrize("store", ["bee", "sqlite", "hybrid"])
async def test_two_windows_edit_one_list(tmp_path: Path, store: str) -> None:
    site = tmp_path / "site"
    shutil.copytree(PAGE, site)
    await trio.run_process(
        [
            *(INTEROP / "node_modules" / ".bin" / "esbuild", "main.js", "--bundle"),
            *("--format=esm", "--outfile=bundle.js", "--log-level=warning"),
        ],
        cwd=site,
        env={**os.environ, "NODE_PATH": str(INTEROP / "node_modules")},
    )
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
