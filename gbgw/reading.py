"""Reads large documents away from the loop: a catalog of 10,000 channels takes a second, and other devices wait for
their answers meanwhile.

One at a time, in a thread, in order of arrival; what waits is bounded in bytes.
"""

import asyncio
from collections.abc import Callable

from gbgw.base import limits
from gbgw.base.errors import ManscdpError
from gbgw.base.tally import Tally
from gbgw.gb import manscdp
from gbgw.gb.registrar import BodyRead, ReadBody


class Reader:
    """Performs ReadBody; `run` is its one task. done: takes what came of it."""

    def __init__(self, done: Callable[[BodyRead], None], tally: Tally) -> None:
        self._done = done
        self._tally = tally
        self._inbox: asyncio.Queue[ReadBody] = asyncio.Queue()  # bounded in bytes, by `take`
        self._waiting_bytes = 0

    def take(self, order: ReadBody) -> None:
        """Put a body in line. One that finds the line full is dropped: what it answers ends as partial."""
        if self._waiting_bytes + len(order.body) > limits.DOCUMENT_BACKLOG_BYTES:
            self._tally.add("registrar.backlog_full", detail=order.device_id, now=asyncio.get_running_loop().time())
            return
        self._waiting_bytes += len(order.body)
        self._inbox.put_nowait(order)

    async def run(self) -> None:
        while True:
            order = await self._inbox.get()
            try:
                document = await asyncio.to_thread(manscdp.parse, order.body)
            except ManscdpError as error:
                self._done(BodyRead(order.device_id, error, order.dialog))
            else:
                self._done(BodyRead(order.device_id, document, order.dialog))
            finally:
                self._waiting_bytes -= len(order.body)
