"""Log lines that are not calls: one setting for structlog, and for the libraries that use the standard library's."""

from __future__ import annotations

import logging
import sys
import textwrap
from typing import Literal

import structlog


def configure(json: bool, level: Literal["debug", "info", "warning", "error"]) -> None:
    """Lines go to standard output, like the calls. Tracebacks never show variables: a key could be among them."""
    number = getattr(logging, level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    if json:
        ending: list[structlog.typing.Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    else:
        ending = [
            _readable,
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
            ),
        ]
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),  # a line and its end at once: calls write beside it
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Bridge(level=max(number, logging.WARNING))]
    root.setLevel(max(number, logging.WARNING))
    # Uvicorn says at info and warning what our banner and call lines say already.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def _readable(_: object, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A text of several lines (what is wrong with a configuration) stands below the line, as it is; the renderer would
    show it in quotes, with its line breaks as backslashes."""
    below = [
        line.pop(name)
        for name, value in list(line.items())
        if name != "exception" and isinstance(value, str) and "\n" in value
    ]
    if below:
        line["event"] = "\n".join([str(line["event"]), *(textwrap.indent(text, "    ") for text in below)])
    return line


class _Bridge(logging.Handler):
    """Gives what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger().bind(logger=record.name)
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)
