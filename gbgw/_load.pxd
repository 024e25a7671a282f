"""Declarations of the load generator core; bodies in _load.pyx, Python's view in _load.pyi."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t


cdef extern from "<pthread.h>":
    ctypedef struct pthread_mutex_t:
        pass


cdef struct Piece:
    int64_t at  # ticks into the round at which its first packet is due
    uint32_t timestamp  # of RTP, in round 0
    Py_ssize_t begin  # in the joined bytes
    Py_ssize_t end
    int packets
    bint is_key
    int64_t scr  # of round 0; -1: no pack header
    int64_t pts  # of round 0; -1: none
    int64_t dts
    int pts_at  # where it stands, from `begin`
    int dts_at


cdef class Content:
    cdef bytes joined
    cdef const uint8_t* base
    cdef Piece* pieces
    cdef readonly Py_ssize_t count
    cdef readonly int64_t duration
    cdef readonly Py_ssize_t packets
    cdef readonly Py_ssize_t size
    cdef readonly int max_payload
    cdef int payload_type

    cdef int write(self, uint8_t* head, uint8_t* copy, const Piece* piece, int64_t round, int packet, uint16_t number, uint32_t ssrc, const uint8_t** payload) noexcept nogil


cdef struct Lane:
    int fd
    bint is_open
    bint tcp
    bint segments
    uint32_t ssrc
    uint16_t number
    int64_t round
    Py_ssize_t piece
    int packet
    double start
    double due
    int64_t packets
    int64_t octets
    int64_t unsent
    int64_t refused
    int64_t whole
    double first_at
    double key_at
    int error
    uint8_t* pending
    Py_ssize_t pending_length


cdef class Source:
    cdef Content content
    cdef Lane* lanes
    cdef readonly int capacity
    cdef int top
    cdef double slot_seconds
    cdef double line_seconds  # from packet to packet of one lane
    cdef pthread_mutex_t lock
    cdef bint lockable
    cdef bint stopping
    cdef double lateness
    cdef int64_t slots
    cdef int64_t late_slots
    cdef uint8_t* heads
    cdef uint8_t* copies
    cdef Py_ssize_t stride
    cdef void* vectors
    cdef void* messages
    cdef uint8_t* controls
    cdef int* lengths

    cdef void run_loop(self) noexcept nogil
    cdef void serve(self, Lane* lane, double now) noexcept nogil
    cdef void flush_datagrams(self, Lane* lane, int count) noexcept nogil
    cdef void flush_stream(self, Lane* lane, int count) noexcept nogil
    cdef Lane* lane_of(self, int number) except NULL


cdef struct Tap:
    int fd
    int state
    int status
    bint chunked
    bint whole  # read every tag to the end, instead of throwing away what follows the first key frame
    int64_t octets
    int64_t tags
    int64_t pictures
    int64_t keys
    double asked_at
    double head_at
    double key_at
    double ended_at
    int64_t chunk_left
    int chunk_state
    int phase
    int64_t skip
    int have
    int is_key
    uint8_t[16] tag
    uint8_t* head
    int head_length


cdef class Drain:
    cdef Tap* taps
    cdef readonly int capacity
    cdef int top
    cdef double tick_seconds
    cdef int poller
    cdef int stop_fd
    cdef int told_fd
    cdef bint stopping
    cdef uint8_t* buffer
    cdef pthread_mutex_t lock
    cdef bint lockable

    cdef void run_loop(self) noexcept nogil
    cdef void serve(self, Tap* tap, double now) noexcept nogil
    cdef void finish(self, Tap* tap, double now) noexcept nogil
    cdef bint take_head(self, Tap* tap, const uint8_t* data, Py_ssize_t length, Py_ssize_t* used, double now) noexcept nogil
    cdef void take_body(self, Tap* tap, const uint8_t* data, Py_ssize_t length, double now) noexcept nogil
    cdef void take_flv(self, Tap* tap, const uint8_t* data, Py_ssize_t length, double now) noexcept nogil
    cdef Tap* tap_of(self, int number) except NULL


cdef struct Flow:
    uint32_t ssrc
    int64_t received
    int64_t first
    int64_t highest
    int64_t markers
    double marked_at
    double longest_gap  # seconds between two markers since `forget_gaps`


cdef struct Ear:
    int fd
    int64_t packets
    int64_t octets
    int64_t others  # neither RTP nor queued
    double first_at
    double picture_at  # first marker
    int flow_count
    Flow[4] flows
    int waiting
    uint8_t* queue
    int* lengths


cdef class Ears:
    cdef Ear* ears
    cdef readonly int capacity
    cdef int top
    cdef double tick_seconds
    cdef int poller
    cdef int stop_fd
    cdef int told_fd
    cdef bint stopping
    cdef uint8_t* buffers
    cdef void* vectors
    cdef void* messages
    cdef pthread_mutex_t lock
    cdef bint lockable

    cdef void run_loop(self) noexcept nogil
    cdef void serve(self, Ear* ear, double now) noexcept nogil
    cdef void hear(self, Ear* ear, const uint8_t* data, Py_ssize_t length, double now) noexcept nogil
    cdef Ear* ear_of(self, int number) except NULL
