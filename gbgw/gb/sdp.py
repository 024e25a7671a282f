"""Session descriptions of GB/T 28181: SDP with `y=`, `f=`, TCP/RTP/AVP and setup (RFC 4566, RFC 4145; SDP annex of
-2016 and -2022).

`parse` fails on nothing but size and a missing media line; `SessionDescription.serialize` is strict: line order v o s
u c t m a y f, CRLF everywhere. On top of them stand the two roles: the platform's `live_offer` and `read_answer`, the
device's `read_offer` and `live_answer`.
"""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from gbgw.base import codec as codecs
from gbgw.base import limits
from gbgw.base.codec import Codec
from gbgw.base.errors import SdpError

CONTENT_TYPE: Final = "application/sdp"

Transport = Literal["udp", "tcp-passive", "tcp-active"]
Setup = Literal["active", "passive"]
Profile = Literal["ps", "ps+es", "ps+es+h265"]

_NTP_EPOCH: Final = 2_208_988_800  # seconds from 1900 to 1970: larger times in t= are NTP times
_PORT: Final = re.compile(r"([0-9]{1,5})(?:/[0-9]{1,5})?")
_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f]")
_ADDRESS: Final = re.compile(r"[0-9A-Za-z.:_%-]{1,255}")
_COMPLEMENT: Final[dict[str, Setup]] = {"active": "passive", "passive": "active"}

# What a profile offers, first choice first: payload type and rtpmap.
_OFFERED: Final[dict[str, tuple[tuple[int, str], ...]]] = {
    "ps": ((96, "PS/90000"),),
    "ps+es": ((96, "PS/90000"), (97, "MPEG4/90000"), (98, "H264/90000")),
    "ps+es+h265": ((96, "PS/90000"), (97, "MPEG4/90000"), (98, "H264/90000"), (100, "H265/90000")),
}
# Encoding names in rtpmap that mean an elementary stream we know.
_ENCODINGS: Final[dict[str, Codec]] = {
    "H264": codecs.H264,
    "H265": codecs.H265,
    "HEVC": codecs.H265,
    "PCMA": codecs.PCMA,
    "PCMU": codecs.PCMU,
    "AAC": codecs.AAC,
    "MPEG4-GENERIC": codecs.AAC,
}
_NAMES: Final = {"playback": "Playback", "download": "Download"}  # s= by mode
_STATIC: Final = {0: "PCMU/8000", 4: "G723/8000", 8: "PCMA/8000", 9: "G722/8000", 18: "G729/8000", 96: "PS/90000"}


@dataclass(frozen=True, slots=True)
class PayloadType:
    """A payload type of a media line. The encoding name decides, not the number: 99 is SVAC for some and H.265 for
    others.

    encoding: upper case, "" when there is no rtpmap and the number says nothing.
    """

    number: int
    encoding: str = ""
    clock_hz: int = 0

    @property
    def codec(self) -> Codec | None:
        """The elementary stream it announces; None for PS and for what is not known."""
        return _ENCODINGS.get(self.encoding)

    @property
    def is_program_stream(self) -> bool:
        """PS, or a vendor's name in its place, which the standard uses to declare a stream that bends it: still tried
        as PS."""
        return self.encoding in ("PS", "MP2P") or self.is_vendor_private

    @property
    def is_vendor_private(self) -> bool:
        return self.encoding in ("DAHUA", "HIKVISION")


@dataclass(frozen=True, slots=True)
class MediaDescription:
    """One m= line with what belongs to it.

    protocol: as written. formats: payload types as written. address: of its own c=, "" without one. attributes:
    (name, value), value None for flags.
    """

    media: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    address: str = ""
    attributes: tuple[tuple[str, str | None], ...] = ()

    @property
    def is_tcp(self) -> bool:
        return "TCP" in self.protocol.upper()

    def attribute(self, name: str) -> str | None:
        """Return the value of the first attribute `name` (any case), "" for a flag, None when absent."""
        return _attribute(self.attributes, name)

    @property
    def payload_types(self) -> tuple[PayloadType, ...]:
        maps: dict[int, str] = {}
        for name, value in self.attributes:
            if name.lower() == "rtpmap" and value:
                mapped, _, encoding = value.strip().partition(" ")
                if mapped.isascii() and mapped.isdigit() and len(mapped) <= 3:
                    maps.setdefault(int(mapped), encoding.strip())
        types: list[PayloadType] = []
        for text in self.formats:
            if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 127):
                continue
            number = int(text)
            name, _, rest = maps.get(number, _STATIC.get(number, "")).partition("/")
            clock = _NUMBER.match(rest)
            types.append(
                PayloadType(number, name.strip().upper(), int(clock[0]) if clock and len(clock[0]) <= 9 else 0)
            )
        return tuple(types)


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """A whole description. Text fields are "" when the line is absent.

    origin_id: user name of o=, the sender's own code. time: start and stop in Unix seconds, (0, 0) for live.
    ssrc_text: y= as written; media_format: f= as written.
    """

    origin_id: str = "-"
    origin_address: str = "0.0.0.0"
    name: str = "-"
    uri: str = ""
    address: str = ""
    time: tuple[int, int] = (0, 0)
    attributes: tuple[tuple[str, str | None], ...] = ()
    media: tuple[MediaDescription, ...] = ()
    ssrc_text: str = ""
    media_format: str = ""

    @property
    def ssrc(self) -> int | None:
        """The RTP SSRC that y= names, or None when it names none that can be used."""
        return read_ssrc(self.ssrc_text)

    def serialize(self) -> bytes:
        """Return the text form. ValueError for a field that would break its line."""
        return "".join(f"{_safe(line)}\r\n" for line in self._lines()).encode("ascii", "replace")

    def _lines(self) -> Iterator[str]:
        yield "v=0"
        yield f"o={self.origin_id} 0 0 IN {_net(self.origin_address)}"
        yield f"s={self.name}"
        if self.uri:
            yield f"u={self.uri}"
        if self.address:
            yield f"c=IN {_net(self.address)}"
        yield f"t={self.time[0]} {self.time[1]}"
        yield from map(_attribute_line, self.attributes)
        for media in self.media:
            yield f"m={media.media} {media.port} {media.protocol} {' '.join(media.formats)}"
            if media.address:
                yield f"c=IN {_net(media.address)}"
            yield from map(_attribute_line, media.attributes)
        if self.ssrc_text:
            yield f"y={self.ssrc_text}"
        if self.media_format:
            yield f"f={self.media_format}"


def parse(body: bytes) -> SessionDescription:
    """Read a description, whatever the order, line ends and blanks of its lines; the last of two equal lines counts.

    Raises SdpError when it is too large, has no media line, or a media line has no port.
    """
    if len(body) > limits.SDP_BYTES:
        raise SdpError(f"the session description has {len(body)} bytes, more than {limits.SDP_BYTES}")
    lines = body.decode("ascii", "replace").replace("\0", "").replace("\r", "\n").split("\n")
    if len(lines) > 2 * limits.SDP_LINES:
        raise SdpError(f"the session description has more than {limits.SDP_LINES} lines")
    session = _Draft()
    for line in lines:
        name, mark, value = line.partition("=")
        if mark:
            session.take(name.strip().lower(), value.strip())
    return session.done()


class _Draft:
    """A description while its lines come in."""

    __slots__ = ("_attributes", "_fields", "_media", "_media_address", "_media_attributes", "_media_lines")

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}
        self._attributes: list[tuple[str, str | None]] = []
        self._media_lines: list[str] = []
        self._media_address: list[str] = []
        self._media_attributes: list[list[tuple[str, str | None]]] = []

    def take(self, name: str, value: str) -> None:
        if name == "m":
            self._media_lines.append(value)
            self._media_address.append("")
            self._media_attributes.append([])
        elif name == "a":
            attribute, mark, text = value.partition(":")
            pair = (attribute.strip(), text.strip() if mark else None)
            (self._media_attributes[-1] if self._media_attributes else self._attributes).append(pair)
        elif name == "c" and self._media_lines:
            self._media_address[-1] = _connection(value)
        else:
            self._fields[name] = value

    def done(self) -> SessionDescription:
        if not self._media_lines:
            raise SdpError("the session description has no media line")
        origin = self._fields.get("o", "").split()
        media = tuple(map(_media_line, self._media_lines, self._media_address, self._media_attributes))
        return SessionDescription(
            origin_id=origin[0] if origin else "-",
            origin_address=_address(origin[5]) if len(origin) > 5 else "",
            name=self._fields.get("s", ""),
            uri=self._fields.get("u", ""),
            address=_connection(self._fields.get("c", "")),
            time=_time(self._fields.get("t", "")),
            attributes=tuple(self._attributes),
            media=media,
            ssrc_text=self._fields.get("y", ""),
            media_format=self._fields.get("f", ""),
        )


def _media_line(line: str, address: str, attributes: list[tuple[str, str | None]]) -> MediaDescription:
    words = line.split()
    port = _PORT.fullmatch(words[1]) if len(words) >= 3 else None
    if port is None or int(port[1]) > 65_535:
        raise SdpError(f"the media line {line[:80]!r} has no port")
    return MediaDescription(words[0].lower(), int(port[1]), words[2], tuple(words[3:]), address, tuple(attributes))


def _connection(value: str) -> str:
    words = value.split()
    return _address(words[2]) if len(words) >= 3 else ""


def _address(text: str) -> str:
    text = text.partition("/")[0]  # a multicast TTL
    return text if _ADDRESS.fullmatch(text) else ""


def _time(value: str) -> tuple[int, int]:
    words = value.split()[:2]
    if len(words) != 2 or not all(_NUMBER.fullmatch(word) and len(word) <= 12 for word in words):
        return (0, 0)
    numbers = [int(word) for word in words]
    if max(numbers) > 2 * _NTP_EPOCH:  # neither Unix nor NTP seconds of this century: it says nothing
        return (0, 0)
    start, stop = (number - _NTP_EPOCH if number > _NTP_EPOCH else number for number in numbers)
    return (start, stop)


def _net(address: str) -> str:
    return f"{'IP6' if ':' in address else 'IP4'} {address or '0.0.0.0'}"


def _attribute_line(attribute: tuple[str, str | None]) -> str:
    name, value = attribute
    return f"a={name}" if value is None else f"a={name}:{value}"


def _attribute(attributes: tuple[tuple[str, str | None], ...], name: str) -> str | None:
    wanted = name.lower()
    return next((value or "" for key, value in attributes if key.lower() == wanted), None)


def _safe(line: str) -> str:
    if _UNSAFE.search(line):
        raise ValueError(f"a line of a session description has a control character: {line[:80]!r}")
    return line


def read_ssrc(text: str) -> int | None:
    """Return the number in a y= value: ten digits by the standard, but the leading zero may be lost and debris may
    follow.

    None when absent, zero, or beyond 32 bits: then whatever arrives is taken.
    """
    digits = _NUMBER.match(text.strip())
    value = int(digits[0]) if digits else 0
    return value if 0 < value < 1 << 32 else None


# The platform's side


def live_offer(
    platform_id: str,
    address: str,
    port: int,
    transport: Transport,
    ssrc: str,
    profile: Profile = "ps",
    stream_attribute: tuple[str, str] | None = None,
) -> SessionDescription:
    """Return the offer for a live picture (s=Play).

    address, port: where we receive; with "tcp-active" the port means nothing. ssrc: ten digits. profile: what is
    offered besides PS, which cameras that register by 2.0 sometimes want to see. stream_attribute: the selector of a
    sub-stream, e.g. ("streamnumber", "1").
    """
    media = _offered_media(port, transport, profile, stream_attribute)
    return SessionDescription(platform_id, address, "Play", address=address, media=(media,), ssrc_text=ssrc)


def history_offer(
    platform_id: str,
    address: str,
    port: int,
    transport: Transport,
    ssrc: str,
    *,
    channel_id: str,
    start: int,
    stop: int,
    download_speed: int | None = None,
    profile: Profile = "ps",
) -> SessionDescription:
    """Return the offer for a recording: s=Playback, or s=Download at `download_speed` times its speed (reference 6.8).

    channel_id: of the camera whose recording it is, also where a recorder stores it. start, stop: Unix seconds.
    """
    extra = ("downloadspeed", str(download_speed)) if download_speed is not None else None
    media = _offered_media(port, transport, profile, extra)
    return SessionDescription(
        platform_id,
        address,
        "Playback" if download_speed is None else "Download",
        uri=f"{channel_id}:0",
        address=address,
        time=(start, stop),
        media=(media,),
        ssrc_text=ssrc,
    )


def _offered_media(
    port: int, transport: Transport, profile: Profile, extra: tuple[str, str] | None
) -> MediaDescription:
    offered = _OFFERED[profile]
    attributes: list[tuple[str, str | None]] = [("recvonly", None)]
    attributes += [("rtpmap", f"{number} {encoding}") for number, encoding in offered]
    if transport != "udp":
        attributes += [("setup", transport.removeprefix("tcp-")), ("connection", "new")]
    if extra is not None:
        attributes.append(extra)
    return MediaDescription(
        "video",
        port,
        "RTP/AVP" if transport == "udp" else "TCP/RTP/AVP",
        tuple(str(number) for number, _ in offered),
        attributes=tuple(attributes),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device's answer means for us.

    address: where it says its media is; "" when it is none to connect to (0.0.0.0, missing): use the SIP source then.
    For UDP only a hint. setup: the device's own role on TCP, the complement of what we offered; None for UDP.
    ssrc: what it promises to send; None: take what arrives. payload_types: usable ones, its choice first.
    remarks: tally names of what was odd.
    """

    address: str
    port: int
    transport: Literal["udp", "tcp"]
    setup: Setup | None
    ssrc: int | None
    payload_types: tuple[PayloadType, ...]
    media_format: str
    origin_id: str
    remarks: tuple[str, ...] = ()
    file_size: int | None = None  # bytes of a download, None when it does not say or cannot

    @property
    def is_vendor_private(self) -> bool:
        return self.payload_types[0].is_vendor_private


TCP_ANSWER: Final = "sdp.tcp_answer"  # remark: a UDP offer answered with TCP that names no role


def answered_tcp() -> SdpError:
    """Return the error for a camera that answered a UDP offer with TCP and means it."""
    return SdpError(
        "the camera answered a UDP offer with TCP",
        code="media_not_supported",
        remedy="set the device's transport to tcp-passive",
    )


def read_answer(body: bytes, offer: SessionDescription) -> Answer:
    """Return what the answer to `offer` means. Raises SdpError with what cannot work and what to try."""
    offered = offer.media[0]
    if not body.strip(b"\r\n\0 "):
        return _unsaid_answer(offered)
    description = parse(body)
    remarks: list[str] = []
    media, payload_types = _usable_media(description)
    if media.port == 0:
        raise SdpError("the camera answered with port 0: it refuses the picture", remedy="try another transport")
    address = media.address or description.address
    if not _reachable(address):
        address = ""
    setup: Setup | None = None
    role = (media.attribute("setup") or "").lower()
    by_udp = offered.is_tcp and not media.is_tcp and not role  # it will send UDP (reference 6.6)
    if by_udp:
        remarks.append("sdp.udp_answer")
    elif offered.is_tcp:
        if not media.is_tcp:
            remarks.append("sdp.protocol_not_tcp")
        setup = _COMPLEMENT[(offered.attribute("setup") or "passive").lower()]
        if role != setup:
            remarks.append("sdp.setup_copied")  # devices copy the line of the offer: the offered roles stay
    elif media.is_tcp:
        if role:
            raise answered_tcp()
        remarks.append(TCP_ANSWER)  # some firmwares write this line whatever was offered, and send UDP
    ssrc = description.ssrc
    if ssrc is None:
        remarks.append("sdp.no_ssrc")
    elif ssrc != offer.ssrc:
        remarks.append("sdp.other_ssrc")
    return Answer(
        address=address,
        port=media.port,
        transport="tcp" if offered.is_tcp and not by_udp else "udp",
        setup=setup,
        ssrc=ssrc,
        payload_types=payload_types,
        media_format=description.media_format,
        origin_id=description.origin_id,
        remarks=tuple(remarks),
        file_size=_file_size(media.attribute("filesize") or _attribute(description.attributes, "filesize")),
    )


def _file_size(text: str | None) -> int | None:
    """Read a=filesize; some platforms say -1 (reference quirk 28)."""
    match = _NUMBER.fullmatch((text or "").strip())
    return (int(match[0]) or None) if match is not None and len(match[0]) <= 18 else None


def _unsaid_answer(offered: MediaDescription) -> Answer:
    """Return what a 200 without a description means: the camera agrees to all that was offered. Seen in simulators
    and in gateways that translate from other protocols; where we must connect, there is nowhere to connect to.
    """
    role = (offered.attribute("setup") or "passive").lower()
    if offered.is_tcp and role == "active":
        raise SdpError(
            "the camera answered without saying where to connect to", remedy="set its transport to tcp-passive or udp"
        )
    return Answer(
        address="",
        port=9,  # discard: unknown (RFC 4145 section 4.1)
        transport="tcp" if offered.is_tcp else "udp",
        setup=_COMPLEMENT[role] if offered.is_tcp else None,
        ssrc=None,
        payload_types=tuple(each for each in offered.payload_types if each.is_program_stream),
        media_format="",
        origin_id="",
        remarks=("sdp.no_description",),
    )


def _usable_media(description: SessionDescription) -> tuple[MediaDescription, tuple[PayloadType, ...]]:
    """Return the media line to use: the first that carries a program stream, and its program stream payload types."""
    for media in description.media:
        usable = tuple(each for each in media.payload_types if each.is_program_stream or not each.encoding)
        if usable and media.media in ("video", "audio"):
            return media, usable
    seen = ", ".join(each.encoding for media in description.media for each in media.payload_types)[:80]
    rejected = next((media for media in description.media if media.port == 0), None)
    if rejected is not None:
        raise SdpError("the camera answered with port 0: it refuses the picture", remedy="try another transport")
    raise SdpError(
        f"the camera offers no program stream but {seen or 'nothing that is known'}",
        code="not_program_stream",
        remedy="set the camera's GB/T 28181 stream type to PS",
    )


def _reachable(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False  # host names of devices mean nothing to us
    return not (parsed.is_unspecified or parsed.is_multicast)


# The device's side


@dataclass(frozen=True, slots=True)
class Offer:
    """What a platform asks of a device.

    mode: "play", "playback", "download" or "talk". address, port: where to send. setup: the platform's role on TCP,
    None for UDP.
    """

    mode: str
    address: str
    port: int
    transport: Literal["udp", "tcp"]
    setup: Setup | None
    ssrc_text: str
    payload_types: tuple[PayloadType, ...]
    start: int  # Unix seconds, 0 for live
    stop: int  # Unix seconds, 0 for live
    origin_id: str
    download_speed: int = 1  # wanted of a download

    @property
    def ssrc(self) -> int | None:
        return read_ssrc(self.ssrc_text)


def read_offer(body: bytes) -> Offer:
    """Return what an INVITE's body asks for. Raises SdpError (answer 488) when it has no address, no port or no
    program stream."""
    description = parse(body)
    media, payload_types = _usable_media(description)
    address = media.address or description.address
    setup: Setup | None = None
    if media.is_tcp:
        setup = "active" if (media.attribute("setup") or "").lower() == "active" else "passive"
    if setup != "active" and (not _reachable(address) or media.port == 0):
        raise SdpError("the offer says no address and port to send to")
    return Offer(
        mode=description.name.lower() or "play",
        address=address,
        port=media.port,
        transport="tcp" if media.is_tcp else "udp",
        setup=setup,
        ssrc_text=description.ssrc_text,
        payload_types=payload_types,
        start=description.time[0],
        stop=description.time[1],
        origin_id=description.origin_id,
        download_speed=max(1, _file_size(media.attribute("downloadspeed")) or 1),
    )


def live_answer(
    offer: Offer,
    device_id: str,
    address: str,
    port: int,
    *,
    ssrc: str | None = None,
    media_format: str = "",
    file_size: int | None = None,
) -> SessionDescription:
    """Return a device's answer to `offer`: its first program stream payload type, the offered y= unless `ssrc` says
    otherwise ("" leaves it out). file_size: bytes of a download."""
    chosen = next((each for each in offer.payload_types if each.encoding), offer.payload_types[0])
    attributes: list[tuple[str, str | None]] = [("sendonly", None), ("rtpmap", f"{chosen.number} PS/90000")]
    if offer.setup is not None:
        attributes += [("setup", _COMPLEMENT[offer.setup]), ("connection", "new")]
    if file_size is not None:
        attributes.append(("filesize", str(file_size)))
    media = MediaDescription(
        "video",
        port,
        "RTP/AVP" if offer.transport == "udp" else "TCP/RTP/AVP",
        (str(chosen.number),),
        attributes=tuple(attributes),
    )
    return SessionDescription(
        device_id,
        address,
        _NAMES.get(offer.mode, "Play"),
        address=address,
        time=(offer.start, offer.stop),
        media=(media,),
        ssrc_text=offer.ssrc_text if ssrc is None else ssrc,
        media_format=media_format,
    )
