"""Errors as HTTP answers: the one place where a cause becomes a status (interface: section "Play URLs")."""

import json
from typing import Any, Final

from aiohttp import web

from gbgw.base.errors import (
    ConfigError,
    GatewayError,
    LimitError,
    LocalError,
    PeerError,
    RequestError,
    StateError,
)

# Causes whose class alone does not tell the status. Everything a camera failed to deliver is a 504.
STATUS_BY_CODE: Final[dict[str, int]] = {
    "unknown_device": 404,
    "unknown_channel": 404,
    "unknown_stream": 404,
    "busy": 409,
    "invite_rejected_486": 409,  # Busy Here
    "invite_rejected_600": 409,  # Busy Everywhere
    "codec_unsupported": 406,
    "b_frames_unsupported": 406,
    "no_codec_fits": 406,
    "transcode_off": 406,
    "transcode_limit": 503,
    "sdp_offer_invalid": 400,
}


def status_of(error: GatewayError) -> int:
    """The HTTP status of a cause: 4xx the caller's, 503 ours for now, 504 the camera's."""
    if isinstance(error, RequestError):
        return error.status
    if error.code in STATUS_BY_CODE:
        return STATUS_BY_CODE[error.code]
    if isinstance(error, PeerError):
        return 504
    if isinstance(error, StateError):
        return 409
    if isinstance(error, LimitError | LocalError):
        return 503
    if isinstance(error, ConfigError):
        return 500
    return 504


def error_body(code: str, message: str, remedy: str = "", stream: str | None = None) -> bytes:
    error: dict[str, Any] = {"code": code, "message": message, "remedy": remedy, "stream": stream}
    return json.dumps({"error": error}, ensure_ascii=False).encode()


def error_response(error: GatewayError, *, status: int | None = None) -> web.Response:
    response = web.Response(
        status=status if status is not None else status_of(error),
        body=error_body(error.code, error.message, error.remedy, error.stream),
        content_type="application/json",
        charset="utf-8",
    )
    response.headers["Cache-Control"] = "no-store"
    if response.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="gbgw"'
    elif response.status == 503:
        response.headers["Retry-After"] = "5"
    return response


class EndlessResponse(web.StreamResponse):
    """A body without end and without framing: identity coding, closed by the connection's end (RFC 9112 section 6.3).

    aiohttp would choose chunked coding, which raw writes on the transport would corrupt.
    """

    _length_check = False

    def __init__(self, *, content_type: str, headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        self.content_type = content_type
        self.force_close()
