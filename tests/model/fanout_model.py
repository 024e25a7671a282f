"""Slow twin of gbgw._fanout: one socket after another, by the standard library."""

import os
import socket


def send_all(fds: list[int], data: bytes) -> list[tuple[int, int]]:
    short = []
    for at, fd in enumerate(fds):
        sent = 0
        try:
            with socket.socket(fileno=os.dup(fd)) as one:
                sent = one.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            sent = 0
        if sent < len(data):
            short.append((at, sent))
    return short
