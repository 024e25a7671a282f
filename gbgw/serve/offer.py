"""SDP of WHEP, sans-IO: what an offer asks for, the plain offer that aiortc is given in its place, and our answer
(RFC 8829, RFC 8843, RFC 6184, RFC 7798, draft-ietf-wish-whep).

Offers come from anywhere. Only what is read here and checked letter by letter reaches aiortc: at most one video and
one audio line; every other line is refused in the answer with port 0.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from gbgw.base import limits
from gbgw.base.errors import RequestError

PROFILE_BASELINE: Final = 0x42
MID_EXTENSION: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
SEND_TIME_EXTENSION: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
FEEDBACK: Final = ("nack", "nack pli", "goog-remb")

_MEDIA: Final = re.compile(r"m=([a-z]{1,16}) (\d{1,5}) ([0-9A-Za-z/]{1,32}) ([!-~]+(?: [!-~]+)*) ?")
_TOKEN: Final = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`{|}~-]{1,64}")
_UFRAG: Final = re.compile(r"[!-~]{4,256}")
_PASSWORD: Final = re.compile(r"[!-~]{22,256}")
_FINGERPRINT: Final = re.compile(r"(sha-256|sha-384|sha-512) +([0-9a-f]{2}(?::[0-9a-f]{2}){31,63})", re.IGNORECASE)
_RTPMAP: Final = re.compile(r"(\d{1,3}) +([0-9A-Za-z-]{1,32})/(\d{1,6})(?:/(\d))?")
_FMTP: Final = re.compile(r"(\d{1,3}) +(.{1,1024})")
_FEEDBACK: Final = re.compile(r"(\d{1,3}|\*) +([0-9a-z-]{1,16}(?: [0-9a-z-]{1,16})?)")
_EXTENSION: Final = re.compile(r"(\d{1,2})(?:/[a-z]{1,8})? +([!-~]{1,128})(?: .*)?")
_H265_PARAMETERS: Final = {"level-id": "93", "profile-id": "1", "tier-flag": "0", "tx-mode": "SRST"}  # RFC 7798 7.1
_NUMBER: Final = re.compile(r"\d{1,3}")
_LEVEL: Final = re.compile(r"[0-9A-Fa-f]{6}")
_CANDIDATE: Final = re.compile(
    r"(?:candidate:)?([0-9a-z+/]{1,32}) 1 udp (\d{1,10}) ([0-9a-f.:]{2,45}) (\d{1,5}) typ (host|srflx|relay)(?: .*)?",
    re.IGNORECASE,
)
_DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")
_RTCP_CONFLICT: Final = range(64, 96)  # payload types that read as RTCP once muxed (RFC 5761 section 4)

Law = Literal["PCMA", "PCMU"]
Video = Literal["H264", "H265"]
_STATIC: Final[dict[int, Law]] = {0: "PCMU", 8: "PCMA"}  # RFC 3551 table 4


class Candidate(NamedTuple):
    """A remote UDP address of component 1."""

    foundation: str
    priority: int
    host: str
    port: int
    kind: str


@dataclass(frozen=True, slots=True)
class Format:
    """One payload type of an offer that we can send.

    profile: profile-level-id as offered, "" when there is none; mode: packetization-mode, None when there is none;
    repair: payload type of its retransmission (RFC 4588). video, h265: the codec of a video line, and of H.265 the
    parameters as offered.
    """

    payload_type: int
    profile: str = ""
    mode: int | None = None
    feedback: tuple[str, ...] = ()
    repair: int | None = None
    video: Video = "H264"
    h265: tuple[tuple[str, str], ...] = ()

    @property
    def parameters(self) -> dict[str, str]:
        """Of the answer: the offered profile and mode, at any level (RFC 6184 section 8.2.2); of H.265 as offered."""
        if self.video == "H265":
            return dict(self.h265)
        if not self.profile or self.mode is None:
            return {}
        return {
            "level-asymmetry-allowed": "1",
            "packetization-mode": str(self.mode),
            "profile-level-id": self.profile,
        }


@dataclass(frozen=True, slots=True)
class Transport:
    """ICE credentials and DTLS identity of one line."""

    ufrag: str
    password: str
    fingerprints: tuple[str, ...]
    setup: str


@dataclass(slots=True)
class Line:
    """One m= section as far as it is understood."""

    kind: str
    profile: str
    formats: tuple[str, ...]
    port: int
    mid: str = ""  # ours where the offer has none
    has_mid: bool = False
    direction: str = "sendrecv"
    is_muxed: bool = False
    is_bundle_only: bool = False
    ufrag: str = ""
    password: str = ""
    fingerprints: list[str] = field(default_factory=list)
    setup: str = ""
    candidates: list[Candidate] = field(default_factory=list)
    extensions: list[tuple[int, str]] = field(default_factory=list)
    names: dict[int, tuple[str, int, int]] = field(default_factory=dict)  # payload type -> name, clock, channels
    parameters: dict[int, dict[str, str]] = field(default_factory=dict)
    feedback: dict[str, list[str]] = field(default_factory=dict)

    @property
    def receives(self) -> bool:
        is_offered = self.port != 0 or self.is_bundle_only
        return is_offered and self.direction in ("sendrecv", "recvonly") and self.profile.endswith("RTP/SAVPF")

    def payload_types(self) -> Iterator[int]:
        for text in self.formats:
            if text.isascii() and text.isdigit() and len(text) <= 3:
                number = int(text)
                if number < 128 and number not in _RTCP_CONFLICT:
                    yield number

    def h264(self) -> list[Format]:
        """Payload types of H.264 in the order of the offer, whatever their mode."""
        found = []
        for number in self.payload_types():
            name, clock, _ = self.names.get(number, ("", 0, 0))
            if (name, clock) != ("H264", 90_000):
                continue
            parameters = self.parameters.get(number, {})
            mode = parameters.get("packetization-mode")
            level = parameters.get("profile-level-id", "")
            found.append(
                Format(
                    number,
                    level.lower() if _LEVEL.fullmatch(level) else "",
                    None if mode is None else (1 if mode == "1" else 0),
                    self._feedback(number),
                    self._repair(number),
                )
            )
        return found

    def h265(self) -> list[Format]:
        """Payload types of H.265 in the order of the offer, whatever their profile, each a single stream."""
        found = []
        for number in self.payload_types():
            name, clock, _ = self.names.get(number, ("", 0, 0))
            if (name, clock) != ("H265", 90_000):
                continue
            offered = self.parameters.get(number, {})
            told = tuple((key, offered.get(key, default)) for key, default in _H265_PARAMETERS.items())
            if told[-1][1].upper() == "SRST" and all(_NUMBER.fullmatch(value) for _, value in told[:-1]):
                repair = self._repair(number)
                found.append(Format(number, "", None, self._feedback(number), repair, "H265", told))
        return found

    def g711(self) -> dict[Law, Format]:
        found: dict[Law, Format] = {}
        for number in self.payload_types():
            static = _STATIC.get(number, "")
            name, clock, channels = self.names.get(number, (static, 8_000, 1))
            if clock == 8_000 and channels == 1:
                if name == "PCMA":
                    found.setdefault("PCMA", Format(number))
                elif name == "PCMU":
                    found.setdefault("PCMU", Format(number))
        return found

    def _feedback(self, number: int) -> tuple[str, ...]:
        offered = (*self.feedback.get(str(number), ()), *self.feedback.get("*", ()))
        return tuple(kind for kind in FEEDBACK if kind in offered)

    def _repair(self, number: int) -> int | None:
        for other in self.payload_types():
            name, clock, _ = self.names.get(other, ("", 0, 0))
            if (name, clock) == ("RTX", 90_000) and self.parameters.get(other, {}).get("apt") == str(number):
                return other
        return None


@dataclass(frozen=True, slots=True)
class Served:
    """One line that is answered with media."""

    line: Line
    transport: Transport
    format: Format
    law: Law | None = None  # of an audio line


@dataclass(frozen=True, slots=True)
class Offer:
    """A whole offer: every line in order, the mids that share one transport, and whether the viewer is ICE lite."""

    lines: tuple[Line, ...]
    bundle: tuple[str, ...]
    is_lite: bool

    @property
    def candidates(self) -> int:
        return sum(len(line.candidates) for line in self.lines)


def parse(text: str, *, stream: str | None = None) -> Offer:
    """Read an offer. Raises RequestError 400 `sdp_offer_invalid` for what cannot be one; lines that are merely strange
    are not served later."""
    session = Line("session", "", (), 9)
    lines: list[Line] = []
    bundle: tuple[str, ...] = ()
    is_lite = False
    current = session
    for raw in text.split("\n"):
        row = raw.rstrip("\r ")
        if row.startswith("m="):
            match = _MEDIA.fullmatch(row)
            if match is None or len(lines) >= limits.WHEP_MEDIA_LINES:
                raise _invalid("a media line cannot be read" if match is None else "too many media lines", stream)
            kind, port, profile, formats = match.groups()
            current = Line(kind, profile, tuple(formats.split(" ")[:128]), int(port), mid=f"line{len(lines)}")
            lines.append(current)
        elif row.startswith("a="):
            name, _, value = row[2:].partition(":")
            if name == "group" and current is session and value.startswith("BUNDLE "):
                bundle = bundle or tuple(value.split()[1:])
            elif name == "ice-lite" and current is session:
                is_lite = True
            else:
                _attribute(current, name, value)
    if not lines:
        raise _invalid("it has no media line", stream)
    mids = [line.mid for line in lines]
    if len(set(mids)) != len(mids):
        raise _invalid("two lines have one mid", stream)
    for line in lines:
        line.ufrag = line.ufrag or session.ufrag
        line.password = line.password or session.password
        line.fingerprints = line.fingerprints or session.fingerprints
        line.setup = line.setup or session.setup
    own = {line.mid for line in lines if line.has_mid}
    return Offer(tuple(lines), tuple(dict.fromkeys(mid for mid in bundle if mid in own)), is_lite)


def _attribute(line: Line, name: str, value: str) -> None:
    """Take one attribute of a line; what is malformed is left out, so that the line misses it."""
    if name in _DIRECTIONS:
        line.direction = name
    elif name == "mid" and _TOKEN.fullmatch(value) is not None:
        line.mid, line.has_mid = value, True
    elif name == "rtcp-mux":
        line.is_muxed = True
    elif name == "bundle-only":
        line.is_bundle_only = True
    elif name == "ice-ufrag" and _UFRAG.fullmatch(value) is not None:
        line.ufrag = value
    elif name == "ice-pwd" and _PASSWORD.fullmatch(value) is not None:
        line.password = value
    elif name == "setup":
        line.setup = value
    elif name == "fingerprint":
        match = _FINGERPRINT.fullmatch(value)
        if match is not None and len(line.fingerprints) < limits.WHEP_FINGERPRINTS:
            line.fingerprints.append(f"{match[1].lower()} {match[2].upper()}")
    elif name == "candidate":
        found = parse_candidate(value)
        if found is not None and len(line.candidates) < limits.WHEP_CANDIDATES:
            line.candidates.append(found)
    else:
        _format_attribute(line, name, value)


def _format_attribute(line: Line, name: str, value: str) -> None:
    if name == "rtpmap" and (match := _RTPMAP.fullmatch(value)):
        line.names.setdefault(int(match[1]), (match[2].upper(), int(match[3]), int(match[4] or 1)))
    elif name == "fmtp" and (match := _FMTP.fullmatch(value)):
        pairs = (pair.strip().partition("=") for pair in match[2].split(";"))
        line.parameters.setdefault(int(match[1]), {key.lower(): text for key, _, text in pairs})
    elif name == "rtcp-fb" and (match := _FEEDBACK.fullmatch(value)):
        line.feedback.setdefault(match[1], []).append(match[2])
    elif name == "extmap":
        match = _EXTENSION.fullmatch(value)
        is_known = match is not None and match[2] in (MID_EXTENSION, SEND_TIME_EXTENSION)
        if match is not None and is_known and 1 <= int(match[1]) <= 14:  # the one-byte form (RFC 8285 section 4.2)
            line.extensions.append((int(match[1]), match[2]))


def parse_candidate(value: str) -> Candidate | None:
    """Read what follows "a=candidate:". None for what is of no use here: TCP, RTCP, names (mDNS too: the viewer reaches
    us first), and addresses that no viewer has."""
    match = _CANDIDATE.fullmatch(value)
    if match is None or not 0 < int(match[4]) < 65_536 or int(match[2]) >= 1 << 32:
        return None
    try:
        address = ipaddress.ip_address(match[3])
    except ValueError:
        return None
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        return None
    return Candidate(match[1], int(match[2]), str(address), int(match[4]), match[5].lower())


def fragment(text: str) -> tuple[str, str, list[Candidate]]:
    """Read a trickle ICE fragment (RFC 8840 section 9): (ufrag or "", mid of the candidates or "", candidates)."""
    ufrag = mid = ""
    found: list[Candidate] = []
    for raw in text.split("\n"):
        name, _, value = raw.rstrip("\r ").partition(":")
        if name == "a=ice-ufrag":
            ufrag = value
        elif name == "a=mid" and not found:
            mid = value
        elif name == "a=candidate" and len(found) < limits.WHEP_CANDIDATES:
            candidate = parse_candidate(value)
            if candidate is not None:
                found.append(candidate)
    return ufrag, mid, found


def choose(
    offer: Offer, *, profile: int | None, law: Law, video: Video = "H264", stream: str | None = None
) -> tuple[Served, ...]:
    """Pick the lines to serve, in the order of the offer: the first video line that takes `video`, the first audio line
    that takes G.711, preferably in `law`.

    profile: profile_idc of the camera's stream, to prefer the payload type that names it; None where there is no video.
    Raises RequestError: 406 `no_codec_fits` when a video line wants pictures but takes none of ours, or nothing fits;
    400 `sdp_offer_invalid` when the line that fits lacks its ICE or DTLS part.
    """
    found: dict[str, Served] = {}
    wants_video = False
    is_crippled = False
    lacking = ""
    for line in offer.lines:
        if line.kind not in ("audio", "video") or line.kind in found or not line.receives:
            continue
        wants_video = wants_video or line.kind == "video"
        if line.kind == "video":
            formats = line.h264() if video == "H264" else line.h265()
            picked = _pick_h264(formats, profile) if video == "H264" else _pick_h265(formats, profile)
            is_crippled = is_crippled or (video == "H264" and picked is None and bool(formats))
            chosen: tuple[Format, Law | None] | None = None if picked is None else (picked, None)
        else:
            laws = line.g711()
            spoken: Law | None = law if law in laws else next(iter(laws), None)
            chosen = None if spoken is None else (laws[spoken], spoken)
        if chosen is None:
            continue
        transport, missing = _transport(offer, line)
        if transport is None:
            lacking = lacking or missing
            continue
        found[line.kind] = Served(line, transport, *chosen)
    if lacking and not found:
        raise _invalid(f"it has no usable {lacking}", stream)
    if not found or (wants_video and "video" not in found):
        raise RequestError(
            "The offer takes H.264 only as single packets, which cannot carry a camera's pictures."
            if is_crippled
            else "The offer has no codec in common with the stream."
            if video == "H264"
            else "The stream is H.265, which this viewer does not offer to take.",
            status=406,
            code="no_codec_fits",
            remedy="Offer H.264 with packetization-mode=1 to receive, and PCMA or PCMU."
            if video == "H264"
            else "Ask with ?video=h264 where media.transcode allows it, or play by FLV or HLS.",
            stream=stream,
        )
    return tuple(served for served in found.values())


def _pick_h264(formats: Sequence[Format], profile: int | None) -> Format | None:
    """The camera's profile first, then what every browser decodes, then the order of the offer.

    Quirk: an offer without packetization-mode means mode 0 (RFC 6184 section 8.1), but comes from receivers that take
    FU-A all the same (GStreamer, minimal clients); mode 0 in so many words is believed.
    """
    usable = [one for one in formats if one.mode == 1] or [one for one in formats if one.mode is None]

    def rank(one: Format) -> tuple[bool, bool]:
        offered = int(one.profile[:2], 16) if one.profile else PROFILE_BASELINE
        return offered != profile, not one.profile.startswith("42e0")

    return min(usable, key=rank, default=None)


def _pick_h265(formats: Sequence[Format], profile: int | None) -> Format | None:
    """The camera's general_profile_idc, or one that decodes it: Main 10 takes Main as well (H.265 section A.3.3)."""
    fits = {1: ("1", "2")}.get(profile or 0, (str(profile),)) if profile is not None else None
    usable = [one for one in formats if fits is None or dict(one.h265)["profile-id"] in fits]
    return min(usable, key=lambda one: dict(one.h265)["profile-id"] != str(profile), default=None)


def _transport(offer: Offer, line: Line) -> tuple[Transport | None, str]:
    """The line's own transport, or where it is bundled and has none that of the first of the bundle (RFC 8843 section
    7.1.3); else None and what is missing."""
    is_bundled = line.mid in offer.bundle
    sources = [line]
    if is_bundled:
        sources += [other for other in offer.lines if other.mid == offer.bundle[0]]
    ufrag, password = next(((one.ufrag, one.password) for one in sources if one.ufrag and one.password), ("", ""))
    fingerprints = next((one.fingerprints for one in sources if one.fingerprints), [])
    setup = next((one.setup for one in sources if one.setup), "actpass")
    if not ufrag:
        return None, "ice-ufrag and ice-pwd"
    if not fingerprints:
        return None, "fingerprint"
    if setup not in ("actpass", "active", "passive"):
        return None, "setup"
    if not line.is_muxed and not is_bundled:
        return None, "rtcp-mux"
    return Transport(ufrag, password, tuple(fingerprints), setup), ""


def bundled(offer: Offer, served: Iterable[Served]) -> list[str]:
    """Mids of the served lines that share a transport, in the order of the offer's group."""
    mids = {one.line.mid for one in served}
    return [mid for mid in offer.bundle if mid in mids]


def plain(offer: Offer, served: Sequence[Served]) -> str:
    """The served lines alone, as aiortc likes them: with payload types of its own, which are replaced by the viewer's
    before the answer; without end-of-candidates, so that ICE waits for the viewer's checks."""
    group = bundled(offer, served)
    rows = ["v=0", "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    if offer.is_lite:
        rows.append("a=ice-lite")
    if len(group) > 1:
        rows.append(f"a=group:BUNDLE {' '.join(group)}")
    for one in served:
        candidates = list(one.line.candidates)
        if one.line.mid in group:
            candidates = [each for line in offer.lines if line.mid in offer.bundle for each in line.candidates]
        rows += [
            f"m={one.line.kind} 9 UDP/TLS/RTP/SAVPF {'102 103' if one.law is None else '0 8'}",
            "c=IN IP4 0.0.0.0",
            "a=rtcp-mux",
            "a=recvonly",
            f"a=mid:{one.line.mid}",
            f"a=ice-ufrag:{one.transport.ufrag}",
            f"a=ice-pwd:{one.transport.password}",
            *(f"a=fingerprint:{fingerprint}" for fingerprint in one.transport.fingerprints),
            # where the choice is ours we are the DTLS server, who picks the SRTP profile (RFC 5764 section 4.1.2)
            f"a=setup:{'passive' if one.transport.setup == 'passive' else 'active'}",
            *(f"a=extmap:{number} {uri}" for number, uri in one.line.extensions),
            *(f"a=candidate:{write_candidate(each)}" for each in candidates[: limits.WHEP_CANDIDATES]),
        ]
        if one.law is None:
            rows += ["a=rtpmap:102 H264/90000", "a=fmtp:102 packetization-mode=1;profile-level-id=42e01f"]
            rows += ["a=rtpmap:103 rtx/90000", "a=fmtp:103 apt=102"]
        else:
            rows += ["a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000"]
    return "\r\n".join(rows) + "\r\n"


def write_candidate(one: Candidate) -> str:
    return f"{one.foundation} 1 udp {one.priority} {one.host} {one.port} typ {one.kind}"


def answer(offer: Offer, served: Sequence[Served], local: str, *, is_lite: bool = False) -> str:
    """Our answer: aiortc's answer to `plain`, its sections put at the places of the offer's lines, every other line
    refused (RFC 3264 section 6). is_lite: we are ICE lite (RFC 8839 section 5.3)."""
    head, *sections = re.split(r"(?m)^(?=m=)", local)
    own: dict[str, str] = {}
    for section in sections:
        match = re.search(r"(?m)^a=mid:([^\r\n]+)", section)
        if match is not None:
            own[match[1]] = section
    group = bundled(offer, served)
    rows = [row for row in head.split("\r\n") if row and not row.startswith("a=group:")]
    if is_lite:
        rows.append("a=ice-lite")
    if group:
        rows.append(f"a=group:BUNDLE {' '.join(group)}")
    text = "\r\n".join(rows) + "\r\n"
    is_served = {one.line.mid for one in served}
    for line in offer.lines:
        if line.mid not in is_served:
            text += f"m={line.kind} 0 {line.profile} {line.formats[0]}\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\n"
            text += f"a=mid:{line.mid}\r\n" if line.has_mid else ""
            continue
        section = own[line.mid].replace(" UDP/TLS/RTP/SAVPF ", f" {line.profile} ", 1)
        if not line.has_mid:
            section = section.replace(f"a=mid:{line.mid}\r\n", "")
        text += section
    return text


def _invalid(why: str, stream: str | None) -> RequestError:
    return RequestError(
        f"The SDP offer cannot be used: {why}.",
        code="sdp_offer_invalid",
        remedy="Offer recvonly audio and video as browsers do.",
        stream=stream,
    )
