"""A bounds-checked cursor over bytes: the only pointer arithmetic of the cores.

A cursor checks before it moves. A read past `end` gives 0, sets the sticky `short` flag and parks the cursor at `end`, so a loop over `at < end`
always ends and one question at the end (`short`) replaces a test per field. Lengths are compared before they are subtracted, in Py_ssize_t.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr


cdef struct Cursor:
    const uint8_t* base
    Py_ssize_t at
    Py_ssize_t end
    bint short


cdef inline Cursor cursor(const uint8_t* base, Py_ssize_t length) noexcept nogil:
    cdef Cursor c
    c.base = base
    c.at = 0
    c.end = length if length > 0 else 0
    c.short = False
    return c


cdef inline Py_ssize_t left(const Cursor* c) noexcept nogil:
    return c.end - c.at


cdef inline bint need(Cursor* c, Py_ssize_t count) noexcept nogil:
    """True when `count` bytes can be read; otherwise marks the cursor short and parks it."""
    if count < 0 or count > c.end - c.at:
        c.short = True
        c.at = c.end
        return False
    return True


cdef inline void take(Cursor* c, Py_ssize_t count) noexcept nogil:
    if need(c, count):
        c.at += count


cdef inline Cursor sub(Cursor* c, Py_ssize_t count) noexcept nogil:
    """Cut the next `count` bytes off as a cursor of their own; too few leaves an empty, short one."""
    cdef Cursor s
    if need(c, count):
        s = cursor(c.base + c.at, count)
        c.at += count
    else:
        s = cursor(c.base, 0)
        s.short = True
    return s


cdef inline uint8_t u8(Cursor* c) noexcept nogil:
    if not need(c, 1):
        return 0
    c.at += 1
    return c.base[c.at - 1]


cdef inline uint16_t u16(Cursor* c) noexcept nogil:
    if not need(c, 2):
        return 0
    cdef const uint8_t* p = c.base + c.at
    c.at += 2
    return <uint16_t>((<uint32_t>p[0] << 8) | p[1])


cdef inline uint32_t u24(Cursor* c) noexcept nogil:
    if not need(c, 3):
        return 0
    cdef const uint8_t* p = c.base + c.at
    c.at += 3
    return (<uint32_t>p[0] << 16) | (<uint32_t>p[1] << 8) | p[2]


cdef inline uint32_t u32(Cursor* c) noexcept nogil:
    if not need(c, 4):
        return 0
    cdef const uint8_t* p = c.base + c.at
    c.at += 4
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline uint8_t peek(const Cursor* c, Py_ssize_t offset) noexcept nogil:
    """The byte `offset` ahead, or 0 beyond the end; never moves and never marks short."""
    if offset < 0 or offset >= c.end - c.at:
        return 0
    return c.base[c.at + offset]


cdef inline Py_ssize_t find_start_code(const uint8_t* base, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """Index of the next 00 00 01 that begins at or after `at` and lies wholly before `end`, or -1."""
    cdef const void* hit
    cdef Py_ssize_t i
    if at < 0 or end - at < 3:
        return -1
    i = at + 2
    while i < end:
        hit = memchr(base + i, 1, <size_t>(end - i))
        if hit == NULL:
            return -1
        i = <const uint8_t*>hit - base
        if base[i - 1] == 0 and base[i - 2] == 0:
            return i - 2
        i += 1
    return -1
