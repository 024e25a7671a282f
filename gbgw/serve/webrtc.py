"""WebRTC play (WHEP): all viewers of this process. H.264, H.265 and G.711 pass through, addresses and ports are of our
own choosing (architecture decision 4).

aiortc and aioice make ICE, DTLS and the keys; what leaves is chosen by serve.outlet and sent by serve.lane, or by
aiortc's own sender where `webrtc.sender` says so. Offers are read by serve.offer; aiortc sees none of their text. One
viewer is serve.rtc_session. Leaves out: H.265 for viewers that do not offer it (refused, or asked for as
`?video=h264`), AAC, TURN towards viewers behind symmetric NAT.
"""

import asyncio
import secrets
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, Final, Self

from gbgw.base import limits
from gbgw.base.codec import H265
from gbgw.base.config import WebRtcConfig
from gbgw.base.errors import LocalError, RequestError
from gbgw.base.strict import is_strict
from gbgw.base.tally import Tally
from gbgw.observe import log
from gbgw.serve import offer as sdp
from gbgw.serve.addresses import Addresses
from gbgw.serve.dtls import Identities
from gbgw.serve.internals import check_internals
from gbgw.serve.native import Srtp
from gbgw.serve.pacer import Pacer
from gbgw.serve.payloads import Packer
from gbgw.serve.playable import check_playable, check_served, law, profile
from gbgw.serve.rtc_session import Common, Session
from gbgw.serve.source import Sample, Viewing
from gbgw.serve.turns import Turns
from gbgw.serve.whep import WhepRequest

_LOSSES: Final = (  # figure, event, what it is
    ("packets_lost", "webrtc.lost", "Packets that did not reach viewers, before repair."),
    ("packets_nacked", "webrtc.nacked", "Packets that viewers asked for again."),
    ("packets_resent", "webrtc.resent", "Packets sent again."),
)


class WebRtc:
    """All WebRTC viewers of this process; serve.whep.WhepBackend.

    Raises LocalError `webrtc_version` at once when aiortc or aioice is not the version it is made for.
    """

    def __init__(self, config: WebRtcConfig, *, tally: Tally, mark: str = "") -> None:
        """mark: the ids of its sessions begin with it."""
        check_internals()
        self._mark = mark
        self.tally = tally
        self.addresses: Addresses
        self._turns: Turns
        self._config = config
        self._srtp = Srtp() if config.sender == "native" else None
        self._common: Common
        self._sessions: dict[str, Session] = {}
        self._tasks = asyncio.TaskGroup()
        self._stopping = False
        self._log = log.get("webrtc")

    async def __aenter__(self) -> Self:
        self._turns = Turns()
        self.addresses = Addresses(self._config, self.tally, self._turns)
        self._common = Common(self.tally, Packer(), Pacer(), self._srtp, self.addresses, Identities())
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        for session in list(self._sessions.values()):
            session.end("stopping")
        await self._tasks.__aexit__(None, None, None)
        self._common.pacer.close()
        self.addresses.close()
        self._turns.close()

    def __len__(self) -> int:
        return len(self._sessions)

    def samples(self) -> Iterable[Sample]:
        """Figures of /metrics."""
        connected = sum(1 for session in self._sessions.values() if session.is_connected)
        yield Sample("webrtc_sessions", connected, labels={"state": "connected"}, help="WebRTC sessions.")
        yield Sample("webrtc_sessions", len(self._sessions) - connected, labels={"state": "connecting"})
        for name, event, text in _LOSSES:
            yield Sample(f"webrtc_{name}", self.tally[event], kind="counter", help=text)
        for by in ("pli", "fir"):
            yield Sample(
                "webrtc_pictures_lost",
                self.tally[f"webrtc.{by}"],
                kind="counter",
                labels={"by": by},
                help="Key frames that viewers asked for.",
            )

    def ice_servers(self) -> tuple[str, ...]:
        return self._config.ice_servers

    async def answer(self, viewing: Viewing, offer_sdp: str, request: WhepRequest) -> tuple[str, str]:
        """Answer an offer; see WhepBackend."""
        if self._stopping:
            raise LocalError("The gateway is stopping.", code="stopping", remedy="Try again.", stream=request.key)
        await self._turns.mine()
        check_playable(viewing.stream)
        offer = sdp.parse(offer_sdp, stream=request.key)
        if offer.is_lite and self.addresses.is_shared:
            raise RequestError(
                "The viewer is ICE lite, and so is this gateway on a single port: nobody would ask first.",
                code="sdp_offer_invalid",
                remedy="Use a full ICE agent, or give webrtc.ports a range.",
                stream=request.key,
            )
        served = sdp.choose(
            offer,
            profile=profile(viewing.stream),
            law=law(viewing.stream),
            video="H265" if viewing.stream.video is not None and viewing.stream.video.codec is H265 else "H264",
            stream=request.key,
        )
        check_served(viewing.stream, served)
        session = Session(self._common, self._mark + secrets.token_urlsafe(24), viewing, request, offer)
        try:
            async with asyncio.timeout(limits.WHEP_ANSWER_SECONDS):
                answer = await session.negotiate(served)
        except BaseException as error:
            self._tasks.create_task(self._guard(session.hang_up()), name=f"webrtc-hang-up:{request.viewer.id}")
            if isinstance(error, TimeoutError):
                raise LocalError(
                    "The WebRTC answer took too long.", code="webrtc_slow", remedy="Try again.", stream=request.key
                ) from None
            raise
        self._sessions[session.id] = session
        self._tasks.create_task(self._run(session), name=f"webrtc:{request.key}#{request.viewer.id}")
        return answer, session.id

    async def _run(self, session: Session) -> None:
        try:
            await self._guard(session.run())
        finally:
            self._sessions.pop(session.id, None)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """A mistake in one session must not end the others."""
        try:
            await work
        except Exception:
            self._log.exception("bug")
            self.tally.add("bug")
            if is_strict():
                raise

    async def patch(self, session_id: str, fragment: str) -> None:
        await self._session(session_id).add_candidates(fragment)

    async def delete(self, session_id: str) -> bool:
        session = self._sessions.get(session_id)
        if session is None:
            return False
        session.end("deleted")
        await session.closed()
        return True

    def _session(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise RequestError(
                "There is no such WebRTC session.", status=404, code="unknown_session", remedy="POST a new offer."
            )
        return session
