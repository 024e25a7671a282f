"""Properties of gbgw/gb: whatever the order, damage or timing, the outcome is what the standard's rule says."""

import contextlib
import random
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gbgw.base import limits
from gbgw.base.errors import ManscdpError, RequestError, SdpError
from gbgw.base.machine import TICK
from gbgw.gb import ids, manscdp, sdp
from gbgw.gb.catalog import CatalogDone, CatalogQuery, build_tree
from gbgw.gb.manscdp import CatalogItem, CatalogPart
from gbgw.gb.registrar import (
    BEIJING,
    Dropped,
    FlowGone,
    ForgetBinding,
    Offline,
    Registered,
    Registrar,
    SaveBinding,
    beijing,
)
from gbgw.gb.ssrc import Ssrc, SsrcPool
from tests.unit.gb.support import CAMERA, DOMAIN, RECORDER, WALL, Peer, answer, book, tcp, udp

GB_IDS = st.from_regex(r"[0-9]{20}", fullmatch=True)
OPAQUE_IDS = st.from_regex(r"[0-9A-Za-z_]{1,32}", fullmatch=True)
TEXT = st.text(st.characters(codec="gb18030", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), max_size=40)
NAMES = TEXT.map(str.strip)


@given(st.text(max_size=80))
def test_ids_are_judged_without_raising(text: str) -> None:
    assert isinstance(ids.is_channel(text), bool)
    assert ids.classify(text) in ids.IdClass
    try:
        ids.check_device_id(text, by_operator=True)
    except RequestError:
        assert not ids.is_opaque_id(text)


@given(st.lists(st.one_of(st.just(None), st.integers(0, 50)), max_size=200))
def test_ssrcs_are_unique_among_the_active(steps: list[int | None]) -> None:
    pool, active, now = SsrcPool("34020000002000000001"), list[Ssrc](), 0.0
    for step in steps:
        now += 1.0
        if step is None or not active:
            ssrc = pool.allocate(now, history=bool(len(active) % 2))
            assert ssrc.value not in {each.value for each in active}
            assert len(ssrc.text) == 10
            active.append(ssrc)
        else:
            pool.release(active.pop(step % len(active)), now)
        assert pool.in_use == len(active)


# MANSCDP


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    for body in (data, b"<Notify>" + data, b"<Response><CmdType>Catalog</CmdType><DeviceList>" + data):
        assert _refusal(body).startswith("manscdp_")


def _refusal(body: bytes) -> str:
    """Return the code of the refusal, or one in its form for what was read."""
    try:
        return f"manscdp_{manscdp.parse(body).root}"
    except ManscdpError as error:
        return error.code


@settings(max_examples=200)
@given(st.data())
def test_damaged_documents_are_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(manscdp.catalog_part(7, RECORDER, 1, [CatalogItem(CAMERA, "门&", parent_ids=(RECORDER,))]))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"<", b">", b"&", b"\0", b'"', b"\x81", b"]]>", b""])
        )
    try:
        document = manscdp.parse(bytes(body))
    except ManscdpError:
        return
    if isinstance(document.payload, CatalogPart):
        assert all(ids.is_opaque_id(item.device_id) for item in document.payload.items)


ITEMS = st.builds(
    CatalogItem,
    device_id=GB_IDS,
    name=NAMES,
    manufacturer=NAMES,
    model=NAMES,
    civil_code=st.from_regex(r"[0-9]{0,10}", fullmatch=True),
    address=NAMES,
    parental=st.booleans(),
    parent_ids=st.lists(GB_IDS, max_size=3, unique=True).map(tuple),
    register_way=st.integers(1, 4),
    secrecy=st.booleans(),
    online=st.booleans(),
    ptz_type=st.none() | st.integers(1, 7),
)


@given(st.lists(ITEMS, max_size=5))
def test_written_catalogs_are_read_back(items: list[CatalogItem]) -> None:
    body = manscdp.catalog_part(7, RECORDER, len(items), items, "3.0")
    assert manscdp.parse(body).payload == CatalogPart(tuple(items), len(items))


@given(TEXT.filter(lambda text: len(text.encode("utf-8")) - len(text) >= 5), st.sampled_from(["gb18030", "utf-8"]))
def test_the_charset_is_found(text: str, charset: str) -> None:
    body = (
        f"<Notify><CmdType>x</CmdType><Name>{text.replace('&', '').replace('<', '').replace('>', '')}</Name></Notify>"
    )
    encoded = body.encode(charset)
    as_utf8 = encoded.decode("utf-8", "replace")
    if charset == "gb18030" and "\ufffd" not in as_utf8:
        return  # GB text that is UTF-8 by chance: no rule can tell
    element = manscdp.parse(encoded).element
    assert element.get("Name") == text.replace("&", "").replace("<", "").replace(">", "").strip()


# Catalog


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 30), st.randoms())
def test_catalog_parts_in_any_order_with_duplicates(
    count: int, per_part: int, duplicates: int, chance: random.Random
) -> None:
    items = [CatalogItem(f"34020000001320{n:06d}", register_way=1) for n in range(count)]
    parts = [manscdp.parse(body) for body in manscdp.catalog_response(7, RECORDER, items, per_part=per_part)]
    last = parts.pop(chance.randrange(len(parts)))
    early = parts + [chance.choice(parts) for _ in range(duplicates if parts else 0)]
    chance.shuffle(early)
    query, now = CatalogQuery(RECORDER, 7, 0.0), 0.0
    for part in early:
        now += 0.01
        assert query.push(part, now) == []  # not before the last item came
    (done,) = query.push(last, now)
    assert isinstance(done, CatalogDone)
    assert done.complete
    assert sorted(done.items, key=lambda item: item.device_id) == items


@given(
    st.lists(st.tuples(st.integers(1, 8), st.lists(st.integers(0, 9), max_size=6)), max_size=20),
    st.lists(st.floats(0, 40)),
)
def test_a_catalog_query_always_ends(parts: list[tuple[int, list[int]]], waits: list[float]) -> None:
    query, now, done = CatalogQuery(RECORDER, 7, 0.0), 0.0, list[object]()
    for (total, numbers), wait in zip(parts, waits, strict=False):
        now += wait
        items = [CatalogItem(f"34020000001320{n:06d}") for n in numbers]
        done += query.push(manscdp.parse(manscdp.catalog_part(7, RECORDER, total, items)), now)
    while not query.finished:
        deadline = query.deadline
        assert deadline is not None
        done += query.push(TICK, max(deadline, now))
    assert len([each for each in done if isinstance(each, CatalogDone)]) == 1


@given(st.lists(st.tuples(st.integers(0, 12), st.lists(st.integers(0, 12), max_size=3)), max_size=13))
def test_every_item_of_a_tree_is_reachable_and_no_path_returns(edges: list[tuple[int, list[int]]]) -> None:
    def item_id(n: int) -> str:
        return f"34020000002160{n:06d}"

    tree = build_tree([CatalogItem(item_id(n), parent_ids=tuple(map(item_id, above))) for n, above in edges], RECORDER)
    reached: set[str] = set()

    def walk(node: str, path: tuple[str, ...]) -> None:
        assert node not in path
        reached.add(node)
        for child in tree.children.get(node, ()):
            if child not in reached or len(path) < 4:
                walk(child, (*path, node))

    walk(RECORDER, ())
    assert reached == {RECORDER, *tree.items}


# SDP


TOKENS = st.from_regex(r"[A-Za-z0-9.-]{1,12}", fullmatch=True)
VALUES = st.from_regex(r"[A-Za-z0-9/.: -]{1,30}", fullmatch=True).map(str.strip).filter(bool)
ADDRESSES = st.ip_addresses().map(str)
ATTRIBUTES = st.lists(st.tuples(TOKENS, st.none() | VALUES), max_size=4).map(tuple)
MEDIA = st.builds(
    sdp.MediaDescription,
    media=st.sampled_from(["video", "audio"]),
    port=st.integers(0, 65_535),
    protocol=st.sampled_from(["RTP/AVP", "TCP/RTP/AVP"]),
    formats=st.lists(st.integers(0, 127).map(str), min_size=1, max_size=4).map(tuple),
    address=st.just("") | ADDRESSES,
    attributes=ATTRIBUTES,
)
DESCRIPTIONS = st.builds(
    sdp.SessionDescription,
    origin_id=GB_IDS,
    origin_address=ADDRESSES,
    name=st.sampled_from(["Play", "Playback", "Download"]),
    uri=st.just("") | GB_IDS.map("{}:3".format),
    address=st.just("") | ADDRESSES,
    time=st.tuples(st.integers(0, 2_000_000_000), st.integers(0, 2_000_000_000)),
    attributes=ATTRIBUTES,
    media=st.lists(MEDIA, min_size=1, max_size=3).map(tuple),
    ssrc_text=st.just("") | st.from_regex(r"[01][0-9]{9}", fullmatch=True),
    media_format=st.sampled_from(["", "v/////a///", "v/2/6/25/1/4000a/1/8/1"]),
)


@given(DESCRIPTIONS)
def test_sdp_parse_is_the_inverse_of_serialize(description: sdp.SessionDescription) -> None:
    assert sdp.parse(description.serialize()) == description


@given(st.binary(max_size=300))
def test_random_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    offer = sdp.live_offer("34020000002000000001", "192.0.2.1", 30000, "udp", "0200000001")
    for body in (data, b"m=video 9 RTP/AVP 96\n" + data, b"m=video " + data):
        with contextlib.suppress(SdpError):
            assert sdp.read_answer(body, offer).port > 0


# Registrar


@given(st.floats(0, 4_000_000_000))
def test_date_has_the_form_of_the_standard(wall: float) -> None:
    text = beijing(wall)
    assert len(text) == 23
    read = datetime.fromisoformat(text).replace(tzinfo=BEIJING).timestamp()
    assert abs(read - wall) < 0.002


class RegistrarMachine(RuleBasedStateMachine):
    """Two devices do anything in any order; the registrar's own account and the effects it gave must agree, and
    silence ends in offline."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.registrar = Registrar(DOMAIN, book(CAMERA, RECORDER), lambda: WALL + self.now)
        self.peers = [Peer(self.registrar, CAMERA), Peer(self.registrar, RECORDER, udp("192.0.2.20"))]
        self.online: set[str] = set()
        self.saved: set[str] = set()

    def take(self, effects: object) -> None:
        assert isinstance(effects, (list, tuple))
        for effect in effects:
            match effect:
                case Registered(device_id, _, is_new, _):
                    assert is_new == (device_id not in self.online)
                    self.online.add(device_id)
                case Offline(device_id, _):
                    self.online.remove(device_id)
                case SaveBinding(binding):
                    self.saved.add(binding.device_id)
                case ForgetBinding(device_id):
                    self.saved.discard(device_id)

    @rule(which=st.integers(0, 1), expires=st.sampled_from(["60", "600", "3600", "0"]))
    def register(self, which: int, expires: str) -> None:
        peer = self.peers[which]
        first = peer.send(peer.request("REGISTER", Expires=expires), self.now)
        self.take(first)
        assert answer(first).status == 401
        name, value = peer.digest.answer(answer(first), "REGISTER", peer.uri)
        second = peer.send(peer.request("REGISTER", Expires=expires, **{name: value}), self.now)
        self.take(second)
        assert answer(second).status == 200
        assert (peer.device_id in self.online) == (expires != "0")

    @rule(which=st.integers(0, 1))
    def guess(self, which: int) -> None:
        thief = Peer(self.registrar, self.peers[which].device_id, udp("203.0.113.9"), password="guess")
        effects = thief.send(thief.request("REGISTER"), self.now)
        self.take(effects)
        if answer(effects).status == 401:
            before = self.registrar.binding(thief.device_id)
            name, value = thief.digest.answer(answer(effects), "REGISTER", thief.uri)
            effects = thief.send(thief.request("REGISTER", Expires="0", **{name: value}), self.now)
            self.take(effects)
        else:
            before = self.registrar.binding(thief.device_id)
        assert answer(effects).status == 403
        assert self.registrar.binding(thief.device_id) == before

    @rule(which=st.integers(0, 1))
    def keepalive(self, which: int) -> None:
        peer = self.peers[which]
        effects = peer.message(manscdp.keepalive(1, peer.device_id), self.now)
        self.take(effects)
        assert (answer(effects).status == 200) == (peer.device_id in self.online)

    @rule(which=st.integers(0, 1), kind=st.sampled_from(["udp", "tcp"]), number=st.integers(1, 3))
    def move(self, which: int, kind: str, number: int) -> None:
        peer = self.peers[which]
        flow = udp(f"192.0.2.{10 * which + number}") if kind == "udp" else tcp(number, f"192.0.2.{10 * which + number}")
        binding = self.registrar.binding(peer.device_id)
        if binding is None:
            peer.flow = flow

    @rule(number=st.integers(1, 3))
    def close(self, number: int) -> None:
        for which in (0, 1):
            self.take(self.registrar.push(FlowGone(tcp(number, f"192.0.2.{10 * which + number}")), self.now))

    @rule(which=st.integers(0, 1))
    def drop(self, which: int) -> None:
        self.take(self.registrar.push(Dropped(self.peers[which].device_id), self.now))

    @rule(seconds=st.sampled_from([0.5, 30.0, 59.0, 100.0, 181.0, 5000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.registrar.push(TICK, self.now))
        deadline = self.registrar.deadline
        assert deadline is None or deadline > self.now

    @invariant()
    def accounts_agree(self) -> None:
        assert self.registrar.online == len(self.online)
        assert {binding.device_id for binding in self.registrar.bindings()} == self.online
        assert self.saved == self.online
        assert bool(self.online) <= (self.registrar.deadline is not None)
        assert len(self.registrar._by_flow) <= len(self.online)

    def teardown(self) -> None:
        """Silence: every device ends offline, by the deadlines alone."""
        for _ in range(100):
            deadline = self.registrar.deadline
            if deadline is None:
                break
            assert deadline < self.now + limits.REGISTER_MAX_SECONDS + limits.BINDING_GRACE_SECONDS
            self.take(self.registrar.push(TICK, deadline))
        assert self.online == set()
        assert self.registrar.online == 0
        assert self.registrar.deadline is None


TestRegistrar = RegistrarMachine.TestCase
TestRegistrar.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
