"""Who a simulated device is and how it behaves towards its platform."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from gbgw.base.codec import AAC, H264, H265, PCMA, Codec
from gbgw.base.errors import ConfigError
from gbgw.gb import ids
from gbgw.gb.manscdp import Edition
from gbgw.mux.loop import SAMPLE_RATES, Loop


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """One device.

    server: host and port of the platform. username: for the digest, "" for the device id.
    expires_seconds: what REGISTER asks for; refreshed at 0.8 of what it gets.
    retry_seconds: after a failed registration, plus up to half of it at random (GB/T 28181-2022 section 9.1: 60 s).
    edition: X-GB-Ver, None leaves the header out. items_per_message: of a catalog answer, or a list of recordings.
    recording_days: of recordings that it invents, up to now; 0: it is no recorder.
    restart_seconds: how long it is away when it is told to restart.
    """

    device_id: str
    server_id: str
    domain: str
    server: tuple[str, int]
    password: str = ""
    username: str = ""
    transport: Literal["udp", "tcp"] = "udp"
    name: str = "Camera"
    channels: int = 1
    items_per_message: int = 2  # keeps a MESSAGE below 1300 bytes (RFC 3261 section 18.1.1)
    edition: Edition | None = "3.0"
    expires_seconds: int = 3_600
    keepalive_seconds: float = 60.0
    keepalive_misses: int = 3
    retry_seconds: float = 60.0
    seed: int = 0
    recording_days: int = 7
    restart_seconds: float = 5.0

    @property
    def channel_ids(self) -> tuple[str, ...]:
        """Ids of its cameras: type 131, serials that follow from the device's own, so that neighbours differ."""
        first = (int(self.device_id[14:]) - 1) * self.channels + 1
        prefix = f"{self.device_id[:10]}131{self.device_id[13]}"
        return tuple(f"{prefix}{(first + index) % 1_000_000:06}" for index in range(self.channels))

    @property
    def address_of_record(self) -> str:
        return f"sip:{self.device_id}@{self.domain}"

    @property
    def server_uri(self) -> str:
        return f"sip:{self.server_id}@{self.domain}"

    def check(self) -> None:
        """Raise ConfigError for what cannot work."""
        for label, text in (("device", self.device_id), ("server", self.server_id)):
            if not ids.is_gb_id(text):
                raise ConfigError(f"the {label} id {text!r} is not a 20-digit code")
        if not 0 < self.server[1] < 65_536 or not self.server[0]:
            raise ConfigError("the server needs a host and a port", remedy="--server 192.0.2.1:5060")
        if not 0 <= self.channels <= 10_000 or self.items_per_message < 1:
            raise ConfigError("a device has 0 to 10000 channels and sends at least one per message")
        if (
            self.expires_seconds < 1
            or self.keepalive_seconds <= 0
            or self.keepalive_misses < 1
            or self.retry_seconds <= 0
        ):
            raise ConfigError("expiry, keepalive and retry are positive")

    def numbered(self, index: int) -> "DeviceOptions":
        """Return the options of the device `index` places further on: the next ids, another seed."""
        device_id = f"{self.device_id[:14]}{(int(self.device_id[14:]) + index) % 1_000_000:06}"
        username = self.username if not index or self.username != self.device_id else ""
        return replace(self, device_id=device_id, username=username, seed=self.seed + index)


RESOLUTIONS: Mapping[tuple[int, int], str] = {
    (176, 144): "1",
    (352, 288): "2",
    (704, 576): "3",
    (720, 576): "4",
    (1280, 720): "5",
    (1920, 1080): "6",
}


def media_format(loop: Loop, *, wrong_codec: bool = False) -> str:
    """Return the f= line of what is sent (GB/T 28181-2022 Annex G): codec, size, rate, VBR, kbit/s; sound."""
    shown: Codec = {H264: H265, H265: H264}[loop.video] if wrong_codec else loop.video
    size = RESOLUTIONS.get((loop.width, loop.height), f"{loop.width}x{loop.height}")
    video = f"v/{'5' if shown is H265 else '2'}/{size}/{round(loop.frame_rate)}/2/{max(1, loop.bitrate // 1_000)}"
    if loop.audio is None:
        return f"{video}a///"
    if loop.audio is AAC:
        return f"{video}a/6/6/{ {8_000: 1, 16_000: 3}[SAMPLE_RATES[AAC]] }"
    assert SAMPLE_RATES[loop.audio] == SAMPLE_RATES[PCMA]
    return f"{video}a/1/8/1"
