"""What the node tells about itself while it runs: structlog on stderr, never a secret.

Event names are stable, in plain words; facts are keyword arguments. Keys of cores, tickets and
tokens are secrets: log ids, discovery keys and lengths. The packages below `node` use the standard
library's logging under the name `beemesh`; it comes out in the same form.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from contextlib import suppress
from typing import Any, Literal

import structlog

from node.visible_text import visible, visible_json

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


_SELDOM_SECONDS = 60.0


class _Journal(structlog.WriteLogger):
    """Lines to stderr. One that cannot be written is lost.

    Its reader may have gone, or the disk that it goes to be full: a node outlives both.
    """

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class _Seldom(logging.Filter):
    """One line a minute, without a traceback.

    While too many files are open, trio says ten times a second, for each port, that no connection
    can be accepted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created < self._next:
            return False
        self._next = record.created + _SELDOM_SECONDS
        record.exc_info = None
        return True


def _show(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Keep the terminal from obeying text that comes from others; a traceback stays in lines."""
    for key, value in event.items():
        if isinstance(value, str):
            lines = value.split("\n") if key == "exception" else [value]
            event[key] = "\n".join(map(visible, lines))
    return event


def _dump(event: structlog.typing.EventDict, **options: Any) -> str:
    return visible_json(json.dumps(event, ensure_ascii=False, **options))


def configure_journal(level: str, form: Literal["auto", "pretty", "json"]) -> None:
    """Set up once, before the first event; `auto` is pretty on a terminal, JSON elsewhere.

    Only structlog's sync methods work under trio.
    """
    is_terminal = sys.stderr.isatty()
    is_pretty = form == "pretty" or (form == "auto" and is_terminal)
    enrich: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if is_pretty else "iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor
    if is_pretty:
        enrich.append(_show)
        renderer = structlog.dev.ConsoleRenderer(pad_event_to=24, colors=is_terminal)
    else:
        renderer = structlog.processors.JSONRenderer(_dump)
    structlog.configure(
        processors=[*enrich, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _Journal(sys.stderr),  # a line and its end in one call
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=enrich,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    # Other libraries (trio, hypercorn, websockets) say only what went wrong.
    logging.basicConfig(handlers=[handler], level=logging.ERROR)
    logging.getLogger("trio.serve_listeners").addFilter(_Seldom())
    logging.getLogger("beemesh").setLevel(LEVELS[level])
