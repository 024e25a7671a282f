"""The composition root: builds every part, owns the top TaskGroup, and supervises.

    async with Gateway(config) as gateway:
        async with gateway.play(device_id, channel_id) as playing:
            async for unit in playing.units():
                ...

A session that fails is its own affair and leaves a cause behind; anything unexpected in a task of this group takes the
process down, loudly.
"""

import asyncio
import os
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, aclosing
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from gbgw import figures
from gbgw.archive import Archive
from gbgw.base import limits
from gbgw.base.config import Config
from gbgw.base.errors import ConfigError, GatewayError, LimitError, LocalError, MediaError, RequestError, StateError
from gbgw.base.strict import is_strict
from gbgw.cameras import CameraDesk
from gbgw.control import ControlDesk, TokenRows
from gbgw.devices import Devices
from gbgw.dialogs import Dialogs
from gbgw.directory import Directory
from gbgw.downloads import Downloads
from gbgw.fetching import muxed
from gbgw.gb import ids, invite
from gbgw.gb.control import KeyFrameCommands
from gbgw.gb.invite import Platform
from gbgw.gb.manscdp import Document, edition_of
from gbgw.gb.ssrc import SsrcPool
from gbgw.history import HistoryDesk
from gbgw.interview import Interviews
from gbgw.mux.feed import Feeds
from gbgw.mux.transcode import Transcoders
from gbgw.net.sip import SipStack
from gbgw.observe import log
from gbgw.observe.events import Events
from gbgw.observe.histogram import Histogram
from gbgw.playbacks import Playbacks
from gbgw.playing import Playing
from gbgw.questions import Questions
from gbgw.serve import places
from gbgw.serve.auth import Authority
from gbgw.serve.context import Serving
from gbgw.serve.http import HttpServer
from gbgw.serve.relay import Relay, fetched
from gbgw.serve.source import AudioChoice, Sample, StreamKey
from gbgw.serve.viewers import Viewers
from gbgw.serve.webrtc import WebRtc
from gbgw.session import Past, Seat, Session, State, Target
from gbgw.sip.agent import Rebound
from gbgw.sip.flow import Flow
from gbgw.store.sqlite import SqliteStore
from gbgw.watching import Watch, Watching
from gbgw.worker import capacity, shares, tickets
from gbgw.worker.base import MediaWorker
from gbgw.worker.channel import lost
from gbgw.worker.local import LocalWorker
from gbgw.worker.pool import WorkerPool
from gbgw.worker.remote import RemoteIngest, RemoteWorker

ENDED_REMEMBERED: Final = 1_000  # sessions that are over whose cause the API still shows
FIRST_FRAME_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
KEYFRAME_ANSWER_SECONDS: Final = 5.0
REBOOT_SILENCE_SECONDS: Final = 2.0  # of a stream whose camera registers as if it had restarted


class Gateway:
    """A GB/T 28181 platform and its media gateway.

    Everything runs inside `async with`; leaving it says BYE to every camera and gives all back.
    """

    def __init__(self, config: Config | None = None, *, served: bool = False) -> None:
        """served: a program of its own, whose `media.workers = "auto"`, the default, are processes; in a library they
        would take the pictures out of the caller's process, so there it means 0."""
        self.config = config or Config()
        self._served = served
        self.viewers = Viewers()
        self.tally = log.root_tally()
        self.events = Events()
        self.directory = Directory()
        self.feeds = Feeds(tally=self.tally)
        self.new_admin_token: str | None = None
        self._platform = Platform(self.config.sip.id, self.config.sip.domain, self.config.sip.advertise)
        self._ssrcs = SsrcPool(self.config.sip.id)
        self._keyframes = KeyFrameCommands(self.config.sip.keyframe_seconds)
        self._sessions: dict[str, Session] = {}
        self.playbacks = Playbacks(self._sessions.__contains__)
        self._ended: OrderedDict[str, tuple[Session, datetime]] = OrderedDict()
        self._first_frames = Histogram(FIRST_FRAME_BUCKETS)
        self._stopping = False
        self._pool: WorkerPool | None = None
        self._webrtc: WebRtc | None = None
        self._relay: Relay | None = None
        self._kept_places: dict[int, Seat] = {}  # by ticket
        self._tickets = 0
        self._reinvited: dict[str, list[float]] = {}  # when, by key
        self._exit = AsyncExitStack()
        self._log = log.get("gateway")

    # Life

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._store = await SqliteStore.open(_store_path(self.config.store.url), tally=self.tally)
            stack.push_async_callback(self._store.close)
            self._dialogs = Dialogs(self._store, self.tally)
            self.devices = Devices(
                self.config.sip,
                self._store,
                self.directory,
                offline=self._device_gone,
                rebooted=self._end_silent_sessions,
                bound=self._follow,
                notified=self._notified,
                media_ended=self._recording_over,
                tally=self.tally,
                events=self.events,
            )
            await self.devices.load()
            self._worker = await self._start_media(stack)
            self._sip = await stack.enter_async_context(
                SipStack(
                    self.config.sip.listen,
                    on_incoming=self.devices.request,
                    on_flow_closed=self.devices.flow_closed,
                    on_dialog=self._dialogs.heard,
                    advertise=self.config.sip.advertise,
                    tally=self.tally,
                )
            )
            self._questions = Questions(self._sip, self._platform, self.directory, self.tally)
            interviews = Interviews(self._questions, self.devices, self.tally)
            self.devices.sip, self.devices.questions = self._sip, self._questions
            self.devices.interviews = await stack.enter_async_context(interviews)
            self.archive = Archive(self._questions, self.directory, self.tally)
            self.cameras = await stack.enter_async_context(
                CameraDesk(self._questions, self._store, self.events, self.tally)
            )
            self._tasks = await asyncio.TaskGroup().__aenter__()
            # Not told of an error in the body, which would come out wrapped in a group
            stack.push_async_callback(self._tasks.__aexit__, None, None, None)
            stack.callback(self._tasks.create_task(self.devices.run(), name="registrar").cancel)
            stack.push_async_callback(self._close_sessions)
            for dialog in await self._store.dialogs():
                self._tasks.create_task(self._dialogs.end_old(dialog, self._sip), name=f"orphan:{dialog.key}")
            self.downloads = Downloads(
                self.config.download,
                _download_folder(self.config),
                fetch=self._recording,
                played=self._played,
                tally=self.tally,
            )
            self._authority = await self._authorise()
            self._http = await stack.enter_async_context(await self._http_server(stack))
            await stack.enter_async_context(self.downloads)
            self._exit = stack.pop_all()
        workers = {"workers": self._pool.pids} if self._pool is not None else {}
        self._log.info("ready", http=self.http_url, sip=list(self.config.sip.listen), **workers)
        return self

    async def _start_media(self, stack: AsyncExitStack) -> MediaWorker:
        """The media side: in this process, or in workers."""
        media = self.config.media
        cpus = sorted(os.sched_getaffinity(0))
        workers = 0
        if self._served or media.workers != "auto":
            counted = shares.count(self.config, capacity.of_this_process())
            workers = counted.workers
            if counted.reason:
                self._log.info("media workers", count=workers, bound=counted.reason)
        if workers == 0:
            transcoders = await stack.enter_async_context(Transcoders(video_limit=media.transcode, tally=self.tally))
            self._watching = Watching(transcoders)
            return await stack.enter_async_context(LocalWorker(media, self.feeds, tally=self.tally))
        self._pool = await stack.enter_async_context(
            WorkerPool(
                shares.divide(_logging_as_here(self.config), workers),
                shares.pin(media.worker_cpus, workers, cpus),
                desk=self,
                viewers=self.viewers,
                tally=self.tally,
            )
        )
        return self._pool

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self.events.close()
        await self._exit.__aexit__(kind, error, trace)

    async def wait(self) -> None:
        """Serve until cancelled."""
        await asyncio.get_running_loop().create_future()

    def reload(self, fresh: Config) -> list[str]:
        """Take over what can change live; return a line for each key that needs a restart."""
        lines = []
        for section, options in fresh.model_dump().items():
            for key, value in options.items():
                if value != getattr(getattr(self.config, section), key) and (section, key) not in _LIVE:
                    lines.append(f"{section}.{key} changed; restart the gateway for it")
        live = self.config.media.model_copy(
            update={key: getattr(fresh.media, key) for section, key in _LIVE if section == "media"}
        )
        self.config = self.config.model_copy(update={"media": live, "log": fresh.log})
        log.configure(fresh.log.level, fresh.log.format)
        if self._pool is not None:
            self._pool.configure_logging(fresh.log.level, fresh.log.format)
        return lines

    @property
    def http_url(self) -> str:
        host, port = self._http.address
        shown = f"[{host}]" if ":" in host else host
        return self.config.http.public_url or f"http://{shown}:{port}"

    @property
    def sip_ports(self) -> dict[str, int]:
        """The first SIP port of each transport."""
        return self._sip.ports

    # Watching

    async def open(
        self,
        key: str,
        *,
        protocol: str,
        viewer: str,
        audio: AudioChoice = "native",
        video: Literal["h264"] | None = None,
    ) -> Watch:
        """Return once the stream is playable, inviting the camera where nobody did yet (serve.source.StreamSource)."""
        if self._pool is not None:
            raise StateError(
                "the stream's pictures are in a media worker, another process",
                code="media_elsewhere",
                remedy="set media.workers = 0 to take them in Python",
            )
        try:
            return await self._watching.open(await self._session(key), protocol=protocol, audio=audio, video=video)
        except MediaError as error:
            if error.code != "device_rebooted" or self._stopping:
                raise
        # Its INVITE went to a camera that had just restarted; the one that is there now was never asked.
        return await self._watching.open(await self._session(key), protocol=protocol, audio=audio, video=video)

    def play(self, device_id: str, channel_id: str) -> Playing:
        """Watch a channel from Python: `async with gateway.play(...) as playing`, then `playing.units()` or
        `.frames()`."""
        return Playing(self, ids.stream_key(device_id, channel_id))

    async def seat(self, key: str, *, worker: int | None = None, ticket: int = 0) -> Seat:
        """Watch without taking the pictures: return once the stream plays, wherever its media is.

        worker: where it is started if it does not run. ticket: of a place that `passage` keeps.
        """
        try:
            kept = self._kept_places.pop(ticket, None)
            return await kept.taken() if kept is not None else await self._sit(key, worker)
        except GatewayError as error:
            if error.code not in _PASSING or self._stopping:
                raise
        return await self._sit(key, worker)

    async def _sit(self, key: str, worker: int | None) -> Seat:
        return await Seat(await self._session(key, worker=worker)).taken()

    async def passage(self, key: str) -> "Passage":
        """The way to the media worker that has a stream, or gets it now (serve.relay.Carriers)."""
        try:
            return await self._passage(key)
        except GatewayError as error:
            if error.code not in _PASSING or self._stopping:
                raise
        return await self._passage(key)

    async def _passage(self, key: str) -> "Passage":
        session = await self._session(key)
        seat = Seat(session)
        try:
            carrier = self.carrier(await session.placed())
            if carrier is None:
                raise lost()
        except BaseException:
            seat.leave()
            raise
        self._tickets += 1
        self._kept_places[self._tickets] = seat
        plays = session.state in (State.PLAYING, State.LINGERING)
        ingest = session.ingest if plays and isinstance(session.ingest, RemoteIngest) else None
        return Passage(self._kept_places, self._tickets, carrier, ingest.number if ingest is not None else 0)

    def carrier(self, number: int) -> RemoteWorker | None:
        return self._pool.carrier(number) if self._pool is not None else None

    def any_carrier(self) -> RemoteWorker:
        assert self._pool is not None
        return self._pool.any_carrier()

    async def start(self, key: str) -> Session:
        """Play without viewers until `stop`."""
        session = await self._session(key)
        session.keep()
        try:
            await session.playable()
        except LocalError as error:
            if error.code != "worker_lost" or self._stopping:
                raise
            session = await self._session(key)
            session.keep()
            await session.playable()
        return session

    async def stop(self, key: str) -> None:
        session = self._sessions.get(key)
        if session is not None:
            session.close(
                MediaError(
                    "the stream was stopped by the operator",
                    code="stream_stopped",
                    remedy="ask for it again to start it",
                )
            )
            await session.closed()

    async def _session(self, key: str, *, worker: int | None = None) -> Session:
        parsed = StreamKey.parse(key)
        if parsed.substream:
            raise RequestError(
                "sub-streams cannot be asked for in this version",
                status=404,
                code="unknown_channel",
                remedy="leave @... out of the key",
                stream=key,
            )
        while (session := self._sessions.get(key)) is not None and not session.accepts_viewers:
            await session.closed()
            if self._sessions.get(key) is session:
                del self._sessions[key]
        if session is not None:
            return session
        if self._stopping:
            raise _stopping(key)
        past = self._past(parsed) if parsed.is_history else None
        entry, item = self.directory.find(parsed.device_id, parsed.channel_id)
        assert entry.flow is not None
        if len(self._sessions) >= self.config.media.sessions:
            raise LimitError(
                f"{self.config.media.sessions} streams are open",
                code="sessions_exhausted",
                remedy="stop some streams or raise media.sessions",
                stream=key,
            )
        session = Session(
            Target(entry.id, item.device_id, entry.flow, entry.media_transport or self.config.media.transport, past),
            config=self.config,
            platform=self._platform,
            sip=self._sip,
            worker=self._worker if self._pool is None or worker is None else self._pool.pinned(worker),
            ssrcs=self._ssrcs,
            dialogs=self._dialogs,
            tally=self.tally,
            keyframe=self._ask_keyframe,
            changed=self._session_changed,
        )
        self._sessions[key] = session
        self._tasks.create_task(self._supervise(session), name=f"session:{key}")
        return session

    def _past(self, key: StreamKey) -> Past:
        """What of the past a key means. Raises RequestError for a playback that nobody made."""
        linger = limits.PLAYBACK_LINGER_SECONDS
        if key.name.startswith(places.SHARED):
            known = self.playbacks.get(key.name, asyncio.get_running_loop().time())
            if known is None or known.key != key:
                raise RequestError(
                    "there is no such playback (any more)",
                    status=404,
                    code="unknown_playback",
                    remedy="make another with POST /api/v1/playbacks, or leave the name out of the address",
                    stream=str(key),
                )
            linger = self.config.media.linger_seconds
        download = self.downloads.get(key.name) if key.name.startswith(places.DOWNLOAD) else None
        return Past(key.start, key.stop, key.name, linger, download.speed if download is not None else None)

    async def _recording(self, key: str) -> AsyncGenerator[bytes, None]:
        """Yield a recording as FLV, as its device sends it. Raises the cause when it breaks off."""
        if self._pool is not None:
            assert self._relay is not None
            source = fetched(self._relay, await self.passage(key), key, ".flv")
        else:
            source = muxed(self, self.feeds, key)
        async with aclosing(source) as pieces:
            async for piece in pieces:
                yield piece
        session = self.last_session(key)
        if session is not None:
            await session.closed()
            if session.cause is not None:
                raise copy(session.cause)

    def _played(self, key: str) -> float:
        """Seconds of a recording that have come so far."""
        session = self.last_session(key)
        return session.figures().played_seconds if session is not None else 0.0

    async def _supervise(self, session: Session) -> None:
        try:
            await session.run()
        except Exception:
            self.tally.add("bug.session")
            self._log.exception("bug", stream=session.key)
            if is_strict():
                raise
        finally:
            if self._sessions.get(session.key) is session:
                del self._sessions[session.key]
            self._ended[session.key] = (session, datetime.now(UTC))
            self._ended.move_to_end(session.key)
            while len(self._ended) > ENDED_REMEMBERED:
                self._ended.popitem(last=False)
            if session.was_wanted and session.target.past is None and not self._stopping:
                self._tasks.create_task(self._invite_again(session), name=f"again:{session.key}")

    async def _invite_again(self, before: Session) -> None:
        """Its worker died under a stream that somebody wanted: bring it back on another, at once, since its viewers are
        coming back. What kills its worker each time is left to whoever asks for it."""
        key = before.key
        now = asyncio.get_running_loop().time()
        times = [at for at in self._reinvited.get(key, ()) if now - at < limits.WORKER_REINVITE_SECONDS]
        self._reinvited = {
            known: at for known, at in self._reinvited.items() if now - at[-1] < limits.WORKER_REINVITE_SECONDS
        }
        if len(times) >= limits.WORKER_REINVITES:
            self.tally.add("worker.not_reinvited", detail=key, now=now)
            return
        self._reinvited[key] = [*times, now]
        try:
            session = await self._session(key)
            if before.kept:
                session.keep()
            await session.playable()
            self.tally.add("worker.reinvited")
        except GatewayError as error:
            self.tally.add("worker.reinvite_failed", detail=f"{key}: {error.code}", now=now)

    def _session_changed(self, session: Session) -> None:
        cause = session.cause
        if "published" in session.steps and not session.measured:
            session.measured = True
            self._first_frames.observe(session.steps["published"] - session.steps["invite_sent"])
        self.events.emit(
            "stream.state",
            key=session.key,
            state=session.state.value,
            cause=cause.code if cause is not None and session.state is State.FAILED else None,
        )

    async def _close_sessions(self) -> None:
        """BYE to every camera, side by side, each bounded by its own goodbye."""
        self._stopping = True
        sessions = list(self._sessions.values())
        for session in sessions:
            session.close(_stopping(session.key))
        for session in sessions:
            await session.closed()

    # Key frames

    def _ask_keyframe(self, session: Session) -> None:
        """Send the IFrame command, at most one per channel in the configured time."""
        now = asyncio.get_running_loop().time()
        entry = self.directory.get(session.target.device_id)
        if self._stopping or entry is None or entry.flow is None:
            return
        sn = self._questions.next_sn(entry.id)
        body = self._keyframes.make(session.key, session.target.channel_id, sn, edition_of(entry.edition or None), now)
        if body is not None:
            self.tally.add("keyframe.asked")
            self._tasks.create_task(self._send_keyframe(entry.id, body, entry.flow), name=f"keyframe:{session.key}")

    async def _send_keyframe(self, device_id: str, body: bytes, flow: Flow) -> None:
        try:
            await self._sip.request(
                invite.build_message(self._platform, device_id, body, flow), flow, KEYFRAME_ANSWER_SECONDS
            )
        except GatewayError as error:
            self.tally.add("keyframe.unanswered", detail=f"{device_id}: {error.code}")

    async def request_keyframe(self, device_id: str, channel_id: str) -> None:
        session = self._sessions.get(ids.stream_key(device_id, channel_id))
        if session is None:
            self.directory.find(device_id, channel_id)
            raise RequestError(
                "the channel is not streaming", status=409, code="not_streaming", remedy="start the stream first"
            )
        self._ask_keyframe(session)

    # What happens to devices

    def _follow(self, device_id: str, flow: Flow) -> None:
        """The device is reached by another flow: its dialogs go on there, and those of the last life end."""
        self._sip.submit(Rebound(device_id, flow))
        if self._dialogs.has_orphans(device_id):
            self._tasks.create_task(self._dialogs.end_orphans(device_id, flow, self._sip), name=f"orphan:{device_id}")

    def _notified(self, device_id: str, document: Document) -> None:
        self.cameras.notified(device_id, document)

    def _device_gone(self, device_id: str, cause: GatewayError) -> None:
        self.cameras.gone(device_id)
        self._end_sessions(device_id, cause)

    def _end_sessions(self, device_id: str, cause: GatewayError) -> None:
        for session in self._sessions.values():
            if session.target.device_id == device_id:
                session.close(cause)

    def _end_silent_sessions(self, device_id: str) -> None:
        """The device looks restarted. Some change their Call-ID at every refresh, so only what no longer sends is
        dead."""
        now = asyncio.get_running_loop().time()
        for session in self._sessions.values():
            if session.playhead is not None and session.playhead.paused:
                continue  # it is silent because it was told to be
            if session.target.device_id == device_id and now - session.heard_at > REBOOT_SILENCE_SECONDS:
                session.close(
                    MediaError(
                        "the camera restarted",
                        code="device_rebooted",
                        remedy="the next viewer invites it again",
                    )
                )

    def _recording_over(self, device_id: str, named: str, dialog: int | None) -> None:
        """A device says that a recording was sent to its end (MediaStatus 121). The dialog says which, or the Call-ID
        by which the user agent found it; else the one session of history that it can be (reference 6.9)."""
        past = [
            session
            for session in self._sessions.values()
            if session.target.device_id == device_id and session.target.past is not None
        ]
        meant = [session for session in past if dialog is not None and session.dialog == dialog]
        if not meant:
            of_channel = [session for session in past if session.target.channel_id == named]
            meant = of_channel or past
        if len(meant) == 1:
            meant[0].recording_over()
        else:
            self.tally.add("playback.end_unclear", detail=f"{device_id}: {named}, {len(meant)} playbacks")

    def session(self, key: str) -> Session | None:
        """The session that runs under a key."""
        return self._sessions.get(key)

    def history_keys(self) -> list[StreamKey]:
        """Of the playbacks that run."""
        keys = (StreamKey.parse(key) for key, session in self._sessions.items() if session.target.past is not None)
        return sorted(keys, key=lambda key: key.name)

    # What is shown of it

    def recent(self, seconds: float) -> dict[str, Session]:
        """The running sessions, and the failed ones of the last `seconds`, by key."""
        now = datetime.now(UTC)
        shown = {
            key: session
            for key, (session, at) in self._ended.items()
            if session.state is State.FAILED and (now - at).total_seconds() < seconds
        }
        return shown | self._sessions

    def last_session(self, key: str) -> Session | None:
        """The running session of a key, or the last one that ended."""
        session = self._sessions.get(key)
        if session is None and key in self._ended:
            session = self._ended[key][0]
        return session

    def resources(self) -> dict[str, int]:
        """What sessions hold just now; all zero when nothing plays, and nothing but zero when the gateway is closed."""
        return {
            "sessions": len(self._sessions),
            "ports": self._worker.port_counts().in_use,
            "ssrcs": self._ssrcs.in_use,
            "dialogs": self._sip.agent.dialogs,
            "questions": self._questions.pending,
        }

    def not_ready(self) -> list[str]:
        reasons = ["the gateway is stopping"] if self._stopping else []
        if self._store.failure is not None:
            reasons.append(f"the store does not take what is written: {self._store.failure}")
        reasons += self._worker.not_ready()
        return reasons

    def samples(self) -> Iterable[Sample]:
        """The figures of /metrics."""
        yield from figures.samples(
            self.directory, self._sessions, self._ssrcs, self._worker.port_counts(), self._first_frames
        )
        yield from self._worker.samples()
        if self._pool is None:
            yield from figures.of_this_process(self._sessions)
        if self._webrtc is not None:
            yield from self._webrtc.samples()

    # HTTP

    async def _authorise(self) -> Authority:
        authority = Authority(
            TokenRows(self._store),
            play=self.config.auth.play,
            play_secret=secrets.token_bytes(32),
            play_seconds=self.config.auth.play_token_seconds,
            tally=self.tally,
        )
        await authority.load()
        self.new_admin_token = await authority.ensure_admin()
        if self.new_admin_token and self.config.auth.admin_token_file:
            _write_private(self.config.auth.admin_token_file, self.new_admin_token)
        return authority

    async def _http_server(self, stack: AsyncExitStack) -> HttpServer:
        desk = ControlDesk(self)
        relay = None
        if self._pool is None:
            self._webrtc = await stack.enter_async_context(WebRtc(self.config.webrtc, tally=self.tally))
        else:
            self._relay = relay = await stack.enter_async_context(Relay(self))
        serving = Serving(
            source=self,
            control=desk,
            cameras=self.cameras,
            observed=desk,
            authority=self._authority,
            feeds=self.feeds,
            http=self.config.http,
            tally=self.tally,
            viewers=self.viewers,
            whep=self._webrtc,
            relay=relay,
            history=HistoryDesk(self),
        )
        return HttpServer(serving)

    def play_token(self, key: str) -> str:
        """Return a signed, expiring token for the play URLs of `key`."""
        return self._authority.sign_play(key)[0]

    async def until_playable(self, device_id: str, channel_id: str) -> None:
        """Return once the channel can be asked for: its device is online and has told its catalog.

        Raises LocalError `stopping`.
        """
        key = ids.stream_key(device_id, channel_id)
        while not self.is_playable(key):
            if self.events.closed:
                raise _stopping(key)
            async with aclosing(self.events.follow()) as events:  # cut off when it lags too far: then look again
                async for _ in events:
                    if self.is_playable(key):
                        return

    def is_playable(self, key: str) -> bool:
        parsed = StreamKey.parse(key)
        entry = self.directory.get(parsed.device_id)
        return entry is not None and entry.online and entry.playable(parsed.channel_id)


class Passage:
    """A viewer's way to his stream's worker (serve.relay.Passage). ingest: of a stream that plays; the worker need not
    ask then."""

    def __init__(self, places: dict[int, Seat], number: int, carrier: RemoteWorker, ingest: int) -> None:
        self.ticket = tickets.write(number, ingest)
        self.carrier = carrier
        self._number = number
        self._places = places

    def expire(self) -> None:
        if self._number in self._places:
            asyncio.get_running_loop().call_later(limits.WORKER_TICKET_SECONDS, self.release)

    def release(self) -> None:
        seat = self._places.pop(self._number, None)
        if seat is not None:
            seat.leave()


_PASSING: Final = frozenset({"device_rebooted", "worker_lost"})  # that a second attempt does not meet again


def _logging_as_here(config: Config) -> Config:
    """For a worker, whose log goes where ours does: the command line may log by other rules than the configuration's
    (`gbgw demo`). In a library, whose own logging a process cannot know, the configuration holds."""
    here = log.configured()
    if here is None:
        return config
    level, form = here
    return config.model_copy(update={"log": config.log.model_copy(update={"level": level, "format": form})})


def _stopping(key: str) -> LocalError:
    return LocalError("the gateway is stopping", code="stopping", remedy="try again in a moment", stream=key)


def _download_folder(config: Config) -> Path:
    """Where downloads go: beside the store; of a store in memory, into the machine's folder for what may vanish."""
    if config.download.folder:
        return Path(config.download.folder)
    store = _store_path(config.store.url)
    parent = Path(tempfile.gettempdir()) / f"gbgw-{os.getpid()}" if store == ":memory:" else Path(store).parent
    return parent / "downloads"


def _store_path(url: str) -> str:
    return url.removeprefix("sqlite:///") or ":memory:"


def _write_private(path: str, secret: str) -> None:
    """Write the admin token where only its owner reads it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(secret + "\n")
    except OSError as error:
        raise ConfigError(
            f"auth.admin_token_file {path}: {error.strerror}", remedy="choose a folder this user may write to"
        ) from None


_LIVE: Final = frozenset(
    {
        ("media", "first_packet_seconds"),
        ("media", "key_frame_seconds"),
        ("media", "idle_seconds"),
        ("media", "linger_seconds"),
        ("media", "loss"),
        ("media", "sessions"),
        ("log", "level"),
        ("log", "format"),
    }
)
