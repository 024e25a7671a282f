"""Declarations of the program stream core; bodies in _ps.pyx, Python's view in _ps.pyi."""

from libc.stdint cimport uint8_t


cdef class Block:
    """Owns one malloc'd buffer that a finished unit took over."""

    cdef uint8_t* data


cdef class AccessUnit:
    cdef readonly object codec
    cdef readonly int track_id
    cdef readonly object pts
    cdef readonly object dts
    cdef readonly bint is_keyframe
    cdef readonly tuple parameter_sets
    cdef readonly bint discontinuity
    cdef readonly double arrived
    cdef object owner  # bytes or Block: what keeps `data` alive
    cdef const uint8_t* data
    cdef Py_ssize_t length
