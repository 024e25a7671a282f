"""A bounds-checked cursor over bytes: the only pointer arithmetic of the cores.

A cursor checks before it moves. A read past `end` gives 0, sets the sticky `short` flag and parks the cursor at `end`, so a loop over `at < end`
always ends and one question at the end (`short`) replaces a test per field. Lengths are compared before they are subtracted, in Py_ssize_t.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy, memmove


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


cdef inline bytes copied(Cursor* c, Py_ssize_t count):
    """The next `count` bytes as an object of their own; too few gives b"" and marks the cursor short."""
    if not need(c, count):
        return b""
    c.at += count
    return PyBytes_FromStringAndSize(<const char*>(c.base + c.at - count), count)


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


cdef struct Buffer:
    uint8_t* data
    Py_ssize_t begin
    Py_ssize_t end
    Py_ssize_t capacity
    Py_ssize_t limit


cdef inline Buffer buffer(Py_ssize_t limit) noexcept nogil:
    """A growing byte buffer that never holds more than `limit` bytes. Its live bytes are [begin, end); indices below count from `begin`."""
    cdef Buffer b
    b.data = NULL
    b.begin = 0
    b.end = 0
    b.capacity = 0
    b.limit = limit
    return b


cdef inline Py_ssize_t held(const Buffer* b) noexcept nogil:
    return b.end - b.begin


cdef inline Cursor live(const Buffer* b) noexcept nogil:
    """The live bytes; valid until the next change of the buffer."""
    return cursor(b.data + b.begin if b.data != NULL else NULL, b.end - b.begin)


cdef enum:
    GRAIN = 1024
    CHUNK_HEADER = 16  # of glibc's malloc


cdef inline Py_ssize_t grained(Py_ssize_t count) noexcept nogil:
    """At least `count`, and one of few sizes: an allocator keeps free blocks in lists by size, and searched them for a tenth of
    the CPU of a receiver when every picture had a size of its own."""
    return (count + CHUNK_HEADER + GRAIN - 1) // GRAIN * GRAIN - CHUNK_HEADER if count > GRAIN else count


cdef inline bint reserve(Buffer* b, Py_ssize_t count) noexcept nogil:
    """Make room for `count` more bytes; False when the limit or the memory forbids it."""
    cdef Py_ssize_t length = b.end - b.begin
    cdef Py_ssize_t wanted
    cdef uint8_t* grown
    if count < 0 or length > b.limit or count > b.limit - length:
        return False
    if count <= b.capacity - b.end:
        return True
    if b.begin > 0:
        memmove(b.data, b.data + b.begin, <size_t>length)
        b.begin = 0
        b.end = length
        if count <= b.capacity - length:
            return True
    wanted = length + count
    if b.capacity > 0:
        wanted = max(wanted, min(2 * b.capacity, b.limit))
    wanted = grained(wanted)
    grown = <uint8_t*>realloc(b.data, <size_t>wanted)
    if grown == NULL:
        return False
    b.data = grown
    b.capacity = wanted
    return True


cdef inline bint append(Buffer* b, const uint8_t* base, Py_ssize_t count) noexcept nogil:
    """Copy `count` bytes that start at `base` (a cursor's current bytes) behind the live ones."""
    if count == 0:
        return True
    if not reserve(b, count):
        return False
    memcpy(b.data + b.end, base, <size_t>count)
    b.end += count
    return True


cdef inline bint prepend(Buffer* b, const uint8_t* base, Py_ssize_t count) noexcept nogil:
    """Copy `count` bytes before the live ones; `base` must not point into `b`."""
    cdef Py_ssize_t length = b.end - b.begin
    if count == 0:
        return True
    if not reserve(b, count):
        return False
    memmove(b.data + b.begin + count, b.data + b.begin, <size_t>length)
    memcpy(b.data + b.begin, base, <size_t>count)
    b.end += count
    return True


cdef inline void drop(Buffer* b, Py_ssize_t count) noexcept nogil:
    """Forget the first `count` live bytes; more than there are forgets them all."""
    if count >= b.end - b.begin:
        b.begin = 0
        b.end = 0
    elif count > 0:
        b.begin += count


cdef inline void cut(Buffer* b, Py_ssize_t length) noexcept nogil:
    """Keep only the first `length` live bytes."""
    if 0 <= length < b.end - b.begin:
        b.end = b.begin + length


cdef inline void release(Buffer* b) noexcept nogil:
    free(b.data)
    b.data = NULL
    b.begin = 0
    b.end = 0
    b.capacity = 0


cdef inline const uint8_t* bytes_at(const Cursor* c) noexcept nogil:
    """Where the unread bytes of the cursor start; at most left(c) of them may be read."""
    return c.base + c.at if c.base != NULL else NULL


cdef struct Output:
    uint8_t* base
    Py_ssize_t at
    Py_ssize_t end
    bint short


cdef inline Output output(uint8_t* base, Py_ssize_t length) noexcept nogil:
    """A place of `length` bytes to write to. What does not fit marks it short and is not written."""
    cdef Output o
    o.base = base
    o.at = 0
    o.end = length if length > 0 else 0
    o.short = False
    return o


cdef inline void put(Output* o, const Cursor* c) noexcept nogil:
    """Write the unread bytes of a cursor, which must not lie in the same place."""
    cdef Py_ssize_t count = c.end - c.at
    if count > o.end - o.at:
        o.short = True
        o.at = o.end
    elif count > 0:
        memcpy(o.base + o.at, c.base + c.at, <size_t>count)
        o.at += count


cdef inline void put_u8(Output* o, uint8_t value) noexcept nogil:
    if o.at < o.end:
        o.base[o.at] = value
        o.at += 1
    else:
        o.short = True


cdef inline void put_u16(Output* o, uint16_t value) noexcept nogil:
    put_u8(o, <uint8_t>(value >> 8))
    put_u8(o, <uint8_t>(value & 0xFF))


cdef inline void put_u24(Output* o, uint32_t value) noexcept nogil:
    put_u8(o, <uint8_t>(value >> 16 & 0xFF))
    put_u16(o, <uint16_t>(value & 0xFFFF))


cdef inline void put_u32(Output* o, uint32_t value) noexcept nogil:
    put_u16(o, <uint16_t>(value >> 16))
    put_u16(o, <uint16_t>(value & 0xFFFF))
