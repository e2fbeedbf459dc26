"""Logs: one structlog pipeline, on stderr. Never a line per request: 7 microseconds each, and nobody reads them."""

import logging
import sys
from collections.abc import Callable
from typing import TextIO, cast

import structlog


class _Unfailing:
    """A stream whose lines are lost when they cannot be written: a full disk under the log must stop nobody. `hide`
    takes secrets out of them, tracebacks too."""

    def __init__(self, stream: TextIO, hide: Callable[[str], str]) -> None:
        self._stream = stream
        self._hide = hide

    def write(self, text: str) -> None:
        try:
            self._stream.write(self._hide(text))
        except OSError:
            pass

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            pass


def configure(level: str = "info", json: bool = False, hide: Callable[[str], str] = str) -> None:
    """Readable lines for people, JSON lines for machines."""
    # Plain tracebacks: the pretty ones print local variables, secrets included, and take seconds to draw.
    plain = structlog.dev.plain_traceback
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    render = structlog.processors.JSONRenderer() if json else console
    stream = cast(TextIO, _Unfailing(sys.stderr, hide))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ" if json else "%H:%M:%S", utc=json),
            structlog.processors.format_exc_info if json else _keep,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=stream, format="%(levelname)s %(name)s: %(message)s")


def _keep(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return event
