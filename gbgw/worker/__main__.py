"""`python -m gbgw.worker CHANNEL HANDOVER`: the media worker process of worker/child.py.

Loads nothing heavy before its signals are settled: who ends control at once means a worker that still loads as well.
"""

import signal

from gbgw.worker import kernel


def main() -> None:
    # Whoever ends control at once means its workers too. If it was gone before this line, the channel says so.
    kernel.die_with_parent()
    kernel.set_name("gbgw-worker")
    # Control's, which ends its workers itself: a terminal and a service manager signal the whole group.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)

    from gbgw.worker import child

    child.main()


if __name__ == "__main__":
    main()
