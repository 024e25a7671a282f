"""One RTP stream to one WebRTC viewer through the core _webrtc: pace, retransmissions, sender reports.

No task stands behind it: serve.pacer gives it its turns, the first as a rule in the call that brings a picture. Knows
nothing of aiortc; serve.native brings the keys and the address, serve.rtc_session what the viewer reports.
"""

import asyncio
import secrets
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from gbgw._webrtc import Sender
from gbgw.base import limits
from gbgw.base.tally import Tally
from gbgw.base.ticks import NTP_EPOCH
from gbgw.serve.feedback import Missed, ReceptionReport
from gbgw.serve.outlet import CATCH_UP_BYTES_PER_SECOND, Cut, CutQueue, Waiting
from gbgw.serve.pacer import Pacer
from gbgw.serve.viewers import Viewer

REPORT_SECONDS: Final = 1.0  # between two sender reports, and half as much by chance
ROUNDING_SECONDS: Final = 1e-6  # (now + x) - now is a little more or less than x, by the size of now
BUSY_SECONDS: Final = 0.005  # until a full socket is tried again
LIVE_BYTES_PER_SECOND: Final = limits.WEBRTC_BURST_PACKETS * limits.RTP_PAYLOAD_BYTES / limits.WEBRTC_BURST_SECONDS
DOUBLE_SECONDS: Final = (
    0.01  # between a retransmission and its copy: a burst of loss that takes one should spare the other
)
REMEMBERED_REPORTS: Final = 4  # sender reports that a viewer may answer late
_REPORT: Final = struct.Struct(">BBHIQIII")  # RFC 3550 section 6.4.1
SR: Final = 200
SDES: Final = 202
BYE: Final = 203
CNAME: Final = 1


class Destination(NamedTuple):
    """Where packets go: a socket that belongs to another, and a struct sockaddr."""

    fd: int
    address: bytes


class Way(NamedTuple):
    """What a connected session gives to a lane.

    repair: of retransmissions (RFC 4588), where the viewer takes them apart. destination: None once the socket is
    gone; the same object as long as nothing changed. send_rtcp: protects and sends a compound packet.
    """

    sender: Sender
    repair: Sender | None
    destination: Callable[[], Destination | None]
    send_rtcp: Callable[[bytes], None]
    cname: str


class NativeLane:
    """serve.outlet.Lane over _webrtc.Sender. Bounded: the queue, the history of the sender, the retransmissions.

    on_stopped: called once when it ends by itself, since packets can no longer be protected.
    """

    def __init__(self, viewer: Viewer, tally: Tally, pacer: Pacer, *, on_stopped: Callable[[], None]) -> None:
        self._viewer = viewer
        self._tally = tally
        self._on_stopped = on_stopped
        self._pacer = pacer
        self.is_planned = False
        self._loop = asyncio.get_running_loop()
        self._queue = CutQueue()
        self._way: Way | None = None
        self._aimed: Destination | None = None
        self._under_way: Waiting | None = None  # the unit of which some packets have left
        self._next = 0  # index of the payload in it that goes next
        self._ready_at = 0.0  # loop time from which on the pace allows more
        self._held = False
        self._stopped = False
        self._report_timer: asyncio.TimerHandle | None = None
        self._last_at = 0.0  # wall clock of the last unit, for reports
        self._repairs = float(limits.WEBRTC_REPAIRS)  # retransmissions that are still allowed
        self._doubled: list[int] = []  # sequence numbers that are sent again once more, bounded
        self._double_timer: asyncio.TimerHandle | None = None
        self._lost = 0  # of the viewer's last report
        self._reported: dict[int, float] = {}  # sender reports, by what a viewer quotes of them -> loop time

    @property
    def queued_bytes(self) -> int:
        waiting = self._under_way
        rest = waiting.cut.payloads.size if waiting is not None else 0
        return self._queue.bytes + rest

    def put(self, cut: Cut, *, is_keyframe: bool, is_paced: bool) -> tuple[int, bool]:
        result = self._queue.put(cut, is_keyframe=is_keyframe, is_paced=is_paced)
        self._pacer.want(self)
        return result

    def hold(self, is_held: bool) -> None:
        self._held = is_held
        if not is_held:
            self._pacer.want(self)

    def start(self, way: Way) -> None:
        """The keys are there. Quiet when it has begun or ended already."""
        if self._way is not None or self._stopped:
            return
        self._way = way
        self._plan_report()
        self._pacer.want(self)

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        if self._report_timer is not None:
            self._report_timer.cancel()
        if self._double_timer is not None:
            self._double_timer.cancel()
        if self._way is not None and self._way.sender.packets:
            self._way.send_rtcp(struct.pack(">BBHI", 0x81, BYE, 1, self._way.sender.ssrc))
        self._way = None

    def _fail(self) -> None:
        self._tally.add("webrtc.srtp_refused")
        self.stop()
        self._on_stopped()

    # Packets

    def turn(self, now: float, send_time: int) -> float | None:
        """As serve.pacer.Paced."""
        way = self._way
        if way is None or self._held:
            return None
        while self._under_way is not None or self._queue:
            if self._ready_at - now > limits.WEBRTC_BURST_SECONDS - ROUNDING_SECONDS:
                return self._ready_at
            if self._under_way is None:
                self._under_way, self._next = self._queue.take(), 0
            if not self._aim(way):
                return None
            try:
                self._burst(way.sender, self._under_way, now, send_time)
            except OSError:
                self._fail()
                return None
            if way.sender.error:
                self._tally.add("webrtc.send_error")
                return now + BUSY_SECONDS
        return None

    def _burst(self, sender: Sender, waiting: Waiting, now: float, send_time: int) -> None:
        cut, is_paced = waiting
        payloads = cut.payloads
        end = min(self._next + limits.WEBRTC_BURST_PACKETS, payloads.count)
        is_last = end == payloads.count
        size = payloads.size if is_last and not self._next else (end - self._next) * limits.RTP_PAYLOAD_BYTES
        begin, self._next = self._next, end
        self._last_at = cut.at
        sender.send(payloads, cut.timestamp, begin, end, send_time)
        self._repairs = min(self._repairs + (end - begin) * limits.WEBRTC_REPAIR_SHARE, limits.WEBRTC_REPAIRS)
        self._ready_at = max(self._ready_at, now) + size / (
            CATCH_UP_BYTES_PER_SECOND if is_paced else LIVE_BYTES_PER_SECOND
        )
        if is_last:
            self._viewer.bytes += payloads.size
            self._under_way = None

    def _aim(self, way: Way) -> bool:
        """Follow ICE to the address it chose last; False when there is none any more."""
        destination = way.destination()
        if destination is None:
            return False
        if destination is not self._aimed:
            self._aimed = destination
            for sender in (way.sender, way.repair):
                if sender is not None:
                    sender.aim(*destination)
        return True

    # What the viewer tells

    def on_missed(self, missed: Missed) -> None:
        self._viewer.nacks += len(missed.numbers)
        self._tally.add("webrtc.nacked", len(missed.numbers))
        self.resend(missed.numbers)
        self._plan_copies(missed.numbers)

    def on_report(self, report: ReceptionReport) -> None:
        """How the stream arrives there. Losses are those before retransmission, where it has a stream of its own."""
        fresh = max(0, min(report.lost, self.sent) - self._lost)
        self._lost += fresh
        self._viewer.lost += fresh
        self._tally.add("webrtc.lost", fresh)
        sent_at = self._reported.get(report.last_report)
        if sent_at is not None:
            self._viewer.round_trip = max(0.0, self._loop.time() - sent_at - report.delay / 65_536)

    @property
    def sent(self) -> int:
        """Packets that have left, retransmissions on the same stream included."""
        return self._way.sender.packets if self._way is not None else 0

    def resend(self, numbers: Iterable[int]) -> None:
        """Generic NACK (RFC 4585 section 6.2.1): send these sequence numbers again, as far as they are remembered, and
        no more than a share of what was sent, so that no viewer draws a multiple of the stream."""
        for is_sent in self._repair(numbers):
            self._viewer.resent += 1
            self._tally.add("webrtc.resent" if is_sent else "webrtc.send_error")

    def _plan_copies(self, numbers: Sequence[int]) -> None:
        """Each retransmission goes twice: a viewer that only receives knows no round trip, and Chromium asks for a
        repair that is lost too after 100 ms again, which is a freeze. While half of what is allowed is left, and where
        retransmissions have a sequence of their own, in which a copy is another packet."""
        if self._way is None or self._way.repair is None or self._repairs < limits.WEBRTC_REPAIRS / 2:
            return
        self._doubled += numbers[: limits.WEBRTC_REPAIRS - len(self._doubled)]
        if self._double_timer is None:
            self._double_timer = self._loop.call_later(DOUBLE_SECONDS, self._send_copies)

    def _send_copies(self) -> None:
        self._double_timer = None
        numbers, self._doubled = self._doubled, []
        self._tally.add("webrtc.resent_twice", sum(self._repair(numbers)))

    def _repair(self, numbers: Iterable[int]) -> Iterator[bool]:
        """Send again; yield for each whether the kernel took it."""
        way = self._way
        if way is None or not self._aim(way):
            return
        send_time = int(time.time() * (1 << 18)) & 0xFFFFFF
        for wanted in numbers:
            number = wanted & 0xFFFF
            if self._repairs < 1:
                self._tally.add("webrtc.repairs_exhausted")
                return
            found = way.sender.find(number)
            if found is None:
                self._tally.add("webrtc.nack_too_late")
                continue
            self._repairs -= 1
            try:
                yield (way.repair or way.sender).resend(*found, number, send_time, repair=way.repair is not None)
            except OSError:  # libsrtp knows it no longer
                self._tally.add("webrtc.nack_too_late")

    def _plan_report(self) -> None:
        delay = REPORT_SECONDS * (1 + secrets.randbelow(1_000) / 2_000)
        self._report_timer = self._loop.call_later(delay, self._report)

    def _report(self) -> None:
        way = self._way
        if way is None:
            return
        self._plan_report()
        if way.sender.packets:
            ntp = int((self._last_at + NTP_EPOCH) * (1 << 32)) & 0xFFFFFFFFFFFFFFFF
            way.send_rtcp(report(way.sender, ntp, way.cname))
            if len(self._reported) >= REMEMBERED_REPORTS:
                del self._reported[next(iter(self._reported))]
            self._reported[ntp >> 16 & 0xFFFFFFFF] = self._loop.time()


def report(sender: Sender, ntp: int, cname: str) -> bytes:
    """Sender report and source description of a sender; `ntp`: 64-bit NTP time of its last time stamp."""
    head = _REPORT.pack(
        0x80, SR, 6, sender.ssrc, ntp, sender.timestamp, sender.packets & 0xFFFFFFFF, sender.octets & 0xFFFFFFFF
    )
    name = cname.encode()[:255]
    chunk = struct.pack(">IBB", sender.ssrc, CNAME, len(name)) + name
    chunk += bytes(4 - len(chunk) % 4)  # ends with at least one zero (RFC 3550 section 6.5)
    return head + struct.pack(">BBH", 0x81, SDES, len(chunk) // 4) + chunk
