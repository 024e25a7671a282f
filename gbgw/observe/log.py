"""Logging: one event a line, console or JSON, with device, stream and call_id where they are known.

Passwords, tokens and digest responses are replaced before a line is written, whatever key they hide under.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal, TextIO, cast

import structlog

from gbgw.base.tally import Tally

_SECRET_KEYS: Final = frozenset(
    {"password", "token", "authorization", "response", "ha1", "ha1_md5", "ha1_sha256", "secret"}
)
_SECRET_TEXT: Final = re.compile(
    r"""(?ix)
    ((?:token|password|passwd|secret|ha1) ["']? \s*[=:]\s* | (?:response|nonce)=)  # key=value, "key": "value"
        (?: "[^"]*"? | '[^']*'? | [^\s"'&,;<>]+ )
    | (<Password>)[^<]*
    | (Bearer\s+)[^\s"',;]+
    | (://[^\s/:@]*:)[^\s/@]+(?=@)  # scheme://user:secret@host
    | \b(gbgw_)[A-Za-z0-9_-]{16,}  # a bearer token of ours, wherever it stands
    """
)

Logger = structlog.stdlib.BoundLogger
Form = Literal["auto", "console", "json"]

_configured: tuple[str, Form] | None = None

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
    """Return `text` without secrets in URLs, headers, JSON and XML."""
    return _SECRET_TEXT.sub(lambda match: f"{next(kept for kept in match.groups() if kept)}***", text)


def _clean(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case Mapping():
            return {key: "***" if str(key).lower() in _SECRET_KEYS else _clean(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(each) for each in value]
        case None | bool() | int() | float():
            return value
    return redact(str(value))


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return cast(dict[str, Any], _clean(event))


def _lines(colors: bool) -> structlog.typing.Processor:
    """Time, level, area and event in columns, for eyes."""
    console = structlog.dev.ConsoleRenderer(
        colors=colors, pad_event_to=24, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )

    def render(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        event["event"] = f"{event.pop('area', event.pop('logger', 'gbgw')):<9} {event.get('event', '')}"
        return str(console(logger, method, event))

    return render


def _json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """One object a line; the fields that every line has come first."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "area", "event") if key in event}
    return json.dumps({**first, **event}, default=str, ensure_ascii=False)


def configured() -> tuple[str, Form] | None:
    """Return level and form of the last `configure`, for processes that log beside this one; None in a library."""
    return _configured


def configure(level: str = "info", form: Form = "auto", stream: TextIO | None = None) -> None:
    """Set up logging for the process; called by the command line. A library user keeps his own configuration."""
    global _configured  # noqa: PLW0603 - what it says of is the process's too: structlog and logging
    _configured = level, form
    out = stream if stream is not None else sys.stderr
    console = form == "console" or (form == "auto" and out.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
        structlog.processors.format_exc_info,  # a text, so that it is cleaned too; never with the values of locals
        _redact_event,
    ]
    renderer: structlog.typing.Processor = _lines(out.isatty()) if console else _json
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
    logging.captureWarnings(True)


def tally_listener(tally_log: Logger) -> Any:
    """Return a Tally listener that writes at most the one line per name and second that Tally lets through."""

    def tell(name: str, count: int, detail: str) -> None:
        tally_log.warning("counted", counter=name, count=count, detail=detail)

    return tell


def root_tally() -> Tally:
    return Tally(listener=tally_listener(get("tally")))
