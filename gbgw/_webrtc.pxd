"""Declarations of the WebRTC sender core; bodies in _webrtc.pyx, Python's view in _webrtc.pyi."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef class Payloads:
    cdef bytes joined
    cdef const uint8_t* base  # of `joined`
    cdef Py_ssize_t* ends
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t size

    cdef const uint8_t* at(self, Py_ssize_t index, Py_ssize_t* length) noexcept nogil


cdef class Batch:
    cdef uint8_t* slots
    cdef void* vectors
    cdef void* messages
    cdef uint8_t* controls
    cdef int* lengths
    cdef readonly bint segments

    cdef int flush(self, int fd, const uint8_t* address, int address_length, int count, int* error) noexcept nogil


cdef class Sender:
    cdef Batch batch
    cdef object owner
    cdef void* session
    cdef void* protect
    cdef readonly uint32_t ssrc
    cdef readonly int payload_type
    cdef uint32_t origin
    cdef uint8_t extension[64]
    cdef int extension_length
    cdef int send_time_at
    cdef int64_t next
    cdef object history  # deque of (sequence number of the first payload, Payloads, timestamp)
    cdef int64_t remembered
    cdef readonly int64_t packets, octets, unsent
    cdef readonly int error
    cdef readonly uint32_t timestamp
    cdef uint8_t address[32]
    cdef int address_length
    cdef int fd

    cdef int prepare(self, int slot, uint16_t number, uint32_t timestamp, bint marker, uint32_t send_time, const uint8_t* prefix,
                     int prefix_length, const uint8_t* payload, Py_ssize_t length) noexcept nogil
