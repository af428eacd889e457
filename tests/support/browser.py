"""Headless Chromium, driven through its DevTools protocol."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from websockets.sync.client import ClientConnection, connect

START_SECONDS = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_browser() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """The files of a directory over HTTP; gives the URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._next_id = 1

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        answer = self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def command(self, method: str, **parameters: object) -> dict[str, Any]:
        number, self._next_id = self._next_id, self._next_id + 1
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=START_SECONDS))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def wait(self, condition: str, seconds: float = 30.0) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.evaluate(condition)
            if value:
                return value
            time.sleep(0.05)
        shown = self.evaluate("document.body.innerText")
        raise AssertionError(f"not within {seconds} s: {condition}; the page shows {shown!r}")


class Browser:
    def __init__(self, port: int) -> None:
        self._port = port

    @contextmanager
    def open(self, url: str) -> Iterator[Page]:
        """A tab, closed with the block."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/json/new?{quote(url)}", method="PUT"
        )
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
            target = json.loads(answer.read())
        try:
            with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
                yield Page(socket)
        finally:
            close = f"http://127.0.0.1:{self._port}/json/close/{target['id']}"
            urllib.request.urlopen(close, timeout=START_SECONDS).close()


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    program = find_browser()
    assert program is not None, f"none of {', '.join(_NAMES)} is installed"
    command = [
        *(program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-quic", "--remote-debugging-port=0", f"--user-data-dir={profile}"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Browser(_debugging_port(profile / "DevToolsActivePort"))
    finally:
        process.terminate()
        process.wait(timeout=20)


def _debugging_port(path: Path) -> int:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if path.is_file() and (lines := path.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.05)
    raise AssertionError("the browser did not start")
