"""Declarations of the program stream core; bodies in _ps.pyx, Python's view in _ps.pyi."""

from libc.stdint cimport int64_t, uint8_t

from gbgw._bytes cimport Buffer, Cursor


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
    cdef readonly int refresh
    cdef object owner  # bytes or Block: what keeps `data` alive
    cdef const uint8_t* data
    cdef Py_ssize_t length

    cdef AccessUnit timed(self, object pts, object dts)


cdef struct Span:
    Py_ssize_t begin
    Py_ssize_t end
    int codec  # row of base.codec.CODECS, from 1


cdef struct Times:
    bint has_pts
    bint has_dts
    int64_t pts
    int64_t dts


cdef struct Evidence:  # what the NAL units of one video unit say (reference 7.8)
    bint vcl264
    bint vcl265
    bint key264
    bint key265
    int sets264  # bit 0 SPS, bit 1 PPS
    int sets265  # bit 0 VPS, bit 1 SPS, bit 2 PPS
    int valid264
    int valid265
    int count
    int forbidden  # forbidden_zero_bit set
    bint mpeg2
    bint mpeg4


cdef struct Finished:  # a unit on its way to Python; owns `data`
    uint8_t* data
    Py_ssize_t begin
    Py_ssize_t length
    Times times
    double arrived
    int codec
    int track_id
    bint is_keyframe
    bint discontinuity
    int refresh
    int sets
    Span set[32]


cdef struct Stream:
    bint known
    bint discontinuity
    int declared
    int detected
    int disputed  # last pair of declared and detected that was counted
    int misses


cdef struct Counts:
    int64_t packs
    int64_t maps
    int64_t units
    int64_t malformed
    int64_t resync
    int64_t skipped_bytes
    int64_t private_units
    int64_t dropped_units
    int64_t oversize
    int64_t codec_mismatch
    int64_t no_map
    int64_t unsupported
    int64_t other_video


cdef class ElementaryStream:
    cdef readonly int stream_id
    cdef readonly object declared
    cdef readonly object detected


cdef class Demuxer:
    # the input: `head` (what earlier pushes left), then `source` from its `at`
    cdef Cursor source
    cdef Buffer head
    cdef int state
    cdef bint after_video  # the last thing parsed was a video PES of known length
    cdef double now

    # the video unit in progress; offsets count from its first byte
    cdef Buffer unit
    cdef Py_ssize_t max_unit_bytes
    cdef double silence_seconds
    cdef int video_id
    cdef int64_t remaining  # payload bytes the video PES still owes; -1: until the next header
    cdef bint open
    cdef bint damaged
    cdef Times times
    cdef Times pending  # of the PES being read, for the first access unit that begins in it
    cdef Times pending_before
    cdef Py_ssize_t pes_begin
    cdef Py_ssize_t scan_at
    cdef Py_ssize_t settled  # start codes before this are no system headers
    cdef Evidence evidence
    cdef Span set[32]
    cdef int sets
    cdef bint in_set
    cdef double arrived
    cdef bint unaligned  # access units were seen to begin inside PES packets
    cdef bint frames_only  # the SPS excludes field pictures
    cdef bint pack_since_video
    cdef bint closed_early
    cdef bint marked_close
    cdef bint leftover  # bytes that follow a unit that was ended early
    cdef Times closed_times
    cdef int since_key  # pictures, to know whether a gradual refresh can be through
    cdef Py_ssize_t marked_at
    cdef int agreements
    cdef bint proved  # a unit of several packets was marked on its last alone
    cdef bint mark_due  # the last packet has had no marker so far
    cdef bint unmarked  # the unit in progress had a packet without
    cdef bint contradicted  # a marker was somewhere else than at the end of a unit
    cdef bint spanned  # another PES of the unit in progress followed slice data
    cdef int kept_lengths  # PES that ended where they said, since few did not; not of key pictures
    cdef int key_lies  # how much the last PES of key pictures speak for a camera that cannot count those
    cdef bint is_key_pes  # the last one that ended, or seemed to
    cdef bint header_inside  # where a picture cannot have one
    cdef bint strayed  # no start code where one was due, since the last video PES
    cdef int64_t said  # payload of the PES in progress by its length
    cdef bint says_most
    cdef bint doubted  # the PES in progress is longer than it said, and this camera's keep their word

    # the audio or private PES in progress
    cdef Buffer side
    cdef int side_id
    cdef int64_t side_length
    cdef Times side_times
    cdef Py_ssize_t side_suspect
    cdef int64_t position  # stream offset of the next byte to be read
    cdef int64_t read_again_from  # bytes before this were given back once already

    cdef Stream stream[256]
    cdef int64_t last_pts
    cdef bint has_last_pts
    cdef Counts count
    cdef Finished* finished
    cdef Py_ssize_t finished_count
    cdef Py_ssize_t finished_capacity

    cdef void run(self) noexcept nogil
    cdef bint view(self, Py_ssize_t count, Cursor* out) noexcept nogil
    cdef void consume(self, Py_ssize_t count) noexcept nogil
    cdef void stash(self) noexcept nogil
    cdef void unread(self) noexcept nogil
    cdef void give_back(self, const Cursor* bytes) noexcept nogil
    cdef bint search(self) noexcept nogil
    cdef bint synced(self) noexcept nogil
    cdef void damage(self) noexcept nogil
    cdef void lose(self) noexcept nogil
    cdef bint pack_header(self) noexcept nogil
    cdef bint system_header(self) noexcept nogil
    cdef bint program_stream_map(self) noexcept nogil
    cdef bint parse_map(self, Cursor c) noexcept nogil
    cdef bint pes(self, int stream_id) noexcept nogil
    cdef int64_t unwrap(self, int64_t value) noexcept nogil
    cdef bint begin_video(self, Py_ssize_t header, int64_t payload, Times times) noexcept nogil
    cdef bint video(self) noexcept nogil
    cdef void scan(self, bint final) noexcept nogil
    cdef void measure(self, Py_ssize_t length) noexcept nogil
    cdef bint nal(self, Py_ssize_t at) noexcept nogil
    cdef void end_set(self, Py_ssize_t at) noexcept nogil
    cdef void read_sps(self, const Span* span) noexcept nogil
    cdef int judge(self) noexcept nogil
    cdef bint has_vcl(self) noexcept nogil
    cdef void open_unit(self, Times times) noexcept nogil
    cdef void forget_unit(self) noexcept nogil
    cdef void clear_evidence(self) noexcept nogil
    cdef void close_unit(self, Py_ssize_t length) noexcept nogil
    cdef bint emit(self, Py_ssize_t length, int codec) noexcept nogil
    cdef void shift(self, Py_ssize_t length) noexcept nogil
    cdef bint endable(self) noexcept nogil
    cdef bint trusts_marks(self) noexcept nogil
    cdef bint proves_mark(self) noexcept nogil
    cdef void distrust(self) noexcept nogil
    cdef void keep_length(self) noexcept nogil
    cdef bint break_length(self, bint is_key) noexcept nogil
    cdef void settle_doubt(self, Py_ssize_t length) noexcept nogil
    cdef void end_early(self) noexcept nogil
    cdef bint side_pes(self) noexcept nogil
    cdef bint landing(self) noexcept nogil
    cdef void end_side(self) noexcept nogil
    cdef int sniff_audio(self, Stream* stream) noexcept nogil
    cdef void detect(self, int stream_id, int codec) noexcept nogil
    cdef void dispute(self, int stream_id) noexcept nogil
    cdef void drop_unit(self, int stream_id) noexcept nogil
    cdef Finished* next_finished(self) noexcept nogil
    # for callers without the GIL: what is finished stays in `finished`, whose data is theirs to take over
    cdef void take(self, const uint8_t* base, Py_ssize_t length, double now) noexcept nogil
    cdef void miss(self) noexcept nogil
    cdef void take_mark(self, double now) noexcept nogil
    cdef void wait(self, double now) noexcept nogil
    cdef void finish(self) noexcept nogil
    cdef double due(self) noexcept nogil
    cdef object collect(self)


cdef list make_units(Finished* finished, Py_ssize_t count)
