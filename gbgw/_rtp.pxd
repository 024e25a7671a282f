"""RTP core: what other extension modules may use of it; `_rtp.pyi` documents it."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef struct Header:
    bint marker
    uint8_t payload_type
    uint16_t sequence_number
    uint32_t timestamp
    uint32_t ssrc
    Py_ssize_t offset  # of the payload in the datagram
    Py_ssize_t length  # of the payload


cdef struct Packet:  # on its way through a JitterBuffer
    void* block  # what holds the payload, freed with the packet; NULL: the payload is the caller's
    const uint8_t* payload
    Py_ssize_t length
    Py_ssize_t datagram_bytes
    int64_t number  # extended sequence number
    int64_t lost_before
    double arrived
    Header header


cdef class RtpPacket:
    cdef readonly bint marker
    cdef readonly uint8_t payload_type
    cdef readonly uint16_t sequence_number
    cdef readonly uint32_t timestamp
    cdef readonly uint32_t ssrc
    cdef readonly int64_t extended_sequence_number
    cdef readonly int64_t lost_before
    cdef readonly bytes payload


cdef class SenderReport:
    cdef readonly uint32_t ssrc
    cdef readonly uint64_t ntp
    cdef readonly uint32_t timestamp
    cdef readonly uint32_t packet_count
    cdef readonly uint32_t octet_count


cdef class Goodbye:
    cdef readonly uint32_t ssrc


cdef class JitterBuffer:
    # The source and its rivals
    cdef int mode
    cdef bint known
    cdef bint locked
    cdef uint32_t expected_ssrc
    cdef uint32_t locked_ssrc
    cdef double heard_at
    cdef Packet[8] rivals
    cdef Py_ssize_t rival_count
    cdef bint has_past  # the run that the last restart or change of source ended
    cdef uint32_t past_ssrc
    cdef uint16_t past_number
    cdef double past_at
    # The window of sequence numbers [base, base + window)
    cdef Py_ssize_t window
    cdef double patience
    cdef Py_ssize_t max_bytes
    cdef int64_t base
    cdef int64_t released
    cdef int64_t highest
    cdef uint32_t highest_timestamp
    cdef bint restarted
    cdef Packet** held  # by number modulo window; NULL until the first packet waits
    cdef int64_t* seen  # by number modulo twice the window
    cdef Py_ssize_t held_count
    cdef Py_ssize_t held_bytes
    cdef double oldest
    # What may go on, oldest first, until settle()
    cdef Packet* ready
    cdef Py_ssize_t ready_count
    cdef Py_ssize_t ready_capacity
    # RFC 3550 appendix A.3, A.8
    cdef double clock_hz
    cdef int64_t first
    cdef int64_t source_received
    cdef int64_t expected_prior
    cdef int64_t received_prior
    cdef bint transit_known
    cdef uint32_t transit
    cdef double jitter
    cdef bint reported
    cdef uint32_t report_ntp
    cdef double report_at
    # Counters
    cdef int64_t n_received, n_bytes, n_lost, n_late, n_duplicate, n_reordered
    cdef int64_t n_malformed, n_wrong_ssrc, n_ssrc_change, n_restart, n_stray

    cdef void take(self, const uint8_t* base, Py_ssize_t length, double now) noexcept nogil
    cdef void release_due(self, double now) noexcept nogil
    cdef void settle(self) noexcept nogil
    cdef double due(self) noexcept nogil
    cdef void measure(self, uint32_t timestamp, double now) noexcept nogil
    cdef void begin(self, const Packet* packet) noexcept nogil
    cdef void candidate(self, const Packet* packet, Py_ssize_t needed) noexcept nogil
    cdef void change_over(self) noexcept nogil
    cdef void drop_rivals(self) noexcept nogil
    cdef bint is_past(self, const Packet* packet, double now) noexcept nogil
    cdef bint is_other(self, const Packet* packet, double now) noexcept nogil
    cdef void arrange(self, Packet* packet, int64_t number) noexcept nogil
    cdef bint hold(self, const Packet* packet) noexcept nogil
    cdef void release_one(self, Packet* packet) noexcept nogil
    cdef void release_run(self) noexcept nogil
    cdef void skip_hole(self) noexcept nogil
    cdef void advance(self, int64_t target) noexcept nogil
    cdef void age(self) noexcept nogil
    cdef object collect(self)


cdef class Framer:
    cdef bytearray pending
    cdef Py_ssize_t max_bytes
    cdef bint known
    cdef uint32_t ssrc
    cdef bint synced
    cdef int64_t n_garbage, n_resync, n_interleaved

    cdef Py_ssize_t scan(self, const uint8_t* base, Py_ssize_t length, list out) except -1
