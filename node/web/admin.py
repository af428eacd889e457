"""The admin server: probes, metrics, the status page, and the API behind the command line.

| path | method | auth | answer |
|---|---|---|---|
| `/livez` | GET | none | 200: the event loop turns |
| `/readyz` | GET | none | 200, or 503 with the reasons, one a line |
| `/health` | GET | none | `ok`, as from the Jazz server |
| `/` | GET | token or cookie | the status page; `/?token=...` trades the token for a cookie |
| `/metrics` | GET | token | Prometheus text |
| `/api/v1/status`, `/api/v1/peers` | GET | token | JSON |
| `/api/v1/ls?prefix=&details=`, `/api/v1/load/{id}?timeout_seconds=` | GET | token | JSON lines |
| `/api/v1/{kind}/{verb}` | POST | token | JSON lines; see `node.verbs` |

Requests must name a host that is ours, so that a web page cannot reach in by rebinding its own
name (DNS rebinding), and the cookie opens nothing but the page. An error is
`{"error": text, "code": exit code}`, as the body or, once lines have gone out, as the last line.
"""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Protocol

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Event
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.failures import causes, only_cause, tell_failure
from node.verbs import (
    BackUp,
    BeeCompact,
    ExitCode,
    ListValues,
    Load,
    Result,
    Verb,
    VerbError,
    check_size,
    decode_verb,
)
from node.web.metrics import CONTENT_TYPE, build_registry, render_metrics
from node.web.page import render_door, render_status
from node.web.status import NodeStatus, PeerStatus
from swarm.io.crowd import Crowd, Place
from swarm.io.tasks import open_background_nursery

MOST_UNKNOWN = 100
"""Connections of which none has shown the token: each takes one of the node's open files."""

_HTTP_STATUS = {
    ExitCode.USAGE: 400,
    ExitCode.NOT_FOUND: 404,
    ExitCode.TIMEOUT: 504,
    ExitCode.CORRUPT: 500,
}
_log = structlog.get_logger(__name__)

_PLACE = "place"
"""Where a connection's state has its place in the crowd."""

_LONG_VERBS = BackUp | BeeCompact
"""These have a single result, after minutes perhaps."""

_STOPS_UNREAD = "beemesh.stops_unread"
"""Where a request's scope has what it calls to be stopped when nobody waits for it any more."""

_PROBES = frozenset({"/livez", "/readyz", "/health"})
_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"  # these three have no default
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class AdminTarget(Protocol):
    """The node, as far as the admin server is concerned."""

    def status(self) -> NodeStatus: ...

    def peers(self) -> list[PeerStatus]: ...

    def missing_for_ready(self) -> list[str]:
        """What keeps the node from serving; empty when nothing does."""
        ...

    def perform(self, verb: Verb) -> AsyncGenerator[Result, None]:
        """Carry out a verb. Raises: VerbError."""
        ...


async def serve_admin(
    target: AdminTarget,
    token: str,
    listeners: Sequence[trio.SocketListener],
    host_names: Sequence[str] = (),
) -> None:
    """Serve until cancelled. The listeners are taken over, and closed at the end.

    `host_names` are those that a request may name besides the loopback ones.

    Cancel: requests under way are dropped.
    """
    config = HypercornConfig()
    config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = 30
    # starlette's ASGI types are wider than hypercorn's
    app = ASGIWrapper(build_app(target, token, host_names))  # type: ignore[arg-type]  # as above
    context = WorkerContext(None)
    unknown = Crowd(MOST_UNKNOWN)

    async def serve_connection(stream: trio.SocketStream) -> None:
        # Not `hypercorn.trio.serve`: what a client sends makes it fail (frames of a WebSocket that
        # was not granted do), and there one connection takes all others along, and the node.
        try:
            with unknown.place(stream.socket.getpeername()[0]) as place:
                state = ConnectionState({_PLACE: place})
                await _Server(app, config, context, state, stream)  # type: ignore[arg-type]  # no TLS
        except* Exception as group:  # noqa: BLE001  # whatever it is, it is this connection's
            _log.info("admin connection failed", reason=causes(group))

    await trio.serve_listeners(serve_connection, list(listeners))


def build_app(target: AdminTarget, token: str, host_names: Sequence[str] = ()) -> ASGIApp:
    """The ASGI application, for any server."""
    registry = build_registry(target.status)

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(_: Request) -> Response:
        missing = target.missing_for_ready()
        return PlainTextResponse("\n".join(missing) or "ok", 503 if missing else 200)

    async def page(request: Request) -> Response:
        if request.query_params.get("token"):
            response: Response = RedirectResponse("/", 303)
            cookie = _cookie_name(request.headers)
            response.set_cookie(cookie, token, httponly=True, samesite="strict")
            return response
        return HTMLResponse(render_status(target.status(), target.peers()))

    async def metrics(_: Request) -> Response:
        return Response(render_metrics(registry), media_type=CONTENT_TYPE)

    async def status(_: Request) -> Response:
        return JSONResponse(asdict(target.status()))

    async def peers(_: Request) -> Response:
        return JSONResponse([asdict(peer) for peer in target.peers()])

    async def list_values(request: Request) -> Response:
        details = request.query_params.get("details", "") == "1"
        verb = ListValues(request.query_params.get("prefix", ""), details)
        return await _answer(target, verb)

    async def load(request: Request) -> Response:
        timeout = _seconds(request.query_params.get("timeout_seconds", "10"))
        return await _answer(target, Load(request.path_params["id"], timeout))

    async def verb(request: Request) -> Response:
        path = f"{request.path_params['kind']}/{request.path_params['verb']}"
        try:
            return await _answer(target, await _read_verb(request, path))
        except VerbError as error:
            return _error_response(error)

    app = Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/health", livez),
            Route("/", page),
            Route("/metrics", metrics),
            Route("/api/v1/status", status),
            Route("/api/v1/peers", peers),
            Route("/api/v1/ls", list_values),
            Route("/api/v1/load/{id:path}", load),
            Route("/api/v1/{kind}/{verb}", verb, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _explain,
            ClientDisconnect: _explain,  # read by nobody; it is no failure of ours
            Exception: _explain_failure,
        },
    )
    return Guard(app, token, host_names)


class _Server(TCPServer):
    """One connection, which speaks HTTP/1.

    HTTP/2 is of use to nobody here. Fifty connections without a token had two hundred megabytes,
    which stayed, and all of the node's time for a minute.
    """

    async def protocol_send(self, event: Event) -> None:
        if isinstance(self.protocol.protocol, H2Protocol):
            raise trio.BrokenResourceError("HTTP/2 is not spoken here")
        await super().protocol_send(event)


class Guard:
    """Lets a request through when it names our host and knows the token; probes need neither.

    What is asked for is the `path` by which it is routed. `Request.url` is made of the `Host`
    field, too, and in starlette 1.0 and older `Host: a/livez?` made a probe of anything.
    """

    def __init__(self, app: ASGIApp, token: str, host_names: Sequence[str]) -> None:
        self._app = app
        self._token = token
        names = map(str.lower, host_names)
        self._host_names = frozenset({"127.0.0.1", "localhost", "[::1]", *names})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if scope["path"] in _PROBES:
            await self._app(scope, receive, _with_security_headers(send))
        elif _host_name(request.headers) not in self._host_names:
            text = "this host name is not ours: name it with --admin-hosts"
            await PlainTextResponse(text, 421)(scope, receive, send)
        elif not self._has_token(request):
            await _refuse(request)(scope, receive, _with_security_headers(send))
        else:
            _leave_crowd(scope)
            await _while_read(self._app, scope, receive, _with_security_headers(send))

    def _has_token(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return True
        if request.scope["path"] != "/" or request.method not in ("GET", "HEAD"):
            return False
        return self._is_token(request.query_params.get("token", "")) or self._is_token(
            request.cookies.get(_cookie_name(request.headers), "")
        )

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def _leave_crowd(scope: Scope) -> None:
    """A connection that has shown the token makes room for nobody."""
    place = scope.get("state", {}).get(_PLACE)
    if isinstance(place, Place):
        place.leave()


async def _while_read(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the application until nobody reads its results any more, once there are some.

    Stopping `beemesh import` is meant to stop the import, but hypercorn takes what is sent to
    nobody. So are long verbs with a single result at their end, such as a backup: these say that
    the request is read. All others are soon done, and are carried out.
    """
    begun = trio.Event()
    watching = trio.CancelScope()

    async def send_piece(message: Message) -> None:
        if message.get("more_body"):
            begun.set()
        elif message["type"] == "http.response.body":
            watching.cancel()  # hypercorn calls the end of a whole answer a disconnect, too
        await send(message)

    async def wait_hung_up(running: trio.CancelScope) -> None:
        with watching:
            await begun.wait()  # until then the application may be reading the request
            while (await receive())["type"] != "http.disconnect":
                pass
            running.cancel()

    async with open_background_nursery() as nursery:
        nursery.start_soon(wait_hung_up, nursery.cancel_scope)
        await app({**scope, _STOPS_UNREAD: begun.set}, receive, send_piece)


async def _answer(target: AdminTarget, verb: Verb) -> Response:
    """Results as JSON lines. The first decides the status code: after it only lines can follow."""
    results = target.perform(verb)
    try:
        first = await anext(results, None)
    except VerbError as error:
        return _error_response(error)
    return _Lines(first, results)


class _Lines(Response):
    """JSON lines, sent as they come.

    Starlette's StreamingResponse waits for a disconnect meanwhile, after which hypercorn does not
    close connections that were to be closed.
    """

    media_type = "application/x-ndjson"

    def __init__(self, first: Result | None, results: AsyncGenerator[Result, None]) -> None:
        self._first = first
        self._results = results
        super().__init__()
        del self.headers["content-length"]  # of no content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(self._results):
            if self._first is not None:
                await send(_body(self._first))
            try:
                async for result in self._results:
                    await send(_body(result))
            except Exception as error:  # noqa: BLE001  # the outermost frame, as in `_explain_failure`
                told = _as_verb_error(error)
                await send(_body({"error": told.text, "code": int(told.code)}))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _body(result: Mapping[str, object]) -> dict[str, object]:
    line = json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n"
    return {"type": "http.response.body", "body": line.encode(), "more_body": True}


def _error_response(error: VerbError) -> Response:
    body = {"error": error.text, "code": int(error.code)}
    return JSONResponse(body, _HTTP_STATUS.get(error.code, 500))


async def _explain(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = ExitCode.NOT_FOUND if status == 404 else ExitCode.FAILED
    return JSONResponse({"error": str(error), "code": int(code)}, status)


async def _explain_failure(_: Request, error: Exception) -> Response:
    """Tell the client about any failure: the error page of the HTTP server says nothing."""
    return _error_response(_as_verb_error(error))


def _as_verb_error(error: Exception) -> VerbError:
    """What the client is told; a failure that nobody foresaw goes into the log, too."""
    if (told := tell_failure(only_cause(error))) is not None:
        return VerbError(*told)
    _log.error("request failed", reason=causes(error), exc_info=error)
    return VerbError(
        ExitCode.FAILED, f"internal error: {causes(error)}; report what the node's log says of it"
    )


async def _read_verb(request: Request, path: str) -> Verb:
    """Raises: VerbError."""
    verb = decode_verb(path, await _read_body(request))
    if isinstance(verb, _LONG_VERBS):
        request.scope[_STOPS_UNREAD]()
    return verb


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            check_size(body)
    return bytes(body)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 3600:
        raise HTTPException(400, f"{text!r} is no number of seconds up to 3600")
    return seconds


def _refuse(request: Request) -> Response:
    """A person who opens the page in a browser is told how to get in."""
    headers = {"WWW-Authenticate": "Bearer"}
    if request.scope["path"] == "/" and "text/html" in request.headers.get("accept", ""):
        had_one = (
            "token" in request.query_params or _cookie_name(request.headers) in request.cookies
        )
        return HTMLResponse(render_door(is_wrong=had_one), 401, headers)
    error = "token needed: see admin.json in the data directory"
    return JSONResponse({"error": error, "code": 1}, 401, headers)


def _host_name(headers: Headers) -> str:
    host = headers.get("host", "").lower()
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def _cookie_name(headers: Headers) -> str:
    """A cookie for each port, since browsers send a host's cookies to all of its ports.

    With one name the pages of two nodes on one machine would shut each other out.
    """
    port = headers.get("host", "").rpartition(":")[2]
    return f"beemesh-{port}" if port.isdecimal() else "beemesh"


def _with_security_headers(send: Send) -> Send:
    async def send_with_headers(message: Mapping[str, object]) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            assert isinstance(headers, Sequence)
            extra = [(name.encode(), value.encode()) for name, value in _SECURITY_HEADERS.items()]
            message = {**message, "headers": [*headers, *extra]}
        await send(dict(message))

    return send_with_headers
