# cython: language_level=3, binding=True, embedsignature=True
# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True
"""MPEG program stream demultiplexer (Rec. ITU-T H.222.0 (2021) section 2.5; GB/T 28181-2022 Annex C)."""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memset

from gbgw._bytes cimport (
    Buffer, Cursor, append, buffer, bytes_at, copied, cursor, cut, drop, find_start_code, grained, held, left, live, peek, prepend, release, reserve,
    sub, take, u8, u16,
)

from gbgw.base import codec as codecs, limits


@cython.final
@cython.auto_pickle(False)
@cython.freelist(256)
cdef class Block:
    def __dealloc__(self):
        free(self.data)


@cython.final
@cython.no_gc  # what it holds refers to nothing: no cycle can go through it, and there are thousands
@cython.freelist(256)
cdef class AccessUnit:
    def __init__(
        self,
        bytes data not None,
        object codec not None,
        object pts,
        object dts=None,
        *,
        bint is_keyframe=False,
        tuple parameter_sets not None=(),
        int track_id=0xE0,
        bint discontinuity=False,
        double arrived=0.0,
        int refresh=0,
    ):
        self.owner = data
        self.data = <const uint8_t*>PyBytes_AS_STRING(data)
        self.length = PyBytes_GET_SIZE(data)
        self.codec = codec
        self.pts = pts
        self.dts = dts
        self.is_keyframe = is_keyframe
        self.parameter_sets = parameter_sets
        self.track_id = track_id
        self.discontinuity = discontinuity
        self.arrived = arrived
        self.refresh = refresh

    def __len__(self):
        return self.length

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.data, self.length, 1, flags)

    def with_times(self, object pts, object dts):
        return self.timed(pts, dts)

    cdef AccessUnit timed(self, object pts, object dts):
        cdef AccessUnit unit = AccessUnit.__new__(AccessUnit)
        unit.owner = self.owner
        unit.data = self.data
        unit.length = self.length
        unit.codec = self.codec
        unit.pts = pts
        unit.dts = dts
        unit.is_keyframe = self.is_keyframe
        unit.parameter_sets = self.parameter_sets
        unit.track_id = self.track_id
        unit.discontinuity = self.discontinuity
        unit.arrived = self.arrived
        unit.refresh = self.refresh
        return unit

    def __bytes__(self):
        if type(self.owner) is bytes:
            return self.owner
        return PyBytes_FromStringAndSize(<const char*>self.data, self.length)

    def __eq__(self, object other):
        cdef AccessUnit unit
        if type(other) is not AccessUnit:
            return NotImplemented
        unit = <AccessUnit>other
        return (
            self.length == unit.length
            and self.track_id == unit.track_id
            and self.is_keyframe == unit.is_keyframe
            and self.discontinuity == unit.discontinuity
            and self.refresh == unit.refresh
            and self.pts == unit.pts
            and self.dts == unit.dts
            and self.codec == unit.codec
            and self.parameter_sets == unit.parameter_sets
            and memcmp(self.data, unit.data, <size_t>self.length) == 0
        )

    def __hash__(self):
        return hash((self.length, self.track_id, self.pts, self.dts))

    def __repr__(self):
        return (
            f"AccessUnit({self.codec.name}, {self.length} bytes, track_id=0x{self.track_id:02x}, pts={self.pts}, dts={self.dts}"
            f"{', keyframe' if self.is_keyframe else ''}{', discontinuity' if self.discontinuity else ''}"
            f"{f', refresh={self.refresh}' if self.refresh else ''}"
            f"{f', {len(self.parameter_sets)} parameter sets' if self.parameter_sets else ''})"
        )

    def __reduce__(self):
        return _unpickle, (
            bytes(self),
            self.codec,
            self.pts,
            self.dts,
            self.is_keyframe,
            self.parameter_sets,
            self.track_id,
            self.discontinuity,
            self.arrived,
            self.refresh,
        )


def _unpickle(data, codec, pts, dts, is_keyframe, parameter_sets, track_id, discontinuity, arrived, refresh):
    return AccessUnit(
        data, codec, pts, dts, is_keyframe=is_keyframe, parameter_sets=parameter_sets, track_id=track_id,
        discontinuity=discontinuity, arrived=arrived, refresh=refresh,
    )


# Codec rows are numbers inside: the place in base.codec.CODECS, from 1. `_check_rows` holds these names against the table.
cdef enum:
    H264 = 1
    H265 = 2
    PCMA = 3
    PCMU = 4
    AAC = 5
    MPEG1V = 6
    MPEG2V = 7
    MPEG4 = 8
    MPEG1_AUDIO = 11

cdef enum:
    PROGRAM_END_CODE = 0xB9
    PACK_START_CODE = 0xBA
    SYSTEM_HEADER_START_CODE = 0xBB
    STREAM_ID_PSM = 0xBC
    STREAM_ID_PRIVATE_1 = 0xBD
    STREAM_ID_PADDING = 0xBE
    STREAM_ID_AUDIO = 0xC0
    STREAM_ID_VIDEO = 0xE0
    STREAM_ID_AFTER_VIDEO = 0xF0

cdef enum:  # state
    HUNT  # for a pack header
    RESYNC  # for any header that looks whole
    SYNCED  # a start code is due
    IN_VIDEO
    IN_SIDE  # audio, private or padding PES
    LANDING  # the side PES is whole, but what follows must vouch for its length

cdef enum Verdict:
    NO
    YES
    NEED_MORE

cdef enum:
    ALL_HEADERS
    PACK_ONLY

cdef enum:
    PTS_BITS = 33
    MARKS_TO_TRUST = 8  # architecture.md decision 11
    LENGTHS_TO_TRUST = 16  # PES that ended where they said, until one that does not is a hole and no habit
    LENGTHS_PER_HOLE = 4  # of them are forgotten with each that does not
    KEY_LIE = 2  # weighs as much as two key pictures that ended where they said
    MAX_PES_LENGTH = 0xFFFF
    SLICE_BYTES = 65536  # of one push at a time, so that what is held stays near one PES
    SIDE_BYTES = 65536 + 32
    HEAD_BYTES = 131072 + 4096  # a whole PES given back, with the start of the next headers
    SEARCH_BYTES = 64
    MAX_SETS = 32  # limits.PARAMETER_SETS
    MAX_SET_BYTES = 4096  # limits.PARAMETER_SET_BYTES
    MAX_PSM_BYTES = 1018  # limits.PSM_BYTES
    MAX_SYSTEM_HEADER_BYTES = 1024  # limits.SYSTEM_HEADER_BYTES
    PREFIX_NALS = 16  # before a picture's first slice: delimiter, parameter sets, SEI
    SEI_BYTES = 256  # of one SEI NAL unit that are looked at: a recovery point comes early or not at all
    SEI_PAYLOADS = 16
    MAX_REFRESH = 1000  # pictures until a gradual refresh is through; more is no way to begin
    REFRESH_UNKNOWN = 1 << 30
    SPS_BYTES = 64  # enough to reach frame_mbs_only_flag without scaling lists

cdef uint8_t[256] _ROW_OF_STREAM_TYPE
cdef uint8_t[32] _SUPPORTED
cdef uint8_t[32] _IS_VIDEO
cdef tuple _ROWS = (None, *codecs.CODECS)


def _check_rows():
    cdef int row
    for row, name in (
        (H264, "H264"), (H265, "H265"), (PCMA, "PCMA"), (PCMU, "PCMU"), (AAC, "AAC"), (MPEG1V, "MPEG1V"), (MPEG2V, "MPEG2V"),
        (MPEG4, "MPEG4"), (MPEG1_AUDIO, "MP1A"),
    ):
        if _ROWS[row].name != name:
            raise AssertionError(f"row {row} of base.codec.CODECS is {_ROWS[row].name}, not {name}")
    for name, value in (
        ("PARAMETER_SETS", MAX_SETS), ("PARAMETER_SET_BYTES", MAX_SET_BYTES), ("PSM_BYTES", MAX_PSM_BYTES),
        ("SYSTEM_HEADER_BYTES", MAX_SYSTEM_HEADER_BYTES),
    ):
        if getattr(limits, name) != value:
            raise AssertionError(f"limits.{name} is {getattr(limits, name)}, the core was built for {value}")
    for row in range(256):
        _ROW_OF_STREAM_TYPE[row] = 0
    for row in range(1, len(_ROWS)):
        codec = _ROWS[row]
        _ROW_OF_STREAM_TYPE[<int>codec.stream_type] = row
        _SUPPORTED[row] = codec.supported
        _IS_VIDEO[row] = codec.kind is codecs.VIDEO


_check_rows()


cdef inline bint is_start_code(const Cursor* c) noexcept nogil:
    return peek(c, 0) == 0 and peek(c, 1) == 0 and peek(c, 2) == 1


cdef inline bint is_system_code(const Cursor* c) noexcept nogil:
    return is_start_code(c) and peek(c, 3) >= PROGRAM_END_CODE


cdef inline int peek16(const Cursor* c, Py_ssize_t offset) noexcept nogil:
    return (<int>peek(c, offset) << 8) | peek(c, offset + 1)


cdef inline int64_t peek_time(const Cursor* c, Py_ssize_t at) noexcept nogil:
    """33 bits in five bytes (H.222.0 (2021) section 2.4.3.7), -1 when a marker bit is wrong."""
    if not (peek(c, at) & 1 and peek(c, at + 2) & 1 and peek(c, at + 4) & 1):
        return -1
    return (
        (<int64_t>((peek(c, at) >> 1) & 7) << 30) | (<int64_t>peek(c, at + 1) << 22) | (<int64_t>(peek(c, at + 2) >> 1) << 15)
        | (<int64_t>peek(c, at + 3) << 7) | (peek(c, at + 4) >> 1)
    )


cdef inline Times no_times() noexcept nogil:
    cdef Times t
    t.has_pts = False
    t.has_dts = False
    t.pts = 0
    t.dts = 0
    return t


cdef inline bint same_pts(const Times* a, const Times* b) noexcept nogil:
    return a.has_pts and b.has_pts and a.pts == b.pts


cdef Verdict confirm_pack(const Cursor* c) noexcept nogil:
    """Is this pack start code a pack header, with a start code behind it?"""
    cdef Py_ssize_t length
    cdef Cursor rest
    if left(c) < 8:
        return NEED_MORE
    rest = c[0]
    take(&rest, 4)
    if is_system_code(&rest):
        return YES if peek(c, 7) != PACK_START_CODE else NO
    if peek(c, 4) & 0xC0 == 0x40:
        if left(c) < 14:
            return NEED_MORE
        if not (peek(c, 4) & 4 and peek(c, 6) & 4 and peek(c, 8) & 4 and peek(c, 9) & 1 and peek(c, 12) & 3 == 3):
            return NO
        length = 14 + (peek(c, 13) & 7)
    elif peek(c, 4) & 0xF1 == 0x21:
        if left(c) < 12:
            return NEED_MORE
        if not (peek(c, 6) & 1 and peek(c, 8) & 1 and peek(c, 9) & 0x80 and peek(c, 11) & 1):
            return NO
        length = 12
    else:
        return NO
    if left(c) < length + 4:
        return NEED_MORE
    rest = c[0]
    take(&rest, length)
    return YES if is_system_code(&rest) else NO


cdef Verdict confirm(const Cursor* c, int wanted) noexcept nogil:
    """Judge a start code found by searching (reference 7.6): does what follows look like the header it announces?"""
    cdef int code, length
    if left(c) < 4:
        return NEED_MORE
    code = peek(c, 3)
    if code == PACK_START_CODE:
        return confirm_pack(c)
    if wanted == PACK_ONLY or code < PROGRAM_END_CODE:
        return NO
    if code == PROGRAM_END_CODE:
        return YES
    if left(c) < 9:
        return NEED_MORE
    length = peek16(c, 4)
    if code == SYSTEM_HEADER_START_CODE:
        return YES if 6 <= length <= MAX_SYSTEM_HEADER_BYTES and peek(c, 6) & 0x80 and peek(c, 8) & 1 else NO
    if code == STREAM_ID_PSM:
        return YES if 6 <= length <= MAX_PSM_BYTES and peek(c, 7) & 1 else NO
    if code == STREAM_ID_PRIVATE_1 or STREAM_ID_AUDIO <= code < STREAM_ID_AFTER_VIDEO:
        if peek(c, 6) & 0xC0 != 0x80 or peek(c, 7) & 0xC0 == 0x40:
            return NO
        if length == 0:
            return YES if code >= STREAM_ID_VIDEO else NO
        return YES if 3 + peek(c, 8) <= length else NO
    return NO


cdef int starts_picture(int codec, int first, int second, int third) noexcept nogil:
    """Can a NAL unit that begins with these bytes begin an access unit? -1 when the codec is not known."""
    cdef int kind
    if codec == H264:
        kind = first & 0x1F
        if kind == 1 or kind == 5 or kind == 2:
            return second & 0x80 != 0  # first_mb_in_slice == 0
        return 6 <= kind <= 9 or 14 <= kind <= 18
    if codec == H265:
        kind = first >> 1 & 0x3F
        if kind < 32:
            return third & 0x80 != 0  # first_slice_segment_in_pic_flag
        return kind <= 35 or kind == 39 or 41 <= kind <= 44 or 48 <= kind <= 55
    return -1


cdef bint goes_on(int codec, int first, int second, int third) noexcept nogil:
    """Is a NAL unit that begins with these bytes a slice, but not a picture's first one?"""
    if codec == H264:
        return (2 < (first & 0x1F) < 5) or (1 <= (first & 0x1F) <= 5 and second & 0x80 == 0)
    return codec == H265 and (first >> 1 & 0x3F) < 32 and third & 0x80 == 0


cdef Py_ssize_t adts_length(const Cursor* c, Py_ssize_t at) noexcept nogil:
    """Length of the ADTS frame at `at` (ISO/IEC 13818-7 section 6.2), or 0."""
    cdef Py_ssize_t length
    if left(c) - at < 7 or peek(c, at) != 0xFF or peek(c, at + 1) & 0xF6 != 0xF0 or (peek(c, at + 2) >> 2 & 15) > 12:
        return 0
    length = (<Py_ssize_t>(peek(c, at + 3) & 3) << 11) | (<Py_ssize_t>peek(c, at + 4) << 3) | (peek(c, at + 5) >> 5)
    return length if length >= 7 else 0


cdef bint is_adts(const Cursor* c) noexcept nogil:
    """Do ADTS frames fill this payload, or at least two of them follow each other?"""
    cdef Py_ssize_t at = 0, length
    cdef int frames = 0
    while at < left(c):
        length = adts_length(c, at)
        if length == 0:
            return frames >= 2
        frames += 1
        if length > left(c) - at:
            return frames >= 2
        at += length
    return frames >= 1


cdef bint is_mpeg_audio(const Cursor* c) noexcept nogil:
    """Does this payload begin with a layer I, II or III frame header (ISO/IEC 11172-3 section 2.4.1.3)?"""
    return (
        left(c) >= 4 and peek(c, 0) == 0xFF and peek(c, 1) & 0xE0 == 0xE0 and peek(c, 1) & 6 != 0 and peek(c, 1) & 0x18 != 8
        and 0x10 <= peek(c, 2) < 0xF0 and peek(c, 2) & 0x0C != 0x0C and peek(c, 3) & 3 != 2
    )


cdef struct Bits:
    Cursor bytes
    int zeros
    int mask
    int byte


cdef int bit(Bits* b) noexcept nogil:
    if b.mask == 0:
        b.byte = u8(&b.bytes)
        if b.zeros >= 2 and b.byte == 3:  # emulation_prevention_three_byte
            b.zeros = 0
            b.byte = u8(&b.bytes)
        b.zeros = b.zeros + 1 if b.byte == 0 else 0
        b.mask = 0x80
    cdef int value = 1 if b.byte & b.mask else 0
    b.mask >>= 1
    return value


cdef int64_t exp_golomb(Bits* b) noexcept nogil:
    cdef int zeros = 0
    cdef int64_t value = 1
    while zeros < 32 and not b.bytes.short and bit(b) == 0:
        zeros += 1
    for _ in range(zeros):
        value = (value << 1) | bit(b)
    return value - 1


cdef bint excludes_fields(Cursor sps) noexcept nogil:
    """frame_mbs_only_flag of an H.264 SPS (H.264 (2021) section 7.3.2.1.1); False where it cannot be reached."""
    cdef Bits b
    cdef int profile, i
    cdef int64_t kind, cycle
    take(&sps, 1)
    profile = u8(&sps)
    take(&sps, 2)
    b.bytes = sps
    b.zeros = 0
    b.mask = 0
    b.byte = 0
    if exp_golomb(&b) > 31:
        return False
    if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
        kind = exp_golomb(&b)  # chroma_format_idc
        if kind > 3:
            return False
        if kind == 3:
            bit(&b)
        if exp_golomb(&b) > 6 or exp_golomb(&b) > 6:
            return False
        bit(&b)
        if bit(&b):  # seq_scaling_matrix_present_flag: cameras do not
            return False
    if exp_golomb(&b) > 12:
        return False
    kind = exp_golomb(&b)  # pic_order_cnt_type
    if kind == 0:
        if exp_golomb(&b) > 12:
            return False
    elif kind == 1:
        bit(&b)
        exp_golomb(&b)
        exp_golomb(&b)
        cycle = exp_golomb(&b)
        if cycle > 255:
            return False
        for i in range(<int>cycle):
            exp_golomb(&b)
    elif kind != 2:
        return False
    if exp_golomb(&b) > 16:  # max_num_ref_frames
        return False
    bit(&b)
    if exp_golomb(&b) > 1023 or exp_golomb(&b) > 1023:
        return False
    return bit(&b) == 1 and not b.bytes.short


cdef inline int bits8(Bits* b) noexcept nogil:
    cdef int value = 0
    for _ in range(8):
        value = (value << 1) | bit(b)
    return value


cdef int sei_number(Bits* b) noexcept nogil:
    """payloadType or payloadSize (H.264 section 7.3.2.3.1); more than SEI_BYTES where it is absurd."""
    cdef int value = 0, byte = 255
    while byte == 255 and value <= SEI_BYTES:
        byte = bits8(b)
        value += byte
    return value


cdef int recovery_point(Cursor sei, int codec) noexcept nogil:
    """recovery_frame_cnt of an H.264 SEI (section D.1.8), recovery_poc_cnt of an H.265 one (section D.2.8); -1 without."""
    cdef Bits b
    cdef int kind, size
    cdef int64_t count
    take(&sei, 1 if codec == H264 else 2)
    sei.end = min(sei.end, sei.at + SEI_BYTES)
    b.bytes = sei
    b.zeros = b.mask = b.byte = 0
    for _ in range(SEI_PAYLOADS):
        kind = sei_number(&b)
        size = sei_number(&b)
        if kind == 6:
            count = exp_golomb(&b)
            if codec == H265:
                count = -1 if count and not count & 1 else (count + 1) >> 1  # se(v)
            return <int>count if 0 <= count <= MAX_REFRESH and not b.bytes.short else -1
        for _ in range(size):
            bits8(&b)
            if b.bytes.short:
                return -1
    return -1


cdef int way_in(const Cursor* unit, int codec) noexcept nogil:
    """How decoding may begin at a picture that is no IDR and no IRAP: 0 at once, n > 0 whole after n more pictures, -1 not.

    An H.264 I picture counts where its parameter sets come with it or a recovery point announces it: so open GOPs and
    cameras without IDR mark where one may come in. A recovery point on other pictures begins a gradual refresh.
    """
    cdef Cursor nal
    cdef Py_ssize_t at = 0
    cdef int i, kind, recovery = -1
    cdef bint has_sets = False
    for i in range(PREFIX_NALS):
        at = find_start_code(unit.base, at, unit.end)
        if at < 0:
            return -1
        nal = unit[0]
        nal.at = at + 3
        if codec == H264:
            kind = peek(&nal, 0) & 0x1F
            if 1 <= kind <= 5:
                if kind == 1 and (has_sets or recovery >= 0) and (peek(&nal, 1) & 0xF0 == 0xB0 or peek(&nal, 1) == 0x88):
                    return 0  # first_mb_in_slice 0, slice_type 2 or 7: I
                return recovery if recovery > 0 else -1
            has_sets = has_sets or kind == 7
        else:
            kind = peek(&nal, 0) >> 1 & 0x3F
            if kind < 32:
                return recovery
        if kind == (6 if codec == H264 else 39):
            nal.end = find_start_code(unit.base, nal.at, unit.end)
            if nal.end < 0:
                return -1
            recovery = max(recovery, recovery_point(nal, codec))
        at += 3
    return -1


@cython.final
@cython.auto_pickle(False)
cdef class ElementaryStream:
    def __eq__(self, object other):
        if not isinstance(other, ElementaryStream):
            return NotImplemented
        return (self.stream_id, self.declared, self.detected) == (other.stream_id, other.declared, other.detected)

    def __hash__(self):
        return hash((self.stream_id, self.declared, self.detected))

    def __repr__(self):
        return f"ElementaryStream(0x{self.stream_id:02x}, declared={self.declared}, detected={self.detected})"


@cython.final
@cython.auto_pickle(False)
cdef class Demuxer:
    def __cinit__(self, *, Py_ssize_t max_unit_bytes=limits.ACCESS_UNIT_BYTES, double silence_seconds=limits.UNIT_SILENCE_SECONDS):
        if max_unit_bytes < 1:
            raise ValueError(f"max_unit_bytes must be positive, not {max_unit_bytes}")
        self.max_unit_bytes = max_unit_bytes
        self.silence_seconds = silence_seconds
        self.head = buffer(HEAD_BYTES)
        self.side = buffer(SIDE_BYTES)
        self.unit = buffer(max_unit_bytes + 2 * SLICE_BYTES)
        self.state = HUNT
        self.video_id = -1
        self.marked_at = -1
        self.side_suspect = -1
        self.since_key = REFRESH_UNKNOWN

    def __dealloc__(self):
        cdef Py_ssize_t i
        release(&self.head)
        release(&self.side)
        release(&self.unit)
        for i in range(self.finished_count):
            free(self.finished[i].data)
        free(self.finished)

    # --- what callers use ---

    def push(self, bytes payload not None, double now):
        self.take(<const uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), now)
        return self.collect()

    def gap(self):
        self.miss()

    def mark(self, double now):
        self.take_mark(now)
        return self.collect()

    def poll(self, double now):
        self.wait(now)
        return self.collect()

    def flush(self):
        self.finish()
        return self.collect()

    @property
    def deadline(self):
        return self.due() if self.endable() else None

    @property
    def streams(self):
        cdef int i
        cdef ElementaryStream stream
        found = []
        for i in range(STREAM_ID_AUDIO, STREAM_ID_AFTER_VIDEO):
            if self.stream[i].known:
                stream = ElementaryStream.__new__(ElementaryStream)
                stream.stream_id = i
                stream.declared = _ROWS[self.stream[i].declared]
                stream.detected = _ROWS[self.stream[i].detected]
                found.append(stream)
        return found

    @property
    def packs(self):
        return self.count.packs

    @property
    def maps(self):
        return self.count.maps

    @property
    def buffered(self):
        return held(&self.head) + held(&self.side) + held(&self.unit)

    @property
    def counts(self):
        return {
            "ps.packs": self.count.packs,
            "ps.maps": self.count.maps,
            "ps.units": self.count.units,
            "ps.malformed": self.count.malformed,
            "ps.resync": self.count.resync,
            "ps.skipped_bytes": self.count.skipped_bytes,
            "ps.private": self.count.private_units,
            "ps.dropped_units": self.count.dropped_units,
            "ps.oversize": self.count.oversize,
            "ps.codec_mismatch": self.count.codec_mismatch,
            "ps.no_map": self.count.no_map,
            "ps.unsupported": self.count.unsupported,
            "ps.other_video": self.count.other_video,
        }

    # --- the same without the GIL ---

    cdef void take(self, const uint8_t* base, Py_ssize_t length, double now) noexcept nogil:
        cdef Cursor whole = cursor(base, length)
        self.now = now
        if length:  # an empty packet keeps a way open, and says nothing of markers
            self.unmarked = self.unmarked or self.mark_due
            self.mark_due = True
        while left(&whole) > 0:
            self.source = sub(&whole, min(left(&whole), SLICE_BYTES))
            self.run()
        self.source = cursor(NULL, 0)

    cdef void miss(self) noexcept nogil:
        cdef int i
        self.lose()
        self.since_key = REFRESH_UNKNOWN
        for i in range(256):
            self.stream[i].discontinuity = True

    cdef void take_mark(self, double now) noexcept nogil:
        self.mark_due = False
        if self.open and not self.damaged:
            if self.marked_at >= 0 and self.marked_at < held(&self.unit):
                self.distrust()  # an earlier marker was in the middle
            if held(&self.head) or not (self.state == SYNCED or self.state == LANDING or (self.state == IN_VIDEO and self.remaining < 0)):
                self.distrust()
                self.marked_at = -1
            elif self.has_vcl():
                self.marked_at = held(&self.unit)
                if self.trusts_marks() or self.proves_mark():
                    self.marked_close = True
                    self.end_early()
            else:
                self.marked_at = held(&self.unit)

    cdef void wait(self, double now) noexcept nogil:
        if self.endable() and now >= self.arrived + self.silence_seconds:
            self.marked_close = False
            self.end_early()

    cdef void finish(self) noexcept nogil:
        if self.state == LANDING:
            self.end_side()
        if self.open:
            if self.state == IN_VIDEO and self.remaining > 0:
                self.damaged = True
            self.close_unit(held(&self.unit))
            self.forget_unit()
        self.lose()

    cdef double due(self) noexcept nogil:
        """When wait() will have something to end; infinity when nothing waits for that."""
        return self.arrived + self.silence_seconds if self.endable() else INFINITY

    # --- the input as one run of bytes ---

    cdef bint view(self, Py_ssize_t count, Cursor* out) noexcept nogil:
        """Show the next `count` bytes in one piece, or put what there is aside for the next push and return False."""
        cdef Py_ssize_t missing
        if held(&self.head) == 0:
            if left(&self.source) >= count:
                out[0] = cursor(bytes_at(&self.source), count)
                return True
        else:
            missing = count - held(&self.head)
            if missing > 0:
                missing = min(missing, left(&self.source))
                if append(&self.head, bytes_at(&self.source), missing):
                    take(&self.source, missing)
            if held(&self.head) >= count:
                out[0] = live(&self.head)
                out.end = count
                return True
        self.stash()
        return False

    cdef void stash(self) noexcept nogil:
        cdef Py_ssize_t rest = left(&self.source)
        if rest and append(&self.head, bytes_at(&self.source), rest):
            take(&self.source, rest)

    cdef void consume(self, Py_ssize_t count) noexcept nogil:
        """Step over bytes that view() has shown."""
        self.position += count
        if held(&self.head):
            drop(&self.head, count)
            self.unread()
        else:
            take(&self.source, count)

    cdef void unread(self) noexcept nogil:
        """What is left in `head` is the end of what was read of `source`, if it is not longer: then read it there."""
        cdef Py_ssize_t rest = held(&self.head)
        if rest and rest <= self.source.at:
            self.source.at -= rest
            drop(&self.head, rest)

    cdef void give_back(self, const Cursor* bytes) noexcept nogil:
        """Put the bytes last consumed before the input again."""
        self.position -= left(bytes)
        if held(&self.head) == 0 and left(bytes) <= self.source.at:
            self.source.at -= left(bytes)
        elif not prepend(&self.head, bytes_at(bytes), left(bytes)):
            self.count.skipped_bytes += left(bytes)
            self.position += left(bytes)
            self.lose()

    # --- the parser ---

    cdef void run(self) noexcept nogil:
        """Consume all input there is; every step consumes, changes state for good, or returns."""
        while held(&self.head) or left(&self.source):
            if self.state == SYNCED:
                if not self.synced():
                    return
            elif self.state == IN_VIDEO:
                if not self.video():
                    return
            elif self.state == IN_SIDE:
                if not self.side_pes():
                    return
            elif self.state == LANDING:
                if not self.landing():
                    return
            elif not self.search():
                return

    cdef void lose(self) noexcept nogil:
        """Forget everything unfinished and hunt for a pack header."""
        if (self.open and held(&self.unit)) or (
            (self.state == IN_SIDE or self.state == LANDING) and STREAM_ID_AUDIO <= self.side_id < STREAM_ID_VIDEO
        ):
            self.count.dropped_units += 1
        self.forget_unit()
        release(&self.unit)
        release(&self.side)
        release(&self.head)
        self.closed_early = False
        self.marked_close = False
        self.state = HUNT
        self.after_video = False
        self.strayed = False
        self.pending = no_times()
        self.pending_before = no_times()
        self.pack_since_video = False

    cdef void damage(self) noexcept nogil:
        """A header is not what it should be: look for the next one. Called before anything of it is consumed."""
        cdef int i
        self.count.malformed += 1
        self.count.resync += 1
        self.state = RESYNC
        self.after_video = False
        for i in range(STREAM_ID_AUDIO, STREAM_ID_AFTER_VIDEO):
            self.stream[i].discontinuity = True

    cdef bint search(self) noexcept nogil:
        """Skip to the next header that holds up (reference 7.7); False when more input is needed."""
        cdef Cursor window, found
        cdef Py_ssize_t at, topping
        cdef Verdict verdict
        if held(&self.head):
            topping = min(max(SEARCH_BYTES - held(&self.head), 0), left(&self.source))
            if append(&self.head, bytes_at(&self.source), topping):
                take(&self.source, topping)
            window = live(&self.head)
        else:
            window = self.source
            window.base = bytes_at(&self.source)
            window.at = 0
            window.end = left(&self.source)
        at = find_start_code(window.base, 0, window.end)
        if at < 0:
            at = max(window.end - 2, 0)
            self.count.skipped_bytes += at
            self.consume(at)
            if left(&self.source) > 2 or (held(&self.head) and left(&self.source)):
                return True
            self.stash()
            return False
        found = window
        found.at = at
        verdict = confirm(&found, PACK_ONLY if self.state == HUNT else ALL_HEADERS)
        self.count.skipped_bytes += at
        if verdict == YES:
            self.consume(at)
            self.state = SYNCED
            return True
        if verdict == NO:
            if peek(&found, 3) == self.video_id:
                self.damaged = True  # a piece of this unit may be what is skipped
            self.count.skipped_bytes += 3
            self.consume(at + 3)
            return True
        self.consume(at)
        return self.view(left(&found) + 1, &window)

    cdef bint synced(self) noexcept nogil:
        cdef Cursor c
        cdef int code
        if not self.view(4, &c):
            return False
        code = peek(&c, 3)
        if not is_system_code(&c):
            if self.after_video and self.open:  # PES_packet_length was too small (reference 7.7)
                self.count.malformed += 1
                self.doubted = self.break_length(self.is_key_pes)
                self.remaining = -1
                self.state = IN_VIDEO
                self.after_video = False
            else:
                self.strayed = True
                self.damage()
            return True
        if self.after_video:
            self.keep_length()
            self.after_video = False
        self.settled = held(&self.unit)
        if code == PACK_START_CODE:
            return self.pack_header()
        if code == SYSTEM_HEADER_START_CODE:
            return self.system_header()
        if code == STREAM_ID_PSM:
            return self.program_stream_map()
        if code == PROGRAM_END_CODE:
            if self.open:
                self.close_unit(held(&self.unit))
                self.forget_unit()
            self.after_video = False
            self.consume(4)
            return True
        return self.pes(code)

    cdef bint pack_header(self) noexcept nogil:
        cdef Cursor c
        cdef Py_ssize_t length
        if not self.view(7, &c):
            return False
        take(&c, 4)
        if is_start_code(&c):
            length = 4  # Hikvision H.265: no body (reference 7.2)
        elif peek(&c, 0) & 0xC0 == 0x40:
            if not self.view(14, &c):
                return False
            length = 14 + (peek(&c, 13) & 7)
        elif peek(&c, 0) & 0xF0 == 0x20:
            length = 12
        else:
            self.damage()
            self.consume(4)
            return True
        if not self.view(length, &c):
            return False
        self.count.packs += 1
        self.pack_since_video = True
        self.after_video = False
        self.consume(length)
        return True

    cdef bint system_header(self) noexcept nogil:
        cdef Cursor c
        cdef Py_ssize_t length, inside
        if not self.view(6, &c):
            return False
        length = 6 + peek16(&c, 4)
        if length > 6 + MAX_SYSTEM_HEADER_BYTES:
            self.damage()
            self.consume(6)
            return True
        if not self.view(length, &c):
            return False
        inside = find_start_code(c.base + c.at, 6, length)
        if inside >= 0:
            self.count.malformed += 1
            length = inside
        self.after_video = False
        self.consume(length)
        return True

    cdef bint program_stream_map(self) noexcept nogil:
        cdef Cursor c, body
        cdef Py_ssize_t length, at
        if not self.view(6, &c):
            return False
        length = 6 + peek16(&c, 4)
        if length == 6 or length > 6 + MAX_PSM_BYTES:
            self.damage()
            self.consume(6)
            return True
        if not self.view(length + 4, &c):
            return False
        body = c
        take(&body, length)
        if not is_start_code(&body):
            # The length is wrong. A header inside the map ends it; otherwise search behind it.
            at = 6
            while True:
                at = find_start_code(c.base + c.at, at, length)
                if at < 0:
                    break
                body = c
                take(&body, at)
                if peek(&body, 3) >= PROGRAM_END_CODE and confirm(&body, ALL_HEADERS) != NO:
                    break
                at += 3
            if at >= 0:
                self.count.malformed += 1
                length = at
        body = c
        take(&body, 6)
        body.end = body.at + length - 6
        if self.parse_map(body):
            self.count.maps += 1
        else:
            self.count.malformed += 1
        self.after_video = False
        self.consume(length)
        return True

    cdef bint parse_map(self, Cursor c) noexcept nogil:
        """Take a program stream map over (H.222.0 (2021) section 2.5.4); False leaves the old one in force."""
        cdef int row[256]
        cdef int i, stream_type, stream_id, found = 0
        cdef Py_ssize_t room
        cdef Cursor entries
        for i in range(256):
            row[i] = -1
        take(&c, 2)
        take(&c, u16(&c))
        room = u16(&c)
        room = min(room, left(&c) - 4 if left(&c) >= 8 else left(&c))  # the CRC is no entry, whatever the length says
        if c.short:
            return False
        entries = sub(&c, room)
        while left(&entries) >= 4:
            stream_type = u8(&entries)
            stream_id = u8(&entries)
            take(&entries, u16(&entries))
            if stream_id < STREAM_ID_PSM:
                break
            found += 1
            row[stream_id] = _ROW_OF_STREAM_TYPE[stream_type]
        if not found:
            return False
        for i in range(STREAM_ID_AUDIO, STREAM_ID_AFTER_VIDEO):
            if row[i] > 0 and _IS_VIDEO[row[i]] != (i >= STREAM_ID_VIDEO):
                row[i] = 0  # a sound that claims to be a picture is believed by content only
            if row[i] >= 0:
                self.stream[i].known = True
            if self.stream[i].declared != max(row[i], 0):
                self.stream[i].declared = max(row[i], 0)
                if i < STREAM_ID_VIDEO:
                    self.stream[i].detected = 0
                    self.stream[i].misses = 0
                self.dispute(i)
        return True

    cdef int64_t unwrap(self, int64_t value) noexcept nogil:
        """Nearest neighbour on the one time line of all streams (base.ticks.Unwrapper)."""
        cdef int64_t modulus = <int64_t>1 << PTS_BITS
        cdef int64_t delta
        if self.has_last_pts:
            delta = (value - self.last_pts) & (modulus - 1)
            if delta >= modulus >> 1:
                delta -= modulus
            value = self.last_pts + delta
        return value

    cdef bint pes(self, int stream_id) noexcept nogil:
        """Read a PES header of either generation (H.222.0 section 2.4.3.6; ISO/IEC 11172-1 section 2.4.3.3)."""
        cdef Cursor c
        cdef Py_ssize_t length, header = 6, ahead
        cdef int64_t pts = -1, dts = -1
        cdef Times times = no_times()
        cdef bint is_video = STREAM_ID_VIDEO <= stream_id < STREAM_ID_AFTER_VIDEO
        cdef bint is_audio = STREAM_ID_AUDIO <= stream_id < STREAM_ID_VIDEO
        cdef bint ignored = is_video and self.video_id >= 0 and self.video_id != stream_id
        if not self.view(6, &c):
            return False
        length = peek16(&c, 4)
        if is_video or is_audio:
            if 0 < length < 3:
                self.damage()
                self.consume(6)
                return True
            if not self.view(9, &c):
                return False
            if peek(&c, 6) & 0xC0 == 0x80:
                header = 9 + peek(&c, 8)
                if length and header > 6 + length:
                    if stream_id == self.video_id:
                        self.damaged = True
                    self.damage()
                    self.consume(6)
                    return True
                if not self.view(header, &c):
                    return False
                if peek(&c, 7) & 0x80 and header >= 14:
                    pts = peek_time(&c, 9)
                    if peek(&c, 7) & 0x40 and header >= 19:
                        dts = peek_time(&c, 14)
            else:
                ahead = min(6 + 16 + 2 + 10, 6 + length) if length else 6 + 16 + 2 + 10
                if not self.view(ahead, &c):
                    return False
                while header < 6 + 16 and peek(&c, header) == 0xFF:
                    header += 1
                if peek(&c, header) & 0xC0 == 0x40:
                    header += 2
                if peek(&c, header) & 0xF0 == 0x20:
                    pts = peek_time(&c, header)
                    header += 5
                elif peek(&c, header) & 0xF0 == 0x30:
                    pts = peek_time(&c, header)
                    dts = peek_time(&c, header + 5)
                    header += 10
                elif peek(&c, header) == 0x0F:
                    header += 1
                else:
                    header = ahead + 1
                if header > ahead:
                    if stream_id == self.video_id:
                        self.damaged = True
                    self.damage()
                    self.consume(6)
                    return True
            if pts >= 0 and not ignored:
                times.has_pts = True
                times.pts = self.unwrap(pts)
                self.last_pts = times.pts
                self.has_last_pts = True
                if dts >= 0:
                    times.has_dts = True
                    times.dts = self.unwrap(dts)
            self.stream[stream_id].known = True
        if is_video and not ignored:
            return self.begin_video(header, 6 + length - header if length else -1, times)
        if length == 0:
            if ignored:
                self.count.other_video += 1
                self.state = RESYNC
                self.after_video = False
            else:
                self.damage()
            self.consume(header)
            return True
        if ignored:
            self.count.other_video += 1
        elif not is_audio and stream_id != STREAM_ID_PADDING:
            self.count.private_units += 1
        self.consume(header)
        self.side_id = stream_id
        self.side_length = 6 + length - header
        self.side_times = times
        self.side_suspect = -1
        drop(&self.side, held(&self.side))
        self.after_video = False
        self.state = IN_SIDE
        if self.side_length == 0:
            self.state = SYNCED
        return True

    # --- video ---

    cdef bint begin_video(self, Py_ssize_t header, int64_t payload, Times times) noexcept nogil:
        """The unit's next PES: does it go on with the unit, or end it (architecture.md decision 11)?"""
        cdef Cursor c, whole
        cdef Py_ssize_t ahead = header + (7 if payload < 0 else min(payload, 7))
        cdef int zeros = 2, stream_id, picture = 0
        cdef Py_ssize_t border
        cdef bint starts, fresh, ahead_of_picture, before_border = False, middle = False
        if not self.view(ahead, &c):
            return False
        whole = c
        stream_id = peek(&c, 3)
        self.video_id = stream_id
        take(&c, header)
        if peek(&c, 2) == 0:
            zeros = 3
        starts = left(&c) > zeros and peek(&c, 0) == 0 and peek(&c, 1) == 0 and peek(&c, zeros) == 1
        if starts:
            picture = starts_picture(self.judge(), peek(&c, zeros + 1), peek(&c, zeros + 2), peek(&c, zeros + 3))
            middle = goes_on(self.judge(), peek(&c, zeros + 1), peek(&c, zeros + 2), peek(&c, zeros + 3))
        fresh = times.has_pts and not (self.times.has_pts and self.times.pts == times.pts)
        if payload != 0:
            if not self.open:
                if self.closed_early:
                    fresh = starts and not middle and ((times.has_pts and not same_pts(&times, &self.closed_times)) or picture != 0)
                    if self.marked_close:
                        if fresh:
                            self.agreements = min(self.agreements + 1, MARKS_TO_TRUST)
                            self.proved = True  # else it would not have ended the unit
                        else:
                            self.distrust()
                else:
                    fresh = starts and not middle and ((times.has_pts and not self.unaligned) or picture != 0)
                self.open_unit(times)
                if not fresh:  # its beginning went by: with the last unit, or before we listened
                    self.damaged = True
                    self.times = no_times()
                    if self.closed_early and not starts:
                        self.unaligned = self.unaligned or times.has_pts
                self.pending = times if not fresh and (self.unaligned or not starts) else no_times()
                self.pending_before = no_times()
            elif fresh and starts:
                self.measure(held(&self.unit))
                self.scan(True)
                ahead_of_picture = (
                    not self.damaged and not self.has_vcl() and self.judge() in (H264, H265)
                    and self.evidence.count and not self.evidence.forbidden
                )
                if self.unaligned and (ahead_of_picture or picture == 0):  # the picture began before this PES, whose time is not its own
                    self.pending_before = self.pending
                    self.pending = times
                else:
                    if ahead_of_picture:
                        self.times = times  # parameter sets that were sent ahead belong to the picture
                    else:
                        c = live(&self.unit)
                        # A zero before a three-byte start code belongs to it, though it be all there is: of a damaged unit
                        # no more than that may be left.
                        border = c.end - 1 if zeros == 2 and c.end > 0 and peek(&c, c.end - 1) == 0 else c.end
                        self.marked_at = min(self.marked_at, border)
                        before_border = border < c.end and self.unaligned  # its first byte came with the PES before
                        self.close_unit(border)
                        if border == c.end:
                            self.open_unit(times)
                        if not before_border:
                            self.times = times
                    self.pending = times if before_border else no_times()
                    self.pending_before = no_times()
            else:
                self.spanned = self.spanned or self.has_vcl()  # a marker between will be found to be in the middle
                self.pending_before = self.pending
                self.pending = times if fresh else no_times()
                # What was skipped may be the PES it went on with; and a new time without a start code is a headless picture
                # where all had heads so far.
                if self.strayed or (fresh and not self.unaligned and self.kept_lengths >= LENGTHS_TO_TRUST):
                    self.damaged = True
                self.unaligned = self.unaligned or fresh
            self.pes_begin = held(&self.unit)
            self.settled = held(&self.unit)
            self.header_inside = False
            self.strayed = False
            self.said = payload
            self.says_most = peek16(&whole, 4) == MAX_PES_LENGTH
        self.consume(header)
        self.remaining = payload
        self.after_video = False
        self.state = IN_VIDEO
        if payload == 0:
            self.state = SYNCED
        return True

    cdef bint video(self) noexcept nogil:
        """Move payload into the unit; the only copy its bytes ever see."""
        cdef Py_ssize_t count
        cdef Cursor c
        if held(&self.head):
            c = live(&self.head)
        else:
            c = cursor(bytes_at(&self.source), left(&self.source))
        count = left(&c)
        if self.remaining >= 0:
            count = min(count, self.remaining)
        if not self.open:  # an unbounded PES goes on after its unit was ended early
            self.open_unit(no_times())
            self.damaged = True
            self.leftover = True
        if self.remaining > count:  # at most what 16 bits say: room for the whole PES, so that it is not moved as it grows
            reserve(&self.unit, self.remaining)
        if not append(&self.unit, bytes_at(&c), count):
            self.count.oversize += 1
            self.lose()
            return True
        self.consume(count)
        if self.remaining >= 0:
            self.remaining -= count
        self.arrived = self.now
        self.scan(False)
        if self.state == IN_VIDEO and self.remaining == 0:
            self.state = SYNCED
            self.after_video = True
            self.is_key_pes = self.evidence.key264 or self.evidence.key265
        return True

    cdef void scan(self, bint final) noexcept nogil:
        """Look at every start code of the unit once: NAL units, the next access unit, a header where none should be."""
        cdef Py_ssize_t at, begin
        cdef Cursor c, found
        cdef Verdict verdict
        while True:
            c = live(&self.unit)
            at = find_start_code(c.base, self.scan_at, c.end)
            if at < 0:
                self.scan_at = max(self.scan_at, c.end - 2)
                break
            found = c
            found.at = at
            self.measure(at - 1)
            if left(&found) < 4 and not final:
                self.scan_at = at
                break
            if peek(&found, 3) >= PROGRAM_END_CODE and at >= self.settled and self.state == IN_VIDEO:
                verdict = confirm(&found, ALL_HEADERS if self.remaining < 0 else PACK_ONLY)
                if verdict == NEED_MORE and not final:
                    self.scan_at = at
                    break
                if verdict == YES:
                    if self.remaining >= 0:  # PES_packet_length was too large (reference 7.7)
                        self.count.malformed += 1
                        self.count.resync += 1
                        if self.break_length(self.evidence.key264 or self.evidence.key265):
                            self.damaged = True
                    self.settle_doubt(at)
                    self.remaining = 0
                    self.state = SYNCED
                    self.give_back(&found)
                    cut(&self.unit, at)
                    self.scan_at = min(at, held(&self.unit))
                    if self.leftover and at == 0:  # nothing was left: the unit had ended indeed
                        self.forget_unit()
                        self.closed_early = True
                    elif self.leftover and self.marked_close:
                        self.distrust()
                    self.leftover = False
                    return
            if left(&found) < 6 and not final:
                self.scan_at = at
                break
            if self.nal(at):
                begin = at - 1 if at > 0 and peek(&c, at - 1) == 0 else at
                if self.header_inside and self.kept_lengths >= LENGTHS_TO_TRUST:
                    self.damaged = True
                self.close_unit(begin)
                continue
            self.scan_at = at + 3
        self.measure(self.scan_at - 1)
        if self.damaged and not final and self.scan_at > 1:
            self.shift(self.scan_at - 1)

    cdef void measure(self, Py_ssize_t length) noexcept nogil:
        """The unit is at least this long."""
        if length > self.max_unit_bytes and not self.damaged:
            self.damaged = True
            self.count.oversize += 1

    cdef bint nal(self, Py_ssize_t at) noexcept nogil:
        """Note the NAL unit whose start code is at `at`; True, and not noted, when it begins the next access unit."""
        cdef Cursor c = live(&self.unit)
        cdef int first, second, kind, codec
        cdef Evidence* e = &self.evidence
        cdef Span* span
        take(&c, at + 3)
        if left(&c) == 0:
            return False
        first = peek(&c, 0)
        second = peek(&c, 1)
        if at > 0 and (e.vcl264 or e.vcl265 or self.damaged) and first < 0x80:
            codec = self.judge()
            if (self.damaged or (e.vcl264 if codec == H264 else e.vcl265)) and starts_picture(codec, first, second, peek(&c, 2)) == 1:
                if (
                    codec == H265 or (first & 0x1F) > 5 or self.frames_only or self.unaligned
                    or (self.pack_since_video and at <= self.pes_begin + 1)
                ):
                    return True
        if e.count < 0x7FFFFFFF:
            e.count += 1
        self.end_set(at)
        if at >= self.pes_begin:
            self.pack_since_video = False
        if first & 0x80:
            e.forbidden += 1
            self.header_inside = self.header_inside or (first == self.video_id and at >= self.pes_begin)
            if first == 0xB3:
                e.mpeg2 = True
            elif first == 0xB0 or first == 0xB6:
                e.mpeg4 = True
            return False
        kind = first & 0x1F
        if kind == 5 and first & 0x60 or kind == 1:
            e.valid264 += 1
            e.vcl264 = True
            e.key264 = e.key264 or kind == 5
        elif kind == 7 and first & 0x60 and second in (66, 77, 88, 100, 110, 122, 244, 44, 83, 86, 118, 128):
            e.valid264 += 1
            e.sets264 |= 1
        elif kind == 8 and first & 0x60 and second >= 4:
            e.valid264 += 1
            e.sets264 |= 2
        elif first & 0x60 == 0 and kind in (6, 9, 10, 11, 12):
            e.valid264 += 1
        elif kind == 2 and first & 0x60:
            e.vcl264 = True  # slice data partitioning, Extended profile
        if not first & 0x81 and second & 0xF8 == 0 and second & 7:
            kind = first >> 1
            if kind <= 9 or 16 <= kind <= 21:
                e.vcl265 = True
                e.key265 = e.key265 or kind >= 16
                if second == 1 and (kind <= 1 or kind >= 16):
                    e.valid265 += 1
            elif second == 1 and 32 <= kind <= 34:
                e.valid265 += 1
                e.sets265 |= 1 << (kind - 32)
            elif second == 1 and kind in (35, 39, 40):
                e.valid265 += 1
        if self.sets < MAX_SETS:
            kind = H264 if (first & 0x1F) in (7, 8) else H265 if first in (0x40, 0x42, 0x44) and second == 1 else 0
            if kind:
                span = &self.set[self.sets]
                span.begin = at + 3
                span.end = -1
                span.codec = kind
                self.sets += 1
                self.in_set = True
        return False

    cdef void end_set(self, Py_ssize_t at) noexcept nogil:
        """The parameter set in progress ends before `at`, without its trailing zeros."""
        cdef Cursor c
        cdef Span* span
        if not self.in_set:
            return
        self.in_set = False
        span = &self.set[self.sets - 1]
        c = live(&self.unit)
        while at > span.begin and peek(&c, at - 1) == 0:
            at -= 1
        span.end = at
        if at == span.begin or at - span.begin > MAX_SET_BYTES:
            self.sets -= 1
        elif span.codec == H264 and peek(&c, span.begin) & 0x1F == 7 and not self.damaged:
            self.read_sps(span)

    cdef void read_sps(self, const Span* span) noexcept nogil:
        cdef Cursor c = live(&self.unit)
        take(&c, span.begin)
        c.end = min(span.end, span.begin + SPS_BYTES)
        self.frames_only = excludes_fields(c)

    cdef int judge(self) noexcept nogil:
        """What the unit in progress is: content first, then what content said before, then the map (reference 7.8)."""
        cdef Evidence* e = &self.evidence
        cdef Stream* stream
        cdef bint is264 = e.sets264 & 1 and not e.forbidden
        cdef bint is265 = e.sets265 & 3 and not e.forbidden
        if is264 and is265:
            is264 = e.sets264 == 3
            is265 = e.sets265 == 7
        if is264 != is265:
            return H264 if is264 else H265
        if self.video_id < 0:
            return 0
        stream = &self.stream[self.video_id]
        if stream.detected:
            return stream.detected
        if e.count and e.valid264 == e.count and e.valid265 == 0:
            return H264
        if e.count and e.valid265 == e.count and e.valid264 == 0:
            return H265
        if e.mpeg2:
            return MPEG2V
        if e.mpeg4:
            return MPEG4
        return stream.declared

    cdef bint has_vcl(self) noexcept nogil:
        cdef int codec = self.judge()
        return (codec == H264 and self.evidence.vcl264) or (codec == H265 and self.evidence.vcl265)

    cdef void clear_evidence(self) noexcept nogil:
        memset(&self.evidence, 0, sizeof(Evidence))
        self.sets = 0
        self.in_set = False

    cdef void open_unit(self, Times times) noexcept nogil:
        self.clear_evidence()
        self.spanned = False
        self.leftover = False
        self.open = True
        self.damaged = False
        self.doubted = False
        self.times = times
        self.scan_at = 0
        self.settled = 0
        self.pes_begin = 0
        self.marked_at = -1
        self.closed_early = False
        drop(&self.unit, held(&self.unit))

    cdef void forget_unit(self) noexcept nogil:
        self.clear_evidence()
        self.spanned = False
        drop(&self.unit, held(&self.unit))
        self.open = False
        self.damaged = False
        self.doubted = False
        self.times = no_times()
        self.scan_at = 0
        self.settled = 0
        self.pes_begin = 0
        self.marked_at = -1

    cdef void shift(self, Py_ssize_t length) noexcept nogil:
        """Drop bytes at the front of a unit that will not be returned."""
        if self.leftover and self.marked_close:
            self.distrust()
        self.leftover = False
        drop(&self.unit, length)
        self.scan_at -= length
        self.settled = max(self.settled - length, 0)
        self.pes_begin -= length
        self.sets = 0
        self.in_set = False
        if self.marked_at >= 0:
            self.marked_at = max(self.marked_at - length, 0)

    cdef void close_unit(self, Py_ssize_t length) noexcept nogil:
        """End the unit at `length`, return it if it is whole, and make what follows a unit of its own."""
        cdef int codec
        cdef Py_ssize_t marked = self.marked_at
        cdef Py_ssize_t pes_begin = self.pes_begin
        cdef Times times = no_times()
        cdef bint taken = False
        if length == held(&self.unit):
            self.scan(True)
            length = held(&self.unit)
            marked = self.marked_at
            pes_begin = self.pes_begin
        self.settle_doubt(length)
        self.measure(length)
        self.end_set(length)
        if marked >= 0 and marked <= length and not self.damaged:
            if marked == length:
                self.agreements = min(self.agreements + 1, MARKS_TO_TRUST)
                self.proved = self.proved or self.unmarked
            else:
                self.distrust()
            marked = -1
        self.unmarked = self.spanned = False
        codec = self.judge()
        if codec and codec != self.stream[self.video_id].declared:
            self.detect(self.video_id, codec)
        elif codec and self.evidence.count and (self.evidence.sets264 | self.evidence.sets265 or self.has_vcl()):
            self.detect(self.video_id, codec)
        if codec and not _SUPPORTED[codec]:
            self.count.unsupported += 1
        elif self.damaged or not self.has_vcl():
            self.drop_unit(self.video_id)
        else:
            taken = self.emit(length, codec)
        if not taken:
            drop(&self.unit, length)
        self.clear_evidence()
        self.damaged = False
        if length >= pes_begin:
            times = self.pending
            self.pending = no_times()
        else:
            times = self.pending_before
        self.pending_before = no_times()
        self.times = times
        self.scan_at = 0
        self.settled = max(self.settled - length, 0)
        self.pes_begin = pes_begin - length
        self.marked_at = marked - length if marked >= 0 else -1

    cdef Finished* next_finished(self) noexcept nogil:
        cdef Finished* grown
        cdef Py_ssize_t capacity
        if self.finished_count == self.finished_capacity:
            capacity = max(4, 2 * self.finished_capacity)
            grown = <Finished*>realloc(self.finished, <size_t>capacity * sizeof(Finished))
            if grown == NULL:
                return NULL
            self.finished = grown
            self.finished_capacity = capacity
        self.finished_count += 1
        return &self.finished[self.finished_count - 1]

    cdef bint emit(self, Py_ssize_t length, int codec) noexcept nogil:
        """Hand the first `length` bytes of the unit over and leave the rest; of the two the smaller is copied. False: nothing changed."""
        cdef Finished* unit
        cdef Buffer moved = self.unit
        cdef Buffer rest = buffer(self.unit.limit)
        cdef Cursor c = live(&self.unit)
        cdef Py_ssize_t tail = held(&self.unit) - length
        cdef int i, refresh
        cdef bint is_key = self.evidence.key264 if codec == H264 else self.evidence.key265
        cdef uint8_t* smaller
        c.end = length
        refresh = 0 if is_key else way_in(&c, codec)
        c = live(&self.unit)
        take(&c, length)
        unit = self.next_finished()
        if unit == NULL:
            self.drop_unit(self.video_id)
            return False
        if tail > length:
            moved = buffer(length)
            c = live(&self.unit)
            if not append(&moved, bytes_at(&c), length):
                self.finished_count -= 1
                self.drop_unit(self.video_id)
                return False
            drop(&self.unit, length)
        else:
            if tail and not append(&rest, bytes_at(&c), tail):
                self.finished_count -= 1
                self.drop_unit(self.video_id)
                return False
            self.unit = rest
            if moved.capacity - moved.begin - length > length >> 3:
                smaller = <uint8_t*>realloc(moved.data, <size_t>grained(moved.begin + length))
                if smaller != NULL:
                    moved.data = smaller
        unit.data = moved.data
        unit.begin = moved.begin
        unit.length = length
        unit.times = self.times
        unit.arrived = self.arrived
        unit.codec = codec
        unit.track_id = self.video_id
        # A camera that announces a refresh with every picture is not believed: one must be through before the next.
        unit.is_keyframe = 0 <= refresh <= self.since_key
        unit.refresh = refresh if unit.is_keyframe else 0
        self.since_key = 0 if unit.is_keyframe else min(self.since_key + 1, <int>REFRESH_UNKNOWN)
        unit.discontinuity = self.stream[self.video_id].discontinuity
        self.stream[self.video_id].discontinuity = False
        unit.sets = 0
        for i in range(self.sets):
            if self.set[i].codec == codec and self.set[i].end > self.set[i].begin:
                unit.set[unit.sets] = self.set[i]
                unit.sets += 1
        self.count.units += 1
        if self.stream[self.video_id].declared == 0:
            self.count.no_map += 1
        return True

    cdef bint endable(self) noexcept nogil:
        """May silence end the unit? Not inside a PES, and an unbounded one has no end of its own; and where markers end units
        a missing one means that more is to come, or was lost: the next packet will say."""
        return (
            self.open and not self.damaged and self.state != HUNT and self.state != RESYNC and self.state != IN_VIDEO
            and not self.trusts_marks() and self.has_vcl()
        )

    cdef bint trusts_marks(self) noexcept nogil:
        """Markers have ended units for a while, one of several packets among them: a marker on every packet proves nothing."""
        return self.agreements >= MARKS_TO_TRUST and self.proved

    cdef bint proves_mark(self) noexcept nogil:
        """Does the program stream itself say that this marker, of a camera that never set one elsewhere, ends the unit? Slice data
        has gone on into another PES (`spanned`) without a marker: so it is not on every packet or PES, and who sends slices
        one by one has small ones. Not where a second field may follow."""
        return (
            self.spanned and self.unmarked and not self.contradicted and self.state != IN_VIDEO
            and (self.frames_only or self.judge() == H265)
        )

    cdef void distrust(self) noexcept nogil:
        self.agreements = 0
        self.proved = False
        self.contradicted = True

    cdef void keep_length(self) noexcept nogil:
        if self.is_key_pes:
            self.key_lies = max(self.key_lies - 1, 0)
        else:
            self.kept_lengths = min(self.kept_lengths + 1, 2 * LENGTHS_TO_TRUST)

    cdef bint break_length(self, bint is_key) noexcept nogil:
        """A PES did not end where it said: are bytes missing? Not where that happens more than now and then, as with
        cameras that cannot count; some cannot count key pictures alone, and are known by those."""
        cdef bint is_hole = self.kept_lengths >= LENGTHS_TO_TRUST and not (is_key and self.key_lies >= KEY_LIE)
        if is_key:
            self.key_lies = min(self.key_lies + KEY_LIE, 2 * KEY_LIE)
        else:
            self.kept_lengths = max(self.kept_lengths - LENGTHS_PER_HOLE, 0)
        return is_hole

    cdef void settle_doubt(self, Py_ssize_t length) noexcept nogil:
        """The doubted PES ends at `length`. If it is one, and longer than 16 bits can say, it said the rest, or the most."""
        if self.doubted:
            self.doubted = False
            if self.header_inside or not (self.says_most or (length - self.pes_begin - self.said) & 0xFFFF == 0):
                self.damaged = True

    cdef void end_early(self) noexcept nogil:
        """End the unit before anything of the next one was seen."""
        self.closed_times = self.times
        self.marked_at = -1
        self.close_unit(held(&self.unit))
        self.forget_unit()
        self.closed_early = True

    cdef void drop_unit(self, int stream_id) noexcept nogil:
        self.count.dropped_units += 1
        self.stream[stream_id].discontinuity = True

    cdef void detect(self, int stream_id, int codec) noexcept nogil:
        self.stream[stream_id].detected = codec
        self.dispute(stream_id)

    cdef void dispute(self, int stream_id) noexcept nogil:
        """Count each new contradiction between map and content once."""
        cdef Stream* stream = &self.stream[stream_id]
        cdef int pair = stream.declared << 8 | stream.detected
        if stream.declared and stream.detected and stream.declared != stream.detected and stream.disputed != pair:
            stream.disputed = pair
            self.count.codec_mismatch += 1

    # --- audio, private and padding streams ---

    cdef bint side_pes(self) noexcept nogil:
        cdef Py_ssize_t count
        cdef Cursor c
        cdef Py_ssize_t at = 0
        if held(&self.head):
            c = live(&self.head)
        else:
            c = cursor(bytes_at(&self.source), left(&self.source))
        count = min(left(&c), <Py_ssize_t>self.side_length - held(&self.side))
        if held(&self.side) == 0 and not reserve(&self.side, <Py_ssize_t>self.side_length):
            self.count.oversize += 1
            self.lose()
            return True
        append(&self.side, bytes_at(&c), count)
        self.consume(count)
        if held(&self.side) < self.side_length:
            return True
        c = live(&self.side)
        while True:
            at = find_start_code(c.base, at, c.end)
            if at < 0:
                break
            c.at = at
            if confirm(&c, ALL_HEADERS) != NO:  # or the beginning of one
                self.side_suspect = at
                self.state = LANDING
                return True
            at += 3
            c.at = 0
        self.end_side()
        return True

    cdef bint landing(self) noexcept nogil:
        """A header inside a PES means nothing (reference 7.6), unless the PES does not end at a start code."""
        cdef Cursor c
        if not self.view(4, &c):
            return False
        if is_system_code(&c) or self.position - held(&self.side) + self.side_suspect < self.read_again_from:
            self.end_side()
            return True
        self.count.malformed += 1
        self.count.resync += 1
        if self.side_id >= STREAM_ID_AUDIO and self.side_id < STREAM_ID_VIDEO:
            self.drop_unit(self.side_id)
        self.read_again_from = self.position
        c = live(&self.side)
        take(&c, self.side_suspect)
        self.state = SYNCED
        self.give_back(&c)
        drop(&self.side, held(&self.side))
        return True

    cdef int sniff_audio(self, Stream* stream) noexcept nogil:
        """What the finished audio PES is (reference 7.8); ADTS is believed before the map."""
        cdef Cursor c = live(&self.side)
        if is_adts(&c):
            stream.misses = 0
            return AAC
        if stream.detected == AAC and stream.declared != AAC:
            stream.misses += 1
            if stream.misses < 8:
                return AAC
            stream.misses = 0
            stream.detected = 0
        if stream.declared:
            return stream.declared
        if is_mpeg_audio(&c):
            return MPEG1_AUDIO
        return stream.detected if stream.detected else PCMA

    cdef void end_side(self) noexcept nogil:
        cdef Finished* unit
        cdef Stream* stream
        cdef int codec
        self.state = SYNCED
        if not STREAM_ID_AUDIO <= self.side_id < STREAM_ID_VIDEO:
            drop(&self.side, held(&self.side))
            return
        stream = &self.stream[self.side_id]
        codec = self.sniff_audio(stream)
        if codec != stream.declared or codec == AAC:
            self.detect(self.side_id, codec)
        unit = self.next_finished() if _SUPPORTED[codec] else NULL
        if unit == NULL:
            if _SUPPORTED[codec]:
                self.drop_unit(self.side_id)
            else:
                self.count.unsupported += 1
            drop(&self.side, held(&self.side))
            return
        unit.data = self.side.data
        unit.begin = self.side.begin
        unit.length = held(&self.side)
        unit.times = self.side_times
        unit.arrived = self.now
        unit.codec = codec
        unit.track_id = self.side_id
        unit.is_keyframe = True
        unit.refresh = 0
        unit.discontinuity = stream.discontinuity
        unit.sets = 0
        stream.discontinuity = False
        self.side = buffer(SIDE_BYTES)
        self.count.units += 1
        if stream.declared == 0:
            self.count.no_map += 1

    cdef object collect(self):
        cdef Py_ssize_t count = self.finished_count
        self.finished_count = 0
        return make_units(self.finished, count) if count else ()


cdef list make_units(Finished* finished, Py_ssize_t count):
    """Turn finished units into objects; each takes its buffer over. Without memory the rest of the buffers are freed."""
    cdef Py_ssize_t i
    cdef Finished* f
    cdef AccessUnit unit
    cdef Block block
    cdef Cursor c
    cdef int s
    cdef list units = []
    try:
        for i in range(count):
            f = &finished[i]
            block = Block.__new__(Block)
            block.data = f.data
            f.data = NULL
            c = cursor(block.data, f.begin + f.length)
            take(&c, f.begin)
            unit = AccessUnit.__new__(AccessUnit)
            unit.owner = block
            unit.data = bytes_at(&c)
            unit.length = f.length
            unit.codec = _ROWS[f.codec]
            unit.track_id = f.track_id
            unit.pts = f.times.pts if f.times.has_pts else None
            unit.dts = f.times.dts if f.times.has_dts else None
            unit.is_keyframe = f.is_keyframe
            unit.discontinuity = f.discontinuity
            unit.arrived = f.arrived
            unit.refresh = f.refresh
            unit.parameter_sets = ()
            if f.sets:
                sets = []
                for s in range(f.sets):
                    c = cursor(unit.data, f.set[s].end)
                    take(&c, f.set[s].begin)
                    sets.append(copied(&c, left(&c)))
                unit.parameter_sets = tuple(sets)
            units.append(unit)
    finally:
        for i in range(count):
            free(finished[i].data)
            finished[i].data = NULL
    return units
