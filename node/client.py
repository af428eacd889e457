"""How the other verbs talk to a running node: its admin API, found through `admin.json`.

Blocking on purpose: a verb has nothing else to do while it waits, and starts faster without an
event loop.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from node.config import admin_path, read_secret_file
from node.errors import ConfigError, reason_of
from node.private_file import write_private
from node.verbs import (
    ExitCode,
    ListValues,
    Load,
    Result,
    Verb,
    VerbError,
    check_size,
    encode_verb,
    path_of,
)

_TOKEN_BYTES = 24
_MIN_TOKEN_LENGTH = 16
_MAX_TOKEN_LENGTH = 256
_GRACE_SECONDS = 5.0  # what an answer may take beyond the verb's own time limit
_DEFAULT_SECONDS = 30.0
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """The content of `admin.json`: where a node's admin API is, and what opens it."""

    url: str
    token: str = field(repr=False)
    pid: int

    def write(self, data: Path) -> None:
        """Write it, for its owner alone. Blocks on the disk."""
        content = {"url": self.url, "token": self.token, "pid": self.pid}
        write_private(admin_path(data), json.dumps(content).encode() + b"\n")

    @classmethod
    def read(cls, data: Path) -> AdminAccess | None:
        """None when no node has written one here, or its writer has died. Blocks."""
        try:
            content = json.loads(admin_path(data).read_bytes())
            access = cls(str(content["url"]), str(content["token"]), int(content["pid"]))
            return access if _is_alive(access.pid) and access.is_heard() else None
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise VerbError(ExitCode.USAGE, f"{data} is no directory") from None
        except OSError as error:
            advice = "; only the user that the node runs as can ask it"
            raise VerbError(
                ExitCode.FAILED,
                f"{admin_path(data)} cannot be read: {reason_of(error)}"
                f"{advice if isinstance(error, PermissionError) else ''}",
            ) from error
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise VerbError(
                ExitCode.FAILED, f"{admin_path(data)} cannot be read ({error}): restart the node"
            ) from error

    def is_heard(self) -> bool:
        """Whether anybody listens there.

        The id of a process alone says little: after `kill -9` another one may have it, as in a
        container, where the first one always has the same.
        """
        try:
            socket.create_connection(_host_and_port(self.url), timeout=_CONNECT_SECONDS).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            pass  # it does not answer, which is another matter
        return True


def choose_token(path: Path | None) -> str:
    """What opens the admin API: the text of the file, or a new one. Blocks.

    Raises: ConfigError.
    """
    if path is None:
        return secrets.token_urlsafe(_TOKEN_BYTES)
    token = read_secret_file(path, "--admin-token-file").strip()
    if not _MIN_TOKEN_LENGTH <= len(token) <= _MAX_TOKEN_LENGTH or not token.isascii():
        raise ConfigError(
            f"--admin-token-file: {path} has {len(token)} characters, and must have "
            f"{_MIN_TOKEN_LENGTH} to {_MAX_TOKEN_LENGTH}, all ASCII: `openssl rand -hex 24` "
            f"writes a good one"
        )
    return token


class AdminClient:
    """Asks a running node. Open one with `AdminClient.find`."""

    def __init__(self, access: AdminAccess) -> None:
        self._access = access

    @classmethod
    def find(cls, data: Path) -> AdminClient | None:
        """The client of the node that runs on this directory; None when there is none."""
        access = AdminAccess.read(data)
        return cls(access) if access is not None else None

    def status(self) -> Result:
        """Raises: VerbError."""
        status = self._get_json("/api/v1/status")
        if not isinstance(status, dict):
            raise VerbError(ExitCode.FAILED, "the node's status is no object")
        return status

    def peers(self) -> list[Result]:
        """Raises: VerbError."""
        peers = self._get_json("/api/v1/peers")
        return [peer for peer in peers if isinstance(peer, dict)] if isinstance(peers, list) else []

    def perform(self, verb: Verb) -> Iterator[Result]:
        """Have the node carry out a verb.

        Raises: VerbError as the node raised it; NO_NODE when it cannot be reached.
        """
        timeout = getattr(verb, "timeout_seconds", _DEFAULT_SECONDS) + _GRACE_SECONDS
        match verb:
            case Load():
                query = urlencode({"timeout_seconds": verb.timeout_seconds})
                path = f"/api/v1/load/{quote(verb.id)}?{query}"
                return self._lines("GET", path, None, timeout)
            case ListValues():
                path = "/api/v1/ls?" + urlencode(
                    {"prefix": verb.prefix, "details": int(verb.details)}
                )
                return self._lines("GET", path, None, timeout)
            case _:
                path, body = "/api/v1/" + path_of(verb), encode_verb(verb)
                check_size(body)  # a node that refuses it hangs up, and no answer can be read
                return self._lines("POST", path, body, timeout)

    def _get_json(self, path: str) -> object:
        return next(self._lines("GET", path, None, _DEFAULT_SECONDS), None)

    def _lines(
        self, method: str, path: str, body: bytes | None, timeout: float
    ) -> Iterator[Result]:
        connection = http.client.HTTPConnection(*_host_and_port(self._access.url), timeout=timeout)
        try:
            headers = {"Authorization": f"Bearer {self._access.token}"}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            for line in response:
                yield _read_line(line)
        except TimeoutError as error:
            raise VerbError(
                ExitCode.TIMEOUT,
                f"no answer within {timeout:.0f} s from process {self._access.pid}: its log may "
                f"say why",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise VerbError(
                ExitCode.NO_NODE,
                f"the node at {self._access.url} does not answer ({error}): try `beemesh up`",
            ) from error
        finally:
            connection.close()


def _host_and_port(url: str) -> tuple[str, int]:
    where = urlsplit(url)
    return where.hostname or "127.0.0.1", where.port or 80


def _read_line(line: bytes) -> Result:
    try:
        result = json.loads(line)
    except ValueError as error:
        raise VerbError(ExitCode.FAILED, "the node's answer is no JSON") from error
    if isinstance(result, Mapping) and "error" in result and "code" in result:
        raise VerbError(ExitCode(result["code"]), str(result["error"]))
    return result  # type: ignore[no-any-return]  # a list for `peers`, checked there


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, as somebody else
    return True
