"""Logging: one event a line, console or JSON, with device, stream and call_id where they are known.

Passwords, tokens and digest responses are replaced before a line is written, whatever key they hide under.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TextIO

import structlog

from gbgw.base.tally import Tally

_SECRET_KEYS: Final = frozenset(
    {"password", "token", "authorization", "response", "ha1", "ha1_md5", "ha1_sha256", "secret"}
)
_SECRET_TEXT: Final = re.compile(
    r'(?i)((?:token|password|response|nonce)=)("?)[^\s"&,;<]+|(<Password>)[^<]*|(Bearer )[A-Za-z0-9._~+/=-]+'
)

Logger = structlog.stdlib.BoundLogger

logging.getLogger("gbgw").addHandler(logging.NullHandler())  # nor a word on stderr from a program without logging
if not structlog.is_configured():  # a library is quiet: events go to the logging module, which the program sets up
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def get(name: str) -> Logger:
    """Return the logger of one area ("session", "sip", "http")."""
    logger: Logger = structlog.get_logger(area=name)
    return logger


def redact(text: str) -> str:
    """Return `text` without secrets in URLs, headers and XML."""
    return _SECRET_TEXT.sub(lambda m: f"{m[1] or m[3] or m[4]}***", text)


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if key in _SECRET_KEYS:
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = redact(value)
    return event


def configure(
    level: str = "info", form: Literal["auto", "console", "json"] = "auto", stream: TextIO | None = None
) -> None:
    """Set up logging for the process; called once, by the command line. A library user keeps his own configuration."""
    out = stream if stream is not None else sys.stderr
    console = form == "console" or (form == "auto" and out.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if not console else structlog.processors.StackInfoRenderer(),
        _redact_event,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(getattr(logging, level.upper()), logging.WARNING))


def tally_listener(tally_log: Logger) -> Any:
    """Return a Tally listener that writes at most the one line per name and second that Tally lets through."""

    def tell(name: str, count: int, detail: str) -> None:
        tally_log.warning("counted", counter=name, count=count, detail=detail)

    return tell


def root_tally() -> Tally:
    return Tally(listener=tally_listener(get("tally")))
