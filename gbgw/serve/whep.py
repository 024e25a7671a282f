"""WHEP: WebRTC play over HTTP (draft-ietf-wish-whep). The media side lives behind WhepBackend, in serve/webrtc.py."""

import re
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from gbgw.base import limits
from gbgw.base.errors import LocalError, RequestError
from gbgw.serve.context import SERVING, Serving
from gbgw.serve.flv import Wish
from gbgw.serve.places import address_of, place_of
from gbgw.serve.source import Viewing
from gbgw.serve.viewers import Viewer, Viewers

_SESSION: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass(frozen=True, slots=True)
class WhepRequest:
    """What a backend may want to know of the request.

    host: name or address, without port, that the browser used; a candidate address when it is one.
    local: address of our socket it came to, "" where unknown.
    viewer: counts there; call `viewers.remove(viewer)` when the session ends.
    """

    key: str
    remote: str
    host: str
    local: str
    viewer: Viewer
    viewers: Viewers


class WhepBackend(Protocol):
    async def answer(self, viewing: Viewing, offer_sdp: str, request: WhepRequest) -> tuple[str, str]:
        """Return (answer SDP, session id: unguessable, URL-safe).

        On return the session owns `viewing` and `request.viewer` and gives both back when it ends; when this raises,
        the caller does. Raises GatewayError: codes `sdp_offer_invalid`, `no_codec_fits`, `b_frames_unsupported` ...
        """

    async def patch(self, session_id: str, fragment: str) -> None:
        """Take a trickle ICE fragment (RFC 8840). Raises RequestError 404 `unknown_session`."""

    async def delete(self, session_id: str) -> bool:
        """End a session; False when there is none."""

    def ice_servers(self) -> tuple[str, ...]:
        """URLs told to browsers in Link headers."""


async def play(request: web.Request) -> web.StreamResponse:
    """POST /live/{key}/whep: SDP offer in, 201 with the answer and the session's Location."""
    serving = request.app[SERVING]
    address = address_of(request)
    key = address.key
    serving.authority.require_play(request, address.signed)
    backend = _backend(serving)
    wish = Wish.of(request, audio="native")
    offer = await read_offer(request, key)
    viewer = serving.viewers.add(key, "webrtc", serving.remote(request), wanted=request.query.get("viewer", ""))
    handed_over = False
    try:
        viewing = await serving.source.open(
            key, protocol="webrtc", viewer=viewer.id, audio=wish.audio, video=wish.video
        )
        try:
            answer, session_id = await backend.answer(
                viewing,
                offer,
                WhepRequest(key, viewer.remote, _host(request), serving.local(request), viewer, serving.viewers),
            )
            handed_over = True
        finally:
            if not handed_over:
                await viewing.close()
    finally:
        if not handed_over:
            serving.viewers.remove(viewer)
    response = web.Response(status=201, text=answer, content_type="application/sdp")
    response.headers["Location"] = f"{serving.base_path}{place_of(request)}/whep/{session_id}"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Gbgw-Viewer"] = viewer.id
    response.headers["X-Gbgw-Stream"] = key
    for url in backend.ice_servers():
        response.headers.add("Link", f'<{url}>; rel="ice-server"')
    return response


async def read_offer(request: web.Request, key: str) -> str:
    """Raises RequestError for a body that is none."""
    offer = await _text(request, "application/sdp")
    if not offer.startswith("v=0"):
        raise RequestError(
            "The body is not an SDP offer.",
            code="sdp_offer_invalid",
            remedy="POST the offer as application/sdp.",
            stream=key,
        )
    return offer


async def patch(request: web.Request) -> web.StreamResponse:
    """PATCH /live/{key}/whep/{session}: trickle ICE. The session id is the capability."""
    backend = _backend(request.app[SERVING])
    session_id = _session(request)
    fragment = await _text(request, "application/trickle-ice-sdpfrag")
    await backend.patch(session_id, fragment)
    return web.Response(status=204)


async def delete(request: web.Request) -> web.StreamResponse:
    """DELETE /live/{key}/whep/{session} ends the session."""
    backend = _backend(request.app[SERVING])
    if not await backend.delete(_session(request)):
        raise _unknown_session()
    return web.Response(status=200)


async def options(request: web.Request) -> web.StreamResponse:
    """OPTIONS without a preflight: what may be posted, and the ICE servers."""
    backend = _backend(request.app[SERVING])
    response = web.Response(status=204, headers={"Accept-Post": "application/sdp", "Allow": "POST, OPTIONS"})
    for url in backend.ice_servers():
        response.headers.add("Link", f'<{url}>; rel="ice-server"')
    return response


def _backend(serving: Serving) -> WhepBackend:
    if serving.whep is None:
        raise LocalError("WebRTC is not running here.", code="webrtc_off", remedy="Play by FLV or HLS.")
    return serving.whep


def _session(request: web.Request) -> str:
    session_id = request.match_info["session"]
    if _SESSION.fullmatch(session_id) is None:
        raise _unknown_session()
    return session_id


def _unknown_session() -> RequestError:
    return RequestError(
        "There is no such WebRTC session.", status=404, code="unknown_session", remedy="POST a new offer."
    )


async def _text(request: web.Request, content_type: str) -> str:
    if request.content_type != content_type:
        raise RequestError(
            f"Expected {content_type}.", status=415, code="content_type", remedy=f"Send Content-Type: {content_type}."
        )
    body = bytearray()
    async for part in request.content.iter_chunked(16 << 10):
        body += part
        if len(body) > limits.WHEP_SDP_BYTES:
            raise RequestError("The SDP is too long.", status=413, code="body_too_long")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise RequestError("The SDP is not UTF-8.", code="sdp_offer_invalid") from None


def _host(request: web.Request) -> str:
    host = request.host
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
