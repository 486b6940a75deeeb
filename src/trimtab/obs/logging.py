"""Logs: JSON in clusters, console on a terminal; structlog and standard logging through one formatter."""

import logging
import sys
from enum import StrEnum
from typing import TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger


class LogFormat(StrEnum):
    """How log lines look. `auto` is console on a terminal and JSON elsewhere."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


# Libraries whose INFO lines are noise for an operator of Trimtab.
_QUIET = ("kopf.objects", "kopf.activities", "aiohttp.access", "httpx2", "uvicorn.access", "kubernetes", "asyncio")


def configure(log_format: LogFormat = LogFormat.AUTO, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log line of the process through one formatter to `stream` (default: standard error).

    Args:
        log_format: how lines look.
        level: `DEBUG`, `INFO`, `WARNING` or `ERROR`.
        stream: where lines go.
    """
    stream = stream or sys.stderr
    as_json = log_format is LogFormat.JSON or (log_format is LogFormat.AUTO and not stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(stream, as_json=as_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _in_reading_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put first what people read first, and drop the copy of the message that uvicorn colors for terminals."""
    event.pop("color_message", None)
    ordered = {key: event.pop(key) for key in ("time", "level", "message", "logger") if key in event}
    ordered.update(event)
    return ordered


def _rendering(stream: TextIO, *, as_json: bool) -> list[Processor]:
    if as_json:
        return [
            # Without local variables: they may hold prompts and tokens.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.EventRenamer("message"),
            _in_reading_order,
            structlog.processors.JSONRenderer(),
        ]
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)]
