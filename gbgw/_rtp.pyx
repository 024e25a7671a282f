# cython: language_level=3, binding=True, embedsignature=True
# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True
# cython: auto_pickle=False, autotestdict=False
"""RTP and RTCP parsing, RFC 4571 framing, reordering, receiver statistics (RFC 3550; GB/T 28181-2022 Annex C and D)."""

import struct

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport INFINITY, fabs
from libc.stdint cimport INT64_MIN, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

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

cdef double QUIET_SECONDS = 0.2  # of an expected source, before which nobody else is listened to: longer than pictures are apart

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


cdef RtpPacket make_packet(const Packet* one):
    cdef RtpPacket packet = RtpPacket.__new__(RtpPacket)
    packet.marker = one.header.marker
    packet.payload_type = one.header.payload_type
    packet.sequence_number = one.header.sequence_number
    packet.extended_sequence_number = one.number
    packet.timestamp = one.header.timestamp
    packet.ssrc = one.header.ssrc
    packet.lost_before = one.lost_before
    packet.payload = PyBytes_FromStringAndSize(<const char*>one.payload, one.length)
    return packet


cdef bint read_packet(const uint8_t* base, Py_ssize_t length, Packet* packet) noexcept nogil:
    """Of a datagram; the payload stays where it is."""
    cdef Cursor c = cursor(base, length)
    if not read_header(base, length, &packet.header):
        return False
    take(&c, packet.header.offset)
    packet.block = NULL
    packet.payload = c.base + c.at
    packet.length = packet.header.length
    packet.datagram_bytes = length
    packet.number = packet.header.sequence_number
    packet.lost_before = 0
    packet.arrived = 0.0
    return True


cdef bint copy_packet(const Packet* packet, Packet* out) noexcept nogil:
    """Give a packet a payload of its own; False without memory."""
    cdef uint8_t* block = <uint8_t*>malloc(<size_t>max(packet.length, 1))
    if block == NULL:
        return False
    if packet.length:
        memcpy(block, packet.payload, <size_t>packet.length)
    out[0] = packet[0]
    out.block = block
    out.payload = block
    return True


def parse(bytes datagram not None):
    cdef Packet packet
    return make_packet(&packet) if read_packet(datagram, len(datagram), &packet) else None


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
    def __cinit__(
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
        self.seen = <int64_t*>malloc(2 * <size_t>max_packets * sizeof(int64_t))
        if self.seen == NULL:
            raise MemoryError
        for slot in range(2 * max_packets):
            self.seen[slot] = INT64_MIN

    def __dealloc__(self):
        cdef Py_ssize_t slot
        self.settle()
        free(self.ready)
        for slot in range(self.rival_count):
            free(self.rivals[slot].block)
        if self.held != NULL:
            for slot in range(self.window):
                if self.held[slot] != NULL:
                    free(self.held[slot].block)
                    free(self.held[slot])
        free(self.held)
        free(self.seen)

    # What the outside sees

    def push(self, bytes datagram not None, double now):
        self.take(datagram, len(datagram), now)
        return self.collect()

    def poll(self, double now):
        self.release_due(now)
        return self.collect()

    def flush(self):
        self.drop_rivals()
        while self.held_count:
            self.skip_hole()
        return self.collect()

    cdef object collect(self):
        cdef list out
        cdef Py_ssize_t i
        if self.ready_count == 0:
            return EMPTY
        try:
            out = [make_packet(&self.ready[i]) for i in range(self.ready_count)]
        finally:
            self.settle()
        return out

    cdef void settle(self) noexcept nogil:
        """Forget what was ready; its payloads are gone after this."""
        cdef Py_ssize_t i
        for i in range(self.ready_count):
            free(self.ready[i].block)
        self.ready_count = 0

    cdef void take(self, const uint8_t* base, Py_ssize_t length, double now) noexcept nogil:
        """Take one datagram; what may go on is `ready`, and partly points into it."""
        cdef Packet packet
        cdef int64_t number
        self.release_due(now)
        if not read_packet(base, length, &packet):
            self.n_malformed += 1
            return
        packet.arrived = now
        if not self.locked:
            if self.mode == STRICT and packet.header.ssrc != self.expected_ssrc:
                self.n_wrong_ssrc += 1
                return
            self.begin(&packet)
        if packet.header.ssrc == self.locked_ssrc:
            self.n_received += 1
            self.n_bytes += packet.datagram_bytes
            number = self.highest + <int16_t><uint16_t>(packet.header.sequence_number - <uint16_t>(self.highest & 0xFFFF))
            if -MAX_JUMP <= number - self.highest <= MAX_JUMP:
                if self.rival_count:
                    self.drop_rivals()
                self.heard_at = now
                self.arrange(&packet, number)
                self.release_due(now)
            elif self.is_past(&packet, now):
                self.n_stray += 1
            else:
                self.candidate(&packet, RESTART_RUN if packet.header.timestamp != self.highest_timestamp else RIVAL_RUN)
        elif self.mode == ADOPT and not self.is_other(&packet, now):
            self.candidate(&packet, RESTART_RUN if now - self.heard_at >= SILENCE_SECONDS else RIVAL_RUN)
        else:
            self.n_wrong_ssrc += 1

    cdef double due(self) noexcept nogil:
        """When release_due() has something to release; infinity when nothing is held."""
        return self.oldest + self.patience if self.held_count else INFINITY

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

    cdef void begin(self, const Packet* packet) noexcept nogil:
        self.locked = True
        self.locked_ssrc = packet.header.ssrc
        self.base = self.highest = self.first = packet.header.sequence_number
        self.released = self.base - 1
        self.highest_timestamp = packet.header.timestamp

    cdef bint is_past(self, const Packet* packet, double now) noexcept nogil:
        """Is this a late packet of the run before the last restart? Two of them would be a restart backwards."""
        cdef int behind = <int16_t><uint16_t>(packet.header.sequence_number - self.past_number)
        return (
            self.has_past and packet.header.ssrc == self.past_ssrc and -MAX_JUMP <= behind <= 0 and now - self.past_at < SILENCE_SECONDS
        )

    cdef bint is_other(self, const Packet* packet, double now) noexcept nogil:
        """Is this of another camera that sends here too? The one that was expected keeps its place while it sends, and one that
        lost its place does not come back while the other sends, unless it is the expected one."""
        if self.known and packet.header.ssrc == self.expected_ssrc:
            return False
        if self.known and self.locked_ssrc == self.expected_ssrc and now - self.heard_at < QUIET_SECONDS:
            return True
        return self.has_past and packet.header.ssrc == self.past_ssrc and now - self.heard_at < SILENCE_SECONDS

    cdef void candidate(self, const Packet* packet, Py_ssize_t needed) noexcept nogil:
        """Set a packet out of line aside until `needed` of them, one after another, prove that the stream goes on there."""
        cdef Packet* last
        if self.rival_count:
            last = &self.rivals[self.rival_count - 1]
            if (
                packet.header.ssrc != last.header.ssrc
                or packet.header.sequence_number != <uint16_t>(last.header.sequence_number + 1)
            ):
                self.drop_rivals()
        if copy_packet(packet, &self.rivals[self.rival_count]):
            self.rival_count += 1
        if self.rival_count >= needed:
            self.change_over()

    cdef void drop_rivals(self) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(self.rival_count):
            if self.rivals[i].header.ssrc == self.locked_ssrc:
                self.n_stray += 1
            else:
                self.n_wrong_ssrc += 1
            free(self.rivals[i].block)
        self.rival_count = 0

    cdef void change_over(self) noexcept nogil:
        cdef Py_ssize_t i, count = self.rival_count
        self.rival_count = 0
        while self.held_count:
            self.skip_hole()
        self.has_past = True
        self.past_ssrc = self.locked_ssrc
        self.past_number = <uint16_t>(self.highest & 0xFFFF)
        self.past_at = self.rivals[count - 1].arrived
        if self.rivals[0].header.ssrc == self.locked_ssrc:
            self.n_restart += 1
        else:
            self.n_ssrc_change += 1
            self.locked_ssrc = self.rivals[0].header.ssrc
            for i in range(count):
                self.n_received += 1
                self.n_bytes += self.rivals[i].datagram_bytes
        # The next cycle, so that extended numbers only ever grow.
        self.base = ((self.highest >> 16) + 1 << 16) + self.rivals[0].header.sequence_number
        self.highest = self.first = self.base
        self.released = self.base - 1
        self.source_received = self.expected_prior = self.received_prior = 0
        self.transit_known = self.reported = False
        self.jitter = 0.0
        self.restarted = True
        for i in range(count):
            self.heard_at = self.rivals[i].arrived
            self.arrange(&self.rivals[i], self.base)

    # Order

    cdef void arrange(self, Packet* packet, int64_t number) noexcept nogil:
        """Put a packet in its place. What it brought as `block` is the buffer's from now on."""
        cdef Py_ssize_t slot = number % (2 * self.window)
        packet.number = number
        self.source_received += 1  # late and duplicate ones too, RFC 3550 section 6.4.1
        self.measure(packet.header.timestamp, packet.arrived)
        if number >= self.highest:
            self.highest = number
            self.highest_timestamp = packet.header.timestamp
        if number < self.base - self.window:
            self.n_late += 1
            free(packet.block)
            return
        if self.seen[slot] == number:
            self.n_duplicate += 1
            free(packet.block)
            return
        if number < self.base:
            self.seen[slot] = number
            self.n_late += 1
            free(packet.block)
            return
        if number == self.base and self.held_count == 0:
            self.seen[slot] = number
            self.n_reordered += number < self.highest
            self.base += 1
            self.release_one(packet)
            return
        if number - self.base >= self.window:
            self.advance(number - self.window + 1)
        if not self.hold(packet):
            return  # no memory: as if it had been lost on the way
        self.seen[slot] = number
        self.n_reordered += number < self.highest
        self.release_run()
        while self.held_bytes > self.max_bytes:
            self.skip_hole()

    cdef bint hold(self, const Packet* packet) noexcept nogil:
        cdef Packet* kept = <Packet*>malloc(sizeof(Packet))
        if self.held == NULL:
            self.held = <Packet**>calloc(<size_t>self.window, sizeof(Packet*))
        if kept != NULL and packet.block != NULL:
            kept[0] = packet[0]
        elif kept == NULL or not copy_packet(packet, kept):
            free(packet.block)
            free(kept)
            return False
        if self.held == NULL:
            free(kept.block)
            free(kept)
            return False
        self.held[packet.number % self.window] = kept
        self.held_bytes += packet.length
        if self.held_count == 0 or packet.arrived < self.oldest:
            self.oldest = packet.arrived
        self.held_count += 1
        return True

    cdef void release_one(self, Packet* packet) noexcept nogil:
        cdef int64_t lost = packet.number - self.released - 1
        cdef Py_ssize_t capacity
        cdef Packet* grown
        if self.ready_count == self.ready_capacity:
            capacity = max(2 * self.ready_capacity, 4)
            grown = <Packet*>realloc(self.ready, <size_t>capacity * sizeof(Packet))
            if grown == NULL:
                free(packet.block)
                return  # no memory: as if it had been lost on the way
            self.ready = grown
            self.ready_capacity = capacity
        self.n_lost += lost
        packet.lost_before = lost + self.restarted
        self.restarted = False
        self.released = packet.number
        self.ready[self.ready_count] = packet[0]
        self.ready_count += 1

    cdef void release_run(self) noexcept nogil:
        """Release what is held from `base` on without a hole."""
        cdef Packet* packet
        cdef bint moved = False
        while self.held_count:
            packet = self.held[self.base % self.window]
            if packet == NULL:
                break
            self.held[self.base % self.window] = NULL
            self.held_count -= 1
            self.held_bytes -= packet.length
            self.base += 1
            self.release_one(packet)
            free(packet)
            moved = True
        if moved and self.held_count:
            self.age()

    cdef void skip_hole(self) noexcept nogil:
        """Give the hole at `base` up; something is held behind it."""
        while self.held[self.base % self.window] == NULL:
            self.base += 1
        self.release_run()

    cdef void advance(self, int64_t target) noexcept nogil:
        """Bring the window's start to `target` or beyond."""
        while self.base < target and self.held_count:
            if self.held[self.base % self.window] == NULL:
                self.base += 1
            else:
                self.release_run()
        if self.base < target:
            self.base = target
        self.release_run()

    cdef void release_due(self, double now) noexcept nogil:
        while self.held_count and self.oldest + self.patience <= now:
            self.skip_hole()

    cdef void age(self) noexcept nogil:
        cdef Packet* packet
        cdef int64_t number
        cdef bint found = False
        for number in range(self.base, min(self.highest + 1, self.base + self.window)):
            packet = self.held[number % self.window]
            if packet != NULL and (not found or packet.arrived < self.oldest):
                self.oldest = packet.arrived
                found = True

    cdef void measure(self, uint32_t timestamp, double now) noexcept nogil:
        """Interarrival jitter, RFC 3550 A.8."""
        cdef uint32_t transit = <uint32_t><int64_t>(now * self.clock_hz) - timestamp
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
