"""MANSRTSP: how a recording that plays is paused, moved and sped up, by INFO in its dialog (GB/T 28181-2022 and
-2016, section 9.8 and Annex B; reference 6.9).

Both roles: the platform's commands and the answer in the 200, the device's reading of a command and its answer. Leaves
out: smpte ranges, TEARDOWN from the platform (BYE does it).
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

CONTENT_TYPE: Final = "Application/MANSRTSP"
_VERSIONS: Final = ("RTSP/", "MANSRTSP/")  # the examples of the 2016 edition have the longer one
_BYTES: Final = 4_096
_NPT: Final = re.compile(
    r"(?:npt|ntp)\s*=\s*(now|[0-9]{1,9}(?:\.[0-9]{1,9})?)?\s*-\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)?", re.I
)
_SCALE: Final = re.compile(r"[+-]?[0-9]{1,4}(?:\.[0-9]{1,9})?")
_CSEQ: Final = re.compile(r"[0-9]{1,10}")
_STATUS: Final = re.compile(r"[0-9]{3}")


class Commands:
    """The commands of one playback, with its own CSeq from 1, independent of SIP's."""

    __slots__ = ("_cseq",)

    def __init__(self) -> None:
        self._cseq = 0

    def pause(self) -> bytes:
        """Stop sending and keep the place."""
        return self._write("PAUSE", "PauseTime: now")

    def resume(self) -> bytes:
        """Go on from where it was paused; no Scale: at the speed of before."""
        return self._write("PLAY", "Range: npt=now-")

    def seek(self, seconds: float) -> bytes:
        """Go on from `seconds` after the start of the session's range; no Scale: at the speed of before."""
        return self._write("PLAY", f"Range: npt={number(seconds)}-")

    def scale(self, scale: float) -> bytes:
        """Go on at `scale` times the recorded speed, backwards where it is negative; no Range: from here."""
        return self._write("PLAY", f"Scale: {float(scale)}")

    def _write(self, method: str, line: str) -> bytes:
        self._cseq += 1
        return f"{method} RTSP/1.0\r\nCSeq: {self._cseq}\r\n{line}\r\n\r\n".encode()


def number(seconds: float) -> str:
    """Return seconds as plain decimals, whole ones without a point."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a device says in the 200 of an INFO. status: 200 when it says nothing: many answer without a body.

    npt: seconds at which it goes on. scale: the speed it took. sequence_number, rtp_timestamp: of the first packet
    from there. None: not said.
    """

    status: int = 200
    reason: str = ""
    npt: float | None = None
    scale: float | None = None
    sequence_number: int | None = None
    rtp_timestamp: int | None = None

    @property
    def refused(self) -> bool:
        return self.status >= 300


def read_reply(body: bytes) -> Reply:
    """Read the body of a 200; what cannot be read counts as not said. CSeq is not looked at: even the standard's own
    example has a wrong one."""
    head, fields = _read(body)
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].upper().startswith(_VERSIONS) or not _STATUS.fullmatch(words[1]):
        return Reply()
    range_ = _NPT.search(fields.get("range", ""))
    npt = float(range_[1]) if range_ is not None and range_[1] and range_[1].lower() != "now" else None
    rtp = dict(part.strip().lower().partition("=")[::2] for part in fields.get("rtp-info", "").split(";"))
    return Reply(
        int(words[1]),
        words[2][:80] if len(words) > 2 else "",
        npt,
        _read_scale(fields.get("scale", "")),
        _read_int(rtp.get("seq", ""), 16),
        _read_int(rtp.get("rtptime", ""), 32),
    )


@dataclass(frozen=True, slots=True)
class Command:
    """What a platform wants of a playback. start: seconds after the range's start, None: from now. scale: None: as it
    is."""

    method: Literal["PLAY", "PAUSE", "TEARDOWN"]
    cseq: str
    start: float | None = None
    scale: float | None = None


def read_command(body: bytes) -> Command | None:
    """Read the body of an INFO; None for what is no command."""
    head, fields = _read(body)
    words = head.split()
    if len(words) != 2 or not words[1].upper().startswith(_VERSIONS):
        return None
    cseq = _CSEQ.match(fields.get("cseq", ""))
    method = words[0].upper()
    if method not in ("PLAY", "PAUSE", "TEARDOWN"):
        return None
    range_ = _NPT.search(fields.get("range", ""))
    start = float(range_[1]) if range_ is not None and range_[1] and range_[1].lower() != "now" else None
    return Command(
        method,  # type: ignore[arg-type]  # narrowed above
        cseq[0] if cseq is not None else "1",
        start,
        _read_scale(fields.get("scale", "")),
    )


def answer(command: Command, *, status: int = 200, reason: str = "OK", npt: float | None = None) -> bytes:
    """Return the body of a device's 200."""
    lines = [f"RTSP/1.0 {status} {reason}", f"CSeq: {command.cseq}"]
    if npt is not None:
        lines.append(f"Range: npt={number(npt)}-")
    if command.scale is not None and status < 300:
        lines.append(f"Scale: {command.scale}")
    return "\r\n".join([*lines, "", ""]).encode()


def _read(body: bytes) -> tuple[str, dict[str, str]]:
    head, *lines = body[:_BYTES].decode("ascii", "replace").strip().replace("\r", "\n").split("\n")
    fields: dict[str, str] = {}
    for line in lines[:32]:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    return head.strip(), fields


def _read_scale(text: str) -> float | None:
    match = _SCALE.fullmatch(text)
    return float(match[0]) if match is not None and float(match[0]) != 0 else None


def _read_int(text: str, bits: int) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 1 << bits else None
