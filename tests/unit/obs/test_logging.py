"""Log lines are one JSON object each, whoever writes them."""

import io
import json
import logging

import structlog

from trimtab.obs.logging import LogFormat, configure


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_structured_and_standard_loggers_share_one_format() -> None:
    stream = io.StringIO()
    configure(LogFormat.JSON, stream=stream)
    structlog.get_logger("ours").info("plan computed", pool="chat", replicas=3)
    logging.getLogger("theirs").warning("hello %s", "world")
    ours, theirs = lines(stream)
    assert (ours["message"], ours["pool"], ours["replicas"], ours["level"]) == ("plan computed", "chat", 3, "info")
    assert (theirs["message"], theirs["level"], theirs["logger"]) == ("hello world", "warning", "theirs")


def test_what_people_read_first_comes_first() -> None:
    stream = io.StringIO()
    configure(LogFormat.JSON, stream=stream)
    structlog.get_logger("ours").info("plan computed", pool="chat")
    logging.getLogger("uvicorn.error").info("started", extra={"color_message": "\x1b[1mstarted"})
    ours, theirs = lines(stream)
    assert list(ours) == ["time", "level", "message", "logger", "pool"]
    assert list(theirs) == ["time", "level", "message", "logger"]


def test_a_stream_that_is_no_terminal_gets_json_by_default() -> None:
    stream = io.StringIO()
    configure(stream=stream)
    structlog.get_logger("x").warning("w")
    assert lines(stream)[0]["message"] == "w"


def test_tracebacks_hold_no_local_variables() -> None:
    stream = io.StringIO()
    configure(LogFormat.JSON, stream=stream)
    prompt = "a secret prompt"
    try:
        int(prompt[:0])
    except ValueError:
        structlog.get_logger("x").exception("failed")
    assert "a secret prompt" not in stream.getvalue()
    assert lines(stream)[0]["exception"]


def test_levels_below_the_threshold_are_dropped() -> None:
    stream = io.StringIO()
    configure(LogFormat.CONSOLE, "WARNING", stream)
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()
