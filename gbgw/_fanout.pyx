# cython: language_level=3, binding=True, embedsignature=True
# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True
"""Fan-out core: the same bytes to many sockets, without the interpreter between them (architecture.md decision 3).

Leaves out: which sockets may be written to behind their transports' backs, and what becomes of bytes that a socket does
not take (serve.fanout).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE


cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void* data, size_t length, int flags)
    int MSG_DONTWAIT, MSG_NOSIGNAL


def send_all(list fds not None, bytes data not None):
    cdef Target[TURN] targets
    cdef Py_ssize_t begin, total = len(fds), size = PyBytes_GET_SIZE(data)
    cdef const void* base = PyBytes_AS_STRING(data)
    cdef int i, count
    cdef list short = []
    for begin in range(0, total, TURN):
        count = min(total - begin, <Py_ssize_t>TURN)
        for i in range(count):
            targets[i].fd = fds[begin + i]
        with nogil:
            send_turn(targets, count, base, <size_t>size)
        for i in range(count):
            if targets[i].sent < size:
                short.append((begin + i, targets[i].sent))
    return short


cdef void send_turn(Target* targets, int count, const void* data, size_t length) noexcept nogil:
    cdef int i
    cdef ssize_t sent
    for i in range(count):
        sent = send(targets[i].fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL)
        targets[i].sent = max(sent, 0)
