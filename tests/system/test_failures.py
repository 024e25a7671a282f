"""Every way a picture can fail to come, or to last, ends in its own cause, in time, with everything given back."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gbgw.base.errors import GatewayError
from gbgw.gateway import Gateway
from gbgw.serve.answers import status_of
from tests.support import build
from tests.support.peer import Camera, Text
from tests.system import steps
from tests.system.conftest import CHANNEL, DEVICE, KEY, PASSWORD, configuration
from tests.system.steps import all_back, ends, fact, online, opened, playing, plays_on, sending

GatewayAt = Callable[..., Any]
BOTH = pytest.mark.parametrize("workers", [0, 1], indirect=True)  # media in this process, and in a worker
OTHER_DEVICE = "34020000001320000002"
OTHER_KEY = f"{OTHER_DEVICE}-{CHANNEL}"


@asynccontextmanager
async def asked(gateway: Gateway, key: str = KEY) -> Any:
    """A viewer asks; yields the task that ends in a Watch or the cause."""
    task = asyncio.create_task(opened(gateway, key), name="test:open")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def cause_of(task: "asyncio.Task[Any]", code: str, seconds: float) -> GatewayError:
    async with asyncio.timeout(seconds):
        error = await task
    assert isinstance(error, GatewayError), error
    assert error.code == code, error
    assert error.message
    assert error.remedy
    assert error.stream == KEY
    return error


def codes(gateway: Gateway) -> list[str]:
    """The cause that the API shows of the last session."""
    session = gateway.last_session(KEY)
    return [session.cause.code] if session is not None and session.cause is not None else []


# No answer, a refusal, a useless answer


@pytest.mark.conformance(26)
async def test_a_camera_that_never_answers(gateway_at: GatewayAt) -> None:
    async with gateway_at("sip.invite_seconds=0.6") as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        await cause_of(task, "invite_no_answer", 2)
        await fact(lambda: gateway.resources() == steps.FREE, f"everything back: {gateway.resources()}")
        await camera.nothing(0.3, "CANCEL")  # nothing provisional came (RFC 3261 section 9.1)
        camera.respond(invite, 486)  # so that no transaction is left for 32 s
        await all_back(gateway)  # the store keeps a dialog for as long as a late 2xx may come
        assert codes(gateway) == ["invite_no_answer"]


@pytest.mark.conformance(26)
async def test_a_camera_that_only_rings_is_cancelled(gateway_at: GatewayAt) -> None:
    async with gateway_at("sip.invite_seconds=0.6") as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        camera.respond(invite, 100, to_tag="")
        camera.respond(invite, 180)
        await cause_of(task, "invite_no_answer", 2)
        cancel = await camera.expect("CANCEL")
        assert cancel["Via"] == invite["Via"]
        assert cancel.cseq == (invite.cseq[0], "CANCEL")
        camera.respond(cancel, 200)
        camera.respond(invite, 487)
        ack = await camera.expect("ACK")
        assert ack["Via"] == invite["Via"]
        await all_back(gateway)


@pytest.mark.conformance(26)
async def test_an_answer_after_we_gave_up_is_acknowledged_and_ended(gateway_at: GatewayAt) -> None:
    async with gateway_at("sip.invite_seconds=0.6") as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        await cause_of(task, "invite_no_answer", 2)
        await fact(lambda: gateway.resources()["ports"] == 0, "the port is back", 4)
        ack = await camera.answer_invite(invite)
        assert ack.cseq == (invite.cseq[0], "ACK")
        await ends(gateway, camera)


@pytest.mark.conformance(25)
@pytest.mark.parametrize("status", [403, 404, 480, 486, 488, 503, 603])
async def test_a_refusal_is_named_and_acknowledged(gateway_at: GatewayAt, status: int) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        camera.respond(invite, 100, to_tag="")
        camera.respond(invite, status)
        await cause_of(task, f"invite_rejected_{status}", 1)
        assert (await camera.expect("ACK"))["Via"] == invite["Via"]
        await camera.nothing(0.1, "BYE")
        await all_back(gateway)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"garbage", "sdp_unusable"),
        (b"v=0\r\nm=audio 4000 RTP/AVP 8\r\n", "not_program_stream"),
        (b"v=0\r\nc=IN IP4 1.2.3.4\r\nm=video 0 RTP/AVP 96\r\n", "sdp_unusable"),
        (b"v=0\r\nc=IN IP4 1.2.3.4\r\nm=video 9 TCP/RTP/AVP 96\r\na=setup:active\r\n", "media_not_supported"),
    ],
    ids=["garbage", "only-sound", "port-0", "tcp-to-udp"],
)
async def test_a_useless_answer_ends_in_bye(gateway_at: GatewayAt, body: bytes, code: str) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        camera.respond(invite, 200, body=body, headers=["Content-Type: application/sdp"])
        await camera.expect("ACK")
        bye = await camera.expect("BYE")
        camera.respond(bye, 200)
        await cause_of(task, code, 2)
        await all_back(gateway)


@pytest.mark.conformance(24)
async def test_a_repeated_answer_is_acknowledged_again(gateway_at: GatewayAt) -> None:
    async with (
        gateway_at() as gateway,
        online(gateway) as camera,
        playing(gateway, camera) as (watch, _, invite),
    ):
        first = next(text for text in camera.received if text.method == "ACK")
        camera.respond(invite, 200, body=camera.sdp_answer(invite, port=15060))
        again = await camera.expect("ACK")
        assert again.raw == first.raw
        await plays_on(watch)


async def test_a_second_answer_of_another_party_is_ended_and_the_first_plays(gateway_at: GatewayAt) -> None:
    async with (
        gateway_at() as gateway,
        online(gateway) as camera,
        playing(gateway, camera) as (watch, _, invite),
    ):
        camera.respond(
            invite,
            200,
            body=camera.sdp_answer(invite, port=15070),
            to_tag="other",
            headers=[f"Contact: <sip:{CHANNEL}@{camera.local[0]}:{camera.local[1]}>"],
        )
        ack = await camera.expect("ACK")
        bye = await camera.expect("BYE")
        assert ack.tag("To") == bye.tag("To") == "other"
        camera.respond(bye, 200)
        await plays_on(watch)
    # The viewer has gone with the block; what ended the first dialog is the linger, tested below.


# An agreed stream that gives no picture


@asynccontextmanager
async def agreed(gateway: Gateway, *, code: str, seconds: float, y: str | None = "same") -> Any:
    """A camera that answered; afterwards the viewer must get `code` and the camera a BYE."""
    async with online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite, y=y)
        yield camera, invite
        bye = await camera.expect("BYE", seconds)
        camera.respond(bye, 200)
        await cause_of(task, code, 2)
        await all_back(gateway)
        assert codes(gateway) == [code]


@pytest.mark.conformance(63)
@BOTH
async def test_nothing_is_sent(gateway_at: GatewayAt) -> None:
    async with (
        gateway_at("media.first_packet_seconds=0.5") as gateway,
        agreed(gateway, code="no_media", seconds=2),
    ):
        pass


@pytest.mark.parametrize("kind", ["h264-over-rtp", "transport-stream", "noise", "g711"])
async def test_something_else_than_a_program_stream(gateway_at: GatewayAt, kind: str) -> None:
    make: dict[str, tuple[Callable[[int], bytes], int]] = {
        "h264-over-rtp": (lambda n: b"\x7c\x85" + build.filler(800, n), 98),
        "transport-stream": (lambda n: (b"\x47\x41\x00\x10" + build.filler(184, n)) * 7, 33),
        "noise": (lambda n: b"\xa5" + build.filler(900, n), 96),
        "g711": (lambda n: build.filler(160, n), 8),
    }
    async with (
        gateway_at("media.key_frame_seconds=0.8") as gateway,
        agreed(gateway, code="not_program_stream", seconds=3) as (camera, invite),
        sending(camera, invite, make[kind][0]) as sender,
    ):
        sender.payload_type = make[kind][1]
        await fact(lambda: sender.index > 40, "sent for a while")


def without_parameter_sets(index: int) -> bytes:
    pts = 90_000 + index * steps.TICKS
    unit = build.nals((b"\x65\x88" if index % 10 == 0 else b"\x41\x9a") + build.filler(900, index + 1))
    return build.pack(pts) + build.program_map(((build.H264, build.VIDEO_ID),)) + build.pes(unit, pts=pts)


def without_key_frame(index: int) -> bytes:
    pts = 90_000 + index * steps.TICKS
    sets = build.nals(build.SPS264, build.PPS264)
    return (
        build.pack(pts)
        + build.program_map(((build.H264, build.VIDEO_ID),))
        + build.pes(sets + build.p264(900, index + 1), pts=pts)
    )


def unsupported(stream_type: int) -> Callable[[int], bytes]:
    def make(index: int) -> bytes:
        pts = 90_000 + index * steps.TICKS
        return (
            build.pack(pts)
            + build.system_header()
            + build.program_map(((stream_type, build.VIDEO_ID),))
            + build.pes(build.filler(900, index + 1), pts=pts)
        )

    return make


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (without_parameter_sets, "no_parameter_sets"),
        (without_key_frame, "no_key_frame"),
        (unsupported(build.SVAC), "codec_unsupported"),
        (unsupported(build.MPEG4), "codec_unsupported"),
    ],
    ids=["no-parameter-sets", "no-key-frame", "svac", "mpeg4"],
)
@BOTH
async def test_a_program_stream_without_a_picture(
    gateway_at: GatewayAt, make: Callable[[int], bytes], code: str
) -> None:
    async with (
        gateway_at("media.key_frame_seconds=0.8") as gateway,
        agreed(gateway, code=code, seconds=3) as (camera, invite),
        sending(camera, invite, make) as sender,
    ):
        await fact(lambda: sender.index > 40, "sent for a while")


async def test_what_a_stranger_sends_is_not_the_cameras(gateway_at: GatewayAt) -> None:
    """A stranger's bytes hold the port first; the camera, known by its address, still gets it."""
    async with gateway_at() as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        async with sending(camera, invite, local=("127.0.0.2", 0)) as stranger:
            stranger.make = lambda index: b"\xa5" + build.filler(900, index + 1)
            await fact(lambda: stranger.index > 5, "the stranger was first")
            await camera.answer_invite(invite)
            async with sending(camera, invite) as sender:
                sender.sequence = 30_000
                async with asyncio.timeout(5):
                    watch = await task
                assert not isinstance(watch, GatewayError), watch
                await plays_on(watch)
                await fact(lambda: gateway.tally.counts.get("rtp.wrong_source", 0) > 3, "the stranger is counted")
                await watch.close()
                await ends(gateway, camera)


async def test_packets_of_a_stranger_do_not_disturb(gateway_at: GatewayAt) -> None:
    async with (
        gateway_at() as gateway,
        online(gateway) as camera,
        playing(gateway, camera) as (watch, _, invite),
        sending(camera, invite, local=("127.0.0.2", 0)) as stranger,
    ):
        stranger.make = unsupported(build.SVAC)
        await fact(lambda: gateway.tally.counts.get("rtp.wrong_source", 0) > 20, "the stranger is refused")
        assert watch.stream.generation == 1
        await plays_on(watch)


async def test_only_a_stranger_sends_after_the_answer(gateway_at: GatewayAt) -> None:
    """Nobody has the source yet, so its port is open to whoever speaks program stream; but not noise from elsewhere."""
    async with (
        gateway_at("media.key_frame_seconds=0.8") as gateway,
        agreed(gateway, code="not_program_stream", seconds=3) as (camera, invite),
        sending(camera, invite, local=("127.0.0.3", 0)) as stranger,
    ):
        stranger.make = lambda index: b"\xa5" + build.filler(900, index + 1)
        await fact(lambda: stranger.index > 40, "sent for a while")


# What must play all the same


@pytest.mark.conformance(60)
@pytest.mark.parametrize("y", ["0200009999", "0999999999", None, "020000123"], ids=["other", "any", "absent", "nine"])
async def test_an_answer_with_an_odd_ssrc_plays(gateway_at: GatewayAt, y: str | None) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite, y=y)
        async with sending(camera, invite) as sender:
            sender.ssrc = int(y) if y else 0x7777
            async with asyncio.timeout(5):
                watch = await task
            assert not isinstance(watch, GatewayError), watch
            await plays_on(watch)
            await watch.close()
            await ends(gateway, camera)


@pytest.mark.conformance(60)
@pytest.mark.parametrize("ssrc", [0, 1, 0xFFFF_FFFF])
async def test_media_with_another_ssrc_than_promised_plays(gateway_at: GatewayAt, ssrc: int) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        async with sending(camera, invite) as sender:
            sender.ssrc = ssrc
            async with asyncio.timeout(5):
                watch = await task
            assert not isinstance(watch, GatewayError), watch
            await plays_on(watch)
            await watch.close()
            await ends(gateway, camera)


async def test_an_ssrc_that_changes_mid_stream_plays_on(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, playing(gateway, camera) as (watch, sender, _):
        await plays_on(watch)
        sender.ssrc ^= 0x1234
        sender.sequence = 100
        await plays_on(watch, 30)
        assert not watch.stream.ended


async def test_a_camera_that_restarts_its_encoder_plays_on(gateway_at: GatewayAt) -> None:
    """New SSRC, sequence and clock, as after a power cut that was shorter than our patience."""
    async with gateway_at() as gateway, online(gateway) as camera, playing(gateway, camera) as (watch, sender, _):
        await plays_on(watch)
        sender.ssrc, sender.sequence, sender.index = 5, 0, 0
        await plays_on(watch, 30)
        assert not watch.stream.ended
        assert watch.stream.generation == 1  # the same parameter sets: the viewers need not notice


@pytest.mark.conformance(64)
@pytest.mark.parametrize("transport", ["tcp-passive", "tcp-active"])
@pytest.mark.parametrize("cut", [0, 1, 333], ids=["whole", "single-bytes", "333"])
async def test_tcp_media_in_any_cut(gateway_at: GatewayAt, transport: str, cut: int) -> None:
    async with gateway_at(f"media.transport={transport}") as gateway, online(gateway) as camera:  # noqa: SIM117
        async with asked(gateway) as task:
            invite = await camera.expect("INVITE")
            async with tcp_way(camera, invite, transport) as writer, sending(camera, invite, writer=writer) as sender:
                sender.cut = cut
                async with asyncio.timeout(10):
                    watch = await task
                assert not isinstance(watch, GatewayError), watch
                await plays_on(watch)
                await watch.close()
                await ends(gateway, camera)


@asynccontextmanager
async def tcp_way(camera: Camera, invite: Text, transport: str) -> Any:
    """Answer the offer; yields the writer of the media connection, whoever opened it."""
    if transport == "tcp-passive":
        assert invite.sdp["a"].count("setup:passive") == 1
        await camera.answer_invite(invite)
        yield await camera.media_tcp(camera.media_target(invite))
        return
    assert invite.sdp["a"].count("setup:active") == 1
    came: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    async with camera.listening(came.put_nowait) as port:
        camera.respond(
            invite,
            200,
            body=camera.sdp_answer(invite, port=port, transport="tcp-passive"),
            headers=["Content-Type: application/sdp"],
        )
        await camera.expect("ACK")
        async with asyncio.timeout(3):
            writer = await came.get()
        yield writer


@pytest.mark.conformance(64)
async def test_garbage_before_and_between_tcp_frames_costs_only_itself(gateway_at: GatewayAt) -> None:
    async with gateway_at("media.transport=tcp-passive") as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        async with sending(camera, invite, tcp=True) as sender:
            sender.noise = lambda index: b"" if index % 7 else build.filler(37, index + 1)
            async with asyncio.timeout(10):
                watch = await task
            assert not isinstance(watch, GatewayError), watch
            await plays_on(watch, 40)
            assert gateway.tally.counts["rtp.framer_garbage"] >= 37
            await watch.close()
            await ends(gateway, camera)


@pytest.mark.conformance(64)
async def test_frames_of_the_largest_size(gateway_at: GatewayAt) -> None:
    """65 535 bytes in one RFC 4571 frame."""

    def large(index: int) -> bytes:
        pts = 90_000 + index * steps.TICKS
        unit = build.idr264(130_000, index + 1) if index % 10 == 0 else build.p264(1_000, index + 1)
        return (
            build.pack(pts)
            + build.program_map(((build.H264, build.VIDEO_ID),))
            + build.pes_run(unit, build.VIDEO_ID, pts)
        )

    async with gateway_at("media.transport=tcp-passive") as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        async with sending(camera, invite, large, tcp=True) as sender:
            sender.size = 65_535 - 12
            async with asyncio.timeout(10):
                watch = await task
            assert not isinstance(watch, GatewayError), watch
            await plays_on(watch, 25)
            assert sender.largest == 65_535
            await watch.close()
            await ends(gateway, camera)


@BOTH
async def test_an_answer_by_udp_to_an_offer_of_tcp_plays(gateway_at: GatewayAt) -> None:
    async with gateway_at("media.transport=tcp-passive") as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        camera.respond(
            invite, 200, body=camera.sdp_answer(invite, port=15060), headers=["Content-Type: application/sdp"]
        )
        await camera.expect("ACK")
        async with sending(camera, invite):
            async with asyncio.timeout(5):
                watch = await task
            assert not isinstance(watch, GatewayError), watch
            await plays_on(watch)
            await watch.close()
            await ends(gateway, camera)


async def test_tcp_active_towards_nobody(gateway_at: GatewayAt) -> None:
    async with (
        gateway_at("media.transport=tcp-active", "media.first_packet_seconds=0.8") as gateway,
        online(gateway) as camera,
        asked(gateway) as task,
    ):
        invite = await camera.expect("INVITE")
        async with camera.listening(lambda writer: None) as port:
            pass  # the port was free a moment ago, and nobody listens there now
        camera.respond(
            invite,
            200,
            body=camera.sdp_answer(invite, port=port, transport="tcp-passive"),
            headers=["Content-Type: application/sdp"],
        )
        await camera.expect("ACK")
        bye = await camera.expect("BYE")
        camera.respond(bye, 200)
        error = await cause_of(task, "no_media", 2)
        assert f":{port}" in error.message
        await all_back(gateway)


# A stream that ends


async def ended(watch: Any, code: str, seconds: float) -> None:
    await fact(lambda: watch.stream.ended, "the stream ended", seconds)
    assert watch.stream.cause is not None
    assert watch.stream.cause.code == code


@BOTH
async def test_the_camera_says_bye(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, playing(gateway, camera) as (watch, _, invite):
        camera.send(camera.bye(invite))
        assert (await camera.expect(200)).cseq[1] == "BYE"
        await ended(watch, "closed_by_camera", 1)
        await camera.nothing(0.2, "BYE")
        await all_back(gateway)


@pytest.mark.conformance(87)
async def test_a_strangers_bye_ends_nothing(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, playing(gateway, camera) as (watch, _, invite):
        async with Camera(DEVICE, server=steps.server_of(gateway), seed=9) as stranger:
            stranger.send(stranger.bye(invite))
            assert (await stranger.receive()).status in (403, 481)
            stranger.send(camera.bye(invite, cseq=31).replace(b"rport", b"rport=1"))
            assert (await stranger.receive()).status in (403, 481)
        await plays_on(watch)
        assert not watch.stream.ended


@pytest.mark.conformance(69)
@BOTH
async def test_media_that_stops(gateway_at: GatewayAt) -> None:
    async with (
        gateway_at("media.idle_seconds=0.7") as gateway,
        online(gateway) as camera,
        playing(gateway, camera) as (watch, sender, _),
    ):
        await plays_on(watch)
        sender.paused = True
        await ends(gateway, camera)
        await ended(watch, "media_stopped", 1)


@pytest.mark.conformance(69)
async def test_a_device_that_unregisters(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, playing(gateway, camera) as (watch, _, _):
        assert (await camera.register(PASSWORD, expires=0)).status == 200
        await ends(gateway, camera)
        await ended(watch, "device_offline", 1)
        assert isinstance(error := await opened(gateway), GatewayError)
        assert error.code == "device_offline"


@pytest.mark.conformance(69)
async def test_a_device_that_falls_silent(gateway_at: GatewayAt) -> None:
    """No keepalive for interval x count: offline, and its stream ends although media still flows."""
    async with (
        gateway_at("sip.keepalive_seconds=5", "sip.keepalive_misses=1") as gateway,
        online(gateway) as camera,
        playing(gateway, camera) as (watch, _, _),
    ):
        camera.respond(await camera.expect("BYE", 8), 200)
        await ended(watch, "device_offline", 1)
        await all_back(gateway)
        assert gateway.directory.get(DEVICE).reason == "keepalive"


@pytest.mark.conformance(14)
async def test_a_tcp_connection_that_closes_mid_stream(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway, transport="tcp") as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        async with sending(camera, invite):
            async with asyncio.timeout(5):
                watch = await task
            assert not isinstance(watch, GatewayError), watch
            await camera.hang_up()
            await ended(watch, "device_offline", 2)
            await fact(lambda: gateway.resources() == steps.FREE, f"everything back: {gateway.resources()}")
            assert [one.key for one in await gateway._store.dialogs()] == [KEY]  # its BYE waits for the device
            assert not gateway.directory.get(DEVICE).online
            await watch.close()


async def test_a_media_connection_that_breaks(gateway_at: GatewayAt) -> None:
    """TCP passive: the camera may connect again; when it does not, the idle time ends the stream."""
    async with gateway_at("media.transport=tcp-passive", "media.idle_seconds=1") as gateway, online(gateway) as camera:  # noqa: SIM117
        async with playing(gateway, camera) as (watch, sender, invite):
            assert sender.tcp is not None
            endpoint = gateway.last_session(KEY).ingest._endpoint
            sender.tcp.close()
            await fact(lambda: not endpoint.connected, "the end of the connection is noticed")
            async with sending(camera, invite, tcp=True) as again:
                again.index, again.sequence = sender.index, sender.sequence
                await plays_on(watch, 20)
            await camera.close_media()
            await ends(gateway, camera)
            await ended(watch, "media_stopped", 1)


# Changes of identity


async def test_another_call_id_with_media_flowing_changes_nothing(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, playing(gateway, camera) as (watch, _, _):
        camera.new_call_id()
        assert (await camera.register(PASSWORD)).status == 200
        await plays_on(watch, 30)
        assert not watch.stream.ended
        camera.drain()


async def test_another_call_id_after_silence_is_a_restart(gateway_at: GatewayAt) -> None:
    async with gateway_at("media.idle_seconds=20") as gateway, online(gateway) as camera:  # noqa: SIM117
        async with playing(gateway, camera) as (watch, sender, _):
            sender.paused = True
            session = gateway.last_session(KEY)
            clock = asyncio.get_running_loop().time
            await fact(lambda: clock() - session.heard_at > 2.1, "silence")
            camera.new_call_id()
            assert (await camera.register(PASSWORD)).status == 200
            camera.respond(await camera.expect("BYE"), 200)
            await ended(watch, "device_rebooted", 1)
            await all_back_except_questions(gateway)


# Resources and viewers


@BOTH
async def test_ports_run_out(gateway_at: GatewayAt) -> None:
    async with gateway_at("media.ports=31998-31999") as gateway, online(gateway) as camera:
        async with playing(gateway, camera), online(gateway, OTHER_DEVICE) as other:
            assert isinstance(error := await opened(gateway, OTHER_KEY), GatewayError)
            assert error.code == "ports_exhausted"
            await other.nothing(0.1, "INVITE")
            assert gateway.resources()["ssrcs"] == 1
        await ends(gateway, camera)
        async with online(gateway, OTHER_DEVICE) as other, playing(gateway, other, key=OTHER_KEY):
            pass  # a resting port is used under pressure


@pytest.mark.conformance(65)
@BOTH
async def test_ten_viewers_at_once_are_one_invite(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, asyncio.TaskGroup() as group:
        openings = [group.create_task(opened(gateway), name=f"test:open-{n}") for n in range(10)]
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        async with sending(camera, invite):
            watches = [await opening for opening in openings]
            assert len({id(watch.stream) for watch in watches}) == 1
            late = await opened(gateway)
            assert late.stream is watches[0].stream
            assert sum(text.method == "INVITE" for text in camera.received) == 1
            for watch in [*watches, late]:
                await watch.close()
            await ends(gateway, camera)


@BOTH
async def test_the_last_viewer_leaves_a_linger_behind(gateway_at: GatewayAt) -> None:
    async with gateway_at("media.linger_seconds=0.5") as gateway, online(gateway) as camera:  # noqa: SIM117
        async with playing(gateway, camera) as (watch, _, _):
            await watch.close()
            await camera.nothing(0.25, "BYE")
            again = await opened(gateway)
            assert again.stream is watch.stream
            await camera.nothing(0.6, "BYE")  # a viewer who comes back stops the linger
            await again.close()
            bye = await camera.expect("BYE", 2)
            camera.respond(bye, 200)
            await all_back(gateway)
            assert codes(gateway) == []


@BOTH
async def test_a_viewer_that_leaves_before_the_answer(gateway_at: GatewayAt) -> None:
    """Nobody waits any more: the answer still comes, plays into the void for the linger, and is ended."""
    async with gateway_at() as gateway, online(gateway) as camera:
        async with asked(gateway):
            invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        async with sending(camera, invite):
            await ends(gateway, camera)


@BOTH
async def test_an_operators_stop_ends_a_pending_invite(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, online(gateway) as camera, asked(gateway) as task:
        invite = await camera.expect("INVITE")
        camera.respond(invite, 100, to_tag="")
        session = gateway.last_session(KEY)
        await fact(lambda: "provisional" in session.steps, "100 has come")
        async with asyncio.TaskGroup() as group:
            group.create_task(gateway.stop(KEY), name="test:stop")
            cancel = await camera.expect("CANCEL")
            camera.respond(cancel, 200)
            camera.respond(invite, 487)
        await cause_of(task, "stream_stopped", 1)
        await all_back(gateway)


# The end of the gateway


@BOTH
async def test_stop_while_streaming_says_bye(gateway_at: GatewayAt) -> None:
    clock = asyncio.get_running_loop().time
    async with gateway_at() as gateway:
        camera = await Camera(DEVICE, server=steps.server_of(gateway)).__aenter__()
        await steps.ready(camera, gateway)
        task = asyncio.create_task(opened(gateway), name="test:open")
        invite = await camera.expect("INVITE")
        await camera.answer_invite(invite)
        farewell = asyncio.create_task(answer_bye(camera), name="test:bye")
        async with sending(camera, invite):
            watch = await task
            await plays_on(watch)
        at = clock()
    assert clock() - at < 5
    assert watch.stream.ended
    assert watch.stream.cause.code == "stopping"
    assert (await farewell).method == "BYE"
    await camera.__aexit__(None, None, None)


async def answer_bye(camera: Camera) -> Text:
    bye = await camera.expect("BYE", 20)
    camera.respond(bye, 200)
    return bye


@pytest.mark.parametrize("provisional", [True, False])
async def test_stop_during_an_invite(gateway_at: GatewayAt, provisional: bool) -> None:
    clock = asyncio.get_running_loop().time
    async with gateway_at() as gateway:
        camera = await Camera(DEVICE, server=steps.server_of(gateway)).__aenter__()
        await steps.ready(camera, gateway)
        task = asyncio.create_task(opened(gateway), name="test:open")
        invite = await camera.expect("INVITE")
        if provisional:
            camera.respond(invite, 100, to_tag="")
            session = gateway.last_session(KEY)
            await fact(lambda: "provisional" in session.steps, "100 has come")
        at = clock()
    assert clock() - at < 5
    await cause_of(task, "stopping", 1)
    assert ("CANCEL" in [text.method for text in camera.received]) is provisional
    await camera.__aexit__(None, None, None)


async def test_stop_with_a_camera_that_does_not_answer_the_bye(gateway_at: GatewayAt) -> None:
    clock = asyncio.get_running_loop().time
    async with gateway_at() as gateway:
        async with online(gateway) as camera, playing(gateway, camera):
            pass
        at = clock()
    assert clock() - at < 5


async def test_a_restart_after_a_crash(tmp_path: Path) -> None:
    """What a killed process leaves is its store: dialogs get their BYE, devices stay registered."""
    first = Gateway(configuration(tmp_path))
    async with first:
        port = first.sip_ports["udp"]
        camera = await Camera(DEVICE, server=("127.0.0.1", port)).__aenter__()
        await steps.ready(camera, first)
        async with playing(first, camera) as (watch, _, invite):
            await plays_on(watch)
            await first._store.flush()
            killed = tmp_path / "killed"
            killed.mkdir()
            # As the disk is at this moment; nothing of the farewell gets in.
            for file in tmp_path.glob("gbgw.db*"):  # noqa: ASYNC240
                (killed / file.name).write_bytes(file.read_bytes())
        await ends(first, camera)
    camera.drain()
    listen = f'sip.listen=["udp://127.0.0.1:{port}", "tcp://127.0.0.1:0"]'
    second = Gateway(configuration(killed, listen))
    async with second:
        bye = await camera.expect("BYE")
        camera.respond(bye, 200)
        assert bye["Call-ID"] == invite["Call-ID"]
        assert bye.tag("From") == invite.tag("From")
        assert bye.tag("To") == "peer"
        assert bye.cseq[0] > invite.cseq[0]
        assert (await camera.keepalive()).status == 200
        assert second.directory.get(DEVICE).online
        assert second.is_playable(KEY)
        await all_back_except_questions(second)
    assert "REGISTER" not in [text.cseq[1] for text in camera.received[-8:]]
    await camera.__aexit__(None, None, None)


async def all_back_except_questions(gateway: Gateway) -> None:
    """The interview of a device that came back has not ended, and nobody here answers it."""
    await fact(lambda: {**gateway.resources(), "questions": 0} == steps.FREE, "everything back")
    async with asyncio.timeout(3):
        while await gateway._store.dialogs():  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.02)


async def test_past_capacity_a_new_stream_is_refused_with_its_cause(gateway_at: GatewayAt) -> None:
    """The camera is not even asked; the stream that plays goes on."""
    async with gateway_at() as gateway, online(gateway) as camera, playing(gateway, camera) as (watch, _, _):
        await plays_on(watch)
        assert gateway.not_ready() == []
        now = asyncio.get_running_loop().time()
        for second in range(5):
            gateway._worker.overload.push(1.0, False, now + second)
        async with online(gateway, OTHER_DEVICE) as other:
            error = await opened(gateway, OTHER_KEY)
            assert isinstance(error, GatewayError)
            assert error.code == "overloaded"
            assert error.stream == OTHER_KEY
            assert status_of(error) == 503
            assert gateway.not_ready() == ["the media worker is overloaded and takes no more streams"]
            assert [message for message in other.received if message.method == "INVITE"] == []
        await plays_on(watch)
        await watch.close()
        camera.respond(await camera.expect("BYE"), 200)
