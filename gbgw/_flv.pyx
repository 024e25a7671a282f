# cython: language_level=3, binding=True, embedsignature=True
# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True
"""FLV core: one tag for one unit, in one piece of memory (Adobe FLV 10.1 annex E.4.1).

Leaves out: what stands in `head` (mux.flv), sequence headers (PyAV makes them).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t

from gbgw._bytes cimport Cursor, Output, cursor, find_start_code, left, output, peek, put, put_u8, put_u24, put_u32, sub, take


cdef enum:
    TAG_HEADER = 11
    PREVIOUS_SIZE = 4
    LENGTH = 4  # of the length before a NAL unit
    START_CODE = 3
    SPANS = 64  # NAL units remembered between measuring and writing; what is behind them is searched for twice
    MAX_BODY = 0xFFFFFF
    H264 = 1
    H265 = 2


def tag(int kind, int64_t timestamp, bytes head not None, object data):
    return make(kind, timestamp, head, data, 0)


def nal_tag(int kind, int64_t timestamp, bytes head not None, object data, bint is_h265):
    return make(kind, timestamp, head, data, H265 if is_h265 else H264)


cdef bytes make(int kind, int64_t timestamp, bytes head, object data, int codec):
    cdef Py_buffer view
    cdef Cursor all, start
    cdef Span[SPANS] spans
    cdef Py_ssize_t count, size, body
    cdef bytes made
    cdef Output out
    if not 0 <= kind <= 0xFF:
        raise ValueError(f"kind must be a byte, not {kind}")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        all = cursor(<const uint8_t*>view.buf, view.len)
        size, count = left(&all), 0
        if codec:
            size = measure(all, codec, spans, &count)
            if not size:
                return b""
        body = PyBytes_GET_SIZE(head) + size
        if body > MAX_BODY:
            raise ValueError(f"a tag of {body} bytes is more than FLV can say")
        made = PyBytes_FromStringAndSize(NULL, TAG_HEADER + body + PREVIOUS_SIZE)
        out = output(<uint8_t*>PyBytes_AS_STRING(made), PyBytes_GET_SIZE(made))
        put_u8(&out, <uint8_t>kind)
        put_u24(&out, <uint32_t>body)
        put_u24(&out, <uint32_t>(timestamp & 0xFFFFFF))
        put_u8(&out, <uint8_t>(timestamp >> 24 & 0x7F))
        put_u24(&out, 0)  # StreamID
        start = cursor(<const uint8_t*>PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
        put(&out, &start)
        if codec:
            write(&out, all, codec, spans, count)
        else:
            put(&out, &all)
        put_u32(&out, <uint32_t>(TAG_HEADER + body))
    finally:
        PyBuffer_Release(&view)
    if out.short or out.at != out.end:
        raise AssertionError("a tag was measured wrongly")
    return made


cdef bint next_nal(Cursor* c, int codec, Cursor* nal) noexcept nogil:
    """The next NAL unit without start code and trailing zeros (H.264 annex B); empty ones are skipped, and of H.265 those that
    an `hvc1` sample must not hold: parameter sets (ISO/IEC 14496-15 section 8.4.1). False at the end."""
    cdef Py_ssize_t begin, end
    cdef int kind
    while True:
        begin = find_start_code(c.base, c.at, c.end)
        if begin < 0:
            return False
        begin += START_CODE
        end = find_start_code(c.base, begin, c.end)
        take(c, (c.end if end < 0 else end) - c.at)
        end = c.at
        nal[0] = cursor(c.base, end)
        take(nal, begin)
        trim(nal)
        if not left(nal):
            continue
        kind = peek(nal, 0) >> 1 & 0x3F
        if codec == H265 and left(nal) >= 2 and 32 <= kind <= 34:  # less is no header (H.265 section 7.3.1.2)
            continue
        return True


cdef inline void trim(Cursor* nal) noexcept nogil:
    """Without trailing_zero_8bits, which are no part of a NAL unit; the first of them belongs to the next start code."""
    while left(nal) and peek(nal, left(nal) - 1) == 0:
        nal.end -= 1


cdef Py_ssize_t measure(Cursor all, int codec, Span* spans, Py_ssize_t* count) noexcept nogil:
    """Bytes of all NAL units with their lengths; where the first SPANS of them are, and how many there are."""
    cdef Cursor nal
    cdef Py_ssize_t size = 0
    while next_nal(&all, codec, &nal):
        if count[0] < SPANS:
            spans[count[0]].begin = nal.at
            spans[count[0]].end = nal.end
        count[0] += 1
        size += LENGTH + left(&nal)
    return size


cdef void write(Output* out, Cursor all, int codec, const Span* spans, Py_ssize_t count) noexcept nogil:
    cdef Cursor nal, at
    cdef Py_ssize_t i
    for i in range(min(count, SPANS)):
        at = all
        take(&at, spans[i].begin)
        nal = sub(&at, spans[i].end - spans[i].begin)
        put_u32(out, <uint32_t>left(&nal))
        put(out, &nal)
    if count > SPANS:
        take(&all, spans[SPANS - 1].end)
        while next_nal(&all, codec, &nal):
            put_u32(out, <uint32_t>left(&nal))
            put(out, &nal)
