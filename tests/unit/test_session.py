"""The life of one Session, in virtual time, between fakes of the SIP stack, the media worker and the store."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbgw.base import limits
from gbgw.base.config import Config, load
from gbgw.base.errors import GatewayError, LocalError, MediaError, PortsExhaustedError
from gbgw.base.tally import Tally
from gbgw.gb.invite import Platform
from gbgw.gb.ssrc import SsrcPool
from gbgw.media.hub import Stream
from gbgw.serve.source import Sample
from gbgw.session import Past, Session, State, Target
from gbgw.sip import agent
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response
from gbgw.worker.base import Ingest, IngestFigures, IngestListener, IngestSpec, PortCounts, Transport
from tests.support import clock
from tests.unit.gb.support import CAMERA, DOMAIN, PLATFORM, udp

CHANNEL = "34020000001310000001"
ANSWER = b"v=0\r\nc=IN IP4 192.0.2.10\r\nm=video 15060 RTP/AVP 96\r\na=rtpmap:96 PS/90000\r\n"
NO_PORT = ANSWER.replace(b"15060", b"0")


class FakeIngest:
    """A receiver that receives what the test says."""

    port = 31_000
    worker = 3

    def __init__(self, world: "World") -> None:
        self.world = world
        self.stream = Stream("fake")
        self.steps: Mapping[str, float] = {}
        self.last_packet_at: float | None = None
        self.played_seconds = 0.0
        self.answers: list[tuple[str, int, str, int | None, str]] = []

    def figures(self) -> IngestFigures:
        return IngestFigures(packets=7, played_seconds=self.played_seconds)

    async def pace(self, *, scale: float | None = None, seek: bool = False) -> None:
        self.played_seconds = 0.0 if seek else self.played_seconds

    async def answered(
        self, *, address: str, port: int, transport: Literal["udp", "tcp"], ssrc: int | None, sip_host: str
    ) -> None:
        self.answers.append((address, port, transport, ssrc, sip_host))
        await self.world.slow("answered")

    async def settle(self) -> None:
        await self.world.slow("settle")

    async def diagnose(self) -> MediaError:
        return MediaError("nothing came", code="no_rtp")

    async def close(self, cause: MediaError | None = None) -> None:
        self.world.happened.append("port back")
        self.stream.close(cause)
        await self.world.slow("close")


class World:
    """Everything around one session, and a record of what it did."""

    def __init__(self, *overrides: str, transport: Transport = "udp", past: Past | None = None) -> None:
        self.happened: list[str] = []
        self.states: list[State] = []
        self.faults: dict[str, Exception] = {}
        self.seconds: dict[str, float] = {}
        self.goodbye_seconds: float | None = 0.1  # None: the camera never answers BYE or CANCEL
        self.tally = Tally()
        self.ssrcs = SsrcPool(PLATFORM)
        self.ingest = FakeIngest(self)
        self.keyframes = 0
        self.listener: Callable[[agent.Provisional | agent.Final | agent.Failed | agent.Ended], None] | None = None
        self.invited: Request | None = None
        self.spec: IngestSpec | None = None
        self.loop = asyncio.get_running_loop()
        self.session = Session(
            Target(CAMERA, CHANNEL, udp(), transport, past),
            config=self.configuration(*overrides),
            platform=Platform(PLATFORM, DOMAIN),
            sip=self,
            worker=self,
            ssrcs=self.ssrcs,
            dialogs=self,
            tally=self.tally,
            keyframe=self.count_keyframe,
            changed=self.changed,
        )
        self.began = self.loop.time()

    @staticmethod
    def configuration(*overrides: str) -> Config:
        return load(overrides=("media.linger_seconds=5", "media.idle_seconds=8", *overrides)).config

    def count_keyframe(self, session: Session) -> None:
        self.keyframes += 1

    def changed(self, session: Session) -> None:
        self.states.append(session.state)
        if fault := self.faults.get("changed"):
            raise fault

    async def slow(self, what: str) -> None:
        if what in self.seconds:
            await asyncio.sleep(self.seconds[what])
        if fault := self.faults.get(what):
            raise fault

    # Signalling

    def new_handle(self) -> int:
        return 7

    def submit(self, event: agent.Ask | agent.End, listener: Any = None) -> None:
        self.listener = listener
        if isinstance(event, agent.Ask):
            self.happened.append("INVITE")
            self.invited = event.request
        else:
            self.happened.append("END")
            if self.goodbye_seconds is not None:
                self.loop.call_later(self.goodbye_seconds, self.say, agent.Ended(7, "closed"))

    async def request(
        self, request: Request, flow: Flow, timeout_seconds: float, *, dialog: int | None = None
    ) -> Response:
        assert self.invited is not None
        self.happened.append(f"{request.method} in {dialog}")
        return Response.to(self.invited, 200)

    def contact_host(self, flow: Flow) -> str:
        return flow.local[0]

    def say(self, word: agent.Provisional | agent.Final | agent.Failed | agent.Ended) -> None:
        """The user agent passes on a word of the camera; after the last one it has no listener any more."""
        if self.listener is None:
            return
        listener = self.listener
        refused = isinstance(word, agent.Final) and word.response.status >= 300
        if refused or isinstance(word, agent.Failed | agent.Ended):
            self.listener = None
        listener(word)

    def rings(self) -> None:
        if self.invited is not None:
            self.say(agent.Provisional(7, Response.to(self.invited, 180)))

    def answers(self, status: int = 200, body: bytes = ANSWER) -> None:
        if self.invited is not None:
            self.say(agent.Final(7, Response.to(self.invited, status, body=body), udp()))

    def packets(self) -> None:
        self.ingest.last_packet_at = self.loop.time()
        self.session.on_step("first_packet", self.loop.time())

    def publishes(self) -> None:
        self.packets()
        self.session.on_step("published", self.loop.time())

    # MediaWorker

    def port_counts(self) -> PortCounts:
        return PortCounts()

    def not_ready(self) -> Sequence[str]:
        return ()

    def samples(self) -> Iterable[Sample]:
        return ()

    async def open_ingest(self, spec: IngestSpec, listener: IngestListener) -> Ingest:
        self.spec = spec
        await self.slow("open")
        self.happened.append("port")
        return self.ingest

    # Dialogs

    async def dialog_opening(self, handle: int, key: str, request: Request, flow: Flow, ssrc: str, port: int) -> None:
        self.happened.append("stored")
        await self.slow("store")

    def dialog_unused(self, handle: int) -> None:
        self.happened.append("forgotten")

    # What must hold at the end of every life

    def everything_is_back(self) -> None:
        count = Counter(self.happened)
        assert self.session.over
        assert self.session.state in (State.ENDED, State.FAILED)
        assert (self.session.state is State.FAILED) == (self.session.cause is not None)
        assert self.ssrcs.in_use == 0
        assert count["port back"] == count["port"] <= 1
        assert count["INVITE"] <= 1
        assert count["END"] <= count["INVITE"], "an INVITE is ended once"
        unused = count["port"] and not count["INVITE"] and "contact" not in self.faults
        assert count["forgotten"] == (1 if unused else 0), "what became of an INVITE that left is not its matter"
        if "END" in self.happened:
            assert self.happened.index("END") < self.happened.index("port back"), "BYE before the port"
        assert self.session.ingest is None


Script = Callable[[World], Awaitable[None]]


def live(script: Script, *overrides: str, **how: Any) -> World:
    """Run a session beside `script` until it is over; return what it left."""

    async def whole() -> World:
        world = World(*overrides, **how)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(world.session.run(), name="session")
            await script(world)
            async with asyncio.timeout(600):
                await world.session.closed()
        world.everything_is_back()
        return world

    return clock.run(whole())


async def begin(world: World, *, viewer: bool = True) -> None:
    if viewer:
        world.session.viewer_came()
    await asyncio.sleep(0.01)
    assert "INVITE" in world.happened


async def play(world: World, *, viewer: bool = True) -> None:
    """Up to the published picture."""
    await begin(world, viewer=viewer)
    world.rings()
    world.answers()
    await asyncio.sleep(0.01)
    world.publishes()
    assert await world.session.playable() is world.ingest.stream
    await asyncio.sleep(0.01)


# From the request to the BYE


def test_a_whole_life() -> None:
    async def script(world: World) -> None:
        await play(world)
        assert world.session.state is State.PLAYING
        assert world.session.figures().packets == 7
        world.ingest.last_packet_at = world.loop.time() + 100
        world.session.viewer_left()
        await asyncio.sleep(0.01)
        assert world.session.state is State.LINGERING
        left = world.loop.time()
        await world.session.closed()
        assert world.loop.time() - left == pytest.approx(5.1, abs=0.05)

    world = live(script)
    assert world.happened == ["port", "stored", "INVITE", "END", "port back"]
    assert world.states == [State.STARTING, State.PLAYING, State.LINGERING, State.STOPPING, State.ENDED]
    assert world.ingest.stream.ended
    assert world.ingest.stream.cause is None
    assert world.session.figures().packets == 7
    assert list(world.session.steps) == [
        "requested", "invite_sent", "provisional", "answered", "first_packet", "published",
    ]  # fmt: skip
    assert world.ingest.answers == [("192.0.2.10", 15_060, "udp", None, "192.0.2.10")]
    assert world.spec is not None
    assert (world.spec.transport, world.spec.sip_host, world.spec.loss) == ("udp", "192.0.2.10", "freeze")
    assert world.invited is not None
    assert f"y={world.spec.ssrc:010d}".encode() in world.invited.body


def test_a_viewer_who_comes_back_keeps_it() -> None:
    async def script(world: World) -> None:
        await play(world)
        world.ingest.last_packet_at = world.loop.time() + 100
        for _ in range(3):
            world.session.viewer_left()
            await asyncio.sleep(4.9)
            world.session.viewer_came()
            await asyncio.sleep(4.9)
            assert world.session.state is State.PLAYING
        world.session.close()

    assert live(script).session.cause is None


def test_a_viewer_who_comes_at_the_very_end_of_the_linger_is_served() -> None:
    """The timer has fired, the task has not run yet: the viewer's coming counts."""

    async def script(world: World) -> None:
        await play(world)
        world.ingest.last_packet_at = world.loop.time() + 100
        world.session.viewer_left()
        await asyncio.sleep(0)
        world.loop.call_at(world.session._linger_end or 0.0, world.session.viewer_came)
        await asyncio.sleep(10)
        assert world.session.state is State.PLAYING
        world.session.close()

    live(script)


def test_kept_it_plays_for_nobody() -> None:
    async def script(world: World) -> None:
        world.session.keep()
        await play(world, viewer=False)
        world.ingest.last_packet_at = world.loop.time() + 1_000
        await asyncio.sleep(900)
        assert world.session.state is State.PLAYING
        world.session.close(MediaError("enough", code="stream_stopped"))

    world = live(script)
    assert world.states == [State.STARTING, State.PLAYING, State.STOPPING, State.FAILED]
    assert world.ingest.stream.cause is not None
    assert world.ingest.stream.cause.code == "stream_stopped"


def test_viewers_who_left_before_the_picture_cost_one_linger() -> None:
    async def script(world: World) -> None:
        await begin(world)
        world.session.viewer_left()
        world.answers()
        await asyncio.sleep(1)
        world.publishes()
        await asyncio.sleep(0.01)
        assert world.session.state is State.LINGERING

    assert live(script).session.cause is None


# What can go wrong, each with its cause


def failed(script: Script, *overrides: str, code: str, **how: Any) -> World:
    world = live(script, *overrides, **how)
    assert world.session.cause is not None
    assert world.session.cause.code == code
    assert world.session.cause.stream == world.session.key
    assert world.session.cause.__traceback__ is None
    return world


def test_no_answer() -> None:
    async def script(world: World) -> None:
        await begin(world)
        began = world.loop.time()
        with pytest.raises(MediaError) as told:
            await world.session.playable()
        assert told.value.code == "invite_no_answer"
        assert world.loop.time() - began == pytest.approx(3, abs=0.05), "the viewer does not wait for the goodbye"

    world = failed(script, "sip.invite_seconds=3", code="invite_no_answer")
    assert "END" in world.happened


def test_an_answer_after_the_end_is_counted() -> None:
    async def script(world: World) -> None:
        world.goodbye_seconds = None
        await begin(world)
        await asyncio.sleep(3.1)
        assert world.session.state is State.STOPPING
        world.answers()
        await asyncio.sleep(0.1)
        world.say(agent.Ended(7, "closed"))

    world = failed(script, "sip.invite_seconds=3", code="invite_no_answer")
    assert world.tally["invite.late_answer"] == 1
    assert world.tally["session.goodbye_unanswered"] == 0


@pytest.mark.parametrize("status", [403, 404, 486, 503, 603])
def test_refused(status: int) -> None:
    async def script(world: World) -> None:
        await begin(world)
        world.answers(status, b"")

    world = failed(script, code=f"invite_rejected_{status}")
    assert "END" not in world.happened, "a refused INVITE is over by itself"


def test_a_useless_answer_is_ended_on_the_wire() -> None:
    async def script(world: World) -> None:
        await begin(world)
        world.answers(200, NO_PORT)

    world = failed(script, code="sdp_unusable")
    assert world.happened[-2:] == ["END", "port back"]


def test_no_packet_after_the_answer() -> None:
    async def script(world: World) -> None:
        await begin(world)
        world.answers()
        await asyncio.sleep(3.9)
        assert not world.session.over

    failed(script, "media.first_packet_seconds=4", code="no_rtp")


def test_no_packet_after_an_answer_of_tcp() -> None:
    """Some cameras write TCP whatever was offered and send UDP; only when none comes was it meant."""

    async def script(world: World) -> None:
        await begin(world)
        world.answers(200, ANSWER.replace(b"RTP/AVP", b"TCP/RTP/AVP"))
        await asyncio.sleep(3.9)
        assert not world.session.over
        assert world.ingest.answers[0][2] == "udp"

    failed(script, "media.first_packet_seconds=4", code="media_not_supported")


def test_packets_without_a_picture() -> None:
    async def script(world: World) -> None:
        await begin(world)
        world.answers()
        await asyncio.sleep(3.9)
        world.packets()
        await asyncio.sleep(5.9)
        assert not world.session.over

    failed(script, "media.first_packet_seconds=4", "media.key_frame_seconds=6", code="no_rtp")


def test_packets_before_the_answer_start_no_clock() -> None:
    async def script(world: World) -> None:
        await begin(world)
        world.packets()
        await asyncio.sleep(8)
        world.answers()
        await asyncio.sleep(5.5)
        assert world.session.state is State.STARTING
        world.publishes()
        await asyncio.sleep(0.1)
        world.session.close()

    live(script, "media.key_frame_seconds=6")


def test_a_picture_before_the_answer_is_a_picture() -> None:
    """Some cameras send before they answer; the answer must not start the wait for a key frame anew."""

    async def script(world: World) -> None:
        await begin(world)
        world.publishes()
        await asyncio.sleep(0.1)
        assert world.session.state is State.PLAYING
        world.answers()
        world.ingest.last_packet_at = world.loop.time() + 1_000
        await asyncio.sleep(600)
        assert world.session.state is State.PLAYING
        world.session.close()

    assert live(script).session.cause is None


def test_a_picture_without_an_answer_ends() -> None:
    async def script(world: World) -> None:
        await begin(world)
        world.publishes()

    failed(script, "sip.invite_seconds=3", code="invite_no_answer")


def test_the_camera_falls_silent() -> None:
    async def script(world: World) -> None:
        await play(world)
        for _ in range(10):
            await asyncio.sleep(7.9)
            world.ingest.last_packet_at = world.loop.time()
        silent = world.loop.time()
        await world.session.closed()
        assert world.loop.time() - silent == pytest.approx(8.1, abs=0.05)

    world = failed(script, code="media_stopped")
    assert world.ingest.stream.cause is not None


def test_the_camera_says_bye() -> None:
    async def script(world: World) -> None:
        await play(world)
        world.say(agent.Ended(7, "bye"))

    assert "END" not in failed(script, code="closed_by_camera").happened


def test_the_connection_of_the_camera_closes() -> None:
    async def script(world: World) -> None:
        await play(world)
        world.say(agent.Ended(7, "transport"))

    failed(script, code="device_offline", transport="tcp-passive")


def test_no_way_to_the_camera() -> None:
    async def script(world: World) -> None:
        await begin(world)
        world.say(agent.Failed(7, "transport"))

    failed(script, code="invite_no_answer")


def test_no_port_left() -> None:
    async def script(world: World) -> None:
        world.faults["open"] = PortsExhaustedError("none left")
        with pytest.raises(PortsExhaustedError) as first:
            await world.session.playable()
        with pytest.raises(PortsExhaustedError) as second:
            await world.session.playable()
        assert first.value is not second.value, "each viewer raises an exception of his own"

    assert failed(script, code="ports_exhausted").happened == []


def test_no_ssrc_left() -> None:
    async def script(world: World) -> None:
        while world.ssrcs.available:
            world.ssrcs.allocate(world.loop.time())

    async def whole() -> World:
        world = World()
        await script(world)
        await world.session.run()
        return world

    world = clock.run(whole())
    assert world.session.cause is not None
    assert world.session.cause.code == "ssrcs_exhausted"
    assert world.ssrcs.in_use == limits.SSRC_SERIALS


def test_the_store_cannot_take_the_dialog() -> None:
    async def script(world: World) -> None:
        world.faults["store"] = LocalError("the disk is full", code="store_failed")

    world = failed(script, code="store_failed")
    assert world.happened == ["port", "stored", "forgotten", "port back"], "no INVITE that a restart could not end"


# Closing from outside


def test_closed_before_it_began_it_invites_nobody() -> None:
    async def script(world: World) -> None:
        world.session.close()
        with pytest.raises(MediaError) as told:
            await world.session.playable()
        assert told.value.code == "stream_stopped"

    assert "INVITE" not in live(script).happened


def test_the_first_cause_counts_and_reaches_viewers_as_theirs() -> None:
    async def script(world: World) -> None:
        await play(world)
        world.session.close(LocalError("going", code="stopping"))
        world.session.close(MediaError("late", code="stream_stopped"))
        await asyncio.sleep(0)
        world.session.close()

    world = failed(script, code="stopping")
    assert isinstance(world.ingest.stream.cause, MediaError)
    assert world.ingest.stream.cause.code == "stopping"


def test_nobody_joins_a_session_that_ends() -> None:
    async def script(world: World) -> None:
        world.goodbye_seconds = None
        await play(world)
        world.session.close()
        await asyncio.sleep(0.01)
        assert world.session.state is State.STOPPING
        assert not world.session.accepts_viewers
        with pytest.raises(MediaError):
            await world.session.playable()
        world.session.on_keyframe_wanted()
        assert world.keyframes == 0

    world = live(script)
    assert world.tally["session.goodbye_unanswered"] == 1


def test_a_silent_goodbye_is_bounded() -> None:
    async def script(world: World) -> None:
        world.goodbye_seconds = None
        await play(world)
        world.session.close()
        asked = world.loop.time()
        await world.session.closed()
        assert world.loop.time() - asked == pytest.approx(limits.GOODBYE_SECONDS, abs=0.01)

    live(script)


# Floods


def test_a_camera_that_rings_without_end_is_bounded() -> None:
    async def script(world: World) -> None:
        await begin(world)
        for _ in range(10_000):
            world.rings()
        assert len(world.session._words) == limits.SIP_CALL_EVENTS
        world.answers()
        await asyncio.sleep(0.01)
        assert "answered" in world.session.steps
        world.session.close()

    assert live(script).tally["session.provisional_dropped"] == 10_000 - limits.SIP_CALL_EVENTS


def test_steps_are_remembered_once() -> None:
    async def script(world: World) -> None:
        await play(world)
        first = world.session.steps["first_packet"]
        await asyncio.sleep(1)
        for _ in range(10_000):
            world.session.on_step("first_packet", world.loop.time())
        assert world.session.steps["first_packet"] == first
        world.session.first_viewer(5.0)
        world.session.first_viewer(6.0)
        assert world.session.steps["first_viewer"] == 5.0
        world.session.on_keyframe_wanted()
        assert world.keyframes == 1
        world.session.close()

    live(script)


# Bugs and cancellation: everything comes back all the same


def survive(script: Script, *overrides: str, **faults: Exception) -> tuple[World, BaseException | None]:
    """Run a session that may end in an exception; return what is left and the exception."""

    async def whole() -> tuple[World, BaseException | None]:
        world = World(*overrides)
        world.faults.update(faults)
        async with asyncio.TaskGroup() as tasks:

            async def guarded() -> BaseException | None:
                try:
                    await world.session.run()
                except Exception as error:
                    return error
                return None

            running = tasks.create_task(guarded(), name="session")
            scripted = tasks.create_task(script(world), name="script")
            await asyncio.wait([running])
            scripted.cancel()
        world.everything_is_back()
        return world, None if running.cancelled() else running.result()

    return clock.run(whole())


@pytest.mark.parametrize("where", ["open", "store", "answered", "close", "changed"])
def test_a_bug_anywhere_gives_everything_back_and_comes_out(where: str) -> None:
    async def script(world: World) -> None:
        with suppress(GatewayError):
            await play(world)
        world.session.close()

    world, error = survive(script, **{where: ZeroDivisionError("a bug")})
    assert isinstance(error, ZeroDivisionError)
    if where != "close":  # which comes after a regular end
        assert world.session.cause is not None
        assert world.session.cause.code == "internal"


SLOW = {"open": 1.0, "store": 1.0, "answered": 1.0, "close": 1.0}


@pytest.mark.parametrize("again", [None, 0.25, 1.0])
@pytest.mark.parametrize("at", [0.0, 0.5, 1.5, 2.2, 2.7, 3.5, 4.5, 6.5, 8.5, 11.5, 12.5, 13.6])
def test_cancelled_at_any_await(at: float, again: float | None) -> None:
    """One second for each: port, store, ringing, taking the answer, playing, linger, goodbye, closing the port."""

    async def whole() -> World:
        world = World("media.linger_seconds=1")
        world.seconds = SLOW
        world.goodbye_seconds = 1.0

        async def script() -> None:
            world.session.viewer_came()
            await asyncio.sleep(2.5)
            world.rings()
            await asyncio.sleep(0.5)
            world.answers()
            await asyncio.sleep(2)
            world.publishes()
            await asyncio.sleep(5)
            world.session.viewer_left()

        async with asyncio.TaskGroup() as tasks:
            scripted = tasks.create_task(script(), name="script")
            running = tasks.create_task(world.session.run(), name="session")
            await asyncio.sleep(at)
            running.cancel()
            if again is not None:
                await asyncio.sleep(again)
                running.cancel()
            await asyncio.wait([running])
            scripted.cancel()
            if at > 0 and at < 13:
                assert running.cancelled(), "a cancellation is not swallowed"
        if at > 0:
            world.everything_is_back()
        return world

    clock.run(whole())


# Any order of events

ACTIONS = (
    "viewer_came", "viewer_left", "keep", "close", "close_with_cause", "rings", "answers", "answers_badly", "refuses",
    "bye", "transport", "timeout", "packets", "publishes", "silence", "cancel",
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    actions=st.lists(st.tuples(st.sampled_from(ACTIONS), st.sampled_from((0.0, 0.0, 0.05, 1.0, 4.0))), max_size=25),
    goodbye=st.sampled_from((None, 0.0, 0.1, 3.0)),
    slow=st.fixed_dictionaries({name: st.sampled_from((0.0, 0.5)) for name in SLOW}),
    fault=st.sampled_from((None, "open", "store", "answered", "close")),
    bug=st.booleans(),
)
def test_any_life_ends_with_everything_given_back(
    actions: list[tuple[str, float]], goodbye: float | None, slow: dict[str, float], fault: str | None, bug: bool
) -> None:
    def act(world: World, running: "asyncio.Task[None]", action: str) -> None:
        match action:
            case "viewer_came":
                world.session.viewer_came()
            case "viewer_left":
                if world.session.viewers:
                    world.session.viewer_left()
            case "keep":
                world.session.keep()
            case "close":
                world.session.close()
            case "close_with_cause":
                world.session.close(MediaError("enough", code="stream_stopped"))
            case "rings":
                world.rings()
            case "answers":
                world.answers()
            case "answers_badly":
                world.answers(200, NO_PORT)
            case "refuses":
                world.answers(486, b"")
            case "bye":
                world.say(agent.Ended(7, "bye"))
            case "transport":
                world.say(agent.Ended(7, "transport"))
            case "timeout":
                world.say(agent.Failed(7, "timeout"))
            case "packets":
                world.packets()
            case "publishes":
                world.publishes()
            case "cancel":
                running.cancel()

    async def viewer(world: World) -> str:
        try:
            await world.session.playable()
        except GatewayError as error:
            return error.code
        return "playable"

    async def whole() -> None:
        world = World("media.first_packet_seconds=4", "media.key_frame_seconds=4", "sip.invite_seconds=4")
        world.goodbye_seconds = goodbye
        world.seconds = slow
        if fault is not None:
            world.faults[fault] = ZeroDivisionError("a bug") if bug else LocalError("no", code="local_error")
        async with asyncio.TaskGroup() as tasks:

            async def guarded() -> None:
                try:
                    await world.session.run()
                except (ZeroDivisionError, GatewayError):
                    assert fault is not None

            viewing = tasks.create_task(viewer(world), name="viewer")
            running = tasks.create_task(guarded(), name="session")
            await asyncio.sleep(0)
            for action, pause in actions:
                act(world, running, action)
                await asyncio.sleep(pause)
            world.session.close()
            async with asyncio.timeout(30):
                await asyncio.wait([running])
                assert await viewing
        world.everything_is_back()

    clock.run(whole())


# Recordings

PAST = Past(1_000, 1_060, "a1")


def test_a_recording_is_invited_with_its_span_and_a_number_of_history() -> None:
    async def script(world: World) -> None:
        await play(world)
        world.session.on_keyframe_wanted()
        assert world.session.target.key == f"{CAMERA}-{CHANNEL}-1000-1060-a1"
        assert world.session.target.kind == "playback"
        world.session.close()

    world = live(script, past=PAST)
    assert world.keyframes == 0
    assert world.invited is not None
    assert b"s=Playback\r\n" in world.invited.body
    assert b"t=1000 1060\r\n" in world.invited.body
    assert b"y=1" in world.invited.body
    assert world.spec is not None
    assert world.spec.history


def test_its_end_lets_what_is_under_way_arrive() -> None:
    async def script(world: World) -> None:
        await play(world)
        told = world.loop.time()
        world.session.recording_over()
        world.session.recording_over()
        await world.session.closed()
        assert world.loop.time() - told >= limits.RECORD_DRAIN_SECONDS

    world = live(script, past=PAST)
    assert world.session.cause is None
    assert world.ingest.stream.cause is None


def test_bye_is_its_end_and_no_fault() -> None:
    async def script(world: World) -> None:
        await play(world)
        world.say(agent.Ended(7, "bye"))

    assert live(script, past=PAST).session.cause is None


def test_an_end_before_the_first_picture_says_that_there_is_none() -> None:
    async def by_notice(world: World) -> None:
        await begin(world)
        world.answers()
        world.session.recording_over()

    async def by_bye(world: World) -> None:
        await begin(world)
        world.answers()
        await asyncio.sleep(0.01)
        world.say(agent.Ended(7, "bye"))

    for script in (by_notice, by_bye):
        cause = live(script, past=PAST).session.cause
        assert cause is not None
        assert cause.code == "no_record"


def test_silence_counts_by_where_it_stands() -> None:
    async def near_its_end(world: World) -> None:
        await play(world)
        world.ingest.played_seconds = 58.0

    async def before(world: World) -> None:
        await play(world)
        world.ingest.played_seconds = 30.0

    async def paused(world: World) -> None:
        await play(world)
        playhead, ingest = world.session.controlled()
        await playhead.pause(ingest)
        world.session.steered()
        assert world.happened[-1] == "INFO in 7"
        since = world.loop.time()
        await world.session.closed()
        assert world.loop.time() - since == pytest.approx(limits.PLAYBACK_PAUSED_SECONDS, abs=1)

    assert live(near_its_end, past=PAST).session.cause is None
    for script in (before, paused):
        cause = live(script, past=PAST).session.cause
        assert cause is not None
        assert cause.code == "media_stopped"


def test_it_cannot_be_steered_before_it_plays_nor_afterwards() -> None:
    async def script(world: World) -> None:
        await begin(world)
        for attempt in range(2):
            with pytest.raises(GatewayError) as caught:
                world.session.controlled()
            assert caught.value.code == "not_streaming"
            if not attempt:
                world.answers()
                world.publishes()
                await world.session.playable()
                world.session.controlled()
                world.session.close()
                await world.session.closed()

    live(script, past=PAST)


def test_nobody_watches_a_recording_for_long() -> None:
    async def script(world: World) -> None:
        await play(world)
        world.ingest.last_packet_at = world.loop.time() + 100
        world.session.viewer_left()
        left = world.loop.time()
        await world.session.closed()
        assert world.loop.time() - left == pytest.approx(limits.PLAYBACK_LINGER_SECONDS + 0.1, abs=0.05)

    live(script, past=PAST)
