"""Server-sent events (HTML standard section 9.2): everything that happens."""

import asyncio
import json
from datetime import datetime
from typing import Any, Final

from aiohttp import web
from pydantic import TypeAdapter

from gbgw.base import limits
from gbgw.base.errors import LimitError, RequestError
from gbgw.serve.openapi import Call, Query, Route

_RFC3339: Final = TypeAdapter(datetime)


async def stream_events(call: Call) -> Any:
    """Server-sent events (HTML standard section 9.2); Last-Event-ID resumes."""
    serving = call.serving
    after = last_event_id(call.request)
    if serving.event_streams >= limits.EVENT_VIEWERS:
        raise LimitError(
            f"{limits.EVENT_VIEWERS} event streams are open.", code="event_limit", remedy="Close other dashboards."
        )
    response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    serving.event_streams += 1
    try:
        await response.prepare(call.request)
        await response.write(b"retry: 2000\n\n")
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(_heartbeat(response), name="events:heartbeat")
            async for event in serving.control.events(after):
                data = json.dumps(dict(event.data), ensure_ascii=False, default=str)
                time = _RFC3339.dump_python(event.time, mode="json")
                body = f'{{"id":{event.id},"type":{json.dumps(event.type)},"time":"{time}","data":{data}}}'
                async with asyncio.timeout(limits.VIEWER_STALL_SECONDS):
                    await response.write(f"id: {event.id}\nevent: {event.type}\ndata: {body}\n\n".encode())
            beat.cancel()
    except* (ConnectionError, TimeoutError):
        serving.tally.add("http.events_lost")
    finally:
        serving.event_streams -= 1
    return response


async def _heartbeat(response: web.StreamResponse) -> None:
    while True:
        await asyncio.sleep(limits.EVENT_HEARTBEAT_SECONDS)
        async with asyncio.timeout(limits.VIEWER_STALL_SECONDS):
            await response.write(b": beat\n\n")


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/events",
        stream_events,
        "Everything that happens, as server-sent events; ?token= is taken, since EventSource sends no headers",
        "view",
        str,
        query=(Query("token", "string", "bearer token"), Query("last_event_id", "integer", "resume after this event")),
        errors=(503,),
        media="text/event-stream",
    ),
)


def last_event_id(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise RequestError("Last-Event-ID is not a number.", code="bad_query")
    return int(text)
