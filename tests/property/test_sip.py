"""Properties of the SIP layer: reading undoes writing, cuts do not matter, machines end, noise is only refused."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gbgw.base.machine import TICK
from gbgw.sip.agent import Ask, DialogOver, End, FlowClosed, Incoming, Received, Reply, UserAgent
from gbgw.sip.fields import NameAddr, Uri, Via
from gbgw.sip.flow import Flow
from gbgw.sip.message import Headers, Message, Request, Response
from gbgw.sip.parse import RefusedError, StreamParser, parse, serialize
from gbgw.sip.transaction import Input, Kind, State, Transaction
from tests.fuzz.fuzz_sip import check
from tests.support.sip import DEVICE, TCP, UDP, UDP_OTHER, Bench, answer, from_peer, invite, message

tokens = st.text("abcXYZ0189-._", min_size=1, max_size=12)
texts = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc", "Zs"]), max_size=20)
hosts = st.sampled_from(["3402000000", "192.0.2.1", "h.example", "2001:db8::1"])
ports = st.none() | st.integers(0, 65_535)
params = st.lists(
    st.tuples(st.text("abcdefgh-", min_size=1, max_size=6), st.none() | texts),
    max_size=3,
    unique_by=lambda pair: pair[0],
).map(tuple)
users = st.text(st.characters(max_codepoint=255), max_size=20)
METHODS = ["REGISTER", "MESSAGE", "INVITE", "BYE", "INFO", "OPTIONS", "CANCEL", "ACK", "NOTIFY", "ODD"]


@st.composite
def any_message(draw: st.DrawFn) -> Message:
    method = draw(st.sampled_from(METHODS))
    extra = draw(st.lists(st.tuples(tokens.map(lambda text: f"X-{text}"), texts), max_size=4))
    headers = Headers(
        [
            ("Via", f"SIP/2.0/UDP 10.0.0.5:5062;rport;branch=z9hG4bK{draw(tokens)}"),
            ("From", f"<sip:{DEVICE}@3402000000>;tag={draw(tokens)}"),
            ("To", "<sip:34020000002000000001@3402000000>" + draw(st.sampled_from(["", ";tag=x"]))),
            ("Call-ID", draw(tokens)),
            ("CSeq", f"{draw(st.integers(0, 2**32 - 1))} {method}"),
            *extra,
        ]
    )
    body = draw(st.binary(max_size=60))
    if draw(st.booleans()):
        return Request(headers, body, method, "sip:34020000002000000001@3402000000")
    return Response(headers, body, draw(st.integers(100, 699)), draw(texts))


@given(any_message())
def test_reading_undoes_writing(message: Message) -> None:
    again = parse(serialize(message))
    assert again == message
    assert serialize(again) == serialize(message)


@given(users, hosts, ports, params)
def test_uris_survive(user: str, host: str, port: int | None, given_params: tuple[tuple[str, str | None], ...]) -> None:
    plain = tuple((name, value) for name, value in given_params if value is None or value.isalnum())
    uri = Uri(user, host, port, plain)
    assert Uri.parse(str(uri)) == uri


@given(texts, params)
def test_addresses_survive(display: str, given_params: tuple[tuple[str, str | None], ...]) -> None:
    address = NameAddr("sip:a@h", display, given_params)
    assert NameAddr.parse(str(address)) == address


@given(st.sampled_from(["UDP", "TCP"]), hosts, ports, params)
def test_vias_survive(
    transport: str, host: str, port: int | None, given_params: tuple[tuple[str, str | None], ...]
) -> None:
    via = Via(transport, host, port, given_params)
    assert Via.parse(str(via)) == via


@given(st.lists(any_message(), min_size=1, max_size=4), st.data())
def test_any_cut_of_a_stream_gives_the_same_messages(messages: list[Message], data: st.DataObject) -> None:
    stream = b"".join(data.draw(st.sampled_from([b"", b"\r\n", b"\n"])) + serialize(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = StreamParser()
    found: list[object] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.push(stream[start:end])
    assert found == messages
    assert parser.pending_bytes == 0


DOCUMENTS = (
    ("MESSAGE", "Application/MANSCDP+xml", b"<Notify>\r\n<SN>%d</SN>\r\n</Notify>\r\n"),
    ("MESSAGE", "text/xml", b'<?xml version="1.0"?>\n<a:Response><SN>%d</SN><i>\xcd\xa8</i></a:Response>'),
    ("INVITE", "application/sdp", b"v=0\r\ns=Play\r\nm=video 6000 RTP/AVP 96\r\na=rtpmap:96 PS/90000\r\ny=%010d\r\n"),
)


@st.composite
def misstated(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A message whose length may be anything that does not happen to reach the end of the next one, which is at least
    190 bytes away, and its body without blanks at its end."""
    method, kind, pattern = draw(st.sampled_from(DOCUMENTS))
    body = pattern % draw(st.integers(0, 9_999))
    wrong = draw(st.none() | st.integers(-len(body), 150))
    if kind == "application/sdp" and wrong is not None and body[: len(body) + min(wrong, 0)].endswith((b"\n", b"\r")):
        wrong = 0  # a cut between two lines cannot be told from an end
    head = serialize(
        Request.new(
            method,
            "sip:34020000002000000001@3402000000",
            [
                ("Via", "SIP/2.0/TCP 10.0.0.5:5062;rport;branch=z9hG4bKa"),
                ("From", f"<sip:{DEVICE}@3402000000>;tag=1"),
                ("To", "<sip:34020000002000000001@3402000000>"),
                ("Call-ID", "c"),
                ("CSeq", f"1 {method}"),
                ("Content-Type", kind),
            ],
        )
    ).removesuffix(b"Content-Length: 0\r\n\r\n")
    length = b"" if wrong is None else b"Content-Length: %d\r\n" % (len(body) + wrong)
    return head + length + b"\r\n" + body, body.rstrip()


@given(st.lists(misstated(), min_size=1, max_size=4), any_message(), st.data())
def test_wrong_lengths_cost_no_message_in_any_cut(
    sent: list[tuple[bytes, bytes]], last: Message, data: st.DataObject
) -> None:
    """Also where several are wrong, and each tells where the one before it ended."""
    if isinstance(last, Request) and last.method == "ODD":
        last = Request(last.headers, last.body, "OPTIONS", last.uri).with_header("CSeq", "1 OPTIONS")
    stream = b"".join(message for message, _ in sent) + serialize(last)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = StreamParser(mends=True)
    found: list[object] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.push(stream[start:end])
    while more := parser.quiet():
        found += more
    assert [item.body.rstrip() for item in found[:-1] if isinstance(item, Request)] == [body for _, body in sent]
    assert found[-1] == last
    assert parser.pending_bytes == 0


@given(st.binary(max_size=300))
@example(b"\r\n\r\n")
@example(b"OPTIONS sip:a SIP/2.0\r\n\r\n")
def test_noise_is_only_refused(data: bytes) -> None:
    check(data)


@settings(max_examples=200, deadline=None)
@given(any_message(), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), min_size=1, max_size=6))
def test_damaged_messages_do_no_harm(message: Message, damage: list[tuple[int, bytes]]) -> None:
    data = bytearray(serialize(message))
    for at, piece in damage:
        data[at : at + len(piece)] = piece
    check(bytes(data))


@given(any_message(), st.integers(0, 500))
def test_a_cut_datagram_is_read_or_refused(message: Message, end: int) -> None:
    data = serialize(message)[:end]
    try:
        assert parse(data).call_id
    except RefusedError as error:
        assert 400 <= error.status < 600  # noqa: PT017  (both outcomes are right)


@given(
    st.sampled_from(list(Kind)),
    st.sampled_from([UDP, TCP]),
    st.lists(st.tuples(st.sampled_from(list(Input)[:6]), st.floats(0, 5)), max_size=20),
)
def test_every_transaction_ends(kind: Kind, flow: Flow, events: list[tuple[Input, float]]) -> None:
    now = 0.0
    transaction = Transaction(kind, Request(), flow, now)
    for event, pause in events:
        now += pause
        while transaction.fire(now) is not None:
            assert transaction.deadline >= 0
        transaction.push(event, now)
    for _ in range(100):
        if transaction.finished:
            break
        now = max(now, transaction.deadline)
        actions = transaction.fire(now)
        if actions and "UNANSWERED" in [action.name for action in actions]:
            transaction.push(Input.FAILURE, now)  # as the agent does
    assert transaction.state is State.TERMINATED
    assert transaction.fire(now + 1e6) is None


steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "invite", "end", "reply", "answer", "peer", "wait", "close"]),
        st.integers(0, 7),
        st.sampled_from([100, 180, 200, 302, 401, 486, 600]),
        st.floats(0, 40),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_whatever_happens_the_agent_comes_to_rest(story: list[tuple[str, int, int, float]]) -> None:
    bench = Bench()
    handles: list[int] = []
    named: list[int] = []  # INVITEs to a peer with a name
    waiting: list[Incoming] = []
    flows = [UDP, TCP, UDP_OTHER]
    for step, number, status, pause in story:
        flow = flows[number % 3]
        if step in ("ask", "invite"):
            handles.append(bench.agent.new_handle())
            if step == "ask":
                bench.push(Ask(handles[-1], message(), flow))
            else:
                bench.push(Ask(handles[-1], invite(), flow, peer="" if number % 2 else DEVICE))
                named += [] if number % 2 else [handles[-1]]
        elif step == "end":
            bench.push(End(handles[number % len(handles)] if handles and number < 6 else number))
        elif step == "reply" and waiting:
            incoming = waiting.pop(number % len(waiting))
            bench.push(Reply(incoming.handle, Response.to(incoming.request, status)))
        elif step == "answer":
            requests = [sent for _, sent in bench.sent() if isinstance(sent, Request)]
            if requests:
                sent = requests[-1 - number % len(requests)]
                bench.receive(answer(sent, status, tag=f"p{number % 2}"), flow)
        elif step == "peer":
            method = METHODS[number]
            made = bench.receive(
                from_peer(method, branch=f"z9hG4bK{number % 2}", to_tag="x" if number % 3 == 0 else ""), flow
            )
            waiting += [effect for effect in made if isinstance(effect, Incoming)]
        elif step == "wait":
            bench.run(pause)
        elif step == "close":
            bench.push(FlowClosed(TCP))
    for handle in [*handles, *(incoming.handle for incoming in waiting)]:
        bench.push(End(handle))
    bench.run_out(limit=5_000)
    for dialog in range(1, 200):
        bench.push(End(dialog))
    bench.run_out(limit=10_000)
    assert bench.agent.idle
    assert bench.agent.figures() == {}
    assert sorted(made.handle for _, made in bench.effects if isinstance(made, DialogOver)) == named
    agent = bench.agent
    ledger = agent._ledger
    books = (ledger.clients, ledger.servers, ledger.invites, ledger._connections)
    for book in (*books, agent._waiting, agent._asked, agent._calls, agent._accepts):
        assert not book


@pytest.mark.fixtures
def test_the_fuzz_target_takes_real_messages(fixtures_dir: Path) -> None:
    for file in sorted((fixtures_dir / "sip").glob("*.sip")) + sorted((fixtures_dir / "torture").rglob("*.dat")):
        check(file.read_bytes())


def test_replayed_corpus() -> None:
    for file in sorted((Path(__file__).parent.parent / "fuzz" / "corpus" / "sip").glob("*")):
        check(file.read_bytes())


def test_a_hundred_thousand_transactions_share_one_deadline() -> None:
    agent = UserAgent()
    for number in range(20_000):
        agent.push(Received(from_peer("MESSAGE", branch=f"z9hG4bK{number}"), UDP), number / 1000)
    assert agent.transactions == 20_000
    assert agent.deadline == 32.0
    fired = agent.push(TICK, 32.0)
    assert len(fired) == 2  # one answer for the user and one count
