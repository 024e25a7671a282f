"""The exception tree: whose fault it is, and what ends because of it.

    GatewayError ─┬─ ConfigError, LimitError
                  ├─ PeerError  ── SipError, SdpError, ManscdpError, AuthError, MediaError
                  ├─ LocalError ── StateError, PortsExhaustedError, TransportClosedError
                  └─ RequestError (what a viewer or an API caller asked cannot be done)

Every error has a stable `code` (the cause codes of docs/operations.md), a sentence for a person, and a `remedy`. Only
the shells in `serve` turn an error into a status; damaged packets are counted (`base.tally`), never raised.
"""

from collections.abc import Sequence
from typing import ClassVar


class GatewayError(Exception):
    """Ends one unit of work: a request, a transaction, a session.

    code: stable identifier of the cause, snake case.
    message: what happened, one sentence.
    remedy: what the reader can do about it, one sentence; may be empty.
    stream: key of the stream it concerns, or None.
    """

    default_code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, code: str | None = None, remedy: str = "", stream: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.remedy = remedy
        self.stream = stream

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class ConfigError(GatewayError):
    """The program cannot start like this. `problems`: each on its own, where there are several."""

    default_code = "config_invalid"

    def __init__(
        self, message: str, *, code: str | None = None, remedy: str = "", problems: Sequence[str] = ()
    ) -> None:
        super().__init__(message, code=code, remedy=remedy)
        self.problems = tuple(problems) or (message,)


class LimitError(GatewayError):
    """A named ceiling of `base.limits` was reached."""

    default_code = "limit_reached"


class PeerError(GatewayError):
    """The other side broke the protocol, refused, or stayed silent."""

    default_code = "peer_error"


class SipError(PeerError):
    """A SIP message cannot be used. `status` is the answer to a request (400 unless said otherwise)."""

    default_code = "sip_malformed"

    def __init__(self, message: str, *, status: int = 400, code: str | None = None, remedy: str = "") -> None:
        super().__init__(message, code=code, remedy=remedy)
        self.status = status


class SdpError(PeerError):
    default_code = "sdp_unusable"


class ManscdpError(PeerError):
    default_code = "manscdp_malformed"


class AuthError(PeerError):
    default_code = "auth_failed"


class MediaError(PeerError):
    """No picture, and why: the cause codes of architecture.md section 4."""

    default_code = "no_media"


class LocalError(GatewayError):
    """This process cannot do it just now."""

    default_code = "local_error"


class StateError(LocalError):
    default_code = "wrong_state"


class PortsExhaustedError(LocalError):
    default_code = "ports_exhausted"


class TransportClosedError(LocalError):
    default_code = "transport_closed"


class RequestError(GatewayError):
    """A viewer or API caller asked for something that does not exist or is not allowed. `status` is the HTTP status."""

    default_code = "bad_request"

    def __init__(
        self, message: str, *, status: int = 400, code: str | None = None, remedy: str = "", stream: str | None = None
    ) -> None:
        super().__init__(message, code=code, remedy=remedy, stream=stream)
        self.status = status
