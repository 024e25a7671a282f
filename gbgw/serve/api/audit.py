"""The audit log: every control command, who gave it, and what came of it."""

from typing import Any, Final

from gbgw.base.errors import RequestError
from gbgw.serve.api.shapes import Page
from gbgw.serve.cameras import AuditEntry
from gbgw.serve.openapi import Call, Query, Route


async def list_audit(call: Call) -> Any:
    if call.after and not (call.after.isascii() and call.after.isdigit() and len(call.after) <= 18):
        raise RequestError("after is not a number.", code="bad_query")
    before = int(call.after) if call.after else None
    device_id = call.request.query.get("device", "")[:32]
    entries = await call.serving.cameras.audit(call.limit + 1, before, device_id)
    shown = list(entries[: call.limit])
    return Page[Any](items=shown, next=str(shown[-1].id) if len(entries) > len(shown) else None)


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/audit",
        list_audit,
        "Control commands, the newest first",
        "admin",
        Page[AuditEntry],
        paged=True,
        query=(Query("device", "string", "only those to this device"),),
    ),
)
