# cython: language_level=3, binding=True, embedsignature=True
# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True
"""Load generator core of `gbgw bench`: cameras that send and viewers that swallow, each in one thread without the GIL.

Content is one round of a program stream in RTP packets, shared by all; a Source sends it on many sockets, each at its own
place of the round and with its own sequence numbers and times, packet by packet at the pace of a camera's Ethernet port. A
Drain empties HTTP connections and reads FLV no further than it is asked to. Ears count SRTP by sequence number, unread.
None of it is part of a gateway: it must be cheap, so that what is measured is the other side.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, ECONNREFUSED, EINTR, ENOBUFS, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

from gbgw.base import limits


cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <pthread.h>
    #include <strings.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/socket.h>
    #include <netinet/in.h>
    #include <time.h>
    #include <unistd.h>
    #ifndef SOL_UDP
    #define SOL_UDP 17
    #endif
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    #define GBGW_CONTROL_BYTES CMSG_SPACE(sizeof(uint16_t))

    static double gbgw_now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    }

    static void gbgw_sleep_until(double at) {
        struct timespec t;
        t.tv_sec = (time_t)at;
        t.tv_nsec = (long)((at - (double)t.tv_sec) * 1e9);
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
        }
    }

    static void gbgw_outgoing(struct mmsghdr *m, struct iovec *first, int count, unsigned char *control, int segment) {
        memset(m, 0, sizeof(*m));
        m->msg_hdr.msg_iov = first;
        m->msg_hdr.msg_iovlen = (size_t)count;
        if (segment > 0) {
            m->msg_hdr.msg_control = control;
            m->msg_hdr.msg_controllen = GBGW_CONTROL_BYTES;
            struct cmsghdr *c = CMSG_FIRSTHDR(&m->msg_hdr);
            uint16_t size = (uint16_t)segment;
            c->cmsg_level = SOL_UDP;
            c->cmsg_type = UDP_SEGMENT;
            c->cmsg_len = CMSG_LEN(sizeof(size));
            memcpy(CMSG_DATA(c), &size, sizeof(size));
        }
    }

    static void gbgw_incoming(struct mmsghdr *m, struct iovec *v, void *data, size_t length) {
        memset(m, 0, sizeof(*m));
        v->iov_base = data;
        v->iov_len = length;
        m->msg_hdr.msg_iov = v;
        m->msg_hdr.msg_iovlen = 1;
    }

    static int gbgw_find(const unsigned char *text, int length, const char *wanted) {
        int size = (int)strlen(wanted);
        for (int i = 0; i + size <= length; i++) {
            if (strncasecmp((const char *)text + i, wanted, (size_t)size) == 0) {
                return i;
            }
        }
        return -1;
    }
    """
    int pthread_mutex_init(pthread_mutex_t* mutex, void* attributes) nogil
    int pthread_mutex_destroy(pthread_mutex_t* mutex) nogil
    int pthread_mutex_lock(pthread_mutex_t* mutex) nogil
    int pthread_mutex_unlock(pthread_mutex_t* mutex) nogil
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    cdef struct mmsghdr:
        unsigned int msg_len
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLLIN, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CLOEXEC, EFD_NONBLOCK, EFD_CLOEXEC
    int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC
    size_t GBGW_CONTROL_BYTES
    int epoll_create1(int flags) nogil
    int epoll_ctl(int poller, int operation, int fd, epoll_event* event) nogil
    int epoll_wait(int poller, epoll_event* events, int count, int milliseconds) nogil
    int c_eventfd "eventfd"(unsigned int value, int flags) nogil
    int sendmmsg(int fd, mmsghdr* messages, unsigned int count, int flags) nogil
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, void* timeout) nogil
    ssize_t c_send "send"(int fd, const void* data, size_t length, int flags) nogil
    ssize_t c_recv "recv"(int fd, void* data, size_t length, int flags) nogil
    ssize_t c_write "write"(int fd, const void* data, size_t length) nogil
    ssize_t c_read "read"(int fd, void* data, size_t length) nogil
    int c_close "close"(int fd) nogil
    double gbgw_now() nogil
    void gbgw_sleep_until(double at) nogil
    void gbgw_outgoing(mmsghdr* m, iovec* first, int count, unsigned char* control, int segment) nogil
    void gbgw_incoming(mmsghdr* m, iovec* v, void* data, size_t length) nogil
    int gbgw_find(const unsigned char* text, int length, const char* wanted) nogil


cdef enum:
    BATCH = 64  # packets given to the kernel at once; also the most that it cuts out of one datagram
    HEADER_BYTES = 12
    FRAMED_BYTES = 14  # with the length of RFC 4571 before it
    DATAGRAM_BYTES = 65000
    HEAD_BYTES = 4096  # of an HTTP answer
    READ_BYTES = 1 << 20
    POLLED = 256
    QUEUED = 16  # datagrams of one viewer that wait for Python
    EAR_BYTES = 2048
    POLL_MILLISECONDS = 100

cdef enum TapState:
    T_FREE
    T_HEAD
    T_READING
    T_DRAINING
    T_ENDED

cdef uint64_t STOP = <uint64_t>1 << 32
cdef Py_ssize_t PENDING = limits.BENCH_PENDING_BYTES


def now():
    """CLOCK_MONOTONIC in seconds, the clock of every time in here."""
    return gbgw_now()


cdef inline void put16(uint8_t* p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 8)
    p[1] = <uint8_t>value


cdef inline void put32(uint8_t* p, uint32_t value) noexcept nogil:
    put16(p, value >> 16)
    put16(p + 2, value)


cdef void put_scr(uint8_t* p, int64_t ticks) noexcept nogil:
    """H.222.0 (2021) table 2-39, extension 0."""
    cdef uint64_t v = <uint64_t>ticks & ((<uint64_t>1 << 33) - 1)
    p[0] = <uint8_t>(0x44 | (v >> 30) << 3 | ((v >> 28) & 3))
    p[1] = <uint8_t>(v >> 20)
    p[2] = <uint8_t>(0x04 | ((v >> 15) & 0x1F) << 3 | ((v >> 13) & 3))
    p[3] = <uint8_t>(v >> 5)
    p[4] = <uint8_t>(0x04 | (v & 0x1F) << 3)
    p[5] = 0x01


cdef void put_time(uint8_t* p, int64_t ticks) noexcept nogil:
    """A PTS or DTS (H.222.0 (2021) table 2-21); the four bits before it stay."""
    cdef uint64_t v = <uint64_t>ticks & ((<uint64_t>1 << 33) - 1)
    p[0] = <uint8_t>((p[0] & 0xF0) | (v >> 30) << 1 | 1)
    p[1] = <uint8_t>(v >> 22)
    p[2] = <uint8_t>(((v >> 14) & 0xFE) | 1)
    p[3] = <uint8_t>(v >> 7)
    p[4] = <uint8_t>(((v << 1) & 0xFE) | 1)


@cython.final
@cython.auto_pickle(False)
cdef class Content:
    def __cinit__(self, pieces, int64_t duration, *, int max_payload=1400, int payload_type=96):
        cdef list rows = list(pieces)
        cdef Py_ssize_t i, end = 0
        cdef Piece* piece
        if not rows or duration < 1:
            raise ValueError("no pieces, or a round of no length")
        if not 64 <= max_payload <= 1472 - HEADER_BYTES or not 0 <= payload_type < 128:
            raise ValueError("max_payload 64..1460, payload_type 0..127")
        self.count = len(rows)
        self.pieces = <Piece*>calloc(<size_t>self.count, sizeof(Piece))
        if self.pieces == NULL:
            raise MemoryError
        self.duration = duration
        self.max_payload = max_payload
        self.payload_type = payload_type
        for i in range(self.count):
            at, timestamp, data, is_key, scr, pts, pts_at, dts, dts_at = rows[i]
            piece = &self.pieces[i]
            piece.at = at
            piece.timestamp = <uint32_t>(timestamp & 0xFFFFFFFF)
            piece.begin = end
            end += len(data)
            piece.end = end
            piece.packets = <int>((len(data) + max_payload - 1) // max_payload)
            piece.is_key = is_key
            piece.scr = scr
            piece.pts, piece.pts_at = pts, pts_at
            piece.dts, piece.dts_at = dts, dts_at
            if piece.packets < 1 or not 0 <= at < duration or (i and at < self.pieces[i - 1].at):
                raise ValueError(f"piece {i} is empty, outside the round or before its forerunner")
            first = min(len(data), max_payload)
            if (scr >= 0 and first < 14) or (pts >= 0 and not 0 < pts_at <= first - 5) or (dts >= 0 and not 0 < dts_at <= first - 5):
                raise ValueError(f"the times of piece {i} lie outside its first packet")
            self.packets += piece.packets
        self.joined = b"".join([row[2] for row in rows])
        self.base = <const uint8_t*>self.joined
        self.size = end

    def __dealloc__(self):
        free(self.pieces)

    cdef int write(self, uint8_t* head, uint8_t* copy, const Piece* piece, int64_t round, int packet, uint16_t number, uint32_t ssrc, const uint8_t** payload) noexcept nogil:
        """Write one packet's header; return the length of its payload, which stands at `payload`."""
        cdef Py_ssize_t at = piece.begin + <Py_ssize_t>packet * self.max_payload
        cdef int length = <int>min(piece.end - at, <Py_ssize_t>self.max_payload)
        cdef int64_t later = round * self.duration
        head[0] = 0x80
        head[1] = <uint8_t>(self.payload_type | (0x80 if packet == piece.packets - 1 else 0))
        put16(head + 2, number)
        put32(head + 4, piece.timestamp + <uint32_t>later)
        put32(head + 8, ssrc)
        payload[0] = self.base + at
        if packet == 0 and later and (piece.scr >= 0 or piece.pts >= 0 or piece.dts >= 0):
            memcpy(copy, self.base + at, <size_t>length)
            if piece.scr >= 0:
                put_scr(copy + 4, piece.scr + later)
            if piece.pts >= 0:
                put_time(copy + piece.pts_at, piece.pts + later)
            if piece.dts >= 0:
                put_time(copy + piece.dts_at, piece.dts + later)
            payload[0] = copy
        return length

    def packet(self, Py_ssize_t index, *, int64_t round=0, uint16_t number=0, uint32_t ssrc=0):
        cdef uint8_t[HEADER_BYTES] head
        cdef uint8_t[1500] copy
        cdef const uint8_t* payload
        cdef Py_ssize_t i, before = 0
        cdef int length
        for i in range(self.count):
            if index < before + self.pieces[i].packets:
                length = self.write(head, copy, &self.pieces[i], round, <int>(index - before), number, ssrc, &payload)
                return PyBytes_FromStringAndSize(<const char*>head, HEADER_BYTES) + PyBytes_FromStringAndSize(<const char*>payload, length)
            before += self.pieces[i].packets
        raise IndexError(index)

    def __len__(self):
        return self.packets


@cython.final
@cython.auto_pickle(False)
cdef class Source:
    def __cinit__(self, Content content not None, *, int capacity=limits.BENCH_STREAMS, double slot_seconds=0.001, double line_bits=100e6):
        if capacity < 1 or not 0.0 < slot_seconds <= 1.0 or line_bits < 0:
            raise ValueError("capacity must be positive, slot_seconds 0..1, line_bits 0 or more")
        self.content = content
        self.capacity = capacity
        self.slot_seconds = slot_seconds
        # with the Ethernet, IP and UDP bytes around it
        self.line_seconds = (content.max_payload + HEADER_BYTES + 66) * 8 / line_bits if line_bits else 0.0
        self.stride = content.max_payload + 64
        if pthread_mutex_init(&self.lock, NULL):
            raise MemoryError
        self.lockable = True
        self.lanes = <Lane*>calloc(<size_t>capacity, sizeof(Lane))
        self.heads = <uint8_t*>malloc(BATCH * FRAMED_BYTES)
        self.copies = <uint8_t*>malloc(<size_t>(BATCH * self.stride))
        self.vectors = calloc(2 * BATCH, sizeof(iovec))
        self.messages = calloc(BATCH, sizeof(mmsghdr))
        self.controls = <uint8_t*>calloc(BATCH, GBGW_CONTROL_BYTES)
        self.lengths = <int*>calloc(BATCH, sizeof(int))
        if (
            self.lanes == NULL or self.heads == NULL or self.copies == NULL or self.vectors == NULL or self.messages == NULL
            or self.controls == NULL or self.lengths == NULL
        ):
            raise MemoryError

    def __dealloc__(self):
        cdef int i
        if self.lanes != NULL:
            for i in range(self.capacity):
                free(self.lanes[i].pending)
        free(self.lanes)
        free(self.heads)
        free(self.copies)
        free(self.vectors)
        free(self.messages)
        free(self.controls)
        free(self.lengths)
        if self.lockable:
            pthread_mutex_destroy(&self.lock)

    def run(self):
        with nogil:
            self.run_loop()

    def stop(self):
        self.stopping = True

    def open(self, int fd, uint32_t ssrc, *, uint16_t number=0, double start=0.0, double position=0.0, bint tcp=False, bint segments=False):
        cdef int i
        cdef Lane* lane
        cdef int64_t ticks = <int64_t>(position * self.content.duration)
        cdef Py_ssize_t piece = 0
        if not 0.0 <= position < 1.0 or fd < 0:
            raise ValueError("position 0..1; a socket that is open")
        while piece < self.content.count - 1 and self.content.pieces[piece].at < ticks:
            piece += 1
        pthread_mutex_lock(&self.lock)
        try:
            for i in range(self.capacity):
                if not self.lanes[i].is_open:
                    break
            else:
                raise OverflowError(f"all {self.capacity} lanes are taken")
            lane = &self.lanes[i]
            free(lane.pending)
            memset(lane, 0, sizeof(Lane))
            if tcp:
                lane.pending = <uint8_t*>malloc(<size_t>PENDING)
                if lane.pending == NULL:
                    raise MemoryError
            lane.fd, lane.ssrc, lane.number, lane.tcp, lane.segments = fd, ssrc, number, tcp, segments
            lane.piece = piece
            lane.due = start or gbgw_now()
            lane.start = lane.due - self.content.pieces[piece].at / 90000.0
            lane.is_open = True
            self.top = max(self.top, i + 1)
        finally:
            pthread_mutex_unlock(&self.lock)
        return i

    def close(self, int number):
        """The socket may be closed after this; the figures stay until the lane is taken again."""
        cdef Lane* lane = self.lane_of(number)
        with nogil:
            pthread_mutex_lock(&self.lock)
        lane.is_open = False
        pthread_mutex_unlock(&self.lock)

    cdef Lane* lane_of(self, int number) except NULL:
        if not 0 <= number < self.capacity:
            raise IndexError(number)
        return &self.lanes[number]

    def figures(self, int number):
        cdef Lane* lane = self.lane_of(number)
        with nogil:
            pthread_mutex_lock(&self.lock)
        try:
            return {
                "packets": lane.packets,
                "bytes": lane.octets,
                "unsent": lane.unsent,
                "refused": lane.refused,
                "pieces": lane.whole,
                "first_at": lane.first_at or None,
                "key_at": lane.key_at or None,
                "error": lane.error,
            }
        finally:
            pthread_mutex_unlock(&self.lock)

    def worst_lateness(self):
        """(seconds that the worst slot since the last question came late, slots so far, late ones of them)."""
        worst, self.lateness = self.lateness, 0.0
        return worst, self.slots, self.late_slots

    # --- in the thread ---

    cdef void run_loop(self) noexcept nogil:
        cdef double planned = gbgw_now(), moment
        cdef int i
        while not self.stopping:
            pthread_mutex_lock(&self.lock)
            moment = gbgw_now()
            for i in range(self.top):
                if self.lanes[i].is_open and self.lanes[i].due <= moment:
                    self.serve(&self.lanes[i], moment)
            pthread_mutex_unlock(&self.lock)
            self.slots += 1
            planned += self.slot_seconds
            moment = gbgw_now()
            if moment > planned:
                # No slot is made up for; each lane knows itself what is due. The pause gives the lock to who waits for it:
                # a mutex that is taken again at once is never had by another thread.
                planned = moment
                gbgw_sleep_until(moment + self.slot_seconds / 10)
            else:
                gbgw_sleep_until(planned)
                moment = gbgw_now()
            if moment - planned > self.lateness:
                self.lateness = moment - planned
            if moment - planned > self.slot_seconds:
                self.late_slots += 1

    cdef void serve(self, Lane* lane, double moment) noexcept nogil:
        """Send all that is due of one lane."""
        cdef iovec* vectors = <iovec*>self.vectors
        cdef const Piece* piece
        cdef const uint8_t* payload
        cdef uint8_t* head
        cdef int count, length
        cdef bint key_done
        cdef double at
        while lane.is_open and lane.due <= moment:
            count = 0
            key_done = False
            while count < BATCH and lane.due <= moment:
                piece = &self.content.pieces[lane.piece]
                head = self.heads + count * FRAMED_BYTES
                length = self.content.write(
                    head + 2, self.copies + count * self.stride, piece, lane.round, lane.packet, lane.number, lane.ssrc, &payload
                )
                put16(head, <uint32_t>(length + HEADER_BYTES))
                vectors[2 * count].iov_base = head + 2
                vectors[2 * count].iov_len = HEADER_BYTES
                vectors[2 * count + 1].iov_base = <void*>payload
                vectors[2 * count + 1].iov_len = <size_t>length
                self.lengths[count] = length + HEADER_BYTES
                count += 1
                lane.number += 1
                lane.packet += 1
                lane.due += self.line_seconds
                if lane.packet == piece.packets:
                    key_done = key_done or piece.is_key
                    lane.whole += 1
                    lane.packet = 0
                    lane.piece += 1
                    if lane.piece == self.content.count:
                        lane.piece = 0
                        lane.round += 1
                    at = lane.start + (lane.round * self.content.duration + self.content.pieces[lane.piece].at) / 90000.0
                    lane.due = max(at, lane.due)
                    if key_done and lane.key_at == 0.0:
                        break  # so that its time is taken right behind it
            if lane.tcp:
                self.flush_stream(lane, count)
            else:
                self.flush_datagrams(lane, count)
            if lane.first_at == 0.0 and lane.packets:
                lane.first_at = moment
            if key_done and lane.key_at == 0.0:
                lane.key_at = gbgw_now()

    cdef void flush_datagrams(self, Lane* lane, int count) noexcept nogil:
        cdef iovec* vectors = <iovec*>self.vectors
        cdef mmsghdr* messages = <mmsghdr*>self.messages
        cdef int[BATCH] runs
        cdef int at = 0, made = 0, run, total, done = 0, taken, i, j, attempts = 0
        while at < count:
            run = 1
            total = self.lengths[at]
            while (
                lane.segments and at + run < count and self.lengths[at + run - 1] == self.lengths[at]
                and self.lengths[at + run] <= self.lengths[at] and total + self.lengths[at + run] <= DATAGRAM_BYTES
            ):
                total += self.lengths[at + run]
                run += 1
            gbgw_outgoing(
                messages + made, vectors + 2 * at, 2 * run, self.controls + made * GBGW_CONTROL_BYTES, self.lengths[at] if run > 1 else 0
            )
            runs[made] = run
            made += 1
            at += run
        at = 0
        while done < made:
            taken = sendmmsg(lane.fd, messages + done, <unsigned int>(made - done), MSG_DONTWAIT)
            if taken < 0:
                attempts += 1
                if errno == ECONNREFUSED:
                    lane.refused += 1
                if errno in (ECONNREFUSED, EINTR) and attempts < 8:
                    continue
                lane.error = errno
                for i in range(done, made):
                    lane.unsent += runs[i]
                return
            for i in range(done, done + taken):
                for j in range(runs[i]):
                    lane.packets += 1
                    lane.octets += self.lengths[at]
                    at += 1
            done += taken

    cdef void flush_stream(self, Lane* lane, int count) noexcept nogil:
        cdef iovec* vectors = <iovec*>self.vectors
        cdef int i
        cdef ssize_t taken
        cdef uint8_t* p
        for i in range(count):
            if lane.pending_length + self.lengths[i] + 2 > PENDING:
                lane.unsent += 1
                continue
            p = lane.pending + lane.pending_length
            memcpy(p, <uint8_t*>vectors[2 * i].iov_base - 2, FRAMED_BYTES)
            memcpy(p + FRAMED_BYTES, vectors[2 * i + 1].iov_base, vectors[2 * i + 1].iov_len)
            lane.pending_length += self.lengths[i] + 2
            lane.packets += 1
            lane.octets += self.lengths[i]
        taken = c_send(lane.fd, lane.pending, <size_t>lane.pending_length, MSG_DONTWAIT | MSG_NOSIGNAL)
        if taken < 0:
            if errno != EAGAIN and errno != EINTR:
                lane.error = errno
                lane.is_open = False
            return
        lane.pending_length -= taken
        if lane.pending_length:
            memmove(lane.pending, lane.pending + taken, <size_t>lane.pending_length)


cdef int make_poller(int* poller, int* stop_fd, int* told_fd) except -1:
    cdef epoll_event event
    poller[0] = epoll_create1(EPOLL_CLOEXEC)
    stop_fd[0] = c_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    told_fd[0] = c_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if poller[0] < 0 or stop_fd[0] < 0 or told_fd[0] < 0:
        raise OSError(errno, "cannot make the descriptors of a load thread")
    event.events = EPOLLIN
    event.data.u64 = STOP
    if epoll_ctl(poller[0], EPOLL_CTL_ADD, stop_fd[0], &event):
        raise OSError(errno, "cannot watch the descriptor that stops a load thread")
    return 0


cdef void close_poller(int* poller, int* stop_fd, int* told_fd) noexcept nogil:
    if poller[0] >= 0:
        c_close(poller[0])
    if stop_fd[0] >= 0:
        c_close(stop_fd[0])
    if told_fd[0] >= 0:
        c_close(told_fd[0])
    poller[0] = stop_fd[0] = told_fd[0] = -1


cdef void ring(int fd) noexcept nogil:
    cdef uint64_t one = 1
    c_write(fd, &one, sizeof(one))


cdef void silence(int fd) noexcept nogil:
    cdef uint64_t told
    c_read(fd, &told, sizeof(told))


@cython.final
@cython.auto_pickle(False)
cdef class Drain:
    def __cinit__(self, *, int capacity=limits.BENCH_VIEWERS, double tick_seconds=0.005):
        if capacity < 1 or not 0.0 <= tick_seconds <= 1.0:
            raise ValueError("capacity must be positive, tick_seconds 0..1")
        self.poller = self.stop_fd = self.told_fd = -1
        if pthread_mutex_init(&self.lock, NULL):
            raise MemoryError
        self.lockable = True
        self.capacity = capacity
        self.tick_seconds = tick_seconds
        self.taps = <Tap*>calloc(<size_t>capacity, sizeof(Tap))
        self.buffer = <uint8_t*>malloc(READ_BYTES)
        if self.taps == NULL or self.buffer == NULL:
            raise MemoryError
        make_poller(&self.poller, &self.stop_fd, &self.told_fd)

    def __dealloc__(self):
        cdef int i
        close_poller(&self.poller, &self.stop_fd, &self.told_fd)
        if self.taps != NULL:
            for i in range(self.capacity):
                free(self.taps[i].head)
        free(self.taps)
        free(self.buffer)
        if self.lockable:
            pthread_mutex_destroy(&self.lock)

    @property
    def news_fd(self):
        """Readable when a viewer got its first key frame or ended; `heard` makes it quiet again."""
        return self.told_fd

    def heard(self):
        silence(self.told_fd)

    def run(self):
        with nogil:
            self.run_loop()

    def stop(self):
        self.stopping = True
        ring(self.stop_fd)

    def open(self, int fd, *, bint whole=False):
        cdef int i
        cdef Tap* tap
        cdef epoll_event event
        pthread_mutex_lock(&self.lock)
        try:
            for i in range(self.capacity):
                if self.taps[i].state == T_FREE:
                    break
            else:
                raise OverflowError(f"all {self.capacity} places are taken")
            tap = &self.taps[i]
            memset(tap, 0, sizeof(Tap))
            tap.head = <uint8_t*>malloc(HEAD_BYTES)
            if tap.head == NULL:
                raise MemoryError
            tap.fd, tap.whole, tap.state = fd, whole, T_HEAD
            tap.asked_at = gbgw_now()
            self.top = max(self.top, i + 1)
        finally:
            pthread_mutex_unlock(&self.lock)
        event.events = EPOLLIN
        event.data.u64 = <uint64_t>i
        if epoll_ctl(self.poller, EPOLL_CTL_ADD, fd, &event):
            reason = errno
            tap.state = T_FREE
            raise OSError(reason, "cannot watch the connection")
        return i

    def close(self, int number):
        """The connection may be closed after this; its place is free."""
        cdef Tap* tap = self.tap_of(number)
        with nogil:
            pthread_mutex_lock(&self.lock)
        if tap.state != T_FREE and tap.state != T_ENDED:
            epoll_ctl(self.poller, EPOLL_CTL_DEL, tap.fd, NULL)
        free(tap.head)
        tap.head = NULL
        tap.state = T_FREE
        pthread_mutex_unlock(&self.lock)

    cdef Tap* tap_of(self, int number) except NULL:
        if not 0 <= number < self.capacity:
            raise IndexError(number)
        return &self.taps[number]

    def figures(self, int number):
        cdef Tap* tap = self.tap_of(number)
        with nogil:
            pthread_mutex_lock(&self.lock)
        try:
            return {
                "status": tap.status,
                "bytes": tap.octets,
                "tags": tap.tags,
                "pictures": tap.pictures,
                "keys": tap.keys,
                "asked_at": tap.asked_at,
                "head_at": tap.head_at or None,
                "key_at": tap.key_at or None,
                "ended_at": tap.ended_at or None,
            }
        finally:
            pthread_mutex_unlock(&self.lock)

    # --- in the thread ---

    cdef void run_loop(self) noexcept nogil:
        cdef epoll_event[POLLED] events
        cdef int count, i
        cdef Tap* tap
        cdef double moment
        while not self.stopping:
            count = epoll_wait(self.poller, events, POLLED, POLL_MILLISECONDS)
            if count < 0:
                if errno == EINTR:
                    continue
                return
            moment = gbgw_now()
            pthread_mutex_lock(&self.lock)
            for i in range(count):
                if events[i].data.u64 != STOP:
                    tap = &self.taps[events[i].data.u64]
                    if tap.state != T_FREE and tap.state != T_ENDED:
                        self.serve(tap, moment)
            pthread_mutex_unlock(&self.lock)
            if count and count < POLLED and self.tick_seconds > 0.0:
                gbgw_sleep_until(moment + self.tick_seconds)

    cdef void finish(self, Tap* tap, double moment) noexcept nogil:
        epoll_ctl(self.poller, EPOLL_CTL_DEL, tap.fd, NULL)
        tap.ended_at = moment
        tap.state = T_ENDED
        ring(self.told_fd)

    cdef void serve(self, Tap* tap, double moment) noexcept nogil:
        cdef ssize_t length
        cdef Py_ssize_t used = 0
        if tap.state == T_DRAINING:
            length = c_recv(tap.fd, self.buffer, READ_BYTES, MSG_TRUNC | MSG_DONTWAIT)  # TCP: thrown away uncopied
        else:
            length = c_recv(tap.fd, self.buffer, READ_BYTES, MSG_DONTWAIT)
        if length < 0:
            if errno != EAGAIN and errno != EINTR:
                self.finish(tap, moment)
            return
        if length == 0:
            self.finish(tap, moment)
            return
        if tap.state == T_DRAINING:
            tap.octets += length
            return
        if tap.state == T_HEAD and not self.take_head(tap, self.buffer, length, &used, moment):
            return
        if tap.state == T_READING and used < length:
            self.take_body(tap, self.buffer + used, length - used, moment)

    cdef bint take_head(self, Tap* tap, const uint8_t* data, Py_ssize_t length, Py_ssize_t* used, double moment) noexcept nogil:
        """True once the HTTP head is over; `used` is what of `data` belonged to it."""
        cdef Py_ssize_t i
        for i in range(length):
            if tap.head_length == HEAD_BYTES:
                self.finish(tap, moment)
                return False
            tap.head[tap.head_length] = data[i]
            tap.head_length += 1
            if (
                tap.head_length >= 4 and data[i] == 10 and tap.head[tap.head_length - 2] == 13
                and tap.head[tap.head_length - 3] == 10 and tap.head[tap.head_length - 4] == 13
            ):
                used[0] = i + 1
                break
        else:
            return False
        tap.head_at = moment
        if tap.head_length > 12 and gbgw_find(tap.head, 5, b"HTTP/") == 0:
            tap.status = (tap.head[9] - 48) * 100 + (tap.head[10] - 48) * 10 + tap.head[11] - 48
        tap.chunked = gbgw_find(tap.head, tap.head_length, b"\r\ntransfer-encoding: chunked") >= 0
        if tap.status != 200:
            self.finish(tap, moment)
            return False
        tap.state = T_READING
        tap.skip = 13
        return True

    cdef void take_body(self, Tap* tap, const uint8_t* data, Py_ssize_t length, double moment) noexcept nogil:
        """Take chunks apart, where there are any (RFC 9112 section 7.1)."""
        cdef Py_ssize_t at = 0, piece
        cdef uint8_t c
        if not tap.chunked:
            self.take_flv(tap, data, length, moment)
            return
        while at < length:
            if tap.chunk_left > 0:
                piece = <Py_ssize_t>min(tap.chunk_left, <int64_t>(length - at))
                self.take_flv(tap, data + at, piece, moment)
                tap.chunk_left -= piece
                at += piece
                if tap.state == T_DRAINING:
                    tap.octets += length - at  # from here on with the lines between
                    return
                continue
            c = data[at]
            at += 1
            if c == 10:
                if tap.chunk_state > 0:
                    tap.chunk_left = tap.chunk_state - 1
                    tap.chunk_state = 0
            elif 48 <= c <= 57:
                tap.chunk_state = (max(tap.chunk_state, 1) - 1) * 16 + c - 48 + 1
            elif 97 <= (c | 32) <= 102:
                tap.chunk_state = (max(tap.chunk_state, 1) - 1) * 16 + (c | 32) - 87 + 1

    cdef void take_flv(self, Tap* tap, const uint8_t* data, Py_ssize_t length, double moment) noexcept nogil:
        """Follow the tags (Adobe FLV 10.1, Annex E) up to the end of the first key frame, or for ever where `whole`."""
        cdef Py_ssize_t at = 0, piece
        cdef int wanted
        cdef int64_t size
        tap.octets += length
        while at < length:
            if tap.skip > 0:
                piece = <Py_ssize_t>min(tap.skip, <int64_t>(length - at))
                tap.skip -= piece
                at += piece
                if tap.skip == 0 and tap.is_key:
                    tap.is_key = False
                    tap.keys += 1
                    if tap.key_at == 0.0:
                        tap.key_at = moment
                        ring(self.told_fd)
                    if not tap.whole:
                        tap.state = T_DRAINING
                        return
                continue
            # 11 bytes of a tag's head, and two of its body where it is a picture
            tap.tag[tap.have] = data[at]
            tap.have += 1
            at += 1
            if tap.have < 11:
                continue
            size = <int64_t>tap.tag[1] << 16 | <int64_t>tap.tag[2] << 8 | tap.tag[3]
            wanted = 13 if (tap.tag[0] & 0x1F) == 9 and size >= 2 else 11
            if tap.have < wanted:
                continue
            tap.skip = size + 4 - (wanted - 11)
            tap.have = 0
            tap.tags += 1
            if wanted == 13 and is_picture(tap.tag[11], tap.tag[12]):
                tap.pictures += 1
                tap.is_key = (tap.tag[11] >> 4 & 7) == 1


cdef bint is_picture(uint8_t first, uint8_t second) noexcept nogil:
    """Coded pictures, not sequence headers: AVCPacketType 1, or CodedFrames and CodedFramesX of enhanced RTMP."""
    if first & 0x80:
        return (first & 0x0F) == 1 or (first & 0x0F) == 3
    return second == 1 or (first & 0x0F) not in (7, 12)


@cython.final
@cython.auto_pickle(False)
cdef class Ears:
    def __cinit__(self, *, int capacity=limits.BENCH_VIEWERS, double tick_seconds=0.005):
        if capacity < 1 or not 0.0 <= tick_seconds <= 1.0:
            raise ValueError("capacity must be positive, tick_seconds 0..1")
        self.poller = self.stop_fd = self.told_fd = -1
        if pthread_mutex_init(&self.lock, NULL):
            raise MemoryError
        self.lockable = True
        self.capacity = capacity
        self.tick_seconds = tick_seconds
        self.ears = <Ear*>calloc(<size_t>capacity, sizeof(Ear))
        self.buffers = <uint8_t*>malloc(BATCH * EAR_BYTES)
        self.vectors = calloc(BATCH, sizeof(iovec))
        self.messages = calloc(BATCH, sizeof(mmsghdr))
        if self.ears == NULL or self.buffers == NULL or self.vectors == NULL or self.messages == NULL:
            raise MemoryError
        for i in range(capacity):
            self.ears[i].fd = -1
        make_poller(&self.poller, &self.stop_fd, &self.told_fd)

    def __dealloc__(self):
        cdef int i
        close_poller(&self.poller, &self.stop_fd, &self.told_fd)
        if self.ears != NULL:
            for i in range(self.capacity):
                free(self.ears[i].queue)
                free(self.ears[i].lengths)
        free(self.ears)
        free(self.buffers)
        free(self.vectors)
        free(self.messages)
        if self.lockable:
            pthread_mutex_destroy(&self.lock)

    @property
    def news_fd(self):
        """Readable when a datagram that is no RTP waits in `take`; `heard` makes it quiet again."""
        return self.told_fd

    def heard(self):
        silence(self.told_fd)

    def run(self):
        with nogil:
            self.run_loop()

    def stop(self):
        self.stopping = True
        ring(self.stop_fd)

    def open(self, int fd):
        cdef int i
        cdef Ear* ear
        cdef epoll_event event
        with nogil:
            pthread_mutex_lock(&self.lock)
        try:
            for i in range(self.capacity):
                if self.ears[i].fd < 0:
                    break
            else:
                raise OverflowError(f"all {self.capacity} places are taken")
            ear = &self.ears[i]
            free(ear.queue)
            free(ear.lengths)
            memset(ear, 0, sizeof(Ear))
            ear.fd = -1
            ear.queue = <uint8_t*>malloc(QUEUED * EAR_BYTES)
            ear.lengths = <int*>calloc(QUEUED, sizeof(int))
            if ear.queue == NULL or ear.lengths == NULL:
                raise MemoryError
            event.events = EPOLLIN
            event.data.u64 = <uint64_t>i
            if epoll_ctl(self.poller, EPOLL_CTL_ADD, fd, &event):
                raise OSError(errno, "cannot watch the socket")
            ear.fd = fd
            self.top = max(self.top, i + 1)
        finally:
            pthread_mutex_unlock(&self.lock)
        return i

    def close(self, int number):
        """The socket may be closed after this."""
        cdef Ear* ear = self.ear_of(number)
        with nogil:
            pthread_mutex_lock(&self.lock)
        if ear.fd >= 0:
            epoll_ctl(self.poller, EPOLL_CTL_DEL, ear.fd, NULL)
            ear.fd = -1
        pthread_mutex_unlock(&self.lock)

    cdef Ear* ear_of(self, int number) except NULL:
        if not 0 <= number < self.capacity:
            raise IndexError(number)
        return &self.ears[number]

    def waiting(self):
        """Numbers of those for whom `take` has something."""
        cdef int i
        with nogil:
            pthread_mutex_lock(&self.lock)
        try:
            return [i for i in range(self.top) if self.ears[i].fd >= 0 and self.ears[i].waiting]
        finally:
            pthread_mutex_unlock(&self.lock)

    def take(self, int number):
        """Datagrams that are no RTP, oldest first."""
        cdef Ear* ear = self.ear_of(number)
        cdef int i
        with nogil:
            pthread_mutex_lock(&self.lock)
        try:
            out = [PyBytes_FromStringAndSize(<const char*>ear.queue + i * EAR_BYTES, ear.lengths[i]) for i in range(ear.waiting)]
            ear.waiting = 0
            return out
        finally:
            pthread_mutex_unlock(&self.lock)

    def figures(self, int number):
        cdef Ear* ear = self.ear_of(number)
        cdef Flow* flow
        cdef int i
        with nogil:
            pthread_mutex_lock(&self.lock)
        try:
            flows = []
            for i in range(ear.flow_count):
                flow = &ear.flows[i]
                flows.append(
                    {
                        "ssrc": flow.ssrc,
                        "packets": flow.received,
                        "lost": flow.highest - flow.first + 1 - flow.received,
                        "markers": flow.markers,
                        "highest": flow.highest,
                        "longest_gap": flow.longest_gap,
                    }
                )
            return {
                "packets": ear.packets,
                "bytes": ear.octets,
                "others": ear.others,
                "first_at": ear.first_at or None,
                "picture_at": ear.picture_at or None,
                "flows": flows,
            }
        finally:
            pthread_mutex_unlock(&self.lock)

    def forget_gaps(self, int number):
        cdef Ear* ear = self.ear_of(number)
        cdef int i
        with nogil:
            pthread_mutex_lock(&self.lock)
        for i in range(ear.flow_count):
            ear.flows[i].longest_gap = 0.0
        pthread_mutex_unlock(&self.lock)

    # --- in the thread ---

    cdef void run_loop(self) noexcept nogil:
        cdef epoll_event[POLLED] events
        cdef int count, i
        cdef double moment
        while not self.stopping:
            count = epoll_wait(self.poller, events, POLLED, POLL_MILLISECONDS)
            if count < 0:
                if errno == EINTR:
                    continue
                return
            moment = gbgw_now()
            pthread_mutex_lock(&self.lock)
            for i in range(count):
                if events[i].data.u64 != STOP and self.ears[events[i].data.u64].fd >= 0:
                    self.serve(&self.ears[events[i].data.u64], moment)
            pthread_mutex_unlock(&self.lock)
            if count and count < POLLED and self.tick_seconds > 0.0:
                gbgw_sleep_until(moment + self.tick_seconds)

    cdef void serve(self, Ear* ear, double moment) noexcept nogil:
        cdef iovec* vectors = <iovec*>self.vectors
        cdef mmsghdr* messages = <mmsghdr*>self.messages
        cdef int i, count
        for i in range(BATCH):
            gbgw_incoming(&messages[i], &vectors[i], self.buffers + i * EAR_BYTES, EAR_BYTES)
        count = recvmmsg(ear.fd, messages, BATCH, MSG_DONTWAIT, NULL)
        for i in range(count):
            self.hear(ear, self.buffers + i * EAR_BYTES, messages[i].msg_len, moment)

    cdef void hear(self, Ear* ear, const uint8_t* data, Py_ssize_t length, double moment) noexcept nogil:
        cdef uint32_t ssrc
        cdef int64_t number
        cdef Flow* flow
        cdef int i
        if length < 12 or data[0] >> 6 != 2 or 192 <= data[1] <= 223:  # RFC 5761 section 4
            if ear.waiting < QUEUED:
                memcpy(ear.queue + ear.waiting * EAR_BYTES, data, <size_t>length)
                ear.lengths[ear.waiting] = <int>length
                ear.waiting += 1
                ring(self.told_fd)
            else:
                ear.others += 1
            return
        ear.packets += 1
        ear.octets += length
        if ear.first_at == 0.0:
            ear.first_at = moment
        ssrc = <uint32_t>data[8] << 24 | <uint32_t>data[9] << 16 | <uint32_t>data[10] << 8 | data[11]
        number = <int64_t>data[2] << 8 | data[3]
        for i in range(ear.flow_count):
            if ear.flows[i].ssrc == ssrc:
                break
        else:
            if ear.flow_count == 4:
                ear.others += 1
                return
            i = ear.flow_count
            ear.flow_count += 1
            ear.flows[i].ssrc = ssrc
            ear.flows[i].first = ear.flows[i].highest = number + 65536
        flow = &ear.flows[i]
        # the extended number nearest to the highest so far (RFC 3550 appendix A.1)
        number += flow.highest & ~<int64_t>0xFFFF
        if number - flow.highest > 32768:
            number -= 65536
        elif flow.highest - number > 32768:
            number += 65536
        flow.highest = max(flow.highest, number)
        flow.first = min(flow.first, number)
        flow.received += 1
        if data[1] & 0x80:
            flow.markers += 1
            if flow.marked_at > 0.0:
                flow.longest_gap = max(flow.longest_gap, moment - flow.marked_at)
            flow.marked_at = moment
            if ear.picture_at == 0.0:
                ear.picture_at = moment
