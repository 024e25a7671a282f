# cython: language_level=3, binding=True
# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True
"""Fuzz targets of the cores at the cores' own speed; built instrumented, for tests only (tests/fuzz/build.py).

Each is the quick half of the `check` of tests/fuzz/fuzz_NAME.py, over the same bytes: whole = any cut, order, bounds,
conservation. The slow half, core = model, is asked of every input that these found worth keeping. A property that does
not hold raises AssertionError; what the sanitizers find ends the process. Everything is a function of the input alone.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from gbgw._bytes cimport held
from gbgw._ps cimport AccessUnit, Counts, Demuxer, Finished
from gbgw._receiver cimport Fold, Inlet, ReceiveThread, Trunk, sockaddr_storage
from gbgw._rtp cimport Framer, JitterBuffer, Packet
from gbgw._webrtc cimport Batch, Payloads, Sender

from gbgw.base.codec import H264

from gbgw import _flv, _receiver, _rtp, _webrtc

from tests.fuzz.fuzz_timeline import quick as QUICK_TIMELINE

cdef Py_ssize_t MAX_PAYLOAD_BYTES = _webrtc.MAX_PAYLOAD_BYTES

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <string.h>
    #include <sys/eventfd.h>

    /* One of eight: two hosts of IPv4 and two of IPv6, two ports each. */
    static void native_address(struct sockaddr_storage *out, int which) {
        memset(out, 0, sizeof(*out));
        if (which & 4) {
            struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
            six->sin6_family = AF_INET6;
            six->sin6_port = htons((uint16_t)(4000 + (which & 1)));
            six->sin6_addr.s6_addr[15] = (uint8_t)(1 + (which >> 1 & 1));
        } else {
            struct sockaddr_in *four = (struct sockaddr_in *)out;
            four->sin_family = AF_INET;
            four->sin_port = htons((uint16_t)(4000 + (which & 1)));
            four->sin_addr.s_addr = htonl(0xC0000201u + (unsigned)(which >> 1 & 1));
        }
    }
    """
    void native_address(sockaddr_storage* out, int which) nogil
    int eventfd(unsigned int value, int flags) nogil

ctypedef int (*Target)(const uint8_t* data, Py_ssize_t size) except -1

cdef enum:
    MAX_UNIT_BYTES = 20000
    PES_BYTES = 65536
    BYTEWISE = 768  # inputs up to this are also pushed byte by byte
    WINDOW = 16  # of the jitter buffer
    WINDOW_BYTES = 4096
    WAITING_BYTES = 30000
    FRAMER_BYTES = 131072
    ROWS_BESIDE_UNITS = 64
    TRAILER_BYTES = 144  # the most that libsrtp appends
    VOLUME_BYTES = 6144  # of one input: what is copied is not what is judged
    PACKET_VOLUME = 64  # and so are hundreds of packets
    FAKE_SOCKET = 0x7FFF0000  # main.c answers for it; elsewhere the kernel refuses it


cdef uint64_t seed_of(const uint8_t* data, Py_ssize_t size) noexcept:
    """A number that every bit of the input decides (FNV-1a)."""
    cdef uint64_t h = 0xCBF29CE484222325ULL ^ <uint64_t>size
    cdef Py_ssize_t i
    for i in range(size):
        h = (h ^ data[i]) * 0x100000001B3ULL
    return h | 1


cdef uint64_t random(uint64_t* state) noexcept:
    """Xorshift."""
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


cdef Py_ssize_t piece(uint64_t* state, Py_ssize_t left) noexcept:
    """Length of the next cut: every order of magnitude is as likely as the others."""
    return min(left, 1 + <Py_ssize_t>(random(state) % (<uint64_t>4 << (random(state) % 10))))


# --- program stream ---


cdef int give(Demuxer demuxer, const uint8_t* data, Py_ssize_t size, double now) except -1:
    """Push from memory of exactly this size, so that a read beyond it is found."""
    cdef uint8_t* room = <uint8_t*>malloc(<size_t>size if size else 1)
    memcpy(room, data, <size_t>size)
    demuxer.take(room, size, now)
    free(room)
    if held(&demuxer.head) + held(&demuxer.side) + held(&demuxer.unit) > MAX_UNIT_BYTES + 2 * PES_BYTES + size:
        raise AssertionError(f"holds {demuxer.buffered} bytes")
    return 0


cdef int sane(Demuxer demuxer) except -1:
    cdef Py_ssize_t i
    cdef int s
    cdef Finished* f
    for i in range(demuxer.finished_count):
        f = &demuxer.finished[i]
        if f.length <= 0 or f.begin < 0 or f.codec < 1 or f.data == NULL:
            raise AssertionError(f"unit {i}: {f.length} bytes from {f.begin}, codec {f.codec}")
        if f.track_id >= 0xE0 and f.length > MAX_UNIT_BYTES:
            raise AssertionError(f"unit {i} has {f.length} bytes")
        for s in range(f.sets):
            if not 0 <= f.set[s].begin <= f.set[s].end <= f.length:
                raise AssertionError(f"unit {i}: parameter set {f.set[s].begin}..{f.set[s].end} of {f.length}")
    return 0


cdef int same_units(Demuxer a, Demuxer b) except -1:
    cdef Py_ssize_t i
    cdef int s
    cdef Finished* x
    cdef Finished* y
    if a.finished_count != b.finished_count:
        raise AssertionError(f"{a.finished_count} units whole, {b.finished_count} in pieces")
    for i in range(a.finished_count):
        x = &a.finished[i]
        y = &b.finished[i]
        if (
            x.length != y.length or x.codec != y.codec or x.track_id != y.track_id or x.is_keyframe != y.is_keyframe
            or x.discontinuity != y.discontinuity or x.sets != y.sets
            or x.times.has_pts != y.times.has_pts or x.times.has_dts != y.times.has_dts
            or (x.times.has_pts and x.times.pts != y.times.pts) or (x.times.has_dts and x.times.dts != y.times.dts)
            or memcmp(x.data + x.begin, y.data + y.begin, <size_t>x.length)
        ):
            raise AssertionError(f"unit {i} depends on the cut")
        for s in range(x.sets):
            if x.set[s].begin != y.set[s].begin or x.set[s].end != y.set[s].end:
                raise AssertionError(f"parameter set {s} of unit {i} depends on the cut")
    if memcmp(&a.count, &b.count, sizeof(Counts)):
        raise AssertionError(f"{a.counts} whole, {b.counts} in pieces")
    for i in range(256):
        if (
            a.stream[i].known != b.stream[i].known or a.stream[i].declared != b.stream[i].declared
            or a.stream[i].detected != b.stream[i].detected
        ):
            raise AssertionError(f"stream {i:02x} depends on the cut")
    return 0


cdef int any_cut(const uint8_t* data, Py_ssize_t size, uint64_t* state) except -1:
    """Whole, in random pieces and byte by byte the units are the same; `finish` leaves nothing."""
    cdef Demuxer whole = Demuxer(max_unit_bytes=MAX_UNIT_BYTES)
    cdef Demuxer cut = Demuxer(max_unit_bytes=MAX_UNIT_BYTES)
    cdef Py_ssize_t at = 0, count
    give(whole, data, size, 0.0)
    whole.finish()
    sane(whole)
    if whole.buffered or whole.count.units != whole.finished_count or whole.count.skipped_bytes > 2 * size:
        raise AssertionError(f"{whole.buffered} bytes left, {whole.counts}")
    while at < size:
        count = piece(state, size - at)
        give(cut, data + at, count, 0.0)
        at += count
    cut.finish()
    same_units(whole, cut)
    if size <= BYTEWISE and random(state) % 16 == 0:
        cut = Demuxer(max_unit_bytes=MAX_UNIT_BYTES)
        for at in range(size):
            give(cut, data + at, 1, 0.0)
        cut.finish()
        same_units(whole, cut)
    return 0


cdef int ps(const uint8_t* data, Py_ssize_t size) except -1:
    """Any cut; and with markers, gaps and silence in between, bounds and deadlines."""
    cdef uint64_t state = seed_of(data, size)
    cdef Demuxer events
    cdef Py_ssize_t at = 0, count
    cdef uint64_t what
    cdef double now = 0.0
    any_cut(data, size, &state)
    if random(&state) % 2:
        return 0
    events = Demuxer(max_unit_bytes=MAX_UNIT_BYTES)
    while at < size:
        count = piece(&state, size - at)
        give(events, data + at, count, now)
        at += count
        now += 0.04
        what = random(&state) % 8
        if what == 0:
            events.miss()
        elif what < 4:
            events.take_mark(now)
        elif what == 4:
            events.wait(now + 0.2)
        if events.due() != INFINITY and events.due() > now + 0.1 + 1e-9:
            raise AssertionError(f"deadline {events.due()} at {now}")
    events.finish()
    sane(events)
    return 0


cdef const uint8_t* BEFORE = b"\x00\x00\x01\xba\x44\x00\x04\x00\x04\x01\x00\x5f\x6b\xf8\x00\x00\x01\xbc"
cdef const uint8_t* BEHIND = (
    b"\x00\x00\x01\xe0\x00\x12\x80\x80\x05\x21\x00\x01\x00\x01\x00\x00\x00\x01\x65\x88\x84\x21\x43\x65"
    b"\x00\x00\x01\xc0\x00\x0b\x80\x00\x00\xd5\xd5\xd5\xd5\xd5\xd5\xd5\xd5"
    b"\x00\x00\x01\xba\x44\x00\x04\x00\x04\x01\x00\x5f\x6b\xf8\x00\x00\x01\xba"
)


cdef int psm(const uint8_t* data, Py_ssize_t size) except -1:
    """The input is a program stream map from behind its length on; pictures and sound follow it."""
    cdef uint64_t state = seed_of(data, size)
    cdef Py_ssize_t length = min(size, 1200)
    cdef uint8_t* stream = <uint8_t*>malloc(<size_t>(18 + 2 + length + 59))
    try:
        memcpy(stream, BEFORE, 18)
        stream[18] = <uint8_t>(length >> 8)
        stream[19] = <uint8_t>(length & 0xFF)
        memcpy(stream + 20, data, <size_t>length)
        memcpy(stream + 20 + length, BEHIND, 59)
        any_cut(stream, 20 + length + 59, &state)
    finally:
        free(stream)
    return 0


# --- RTP ---


cdef int in_order(JitterBuffer buffer, int64_t* last, int64_t* released) except -1:
    """What became ready, in order; then it is forgotten."""
    cdef Py_ssize_t i
    cdef uint64_t touched = 0
    cdef Packet* packet
    for i in range(buffer.ready_count):
        packet = &buffer.ready[i]
        if packet.number <= last[0] or packet.lost_before < 0 or packet.length < 0:
            raise AssertionError(f"packet {packet.number} behind {last[0]}, {packet.lost_before} lost")
        if released[0] and not packet.lost_before and packet.number != last[0] + 1:
            raise AssertionError(f"packet {packet.number} behind {last[0]} without a hole")
        last[0] = packet.number
        released[0] += 1
        if packet.length:
            touched += seed_of(packet.payload, packet.length)
    buffer.settle()
    if buffer.held_count > WINDOW or buffer.held_bytes > WINDOW_BYTES or buffer.rival_count > 8:
        raise AssertionError(f"holds {buffer.held_count} packets, {buffer.held_bytes} bytes")
    return 0


cdef int rtp(const uint8_t* data, Py_ssize_t size) except -1:
    """The input is a network: one byte of delay, one of length, a datagram. Order, bounds, and no packet unaccounted for."""
    cdef JitterBuffer buffer = JitterBuffer(max_packets=WINDOW, max_bytes=WINDOW_BYTES)
    cdef Py_ssize_t at = 0, length
    cdef int64_t last = -1, released = 0
    cdef uint8_t* room
    cdef double now = 0.0
    while at + 2 <= size:
        now += data[at] / 256.0
        length = min(<Py_ssize_t>data[at + 1], size - at - 2)
        room = <uint8_t*>malloc(<size_t>length if length else 1)
        memcpy(room, data + at + 2, <size_t>length)
        at += 2 + length
        buffer.take(room, length, now)
        try:
            in_order(buffer, &last, &released)
        finally:
            free(room)
        if buffer.due() <= now:
            raise AssertionError(f"due at {buffer.due()}, now {now}")
        if buffer.locked and data[at - 1] % 64 == 1:
            report = buffer.receiver_report(1, now)
            if len(report) % 4 or not _rtp.is_rtcp(report) or _rtp.parse_rtcp(report):
                raise AssertionError(f"receiver report {report.hex()}")
    buffer.drop_rivals()
    while buffer.held_count:
        buffer.skip_hole()
    in_order(buffer, &last, &released)
    if buffer.n_received != released + buffer.n_late + buffer.n_duplicate + buffer.n_stray or buffer.held_bytes:
        raise AssertionError(f"{released} released of {buffer.counts}")
    if seed_of(data, size) % 8 < 3:
        sources(data, size)
    return 0


cdef ReceiveThread THREAD = ReceiveThread(capacity=8)
cdef int SOCKET = eventfd(0, 0)  # epoll takes it, and it never becomes readable
cdef int TRUNK_SOCKET = eventfd(0, 0)


cdef int sources(const uint8_t* data, Py_ssize_t size) except -1:
    """The same network before sockets: whose datagrams reach a stream, and that none is lost count of."""
    cdef Fold fold = Fold(5, "strict", max_packets=WINDOW, max_bytes=WINDOW_BYTES, max_unit_bytes=MAX_UNIT_BYTES)
    cdef Fold share = Fold(5, "strict", max_packets=WINDOW, max_bytes=WINDOW_BYTES, max_unit_bytes=MAX_UNIT_BYTES)
    cdef Inlet inlet = THREAD.open(fold, SOCKET)
    cdef Trunk trunk = THREAD.open_trunk(TRUNK_SOCKET)
    cdef Inlet joined = trunk.join(share, 5)
    cdef sockaddr_storage address
    cdef Py_ssize_t at = 0, length, count = 0, i
    cdef uint8_t* room
    cdef double now = 0.0
    cdef int which
    try:
        inlet.expect(["192.0.2.1", "::1"] if size % 3 else [], 5 if size % 2 else None)
        joined.expect(["192.0.2.2"], 5)
        while at + 2 <= size:
            now += (data[at] >> 3) / 256.0
            which = data[at] & 7
            length = min(<Py_ssize_t>data[at + 1], size - at - 2)
            room = <uint8_t*>malloc(<size_t>length if length else 1)
            memcpy(room, data + at + 2, <size_t>length)
            at += 2 + length
            count += 1
            native_address(&address, which)
            inlet.datagram(room, length, &address, now)
            trunk.datagram(room, length, &address, now)
            free(room)
            if joined.source is None and which == 6:
                joined.follow("::2", 4000)
        if inlet.n_malformed + inlet.n_refused + inlet.n_flood + inlet.foreign_count + entered(fold) != count:
            raise AssertionError(f"{count} datagrams, {entered(fold)} of them to the stream")
        if joined.n_malformed + joined.n_refused + joined.n_flood + joined.foreign_count + entered(share) + (
            trunk.n_malformed + trunk.n_flood + trunk.unknown_count
        ) != count:
            raise AssertionError(f"{count} datagrams by the trunk, {entered(share)} of them to the stream")
        if inlet.source_known and inlet.source_known != (inlet.source is not None):
            raise AssertionError(f"follows {inlet.source}")
        if not 0 <= trunk.touched_count <= 8 or len(inlet.strangers()) > 64 or len(joined.strangers()) > 64:
            raise AssertionError(f"{trunk.touched_count} touched")
        if len(trunk.unknown_datagrams()) > count or trunk.unknown_bytes:
            raise AssertionError("more are unknown than came")
        for i in range(trunk.touched_count):
            trunk.is_touched[trunk.touched[i]] = False
        trunk.touched_count = 0
    finally:
        inlet.close()
        joined.close()
        trunk.close()
    return 0


cdef int64_t entered(Fold fold) noexcept:
    """Datagrams that a strict fold was given: each is one of three things at once."""
    return fold.jitter.n_received + fold.jitter.n_malformed + fold.jitter.n_wrong_ssrc


cdef int rtcp(const uint8_t* data, Py_ssize_t size) except -1:
    """A compound packet: what is found fits into it, again the same, and nothing of a damaged end."""
    cdef bytes whole = PyBytes_FromStringAndSize(<const char*>data, size)
    found = _rtp.parse_rtcp(whole)
    if 4 * len(found) > size:
        raise AssertionError(f"{len(found)} items in {size} bytes")
    if found:
        if _rtp.is_rtcp(whole) and _rtp.parse(whole) is not None:
            raise AssertionError("RTCP and RTP at once")
        if _rtp.parse_rtcp(whole[: size - 1]):
            raise AssertionError("what is cut off is believed")
        if len(_rtp.parse_rtcp(whole + whole)) != 2 * len(found):
            raise AssertionError("twice is not double")
        buffer = _rtp.JitterBuffer(max_packets=4)
        buffer.push(b"\x80\x60\0\1\0\0\0\1" + found[0].ssrc.to_bytes(4, "big") + b"x", 1.0)
        for one in found:
            if isinstance(one, _rtp.SenderReport):
                buffer.sender_report(one, 1.0)
        if _rtp.parse_rtcp(buffer.receiver_report(7, 2.0)):
            raise AssertionError("a receiver report says more than that")
    return 0


cdef list framed(const uint8_t* data, Py_ssize_t size, uint64_t* state, bint bytewise, counts):
    cdef Framer framer = Framer(5, max_bytes=FRAMER_BYTES)
    cdef list out = []
    cdef Py_ssize_t at = 0, count
    while at < size:
        count = 1 if bytewise else size - at if state == NULL else piece(state, size - at)
        out += framer.push(PyBytes_FromStringAndSize(<const char*>data + at, count))
        at += count
        if len(framer.pending) > FRAMER_BYTES:
            raise AssertionError(f"{framer.buffered} bytes pending")
    counts.append((framer.n_garbage, framer.n_resync, framer.n_interleaved, len(framer.pending)))
    return out


cdef int framer(const uint8_t* data, Py_ssize_t size) except -1:
    """RFC 4571 at any cut; frames, garbage and what is pending are never more than the input."""
    cdef uint64_t state = seed_of(data, size)
    counts = []
    whole = framed(data, size, NULL, False, counts)
    if framed(data, size, &state, False, counts) != whole or counts[0] != counts[1]:
        raise AssertionError(f"depends on the cut: {counts}")
    if size <= BYTEWISE // 2 and random(&state) % 8 == 0:
        if framed(data, size, &state, True, counts) != whole or counts[0] != counts[2]:
            raise AssertionError(f"depends on the cut: {counts}")
    if sum(map(len, whole)) + 2 * len(whole) + counts[0][0] + counts[0][3] > size:
        raise AssertionError(f"more came out than went in: {counts}")
    return 0


# --- the way of one stream ---


cdef int fold(const uint8_t* data, Py_ssize_t size) except -1:
    """The input is a camera's doings (tests/fuzz/fuzz_fold.py): a Fold gives the units that its parts give one by one."""
    cdef Fold whole = Fold(max_packets=WINDOW, max_bytes=WINDOW_BYTES, max_unit_bytes=MAX_UNIT_BYTES)
    cdef Fold late = Fold(
        max_packets=WINDOW, max_bytes=WINDOW_BYTES, max_unit_bytes=MAX_UNIT_BYTES, max_waiting_bytes=WAITING_BYTES // 100
    )
    cdef JitterBuffer buffer = JitterBuffer(max_packets=WINDOW, max_bytes=WINDOW_BYTES)
    cdef Demuxer demuxer = Demuxer(max_unit_bytes=MAX_UNIT_BYTES)
    cdef uint8_t room[12 + 255]
    cdef uint8_t* packet
    cdef Py_ssize_t at = 0, length
    cdef uint32_t number = 65500, timestamp = 0xFFFFF000
    cdef int what
    cdef double now = 0.0
    cdef double[4] delays = [0.0, 0.01, 0.15, 0.3]
    cdef uint32_t[7] steps = [1, 1, 1, 2, 0, 0xFFFE, 1500]
    while at + 2 <= size:
        what = data[at]
        length = min(<Py_ssize_t>data[at + 1], size - at - 2)
        now += delays[what >> 6]
        if what & 7 == 7:
            whole.wait(now)
            late.wait(now)
            buffer.release_due(now)
            pass_on(buffer, demuxer, now)
            if buffer.held_count == 0:
                demuxer.wait(now)
            at += 2
            continue
        if what & 0x10:
            timestamp += 3600
        number += steps[what & 7]
        room[0] = 0x80
        room[1] = 0x60 | (0x80 if what & 8 else 0)
        room[2] = <uint8_t>(number >> 8 & 0xFF)
        room[3] = <uint8_t>(number & 0xFF)
        room[4] = <uint8_t>(timestamp >> 24)
        room[5] = <uint8_t>(timestamp >> 16 & 0xFF)
        room[6] = <uint8_t>(timestamp >> 8 & 0xFF)
        room[7] = <uint8_t>(timestamp & 0xFF)
        memset(room + 8, 0, 3)
        room[11] = 6 if what & 0x20 else 5
        memcpy(room + 12, data + at + 2, <size_t>length)
        at += 2 + length
        packet = <uint8_t*>malloc(<size_t>(12 + length))
        memcpy(packet, room, <size_t>(12 + length))
        whole.take(packet, 12 + length, now)
        late.take(packet, 12 + length, now)
        buffer.take(packet, 12 + length, now)
        pass_on(buffer, demuxer, now)
        free(packet)
        if late.row_count - late.waiting > ROWS_BESIDE_UNITS + 1:
            raise AssertionError(f"{late.row_count} events, {late.waiting} units")
        if late.waiting > 1 and late.waiting_bytes > WAITING_BYTES // 100 + MAX_UNIT_BYTES:
            raise AssertionError(f"{late.waiting_bytes} bytes wait")
        if whole.due() != (buffer.due() if buffer.held_count else demuxer.due()):
            raise AssertionError(f"due at {whole.due()}")
        if what & 0x28 == 0x28:
            late.events()
    whole.close(now)
    late.close(now)
    buffer.drop_rivals()
    while buffer.held_count:
        buffer.skip_hole()
    pass_on(buffer, demuxer, now)
    demuxer.finish()
    same_units(whole.demuxer, demuxer)
    sane(whole.demuxer)
    if whole.waiting != demuxer.finished_count:
        raise AssertionError(f"{whole.waiting} events of {demuxer.finished_count} units")
    whole.events()
    late.events()
    return 0


cdef int pass_on(JitterBuffer buffer, Demuxer demuxer, double now) except -1:
    cdef Py_ssize_t i
    cdef Packet* packet
    for i in range(buffer.ready_count):
        packet = &buffer.ready[i]
        if packet.lost_before:
            demuxer.miss()
        demuxer.take(packet.payload, packet.length, now)
        if packet.header.marker:
            demuxer.take_mark(now)
    buffer.settle()
    return 0


# --- to a WebRTC viewer ---


cdef struct Promise:  # what the next packet must be
    int64_t number
    uint32_t timestamp
    uint32_t ssrc
    int64_t packets
    bint broken


cdef int protect(void* session, void* packet, int* length) noexcept nogil:
    """As libsrtp at its worst: it writes TRAILER_BYTES behind the packet."""
    cdef Promise* promise = <Promise*>session
    cdef uint8_t* p = <uint8_t*>packet
    cdef uint32_t ssrc = (<uint32_t>p[8] << 24) | (<uint32_t>p[9] << 16) | (<uint32_t>p[10] << 8) | p[11]
    cdef uint32_t timestamp = (<uint32_t>p[4] << 24) | (<uint32_t>p[5] << 16) | (<uint32_t>p[6] << 8) | p[7]
    if p[0] >> 6 != 2 or ssrc != promise.ssrc or timestamp != promise.timestamp:
        promise.broken = True
    if promise.number >= 0:
        if (p[2] << 8 | p[3]) != (promise.number & 0xFFFF):
            promise.broken = True
        promise.number += 1
    promise.packets += 1
    memset(p + length[0], 0xA5, TRAILER_BYTES)
    length[0] += TRAILER_BYTES if promise.packets % 3 else 10
    return 0


cdef int webrtc(const uint8_t* data, Py_ssize_t size) except -1:
    """The input is a viewer's life: pictures of any payload sizes, sent in runs, some asked for again."""
    cdef Promise promise
    cdef Batch batch = SHARED_BATCH.pop() if SHARED_BATCH else Batch()
    cdef Payloads payloads
    cdef Py_ssize_t at = 1, count, i, begin, end, taken, length = 0, volume = 0
    cdef uint32_t timestamp = 0
    extension = (b"", b"\xbe\xde\x00\x02\x10\x30\x22\0\0\0\0\0")[data[0] & 1] if size else b""
    memset(&promise, 0, sizeof(promise))
    promise.ssrc = 0xC0FFEE
    sender = Sender(
        batch, ssrc=0xC0FFEE, payload_type=96, sequence_number=65530, timestamp_origin=0xFFFFFF00,
        protect=<size_t><void*>protect, session=<size_t><void*>&promise, extension=extension,
        send_time_at=7 if extension else -1,
    )
    sender.aim(FAKE_SOCKET, b"\x02\0\x12\x34\x7f\0\0\1" + bytes(8))
    history = []
    while at + 2 <= size:
        count = data[at] & 0x3F
        if data[at] & 0xC0 == 0xC0 and history:
            # asked for again, by number, and as a repair
            number = (sender.sequence_number - 1 - data[at + 1]) & 0xFFFF
            found = sender.find(number)
            at += 2
            if found is not None:
                promise.timestamp = found[2]
                promise.number = number
                sender.resend(found[0], found[1], found[2], number)
                promise.number = sender.sequence_number
                sender.resend(found[0], found[1], found[2], number, repair=True)
            if promise.broken:
                raise AssertionError(f"packet {number} was sent again as another")
            continue
        sizes = [(data[at + 1] * 8 + i * (data[at] >> 6)) % (MAX_PAYLOAD_BYTES + 1) for i in range(count)]
        at += 2
        volume += sum(sizes) + PACKET_VOLUME * count
        if volume > VOLUME_BYTES:
            break
        payloads = Payloads([PIECES[one] for one in sizes])
        if payloads.size != sum(sizes) or payloads.count != count:
            raise AssertionError(f"{payloads.size} bytes of {sum(sizes)}")
        for i in range(count):
            payloads.at(i, &length)
            if length != sizes[i]:
                raise AssertionError(f"payload {i} has {length} bytes of {sizes[i]}")
        timestamp += 3600
        begin = 0
        while begin < count:
            end = min(count, begin + 1 + (data[at] if at < size else 63) % 64)
            promise.number = sender.sequence_number
            promise.timestamp = <uint32_t>0xFFFFFF00 + timestamp
            packets = sender.packets
            taken = sender.send(payloads, timestamp, begin, end, 77)
            if promise.broken or not 0 <= taken <= end - begin or sender.packets != packets + end - begin:
                raise AssertionError(f"payloads {begin}..{end}: {taken} taken")
            begin = end
        history.append(payloads)
    if sender.octets < sum(one.size for one in history):
        raise AssertionError(f"{sender.octets} octets")
    if batch.segments:  # one that has learnt something would make the next input's fate depend on this one
        SHARED_BATCH.append(batch)
    return 0


SHARED_BATCH = []
PIECES = [bytes(size) for size in range(MAX_PAYLOAD_BYTES + 1)]  # which bytes they are is the slow half's business


# --- FLV ---


cdef int flv(const uint8_t* data, Py_ssize_t size) except -1:
    """The input is a picture in Annex B behind a time stamp (tests/fuzz/fuzz_flv.py): sizes in the tags add up."""
    cdef bytes unit = PyBytes_FromStringAndSize(<const char*>data + 5, size - 5) if size > 5 else b""
    cdef int first = data[0] if size else 0
    cdef bytes head = bytes(range(first >> 1 & 15))
    cdef bytes made
    cdef const uint8_t* p
    cdef Py_ssize_t at, end
    cdef int64_t timestamp = 0
    for at in range(1, min(size, 5)):
        timestamp = timestamp << 8 | data[at]
    whole = _flv.tag(9, timestamp, head, unit)
    if len(whole) != 15 + len(head) + len(unit) or not whole.endswith(unit + (len(whole) - 4).to_bytes(4, "big")):
        raise AssertionError("a tag of another size")
    made = _flv.nal_tag(9, timestamp, head, unit, first & 1)
    if not made:
        return 0
    p = made
    end = PyBytes_GET_SIZE(made) - 4
    at = 11 + len(head)
    if (p[1] << 16 | p[2] << 8 | p[3]) != end - 11 or int.from_bytes(made[end:], "big") != end:
        raise AssertionError("sizes that do not fit the tag")
    while at + 4 <= end:
        at += 4 + (<Py_ssize_t>p[at] << 24 | <Py_ssize_t>p[at + 1] << 16 | <Py_ssize_t>p[at + 2] << 8 | p[at + 3])
    if at != end:
        raise AssertionError(f"NAL units end at {at} of {end}")
    return 0


# --- the time line ---


cdef int timeline(const uint8_t* data, Py_ssize_t size) except -1:
    """The input is what a camera says of time (tests/fuzz/fuzz_timeline.py), which is all Python's: so is this."""
    QUICK_TIMELINE(PyBytes_FromStringAndSize(<const char*>data, size))
    return 0


# --- the way in ---

cdef Target find(str name) except NULL:
    if name == "ps":
        return ps
    if name == "psm":
        return psm
    if name == "rtp":
        return rtp
    if name == "rtcp":
        return rtcp
    if name == "framer":
        return framer
    if name == "fold":
        return fold
    if name == "webrtc":
        return webrtc
    if name == "flv":
        return flv
    if name == "timeline":
        return timeline
    raise KeyError(name)


def target(str name):
    """The address of a target, for main.c."""
    return PyCapsule_New(<void*>find(name), "native_targets.target", NULL)


def run(str name, bytes data):
    """Run a target once."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef uint8_t* room = <uint8_t*>malloc(<size_t>size if size else 1)
    memcpy(room, PyBytes_AS_STRING(data), <size_t>size)
    try:
        find(name)(room, size)
    finally:
        free(room)


# --- the gate's own test: mistakes that the sanitizers must see in the cores ---


def plant(str where):
    """Lie to a core about a length, or overflow here; returns only where nobody watches."""
    cdef uint8_t* room = <uint8_t*>malloc(20)
    cdef int huge = 0x7FFFFFFF
    memset(room, 0, 20)
    room[0] = 0x80
    room[1] = 0x60
    if where == "_ps":
        (<Demuxer>Demuxer()).take(room, 21, 0.0)
    elif where == "_rtp":
        room[0] = 0xA0  # padding: its length is read from the last byte
        (<JitterBuffer>JitterBuffer()).take(room, 21, 0.0)
    elif where == "_receiver":
        (<Fold>Fold()).take(room, 60, 0.0)  # it keeps the first 16 bytes of a payload
    elif where == "_webrtc":
        plant_webrtc()
    elif where == "_flv":
        plant_flv()
    elif where == "undefined":
        huge += <int>len(where)
    free(room)
    return huge


cdef plant_flv():
    cdef AccessUnit unit = AccessUnit(bytes(40), H264, None)
    unit.length = 4000
    _flv.tag(9, 0, b"", unit)


cdef plant_webrtc():
    cdef Py_ssize_t length = 0
    cdef Payloads payloads = Payloads((b"x",))
    if payloads.at(5, &length) == NULL:
        raise AssertionError
