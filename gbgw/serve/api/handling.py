"""From a request to an operation and back: who may, the body and the page asked for, the answer as JSON."""

import asyncio
import json
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from gbgw.base import limits
from gbgw.base.errors import GatewayError, RequestError
from gbgw.serve.api.shapes import Page
from gbgw.serve.auth import allows
from gbgw.serve.cameras import Caller
from gbgw.serve.context import SERVING
from gbgw.serve.openapi import NOBODY, Call, Route

DEFAULT_PAGE: Final = 100
_BODY_SECONDS: Final = 20.0
_BY_ADDRESS: Final = ("text/event-stream", "video/mp4")  # asked for by elements of a page, which send no headers
_PAGES: Final = TypeAdapter(Page[Any])


def handler(route: Route) -> Any:
    adapter = route.adapter

    async def handle(request: web.Request) -> web.StreamResponse:
        serving = request.app[SERVING]
        caller = NOBODY
        if route.scope is not None:
            row = serving.authority.require(request, route.scope, query=route.media in _BY_ADDRESS)
            caller = Caller(row.id, row.name, serving.remote(request), allows(row, "admin"))
        body = await _read(request, route.body) if route.body is not None else None
        limit, after = paging(request) if route.paged else (DEFAULT_PAGE, "")
        call = Call(serving, request, dict(request.match_info), body, limit, after, caller)
        result = await (_audited(route, call) if route.audit else route.call(call))
        if isinstance(result, web.StreamResponse):
            return result
        headers = {"Cache-Control": "no-store"}
        if adapter is None:
            return web.Response(status=204, headers=headers)
        data = _PAGES.dump_json(result) if isinstance(result, Page) else adapter.dump_json(result)
        return web.Response(
            status=route.status, body=data, content_type="application/json", charset="utf-8", headers=headers
        )

    return handle


async def _audited(route: Route, call: Call) -> Any:
    """Perform a control command and write down who had it done and what came of it."""
    outcome = "cancelled"
    try:
        result = await route.call(call)
        outcome = "ok"
        return result
    except GatewayError as error:
        outcome = error.code
        raise
    finally:
        if call.audited or outcome != "ok":
            detail: dict[str, Any] = {name: text for name, text in call.path.items() if name not in ("id", "cid")}
            detail |= dict(call.request.query)
            detail.pop("token", None)
            if call.detail is not None:
                detail |= call.detail
            elif isinstance(call.body, BaseModel):
                detail["body"] = call.body.model_dump(mode="json", exclude_unset=True)
            ids = call.path["id"], call.path.get("cid", "")
            call.serving.cameras.record(call.caller, route.audit, *ids, outcome, _short(detail))


def _short(detail: dict[str, Any]) -> dict[str, Any]:
    """Keep what fits in a line of the audit log."""
    text = json.dumps(detail, ensure_ascii=False)
    return detail if len(text) <= limits.AUDIT_DETAIL else {"cut": text[: limits.AUDIT_DETAIL]}


async def _read(request: web.Request, model: type[BaseModel]) -> BaseModel:
    if request.content_type != "application/json":
        raise RequestError(
            "The body must be JSON.", status=415, code="content_type", remedy="Send Content-Type: application/json."
        )
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            data = await request.read()
    except TimeoutError:
        raise RequestError("The body did not arrive in time.", status=408, code="body_timeout") from None
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)[:5]
        ]
        raise RequestError("; ".join(problems), code="bad_body", remedy="/api/docs shows the fields.") from None


def paging(request: web.Request) -> tuple[int, str]:
    try:
        limit = int(request.query.get("limit", str(DEFAULT_PAGE))[:10])
    except ValueError:
        limit = 0
    if not 1 <= limit <= limits.PAGE_ITEMS:
        raise RequestError("limit is out of range.", code="bad_query", remedy=f"Use 1 to {limits.PAGE_ITEMS}.")
    return limit, request.query.get("after", "")[:128]
