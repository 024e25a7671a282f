"""Declarations of the receive core; bodies in _receiver.pyx, Python's view in _receiver.pyi."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from gbgw._ps cimport Demuxer, Finished
from gbgw._rtp cimport JitterBuffer


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef extern from "<sys/socket.h>" nogil:
    cdef struct sockaddr_storage:
        pass


cdef struct Row:  # one event; the unit of a UNIT is the next one in the demuxer's `finished`
    int kind
    bint has_timestamp
    uint32_t timestamp
    double at


cdef struct Head:  # of a payload, to say later what it was
    uint8_t payload_type
    uint8_t[16] data
    Py_ssize_t length


cdef struct Foreign:  # a datagram that Python judges
    uint8_t* data
    Py_ssize_t length
    double at
    sockaddr_storage address


cdef class Backlog:
    """What waits for the loop in all folds of one thread."""

    cdef int64_t bytes
    cdef int64_t max_bytes
    cdef int64_t overrun_units


cdef class Event:
    cdef readonly int kind
    cdef readonly double at
    cdef readonly object unit
    cdef readonly object timestamp


cdef class Fold:
    cdef pthread_mutex_t lock
    cdef bint lockable
    cdef JitterBuffer jitter
    cdef Demuxer demuxer
    cdef Row* rows
    cdef Py_ssize_t row_count
    cdef Py_ssize_t row_capacity
    cdef Py_ssize_t waiting  # UNIT rows, and units in demuxer.finished
    cdef Py_ssize_t waiting_bytes
    cdef Py_ssize_t max_waiting_bytes
    cdef bint overrun
    cdef int64_t n_overrun
    cdef Backlog backlog  # of the thread that feeds this fold, or of its own
    cdef bint heard
    cdef double heard_at
    cdef bint has_timestamp
    cdef uint32_t timestamp
    cdef int64_t packs, maps
    cdef Head[64] heads
    cdef Py_ssize_t head_count
    cdef Py_ssize_t max_heads
    cdef bint closed

    cdef void take(self, const uint8_t* base, Py_ssize_t length, double now) noexcept nogil
    cdef void wait(self, double now) noexcept nogil
    cdef double due(self) noexcept nogil
    cdef void pass_on(self, double now) noexcept nogil
    cdef void look(self, double now) noexcept nogil
    cdef void note(self, int kind, double at, bint has_timestamp, uint32_t timestamp) noexcept nogil
    cdef void note_units(self, double now, bint has_timestamp, uint32_t timestamp) noexcept nogil


cdef class Inlet:
    cdef Fold fold
    cdef ReceiveThread thread
    cdef Trunk trunk  # whose datagrams it gets, or None where it has a socket of its own
    cdef readonly object owner
    cdef int fd  # -1: none of its own
    cdef int slot
    cdef bint closed
    cdef bint source_known
    cdef sockaddr_storage source
    cdef uint8_t[16][8] hosts
    cdef int host_count
    cdef bint knows_ssrc
    cdef uint32_t ssrc
    cdef double heard_at
    cdef uint8_t[12] last
    cdef Foreign* foreign
    cdef Py_ssize_t foreign_count
    cdef int64_t n_malformed, n_refused, n_flood, n_news
    cdef bint was_refused
    cdef sockaddr_storage refused

    cdef void receive(self, ReceiveThread thread, double now) noexcept nogil
    cdef void datagram(self, const uint8_t* base, Py_ssize_t length, const sockaddr_storage* address, double now) noexcept nogil
    cdef bint is_announced(self, const uint8_t* base, const sockaddr_storage* address) noexcept nogil
    cdef bint is_host(self, const unsigned char* host) noexcept nogil
    cdef bint is_welcome(self, const sockaddr_storage* address) noexcept nogil
    cdef void forget(self) noexcept nogil


cdef struct Route:
    uint32_t ssrc
    int slot
    void* inlet  # borrowed: an inlet leaves the table before it goes


cdef class Trunk:
    cdef pthread_mutex_t lock  # taken before the lock of a fold or of the thread, never after
    cdef bint lockable
    cdef ReceiveThread thread
    cdef readonly object owner
    cdef int fd
    cdef int number
    cdef Route* routes  # by rising SSRC
    cdef Py_ssize_t route_count
    cdef Py_ssize_t route_capacity
    cdef int* touched  # slots that the turn gave something
    cdef uint8_t* is_touched
    cdef int touched_count
    cdef Foreign* unknown
    cdef Py_ssize_t unknown_count
    cdef Py_ssize_t unknown_bytes
    cdef double allowance  # of unknown datagrams, at `allowed_at`
    cdef double allowed_at
    cdef int64_t n_malformed, n_flood

    cdef Py_ssize_t place(self, uint32_t ssrc) noexcept nogil
    cdef bint add(self, Inlet inlet, uint32_t ssrc) except -1
    cdef void leave(self, Inlet inlet)
    cdef void datagram(self, const uint8_t* base, Py_ssize_t length, const sockaddr_storage* address, double now) noexcept nogil
    cdef void forget(self) noexcept nogil


ctypedef void (*give_t)(void* inlet, const uint8_t* base, Py_ssize_t length, const sockaddr_storage* address, double now) noexcept nogil
ctypedef void (*receive_t)(void* trunk, void* thread, double now) noexcept nogil
ctypedef void (*serve_t)(void* inlet, void* thread, bint readable, double now) noexcept nogil


cdef class ReceiveThread:
    cdef void* trunks[4]  # Trunks by number, borrowed from `trunk_list`
    cdef list trunk_list
    cdef serve_t serve_slot  # serve_one(), told of objects by their addresses: without the GIL no reference may be made
    cdef pthread_mutex_t lock
    cdef bint lockable
    cdef int poller
    cdef readonly int event_fd
    cdef int stop_fd
    cdef void** table  # Inlets by slot, borrowed from `inlets`
    cdef int capacity
    cdef int top  # slots from here on were never used
    cdef list inlets
    cdef list free_slots
    cdef int* ready
    cdef uint8_t* is_ready
    cdef int ready_count
    cdef bint stopping
    cdef double tick_seconds
    cdef double next_due
    cdef uint8_t* buffers
    cdef void* messages
    cdef void* vectors
    cdef sockaddr_storage* addresses
    cdef Backlog backlog
    cdef int64_t n_ticks, n_datagrams, n_late
    cdef double lateness
    cdef double busy_seconds
    cdef double told_at
    cdef double loop_lateness

    cdef void give_back(self) noexcept nogil
    cdef void adopt(self, Fold fold)
    cdef Inlet make_inlet(self, Fold fold, object owner)
    cdef void run_loop(self) noexcept nogil
    cdef void serve(self, int slot, bint readable, double now) noexcept nogil
    cdef void serve_trunk(self, int number, double now) noexcept nogil
    cdef void sweep(self, double now) noexcept nogil
    cdef void tell(self, int slot) noexcept nogil
