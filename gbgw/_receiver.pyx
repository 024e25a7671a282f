# cython: language_level=3, binding=True, embedsignature=True
# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True
"""Receive core: from the kernel's datagrams to access units, in one thread without the GIL (architecture decision 2).

A Fold is the way of one stream: order, demultiplexer, and what of it the event loop must hear of. It is sans-IO, and TCP
feeds it on the loop's own thread. An Inlet is a UDP socket before a Fold, or a share of a Trunk, the one socket of all streams; the ReceiveThread reads all of them with one epoll
and recvmmsg, a tick at a time, so that each turn takes a whole picture's packets. The thread knows the one source that an
Inlet follows; datagrams of anybody else are put before Python, which decides whom to follow.
Leaves out: framing of TCP (_rtp.Framer), RTCP, the choice of the source (net.source).
"""

import socket

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EINTR, errno
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from gbgw._ps cimport Demuxer, Finished, make_units
from gbgw._rtp cimport JitterBuffer, Packet

from gbgw.base import limits


cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <pthread.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/socket.h>
    #include <time.h>
    #include <unistd.h>

    static double gbgw_now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    }

    /* For figures that the thread and the loop change without a lock in common. */
    static long long gbgw_add(int64_t *to, int64_t what) {
        return __atomic_add_fetch(to, what, __ATOMIC_RELAXED);
    }

    static long long gbgw_read(const int64_t *from) {
        return __atomic_load_n(from, __ATOMIC_RELAXED);
    }

    static void gbgw_sleep_until(double at) {
        struct timespec t;
        t.tv_sec = (time_t)at;
        t.tv_nsec = (long)((at - (double)t.tv_sec) * 1e9);
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
        }
    }

    /* The address as 16 bytes: IPv6, or IPv4 mapped into it (RFC 4291 section 2.5.5.2). */
    static void gbgw_host(const struct sockaddr_storage *address, unsigned char *out) {
        if (address->ss_family == AF_INET6) {
            memcpy(out, &((const struct sockaddr_in6 *)address)->sin6_addr, 16);
        } else {
            memset(out, 0, 10);
            memset(out + 10, 0xFF, 2);
            memcpy(out + 12, &((const struct sockaddr_in *)address)->sin_addr, 4);
        }
    }

    static int gbgw_port(const struct sockaddr_storage *address) {
        return ntohs(address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                                    : ((const struct sockaddr_in *)address)->sin_port);
    }

    static void gbgw_address(struct sockaddr_storage *out, const unsigned char *host, int port) {
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
        memset(out, 0, sizeof(*out));
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        memcpy(&six->sin6_addr, host, 16);
    }

    static int gbgw_same(const struct sockaddr_storage *a, const struct sockaddr_storage *b) {
        unsigned char x[16], y[16];
        gbgw_host(a, x);
        gbgw_host(b, y);
        return gbgw_port(a) == gbgw_port(b) && memcmp(x, y, 16) == 0;
    }

    static void gbgw_prepare(struct mmsghdr *m, struct iovec *v, void *data, size_t length, struct sockaddr_storage *address) {
        memset(m, 0, sizeof(*m));
        v->iov_base = data;
        v->iov_len = length;
        m->msg_hdr.msg_iov = v;
        m->msg_hdr.msg_iovlen = 1;
        m->msg_hdr.msg_name = address;
        m->msg_hdr.msg_namelen = sizeof(*address);
    }
    """
    int pthread_mutex_init(pthread_mutex_t* mutex, void* attributes) nogil
    int pthread_mutex_destroy(pthread_mutex_t* mutex) nogil
    int pthread_mutex_lock(pthread_mutex_t* mutex) nogil
    int pthread_mutex_unlock(pthread_mutex_t* mutex) nogil
    cdef struct iovec:
        pass
    cdef struct mmsghdr:
        unsigned int msg_len
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLLIN, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CLOEXEC, EFD_NONBLOCK, EFD_CLOEXEC, MSG_DONTWAIT
    int epoll_create1(int flags) nogil
    int epoll_ctl(int poller, int operation, int fd, epoll_event* event) nogil
    int epoll_wait(int poller, epoll_event* events, int count, int milliseconds) nogil
    int c_eventfd "eventfd"(unsigned int value, int flags) nogil
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, void* timeout) nogil
    ssize_t c_write "write"(int fd, const void* data, size_t length) nogil
    ssize_t c_read "read"(int fd, void* data, size_t length) nogil
    int c_close "close"(int fd) nogil
    double gbgw_now() nogil
    int64_t gbgw_add(int64_t* to, int64_t what) nogil
    int64_t gbgw_read(const int64_t* source) nogil
    void gbgw_sleep_until(double at) nogil
    void gbgw_host(const sockaddr_storage* address, unsigned char* out) nogil
    int gbgw_port(const sockaddr_storage* address) nogil
    void gbgw_address(sockaddr_storage* out, const unsigned char* host, int port) nogil
    int gbgw_same(const sockaddr_storage* a, const sockaddr_storage* b) nogil
    void gbgw_prepare(mmsghdr* m, iovec* v, void* data, size_t length, sockaddr_storage* address) nogil


cdef enum Kind:
    K_FIRST_PACKET = 1
    K_PROGRAM
    K_LOST
    K_UNIT

cdef enum:
    BATCH = 64  # datagrams read in one call
    ROUNDS = 8  # of one socket before the next has its turn
    DATAGRAM_BYTES = 65536
    STRIDE = 65536 + 64 * 33  # slots must not share the cache's sets
    POLLED = 256
    FOREIGN = 64  # datagrams of others that wait for Python
    HEADS = 64
    HEAD_BYTES = 16
    HOSTS = 8
    SLACK_ROWS = 64
    IDLE_MILLISECONDS = 100  # the longest sleep: another thread may bring a deadline
    STOP = 0x7FFFFFFF
    TRUNK = 0x40000000  # and its number
    TRUNKS = 4  # of one thread: an address family each is two
    TRUNK_ROUNDS = 64  # of a trunk in one turn: 4,096 datagrams, 11 Gbit/s
    UNKNOWN = 512  # datagrams of unknown SSRC that wait for Python: the first key frame of a camera with its own
    UNKNOWN_BYTES = 1048576
    UNKNOWN_HZ = 10000  # in the long run: what a flood may cost the loop, some 3 % of it
    STREAM_ID_VIDEO = 0xE0

FIRST_PACKET = K_FIRST_PACKET
PROGRAM = K_PROGRAM
LOST = K_LOST
UNIT = K_UNIT


@cython.final
@cython.auto_pickle(False)
cdef class Backlog:
    def __cinit__(self, int64_t max_bytes):
        self.max_bytes = max_bytes


@cython.final
@cython.no_gc
@cython.freelist(256)
@cython.auto_pickle(False)
cdef class Event:
    def __init__(self):
        raise TypeError("Event objects are made by Fold.take()")

    def __repr__(self):
        return f"Event(kind={self.kind}, at={self.at}, unit={self.unit!r}, timestamp={self.timestamp})"


@cython.final
@cython.auto_pickle(False)
cdef class Fold:
    def __cinit__(
        self, ssrc=None, mode="adopt", *, int max_packets=limits.REORDER_PACKETS, double max_seconds=limits.REORDER_SECONDS,
        Py_ssize_t max_bytes=limits.REORDER_BYTES, Py_ssize_t max_unit_bytes=limits.ACCESS_UNIT_BYTES,
        double silence_seconds=limits.UNIT_SILENCE_SECONDS, Py_ssize_t max_waiting_bytes=limits.WAITING_UNIT_BYTES,
    ):
        if pthread_mutex_init(&self.lock, NULL):
            raise MemoryError
        self.lockable = True
        self.jitter = JitterBuffer(ssrc, mode, max_packets=max_packets, max_seconds=max_seconds, max_bytes=max_bytes)
        self.demuxer = Demuxer(max_unit_bytes=max_unit_bytes, silence_seconds=silence_seconds)
        self.max_waiting_bytes = max_waiting_bytes
        self.backlog = Backlog(limits.WAITING_BYTES)
        self.max_heads = min(limits.PAYLOAD_SAMPLES, HEADS)

    def __dealloc__(self):
        free(self.rows)
        if self.backlog is not None:
            gbgw_add(&self.backlog.bytes, -self.waiting_bytes)
        if self.lockable:
            pthread_mutex_destroy(&self.lock)

    # --- in ---

    def push(self, bytes datagram not None, double now):
        pthread_mutex_lock(&self.lock)
        self.take(datagram, len(datagram), now)
        pthread_mutex_unlock(&self.lock)

    def poll(self, double now):
        pthread_mutex_lock(&self.lock)
        self.wait(now)
        pthread_mutex_unlock(&self.lock)

    def close(self, double now):
        """Push out what is complete; nothing is taken any more."""
        pthread_mutex_lock(&self.lock)
        if not self.closed:
            self.jitter.drop_rivals()
            while self.jitter.held_count:
                self.jitter.skip_hole()
            self.pass_on(now)
            self.demuxer.finish()
            self.note_units(now, self.has_timestamp, self.timestamp)
            self.closed = True
        pthread_mutex_unlock(&self.lock)

    # --- out ---

    def events(self):
        """Take what has happened since the last time, oldest first."""
        cdef Row* rows
        cdef Finished* finished
        cdef Py_ssize_t count, units, i, at = 0
        cdef Event event
        cdef list made
        if self.row_count == 0:  # may be told a turn later; the thread signals again
            return ()
        pthread_mutex_lock(&self.lock)
        rows, count, units = self.rows, self.row_count, self.waiting
        finished = self.demuxer.finished
        self.rows = NULL
        self.row_count = self.row_capacity = 0
        self.demuxer.finished = NULL
        self.demuxer.finished_count = self.demuxer.finished_capacity = 0
        gbgw_add(&self.backlog.bytes, -self.waiting_bytes)
        self.waiting = self.waiting_bytes = 0
        pthread_mutex_unlock(&self.lock)
        out = []
        try:
            made = make_units(finished, units)
            for i in range(count):
                event = Event.__new__(Event)
                event.kind = rows[i].kind
                event.at = rows[i].at
                event.timestamp = rows[i].timestamp if rows[i].has_timestamp else None
                if rows[i].kind == K_UNIT:
                    event.unit = made[at]
                    at += 1
                out.append(event)
        finally:
            free(rows)
            free(finished)
        return out

    @property
    def deadline(self):
        cdef double at
        pthread_mutex_lock(&self.lock)
        at = self.due()
        pthread_mutex_unlock(&self.lock)
        return None if at == INFINITY else at

    @property
    def max_seconds(self):
        return self.jitter.patience

    @max_seconds.setter
    def max_seconds(self, double seconds):
        pthread_mutex_lock(&self.lock)
        try:
            self.jitter.max_seconds = seconds
        finally:
            pthread_mutex_unlock(&self.lock)

    @property
    def ssrc(self):
        return self.jitter.ssrc

    @property
    def depth(self):
        return self.jitter.held_count

    @property
    def jitter_seconds(self):
        return self.jitter.jitter_seconds

    @property
    def last_packet_at(self):
        return self.heard_at if self.heard else None

    @property
    def packs(self):
        return self.demuxer.count.packs

    @property
    def maps(self):
        return self.demuxer.count.maps

    @property
    def streams(self):
        pthread_mutex_lock(&self.lock)
        try:
            return self.demuxer.streams
        finally:
            pthread_mutex_unlock(&self.lock)

    @property
    def heads(self):
        cdef Py_ssize_t i
        pthread_mutex_lock(&self.lock)
        try:
            return [
                (
                    self.heads[i].payload_type,
                    PyBytes_FromStringAndSize(<const char*>self.heads[i].data, min(self.heads[i].length, HEAD_BYTES)),
                    self.heads[i].length,
                )
                for i in range(self.head_count)
            ]
        finally:
            pthread_mutex_unlock(&self.lock)

    @property
    def rtp_counts(self):
        return self.jitter.counts

    @property
    def ps_counts(self):
        return self.demuxer.counts

    @property
    def overrun_units(self):
        return self.n_overrun

    @property
    def waiting_bytes(self):
        return self.waiting_bytes

    def sender_report(self, report, double now):
        pthread_mutex_lock(&self.lock)
        try:
            self.jitter.sender_report(report, now)
        finally:
            pthread_mutex_unlock(&self.lock)

    def receiver_report(self, uint32_t reporter_ssrc, double now):
        pthread_mutex_lock(&self.lock)
        try:
            return self.jitter.receiver_report(reporter_ssrc, now)
        finally:
            pthread_mutex_unlock(&self.lock)

    # --- under the lock, without the GIL ---

    cdef void take(self, const uint8_t* base, Py_ssize_t length, double now) noexcept nogil:
        if self.closed:
            return
        self.jitter.take(base, length, now)
        if self.jitter.ready_count:
            self.pass_on(now)

    cdef void wait(self, double now) noexcept nogil:
        if self.closed:
            return
        self.jitter.release_due(now)
        if self.jitter.ready_count:
            self.pass_on(now)
        if self.jitter.held_count == 0:  # what is held behind a hole shows that it is no silence
            self.demuxer.wait(now)
        self.note_units(now, self.has_timestamp, self.timestamp)

    cdef double due(self) noexcept nogil:
        if self.closed:
            return INFINITY
        return self.jitter.due() if self.jitter.held_count else self.demuxer.due()

    cdef void pass_on(self, double now) noexcept nogil:
        """Packets in order into the demultiplexer."""
        cdef Packet* packet
        cdef Py_ssize_t i
        cdef bint had_timestamp
        cdef uint32_t before
        for i in range(self.jitter.ready_count):
            packet = &self.jitter.ready[i]
            self.heard_at = now
            if not self.heard:
                self.heard = True
                self.note(K_FIRST_PACKET, now, False, 0)
            if not self.demuxer.count.packs and self.head_count < self.max_heads and packet.length:
                self.heads[self.head_count].payload_type = packet.header.payload_type
                self.heads[self.head_count].length = packet.length
                memcpy(self.heads[self.head_count].data, packet.payload, <size_t>min(packet.length, HEAD_BYTES))
                self.head_count += 1
            had_timestamp, before = self.has_timestamp, self.timestamp
            self.has_timestamp, self.timestamp = True, packet.header.timestamp
            if packet.lost_before:
                self.demuxer.miss()
                self.note(K_LOST, now, False, 0)
            self.demuxer.take(packet.payload, packet.length, now)
            self.look(now)
            # What this packet's pack header ended came with the packet before.
            self.note_units(now, True, before if had_timestamp else packet.header.timestamp)
            if packet.header.marker:
                self.demuxer.take_mark(now)
                self.note_units(now, True, packet.header.timestamp)
        self.jitter.settle()

    cdef void look(self, double now) noexcept nogil:
        """Tell once that the program stream begins, and of every map."""
        cdef bint begins = self.packs == 0 and self.demuxer.count.packs > 0
        if begins or self.maps != self.demuxer.count.maps:
            if begins:
                self.head_count = 0
            self.note(K_PROGRAM, now, False, 0)
        self.packs = self.demuxer.count.packs
        self.maps = self.demuxer.count.maps

    cdef void note(self, int kind, double at, bint has_timestamp, uint32_t timestamp) noexcept nogil:
        """Without memory an event is lost, and a unit with it."""
        cdef Row* grown
        cdef Py_ssize_t capacity
        if kind != K_UNIT and self.row_count - self.waiting >= SLACK_ROWS:
            return  # these say that something is new; the loop, when it comes, sees all of it
        if self.row_count == self.row_capacity:
            capacity = max(2 * self.row_capacity, 8)
            grown = <Row*>realloc(self.rows, <size_t>capacity * sizeof(Row))
            if grown == NULL:
                if kind == K_UNIT:
                    self.demuxer.finished_count -= 1
                    free(self.demuxer.finished[self.demuxer.finished_count].data)
                return
            self.rows = grown
            self.row_capacity = capacity
        self.rows[self.row_count].kind = kind
        self.rows[self.row_count].at = at
        self.rows[self.row_count].has_timestamp = has_timestamp
        self.rows[self.row_count].timestamp = timestamp
        self.row_count += 1
        if kind == K_UNIT:
            self.waiting += 1

    cdef void note_units(self, double now, bint has_timestamp, uint32_t timestamp) noexcept nogil:
        """Events for units that are new. When the loop is so late that too much waits, units are dropped up to the next
        key frame."""
        cdef Py_ssize_t count = self.demuxer.finished_count, i
        cdef Finished* f
        if count == self.waiting:
            return
        self.demuxer.finished_count = self.waiting
        for i in range(self.waiting, count):
            f = &self.demuxer.finished[i]
            if (
                self.waiting_bytes + f.length > self.max_waiting_bytes or gbgw_read(&self.backlog.bytes) + f.length > self.backlog.max_bytes
            ) and self.waiting:
                if not self.overrun:
                    self.overrun = True
                    self.note(K_LOST, now, False, 0)
            elif (
                self.overrun
                and self.waiting_bytes <= self.max_waiting_bytes // 2
                and (self.waiting == 0 or gbgw_read(&self.backlog.bytes) <= self.backlog.max_bytes // 2)
                and f.is_keyframe
                and (f.track_id >= STREAM_ID_VIDEO or self.demuxer.video_id < 0)  # sound begins anywhere, but behind pictures
            ):
                self.overrun = False
            if self.overrun:
                self.n_overrun += 1
                gbgw_add(&self.backlog.overrun_units, 1)
                free(f.data)
                continue
            self.demuxer.finished[self.demuxer.finished_count] = f[0]
            self.demuxer.finished_count += 1
            self.waiting_bytes += f.length
            gbgw_add(&self.backlog.bytes, f.length)
            self.note(K_UNIT, now, has_timestamp, timestamp)


@cython.final
@cython.auto_pickle(False)
cdef class Inlet:
    def __init__(self):
        raise TypeError("Inlet objects are made by ReceiveThread.open()")

    def __dealloc__(self):
        self.forget()
        free(self.foreign)

    cdef void forget(self) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(self.foreign_count):
            free(self.foreign[i].data)
        self.foreign_count = 0

    def follow(self, str host not None, int port):
        cdef bytes packed = packed_host(host)
        pthread_mutex_lock(&self.fold.lock)
        gbgw_address(&self.source, packed, port)
        self.source_known = True
        pthread_mutex_unlock(&self.fold.lock)

    def expect(self, hosts, ssrc=None):
        cdef bytes packed
        cdef list all_packed = [packed_host(host) for host in hosts][:HOSTS]
        cdef bint knows_ssrc = ssrc is not None
        cdef uint32_t number = ssrc if knows_ssrc else 0
        cdef int i
        pthread_mutex_lock(&self.fold.lock)
        try:
            for i, packed in enumerate(all_packed):
                memcpy(self.hosts[i], <const uint8_t*>packed, 16)
            self.host_count = <int>len(all_packed)
            self.knows_ssrc = knows_ssrc
            self.ssrc = number
        finally:
            pthread_mutex_unlock(&self.fold.lock)

    @property
    def source(self):
        pthread_mutex_lock(&self.fold.lock)
        try:
            return address_of(&self.source) if self.source_known else None
        finally:
            pthread_mutex_unlock(&self.fold.lock)

    def strangers(self):
        cdef Foreign* found
        cdef Py_ssize_t count
        pthread_mutex_lock(&self.fold.lock)
        found, count = self.foreign, self.foreign_count
        self.foreign = NULL
        self.foreign_count = 0
        pthread_mutex_unlock(&self.fold.lock)
        return take_foreign(found, count)

    @property
    def heard(self):
        pthread_mutex_lock(&self.fold.lock)
        try:
            return self.heard_at, PyBytes_FromStringAndSize(<const char*>self.last, 12) if self.heard_at else b""
        finally:
            pthread_mutex_unlock(&self.fold.lock)

    @property
    def news(self):
        return self.n_news

    @property
    def malformed(self):
        return self.n_malformed

    @property
    def flood(self):
        return self.n_flood

    @property
    def refused(self):
        pthread_mutex_lock(&self.fold.lock)
        try:
            return self.n_refused, address_of(&self.refused) if self.was_refused else None
        finally:
            pthread_mutex_unlock(&self.fold.lock)

    def close(self):
        """The socket may be closed after this; what it brought can still be taken."""
        cdef ReceiveThread thread = self.thread
        if self.closed:
            return
        self.closed = True
        if self.trunk is not None:
            self.trunk.leave(self)
        else:
            epoll_ctl(thread.poller, EPOLL_CTL_DEL, self.fd, NULL)
        pthread_mutex_lock(&thread.lock)
        thread.table[self.slot] = NULL
        pthread_mutex_unlock(&thread.lock)
        pthread_mutex_lock(&self.fold.lock)  # the thread may have found it before, and be at work
        self.fd = -1
        pthread_mutex_unlock(&self.fold.lock)
        thread.inlets[self.slot] = None
        thread.free_slots.append(self.slot)

    # --- in the thread, under the lock of the fold ---

    cdef void receive(self, ReceiveThread thread, double now) noexcept nogil:
        """Read what the socket has; what is more than ROUNDS of it waits for the next tick."""
        cdef mmsghdr* messages = <mmsghdr*>thread.messages
        cdef iovec* vectors = <iovec*>thread.vectors
        cdef int count, i, turn
        for turn in range(ROUNDS):
            for i in range(BATCH):
                gbgw_prepare(
                    &messages[i], &vectors[i], thread.buffers + <Py_ssize_t>i * STRIDE, DATAGRAM_BYTES, &thread.addresses[i]
                )
            count = recvmmsg(self.fd, messages, BATCH, MSG_DONTWAIT, NULL)
            if count <= 0:
                return
            thread.n_datagrams += count
            for i in range(count):
                self.datagram(thread.buffers + <Py_ssize_t>i * STRIDE, messages[i].msg_len, &thread.addresses[i], now)
            if count < BATCH:
                return

    cdef void datagram(self, const uint8_t* base, Py_ssize_t length, const sockaddr_storage* address, double now) noexcept nogil:
        cdef Foreign* one
        cdef bint is_rtcp = length >= 2 and 200 <= base[1] <= 204
        if not is_rtcp and (length < 12 or base[0] >> 6 != 2):
            self.n_malformed += 1
            self.n_news += 1
            return
        if not is_rtcp and not self.source_known and self.is_announced(base, address):
            self.source = address[0]
            self.source_known = True
            self.n_news += 1
        if not is_rtcp and self.source_known and gbgw_same(address, &self.source):
            self.heard_at = now
            memcpy(self.last, base, 12)
            self.fold.take(base, length, now)
            return
        self.n_news += 1
        if self.source_known and not self.is_welcome(address):
            self.n_refused += 1
            self.was_refused = True
            self.refused = address[0]
            return
        if self.foreign == NULL:
            self.foreign = <Foreign*>malloc(FOREIGN * sizeof(Foreign))
        if self.foreign == NULL or self.foreign_count == FOREIGN:
            self.n_flood += 1
            return
        if keep_foreign(&self.foreign[self.foreign_count], base, length, address, now):
            self.foreign_count += 1
        else:
            self.n_flood += 1

    cdef bint is_announced(self, const uint8_t* base, const sockaddr_storage* address) noexcept nogil:
        """Is this the camera without a doubt, before any source is followed (net.source)?"""
        cdef uint32_t ssrc = read32(base, 8)
        cdef unsigned char[16] host
        gbgw_host(address, host)
        return self.is_host(host) or (self.knows_ssrc and ssrc == self.ssrc)

    cdef bint is_host(self, const unsigned char* host) noexcept nogil:
        cdef int i
        for i in range(self.host_count):
            if memcmp(host, self.hosts[i], 16) == 0:
                return True
        return False

    cdef bint is_welcome(self, const sockaddr_storage* address) noexcept nogil:
        """Might Python want to follow it: from the host that sends, or one that the camera is known by?"""
        cdef unsigned char[16] host
        cdef unsigned char[16] present
        gbgw_host(address, host)
        gbgw_host(&self.source, present)
        return memcmp(host, present, 16) == 0 or self.is_host(host)


cdef uint32_t read32(const uint8_t* base, int at) noexcept nogil:
    """Of a datagram whose length was looked at."""
    return <uint32_t>base[at] << 24 | <uint32_t>base[at + 1] << 16 | <uint32_t>base[at + 2] << 8 | base[at + 3]


@cython.final
@cython.auto_pickle(False)
cdef class Trunk:
    def __init__(self):
        raise TypeError("Trunk objects are made by ReceiveThread.open_trunk()")

    def __cinit__(self):
        self.fd = self.number = -1
        if pthread_mutex_init(&self.lock, NULL):
            raise MemoryError
        self.lockable = True

    def __dealloc__(self):
        self.forget()
        free(self.unknown)
        free(self.routes)
        free(self.touched)
        free(self.is_touched)
        if self.lockable:
            pthread_mutex_destroy(&self.lock)

    def join(self, Fold fold not None, uint32_t ssrc, object owner=None):
        """A share of this socket: what comes with `ssrc`."""
        cdef Inlet inlet
        if self.fd < 0:
            raise ValueError("the trunk is closed")
        inlet = self.thread.make_inlet(fold, owner)
        inlet.trunk = self
        try:
            self.add(inlet, ssrc)
        except BaseException:
            inlet.close()
            raise
        return inlet

    def route(self, Inlet inlet not None, uint32_t ssrc):
        """Give `inlet` what comes with this SSRC as well."""
        if inlet.trunk is not self or inlet.closed:
            raise ValueError("the inlet is no share of this trunk")
        self.add(inlet, ssrc)

    def unknown_datagrams(self):
        """Take what nobody's SSRC is on: (datagram, (host, port), loop seconds)."""
        cdef Foreign* found
        cdef Py_ssize_t count
        pthread_mutex_lock(&self.lock)
        found, count = self.unknown, self.unknown_count
        self.unknown = NULL
        self.unknown_count = self.unknown_bytes = 0
        pthread_mutex_unlock(&self.lock)
        return take_foreign(found, count)

    @property
    def malformed(self):
        return self.n_malformed

    @property
    def flood(self):
        return self.n_flood

    def __len__(self):
        return self.route_count

    def close(self):
        """The socket may be closed after this. The shares close by themselves."""
        cdef ReceiveThread thread = self.thread
        if self.fd < 0:
            return
        epoll_ctl(thread.poller, EPOLL_CTL_DEL, self.fd, NULL)
        pthread_mutex_lock(&thread.lock)
        thread.trunks[self.number] = NULL
        pthread_mutex_unlock(&thread.lock)
        pthread_mutex_lock(&self.lock)  # the thread may be at work
        self.fd = -1
        pthread_mutex_unlock(&self.lock)
        thread.trunk_list[self.number] = None

    cdef void forget(self) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(self.unknown_count):
            free(self.unknown[i].data)
        self.unknown_count = 0

    cdef Py_ssize_t place(self, uint32_t ssrc) noexcept nogil:
        """Where the route of `ssrc` is or would be."""
        cdef Py_ssize_t low = 0, high = self.route_count, middle
        while low < high:
            middle = (low + high) >> 1
            if self.routes[middle].ssrc < ssrc:
                low = middle + 1
            else:
                high = middle
        return low

    cdef bint add(self, Inlet inlet, uint32_t ssrc) except -1:
        cdef Py_ssize_t at, i
        cdef bint is_taken
        pthread_mutex_lock(&self.lock)
        at = self.place(ssrc)
        is_taken = at < self.route_count and self.routes[at].ssrc == ssrc
        if is_taken or self.route_count == self.route_capacity:
            pthread_mutex_unlock(&self.lock)
            if is_taken:
                raise ValueError(f"SSRC {ssrc} is another stream's")
            raise OverflowError(f"{self.route_capacity} SSRCs share the socket already")
        for i in range(self.route_count, at, -1):
            self.routes[i] = self.routes[i - 1]
        self.routes[at].ssrc = ssrc
        self.routes[at].slot = inlet.slot
        self.routes[at].inlet = <void*>inlet
        self.route_count += 1
        pthread_mutex_unlock(&self.lock)
        return True

    cdef void leave(self, Inlet inlet):
        cdef Py_ssize_t i, kept = 0
        pthread_mutex_lock(&self.lock)
        for i in range(self.route_count):
            if self.routes[i].inlet != <void*>inlet:
                self.routes[kept] = self.routes[i]
                kept += 1
        self.route_count = kept
        pthread_mutex_unlock(&self.lock)

    # --- in the thread, under the lock of the trunk ---

    cdef void datagram(self, const uint8_t* base, Py_ssize_t length, const sockaddr_storage* address, double now) noexcept nogil:
        """By SSRC to its stream, which looks at the source; what has no stream waits for Python, which looks at the source too."""
        cdef bint is_rtcp = length >= 8 and 200 <= base[1] <= 204
        cdef Py_ssize_t at
        cdef Foreign* one
        cdef uint32_t ssrc
        cdef int slot
        if not is_rtcp and (length < 12 or base[0] >> 6 != 2):
            self.n_malformed += 1
            return
        ssrc = read32(base, 4 if is_rtcp else 8)
        at = self.place(ssrc)
        if at < self.route_count and self.routes[at].ssrc == ssrc:
            slot = self.routes[at].slot
            (<give_t>give_datagram)(self.routes[at].inlet, base, length, address, now)
            if not self.is_touched[slot]:
                self.is_touched[slot] = True
                self.touched[self.touched_count] = slot
                self.touched_count += 1
            return
        self.allowance = min(self.allowance + (now - self.allowed_at) * UNKNOWN_HZ, <double>UNKNOWN)
        self.allowed_at = now
        if self.unknown == NULL:
            self.unknown = <Foreign*>malloc(UNKNOWN * sizeof(Foreign))
        if (
            self.allowance < 1.0 or self.unknown == NULL or self.unknown_count == UNKNOWN
            or self.unknown_bytes + length > UNKNOWN_BYTES
        ):
            self.n_flood += 1
            return
        one = &self.unknown[self.unknown_count]
        if keep_foreign(one, base, length, address, now):
            self.allowance -= 1.0
            self.unknown_count += 1
            self.unknown_bytes += length
        else:
            self.n_flood += 1


cdef bint keep_foreign(Foreign* one, const uint8_t* base, Py_ssize_t length, const sockaddr_storage* address, double now) noexcept nogil:
    one.data = <uint8_t*>malloc(<size_t>max(length, 1))
    if one.data == NULL:
        return False
    memcpy(one.data, base, <size_t>length)
    one.length = length
    one.at = now
    one.address = address[0]
    return True


cdef list take_foreign(Foreign* found, Py_ssize_t count):
    """As Python objects; the memory is given back."""
    cdef Py_ssize_t i
    cdef list out = []
    try:
        for i in range(count):
            data = PyBytes_FromStringAndSize(<const char*>found[i].data, found[i].length)
            out.append((data, address_of(&found[i].address), found[i].at))
    finally:
        for i in range(count):
            free(found[i].data)
        free(found)
    return out


cdef bytes packed_host(str host):
    """Of a numeric address, in the form of gbgw_host."""
    name = host.partition("%")[0]
    if ":" in name:
        return socket.inet_pton(socket.AF_INET6, name)
    return bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, name)


cdef tuple address_of(const sockaddr_storage* address):
    cdef unsigned char[16] host
    gbgw_host(address, host)
    packed = PyBytes_FromStringAndSize(<const char*>host, 16)
    if packed.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, packed[12:]), gbgw_port(address)
    return socket.inet_ntop(socket.AF_INET6, packed), gbgw_port(address)


@cython.final
@cython.auto_pickle(False)
cdef class ReceiveThread:
    def __cinit__(self, *, int capacity=limits.RECEIVE_SOCKETS, double tick_seconds=limits.RECEIVE_TICK_SECONDS):
        cdef epoll_event event
        if capacity < 1 or not 0.0 <= tick_seconds <= 1.0:
            raise ValueError("capacity must be positive, tick_seconds 0..1")
        self.poller = self.event_fd = self.stop_fd = -1
        if pthread_mutex_init(&self.lock, NULL):
            raise MemoryError
        self.lockable = True
        self.capacity = capacity
        self.tick_seconds = tick_seconds
        self.backlog = Backlog(limits.WAITING_BYTES)
        self.serve_slot = <serve_t>serve_one
        self.trunk_list = [None] * TRUNKS
        self.next_due = INFINITY
        self.inlets = [None] * capacity
        self.free_slots = list(range(capacity - 1, -1, -1))
        self.table = <void**>calloc(<size_t>capacity, sizeof(void*))
        self.ready = <int*>calloc(<size_t>capacity, sizeof(int))
        self.is_ready = <uint8_t*>calloc(<size_t>capacity, 1)
        self.buffers = <uint8_t*>malloc(BATCH * STRIDE)
        self.messages = calloc(BATCH, sizeof(mmsghdr))
        self.vectors = calloc(BATCH, sizeof(iovec))
        self.addresses = <sockaddr_storage*>calloc(BATCH, sizeof(sockaddr_storage))
        if (
            self.table == NULL or self.ready == NULL or self.is_ready == NULL or self.buffers == NULL or self.messages == NULL or self.vectors == NULL
            or self.addresses == NULL
        ):
            raise MemoryError
        self.poller = epoll_create1(EPOLL_CLOEXEC)
        self.event_fd = c_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self.stop_fd = c_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.poller < 0 or self.event_fd < 0 or self.stop_fd < 0:
            raise OSError(errno, "cannot make the descriptors of the receive thread")
        event.events = EPOLLIN
        event.data.u64 = STOP
        if epoll_ctl(self.poller, EPOLL_CTL_ADD, self.stop_fd, &event):
            raise OSError(errno, "cannot watch the descriptor that stops the receive thread")

    def __dealloc__(self):
        self.give_back()
        free(self.table)
        free(self.ready)
        free(self.is_ready)
        free(self.buffers)
        free(self.messages)
        free(self.vectors)
        free(self.addresses)
        if self.lockable:
            pthread_mutex_destroy(&self.lock)

    def run(self):
        with nogil:
            self.run_loop()

    def stop(self):
        cdef uint64_t one = 1
        self.stopping = True
        c_write(self.stop_fd, &one, sizeof(one))

    def close(self):
        self.give_back()

    cdef void give_back(self) noexcept nogil:
        if self.poller >= 0:
            c_close(self.poller)
        if self.event_fd >= 0:
            c_close(self.event_fd)
        if self.stop_fd >= 0:
            c_close(self.stop_fd)
        self.poller = self.event_fd = self.stop_fd = -1

    cdef Inlet make_inlet(self, Fold fold, object owner):
        """Without a socket yet."""
        cdef Inlet inlet = Inlet.__new__(Inlet)
        if not self.free_slots:
            raise OverflowError(f"the receive thread has {self.capacity} sockets already")
        inlet.fold = fold
        self.adopt(fold)
        inlet.thread = self
        inlet.owner = owner
        inlet.fd = -1
        inlet.slot = self.free_slots.pop()
        self.top = max(self.top, inlet.slot + 1)
        self.inlets[inlet.slot] = inlet
        pthread_mutex_lock(&self.lock)
        self.table[inlet.slot] = <void*>inlet
        pthread_mutex_unlock(&self.lock)
        return inlet

    def open_trunk(self, int fd, object owner=None):
        cdef Trunk trunk = Trunk.__new__(Trunk)
        cdef epoll_event event
        cdef int number
        for number in range(TRUNKS):
            if self.trunks[number] == NULL:
                break
        else:
            raise OverflowError(f"the receive thread has {TRUNKS} trunks already")
        trunk.thread = self
        trunk.owner = owner
        trunk.route_capacity = 2 * self.capacity
        trunk.routes = <Route*>malloc(<size_t>trunk.route_capacity * sizeof(Route))
        trunk.touched = <int*>calloc(<size_t>self.capacity, sizeof(int))
        trunk.is_touched = <uint8_t*>calloc(<size_t>self.capacity, 1)
        if trunk.routes == NULL or trunk.touched == NULL or trunk.is_touched == NULL:
            raise MemoryError
        trunk.fd = fd
        trunk.number = number
        event.events = EPOLLIN
        event.data.u64 = <uint64_t>(TRUNK | number)
        self.trunk_list[number] = trunk
        pthread_mutex_lock(&self.lock)
        self.trunks[number] = <void*>trunk
        pthread_mutex_unlock(&self.lock)
        if epoll_ctl(self.poller, EPOLL_CTL_ADD, fd, &event):
            reason = errno
            trunk.close()
            raise OSError(reason, "cannot watch the socket")
        return trunk

    def open(self, Fold fold not None, int fd, object owner=None):
        cdef Inlet inlet = self.make_inlet(fold, owner)
        cdef epoll_event event
        inlet.fd = fd  # nobody reads it before epoll says so
        event.events = EPOLLIN
        event.data.u64 = <uint64_t>inlet.slot
        if epoll_ctl(self.poller, EPOLL_CTL_ADD, fd, &event):
            reason = errno
            inlet.close()
            raise OSError(reason, "cannot watch the socket")
        return inlet

    cdef void adopt(self, Fold fold):
        """What waits in it counts with the rest of this thread's."""
        pthread_mutex_lock(&fold.lock)
        gbgw_add(&fold.backlog.bytes, -fold.waiting_bytes)
        gbgw_add(&self.backlog.bytes, fold.waiting_bytes)
        fold.backlog = self.backlog
        pthread_mutex_unlock(&fold.lock)

    def drain(self):
        """Owners of inlets that have events or strangers; called when event_fd is readable."""
        cdef uint64_t told
        cdef int i, count
        cdef Inlet inlet
        cdef list slots = [], found = []
        c_read(self.event_fd, &told, sizeof(told))
        pthread_mutex_lock(&self.lock)
        try:
            if self.ready_count:
                self.loop_lateness = max(self.loop_lateness, gbgw_now() - self.told_at)
            count = self.ready_count
            for i in range(count):
                slots.append(self.ready[i])
                self.is_ready[self.ready[i]] = False
            self.ready_count = 0
        finally:
            pthread_mutex_unlock(&self.lock)
        for slot in slots:
            inlet = self.inlets[slot]
            if inlet is not None:
                found.append(inlet.owner)
        for trunk in self.trunk_list:
            if trunk is not None and (<Trunk>trunk).unknown_count:
                found.append((<Trunk>trunk).owner)
        return found

    @property
    def counts(self):
        return {
            "receive.ticks": self.n_ticks,
            "receive.datagrams": self.n_datagrams,
            "receive.late_ticks": self.n_late,
            "receive.overrun_units": gbgw_read(&self.backlog.overrun_units),
        }

    def worst_lateness(self):
        """Seconds that the worst tick since the last question came late."""
        worst, self.lateness = self.lateness, 0.0
        return worst

    def worst_loop_lateness(self):
        """Seconds that the loop took to come, at worst since the last question; what has waited so far counts too."""
        pthread_mutex_lock(&self.lock)
        worst, self.loop_lateness = self.loop_lateness, 0.0
        if self.ready_count:
            worst = max(worst, gbgw_now() - self.told_at)
        pthread_mutex_unlock(&self.lock)
        return worst

    @property
    def busy_seconds(self):
        return self.busy_seconds

    @property
    def waiting_bytes(self):
        return gbgw_read(&self.backlog.bytes)

    def __len__(self):
        return self.capacity - len(self.free_slots)

    # --- in the thread ---

    cdef void run_loop(self) noexcept nogil:
        cdef epoll_event[POLLED] events
        cdef int count, i, milliseconds
        cdef double now, began, planned
        while not self.stopping:
            began = gbgw_now()
            milliseconds = IDLE_MILLISECONDS
            if self.next_due < began + IDLE_MILLISECONDS / 1000.0:
                milliseconds = <int>max((self.next_due - began) * 1000.0 + 1.0, 0.0)
            count = epoll_wait(self.poller, events, POLLED, milliseconds)
            now = gbgw_now()
            if count < 0:
                if errno == EINTR:
                    continue
                return
            for i in range(count):
                if events[i].data.u64 & TRUNK and events[i].data.u64 != STOP:
                    self.serve_trunk(<int>(events[i].data.u64 & (TRUNK - 1)), now)
                elif events[i].data.u64 != STOP:
                    self.serve(<int>events[i].data.u64, True, now)
            if count == 0 or now >= self.next_due:
                self.sweep(now)
            self.n_ticks += 1
            self.busy_seconds += gbgw_now() - now
            if count and self.tick_seconds > 0.0 and not self.stopping:
                planned = now + self.tick_seconds
                gbgw_sleep_until(planned)
                now = gbgw_now() - planned
                if now > self.lateness:
                    self.lateness = now
                if now > self.tick_seconds:
                    self.n_late += 1

    cdef void serve_trunk(self, int number, double now) noexcept nogil:
        cdef int i
        cdef void* trunk
        pthread_mutex_lock(&self.lock)
        trunk = self.trunks[number]
        if trunk == NULL:
            pthread_mutex_unlock(&self.lock)
            return
        (<receive_t>receive_trunk)(trunk, <void*>self, now)

    cdef void sweep(self, double now) noexcept nogil:
        """Whatever waits for time alone."""
        cdef int slot
        self.next_due = INFINITY
        for slot in range(self.top):
            if self.table[slot] != NULL:
                self.serve(slot, False, now)

    cdef void serve(self, int slot, bint readable, double now) noexcept nogil:
        pthread_mutex_lock(&self.lock)
        if self.table[slot] == NULL:
            pthread_mutex_unlock(&self.lock)
            return
        self.serve_slot(self.table[slot], <void*>self, readable, now)

    cdef void tell(self, int slot) noexcept nogil:
        """There is something of this slot for the loop."""
        cdef uint64_t one = 1
        cdef bint is_first
        pthread_mutex_lock(&self.lock)
        is_first = self.ready_count == 0 and not self.is_ready[slot]
        if not self.is_ready[slot]:
            if is_first:
                self.told_at = gbgw_now()
            self.is_ready[slot] = True
            self.ready[self.ready_count] = slot
            self.ready_count += 1
        pthread_mutex_unlock(&self.lock)
        if is_first:
            c_write(self.event_fd, &one, sizeof(one))


cdef void serve_one(Inlet inlet, ReceiveThread thread, bint readable, double now) noexcept nogil:
    """Begins with the lock of the thread held. The fold's is taken before that is given up, so that Inlet.close() waits until
    this is over; nothing of the inlet is touched after."""
    cdef double due
    pthread_mutex_lock(&inlet.fold.lock)
    pthread_mutex_unlock(&thread.lock)
    if readable and inlet.fd >= 0:
        inlet.receive(thread, now)
    inlet.fold.wait(now)
    due = inlet.fold.due()
    if due < thread.next_due:
        thread.next_due = due
    if inlet.fold.row_count or inlet.foreign_count:
        thread.tell(inlet.slot)
    pthread_mutex_unlock(&inlet.fold.lock)


cdef void give_datagram(
    Inlet inlet, const uint8_t* base, Py_ssize_t length, const sockaddr_storage* address, double now
) noexcept nogil:
    pthread_mutex_lock(&inlet.fold.lock)
    inlet.datagram(base, length, address, now)
    pthread_mutex_unlock(&inlet.fold.lock)


cdef void receive_trunk(Trunk trunk, ReceiveThread thread, double now) noexcept nogil:
    """Begins with the lock of the thread held, as serve_one does. Reads, then sees to every stream that got something."""
    cdef mmsghdr* messages = <mmsghdr*>thread.messages
    cdef iovec* vectors = <iovec*>thread.vectors
    cdef uint64_t one = 1
    cdef int count, i, turn
    pthread_mutex_lock(&trunk.lock)
    pthread_mutex_unlock(&thread.lock)
    for turn in range(TRUNK_ROUNDS if trunk.fd >= 0 else 0):
        for i in range(BATCH):
            gbgw_prepare(
                &messages[i], &vectors[i], thread.buffers + <Py_ssize_t>i * STRIDE, DATAGRAM_BYTES, &thread.addresses[i]
            )
        count = recvmmsg(trunk.fd, messages, BATCH, MSG_DONTWAIT, NULL)
        if count <= 0:
            break
        thread.n_datagrams += count
        for i in range(count):
            trunk.datagram(thread.buffers + <Py_ssize_t>i * STRIDE, messages[i].msg_len, &thread.addresses[i], now)
        if count < BATCH:
            break
    for i in range(trunk.touched_count):
        trunk.is_touched[trunk.touched[i]] = False
        thread.serve(trunk.touched[i], False, now)
    trunk.touched_count = 0
    if trunk.unknown_count:
        c_write(thread.event_fd, &one, sizeof(one))
    pthread_mutex_unlock(&trunk.lock)
