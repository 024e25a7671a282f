"""Sockets for media: bound, with a receive buffer, and what the kernel dropped of them."""

import socket
import struct
from contextlib import suppress
from typing import Final

from gbgw.base.errors import LocalError

_SO_MEMINFO: Final = 55  # Linux; the ninth word is the socket's drop counter (sock_diag.h, SK_MEMINFO_DROPS)
_SO_RCVBUFFORCE: Final = 33
_BACKLOG: Final = 8  # connections that wait; one camera connects to a port, many to a shared one by and by


def bind(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """Return a non-blocking socket on the port, listening where it is TCP. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if kind is socket.SOCK_STREAM:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last session in TIME_WAIT
        one.bind((host, port))
        if kind is socket.SOCK_STREAM:
            one.listen(_BACKLOG)
    except BaseException:
        one.close()
        raise
    return one


def bind_error(host: str, port: int, error: OSError, remedy: str) -> LocalError:
    return LocalError(f"cannot bind media port {port} on {host}: {error.strerror}", code="bind_failed", remedy=remedy)


def widen(one: socket.socket, size: int) -> int:
    """Ask for a receive buffer of `size` bytes; return what the kernel granted."""
    granted = 0
    for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE):  # the second needs CAP_NET_ADMIN
        with suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, option, size)
        granted = one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # Linux counts its bookkeeping too
        if granted >= size:
            break
    return granted


def kernel_drops(one: socket.socket) -> int | None:
    """Datagrams the kernel dropped because we were slow; None where it does not say."""
    try:
        info = one.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
    except OSError:
        return None
    return int(struct.unpack_from("=I", info, 32)[0]) if len(info) >= 36 else None
