"""The control API /api/v1: typed operations, a module for each resource; serve/openapi.py makes the document out of
their routes.

Leaves out what later issues bring: cascade, webhooks.
"""

from typing import Final

from aiohttp import web

from gbgw.serve.api import audit, commands, devices, events, history, parameters, ptz, snapshots, streams, tokens
from gbgw.serve.api.handling import handler
from gbgw.serve.context import SERVING
from gbgw.serve.openapi import DOCS_CSP, DOCS_PAGE, Route, document, path_names

PREFIX: Final = "/api/v1"
ROUTES: Final[tuple[Route, ...]] = (
    *devices.ROUTES,
    *ptz.ROUTES,
    *commands.ROUTES,
    *parameters.ROUTES,
    *snapshots.ROUTES,
    *history.ROUTES,
    *streams.ROUTES,
    *tokens.ROUTES,
    *audit.ROUTES,
    *events.ROUTES,
)


def mount(app: web.Application, prefix: str) -> None:
    for route in ROUTES:
        path = f"{prefix}{PREFIX}{route.path}"
        for name in path_names(route.path):
            path = path.replace(f"{{{name}}}", f"{{{name}:[0-9A-Za-z@-]{{1,96}}}}")
        answer = handler(route)
        if route.method == "GET":
            app.router.add_get(path, answer)
        else:
            app.router.add_route(route.method, path, answer)
    snapshots.mount(app, prefix)
    app.router.add_get(f"{prefix}{PREFIX}/openapi.json", _openapi)
    app.router.add_get(f"{prefix}/api/docs", _docs)


async def _openapi(request: web.Request) -> web.Response:
    serving = request.app[SERVING]
    return web.json_response(
        document(ROUTES, server=f"{serving.base_path}{PREFIX}"), headers={"Cache-Control": "no-cache"}
    )


async def _docs(_request: web.Request) -> web.Response:
    return web.Response(
        text=DOCS_PAGE,
        content_type="text/html",
        headers={"Content-Security-Policy": DOCS_CSP, "Cache-Control": "no-cache"},
    )
