"""WHEP's HTTP half against a backend that only remembers."""

import aiohttp
import pytest

from gbgw.base import limits
from gbgw.base.errors import MediaError, RequestError
from gbgw.serve.source import Viewing
from gbgw.serve.whep import WhepRequest
from tests.unit.serve.support import KEY, World, world

OFFER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\n"
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


class Backend:
    def __init__(self) -> None:
        self.sessions: dict[str, tuple[Viewing, WhepRequest]] = {}
        self.fragments: list[tuple[str, str]] = []
        self.failure: Exception | None = None

    async def answer(self, viewing: Viewing, offer_sdp: str, request: WhepRequest) -> tuple[str, str]:
        assert offer_sdp == OFFER
        if self.failure is not None:
            raise self.failure
        self.sessions["session-1"] = (viewing, request)
        return "v=0\r\nanswer\r\n", "session-1"

    async def patch(self, session_id: str, fragment: str) -> None:
        if session_id not in self.sessions:
            raise RequestError("none", status=404, code="unknown_session")
        self.fragments.append((session_id, fragment))

    async def delete(self, session_id: str) -> bool:
        viewing, request = self.sessions.pop(session_id, (None, None))
        if viewing is None or request is None:
            return False
        await viewing.close()
        request.viewers.remove(request.viewer)
        return True

    def ice_servers(self) -> tuple[str, ...]:
        return ("stun:stun.example:3478",)


async def post(it: World, **options: object) -> aiohttp.ClientResponse:
    defaults = {"data": OFFER, "headers": SDP}
    return await it.client.post(f"{it.url}/live/{KEY}/whep", **(defaults | options))  # type: ignore[arg-type]


async def test_a_session_from_offer_to_delete() -> None:
    backend = Backend()
    async with world(whep=backend, public_url="") as it:
        async with await post(it) as response:
            assert response.status == 201
            assert await response.text() == "v=0\r\nanswer\r\n"
            assert response.headers["Content-Type"].startswith("application/sdp")
            assert response.headers["Link"] == '<stun:stun.example:3478>; rel="ice-server"'
            location = response.headers["Location"]
        assert location == f"/live/{KEY}/whep/session-1"
        assert it.source.opened == [(KEY, "webrtc", "native", None)]
        _, request = backend.sessions["session-1"]
        assert (request.key, request.remote, request.host, request.local) == (
            KEY,
            "127.0.0.1",
            "127.0.0.1",
            "127.0.0.1",
        )
        assert (it.source.watching, len(it.serving.viewers)) == (1, 1)
        async with it.client.patch(it.url + location, data="a=candidate", headers=FRAGMENT) as response:
            assert response.status == 204
        assert backend.fragments == [("session-1", "a=candidate")]
        async with it.client.delete(it.url + location) as response:
            assert response.status == 200
        assert (it.source.watching, len(it.serving.viewers)) == (0, 0)
        for method in ("DELETE", "PATCH"):
            async with it.client.request(method, it.url + location, data="x", headers=FRAGMENT) as response:
                assert response.status == 404


async def test_a_refused_offer_gives_everything_back() -> None:
    backend = Backend()
    backend.failure = MediaError("B-frames.", code="b_frames_unsupported", remedy="Ask for video=h264.")
    async with world(whep=backend) as it:
        async with await post(it) as response:
            assert response.status == 406
            assert (await response.json())["error"]["code"] == "b_frames_unsupported"
        backend.failure = ValueError("a bug")
        async with await post(it) as response:
            assert response.status == 500
            assert "a bug" not in await response.text()
        assert (it.source.watching, len(it.serving.viewers)) == (0, 0)


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (OFFER, "text/plain", 415),
        ("hello", "application/sdp", 400),
        (b"v=0\xff\xfe", "application/sdp", 400),
        ("v=0" + "x" * limits.WHEP_SDP_BYTES, "application/sdp", 413),
    ],
)
async def test_bad_offers_never_open_the_stream(data: str, content_type: str, status: int) -> None:
    async with world(whep=Backend()) as it:
        async with await post(it, data=data, headers={"Content-Type": content_type}) as response:
            assert response.status == status
            assert (await response.json())["error"]["code"]
        assert it.source.opened == []


async def test_without_webrtc_the_answer_says_so() -> None:
    async with world() as it, await post(it) as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "webrtc_off"


async def test_options_and_preflight() -> None:
    async with world(whep=Backend(), cors=("https://app.example",)) as it:
        url = f"{it.url}/live/{KEY}/whep"
        async with it.client.options(url) as response:
            assert response.status == 204
            assert response.headers["Accept-Post"] == "application/sdp"
        headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        async with it.client.options(url, headers=headers) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
        async with await post(it, headers=SDP | {"Origin": "https://app.example"}) as response:
            assert "Location" in response.headers["Access-Control-Expose-Headers"]
