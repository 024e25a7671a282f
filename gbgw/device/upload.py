"""Sends snapshots where the platform wants them, by HTTP POST of the JPEG (GB/T 28181-2022 9.14 recommends HTTP)."""

import asyncio
from typing import Final
from urllib.parse import urlsplit

from gbgw.base.errors import PeerError

UPLOAD_SECONDS: Final = 10.0
_ANSWER_BYTES: Final = 4_096


async def upload(url: str, name: str, data: bytes) -> None:
    """POST a picture. Raises PeerError `upload_refused` for any answer but 2xx, and for none."""
    parts = urlsplit(url)
    path = f"{parts.path.rstrip('/')}/{name}" + (f"?{parts.query}" if parts.query else "")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=_ANSWER_BYTES)
            try:
                writer.write(head.encode() + data)
                await writer.drain()
                answer = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError) as error:
        raise PeerError(f"{parts.netloc} takes no picture: {error}", code="upload_refused") from None
    words = answer.split()
    if len(words) < 2 or not words[1].startswith(b"2"):
        raise PeerError(f"{parts.netloc} answered the upload with {answer!r}", code="upload_refused")
