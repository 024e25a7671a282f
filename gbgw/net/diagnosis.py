"""Why there is no picture: from what sockets and cores have seen to a cause code, a sentence and a remedy.

The codes are those of architecture.md section 4. Everything here is a pure function of what was seen.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gbgw.base.errors import MediaError
from gbgw.net.media import NetworkFacts

_TLS_RECORDS: Final = (b"\x16\x03", b"\x17\x03", b"\x15\x03")
_TS_PACKET: Final = 188
_H264_AGGREGATE: Final = (24, 28)  # STAP-A, FU-A (RFC 6184)
_H264_PLAIN: Final = range(1, 13)
_H264_SETS: Final = (0x67, 0x68, 0x27, 0x28, 0x47, 0x48)
_H265_FRAGMENTS: Final = (48, 49)  # AP, FU (RFC 7798)
_H265_SETS: Final = (32, 33, 34)
_START_CODES: Final = (b"\0\0\0\1", b"\0\0\1")
_ENOUGH: Final = 3  # samples before a guess is worth a sentence
_STATIC_AUDIO: Final = {0: "G.711 mu-law", 8: "G.711 A-law", 4: "G.723.1", 9: "G.722", 18: "G.729"}
_ONLY_PS: Final = "choose PS (GB/T 28181) as the stream format in the device's platform settings"


class Diagnosis(NamedTuple):
    """code: "ok" when pictures flow."""

    code: str
    message: str
    remedy: str

    def error(self, stream: str | None = None) -> MediaError:
        return MediaError(self.message, code=self.code, remedy=self.remedy, stream=stream)


class Payload(NamedTuple):
    """The beginning of one RTP payload."""

    payload_type: int
    head: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a Receiver has seen until now. Times are loop seconds.

    codecs: names of the video and audio codecs found, by name and whether gbgw can play them.
    quiet_seconds: since the last packet.
    """

    steps: dict[str, float]
    rtp: dict[str, int]
    quiet_seconds: float
    samples: Sequence[Payload]
    video: tuple[tuple[str, bool], ...]
    audio: tuple[tuple[str, bool], ...]
    ssrc: int | None
    expected_ssrc: int | None
    goodbye: bool
    units: int


def guess_payload(samples: Sequence[Payload]) -> str:
    """Name what the payloads look like, if not a program stream: "" where it is anybody's guess."""
    votes: Counter[str] = Counter()
    for sample in samples:
        votes[_look(sample)] += 1
    votes.pop("", None)
    if not votes:
        return ""
    name, count = votes.most_common(1)[0]
    return name if count >= min(_ENOUGH, len(samples)) else ""


def _look(sample: Payload) -> str:
    head, size = sample.head, sample.size
    if sample.payload_type in _STATIC_AUDIO:
        return _STATIC_AUDIO[sample.payload_type]
    if len(head) < 2:
        return ""
    if head[0] == 0x47 and size % _TS_PACKET == 0:
        return "MPEG transport stream"
    for code in _START_CODES:
        if head.startswith(code) and len(head) > len(code) + 1:
            return _byte_stream(head[len(code) :])
    h265 = (head[0] >> 1) & 0x3F
    if head[0] < 0x80 and head[1] & 7 and not (head[0] & 1) and head[1] < 8 and h265 in (*_H265_FRAGMENTS, *_H265_SETS):
        return "H.265 over RTP (RFC 7798)"
    h264 = head[0] & 0x1F
    by_name = sample.payload_type == 98 and h264 in _H264_PLAIN  # 98 is H.264 by GB/T 28181
    if head[0] < 0x80 and (h264 in _H264_AGGREGATE or head[0] in _H264_SETS or by_name):
        return "H.264 over RTP (RFC 6184)"
    return ""


def _byte_stream(nal: bytes) -> str:
    if nal[0] >= 0xB9:
        return ""  # pack, system header, map, PES: a program stream after all
    if nal[0] in (0x40, 0x42, 0x44, 0x26, 0x4E) and nal[1] == 0x01:
        return "a bare H.265 byte stream"
    if nal[0] & 0x1F in _H264_PLAIN:
        return "a bare H.264 byte stream"
    return ""


def diagnose(seen: Seen, network: NetworkFacts | None = None, *, idle_seconds: float = 5.0) -> Diagnosis:
    """Say where the picture got stuck. idle_seconds: silence that counts as the end of the media."""
    steps = seen.steps
    if "first_packet" not in steps:
        return _nothing_arrived(seen, network)
    if seen.goodbye and seen.quiet_seconds >= 2.0:
        return Diagnosis(
            "media_stopped",
            f"The camera said goodbye (RTCP BYE) and sent nothing for {seen.quiet_seconds:.0f} s.",
            "Ask again; if it repeats, look into the device's log.",
        )
    if seen.quiet_seconds >= idle_seconds:
        return Diagnosis(
            "media_stopped",
            f"The camera sent {seen.rtp['rtp.received']} packets and then nothing for {seen.quiet_seconds:.0f} s.",
            "Check the network between camera and gateway, and whether the device limits the number of streams.",
        )
    if "first_pack" not in steps:
        if network is not None and network.wrong_source > seen.rtp["rtp.received"]:
            return _wrong_source(network)
        return _no_program_stream(seen)
    refused = [name for name, supported in seen.video if not supported]
    if refused and not any(supported for _, supported in seen.video):
        return Diagnosis(
            "codec_unsupported",
            f"The camera sends {', '.join(refused)}, which the gateway does not decode.",
            "Set the video encoding of this channel to H.264 or H.265.",
        )
    if "parameter_sets" not in steps and "first_keyframe" not in steps:
        return _no_parameter_sets(seen)
    if "first_keyframe" not in steps:
        return Diagnosis(
            "no_key_frame",
            f"Video arrives ({seen.units} units, {seen.rtp['rtp.lost']} packets lost) but no whole key frame among it.",
            "Shorten the key frame interval of the camera to 2 s; where packets are lost, use TCP for this device."
            if seen.rtp["rtp.lost"]
            else "Shorten the key frame interval of the camera to 2 s.",
        )
    if "published" not in steps:
        return Diagnosis(
            "no_parameter_sets",
            "Key frames arrive, but their parameter sets are damaged or incomplete.",
            "Restart the channel's encoder, or set its encoding to H.264 Main profile.",
        )
    return Diagnosis("ok", "Pictures arrive.", "")


def _nothing_arrived(seen: Seen, network: NetworkFacts | None) -> Diagnosis:
    rtp = seen.rtp
    if rtp["rtp.wrong_ssrc"]:
        return Diagnosis(
            "wrong_ssrc",
            f"Media arrives, but none with the SSRC that was agreed on ({seen.expected_ssrc}).",
            "Allow this device another SSRC (ssrc mode adopt), or update its firmware.",
        )
    if network is not None:
        return _network(rtp, network)
    if rtp["rtp.malformed"]:
        return _not_rtp("What arrives is not RTP.")
    return Diagnosis("no_media", "Not one media packet arrived.", _FIREWALL)


_FIREWALL: Final = (
    "Check that sip.advertise is an address the camera can reach and that the firewall lets media.ports in; "
    "behind NAT try TCP."
)


def _not_rtp(message: str) -> Diagnosis:
    return Diagnosis("not_rtp", message, "Check that nothing but the camera sends to this port.")


def _network(rtp: dict[str, int], network: NetworkFacts) -> Diagnosis:
    if network.ssrc_conflict:
        return Diagnosis(
            "ssrc_conflict",
            "The camera sends with the SSRC of another stream, and streams share one media port.",
            "Restart the camera or update its firmware; or give each stream a port: media.single_port = 0.",
        )
    if network.wrong_source:
        return _wrong_source(network)
    if network.head.startswith(_TLS_RECORDS) and not network.frames:
        return Diagnosis(
            "encrypted",
            "The camera opened a TLS connection instead of sending RTP.",
            "Switch off stream encryption in the device's platform settings.",
        )
    if network.connections and not network.frames and network.garbage_bytes:
        return _not_rtp(f"The media connection carried {network.garbage_bytes} bytes without one RTP packet.")
    if network.malformed or rtp["rtp.malformed"]:
        return _not_rtp("What arrives on the media port is not RTP.")
    if network.transport == "tcp-active" and not network.connections:
        return Diagnosis(
            "no_media",
            f"TCP active: {network.error or 'no connection to the camera yet'}.",
            "Check that the camera's media port is reachable from here, or use TCP passive for this device.",
        )
    if network.transport == "tcp-passive" and not network.connections:
        return Diagnosis("no_media", f"The camera did not connect to media port {network.port}.", _FIREWALL)
    if network.connections:
        return Diagnosis(
            "no_media",
            "The media connection stands, but the camera sends nothing on it."
            if network.connected
            else "The camera closed the media connection without sending anything.",
            "Try UDP for this device, or restart it.",
        )
    return Diagnosis("no_media", f"Not one packet arrived at media port {network.port}.", _FIREWALL)


def _wrong_source(network: NetworkFacts) -> Diagnosis:
    refused = network.refused_from[0] if network.refused_from is not None else "elsewhere"
    held = f"; the port is held by {network.source[0]}" if network.source is not None else ""
    return Diagnosis(
        "wrong_source",
        f"Media arrives from {refused}, which is not an address this camera is known by{held}.",
        "Check for an address conflict or NAT between camera and gateway; TCP media avoids it.",
    )


def _no_program_stream(seen: Seen) -> Diagnosis:
    kind = guess_payload(seen.samples)
    types = sorted({sample.payload_type for sample in seen.samples})
    if kind:
        return Diagnosis("not_program_stream", f"The camera sends {kind} instead of a program stream.", f"{_ONLY_PS}.")
    return Diagnosis(
        "not_program_stream",
        f"The camera sends payload type {', '.join(map(str, types)) or 'unknown'}, but no program stream pack in it: "
        "a private format, or encrypted.",
        f"Switch off stream encryption in the device, and {_ONLY_PS}.",
    )


def _no_parameter_sets(seen: Seen) -> Diagnosis:
    if not seen.video and seen.audio:
        return Diagnosis(
            "no_parameter_sets",
            "The camera sends sound but no video.",
            "Check that the channel has a picture and that its video encoding is switched on.",
        )
    named = ", ".join(name for name, _ in seen.video) or "video"
    return Diagnosis(
        "no_parameter_sets",
        f"A program stream with {named} arrives, but no parameter sets in it: encrypted, or no key frame yet.",
        "Switch off stream encryption in the device, and shorten its key frame interval to 2 s.",
    )
