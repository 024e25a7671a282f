"""Declarations of the fan-out core; bodies in _fanout.pyx, Python's view in _fanout.pyi."""


cdef enum:
    TURN = 128  # sockets written to without the interpreter in one go


cdef struct Target:
    int fd
    Py_ssize_t sent


cdef void send_turn(Target* targets, int count, const void* data, size_t length) noexcept nogil
