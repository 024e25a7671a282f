"""OpenAPI 3.1 out of the typed routes of serve/api/, and the page that shows it without any foreign script."""

import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel, TypeAdapter

from gbgw import __version__
from gbgw.serve.cameras import Caller
from gbgw.serve.context import Serving
from gbgw.serve.source import Scope

NOBODY: Final = Caller("", "")
_REFERENCE: Final = "#/components/schemas/{model}"


@dataclass(slots=True)
class Call:
    """One API request, checked: the caller may do it, path and body have their types.

    audited: whether a route with an audit action writes its line; detail: what stands in it, None for the body.
    """

    serving: Serving
    request: web.Request
    path: dict[str, str]
    body: Any  # of Route.body
    limit: int  # of a page
    after: str  # last id of the page before, "" for the first
    caller: Caller = NOBODY
    audited: bool = True
    detail: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Query:
    name: str
    kind: Literal["string", "integer", "number", "boolean"]
    summary: str


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `result` None: 204. `idempotent` is told in the description of every write. audit: the action that
    the audit log calls it; "" for what is not logged there."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    call: Callable[[Call], Awaitable[Any]]
    summary: str
    scope: Scope | None
    result: Any = None
    body: type[BaseModel] | None = None
    status: int = 200
    idempotent: bool = True
    paged: bool = False
    query: tuple[Query, ...] = ()
    errors: tuple[int, ...] = ()
    media: str = "application/json"
    audit: str = ""

    @property
    def adapter(self) -> "TypeAdapter[Any] | None":
        return TypeAdapter(self.result) if self.result is not None else None


PAGE: Final = (
    Query("limit", "integer", "items of one page, 1 to 1000; 100 by default"),
    Query("after", "string", "`next` of the page before"),
)


class ErrorDetail(BaseModel):
    code: str
    message: str
    remedy: str
    stream: str | None


class ErrorAnswer(BaseModel):
    """What every failure looks like."""

    error: ErrorDetail


def document(routes: Sequence[Route], *, server: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document. server: URL that the paths are relative to."""
    wanted: list[tuple[Any, Literal["validation", "serialization"], TypeAdapter[Any]]] = [
        ("error", "serialization", TypeAdapter(ErrorAnswer))
    ]
    for number, route in enumerate(routes):
        if route.adapter is not None:
            wanted.append((f"out{number}", "serialization", route.adapter))
        if route.body is not None:
            wanted.append((f"in{number}", "validation", TypeAdapter(route.body)))
    schemas, definitions = TypeAdapter.json_schemas(wanted, ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for number, route in enumerate(routes):
        operation = _operation(
            route,
            result=schemas.get((f"out{number}", "serialization")),
            body=schemas.get((f"in{number}", "validation")),
            error=schemas[("error", "serialization")],
        )
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gbgw control API",
            "version": __version__,
            "description": "Devices, channels, streams and tokens of a GB/T 28181 gateway. Times are RFC 3339 in UTC, "
            "ids are strings, lists are pages of `items` with `next`.",
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, *, result: Any, body: Any, error: Any) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    if result is not None:
        answers[str(route.status)] = {"description": "done", "content": {route.media: {"schema": result}}}
    else:
        answers["204"] = {"description": "done"}
    codes = set(route.errors) | ({401, 403} if route.scope is not None else set())
    if route.body is not None:
        codes |= {400, 413, 415}
    if route.paged or route.query:
        codes.add(400)
    for code in sorted(codes):
        answers[str(code)] = {"description": "refused", "content": {"application/json": {"schema": error}}}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in path_names(route.path)
    ]
    parameters += [
        {"name": query.name, "in": "query", "description": query.summary, "schema": {"type": query.kind}}
        for query in (*(PAGE if route.paged else ()), *route.query)
    ]
    operation: dict[str, Any] = {
        "operationId": route.call.__name__,
        "summary": route.summary,
        "tags": [route.path.split("/")[1]],
        "parameters": parameters,
        "responses": answers,
        "security": [{"bearer": []}] if route.scope is not None else [],
    }
    notes = [f"Scope: {route.scope}."] if route.scope is not None else []
    if route.method != "GET":
        notes.append("Idempotent." if route.idempotent else "Not idempotent.")
    if route.audit:
        notes.append("Written to the audit log.")
    operation["description"] = " ".join(notes)
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def path_names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


_SCRIPT: Final = """
const text = (tag, value) => { const e = document.createElement(tag); e.textContent = value; return e; };
const resolve = (schema, all, depth) => {
  if (!schema || depth > 4) return "...";
  if (schema.$ref) return resolve(all[schema.$ref.split("/").pop()], all, depth);
  if (schema.anyOf) return schema.anyOf.map(s => resolve(s, all, depth)).find(s => s !== "null");
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return [resolve(schema.items || schema.prefixItems?.[0], all, depth + 1)];
  if (schema.properties) return Object.fromEntries(
    Object.entries(schema.properties).map(([k, s]) => [k, resolve(s, all, depth + 1)]));
  return schema.format || schema.type || "any";
};
fetch("v1/openapi.json").then(r => r.json()).then(doc => {
  document.getElementById("about").textContent = doc.info.description;
  const main = document.getElementById("operations"), all = doc.components.schemas;
  for (const [path, item] of Object.entries(doc.paths)) for (const [method, op] of Object.entries(item)) {
    const box = document.createElement("details"), head = document.createElement("summary");
    const verb = text("b", method.toUpperCase()); verb.className = method;
    head.append(verb, text("code", doc.servers[0].url + path), text("span", op.summary));
    box.append(head, text("p", op.description));
    for (const p of op.parameters) box.append(text("p", p.in + " " + p.name + ": " + (p.description || p.schema.type)));
    const body = op.requestBody?.content["application/json"]?.schema;
    if (body) box.append(text("h4", "body"), text("pre", JSON.stringify(resolve(body, all, 0), null, 2)));
    for (const [status, answer] of Object.entries(op.responses)) {
      box.append(text("h4", status + " " + answer.description));
      const content = Object.values(answer.content || {})[0];
      if (content && status < 400) box.append(text("pre", JSON.stringify(resolve(content.schema, all, 0), null, 2)));
    }
    main.append(box);
  }
}).catch(error => { document.getElementById("about").textContent = String(error); });
"""
_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
details { border: 1px solid #8884; border-radius: 6px; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; } summary > * { margin-right: .8rem; } summary b { display: inline-block; width: 4.5rem; }
.get { color: #2a7; } .post, .put, .patch { color: #c70; } .delete { color: #d33; }
pre { overflow-x: auto; background: #8881; padding: .6rem; border-radius: 4px; } h4 { margin: .6rem 0 0; }
"""
DOCS_PAGE: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>gbgw API</title>'
    '<meta name="viewport" content="width=device-width"><style>'
    + _STYLE
    + "</style></head><body><h1>gbgw control API</h1>"
    '<p id="about">loading ...</p><p><a href="v1/openapi.json">openapi.json</a></p><main id="operations"></main>'
    "<script>" + _SCRIPT + "</script></body></html>"
)


def _csp_hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


DOCS_CSP: Final = (
    f"default-src 'none'; connect-src 'self'; script-src {_csp_hash(_SCRIPT)}; style-src {_csp_hash(_STYLE)}; "
    "base-uri 'none'; frame-ancestors 'none'"
)
