import hashlib
from pathlib import Path

import pytest

from gbgw.base import limits
from gbgw.base.errors import ManscdpError, SipError
from gbgw.base.machine import TICK
from gbgw.gb import manscdp
from gbgw.gb.registrar import (
    Binding,
    BodyRead,
    Counted,
    Credentials,
    Dropped,
    Effect,
    FlowGone,
    ForgetBinding,
    HeartbeatSet,
    MessageReceived,
    Offline,
    ReadBody,
    Refreshed,
    Registered,
    Registrar,
    RequestArrived,
    Restored,
    SaveBinding,
    beijing,
)
from gbgw.sip.digest import DigestClient, ha1
from gbgw.sip.message import Request
from gbgw.sip.parse import parse
from tests.unit.gb.support import (
    CAMERA,
    DOMAIN,
    PASSWORD,
    PLATFORM,
    RECORDER,
    WALL,
    Book,
    Peer,
    answer,
    book,
    challenge_of,
    only,
    tcp,
    udp,
)

KEEPALIVE = manscdp.keepalive(1, CAMERA)


class Clock:
    """Wall time that follows loop time."""

    now = WALL

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def directory() -> Book:
    return book(CAMERA, RECORDER)


@pytest.fixture
def registrar(directory: Book) -> Registrar:
    return Registrar(DOMAIN, directory, Clock())


@pytest.fixture
def camera(registrar: Registrar) -> Peer:
    return Peer(registrar)


def test_first_register_is_challenged(camera: Peer) -> None:
    response = answer(camera.send(camera.request("REGISTER"), 1.0))
    assert response.status == 401
    challenge = challenge_of(response)
    assert challenge.realm == DOMAIN
    assert len(challenge.nonce) >= 16
    assert response.header("X-GB-Ver") == "3.0"
    assert len(response.headers.all("WWW-Authenticate")) == 1  # many firmwares read only one


def test_register_with_digest(camera: Peer, registrar: Registrar) -> None:
    camera.version = "2.0"
    effects = camera.register(1.0, Expires="3600", User_Agent="Vendor/1")
    response = answer(effects)
    assert response.status == 200
    assert response.header("Expires") == "3600"
    assert response.header("Contact") == f"<sip:{CAMERA}@10.0.0.7:5060>;expires=3600"
    assert response.header("Date") == "2026-02-03T08:15:30.120"
    assert response.header("X-GB-Ver") == "3.0"
    binding = Binding(
        CAMERA, camera.flow, f"sip:{CAMERA}@10.0.0.7:5060", "reg1", 2, WALL + 3600, edition="2.0", user_agent="Vendor/1"
    )
    assert effects[1:] == [SaveBinding(binding), Registered(CAMERA, binding, is_new=True, rebooted=False)]
    assert registrar.binding(CAMERA) == binding
    assert registrar.online == 1


def test_worked_digest_without_qop(directory: Book) -> None:
    # The HA1 of the reference's worked example: 34020000001320000001:3402000000:12345678.
    assert directory.known[CAMERA].ha1_md5 == "8258341d7dd730ce4d3b8fd2db050320"
    camera = Peer(Registrar(DOMAIN, directory, Clock()))
    nonce = challenge_of(answer(camera.send(camera.request("REGISTER"), 1.0))).nonce

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    digest = md5(f"8258341d7dd730ce4d3b8fd2db050320:{nonce}:{md5(f'REGISTER:{camera.uri}')}")
    header = f'Digest username="{CAMERA}",realm="{DOMAIN}",nonce="{nonce}",uri="{camera.uri}",response="{digest}"'
    assert answer(camera.send(camera.request("REGISTER", Authorization=header), 1.1)).status == 200


@pytest.mark.parametrize(
    ("headers", "expires"),
    [
        ({"Contact": f"<sip:{CAMERA}@10.0.0.7>;expires=120", "Expires": "3600"}, 120),
        ({}, 86_400),
        ({"Expires": "1"}, limits.REGISTER_MIN_SECONDS),
        ({"Expires": "99999999"}, limits.REGISTER_MAX_SECONDS),
        ({"Contact": "", "Expires": "3600"}, 3600),
    ],
)
def test_expiry(camera: Peer, headers: dict[str, str], expires: int) -> None:
    response = answer(camera.register(1.0, **headers))
    assert response.status == 200
    assert response.header("Expires") == str(expires)
    assert (response.header("Contact") or "").endswith(f";expires={expires}")


def test_the_operator_bounds_the_expiry(directory: Book) -> None:
    camera = Peer(Registrar(DOMAIN, directory, Clock(), longest_seconds=600))
    assert answer(camera.register(1.0, Expires="3600")).header("Expires") == "600"
    assert answer(camera.register(2.0, Expires="300")).header("Expires") == "300"


def test_wrong_password_and_unknown_id_look_the_same(registrar: Registrar) -> None:
    wrong = Peer(registrar, CAMERA, password="wrong")
    unknown = Peer(registrar, "34020000001320009999")
    seen = []
    for peer in (wrong, unknown):
        first = answer(peer.send(peer.request("REGISTER"), 1.0))
        second = answer(peer.register(1.0))
        seen.append([(r.status, r.reason, [name for name, _ in r.headers]) for r in (first, second)])
    assert seen[0] == seen[1]
    assert seen[0][1][0] == 403
    assert registrar.online == 0
    assert registrar.deadline is None


def test_wrong_password_leaves_the_binding_alone(camera: Peer, registrar: Registrar) -> None:
    camera.register(1.0)
    before = registrar.binding(CAMERA)
    thief = Peer(registrar, CAMERA, udp("203.0.113.9"), password="guess")
    effects = thief.register(2.0, Expires="0")
    assert answer(effects).status == 403
    assert only(effects, Counted)[0].name == "registrar.auth_failed"
    assert registrar.binding(CAMERA) == before


def test_disabled_device_is_refused(directory: Book, camera: Peer) -> None:
    directory.known[CAMERA] = Credentials(ha1(CAMERA, DOMAIN, PASSWORD), enabled=False)
    assert answer(camera.register(1.0)).status == 403


def test_the_username_must_be_the_device(camera: Peer, registrar: Registrar) -> None:
    camera.digest = DigestClient(RECORDER, PASSWORD)  # right password, right user, but of another device
    assert answer(camera.register(1.0)).status == 403
    assert registrar.online == 0


def test_consumed_nonce_is_stale(camera: Peer) -> None:
    first = camera.request("REGISTER")
    challenge = answer(camera.send(first, 1.0))
    name, value = camera.digest.answer(challenge, "REGISTER", camera.uri)
    assert answer(camera.send(camera.request("REGISTER", **{name: value}), 1.0)).status == 200
    effects = camera.send(camera.request("REGISTER", **{name: value}), 2.0)
    again = answer(effects)
    assert again.status == 401
    assert challenge_of(again).stale
    assert challenge_of(again).nonce != challenge_of(challenge).nonce
    assert again.header("X-GB-Ver") == "3.0"


@pytest.mark.parametrize("header", ["Basic abc", "Digest", 'Digest username="x"', "{realm8}"])
def test_credentials_for_somebody_else_are_challenged(camera: Peer, header: str) -> None:
    """Some devices keep the Authorization of another platform: refusing it outright would lock them out."""
    foreign = f'Digest username="{CAMERA}",realm="34020000",nonce="1715911200",uri="{camera.uri}",response="{"0" * 32}"'
    header = foreign if header == "{realm8}" else header
    effects = camera.send(camera.request("REGISTER", Authorization=header), 1.0)
    assert answer(effects).status == 401
    assert not challenge_of(answer(effects)).stale
    assert only(effects, Counted) == []


def test_sha256_is_offered_to_capable_devices(directory: Book, camera: Peer) -> None:
    directory.known[CAMERA] = Credentials.of(CAMERA, DOMAIN, PASSWORD, sha256_capable=True)
    response = answer(camera.send(camera.request("REGISTER"), 1.0))
    assert ["SHA-256" in each for each in response.headers.all("WWW-Authenticate")] == [True, False]
    assert answer(camera.register(1.0)).status == 200


@pytest.mark.conformance(89)
def test_failures_block_the_source_and_not_the_camera(registrar: Registrar) -> None:
    thief = Peer(registrar, CAMERA, udp("203.0.113.9"), password="guess")
    for n in range(limits.AUTH_FAILURES):
        assert answer(thief.register(1.0 + n)).status == 403
    effects = thief.send(thief.request("REGISTER"), 10.0)
    assert answer(effects).status == 403
    assert only(effects, Counted) == [Counted("registrar.throttled", "203.0.113.9")]
    camera = Peer(registrar)
    assert answer(camera.register(10.0)).status == 200
    # After the window the source is heard again.
    assert answer(thief.send(thief.request("REGISTER"), 1.0 + limits.AUTH_FAILURE_SECONDS)).status == 401


@pytest.mark.conformance(89)
def test_a_source_cannot_guess_at_many_ids(registrar: Registrar) -> None:
    source = udp("203.0.113.9")
    for n in range(limits.AUTH_SOURCE_FAILURES):
        peer = Peer(registrar, f"3402000000132000{n:04d}", source, password="guess")
        assert answer(peer.register(1.0)).status == 403
    effects = Peer(registrar, RECORDER, source).send(Peer(registrar, RECORDER, source).request("REGISTER"), 1.0)
    assert only(effects, Counted)[0].name == "registrar.throttled"


def test_an_online_camera_is_never_throttled_where_it_is(camera: Peer, registrar: Registrar) -> None:
    camera.register(1.0)
    neighbour = Peer(registrar, CAMERA, udp(port=6000), password="guess")  # the same NAT
    for _ in range(limits.AUTH_FAILURES):
        neighbour.register(2.0)
    assert answer(neighbour.send(neighbour.request("REGISTER"), 3.0)).status == 403
    assert answer(camera.register(3.0)).status == 200


def test_refresh_keeps_quiet_about_an_unchanged_device(camera: Peer, registrar: Registrar) -> None:
    camera.register(1.0)
    effects = camera.register(100.0)
    assert [type(effect) for effect in effects[1:]] == [SaveBinding, Refreshed]
    assert registrar.online == 1


def test_another_address_moves_the_binding(camera: Peer, registrar: Registrar) -> None:
    camera.register(1.0)
    camera.flow = udp("192.0.2.77", 6060)
    registered = only(camera.register(2.0), Registered)
    assert [(each.is_new, each.rebooted) for each in registered] == [(False, False)]
    assert registered[0].binding.flow == udp("192.0.2.77", 6060)
    old = Peer(registrar, CAMERA, udp())
    assert answer(old.message(KEEPALIVE, 3.0)).status == 403
    assert answer(camera.message(KEEPALIVE, 3.0)).status == 200


@pytest.mark.parametrize("change", ["call_id", "cseq"])
def test_reboot_is_noticed(camera: Peer, change: str) -> None:
    camera.cseq = 40
    camera.register(1.0)
    if change == "call_id":
        camera.call_id = "reg2"
    else:
        camera.cseq = 0
    assert [(each.is_new, each.rebooted) for each in only(camera.register(2.0), Registered)] == [(False, True)]


@pytest.mark.parametrize("contact", [None, "*"])
def test_unregister_is_authenticated(camera: Peer, registrar: Registrar, contact: str | None) -> None:
    camera.register(1.0)
    headers = {"Expires": "0"} | ({"Contact": contact} if contact else {})
    first = camera.send(camera.request("REGISTER", **headers), 2.0)
    assert answer(first).status == 401
    assert registrar.online == 1
    effects = camera.register(2.0, **headers)
    assert answer(effects).status == 200
    assert answer(effects).header("Expires") == "0"
    assert effects[1:] == [ForgetBinding(CAMERA), Offline(CAMERA, "unregistered")]
    assert registrar.online == 0


def test_star_without_expires_zero_is_refused(camera: Peer, registrar: Registrar) -> None:
    effects = camera.register(1.0, Contact="*", Expires="60")
    assert answer(effects).status == 400
    assert answer(effects).header("X-GB-Ver") == "3.0"
    assert registrar.online == 0


def test_register_in_another_name_is_refused(camera: Peer) -> None:
    response = answer(camera.send(camera.request("REGISTER", To=f"<sip:{RECORDER}@{DOMAIN}>"), 1.0))
    assert (response.status, response.header("X-GB-Ver")) == (403, "3.0")


@pytest.mark.conformance(12)
def test_binding_expires_after_its_grace(camera: Peer, registrar: Registrar) -> None:
    camera.register(0.0, Expires="60")
    end = 60 + limits.BINDING_GRACE_SECONDS
    camera.message(KEEPALIVE, 50.0)
    assert registrar.push(TICK, end - 0.1) == []
    assert list(registrar.push(TICK, end)) == [ForgetBinding(CAMERA), Offline(CAMERA, "expired")]


@pytest.mark.conformance(13)
def test_silence_for_three_intervals_is_offline(camera: Peer, registrar: Registrar) -> None:
    camera.register(0.0)
    now = 0.0
    for _ in range(5):
        now += 60
        assert answer(camera.message(KEEPALIVE, now)).status == 200
    deadline = registrar.deadline
    assert deadline is not None
    assert list(registrar.push(TICK, now + 179.9)) == []
    assert list(registrar.push(TICK, now + 180.0)) == [ForgetBinding(CAMERA), Offline(CAMERA, "keepalive")]
    assert answer(camera.message(KEEPALIVE, now + 181)).status == 403


def test_deadline_leads_to_offline_without_busy_waking(camera: Peer, registrar: Registrar) -> None:
    camera.register(0.0)
    camera.message(KEEPALIVE, 100.0)
    wakes, effects = 0, list[Effect]()
    while (deadline := registrar.deadline) is not None:
        effects += registrar.push(TICK, deadline)
        wakes += 1
    assert wakes == 2
    assert effects[-1] == Offline(CAMERA, "keepalive")


def test_a_long_interval_is_learned(camera: Peer, registrar: Registrar) -> None:
    camera.register(0.0)
    now = 10.0
    for _ in range(4):
        camera.message(KEEPALIVE, now)
        now += 150.0
    assert list(registrar.push(TICK, now - 150.0 + 3 * 150.0 - 1)) == []
    assert only(list(registrar.push(TICK, now + 3 * 150.0)), Offline) == [Offline(CAMERA, "keepalive")]


def test_an_interval_beyond_the_patience_is_learned_too(camera: Peer, registrar: Registrar) -> None:
    camera.register(0.0)
    offline = 0
    for n in range(1, 8):
        effects = camera.message(KEEPALIVE, n * 250.0)
        offline += len(only(effects, Offline))
        if answer(effects).status == 403:
            camera.register(n * 250.0 + 1)
    assert offline <= 3
    assert answer(camera.message(KEEPALIVE, 8 * 250.0)).status == 200


def test_the_interval_can_be_set(camera: Peer, registrar: Registrar) -> None:
    camera.register(0.0)
    registrar.push(HeartbeatSet(CAMERA, 10.0, 2), 1.0)
    assert list(registrar.push(TICK, 20.9)) == []
    assert only(list(registrar.push(TICK, 21.0)), Offline) == [Offline(CAMERA, "keepalive")]


@pytest.mark.conformance(14)
def test_closed_connection_is_offline(registrar: Registrar) -> None:
    camera = Peer(registrar, CAMERA, tcp(1))
    recorder = Peer(registrar, RECORDER, tcp(1))
    camera.register(1.0)
    recorder.register(1.0)
    effects = list(registrar.push(FlowGone(tcp(1)), 2.0))
    assert sorted(each.device_id for each in only(effects, Offline)) == sorted([CAMERA, RECORDER])
    assert {each.reason for each in only(effects, Offline)} == {"transport"}


def test_an_old_connection_that_closes_late_changes_nothing(registrar: Registrar) -> None:
    camera = Peer(registrar, CAMERA, tcp(1))
    camera.register(1.0)
    camera.flow = tcp(2)
    camera.register(2.0)
    assert list(registrar.push(FlowGone(tcp(1)), 3.0)) == []
    assert registrar.online == 1


@pytest.mark.conformance(33)
def test_message_is_answered_empty_and_handed_on(camera: Peer) -> None:
    camera.register(1.0)
    effects = camera.message(KEEPALIVE, 2.0)
    assert answer(effects).status == 200
    assert answer(effects).body == b""
    assert [(each.device_id, each.document.cmd_type) for each in only(effects, MessageReceived)] == [
        (CAMERA, "Keepalive")
    ]


def test_a_large_body_is_read_elsewhere_after_its_answer(camera: Peer, registrar: Registrar) -> None:
    camera.register(1.0)
    body = manscdp.catalog_part(1, CAMERA, 0, ()).replace(b"</Response>", b"<x>" + b"y" * 9_000 + b"</x></Response>")
    effects = camera.message(body, 2.0)
    assert answer(effects).status == 200
    assert effects[1:] == [ReadBody(CAMERA, body)]
    document = manscdp.parse(body)
    assert list(registrar.push(BodyRead(CAMERA, document), 2.5)) == [MessageReceived(CAMERA, document)]
    unreadable = registrar.push(BodyRead(CAMERA, ManscdpError("junk")), 2.5)
    assert only(list(unreadable), Counted)[0].name == "registrar.unreadable"


def test_a_large_body_of_a_device_that_went_meanwhile_is_left_out(camera: Peer, registrar: Registrar) -> None:
    camera.register(1.0)
    registrar.push(Dropped(CAMERA), 2.0)
    assert list(registrar.push(BodyRead(CAMERA, manscdp.parse(KEEPALIVE)), 2.5)) == []


def test_unreadable_body_is_counted(camera: Peer) -> None:
    camera.register(1.0)
    effects = camera.message(b"\xff\xfe junk", 2.0)
    assert answer(effects).status == 200
    assert only(effects, Counted)[0].name == "registrar.unreadable"


@pytest.mark.conformance(87)
def test_strangers_are_refused(camera: Peer, registrar: Registrar) -> None:
    assert answer(camera.message(KEEPALIVE, 1.0)).status == 403
    camera.register(2.0)
    for flow in (udp("203.0.113.9"), udp(port=5061), tcp(9, port=5060)):
        stranger = Peer(registrar, CAMERA, flow)
        effects = stranger.message(KEEPALIVE, 3.0)
        assert answer(effects).status == 403
        assert only(effects, MessageReceived) == []
        assert only(effects, Counted)[0].name == "registrar.stranger"
        assert answer(stranger.send(stranger.request("INVITE"), 3.0)).status == 403


def test_a_bound_device_cannot_speak_for_another(camera: Peer, registrar: Registrar) -> None:
    camera.register(1.0)
    Peer(registrar, RECORDER, udp("192.0.2.20")).register(1.0)
    assert answer(camera.message(KEEPALIVE, 2.0, from_id=RECORDER)).status == 403


def test_a_channel_speaks_for_its_device(camera: Peer, directory: Book) -> None:
    camera.register(1.0)
    channel = "34020000001310000009"
    assert answer(camera.message(KEEPALIVE, 2.0, from_id=channel)).status == 403
    directory.channels.add((CAMERA, channel))
    effects = camera.message(KEEPALIVE, 3.0, from_id=channel)
    assert answer(effects).status == 200
    assert only(effects, MessageReceived)[0].device_id == CAMERA


@pytest.mark.parametrize(
    ("method", "status"),
    [("OPTIONS", 200), ("INVITE", 488), ("SUBSCRIBE", 489), ("PUBLISH", 405), ("INFO", 481)],
)
def test_other_methods(camera: Peer, method: str, status: int) -> None:
    camera.register(1.0)
    response = answer(camera.send(camera.request(method), 2.0))
    assert response.status == status
    if status in (200, 405):
        assert "MESSAGE" in (response.header("Allow") or "")


def test_a_message_without_from_is_answered_once(camera: Peer) -> None:
    effects = camera.send(camera.request("MESSAGE", From=""), 1.0)
    assert answer(effects).status == 400


def test_dropped_by_the_operator(camera: Peer, registrar: Registrar) -> None:
    camera.register(1.0)
    assert list(registrar.push(Dropped(CAMERA), 2.0)) == [ForgetBinding(CAMERA), Offline(CAMERA, "removed")]
    assert list(registrar.push(Dropped(CAMERA), 2.0)) == []
    assert answer(camera.message(KEEPALIVE, 3.0)).status == 403


def test_restored_bindings(registrar: Registrar) -> None:
    kept = Binding(CAMERA, udp(), "sip:x", "reg1", 2, WALL + 100)
    over_tcp = Binding(RECORDER, tcp(3), "sip:x", "reg1", 2, WALL + 100)
    gone = Binding("34020000001320000077", udp(), "sip:x", "reg1", 2, WALL + 100)
    effects = list(registrar.push(Restored((kept, over_tcp, gone)), 5.0))
    assert effects == [
        SaveBinding(kept),
        Registered(CAMERA, kept, is_new=True, rebooted=False),
        ForgetBinding(RECORDER),
        ForgetBinding("34020000001320000077"),
    ]
    assert answer(Peer(registrar).message(KEEPALIVE, 6.0)).status == 200
    assert list(registrar.push(TICK, 105.0 + limits.BINDING_GRACE_SECONDS))[-1] == Offline(CAMERA, "expired")


def test_expired_bindings_are_not_restored(registrar: Registrar) -> None:
    old = Binding(CAMERA, udp(), "sip:x", "reg1", 2, WALL - limits.BINDING_GRACE_SECONDS - 1)
    assert list(registrar.push(Restored((old,)), 5.0)) == [ForgetBinding(CAMERA)]


def test_the_number_of_devices_is_bounded(monkeypatch: pytest.MonkeyPatch, camera: Peer, registrar: Registrar) -> None:
    monkeypatch.setattr(limits, "DEVICES", 1)
    camera.register(1.0)
    effects = Peer(registrar, RECORDER, udp("192.0.2.20")).register(1.0)
    assert answer(effects).status == 503
    assert answer(effects).header("X-GB-Ver") == "3.0"
    assert answer(camera.register(2.0)).status == 200


def test_date_can_be_switched_off(directory: Book, camera: Peer) -> None:
    directory.known[CAMERA] = Credentials(ha1(CAMERA, DOMAIN, PASSWORD), date_header=False)
    assert answer(camera.register(1.0)).header("Date") is None


def test_beijing_time() -> None:
    assert beijing(0.0) == "1970-01-01T08:00:00.000"


def test_twenty_thousand_devices_are_cheap() -> None:
    """A keepalive does not touch the heap: pushes stay far below a millisecond with 20,000 devices online."""
    device_ids = [f"34020000001320{n:06d}" for n in range(20_000)]
    known = Credentials.of("", DOMAIN, PASSWORD)
    registrar = Registrar(DOMAIN, Book(dict.fromkeys(device_ids, known)), Clock())
    bindings = tuple(
        Binding(each, udp(f"10.0.{n >> 8}.{n & 255}"), "sip:x", "r", 1, WALL + 3600)
        for n, each in enumerate(device_ids)
    )
    registrar.push(Restored(bindings), 0.0)
    assert registrar.online == 20_000
    peer = Peer(registrar, device_ids[7], udp("10.0.0.7"))
    request = peer.request("MESSAGE", KEEPALIVE)
    before = len(registrar._heap)
    for n in range(200):
        assert answer(list(registrar.push(RequestArrived(n, request, peer.flow), 60.0 + n / 100))).status == 200
    assert len(registrar._heap) == before
    effects = registrar.push(TICK, 180.0)
    assert len(only(list(effects), Offline)) == 19_999


@pytest.mark.fixtures
def test_every_captured_request_gets_one_answer(fixtures_dir: Path) -> None:
    """Registered or not, each captured request gets exactly one answer, and every MANSCDP body of a bound sender is
    handed on."""
    seen = handed_on = 0
    refused: dict[str, str] = {}
    for file in sorted((fixtures_dir / "sip").glob("*.sip")):
        try:
            message = parse(file.read_bytes())
        except SipError as error:
            refused[file.name] = error.message
            continue
        if not isinstance(message, Request) or message.method in ("ACK", "BYE", "CANCEL"):
            continue
        sender = message.from_.user
        registrar = Registrar(DOMAIN, book(sender), Clock())
        effects = list(registrar.push(RequestArrived(1, message, udp()), 1.0))
        assert answer(effects).status == {"REGISTER": 401, "NOTIFY": 481}.get(message.method, 403), file.name
        registrar.push(Restored((Binding(sender, udp(), "sip:x", "r", 1, WALL + 60),)), 2.0)
        effects = list(registrar.push(RequestArrived(2, message, udp()), 3.0))
        expected = {"REGISTER": 401, "INVITE": 488}.get(message.method, 200)
        assert answer(effects).status == expected, file.name
        if message.method in ("MESSAGE", "NOTIFY"):
            assert [each.device_id for each in only(effects, MessageReceived)] == [sender], file.name
            handed_on += 1
        seen += 1
    # Two answers copied from a text lost their Call-ID there; every request is read.
    assert refused == dict.fromkeys(
        ["moc_013_resp100_.sip", "moc_014_resp200__sdp.sip"], "The Call-ID header is missing."
    )
    assert seen >= 25
    assert handed_on >= 18


def test_recorders_tell_the_end_of_a_playback_in_odd_names(camera: Peer, registrar: Registrar) -> None:
    camera.register(1.0)
    effects = camera.message(KEEPALIVE, 2.0, from_id=PLATFORM)  # in the name of whom it is sent to
    assert answer(effects).status == 200
    assert only(effects, MessageReceived)[0].device_id == CAMERA
    other = "34020000001180000009"
    request = camera.request("MESSAGE", KEEPALIVE, other)
    assert answer(list(registrar.push(RequestArrived(1, request, camera.flow), 3.0))).status == 403
    effects = list(registrar.push(RequestArrived(2, request, camera.flow, dialog=7), 3.0))
    assert answer(effects).status == 200
    (told,) = only(effects, MessageReceived)
    assert (told.device_id, told.dialog) == (CAMERA, 7)
    # From an address that two devices share it is nobody's word, and a stranger's never is
    Peer(registrar, RECORDER, camera.flow).register(4.0)
    assert answer(list(registrar.push(RequestArrived(3, request, camera.flow, dialog=7), 5.0))).status == 403
    assert answer(list(registrar.push(RequestArrived(4, request, udp("203.0.113.9"), dialog=7), 5.0))).status == 403
