# cython: language_level=3, binding=True, embedsignature=True
# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True
# cython: auto_pickle=False, autotestdict=False
"""RTP and RTCP parsing, RFC 4571 framing, reordering, receiver statistics (RFC 3550; GB/T 28181-2022 Annex C and D)."""

import struct
from array import array

cimport cython
from libc.math cimport fabs
from libc.stdint cimport INT64_MIN, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from gbgw._bytes cimport Cursor, copied, cursor, left, peek, take, u8, u16, u32


cdef enum:
    RTP_VERSION = 2
    RTP_FIXED_HEADER = 12
    RTCP_SR = 200
    RTCP_RR = 201
    RTCP_SDES = 202
    RTCP_BYE = 203
    RTCP_APP = 204
    SDES_CNAME = 1
    MAX_JUMP = 1000  # sequence numbers either way that are still the same run (reference 6.7)
    RESTART_RUN = 2  # packets in a row that prove a jump (RFC 3550 A.1)
    RIVAL_RUN = 8  # packets in a row that prove another source, or a jump under an unchanged timestamp
    MAX_WINDOW = 16384  # a quarter of the sequence space: unwrapping stays unambiguous
    INTERLEAVED = 0x24  # "$", RFC 2326 section 10.12
    FRAMER_MINIMUM = 2 * 65536  # two frames of the largest size, so that moving the rest to the front stays linear
    FRAMER_DOUBT = 4096  # bytes of a candidate of an unknown source that are waited for: longer than any packet but rare ones

cdef enum Mode:
    LATCH
    ADOPT
    STRICT

cdef enum Verdict:
    NO
    YES
    WAIT

cdef double SILENCE_SECONDS = 3.0  # of the locked source, after which another may follow it (reference 6.5)

cdef tuple EMPTY = ()


cdef bint read_header(const uint8_t* base, Py_ssize_t length, Header* h) noexcept nogil:
    """RFC 3550 section 5.1; CSRC list, extension and padding are taken off."""
    cdef Cursor c = cursor(base, length)
    cdef uint8_t flags = u8(&c)
    cdef uint8_t second = u8(&c)
    cdef Py_ssize_t padding
    h.marker = second >> 7
    h.payload_type = second & 0x7F
    h.sequence_number = u16(&c)
    h.timestamp = u32(&c)
    h.ssrc = u32(&c)
    take(&c, 4 * <Py_ssize_t>(flags & 0x0F))
    if flags & 0x10:
        take(&c, 2)
        take(&c, 4 * <Py_ssize_t>u16(&c))
    if c.short or flags >> 6 != RTP_VERSION or RTCP_SR <= second <= RTCP_APP:
        return False
    h.offset = c.at
    h.length = left(&c)
    if flags & 0x20:
        padding = peek(&c, h.length - 1)
        if padding == 0 or padding > h.length:
            return False
        h.length -= padding
    return True


@cython.final
@cython.freelist(256)
cdef class RtpPacket:
    def __init__(self):
        raise TypeError("RtpPacket objects are made by parse() and JitterBuffer")

    def __repr__(self):
        return (
            f"RtpPacket(sequence_number={self.sequence_number}, timestamp={self.timestamp}, ssrc={self.ssrc}, "
            f"payload_type={self.payload_type}, marker={self.marker}, payload={len(self.payload)} bytes, "
            f"lost_before={self.lost_before})"
        )


cdef RtpPacket make_packet(bytes datagram):
    cdef Header h
    cdef const uint8_t* base = datagram
    cdef RtpPacket packet
    cdef Cursor c
    if not read_header(base, len(datagram), &h):
        return None
    c = cursor(base, len(datagram))
    take(&c, h.offset)
    packet = RtpPacket.__new__(RtpPacket)
    packet.marker = h.marker
    packet.payload_type = h.payload_type
    packet.sequence_number = h.sequence_number
    packet.extended_sequence_number = h.sequence_number
    packet.timestamp = h.timestamp
    packet.ssrc = h.ssrc
    packet.payload = copied(&c, h.length)
    packet.datagram_bytes = len(datagram)
    return packet


def parse(bytes datagram not None):
    return make_packet(datagram)


def is_rtcp(bytes datagram not None):
    cdef const uint8_t* base = datagram
    cdef Cursor c = cursor(base, len(datagram))
    cdef uint8_t flags = u8(&c)
    cdef uint8_t kind = u8(&c)
    return not c.short and flags >> 6 == RTP_VERSION and RTCP_SR <= kind <= RTCP_APP


@cython.final
@cython.freelist(16)
cdef class SenderReport:
    def __init__(self):
        raise TypeError("SenderReport objects are made by parse_rtcp()")

    def __repr__(self):
        return f"SenderReport(ssrc={self.ssrc}, ntp={self.ntp}, timestamp={self.timestamp})"


@cython.final
@cython.freelist(16)
cdef class Goodbye:
    def __init__(self):
        raise TypeError("Goodbye objects are made by parse_rtcp()")

    def __repr__(self):
        return f"Goodbye(ssrc={self.ssrc})"


cdef SenderReport read_sender_report(Cursor* c):
    cdef SenderReport report = SenderReport.__new__(SenderReport)
    report.ssrc = u32(c)
    report.ntp = <uint64_t>u32(c) << 32
    report.ntp |= u32(c)
    report.timestamp = u32(c)
    report.packet_count = u32(c)
    report.octet_count = u32(c)
    return report


cdef Goodbye read_goodbye(Cursor* c):
    cdef Goodbye goodbye = Goodbye.__new__(Goodbye)
    goodbye.ssrc = u32(c)
    return goodbye


def parse_rtcp(bytes datagram not None):
    cdef const uint8_t* base = datagram
    cdef Cursor c = cursor(base, len(datagram))
    cdef Cursor body
    cdef uint8_t flags, kind
    cdef Py_ssize_t count
    cdef list found = []
    while left(&c) > 0:
        flags = u8(&c)
        kind = u8(&c)
        count = 4 * <Py_ssize_t>u16(&c)
        if c.short or flags >> 6 != RTP_VERSION or left(&c) < count:
            return EMPTY
        body = cursor(base, c.at + count)
        take(&body, c.at)
        take(&c, count)
        if kind == RTCP_SR:
            found.append(read_sender_report(&body))
        elif kind == RTCP_BYE:
            for _ in range(flags & 0x1F):
                found.append(read_goodbye(&body))
        if body.short:
            return EMPTY
    return found if found else EMPTY


@cython.final
cdef class JitterBuffer:
    def __init__(
        self,
        ssrc=None,
        mode="adopt",
        *,
        Py_ssize_t max_packets=512,
        double max_seconds=0.2,
        Py_ssize_t max_bytes=4194304,
        int clock_hz=90000,
    ):
        if mode not in ("latch", "adopt", "strict"):
            raise ValueError(f"mode must be latch, adopt or strict, not {mode!r}")
        if mode == "strict" and ssrc is None:
            raise ValueError("mode strict needs an ssrc")
        if not 1 <= max_packets <= MAX_WINDOW:
            raise ValueError(f"max_packets must be 1..{MAX_WINDOW}")
        if clock_hz < 1 or max_bytes < 0 or not max_seconds >= 0.0:
            raise ValueError("clock_hz must be positive, max_bytes and max_seconds not negative")
        self.mode = STRICT if mode == "strict" else LATCH if mode == "latch" else ADOPT
        self.known = ssrc is not None
        self.expected_ssrc = ssrc if ssrc is not None else 0
        self.window = max_packets
        self.patience = max_seconds
        self.max_bytes = max_bytes
        self.clock_hz = clock_hz
        self.rivals = []
        self.held = [None] * max_packets
        self.seen = array("q", [INT64_MIN]) * (2 * max_packets)

    # What the outside sees

    def push(self, bytes datagram not None, double now):
        cdef list out = []
        cdef RtpPacket packet
        cdef int64_t number
        if self.held_count:
            self.release_due(now, out)
        packet = make_packet(datagram)
        if packet is None:
            self.n_malformed += 1
            return out if out else EMPTY
        packet.arrived = now
        if not self.locked:
            if self.mode == STRICT and packet.ssrc != self.expected_ssrc:
                self.n_wrong_ssrc += 1
                return EMPTY
            self.begin(packet)
        if packet.ssrc == self.locked_ssrc:
            self.n_received += 1
            self.n_bytes += packet.datagram_bytes
            number = self.highest + <int16_t><uint16_t>(packet.sequence_number - <uint16_t>(self.highest & 0xFFFF))
            if -MAX_JUMP <= number - self.highest <= MAX_JUMP:
                if self.rivals:
                    self.drop_rivals()
                self.heard_at = now
                self.arrange(packet, number, out)
                if self.held_count:
                    self.release_due(now, out)
            else:
                self.candidate(packet, RESTART_RUN if packet.timestamp != self.highest_timestamp else RIVAL_RUN, out)
        elif self.mode == ADOPT:
            self.candidate(packet, RESTART_RUN if now - self.heard_at >= SILENCE_SECONDS else RIVAL_RUN, out)
        else:
            self.n_wrong_ssrc += 1
        return out if out else EMPTY

    def poll(self, double now):
        cdef list out
        if self.held_count == 0:
            return EMPTY
        out = []
        self.release_due(now, out)
        return out if out else EMPTY

    def flush(self):
        cdef list out = []
        self.drop_rivals()
        while self.held_count:
            self.skip_hole(out)
        return out if out else EMPTY

    @property
    def max_seconds(self):
        return self.patience

    @max_seconds.setter
    def max_seconds(self, double seconds):
        if not seconds >= 0.0:
            raise ValueError("max_seconds must not be negative")
        self.patience = seconds

    @property
    def deadline(self):
        return self.oldest + self.patience if self.held_count else None

    @property
    def ssrc(self):
        return self.locked_ssrc if self.locked else None

    @property
    def counts(self):
        return {
            "rtp.received": self.n_received,
            "rtp.bytes": self.n_bytes,
            "rtp.lost": self.n_lost,
            "rtp.late": self.n_late,
            "rtp.duplicate": self.n_duplicate,
            "rtp.reordered": self.n_reordered,
            "rtp.malformed": self.n_malformed,
            "rtp.wrong_ssrc": self.n_wrong_ssrc,
            "rtp.ssrc_change": self.n_ssrc_change,
            "rtp.restart": self.n_restart,
            "rtp.stray": self.n_stray,
        }

    @property
    def depth(self):
        return self.held_count

    @property
    def buffered(self):
        return self.held_bytes

    @property
    def jitter_seconds(self):
        return self.jitter / self.clock_hz

    def sender_report(self, SenderReport report not None, double now):
        if self.locked and report.ssrc == self.locked_ssrc:
            self.reported = True
            self.report_ntp = <uint32_t>(report.ntp >> 16)
            self.report_at = now

    def receiver_report(self, uint32_t reporter_ssrc, double now):
        cdef int64_t expected, lost, expected_interval, lost_interval, fraction = 0
        if not self.locked:
            return b""
        expected = self.highest - self.first + 1
        lost = min(max(expected - self.source_received, -0x800000), 0x7FFFFF)
        expected_interval = expected - self.expected_prior
        lost_interval = expected_interval - (self.source_received - self.received_prior)
        self.expected_prior = expected
        self.received_prior = self.source_received
        if expected_interval > 0 and lost_interval > 0:
            fraction = min((lost_interval << 8) // expected_interval, 255)
        delay = min(max(int((now - self.report_at) * 65536), 0), 0xFFFFFFFF) if self.reported else 0
        name = f"{reporter_ssrc:08x}@gbgw".encode()
        item = struct.pack("!BB", SDES_CNAME, len(name)) + name
        item += bytes(4 - len(item) % 4)  # RFC 3550 section 6.5: one to four null octets end the chunk on a word
        return struct.pack(
            "!BBHIIIIIII",
            RTP_VERSION << 6 | 1,
            RTCP_RR,
            7,
            reporter_ssrc,
            self.locked_ssrc,
            fraction << 24 | lost & 0xFFFFFF,
            self.highest & 0xFFFFFFFF,
            int(self.jitter) & 0xFFFFFFFF,
            self.report_ntp if self.reported else 0,
            delay,
        ) + struct.pack("!BBHI", RTP_VERSION << 6 | 1, RTCP_SDES, 1 + len(item) // 4, reporter_ssrc) + item

    # The source, and others that want to follow it

    cdef int begin(self, RtpPacket packet) except -1:
        self.locked = True
        self.locked_ssrc = packet.ssrc
        self.base = self.highest = self.first = packet.sequence_number
        self.released = self.base - 1
        self.highest_timestamp = packet.timestamp
        return 0

    cdef int candidate(self, RtpPacket packet, Py_ssize_t needed, list out) except -1:
        """Set a packet out of line aside until `needed` of them, one after another, prove that the stream goes on there."""
        cdef RtpPacket last
        if self.rivals:
            last = self.rivals[len(self.rivals) - 1]
            if packet.ssrc != last.ssrc or packet.sequence_number != <uint16_t>(last.sequence_number + 1):
                self.drop_rivals()
        self.rivals.append(packet)
        if len(self.rivals) >= needed:
            self.change_over(out)
        return 0

    cdef int drop_rivals(self) except -1:
        cdef RtpPacket packet
        for packet in self.rivals:
            if packet.ssrc == self.locked_ssrc:
                self.n_stray += 1
            else:
                self.n_wrong_ssrc += 1
        self.rivals.clear()
        return 0

    cdef int change_over(self, list out) except -1:
        cdef list rivals = self.rivals
        cdef RtpPacket packet = rivals[0]
        self.rivals = []
        while self.held_count:
            self.skip_hole(out)
        if packet.ssrc == self.locked_ssrc:
            self.n_restart += 1
        else:
            self.n_ssrc_change += 1
            self.locked_ssrc = packet.ssrc
            for packet in rivals:
                self.n_received += 1
                self.n_bytes += packet.datagram_bytes
            packet = rivals[0]
        # The next cycle, so that extended numbers only ever grow.
        self.base = ((self.highest >> 16) + 1 << 16) + packet.sequence_number
        self.highest = self.first = self.base
        self.released = self.base - 1
        self.source_received = self.expected_prior = self.received_prior = 0
        self.transit_known = self.reported = False
        self.jitter = 0.0
        self.restarted = True
        for packet in rivals:
            self.heard_at = packet.arrived
            self.arrange(packet, self.base, out)
        return 0

    # Order

    cdef int arrange(self, RtpPacket packet, int64_t number, list out) except -1:
        cdef Py_ssize_t slot = number % (2 * self.window)
        packet.extended_sequence_number = number
        self.source_received += 1  # late and duplicate ones too, RFC 3550 section 6.4.1
        self.measure(packet.timestamp, packet.arrived)
        if number >= self.highest:
            self.highest = number
            self.highest_timestamp = packet.timestamp
        if number < self.base - self.window:
            self.n_late += 1
            return 0
        if self.seen[slot] == number:
            self.n_duplicate += 1
            return 0
        self.seen[slot] = number
        if number < self.base:
            self.n_late += 1
            return 0
        if number < self.highest:
            self.n_reordered += 1
        if number == self.base and self.held_count == 0:
            self.base += 1
            return self.release_one(packet, out)
        if number - self.base >= self.window:
            self.advance(number - self.window + 1, out)
        self.hold(packet)
        self.release_run(out)
        while self.held_bytes > self.max_bytes:
            self.skip_hole(out)
        return 0

    cdef int hold(self, RtpPacket packet) except -1:
        self.held[packet.extended_sequence_number % self.window] = packet
        self.held_bytes += len(packet.payload)
        if self.held_count == 0 or packet.arrived < self.oldest:
            self.oldest = packet.arrived
        self.held_count += 1
        return 0

    cdef int release_one(self, RtpPacket packet, list out) except -1:
        cdef int64_t lost = packet.extended_sequence_number - self.released - 1
        self.n_lost += lost
        packet.lost_before = lost + self.restarted
        self.restarted = False
        self.released = packet.extended_sequence_number
        out.append(packet)
        return 0

    cdef int release_run(self, list out) except -1:
        """Release what is held from `base` on without a hole."""
        cdef RtpPacket packet
        cdef bint moved = False
        while self.held_count:
            packet = self.held[self.base % self.window]
            if packet is None:
                break
            self.held[self.base % self.window] = None
            self.held_count -= 1
            self.held_bytes -= len(packet.payload)
            self.base += 1
            self.release_one(packet, out)
            moved = True
        if moved and self.held_count:
            self.age()
        return 0

    cdef int skip_hole(self, list out) except -1:
        """Give the hole at `base` up; something is held behind it."""
        while self.held[self.base % self.window] is None:
            self.base += 1
        return self.release_run(out)

    cdef int advance(self, int64_t target, list out) except -1:
        """Bring the window's start to `target` or beyond."""
        while self.base < target and self.held_count:
            if self.held[self.base % self.window] is None:
                self.base += 1
            else:
                self.release_run(out)
        if self.base < target:
            self.base = target
        return self.release_run(out)

    cdef int release_due(self, double now, list out) except -1:
        while self.held_count and self.oldest + self.patience <= now:
            self.skip_hole(out)
        return 0

    cdef int age(self) except -1:
        cdef RtpPacket packet
        cdef int64_t number
        cdef bint found = False
        for number in range(self.base, min(self.highest + 1, self.base + self.window)):
            packet = self.held[number % self.window]
            if packet is not None and (not found or packet.arrived < self.oldest):
                self.oldest = packet.arrived
                found = True
        return 0

    cdef void measure(self, uint32_t timestamp, double now) noexcept:
        """Interarrival jitter, RFC 3550 A.8."""
        cdef uint32_t transit = <uint32_t>(<int64_t>(now * self.clock_hz) & 0xFFFFFFFF) - timestamp
        if self.transit_known:
            self.jitter += (fabs(<double><int32_t>(transit - self.transit)) - self.jitter) / 16.0
        self.transit = transit
        self.transit_known = True


cdef struct Frame:
    Py_ssize_t prefix  # bytes before the packet: 2 by RFC 4571, 4 behind a "$"
    Py_ssize_t length  # of the packet
    Py_ssize_t header  # of its RTP header with CSRC list
    bint rtcp
    bint extended
    uint32_t ssrc


cdef Verdict look(const uint8_t* base, Py_ssize_t end, Py_ssize_t at, Py_ssize_t prefix, Frame* f) noexcept nogil:
    """Could a framed packet begin at `at`? WAIT where the bytes that decide have not come."""
    cdef Cursor c = cursor(base, end)
    cdef uint8_t flags, second
    cdef Py_ssize_t words
    take(&c, at)
    take(&c, prefix - 2)
    f.prefix = prefix
    f.length = u16(&c)
    if c.short:
        return WAIT
    if f.length < 8:
        return NO
    flags = u8(&c)
    if c.short:
        return WAIT
    if flags >> 6 != RTP_VERSION:
        return NO
    second = u8(&c)
    if c.short:
        return WAIT
    f.rtcp = RTCP_SR <= second <= RTCP_APP
    f.extended = flags & 0x10
    f.header = RTP_FIXED_HEADER + 4 * <Py_ssize_t>(flags & 0x0F)
    if f.rtcp:
        if f.length & 3:
            return NO
        words = u16(&c)
        if c.short:
            return WAIT
        if 4 * (words + 1) > f.length:
            return NO
    else:
        if f.length < f.header:
            return NO
        take(&c, 6)
    f.ssrc = u32(&c)
    return WAIT if c.short else YES


cdef Verdict starts_pack(const uint8_t* base, Py_ssize_t end, Py_ssize_t at, const Frame* f) noexcept nogil:
    """Does the payload begin with a pack or system header start code (reference 6.6)?"""
    cdef Cursor c = cursor(base, end)
    cdef uint32_t code
    if f.extended or f.length < f.header + 4:
        return NO
    take(&c, at + f.prefix + f.header)
    code = u32(&c)
    if c.short:
        return WAIT
    return YES if code == 0x1BA or code == 0x1BB else NO


cdef Verdict follows(
    const uint8_t* base, Py_ssize_t end, Py_ssize_t at, const Frame* f, bint known, uint32_t ssrc
) noexcept nogil:
    """Does a frame of the same source, or of the known one, begin where this one ends?"""
    cdef Frame second
    cdef Verdict verdict
    cdef Py_ssize_t behind = at + f.prefix + f.length
    cdef Cursor c = cursor(base, end)
    verdict = look(base, end, behind, 2, &second)
    if verdict == WAIT or (verdict == YES and (second.ssrc == f.ssrc or (known and second.ssrc == ssrc))):
        return verdict
    if peek(&c, behind) != INTERLEAVED:
        return NO
    verdict = look(base, end, behind, 4, &second)
    if verdict == WAIT or (verdict == YES and (second.ssrc == f.ssrc or (known and second.ssrc == ssrc))):
        return verdict
    return NO


cdef Verdict settle(
    const uint8_t* base, Py_ssize_t end, Py_ssize_t at, bint synced, bint known, uint32_t ssrc, Frame* f
) noexcept nogil:
    """Does a frame begin at `at`? The known SSRC is proof, and in step a pack header too; else the next frame must confirm it.

    A long candidate of an unknown source is not waited for unless it begins a pack: garbage that looks like a length of
    60 KB would hold the camera's own frames back for seconds. The rule looks at the candidate only, not at what has come.
    """
    cdef Cursor c = cursor(base, end)
    cdef Verdict verdict, pack
    cdef Py_ssize_t prefix = 2
    while True:
        verdict = look(base, end, at, prefix, f)
        if verdict == YES and known and f.ssrc == ssrc and (synced or not f.rtcp):
            return YES
        if verdict == YES and f.rtcp and not synced:
            verdict = NO
        elif verdict == YES:
            pack = NO if f.rtcp else starts_pack(base, end, at, f)
            if pack == WAIT or (pack == YES and synced):
                return pack
            if pack == NO and f.length > FRAMER_DOUBT and (known or not synced):
                verdict = NO
            else:
                verdict = follows(base, end, at, f, known, ssrc)
        if verdict != NO:
            return verdict
        if prefix == 4 or peek(&c, at) != INTERLEAVED:
            return NO
        prefix = 4


@cython.final
cdef class Framer:
    def __init__(self, ssrc=None, *, Py_ssize_t max_bytes=262144):
        if max_bytes < FRAMER_MINIMUM:
            raise ValueError(f"max_bytes must be at least {FRAMER_MINIMUM}: a frame, and the head of the next")
        self.known = ssrc is not None
        self.ssrc = ssrc if ssrc is not None else 0
        self.max_bytes = max_bytes
        self.pending = bytearray()
        self.synced = True

    def push(self, bytes data not None):
        cdef list out = []
        cdef const uint8_t* base = data
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t room, consumed
        if len(self.pending) == 0:
            at = self.scan(base, len(data), out)
        while at < len(data):
            # What scan() leaves is always shorter than two frames, so there is room and every turn moves on.
            room = min(self.max_bytes - len(self.pending), len(data) - at)
            self.pending += data[at : at + room]
            at += room
            consumed = self.scan(<const uint8_t*><char*>self.pending, len(self.pending), out)
            if consumed:
                del self.pending[:consumed]
        return out if out else EMPTY

    @property
    def counts(self):
        return {
            "rtp.framer_garbage": self.n_garbage,
            "rtp.framer_resync": self.n_resync,
            "rtp.framer_interleaved": self.n_interleaved,
        }

    @property
    def buffered(self):
        return len(self.pending)

    cdef Py_ssize_t scan(self, const uint8_t* base, Py_ssize_t length, list out) except -1:
        """Append the whole packets to `out`; return how many bytes are done with."""
        cdef Cursor c = cursor(base, length)
        cdef Cursor packet
        cdef Frame f
        cdef Verdict verdict
        while left(&c) >= 2:
            if self.synced and peek(&c, 0) == 0 and peek(&c, 1) == 0:
                # A frame of zero bytes says nothing (reference 6.6); in an odd run of zeros the last begins the next length.
                verdict = look(base, length, c.at + 2, 2, &f)
                if verdict == NO:
                    verdict = look(base, length, c.at + 1, 2, &f)
                    if verdict == YES:
                        take(&c, 1)
                        self.n_garbage += 1
                        continue
                if verdict == WAIT:
                    break
                take(&c, 2)
                continue
            verdict = settle(base, length, c.at, self.synced, self.known, self.ssrc, &f)
            if verdict == WAIT or (verdict == YES and left(&c) < f.prefix + f.length):
                break
            if verdict == NO:
                if self.synced:
                    self.synced = False
                else:
                    take(&c, 1)
                    self.n_garbage += 1
                continue
            take(&c, f.prefix)
            out.append(copied(&c, f.length))
            if f.prefix == 4:
                self.n_interleaved += 1
            if not self.synced:
                self.n_resync += 1
                self.synced = True
            if not f.rtcp:
                self.known = True
                self.ssrc = f.ssrc
        return c.at
