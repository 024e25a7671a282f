"""What is asked of Linux for a worker's own process (prctl(2)). Loads nothing else of gbgw: it comes first of all."""

import ctypes
import signal
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15
_LIBC: Final = ctypes.CDLL(None)


def die_with_parent() -> None:
    """The kernel kills this process in the moment in which its parent ends, however that goes."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def set_name(name: str) -> None:
    """Have `ps -o comm`, `top` and `pgrep` show this process so; 15 characters at most are seen."""
    _LIBC.prctl(PR_SET_NAME, name.encode())
