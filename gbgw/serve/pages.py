"""The web console: files that npm built into the package, read once and served from memory.

Paths without a file ending that belong to nothing else get index.html, so that the console's own addresses can be
opened and reloaded. `<base href="/">` in it is rewritten where the gateway sits behind a proxy's prefix.
"""

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from aiohttp import web

from gbgw.serve.context import SERVING

FOLDER: Final = Path(__file__).parent / "console"
CSP: Final = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self' ws: wss:; "
    "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; "
    "frame-ancestors 'self'; form-action 'self'"
)
_FILE_BYTES: Final = 16 << 20  # of one file: a console's bundle is below 2 MiB
_PATH: Final = r"{path:(?!(?:api|live|playback|record|debug|metrics|healthz|readyz)(?:/|$)).+}"  # not what has owners
_MISSING: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>gbgw</title>"
    "<h1>The console is not built</h1><p>Run <code>make build</code> in the source tree, or install a wheel, "
    "which carries it. The API is at <a href=api/docs>/api/docs</a>.</p></html>"
)


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    content_type: str
    etag: str
    is_hashed: bool  # its name changes with its content
    packed: bytes  # gzipped; empty where that saves nothing


@cache
def files(folder: Path) -> Mapping[str, _File]:
    """The built files by path below `folder`; empty when there are none."""
    found: dict[str, _File] = {}
    if not (folder / "index.html").is_file():
        return found
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= _FILE_BYTES:
            name = path.relative_to(folder).as_posix()
            data = path.read_bytes()
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            if kind == "application/javascript":
                kind = "text/javascript"
            packed = gzip.compress(data, mtime=0) if kind.startswith("text/") else b""
            etag = hashlib.sha256(data).hexdigest()[:32]
            found[name] = _File(data, kind, etag, name.startswith("assets/"), packed)
    return found


def mount(app: web.Application, prefix: str) -> None:
    found = files(FOLDER)

    async def show(request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("path", "") or "index.html"
        if not found and name == "index.html":
            return web.Response(
                status=503,
                text=_MISSING,
                content_type="text/html",
                headers={"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'"},
            )
        file = found.get(name)
        if file is None and "." not in name.rpartition("/")[2]:
            file = found.get("index.html")
        if file is None:
            raise web.HTTPNotFound
        return _answer(request, file)

    app.router.add_get(f"{prefix}/", show)
    app.router.add_get(f"{prefix}/{_PATH}", show)
    if prefix:
        app.router.add_get(prefix, _add_slash)


async def _add_slash(request: web.Request) -> web.StreamResponse:
    raise web.HTTPPermanentRedirect(f"{request.path}/")


def _answer(request: web.Request, file: _File) -> web.Response:
    headers = {
        "ETag": f'"{file.etag}"',
        "Cache-Control": "public, max-age=31536000, immutable" if file.is_hashed else "no-cache",
        "Content-Security-Policy": CSP,
    }
    if f'"{file.etag}"' in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    data = file.data
    if file.content_type == "text/html":
        base = f'<base href="{request.app[SERVING].base_path}/"'.encode()
        data = data.replace(b'<base href="/"', base)
    elif file.packed:
        headers["Vary"] = "Accept-Encoding"
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            data = file.packed
    return web.Response(body=data, content_type=file.content_type, headers=headers)
