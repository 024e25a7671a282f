# cython: language_level=3, binding=True, embedsignature=True
# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True
"""MPEG program stream demultiplexer (Rec. ITU-T H.222.0 (2021) section 2.5; GB/T 28181-2022 Annex C)."""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.stdlib cimport free
from libc.string cimport memcmp


@cython.final
@cython.freelist(256)
cdef class Block:
    def __dealloc__(self):
        free(self.data)


@cython.final
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

    def __len__(self):
        return self.length

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.data, self.length, 1, flags)

    def with_times(self, object pts, object dts):
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
        )


def _unpickle(data, codec, pts, dts, is_keyframe, parameter_sets, track_id, discontinuity, arrived):
    return AccessUnit(
        data, codec, pts, dts, is_keyframe=is_keyframe, parameter_sets=parameter_sets, track_id=track_id,
        discontinuity=discontinuity, arrived=arrived,
    )
