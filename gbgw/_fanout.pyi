"""Fan-out core: the same bytes to many sockets, without the interpreter between them (architecture.md decision 3)."""

def send_all(fds: list[int], data: bytes) -> list[tuple[int, int]]:
    """Send `data` to each socket once, without waiting; return (index into `fds`, bytes taken) of those that did not
    take all of it, in order.

    What is wrong with a socket is not told: it takes 0 bytes, and whoever writes the rest will hear.
    """
