"""Declarations of the FLV core; bodies in _flv.pyx, Python's view in _flv.pyi."""


cdef struct Span:
    Py_ssize_t begin
    Py_ssize_t end
