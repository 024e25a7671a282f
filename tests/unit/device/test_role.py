"""The device role: what a platform's requests lead to, without sockets."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import pytest

from gbgw.base import limits
from gbgw.base.machine import TICK
from gbgw.device.calls import CloseMedia, KeyFrame, OpenMedia, Span, StartMedia, Steer
from gbgw.device.options import DeviceOptions, media_format
from gbgw.device.quirks import BY_THE_BOOK, Behaviour, behaviour
from gbgw.device.registration import Connect, Left, Registered, State, Unregistered
from gbgw.device.role import Connected, Disconnected, MediaFailed, MediaFinished, MediaOpened, Role, Start, Stop
from gbgw.gb import manscdp, records, sdp
from gbgw.gb.manscdp import CatalogPart
from gbgw.gb.mansrtsp import Command
from gbgw.mux.pattern import PatternSpec, pattern_loop
from gbgw.sip.events import Acknowledged, Ask, Cancelled, End, Ended, Failed, Final, Incoming, Reply, Send
from gbgw.sip.flow import Flow
from gbgw.sip.message import Request, Response
from gbgw.sip.parse import parse

DEVICE, SERVER = "34020000001110000001", "34020000002000000001"
CHANNEL = "34020000001310000001"
OPTIONS = DeviceOptions(DEVICE, SERVER, "3402000000", ("192.0.2.1", 5_060), password="x", keepalive_seconds=1e6)
FLOW = Flow("udp", ("192.0.2.10", 5_070), ("192.0.2.1", 5_060))
LOCAL = ("192.0.2.10", 20_000)


class Driver:
    def __init__(self, options: DeviceOptions = OPTIONS, shape: Behaviour = BY_THE_BOOK) -> None:
        self.handles = count(1)
        self.role = Role(
            options, lambda: next(self.handles), behaviour=shape, format_line="v/2", call_id="call", tag="tag"
        )
        self.now = 0.0
        assert self.push(Start()) == [Connect()]
        (ask,) = self.push(Connected(FLOW))
        assert self.push(Final(ask.handle, Response.to(ask.request, 200), FLOW)) == [Registered(3_600)]

    def push(self, event: object) -> list:
        return list(self.role.push(event, self.now))

    def receive(self, method: str, body: bytes = b"", *, target: str = CHANNEL, dialog: int | None = None,
                subject: str = "", flow: Flow = FLOW, to: str = "") -> tuple[int, list]:  # fmt: skip
        handle = next(self.handles)
        headers = {
            "Via": "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1",
            "From": f"<sip:{SERVER}@3402000000>;tag=f",
            "To": f"<sip:{to or target}@3402000000>",
            "Call-ID": str(handle),
            "CSeq": f"1 {method}",
        }
        if subject:
            headers["Subject"] = subject
        request = Request.new(method, f"sip:{target}@3402000000", headers, body)
        return handle, self.push(Incoming(handle, request, flow, dialog))

    def message(self, body: bytes) -> list:
        return self.receive("MESSAGE", body, target=DEVICE)[1]

    def answer(self, ask: Ask, status: int = 200) -> list:
        return self.push(Final(ask.handle, Response.to(ask.request, status), FLOW))

    def play(self, body: bytes, **more: str) -> int:
        """INVITE, media opened, ACK."""
        handle, effects = self.receive("INVITE", body, **more)
        assert isinstance(effects[-1], OpenMedia)
        self.push(MediaOpened(handle, LOCAL))
        assert self.push(Acknowledged(handle, Request.new("ACK", "sip:x"))) == [StartMedia(handle)]
        return handle


def offer(*, setup: str = "", y: str = "0200000001", name: str = "Play", port: int = 30_000) -> bytes:
    protocol = "TCP/RTP/AVP" if setup else "RTP/AVP"
    lines = ["v=0", f"o={SERVER} 0 0 IN IP4 192.0.2.9", f"s={name}", "c=IN IP4 192.0.2.9", "t=0 0"]
    lines += [f"m=video {port} {protocol} 98 96", "a=recvonly", "a=rtpmap:96 PS/90000", "a=rtpmap:98 H264/90000"]
    lines += [f"a=setup:{setup}", "a=connection:new"] if setup else []
    return "\r\n".join([*lines, f"y={y}" if y else "a=x", ""]).encode()


def status_of(effects: Sequence[object]) -> list[int]:
    return [effect.response.status for effect in effects if isinstance(effect, Reply)]


def asks(effects: Sequence[object]) -> list[Ask]:
    return [effect for effect in effects if isinstance(effect, Ask)]


@pytest.mark.parametrize(("setup", "transport"), [("", "udp"), ("passive", "tcp-active"), ("active", "tcp-passive")])
def test_live_session_from_invite_to_bye(setup: str, transport: str) -> None:
    driver = Driver()
    handle, effects = driver.receive("INVITE", offer(setup=setup))
    (opening,) = effects
    assert (opening.transport, opening.remote, opening.ssrc) == (transport, ("192.0.2.9", 30_000), 200_000_001)
    (reply,) = driver.push(MediaOpened(handle, LOCAL))
    assert reply.response.status == 200
    assert reply.response.header("Contact") == f"<sip:{DEVICE}@192.0.2.10:5070>"
    answer = sdp.parse(reply.response.body)
    assert (answer.origin_id, answer.ssrc_text, answer.media_format) == (CHANNEL, "0200000001", "v/2")
    assert answer.media[0].port == 20_000
    assert answer.media[0].formats == (str(opening.payload_type),)
    assert answer.media[0].attribute("setup") == ({"passive": "active", "active": "passive"}[setup] if setup else None)
    assert driver.push(Acknowledged(handle, Request.new("ACK", "sip:x"))) == [StartMedia(handle)]
    assert driver.role.sessions == 1
    assert driver.push(Ended(handle, "bye")) == [CloseMedia(handle)]
    assert driver.role.sessions == 0
    assert driver.push(Ended(handle, "bye")) == []


def test_a_second_ack_starts_nothing_twice() -> None:
    driver = Driver()
    handle = driver.play(offer())
    assert driver.push(Acknowledged(handle, Request.new("ACK", "sip:x"))) == []


@pytest.mark.parametrize(
    ("target", "subject", "to"),
    [
        (CHANNEL, "", ""),
        ("someone", f"{CHANNEL}:0,{SERVER}:0", ""),
        ("someone", "", CHANNEL),
        (DEVICE, "", ""),
    ],
)
def test_the_channel_is_found_by_uri_subject_or_to(target: str, subject: str, to: str) -> None:
    _, effects = Driver().receive("INVITE", offer(), target=target, subject=subject, to=to)
    assert effects[0].channel_id == CHANNEL


@pytest.mark.parametrize(
    ("body", "target", "status"),
    [
        (offer(), "34020000001310000777", 404),
        (b"", CHANNEL, 488),
        (b"\xff\xfe", CHANNEL, 488),
        (offer(name="Playback"), CHANNEL, 488),
        (offer(name="Talk"), CHANNEL, 488),
        (offer(port=0), CHANNEL, 488),
        (offer().replace(b"192.0.2.9", b"0.0.0.0"), CHANNEL, 488),
    ],
)
def test_refusals(body: bytes, target: str, status: int) -> None:
    driver = Driver()
    assert status_of(driver.receive("INVITE", body, target=target)[1]) == [status]
    assert driver.role.sessions == 0


def test_cancel_before_the_socket_is_there() -> None:
    driver = Driver()
    handle, _ = driver.receive("INVITE", offer())
    assert driver.push(Cancelled(handle)) == [CloseMedia(handle)]
    # The socket that comes too late is closed, and nothing is answered.
    assert driver.push(MediaOpened(handle, LOCAL)) == [CloseMedia(handle)]


def test_a_socket_that_cannot_be_had_is_500_and_a_lost_connection_bye() -> None:
    driver = Driver()
    handle, _ = driver.receive("INVITE", offer())
    effects = driver.push(MediaFailed(handle))
    assert effects[0] == CloseMedia(handle)
    assert status_of(effects) == [500]
    handle = driver.play(offer(setup="passive"))
    assert driver.push(MediaFailed(handle)) == [CloseMedia(handle), End(handle)]
    assert driver.push(MediaFailed(handle)) == []


def test_the_same_subject_replaces_another_does_not() -> None:
    driver = Driver()
    first = driver.play(offer(), subject=f"{CHANNEL}:0200000001,{SERVER}:0")
    other = driver.play(offer(), subject=f"{CHANNEL}:0200000002,{SERVER}:0")
    _, effects = driver.receive("INVITE", offer(), subject=f"{CHANNEL}:0200000001,{SERVER}:1")
    assert effects[:2] == [CloseMedia(first), End(first)]
    assert isinstance(effects[2], OpenMedia)
    assert driver.role.sessions == 2
    assert driver.push(Ended(other, "bye")) == [CloseMedia(other)]


def test_the_number_of_sessions_is_bounded() -> None:
    driver = Driver()
    for _ in range(limits.DEVICE_SESSIONS):
        driver.receive("INVITE", offer())
    assert status_of(driver.receive("INVITE", offer())[1]) == [486]
    assert driver.role.sessions == limits.DEVICE_SESSIONS


def test_a_repeated_invite_in_its_dialog_gets_the_same_answer() -> None:
    driver = Driver()
    handle, _ = driver.receive("INVITE", offer())
    (first,) = driver.push(MediaOpened(handle, LOCAL))
    _, effects = driver.receive("INVITE", offer(port=1_234), dialog=handle)
    assert effects[0].response.body == first.response.body
    assert status_of(driver.receive("INVITE", offer(), dialog=999)[1]) == [488]


def test_quirks_of_answers() -> None:
    driver = Driver(shape=behaviour(["no-answer"]))
    assert driver.receive("INVITE", offer())[1] == []
    driver = Driver(shape=behaviour(["reject-486"]))
    assert status_of(driver.receive("INVITE", offer())[1]) == [486]
    driver = Driver(shape=behaviour(["no-y", "own-ssrc"]))
    handle, (opening,) = driver.receive("INVITE", offer())
    assert opening.ssrc != 200_000_001
    assert sdp.parse(driver.push(MediaOpened(handle, LOCAL))[0].response.body).ssrc_text == ""
    driver = Driver(shape=behaviour(["other-y"]))
    handle, (opening,) = driver.receive("INVITE", offer())
    assert sdp.parse(driver.push(MediaOpened(handle, LOCAL))[0].response.body).ssrc == opening.ssrc != 200_000_001
    driver = Driver(shape=behaviour(["no-media"]))
    handle, _ = driver.receive("INVITE", offer())
    driver.push(MediaOpened(handle, LOCAL))
    assert driver.push(Acknowledged(handle, Request.new("ACK", "sip:x"))) == []


def test_quirk_double_answer() -> None:
    driver = Driver(shape=behaviour(["double-answer"]))
    handle, _ = driver.receive("INVITE", offer())
    reply, second = driver.push(MediaOpened(handle, LOCAL))
    assert isinstance(second, Send)
    repeated = parse(second.data)
    assert isinstance(repeated, Response)
    assert repeated.body == reply.response.body
    assert repeated.to_.tag


def test_an_offer_without_y_gets_an_ssrc_of_ours() -> None:
    _, (opening,) = Driver().receive("INVITE", offer(y=""))
    assert 0 < opening.ssrc < 1 << 31


def test_catalog_parts_follow_one_another() -> None:
    driver = Driver(replace(OPTIONS, channels=5, items_per_message=2))
    effects = driver.message(manscdp.query("Catalog", 9, DEVICE))
    assert status_of(effects) == [200]
    seen: list[str] = []
    for expected in (2, 2, 1):
        (ask,) = asks(effects)
        document = manscdp.parse(ask.request.body)
        assert document.sn == 9
        assert isinstance(document.payload, CatalogPart)
        assert (document.payload.total, len(document.payload.items)) == (5, expected)
        seen += [item.device_id for item in document.payload.items]
        assert all(item.parent_ids == (DEVICE,) and item.is_channel for item in document.payload.items)
        effects = driver.answer(ask)
    assert effects == []
    assert seen == list(driver.role.options.channel_ids)


def test_a_catalog_stops_where_the_platform_stops_answering() -> None:
    driver = Driver(replace(OPTIONS, channels=5, items_per_message=1))
    (ask,) = asks(driver.message(manscdp.query("Catalog", 9, DEVICE)))
    assert driver.push(Failed(ask.handle, "timeout")) == []
    assert asks(driver.message(manscdp.query("DeviceInfo", 10, DEVICE)))


@pytest.mark.parametrize(("target", "total"), [(CHANNEL, 1), ("34020000001310000099", 0)])
def test_catalog_of_one_channel_or_of_nobody(target: str, total: int) -> None:
    driver = Driver(replace(OPTIONS, channels=3))
    (ask,) = asks(driver.message(manscdp.query("Catalog", 9, target)))
    payload = manscdp.parse(ask.request.body).payload
    assert isinstance(payload, CatalogPart)
    assert (payload.total, len(payload.items)) == (total, total)


def test_waiting_messages_are_bounded() -> None:
    driver = Driver(replace(OPTIONS, channels=10_000, items_per_message=1))
    driver.message(manscdp.query("Catalog", 1, DEVICE))
    for sn in range(2, 6):
        assert asks(driver.message(manscdp.query("Catalog", sn, DEVICE))) == []
    assert len(driver.role._parts) <= limits.DEVICE_MESSAGES


@pytest.mark.parametrize("command", ["DeviceInfo", "DeviceStatus"])
def test_queries_that_it_answers(command: str) -> None:
    (ask,) = asks(Driver().message(manscdp.query(command, 3, DEVICE)))
    document = manscdp.parse(ask.request.body)
    assert (document.root, document.cmd_type, document.sn, document.device_id) == ("Response", command, 3, DEVICE)


@pytest.mark.parametrize("command", ["SensorCatalog", "Alarm"])
def test_other_queries_get_200_and_no_more(command: str) -> None:
    effects = Driver().message(manscdp.query(command, 3, DEVICE))
    assert status_of(effects) == [200]
    assert len(effects) == 1


@pytest.mark.parametrize("body", [b"", b"\xff" * 40, b"<Query>", b"<Nonsense><CmdType>Catalog</CmdType></Nonsense>"])
def test_bodies_that_mean_nothing_are_400(body: bytes) -> None:
    assert status_of(Driver().message(body)) == [400]


@pytest.mark.parametrize("edition", ["2.0", "3.0"])
def test_key_frame_command_in_both_spellings(edition: manscdp.Edition) -> None:
    driver = Driver(replace(OPTIONS, channels=2))
    one = driver.play(offer())
    two = driver.play(offer(), target="34020000001310000002")
    assert driver.message(manscdp.iframe(3, CHANNEL, edition))[1:] == [KeyFrame((one,))]
    assert driver.message(manscdp.iframe(3, DEVICE, edition))[1:] == [KeyFrame((one, two))]
    assert driver.message(manscdp.iframe(3, "34020000001310000003", edition))[1:] == []


def test_commands_that_want_a_result_get_one_and_ptz_none() -> None:
    driver = Driver()
    (ask,) = asks(driver.message(manscdp.control("GuardCmd", "SetGuard", 4, DEVICE)))
    assert manscdp.parse(ask.request.body).payload == manscdp.Result(True)
    driver.answer(ask)
    assert asks(driver.message(manscdp.control("PTZCmd", "A50F01021F1F00F5", 4, CHANNEL))) == []


@pytest.mark.parametrize(("method", "status"), [("OPTIONS", 200), ("INFO", 481), ("NOTIFY", 405), ("SUBSCRIBE", 405)])
def test_other_methods(method: str, status: int) -> None:
    assert status_of(Driver().receive(method)[1]) == [status]


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "OPTIONS"])
def test_strangers_are_refused(method: str) -> None:
    stranger = Flow("udp", FLOW.local, ("198.51.100.66", 5_060))
    driver = Driver()
    assert status_of(driver.receive(method, offer(), flow=stranger)[1]) == [403]
    assert driver.role.sessions == 0


def test_losing_the_platform_ends_every_session() -> None:
    driver = Driver()
    handle = driver.play(offer())
    effects = driver.push(Disconnected("connection closed"))
    assert effects[:3] == [CloseMedia(handle), End(handle), Unregistered("connection closed")]
    assert driver.role.sessions == 0


def test_stop_says_bye_before_it_unregisters() -> None:
    driver = Driver()
    live = driver.play(offer())
    opening, _ = driver.receive("INVITE", offer())
    effects = driver.push(Stop())
    assert effects[:3] == [CloseMedia(live), End(live), CloseMedia(opening)]
    assert status_of(effects) == [480]
    (ask,) = asks(effects)
    assert ask.request.expires == 0
    assert driver.role.state is State.LEAVING
    assert status_of(driver.receive("INVITE", offer())[1]) == [480]
    assert driver.answer(ask) == [Left()]
    assert driver.role.finished


def test_ticks_fire_what_is_due_before_the_event() -> None:
    driver = Driver(replace(OPTIONS, keepalive_seconds=10.0))
    assert driver.role.deadline == 10.0
    driver.now = 10.0
    (ask,) = driver.push(TICK)
    assert b"Keepalive" in ask.request.body
    driver.now = 25.0
    effects = driver.message(manscdp.query("DeviceInfo", 1, DEVICE))
    assert b"Keepalive" in effects[0].request.body


@pytest.mark.parametrize(
    ("spec", "wrong", "expected"),
    [
        (PatternSpec(width=160, height=90, seconds=1), False, "v/2/160x90/25/2/"),
        (PatternSpec(width=160, height=90, seconds=1), True, "v/5/160x90/25/2/"),
        (PatternSpec(width=352, height=288, seconds=1, audio=None), False, "v/2/2/25/2/"),
    ],
)
def test_media_format(spec: PatternSpec, wrong: bool, expected: str) -> None:
    line = media_format(pattern_loop(spec), wrong_codec=wrong)
    assert line.startswith(expected)
    assert line.endswith("a/1/8/1" if spec.audio else "a///")


def test_channel_ids_of_neighbours_do_not_collide() -> None:
    one, two = replace(OPTIONS, channels=3), replace(OPTIONS, channels=3).numbered(1)
    assert two.device_id == "34020000001110000002"
    assert one.channel_ids == tuple(f"3402000000131000000{number}" for number in (1, 2, 3))
    assert two.channel_ids == tuple(f"3402000000131000000{number}" for number in (4, 5, 6))
    assert two.seed == one.seed + 1


# Recordings

SPAN = (1_770_076_800, 1_770_076_860)


def history_offer(speed: int | None = None) -> bytes:
    return sdp.history_offer(
        SERVER, "192.0.2.1", 30_000, "udp", "1200000001", channel_id=CHANNEL, start=SPAN[0], stop=SPAN[1],
        download_speed=speed,
    ).serialize()  # fmt: skip


def played(edition: str = "3.0", speed: int | None = None) -> tuple[Driver, int, OpenMedia]:
    driver = Driver(replace(OPTIONS, edition=edition))  # type: ignore[arg-type]
    handle, (opening,) = driver.receive("INVITE", history_offer(speed), subject=f"{CHANNEL}:1,{SERVER}:0")
    (reply,) = driver.push(MediaOpened(handle, LOCAL))
    assert reply.response.status == 200
    assert driver.push(Acknowledged(handle, reply.response)) == [StartMedia(handle)]
    return driver, handle, opening


def test_a_recording_is_opened_with_its_span() -> None:
    _, _, opening = played()
    assert opening.past == Span(*SPAN)
    _, _, opening = played(speed=4)
    assert opening.past == Span(*SPAN, speed=4, is_download=True)
    driver = Driver(replace(OPTIONS, recording_days=0))
    _, (reply,) = driver.receive("INVITE", history_offer())
    assert reply.response.status == 488


def test_commands_are_answered_as_the_edition_wants_and_obeyed() -> None:
    seek = b"PLAY RTSP/1.0\r\nCSeq: 4\r\nRange: npt=10-\r\n\r\n"
    driver, handle, _ = played("2.0")
    _, (reply, steer) = driver.receive("INFO", seek, dialog=handle)
    assert (reply.response.status, reply.response.body) == (200, b"")
    assert steer == Steer(handle, Command("PLAY", "4", 10.0))
    driver, handle, _ = played("3.0")
    _, (reply, steer) = driver.receive("INFO", seek, dialog=handle)
    assert reply.response.body == b"RTSP/1.0 200 OK\r\nCSeq: 4\r\nRange: npt=10-\r\n\r\n"
    _, (reply,) = driver.receive("INFO", b"PLAY RTSP/1.0\r\nCSeq: 5\r\nScale: 99.0\r\n\r\n", dialog=handle)
    assert reply.response.body.startswith(b"RTSP/1.0 457")
    _, (reply,) = driver.receive("INFO", b"nonsense", dialog=handle)
    assert reply.response.status == 488
    _, (reply, closing, end) = driver.receive("INFO", b"TEARDOWN RTSP/1.0\r\nCSeq: 6\r\n\r\n", dialog=handle)
    assert (closing, end) == (CloseMedia(handle), End(handle))


def test_the_end_is_told_in_the_dialog_and_the_bye_waited_for() -> None:
    driver, handle, _ = played()
    (ask,) = driver.push(MediaFinished(handle))
    assert (ask.request.method, ask.dialog) == ("MESSAGE", handle)
    document = manscdp.parse(ask.request.body)
    assert (document.cmd_type, document.device_id) == ("MediaStatus", CHANNEL)
    assert driver.push(Final(ask.handle, Response.to(ask.request, 200), FLOW)) == []
    assert driver.role.deadline == 10.0
    driver.now = 10.0
    assert driver.push(TICK) == [CloseMedia(handle), End(handle)]
    assert driver.push(MediaFinished(handle)) == []


def test_its_recordings_are_told_in_parts() -> None:
    driver = Driver(replace(OPTIONS, recording_days=3))
    driver.role._wall = lambda: SPAN[0] + 7_200.0
    body = manscdp.query("RecordInfo", 5, CHANNEL, "3.0", records.query_fields(SPAN[0], SPAN[0] + 7_200))
    effects = driver.message(body)
    told = []
    while effects:
        ask = effects[-1]
        assert isinstance(ask, Ask)
        told.append(records.read_part(manscdp.parse(ask.request.body)))
        effects = driver.push(Final(ask.handle, Response.to(ask.request, 200), FLOW))
    assert [part.total for part in told] == [4, 4]
    assert [len(part.items) for part in told] == [2, 2]
    other = manscdp.query("RecordInfo", 6, DEVICE, "3.0", records.query_fields(*SPAN))
    assert b"<SumNum>0</SumNum>" in driver.message(other)[-1].request.body
