# cython: language_level=3, binding=True, embedsignature=True
# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True
"""WebRTC sender core: RTP header, SRTP and the kernel for one packet after the other, without the GIL.

A picture is cut into payloads once; each viewer's Sender writes its own header in front of them (RFC 3550), has libsrtp
protect them in place (RFC 3711) and hands up to MAX_BATCH of them to the kernel at once: as segments of one large datagram
where the kernel cuts it (UDP_SEGMENT), else by sendmmsg. Lost packets are sent again from what the viewer's Sender remembers
(RFC 4585, RFC 4588). Leaves out: ICE, DTLS, RTCP.
"""

from collections import deque

cimport cython
from libc.errno cimport EINTR, EINVAL, EIO, EMSGSIZE, ENOPROTOOPT, EOPNOTSUPP, errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from gbgw.base import limits


cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    #include <netinet/in.h>
    #ifndef SOL_UDP
    #define SOL_UDP 17
    #endif
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    typedef int (*gbgw_protect)(void *session, void *packet, int *length);
    #define GBGW_CONTROL_BYTES CMSG_SPACE(sizeof(uint16_t))

    static void gbgw_message(struct mmsghdr *m, const void *address, int address_length, struct iovec *first, int count,
                             unsigned char *control, int segment) {
        memset(m, 0, sizeof(*m));
        m->msg_hdr.msg_name = (void *)address;
        m->msg_hdr.msg_namelen = (socklen_t)address_length;
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
    """
    ctypedef int (*gbgw_protect)(void* session, void* packet, int* length) noexcept nogil
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    cdef struct mmsghdr:
        unsigned int msg_len
    int sendmmsg(int fd, mmsghdr* messages, unsigned int count, int flags) nogil
    int MSG_DONTWAIT
    size_t GBGW_CONTROL_BYTES
    void gbgw_message(mmsghdr* m, const void* address, int address_length, iovec* first, int count, unsigned char* control, int segment) nogil
    int AF_INET
    int AF_INET6


cdef enum:
    SLOTS = 64  # the kernel cuts a datagram into 64 segments at most
    SLOT_BYTES = 2048
    TRAILER_BYTES = 144  # of libsrtp: SRTP_MAX_TRAILER_LEN
    DATAGRAM_BYTES = 65000  # of one datagram that the kernel cuts
    HEADER_BYTES = 12

MAX_BATCH = SLOTS
MAX_PAYLOAD_BYTES = SLOT_BYTES - TRAILER_BYTES - HEADER_BYTES - 64 - 2


cdef inline void put16(uint8_t* p, uint16_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 8)
    p[1] = <uint8_t>value


cdef inline void put32(uint8_t* p, uint32_t value) noexcept nogil:
    put16(p, <uint16_t>(value >> 16))
    put16(p + 2, <uint16_t>value)


@cython.final
@cython.auto_pickle(False)
cdef class Payloads:
    def __cinit__(self, payloads):
        cdef Py_ssize_t i, end = 0
        cdef tuple parts = tuple(payloads)
        self.count = len(parts)
        self.ends = <Py_ssize_t*>malloc(<size_t>max(self.count, 1) * sizeof(Py_ssize_t))
        if self.ends == NULL:
            raise MemoryError
        for i in range(self.count):
            if len(parts[i]) > MAX_PAYLOAD_BYTES:
                raise ValueError(f"a payload of {len(parts[i])} bytes; {MAX_PAYLOAD_BYTES} at most")
            end += len(parts[i])
            self.ends[i] = end
        self.joined = b"".join(parts)
        self.base = <const uint8_t*>self.joined
        self.size = end

    def __dealloc__(self):
        free(self.ends)

    cdef const uint8_t* at(self, Py_ssize_t index, Py_ssize_t* length) noexcept nogil:
        cdef Py_ssize_t begin = self.ends[index - 1] if index > 0 else 0
        length[0] = self.ends[index] - begin
        return self.base + begin

    def __len__(self):
        return self.count

    def __getitem__(self, Py_ssize_t index, /):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.joined[(self.ends[index - 1] if index > 0 else 0) : self.ends[index]]

    def __iter__(self):
        return map(self.__getitem__, range(self.count))


@cython.final
@cython.auto_pickle(False)
cdef class Batch:
    def __cinit__(self, *, bint segments=True):
        self.segments = segments
        self.slots = <uint8_t*>malloc(SLOTS * SLOT_BYTES)
        self.vectors = calloc(SLOTS, sizeof(iovec))
        self.messages = calloc(SLOTS, sizeof(mmsghdr))
        self.controls = <uint8_t*>calloc(SLOTS, GBGW_CONTROL_BYTES)
        self.lengths = <int*>calloc(SLOTS, sizeof(int))
        if self.slots == NULL or self.vectors == NULL or self.messages == NULL or self.controls == NULL or self.lengths == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.slots)
        free(self.vectors)
        free(self.messages)
        free(self.controls)
        free(self.lengths)

    cdef int flush(self, int fd, const uint8_t* address, int address_length, int count, int* error) noexcept nogil:
        """Give the first `count` slots to the kernel; return how many it took. `error`: why not all, else 0."""
        cdef iovec* vectors = <iovec*>self.vectors
        cdef mmsghdr* messages = <mmsghdr*>self.messages
        cdef int[SLOTS] sizes
        cdef int sent = 0, at, run, total, made, taken, i
        error[0] = 0
        for i in range(count):
            vectors[i].iov_base = self.slots + i * SLOT_BYTES
            vectors[i].iov_len = <size_t>self.lengths[i]
        while sent < count:
            at = sent
            made = 0
            while at < count:
                run = 1
                total = self.lengths[at]
                # segments are of one size; the last may be shorter
                while (
                    self.segments
                    and at + run < count
                    and self.lengths[at + run - 1] == self.lengths[at]
                    and self.lengths[at + run] <= self.lengths[at]
                    and total + self.lengths[at + run] <= DATAGRAM_BYTES
                ):
                    total += self.lengths[at + run]
                    run += 1
                gbgw_message(
                    messages + made, address, address_length, vectors + at, run, self.controls + made * GBGW_CONTROL_BYTES,
                    self.lengths[at] if run > 1 else 0,
                )
                sizes[made] = run
                made += 1
                at += run
            taken = sendmmsg(fd, messages, <unsigned int>made, MSG_DONTWAIT)
            if taken < 0:
                if errno == EINTR:
                    continue
                if self.segments and sizes[0] > 1 and errno in (EINVAL, EIO, EMSGSIZE, ENOPROTOOPT, EOPNOTSUPP):
                    self.segments = False  # this kernel, or the card behind it, does not cut datagrams
                    continue
                error[0] = errno
                break
            for i in range(taken):
                sent += sizes[i]
        return sent


@cython.final
@cython.auto_pickle(False)
cdef class Sender:
    def __cinit__(
        self, Batch batch not None, *, uint32_t ssrc, int payload_type, uint16_t sequence_number, uint32_t timestamp_origin,
        size_t protect, size_t session, owner=None, bytes extension=b"", int send_time_at=-1,
    ):
        if not 0 <= payload_type < 128:
            raise ValueError(f"payload type {payload_type}")
        if len(extension) > 64 or len(extension) % 4:
            raise ValueError(f"a header extension of {len(extension)} bytes")
        if send_time_at >= 0 and send_time_at + 3 > len(extension):
            raise ValueError("the send time lies outside the header extension")
        if protect == 0 or session == 0:
            raise ValueError("no SRTP session")
        self.batch = batch
        self.owner = owner
        self.protect = <void*>protect
        self.session = <void*>session
        self.ssrc = ssrc
        self.payload_type = payload_type
        self.origin = timestamp_origin
        self.next = 65536 + sequence_number  # extended, so that what was before is not negative
        self.history = deque()
        self.extension_length = <int>len(extension)
        if self.extension_length:
            memcpy(self.extension, <const uint8_t*>extension, <size_t>self.extension_length)
        self.send_time_at = send_time_at
        self.fd = -1

    def aim(self, int fd, bytes address not None):
        if not 0 < len(address) <= 32:
            raise ValueError("not a socket address")
        memcpy(self.address, <const uint8_t*>address, <size_t>len(address))
        self.address_length = <int>len(address)
        self.fd = fd

    @property
    def sequence_number(self):
        return self.next & 0xFFFF

    cdef int prepare(
        self, int slot, uint16_t number, uint32_t timestamp, bint marker, uint32_t send_time, const uint8_t* prefix, int prefix_length,
        const uint8_t* payload, Py_ssize_t length,
    ) noexcept nogil:
        """Write one protected packet into a slot; return libsrtp's verdict, 0 for good."""
        cdef uint8_t* p = self.batch.slots + slot * SLOT_BYTES
        cdef uint8_t* q = p + HEADER_BYTES
        cdef int size
        p[0] = 0x90 if self.extension_length else 0x80
        p[1] = <uint8_t>(self.payload_type | (0x80 if marker else 0))
        put16(p + 2, number)
        put32(p + 4, timestamp)
        put32(p + 8, self.ssrc)
        if self.extension_length:
            memcpy(q, self.extension, <size_t>self.extension_length)
            if self.send_time_at >= 0:
                q[self.send_time_at] = <uint8_t>(send_time >> 16)
                put16(q + self.send_time_at + 1, <uint16_t>send_time)
            q += self.extension_length
        if prefix_length:
            memcpy(q, prefix, <size_t>prefix_length)
            q += prefix_length
        memcpy(q, payload, <size_t>length)
        size = <int>(q - p) + <int>length
        cdef int verdict = (<gbgw_protect>self.protect)(self.session, p, &size)
        self.batch.lengths[slot] = size
        return verdict

    def send(self, Payloads payloads not None, uint32_t timestamp, Py_ssize_t begin, Py_ssize_t end, uint32_t send_time=0):
        cdef int count = <int>(end - begin), taken = 0, error = 0, i, verdict = 0
        cdef Py_ssize_t length = 0
        cdef const uint8_t* payload
        cdef int64_t octets = 0
        if not 0 <= begin <= end <= payloads.count or count > SLOTS:
            raise ValueError(f"payloads {begin} to {end} of {payloads.count}; {MAX_BATCH} at once")
        if self.fd < 0:
            raise ValueError("not aimed at an address")
        self.timestamp = self.origin + timestamp
        if begin == 0 and count:
            self.history.append((self.next, payloads, self.timestamp))
            self.remembered += payloads.count
            while self.remembered > limits.WEBRTC_HISTORY and len(self.history) > 1:
                self.remembered -= (<Payloads>self.history.popleft()[1]).count
        with nogil:
            for i in range(count):
                payload = payloads.at(begin + i, &length)
                verdict = self.prepare(
                    i, <uint16_t>(self.next & 0xFFFF), self.timestamp, begin + i == payloads.count - 1, send_time, NULL, 0, payload, length
                )
                if verdict:
                    break
                self.next += 1
                octets += length
            else:
                taken = self.batch.flush(self.fd, self.address, self.address_length, count, &error)
        if verdict:
            raise OSError(f"libsrtp refuses to protect a packet: status {verdict}")
        self.packets += count
        self.octets += octets
        self.unsent += count - taken
        self.error = error
        return taken

    def find(self, uint16_t number):
        cdef int64_t wanted = self.next - ((self.next - number) & 0xFFFF)
        cdef int64_t first
        if wanted >= self.next:
            return None
        for first, payloads, timestamp in reversed(self.history):
            if first <= wanted:
                return (payloads, wanted - first, timestamp) if wanted - first < len(payloads) else None
        return None

    def resend(self, Payloads payloads not None, Py_ssize_t index, uint32_t timestamp, uint16_t number, uint32_t send_time=0, *, bint repair=False):
        cdef uint8_t[2] prefix
        cdef Py_ssize_t length = 0
        cdef const uint8_t* payload
        cdef int error = 0, verdict, taken = 0
        cdef bint marker
        if not 0 <= index < payloads.count or self.fd < 0:
            raise ValueError(f"payload {index} of {payloads.count}")
        with nogil:
            payload = payloads.at(index, &length)
            marker = index == payloads.count - 1
            put16(prefix, number)
            verdict = self.prepare(
                0, <uint16_t>(self.next & 0xFFFF) if repair else number, timestamp, marker, send_time, prefix, 2 if repair else 0, payload, length
            )
            if verdict == 0:
                taken = self.batch.flush(self.fd, self.address, self.address_length, 1, &error)
        if verdict:
            raise OSError(f"libsrtp refuses to protect a packet: status {verdict}")
        if repair:
            self.next += 1
            self.packets += 1
            self.octets += length + 2
        return taken == 1


def protected(size_t protect, size_t session, bytes packet not None):
    cdef uint8_t* room
    cdef int size = <int>len(packet), verdict
    if len(packet) > MAX_PAYLOAD_BYTES:
        raise ValueError("the packet is too long")
    room = <uint8_t*>malloc(SLOT_BYTES)
    if room == NULL:
        raise MemoryError
    try:
        memset(room, 0, SLOT_BYTES)
        memcpy(room, <const uint8_t*>packet, <size_t>len(packet))
        verdict = (<gbgw_protect><void*>protect)(<void*>session, room, &size)
        if verdict:
            raise OSError(f"libsrtp refuses to protect a packet: status {verdict}")
        return (<const uint8_t*>room)[:size]
    finally:
        free(room)
