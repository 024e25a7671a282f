"""Where a SIP message came from, and where one goes: a flow in the sense of RFC 5626."""

from dataclasses import dataclass
from typing import Literal

Transport = Literal["udp", "tcp"]


@dataclass(frozen=True, slots=True)
class Flow:
    """One path between a local socket and a peer.

    local, remote: (host, port) as the sockets see them.
    connection: identity of the TCP connection, unique in the process; 0 for UDP.
    """

    transport: Transport
    local: tuple[str, int]
    remote: tuple[str, int]
    connection: int = 0

    @property
    def reliable(self) -> bool:
        return self.transport != "udp"

    def __str__(self) -> str:
        return f"{self.transport}://{self.remote[0]}:{self.remote[1]}"
